-- Each database has its own locks.
CREATE DATABASE regress_le_one;
CREATE DATABASE regress_le_two;
SELECT current_database() AS here \gset
\c regress_le_one
CREATE EXTENSION leader_election;
SELECT le_try_acquire(1, 'node-a', 600000), le_renew(1, 'node-a');
\c regress_le_two
CREATE EXTENSION leader_election;
SELECT le_leader(1) IS NULL AS vacant;
SELECT le_try_acquire(1, 'node-b', 600000), le_renew(1, 'node-b');
SELECT id, leader_id FROM leader_lease;
\c regress_le_one
SELECT le_leader(1), le_renew(1, 'node-a'), le_renew(1, 'node-b');
SELECT id, leader_id FROM leader_lease;

-- a copy of a database has its rows, and no heartbeats of the original
\c :here
CREATE DATABASE regress_le_copy TEMPLATE regress_le_one;
\c regress_le_copy
SELECT leader_id, renewals, state FROM leader_lease;
SELECT le_release(1, 'node-a'), le_try_acquire(1, 'node-c', 600000);
\c regress_le_one
SELECT le_leader(1);

-- dropped with live leases, and no sweeper is in the way
\c :here
DROP DATABASE regress_le_one;
DROP DATABASE regress_le_two;
DROP DATABASE regress_le_copy;
