/**
 * A process that contends, by this package (kind "nest" or "core") or by the old
 * library ("old"), tells its parent what happens, does what it says, and notes in
 * a file when it finds itself leader.
 */
import "reflect-metadata";
import { openSync, writeSync } from "node:fs";
import { Module } from "@nestjs/common";
import { NestFactory } from "@nestjs/core";
import { TypeOrmModule } from "@nestjs/typeorm";
import { DataSource } from "typeorm";
import { onClass } from "./decorate.mjs";

const { kind, config, hooks = true, server, way, samples } = JSON.parse(process.env.TASK);
const file = openSync(samples, "a");
const database = {
	type: "postgres",
	host: server.host,
	port: server.port,
	username: server.user,
	database: server.database,
	entities: [],
	retryAttempts: 20,
	retryDelay: 200,
	autoLoadEntities: true,
	logging: false,
};
const tell = (what, more = {}) => process.connected && process.send({ what, ...more });
const micros = () => process.hrtime.bigint() / 1000n;

process.channel?.unref(); // the process ends when it has nothing else to do
const package_ = await import(kind === "old" ? "nest-leader-election" : "../../dist/index.mjs");
let elector;
let close;

if (kind === "core") {
	const source = await new DataSource(database).initialize();

	Object.assign(source.driver.master.options, way); // for the elector alone
	elector = await package_.LeaderElectorCore.create(source, config);
	close = async () => {
		await elector.shutdown();
		await source.destroy();
	};
} else {
	class Application {}
	onClass(
		Application,
		Module({ imports: [TypeOrmModule.forRoot(database), package_.LeaderElectorModule.forRoot(config)] }),
	);
	const app = await NestFactory.createApplicationContext(Application, { logger: ["error", "warn", "fatal"], abortOnError: false });

	if (hooks) app.enableShutdownHooks();
	elector = app.get(package_.LeaderElectorService);
	close = () => app.close();
}

elector.events?.on("elected", ({ token }) => tell("elected", { token: String(token) }));
elector.events?.on("deposed", (_term, reason) => tell("deposed", { reason, at: Number(micros()) / 1000 }));

let stint = 0;
let led = false;

setInterval(() => {
	const before = micros();
	const leads = elector.amILeader();

	if (leads) {
		if (!led) stint++;
		writeSync(file, `${before} ${micros()} ${stint}\n`);
	}
	// the old one has no events; this one may have been elected before we listened
	if (leads !== led && (kind === "old" || (leads && stint === 1))) tell(leads ? "elected" : "deposed");
	led = leads;
}, 3).unref();

const tasks = {
	release: () => elector.release(),
	leads: () => elector.amILeader(),
	name: () => elector.instanceId,
	close: () => close(),
	stall: (time) => {
		for (const end = performance.now() + time; performance.now() < end; );
		return elector.amILeader();
	},
};

process.on("message", async ({ what, argument }) => tell(`${what} done`, { result: await tasks[what](argument) }));
tell("ready", { at: Number(micros()) / 1000 });
