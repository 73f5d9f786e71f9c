// What docs/drivers.md says of postgres.js.
import postgres from 'postgres';

const fact = (what, wanted, got) =>
	console.log(wanted === got ? `ok ${what}` : `not ok ${what}: wanted ${wanted}, got ${got}`);

const sql = postgres({ max: 1 });
const [row] = await sql`SELECT elected, token, valid_for_ms, pg_backend_pid() AS pid FROM le_campaign(9, 'x')`;
fact('a token is a string', 'string', typeof row.token);
const big = postgres({ types: { bigint: postgres.BigInt } });
fact('or a BigInt', 'bigint', typeof (await big`SELECT le_token(9, 'x')`)[0].le_token);
process.exit(0);
