// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.30;

/// The contract of the `storage` workload: each call writes one slot of a mapping.
contract LoadStorage {
    mapping(uint256 => uint256) public value;

    function set(uint256 key, uint256 newValue) external {
        value[key] = newValue;
    }
}
