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
 * docs/fencing.md argues why this is enough.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "leader_election.h"

/* A term that the current transaction depends on */
typedef struct LeGuard
{
	LeCaller	caller;			/* with the term's token */
	SubTransactionId subid;		/* undone together with this one */
} LeGuard;

static List *guards = NIL;		/* of LeGuard, in TopTransactionContext */
static bool registered = false; /* guard_callback, for this transaction */
static bool committing = false; /* the last look has begun: no more guards */

/* Raises LE001.  Tells who leads instead; leader is NULL if nobody does. */
static void
guard_lost(const LeCaller *caller, bool once_led, const LeRow *leader)
{
	ereport(ERROR,
			(errcode(ERRCODE_LE_LEADERSHIP_LOST),
			 once_led ?
			 errmsg("instance \"%s\" no longer leads lock " INT64_FORMAT,
					caller->instance, caller->key.lock_id) :
			 errmsg("instance \"%s\" does not lead lock " INT64_FORMAT,
					caller->instance, caller->key.lock_id),
			 leader == NULL ?
			 errdetail("Nobody leads it now.") :
			 strcmp(leader->leader_id, caller->instance) != 0 ?
			 errdetail("Instance \"%s\" leads it now.", leader->leader_id) :
			 errdetail("It leads in another term, with token " INT64_FORMAT " instead of " INT64_FORMAT ".",
					   leader->token, caller->token)));
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
	const LeCaller *caller = &guard->caller;
	const LeEpoch *epoch = le_epoch_current();
	Relation	rel = le_table_open_lease(caller->key.relation, NoLock);

	if (rel == NULL)
		guard_lost(caller, true, NULL);
	le_lease_look_hard(rel, &caller->key, epoch, state);
	if (!le_rule_leads(caller, state, epoch))
		guard_lost(caller, true, le_rule_live(state, epoch) ? &state->row : NULL);
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

		if (le_lock_take(LE_LOCK_LEASE, guard->caller.key.lock_id, ShareLock, false))
			continue;
		for (int i = 0; i < foreach_current_index(cell); i++)
		{
			LeGuard    *locked = list_nth(list, i);

			le_lock_drop(LE_LOCK_LEASE, locked->caller.key.lock_id, ShareLock);
		}
		return guard;
	}
	return NULL;
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

	if (committing)
		return;
	committing = true;

	foreach(cell, guards)
	{
		LeGuard    *guard = lfirst(cell);

		/* who has ended the term itself holds the lock exclusively since */
		if (le_transition_released(&guard->caller.key, guard->caller.token))
			continue;
		unchecked = lappend(unchecked, guard);

		/* whoever locks the table is waited for while we hold nothing else */
		LockRelationOid(guard->caller.key.relation, AccessShareLock);
	}

	while ((busy = guard_lock(unchecked)) != NULL)
	{
		TimestampTz rest = DT_NOEND;

		if (waited != NULL)
			le_lock_drop(LE_LOCK_LEASE, waited->caller.key.lock_id, ShareLock);
		foreach(cell, unchecked)
		{
			guard_look(lfirst(cell), &state);
			rest = Min(rest, le_rule_end(&state, le_epoch_current()) - state.now);
		}
		waited = le_lock_take_within(LE_LOCK_LEASE, busy->caller.key.lock_id,
									 ShareLock, rest / 1000 + 1) ? busy : NULL;
	}

	foreach(cell, unchecked)
		guard_look(lfirst(cell), &state);
	if (unchecked != NIL)
		TEST_PAUSE(LE_PAUSE_GUARDED);
	list_free(unchecked);
}

/*
 * Registered by the first guard of each transaction.  Callbacks run in the
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
 * this commit: if another module's callback has set the first guard just now.
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
			if (guards != NIL)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that is guarded by le_guard()")));
			break;

		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			guards = NIL;		/* its memory goes with the transaction */
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

/*
 * What a subtransaction has guarded goes with it, or becomes its parent's.
 */
static void
guard_subxact_callback(SubXactEvent event, SubTransactionId subid,
					   SubTransactionId parent, void *arg)
{
	bool		commits;
	ListCell   *cell;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;

	commits = (event == SUBXACT_EVENT_COMMIT_SUB);
	foreach(cell, guards)
	{
		LeGuard    *guard = lfirst(cell);

		if (guard->subid != subid)
			continue;
		if (commits)
			guard->subid = parent;
		else
			guards = foreach_delete_current(guards, cell);
	}
}

/* At load */
void
le_guard_init(void)
{
	RegisterSubXactCallback(guard_subxact_callback, NULL);
}

/* ---------------------------------------------------------------------
 * Guarding
 * ---------------------------------------------------------------------
 */

static bool
same_key(const LeKey *a, const LeKey *b)
{
	return memcmp(a, b, sizeof(LeKey)) == 0;
}

/* Let the current transaction commit only in this term of the caller. */
static void
guard_add(const LeCaller *caller)
{
	MemoryContext old_context;
	LeGuard    *guard;
	ListCell   *cell;

	if (committing)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("le_guard() cannot be called while its transaction commits")));

	if (!registered)
		RegisterXactCallback(guard_callback, NULL);
	registered = true;

	foreach(cell, guards)
	{
		guard = lfirst(cell);
		if (same_key(&guard->caller.key, &caller->key) &&
			guard->caller.token == caller->token)
			return;
	}

	old_context = MemoryContextSwitchTo(TopTransactionContext);
	guard = palloc(sizeof(LeGuard));
	guard->caller = *caller;
	guard->caller.instance = pstrdup(caller->instance);
	guard->subid = GetCurrentSubTransactionId();
	guards = lappend(guards, guard);
	MemoryContextSwitchTo(old_context);
}

/* Guard the current transaction; returns the token of the caller's term. */
int64
le_guard_set(LeCaller *caller)
{
	LeState		state;
	bool		live = le_lease_read(caller, &state);

	if (!live || !le_rule_names(caller, state.row.leader_id, state.row.token))
		guard_lost(caller, false, live ? &state.row : NULL);
	le_lease_judge_role(caller, state.row.leader_role);

	caller->any_token = false;
	caller->token = state.row.token;
	guard_add(caller);
	return caller->token;
}

/* Is the current transaction guarded for this lock? */
bool
le_guard_is_set(const LeKey *key)
{
	ListCell   *cell;

	foreach(cell, guards)
	{
		if (same_key(&((LeGuard *) lfirst(cell))->caller.key, key))
			return true;
	}
	return false;
}
