/*-------------------------------------------------------------------------
 *
 * rules.c
 *	  The rules of a lease.
 *
 * Row, entry, caller, now and epoch come in as arguments, a verdict goes out.
 * Nothing here reads a clock, takes a lock or touches shared memory, so all of
 * it may be called under a partition lock.
 *
 * Floor: ground.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "leader_election.h"

#define BAN_MAX INT64CONST(60000000)	/* microseconds */

/* settings */
int			le_promotion_grace = 10000;

/*
 * How long the server keeps a lease, in microseconds: 1/10 longer than its
 * holder counts, because their clocks may run at different rates.  A client's
 * clock that is slewed by 1/12, which is what chronyd allows itself, makes a
 * lease 1/11 longer.
 */
int64
le_rule_length(int64 lease_ms)
{
	int64		length = lease_ms * 1000;

	return length + length / 10;
}

/* How long is a revoked instance kept from leading again, in microseconds? */
int64
le_rule_ban(int64 lease_ms)
{
	return Min(le_rule_length(lease_ms), BAN_MAX);
}

/*
 * When does what this row says end?  Of a live one the entry knows more.  In a
 * later epoch it is not known what had been renewed: count from its start.
 */
TimestampTz
le_rule_end(const LeState *state, const LeEpoch *epoch)
{
	const LeRow *row = &state->row;

	if (row->state == LE_STATE_LIVE && state->entry.token == row->token)
		return state->entry.expires_at;
	if (row->epoch == epoch->id)
		return row->expires_at;

	switch (row->state)
	{
		case LE_STATE_HELD:
			/* protects no lease: no longer than it was, by whichever clock */
			return Min(row->expires_at, epoch->start + row->lease_ms * 1000);
		case LE_STATE_REVOKED_NOW:
			return epoch->start + le_rule_ban(row->lease_ms);
		default:
			return epoch->start + le_rule_length(row->lease_ms);
	}
}

/*
 * Does the holder that the row names lead?  A term never outlives its
 * lineage: a promoted server may lack the last grants of the old one.  Nor
 * does it come along when a database is copied.
 */
bool
le_rule_live(const LeState *state, const LeEpoch *epoch)
{
	return state->found && state->row.state == LE_STATE_LIVE &&
		!state->row.copied && state->row.lineage == epoch->lineage &&
		state->now < le_rule_end(state, epoch);
}

/*
 * From when on may this instance (NULL: any other than the row names) begin a
 * term, as far as the row is concerned?
 */
static TimestampTz
row_vacant_from(const LeState *state, const char *instance,
				const LeEpoch *epoch)
{
	const LeRow *row = &state->row;
	TimestampTz end = le_rule_end(state, epoch);
	bool		named = (instance != NULL &&
						 strcmp(instance, row->leader_id) == 0);

	switch (row->state)
	{
		case LE_STATE_REVOKED:
			return named ? end + le_rule_ban(row->lease_ms) : end;
		case LE_STATE_REVOKED_NOW:
			return named ? end : DT_NOBEGIN;
		default:
			return end;
	}
}

/* When is a promotion's grace over? */
TimestampTz
le_rule_grace(const LeEpoch *epoch)
{
	return epoch->start + le_rule_length(le_promotion_grace);
}

/*
 * From when on may this instance (NULL: any other than the row names) begin a
 * term?  After a promotion not before the grace has passed, because a leader
 * that this server does not know of may still count on a lease; nor before one
 * lease of the row that is known.  known_lineage is that of the last term in
 * this database.
 */
TimestampTz
le_rule_vacant_from(const LeState *state, int64 known_lineage,
					const char *instance, const LeEpoch *epoch)
{
	if (!state->found || state->row.copied)
		return known_lineage == epoch->lineage ? DT_NOBEGIN :
			le_rule_grace(epoch);
	if (state->row.lineage == epoch->lineage)
		return row_vacant_from(state, instance, epoch);
	return Max(le_rule_grace(epoch), row_vacant_from(state, instance, epoch));
}

/* Until when does anything rest on this row, for whomever? */
TimestampTz
le_rule_rests_until(const LeState *state, const LeEpoch *epoch)
{
	return le_rule_vacant_from(state, state->row.lineage,
							   state->row.leader_id, epoch);
}

/*
 * When does what a view says of this row end?  For others than the row names,
 * but a ban that keeps nobody else is shown as well.
 */
TimestampTz
le_rule_shown_end(const LeState *state, const LeEpoch *epoch)
{
	if (state->row.state == LE_STATE_REVOKED_NOW)
		return le_rule_rests_until(state, epoch);
	return le_rule_vacant_from(state, state->row.lineage, NULL, epoch);
}

/* What the view says of a row that was found */
LePhase
le_rule_phase(const LeState *state, const LeEpoch *epoch)
{
	if (le_rule_live(state, epoch))
		return state->entry.token == state->row.token ||
			state->row.epoch == epoch->id ?
			LE_PHASE_LIVE : LE_PHASE_RESTARTED;
	if (state->now >= le_rule_rests_until(state, epoch))
		return LE_PHASE_EXPIRED;
	if (state->row.lineage != epoch->lineage &&
		(state->row.state == LE_STATE_LIVE ||
		 state->now < le_rule_grace(epoch)))
		return LE_PHASE_GRACE;
	return state->row.state == LE_STATE_HELD ? LE_PHASE_HELD :
		LE_PHASE_REVOKED;
}

/* Who leads by an entry that is usable */
void
le_entry_holder(const LeEntry *entry, LeHolder *holder)
{
	holder->token = entry->token;
	holder->role = entry->leader_role;
	holder->end = entry->expires_at;
	strlcpy(holder->instance, entry->leader_id, sizeof(holder->instance));
}

/* Who leads by a row that is live */
void
le_rule_holder(const LeState *state, const LeEpoch *epoch, LeHolder *holder)
{
	holder->token = state->row.token;
	holder->role = state->row.leader_role;
	holder->end = le_rule_end(state, epoch);
	strlcpy(holder->instance, state->row.leader_id, sizeof(holder->instance));
}

/* What the holder of a row is told whose end is counted from that time */
void
le_rule_grant(const LeRow *row, TimestampTz counted_from, LeGrant *grant)
{
	grant->token = row->token;
	grant->lease_ms = row->lease_ms;
	grant->counted_from = counted_from;
	grant->awaited = false;
	grant->resign = false;
}

/* Is this term the caller's, by name and, if it gave one, by token? */
bool
le_rule_names(const LeCaller *caller, const char *leader_id, int64 token)
{
	return strcmp(leader_id, caller->instance) == 0 &&
		(caller->token == LE_TOKEN_ANY || caller->token == token);
}

/* Is the caller the live holder, in the term it names? */
bool
le_rule_leads(const LeCaller *caller, const LeState *state,
			  const LeEpoch *epoch)
{
	return le_rule_live(state, epoch) &&
		le_rule_names(caller, state->row.leader_id, state->row.token);
}

/*
 * Might the caller be the live holder, so that it is worth its while to wait
 * for another transaction?  A marked entry counts too, unless the row tells
 * of another term: the row that it speaks of may be changing under our eyes.
 * (A mark can outlive its term, so this is not for le_try_acquire(): a
 * challenger never waits.)
 */
bool
le_rule_worth_waiting(const LeCaller *caller, const LeState *state,
					  const LeEpoch *epoch)
{
	const LeEntry *entry = &state->entry;

	if (le_rule_leads(caller, state, epoch))
		return true;
	return entry->recheck && entry->token != 0 &&
		(!state->found || state->row.token == entry->token) &&
		state->now < entry->expires_at &&
		le_rule_names(caller, entry->leader_id, entry->token);
}

/* Has nothing rested on this row for that long? */
bool
le_rule_over(const LeState *state, int64 expired_for_ms,
			 const LeEpoch *epoch)
{
	return state->found &&
		state->now - expired_for_ms * 1000 >=
		le_rule_rests_until(state, epoch);
}
