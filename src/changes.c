/*-------------------------------------------------------------------------
 *
 * changes.c
 *	  What the current transaction has begun and ended.
 *
 * Each change of who leads is noted here, in its subtransaction, before its
 * row is written: a commit depends on it, and memory is given back at the end.
 * What is done after the commit must not raise an error.
 *
 * Floor: transitions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "leader_election.h"

/* A term that the current transaction has begun or ended */
typedef struct LeChange
{
	LeTerm		term;
	LeChangeKind kind;
	bool		in_block;		/* begun where the commit may come late */
	LeReservation before;		/* the one that a begun term's replaced */
	SubTransactionId subid;		/* undone together with this one */
	char		instance[LE_INSTANCE_MAX + 1];
} LeChange;

/* settings */
bool		le_log_terms = false;

/* Whom to wake at the end, because of one lock */
typedef struct LeWake
{
	LeKey		key;
	bool		vacant;			/* a term has been ended */
	char		instance[LE_INSTANCE_MAX + 1];	/* of the last term noted */
} LeWake;

/* Of more locks in one transaction it is not noted which, but that all who
 * wait in the database shall look. */
#define WAKE_MAX 16

static LeWake wakes[WAKE_MAX];
static int	n_wakes = 0;

static List *changes = NIL;		/* of LeChange, in TopTransactionContext */

/*
 * Are we in a transaction that goes on after this statement?  The first one of
 * a pipeline cannot be told.
 */
bool
le_in_transaction_block(void)
{
	return IsTransactionBlock() ||
		(MyXactFlags & XACT_FLAGS_PIPELINING) != 0;
}

/*
 * Who waits for this lock is to look when our locks are gone.  That a term has
 * run out is nobody's news: he knows by the time.
 */
static void
wake_note(const LeKey *key, const LeRow *row, LeChangeKind kind)
{
	LeWake	   *wake = wakes;

	if (kind == LE_EXPIRED || kind == LE_SWEPT || n_wakes > WAKE_MAX)
		return;
	(void) le_waiters_attach();
	while (wake < wakes + n_wakes && !le_same_key(&wake->key, key))
		wake++;
	if (wake == wakes + n_wakes && ++n_wakes <= WAKE_MAX)
	{
		wake->key = *key;
		wake->vacant = false;
	}
	if (n_wakes > WAKE_MAX)
		return;
	if (kind != LE_BEGUN && kind != LE_TRANSFERRED)
		wake->vacant = true;
	strlcpy(wake->instance, row->leader_id, sizeof(wake->instance));
}

static LeChange *
change_note(const LeKey *key, const LeRow *row, LeChangeKind kind)
{
	MemoryContext old_context = MemoryContextSwitchTo(TopTransactionContext);
	LeChange   *change = palloc0(sizeof(LeChange));

	wake_note(key, row, kind);
	change->term.key = *key;
	change->term.token = row->token;
	change->kind = kind;
	change->in_block = le_in_transaction_block();
	change->subid = GetCurrentSubTransactionId();
	strlcpy(change->instance, row->leader_id, sizeof(change->instance));
	changes = lappend(changes, change);
	MemoryContextSwitchTo(old_context);
	return change;
}

/*
 * The current transaction begins this term.  Returns where to remember the
 * reservation that its own is going to replace.
 *
 * Outside of a block the term is committed as soon as the statement is done:
 * in a pipeline a later one that fails would undo it, and the client has been
 * told true.
 */
LeReservation *
le_change_begins(const LeKey *key, const LeRow *row)
{
	LeChange   *change = change_note(key, row, LE_BEGUN);

	if (!change->in_block)
		MyXactFlags |= XACT_FLAGS_NEEDIMMEDIATECOMMIT;
	return &change->before;
}

/* The current transaction ends this term, or notices that it has run out. */
void
le_change_ends(const LeKey *key, const LeRow *row, LeChangeKind how)
{
	(void) change_note(key, row, how);
}

/* Has the current transaction begun, ended or swept a term? */
bool
le_change_is_pending(void)
{
	return changes != NIL;
}

/* Has the current transaction ended this term itself, as its holder? */
bool
le_change_ended_here(const LeTerm *term)
{
	ListCell   *cell;

	foreach(cell, changes)
	{
		LeChange   *change = lfirst(cell);

		if ((change->kind == LE_RELEASED || change->kind == LE_TRANSFERRED) &&
			le_same_term(&change->term, term))
			return true;
	}
	return false;
}

/* ---------------------------------------------------------------------
 * The end of a transaction
 * ---------------------------------------------------------------------
 */

/*
 * At commit: a term that was begun inside a block must not be over already.
 * One that a savepoint has undone does not count.
 */
static void
change_check_begun(const LeTerm *term)
{
	const LeEpoch *epoch = le_epoch_current();
	Relation	rel = le_table_try_open(term->key.relation, AccessShareLock);
	LeState		state;

	if (rel == NULL)
		return;
	le_look(rel, &term->key, epoch, &state);
	if (state.found && state.row.own && state.row.token == term->token &&
		!le_rule_live(&state, epoch))
		ereport(ERROR,
				(errcode(ERRCODE_LE_LEADERSHIP_LOST),
				 errmsg("the lease that this transaction began on lock " INT64_FORMAT " has run out before its commit",
						term->key.lock_id),
				 errhint("Commit sooner, or ask for a longer lease.")));
	table_close(rel, AccessShareLock);
}

/*
 * A term that a failover loses would be two leaders.  Unlike ForceSyncCommit()
 * this waits for a synchronous standby too.  A term that has run out is over
 * with and without its row.
 */
static void
commit_durably(void)
{
	ListCell   *cell;

	if (synchronous_commit >= SYNCHRONOUS_COMMIT_REMOTE_FLUSH)
		return;

	foreach(cell, changes)
	{
		LeChangeKind kind = ((LeChange *) lfirst(cell))->kind;

		if (kind == LE_EXPIRED || kind == LE_SWEPT)
			continue;
		(void) set_config_option("synchronous_commit", "on",
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
		return;
	}
}

static void
change_log(const LeChange *change)
{
	const char *what = "";
	char		instance[LE_INSTANCE_MAX + 1];

	/* one line, whatever the name */
	strlcpy(instance, change->instance, sizeof(instance));
	for (char *c = instance; *c != '\0'; c++)
	{
		if ((unsigned char) *c < ' ' || *c == 0x7f)
			*c = '?';
	}

	switch (change->kind)
	{
		case LE_BEGUN:
			what = "began";
			break;
		case LE_RELEASED:
			what = "released";
			break;
		case LE_TRANSFERRED:
			what = "transferred";
			break;
		case LE_REVOKED:
			what = "revoked";
			break;
		case LE_EXPIRED:
			what = "expired";
			break;
		case LE_LIFTED:
		case LE_SWEPT:
			return;
	}
	/* not for the client: names are the credentials of leaders */
	ereport(LOG_SERVER_ONLY,
			(errmsg("term of leadership %s: lock " INT64_FORMAT ", instance \"%s\", token " INT64_FORMAT,
					what, change->term.key.lock_id, instance, change->term.token),
			 errhidestmt(true), errhidecontext(true)));
}

/*
 * A term has begun, and the commit has waited for the synchronous standby.  Was
 * that cut short by a cancel?  Then nobody may be told that he leads, and the
 * warning that the server gives is not seen by every client: end the session
 * without an answer, as a termination in that wait does.  The client asks
 * again, and is told true when the standby has the term.
 */
static void
begun_unconfirmed(void)
{
	ListCell   *cell;

	foreach(cell, changes)
	{
		if (((LeChange *) lfirst(cell))->kind != LE_BEGUN)
			continue;
		whereToSendOutput = DestNone;
		ProcDiePending = true;
		InterruptPending = true;
	}
}

/*
 * The changes of a transaction or subtransaction are done, or undone: log them
 * and give the memory of the terms that are no more back.  Raises nothing,
 * because the commit may be behind us; what cannot be given back is found by
 * a sweep when it is over.
 */
static void
changes_finish(bool committed, SubTransactionId subid)
{
	MemoryContext save_context = CurrentMemoryContext;
	ResourceOwner save_owner = CurrentResourceOwner;
	uint32		save_holdoff = InterruptHoldoffCount;
	volatile bool confirmed = false;

	/* first, because it must not be left out for an error of the others */
	if (committed && le_standby_must_confirm())
	{
		confirmed = le_standby_has(XactLastCommitEnd);
		/* not wanted any more?  Now told: that is written under SyncRepLock */
		if (!confirmed && le_standby_must_confirm())
			begun_unconfirmed();
	}

	PG_TRY();
	{
		/* from the last to the first, so that reservations come back */
		for (int i = list_length(changes) - 1; i >= 0; i--)
		{
			LeChange   *change = list_nth(changes, i);
			bool		begun = (change->kind == LE_BEGUN);

			if (subid != InvalidSubTransactionId && change->subid != subid)
				continue;
			if (begun != committed)
				le_entry_forget(&change->term, &change->before);
			else if (begun && confirmed)
				le_entry_confirm(&change->term);
		}
		for (int i = 0; committed && le_log_terms && i < list_length(changes); i++)
			change_log(list_nth(changes, i));
	}
	PG_CATCH();
	{
		LWLockReleaseAll();
		InterruptHoldoffCount = save_holdoff;
		MemoryContextSwitchTo(save_context);
		CurrentResourceOwner = save_owner;
		FlushErrorState();
	}
	PG_END_TRY();
}

/* Called for each transaction by the callback that is registered at load */
void
le_change_at_end(XactEvent event)
{
	ListCell   *cell;

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			foreach(cell, changes)
			{
				LeChange   *change = lfirst(cell);

				if (change->kind == LE_BEGUN && change->in_block)
					change_check_begun(&change->term);
			}
			commit_durably();
			break;

		case XACT_EVENT_PRE_PREPARE:
			if (changes != NIL)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has begun, ended or swept a term of leadership")));
			break;

		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
			if (changes != NIL)
				changes_finish(event == XACT_EVENT_COMMIT,
							   InvalidSubTransactionId);
			changes = NIL;		/* their memory goes with the transaction */
			break;

		case XACT_EVENT_PREPARE:
			changes = NIL;
			break;

		default:
			break;
	}
}

/* What a subtransaction has changed becomes its parent's, or is undone. */
static void
change_subxact_callback(SubXactEvent event, SubTransactionId subid,
						SubTransactionId parent, void *arg)
{
	ListCell   *cell;

	if (changes == NIL)
		return;

	if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		foreach(cell, changes)
		{
			LeChange   *change = lfirst(cell);

			if (change->subid == subid)
				change->subid = parent;
		}
	}
	else if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		changes_finish(false, subid);
		foreach(cell, changes)
		{
			if (((LeChange *) lfirst(cell))->subid == subid)
				changes = foreach_delete_current(changes, cell);
		}
	}
}

/*
 * After the commit, or rollback, and when all locks are gone: before that a
 * change is not to be seen yet, or the lock not to be had, and who had looked
 * would sleep on.  Here an error is a PANIC.
 */
static void
change_release_callback(ResourceReleasePhase phase, bool is_commit,
						bool is_top_level, void *arg)
{
	if (n_wakes == 0 || !is_top_level ||
		phase != RESOURCE_RELEASE_AFTER_LOCKS)
		return;
	if (n_wakes > WAKE_MAX)
		le_waiters_wake_all(wakes[0].key.database);
	for (int i = 0; i < n_wakes && n_wakes <= WAKE_MAX; i++)
		le_waiters_wake(&wakes[i].key, wakes[i].instance,
						wakes[i].vacant || !is_commit);
	n_wakes = 0;
}

/* At load */
void
le_change_init(void)
{
	RegisterSubXactCallback(change_subxact_callback, NULL);
	RegisterResourceReleaseCallback(change_release_callback, NULL);
}
