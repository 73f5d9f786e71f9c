-- Terms are transactional, heartbeats are not.
CREATE EXTENSION leader_election;

-- a term cannot begin inside a block: a rollback would make true a lie
BEGIN;
SELECT le_try_acquire(1, 'node-a', 600000);
\echo :SQLSTATE
ROLLBACK;
SELECT le_leader(1) IS NULL AS vacant;
-- nor in several statements sent at once, which are a block of their own
SELECT 1 \; SELECT le_try_acquire(1, 'node-a', 600000);
\echo :SQLSTATE
-- nor behind a subtransaction's start in PL/pgSQL
DO $$
BEGIN
	PERFORM le_try_acquire(1, 'node-a', 600000);
EXCEPTION WHEN active_sql_transaction THEN
	RAISE NOTICE 'refused with %', SQLSTATE;
END $$;
SELECT le_leader(1) IS NULL AS vacant;

-- also while somebody else leads: who is told false there today would find out
-- on the day on which it wins
SELECT le_try_acquire(1, 'node-a', 600000);
BEGIN;
SELECT le_try_acquire(1, 'node-b', 600000);
\echo :SQLSTATE
ROLLBACK;
SELECT le_renew(1, 'node-a');
BEGIN;
SELECT le_try_acquire(1, 'node-b', 600000);
\echo :SQLSTATE
ROLLBACK;
BEGIN;
SAVEPOINT a;
SELECT le_try_acquire(1, 'node-b', 600000);
\echo :SQLSTATE
ROLLBACK;

-- heartbeats and releases may be anywhere
BEGIN;
SELECT le_try_acquire(1, 'node-a', 600000), le_renew(1, 'node-a');
SELECT le_release(1, 'node-a');
SELECT le_leader(1) IS NULL AS vacant_to_itself, le_renew(1, 'node-a'), le_is_leader(1, 'node-a');
COMMIT;
SELECT le_leader(1) IS NULL AS vacant;

-- the setting permits it; true then counts from COMMIT
SET leader_election.allow_in_transaction = on;
BEGIN;
SELECT le_try_acquire(1, 'node-a', 600000), le_try_acquire(1, 'node-b', 600000);
SELECT le_renew(1, 'node-a'), le_leader(1), le_token(1, 'node-a') > 0 AS token;
COMMIT;
SELECT le_leader(1), le_renew(1, 'node-a');

-- rollback undoes an acquisition
BEGIN;
SELECT le_try_acquire(2, 'node-a', 600000), le_renew(2, 'node-a'), le_renew(2, 'node-a');
ROLLBACK;
SELECT le_leader(2) IS NULL AS vacant, le_try_acquire(2, 'node-b', 600000);
-- and a release, but no heartbeat
BEGIN;
SELECT le_renew(1, 'node-a');
SELECT renewals AS before FROM leader_lease WHERE id = 1 \gset
SELECT le_renew(1, 'node-a'), le_release(1, 'node-a'), le_leader(1) IS NULL AS vacant;
ROLLBACK;
SELECT le_leader(1), renewals = :before + 1 AS kept FROM leader_lease WHERE id = 1;
SELECT le_renew(1, 'node-a');
SELECT renewals = :before + 2 AS goes_on FROM leader_lease WHERE id = 1;

-- savepoints do the same
BEGIN;
SAVEPOINT a;
SELECT le_try_acquire(3, 'node-a', 600000), le_leader(3);
ROLLBACK TO a;
SELECT le_leader(3) IS NULL AS vacant, le_try_acquire(3, 'node-b', 600000);
SAVEPOINT b;
SELECT le_release(3, 'node-b'), le_release(1, 'node-a');
ROLLBACK TO b;
SELECT le_leader(3), le_renew(3, 'node-b'), le_leader(1), le_renew(1, 'node-a');
COMMIT;
SELECT le_leader(3), le_renew(3, 'node-b');

-- acquired, renewed and released in one transaction, and once more
BEGIN;
SELECT le_try_acquire(4, 'node-a', 600000), le_renew(4, 'node-a'), le_release(4, 'node-a'),
	   le_try_acquire(4, 'node-b', 600000), le_renew(4, 'node-b'), le_renew(4, 'node-a');
COMMIT;
SELECT le_leader(4), le_renew(4, 'node-b');

-- a lease of one's own that ran out inside the block is taken again
BEGIN;
SELECT le_try_acquire(5, 'node-a', 1), pg_sleep(0.01);
SELECT le_leader(5) IS NULL AS over, le_renew(5, 'node-a');
SELECT le_try_acquire(5, 'node-b', 600000);
COMMIT;
SELECT le_leader(5);

-- a commit that comes after the lease it began has run out is refused
CREATE TABLE work (done int);
BEGIN;
SELECT le_try_acquire(6, 'node-a', 1);
INSERT INTO work VALUES (1);
SELECT pg_sleep(0.01);
COMMIT;
\echo :SQLSTATE
SELECT count(*) FROM work;
SELECT count(*) FROM leader_lease WHERE id = 6;
-- unless a savepoint has undone the term
BEGIN;
SAVEPOINT a;
SELECT le_try_acquire(6, 'node-a', 1);
ROLLBACK TO a;
INSERT INTO work VALUES (2);
SELECT pg_sleep(0.01);
COMMIT;
SELECT * FROM work;
-- or it was kept alive, or released
BEGIN;
SELECT le_try_acquire(6, 'node-a', 2000), le_try_acquire(7, 'node-a', 1), le_release(7, 'node-a');
DO $$
BEGIN
	WHILE clock_timestamp() < now() + interval '2.2 s' LOOP
		IF NOT le_renew(6, 'node-a') THEN RAISE 'lost'; END IF;
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;
COMMIT;
SELECT created_at < clock_timestamp() - interval '2.1 s' AS outlived FROM leader_lease WHERE id = 6;
RESET leader_election.allow_in_transaction;

-- one statement that acquires, renews and then fails leaves nothing behind:
-- on a vacant lock
SELECT le_try_acquire(8, 'node-b', 600000), le_renew(8, 'node-b'), 1 / (random() * 0)::int;
SELECT le_leader(8) IS NULL AS vacant, count(*) FROM leader_lease WHERE id = 8;
SELECT le_try_acquire(8, 'node-c', 600000);
-- and on a live one
SELECT le_try_acquire(8, 'node-b', 600000), le_renew(8, 'node-b'), 1 / (random() * 0)::int;
SELECT leader_id, renewals FROM leader_lease WHERE id = 8;

-- PREPARE TRANSACTION and terms do not go together
BEGIN;
SELECT le_release(8, 'node-c');
PREPARE TRANSACTION 'release';
\echo :SQLSTATE
SELECT le_leader(8);
BEGIN;
SET LOCAL leader_election.allow_in_transaction = on;
SELECT le_try_acquire(9, 'node-a', 600000);
PREPARE TRANSACTION 'acquire';
\echo :SQLSTATE
SELECT le_leader(9) IS NULL AS vacant;

-- calls from functions, in and out of a block
CREATE FUNCTION take_the_lead(bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN le_try_acquire($1, 'node-a', 600000); END $$;
SELECT take_the_lead(10);
CREATE PROCEDURE lead_and_commit(bigint) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM le_try_acquire($1, 'node-a', 600000);
	COMMIT;
	PERFORM le_release($1, 'node-a');
	ROLLBACK;
END $$;
CALL lead_and_commit(11);
SELECT le_leader(10), le_leader(11);

-- a weaker synchronous_commit is raised for the transition alone
SET synchronous_commit = off;
SELECT le_try_acquire(12, 'node-a', 600000);
SHOW synchronous_commit;
RESET synchronous_commit;

DROP TABLE work;
DROP FUNCTION take_the_lead;
DROP PROCEDURE lead_and_commit;
DROP EXTENSION leader_election;
