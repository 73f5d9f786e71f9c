/** A name as SQL writes it */
export function quoted(name: string): string {
	return `"${name.replaceAll('"', '""')}"`;
}
