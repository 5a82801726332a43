//! The requests (EIP-7685) of each block, worked out from its transactions: what the engine API wants beside the payload.

use std::collections::VecDeque;

use alloy_eips::{eip7002, eip7251};
use alloy_primitives::{Address, B256, Bytes};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Both predeploys give out a limited number a block and keep the rest for later blocks.
const WITHDRAWALS_PER_BLOCK_MAX: usize = 16;
const CONSOLIDATIONS_PER_BLOCK_MAX: usize = 2;
/// Request types of EIP-7002 and EIP-7251.
const WITHDRAWAL_TYPE: u8 = 1;
const CONSOLIDATION_TYPE: u8 = 2;

/// What the two predeploys hold after the blocks so far. Calls must come from transactions, not from contracts.
#[derive(Default)]
pub struct RequestQueues {
    withdrawals: VecDeque<Vec<u8>>,
    consolidations: VecDeque<Vec<u8>>,
}

impl RequestQueues {
    /// Adds what a block with full transactions asked for, and takes out what its end gives out: one item for each type
    /// that has any, `type ++ records`.
    pub fn advance(&mut self, block: &Value, receipts: &Value) -> Vec<Bytes> {
        let transactions = block["transactions"].as_array().expect("a list of transactions");
        for (transaction, receipt) in transactions.iter().zip(receipts.as_array().expect("a list of receipts")) {
            let Some(to) = transaction["to"].as_str().filter(|_| receipt["status"] == "0x1") else { continue };
            let to: Address = to.parse().expect("an address");
            let from: Address = transaction["from"].as_str().and_then(|from| from.parse().ok()).expect("an address");
            let input: Bytes = transaction["input"].as_str().and_then(|input| input.parse().ok()).expect("hex");
            if to == eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS {
                let (key, amount) = input.split_at(48);
                // The amount goes in with its high byte first and comes out with its low byte first.
                let amount: Vec<u8> = amount.iter().rev().copied().collect();
                self.withdrawals.push_back([from.as_slice(), key, &amount].concat());
            } else if to == eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS {
                self.consolidations.push_back([from.as_slice(), &input].concat());
            }
        }
        let withdrawals = take(&mut self.withdrawals, WITHDRAWALS_PER_BLOCK_MAX, WITHDRAWAL_TYPE);
        let consolidations = take(&mut self.consolidations, CONSOLIDATIONS_PER_BLOCK_MAX, CONSOLIDATION_TYPE);
        withdrawals.into_iter().chain(consolidations).collect()
    }
}

fn take(queue: &mut VecDeque<Vec<u8>>, count_max: usize, request_type: u8) -> Option<Bytes> {
    let count = queue.len().min(count_max);
    let records: Vec<u8> = queue.drain(..count).flatten().collect();
    (count > 0).then(|| [&[request_type], &records[..]].concat().into())
}

/// The header's requests hash: SHA-256 over the SHA-256 of each item (EIP-7685).
pub fn requests_hash(requests: &[Bytes]) -> B256 {
    let mut hash = Sha256::new();
    requests.iter().for_each(|item| hash.update(Sha256::digest(item)));
    B256::from_slice(&hash.finalize())
}
