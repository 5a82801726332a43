//! The vector code against libsecp256k1 and against plain big numbers, on every engine there is.
//!
//! Short by default: `SEQUENCER_LONG=1` recovers 1,200,000 random signatures and a multiple of everything else.

mod arithmetic;
mod edges;
mod safety;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use secp256k1::{Message, SECP256K1, SecretKey};

use super::batch::{Input, Workspace};
use super::lanes::Engine;
use super::model::{Intervals, Words};
use super::net::Net;
use super::tables::{Tables, tables};
use super::vectors::{Worker, recover};
use super::*;

fn is_long() -> bool {
    std::env::var_os("SEQUENCER_LONG").is_some_and(|value| !value.is_empty())
}

#[cfg(target_arch = "x86_64")]
type Detected = super::avx512::Avx512;
#[cfg(not(target_arch = "x86_64"))]
type Detected = Words;

fn detect() -> Option<Detected> {
    #[cfg(target_arch = "x86_64")]
    return super::avx512::Avx512::detect();
    #[cfg(not(target_arch = "x86_64"))]
    None
}

/// Says on standard output which engine a test has run on: a processor without the instructions tests the model alone.
fn detected(test: &str) -> Option<Detected> {
    let engine = detect();
    println!("{test}: {}", if engine.is_some() { "AVX-512 IFMA" } else { "no AVX-512 IFMA here, the model alone" });
    engine
}

fn random_item(random: &mut StdRng) -> RecoverItem {
    let digest = B256::from(random.random::<[u8; 32]>());
    let key = SecretKey::from_byte_array(random.random()).expect("almost every number is a key");
    let signature = SECP256K1.sign_ecdsa_recoverable(Message::from_digest(digest.0), &key);
    let (recovery_id, compact) = signature.serialize_compact();
    RecoverItem {
        digest,
        r: compact[..32].try_into().expect("32 bytes"),
        s: compact[32..].try_into().expect("32 bytes"),
        y_parity: i32::from(recovery_id) as u8 & 1,
    }
}

/// Recovers by an engine with a net that compares nothing, and returns the senders and how many lanes were flagged.
fn recover_by(engine: impl Engine, items: &[RecoverItem]) -> (Vec<Result<Address, RecoverError>>, u64) {
    thread_local! {
        static WORKER: std::cell::RefCell<Option<Worker>> = const { std::cell::RefCell::new(None) };
    }
    let net = Net::with_interval(0);
    let mut senders = vec![Err(RecoverError::YParity(99)); items.len()];
    WORKER.with_borrow_mut(|worker| {
        recover(engine, tables(), &net, worker.get_or_insert_with(Worker::new), items, &mut senders);
    });
    (senders, net.counts()[1])
}

fn expected(items: &[RecoverItem]) -> Vec<Result<Address, RecoverError>> {
    let mut senders = vec![Err(RecoverError::YParity(99)); items.len()];
    recover_one_by_one(items, &mut senders);
    senders
}

#[track_caller]
fn compare(engine: impl Engine, items: &[RecoverItem], expected: &[Result<Address, RecoverError>]) -> u64 {
    let (senders, flagged) = recover_by(engine, items);
    for (index, (sender, expected)) in senders.iter().zip(expected).enumerate() {
        assert_eq!(sender, expected, "item {index} of {}: {:?}", items.len(), items[index]);
    }
    flagged
}

#[test]
fn random_signatures_equal_libsecp256k1() {
    let Some(engine) = detected("random signatures") else { return };
    let count = if is_long() { 1_200_000 } else { 4_000 };
    let seed = if is_long() { rand::rng().random() } else { 1 };
    let mut random = StdRng::seed_from_u64(seed);
    let mut done = 0;
    let mut flagged = 0;
    while done < count {
        let items: Vec<_> = (0..random.random_range(3..=300)).map(|_| random_item(&mut random)).collect();
        flagged += compare(engine, &items, &expected(&items));
        done += items.len();
    }
    println!("{done} random signatures from seed {seed}, {flagged} flagged");
    assert_eq!(flagged, 0, "a random signature is flagged once in 2^120 times");
}

#[test]
fn every_batch_length_is_recovered_in_order() {
    let Some(engine) = detected("batch lengths") else { return };
    let mut random = StdRng::seed_from_u64(2);
    let items: Vec<_> = (0..257).map(|_| random_item(&mut random)).collect();
    let all = expected(&items);
    for length in (0..=40).chain(120..=136).chain(255..=257) {
        let start = if length <= 200 { 3 } else { 0 };
        let range = start..start + length;
        compare(engine, &items[range.clone()], &all[range.clone()]);
        let mut senders = vec![Err(RecoverError::YParity(99)); length];
        recover_batch(&items[range.clone()], &mut senders);
        assert_eq!(senders, all[range], "recover_batch of {length}");
    }
}

#[test]
fn the_word_model_equals_libsecp256k1() {
    let mut random = StdRng::seed_from_u64(3);
    for length in [3, 8, 9, 17] {
        let items: Vec<_> = (0..length).map(|_| random_item(&mut random)).collect();
        assert_eq!(compare(Words, &items, &expected(&items)), 0);
    }
}

/// Every bound of the whole computation for every input there can be: the intervals go through all stages as the numbers do.
#[test]
fn no_bound_is_broken_whatever_the_input() {
    let input = |_| Input { scalars: super::batch::NO_INPUT.scalars, is_odd: true };
    for count in [8, 16, 24] {
        Workspace::default().recover(Intervals, tables(), count, input);
    }
}

#[test]
fn the_workspace_is_as_large_as_the_documents_say() {
    println!("{WORKSPACE_BYTES} bytes a thread");
    assert!((540_000..=600_000).contains(&WORKSPACE_BYTES), "{WORKSPACE_BYTES} bytes: change `batch.rs` and the notes");
}
