/*-------------------------------------------------------------------------
 *
 * shield.c
 *	  Nobody but our functions changes our tables.
 *
 * They write below the executor, where no trigger fires.
 *
 * Floor: functions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "compat.h"
#include "leader_election.h"

LE_FUNCTION(le_shield);

/*
 * le_shield() returns trigger
 *
 * Keeps everybody but our functions from le_lease, and from writing le_term,
 * superusers too: 42809.
 * What arrives by logical replication is passed over and not refused, or the
 * subscription would stand still for ever; a publication FOR ALL TABLES
 * includes le_lease.  (A TRUNCATE can only be refused.)
 */
Datum
le_shield(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("le_shield() must be called by a trigger")));

	if (SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA &&
		TRIGGER_FIRED_FOR_ROW(data->tg_event) &&
		TRIGGER_FIRED_BEFORE(data->tg_event))
		PG_RETURN_POINTER(NULL);

	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("cannot change table \"%s\" by hand",
					le_printable(RelationGetRelationName(data->tg_relation))),
			 strcmp(RelationGetRelationName(data->tg_relation), "le_term") == 0 ?
			 errhint("The owner of the table may delete its rows.") :
			 errhint("Use le_release() to end a term and le_sweep() to remove those that are over.")));
}

/* Is le_shield() in its place, for all that can be done to the table? */
bool
le_shield_is_on(Relation rel)
{
	int			row_events = 0;
	bool		truncate = false;

	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &rel->trigdesc->triggers[i];

		if (trigger->tgenabled != TRIGGER_FIRES_ALWAYS ||
			trigger->tgqual != NULL || trigger->tgnattr != 0 ||
			!TRIGGER_FOR_BEFORE(trigger->tgtype) ||
			get_func_namespace(trigger->tgfoid) != RelationGetNamespace(rel) ||
			strcmp(get_func_name(trigger->tgfoid), "le_shield") != 0)
			continue;
		if (TRIGGER_FOR_ROW(trigger->tgtype))
			row_events |= trigger->tgtype;
		else if (TRIGGER_FOR_TRUNCATE(trigger->tgtype))
			truncate = true;
	}
	return truncate && TRIGGER_FOR_INSERT(row_events) &&
		TRIGGER_FOR_UPDATE(row_events) && TRIGGER_FOR_DELETE(row_events);
}
