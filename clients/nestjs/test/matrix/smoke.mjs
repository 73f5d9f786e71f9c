/**
 * The package with other versions of Nest and TypeORM: election, hand-over,
 * routes, @Cron, events, guard, entity, health, shutdown.  Run by test/matrix/run,
 * which has it resolve packages from the directory of those versions.
 */
import "reflect-metadata";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Controller, Get, Inject, Injectable, Module } from "@nestjs/common";
import { NestFactory } from "@nestjs/core";
import { Interval, ScheduleModule } from "@nestjs/schedule";
import { HealthCheckService, TerminusModule } from "@nestjs/terminus";
import { TypeOrmModule } from "@nestjs/typeorm";
import {
	LeaderElectionHealthIndicator,
	LeaderElectorModule,
	LeaderElectorService,
	LeaderLease,
	LeaderOnly,
	OnElected,
} from "leader-election-nestjs";
import { DataSource } from "typeorm";

const warnings = [];

// DEP0056 is util.isString(), which TypeORM 0.3.0 calls
process.on("warning", (warning) => warning.code === "DEP0056" || warnings.push(String(warning)));

async function check(what, condition, limit = 10_000) {
	for (const end = Date.now() + limit; !(await condition()); await sleep(10))
		if (Date.now() > end) throw new Error(`not: ${what}`);
}

function onMethod(type, name, ...decorators) {
	const descriptor = Object.getOwnPropertyDescriptor(type.prototype, name);

	for (const decorator of decorators.reverse()) decorator(type.prototype, name, descriptor);
	Object.defineProperty(type.prototype, name, descriptor);
}

async function application(lockId) {
	const calls = { tick: 0, begin: 0 };
	class Orders {
		constructor(health, indicator) {
			Object.assign(this, { health, indicator });
		}
		all() {
			return "all";
		}
		check() {
			return this.health.check([() => this.indicator.check()]);
		}
		tick() {
			calls.tick++;
		}
		begin() {
			calls.begin++;
		}
	}
	onMethod(Orders, "all", LeaderOnly(), Get());
	onMethod(Orders, "check", Get("health"));
	onMethod(Orders, "tick", LeaderOnly(), Interval(50));
	onMethod(Orders, "begin", OnElected());
	Controller("orders")(Orders);
	Inject(HealthCheckService)(Orders, undefined, 0);
	Inject(LeaderElectionHealthIndicator)(Orders, undefined, 1);
	class Application {}
	Module({
		imports: [
			TypeOrmModule.forRoot({
				type: "postgres",
				host: process.env.PGHOST,
				port: Number(process.env.PGPORT),
				username: process.env.PGUSER,
				database: process.env.PGDATABASE,
				entities: [LeaderLease],
				poolErrorHandler: () => {},
			}),
			LeaderElectorModule.forRootAsync({
				useFactory: () => ({ lockId, leaseDuration: 2000, renewalInterval: 300, jitterRange: 100, pauseAfterRelease: 60_000 }),
			}),
			ScheduleModule.forRoot(),
			TerminusModule.forRoot({ logger: false }),
		],
		controllers: [Orders],
	})(Application);
	const app = await NestFactory.create(Application, { logger: false, abortOnError: false });

	await app.listen(0, "127.0.0.1");
	const url = await app.getUrl();

	return { app, calls, elector: app.get(LeaderElectorService), status: async (path) => (await fetch(`${url}${path}`)).status };
}

const lockId = BigInt(Date.now()) * 1000n; // no number is as exact
const one = await application(lockId);
const other = await application(lockId);

await check("one leads", () => one.elector.amILeader() && !other.elector.amILeader());
assert.equal(typeof one.elector.token, "bigint");
assert.equal(await other.elector.leaderId(), one.elector.instanceId);
assert.equal(await one.status("/orders"), 200);
assert.equal(await other.status("/orders"), 503);
assert.equal(await one.status("/orders/health"), 200);
assert.equal(await other.status("/orders/health"), 200);
await check("its method is called", () => one.calls.tick > 0);
assert.equal(other.calls.tick, 0);
assert.deepEqual([one.calls.begin, other.calls.begin], [1, 0]);

const source = one.app.get(DataSource);
const lease = await source.getRepository(LeaderLease).findOneByOrFail({ leaderId: one.elector.instanceId });

assert.equal(lease.token, one.elector.token);
assert.equal(await source.transaction((manager) => one.elector.guard(manager)), one.elector.token);
const { term } = one.elector;

await one.elector.release();
await check("handed over", () => other.elector.amILeader(), 1000);
await assert.rejects(
	source.transaction((manager) => one.elector.guard(manager, term)),
	{ code: "LE001" },
);
await check("OnElected", () => other.calls.begin === 1);

// down: what is down is told to this version of terminus as it wants it
other.elector.dataSource.driver.master.options.port = 1;
await source.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'LeaderElector' AND query LIKE '%keep_alive%'");
await check("503 when the server does not answer", async () => (await other.status("/orders/health")) === 503);
await check("it leads no more", () => !other.elector.amILeader());
await one.app.close();
await other.app.close();
assert.deepEqual(warnings, []);

const version = (name) => JSON.parse(readFileSync(join("node_modules", name, "package.json"))).version;

console.log(
	`ok: Nest ${version("@nestjs/core")}, TypeORM ${version("typeorm")}, pg ${version("pg")}, Node ${process.version}`,
);
