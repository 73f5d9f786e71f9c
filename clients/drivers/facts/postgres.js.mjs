// What docs/drivers.md says of postgres.js.
import postgres from 'postgres';

const fact = (what, wanted, got) =>
	console.log(wanted === got ? `ok ${what}` : `not ok ${what}: wanted ${wanted}, got ${got}`);

const sql = postgres({ max: 1 });
const [row] = await sql`SELECT elected, token, valid_for_ms FROM le_campaign(9, 'x')`;
fact('a token is a string', 'string', typeof row.token);
const big = postgres({ types: { bigint: postgres.BigInt } });
fact('or a BigInt', 'bigint', typeof (await big`SELECT le_token(9, 'x')`)[0].le_token);
await sql`SELECT le_try_acquire(1, 'x')`;
const one = (token, n) => sql`INSERT INTO work (token) SELECT ${n} FROM le_guard(1, 'x', ${token})`;
const { le_token: token } = (await sql`SELECT le_token(1, 'x')`)[0];
fact('guard and work in one statement', 1, (await one(token, 7)).count);
fact('which fails as a whole', 'LE001', await one(token - 1, 8).then(() => null, (e) => e.code));
fact('and leaves nothing', 0, (await sql`SELECT 1 FROM work WHERE token = 8`).length);
await sql`SELECT le_release(1, 'x')`;
process.exit(0);
