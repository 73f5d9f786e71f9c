@@ javascript
@@ pg-election
@@ drizzle

const db = drizzle({ client: new pg.Pool() });
const runGuarded = (token, work) => guarded(db, token, work);
const execute = (tx, text) => tx.execute(sql.raw(text));

@@ file main.mjs
