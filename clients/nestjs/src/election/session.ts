/**
 * A connection of our own, that never keeps anybody waiting for longer than was
 * said: one question at a time, and a new connection after anything went wrong.
 */
import { connect, Socket } from "node:net";
import { Client, type ClientConfig } from "pg";

export type Row = readonly (string | null)[];

/** What pg's type declarations leave out */
interface Backend {
	/** null: a pooler has told none */
	processID: number | null;
	secretKey: number | null;
	host: string;
	port: number;
}

/** Everything arrives as PostgreSQL's text: "t", "f", and bigints that lose nothing. */
const AS_TEXT = { getTypeParser: () => (text: string) => text };
const CANCEL_REQUEST = 80877102;

export class Session {
	private client: Client | undefined;
	private socket: Socket | undefined;

	/**
	 * @param config how to connect; asked at each attempt
	 * @param patience how long an answer may take, in milliseconds
	 */
	constructor(
		private readonly config: () => ClientConfig,
		private readonly patience: number,
	) {}

	/**
	 * Asks, after connecting if need be; the only row, if there is one.  On an
	 * error, and when there is no answer in time, the connection is closed.
	 *
	 * @param wait how long the server may take to begin its answer, beside the usual patience
	 * @param signal has the server cancel; then comes an error, or the answer after all
	 */
	async ask(text: string, values: unknown[], wait = 0, signal?: AbortSignal): Promise<Row | undefined> {
		try {
			const client = this.client ?? (await this.connect());

			signal?.throwIfAborted();
			const result = await this.inTime(client.query<string[]>({ text, values, rowMode: "array" }), wait, signal);

			return result.rows[0];
		} catch (error) {
			this.close();
			throw error;
		}
	}

	close(): void {
		const { client, socket } = this;

		this.client = undefined;
		this.socket = undefined;
		client?.end().catch(() => {});
		if (socket !== undefined) abandon(socket, this.patience);
	}

	private async connect(): Promise<Client> {
		const config = this.config();
		const { stream } = config as { stream?: unknown };
		const socket: Socket = typeof stream === "function" ? stream(config) : new Socket();
		// the password again, because pg hides it from being copied; what a pool
		// sets for all of its queries would end a wait, or change what arrives
		const client = new Client({
			...config,
			password: config.password,
			ssl: config.ssl,
			statement_timeout: undefined,
			query_timeout: undefined,
			binary: false,
			types: AS_TEXT,
			stream: socket,
			keepAlive: true,
			connectionTimeoutMillis: this.patience,
		} as object);

		client.on("error", () => {
			if (this.client === client) this.close();
		});
		try {
			await client.connect();
		} catch (error) {
			socket.destroy();
			throw error;
		}
		this.client = client;
		this.socket = socket;
		return client;
	}

	/** An answer, or an error if that takes too long. */
	private inTime<T>(answer: Promise<T>, wait: number, signal: AbortSignal | undefined): Promise<T> {
		return new Promise<T>((resolve, reject) => {
			const expect = (limit: number) =>
				setTimeout(() => reject(new Error(`no answer from the server within ${Math.round(limit)} ms`)), limit);
			let timer = expect(wait + this.patience);
			const hurry = () => {
				clearTimeout(timer);
				timer = expect(this.patience);
				this.cancel();
			};

			signal?.addEventListener("abort", hurry);
			answer.then(resolve, reject).finally(() => {
				clearTimeout(timer);
				signal?.removeEventListener("abort", hurry);
			});
		});
	}

	/** As libpq does it: a connection of its own, and no answer.  pg's own knows no TLS. */
	private cancel(): void {
		const { client, socket } = this;

		if (client === undefined || socket === undefined) return;
		const { processID, secretKey, host, port } = client as unknown as Backend;

		if (processID === null || secretKey === null) return;
		const request = Buffer.alloc(16);

		request.writeInt32BE(16, 0);
		request.writeInt32BE(CANCEL_REQUEST, 4);
		request.writeInt32BE(processID, 8);
		request.writeInt32BE(secretKey, 12);
		const messenger = socket.remoteAddress
			? connect(socket.remotePort as number, socket.remoteAddress)
			: connect(`${host}/.s.PGSQL.${port}`);

		messenger.on("error", () => {});
		messenger.write(request); // the server closes; PgBouncer 1.18 exits if we do
		abandon(messenger, this.patience);
	}
}

/** Of a socket that is being closed: where the host has vanished nothing will ever come. */
function abandon(socket: Socket, patience: number): void {
	socket.unref?.(); // one that the configuration has made may be any stream
	setTimeout(() => socket.destroy(), patience).unref();
}
