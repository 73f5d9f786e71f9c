// An ES module that hands on what the CommonJS one exports: so there is one
// module, however it is imported, and decorators and services find each other.
const fs = require("node:fs");

const names = Object.keys(require("./dist/index.js")).filter((name) => name !== "__esModule");
fs.writeFileSync(
	"dist/index.mjs",
	`import whole from "./index.js";\n\nexport const {\n${names.map((name) => `\t${name},\n`).join("")}} = whole;\n`,
);
fs.writeFileSync("dist/index.d.mts", 'export * from "./index.js";\n');
