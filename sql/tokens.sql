-- A lock's token grows from term to term, whatever ends the term.
CREATE EXTENSION leader_election;
CREATE TABLE seen (n int GENERATED ALWAYS AS IDENTITY, token bigint);
CREATE FUNCTION wait_until_vacant(lock_id bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	WHILE le_leader(lock_id) IS NOT NULL LOOP PERFORM pg_sleep(0.001); END LOOP;
END $$;

-- released, run out, swept
SELECT le_try_acquire(1, 'a', 600000);
INSERT INTO seen (token) SELECT le_token(1, 'a');
SELECT le_release(1, 'a'), le_try_acquire(1, 'a', 20);
INSERT INTO seen (token) SELECT token FROM leader_lease WHERE id = 1;
SELECT wait_until_vacant(1);
SELECT le_try_acquire(1, 'b', 20);
INSERT INTO seen (token) SELECT token FROM leader_lease WHERE id = 1;
SELECT wait_until_vacant(1);
SELECT le_sweep(0);
SELECT le_try_acquire(1, 'a', 600000);
INSERT INTO seen (token) SELECT le_token(1, 'a');

-- also if the sequence is ahead of the clock
SELECT setval('le_token_seq', 8000000000000000);
SELECT le_release(1, 'a'), le_try_acquire(1, 'a', 600000);
INSERT INTO seen (token) SELECT le_token(1, 'a');
SELECT max(token) FROM seen;
SELECT le_release(1, 'a'), le_try_acquire(1, 'a', 600000);
INSERT INTO seen (token) SELECT le_token(1, 'a');
SELECT max(token) FROM seen;

SELECT count(*), bool_and(token > before) AS growing, bool_and(token < 9007199254740992) AS exact_in_json
FROM (SELECT token, lag(token, 1, 0::bigint) OVER (ORDER BY n) AS before FROM seen) AS s;

-- a rolled back draw is lost, not used twice
SET leader_election.allow_in_transaction = on;
BEGIN;
SELECT le_try_acquire(2, 'a', 600000);
SELECT le_token(2, 'a') AS undone \gset
ROLLBACK;
RESET leader_election.allow_in_transaction;
SELECT le_try_acquire(2, 'a', 600000);
SELECT le_token(2, 'a') > :undone AS grown;

-- a new installation goes on where the clock is
SELECT le_try_acquire(3, 'a', 600000);
SELECT setval('le_token_seq', 1);
SELECT le_release(3, 'a'), le_try_acquire(3, 'a', 600000);
SELECT le_token(3, 'a') > 848000000000000 AS by_the_clock FROM seen LIMIT 1;
DROP EXTENSION leader_election;
CREATE EXTENSION leader_election;
SELECT le_try_acquire(3, 'a', 600000);
SELECT le_token(3, 'a') > 848000000000000 AS by_the_clock FROM seen LIMIT 1;

-- the user's own lastval() is not ours to change
CREATE SEQUENCE mine;
SELECT nextval('mine');
SELECT le_try_acquire(4, 'a', 600000);
SELECT lastval();

-- without a sequence value there is no token, and nothing changes; the hint
-- has what mends it
ALTER SEQUENCE le_token_seq RESTART;
SELECT le_try_acquire(5, 'a', 600000);
\echo :SQLSTATE
SELECT le_leader(5) IS NULL AS vacant;
SELECT pg_catalog.setval('public.le_token_seq', greatest((SELECT last_value FROM public.le_token_seq), (SELECT max(token) FROM public.leader_lease)))
	   = max(token) AS largest FROM leader_lease;
SELECT le_try_acquire(5, 'a', 600000);
-- a release looks at it only as long after a start as a promotion's grace lasts
SELECT FROM le_info(), pg_sleep(greatest(0, extract(epoch FROM epoch_start + interval '11.1 s' - clock_timestamp())));
ALTER SEQUENCE le_lineage_seq RESTART;
SELECT le_try_acquire(6, 'a', 600000);
\echo :SQLSTATE
SELECT le_renew(5, 'a'), le_release(5, 'a');
SELECT setval('le_lineage_seq', lineage) = lineage AS mended FROM le_lease LIMIT 1;
SELECT le_try_acquire(6, 'a', 600000);

-- one that would forget its value in a crash is found as well
ALTER SEQUENCE le_token_seq SET UNLOGGED;
SELECT last_value AS before FROM le_token_seq \gset
SELECT le_try_acquire(7, 'a', 600000);
\echo :SQLSTATE
ALTER SEQUENCE public.le_token_seq SET LOGGED;
SELECT le_try_acquire(7, 'a', 600000);
SELECT le_token(7, 'a') > :before AS grown;
-- also ahead of the clock, and with no term left that has the last one
SELECT setval('le_token_seq', 9000000000000000);
SELECT le_try_acquire(11, 'a', 600000), le_release(11, 'a');
ALTER SEQUENCE le_token_seq SET UNLOGGED;
ALTER SEQUENCE public.le_token_seq SET LOGGED;
SELECT pg_catalog.setval('public.le_token_seq', greatest((SELECT last_value FROM public.le_token_seq), (SELECT max(token) FROM public.leader_lease)));
SELECT le_try_acquire(11, 'a', 600000);
SELECT le_token(11, 'a');

-- the last token there is: no other one, and surely not a smaller one
SELECT setval('le_token_seq', 9223372036854775806);
SELECT le_try_acquire(8, 'a', 600000);
SELECT le_token(8, 'a');
SELECT le_try_acquire(9, 'a', 600000);
\echo :SQLSTATE
SELECT le_leader(9) IS NULL AS vacant, le_renew(8, 'a');
-- greater than the row's, whatever the sequence says
SELECT setval('le_token_seq', 9223372036854775800);
SELECT le_try_acquire(10, 'a', 1);
SELECT setval('le_token_seq', 1);
SELECT wait_until_vacant(10);
SELECT le_try_acquire(10, 'b', 600000);
SELECT le_token(10, 'b');

DROP SEQUENCE mine;
DROP TABLE seen;
DROP FUNCTION wait_until_vacant;
DROP EXTENSION leader_election;
