/*-------------------------------------------------------------------------
 *
 * standby.c
 *	  A term that the synchronous standby may lack is not believed.
 *
 * A commit that waits for its standby can be cut short: its backend is
 * cancelled or killed, the server restarted.  The row is then committed here
 * and nobody knows whether it is there; a failover may lose it, and elect
 * another.  So whoever wants to write the first entry for a row in an epoch
 * waits until the standby has all that is on our disk by then, row included;
 * unless the commit has noted in the entry that its own wait was fulfilled.
 *
 * Floor: state.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "storage/latch.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "leader_election.h"

#define LOOK_AGAIN_MS 50

/* Is there a synchronous standby whose word we need? */
bool
le_standby_must_confirm(void)
{
	return max_wal_senders > 0 && SyncRepStandbyNames != NULL &&
		SyncRepStandbyNames[0] != '\0' && !compat_standbys_dismissed();
}

/* Have the standbys flushed all up to there? */
bool
le_standby_has(XLogRecPtr lsn)
{
	XLogRecPtr	flushed;

	LWLockAcquire(SyncRepLock, LW_SHARED);
	flushed = WalSndCtl->lsn[SYNC_REP_WAIT_FLUSH];
	LWLockRelease(SyncRepLock);
	return flushed >= lsn;
}

/* What they have to flush until they have all that can be seen here */
XLogRecPtr
le_standby_target(void)
{
	return GetFlushRecPtr(NULL);
}

/*
 * Wait until the standbys have flushed that much.  As strict as a commit
 * with synchronous_commit = on, whatever the session has set.  (Not by
 * SyncRepWaitForLSN(), which is for commits: it can neither raise an error nor
 * obey all timeouts, and ends quietly when it is cancelled.)
 *
 * No lock may be held that others wait for.
 */
void
le_standby_wait(XLogRecPtr lsn)
{
	while (le_standby_must_confirm() && !le_standby_has(lsn))
	{
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LOOK_AGAIN_MS, WAIT_EVENT_SYNC_REP);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}
