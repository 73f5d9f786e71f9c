@@ javascript
@@ pg-election
@@ pg-pool
@@ pg

const runGuarded = (token, work) => guarded(pool, token, work);
const execute = (db, sql) => db.query(sql);

@@ file main.mjs
