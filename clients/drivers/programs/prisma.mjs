import { PrismaClient } from '@prisma/client';
import { PrismaPg } from '@prisma/adapter-pg';
@@ javascript
@@ pg-election
@@ prisma

const prisma = new PrismaClient({ adapter: new PrismaPg({}) });
const runGuarded = (token, work) => guarded(prisma, token, work);
const execute = (tx, sql) => tx.$queryRawUnsafe(sql);

@@ file main.mjs
