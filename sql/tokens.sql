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

-- without a sequence value there is no token, and nothing changes
ALTER SEQUENCE le_token_seq RESTART;
SELECT le_try_acquire(5, 'a', 600000);
SELECT le_leader(5) IS NULL AS vacant;
SELECT setval('le_token_seq', 1);
SELECT le_try_acquire(5, 'a', 600000);

DROP SEQUENCE mine;
DROP TABLE seen;
DROP FUNCTION wait_until_vacant;
DROP EXTENSION leader_election;
