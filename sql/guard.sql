-- A guarded transaction commits only while its term is live.
CREATE EXTENSION leader_election;
CREATE TABLE work (step text);
SET leader_election.allow_in_transaction = on;

-- a lease that runs out, and the wait for that
CREATE FUNCTION short_lease(lock_id bigint) RETURNS boolean
	LANGUAGE sql AS $$ SELECT le_try_acquire(lock_id, 'short', 1000) $$;
CREATE FUNCTION runs_out(lock_id bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	WHILE le_leader(lock_id) IS NOT NULL LOOP PERFORM pg_sleep(0.01); END LOOP;
END $$;

-- returns the token of the term
SELECT le_try_acquire(1, 'node-a', 600000), le_try_acquire(2, 'node-a', 600000);
SELECT le_token(1, 'node-a') AS token \gset
SELECT le_guard(1, 'node-a') = :token AS token, le_guard(1, 'node-a', :token) = :token AS same;

-- not the leader, not in this term
SELECT le_guard(1, 'node-b');
\echo :SQLSTATE
SELECT le_guard(3, 'node-b');
\echo :SQLSTATE
SELECT le_try_acquire(4, 'node-a', 600000);
DO $$
DECLARE
	detail text;
	hint text;
BEGIN
	PERFORM le_guard(4, 'node-a', 5);
EXCEPTION WHEN SQLSTATE 'LE001' THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RAISE NOTICE E'%\n  %\n  %', SQLERRM, replace(detail, le_token(4, 'node-a')::text, '(its token)'), hint;
END $$;
-- the other leader's term, and nobody's
SELECT le_guard(1, 'node-b', 1);
SELECT le_guard(3, 'node-b', 2);
-- bad input
SELECT le_guard(NULL, 'node-a');
\echo :SQLSTATE
SELECT le_guard(1, NULL);
\echo :SQLSTATE
SELECT le_guard(1, '');
\echo :SQLSTATE

-- live at COMMIT
BEGIN;
SELECT le_guard(1, 'node-a') > 0 AS guarded;
INSERT INTO work VALUES ('live at commit');
COMMIT;

-- over at COMMIT
SELECT short_lease(5);
BEGIN;
SELECT le_guard(5, 'short') > 0 AS guarded;
INSERT INTO work VALUES ('over at commit');
SELECT runs_out(5);
COMMIT;
\echo :SQLSTATE

-- a guard ends with its transaction
INSERT INTO work VALUES ('not guarded any more');

-- several locks: all of them must hold; the same one twice is once
SELECT short_lease(5);
BEGIN;
SELECT le_guard(1, 'node-a') = le_guard(1, 'node-a') AS twice, le_guard(2, 'node-a') > 0 AS second;
INSERT INTO work VALUES ('two locks');
COMMIT;
BEGIN;
SELECT le_guard(1, 'node-a') > 0 AS first, le_guard(5, 'short') > 0 AS second, le_guard(2, 'node-a') > 0 AS third;
INSERT INTO work VALUES ('two locks of three');
SELECT runs_out(5);
COMMIT;
\echo :SQLSTATE

-- a guard holds to the end of the transaction, whatever becomes of the savepoint
-- that it was set in
SELECT short_lease(5);
BEGIN;
SAVEPOINT a;
SELECT le_guard(5, 'short') > 0 AS guarded;
ROLLBACK TO a;
INSERT INTO work VALUES ('savepoint was rolled back');
SELECT runs_out(5);
COMMIT;
\echo :SQLSTATE
SELECT short_lease(5);
BEGIN;
SAVEPOINT a;
SAVEPOINT b;
SELECT le_guard(5, 'short') > 0 AS guarded;
RELEASE b;
ROLLBACK TO a;
INSERT INTO work VALUES ('outer savepoint was rolled back');
SELECT runs_out(5);
COMMIT;
\echo :SQLSTATE
SELECT short_lease(5);
BEGIN;
SELECT le_guard(5, 'short') > 0 AS guarded;
SAVEPOINT a;
SELECT le_guard(5, 'short') > 0 AS guarded;
ROLLBACK TO a;
INSERT INTO work VALUES ('guard was set before the savepoint');
SELECT runs_out(5);
COMMIT;
\echo :SQLSTATE
SELECT short_lease(5);
BEGIN;
SAVEPOINT a;
SELECT le_guard(5, 'short') > 0 AS guarded;
RELEASE a;
INSERT INTO work VALUES ('savepoint was released');
SELECT runs_out(5);
COMMIT;
\echo :SQLSTATE
-- its statement fails, and a driver rolls that back by itself
SELECT short_lease(5);
BEGIN;
SAVEPOINT driver;
SELECT 1 / (le_guard(5, 'short') * 0);
ROLLBACK TO driver;
INSERT INTO work VALUES ('statement that guarded has failed');
SELECT runs_out(5);
COMMIT;
\echo :SQLSTATE
-- PL/pgSQL catches a later error: an EXCEPTION block is a savepoint
SELECT short_lease(5);
BEGIN;
DO $$ BEGIN
	PERFORM le_guard(5, 'short');
	RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN
	INSERT INTO work VALUES ('exception was caught');
END $$;
SELECT runs_out(5);
COMMIT;
\echo :SQLSTATE
-- who leads on may commit
BEGIN;
SAVEPOINT a;
SELECT le_guard(1, 'node-a') > 0 AS guarded;
ROLLBACK TO a;
INSERT INTO work VALUES ('savepoint was rolled back, leads on');
COMMIT;
-- a term that was undone has never been
BEGIN;
SAVEPOINT a;
SELECT le_try_acquire(5, 'undone', 600000), le_guard(5, 'undone') > 0 AS guarded;
ROLLBACK TO a;
INSERT INTO work VALUES ('term was undone');
COMMIT;
\echo :SQLSTATE

-- refused, and nobody minds: a transaction that has written cannot commit
BEGIN;
SAVEPOINT driver;
SELECT le_guard(1, 'node-b');
ROLLBACK TO driver;
INSERT INTO work VALUES ('refused, then written');
COMMIT;
\echo :SQLSTATE
BEGIN;
INSERT INTO work VALUES ('written, then refused');
SAVEPOINT driver;
SELECT le_guard(1, 'node-b');
ROLLBACK TO driver;
COMMIT;
\echo :SQLSTATE
BEGIN;
DO $$ BEGIN
	PERFORM le_guard(1, 'node-b');
EXCEPTION WHEN SQLSTATE 'LE001' THEN
	RAISE NOTICE 'caught %', SQLSTATE;
END $$;
INSERT INTO work VALUES ('caught');
COMMIT;
\echo :SQLSTATE
-- in autocommit mode
DO $$ BEGIN
	BEGIN
		PERFORM le_guard(1, 'node-b');
	EXCEPTION WHEN SQLSTATE 'LE001' THEN
		INSERT INTO work VALUES ('caught, in one statement');
	END;
END $$;
\echo :SQLSTATE
-- whatever the error
\set VERBOSITY terse
BEGIN;
SAVEPOINT driver;
SELECT le_guard(1, NULL);
ROLLBACK TO driver;
INSERT INTO work VALUES ('lost the name');
COMMIT;
\echo :SQLSTATE
BEGIN;
SAVEPOINT driver;
SELECT le_guard(1, repeat('x', 128));
ROLLBACK TO driver;
INSERT INTO work VALUES ('bad name');
COMMIT;
\echo :SQLSTATE
BEGIN;
SAVEPOINT driver;
SELECT le_guard(1, 'node-a', NULL);
ROLLBACK TO driver;
INSERT INTO work VALUES ('lost the token');
COMMIT;
\echo :SQLSTATE
BEGIN;
SAVEPOINT driver;
SELECT le_guard(NULL, 'node-a');
ROLLBACK TO driver;
INSERT INTO work VALUES ('lost the lock');
COMMIT;
\echo :SQLSTATE
-- a later guard does not heal, the earliest failure is told
BEGIN;
SAVEPOINT driver;
SELECT le_guard(3, 'node-b');
ROLLBACK TO driver;
INSERT INTO work VALUES ('of whose term?');
SELECT le_try_acquire(3, 'node-b', 600000), le_guard(3, 'node-b') > 0 AS guarded;
SAVEPOINT driver;
SELECT le_guard(4, 'node-b');
ROLLBACK TO driver;
COMMIT;
\echo :SQLSTATE
-- two-phase commit
BEGIN;
SAVEPOINT driver;
SELECT le_guard(1, 'node-b');
ROLLBACK TO driver;
PREPARE TRANSACTION 'refused';
\echo :SQLSTATE
\set VERBOSITY default
-- who has only read may commit, and the next transaction is another one
BEGIN;
SAVEPOINT driver;
SELECT le_guard(1, 'node-b');
ROLLBACK TO driver;
SELECT count(*) > 0 AS reads FROM work;
COMMIT;
INSERT INTO work VALUES ('next transaction');
BEGIN;
SAVEPOINT driver;
SELECT le_guard(1, 'node-b');
ROLLBACK TO driver;
INSERT INTO work VALUES ('given up');
ROLLBACK;
INSERT INTO work VALUES ('after a rollback');
DO $$ BEGIN
	BEGIN
		PERFORM le_guard(1, 'node-b');
	EXCEPTION WHEN SQLSTATE 'LE001' THEN NULL;
	END;
	COMMIT;
	INSERT INTO work VALUES ('procedure, next transaction');
	COMMIT;
	BEGIN
		PERFORM le_guard(1, 'node-b');
	EXCEPTION WHEN SQLSTATE 'LE001' THEN NULL;
	END;
	INSERT INTO work VALUES ('procedure, refused');
	COMMIT;
END $$;
\echo :SQLSTATE

-- a SELECT that is a transaction by itself guards nothing that follows
SELECT le_guard(1, 'node-a') > 0 AS guarded;
SELECT * FROM le_guard(1, 'node-a') WHERE false;
PREPARE guard AS SELECT le_guard(1, 'node-a') > 0 AS guarded, le_guard(2, 'node-a') > 0 AS both;
EXECUTE guard;
-- not where it may belong to work, or has done some
BEGIN;
SELECT le_guard(1, 'node-a') > 0 AS guarded;
COMMIT;
SELECT le_guard(1, 'node-a') > 0 AS guarded\; INSERT INTO work VALUES ('in one message');
INSERT INTO work SELECT 'no row' FROM le_guard(1, 'node-a') WHERE le_guard < 0;
CREATE FUNCTION works() RETURNS bigint LANGUAGE sql AS $$
	INSERT INTO work VALUES ('guarded function');
	SELECT le_guard(1, 'node-a');
$$;
SELECT works() > 0 AS guarded;
SELECT le_guard(1, 'node-a') > 0 AS guarded FROM work WHERE step = 'guarded function' FOR UPDATE;

-- finish the work and step down
BEGIN;
SELECT le_guard(4, 'node-a') > 0 AS guarded;
INSERT INTO work VALUES ('stepped down');
SELECT le_release(4, 'node-a');
COMMIT;
SELECT le_leader(4) IS NULL AS vacant;
-- with a lease that runs out after that: the lock was never free
SELECT short_lease(5);
BEGIN;
SELECT le_guard(5, 'short') > 0 AS guarded;
INSERT INTO work VALUES ('stepped down in time');
SELECT expires_at FROM leader_lease WHERE id = 5 \gset
SAVEPOINT a;
SELECT le_release(5, 'short');
RELEASE a;
SELECT pg_sleep(extract(epoch FROM :'expires_at'::timestamptz - clock_timestamp() + '1ms')), clock_timestamp() > :'expires_at' AS over;
COMMIT;
-- a release that was rolled back does not count
SELECT short_lease(5);
BEGIN;
SELECT le_guard(5, 'short') > 0 AS guarded;
INSERT INTO work VALUES ('did not step down');
SAVEPOINT a;
SELECT le_release(5, 'short');
ROLLBACK TO a;
SELECT runs_out(5);
COMMIT;
\echo :SQLSTATE
BEGIN;
SELECT le_guard(1, 'node-a') > 0 AS guarded;
SAVEPOINT a;
SELECT le_release(1, 'node-a');
ROLLBACK TO a;
INSERT INTO work VALUES ('leads still');
COMMIT;
-- after its release nobody is guarded
BEGIN;
SELECT le_release(1, 'node-a');
SELECT le_guard(1, 'node-a');
ROLLBACK;

-- the next term of the same instance is another
SELECT short_lease(5);
BEGIN;
SELECT le_guard(5, 'short') > 0 AS guarded;
INSERT INTO work VALUES ('in the next term');
SELECT runs_out(5);
SELECT le_try_acquire(5, 'short', 600000);
\set VERBOSITY terse
COMMIT;
\set VERBOSITY default
\echo :SQLSTATE
-- releasing that one does not excuse either
SELECT short_lease(5);
BEGIN;
SELECT le_guard(5, 'short') > 0 AS guarded;
INSERT INTO work VALUES ('released the next term');
SELECT runs_out(5);
SELECT le_try_acquire(5, 'short', 600000), le_release(5, 'short');
COMMIT;
\echo :SQLSTATE
-- a term of this very transaction
BEGIN;
SELECT le_try_acquire(6, 'node-a', 600000), le_guard(6, 'node-a') > 0 AS guarded;
INSERT INTO work VALUES ('own term');
COMMIT;

-- two-phase commit
BEGIN;
SELECT le_guard(1, 'node-a') > 0 AS guarded;
PREPARE TRANSACTION 'guarded';
\echo :SQLSTATE

-- whoever only reads may be guarded too
BEGIN READ ONLY;
SELECT le_guard(1, 'node-a') > 0 AS guarded;
COMMIT;
SELECT short_lease(5);
BEGIN READ ONLY;
SELECT le_guard(5, 'short') > 0 AS guarded;
SELECT runs_out(5);
COMMIT;
\echo :SQLSTATE

-- snapshots that are kept
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count(*) > 0 AS snapshot FROM work;
SELECT le_guard(1, 'node-a') > 0 AS guarded;
INSERT INTO work VALUES ('serializable');
COMMIT;
SELECT short_lease(5);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) > 0 AS snapshot FROM work;
SELECT le_guard(5, 'short') > 0 AS guarded;
INSERT INTO work VALUES ('repeatable read, over');
SELECT runs_out(5);
COMMIT;
\echo :SQLSTATE

-- each commit inside a procedure is checked, and ends the guard
CREATE PROCEDURE in_steps() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM le_guard(5, 'short');
	INSERT INTO work VALUES ('procedure, first step');
	COMMIT;
	INSERT INTO work VALUES ('procedure, between');
	COMMIT;
	PERFORM le_guard(5, 'short');
	INSERT INTO work VALUES ('procedure, second step');
	PERFORM runs_out(5);
	COMMIT;
END $$;
SELECT le_try_acquire(5, 'short', 1000);
CALL in_steps();
\echo :SQLSTATE

-- guard and work in one statement
INSERT INTO work SELECT 'one statement' FROM le_guard(1, 'node-a');
INSERT INTO work SELECT 'one statement, not the leader' FROM le_guard(1, 'node-b');
-- a WITH query that nobody refers to is never run: not a guard
WITH guard AS (SELECT le_guard(1, 'node-b')) INSERT INTO work VALUES ('WITH, the wrong way');

-- a cursor guards when it is fetched from, a held one at the latest at COMMIT
SELECT short_lease(5);
BEGIN;
DECLARE c CURSOR FOR SELECT le_guard(5, 'short') > 0 AS guarded;
INSERT INTO work VALUES ('cursor was not fetched from');
SELECT runs_out(5);
COMMIT;
SELECT short_lease(5);
BEGIN;
DECLARE c CURSOR FOR SELECT le_guard(5, 'short') > 0 AS guarded;
FETCH c;
CLOSE c;
INSERT INTO work VALUES ('cursor');
SELECT runs_out(5);
COMMIT;
\echo :SQLSTATE
BEGIN;
DECLARE c CURSOR WITH HOLD FOR SELECT le_guard(1, 'node-b');
INSERT INTO work VALUES ('held cursor');
COMMIT;
\echo :SQLSTATE

-- what deferred triggers write is in time, and they may guard themselves
CREATE TABLE deferred (step text);
CREATE FUNCTION defer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.step = 'waits' THEN PERFORM runs_out(5); END IF;
	IF NEW.step = 'guards' THEN PERFORM le_guard(1, 'node-b'); END IF;
	INSERT INTO work VALUES ('deferred: ' || NEW.step);
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER defer AFTER INSERT ON deferred DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION defer();
INSERT INTO deferred SELECT 'guarded' FROM le_guard(1, 'node-a');
SELECT short_lease(5);
INSERT INTO deferred SELECT 'waits' FROM le_guard(5, 'short');
\echo :SQLSTATE
INSERT INTO deferred VALUES ('guards');
\echo :SQLSTATE

-- a parallel plan leaves it to the leader of the plan, and a function that
-- was wrongly declared safe cannot lose a guard in a worker
SELECT count(set_config(name, CASE WHEN vartype = 'enum' THEN 'on' ELSE '0' END, false)) > 0 AS parallel
	FROM pg_settings
	WHERE name IN ('force_parallel_mode', 'debug_parallel_query',
				   'parallel_setup_cost', 'parallel_tuple_cost', 'min_parallel_table_scan_size');
SELECT short_lease(5);
BEGIN;
SELECT count(*) > 0 AS parallel, (SELECT le_guard(5, 'short')) > 0 AS guarded FROM work;
INSERT INTO work VALUES ('parallel');
SELECT runs_out(5);
COMMIT;
\echo :SQLSTATE
CREATE FUNCTION wrongly_safe() RETURNS bigint LANGUAGE sql PARALLEL SAFE
	AS $$ SELECT le_guard(1, 'node-a') $$;
SELECT wrongly_safe();
\echo :SQLSTATE
RESET ALL;

-- the lease belongs to a role
CREATE ROLE regress_le_guard;
CREATE ROLE regress_le_guard_other;
SET ROLE regress_le_guard;
SELECT le_guard(1, 'node-a');
RESET ROLE;
GRANT EXECUTE ON FUNCTION le_try_acquire, le_guard TO regress_le_guard, regress_le_guard_other;
SET ROLE regress_le_guard;
SELECT le_try_acquire(7, 'node-a', 600000);
SET ROLE regress_le_guard_other;
SELECT le_guard(7, 'node-a');
\echo :SQLSTATE
BEGIN;
SAVEPOINT driver;
SELECT le_guard(7, 'node-a');
ROLLBACK TO driver;
CREATE TEMP TABLE mine ();
COMMIT;
\echo :SQLSTATE
RESET ROLE;
GRANT regress_le_guard TO regress_le_guard_other;
SET ROLE regress_le_guard_other;
BEGIN;
SELECT le_guard(7, 'node-a') > 0 AS guarded;
COMMIT;
RESET ROLE;

-- what was kept
SELECT step FROM work ORDER BY step COLLATE "C";

DROP TABLE work, deferred;
DROP EXTENSION leader_election CASCADE;
DROP PROCEDURE in_steps;
DROP FUNCTION defer, runs_out, works, wrongly_safe;
DROP FUNCTION short_lease;
DROP ROLE regress_le_guard, regress_le_guard_other;
