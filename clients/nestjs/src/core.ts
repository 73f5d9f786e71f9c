/** The elector as nest-leader-election had it, for whoever uses no NestJS. */
import type { EventEmitter } from "node:events";
import { Logger } from "@nestjs/common";
import type { ClientConfig } from "pg";
import type { DataSource, EntityManager, Repository } from "typeorm";

import { Election, patienceOf } from "./election/election";
import { messageOf, SetupError } from "./election/errors";
import type { ElectionEvents } from "./election/events";
import { LegacyLock } from "./election/legacy";
import { Session } from "./election/session";
import { settingsOf, type LeaderElectorConfig, type Settings } from "./election/settings";
import type { LeaderTerm } from "./election/term";
import { createLeaderLeaseEntity, type LeaderLease } from "./entities";
import { register, unregister } from "./registry";

/** Thrown by guard() where this instance does not lead. */
export class NotLeaderError extends Error {
	override readonly name = "NotLeaderError";
}

export class LeaderElectorCore {
	/** As pg_stat_activity shows it (application_name) */
	name = "LeaderElector";

	protected readonly logger = new Logger(LeaderElectorCore.name);
	private readonly settings: Settings;
	private readonly dataSource: DataSource;
	private readonly election: Election;
	private initialized: Promise<void> | undefined;
	/** what has been logged since the server does not answer */
	private readonly complaints = new Set<string>();
	private complainsSince: number | undefined;

	/**
	 * @param repository of the entity LeaderLease; it tells which database
	 * @param config what is left out has its default
	 * @throws RangeError a value makes no sense; its message names it
	 */
	constructor(repository: Repository<LeaderLease>, config: LeaderElectorConfig = {}) {
		const settings = settingsOf(config);
		const { lockId, instance, legacySchema } = settings;

		this.settings = settings;
		this.dataSource = dataSourceOf(repository.manager);
		this.election = new Election(
			settings,
			new Session(() => this.connection(), patienceOf(settings)),
			legacySchema === undefined ? undefined : new LegacyLock(legacySchema, lockId, instance),
		);
		this.events.on("elected", ({ token }) => this.logger.log(`leads lock ${lockId}, token ${token}`));
		this.events.on("deposed", (_term, reason) => this.logger.log(`leads lock ${lockId} no more: ${reason}`));
		this.events.on("error", (error) => this.complain(messageOf(error)));
		if (config.baseCleanInterval != null)
			this.logger.warn("baseCleanInterval has no effect: the server removes what is over");
		this.startByItself();
	}

	/**
	 * Makes one, and waits until the server has answered, or could not be reached.
	 *
	 * @throws an error that repetition does not mend, such as that of a missing extension
	 */
	static async create(dataSource: DataSource, config: LeaderElectorConfig = {}): Promise<LeaderElectorCore> {
		const elector = new this(dataSource.getRepository(createLeaderLeaseEntity(config.schema)), config);

		await elector.initialize();
		return elector;
	}

	/** The name under which it contends: what was configured, and a random end */
	get instanceId(): string {
		return this.settings.instance;
	}

	/** The lock's id */
	get lockId(): string {
		return this.settings.lockId;
	}

	/** on("elected" | "deposed" | "error", ...).  A listener that throws or rejects harms nobody, and is an "error". */
	get events(): EventEmitter<ElectionEvents> {
		return this.election;
	}

	/** Does this instance lead?  Asks nobody, and says false from the deadline on whatever the network does. */
	amILeader(): boolean {
		return this.term !== undefined;
	}

	/** The term in which it leads; undefined: it does not lead */
	get term(): LeaderTerm | undefined {
		return this.election.current();
	}

	/** The fencing token of the term; undefined: it does not lead */
	get token(): bigint | undefined {
		return this.term?.token;
	}

	/** Who leads, by the server's word; null: nobody.  Rejects if that cannot be asked. */
	async leaderId(): Promise<string | null> {
		const rows = await this.dataSource.query(`SELECT ${this.named("le_leader($1)")} AS leader`, [this.lockId]);

		return rows[0].leader;
	}

	/**
	 * Runs work if this instance leads, with a signal that is aborted when it does
	 * not any more; resolves to undefined, and runs nothing, if it does not.  Do not
	 * await release() or shutdown() in it: those wait for the work.
	 */
	whileLeader<T>(work: (signal: AbortSignal, term: LeaderTerm) => T | Promise<T>): Promise<T | undefined> {
		return this.election.whileLeader((term) => work(term.signal, term));
	}

	/**
	 * Inside a transaction of TypeORM's: it can only be committed if this term is
	 * live then; else COMMIT, or this, fails with LE001.  Returns the token.
	 *
	 * @param manager of the transaction
	 * @param term that of whileLeader(); without one the current one
	 * @throws NotLeaderError this instance does not lead
	 */
	async guard(manager: EntityManager, term: LeaderTerm | undefined = this.term): Promise<bigint> {
		if (manager.queryRunner?.isTransactionActive !== true)
			throw new Error("guard() needs the manager of a transaction: dataSource.transaction(async (manager) => ...)");
		if (term === undefined) throw new NotLeaderError(`this instance does not lead lock ${this.lockId}`);
		await manager.query(`SELECT ${this.named("le_guard($1, $2, $3)")}`, [
			this.lockId,
			term.instance,
			String(term.token),
		]);
		return term.token;
	}

	/** For how many milliseconds to ask the server has failed; 0: it answers, undefined: it never has */
	get silence(): number | undefined {
		return this.election.silence();
	}

	/** The lease's length in milliseconds */
	get leaseDuration(): number {
		return this.settings.lease;
	}

	/**
	 * Gives the lead back, once the works of whileLeader() have ended, to whoever
	 * waits, and contends again after a pause.
	 */
	release(): Promise<void> {
		return this.election.release();
	}

	/** Gives the lead back and contends no more. */
	async shutdown(): Promise<void> {
		this.initialized ??= Promise.resolve();
		await this.election.stop();
		unregister(this);
	}

	/** Begins to contend; done, and rejects, as create(). */
	protected initialize(): Promise<void> {
		this.initialized ??= this.begin();
		return this.initialized;
	}

	/** One that is made with new has nobody who calls initialize(), or hears what it says: it tries for ever. */
	protected startByItself(): void {
		setImmediate(() => {
			if (this.initialized !== undefined) return;
			register(this);
			this.initialized = this.election.start().catch(() => {});
		});
	}

	private async begin(): Promise<void> {
		register(this);
		try {
			await this.election.start();
		} catch (error) {
			await this.shutdown();
			throw error;
		}
	}

	private named(call: string): string {
		if (this.election.schema === undefined) throw new Error("the server has not been reached yet");
		return `${this.election.schema}.${call}`;
	}

	/** How TypeORM connects to the primary */
	private connection(): ClientConfig {
		const { type } = this.dataSource.options;
		const { master } = this.dataSource.driver as unknown as { master?: { options: ClientConfig } };

		if (type !== "postgres") throw new SetupError(`the data source is of type ${type}, and not postgres`);
		if (master === undefined) throw new SetupError("the data source is not initialized");
		return { ...master.options, password: master.options.password, ssl: master.options.ssl, application_name: this.name };
	}

	/** As long as the server does not answer, once and not at each attempt */
	private complain(message: string): void {
		const { failsSince } = this.election;

		if (failsSince === undefined || failsSince !== this.complainsSince) this.complaints.clear();
		this.complainsSince = failsSince;
		if (this.complaints.has(message)) return;
		this.complaints.add(message);
		this.logger.error(message);
	}
}

/** TypeORM 1 has another name for it, and warns of the old one. */
function dataSourceOf(manager: EntityManager): DataSource {
	return (manager as { dataSource?: DataSource }).dataSource ?? manager.connection;
}
