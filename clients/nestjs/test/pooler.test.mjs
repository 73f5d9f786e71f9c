/** Behind PgBouncer, in each of its modes */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chownSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { LeaderElectorCore } from "../dist/index.mjs";
import { clock, dataSource, freshLock, server, sql, until } from "./support/lib.mjs";

const PROGRAM = "/usr/sbin/pgbouncer";
const skip = existsSync(PROGRAM) ? false : `there is no ${PROGRAM}`;

async function freePort() {
	const listener = createServer();

	await new Promise((resolve) => listener.listen(0, "127.0.0.1", resolve));
	const { port } = listener.address();

	await new Promise((resolve) => listener.close(resolve));
	return port;
}

const answers = (port) =>
	new Promise((resolve) => {
		const socket = connect(port, "127.0.0.1", () => {
			socket.destroy();
			resolve(true);
		});

		socket.on("error", () => resolve(false));
	});

async function pooler(t, mode, size = 20) {
	const directory = mkdtempSync(join(tmpdir(), "pooler-"));
	const port = await freePort();
	const password = process.env.PGPASSWORD ?? "";
	// it does not run as root
	const user = process.getuid() === 0 ? { uid: 65534, gid: 65534 } : {};

	if (user.uid) chownSync(directory, user.uid, user.gid);
	writeFileSync(join(directory, "users"), `"${server.user}" "${password}"\n`);
	writeFileSync(
		join(directory, "ini"),
		`[databases]
${server.database} = host=${server.host} port=${server.port} dbname=${server.database} user=${server.user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = ${password ? "scram-sha-256" : "any"}
auth_file = ${join(directory, "users")}
pool_mode = ${mode}
default_pool_size = ${size}
`,
	);
	const program = spawn(PROGRAM, [join(directory, "ini")], { stdio: "ignore", ...user });

	t.after(async () => {
		program.kill("SIGKILL");
		rmSync(directory, { recursive: true });
	});
	await until(() => answers(port), "the pooler answers");
	return { program, port };
}

for (const mode of ["session", "transaction", "statement"])
	test(`PgBouncer, pool_mode ${mode}: election, hand-over, and the pooler survives a shutdown`, { skip }, async (t) => {
		const { program, port } = await pooler(t, mode);
		const source = await dataSource(t, { host: "127.0.0.1", port });
		const config = { lockId: freshLock(), leaseDuration: 2000 };
		const [leader, goes, stays] = [
			await LeaderElectorCore.create(source, config),
			await LeaderElectorCore.create(source, config),
			await LeaderElectorCore.create(source, config),
		];

		t.after(() => Promise.all([leader, goes, stays].map((core) => core.shutdown())));
		const waiting = async () => (await sql("SELECT FROM leader_waiting WHERE lock_id = $1", [config.lockId])).length;

		assert.ok(leader.amILeader());
		await until(async () => (await waiting()) === 2, "both wait");
		await goes.shutdown();
		await until(async () => (await waiting()) === 1, "one waits");
		const at = clock();

		await leader.shutdown();
		await until(() => stays.amILeader(), "handed over");
		assert.ok(clock() - at < 1000, `${clock() - at} ms`);
		assert.equal(program.exitCode, null);
	});

test("PgBouncer with fewer connections than contenders, who do not wait: all are served, and the next leads soon", { skip }, async (t) => {
	const { port } = await pooler(t, "transaction", 2);
	const source = await dataSource(t, { host: "127.0.0.1", port, poolErrorHandler: () => {} });
	const config = { lockId: freshLock(), leaseDuration: 5000, renewalInterval: 500, jitterRange: 100, wait: false };
	const cores = [];
	const errors = [];

	for (let i = 0; i < 4; i++) {
		const core = await LeaderElectorCore.create(source, config);

		t.after(() => core.shutdown());
		core.events.on("error", (error) => errors.push(error));
		cores.push(core);
	}
	const [leader, ...others] = cores;
	const { token } = leader;
	const end = clock() + 3000; // six times each

	await until(() => clock() > end, "they ask");
	assert.equal(leader.token, token);
	assert.deepEqual(errors, []);
	const at = clock();

	await leader.shutdown();
	await until(() => others.some((core) => core.amILeader()), "the next leads");
	assert.ok(clock() - at < 2000, `after ${clock() - at} ms, which is no matter of the lease`);
});
