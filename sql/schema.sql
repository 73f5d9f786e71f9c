-- The extension lives in any schema, and moves.
CREATE SCHEMA "Election";
CREATE EXTENSION leader_election SCHEMA "Election";
SELECT "Election".le_try_acquire(1, 'node-a', 600000);
SELECT "Election".le_renew(1, 'node-a'), "Election".le_leader(1);
SELECT id, leader_id FROM "Election".leader_lease;
SELECT "Election".le_try_acquire(2, "Election".le_instance('x'), 600000), "Election".le_lock_id('x') > 0 AS id;

-- neither an empty search_path nor another le_lease in it matters
SET search_path = '';
SELECT "Election".le_try_acquire(3, 'node-a', 600000), "Election".le_renew(1, 'node-a');
SELECT count(*) FROM "Election".leader_lease;
RESET search_path;

-- moved, with its leases and heartbeats
SELECT "Election".le_token(1, 'node-a') AS token \gset
CREATE SCHEMA moved;
ALTER EXTENSION leader_election SET SCHEMA moved;
SELECT moved.le_leader(1), moved.le_renew(1, 'node-a', :token), moved.le_try_acquire(1, 'node-b', 600000);
SELECT moved.le_release(1, 'node-a'), moved.le_try_acquire(1, 'node-b', 600000), moved.le_token(1, 'node-b') > :token AS grown;
SELECT id, leader_id, state FROM moved.leader_lease WHERE id = 1;
SELECT moved.le_sweep(), version FROM moved.le_info();

DROP EXTENSION leader_election;
DROP SCHEMA moved;
DROP SCHEMA "Election";
