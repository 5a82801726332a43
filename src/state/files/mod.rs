//! The state in files: copy-on-write Merkle-Patricia tries in append-only segments that any thread reads through maps.
//!
//! Input → output: see [`StateStore`] and [`StateReader`]. Owner core: the store belongs to the state thread, which lends work to the hash
//! pool; [`sync::Syncer`] belongs to the thread that makes commits durable; a [`Reader`] belongs to anyone.
//! Shape: a commit writes new nodes behind the old ones, with one gathered write into the newest segment, and is readable at once. Durable it is
//! later, when the syncer has synced it and written a root slot. Live nodes are moved out of the oldest segments bit by bit, and a segment
//! is deleted when no retained version, no reader and neither slot on the disk needs it.
//! Invariants: what a published version reaches is never written again; nothing on the disk that a slot names is written again; after a failed
//! write or sync nothing is written any more.
//! Formats: `docs/STATE_FORMAT.md`. Deliberately absent: who calls it when, see `topology.rs`.

pub mod absent_disk;
pub mod check;
pub mod disk;
pub mod file_disk;
pub mod recovery;
pub mod roots;
pub mod space;
pub mod sync;
pub mod verify;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use alloy_primitives::{Address, B256, Bytes, U256};
use rayon::ThreadPool;

use crate::crypto::keccak::keccak256;
use crate::runtime::address_range::AddressRange;
use crate::runtime::file::bytes_of;
use crate::state::trie::crew::Crew;
use crate::state::trie::node::{Link, Node, Position, Slot, key_words};
use crate::state::trie::prefetch::{Ahead, Goal};
use crate::state::trie::reclaim::{self, Cursor, Roots};
use crate::state::trie::writer::root_hash;
use crate::state::trie::{self, Space, account_leaf, find};
use crate::state::{
    Account, AccountProof, ROOT_EMPTY, STATE_ROOTS_RETAINED, Stamp, StateChanges, StateError, StateReader, StateStore,
};

use disk::{BLOCK_WORDS, Disk};
use roots::{ENTRIES_MAX, Entry};
use space::{FileDraft, FileSpace, Geometry, resolve};
use sync::{StateCells, Syncer};

/// Beyond the last [`STATE_ROOTS_RETAINED`] versions, one in so many blocks is retained back to the finalized one.
pub const SPARSE_BLOCKS: u64 = 64;
/// Words of empty buffers kept for the next commit: 48 MiB, what a block of 30,000 changes needs.
const BUFFER_WORDS_MAX: usize = 6 << 20;
const _: () = assert!(STATE_ROOTS_RETAINED < ENTRIES_MAX);

/// "SEGMENT" and the version of the format, 1.
const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"SEGMENT\x01");

/// Makes versions of the state in files.
pub struct FileStore {
    pool: Arc<ThreadPool>,
    disk: Box<dyn Disk>,
    geometry: Geometry,
    range: Arc<AddressRange>,
    cells: Arc<StateCells>,
    syncer: Option<Syncer>,
    /// Oldest first.
    retained: VecDeque<Reader>,
    /// Every version that was ever given out and may still be read, oldest first.
    handed: VecDeque<Weak<Version>>,
    /// The segments that exist: the oldest, and the one behind the newest.
    oldest: u32,
    next: u32,
    /// Everything written lies below.
    end: Position,
    checked: std::ops::Range<Position>,
    checked_crc: u32,
    /// Words appended by commits since the last call of `reclaim`, and by both in all.
    unreclaimed_words: usize,
    written_words: u64,
    buffers: Vec<Vec<u64>>,
    /// Places in the range that were written and whose pages are not mapped yet.
    unmapped: Vec<std::ops::Range<usize>>,
    is_failed: bool,
}

/// One version of the state. A clone is a counter.
#[derive(Clone)]
pub struct Reader {
    version: Arc<Version>,
}

pub(in crate::state) struct Version {
    stamp: Stamp,
    root: B256,
    codes_root: B256,
    roots: Roots,
    space: FileSpace,
    cursor: Cursor,
}

impl FileStore {
    /// What the store tells other threads.
    #[must_use]
    pub fn cells(&self) -> Arc<StateCells> {
        Arc::clone(&self.cells)
    }

    /// The part that makes commits durable; there is one.
    pub fn take_syncer(&mut self) -> Option<Syncer> {
        self.syncer.take()
    }

    /// Gives the part back that [`FileStore::take_syncer`] took.
    pub fn put_syncer(&mut self, syncer: Syncer) {
        self.syncer = Some(syncer);
    }

    /// A handle to the files, for the thread that prepares segments, and the length of one.
    #[must_use]
    pub fn preparer(&self) -> (Box<dyn Disk>, u64) {
        (self.disk.handle(), self.geometry.segment_bytes)
    }

    /// Address and length of the range in which segments are mapped, and the length of a segment: for those who explain faults.
    #[must_use]
    pub fn mapped(&self) -> (usize, usize, usize) {
        (self.range.address(), self.range.bytes(), self.geometry.segment_bytes as usize)
    }

    /// The segments on the disk.
    #[must_use]
    pub fn segments(&self) -> std::ops::Range<u32> {
        self.oldest..self.next
    }

    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Words written since the store was opened: by commits, and by moving what is alive.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.written_words * 8
    }

    /// Bytes of segments on the disk.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        u64::from(self.next - self.oldest) * self.geometry.segment_bytes
    }

    /// The newest version; `None` before the first commit.
    #[must_use]
    pub fn newest(&self) -> Option<&Reader> {
        self.retained.back()
    }

    /// The versions that can be asked for, oldest first.
    pub fn retained_versions(&self) -> impl DoubleEndedIterator<Item = &Reader> {
        self.retained.iter()
    }

    /// Walks a piece of the newest version's pass, or of a new one, and lets go of segments that nobody needs. Answers whether the pass ended.
    ///
    /// # Errors
    /// A node that is not sound, or a failed write.
    pub fn step(&mut self, fuel_words: usize) -> Result<bool, StateError> {
        let Some(newest) = self.retained.back().cloned() else { return Ok(true) };
        let version = &newest.version;
        let floor = self.end.next_multiple_of(BLOCK_WORDS as u64);
        let mut buffers = std::mem::take(&mut self.buffers);
        let mut draft = FileDraft::new(self.space(version.space.first()), &mut buffers);
        let step = reclaim::step(&mut draft, version.roots, version.cursor, floor, fuel_words);
        let runs = draft.runs;
        self.buffers = buffers;
        let step = step?;
        let bases = self.append(runs, false)?;
        let roots = Roots { accounts: resolve(step.roots.accounts, &bases), codes: resolve(step.roots.codes, &bases) };
        // In an empty state nothing was written behind the floor, which begins at a block.
        let first = step.emptied_below.map_or(version.space.first(), |below| below.min(self.end));
        let moved = Version {
            stamp: version.stamp,
            root: version.root,
            codes_root: version.codes_root,
            roots,
            space: self.space(first),
            cursor: step.cursor,
        };
        self.retained.pop_back();
        self.publish(moved);
        Ok(step.emptied_below.is_some())
    }

    /// Walks in pieces that fill a segment without leaving much of its end empty.
    fn walk(&mut self, fuel_words: usize) -> Result<(), StateError> {
        let piece_words = (self.geometry.segment_words() / 16) as usize;
        let mut left_words = fuel_words;
        while left_words > 0 {
            let words = left_words.min(piece_words);
            left_words -= words;
            if self.step(words)? {
                break;
            }
        }
        Ok(())
    }

    /// Moves all that is alive into new segments and forgets every version but the newest: for a process that does nothing else.
    ///
    /// # Errors
    /// As [`FileStore::step`].
    pub fn compact(&mut self) -> Result<(), StateError> {
        let Some(newest) = self.retained.pop_back() else { return Ok(()) };
        self.retained = VecDeque::from([newest]);
        // The first ends a pass that was under way, the second is a whole one.
        for _ in 0..2 {
            while !self.step((self.geometry.segment_words() / 16) as usize)? {}
        }
        // Both slots must have let go of what was moved.
        let mut syncer = self.syncer.take();
        for _ in 0..2 {
            if let Some(syncer) = &mut syncer {
                syncer.sync(u64::MAX)?;
                self.step(1)?;
                syncer.sync(u64::MAX)?;
            }
        }
        self.syncer = syncer;
        self.drop_segments()
    }

    /// The newest layout of a version: nodes may have been moved since the handle was given out.
    fn current(&self, reader: &Reader) -> Reader {
        self.retained(&reader.version.root).unwrap_or_else(|| reader.clone())
    }

    fn changed(&mut self, stamp: Stamp, parent: &Version, changes: &StateChanges) -> Result<Version, StateError> {
        let mut buffers = std::mem::take(&mut self.buffers);
        let mut draft = FileDraft::new(self.space(parent.space.first()), &mut buffers);
        let crew = Crew::new(&self.pool, trie::commit::is_spread(changes));
        let root = trie::commit::commit(crew, parent.root_link(), &mut draft, changes);
        let codes_root = Link { node: parent.roots.codes, slot: Slot::hash(parent.codes_root) };
        let codes = root.and_then(|root| {
            trie::commit::commit_codes(codes_root, &mut draft, &changes.codes).map(|codes| (root, codes))
        });
        let runs = draft.runs;
        self.buffers = buffers;
        let (root, codes) = codes?;
        let words: usize = runs.iter().map(Vec::len).sum();
        let bases = self.append(runs, trie::commit::is_spread(changes))?;
        self.unreclaimed_words += words;
        let is_fresh = parent.roots == Roots::default();
        Ok(Version {
            stamp,
            root: root_hash(&root),
            codes_root: root_hash(&codes),
            roots: Roots { accounts: resolve(root.node, &bases), codes: resolve(codes.node, &bases) },
            space: self.space(if is_fresh {
                bases.iter().copied().fold(self.end, Position::min)
            } else {
                parent.space.first()
            }),
            cursor: if is_fresh { Cursor::fresh(words) } else { parent.cursor },
        })
    }

    /// Gives runs their places, seals and writes them. Answers where each lies.
    fn append(&mut self, mut runs: Vec<Vec<u64>>, is_spread: bool) -> Result<Vec<Position>, StateError> {
        // ORDERING: Acquire pairs with the syncer's Release.
        if self.is_failed || self.cells.is_poisoned.load(Ordering::Acquire) {
            return Err(StateError::Poisoned);
        }
        let (bases, end) = self.places(&runs)?;
        let seal = |(words, base): (&mut Vec<u64>, &Position)| {
            check::seal(words, *base, |position| resolve(position, &bases));
            crc32c::crc32c(bytes_of(words))
        };
        let crew = Crew::new(&self.pool, is_spread);
        let crcs = crew.each(runs.iter_mut().zip(&bases), seal);
        let written = self.write(&runs, &bases, &crcs);
        if let Err(error) = written {
            self.is_failed = true;
            return Err(error);
        }
        self.end = end;
        let mut kept_words = 0;
        for mut buffer in runs {
            kept_words += buffer.capacity();
            if kept_words <= BUFFER_WORDS_MAX {
                buffer.clear();
                self.buffers.push(buffer);
            }
        }
        Ok(bases)
    }

    /// Where runs will lie, and where the last one ends. Each lies in one segment; the first, and the first of a segment, begin at a block.
    fn places(&self, runs: &[Vec<u64>]) -> Result<(Vec<Position>, Position), StateError> {
        let geometry = self.geometry;
        let room_words = geometry.segment_words() - BLOCK_WORDS as u64;
        let mut at = self.end.next_multiple_of(BLOCK_WORDS as u64);
        let mut bases = Vec::with_capacity(runs.len());
        let mut end = self.end;
        for run in runs {
            let words = run.len() as u64;
            if words > room_words {
                return Err(StateError::CommitTooLarge { words_max: room_words });
            }
            if at.is_multiple_of(geometry.segment_words()) {
                at += BLOCK_WORDS as u64;
            }
            let segment_end = geometry.start(geometry.segment(at) + 1);
            if at + words > segment_end {
                at = segment_end + BLOCK_WORDS as u64;
            }
            bases.push(at);
            at += words;
            if words > 0 {
                end = at;
            }
        }
        Ok((bases, end))
    }

    /// Writes sealed runs, segment by segment, each up to the end of a block.
    fn write(&mut self, runs: &[Vec<u64>], bases: &[Position], crcs: &[u32]) -> Result<(), StateError> {
        let geometry = self.geometry;
        let zeros = [0; BLOCK_WORDS];
        let filled: Vec<usize> = (0..runs.len()).filter(|run| !runs[*run].is_empty()).collect();
        for batch in filled.chunk_by(|a, b| geometry.segment(bases[*a]) == geometry.segment(bases[*b])) {
            let segment = geometry.segment(bases[batch[0]]);
            while self.next <= segment {
                self.create_segment(self.next)?;
            }
            let start = bases[batch[0]];
            let mut parts: Vec<&[u64]> = batch.iter().map(|run| runs[*run].as_slice()).collect();
            let words: u64 = parts.iter().map(|part| part.len() as u64).sum();
            let padding = words.next_multiple_of(BLOCK_WORDS as u64) - words;
            parts.push(&zeros[..padding as usize]);
            self.disk.write(segment, (start - geometry.start(segment)) * 8, &parts)?;
            self.written_words += words + padding;
            let place = geometry.place(segment) + ((start - geometry.start(segment)) * 8) as usize;
            self.unmapped.push(place..place + (words * 8) as usize);
            self.checked = start..start + words;
            let (first, rest) = batch.split_first().expect("a batch has a run");
            let add = |crc, run: &usize| crc32c::crc32c_combine(crc, crcs[*run], runs[*run].len() * 8);
            self.checked_crc = rest.iter().fold(crcs[*first], add);
        }
        Ok(())
    }

    /// Maps the pages of what was written, so that neither a reader nor the next commit has to: nobody waits for it.
    fn map_written(&mut self) {
        for pages in self.unmapped.drain(..) {
            self.range.populate(pages.start, pages.len());
        }
    }

    fn create_segment(&mut self, segment: u32) -> Result<(), StateError> {
        let geometry = self.geometry;
        if segment - self.oldest >= geometry.segments_max() {
            return Err(StateError::RangeFull { segments: geometry.segments_max() });
        }
        self.disk.create(segment, geometry.segment_bytes)?;
        self.disk.write(segment, 0, &[&segment_header(segment, geometry)])?;
        self.disk.map(segment, &self.range, geometry.place(segment), geometry.segment_bytes)?;
        self.next = segment + 1;
        Ok(())
    }

    /// Makes a version one that can be asked for, and one that the next slot names.
    fn publish(&mut self, version: Version) -> Reader {
        let reader = Reader { version: Arc::new(version) };
        let stamp = reader.version.stamp;
        // The same block made again, after a start or a roll-back, takes the place of the first.
        self.retained.retain(|other| other.version.stamp.number != stamp.number || other.root() != reader.root());
        self.retained.push_back(reader.clone());
        self.trim();
        if self.handed.len() > 8 * STATE_ROOTS_RETAINED {
            self.handed.retain(|version| version.strong_count() > 0);
        }
        self.handed.push_back(Arc::downgrade(&reader.version));
        self.cells.newest.store(Some(Arc::clone(&reader.version)));
        self.show_retained();
        self.mark();
        reader
    }

    /// Tells others which versions can be asked for.
    pub(super) fn show_retained(&self) {
        self.cells
            .retained
            .store(Arc::new(self.retained.iter().map(|reader| Arc::downgrade(&reader.version)).collect()));
    }

    /// Forgets what is not retained any more.
    fn trim(&mut self) {
        let Some(old_count) = self.retained.len().checked_sub(STATE_ROOTS_RETAINED) else { return };
        let finalized = self.cells.finalized();
        let mut index = 0;
        self.retained.retain(|reader| {
            let number = reader.version.stamp.number;
            index += 1;
            index > old_count || number.is_multiple_of(SPARSE_BLOCKS) && number > finalized
        });
        while self.retained.len() > ENTRIES_MAX {
            self.retained.pop_front();
        }
    }

    /// Says what the next slot is to say.
    fn mark(&self) {
        let slot = roots::Slot {
            sequence: 0,
            // A state without a single node has no segment either.
            end: if self.checked.end == 0 { 0 } else { self.end },
            checked: self.checked.clone(),
            checked_crc: self.checked_crc,
            cursor: self.retained.back().map_or_else(Cursor::default, |reader| reader.version.cursor),
            entries: self.retained.iter().map(|reader| reader.version.entry()).collect(),
        };
        self.cells.mark.store(Some(Arc::new(slot)));
    }

    /// Deletes the segments that nothing needs: no retained version, no reader, neither slot on the disk.
    fn drop_segments(&mut self) -> Result<(), StateError> {
        // ORDERING: Acquire pairs with the syncer's Release: the slots that say so are durable.
        let free_below = self.cells.free_below.load(Ordering::Acquire);
        let retained = self.retained.iter().map(|reader| reader.version.space.first()).min().unwrap_or(0);
        let candidate = self.geometry.segment(free_below.min(retained));
        if candidate <= self.oldest {
            return Ok(());
        }
        self.handed.retain(|version| version.strong_count() > 0);
        let read = self.handed.iter().filter_map(Weak::upgrade).map(|version| version.space.first()).min();
        let until = candidate.min(read.map_or(candidate, |first| self.geometry.segment(first))).min(self.next);
        while self.oldest < until {
            self.disk.remove(self.oldest)?;
            recovery::unmap(&self.range, self.geometry, self.oldest)?;
            self.oldest += 1;
        }
        Ok(())
    }

    fn space(&self, first: Position) -> FileSpace {
        recovery::space(&self.range, self.geometry, first, self.end)
    }
}

impl StateStore for FileStore {
    type Reader = Reader;

    fn commit(&mut self, parent: &Reader, changes: &StateChanges) -> Result<Reader, StateError> {
        let number = parent.version.stamp.number + u64::from(parent.version.roots != Roots::default());
        self.commit_block(Stamp { number, sequence: 0 }, parent, changes)
    }

    fn commit_block(&mut self, stamp: Stamp, parent: &Reader, changes: &StateChanges) -> Result<Reader, StateError> {
        self.map_written();
        if self.unreclaimed_words > reclaim::OVERDUE_WORDS {
            self.reclaim()?;
        }
        let parent = self.current(parent);
        let version = self.changed(stamp, &parent.version, changes)?;
        Ok(self.publish(version))
    }

    fn empty(&self) -> Reader {
        let version = Version {
            stamp: Stamp::default(),
            root: ROOT_EMPTY,
            codes_root: ROOT_EMPTY,
            roots: Roots::default(),
            space: self.space(self.end),
            cursor: Cursor::default(),
        };
        Reader { version: Arc::new(version) }
    }

    fn retained(&self, root: &B256) -> Option<Reader> {
        self.retained.iter().rev().find(|reader| reader.version.root == *root).cloned()
    }

    fn reclaim(&mut self) -> Result<(), StateError> {
        self.map_written();
        let Some(newest) = self.retained.back() else { return Ok(()) };
        let appended_words = std::mem::take(&mut self.unreclaimed_words);
        let spanned_words = self.end.saturating_sub(newest.version.space.first()) as usize;
        if let Some(fuel_words) = reclaim::fuel_words(&newest.version.cursor, spanned_words, appended_words) {
            self.walk(fuel_words)?;
            self.map_written();
        }
        self.drop_segments()
    }
}

impl StateReader for Reader {
    fn root(&self) -> B256 {
        self.version.root
    }

    fn account(&self, address: &Address) -> Result<Option<Account>, StateError> {
        self.account_by_key(&keccak256(address.as_slice()))
    }

    fn storage(&self, address: &Address, slot: U256) -> Result<U256, StateError> {
        self.storage_by_key(&keccak256(address.as_slice()), &keccak256(&slot.to_be_bytes::<32>()))
    }

    fn code(&self, code_hash: &B256) -> Result<Option<Bytes>, StateError> {
        let version = &self.version;
        Ok(match find(&version.space, version.roots.codes, &key_words(code_hash))? {
            Some(Node::Code(leaf)) => Some(Bytes::from(leaf.code())),
            _ => None,
        })
    }

    fn proof(&self, address: &Address, slots: &[U256]) -> Result<AccountProof, StateError> {
        trie::proof::proof(&self.version.space, self.version.roots.accounts, address, slots)
    }
}

impl StateCells {
    /// The newest version; `None` before the first commit of this process.
    #[must_use]
    pub fn newest(&self) -> Option<Reader> {
        self.newest.load_full().map(|version| Reader { version })
    }

    /// The versions that can be asked for, oldest first.
    #[must_use]
    pub fn retained_versions(&self) -> Vec<Reader> {
        self.retained.load().iter().filter_map(Weak::upgrade).map(|version| Reader { version }).collect()
    }

    /// The version that a block left, when it is still retained. Its root is asked for as well: of two blocks of one height both may be.
    #[must_use]
    pub fn retained(&self, number: u64, root: &B256) -> Option<Reader> {
        let retained = self.retained.load();
        let versions = retained.iter().rev().filter_map(Weak::upgrade);
        let mut named = versions.filter(|version| version.stamp.number == number && version.root == *root);
        named.next().map(|version| Reader { version })
    }
}

impl Reader {
    /// The account whose address hashes to `address_hash`, for callers that keep hashes of busy addresses.
    ///
    /// # Errors
    /// A node that is not sound.
    pub fn account_by_key(&self, address_hash: &B256) -> Result<Option<Account>, StateError> {
        let leaf = account_leaf(&self.version.space, self.version.roots.accounts, &key_words(address_hash))?;
        Ok(leaf.map(|leaf| leaf.account))
    }

    /// The value of the slot that hashes to `slot_hash`.
    ///
    /// # Errors
    /// A node that is not sound.
    pub fn storage_by_key(&self, address_hash: &B256, slot_hash: &B256) -> Result<U256, StateError> {
        let version = &self.version;
        let leaf = account_leaf(&version.space, version.roots.accounts, &key_words(address_hash))?;
        let Some(leaf) = leaf else { return Ok(U256::ZERO) };
        Ok(match find(&version.space, leaf.storage, &key_words(slot_hash))? {
            Some(Node::Slot(leaf)) => leaf.value,
            _ => U256::ZERO,
        })
    }

    /// The root of the account trie.
    #[must_use]
    pub fn root_link(&self) -> Link {
        self.version.root_link()
    }

    /// A node of this version, checked.
    ///
    /// # Errors
    /// When there is none at the position, or it is not sound.
    pub fn node(&self, position: Position) -> Result<Node<'_>, StateError> {
        self.version.space.node(position)
    }

    /// Asks for the nodes on the way to what comes after `goals`, for who is at a node on the way to these.
    pub fn follow<G: Goal>(&self, ahead: &mut Ahead<'_, G>, goals: &[G]) {
        ahead.follow(&self.version.space, goals);
    }

    /// What the version stands for.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.version.stamp
    }

    /// Bytes from the first that this version may reach to the end of what is written.
    #[must_use]
    pub fn node_bytes(&self) -> usize {
        self.version.space.word_count() * size_of::<u64>()
    }
}

impl Version {
    fn root_link(&self) -> Link {
        Link { node: self.roots.accounts, slot: Slot::hash(self.root) }
    }

    fn entry(&self) -> Entry {
        Entry {
            number: self.stamp.number,
            sequence: self.stamp.sequence,
            root: self.root,
            codes_root: self.codes_root,
            accounts: self.roots.accounts,
            codes: self.roots.codes,
            first: self.space.first(),
        }
    }
}

/// The first block of a segment.
fn segment_header(segment: u32, geometry: Geometry) -> Vec<u64> {
    let mut words = vec![0; BLOCK_WORDS];
    words[0] = SEGMENT_MAGIC;
    words[2] = u64::from(segment);
    words[3] = geometry.segment_bytes;
    words[1] = u64::from(crc32c::crc32c(bytes_of(&words[2..])));
    words
}
