/*-------------------------------------------------------------------------
 *
 * campaign.c
 *	  Waiting for a lock, or for news of it.
 *
 * Who waits holds no lock and sleeps on his latch: until the end that he
 * knows, or until somebody who has ended or begun a term wakes him.  Each turn
 * goes: take the place in the list (or have it), is the client still there?,
 * look, sleep.  The question resets the latch, so it comes before the look:
 * after the look a wake-up must not be lost.  (Reading a page may eat one; then
 * it is a second until the next look.)
 *
 * Floor: protocol.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "leader_election.h"

#define MS INT64CONST(1000)

/* nobody sleeps longer without having a look, for a wake-up that was not sent */
#define TURN_MAX TEST_TURN(1000 * MS)

/*
 * At a vacancy the first one challenges at once, and whoever is behind him so
 * much later, each: if the first is gone, or may not lead, it is his turn.
 */
#define TURN_OF_NEXT TEST_TURN(20 * MS)
#define TURN_OF_LAST TEST_TURN(200 * MS)

/*
 * Who finds the lock busy, or his own term not confirmed by a standby, tries
 * again after 1, 2, 4 ... ms.
 */
#define AGAIN_MIN (1 * MS)
#define AGAIN_MAX (100 * MS)

/*
 * A wait holds back VACUUM, and in a block every lock that the block has.  What
 * the transaction has begun or ended others would wait for.
 */
static void
prevent_wait_in_transaction_block(const char *function)
{
	if (!le_in_transaction_block() && GetCurrentTransactionNestLevel() == 1 &&
		!le_change_is_pending())
		return;

	ereport(ERROR,
			(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
			 GetCurrentTransactionNestLevel() > 1 ?
			 errmsg("%s cannot wait inside a subtransaction", function) :
			 le_in_transaction_block() ?
			 errmsg("%s cannot wait inside a transaction block", function) :
			 errmsg("%s cannot wait in a transaction that has begun or ended a term",
					function),
			 errhint("Call it alone, in autocommit mode, or with wait_ms => 0.")));
}

/* Take our place in the list; le_waiters_leave() when the wait is over. */
static void
wait_begin(const LeCaller *caller, bool candidate, int priority,
		   TimestampTz since, TimestampTz until)
{
	LePlace		place;

	memset(&place, 0, sizeof(place));
	place.key = caller->key;
	place.candidate = candidate;
	place.role = caller->role;
	if (candidate)
		strlcpy(place.instance, caller->instance, sizeof(place.instance));
	place.priority = priority;
	place.since = since;
	place.until = until;
	le_waiters_enter(&place);
}

/*
 * Is there still a client to wait for?  It must not become the leader without
 * knowing.  Before the look, because this resets the latch.  (Where the system
 * cannot tell, it is noticed when the answer is sent.)
 */
static void
wait_check_client(void)
{
	if (MyProcPort != NULL && WaitEventSetCanReportClosed() &&
		!pq_check_connection())
	{
		ClientConnectionLost = true;
		InterruptPending = true;
	}
	CHECK_FOR_INTERRUPTS();
}

/* Sleep until then, or until somebody wakes us: true. */
static bool
wait_sleep(TimestampTz now, TimestampTz until)
{
	long		ms = (long) ((Min(until - now, TURN_MAX) + MS - 1) / MS);
	int			events;

	TEST_PAUSE(LE_PAUSE_SLEEP);
	events = WaitLatch(MyLatch,
					   WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					   ms, compat_wait_event());
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	return (events & WL_LATCH_SET) != 0;
}

/* ---------------------------------------------------------------------
 * Candidates
 * ---------------------------------------------------------------------
 */

/* How long those who are before us go before us at a vacancy */
static int64
campaign_delay(TimestampTz now)
{
	return Min(le_waiters_before_me(now) * TURN_OF_NEXT, TURN_OF_LAST);
}

static void
campaign_wait(const LeCaller *caller, LeBid *bid, TimestampTz until,
			  LeAnswer *answer)
{
	TimestampTz my_turn = 0;	/* at the vacancy that we see; 0: none */
	TimestampTz looked_at = DT_NOEND;	/* the last time that there was none */
	int64		again = AGAIN_MIN;

	for (;;)
	{
		TimestampTz next;
		bool		ours;

		wait_check_client();

		le_lease_acquire(caller, bid, answer);
		if (answer->leads)
			return;
		le_waiters_bar(answer->barred ? answer->free_at : 0);
		ours = answer->leader.token != 0 &&
			strcmp(answer->leader.instance, caller->instance) == 0;
		if (answer->now < answer->free_at && !(ours && answer->busy))
		{
			/* if they all come then, the first has to wait for a processor */
			my_turn = 0;
			looked_at = answer->now;
			next = answer->free_at + campaign_delay(answer->now);
		}
		else if (bid->only_looks && !ours)
		{
			bool		in_time = (answer->free_at > looked_at);
			TimestampTz turn = (in_time ? answer->free_at : answer->now) +
			campaign_delay(answer->now);

			/* or else those who are before us, and dead, outlast a short wait */
			turn = Min(turn, until);
			/* who was before us may have led and gone meanwhile */
			my_turn = (my_turn == 0) ? turn : Min(my_turn, turn);
			again = AGAIN_MIN;
			next = my_turn;
		}
		else
		{
			next = answer->now + again;
			again = Min(2 * again, AGAIN_MAX);
		}

		bid->only_looks = (my_turn == 0 || answer->now < my_turn);
		if (next <= answer->now)
			continue;			/* our turn has come */
		if (until <= answer->now)
			return;
		if (!ours)
			le_entry_await(&caller->key, until);
		if (wait_sleep(answer->now, Min(next, until)) && answer->busy)
			my_turn = 0;		/* rolled back: a new vacancy, in turn again */
		bid->only_looks = (my_turn == 0 ||
						   le_clock_now(le_epoch_current()) < my_turn);
	}
}

/*
 * le_campaign: lead, and wait for it if it must be.  *waited is how long, in
 * microseconds, to the clock that the lease of a leader is counted from.
 */
void
le_campaign_run(const LeCaller *caller, LeBid *bid, int priority,
				int64 wait_ms, LeAnswer *answer, int64 *waited)
{
	TimestampTz start = le_clock_now(le_epoch_current());
	TimestampTz until = start + wait_ms * MS;

	*waited = 0;
	if (wait_ms == 0)
	{
		le_lease_acquire(caller, bid, answer);
		return;
	}

	prevent_wait_in_transaction_block(caller->function);
	bid->waits = bid->only_looks = true;
	wait_begin(caller, true, priority, start, until);
	PG_TRY();
	{
		campaign_wait(caller, bid, until, answer);
	}
	PG_FINALLY();
	{
		le_waiters_leave();
	}
	PG_END_TRY();
	if (answer->leads)
		*waited = answer->grant.counted_from - start;
	else						/* has it been dropped?  An entry cannot tell */
		table_close(le_table_open(caller->key.relation, AccessShareLock),
					AccessShareLock);
}

/* ---------------------------------------------------------------------
 * Observers
 * ---------------------------------------------------------------------
 */

/*
 * One look; true if it is news.  Soft, because each hard look takes the lock
 * in share mode; but "nobody leads" is only said when that is certain.
 */
static bool
observe_look(const LeKey *key, int64 known_token, bool last, LeState *state,
			 TimestampTz *free_at)
{
	const LeEpoch *epoch = le_epoch_current();
	Relation	rel = le_table_open(key->relation, AccessShareLock);
	int64		token;

	le_look(rel, key, epoch, state);
	token = le_rule_live(state, epoch) ? state->row.token : 0;
	if (!state->found && (last || token != known_token))
	{
		le_look_hard(rel, key, epoch, state);
		token = le_rule_live(state, epoch) ? state->row.token : 0;
	}
	*free_at = le_rule_vacant_from(state,
								   state->found && !state->row.copied ?
								   epoch->lineage :
								   le_token_known_lineage(rel), NULL, epoch);
	table_close(rel, AccessShareLock);
	return token != known_token;
}

static void
observe_wait(const LeKey *key, int64 known_token, TimestampTz until,
			 LeState *state, TimestampTz *free_at)
{
	for (;;)
	{
		wait_check_client();
		if (observe_look(key, known_token, false, state, free_at))
			return;
		if (until <= state->now)
		{
			(void) observe_look(key, known_token, true, state, free_at);
			return;
		}
		(void) wait_sleep(state->now,
						  state->now < *free_at ? Min(*free_at, until) : until);
	}
}

/*
 * le_observe: as soon as the live token is another than that one (0: somebody
 * leads), or after wait_ms.
 */
void
le_campaign_observe(const LeCaller *caller, int64 known_token, int64 wait_ms,
					LeState *state, TimestampTz *free_at)
{
	TimestampTz start = le_clock_now(le_epoch_current());
	TimestampTz until = start + wait_ms * MS;

	le_launch_poll(caller->key.relation, start);
	if (wait_ms == 0)
	{
		(void) observe_look(&caller->key, known_token, true, state, free_at);
		return;
	}

	prevent_wait_in_transaction_block(caller->function);
	wait_begin(caller, false, 0, start, until);
	PG_TRY();
	{
		observe_wait(&caller->key, known_token, until, state, free_at);
	}
	PG_FINALLY();
	{
		le_waiters_leave();
	}
	PG_END_TRY();
}
