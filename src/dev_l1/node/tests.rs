//! Chain, reorganisations, file: the node without sockets and with a clock of the test's own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::config::genesis::DEV_ACCOUNTS;
use crate::dev_l1::config::{ChainConfig, GENESIS_TIMESTAMP, L1Fork, Mode, genesis_hash, genesis_header};
use crate::dev_l1::log::{BlockLog, LogError};
use crate::l1::execute_tx::{Limits, Payload, Signature, Terms};
use crate::l1::profile::Profile;
use crate::primitives::Fork;
use crate::state::memory::MemoryStore;
use crate::state::{ListRoot, StateReader};
use crate::testing::signing::{DynamicFee, TestKey};

const NOW_MS: u64 = (GENESIS_TIMESTAMP + 1_000) * 1_000;

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("dev-l1-test-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary folder is writable");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn config(fork: L1Fork) -> ChainConfig {
    ChainConfig { fork, mode: Mode::Compat, ..ChainConfig::default() }
}

fn open(config: &ChainConfig, dir: Option<&Path>) -> Result<Node, ChainError> {
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread"));
    let log = dir.map_or_else(BlockLog::temporary, BlockLog::open)?;
    let chain = Chain::open(config.clone(), MemoryStore::new(pool), log)?;
    Ok(Node::new(chain, Execute::Compat, 1, NOW_MS))
}

fn node() -> Node {
    open(&config(L1Fork::Osaka), None).expect("a node")
}

fn key(index: usize) -> TestKey {
    TestKey::from_hex(DEV_ACCOUNTS[index].1)
}

fn transfer(from: usize, nonce: u64, tip_gwei: u128) -> Bytes {
    let tip = tip_gwei * 1_000_000_000;
    let tx = DynamicFee {
        chain_id: 61_971,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 100_000_000_000,
        max_priority_fee_per_gas: tip,
        to: Address::repeat_byte(0x77).into(),
        value: U256::from(1_000),
        ..DynamicFee::default()
    };
    key(from).encode(tx).into()
}

fn execute(nonce: u64, gas: Option<u64>) -> Bytes {
    let payload = Payload { data: Bytes::from_static(b"batch"), witness: vec![0xaa; 900].into(), ..Payload::default() };
    let encoded = payload.encoded(Profile::ExecuteTxV2);
    let chain_id = U256::from(61_971);
    let terms = Terms {
        chain_id,
        nonce,
        tip_cap_wei: U256::from(1_000_000_000_u64),
        fee_cap_wei: U256::from(50_000_000_000_u64),
        gas: gas.unwrap_or_else(|| encoded.gas().limit(chain_id, true)),
    };
    if gas.is_none() {
        let limits = Limits::of_default_node(chain_id, Fork::Osaka);
        assert_eq!(limits.check(&terms, &payload, &encoded), Ok(()));
    }
    let signed = key(0).sign(encoded.signing_hash(&terms));
    encoded.encode(&terms, &Signature { odd_y: signed.v(), r: signed.r(), s: signed.s() })
}

fn balance(node: &Node) -> u64 {
    let account = node.chain.account(&Address::repeat_byte(0x77)).expect("a state");
    account.map_or(0, |account| account.balance_wei.as_limbs()[0])
}

/// Every block's header follows from its parent and its body.
fn check_chain(node: &Node) {
    for number in 1..=node.chain.head_number() {
        let hash = node.chain.hash_at(number).expect("canonical");
        let block = node.chain.block(&hash).expect("readable").expect("known");
        let parent = node.chain.header(&block.header.parent_hash).expect("known").clone();
        assert_eq!(node.chain.hash_at(number - 1), Some(block.header.parent_hash));
        assert_eq!(block.header.hash_slow(), hash);
        assert!(block.header.timestamp > parent.timestamp);
        let mut root = ListRoot::new();
        block.txs.iter().for_each(|tx| root.push(&tx.raw));
        assert_eq!(root.finish(), block.header.transactions_root);
        assert_eq!(block.txs.len(), block.receipts.len());
    }
    assert_eq!(node.chain.state(&node.chain.head_hash()).expect("kept").root(), node.chain.head().state_root);
}

#[test]
fn block_0_is_constant_and_its_hash_can_be_named() {
    // In genesis files of others: a change of these is a break.
    let hashes = L1Fork::ALL.map(|fork| genesis_hash(&ChainConfig { fork, ..ChainConfig::default() }));
    assert_eq!(hashes.iter().collect::<std::collections::HashSet<_>>().len(), 2, "Prague and Osaka begin alike");
    assert_eq!(hashes[1], hashes[2]);
    assert_eq!(
        hashes[2],
        genesis_hash(&ChainConfig { mode: Mode::Compat, block_time_ms: 5, ..ChainConfig::default() })
    );
    for fork in L1Fork::ALL {
        let node = open(&config(fork), None).expect("the root by the state files' code is the root by the validator's");
        assert_eq!(node.chain.hash_at(0), Some(genesis_header(&config(fork)).hash_slow()));
    }
}

#[test]
fn blocks_come_by_the_clock_and_hold_what_waits() {
    let mut node = node();
    node.send(transfer(0, 0, 1)).expect("taken");
    node.send(transfer(0, 1, 1)).expect("taken");
    node.send(transfer(0, 3, 1)).expect("a gap waits");
    assert_eq!(node.pending_nonce(&key(0).address).expect("a state"), 2);
    node.tick(NOW_MS + 999).expect("nothing is due");
    assert_eq!(node.chain.head_number(), 0);
    node.tick(NOW_MS + 1_000).expect("a block");
    assert_eq!((node.chain.head_number(), balance(&node), node.pool.len()), (1, 2_000, 1));
    assert_eq!(node.chain.head().timestamp, GENESIS_TIMESTAMP + 1_001);
    node.set_stopped(true, NOW_MS);
    node.tick(NOW_MS + 9_000).expect("stopped");
    assert_eq!((node.chain.head_number(), node.due_ms()), (1, None));
    node.set_stopped(false, NOW_MS + 9_000);
    node.send(transfer(0, 2, 1)).expect("taken");
    node.tick(NOW_MS + 10_000).expect("a block");
    assert_eq!((node.chain.head_number(), balance(&node)), (2, 4_000));
    assert_eq!(node.take_heads().len(), 2);
    check_chain(&node);
}

#[test]
fn higher_tips_go_first_and_the_base_fee_follows_use() {
    let mut node = node();
    let low = node.send(transfer(0, 0, 1)).expect("taken");
    let high = node.send(transfer(1, 0, 2)).expect("taken");
    node.mine(NOW_MS, 1).expect("a block");
    let block = node.chain.block(&node.chain.head_hash()).expect("readable").expect("known");
    assert_eq!(block.txs.iter().map(|tx| tx.hash).collect::<Vec<_>>(), [high, low]);
    let first = node.chain.head().base_fee_per_gas.expect("London");
    assert_eq!(first, 875_000_000, "an eighth less behind an empty block 0");
    node.set_base_fee(200_000_000_000, 2);
    node.send(transfer(0, 1, 1)).expect("taken");
    node.mine(NOW_MS, 2).expect("blocks");
    assert_eq!((node.chain.head().base_fee_per_gas, node.pool.len()), (Some(200_000_000_000), 1), "below the market");
    node.mine(NOW_MS, 1).expect("a block");
    assert_eq!(node.chain.head().base_fee_per_gas, Some(175_000_000_000), "it comes down as it does");
}

/// What costs enough for the pool and too little for a block waits, until it is replaced.
#[test]
fn a_transaction_between_the_two_prices_is_stuck() {
    let mut node = node();
    let stuck = node.send(execute(0, Some(22_000))).expect("the pool prices the data alone");
    node.mine(NOW_MS, 3).expect("blocks");
    assert!(node.pool.get(&stuck).is_some());
    assert!(node.send(execute(0, None)).is_err(), "a replacement pays more");
    node.pool.remove(&stuck);
    let hash = node.send(execute(0, None)).expect("taken");
    node.mine(NOW_MS, 1).expect("a block");
    let (block, index) = node.chain.transaction(&hash).expect("readable").expect("mined");
    assert!(block.receipts[index].success);
    assert_eq!(block.receipts[index].tx_type, 5);
    assert_eq!(block.receipts[index].execute["ok"], true);
    check_chain(&node);
}

#[test]
fn reorganisations_bring_transactions_back_drop_or_delay_them() {
    for (fork, depth) in [(L1Fork::Osaka, 1), (L1Fork::Cancun, 3), (L1Fork::Osaka, 64)] {
        let mut node = open(&config(fork), None).expect("a node");
        let hashes: Vec<B256> = (0..3).map(|nonce| node.send(transfer(0, nonce, 1)).expect("taken")).collect();
        let other = node.send(transfer(1, 0, 1)).expect("taken");
        node.mine(NOW_MS, depth).expect("blocks");
        let old = node.chain.head_hash();
        node.take_heads();
        let mut request = Reorganisation { depth, new_blocks: depth + 1, ..Reorganisation::default() };
        node.reorganise(NOW_MS, &request).expect("possible");
        assert_ne!(node.chain.head_hash(), old);
        assert!(!node.chain.is_canonical(&old) && node.chain.block(&old).expect("readable").is_some());
        assert_eq!((node.chain.head_number(), balance(&node)), (depth + 1, 4_000));
        assert_eq!(node.take_heads().len() as u64, depth + 1);
        // Dropped: what follows it waits for ever, another sender's goes on.
        request = Reorganisation { dropped: vec![hashes[1]], ..request };
        request.depth += 1;
        node.reorganise(NOW_MS, &request).expect("possible");
        assert_eq!((balance(&node), node.pool.len()), (2_000, 1));
        assert!(node.chain.transaction(&hashes[1]).expect("readable").is_none());
        // Delayed, and then there.
        let depth = node.chain.head_number();
        request = Reorganisation { depth, new_blocks: 3, delayed: vec![(other, 2)], ..Reorganisation::default() };
        node.reorganise(NOW_MS, &request).expect("possible");
        let (block, _) = node.chain.transaction(&other).expect("readable").expect("mined again");
        assert_eq!(block.header.number, 3);
        request = Reorganisation { depth: 2, new_blocks: 2, is_empty: true, ..Reorganisation::default() };
        node.reorganise(NOW_MS, &request).expect("possible");
        assert!(node.chain.transaction(&other).expect("readable").is_none());
        assert!(node.pool.get(&other).is_some(), "it waits for the block behind");
        check_chain(&node);
    }
    let mut node = node();
    node.mine(NOW_MS, 2).expect("blocks");
    let too_deep = node.reorganise(NOW_MS, &Reorganisation { depth: 3, ..Reorganisation::default() });
    assert!(matches!(too_deep, Err(ChainError::TooDeep { depth: 3, possible: 2 })), "{too_deep:?}");
}

#[test]
fn a_chain_comes_back_from_its_file() {
    let (folder, config) = (Folder::new(), config(L1Fork::Osaka));
    let mut node = open(&config, Some(&folder.0)).expect("a node");
    assert!(matches!(open(&config, Some(&folder.0)), Err(ChainError::Log(LogError::Locked { .. }))));
    let hash = node.send(execute(0, None)).expect("taken");
    node.send(transfer(1, 0, 1)).expect("taken");
    node.mine(NOW_MS, 3).expect("blocks");
    node.reorganise(NOW_MS, &Reorganisation { depth: 2, new_blocks: 3, ..Reorganisation::default() })
        .expect("possible");
    let (head, receipt) = (node.chain.head_hash(), node.chain.transaction(&hash).expect("readable").expect("mined"));
    drop(node);
    let file = folder.0.join("dev-l1.log");
    let whole = std::fs::read(&file).expect("a file");
    // A record that is not whole is cut; what was before it is there.
    let torn = [&whole[..], &[9, 0, 0, 0, 1, 2, 3, 4, 5]].concat();
    for bytes in [&whole, &torn] {
        std::fs::write(&file, bytes).expect("writable");
        let mut node = open(&config, Some(&folder.0)).expect("it comes back");
        assert_eq!(node.chain.head_hash(), head);
        let (block, index) = node.chain.transaction(&hash).expect("readable").expect("mined");
        assert_eq!(
            (block.hash, block.receipts[index].clone()),
            (receipt.0.hash, receipt.0.receipts[receipt.1].clone())
        );
        check_chain(&node);
        assert_eq!(std::fs::metadata(&file).expect("a file").len(), whole.len() as u64);
        node.send(transfer(1, 1, 1)).expect("the state came back too");
        node.mine(NOW_MS, 1).expect("a block");
        assert_eq!(balance(&node), 2_000);
    }
    // A byte that changed in the middle is an error that names its record.
    let mut damaged = whole.clone();
    damaged[100] ^= 1;
    std::fs::write(&file, &damaged).expect("writable");
    let error = open(&config, Some(&folder.0)).map(|_| ()).expect_err("damaged").to_string();
    assert!(error.contains("the record at byte 42 is damaged: its checksum is wrong"), "{error}");
    // Another chain's file is none of ours.
    std::fs::write(&file, &whole).expect("writable");
    let other = ChainConfig { chain_id: 7, ..config };
    let error = open(&other, Some(&folder.0)).map(|_| ()).expect_err("another chain's").to_string();
    assert!(error.contains("other rules, gas limit or chain id"), "{error}");
}

/// However the file is cut, what is left is a chain, or the error says where it ends.
#[test]
fn a_file_cut_anywhere_leaves_a_chain() {
    let (folder, config) = (Folder::new(), config(L1Fork::Cancun));
    let mut node = open(&config, Some(&folder.0)).expect("a node");
    node.send(transfer(1, 0, 1)).expect("taken");
    node.mine(NOW_MS, 2).expect("blocks");
    let hashes: Vec<Option<B256>> = (0..3).map(|number| node.chain.hash_at(number)).collect();
    drop(node);
    let file = folder.0.join("dev-l1.log");
    let whole = std::fs::read(&file).expect("a file");
    let mut seen = [0; 3];
    for end in (0..whole.len()).step_by(7) {
        std::fs::write(&file, &whole[..end]).expect("writable");
        let node = open(&config, Some(&folder.0)).expect("a cut at the end is no damage");
        let number = node.chain.head_number();
        assert_eq!(Some(node.chain.head_hash()), hashes[number as usize], "cut at {end}");
        seen[number as usize] += 1;
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}
