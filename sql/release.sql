-- A release ends the holder's term at once, for good, and nobody else's.
CREATE EXTENSION leader_election;

SELECT le_release(1, 'node-a') AS nothing_to_release;
SELECT le_try_acquire(1, 'node-a', 600000);
SELECT le_token(1, 'node-a') AS token \gset
SELECT le_release(1, 'node-b') AS other,
	   le_release(1, 'node-a', :token - 1) AS older_token;
SELECT le_leader(1);

SELECT le_release(1, 'node-a', :token);
SELECT le_leader(1) IS NULL AS vacant, le_is_leader(1, 'node-a'), le_token(1, 'node-a') IS NULL AS no_token;
-- the client may repeat it
SELECT le_release(1, 'node-a', :token) AS again, le_renew(1, 'node-a', :token);

-- the next leader does not wait for the end of the lease
SELECT le_try_acquire(1, 'node-b', 600000);
SELECT le_release(1, 'node-a', :token) AS late_release_of_the_old_one;
SELECT le_leader(1), le_token(1, 'node-b') > :token AS grown;

-- a lease that has been renewed, and so is in memory
SELECT le_renew(1, 'node-b');
SELECT le_release(1, 'node-b'), le_renew(1, 'node-b'), le_leader(1) IS NULL AS vacant;
SELECT le_try_acquire(1, 'node-b', 600000), le_renew(1, 'node-b'), le_release(1, 'node-b'),
	   le_try_acquire(1, 'node-a', 600000), le_renew(1, 'node-b'), le_leader(1);

-- one that is over is no term to end
SELECT le_try_acquire(2, 'node-a', 1);
DO $$ BEGIN WHILE le_is_leader(2, 'node-a') LOOP PERFORM pg_sleep(0.001); END LOOP; END $$;
SELECT le_release(2, 'node-a');

DROP EXTENSION leader_election;
