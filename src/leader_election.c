/*-------------------------------------------------------------------------
 *
 * leader_election.c
 *	  Load, settings, and the order of what happens when a transaction ends.
 *
 * Nothing here needs shared_preload_libraries; preloading only takes the
 * shared struct's place ahead of time.
 *
 * Floor: roof.
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

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

/*
 * All that happens at the end of a transaction, in its order.  Before a commit
 * an error is still free to be raised, after it none may be.
 *
 *	pre-commit	guards		each term still live? (guard.c; by its own callback
 *							before other modules' work, here if that was not run)
 *				begun terms	not over already?
 *				durability	the commit waits for disk and standby
 *	end			guards		forgotten
 *				terms		logged, the memory of ended ones given back
 *	released	waiters		woken, when the locks are gone (changes.c; by its
 *							own callback)
 */
static void
transaction_callback(XactEvent event, void *arg)
{
	le_guard_at_end(event);
	le_change_at_end(event);
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
							 "Lets le_try_acquire() and le_campaign() begin a term inside a transaction block.",
							 "The term then counts from COMMIT, and until then keeps the lock from everybody.",
							 &le_allow_in_transaction,
							 false, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("leader_election.log_terms",
							 "Logs each term that begins, ends or has run out.",
							 "One line each, with lock, instance and token.",
							 &le_log_terms,
							 false, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("leader_election.notify",
							 "Sends NOTIFY leader_election when a term begins or is ended.",
							 "Makes commits that begin or end a term wait for each other, and for any other NOTIFY, in the whole server.",
							 &le_notify,
							 false, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("leader_election.history_retention",
							"Keeps ended terms for the view leader_history for that long.",
							"0 keeps none. Not more than 100000 in a database.",
							&le_history_retention,
							604800, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
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

	RegisterXactCallback(transaction_callback, NULL);
	le_change_init();

	if (process_shared_preload_libraries_in_progress)
	{
		prev_shmem_request_hook = shmem_request_hook;
		shmem_request_hook = preload_request;
		prev_shmem_startup_hook = shmem_startup_hook;
		shmem_startup_hook = preload_startup;
	}
}
