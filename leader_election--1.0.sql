/* leader_election--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION leader_election" to load this file. \quit

-- ---------------------------------------------------------------------
-- Where a term lives.  The functions find these three relations through
-- their own schema, so that the extension can be moved with SET SCHEMA.
-- ---------------------------------------------------------------------

CREATE TABLE le_lease (
	lock_id		bigint		PRIMARY KEY,
	token		bigint		NOT NULL,
	lease_ms	bigint		NOT NULL CHECK (lease_ms OPERATOR(pg_catalog.>) 0),
	leader_role	oid			NOT NULL,
	database	oid			NOT NULL,
	lineage		bigint		NOT NULL,
	epoch		bigint		NOT NULL,
	expires_at	timestamptz	NOT NULL,
	created_at	timestamptz	NOT NULL
) USING heap WITH (fillfactor = 50);

-- Added here and not above, because only then the table gets no TOAST table.
ALTER TABLE le_lease
	ADD COLUMN leader_id text NOT NULL,
	ADD COLUMN state "char" NOT NULL,
	ADD COLUMN info text,
	ALTER COLUMN leader_id SET STORAGE PLAIN,
	ALTER COLUMN info SET STORAGE PLAIN;

-- The terms that have ended.  No key: history must not stop an election.  Nor
-- must an autovacuum that truncates the table lock it against new rows.
CREATE TABLE le_term (
	lock_id		bigint		NOT NULL
) USING heap WITH (vacuum_truncate = off);
ALTER TABLE le_term
	ADD COLUMN instance text NOT NULL,
	ALTER COLUMN instance SET STORAGE PLAIN,
	ADD COLUMN token bigint NOT NULL,
	ADD COLUMN leader_role oid NOT NULL,
	ADD COLUMN lease_ms bigint NOT NULL,
	ADD COLUMN began timestamptz NOT NULL,
	ADD COLUMN ended timestamptz NOT NULL,
	ADD COLUMN ended_how "char" NOT NULL,
	ADD COLUMN ended_by oid,
	ADD COLUMN renewals bigint,
	ADD COLUMN least_left_ms bigint;
CREATE INDEX le_term_lock_id_ended_idx ON le_term (lock_id, ended);

CREATE SEQUENCE le_token_seq;
CREATE SEQUENCE le_lineage_seq;

SELECT pg_catalog.setval('le_token_seq', 1);

CREATE FUNCTION le_first_lineage()
RETURNS bigint
AS 'MODULE_PATHNAME', 'le_first_lineage'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
SELECT pg_catalog.setval('le_lineage_seq', le_first_lineage());
DROP FUNCTION le_first_lineage();

-- Tokens keep growing through dump and restore.  The lineage belongs to one
-- cluster and is not dumped, and neither are leases.
SELECT pg_catalog.pg_extension_config_dump('le_token_seq', '');

COMMENT ON TABLE le_lease IS
	'one row per term of leadership; internal, read the view leader_lease instead';
COMMENT ON TABLE le_term IS
	'one row per term of leadership that has ended; internal, read the view leader_history instead';
COMMENT ON SEQUENCE le_token_seq IS
	'the last fencing token drawn in this database; internal';
COMMENT ON SEQUENCE le_lineage_seq IS
	'the cluster and WAL timeline, as a hash, of the last term begun in this database; internal';

-- Only the functions change the table, and without firing triggers.  Whoever
-- else tries gets an error, and what logical replication brings is passed over.
CREATE FUNCTION le_shield()
RETURNS trigger
AS 'MODULE_PATHNAME', 'le_shield'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION le_shield() IS
	'the trigger of le_lease and le_term: raises 42809 when the table is changed by hand; skips rows that logical replication brings; internal';

CREATE TRIGGER le_shield BEFORE INSERT OR UPDATE OR DELETE ON le_lease
	FOR EACH ROW EXECUTE FUNCTION le_shield();
CREATE TRIGGER le_shield_truncate BEFORE TRUNCATE ON le_lease
	FOR EACH STATEMENT EXECUTE FUNCTION le_shield();
ALTER TABLE le_lease
	ENABLE ALWAYS TRIGGER le_shield,
	ENABLE ALWAYS TRIGGER le_shield_truncate;

-- (What has ended may be deleted by its owner.)
CREATE TRIGGER le_shield BEFORE INSERT OR UPDATE ON le_term
	FOR EACH ROW EXECUTE FUNCTION le_shield();
ALTER TABLE le_term ENABLE ALWAYS TRIGGER le_shield;

-- ---------------------------------------------------------------------
-- Becoming, staying and ceasing to be the leader
-- ---------------------------------------------------------------------

CREATE FUNCTION le_try_acquire(lock_id bigint, instance text, lease_ms bigint DEFAULT 10000)
RETURNS boolean
AS 'MODULE_PATHNAME', 'le_try_acquire'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION le_try_acquire(bigint, text, bigint) IS
	'become the leader of lock_id for lease_ms milliseconds (1..86400000, default 10000) under the name instance (1..127 bytes). true: leads now (a new term, or its own live lease renewed); inside a transaction block a new term counts from COMMIT. false: somebody else leads or is just becoming leader, a grace period runs, or a guarded transaction of the last leader is just being committed. Waits for no other contender. Errors, nothing changed: 22004 NULL argument; 22023 lease_ms or instance out of range, or lease_ms longer than the live term; 42501 the name''s live lease belongs to another role; 25001 inside a transaction block, whoever leads, unless it is the live holder; 55P03 lock_timeout passed while a release of its own live lease was open elsewhere; 25006 read-only transaction or standby; 53200 leader_election.memory_limit is reached or the lock table is full; 57014 cancelled before a synchronous standby had the term; 22003 no token is left; 55000 le_lease or a sequence has been changed by hand';

CREATE FUNCTION le_renew(lock_id bigint, instance text, token bigint DEFAULT '-9223372036854775808'::pg_catalog.int8)
RETURNS boolean
AS 'MODULE_PATHNAME', 'le_renew'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION le_renew(bigint, text, bigint) IS
	'heartbeat: prolong the live lease of instance (1..127 bytes) on lock_id by the length its term began with; with a token, only that term. No WAL, no transaction id, not undone by a rollback. true: renewed. false: not the live holder, stop leading. Never begins a term. Errors, nothing changed: 22004 NULL argument; 22023 instance or token out of range; 42501 the lease belongs to another role; 25006 read-only transaction or standby; 55P03 lock_timeout passed while a release of this lease was open elsewhere; 53200 leader_election.memory_limit is reached (not for a term that has its place); 57014 cancelled before a synchronous standby had the term; 55000 le_lease has been changed by hand';

CREATE FUNCTION le_release(lock_id bigint, instance text, token bigint DEFAULT '-9223372036854775808'::pg_catalog.int8, hold_ms bigint DEFAULT 0)
RETURNS boolean
AS 'MODULE_PATHNAME', 'le_release'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION le_release(bigint, text, bigint, bigint) IS
	'end the term of instance (1..127 bytes) on lock_id; with a token, only that term. Transactional: takes effect at COMMIT and keeps the lock from everybody until then. With hold_ms (0..86400000, default 0) nobody begins a term before the ended one is that many milliseconds old: a job that is done for today. true: ended. false: it was not the live holder. Errors, nothing changed: 22004 NULL argument; 22023 instance, token or hold_ms out of range; 42501 the lease belongs to another role; 25006 read-only transaction or standby; 0A000 at PREPARE TRANSACTION; 55P03 lock_timeout passed while another release or a guarded transaction of this term was being committed; 53200 the lock table is full; 22003 with hold_ms, or within a grace of a promotion: no token is left; 55000 le_lease or a sequence has been changed by hand';

CREATE FUNCTION le_transfer(lock_id bigint, instance text, token bigint, successor text DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'le_transfer'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION le_transfer(bigint, text, bigint, text) IS
	'hand the lock over: end this term of instance (1..127 bytes) on lock_id and begin one of successor (1..127 bytes; NULL: of the first that waits in le_campaign()), of the same length, with a token of its own, and of the same role (NULL: of the one that waits). Takes effect at COMMIT; the successor is told by its le_campaign(), and if it never asks the lease runs out. true: handed over. false, and nothing has changed: instance does not lead in this term, or nobody waits. Errors, nothing changed: 22004 NULL argument but for successor; 22023 instance, token or successor out of range, or the same name twice; 42501 the lease belongs to another role; 25006 read-only transaction or standby; 0A000 at PREPARE TRANSACTION; LE001 at COMMIT if the lease of the successor has run out by then; 55P03 lock_timeout passed while another release or a guarded transaction of this term was being committed; 53200 leader_election.memory_limit is reached or the lock table is full; 22003 no token is left; 55000 le_lease or a sequence has been changed by hand';

-- ---------------------------------------------------------------------
-- For operators
-- ---------------------------------------------------------------------

CREATE FUNCTION le_request_resign(lock_id bigint)
RETURNS boolean
AS 'MODULE_PATHNAME', 'le_request_resign'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION le_request_resign(bigint) IS
	'ask whoever leads lock_id to hand over or release: its le_keep_alive() and le_campaign() say resign_requested from now on, to the end of its term. Whether it does is its own affair. Not transactional; forgotten when the server is restarted. true: asked. false: nobody leads. Who may execute this may ask any leader. Errors, nothing changed: 22004 NULL lock_id; 25006 read-only transaction or standby; 53200 leader_election.memory_limit is reached; 55000 le_lease has been changed by hand';

CREATE FUNCTION le_revoke(lock_id bigint, immediately boolean DEFAULT false)
RETURNS boolean
AS 'MODULE_PATHNAME', 'le_revoke'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION le_revoke(bigint, boolean) IS
	'end the term on lock_id, whoever leads: from now on none of its heartbeats and none of its guarded transactions succeeds. It may believe that it leads to the end of its lease, so others begin a term only then, and it itself one lease later, a minute at most. immediately: others may at once (a WARNING tells how long the old leader may believe still: make sure that it has stopped); this also lifts what keeps others from the lock otherwise, a hold, an earlier revocation, or the grace of a promotion where a row has come through it. true: something has changed. false: there was nothing to end. Who may execute this may end any term. Errors, nothing changed: 22004 NULL argument; 25001 in a transaction block or subtransaction; 25006 read-only transaction or standby; 55P03 lock_timeout passed while a guarded transaction or a release of the term was being committed; 53200 the lock table is full; 22003 no token is left; 55000 le_lease or a sequence has been changed by hand';

-- ---------------------------------------------------------------------
-- The same, with waiting, and with all that a leader wants to know
-- ---------------------------------------------------------------------

CREATE FUNCTION le_campaign(
	lock_id bigint,
	instance text,
	lease_ms bigint DEFAULT 10000,
	wait_ms bigint DEFAULT 0,
	info text DEFAULT NULL,
	priority integer DEFAULT 0,
	OUT elected boolean,
	OUT token bigint,
	OUT valid_for_ms bigint,
	OUT leader_id text,
	OUT remaining_ms bigint,
	OUT resign_requested boolean)
RETURNS record
AS 'MODULE_PATHNAME', 'le_campaign'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION le_campaign(bigint, text, bigint, bigint, text, integer) IS
	'become the leader of lock_id under the name instance (1..127 bytes), and wait up to wait_ms milliseconds (0..60000, default 0) until that is possible. elected: leads now; then token is that of the term, and the leader may act until the moment before it sent the call plus valid_for_ms. A live term of its own is renewed as it is; lease_ms (1..86400000, default 10000) and info (up to 512 bytes, for followers, for example an address) are those of a term that begins. Not elected: token and valid_for_ms are NULL, leader_id is who leads (NULL: nobody), remaining_ms how long that, a grace, a hold or a ban of its own lasts if nobody renews (at least 100 while somebody is just changing it; NULL if elected). Of several that wait the one with the largest priority (0..9, default 0) goes first, then the one that has waited the longest. Write SELECT * FROM le_campaign(...): (le_campaign(...)).* calls it once for each column. A wait holds back VACUUM, and needs a connection that no heartbeat uses. Errors, nothing changed: those of le_try_acquire() but for the one about a lease_ms longer than the live term; 22023 wait_ms, priority or info out of range; 25001 with a wait_ms in a transaction block, a subtransaction, or a transaction that has begun or ended a term; 53200 leader_election.memory_limit leaves no room for the list of waiting sessions';

CREATE FUNCTION le_keep_alive(
	lock_id bigint,
	instance text,
	token bigint,
	OUT leads boolean,
	OUT valid_for_ms bigint,
	OUT resign_requested boolean,
	OUT waiting boolean)
RETURNS record
AS 'MODULE_PATHNAME', 'le_keep_alive'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION le_keep_alive(bigint, text, bigint) IS
	'heartbeat: as le_renew() for this term, and more to know. leads: renewed, and the leader may act until the moment before it sent the call plus valid_for_ms. Not leads: stop leading, valid_for_ms is NULL. resign_requested: an operator has asked by le_request_resign() that it hand over or release. waiting: somebody waits in le_campaign() for the lock, or has done so within its wait_ms; a hint. Write SELECT * FROM le_keep_alive(...). Errors as of le_renew()';

CREATE FUNCTION le_observe(
	lock_id bigint,
	known_token bigint DEFAULT NULL,
	wait_ms bigint DEFAULT 0,
	OUT leader_id text,
	OUT token bigint,
	OUT remaining_ms bigint,
	OUT state text,
	OUT info text)
RETURNS record
AS 'MODULE_PATHNAME', 'le_observe'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION le_observe(bigint, bigint, bigint) IS
	'who leads lock_id: answers as soon as the token of the live term is another than known_token (NULL: as soon as somebody leads), and in any case after wait_ms milliseconds (0..60000, default 0). leader_id, token and info of the live term, NULL if nobody leads; remaining_ms until the lease, or the grace, is over if nobody renews it; state as in the view leader_lease, or vacant. Only looks, prolongs nothing. Write SELECT * FROM le_observe(...). Errors: 22004 NULL lock_id or wait_ms; 22023 wait_ms or known_token out of range; 25001 with a wait_ms in a transaction block, a subtransaction, or a transaction that has begun or ended a term; 25006 on a standby; 53200 leader_election.memory_limit leaves no room for the list of waiting sessions; 55000 le_lease has been changed by hand';

-- ---------------------------------------------------------------------
-- Asking
-- ---------------------------------------------------------------------

CREATE FUNCTION le_is_leader(lock_id bigint, instance text, token bigint DEFAULT '-9223372036854775808'::pg_catalog.int8)
RETURNS boolean
AS 'MODULE_PATHNAME', 'le_is_leader'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION le_is_leader(bigint, text, bigint) IS
	'does instance (1..127 bytes) lead lock_id at this moment; with a token, in that term? Only looks, prolongs nothing. Errors: 22004 NULL argument; 22023 instance or token out of range; 25006 on a standby';

CREATE FUNCTION le_leader(lock_id bigint)
RETURNS text
AS 'MODULE_PATHNAME', 'le_leader'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION le_leader(bigint) IS
	'the name of the live leader of lock_id, or NULL if nobody leads. Errors: 22004 NULL lock_id; 25006 on a standby';

CREATE FUNCTION le_token(lock_id bigint, instance text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'le_token'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION le_token(bigint, text) IS
	'the fencing token of the live term of instance (1..127 bytes) on lock_id, or NULL if it does not lead. Grows from term to term of a lock. Errors: 22004 NULL argument; 22023 instance out of range; 25006 on a standby';

-- ---------------------------------------------------------------------
-- Fencing: a deposed leader cannot commit
-- ---------------------------------------------------------------------

CREATE FUNCTION le_guard(lock_id bigint, instance text, token bigint DEFAULT '-9223372036854775808'::pg_catalog.int8)
RETURNS bigint
AS 'MODULE_PATHNAME', 'le_guard'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION le_guard(bigint, text, bigint) IS
	'let this transaction commit only if instance (1..127 bytes) leads lock_id still, in the term it leads now (with a token: only in that term); returns the token of the term. Holds nothing until COMMIT, which looks once more and keeps every successor out until it is done. Call it first in the transaction. Cannot be taken back: no savepoint undoes it, and once it has failed, with whatever error, a transaction that has written cannot commit (LE001). A WARNING if it was a SELECT outside of a transaction block that has written nothing. Errors: LE001 the instance does not lead, here or at COMMIT (then nothing of it is kept); 42501 the lease belongs to another role; 22004 NULL argument; 22023 instance or token out of range; 25006 on a standby; 0A000 at PREPARE TRANSACTION; 55P03 at COMMIT if lock_timeout passes while a release of the lease is open elsewhere';

CREATE FUNCTION le_fence()
RETURNS trigger
AS 'MODULE_PATHNAME', 'le_fence'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION le_fence() IS
	'the trigger that le_protect() creates: raises LE002 unless the transaction has called le_guard() for the lock. Its argument is the id of the lock';

CREATE FUNCTION le_protect(relation regclass, lock_id bigint)
RETURNS bigint
AS 'MODULE_PATHNAME', 'le_protect'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION le_protect(regclass, bigint) IS
	'let the table, with its partitions and children, be changed only in transactions that call le_guard() for lock_id; others get LE002. Returns how many tables got the trigger; call it again after attaching a partition. Errors, nothing changed: 22004 NULL argument; 42P01 it does not exist; 42501 the caller does not own all of these tables; 42809 not a table, or one of the extension''s own; 42710 one of them is protected by another lock, or has another trigger le_fence; 55000 the table has a parent that is not protected, or a trigger le_fence is disabled; 25006 read-only transaction or standby';

CREATE FUNCTION le_unprotect(relation regclass)
RETURNS bigint
AS 'MODULE_PATHNAME', 'le_unprotect'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION le_unprotect(regclass) IS
	'undo le_protect() for the table, with its partitions and children. Returns how many tables lost the trigger. Errors, nothing changed: 22004 NULL argument; 42P01, 42501, 42809 as for le_protect(); 25006 read-only transaction or standby';

-- A statement fires only the triggers of the table that it names, so a table
-- is as well protected as the tree that it belongs to: the view goes from each
-- protected table to its parents and to its children.
CREATE VIEW leader_protected AS
	WITH RECURSIVE argument AS (
		-- anybody can call le_fence() in a trigger of his own, with any argument
		SELECT tgrelid, tgenabled,
			   pg_catalog.regexp_match(pg_catalog.left(pg_catalog.encode(tgargs, 'escape'), -4),
									   '^(?:[+]|(-))?0*([0-9]{1,19})$') AS number
		FROM pg_catalog.pg_trigger
		WHERE tgfoid OPERATOR(pg_catalog.=) 'le_fence()'::regprocedure::oid
			  AND tgtype OPERATOR(pg_catalog.=) 60::smallint    -- AFTER, all events, FOR EACH STATEMENT
			  AND tgnargs OPERATOR(pg_catalog.=) 1::smallint AND tgqual IS NULL
			  AND tgattr::text OPERATOR(pg_catalog.=) ''
	), lock AS MATERIALIZED (
		SELECT tgrelid, tgenabled, pg_catalog.concat(number[1], number[2])::numeric AS lock_id
		FROM argument
		WHERE number IS NOT NULL
	), fence AS MATERIALIZED (
		SELECT tgrelid, tgenabled, lock_id::bigint AS lock_id
		FROM lock
		WHERE lock_id OPERATOR(pg_catalog.>=) '-9223372036854775808'::numeric
			  AND lock_id OPERATOR(pg_catalog.<=) '9223372036854775807'::numeric
	), tree AS (
		SELECT tgrelid AS relid, lock_id
		FROM fence
		UNION
		SELECT CASE WHEN inhparent OPERATOR(pg_catalog.=) relid THEN inhrelid ELSE inhparent END, lock_id
		FROM tree JOIN pg_catalog.pg_inherits
			 ON inhparent OPERATOR(pg_catalog.=) relid OR inhrelid OPERATOR(pg_catalog.=) relid
	)
	SELECT relid::regclass AS relation, tree.lock_id,
		   CASE WHEN tgrelid IS NULL THEN 'missing'
				WHEN tgenabled OPERATOR(pg_catalog.=) ANY ('{O,A}'::"char"[]) THEN 'protected'
				ELSE 'disabled' END AS state
	FROM tree LEFT JOIN fence ON tgrelid OPERATOR(pg_catalog.=) relid
		 AND fence.lock_id OPERATOR(pg_catalog.=) tree.lock_id;

COMMENT ON VIEW leader_protected IS
	'the tables that le_protect() protects, with their parents, partitions and children';
COMMENT ON COLUMN leader_protected.relation IS 'the table';
COMMENT ON COLUMN leader_protected.lock_id IS 'the lock whose leader may change it';
COMMENT ON COLUMN leader_protected.state IS 'protected; missing: it has no trigger, and belongs to the same tree as a protected table, which can be changed through it or holds its rows; disabled: its trigger does not fire';

-- ---------------------------------------------------------------------
-- Names
-- ---------------------------------------------------------------------

CREATE FUNCTION le_instance(prefix text DEFAULT NULL)
RETURNS text
LANGUAGE sql VOLATILE PARALLEL SAFE
RETURN pg_catalog.concat_ws(':', prefix, pg_catalog.gen_random_uuid());

COMMENT ON FUNCTION le_instance(text) IS
	'a fresh unique instance name, prefix:random (or only the random part); the prefix may have up to 90 bytes, so that the name keeps to the 127 bytes the other functions take. Raises no error';

CREATE FUNCTION le_lock_id(name text)
RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (('x' OPERATOR(pg_catalog.||) pg_catalog.encode(pg_catalog.substr(
			pg_catalog.sha256(pg_catalog.convert_to(name, 'UTF8')), 1, 7), 'hex'))
		::pg_catalog.bit(56)::pg_catalog.int8 OPERATOR(pg_catalog.>>) 3);

COMMENT ON FUNCTION le_lock_id(text) IS
	'a lock id for a name: the first 53 bits of the SHA-256 of its UTF-8 bytes, 0..9007199254740991, exact in JSON and JavaScript. NULL for NULL';

-- ---------------------------------------------------------------------
-- Administration and monitoring
-- ---------------------------------------------------------------------

CREATE FUNCTION le_sweep(expired_for_ms bigint DEFAULT 5000)
RETURNS bigint
AS 'MODULE_PATHNAME', 'le_sweep'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION le_sweep(bigint) IS
	'delete at most 1000 leases that have been over for expired_for_ms milliseconds (0..86400000, default 5000), skipping those whose lock is busy, and drop from memory the heartbeats that have been over for as long; returns the number of deleted leases. In an open transaction it keeps their locks from everybody until that ends. The sweeper does this by itself. Errors, nothing changed: 22004 NULL argument; 22023 out of range; 42501 the caller neither has the rights of the owner of le_lease nor may grant EXECUTE on this function; 25006 read-only transaction or standby';

CREATE FUNCTION le_info(
	OUT version text,
	OUT epoch bigint,
	OUT epoch_start timestamptz,
	OUT timeline bigint,
	OUT grace_remaining_ms bigint,
	OUT last_sweep timestamptz,
	OUT entries bigint,
	OUT warnings text[])
RETURNS record
AS 'MODULE_PATHNAME', 'le_info'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION le_info() IS
	'one row about this server: version, the epoch (one writable life of the server), its start and WAL timeline, for how many milliseconds a promotion still keeps vacant locks of this database from everybody (all NULL on a standby), when the sweeper has last swept this database (NULL: not yet in this epoch), number of heartbeats in memory (all databases), and warnings about settings that weaken the guarantee';

CREATE FUNCTION le_leases(
	OUT id bigint,
	OUT leader_id text,
	OUT expires_at timestamptz,
	OUT created_at timestamptz,
	OUT token bigint,
	OUT lease_ms bigint,
	OUT remaining_ms bigint,
	OUT renewed_at timestamptz,
	OUT renewals bigint,
	OUT state text,
	OUT leader_role name,
	OUT info text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'le_leases'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 100;

COMMENT ON FUNCTION le_leases() IS
	'the rows of the view leader_lease: all leases as they are at this moment, whatever the snapshot of the caller';

CREATE VIEW leader_lease AS
	SELECT id, leader_id, expires_at, created_at, token, lease_ms,
		   remaining_ms, renewed_at, renewals, state, leader_role, info
	FROM le_leases();

COMMENT ON VIEW leader_lease IS
	'all leases as they are at this moment; reads all of them, whatever the query asks for: le_leader() and le_token() ask about one lock. Its reader needs EXECUTE on le_leases() too';
COMMENT ON COLUMN leader_lease.id IS 'the lock';
COMMENT ON COLUMN leader_lease.leader_id IS 'name of the instance that leads or led';
COMMENT ON COLUMN leader_lease.expires_at IS 'end of the lease, or of the grace that protects it, in wall time; NULL on a standby';
COMMENT ON COLUMN leader_lease.created_at IS 'start of the term, in wall time';
COMMENT ON COLUMN leader_lease.token IS 'fencing token of the term';
COMMENT ON COLUMN leader_lease.lease_ms IS 'length of the lease in milliseconds, as the leader asked for it; of the hold, if it is one';
COMMENT ON COLUMN leader_lease.remaining_ms IS 'milliseconds until expires_at, 0 if it has passed; NULL on a standby';
COMMENT ON COLUMN leader_lease.renewed_at IS 'last heartbeat in this life of the server, in wall time; NULL if there was none';
COMMENT ON COLUMN leader_lease.renewals IS 'number of heartbeats of this term in this life of the server';
COMMENT ON COLUMN leader_lease.state IS 'live: granted or renewed in this life of the server; restarted: its instance leads, and has not renewed since the server restarted; held: nobody leads until the end of a hold; revoked: nobody leads; others may not for the rest of the lease that an operator has revoked, and who was revoked not for longer (or, after an immediate revocation, only the latter); grace: nobody leads, because the server was promoted; expired: over; standby: this server cannot tell';
COMMENT ON COLUMN leader_lease.leader_role IS 'the role that began the term';
COMMENT ON COLUMN leader_lease.info IS 'what the leader has told of itself with le_campaign()';

CREATE FUNCTION le_waiters(
	OUT lock_id bigint,
	OUT instance text,
	OUT since timestamptz,
	OUT priority integer,
	OUT pid integer)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'le_waiters'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10;

COMMENT ON FUNCTION le_waiters() IS
	'the rows of the view leader_waiting: who waits in le_campaign() at this moment';

CREATE VIEW leader_waiting AS
	SELECT lock_id, instance, since, priority, pid
	FROM le_waiters();

COMMENT ON VIEW leader_waiting IS
	'who waits in le_campaign() at this moment. Its reader needs EXECUTE on le_waiters() too';
COMMENT ON COLUMN leader_waiting.lock_id IS 'the lock';
COMMENT ON COLUMN leader_waiting.instance IS 'name of the instance that waits';
COMMENT ON COLUMN leader_waiting.since IS 'when its call began, in wall time';
COMMENT ON COLUMN leader_waiting.priority IS 'who has a larger one goes first';
COMMENT ON COLUMN leader_waiting.pid IS 'its server process';

CREATE FUNCTION le_terms(
	OUT lock_id bigint,
	OUT instance text,
	OUT token bigint,
	OUT leader_role name,
	OUT lease_ms bigint,
	OUT began timestamptz,
	OUT ended timestamptz,
	OUT ended_how text,
	OUT ended_by name,
	OUT renewals bigint,
	OUT least_left_ms bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'le_terms'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1000;

COMMENT ON FUNCTION le_terms() IS
	'the rows of the view leader_history: the terms that have ended, as they are at this moment. Error: 55000 le_term has been changed by hand';

CREATE VIEW leader_history AS
	SELECT lock_id, instance, token, leader_role, lease_ms, began, ended,
		   ended_how, ended_by, renewals, least_left_ms
	FROM le_terms();

COMMENT ON VIEW leader_history IS
	'the terms that have ended, kept for leader_election.history_retention, at most 100000 in a database. Its reader needs EXECUTE on le_terms() too';
COMMENT ON COLUMN leader_history.lock_id IS 'the lock';
COMMENT ON COLUMN leader_history.instance IS 'name of the instance that led';
COMMENT ON COLUMN leader_history.token IS 'fencing token of the term';
COMMENT ON COLUMN leader_history.leader_role IS 'the role that began the term';
COMMENT ON COLUMN leader_history.lease_ms IS 'length of the lease in milliseconds';
COMMENT ON COLUMN leader_history.began IS 'start of the term, in wall time';
COMMENT ON COLUMN leader_history.ended IS 'end of the term, in wall time; of one that has run out the end of its lease, not when that was noticed, unless memory was short meanwhile; if the server was restarted since its last heartbeat, the latest time at which it can have ended';
COMMENT ON COLUMN leader_history.ended_how IS 'released, transferred, revoked or expired';
COMMENT ON COLUMN leader_history.ended_by IS 'the role that ended it; NULL if it has run out';
COMMENT ON COLUMN leader_history.renewals IS 'number of its heartbeats; NULL if a restart, or a lack of memory after its end, has lost it';
COMMENT ON COLUMN leader_history.least_left_ms IS 'the least time in milliseconds that a heartbeat found left of the lease, counted as long as the server keeps it, a tenth longer than lease_ms; NULL if there was no heartbeat, or renewals is NULL';

CREATE VIEW leader_stat AS
	SELECT lock_id,
		   pg_catalog.count(*) AS terms,
		   pg_catalog.count(*) FILTER (WHERE ended_how OPERATOR(pg_catalog.=) 'released') AS released,
		   pg_catalog.count(*) FILTER (WHERE ended_how OPERATOR(pg_catalog.=) 'transferred') AS transferred,
		   pg_catalog.count(*) FILTER (WHERE ended_how OPERATOR(pg_catalog.=) 'revoked') AS revoked,
		   pg_catalog.count(*) FILTER (WHERE ended_how OPERATOR(pg_catalog.=) 'expired') AS expired,
		   pg_catalog.min(least_left_ms) AS least_left_ms,
		   pg_catalog.sum(gap) AS leaderless,
		   pg_catalog.max(gap) AS leaderless_longest
	FROM (SELECT lock_id, ended_how, least_left_ms,
				 GREATEST(began OPERATOR(pg_catalog.-) pg_catalog.max(ended) OVER (
							PARTITION BY lock_id ORDER BY token
							ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
						  '0'::pg_catalog.interval) AS gap
		  FROM leader_history) AS term
	GROUP BY lock_id;

COMMENT ON VIEW leader_stat IS
	'the terms of each lock that leader_history knows: how they have ended, how close they came to running out, and how long nobody led between them. Its reader needs EXECUTE on le_terms() too';
COMMENT ON COLUMN leader_stat.lock_id IS 'the lock';
COMMENT ON COLUMN leader_stat.terms IS 'number of ended terms';
COMMENT ON COLUMN leader_stat.released IS 'of these, released by their leader';
COMMENT ON COLUMN leader_stat.transferred IS 'of these, handed over by their leader';
COMMENT ON COLUMN leader_stat.revoked IS 'of these, ended by an operator';
COMMENT ON COLUMN leader_stat.expired IS 'of these, run out';
COMMENT ON COLUMN leader_stat.least_left_ms IS 'the least of leader_history.least_left_ms';
COMMENT ON COLUMN leader_stat.leaderless IS 'time between these terms in which nobody led, in all';
COMMENT ON COLUMN leader_stat.leaderless_longest IS 'the longest of these times';

-- ---------------------------------------------------------------------
-- Who may do what: nobody anything, but the owner
-- ---------------------------------------------------------------------

-- Any role that may execute these could take a vacant lock, end a lease whose
-- name it knows, or learn such names: EXECUTE is for the roles that elect.
REVOKE ALL ON FUNCTION
	le_try_acquire(bigint, text, bigint),
	le_renew(bigint, text, bigint),
	le_release(bigint, text, bigint, bigint),
	le_transfer(bigint, text, bigint, text),
	le_request_resign(bigint),
	le_revoke(bigint, boolean),
	le_campaign(bigint, text, bigint, bigint, text, integer),
	le_keep_alive(bigint, text, bigint),
	le_observe(bigint, bigint, bigint),
	le_is_leader(bigint, text, bigint),
	le_leader(bigint),
	le_token(bigint, text),
	le_guard(bigint, text, bigint),
	le_protect(regclass, bigint),
	le_unprotect(regclass),
	le_sweep(bigint),
	le_info(),
	le_leases(),
	le_waiters(),
	le_terms()
FROM PUBLIC;

-- (le_fence() and le_shield() stay with PUBLIC: they can do nothing but refuse,
-- and who restores a dump with protected tables needs le_fence() to create their
-- triggers.)

-- The table is written by the functions only, and whoever may read it or the
-- view sees instance names, which are the credentials of the leaders.
REVOKE ALL ON TABLE le_lease, le_term, leader_lease, leader_waiting, leader_history, leader_stat, leader_protected FROM PUBLIC;
REVOKE ALL ON SEQUENCE le_token_seq, le_lineage_seq FROM PUBLIC;

-- A dump of the database includes the last token, and whoever may dump the
-- database need not be a superuser.
GRANT SELECT ON SEQUENCE le_token_seq TO PUBLIC;

-- Whoever installs this may have default privileges that give his new objects
-- to others.  They were not meant for these.
DO LANGUAGE plpgsql $$
DECLARE
	given record;
BEGIN
	SET LOCAL search_path = pg_catalog, pg_temp;
	FOR given IN
		SELECT CASE WHEN relkind = 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
			   c.oid::regclass::text AS object, acl.grantee
		FROM pg_depend JOIN pg_class c ON classid = 'pg_class'::regclass AND c.oid = objid,
			 aclexplode(relacl) AS acl
		WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
			  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'leader_election')
			  AND acl.grantee NOT IN (0, relowner)
		UNION
		SELECT 'FUNCTION', p.oid::regprocedure::text, acl.grantee
		FROM pg_depend JOIN pg_proc p ON classid = 'pg_proc'::regclass AND p.oid = objid,
			 aclexplode(proacl) AS acl
		WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
			  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'leader_election')
			  AND acl.grantee NOT IN (0, proowner)
	LOOP
		EXECUTE format('REVOKE ALL ON %s %s FROM %s',
					   given.kind, given.object, given.grantee::regrole);
	END LOOP;
END $$;

-- Monitoring may read the views, and le_info().
DO LANGUAGE plpgsql $$
DECLARE
	given record;
BEGIN
	SET LOCAL search_path = pg_catalog, pg_temp;
	FOR given IN
		SELECT 'SELECT ON TABLE' AS what, c.oid::regclass::text AS object
		FROM pg_depend JOIN pg_class c ON classid = 'pg_class'::regclass AND c.oid = objid
		WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND relkind = 'v'
			  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'leader_election')
		UNION
		SELECT 'EXECUTE ON FUNCTION', p.oid::regprocedure::text
		FROM pg_depend JOIN pg_proc p ON classid = 'pg_proc'::regclass AND p.oid = objid
		WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
			  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'leader_election')
			  AND proname IN ('le_info', 'le_leases', 'le_waiters', 'le_terms')
	LOOP
		EXECUTE format('GRANT %s %s TO pg_monitor', given.what, given.object);
	END LOOP;
END $$;

-- An installer who is no superuser owns the extension but not its objects,
-- which belong to the bootstrap superuser.  He gets what it takes to elect, to
-- let others elect, and to restore the last token from a dump; nothing on
-- le_lease.  (CREATE EXTENSION would put his name into this script, but not one
-- with a quote or a dollar.)
DO LANGUAGE plpgsql $$
DECLARE
	given record;
BEGIN
	SET LOCAL search_path = pg_catalog, pg_temp;
	FOR given IN
		SELECT CASE WHEN relkind = 'S' THEN 'SELECT, UPDATE ON SEQUENCE' ELSE 'SELECT ON TABLE' END AS what,
			   c.oid::regclass::text AS object, extowner
		FROM pg_extension e JOIN pg_depend ON refclassid = 'pg_extension'::regclass AND refobjid = e.oid
			 JOIN pg_class c ON classid = 'pg_class'::regclass AND c.oid = objid
		WHERE extname = 'leader_election' AND deptype = 'e' AND relowner <> extowner
			  AND (relkind = 'v' OR relname = 'le_token_seq')
		UNION
		SELECT 'EXECUTE ON FUNCTION', p.oid::regprocedure::text, extowner
		FROM pg_extension e JOIN pg_depend ON refclassid = 'pg_extension'::regclass AND refobjid = e.oid
			 JOIN pg_proc p ON classid = 'pg_proc'::regclass AND p.oid = objid
		WHERE extname = 'leader_election' AND deptype = 'e' AND proowner <> extowner
			  AND prorettype <> 'trigger'::regtype
	LOOP
		EXECUTE format('GRANT %s %s TO %s WITH GRANT OPTION',
					   given.what, given.object, given.extowner::regrole);
	END LOOP;
END $$;
