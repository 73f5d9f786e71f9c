/** Every default, and every refusal: before anything is asked of a server. */
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import os, { hostname } from "node:os";
import { test } from "node:test";

const { settingsOf } = createRequire(import.meta.url)("../dist/election/settings.js");

test("defaults", () => {
	const { instance, ...rest } = settingsOf({});

	assert.deepEqual(rest, {
		lease: 10000,
		renewal: 3000,
		jitter: 2000,
		lockId: "1",
		schema: undefined,
		createsExtension: false,
		waits: true,
		priority: 0,
		info: null,
		pause: 10000,
		legacySchema: undefined,
	});
	assert.ok(instance.startsWith(`${hostname().slice(0, 60)}:${process.pid}:`));
	assert.ok(instance.length <= 127);
});

test("what is null has its default, too", () => {
	const { instance, ...rest } = settingsOf({ leaseDuration: null, lockId: null, instanceId: null, info: null, schema: null, legacySchema: null });
	const { instance: other, ...defaults } = settingsOf({});

	assert.deepEqual(rest, defaults);
});

test("a short lease has a short interval and jitter, unless told otherwise", () => {
	const pick = ({ lease, renewal, jitter }) => [lease, renewal, jitter];

	assert.deepEqual(pick(settingsOf({ leaseDuration: 2000 })), [2000, 600, 400]);
	assert.deepEqual(pick(settingsOf({ leaseDuration: 60000 })), [60000, 3000, 2000]);
	assert.deepEqual(pick(settingsOf({ leaseDuration: 15000, renewalInterval: 5000 })), [15000, 5000, 2000]);
	assert.deepEqual(pick(settingsOf({ renewalInterval: 300 })), [10000, 300, 200]);
	assert.deepEqual(pick(settingsOf({ leaseDuration: 100 })), [100, 30, 20]);
});

test("two instances with one name are two", () => {
	const [one, other] = [settingsOf({ instanceId: "app" }).instance, settingsOf({ instanceId: "app" }).instance];

	assert.match(one, /^app:[0-9a-f]{12}$/);
	assert.notEqual(one, other);
});

test("locks are exact", () => {
	assert.equal(settingsOf({ lockId: 2 ** 53 - 1 }).lockId, "9007199254740991");
	assert.equal(settingsOf({ lockId: 9223372036854775807n }).lockId, "9223372036854775807");
	assert.equal(settingsOf({ lockId: "-9223372036854775808" }).lockId, "-9223372036854775808");
	assert.equal(settingsOf({ lockId: "007" }).lockId, "7");
	assert.equal(settingsOf({ lockId: -0 }).lockId, "0");
});

for (const [config, message] of [
	[{ leaseDuration: 99 }, /leaseDuration is 99, and must be an integer from 100 to 86400000/],
	[{ leaseDuration: 86_400_001 }, /leaseDuration is 86400001/],
	[{ leaseDuration: "10000" }, /leaseDuration is '10000', and must be an integer/],
	[{ leaseDuration: NaN }, /leaseDuration is NaN/],
	[{ renewalInterval: 0 }, /renewalInterval is 0/],
	[{ renewalInterval: 1.5 }, /renewalInterval is 1.5/],
	[{ jitterRange: -1 }, /jitterRange is -1/],
	[{ leaseDuration: 5000, renewalInterval: 3000, jitterRange: 2000 }, /renewalInterval 3000 plus jitterRange 2000 is not below leaseDuration 5000/],
	[{ renewalInterval: 10000, jitterRange: 0 }, /renewalInterval 10000 plus jitterRange 0 is not below leaseDuration 10000/],
	[{ renewalInterval: 1000, jitterRange: 1001 }, /jitterRange 1001 is larger than renewalInterval 1000/],
	[{ lockId: 1.5 }, /lockId is 1.5/],
	[{ lockId: 2 ** 53 }, /lockId is 9007199254740992/],
	[{ lockId: "9223372036854775808" }, /lockId is '9223372036854775808'/],
	[{ lockId: -9223372036854775809n }, /lockId is -9223372036854775809n/],
	[{ lockId: "orders" }, /lockId is 'orders'/],
	[{ lockId: "" }, /lockId is ''/],
	[{ instanceId: "" }, /instanceId is ''/],
	[{ instanceId: "x".repeat(101) }, /instanceId is 'x+', and must be a string of 1 to 100 bytes/],
	[{ instanceId: "\0" }, /instanceId/],
	[{ instanceId: 7 }, /instanceId is 7/],
	[{ schema: "" }, /schema is ''/],
	[{ schema: "x".repeat(64) }, /schema is 'x+', and must be a string of 1 to 63 bytes/],
	[{ createTableOnInit: "no" }, /createTableOnInit is 'no', and must be true or false/],
	[{ priority: 10 }, /priority is 10, and must be an integer from 0 to 9/],
	[{ info: "ä".repeat(257) }, /info is 'ä+', and must be a string of 1 to 512 bytes/],
	[{ pauseAfterRelease: -1 }, /pauseAfterRelease is -1/],
	[{ legacySchema: "" }, /legacySchema is ''/],
	[{ legacySchema: "public", leaseDuration: 60000, renewalInterval: 14000, jitterRange: 1000 }, /renewalInterval 14000 plus jitterRange 1000 is not below 15000/],
	[{ legacySchema: "public", lockId: 2 ** 31 }, /lockId is 2147483648, and with legacySchema/],
])
	test(`refused: ${String(message).slice(1, 60)}`, () => {
		assert.throws(() => settingsOf(config), (error) => error instanceof RangeError && message.test(error.message));
	});

test("the clock counts a suspend, in which Node's own stands still", (t) => {
	const { now } = createRequire(import.meta.url)("../dist/election/clock.js");
	const { uptime } = os;

	t.after(() => (os.uptime = uptime));
	const before = now();

	os.uptime = () => uptime() + 50;
	const after = now();

	assert.ok(after - before > 49_900 && after - before < 51_000, `${after - before} ms`);
	os.uptime = uptime; // never back
	assert.ok(now() >= after);
});

test("what is given up at start, and what is tried again", () => {
	const { isHopeless } = createRequire(import.meta.url)("../dist/election/errors.js");

	// a server without the extension's files, a right, a function, a schema
	for (const code of ["0A000", "42501", "42883", "3F000"]) assert.ok(isHopeless({ code }), code);
	for (const code of ["57P03", "53300", "08006", "25006", "ECONNREFUSED", undefined]) assert.ok(!isHopeless({ code }), code);
});
