//! A block's changes on a version: storage tries first, then the account trie that holds their roots.

use alloy_primitives::{B256, Bytes};
use rayon::ThreadPool;
use rayon::prelude::*;

use super::node::{Key, Link, Node, Slot, WIDTH, key_words};
use super::writer::{AccountUpdate, Change, StorageUpdate, Value, Writer, group_len, root_hash, words_of};
use super::{Draft, Space, account_leaf, empty_link};
use crate::crypto::keccak::keccak256_each;
use crate::state::{AccountChange, StateChanges, StateError};

/// From this many changes on, the work is spread: below, waking threads (40–80 µs) costs more than it saves.
const SPREAD_CHANGES: usize = 256;
/// Tries with at least this many changes are split below their root branch.
const SPLIT_CHANGES: usize = 256;
/// Pieces of work: the subtries below a root branch.
const PIECES: usize = WIDTH;
/// Keys hashed by one thread at a time.
const KEY_HASHES: usize = 1024;

/// Changes of one trie, or of one of the subtries below its root branch.
struct Piece<'a> {
    trie: usize,
    /// `None`: the whole trie.
    digit: Option<usize>,
    old: Link,
    changes: &'a [Change],
}

/// A trie to change.
struct Trie<'a> {
    old: Link,
    changes: &'a [Change],
}

/// What a commit works on: the nodes of the new version so far.
struct Commit<'d, D> {
    draft: &'d mut D,
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
    pool: &ThreadPool,
    parent: Link,
    draft: &mut D,
    changes: &StateChanges,
) -> Result<Link, StateError> {
    let mut commit = Commit { draft };
    if is_spread(changes) {
        pool.install(|| commit.apply(parent, &changes.accounts, true))
    } else {
        commit.apply(parent, &changes.accounts, false)
    }
}

/// Adds codes to the trie of codes below `parent`, each under its hash. Those that are there stay where they are.
///
/// # Errors
/// As [`commit`].
pub fn commit_codes<D: Draft>(parent: Link, draft: &mut D, codes: &[(B256, Bytes)]) -> Result<Link, StateError> {
    if codes.is_empty() {
        return Ok(parent);
    }
    let mut changes: Vec<Change> =
        (0..).zip(codes).map(|(index, (hash, _))| Change { key: key_words(hash), value: Value::Code(index) }).collect();
    changes.sort_unstable_by_key(|change| change.key);
    changes.dedup_by_key(|change| change.key);
    let words: usize = codes.iter().map(|(_, code)| 8 + code.len() / 8).sum();
    let segment = draft.segment_next();
    let buffer = draft.buffer(words);
    let mut writer = Writer::over(&*draft, segment, &[], buffer).with_codes(codes);
    writer.update_root(parent, 0, &changes)?;
    let links = writer.hash()?;
    let words = writer.into_words();
    draft.add(segment, words);
    Ok(links[0])
}

impl<D: Draft> Commit<'_, D> {
    fn apply(&mut self, parent: Link, accounts: &[AccountChange], spread: bool) -> Result<Link, StateError> {
        let keys = hash_keys(accounts.len(), spread, |index| accounts[index].address.as_slice());
        let order = sorted(&keys, spread);
        if let Some(pair) = order.windows(2).find(|pair| keys[pair[0]] == keys[pair[1]]) {
            return Err(StateError::AccountRepeated { address: accounts[pair[0]].address });
        }
        let storages = storage_changes(accounts, spread)?;
        let tries = storage_tries(&*self.draft, parent, accounts, &keys, &storages, spread)?;
        let with_storage = || (0..accounts.len()).filter(|index| has_storage_changes(&accounts[*index]));
        let roots = self.change_tries(&tries, &[], spread)?;

        let mut updates = Vec::with_capacity(accounts.len());
        let mut storage_updates = vec![StorageUpdate::Keep; accounts.len()];
        for (index, link) in with_storage().zip(&roots) {
            storage_updates[index] = StorageUpdate::Root { node: link.node, root: root_hash(link) };
        }
        let mut account_changes = Vec::with_capacity(accounts.len());
        for index in order {
            let value = match accounts[index].account {
                Some(info) => {
                    updates.push(AccountUpdate { info, storage: storage_updates[index] });
                    Value::Account(updates.len() as u32 - 1)
                }
                None => Value::Delete,
            };
            account_changes.push(Change { key: keys[index], value });
        }
        let trie = Trie { old: parent, changes: &account_changes };
        Ok(self.change_tries(&[trie], &updates, spread)?[0])
    }

    /// Changes tries and adds the runs written. The results are in the order of the tries.
    fn change_tries(
        &mut self,
        tries: &[Trie<'_>],
        updates: &[AccountUpdate],
        spread: bool,
    ) -> Result<Vec<Link>, StateError> {
        let mut roots: Vec<Link> = tries.iter().map(|trie| trie.old).collect();
        let mut split: Vec<(usize, [Link; WIDTH])> = Vec::new();
        let pieces = self.pieces(tries, spread, &mut split)?;
        let bins = bins(&pieces, if spread { PIECES } else { 1 });
        let first_segment = self.draft.segment_next();
        let buffers: Vec<Vec<u64>> = bins
            .iter()
            .map(|pieces| pieces.iter().map(|piece| piece.changes.len()).sum())
            .map(|change_count| self.draft.buffer(words_of(change_count)))
            .collect();
        let space = &*self.draft;
        let work = |((bin, pieces), buffer): ((usize, &&[Piece<'_>]), Vec<u64>)| {
            let mut writer = Writer::over(space, first_segment + bin as u32, updates, buffer);
            for piece in *pieces {
                writer.update_root(piece.old, usize::from(piece.digit.is_some()), piece.changes)?;
            }
            let links = writer.hash()?;
            Ok((links, writer.into_words()))
        };
        let written: Vec<(Vec<Link>, Vec<u64>)> = if spread {
            bins.par_iter().enumerate().zip(buffers).map(work).collect::<Result<_, StateError>>()?
        } else {
            bins.iter().enumerate().zip(buffers).map(work).collect::<Result<_, StateError>>()?
        };
        for ((links, words), (bin, pieces)) in written.into_iter().zip(bins.iter().enumerate()) {
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

    /// Joins the subtries of split tries.
    fn join(&mut self, split: &[(usize, [Link; WIDTH])], roots: &mut [Link]) -> Result<(), StateError> {
        if split.is_empty() {
            return Ok(());
        }
        let segment = self.draft.segment_next();
        let buffer = self.draft.buffer(words_of(0));
        let mut writer = Writer::over(&*self.draft, segment, &[], buffer);
        for (_, children) in split {
            writer.join_root(children)?;
        }
        for ((trie, _), link) in split.iter().zip(writer.hash()?) {
            roots[*trie] = link;
        }
        let words = writer.into_words();
        self.draft.add(segment, words);
        Ok(())
    }

    /// Cuts tries into pieces. `split` gets the old children of those that are split, by number of the trie.
    fn pieces<'c>(
        &self,
        tries: &[Trie<'c>],
        spread: bool,
        split: &mut Vec<(usize, [Link; WIDTH])>,
    ) -> Result<Vec<Piece<'c>>, StateError> {
        let mut pieces = Vec::with_capacity(tries.len() + WIDTH);
        for (number, trie) in tries.iter().enumerate() {
            let children = if spread && trie.changes.len() >= SPLIT_CHANGES { self.children(trie.old)? } else { None };
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

/// Sorted changes of the storage of each account, in the order of the accounts that have some.
fn storage_changes(accounts: &[AccountChange], spread: bool) -> Result<Vec<Vec<Change>>, StateError> {
    let of_account = |account: &AccountChange| {
        let slots: Vec<[u8; 32]> = account.storage.iter().map(|(slot, _)| slot.to_be_bytes()).collect();
        let keys = hash_keys(slots.len(), spread, |index| slots[index].as_slice());
        let mut changes: Vec<Change> = keys
            .into_iter()
            .zip(&account.storage)
            .map(|(key, (_, value))| Change {
                key,
                value: if value.is_zero() { Value::Delete } else { Value::Slot(*value) },
            })
            .collect();
        changes.sort_unstable_by_key(|change| change.key);
        if changes.windows(2).any(|pair| pair[0].key == pair[1].key) {
            return Err(repeated_slot(account));
        }
        Ok(changes)
    };
    if spread {
        accounts.par_iter().filter(|account| has_storage_changes(account)).map(of_account).collect()
    } else {
        accounts.iter().filter(|account| has_storage_changes(account)).map(of_account).collect()
    }
}

fn repeated_slot(account: &AccountChange) -> StateError {
    let mut slots: Vec<_> = account.storage.iter().map(|(slot, _)| *slot).collect();
    slots.sort_unstable();
    let slot = slots.windows(2).find(|pair| pair[0] == pair[1]).map_or(slots[0], |pair| pair[0]);
    StateError::SlotRepeated { address: account.address, slot }
}

/// The storage tries to change: the old roots are in the parent's accounts.
fn storage_tries<'c, S: Space>(
    space: &S,
    parent: Link,
    accounts: &[AccountChange],
    keys: &[Key],
    storages: &'c [Vec<Change>],
    spread: bool,
) -> Result<Vec<Trie<'c>>, StateError> {
    let of_account = |(index, changes): (usize, &'c Vec<Change>)| {
        let old = if accounts[index].storage_cleared { None } else { account_leaf(space, parent.node, &keys[index])? };
        let old =
            old.map_or(empty_link(), |leaf| Link { node: leaf.storage, slot: Slot::hash(leaf.account.storage_root) });
        Ok(Trie { old, changes })
    };
    let indexes: Vec<usize> = (0..accounts.len()).filter(|index| has_storage_changes(&accounts[*index])).collect();
    if spread {
        indexes.into_par_iter().zip(storages).map(of_account).collect()
    } else {
        indexes.into_iter().zip(storages).map(of_account).collect()
    }
}

/// The order of keys.
fn sorted(keys: &[Key], spread: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    if spread {
        order.par_sort_unstable_by_key(|index| keys[*index]);
    } else {
        order.sort_unstable_by_key(|index| keys[*index]);
    }
    order
}

/// Hashes of messages as keys.
fn hash_keys<'a>(count: usize, spread: bool, message: impl Fn(usize) -> &'a [u8] + Sync) -> Vec<Key> {
    let mut keys = vec![Key::default(); count];
    let hash = |(chunk, keys): (usize, &mut [Key])| {
        let count = keys.len();
        let place = |index: usize, digest: B256| keys[index] = key_words(&digest);
        keccak256_each(count, |index| message(chunk * KEY_HASHES + index), place);
    };
    if spread && count > KEY_HASHES {
        keys.par_chunks_mut(KEY_HASHES).enumerate().for_each(hash);
    } else {
        keys.chunks_mut(KEY_HASHES).enumerate().for_each(hash);
    }
    keys
}
