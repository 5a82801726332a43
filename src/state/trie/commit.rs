//! A block's changes on a version: storage tries first, then the account trie that holds their roots.

use std::ops::Range;

use alloy_primitives::{B256, Bytes, U256};

use super::crew::Crew;
use super::node::{Key, Link, Node, Slot, WIDTH, key_words};
use super::writer::{Change, Updates, Value, Writer, group_len, words_of};
use super::{Draft, account_leaf, empty_link};
use crate::crypto::keccak::keccak256_each;
use crate::state::{AccountChange, StateChanges, StateError};

/// From this many changes on, the work is spread: below, waking threads (40–80 µs) costs more than it saves.
const SPREAD_CHANGES: usize = 100;
/// Tries with at least this many changes are split below their root branch.
const SPLIT_CHANGES: usize = 100;
/// Pieces of work: the subtries below a root branch.
const PIECES: usize = WIDTH;
/// Fewest runs of spread work: who comes late then finds something to do.
const RUNS_MIN: usize = 4;
/// Changes of a run, about: with fewer, the lanes that hash a level together are not full.
const RUN_CHANGES: usize = 256;
/// Keys hashed by one thread at a time.
const KEY_HASHES: usize = 512;
/// From this many changes on, they are put in order by the first byte of their keys before they are sorted.
const BUCKET_CHANGES: usize = 1_024;

/// Changes of one trie, or of one of the subtries below its root branch.
struct Piece<'a> {
    trie: usize,
    /// `None`: the whole trie.
    digit: Option<usize>,
    old: Link,
    changes: &'a [Change<'a>],
}

/// A trie to change.
struct Trie<'a> {
    old: Link,
    changes: &'a [Change<'a>],
}

/// What a commit works on: the nodes of the new version so far.
struct Commit<'d, 'p, D> {
    draft: &'d mut D,
    crew: Crew<'p>,
}

/// Whether so many changes, those of accounts and slots together, are worth waking the pool.
#[must_use]
pub fn is_spread(changes: &StateChanges) -> bool {
    changes.accounts.iter().map(|change| 1 + change.storage.len()).sum::<usize>() >= SPREAD_CHANGES
}

/// Applies the changes of accounts and storage to the trie below `parent`, and adds the new nodes to the draft.
///
/// # Errors
/// Repeated accounts or slots, a node that is not sound, too many new nodes.
pub fn commit<D: Draft + Send>(
    crew: Crew<'_>,
    parent: Link,
    draft: &mut D,
    changes: &StateChanges,
) -> Result<Link, StateError> {
    Commit { draft, crew }.apply(parent, &changes.accounts)
}

/// Adds codes to the trie of codes below `parent`, each under its hash. Those that are there stay where they are.
///
/// # Errors
/// As [`commit`].
pub fn commit_codes<D: Draft>(parent: Link, draft: &mut D, codes: &[(B256, Bytes)]) -> Result<Link, StateError> {
    if codes.is_empty() {
        return Ok(parent);
    }
    let mut changes: Vec<Change<'_>> =
        (0..).zip(codes).map(|(index, (hash, _))| Change { key: key_words(hash), value: Value::Code(index) }).collect();
    changes.sort_unstable_by_key(|change| change.key);
    changes.dedup_by_key(|change| change.key);
    let words: usize = codes.iter().map(|(_, code)| 8 + code.len() / 8).sum();
    let segment = draft.segment_next();
    let buffer = draft.buffer(words);
    let mut writer = Writer::new(&*draft, Updates { codes, ..Updates::default() });
    writer.begin(segment, buffer);
    writer.update_root(parent, 0, &changes)?;
    let links = writer.hash()?;
    let words = writer.finish();
    draft.add(segment, words);
    Ok(links[0])
}

impl<D: Draft> Commit<'_, '_, D> {
    fn apply(&mut self, parent: Link, accounts: &[AccountChange]) -> Result<Link, StateError> {
        let crew = self.crew;
        crew.rouse();
        let message = |index: usize| &accounts[index].address;
        let value = |index: usize| match accounts[index].account {
            // Lossless: a block has fewer changes by far.
            Some(_) => Value::Account(index as u32),
            None => Value::Delete,
        };
        let changes = hashed(crew, accounts.len(), message, value);
        let storages = self.change_storages(parent, accounts, &changes)?;
        let changes = in_order(crew, changes);
        if has_repeated(&changes) {
            return Err(repeated_account(accounts));
        }
        let updates = Updates { accounts, storages: &storages, codes: &[] };
        let trie = Trie { old: parent, changes: &changes };
        Ok(self.change_tries(&[trie], updates)?[0])
    }

    /// Changes the storage tries of all accounts. `changes` are those of the accounts, in the order of these. Answers the new storages by the
    /// accounts' indexes, in ascending order.
    fn change_storages(
        &mut self,
        parent: Link,
        accounts: &[AccountChange],
        changes: &[Change<'_>],
    ) -> Result<Vec<(u32, Link)>, StateError> {
        let indexes: Vec<usize> = (0..accounts.len()).filter(|index| has_storage_changes(&accounts[*index])).collect();
        if indexes.is_empty() {
            return Ok(Vec::new());
        }
        let (storage, ranges) = storage_changes(self.crew, accounts, &indexes)?;
        let space = &*self.draft;
        let old = |index: usize| -> Result<Link, StateError> {
            if accounts[index].storage_cleared {
                return Ok(empty_link());
            }
            let leaf = account_leaf(space, parent.node, &changes[index].key)?;
            Ok(leaf
                .map_or(empty_link(), |leaf| Link { node: leaf.storage, slot: Slot::hash(leaf.account.storage_root) }))
        };
        let old = self.crew.each(indexes.iter().copied(), old).into_iter().collect::<Result<Vec<Link>, _>>()?;
        let tries: Vec<Trie<'_>> =
            old.into_iter().zip(ranges).map(|(old, range)| Trie { old, changes: &storage[range] }).collect();
        let roots = self.change_tries(&tries, Updates::default())?;
        Ok(indexes.into_iter().map(|index| index as u32).zip(roots).collect())
    }

    /// Changes tries and adds the runs written. The results are in the order of the tries.
    fn change_tries(&mut self, tries: &[Trie<'_>], updates: Updates<'_>) -> Result<Vec<Link>, StateError> {
        let mut roots: Vec<Link> = tries.iter().map(|trie| trie.old).collect();
        let mut split: Vec<(usize, [Link; WIDTH])> = Vec::new();
        let pieces = self.pieces(tries, &mut split)?;
        let bins = bins(&pieces, self.run_count(&pieces));
        let first_segment = self.draft.segment_next();
        let mut buffers: Vec<Vec<u64>> = Vec::with_capacity(bins.len());
        for pieces in &bins {
            let change_count = pieces.iter().map(|piece| piece.changes.len()).sum();
            buffers.push(self.draft.buffer(words_of(change_count)));
        }
        let space = &*self.draft;
        let work = |writer: &mut Writer<'_, D>, ((bin, pieces), buffer): ((usize, &&[Piece<'_>]), Vec<u64>)| {
            writer.begin(first_segment + bin as u32, buffer);
            for piece in *pieces {
                writer.update_root(piece.old, usize::from(piece.digit.is_some()), piece.changes)?;
            }
            let links = writer.hash()?;
            Ok::<_, StateError>((links, writer.finish()))
        };
        let written = self.crew.each_with(bins.iter().enumerate().zip(buffers), || Writer::new(space, updates), work);
        for (written, (bin, pieces)) in written.into_iter().zip(bins.iter().enumerate()) {
            let (links, words) = written?;
            self.draft.add(first_segment + bin as u32, words);
            for (piece, link) in pieces.iter().zip(links) {
                match piece.digit {
                    None => roots[piece.trie] = link,
                    Some(digit) => {
                        let position = split.partition_point(|(trie, _)| *trie < piece.trie);
                        split[position].1[digit] = link;
                    }
                }
            }
        }
        self.join(&split, &mut roots)?;
        Ok(roots)
    }

    /// Into how many runs the work is cut.
    fn run_count(&self, pieces: &[Piece<'_>]) -> usize {
        if !self.crew.is_spread() {
            return 1;
        }
        let change_count: usize = pieces.iter().map(|piece| piece.changes.len()).sum();
        (change_count / RUN_CHANGES).next_power_of_two().clamp(RUNS_MIN, PIECES)
    }

    /// Joins the subtries of split tries.
    fn join(&mut self, split: &[(usize, [Link; WIDTH])], roots: &mut [Link]) -> Result<(), StateError> {
        if split.is_empty() {
            return Ok(());
        }
        let segment = self.draft.segment_next();
        let buffer = self.draft.buffer(words_of(0));
        let mut writer = Writer::new(&*self.draft, Updates::default());
        writer.begin(segment, buffer);
        for (_, children) in split {
            writer.join_root(children)?;
        }
        for ((trie, _), link) in split.iter().zip(writer.hash()?) {
            roots[*trie] = link;
        }
        let words = writer.finish();
        self.draft.add(segment, words);
        Ok(())
    }

    /// Cuts tries into pieces. `split` gets the old children of those that are split, by number of the trie.
    fn pieces<'c>(
        &self,
        tries: &[Trie<'c>],
        split: &mut Vec<(usize, [Link; WIDTH])>,
    ) -> Result<Vec<Piece<'c>>, StateError> {
        let mut pieces = Vec::with_capacity(tries.len() + WIDTH);
        for (number, trie) in tries.iter().enumerate() {
            let is_split = self.crew.is_spread() && trie.changes.len() >= SPLIT_CHANGES;
            let children = if is_split { self.children(trie.old)? } else { None };
            let Some(children) = children else {
                pieces.push(Piece { trie: number, digit: None, old: trie.old, changes: trie.changes });
                continue;
            };
            split.push((number, children));
            let mut rest = trie.changes;
            for (digit, old) in children.into_iter().enumerate() {
                let (group, after) = rest.split_at(group_len(rest, 0, digit));
                rest = after;
                if !group.is_empty() {
                    pieces.push(Piece { trie: number, digit: Some(digit), old, changes: group });
                }
            }
        }
        Ok(pieces)
    }

    /// The children of a root, if it is a branch or nothing.
    fn children(&self, root: Link) -> Result<Option<[Link; WIDTH]>, StateError> {
        if root.node == 0 {
            return Ok(Some([Link::default(); WIDTH]));
        }
        Ok(match self.draft.node(root.node)? {
            Node::Branch(branch) => Some(std::array::from_fn(|nibble| branch.child(nibble))),
            _ => None,
        })
    }
}

/// Cuts a list of pieces into at most `count` runs of about equal numbers of changes.
fn bins<'p, 'c>(pieces: &'p [Piece<'c>], count: usize) -> Vec<&'p [Piece<'c>]> {
    let total: usize = pieces.iter().map(|piece| piece.changes.len()).sum();
    let target = total.div_ceil(count).max(1);
    let mut bins = Vec::with_capacity(count);
    let mut start = 0;
    let mut weight = 0;
    for (index, piece) in pieces.iter().enumerate() {
        weight += piece.changes.len();
        if weight >= target {
            bins.push(&pieces[start..=index]);
            start = index + 1;
            weight = 0;
        }
    }
    if start < pieces.len() {
        bins.push(&pieces[start..]);
    }
    bins
}

fn has_storage_changes(change: &AccountChange) -> bool {
    change.account.is_some() && (change.storage_cleared || !change.storage.is_empty())
}

/// Sorted changes of the storage of each account of `indexes`, and where each account's are.
fn storage_changes<'c>(
    crew: Crew<'_>,
    accounts: &'c [AccountChange],
    indexes: &[usize],
) -> Result<(Vec<Change<'c>>, Vec<Range<usize>>), StateError> {
    let slots: Vec<&(U256, U256)> = indexes.iter().flat_map(|index| &accounts[*index].storage).collect();
    let message = |index: usize| slots[index].0.to_be_bytes::<32>();
    let value = |index: usize| match &slots[index].1 {
        value if value.is_zero() => Value::Delete,
        value => Value::Slot(value),
    };
    let mut changes = hashed(crew, slots.len(), message, value);
    let mut ranges = Vec::with_capacity(indexes.len());
    let mut end = 0;
    for index in indexes {
        ranges.push(end..end + accounts[*index].storage.len());
        end += accounts[*index].storage.len();
    }
    let mut small = Vec::with_capacity(ranges.len());
    let mut rest = changes.as_mut_slice();
    for range in &ranges {
        let (own, after) = rest.split_at_mut(range.len());
        rest = after;
        if own.len() < BUCKET_CHANGES {
            small.push(own);
        } else {
            own.copy_from_slice(&in_order(crew, own.to_vec()));
        }
    }
    crew.each(small.chunks_mut(KEY_HASHES), |lists| {
        lists.iter_mut().for_each(|list| list.sort_unstable_by_key(|change| change.key));
    });
    match ranges.iter().position(|range| has_repeated(&changes[range.clone()])) {
        Some(place) => Err(repeated_slot(&accounts[indexes[place]])),
        None => Ok((changes, ranges)),
    }
}

fn has_repeated(sorted: &[Change<'_>]) -> bool {
    sorted.windows(2).any(|pair| pair[0].key == pair[1].key)
}

fn repeated_account(accounts: &[AccountChange]) -> StateError {
    let mut addresses: Vec<_> = accounts.iter().map(|change| change.address).collect();
    addresses.sort_unstable();
    let address = addresses.windows(2).find(|pair| pair[0] == pair[1]).map_or(addresses[0], |pair| pair[0]);
    StateError::AccountRepeated { address }
}

fn repeated_slot(account: &AccountChange) -> StateError {
    let mut slots: Vec<_> = account.storage.iter().map(|(slot, _)| *slot).collect();
    slots.sort_unstable();
    let slot = slots.windows(2).find(|pair| pair[0] == pair[1]).map_or(slots[0], |pair| pair[0]);
    StateError::SlotRepeated { address: account.address, slot }
}

/// Changes with the hashes of messages as keys, in the order of the messages.
fn hashed<'c, M: AsRef<[u8]>>(
    crew: Crew<'_>,
    count: usize,
    message: impl Fn(usize) -> M + Sync,
    value: impl Fn(usize) -> Value<'c> + Sync,
) -> Vec<Change<'c>> {
    let mut changes = vec![Change { key: Key::default(), value: Value::Delete }; count];
    let hash = |(chunk, changes): (usize, &mut [Change<'c>])| {
        let start = chunk * KEY_HASHES;
        let messages: Vec<M> = (start..start + changes.len()).map(&message).collect();
        let place = |index: usize, digest: B256| {
            changes[index] = Change { key: key_words(&digest), value: value(start + index) };
        };
        keccak256_each(messages.len(), |index| messages[index].as_ref(), place);
    };
    crew.each(changes.chunks_mut(KEY_HASHES).enumerate(), hash);
    changes
}

/// Changes of one trie in the order of their keys.
fn in_order<'c>(crew: Crew<'_>, mut changes: Vec<Change<'c>>) -> Vec<Change<'c>> {
    if changes.len() < BUCKET_CHANGES {
        changes.sort_unstable_by_key(|change| change.key);
        return changes;
    }
    let first_byte = |change: &Change<'_>| (change.key[0] >> 56) as usize;
    let mut counts = [0_usize; 256];
    changes.iter().for_each(|change| counts[first_byte(change)] += 1);
    let mut next = [0_usize; 256];
    for byte in 1..256 {
        next[byte] = next[byte - 1] + counts[byte - 1];
    }
    let mut ordered = vec![changes[0]; changes.len()];
    for change in &changes {
        let place = &mut next[first_byte(change)];
        ordered[*place] = *change;
        *place += 1;
    }
    let mut rest = ordered.as_mut_slice();
    let mut groups = Vec::with_capacity(PIECES);
    for counts in counts.chunks(256 / PIECES) {
        let (group, after) = rest.split_at_mut(counts.iter().sum());
        groups.push((counts, group));
        rest = after;
    }
    crew.each(groups, |(counts, mut group)| {
        for count in counts {
            let (bucket, after) = std::mem::take(&mut group).split_at_mut(*count);
            bucket.sort_unstable_by_key(|change| change.key);
            group = after;
        }
    });
    ordered
}
