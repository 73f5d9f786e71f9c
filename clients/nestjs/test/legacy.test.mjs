/**
 * A rolling update from nest-leader-election and back: real processes of that one
 * and of this, with legacySchema, never lead at once.  Old leases are 15 s,
 * whatever they are configured to, and over for others after 20 s: so all at once.
 */
import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { LeaderElectorCore } from "../dist/index.mjs";
import { clock, createRole, dataSource, freshLock, gap, overlap, sleep, sql, until, Worker } from "./support/lib.mjs";

const SCHEMA = "legacy";
const TABLE = `${SCHEMA}.leader_lease`;
const timing = { leaseDuration: 2000, renewalInterval: 500, jitterRange: 100, pauseAfterRelease: 500 };

const old = (lockId) => ({ kind: "old", config: { ...timing, lockId, schema: SCHEMA, createTableOnInit: false, baseCleanInterval: 1000 } });
const both = (lockId) => ({ kind: "nest", config: { ...timing, lockId, legacySchema: SCHEMA } });
const fresh = (lockId) => ({ kind: "nest", config: { ...timing, lockId } });

function never2(workers) {
	assert.equal(overlap(workers), 0, `two led: ${JSON.stringify(workers.map((worker) => worker.stints()))}`);
}

const row = async (lockId) => (await sql(`SELECT leader_id FROM ${TABLE} WHERE id = $1`, [lockId]))[0]?.leader_id;

before(async () => {
	// as the old one makes it; three of them that do it at once would fail
	await sql(`CREATE SCHEMA IF NOT EXISTS ${SCHEMA}`);
	await sql(`CREATE TABLE IF NOT EXISTS ${TABLE} (id INT PRIMARY KEY, leader_id TEXT NOT NULL, expires_at TIMESTAMPTZ NOT NULL,
		created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(), CHECK (expires_at > created_at))`);
});

/** Replaces them one by one by processes of the next kind, as a rolling update does. */
async function roll(t, workers, task) {
	const next = [];

	for (const worker of workers) {
		const successor = new Worker(t, task);

		next.push(successor);
		await successor.message("ready");
		await sleep(700); // it contends
		worker.kill("SIGTERM");
		await worker.exited;
		await sleep(700);
	}
	return next;
}

describe("with the old library", { concurrency: true, timeout: 120_000 }, () => {
	for (const [name, ...kinds] of [
		["two releases forward", old, both, fresh],
		["and back", fresh, both, old],
	])
		test(`rolling update, ${name}: never two, and in the end one`, async (t) => {
			const lockId = freshLock();
			const all = [];
			let now = [];

			for (const [step, kind] of kinds.entries()) {
				const task = kind(lockId);

				if (step === 0) {
					now = [new Worker(t, task), new Worker(t, task), new Worker(t, task)];
					await Promise.all(now.map((worker) => worker.message("ready")));
				} else {
					now = await roll(t, now, task);
				}
				all.push(...now);
				await until(() => now.some((worker) => worker.leads), `one of step ${step} leads`);
				// each kind has led
				await until(() => now.some((worker) => worker.stints().length > 0), "it has noted it");
			}
			never2(all);
			assert.equal(now.filter((worker) => worker.leads).length, 1);
			for (const worker of now) assert.equal(worker.exit, undefined, worker.output);
		});

	test("an old one that leads is killed: this leads when the row is over, and not before", async (t) => {
		const lockId = freshLock();
		const one = new Worker(t, old(lockId));

		await one.message("elected");
		const two = new Worker(t, both(lockId));

		await two.message("ready");
		assert.match((await sql("SELECT le_leader($1) AS name", [lockId]))[0].name, /:/, "it has our lease");
		assert.equal(two.leads, false);
		const died = clock();

		one.kill("SIGKILL");
		await until(() => gap([two], died) < Infinity, "it leads", 40_000);
		assert.ok(gap([two], died) > 19_000 - 600, `took ${gap([two], died)} ms`);
		never2([one, two]);
	});

	test("this leads and is killed: an old one leads when the row is over, and not before", async (t) => {
		const lockId = freshLock();
		const one = new Worker(t, both(lockId));

		await one.message("elected");
		const two = new Worker(t, old(lockId));

		await two.message("ready");
		assert.equal(await row(lockId), await one.do("name"));
		const died = clock();

		one.kill("SIGKILL");
		await until(() => gap([two], died) < Infinity, "it leads", 40_000);
		assert.ok(gap([two], died) > 19_000 - 600, `took ${gap([two], died)} ms`);
		never2([one, two]);
	});

	test("release() gives both back, and an old one leads at once", async (t) => {
		const lockId = freshLock();
		const one = new Worker(t, { kind: "nest", config: { ...both(lockId).config, pauseAfterRelease: 3_600_000 } });

		await one.message("elected");
		const two = new Worker(t, old(lockId));

		await two.message("ready");
		const told = clock();

		await one.do("release");
		await until(() => gap([two], told) < Infinity, "it leads");
		assert.ok(gap([two], told) < 4000, `took ${gap([two], told)} ms`);
		never2([one, two]);
	});

	test("another has taken the row: it leads no more", async (t) => {
		const lockId = freshLock();
		const core = await LeaderElectorCore.create(await dataSource(t), { ...timing, lockId, legacySchema: SCHEMA });

		t.after(() => core.shutdown());
		await until(() => core.amILeader(), "it leads");
		const reasons = [];

		core.events.on("deposed", (_term, reason) => reasons.push(reason, core.amILeader()));
		await sql(`UPDATE ${TABLE} SET leader_id = 'abcdef' WHERE id = $1`, [lockId]);
		await until(() => !core.amILeader(), "it leads no more", 4000);
		assert.deepEqual(reasons, ["another instance has the row of nest-leader-election", false]);
		assert.equal(await row(lockId), "abcdef");
		await sleep(1500);
		assert.equal(core.amILeader(), false);
		await sql(`DELETE FROM ${TABLE} WHERE id = $1`, [lockId]);
		await until(() => core.amILeader(), "it leads again");
	});

	test("the row cannot be had: it does not start, and says why", async (t) => {
		const source = await dataSource(t);
		const attempt = (legacySchema) => LeaderElectorCore.create(source, { ...timing, lockId: freshLock(), legacySchema });

		await assert.rejects(attempt("public"), { name: "SetupError", message: /"public"."leader_lease" is a view/ });
		await assert.rejects(attempt("information_schema"), { code: "42P01" });
	});

	test("the right to write the row is taken away: another leads, who has it", async (t) => {
		const [role, lockId] = [`poor_${freshLock()}`, freshLock()];

		await createRole(role);
		await sql(`GRANT USAGE ON SCHEMA ${SCHEMA} TO ${role}; GRANT ALL ON ${TABLE} TO ${role};
			GRANT EXECUTE ON FUNCTION le_campaign, le_keep_alive, le_transfer, le_release TO ${role}`);
		t.after(() => sql(`DROP OWNED BY ${role}; DROP ROLE ${role}`));
		const core = async (source) => {
			const made = await LeaderElectorCore.create(source, { ...timing, lockId, legacySchema: SCHEMA });

			t.after(() => made.shutdown());
			return made;
		};
		const poor = await core(await dataSource(t, { username: role }));

		poor.logger.error = () => {};
		await until(() => poor.amILeader(), "it leads");
		const other = await core(await dataSource(t));

		await sql(`REVOKE ALL ON ${TABLE} FROM ${role}`);
		await until(() => other.amILeader(), "the other leads, when the row is over", 40_000);
		assert.equal(poor.amILeader(), false);
	});

	test("the row cannot be renewed: it leads for 15 s, however long its own lease is", async (t) => {
		// a table of its own, to lock
		const schema = `legacy_${freshLock()}`;

		await sql(`CREATE SCHEMA ${schema}`);
		t.after(() => sql(`DROP SCHEMA ${schema} CASCADE`));
		await sql(`CREATE TABLE ${schema}.leader_lease (LIKE ${TABLE} INCLUDING ALL)`);
		const source = await dataSource(t);
		const core = await LeaderElectorCore.create(source, { lockId: freshLock(), leaseDuration: 60_000, renewalInterval: 500, legacySchema: schema });

		t.after(() => core.shutdown());
		await until(() => core.amILeader(), "it leads");
		const locker = source.createQueryRunner();

		await locker.startTransaction();
		await locker.query(`LOCK TABLE ${schema}.leader_lease`);
		const at = clock();
		const { term } = core;

		try {
			await until(() => !core.amILeader(), "it leads no more", 17_000);
			assert.ok(clock() - at > 13_000 && clock() - at <= 15_500, `${clock() - at} ms`);
		} finally {
			await locker.rollbackTransaction();
			await locker.release();
		}
		await until(() => core.amILeader(), "it leads again");
		// its lease was live all the time, but others may have led by the row
		assert.ok(core.token > term.token);
		await assert.rejects(
			source.transaction((manager) => core.guard(manager, term)),
			{ code: "LE001" },
		);
	});
});
