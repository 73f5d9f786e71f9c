/** A term of leadership, as its leader knows it. */
import { now } from "./clock";

/** What the work of a leader may know of its term. */
export interface LeaderTerm {
	/** The fencing token; larger than that of every term before */
	readonly token: bigint;
	/** The name under which it leads */
	readonly instance: string;
	/** Aborted when the term is over, or is about to be given back */
	readonly signal: AbortSignal;
}

const isAborted = Object.getOwnPropertyDescriptor(AbortSignal.prototype, "aborted")?.get as (this: AbortSignal) => boolean;

export class Term {
	/** what others see of it */
	readonly face: LeaderTerm;
	/** resolved when the server knows that it is over, or its lease has run out */
	readonly over: Promise<void>;
	readonly works = new Set<Promise<unknown>>();
	/** when to renew; at once at first, because a wait has cost some of the lease */
	nextBeat = now();
	isAnnounced = false;
	/** it is being given back: until when to wait, first for its works and then for the server */
	endBy: number | undefined;
	/** for how long not to contend when it has been given back */
	rest = 0;
	/** it has run out with works in it: until when the server keeps it from others in any case */
	heldUntil = 0;
	timer: NodeJS.Timeout | undefined;
	settle!: () => void;
	private readonly abort = new AbortController();

	/**
	 * @param deadline by our lease
	 * @param legacyDeadline by the row in nest-leader-election's table
	 * @param expire called when somebody sees that it is over, if no timer has
	 */
	constructor(
		token: bigint,
		instance: string,
		public deadline: number,
		public legacyDeadline: number,
		expire: () => void,
	) {
		const { signal } = this.abort;

		// by the clock: timers do not run while the event loop stands still, or gets no turn
		Object.defineProperty(signal, "aborted", {
			get: () => {
				if (!isAborted.call(signal) && now() >= this.end) expire();
				return isAborted.call(signal);
			},
		});
		Object.defineProperty(signal, "throwIfAborted", {
			value: () => {
				if (signal.aborted) throw signal.reason;
			},
		});
		this.face = Object.freeze({ token, instance, signal });
		this.over = new Promise((resolve) => {
			this.settle = resolve;
		});
	}

	get token(): bigint {
		return this.face.token;
	}

	/** When it is over if nothing more happens; before it leads, when its lease is */
	get end(): number {
		return this.isAnnounced ? Math.min(this.deadline, this.legacyDeadline) : this.deadline;
	}

	get leads(): boolean {
		return this.isAnnounced && this.endBy === undefined && now() < this.end;
	}

	get isRetired(): boolean {
		return isAborted.call(this.abort.signal);
	}

	/** Tells its works. */
	retire(reason: string): void {
		this.abort.abort(new Error(`leads no more: ${reason}`));
	}
}
