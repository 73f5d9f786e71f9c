/*-------------------------------------------------------------------------
 *
 * lease.c
 *	  Becoming and staying the leader, and the order in which locks, clock,
 *	  entry and row are taken and read.
 *
 * Lock, then read, then decide, then write.  Nothing is decided on what was
 * read before the lock.  What may look odd has a counterexample behind it,
 * see docs/design.md.
 *
 * Floor: protocol.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "leader_election.h"

/* settings */
bool		le_allow_in_transaction = false;

/* how long those who only look are waited for */
#define LOOKERS_MS TEST_PATIENCE(10)

/* ---------------------------------------------------------------------
 * Looking
 * ---------------------------------------------------------------------
 */

/* Who leads?  False: nobody does. */
bool
le_lease_read(const LeKey *key, LeHolder *holder)
{
	const LeEpoch *epoch = le_epoch_current();
	Relation	rel;
	LeState		state;
	bool		live;

	state.now = le_clock_now(epoch);
	le_entry_copy(key, &state.entry);
	le_launch_poll(key->relation, state.now);
	if (le_entry_usable(&state.entry, state.now))
	{
		le_entry_holder(&state.entry, holder);
		return true;
	}

	rel = le_table_open(key->relation, AccessShareLock);
	le_look_hard(rel, key, epoch, &state);
	table_close(rel, AccessShareLock);
	live = le_rule_live(&state, epoch);
	if (live)
		le_rule_holder(&state, epoch, holder);
	return live;
}

/* Does the caller lead, in the term it names? */
bool
le_lease_is_held(const LeCaller *caller)
{
	LeHolder	holder;

	return le_lease_read(&caller->key, &holder) &&
		le_rule_names(caller, holder.instance, holder.token);
}

/* ---------------------------------------------------------------------
 * Heartbeats
 * ---------------------------------------------------------------------
 */

/* The name is the caller's, but is the lease its role's? */
void
le_lease_judge_role(const LeCaller *caller, Oid leader_role)
{
	if (!has_privs_of_role(caller->role, leader_role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("lock " INT64_FORMAT " is held by instance \"%s\" of another role",
						caller->key.lock_id, le_printable(caller->instance)),
				 errhint("Connect as that role or a member of it, or give each process a name of its own with le_instance().")));
}

/*
 * True would be wrong, because the lease stays as long as it was; false would
 * depose the leader.
 */
static void
lease_judge_length(const LeCaller *caller, int64 lease_ms, int64 term_ms)
{
	if (lease_ms > term_ms)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("lease_ms " INT64_FORMAT " is longer than the live lease of instance \"%s\" on lock " INT64_FORMAT ", which allows 1 to " INT64_FORMAT,
						lease_ms, le_printable(caller->instance),
						caller->key.lock_id, term_ms),
				 errhint("A term keeps the length it began with. Call le_release() first.")));
}

/*
 * The fast heartbeat, with the judgements that cannot be made under the
 * partition lock.  lease_ms is 0 for whatever the term's is.
 */
static LeBeat
lease_beat(const LeCaller *caller, int64 lease_ms, const LeEpoch *epoch,
		   LeGrant *grant)
{
	Oid			judged_role = InvalidOid;

	for (;;)
	{
		LeEntry		seen;
		TimestampTz now;
		LeBeat		beat = le_entry_beat(caller, lease_ms, judged_role, epoch,
										 grant, &seen, &now);

		le_launch_poll(caller->key.relation, now);
		switch (beat)
		{
			case LE_BEAT_ASK_ROLE:
				le_lease_judge_role(caller, seen.leader_role);
				judged_role = seen.leader_role;
				break;
			case LE_BEAT_TOO_LONG:
				lease_judge_length(caller, lease_ms, seen.lease_ms);
				break;
			case LE_BEAT_DONE:
			case LE_BEAT_REFUSED:
			case LE_BEAT_ASK_ROW:
				return beat;
		}
	}
}

/*
 * Heartbeat under the heavyweight lock.  False: the caller does not lead; then
 * *unconfirmed is the token of the term that it would lead in, if a standby
 * had confirmed that one, or 0.
 *
 * A row that this transaction has written is not committed yet, and an entry
 * must not speak for it: the new end goes into the row.
 */
static bool
lease_beat_locked(Relation rel, const LeCaller *caller, int64 lease_ms,
				  const LeEpoch *epoch, int64 *unconfirmed, LeGrant *grant)
{
	int64		confirmed = *unconfirmed;
	LeState		state;

	*unconfirmed = 0;
	le_look(rel, &caller->key, epoch, &state);
	if (!le_rule_leads(caller, &state, epoch))
		return false;

	le_lease_judge_role(caller, state.row.leader_role);
	lease_judge_length(caller, lease_ms, state.row.lease_ms);

	if (state.row.own)
	{
		state.row.expires_at = state.now + le_rule_length(state.row.lease_ms);
		le_table_update(rel, &state.row);
		le_rule_grant(&state.row, state.now, grant);
		return true;
	}

	if (state.entry.token != state.row.token &&
		!(state.entry.reserved.token == state.row.token &&
		  state.entry.confirmed) &&
		state.row.token != confirmed && le_standby_must_confirm())
	{
		*unconfirmed = state.row.token;
		return false;
	}
	return le_entry_beat_row(caller, &state.row, epoch, grant);
}

/*
 * The slow heartbeat: waits for a transition that is on its way, as an UPDATE
 * of the row would, under lock_timeout and deadlock detection; or not, then it
 * is false.
 *
 * The first one of a term in an epoch also waits for a synchronous standby, if
 * nobody knows that it has the term: without the lock, and then decides anew.
 * Who waits in le_campaign (waiter) asks here from time to time instead.
 */
static bool
lease_beat_slowly(Relation rel, const LeCaller *caller, int64 lease_ms,
				  const LeEpoch *epoch, LeBid *waiter, LeGrant *grant)
{
	int64		unconfirmed = 0;
	bool		renewed;

	if (waiter != NULL && waiter->unconfirmed != 0 &&
		le_standby_has(waiter->flushed))
		unconfirmed = waiter->unconfirmed;
	for (;;)
	{
		if (!le_lock_take(LE_LOCK_LEASE, caller->key.lock_id, ShareLock,
						  waiter == NULL))
			return false;
		renewed = lease_beat_locked(rel, caller, lease_ms, epoch,
									&unconfirmed, grant);
		le_lock_drop(LE_LOCK_LEASE, caller->key.lock_id, ShareLock);

		if (renewed || unconfirmed == 0)
			return renewed;
		if (waiter != NULL)
		{
			if (waiter->unconfirmed != unconfirmed)
				waiter->flushed = le_standby_target();
			waiter->unconfirmed = unconfirmed;
			return false;
		}
		le_standby_wait(le_standby_target());
	}
}

/* le_renew, le_keep_alive: heartbeat, or false; never begins a term. */
bool
le_lease_renew(const LeCaller *caller, LeGrant *grant)
{
	const LeEpoch *epoch = le_epoch_current();
	Relation	rel;
	LeState		state;
	LeBeat		beat;
	bool		renewed = false;

	beat = lease_beat(caller, 0, epoch, grant);
	if (beat != LE_BEAT_ASK_ROW)
		return beat == LE_BEAT_DONE;

	rel = le_table_open(caller->key.relation, RowExclusiveLock);
	le_look_hard(rel, &caller->key, epoch, &state);
	le_launch_poll(caller->key.relation, state.now);
	if (le_rule_worth_waiting(caller, &state, epoch))
		renewed = lease_beat_slowly(rel, caller, 0, epoch, NULL, grant);
	table_close(rel, RowExclusiveLock);
	return renewed;
}

/* ---------------------------------------------------------------------
 * Transitions
 * ---------------------------------------------------------------------
 */

static bool
may_begin_here(void)
{
	return le_allow_in_transaction || !le_in_transaction_block();
}

/*
 * In a block that rolls back every contender would be told true in turn, and
 * one that stays open would keep the lock from everybody.  Refused whoever
 * leads, because a client that is told false today would find out on the day
 * on which it wins.
 */
static void
prevent_in_transaction_block(const LeCaller *caller)
{
	if (may_begin_here())
		return;

	ereport(ERROR,
			(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
			 GetCurrentTransactionNestLevel() > 1 ?
			 errmsg("%s cannot begin a term on lock " INT64_FORMAT " inside a subtransaction",
					caller->function, caller->key.lock_id) :
			 errmsg("%s cannot begin a term on lock " INT64_FORMAT " inside a transaction block",
					caller->function, caller->key.lock_id),
			 GetCurrentTransactionNestLevel() > 1 ?
			 errdetail("A savepoint, which a driver or a framework may set by itself, or a block with an EXCEPTION clause in PL/pgSQL is a subtransaction.") :
			 errdetail("If there is no BEGIN in your code, the driver or the framework has begun the transaction."),
			 errhint("Call it alone, in autocommit mode, or set \"leader_election.allow_in_transaction\" and count on the answer only after COMMIT.")));
}

/*
 * Take the lock's heavyweight lock to change the row, without waiting for
 * anybody else's transition.  Those who only look hold it in share mode for
 * some microseconds, and must not make a vacant lock look taken however many
 * they are: get in line, so that no new ones come, but not for longer than
 * they need, because a guarded transaction that is being committed holds it in
 * share mode, too.
 */
static bool
lease_lock_to_change(int64 lock_id)
{
	int			ms = LOOKERS_MS;

	if (le_lock_take(LE_LOCK_LEASE, lock_id, ExclusiveLock, false))
		return true;
	if (!le_lock_take(LE_LOCK_LEASE, lock_id, ShareLock, false))
		return false;
	le_lock_drop(LE_LOCK_LEASE, lock_id, ShareLock);

	if (LockTimeout > 0)
		ms = Min(ms, LockTimeout - 1);	/* beyond would be an error */
	return ms > 0 &&
		le_lock_take_within(LE_LOCK_LEASE, lock_id, ExclusiveLock, ms);
}

/* What is to be known of a lock that the caller does not lead */
static void
answer_refuse(LeAnswer *answer, const LeCaller *caller, const LeState *state,
			  int64 known_lineage, const LeEpoch *epoch)
{
	answer->leads = false;
	answer->busy = false;
	answer->now = state->now;
	answer->free_at = le_rule_vacant_from(state, known_lineage,
										  caller->instance, epoch);
	answer->barred = answer->free_at > le_rule_vacant_from(state, known_lineage,
														   NULL, epoch);
	if (le_rule_live(state, epoch))
		le_rule_holder(state, epoch, &answer->leader);
	else
		answer->leader.token = 0;
}

/*
 * What a caller does that nothing names as the live holder: take the lock
 * over if it is vacant, and wait for no other transition.
 */
static void
lease_challenge(Relation rel, const LeCaller *caller, LeBid *bid,
				int64 lease_ms, const LeEpoch *epoch, LeAnswer *answer)
{
	int64		lock_id = caller->key.lock_id;
	int64		known_lineage = epoch->lineage;
	LeState		state;
	bool		locked;

	locked = lease_lock_to_change(lock_id);
	le_look(rel, &caller->key, epoch, &state);
	if (locked && (!state.found || state.row.copied))
		known_lineage = le_token_known_lineage(rel);
	answer_refuse(answer, caller, &state, known_lineage, epoch);
	answer->busy = !locked;

	if (locked && state.now >= answer->free_at)
	{
		le_transition_begin(rel, caller, bid, &state, epoch, &answer->grant);
		answer->leads = true;
		return;
	}

	/*
	 * Our own live lease, begun or given back since we looked?  Or a release
	 * of it may be on its way in another session.
	 */
	if (locked)
		le_lock_drop(LE_LOCK_LEASE, lock_id, ExclusiveLock);
	if (!le_rule_leads(caller, &state, epoch))
		return;
	answer->leads = lease_beat_slowly(rel, caller, lease_ms, epoch,
									  bid->waits ? bid : NULL, &answer->grant);
	answer->busy = !answer->leads;
}

/*
 * le_try_acquire, and each try of le_campaign: lead, or not, at once.
 *
 * A look without locks that tells that the lock is not vacant will do to refuse
 * the caller, unless it leads by it.  If it may be vacant, and for who waits it
 * is his turn, he challenges.
 */
void
le_lease_acquire(const LeCaller *caller, LeBid *bid, LeAnswer *answer)
{
	const LeEpoch *epoch = le_epoch_current();
	int64		lease_ms = bid->as_it_is ? 0 : bid->lease_ms;
	int64		known_lineage = epoch->lineage;
	Relation	rel;
	LeState		state;

	/* a refused attempt reads the clock first and takes only a shared lock */
	state.now = le_clock_now(epoch);
	le_entry_copy(&caller->key, &state.entry);
	le_launch_poll(caller->key.relation, state.now);
	if (le_entry_usable(&state.entry, state.now))
	{
		if (!le_rule_names(caller, state.entry.leader_id, state.entry.token))
		{
			prevent_in_transaction_block(caller);
			answer->leads = answer->busy = answer->barred = false;
			answer->now = state.now;
			answer->free_at = state.entry.expires_at;
			le_entry_holder(&state.entry, &answer->leader);
			return;
		}
		if (lease_beat(caller, lease_ms, epoch, &answer->grant) == LE_BEAT_DONE)
		{
			answer->leads = true;
			return;
		}
		/* over or marked since: go on as if the entry had not been there */
	}

	rel = le_table_open(caller->key.relation, RowExclusiveLock);
	le_look(rel, &caller->key, epoch, &state);
	if (!state.found && !may_begin_here())
		le_look_hard(rel, &caller->key, epoch, &state); /* or else 25001 */

	if (le_rule_leads(caller, &state, epoch) &&
		lease_beat_slowly(rel, caller, lease_ms, epoch,
						  bid->waits ? bid : NULL, &answer->grant))
		answer->leads = true;
	else
	{
		prevent_in_transaction_block(caller);
		if (bid->waits && (!state.found || state.row.copied))
			known_lineage = le_token_known_lineage(rel);
		answer_refuse(answer, caller, &state, known_lineage, epoch);
		answer->busy = le_rule_leads(caller, &state, epoch);	/* and why not */
		if (state.now >= answer->free_at ? !bid->only_looks :
			!bid->waits && le_rule_leads(caller, &state, epoch))
			lease_challenge(rel, caller, bid, lease_ms, epoch, answer);
	}

	table_close(rel, RowExclusiveLock);
}
