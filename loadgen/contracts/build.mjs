// Compiles the contracts of the load generator into the committed `.hex` files (creation code).
//
//     npm install solc@0.8.30 --prefix DIR && node build.mjs DIR
//
// The metadata trailer is left out, so that the same source gives the same bytes on every machine;
// the EVM version is "paris", so that the code runs on every chain since the merge.
import { createRequire } from "node:module";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const solc = createRequire(join(resolve(process.argv[2] ?? "."), "node_modules", "x.js"))("solc");
for (const name of ["LoadToken", "LoadStorage"]) {
  const file = `${name}.sol`;
  const output = JSON.parse(solc.compile(JSON.stringify({
    language: "Solidity",
    sources: { [file]: { content: readFileSync(join(here, file), "utf8") } },
    settings: {
      evmVersion: "paris",
      optimizer: { enabled: true, runs: 1000000 },
      metadata: { appendCBOR: false, bytecodeHash: "none" },
      outputSelection: { "*": { "*": ["evm.bytecode.object"] } },
    },
  })));
  for (const message of output.errors ?? []) console.error(message.formattedMessage);
  const code = output.contracts[file][name].evm.bytecode.object;
  writeFileSync(join(here, `${name}.hex`), code + "\n");
  console.log(`${name}: ${code.length / 2} bytes, solc ${solc.version()}`);
}
