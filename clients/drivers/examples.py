"""What the examples promise, with processes that are killed and frozen in the middle."""
import os
import re
import signal
import subprocess
import time

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
EXAMPLES = os.path.realpath(os.path.join(TOP, "examples"))
SHORT = ["--lease=2s", "--renew=300ms", "--jitter=100ms", "--kill-after=100ms"]


class Fleet:
    """Processes, each with all that it starts."""

    def __init__(self, folder, environment):
        self.folder, self.environment, self.members = folder, environment, {}

    def start(self, name, *command):
        with open(self.log(name), "a") as log:
            self.members[name] = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log,
                                                  stderr=log, stdin=subprocess.DEVNULL)

    def log(self, name):
        return os.path.join(self.folder, name + ".log")

    def said(self, name):
        with open(self.log(name), errors="replace") as log:
            return log.read()

    def tree(self, name):
        """Pid and command of the member and its descendants."""
        parents, commands = {}, {}
        for entry in os.listdir("/proc"):
            try:
                with open("/proc/%s/stat" % entry) as file:
                    pid, command, rest = re.match(r"(\d+) \((.*)\) (.*)", file.read(), re.S).groups()
            except (OSError, AttributeError):
                continue
            parents[int(pid)], commands[int(pid)] = int(rest.split()[1]), command
        found = [self.members[name].pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return [(pid, commands[pid]) for pid in found if pid in commands]

    def worker(self, command):
        """The member that has such a process just now, or None."""
        for name in self.members:
            if self.members[name].poll() is None and command in [what for _, what in self.tree(name)]:
                return name
        return None

    def signal(self, name, number):
        self.members[name].send_signal(number)

    def signal_all(self, name, number):
        for pid, _ in self.tree(name):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def end(self):
        for name, member in self.members.items():
            self.signal_all(name, signal.SIGKILL)
            member.wait()


def nightly(t, fleet):
    t.sql("""
        CREATE TABLE nightly (day date PRIMARY KEY, token bigint NOT NULL, done timestamptz NOT NULL DEFAULT now());
        CREATE TABLE report (n int);
        GRANT SELECT, INSERT ON nightly, report TO app;
        SELECT le_protect('nightly', le_lock_id('report'))""")
    job = os.path.join(fleet.folder, "job.sql")
    with open(job, "w") as file:
        file.write("INSERT INTO report VALUES (1);\nSELECT pg_sleep(3);\n")

    def start(name):
        fleet.start(name, "leaderctl", "run", "--quiet", "--lock=report", "--once", "--wait=60s", *SHORT, "--",
                    os.path.join(EXAMPLES, "nightly"), job)

    def sleeper(but=None):
        """Who is in the middle of the job."""
        def ask():
            busy = t.sql("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                         " AND query LIKE 'SELECT pg_sleep%' AND state = 'active'")
            name = fleet.worker("psql")
            return name if busy != "0" and name != but else None
        return t.wait("one is in the middle", lambda name: name is not None, ask)

    for name in "abc":
        start(name)
    killed = sleeper()
    fleet.signal(killed, signal.SIGKILL)                # leaderctl, which dies with all
    second = sleeper(killed)
    t.check("another one", True, second != killed)
    for pid, command in fleet.tree(second):
        if command == "psql":
            os.kill(pid, signal.SIGKILL)                # the job, in the middle
    last, = [name for name in "abc" if name not in (killed, second)]
    t.check("the last one does it", 0, fleet.members[last].wait(40))
    t.check("whose job was killed says so", True, fleet.members[second].wait(40) not in (0, None))
    t.check("the job's work is there once", "1", t.sql("SELECT count(*) FROM report"))
    t.check("the day has one row", "1", t.sql("SELECT count(*) FROM nightly WHERE day = current_date"))
    start("d")
    t.check("who comes later is content", 0, fleet.members["d"].wait(40))
    t.check("and has nothing to mail", "", fleet.said("d"))
    t.check("still once", "1", t.sql("SELECT count(*) FROM report"))


def singleton(t, fleet):
    t.sql("""
        CREATE TABLE tick (n bigint GENERATED ALWAYS AS IDENTITY, token bigint NOT NULL, at timestamptz DEFAULT now());
        GRANT SELECT, INSERT ON tick TO app;
        SELECT le_protect('tick', le_lock_id('singleton'))""")
    fleet.environment.update(LEASE="2s", RENEW="300ms", JITTER="100ms")
    for name in "abc":
        fleet.start(name, os.path.join(EXAMPLES, "singleton"))

    def ticking():
        """The last token that has two ticks."""
        return t.sql("SELECT coalesce(max(token), 0) FROM"
                     " (SELECT token FROM tick GROUP BY token HAVING count(*) >= 2) AS t")

    def later_than(token):
        return t.wait("a later term ticks", lambda later: int(later) > int(token), ticking)

    def worker():
        return t.wait("one works", lambda name: name is not None, lambda: fleet.worker("psql"))

    token = later_than(0)
    killed = worker()
    fleet.signal(killed, signal.SIGKILL)
    token = later_than(token)
    frozen = worker()
    fleet.signal_all(frozen, signal.SIGSTOP)
    later_than(token)
    fleet.signal_all(frozen, signal.SIGCONT)
    time.sleep(1.5)                                     # it would tick
    t.check("one after the other", "0", t.sql(
        "SELECT count(*) FROM (SELECT token < lag(token) OVER (ORDER BY n) AS back FROM tick) AS t WHERE back"))
    for name, member in fleet.members.items():
        if member.poll() is None:
            fleet.signal(name, signal.SIGTERM)
    for name in "abc".replace(killed, ""):
        fleet.members[name].wait(40)
    # one may have handed over to another that was just stopping, whose lease runs out then
    t.wait("nobody leads", "t", lambda: t.sql("SELECT le_leader(le_lock_id('singleton')) IS NULL"))


def relay(t, fleet):
    t.sql("""
        CREATE TABLE outbox (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, event text NOT NULL);
        GRANT SELECT, INSERT, DELETE ON outbox TO app""")
    events = os.path.join(fleet.folder, "events")
    written = 0

    def write(count):
        nonlocal written
        t.sql("INSERT INTO outbox (event) SELECT 'event' FROM generate_series(1, %d)" % count)
        written += count

    def mark():
        try:
            with open(events + ".token") as file:
                return int(file.read())
        except FileNotFoundError:
            return 0

    def received():
        try:
            with open(events) as file:
                return [int(line.split()[0]) for line in file.read().splitlines()]
        except FileNotFoundError:
            return []

    def all_is_there():
        t.wait("all has arrived", set(range(1, written + 1)), lambda: set(received()))
        t.wait("the outbox is empty", "0", lambda: t.sql("SELECT count(*) FROM outbox"))

    for name in "abc":
        fleet.start(name, "leaderctl", "run", "--lock=relay", *SHORT, "--", os.path.join(EXAMPLES, "relay.py"),
                    os.path.join(EXAMPLES, "fenced-file"), events)
    write(250)
    all_is_there()
    # an event with a line break is one line
    t.sql("INSERT INTO outbox (event) VALUES (E'paid\\n0 forged')")
    written += 1
    all_is_there()
    token = mark()
    killed = t.wait("who works", lambda name: name is not None, lambda: fleet.worker("relay.py"))
    write(1000)
    fleet.signal_all(killed, signal.SIGKILL)
    write(200)
    all_is_there()
    t.check("by a later term", True, mark() > token)
    token = mark()
    frozen = t.wait("who works", lambda name: name is not None, lambda: fleet.worker("relay.py"))
    write(1000)
    fleet.signal_all(frozen, signal.SIGSTOP)
    write(200)
    t.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
          " AND state = 'idle in transaction'")         # the setting that relay.py tells of would do it
    all_is_there()
    write(1)
    t.wait("by a later term", lambda later: later > token, mark)
    fleet.signal_all(frozen, signal.SIGCONT)
    write(10)
    all_is_there()
    ids = list(dict.fromkeys(received()))
    t.check("in their order, apart from repetitions", sorted(ids), ids)
    refused = subprocess.run([os.path.join(EXAMPLES, "fenced-file"), str(token), events], input="1 old\n", text=True,
                             stderr=subprocess.PIPE)
    t.check("an old token is refused", 1, refused.returncode)


def shards(t, fleet):
    t.sql("""
        CREATE TABLE shard_work (n bigint GENERATED ALWAYS AS IDENTITY, shard int NOT NULL, token bigint NOT NULL);
        GRANT SELECT, INSERT ON shard_work TO app;
        GRANT EXECUTE ON FUNCTION le_leases TO app;
        GRANT SELECT ON leader_lease TO app;
        CREATE TABLE shard (id int);
        INSERT INTO shard SELECT generate_series(1, 12);
        GRANT SELECT ON shard TO app""")
    script = os.path.join(EXAMPLES, "shards.py")
    fleet.environment.update(LEASE_MS="2000")

    def spread():
        return t.sql("SELECT string_agg(n::text, ' ' ORDER BY n) FROM (SELECT count(*) AS n FROM leader_lease"
                     " WHERE id <= 12 AND state = 'live' GROUP BY leader_id) AS t")

    # the line that the example warns of
    with open(script) as file:
        wrong, = re.findall(r"^ *(SELECT .*LIMIT 1) +-- wrong$", file.read(), re.M)
    t.check("the wrong way returns one", "12", t.sql(wrong))
    t.check("and takes twelve", "12", t.sql("SELECT count(*) FROM leader_lease"))
    t.sql("SELECT le_release(id, 'me') FROM shard")

    for name in "abc":
        fleet.start(name, script)
    t.wait("four each", "4 4 4", spread)
    # nobody comes in for a while, as when the server restarts; the leases are shorter
    t.sql("ALTER DATABASE %s CONNECTION LIMIT 0; SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
          " WHERE datname = current_database() AND usename = 'app'" % t.db)
    t.wait("no shard is led", "", spread)
    t.check("the workers live", "a b c", " ".join(name for name in "abc" if fleet.members[name].poll() is None))
    t.sql("ALTER DATABASE %s CONNECTION LIMIT -1" % t.db)
    t.wait("four each, as before", "4 4 4", spread)
    fleet.signal("a", signal.SIGKILL)
    t.wait("six each", "6 6", spread)
    fleet.signal("b", signal.SIGSTOP)
    t.wait("all twelve", "12", spread)
    fleet.signal("b", signal.SIGCONT)
    t.wait("six each again", "6 6", spread)
    fleet.start("d", script)
    t.wait("four each again", "4 4 4", spread)
    t.wait("each is worked on", "12", lambda: t.sql("SELECT count(DISTINCT shard) FROM shard_work"))
    t.check("one after the other", "0", t.sql(
        "SELECT count(*) FROM (SELECT token < lag(token) OVER (PARTITION BY shard ORDER BY n) AS back"
        " FROM shard_work) AS t WHERE back"))
    for name in "bcd":
        fleet.signal(name, signal.SIGTERM)
    for name in "bcd":
        t.check("%s exits: %s" % (name, fleet.said(name)[-1500:]), 0, fleet.members[name].wait(40))
    t.check("nobody leads", "0", t.sql("SELECT count(*) FROM leader_lease WHERE state = 'live'"))


EXAMPLES_TRIED = {"nightly": nightly, "singleton": singleton, "relay": relay, "shards": shards}
