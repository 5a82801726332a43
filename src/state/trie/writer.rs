//! Writes the new nodes of a commit behind the old ones and hashes them level by level.
//!
//! Input → output: an old trie and sorted changes → the position and slot of the new root. Owner core: one hash thread per
//! writer; writers of one commit share nothing but the old nodes.
//! Invariants: children are written before their parents; old nodes never change; a slot is pending only
//! while its node is in this writer's words, and none is after [`Writer::hash`].

use std::cell::Cell;
use std::num::NonZeroU64;

use super::node::{
    AccountLeaf, Branch, CodeLeaf, Extension, KEY_NIBBLES, Key, Link, NODE_RLP_BYTES_MAX, Node, Position, Slot,
    SlotLeaf, WIDTH, child_ordinal, key_bytes, nibble, set_child, set_slot, shared_nibbles, write_account,
    write_branch, write_code, write_extension, write_slot,
};
use super::prefetch::Ahead;
use super::{Space, position, segment_of, word_of};
use crate::crypto::keccak::keccak256_each;
use crate::state::{Account, AccountChange, AccountInfo, ROOT_EMPTY, StateError};
use alloy_primitives::{B256, Bytes, U256};

/// Messages hashed at a time: their RLP (up to 68 KB) and digests stay in the level 2 cache.
const HASH_MESSAGES: usize = 128;

/// Words that a change appends, measured for 10,000 changes of 1,000,000 accounts: 131.
const CHANGE_WORDS: usize = 160;
/// Words that the first change appends on top: a path of six full branches.
const WORDS_MIN: usize = 512;

/// One changed entry of a trie.
#[derive(Clone, Copy, Debug)]
pub struct Change<'c> {
    pub key: Key,
    pub value: Value<'c>,
}

#[derive(Clone, Copy, Debug)]
pub enum Value<'c> {
    Delete,
    Slot(&'c U256),
    /// Index into the accounts that the writer was given; what it says is not `None`.
    Account(u32),
    /// Index into the codes that the writer was given.
    Code(u32),
}

impl Change<'_> {
    fn is_delete(&self) -> bool {
        matches!(self.value, Value::Delete)
    }
}

/// What [`Value::Account`] and [`Value::Code`] mean.
#[derive(Clone, Copy, Default)]
pub struct Updates<'c> {
    pub accounts: &'c [AccountChange],
    /// New storage of accounts by their index, in ascending order. Who is not in it keeps what the old leaf says.
    pub storages: &'c [(u32, Link)],
    pub codes: &'c [(B256, Bytes)],
}

/// A subtree whose place in its parent is not decided yet. Two words, which come back in registers: nearly every node is passed on as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edge {
    /// The kind in the lowest byte, the depth of a branch in the next, the slot of what is known in the upper half.
    what: NonZeroU64,
    node: Position,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Empty,
    /// What was there is as it was.
    Same,
    /// An old subtree, unchanged, as it hangs at this depth.
    Known,
    /// A leaf; its slot depends on the depth at which it will hang.
    Leaf,
    /// A branch, its slot known or [`NO_SLOT`]. An extension is made when it hangs higher.
    Branch,
}

impl Edge {
    const EMPTY: Self = Self::of(Kind::Empty, 0, NO_SLOT, 0);
    const SAME: Self = Self::of(Kind::Same, 0, NO_SLOT, 0);

    #[inline]
    const fn of(kind: Kind, depth: usize, slot: u32, node: Position) -> Self {
        let what = (1 + kind as u64) | ((depth as u64) << 8) | ((slot as u64) << 32);
        Self { what: NonZeroU64::new(what).expect("the kind makes it so"), node }
    }

    #[inline]
    const fn known(node: Position, slot: u32) -> Self {
        Self::of(Kind::Known, 0, slot, node)
    }

    #[inline]
    const fn leaf(node: Position) -> Self {
        Self::of(Kind::Leaf, 0, NO_SLOT, node)
    }

    #[inline]
    const fn branch(node: Position, depth: usize, slot: u32) -> Self {
        Self::of(Kind::Branch, depth, slot, node)
    }

    #[inline]
    fn kind(self) -> Kind {
        match self.what.get() as u8 {
            1 => Kind::Empty,
            2 => Kind::Same,
            3 => Kind::Known,
            4 => Kind::Leaf,
            _ => Kind::Branch,
        }
    }

    fn depth(self) -> usize {
        usize::from((self.what.get() >> 8) as u8)
    }

    fn slot(self) -> u32 {
        (self.what.get() >> 32) as u32
    }

    #[inline]
    fn is_empty(self) -> bool {
        self.kind() == Kind::Empty
    }
}

/// Something failed: [`Writer::failure`] says what. The error itself is large, and would make every result so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Failed;

/// The slot of a node that is hashed later.
const NO_SLOT: u32 = u32::MAX;

/// A node whose hash is not known yet, and the word of the writer's node that wants it, or the number of a root.
#[derive(Clone, Copy)]
struct Pending {
    node: Position,
    target: u32,
    /// The child's nibble, or [`OF_ROOT`].
    digit: u8,
}

const OF_ROOT: u8 = u8::MAX;

/// A leaf that changes fall on. `replaced`: a change has its key.
#[derive(Clone, Copy)]
struct OldLeaf {
    key: Key,
    node: Position,
    replaced: bool,
}

/// The writer of a run of nodes, and of the next one after [`Writer::finish`]: what it allocates for its work stays.
pub struct Writer<'a, S> {
    space: &'a S,
    updates: Updates<'a>,
    segment: u32,
    words: Vec<u64>,
    /// By depth of the node: a deeper one is hashed before its parent.
    pending: Vec<Vec<Pending>>,
    /// What [`Edge`]s name.
    slots: Vec<Slot>,
    roots: Vec<Link>,
    /// RLP of the nodes that are hashed together, each from a multiple of [`NODE_RLP_BYTES_MAX`] on.
    rlp: Vec<u8>,
    /// What [`Failed`] stands for.
    failure: Cell<Option<StateError>>,
}

impl<'a, S: Space> Writer<'a, S> {
    pub fn new(space: &'a S, updates: Updates<'a>) -> Self {
        Self {
            space,
            updates,
            segment: 0,
            words: Vec::new(),
            pending: vec![Vec::new(); KEY_NIBBLES + 1],
            slots: Vec::new(),
            roots: Vec::new(),
            rlp: vec![0; HASH_MESSAGES * NODE_RLP_BYTES_MAX],
            failure: Cell::new(None),
        }
    }

    /// Begins a run in an empty buffer, best of [`words_of`] what is to come.
    pub fn begin(&mut self, segment: u32, buffer: Vec<u64>) {
        debug_assert!(buffer.is_empty());
        self.segment = segment;
        self.words = buffer;
    }

    /// Applies changes, sorted by key, to the subtree that hangs at `depth` as `old`. The result is root number `n` of [`Self::hash`],
    /// counting from 0 since the last.
    pub fn update_root(&mut self, old: Link, depth: usize, changes: &[Change<'_>]) -> Result<(), StateError> {
        let mut ahead = Ahead::new(self.updates, old.node, depth, changes);
        let updated = self.update(&mut ahead, old.node, depth, changes).and_then(|edge| {
            if edge == Edge::SAME {
                self.roots.push(old);
                return Ok(());
            }
            self.add_root(edge, depth)
        });
        self.slots.clear();
        updated.map_err(|failed| self.error(failed))
    }

    /// Joins the subtrees below a root branch. The result is a root as in [`Self::update_root`].
    pub fn join_root(&mut self, children: &[Link; WIDTH]) -> Result<(), StateError> {
        let mut edges = [Edge::EMPTY; WIDTH];
        for (edge, link) in edges.iter_mut().zip(children).filter(|(_, link)| link.node != 0) {
            *edge = Edge::known(link.node, self.keep(link.slot));
        }
        let joined = self.join(0, &edges).and_then(|edge| self.add_root(edge, 0));
        self.slots.clear();
        joined.map_err(|failed| self.error(failed))
    }

    /// Hashes everything pending and returns the roots added since the last time.
    pub fn hash(&mut self) -> Result<Vec<Link>, StateError> {
        for depth in (0..=KEY_NIBBLES).rev() {
            let mut pending = std::mem::take(&mut self.pending[depth]);
            for group in pending.chunks(HASH_MESSAGES) {
                self.hash_group(group, depth)?;
            }
            pending.clear();
            self.pending[depth] = pending;
        }
        Ok(std::mem::take(&mut self.roots))
    }

    /// The finished run. Everything has been hashed.
    pub fn finish(&mut self) -> Vec<u64> {
        debug_assert!(self.pending.iter().all(Vec::is_empty));
        std::mem::take(&mut self.words)
    }

    fn hash_group(&mut self, group: &[Pending], depth: usize) -> Result<(), StateError> {
        let mut rlp = std::mem::take(&mut self.rlp);
        let mut lens = [0; HASH_MESSAGES];
        let places = rlp.as_chunks_mut::<NODE_RLP_BYTES_MAX>().0;
        for ((pending, place), len) in group.iter().zip(&mut *places).zip(&mut lens) {
            *len = self.node(pending.node)?.encode_at(depth, place);
        }
        let message = |index: usize| &places[index][..lens[index]];
        keccak256_each(group.len(), message, |index, digest| {
            let slot = Slot::of(message(index), digest);
            let Pending { target, digit, .. } = group[index];
            if digit == OF_ROOT {
                self.roots[target as usize].slot = slot;
            } else {
                set_slot(&mut self.words[target as usize..], usize::from(digit), slot);
            }
        });
        self.rlp = rlp;
        Ok(())
    }

    fn node(&self, node: Position) -> Result<Node<'_>, StateError> {
        if segment_of(node) == self.segment {
            let words = self.words.get(word_of(node)..);
            return words.and_then(Node::read).ok_or(StateError::NodeBroken { node });
        }
        self.space.node(node)
    }

    /// Notes why the work cannot go on.
    #[cold]
    fn fail(&self, error: StateError) -> Failed {
        self.failure.set(Some(error));
        Failed
    }

    fn error(&self, Failed: Failed) -> StateError {
        self.failure.take().expect("who fails says why")
    }

    /// An old node.
    #[inline]
    fn old(&self, node: Position) -> Result<Node<'a>, Failed> {
        let space: &'a S = self.space;
        space.node(node).map_err(|error| self.fail(error))
    }

    /// Keeps a slot for an edge to name.
    fn keep(&mut self, slot: Slot) -> u32 {
        self.slots.push(slot);
        // Lossless: at most 16 for each word of a run, which has fewer than 2^32; a run of more ends in an error before.
        self.slots.len() as u32 - 1
    }

    fn update<'c>(
        &mut self,
        ahead: &mut Ahead<'_, Change<'c>>,
        old: Position,
        depth: usize,
        changes: &[Change<'c>],
    ) -> Result<Edge, Failed> {
        if old == 0 {
            return self.build(None, depth, changes);
        }
        if changes.is_empty() {
            return Ok(Edge::SAME);
        }
        ahead.follow(self.space, changes);
        let node = self.old(old)?;
        let edge = match &node {
            Node::Branch(branch) => return self.update_branch(ahead, branch, depth, changes),
            Node::Extension(extension) => {
                let edge = self.update_extension(ahead, extension, extension.start, changes)?;
                let unchanged = edge.kind() == Kind::Branch && edge.node == extension.child.node;
                return Ok(if unchanged { Edge::SAME } else { edge });
            }
            Node::Account(AccountLeaf { key, .. })
            | Node::Slot(SlotLeaf { key, .. })
            | Node::Code(CodeLeaf { key, .. }) => {
                if let [change] = changes
                    && change.key == *key
                {
                    match change.value {
                        Value::Delete => return Ok(Edge::EMPTY),
                        _ => Edge::leaf(self.leaf(change, Some((old, node)))?),
                    }
                } else {
                    let replaced = changes.binary_search_by_key(key, |change| change.key).is_ok();
                    self.build(Some(OldLeaf { key: *key, node: old, replaced }), depth, changes)?
                }
            }
        };
        Ok(if edge == Edge::leaf(old) { Edge::SAME } else { edge })
    }

    fn update_branch<'c>(
        &mut self,
        ahead: &mut Ahead<'_, Change<'c>>,
        branch: &Branch<'_>,
        depth: usize,
        changes: &[Change<'c>],
    ) -> Result<Edge, Failed> {
        if let [change] = changes {
            return self.update_child(ahead, branch, depth, nibble(&change.key, depth), changes);
        }
        let mut edges = [Edge::EMPTY; WIDTH];
        let mut changed = 0u16;
        let mut reshaped = false;
        let mut rest = changes;
        while let Some(first) = rest.first() {
            let digit = nibble(&first.key, depth);
            let (group, after) = rest.split_at(group_len(rest, depth, digit));
            rest = after;
            let child = branch.child_node(digit);
            let edge = self.update(ahead, child, depth + 1, group)?;
            let is_same = edge == Edge::SAME || edge.is_empty() && child == 0;
            changed |= u16::from(!is_same) << digit;
            reshaped |= !is_same && edge.is_empty() != (child == 0);
            edges[digit] = edge;
        }
        if changed == 0 {
            return Ok(Edge::SAME);
        }
        if !reshaped {
            return self.patch(branch, depth, &edges, changed);
        }
        self.reshape(branch, depth, &mut edges, changed)
    }

    /// As [`Self::update_branch`], when all changes are below one child: half of the branches on the way of random keys.
    fn update_child<'c>(
        &mut self,
        ahead: &mut Ahead<'_, Change<'c>>,
        branch: &Branch<'_>,
        depth: usize,
        digit: usize,
        changes: &[Change<'c>],
    ) -> Result<Edge, Failed> {
        let child = branch.child_node(digit);
        let edge = self.update(ahead, child, depth + 1, changes)?;
        if edge == Edge::SAME || edge.is_empty() && child == 0 {
            return Ok(Edge::SAME);
        }
        if !edge.is_empty() && child != 0 {
            let hung = self.hang(edge, depth + 1)?;
            let word = self.next_word()?;
            self.words.extend_from_slice(branch.words);
            self.put(branch.mask, depth, word, digit, hung);
            return Ok(Edge::branch(position(self.segment, word), depth, NO_SLOT));
        }
        let mut edges = [Edge::EMPTY; WIDTH];
        edges[digit] = edge;
        self.reshape(branch, depth, &mut edges, 1 << digit)
    }

    /// Makes what becomes of a branch that gets or loses children: those that are not `changed` stay.
    fn reshape(
        &mut self,
        branch: &Branch<'_>,
        depth: usize,
        edges: &mut [Edge; WIDTH],
        changed: u16,
    ) -> Result<Edge, Failed> {
        for digit in digits(branch.mask & !changed) {
            let link = branch.child(digit);
            edges[digit] = Edge::known(link.node, self.keep(link.slot));
        }
        self.join(depth, edges)
    }

    /// Puts a child into the branch at `word`, which has one there.
    fn put(&mut self, mask: u16, depth: usize, word: u32, digit: usize, (node, slot): (Position, u32)) {
        let words = &mut self.words[word as usize..];
        set_child(words, child_ordinal(mask, digit), node);
        if slot == NO_SLOT {
            self.pending[depth + 1].push(Pending { node, target: word, digit: digit as u8 });
        } else {
            set_slot(words, digit, self.slots[slot as usize]);
        }
    }

    /// Copies a branch of which only `changed` children are different, none new and none gone.
    fn patch(
        &mut self,
        branch: &Branch<'_>,
        depth: usize,
        edges: &[Edge; WIDTH],
        changed: u16,
    ) -> Result<Edge, Failed> {
        let mut hung = [(0, 0); WIDTH];
        for digit in digits(changed) {
            hung[digit] = self.hang(edges[digit], depth + 1)?;
        }
        let word = self.next_word()?;
        self.words.extend_from_slice(branch.words);
        for digit in digits(changed) {
            self.put(branch.mask, depth, word, digit, hung[digit]);
        }
        Ok(Edge::branch(position(self.segment, word), depth, NO_SLOT))
    }

    /// Updates what hangs below the extension's nibbles from `start` on. Unchanged: a branch whose slot is known.
    fn update_extension<'c>(
        &mut self,
        ahead: &mut Ahead<'_, Change<'c>>,
        old: &Extension,
        start: usize,
        changes: &[Change<'c>],
    ) -> Result<Edge, Failed> {
        let mut live = changes.iter().filter(|change| !change.is_delete());
        let first = live.next();
        let last = live.next_back().or(first);
        let shared_with = |change: Option<&Change<'_>>| {
            change.map_or(old.end, |change| shared_nibbles(&change.key, &old.path).min(old.end))
        };
        let shared = shared_with(first).min(shared_with(last));
        debug_assert!(shared >= start);
        let changes = under(changes, &old.path, shared);
        if shared == old.end {
            let edge = self.update(ahead, old.child.node, old.end, changes)?;
            let is_same = edge == Edge::SAME;
            return Ok(if is_same { Edge::branch(old.child.node, old.end, self.keep(old.child.slot)) } else { edge });
        }
        let mut edges = [Edge::EMPTY; WIDTH];
        let mut rest = changes;
        for (digit, edge) in edges.iter_mut().enumerate() {
            let (group, after) = rest.split_at(group_len(rest, shared, digit));
            rest = after;
            *edge = if digit != nibble(&old.path, shared) {
                self.build(None, shared + 1, group)?
            } else {
                self.update_extension(ahead, old, shared + 1, group)?
            };
        }
        self.join(shared, &edges)
    }

    /// Builds the subtree of an old leaf, if any, and of new entries.
    fn build(&mut self, old: Option<OldLeaf>, depth: usize, changes: &[Change<'_>]) -> Result<Edge, Failed> {
        let kept = old.filter(|old| !old.replaced);
        let is_live = |change: &Change<'_>| !change.is_delete();
        let Some(first) = changes.iter().position(is_live) else {
            return Ok(kept.map_or(Edge::EMPTY, |old| Edge::leaf(old.node)));
        };
        let end = changes.iter().rposition(is_live).map_or(first, |last| last + 1);
        let changes = &changes[first..end];
        let mut low = changes[0].key;
        let mut high = changes[changes.len() - 1].key;
        if let Some(old) = kept {
            low = low.min(old.key);
            high = high.max(old.key);
        }
        if low == high {
            let old = match old {
                Some(OldLeaf { key, node, .. }) if key == low => Some((node, self.old(node)?)),
                _ => None,
            };
            return Ok(Edge::leaf(self.leaf(&changes[0], old)?));
        }
        let shared = shared_nibbles(&low, &high);
        debug_assert!(shared >= depth);
        let mut edges = [Edge::EMPTY; WIDTH];
        let mut rest = changes;
        for (digit, edge) in edges.iter_mut().enumerate() {
            let (group, after) = rest.split_at(group_len(rest, shared, digit));
            rest = after;
            let old = old.filter(|old| shared_nibbles(&old.key, &low) >= shared && nibble(&old.key, shared) == digit);
            if old.is_some() || !group.is_empty() {
                *edge = self.build(old, shared + 1, group)?;
            }
        }
        self.join(shared, &edges)
    }

    /// Makes the branch at `depth`, or what remains when it has fewer than two children.
    fn join(&mut self, depth: usize, edges: &[Edge; WIDTH]) -> Result<Edge, Failed> {
        let mut present = edges.iter().filter(|edge| !edge.is_empty());
        let Some(only) = present.next() else { return Ok(Edge::EMPTY) };
        if present.next().is_none() {
            return self.loosen(*only, depth + 1);
        }
        let mut hung = [(0, 0); WIDTH];
        for (place, edge) in hung.iter_mut().zip(edges).filter(|(_, edge)| !edge.is_empty()) {
            *place = self.hang(*edge, depth + 1)?;
        }
        let word = self.next_word()?;
        let mut children = [(0, Link::default()); WIDTH];
        let mut count = 0;
        for (digit, (node, slot)) in hung.into_iter().enumerate().filter(|(_, (node, _))| *node != 0) {
            let known = self.slots.get(slot as usize).copied();
            if known.is_none() {
                self.pending[depth + 1].push(Pending { node, target: word, digit: digit as u8 });
            }
            children[count] = (digit, Link { node, slot: known.unwrap_or_default() });
            count += 1;
        }
        write_branch(&children[..count], &mut self.words);
        Ok(Edge::branch(position(self.segment, word), depth, NO_SLOT))
    }

    /// An edge that hung at `depth` and will hang higher.
    fn loosen(&mut self, edge: Edge, depth: usize) -> Result<Edge, Failed> {
        if edge.kind() != Kind::Known {
            return Ok(edge);
        }
        let node = edge.node;
        Ok(match self.node(node).map_err(|error| self.fail(error))? {
            Node::Branch(_) => Edge::branch(node, depth, edge.slot()),
            Node::Extension(Extension { end, child, .. }) => Edge::branch(child.node, end, self.keep(child.slot)),
            Node::Account(_) | Node::Slot(_) | Node::Code(_) => Edge::leaf(node),
        })
    }

    /// Decides that an edge hangs at `depth`: the node, and its slot or [`NO_SLOT`].
    #[inline]
    fn hang(&mut self, edge: Edge, depth: usize) -> Result<(Position, u32), Failed> {
        match edge.kind() {
            Kind::Empty | Kind::Same => unreachable!("only what is there, and changed or known, is hung"),
            Kind::Known | Kind::Leaf => Ok((edge.node, edge.slot())),
            Kind::Branch if edge.depth() == depth => Ok((edge.node, edge.slot())),
            Kind::Branch => self.hang_higher(edge, depth),
        }
    }

    /// Makes the extension between `depth` and a branch.
    fn hang_higher(&mut self, edge: Edge, depth: usize) -> Result<(Position, u32), Failed> {
        let (node, end) = (edge.node, edge.depth());
        let path = self.some_key(node)?;
        let word = self.next_word()?;
        let known = self.slots.get(edge.slot() as usize).copied();
        let child = Link { node, slot: known.unwrap_or_default() };
        write_extension(&Extension { path, start: depth, end, child }, &mut self.words);
        if known.is_none() {
            self.pending[end].push(Pending { node, target: word, digit: 0 });
        }
        Ok((position(self.segment, word), NO_SLOT))
    }

    /// The key of some leaf below a node: its first nibbles are the path to the node.
    fn some_key(&self, mut node: Position) -> Result<Key, Failed> {
        for _ in 0..=KEY_NIBBLES {
            match self.node(node).map_err(|error| self.fail(error))? {
                Node::Branch(branch) => node = branch.children.first().copied().unwrap_or_default(),
                Node::Extension(extension) => return Ok(extension.path),
                Node::Account(AccountLeaf { key, .. })
                | Node::Slot(SlotLeaf { key, .. })
                | Node::Code(CodeLeaf { key, .. }) => return Ok(key),
            }
        }
        Err(self.fail(StateError::NodeBroken { node }))
    }

    fn add_root(&mut self, edge: Edge, depth: usize) -> Result<(), Failed> {
        if edge.is_empty() {
            self.roots.push(Link { node: 0, slot: Slot::hash(ROOT_EMPTY) });
            return Ok(());
        }
        let (node, slot) = self.hang(edge, depth)?;
        let known = self.slots.get(slot as usize).copied();
        if known.is_none() {
            // Lossless: fewer than there are words.
            let target = self.roots.len() as u32;
            self.pending[depth].push(Pending { node, target, digit: OF_ROOT });
        }
        self.roots.push(Link { node, slot: known.unwrap_or_default() });
        Ok(())
    }

    /// Writes the leaf of a live change, or names the old one with the same key when nothing differs.
    fn leaf(&mut self, change: &Change<'_>, old: Option<(Position, Node<'_>)>) -> Result<Position, Failed> {
        let word = self.next_word()?;
        match change.value {
            Value::Slot(value) => {
                if let Some((node, Node::Slot(leaf))) = old
                    && leaf.value == *value
                {
                    return Ok(node);
                }
                write_slot(&SlotLeaf { key: change.key, value: *value }, &mut self.words);
            }
            Value::Account(index) => {
                let leaf = self.account(index, change.key, old.as_ref().map(|(_, node)| node));
                if let Some((node, Node::Account(old))) = old
                    && old == leaf
                {
                    return Ok(node);
                }
                write_account(&leaf, &mut self.words);
            }
            Value::Code(index) => {
                // A code is named by its hash, so it never differs.
                if let Some((node, Node::Code(_))) = old {
                    return Ok(node);
                }
                write_code(&change.key, &self.updates.codes[index as usize].1, &mut self.words);
            }
            Value::Delete => unreachable!("a live change has a value"),
        }
        Ok(position(self.segment, word))
    }

    /// What the leaf of an account becomes.
    fn account(&self, index: u32, key: Key, old: Option<&Node<'_>>) -> AccountLeaf {
        let change = &self.updates.accounts[index as usize];
        let info = change.account.expect("the change of a deleted account is a deletion: see `Value::Account`");
        let storages = self.updates.storages;
        let (storage, storage_root) = match (storages.binary_search_by_key(&index, |(index, _)| *index), old) {
            (Ok(found), _) => (storages[found].1.node, root_hash(&storages[found].1)),
            (Err(_), Some(Node::Account(leaf))) => (leaf.storage, leaf.account.storage_root),
            (Err(_), _) => (0, ROOT_EMPTY),
        };
        let AccountInfo { nonce, balance_wei, code_hash } = info;
        AccountLeaf { key, account: Account { nonce, balance_wei, code_hash, storage_root }, storage }
    }

    fn next_word(&self) -> Result<u32, Failed> {
        let word = u32::try_from(self.words.len());
        word.map_err(|_| self.fail(StateError::CommitTooLarge { words_max: u64::from(u32::MAX) }))
    }
}

/// The nibbles whose bit is set.
fn digits(mask: u16) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let digit = rest.trailing_zeros() as usize;
        rest &= rest.wrapping_sub(1);
        (digit < WIDTH).then_some(digit)
    })
}

/// Words that a number of changes is likely to append.
#[must_use]
pub fn words_of(change_count: usize) -> usize {
    WORDS_MIN + change_count * CHANGE_WORDS
}

/// Root hash of a trie that hangs as `link`.
pub fn root_hash(link: &Link) -> B256 {
    match link.slot.embedded_rlp() {
        Some(rlp) => crate::crypto::keccak::keccak256(&rlp),
        None => key_bytes(&link.slot.words),
    }
}

/// How many changes at the front have `digit` as nibble `depth`. All share the nibbles before.
pub fn group_len(changes: &[Change<'_>], depth: usize, digit: usize) -> usize {
    match changes {
        [first, ..] if nibble(&first.key, depth) == digit => {
            changes.partition_point(|change| nibble(&change.key, depth) == digit)
        }
        _ => 0,
    }
}

/// The changes whose keys share the first `nibbles` with `path`.
fn under<'a, 'c>(changes: &'a [Change<'c>], path: &Key, nibbles: usize) -> &'a [Change<'c>] {
    let start = changes.partition_point(|change| change.key < *path && shared_nibbles(&change.key, path) < nibbles);
    let rest = &changes[start..];
    let len = rest.partition_point(|change| shared_nibbles(&change.key, path) >= nibbles);
    &rest[..len]
}
