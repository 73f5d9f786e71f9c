import { CompiledQuery, Kysely, PostgresDialect } from 'kysely';
@@ javascript
@@ pg-election
@@ kysely

const db = new Kysely({ dialect: new PostgresDialect({ pool: new pg.Pool() }) });
const runGuarded = (token, work) => guarded(db, token, work);
const execute = (trx, text) => trx.executeQuery(CompiledQuery.raw(text));

@@ file main.mjs
