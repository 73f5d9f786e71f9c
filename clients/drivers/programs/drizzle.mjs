@@ javascript
@@ pg-election
@@ pg-pool
@@ drizzle

const db = drizzle({ client: pool });
const runGuarded = (token, work) => guarded(db, token, work);
const execute = (tx, text) => tx.execute(sql.raw(text));

@@ file main.mjs
