# The end of each program in Python: run_guarded(), execute() and sqlstate() are above.
import os
import threading


def fill(cursor, sql, pause):
    execute(cursor, sql)
    if pause:
        print("open", flush=True)
        sys.stdin.readline()


def answer(command, sql):
    if command == "me":
        while me is None:
            time.sleep(0.01)
        return me
    if command == "token":
        return leads() or "none"
    if command == "false":
        return false
    try:
        run_guarded(leads(), lambda cursor: fill(cursor, sql, command == "open"))
        return "done"
    except Exception as error:
        complain(error)
        return "error %s" % sqlstate(error)


# before the election begins, whose connection it is
false = "yes" if ask("SELECT le_is_leader(1, 'nobody')")[0] else "no"
election = threading.Thread(target=elect)
election.start()
while (line := sys.stdin.readline()) != "stop\n":
    if not line:
        os._exit(1)             # whoever started it has died
    command, _, sql = line.rstrip("\n").partition(" ")
    print(answer(command, sql), flush=True)
running = False
election.join()
