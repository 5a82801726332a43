//! Merkle proofs (EIP-1186): the nodes from a root towards a key.

use alloy_primitives::{Address, Bytes, U256};

use super::node::{Key, Node, Position, key_words, nibble, shared_nibbles};
use super::{Space, account_leaf, find};
use crate::crypto::keccak::keccak256;
use crate::state::{AccountProof, SlotProof, StateError};

pub fn proof<S: Space>(
    space: &S,
    root: Position,
    address: &Address,
    slots: &[U256],
) -> Result<AccountProof, StateError> {
    let key = key_words(&keccak256(address.as_slice()));
    let leaf = account_leaf(space, root, &key)?;
    let storage_node = leaf.map_or(0, |leaf| leaf.storage);
    let storage = slots.iter().map(|slot| slot_proof(space, storage_node, *slot)).collect::<Result<_, _>>()?;
    Ok(AccountProof {
        address: *address,
        account: leaf.map(|leaf| leaf.account),
        account_proof: path(space, root, &key)?,
        storage,
    })
}

fn slot_proof<S: Space>(space: &S, root: Position, slot: U256) -> Result<SlotProof, StateError> {
    let key = key_words(&keccak256(&slot.to_be_bytes::<32>()));
    let value = match find(space, root, &key)? {
        Some(Node::Slot(leaf)) => leaf.value,
        _ => U256::ZERO,
    };
    Ok(SlotProof { slot, value, proof: path(space, root, &key)? })
}

/// RLP of the nodes on the way to `key`. Embedded nodes are in the RLP of their parents already.
fn path<S: Space>(space: &S, root: Position, key: &Key) -> Result<Vec<Bytes>, StateError> {
    let mut proof = Vec::new();
    let mut position = root;
    let mut depth = 0;
    while position != 0 {
        let node = space.node(position)?;
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
            Node::Extension(_) | Node::Account(_) | Node::Slot(_) | Node::Code(_) => 0,
        };
    }
    Ok(proof)
}
