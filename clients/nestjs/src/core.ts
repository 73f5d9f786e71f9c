/** The elector as nest-leader-election had it, for whoever uses no NestJS. */
import { Logger } from "@nestjs/common";
import type { DataSource, EntityManager, Repository } from "typeorm";
import type { ClientConfig } from "pg";

import { Election, patienceOf, type LeaderTerm } from "./election/election";
import { LegacyLock } from "./election/legacy";
import { Session, type Driver } from "./election/session";
import { settingsOf, type LeaderElectorConfig, type Settings } from "./election/settings";
import { createLeaderLeaseEntity, type LeaderLease } from "./entities";

/** Thrown by guard() where this instance does not lead. */
export class NotLeaderError extends Error {
	override readonly name = "NotLeaderError";
}

/** TypeORM's pool of the primary, as far as it is needed */
interface Pool {
	Client: Driver["Client"];
	options: ClientConfig;
}

export class LeaderElectorCore {
	name = "LeaderElector";

	/** The election itself: on("elected" | "deposed" | "error", ...) */
	readonly events: Election;

	protected readonly logger = new Logger(LeaderElectorCore.name);
	protected readonly settings: Settings;
	private readonly dataSource: DataSource;
	private initialized: Promise<void> | undefined;
	private lastError: string | undefined;

	/**
	 * @param repository of the entity LeaderLease; it tells which database
	 * @param config what is left out has its default
	 * @throws RangeError a value makes no sense; its message names it
	 */
	constructor(repository: Repository<LeaderLease>, config: LeaderElectorConfig = {}) {
		const settings = settingsOf(config);
		const session = new Session(() => this.connection(), patienceOf(settings));
		const legacy =
			settings.legacySchema === undefined
				? undefined
				: new LegacyLock(settings.legacySchema, settings.lockId, settings.instance);

		this.settings = settings;
		this.dataSource = repository.manager.connection;
		this.events = new Election(settings, session, legacy);
		this.events.on("elected", ({ token }) => this.logger.log(`leads lock ${settings.lockId}, token ${token}`));
		this.events.on("deposed", (_term, reason) => this.logger.log(`leads lock ${settings.lockId} no more: ${reason}`));
		this.events.on("error", (error) => this.complain(error));
		if (config.baseCleanInterval !== undefined)
			this.logger.warn("baseCleanInterval has no effect: the server removes what is over");
		this.startByItself();
	}

	/** Makes one, and waits for the server's first answer. */
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

	/** Does this instance lead?  Asks nobody, and says false from the deadline on whatever the network does. */
	amILeader(): boolean {
		return this.events.current() !== undefined;
	}

	/** The fencing token of the term; undefined: it does not lead */
	get token(): bigint | undefined {
		return this.events.current()?.token;
	}

	/** Who leads, by the server's word; null: nobody.  Rejects if that cannot be asked. */
	async leaderId(): Promise<string | null> {
		const rows = await this.dataSource.query(`SELECT ${this.named("le_leader($1)")} AS leader`, [this.lockId]);

		return rows[0].leader;
	}

	/**
	 * Runs work if this instance leads, with a signal that is aborted when it does
	 * not any more; resolves to undefined, and runs nothing, if it does not.
	 */
	whileLeader<T>(work: (signal: AbortSignal, term: LeaderTerm) => T | Promise<T>): Promise<T | undefined> {
		return this.events.whileLeader((term) => work(term.signal, term));
	}

	/**
	 * Inside a transaction of TypeORM's: it can only be committed if this term is
	 * live then; else COMMIT, or this, fails with LE001.  Returns the token.
	 *
	 * @param manager of the transaction
	 * @param term that of whileLeader(); without one the current one
	 * @throws NotLeaderError this instance does not lead, or manager has no transaction
	 */
	async guard(manager: EntityManager, term: LeaderTerm | undefined = this.events.current()): Promise<bigint> {
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

	/**
	 * Gives the lead back, once the works of whileLeader() have ended, to whoever
	 * waits, and contends again after a pause.
	 */
	release(): Promise<void> {
		return this.events.release();
	}

	/** Gives the lead back and contends no more. */
	async shutdown(): Promise<void> {
		this.initialized ??= Promise.resolve();
		await this.events.stop();
	}

	/** Begins to contend; done when the server has answered for the first time. */
	protected initialize(): Promise<void> {
		this.initialized ??= this.events.start();
		return this.initialized;
	}

	/** One that is made with new has nobody who calls initialize(). */
	protected startByItself(): void {
		setImmediate(() => this.initialize().catch(() => {}));
	}

	private named(call: string): string {
		if (this.events.schema === undefined) throw new Error("the server has not been reached yet");
		return `${this.events.schema}.${call}`;
	}

	/** How TypeORM connects to the primary */
	private connection(): { driver: Driver; config: ClientConfig } {
		const driver = this.dataSource.driver as unknown as { postgres?: Driver; master?: Pool };

		if (driver.postgres === undefined) throw new Error(`the data source is of type ${this.dataSource.options.type}, and not postgres`);
		if (driver.master === undefined) throw new Error("the data source is not initialized");
		const { options } = driver.master;

		// pg hides the password from being copied
		return {
			driver: driver.postgres,
			config: { ...options, password: options.password, ssl: options.ssl, application_name: this.name },
		};
	}

	private complain(error: Error): void {
		if (error.message !== this.lastError) this.logger.error(error.message);
		this.lastError = error.message;
	}
}

