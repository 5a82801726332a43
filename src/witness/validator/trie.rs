//! Tries of which only a part is known: changes to entries, and the roots that follow.
//!
//! Input → output: the root of a trie before, and single changes → the root after. Owner core: any; one validation owns it.
//! Nodes are read from the witness when a change comes to them; everything else stays the hash that its parent has. This is a second
//! implementation beside the state's own, on purpose: settlement re-executes each block with it, and an error of one of the two shows.
//! Invariants: a changed node has no hash until [`TrieWriter::hash`], and then all have. Like go-ethereum, who calls makes deletions
//! last, so that the siblings that collapsing branches need are the same.
//!
//! Changes may go on after the hashing, in rounds: each round's changes stand on the roots before it. A round knows which nodes of the
//! tries before it were read in it ([`TrieWriter::touched`]), and which nodes it made: what settlement cuts by.

use alloy_primitives::B256;

use super::node::{
    ChildRef, HASHED_BYTES_MIN, KEY_NIBBLES, NodeView, WIDTH, nibble, prefix_of, set_nibble, shared_nibbles,
};
use super::nodes::{At, HashIndex, NodePlace, StateFault};
use crate::crypto::keccak::{keccak256, keccak256_each};
use crate::state::ROOT_EMPTY;

/// Messages hashed at a time: their RLP (up to 68 KB) stays in the level 2 cache.
const HASH_MESSAGES: usize = 128;
/// A branch of 16 hashes and its header.
const NODE_RLP_BYTES_MAX: usize = 532;

/// A node's number in the writer.
type NodeId = u32;

/// What hangs at a place of a trie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child<'w> {
    /// As it was, and not read yet.
    Old(ChildRef<'w>),
    Node(NodeId),
}

impl<'w> Child<'w> {
    pub const EMPTY: Self = Self::Old(ChildRef::Empty);

    /// The trie with this root.
    #[must_use]
    pub fn of_root(root: &'w B256) -> Self {
        if *root == ROOT_EMPTY { Self::EMPTY } else { Self::Old(ChildRef::Hash(root)) }
    }
}

#[derive(Clone, Copy)]
enum Kind<'w> {
    /// Index into the branches.
    Branch(u32),
    Extension {
        path: B256,
        end: u8,
        child: Child<'w>,
    },
    Leaf {
        key: B256,
        value: Value<'w>,
    },
}

#[derive(Clone, Copy)]
enum Value<'w> {
    Old(&'w [u8]),
    New { start: u32, len: u8 },
}

#[derive(Clone, Copy)]
struct Node<'w> {
    kind: Kind<'w>,
    name: Name<'w>,
    /// The last round that read it.
    round: u32,
}

/// How the parent names a node.
#[derive(Clone, Copy)]
enum Name<'w> {
    /// It has changed and is not hashed yet.
    Changed,
    /// An entry of the witness.
    Entry { hash: &'w B256, index: u32 },
    /// It stands in its parent, in the witness.
    Embedded(&'w [u8]),
    /// Index into what earlier rounds made.
    Made(u32),
}

/// A node as a round has made it.
#[derive(Clone, Copy)]
struct Made {
    hash: B256,
    /// Its RLP among those of all made nodes.
    start: u32,
    len: u32,
    place: Place,
}

/// Where a node is: a digest of the trie, the path and its length. Two places with one digest cost a witness an entry that a verifier then
/// misses, which shows at once; they come about with probability 2^-64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(pub u64);

impl Place {
    fn new(owner: Option<&B256>, path: &B256, depth: usize) -> Self {
        let word = |bytes: &[u8]| bytes.iter().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
        // An owner is a hash, so that its first bytes tell it from others.
        let first = owner.map_or(0, |owner| word(&owner[..8]));
        let prefix = prefix_of(path, depth);
        let mix = |digest: u64, word: u64| (digest ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let digest = prefix.chunks(8).map(word).fold(first, mix);
        Self(mix(digest, depth as u64 + 1))
    }
}

/// A node of the tries before a round that the round has read; those that stand in their parents are left out.
#[derive(Clone, Copy, Debug)]
pub struct Touched<'t> {
    pub hash: &'t B256,
    pub place: Place,
    pub rlp: TouchedRlp<'t>,
}

/// Where the bytes of a touched node are.
#[derive(Clone, Copy, Debug)]
pub enum TouchedRlp<'t> {
    /// Index of the witness' entry.
    Entry(u32),
    /// An earlier round made it.
    Made(&'t [u8]),
}

#[derive(Clone, Copy)]
enum Source<'w> {
    Entry { hash: &'w B256, index: u32 },
    Made(u32),
}

/// A changed node on its way to its hash.
#[derive(Clone, Copy)]
struct Pending {
    id: NodeId,
    depth: u8,
    place: Place,
}

/// Changes tries over the nodes of a witness.
pub struct TrieWriter<'n, 'w> {
    nodes: &'n HashIndex<'w>,
    arena: Vec<Node<'w>>,
    branches: Vec<[Child<'w>; WIDTH]>,
    values: Vec<u8>,
    made: Vec<Made>,
    made_rlp: Vec<u8>,
    /// Where the made nodes of the current round begin.
    made_before: usize,
    touched: Vec<(Place, Source<'w>, NodeId)>,
    round: u32,
    /// Hash of the address whose storage is being changed.
    owner: Option<B256>,
    /// Siblings that were not there, where they are listed instead of ending everything.
    missing: Option<Vec<MissingSibling>>,
}

/// What a collapsing branch leaves alone, and is not in the witness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingSibling {
    pub hash: B256,
    pub place: NodePlace,
}

impl<'n, 'w> TrieWriter<'n, 'w> {
    /// `change_count`: how many changes are going to come, so that the buffers seldom grow.
    #[must_use]
    pub fn new(nodes: &'n HashIndex<'w>, change_count: usize) -> Self {
        Self {
            nodes,
            arena: Vec::with_capacity(4 * change_count),
            branches: Vec::with_capacity(2 * change_count),
            values: Vec::with_capacity(96 * change_count),
            made: Vec::new(),
            made_rlp: Vec::new(),
            made_before: 0,
            touched: Vec::with_capacity(4 * change_count),
            round: 1,
            owner: None,
            missing: None,
        }
    }

    /// From now on a sibling that is not in the witness is listed and its branch left as it is: roots are wrong from there on.
    pub fn list_missing(&mut self) {
        self.missing = Some(Vec::new());
    }

    /// What was listed.
    #[must_use]
    pub fn take_missing(&mut self) -> Vec<MissingSibling> {
        self.missing.take().unwrap_or_default()
    }

    /// The nodes that it reads from.
    #[must_use]
    pub fn nodes(&self) -> &'n HashIndex<'w> {
        self.nodes
    }

    /// Begins a round: nothing is touched, nothing made. Everything that changed was hashed.
    pub fn begin_round(&mut self) {
        self.touched.clear();
        self.made_before = self.made.len();
        self.round += 1;
    }

    /// How many nodes of the tries before this round were read in it.
    #[must_use]
    pub fn touched_count(&self) -> usize {
        self.touched.len()
    }

    /// Forgets that the nodes from the `start`-th on were read in this round.
    pub fn untouch(&mut self, start: usize) {
        for (_, _, id) in self.touched.drain(start..) {
            self.arena[id as usize].round = 0;
        }
    }

    /// Those nodes from the `start`-th on, in the order in which they were read first.
    pub fn touched(&self, start: usize) -> impl Iterator<Item = Touched<'_>> {
        self.touched[start..].iter().map(|(place, source, _)| match *source {
            Source::Entry { hash, index } => Touched { hash, place: *place, rlp: TouchedRlp::Entry(index) },
            Source::Made(index) => {
                let made = &self.made[index as usize];
                Touched { hash: &made.hash, place: *place, rlp: TouchedRlp::Made(self.made_bytes(made)) }
            }
        })
    }

    /// The nodes that this round's hashing made and that are named by their hashes, with their places.
    pub fn made(&self) -> impl Iterator<Item = (B256, Place)> + '_ {
        let own = self.made[self.made_before..].iter();
        own.filter(|made| made.len as usize >= HASHED_BYTES_MIN).map(|made| (made.hash, made.place))
    }

    /// The nodes that all rounds' hashing made and that are named by their hashes.
    pub fn made_rlp(&self) -> impl Iterator<Item = &[u8]> {
        let all = self.made.iter().filter(|made| made.len as usize >= HASHED_BYTES_MIN);
        all.map(|made| self.made_bytes(made))
    }

    fn made_bytes(&self, made: &Made) -> &[u8] {
        &self.made_rlp[made.start as usize..(made.start + made.len) as usize]
    }

    /// Names the trie that changes are made to from now on, for errors.
    pub fn set_owner(&mut self, owner: Option<B256>) {
        self.owner = owner;
    }

    /// The value of `key`, with the life of the witness if it is as it was there. The nodes on the way are read once: changes to `key`
    /// find them again.
    ///
    /// # Errors
    /// A node on the way that is not in the witness, or is none.
    pub fn read(&mut self, root: &mut Child<'w>, key: &B256) -> Result<Option<Found<'_, 'w>>, StateFault> {
        let Some(mut id) = self.resolve(*root, key, 0, false, false)? else { return Ok(None) };
        *root = Child::Node(id);
        let mut depth = 0;
        loop {
            let below = match self.arena[id as usize].kind {
                Kind::Branch(branch) => {
                    let digit = nibble(key, depth);
                    depth += 1;
                    let child = self.branches[branch as usize][digit];
                    let below = self.resolve(child, key, depth, false, false)?;
                    if let Some(below) = below {
                        self.branches[branch as usize][digit] = Child::Node(below);
                    }
                    below
                }
                Kind::Extension { path, end, child } => {
                    depth = usize::from(end);
                    if shared_nibbles(key, &path) < depth {
                        return Ok(None);
                    }
                    let below = self.resolve(child, key, depth, true, false)?;
                    if let Some(below) = below {
                        self.arena[id as usize].kind = Kind::Extension { path, end, child: Child::Node(below) };
                    }
                    below
                }
                Kind::Leaf { key: found, .. } if found != *key => return Ok(None),
                Kind::Leaf { value: Value::Old(value), .. } => return Ok(Some(Found::Old(value))),
                Kind::Leaf { value, .. } => return Ok(Some(Found::New(self.value(value)))),
            };
            match below {
                Some(below) => id = below,
                None => return Ok(None),
            }
        }
    }

    /// Gives `key` a value: RLP of at most 255 bytes, not empty.
    ///
    /// # Errors
    /// A node on the way that is not in the witness, or is none.
    pub fn insert(&mut self, root: &mut Child<'w>, key: &B256, value: &[u8]) -> Result<(), StateFault> {
        let start = self.values.len() as u32; // Fewer than 2^32 bytes: a block's changes are bounded by its gas.
        self.values.extend_from_slice(value);
        // Callers write accounts (at most 110 bytes) and integers (at most 33).
        let value = Value::New { start, len: value.len() as u8 };
        if let Some(changed) = self.insert_at(*root, 0, false, key, value)? {
            *root = changed;
        }
        Ok(())
    }

    /// Removes `key`; nothing happens when it is absent.
    ///
    /// # Errors
    /// A node on the way, or the sibling that takes the place of a branch, that is not in the witness, or is none.
    pub fn delete(&mut self, root: &mut Child<'w>, key: &B256) -> Result<(), StateFault> {
        if let Some(changed) = self.delete_at(*root, 0, false, key)? {
            *root = changed;
        }
        Ok(())
    }

    /// The root hashes of tries, after everything changed in them has been hashed, deepest nodes of all tries first. Each comes with
    /// the hash of the address whose storage it is.
    pub fn hash(&mut self, roots: &[(Option<B256>, Child<'w>)]) -> Vec<B256> {
        let mut levels: Vec<Vec<Pending>> = Vec::new();
        for (owner, root) in roots {
            let mut path = B256::ZERO;
            self.collect(*root, (owner.as_ref(), &mut path), (0, 0), &mut levels);
        }
        let mut rlp = Vec::with_capacity(HASH_MESSAGES * NODE_RLP_BYTES_MAX);
        for level in levels.iter().rev() {
            for group in level.chunks(HASH_MESSAGES) {
                self.hash_group(group, &mut rlp);
            }
        }
        roots.iter().map(|(_, root)| self.root_hash(*root)).collect()
    }

    /// Reads what hangs at a place, if anything. `is_sibling`: it is what a collapsing branch leaves.
    fn resolve(
        &mut self,
        child: Child<'w>,
        key: &B256,
        depth: usize,
        after_extension: bool,
        is_sibling: bool,
    ) -> Result<Option<NodeId>, StateFault> {
        let name = match child {
            Child::Node(id) => {
                self.touch(id, key, depth);
                return Ok(Some(id));
            }
            Child::Old(name) => name,
        };
        let mut at = At { owner: self.owner, hash: B256::ZERO, depth, after_extension };
        let (view, name) = match name {
            ChildRef::Empty => return Ok(None),
            ChildRef::Embedded(rlp) => (at.parse(rlp, key)?, Name::Embedded(rlp)),
            ChildRef::Hash(hash) => {
                at.hash = *hash;
                let index = self.nodes.find(hash).ok_or_else(|| {
                    let (hash, place) = (*hash, at.place(key));
                    if is_sibling {
                        StateFault::SiblingMissing { hash, place }
                    } else {
                        StateFault::NodeMissing { hash, place }
                    }
                })?;
                (self.nodes.view(index, &at, key)?, Name::Entry { hash, index })
            }
        };
        let kind = match view {
            NodeView::Branch(children) => self.add_branch(children.map(Child::Old)),
            NodeView::Extension { path, end, child } => {
                Kind::Extension { path, end: end as u8, child: Child::Old(child) } // Below 64.
            }
            NodeView::Leaf { key, value } => Kind::Leaf { key, value: Value::Old(value) },
        };
        let id = self.add(kind, name);
        self.touch(id, key, depth);
        Ok(Some(id))
    }

    /// Remembers that this round has read a node of the tries before it.
    fn touch(&mut self, id: NodeId, key: &B256, depth: usize) {
        let node = &mut self.arena[id as usize];
        if std::mem::replace(&mut node.round, self.round) == self.round {
            return;
        }
        let source = match node.name {
            Name::Entry { hash, index } => Source::Entry { hash, index },
            Name::Made(index) if self.made[index as usize].len as usize >= HASHED_BYTES_MIN => Source::Made(index),
            Name::Made(_) | Name::Embedded(_) | Name::Changed => return,
        };
        self.touched.push((Place::new(self.owner.as_ref(), key, depth), source, id));
    }

    fn add_branch(&mut self, children: [Child<'w>; WIDTH]) -> Kind<'w> {
        self.branches.push(children);
        Kind::Branch(self.branches.len() as u32 - 1)
    }

    fn add(&mut self, kind: Kind<'w>, name: Name<'w>) -> NodeId {
        self.arena.push(Node { kind, name, round: 0 });
        self.arena.len() as NodeId - 1
    }

    /// A node that the state before did not have.
    fn add_new(&mut self, kind: Kind<'w>) -> Child<'w> {
        Child::Node(self.add(kind, Name::Changed))
    }

    /// Gives a node a new content.
    fn change(&mut self, id: NodeId, kind: Kind<'w>) -> Child<'w> {
        self.arena[id as usize] = Node { kind, name: Name::Changed, round: self.round };
        Child::Node(id)
    }

    fn value(&self, value: Value<'w>) -> &[u8] {
        match value {
            Value::Old(bytes) => bytes,
            Value::New { start, len } => &self.values[start as usize..start as usize + usize::from(len)],
        }
    }

    /// `None`: nothing changed.
    fn insert_at(
        &mut self,
        child: Child<'w>,
        depth: usize,
        after_extension: bool,
        key: &B256,
        value: Value<'w>,
    ) -> Result<Option<Child<'w>>, StateFault> {
        let leaf = Kind::Leaf { key: *key, value };
        let Some(id) = self.resolve(child, key, depth, after_extension, false)? else {
            return Ok(Some(self.add_new(leaf)));
        };
        match self.arena[id as usize].kind {
            Kind::Branch(branch) => {
                let digit = nibble(key, depth);
                let below = self.branches[branch as usize][digit];
                let changed = self.insert_at(below, depth + 1, false, key, value)?;
                Ok(changed.map(|below| self.change_branch(id, branch, digit, below)))
            }
            Kind::Extension { path, end, child } => {
                let shared = shared_nibbles(key, &path).min(usize::from(end));
                if shared == usize::from(end) {
                    let changed = self.insert_at(child, shared, true, key, value)?;
                    return Ok(changed.map(|child| self.change(id, Kind::Extension { path, end, child })));
                }
                let old = if shared + 1 == usize::from(end) {
                    child
                } else {
                    self.change(id, Kind::Extension { path, end, child })
                };
                Ok(Some(self.fork(depth, shared, (&path, old), (key, leaf))))
            }
            Kind::Leaf { key: found, value: old } if found == *key => {
                if self.value(old) == self.value(value) {
                    return Ok(None);
                }
                Ok(Some(self.change(id, leaf)))
            }
            kind @ Kind::Leaf { key: found, .. } => {
                let shared = shared_nibbles(key, &found);
                let old = self.change(id, kind);
                Ok(Some(self.fork(depth, shared, (&found, old), (key, leaf))))
            }
        }
    }

    /// A branch at depth `shared` of something old and a new leaf, and the extension that leads there from `depth`.
    fn fork(
        &mut self,
        depth: usize,
        shared: usize,
        (old_path, old): (&B256, Child<'w>),
        (key, leaf): (&B256, Kind<'w>),
    ) -> Child<'w> {
        let mut children = [Child::EMPTY; WIDTH];
        children[nibble(old_path, shared)] = old;
        children[nibble(key, shared)] = self.add_new(leaf);
        let branch = self.add_branch(children);
        let branch = self.add_new(branch);
        if shared == depth {
            return branch;
        }
        self.add_new(Kind::Extension { path: prefix_of(key, shared), end: shared as u8, child: branch })
    }

    fn change_branch(&mut self, id: NodeId, branch: u32, digit: usize, child: Child<'w>) -> Child<'w> {
        self.branches[branch as usize][digit] = child;
        self.change(id, Kind::Branch(branch))
    }

    /// `None`: nothing changed.
    fn delete_at(
        &mut self,
        child: Child<'w>,
        depth: usize,
        after_extension: bool,
        key: &B256,
    ) -> Result<Option<Child<'w>>, StateFault> {
        let Some(id) = self.resolve(child, key, depth, after_extension, false)? else { return Ok(None) };
        match self.arena[id as usize].kind {
            Kind::Leaf { key: found, .. } => Ok((found == *key).then_some(Child::EMPTY)),
            Kind::Extension { path, end, child } => {
                if shared_nibbles(key, &path) < usize::from(end) {
                    return Ok(None);
                }
                let Some(below) = self.delete_at(child, usize::from(end), true, key)? else { return Ok(None) };
                // A branch of two children or more leaves something, and what has changed is a node.
                let Child::Node(below_id) = below else { unreachable!("a branch leaves a node behind") };
                Ok(Some(match self.arena[below_id as usize].kind {
                    Kind::Branch(_) => self.change(id, Kind::Extension { path, end, child: below }),
                    // It takes the place of this extension: its path already starts at the root.
                    Kind::Extension { .. } | Kind::Leaf { .. } => below,
                }))
            }
            Kind::Branch(branch) => {
                let digit = nibble(key, depth);
                let below = self.branches[branch as usize][digit];
                let Some(below) = self.delete_at(below, depth + 1, false, key)? else { return Ok(None) };
                let changed = self.change_branch(id, branch, digit, below);
                let children = &self.branches[branch as usize];
                let mut present = (0..WIDTH).filter(|digit| children[*digit] != Child::EMPTY);
                match (present.next(), present.next()) {
                    (Some(only), None) => self.collapse((changed, branch), only, depth, key).map(Some),
                    _ => Ok(Some(changed)),
                }
            }
        }
    }

    /// What takes the place of a branch at `depth` on the way to `key` that keeps the child `only`.
    fn collapse(
        &mut self,
        (collapsing, branch): (Child<'w>, u32),
        only: usize,
        depth: usize,
        key: &B256,
    ) -> Result<Child<'w>, StateFault> {
        let child = self.branches[branch as usize][only];
        let mut path = prefix_of(key, depth);
        set_nibble(&mut path, depth, only as u8); // Below 16.
        let id = match (self.resolve(child, &path, depth + 1, false, true), &mut self.missing) {
            (Err(StateFault::SiblingMissing { hash, place }), Some(missing)) => {
                missing.push(MissingSibling { hash, place: *place });
                return Ok(collapsing);
            }
            (found, _) => found?.expect("the only child is not empty"),
        };
        Ok(match self.arena[id as usize].kind {
            Kind::Branch(_) => {
                self.add_new(Kind::Extension { path, end: depth as u8 + 1, child: Child::Node(id) }) // Below 64.
            }
            kind => self.change(id, kind),
        })
    }

    /// Lists the changed nodes below a place by their level.
    fn collect(
        &self,
        child: Child<'w>,
        (owner, path): (Option<&B256>, &mut B256),
        (level, depth): (usize, usize),
        levels: &mut Vec<Vec<Pending>>,
    ) {
        let Child::Node(id) = child else { return };
        let node = &self.arena[id as usize];
        if !matches!(node.name, Name::Changed) {
            return;
        }
        if levels.len() <= level {
            levels.push(Vec::new());
        }
        let place = Place::new(owner, path, depth);
        levels[level].push(Pending { id, depth: depth as u8, place }); // At most 64.
        match node.kind {
            Kind::Leaf { .. } => {}
            Kind::Extension { path: own, end, child } => {
                path.copy_from_slice(own.as_slice());
                self.collect(child, (owner, path), (level + 1, usize::from(end)), levels);
            }
            Kind::Branch(branch) => {
                for (digit, child) in self.branches[branch as usize].iter().enumerate() {
                    set_nibble(path, depth, digit as u8); // Below 16.
                    self.collect(*child, (owner, path), (level + 1, depth + 1), levels);
                }
            }
        }
    }

    fn hash_group(&mut self, group: &[Pending], rlp: &mut Vec<u8>) {
        rlp.clear();
        let mut ends = [0; HASH_MESSAGES + 1];
        for (message, pending) in group.iter().enumerate() {
            self.encode(pending, rlp);
            ends[message + 1] = rlp.len();
        }
        // Fewer than 2^32 bytes and nodes: what the changes of a run make is bounded by its gas.
        let (first, base) = (self.made.len(), self.made_rlp.len());
        for (index, pending) in group.iter().enumerate() {
            let (start, len) = ((base + ends[index]) as u32, (ends[index + 1] - ends[index]) as u32);
            self.made.push(Made { hash: B256::ZERO, start, len, place: pending.place });
            self.arena[pending.id as usize].name = Name::Made((first + index) as u32);
        }
        self.made_rlp.extend_from_slice(rlp);
        let made = &mut self.made[first..];
        keccak256_each(
            group.len(),
            |index| &rlp[ends[index]..ends[index + 1]],
            |index, digest| made[index].hash = digest,
        );
    }

    /// The root of a trie in which nothing has changed since it was hashed.
    #[must_use]
    pub fn root_hash(&self, root: Child<'w>) -> B256 {
        let name = match root {
            Child::Old(ChildRef::Hash(hash)) => return *hash,
            Child::Old(_) => return ROOT_EMPTY,
            Child::Node(id) => self.arena[id as usize].name,
        };
        match name {
            Name::Entry { hash, .. } => *hash,
            Name::Embedded(rlp) => keccak256(rlp),
            Name::Made(index) => self.made[index as usize].hash,
            Name::Changed => unreachable!("everything that changed is hashed"),
        }
    }

    /// How a parent names a child whose hash is known.
    fn name(&self, child: &Child<'w>, out: &mut Vec<u8>) {
        let name = match child {
            Child::Old(ChildRef::Empty) => return out.push(0x80),
            Child::Old(ChildRef::Hash(hash)) => return hashed(hash, out),
            Child::Old(ChildRef::Embedded(rlp)) => return out.extend_from_slice(rlp),
            Child::Node(id) => self.arena[*id as usize].name,
        };
        match name {
            Name::Entry { hash, .. } => hashed(hash, out),
            Name::Embedded(rlp) => out.extend_from_slice(rlp),
            Name::Made(index) => {
                let made = &self.made[index as usize];
                match self.made_bytes(made) {
                    rlp if rlp.len() < HASHED_BYTES_MIN => out.extend_from_slice(rlp),
                    _ => hashed(&made.hash, out),
                }
            }
            Name::Changed => unreachable!("children are hashed before their parents"),
        }
    }

    /// Appends the RLP of a node of which all children are hashed.
    fn encode(&self, pending: &Pending, out: &mut Vec<u8>) {
        let start = out.len();
        // Room for the longest header; the payload moves down when its length is known.
        out.extend_from_slice(&[0; 3]);
        match self.arena[pending.id as usize].kind {
            Kind::Branch(branch) => {
                for child in &self.branches[branch as usize] {
                    self.name(child, out);
                }
                out.push(0x80);
            }
            Kind::Extension { path, end, child } => {
                hex_prefix(&path, usize::from(pending.depth), usize::from(end), 0, out);
                self.name(&child, out);
            }
            Kind::Leaf { key, value } => {
                hex_prefix(&key, usize::from(pending.depth), KEY_NIBBLES, 0x20, out);
                string(self.value(value), out);
            }
        }
        let payload_bytes = out.len() - start - 3;
        let header = match payload_bytes {
            0..56 => &[0xc0 + payload_bytes as u8][..],
            56..256 => &[0xf8, payload_bytes as u8],
            // A branch has at most 529 bytes, a leaf at most 33 and 112.
            _ => &[0xf9, (payload_bytes >> 8) as u8, payload_bytes as u8],
        };
        out[start..start + header.len()].copy_from_slice(header);
        if header.len() < 3 {
            out.copy_within(start + 3.., start + header.len());
            out.truncate(start + header.len() + payload_bytes);
        }
    }
}

/// A value that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'v, 'w> {
    /// As the witness has it.
    Old(&'w [u8]),
    /// As a change made it.
    New(&'v [u8]),
}

impl<'v, 'w: 'v> Found<'v, 'w> {
    #[must_use]
    pub fn bytes(&self) -> &'v [u8] {
        match self {
            Self::Old(bytes) => bytes,
            Self::New(bytes) => bytes,
        }
    }
}

fn hashed(hash: &B256, out: &mut Vec<u8>) {
    out.push(0xa0);
    out.extend_from_slice(hash.as_slice());
}

/// Appends the hex prefix encoding of nibbles `start..end` of a key as an RLP string.
fn hex_prefix(key: &B256, start: usize, end: usize, flag: u8, out: &mut Vec<u8>) {
    let mut prefix = [0; 33];
    let mut at = start;
    prefix[0] = flag;
    if (end - start) % 2 == 1 {
        prefix[0] |= 0x10 | nibble(key, at) as u8;
        at += 1;
    }
    let pairs = (end - at) / 2;
    for (index, byte) in prefix[1..=pairs].iter_mut().enumerate() {
        *byte = if at.is_multiple_of(2) {
            key[at / 2 + index]
        } else {
            key[at / 2 + index] << 4 | key[at / 2 + index + 1] >> 4
        };
    }
    string(&prefix[..=pairs], out);
}

/// Appends a string of fewer than 256 bytes.
fn string(bytes: &[u8], out: &mut Vec<u8>) {
    match bytes {
        [byte] if *byte < 0x80 => {}
        _ if bytes.len() < 56 => out.push(0x80 + bytes.len() as u8),
        _ => out.extend_from_slice(&[0xb8, bytes.len() as u8]),
    }
    out.extend_from_slice(bytes);
}
