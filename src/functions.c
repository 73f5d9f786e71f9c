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
 * Floor: functions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "leader_election.h"

LE_FUNCTION(le_try_acquire);
LE_FUNCTION(le_renew);
LE_FUNCTION(le_release);
LE_FUNCTION(le_transfer);
LE_FUNCTION(le_request_resign);
LE_FUNCTION(le_revoke);
LE_FUNCTION(le_is_leader);
LE_FUNCTION(le_leader);
LE_FUNCTION(le_token);
LE_FUNCTION(le_guard);
LE_FUNCTION(le_sweep);

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
	LeBid		bid = {0};
	LeAnswer	answer;

	le_arg_caller(fcinfo, &caller);
	bid.lease_ms = le_arg_ms(fcinfo, 2, "lease_ms", 1, LE_LEASE_MS_MAX);
	le_arg_locate(fcinfo, &caller, "le_try_acquire()", true);

	le_lease_acquire(&caller, &bid, &answer);
	PG_RETURN_BOOL(answer.leads);
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
	LeGrant		grant;

	le_arg_caller(fcinfo, &caller);
	le_arg_token(fcinfo, &caller);
	le_arg_locate(fcinfo, &caller, "le_renew()", true);

	PG_RETURN_BOOL(le_lease_renew(&caller, &grant));
}

/*
 * le_release(lock_id, instance, token DEFAULT any, hold_ms DEFAULT 0) returns
 * boolean
 *
 * hold_ms is 0 to 86400000.  Also raises 42501 if the lease belongs to another
 * role.
 */
Datum
le_release(PG_FUNCTION_ARGS)
{
	LeCaller	caller;
	int64		hold_ms;

	le_arg_caller(fcinfo, &caller);
	le_arg_token(fcinfo, &caller);
	hold_ms = le_arg_ms(fcinfo, 3, "hold_ms", 0, LE_LEASE_MS_MAX);
	le_arg_locate(fcinfo, &caller, "le_release()", true);

	PG_RETURN_BOOL(le_handover_release(&caller, hold_ms));
}

/*
 * le_transfer(lock_id, instance, token, successor DEFAULT NULL) returns boolean
 *
 * 22023 also for a successor that is the instance itself; 42501 if the lease
 * belongs to another role.
 */
Datum
le_transfer(PG_FUNCTION_ARGS)
{
	LeCaller	caller;
	const char *successor = NULL;

	le_arg_caller(fcinfo, &caller);
	le_arg_own_token(fcinfo, &caller);
	if (!PG_ARGISNULL(3))
		successor = le_arg_instance(fcinfo, 3, "successor");
	if (successor != NULL && strcmp(successor, caller.instance) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("successor \"%s\" is the instance that leads already",
						le_printable(successor)),
				 errhint("Name another instance, or NULL for the first that waits in le_campaign().")));
	le_arg_locate(fcinfo, &caller, "le_transfer()", true);

	PG_RETURN_BOOL(le_handover_transfer(&caller, successor));
}

/* ---------------------------------------------------------------------
 * For operators: EXECUTE is the right
 * ---------------------------------------------------------------------
 */

/* le_request_resign(lock_id) returns boolean */
Datum
le_request_resign(PG_FUNCTION_ARGS)
{
	LeCaller	caller;

	le_arg_lock(fcinfo, &caller);
	le_arg_locate(fcinfo, &caller, "le_request_resign()", true);

	PG_RETURN_BOOL(le_handover_request_resign(&caller));
}

/*
 * le_revoke(lock_id, immediately DEFAULT false) returns boolean
 *
 * Also raises 25001 inside a transaction block.
 */
Datum
le_revoke(PG_FUNCTION_ARGS)
{
	LeCaller	caller;

	le_arg_lock(fcinfo, &caller);
	le_arg_check_null(fcinfo, 1, "immediately");
	le_arg_locate(fcinfo, &caller, "le_revoke()", true);

	PG_RETURN_BOOL(le_handover_revoke(&caller, PG_GETARG_BOOL(1)));
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

	le_arg_caller(fcinfo, &caller);
	le_arg_token(fcinfo, &caller);
	le_arg_locate(fcinfo, &caller, "le_is_leader()", false);

	PG_RETURN_BOOL(le_lease_is_held(&caller));
}

/* le_leader(lock_id) returns text */
Datum
le_leader(PG_FUNCTION_ARGS)
{
	LeCaller	caller;
	LeHolder	holder;

	le_arg_lock(fcinfo, &caller);
	le_arg_locate(fcinfo, &caller, "le_leader()", false);

	if (!le_lease_read(&caller.key, &holder))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(holder.instance));
}

/* le_token(lock_id, instance) returns bigint */
Datum
le_token(PG_FUNCTION_ARGS)
{
	LeCaller	caller;
	LeHolder	holder;

	le_arg_caller(fcinfo, &caller);
	le_arg_locate(fcinfo, &caller, "le_token()", false);

	if (!le_lease_read(&caller.key, &holder) ||
		strcmp(holder.instance, caller.instance) != 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(holder.token);
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
	le_arg_caller(fcinfo, &caller);
	le_arg_token(fcinfo, &caller);
	PreventCommandIfParallelMode("le_guard()"); /* a worker's guard is lost */
	le_arg_locate(fcinfo, &caller, "le_guard()", false);

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
	int64		expired_for_ms = le_arg_ms(fcinfo, 0, "expired_for_ms", 0,
										   LE_LEASE_MS_MAX);
	Relation	rel;
	int64	   *lock_ids;
	int			count;
	int			deleted;
	int64		rows;

	le_arg_locate(fcinfo, &caller, "le_sweep()", true);

	rel = le_table_open(caller.key.relation, AccessShareLock);
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
	le_store_drop_over(le_clock_now(le_epoch_current()) -
					   expired_for_ms * 1000);

	PG_RETURN_INT64(deleted);
}
