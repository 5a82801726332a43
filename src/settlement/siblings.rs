//! Siblings that a cut needs and a canonical witness lacks, from whoever has the state: `eth_getProof` gives the nodes on the way to a key.
//!
//! Input → output: places in tries → keys whose ways lead there ([`find_keys`]), questions, answers → nodes, believed by their hashes alone. Pure. Nobody knows
//! a key below an untouched sibling, but any will do whose hash begins like the sibling's path: they are found by trying, all of a block's at once. That costs
//! about 16 hashes for the first nibble of the path and 16 times as many for each further one.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use serde_json::{Value, json};

use crate::crypto::keccak::{keccak256, keccak256_each};
use crate::primitives::{Address, B256, Bytes};
use crate::witness::validator::nodes::NodePlace;
use crate::witness::validator::trie::MissingSibling;

/// Nibbles of a path that are looked for: a sibling that lies deeper is not found in minutes. 16^7 accounts, or slots of one account, are far more than a chain has.
const DEPTH_MAX: usize = 8;
/// Messages hashed at a time.
const BATCH: usize = 512;
/// Rounds without a hit, as a multiple of what one hit needs on average, until it is given up: it comes to that with probability e^-64.
const PATIENCE: u64 = 64;

/// The first nibbles of paths of one depth, and which places look for them.
type Prefixes = HashMap<u64, Vec<usize>, RandomState>;

/// Why a sibling cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SiblingError {
    #[error("{0} nibbles deep: no key that leads there is found in reasonable time")]
    TooDeep(usize),
    #[error("the storage of the account with key {0} is not among what the block asked for")]
    OwnerUnknown(B256),
}

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

/// What to ask for. `owners`: the addresses of accounts whose storage may be meant.
///
/// # Errors
/// A sibling that cannot be had.
pub fn questions(missing: &[MissingSibling], owners: &[Address]) -> Result<Vec<Question>, SiblingError> {
    let owners: HashMap<B256, Address, RandomState> =
        owners.iter().map(|address| (keccak256(address.as_slice()), *address)).collect();
    let (in_accounts, in_storage): (Vec<&NodePlace>, Vec<&NodePlace>) =
        missing.iter().map(|sibling| &sibling.place).partition(|place| place.owner.is_none());
    let mut questions = Vec::with_capacity(missing.len());
    for key in find_keys(&in_accounts, 20)? {
        questions.push(Question { address: Address::from_slice(&key[12..]), slots: Vec::new() });
    }
    for (place, slot) in in_storage.iter().zip(find_keys(&in_storage, 32)?) {
        let owner = place.owner.unwrap_or_default();
        let address = *owners.get(&owner).ok_or(SiblingError::OwnerUnknown(owner))?;
        questions.push(Question { address, slots: vec![slot] });
    }
    Ok(questions)
}

/// For each place a word whose last `len` bytes have a hash that leads there.
fn find_keys(places: &[&NodePlace], len: usize) -> Result<Vec<B256>, SiblingError> {
    let mut found: Vec<Option<B256>> = vec![None; places.len()];
    let mut wanted: Vec<(usize, Prefixes)> = Vec::new();
    for (index, place) in places.iter().enumerate() {
        if place.depth > DEPTH_MAX {
            return Err(SiblingError::TooDeep(place.depth));
        }
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
            return Err(SiblingError::TooDeep(depth_max));
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
    Ok(found.into_iter().flatten().collect())
}

fn first_nibbles(path: &B256, depth: usize) -> u64 {
    let word = u64::from_be_bytes(std::array::from_fn(|index| path[index]));
    // At most 8 nibbles, and the root of a trie is nobody's sibling.
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
            let keys = find_keys(&places.iter().collect::<Vec<_>>(), len).expect("shallow");
            assert_eq!(keys.len(), places.len());
            for (place, key) in places.iter().zip(keys) {
                let hash = keccak256(&key[32 - len..]);
                let leads = (0..place.depth).all(|index| nibble(&hash, index) == nibble(&place.path, index));
                assert!(leads, "{place}: {hash}");
            }
        }
        assert_eq!(find_keys(&[&place(None, "123456789")], 20), Err(SiblingError::TooDeep(9)));
    }

    #[test]
    fn who_is_meant_and_what_came_is_known_by_hash() {
        let address = Address::repeat_byte(7);
        let owner = keccak256(address.as_slice());
        let node = Bytes::from(vec![0xc0; 40]);
        let hash = keccak256(&node);
        let missing = [place(Some(owner), "3"), place(None, "4")].map(|place| MissingSibling { hash, place });
        let asked = questions(&missing, &[Address::ZERO, address]).expect("it is known");
        assert_eq!((asked[1].address, asked[1].slots.len(), asked[0].slots.len()), (address, 1, 0));
        let text = String::from_utf8(asked[1].params(9)).expect("JSON");
        assert!(text.starts_with("[\"0x0707") && text.ends_with(",\"0x9\"]"), "{text}");
        assert_eq!(questions(&missing, &[]), Err(SiblingError::OwnerUnknown(owner)));
        let answer = json!({"accountProof": ["0xc1", "0x"], "storageProof": [{"key": "0x0", "proof": [node, "0xc2"]}]});
        assert_eq!(nodes(&answer, &missing).collect::<Vec<_>>(), [node]);
    }
}
