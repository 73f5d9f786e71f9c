/**
 * What the tests share.  The server is that of PGHOST, PGPORT, PGUSER, PGPASSWORD
 * and PGDATABASE; its role is a superuser, and the server may be stopped and started.
 */
import { execFileSync, fork } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { createServer, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { DataSource } from "typeorm";

export { sleep };

export const server = {
	host: process.env.PGHOST ?? "127.0.0.1",
	port: Number(process.env.PGPORT ?? 5432),
	user: process.env.PGUSER ?? "postgres",
	database: process.env.PGDATABASE ?? "postgres",
};

/** TypeORM's options for it */
export function options(more = {}) {
	return {
		type: "postgres",
		host: server.host,
		port: server.port,
		username: server.user,
		database: server.database,
		entities: [],
		...more,
	};
}

/** An initialized data source; destroy it after the test: t.after() does. */
export async function dataSource(t, more = {}) {
	const source = await new DataSource(options(more)).initialize();

	t.after(() => source.isInitialized && source.destroy());
	return source;
}

/** One statement, on a connection of its own */
export async function sql(text, values = [], more = {}) {
	const client = new pg.Client({ ...server, ...more });

	client.on("error", () => {});
	await client.connect();
	try {
		return (await client.query(text, values)).rows;
	} finally {
		await client.end();
	}
}

/** A role that connects as we do, and may do what follows ("SUPERUSER"); the test drops it. */
export async function createRole(name, more = "") {
	const password = pg.escapeLiteral(process.env.PGPASSWORD ?? "");

	await sql(`CREATE ROLE ${pg.escapeIdentifier(name)} LOGIN PASSWORD ${password} ${more}`);
}

let locks = (Date.now() % 1_000_000) * 1000;

/** A lock that no other test uses, and that fits in the old library's table */
export const freshLock = () => ++locks;

/** Milliseconds by a clock that all processes of this machine share */
export const clock = () => Number(process.hrtime.bigint() / 1000n) / 1000;

/** Waits until this is true, or something; fails after 30 s. */
export async function until(condition, what = String(condition), limit = 30_000) {
	for (const end = clock() + limit; ; await sleep(5)) {
		const found = await condition();

		if (found) return found;
		if (clock() > end) throw new Error(`after ${limit} ms still not: ${what}`);
	}
}

/** A real process that contends, see worker.mjs */
export class Worker {
	messages = [];
	output = "";

	constructor(t, task) {
		this.directory = mkdtempSync(join(tmpdir(), "worker-"));
		this.samples = join(this.directory, "samples");
		this.process = fork(new URL("worker.mjs", import.meta.url), [], {
			env: { ...process.env, TASK: JSON.stringify({ ...task, server, samples: this.samples, ...(task.server && { server: task.server }) }) },
			silent: true,
		});
		for (const stream of [this.process.stdout, this.process.stderr])
			stream.on("data", (data) => (this.output += data));
		this.process.on("message", (message) => this.messages.push(message));
		this.exited = new Promise((resolve) => {
			this.process.on("exit", (code, signal) => {
				this.exit = { code, signal, at: clock() };
				resolve(this.exit);
			});
		});
		t.after(async () => {
			this.kill("SIGKILL");
			await this.exited;
			rmSync(this.directory, { recursive: true });
		});
	}

	kill(signal) {
		if (this.exit === undefined) this.process.kill(signal);
	}

	/** Waits for a message, after the first so many; fails if the process ends. */
	async message(what, after = 0, limit = 30_000) {
		return until(
			() => {
				const found = this.messages.slice(after).find((message) => message.what === what);

				if (!found && this.exit) throw new Error(`${what} will not come, ${JSON.stringify(this.exit)}: ${this.output}`);
				return found;
			},
			`${what} of ${JSON.stringify(this.messages)}, ${this.output}`,
			limit,
		);
	}

	/** Has it do something, and gives what comes of it. */
	async do(what, argument) {
		const after = this.messages.length;

		this.process.send({ what, argument });
		return (await this.message(`${what} done`, after)).result;
	}

	get leads() {
		return this.messages.findLast(({ what }) => what === "elected" || what === "deposed")?.what === "elected";
	}

	/**
	 * When it found itself leader: [begin, end] of each stint, in milliseconds.  It
	 * is one stint also if the process has been frozen in it, for up to so long.
	 */
	stints(freeze = Infinity) {
		const stints = [];
		let last;

		for (const line of readFileSync(this.samples, "utf8").split("\n").slice(0, -1)) {
			const [before, after, number] = line.split(" ").map(Number);

			if (number !== last || before - stints.at(-1)[1] > 1000 * freeze) stints.push([after, before]);
			stints.at(-1)[1] = before;
			last = number;
		}
		return stints.filter(([begin, end]) => end >= begin).map(([begin, end]) => [begin / 1000, end / 1000]);
	}
}

/** Three of them, one of which leads already */
export async function fleet(t, task, size = 3) {
	const workers = Array.from({ length: size }, () => new Worker(t, task));

	await Promise.all(workers.map((worker) => worker.message("ready")));
	const leader = await until(() => workers.find((worker) => worker.leads), "somebody leads");

	return { workers, leader, others: workers.filter((worker) => worker !== leader) };
}

/** For how long two of these led at once, in milliseconds */
export function overlap(workers, freeze) {
	const all = workers.flatMap((worker, owner) => worker.stints(freeze).map(([begin, end]) => ({ begin, end, owner })));
	let sum = 0;

	all.sort((a, b) => a.begin - b.begin);
	for (const [i, one] of all.entries())
		for (const other of all.slice(i + 1)) {
			if (other.begin >= one.end) break;
			if (other.owner !== one.owner) sum += Math.min(one.end, other.end) - other.begin;
		}
	return sum;
}

/** The time without a leader, from then to the moment at which somebody else begins */
export function gap(workers, from) {
	const begins = workers.flatMap((worker) => worker.stints().map(([begin]) => begin)).filter((begin) => begin > from);

	return Math.min(...begins) - from;
}

/** A way to the server that can be cut: then nothing gets through any more, and nobody is told. */
export async function proxy(t) {
	let isCut = false;
	let isClosed = false;
	let delay = 0;
	const sockets = new Set();
	const listener = createServer((near) => {
		if (isClosed) return near.destroy();
		const far = connect(server.port, server.host.startsWith("/") ? "127.0.0.1" : server.host);

		for (const [socket, other] of [
			[near, far],
			[far, near],
		]) {
			sockets.add(socket);
			if (isCut) socket.pause();
			socket.on("error", () => {});
			socket.on("close", () => {
				sockets.delete(socket);
				if (!isCut) other.destroy();
			});
			socket.on("data", (data) => {
				if (delay > 0 && socket === far) setTimeout(() => isCut || other.write(data), delay);
				else other.write(data);
			});
		}
	});

	await new Promise((resolve) => listener.listen(0, "127.0.0.1", resolve));
	const way = {
		server: { ...server, host: "127.0.0.1", port: listener.address().port },
		cut: () => {
			isCut = true;
			// the end of a connection does not get through, either
			for (const socket of sockets) socket.pause();
		},
		/** Answers come so many milliseconds later. */
		delay: (time) => (delay = time),
		/** New connections get through, those of before are closed. */
		mend: () => {
			isCut = false;
			for (const socket of sockets) socket.destroy();
		},
		/** Connections are closed, and new ones at once. */
		refuse: (does = true) => {
			isClosed = does;
			if (does) for (const socket of sockets) socket.destroy();
		},
	};

	t.after(() => {
		listener.close();
		way.refuse();
	});
	return way;
}

/** Stops the server, lets some time pass, and starts it again as it was. */
export async function restartServer(pause) {
	const [{ data, bin }] = await sql(
		"SELECT current_setting('data_directory') AS data, (SELECT setting FROM pg_config WHERE name = 'BINDIR') AS bin",
	);
	const { uid, gid } = statSync(data);
	// the first is the program, then comes the directory
	const rest = readFileSync(join(data, "postmaster.opts"), "utf8").match(/"[^"]*"/g) ?? [];
	const where = rest.indexOf('"-D"');

	if (where >= 0) rest.splice(where, 2);
	const ctl = (...args) =>
		execFileSync(join(bin, "pg_ctl"), ["-D", data, "-w", "-s", ...args], {
			stdio: ["ignore", "ignore", "inherit"],
			cwd: data,
			...(process.getuid() === 0 && { uid, gid }),
		});

	ctl("-m", "fast", "stop");
	const stopped = clock();

	await sleep(pause);
	const started = clock(); // who is fast is elected before pg_ctl has noticed that it runs

	ctl("-l", join(data, "restarted.log"), "-o", rest.join(" "), "start");
	return { stopped, started };
}
