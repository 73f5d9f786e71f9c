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
import { isHopeless, SetupError } from "./errors";
import type { ElectionEvents } from "./events";
import type { LegacyLock } from "./legacy";
import { quoted } from "./names";
import type { Session } from "./session";
import type { Settings } from "./settings";
import { Term, type LeaderTerm } from "./term";

/** SQLSTATE query_canceled */
const CANCELED = "57014";
/** How long a commit takes, most of the time */
const COMMIT = 100;
const WAIT_MAX = 30_000;
const RETRY_MIN = 50;
const RETRY_MAX = 1000;
const TIMER_MAX = 2 ** 31 - 1;

/** How long an answer may take.  With a lease of 1.5 s or more there is time for another attempt. */
export function patienceOf(settings: Settings): number {
	return Math.min(Math.max(settings.lease / 3, 500), 5000);
}

export class Election extends EventEmitter<ElectionEvents> {
	/** where the extension is, as SQL writes it; undefined: the server has not been reached yet */
	schema: string | undefined;
	/** when the server has begun not to answer; undefined: it does */
	failsSince: number | undefined;

	private term: Term | undefined;
	/** its end has been asked for, and nobody has answered */
	private dying: Term | undefined;
	private notBefore = 0;
	private started: Promise<void> | undefined;
	private running: Promise<void> | undefined;
	private readonly stopping = new AbortController();
	private wake: () => void = () => {};
	private hasAnswered = false;
	private isSchemaSure = false;
	private waitMax = WAIT_MAX;
	/** events, the first of which is being told */
	private readonly toTell: (() => void)[] = [];

	constructor(
		private readonly settings: Settings,
		private readonly session: Session,
		private readonly legacy: LegacyLock | undefined,
	) {
		super();
		this.setMaxListeners(0);
	}

	// ---- For everybody ----

	/**
	 * Begins.  Done when the server has answered, or could not be reached; rejects if
	 * that would help nothing, as where the extension is missing.  Goes on trying in any case.
	 */
	start(): Promise<void> {
		this.started ??= new Promise((resolve, reject) => {
			this.running = this.run(resolve, reject);
		});
		return this.started;
	}

	/** The term in which we lead just now */
	current(): LeaderTerm | undefined {
		return this.term?.leads ? this.term.face : undefined;
	}

	/** For how many milliseconds to ask the server has failed; 0: it answers, undefined: it never has */
	silence(): number | undefined {
		if (!this.hasAnswered) return undefined;
		return this.failsSince === undefined ? 0 : now() - this.failsSince;
	}

	/**
	 * Runs this while we lead; undefined at once if we do not.  A term that is
	 * given back is kept until it is done, for one lease at most.
	 */
	async whileLeader<T>(work: (term: LeaderTerm) => T | Promise<T>): Promise<T | undefined> {
		const { term } = this;

		if (!term?.leads) return undefined;
		const done = (async () => work(term.face))();

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
		const term = this.term ?? this.dying;

		if (term === undefined) return;
		this.endTerm(term, "released");
		await term.over;
	}

	/** The same, and asks no more. */
	async stop(): Promise<void> {
		this.stopping.abort(new Error("stopped"));
		if (this.term !== undefined) this.endTerm(this.term, "stopped");
		this.wake();
		await this.running;
	}

	// ---- The loop ----

	private async run(answered: () => void, failed: (error: Error) => void): Promise<void> {
		while (!this.isOver()) {
			try {
				await this.turn();
				answered();
			} catch (error) {
				if (this.isOver()) break; // it was us who cancelled
				if (this.isCancelled(error)) {
					await this.sleep(RETRY_MIN); // it has come late, and met what came next
					continue;
				}
				this.failsSince ??= now();
				this.isSchemaSure = false;
				this.tell("error", error as Error);
				if (isHopeless(error)) failed(error as Error);
				else answered();
				await this.sleep(Math.min(Math.max(this.settings.renewal, RETRY_MIN), RETRY_MAX) * (0.5 + Math.random() / 2));
			}
		}
		if (this.dying !== undefined) this.forget(this.dying);
		this.session.close();
		answered();
	}

	/** Because we have had the server cancel our wait? */
	private isCancelled(error: unknown): boolean {
		return this.stopping.signal.aborted && (error as { code?: unknown }).code === CANCELED;
	}

	private isOver(): boolean {
		const { dying } = this;

		return (
			this.stopping.signal.aborted &&
			this.term === undefined &&
			(dying === undefined || now() >= (dying.endBy as number))
		);
	}

	private async turn(): Promise<void> {
		const { term, dying } = this;

		if (dying !== undefined && dying.works.size > 0 && now() < dying.heldUntil) return this.sleep(dying.heldUntil - now());
		if (dying !== undefined) return this.finish(dying);
		if (term === undefined) return now() < this.notBefore ? this.sleep(this.notBefore - now()) : this.campaign();
		if (now() >= term.end) return this.expire(term);
		if (term.endBy !== undefined && term.works.size === 0) return this.bury(term);
		if (term.endBy !== undefined && now() >= term.endBy) return this.abandon(term);
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

	/** It has answered what counts: to look for the extension does not. */
	private heard(): void {
		this.hasAnswered = true;
		this.failsSince = undefined;
	}

	// ---- Where the extension is ----

	/** A function of the extension's, with its schema */
	private async named(call: string): Promise<string> {
		if (!this.isSchemaSure) {
			if (!(await this.findSchema()) && this.settings.createsExtension) await this.createExtension();
			if (this.schema === undefined)
				throw new SetupError("this database has no extension leader_election: CREATE EXTENSION leader_election");
			// before the lease: whoever cannot write the row must not keep it from those who can
			await this.legacy?.check(this.session);
			this.isSchemaSure = true;
		}
		return `${this.schema}.${call}`;
	}

	/** @returns false: there is none */
	private async findSchema(): Promise<boolean> {
		const row = await this.session.ask(
			`SELECT pg_catalog.quote_ident(n.nspname), n.nspname,
			        (SELECT pg_catalog.min(s.setting::pg_catalog.int8) FROM pg_catalog.pg_settings s
			          WHERE s.name OPERATOR(pg_catalog.=) ANY ('{statement_timeout,transaction_timeout}')
			            AND s.setting OPERATOR(pg_catalog.<>) '0')
			   FROM pg_catalog.pg_namespace n, pg_catalog.pg_extension e
			  WHERE e.extnamespace OPERATOR(pg_catalog.=) n.oid AND e.extname OPERATOR(pg_catalog.=) 'leader_election'`,
			[],
		);

		this.schema = undefined;
		if (row === undefined) return false;
		const [found, plain, timeout] = row as [string, string, string | null];
		const { schema } = this.settings;

		if (schema !== undefined && schema !== plain)
			throw new SetupError(`the extension leader_election is in schema ${found}, and not in ${quoted(schema)}`);
		this.schema = found;
		// a role may have one, which would end our waits
		this.waitMax = timeout === null ? WAIT_MAX : Math.min(WAIT_MAX, Number(timeout) / 2);
		return true;
	}

	private async createExtension(): Promise<void> {
		const { schema } = this.settings;

		const where = schema === undefined ? "" : ` SCHEMA ${quoted(schema)}`;

		try {
			if (schema !== undefined) await this.session.ask(`CREATE SCHEMA IF NOT EXISTS ${quoted(schema)}`, []);
			await this.session.ask(`CREATE EXTENSION IF NOT EXISTS leader_election${where}`, []);
			await this.findSchema();
		} catch (error) {
			// another may have been just before us
			if (!(await this.findSchema())) throw error;
		}
	}

	// ---- Terms ----

	private async campaign(): Promise<void> {
		const { lockId, instance, lease, renewal, info, priority, waits } = this.settings;
		const answers = this.hasAnswered && this.failsSince === undefined;
		const call = await this.named("le_campaign($1, $2, $3, $4, $5, $6)");
		// an answer at once to who starts us, or has met silence; then wait for as long
		// as a lease, because a tenth of the wait is missing from it
		const wait = waits && answers ? Math.floor(Math.min(lease, this.waitMax)) : 0;
		const sent = now();
		const values = [lockId, instance, lease, wait, info, priority];
		const row = await this.session
			.ask(`SELECT elected, token, valid_for_ms, remaining_ms FROM ${call}`, values, wait, this.stopping.signal)
			.catch((error) => this.giveUp(error));

		this.heard();
		if (row?.[0] === "t") return this.begin(BigInt(row[1] as string), sent + Number(row[2]));
		// not all at the same time, and soon after the end that the server knows
		if (!waits)
			this.notBefore = now() + Math.max(Math.min(Number(row?.[3]), renewal * (0.75 + Math.random() / 4)), RETRY_MIN);
	}

	/**
	 * We have had the server cancel, and may have been handed the lead nevertheless,
	 * by a transaction that has been before it, or is on the way to its commit.
	 */
	private async giveUp(error: unknown): Promise<never> {
		const { lockId, instance } = this.settings;
		const release = async () =>
			(await this.session.ask(`SELECT ${await this.named("le_release($1, $2)")}`, [lockId, instance]))?.[0] === "t";

		if (this.isCancelled(error) && !(await release())) {
			await this.sleep(COMMIT);
			await release();
		}
		throw error;
	}

	private begin(token: bigint, deadline: number): void {
		const legacyDeadline = this.legacy === undefined ? Infinity : 0;
		const term: Term = new Term(token, this.settings.instance, deadline, legacyDeadline, () => this.expire(term));

		this.term = term;
		this.watch(term);
		// we were frozen, or have been told to stop: there is only its end to be had
		if (now() >= deadline || this.stopping.signal.aborted) this.bury(term);
		else if (this.legacy === undefined) this.announce(term);
	}

	private async beat(term: Term): Promise<void> {
		const { lockId, instance, renewal, jitter } = this.settings;
		const call = await this.named("le_keep_alive($1, $2, $3)");
		const sent = now();
		const row = await this.session.ask(`SELECT leads, valid_for_ms, resign_requested FROM ${call}`, [
			lockId,
			instance,
			term.token,
		]);

		if (this.term !== term || now() >= term.deadline) return; // an answer after the deadline is void
		if (row?.[0] !== "t") return this.depose(term, "the server says that it does not lead");
		term.deadline = sent + Number(row[1]);
		if (this.legacy !== undefined) await this.beatLegacy(term, this.legacy);
		this.heard();
		// not before: what has failed is to be repeated soon
		term.nextBeat = sent + renewal + jitter * (2 * Math.random() - 1);
		this.watch(term);
		if (row[2] === "t") this.endTerm(term, "an operator has asked it to resign");
	}

	/** Nobody leads by our lease alone while the old library's instances go by their row. */
	private async beatLegacy(term: Term, legacy: LegacyLock): Promise<void> {
		const deadline = await legacy.hold(this.session);

		if (this.term !== term || now() >= term.end) return;
		if (deadline !== undefined) {
			term.legacyDeadline = deadline;
			this.announce(term);
		} else if (term.isAnnounced) {
			this.bury(term);
			this.retire(term, "another instance has the row of nest-leader-election");
		}
	}

	private announce(term: Term): void {
		if (term.isAnnounced || term.endBy !== undefined || now() >= Math.min(term.deadline, term.legacyDeadline)) return;
		term.isAnnounced = true;
		this.tell("elected", term.face);
	}

	/** At the deadline it is over, whatever the loop waits for. */
	private watch(term: Term): void {
		clearTimeout(term.timer);
		term.timer = setTimeout(
			() => {
				if (now() < term.end) this.watch(term);
				else this.expire(term);
			},
			Math.min(Math.max(term.end - now(), 0), TIMER_MAX),
		);
	}

	/**
	 * It is over by our clock.  By the server's it may be live for a while, or become so
	 * again if nobody else comes; it is given back, so that a token means one term.
	 */
	private expire(term: Term): void {
		term.settle();
		if (this.term !== term) return;
		this.bury(term);
		// its works have only now been told: the server keeps the others out for as long
		term.heldUntil = term.end + this.settings.lease / 10;
		this.retire(term, "the lease has run out");
	}

	/** It is over, and need not be given back. */
	private depose(term: Term, reason: string): void {
		if (this.term !== term) return;
		this.term = undefined;
		this.retire(term, reason);
		this.forget(term);
	}

	/** Its works are to end, then it is released. */
	private endTerm(term: Term, reason: string): void {
		if (term.endBy !== undefined) return;
		term.endBy = now() + this.settings.lease;
		term.rest = this.settings.pause;
		this.retire(term, reason);
		this.wake();
	}

	private retire(term: Term, reason: string): void {
		if (term.isRetired) return;
		term.retire(reason);
		if (term.isAnnounced) this.tell("deposed", term.face, reason);
	}

	/** Its works do not end: the lease is to run out, and not to be taken up again before. */
	private abandon(term: Term): void {
		this.notBefore = now() + Math.max(2 * this.settings.lease, this.settings.pause);
		this.depose(term, "its work has not ended");
	}

	/** Nothing may go on in it: from here on it is dead, whatever becomes of the question. */
	private bury(term: Term): void {
		term.endBy = now() + patienceOf(this.settings);
		this.term = undefined;
		this.dying = term;
		this.wake();
	}

	private async finish(term: Term): Promise<void> {
		const { lockId, instance } = this.settings;
		const values = [lockId, instance, term.token];

		await this.legacy?.release(this.session);
		// to the first that waits, so that there is always a leader
		const row = await this.session.ask(`SELECT ${await this.named("le_transfer($1, $2, $3)")}`, values);

		if (row?.[0] !== "t") await this.session.ask(`SELECT ${await this.named("le_release($1, $2, $3)")}`, values);
		this.heard();
		this.dying = undefined;
		this.notBefore = now() + term.rest;
		this.forget(term);
	}

	private forget(term: Term): void {
		clearTimeout(term.timer);
		term.settle();
		this.wake();
	}

	// ---- Those who listen ----

	/** One event after the other, also where a listener causes the next. */
	private tell<K extends keyof ElectionEvents>(event: K, ...args: ElectionEvents[K]): void {
		this.toTell.push(() => this.deliver(event, ...args));
		if (this.toTell.length > 1) return;
		for (; this.toTell.length > 0; this.toTell.shift()) this.toTell[0]?.();
	}

	/** They are not ours: none must break the loop, or another. */
	private deliver<K extends keyof ElectionEvents>(event: K, ...args: ElectionEvents[K]): void {
		const report = (error: unknown) => {
			if (event !== "error") this.tell("error", error as Error);
		};

		for (const listener of this.rawListeners(event) as ((...args: ElectionEvents[K]) => unknown)[])
			try {
				Promise.resolve(listener.apply(this, args)).catch(report);
			} catch (error) {
				report(error);
			}
	}
}
