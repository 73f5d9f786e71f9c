/*-------------------------------------------------------------------------
 *
 * standby.c
 *	  A term that the synchronous standby may lack is not believed.
 *
 * A commit that waits for its standby can be cut short: its backend is
 * cancelled or killed, the server restarted.  The row is then committed here
 * and nobody knows whether it is there; a failover may lose it, and elect
 * another.  So whoever wants to write the first entry for a row in an epoch
 * waits until the standby has all that is on our disk by then, row included.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/lwlock.h"
#include "utils/guc.h"

#include "leader_election.h"

/* Is there a synchronous standby whose word we need? */
bool
le_standby_must_confirm(void)
{
	return max_wal_senders > 0 && SyncRepStandbyNames != NULL &&
		SyncRepStandbyNames[0] != '\0';
}

/*
 * Wait, as a commit would, until the standby has flushed what we have.  The
 * wait ends quietly when it is cancelled, so look whether it was fulfilled:
 * 57014 if not.  As strict as synchronous_commit = on, whatever the session
 * has set.
 *
 * No lock may be held that others wait for.
 */
void
le_standby_confirm(const LeCaller *caller)
{
	XLogRecPtr	lsn = GetFlushRecPtr(NULL);
	int			nest_level = NewGUCNestLevel();
	bool		confirmed;

	if (synchronous_commit < SYNCHRONOUS_COMMIT_REMOTE_FLUSH)
		(void) set_config_option("synchronous_commit", "on",
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);

	HOLD_INTERRUPTS();
	SyncRepWaitForLSN(lsn, true);
	RESUME_INTERRUPTS();
	AtEOXact_GUC(false, nest_level);
	CHECK_FOR_INTERRUPTS();

	LWLockAcquire(SyncRepLock, LW_SHARED);
	confirmed = WalSndCtl->lsn[SYNC_REP_WAIT_FLUSH] >= lsn;
	LWLockRelease(SyncRepLock);
	if (!confirmed)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("the term of instance \"%s\" on lock " INT64_FORMAT " is not confirmed by the synchronous standby",
						le_printable(caller->instance), caller->key.lock_id),
				 errhint("Do not count on it, and ask again.")));
}
