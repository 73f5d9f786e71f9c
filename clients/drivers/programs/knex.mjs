import knexFor from 'knex';
@@ javascript
@@ pg-election
@@ knex

const { PGHOST, PGPORT, PGUSER, PGDATABASE } = process.env;
const knex = knexFor({
	client: 'pg', connection: { host: PGHOST, port: Number(PGPORT), user: PGUSER, database: PGDATABASE },
});
const runGuarded = (token, work) => guarded(knex, token, work);
const execute = (trx, sql) => trx.raw(sql);

@@ file main.mjs
