"""What docs/drivers.md says of asyncpg."""
import asyncio

import asyncpg


def fact(what, wanted, got):
    print("ok %s" % what if wanted == got else "not ok %s: wanted %r, got %r" % (what, wanted, got))


async def main():
    db = await asyncpg.connect()
    fact("autocommit", True, await db.fetchval("SELECT le_try_acquire(9, 'x')"))
    try:
        await db.fetchval("SELECT le_guard(8, 'x')")
        fact("LE001", "LE001", None)
    except asyncpg.PostgresError as error:
        fact("LE001", ("UnknownPostgresError", "LE001"), (type(error).__name__, error.sqlstate))
    try:
        async with db.transaction():
            await db.fetchval("SELECT le_try_acquire(8, 'x')")
        fact("25001 has a class", "25001", None)
    except asyncpg.ActiveSQLTransactionError as error:
        fact("25001 has a class", "25001", error.sqlstate)
    both = await asyncio.gather(db.fetchval("SELECT pg_sleep(0.1)"), db.fetchval("SELECT 1"), return_exceptions=True)
    fact("one at a time", "InterfaceError", type(both[1]).__name__)


asyncio.run(main())
