/*-------------------------------------------------------------------------
 *
 * lease_table.c
 *	  The rows of le_lease.
 *
 * Rows are read with SnapshotSelf, which sees what is committed now and what
 * this transaction has written, whatever the caller's snapshot.  It can miss
 * a row that is being updated, so a miss is believed only under the lock's
 * heavyweight lock.  Rows are written without executor, rules and triggers;
 * whoever else writes the table runs into le_shield().
 *
 * Floor: state.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_am.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "compat.h"
#include "leader_election.h"

/* the columns of le_lease, in the install script's order */
enum
{
	Anum_lock_id = 1,
	Anum_token,
	Anum_lease_ms,
	Anum_leader_role,
	Anum_database,
	Anum_lineage,
	Anum_epoch,
	Anum_expires_at,
	Anum_created_at,
	Anum_leader_id,
	Anum_state,
	Anum_info,
	Natts_le_lease = Anum_info
};

#define COLUMN(array, column) ((array)[Anum_##column - 1])

static const Oid column_types[Natts_le_lease] =
{
	[Anum_lock_id - 1] = INT8OID,
	[Anum_token - 1] = INT8OID,
	[Anum_lease_ms - 1] = INT8OID,
	[Anum_leader_role - 1] = OIDOID,
	[Anum_database - 1] = OIDOID,
	[Anum_lineage - 1] = INT8OID,
	[Anum_epoch - 1] = INT8OID,
	[Anum_expires_at - 1] = TIMESTAMPTZOID,
	[Anum_created_at - 1] = TIMESTAMPTZOID,
	[Anum_leader_id - 1] = TEXTOID,
	[Anum_state - 1] = CHAROID,
	[Anum_info - 1] = TEXTOID
};

/*
 * Find le_lease through the schema of one of our functions, so that neither
 * search_path nor a fixed schema matters.
 */
Oid
le_table_of_function(Oid funcid)
{
	Oid			schema = get_func_namespace(funcid);
	Oid			relid = InvalidOid;

	if (OidIsValid(schema))
		relid = get_relname_relid("le_lease", schema);
	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table \"le_lease\" does not exist in the schema of this function"),
				 errhint("Use DROP EXTENSION and CREATE EXTENSION to install leader_election anew.")));
	return relid;
}

/* Is it like the primary key: a plain index on lock_id and nothing else? */
static bool
index_is_plain(Oid indexid)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(indexid));
	Form_pg_index index;
	bool		plain;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for index %u", indexid);
	index = (Form_pg_index) GETSTRUCT(tuple);
	plain = index->indnatts == 1 &&
		index->indkey.values[0] == Anum_lock_id &&	/* 0: an expression */
		index->indimmediate &&
		!index->indisexclusion &&
		heap_attisnull(tuple, Anum_pg_index_indpred, NULL);
	ReleaseSysCache(tuple);
	return plain;
}

/* What is wrong with this table, or NULL */
static const char *
table_fault(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);

	if (rel->rd_rel->relkind != RELKIND_RELATION ||
		rel->rd_rel->relam != HEAP_TABLE_AM_OID)
		return "It is not a plain table.";
	if (rel->rd_rel->relpersistence != RELPERSISTENCE_PERMANENT)
		return "It would be empty after a crash.";
	if (desc->natts != Natts_le_lease)
		return "It has other columns.";
	for (int i = 0; i < Natts_le_lease; i++)
	{
		if (TupleDescAttr(desc, i)->atttypid != column_types[i])
			return "A column has another type.";
		if (i == Anum_info - 1 && TupleDescAttr(desc, i)->attnotnull)
			return "A column must not be NULL any more.";
	}
	if (!OidIsValid(compat_primary_key(rel)) ||
		!index_is_plain(compat_primary_key(rel)))
		return "Its primary key is another one.";
	return NULL;
}

/*
 * Open le_lease; NULL if it is gone.  We read and write its rows without the
 * server's help, so it must be the table that the install script has made:
 * one with a column of another type would crash the server.
 */
Relation
le_table_try_open(Oid relid, LOCKMODE mode)
{
	Relation	rel = try_table_open(relid, mode);
	const char *fault = rel != NULL ? table_fault(rel) : NULL;

	if (fault != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is not as leader_election %s has created it",
						RelationGetRelationName(rel), LE_VERSION),
				 errdetail_internal("%s", fault),
				 errhint("Undo what was done to it, or use DROP EXTENSION and CREATE EXTENSION.")));
	return rel;
}

/* Open le_lease, which must be there. */
Relation
le_table_open(Oid relid, LOCKMODE mode)
{
	Relation	rel = le_table_try_open(relid, mode);

	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the extension leader_election has been dropped")));
	return rel;
}

/*
 * Are there no indexes but the primary key?  REINDEX CONCURRENTLY has a second
 * one like it for a while, and for longer if it was cancelled.
 */
bool
le_table_indexes_are_plain(Relation rel)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *cell;
	bool		plain = true;

	foreach(cell, indexes)
		plain = plain && index_is_plain(lfirst_oid(cell));
	list_free(indexes);
	return plain;
}

/*
 * CatalogTupleInsert() and CatalogTupleUpdate() know plain indexes only, and
 * an index on an expression would run its author's code with the rights of
 * whoever takes the lease.
 */
static void
table_check_indexes(Relation rel)
{
	if (!le_table_indexes_are_plain(rel))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" must have its primary key as its only index",
						RelationGetRelationName(rel)),
				 errhint("Drop the indexes that were added to the table.")));
}

static void
row_from_tuple(Relation rel, HeapTuple tuple, LeRow *row)
{
	Datum		values[Natts_le_lease];
	bool		nulls[Natts_le_lease];
	TransactionId xmin = HeapTupleHeaderGetXmin(tuple->t_data);

	heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
	for (int i = 0; i < Natts_le_lease; i++)
	{
		if (nulls[i] && i != Anum_info - 1)
			elog(ERROR, "unexpected null in column %d of table \"%s\"",
				 i + 1, RelationGetRelationName(rel));
	}

	row->lock_id = DatumGetInt64(COLUMN(values, lock_id));
	row->token = DatumGetInt64(COLUMN(values, token));
	row->lease_ms = DatumGetInt64(COLUMN(values, lease_ms));
	row->leader_role = DatumGetObjectId(COLUMN(values, leader_role));
	row->lineage = DatumGetInt64(COLUMN(values, lineage));
	row->epoch = DatumGetInt64(COLUMN(values, epoch));
	row->expires_at = DatumGetTimestampTz(COLUMN(values, expires_at));
	row->created_at = DatumGetTimestampTz(COLUMN(values, created_at));
	text_to_cstring_buffer(DatumGetTextPP(COLUMN(values, leader_id)),
						   row->leader_id, sizeof(row->leader_id));
	row->state = DatumGetChar(COLUMN(values, state));
	row->has_info = !COLUMN(nulls, info);
	if (row->has_info)
		text_to_cstring_buffer(DatumGetTextPP(COLUMN(values, info)),
							   row->info, sizeof(row->info));
	row->tid = tuple->t_self;
	row->own = TransactionIdIsCurrentTransactionId(xmin);
	row->copied = DatumGetObjectId(COLUMN(values, database)) != MyDatabaseId;
}

/* Read the row of a lock.  False if there is none to be seen. */
bool
le_table_read(Relation rel, int64 lock_id, LeRow *row)
{
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_lock_id, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(lock_id));
	scan = systable_beginscan(rel, compat_primary_key(rel), true,
							  SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		row_from_tuple(rel, tuple, row);
	systable_endscan(scan);
	return HeapTupleIsValid(tuple);
}

/*
 * Scan all rows, those of transactions in progress too: whoever looks whether
 * the table is empty must not miss a term that is about to be committed.  The
 * rows are candidates; each must be read again under its lock.
 */
void
le_table_scan_begin(Relation rel, LeTableScan *scan)
{
	InitDirtySnapshot(scan->snapshot);
	scan->rel = rel;
	scan->desc = systable_beginscan(rel, InvalidOid, false, &scan->snapshot,
									0, NULL);
}

bool
le_table_scan_next(LeTableScan *scan, LeRow *row)
{
	HeapTuple	tuple = systable_getnext(scan->desc);

	if (!HeapTupleIsValid(tuple))
		return false;
	row_from_tuple(scan->rel, tuple, row);
	return true;
}

void
le_table_scan_end(LeTableScan *scan)
{
	systable_endscan(scan->desc);
}

static int
lock_id_compare(const void *a, const void *b)
{
	int64		left = *(const int64 *) a;
	int64		right = *(const int64 *) b;

	return (left > right) - (left < right);
}

/*
 * The ids of all locks that have or had a row.  Every tuple counts, dead ones
 * too, because a scan that judges them could miss a row that is being moved
 * by an update; the caller reads each lock by itself.
 */
int64 *
le_table_list(Relation rel, int *count)
{
	SysScanDesc scan;
	HeapTuple	tuple;
	int			size = 64;
	int			used = 0;
	int			unique = 0;
	int64	   *ids = palloc(size * sizeof(int64));

	scan = systable_beginscan(rel, InvalidOid, false, SnapshotAny, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		if (used == size)
		{
			size *= 2;
			ids = repalloc_huge(ids, size * sizeof(int64));
		}
		ids[used++] = DatumGetInt64(heap_getattr(tuple, Anum_lock_id,
												 RelationGetDescr(rel),
												 &isnull));
	}
	systable_endscan(scan);

	qsort(ids, used, sizeof(int64), lock_id_compare);
	for (int i = 0; i < used; i++)
	{
		if (unique == 0 || ids[i] != ids[unique - 1])
			ids[unique++] = ids[i];
	}
	*count = unique;
	return ids;
}

static HeapTuple
tuple_from_row(Relation rel, const LeRow *row)
{
	Datum		values[Natts_le_lease];
	bool		nulls[Natts_le_lease] = {false};

	COLUMN(values, lock_id) = Int64GetDatum(row->lock_id);
	COLUMN(values, token) = Int64GetDatum(row->token);
	COLUMN(values, lease_ms) = Int64GetDatum(row->lease_ms);
	COLUMN(values, leader_role) = ObjectIdGetDatum(row->leader_role);
	COLUMN(values, database) = ObjectIdGetDatum(MyDatabaseId);
	COLUMN(values, lineage) = Int64GetDatum(row->lineage);
	COLUMN(values, epoch) = Int64GetDatum(row->epoch);
	COLUMN(values, expires_at) = TimestampTzGetDatum(row->expires_at);
	COLUMN(values, created_at) = TimestampTzGetDatum(row->created_at);
	COLUMN(values, leader_id) = CStringGetTextDatum(row->leader_id);
	COLUMN(values, state) = CharGetDatum(row->state);
	COLUMN(nulls, info) = !row->has_info;
	if (row->has_info)
		COLUMN(values, info) = CStringGetTextDatum(row->info);

	return heap_form_tuple(RelationGetDescr(rel), values, nulls);
}

/*
 * After a write: make it visible to what follows in this transaction, and
 * keep the table locked to its end, though the caller closes it.
 */
static void
table_wrote(Relation rel)
{
	CommandCounterIncrement();
	le_lock_table(RelationGetRelid(rel));
}

void
le_table_insert(Relation rel, const LeRow *row)
{
	Assert(le_lock_held(LE_LOCK_LEASE, row->lock_id, ExclusiveLock));

	table_check_indexes(rel);
	CatalogTupleInsert(rel, tuple_from_row(rel, row));
	table_wrote(rel);
}

void
le_table_update(Relation rel, const LeRow *row)
{
	ItemPointerData tid = row->tid;

	Assert(le_lock_held(LE_LOCK_LEASE, row->lock_id, ExclusiveLock));

	table_check_indexes(rel);
	CatalogTupleUpdate(rel, &tid, tuple_from_row(rel, row));
	table_wrote(rel);
}

void
le_table_delete(Relation rel, const LeRow *row)
{
	ItemPointerData tid = row->tid;

	Assert(le_lock_held(LE_LOCK_LEASE, row->lock_id, ExclusiveLock));

	CatalogTupleDelete(rel, &tid);
	table_wrote(rel);
}
