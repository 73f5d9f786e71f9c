/** The entity and the migration */
import "reflect-metadata";
import assert from "node:assert/strict";
import { test } from "node:test";
import { createLeaderLeaseEntity, LeaderElectionMigrationBase, LeaderElectorCore, LeaderLease } from "../dist/index.mjs";
import { createRole, dataSource, freshLock, sql, until } from "./support/lib.mjs";

async function database(t) {
	const name = `typeorm_${freshLock()}`;

	await sql(`CREATE DATABASE ${name}`);
	t.after(() => sql(`DROP DATABASE ${name} WITH (FORCE)`));
	return name;
}

test("the migration makes schema, extension and grants; a role of the application elects and reads", async (t) => {
	const name = await database(t);
	const role = `Rolle "${freshLock()}"`;
	const quoted = `"${role.replaceAll('"', '""')}"`;

	await createRole(role);
	t.after(() => sql(`DROP ROLE ${quoted}`)); // after the database
	class Migration1700000000000 extends LeaderElectionMigrationBase {
		schema = "Wahl";
		roles = [role];
		name = "Migration1700000000000";
	}
	const owner = await dataSource(t, { database: name, migrations: [Migration1700000000000] });

	await owner.runMigrations();
	await owner.runMigrations();
	const entity = createLeaderLeaseEntity("Wahl");
	const source = await dataSource(t, { database: name, username: role, entities: [entity] });
	const core = await LeaderElectorCore.create(source, { lockId: 9007199254740993n, schema: "Wahl", leaseDuration: 2000, renewalInterval: 100 });

	t.after(() => core.shutdown());
	assert.ok(core.amILeader());
	const errors = [];

	core.events.on("error", (error) => errors.push(error.message));
	const [lease] = await source.getRepository(entity).find();

	assert.equal(lease.id, 9007199254740993n);
	assert.equal(lease.leaderId, core.instanceId);
	assert.equal(lease.token, core.token);
	assert.equal(lease.state, "live");
	assert.ok(lease.expiresAt > new Date() && lease.createdAt <= new Date());
	const by = { id: 9007199254740993n };

	assert.equal((await source.getRepository(entity).findOneBy(by)).leaderId, core.instanceId);
	await source.transaction((manager) => core.guard(manager));
	const renewals = async () => (await sql('SELECT renewals FROM "Wahl".leader_lease', [], { database: name }))[0].renewals;

	await until(async () => (await renewals()) > 0, "it renews");
	assert.equal(await core.leaderId(), core.instanceId);
	await core.shutdown();
	assert.deepEqual(errors, []);
	assert.equal((await sql('SELECT FROM "Wahl".leader_lease', [], { database: name })).length, 0, "given back");
	await owner.undoLastMigration();
	assert.equal((await sql("SELECT FROM pg_extension WHERE extname = 'leader_election'", [], { database: name })).length, 0);
	await source.destroy();
});

test("the migration, where all is there already: by a role that may make nothing", async (t) => {
	const name = await database(t);
	const role = `app_${freshLock()}`;

	await createRole(role);
	t.after(() => sql(`DROP ROLE ${role}`));
	await sql("CREATE EXTENSION leader_election", [], { database: name });
	await sql(`CREATE SCHEMA migrations AUTHORIZATION ${role}`, [], { database: name });
	class Migration1700000000000 extends LeaderElectionMigrationBase {
		name = "Migration1700000000000";
	}
	const source = await dataSource(t, { database: name, username: role, schema: "migrations", migrations: [Migration1700000000000] });

	assert.equal((await source.runMigrations()).length, 1);
	await source.destroy();
});

test("the class, in public; synchronize leaves the view alone", async (t) => {
	const name = await database(t);

	await sql("CREATE EXTENSION leader_election", [], { database: name });
	const source = await dataSource(t, { database: name, entities: [LeaderLease], synchronize: true });
	const core = await LeaderElectorCore.create(source, {});

	t.after(() => core.shutdown());
	const lease = await source.getRepository(LeaderLease).findOneByOrFail({ id: 1 });

	assert.equal(lease.id, 1);
	assert.equal(lease.leaderId, core.instanceId);
	assert.equal(typeof lease.token, "bigint");
	assert.equal(lease.token, core.token);
	assert.deepEqual((await source.driver.createSchemaBuilder().log()).upQueries, []);
});

test("a token that the driver has rounded is an error", async () => {
	const { token, id } = createLeaderLeaseEntity().options.columns;

	assert.throws(() => token.transformer.from(9007199254740992), /has been rounded/);
	assert.throws(() => id.transformer.from(2 ** 60), /has been rounded/);
	assert.equal(token.transformer.from("9007199254740993"), 9007199254740993n);
	assert.equal(id.transformer.from("9007199254740993"), 9007199254740993n);
	assert.equal(id.transformer.from("17"), 17);
	assert.equal(token.transformer.from(5), 5n);
	assert.equal(token.transformer.from(null), null);
	assert.equal(id.transformer.to(5n), "5");
});
