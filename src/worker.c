/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The sweeper's life: come, sweep one database, go.
 *
 * The whole server has one place for a sweeper, so it never waits for long: it
 * takes le_lease only if that is free, and goes without a word when it is told
 * to, or when somebody wants the database for himself.  Whatever it leaves is
 * for the next one.
 *
 * Floor: functions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "leader_election.h"

#define SWEEP_EXPIRED_FOR_MS 5000	/* how long a lease is over before it goes */

/*
 * How long an entry is over before it goes though nobody needs its memory,
 * microseconds.  A row that is swept or replaced takes its entry along; one in
 * a database that is not swept, because nobody calls there, needs it still to
 * tell when its term has ended.
 */
#define ENTRY_OVER_FOR INT64CONST(86400000000)

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
	{"lock_timeout", "1s"},		/* of a row that somebody has locked by hand */
	{"idle_in_transaction_session_timeout", "0"},
	LE_TRANSACTION_TIMEOUT
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
};

/*
 * Begin a transaction in which we are the owner of le_lease.  False, and no
 * transaction, if the table is gone, or if somebody has locked it or wants the
 * database for himself.
 */
static bool
sweep_begin(Oid relid, Oid *save_userid, int *save_sec_context)
{
	Relation	rel = NULL;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());

	if (le_launch_database_is_open() &&
		ConditionalLockRelationOid(relid, RowExclusiveLock))
		rel = le_table_try_open(relid, NoLock);
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
}

/*
 * One scan, then the deletions in batches, each a transaction of its own.
 * False if it was not finished.
 */
static bool
sweep_rows(Oid relid, bool *nothing_left)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext,
												  "leader_election sweep",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context;
	Oid			save_userid;
	int			save_sec_context;
	int64	   *lock_ids;
	int64		rows;
	int			count;
	int			deleted = 0;

	if (!sweep_begin(relid, &save_userid, &save_sec_context))
		return false;
	old_context = MemoryContextSwitchTo(context);
	lock_ids = le_sweep_list(relid, SWEEP_EXPIRED_FOR_MS, 0, &count, &rows);
	MemoryContextSwitchTo(old_context);
	sweep_end(save_userid, save_sec_context);

	for (int i = 0; i < count; i += le_sweep_batch())
	{
		if (!sweep_begin(relid, &save_userid, &save_sec_context))
			return false;
		deleted += le_sweep_delete(relid, SWEEP_EXPIRED_FOR_MS, lock_ids + i,
								   Min(count - i, le_sweep_batch()));
		sweep_end(save_userid, save_sec_context);
	}

	if (deleted > 0)
		ereport(DEBUG1,
				(errmsg_internal("deleted %d leases that were over", deleted)));
	*nothing_left = (deleted == rows);
	return true;
}

/* The terms that have been kept long enough, in batches as well */
static void
sweep_history(Oid relid)
{
	Oid			save_userid;
	int			save_sec_context;
	bool		more = true;

	while (more && sweep_begin(relid, &save_userid, &save_sec_context))
	{
		more = le_history_trim(relid);
		sweep_end(save_userid, save_sec_context);
	}
}

/*
 * The rows that are over, then the entries, then what is known of databases;
 * history comes last, so that none of its rows, which their owner may delete,
 * is in the way of the others.
 */
static void
sweep(Oid relid)
{
	uint64		terms_begun;
	bool		nothing_left;

	pgstat_report_activity(STATE_RUNNING, "sweeping leases that are over");

	terms_begun = le_schedule_terms_begun(relid);
	if (sweep_rows(relid, &nothing_left))
		le_schedule_note_sweep(relid, terms_begun, nothing_left);
	le_store_drop_over(le_clock_now(le_epoch_current()) - ENTRY_OVER_FOR);

	StartTransactionCommand();
	le_schedule_forget_gone();
	le_sweep_drop_gone();
	CommitTransactionCommand();
	sweep_history(relid);
	pgstat_report_stat(true);
}

/* End at once, even in a wait, and without an error: see le_sweeper_main(). */
static void
handle_sigterm(SIGNAL_ARGS)
{
	int			save_errno = errno;

	ShutdownRequestPending = true;
	QueryCancelPending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
	errno = save_errno;
}

/* However we end, others may sweep then. */
static void
leave(int code, Datum number)
{
	le_schedule_left(DatumGetUInt32(number));
}

void
le_sweeper_main(Datum main_arg)
{
	LeLaunch	launch;

	memcpy(&launch, MyBgworkerEntry->bgw_extra, sizeof(launch));

	pqsignal(SIGTERM, handle_sigterm);
	BackgroundWorkerUnblockSignals();

	before_shmem_exit(leave, UInt32GetDatum(launch.number));
	if (!le_schedule_arrived(launch.number))
		proc_exit(0);

	PG_TRY();
	{
		/* whether we may be here is asked quietly, by sweep_begin() */
		BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(main_arg),
												  InvalidOid,
												  BGWORKER_BYPASS_ALLOWCONN);

		/* the database's settings are for its users */
		for (int i = 0; i < lengthof(settings); i++)
			SetConfigOption(settings[i].name, settings[i].value,
							PGC_USERSET, PGC_S_OVERRIDE);
		sweep(launch.relation);
	}
	PG_CATCH();
	{
		LWLockReleaseAll();		/* leave() takes one */
		if (!ShutdownRequestPending)
			PG_RE_THROW();

		/* a shutdown, or pg_terminate_backend(): nobody need read of it */
		HOLD_INTERRUPTS();
		FlushErrorState();
	}
	PG_END_TRY();
	proc_exit(0);
}
