/*-------------------------------------------------------------------------
 *
 * guard.c
 *	  Fencing at COMMIT: a transaction that was guarded for a term commits
 *	  only while that term is live.
 *
 * le_guard() looks whether its caller leads and remembers the term.  At
 * pre-commit each guard takes the lock's heavyweight lock in share mode, looks
 * again, and keeps the lock to the end of the transaction.  Every transition
 * takes that lock exclusively, so no successor can begin between the look and
 * the commit; and until pre-commit a guard holds nothing, so the body of a
 * transaction delays nobody.
 *
 * Whoever has asked for a guard depends on it to the end of its transaction.
 * No savepoint takes back a guard, nor that one was refused: an error that is
 * caught, by an exception handler or by a driver that sets savepoints by
 * itself, must not let the commit through.
 *
 * docs/fencing.md argues why this is enough.
 *
 * Floor: protocol.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "storage/lmgr.h"
#include "tcop/pquery.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "leader_election.h"

/* What the current transaction, with all its subtransactions, depends on */
typedef struct LeGuard
{
	LeTerm		term;
	char		instance[LE_INSTANCE_MAX + 1];
} LeGuard;

static List *guards = NIL;		/* of LeGuard, in TopTransactionContext */
static int64 unanswered = 0;	/* calls of le_guard() that have not returned:
								 * they have failed, but for one that runs */
static LeGuard failed;			/* the earliest of them; if it came to nothing
								 * before its arguments were known, without a
								 * name */
static bool alone = true;		/* all guards are those of a SELECT that is a
								 * transaction by itself */

static bool registered = false; /* guard_callback, for this transaction */
static bool committing = false; /* the last look has begun: no more guards */

static int
hint_lost(void)
{
	return errhint("Roll back, and become the leader again before repeating anything.");
}

/*
 * Raises LE001.  Tells who leads instead; leader is NULL if nobody does.  An
 * instance may lead again, but its term is over.
 */
static void
guard_lost(const LeTerm *term, const char *instance, bool once_led,
		   const LeHolder *leader)
{
	const char *shown = le_printable(instance);
	int64		lock_id = term->key.lock_id;
	bool		leads_again = (leader != NULL &&
							   strcmp(leader->instance, instance) == 0);

	ereport(ERROR,
			(errcode(ERRCODE_LE_LEADERSHIP_LOST),
			 once_led ?
			 (leads_again ?
			  errmsg("the guarded term of instance \"%s\" on lock " INT64_FORMAT " is over",
					 shown, lock_id) :
			  errmsg("instance \"%s\" no longer leads lock " INT64_FORMAT,
					 shown, lock_id)) :
			 term->token == LE_TOKEN_ANY ?
			 errmsg("instance \"%s\" does not lead lock " INT64_FORMAT,
					shown, lock_id) :
			 errmsg("term " INT64_FORMAT " of instance \"%s\" on lock " INT64_FORMAT " is over",
					term->token, shown, lock_id),
			 leader == NULL ?
			 errdetail("Nobody leads it now.") :
			 leads_again ?
			 errdetail("The instance leads it now in term " INT64_FORMAT ", not in term " INT64_FORMAT ".",
					   leader->token, term->token) :
			 errdetail("Instance \"%s\" leads it now.",
					   le_printable(leader->instance)),
			 hint_lost()));
}

/* ---------------------------------------------------------------------
 * The look at commit
 * ---------------------------------------------------------------------
 */

/*
 * Clock, entry and row, in this order; raises LE001 if the lead is lost.  The
 * table has been locked by guard_check_all().
 */
static void
guard_look(const LeGuard *guard, LeState *state)
{
	const LeEpoch *epoch = le_epoch_current();
	const LeTerm *term = &guard->term;
	Relation	rel = le_table_try_open(term->key.relation, NoLock);
	LeHolder	leader;
	bool		live;

	if (rel == NULL)
		guard_lost(term, guard->instance, true, NULL);
	le_look_hard(rel, &term->key, epoch, state);
	live = le_rule_live(state, epoch);
	if (live)
		le_rule_holder(state, epoch, &leader);
	if (!live || leader.token != term->token)
		guard_lost(term, guard->instance, true, live ? &leader : NULL);
	table_close(rel, NoLock);
}

/* Lock all in share mode, or none: then returns the first that is busy. */
static LeGuard *
guard_lock(List *list)
{
	ListCell   *cell;

	foreach(cell, list)
	{
		LeGuard    *guard = lfirst(cell);

		if (le_lock_take(LE_LOCK_LEASE, guard->term.key.lock_id, ShareLock, false))
			continue;
		for (int i = 0; i < foreach_current_index(cell); i++)
		{
			LeGuard    *locked = list_nth(list, i);

			le_lock_drop(LE_LOCK_LEASE, locked->term.key.lock_id, ShareLock);
		}
		return guard;
	}
	return NULL;
}

static bool
has_written(void)
{
	return TransactionIdIsValid(GetTopTransactionIdIfAny());
}

/*
 * A transaction that was refused a guard cannot commit what it has written:
 * its client may believe that it is guarded, and only the error that somebody
 * has caught told otherwise.  A guard that was set later is no excuse, since
 * what was written before may be a deposed leader's.
 */
static void
guard_check_refused(void)
{
	if (unanswered == 0 || !has_written())
		return;

	ereport(ERROR,
			(errcode(ERRCODE_LE_LEADERSHIP_LOST),
			 failed.instance[0] == '\0' ?
			 errmsg("cannot commit a transaction in which le_guard() has failed") :
			 errmsg("cannot commit a transaction in which le_guard() has failed for instance \"%s\" on lock " INT64_FORMAT,
					le_printable(failed.instance), failed.term.key.lock_id),
			 errdetail("Its error was caught or rolled back to a savepoint, but the transaction has written something."),
			 hint_lost()));
}

/* A guard and its work that were meant for one transaction, and are in two */
static void
guard_warn_alone(void)
{
	if (guards != NIL && alone && !has_written())
		ereport(WARNING,
				(errcode(ERRCODE_NO_ACTIVE_SQL_TRANSACTION),
				 errmsg("le_guard() was called in a transaction of its own, which has changed nothing"),
				 errhint("Guard and work must be in one transaction: call le_guard() after BEGIN, or in the statement that writes.")));
}

/*
 * Look once more at all terms, and keep their heavyweight locks in share mode
 * to the end of the transaction.
 *
 * A transition that is on its way is waited for, but holding none of them, and
 * not longer than the first of the leases: an end that has passed is final,
 * whatever becomes of the transition.  It may have been moved meanwhile, by a
 * heartbeat that was faster than the mark; so look again.
 */
static void
guard_check_all(void)
{
	List	   *unchecked = NIL;
	LeGuard    *busy;
	LeGuard    *waited = NULL;	/* for this one, whose lock we got: keep it
								 * until the others are tried, or who came
								 * after us would be before us */
	LeState		state;
	ListCell   *cell;

	guard_check_refused();
	if (committing)
		return;
	committing = true;

	foreach(cell, guards)
	{
		LeGuard    *guard = lfirst(cell);

		/* who has ended the term itself holds the lock exclusively since */
		if (le_change_ended_here(&guard->term))
			continue;
		unchecked = lappend(unchecked, guard);

		/* whoever locks the table is waited for while we hold nothing else */
		LockRelationOid(guard->term.key.relation, AccessShareLock);
	}

	while ((busy = guard_lock(unchecked)) != NULL)
	{
		TimestampTz rest = DT_NOEND;

		if (waited != NULL)
			le_lock_drop(LE_LOCK_LEASE, waited->term.key.lock_id, ShareLock);
		foreach(cell, unchecked)
		{
			guard_look(lfirst(cell), &state);
			rest = Min(rest, le_rule_end(&state, le_epoch_current()) - state.now);
		}
		waited = le_lock_take_within(LE_LOCK_LEASE, busy->term.key.lock_id,
									 ShareLock, rest / 1000 + 1) ? busy : NULL;
	}

	foreach(cell, unchecked)
		guard_look(lfirst(cell), &state);
	if (unchecked != NIL)
		TEST_PAUSE(LE_PAUSE_GUARDED);
	list_free(unchecked);
	guard_warn_alone();
}

/*
 * Registered by the first le_guard() of each transaction.  Callbacks run in the
 * reverse order of their registration, so our look comes before the work of
 * all modules that were there by then: a foreign data wrapper commits its
 * remote transactions in its own callback.
 */
static void
guard_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT)
		guard_check_all();
}

/*
 * Called for each transaction by the callback that is registered at load, and
 * so later than guard_callback().  It looks if that had nothing to do with
 * this commit: if another module's callback has asked for the first guard just
 * now.
 */
void
le_guard_at_end(XactEvent event)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			guard_check_all();
			break;

		case XACT_EVENT_PRE_PREPARE:
			committing = true;
			guard_check_refused();	/* always: what is prepared has an xid */
			if (guards != NIL)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that is guarded by le_guard()")));
			break;

		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			guards = NIL;		/* its memory goes with the transaction */
			unanswered = 0;
			alone = true;
			committing = false;

			/* the list of callbacks may change here, where it has been passed */
			if (registered)
				UnregisterXactCallback(guard_callback, NULL);
			registered = false;
			break;

		default:
			break;
	}
}

/* ---------------------------------------------------------------------
 * Guarding
 * ---------------------------------------------------------------------
 */

/*
 * le_guard() has been called, and whatever becomes of it, the transaction
 * depends on a guard now.  Called before anything can fail.
 */
void
le_guard_ask(void)
{
	if (unanswered++ == 0)
		failed.instance[0] = '\0';
	if (!registered)
		RegisterXactCallback(guard_callback, NULL);
	registered = true;
}

/*
 * Is this call likely to be followed by work in another transaction?  A
 * statement other than SELECT may have to do with the work, and be it that it
 * changes no row today.
 */
static bool
guard_stands_alone(void)
{
	return ActivePortal != NULL && ActivePortal->commandTag == CMDTAG_SELECT &&
		!le_in_transaction_block();
}

/* Let the current transaction commit only in this term of the instance. */
static void
guard_add(const LeTerm *term, const char *instance)
{
	MemoryContext old_context;
	LeGuard    *guard;
	ListCell   *cell;

	if (committing)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("le_guard() cannot be called while its transaction commits")));

	alone = alone && guard_stands_alone();
	foreach(cell, guards)
	{
		if (le_same_term(&((LeGuard *) lfirst(cell))->term, term))
			return;
	}

	old_context = MemoryContextSwitchTo(TopTransactionContext);
	guard = palloc0(sizeof(LeGuard));
	guard->term = *term;
	strlcpy(guard->instance, instance, sizeof(guard->instance));
	guards = lappend(guards, guard);
	MemoryContextSwitchTo(old_context);
}

/*
 * Guard the current transaction, as le_guard_ask() has announced; returns the
 * token of the caller's term.
 */
int64
le_guard_set(const LeCaller *caller)
{
	LeTerm		term = {.key = caller->key,.token = caller->token};
	LeHolder	leader;
	bool		live;

	if (unanswered == 1)
	{
		failed.term = term;
		strlcpy(failed.instance, caller->instance, sizeof(failed.instance));
	}

	live = le_lease_read(&caller->key, &leader);
	if (!live || !le_rule_names(caller, leader.instance, leader.token))
		guard_lost(&term, caller->instance, false, live ? &leader : NULL);
	le_lease_judge_role(caller, leader.role);

	term.token = leader.token;
	guard_add(&term, caller->instance);
	unanswered--;
	return term.token;
}

/* Is the current transaction guarded for this lock? */
bool
le_guard_is_set(const LeKey *key)
{
	ListCell   *cell;

	foreach(cell, guards)
	{
		if (le_same_key(&((LeGuard *) lfirst(cell))->term.key, key))
			return true;
	}
	return false;
}
