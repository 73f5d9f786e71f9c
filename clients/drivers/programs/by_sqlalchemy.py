@@ python
@@ sqlalchemy


def run_guarded(token, work):
    guarded(engine, token, work)


def execute(connection, sql):
    connection.execute(text(sql))


@@ file main.py
