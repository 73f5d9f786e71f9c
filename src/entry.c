/*-------------------------------------------------------------------------
 *
 * entry.c
 *	  What happens to an entry: heartbeats, marks, reservations.
 *
 * An entry is locked by its partition's lock.  Between finding it and
 * le_store_unlock() or le_store_delete() nothing may fail, wait, allocate or
 * look at a catalog: what a verdict needs from outside (the row, the caller's
 * rights) is handed in.
 *
 * An entry is written only on behalf of a committed row, and given back only
 * when its term has ended and the transaction that ended it holds the lock's
 * heavyweight lock still.
 *
 * Floor: state.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "leader_election.h"

/* Copy an entry; token 0 if there is none. */
void
le_entry_copy(const LeKey *key, LeEntry *copy)
{
	LeEntry    *entry = le_store_find_to_look(key);

	if (entry == NULL)
	{
		memset(copy, 0, sizeof(LeEntry));
		return;
	}
	*copy = *entry;
	le_store_unlock(entry);
}

/* What the holder is told who has just renewed */
static void
entry_grant(const LeEntry *entry, LeGrant *grant)
{
	grant->token = entry->token;
	grant->lease_ms = entry->lease_ms;
	grant->counted_from = entry->renewed_at;
	grant->awaited = entry->renewed_at < entry->awaited_until;
	grant->resign = (entry->resign_token == entry->token);
}

/*
 * The fast heartbeat: needs neither row nor heavyweight lock.
 *
 * The caller's role needs no judging if it is the term's; another role's term
 * is renewed only if the caller has judged exactly that role.  lease_ms is
 * what the caller asks for, 0 for whatever it is.  *grant tells of a
 * LE_BEAT_DONE, *seen is the entry that led to another answer, *now is the
 * clock as it was read; if it was not, DT_NOBEGIN.
 */
LeBeat
le_entry_beat(const LeCaller *caller, int64 lease_ms, Oid judged_role,
			  const LeEpoch *epoch, LeGrant *grant, LeEntry *seen,
			  TimestampTz *now)
{
	LeEntry    *entry;
	LeBeat		beat;

	TEST_PAUSE(LE_PAUSE_BEAT);
	entry = le_store_find(&caller->key);
	if (entry == NULL)
	{
		*now = DT_NOBEGIN;
		return LE_BEAT_ASK_ROW;
	}

	*now = le_clock_now(epoch);
	if (!le_entry_usable(entry, *now))
		beat = LE_BEAT_ASK_ROW;
	else if (!le_rule_names(caller, entry->leader_id, entry->token))
		beat = LE_BEAT_REFUSED;
	else if (entry->leader_role != caller->role &&
			 entry->leader_role != judged_role)
		beat = LE_BEAT_ASK_ROLE;
	else if (lease_ms > entry->lease_ms)
		beat = LE_BEAT_TOO_LONG;
	else
	{
		entry->least_left = Min(entry->least_left, entry->expires_at - *now);
		entry->expires_at = *now + le_rule_length(entry->lease_ms);
		entry->renewed_at = *now;
		entry->renewals++;
		entry_grant(entry, grant);
		beat = LE_BEAT_DONE;
	}
	if (beat != LE_BEAT_DONE)
		*seen = *entry;
	le_store_unlock(entry);
	return beat;
}

/*
 * The slow heartbeat: write the entry for a committed row that names the
 * caller, and clear its mark.  The caller holds the heavyweight lock, has
 * read the row under it and has been judged.  False if the lease is over.
 */
bool
le_entry_beat_row(const LeCaller *caller, const LeRow *row,
				  const LeEpoch *epoch, LeGrant *grant)
{
	LeEntry    *entry;
	LeState		state;
	TimestampTz end;
	bool		live;

	Assert(le_lock_held(LE_LOCK_LEASE, caller->key.lock_id, ShareLock) ||
		   le_lock_held(LE_LOCK_LEASE, caller->key.lock_id, ExclusiveLock));
	Assert(!row->own);

	state.found = true;
	state.row = *row;

	TEST_PAUSE(LE_PAUSE_ENTRY);
	entry = le_store_find_or_insert(&caller->key, epoch);
	state.now = le_clock_now(epoch);
	state.entry = *entry;
	live = le_rule_live(&state, epoch);
	end = le_rule_end(&state, epoch);
	if (live)
	{
		if (entry->token != row->token)
		{
			entry->token = row->token;
			/* the place was reserved for this term */
			memset(&entry->reserved, 0, sizeof(LeReservation));
			entry->renewals = 0;
			entry->least_left = PG_INT64_MAX;
			entry->lease_ms = row->lease_ms;
			entry->leader_role = row->leader_role;
			strlcpy(entry->leader_id, row->leader_id,
					sizeof(entry->leader_id));
		}
		entry->least_left = Min(entry->least_left, end - state.now);
		entry->expires_at = Max(end, state.now + le_rule_length(row->lease_ms));
		entry->renewed_at = state.now;
		entry->renewals++;
		entry->recheck = false;
		entry_grant(entry, grant);
	}
	le_store_unlock(entry);
	return live;
}

/*
 * Make sure that there is an entry before a term's row is written, so that a
 * term that could not be renewed for lack of memory never begins.  The entry
 * has its place until the end of the term's first lease.
 */
void
le_entry_reserve(const LeKey *key, const LeReservation *reservation,
				 LeReservation *before, const LeEpoch *epoch)
{
	LeEntry    *entry;

	Assert(le_lock_held(LE_LOCK_LEASE, key->lock_id, ExclusiveLock));

	entry = le_store_find_or_insert(key, epoch);
	*before = entry->reserved;
	entry->reserved = *reservation;
	entry->confirmed = false;
	entry->awaited_until = 0;	/* whoever waits still will say so again */
	le_store_unlock(entry);
}

/*
 * The term is no more, or has never been: give back the memory of its
 * heartbeats.  The transaction that ended it, or began it and was rolled back,
 * holds the heavyweight lock still, so nobody has begun another one since.
 * (If that transaction has itself, the entry is reserved for that one.)
 * before is the reservation that this term's took the place of.
 */
void
le_entry_forget(const LeTerm *term, const LeReservation *before)
{
	LeEntry    *entry;

	Assert(le_lock_held(LE_LOCK_LEASE, term->key.lock_id, ExclusiveLock));

	entry = le_store_find(&term->key);
	if (entry == NULL)
		return;
	if (entry->token == term->token)
	{
		entry->token = 0;
		entry->expires_at = 0;
		entry->recheck = false;
	}
	if (entry->reserved.token == term->token)
		entry->reserved = *before;
	if (entry->token == 0 && entry->reserved.token == 0)
		le_store_delete(entry);
	else
		le_store_unlock(entry);
}

/* The synchronous standby has the row of this term, which has just begun. */
void
le_entry_confirm(const LeTerm *term)
{
	LeEntry    *entry;

	entry = le_store_find(&term->key);
	if (entry == NULL)
		return;
	if (entry->reserved.token == term->token)
		entry->confirmed = true;
	le_store_unlock(entry);
}

/*
 * Ask the holder of this term to go: his next heartbeat tells him.  A term that
 * has none yet may have no place either, after a restart; then it gets one
 * until its end.  (If another place is kept already, a transition is on its way,
 * and may be undone.)
 */
void
le_entry_request_resign(const LeTerm *term, TimestampTz end,
						const LeEpoch *epoch)
{
	LeEntry    *entry = le_store_find_or_insert(&term->key, epoch);

	if (entry->token == 0 && entry->reserved.token == 0)
	{
		entry->reserved.token = term->token;
		entry->reserved.until = end;
		entry->confirmed = false;
	}
	/* a later term has renewed already: ours is over, and it may be asked */
	if (entry->token <= term->token)
		entry->resign_token = term->token;
	le_store_unlock(entry);
}

/*
 * Somebody else waits for the lock until then: the leader is told by its next
 * heartbeat.  Not if there is no place yet, after a restart.
 */
void
le_entry_await(const LeKey *key, TimestampTz until)
{
	LeEntry    *entry = le_store_find(key);

	if (entry == NULL)
		return;
	entry->awaited_until = Max(entry->awaited_until, until);
	le_store_unlock(entry);
}

/*
 * Mark an entry before its row is changed.  From here on a heartbeat asks the
 * row, and so waits for our transaction; if we roll back the first one that
 * comes clears the mark.
 */
void
le_entry_mark(const LeKey *key, LeEntry *copy)
{
	LeEntry    *entry;

	Assert(le_lock_held(LE_LOCK_LEASE, key->lock_id, ExclusiveLock));

	entry = le_store_find(key);
	if (entry == NULL)
	{
		memset(copy, 0, sizeof(LeEntry));
		return;
	}
	*copy = *entry;
	entry->recheck = true;
	le_store_unlock(entry);
}
