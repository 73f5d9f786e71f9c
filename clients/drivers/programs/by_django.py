import os

import django
from django.conf import settings

settings.configure(DATABASES={"default": {
    "ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"], "USER": os.environ["PGUSER"],
    "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"]}})
django.setup()
@@ python
@@ django


def run_guarded(token, work):
    guarded(token, work)


def execute(cursor, sql):
    cursor.execute(sql)


@@ file main.py
