/*-------------------------------------------------------------------------
 *
 * args.c
 *	  The arguments that SQL functions have in common, and where they may run.
 *
 * Floor: functions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "compat.h"
#include "leader_election.h"

void
le_arg_check_null(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
}

/* As PreventCommandDuringRecovery(), and what to do about it */
void
le_check_primary(const char *function)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot execute %s during recovery", function),
				 errhint("Leaders are elected on the primary. Connect to it, for example with all hosts and target_session_attrs=read-write.")));
}

static void
check_range(const char *name, int64 value, int64 min, int64 max)
{
	if (value < min || value > max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s " INT64_FORMAT " is outside the range " INT64_FORMAT " to " INT64_FORMAT,
						name, value, min, max)));
}

/* A duration in milliseconds */
int64
le_arg_ms(FunctionCallInfo fcinfo, int n, const char *name, int64 min,
		  int64 max)
{
	le_arg_check_null(fcinfo, n, name);
	check_range(name, PG_GETARG_INT64(n), min, max);
	return PG_GETARG_INT64(n);
}

int
le_arg_priority(FunctionCallInfo fcinfo, int n)
{
	le_arg_check_null(fcinfo, n, "priority");
	check_range("priority", PG_GETARG_INT32(n), 0, LE_PRIORITY_MAX);
	return PG_GETARG_INT32(n);
}

/* What a leader tells of itself, or NULL */
const char *
le_arg_info(FunctionCallInfo fcinfo, int n)
{
	text	   *value;

	if (PG_ARGISNULL(n))
		return NULL;
	value = PG_GETARG_TEXT_PP(n);
	if (VARSIZE_ANY_EXHDR(value) > LE_INFO_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("info has %d bytes, which is outside the range 0 to %d",
						(int) VARSIZE_ANY_EXHDR(value), LE_INFO_MAX)));
	return text_to_cstring(value);
}

const char *
le_arg_instance(FunctionCallInfo fcinfo, int n, const char *name)
{
	text	   *value;
	int			length;

	le_arg_check_null(fcinfo, n, name);
	value = PG_GETARG_TEXT_PP(n);
	length = VARSIZE_ANY_EXHDR(value);
	if (length < 1 || length > LE_INSTANCE_MAX)
	{
		int			shown = pg_mbcliplen(VARDATA_ANY(value), length, 32);

		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s \"%s%s\" has %d bytes, which is outside the range 1 to %d",
						name,
						le_printable(pnstrdup(VARDATA_ANY(value), shown)),
						shown < length ? "..." : "",
						length, LE_INSTANCE_MAX)));
	}
	return text_to_cstring(value);
}

/* The lock, which is always the first argument */
void
le_arg_lock(FunctionCallInfo fcinfo, LeCaller *caller)
{
	le_arg_check_null(fcinfo, 0, "lock_id");
	memset(caller, 0, sizeof(LeCaller));	/* padding of the key is hashed */
	caller->key.database = MyDatabaseId;
	caller->key.lock_id = PG_GETARG_INT64(0);
	caller->role = GetUserId();
	caller->token = LE_TOKEN_ANY;
}

/* The lock, and the name of who calls, which is always the second one */
void
le_arg_caller(FunctionCallInfo fcinfo, LeCaller *caller)
{
	le_arg_lock(fcinfo, caller);
	caller->instance = le_arg_instance(fcinfo, 1, "instance");
}

static void
refuse_token(int64 token, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("token " INT64_FORMAT " is outside the range 1 to " INT64_FORMAT,
					token, PG_INT64_MAX),
			 errhint("%s", hint)));
}

/*
 * The optional token, which is always the third argument.  Its default, any
 * term, is a value that nobody has by accident: a client that has lost its
 * variable must not lose its protection.
 */
void
le_arg_token(FunctionCallInfo fcinfo, LeCaller *caller)
{
	le_arg_check_null(fcinfo, 2, "token");
	caller->token = PG_GETARG_INT64(2);
	if (caller->token != LE_TOKEN_ANY && caller->token <= 0)
		refuse_token(caller->token,
					 "Pass the token that le_token() has told, or leave the argument out for any term.");
}

/* The last token that an observer knows of; 0 for NULL, that nobody leads */
int64
le_arg_known_token(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		return 0;
	if (PG_GETARG_INT64(n) <= 0)
		refuse_token(PG_GETARG_INT64(n),
					 "Pass the token that le_observe() has told, or NULL to wait for any leader.");
	return PG_GETARG_INT64(n);
}

/* The same where only a certain term will do */
void
le_arg_own_token(FunctionCallInfo fcinfo, LeCaller *caller)
{
	le_arg_check_null(fcinfo, 2, "token");
	caller->token = PG_GETARG_INT64(2);
	if (caller->token <= 0)
		refuse_token(caller->token,
					 "Pass the token that le_campaign() or le_token() has told.");
}

/*
 * All arguments are fine, now look where we are: the functions that change
 * something need a transaction that may write, those that only ask need a
 * server that knows the answer.
 */
void
le_arg_locate(FunctionCallInfo fcinfo, LeCaller *caller, const char *function,
			  bool writes)
{
	caller->function = function;
	le_check_primary(function);
	if (writes)
	{
		PreventCommandIfReadOnly(function);
		PreventCommandIfParallelMode(function);
	}
	caller->key.relation = le_table_of_function(fcinfo->flinfo->fn_oid);
}
