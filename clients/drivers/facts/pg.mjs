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
