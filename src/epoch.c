/*-------------------------------------------------------------------------
 *
 * epoch.c
 *	  Shared memory, the epoch and the lease clock.
 *
 * An epoch begins once in each writable life of the server, with the first
 * call of any function that finds recovery over, and never changes after.
 * That is why a backend may keep its own copy.
 *
 * Floor: ground.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "access/xlog.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "leader_election.h"

LE_FUNCTION(le_first_lineage);

StaticAssertDecl(sizeof(LeShared) <= LE_SHARED_SIZE,
				 "LeShared must fit into its place for ever");

static LeShared *shared = NULL;
static LeEpoch my_epoch = {0};

/* What to do if the spare shared memory of the server has been eaten up. */
static void
shared_error_callback(void *arg)
{
	errhint("Add \"leader_election\" to \"shared_preload_libraries\" and restart the server.");
}

static void
random_or_error(void *buffer, size_t size)
{
	if (!pg_strong_random(buffer, size))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random number")));
}

/*
 * Obtain the shared struct, creating it if this is the first call in the life
 * of the server.  Without preloading it comes out of the space that the
 * server keeps spare; if there is none the server raises its error of class
 * 53, and nothing has changed.
 */
LeShared *
le_shared_attach(void)
{
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = shared_error_callback,
	};
	LeShared   *found_struct;
	uint64		seed;
	bool		found;

	if (shared != NULL)
		return shared;

	random_or_error(&seed, sizeof(seed));
	error_context_stack = &callback;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	found_struct = ShmemInitStruct(LE_SHARED_NAME, LE_SHARED_SIZE, &found);
	if (found_struct->layout == 0)
	{
		memset(found_struct, 0, LE_SHARED_SIZE);
		pg_atomic_init_u32(&found_struct->waiting, 0);
		found_struct->hash_seed = seed;
		found_struct->tranche = compat_tranche_new(LE_SHARED_NAME);
		LWLockInitialize(&found_struct->lock, found_struct->tranche);
		found_struct->layout = LE_LAYOUT;
	}
	LWLockRelease(AddinShmemInitLock);

	error_context_stack = callback.previous;

	if (found_struct->layout != LE_LAYOUT)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("another version of leader_election has been in use since the server was started"),
				 errhint("Restart the server.")));

	compat_tranche_register(found_struct->tranche, LE_SHARED_NAME);
	shared = found_struct;
	return shared;
}

/* A new life of the server: what the postmaster may have known is void. */
void
le_shared_reset(void)
{
	shared = NULL;
	my_epoch.id = 0;
}

/*
 * The clock that counts leases.  CLOCK_MONOTONIC is not stepped, but whoever
 * disciplines the system clock changes its rate, chronyd by up to 1/12.
 */
#ifdef CLOCK_MONOTONIC_RAW
#define COUNTING_CLOCK CLOCK_MONOTONIC_RAW
#else
#define COUNTING_CLOCK CLOCK_MONOTONIC
#endif

static int64
clock_count(void)
{
	struct timespec ts;

	clock_gettime(COUNTING_CLOCK, &ts);
	return (int64) ts.tv_sec * USECS_PER_SEC + ts.tv_nsec / 1000;
}

/*
 * The lineage of this cluster on a timeline: a hash of both, positive and
 * never LE_LINEAGE_NONE.
 */
static int64
lineage_on(TimeLineID timeline)
{
	uint64		cluster = GetSystemIdentifier();
	uint64		hash = hash_bytes_extended((unsigned char *) &cluster,
										   sizeof(cluster), timeline);

	return Max((int64) (hash & PG_INT64_MAX), LE_LINEAGE_NONE + 1);
}

/*
 * The current epoch, which begins here if it has not yet.  NULL on a standby.
 */
const LeEpoch *
le_epoch_current(void)
{
	LeShared   *area;
	int64		id = 0;

	if (likely(my_epoch.id != 0))
		return &my_epoch;

	area = le_shared_attach();

	if (RecoveryInProgress())
		return NULL;

	/* all that can fail comes before the lock */
	while (id == 0)
		random_or_error(&id, sizeof(id));

	LWLockAcquire(&area->lock, LW_EXCLUSIVE);
	if (area->epoch.id == 0)
	{
		area->epoch.timeline = GetWALInsertionTimeLine();
		area->epoch.lineage = lineage_on(GetWALInsertionTimeLine());
		area->epoch.start = GetCurrentTimestamp();
		area->epoch.anchor = clock_count();
		area->epoch.id = id;
	}
	my_epoch = area->epoch;
	LWLockRelease(&area->lock);

	return &my_epoch;
}

/*
 * The lease clock: wall time at the epoch's start, plus what the counting
 * clock has counted since.  A step of the system clock does not move it.
 */
TimestampTz
le_clock_now(const LeEpoch *epoch)
{
	return epoch->start + (clock_count() - epoch->anchor);
}

/*
 * le_first_lineage() returns bigint
 *
 * Only for the install script: what it notes as the lineage of the database's
 * last term, though there has been none.  On the first timeline of a cluster
 * nothing can be missing.  On any other one the server was promoted, and may
 * lack an extension of this database, with terms: the grace must be waited
 * for.
 */
Datum
le_first_lineage(PG_FUNCTION_ARGS)
{
	const LeEpoch *epoch = le_epoch_current();

	PG_RETURN_INT64(epoch != NULL && epoch->timeline == 1 ?
					epoch->lineage : LE_LINEAGE_NONE);
}
