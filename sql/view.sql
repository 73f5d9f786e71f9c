-- leader_lease shows all leases as they are now, whatever the snapshot.
CREATE EXTENSION leader_election;
\d leader_lease
SELECT * FROM leader_lease;

SELECT le_try_acquire(1, 'node-a', 600000);
SELECT le_try_acquire(2, 'node-b', 10);
DO $$ BEGIN WHILE le_leader(2) IS NOT NULL LOOP PERFORM pg_sleep(0.001); END LOOP; END $$;

SELECT id, leader_id, lease_ms, renewals, renewed_at, state,
	   remaining_ms BETWEEN 1 AND 660000 AS remaining,
	   expires_at - created_at BETWEEN interval '659.9 s' AND interval '660.1 s' AS length,
	   created_at BETWEEN clock_timestamp() - interval '1 min' AND clock_timestamp() AS created,
	   leader_role = current_user AS mine, token = le_token(1, 'node-a') AS token
FROM leader_lease WHERE id = 1;
SELECT id, leader_id, remaining_ms, state, expires_at < clock_timestamp() AS over FROM leader_lease WHERE id = 2;

-- a heartbeat shows at once
SELECT le_renew(1, 'node-a'), le_renew(1, 'node-a');
SELECT renewals, renewed_at BETWEEN created_at AND clock_timestamp() AS renewed, state,
	   expires_at - renewed_at BETWEEN interval '659.99 s' AND interval '660.01 s' AS counted_from_it
FROM leader_lease WHERE id = 1;

-- sorted by nothing in particular, but each lock once, after many terms
SELECT count(*) FROM generate_series(1, 20) WHERE le_release(3, 'x') IS NOT NULL AND le_try_acquire(3, 'x', 600000);
SELECT count(*), count(DISTINCT id) FROM leader_lease;

-- its own uncommitted changes are there, as in any table
BEGIN;
SELECT le_release(1, 'node-a');
SELECT id FROM leader_lease ORDER BY id;
ROLLBACK;
SELECT id FROM leader_lease ORDER BY id;

-- usable in joins, and in a read-only transaction
BEGIN READ ONLY;
SELECT l.id, x FROM leader_lease l JOIN (VALUES (1, 'one')) AS v(id, x) USING (id);
COMMIT;

DROP EXTENSION leader_election;
