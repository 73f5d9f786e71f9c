-- Only the functions change le_lease.  Whoever else tries, a superuser too, is
-- refused, and what logical replication brings is passed over.
CREATE EXTENSION leader_election;
SELECT le_try_acquire(1, 'node-a', 600000);
\set VERBOSITY terse

INSERT INTO le_lease SELECT 2, token, lease_ms, leader_role, database, lineage, epoch, expires_at, created_at, leader_id FROM le_lease;
\echo :SQLSTATE
UPDATE le_lease SET leader_id = 'node-b';
DELETE FROM le_lease;
TRUNCATE le_lease;
MERGE INTO le_lease USING (VALUES (1)) AS v(id) ON lock_id = id WHEN MATCHED THEN DELETE;
COPY le_lease FROM stdin;
9	1	1	10	1	1	1	infinity	infinity	x	l	\N
\.
SELECT lock_id, leader_id FROM le_lease;
SELECT le_leader(1), le_renew(1, 'node-a');

-- as logical replication applies changes
SET session_replication_role = replica;
INSERT INTO le_lease SELECT 2, token, lease_ms, leader_role, database, lineage, epoch, expires_at, created_at, leader_id FROM le_lease;
UPDATE le_lease SET leader_id = 'node-b';
DELETE FROM le_lease;
TRUNCATE le_lease;
RESET session_replication_role;
SELECT lock_id, leader_id FROM le_lease;
SELECT le_leader(1), le_renew(1, 'node-a');

-- the functions are in nobody's way
SELECT le_release(1, 'node-a'), le_try_acquire(1, 'node-b', 600000);
SELECT le_try_acquire(2, 'node-a', 1);
DO $$ BEGIN WHILE le_leader(2) IS NOT NULL LOOP PERFORM pg_sleep(0.001); END LOOP; END $$;
SELECT le_sweep(0);

-- without the triggers le_info() warns
SELECT warnings FROM le_info() WHERE warnings::text ~ 'trigger';
ALTER TABLE le_lease DISABLE TRIGGER le_shield;
SELECT warnings FROM le_info();
ALTER TABLE le_lease ENABLE TRIGGER le_shield;
SELECT count(*) AS not_on_a_subscriber FROM le_info() WHERE warnings::text ~ 'trigger';
ALTER TABLE le_lease ENABLE ALWAYS TRIGGER le_shield;
ALTER TABLE le_lease DISABLE TRIGGER le_shield_truncate;
SELECT count(*) AS not_for_truncate FROM le_info() WHERE warnings::text ~ 'trigger';
ALTER TABLE le_lease ENABLE ALWAYS TRIGGER le_shield_truncate;
SELECT count(*) AS as_it_was FROM le_info() WHERE warnings::text ~ 'trigger';

-- a table that is not as it was made is not read (a column of another type
-- would crash the server), and nothing changes
\set VERBOSITY default
SELECT le_release(1, 'node-b');
ALTER TABLE le_lease SET UNLOGGED;
SELECT le_try_acquire(3, 'node-a', 600000);
\echo :SQLSTATE
SELECT le_leader(3);
SELECT le_release(3, 'node-a');
SELECT * FROM leader_lease;
ALTER TABLE le_lease SET LOGGED;
ALTER TABLE le_lease ALTER COLUMN leader_id TYPE varchar(127), ALTER COLUMN token TYPE integer USING 1;
SELECT le_try_acquire(3, 'node-a', 600000);
\echo :SQLSTATE
SELECT le_sweep();
ALTER TABLE le_lease ALTER COLUMN token TYPE bigint;
SELECT le_try_acquire(3, 'node-a', 600000);
ALTER TABLE le_lease ALTER COLUMN leader_id TYPE text;
SELECT le_try_acquire(3, 'node-a', 600000);
ALTER TABLE le_lease ADD COLUMN more int;
SELECT le_try_acquire(4, 'node-a', 600000);
\echo :SQLSTATE
SELECT le_renew(3, 'node-b');
ALTER TABLE le_lease DROP COLUMN more;
SELECT le_try_acquire(4, 'node-a', 600000);
DROP EXTENSION leader_election;
CREATE EXTENSION leader_election;
ALTER TABLE le_lease DROP CONSTRAINT le_lease_pkey;
SELECT le_try_acquire(4, 'node-a', 600000);
\echo :SQLSTATE
ALTER TABLE le_lease ADD PRIMARY KEY (token);
SELECT le_try_acquire(4, 'node-a', 600000);
\echo :SQLSTATE
ALTER TABLE le_lease DROP CONSTRAINT le_lease_pkey, ADD PRIMARY KEY (lock_id);
SELECT le_try_acquire(4, 'node-a', 600000);
DROP EXTENSION leader_election;
