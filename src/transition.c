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

/* The caller leads from the commit on, as the lock is vacant. */
void
le_transition_begin(Relation rel, const LeCaller *caller, const LeBid *bid,
					const LeState *state, const LeEpoch *epoch,
					LeGrant *grant)
{
	LeRow		row = {0};
	LeReservation reservation;
	LeReservation *before;

	Assert(le_lock_held(LE_LOCK_LEASE, caller->key.lock_id, ExclusiveLock));

	row.lock_id = caller->key.lock_id;
	row.token = le_token_draw(rel, epoch->lineage,
							  state->found ? state->row.token : 0);
	row.lease_ms = bid->lease_ms;
	row.leader_role = caller->role;
	row.lineage = epoch->lineage;
	row.epoch = epoch->id;
	row.expires_at = state->now + le_rule_length(bid->lease_ms);
	row.created_at = GetCurrentTimestamp();
	strlcpy(row.leader_id, caller->instance, sizeof(row.leader_id));
	row.has_info = (bid->info != NULL);
	if (row.has_info)
		strlcpy(row.info, bid->info, sizeof(row.info));

	if (state->found && !state->row.copied)
		le_change_ends(&caller->key, &state->row, LE_EXPIRED);
	before = le_change_begins(&caller->key, &row);
	reservation.token = row.token;
	reservation.until = row.expires_at;
	le_entry_reserve(&caller->key, &reservation, before, epoch);

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

/* Nobody leads by this row from the commit on. */
void
le_transition_end(Relation rel, const LeKey *key, const LeRow *row,
				  LeChangeKind how)
{
	Assert(le_lock_held(LE_LOCK_LEASE, key->lock_id, ExclusiveLock));

	le_change_ends(key, row, how);
	le_table_delete(rel, row);
}
