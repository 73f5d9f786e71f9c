-- No error of ours is lost because the client's encoding cannot express a name.
SELECT current_database() AS here \gset
CREATE DATABASE regress_le_utf8 ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0;
CREATE DATABASE regress_le_ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0;

\c regress_le_utf8
SET client_encoding = 'UTF8';
CREATE EXTENSION leader_election;
SELECT le_try_acquire(1, chr(8364), 600000), le_try_acquire(2, 'node-a', 600000);
CREATE TABLE jobs (id int);
DO $$ BEGIN
	EXECUTE format('CREATE TABLE %I () INHERITS (jobs)', chr(8364));
	EXECUTE format('CREATE VIEW jobs_view AS SELECT * FROM %I', chr(8364));
END $$;
SELECT le_protect('jobs', 2);
CREATE ROLE regress_le_messages;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO regress_le_messages;
-- a client who can read it is shown the name
\set VERBOSITY terse
SELECT le_guard(1, chr(233));
SELECT le_guard(1, chr(8364), 1);
\set VERBOSITY default
-- others are shown what does not fail
SET client_encoding = 'LATIN1';
\set SHOW_CONTEXT never
SELECT le_guard(1, 'node-b');
\echo :SQLSTATE
\set VERBOSITY terse
SELECT le_guard(1, chr(8364), 1);
\set VERBOSITY default
\echo :SQLSTATE
SELECT le_try_acquire(2, chr(8364) || repeat('x', 127), 1000);
\echo :SQLSTATE
SELECT le_try_acquire(1, chr(8364), 600001);
\echo :SQLSTATE
SET ROLE regress_le_messages;
SELECT le_renew(1, chr(8364));
\echo :SQLSTATE
RESET ROLE;
BEGIN;
SAVEPOINT a;
SELECT le_guard(2, chr(8364));
ROLLBACK TO a;
CREATE TABLE work ();
COMMIT;
\echo :SQLSTATE
INSERT INTO jobs_view VALUES (1);
\echo :SQLSTATE
DO $$ BEGIN PERFORM le_protect(format('%I', chr(8364))::regclass, 3); END $$;
\echo :SQLSTATE
DO $$ BEGIN
	EXECUTE format('ALTER TABLE %I DISABLE TRIGGER le_fence', chr(8364));
	PERFORM le_protect('jobs', 2);
END $$;
\echo :SQLSTATE
SELECT le_unprotect('jobs');
DO $$ BEGIN PERFORM le_protect(format('%I', chr(8364))::regclass, 2); END $$;
\echo :SQLSTATE
DO $$ BEGIN
	EXECUTE format('CREATE TRIGGER mine AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON jobs EXECUTE FUNCTION le_fence(%L)', chr(8364));
END $$;
INSERT INTO jobs VALUES (1);
\echo :SQLSTATE
SELECT le_protect('jobs', 2);
\echo :SQLSTATE
SET ROLE regress_le_messages;
DO $$ BEGIN PERFORM le_protect(format('%I', chr(8364))::regclass, 2); END $$;
\echo :SQLSTATE
RESET ROLE;
DO $$ BEGIN EXECUTE format('CREATE VIEW %I AS SELECT FROM jobs', chr(8364) || 's'); END $$;
DO $$ BEGIN PERFORM le_protect(format('%I', chr(8364) || 's')::regclass, 2); END $$;
\echo :SQLSTATE

-- a server that does not know what its bytes mean
\c regress_le_ascii
SET client_encoding = 'UTF8';
\set SHOW_CONTEXT never
CREATE EXTENSION leader_election;
SELECT le_try_acquire(1, E'\xE2\x82', 600000), le_try_acquire(2, 'node-a', 600000);
SELECT le_guard(1, 'node-b');
\echo :SQLSTATE
SELECT le_guard(2, E'\xE2\x82');
\echo :SQLSTATE
SELECT le_try_acquire(2, repeat(E'\xE2\x82\xAC', 43), 1000);
\echo :SQLSTATE

\c :here
DROP DATABASE regress_le_utf8;
DROP DATABASE regress_le_ascii;
DROP ROLE regress_le_messages;
