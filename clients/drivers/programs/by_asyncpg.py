@@ asyncpg
import os


async def answer(pool, command, sql, line):
    if command == "me":
        while me is None:
            await asyncio.sleep(0.01)
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

    try:
        await guarded(pool, leads(), work)
        return "done"
    except Exception as error:
        complain(error)
        return "error %s" % sqlstate(error)


async def main():
    global running, false
    loop = asyncio.get_running_loop()

    def line():
        return loop.run_in_executor(None, sys.stdin.readline)

    # before the election begins, whose connection it is
    false = "yes" if (await ask(3, "SELECT le_is_leader(1, 'nobody')"))[0] else "no"
    pool = await asyncpg.create_pool(min_size=0)
    election = asyncio.create_task(elect())
    while (text := await line()) != "stop\n":
        if not text:
            os._exit(1)         # whoever started it has died
        command, _, sql = text.rstrip("\n").partition(" ")
        print(await answer(pool, command, sql, line), flush=True)
    running = False
    await election
    await pool.close()


asyncio.run(main())
