@@ python
@@ psycopg3
db2 = psycopg.connect("")


def run_guarded(token, work):
    guarded(db2, token, work)


def execute(cursor, sql):
    cursor.execute(sql)


@@ file main.py
