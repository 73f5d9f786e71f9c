// What docs/drivers.md says of Node pg.
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
fact('query_timeout', 'Query read timeout', await hasty.query('SELECT pg_sleep(2)').catch((e) => e.message));
pg.defaults.parseInt8 = true;
const other = new pg.Client();
await other.connect();
fact('does not cancel', 1, (await other.query(
	"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hasty' AND state = 'active'")).rows[0].count);
fact('parseInt8 makes numbers', 'number', typeof (await other.query("SELECT le_token(9, 'x')")).rows[0].le_token);
await other.end();
process.exit(0);
