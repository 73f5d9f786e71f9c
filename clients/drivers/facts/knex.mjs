// What docs/drivers.md says of Knex.
import knexFor from 'knex';
import pg from 'pg';

const fact = (what, wanted, got) =>
	console.log(wanted === got ? `ok ${what}` : `not ok ${what}: wanted ${wanted}, got ${got}`);

const { PGHOST, PGPORT, PGUSER, PGDATABASE } = process.env;
const knex = knexFor({
	client: 'pg', connection: { host: PGHOST, port: Number(PGPORT), user: PGUSER, database: PGDATABASE },
});
const db = new pg.Client();
await db.connect();
await db.query("SELECT le_try_acquire(9, 'x')");
const trx = await knex.transaction();
await trx.raw("SELECT le_guard(9, 'x')");
await trx.raw('CREATE TEMP TABLE t (n int)');
await db.query("SELECT le_release(9, 'x')");
fact('commit() of one without a handler says nothing', undefined, await trx.commit().catch((e) => e.code));
fact('executionPromise does', 'LE001', await trx.executionPromise.catch((e) => e.code));
fact('nothing of it is there', undefined, (await db.query("SELECT 1 FROM pg_class WHERE relname = 't'")).rows[0]);
await db.end();
await knex.destroy();
