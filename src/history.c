/*-------------------------------------------------------------------------
 *
 * history.c
 *	  The terms that have ended: a row of le_term each.
 *
 * Written in the transaction that ends the term, as le_lease is, without
 * executor and triggers.  History must not stop an election: if the table is
 * not as we have made it, or somebody has locked it, the row is left out.
 *
 * Floor: state.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_am.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "leader_election.h"

LE_FUNCTION(le_terms);

#define HISTORY_TABLE "le_term"

#define TRIM_BATCH 10000		/* rows deleted in one transaction: each batch
								 * reads the whole table */

/* settings */
int			le_history_retention = 604800;

/* the columns of le_term, in the install script's order */
enum
{
	Anum_lock_id = 1,
	Anum_instance,
	Anum_token,
	Anum_leader_role,
	Anum_lease_ms,
	Anum_began,
	Anum_ended,
	Anum_ended_how,
	Anum_ended_by,
	Anum_renewals,
	Anum_least_left_ms,
	Natts_le_term = Anum_least_left_ms
};

#define COLUMN(array, column) ((array)[Anum_##column - 1])

static const Oid column_types[Natts_le_term] =
{
	[Anum_lock_id - 1] = INT8OID,
	[Anum_instance - 1] = TEXTOID,
	[Anum_token - 1] = INT8OID,
	[Anum_leader_role - 1] = OIDOID,
	[Anum_lease_ms - 1] = INT8OID,
	[Anum_began - 1] = TIMESTAMPTZOID,
	[Anum_ended - 1] = TIMESTAMPTZOID,
	[Anum_ended_how - 1] = CHAROID,
	[Anum_ended_by - 1] = OIDOID,
	[Anum_renewals - 1] = INT8OID,
	[Anum_least_left_ms - 1] = INT8OID
};

static bool
column_is_nullable(AttrNumber column)
{
	return column == Anum_ended_by || column == Anum_renewals ||
		column == Anum_least_left_ms;
}

/* A plain index that no row can violate, on (lock_id, ended) */
static bool
index_is_plain(Oid indexid)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(indexid));
	Form_pg_index index;
	bool		plain;

	if (!HeapTupleIsValid(tuple))
		return false;
	index = (Form_pg_index) GETSTRUCT(tuple);
	plain = index->indnatts == 2 &&
		index->indkey.values[0] == Anum_lock_id &&
		index->indkey.values[1] == Anum_ended &&
		!index->indisunique && !index->indisexclusion &&
		heap_attisnull(tuple, Anum_pg_index_indpred, NULL);
	ReleaseSysCache(tuple);
	return plain;
}

/* Can we write it without the server's help, and without an error? */
static bool
table_is_ours(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	List	   *indexes;
	ListCell   *cell;
	bool		ours = rel->rd_rel->relkind == RELKIND_RELATION &&
	rel->rd_rel->relam == HEAP_TABLE_AM_OID &&
	rel->rd_rel->relpersistence == RELPERSISTENCE_PERMANENT &&
	desc->natts == Natts_le_term;

	/* a NULL in a column that is NOT NULL would crash whoever reads it */
	for (int i = 0; ours && i < Natts_le_term; i++)
		ours = TupleDescAttr(desc, i)->atttypid == column_types[i] &&
			!(column_is_nullable(i + 1) && TupleDescAttr(desc, i)->attnotnull);
	if (!ours)
		return false;

	indexes = RelationGetIndexList(rel);
	foreach(cell, indexes)
		ours = ours && index_is_plain(lfirst_oid(cell));
	list_free(indexes);
	return ours;
}

/*
 * Open le_term in the schema of le_lease; NULL if it is not there, not ours, or
 * locked by somebody who would have to be waited for.
 */
static Relation
history_open(Oid schema, LOCKMODE mode)
{
	Oid			relid = get_relname_relid(HISTORY_TABLE, schema);
	Relation	rel;

	if (!OidIsValid(relid) || !ConditionalLockRelationOid(relid, mode))
		return NULL;
	rel = try_relation_open(relid, NoLock); /* an index would be an error */
	if (rel == NULL)
		UnlockRelationOid(relid, mode);
	else if (!table_is_ours(rel))
	{
		relation_close(rel, mode);
		rel = NULL;
	}
	return rel;
}

/*
 * An insertion would wait for whoever has locked an index, as ALTER INDEX SET
 * TABLESPACE does without locking the table.
 */
static bool
history_lock_indexes(Relation history)
{
	List	   *indexes = RelationGetIndexList(history);
	ListCell   *cell;
	bool		locked = true;

	foreach(cell, indexes)
		locked = locked &&
		ConditionalLockRelationOid(lfirst_oid(cell), RowExclusiveLock);
	list_free(indexes);
	return locked;
}

static void
log_left_out(void)
{
	LeShared   *shared = le_shared_attach();
	bool		logged;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	logged = shared->no_history_logged;
	shared->no_history_logged = true;
	LWLockRelease(&shared->lock);
	if (!logged)
		ereport(LOG,
				(errmsg("a term of leadership is not in the history, because table \"%s\" is locked or not as leader_election %s has created it",
						HISTORY_TABLE, LE_VERSION),
				 errhint("Undo what was done to it, or use DROP EXTENSION and CREATE EXTENSION. This is logged once.")));
}

/*
 * The term of this row ends, or has ended by itself.  rel is le_lease; state
 * has been looked at after the mark; wall is the time by the wall's clock.
 *
 * When one has run out its entry knows, or the place that was reserved for it.
 * If both have been given to others it has ended at some time until now.  After
 * a restart there may have been none: then it lasted one lease from there.
 */
void
le_history_note(Relation rel, const LeState *state, LeChangeKind how,
				TimestampTz wall, const LeEpoch *epoch)
{
	const LeRow *row = &state->row;
	const LeEntry *entry = &state->entry;
	bool		beaten = (entry->token == row->token);
	bool		known = (row->epoch == epoch->id &&
						 (beaten || entry->reserved.token == row->token));
	Relation	history;
	Datum		values[Natts_le_term];
	bool		nulls[Natts_le_term] = {false};
	char		letter = 'e';

	if (le_history_retention == 0)
		return;
	history = history_open(RelationGetNamespace(rel), RowExclusiveLock);
	if (history != NULL && !history_lock_indexes(history))
	{
		table_close(history, RowExclusiveLock);
		history = NULL;
	}
	if (history == NULL)
	{
		log_left_out();
		return;
	}

	if (how == LE_RELEASED)
		letter = 'r';
	else if (how == LE_TRANSFERRED)
		letter = 't';
	else if (how == LE_REVOKED)
		letter = 'v';
	else if (known || (row->epoch != epoch->id &&
					   (beaten || !le_shared_attach()->over_dropped)))
		wall -= le_clock_now(epoch) - le_rule_end(state, epoch);

	COLUMN(values, lock_id) = Int64GetDatum(row->lock_id);
	COLUMN(values, instance) = CStringGetTextDatum(row->leader_id);
	COLUMN(values, token) = Int64GetDatum(row->token);
	COLUMN(values, leader_role) = ObjectIdGetDatum(row->leader_role);
	COLUMN(values, lease_ms) = Int64GetDatum(row->lease_ms);
	COLUMN(values, began) = TimestampTzGetDatum(row->created_at);
	COLUMN(values, ended) = TimestampTzGetDatum(wall);
	COLUMN(values, ended_how) = CharGetDatum(letter);
	COLUMN(values, ended_by) = ObjectIdGetDatum(GetUserId());
	COLUMN(nulls, ended_by) = (letter == 'e');

	/* a restart has lost what was before it, and memory may have run short */
	COLUMN(nulls, renewals) = !known;
	COLUMN(values, renewals) = Int64GetDatum(beaten ? entry->renewals : 0);
	COLUMN(nulls, least_left_ms) = !known || !beaten;
	COLUMN(values, least_left_ms) =
		Int64GetDatum(beaten ? entry->least_left / 1000 : 0);

	CatalogTupleInsert(history,
					   heap_form_tuple(RelationGetDescr(history), values, nulls));
	le_lock_table(RelationGetRelid(history));
	table_close(history, RowExclusiveLock);
}

/* ---------------------------------------------------------------------
 * Trimming
 * ---------------------------------------------------------------------
 */

typedef struct LeOldTerm
{
	TimestampTz ended;
	ItemPointerData tid;
} LeOldTerm;

static int
old_term_compare(const void *a, const void *b)
{
	TimestampTz left = ((const LeOldTerm *) a)->ended;
	TimestampTz right = ((const LeOldTerm *) b)->ended;

	return (left > right) - (left < right);
}

/*
 * Delete the terms that are older than history_retention, and the oldest of
 * more than LE_HISTORY_MAX, at most TRIM_BATCH at once.  Returns whether there
 * may be more.  For the sweeper: a row that somebody is just deleting is his.
 */
bool
le_history_trim(Oid lease_relid)
{
	TimestampTz keep_from = GetCurrentTimestamp() -
	le_history_retention * USECS_PER_SEC;
	Relation	history = history_open(get_rel_namespace(lease_relid),
									   RowExclusiveLock);
	SnapshotData snapshot;
	SysScanDesc scan;
	HeapTuple	tuple;
	int			size = 1024;
	int			used = 0;
	int			n_old = 0;
	LeOldTerm  *terms;

	if (history == NULL)
		return false;

	terms = palloc(size * sizeof(LeOldTerm));
	InitDirtySnapshot(snapshot);
	scan = systable_beginscan(history, InvalidOid, false, &snapshot, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		if (TransactionIdIsValid(snapshot.xmin) ||
			TransactionIdIsValid(snapshot.xmax))
			continue;			/* being written or deleted */
		if (used == size)
		{
			size *= 2;
			terms = repalloc_huge(terms, size * sizeof(LeOldTerm));
		}
		terms[used].ended =
			DatumGetTimestampTz(heap_getattr(tuple, Anum_ended,
											 RelationGetDescr(history),
											 &isnull));
		terms[used++].tid = tuple->t_self;
	}
	systable_endscan(scan);

	qsort(terms, used, sizeof(LeOldTerm), old_term_compare);
	while (n_old < used && (terms[n_old].ended < keep_from ||
							used - n_old > LE_HISTORY_MAX))
		n_old++;
	for (int i = 0; i < Min(n_old, TRIM_BATCH); i++)
	{
		CHECK_FOR_INTERRUPTS();
		CatalogTupleDelete(history, &terms[i].tid);
	}
	if (n_old > 0)
		le_lock_table(RelationGetRelid(history));
	table_close(history, RowExclusiveLock);
	pfree(terms);
	return n_old > TRIM_BATCH;
}

/* ---------------------------------------------------------------------
 * Showing
 * ---------------------------------------------------------------------
 */

static const char *
how_ended(char letter)
{
	switch (letter)
	{
		case 'r':
			return "released";
		case 't':
			return "transferred";
		case 'v':
			return "revoked";
		default:
			return "expired";
	}
}

/*
 * le_terms() returns setof record, the rows of the view leader_history
 *
 * As they are at this moment.  Not by the reader's snapshot, so that a
 * SERIALIZABLE one does not make an election fail.
 */
Datum
le_terms(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			lease_relid = le_table_of_function(fcinfo->flinfo->fn_oid);
	Oid			relid;
	Relation	history;
	SysScanDesc scan;
	HeapTuple	tuple;

	InitMaterializedSRF(fcinfo, 0);

	relid = get_relname_relid(HISTORY_TABLE, get_rel_namespace(lease_relid));
	history = OidIsValid(relid) ? try_relation_open(relid, AccessShareLock) : NULL;
	if (history == NULL || !table_is_ours(history))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is not as leader_election %s has created it",
						HISTORY_TABLE, LE_VERSION),
				 errhint("Undo what was done to it, or use DROP EXTENSION and CREATE EXTENSION.")));

	scan = systable_beginscan(history, InvalidOid, false, SnapshotSelf, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Datum		values[Natts_le_term];
		bool		nulls[Natts_le_term];

		CHECK_FOR_INTERRUPTS();
		heap_deform_tuple(tuple, RelationGetDescr(history), values, nulls);
		COLUMN(values, leader_role) =
			DirectFunctionCall1(pg_get_userbyid, COLUMN(values, leader_role));
		COLUMN(values, ended_how) =
			CStringGetTextDatum(how_ended(DatumGetChar(COLUMN(values, ended_how))));
		if (!COLUMN(nulls, ended_by))
			COLUMN(values, ended_by) =
				DirectFunctionCall1(pg_get_userbyid, COLUMN(values, ended_by));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	systable_endscan(scan);
	table_close(history, AccessShareLock);

	return (Datum) 0;
}
