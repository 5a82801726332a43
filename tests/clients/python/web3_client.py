#!/usr/bin/env python3
"""web3.py against a node: transfers, a contract, reads, decoded errors and WebSocket subscriptions.

Usage: web3_client.py [http://host:port [ws://host:port]]
Prints `ok web3.py <step>` for each step and exits 1 at the first failure, with what was expected and what came.
"""

import asyncio
import json
import os
import pathlib
import sys
import traceback

from eth_account import Account
from web3 import AsyncWeb3, Web3, WebSocketProvider
from web3.exceptions import ContractLogicError, Web3RPCError

CHAIN_ID = 61972
KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
CONTRACT = json.loads((pathlib.Path(__file__).parent.parent / "contract.json").read_text())
LIMIT_SECONDS = 20


def equal(actual, expected, what):
    """Fails with both values unless they are equal."""
    if actual != expected:
        raise AssertionError(f"{what}: expected {expected!r}, got {actual!r}")


def ensure(condition, what):
    """Fails with `what` unless the condition holds."""
    if not condition:
        raise AssertionError(what)


class Scenario:
    """The steps, in the order of their definition; later steps use what earlier ones made."""

    def __init__(self, url, ws_url):
        self.ws_url = ws_url
        self.w3 = Web3(Web3.HTTPProvider(url))
        self.account = Account.from_key(KEY)
        self.recipient = Account.create().address
        self.contract = None
        self.receipt = None

    def send(self, fields):
        """Fills in what is missing, signs and sends; returns the hash."""
        eth = self.w3.eth
        tx = {"chainId": CHAIN_ID, "nonce": eth.get_transaction_count(self.account.address, "pending"), **fields}
        if "gasPrice" not in tx:
            tip = eth.max_priority_fee
            tx["maxPriorityFeePerGas"] = tip
            tx["maxFeePerGas"] = 2 * eth.get_block("latest")["baseFeePerGas"] + tip
        if "gas" not in tx:
            tx["gas"] = eth.estimate_gas({**tx, "from": self.account.address})
        return eth.send_raw_transaction(self.account.sign_transaction(tx).raw_transaction)

    def mined(self, tx_hash, status=1):
        """Waits for the receipt and checks its status."""
        receipt = self.w3.eth.wait_for_transaction_receipt(tx_hash, timeout=LIMIT_SECONDS, poll_latency=0.1)
        equal(receipt["status"], status, f"status of {tx_hash.to_0x_hex()}")
        equal(receipt["transactionHash"], tx_hash, "transactionHash of the receipt")
        return receipt

    def transfer(self, tx_type, **fields):
        """Sends a transfer and checks receipt, balance and the transaction as read back."""
        value = 1_000_000_021
        before = self.w3.eth.get_balance(self.recipient)
        receipt = self.mined(self.send({"to": self.recipient, "value": value, **fields}))
        equal(receipt["type"], tx_type, "type of the receipt")
        equal(self.w3.eth.get_balance(self.recipient) - before, value, "change of the recipient's balance")
        tx = self.w3.eth.get_transaction(receipt["transactionHash"])
        equal(tx["from"], self.account.address, "from")
        equal(tx["blockHash"], receipt["blockHash"], "blockHash of the transaction")
        return receipt

    def step_chain_id(self):
        equal(self.w3.eth.chain_id, CHAIN_ID, "eth_chainId")
        ensure(self.w3.is_connected(), "web3_clientVersion gave no answer")

    def step_balance(self):
        balance = self.w3.eth.get_balance(self.account.address)
        ensure(balance > Web3.to_wei(9000, "ether"), f"balance of the first account: {balance}")

    def step_transfer_eip1559(self):
        self.receipt = self.transfer(2)

    def step_transfer_legacy(self):
        self.transfer(0, gasPrice=2 * self.w3.eth.gas_price)

    def step_transfer_access_list(self):
        access_list = [{"address": self.recipient, "storageKeys": ["0x" + "00" * 31 + "0b"]}]
        self.transfer(1, gasPrice=2 * self.w3.eth.gas_price, accessList=access_list)

    def step_deploy(self):
        factory = self.w3.eth.contract(abi=CONTRACT["abi"], bytecode=CONTRACT["bytecode"])
        receipt = self.mined(self.send({"data": factory.constructor().data_in_transaction}))
        address = receipt["contractAddress"]
        equal(self.w3.eth.get_code(address).to_0x_hex(), CONTRACT["deployedBytecode"], "eth_getCode")
        self.contract = self.w3.eth.contract(address=address, abi=CONTRACT["abi"])

    def call_data(self, name):
        """The target and call data of one function of the contract."""
        return {"to": self.contract.address, "data": self.contract.encode_abi(name)}

    def step_call_and_events(self):
        receipt = self.mined(self.send(self.call_data("increment")))
        equal(self.contract.functions.value().call(), 1, "value()")
        block = receipt["blockNumber"]
        events = self.contract.events.Incremented.get_logs(from_block=block, to_block=block)
        equal(len(events), 1, "events")
        equal(dict(events[0]["args"]), {"sender": self.account.address, "value": 1}, "arguments of the event")
        equal(events[0]["transactionHash"], receipt["transactionHash"], "transactionHash of the event")

    def step_revert_reason(self):
        try:
            self.contract.functions.fail().call()
        except ContractLogicError as error:
            ensure("counter failed" in str(error), f"no reason in: {error}")
        else:
            raise AssertionError("fail(): expected ContractLogicError, got success")
        self.mined(self.send({**self.call_data("fail"), "gas": 100_000}), status=0)

    def step_set_code(self):
        """EIP-7702: a fresh account runs the contract's code."""
        delegator = Account.create()
        self.mined(self.send({"to": delegator.address, "value": Web3.to_wei(1, "ether")}))
        authorization = {"chainId": CHAIN_ID, "address": self.contract.address, "nonce": 0}
        signed = delegator.sign_authorization(authorization)
        call = {"to": delegator.address, "value": 0, "data": self.contract.encode_abi("increment"), "gas": 200_000}
        receipt = self.mined(self.send({**call, "authorizationList": [signed]}))
        equal(receipt["type"], 4, "type of the receipt")
        equal(receipt["logs"][0]["address"], delegator.address, "address of the log")
        code = self.w3.eth.get_code(delegator.address).to_0x_hex()
        equal(code, "0xef0100" + self.contract.address[2:].lower(), "code of the delegator")

    def step_block_with_transactions(self):
        block = self.w3.eth.get_block(self.receipt["blockNumber"], full_transactions=True)
        equal(block["hash"], self.receipt["blockHash"], "hash")
        tx = block["transactions"][self.receipt["transactionIndex"]]
        equal(tx["hash"], self.receipt["transactionHash"], "hash of the transaction in the block")
        receipts = self.w3.eth.get_block_receipts(block["number"])
        equal([r["transactionHash"] for r in receipts], [t["hash"] for t in block["transactions"]], "block receipts")

    def step_block_tags(self):
        tags = ["earliest", "finalized", "safe", "latest"]
        numbers = [self.w3.eth.get_block(tag)["number"] for tag in tags]
        equal(numbers, sorted(numbers), f"numbers of {tags}")
        ensure("transactions" in self.w3.eth.get_block("pending"), "pending block without transactions")

    def step_fees(self):
        history = self.w3.eth.fee_history(3, "latest", [25, 75])
        count = len(history["gasUsedRatio"])
        equal(len(history["baseFeePerGas"]), count + 1, "base fees of the history")
        equal([len(row) for row in history["reward"]], [2] * count, "rewards of the history")

    def step_nonce_too_low(self):
        self.refused("nonce too low", {"nonce": 0, "to": self.recipient, "value": 1, "gas": 21_000})

    def step_insufficient_funds(self):
        rich, self.account = self.account, Account.create()
        try:
            self.refused("insufficient funds", {"to": self.recipient, "value": 10**18, "gas": 21_000})
        finally:
            self.account = rich

    def refused(self, reason, fields):
        """Sends what the node must refuse, for this reason."""
        try:
            tx_hash = self.send(fields)
        except Web3RPCError as error:
            ensure(reason in str(error).lower(), f"expected {reason!r} in: {error}")
        else:
            raise AssertionError(f"expected {reason!r}, got success: {tx_hash.to_0x_hex()}")

    def step_filters(self):
        """Filters by polling: blocks, placed transactions, events, and a filter that is gone."""
        eth = self.w3.eth
        blocks, pending = eth.filter("latest"), eth.filter("pending")
        events = self.contract.events.Incremented.create_filter(from_block="latest")
        receipt = self.mined(self.send(self.call_data("increment")))
        ensure(receipt["blockHash"] in blocks.get_new_entries(), "the block filter lacks the block")
        ensure(receipt["transactionHash"] in pending.get_new_entries(), "the pending filter lacks the transaction")
        found = events.get_new_entries()
        equal([event["transactionHash"] for event in found], [receipt["transactionHash"]], "events of the filter")
        equal(found[0]["args"]["sender"], self.account.address, "sender of the event")
        equal(events.get_new_entries(), [], "events told twice")
        block = receipt["blockNumber"]
        past = eth.filter({"address": self.contract.address, "fromBlock": block, "toBlock": block})
        equal([log["blockNumber"] for log in past.get_all_entries()], [block], "logs of the past")
        ensure(eth.uninstall_filter(events.filter_id), "eth_uninstallFilter answered false")
        try:
            events.get_new_entries()
        except Web3RPCError as error:
            ensure("filter not found" in str(error), f"another error than filter not found: {error}")
        else:
            raise AssertionError("a filter that is gone: expected Web3RPCError, got success")

    def step_access_list(self):
        found = self.w3.eth.create_access_list({"from": self.account.address, **self.call_data("increment")})
        equal([item["address"] for item in found["accessList"]], [self.contract.address], "accounts of the access list")
        equal(len(found["accessList"][0]["storageKeys"]), 1, "slots of the access list")
        tip = self.w3.eth.gas_price
        call = {**self.call_data("increment"), "gasPrice": 2 * tip, "accessList": found["accessList"]}
        equal(self.mined(self.send(call))["gasUsed"], found["gasUsed"], "gas used with the list")

    def step_subscriptions(self):
        asyncio.run(asyncio.wait_for(self.subscriptions(), LIMIT_SECONDS))

    async def subscriptions(self):
        """A head and a log reach a WebSocket subscriber."""
        async with AsyncWeb3(WebSocketProvider(self.ws_url)) as socket:
            equal(await socket.eth.chain_id, CHAIN_ID, "eth_chainId over WebSocket")
            heads = await socket.eth.subscribe("newHeads")
            logs = await socket.eth.subscribe("logs", {"address": self.contract.address})
            ensure(heads != logs, f"two subscriptions share the id {heads}")
            tx_hash = await asyncio.to_thread(self.send, self.call_data("increment"))
            head = log = None
            async for message in socket.socket.process_subscriptions():
                if message["subscription"] == heads:
                    head = head or message["result"]
                else:
                    log = log or message["result"]
                if head and log:
                    break
            equal(log["transactionHash"], tx_hash, "transactionHash of the subscribed log")
            ensure(head["number"] <= log["blockNumber"], f"head {head['number']}, log in {log['blockNumber']}")
            ensure(await socket.eth.unsubscribe(heads), "eth_unsubscribe answered false")


def main():
    """Runs every `step_` method in the order of the class."""
    default = os.environ.get("SEQUENCER_URL", "http://127.0.0.1:6197")
    url = sys.argv[1] if len(sys.argv) > 1 else default
    ws_url = sys.argv[2] if len(sys.argv) > 2 else url.replace("http", "ws", 1)
    scenario = Scenario(url, ws_url)
    steps = [name for name in vars(Scenario) if name.startswith("step_")]
    for name in steps:
        title = name.removeprefix("step_").replace("_", " ")
        try:
            getattr(scenario, name)()
        except Exception:
            sys.exit(f"FAILED web3.py {title}: {traceback.format_exc()}")
        print(f"ok web3.py {title}", flush=True)
    print(f"done web3.py: {len(steps)} steps")


if __name__ == "__main__":
    main()
