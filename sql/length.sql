-- A term keeps the length it began with.
CREATE EXTENSION leader_election;

SELECT le_try_acquire(1, 'node-a', 600000);

-- asked for a shorter one by its leader: a heartbeat of the full length
SELECT le_try_acquire(1, 'node-a', 1000);
SELECT lease_ms, remaining_ms > 599000 AS full_length, renewals FROM leader_lease;
SELECT le_try_acquire(1, 'node-a', 600000);

-- asked for a longer one: true would be a lie, and false would depose it
SELECT le_try_acquire(1, 'node-a', 600001);
\echo :SQLSTATE
SELECT lease_ms, renewals FROM leader_lease;
-- also where the term has no heartbeat in memory yet
SELECT le_try_acquire(2, 'node-a', 600000);
SELECT le_try_acquire(2, 'node-a', 86400000);
\echo :SQLSTATE
SELECT le_leader(2), le_leader(1);

-- released first it is a new term
SELECT le_release(1, 'node-a');
SELECT le_try_acquire(1, 'node-a', 86400000);
SELECT lease_ms, remaining_ms > 86400000 AS and_a_bit FROM leader_lease WHERE id = 1;

-- somebody else's wish does not matter
SELECT le_try_acquire(1, 'node-b', 1), le_try_acquire(1, 'node-b', 86400000);

DROP EXTENSION leader_election;
