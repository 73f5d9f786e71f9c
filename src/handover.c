/*-------------------------------------------------------------------------
 *
 * handover.c
 *	  Ending a term: for nobody, for a successor, or by an operator.
 *
 * Whoever ends a term marks its entry before he changes its row, or a
 * heartbeat could slip in between and be told true; and decides on what the
 * entry says after the mark.  He waits for guarded transactions that are being
 * committed, and heartbeats have to wait behind him: so all that can be refused
 * without the lock is refused before.
 *
 * Floor: protocol.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "utils/timestamp.h"

#include "leader_election.h"

/*
 * Lock the caller's live term in order to end it, for good.  False, and nothing
 * is locked: it does not lead.
 */
static bool
handover_lock(Relation rel, const LeCaller *caller, const LeEpoch *epoch,
			  LeState *state)
{
	le_look_hard(rel, &caller->key, epoch, state);
	le_launch_poll(caller->key.relation, state->now);
	if (!le_rule_worth_waiting(caller, state, epoch))
		return false;
	if (le_rule_leads(caller, state, epoch))
		le_lease_judge_role(caller, state->row.leader_role);

	le_lock_take(LE_LOCK_LEASE, caller->key.lock_id, ExclusiveLock, true);
	le_look(rel, &caller->key, epoch, state);
	if (!le_rule_leads(caller, state, epoch))
	{
		le_lock_drop(LE_LOCK_LEASE, caller->key.lock_id, ExclusiveLock);
		return false;
	}
	le_lease_judge_role(caller, state->row.leader_role);
	return true;
}

/* From here on no heartbeat prolongs the term.  Is it live still? */
static bool
handover_mark(const LeKey *key, const LeEpoch *epoch, LeState *state)
{
	TEST_PAUSE(LE_PAUSE_UNMARKED);
	state->now = le_clock_now(epoch);
	le_entry_mark(key, &state->entry);
	if (!le_rule_live(state, epoch))
		return false;
	TEST_PAUSE(LE_PAUSE_MARKED);
	return true;
}

/*
 * le_release: end the caller's live term; with a hold nobody begins another
 * one before this one is so old.
 */
bool
le_handover_release(const LeCaller *caller, int64 hold_ms)
{
	const LeEpoch *epoch = le_epoch_current();
	Relation	rel = le_table_open(caller->key.relation, RowExclusiveLock);
	LeState		state;
	bool		ends = false;

	if (handover_lock(rel, caller, epoch, &state))
	{
		ends = handover_mark(&caller->key, epoch, &state);
		if (ends)
			le_transition_release(rel, &caller->key, &state, hold_ms, epoch);
		else
			le_lock_drop(LE_LOCK_LEASE, caller->key.lock_id, ExclusiveLock);
	}
	table_close(rel, RowExclusiveLock);
	return ends;
}

/*
 * le_transfer: end the caller's live term and begin one of the successor's, of
 * the same role; NULL: of whoever is first among those who wait, and of his.
 */
bool
le_handover_transfer(const LeCaller *caller, const char *successor)
{
	const LeEpoch *epoch = le_epoch_current();
	Relation	rel = le_table_open(caller->key.relation, RowExclusiveLock);
	char		first[LE_INSTANCE_MAX + 1];
	Oid			role;
	LeState		state;
	bool		ends = false;

	if (handover_lock(rel, caller, epoch, &state))
	{
		role = state.row.leader_role;
		if (successor == NULL &&
			le_waiters_first(&caller->key, caller->instance, state.now, first,
							 &role))
			successor = first;
		ends = successor != NULL && handover_mark(&caller->key, epoch, &state);
		if (ends)
			le_transition_transfer(rel, &caller->key, &state, successor, role,
								   epoch);
		else
			le_lock_drop(LE_LOCK_LEASE, caller->key.lock_id, ExclusiveLock);
	}
	table_close(rel, RowExclusiveLock);
	return ends;
}

/* ---------------------------------------------------------------------
 * By an operator
 * ---------------------------------------------------------------------
 */

/*
 * le_request_resign: the holder's next heartbeat tells him that he should go.
 * False: nobody leads.
 */
bool
le_handover_request_resign(const LeCaller *caller)
{
	const LeEpoch *epoch = le_epoch_current();
	LeHolder	holder;
	LeTerm		term = {.key = caller->key};

	if (!le_lease_read(&caller->key, &holder))
		return false;
	term.token = holder.token;
	le_entry_request_resign(&term, holder.end, epoch);
	return true;
}

static void
prevent_revoke_in_transaction_block(void)
{
	if (!le_in_transaction_block() && GetCurrentTransactionNestLevel() == 1)
	{
		/* in a pipeline a later statement that fails must not undo it */
		MyXactFlags |= XACT_FLAGS_NEEDIMMEDIATECOMMIT;
		return;
	}

	ereport(ERROR,
			(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
			 GetCurrentTransactionNestLevel() > 1 ?
			 errmsg("le_revoke() cannot run inside a subtransaction") :
			 errmsg("le_revoke() cannot run inside a transaction block"),
			 errdetail("Until COMMIT it would keep the lock from everybody, and its leader from renewing."),
			 errhint("Call it alone, in autocommit mode.")));
}

/* Does anything keep the lock from others that this revocation would end? */
static bool
revoke_applies(const LeState *state, bool immediately, const LeEpoch *epoch)
{
	if (!state->found || state->row.copied)
		return false;
	return immediately ?
		state->now < le_rule_vacant_from(state, state->row.lineage, NULL,
										 epoch) :
		le_rule_live(state, epoch);
}

/* What an operator should know who lets others lead at once */
static void
revoke_warn(const LeState *state, const LeEpoch *epoch)
{
	TimestampTz believes_until = le_rule_vacant_from(state, state->row.lineage,
													 NULL, epoch);

	bool		is_known = (state->row.lineage == epoch->lineage);

	/* after a promotion it may be somebody of whom this server never heard */
	if ((state->row.state == LE_STATE_HELD && is_known) ||
		believes_until <= state->now)
		return;
	ereport(WARNING,
			(errmsg("whoever led lock " INT64_FORMAT " may believe so for another " INT64_FORMAT " ms",
					state->row.lock_id,
					(believes_until - state->now + 999) / 1000),
			 !is_known ?
			 errhint("Make sure that whoever led it on the server before the promotion has stopped, which may be another one than instance \"%s\".",
					 le_printable(state->row.leader_id)) :
			 errhint("Make sure that instance \"%s\" has stopped. What it does under le_guard(), or with its token, is refused.",
					 le_printable(state->row.leader_id))));
}

/*
 * le_revoke: nobody leads any more, whoever did is kept from it for a while.
 * Others wait for the end of its lease, which it may believe in; immediately
 * they do not, nor for a hold, nor for the grace of a promotion that a row has
 * come through.
 */
bool
le_handover_revoke(const LeCaller *caller, bool immediately)
{
	const LeEpoch *epoch = le_epoch_current();
	int64		lock_id = caller->key.lock_id;
	Relation	rel;
	LeState		state;
	bool		applies;

	prevent_revoke_in_transaction_block();
	rel = le_table_open(caller->key.relation, RowExclusiveLock);
	le_launch_poll(caller->key.relation, le_clock_now(epoch));
	le_look_hard(rel, &caller->key, epoch, &state);
	applies = revoke_applies(&state, immediately, epoch);
	if (applies)
	{
		le_lock_take(LE_LOCK_LEASE, lock_id, ExclusiveLock, true);
		le_look(rel, &caller->key, epoch, &state);
		TEST_PAUSE(LE_PAUSE_UNMARKED);
		state.now = le_clock_now(epoch);
		le_entry_mark(&caller->key, &state.entry);
		applies = revoke_applies(&state, immediately, epoch);
		if (applies)
		{
			TEST_PAUSE(LE_PAUSE_MARKED);
			if (immediately)
				revoke_warn(&state, epoch);
			le_transition_revoke(rel, &caller->key, &state, immediately, epoch);
		}
		else
			le_lock_drop(LE_LOCK_LEASE, lock_id, ExclusiveLock);
	}
	table_close(rel, RowExclusiveLock);
	return applies;
}
