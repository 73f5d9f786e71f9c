/**
 * The row by which instances of nest-leader-election lead, as that one writes
 * it: for 15 s each time, whatever it is configured to, and whoever finds one that
 * has been over for 5 s deletes it.
 */
import { now } from "./clock";
import { SetupError } from "./errors";
import { quoted } from "./names";
import type { Session } from "./session";
import { LEGACY_LEASE } from "./settings";

const GRACE = 5_000;
/** SQLSTATE object_not_in_prerequisite_state: what says that a view cannot be written */
const NOT_IN_STATE = "55000";

export class LegacyLock {
	private readonly table: string;

	constructor(
		schema: string,
		private readonly lockId: string,
		private readonly instance: string,
	) {
		this.table = `${quoted(schema)}."leader_lease"`;
	}

	/** Is the table there, and the right to write it?  Fails else. */
	async check(session: Session): Promise<void> {
		try {
			await session.ask(`DELETE FROM ${this.table} WHERE false`, []);
			await session.ask(
				`INSERT INTO ${this.table} AS l (id, leader_id, expires_at) SELECT 0, '', pg_catalog.now() WHERE false
				 ON CONFLICT (id) DO UPDATE SET expires_at = EXCLUDED.expires_at WHERE l.leader_id = EXCLUDED.leader_id`,
				[],
			);
		} catch (error) {
			if ((error as { code?: string }).code !== NOT_IN_STATE) throw error;
			throw new SetupError(`${this.table} is a view, and not the table of nest-leader-election: leave legacySchema out`);
		}
	}

	/** Takes or renews it; until when it is ours, undefined: another instance has it. */
	async hold(session: Session): Promise<number | undefined> {
		await session.ask(
			`DELETE FROM ${this.table} WHERE id = $1 AND expires_at < pg_catalog.now() - INTERVAL '${GRACE} ms'`,
			[this.lockId],
		);
		const sent = now();
		const row = await session.ask(
			`INSERT INTO ${this.table} AS l (id, leader_id, expires_at)
			 VALUES ($1, $2, pg_catalog.now() + INTERVAL '${LEGACY_LEASE} ms')
			 ON CONFLICT (id) DO UPDATE SET expires_at = EXCLUDED.expires_at WHERE l.leader_id = EXCLUDED.leader_id
			 RETURNING 1`,
			[this.lockId, this.instance],
		);

		return row === undefined ? undefined : sent + LEGACY_LEASE;
	}

	async release(session: Session): Promise<void> {
		await session.ask(`DELETE FROM ${this.table} WHERE id = $1 AND leader_id = $2`, [this.lockId, this.instance]);
	}
}
