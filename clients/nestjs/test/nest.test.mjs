/** The module in a Nest application: injection, decorators, hooks, health */
import "reflect-metadata";
import assert from "node:assert/strict";
import { test } from "node:test";
import { Controller, Get, Inject, Injectable, Module, Param, Scope } from "@nestjs/common";
import { NestFactory } from "@nestjs/core";
import { Cron, Interval, ScheduleModule } from "@nestjs/schedule";
import { Test } from "@nestjs/testing";
import { HealthCheckService, TerminusModule } from "@nestjs/terminus";
import { getDataSourceToken, TypeOrmModule } from "@nestjs/typeorm";
import { DataSource } from "typeorm";
import {
	LeaderElectionHealthIndicator,
	LeaderElectorCore,
	LeaderElectorModule,
	LeaderElectorService,
	LeaderOnly,
	OnDeposed,
	OnElected,
} from "../dist/index.mjs";
import { onClass, onMethod, onParameters } from "./support/decorate.mjs";
import { dataSource, freshLock, options, proxy, sql, until } from "./support/lib.mjs";

const short = (more = {}) => ({ lockId: freshLock(), leaseDuration: 2000, renewalInterval: 300, jitterRange: 0, pauseAfterRelease: 60000, ...more });
const EVERY_SECOND = "* * * * * *";

process.on("unhandledRejection", (error) => {
	throw error; // fails the file
});

/** An application with the module and whatever else */
async function application(t, { config = short(), election, http = false, database = {}, ...more }) {
	class Application {}
	onClass(
		Application,
		Module({
			...more,
			imports: [
				TypeOrmModule.forRootAsync({
					useFactory: () => options({ retryAttempts: 0, ...database }),
					// an application that does not start does not close it
					dataSourceFactory: async (given) => {
						const source = await new DataSource(given).initialize();

						t.after(() => source.isInitialized && source.destroy());
						return source;
					},
				}),
				election ?? LeaderElectorModule.forRoot(config),
				...(more.imports ?? []),
			],
		}),
	);
	const app = http
		? await NestFactory.create(Application, { logger: false, abortOnError: false })
		: await NestFactory.createApplicationContext(Application, { logger: false, abortOnError: false });

	t.after(() => app.close());
	if (http) await app.listen(0, "127.0.0.1");
	return app;
}

async function get(app, path) {
	const answer = await fetch(`${await app.getUrl()}${path}`);

	return { status: answer.status, body: await answer.text() };
}

const leading = (elector, is = true) => until(() => elector.amILeader() === is, is ? "it leads" : "it leads no more");

test("forRoot(): the service is there for everybody, and leads before the application runs", async (t) => {
	class Tasks {
		constructor(elector) {
			this.elector = elector;
		}
		async onApplicationBootstrap() {
			this.led = this.elector.amILeader();
		}
	}
	onClass(Tasks, Injectable());
	onParameters(Tasks, Inject(LeaderElectorService));
	class Feature {}
	onClass(Feature, Module({ providers: [Tasks], exports: [Tasks] }));

	const app = await application(t, { imports: [Feature] });
	const elector = app.get(LeaderElectorService);

	assert.ok(elector instanceof LeaderElectorCore);
	assert.equal(app.get(Tasks, { strict: false }).led, true);
	await app.close();
	assert.equal(elector.amILeader(), false);
	assert.equal((await sql("SELECT le_leader($1) AS name", [elector.lockId]))[0].name, null);
});

test("forRoot() with nonsense: the application does not start", async (t) => {
	await assert.rejects(application(t, { config: { leaseDuration: 1000, renewalInterval: 900, jitterRange: 200 } }), {
		name: "RangeError",
		message: /renewalInterval 900 plus jitterRange 200 is not below leaseDuration 1000/,
	});
});

test("a server that lacks the extension: the application does not start, and nothing runs on", async (t) => {
	await assert.rejects(application(t, { database: { database: "template1" } }), /no extension leader_election/);
});

test("forRoot() twice: the application does not start, because the module is for one lock", async (t) => {
	await assert.rejects(
		application(t, { imports: [LeaderElectorModule.forRoot(short())] }),
		/LeaderElectorModule is configured twice/,
	);
});

test("forRoot() with a data source that has a name", async (t) => {
	class Application {}
	onClass(
		Application,
		Module({
			imports: [
				TypeOrmModule.forRoot(options({ name: "audit", retryAttempts: 0 })),
				LeaderElectorModule.forRoot(short(), "audit"),
			],
		}),
	);
	const app = await NestFactory.createApplicationContext(Application, { logger: false, abortOnError: false });

	t.after(() => app.close());
	const elector = app.get(LeaderElectorService);

	assert.ok(elector.amILeader());
	await app.get(getDataSourceToken("audit")).transaction((manager) => elector.guard(manager));
});

test("in tests of an application: another service in its place", async () => {
	const called = [];
	class Tasks {
		work() {
			return "worked";
		}
		begin() {
			called.push("begin");
		}
	}
	onMethod(Tasks, "work", LeaderOnly());
	onMethod(Tasks, "begin", OnElected({ lockId: 1 }));
	onClass(Tasks, Injectable());
	class PerUser extends Tasks {}
	onClass(PerUser, Injectable({ scope: Scope.TRANSIENT }));
	for (const leads of [true, false, true]) {
		const module = await Test.createTestingModule({
			imports: [TypeOrmModule.forRoot(options({ retryAttempts: 0 })), LeaderElectorModule.forRoot()],
			providers: [Tasks, PerUser],
		})
			.overrideProvider(LeaderElectorService)
			.useValue({ amILeader: () => leads })
			.compile();

		await module.init();
		assert.equal(module.get(Tasks).work(), leads ? "worked" : undefined);
		assert.equal((await module.resolve(PerUser)).work(), leads ? "worked" : undefined);
		await module.close();
	}
	assert.deepEqual(called, []);
});

test("forRootAsync(): a configuration that others know", async (t) => {
	const lockId = freshLock();
	class Settings {}
	onClass(Settings, Module({ providers: [{ provide: "LOCK", useValue: lockId }], exports: ["LOCK"] }));

	const app = await application(t, {
		election: LeaderElectorModule.forRootAsync({
			imports: [Settings],
			inject: ["LOCK", { token: "MISSING", optional: true }],
			useFactory: async (lock, missing) => short({ lockId: lock, instanceId: missing ?? "async" }),
		}),
	});
	const elector = app.get(LeaderElectorService);

	assert.equal(elector.lockId, String(lockId));
	assert.match(elector.instanceId, /^async:/);
	await leading(elector);
});

test("baseCleanInterval is accepted, and said to have no effect, once", async (t) => {
	const source = await new DataSource(options()).initialize();

	t.after(() => source.destroy());
	const said = [];
	const { warn } = (await import("@nestjs/common")).Logger.prototype;
	const { Logger } = await import("@nestjs/common");

	Logger.prototype.warn = (message) => said.push(message);
	t.after(() => (Logger.prototype.warn = warn));
	const core = await LeaderElectorCore.create(source, short({ baseCleanInterval: 20000 }));

	await core.shutdown();
	assert.deepEqual(said, ["baseCleanInterval has no effect: the server removes what is over"]);
});

test("LeaderOnly on methods: a follower's call returns undefined, or throws", async (t) => {
	class Tasks {
		plain(a, b) {
			return [this.constructor.name, a, b];
		}
		async later() {
			return 1;
		}
		hidden() {
			return Promise.resolve(3);
		}
		strict() {
			return 2;
		}
	}
	onMethod(Tasks, "plain", LeaderOnly());
	onMethod(Tasks, "later", LeaderOnly());
	// as with emitDecoratorMetadata; another decorator, or an old target, hides that it is async
	Reflect.defineMetadata("design:returntype", Promise, Tasks.prototype, "hidden");
	onMethod(Tasks, "hidden", LeaderOnly());
	onMethod(Tasks, "strict", LeaderOnly({ follower: "refuse" }));
	onClass(Tasks, Injectable());

	const app = await application(t, { providers: [Tasks] });
	const tasks = app.get(Tasks);

	assert.equal(tasks.plain.name, "plain");
	assert.deepEqual(tasks.plain(1, 2), ["Tasks", 1, 2]);
	assert.equal(await tasks.later(), 1);
	assert.equal(tasks.strict(), 2);
	await app.get(LeaderElectorService).release();
	assert.equal(tasks.plain(1, 2), undefined);
	assert.ok(tasks.later() instanceof Promise);
	assert.equal(await tasks.later(), undefined);
	assert.ok(tasks.hidden() instanceof Promise);
	assert.throws(() => tasks.strict(), { message: "this instance does not lead" });
	// one of nobody's, in a process whose elector does not lead, or has none
	assert.equal(new Tasks().plain(1, 2), undefined);
	await app.close();
	assert.equal(new Tasks().plain(1, 2), undefined);
});

test("LeaderOnly with several electors: that of the application, or of the lock", async (t) => {
	class Tasks {
		mine() {
			return "mine";
		}
		other() {
			return "other";
		}
		elected = [];
		onOther(term) {
			this.elected.push(term.token);
		}
	}
	const otherLock = freshLock();

	onMethod(Tasks, "mine", LeaderOnly());
	onMethod(Tasks, "other", LeaderOnly({ lockId: otherLock }));
	onMethod(Tasks, "onOther", OnElected({ lockId: otherLock }));
	onClass(Tasks, Injectable());
	const app = await application(t, {
		providers: [
			Tasks,
			{
				provide: "OTHER",
				useFactory: (source) => LeaderElectorService.create(source, short({ lockId: otherLock })),
				inject: [DataSource],
			},
		],
	});
	const [tasks, other] = [app.get(Tasks), app.get("OTHER")];

	assert.equal(tasks.mine(), "mine");
	assert.equal(tasks.other(), "other");
	assert.deepEqual(tasks.elected, [other.token]);
	await app.get(LeaderElectorService).release();
	assert.equal(tasks.mine(), undefined);
	assert.equal(tasks.other(), "other");
	assert.throws(() => new Tasks().mine(), /several electors might be meant/);
	await app.close(); // Nest closes the other as well
	assert.equal(other.amILeader(), false);
	assert.equal((await sql("SELECT le_leader($1) AS name", [otherLock]))[0].name, null);
});

test("LeaderOnly where Nest makes an object per request, or per user, of several electors", async (t) => {
	const called = [];
	class PerUser {
		constructed = true;
		work() {
			return "worked";
		}
		begin() {
			called.push(this.constructed);
		}
	}
	onMethod(PerUser, "work", LeaderOnly());
	onMethod(PerUser, "begin", OnElected());
	onClass(PerUser, Injectable({ scope: Scope.TRANSIENT }));
	class Orders {
		constructor(tasks) {
			this.tasks = tasks;
		}
		all() {
			return "all";
		}
		work() {
			return this.tasks.work() ?? "nothing";
		}
	}
	onMethod(Orders, "all", LeaderOnly(), Get());
	onMethod(Orders, "work", Get("work"));
	onClass(Orders, Controller({ path: "orders", scope: Scope.REQUEST }));
	onParameters(Orders, Inject(PerUser));
	const other = await LeaderElectorCore.create(await dataSource(t), short());

	t.after(() => other.shutdown());
	const app = await application(t, { controllers: [Orders], providers: [PerUser], http: true });

	assert.deepEqual(await get(app, "/orders"), { status: 200, body: "all" });
	assert.deepEqual(await get(app, "/orders/work"), { status: 200, body: "worked" });
	await app.get(LeaderElectorService).release();
	assert.equal((await get(app, "/orders")).status, 503);
	assert.deepEqual(await get(app, "/orders/work"), { status: 200, body: "nothing" });
	assert.deepEqual(called, [], "there is none that could be called");

	// two applications of one class: nobody knows whose it is
	const second = await application(t, { controllers: [Orders], providers: [PerUser], http: true });

	assert.equal((await get(second, "/orders")).status, 500);
	await app.close();
	assert.deepEqual(await get(second, "/orders"), { status: 200, body: "all" });
});

test("OnElected for a lock that nobody contends for: the application does not start", async (t) => {
	class Tasks {
		constructor(elector) {
			t.after(() => elector.shutdown());
		}
		begin() {}
	}
	onMethod(Tasks, "begin", OnElected({ lockId: freshLock() }));
	onClass(Tasks, Injectable());
	onParameters(Tasks, Inject(LeaderElectorService));
	await assert.rejects(
		application(t, { providers: [Tasks] }),
		/begin\(\) waits for the leader of lock \d+, for which nobody here contends/,
	);
});

test("LeaderOnly on routes: 503 where it does not lead, or as configured", async (t) => {
	class Orders {
		one(id) {
			return `order ${id}`;
		}
		quiet() {
			return "quiet";
		}
		free() {
			return "free";
		}
	}
	onMethod(Orders, "one", LeaderOnly(), Get("one/:id"));
	onMethod(Orders, "quiet", Get("quiet"), LeaderOnly({ follower: "skip" }));
	onMethod(Orders, "free", Get("free"));
	Param("id")(Orders.prototype, "one", 0);
	onClass(Orders, Controller("orders"));
	class Inherited {
		base() {
			return "base";
		}
	}
	onMethod(Inherited, "base", Get("base"));
	class Reports extends Inherited {
		all() {
			return "all";
		}
		helper() {
			return "helper";
		}
	}
	onMethod(Reports, "all", Get());
	onClass(Reports, LeaderOnly(), Controller("reports"));

	const app = await application(t, { controllers: [Orders, Reports], http: true });
	const paths = ["/orders/one/7", "/orders/quiet", "/orders/free", "/reports", "/reports/base"];
	const all = () => Promise.all(paths.map((path) => get(app, path)));

	assert.deepEqual((await all()).map(({ status, body }) => [status, body]), [
		[200, "order 7"],
		[200, "quiet"],
		[200, "free"],
		[200, "all"],
		[200, "base"],
	]);
	await app.get(LeaderElectorService).release();
	const answers = await all();

	assert.deepEqual(answers.map(({ status }) => status), [503, 200, 200, 503, 503]);
	assert.match(answers[0].body, /this instance does not lead/);
	assert.equal(answers[1].body, "");
	assert.equal(app.get(Reports).helper(), "helper");
	// not the base class, of which there may be others
	assert.equal(new Inherited().base(), "base");
});

test("LeaderOnly on a class without anything to restrict is refused", () => {
	class Tasks {
		plain() {}
	}
	assert.throws(() => onClass(Tasks, LeaderOnly()), /on class Tasks: none of its methods/);
	onMethod(Tasks, "plain", LeaderOnly({ follower: "refuse" }), Get());
	onClass(Tasks, LeaderOnly()); // nothing is left for it to do
});

test("LeaderOnly and @Cron, in both orders, and on the class", async (t) => {
	const calls = { above: 0, below: 0, class: 0, free: 0 };
	class Tasks {
		above() {
			calls.above++;
		}
		below() {
			calls.below++;
		}
		free() {
			calls.free++;
		}
	}
	onMethod(Tasks, "above", LeaderOnly(), Cron(EVERY_SECOND));
	onMethod(Tasks, "below", Cron(EVERY_SECOND), LeaderOnly());
	onMethod(Tasks, "free", Cron(EVERY_SECOND));
	onClass(Tasks, Injectable());
	class Restricted {
		tick() {
			calls.class++;
		}
	}
	onMethod(Restricted, "tick", Interval(100));
	onClass(Restricted, LeaderOnly(), Injectable());

	const app = await application(t, { imports: [ScheduleModule.forRoot()], providers: [Tasks, Restricted] });

	await app.init();
	await until(() => Object.values(calls).every((count) => count > 0), "each was called");
	await app.get(LeaderElectorService).release();
	const before = { ...calls };

	await until(() => calls.free >= before.free + 2, "the other goes on");
	assert.deepEqual({ ...calls, free: 0 }, { ...before, free: 0 });
});

test("OnElected and OnDeposed: called in turn, once each, and their errors harm nobody", async (t) => {
	const calls = [];
	class Tasks {
		async begin(term) {
			calls.push(["begin", typeof term.token, term.signal.aborted]);
			throw new Error("begin");
		}
		end(term, reason) {
			calls.push(["end", term.signal.aborted, reason]);
			throw new Error("end");
		}
	}
	onMethod(Tasks, "begin", OnElected());
	onMethod(Tasks, "end", OnDeposed());
	onClass(Tasks, Injectable());
	const app = await application(t, {
		config: short({ pauseAfterRelease: 100 }),
		// under a second token, too
		providers: [Tasks, { provide: "ALIAS", useExisting: Tasks }],
	});

	await app.init();
	assert.deepEqual(calls, [["begin", "bigint", false]], "it led already");
	await app.get(LeaderElectorService).release();
	await until(() => calls.length === 3, "leads again");
	await app.close();
	assert.deepEqual(calls.slice(1), [
		["end", true, "released"],
		["begin", "bigint", false],
		["end", true, "stopped"],
	]);
});

test("the hooks of shutdown: the term is over before TypeORM's pool is", async (t) => {
	const seen = {};
	class Last {
		constructor(source, elector) {
			Object.assign(this, { source, elector });
		}
		onModuleDestroy() {
			seen.destroy = this.elector.amILeader();
		}
		async onApplicationShutdown() {
			seen.shutdown = this.elector.amILeader();
		}
		async ended() {
			seen.pool = this.source.isInitialized;
		}
	}
	onMethod(Last, "ended", OnDeposed());
	onClass(Last, Injectable());
	onParameters(Last, Inject(DataSource), Inject(LeaderElectorService));
	const app = await application(t, { providers: [Last] });

	await app.init();
	await app.close();
	assert.deepEqual(seen, { destroy: true, shutdown: false, pool: true });
});

test("health: up, leader or follower; down when the server has not answered for a lease", async (t) => {
	const way = await proxy(t);
	class Health {
		constructor(health, elector) {
			Object.assign(this, { health, elector });
		}
		check() {
			return this.health.check([() => this.elector.check()]);
		}
	}
	onMethod(Health, "check", Get());
	onClass(Health, Controller("health"));
	onParameters(Health, Inject(HealthCheckService), Inject(LeaderElectionHealthIndicator));
	const app = await application(t, {
		http: true,
		imports: [TerminusModule.forRoot({ logger: false })],
		controllers: [Health],
		database: { host: way.server.host, port: way.server.port, poolErrorHandler: () => {} },
	});
	const elector = app.get(LeaderElectorService);
	const health = async () => {
		const { status, body } = await get(app, "/health");

		return { status, ...JSON.parse(body).details.leaderElection };
	};

	assert.deepEqual(await health(), {
		status: "up",
		leads: true,
		lockId: elector.lockId,
		instance: elector.instanceId,
		token: String(elector.token),
		silence: 0,
	});
	assert.equal((await get(app, "/health")).status, 200);
	await elector.release();
	assert.equal((await get(app, "/health")).status, 200);
	await app.close();

	const second = await application(t, {
		http: true,
		imports: [TerminusModule.forRoot({ logger: false })],
		controllers: [Health],
		database: { host: way.server.host, port: way.server.port, poolErrorHandler: () => {} },
	});

	way.cut();
	await until(async () => (await get(second, "/health")).status === 503, "down");
	const down = JSON.parse((await get(second, "/health")).body).error.leaderElection;

	assert.equal(down.status, "down");
	assert.equal(down.leads, false);
	assert.ok(down.silence >= 2000);
	way.mend();
	await until(async () => (await get(second, "/health")).status === 200, "up again");
});
