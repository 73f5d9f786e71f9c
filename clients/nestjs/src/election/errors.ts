/** What no repetition mends: somebody has to change a configuration, or the database. */
export class SetupError extends Error {
	override readonly name = "SetupError";
}

/** Is the server, or this package, right to refuse this for ever? */
export function isHopeless(error: unknown): boolean {
	// of SQLSTATE: data, name of a schema, syntax, privilege, or undefined function
	return error instanceof SetupError || /^(22|3F|42)/.test(String((error as { code?: unknown }).code));
}

/** A line for the log.  That of Node's for several refused addresses is empty. */
export function messageOf(error: Error): string {
	return error.message || String((error as { code?: unknown }).code ?? error);
}
