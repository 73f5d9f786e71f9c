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
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "compat.h"
#include "leader_election.h"

LE_FUNCTION(le_try_acquire);
LE_FUNCTION(le_renew);
LE_FUNCTION(le_release);
LE_FUNCTION(le_is_leader);
LE_FUNCTION(le_leader);
LE_FUNCTION(le_token);
LE_FUNCTION(le_guard);
LE_FUNCTION(le_sweep);

/* ---------------------------------------------------------------------
 * Arguments
 * ---------------------------------------------------------------------
 */

void
le_arg_check_null(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
}

/*
 * A string as a message may show it, whoever it comes from.  A message that the
 * client's encoding cannot express would be replaced by an error about that,
 * and its SQLSTATE be lost: so unless the bytes go to the client as they are,
 * only those stay that no conversion can fail on.
 */
char *
le_printable(const char *string)
{
	char	   *shown = pstrdup(string != NULL ? string : "???");	/* it is gone */

	if (GetDatabaseEncoding() == PG_SQL_ASCII ||
		GetDatabaseEncoding() != pg_get_client_encoding())
	{
		for (char *c = shown; *c != '\0'; c++)
		{
			if (*c < ' ' || *c > '~')
				*c = '?';
		}
	}
	return shown;
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

/* A duration in milliseconds */
static int64
arg_ms(FunctionCallInfo fcinfo, int n, const char *name, int64 min)
{
	int64		value;

	le_arg_check_null(fcinfo, n, name);
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

	le_arg_check_null(fcinfo, n, "instance");
	value = PG_GETARG_TEXT_PP(n);
	length = VARSIZE_ANY_EXHDR(value);
	if (length < 1 || length > LE_INSTANCE_MAX)
	{
		int			shown = pg_mbcliplen(VARDATA_ANY(value), length, 32);

		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("instance \"%s%s\" has %d bytes, which is outside the range 1 to %d",
						le_printable(pnstrdup(VARDATA_ANY(value), shown)),
						shown < length ? "..." : "",
						length, LE_INSTANCE_MAX)));
	}
	return text_to_cstring(value);
}

/* lock_id, instance and token, in this order, as far as a function has them */
static void
caller_from_args(FunctionCallInfo fcinfo, LeCaller *caller)
{
	le_arg_check_null(fcinfo, 0, "lock_id");
	memset(caller, 0, sizeof(LeCaller));	/* padding of the key is hashed */
	caller->key.database = MyDatabaseId;
	caller->key.lock_id = PG_GETARG_INT64(0);
	caller->role = GetUserId();
	if (PG_NARGS() > 1)
		caller->instance = arg_instance(fcinfo, 1);
	caller->any_token = true;
}

/*
 * The optional token, which is always the third argument.  Its default, any
 * term, is a value that nobody has by accident: a client that has lost its
 * variable must not lose its protection.
 */
static void
caller_token_from_args(FunctionCallInfo fcinfo, LeCaller *caller)
{
	le_arg_check_null(fcinfo, 2, "token");
	caller->token = PG_GETARG_INT64(2);
	caller->any_token = (caller->token == LE_TOKEN_ANY);
	if (!caller->any_token && caller->token <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("token " INT64_FORMAT " is outside the range 1 to " INT64_FORMAT,
						caller->token, PG_INT64_MAX),
				 errhint("Pass the token that le_token() has told, or leave the argument out for any term.")));
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
	le_check_primary(function);
	if (writes)
	{
		PreventCommandIfReadOnly(function);
		PreventCommandIfParallelMode(function);
	}
	caller->key.relation = le_table_of_function(fcinfo->flinfo->fn_oid);
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

	PG_RETURN_BOOL(le_lease_acquire(&caller, lease_ms));
}

/*
 * le_renew(lock_id, instance, token DEFAULT any) returns boolean
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

	PG_RETURN_BOOL(le_lease_renew(&caller));
}

/*
 * le_release(lock_id, instance, token DEFAULT any) returns boolean
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

	PG_RETURN_BOOL(le_lease_release(&caller));
}

/* ---------------------------------------------------------------------
 * Asking
 * ---------------------------------------------------------------------
 */

/* le_is_leader(lock_id, instance, token DEFAULT any) returns boolean */
Datum
le_is_leader(PG_FUNCTION_ARGS)
{
	LeCaller	caller;

	caller_from_args(fcinfo, &caller);
	caller_token_from_args(fcinfo, &caller);
	caller_locate(fcinfo, &caller, "le_is_leader()", false);

	PG_RETURN_BOOL(le_lease_is_held(&caller));
}

/* le_leader(lock_id) returns text */
Datum
le_leader(PG_FUNCTION_ARGS)
{
	LeCaller	caller;
	LeState		state;

	caller_from_args(fcinfo, &caller);
	caller_locate(fcinfo, &caller, "le_leader()", false);

	if (!le_lease_read(&caller, &state))
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

	if (!le_lease_read(&caller, &state) ||
		strcmp(state.row.leader_id, caller.instance) != 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(state.row.token);
}

/* ---------------------------------------------------------------------
 * Fencing
 * ---------------------------------------------------------------------
 */

/*
 * le_guard(lock_id, instance, token DEFAULT any) returns bigint
 *
 * LE001 if the caller does not lead, here or at COMMIT, and at COMMIT if a call
 * has failed and the transaction has written; 42501 if the lease belongs to
 * another role.  May be called in a read-only transaction.
 */
Datum
le_guard(PG_FUNCTION_ARGS)
{
	LeCaller	caller;

	le_guard_ask();
	caller_from_args(fcinfo, &caller);
	caller_token_from_args(fcinfo, &caller);
	PreventCommandIfParallelMode("le_guard()"); /* a worker's guard is lost */
	caller_locate(fcinfo, &caller, "le_guard()", false);

	PG_RETURN_INT64(le_guard_set(&caller));
}

/* ---------------------------------------------------------------------
 * Administration and monitoring
 * ---------------------------------------------------------------------
 */

/*
 * le_sweep(expired_for_ms DEFAULT 5000) returns bigint
 *
 * expired_for_ms is 0 to 86400000.  Also raises 42501 for a caller without
 * the rights of the table's owner or the right to grant EXECUTE on this, which
 * is what an installer has who is not a superuser.  (Not ownership of the
 * extension, which neither pg_dump nor pg_upgrade keeps.)
 */
Datum
le_sweep(PG_FUNCTION_ARGS)
{
	LeCaller	caller;
	int64		expired_for_ms = arg_ms(fcinfo, 0, "expired_for_ms", 0);
	Relation	rel;
	int64	   *lock_ids;
	int			count;
	int			deleted;
	int64		rows;

	caller_locate(fcinfo, &caller, "le_sweep()", true);

	rel = le_lease_table_open(caller.key.relation, AccessShareLock);
	if (!compat_owns(caller.key.relation, GetUserId()) &&
		!compat_may_grant(fcinfo->flinfo->fn_oid, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must have the rights of the owner of table \"le_lease\" to sweep it"),
				 errhint("EXECUTE on le_sweep() WITH GRANT OPTION does as well.")));
	table_close(rel, AccessShareLock);

	lock_ids = le_sweep_list(caller.key.relation, expired_for_ms,
							 le_sweep_batch(), &count, &rows);
	deleted = le_sweep_delete(caller.key.relation, expired_for_ms,
							  lock_ids, count);
	le_store_drop_over(le_clock_now(le_epoch_current()));

	PG_RETURN_INT64(deleted);
}
