// The end of each program in JavaScript: runGuarded(), execute() and sqlstate() are above.
import { createInterface } from 'node:readline';

// what drivers print (notices, lost connections) is no answer
console.log = console.error;
const say = (answer) => process.stdout.write(`${answer}\n`);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const line = async () => (await lines.next()).value;

async function answer(command, sql) {
	if (command === 'me')
		return me;
	if (command === 'token')
		return leads() ?? 'none';
	if (command === 'false')
		return no;
	try {
		const pause = async () => {
			say('open');
			await line();
		};
		await runGuarded(leads(), async (handle) => {
			await execute(handle, sql);
			if (command === 'open')
				await pause();
		}, sql, command === 'open' ? pause : null);
		return 'done';
	} catch (error) {
		console.error(error);
		return `error ${sqlstate(error)}`;
	}
}

// before the election begins, whose connection it is
const no = (await ask("SELECT le_is_leader(1, 'nobody') AS leads", [], 3000)).leads ? 'yes' : 'no';
const loop = elect();
for (let text = await line(); text !== 'stop'; text = await line()) {
	const [command, ...sql] = text.split(' ');
	say(await answer(command, sql.join(' ')));
}
stop();
await loop;
process.exit(0);
