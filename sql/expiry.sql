-- When a leader falls silent its lease ends by itself, and one other takes over.
CREATE EXTENSION leader_election;
CREATE FUNCTION wait_until_vacant(lock_id bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	WHILE le_leader(lock_id) IS NOT NULL LOOP PERFORM pg_sleep(0.001); END LOOP;
END $$;

SELECT le_try_acquire(1, 'node-a', 50);
SELECT le_token(1, 'node-a') AS token \gset
SELECT wait_until_vacant(1);
SELECT state, remaining_ms, leader_id, expires_at <= clock_timestamp() AS passed FROM leader_lease WHERE id = 1;

-- the next one takes over the row
SELECT le_try_acquire(1, 'node-b', 600000);
SELECT leader_id, token > :token AS grown, lease_ms, state FROM leader_lease;
-- and the old one is nobody now, with and without its token
SELECT le_try_acquire(1, 'node-a', 50), le_renew(1, 'node-a'), le_renew(1, 'node-a', :token), le_release(1, 'node-a', :token);

-- the same if the old leader had renewed before it fell silent
SELECT le_try_acquire(2, 'node-a', 1000), le_renew(2, 'node-a');
SELECT wait_until_vacant(2);
SELECT le_try_acquire(2, 'node-b', 600000), le_leader(2), le_renew(2, 'node-a'), le_renew(2, 'node-b');
SELECT renewals FROM leader_lease WHERE id = 2;

-- the old leader itself may come back, as a new term
SELECT le_try_acquire(3, 'node-a', 50);
SELECT le_token(3, 'node-a') AS token \gset
SELECT wait_until_vacant(3);
SELECT le_try_acquire(3, 'node-a', 600000);
SELECT le_token(3, 'node-a') > :token AS new_term, le_renew(3, 'node-a', :token) AS by_old_token;

-- the server keeps a lease 1/10 longer than its holder counts, and no shorter
SELECT le_try_acquire(4, 'node-a', 320);
SELECT expires_at - created_at BETWEEN interval '351 ms' AND interval '353 ms' AS one_part_in_10
FROM leader_lease WHERE id = 4;
SELECT wait_until_vacant(4);
SELECT clock_timestamp() >= created_at + interval '351 ms' AS not_before FROM leader_lease WHERE id = 4;

DROP FUNCTION wait_until_vacant;
DROP EXTENSION leader_election;
