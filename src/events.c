/*-------------------------------------------------------------------------
 *
 * events.c
 *	  NOTIFY leader_election: a hint to look, for whoever listens.
 *
 * Without names and tokens, because anybody may listen; and anybody can forge
 * one, so nobody may believe more than that something has changed.
 *
 * Floor: state.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/async.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "leader_election.h"

#define CHANNEL "leader_election"

/* a queue that is so full that a commit with an event might fail */
#define QUEUE_FULL 0.9

/* settings */
bool		le_notify = false;

/*
 * Tell at commit what has become of a lock.  An event must not stop an
 * election: if the server's queue is nearly full it is left out.
 */
void
le_event_queue(const LeKey *key, const char *event)
{
	LOCAL_FCINFO(fcinfo, 0);
	char	   *payload;

	if (!le_notify)
		return;

	InitFunctionCallInfoData(*fcinfo, NULL, 0, InvalidOid, NULL, NULL);
	if (DatumGetFloat8(pg_notification_queue_usage(fcinfo)) >= QUEUE_FULL)
		return;

	payload = psprintf("{\"lock_id\":" INT64_FORMAT ",\"event\":\"%s\"}",
					   key->lock_id, event);
	Async_Notify(CHANNEL, payload);
	pfree(payload);
}
