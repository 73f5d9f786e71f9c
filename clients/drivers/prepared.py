"""Many clients in front of a pooler's few connections, by the drivers that prepare what they send.

    prepared.py HOST PORT DATABASE
"""
import asyncio
import concurrent.futures
import sys

import asyncpg
import psycopg

HOST, PORT, DATABASE = sys.argv[1:]
CLIENTS, CALLS = 12, 50


def tell(what, errors):
    print("%s: %s" % (what, "failed" if errors else "went well"))


def by_psycopg(**options):
    try:
        with psycopg.connect(host=HOST, port=PORT, user="app", dbname=DATABASE, autocommit=True, **options) as db:
            for _ in range(CALLS):
                db.execute("SELECT leads FROM le_keep_alive(5, %s, %s)", ("nobody", 1))
    except psycopg.Error as error:
        return error
    return None


async def by_asyncpg(**options):
    db = await asyncpg.connect(host=HOST, port=int(PORT), user="app", database=DATABASE, **options)
    try:
        for _ in range(CALLS):
            await db.fetchval("SELECT leads FROM le_keep_alive(5, $1, $2)", "nobody", 1)
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return error
    finally:
        db.terminate()
    return None


async def all_by_asyncpg(**options):
    return await asyncio.gather(*(by_asyncpg(**options) for _ in range(CLIENTS)))


for what, options in ("as it is", {}), ("without preparing", {"prepare_threshold": None}):
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        tell("psycopg 3 " + what, any(pool.map(lambda _, options=options: by_psycopg(**options), range(CLIENTS))))
for what, options in ("as it is", {}), ("without preparing", {"statement_cache_size": 0}):
    tell("asyncpg " + what, any(asyncio.run(all_by_asyncpg(**options))))
