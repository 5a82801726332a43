//! Merkle proofs (EIP-1186): the nodes from a root towards a key.

use alloy_primitives::{Address, Bytes, U256};

use super::node::{Key, Node, Position, key_words, nibble, shared_nibbles};
use super::segment::Segments;
use super::{Version, find};
use crate::crypto::keccak::keccak256;
use crate::state::{AccountProof, SlotProof, StateError};

pub fn proof(version: &Version, address: &Address, slots: &[U256]) -> Result<AccountProof, StateError> {
    let key = key_words(&keccak256(address.as_slice()));
    let leaf = version.account_leaf(&key)?;
    let storage_node = leaf.map_or(0, |leaf| leaf.storage);
    let storage =
        slots.iter().map(|slot| slot_proof(&version.segments, storage_node, *slot)).collect::<Result<_, _>>()?;
    Ok(AccountProof {
        address: *address,
        account: leaf.map(|leaf| leaf.account),
        account_proof: path(&version.segments, version.root_node, &key)?,
        storage,
    })
}

fn slot_proof(segments: &Segments, root: Position, slot: U256) -> Result<SlotProof, StateError> {
    let key = key_words(&keccak256(&slot.to_be_bytes::<32>()));
    let value = match find(segments, root, &key)? {
        Some(Node::Slot(leaf)) => leaf.value,
        _ => U256::ZERO,
    };
    Ok(SlotProof { slot, value, proof: path(segments, root, &key)? })
}

/// RLP of the nodes on the way to `key`. Embedded nodes are in the RLP of their parents already.
fn path(segments: &Segments, root: Position, key: &Key) -> Result<Vec<Bytes>, StateError> {
    let mut proof = Vec::new();
    let mut position = root;
    let mut depth = 0;
    while position != 0 {
        let node = segments.node(position)?;
        let mut rlp = Vec::new();
        node.encode(depth, &mut rlp);
        if proof.is_empty() || rlp.len() >= 32 {
            proof.push(Bytes::from(rlp));
        }
        position = match node {
            Node::Branch(branch) => {
                depth += 1;
                branch.child(nibble(key, depth - 1)).node
            }
            Node::Extension(extension) if shared_nibbles(key, &extension.path) >= extension.end => {
                depth = extension.end;
                extension.child.node
            }
            Node::Extension(_) | Node::Account(_) | Node::Slot(_) => 0,
        };
    }
    Ok(proof)
}
