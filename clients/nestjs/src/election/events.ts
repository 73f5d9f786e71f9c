/** Apart, because a user's compiler reads these types, and need not know those of pg. */
import type { LeaderTerm } from "./term";

export interface ElectionEvents {
	/** Leads from now on. */
	elected: [term: LeaderTerm];
	/** Leads no more, and why. */
	deposed: [term: LeaderTerm, reason: string];
	/** Has asked the server in vain, or a listener has failed; goes on trying. */
	error: [error: Error];
}
