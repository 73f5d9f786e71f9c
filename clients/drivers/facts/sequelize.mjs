// What docs/drivers.md says of Sequelize.
import { Sequelize } from 'sequelize';

const fact = (what, wanted, got) =>
	console.log(wanted === got ? `ok ${what}` : `not ok ${what}: wanted ${wanted}, got ${got}`);

const { PGHOST, PGPORT, PGUSER, PGDATABASE } = process.env;
const sequelize = new Sequelize(PGDATABASE, PGUSER, '', {
	dialect: 'postgres', host: PGHOST, port: Number(PGPORT), logging: false,
});
await sequelize.query("SELECT le_try_acquire(1, 'x')");
const outside = await sequelize.transaction(async (transaction) => {
	await sequelize.query("SELECT le_guard(1, 'x')", { transaction });
	return sequelize.query('INSERT INTO work (token) VALUES (1)').catch((e) => e.original.code);
});
fact('a query without the option is in another transaction', 'LE002', outside);
const calls = [];
const refused = await sequelize.transaction(async (transaction) => {
	await sequelize.query("SELECT le_guard(1, 'x')", { transaction });
	transaction.afterCommit(() => calls.push('called'));
	await sequelize.query("SELECT le_release(1, 'x')");
}).catch((e) => e.original?.code ?? e.code);
fact('COMMIT is refused', 'LE001', refused);
fact('and afterCommit is called', 'called', calls.join());
await sequelize.close();
