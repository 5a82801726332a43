//! Batches of a real L2 through the precompile of the development L1: what holds succeeds, what was changed fails and says why.

use super::*;
use crate::config::genesis::DEV_ACCOUNTS;
use crate::dev_l1::chain::Chain;
use crate::dev_l1::config::{ChainConfig, GENESIS_TIMESTAMP};
use crate::dev_l1::log::BlockLog;
use crate::dev_l1::node::Node;
use crate::dev_l1::precompile::Execute;
use crate::l1::execute_tx::{Payload, Signature, Terms};
use crate::l1::profile::Profile;
use crate::primitives::{B256, Bytes, U256};
use crate::settlement::packer::{Event, PackedBatch, Packer, PackerSettings};
use crate::settlement::segment::{CutLimits, cut};
use crate::settlement::strict::Tip;
use crate::state::memory::MemoryStore;
use crate::testing::rng::SimRng;
use crate::testing::sealed_chain::{SealedChain, origin};
use crate::testing::signing::TestKey;

const NOW_MS: u64 = (GENESIS_TIMESTAMP + 1_000) * 1_000;

fn settled() -> (SealedChain, Vec<PackedBatch>) {
    let (mut rng, mut chain) = (SimRng::new(7), SealedChain::new(30, 10));
    let tip = Tip::genesis(chain.genesis.clone(), origin(0));
    let settings = PackerSettings { tx_bytes_max: 8_000, ..PackerSettings::default() };
    let mut packer = Packer::new(settings, tip.start());
    let mut batches = Vec::new();
    for now_ns in 0..4 {
        let sealed = chain.any_block(&mut rng, 10);
        let limits = CutLimits { tx_bytes_max: 8_000, first_tx_bytes_max: 8_000, ..CutLimits::default() };
        let segments = cut(&chain.spec, &sealed.block, &sealed.witness, sealed.origin, &limits).expect("our own block");
        batches.extend(packer.step(Event::Segments(segments), now_ns).expect("in order"));
    }
    batches.extend(packer.step(Event::Flush, 4).expect("nothing comes in"));
    (chain, batches)
}

fn node(spec: &crate::config::genesis::ChainSpec) -> Node {
    let pool = std::sync::Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread"));
    let log = BlockLog::temporary().expect("room");
    let chain = Chain::open(ChainConfig::default(), MemoryStore::new(pool), log).expect("block 0");
    Node::new(chain, Execute::Strict(Box::new(ChainJudge::new(spec.clone()))), 1, NOW_MS)
}

fn post(node: &mut Node, nonce: u64, payload: &Payload) -> B256 {
    let encoded = payload.encoded(Profile::ExecuteTxV2);
    let chain_id = U256::from(61_971);
    let terms = Terms {
        chain_id,
        nonce,
        tip_cap_wei: U256::from(1_000_000_000_u64),
        fee_cap_wei: U256::from(50_000_000_000_u64),
        gas: encoded.gas().limit(chain_id, true),
    };
    let signed = TestKey::from_hex(DEV_ACCOUNTS[0].1).sign(encoded.signing_hash(&terms));
    let signature = Signature { odd_y: signed.v(), r: signed.r(), s: signed.s() };
    node.send(encoded.encode(&terms, &signature)).expect("taken")
}

#[test]
fn batches_that_hold_succeed_and_changed_ones_fail_with_a_reason() {
    let (chain, batches) = settled();
    assert!(batches.len() > 1);
    let mut node = node(&chain.spec);
    let mut hashes = Vec::new();
    for (nonce, batch) in (0..).zip(&batches) {
        hashes.push((post(&mut node, nonce, &batch.payload), true));
    }
    let mut nonce = batches.len() as u64;
    let mut post_changed = |node: &mut Node, change: &dyn Fn(&mut Payload)| {
        let mut payload = batches[0].payload.clone();
        change(&mut payload);
        hashes.push((post(node, nonce, &payload), false));
        nonce += 1;
    };
    post_changed(&mut node, &|payload| payload.pre_state_root.0[0] ^= 1);
    post_changed(&mut node, &|payload| payload.coinbase.0[0] ^= 1);
    post_changed(&mut node, &|payload| payload.block_number += 1);
    for at in [0, 40, 90] {
        post_changed(&mut node, &|payload| {
            let mut data = payload.data.to_vec();
            let index = data.len() * at / 100;
            data[index] ^= 1;
            payload.data = data.into();
        });
    }
    post_changed(&mut node, &|payload| payload.witness = Bytes::from_static(&[0xc0]));
    node.mine(NOW_MS, 1).expect("a block");
    for (hash, holds) in hashes {
        let (block, index) = node.chain.transaction(&hash).expect("readable").expect("mined");
        let receipt = &block.receipts[index];
        assert_eq!((receipt.success, receipt.execute["ok"] == true), (holds, holds), "{}", receipt.execute);
        if holds {
            assert_eq!(receipt.execute["output"].as_str().map(str::len), Some(2 + 128));
            assert!(receipt.execute["report"]["digest"].is_string());
        } else {
            assert_eq!(receipt.gas_used, block.txs[index].gas(), "all gas is consumed");
            let reason = receipt.execute["error"].as_str().expect("a reason");
            assert!(reason.contains(": "), "{reason}");
        }
    }
}
