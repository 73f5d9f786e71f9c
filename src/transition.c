/*-------------------------------------------------------------------------
 *
 * transition.c
 *	  Who leads is changed here, and nowhere else.
 *
 * Others decide, under the lock's heavyweight lock.  Here a decision is carried
 * out: noted for the end of the transaction, its memory reserved, its row
 * written; from then on that lock is kept to the end of the transaction.
 *
 * Floor: transitions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "leader_election.h"

/*
 * The row says something else from the commit on, under a token of its own, by
 * which whoever asks for the old term knows that it is over.
 *
 * Within a promotion's grace only because an operator has vouched for this one
 * lock: the lineage is not noted then, or others would be vacant too.
 */
static void
row_renew(Relation rel, LeRow *row, TimestampTz now, const LeEpoch *epoch)
{
	row->token = le_token_draw(rel, row->token, now >= le_rule_grace(epoch),
							   epoch);
	row->lineage = epoch->lineage;
	row->epoch = epoch->id;
}

/*
 * Note that the term of this row ends; or, if it had ended before, what was
 * left of it, of which log and history know already.  (One that came with a
 * copied database is the original's, and may live on.)
 */
static void
end_note(Relation rel, const LeKey *key, const LeState *state,
		 LeChangeKind how, TimestampTz wall, const LeEpoch *epoch)
{
	if (state->row.state != LE_STATE_LIVE || state->row.copied)
	{
		le_change_ends(key, &state->row,
					   how == LE_REVOKED ? LE_LIFTED : LE_SWEPT);
		return;
	}
	le_change_ends(key, &state->row, how);
	le_history_note(rel, state, how, wall, epoch);
}

/* Note a term that begins with this row, and reserve its heartbeats' memory. */
static void
begin_note(const LeKey *key, const LeRow *row, const LeEpoch *epoch)
{
	LeReservation reservation = {.token = row->token,.until = row->expires_at};
	LeReservation *before = le_change_begins(key, row);

	le_entry_reserve(key, &reservation, before, epoch);
}

/* The caller leads from the commit on, as the lock is vacant. */
void
le_transition_begin(Relation rel, const LeCaller *caller, const LeBid *bid,
					const LeState *state, const LeEpoch *epoch,
					LeGrant *grant)
{
	LeRow		row = {0};

	Assert(le_lock_held(LE_LOCK_LEASE, caller->key.lock_id, ExclusiveLock));

	row.token = state->found ? state->row.token : 0;
	row_renew(rel, &row, state->now, epoch);
	row.lock_id = caller->key.lock_id;
	row.lease_ms = bid->lease_ms;
	row.leader_role = caller->role;
	row.state = LE_STATE_LIVE;
	row.expires_at = state->now + le_rule_length(bid->lease_ms);
	row.created_at = GetCurrentTimestamp();
	strlcpy(row.leader_id, caller->instance, sizeof(row.leader_id));
	row.has_info = (bid->info != NULL);
	if (row.has_info)
		strlcpy(row.info, bid->info, sizeof(row.info));

	if (state->found && !state->row.copied)
		end_note(rel, &caller->key, state, LE_EXPIRED, row.created_at, epoch);
	begin_note(&caller->key, &row, epoch);
	le_event_queue(&caller->key, "acquired");

	if (state->found)
	{
		row.tid = state->row.tid;
		le_table_update(rel, &row);
	}
	else
		le_table_insert(rel, &row);
	le_schedule_note_term(caller->key.relation);
	le_rule_grant(&row, state->now, grant);
}

/*
 * Nobody leads from the commit on; with a hold nobody may before the term that
 * ends here is that old.  It began by the lease clock, or, in an earlier epoch,
 * by the wall clock, which may be wrong: the hold does not last longer than it
 * would from now on.
 *
 * The row stays without a hold, too, while a promotion's grace runs: an
 * operator has vouched for this lock, which is vacant only as long as it has one.
 */
void
le_transition_release(Relation rel, const LeKey *key, const LeState *state,
					  int64 hold_ms, const LeEpoch *epoch)
{
	LeRow		row = state->row;
	TimestampTz began;
	TimestampTz end;

	Assert(le_lock_held(LE_LOCK_LEASE, key->lock_id, ExclusiveLock));

	began = row.epoch == epoch->id ?
		row.expires_at - le_rule_length(row.lease_ms) :
		state->now - (GetCurrentTimestamp() - row.created_at);
	end = Min(began, state->now) + hold_ms * 1000;

	end_note(rel, key, state, LE_RELEASED, GetCurrentTimestamp(), epoch);
	le_event_queue(key, "released");
	if (end <= state->now && !le_token_grace_runs(rel, state->now, epoch))
	{
		le_table_delete(rel, &row);
		return;
	}
	row_renew(rel, &row, state->now, epoch);
	row.state = LE_STATE_HELD;
	row.lease_ms = Max(hold_ms, 1);
	row.expires_at = end;
	row.has_info = false;
	le_table_update(rel, &row);
	le_schedule_note_term(key->relation);
}

/* The successor leads from the commit on, as if he had begun the term now. */
void
le_transition_transfer(Relation rel, const LeKey *key, const LeState *state,
					   const char *successor, Oid role, const LeEpoch *epoch)
{
	LeRow		row = state->row;
	TimestampTz wall = GetCurrentTimestamp();	/* there is no time between */

	Assert(le_lock_held(LE_LOCK_LEASE, key->lock_id, ExclusiveLock));

	end_note(rel, key, state, LE_TRANSFERRED, wall, epoch);
	le_event_queue(key, "transferred");
	row_renew(rel, &row, state->now, epoch);
	row.expires_at = state->now + le_rule_length(row.lease_ms);
	row.created_at = wall;
	strlcpy(row.leader_id, successor, sizeof(row.leader_id));
	row.leader_role = role;
	row.has_info = false;
	begin_note(key, &row, epoch);
	le_table_update(rel, &row);
	le_schedule_note_term(key->relation);
}

/*
 * Nobody leads from the commit on.  Who has led may believe so until the end
 * of the lease: others wait for that, unless immediately.  state has been
 * looked at after the mark, so this end is not prolonged any more.
 *
 * Where the term had ended before, only what is left of it changes.  Whoever
 * gave the lock up with a hold may lead again at once when that is lifted.
 */
void
le_transition_revoke(Relation rel, const LeKey *key, const LeState *state,
					 bool immediately, const LeEpoch *epoch)
{
	LeRow		row = state->row;

	Assert(le_lock_held(LE_LOCK_LEASE, key->lock_id, ExclusiveLock));

	end_note(rel, key, state, LE_REVOKED, GetCurrentTimestamp(), epoch);
	le_event_queue(key, "revoked");
	if (!immediately)
		row.expires_at = le_rule_end(state, epoch);
	else if (row.state != LE_STATE_HELD)
		row.expires_at = state->now + le_rule_ban(row.lease_ms);
	else
	{
		row.expires_at = state->now;
		row.lease_ms = 1;		/* by which an epoch to come counts the ban */
	}
	row.state = immediately ? LE_STATE_REVOKED_NOW : LE_STATE_REVOKED;
	row.has_info = false;
	row_renew(rel, &row, state->now, epoch);
	le_table_update(rel, &row);
	le_schedule_note_term(key->relation);
}

/* Nothing rests on this row any more. */
void
le_transition_sweep(Relation rel, const LeKey *key, const LeState *state,
					const LeEpoch *epoch)
{
	Assert(le_lock_held(LE_LOCK_LEASE, key->lock_id, ExclusiveLock));

	end_note(rel, key, state, LE_EXPIRED, GetCurrentTimestamp(), epoch);
	le_table_delete(rel, &state->row);
}
