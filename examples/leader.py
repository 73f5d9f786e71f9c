#!/usr/bin/python3
"""One contender: elects, heartbeats, and works while it leads.

    examples/leader.py 'dbname=app host=/var/run/postgresql'

Needs psycopg2 (Debian: python3-psycopg2), a role that may execute
le_campaign, le_keep_alive, le_release and le_guard, and for its work

    CREATE TABLE le_example (token bigint, at timestamptz DEFAULT now());

Start it several times.  Ctrl-C or SIGTERM, or an operator's
SELECT le_request_resign(1): it ends its piece of work, releases, and another
leads at once.  SIGKILL or SIGSTOP: another leads when the lease has run out, and
what this one has not committed by then is refused.  If the work raises, it
releases and exits with status 1; start it again by a supervisor.
"""
import random
import signal
import socket
import sys
import threading
import time

import psycopg2

LOCK, LEASE = 1, 10             # the lease in seconds
RENEWAL, JITTER = 3, 2          # a leader's heartbeats
WAIT = 5                        # the others wait for so long in one call
RETRY = 1                       # who got an error asks again
PATIENCE = 60                   # longer than any piece of work takes


def clock():
    """Seconds, by a clock that does not stop while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def connect(dsn):
    """A connection that is noticed in 5 s if it has died silently, also in a wait."""
    return psycopg2.connect(dsn, connect_timeout=3, tcp_user_timeout=5000,
                            keepalives_idle=2, keepalives_interval=1)


def complain(error):
    print(str(error).strip(), file=sys.stderr, flush=True)


class Contender(threading.Thread):
    """The election.  It alone writes `term`; the work writes the rest."""

    def __init__(self, dsn):
        super().__init__(daemon=True)
        self.dsn, self.db, self.me = dsn, None, None
        self.term = None, 0             # token and deadline, which belong together
        self.lost = None                # the token that a guard has refused
        self.asked = clock()            # when the work has last shown up
        self.waits = False              # in a call that may take long
        self.stopping = False           # begin no more work
        self.work_is_over = threading.Event()

    # What the work calls; none of it asks a server.

    def leads(self):
        """The token, or None.  Ask before every piece of work."""
        self.asked = clock()
        return None if self.stopping else self.live_token()

    def deposed(self, token):
        """The server has said LE001: this term is over."""
        self.lost = token

    def stop(self, *_):
        """For signal.signal(), so it must not touch a lock: sets a flag."""
        self.stopping = True

    def end(self):
        """No more heartbeats, for the work has ended; do not wait for the lead."""
        self.work_is_over.set()
        db = self.db
        if self.waits and db is not None:
            threading.Thread(target=db.cancel, daemon=True).start()     # it connects
        self.join(LEASE)

    # What runs in the thread.

    def live_token(self):
        token, deadline = self.term
        return None if token == self.lost or clock() >= deadline else token

    def ask(self, sql, *args):
        if self.db is None:
            self.db = connect(self.dsn)
            self.db.autocommit = True
        try:
            with self.db.cursor() as cursor:
                cursor.execute(sql, args)
                return cursor.fetchone()
        except psycopg2.Error:
            self.db.close()
            self.db = None
            raise

    def heartbeat(self, token):
        sent = clock()                          # the deadline counts from before sending
        leads, valid_for_ms, resign = self.ask(
            "SELECT leads, valid_for_ms, resign_requested FROM le_keep_alive(%s, %s, %s)",
            LOCK, self.me, token)
        if leads and self.live_token():         # an answer after the deadline is void
            self.term = token, sent + valid_for_ms / 1000
        else:
            self.term = None, 0
        if resign:
            self.stop()

    def wait_for_the_lead(self):
        self.term = None, 0
        sent = clock()
        self.waits = True
        try:
            elected, token, valid_for_ms = self.ask(
                "SELECT elected, token, valid_for_ms FROM le_campaign(%s, %s, %s, wait_ms => %s)",
                LOCK, self.me, LEASE * 1000, WAIT * 1000)
        finally:
            self.waits = False
        if elected:
            self.term = token, sent + valid_for_ms / 1000
        return elected

    def turn(self):
        """Elect once; how long to wait until the next turn."""
        try:
            if self.me is None:
                self.me, = self.ask("SELECT le_instance(%s)", socket.gethostname()[:60])
            token = self.live_token()
            if clock() - self.asked > PATIENCE:
                complain("the work hangs: not asking for the lead")
            elif token is not None:
                self.heartbeat(token)
            elif not self.stopping and not self.wait_for_the_lead():
                return 0                        # and go on waiting
            if self.live_token() is not None:
                return RENEWAL + random.uniform(-JITTER, JITTER)
        except psycopg2.Error as error:         # changes nothing until the deadline
            complain(error)
        return RETRY * random.uniform(0.5, 1)

    def release(self):
        """Repeat it until it is answered or there is nothing left to release."""
        token, deadline = self.term
        self.term = None, 0
        while token is not None and clock() < deadline:
            try:
                self.ask("SELECT le_release(%s, %s, %s)", LOCK, self.me, token)
                print("released", flush=True)
                return
            except psycopg2.Error as error:
                complain(error)
                time.sleep(0.2)

    def run(self):
        while not self.work_is_over.is_set():
            self.work_is_over.wait(self.turn())
        self.release()


def work(contender):
    """Called when this process leads; returns when it does not.  Put yours here."""
    db = connect(contender.dsn)
    try:
        while (token := contender.leads()) is not None:
            with db, db.cursor() as cursor:     # a transaction: guard first, then work
                cursor.execute("SELECT le_guard(%s, %s, %s)", (LOCK, contender.me, token))
                cursor.execute("INSERT INTO le_example (token) VALUES (%s)", (token,))
            time.sleep(0.2)
    except psycopg2.Error as error:
        if error.pgcode != "LE001":
            raise
        complain("refused: %s" % error)         # nothing of it was kept
        contender.deposed(token)
    finally:
        db.close()


def main():
    contender = Contender(sys.argv[1] if len(sys.argv) > 1 else "")
    signal.signal(signal.SIGTERM, contender.stop)
    signal.signal(signal.SIGINT, contender.stop)
    contender.start()
    try:
        while contender.is_alive() and not contender.stopping:
            token = contender.leads()
            if token is not None:
                print("leading, token %s" % token, flush=True)
                work(contender)
                print("not leading", flush=True)
            time.sleep(0.05)
    finally:                                    # also if the work has died
        contender.end()                         # and release
    return 0 if contender.stopping else 1


if __name__ == "__main__":
    sys.exit(main())
