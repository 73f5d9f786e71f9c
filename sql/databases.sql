-- Each database has its own locks.
CREATE DATABASE regress_le_one;
CREATE DATABASE regress_le_two;
SELECT current_database() AS here \gset
\c regress_le_one
CREATE EXTENSION leader_election;
SELECT le_try_acquire(1, 'node-a', 600000), le_renew(1, 'node-a');
\c regress_le_two
CREATE EXTENSION leader_election;
SELECT le_leader(1) IS NULL AS vacant;
SELECT le_try_acquire(1, 'node-b', 600000), le_renew(1, 'node-b');
SELECT id, leader_id FROM leader_lease;
\c regress_le_one
SELECT le_leader(1), le_renew(1, 'node-a'), le_renew(1, 'node-b');
SELECT le_try_acquire(2, 'node-a', 600000);
SELECT id, leader_id FROM leader_lease;

-- a copy of a database has the rows, but those terms are the original's: in
-- the copy its locks are vacant, tokens grow on, and the rows can be swept
\c :here
CREATE DATABASE regress_le_copy TEMPLATE regress_le_one;
\c regress_le_copy
SELECT count(*) AS rows FROM le_lease;
SELECT count(*) AS leases FROM leader_lease;
SELECT le_leader(1) IS NULL AS vacant, le_renew(1, 'node-a'), le_release(1, 'node-a'), le_is_leader(1, 'node-a');
SELECT token AS copied FROM le_lease WHERE lock_id = 1 \gset
SELECT le_try_acquire(1, 'node-c', 600000), le_renew(1, 'node-c'), le_try_acquire(1, 'node-a', 600000);
SELECT le_token(1, 'node-c') > :copied AS grown, le_leader(1);
SELECT le_sweep(0) AS swept;
SELECT lock_id, leader_id FROM le_lease;
-- nor have they ended
SELECT count(*) AS ended FROM leader_history;
\c regress_le_one
SELECT le_leader(1), le_renew(1, 'node-a');

-- dropped with live leases, and no sweeper is in the way
\c :here
DROP DATABASE regress_le_one;
DROP DATABASE regress_le_two;
DROP DATABASE regress_le_copy;
