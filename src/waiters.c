/*-------------------------------------------------------------------------
 *
 * waiters.c
 *	  The list of those who wait: for a lock, or for news of it.
 *
 * Each backend has one place, by its number, so nothing is allocated while
 * somebody waits, and nothing leaks.  Order is courtesy: who may lead is
 * decided under the lock's heavyweight lock, and whoever is not woken wakes up
 * by himself, within a second.
 *
 * To wake is done after a commit, where nothing may fail: so the list is
 * attached before, by le_waiters_attach().
 *
 * Floor: state.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/dsa.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "leader_election.h"

/*
 * How many candidates are woken for a vacancy.  One of them begins, and so the
 * others would only keep the processors busy just when he wants one; if none
 * of them does, the next ones come by themselves.
 */
#define WAKE_FIRST 10

static LeWaiters *waiters = NULL;

/*
 * Create the list or attach to it.  False if memory_limit leaves no room for
 * it, which is no reason for a term not to begin or end.  (If it is the system
 * that has no more shared memory there is an error.)
 */
bool
le_waiters_attach(void)
{
	LeShared   *shared;
	dsa_area   *area;
	dsa_pointer list;

	if (likely(waiters != NULL))
		return true;

	shared = le_shared_attach();
	area = le_store_area();		/* takes the same lock when it attaches */
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	list = shared->waiters;
	if (!DsaPointerIsValid(list))
		list = dsa_allocate_extended(area,
									 offsetof(LeWaiters, places) +
									 MaxBackends * sizeof(LePlace),
									 DSA_ALLOC_NO_OOM | DSA_ALLOC_ZERO);
	if (DsaPointerIsValid(list))
	{
		LeWaiters  *found = dsa_get_address(area, list);

		if (!DsaPointerIsValid(shared->waiters))
		{
			LWLockInitialize(&found->lock, shared->tranche);
			pg_atomic_init_u32(&found->count, 0);
			found->size = MaxBackends;
			shared->waiters = list;
		}
		waiters = found;
	}
	LWLockRelease(&shared->lock);
	return waiters != NULL;
}

static LePlace *
my_place(void)
{
	int			number = compat_my_number();

	Assert(number >= 0 && number < waiters->size);
	return &waiters->places[number];
}

static bool
place_is_taken(const LePlace *place)
{
	return OidIsValid(place->key.database);
}

static void
place_give_up(int code, Datum arg)
{
	le_waiters_leave();
}

/* Take the place of this backend, until le_waiters_leave(). */
void
le_waiters_enter(const LePlace *place)
{
	static bool registered = false;

	if (!le_waiters_attach())
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of shared memory for the list of waiting sessions"),
				 errhint("Increase \"leader_election.memory_limit\", which is %d kB now.",
						 le_memory_limit)));
	if (!registered)
		before_shmem_exit(place_give_up, (Datum) 0);
	registered = true;

	LWLockAcquire(&waiters->lock, LW_EXCLUSIVE);
	Assert(!place_is_taken(my_place()));
	*my_place() = *place;
	my_place()->pid = MyProcPid;
	pg_atomic_fetch_add_u32(&waiters->count, 1);
	LWLockRelease(&waiters->lock);
}

/* Also at exit: an error would come too late, and waits would be for nobody. */
void
le_waiters_leave(void)
{
	if (waiters == NULL)
		return;
	LWLockAcquire(&waiters->lock, LW_EXCLUSIVE);
	if (place_is_taken(my_place()))
	{
		memset(my_place(), 0, sizeof(LePlace));
		pg_atomic_fetch_sub_u32(&waiters->count, 1);
	}
	LWLockRelease(&waiters->lock);
}

/* Does a stand in the list before b? */
static bool
place_is_before(const LePlace *a, const LePlace *b)
{
	if (a->priority != b->priority)
		return a->priority > b->priority;
	if (a->since != b->since)
		return a->since < b->since;
	return a < b;
}

static bool
place_may_lead(const LePlace *place, const LeKey *key, TimestampTz now)
{
	return place->candidate && le_same_key(&place->key, key) &&
		now < place->until && now >= place->barred_until;
}

/* We may not lead before then, so those behind us need not wait for us. */
void
le_waiters_bar(TimestampTz until)
{
	if (my_place()->barred_until == until)
		return;					/* nobody else writes it */
	LWLockAcquire(&waiters->lock, LW_EXCLUSIVE);
	my_place()->barred_until = until;
	LWLockRelease(&waiters->lock);
}

/*
 * Who is first among the candidates for a lock, other than that instance, and
 * which role is he?  False: there is none.
 */
bool
le_waiters_first(const LeKey *key, const char *except, TimestampTz now,
				 char *instance, Oid *role)
{
	const LePlace *first = NULL;

	if (!le_waiters_attach())
		return false;

	LWLockAcquire(&waiters->lock, LW_SHARED);
	for (int i = 0; i < waiters->size; i++)
	{
		const LePlace *place = &waiters->places[i];

		if (place_may_lead(place, key, now) &&
			strcmp(place->instance, except) != 0 &&
			(first == NULL || place_is_before(place, first)))
			first = place;
	}
	if (first != NULL)
	{
		strlcpy(instance, first->instance, LE_INSTANCE_MAX + 1);
		*role = first->role;
	}
	LWLockRelease(&waiters->lock);
	return first != NULL;
}

/* How many candidates for the lock that we wait for go before us? */
int
le_waiters_before_me(TimestampTz now)
{
	const LePlace *me;
	int			before = 0;

	LWLockAcquire(&waiters->lock, LW_SHARED);
	me = my_place();
	for (int i = 0; i < waiters->size; i++)
	{
		const LePlace *place = &waiters->places[i];

		if (place_may_lead(place, &me->key, now) && place_is_before(place, me))
			before++;
	}
	LWLockRelease(&waiters->lock);
	return before;
}

/* Who enters counts himself before he looks; what he is to see is committed. */
static bool
somebody_waits(void)
{
	if (waiters == NULL)
		return false;
	pg_memory_barrier();
	return pg_atomic_read_u32(&waiters->count) > 0;
}

static void
place_wake(const LePlace *place)
{
	SetLatch(&GetPGProcByNumber(place - waiters->places)->procLatch);
}

/*
 * Wake who observes this lock, who waits for it under this name, and, if it
 * may be vacant, the first ones in the list.  Raises nothing.
 */
void
le_waiters_wake(const LeKey *key, const char *instance, bool vacant)
{
	const LePlace *first[WAKE_FIRST];
	int			n_first = 0;

	if (!somebody_waits())
		return;

	LWLockAcquire(&waiters->lock, LW_SHARED);
	for (int i = 0; i < waiters->size; i++)
	{
		const LePlace *place = &waiters->places[i];
		int			at;

		if (!le_same_key(&place->key, key))
			continue;
		if (!place->candidate || strcmp(place->instance, instance) == 0)
		{
			place_wake(place);	/* who may be banned is none of the first */
			continue;
		}
		if (!vacant)
			continue;

		if (n_first < WAKE_FIRST)
			at = n_first++;
		else if (place_is_before(place, first[WAKE_FIRST - 1]))
			at = WAKE_FIRST - 1;
		else
			continue;
		for (; at > 0 && place_is_before(place, first[at - 1]); at--)
			first[at] = first[at - 1];
		first[at] = place;
	}
	for (int i = 0; i < n_first; i++)
		place_wake(first[i]);
	LWLockRelease(&waiters->lock);
}

/* Wake all who wait for any lock of this database.  Raises nothing. */
void
le_waiters_wake_all(Oid database)
{
	if (!somebody_waits())
		return;

	LWLockAcquire(&waiters->lock, LW_SHARED);
	for (int i = 0; i < waiters->size; i++)
	{
		if (waiters->places[i].key.database == database)
			place_wake(&waiters->places[i]);
	}
	LWLockRelease(&waiters->lock);
}

/* A copy of all places that candidates of this le_lease have. */
LePlace *
le_waiters_list(Oid relid, TimestampTz now, int *count)
{
	LePlace    *list;

	*count = 0;
	if (!le_waiters_attach())
		return NULL;

	list = palloc(waiters->size * sizeof(LePlace));
	LWLockAcquire(&waiters->lock, LW_SHARED);
	for (int i = 0; i < waiters->size; i++)
	{
		const LePlace *place = &waiters->places[i];

		if (place->candidate && now < place->until &&
			place->key.database == MyDatabaseId &&
			place->key.relation == relid)
			list[(*count)++] = *place;
	}
	LWLockRelease(&waiters->lock);
	return list;
}
