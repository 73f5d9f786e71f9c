-- le_campaign, le_keep_alive, le_observe: what they tell.
CREATE EXTENSION leader_election;
\set SHOW_CONTEXT never

-- on a vacant lock: leads, and may act for the lease it has asked for
SELECT elected, token = le_token(1, 'node-a') AS its_token, valid_for_ms, leader_id,
	   remaining_ms, resign_requested
FROM le_campaign(1, 'node-a', 600000);
SELECT le_token(1, 'node-a') AS token \gset
-- leads already: a heartbeat, and the term is taken as it is, whatever is asked for
SELECT elected, token = :token AS same, valid_for_ms FROM le_campaign(1, 'node-a', 86400000, info => 'ignored');
SELECT elected, token = :token AS same, valid_for_ms FROM le_campaign(1, 'node-a', 1);
SELECT elected, token = :token AS same, valid_for_ms FROM le_campaign(1, 'node-a', wait_ms => 60000, priority => 9);
SELECT lease_ms, renewals, info IS NULL AS no_info FROM leader_lease WHERE id = 1;
-- somebody else leads
SELECT elected, token, valid_for_ms, leader_id, remaining_ms BETWEEN 600001 AND 660000 AS remaining, resign_requested
FROM le_campaign(1, 'node-b', 600000);
-- waits, and is refused then; not longer in the list
SELECT elected, token, valid_for_ms, leader_id, remaining_ms BETWEEN 600001 AND 660000 AS remaining,
	   clock_timestamp() - statement_timestamp() >= '40 ms' AS waited
FROM le_campaign(1, 'node-b', 600000, 50);
SELECT count(*) FROM leader_waiting;
-- nor after an error
SET statement_timeout = '50ms';
SELECT * FROM le_campaign(1, 'node-b', 600000, 60000);
\echo :SQLSTATE
SELECT count(*) FROM leader_waiting;
SELECT * FROM le_observe(1, :token, 60000);
\echo :SQLSTATE
RESET statement_timeout;
SELECT count(*) FROM leader_waiting;

-- heartbeats with all that a leader wants to know: node-b has waited until now
SELECT * FROM le_keep_alive(1, 'node-a', :token);
SELECT * FROM le_keep_alive(1, 'node-a', :token - 1);
SELECT * FROM le_keep_alive(1, 'node-a', :token + 1);
SELECT * FROM le_keep_alive(1, 'node-b', :token);
SELECT * FROM le_keep_alive(2, 'node-a', :token);
SELECT renewals FROM leader_lease WHERE id = 1;
-- inside of a block, and not undone by a rollback
BEGIN;
SELECT * FROM le_keep_alive(1, 'node-a', :token);
ROLLBACK;
SELECT renewals FROM leader_lease WHERE id = 1;
-- an old term is over, also for the leader of the next one
SELECT le_release(1, 'node-a', :token);
SELECT elected, token > :token AS new FROM le_campaign(1, 'node-a', 600000);
SELECT * FROM le_keep_alive(1, 'node-a', :token);
SELECT leads, waiting FROM le_keep_alive(1, 'node-a', le_token(1, 'node-a'));
-- who campaigns for its own lock does not wait for it
SELECT elected FROM le_campaign(1, 'node-a', wait_ms => 60000);
SELECT leads, waiting FROM le_keep_alive(1, 'node-a', le_token(1, 'node-a'));

-- It waits for a lease to run out.  What has been waited for counts for 9/10,
-- so that the server keeps the lease longer than the client, by the slower clock.
SELECT le_try_acquire(3, 'node-b', 1000), le_renew(3, 'node-b');
DO $$
DECLARE
	sent timestamptz := clock_timestamp();
	answer record;
	ends timestamptz;
BEGIN
	SELECT * INTO answer FROM le_campaign(3, 'node-a', 2000, 60000);
	COMMIT;
	SELECT expires_at INTO ends FROM leader_lease WHERE id = 3 AND leader_id = 'node-a';
	RAISE NOTICE 'elected %, waited %, not counted in full %, kept longer than believed %', answer.elected,
		answer.valid_for_ms > 2000,
		answer.valid_for_ms <= 2000 + 0.9 * extract(epoch FROM clock_timestamp() - sent) * 1000,
		sent + answer.valid_for_ms * interval '1 ms' <= ends;
END $$;
-- nobody waits any more: that was node-a itself, in the other one's term
SELECT leads, waiting FROM le_keep_alive(3, 'node-a', le_token(3, 'node-a'));

-- info is kept with the term; up to 512 bytes
SELECT elected FROM le_campaign(4, 'node-a', 600000, info => 'host=a port=5432');
SELECT elected FROM le_campaign(5, 'node-a', 600000, info => '');
SELECT elected FROM le_campaign(6, 'node-a', 600000, info => repeat('ö', 256));
SELECT elected FROM le_campaign(7, 'node-a', 600000, info => repeat('x', 512));
SELECT elected FROM le_campaign(4, 'node-b', 600000, info => 'host=b port=5432');
SELECT id, length(info), octet_length(info), left(info, 20) FROM leader_lease WHERE id BETWEEN 4 AND 7 ORDER BY id;
SELECT lock_id, length(o.info), left(o.info, 20) FROM unnest('{4,5,6,7}'::int[]) AS lock_id, le_observe(lock_id) AS o;
-- not that of the term before
SELECT le_release(4, 'node-a');
SELECT elected FROM le_campaign(4, 'node-b', 600000);
SELECT info IS NULL AS none FROM le_observe(4);
SELECT info IS NULL AS none FROM leader_lease WHERE id = 4;

-- observing
SELECT leader_id, token = le_token(1, 'node-a') AS its_token, remaining_ms BETWEEN 600001 AND 660000 AS remaining,
	   state, info
FROM le_observe(1);
SELECT * FROM le_observe(2);
SELECT le_try_acquire(8, 'node-a', 1);
DO $$ BEGIN WHILE le_leader(8) IS NOT NULL LOOP PERFORM pg_sleep(0.001); END LOOP; END $$;
SELECT * FROM le_observe(8);
-- news, which is told at once: another token than the known one ...
SELECT leader_id FROM le_observe(1, :token, 60000);
SELECT leader_id FROM le_observe(1, NULL, 60000);
SELECT leader_id, state FROM le_observe(2, :token, 60000);
SELECT leader_id, state FROM le_observe(8, :token, 60000);
-- ... or no news, after the wait
SELECT leader_id, clock_timestamp() - statement_timestamp() >= '40 ms' AS waited
FROM le_observe(1, (SELECT token FROM le_observe(1)), 50);
SELECT leader_id, state, clock_timestamp() - statement_timestamp() >= '40 ms' AS waited FROM le_observe(2, NULL, 50);
SELECT leader_id, state, clock_timestamp() - statement_timestamp() >= '40 ms' AS waited FROM le_observe(8, NULL, 50);
-- a lease that runs out is news
SELECT le_try_acquire(9, 'node-a', 100);
SELECT leader_id, token, remaining_ms, state FROM le_observe(9, le_token(9, 'node-a'), 60000);
-- it is of the present, whatever the snapshot, and changes nothing
BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY;
SELECT leader_id, state FROM le_observe(1);
SELECT leader_id, state FROM le_observe(2);
COMMIT;
SELECT renewals FROM leader_lease WHERE id = 1;

-- bad arguments, each with its range
CREATE PROCEDURE expect_error(statement text) LANGUAGE plpgsql AS $$
DECLARE
	hint text;
BEGIN
	EXECUTE statement;
	RAISE NOTICE 'no error: %', statement;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
	RAISE NOTICE E'%\n  % %', statement, SQLSTATE,
		concat_ws(E'\n  ', SQLERRM, nullif(hint, ''));
END $$;
\set VERBOSITY terse
CALL expect_error($$SELECT le_campaign(NULL, 'node-a')$$);
CALL expect_error($$SELECT le_campaign(1, NULL)$$);
CALL expect_error($$SELECT le_campaign(1, 'node-a', NULL)$$);
CALL expect_error($$SELECT le_campaign(1, 'node-a', wait_ms => NULL)$$);
CALL expect_error($$SELECT le_campaign(1, 'node-a', priority => NULL)$$);
CALL expect_error($$SELECT le_campaign(1, '')$$);
CALL expect_error($$SELECT le_campaign(1, repeat('x', 128))$$);
CALL expect_error($$SELECT le_campaign(1, 'node-a', 0)$$);
CALL expect_error($$SELECT le_campaign(1, 'node-a', 86400001)$$);
CALL expect_error($$SELECT le_campaign(1, 'node-a', wait_ms => -1)$$);
CALL expect_error($$SELECT le_campaign(1, 'node-a', wait_ms => 60001)$$);
CALL expect_error($$SELECT le_campaign(1, 'node-a', wait_ms => 9223372036854775807)$$);
CALL expect_error($$SELECT le_campaign(1, 'node-a', priority => -1)$$);
CALL expect_error($$SELECT le_campaign(1, 'node-a', priority => 10)$$);
CALL expect_error($$SELECT le_campaign(1, 'node-a', info => repeat('x', 513))$$);
CALL expect_error($$SELECT le_campaign(1, 'node-a', info => repeat('ö', 257))$$);
CALL expect_error($$SELECT le_campaign(1, 'node-a', info => repeat('x', 100000))$$);
CALL expect_error($$SELECT le_keep_alive(NULL, 'node-a', 1)$$);
CALL expect_error($$SELECT le_keep_alive(1, NULL, 1)$$);
CALL expect_error($$SELECT le_keep_alive(1, 'node-a', NULL)$$);
CALL expect_error($$SELECT le_keep_alive(1, repeat('x', 128), 1)$$);
CALL expect_error($$SELECT le_keep_alive(1, 'node-a', 0)$$);
CALL expect_error($$SELECT le_keep_alive(1, 'node-a', -1)$$);
CALL expect_error($$SELECT le_keep_alive(1, 'node-a', (-9223372036854775808)::bigint)$$);
CALL expect_error($$SELECT le_observe(NULL)$$);
CALL expect_error($$SELECT le_observe(1, wait_ms => NULL)$$);
CALL expect_error($$SELECT le_observe(1, wait_ms => -1)$$);
CALL expect_error($$SELECT le_observe(1, wait_ms => 60001)$$);
CALL expect_error($$SELECT le_observe(1, 0)$$);
CALL expect_error($$SELECT le_observe(1, -1)$$);
CALL expect_error($$SELECT le_observe(1, (-9223372036854775808)::bigint)$$);

-- Where it must not wait: in a block, whoever leads ...
BEGIN;
SELECT le_campaign(1, 'node-a', wait_ms => 60000);
\echo :SQLSTATE
ROLLBACK;
BEGIN;
SELECT le_campaign(2, 'node-a', wait_ms => 1);
ROLLBACK;
BEGIN;
SELECT le_observe(2, wait_ms => 60000);
\echo :SQLSTATE
ROLLBACK;
SELECT 1 \; SELECT le_observe(2, wait_ms => 60000);
-- ... in a subtransaction (the procedure's EXCEPTION is one) ...
CALL expect_error($$SELECT le_campaign(1, 'node-a', wait_ms => 60000)$$);
CALL expect_error($$SELECT le_observe(2, wait_ms => 60000)$$);
BEGIN;
SAVEPOINT a;
SELECT le_observe(2, wait_ms => 60000);
ROLLBACK;
-- ... nor where others would wait for it
SET leader_election.allow_in_transaction = on;
DO $$ BEGIN PERFORM le_release(1, 'node-a'), le_campaign(1, 'node-b', wait_ms => 60000); END $$;
\echo :SQLSTATE
DO $$ BEGIN PERFORM le_try_acquire(2, 'node-a', 600000), le_observe(1, wait_ms => 60000); END $$;
BEGIN;
SELECT le_campaign(1, 'node-a', wait_ms => 60000);
ROLLBACK;
-- without a wait it begins a term there, with the setting
BEGIN;
SELECT elected, valid_for_ms FROM le_campaign(2, 'node-a', 600000);
SELECT elected, valid_for_ms FROM le_campaign(2, 'node-a', 5);
SELECT leader_id FROM le_observe(2);
ROLLBACK;
RESET leader_election.allow_in_transaction;
-- and without the setting does not, whoever leads; a live holder renews
BEGIN;
SELECT elected FROM le_campaign(1, 'node-a');
SELECT le_campaign(1, 'node-b');
\echo :SQLSTATE
ROLLBACK;
BEGIN;
SELECT le_campaign(2, 'node-a');
\echo :SQLSTATE
ROLLBACK;
-- a procedure that commits is no block
DO $$
DECLARE
	answer record;
BEGIN
	SELECT * INTO answer FROM le_campaign(10, 'node-a', 600000, 60000);
	COMMIT;
	SELECT * INTO answer FROM le_observe(10, answer.token, 1);
	RAISE NOTICE '% leads', answer.leader_id;
END $$;
-- one statement that waits for several locks would keep the first from others
SELECT le_campaign(lock_id, 'node-a', wait_ms => 60000) FROM generate_series(11, 12) AS lock_id;
SELECT state FROM le_observe(11);

-- a read-only transaction: who only asks may wait in it
SET default_transaction_read_only = on;
SELECT le_campaign(1, 'node-a');
\echo :SQLSTATE
SELECT le_campaign(1, 'node-b', wait_ms => 1);
SELECT le_keep_alive(1, 'node-a', 1);
\echo :SQLSTATE
SELECT state FROM le_observe(2, wait_ms => 1);
RESET default_transaction_read_only;

-- of all this nothing stays
SELECT id, leader_id, lease_ms FROM leader_lease WHERE id IN (1, 2) ORDER BY id;
SELECT count(*) FROM leader_waiting;

-- a row for each call, and a call for each column that is asked for this way
SELECT id, (le_campaign(id, 'node-a')).elected FROM unnest('{1,4}'::int[]) AS id;
SELECT renewals AS before FROM leader_lease WHERE id = 1 \gset
SELECT count(*) FROM (SELECT (le_campaign(1, 'node-a')).*) AS once_per_column;
SELECT count(*) FROM le_campaign(1, 'node-a');
SELECT renewals - :before AS calls FROM leader_lease WHERE id = 1;

DROP PROCEDURE expect_error;
DROP EXTENSION leader_election;
