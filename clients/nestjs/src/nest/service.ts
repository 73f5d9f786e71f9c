/** The elector as a provider, with the application's life. */
import { Inject, Injectable, type BeforeApplicationShutdown, type OnModuleInit } from "@nestjs/common";
import { InjectRepository } from "@nestjs/typeorm";
import type { DataSource, Repository } from "typeorm";

import { LeaderElectorCore } from "../core";
import type { LeaderElectorConfig } from "../election/settings";
import { LeaderLease } from "../entities";
import { LEADER_ELECTOR_CONFIG } from "./tokens";

@Injectable()
export class LeaderElectorService extends LeaderElectorCore implements OnModuleInit, BeforeApplicationShutdown {
	constructor(
		@InjectRepository(LeaderLease) repository: Repository<LeaderLease>,
		@Inject(LEADER_ELECTOR_CONFIG) config: LeaderElectorConfig,
	) {
		super(repository, config);
	}

	/** As of LeaderElectorCore; for a provider of a further lock. */
	static override create(dataSource: DataSource, config: LeaderElectorConfig = {}): Promise<LeaderElectorService> {
		return super.create(dataSource, config) as Promise<LeaderElectorService>;
	}

	async onModuleInit(): Promise<void> {
		await this.initialize();
	}

	/** Before the hooks that close TypeORM's pool; with app.enableShutdownHooks() at SIGTERM, too. */
	async beforeApplicationShutdown(): Promise<void> {
		await this.shutdown();
	}

	/** NestJS says when. */
	protected override startByItself(): void {}
}
