// What docs/drivers.md says of Prisma.
import { PrismaClient } from '@prisma/client';
import { PrismaPg } from '@prisma/adapter-pg';

const fact = (what, wanted, got) =>
	console.log(wanted === got ? `ok ${what}` : `not ok ${what}: wanted ${wanted}, got ${got}`);

const prisma = new PrismaClient({ adapter: new PrismaPg({}) });
const [row] = await prisma.$queryRaw`SELECT elected, token, valid_for_ms FROM le_campaign(9, 'x')`;
fact('a token is a BigInt', 'bigint', typeof row.token);
fact('which is no JSON', 'TypeError', (() => {
	try {
		return JSON.stringify(row);
	} catch (e) {
		return e.name;
	}
})());
const error = await prisma.$transaction((tx) => tx.$queryRaw`SELECT le_try_acquire(8, 'x')`).catch((e) => e);
fact('an error of a query has a code of Prisma', 'P2010', error.code);
await prisma.$queryRaw`SELECT le_try_acquire(1, 'x')`;
const [, rows] = await prisma.$transaction([
	prisma.$queryRaw`SELECT le_guard(1, 'x')`,
	prisma.$executeRaw`INSERT INTO work (token) VALUES (0)`,
]);
fact('a list is a transaction', 1, rows);
await prisma.$queryRaw`SELECT le_release(1, 'x')`;
await prisma.$disconnect();
