// What the client scripts share: where the node is, the development accounts, the contract, and how a step reports.

import { readFileSync } from "node:fs";

export const CHAIN_ID = 61972;

/** Accounts 0 to 2 of the well-known mnemonic "test test ... junk"; each has 10,000 ETH in the dev genesis. */
export const KEYS = [
  "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
  "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
  "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
];

export const CONTRACT = JSON.parse(readFileSync(new URL("../contract.json", import.meta.url), "utf8"));

/** The node's addresses: `script.mjs http://host:port [ws://host:port]`; without the second, the first with ws. */
export function addresses() {
  const http = process.argv[2] ?? process.env.SEQUENCER_URL ?? "http://127.0.0.1:6197";
  const ws = process.argv[3] ?? process.env.SEQUENCER_WS_URL ?? http.replace(/^http/, "ws");
  return { http, ws };
}

/** Fails with both values unless `actual` equals `expected`; bigint, number and string compare by their text. */
export function equal(actual, expected, what) {
  if (String(actual) !== String(expected)) throw new Error(`${what}: expected ${expected}, got ${actual}`);
}

export function ensure(condition, what) {
  if (!condition) throw new Error(what);
}

/** Resolves with `promise`, or fails when it takes longer than a step may. */
export function within(promise, what, limitMs = 20_000) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing within ${limitMs} ms`)), limitMs);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Runs `[name, function]` steps in order, prints `ok <client> <name>` for each, and exits 1 at the first failure. */
export async function runSteps(client, steps) {
  for (const [name, step] of steps) {
    try {
      await within(step(), name, 60_000);
      console.log(`ok ${client} ${name}`);
    } catch (error) {
      console.error(`FAILED ${client} ${name}: ${error?.stack ?? error}`);
      process.exit(1);
    }
  }
  console.log(`done ${client}: ${steps.length} steps`);
  process.exit(0);
}
