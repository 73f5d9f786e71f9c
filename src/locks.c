/*-------------------------------------------------------------------------
 *
 * locks.c
 *	  Our heavyweight locks.
 *
 * They are advisory locks with a class number in the fourth field of the tag,
 * out of reach of pg_advisory_lock(), which uses 1 and 2.  What each class
 * protects stands at LeLockClass.
 *
 * A lock that guards an uncommitted row must live as long as that row, so all
 * are owned by the current (sub)transaction.  The resource owner that is
 * current when a function is called may be a cursor's, whose locks go when a
 * later FETCH fails, though the row stays.
 *
 * Floor: ground.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/resowner.h"

#include "compat.h"
#include "leader_election.h"

void
le_lock_tag(LOCKTAG *tag, LeLockClass class, int64 id)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) ((uint64) id >> 32),
						 (uint32) id, class);
}

/* What to do if the server's table of locks is full */
static void
lock_error_callback(void *arg)
{
	if (geterrcode() == ERRCODE_OUT_OF_MEMORY)
		errhint("Begin, end or guard fewer terms in one statement or transaction: each keeps a lock until its end. Or increase \"max_locks_per_transaction\".");
}

/* Take a heavyweight lock; false if it is not free and we must not wait. */
bool
le_lock_take(LeLockClass class, int64 id, LOCKMODE mode, bool wait)
{
	ResourceOwner save_owner = CurrentResourceOwner;
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = lock_error_callback,
	};
	LOCKTAG		tag;
	LockAcquireResult result;

	if (class == LE_LOCK_LEASE)
		TEST_PAUSE(LE_PAUSE_LOCK);

	le_lock_tag(&tag, class, id);
	CurrentResourceOwner = CurTransactionResourceOwner;
	error_context_stack = &callback;
	result = LockAcquire(&tag, mode, false, !wait);
	error_context_stack = callback.previous;
	CurrentResourceOwner = save_owner;
	return result != LOCKACQUIRE_NOT_AVAIL;
}

/*
 * Take a heavyweight lock, waiting no longer than that; false if the time is
 * up.  A shorter lock_timeout of the user's raises its error as ever.
 *
 * The wait ends by the lock manager's own timeout, so that deadlocks are found
 * and signals obeyed as in any other wait.  Its error can be caught without a
 * subtransaction, because a wait is all there is to undo.
 */
bool
le_lock_take_within(LeLockClass class, int64 id, LOCKMODE mode, int64 ms)
{
	MemoryContext save_context = CurrentMemoryContext;
	ResourceOwner save_owner = CurrentResourceOwner;
	int			save_timeout = LockTimeout;
	volatile bool taken;

	Assert(ms > 0 && ms <= INT_MAX);

	if (LockTimeout > 0 && LockTimeout <= ms)
		return le_lock_take(class, id, mode, true);

	PG_TRY();
	{
		LockTimeout = (int) ms;
		taken = le_lock_take(class, id, mode, true);
		LockTimeout = save_timeout;

		/* our timer may have fired too late: it must not cancel what follows */
		CHECK_FOR_INTERRUPTS();
	}
	PG_CATCH();
	{
		LockTimeout = save_timeout;
		if (geterrcode() != ERRCODE_LOCK_NOT_AVAILABLE)
			PG_RE_THROW();
		LockErrorCleanup();
		taken = le_lock_held(class, id, mode);	/* granted in that very
												 * moment? */
		FlushErrorState();
		MemoryContextSwitchTo(save_context);
		CurrentResourceOwner = save_owner;
	}
	PG_END_TRY();
	return taken;
}

void
le_lock_drop(LeLockClass class, int64 id, LOCKMODE mode)
{
	ResourceOwner save_owner = CurrentResourceOwner;
	LOCKTAG		tag;

	le_lock_tag(&tag, class, id);
	CurrentResourceOwner = CurTransactionResourceOwner;
	LockRelease(&tag, mode, false);
	CurrentResourceOwner = save_owner;
}

/* Lock a table that has been written, to the end of the transaction. */
void
le_lock_table(Oid relid)
{
	ResourceOwner save_owner = CurrentResourceOwner;

	CurrentResourceOwner = CurTransactionResourceOwner;
	LockRelationOid(relid, RowExclusiveLock);
	CurrentResourceOwner = save_owner;
}

bool
le_lock_held(LeLockClass class, int64 id, LOCKMODE mode)
{
	LOCKTAG		tag;

	le_lock_tag(&tag, class, id);
	return compat_lock_held(&tag, mode);
}
