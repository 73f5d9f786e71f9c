#!/usr/bin/python3
"""Twelve shards, shared out among as many workers as there are.

    examples/shards.py

Each shard is a lock, and is worked on by its leader.  A worker takes as many
shards as is its share, ceil(12 / workers), gives back what is more, and takes
over those of a worker that has died when their leases have run out.  A worker
counts if it leads a lock of its own.  Who loses the connection connects again,
and keeps what it leads if that takes no longer than the lease.

There is one thread: a turn, with a piece of work of each shard, must be shorter
than the lease, or all the shards are lost.  leaderctl, or a thread for elect(),
is for longer ones.

    CREATE TABLE shard_work (n bigint GENERATED ALWAYS AS IDENTITY, shard int NOT NULL, token bigint NOT NULL);
    GRANT SELECT, INSERT ON shard_work TO app;
    GRANT EXECUTE ON FUNCTION le_leases TO app;
    GRANT SELECT ON leader_lease TO app;

Never look for a lock by a condition that takes it:

    SELECT id FROM shard WHERE le_try_acquire(id, 'me') ORDER BY id DESC LIMIT 1      -- wrong

A LIMIT is applied last: with a sort below it this takes every lock that is vacant,
and returns one.  Choose first, and take what has been chosen, as TAKE does.

Needs psycopg2 (Debian: python3-psycopg2), and the role that the extension's README
has under "Roles".
"""
import os
import random
import signal
import sys
import time
import uuid

import psycopg2

SHARDS = 12
LEASE = int(os.environ.get("LEASE_MS", 10000))
TURN = LEASE / 1000 / 5                         # seconds between heartbeats

# The locks 1 to 12 are the shards.  The lock of the worker itself is any other.
# le_campaign() is called for the rows that the subquery has returned.
TAKE = """
    SELECT id, token, valid_for_ms
    FROM (SELECT id FROM generate_series(1, %(shards)s) AS id WHERE le_leader(id) IS NULL
          ORDER BY random() LIMIT %(free)s) AS vacant,
        LATERAL le_campaign(id, %(me)s, %(lease)s)
    WHERE elected"""
RENEW = """
    SELECT id, token, valid_for_ms
    FROM unnest(%(ids)s::bigint[], %(tokens)s::bigint[]) AS held (id, token),
        LATERAL le_keep_alive(id, %(me)s, token)
    WHERE leads"""
PRESENT = "SELECT elected, token FROM le_campaign(le_lock_id(%(me)s), %(me)s, %(lease)s, info => 'shard worker')"
WORKERS = "SELECT count(*) FROM leader_lease WHERE info = 'shard worker' AND state IN ('live', 'restarted')"
RELEASE = "SELECT le_release(%s, %s, %s)"


def clock():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Worker:
    def __init__(self):
        self.me = "worker:%s" % uuid.uuid4()
        self.db = self.work_db = None
        self.held = {}                          # shard: (token, deadline)
        self.stopping = False

    def connect(self):
        limits = "connect_timeout=3 tcp_user_timeout=5000 keepalives_idle=5 keepalives_interval=1"
        self.db = psycopg2.connect(limits)
        self.db.autocommit = True
        self.work_db = psycopg2.connect(limits)

    def ask(self, sql, args=None):
        with self.db.cursor() as cursor:
            cursor.execute(sql, args)
            return cursor.fetchall()

    def token(self, shard):
        token, deadline = self.held.get(shard, (None, 0))
        return token if clock() < deadline else None

    def elect(self):
        """Renew, give back, take."""
        sent, before = clock(), {shard: self.token(shard) for shard in self.held}
        live = {shard: token for shard, token in before.items() if token}
        rows = self.ask(RENEW, {"me": self.me, "ids": list(live), "tokens": list(live.values())})
        self.held = {shard: (token, sent + valid / 1000) for shard, token, valid in rows
                     if self.token(shard)}      # an answer that comes after the deadline is void
        self.ask(PRESENT, {"me": self.me, "lease": LEASE})
        (workers,), = self.ask(WORKERS)
        share = -(-SHARDS // max(workers, 1))
        for shard in random.sample(sorted(self.held), max(len(self.held) - share, 0)):
            self.release(shard)
        sent = clock()
        for shard, token, valid in self.ask(TAKE, {
                "me": self.me, "lease": LEASE, "shards": SHARDS, "free": max(share - len(self.held), 0)}):
            self.held[shard] = token, sent + valid / 1000

    def release(self, shard):
        token, _ = self.held.pop(shard)         # nothing of it is at work: there is one thread
        self.ask(RELEASE, (shard, self.me, token))

    def work(self):
        """A piece of work of each shard.  Put yours here."""
        for shard in sorted(self.held):
            token = self.token(shard)
            if token is None:
                continue
            try:
                with self.work_db, self.work_db.cursor() as cursor:
                    cursor.execute("SELECT le_guard(%s, %s, %s)", (shard, self.me, token))
                    cursor.execute("INSERT INTO shard_work (shard, token) VALUES (%s, %s)", (shard, token))
            except psycopg2.Error as error:
                if error.pgcode != "LE001":
                    raise
                self.held.pop(shard)            # lost; nothing of it was kept

    def run(self):
        print(self.me, flush=True)
        while not self.stopping:
            try:
                if self.db is None:
                    self.connect()
                self.elect()
                self.work()
            except psycopg2.Error as error:     # changes nothing until the deadlines
                print(error, file=sys.stderr, flush=True)
                self.db = None
            time.sleep(TURN)
        if self.db is None:
            return                              # the leases run out
        for shard in list(self.held):
            self.release(shard)
        (_, token), = self.ask(PRESENT, {"me": self.me, "lease": LEASE})
        self.ask("SELECT le_release(le_lock_id(%s), %s, %s)", (self.me, self.me, token))

    def stop(self, *_):
        self.stopping = True


if __name__ == "__main__":
    worker = Worker()
    signal.signal(signal.SIGTERM, worker.stop)
    signal.signal(signal.SIGINT, worker.stop)
    sys.exit(worker.run())
