// What docs/drivers.md says of Node pg.
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';

const fact = (what, wanted, got) =>
	console.log(wanted === got ? `ok ${what}` : `not ok ${what}: wanted ${wanted}, got ${got}`);

const db = new pg.Client();
await db.connect();
const row = (await db.query("SELECT elected, token, valid_for_ms FROM le_campaign(9, 'x')")).rows[0];
fact('a token is a string', 'string', typeof row.token);
fact('and so is a number of milliseconds', 'string', typeof row.valid_for_ms);
fact('which + does not add', '110000', 1 + row.valid_for_ms);
fact('elected is a boolean', true, row.elected);
fact('a token is exact as a number', row.token, String(Number(row.token)));
fact('the largest lock is not', false, String(Number('9223372036854775807')) === '9223372036854775807');
const error = await db.query("SELECT 1; SELECT le_try_acquire(8, 'x')").catch((e) => e);
fact('several statements in one string are a block', '25001', error.code);
await db.end();

const hasty = new pg.Client({ query_timeout: 100, application_name: 'hasty' });
hasty.on('error', () => {});
await hasty.connect();
fact('query_timeout', 'Query read timeout', await hasty.query('SELECT pg_sleep(4)').catch((e) => e.message));
pg.defaults.parseInt8 = true;
const other = new pg.Client();
await other.connect();
const active = async (name) => (await other.query(
	"SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND state = 'active'", [name])).rows[0].count;
fact('does not cancel', 1, await active('hasty'));
hasty.end();
await sleep(500);
fact('nor does end()', 1, await active('hasty'));
const waits = new pg.Client({ query_timeout: 100, application_name: 'waits' });
waits.on('error', () => {});
await waits.connect();
fact('nor in a wait', 'Query read timeout', await waits.query(
	"SELECT elected FROM le_campaign(9, 'y', wait_ms => 20000)").catch((e) => e.message));
fact('where it goes on', 1, await active('waits'));
waits.end();
let left = 100;
while (await active('waits') > 0 && --left > 0)
	await sleep(50);
fact('but there end() does', true, left > 0);
fact('parseInt8 makes numbers', 'number', typeof (await other.query("SELECT le_token(9, 'x')")).rows[0].le_token);
await other.end();
process.exit(0);
