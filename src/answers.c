/*-------------------------------------------------------------------------
 *
 * answers.c
 *	  The SQL functions that answer with a row: all that a leader, a candidate
 *	  or an observer wants to know.
 *
 * Floor: functions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "leader_election.h"

LE_FUNCTION(le_campaign);
LE_FUNCTION(le_keep_alive);
LE_FUNCTION(le_observe);

typedef struct RowColumn
{
	const char *name;
	Oid			type;
} RowColumn;

/* Return a row.  Its description is made once and kept in *desc. */
static Datum
row_return(TupleDesc *desc, const RowColumn *columns, int n_columns,
		   Datum *values, bool *nulls)
{
	if (*desc == NULL)
	{
		MemoryContext old_context = MemoryContextSwitchTo(TopMemoryContext);
		TupleDesc	new_desc = CreateTemplateTupleDesc(n_columns);

		for (int i = 0; i < n_columns; i++)
			TupleDescInitEntry(new_desc, i + 1, columns[i].name,
							   columns[i].type, -1, 0);
		compat_finalize(new_desc);
		*desc = BlessTupleDesc(new_desc);
		MemoryContextSwitchTo(old_context);
	}
	return HeapTupleGetDatum(heap_form_tuple(*desc, values, nulls));
}

/* From here to there, in milliseconds, and not less than nothing */
static int64
ms_until(TimestampTz now, TimestampTz then)
{
	return now < then ? (then - now + 999) / 1000 : 0;
}

/*
 * le_campaign(lock_id, instance, lease_ms DEFAULT 10000, wait_ms DEFAULT 0,
 * info DEFAULT NULL, priority DEFAULT 0) returns record
 *
 * lease_ms is 1 to 86400000, wait_ms 0 to 60000, priority 0 to 9, info has up
 * to 512 bytes.  Also raises 42501 if the caller's live term belongs to another
 * role, and 25001 inside a transaction block: where a term would begin there,
 * and in any case with a wait_ms.
 */
Datum
le_campaign(PG_FUNCTION_ARGS)
{
	enum
	{
		COL_ELECTED, COL_TOKEN, COL_VALID_FOR_MS, COL_LEADER_ID,
		COL_REMAINING_MS, COL_RESIGN_REQUESTED, N_COLS
	};
	static const RowColumn columns[N_COLS] = {
		{"elected", BOOLOID}, {"token", INT8OID}, {"valid_for_ms", INT8OID},
		{"leader_id", TEXTOID}, {"remaining_ms", INT8OID},
		{"resign_requested", BOOLOID}
	};
	static TupleDesc desc = NULL;
	Datum		values[N_COLS] = {0};
	bool		nulls[N_COLS] = {false};
	LeCaller	caller;
	LeBid		bid = {.as_it_is = true};
	LeAnswer	answer;
	int64		wait_ms;
	int			priority;
	int64		waited;

	le_arg_caller(fcinfo, &caller);
	bid.lease_ms = le_arg_ms(fcinfo, 2, "lease_ms", 1, LE_LEASE_MS_MAX);
	wait_ms = le_arg_ms(fcinfo, 3, "wait_ms", 0, LE_WAIT_MS_MAX);
	bid.info = le_arg_info(fcinfo, 4);
	priority = le_arg_priority(fcinfo, 5);
	le_arg_locate(fcinfo, &caller, "le_campaign()", true);

	le_campaign_run(&caller, &bid, priority, wait_ms, &answer, &waited);

	values[COL_ELECTED] = BoolGetDatum(answer.leads);
	values[COL_RESIGN_REQUESTED] = BoolGetDatum(answer.leads && answer.grant.resign);
	nulls[COL_TOKEN] = nulls[COL_VALID_FOR_MS] = !answer.leads;
	nulls[COL_REMAINING_MS] = answer.leads; /* no second deadline to confuse */
	if (answer.leads)
	{
		/* the client's clock may be the slower one by 1/12 */
		int64		counted = waited / 10 * 9;

		values[COL_TOKEN] = Int64GetDatum(answer.grant.token);
		values[COL_VALID_FOR_MS] =
			Int64GetDatum(answer.grant.lease_ms + counted / 1000);
		values[COL_LEADER_ID] = CStringGetTextDatum(caller.instance);
	}
	else
	{
		int64		remaining = ms_until(answer.now, answer.free_at);

		nulls[COL_LEADER_ID] = (answer.leader.token == 0);
		if (answer.leader.token != 0)
			values[COL_LEADER_ID] = CStringGetTextDatum(answer.leader.instance);
		values[COL_REMAINING_MS] =
			Int64GetDatum(answer.busy ? Max(remaining, 100) : remaining);
	}
	return row_return(&desc, columns, N_COLS, values, nulls);
}

/*
 * le_keep_alive(lock_id, instance, token) returns record
 *
 * Also raises 42501 if the lease belongs to another role.
 */
Datum
le_keep_alive(PG_FUNCTION_ARGS)
{
	enum
	{
		COL_LEADS, COL_VALID_FOR_MS, COL_RESIGN_REQUESTED, COL_WAITING, N_COLS
	};
	static const RowColumn columns[N_COLS] = {
		{"leads", BOOLOID}, {"valid_for_ms", INT8OID},
		{"resign_requested", BOOLOID}, {"waiting", BOOLOID}
	};
	static TupleDesc desc = NULL;
	Datum		values[N_COLS] = {0};
	bool		nulls[N_COLS] = {false};
	LeCaller	caller;
	LeGrant		grant;
	bool		leads;

	le_arg_caller(fcinfo, &caller);
	le_arg_own_token(fcinfo, &caller);
	le_arg_locate(fcinfo, &caller, "le_keep_alive()", true);

	leads = le_lease_renew(&caller, &grant);

	values[COL_LEADS] = BoolGetDatum(leads);
	nulls[COL_VALID_FOR_MS] = !leads;
	if (leads)
		values[COL_VALID_FOR_MS] = Int64GetDatum(grant.lease_ms);
	values[COL_RESIGN_REQUESTED] = BoolGetDatum(leads && grant.resign);
	values[COL_WAITING] = BoolGetDatum(leads && grant.awaited);
	return row_return(&desc, columns, N_COLS, values, nulls);
}

/*
 * le_observe(lock_id, known_token DEFAULT NULL, wait_ms DEFAULT 0) returns
 * record
 *
 * wait_ms is 0 to 60000.  Also raises 25001 with a wait_ms inside a transaction
 * block.
 */
Datum
le_observe(PG_FUNCTION_ARGS)
{
	enum
	{
		COL_LEADER_ID, COL_TOKEN, COL_REMAINING_MS, COL_STATE, COL_INFO, N_COLS
	};
	static const RowColumn columns[N_COLS] = {
		{"leader_id", TEXTOID}, {"token", INT8OID}, {"remaining_ms", INT8OID},
		{"state", TEXTOID}, {"info", TEXTOID}
	};
	static TupleDesc desc = NULL;
	Datum		values[N_COLS] = {0};
	bool		nulls[N_COLS] = {false};
	LeCaller	caller;
	LeState		state;
	LePhase		phase;
	TimestampTz free_at;
	int64		known_token;
	int64		wait_ms;
	bool		live;

	le_arg_lock(fcinfo, &caller);
	known_token = le_arg_known_token(fcinfo, 1);
	wait_ms = le_arg_ms(fcinfo, 2, "wait_ms", 0, LE_WAIT_MS_MAX);
	le_arg_locate(fcinfo, &caller, "le_observe()", false);

	le_campaign_observe(&caller, known_token, wait_ms, &state, &free_at);

	live = le_rule_live(&state, le_epoch_current());
	phase = state.found && !state.row.copied ?
		le_rule_phase(&state, le_epoch_current()) :
		state.now < free_at ? LE_PHASE_GRACE : LE_PHASE_VACANT;
	nulls[COL_LEADER_ID] = nulls[COL_TOKEN] = !live;
	nulls[COL_INFO] = !live || !state.row.has_info;
	if (live)
	{
		values[COL_LEADER_ID] = CStringGetTextDatum(state.row.leader_id);
		values[COL_TOKEN] = Int64GetDatum(state.row.token);
		if (state.row.has_info)
			values[COL_INFO] = CStringGetTextDatum(state.row.info);
	}
	values[COL_REMAINING_MS] = Int64GetDatum(ms_until(state.now, free_at));
	values[COL_STATE] = CStringGetTextDatum(le_phase_name(phase));
	return row_return(&desc, columns, N_COLS, values, nulls);
}
