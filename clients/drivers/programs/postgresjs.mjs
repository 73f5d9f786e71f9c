@@ javascript
@@ postgres.js

const pool = postgres();
const runGuarded = (token, work) => guarded(pool, token, work);
const execute = (sql, text) => sql.unsafe(text);

@@ file main.mjs
