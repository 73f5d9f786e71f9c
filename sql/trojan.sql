-- Whoever may create objects in the extension's schema can plant there whatever
-- the install script might take for the server's own.  The script must not run
-- any of it, nothing that it makes may be bound to it, and it must not fail
-- because of a namesake.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE ROLE regress_le_planter;
CREATE SCHEMA trojan AUTHORIZATION regress_le_planter;

-- every word and every operator of the script
SELECT pg_read_file(setting || '/extension/leader_election--1.0.sql') AS script
FROM pg_config WHERE name = 'SHAREDIR' \gset
CREATE TEMPORARY TABLE words AS
	SELECT DISTINCT match[1] AS word
	FROM regexp_matches(:'script', '[a-z_][a-z0-9_]*', 'g') AS match;
CREATE TEMPORARY TABLE operators AS
	SELECT DISTINCT match[1] AS operator
	FROM regexp_matches(:'script', '[-+*/<>=~!@#%^&|]+', 'g') AS match
	WHERE match[1] IN (SELECT oprname FROM pg_operator)
	UNION
	SELECT unnest('{=,<>,<,<=,>,>=,~~,!~~}'::text[]);    -- BETWEEN, IN, LIKE
GRANT SELECT ON words, operators TO PUBLIC;

SET ROLE regress_le_planter;
CREATE FUNCTION trojan.spring() RETURNS boolean LANGUAGE plpgsql
	AS $$ BEGIN RAISE 'a trojan ran as %', current_user; END $$;
CREATE TEMPORARY TABLE planted AS SELECT '' AS kind, '' AS name WHERE false;
DO $$
DECLARE
	types text[] = '{bool,"\"char\"",int2,int4,int8,numeric,text,name,oid,regclass,regprocedure,bytea,bit,uuid,pg_lsn,timestamptz}';
	few text[] = '{int4,int8,text,bytea}';
	body text = 'LANGUAGE plpgsql AS ''BEGIN RETURN trojan.spring(); END''';
	arguments text[];
	n text;
	l text;
	r text;
BEGIN
	SET LOCAL check_function_bodies = off;
	FOREACH l IN ARRAY types LOOP
		FOREACH r IN ARRAY types LOOP
			EXECUTE format('CREATE FUNCTION trojan.is(%s, %s) RETURNS boolean %s', l, r, body);
			EXECUTE format('CREATE FUNCTION trojan.make(%s, %s) RETURNS text %s', l, r, body);
			FOR n IN SELECT operator FROM operators LOOP
				EXECUTE format('CREATE OPERATOR trojan.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = trojan.%s)',
							   n, l, r, CASE WHEN n ~ '^[<>=~!]' THEN 'is' ELSE 'make' END);
				INSERT INTO planted VALUES ('operator', n);
			END LOOP;
		END LOOP;
	END LOOP;

	-- namesakes of the server's functions, with arguments that may suit better
	SELECT types
		   || (SELECT array_agg(concat_ws(',', a, b)) FROM unnest(types) a, unnest(types) b)
		   || (SELECT array_agg(concat_ws(',', a, b, c)) FROM unnest(few) a, unnest(few) b, unnest(few) c)
		INTO arguments;
	FOR n IN SELECT word FROM words WHERE word IN (SELECT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace) LOOP
		FOREACH l IN ARRAY arguments LOOP
			EXECUTE format('CREATE FUNCTION trojan.%I(%s) RETURNS text %s', n, l, body);
		END LOOP;
		INSERT INTO planted VALUES ('function', n);
	END LOOP;
	-- and of the extension's, with other arguments
	FOR n IN SELECT word FROM words WHERE word LIKE 'le\_%' LOOP
		FOREACH l IN ARRAY '{date,"date,date",VARIADIC date[]}'::text[] LOOP
			EXECUTE format('CREATE FUNCTION trojan.%I(%s) RETURNS text %s', n, l, body);
		END LOOP;
		INSERT INTO planted VALUES ('namesake', n);
	END LOOP;

	FOR n IN SELECT word FROM words WHERE word IN (SELECT typname FROM pg_type WHERE typtype IN ('b', 'p')
			AND typnamespace = 'pg_catalog'::regnamespace) LOOP
		EXECUTE format('CREATE DOMAIN trojan.%I AS text CHECK (trojan.spring())', n);
		INSERT INTO planted VALUES ('type', n);
	END LOOP;
	FOR n IN SELECT word FROM words WHERE word IN (SELECT relname FROM pg_class WHERE relkind IN ('r', 'v')
			AND relnamespace = 'pg_catalog'::regnamespace) LOOP
		EXECUTE format('CREATE VIEW trojan.%I AS SELECT trojan.spring()', n);
		INSERT INTO planted VALUES ('relation', n);
	END LOOP;
END $$;
RESET ROLE;
SELECT kind, name FROM planted
WHERE name IN ('<=', '||', 'setval', 'format', 'le_try_acquire', 'le_leases', 'text', 'regclass', 'pg_trigger', 'pg_depend')
GROUP BY kind, name ORDER BY kind, name COLLATE "C";

-- the trojans bite
SET search_path = trojan, pg_temp;
SELECT 1::numeric BETWEEN 0::bigint AND 2::bigint;
SELECT setval('le_token_seq', 1);
SELECT 'x'::text || 1::integer;
RESET search_path;

-- but not here
CREATE EXTENSION leader_election SCHEMA trojan;

-- Whatever a member or a part of one (a rule, default, constraint, index,
-- trigger, type) depends on is the server's or the extension's.
CREATE FUNCTION foreign_to_extension() RETURNS TABLE (what text, needs text) LANGUAGE sql AS $$
	WITH RECURSIVE extension AS (
		SELECT oid, extnamespace FROM pg_extension WHERE extname = 'leader_election'
	), part AS (
		SELECT classid, objid FROM pg_depend, extension
		WHERE refclassid = 'pg_extension'::regclass AND refobjid = oid AND deptype = 'e'
		UNION
		SELECT d.classid, d.objid FROM part p JOIN pg_depend d
			ON d.refclassid = p.classid AND d.refobjid = p.objid AND d.deptype IN ('a', 'i')
	)
	SELECT pg_describe_object(classid, objid, objsubid), pg_describe_object(refclassid, refobjid, refobjsubid)
	FROM part JOIN pg_depend USING (classid, objid), extension
	WHERE (refclassid, refobjid) NOT IN (SELECT * FROM part)
		  AND (refclassid, refobjid) NOT IN (('pg_extension'::regclass, oid), ('pg_namespace'::regclass, extnamespace))
		  AND (pg_identify_object(refclassid, refobjid, 0)).schema IS DISTINCT FROM 'pg_catalog'
$$;
SELECT * FROM foreign_to_extension();
-- it would be seen
ALTER TABLE trojan.le_lease
	ADD CHECK (token OPERATOR(trojan.<>) 0::bigint),
	ALTER token SET DEFAULT trojan.spring()::int;
SELECT needs FROM foreign_to_extension() ORDER BY needs COLLATE "C";
DROP EXTENSION leader_election;

-- nor where the planter himself lets the script run as superuser
GRANT CREATE ON DATABASE :"DBNAME" TO regress_le_planter;
SET ROLE regress_le_planter;
CREATE EXTENSION leader_election SCHEMA trojan;
RESET ROLE;
SELECT * FROM foreign_to_extension();
-- pg_depend knows nothing of a body that is parsed when it is called
SELECT objid::regprocedure FROM pg_depend JOIN pg_proc p ON p.oid = objid
WHERE classid = 'pg_proc'::regclass AND refclassid = 'pg_extension'::regclass
	  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'leader_election')
	  AND prolang <> (SELECT oid FROM pg_language WHERE lanname = 'c') AND prosqlbody IS NULL;

-- nor do they bite whoever uses it, even with a search_path that asks for it
CREATE TABLE work ();
SELECT trojan.le_try_acquire(1, 'node-a', 600000), trojan.le_protect('work'::regclass, 1);
CREATE TRIGGER fence AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON work
	EXECUTE FUNCTION trojan.le_fence('9223372036854775808');
SET search_path = trojan, pg_catalog;
TABLE trojan.leader_protected;
SELECT id, leader_id, state FROM trojan.leader_lease;
TABLE trojan.leader_waiting;
SELECT leader_id, state FROM trojan.le_observe(1);
SELECT elected FROM trojan.le_campaign(1, 'node-a', wait_ms => 1);
SELECT trojan.le_lock_id('nightly-report');
SELECT trojan.le_sweep(), (trojan.le_info()).version;
SELECT trojan.le_guard(1, 'node-a') OPERATOR(pg_catalog.>) 0 AS guarded, trojan.le_unprotect('public.work'::pg_catalog.regclass);
RESET search_path;

-- what is left to PUBLIC of the extension is the same as ever
SELECT objid::regprocedure FROM pg_depend
WHERE classid = 'pg_proc'::regclass AND refclassid = 'pg_extension'::regclass
	  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'leader_election')
	  AND has_function_privilege('public', objid, 'EXECUTE')
ORDER BY 1;

DROP TABLE work, words, operators, planted;
DROP FUNCTION foreign_to_extension;
DROP EXTENSION leader_election;
-- (in pieces, because each object is locked)
DO $$
DECLARE
	functions text;
BEGIN
	FOR functions IN
		SELECT string_agg(oid::regprocedure::text, ', ')
		FROM pg_proc WHERE pronamespace = 'trojan'::regnamespace AND proname <> 'spring'
		GROUP BY oid::bigint / 100
	LOOP
		EXECUTE 'DROP FUNCTION ' || functions || ' CASCADE';
		COMMIT;
	END LOOP;
END $$;
DROP SCHEMA trojan CASCADE;
DROP OWNED BY regress_le_planter;
DROP ROLE regress_le_planter;
