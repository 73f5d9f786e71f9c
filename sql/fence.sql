-- A protected table is changed under a guard only.
CREATE EXTENSION leader_election;
SET client_min_messages = warning;
CREATE TABLE jobs (id int PRIMARY KEY, state text);
CREATE TABLE notes (id int REFERENCES jobs ON DELETE CASCADE ON UPDATE CASCADE);
INSERT INTO jobs VALUES (1, 'new');
INSERT INTO notes VALUES (1);
SELECT le_try_acquire(1, 'node-a', 600000), le_try_acquire(2, 'node-a', 600000);

SELECT le_protect('jobs', 1);
SELECT le_protect('notes', 1);
SELECT * FROM leader_protected ORDER BY relation::text COLLATE "C";
\d jobs

-- whatever changes it, and whatever the role
INSERT INTO jobs VALUES (2, 'new');
\echo :SQLSTATE
UPDATE jobs SET state = 'done';
DELETE FROM jobs;
TRUNCATE jobs CASCADE;
COPY jobs FROM stdin;
3	new
\.
INSERT INTO jobs VALUES (1, 'new') ON CONFLICT DO NOTHING;
MERGE INTO jobs USING (VALUES (1)) AS v (id) ON jobs.id = v.id WHEN MATCHED THEN DELETE;
WITH gone AS (DELETE FROM jobs RETURNING id) SELECT count(*) FROM gone;
-- also a statement that would change nothing
DELETE FROM jobs WHERE false;
-- who reads and locks is let through
SELECT state FROM jobs WHERE id = 1 FOR UPDATE;
SELECT * FROM jobs, notes;

-- with a guard of that lock, in the same transaction or the same statement
BEGIN;
SELECT le_guard(1, 'node-a') > 0 AS guarded;
INSERT INTO jobs VALUES (2, 'guarded transaction');
UPDATE jobs SET state = 'seen' WHERE id = 1;
COMMIT;
INSERT INTO jobs SELECT 3, 'one statement' FROM le_guard(1, 'node-a');
WITH made AS (INSERT INTO jobs VALUES (4, 'guard in the outer statement') RETURNING id)
	SELECT id, le_guard(1, 'node-a') > 0 AS guarded FROM made;
MERGE INTO jobs USING (SELECT 3 FROM le_guard(1, 'node-a')) AS v (id) ON jobs.id = v.id
	WHEN MATCHED THEN UPDATE SET state = 'merged';
-- a WITH query that nobody refers to is never run
WITH guard AS (SELECT le_guard(1, 'node-a')) INSERT INTO jobs VALUES (5, 'WITH, the wrong way');
-- the next transaction needs its own
INSERT INTO jobs VALUES (5, 'not guarded any more');
-- another lock's does not do
INSERT INTO jobs SELECT 5, 'another lock' FROM le_guard(2, 'node-a');
-- nor one that was refused
BEGIN;
SAVEPOINT a;
SELECT le_guard(1, 'node-b');
ROLLBACK TO a;
INSERT INTO jobs VALUES (5, 'guard was refused');
ROLLBACK;
-- one that is set in a savepoint holds to the end of the transaction
BEGIN;
SAVEPOINT a;
SELECT le_guard(1, 'node-a') > 0 AS guarded;
ROLLBACK TO a;
INSERT INTO jobs VALUES (5, 'savepoint was rolled back');
ROLLBACK;
-- who steps down may still write in that transaction: nobody else leads yet
BEGIN;
SELECT le_guard(1, 'node-a') > 0 AS guarded;
SELECT le_release(1, 'node-a');
INSERT INTO jobs VALUES (5, 'stepped down');
COMMIT;
SELECT le_try_acquire(1, 'node-a', 600000);

-- each transaction of a procedure needs its own
CREATE PROCEDURE in_steps() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM le_guard(1, 'node-a');
	INSERT INTO jobs VALUES (6, 'procedure');
	COMMIT;
	INSERT INTO jobs VALUES (7, 'procedure, not guarded');
END $$;
CALL in_steps();
SELECT * FROM jobs ORDER BY id;

-- what a foreign key changes counts as well
SELECT le_unprotect('jobs');
UPDATE jobs SET id = 10 WHERE id = 1;
DELETE FROM jobs WHERE id = 1;
BEGIN;
SELECT le_guard(1, 'node-a') > 0 AS guarded;
UPDATE jobs SET id = 10 WHERE id = 1;
COMMIT;
SELECT * FROM notes;
-- through a view
CREATE VIEW all_notes AS SELECT * FROM notes;
DELETE FROM all_notes;
DELETE FROM all_notes USING le_guard(1, 'node-a');
SELECT le_unprotect('notes'), le_unprotect('notes') AS again;
SELECT count(*) FROM leader_protected;

-- partitions and children: the whole tree, also when addressed directly
CREATE TABLE part (id int) PARTITION BY LIST (id);
CREATE TABLE part1 PARTITION OF part FOR VALUES IN (1);
CREATE TABLE part2 PARTITION OF part FOR VALUES IN (2) PARTITION BY LIST (id);
CREATE TABLE part2a PARTITION OF part2 FOR VALUES IN (2);
CREATE TABLE mother (id int);
CREATE TABLE child () INHERITS (mother);
SELECT le_protect('part', 1) AS part, le_protect('mother', 1) AS mother, le_protect('mother', 1) AS again;
INSERT INTO part VALUES (1);
INSERT INTO part1 VALUES (1);
INSERT INTO part2a VALUES (2);
TRUNCATE part2a;
UPDATE child SET id = 1;
DELETE FROM mother;
INSERT INTO part SELECT 1 FROM le_guard(1, 'node-a');
UPDATE part SET id = 2;
UPDATE part SET id = 2 FROM le_guard(1, 'node-a');
SELECT tableoid::regclass, id FROM part;
-- one that is attached later is not protected by itself, and shows
CREATE TABLE part3 PARTITION OF part FOR VALUES IN (3);
SELECT * FROM leader_protected ORDER BY relation::text COLLATE "C";
INSERT INTO part3 VALUES (3);
SELECT le_protect('part', 1);
INSERT INTO part3 VALUES (3);
-- one that another lock protects
SELECT le_protect('part1', 2);
\echo :SQLSTATE
CREATE TABLE part4 (id int);
SELECT le_protect('part4', 2);
ALTER TABLE part ATTACH PARTITION part4 FOR VALUES IN (4);
SELECT le_protect('part', 1);
\echo :SQLSTATE
SELECT * FROM leader_protected WHERE relation = 'part4'::regclass;
SELECT le_unprotect('part'), le_unprotect('mother');
-- a statement that names the parent fires the parent's fence only: that must be
-- there, and if it goes, or comes without one, it shows
SELECT le_protect('part1', 1);
\echo :SQLSTATE
SELECT le_protect('child', 1);
CREATE TABLE father (id int);
ALTER TABLE child INHERIT father;
SELECT le_protect('mother', 1);
SELECT * FROM leader_protected ORDER BY relation::text COLLATE "C";
SELECT le_protect('father', 1);
SELECT * FROM leader_protected ORDER BY relation::text COLLATE "C";
SELECT le_unprotect('father'), le_unprotect('mother');
SELECT le_protect('part4', 1);
ALTER TABLE part DETACH PARTITION part4;
SELECT le_protect('part4', 1);
ALTER TABLE part ATTACH PARTITION part4 FOR VALUES IN (4);
INSERT INTO part VALUES (4);
SELECT * FROM leader_protected ORDER BY relation::text COLLATE "C";
SELECT le_protect('part', 1), le_protect('part4', 1) AS again;
INSERT INTO part VALUES (4);
ALTER TABLE part DISABLE TRIGGER le_fence;
SELECT le_protect('part4', 1);
ALTER TABLE part ENABLE TRIGGER le_fence;
SELECT le_unprotect('part');

-- what it does not stop shows, if it can
SELECT le_protect('jobs', -10);
ALTER TABLE jobs DISABLE TRIGGER le_fence;
SELECT * FROM leader_protected;
INSERT INTO jobs VALUES (20, 'disabled');
SELECT le_protect('jobs', -10);
\echo :SQLSTATE
ALTER TABLE jobs ENABLE TRIGGER le_fence;
INSERT INTO jobs VALUES (21, 'enabled');
SET session_replication_role = replica;
INSERT INTO jobs VALUES (21, 'replica');
RESET session_replication_role;

-- DROP EXTENSION asks first; a protected table can be renamed and dropped
DROP EXTENSION leader_election;
ALTER TABLE jobs RENAME TO work;
INSERT INTO work VALUES (22, 'renamed');
ALTER TABLE work RENAME TO jobs;
-- the schema may change
CREATE SCHEMA election;
ALTER EXTENSION leader_election SET SCHEMA election;
INSERT INTO jobs VALUES (22, 'moved');
SELECT * FROM election.leader_protected;
SELECT election.le_protect('jobs', -10) AS again, election.le_unprotect('jobs');
ALTER EXTENSION leader_election SET SCHEMA public;

-- bad input
SELECT le_protect(NULL, 1);
SELECT le_protect('jobs', NULL);
SELECT le_unprotect(NULL);
SELECT le_protect('all_notes', 1);
\echo :SQLSTATE
SELECT le_unprotect('all_notes');
SELECT le_protect('jobs_pkey', 1);
\echo :SQLSTATE
SELECT le_protect(1, 1);
\echo :SQLSTATE
SELECT le_unprotect(1);
\echo :SQLSTATE
-- the extension's own, also as a child
SELECT le_protect('le_lease', 1);
\echo :SQLSTATE
SELECT le_unprotect('le_lease');
SELECT le_protect('le_token_seq', 1);
SELECT le_protect('leader_lease', 1);
CREATE TABLE keys (lock_id bigint);
ALTER TABLE le_lease INHERIT keys;
SELECT le_protect('keys', 1);
SELECT * FROM leader_protected;
ALTER TABLE le_lease NO INHERIT keys;
DROP TABLE keys;
SELECT le_protect('pg_class', 1);
SELECT le_fence();
CREATE TRIGGER mine BEFORE INSERT ON jobs EXECUTE FUNCTION le_fence(1);
INSERT INTO jobs VALUES (23, 'a trigger of another kind');
\echo :SQLSTATE
DROP TRIGGER mine ON jobs;
CREATE TRIGGER mine AFTER INSERT ON jobs EXECUTE FUNCTION le_fence('one');
INSERT INTO jobs VALUES (23, 'not a number');
SELECT * FROM leader_protected;
-- such a one is no fence, but is not left behind either; nor is one that anybody
-- may have made on a table of his own
DROP TRIGGER mine ON jobs;
CREATE TRIGGER mine AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON jobs EXECUTE FUNCTION le_fence('evil');
CREATE TRIGGER more AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON jobs EXECUTE FUNCTION le_fence('9223372036854775808');
SELECT * FROM leader_protected;
SELECT le_protect('jobs', 1);
SELECT le_unprotect('jobs');
CREATE TRIGGER mine AFTER INSERT ON jobs EXECUTE FUNCTION le_fence('one');
DROP TRIGGER mine ON jobs;
CREATE TRIGGER mine AFTER INSERT ON jobs EXECUTE FUNCTION le_fence(1);
SELECT le_protect('jobs', 1), le_protect('jobs', 1) AS again, le_unprotect('jobs');
-- one made by hand may write the number in its own way
CREATE TRIGGER le_fence AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON part EXECUTE FUNCTION le_fence('+01');
INSERT INTO part SELECT 1 FROM le_guard(1, 'node-a');
INSERT INTO part VALUES (1);
SELECT * FROM leader_protected WHERE relation = 'part'::regclass;
SELECT le_protect('part1', 1), le_protect('part', 1) AS rest;
SELECT le_protect('part', 2);
SELECT le_unprotect('part') > 0 AS unprotected;
CREATE TRIGGER mine AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON jobs EXECUTE FUNCTION le_fence('1 ');
INSERT INTO jobs SELECT 23, 'not a number' FROM le_guard(1, 'node-a');
SELECT le_protect('jobs', 1);
SELECT le_unprotect('jobs');
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'jobs'::regclass AND tgfoid = 'le_fence()'::regprocedure;
BEGIN READ ONLY;
SELECT le_protect('jobs', 1);
ROLLBACK;

-- only the owner, of all of the tables
CREATE ROLE regress_le_fence;
CREATE ROLE regress_le_fence_other;
GRANT ALL ON SCHEMA public TO regress_le_fence, regress_le_fence_other;
ALTER TABLE jobs OWNER TO regress_le_fence;
ALTER TABLE part OWNER TO regress_le_fence;
GRANT ALL ON jobs TO regress_le_fence_other;
SET ROLE regress_le_fence;
SELECT le_protect('jobs', 1);
RESET ROLE;
GRANT EXECUTE ON FUNCTION le_protect, le_unprotect TO regress_le_fence, regress_le_fence_other;
GRANT EXECUTE ON FUNCTION le_try_acquire, le_guard TO regress_le_fence_other;
SET ROLE regress_le_fence_other;
SELECT le_protect('jobs', 1);
\echo :SQLSTATE
SET ROLE regress_le_fence;
SELECT le_protect('jobs', 3), le_protect('part1', 3);
SELECT le_protect('part', 3);
SELECT le_protect('jobs', 3);
INSERT INTO jobs VALUES (30, 'the owner');
-- it is the guard that counts, not the right to make one
SET ROLE regress_le_fence_other;
SELECT le_try_acquire(3, 'node-o', 600000);
INSERT INTO jobs VALUES (30, 'without');
INSERT INTO jobs SELECT 30, 'with' FROM le_guard(3, 'node-o');
SELECT le_unprotect('jobs');
RESET ROLE;
INSERT INTO jobs VALUES (31, 'a superuser');
SELECT le_unprotect('jobs');
SELECT state FROM jobs WHERE id >= 20 ORDER BY id;

DROP TABLE jobs, notes, part, mother, father CASCADE;
DROP PROCEDURE in_steps;
DROP SCHEMA election;
DROP EXTENSION leader_election;
REVOKE ALL ON SCHEMA public FROM regress_le_fence, regress_le_fence_other;
DROP ROLE regress_le_fence, regress_le_fence_other;
