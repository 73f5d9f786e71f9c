/** What only the leader does. */
import { ServiceUnavailableException } from "@nestjs/common";
import "reflect-metadata";

import { electorOf } from "./registry";
import { LEADER_ONLY, ON_DEPOSED, ON_ELECTED } from "./tokens";

export interface LeaderOnlyOptions {
	/** which lock, where the process contends for several */
	lockId?: number | bigint | string;
	/**
	 * What a follower's call does: "skip" returns undefined, "refuse" throws a
	 * ServiceUnavailableException (503).  Of a controller's routes "refuse", else "skip"
	 */
	follower?: "skip" | "refuse";
}

export interface LeaderEventOptions {
	/** which lock, where the process contends for several */
	lockId?: number | bigint | string;
}

/** What @nestjs/common leaves on a route's handler; it exports no name for it. */
const ROUTE = "path";

type Method = (...args: unknown[]) => unknown;

function leadersOnly(method: Method, options: LeaderOnlyOptions): Method {
	const lockId = options.lockId === undefined ? undefined : String(options.lockId);
	const wrapper = {
		// stack traces and routers show the name
		[method.name](this: object, ...args: unknown[]): unknown {
			if (electorOf(this, lockId)?.amILeader()) return method.apply(this, args);
			const refuses = options.follower ?? (Reflect.hasMetadata(ROUTE, wrapper) ? "refuse" : "skip");

			if (refuses === "refuse") throw new ServiceUnavailableException("this instance does not lead");
			return undefined;
		},
	}[method.name] as Method;

	// that of decorators that were applied before; those to come find the wrapper
	for (const key of Reflect.getMetadataKeys(method))
		Reflect.defineMetadata(key, Reflect.getMetadata(key, method), wrapper);
	Reflect.defineMetadata(LEADER_ONLY, options, wrapper);
	return wrapper;
}

/**
 * On a method: it does nothing where this instance does not lead.  On a class: so
 * do all of its methods that are routes, or have other decorators' metadata.
 */
export function LeaderOnly(options: LeaderOnlyOptions = {}): ClassDecorator & MethodDecorator {
	return (target: object, key?: string | symbol, descriptor?: PropertyDescriptor): void => {
		if (descriptor !== undefined) {
			descriptor.value = leadersOnly(descriptor.value as Method, options);
			return;
		}
		const { prototype } = target as { prototype: object };

		for (const name of Object.getOwnPropertyNames(prototype)) {
			const method = Object.getOwnPropertyDescriptor(prototype, name) as PropertyDescriptor;

			if (name === "constructor" || typeof method.value !== "function") continue;
			if (!Reflect.hasMetadata(ROUTE, method.value)) continue;
			Object.defineProperty(prototype, name, { ...method, value: leadersOnly(method.value as Method, options) });
		}
		void key;
	};
}

/** Called, without arguments but the term, when this instance begins to lead. */
export function OnElected(options: LeaderEventOptions = {}): MethodDecorator {
	return (_target, _key, descriptor) => Reflect.defineMetadata(ON_ELECTED, options, descriptor.value as object);
}

/** Called with the term and the reason when it leads no more. */
export function OnDeposed(options: LeaderEventOptions = {}): MethodDecorator {
	return (_target, _key, descriptor) => Reflect.defineMetadata(ON_DEPOSED, options, descriptor.value as object);
}
