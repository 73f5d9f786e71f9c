"""What docs/drivers.md says of psycopg 3."""
import psycopg


def fact(what, wanted, got):
    print("ok %s" % what if wanted == got else "not ok %s: wanted %r, got %r" % (what, wanted, got))


db = psycopg.connect("")
try:
    db.execute("SELECT le_try_acquire(9, 'x')")
    fact("a transaction by default", "25001", None)
except psycopg.errors.ActiveSqlTransaction as error:
    fact("a transaction by default", "25001", error.sqlstate)
db.rollback()
db.execute("CREATE TEMP TABLE t (n int)")
with db.transaction():
    db.execute("INSERT INTO t VALUES (1)")
fact("transaction() after a statement is a savepoint", psycopg.pq.TransactionStatus.INTRANS, db.info.transaction_status)
with db:
    pass
fact("with closes the connection", True, db.closed)
