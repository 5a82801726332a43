//! From what execution touched to the trie nodes that a verifier needs.
//!
//! Input → output: the state before, accessed and changed keys → RLP of nodes, sorted by bytes, nothing twice. Owner core: any.
//! One walk over the tries of the state before, with all keys at once and in their order. It goes where go-ethereum v1.17.5 resolves a
//! node by its hash (`trie/trie.go`):
//!
//! * every node on the way to a touched key, down to where an absent one leaves the trie; the account trie's root always;
//! * where deletions leave a branch with one child that nobody touched, that child: it may have to merge with what is above it.
//!
//! go-ethereum inserts before it deletes, so the second rule needs only what is left of each branch at the end, and no order.
//! Nodes shorter than 32 bytes lie in their parents and are no entries.
//!
//! Beside them the walk finds the *reserve*: nodes that a verifier needs when it takes the block in parts, because a deletion in the
//! middle of the block, undone later, may leave a branch with one child for a while.
//! Deliberately absent: which keys a block touches (`builder::world::access`), reading for execution.

use std::cmp::Ordering;

use crate::builder::world::access::Accesses;
use crate::crypto::keccak::keccak256_each;
use crate::primitives::{Address, B256, Bytes, U256};
use crate::state::trie::node::{
    AccountLeaf, Branch, Extension, KEY_NIBBLES, Key, Link, NODE_RLP_BYTES_MAX, Node, Slot, key_words, nibble,
    shared_nibbles,
};
use crate::state::trie::prefetch::{Ahead, Goal};
use crate::state::trie::writer::Updates;
use crate::state::{Snapshot, StateChanges, StateError, StateReader};

/// What collecting gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// The canonical nodes of the block, sorted by their bytes, nothing twice.
    pub nodes: Vec<Bytes>,
    /// Nodes that only a part of the block can need, sorted by their bytes, nothing twice, none of them in `nodes`.
    pub reserve: Vec<Bytes>,
}

/// What becomes of a key by the end of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// What it was.
    Same,
    Present,
    Absent,
}

/// A touched key of a trie.
#[derive(Clone, Copy, Debug)]
struct Touch {
    key: Key,
    after: After,
    /// Some transaction leaves it deleted.
    may_vanish: bool,
}

/// A touched slot, and whose it is.
#[derive(Clone, Copy, Debug)]
struct SlotTouch {
    account: Key,
    touch: Touch,
}

/// What is left of a part of a trie.
#[derive(Clone, Copy, Debug)]
struct Left {
    /// Nothing, at the end of the block.
    nothing: bool,
    /// Nothing, perhaps, for a while.
    perhaps_nothing: bool,
}

/// Collects the nodes of the state before a block, or before a part of one, that execution and the root after it need.
///
/// `accesses` and `changes` are those of the same execution on top of `parent`; a changed key counts as accessed.
///
/// # Errors
/// When the state cannot be read.
pub fn collect(parent: &Snapshot, accesses: &Accesses, changes: &StateChanges) -> Result<Collected, StateError> {
    collect_held(parent, parent, accesses, changes)
}

/// As [`collect`], but only nodes that an earlier state, `base`, holds at the same places: what was made since is left out.
///
/// # Errors
/// When a state cannot be read.
pub fn collect_held(
    parent: &Snapshot,
    base: &Snapshot,
    accesses: &Accesses,
    changes: &StateChanges,
) -> Result<Collected, StateError> {
    let accounts = account_touches(accesses, changes);
    let slots = slot_touches(accesses, changes);
    let base = (base.root() != parent.root()).then_some(base);
    let (nodes, reserve) = (Arena::of_paths(accounts.len() + slots.len()), Arena::default());
    let mut walk = Walk { parent, base, account: None, slots: &slots, nodes, reserve };
    let root = parent.root_link();
    if root.node != 0 {
        let mut ahead = Ahead::new(Updates::default(), root.node, 0, &accounts);
        walk.link(&mut ahead, root, 0, &accounts)?;
    }
    let nodes = walk.nodes.sorted();
    let mut reserve = walk.reserve.sorted();
    reserve.retain(|node| nodes.binary_search(node).is_err());
    Ok(Collected { nodes, reserve })
}

fn account_touches(accesses: &Accesses, changes: &StateChanges) -> Vec<Touch> {
    let accessed = accesses.accounts.iter().map(|address| (address, After::Same, false));
    let deleted = accesses.deleted_accounts.iter().map(|address| (address, After::Same, true));
    let changed = changes.accounts.iter().map(|change| match change.account {
        Some(_) => (&change.address, After::Present, false),
        None => (&change.address, After::Absent, true),
    });
    let (addresses, facts): (Vec<&Address>, Vec<(After, bool)>) =
        accessed.chain(deleted).chain(changed).map(|(address, after, vanish)| (address, (after, vanish))).unzip();
    let keys = hash_all(addresses.len(), |index| addresses[index].as_slice());
    let mut touches: Vec<Touch> =
        keys.into_iter().zip(facts).map(|(key, (after, may_vanish))| Touch { key, after, may_vanish }).collect();
    touches.sort_unstable_by_key(|touch| touch.key);
    touches.dedup_by(|next, kept| kept.key == next.key && kept.join(next));
    touches
}

/// In the order of accounts, then of slots. An account that is deleted, or deleted and made again, does not write its old storage trie.
fn slot_touches(accesses: &Accesses, changes: &StateChanges) -> Vec<SlotTouch> {
    let accessed = accesses.slots.iter().map(|(address, slot)| (*address, *slot, After::Same, false));
    let deleted = accesses.deleted_slots.iter().map(|(address, slot)| (*address, *slot, After::Same, true));
    let writing = changes.accounts.iter().filter(|change| change.account.is_some() && !change.storage_cleared);
    let changed = writing.flat_map(|change| {
        change.storage.iter().map(|(slot, value)| match value.is_zero() {
            true => (change.address, *slot, After::Absent, true),
            false => (change.address, *slot, After::Present, false),
        })
    });
    let mut slots: Vec<(Address, U256, After, bool)> = accessed.chain(deleted).chain(changed).collect();
    slots.sort_unstable_by_key(|(address, ..)| *address);
    let mut owners: Vec<Address> = slots.iter().map(|(address, ..)| *address).collect();
    owners.dedup();
    let owner_keys = hash_all(owners.len(), |index| owners[index].as_slice());
    let names: Vec<[u8; 32]> = slots.iter().map(|(_, slot, ..)| slot.to_be_bytes()).collect();
    let keys = hash_all(names.len(), |index| &names[index]);
    let mut owner = 0;
    let mut touches: Vec<SlotTouch> = Vec::with_capacity(slots.len());
    for ((address, _, after, may_vanish), key) in slots.into_iter().zip(keys) {
        if owners[owner] != address {
            owner += 1;
        }
        touches.push(SlotTouch { account: owner_keys[owner], touch: Touch { key, after, may_vanish } });
    }
    touches.sort_unstable_by_key(|slot| (slot.account, slot.touch.key));
    touches.dedup_by(|next, kept| {
        kept.account == next.account && kept.touch.key == next.touch.key && kept.touch.join(&next.touch)
    });
    touches
}

fn hash_all<'a>(count: usize, message: impl FnMut(usize) -> &'a [u8]) -> Vec<Key> {
    let mut keys = vec![Key::default(); count];
    keccak256_each(count, message, |index, hash: B256| keys[index] = key_words(&hash));
    keys
}

impl Goal for Touch {
    fn key(&self) -> &Key {
        &self.key
    }
}

impl Touch {
    /// Takes up what else is known of the same key.
    fn join(&mut self, other: &Self) -> bool {
        if other.after != After::Same {
            self.after = other.after;
        }
        self.may_vanish |= other.may_vanish;
        true
    }
}

struct Walk<'s> {
    parent: &'s Snapshot,
    /// The state that must hold a node too; `None`: it is the same one.
    base: Option<&'s Snapshot>,
    /// Whose storage trie the walk is in.
    account: Option<Key>,
    slots: &'s [SlotTouch],
    nodes: Arena,
    reserve: Arena,
}

impl<'s> Walk<'s> {
    /// Walks from a node that `touches` lead to, none of them another way.
    fn link(
        &mut self,
        ahead: &mut Ahead<'_, Touch>,
        link: Link,
        depth: usize,
        touches: &[Touch],
    ) -> Result<Left, StateError> {
        self.parent.follow(ahead, touches);
        let node = self.parent.node(link.node)?;
        if self.is_entry(link, depth, touches)? {
            self.nodes.push(&node, depth);
        }
        match node {
            Node::Branch(branch) => self.branch(ahead, &branch, depth, touches),
            Node::Extension(extension) => self.extension(ahead, &extension, touches),
            Node::Account(leaf) => {
                self.storage(
                    &leaf.key,
                    Link { node: leaf.storage, slot: Slot::hash(leaf.account.storage_root) },
                    touches,
                )?;
                Ok(leaf_left(&leaf.key, touches))
            }
            Node::Slot(leaf) => Ok(leaf_left(&leaf.key, touches)),
            // Codes have a trie of their own.
            Node::Code(_) => Err(StateError::NodeBroken { node: link.node }),
        }
    }

    fn branch(
        &mut self,
        ahead: &mut Ahead<'_, Touch>,
        branch: &Branch<'s>,
        depth: usize,
        touches: &[Touch],
    ) -> Result<Left, StateError> {
        let mut rest = touches;
        // Children that somebody touched; children at the end of the block.
        let (mut touched, mut left) = (0_u16, 0);
        let (mut vanished, mut may_vanish, mut touched_may_vanish) = (false, false, true);
        while let Some(first) = rest.first() {
            let child = nibble(&first.key, depth);
            let (here, after) = rest.split_at(rest.partition_point(|touch| nibble(&touch.key, depth) == child));
            rest = after;
            let link = branch.child(child);
            if link.node == 0 {
                left += usize::from(here.iter().any(|touch| touch.after == After::Present));
                // What comes and goes where nothing was makes nobody lonely that was not before.
                continue;
            }
            touched |= 1 << child;
            let below = self.link(ahead, link, depth + 1, here)?;
            left += usize::from(!below.nothing);
            vanished |= below.nothing;
            may_vanish |= below.perhaps_nothing;
            touched_may_vanish &= below.perhaps_nothing;
        }
        let alone = branch.mask & !touched;
        let (untouched, sibling) = (alone.count_ones() as usize, alone.trailing_zeros() as usize);
        left += untouched;
        let is_lonely = vanished && left == 1;
        if untouched == 1 && (is_lonely || may_vanish && touched_may_vanish) {
            let link = branch.child(sibling);
            let mut key = touches[0].key;
            set_nibble(&mut key, depth, sibling);
            if self.is_entry_at(link, depth + 1, &key)? {
                let node = self.parent.node(link.node)?;
                let arena = if is_lonely { &mut self.nodes } else { &mut self.reserve };
                arena.push(&node, depth + 1);
            }
        }
        Ok(Left { nothing: left == 0, perhaps_nothing: untouched == 0 && touched_may_vanish })
    }

    fn extension(
        &mut self,
        ahead: &mut Ahead<'_, Touch>,
        extension: &Extension,
        touches: &[Touch],
    ) -> Result<Left, StateError> {
        let prefix = |key: &Key| compare_prefix(key, &extension.path, extension.end);
        let start = touches.partition_point(|touch| prefix(&touch.key) == Ordering::Less);
        let end = touches.partition_point(|touch| prefix(&touch.key) != Ordering::Greater);
        let mut outside = touches[..start].iter().chain(&touches[end..]);
        let (inside, grown) = (&touches[start..end], outside.clone().any(|touch| touch.after == After::Present));
        if inside.is_empty() {
            // A key that came and went has put a branch before the child, which is to be merged with what is left when it goes.
            let comes_and_goes = outside.any(|touch| touch.may_vanish);
            if comes_and_goes && self.is_entry_at(extension.child, extension.end, &extension.path)? {
                self.reserve.push(&self.parent.node(extension.child.node)?, extension.end);
            }
            return Ok(Left { nothing: false, perhaps_nothing: false });
        }
        let below = self.link(ahead, extension.child, extension.end, inside)?;
        Ok(Left { nothing: below.nothing && !grown, perhaps_nothing: below.perhaps_nothing })
    }

    /// Walks the storage of the account whose leaf is reached, if its slots were touched.
    fn storage(&mut self, account: &Key, root: Link, touches: &[Touch]) -> Result<(), StateError> {
        if root.node == 0 || touches.binary_search_by_key(account, |touch| touch.key).is_err() {
            return Ok(());
        }
        let start = self.slots.partition_point(|slot| slot.account < *account);
        let own = self.slots[start..].iter().take_while(|slot| slot.account == *account);
        let touches: Vec<Touch> = own.map(|slot| slot.touch).collect();
        if !touches.is_empty() {
            self.account = Some(*account);
            let mut ahead = Ahead::new(Updates::default(), root.node, 0, &touches);
            self.link(&mut ahead, root, 0, &touches)?;
            self.account = None;
        }
        Ok(())
    }

    /// Whether a node that `touches` lead to is an entry of its own.
    fn is_entry(&self, link: Link, depth: usize, touches: &[Touch]) -> Result<bool, StateError> {
        // Nothing but the block itself asks for the account trie's root when there is no touch; every key leads to it.
        let key = touches.first().map_or(Key::default(), |touch| touch.key);
        self.is_entry_at(link, depth, &key)
    }

    fn is_entry_at(&self, link: Link, depth: usize, key: &Key) -> Result<bool, StateError> {
        if link.slot.embedded {
            return Ok(false);
        }
        match self.base {
            Some(base) => {
                Ok(link_at(base, self.account.as_ref(), key, depth)?.is_some_and(|old| old.slot == link.slot))
            }
            None => Ok(true),
        }
    }
}

/// What is left where a leaf was. Touches of other keys that lead here are absent before the block.
fn leaf_left(leaf: &Key, touches: &[Touch]) -> Left {
    let own = touches.iter().find(|touch| touch.key == *leaf);
    let gone = own.is_some_and(|touch| touch.after == After::Absent);
    let grown = touches.iter().any(|touch| touch.key != *leaf && touch.after == After::Present);
    Left { nothing: gone && !grown, perhaps_nothing: own.is_some_and(|touch| touch.may_vanish) }
}

/// The node of a state at the place that the first `depth` nibbles of a key lead to, in the account trie or in an account's storage.
fn link_at(state: &Snapshot, account: Option<&Key>, key: &Key, depth: usize) -> Result<Option<Link>, StateError> {
    let mut link = state.root_link();
    let mut at = 0;
    if let Some(account) = account {
        let Some(leaf) = account_leaf(state, account)? else { return Ok(None) };
        link = Link { node: leaf.storage, slot: Slot::hash(leaf.account.storage_root) };
    }
    while at < depth && link.node != 0 {
        (link, at) = match state.node(link.node)? {
            Node::Branch(branch) => (branch.child(nibble(key, at)), at + 1),
            Node::Extension(extension)
                if extension.end <= depth && shared_nibbles(key, &extension.path) >= extension.end =>
            {
                (extension.child, extension.end)
            }
            Node::Extension(_) | Node::Account(_) | Node::Slot(_) | Node::Code(_) => return Ok(None),
        };
    }
    Ok((link.node != 0).then_some(link))
}

fn account_leaf(state: &Snapshot, key: &Key) -> Result<Option<AccountLeaf>, StateError> {
    let mut link = state.root_link();
    let mut at = 0;
    while link.node != 0 {
        (link, at) = match state.node(link.node)? {
            Node::Branch(branch) if at < KEY_NIBBLES => (branch.child(nibble(key, at)), at + 1),
            Node::Extension(extension) if shared_nibbles(key, &extension.path) >= extension.end => {
                (extension.child, extension.end)
            }
            Node::Account(leaf) if leaf.key == *key => return Ok(Some(leaf)),
            _ => return Ok(None),
        };
    }
    Ok(None)
}

fn set_nibble(key: &mut Key, index: usize, nibble: usize) {
    let shift = 60 - 4 * (index % 16);
    key[index / 16] = key[index / 16] & !(0xf << shift) | (nibble as u64) << shift;
}

/// How the first `count` nibbles of two keys compare.
fn compare_prefix(a: &Key, b: &Key, count: usize) -> Ordering {
    if shared_nibbles(a, b) >= count { Ordering::Equal } else { a.cmp(b) }
}

/// Bytes of the nodes on the way to one key more, about, where there are many: 684 for 11,000 of 1,000,000 accounts.
const PATH_BYTES: usize = 704;

/// Encoded nodes, one behind the other.
#[derive(Default)]
struct Arena {
    /// Zeros from `used` on.
    bytes: Vec<u8>,
    used: usize,
    ends: Vec<usize>,
}

impl Arena {
    /// With room for the nodes on the way to so many keys.
    fn of_paths(paths: usize) -> Self {
        Self { bytes: vec![0; paths * PATH_BYTES], used: 0, ends: Vec::with_capacity(3 * paths) }
    }

    fn push(&mut self, node: &Node<'_>, depth: usize) {
        let room = self.used + NODE_RLP_BYTES_MAX;
        if self.bytes.len() < room {
            self.bytes.resize(2 * room, 0);
        }
        if let Some(place) = self.bytes[self.used..].first_chunk_mut() {
            self.used += node.encode_at(depth, place);
        }
        self.ends.push(self.used);
    }

    /// The nodes in the order of their bytes, each once; they share one allocation.
    fn sorted(mut self) -> Vec<Bytes> {
        self.bytes.truncate(self.used);
        let (bytes, ends) = (Bytes::from(self.bytes), self.ends);
        let span = |index: u32| {
            let index = index as usize;
            index.checked_sub(1).map_or(0, |before| ends[before])..ends[index]
        };
        // A header of up to three bytes and a prefix are followed by a hash or the rest of one: next to nothing shares 8 bytes.
        let mut nodes: Vec<(u64, u32)> =
            (0..).zip(&ends).map(|(index, _)| (first_bytes(&bytes[span(index)]), index)).collect();
        nodes.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| bytes[span(a.1)].cmp(&bytes[span(b.1)])));
        nodes.dedup_by(|a, b| a.0 == b.0 && bytes[span(a.1)] == bytes[span(b.1)]);
        nodes.into_iter().map(|(_, index)| bytes.slice(span(index))).collect()
    }
}

/// The first bytes as a number that compares like them; a shorter string compares as if zeros followed, and ties are for the caller.
fn first_bytes(bytes: &[u8]) -> u64 {
    let mut first = [0; 8];
    let count = bytes.len().min(8);
    first[..count].copy_from_slice(&bytes[..count]);
    u64::from_be_bytes(first)
}
