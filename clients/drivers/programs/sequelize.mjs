import { Sequelize } from 'sequelize';
@@ javascript
@@ pg-election
@@ sequelize

const { PGHOST, PGPORT, PGUSER, PGDATABASE } = process.env;
const sequelize = new Sequelize(PGDATABASE, PGUSER, '', {
	dialect: 'postgres', host: PGHOST, port: Number(PGPORT), logging: false,
});
const runGuarded = (token, work) => guarded(sequelize, token, work);
const execute = (transaction, sql) => sequelize.query(sql, { transaction });

@@ file main.mjs
