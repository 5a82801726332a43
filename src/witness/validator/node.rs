//! A trie node as its RLP says it is, strictly: whatever the state's own code could not have made is refused.
//!
//! Input → output: the RLP of a node and the path it was reached by → a [`NodeView`] that borrows from it. Owner core: any.
//! Keys and paths are absolute: 32 bytes of which the first nibbles are the path from the root, so a node can move up or down without
//! being written anew.
//! Source: yellow paper, appendix D.

use alloy_primitives::{B256, U256};

use crate::codec::transaction::RlpFault;
use crate::witness::rlp::{Item, integer, split};

/// Nibbles of a hashed key.
pub const KEY_NIBBLES: usize = 64;
/// Children of a branch.
pub const WIDTH: usize = 16;
/// A child of this many bytes is named by its hash, a shorter one stands in its parent.
pub const HASHED_BYTES_MIN: usize = 32;

/// How a parent names a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildRef<'w> {
    Empty,
    Hash(&'w B256),
    /// The child's RLP, shorter than a hash.
    Embedded(&'w [u8]),
}

/// A node of the state before.
#[allow(clippy::large_enum_variant, reason = "it lives on the stack for one step of a walk, and most are branches")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeView<'w> {
    Branch([ChildRef<'w>; WIDTH]),
    /// Nibbles `0..end` of `path` lead to the child.
    Extension {
        path: B256,
        end: usize,
        child: ChildRef<'w>,
    },
    Leaf {
        key: B256,
        value: &'w [u8],
    },
}

/// An account of the state before, as its leaf has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountView<'w> {
    pub nonce: u64,
    pub balance_wei: U256,
    pub storage_root: &'w B256,
    pub code_hash: &'w B256,
}

/// Why bytes are no node of a state trie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeFault {
    #[error("{0}")]
    Rlp(#[from] RlpFault),
    #[error("{bytes} bytes stand behind it")]
    TrailingBytes { bytes: usize },
    #[error("it has {count} items; a branch has 17, a leaf or an extension 2")]
    ItemCount { count: usize },
    #[error("it has {bytes} bytes and is named by its hash; below {HASHED_BYTES_MIN} it would stand in its parent")]
    HashedTooShort { bytes: usize },
    #[error("it stands in its parent with {bytes} bytes; from {HASHED_BYTES_MIN} on it would be named by its hash")]
    EmbeddedTooLong { bytes: usize },
    #[error("a child is named by {bytes} bytes, a hash has 32")]
    ChildLength { bytes: usize },
    #[error("a branch has a value of {bytes} bytes; every key of a state has 64 nibbles")]
    BranchValue { bytes: usize },
    #[error("a branch has {count} children, at least two are needed")]
    BranchChildren { count: usize },
    #[error("an extension's child is no branch")]
    ExtensionChild,
    #[error("its path starts with byte {byte:#04x}, which is no canonical hex prefix")]
    HexPrefix { byte: u8 },
    #[error("its path is empty")]
    PathEmpty,
    #[error("it ends {nibbles} nibbles below the root; leaves end at {KEY_NIBBLES}, everything else above")]
    Depth { nibbles: usize },
    #[error("a leaf's value is empty")]
    ValueEmpty,
    #[error("a leaf is no account: {what}")]
    Account { what: &'static str },
    #[error("a leaf is no slot value: {what}")]
    Slot { what: &'static str },
}

impl<'w> NodeView<'w> {
    /// Reads the node with the RLP `rlp`, reached by the first `depth` nibbles of `path`.
    ///
    /// # Errors
    /// What no trie of a state could hold.
    pub fn parse(rlp: &'w [u8], path: &B256, depth: usize) -> Result<Self, NodeFault> {
        let (item, rest) = split(rlp)?;
        let items = item.list()?;
        if !rest.is_empty() {
            return Err(NodeFault::TrailingBytes { bytes: rest.len() });
        }
        let (first, rest) = split(items)?;
        let (second, rest) = split(rest)?;
        if rest.is_empty() { short(first, second, path, depth) } else { branch(items, depth) }
    }
}

/// Reads a branch. Absent and hashed children, nearly all there are, are told apart by their first byte.
fn branch(items: &[u8], depth: usize) -> Result<NodeView<'_>, NodeFault> {
    let mut children = [ChildRef::Empty; WIDTH];
    let mut rest = items;
    let mut count = 0;
    for place in &mut children {
        if let [0x80, after @ ..] = rest {
            rest = after;
            continue;
        }
        if let [0xa0, after @ ..] = rest
            && let Some((hash, after)) = after.split_first_chunk::<32>()
        {
            *place = ChildRef::Hash(hash.into());
            rest = after;
        } else {
            if rest.is_empty() {
                return Err(item_count(items));
            }
            let (item, after) = split(rest)?;
            *place = child(item)?;
            rest = after;
        }
        count += 1;
    }
    match rest {
        [0x80] => {}
        [] => return Err(item_count(items)),
        _ => {
            let (value, rest) = split(rest)?;
            return Err(if rest.is_empty() {
                NodeFault::BranchValue { bytes: value.payload.len() }
            } else {
                item_count(items)
            });
        }
    }
    if count < 2 {
        return Err(NodeFault::BranchChildren { count });
    }
    if depth >= KEY_NIBBLES {
        return Err(NodeFault::Depth { nibbles: depth });
    }
    Ok(NodeView::Branch(children))
}

/// Reads a leaf or an extension.
fn short<'w>(first: Item<'w>, second: Item<'w>, path: &B256, depth: usize) -> Result<NodeView<'w>, NodeFault> {
    let prefix = first.string()?;
    let Some(&byte) = prefix.first() else { return Err(NodeFault::PathEmpty) };
    let is_odd = byte & 0x10 != 0;
    if byte & 0xc0 != 0 || !is_odd && byte & 0x0f != 0 {
        return Err(NodeFault::HexPrefix { byte });
    }
    let end = depth + 2 * (prefix.len() - 1) + usize::from(is_odd);
    if byte & 0x20 != 0 {
        if end != KEY_NIBBLES {
            return Err(NodeFault::Depth { nibbles: end });
        }
        let value = second.string()?;
        if value.is_empty() {
            return Err(NodeFault::ValueEmpty);
        }
        return Ok(NodeView::Leaf { key: absolute(prefix, is_odd, path, depth), value });
    }
    if end == depth {
        return Err(NodeFault::PathEmpty);
    }
    if end >= KEY_NIBBLES {
        return Err(NodeFault::Depth { nibbles: end });
    }
    match child(second)? {
        ChildRef::Empty => Err(NodeFault::ChildLength { bytes: 0 }),
        child => Ok(NodeView::Extension { path: absolute(prefix, is_odd, path, depth), end, child }),
    }
}

fn child(item: Item<'_>) -> Result<ChildRef<'_>, NodeFault> {
    if item.is_list {
        let bytes = item.encoded.len();
        return if bytes < HASHED_BYTES_MIN {
            Ok(ChildRef::Embedded(item.encoded))
        } else {
            Err(NodeFault::EmbeddedTooLong { bytes })
        };
    }
    match item.payload {
        [] => Ok(ChildRef::Empty),
        payload => match <&[u8; 32]>::try_from(payload) {
            Ok(hash) => Ok(ChildRef::Hash(hash.into())),
            Err(_) => Err(NodeFault::ChildLength { bytes: payload.len() }),
        },
    }
}

fn item_count(items: &[u8]) -> NodeFault {
    let mut rest = items;
    let mut count = 0;
    while !rest.is_empty() {
        match split(rest) {
            Ok((_, after)) => rest = after,
            Err(fault) => return NodeFault::Rlp(fault),
        }
        count += 1;
    }
    NodeFault::ItemCount { count }
}

/// The first `depth` nibbles of `path`, then those of a hex prefix that was checked to fit.
fn absolute(prefix: &[u8], is_odd: bool, path: &B256, depth: usize) -> B256 {
    let mut key = prefix_of(path, depth);
    let mut at = depth;
    if is_odd {
        set_nibble(&mut key, at, prefix[0] & 0x0f);
        at += 1;
    }
    let pairs = &prefix[1..];
    if at.is_multiple_of(2) {
        key[at / 2..at / 2 + pairs.len()].copy_from_slice(pairs);
    } else {
        for pair in pairs {
            set_nibble(&mut key, at, pair >> 4);
            set_nibble(&mut key, at + 1, pair & 0x0f);
            at += 2;
        }
    }
    key
}

/// The first `count` nibbles of a key, then zeros.
#[must_use]
pub fn prefix_of(key: &B256, count: usize) -> B256 {
    let mut prefix = B256::ZERO;
    prefix[..count / 2].copy_from_slice(&key[..count / 2]);
    if count % 2 == 1 {
        prefix[count / 2] = key[count / 2] & 0xf0;
    }
    prefix
}

/// Nibble `index` of a key, from the left.
#[must_use]
pub fn nibble(key: &B256, index: usize) -> usize {
    usize::from(if index.is_multiple_of(2) { key[index / 2] >> 4 } else { key[index / 2] & 0x0f })
}

/// Replaces nibble `index` of a key.
pub fn set_nibble(key: &mut B256, index: usize, value: u8) {
    let byte = &mut key[index / 2];
    *byte = if index.is_multiple_of(2) { *byte & 0x0f | value << 4 } else { *byte & 0xf0 | value };
}

/// How many leading nibbles two keys share.
#[must_use]
pub fn shared_nibbles(a: &B256, b: &B256) -> usize {
    match a.iter().zip(b.iter()).position(|(a, b)| a != b) {
        Some(byte) => 2 * byte + usize::from((a[byte] ^ b[byte]) < 0x10),
        None => KEY_NIBBLES,
    }
}

/// Reads the value of an account leaf: RLP of `[nonce, balance, storage root, code hash]`.
///
/// # Errors
/// Anything else.
pub fn parse_account(value: &[u8]) -> Result<AccountView<'_>, NodeFault> {
    let fault = |what| NodeFault::Account { what };
    let (item, rest) = split(value)?;
    let items = item.list()?;
    if !rest.is_empty() {
        return Err(fault("bytes stand behind it"));
    }
    let (nonce, rest) = split(items)?;
    let (balance, rest) = split(rest)?;
    let (storage_root, rest) = split(rest)?;
    let (code_hash, rest) = split(rest)?;
    if !rest.is_empty() {
        return Err(fault("it has more than four fields"));
    }
    let nonce = integer::<8>(nonce.string()?).ok_or(fault("the nonce is no integer of 64 bits"))?;
    let balance = integer::<32>(balance.string()?).ok_or(fault("the balance is no integer of 256 bits"))?;
    let storage_root =
        <&[u8; 32]>::try_from(storage_root.string()?).map_err(|_| fault("the storage root is no hash"))?;
    let code_hash = <&[u8; 32]>::try_from(code_hash.string()?).map_err(|_| fault("the code hash is no hash"))?;
    Ok(AccountView {
        nonce: u64::from_be_bytes(nonce),
        balance_wei: U256::from_be_bytes(balance),
        storage_root: storage_root.into(),
        code_hash: code_hash.into(),
    })
}

/// Reads the value of a storage leaf: RLP of an integer above zero.
///
/// # Errors
/// Anything else.
pub fn parse_slot(value: &[u8]) -> Result<U256, NodeFault> {
    let fault = |what| NodeFault::Slot { what };
    let (item, rest) = split(value)?;
    let payload = item.string()?;
    if !rest.is_empty() {
        return Err(fault("bytes stand behind it"));
    }
    if payload.is_empty() {
        return Err(fault("zero is not stored"));
    }
    integer::<32>(payload).map(U256::from_be_bytes).ok_or(fault("it is no integer of 256 bits"))
}

#[cfg(test)]
mod tests;
