-- Each term that ends leaves one row, in the transaction that ends it.
CREATE EXTENSION leader_election;
CREATE ROLE regress_le_app;
CREATE ROLE regress_le_operator;
GRANT EXECUTE ON FUNCTION le_try_acquire, le_renew, le_release, le_transfer, le_leader, le_token TO regress_le_app;
GRANT EXECUTE ON FUNCTION le_revoke TO regress_le_operator;

CREATE FUNCTION wait_until(condition text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE done boolean;
BEGIN
	LOOP
		EXECUTE 'SELECT ' || condition INTO done;
		EXIT WHEN done;
		PERFORM pg_sleep(0.001);
	END LOOP;
END $$;

-- a living term has not ended
SET ROLE regress_le_app;
SELECT le_try_acquire(1, 'node-a', 600000), le_renew(1, 'node-a'), le_try_acquire(1, 'node-b');
RESET ROLE;
SELECT count(*) AS ended FROM leader_history;

-- released, also with a hold (a heartbeat of the statement that begins the term
-- does not count)
SET ROLE regress_le_app;
SELECT le_renew(1, 'node-a'), le_release(1, 'node-b'), le_release(1, 'node-a');
SELECT le_try_acquire(2, 'node-a', 500000), le_release(2, 'node-a', hold_ms => 600000);
-- transferred, and the successor's
SELECT le_try_acquire(3, 'node-a', 600000);
SELECT le_renew(3, 'node-a');
SELECT le_transfer(3, 'node-a', le_token(3, 'node-a'), 'node-b');
SELECT le_renew(3, 'node-b');
SELECT le_renew(3, 'node-b'), le_release(3, 'node-b');
-- revoked, also immediately
SELECT le_try_acquire(4, 'node-a', 600000), le_try_acquire(5, 'node-a', 600000), le_try_acquire(5, 'node-a', 600000);
SET ROLE regress_le_operator;
SET client_min_messages = error;    -- how long somebody may believe still
SELECT le_revoke(4), le_revoke(5, true);
-- what is revoked already does not end again
SELECT le_revoke(4), le_revoke(4, true);
RESET client_min_messages;
-- run out, and noticed later: by a successor, by a sweep
SET ROLE regress_le_app;
SELECT le_try_acquire(6, 'node-a', 200);
DO $$
BEGIN
	PERFORM le_try_acquire(7, 'node-a', 500);
	COMMIT;
	PERFORM pg_sleep(0.1);
	ASSERT le_renew(7, 'node-a');
END $$;
RESET ROLE;
-- there is no time between a term that is handed over and the next
SELECT bool_or(ended = next_began) AS at_once
FROM (SELECT ended, lead(began) OVER (ORDER BY token) AS next_began FROM leader_history WHERE lock_id = 3) AS term;
SELECT renewed_at FROM leader_lease WHERE id = 7 \gset
SELECT wait_until('le_leader(6) IS NULL AND le_leader(7) IS NULL');
SELECT clock_timestamp() AS over_at FROM pg_sleep(0) \gset
SELECT count(*) AS nobody_has_noticed FROM leader_history WHERE lock_id IN (6, 7);
SELECT FROM pg_sleep(0.5);
SELECT le_try_acquire(6, 'node-b', 600000), le_sweep(0) AS swept;

SELECT lock_id, instance, leader_role, lease_ms, ended_how, ended_by, renewals
FROM leader_history WHERE ended_by IS DISTINCT FROM current_user ORDER BY token;
SELECT count(*) AS all_shown FROM leader_history;
-- began and ended in order; who has run out ended with his lease
SELECT lock_id FROM leader_history WHERE NOT (began <= ended AND ended <= clock_timestamp());
SELECT lock_id, ended < :'over_at'::timestamptz + interval '0.2 s' AS in_time,
	   ended - began >= lease_ms * interval '1 ms' AS not_sooner,
	   lock_id = 6 OR ended - :'renewed_at' >= lease_ms * interval '1.099 ms' AS with_the_last_heartbeat
FROM leader_history WHERE ended_how = 'expired' ORDER BY lock_id;
-- what a heartbeat has found left is of the lease, and NULL without a heartbeat
SELECT lock_id, renewals > 0 AS renewed, least_left_ms > 0 AND least_left_ms <= lease_ms * 1.1 AS least_left
FROM leader_history ORDER BY token;
-- tokens of a lock grow, and each term is there once
SELECT count(*) = count(DISTINCT (lock_id, token)) AS once FROM leader_history;

-- the least that any heartbeat has found, not the last
SELECT le_try_acquire(8, 'node-a', 10000);
SELECT FROM pg_sleep(0.1);
SELECT le_renew(8, 'node-a'), le_renew(8, 'node-a'), le_release(8, 'node-a');
SELECT renewals, least_left_ms BETWEEN 1 AND 10900 AS least FROM leader_history WHERE lock_id = 8;

-- undone, also to a savepoint: nothing has ended
SELECT count(*) AS ended FROM leader_history \gset
SELECT le_try_acquire(9, 'node-a', 600000);
BEGIN;
SELECT le_release(9, 'node-a');
SELECT count(*) - :ended AS of_this_transaction FROM leader_history;
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT le_transfer(9, 'node-a', le_token(9, 'node-a'), 'node-b');
ROLLBACK TO s;
COMMIT;
DO $$
BEGIN
	PERFORM le_release(9, 'node-a');
	RAISE EXCEPTION USING message = 'undone';
EXCEPTION WHEN raise_exception THEN
END $$;
SELECT count(*) - :ended AS undone, le_renew(9, 'node-a') FROM leader_history;
BEGIN;
SAVEPOINT s;
SELECT le_release(9, 'node-a');
RELEASE s;
COMMIT;
SELECT count(*) - :ended AS one FROM leader_history;
SELECT renewals, instance FROM leader_history WHERE lock_id = 9;

-- begun and ended in one transaction; a reader of an older snapshot sees it
BEGIN ISOLATION LEVEL REPEATABLE READ;
SET LOCAL leader_election.allow_in_transaction = on;
SELECT le_try_acquire(10, 'node-a', 600000), le_release(10, 'node-a'), le_try_acquire(10, 'node-b', 600000), le_release(10, 'node-b');
SELECT lock_id, instance, renewals, ended_how FROM leader_history WHERE lock_id = 10 ORDER BY token;
COMMIT;

-- what only keeps a lock vacant is no term: replaced or swept, it does not end
SET client_min_messages = error;
SELECT le_try_acquire(id, 'node-a', 600000), le_release(id, 'node-a', hold_ms => 300) FROM generate_series(21, 22) AS id;
SELECT le_try_acquire(id, 'node-a', 300), le_revoke(id) FROM generate_series(23, 24) AS id;
SELECT le_try_acquire(id, 'node-a', 300), le_revoke(id, true) FROM generate_series(25, 26) AS id;
RESET client_min_messages;
SELECT wait_until('NOT EXISTS (SELECT FROM leader_lease WHERE id BETWEEN 21 AND 26 AND state <> ''expired'')');
SELECT le_try_acquire(id, 'node-b', 600000) AS replaced FROM generate_series(21, 25, 2) AS id;
SELECT le_sweep(0) AS swept;
SELECT lock_id, array_agg(ended_how) FROM leader_history WHERE lock_id BETWEEN 21 AND 26 GROUP BY lock_id ORDER BY lock_id;
DROP FUNCTION wait_until;

-- nobody writes it by hand, a superuser neither, nor does logical replication
\set VERBOSITY terse
INSERT INTO le_term SELECT * FROM le_term;
\echo :SQLSTATE
UPDATE le_term SET instance = 'node-x';
COPY le_term FROM stdin;
1	x	1	10	1	now	now	r	\N	\N	\N
\.
SELECT count(*) AS before FROM leader_history \gset
SET session_replication_role = replica;
INSERT INTO le_term SELECT * FROM le_term;
UPDATE le_term SET instance = 'node-x';
RESET session_replication_role;
SELECT count(*) - :before AS by_hand, count(*) FILTER (WHERE instance = 'node-x') AS changed FROM leader_history;
-- but its owner may delete what has ended
DELETE FROM le_term WHERE lock_id <> 1;
SELECT lock_id FROM leader_history;
TRUNCATE le_term;
SELECT count(*) FROM leader_history;
SELECT le_release(21, 'node-b');
SELECT lock_id FROM leader_history;
\set VERBOSITY default

-- statistics: terms, how they ended, the time between them
SELECT lock_id, terms, released, least_left_ms, leaderless, leaderless_longest FROM leader_stat;
ALTER TABLE le_term DISABLE TRIGGER le_shield;
TRUNCATE le_term;
INSERT INTO le_term
SELECT lock_id, 'node-a', token, 10, 10000, '2026-01-01'::timestamptz + began * interval '1 s',
	   '2026-01-01'::timestamptz + ended * interval '1 s', how, NULL, 1, least
FROM (VALUES
	(1, 1, 0, 10, 'r'::"char", NULL),	-- 5 s nobody, then no time, then 7 s
	(1, 2, 15, 20, 't', 900),
	(1, 3, 20, 30, 'v', 100),
	(1, 4, 37, 40, 'e', NULL),
	(2, 5, 0, 100, 'e', 5),				-- overlap, as after a step of the clock
	(2, 6, 10, 20, 'r', 6),
	(2, 7, 15, 30, 'r', 7),				-- not 95 s sooner, nor after the one before
	(2, 8, 101, 102, 'r', 8),
	(3, 9, 50, 40, 'e', NULL),			-- a clock that was set back
	(3, 10, 45, 60, 'e', NULL)) AS v(lock_id, token, began, ended, how, least);
ALTER TABLE le_term ENABLE ALWAYS TRIGGER le_shield;
SELECT * FROM leader_stat ORDER BY lock_id;
TRUNCATE le_term;

-- it is no part of the guarantee: with a table that is not ours a row is left
-- out, and the view says so
ALTER TABLE le_term ADD COLUMN more int;
SELECT le_try_acquire(40, 'node-a', 600000), le_release(40, 'node-a');
SELECT * FROM leader_history;
\echo :SQLSTATE
SELECT * FROM leader_stat;
ALTER TABLE le_term DROP COLUMN more;
DROP EXTENSION leader_election;
CREATE EXTENSION leader_election;
SELECT le_try_acquire(40, 'node-a', 600000), le_release(40, 'node-a');
SELECT count(*) FROM leader_history;
DROP EXTENSION leader_election;

-- pg_monitor reads the views and le_info(), and that is all, also if default
-- privileges of the installing role would give it more
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO pg_monitor;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO pg_monitor;
ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO pg_monitor WITH GRANT OPTION;
CREATE EXTENSION leader_election;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM pg_monitor;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON SEQUENCES FROM pg_monitor;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM pg_monitor;
SELECT relname, privilege_type, is_grantable FROM pg_class, aclexplode(relacl)
WHERE relname ~ '^le' AND grantee = 'pg_monitor'::regrole ORDER BY relname;
SELECT proname, privilege_type, is_grantable FROM pg_proc, aclexplode(proacl)
WHERE proname ~ '^le_' AND grantee = 'pg_monitor'::regrole ORDER BY proname;
SELECT le_try_acquire(1, 'node-a', 600000), le_release(1, 'node-a'), le_try_acquire(2, 'node-a', 600000);
CREATE ROLE regress_le_monitor IN ROLE pg_monitor;
SET ROLE regress_le_monitor;
SELECT id, leader_id FROM leader_lease;
SELECT lock_id, instance, ended_how FROM leader_history;
SELECT lock_id, terms FROM leader_stat;
SELECT count(*) FROM leader_waiting;
SELECT count(*) FROM leader_protected;
SELECT version FROM le_info();
SELECT * FROM le_term;
SELECT * FROM le_lease;
SELECT le_leader(2);
SELECT le_release(2, 'node-a');
SELECT le_revoke(2);
SELECT le_request_resign(2);
SELECT le_sweep(0);
DELETE FROM le_term;
RESET ROLE;

-- whom nobody has granted anything: nothing
SET ROLE regress_le_operator;
SELECT * FROM leader_history;
SELECT * FROM leader_stat;
SELECT * FROM le_terms();
RESET ROLE;
DROP EXTENSION leader_election;
DROP ROLE regress_le_monitor, regress_le_app, regress_le_operator;
