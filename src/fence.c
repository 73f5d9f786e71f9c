/*-------------------------------------------------------------------------
 *
 * fence.c
 *	  Tables that can be changed under a guard only.
 *
 * The fence of a table is an ordinary trigger that le_protect() creates, so
 * pg_dump, \d and DROP TRIGGER know it.  It fires after the statement and not
 * before, because le_guard() may be called in that same statement.
 *
 * Floor: functions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "compat.h"
#include "leader_election.h"

#define FENCE "le_fence"
#define FENCE_EVENTS \
	(TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE | \
	 TRIGGER_TYPE_TRUNCATE)

LE_FUNCTION(le_fence);
LE_FUNCTION(le_protect);
LE_FUNCTION(le_unprotect);

/*
 * The lock that a fence asks for; false if it has no such argument.  The text
 * is anybody's who has made a trigger by hand: le_protect() writes a plain
 * number, but one of more digits or with a sign is the same lock.
 */
static bool
fence_lock_id(const Trigger *fence, int64 *lock_id)
{
	const char *arg = fence->tgargs[0];
	char	   *end;

	errno = 0;
	*lock_id = strtoi64(arg, &end, 10);
	return errno == 0 && end != arg && *end == '\0' && !isspace((unsigned char) *arg);
}

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

	memset(&key, 0, sizeof(key));
	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(data->tg_event) ||
		!TRIGGER_FIRED_FOR_STATEMENT(data->tg_event) ||
		data->tg_trigger->tgnargs != 1 ||
		!fence_lock_id(data->tg_trigger, &key.lock_id))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("le_fence() must be called by a trigger AFTER ... FOR EACH STATEMENT, with the lock's id as its only argument"),
				 errhint("Use le_protect() to create it.")));

	key.database = MyDatabaseId;
	key.relation = le_table_of_function(fcinfo->flinfo->fn_oid);
	if (!le_guard_is_set(&key))
		ereport(ERROR,
				(errcode(ERRCODE_LE_NOT_GUARDED),
				 errmsg("table \"%s\" can be changed only by the leader of lock " INT64_FORMAT,
						le_printable(RelationGetRelationName(data->tg_relation)),
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
fence_check_exists(Oid relid, bool exists)
{
	if (!exists)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
}

/*
 * Is it a table, one of the caller's, and none of ours?  funcid is a function
 * of this extension.
 */
static void
fence_check_table(Oid relid, Oid funcid)
{
	char		relkind = get_rel_relkind(relid);
	Oid			extension;

	fence_check_exists(relid, relkind != '\0');
	if (!compat_owns(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(relkind),
					   le_printable(get_rel_name(relid)));

	if (relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE &&
		relkind != RELKIND_FOREIGN_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("relation \"%s\" cannot be protected by a lock",
						le_printable(get_rel_name(relid))),
				 errdetail_relkind_not_supported(relkind),
				 relkind == RELKIND_VIEW ?
				 errhint("The table behind it can be protected.") : 0));

	extension = getExtensionOfObject(ProcedureRelationId, funcid);
	if (OidIsValid(extension) &&
		getExtensionOfObject(RelationRelationId, relid) == extension)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("relation \"%s\" cannot be protected by a lock",
						le_printable(get_rel_name(relid))),
				 errdetail("It belongs to the extension leader_election itself.")));
}

/*
 * The table with its partitions and children, all of them locked, and all of
 * them the caller's.
 */
static List *
fence_lock_tree(Oid relid, Oid funcid, LOCKMODE mode)
{
	Relation	rel;
	List	   *tree;
	ListCell   *cell;

	fence_check_table(relid, funcid);	/* others must not even wait for the
										 * lock */
	rel = try_relation_open(relid, mode);
	fence_check_exists(relid, rel != NULL); /* dropped while we waited? */
	relation_close(rel, NoLock);
	tree = find_all_inheritors(relid, mode, NULL);
	foreach(cell, tree)
		fence_check_table(lfirst_oid(cell), funcid);
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

/*
 * The fence of a table, as le_protect() makes it, or NULL.  (The view asks
 * the same.)
 */
static Trigger *
fence_find(Relation rel, Oid function)
{
	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &rel->trigdesc->triggers[i];

		if (trigger->tgfoid == function &&
			trigger->tgtype == (TRIGGER_TYPE_AFTER | FENCE_EVENTS) &&
			trigger->tgnargs == 1 && trigger->tgnattr == 0 &&
			trigger->tgqual == NULL)
			return trigger;
	}
	return NULL;
}

static bool
fence_is_enabled(const Trigger *fence)
{
	return fence->tgenabled == TRIGGER_FIRES_ON_ORIGIN ||
		fence->tgenabled == TRIGGER_FIRES_ALWAYS;
}

static bool
fence_is_for(const Trigger *fence, int64 lock_id)
{
	int64		its_lock_id;

	return fence_lock_id(fence, &its_lock_id) && its_lock_id == lock_id;
}

/* Create the fence of one table; false if it has it already. */
static bool
fence_protect(Oid relid, Oid function, int64 lock_id)
{
	Relation	rel = relation_open(relid, NoLock);
	Trigger    *fence = fence_find(rel, function);
	bool		there = (fence != NULL);

	if (there && !fence_is_for(fence, lock_id))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("table \"%s\" is protected by lock %s already",
						le_printable(RelationGetRelationName(rel)),
						le_printable(fence->tgargs[0])),
				 errhint("Call le_unprotect() first.")));
	if (there && !fence_is_enabled(fence))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("trigger \"%s\" of table \"%s\" is disabled",
						le_printable(fence->tgname),
						le_printable(RelationGetRelationName(rel))),
				 errhint("Use ALTER TABLE ... ENABLE TRIGGER.")));
	relation_close(rel, NoLock);

	if (!there)
		fence_create(relid, function, lock_id);
	return !there;
}

/*
 * A statement on a table's parent changes the table, and fires only the
 * parent's triggers: so the parents must have the same fence, and theirs.
 * (Not asked of the table's children: one with several parents could never be
 * protected.  The view shows what is missing.)
 */
static void
fence_check_parents(Oid relid, Oid function, int64 lock_id)
{
	Relation	inherits = table_open(InheritsRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_inherits_inhrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(inherits, InheritsRelidSeqnoIndexId, true, NULL,
							  1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Oid			parent = ((Form_pg_inherits) GETSTRUCT(tuple))->inhparent;
		Relation	rel = relation_open(parent, AccessShareLock);
		Trigger    *fence = fence_find(rel, function);

		if (fence == NULL || !fence_is_for(fence, lock_id) ||
			!fence_is_enabled(fence))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("table \"%s\" can be changed through its parent \"%s\", which is not protected by lock " INT64_FORMAT,
							le_printable(get_rel_name(relid)),
							le_printable(RelationGetRelationName(rel)),
							lock_id),
					 errhint("Protect the parent, with all of its partitions and children.")));
		relation_close(rel, AccessShareLock);
		fence_check_parents(parent, function, lock_id);
	}
	systable_endscan(scan);
	table_close(inherits, AccessShareLock);
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

/*
 * le_protect(relation, lock_id) returns bigint: how many tables have got their
 * fence
 *
 * 42P01 for what does not exist, 42501 for another than the owner of all
 * tables of the tree, 42809 for what is no table or one of ours, 42710 if one
 * is protected by another lock, 55000 if the table's parent is not protected
 * or a fence is disabled.
 */
Datum
le_protect(PG_FUNCTION_ARGS)
{
	Oid			funcid = fcinfo->flinfo->fn_oid;
	Oid			relid;
	Oid			function;
	int64		lock_id;
	int64		count = 0;
	ListCell   *cell;

	le_arg_check_null(fcinfo, 0, "relation");
	le_arg_check_null(fcinfo, 1, "lock_id");
	le_check_primary("le_protect()");
	PreventCommandIfReadOnly("le_protect()");
	PreventCommandIfParallelMode("le_protect()");

	function = fence_function(funcid);
	relid = PG_GETARG_OID(0);
	lock_id = PG_GETARG_INT64(1);
	foreach(cell, fence_lock_tree(relid, funcid, ShareRowExclusiveLock))
	{
		if (fence_protect(lfirst_oid(cell), function, lock_id))
			count++;
	}
	fence_check_parents(relid, function, lock_id);
	PG_RETURN_INT64(count);
}

/*
 * le_unprotect(relation) returns bigint: how many tables have lost their fence
 *
 * 42P01, 42501 and 42809 as above.
 */
Datum
le_unprotect(PG_FUNCTION_ARGS)
{
	Oid			funcid = fcinfo->flinfo->fn_oid;
	Oid			function;
	int64		count = 0;
	ListCell   *cell;

	le_arg_check_null(fcinfo, 0, "relation");
	le_check_primary("le_unprotect()");
	PreventCommandIfReadOnly("le_unprotect()");
	PreventCommandIfParallelMode("le_unprotect()");

	function = fence_function(funcid);
	foreach(cell, fence_lock_tree(PG_GETARG_OID(0), funcid,
								  AccessExclusiveLock))
	{
		if (fence_unprotect(lfirst_oid(cell), function))
			count++;
	}
	PG_RETURN_INT64(count);
}
