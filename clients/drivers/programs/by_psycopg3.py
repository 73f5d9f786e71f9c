@@ python
@@ psycopg3
db2 = connect()


def run_guarded(token, work):
    global db2
    if db2.closed:
        db2 = connect()
    guarded(db2, token, work)


def execute(cursor, sql):
    cursor.execute(sql)


@@ file main.py
