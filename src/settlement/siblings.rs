//! Siblings that a cut needs and a canonical witness lacks, from whoever has the state.
//!
//! Input → output: places in tries → questions, answers → nodes, believed by their hashes alone. Pure. Two ways:
//!
//! * A client whose database holds nodes by their hashes is asked for the node (`debug_dbGet`), however deep it lies. go-ethereum does that with
//!   `--state.scheme hash --gcmode archive`, for every block; without an archive, or by path, it answers that there is no such key.
//! * Any client gives the nodes on the way to a key (`eth_getProof`). Nobody knows a key below an untouched sibling, but any will do whose hash begins like
//!   the sibling's path: they are found by trying, all of a block's at once. That costs about 16 hashes for the first nibble of the path and 16 times as many for
//!   each further one, so it is for shallow ones: whoever pays for two slots with hashes of 9 equal nibbles puts a sibling 10 deep.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use serde_json::{Value, json};

use crate::crypto::keccak::{keccak256, keccak256_each};
use crate::primitives::{Address, B256, Bytes};
use crate::witness::validator::nodes::NodePlace;
use crate::witness::validator::trie::MissingSibling;

/// Nibbles of a path that are looked for by trying: about a million hashes.
const DEPTH_MAX: usize = 5;
/// Messages hashed at a time.
const BATCH: usize = 512;
/// Rounds without a hit, as a multiple of what one hit needs on average, until it is given up: it comes to that with probability e^-64.
const PATIENCE: u64 = 64;

/// The first nibbles of paths of one depth, and which places look for them.
type Prefixes = HashMap<u64, Vec<usize>, RandomState>;

/// A question for `eth_getProof`: an account, and slots of its storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub address: Address,
    pub slots: Vec<B256>,
}

impl Question {
    /// The parameters of `eth_getProof` for the state after a block.
    #[must_use]
    pub fn params(&self, number: u64) -> Vec<u8> {
        json!([self.address, self.slots, format!("{number:#x}")]).to_string().into_bytes()
    }
}

/// The parameters of `debug_dbGet` for a sibling.
#[must_use]
pub fn key_params(sibling: &MissingSibling) -> Vec<u8> {
    json!([sibling.hash]).to_string().into_bytes()
}

/// The node in an answer of `debug_dbGet`; `None`: it is another.
#[must_use]
pub fn node(answer: &Value, sibling: &MissingSibling) -> Option<Bytes> {
    let node = answer.as_str()?.parse::<Bytes>().ok()?;
    (keccak256(&node) == sibling.hash).then_some(node)
}

/// What to ask `eth_getProof` for. `owners`: the addresses of accounts whose storage may be meant. Of siblings that lie too deep, or in the storage of somebody
/// unknown, there is no question.
#[must_use]
pub fn questions(missing: &[MissingSibling], owners: &[Address]) -> Vec<Question> {
    let owners: HashMap<B256, Address, RandomState> =
        owners.iter().map(|address| (keccak256(address.as_slice()), *address)).collect();
    let shallow = missing.iter().map(|sibling| &sibling.place).filter(|place| place.depth <= DEPTH_MAX);
    let (in_accounts, in_storage): (Vec<&NodePlace>, Vec<&NodePlace>) =
        shallow.partition(|place| place.owner.is_none());
    let mut questions = Vec::with_capacity(missing.len());
    for key in find_keys(&in_accounts, 20).into_iter().flatten() {
        questions.push(Question { address: Address::from_slice(&key[12..]), slots: Vec::new() });
    }
    for (place, slot) in in_storage.iter().zip(find_keys(&in_storage, 32)) {
        let owner = place.owner.and_then(|owner| owners.get(&owner));
        if let (Some(address), Some(slot)) = (owner, slot) {
            questions.push(Question { address: *address, slots: vec![slot] });
        }
    }
    questions
}

/// Those that are not among what was found.
#[must_use]
pub fn left(mut missing: Vec<MissingSibling>, found: &[Bytes]) -> Vec<MissingSibling> {
    let found: HashSet<B256, RandomState> = found.iter().map(|node| keccak256(node)).collect();
    missing.retain(|sibling| !found.contains(&sibling.hash));
    missing
}

/// The deepest of them, in nibbles.
#[must_use]
pub fn depth_max(missing: &[MissingSibling]) -> usize {
    missing.iter().map(|sibling| sibling.place.depth).max().unwrap_or(0)
}

/// For each place a word whose last `len` bytes have a hash that leads there; `None`: not found with patience. At most [`DEPTH_MAX`] deep.
fn find_keys(places: &[&NodePlace], len: usize) -> Vec<Option<B256>> {
    let mut found: Vec<Option<B256>> = vec![None; places.len()];
    let mut wanted: Vec<(usize, Prefixes)> = Vec::new();
    for (index, place) in places.iter().enumerate() {
        let at = wanted.iter().position(|(depth, _)| *depth == place.depth).unwrap_or_else(|| {
            wanted.push((place.depth, Prefixes::default()));
            wanted.len() - 1
        });
        wanted[at].1.entry(first_nibbles(&place.path, place.depth)).or_default().push(index);
    }
    let depth_max = wanted.iter().map(|(depth, _)| *depth).max().unwrap_or(0);
    let (mut left, mut tried) = (places.len(), 0_u64);
    let mut messages = vec![B256::ZERO; BATCH];
    while left > 0 {
        if tried / PATIENCE > 1 << (4 * depth_max) {
            break;
        }
        for message in &mut messages {
            tried += 1;
            message[24..].copy_from_slice(&tried.to_be_bytes());
        }
        keccak256_each(
            BATCH,
            |index| &messages[index][32 - len..],
            |index, hash| {
                for (depth, prefixes) in &mut wanted {
                    for place in prefixes.remove(&first_nibbles(&hash, *depth)).unwrap_or_default() {
                        found[place] = Some(messages[index]);
                        left -= 1;
                    }
                }
            },
        );
    }
    found
}

fn first_nibbles(path: &B256, depth: usize) -> u64 {
    let word = u64::from_be_bytes(std::array::from_fn(|index| path[index]));
    // At most 16 nibbles, and the root of a trie is nobody's sibling.
    word >> (64 - 4 * depth.clamp(1, 16))
}

/// The nodes that were looked for, among those of an answer of `eth_getProof`.
pub fn nodes<'a>(answer: &'a Value, missing: &'a [MissingSibling]) -> impl Iterator<Item = Bytes> + 'a {
    let storage = answer["storageProof"].as_array().into_iter().flatten();
    let proofs = std::iter::once(&answer["accountProof"]).chain(storage.map(|slot| &slot["proof"]));
    let nodes = proofs.filter_map(Value::as_array).flatten();
    nodes.filter_map(|node| node.as_str()?.parse::<Bytes>().ok()).filter(|node| {
        let hash = keccak256(node);
        missing.iter().any(|sibling| sibling.hash == hash)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::witness::validator::node::nibble;

    fn place(owner: Option<B256>, path: &str) -> NodePlace {
        let digits = path.bytes().map(|digit| (digit as char).to_digit(16).expect("a nibble") as u8);
        let mut key = B256::ZERO;
        digits
            .enumerate()
            .for_each(|(index, digit)| crate::witness::validator::node::set_nibble(&mut key, index, digit));
        NodePlace { owner, path: key, depth: path.len() }
    }

    #[test]
    fn a_key_leads_to_each_place() {
        let places = ["0", "f", "12", "12", "abc", "0000", "fff0"].map(|path| place(None, path));
        for len in [20, 32] {
            let keys = find_keys(&places.iter().collect::<Vec<_>>(), len);
            assert_eq!(keys.len(), places.len());
            for (place, key) in places.iter().zip(keys) {
                let hash = keccak256(&key.expect("it is found")[32 - len..]);
                let leads = (0..place.depth).all(|index| nibble(&hash, index) == nibble(&place.path, index));
                assert!(leads, "{place}: {hash}");
            }
        }
    }

    #[test]
    fn who_is_meant_and_what_came_is_known_by_hash() {
        let address = Address::repeat_byte(7);
        let owner = keccak256(address.as_slice());
        let node = Bytes::from(vec![0xc0; 40]);
        let hash = keccak256(&node);
        let missing = [place(Some(owner), "3"), place(None, "4")].map(|place| MissingSibling { hash, place });
        let asked = questions(&missing, &[Address::ZERO, address]);
        assert_eq!((asked[1].address, asked[1].slots.len(), asked[0].slots.len()), (address, 1, 0));
        let text = String::from_utf8(asked[1].params(9)).expect("JSON");
        assert!(text.starts_with("[\"0x0707") && text.ends_with(",\"0x9\"]"), "{text}");
        assert_eq!(questions(&missing[..1], &[]), [], "nobody knows whose storage it is");
        let answer = json!({"accountProof": ["0xc1", "0x"], "storageProof": [{"key": "0x0", "proof": [node, "0xc2"]}]});
        assert_eq!(nodes(&answer, &missing).collect::<Vec<_>>(), [node]);
    }

    #[test]
    fn a_deep_one_is_asked_for_by_its_hash_alone() {
        let node_there = Bytes::from(vec![0xc0; 40]);
        let (owner, address) = (keccak256(Address::ZERO.as_slice()), Address::ZERO);
        for (path, asked_count) in [("12345", 1), ("123456", 0), ("1234567890", 0)] {
            let sibling = MissingSibling { hash: keccak256(&node_there), place: place(Some(owner), path) };
            let missing = [sibling.clone()];
            assert_eq!(questions(&missing, &[address]).len(), asked_count, "{path}");
            assert_eq!(depth_max(&missing), path.len());
            assert_eq!(left(missing.to_vec(), &[Bytes::new()]), missing);
            assert_eq!(left(missing.to_vec(), &[Bytes::new(), node_there.clone()]), []);
            assert_eq!(key_params(&sibling), format!("[\"{}\"]", sibling.hash).into_bytes());
            assert_eq!(node(&json!(node_there), &sibling), Some(node_there.clone()));
            for other in [json!("0xc0c0"), json!("c"), json!(null)] {
                assert_eq!(node(&other, &sibling), None, "{other}");
            }
        }
    }
}
