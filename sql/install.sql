-- What CREATE EXTENSION makes, and what it leaves to PUBLIC.
CREATE EXTENSION leader_election;
\dx+ leader_election

-- no TOAST table, one index, fixed access method
SELECT reltoastrelid, amname FROM pg_class c JOIN pg_am a ON a.oid = c.relam
WHERE c.oid = 'le_lease'::regclass;
SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 'le_lease'::regclass;

-- every object is commented, every function says what it is
SELECT count(*) AS without_comment
FROM pg_depend d
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'leader_election')
  AND classid IN ('pg_proc'::regclass, 'pg_class'::regclass)
  AND obj_description(objid, classid::regclass::text::name) IS NULL;
SELECT proname, provolatile, proparallel, proisstrict, prosecdef,
	   has_function_privilege('public', oid, 'EXECUTE') AS public_execute
FROM pg_proc WHERE proname LIKE 'le\_%' ORDER BY proname;
SELECT relname, has_table_privilege('public', oid, 'SELECT') AS public_select
FROM pg_class WHERE relname IN ('le_lease', 'leader_lease', 'leader_protected', 'leader_waiting', 'leader_history', 'leader_stat', 'le_term', 'le_token_seq', 'le_lineage_seq')
ORDER BY relname;

-- only the token sequence is dumped
SELECT extconfig::regclass[] FROM pg_extension WHERE extname = 'leader_election';

-- the issue's first words, on a server nobody has touched
SELECT le_try_acquire(1, 'node-a', 10000);

-- settings, as documented
SELECT name, setting, unit, context, min_val, max_val
FROM pg_settings WHERE name LIKE 'leader_election.%' ORDER BY name;
-- a mistyped one is noticed
SET leader_election.no_such_setting = 1;

SELECT version, epoch IS NOT NULL AS epoch, epoch_start <= clock_timestamp() AS started,
	   timeline, entries >= 0 AS entries
FROM le_info();

-- names and ids
SELECT le_instance('node-a') ~ '^node-a:[0-9a-f-]{36}$' AS prefixed,
	   le_instance() ~ '^[0-9a-f-]{36}$' AS bare,
	   le_instance('x') <> le_instance('x') AS fresh;
SELECT le_try_acquire(2, le_instance(repeat('x', 90))) AS longest_prefix;
SELECT le_lock_id('nightly-report'), le_lock_id('') , le_lock_id(NULL);
-- the same number by another way: the first 53 bits of the digest
SELECT le_lock_id('größe') =
	   ('x' || left(encode(sha256('größe'::bytea), 'hex'), 14))::bit(56)::bigint / 8 AS first_53_bits;

DROP EXTENSION leader_election;
