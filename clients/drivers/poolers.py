"""The poolers of docs/drivers.md, in front of the server that is tested with."""
import os
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))


class Pooler:
    """A pooler with its configuration in a directory, which is where its socket is, too."""

    def __init__(self, folder, name, command):
        with open(os.path.join(folder, name + ".log"), "w") as log:
            self.process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def write(folder, name, text):
    with open(os.path.join(folder, name), "w") as file:
        file.write(text)


def pgbouncer(folder, port, mode, size):
    write(folder, "users", '"app" ""\n')
    write(folder, mode + ".ini", """
[databases]
* = host=%s port=%s
[pgbouncer]
unix_socket_dir = %s
listen_port = %d
auth_type = trust
auth_file = users
pool_mode = %s
default_pool_size = %d
""" % (os.environ["PGHOST"], os.environ["PGPORT"], folder, port, mode, size))
    return Pooler(folder, mode, ["/usr/sbin/pgbouncer", mode + ".ini"])


def ask(folder, port, db, sql):
    """What psql prints through the pooler, its errors as their SQLSTATE or text."""
    done = subprocess.run(["psql", "-XAtq", "-v", "VERBOSITY=sqlstate", "-d",
                           "host=%s port=%d user=app dbname=%s" % (folder, port, db)], input=sql, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return " ".join(done.stdout.split())


def try_prepared(t, folder, port):
    said = subprocess.run(["/usr/bin/python3", os.path.join(HERE, "prepared.py"), folder, str(port), t.db],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    t.check("what prepares statements", ["psycopg 3 as it is: failed", "psycopg 3 without preparing: went well",
                                         "asyncpg as it is: failed", "asyncpg without preparing: went well"],
            said.stdout.splitlines())


def try_pgbouncer(t, folder, scenario, started):
    for number, mode in enumerate(("session", "transaction", "statement")):
        port = 6400 + number
        pooler = pgbouncer(folder, port, mode, 4)
        started.append(pooler.end)
        try:
            t.wait("%s: a connection" % mode, "1", lambda: ask(folder, port, t.db, "SELECT 1"))
            if mode != "statement":
                t.sql("DELETE FROM work USING le_try_acquire(1, 'sweep'), le_guard(1, 'sweep');"
                      " SELECT le_release(1, 'sweep')")
                scenario(mode, folder, port)
                if mode == "transaction":
                    try_prepared(t, folder, port)
                continue
            t.check("statement: elected", "t", ask(folder, port, t.db, "SELECT le_try_acquire(5, 'a')"))
            t.check("statement: a heartbeat", "t", ask(folder, port, t.db, "SELECT leads FROM"
                    " le_keep_alive(5, 'a', (SELECT le_token(5, 'a')))"))
            t.check("statement: no blocks", True, "transaction blocks not allowed" in ask(
                folder, port, t.db, "\\set VERBOSITY default\nBEGIN;"))
            guarded = "INSERT INTO other SELECT 1 FROM le_guard(3, 'a')"
            t.check("statement: not the leader", "ERROR: LE001", ask(folder, port, t.db, guarded))
            t.check("statement: elected again", "t", ask(folder, port, t.db, "SELECT le_try_acquire(3, 'a')"))
            t.check("statement: guard and work in one", "", ask(folder, port, t.db, guarded))
            t.check("statement: it is there", "1", t.sql("SELECT count(*) FROM other"))
        finally:
            pooler.end()
    # who waits keeps a connection of the pool from everybody else
    port = 6403
    pooler = pgbouncer(folder, port, "transaction", 1)
    started.append(pooler.end)
    try:
        t.wait("small: a connection", "1", lambda: ask(folder, port, t.db, "SELECT 1"))
        waits = subprocess.Popen(["psql", "-XAtq", "-d", "host=%s port=%d user=app dbname=%s" % (folder, port, t.db),
                                  "-c", "SELECT elected FROM le_campaign(5, 'b', wait_ms => 3000)"],
                                 stdout=subprocess.PIPE, text=True)
        t.wait("small: one waits", "b", lambda: t.sql("SELECT instance FROM leader_waiting"))
        begin = time.monotonic()
        t.check("small: the heartbeat", "t", ask(folder, port, t.db, "SELECT le_renew(5, 'a')"))
        t.check("small: came after the wait", True, time.monotonic() - begin > 1)
        t.check("small: which was in vain", "f", waits.communicate()[0].strip())
    finally:
        pooler.end()


def try_pgpool(t, folder, scenario, started):
    """With a standby to which everything goes that does not write, and its cache of queries."""
    standby, port = os.path.join(folder, "standby"), 6410
    subprocess.run(["pg_basebackup", "-D", standby, "-R", "-c", "fast", "--no-sync"], check=True,
                   stdout=subprocess.DEVNULL)
    with open(os.path.join(standby, "postgresql.conf"), "a") as file:
        file.write("\nport = 6411\nlisten_addresses = ''\nunix_socket_directories = '%s'\n" % folder)
    control = ["pg_ctl", "-D", standby, "-w", "-s", "-l", os.path.join(folder, "standby.log")]
    conf = """
backend_clustering_mode = 'streaming_replication'
port = %d
socket_dir = '%s'
pcp_port = 6412
pcp_socket_dir = '%s'
listen_addresses = ''
backend_hostname0 = '%s'
backend_port0 = %s
backend_weight0 = 0
backend_flag0 = 'DISALLOW_TO_FAILOVER'
backend_hostname1 = '%s'
backend_port1 = 6411
backend_weight1 = 1
backend_flag1 = 'DISALLOW_TO_FAILOVER'
load_balance_mode = on
memory_cache_enabled = on
memqcache_method = 'shmem'
memqcache_oiddir = '%s/oids'
num_init_children = 8
sr_check_period = 1
sr_check_user = 'postgres'
sr_check_database = 'postgres'
pid_file_name = '%s/pgpool.pid'
logdir = '%s'
work_dir = '%s'
""" % (port, folder, folder, os.environ["PGHOST"], os.environ["PGPORT"], folder, folder, folder, folder, folder)
    write(folder, "pgpool.conf", conf)
    write(folder, "listed.conf", conf + "write_function_list = 'le_.*'\n")
    os.mkdir(os.path.join(folder, "oids"))
    write(folder, "pcp.conf", "")
    write(folder, "pool_hba.conf", "local all all trust\n")
    subprocess.run(control + ["start"], check=True, stdin=subprocess.DEVNULL)
    pooler = None

    def start(conf):
        nonlocal pooler
        pooler = Pooler(folder, "pgpool", ["/usr/sbin/pgpool", "-n", "-f", conf, "-F", "pcp.conf", "-a", "pool_hba.conf"])
        started.append(pooler.end)
        t.wait("what only reads goes to the standby", "6411", lambda: ask(
            folder, port, t.db, "SELECT current_setting('port')"))

    def calls(title):
        for call in ("le_try_acquire(7, 'a')", "le_renew(7, 'a')", "le_is_leader(7, 'a')",
                     "le_leader(7) = 'a'", "le_token(7, 'a') > 0", "elected FROM le_campaign(7, 'a')",
                     "leads FROM le_keep_alive(7, 'a', le_token(7, 'a'))", "leader_id = 'a' FROM le_observe(7)",
                     "le_release(7, 'a')"):
            t.check(title + call, "t", ask(folder, port, t.db, "SELECT " + call))

    try:
        start("pgpool.conf")
        t.check("the cache is on", "shmem", ask(folder, port, t.db, "PGPOOL SHOW memqcache_method"))
        scenario("pgpool", folder, port)
        calls("")
        pooler.end()
        start("listed.conf")
        t.check("the list", "le_.*", ask(folder, port, t.db, "PGPOOL SHOW write_function_list"))
        calls("listed: ")
    finally:
        if pooler is not None:
            pooler.end()
        subprocess.run(control + ["-m", "immediate", "stop"], check=False, stdin=subprocess.DEVNULL)


POOLERS = {"pgbouncer": try_pgbouncer, "pgpool": try_pgpool}
