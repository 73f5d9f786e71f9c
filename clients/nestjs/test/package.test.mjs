/** What is published: one module for import and require, with types for both */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

const top = new URL("..", import.meta.url).pathname;

const PUBLIC = [
	"LeaderElectionHealthIndicator",
	"LeaderElectionMigrationBase",
	"LeaderElectorCore",
	"LeaderElectorModule",
	"LeaderElectorService",
	"LeaderLease",
	"LeaderOnly",
	"NotLeaderError",
	"OnDeposed",
	"OnElected",
	"createLeaderLeaseEntity",
];

const TYPES = `
import { DataSource } from "typeorm";
import { LeaderElectorCore, LeaderElectorModule, LeaderElectorService, LeaderLease, LeaderOnly, OnElected, createLeaderLeaseEntity,
	type ElectionEvents, type LeaderElectorConfig, type LeaderTerm } from "leader-election-nestjs";

const config: LeaderElectorConfig = { lockId: 1n, leaseDuration: 2000 };
LeaderElectorModule.forRootAsync({ inject: ["A"], useFactory: async (a: string) => ({ ...config, instanceId: a }) });
class Tasks {
	constructor(private readonly elector: LeaderElectorService) {}
	@LeaderOnly() @OnElected({ lockId: 1 }) run(term: LeaderTerm): bigint { return term.token; }
	async work(source: DataSource): Promise<number | undefined> {
		this.elector.events.on("deposed", (term, reason: ElectionEvents["deposed"][1]) => reason + term.instance);
		return this.elector.whileLeader(async (signal, term) => {
			await source.transaction((manager) => this.elector.guard(manager, term));
			return signal.aborted ? 0 : 1;
		});
	}
}
@LeaderOnly({ follower: "refuse" })
class Orders {
	@OnElected() begin(): void {}
}
export const core: Promise<LeaderElectorCore> = LeaderElectorCore.create(new DataSource({ type: "postgres" }), {});
export const made = (source: DataSource) => new LeaderElectorCore(source.getRepository(LeaderLease), { leaseDuration: 15000 });
export { Orders, Tasks, createLeaderLeaseEntity };
`;

test("import and require give the same classes", async (t) => {
	const place = mkdtempSync(join(tmpdir(), "package-"));

	t.after(() => rmSync(place, { recursive: true }));
	// as npm would publish and install it
	const [{ files }] = JSON.parse(execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], { cwd: top, stdio: ["ignore", "pipe", "ignore"] }));
	const inside = join(place, "node_modules/leader-election-nestjs");

	mkdirSync(join(place, "node_modules"));
	for (const { path } of files) cpSync(join(top, path), join(inside, path), { recursive: true });
	assert.ok(files.every(({ path }) => /^(dist\/|package.json$|README.md$)/.test(path)), JSON.stringify(files));
	// not the types of pg: whoever uses this has no need of them
	for (const name of readdirSync(join(top, "node_modules")).filter((name) => name !== "@types"))
		symlinkSync(join(top, "node_modules", name), join(place, "node_modules", name));
	mkdirSync(join(place, "node_modules/@types"));
	symlinkSync(join(top, "node_modules/@types/node"), join(place, "node_modules/@types/node"));
	writeFileSync(
		join(place, "both.mjs"),
		`import * as imported from "leader-election-nestjs";
		import { createRequire } from "node:module";
		const required = createRequire(import.meta.url)("leader-election-nestjs");
		const names = Object.keys(imported).sort();
		if (names.some((name) => imported[name] !== required[name])) throw new Error("two modules");
		console.log(JSON.stringify([names, Object.keys(required).sort()]));`,
	);
	const [imported, required] = JSON.parse(execFileSync(process.execPath, ["--preserve-symlinks", "both.mjs"], { cwd: place }));

	assert.deepEqual(imported, PUBLIC);
	assert.deepEqual(required, PUBLIC);

	// types, as an ES module and as a CommonJS one, by a strict compiler
	writeFileSync(join(place, "use.mts"), TYPES);
	writeFileSync(join(place, "use.cts"), TYPES);
	execFileSync(
		process.execPath,
		[join(top, "node_modules/typescript/bin/tsc"), "--noEmit", "--strict", "--module", "node16", "--target", "es2022",
			"--experimentalDecorators", "--preserveSymlinks", "use.mts", "use.cts"],
		{ cwd: place, stdio: ["ignore", "inherit", "inherit"] },
	);
});

test("nothing is run or fetched when it is installed", () => {
	for (const path of ["package-lock.json", "test/matrix/nest10/package-lock.json", "test/matrix/nest12/package-lock.json"]) {
		const { packages } = JSON.parse(readFileSync(join(top, path)));

		for (const [name, { resolved, integrity }] of Object.entries(packages)) {
			if (name === "") continue;
			assert.ok(integrity, `${path}: ${name} has no checksum`);
			assert.ok(!resolved || resolved.startsWith("https://registry.npmjs.org/"), `${path}: ${name} is from ${resolved}`);
		}
	}
	const { scripts } = JSON.parse(readFileSync(join(top, "package.json")));

	assert.deepEqual(Object.keys(scripts).sort(), ["build", "test"]);
});
