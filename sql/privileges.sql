-- Owner, runtime roles, and strangers.
CREATE EXTENSION leader_election;
CREATE ROLE regress_le_app;
CREATE ROLE regress_le_member IN ROLE regress_le_app;
CREATE ROLE regress_le_other;
CREATE ROLE regress_le_monitor;
CREATE ROLE regress_le_stranger;
GRANT EXECUTE ON FUNCTION le_try_acquire, le_renew, le_release, le_is_leader, le_leader, le_token,
	le_campaign, le_keep_alive, le_observe
	TO regress_le_app, regress_le_other;
GRANT SELECT ON leader_lease TO regress_le_monitor;
GRANT EXECUTE ON FUNCTION le_leases, le_leader, le_info TO regress_le_monitor;

-- a role that was granted nothing
SET ROLE regress_le_stranger;
SELECT le_try_acquire(1, 'node-a', 600000);
SELECT le_renew(1, 'node-a');
SELECT le_release(1, 'node-a');
SELECT le_is_leader(1, 'node-a');
SELECT le_leader(1);
SELECT le_token(1, 'node-a');
SELECT le_campaign(1, 'node-a');
SELECT le_keep_alive(1, 'node-a', 1);
SELECT le_observe(1);
SELECT le_sweep();
SELECT * FROM le_info();
SELECT * FROM le_leases();
SELECT * FROM leader_lease;
SELECT * FROM le_waiters();
SELECT * FROM leader_waiting;
SELECT * FROM le_lease;
SELECT last_value FROM le_lineage_seq;
SELECT setval('le_token_seq', 1);
SELECT nextval('le_token_seq');
SELECT length(le_instance()), le_lock_id('x') > 0 AS harmless;

-- one that was: elects, and sees no table
SET ROLE regress_le_app;
SELECT le_try_acquire(1, 'node-a', 600000);
SELECT le_renew(1, 'node-a'), le_leader(1), le_token(1, 'node-a') > 0 AS token;
SELECT * FROM le_lease;
DELETE FROM le_lease;
SELECT setval('le_token_seq', 1);
SELECT le_sweep();

-- its term is its own: another role with the same name is turned away
SET ROLE regress_le_other;
SELECT le_try_acquire(1, 'node-b', 600000);
SELECT le_try_acquire(1, 'node-a', 600000);
\echo :SQLSTATE
SELECT le_renew(1, 'node-a');
\echo :SQLSTATE
SELECT le_release(1, 'node-a');
\echo :SQLSTATE
SELECT le_campaign(1, 'node-a', wait_ms => 60000);
\echo :SQLSTATE
SELECT le_keep_alive(1, 'node-a', (SELECT token FROM le_observe(1)));
\echo :SQLSTATE
SELECT le_leader(1);

-- a member of the role, and a superuser, may act for it
SET ROLE regress_le_member;
SELECT elected, valid_for_ms FROM le_campaign(1, 'node-a', 1);
SELECT leads FROM le_keep_alive(1, 'node-a', le_token(1, 'node-a'));
SELECT le_renew(1, 'node-a'), le_try_acquire(1, 'node-a', 600000), le_release(1, 'node-a');
SELECT le_try_acquire(1, 'node-a', 600000);
SET ROLE regress_le_app;
SELECT le_renew(1, 'node-a') AS by_the_role_that_the_member_belongs_to;
RESET ROLE;
SELECT leader_role FROM leader_lease;
SELECT le_renew(1, 'node-a'), le_renew(1, 'node-a'), le_release(1, 'node-a');

-- role mismatch before the first heartbeat, too
SET ROLE regress_le_app;
SELECT le_try_acquire(2, 'node-a', 600000);
SET ROLE regress_le_other;
SELECT le_renew(2, 'node-a');
SELECT le_try_acquire(2, 'node-a', 600000);
SELECT le_campaign(2, 'node-a', wait_ms => 60000);
SELECT le_keep_alive(2, 'node-a', le_token(2, 'node-a'));
SELECT le_release(2, 'node-a');
RESET ROLE;
SELECT le_release(2, 'node-a');

-- over, the name is free to any role
SET ROLE regress_le_app;
SELECT le_try_acquire(3, 'node-a', 20);
SET ROLE regress_le_other;
DO $$ BEGIN WHILE le_leader(3) IS NOT NULL LOOP PERFORM pg_sleep(0.001); END LOOP; END $$;
SELECT le_renew(3, 'node-a'), le_release(3, 'node-a');
SELECT le_try_acquire(3, 'node-a', 600000);
SET ROLE regress_le_app;
SELECT le_renew(3, 'node-a');

-- a sweep needs the rights of the table's owner, whoever may execute it
RESET ROLE;
GRANT EXECUTE ON FUNCTION le_sweep TO regress_le_app;
SET ROLE regress_le_app;
SELECT le_sweep(0);
\echo :SQLSTATE
RESET ROLE;
CREATE ROLE regress_le_owner;
GRANT CREATE, USAGE ON SCHEMA public TO regress_le_owner;
ALTER TABLE le_lease OWNER TO regress_le_owner;
-- each sequence is used with the rights of its own owner
SET ROLE regress_le_app;
SELECT le_try_acquire(8, 'node-a', 600000), le_release(8, 'node-a');
RESET ROLE;
ALTER SEQUENCE le_token_seq OWNER TO regress_le_owner;
ALTER SEQUENCE le_lineage_seq OWNER TO regress_le_owner;
GRANT EXECUTE ON FUNCTION le_sweep TO regress_le_owner;
SET ROLE regress_le_owner;
SELECT le_sweep(0);
-- and the runtime role goes on as before, with the owner not a superuser
SET ROLE regress_le_app;
SELECT le_try_acquire(8, 'node-a', 600000), le_renew(8, 'node-a'), le_release(8, 'node-a');
RESET ROLE;
REASSIGN OWNED BY regress_le_owner TO CURRENT_USER;
DROP OWNED BY regress_le_owner;
DROP ROLE regress_le_owner;

-- the monitoring role looks, and no more
SET ROLE regress_le_monitor;
SELECT id, leader_id, leader_role, state FROM leader_lease ORDER BY id;
SELECT le_leader(3), version FROM le_info();
SELECT le_renew(3, 'node-a');
-- a view's reader needs EXECUTE on its function as well
SELECT * FROM leader_waiting;
RESET ROLE;
GRANT SELECT ON leader_waiting TO regress_le_monitor;
SET ROLE regress_le_monitor;
SELECT * FROM leader_waiting;
RESET ROLE;
GRANT EXECUTE ON FUNCTION le_waiters TO regress_le_monitor;
SET ROLE regress_le_monitor;
SELECT * FROM leader_waiting;

-- within a SECURITY DEFINER function the role is the definer
RESET ROLE;
CREATE FUNCTION lead_as_app(bigint) RETURNS boolean SECURITY DEFINER LANGUAGE sql
	AS $$ SELECT le_try_acquire($1, 'node-c', 600000) $$;
ALTER FUNCTION lead_as_app OWNER TO regress_le_app;
SET ROLE regress_le_stranger;
SELECT lead_as_app(4);
RESET ROLE;
SELECT leader_role FROM leader_lease WHERE id = 4;

-- a trigger or rule that somebody put on the table is not run
CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
CREATE TRIGGER trap BEFORE INSERT OR UPDATE OR DELETE ON le_lease FOR EACH ROW EXECUTE FUNCTION trap();
SELECT le_try_acquire(5, 'node-a', 600000), le_release(5, 'node-a');
DROP TRIGGER trap ON le_lease;
DROP FUNCTION trap;

-- a search_path full of traps does not matter
CREATE SCHEMA trap;
CREATE TABLE trap.le_lease (LIKE le_lease);
CREATE SEQUENCE trap.le_token_seq;
GRANT USAGE ON SCHEMA trap TO regress_le_app;
SET search_path = trap, public, pg_catalog;
SET ROLE regress_le_app;
SELECT le_try_acquire(6, 'node-a', 600000), le_leader(6);
RESET ROLE;
SELECT count(*) FROM trap.le_lease;
RESET search_path;
DROP SCHEMA trap CASCADE;

-- the term's role may be dropped; the lease then runs out, or a superuser ends it
SET ROLE regress_le_app;
SELECT le_try_acquire(7, 'node-a', 600000);
RESET ROLE;
DROP FUNCTION lead_as_app;
DROP OWNED BY regress_le_app, regress_le_other, regress_le_monitor;
DROP ROLE regress_le_member, regress_le_app, regress_le_other, regress_le_monitor, regress_le_stranger;
SELECT leader_role LIKE 'unknown (OID=%' AS gone, state FROM leader_lease WHERE id = 7;
SELECT le_release(7, 'node-a');
DROP EXTENSION leader_election;

-- default privileges of the installing role do not reach us
CREATE ROLE regress_le_reader;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO regress_le_reader;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO regress_le_reader;
ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO regress_le_reader;
CREATE SCHEMA "regress le schema";
CREATE EXTENSION leader_election SCHEMA "regress le schema";
SELECT count(*) AS relations, count(*) FILTER (WHERE has_table_privilege('regress_le_reader', oid, 'SELECT')) AS readable,
	   count(*) FILTER (WHERE relkind <> 'S' AND has_table_privilege('regress_le_reader', oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')) AS writable
FROM pg_class WHERE relnamespace = '"regress le schema"'::regnamespace AND relkind IN ('r', 'v', 'S');
SELECT proname FROM pg_proc WHERE pronamespace = '"regress le schema"'::regnamespace
	AND has_function_privilege('regress_le_reader', oid, 'EXECUTE') ORDER BY proname;
CREATE TABLE theirs ();
SELECT has_table_privilege('regress_le_reader', 'theirs', 'SELECT') AS as_before;
DROP TABLE theirs;
DROP EXTENSION leader_election;
DROP SCHEMA "regress le schema";
DROP OWNED BY regress_le_reader;
DROP ROLE regress_le_reader;
