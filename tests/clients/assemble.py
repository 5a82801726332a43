#!/usr/bin/env python3
"""Writes contract.json: the bytecode and ABI of the contract that every client test deploys.

Input: the listing below. Output: `contract.json` beside this file; `--check` compares instead of writing.
The contract is assembled by hand so that the tests need no Solidity compiler. Its functions:

    increment()              storage[0] += 1 and emits Incremented(sender, new value)
    value() -> uint256       storage[0]
    store(uint256, uint256)  storage[first] = second; a second of zero earns the clearing refund
    spawn()                  CREATE of an empty contract
    fail()                   reverts with Error("counter failed")

Any other call data reverts without data.
"""

import json
import pathlib
import sys

from eth_utils import keccak

OPCODES = {
    "STOP": 0x00, "ADD": 0x01, "EQ": 0x14, "SHR": 0x1C, "CALLER": 0x33, "CALLDATALOAD": 0x35, "CODECOPY": 0x39,
    "POP": 0x50, "MSTORE": 0x52, "SLOAD": 0x54, "SSTORE": 0x55, "JUMPI": 0x57, "JUMPDEST": 0x5B, "PUSH0": 0x5F,
    "DUP1": 0x80, "LOG2": 0xA2, "CREATE": 0xF0, "RETURN": 0xF3, "REVERT": 0xFD,
}  # fmt: skip

EVENT = "Incremented(address,uint256)"
FUNCTIONS = ["increment()", "value()", "store(uint256,uint256)", "spawn()", "fail()"]
REASON = b"counter failed"

BODIES = {
    "increment()": f"""PUSH0 SLOAD 0x01 ADD DUP1 PUSH0 SSTORE PUSH0 MSTORE
        CALLER 0x{keccak(text=EVENT).hex()} 0x20 PUSH0 LOG2 STOP""",
    "value()": "PUSH0 SLOAD PUSH0 MSTORE 0x20 PUSH0 RETURN",
    "store(uint256,uint256)": "0x24 CALLDATALOAD 0x04 CALLDATALOAD SSTORE STOP",
    "spawn()": "PUSH0 PUSH0 PUSH0 CREATE POP STOP",
    "fail()": f"""0x{keccak(text="Error(string)")[:4].hex().ljust(64, "0")} PUSH0 MSTORE 0x20 0x04 MSTORE
        0x{len(REASON):02x} 0x24 MSTORE 0x{REASON.hex().ljust(64, "0")} 0x44 MSTORE 0x64 PUSH0 REVERT""",
}


def assemble(words, labels):
    """Turns words into bytes: an opcode's name, a literal to push, `:name` (a target here) or `@name` (push it)."""
    code = bytearray()
    for word in words.split():
        if word.startswith("0x"):
            literal = bytes.fromhex(word[2:])
            code += bytes([0x5F + len(literal)]) + literal
        elif word.startswith(":"):
            labels[word[1:]] = len(code)
            code.append(OPCODES["JUMPDEST"])
        elif word.startswith("@"):
            code += bytes([0x61]) + labels.get(word[1:], 0).to_bytes(2, "big")
        else:
            code.append(OPCODES[word])
    return bytes(code)


def runtime():
    """The deployed code: a selector switch, then one body per function."""
    words = "PUSH0 CALLDATALOAD 0xe0 SHR "
    for function in FUNCTIONS:
        words += f"DUP1 0x{keccak(text=function)[:4].hex()} EQ @{function} JUMPI "
    words += "PUSH0 PUSH0 REVERT "
    for function in FUNCTIONS:
        words += f":{function} {BODIES[function]} "
    labels = {}
    assemble(words, labels)
    return assemble(words, labels)


def creation(code):
    """The init code: copies the deployed code, which follows it, and returns it."""
    words = f"0x{len(code):04x} DUP1 0x{{offset:02x}} PUSH0 CODECOPY PUSH0 RETURN"
    prefix = assemble(words.format(offset=0), {})
    return assemble(words.format(offset=len(prefix)), {}) + code


def abi():
    """The JSON ABI, in the order of FUNCTIONS."""
    def uint(name):
        return {"name": name, "type": "uint256", "internalType": "uint256"}

    def function(name, inputs=(), outputs=(), mutability="nonpayable"):
        return {
            "type": "function", "name": name, "inputs": list(inputs), "outputs": list(outputs),
            "stateMutability": mutability,
        }  # fmt: skip

    sender = {"name": "sender", "type": "address", "internalType": "address", "indexed": True}
    value = {**uint("value"), "indexed": False}
    return [
        {"type": "event", "name": "Incremented", "inputs": [sender, value], "anonymous": False},
        function("increment"),
        function("value", outputs=[uint("")], mutability="view"),
        function("store", inputs=[uint("key"), uint("value")]),
        function("spawn"),
        function("fail"),
    ]


def main():
    """Writes or checks contract.json."""
    code = runtime()
    document = {"abi": abi(), "bytecode": "0x" + creation(code).hex(), "deployedBytecode": "0x" + code.hex()}
    text = json.dumps(document, indent=2) + "\n"
    path = pathlib.Path(__file__).parent / "contract.json"
    if "--check" in sys.argv:
        if path.read_text() != text:
            sys.exit("contract.json is not what assemble.py produces; run assemble.py")
    else:
        path.write_text(text)


if __name__ == "__main__":
    main()
