/** Which elector decides for a decorated method: there is no injection into a decorator. */

export interface Elector {
	readonly lockId: string;
	amILeader(): boolean;
}

const electors = new Set<Elector>();
/** of instances, and of classes whose instances are made later; several if applications share them */
const owners = new WeakMap<object, Set<Elector>>();

export function register(elector: Elector): void {
	electors.add(elector);
}

export function unregister(elector: Elector): void {
	electors.delete(elector);
}

/** This provider or controller, or this class of them, belongs to the application of that elector's module. */
export function own(target: object, elector: Elector): void {
	const all = owners.get(target);

	if (all === undefined) owners.set(target, new Set([elector]));
	else all.add(elector);
}

/** That application has been closed. */
export function disown(target: object, elector: Elector): void {
	owners.get(target)?.delete(elector);
}

/**
 * The elector of the application that has made this instance, if it has that lock;
 * else that of the process which has; undefined: none has.
 */
export function electorOf(instance: object | undefined, lockId: string | undefined): Elector | undefined {
	const isMeant = (elector: Elector) => lockId === undefined || elector.lockId === lockId;
	const owned = instance && (owners.get(instance) ?? owners.get(instance.constructor));
	let found = [...(owned ?? [])].filter(isMeant);

	// some of these applications may have been closed
	if (found.length > 1) found = found.filter((elector) => electors.has(elector));
	if (found.length === 0) found = [...electors].filter(isMeant);
	if (found.length > 1)
		throw new Error(
			`several electors might be meant (of locks ${found.map((elector) => elector.lockId).join(", ")}): give the decorator a lockId`,
		);
	return found[0];
}
