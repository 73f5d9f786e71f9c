/*-------------------------------------------------------------------------
 *
 * launch.c
 *	  Starting the sweeper.
 *
 * Whatever call finds that its database's sweep is due starts it.  The call
 * has other things to do: nothing here may fail or wait because of the sweeper.
 *
 * Floor: state.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "leader_election.h"

/*
 * May a sweeper be in the database?  DROP DATABASE and its like hold a lock on
 * it, and wait only seconds for everybody to leave.
 */
bool
le_launch_database_is_open(void)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID,
										ObjectIdGetDatum(MyDatabaseId));
	LOCKTAG		tag;
	bool		open;

	if (!HeapTupleIsValid(tuple))
		return false;
	open = ((Form_pg_database) GETSTRUCT(tuple))->datallowconn;
	ReleaseSysCache(tuple);
	if (!open)
		return false;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
	if (!compat_lock_try(&tag, RowExclusiveLock, true))
		return false;
	LockRelease(&tag, RowExclusiveLock, true);
	return true;
}

/* Has le_lease ever had a row?  Somebody who locks it is not waited for. */
static bool
table_was_used(Oid relid)
{
	LOCKTAG		tag;
	Relation	rel;
	bool		used = false;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	if (!compat_lock_try(&tag, AccessShareLock, false))
		return false;
	AcceptInvalidationMessages();
	rel = try_table_open(relid, NoLock);
	if (rel != NULL)
	{
		used = RelationGetNumberOfBlocks(rel) > 0;
		table_close(rel, NoLock);
	}
	LockRelease(&tag, AccessShareLock, false);
	return used;
}

static bool
sweeper_register(Oid relid, uint32 number)
{
	BackgroundWorker worker = {0};
	LeLaunch	launch = {.relation = relid,.number = number};

	StaticAssertStmt(sizeof(launch) <= BGW_EXTRALEN,
					 "what the worker is told must fit into its place");

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "leader_election", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "le_sweeper_main", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "leader_election sweeper", BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN,
			 "leader_election sweeper of database %u", MyDatabaseId);
	worker.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId);
	memcpy(worker.bgw_extra, &launch, sizeof(launch));

	return RegisterDynamicBackgroundWorker(&worker, NULL);
}

/*
 * The slow part of le_launch_poll(): start the sweeper if this database's sweep
 * is due and it could do its work.
 */
void
le_launch_look(Oid relid)
{
	LeShared   *shared = le_shared_attach();
	uint32		number;
	bool		known;
	bool		registered;
	bool		first;

	if (!le_sweeper || !IsUnderPostmaster)
	{
		le_schedule_at = DT_NOEND;
		return;
	}

	if (!le_schedule_is_due(relid, &known))
		return;

	/* before the claim, which must not be left behind */
	if (!le_launch_database_is_open() || !(known || table_was_used(relid)))
	{
		le_schedule_put_off(relid);
		return;
	}

	number = le_schedule_claim(relid);
	if (number == 0)
		return;
	registered = sweeper_register(relid, number);
	if (!registered)
		le_schedule_left(number);

	/* without, leases that are over are left lying, which harms nobody */
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
