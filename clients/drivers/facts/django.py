"""What docs/drivers.md says of Django."""
import os
import threading

import django
from django.conf import settings

settings.configure(DATABASES={"default": {
    "ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"], "USER": os.environ["PGUSER"],
    "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"]}})
django.setup()
from django.db import connection, transaction, utils  # noqa: E402


def fact(what, wanted, got):
    print("ok %s" % what if wanted == got else "not ok %s: wanted %r, got %r" % (what, wanted, got))


def backend(found):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        found.append(cursor.fetchone()[0])


pids = []
backend(pids)
thread = threading.Thread(target=backend, args=(pids,))
thread.start()
thread.join()
fact("a connection for each thread", True, pids[0] != pids[1])
try:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT le_try_acquire(9, 'x')")
    fact("atomic is a block", "25001", None)
except utils.DatabaseError as error:
    fact("atomic is a block", "25001", error.__cause__.pgcode)
with connection.cursor() as cursor:
    cursor.execute("SELECT le_try_acquire(9, 'x')")
    fact("else there is none", True, cursor.fetchone()[0])

called = []
with connection.cursor() as cursor:
    cursor.execute("SELECT le_try_acquire(9, 'x')")
try:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT le_guard(9, 'x')")
        transaction.on_commit(lambda: called.append(True))
        other = threading.Thread(target=lambda: connection.cursor().execute("SELECT le_release(9, 'x')"))
        other.start()
        other.join()
    fact("COMMIT is refused", "LE001", None)
except utils.DatabaseError as error:
    fact("COMMIT is refused", "LE001", error.__cause__.pgcode)
fact("on_commit is not called then", [], called)
