"""What docs/drivers.md says of psycopg2."""
import psycopg2


def fact(what, wanted, got):
    print("ok %s" % what if wanted == got else "not ok %s: wanted %r, got %r" % (what, wanted, got))


def state(ask):
    try:
        ask()
        return None
    except psycopg2.Error as error:
        return error.pgcode


db = psycopg2.connect("")
fact("a transaction by default", "25001", state(lambda: db.cursor().execute("SELECT le_try_acquire(9, 'x')")))
db.rollback()
db.autocommit = True
db.cursor().execute("SELECT le_try_acquire(9, 'x')")
try:
    with db, db.cursor() as cursor:
        cursor.execute("SELECT le_try_acquire(8, 'x')")
    fact("with is a transaction, also in autocommit", "25001", None)
except psycopg2.errors.ActiveSqlTransaction as error:
    fact("with is a transaction, also in autocommit", "25001", error.pgcode)
with db, db.cursor() as cursor:
    cursor.execute("SELECT le_guard(9, 'x')")
fact("with does not close", 0, db.closed)
