@@ asyncpg
import os
import sys


async def answer(command, sql, line):
    if command == "me":
        return me
    if command == "token":
        return leads() or "none"
    if command == "false":
        return false

    async def work(db):
        await db.execute(sql)
        if command == "open":
            print("open", flush=True)
            await line()

    db = await asyncpg.connect()
    try:
        await guarded(db, leads(), work)
        return "done"
    except Exception as error:
        print(repr(error), file=sys.stderr, flush=True)
        return "error %s" % sqlstate(error)
    finally:
        await db.close()


async def main():
    global running, false
    loop = asyncio.get_running_loop()

    def line():
        return loop.run_in_executor(None, sys.stdin.readline)

    # before the election begins, whose connection it is
    false = "yes" if (await ask("SELECT le_is_leader(1, 'nobody')"))[0] else "no"
    election = asyncio.create_task(elect())
    while (text := await line()) != "stop\n":
        if not text:
            os._exit(1)         # whoever started it has died
        command, _, sql = text.rstrip("\n").partition(" ")
        print(await answer(command, sql, line), flush=True)
    running = False
    await election


asyncio.run(main())
