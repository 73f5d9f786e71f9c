"""What docs/drivers.md says of SQLAlchemy."""
from sqlalchemy import create_engine, exc, text


def fact(what, wanted, got):
    print("ok %s" % what if wanted == got else "not ok %s: wanted %r, got %r" % (what, wanted, got))


engine = create_engine("postgresql+psycopg2://")
try:
    with engine.connect() as connection:
        connection.execute(text("SELECT le_try_acquire(9, 'x')"))
    fact("a transaction by default", "25001", None)
except exc.DBAPIError as error:
    fact("a transaction by default", "25001", error.orig.pgcode)
    fact("of what class it is", "InternalError", type(error).__name__)
