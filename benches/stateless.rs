//! What a stateless validation costs: a block of transfers between strangers, over its witness alone.
//!
//! `cargo bench --bench stateless`; with `--test` one small round. CPU time of the thread, median of the rounds, for the whole and for its
//! parts. `STATELESS_ACCOUNTS` = how many accounts the state has (default 100,000), `STATELESS_TRANSFERS` = how many the block has
//! (default 1,000).

use alloy_genesis::GenesisAccount;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use native_sequencer::builder::block::{BlockContext, SealedBlock};
use native_sequencer::builder::block_execution::{PreparedTx, execute_block};
use native_sequencer::builder::execution::Executor;
use native_sequencer::builder::world::World;
use native_sequencer::builder::world::access::Accesses;
use native_sequencer::config::genesis::{ChainSpec, dev_genesis};
use native_sequencer::primitives::Fork;
use native_sequencer::state::{Snapshot, StateReader};
use native_sequencer::testing::bench_chain::BenchChain;
use native_sequencer::testing::signing::TestKey;
use native_sequencer::witness::Witness;
use native_sequencer::witness::validator::partial_state::PartialState;
use native_sequencer::witness::validator::{StatelessBlock, Strictness, validate, validate_bytes};
use std::collections::BTreeSet;
use std::time::Instant;

const ROUNDS: usize = 15;
/// A round repeats its work for about this long.
const ROUND_NS: u128 = 50_000_000;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// A state of `account_count` accounts, of which the first `sender_count` of the test keys are some.
fn spec(account_count: usize, sender_count: usize) -> ChainSpec {
    let mut genesis = dev_genesis(Fork::Osaka, account_count).expect("built in").genesis;
    for index in 0..sender_count {
        let account = GenesisAccount::default().with_balance(U256::from(10_u128.pow(20)));
        genesis.alloc.insert(TestKey::nth(index as u64).address, account);
    }
    ChainSpec::from_json(&serde_json::to_string(&genesis).expect("a genesis serialises")).expect("a valid genesis")
}

/// What the block asks of the state of its parent.
fn accesses(spec: &ChainSpec, parent: &Snapshot, context: &BlockContext, txs: &[PreparedTx]) -> Accesses {
    let mut world = World::new(parent.clone());
    world.set_block_hash(context.number - 1, context.parent_hash);
    let mut executor = Executor::new(world, spec.chain_id, spec.deposit_contract, context.fork);
    execute_block(&mut executor, context, txs, &[]).expect("it was executed before").accesses
}

/// The witness of a block without deletions: the nodes on the paths of everything that it asks for.
fn witness(parent: &Snapshot, parent_header: Vec<u8>, accesses: &Accesses) -> Witness {
    let mut state = BTreeSet::new();
    for address in &accesses.accounts {
        let slots: Vec<U256> =
            accesses.slots.iter().filter(|(owner, _)| owner == address).map(|(_, slot)| *slot).collect();
        let proof = parent.proof(address, &slots).expect("a readable state");
        state.extend(proof.account_proof);
        proof.storage.into_iter().for_each(|slot| state.extend(slot.proof));
    }
    let codes: BTreeSet<Bytes> = accesses.codes.iter().map(|(_, code)| code.clone()).collect();
    Witness {
        headers: vec![parent_header.into()],
        codes: codes.into_iter().collect(),
        state: state.into_iter().collect(),
    }
}

/// RLP of a sealed block.
fn block_rlp(sealed: &SealedBlock) -> Bytes {
    let list = |payload: &[u8]| {
        let mut out = Vec::with_capacity(payload.len() + 9);
        alloy_rlp::Header { list: true, payload_length: payload.len() }.encode(&mut out);
        out.extend_from_slice(payload);
        out
    };
    let parts = [alloy_rlp::encode(&sealed.header), list(sealed.block.body()), list(&[]), list(&[])];
    list(&parts.concat()).into()
}

/// CPU time of this thread. The kernel counts it at its ticks, a few milliseconds apart.
fn cpu_time_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    stat.split(' ').next().and_then(|ns| ns.parse().ok()).expect("a number")
}

/// Milliseconds of CPU time that `work` takes: the median of the rounds, and an answer.
fn median_ms<T>(rounds: usize, mut work: impl FnMut() -> T) -> (f64, T) {
    let start = Instant::now();
    let answer = work();
    let repeats = if rounds == 1 { 1 } else { (ROUND_NS / start.elapsed().as_nanos().max(1)).max(1) };
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            let start_ns = cpu_time_ns();
            for _ in 0..repeats {
                std::hint::black_box(work());
            }
            (cpu_time_ns() - start_ns) as f64 / 1e6 / repeats as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[rounds / 2], answer)
}

fn main() {
    let is_test = std::env::args().any(|argument| argument == "--test");
    let (rounds, account_count, tx_count) = if is_test {
        (1, 100, 20)
    } else {
        (ROUNDS, setting("STATELESS_ACCOUNTS", 100_000), setting("STATELESS_TRANSFERS", 1_000))
    };
    let spec = spec(account_count, tx_count);
    let strangers: Vec<Address> = spec.genesis.alloc.keys().copied().collect();
    let mut chain = BenchChain::new(spec.clone());
    let parent = chain.state().clone();
    let parent_root = parent.root();
    for index in 0..tx_count {
        // A step that shares no factor with the number of accounts visits different ones.
        let to = strangers[(index * 7_919 + 13) % strangers.len()];
        chain.submit(&TestKey::nth(index as u64).transfer(spec.chain_id, 0, to, 1));
    }
    let sealed = chain.finish_block();
    assert_eq!(sealed.block.transactions.len(), tx_count);

    let block_bytes = block_rlp(&sealed);
    let block = StatelessBlock::decode(&block_bytes).expect("our own block");
    let accesses = accesses(&spec, &parent, &sealed.block.context, &block.transactions);
    let parent_header = alloy_rlp::encode(spec.genesis_header(parent_root));
    assert_eq!(keccak256(&parent_header), block.header.parent_hash);
    let witness_bytes = Bytes::from(witness(&parent, parent_header, &accesses).encode());

    let (decode_ms, witness) = median_ms(rounds, || Witness::decode(&witness_bytes).expect("encoded above"));
    let (recover_ms, _) = median_ms(rounds, || StatelessBlock::decode(&block_bytes).expect("encoded above"));
    let (index_ms, _) = median_ms(rounds, || PartialState::new(&parent_root, &witness).fault());
    let run = |strictness| validate(&spec, &block, &witness, strictness).expect("a valid block");
    let (normal_ms, validated) = median_ms(rounds, || run(Strictness::NORMAL));
    let changes = &validated.executed.changes;
    let (root_ms, root) = median_ms(rounds, || -> B256 {
        PartialState::new(&parent_root, &witness).root_after(changes).expect("the whole witness")
    });
    assert_eq!(root, block.header.state_root);
    let (canonical_ms, _) = median_ms(rounds, || run(Strictness::CANONICAL));
    let (whole_ms, _) =
        median_ms(rounds, || validate_bytes(&spec, &block_bytes, &witness_bytes, Strictness::NORMAL).expect("valid"));

    println!(
        "{tx_count} transfers, {account_count} accounts, witness {} nodes, {} bytes",
        witness.state.len(),
        witness_bytes.len()
    );
    println!("{normal_ms:8.3} ms  validate, senders known, normal mode; in it:");
    println!("{index_ms:8.3} ms    entries hashed");
    println!("{:8.3} ms    state root after the changes", root_ms - index_ms);
    println!("{canonical_ms:8.3} ms  validate, senders known, canonical mode");
    println!("{decode_ms:8.3} ms  witness decoded");
    println!("{recover_ms:8.3} ms  block decoded, senders recovered");
    println!("{whole_ms:8.3} ms  bytes to roots, normal mode");
}
