-- DROP EXTENSION ends every lease, CREATE EXTENSION starts afresh.
CREATE EXTENSION leader_election;
SELECT le_try_acquire(1, 'node-a', 600000), le_renew(1, 'node-a');
SELECT le_token(1, 'node-a') AS token \gset
DROP EXTENSION leader_election;
\set VERBOSITY sqlstate
SELECT le_leader(1);
\set VERBOSITY default
CREATE EXTENSION leader_election;
SELECT le_leader(1) IS NULL AS vacant, le_renew(1, 'node-a', :token);
SELECT le_try_acquire(1, 'node-b', 600000), le_token(1, 'node-b') > :token AS grown;

-- a rolled back DROP has ended nothing
BEGIN;
DROP EXTENSION leader_election;
ROLLBACK;
SELECT le_renew(1, 'node-b'), le_leader(1);

-- dropped in the transaction that has begun a term
BEGIN;
SET LOCAL leader_election.allow_in_transaction = on;
SELECT le_try_acquire(2, 'node-a', 600000);
DROP EXTENSION leader_election;
COMMIT;

-- made and used in one transaction
BEGIN;
CREATE EXTENSION leader_election;
SET LOCAL leader_election.allow_in_transaction = on;
SELECT le_try_acquire(2, 'node-a', 600000), le_renew(2, 'node-a');
COMMIT;
SELECT le_leader(2), le_renew(2, 'node-a');

-- its parts cannot go alone
DROP TABLE le_lease;
DROP FUNCTION le_renew;
DROP EXTENSION leader_election;
