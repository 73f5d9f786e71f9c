-- A sweep deletes what is over and touches nothing that is not.
CREATE EXTENSION leader_election;
CREATE FUNCTION wait_until_vacant(lock_id bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	WHILE le_leader(lock_id) IS NOT NULL LOOP PERFORM pg_sleep(0.001); END LOOP;
END $$;

SELECT le_sweep(0);
SELECT le_try_acquire(1, 'a', 10), le_try_acquire(2, 'a', 10), le_try_acquire(3, 'a', 600000);
SELECT wait_until_vacant(1), wait_until_vacant(2);

-- not yet over for long enough
SELECT le_sweep(86400000), le_sweep();
SELECT count(*) FROM leader_lease;
SELECT le_sweep(0);
SELECT id, state FROM leader_lease;
SELECT le_sweep(0);

-- one that was renewed lives, though its row looks old
SELECT le_try_acquire(4, 'a', 2000);
SELECT expires_at AS first_end FROM leader_lease WHERE id = 4 \gset
DO $$
BEGIN
	WHILE (SELECT renewed_at IS NULL OR renewed_at < created_at + interval '2.2 s'
		   FROM leader_lease WHERE id = 4) LOOP
		IF NOT le_renew(4, 'a') THEN RAISE 'lost'; END IF;
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;
SELECT le_renew(4, 'a'), clock_timestamp() > :'first_end' AS row_is_past, le_sweep(0), le_leader(4);

-- at most 1,000 in one call
SELECT count(*) FILTER (WHERE le_try_acquire(id, 'a', 1)) FROM generate_series(1001, 2100) id;
SELECT wait_until_vacant(max(id)) FROM leader_lease;
SELECT wait_until_vacant(4);
SELECT le_sweep(0);
SELECT le_sweep(0);
SELECT id FROM leader_lease;

-- transactional
SELECT le_try_acquire(5, 'a', 1);
SELECT wait_until_vacant(5);
BEGIN;
SELECT le_sweep(0);
SELECT count(*) FROM leader_lease WHERE id = 5;
ROLLBACK;
SELECT count(*) FROM leader_lease WHERE id = 5;
SELECT le_sweep(0);

-- what is over goes from memory too
SELECT le_try_acquire(6, 'a', 1000), le_renew(6, 'a');
SELECT wait_until_vacant(6);
SELECT entries AS before FROM le_info() \gset
SELECT le_sweep(0);
SELECT entries < :before AS dropped FROM le_info();

DROP FUNCTION wait_until_vacant;
DROP EXTENSION leader_election;
