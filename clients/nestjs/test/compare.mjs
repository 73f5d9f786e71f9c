/**
 * nest-leader-election 1.1.2 and this package side by side: three processes each,
 * in every trouble.  Takes 8 minutes, and restarts the server of PGHOST, PGPORT
 * and so on.  Prints the table that README.md has.
 *
 *     npm run build && node test/compare.mjs
 */
import { clock, freshLock, overlap, proxy, restartServer, sleep, sql, Worker } from "./support/lib.mjs";

const SCHEMA = "nest_leader_election";
const FREEZE = 500; // who stands still for longer does not do a leader's work meanwhile

const candidates = {
	"nest-leader-election, 10/3/2 s": { kind: "old", config: { leaseDuration: 10000, renewalInterval: 3000, jitterRange: 2000, schema: SCHEMA, createTableOnInit: false } },
	"this, 10/3/2 s": { kind: "nest", config: { leaseDuration: 10000, renewalInterval: 3000, jitterRange: 2000 } },
	"this, 2/0.6/0.2 s": { kind: "nest", config: { leaseDuration: 2000, renewalInterval: 600, jitterRange: 200 } },
};

/** What happens to the leader, and how long it is watched */
const troubles = {
	"kill -9": { time: 45_000, of: ({ leader }) => leader.kill("SIGKILL"), ends: 1 },
	"SIGSTOP for 20 s": { time: 60_000, of: ({ leader }) => freeze(leader, 20_000) },
	"SIGSTOP for 60 s": { time: 100_000, of: ({ leader }) => freeze(leader, 60_000) },
	"SIGTERM with shutdown hooks": { time: 45_000, of: ({ leader }) => leader.kill("SIGTERM"), ends: 1 },
	"cut off for 60 s": {
		time: 100_000,
		of: async ({ way }) => {
			way.cut();
			await sleep(60_000);
			way.mend();
		},
	},
	"server restarted, away for 4 s": { time: 60_000 },
};

async function freeze(worker, time) {
	worker.kill("SIGSTOP");
	await sleep(time);
	worker.kill("SIGCONT");
}

/** Like node:test's, as far as Worker wants it */
class Test {
	ends = [];
	after(end) {
		this.ends.push(end);
	}
	async end() {
		for (const end of this.ends.reverse()) await end();
	}
}

/** How long nobody led from then on, in milliseconds */
function leaderless(workers, from, to) {
	const stints = workers.flatMap((worker) => worker.stints(FREEZE)).sort((a, b) => a[0] - b[0]);
	let end = from;
	let sum = 0;

	for (const stint of stints) {
		if (stint[0] > to) break;
		sum += Math.max(0, stint[0] - end);
		end = Math.max(end, stint[1]);
	}
	return sum + Math.max(0, to - 100 - end); // the last sample is not as old as that
}

async function start(t, { kind, config }) {
	const task = { kind, config: { ...config, lockId: freshLock() } };
	const way = await proxy(t);
	const leader = new Worker(t, { ...task, server: way.server });

	await leader.message("elected", 0, 60_000);
	const others = [new Worker(t, task), new Worker(t, task)];

	await Promise.all(others.map((worker) => worker.message("ready")));
	return { way, leader, workers: [leader, ...others] };
}

const seconds = (time) => (time < 50 ? "0" : (time / 1000).toFixed(1));

await sql(`CREATE SCHEMA IF NOT EXISTS ${SCHEMA}`);
await sql(`CREATE TABLE IF NOT EXISTS ${SCHEMA}.leader_lease (id INT PRIMARY KEY, leader_id TEXT NOT NULL,
	expires_at TIMESTAMPTZ NOT NULL, created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(), CHECK (expires_at > created_at))`);
console.log("| trouble | version | nobody leads, s | two lead, s | processes that died |");
console.log("| --- | --- | --- | --- | --- |");
for (const [name, { time, of, ends = 0 }] of Object.entries(troubles)) {
	const t = new Test();
	const fleets = await Promise.all(Object.values(candidates).map((candidate) => start(t, candidate)));

	await sleep(5000);
	const from = clock();
	const done = of === undefined ? restartServer(4000) : Promise.all(fleets.map(of));

	await sleep(time);
	await done;
	const to = clock();

	for (const [i, version] of Object.keys(candidates).entries()) {
		const { workers } = fleets[i];
		const died = workers.filter((worker) => worker.exit).length - ends;

		console.log(`| ${name} | ${version} | ${seconds(leaderless(workers, from, to))} | ${seconds(overlap(workers, FREEZE))} | ${died} |`);
	}
	await t.end();
}
