//! ExecuteTx that are not what they should be, from keys of ours and of others.
//!
//! Most are made of the batch that is next in line, so that each breaks one rule and none before it; they are sent with a tip that puts them before it.

use super::faults::Fault;
use super::{GWEI, World};
use crate::dev_l1::config::{L1_CHAIN_ID, L1Fork};
use crate::dev_l1::pool::Tip;
use crate::dev_l1::transaction::L1Tx;
use crate::l1::execute_tx::{ExecuteTx, Payload, Signature, Terms};
use crate::l1::profile::Profile;
use crate::primitives::{Address, B256, Bytes, U256};
use crate::settlement::Origin;
use crate::settlement::batch::{Batch, Compression};
use crate::testing::signing::TestKey;

/// Zeros behind the header of a batch: 15 MiB in a few hundred bytes.
#[must_use]
pub fn bomb() -> Bytes {
    let frame = zstd::bulk::compress(&vec![0; 15 << 20], 3).expect("zeros compress");
    [&[1, 1], frame.as_slice()].concat().into()
}

/// A transaction with this payload.
#[must_use]
pub fn signed(key: &TestKey, chain_id: u64, nonce: u64, payload: &Payload) -> ExecuteTx {
    let profile = Profile::default();
    let encoded = payload.encoded(profile);
    let chain_id = U256::from(chain_id);
    let terms = Terms {
        chain_id,
        nonce,
        tip_cap_wei: U256::from(40 * GWEI),
        fee_cap_wei: U256::from(60 * GWEI),
        gas: encoded.gas().limit(chain_id, true),
    };
    let signature = key.sign(encoded.signing_hash(&terms));
    let signature = Signature { odd_y: signature.v(), r: signature.r(), s: signature.s() };
    ExecuteTx { profile, terms, payload: payload.clone(), signature }
}

impl World<'_> {
    /// The batch that derivation waits for, as the sequencer has made it.
    fn next_batch(&self) -> Option<(Payload, Batch)> {
        let settler = self.sites[0].settler.as_ref()?;
        let next = settler.conductor.status().batch_next;
        let stored = settler.ledger.wanted().find(|batch| batch.index == next)?;
        let batch = Batch::decode(&stored.payload.data).ok()?;
        Some((stored.payload.clone(), batch))
    }

    fn send_cheat(&mut self, key: TestKey, payload: &Payload, name: &'static str) {
        let mut net = self.net.borrow_mut();
        let nonce = net.node.pending_nonce(&key.address).expect("a state in memory");
        let tx = signed(&key, L1_CHAIN_ID, nonce, payload);
        let raw = payload.encoded(Profile::default()).encode(&tx.terms, &tx.signature);
        if net.node.send(raw).is_ok() {
            drop(net);
            self.tally.count(name);
        }
    }

    pub(super) fn cheat(&mut self, fault: Fault) {
        let Some((payload, batch)) = self.next_batch() else { return };
        let keys = &self.ground.keys;
        let (second, late, stranger) = (keys.second, keys.late, keys.stranger);
        match fault {
            Fault::Stranger => self.send_cheat(stranger, &payload, "a batch of a stranger"),
            Fault::Late => self.send_cheat(late, &payload, "a batch of a key that is not one yet"),
            Fault::Copy => self.send_cheat(second, &payload, "our batch by another key of ours"),
            Fault::Malformed => {
                let data = match self.rng.below(3) {
                    0 => Bytes::from_static(&[1, 0, 0xc0]),
                    1 => payload.data.slice(..payload.data.len() / 2),
                    _ => Bytes::from_static(b"no batch at all"),
                };
                self.send_cheat(second, &Payload { data, ..payload }, "malformed batch by our key");
            }
            Fault::Bomb => {
                let data = self.ground.bomb.clone();
                self.send_cheat(second, &Payload { data, ..payload }, "decompression bomb by our key");
            }
            Fault::FalseBatch => self.false_batch(second, payload, batch),
            Fault::OtherPlace => self.other_place(second, payload, batch),
            Fault::OtherOrigin => self.other_origin(second, payload, batch),
            Fault::OtherTarget => {
                let payload = match self.rng.below(2) {
                    0 => Payload { to: Some(Address::repeat_byte(0x99)), ..payload },
                    _ => Payload { value: U256::from(1), ..payload },
                };
                self.send_cheat(second, &payload, "batch with a target or value");
            }
            _ => self.inject(second, &payload),
        }
    }

    /// Says something of its blocks that is not so.
    fn false_batch(&mut self, key: TestKey, payload: Payload, mut batch: Batch) {
        let Some(block) = batch.blocks.first_mut() else { return };
        match self.rng.below(4) {
            0 => block.segments[0].post_state_root = B256::repeat_byte(0xee),
            1 => block.segments[0].receipts_digest = B256::repeat_byte(0xee),
            2 => block.segments[0].gas_used_before ^= 1,
            _ => block.segments[0].transactions.push(Bytes::from_static(&[2, 0xc0])),
        }
        let data = batch.encode(Compression::Zstd).into();
        self.send_cheat(key, &Payload { data, ..payload }, "false batch by our key");
    }

    /// Says another place in the chain than the next one.
    fn other_place(&mut self, key: TestKey, mut payload: Payload, mut batch: Batch) {
        match self.rng.below(5) {
            0 => batch.index += 1 + self.rng.below(3),
            1 => batch.previous_digest = B256::repeat_byte(0xdd),
            2 => payload.pre_state_root = B256::repeat_byte(0xcc),
            _ => payload.block_number += 1,
        }
        let data = batch.encode(Compression::Zstd).into();
        self.send_cheat(key, &Payload { data, ..payload }, "batch of another place by our key");
    }

    /// Its last block stands on another L1 block.
    fn other_origin(&mut self, key: TestKey, mut payload: Payload, mut batch: Batch) {
        let Some(last) = batch.blocks.last_mut() else { return };
        let Origin { number, hash } = last.origin;
        match self.rng.below(4) {
            0 => last.origin.number = number + 1_000,
            1 => last.origin.hash = B256::repeat_byte(0xbb),
            2 => last.origin = Origin { number: 0, hash },
            _ => last.prev_randao = B256::repeat_byte(0xaa),
        }
        payload.anchor = Bytes::copy_from_slice(last.origin.hash.as_slice());
        let data = batch.encode(Compression::Zstd).into();
        self.send_cheat(key, &Payload { data, ..payload }, "batch on another origin by our key");
    }

    /// What no pool of ours would take, on an L1 whose decoder is laxer than ours.
    fn inject(&mut self, key: TestKey, payload: &Payload) {
        let kind = self.rng.below(3);
        let mut net = self.net.borrow_mut();
        let nonce = net.node.pending_nonce(&key.address).expect("a state in memory");
        // What L1 executes is a proper one; the bytes in the block are not.
        let body =
            signed(&key, L1_CHAIN_ID, nonce, &Payload { to: Some(Address::repeat_byte(0x98)), ..payload.clone() });
        let encoded = payload.encoded(Profile::default());
        let raw: Bytes = match kind {
            0 => [&encoded.encode(&body.terms, &body.signature)[..], &[0]].concat().into(),
            1 => {
                let other = signed(&key, L1_CHAIN_ID + 1, nonce, payload);
                encoded.encode(&other.terms, &other.signature)
            }
            // No point of the curve has this x.
            _ => encoded.encode(&body.terms, &Signature { r: U256::from(5), ..body.signature }),
        };
        let hash = alloy_primitives::keccak256(&raw);
        let account = net.node.chain.account(&key.address).ok().flatten();
        let tip = Tip {
            chain_id: L1_CHAIN_ID,
            fork: L1Fork::Osaka,
            gas_limit: net.node.chain.head().gas_limit,
            account_nonce: account.map_or(0, |account| account.nonce),
            account_balance_wei: account.map_or(U256::ZERO, |account| account.balance_wei),
        };
        let tx =
            L1Tx { raw, hash, sender: key.address, body: crate::dev_l1::transaction::Body::Execute(Box::new(body)) };
        if net.node.pool.add(tx, &tip).is_ok() {
            drop(net);
            self.tally.count("undecodable, of another chain, or unsigned");
        }
    }
}
