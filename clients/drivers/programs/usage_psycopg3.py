@@ python
@@ psycopg3
@@ python-usage
