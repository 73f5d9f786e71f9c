import { CompiledQuery, Kysely, PostgresDialect } from 'kysely';
@@ javascript
@@ pg-election
@@ pg-pool
@@ kysely

const db = new Kysely({ dialect: new PostgresDialect({ pool }) });
const runGuarded = (token, work) => guarded(db, token, work);
const execute = (trx, text) => trx.executeQuery(CompiledQuery.raw(text));

@@ file main.mjs
