/** Real processes: there is a leader soon, and never two. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { clock, fleet, freshLock, gap, overlap, proxy, restartServer, sleep, sql, until, Worker } from "./support/lib.mjs";

const short = () => ({ lockId: freshLock(), leaseDuration: 2000, renewalInterval: 600, jitterRange: 200, pauseAfterRelease: 500 });

/** A lease, which the server keeps a tenth longer, and what a busy machine may add */
const FAILOVER = 2200 + 800;
const AT_ONCE = 1000;

function never2(workers) {
	assert.equal(overlap(workers), 0, `two led: ${JSON.stringify(workers.map((worker) => worker.stints()))}`);
}

/** One of these begins to lead, soon. */
async function succeeded(workers, from, limit) {
	await until(() => gap(workers, from) < Infinity, "a successor");
	assert.ok(gap(workers, from) < limit, `took ${gap(workers, from)} ms`);
}

test("one of three leads, and the server knows which", async (t) => {
	const config = short();
	const { workers, leader } = await fleet(t, { kind: "nest", config });
	const [{ leader: name }] = await sql("SELECT le_leader($1) AS leader", [config.lockId]);

	assert.equal(name, await leader.do("name"));
	assert.equal(new Set(await Promise.all(workers.map((worker) => worker.do("name")))).size, 3);
	await sleep(2500); // more than a lease
	assert.equal(workers.filter((worker) => worker.leads).length, 1);
	assert.ok(leader.leads);
	assert.equal(leader.stints().length, 1);
	never2(workers);
});

test("kill -9: another leads when the lease is over", async (t) => {
	const { workers, leader, others } = await fleet(t, { kind: "nest", config: short() });
	const died = clock();

	leader.kill("SIGKILL");
	await succeeded(others, died, FAILOVER);
	never2(workers);
});

test("SIGSTOP: the frozen one does not lead when it wakes", async (t) => {
	const { workers, leader, others } = await fleet(t, { kind: "nest", config: short() });
	const froze = clock();

	leader.kill("SIGSTOP");
	await succeeded(others, froze, FAILOVER);
	leader.kill("SIGCONT");
	assert.equal(await leader.do("leads"), false);
	await leader.message("deposed");
	assert.equal(workers.filter((worker) => worker.leads).length, 1);
	never2(workers);
});

test("SIGSTOP of all of them: nobody dies, one leads again", async (t) => {
	const { workers } = await fleet(t, { kind: "nest", config: short() });

	for (const worker of workers) worker.kill("SIGSTOP");
	await sleep(6000); // whom the server has elected meanwhile is over, too
	const woke = clock();

	for (const worker of workers) worker.kill("SIGCONT");
	await succeeded(workers, woke, 2 * FAILOVER);
	assert.ok(workers.every((worker) => worker.exit === undefined));
	never2(workers);
});

test("an event loop that stands still for longer than the lease", async (t) => {
	const { workers, leader, others } = await fleet(t, { kind: "nest", config: short() });

	assert.equal(await leader.do("stall", 3000), false, "amILeader() before the loop has run again");
	await until(() => others.find((worker) => worker.leads), "a successor");
	never2(workers);
});

test("SIGTERM with shutdown hooks: another leads at once", async (t) => {
	const { workers, leader, others } = await fleet(t, { kind: "nest", config: short() });
	const told = clock();

	leader.kill("SIGTERM");
	await succeeded(others, told, AT_ONCE);
	await leader.exited;
	assert.equal(leader.exit.signal, "SIGTERM"); // Nest ends so
	assert.ok(leader.exit.at - told < 3000);
	never2(workers);
});

test("SIGTERM of all but one, who waited and led: it leads at once", async (t) => {
	const config = short();
	const { workers, leader, others } = await fleet(t, { kind: "nest", config });
	const [stays, goes] = others;
	const told = clock();

	// a waiting one that goes must not be handed the lead
	goes.kill("SIGTERM");
	leader.kill("SIGTERM");
	await succeeded([stays], told, AT_ONCE);
	await Promise.all([goes.exited, leader.exited]);
	never2(workers);
});

test("the server is restarted: nobody dies, and one leads", async (t) => {
	const { workers } = await fleet(t, { kind: "nest", config: short() });
	const { started } = await restartServer(4000);

	await succeeded(workers, started, FAILOVER + 5000); // the start, and the last pause before it connects
	await sleep(1000);
	for (const worker of workers) {
		assert.equal(worker.exit, undefined, worker.output);
		assert.doesNotMatch(worker.output, /unhandled/i);
	}
	assert.equal(workers.filter((worker) => worker.leads).length, 1);
	never2(workers);
});

test("a leader that is cut off: it knows by its deadline", async (t) => {
	// so long that whatever it waits for takes longer than that
	const config = { ...short(), leaseDuration: 6000 };
	const way = await proxy(t);
	const cut = new Worker(t, { kind: "nest", config, server: way.server });

	await cut.message("elected");
	const others = [new Worker(t, { kind: "nest", config }), new Worker(t, { kind: "nest", config })];

	await Promise.all(others.map((worker) => worker.message("ready")));
	way.cut();
	const at = clock();

	await succeeded(others, at, 6600 + 800);
	assert.equal(await cut.do("leads"), false);
	assert.ok(cut.stints().at(-1)[1] - at < 6000, "it led beyond its deadline");
	// and its work was told so, though nothing had come
	const told = (await cut.message("deposed")).at - at;

	assert.ok(told < 6800, `told after ${told} ms`);
	// it is found again
	way.mend();
	const after = cut.messages.length;

	for (const worker of others.sort((a, b) => a.leads - b.leads)) {
		worker.kill("SIGTERM");
		await worker.exited;
	}
	await cut.message("elected", after);
	never2([cut, ...others]);
});

for (const state of ["leads", "has released, and asks nothing"])
	test(`one that is cut off ends when it is told to: it ${state}`, async (t) => {
		const way = await proxy(t);
		const { host, port } = way.server;
		// what TypeORM's pool does then is its own
		const cut = new Worker(t, { kind: "core", config: { ...short(), pauseAfterRelease: 600_000 }, way: { host, port } });

		await cut.message("elected");
		if (state !== "leads") await cut.do("release");
		way.cut();
		const told = clock();

		cut.process.send({ what: "close" });
		await cut.message("close done");
		assert.ok(clock() - told < 2 * 667 + 1500, `took ${clock() - told} ms`);
		await until(() => cut.exit, "nothing holds the process", 10_000);
	});

test("the process ends by itself after shutdown(), leader or not", async (t) => {
	const config = short();
	const leader = new Worker(t, { kind: "core", config });

	await leader.message("elected");
	const other = new Worker(t, { kind: "core", config });

	await other.message("ready");
	await sleep(300); // so that it waits
	for (const worker of [other, leader]) {
		const told = clock();

		await worker.do("close");
		assert.deepEqual(await worker.exited.then(({ code }) => code), 0);
		assert.ok(worker.exit.at - told < 3000, `took ${worker.exit.at - told} ms`);
	}
});
