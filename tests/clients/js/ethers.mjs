// ethers against a node: transfers, contracts, reads, decoded errors and WebSocket subscriptions.

import { Contract, ContractFactory, JsonRpcProvider, Wallet, WebSocketProvider, isError, parseEther } from "ethers";

import { CHAIN_ID, CONTRACT, KEYS, addresses, ensure, equal, runSteps, within } from "./scenario.mjs";

const { http: url, ws: wsUrl } = addresses();
const provider = new JsonRpcProvider(url, undefined, { polling: true, pollingInterval: 100, cacheTimeout: -1 });
const wallet = new Wallet(KEYS[0], provider);
const recipient = Wallet.createRandom().address;
const seen = {};

async function mined(response, status = 1) {
  const receipt = await response.wait(1, 20_000);
  equal(receipt.status, status, `status of ${response.hash}`);
  return receipt;
}

async function failureOf(promise, code, what) {
  try {
    await promise;
  } catch (error) {
    ensure(isError(error, code), `${what}: expected ${code}, got ${error.code}: ${error.message}`);
    return error;
  }
  throw new Error(`${what}: expected ${code}, got success`);
}

async function transfer(request, type) {
  const value = 1_000_000_009n;
  const before = await provider.getBalance(recipient);
  const response = await wallet.sendTransaction({ to: recipient, value, ...request });
  const receipt = await mined(response);
  equal(receipt.type, type, "type of the receipt");
  equal(receipt.gasUsed <= 30_000n, true, "gas used by a transfer is small");
  equal((await provider.getBalance(recipient)) - before, value, "change of the recipient's balance");
  const tx = await provider.getTransaction(response.hash);
  equal(tx.blockNumber, receipt.blockNumber, "blockNumber of the transaction");
  return receipt;
}

async function fixedPrice() {
  const { gasPrice } = await provider.getFeeData();
  return { gasPrice: gasPrice * 2n };
}

const accessList = [{ address: recipient, storageKeys: [`0x${"00".repeat(31)}09`] }];

const transfers = [
  ["chain id", async () => equal((await provider.getNetwork()).chainId, CHAIN_ID, "chainId")],
  ["balance", async () => ensure((await provider.getBalance(wallet.address)) > parseEther("9000"), "balance")],
  ["transfer eip1559", async () => (seen.receipt = await transfer({ type: 2 }, 2))],
  ["transfer legacy", async () => transfer({ type: 0, ...(await fixedPrice()) }, 0)],
  ["transfer access list", async () => transfer({ type: 1, accessList, ...(await fixedPrice()) }, 1)],
];

const contracts = [
  [
    "deploy",
    async () => {
      const factory = new ContractFactory(CONTRACT.abi, CONTRACT.bytecode, wallet);
      const contract = await factory.deploy();
      await within(contract.waitForDeployment(), "deployment");
      seen.contract = new Contract(await contract.getAddress(), CONTRACT.abi, wallet);
      equal(await provider.getCode(seen.contract.target), CONTRACT.deployedBytecode, "eth_getCode");
    },
  ],
  [
    "estimate, call and events",
    async () => {
      const gas = await seen.contract.increment.estimateGas();
      const receipt = await mined(await seen.contract.increment());
      ensure(receipt.gasUsed <= gas, `estimate ${gas} below the gas used ${receipt.gasUsed}`);
      equal(await seen.contract.value(), 1n, "value()");
      const events = await seen.contract.queryFilter("Incremented", receipt.blockNumber, receipt.blockNumber);
      equal(events.length, 1, "events");
      equal(events[0].args.sender, wallet.address, "sender of the event");
      equal(events[0].args.value, 1n, "value of the event");
      equal(events[0].transactionHash, receipt.hash, "transactionHash of the event");
    },
  ],
  [
    "revert reason",
    async () => {
      const error = await failureOf(seen.contract.fail.staticCall(), "CALL_EXCEPTION", "fail()");
      equal(error.reason, "counter failed", "reason");
      const response = await seen.contract.fail({ gasLimit: 100_000n });
      await failureOf(response.wait(1, 20_000), "CALL_EXCEPTION", "receipt of fail()");
    },
  ],
];

const reads = [
  [
    "block with transactions",
    async () => {
      const block = await provider.getBlock(seen.receipt.blockNumber, true);
      equal(block.hash, seen.receipt.blockHash, "hash");
      const tx = block.prefetchedTransactions[seen.receipt.index];
      equal(tx.hash, seen.receipt.hash, "hash of the transaction in the block");
      equal(tx.from, wallet.address, "sender of the transaction in the block");
    },
  ],
  [
    "block tags",
    async () => {
      const tags = ["earliest", "finalized", "safe", "latest"];
      const blocks = await Promise.all(tags.map((tag) => provider.getBlock(tag)));
      const numbers = blocks.map((block) => block.number);
      ensure(numbers.every((number, i) => i === 0 || number >= numbers[i - 1]), `${tags}: ${numbers}`);
    },
  ],
  [
    "fees",
    async () => {
      const fees = await provider.getFeeData();
      ensure(fees.maxFeePerGas > 0n && fees.gasPrice > 0n, `fees ${fees.maxFeePerGas}, ${fees.gasPrice}`);
    },
  ],
];

const errors = [
  [
    "nonce too low",
    () => failureOf(wallet.sendTransaction({ to: recipient, nonce: 0, gasLimit: 21_000n }), "NONCE_EXPIRED", "nonce 0"),
  ],
  [
    "insufficient funds",
    () => {
      const poor = Wallet.createRandom().connect(provider);
      const send = poor.sendTransaction({ to: recipient, value: parseEther("1"), gasLimit: 21_000n });
      return failureOf(send, "INSUFFICIENT_FUNDS", "no balance");
    },
  ],
];

async function subscriptions() {
  const socket = new WebSocketProvider(wsUrl);
  equal((await socket.getNetwork()).chainId, CHAIN_ID, "chainId over WebSocket");
  const head = new Promise((resolve) => socket.on("block", resolve));
  const watched = seen.contract.connect(socket);
  const event = new Promise((resolve) => watched.on("Incremented", (sender, value, { log }) => resolve({ value, log })));
  await socket.getBlockNumber();
  await socket.getBlockNumber();
  const receipt = await mined(await seen.contract.increment());
  ensure((await within(head, "newHeads")) <= receipt.blockNumber, "the first head is later than the call's block");
  const { value, log } = await within(event, "logs");
  equal(log.transactionHash, receipt.hash, "transactionHash of the subscribed event");
  equal(value, await seen.contract.value(), "value of the subscribed event");
}

/** Without `polling` ethers makes filters of its own and polls those. */
async function filters() {
  const quiet = new JsonRpcProvider(url, undefined, { pollingInterval: 100, cacheTimeout: -1 });
  const watched = seen.contract.connect(quiet);
  const event = new Promise((resolve) => watched.on("Incremented", (sender, value, { log }) => resolve({ value, log })));
  const pending = new Set();
  quiet.on("pending", (hash) => pending.add(hash));
  // Both have made their filters when a poll of each has passed.
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  const receipt = await mined(await seen.contract.increment());
  const { value, log } = await within(event, "an event by a filter");
  equal(log.transactionHash, receipt.hash, "transactionHash of the event");
  equal(value, await seen.contract.value(), "value of the event");
  while (!pending.has(receipt.hash)) await new Promise((resolve) => setTimeout(resolve, 50));
  quiet.destroy();
}

await runSteps("ethers", [...transfers, ...contracts, ...reads, ...errors, ["subscriptions", subscriptions], ["filters", filters]]);
