/*-------------------------------------------------------------------------
 *
 * locks.c
 *	  Our heavyweight locks.
 *
 * They are advisory locks with a class number in the fourth field of the tag,
 * out of reach of pg_advisory_lock(), which uses 1 and 2.  What each class
 * protects stands at LeLockClass.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"

#include "compat.h"
#include "leader_election.h"

void
lock_tag(LOCKTAG *tag, LeLockClass class, int64 id)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) ((uint64) id >> 32),
						 (uint32) id, class);
}

/* Take a heavyweight lock; false if it is not free and we must not wait. */
bool
lock_take(LeLockClass class, int64 id, LOCKMODE mode, bool wait)
{
	LOCKTAG		tag;

	if (class == LE_LOCK_LEASE)
		TEST_PAUSE(LE_PAUSE_LOCK);
	lock_tag(&tag, class, id);
	return LockAcquire(&tag, mode, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

void
lock_drop(LeLockClass class, int64 id, LOCKMODE mode)
{
	LOCKTAG		tag;

	lock_tag(&tag, class, id);
	LockRelease(&tag, mode, false);
}

bool
lock_held(LeLockClass class, int64 id, LOCKMODE mode)
{
	LOCKTAG		tag;

	lock_tag(&tag, class, id);
	return compat_lock_held(&tag, mode);
}
