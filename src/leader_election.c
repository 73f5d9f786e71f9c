/*-------------------------------------------------------------------------
 *
 * leader_election.c
 *	  Load, settings, and what happens when a transaction ends.
 *
 * Nothing here needs shared_preload_libraries; preloading only takes the
 * shared struct's place ahead of time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "compat.h"
#include "leader_election.h"

LE_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

/* settings */
bool		le_allow_in_transaction = false;
int			le_promotion_grace = 10000;
int			le_memory_limit = 65536;
bool		le_sweeper = true;
int			le_sweep_interval = 60000;
int			le_sweep_jitter = 2000;

/* what the current transaction has done */
static bool transition_made = false;	/* any transition */
static bool transition_durable = false; /* one that a failover must not lose */
static List *terms_begun = NIL; /* LeCaller of each term begun in a block */

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

/*
 * The current transaction changes who leads.  A sweep only tidies up after
 * terms that are over; if it is lost it is done again.
 */
void
le_transition_note(bool durable)
{
	transition_made = true;
	if (durable)
		transition_durable = true;
}

/*
 * Are we in a transaction that goes on after this statement?  The first one of
 * a pipeline cannot be told.
 */
bool
le_in_transaction_block(void)
{
	return IsTransactionBlock() ||
		(MyXactFlags & XACT_FLAGS_PIPELINING) != 0;
}

/*
 * The current transaction begins a term.  In a block the client may take long
 * to commit, so the lease is looked at once more then.
 */
void
le_transition_begin_term(const LeCaller *caller, int64 token)
{
	le_transition_note(true);

	if (le_in_transaction_block())
	{
		MemoryContext old_context = MemoryContextSwitchTo(TopTransactionContext);
		LeCaller   *term = palloc(sizeof(LeCaller));

		*term = *caller;
		term->instance = NULL;
		term->any_token = false;
		term->token = token;
		terms_begun = lappend(terms_begun, term);
		MemoryContextSwitchTo(old_context);
	}
}

static void
transition_forget(void)
{
	transition_made = false;
	transition_durable = false;
	terms_begun = NIL;			/* its memory goes with the transaction */
}

/*
 * Before a commit an error is still free to be raised, after it none may be.
 */
static void
transition_callback(XactEvent event, void *arg)
{
	ListCell   *cell;

	le_guard_at_end(event);

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			foreach(cell, terms_begun)
				le_lease_check_begun((LeCaller *) lfirst(cell));

			/*
			 * A term that a failover loses would be two leaders.  Unlike
			 * ForceSyncCommit() this waits for a synchronous standby too.
			 */
			if (transition_durable &&
				synchronous_commit < SYNCHRONOUS_COMMIT_REMOTE_FLUSH)
				(void) set_config_option("synchronous_commit", "on",
										 PGC_USERSET, PGC_S_SESSION,
										 GUC_ACTION_LOCAL, true, 0, false);
			break;

		case XACT_EVENT_PRE_PREPARE:
			if (transition_made)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has begun, ended or swept a term of leadership")));
			break;

		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			transition_forget();
			break;

		default:
			break;
	}
}

/* A setting of the sweeper has changed: look at once when it is due. */
static void
sweep_assign_int(int value, void *extra)
{
	le_schedule_at = 0;
}

static void
sweep_assign_bool(bool value, void *extra)
{
	le_schedule_at = 0;
}

static void
preload_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(LE_SHARED_SIZE);
}

static void
preload_startup(void)
{
	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();
	le_shared_reset();
	(void) le_shared_attach();
}

void
_PG_init(void)
{
	if (IsBinaryUpgrade)
		return;

	DefineCustomBoolVariable("leader_election.allow_in_transaction",
							 "Lets le_try_acquire() begin a term inside a transaction block.",
							 "The term then counts from COMMIT, and until then keeps the lock from everybody.",
							 &le_allow_in_transaction,
							 false, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("leader_election.promotion_grace",
							"Time after a promotion in which nobody becomes leader.",
							"Must not be shorter than the longest lease in use. 0 is for clusters that promote only synchronous standbys.",
							&le_promotion_grace,
							10000, 0, (int) LE_LEASE_MS_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("leader_election.memory_limit",
							"Limits the shared memory for heartbeats.",
							"64MB hold about 250000 live leases of all databases together.",
							&le_memory_limit,
							65536, 2048, MAX_KILOBYTES,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomBoolVariable("leader_election.sweeper",
							 "Starts a background worker that deletes leases that are over.",
							 NULL,
							 &le_sweeper,
							 true, PGC_SIGHUP, 0,
							 NULL, sweep_assign_bool, NULL);
	DefineCustomIntVariable("leader_election.sweep_interval",
							"Time between two sweeps of a database.",
							"No two sweeps of the server begin within a second.",
							&le_sweep_interval,
							60000, 100, (int) LE_LEASE_MS_MAX,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, sweep_assign_int, NULL);
	DefineCustomIntVariable("leader_election.sweep_jitter",
							"Largest random deviation from the time between two sweeps.",
							"Keeps the sweeps of several databases apart.",
							&le_sweep_jitter,
							2000, 0, 3600000,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, sweep_assign_int, NULL);
#ifdef LE_TEST_PAUSE
	le_test_pause_init();
#endif
	MarkGUCPrefixReserved("leader_election");

	RegisterXactCallback(transition_callback, NULL);
	le_guard_init();

	if (process_shared_preload_libraries_in_progress)
	{
		prev_shmem_request_hook = shmem_request_hook;
		shmem_request_hook = preload_request;
		prev_shmem_startup_hook = shmem_startup_hook;
		shmem_startup_hook = preload_startup;
	}
}
