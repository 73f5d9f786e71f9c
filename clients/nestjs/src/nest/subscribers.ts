/** Finds what is decorated with OnElected and OnDeposed, and whose LeaderOnly methods are. */
import { Inject, Injectable, Logger, type OnApplicationBootstrap, type OnApplicationShutdown, type OnModuleInit } from "@nestjs/common";
import { DiscoveryService, MetadataScanner } from "@nestjs/core";
import type { InstanceWrapper } from "@nestjs/core/injector/instance-wrapper";

import { LeaderElectorCore } from "../core";
import { disown, electorOf, own } from "../registry";
import type { LeaderEventOptions } from "./decorators";
import { LeaderElectorService } from "./service";
import { ON_DEPOSED, ON_ELECTED } from "./tokens";

type Instance = Record<string, (...args: unknown[]) => unknown>;

/** Of the others Nest has an object that was never constructed. */
const existsOnce = (wrapper: InstanceWrapper) => wrapper.isDependencyTreeStatic() && !wrapper.isTransient;

@Injectable()
export class Subscribers implements OnModuleInit, OnApplicationBootstrap, OnApplicationShutdown {
	private readonly logger = new Logger("LeaderElector");

	constructor(
		@Inject(DiscoveryService) private readonly discovery: DiscoveryService,
		@Inject(LeaderElectorService) private readonly elector: LeaderElectorService,
	) {
		// before anything has begun to contend
		if (this.wrappers().filter(({ token }) => token === LeaderElectorService).length > 1)
			throw new Error("LeaderElectorModule is configured twice: it is for one lock, others are providers of their own");
	}

	onModuleInit(): void {
		for (const instance of this.instances()) own(instance, this.elector);
		// by their class those that Nest makes later, for each request or for each who injects one
		for (const made of this.madeLater()) own(made, this.elector);
	}

	onApplicationShutdown(): void {
		for (const made of this.madeLater()) disown(made, this.elector);
	}

	private madeLater(): object[] {
		return this.wrappers()
			.filter((wrapper) => !existsOnce(wrapper))
			.map(({ metatype }) => metatype)
			.filter((metatype) => typeof metatype === "function");
	}

	/** Not before all modules are ready; who leads since before that is told now. */
	onApplicationBootstrap(): void {
		const scanner = new MetadataScanner();

		for (const instance of this.instances()) {
			const prototype = Object.getPrototypeOf(instance) as Instance | null;

			for (const name of prototype === null ? [] : scanner.getAllMethodNames(prototype)) {
				const elected = this.electorFor(ON_ELECTED, prototype, name, instance);
				const deposed = this.electorFor(ON_DEPOSED, prototype, name, instance);

				elected?.events.on("elected", (term) => this.call(instance, name, term));
				deposed?.events.on("deposed", (term, reason) => this.call(instance, name, term, reason));
				if (elected?.term !== undefined) void this.call(instance, name, elected.term);
			}
		}
	}

	private wrappers(): InstanceWrapper[] {
		return [...this.discovery.getProviders(), ...this.discovery.getControllers()];
	}

	/** Those that exist once in the application; a few have several tokens. */
	private instances(): Set<Instance> {
		return new Set(
			this.wrappers()
				.filter(existsOnce)
				.map(({ instance }) => instance)
				.filter((instance) => typeof instance === "object" && instance !== null),
		);
	}

	private electorFor(
		key: symbol,
		prototype: Instance | null,
		name: string,
		instance: Instance,
	): LeaderElectorCore | undefined {
		const method = prototype?.[name];
		const options: LeaderEventOptions | undefined = typeof method === "function" ? Reflect.getMetadata(key, method) : undefined;

		if (options === undefined) return undefined;
		const elector = electorOf(instance, options.lockId === undefined ? undefined : String(options.lockId));

		// a test has put something else in its place, which does not elect
		if (!(this.elector instanceof LeaderElectorCore) && !(elector instanceof LeaderElectorCore)) return undefined;
		if (!(elector instanceof LeaderElectorCore))
			throw new Error(`${name}() waits for the leader of lock ${options.lockId}, for which nobody here contends`);
		return elector;
	}

	private async call(instance: Instance, name: string, ...args: unknown[]): Promise<void> {
		try {
			await instance[name]?.(...args);
		} catch (error) {
			this.logger.error(`${name}() has failed`, (error as Error).stack);
		}
	}
}
