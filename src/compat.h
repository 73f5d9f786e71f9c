/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Every difference between the server versions that we support.
 *
 * Nothing else in src/ looks at PG_VERSION_NUM.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LE_COMPAT_H
#define LE_COMPAT_H

#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_publication.h"
#include "replication/walsender_private.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM < 150000
#error "leader_election needs PostgreSQL 15 or later"
#endif

/* 16 has moved VARDATA_ANY and its like out of postgres.h */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/*
 * Our symbols are hidden (see the Makefile) but for what the server looks up.
 * Before 16 the server's headers do not say so of a function.
 */
#if PG_VERSION_NUM < 160000
#undef PGDLLEXPORT
#define PGDLLEXPORT __attribute__((visibility("default")))
#endif
#define LE_FUNCTION(name) \
	extern PGDLLEXPORT Datum name(PG_FUNCTION_ARGS); \
	PG_FUNCTION_INFO_V1(name)

/* 18 tells name and version of a module in pg_get_loaded_modules() */
#if PG_VERSION_NUM >= 180000
#define LE_MODULE_MAGIC \
	PG_MODULE_MAGIC_EXT(.name = "leader_election", .version = LE_VERSION)
#else
#define LE_MODULE_MAGIC PG_MODULE_MAGIC
#endif

/* 17 calls copy_function without asking whether it is there */
#if PG_VERSION_NUM >= 170000
#define LE_DSHASH_COPY .copy_function = dshash_memcpy,
#else
#define LE_DSHASH_COPY
#endif

/* 17 has one more setting that ends transactions */
#if PG_VERSION_NUM >= 170000
#define LE_TRANSACTION_TIMEOUT {"transaction_timeout", "0"},
#else
#define LE_TRANSACTION_TIMEOUT
#endif

/* the primary key's index, unless it is deferrable */
static inline Oid
compat_primary_key(Relation rel)
{
#if PG_VERSION_NUM >= 180000
	return RelationGetPrimaryKeyIndex(rel, false);
#else
	return RelationGetPrimaryKeyIndex(rel);
#endif
}

/* may the user do with this relation what only its owner may? */
static inline bool
compat_owns(Oid relid, Oid userid)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(RelationRelationId, relid, userid);
#else
	return pg_class_ownercheck(relid, userid);
#endif
}

/* may the user let others execute this function? */
static inline bool
compat_may_grant(Oid funcid, Oid userid)
{
	AclMode		mode = ACL_GRANT_OPTION_FOR(ACL_EXECUTE);

#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ProcedureRelationId, funcid, userid, mode) == ACLCHECK_OK;
#else
	return pg_proc_aclcheck(funcid, userid, mode) == ACLCHECK_OK;
#endif
}

/* take the lock if it is free and there is room for it; raises no error */
static inline bool
compat_lock_try(const LOCKTAG *tag, LOCKMODE mode, bool session)
{
#if PG_VERSION_NUM >= 180000
	return LockAcquireExtended(tag, mode, session, true, false, NULL, false) !=
		LOCKACQUIRE_NOT_AVAIL;
#else
	return LockAcquireExtended(tag, mode, session, true, false, NULL) !=
		LOCKACQUIRE_NOT_AVAIL;
#endif
}

/* a row description is complete */
static inline void
compat_finalize(TupleDesc desc)
{
#if PG_VERSION_NUM >= 190000
	TupleDescFinalize(desc);
#endif
}

/*
 * Has the checkpointer noticed that no synchronous standbys are wanted any
 * more?  Minor versions differ: where it only tells whether they are, it does
 * not tell that it has not looked yet.
 */
static inline bool
compat_standbys_dismissed(void)
{
#ifdef SYNC_STANDBY_DEFINED
	return (((volatile WalSndCtlData *) WalSndCtl)->sync_standbys_status &
			(SYNC_STANDBY_INIT | SYNC_STANDBY_DEFINED)) == SYNC_STANDBY_INIT;
#else
	return false;
#endif
}

/* the number of this backend among all that the server can have, from 0 */
static inline int
compat_my_number(void)
{
#if PG_VERSION_NUM >= 170000
	return MyProcNumber;
#else
	return MyProc->pgprocno;
#endif
}

/*
 * Is the client still there?  Resets the latch.  (libpq/libpq.h needs headers of
 * OpenSSL, which the server's development files do not bring along.)
 */
extern bool pq_check_connection(void);

/* what pg_stat_activity says of a session that waits for a lock of ours */
static inline uint32
compat_wait_event(void)
{
#if PG_VERSION_NUM >= 170000
	static uint32 event = 0;

	if (event == 0)
		event = WaitEventExtensionNew("LeaderElectionWait");
	return event;
#else
	return PG_WAIT_EXTENSION;
#endif
}

/* does this backend hold the lock in this mode? */
static inline bool
compat_lock_held(const LOCKTAG *tag, LOCKMODE mode)
{
#if PG_VERSION_NUM >= 170000
	return LockHeldByMe(tag, mode, false);
#else
	return LockHeldByMe(tag, mode);
#endif
}

/*
 * A tranche of LWLocks.  19 takes its name here, and every process knows it;
 * before, each that attaches must register it.
 */
static inline int
compat_tranche_new(const char *name)
{
#if PG_VERSION_NUM >= 190000
	return LWLockNewTrancheId(name);
#else
	return LWLockNewTrancheId();
#endif
}

static inline void
compat_tranche_register(int tranche, const char *name)
{
#if PG_VERSION_NUM < 190000
	LWLockRegisterTranche(tranche, name);
#endif
}

/*
 * Is the table in a publication by itself or in one of all tables?  In 19 one
 * of all tables can except some.
 */
static inline bool
compat_is_published(Oid relid)
{
#if PG_VERSION_NUM >= 190000
	return GetRelationIncludedPublications(relid) != NIL ||
		list_difference_oid(GetAllTablesPublications(),
							GetRelationExcludedPublications(relid)) != NIL;
#else
	return GetRelationPublications(relid) != NIL ||
		GetAllTablesPublications() != NIL;
#endif
}

/*
 * Is there a publication of all sequences?  Before 19 none can have any; in 19
 * there is no function that tells.
 */
static inline bool
compat_sequences_are_published(void)
{
	bool		found = false;

#if PG_VERSION_NUM >= 190000
	Relation	rel = table_open(PublicationRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;

	ScanKeyInit(&key, Anum_pg_publication_puballsequences,
				BTEqualStrategyNumber, F_BOOLEQ, BoolGetDatum(true));
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
	found = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
#endif
	return found;
}

/*
 * What could go if there were no older versions:
 *
 * 18	A pipeline is a transaction block from its second statement on: no need
 *		to ask for XACT_FLAGS_PIPELINING.
 * 19	RegisterShmemCallbacks() finds or creates shared memory, preloaded or
 *		not: no need for the hooks, AddinShmemInitLock, and a layout that is
 *		set last.
 *		DROP DATABASE ends a worker that has BGWORKER_INTERRUPTIBLE: no need to
 *		look whether somebody wants the database (but that worker ends with a
 *		FATAL in the log).
 *		dshash_find_or_insert_extended() can return NULL when memory is short,
 *		where there was only an error.
 *		Hash tables in shared memory, that of the locks too, keep to their
 *		place: what the server keeps spare is only for modules like ours.
 */

#endif							/* LE_COMPAT_H */
