/**
 * Milliseconds by a clock that goes on while the machine sleeps, and that nobody
 * sets: a lease runs on there, too.
 *
 * Node has none.  performance.now() stands still in a suspend; os.uptime() does
 * not, but has steps of 10 ms (on Linux), which a suspend may be counted short by.
 */
import { uptime } from "node:os";

const began = performance.now() - 1000 * uptime();
let slept = 0;

export function now(): number {
	const awake = performance.now();

	slept = Math.max(slept, began + 1000 * uptime() - awake);
	return awake + slept;
}
