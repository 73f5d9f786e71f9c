/*-------------------------------------------------------------------------
 *
 * test_pause.c
 *	  Holds a session at a chosen point, for tests of races.
 *
 * Only in a build made with "make TEST_PAUSE=1".  A session that has set
 * leader_election.test_pause waits at each point whose number another one has
 * locked with pg_advisory_lock().
 *
 * Floor: ground.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
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

void
le_test_pause(LePause point)
{
	LOCKTAG		tag;

	if (!pauses)
		return;
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, point, 1);
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
