-- A heartbeat prolongs the holder's live lease and does nothing else.
CREATE EXTENSION leader_election;

-- never begins a term
SELECT le_renew(1, 'node-a');
SELECT le_leader(1) IS NULL AS vacant;

SELECT le_try_acquire(1, 'node-a', 600000);
SELECT le_token(1, 'node-a') AS token \gset
SELECT expires_at AS granted FROM leader_lease WHERE id = 1 \gset
SELECT xmin AS version, ctid AS place FROM le_lease WHERE lock_id = 1 \gset

SELECT le_renew(1, 'node-a'), le_renew(1, 'node-b') AS other;
SELECT le_renew(1, 'node-a', :token) AS with_token,
	   le_renew(1, 'node-a', :token - 1) AS older_token,
	   le_renew(1, 'node-a', :token + 1) AS newer_token,
	   le_renew(1, 'node-b', :token) AS other_name;

-- the lease got longer, the row did not change
SELECT expires_at > :'granted' AS prolonged, renewals, token = :token AS same_token, state
FROM leader_lease WHERE id = 1;
SELECT xmin = :'version' AND xmax = '0' AND ctid = :'place' AS row_untouched
FROM le_lease WHERE lock_id = 1;

-- bulk renewal needs no function of its own
SELECT le_try_acquire(2, 'node-a', 600000), le_try_acquire(3, 'node-b', 600000);
SELECT id, le_renew(id, 'node-a') FROM unnest(ARRAY[1, 2, 3, 4]) AS id;

-- a short lease lives on as long as it is renewed
SELECT le_try_acquire(5, 'node-a', 2000);
DO $$
BEGIN
	WHILE clock_timestamp() < now() + interval '2.2 s' LOOP
		IF NOT le_renew(5, 'node-a') OR le_try_acquire(5, 'node-b', 1000) THEN
			RAISE 'lost';
		END IF;
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;
SELECT renewals > 2 AS renewed, clock_timestamp() > created_at + interval '2.1 s' AS outlived_its_first_lease
FROM leader_lease WHERE id = 5;

-- over is over: a heartbeat that comes too late is refused
SELECT le_try_acquire(6, 'node-a', 1);
DO $$ BEGIN WHILE le_is_leader(6, 'node-a') LOOP PERFORM pg_sleep(0.001); END LOOP; END $$;
SELECT le_renew(6, 'node-a'), le_leader(6) IS NULL AS vacant;
-- also if there has been a heartbeat before
SELECT le_try_acquire(7, 'node-a', 1000), le_renew(7, 'node-a');
DO $$ BEGIN WHILE le_is_leader(7, 'node-a') LOOP PERFORM pg_sleep(0.001); END LOOP; END $$;
SELECT le_renew(7, 'node-a'), le_leader(7) IS NULL AS vacant;

DROP EXTENSION leader_election;
