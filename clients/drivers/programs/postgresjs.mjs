@@ javascript
@@ postgres.js

const db = connection();
const gate = postgres({ max: 1 });

// the page's message; if it is to stop before COMMIT, with a statement at its end that waits for us
async function runGuarded(token, _, sql, pause) {
	if (pause === null)
		return guarded(db, token, sql);
	await gate`SELECT pg_advisory_lock(1)`;
	let ended = false;
	const done = guarded(db, token, `${sql}; SELECT pg_advisory_xact_lock(1)`).finally(() => { ended = true; });
	done.catch(() => {});
	const waits = () => gate`SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`;
	while (!ended && (await waits()).length === 0);
	if (!ended)
		await pause();
	await gate`SELECT pg_advisory_unlock(1)`.catch(() => {});
	return done;
}
const execute = null;

@@ file main.mjs
