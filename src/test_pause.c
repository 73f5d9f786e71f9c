/*-------------------------------------------------------------------------
 *
 * test_pause.c
 *	  Holds a session at a chosen point, for tests of races.
 *
 * Only in a build made with "make TEST_PAUSE=1".  A session that has set
 * leader_election.test_pause waits at each point whose number another one has
 * locked with pg_advisory_lock().
 *
 * Who waits for a lock in the usual way sleeps on its latch.  So at the point
 * where a wake-up must not be lost a session asks for the lock again and again,
 * and the isolation tester does not see it wait: it shows that it is there by
 * the advisory lock (1, point), in share mode.
 *
 * Floor: ground.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/guc.h"

#include "leader_election.h"

static bool pauses = false;

void
le_test_pause_init(void)
{
	DefineCustomBoolVariable("leader_election.test_pause",
							 "Waits at points that are locked by an advisory lock.",
							 NULL,
							 &pauses,
							 false, PGC_USERSET, 0, NULL, NULL, NULL);
}

/* Wait until nobody has that lock, without touching our latch. */
static void
pause_awake(LePause point, const LOCKTAG *tag)
{
	LOCKTAG		here;

	if (LockAcquire(tag, ShareLock, false, true) != LOCKACQUIRE_NOT_AVAIL)
		return;
	SET_LOCKTAG_ADVISORY(here, MyDatabaseId, 1, point, 2);
	(void) LockAcquire(&here, ShareLock, false, true);
	while (LockAcquire(tag, ShareLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
	{
		CHECK_FOR_INTERRUPTS();
		pg_usleep(1000);
	}
	LockRelease(&here, ShareLock, false);
}

void
le_test_pause(LePause point)
{
	LOCKTAG		tag;

	if (!pauses)
		return;
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, point, 1);
	if (point == LE_PAUSE_SLEEP)
		pause_awake(point, &tag);
	else
		(void) LockAcquire(&tag, ShareLock, false, false);
	LockRelease(&tag, ShareLock, false);
}

/*
 * How long does a challenger wait for those who look?  Such a session for one
 * that is held, others not at all, so that the tester does not see them wait.
 */
int
le_test_patience(int ms)
{
	return pauses ? 60000 : 0;
}

/*
 * How long does somebody sleep who waits for a lock?  Such a session so long
 * that only a wake-up ends it within the time that a test has.
 */
int64
le_test_turn(int64 us)
{
	return pauses ? 1000 * us : us;
}
