-- REPEATABLE READ and SERIALIZABLE callers see the truth of now, and these
-- calls give them nothing to fail on.  (The races with other sessions are in
-- specs/race-snapshot.)
CREATE EXTENSION leader_election;
SELECT le_try_acquire(1, 'node-a', 1000);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT le_leader(1);
DO $$ BEGIN WHILE le_leader(1) IS NOT NULL LOOP PERFORM pg_sleep(0.001); END LOOP; END $$;
SELECT state FROM leader_lease;
COMMIT;

SET leader_election.allow_in_transaction = on;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count(*) FROM leader_lease;
SELECT le_try_acquire(1, 'node-b', 600000), le_renew(1, 'node-b'), le_leader(1);
SELECT leader_id FROM leader_lease;
SELECT le_release(1, 'node-b');
SELECT count(*) FROM leader_lease;
SELECT le_try_acquire(1, 'node-c', 600000);
COMMIT;
SELECT leader_id, state FROM leader_lease;

-- no predicate lock is taken on our table
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT le_leader(2), le_try_acquire(3, 'node-a', 600000), count(*) FROM leader_lease;
SELECT count(*) FROM pg_locks WHERE mode = 'SIReadLock' AND relation = 'le_lease'::regclass;
COMMIT;

DROP EXTENSION leader_election;
