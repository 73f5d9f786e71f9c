/** What an owner does once: the schema, the extension, and what the application may call. */
import type { MigrationInterface, QueryRunner } from "typeorm";

import { quoted } from "./election/names";

const FUNCTIONS = [
	"le_campaign",
	"le_keep_alive",
	"le_release",
	"le_transfer",
	"le_guard",
	"le_leader",
	"le_leases", // the view leader_lease
];

/** To be extended, with a name that ends in a timestamp, as TypeORM wants it. */
export class LeaderElectionMigrationBase implements MigrationInterface {
	/** where the extension is, or is to be */
	schema = "public";

	/** who is to contend; nobody else may, so leave it empty only if one role does all */
	roles: string[] = [];

	async up(queryRunner: QueryRunner): Promise<void> {
		const schema = quoted(this.schema);

		// CREATE SCHEMA IF NOT EXISTS wants the right to create one even where it exists
		const found = await queryRunner.query(
			"SELECT FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) $1",
			[this.schema],
		);

		if (found.length === 0) await queryRunner.query(`CREATE SCHEMA ${schema}`);
		await queryRunner.query(`CREATE EXTENSION IF NOT EXISTS leader_election SCHEMA ${schema}`);
		for (const role of this.roles.map(quoted)) {
			await queryRunner.query(`GRANT USAGE ON SCHEMA ${schema} TO ${role}`);
			await queryRunner.query(`GRANT SELECT ON ${schema}.leader_lease TO ${role}`);
			for (const name of FUNCTIONS)
				await queryRunner.query(`GRANT EXECUTE ON FUNCTION ${schema}.${name} TO ${role}`);
		}
	}

	/** Removes the extension; the schema may be others', too. */
	async down(queryRunner: QueryRunner): Promise<void> {
		await queryRunner.query("DROP EXTENSION IF EXISTS leader_election");
	}
}
