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
#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "leader_election.h"

/* A term that the current transaction depends on */
typedef struct LeGuard
{
	LeCaller	caller;			/* with the term's token */
	SubTransactionId subid;		/* undone together with this one */
	SubTransactionId released_in;	/* the subtransaction that has ended the
									 * term itself, or invalid */
} LeGuard;

static List *guards = NIL;		/* of LeGuard, in TopTransactionContext */

/* ---------------------------------------------------------------------
 * The look at commit
 * ---------------------------------------------------------------------
 */

/*
 * Does the caller lead still?  If so the heavyweight lock is held in share
 * mode, to the end of the transaction.
 *
 * Waits for a transition that is on its way, but not longer than the lease:
 * an end that has passed is final, whatever becomes of the transition.  That
 * end can move while we wait, by a heartbeat that was faster than the mark.
 */
static bool
guard_hold(Relation rel, const LeCaller *caller, LeState *state)
{
	const LeEpoch *epoch = epoch_current();
	int64		lock_id = caller->key.lock_id;
	bool		locked = lock_take(LE_LOCK_LEASE, lock_id, ShareLock, false);

	while (!locked)
	{
		TimestampTz end;

		lease_look_hard(rel, &caller->key, epoch, state);
		if (!rule_worth_waiting(caller, state, epoch))
			return false;
		end = rule_leads(caller, state, epoch) ?
			rule_end(state, epoch) : state->entry.expires_at;
		locked = lock_take_within(LE_LOCK_LEASE, lock_id, ShareLock,
								  (end - state->now) / 1000 + 1);
	}

	lease_look(rel, &caller->key, epoch, state);
	return rule_leads(caller, state, epoch);
}

/* Tell who leads instead; leader is NULL if nobody does. */
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

static void
guard_check(const LeGuard *guard)
{
	const LeCaller *caller = &guard->caller;
	Relation	rel;
	LeState		state;

	/* then we hold the lock exclusively since */
	if (guard->released_in != InvalidSubTransactionId)
		return;

	rel = table_open_lease(caller->key.relation, AccessShareLock);
	if (rel == NULL)
		guard_lost(caller, true, NULL);
	if (!guard_hold(rel, caller, &state))
		guard_lost(caller, true,
				   rule_live(&state, epoch_current()) ? &state.row : NULL);
	table_close(rel, AccessShareLock);
	TEST_PAUSE(LE_PAUSE_GUARDED);
}

static void
guard_callback(XactEvent event, void *arg)
{
	ListCell   *cell;

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			foreach(cell, guards)
				guard_check(lfirst(cell));
			break;

		case XACT_EVENT_PRE_PREPARE:
			if (guards != NIL)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that is guarded by le_guard()")));
			break;

		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			guards = NIL;		/* its memory goes with the transaction */
			break;

		default:
			break;
	}
}

/*
 * What a subtransaction has guarded or released goes with it, or becomes its
 * parent's.
 */
static void
guard_subxact_callback(SubXactEvent event, SubTransactionId subid,
					   SubTransactionId parent, void *arg)
{
	ListCell   *cell;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;

	foreach(cell, guards)
	{
		LeGuard    *guard = lfirst(cell);
		bool		commits = (event == SUBXACT_EVENT_COMMIT_SUB);

		if (guard->released_in == subid)
			guard->released_in = commits ? parent : InvalidSubTransactionId;
		if (guard->subid == subid)
		{
			guard->subid = parent;
			if (!commits)
				guards = foreach_delete_current(guards, cell);
		}
	}
}

/* At load */
void
guard_init(void)
{
	RegisterSubXactCallback(guard_subxact_callback, NULL);
}

/*
 * Make sure that our look comes before any other module's work at commit: a
 * foreign data wrapper commits its remote transactions there, and callbacks
 * run in the reverse order of their registration.  The old registration goes
 * only when there is a new one, so that an error cannot leave us without.
 */
static void
guard_register(void)
{
	static char registrations[2];
	static int	current = -1;
	int			next = (current + 1) % 2;

	RegisterXactCallback(guard_callback, &registrations[next]);
	if (current >= 0)
		UnregisterXactCallback(guard_callback, &registrations[current]);
	current = next;
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

	guard_register();

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
	guard->released_in = InvalidSubTransactionId;
	guards = lappend(guards, guard);
	MemoryContextSwitchTo(old_context);
}

/* Guard the current transaction; returns the token of the caller's term. */
int64
guard_set(LeCaller *caller)
{
	LeState		state;
	bool		live = lease_read(caller, &state);

	if (!live || !rule_names(caller, state.row.leader_id, state.row.token))
		guard_lost(caller, false, live ? &state.row : NULL);
	lease_judge_role(caller, state.row.leader_role);

	caller->any_token = false;
	caller->token = state.row.token;
	guard_add(caller);
	return caller->token;
}

/*
 * The current transaction has ended this term itself: it holds the lock
 * exclusively from before the end of the lease until after its own, and so
 * may commit.
 */
void
guard_release(const LeKey *key, int64 token)
{
	ListCell   *cell;

	foreach(cell, guards)
	{
		LeGuard    *guard = lfirst(cell);

		if (same_key(&guard->caller.key, key) && guard->caller.token == token)
			guard->released_in = GetCurrentSubTransactionId();
	}
}

/* Is the current transaction guarded for this lock? */
bool
guard_is_set(const LeKey *key)
{
	ListCell   *cell;

	foreach(cell, guards)
	{
		if (same_key(&((LeGuard *) lfirst(cell))->caller.key, key))
			return true;
	}
	return false;
}
