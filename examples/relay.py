#!/usr/bin/python3
"""Carry the rows of an outbox to another system, by one process at a time.

    leaderctl run --lock=relay -- examples/relay.py examples/fenced-file /var/spool/events

Whoever writes an event inserts it into the outbox in the transaction that it is
about.  This sends what it finds, and deletes it in a guarded transaction:

    CREATE TABLE outbox (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, event text NOT NULL);
    GRANT SELECT, INSERT, DELETE ON outbox TO app;

The other system is reached by a command, which is called with the token and a
further argument, reads lines of "id event", the event as a JSON string, in which
a line break is \\n, and refuses a token that is smaller than one that it has
seen.  examples/fenced-file does that for a file.  So a relay
that was frozen, and replaced, can neither send afterwards nor delete.

A relay that hangs between the two keeps the rows that it has locked from the next
one, for as long as the server lets it: ALTER ROLE app SET
idle_in_transaction_session_timeout = '1min', longer than the command takes.

An event arrives at least once: it is sent again if the relay dies between sending
and committing.  Its id tells: who receives an id for the second time drops it.
It sends what it finds in the order of the ids, but ids are drawn before the
commit: an event with a smaller one may be found later, and is sent then.

Needs psycopg2 (Debian: python3-psycopg2).
"""
import json
import os
import subprocess
import sys
import time

import psycopg2


def carry(db, command, limit=100):
    """One batch; how many rows it had."""
    term = os.environ["LEADER_LOCK"], os.environ["LEADER_INSTANCE"], os.environ["LEADER_TOKEN"]
    with db, db.cursor() as cursor:             # a transaction
        cursor.execute("SELECT le_guard(%s, %s, %s)", term)
        cursor.execute("""
            DELETE FROM outbox WHERE id IN (SELECT id FROM outbox ORDER BY id LIMIT %s)
            RETURNING id, event""", (limit,))
        rows = sorted(cursor.fetchall())
        if rows:
            lines = "".join("%d %s\n" % (number, json.dumps(event)) for number, event in rows)
            subprocess.run([command[0], term[2]] + command[1:], input=lines.encode(), check=True)
        return len(rows)                        # and COMMIT, which looks at the lease once more


def main():
    db = psycopg2.connect("connect_timeout=3 tcp_user_timeout=5000 keepalives_idle=5 keepalives_interval=1")
    while True:
        if carry(db, sys.argv[1:]) == 0:
            time.sleep(0.2)                     # or LISTEN to a NOTIFY of the writers


if __name__ == "__main__":
    main()
