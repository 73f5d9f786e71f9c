/** Which elector decides for a decorated method: there is no injection into a decorator. */

export interface Elector {
	readonly lockId: string;
	amILeader(): boolean;
}

const electors = new Set<Elector>();
const owners = new WeakMap<object, Elector>();

export function register(elector: Elector): void {
	electors.add(elector);
}

export function unregister(elector: Elector): void {
	electors.delete(elector);
}

/** This instance of a provider or controller belongs to the application of that elector's module. */
export function own(instance: object, elector: Elector): void {
	owners.set(instance, elector);
}

/**
 * The elector of the application that has made this instance, if it has that lock;
 * else that of the process which has; undefined: none has.
 */
export function electorOf(instance: object | undefined, lockId: string | undefined): Elector | undefined {
	const isMeant = (elector: Elector) => lockId === undefined || elector.lockId === lockId;
	const owner = instance && owners.get(instance);

	if (owner !== undefined && isMeant(owner)) return owner;
	const found = [...electors].filter(isMeant);

	if (found.length > 1)
		throw new Error(
			`several electors might be meant (of locks ${found.map((elector) => elector.lockId).join(", ")}): give the decorator a lockId`,
		);
	return found[0];
}
