-- Bad input gets an error that names the value and the range, and changes nothing.
CREATE EXTENSION leader_election;
SELECT le_try_acquire(1, 'node-a', 600000);

\set SHOW_CONTEXT never
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

-- NULLs
CALL expect_error($$SELECT le_try_acquire(NULL, 'node-a', 1000)$$);
CALL expect_error($$SELECT le_try_acquire(1, NULL, 1000)$$);
CALL expect_error($$SELECT le_try_acquire(1, 'node-a', NULL)$$);
CALL expect_error($$SELECT le_renew(NULL, 'node-a')$$);
CALL expect_error($$SELECT le_renew(1, NULL)$$);
CALL expect_error($$SELECT le_release(NULL, 'node-a')$$);
CALL expect_error($$SELECT le_release(1, NULL)$$);
CALL expect_error($$SELECT le_is_leader(NULL, 'node-a')$$);
CALL expect_error($$SELECT le_is_leader(1, NULL)$$);
CALL expect_error($$SELECT le_leader(NULL)$$);
CALL expect_error($$SELECT le_token(NULL, 'node-a')$$);
CALL expect_error($$SELECT le_token(1, NULL)$$);
CALL expect_error($$SELECT le_sweep(NULL)$$);

-- a token that is NULL, because a client has lost it, does not stand for any
-- term, and neither does 0; the default is a value that nobody has by accident
CALL expect_error($$SELECT le_renew(1, 'node-a', NULL)$$);
CALL expect_error($$SELECT le_release(1, 'node-a', NULL)$$);
CALL expect_error($$SELECT le_is_leader(1, 'node-a', NULL)$$);
CALL expect_error($$SELECT le_guard(1, 'node-a', NULL)$$);
CALL expect_error($$SELECT le_renew(1, 'node-a', 0)$$);
CALL expect_error($$SELECT le_release(1, 'node-a', 0)$$);
CALL expect_error($$SELECT le_is_leader(1, 'node-a', 0)$$);
CALL expect_error($$SELECT le_guard(1, 'node-a', 0)$$);
CALL expect_error($$SELECT le_renew(1, 'node-a', -1)$$);
CALL expect_error($$SELECT le_renew(1, 'node-a', -9223372036854775807)$$);
SELECT le_renew(1, 'node-a', (-9223372036854775808)::bigint) AS any_term;

-- lengths of leases
CALL expect_error($$SELECT le_try_acquire(2, 'node-a', 0)$$);
CALL expect_error($$SELECT le_try_acquire(2, 'node-a', -1)$$);
CALL expect_error($$SELECT le_try_acquire(2, 'node-a', 86400001)$$);
CALL expect_error($$SELECT le_try_acquire(2, 'node-a', 9223372036854775807)$$);
CALL expect_error($$SELECT le_try_acquire(2, 'node-a', -9223372036854775808)$$);
CALL expect_error($$SELECT le_try_acquire(1, 'node-a', 600001)$$);
CALL expect_error($$SELECT le_sweep(-1)$$);
CALL expect_error($$SELECT le_sweep(86400001)$$);

-- names
CALL expect_error($$SELECT le_try_acquire(2, '', 1000)$$);
CALL expect_error($$SELECT le_try_acquire(2, repeat('x', 128), 1000)$$);
CALL expect_error($$SELECT le_try_acquire(2, repeat('ö', 64), 1000)$$);
CALL expect_error($$SELECT le_renew(1, '')$$);
CALL expect_error($$SELECT le_renew(1, repeat('x', 128))$$);
CALL expect_error($$SELECT le_release(1, '')$$);
CALL expect_error($$SELECT le_release(1, repeat('x', 100000))$$);
CALL expect_error($$SELECT le_is_leader(1, '')$$);
CALL expect_error($$SELECT le_token(1, repeat('x', 128))$$);

-- a transaction block (the procedure's EXCEPTION is one)
CALL expect_error($$SELECT le_try_acquire(2, 'node-a', 1000)$$);

-- a read-only transaction, whatever the call would have done
SET default_transaction_read_only = on;
CALL expect_error($$SELECT le_try_acquire(1, 'node-a', 1000)$$);
CALL expect_error($$SELECT le_try_acquire(1, 'node-b', 1000)$$);
CALL expect_error($$SELECT le_renew(1, 'node-a')$$);
CALL expect_error($$SELECT le_renew(1, 'node-b')$$);
CALL expect_error($$SELECT le_release(1, 'node-a')$$);
CALL expect_error($$SELECT le_release(1, 'node-b')$$);
CALL expect_error($$SELECT le_sweep(0)$$);
SELECT le_leader(1), le_is_leader(1, 'node-a'), le_token(1, 'node-a') IS NOT NULL AS token, count(*) FROM leader_lease;
RESET default_transaction_read_only;

-- the sequence of checks: arguments first, they are wrong everywhere
SET default_transaction_read_only = on;
CALL expect_error($$SELECT le_try_acquire(1, '', 1000)$$);
RESET default_transaction_read_only;

-- settings (their messages differ between server versions)
\set VERBOSITY sqlstate
SET leader_election.promotion_grace = 1;
ALTER SYSTEM SET leader_election.promotion_grace = -1;
ALTER SYSTEM SET leader_election.memory_limit = '1MB';
ALTER SYSTEM SET leader_election.sweep_interval = '99ms';
\set VERBOSITY terse

-- an index that was added by hand would run code at every transition
CREATE FUNCTION peek(bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''peeked''; RETURN $1; END';
CREATE INDEX by_hand ON le_lease (peek(token));
CALL expect_error($$SET LOCAL leader_election.allow_in_transaction = on; SELECT le_try_acquire(2, 'node-a', 1000)$$);
SELECT 'le_lease has other indexes than its primary key' = ANY (warnings) AS warned FROM le_info();
-- a heartbeat does not touch the table, and a release no index
SELECT le_renew(1, 'node-a');
BEGIN;
SELECT le_release(1, 'node-a');
ROLLBACK;
DROP INDEX by_hand;
DROP FUNCTION peek;
CREATE INDEX by_hand ON le_lease (lock_id) WHERE token > 0;
CALL expect_error($$SET LOCAL leader_election.allow_in_transaction = on; SELECT le_try_acquire(2, 'node-a', 1000)$$);
DROP INDEX by_hand;
-- one that REINDEX CONCURRENTLY works on, or has left behind, is harmless
CREATE UNIQUE INDEX le_lease_pkey_ccnew ON le_lease (lock_id);
BEGIN;
SET LOCAL leader_election.allow_in_transaction = on;
SELECT le_try_acquire(2, 'node-a', 1000), le_release(2, 'node-a');
ROLLBACK;
SELECT 'le_lease has other indexes than its primary key' = ANY (warnings) AS warned FROM le_info();
DROP INDEX le_lease_pkey_ccnew;

-- of all this nothing stays
SELECT id, leader_id, lease_ms, renewals FROM leader_lease;
SELECT le_try_acquire(1, 'node-a', 600000), le_release(1, 'node-a');
DROP PROCEDURE expect_error;
DROP EXTENSION leader_election;
