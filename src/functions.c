/*-------------------------------------------------------------------------
 *
 * functions.c
 *	  The SQL functions: check the arguments, call, build the result.
 *
 * They run with the rights of their caller.  What each takes, returns and
 * raises stands in the install script's COMMENTs; in short, a NULL where a
 * value is needed is 22004, a value out of range 22023, a standby or a
 * read-only transaction 25006, and nothing is changed by any error.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_publication.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "leader_election.h"

PG_FUNCTION_INFO_V1(le_try_acquire);
PG_FUNCTION_INFO_V1(le_renew);
PG_FUNCTION_INFO_V1(le_release);
PG_FUNCTION_INFO_V1(le_is_leader);
PG_FUNCTION_INFO_V1(le_leader);
PG_FUNCTION_INFO_V1(le_token);
PG_FUNCTION_INFO_V1(le_sweep);
PG_FUNCTION_INFO_V1(le_info);
PG_FUNCTION_INFO_V1(le_leases);

/* ---------------------------------------------------------------------
 * Arguments
 * ---------------------------------------------------------------------
 */

static void
arg_check_null(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
}

/* A duration in milliseconds */
static int64
arg_ms(FunctionCallInfo fcinfo, int n, const char *name, int64 min)
{
	int64		value;

	arg_check_null(fcinfo, n, name);
	value = PG_GETARG_INT64(n);
	if (value < min || value > LE_LEASE_MS_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s " INT64_FORMAT " is outside the range " INT64_FORMAT " to " INT64_FORMAT,
						name, value, min, LE_LEASE_MS_MAX)));
	return value;
}

static const char *
arg_instance(FunctionCallInfo fcinfo, int n)
{
	text	   *value;
	int			length;

	arg_check_null(fcinfo, n, "instance");
	value = PG_GETARG_TEXT_PP(n);
	length = VARSIZE_ANY_EXHDR(value);
	if (length < 1 || length > LE_INSTANCE_MAX)
	{
		int			shown = pg_mbcliplen(VARDATA_ANY(value), length, 32);

		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("instance \"%.*s%s\" has %d bytes, which is outside the range 1 to %d",
						shown, VARDATA_ANY(value), shown < length ? "..." : "",
						length, LE_INSTANCE_MAX)));
	}
	return text_to_cstring(value);
}

/* lock_id, instance and token, in this order, as far as a function has them */
static void
caller_from_args(FunctionCallInfo fcinfo, LeCaller *caller)
{
	arg_check_null(fcinfo, 0, "lock_id");
	memset(caller, 0, sizeof(LeCaller));	/* padding of the key is hashed */
	caller->key.database = MyDatabaseId;
	caller->key.lock_id = PG_GETARG_INT64(0);
	caller->role = GetUserId();
	if (PG_NARGS() > 1)
		caller->instance = arg_instance(fcinfo, 1);
	caller->any_token = true;
}

/* the optional token of le_renew, le_release and le_is_leader */
static void
caller_token_from_args(FunctionCallInfo fcinfo, LeCaller *caller)
{
	caller->any_token = PG_ARGISNULL(2);
	if (!caller->any_token)
		caller->token = PG_GETARG_INT64(2);
}

/*
 * All arguments are fine, now look where we are: the functions that change
 * something need a transaction that may write, those that only ask need a
 * server that knows the answer.
 */
static void
caller_locate(FunctionCallInfo fcinfo, LeCaller *caller, const char *function,
			  bool writes)
{
	PreventCommandDuringRecovery(function);
	if (writes)
	{
		PreventCommandIfReadOnly(function);
		PreventCommandIfParallelMode(function);
	}
	caller->key.relation = table_of_function(fcinfo->flinfo->fn_oid);
}

/* ---------------------------------------------------------------------
 * Becoming, staying and ceasing to be the leader
 * ---------------------------------------------------------------------
 */

/*
 * le_try_acquire(lock_id, instance, lease_ms DEFAULT 10000) returns boolean
 *
 * lease_ms is 1 to 86400000.  Also raises 22023 for a lease_ms longer than
 * the caller's live term, 42501 if that belongs to another role, and 25001
 * where a term would begin inside a transaction block.
 */
Datum
le_try_acquire(PG_FUNCTION_ARGS)
{
	LeCaller	caller;
	int64		lease_ms;

	caller_from_args(fcinfo, &caller);
	lease_ms = arg_ms(fcinfo, 2, "lease_ms", 1);
	caller_locate(fcinfo, &caller, "le_try_acquire()", true);

	PG_RETURN_BOOL(lease_acquire(&caller, lease_ms));
}

/*
 * le_renew(lock_id, instance, token DEFAULT NULL) returns boolean
 *
 * Also raises 42501 if the lease belongs to another role.
 */
Datum
le_renew(PG_FUNCTION_ARGS)
{
	LeCaller	caller;

	caller_from_args(fcinfo, &caller);
	caller_token_from_args(fcinfo, &caller);
	caller_locate(fcinfo, &caller, "le_renew()", true);

	PG_RETURN_BOOL(lease_renew(&caller));
}

/*
 * le_release(lock_id, instance, token DEFAULT NULL) returns boolean
 *
 * Also raises 42501 if the lease belongs to another role.
 */
Datum
le_release(PG_FUNCTION_ARGS)
{
	LeCaller	caller;

	caller_from_args(fcinfo, &caller);
	caller_token_from_args(fcinfo, &caller);
	caller_locate(fcinfo, &caller, "le_release()", true);

	PG_RETURN_BOOL(lease_release(&caller));
}

/* ---------------------------------------------------------------------
 * Asking
 * ---------------------------------------------------------------------
 */

/* le_is_leader(lock_id, instance, token DEFAULT NULL) returns boolean */
Datum
le_is_leader(PG_FUNCTION_ARGS)
{
	LeCaller	caller;

	caller_from_args(fcinfo, &caller);
	caller_token_from_args(fcinfo, &caller);
	caller_locate(fcinfo, &caller, "le_is_leader()", false);

	PG_RETURN_BOOL(lease_is_held(&caller));
}

/* le_leader(lock_id) returns text */
Datum
le_leader(PG_FUNCTION_ARGS)
{
	LeCaller	caller;
	LeState		state;

	caller_from_args(fcinfo, &caller);
	caller_locate(fcinfo, &caller, "le_leader()", false);

	if (!lease_read(&caller, &state))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(state.row.leader_id));
}

/* le_token(lock_id, instance) returns bigint */
Datum
le_token(PG_FUNCTION_ARGS)
{
	LeCaller	caller;
	LeState		state;

	caller_from_args(fcinfo, &caller);
	caller_locate(fcinfo, &caller, "le_token()", false);

	if (!lease_read(&caller, &state) ||
		strcmp(state.row.leader_id, caller.instance) != 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(state.row.token);
}

/* ---------------------------------------------------------------------
 * Administration and monitoring
 * ---------------------------------------------------------------------
 */

/*
 * le_sweep(expired_for_ms DEFAULT 5000) returns bigint
 *
 * expired_for_ms is 0 to 86400000.  Also raises 42501 for a caller without
 * the rights of the table's owner.
 */
Datum
le_sweep(PG_FUNCTION_ARGS)
{
	LeCaller	caller;
	int64		expired_for_ms = arg_ms(fcinfo, 0, "expired_for_ms", 0);
	Relation	rel;
	Oid			owner;
	int64	   *lock_ids;
	int			count;
	int			deleted;
	bool		empty;

	caller_locate(fcinfo, &caller, "le_sweep()", true);

	rel = lease_table_open(caller.key.relation, AccessShareLock);
	owner = rel->rd_rel->relowner;
	table_close(rel, AccessShareLock);
	if (!has_privs_of_role(GetUserId(), owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must have the rights of the owner of table \"le_lease\" to sweep it")));

	lock_ids = lease_list_over(caller.key.relation, expired_for_ms,
							   LE_SWEEP_BATCH, &count, &empty);
	deleted = lease_delete_over(caller.key.relation, expired_for_ms,
								lock_ids, count);
	store_drop_over(clock_now(epoch_current()));

	PG_RETURN_INT64(deleted);
}

static const char *
phase_name(LePhase phase)
{
	switch (phase)
	{
		case LE_PHASE_LIVE:
			return "live";
		case LE_PHASE_GRACE:
			return "grace";
		case LE_PHASE_EXPIRED:
			return "expired";
	}
	pg_unreachable();
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
		COL_STATE, COL_LEADER_ROLE, N_COLS
	};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const LeEpoch *epoch = epoch_current();
	Relation	rel;
	int64	   *ids;
	int			count;

	InitMaterializedSRF(fcinfo, 0);

	rel = lease_table_open(table_of_function(fcinfo->flinfo->fn_oid),
						   AccessShareLock);
	ids = table_list(rel, &count);
	for (int i = 0; i < count; i++)
	{
		LeState		state;
		Datum		values[N_COLS];
		bool		nulls[N_COLS] = {false};

		CHECK_FOR_INTERRUPTS();
		if (!lease_inspect(rel, ids[i], epoch, &state))
			continue;

		values[COL_ID] = Int64GetDatum(state.row.lock_id);
		values[COL_LEADER_ID] = CStringGetTextDatum(state.row.leader_id);
		values[COL_CREATED_AT] = TimestampTzGetDatum(state.row.created_at);
		values[COL_TOKEN] = Int64GetDatum(state.row.token);
		values[COL_LEASE_MS] = Int64GetDatum(state.row.lease_ms);
		values[COL_LEADER_ROLE] =
			DirectFunctionCall1(pg_get_userbyid,
								ObjectIdGetDatum(state.row.leader_role));

		nulls[COL_EXPIRES_AT] = nulls[COL_REMAINING_MS] = (epoch == NULL);
		nulls[COL_RENEWED_AT] = nulls[COL_RENEWALS] = true;
		values[COL_STATE] = CStringGetTextDatum("standby");
		if (epoch != NULL)
		{
			TimestampTz end = lease_vacant_from(&state, state.row.timeline,
												epoch);
			int64		to_wall = GetCurrentTimestamp() - clock_now(epoch);

			values[COL_EXPIRES_AT] = TimestampTzGetDatum(end + to_wall);
			values[COL_REMAINING_MS] =
				Int64GetDatum(Max(end - state.now, 0) / 1000);
			values[COL_STATE] =
				CStringGetTextDatum(phase_name(lease_phase(&state, epoch)));

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
	table_close(rel, AccessShareLock);

	return (Datum) 0;
}

/* The pid of the sweeper's session, which is who holds its lock; 0: none */
static int
sweeper_pid(Oid relid)
{
	LockData   *locks = GetLockStatusData();
	LOCKTAG		tag;

	lock_tag(&tag, LE_LOCK_SWEEPER, relid);
	for (int i = 0; i < locks->nelements; i++)
	{
		LockInstanceData *lock = &locks->locks[i];

		if (memcmp(&lock->locktag, &tag, sizeof(LOCKTAG)) == 0 &&
			(lock->holdMask & LOCKBIT_ON(ExclusiveLock)) != 0)
			return lock->pid;
	}
	return 0;
}

/* The longest lease that is live now, in milliseconds */
static int64
longest_live_lease(Relation rel, const LeEpoch *epoch)
{
	int			count;
	int64	   *ids = table_list(rel, &count);
	int64		longest = 0;

	for (int i = 0; i < count; i++)
	{
		LeState		state;

		CHECK_FOR_INTERRUPTS();
		if (lease_inspect(rel, ids[i], epoch, &state) &&
			lease_live(&state, epoch))
			longest = Max(longest, state.row.lease_ms);
	}
	return longest;
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
		COL_SWEEPER_PID, COL_ENTRIES, COL_WARNINGS, N_COLS
	};
	const LeEpoch *epoch = epoch_current();
	Oid			relid = table_of_function(fcinfo->flinfo->fn_oid);
	Relation	rel = lease_table_open(relid, AccessShareLock);
	int			pid = sweeper_pid(relid);
	ArrayBuildState *warnings = initArrayResult(TEXTOID, CurrentMemoryContext,
												false);
	TupleDesc	tupdesc;
	Datum		values[N_COLS];
	bool		nulls[N_COLS] = {false};

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	if (epoch != NULL)
	{
		int64		longest = longest_live_lease(rel, epoch);

		if (le_promotion_grace < longest)
			warn(&warnings, psprintf("leader_election.promotion_grace (%d ms) is shorter than a live lease (" INT64_FORMAT " ms)",
									 le_promotion_grace, longest));
		if (le_sweeper && pid == 0 && shared_attach()->no_worker_slot)
			warn(&warnings, "no background worker slot was free for the sweeper, see max_worker_processes");
	}
	if (!le_sweeper)
		warn(&warnings, "leader_election.sweeper is off");
	if (!enableFsync)
		warn(&warnings, "fsync is off");
	if (GetRelationPublications(relid) != NIL ||
		GetAllTablesPublications() != NIL ||
		GetSchemaPublications(RelationGetNamespace(rel)) != NIL)
		warn(&warnings, "le_lease is in a publication");
	if (list_length(RelationGetIndexList(rel)) != 1)
		warn(&warnings, "le_lease has other indexes than its primary key");
	table_close(rel, AccessShareLock);

	values[COL_VERSION] = CStringGetTextDatum(LE_VERSION);
	nulls[COL_EPOCH] = nulls[COL_EPOCH_START] = nulls[COL_TIMELINE] =
		(epoch == NULL);
	if (epoch != NULL)
	{
		values[COL_EPOCH] = Int64GetDatum(epoch->id);
		values[COL_EPOCH_START] =
			TimestampTzGetDatum(epoch->start + GetCurrentTimestamp() -
								clock_now(epoch));
		values[COL_TIMELINE] = Int64GetDatum(epoch->timeline);
	}
	nulls[COL_SWEEPER_PID] = (pid == 0);
	values[COL_SWEEPER_PID] = Int32GetDatum(pid);
	values[COL_ENTRIES] = Int64GetDatum(store_count());
	values[COL_WARNINGS] = makeArrayResult(warnings, CurrentMemoryContext);

	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc),
													  values, nulls)));
}
