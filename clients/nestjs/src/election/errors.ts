/** What no repetition mends: somebody has to change a configuration, or the database. */
export class SetupError extends Error {
	override readonly name = "SetupError";
}

/** Is the server, or this package, right to refuse this for ever? */
export function isHopeless(error: unknown): boolean {
	// of SQLSTATE: a server without the extension's files, data, name of a schema, syntax, privilege, undefined function
	return error instanceof SetupError || /^(0A|22|3F|42)/.test(String((error as { code?: unknown }).code));
}

/** A line for the log.  That of Node's for several refused addresses is empty. */
export function messageOf(error: Error): string {
	return error.message || String((error as { code?: unknown }).code ?? error);
}
