/*-------------------------------------------------------------------------
 *
 * monitor.c
 *	  What people look at: the rows of the view leader_lease, and le_info().
 *
 * Both answer on a standby too, where there is no epoch.
 *
 * Floor: functions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/pg_publication.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "leader_election.h"

LE_FUNCTION(le_leases);
LE_FUNCTION(le_waiters);
LE_FUNCTION(le_info);

/* What an entry takes of the shared memory, about, in bytes */
#define ENTRY_SIZE 300

/* Read the row of a lock for the view, on a standby too (no epoch there). */
static bool
inspect(Relation rel, int64 lock_id, const LeEpoch *epoch, LeState *state)
{
	LeKey		key = {MyDatabaseId, RelationGetRelid(rel), lock_id};

	if (epoch != NULL)
	{
		le_look_hard(rel, &key, epoch, state);
		return state->found;
	}
	return le_table_read(rel, lock_id, &state->row) ||
		le_table_read(rel, lock_id, &state->row);
}

/*
 * le_leases() returns setof record, the rows of the view leader_lease
 *
 * Times are translated from the lease clock to wall time, which is what
 * people and their dashboards use.
 */
Datum
le_leases(PG_FUNCTION_ARGS)
{
	enum
	{
		COL_ID, COL_LEADER_ID, COL_EXPIRES_AT, COL_CREATED_AT, COL_TOKEN,
		COL_LEASE_MS, COL_REMAINING_MS, COL_RENEWED_AT, COL_RENEWALS,
		COL_STATE, COL_LEADER_ROLE, COL_INFO, N_COLS
	};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const LeEpoch *epoch = le_epoch_current();
	MemoryContext row_context;
	MemoryContext old_context;
	Relation	rel;
	int64	   *ids;
	int			count;

	InitMaterializedSRF(fcinfo, 0);

	rel = le_table_open(le_table_of_function(fcinfo->flinfo->fn_oid),
						AccessShareLock);
	ids = le_table_list(rel, &count);
	row_context = AllocSetContextCreate(CurrentMemoryContext, "le_leases row",
										ALLOCSET_SMALL_SIZES);
	old_context = MemoryContextSwitchTo(row_context);
	for (int i = 0; i < count; i++)
	{
		LeState		state;
		Datum		values[N_COLS];
		bool		nulls[N_COLS] = {false};

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(row_context);
		if (!inspect(rel, ids[i], epoch, &state) || state.row.copied)
			continue;

		values[COL_ID] = Int64GetDatum(state.row.lock_id);
		values[COL_LEADER_ID] = CStringGetTextDatum(state.row.leader_id);
		values[COL_CREATED_AT] = TimestampTzGetDatum(state.row.created_at);
		values[COL_TOKEN] = Int64GetDatum(state.row.token);
		values[COL_LEASE_MS] = Int64GetDatum(state.row.lease_ms);
		values[COL_LEADER_ROLE] =
			DirectFunctionCall1(pg_get_userbyid,
								ObjectIdGetDatum(state.row.leader_role));

		nulls[COL_INFO] = !state.row.has_info;
		if (state.row.has_info)
			values[COL_INFO] = CStringGetTextDatum(state.row.info);
		nulls[COL_EXPIRES_AT] = nulls[COL_REMAINING_MS] = (epoch == NULL);
		nulls[COL_RENEWED_AT] = nulls[COL_RENEWALS] = true;
		values[COL_STATE] = CStringGetTextDatum("standby");
		if (epoch != NULL)
		{
			TimestampTz end = le_rule_shown_end(&state, epoch);
			int64		to_wall = GetCurrentTimestamp() - le_clock_now(epoch);

			values[COL_EXPIRES_AT] = TimestampTzGetDatum(end + to_wall);
			values[COL_REMAINING_MS] =
				Int64GetDatum(Max(end - state.now, 0) / 1000);
			values[COL_STATE] =
				CStringGetTextDatum(le_phase_name(le_rule_phase(&state, epoch)));

			nulls[COL_RENEWALS] = false;
			values[COL_RENEWALS] = Int64GetDatum(0);
			if (state.entry.token == state.row.token)
			{
				nulls[COL_RENEWED_AT] = false;
				values[COL_RENEWED_AT] =
					TimestampTzGetDatum(state.entry.renewed_at + to_wall);
				values[COL_RENEWALS] = Int64GetDatum(state.entry.renewals);
			}
		}
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	MemoryContextSwitchTo(old_context);
	table_close(rel, AccessShareLock);

	return (Datum) 0;
}

/*
 * le_waiters() returns setof record, the rows of the view leader_waiting
 */
Datum
le_waiters(PG_FUNCTION_ARGS)
{
	enum
	{
		COL_LOCK_ID, COL_INSTANCE, COL_SINCE, COL_PRIORITY, COL_PID, N_COLS
	};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const LeEpoch *epoch = le_epoch_current();
	LePlace    *list;
	TimestampTz now;
	int64		to_wall;
	int			count;

	InitMaterializedSRF(fcinfo, 0);
	if (epoch == NULL)
		return (Datum) 0;		/* nobody waits on a standby */

	now = le_clock_now(epoch);
	to_wall = GetCurrentTimestamp() - now;
	list = le_waiters_list(le_table_of_function(fcinfo->flinfo->fn_oid), now,
						   &count);
	for (int i = 0; i < count; i++)
	{
		Datum		values[N_COLS];
		bool		nulls[N_COLS] = {false};

		values[COL_LOCK_ID] = Int64GetDatum(list[i].key.lock_id);
		values[COL_INSTANCE] = CStringGetTextDatum(list[i].instance);
		values[COL_SINCE] = TimestampTzGetDatum(list[i].since + to_wall);
		values[COL_PRIORITY] = Int32GetDatum(list[i].priority);
		values[COL_PID] = Int32GetDatum(list[i].pid);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * The longest lease that is live now, in milliseconds; on a standby, which
 * cannot tell, of all that might be.
 */
static int64
longest_lease(Relation rel, const LeEpoch *epoch)
{
	int			count;
	int64	   *ids = le_table_list(rel, &count);
	int64		longest = 0;

	for (int i = 0; i < count; i++)
	{
		LeState		state;

		CHECK_FOR_INTERRUPTS();
		if (inspect(rel, ids[i], epoch, &state) &&
			!state.row.copied &&
			(epoch == NULL || le_rule_live(&state, epoch)))
			longest = Max(longest, state.row.lease_ms);
	}
	return longest;
}

/*
 * How long does a promotion's grace still keep the locks of this database
 * from everybody, in milliseconds?
 */
static int64
grace_remaining(Relation rel, const LeEpoch *epoch)
{
	LeState		state = {.found = false};
	TimestampTz end = le_rule_vacant_from(&state, le_token_known_lineage(rel),
										  NULL, epoch);
	TimestampTz now = le_clock_now(epoch);

	return now < end ? (end - now) / 1000 : 0;
}

static void
warn(ArrayBuildState **warnings, char *message)
{
	*warnings = accumArrayResult(*warnings, CStringGetTextDatum(message),
								 false, TEXTOID, CurrentMemoryContext);
}

/*
 * le_info() returns record: what an administrator wants to know at a glance
 */
Datum
le_info(PG_FUNCTION_ARGS)
{
	enum
	{
		COL_VERSION, COL_EPOCH, COL_EPOCH_START, COL_TIMELINE,
		COL_GRACE_REMAINING_MS, COL_LAST_SWEEP, COL_ENTRIES, COL_WARNINGS,
		N_COLS
	};
	const LeEpoch *epoch = le_epoch_current();
	Oid			relid = le_table_of_function(fcinfo->flinfo->fn_oid);
	Relation	rel = le_table_open(relid, AccessShareLock);
	int64		entries = le_store_count();
	int64		longest;
	TimestampTz swept_at = 0;
	ArrayBuildState *warnings = initArrayResult(TEXTOID, CurrentMemoryContext,
												false);
	TupleDesc	tupdesc;
	Datum		values[N_COLS];
	bool		nulls[N_COLS] = {false};

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	longest = longest_lease(rel, epoch);
	if (le_promotion_grace < longest)
		warn(&warnings, psprintf("leader_election.promotion_grace (%d ms) is shorter than a lease (" INT64_FORMAT " ms)",
								 le_promotion_grace, longest));
	if (epoch != NULL && le_sweeper &&
		le_shared_attach()->no_worker_slot)
		warn(&warnings, "no background worker slot was free for the sweeper, see max_worker_processes");
	if (entries * ENTRY_SIZE > le_memory_limit * INT64CONST(1024) / 100 * 80)
		warn(&warnings, psprintf("heartbeats fill more than 80 %% of leader_election.memory_limit (%d kB)",
								 le_memory_limit));
	if (!le_sweeper)
		warn(&warnings, "leader_election.sweeper is off");
	if (!enableFsync)
		warn(&warnings, "fsync is off");
	if (compat_is_published(relid) ||
		GetSchemaPublications(RelationGetNamespace(rel)) != NIL)
		warn(&warnings, "le_lease is in a publication");
	if (compat_sequences_are_published())
		warn(&warnings, "le_token_seq and le_lineage_seq are in a publication");
	if (!le_table_indexes_are_plain(rel))
		warn(&warnings, "le_lease has other indexes than its primary key");
	if (!le_shield_is_on(rel))
		warn(&warnings, "le_lease has lost the triggers that keep it from being changed by hand or by replication: ENABLE ALWAYS TRIGGER le_shield and le_shield_truncate");

	values[COL_VERSION] = CStringGetTextDatum(LE_VERSION);
	nulls[COL_EPOCH] = nulls[COL_EPOCH_START] = nulls[COL_TIMELINE] =
		nulls[COL_GRACE_REMAINING_MS] = (epoch == NULL);
	if (epoch != NULL)
	{
		int64		to_wall = GetCurrentTimestamp() - le_clock_now(epoch);

		values[COL_EPOCH] = Int64GetDatum(epoch->id);
		values[COL_EPOCH_START] = TimestampTzGetDatum(epoch->start + to_wall);
		swept_at = le_schedule_swept_at(relid);
		values[COL_LAST_SWEEP] = TimestampTzGetDatum(swept_at + to_wall);
		values[COL_TIMELINE] = Int64GetDatum(epoch->timeline);
		values[COL_GRACE_REMAINING_MS] =
			Int64GetDatum(grace_remaining(rel, epoch));
	}
	nulls[COL_LAST_SWEEP] = (swept_at == 0);
	values[COL_ENTRIES] = Int64GetDatum(entries);
	values[COL_WARNINGS] = makeArrayResult(warnings, CurrentMemoryContext);
	table_close(rel, AccessShareLock);

	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc),
													  values, nulls)));
}
