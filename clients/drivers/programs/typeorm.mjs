import 'reflect-metadata';
import { DataSource } from 'typeorm';
@@ javascript
@@ pg-election
@@ typeorm

const { PGHOST, PGPORT, PGUSER, PGDATABASE } = process.env;
const dataSource = await new DataSource({
	type: 'postgres', host: PGHOST, port: Number(PGPORT), username: PGUSER, database: PGDATABASE,
}).initialize();
const runGuarded = (token, work) => guarded(dataSource, token, work);
const execute = (manager, sql) => manager.query(sql);

@@ file main.mjs
