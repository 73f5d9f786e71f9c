/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The sweeper: one background worker per database, started on demand.
 *
 * It must never be in anyone's way: it holds nothing while it sleeps, wakes
 * once a second to see whether somebody wants the database for himself, and
 * never waits for a standby.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "leader_election.h"

#define SWEEP_EXPIRED_FOR_MS 5000	/* how long a lease is over before it goes */
#define WAKE_MS 1000			/* how often we look whether to go away */
#define PROBE_TRIES 10			/* a launcher's probe is over in an instant */
#define PROBE_PAUSE_MS 20

/* What one sweep found */
typedef enum Sweep
{
	SWEEP_DONE,					/* there are leases */
	SWEEP_EMPTY,				/* the table is empty */
	SWEEP_LEAVE					/* the extension is gone, or somebody wants
								 * the database */
} Sweep;

/*
 * How many rows are deleted in one transaction: each holds a heavyweight lock
 * until its end, of which a small server has few.
 */
int
le_sweep_batch(void)
{
	return Max(1, Min(LE_SWEEP_BATCH, max_locks_per_xact * MaxBackends / 4));
}

/*
 * List the locks whose leases seem to have been over for that long, at most
 * limit of them (0: all).  *empty tells whether the table has no row at all.
 */
int64 *
le_sweep_list(Oid relid, int64 expired_for_ms, int limit,
			  int *count, bool *empty)
{
	const LeEpoch *epoch = le_epoch_current();
	Relation	rel = le_lease_table_open(relid, AccessShareLock);
	LeKey		key = {.database = MyDatabaseId,.relation = relid};
	LeTableScan scan;
	LeState		state;
	int			size = 64;
	int			used = 0;
	int64	   *ids = palloc(size * sizeof(int64));

	*empty = true;
	state.found = true;
	le_table_scan_begin(rel, &scan);
	while ((limit == 0 || used < limit) && le_table_scan_next(&scan, &state.row))
	{
		CHECK_FOR_INTERRUPTS();
		*empty = false;
		key.lock_id = state.row.lock_id;
		state.now = le_clock_now(epoch);
		le_store_copy(&key, &state.entry);
		if (!le_rule_over(&state, expired_for_ms, epoch))
			continue;
		if (used == size)
		{
			size *= 2;
			ids = repalloc_huge(ids, size * sizeof(int64));
		}
		ids[used++] = state.row.lock_id;
	}
	le_table_scan_end(&scan);
	table_close(rel, AccessShareLock);

	*count = used;
	return ids;
}

/*
 * Delete those of the listed rows that are over, skipping locks that are
 * busy.  Returns how many.
 */
int
le_sweep_delete(Oid relid, int64 expired_for_ms, const int64 *lock_ids,
				int count)
{
	const LeEpoch *epoch = le_epoch_current();
	Relation	rel = le_lease_table_open(relid, RowExclusiveLock);
	LeKey		key = {.database = MyDatabaseId,.relation = relid};
	int			deleted = 0;

	for (int i = 0; i < count; i++)
	{
		LeState		state;

		CHECK_FOR_INTERRUPTS();
		key.lock_id = lock_ids[i];
		if (!le_lock_take(LE_LOCK_LEASE, key.lock_id, ExclusiveLock, false))
			continue;
		le_lease_look(rel, &key, epoch, &state);
		if (le_rule_over(&state, expired_for_ms, epoch))
		{
			le_transition_ends(&key, &state.row, LE_EXPIRED);
			le_table_delete(rel, &state.row);
			deleted++;
		}
		else
			le_lock_drop(LE_LOCK_LEASE, key.lock_id, ExclusiveLock);
	}
	table_close(rel, RowExclusiveLock);
	return deleted;
}

/*
 * Start this database's sweeper unless it runs.  Called in a transition, once
 * its row has been written: a sweeper that leaves looks after it has let its
 * lock go, and so either we find the lock free or it finds our row.
 */
void
le_worker_launch(Oid relid)
{
	BackgroundWorker worker = {0};
	LeShared   *shared;
	bool		registered;
	bool		first;

	if (!le_sweeper)
		return;

	/* does it run? */
	if (!le_lock_take(LE_LOCK_SWEEPER, relid, ShareLock, false))
		return;
	le_lock_drop(LE_LOCK_SWEEPER, relid, ShareLock);

	/* a burst of transitions must not start a burst of workers */
	if (!le_lock_take(LE_LOCK_LAUNCH, relid, ExclusiveLock, false))
		return;

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "leader_election", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "le_sweeper_main", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "leader_election sweeper", BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN,
			 "leader_election sweeper of database %u", MyDatabaseId);
	worker.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId);
	memcpy(worker.bgw_extra, &relid, sizeof(relid));

	registered = RegisterDynamicBackgroundWorker(&worker, NULL);

	/* without, leases that are over are left lying, which harms nobody */
	shared = le_shared_attach();
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	first = !shared->no_worker_slot_logged;
	shared->no_worker_slot = !registered;
	shared->no_worker_slot_logged |= !registered;
	LWLockRelease(&shared->lock);
	if (!registered && first)
		ereport(LOG,
				(errmsg("could not start the sweeper of leader_election, because no background worker slot is free"),
				 errhint("Increase \"max_worker_processes\", or call le_sweep() now and then.")));
}

/*
 * Is the database ours to stay in?  DROP DATABASE and its like hold a lock on
 * it, and wait only seconds for everybody to leave.
 */
static bool
database_is_free(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
	if (LockAcquire(&tag, RowExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	LockRelease(&tag, RowExclusiveLock, true);
	return true;
}

/*
 * Is le_lease still there?  Looks without a lock, which we might have to wait
 * for.
 */
static bool
extension_is_there(Oid relid)
{
	bool		exists;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	exists = SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid));
	CommitTransactionCommand();
	return exists;
}

/* Sleep, but wake for signals; SIGTERM ends us here. */
static void
nap(long ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

/* Become the database's sweeper; false if there is one. */
static bool
sweeper_lock(Oid relid)
{
	LOCKTAG		tag;

	le_lock_tag(&tag, LE_LOCK_SWEEPER, relid);
	for (int i = 0; i < PROBE_TRIES; i++)
	{
		if (LockAcquire(&tag, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL)
			return true;
		nap(PROBE_PAUSE_MS);
	}
	return false;
}

static void
sweeper_unlock(Oid relid)
{
	LOCKTAG		tag;

	le_lock_tag(&tag, LE_LOCK_SWEEPER, relid);
	LockRelease(&tag, ExclusiveLock, true);
}

/*
 * Begin a transaction in which we are the owner of le_lease.  False, and no
 * transaction, if the table is gone.
 */
static bool
sweep_begin(Oid relid, Oid *save_userid, int *save_sec_context)
{
	Relation	rel;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());

	rel = le_table_open_lease(relid, AccessShareLock);
	if (rel == NULL)
	{
		PopActiveSnapshot();
		CommitTransactionCommand();
		return false;
	}

	GetUserIdAndSecContext(save_userid, save_sec_context);
	SetUserIdAndSecContext(rel->rd_rel->relowner,
						   *save_sec_context | SECURITY_RESTRICTED_OPERATION);
	table_close(rel, NoLock);
	return true;
}

static void
sweep_end(Oid save_userid, int save_sec_context)
{
	SetUserIdAndSecContext(save_userid, save_sec_context);
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(true);
}

/*
 * One sweep: one scan, then the deletions in batches, each a transaction of
 * its own, then the entries.
 */
static Sweep
sweep(Oid relid)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext,
												  "leader_election sweep",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context;
	Oid			save_userid;
	int			save_sec_context;
	int64	   *lock_ids;
	int			count;
	int			deleted = 0;
	bool		empty;
	Sweep		result = SWEEP_DONE;

	pgstat_report_activity(STATE_RUNNING, "sweeping leases that are over");

	if (!sweep_begin(relid, &save_userid, &save_sec_context))
	{
		MemoryContextDelete(context);
		return SWEEP_LEAVE;
	}
	old_context = MemoryContextSwitchTo(context);
	lock_ids = le_sweep_list(relid, SWEEP_EXPIRED_FOR_MS, 0, &count, &empty);
	MemoryContextSwitchTo(old_context);
	sweep_end(save_userid, save_sec_context);
	if (empty)
		result = SWEEP_EMPTY;

	for (int i = 0; i < count && result != SWEEP_LEAVE; i += le_sweep_batch())
	{
		CHECK_FOR_INTERRUPTS();
		if (!database_is_free() ||
			!sweep_begin(relid, &save_userid, &save_sec_context))
		{
			result = SWEEP_LEAVE;
			break;
		}
		deleted += le_sweep_delete(relid, SWEEP_EXPIRED_FOR_MS, lock_ids + i,
								   Min(count - i, le_sweep_batch()));
		sweep_end(save_userid, save_sec_context);
	}
	MemoryContextDelete(context);

	le_store_drop_over(le_clock_now(le_epoch_current()));
	if (deleted > 0)
		ereport(DEBUG1,
				(errmsg_internal("deleted %d leases that were over", deleted)));

	pgstat_report_activity(STATE_IDLE, NULL);
	return result;
}

/* What the sweeper must not inherit from the database or the server */
static const struct
{
	const char *name;
	const char *value;
}			settings[] =

{
	{"search_path", ""},
	{"synchronous_commit", "off"},
	{"statement_timeout", "0"},
	{"lock_timeout", "0"},
	{"idle_in_transaction_session_timeout", "0"},
	LE_TRANSACTION_TIMEOUT
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
};

/* The sweeper's life */
void
le_sweeper_main(Datum main_arg)
{
	Oid			database = DatumGetObjectId(main_arg);
	Oid			relid;
	bool		was_empty = false;

	memcpy(&relid, MyBgworkerEntry->bgw_extra, sizeof(relid));

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);

	/* the database's settings are for its users */
	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i].name, settings[i].value,
						PGC_USERSET, PGC_S_OVERRIDE);

	if (!sweeper_lock(relid))
		proc_exit(0);

	pgstat_report_activity(STATE_IDLE, "sweeping leases that are over");

	for (;;)
	{
		double		deviation = 2.0 * pg_prng_double(&pg_global_prng_state) - 1.0;
		TimestampTz begin = GetCurrentTimestamp();
		Sweep		result;

		for (;;)
		{
			/* the settings may have changed meanwhile */
			double		pause_ms = le_sweep_interval + deviation * le_sweep_jitter;
			TimestampTz due = begin + (int64) (Max(pause_ms, 100) * 1000);
			TimestampTz now = GetCurrentTimestamp();

			if (now >= due || now < begin)
				break;
			nap(Min(WAKE_MS, (due - now) / 1000 + 1));
			if (!le_sweeper || !database_is_free() || !extension_is_there(relid))
				proc_exit(0);
		}

		result = sweep(relid);
		if (result == SWEEP_LEAVE)
			proc_exit(0);

		if (result == SWEEP_EMPTY && was_empty)
		{
			/* who begins a term from now on launches a sweeper, or is seen */
			sweeper_unlock(relid);
			if (sweep(relid) != SWEEP_DONE || !sweeper_lock(relid))
				proc_exit(0);
			result = SWEEP_DONE;
		}
		was_empty = (result == SWEEP_EMPTY);
	}
}
