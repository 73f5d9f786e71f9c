"""The main programs of docs/drivers.md: the work while it leads, and the end."""
import os
import re
import signal
import subprocess

CLASSES = "/usr/share/java/"
CLASSPATH = ":".join([CLASSES + jar + ".jar" for jar in (
    "postgresql", "spring3-core", "spring3-beans", "spring3-jdbc", "spring3-transaction", "commons-logging")] + ["."])
JAVAC, JAVA = ["javac", "-Xlint:-options", "-cp", CLASSPATH, "Usage.java"], ["java", "-cp", CLASSPATH, "Usage"]
GO = ["go", "build", "-o", "usage", "usage.go", "usage_main.go"]

# driver: its files, made of blocks of the page, how they are built, how they are run
USAGES = {
    "jdbc": ({"Usage.java": "@@ java-imports\n@@ jdbc-imports\npublic class Usage {\n"
              "@@ java\n@@ java-main\n@@ jdbc\n@@ jdbc-work\n}\n"}, JAVAC, JAVA),
    "spring": ({"Usage.java": "@@ java-imports\n@@ spring-imports\npublic class Usage {\n"
                "@@ java\n@@ java-main\n@@ spring\n@@ spring-work\n}\n"}, JAVAC, JAVA),
    "lib/pq": ({"usage.go": "package main\n@@ go-imports\n@@ lib/pq-imports\n@@ go\n@@ lib/pq\n@@ lib/pq-work\n",
                "usage_main.go": "@@ go-main\n"}, GO, ["./usage"]),
    "pgx": ({"usage.go": "package main\n@@ go-imports\n@@ pgx-imports\n@@ go\n@@ pgx\n@@ pgx-work\n",
             "usage_main.go": "@@ go-main\n"}, GO, ["./usage"]),
    "dbd-pg": ({"usage.pl": "use strict;\nuse warnings;\n@@ dbd-pg\n@@ dbd-pg-main\n"}, None, ["perl", "usage.pl"]),
    "ruby-pg": ({"usage.rb": "@@ ruby\n@@ ruby-pg\n@@ ruby-pg-work\n@@ ruby-main\n"}, None, ["ruby", "usage.rb"]),
    "activerecord": ({"usage.rb": "@@ ruby\n@@ activerecord\n@@ activerecord-work\n@@ ruby-main\n"}, None,
                     ["ruby", "usage.rb"]),
    "sequel": ({"usage.rb": "@@ ruby\n@@ sequel\n@@ sequel-work\n@@ ruby-main\n"}, None, ["ruby", "usage.rb"]),
    "pdo": ({"usage.php": "<?php\n@@ pdo\n@@ pdo-main\n"}, None, ["php", "usage.php"]),
    "tokio-postgres": ({"src/bin/usage.rs": "@@ tokio-postgres\n@@ tokio-postgres-main\n"},
                       ["cargo", "build", "--offline", "--quiet", "--bin", "usage"], ["target/debug/usage"]),
}

CUT = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = 'app'"""


def names():
    """The blocks of the page that are used here."""
    return {name for files, _, _ in USAGES.values() for text in files.values()
            for name in re.findall(r"^@@ (\S+)$", text, re.M)}


def try_usage(t, driver, program, blocks, started):
    """It works, loses its connections and the lead, goes on each time, and releases."""
    if driver not in USAGES:
        return
    files, build, command = USAGES[driver]
    for name, text in files.items():
        path = os.path.join(program.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(re.sub(r"^@@ (\S+)\n", lambda match: blocks[match[1]], text, flags=re.M))
    if build:
        program.run(build)
    # pieces of 20 ms, so that it leaves something of the processor to the others
    t.sql("""
        CREATE TABLE ledger (n int);
        GRANT SELECT, INSERT ON ledger TO app;
        CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.02); RETURN new; END';
        CREATE TRIGGER pause BEFORE INSERT ON ledger FOR EACH ROW EXECUTE FUNCTION pause()""")
    e = program.environment
    said = os.path.join(program.folder, "usage.log")
    with open(said, "w") as log:
        process = subprocess.Popen(command, cwd=program.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   env=dict(e, DATABASE="host=%s port=%s user=%s dbname=%s" % (
                                       e["PGHOST"], e["PGPORT"], e["PGUSER"], e["PGDATABASE"])))

    def end():
        process.kill()
        process.wait()

    def tail():
        with open(said, errors="replace") as log:
            return log.read()[-1500:]

    def rows():
        return int(t.sql("SELECT count(*) FROM ledger"))

    def waiting():
        return int(t.sql("SELECT count(*) FROM leader_waiting"))

    def works(what):
        before = rows()
        t.wait(what + ": " + tail(), True, lambda: rows() > before + 2)

    started.append(end)
    try:
        works("it works")
        silent = os.path.getsize(said)
        t.sql(CUT)
        works("it goes on with other connections")
        t.wait("it has said why", True, lambda: os.path.getsize(said) > silent)
        # so it does if they were lost while another led
        t.sql("SET ROLE app; SELECT le_transfer(1, le_leader(1), le_token(1, le_leader(1)), 'another')")
        t.wait("it waits", 1, waiting)
        t.sql(CUT)
        t.wait("it waits again", 1, waiting)
        t.sql("SET ROLE app; SELECT le_release(1, 'another')")
        works("it works when it is elected again")
        token = t.sql("SELECT token FROM leader_lease WHERE id = 1")
        process.send_signal(signal.SIGTERM)
        t.check("it exits: " + tail(), {"jdbc": 143, "spring": 143}.get(driver, 0), process.wait(30))
        t.check("it has released", "released", t.sql("SELECT ended_how FROM leader_history WHERE token = " + token))
    finally:
        end()
