-- A leader hands over, or holds the lock for nobody; an operator asks it to go,
-- or makes it.
CREATE EXTENSION leader_election;
CREATE FUNCTION await_vacancy(bigint) RETURNS void LANGUAGE plpgsql
	AS $$ BEGIN WHILE le_leader($1) IS NOT NULL LOOP PERFORM pg_sleep(0.001); END LOOP; END $$;
CREATE FUNCTION await_end(bigint) RETURNS void LANGUAGE plpgsql
	AS $$ BEGIN WHILE (SELECT remaining_ms > 0 FROM le_observe($1)) LOOP PERFORM pg_sleep(0.001); END LOOP; END $$;

--
-- le_transfer
--

SELECT elected FROM le_campaign(1, 'node-a', 600000, info => 'here is a');
SELECT le_token(1, 'node-a') AS a \gset
SELECT le_renew(1, 'node-a');

-- what it takes is its own token, and somebody else
SELECT le_transfer(1, 'node-a', NULL, 'node-b');
\echo :SQLSTATE
SELECT le_transfer(1, 'node-a', 0, 'node-b');
\echo :SQLSTATE
SELECT le_transfer(1, 'node-a', -1, 'node-b');
SELECT le_transfer(1, 'node-a', '-9223372036854775808', 'node-b') AS any_term;
SELECT le_transfer(NULL, 'node-a', :a, 'node-b');
SELECT le_transfer(1, NULL, :a, 'node-b');
SELECT le_transfer(1, 'node-a', :a, 'node-a');
\echo :SQLSTATE
SELECT le_transfer(1, 'node-a', :a, '');
\echo :SQLSTATE
SELECT le_transfer(1, 'node-a', :a, repeat('x', 128));
\echo :SQLSTATE
SELECT le_transfer(1, 'node-a', 1, 'node-a') AS also_where_it_would_be_false;
SELECT le_transfer(1, 'node-a', :a - 1, 'node-b') AS another_term,
	   le_transfer(1, 'node-b', :a, 'node-c') AS another_instance,
	   le_transfer(99, 'node-a', :a, 'node-b') AS vacant,
	   le_transfer(1, 'node-a', :a) AS nobody_waits;
BEGIN READ ONLY;
SELECT le_transfer(1, 'node-a', :a, 'node-b');
\echo :SQLSTATE
ROLLBACK;
-- nothing has changed
SELECT leader_id, token = :a AS token, renewals, state, info FROM leader_lease;

-- the successor leads, and nobody else
SELECT le_transfer(1, 'node-a', :a, 'node-b');
SELECT le_leader(1), le_renew(1, 'node-a', :a), le_renew(1, 'node-a'), le_is_leader(1, 'node-a'),
	   le_try_acquire(1, 'node-a'), le_try_acquire(1, 'node-c'), le_release(1, 'node-a');
\set VERBOSITY sqlstate
SELECT le_guard(1, 'node-a', :a);
\set VERBOSITY default
SELECT le_token(1, 'node-b') AS b \gset
SELECT :b > :a AS grown;
-- in a term of its own, of the same length and role
SELECT leader_id, token = :b AS token, lease_ms, leader_role = current_user AS role, state, renewals, info,
	   remaining_ms > 659000 AS counted_from_now FROM leader_lease;
SELECT elected, token = :b AS token, valid_for_ms, resign_requested FROM le_campaign(1, 'node-b', 86400000);
SELECT le_renew(1, 'node-b', :b), le_try_acquire(1, 'node-b', 1);
-- asked again the answer is another one
SELECT le_transfer(1, 'node-a', :a, 'node-b') AS again;

-- in a block: for itself at once, for all at COMMIT
BEGIN;
SELECT le_transfer(1, 'node-b', :b, 'node-a');
SELECT le_leader(1), le_renew(1, 'node-b'), le_renew(1, 'node-a');
COMMIT;
SELECT le_leader(1), le_renew(1, 'node-b'), le_renew(1, 'node-a');
SELECT le_token(1, 'node-a') AS a \gset
-- undone, with all that belongs to it
BEGIN;
SELECT le_transfer(1, 'node-a', :a, 'node-b'), le_renew(1, 'node-b');
ROLLBACK;
SELECT le_leader(1), le_renew(1, 'node-b'), le_renew(1, 'node-a', :a);
BEGIN;
SAVEPOINT s;
SELECT le_transfer(1, 'node-a', :a, 'node-b'), le_renew(1, 'node-b');
ROLLBACK TO s;
SELECT le_leader(1), le_renew(1, 'node-b'), le_renew(1, 'node-a', :a);
COMMIT;
SELECT le_leader(1), le_renew(1, 'node-a', :a);
-- in one statement, from hand to hand and back
BEGIN;
SELECT le_transfer(1, 'node-a', :a, 'node-b'), le_transfer(1, 'node-b', le_token(1, 'node-b'), 'node-c'),
	   le_transfer(1, 'node-a', :a, 'node-d') AS not_any_more,
	   le_transfer(1, 'node-c', le_token(1, 'node-c'), 'node-a');
COMMIT;
SELECT le_leader(1), le_renew(1, 'node-a', :a) AS old_term, le_renew(1, 'node-a') AS new_term;
SELECT le_token(1, 'node-a') AS a \gset
-- given on, and given up
BEGIN;
SELECT le_transfer(1, 'node-a', :a, 'node-b'), le_release(1, 'node-b');
COMMIT;
SELECT le_leader(1) IS NULL AS vacant, count(*) FROM leader_lease;
-- given up, and taken: there is nothing to hand over
SELECT le_try_acquire(1, 'node-a', 600000);
SELECT le_token(1, 'node-a') AS a \gset
SET leader_election.allow_in_transaction = on;
BEGIN;
SELECT le_release(1, 'node-a'), le_transfer(1, 'node-a', :a, 'node-b'), le_try_acquire(1, 'node-c', 600000);
SELECT le_transfer(1, 'node-c', le_token(1, 'node-c'), 'node-b'), le_release(1, 'node-b'), le_try_acquire(1, 'node-d', 600000);
COMMIT;
RESET leader_election.allow_in_transaction;
SELECT le_leader(1), le_renew(1, 'node-d');
-- a commit that comes after the successor's lease is over is refused
SELECT le_try_acquire(2, 'node-a', 500);
BEGIN;
SELECT le_transfer(2, 'node-a', le_token(2, 'node-a'), 'node-b'), await_vacancy(2);
COMMIT;
\echo :SQLSTATE
-- a lease that is over is not handed over
SELECT await_vacancy(2), le_transfer(2, 'node-a', token, 'node-b') FROM leader_lease WHERE id = 2;
-- no PREPARE
BEGIN;
SELECT le_transfer(1, 'node-d', le_token(1, 'node-d'), 'node-b');
PREPARE TRANSACTION 'transfer';
\echo :SQLSTATE
SELECT le_leader(1), le_renew(1, 'node-d');

-- finish the work and hand over, in one transaction
CREATE TABLE work (done text);
SELECT le_token(1, 'node-d') AS d \gset
BEGIN;
SELECT le_guard(1, 'node-d', :d) = :d AS guarded;
INSERT INTO work VALUES ('and handed over');
SELECT le_transfer(1, 'node-d', :d, 'node-a');
COMMIT;
-- which is a term's end for guards of that term only
BEGIN;
SELECT le_guard(1, 'node-a') > 0 AS guarded;
INSERT INTO work VALUES ('and back');
SELECT le_transfer(1, 'node-a', le_token(1, 'node-a'), 'node-b');
SELECT le_guard(1, 'node-b') > 0 AS guarded;
COMMIT;
SELECT le_token(1, 'node-b') AS b \gset
BEGIN;
SELECT le_transfer(1, 'node-b', :b, 'node-c');
INSERT INTO work VALUES ('never');
\set VERBOSITY sqlstate
SELECT le_guard(1, 'node-b', :b);
\set VERBOSITY default
ROLLBACK;
BEGIN;
SELECT le_guard(1, 'node-b', :b) > 0 AS guarded;
SAVEPOINT s;
SELECT le_transfer(1, 'node-b', :b, 'node-c');
ROLLBACK TO s;
INSERT INTO work VALUES ('not handed over');
COMMIT;
BEGIN;
SELECT le_guard(1, 'node-b', :b) > 0 AS guarded;
SAVEPOINT s;
SELECT le_transfer(1, 'node-b', :b, 'node-c'), le_guard(1, 'node-c') > 0 AS guarded;
ROLLBACK TO s;
INSERT INTO work VALUES ('never');
COMMIT;
\echo :SQLSTATE
SELECT * FROM work;
SELECT le_release(1, 'node-b', :b);

--
-- le_release with a hold
--

SELECT le_try_acquire(3, 'node-a', 600000), le_renew(3, 'node-a');
SELECT le_release(3, 'node-a', hold_ms => -1);
\echo :SQLSTATE
SELECT le_release(3, 'node-a', hold_ms => 86400001);
\echo :SQLSTATE
SELECT le_release(3, 'node-a', hold_ms => NULL);
\echo :SQLSTATE
SELECT le_release(3, 'node-b', hold_ms => 600000), le_renew(3, 'node-a');
-- nobody leads before the term would be that old: neither others nor itself
SELECT le_token(3, 'node-a') AS a, extract(epoch FROM created_at) AS began FROM leader_lease WHERE id = 3 \gset
SELECT le_release(3, 'node-a', :a, 600000);
SELECT le_leader(3) IS NULL AS nobody, le_renew(3, 'node-a', :a), le_is_leader(3, 'node-a'), le_release(3, 'node-a'),
	   le_try_acquire(3, 'node-a'), le_try_acquire(3, 'node-b'), le_transfer(3, 'node-a', :a, 'node-b');
SELECT leader_id, state, lease_ms, token > :a AS a_token_of_its_own, renewals, renewed_at, info,
	   abs(extract(epoch FROM expires_at) - :began - 600) < 1 AS counted_from_the_begin
FROM leader_lease WHERE id = 3;
SELECT leader_id, token, state, info, remaining_ms BETWEEN 590000 AND 600000 AS remaining FROM le_observe(3);
SELECT elected, token, valid_for_ms, leader_id, remaining_ms BETWEEN 590000 AND 600000 AS remaining FROM le_campaign(3, 'node-b');
SELECT elected, remaining_ms BETWEEN 590000 AND 600000 AS remaining FROM le_campaign(3, 'node-a', wait_ms => 1);
-- the longest; by any token
SELECT le_try_acquire(4, 'node-a', 1000), le_release(4, 'node-a', hold_ms => 86400000);
SELECT state, lease_ms, remaining_ms > 86390000 AS remaining FROM leader_lease WHERE id = 4;
-- in a block, undone, and not to be prepared
SELECT le_try_acquire(5, 'node-a', 600000), le_renew(5, 'node-a');
BEGIN;
SELECT le_release(5, 'node-a', hold_ms => 600000);
SELECT state FROM leader_lease WHERE id = 5;
SET LOCAL leader_election.allow_in_transaction = on;
SELECT le_try_acquire(5, 'node-a'), le_try_acquire(5, 'node-b');
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT le_release(5, 'node-a', hold_ms => 600000);
ROLLBACK TO s;
SELECT le_renew(5, 'node-a');
COMMIT;
BEGIN;
SELECT le_release(5, 'node-a', hold_ms => 600000);
PREPARE TRANSACTION 'hold';
\echo :SQLSTATE
SELECT le_leader(5), le_renew(5, 'node-a');
-- a hold that is no longer than the term was is none
SELECT pg_sleep(0.02), le_release(5, 'node-a', hold_ms => 20);
SELECT count(*) FROM leader_lease WHERE id = 5;
SELECT le_try_acquire(5, 'node-b', 600000), le_release(5, 'node-b', hold_ms => 0);
SELECT count(*) FROM leader_lease WHERE id = 5;
-- it counts from the begin of the term, not from its last heartbeat nor its end
SELECT le_try_acquire(5, 'node-a', 600000);
SELECT pg_sleep(0.1), le_renew(5, 'node-a'), le_release(5, 'node-a', hold_ms => 600000);
SELECT remaining_ms BETWEEN 590000 AND 599900 AS rest, le_revoke(5, true) AS lifted FROM leader_lease WHERE id = 5;
-- over, it is in nobody's way
SELECT le_try_acquire(5, 'node-a', 600000), le_release(5, 'node-a', hold_ms => 300);
SELECT await_end(5), le_try_acquire(5, 'node-b', 600000);
SELECT le_leader(5);
SELECT le_release(5, 'node-b');
-- guarded work and a hold: done for today
SELECT le_try_acquire(5, 'node-a', 600000);
BEGIN;
SELECT le_guard(5, 'node-a') > 0 AS guarded;
INSERT INTO work VALUES ('and held');
SELECT le_release(5, 'node-a', hold_ms => 600000);
COMMIT;
SELECT state FROM leader_lease WHERE id = 5;

--
-- le_request_resign
--

SELECT le_request_resign(NULL);
\echo :SQLSTATE
SELECT le_request_resign(6) AS nobody_leads, le_request_resign(3) AS nor_in_a_hold;
SELECT le_try_acquire(6, 'node-a', 600000);
SELECT le_token(6, 'node-a') AS a \gset
BEGIN READ ONLY;
SELECT le_request_resign(6);
\echo :SQLSTATE
ROLLBACK;
SELECT * FROM le_keep_alive(6, 'node-a', :a);
-- a rollback does not undo it
BEGIN;
SELECT le_request_resign(6);
ROLLBACK;
SELECT * FROM le_keep_alive(6, 'node-a', :a);
SELECT elected, token = :a AS token, resign_requested FROM le_campaign(6, 'node-a');
SELECT elected, resign_requested FROM le_campaign(6, 'node-b');
SELECT leads, resign_requested FROM le_keep_alive(6, 'node-b', :a);
SELECT le_renew(6, 'node-a'), le_request_resign(6) AS asked_again;
-- nothing but an answer: it leads still, and the next term is not asked
SELECT le_leader(6), le_transfer(6, 'node-a', :a, 'node-b');
SELECT elected, resign_requested FROM le_campaign(6, 'node-b');
SELECT leads, resign_requested FROM le_keep_alive(6, 'node-b', le_token(6, 'node-b'));
SELECT le_request_resign(6), le_release(6, 'node-b'), le_request_resign(6) AS nobody_leads;
SELECT elected, resign_requested FROM le_campaign(6, 'node-b', 600000);
SELECT leads, resign_requested FROM le_keep_alive(6, 'node-b', le_token(6, 'node-b'));
-- a leader that has not renewed yet, and is just handing over
SELECT le_try_acquire(7, 'node-a', 600000);
SELECT le_token(7, 'node-a') AS a \gset
BEGIN;
SELECT le_transfer(7, 'node-a', :a, 'node-b'), le_request_resign(7);
SELECT resign_requested FROM le_keep_alive(7, 'node-b', le_token(7, 'node-b'));
ROLLBACK;
SELECT resign_requested FROM le_keep_alive(7, 'node-a', :a);
SELECT le_request_resign(7);
SELECT resign_requested FROM le_keep_alive(7, 'node-a', :a);
SELECT le_release(6, 'node-b'), le_release(7, 'node-a');

--
-- le_revoke
--

SELECT le_revoke(NULL);
\echo :SQLSTATE
SELECT le_revoke(8, NULL);
\echo :SQLSTATE
SELECT le_revoke(8) AS nothing, le_revoke(8, true) AS to_end;
SELECT elected FROM le_campaign(8, 'node-a', 600000, info => 'here is a');
SELECT le_token(8, 'node-a') AS a \gset
SELECT le_renew(8, 'node-a');
BEGIN READ ONLY;
SELECT le_revoke(8);
ROLLBACK;
SET default_transaction_read_only = on;
SELECT le_revoke(8);
\echo :SQLSTATE
RESET default_transaction_read_only;
BEGIN;
SELECT le_revoke(8);
\echo :SQLSTATE
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT le_revoke(8, true);
\echo :SQLSTATE
ROLLBACK;
DO $$
BEGIN
	PERFORM le_revoke(8);
EXCEPTION WHEN active_sql_transaction THEN
	RAISE NOTICE '% %', SQLSTATE, SQLERRM;
END $$;
SELECT le_leader(8), le_renew(8, 'node-a', :a);

-- the leader is none from now on, and others wait for what it may believe
SELECT le_revoke(8);
SELECT le_leader(8) IS NULL AS nobody, le_renew(8, 'node-a', :a), le_renew(8, 'node-a'), le_is_leader(8, 'node-a', :a),
	   le_release(8, 'node-a'), le_transfer(8, 'node-a', :a, 'node-b'), le_try_acquire(8, 'node-a'), le_try_acquire(8, 'node-b');
SELECT leads, valid_for_ms, resign_requested, waiting FROM le_keep_alive(8, 'node-a', :a);
\set VERBOSITY sqlstate
SELECT le_guard(8, 'node-a', :a);
\set VERBOSITY default
SELECT leader_id, state, lease_ms, token > :a AS a_token_of_its_own, renewals, info,
	   remaining_ms BETWEEN 650000 AND 660000 AS to_its_end FROM leader_lease WHERE id = 8;
SELECT leader_id, token, state, info, remaining_ms BETWEEN 650000 AND 660000 AS to_its_end FROM le_observe(8);
SELECT elected, leader_id, remaining_ms BETWEEN 650000 AND 660000 AS to_its_end FROM le_campaign(8, 'node-b');
-- itself a minute more at most
SELECT elected, leader_id, remaining_ms BETWEEN 710000 AND 720000 AS and_a_ban FROM le_campaign(8, 'node-a');
SELECT le_revoke(8) AS again, le_request_resign(8) AS nobody_leads;
-- immediately: with what that risks
SELECT token AS r FROM leader_lease WHERE id = 8 \gset
SET client_min_messages = error;    -- the WARNING tells a number
SELECT le_revoke(8, true);
RESET client_min_messages;
SELECT state, token > :r AS a_token_of_its_own, remaining_ms BETWEEN 50000 AND 60000 AS the_ban FROM leader_lease WHERE id = 8;
SELECT state, remaining_ms FROM le_observe(8);
SELECT elected, remaining_ms BETWEEN 50000 AND 60000 AS the_ban FROM le_campaign(8, 'node-a');
SELECT le_revoke(8) AS again, le_revoke(8, true) AS at_once, le_try_acquire(8, 'node-a') AS itself, le_try_acquire(8, 'node-b', 600000) AS others;
-- the ban ends when somebody else leads
SELECT le_release(8, 'node-b'), le_try_acquire(8, 'node-a', 600000);

-- a short lease: others after its end, itself one lease later
DO $$
DECLARE
	live record;
	revoked record;
	refused record;
BEGIN
	PERFORM le_try_acquire(9, 'node-a', 1000);
	COMMIT;
	PERFORM pg_sleep(0.1), le_renew(9, 'node-a');
	SELECT * INTO live FROM leader_lease WHERE id = 9;
	PERFORM le_revoke(9);
	COMMIT;
	SELECT * INTO revoked FROM leader_lease WHERE id = 9;
	RAISE NOTICE '%, others wait: %, for its end: %', revoked.state, revoked.remaining_ms BETWEEN 1 AND 1100,
		abs(extract(epoch FROM revoked.expires_at - live.expires_at)) < 0.005;
	SELECT * INTO refused FROM le_campaign(9, 'node-a', wait_ms => 1);
	RAISE NOTICE 'elected: %, and a ban: %', refused.elected, refused.remaining_ms BETWEEN 1101 AND 2200;
	RAISE NOTICE 'after %its end: itself %, others %', await_end(9),
		(SELECT elected FROM le_campaign(9, 'node-a')), le_try_acquire(9, 'node-b', 600000);
	COMMIT;
	RAISE NOTICE 'and not before: %', (SELECT created_at > live.expires_at - interval '1 ms' FROM leader_lease WHERE id = 9);
END $$;
SELECT le_release(9, 'node-b');
-- and itself, when nobody else comes
SELECT le_try_acquire(9, 'node-a', 500), le_revoke(9);
SELECT elected, valid_for_ms >= 600000 AS valid FROM le_campaign(9, 'node-a', 600000, wait_ms => 60000);
SELECT le_release(9, 'node-a');

-- a hold is lifted, and bars nobody
SELECT le_revoke(3) AS no_term, le_revoke(3, true) AS lifted, le_revoke(3, true) AS again;
SELECT await_end(3), le_try_acquire(3, 'node-a', 600000);
SELECT le_revoke(4, true), le_try_acquire(4, 'node-b', 600000);
-- its own guarded work does not survive that
SELECT le_try_acquire(10, 'node-a', 600000);
INSERT INTO work SELECT 'never' FROM le_guard(10, 'node-a') WHERE le_revoke(10);
\echo :SQLSTATE
SELECT le_leader(10);
SELECT * FROM work;

--
-- what nothing rests on is swept, and nothing else
--

SELECT le_sweep(0) IS NOT NULL AS swept;
DO $$
BEGIN
	PERFORM le_try_acquire(id, 'node-a', 1000) AND le_renew(id, 'node-a') FROM generate_series(20, 22) AS id;
	COMMIT;
	PERFORM set_config('client_min_messages', 'error', true),
		le_release(20, 'node-a', hold_ms => 2000), le_revoke(21), le_revoke(22, true);
	COMMIT;
	RAISE NOTICE 'swept: %, %', le_sweep(0),
		(SELECT string_agg(concat_ws(' ', id, state), ', ' ORDER BY id) FROM leader_lease WHERE id >= 20);
	-- the end of the revoked lease has passed, its ban has not
	PERFORM await_end(21), le_sweep(0);
	RAISE NOTICE '%', (SELECT string_agg(concat_ws(' ', id, state), ', ' ORDER BY id) FROM leader_lease WHERE id IN (20, 21));
END $$;
DO $$ BEGIN WHILE (SELECT count(*) FROM leader_lease WHERE id >= 20 AND state <> 'expired') > 0 LOOP PERFORM pg_sleep(0.01); END LOOP; END $$;
SELECT le_sweep(5000) AS not_for_5_s, le_sweep(0) BETWEEN 2 AND 3 AS over;
SELECT id, state FROM leader_lease WHERE id >= 20;

--
-- roles
--

CREATE ROLE regress_le_app;
CREATE ROLE regress_le_member IN ROLE regress_le_app;
CREATE ROLE regress_le_other;
CREATE ROLE regress_le_operator;
GRANT EXECUTE ON FUNCTION le_campaign, le_try_acquire, le_renew, le_release, le_transfer, le_token, le_keep_alive
	TO regress_le_app, regress_le_other;
GRANT EXECUTE ON FUNCTION le_request_resign, le_revoke TO regress_le_operator;
SET ROLE regress_le_app;
SELECT le_try_acquire(30, 'node-a', 600000);
SELECT le_token(30, 'node-a') AS a \gset
SELECT le_request_resign(30);
\echo :SQLSTATE
SELECT le_revoke(30);
\echo :SQLSTATE
SET ROLE regress_le_other;
SELECT le_transfer(30, 'node-a', :a, 'node-b');
\echo :SQLSTATE
SELECT le_transfer(30, 'node-a', :a);
\echo :SQLSTATE
SELECT le_release(30, 'node-a', :a, 1000);
\echo :SQLSTATE
-- another term's token is just another term
SELECT le_transfer(30, 'node-a', :a - 1, 'node-b');
SET ROLE regress_le_member;
SELECT le_renew(30, 'node-a', :a), le_transfer(30, 'node-a', :a, 'node-b');
SET ROLE regress_le_other;
SELECT le_renew(30, 'node-b');
\echo :SQLSTATE
-- who may execute them needs no more than that
SET ROLE regress_le_operator;
SELECT le_transfer(30, 'node-b', :a);
\echo :SQLSTATE
SELECT le_request_resign(30);
SELECT le_revoke(30), le_request_resign(30);
SET ROLE regress_le_app;
SELECT le_renew(30, 'node-b');
RESET ROLE;
SELECT leader_id, leader_role, state FROM leader_lease WHERE id = 30;
DROP OWNED BY regress_le_app, regress_le_other, regress_le_operator;
DROP ROLE regress_le_member, regress_le_app, regress_le_other, regress_le_operator;

DROP TABLE work;
DROP FUNCTION await_vacancy, await_end;
DROP EXTENSION leader_election;
