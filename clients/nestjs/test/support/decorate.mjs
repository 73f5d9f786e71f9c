/** Decorators, for JavaScript: as the compiler of TypeScript applies them, the last one first. */

export function onMethod(type, name, ...decorators) {
	const descriptor = Object.getOwnPropertyDescriptor(type.prototype, name);

	for (const decorator of decorators.reverse()) decorator(type.prototype, name, descriptor);
	Object.defineProperty(type.prototype, name, descriptor);
}

export function onClass(type, ...decorators) {
	for (const decorator of decorators.reverse()) decorator(type);
	return type;
}

export function onParameters(type, ...decorators) {
	for (const [index, decorator] of decorators.entries()) decorator(type, undefined, index);
}
