/**
 * Breaks the code, each time in one way, and sees the tests notice.  Takes ten
 * minutes, with the server of PGHOST, PGPORT and so on, which it restarts.
 *
 *     node test/mutants.mjs [name...]
 */
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";

const top = new URL("..", import.meta.url).pathname;

/** name, the file of tests and those of it that are to fail, the file of the code, what stands there and what instead */
const mutants = [
	["deadline-from-answer", "election", "SIGSTOP: the frozen|cut off: it knows", "election/election.ts",
		"term.deadline = sent + Number(row[1]);",
		"term.deadline = now() + 60000;"],
	["current-ignores-clock", "election", "event loop|SIGSTOP: the frozen", "election/term.ts",
		"return this.isAnnounced && this.endBy === undefined && now() < this.end;",
		"return this.isAnnounced && this.endBy === undefined;"],
	["no-watch", "election", "cut off: it knows", "election/election.ts",
		"\t\tclearTimeout(term.timer);\n\t\tterm.timer = setTimeout(",
		"\t\tif (1) return;\n\t\tterm.timer = setTimeout("],
	["no-cancel", "core", "waits is shut down at once", "election/session.ts",
		"\t\t\t\tthis.cancel();\n",
		""],
	["no-give-up", "core", "handed the lead", "election/election.ts",
		"\n\t\t\t.catch((error) => this.giveUp(error));",
		";"],
	["no-hurry", "core", "waits is shut down at once", "election/session.ts",
		"\t\t\t\ttimer = expect(this.patience);",
		"\t\t\t\ttimer = expect(wait + this.patience);"],
	["cancel-hangs-up", "pooler", "PgBouncer", "election/session.ts",
		"messenger.write(request);",
		"messenger.end(request);"],
	["no-timeout", "election", "cut off", "election/session.ts",
		"setTimeout(() => reject(new Error(`no answer from the server within ${Math.round(limit)} ms`)), limit);",
		"setTimeout(() => {}, limit);"],
	["legacy-deadline", "legacy", "for 15 s", "election/election.ts",
		"term.legacyDeadline = deadline;",
		"term.legacyDeadline = Infinity;"],
	["legacy-ignored", "legacy", "rolling", "election/election.ts",
		"else if (this.legacy === undefined) this.announce(term);",
		"else { term.legacyDeadline = Infinity; this.announce(term); }"],
	["legacy-row-stays", "legacy", "gives both back", "election/election.ts",
		"\t\tawait this.legacy?.release(this.session);\n",
		""],
	["legacy-lost-row", "legacy", "another has taken", "election/election.ts",
		"} else if (term.isAnnounced) {",
		"} else if (term.isAnnounced && this.hasAnswered === undefined) {"],
	["late-hook", "nest", "hooks of shutdown", "nest/service.ts",
		"async beforeApplicationShutdown()",
		"async onApplicationShutdown()"],
	["no-release", "election", "SIGTERM with", "election/election.ts",
		"if (term.endBy !== undefined && term.works.size === 0) return this.bury(term);",
		"if (term.endBy !== undefined && term.works.size === 0) return this.abandon(term);"],
	["no-transfer", "core", "hands over", "election/election.ts",
		"\t\tconst row = await this.session.ask(`SELECT ${await this.named(\"le_transfer($1, $2, $3)\")}`, values);",
		"\t\tconst row = [\"f\"];"],
	["works-not-awaited", "core", "tells the work", "election/election.ts",
		"term.works.add(done);",
		""],
	["abandon-no-pause", "core", "never ends", "election/election.ts",
		"\t\tthis.notBefore = now() + Math.max(2 * this.settings.lease, this.settings.pause);\n",
		""],
	["no-pause", "core", "after the pause", "election/election.ts",
		"this.notBefore = now() + pause;",
		""],
	["listener-throws", "core", "each listener", "election/election.ts",
		"\t\t\t} catch (error) {\n\t\t\t\treport(error);",
		"\t\t\t} catch (error) {\n\t\t\t\tthrow error;"],
	["listener-rejects", "core", "each listener", "election/election.ts",
		"Promise.resolve(listener.apply(this, args)).catch(report);",
		"listener.apply(this, args);"],
	["beat-not-soon", "core", "repeated soon", "election/election.ts",
		"\t\tconst sent = now();\n\t\tconst row = await this.session.ask(`SELECT leads, valid_for_ms, resign",
		"\t\tconst sent = now();\n\t\tterm.nextBeat = sent + renewal;\n\t\tconst row = await this.session.ask(`SELECT leads, valid_for_ms, resign"],
	["statement-timeout", "core", "statement_timeout", "election/election.ts",
		"Number(timeout) === 0 ? WAIT_MAX",
		"timeout ? WAIT_MAX"],
	["query-timeout", "core", "statement_timeout", "election/session.ts",
		"\t\t\tquery_timeout: undefined,\n",
		""],
	["binary", "core", "ways to configure", "election/session.ts",
		"\t\t\tbinary: false,\n",
		""],
	["guard-any-term", "core", "old term", "core.ts",
		"\t\t\tString(term.token),\n",
		"\t\t\tString(this.token ?? term.token),\n"],
	["guard-outside", "core", "old term", "core.ts",
		"manager.queryRunner?.isTransactionActive !== true",
		"false"],
	["no-resign", "core", "resign", "election/election.ts",
		"if (row[2] === \"t\") this.endTerm",
		"if (row[2] === \"x\") this.endTerm"],
	["shutdown-init", "core", "before, during", "core.ts",
		"\t\tthis.initialized ??= Promise.resolve();\n",
		""],
	["create-leaves", "core", "not initialized is refused", "core.ts",
		"\t\t\tawait this.shutdown();\n\t\t\tthrow error;",
		"\t\t\tthrow error;"],
	["new-never-starts", "core", "made with new", "core.ts",
		"\t\tsetImmediate(() => {",
		"\t\t(() => {})as never; void (() => {"],
	["complains-always", "core", "logged once", "core.ts",
		"if (since !== undefined && since === this.complaint?.since",
		"if (since !== undefined && since === -1 && since === this.complaint?.since"],
	["complains-never-again", "core", "logged once", "core.ts",
		"since === this.complaint?.since && message === this.complaint.message",
		"message === this.complaint?.message"],
	["finding-is-answering", "core", "answers, and refuses", "election/election.ts",
		"\t\tthis.schema = undefined;\n\t\tif (row",
		"\t\tthis.heard();\n\t\tthis.schema = undefined;\n\t\tif (row"],
	["schema-cached", "core", "extension is missing", "election/election.ts",
		"\t\t\t\tthis.isSchemaSure = false;\n",
		""],
	["metadata-lost", "nest", "both orders", "nest/decorators.ts",
		"\tcopyMetadata(method, wrapper as Method);\n",
		""],
	["routes-skip", "nest", "routes", "nest/decorators.ts",
		"? \"refuse\" : \"skip\"",
		"? \"skip\" : \"skip\""],
	["own-only", "nest", "routes", "nest/decorators.ts",
		"level !== Object.prototype; level",
		"level === target.prototype; level"],
	["subscribed-twice", "nest", "in turn", "nest/subscribers.ts",
		"return new Set(",
		"return ([] as any).concat("],
	["not-told-late", "nest", "in turn", "nest/subscribers.ts",
		"if (elected?.term !== undefined) void",
		"if (elected === null) void"],
	["health-up", "nest", "health", "nest/health.ts",
		"const isUp = silence !== undefined && silence < leaseDuration;",
		"const isUp = true;"],
	["rounded", "typeorm", "rounded", "entities.ts",
		"typeof value === \"number\" && !Number.isSafeInteger(value)",
		"value === 0"],
	["grants", "typeorm", "migration", "migration.ts",
		"\t\"le_keep_alive\",\n",
		""],
	["one-name", "settings", "two instances", "election/settings.ts",
		"`${prefix}:${randomBytes(6).toString(\"hex\")}`",
		"prefix"],
	["hopeless-goes-on", "core", "extension is missing", "election/errors.ts",
		"return error instanceof SetupError ||",
		"return error instanceof RangeError ||"],
	["restart-dies", "election", "restarted", "election/session.ts",
		"\t\tclient.on(\"error\", () => {\n\t\t\tif (this.client === client) this.close();\n\t\t});\n",
		""],
];

const wanted = process.argv.slice(2);
let missed = 0;

for (const [name, file, tests, path, from, to] of mutants) {
	if (wanted.length > 0 && !wanted.includes(name)) continue;
	const place = mkdtempSync(join(tmpdir(), "mutant-"));
	const run = (command, args) => spawnSync(command, args, { cwd: place, encoding: "utf8", timeout: 100_000 });

	cpSync(top, place, { recursive: true, filter: (source) => !["node_modules", "dist"].includes(basename(source)) });
	symlinkSync(join(top, "node_modules"), join(place, "node_modules"));
	const code = readFileSync(join(place, "src", path), "utf8");

	if (code.split(from).length !== 2) throw new Error(`${name} does not fit`);
	writeFileSync(join(place, "src", path), code.replace(from, () => to));
	// what is not used any more is no error here
	run("node_modules/.bin/tsc", ["--noUnusedLocals", "false", "--noUnusedParameters", "false"]);
	run("node", ["build-esm.cjs"]);
	const { stdout } = run("node", ["--test", "--test-reporter=tap", `--test-name-pattern=${tests}`, `test/${file}.test.mjs`]);
	const failures = [...stdout.matchAll(/not ok \d+ - (?!.*# SKIP)(.*)/g)].map(([, title]) => title);

	const caught = failures.filter((title) => new RegExp(tests).test(title));

	if (caught.length === 0) missed++;
	// a whole file that fails shows nothing: there the fault is none that compiles
	console.log(`${name}: ${caught.length === 0 ? "MISSED" : "caught:"} ${(caught.length > 0 ? caught : failures).join("; ")}`);
	rmSync(place, { recursive: true });
}
console.log(`${missed} missed`);
process.exitCode = missed > 0 ? 1 : 0;
