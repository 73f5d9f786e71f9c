/*-------------------------------------------------------------------------
 *
 * store.c
 *	  Where the entries are: a hash table in shared memory.
 *
 * An entry that is found is locked, by its partition's lock.  Until
 * le_store_unlock() or le_store_delete() nothing may fail, wait, allocate or
 * look at a catalog.
 *
 * From here an entry is dropped only when it is over, or its table is gone.
 *
 * Floor: state.
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

/* settings */
int			le_memory_limit = 65536;

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
LeEntry *
le_store_find_or_insert(const LeKey *key, const LeEpoch *epoch)
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
LeEntry *
le_store_find(const LeKey *key)
{
	pg_atomic_uint32 *waiting = &le_shared_attach()->waiting;
	LeEntry    *entry;

	store_attach();
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
 * Find an entry only to look at it.  Takes its lock in share mode, but while
 * somebody waits to change one gets in line.
 */
LeEntry *
le_store_find_to_look(const LeKey *key)
{
	store_attach();
	return dshash_find(table, key,
					   pg_atomic_read_u32(&le_shared_attach()->waiting) > 0);
}

void
le_store_unlock(LeEntry *entry)
{
	dshash_release_lock(table, entry);
}

void
le_store_delete(LeEntry *entry)
{
	dshash_delete_entry(table, entry);
}

/*
 * Drop the entries that are over by then, of any database: nobody else would
 * drop those of a dropped database.  Returns how many.
 *
 * Who can wait drops none whose row may be there still: with it goes the time
 * at which the term has ended.
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
	if (count > 0)
		le_shared_attach()->over_dropped = true;	/* never taken back */
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
