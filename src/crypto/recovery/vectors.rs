//! Items in, senders out, by the vectors: ranges first, then batches, then whatever libsecp256k1 has to decide or to confirm.

use std::hash::{BuildHasher, RandomState};

use super::batch::{self, ITEMS_MAX, Input, NO_INPUT, Workspace};
use super::lanes::Engine;
use super::net::{Disagreement, Net};
use super::scalars::Scalars;
use super::tables::Tables;
use super::{
    RecoverError, RecoverItem, VECTOR_ITEMS_MIN, address_each, address_of_hash, check_ranges, recover_key,
    recover_one_by_one,
};
use crate::crypto::keccak::keccak256;
use crate::primitives::Address;

/// What [`Worker`] allocates.
pub const WORKER_BYTES: usize = batch::WORKSPACE_BYTES + ITEMS_MAX * size_of::<[u8; 64]>();

/// What a thread keeps between batches.
pub struct Worker {
    workspace: Workspace,
    keys: Vec<[u8; 64]>,
    sampler: Sampler,
}

impl Worker {
    pub fn new() -> Self {
        Self { workspace: Workspace::default(), keys: vec![[0; 64]; ITEMS_MAX], sampler: Sampler::new() }
    }
}

/// [`super::recover_batch`] with the worker of this thread and the tables and the net of the process.
#[cfg(target_arch = "x86_64")]
pub fn recover_on_this_thread(
    engine: super::avx512::Avx512,
    items: &[RecoverItem],
    senders: &mut [Result<Address, RecoverError>],
) {
    use std::cell::RefCell;

    thread_local! {
        static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
    }
    WORKER.with_borrow_mut(|worker| {
        let worker = worker.get_or_insert_with(Worker::new);
        recover(engine, super::tables::tables(), super::net::process_net(), worker, items, senders);
    });
}

/// [`super::recover_batch`] by the vectors, in batches as large as the workspace, until the net stops them.
///
/// Shapes: `items` and `senders` are both `[n]`, same order.
pub fn recover(
    engine: impl Engine,
    tables: &Tables,
    net: &Net,
    worker: &mut Worker,
    items: &[RecoverItem],
    senders: &mut [Result<Address, RecoverError>],
) {
    for (items, senders) in items.chunks(ITEMS_MAX).zip(senders.chunks_mut(ITEMS_MAX)) {
        let is_whole = items.len() >= VECTOR_ITEMS_MIN
            && !net.is_stopped()
            && recover_chunk(engine, tables, net, worker, items, senders);
        if !is_whole {
            recover_one_by_one(items, senders);
        }
    }
}

/// False: a sampled signature was recovered wrong, so none of these senders counts.
fn recover_chunk(
    engine: impl Engine,
    tables: &Tables,
    net: &Net,
    worker: &mut Worker,
    items: &[RecoverItem],
    senders: &mut [Result<Address, RecoverError>],
) -> bool {
    let Worker { workspace, keys, sampler } = worker;
    workspace.recover(engine, tables, items.len(), |index| input(&items[index]));
    let keys = &mut keys[..items.len()];
    let (mut flagged, mut checked) = (0, 0);
    for (index, ((item, sender), key)) in items.iter().zip(senders.iter_mut()).zip(keys.iter_mut()).enumerate() {
        let is_sample = sampler.next(net.check_interval());
        if check_ranges(&item.r, &item.s, item.y_parity).is_err() || !workspace.key(index, key) {
            flagged += 1;
            *sender = recover_key(item, key).map(|()| Address::ZERO);
            continue;
        }
        *sender = Ok(Address::ZERO);
        if is_sample {
            checked += 1;
            if let Some(disagreement) = disagreement(item, key) {
                net.count(items.len(), flagged, checked);
                net.disagree(disagreement);
                return false;
            }
        }
    }
    net.count(items.len(), flagged, checked);
    address_each(keys, senders);
    true
}

/// The numbers of a signature, or those of a stand-in when they are out of range: the lane's result is then not asked for.
fn input(item: &RecoverItem) -> Input {
    if check_ranges(&item.r, &item.s, item.y_parity).is_err() {
        return NO_INPUT;
    }
    let scalars = Scalars { r: words(&item.r), s: words(&item.s), z: words(&item.digest.0) };
    Input { scalars, is_odd: item.y_parity == 1 }
}

/// 64-bit words of a big-endian number, lowest first.
fn words(bytes: &[u8; 32]) -> [u64; 4] {
    let words = bytes.as_chunks::<8>().0;
    [3, 2, 1, 0].map(|index: usize| u64::from_be_bytes(words[index]))
}

/// Recovers by libsecp256k1 what the vectors have recovered. `None`: both ways lead to the same key.
fn disagreement(item: &RecoverItem, key: &[u8; 64]) -> Option<Disagreement> {
    let mut expected = [0; 64];
    let result = recover_key(item, &mut expected);
    if result.is_ok() && expected == *key {
        return None;
    }
    Some(Disagreement {
        item: *item,
        vectors: address_of_hash(keccak256(key)),
        libsecp256k1: result.map(|()| address_of_hash(keccak256(&expected))),
    })
}

/// Says which signatures are compared: one in `interval` on average, at distances that nobody can foresee.
struct Sampler {
    state: u64,
    left: u32,
}

impl Sampler {
    /// The standard library seeds its hash maps from the system's random bytes.
    fn new() -> Self {
        Self { state: RandomState::new().hash_one(0) | 1, left: 0 }
    }

    fn next(&mut self, interval: u32) -> bool {
        if interval == 0 {
            return false;
        }
        if self.left == 0 {
            self.left = self.distance(interval);
        }
        self.left -= 1;
        self.left == 0
    }

    /// 1 to 2 · `interval` − 1, each as likely as the other. Marsaglia's xorshift64*.
    fn distance(&mut self, interval: u32) -> u32 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let random = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        // Below 2^32 times 2^33, shifted down to below 2^33 − 1, and then a u32 because the interval's setting is below 2^31.
        let span = 2 * u64::from(interval) - 1;
        1 + ((random * span) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_an_interval_is_sampled_on_average() {
        for interval in [1, 2, 10, 1_000] {
            let mut sampler = Sampler::new();
            let rounds = 2_000 * interval;
            let sampled = (0..rounds).filter(|_| sampler.next(interval)).count();
            // The standard deviation is below 26; ten of it do not happen.
            assert!((1_740..=2_260).contains(&sampled), "1 in {interval}: {sampled} of {rounds}, expected about 2000");
        }
        assert!((0..10_000).all(|_| !Sampler::new().next(0)));
    }
}
