/** Finds what is decorated with OnElected and OnDeposed, and whose LeaderOnly methods are. */
import { Inject, Injectable, Logger, type OnApplicationBootstrap, type OnModuleInit } from "@nestjs/common";
import { DiscoveryService, MetadataScanner } from "@nestjs/core";

import type { LeaderEventOptions } from "./decorators";
import { own } from "./registry";
import { LeaderElectorService } from "./service";
import { ON_DEPOSED, ON_ELECTED } from "./tokens";

type Instance = Record<string, (...args: unknown[]) => unknown>;

@Injectable()
export class Subscribers implements OnModuleInit, OnApplicationBootstrap {
	private readonly logger = new Logger("LeaderElector");

	constructor(
		@Inject(DiscoveryService) private readonly discovery: DiscoveryService,
		@Inject(LeaderElectorService) private readonly elector: LeaderElectorService,
	) {}

	onModuleInit(): void {
		for (const instance of this.instances()) own(instance, this.elector);
	}

	/** Not before all modules are ready; who leads since before that is told now. */
	onApplicationBootstrap(): void {
		const { events } = this.elector;
		const scanner = new MetadataScanner();
		const term = events.current();

		for (const instance of this.instances())
			for (const name of scanner.getAllMethodNames(Object.getPrototypeOf(instance))) {
				if (this.isMeant(ON_ELECTED, instance, name)) {
					events.on("elected", (begun) => this.call(instance, name, begun));
					if (term !== undefined) void this.call(instance, name, term);
				}
				if (this.isMeant(ON_DEPOSED, instance, name))
					events.on("deposed", (ended, reason) => this.call(instance, name, ended, reason));
			}
	}

	private instances(): Instance[] {
		return [...this.discovery.getProviders(), ...this.discovery.getControllers()]
			.map(({ instance }) => instance)
			.filter((instance) => typeof instance === "object" && instance !== null);
	}

	private isMeant(key: symbol, instance: Instance, name: string): boolean {
		const options = Reflect.getMetadata(key, instance[name] as object) as LeaderEventOptions | undefined;

		return options !== undefined && String(options.lockId ?? this.elector.lockId) === this.elector.lockId;
	}

	private async call(instance: Instance, name: string, ...args: unknown[]): Promise<void> {
		try {
			await instance[name]?.(...args);
		} catch (error) {
			this.logger.error(`${name}() has failed`, (error as Error).stack);
		}
	}
}
