/*-------------------------------------------------------------------------
 *
 * leader_election.h
 *	  The types, the locks and the map of the extension.
 *
 * A term is a row of le_lease: who leads, under which token, for which lease
 * length.  A heartbeat is a store into an entry of a hash table in shared
 * memory.  An epoch is one writable life of the server; it makes losing the
 * entries harmless, because in a new epoch each lease counts as renewed at
 * the epoch's start.
 *
 * THE MAP, from the roof to the ground.  Whoever is called stands below: each
 * file uses only files further down ("make arrows" looks whether that is so).
 *
 * roof
 *	leader_election.c	load, settings, the order of what happens at commit
 * functions: what the server calls
 *	functions.c			the SQL functions that elect
 *	answers.c			those that answer with a row: waiting, heartbeats
 *	monitor.c			the SQL functions that show: the view's rows, le_info()
 *	fence.c				le_fence: tables that are written under a guard only
 *	shield.c			nobody but our functions changes our tables
 *	worker.c			the sweeper's life
 *	args.c				the arguments that SQL functions have in common
 * protocol: what is decided, and in which order locks, clock, entry and row
 * are taken and read
 *	guard.c				le_guard: a deposed leader cannot commit
 *	sweep.c				deleting the rows of leases that are over
 *	campaign.c			waiting for a lock, or for news of it
 *	handover.c			ending a term: for nobody, for a successor, by an operator
 *	lease.c				becoming and staying the leader
 * transitions: how it is carried out
 *	transition.c		the only file that changes who leads
 *	changes.c			what this transaction has begun and ended
 * state: what is known
 *	launch.c			starting the sweeper
 *	schedule.c			when a database's sweep is due, and who sweeps now
 *	look.c				one look at a lock
 *	events.c			NOTIFY, for whoever listens
 *	history.c			the terms that have ended
 *	lease_table.c		the only file that touches rows
 *	tokens.c			the only file that touches the sequences
 *	entry.c				what happens to an entry: heartbeats, marks
 *	waiters.c			the list of those who wait
 *	store.c				where the entries are
 *	standby.c			what a synchronous standby has
 * ground
 *	locks.c				our heavyweight locks
 *	epoch.c				shared memory, the epoch, the lease clock
 *	rules.c				row, entry, now and epoch in, a verdict out
 *	messages.c			what messages show
 *	test_pause.c		points where a test can hold a session
 *	compat.h			differences between server versions
 *
 * THE LOCKS
 *
 * 1. The lock's heavyweight lock (LE_LOCK_LEASE).  A transition (begin, take
 *	  over, release, transfer, revoke, sweep) takes it exclusively and, once it
 *	  has written the row, keeps it to the end of its transaction.  Whoever writes an entry on
 *	  the row's behalf, or wants to believe that there is no row, holds it in
 *	  share mode for that moment.  A guarded transaction holds it in share mode
 *	  from its last look, at pre-commit, to its end.
 * 2. The entry's partition lock, an LWLock inside the hash table.  Under it
 *	  nothing may fail, wait, allocate or look at a catalog.
 *
 * They are taken in this order.  Every decision follows the sequence lock,
 * clock, entry, row: an end that has passed by a clock that was read before
 * the entry is final, because a later heartbeat reads a later clock.  Only a
 * heartbeat reads the clock inside the partition lock.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEADER_ELECTION_H
#define LEADER_ELECTION_H

#include "access/htup.h"
#include "access/xact.h"
#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "lib/dshash.h"
#include "port/atomics.h"
#include "storage/itemptr.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#define LE_VERSION "1.0"

#define LE_INSTANCE_MAX 127		/* bytes of an instance's name */
#define LE_LEASE_MS_MAX INT64CONST(86400000)	/* a day */
#define LE_INFO_MAX 512			/* bytes of what a leader tells of itself */
#define LE_WAIT_MS_MAX 60000	/* longer, and VACUUM would be held back */
#define LE_PRIORITY_MAX 9
#define LE_TOKEN_ANY PG_INT64_MIN	/* stands for any term; no term has it */
#define LE_HISTORY_MAX 100000	/* ended terms that are kept in a database */
#define LE_SWEEP_BATCH 1000		/* rows deleted in one transaction at most */

/* leadership lost */
#define ERRCODE_LE_LEADERSHIP_LOST MAKE_SQLSTATE('L', 'E', '0', '0', '1')

/* a protected table was changed without a guard */
#define ERRCODE_LE_NOT_GUARDED MAKE_SQLSTATE('L', 'E', '0', '0', '2')

/* Our heavyweight locks, see locks.c */
typedef enum LeLockClass
{
	LE_LOCK_LEASE = 19525,		/* by lock id: the term, see above */
	LE_LOCK_DRAW = 19526,		/* by le_lease's OID: held for a token draw */
} LeLockClass;

/* What names a lock in the whole server; also the hash table's key */
typedef struct LeKey
{
	Oid			database;
	Oid			relation;		/* le_lease of this extension */
	int64		lock_id;
} LeKey;

/* A term: its token is never another's on that lock */
typedef struct LeTerm
{
	LeKey		key;
	int64		token;
} LeTerm;

/* Who calls, about which lock */
typedef struct LeCaller
{
	LeKey		key;
	Oid			role;
	const char *instance;		/* NULL: one who only asks about the lock */
	int64		token;			/* LE_TOKEN_ANY, or only this term will do */
	const char *function;		/* for messages */
} LeCaller;

/* Who leads */
typedef struct LeHolder
{
	int64		token;
	Oid			role;
	TimestampTz end;			/* of the lease, unless it is renewed */
	char		instance[LE_INSTANCE_MAX + 1];
} LeHolder;

/* What somebody asks for who wants to lead */
typedef struct LeBid
{
	int64		lease_ms;		/* of a term that begins */
	bool		as_it_is;		/* his live term may be a shorter one */
	const char *info;			/* NULL: none */

	/* of one who waits */
	bool		waits;
	bool		only_looks;		/* it is not his turn */
	int64		unconfirmed;	/* a term of his that a standby may not have
								 * ... */
	XLogRecPtr	flushed;		/* ... until it has all up to there */
} LeBid;

/* What the leader is told */
typedef struct LeGrant
{
	int64		token;
	int64		lease_ms;
	TimestampTz counted_from;	/* lease clock; the lease ends so much later */
	bool		awaited;		/* somebody waits for the lock */
	bool		resign;			/* an operator asks him to go */
} LeGrant;

/* What somebody is told who wants to lead */
typedef struct LeAnswer
{
	bool		leads;
	LeGrant		grant;			/* if he does ... */
	LeHolder	leader;			/* ... else who does; token 0: nobody */
	TimestampTz now;			/* lease clock, as the answer was found ... */
	TimestampTz free_at;		/* ... and how long the lock is not free */
	bool		busy;			/* somebody is just changing who leads */
	bool		barred;			/* free for others sooner than for him */
} LeAnswer;

/* One writable life of the server, and the anchors of its lease clock */
typedef struct LeEpoch
{
	int64		id;				/* random, only equality matters; 0: none */
	int64		timeline;		/* WAL timeline, for people to read */
	int64		lineage;		/* of this cluster on this timeline, for rules */
	TimestampTz start;			/* wall time, and start of the lease clock */
	int64		anchor;			/* the counting clock at start, microseconds */
} LeEpoch;

/*
 * A lineage is a hash of system identifier and timeline, because the number
 * of a timeline comes back after pg_upgrade.  This one is nobody's: no term
 * has been begun yet in this database, on a timeline which is not the first.
 */
#define LE_LINEAGE_NONE 1

/*
 * What a row says.  All but the live one say that nobody leads, and keep the
 * lock from some or all for a while.
 */
#define LE_STATE_LIVE 'l'		/* leader_id leads, until the end */
#define LE_STATE_REVOKED 'r'	/* it has led, and may believe so until the
								 * end; is barred for a ban more */
#define LE_STATE_REVOKED_NOW 'i'	/* the same, but others need not wait; the
									 * end is that of the ban */
#define LE_STATE_HELD 'h'		/* nobody may lead until the end; lease_ms is
								 * the length of the hold */

/*
 * A term's row.  Times are of the lease clock of the row's epoch, except
 * created_at, which is for people.
 */
typedef struct LeRow
{
	int64		lock_id;
	int64		token;
	int64		lease_ms;
	Oid			leader_role;
	int64		lineage;
	int64		epoch;
	TimestampTz expires_at;
	TimestampTz created_at;
	char		leader_id[LE_INSTANCE_MAX + 1];
	char		state;			/* LE_STATE_... */
	bool		has_info;
	char		info[LE_INFO_MAX + 1];

	/* not columns */
	ItemPointerData tid;
	bool		own;			/* written by the current transaction */
	bool		copied;			/* with another database: it is nobody's */
} LeRow;

/* Keeps an entry's place for a term that has had no heartbeat yet */
typedef struct LeReservation
{
	int64		token;			/* 0: for none */
	TimestampTz until;			/* lease clock; the end of the first lease */
} LeReservation;

/*
 * A heartbeat: how long the holder has renewed for.  It speaks only while its
 * token is the row's; every transition changes the row's token or removes the
 * row.  Token 0: there has been no heartbeat, the place is reserved for a term
 * to come.
 */
typedef struct LeEntry
{
	LeKey		key;			/* hash key, must be first */
	int64		token;
	TimestampTz expires_at;		/* lease clock */
	TimestampTz renewed_at;		/* lease clock */
	int64		renewals;
	LeReservation reserved;
	int64		lease_ms;
	Oid			leader_role;
	bool		recheck;		/* a transition is on its way: ask the row */
	bool		confirmed;		/* a synchronous standby has the row that the
								 * place is reserved for */
	TimestampTz awaited_until;	/* somebody waits for the lock, a hint */
	int64		resign_token;	/* this term was asked to end; 0: none */
	int64		least_left;		/* microseconds that a heartbeat has found */
	char		leader_id[LE_INSTANCE_MAX + 1];
} LeEntry;

/* One look at a lock.  Its parts were read in this order. */
typedef struct LeState
{
	TimestampTz now;
	LeEntry		entry;			/* a copy; token 0: there is none */
	bool		found;			/* is there a row? */
	LeRow		row;
} LeState;

/* A scan of all rows */
typedef struct LeTableScan
{
	Relation	rel;
	SnapshotData snapshot;
	struct SysScanDescData *desc;
} LeTableScan;

/* How a fast heartbeat ended */
typedef enum LeBeat
{
	LE_BEAT_DONE,				/* renewed */
	LE_BEAT_REFUSED,			/* somebody else, or another term, is live */
	LE_BEAT_ASK_ROW,			/* the entry cannot tell */
	LE_BEAT_ASK_ROLE,			/* another role's lease: judge, then retry */
	LE_BEAT_TOO_LONG			/* asked for a longer lease than the term's */
} LeBeat;

/* What the view says of a lease */
typedef enum LePhase
{
	LE_PHASE_LIVE,
	LE_PHASE_RESTARTED,			/* live, counted from the epoch's start */
	LE_PHASE_GRACE,				/* nobody leads, because of a promotion */
	LE_PHASE_REVOKED,			/* nobody leads, an operator has seen to that */
	LE_PHASE_HELD,				/* nobody leads, the last leader wanted it so */
	LE_PHASE_EXPIRED,
	LE_PHASE_VACANT				/* there is no row */
} LePhase;

/*
 * What is known of the sweeps of one le_lease.  Times are of the lease clock.
 * There is nothing to sweep while terms_gone is terms_begun.
 */
typedef struct LeSweep
{
	Oid			database;
	Oid			relation;
	TimestampTz since;			/* the last sweep was started, or put off */
	TimestampTz asked_at;		/* a call has last found it due */
	TimestampTz swept_at;		/* a sweep has ended; 0: none in this epoch */
	uint64		terms_begun;	/* in this epoch, and 1 */
	uint64		terms_gone;		/* how many of them had begun before a sweep
								 * that has left no row */
	double		deviation;		/* of the next sweep, -1 to 1 */
} LeSweep;

typedef struct LeSweeps
{
	int			used;
	int			allocated;
	LeSweep		sweeps[FLEXIBLE_ARRAY_MEMBER];
} LeSweeps;

/*
 * The place of a session that waits: a candidate for a lock, or one who
 * observes it.
 */
typedef struct LePlace
{
	LeKey		key;			/* database 0: nobody has this place */
	int			pid;
	bool		candidate;
	Oid			role;			/* a candidate's */
	int			priority;		/* 0 to LE_PRIORITY_MAX goes before ... */
	TimestampTz since;			/* ... the order of arrival; lease clock */
	TimestampTz until;			/* then the place is void; lease clock */
	TimestampTz barred_until;	/* before it he may not lead; lease clock */
	char		instance[LE_INSTANCE_MAX + 1];
} LePlace;

/* All places: each backend has one, by its number */
typedef struct LeWaiters
{
	LWLock		lock;			/* protects the places */
	pg_atomic_uint32 count;		/* how many are taken */
	int			size;
	LePlace		places[FLEXIBLE_ARRAY_MEMBER];
} LeWaiters;

/* What a sweeper is told */
typedef struct LeLaunch
{
	Oid			relation;		/* le_lease */
	uint32		number;			/* which sweeper of the server it is */
} LeLaunch;

/*
 * The struct in the server's main shared memory.  Its name, its size and the
 * place of its lock never change: two of them in one life of the server would
 * be two epochs, and two leaders.  A change inside counts LE_LAYOUT up.
 */
#define LE_SHARED_NAME "leader_election"
#define LE_SHARED_SIZE 128
#define LE_LAYOUT 4

typedef struct LeShared
{
	LWLock		lock;			/* protects all below */
	int32		layout;			/* LE_LAYOUT, set last */
	int32		tranche;
	LeEpoch		epoch;
	uint64		hash_seed;		/* random; else ids could be chosen so that
								 * all fall into one place of the hash table */
	pg_atomic_uint32 waiting;	/* who waits to change an entry */
	dsa_handle	area;			/* where the hash table lives */
	dshash_table_handle table;	/* invalid: neither exists yet */
	dsa_pointer sweeps;			/* LeSweeps, in area ... */
	dsa_pointer waiters;		/* ... like LeWaiters */
	TimestampTz sweeper_started;	/* lease clock, the last one */
	uint32		sweeper_number; /* which it was */
	int			sweeper_pid;	/* 0: none, -1: has not come yet */
	int			memory_limit;	/* kB, as last applied to area */
	bool		no_worker_slot; /* at the last attempt to start a sweeper ... */
	bool		no_worker_slot_logged;	/* ... or at any in this epoch */
	bool		no_history_logged;	/* in this epoch */
	bool		over_dropped;	/* an entry of a term has been, in this epoch */
} LeShared;

/* How a term began or ended */
typedef enum LeChangeKind
{
	LE_BEGUN,
	LE_RELEASED,
	LE_TRANSFERRED,
	LE_REVOKED,
	LE_EXPIRED,					/* noticed by a successor or a sweep */
	LE_LIFTED,					/* had ended, what was left of it is revoked */
	LE_SWEPT					/* had ended, its row is gone */
} LeChangeKind;

/* ---------------------------------------------------------------------
 * ground
 * ---------------------------------------------------------------------
 */

static inline bool
le_same_key(const LeKey *a, const LeKey *b)
{
	return a->database == b->database && a->relation == b->relation &&
		a->lock_id == b->lock_id;
}

static inline bool
le_same_term(const LeTerm *a, const LeTerm *b)
{
	return a->token == b->token && le_same_key(&a->key, &b->key);
}

/* messages.c */
extern char *le_printable(const char *string);
extern const char *le_phase_name(LePhase phase);

/* rules.c */
extern int	le_promotion_grace;

extern int64 le_rule_length(int64 lease_ms);
extern TimestampTz le_rule_end(const LeState *state, const LeEpoch *epoch);
extern bool le_rule_live(const LeState *state, const LeEpoch *epoch);
extern int64 le_rule_ban(int64 lease_ms);
extern TimestampTz le_rule_grace(const LeEpoch *epoch);
extern TimestampTz le_rule_vacant_from(const LeState *state,
									   int64 known_lineage,
									   const char *instance,
									   const LeEpoch *epoch);
extern TimestampTz le_rule_rests_until(const LeState *state,
									   const LeEpoch *epoch);
extern TimestampTz le_rule_shown_end(const LeState *state,
									 const LeEpoch *epoch);
extern LePhase le_rule_phase(const LeState *state, const LeEpoch *epoch);
extern bool le_rule_over(const LeState *state, int64 expired_for_ms,
						 const LeEpoch *epoch);
extern void le_entry_holder(const LeEntry *entry, LeHolder *holder);
extern void le_rule_grant(const LeRow *row, TimestampTz counted_from,
						  LeGrant *grant);
extern void le_rule_holder(const LeState *state, const LeEpoch *epoch,
						   LeHolder *holder);
extern bool le_rule_names(const LeCaller *caller, const char *leader_id,
						  int64 token);
extern bool le_rule_leads(const LeCaller *caller, const LeState *state,
						  const LeEpoch *epoch);
extern bool le_rule_worth_waiting(const LeCaller *caller, const LeState *state,
								  const LeEpoch *epoch);

/* Does the entry speak without the row? */
static inline bool
le_entry_usable(const LeEntry *entry, TimestampTz now)
{
	return entry->token != 0 && !entry->recheck && now < entry->expires_at;
}

/* epoch.c */
extern LeShared *le_shared_attach(void);
extern void le_shared_reset(void);
extern const LeEpoch *le_epoch_current(void);
extern TimestampTz le_clock_now(const LeEpoch *epoch);

/* locks.c */
extern void le_lock_tag(LOCKTAG *tag, LeLockClass class, int64 id);
extern bool le_lock_take(LeLockClass class, int64 id, LOCKMODE mode,
						 bool wait);
extern bool le_lock_take_within(LeLockClass class, int64 id, LOCKMODE mode,
								int64 ms);
extern void le_lock_drop(LeLockClass class, int64 id, LOCKMODE mode);
extern bool le_lock_held(LeLockClass class, int64 id, LOCKMODE mode);
extern void le_lock_table(Oid relid);

/* ---------------------------------------------------------------------
 * state
 * ---------------------------------------------------------------------
 */

/* standby.c */
extern bool le_standby_must_confirm(void);
extern bool le_standby_has(XLogRecPtr lsn);
extern XLogRecPtr le_standby_target(void);
extern void le_standby_wait(XLogRecPtr lsn);

/* store.c */
extern int	le_memory_limit;

extern LeEntry *le_store_find(const LeKey *key);
extern LeEntry *le_store_find_to_look(const LeKey *key);
extern LeEntry *le_store_find_or_insert(const LeKey *key,
										const LeEpoch *epoch);
extern void le_store_unlock(LeEntry *entry);
extern void le_store_delete(LeEntry *entry);
extern int64 le_store_drop_over(TimestampTz now);
extern int	le_store_tables(LeKey *keys, int max);
extern void le_store_drop_table(const LeKey *key);
extern int64 le_store_count(void);
extern struct dsa_area *le_store_area(void);

/* entry.c */
extern void le_entry_copy(const LeKey *key, LeEntry *copy);
extern LeBeat le_entry_beat(const LeCaller *caller, int64 lease_ms,
							Oid judged_role, const LeEpoch *epoch,
							LeGrant *grant, LeEntry *seen, TimestampTz *now);
extern bool le_entry_beat_row(const LeCaller *caller, const LeRow *row,
							  const LeEpoch *epoch, LeGrant *grant);
extern void le_entry_reserve(const LeKey *key,
							 const LeReservation *reservation,
							 LeReservation *before, const LeEpoch *epoch);
extern void le_entry_request_resign(const LeTerm *term, TimestampTz end,
									const LeEpoch *epoch);
extern void le_entry_await(const LeKey *key, TimestampTz until);
extern void le_entry_mark(const LeKey *key, LeEntry *copy);
extern void le_entry_forget(const LeTerm *term, const LeReservation *before);
extern void le_entry_confirm(const LeTerm *term);

/* tokens.c */
extern int64 le_token_known_lineage(Relation rel);
extern bool le_token_grace_runs(Relation rel, TimestampTz now,
								const LeEpoch *epoch);
extern int64 le_token_draw(Relation rel, int64 above, bool note_lineage,
						   const LeEpoch *epoch);

/* lease_table.c */
extern Oid	le_table_of_function(Oid funcid);
extern Relation le_table_open(Oid relid, LOCKMODE mode);
extern Relation le_table_try_open(Oid relid, LOCKMODE mode);
extern bool le_table_indexes_are_plain(Relation rel);
extern bool le_table_read(Relation rel, int64 lock_id, LeRow *row);
extern void le_table_scan_begin(Relation rel, LeTableScan *scan);
extern bool le_table_scan_next(LeTableScan *scan, LeRow *row);
extern void le_table_scan_end(LeTableScan *scan);
extern int64 *le_table_list(Relation rel, int *count);
extern void le_table_insert(Relation rel, const LeRow *row);
extern void le_table_update(Relation rel, const LeRow *row);
extern void le_table_delete(Relation rel, const LeRow *row);

/* waiters.c */
extern bool le_waiters_attach(void);
extern void le_waiters_enter(const LePlace *place);
extern void le_waiters_leave(void);
extern void le_waiters_bar(TimestampTz until);
extern int	le_waiters_before_me(TimestampTz now);
extern bool le_waiters_first(const LeKey *key, const char *except,
							 TimestampTz now, char *instance, Oid *role);
extern void le_waiters_wake(const LeKey *key, const char *instance,
							bool vacant);
extern void le_waiters_wake_all(Oid database);
extern LePlace *le_waiters_list(Oid relid, TimestampTz now, int *count);

/* events.c */
extern bool le_notify;

extern void le_event_queue(const LeKey *key, const char *event);

/* history.c */
extern int	le_history_retention;

extern void le_history_note(Relation rel, const LeState *state,
							LeChangeKind how, TimestampTz wall,
							const LeEpoch *epoch);
extern bool le_history_trim(Oid lease_relid);

/* look.c */
extern void le_look(Relation rel, const LeKey *key, const LeEpoch *epoch,
					LeState *state);
extern void le_look_hard(Relation rel, const LeKey *key, const LeEpoch *epoch,
						 LeState *state);

/* schedule.c */
extern bool le_sweeper;
extern int	le_sweep_interval;
extern int	le_sweep_jitter;
extern TimestampTz le_schedule_at;

extern bool le_schedule_is_due(Oid relid, bool *known);
extern uint32 le_schedule_claim(Oid relid);
extern void le_schedule_put_off(Oid relid);
extern bool le_schedule_arrived(uint32 number);
extern void le_schedule_left(uint32 number);
extern void le_schedule_note_term(Oid relid);
extern uint64 le_schedule_terms_begun(Oid relid);
extern void le_schedule_note_sweep(Oid relid, uint64 terms_begun,
								   bool nothing_left);
extern TimestampTz le_schedule_swept_at(Oid relid);
extern void le_schedule_forget_gone(void);

/* launch.c */
extern bool le_launch_database_is_open(void);
extern void le_launch_look(Oid relid);

/* Start the sweeper if it is due.  now is what the caller has read anyway. */
static inline void
le_launch_poll(Oid relid, TimestampTz now)
{
	if (unlikely(now >= le_schedule_at))
		le_launch_look(relid);
}

/* ---------------------------------------------------------------------
 * transitions
 * ---------------------------------------------------------------------
 */

/* changes.c */
extern bool le_log_terms;

extern bool le_in_transaction_block(void);
extern LeReservation *le_change_begins(const LeKey *key, const LeRow *row);
extern void le_change_ends(const LeKey *key, const LeRow *row,
						   LeChangeKind how);
extern bool le_change_ended_here(const LeTerm *term);
extern bool le_change_is_pending(void);
extern void le_change_at_end(XactEvent event);
extern void le_change_init(void);

/* transition.c */
extern void le_transition_begin(Relation rel, const LeCaller *caller,
								const LeBid *bid, const LeState *state,
								const LeEpoch *epoch, LeGrant *grant);
extern void le_transition_release(Relation rel, const LeKey *key,
								  const LeState *state, int64 hold_ms,
								  const LeEpoch *epoch);
extern void le_transition_transfer(Relation rel, const LeKey *key,
								   const LeState *state,
								   const char *successor, Oid role,
								   const LeEpoch *epoch);
extern void le_transition_revoke(Relation rel, const LeKey *key,
								 const LeState *state, bool immediately,
								 const LeEpoch *epoch);
extern void le_transition_sweep(Relation rel, const LeKey *key,
								const LeState *state, const LeEpoch *epoch);

/* ---------------------------------------------------------------------
 * protocol
 * ---------------------------------------------------------------------
 */

/* lease.c */
extern bool le_allow_in_transaction;

extern bool le_lease_read(const LeKey *key, LeHolder *holder);
extern bool le_lease_is_held(const LeCaller *caller);
extern void le_lease_judge_role(const LeCaller *caller, Oid leader_role);
extern void le_lease_acquire(const LeCaller *caller, LeBid *bid,
							 LeAnswer *answer);
extern bool le_lease_renew(const LeCaller *caller, LeGrant *grant);

/* campaign.c */
extern void le_campaign_run(const LeCaller *caller, LeBid *bid, int priority,
							int64 wait_ms, LeAnswer *answer, int64 *waited);
extern void le_campaign_observe(const LeCaller *caller, int64 known_token,
								int64 wait_ms, LeState *state,
								TimestampTz *free_at);

/* handover.c */
extern bool le_handover_release(const LeCaller *caller, int64 hold_ms);
extern bool le_handover_transfer(const LeCaller *caller,
								 const char *successor);
extern bool le_handover_request_resign(const LeCaller *caller);
extern bool le_handover_revoke(const LeCaller *caller, bool immediately);

/* sweep.c */
extern int	le_sweep_batch(void);
extern int64 *le_sweep_list(Oid relid, int64 expired_for_ms, int limit,
							int *count, int64 *rows);
extern int	le_sweep_delete(Oid relid, int64 expired_for_ms,
							const int64 *lock_ids, int count);
extern void le_sweep_drop_gone(void);

/* guard.c */
extern void le_guard_at_end(XactEvent event);
extern void le_guard_ask(void);
extern int64 le_guard_set(const LeCaller *caller);
extern bool le_guard_is_set(const LeKey *key);

/* ---------------------------------------------------------------------
 * functions
 * ---------------------------------------------------------------------
 */

/* args.c */
extern void le_arg_check_null(FunctionCallInfo fcinfo, int n,
							  const char *name);
extern int64 le_arg_ms(FunctionCallInfo fcinfo, int n, const char *name,
					   int64 min, int64 max);
extern int	le_arg_priority(FunctionCallInfo fcinfo, int n);
extern const char *le_arg_info(FunctionCallInfo fcinfo, int n);
extern void le_arg_lock(FunctionCallInfo fcinfo, LeCaller *caller);
extern const char *le_arg_instance(FunctionCallInfo fcinfo, int n,
								   const char *name);
extern void le_arg_caller(FunctionCallInfo fcinfo, LeCaller *caller);
extern int64 le_arg_known_token(FunctionCallInfo fcinfo, int n);
extern void le_arg_token(FunctionCallInfo fcinfo, LeCaller *caller);
extern void le_arg_own_token(FunctionCallInfo fcinfo, LeCaller *caller);
extern void le_arg_locate(FunctionCallInfo fcinfo, LeCaller *caller,
						  const char *function, bool writes);
extern void le_check_primary(const char *function);

/* shield.c */
extern bool le_shield_is_on(Relation rel);

/* worker.c */
extern PGDLLEXPORT void le_sweeper_main(Datum main_arg);

/*
 * Points where a test can hold a session, see test_pause.c.  A normal build
 * has nothing there.
 */
#ifdef LE_TEST_PAUSE
typedef enum LePause
{
	LE_PAUSE_BEAT = 1,			/* heartbeat: before the partition lock */
	LE_PAUSE_LOOK,				/* between the clock and the entry */
	LE_PAUSE_LOCK,				/* before the lock's heavyweight lock */
	LE_PAUSE_MARKED,			/* who ends a term: between mark and row */
	LE_PAUSE_ENTRY,				/* slow heartbeat: between row and entry */
	LE_PAUSE_GUARDED,			/* commit: after the look, the lock is held */
	LE_PAUSE_SHARED,			/* who only looks: the lock is held */
	LE_PAUSE_SLEEP,				/* who waits: between look and sleep */
	LE_PAUSE_UNMARKED			/* who ends a term: the lock is held, the
								 * entry is not marked yet */
} LePause;

extern void le_test_pause_init(void);
extern void le_test_pause(LePause point);
extern int	le_test_patience(int ms);
extern int64 le_test_turn(int64 us);
#define TEST_PAUSE(point) le_test_pause(point)
#define TEST_PATIENCE(ms) le_test_patience(ms)
#define TEST_TURN(us) le_test_turn(us)
#else
#define TEST_PAUSE(point) ((void) 0)
#define TEST_PATIENCE(ms) (ms)
#define TEST_TURN(us) (us)
#endif

#endif							/* LEADER_ELECTION_H */
