/*-------------------------------------------------------------------------
 *
 * fence.c
 *	  Tables that can be changed under a guard only.
 *
 * The fence of a table is an ordinary trigger that le_protect() creates, so
 * pg_dump, \d and DROP TRIGGER know it.  It fires after the statement and not
 * before, because le_guard() may be called in that same statement.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "compat.h"
#include "leader_election.h"

#define FENCE "le_fence"
#define FENCE_EVENTS \
	(TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE | \
	 TRIGGER_TYPE_TRUNCATE)

PG_FUNCTION_INFO_V1(le_fence);
PG_FUNCTION_INFO_V1(le_protect);
PG_FUNCTION_INFO_V1(le_unprotect);

/*
 * le_fence() returns trigger
 *
 * Its only argument is the lock's id.  LE002 unless the transaction is guarded
 * for that lock; 39P01 for a trigger of another kind than le_protect() makes.
 */
Datum
le_fence(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	LeKey		key;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(data->tg_event) ||
		!TRIGGER_FIRED_FOR_STATEMENT(data->tg_event) ||
		data->tg_trigger->tgnargs != 1)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("le_fence() must be called by a trigger AFTER ... FOR EACH STATEMENT, with the lock's id as its only argument"),
				 errhint("Use le_protect() to create it.")));

	memset(&key, 0, sizeof(key));
	key.database = MyDatabaseId;
	key.relation = table_of_function(fcinfo->flinfo->fn_oid);
	key.lock_id = pg_strtoint64(data->tg_trigger->tgargs[0]);

	if (!guard_is_set(&key))
		ereport(ERROR,
				(errcode(ERRCODE_LE_NOT_GUARDED),
				 errmsg("table \"%s\" can be changed only by the leader of lock " INT64_FORMAT,
						RelationGetRelationName(data->tg_relation),
						key.lock_id),
				 errhint("Call le_guard(" INT64_FORMAT ", instance) in the same transaction.",
						 key.lock_id)));

	PG_RETURN_POINTER(NULL);
}

/* ---------------------------------------------------------------------
 * Making and removing fences
 * ---------------------------------------------------------------------
 */

/* le_fence() of this extension, found through the schema of its function */
static Oid
fence_function(Oid funcid)
{
	Oid			function;

	function = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
							   CStringGetDatum(FENCE),
							   PointerGetDatum(buildoidvector(NULL, 0)),
							   ObjectIdGetDatum(get_func_namespace(funcid)));
	if (!OidIsValid(function))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function \"le_fence\" does not exist in the schema of this function")));
	return function;
}

static void
fence_check_owner(Oid relid)
{
	if (!compat_owns(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER,
					   get_relkind_objtype(get_rel_relkind(relid)),
					   get_rel_name(relid));
}

/*
 * The table with its partitions and children, all of them locked, and all of
 * them the caller's.
 */
static List *
fence_lock_tree(Oid relid, LOCKMODE mode)
{
	List	   *tree;
	ListCell   *cell;

	fence_check_owner(relid);	/* others must not even wait for the lock */
	relation_close(relation_open(relid, mode), NoLock);
	tree = find_all_inheritors(relid, mode, NULL);
	foreach(cell, tree)
		fence_check_owner(lfirst_oid(cell));
	return tree;
}

static void
fence_create(Oid relid, Oid function, int64 lock_id)
{
	CreateTrigStmt *stmt = makeNode(CreateTrigStmt);

	stmt->trigname = FENCE;
	stmt->funcname = list_make1(makeString(FENCE));
	stmt->args = list_make1(makeString(psprintf(INT64_FORMAT, lock_id)));
	stmt->timing = TRIGGER_TYPE_AFTER;
	stmt->events = FENCE_EVENTS;
	CreateTrigger(stmt, NULL, relid, InvalidOid, InvalidOid, InvalidOid,
				  function, InvalidOid, NULL, false, false);
	CommandCounterIncrement();
}

/* Is this a fence as le_protect() makes it?  (The view asks the same.) */
static bool
is_fence(const Trigger *trigger, Oid function)
{
	return trigger->tgfoid == function &&
		trigger->tgtype == (TRIGGER_TYPE_AFTER | FENCE_EVENTS) &&
		trigger->tgnargs == 1 && trigger->tgnattr == 0 &&
		trigger->tgqual == NULL;
}

/* Create the fence of one table; false if it has it already. */
static bool
fence_protect(Oid relid, Oid function, int64 lock_id)
{
	Relation	rel = relation_open(relid, NoLock);
	TriggerDesc *triggers = rel->trigdesc;
	bool		there = false;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];
		int64		other;

		if (!is_fence(trigger, function))
			continue;
		other = pg_strtoint64(trigger->tgargs[0]);
		if (other != lock_id)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("table \"%s\" is protected by lock " INT64_FORMAT " already",
							RelationGetRelationName(rel), other),
					 errhint("Call le_unprotect() first.")));
		there = true;
	}
	relation_close(rel, NoLock);

	if (!there)
		fence_create(relid, function, lock_id);
	return !there;
}

/* Drop the fence of one table; false if there is none. */
static bool
fence_unprotect(Oid relid, Oid function)
{
	Relation	rel = relation_open(relid, NoLock);
	ObjectAddresses *fences = new_object_addresses();
	bool		there = false;

	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		ObjectAddress fence;

		if (rel->trigdesc->triggers[i].tgfoid != function)
			continue;
		ObjectAddressSet(fence, TriggerRelationId,
						 rel->trigdesc->triggers[i].tgoid);
		add_exact_object_address(&fence, fences);
		there = true;
	}
	relation_close(rel, NoLock);

	performMultipleDeletions(fences, DROP_RESTRICT, 0);
	free_object_addresses(fences);
	CommandCounterIncrement();
	return there;
}

static void
fence_check_arg(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
}

/*
 * le_protect(relation, lock_id) returns bigint: how many tables have got their
 * fence
 *
 * 42501 for another than the owner of all tables of the tree, 42809 for what
 * is no table, 42710 if one is protected by another lock.
 */
Datum
le_protect(PG_FUNCTION_ARGS)
{
	Oid			function;
	int64		count = 0;
	ListCell   *cell;

	fence_check_arg(fcinfo, 0, "relation");
	fence_check_arg(fcinfo, 1, "lock_id");
	PreventCommandDuringRecovery("le_protect()");
	PreventCommandIfReadOnly("le_protect()");
	PreventCommandIfParallelMode("le_protect()");

	function = fence_function(fcinfo->flinfo->fn_oid);
	foreach(cell, fence_lock_tree(PG_GETARG_OID(0), ShareRowExclusiveLock))
	{
		if (fence_protect(lfirst_oid(cell), function, PG_GETARG_INT64(1)))
			count++;
	}
	PG_RETURN_INT64(count);
}

/*
 * le_unprotect(relation) returns bigint: how many tables have lost their fence
 *
 * 42501 for another than the owner of all tables of the tree.
 */
Datum
le_unprotect(PG_FUNCTION_ARGS)
{
	Oid			function;
	int64		count = 0;
	ListCell   *cell;

	fence_check_arg(fcinfo, 0, "relation");
	PreventCommandDuringRecovery("le_unprotect()");
	PreventCommandIfReadOnly("le_unprotect()");
	PreventCommandIfParallelMode("le_unprotect()");

	function = fence_function(fcinfo->flinfo->fn_oid);
	foreach(cell, fence_lock_tree(PG_GETARG_OID(0), AccessExclusiveLock))
	{
		if (fence_unprotect(lfirst_oid(cell), function))
			count++;
	}
	PG_RETURN_INT64(count);
}
