/** Which elector decides for a decorated method: there is no injection into a decorator. */
import type { LeaderElectorService } from "./service";

const electors = new Set<LeaderElectorService>();
const owners = new WeakMap<object, Set<LeaderElectorService>>();

export function register(elector: LeaderElectorService): void {
	electors.add(elector);
}

export function unregister(elector: LeaderElectorService): void {
	electors.delete(elector);
}

/** This instance of a provider or controller belongs to the elector's application. */
export function own(instance: object, elector: LeaderElectorService): void {
	owners.set(instance, (owners.get(instance) ?? new Set()).add(elector));
}

/**
 * The elector of the application that has made this instance, else of the whole
 * process; undefined: there is none.
 */
export function electorOf(instance: object | undefined, lockId: string | undefined): LeaderElectorService | undefined {
	const all = [...((instance && owners.get(instance)) ?? electors)].filter(
		(elector) => lockId === undefined || elector.lockId === lockId,
	);

	if (all.length > 1)
		throw new Error(
			`several electors might be meant (locks ${all.map((elector) => elector.lockId).join(", ")}): give the decorator a lockId`,
		);
	return all[0];
}
