// viem against a node: every transaction type that the node takes, contract calls, reads, errors, subscriptions.

import {
  BaseError,
  InsufficientFundsError,
  NonceTooLowError,
  createPublicClient,
  createWalletClient,
  defineChain,
  encodeFunctionData,
  formatEther,
  http,
  parseEther,
  parseGwei,
  webSocket,
} from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";

import { CHAIN_ID, CONTRACT, KEYS, addresses, ensure, equal, runSteps, within } from "./scenario.mjs";

const { http: url, ws: wsUrl } = addresses();
const chain = defineChain({
  id: CHAIN_ID,
  name: "development",
  nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
  rpcUrls: { default: { http: [url], webSocket: [wsUrl] } },
});
const account = privateKeyToAccount(KEYS[0]);
const options = { chain, pollingInterval: 100, cacheTime: 0 };
const reader = createPublicClient({ ...options, transport: http(url, { retryCount: 0 }) });
const batching = createPublicClient({ ...options, transport: http(url, { retryCount: 0, batch: true }) });
const wallet = createWalletClient({ ...options, account, transport: http(url, { retryCount: 0 }) });
const { abi, bytecode } = CONTRACT;
const recipient = privateKeyToAccount(generatePrivateKey()).address;
const seen = {};

async function receiptOf(hash, status = "success") {
  const receipt = await reader.waitForTransactionReceipt({ hash, timeout: 20_000 });
  equal(receipt.status, status, `status of ${hash}`);
  equal(receipt.transactionHash, hash, "transactionHash of the receipt");
  return receipt;
}

async function failureOf(promise, what) {
  try {
    await promise;
  } catch (error) {
    ensure(error instanceof BaseError, `${what}: not a viem error: ${error}`);
    return error;
  }
  throw new Error(`${what}: expected an error, got success`);
}

async function transfer(type, extra, expectedType) {
  const value = 1_000_000_007n;
  const before = await reader.getBalance({ address: recipient });
  const hash = await wallet.sendTransaction({ to: recipient, value, type, ...extra });
  const receipt = await receiptOf(hash);
  equal(receipt.type, expectedType, "type of the receipt");
  equal((await reader.getBalance({ address: recipient })) - before, value, "change of the recipient's balance");
  const tx = await reader.getTransaction({ hash });
  equal(tx.from.toLowerCase(), account.address.toLowerCase(), "from");
  equal(tx.blockHash, receipt.blockHash, "blockHash of the transaction");
  return { hash, receipt, tx };
}

const accessList = [{ address: recipient, storageKeys: [`0x${"00".repeat(31)}07`] }];

async function delegate() {
  const delegator = privateKeyToAccount(generatePrivateKey());
  const funding = await wallet.sendTransaction({ to: delegator.address, value: parseEther("1") });
  await receiptOf(funding);
  const authority = createWalletClient({ ...options, account: delegator, transport: http(url) });
  const authorization = await authority.signAuthorization({ contractAddress: seen.contract });
  const hash = await wallet.writeContract({
    address: delegator.address,
    abi,
    functionName: "increment",
    authorizationList: [authorization],
  });
  const receipt = await receiptOf(hash);
  equal(receipt.type, "eip7702", "type of the receipt");
  equal(receipt.logs.length, 1, "logs of the delegated call");
  equal(receipt.logs[0].address.toLowerCase(), delegator.address.toLowerCase(), "address of the log");
  const code = await reader.getCode({ address: delegator.address });
  equal(code.toLowerCase(), `0xef0100${seen.contract.slice(2).toLowerCase()}`, "code of the delegator");
  const tx = await reader.getTransaction({ hash });
  equal(tx.authorizationList.length, 1, "authorizations of the transaction");
}

const reads = [
  ["chain id", async () => equal(await reader.getChainId(), CHAIN_ID, "eth_chainId")],
  [
    "balance",
    async () => {
      const balance = await reader.getBalance({ address: account.address });
      ensure(balance > parseEther("9000"), `balance of the first account: ${formatEther(balance)} ETH`);
    },
  ],
  [
    "batch of reads",
    async () => {
      const calls = KEYS.map((key) => batching.getBalance({ address: privateKeyToAccount(key).address }));
      const [number, ...balances] = await Promise.all([batching.getBlockNumber(), ...calls]);
      ensure(number >= 0n && balances.every((balance) => balance > 0n), `block ${number}, balances ${balances}`);
    },
  ],
];

const transfers = [
  ["transfer eip1559", async () => Object.assign(seen, await transfer("eip1559", {}, "eip1559"))],
  ["transfer legacy", () => transfer("legacy", {}, "legacy")],
  ["transfer access list", () => transfer("eip2930", { accessList }, "eip2930")],
  [
    "nonce advances",
    async () => {
      const latest = await reader.getTransactionCount({ address: account.address });
      const pending = await reader.getTransactionCount({ address: account.address, blockTag: "pending" });
      equal(pending, latest, "pending nonce with nothing waiting");
      ensure(latest >= 3, `nonce after three transfers: ${latest}`);
    },
  ],
];

const contracts = [
  [
    "deploy",
    async () => {
      const receipt = await receiptOf(await wallet.deployContract({ abi, bytecode }));
      seen.contract = receipt.contractAddress;
      equal(await reader.getCode({ address: seen.contract }), CONTRACT.deployedBytecode, "eth_getCode");
    },
  ],
  [
    "estimate, call and events",
    async () => {
      const call = { address: seen.contract, abi, functionName: "increment", account };
      const gas = await reader.estimateContractGas(call);
      const receipt = await receiptOf(await wallet.writeContract({ ...call, gas }));
      ensure(receipt.gasUsed <= gas, `estimate ${gas} below the gas used ${receipt.gasUsed}`);
      equal(await reader.readContract({ address: seen.contract, abi, functionName: "value" }), 1n, "value()");
      const slot = await reader.getStorageAt({ address: seen.contract, slot: "0x0" });
      equal(BigInt(slot), 1n, "eth_getStorageAt 0");
      const range = { fromBlock: receipt.blockNumber, toBlock: receipt.blockNumber };
      const events = await reader.getContractEvents({ address: seen.contract, abi, eventName: "Incremented", ...range });
      equal(events.length, 1, "events");
      equal(events[0].args.sender.toLowerCase(), account.address.toLowerCase(), "sender of the event");
      equal(events[0].args.value, 1n, "value of the event");
      equal(events[0].blockHash, receipt.blockHash, "blockHash of the event");
      const other = await reader.getContractEvents({ address: recipient, abi, eventName: "Incremented", ...range });
      equal(other.length, 0, "events of an address without code");
    },
  ],
  [
    "revert reason",
    async () => {
      const call = { address: seen.contract, abi, functionName: "fail", account };
      const error = await failureOf(reader.simulateContract(call), "fail()");
      ensure(error.message.includes("counter failed"), `no reason in: ${error.message}`);
      await failureOf(reader.estimateContractGas(call), "estimate of fail()");
      await receiptOf(await wallet.writeContract({ ...call, gas: 100_000n }), "reverted");
    },
  ],
  ["set code (eip7702)", delegate],
  [
    "call with state override",
    async () => {
      const stateOverride = [
        { address: seen.contract, stateDiff: [{ slot: `0x${"00".repeat(32)}`, value: `0x${"00".repeat(31)}2a` }] },
      ];
      const call = { address: seen.contract, abi, functionName: "value", stateOverride };
      equal(await reader.readContract(call), 42n, "value() with storage 0 overridden");
    },
  ],
];

const chainReads = [
  [
    "block with transactions",
    async () => {
      const { blockHash, blockNumber, transactionIndex } = seen.receipt;
      const block = await reader.getBlock({ blockHash, includeTransactions: true });
      equal(block.number, blockNumber, "number");
      equal(block.transactions[transactionIndex].hash, seen.hash, "hash of the transaction in the block");
      const byNumber = await reader.getBlock({ blockNumber });
      equal(byNumber.hash, blockHash, "hash by number");
      equal(byNumber.transactions.length, block.transactions.length, "transactions");
      equal(await reader.getBlockTransactionCount({ blockHash }), block.transactions.length, "transaction count");
      const parent = await reader.getBlock({ blockNumber: blockNumber - 1n });
      equal(block.parentHash, parent.hash, "parentHash");
      ensure(block.timestamp > parent.timestamp, `timestamps ${parent.timestamp}, ${block.timestamp}`);
    },
  ],
  [
    "block tags",
    async () => {
      const numbers = {};
      for (const blockTag of ["earliest", "finalized", "safe", "latest", "pending"]) {
        numbers[blockTag] = (await reader.getBlock({ blockTag })).number;
      }
      const { earliest, finalized, safe, latest, pending } = numbers;
      equal(earliest, 0n, "number of earliest");
      ensure(finalized <= safe && safe <= latest, `finalized ${finalized}, safe ${safe}, latest ${latest}`);
      ensure(pending === null || pending >= latest, `pending ${pending}, latest ${latest}`);
    },
  ],
  [
    "fees",
    async () => {
      const history = await reader.getFeeHistory({ blockCount: 3, rewardPercentiles: [25, 75] });
      const count = history.gasUsedRatio.length;
      ensure(count >= 1 && count <= 3, `blocks in the fee history: ${count}`);
      equal(history.baseFeePerGas.length, count + 1, "base fees of the history");
      equal(history.reward.length, count, "rewards of the history");
      const { maxFeePerGas, maxPriorityFeePerGas } = await reader.estimateFeesPerGas();
      ensure(maxFeePerGas >= maxPriorityFeePerGas, `fees ${maxFeePerGas}, ${maxPriorityFeePerGas}`);
      ensure((await reader.getGasPrice()) > 0n, "eth_gasPrice is zero");
    },
  ],
];

const errors = [
  [
    "nonce too low",
    async () => {
      const send = wallet.sendTransaction({ to: recipient, value: 1n, nonce: 0, gas: 21_000n });
      const error = await failureOf(send, "nonce 0");
      ensure(error.walk((cause) => cause instanceof NonceTooLowError), `not NonceTooLowError: ${error.message}`);
    },
  ],
  [
    "insufficient funds",
    async () => {
      const poor = createWalletClient({
        ...options,
        account: privateKeyToAccount(generatePrivateKey()),
        transport: http(url, { retryCount: 0 }),
      });
      const fees = { gas: 21_000n, maxFeePerGas: parseGwei("10"), maxPriorityFeePerGas: 1n };
      const error = await failureOf(poor.sendTransaction({ to: recipient, value: 1n, ...fees }), "no balance");
      const expected = (cause) => cause instanceof InsufficientFundsError;
      ensure(error.walk(expected), `not InsufficientFundsError: ${error.message}`);
    },
  ],
];

async function subscriptions() {
  const client = createPublicClient({ ...options, transport: webSocket(wsUrl) });
  equal(await client.getChainId(), CHAIN_ID, "eth_chainId over WebSocket");
  const block = new Promise((resolve, reject) =>
    client.watchBlocks({ onBlock: resolve, onError: reject, emitOnBegin: false, poll: false }),
  );
  const event = new Promise((resolve, reject) =>
    client.watchContractEvent({ address: seen.contract, abi, poll: false, onLogs: resolve, onError: reject }),
  );
  const pending = new Promise((resolve, reject) =>
    client.watchPendingTransactions({ poll: false, onTransactions: resolve, onError: reject }),
  );
  // A reply to a request sent after the subscriptions shows that the node has taken them.
  await client.getBlockNumber();
  await client.getBlockNumber();
  const hash = await wallet.writeContract({ address: seen.contract, abi, functionName: "increment" });
  const receipt = await receiptOf(hash);
  const head = await within(block, "newHeads");
  ensure(head.number <= receipt.blockNumber, `first head ${head.number}, block of the call ${receipt.blockNumber}`);
  const [log] = await within(event, "logs");
  equal(log.transactionHash, hash, "transactionHash of the subscribed log");
  equal(log.eventName, "Incremented", "name of the subscribed event");
  ensure((await within(pending, "newPendingTransactions")).includes(hash), "pending hashes lack the call's");
}

/** Filters by polling, over HTTP: hashes of blocks and transactions, logs, and the end of a filter. */
async function filters() {
  const blocks = await reader.createBlockFilter();
  const placed = await reader.createPendingTransactionFilter();
  const events = await reader.createContractEventFilter({ abi, address: seen.contract, eventName: "Incremented" });
  const hash = await wallet.writeContract({ address: seen.contract, abi, functionName: "increment" });
  const receipt = await receiptOf(hash);
  const hashes = await reader.getFilterChanges({ filter: blocks });
  ensure(hashes.includes(receipt.blockHash), `the block filter lacks ${receipt.blockHash}: ${hashes}`);
  ensure((await reader.getFilterChanges({ filter: placed })).includes(hash), "the pending filter lacks the call's hash");
  const logs = await reader.getFilterChanges({ filter: events });
  equal(logs.length, 1, "logs of the filter");
  equal(logs[0].transactionHash, hash, "transactionHash of the log");
  equal(logs[0].args.sender.toLowerCase(), account.address.toLowerCase(), "sender of the event");
  equal((await reader.getFilterChanges({ filter: events })).length, 0, "logs told twice");
  const range = { fromBlock: receipt.blockNumber, toBlock: receipt.blockNumber };
  const past = await reader.createContractEventFilter({ abi, address: seen.contract, ...range });
  equal((await reader.getFilterLogs({ filter: past })).length, 1, "logs of the past");
  ensure(await reader.uninstallFilter({ filter: events }), "eth_uninstallFilter answered false");
  await failureOf(reader.getFilterChanges({ filter: events }), "a filter that is gone");
}

/** What viem does by itself on a transport without subscriptions: it makes filters and polls them. */
async function watches() {
  const event = new Promise((resolve, reject) =>
    reader.watchContractEvent({ address: seen.contract, abi, onLogs: resolve, onError: reject }),
  );
  const pending = new Promise((resolve, reject) =>
    reader.watchPendingTransactions({ onTransactions: resolve, onError: reject }),
  );
  // Both have made their filters when a poll of each has passed.
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  const hash = await wallet.writeContract({ address: seen.contract, abi, functionName: "increment" });
  equal((await within(event, "watched logs"))[0].transactionHash, hash, "transactionHash of the watched log");
  ensure((await within(pending, "watched transactions")).includes(hash), "watched hashes lack the call's");
}

async function accessLists() {
  const call = { account, to: seen.contract, data: encodeFunctionData({ abi, functionName: "increment" }) };
  const { accessList, gasUsed } = await reader.createAccessList(call);
  equal(accessList.length, 1, "accounts of the access list");
  equal(accessList[0].address.toLowerCase(), seen.contract.toLowerCase(), "account of the access list");
  equal(accessList[0].storageKeys, `0x${"00".repeat(32)}`, "slots of the access list");
  const receipt = await receiptOf(await wallet.sendTransaction({ ...call, type: "eip2930", accessList }));
  equal(receipt.gasUsed, gasUsed, "gas used with the list");
}

await runSteps("viem", [
  ...reads,
  ...transfers,
  ...contracts,
  ...chainReads,
  ...errors,
  ["subscriptions", subscriptions],
  ["filters", filters],
  ["watching by filters", watches],
  ["access lists", accessLists],
]);
