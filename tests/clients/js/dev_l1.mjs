// viem and ethers against the development L1: transfers, a contract, its logs, fees, heads.

import { JsonRpcProvider, Wallet, parseEther as ethersEther } from "ethers";
import { createPublicClient, createWalletClient, defineChain, http, parseEther, webSocket } from "viem";
import { privateKeyToAccount } from "viem/accounts";

import { CONTRACT, KEYS, addresses, ensure, equal, within } from "./scenario.mjs";

const { http: url, ws: wsUrl } = addresses();
const chain = defineChain({
  id: 61971,
  name: "development L1",
  nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
  rpcUrls: { default: { http: [url], webSocket: [wsUrl] } },
});
const options = { chain, pollingInterval: 100, cacheTime: 0 };
const reader = createPublicClient({ ...options, transport: http(url, { retryCount: 0 }) });
const wallet = createWalletClient({
  ...options,
  account: privateKeyToAccount(KEYS[0]),
  transport: http(url, { retryCount: 0 }),
});

equal(await reader.getChainId(), 61971, "chain id");
const to = "0x00000000000000000000000000000000000077aa";
for (const type of ["legacy", "eip2930", "eip1559"]) {
  const hash = await wallet.sendTransaction({ to, value: parseEther("1"), type });
  const receipt = await reader.waitForTransactionReceipt({ hash, timeout: 20_000 });
  equal(receipt.status, "success", `status of a ${type} transfer`);
}
equal(await reader.getBalance({ address: to }), parseEther("3"), "balance after three transfers");

const deployed = await wallet.deployContract({ abi: CONTRACT.abi, bytecode: CONTRACT.bytecode });
const made = await reader.waitForTransactionReceipt({ hash: deployed, timeout: 20_000 });
equal(made.status, "success", "status of the creation");
ensure((await reader.getCode({ address: made.contractAddress }))?.length > 2, "the contract has code");
const history = await reader.getFeeHistory({ blockCount: 4, rewardPercentiles: [50] });
ensure(history.baseFeePerGas.length >= 2, "fee history");

const provider = new JsonRpcProvider(url, undefined, { polling: true, pollingInterval: 100 });
const ethersWallet = new Wallet(KEYS[1], provider);
const sent = await ethersWallet.sendTransaction({ to, value: ethersEther("1") });
equal((await sent.wait(1)).status, 1, "status of the transfer by ethers");
equal(await provider.getBalance(to), parseEther("4"), "balance read by ethers");
provider.destroy();

const socket = createPublicClient({ ...options, transport: webSocket(wsUrl) });
const heads = await within(
  new Promise((resolve) => {
    const seen = [];
    socket.watchBlocks({
      onBlock: (block) => {
        seen.push(block.number);
        if (seen.length === 3) resolve(seen);
      },
    });
  }),
  "three heads",
);
equal(heads[2] - heads[0], 2n, "numbers of three heads");
process.exit(0);
