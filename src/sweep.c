/*-------------------------------------------------------------------------
 *
 * sweep.c
 *	  Sweeping: delete the rows of leases that are over.
 *
 * Whoever sweeps looks first and locks later, so each row that seemed to be
 * over is read again under its lock; a lock that is busy is left alone.  And
 * forget the heartbeats of tables that are gone.
 *
 * Floor: protocol.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "miscadmin.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "compat.h"
#include "leader_election.h"

#define TABLES_MAX 64			/* of so many a sweep asks whether they are
								 * gone */

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
 * limit of them (0: all).  *rows is how many rows were looked at.
 */
int64 *
le_sweep_list(Oid relid, int64 expired_for_ms, int limit,
			  int *count, int64 *rows)
{
	const LeEpoch *epoch = le_epoch_current();
	Relation	rel = le_table_open(relid, AccessShareLock);
	LeKey		key = {.database = MyDatabaseId,.relation = relid};
	LeTableScan scan;
	LeState		state;
	int			size = 64;
	int			used = 0;
	int64	   *ids = palloc(size * sizeof(int64));
	bool		grace = le_token_grace_runs(rel, le_clock_now(epoch), epoch);

	*rows = 0;
	state.found = true;
	le_table_scan_begin(rel, &scan);
	while ((limit == 0 || used < limit) && le_table_scan_next(&scan, &state.row))
	{
		CHECK_FOR_INTERRUPTS();
		(*rows)++;
		key.lock_id = state.row.lock_id;
		state.now = le_clock_now(epoch);
		le_entry_copy(&key, &state.entry);
		/* within a grace a row is what an operator has vouched for */
		if (!le_rule_over(&state, expired_for_ms, epoch) || grace)
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
	Relation	rel = le_table_open(relid, RowExclusiveLock);
	LeKey		key = {.database = MyDatabaseId,.relation = relid};
	int			deleted = 0;

	for (int i = 0; i < count; i++)
	{
		LeState		state;

		CHECK_FOR_INTERRUPTS();
		key.lock_id = lock_ids[i];
		if (!le_lock_take(LE_LOCK_LEASE, key.lock_id, ExclusiveLock, false))
			continue;
		le_look(rel, &key, epoch, &state);
		if (le_rule_over(&state, expired_for_ms, epoch))
		{
			le_transition_sweep(rel, &key, &state, epoch);
			deleted++;
		}
		else
			le_lock_drop(LE_LOCK_LEASE, key.lock_id, ExclusiveLock);
	}
	table_close(rel, RowExclusiveLock);
	return deleted;
}

/* Is this table, or its database, gone for good? */
static bool
table_is_gone(const LeKey *key)
{
	LOCKTAG		tag;
	bool		gone;

	if (key->database != MyDatabaseId)
		return !SearchSysCacheExists1(DATABASEOID,
									  ObjectIdGetDatum(key->database));

	/* who is just creating it, or has not committed its drop, holds a lock */
	SET_LOCKTAG_RELATION(tag, key->database, key->relation);
	if (!compat_lock_try(&tag, AccessShareLock, false))
		return false;
	AcceptInvalidationMessages();
	gone = !SearchSysCacheExists1(RELOID, ObjectIdGetDatum(key->relation));
	LockRelease(&tag, AccessShareLock, false);
	return gone;
}

/*
 * Drop the entries of databases that are gone, and in this one of extensions
 * that are: they would keep their places to the end of their leases.
 *
 * Only in a transaction of the sweeper's own.  One that has dropped the
 * extension itself sees it gone, and may roll back: then its leaders' heartbeats
 * would be forgotten, and somebody else would lead as well.  For the same
 * reason the catalogs are looked at anew after the entries have been read: a
 * table that has heartbeats was committed before.
 */
void
le_sweep_drop_gone(void)
{
	LeKey		tables[TABLES_MAX];
	int			count = le_store_tables(tables, TABLES_MAX);

	AcceptInvalidationMessages();
	InvalidateCatalogSnapshot();
	for (int i = 0; i < count; i++)
	{
		if (table_is_gone(&tables[i]))
			le_store_drop_table(&tables[i]);
	}
}
