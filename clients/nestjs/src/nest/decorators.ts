/** What only the leader does. */
import { types } from "node:util";
import { ServiceUnavailableException } from "@nestjs/common";
import "reflect-metadata";

import { electorOf } from "../registry";
import { LEADER_ONLY, ON_DEPOSED, ON_ELECTED } from "./tokens";

export interface LeaderEventOptions {
	/** Which lock, where the process contends for several */
	lockId?: number | bigint | string;
}

export interface LeaderOnlyOptions extends LeaderEventOptions {
	/**
	 * What a follower's call does: "skip" returns undefined, "refuse" throws a
	 * ServiceUnavailableException (503).  Of a controller's routes "refuse", else "skip"
	 */
	follower?: "skip" | "refuse";
}

type Method = (...args: unknown[]) => unknown;

/** What @nestjs/common leaves on a route's handler; it exports no name for it. */
const ROUTE = "path";

/** By its type too, where the compiler has left that: other decorators, or an old target, hide that it is async. */
function isAsync(prototype: object, name: string | symbol, method: Method): boolean {
	return types.isAsyncFunction(method) || Reflect.getMetadata("design:returntype", prototype, name) === Promise;
}

function leadersOnly(prototype: object, name: string | symbol, method: Method, options: LeaderOnlyOptions): Method {
	const lockId = options.lockId === undefined ? undefined : String(options.lockId);
	const { [method.name]: wrapper } = {
		// under its name, which routers and stack traces show
		[method.name](this: object, ...args: unknown[]): unknown {
			if (electorOf(this, lockId)?.amILeader()) return method.apply(this, args);
			const reaction = options.follower ?? (Reflect.hasMetadata(ROUTE, wrapper as Method) ? "refuse" : "skip");

			if (reaction === "refuse") throw new ServiceUnavailableException("this instance does not lead");
			return isAsync(prototype, name, method) ? Promise.resolve() : undefined;
		},
	};

	// that of decorators that were applied before; those to come find the wrapper
	copyMetadata(method, wrapper as Method);
	Reflect.defineMetadata(LEADER_ONLY, options, wrapper as Method);
	return wrapper as Method;
}

function copyMetadata(from: Method, to: Method): void {
	for (const key of Reflect.getMetadataKeys(from)) Reflect.defineMetadata(key, Reflect.getMetadata(key, from), to);
}

function isRestricted(method: unknown): boolean {
	return typeof method === "function" && Reflect.hasMetadata(LEADER_ONLY, method);
}

/** Does something else call it, because of another decorator? */
function isHandler(method: unknown): method is Method {
	if (typeof method !== "function") return false;
	const keys = Reflect.getMetadataKeys(method);

	return keys.length > 0 && ![LEADER_ONLY, ON_ELECTED, ON_DEPOSED].some((key) => keys.includes(key));
}

function restrictClass(target: { name: string; prototype: object }, options: LeaderOnlyOptions): void {
	const seen = new Set<string>();
	let found = 0;

	// those that it has inherited, too: Nest calls them as well
	for (let level = target.prototype; level !== Object.prototype; level = Object.getPrototypeOf(level)) {
		for (const [name, descriptor] of Object.entries(Object.getOwnPropertyDescriptors(level))) {
			if (seen.has(name) || name === "constructor") continue;
			seen.add(name);
			if (isRestricted(descriptor.value)) found++;
			if (!isHandler(descriptor.value)) continue;
			found++;
			Object.defineProperty(target.prototype, name, { ...descriptor, value: leadersOnly(level, name, descriptor.value, options) });
		}
	}
	if (found === 0)
		throw new Error(
			`@LeaderOnly() on class ${target.name}: none of its methods is a route, or has a decorator that lets it be called. Decorate methods`,
		);
}

/**
 * On a method: it does nothing where this instance does not lead.  On a class: so
 * do all of its methods that are routes, or that other decorators (as @Cron) have
 * called; those apart that are decorated with @LeaderOnly() themselves.
 */
export function LeaderOnly(options: LeaderOnlyOptions = {}): ClassDecorator & MethodDecorator {
	return (target: object, name?: string | symbol, descriptor?: PropertyDescriptor): void => {
		if (descriptor === undefined) restrictClass(target as { name: string; prototype: object }, options);
		else descriptor.value = leadersOnly(target, name as string, descriptor.value as Method, options);
	};
}

/** Called with the term when this instance begins to lead. */
export function OnElected(options: LeaderEventOptions = {}): MethodDecorator {
	return (_target, _name, descriptor) => Reflect.defineMetadata(ON_ELECTED, options, descriptor.value as object);
}

/** Called with the term and the reason when it leads no more. */
export function OnDeposed(options: LeaderEventOptions = {}): MethodDecorator {
	return (_target, _name, descriptor) => Reflect.defineMetadata(ON_DEPOSED, options, descriptor.value as object);
}
