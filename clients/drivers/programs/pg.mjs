@@ javascript
@@ pg-election
@@ pg

const pool = new pg.Pool();
const runGuarded = (token, work) => guarded(pool, token, work);
const execute = (db, sql) => db.query(sql);

@@ file main.mjs
