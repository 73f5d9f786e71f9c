/**
 * A connection of our own, that never keeps anybody waiting for longer than was
 * said: one question at a time, and a new connection after anything went wrong.
 */
import type { EventEmitter } from "node:events";
import { Socket } from "node:net";
import type { Client, ClientConfig } from "pg";

/** What of pg is needed; a driver's own copy of it is taken. */
export interface Driver {
	Client: new (config: ClientConfig) => Client;
	Query: new (config: object, values: undefined, callback: (error: Error | null, result: Result) => void) => object;
}

export type Row = readonly (string | null)[];

interface Result {
	rows: Row[];
}

/** Everything arrives as PostgreSQL's text: "t", "f", and bigints that lose nothing. */
const AS_TEXT = { getTypeParser: () => (text: string) => text };

export class Session {
	private client: Client | undefined;
	private socket: Socket | undefined;
	private query: object | undefined;

	/**
	 * @param driver what to connect with; asked at each attempt
	 * @param patience how long an answer may take, in milliseconds
	 */
	constructor(
		private readonly driver: () => { driver: Driver; config: ClientConfig },
		private readonly patience: number,
	) {}

	/**
	 * Asks, after connecting if need be; the only row, if there is one.  On an
	 * error, and when there is no answer in time, the connection is closed.
	 *
	 * @param wait how long the server may take to begin its answer, beside the usual patience
	 */
	async ask(text: string, values: unknown[], wait = 0): Promise<Row | undefined> {
		try {
			const client = this.client ?? (await this.connect());

			return await inTime(this.send(client, text, values), wait + this.patience);
		} catch (error) {
			this.close();
			throw error;
		}
	}

	/** Is somebody waiting for an answer? */
	get isAsking(): boolean {
		return this.query !== undefined;
	}

	/** Has the server cancel what it does for us; ask() gets the error then, or the answer after all. */
	cancel(): void {
		if (this.client === undefined || this.query === undefined) return;
		const { driver, config } = this.driver();
		const messenger = new driver.Client(config) as Client & {
			cancel(client: Client, query: object): void;
			connection: EventEmitter;
		};

		messenger.connection.on("error", () => {});
		messenger.cancel(this.client, this.query);
	}

	close(): void {
		this.client?.end().catch(() => {});
		this.client = undefined;
		this.query = undefined;
		// where the host has vanished nothing will ever come
		this.socket?.unref();
		this.socket = undefined;
	}

	private async connect(): Promise<Client> {
		const { driver, config } = this.driver();
		const socket = new Socket();
		const client = new driver.Client({
			...config,
			types: AS_TEXT,
			stream: socket,
			keepAlive: true,
			connectionTimeoutMillis: this.patience,
		} as object);

		client.on("error", () => {
			if (this.client === client) this.close();
		});
		await client.connect();
		this.client = client;
		this.socket = socket;
		return client;
	}

	private send(client: Client, text: string, values: unknown[]): Promise<Row | undefined> {
		return new Promise((resolve, reject) => {
			const { driver } = this.driver();
			const query = new driver.Query({ text, values, rowMode: "array" }, undefined, (error, result) => {
				if (this.query === query) this.query = undefined;
				if (error) reject(error);
				else resolve(result.rows[0]);
			});

			this.query = query;
			client.query(query as never);
		});
	}
}

/** A promise's outcome, or an error if that takes too long. */
function inTime<T>(promise: Promise<T>, limit: number): Promise<T> {
	return new Promise((resolve, reject) => {
		const timer = setTimeout(() => reject(new Error(`no answer from the server within ${limit} ms`)), limit);

		promise.then(resolve, reject).finally(() => clearTimeout(timer));
	});
}
