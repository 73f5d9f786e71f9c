-- A vacant lock is taken, a held one refused, and locks do not meddle.
CREATE EXTENSION leader_election;

SELECT le_leader(1) IS NULL AS vacant;
SELECT le_try_acquire(1, 'node-a', 600000);
SELECT le_leader(1);

-- somebody else is refused, and nothing changes
SELECT le_try_acquire(1, 'node-b', 600000);
SELECT le_leader(1), le_is_leader(1, 'node-a') AS a, le_is_leader(1, 'node-b') AS b;

-- again by its leader: a heartbeat, the term stays
SELECT le_token(1, 'node-a') AS token \gset
SELECT le_try_acquire(1, 'node-a', 600000);
SELECT le_token(1, 'node-a') = :token AS same_term;

-- again refused, now that the heartbeat is in memory
SELECT le_try_acquire(1, 'node-b', 600000);

-- other locks, any bigint
SELECT id, le_try_acquire(id, 'node-b', 600000)
FROM unnest(ARRAY[2, 0, -1, 9223372036854775807, -9223372036854775808]) AS id;
SELECT id, le_leader(id)
FROM unnest(ARRAY[2, 0, -1, 9223372036854775807, -9223372036854775808]) AS id;

-- the defaults: lock 1 is anybody's first choice, the lease is 10 s
SELECT le_try_acquire(3, 'node-a');
SELECT lease_ms FROM leader_lease WHERE id = 3;

-- names are compared byte by byte, and 127 bytes are a name
SELECT le_try_acquire(4, 'Ünïcode ''"\', 600000);
SELECT le_leader(4), le_try_acquire(4, 'ünïcode ''"\', 600000) AS other_case;
SELECT le_try_acquire(5, repeat('ö', 63) || 'x', 600000);
SELECT octet_length(le_leader(5));

-- many at once, in one statement
SELECT count(*) FILTER (WHERE le_try_acquire(id, 'node-a', 600000)) FROM generate_series(1001, 3000) id;
SELECT count(*) FILTER (WHERE le_try_acquire(id, 'node-b', 600000)) FROM generate_series(1001, 3000) id;
SELECT count(*) FILTER (WHERE le_renew(id, 'node-a')) FROM generate_series(1001, 3000) id;
SELECT count(*), count(DISTINCT token) FROM leader_lease WHERE id BETWEEN 1001 AND 3000;

DROP EXTENSION leader_election;
