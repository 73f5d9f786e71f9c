/*-------------------------------------------------------------------------
 *
 * look.c
 *	  Looking at a lock: clock, entry and row, in this order.
 *
 * An end that has passed by a clock that was read before the entry is final,
 * because a later heartbeat reads a later clock.
 *
 * Floor: state.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "leader_election.h"

/* One look: clock, entry, row, in this order. */
void
le_look(Relation rel, const LeKey *key, const LeEpoch *epoch,
		LeState *state)
{
	state->now = le_clock_now(epoch);
	TEST_PAUSE(LE_PAUSE_LOOK);
	le_entry_copy(key, &state->entry);
	state->found = le_table_read(rel, key->lock_id, &state->row);
}

/*
 * As le_look(), but a miss is believed only under the heavyweight lock.
 * If that is busy somebody is changing the row: one more look must do.
 */
void
le_look_hard(Relation rel, const LeKey *key, const LeEpoch *epoch,
			 LeState *state)
{
	bool		locked;

	le_look(rel, key, epoch, state);
	if (state->found)
		return;

	locked = le_lock_take(LE_LOCK_LEASE, key->lock_id, ShareLock, false);
	if (locked)
		TEST_PAUSE(LE_PAUSE_SHARED);
	le_look(rel, key, epoch, state);
	if (locked)
		le_lock_drop(LE_LOCK_LEASE, key->lock_id, ShareLock);
}
