@@ python
@@ psycopg2
@@ python-usage
