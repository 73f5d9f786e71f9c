/** The module: one elector, for the whole application. */
import { Global, Module, type DynamicModule, type InjectionToken, type OptionalFactoryDependency } from "@nestjs/common";
import { DiscoveryModule } from "@nestjs/core";
import { getDataSourceToken, getRepositoryToken } from "@nestjs/typeorm";
import type { DataSource } from "typeorm";

import type { LeaderElectorConfig } from "../election/settings";
import { LeaderLease } from "../entities";
import { LeaderElectionHealthIndicator } from "./health";
import { LeaderElectorService } from "./service";
import { Subscribers } from "./subscribers";
import { LEADER_ELECTOR_CONFIG } from "./tokens";

export interface LeaderElectorAsyncConfig extends Pick<DynamicModule, "imports"> {
	useFactory: (...args: never[]) => LeaderElectorConfig | Promise<LeaderElectorConfig>;
	inject?: (InjectionToken | OptionalFactoryDependency)[];
	/** TypeORM's name of the data source, if it is not the default one */
	dataSource?: string;
}

@Global()
@Module({})
export class LeaderElectorModule {
	/**
	 * @param dataSource TypeORM's name of it, if it is not the default one
	 * @throws RangeError at start: a value of the configuration makes no sense; its message names it
	 */
	static forRoot(config: LeaderElectorConfig = {}, dataSource?: string): DynamicModule {
		return LeaderElectorModule.forRootAsync({ useFactory: () => config, dataSource });
	}

	/** With a configuration that other providers know. */
	static forRootAsync({ imports = [], useFactory, inject = [], dataSource }: LeaderElectorAsyncConfig): DynamicModule {
		return {
			module: LeaderElectorModule,
			imports: [...imports, DiscoveryModule],
			providers: [
				{ provide: LEADER_ELECTOR_CONFIG, useFactory, inject },
				{
					// not by forFeature(): the entity is no part of the application's own
					provide: getRepositoryToken(LeaderLease),
					useFactory: (source: DataSource) => source.manager.getRepository(LeaderLease),
					inject: [getDataSourceToken(dataSource)],
				},
				LeaderElectorService,
				LeaderElectionHealthIndicator,
				Subscribers,
			],
			exports: [LeaderElectorService, LeaderElectionHealthIndicator],
		};
	}
}
