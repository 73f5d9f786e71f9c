@@ asyncpg
@@ asyncpg-usage
