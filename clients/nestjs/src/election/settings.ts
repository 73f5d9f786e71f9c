/** What can be configured, and what is refused. */
import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { inspect } from "node:util";

/** All are optional. Times are in milliseconds. */
export interface LeaderElectorConfig {
	/** For how long a leader that does nothing more stays leader. 10000; 100 to 86400000 */
	leaseDuration?: number;
	/** A leader renews its lease so often. 3000, with a lease below 10000 less: 3/10 of it */
	renewalInterval?: number;
	/** ... give or take this much, so that not all come at once. 2000; at most 1/5 of the lease and 2/3 of the interval */
	jitterRange?: number;
	/** Which lock; one leader each. 1; any bigint of PostgreSQL's */
	lockId?: number | bigint | string;
	/**
	 * Begin of the instance's name; a random end is always added, because two
	 * processes with one name would both lead. Host and process id; at most 100 bytes
	 */
	instanceId?: string;
	/** Where the extension is. Found by itself */
	schema?: string;
	/** Create the extension, and its schema, if it is missing; the role must be allowed to. false */
	createTableOnInit?: boolean;
	/** Without effect: the server sweeps. Accepted because nest-leader-election had it */
	baseCleanInterval?: number;
	/** Of several that wait the largest goes first. 0; 0 to 9 */
	priority?: number;
	/**
	 * Wait on the server, and lead as soon as the lock is free. false: ask about every
	 * renewalInterval, for poolers whose connections are few. true
	 */
	wait?: boolean;
	/** Shown to operators beside the leader's name. At most 512 bytes */
	info?: string;
	/** After release() do not ask for the lead for so long. leaseDuration */
	pauseAfterRelease?: number;
	/**
	 * The schema of nest-leader-election's table, while instances of that are still
	 * running: lead only with its row, too. See docs/from-nest-leader-election.md
	 */
	legacySchema?: string;
}

export interface Settings {
	readonly lease: number;
	readonly renewal: number;
	readonly jitter: number;
	readonly lockId: string;
	readonly instance: string;
	readonly schema: string | undefined;
	readonly createsExtension: boolean;
	readonly priority: number;
	readonly waits: boolean;
	readonly info: string | null;
	readonly pause: number;
	readonly legacySchema: string | undefined;
}

/** How long a row of nest-leader-election's is good for, whatever that is configured to */
export const LEGACY_LEASE = 15_000;

const DAY = 86_400_000;
const TIMER_MAX = 2 ** 31 - 1;
const INT8_MAX = 2n ** 63n - 1n;
const INT4_MAX = 2n ** 31n - 1n;

function integer(name: string, value: number, least: number, most: number): number {
	if (!Number.isInteger(value) || value < least || value > most)
		throw new RangeError(`${name} is ${inspect(value)}, and must be an integer from ${least} to ${most}`);
	return value;
}

function short(name: string, value: string, most: number): string {
	if (typeof value !== "string" || value === "" || value.includes("\0") || Buffer.byteLength(value) > most)
		throw new RangeError(`${name} is ${inspect(value)}, and must be a string of 1 to ${most} bytes`);
	return value;
}

function flag(name: string, value: boolean): boolean {
	if (typeof value !== "boolean") throw new RangeError(`${name} is ${inspect(value)}, and must be true or false`);
	return value;
}

function lock(value: number | bigint | string): bigint {
	const isExact = typeof value !== "number" || Number.isSafeInteger(value);

	if (isExact && /^-?\d{1,19}$/.test(String(value)) && BigInt(value) <= INT8_MAX && BigInt(value) >= -INT8_MAX - 1n)
		return BigInt(value);
	throw new RangeError(
		`lockId is ${inspect(value)}, and must be an integer that fits in a bigint of PostgreSQL's (as a number up to 2^53; give a larger one as a bigint or a string)`,
	);
}

/** Checks all of it; throws a RangeError that names the value. */
export function settingsOf(config: LeaderElectorConfig): Settings {
	const lease = integer("leaseDuration", config.leaseDuration ?? 10000, 100, DAY);
	const renewal = integer("renewalInterval", config.renewalInterval ?? Math.min(3000, Math.floor(lease * 0.3)), 1, TIMER_MAX);
	const jitter = integer(
		"jitterRange",
		config.jitterRange ?? Math.floor(Math.min(2000, lease / 5, (renewal * 2) / 3)),
		0,
		TIMER_MAX,
	);
	const prefix = short("instanceId", config.instanceId ?? `${hostname().slice(0, 60)}:${process.pid}`, 100);
	const lockId = lock(config.lockId ?? 1);

	if (renewal + jitter >= lease)
		throw new RangeError(
			`renewalInterval ${renewal} plus jitterRange ${jitter} is not below leaseDuration ${lease}: the lease would run out between two renewals`,
		);
	if (jitter > renewal) throw new RangeError(`jitterRange ${jitter} is larger than renewalInterval ${renewal}`);
	if (config.legacySchema != null && renewal + jitter >= LEGACY_LEASE)
		throw new RangeError(
			`renewalInterval ${renewal} plus jitterRange ${jitter} is not below ${LEGACY_LEASE}: with legacySchema the old table's lease would run out between two renewals`,
		);
	if (config.legacySchema != null && (lockId > INT4_MAX || lockId < -INT4_MAX - 1n))
		throw new RangeError(`lockId is ${lockId}, and with legacySchema must be an integer of the old table: it fits in 4 bytes`);
	return {
		lease,
		renewal,
		jitter,
		lockId: String(lockId),
		instance: `${prefix}:${randomBytes(6).toString("hex")}`,
		schema: config.schema == null ? undefined : short("schema", config.schema, 63),
		createsExtension: flag("createTableOnInit", config.createTableOnInit ?? false),
		priority: integer("priority", config.priority ?? 0, 0, 9),
		waits: flag("wait", config.wait ?? true),
		info: config.info == null ? null : short("info", config.info, 512),
		pause: integer("pauseAfterRelease", config.pauseAfterRelease ?? lease, 0, TIMER_MAX),
		legacySchema: config.legacySchema == null ? undefined : short("legacySchema", config.legacySchema, 63),
	};
}
