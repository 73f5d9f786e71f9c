/**
 * The client's rule (README, "How a client uses it"): a deadline is the time
 * before sending plus valid_for_ms; an answer after the deadline is void; a term
 * whose end has been asked for is dead, and its end is asked for until that is
 * answered.
 *
 * One loop, one question at a time.  What it does not decide alone: release() and
 * stop() say that a term shall end, and a timer ends it at its deadline.
 */
import { EventEmitter } from "node:events";

import { now } from "./clock";
import type { LegacyLock } from "./legacy";
import { quoted } from "./names";
import type { Session } from "./session";
import type { Settings } from "./settings";

/** What the work of a leader may know of its term. */
export interface LeaderTerm {
	/** The fencing token; larger than that of every term before */
	readonly token: bigint;
	/** The name under which it leads */
	readonly instance: string;
	/** Aborted when the term is over, or is about to be ended */
	readonly signal: AbortSignal;
}

export interface ElectionEvents {
	/** Leads from now on. */
	elected: [term: LeaderTerm];
	/** Leads no more, and why. */
	deposed: [term: LeaderTerm, reason: string];
	/** Has asked the server in vain; goes on trying. */
	error: [error: Error];
}

interface Term extends LeaderTerm {
	readonly abort: AbortController;
	readonly works: Set<Promise<unknown>>;
	deadline: number;
	/** the same of the row in nest-leader-election's table */
	legacyDeadline: number;
	nextBeat: number;
	isAnnounced: boolean;
	/** until when to wait for the end of its works; undefined: it is not to be ended */
	endBy: number | undefined;
	timer: NodeJS.Timeout | undefined;
}

const WAIT_MAX = 30_000;
const RETRY = 1000;
const TIMER_MAX = 2 ** 31 - 1;

/** How long an answer may take: there is time for another attempt within the lease. */
export function patienceOf(settings: Settings): number {
	return Math.min(Math.max(settings.lease / 3, 500), 5000);
}

export class Election extends EventEmitter<ElectionEvents> {
	/** where the extension is, as SQL writes it; undefined: the server has not been reached yet */
	schema: string | undefined;

	private term: Term | undefined;
	/** its end has been asked for, and nobody has answered */
	private dying: Term | undefined;
	private notBefore = 0;
	private stopsBy: number | undefined;
	private isWaiting = false;
	private wake: () => void = () => {};
	private running: Promise<void> | undefined;
	private heard: number | undefined;

	constructor(
		private readonly settings: Settings,
		private readonly session: Session,
		private readonly legacy: LegacyLock | undefined,
	) {
		super();
	}

	// ---- For everybody ----

	/** Begins; done when the server has answered, or failed, for the first time. */
	start(): Promise<void> {
		return new Promise((resolve, reject) => {
			this.running ??= this.run(resolve, reject);
		});
	}

	/** The term in which we lead just now */
	current(): LeaderTerm | undefined {
		const term = this.term;

		return term !== undefined && term.isAnnounced && term.endBy === undefined && isLive(term) ? term : undefined;
	}

	/** Milliseconds since the server has last answered; undefined: never yet */
	silence(): number | undefined {
		return this.heard === undefined ? undefined : now() - this.heard;
	}

	/** If the server is silent for longer, it does not answer any more. */
	get longestSilence(): number {
		const { renewal, jitter, pause } = this.settings;

		return Math.max(this.wait, renewal + jitter, pause) + 2 * patienceOf(this.settings);
	}

	/**
	 * Runs this while we lead; undefined at once if we do not.  A term that is
	 * given back is kept until it is done, for one lease at most.
	 */
	async whileLeader<T>(work: (term: LeaderTerm) => T | Promise<T>): Promise<T | undefined> {
		const term = this.current() as Term | undefined;

		if (term === undefined) return undefined;
		const done = (async () => work(term))();

		term.works.add(done);
		try {
			return await done;
		} finally {
			term.works.delete(done);
			this.wake();
		}
	}

	/** Gives the lead back, to the first that waits; done when the server knows, or the lease is over. */
	async release(): Promise<void> {
		const term = this.term;

		if (term === undefined) return;
		this.endTerm(term, "released");
		while ((this.term === term || this.dying === term) && now() < term.deadline)
			await new Promise((resolve) => setTimeout(resolve, 5));
	}

	/** The same, and asks no more. */
	async stop(): Promise<void> {
		this.stopsBy ??= now() + patienceOf(this.settings);
		if (this.term !== undefined) this.endTerm(this.term, "stopped");
		// the lead may be ours before the server has heard of it
		if (this.isWaiting) this.session.cancel();
		this.wake();
		await this.running;
	}

	// ---- The loop ----

	private async run(answered: () => void, failed: (error: Error) => void): Promise<void> {
		while (!this.isOver()) {
			try {
				await this.turn();
				this.heard = now();
				answered();
			} catch (error) {
				this.tell("error", error as Error);
				failed(error as Error);
				await this.sleep(RETRY * (0.5 + Math.random() / 2));
			}
		}
		this.session.close();
	}

	/** How long one question for the lead waits; a tenth of it is missing from the lease. */
	private get wait(): number {
		return Math.min(this.settings.lease, WAIT_MAX);
	}

	private isOver(): boolean {
		return this.stopsBy !== undefined && this.term === undefined && (this.dying === undefined || now() >= this.stopsBy);
	}

	private async turn(): Promise<void> {
		const term = this.term;

		if (this.dying !== undefined) return this.finish(this.dying);
		if (term === undefined) return now() < this.notBefore ? this.sleep(this.notBefore - now()) : this.campaign();
		if (now() >= term.deadline) return this.depose(term, "the lease has run out");
		if (term.endBy !== undefined && now() >= term.endBy) return this.depose(term, "its work has not ended");
		if (term.endBy !== undefined && term.works.size === 0) return this.bury(term);
		if (now() >= term.nextBeat) return this.beat(term);
		return this.sleep(Math.min(term.nextBeat, term.endBy ?? Infinity) - now());
	}

	private sleep(time: number): Promise<void> {
		return new Promise((resolve) => {
			const timer = setTimeout(resolve, Math.min(Math.max(time, 0), TIMER_MAX));

			this.wake = () => {
				clearTimeout(timer);
				resolve();
			};
		});
	}

	/** A function of the extension's, with its schema */
	private async named(call: string): Promise<string> {
		if (this.settings.createsExtension && this.schema === undefined) await this.createExtension();
		this.schema ??= await this.findSchema();
		return `${this.schema}.${call}`;
	}

	private async findSchema(): Promise<string> {
		const row = await this.session.ask(
			`SELECT pg_catalog.quote_ident(n.nspname), n.nspname
			   FROM pg_catalog.pg_namespace n, pg_catalog.pg_extension e
			  WHERE e.extnamespace OPERATOR(pg_catalog.=) n.oid AND e.extname OPERATOR(pg_catalog.=) 'leader_election'`,
			[],
		);

		if (row === undefined) throw new Error("this database has no extension leader_election: CREATE EXTENSION leader_election");
		const [found, plain] = row as [string, string];
		const { schema } = this.settings;

		if (schema !== undefined && schema !== plain)
			throw new Error(`the extension leader_election is in schema ${found}, and not in ${quoted(schema)}`);
		return found;
	}

	private async createExtension(): Promise<void> {
		const { schema } = this.settings;

		if (schema !== undefined) await this.session.ask(`CREATE SCHEMA IF NOT EXISTS ${quoted(schema)}`, []);
		await this.session.ask(
			`CREATE EXTENSION IF NOT EXISTS leader_election${schema === undefined ? "" : ` SCHEMA ${quoted(schema)}`}`,
			[],
		);
	}

	// ---- Terms ----

	private async campaign(): Promise<void> {
		const { lockId, instance, lease, info, priority } = this.settings;
		const call = await this.named("le_campaign($1, $2, $3, $4, $5, $6)");
		// the first answer at once: whoever starts us wants to know
		const wait = this.heard === undefined ? 0 : this.wait;
		const sent = now();

		this.isWaiting = true;
		try {
			const row = await this.session.ask(
				`SELECT elected, token, valid_for_ms FROM ${call}`,
				[lockId, instance, lease, wait, info, priority],
				wait,
			);

			if (row?.[0] === "t") this.begin(BigInt(row[1] as string), sent + Number(row[2]));
		} finally {
			this.isWaiting = false;
		}
	}

	private begin(token: bigint, deadline: number): void {
		const abort = new AbortController();
		const term: Term = {
			token,
			instance: this.settings.instance,
			signal: abort.signal,
			abort,
			works: new Set(),
			deadline,
			legacyDeadline: this.legacy === undefined ? Infinity : 0,
			nextBeat: now(), // a wait has cost some of the lease
			isAnnounced: false,
			endBy: undefined,
			timer: undefined,
		};

		// we were frozen, or have been told to stop: there is only its end to be had
		if (now() >= deadline || this.stopsBy !== undefined) {
			this.dying = term;
			return;
		}
		this.term = term;
		this.watch(term);
		if (this.legacy === undefined) this.announce(term);
	}

	private async beat(term: Term): Promise<void> {
		const { lockId, instance, renewal, jitter } = this.settings;
		const call = await this.named("le_keep_alive($1, $2, $3)");
		const sent = now();

		term.nextBeat = sent + renewal + jitter * (2 * Math.random() - 1);
		const row = await this.session.ask(`SELECT leads, valid_for_ms, resign_requested FROM ${call}`, [
			lockId,
			instance,
			term.token,
		]);

		if (this.term !== term || now() >= term.deadline) return; // an answer after the deadline is void
		if (row?.[0] !== "t") return this.depose(term, "the server says that it does not lead");
		term.deadline = sent + Number(row[1]);
		if (this.legacy !== undefined) await this.beatLegacy(term, this.legacy);
		this.watch(term);
		if (row[2] === "t") this.endTerm(term, "an operator has asked it to resign");
	}

	/** Nobody leads by our lease alone while the old library's instances go by their row. */
	private async beatLegacy(term: Term, legacy: LegacyLock): Promise<void> {
		const deadline = await legacy.hold(this.session);

		if (this.term !== term || !isLive(term, term.isAnnounced)) return;
		if (deadline !== undefined) {
			term.legacyDeadline = deadline;
			this.announce(term);
		} else if (term.isAnnounced) {
			this.endTerm(term, "another instance has the row of nest-leader-election");
		}
	}

	private announce(term: Term): void {
		if (term.isAnnounced) return;
		term.isAnnounced = true;
		this.tell("elected", term);
	}

	/** At the deadline it is over, whatever the loop waits for. */
	private watch(term: Term): void {
		const left = (term.isAnnounced ? endOf(term) : term.deadline) - now();

		clearTimeout(term.timer);
		term.timer = setTimeout(
			() => {
				if (this.term !== term) return;
				if (isLive(term, term.isAnnounced)) this.watch(term);
				else this.depose(term, "the lease has run out");
			},
			Math.min(Math.max(left, 0), TIMER_MAX),
		);
	}

	private depose(term: Term, reason: string): void {
		if (this.term !== term) return;
		clearTimeout(term.timer);
		this.term = undefined;
		this.retire(term, reason);
		this.wake();
	}

	/** Its works are to end, then it is released. */
	private endTerm(term: Term, reason: string): void {
		if (term.endBy !== undefined) return;
		term.endBy = now() + this.settings.lease;
		this.retire(term, reason);
		this.wake();
	}

	private retire(term: Term, reason: string): void {
		if (term.signal.aborted) return;
		term.abort.abort(new Error(`leads no more: ${reason}`));
		if (term.isAnnounced) this.tell("deposed", term, reason);
	}

	/** Its works have ended: from here on it is dead, whatever becomes of the question. */
	private bury(term: Term): void {
		clearTimeout(term.timer);
		this.term = undefined;
		this.dying = term;
	}

	private async finish(term: Term): Promise<void> {
		const { lockId, instance, pause } = this.settings;
		const values = [lockId, instance, term.token];

		await this.legacy?.release(this.session);
		// to the first that waits, so that there is always a leader
		const row = await this.session.ask(`SELECT ${await this.named("le_transfer($1, $2, $3)")}`, values);

		if (row?.[0] !== "t") await this.session.ask(`SELECT ${await this.named("le_release($1, $2, $3)")}`, values);
		this.dying = undefined;
		this.notBefore = now() + pause;
	}

	/** What listens is not ours: it must not break the loop. */
	private tell<K extends keyof ElectionEvents>(event: K, ...args: ElectionEvents[K]): void {
		if (event === "error" && this.listenerCount("error") === 0) return;
		try {
			(this.emit as (event: K, ...args: ElectionEvents[K]) => boolean).call(this, event, ...args);
		} catch (error) {
			if (event !== "error") this.tell("error", error as Error);
		}
	}
}

function endOf(term: Term): number {
	return Math.min(term.deadline, term.legacyDeadline);
}

/** Is its time not over?  Without the old row, if it does not lead by that. */
function isLive(term: Term, withLegacy = true): boolean {
	return now() < (withLegacy ? endOf(term) : term.deadline);
}
