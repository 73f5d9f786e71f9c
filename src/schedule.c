/*-------------------------------------------------------------------------
 *
 * schedule.c
 *	  When a database's sweep is due, and who sweeps now.
 *
 * There is never more than one sweeper in the server, and never a second start
 * within START_PAUSE.  Each database that elects has a LeSweep in an array in
 * the area of the entries; who sweeps is in LeShared.  LeShared's lock protects
 * both.  Under it nothing looks at a catalog.  What may fail there (to map or
 * to make a piece of the area) leaves nothing half done, and the lock goes
 * with the transaction.
 *
 * Floor: state.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/dsa.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "leader_election.h"

/* between two starts in the whole server, microseconds */
#define START_PAUSE INT64CONST(1000000)

/* a worker that has not come by then never will: it could not be forked */
#define START_VOID INT64CONST(60000000)

#define SWEEP_PAUSE_MIN_MS 100
#define SWEEPS_MIN 16			/* the first size of the array */

/* sweeper_pid of a worker that has been asked for and has not come yet */
#define SWEEPER_TO_COME (-1)

/* settings */
bool		le_sweeper = true;
int			le_sweep_interval = 60000;
int			le_sweep_jitter = 2000;

/*
 * When this backend looks again whether to start a sweep, by the lease clock;
 * 0: at its next call.  All that a heartbeat looks at.
 */
TimestampTz le_schedule_at = 0;

static dsa_area *area = NULL;

/* ---------------------------------------------------------------------
 * What is known of each database
 * ---------------------------------------------------------------------
 */

/* Lock, then read the clock. */
static LeShared *
schedule_lock(TimestampTz *now)
{
	LeShared   *shared = le_shared_attach();
	const LeEpoch *epoch = le_epoch_current();

	area = le_store_area();		/* takes the same lock when it attaches */
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	*now = le_clock_now(epoch);
	return shared;
}

/* NULL if nothing is known of any database yet */
static LeSweeps *
sweep_all(LeShared *shared)
{
	Assert(LWLockHeldByMe(&shared->lock));

	if (!DsaPointerIsValid(shared->sweeps))
		return NULL;
	return dsa_get_address(area, shared->sweeps);
}

/* NULL if nothing is known of this le_lease yet, or no more */
static LeSweep *
sweep_find(LeShared *shared, Oid database, Oid relid)
{
	LeSweeps   *all = sweep_all(shared);

	for (int i = 0; all != NULL && i < all->used; i++)
	{
		LeSweep    *sweep = &all->sweeps[i];

		if (sweep->database == database && sweep->relation == relid)
			return sweep;
	}
	return NULL;
}

/* Begin to wait for the next sweep. */
static void
sweep_put_off(LeSweep *sweep, TimestampTz now)
{
	sweep->since = now;
	sweep->deviation = 2.0 * pg_prng_double(&pg_global_prng_state) - 1.0;
}

/* What is not known has been waiting since the epoch began. */
static LeSweep
sweep_unknown(void)
{
	LeSweep		sweep = {
		.since = le_epoch_current()->start,
		.terms_begun = 1		/* there may be rows of an earlier epoch */
	};

	return sweep;
}

static Size
sweeps_size(int count)
{
	return offsetof(LeSweeps, sweeps) + count * sizeof(LeSweep);
}

/*
 * NULL if memory_limit leaves no room.  Then the database stays one that has
 * not been swept in this epoch, which is no reason to fail.
 */
static LeSweep *
sweep_find_or_insert(LeShared *shared, Oid relid, TimestampTz now)
{
	LeSweep    *sweep = sweep_find(shared, MyDatabaseId, relid);
	LeSweeps   *all = sweep_all(shared);

	if (sweep != NULL)
		return sweep;

	if (all == NULL || all->used == all->allocated)
	{
		int			size = all == NULL ? SWEEPS_MIN : 2 * all->allocated;
		dsa_pointer old = shared->sweeps;
		dsa_pointer new = dsa_allocate_extended(area, sweeps_size(size),
												DSA_ALLOC_NO_OOM | DSA_ALLOC_ZERO);

		if (!DsaPointerIsValid(new))
			return NULL;
		if (all != NULL)
			memcpy(dsa_get_address(area, new), all, sweeps_size(all->used));
		all = dsa_get_address(area, new);
		all->allocated = size;
		shared->sweeps = new;
		if (DsaPointerIsValid(old))
			dsa_free(area, old);
	}

	sweep = &all->sweeps[all->used++];
	*sweep = sweep_unknown();
	sweep->database = MyDatabaseId;
	sweep->relation = relid;
	sweep_put_off(sweep, now);
	return sweep;
}

/*
 * A term has begun: there will be something to sweep.  Called when its row has
 * been written, so that a sweep that has not counted this term sees the row.
 */
void
le_schedule_note_term(Oid relid)
{
	TimestampTz now;
	LeShared   *shared = schedule_lock(&now);
	LeSweep    *sweep = sweep_find_or_insert(shared, relid, now);

	if (sweep != NULL)
	{
		if (sweep->terms_begun == sweep->terms_gone)
			sweep_put_off(sweep, now);
		sweep->terms_begun++;
	}
	LWLockRelease(&shared->lock);
}

/* A sweep begins.  How many terms have begun until now?  0: not known. */
uint64
le_schedule_terms_begun(Oid relid)
{
	TimestampTz now;
	LeShared   *shared = schedule_lock(&now);
	LeSweep    *sweep = sweep_find_or_insert(shared, relid, now);
	uint64		terms = (sweep != NULL) ? sweep->terms_begun : 0;

	LWLockRelease(&shared->lock);
	return terms;
}

/*
 * A sweep has ended.  If it has left no row, there is nothing to sweep until
 * a term begins that was not among those counted.
 */
void
le_schedule_note_sweep(Oid relid, uint64 terms_begun, bool nothing_left)
{
	TimestampTz now;
	LeShared   *shared = schedule_lock(&now);
	LeSweep    *sweep = sweep_find(shared, MyDatabaseId, relid);

	if (sweep != NULL)
	{
		sweep->swept_at = now;
		if (nothing_left)
			sweep->terms_gone = terms_begun;
	}
	LWLockRelease(&shared->lock);
}

/* When has the last sweep of this database ended, in this epoch?  0: never */
TimestampTz
le_schedule_swept_at(Oid relid)
{
	TimestampTz now;
	LeShared   *shared = schedule_lock(&now);
	LeSweep    *sweep = sweep_find(shared, MyDatabaseId, relid);
	TimestampTz swept_at = (sweep != NULL) ? sweep->swept_at : 0;

	LWLockRelease(&shared->lock);
	return swept_at;
}

/*
 * Forget the databases that are gone, and in this one the extensions.  Called
 * in a transaction of the sweeper.
 */
void
le_schedule_forget_gone(void)
{
	TimestampTz now;
	LeShared   *shared = schedule_lock(&now);
	LeSweeps   *all = sweep_all(shared);
	int			count = (all != NULL) ? all->used : 0;
	LeSweep    *copy = palloc((count + 1) * sizeof(LeSweep));

	if (count > 0)
		memcpy(copy, all->sweeps, count * sizeof(LeSweep));
	LWLockRelease(&shared->lock);

	for (int i = 0; i < count; i++)
	{
		LeSweep    *sweep;

		if (copy[i].database == MyDatabaseId ?
			SearchSysCacheExists1(RELOID, ObjectIdGetDatum(copy[i].relation)) :
			SearchSysCacheExists1(DATABASEOID, ObjectIdGetDatum(copy[i].database)))
			continue;

		shared = schedule_lock(&now);
		sweep = sweep_find(shared, copy[i].database, copy[i].relation);
		if (sweep != NULL)
		{
			all = sweep_all(shared);
			*sweep = all->sweeps[--all->used];
		}
		LWLockRelease(&shared->lock);
	}
	pfree(copy);
}

/* ---------------------------------------------------------------------
 * One at a time
 * ---------------------------------------------------------------------
 */

/*
 * May this sweep begin now?  If not, sets when to look again.
 *
 * Of several that are due the one goes first that has waited the longest, or a
 * database with many calls would always be faster than one with few.
 */
static bool
sweep_may_begin(LeShared *shared, LeSweep *sweep, TimestampTz now)
{
	double		pause_ms = le_sweep_interval + sweep->deviation * le_sweep_jitter;
	int64		pause = (int64) (1000 * Max(pause_ms, SWEEP_PAUSE_MIN_MS));
	TimestampTz due = sweep->since + pause;
	LeSweeps   *all;

	if (now < due)
	{
		le_schedule_at = due;
		return false;
	}
	if (sweep->terms_begun == sweep->terms_gone)
	{
		le_schedule_at = now + INT64CONST(1000) * le_sweep_interval;
		return false;
	}

	le_schedule_at = now + START_PAUSE;
	sweep->asked_at = now;

	if (now < shared->sweeper_started + START_PAUSE)
		return false;
	if (shared->sweeper_pid == SWEEPER_TO_COME ?
		now < shared->sweeper_started + START_VOID :
		shared->sweeper_pid != 0)
		return false;

	all = sweep_all(shared);
	for (int i = 0; all != NULL && i < all->used; i++)
	{
		/* has it asked lately? */
		if (all->sweeps[i].since < sweep->since &&
			now < all->sweeps[i].asked_at + 2 * START_PAUSE)
			return false;
	}
	return true;
}

/* Is this database's sweep due, and is it its turn? */
bool
le_schedule_is_due(Oid relid, bool *known)
{
	LeSweep		unknown = sweep_unknown();
	TimestampTz now;
	LeShared   *shared = schedule_lock(&now);
	LeSweep    *sweep = sweep_find(shared, MyDatabaseId, relid);
	bool		due;

	*known = (sweep != NULL);
	due = sweep_may_begin(shared, *known ? sweep : &unknown, now);
	LWLockRelease(&shared->lock);
	return due;
}

/* The same, and claim the place of the server's sweeper.  0: somebody else has. */
uint32
le_schedule_claim(Oid relid)
{
	LeSweep		unknown = sweep_unknown();
	TimestampTz now;
	LeShared   *shared = schedule_lock(&now);
	LeSweep    *sweep = sweep_find(shared, MyDatabaseId, relid);
	uint32		number = 0;

	if (sweep == NULL)
		sweep = &unknown;
	if (sweep_may_begin(shared, sweep, now))
	{
		number = ++shared->sweeper_number;
		shared->sweeper_pid = SWEEPER_TO_COME;
		shared->sweeper_started = now;
		sweep_put_off(sweep, now);
	}
	LWLockRelease(&shared->lock);
	return number;
}

/* It cannot be done now: try again when the next sweep would be due. */
void
le_schedule_put_off(Oid relid)
{
	TimestampTz now;
	LeShared   *shared = schedule_lock(&now);
	LeSweep    *sweep = sweep_find(shared, MyDatabaseId, relid);

	if (sweep != NULL)
		sweep_put_off(sweep, now);
	le_schedule_at = now + INT64CONST(1000) * le_sweep_interval;
	LWLockRelease(&shared->lock);
}

/* The sweeper that was asked for has come.  False: too late. */
bool
le_schedule_arrived(uint32 number)
{
	LeShared   *shared = le_shared_attach();
	bool		awaited;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	awaited = (shared->sweeper_number == number &&
			   shared->sweeper_pid == SWEEPER_TO_COME);
	if (awaited)
		shared->sweeper_pid = MyProcPid;
	LWLockRelease(&shared->lock);
	return awaited;
}

/* It is gone, or will not come. */
void
le_schedule_left(uint32 number)
{
	LeShared   *shared = le_shared_attach();

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (shared->sweeper_number == number)
		shared->sweeper_pid = 0;
	LWLockRelease(&shared->lock);
}
