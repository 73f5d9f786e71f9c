/*-------------------------------------------------------------------------
 *
 * tokens.c
 *	  Draws tokens: the only file that touches the two sequences.
 *
 * Both are durable and not transactional.  A sequence that somebody has
 * changed so that its last value is lost is an error, never 0: tokens must not
 * go back.
 *
 * Floor: state.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "leader_election.h"

#define TOKEN_SEQUENCE "le_token_seq"
#define LINEAGE_SEQUENCE "le_lineage_seq"

/* What the owner of a sequence says to mend it, for psprintf() */
#define MEND_TOKEN "SELECT pg_catalog.setval('%s', greatest((SELECT last_value FROM %s), (SELECT max(token) FROM %s)));"
#define MEND_LINEAGE "SELECT pg_catalog.setval('%s', 1);"

static char *
sequence_mend(Relation rel, const char *name)
{
	char	   *schema = le_printable(get_namespace_name(RelationGetNamespace(rel)));
	char	   *sequence = quote_qualified_identifier(schema, name);

	if (strcmp(name, TOKEN_SEQUENCE) == 0)
		return psprintf(MEND_TOKEN, sequence, sequence,
						quote_qualified_identifier(schema, "leader_lease"));
	return psprintf(MEND_LINEAGE, sequence);
}

/*
 * Find one of our sequences, and become its owner, who need not be that of
 * the table: those who elect have no rights on it.  sequence_leave() undoes it.
 */
static Oid
sequence_enter(Relation rel, const char *name,
			   Oid *save_userid, int *save_sec_context)
{
	Oid			seqid = get_relname_relid(name, RelationGetNamespace(rel));
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(seqid));
	Form_pg_class form;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("sequence \"%s\" does not exist in the schema of table \"%s\"",
						name, RelationGetRelationName(rel)),
				 errhint("Undo what was done to it, or use DROP EXTENSION and CREATE EXTENSION.")));
	form = (Form_pg_class) GETSTRUCT(tuple);
	if (form->relkind != RELKIND_SEQUENCE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("relation \"%s\" is not a sequence", name),
				 errhint("Undo what was done to it, or use DROP EXTENSION and CREATE EXTENSION.")));
	if (form->relpersistence != RELPERSISTENCE_PERMANENT)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("sequence \"%s\" would lose its value in a crash", name),
				 errhint("As its owner run: ALTER SEQUENCE %s SET LOGGED;",
						 quote_qualified_identifier(le_printable(get_namespace_name(form->relnamespace)), name))));

	GetUserIdAndSecContext(save_userid, save_sec_context);
	SetUserIdAndSecContext(form->relowner,
						   *save_sec_context | SECURITY_LOCAL_USERID_CHANGE);
	ReleaseSysCache(tuple);
	return seqid;
}

static void
sequence_leave(Oid save_userid, int save_sec_context)
{
	SetUserIdAndSecContext(save_userid, save_sec_context);
}

static void
sequence_has_no_value(Relation rel, const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("sequence \"%s\" has been restarted and has no last value",
					name),
			 errhint("As its owner run: %s", sequence_mend(rel, name))));
}

/*
 * The last value of one of our sequences.  They always have one, the install
 * script sees to it; to take a missing one for 0 would make tokens go back.
 */
static int64
sequence_get(Relation rel, const char *name)
{
	LOCAL_FCINFO(fcinfo, 1);
	Oid			save_userid;
	int			save_sec_context;
	Oid			seqid = sequence_enter(rel, name, &save_userid,
									   &save_sec_context);
	Datum		value;

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = ObjectIdGetDatum(seqid);
	fcinfo->args[0].isnull = false;
	value = pg_sequence_last_value(fcinfo);
	if (fcinfo->isnull)
		sequence_has_no_value(rel, name);
	sequence_leave(save_userid, save_sec_context);
	return DatumGetInt64(value);
}

/*
 * The same for those who only look: the server's function keeps its lock on the
 * sequence to the end of the transaction, and whoever waits meanwhile would be
 * in the way of DROP EXTENSION.
 */
static int64
sequence_peek(Relation rel, const char *name)
{
	Oid			save_userid;
	int			save_sec_context;
	Relation	seq = table_open(sequence_enter(rel, name, &save_userid,
												&save_sec_context),
								 AccessShareLock);
	SysScanDesc scan = systable_beginscan(seq, InvalidOid, false, SnapshotAny,
										  0, NULL);
	HeapTuple	tuple = systable_getnext(scan);
	int64		value;

	if (!HeapTupleIsValid(tuple) ||
		!((Form_pg_sequence_data) GETSTRUCT(tuple))->is_called)
		sequence_has_no_value(rel, name);
	value = ((Form_pg_sequence_data) GETSTRUCT(tuple))->last_value;
	systable_endscan(scan);
	table_close(seq, AccessShareLock);
	sequence_leave(save_userid, save_sec_context);
	return value;
}

/* setval() and not nextval(), which would show in the user's lastval() */
static void
sequence_set(Relation rel, const char *name, int64 value)
{
	Oid			save_userid;
	int			save_sec_context;
	Oid			seqid = sequence_enter(rel, name, &save_userid,
									   &save_sec_context);

	DirectFunctionCall2(setval_oid, ObjectIdGetDatum(seqid),
						Int64GetDatum(value));
	sequence_leave(save_userid, save_sec_context);
}

/* The lineage of the last term begun in this database */
int64
le_token_known_lineage(Relation rel)
{
	return sequence_peek(rel, LINEAGE_SEQUENCE);
}

/* Does a promotion's grace keep locks without a row from everybody? */
bool
le_token_grace_runs(Relation rel, TimestampTz now, const LeEpoch *epoch)
{
	return now < le_rule_grace(epoch) &&
		le_token_known_lineage(rel) != epoch->lineage;
}

/*
 * Draw the token of a new term: greater than any drawn before in this
 * database, greater than that of the row it replaces, whatever was done to the
 * sequence, and, so that it also grows where the sequence was lost, not behind
 * the wall clock.  The epoch's lineage is noted along with it if a promotion's
 * grace has been waited for: from then on a lock without a row is vacant.
 */
int64
le_token_draw(Relation rel, int64 above, bool note_lineage,
			  const LeEpoch *epoch)
{
	Oid			relid = RelationGetRelid(rel);
	int64		last;
	int64		token;

	le_lock_take(LE_LOCK_DRAW, relid, ExclusiveLock, true);

	last = Max(sequence_get(rel, TOKEN_SEQUENCE), above);
	if (last == PG_INT64_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("no token is left after " INT64_FORMAT, last),
				 errhint("If sequence \"%s\" was set by hand, as its owner set it back to the largest token that was drawn.",
						 TOKEN_SEQUENCE)));
	token = Max(last + 1, GetCurrentTimestamp());
	sequence_set(rel, TOKEN_SEQUENCE, token);
	if (note_lineage && sequence_get(rel, LINEAGE_SEQUENCE) != epoch->lineage)
		sequence_set(rel, LINEAGE_SEQUENCE, epoch->lineage);

	le_lock_drop(LE_LOCK_DRAW, relid, ExclusiveLock);
	return token;
}
