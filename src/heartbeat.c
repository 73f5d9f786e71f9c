/*-------------------------------------------------------------------------
 *
 * heartbeat.c
 *	  The entries: a hash table in shared memory, one entry per renewed term.
 *
 * An entry is locked by its partition's lock in the hash table.  Between
 * dshash_find() or dshash_find_or_insert() and the release nothing may fail,
 * wait, allocate or look at a catalog: what a verdict needs from outside (the
 * row, the caller's rights) is handed in.
 *
 * An entry is written only on behalf of a committed row, and dropped only
 * when it is over, or its term has ended and the transaction that ended it
 * holds the lock's heavyweight lock still, or its table is gone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/dsa.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "leader_election.h"

/* how long who has found nothing to drop does not look again, microseconds */
#define DROP_PAUSE INT64CONST(1000000)

#define DROP_TABLES 64			/* of so many it is asked whether they are
								 * gone */

static dsa_area *area = NULL;
static dshash_table *table = NULL;

static bool
same_table(const LeKey *a, const LeKey *b)
{
	return a->database == b->database && a->relation == b->relation;
}

static dshash_hash
store_hash(const void *key, size_t size, void *arg)
{
	return (dshash_hash) hash_bytes_extended(key, size,
											 le_shared_attach()->hash_seed);
}

/*
 * Create or attach to the hash table.  Up to the point where nothing can fail
 * any more, all of it belongs to the current resource owner and memory
 * context, so that an error leaves nothing behind.
 */
static void
store_attach(void)
{
	LeShared   *shared;
	MemoryContext context;
	MemoryContext old_context;
	dshash_parameters params = {
		.key_size = sizeof(LeKey),
		.entry_size = sizeof(LeEntry),
		.compare_function = dshash_memcmp,
		.hash_function = store_hash,
		LE_DSHASH_COPY
	};
	dsa_area   *new_area;
	dshash_table *new_table;
	bool		create;

	if (likely(table != NULL))
		return;

	shared = le_shared_attach();
	params.tranche_id = shared->tranche;
	context = AllocSetContextCreate(CurrentMemoryContext, "leader_election",
									ALLOCSET_SMALL_SIZES);
	old_context = MemoryContextSwitchTo(context);

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	create = !DsaPointerIsValid(shared->table);
	if (create)
	{
		new_area = dsa_create(shared->tranche);
		dsa_set_size_limit(new_area, (size_t) le_memory_limit * 1024);
		new_table = dshash_create(new_area, &params, NULL);
	}
	else
	{
		new_area = dsa_attach(shared->area);
		new_table = dshash_attach(new_area, &params, shared->table, NULL);
	}

	/* from here on nothing fails */
	dsa_pin_mapping(new_area);
	if (create)
	{
		dsa_pin(new_area);
		shared->area = dsa_get_handle(new_area);
		shared->table = dshash_get_hash_table_handle(new_table);
		shared->memory_limit = le_memory_limit;
	}
	LWLockRelease(&shared->lock);

	MemoryContextSwitchTo(old_context);
	MemoryContextSetParent(context, TopMemoryContext);
	area = new_area;
	table = new_table;
}

/*
 * Find an entry, or insert an empty one; NULL if there is no memory for it.
 * That error can be caught without a subtransaction, because LWLocks are all
 * that there is to undo; we hold no others.
 */
static LeEntry *
store_try_insert(const LeKey *key)
{
	MemoryContext save_context = CurrentMemoryContext;
	ResourceOwner save_owner = CurrentResourceOwner;
	LeEntry    *volatile entry = NULL;
	bool		found;

	PG_TRY();
	{
		entry = dshash_find_or_insert(table, key, &found);
		if (!found)
			memset((char *) entry + sizeof(LeKey), 0,
				   sizeof(LeEntry) - sizeof(LeKey));
	}
	PG_CATCH();
	{
		/* class 53: the limit is reached, or /dev/shm is full */
		if (ERRCODE_TO_CATEGORY(geterrcode()) !=
			ERRCODE_INSUFFICIENT_RESOURCES)
			PG_RE_THROW();
		LWLockReleaseAll();
		FlushErrorState();
		MemoryContextSwitchTo(save_context);
		CurrentResourceOwner = save_owner;	/* dsa.c may have changed it */
	}
	PG_END_TRY();
	return entry;
}

/*
 * Find an entry, or insert an empty one.  The only place that may need more
 * memory, so a changed memory_limit is applied here, and what is over makes
 * room before we give up.
 */
static LeEntry *
store_find_or_insert(const LeKey *key, const LeEpoch *epoch)
{
	static TimestampTz drop_at = DT_NOBEGIN;
	LeShared   *shared;
	LeEntry    *entry;

	store_attach();
	shared = le_shared_attach();
	if (unlikely(shared->memory_limit != le_memory_limit))
	{
		LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
		dsa_set_size_limit(area, (size_t) le_memory_limit * 1024);
		shared->memory_limit = le_memory_limit;
		LWLockRelease(&shared->lock);
	}

	entry = store_try_insert(key);
	if (entry == NULL)
	{
		TimestampTz now = le_clock_now(epoch);

		if (now >= drop_at && le_store_drop_over(now) > 0)
			entry = store_try_insert(key);
		else if (now >= drop_at)
			drop_at = now + DROP_PAUSE;
	}
	if (entry == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of shared memory for heartbeats"),
				 errhint("Increase \"leader_election.memory_limit\", which is %d kB now, or the space for the server's dynamic shared memory (/dev/shm).",
						 le_memory_limit)));
	return entry;
}

/*
 * Find an entry to change it.  Who waits for its lock says so: those who only
 * look do not queue, and one of them who is not on a processor just then would
 * always hold it.
 */
static LeEntry *
store_find(const LeKey *key)
{
	pg_atomic_uint32 *waiting = &le_shared_attach()->waiting;
	LeEntry    *entry;

	pg_atomic_fetch_add_u32(waiting, 1);
	PG_TRY();
	{
		entry = dshash_find(table, key, true);
	}
	PG_FINALLY();
	{
		pg_atomic_fetch_sub_u32(waiting, 1);
	}
	PG_END_TRY();
	return entry;
}

/*
 * Copy an entry; token 0 if there is none.  Takes its lock in share mode, but
 * while somebody waits to change one gets in line.
 */
bool
le_store_copy(const LeKey *key, LeEntry *copy)
{
	LeEntry    *entry;

	store_attach();
	entry = dshash_find(table, key,
						pg_atomic_read_u32(&le_shared_attach()->waiting) > 0);
	if (entry == NULL)
	{
		memset(copy, 0, sizeof(LeEntry));
		return false;
	}
	*copy = *entry;
	dshash_release_lock(table, entry);
	return true;
}

/*
 * The fast heartbeat: needs neither row nor heavyweight lock.
 *
 * The caller's role needs no judging if it is the term's; another role's term
 * is renewed only if the caller has judged exactly that role.  lease_ms is
 * what the caller asks for, 0 for le_renew.  *seen is the entry that led to
 * an answer other than LE_BEAT_DONE, *now is the clock as it was read; if it
 * was not, DT_NOBEGIN.
 */
LeBeat
le_store_beat(const LeCaller *caller, int64 lease_ms, Oid judged_role,
			  const LeEpoch *epoch, LeEntry *seen, TimestampTz *now)
{
	LeEntry    *entry;
	LeBeat		beat;

	TEST_PAUSE(LE_PAUSE_BEAT);
	store_attach();
	entry = store_find(&caller->key);
	if (entry == NULL)
	{
		*now = DT_NOBEGIN;
		return LE_BEAT_ASK_ROW;
	}

	*now = le_clock_now(epoch);
	if (!le_entry_usable(entry, *now))
		beat = LE_BEAT_ASK_ROW;
	else if (strcmp(entry->leader_id, caller->instance) != 0 ||
			 !(caller->any_token || caller->token == entry->token))
		beat = LE_BEAT_REFUSED;
	else if (entry->leader_role != caller->role &&
			 entry->leader_role != judged_role)
		beat = LE_BEAT_ASK_ROLE;
	else if (lease_ms > entry->lease_ms)
		beat = LE_BEAT_TOO_LONG;
	else
	{
		entry->expires_at = *now + le_rule_length(entry->lease_ms);
		entry->renewed_at = *now;
		entry->renewals++;
		beat = LE_BEAT_DONE;
	}
	if (beat != LE_BEAT_DONE)
		*seen = *entry;
	dshash_release_lock(table, entry);
	return beat;
}

/*
 * The slow heartbeat: write the entry for a committed row that names the
 * caller, and clear its mark.  The caller holds the heavyweight lock, has
 * read the row under it and has been judged.  False if the lease is over.
 */
bool
le_store_beat_row(const LeCaller *caller, const LeRow *row,
				  const LeEpoch *epoch)
{
	LeEntry    *entry;
	LeState		state;
	bool		live;

	Assert(le_lock_held(LE_LOCK_LEASE, caller->key.lock_id, ShareLock) ||
		   le_lock_held(LE_LOCK_LEASE, caller->key.lock_id, ExclusiveLock));
	Assert(!row->own);

	state.found = true;
	state.row = *row;

	TEST_PAUSE(LE_PAUSE_ENTRY);
	entry = store_find_or_insert(&caller->key, epoch);
	state.now = le_clock_now(epoch);
	state.entry = *entry;
	live = le_rule_live(&state, epoch);
	if (live)
	{
		if (entry->token != row->token)
		{
			entry->token = row->token;
			/* the place was reserved for this term */
			memset(&entry->reserved, 0, sizeof(LeReservation));
			entry->renewals = 0;
			entry->lease_ms = row->lease_ms;
			entry->leader_role = row->leader_role;
			strlcpy(entry->leader_id, row->leader_id,
					sizeof(entry->leader_id));
		}
		entry->expires_at = Max(le_rule_end(&state, epoch),
								state.now + le_rule_length(row->lease_ms));
		entry->renewed_at = state.now;
		entry->renewals++;
		entry->recheck = false;
	}
	dshash_release_lock(table, entry);
	return live;
}

/*
 * Make sure that there is an entry before a term's row is written, so that a
 * term that could not be renewed for lack of memory never begins.  The entry
 * has its place until the end of the term's first lease.
 */
void
le_store_reserve(const LeKey *key, const LeReservation *reservation,
				 LeReservation *before, const LeEpoch *epoch)
{
	LeEntry    *entry;

	Assert(le_lock_held(LE_LOCK_LEASE, key->lock_id, ExclusiveLock));

	entry = store_find_or_insert(key, epoch);
	*before = entry->reserved;
	entry->reserved = *reservation;
	entry->confirmed = false;
	dshash_release_lock(table, entry);
}

/*
 * The term is no more, or has never been: give back the memory of its
 * heartbeats.  The transaction that ended it, or began it and was rolled back,
 * holds the heavyweight lock still, so nobody has begun another one since.
 * (If that transaction has itself, the entry is reserved for that one.)
 * before is the reservation that this term's took the place of.
 */
void
le_store_forget(const LeKey *key, int64 token, const LeReservation *before)
{
	LeEntry    *entry;

	Assert(le_lock_held(LE_LOCK_LEASE, key->lock_id, ExclusiveLock));

	store_attach();
	entry = dshash_find(table, key, true);
	if (entry == NULL)
		return;
	if (entry->token == token)
	{
		entry->token = 0;
		entry->expires_at = 0;
		entry->recheck = false;
	}
	if (entry->reserved.token == token)
		entry->reserved = *before;
	if (entry->token == 0 && entry->reserved.token == 0)
		dshash_delete_entry(table, entry);
	else
		dshash_release_lock(table, entry);
}

/* The synchronous standby has the row of this term, which has just begun. */
void
le_store_confirm(const LeKey *key, int64 token)
{
	LeEntry    *entry;

	store_attach();
	entry = store_find(key);
	if (entry == NULL)
		return;
	if (entry->reserved.token == token)
		entry->confirmed = true;
	dshash_release_lock(table, entry);
}

/*
 * Mark an entry before its row is changed.  From here on a heartbeat asks the
 * row, and so waits for our transaction; if we roll back the first one that
 * comes clears the mark.
 */
void
le_store_mark(const LeKey *key, LeEntry *copy)
{
	LeEntry    *entry;

	Assert(le_lock_held(LE_LOCK_LEASE, key->lock_id, ExclusiveLock));

	store_attach();
	entry = store_find(key);
	if (entry == NULL)
	{
		memset(copy, 0, sizeof(LeEntry));
		return;
	}
	*copy = *entry;
	entry->recheck = true;
	dshash_release_lock(table, entry);
}

/*
 * Drop the entries that are over, of any database: nobody else would drop
 * those of a dropped database or extension.  Returns how many.
 */
int64
le_store_drop_over(TimestampTz now)
{
	dshash_seq_status status;
	LeEntry    *entry;
	int64		count = 0;

	store_attach();
	dshash_seq_init(&status, table, true);
	while ((entry = dshash_seq_next(&status)) != NULL)
	{
		if (entry->expires_at <= now && entry->reserved.until <= now)
		{
			dshash_delete_current(&status);
			count++;
		}
	}
	dshash_seq_term(&status);
	return count;
}

/*
 * Which tables have entries?  At most max of them, as keys without a lock's
 * id.  Returns how many.
 */
int
le_store_tables(LeKey *keys, int max)
{
	dshash_seq_status status;
	LeEntry    *entry;
	int			count = 0;

	store_attach();
	dshash_seq_init(&status, table, false);
	while ((entry = dshash_seq_next(&status)) != NULL)
	{
		int			i = 0;

		while (i < count && !same_table(&keys[i], &entry->key))
			i++;
		if (i == count && count < max)
		{
			keys[count] = entry->key;
			keys[count++].lock_id = 0;
		}
	}
	dshash_seq_term(&status);
	return count;
}

/* Drop the entries of a table that is gone for good. */
void
le_store_drop_table(const LeKey *key)
{
	dshash_seq_status status;
	LeEntry    *entry;

	store_attach();
	dshash_seq_init(&status, table, true);
	while ((entry = dshash_seq_next(&status)) != NULL)
	{
		if (same_table(key, &entry->key))
			dshash_delete_current(&status);
	}
	dshash_seq_term(&status);
}

/* How many entries are there, in all databases? */
int64
le_store_count(void)
{
	dshash_seq_status status;
	int64		count = 0;

	store_attach();
	dshash_seq_init(&status, table, false);
	while (dshash_seq_next(&status) != NULL)
		count++;
	dshash_seq_term(&status);
	return count;
}

/* The memory that the entries are in */
dsa_area *
le_store_area(void)
{
	store_attach();
	return area;
}
