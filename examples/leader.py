#!/usr/bin/python3
"""One contender: elects, heartbeats, and works while it leads.

    examples/leader.py 'dbname=app host=/var/run/postgresql'

Needs psycopg2 (Debian: python3-psycopg2) and a role that may execute
le_try_acquire, le_renew, le_release and le_token.  Start it several times;
stop one with Ctrl-C (hands over at once) or SIGKILL (another takes over when
the lease has run out).
"""
import random
import socket
import sys
import threading
import time

import psycopg2

LOCK, LEASE, RENEWAL, JITTER = 1, 10, 3, 2      # seconds


def clock():
    """Seconds, by a clock that does not stop while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Contender(threading.Thread):
    def __init__(self, dsn):
        super().__init__()
        self.dsn, self.db, self.me = dsn, None, None
        self.token, self.deadline = None, 0
        self.stopping = threading.Event()

    def leads(self):
        """What the work asks, again and again; asks no server."""
        return self.token is not None and clock() < self.deadline

    def ask(self, sql, *args):
        if self.db is None:
            self.db = psycopg2.connect(self.dsn, connect_timeout=3)
            self.db.autocommit = True
        with self.db.cursor() as cursor:
            cursor.execute(sql, args)
            return cursor.fetchone()[0]

    def heartbeat(self):
        sent, token = clock(), self.token       # the lease counts from before sending
        renewed = self.ask("SELECT le_renew(%s, %s, %s)", LOCK, self.me, token)
        if renewed and self.leads():            # an answer after the deadline is void
            self.deadline = sent + LEASE
        else:
            self.token = None

    def try_to_lead(self):
        sent = clock()
        if self.ask("SELECT le_try_acquire(%s, %s, %s)", LOCK, self.me, LEASE * 1000):
            self.deadline = sent + LEASE
            self.token = self.ask("SELECT le_token(%s, %s)", LOCK, self.me)

    def step_down(self):
        token, self.token = self.token, None    # stop before sending the release
        if token is not None:
            self.ask("SELECT le_release(%s, %s, %s)", LOCK, self.me, token)

    def run(self):
        while not self.stopping.is_set():
            try:
                self.me = self.me or self.ask("SELECT le_instance(%s)", socket.gethostname()[:60])
                if self.leads():
                    self.heartbeat()
                else:
                    self.token = None
                    self.try_to_lead()
            except psycopg2.Error as error:     # changes nothing until the deadline
                print(str(error).strip(), file=sys.stderr)
                if self.db is not None:
                    self.db.close()
                self.db = None
            self.stopping.wait(RENEWAL + random.uniform(-JITTER, JITTER))
        self.step_down()


def main():
    contender = Contender(sys.argv[1] if len(sys.argv) > 1 else "")
    contender.start()
    led = None
    try:
        while True:
            leads = contender.leads()
            if leads != led:
                print("leading, token %s" % contender.token if leads else "not leading", flush=True)
                led = leads
            time.sleep(0.05)                    # here: a small piece of the leader's work
    except KeyboardInterrupt:
        contender.stopping.set()
        contender.join()


if __name__ == "__main__":
    main()
