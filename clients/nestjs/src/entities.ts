/** The view leader_lease, as entities of TypeORM's. */
import { Column, Entity, EntitySchema, PrimaryColumn, type ValueTransformer } from "typeorm";

/** With parseInt8 the driver makes numbers of bigints, and rounds the large ones. */
function exactly(value: string | number): bigint {
	if (typeof value === "number" && !Number.isSafeInteger(value))
		throw new RangeError(`${value} has been rounded: query leader_lease without TypeORM's option parseInt8`);
	return BigInt(value);
}

const text = (value: unknown) => (typeof value === "bigint" ? String(value) : value);

/** A bigint of PostgreSQL's: a number if that is exact */
const id: ValueTransformer = {
	from: (value: string | number | null) => {
		if (value === null) return null;
		const exact = exactly(value);

		return Number.isSafeInteger(Number(exact)) ? Number(exact) : exact;
	},
	to: text,
};

const token: ValueTransformer = {
	from: (value: string | number | null) => (value === null ? null : exactly(value)),
	to: text,
};

/** Who leads, or led: one row for each lock.  Only to be read. */
@Entity({ name: "leader_lease", synchronize: false })
export class LeaderLease {
	/** the lock; a bigint if it is too large for a number */
	@PrimaryColumn({ type: "bigint", transformer: id })
	id!: number | bigint;

	/** the instance that leads or led */
	@Column({ type: "text", name: "leader_id" })
	leaderId!: string;

	/** end of the lease, or of the grace that protects it; null on a standby */
	@Column({ type: "timestamptz", name: "expires_at", nullable: true })
	expiresAt!: Date | null;

	/** start of the term */
	@Column({ type: "timestamptz", name: "created_at" })
	createdAt!: Date;

	/** the fencing token of the term */
	@Column({ type: "bigint", transformer: token })
	token!: bigint;

	/** live, restarted, held, revoked, grace, expired, or standby */
	@Column({ type: "text" })
	state!: string;
}

/** The same for a schema that is not public. */
export function createLeaderLeaseEntity(schema = "public"): EntitySchema<LeaderLease> {
	return new EntitySchema<LeaderLease>({
		name: "LeaderLease",
		tableName: "leader_lease",
		schema,
		synchronize: false,
		columns: {
			id: { type: "bigint", primary: true, transformer: id },
			leaderId: { type: "text", name: "leader_id" },
			expiresAt: { type: "timestamptz", name: "expires_at", nullable: true },
			createdAt: { type: "timestamptz", name: "created_at" },
			token: { type: "bigint", transformer: token },
			state: { type: "text" },
		},
	});
}
