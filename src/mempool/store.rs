//! Where pooled transactions lie: a slab with its indexes, sender lists and sums. Knows nothing of order or lifetime.

use std::hash::Hasher;

use alloy_primitives::{Address, B256, U256};
use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;

use super::admission::Limits;
use super::list::{Link, List, NONE};
use super::pool::{AccountView, Deferral, Submission, TxId};
use super::table::SlotTable;

/// Where a transaction stands. All but `Queued` are ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Free,
    /// Behind a nonce gap; in the eviction heap.
    Queued,
    /// Behind another ready transaction of its sender.
    Follower,
    /// Its sender's first, in the ready queue.
    Offered,
    /// Its sender's first, set aside.
    Deferred(Deferral),
}

/// The part of a transaction that moves between structures, apart from the rest so that few cache lines are touched.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub cost_wei: U256,
    pub nonce: u64,
    pub arrival: u64,
    /// When it entered its current expiry list.
    pub since_ns: u64,
    pub sender: u32,
    /// What it counts against `bytes_max`.
    pub charged_bytes: u32,
    pub place: Place,
    /// In the expiry list of its readiness.
    pub age_link: Link,
    /// In the list of what is set aside.
    pub deferral_link: Link,
    sender_link: Link,
    hash: u32,
    generation: u32,
}

impl Entry {
    const FREE: Self = Self {
        cost_wei: U256::ZERO,
        nonce: 0,
        arrival: 0,
        since_ns: 0,
        sender: NONE,
        charged_bytes: 0,
        place: Place::Free,
        age_link: Link::UNLINKED,
        deferral_link: Link::UNLINKED,
        sender_link: Link::UNLINKED,
        hash: 0,
        generation: 0,
    };
}

/// An account with at least one pooled transaction.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    pub address: Address,
    pub account: AccountView,
    /// Sum over all its transactions; at most the balance.
    pub cost_wei: U256,
    /// All its transactions by nonce.
    pub list: List,
    /// First nonce from the account's on that is not pooled.
    pub ready_end: u64,
    hash: u32,
}

#[derive(Clone, Copy, Debug)]
struct Authority {
    address: Address,
    reserved_count: u32,
}

/// The slab. `Option` in `submissions` is `None` exactly where the entry's place is `Free`.
pub(super) struct Store<P> {
    pub entries: Vec<Entry>,
    pub senders: Vec<Sender>,
    pub bytes: u64,
    pub conditional_count: u32,
    submissions: Vec<Option<Submission<P>>>,
    free: Vec<u32>,
    free_senders: Vec<u32>,
    by_hash: SlotTable,
    by_nonce: SlotTable,
    by_sender: SlotTable,
    authorities: Vec<Authority>,
    free_authorities: Vec<u32>,
    by_authority: SlotTable,
    authority_count: u32,
    shared_seed: SharedSeed,
    seed: u64,
}

/// An empty vector whose memory the kernel has handed out already: a page's first touch costs about 10 µs on a virtual machine, and
/// would otherwise be paid by a transaction.
fn touched<T>(slots: usize, value: impl FnMut() -> T) -> Vec<T> {
    let mut slab = Vec::with_capacity(slots);
    slab.resize_with(slots, value);
    slab.clear();
    slab
}

impl<P> Store<P> {
    pub fn new(limits: &Limits, seed: u64) -> Self {
        let slots = limits.transactions_max as usize;
        Self {
            entries: Vec::with_capacity(slots),
            senders: Vec::with_capacity(slots),
            bytes: 0,
            conditional_count: 0,
            submissions: touched(slots, || None),
            free: Vec::with_capacity(slots),
            free_senders: Vec::with_capacity(slots),
            by_hash: SlotTable::with_capacity(limits.transactions_max),
            by_nonce: SlotTable::with_capacity(limits.transactions_max),
            by_sender: SlotTable::with_capacity(limits.transactions_max),
            authorities: Vec::with_capacity(limits.authorities_max as usize),
            free_authorities: Vec::with_capacity(limits.authorities_max as usize),
            by_authority: SlotTable::with_capacity(limits.authorities_max),
            authority_count: 0,
            shared_seed: SharedSeed::from_u64(seed),
            seed,
        }
    }

    pub fn len(&self) -> u32 {
        self.by_hash.len()
    }

    pub fn sender_count(&self) -> u32 {
        self.by_sender.len()
    }

    /// Reservations over all pooled transactions, duplicates counted.
    pub fn authority_count(&self) -> u32 {
        self.authority_count
    }

    pub fn id(&self, slot: u32) -> TxId {
        TxId { slot, generation: self.entries[slot as usize].generation }
    }

    /// The slot of an id whose transaction is still pooled.
    pub fn slot(&self, id: TxId) -> Option<u32> {
        let entry = self.entries.get(id.slot as usize)?;
        (entry.generation == id.generation && entry.place != Place::Free).then_some(id.slot)
    }

    pub fn submission(&self, slot: u32) -> &Submission<P> {
        self.submissions[slot as usize]
            .as_ref()
            .expect("the callers' slots come from the indexes, which hold pooled slots only")
    }

    pub fn submission_mut(&mut self, slot: u32) -> &mut Submission<P> {
        self.submissions[slot as usize]
            .as_mut()
            .expect("the callers' slots come from the indexes, which hold pooled slots only")
    }

    pub fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        (0_u32..).zip(&self.entries).filter(|(_, entry)| entry.place != Place::Free).map(|(slot, _)| slot)
    }

    /// `NONE` for the sender's first.
    pub fn previous_of_sender(&self, slot: u32) -> u32 {
        self.entries[slot as usize].sender_link.prev
    }

    pub fn next_of_sender(&self, slot: u32) -> Option<u32> {
        let next = self.entries[slot as usize].sender_link.next;
        (next != NONE).then_some(next)
    }

    pub fn find_hash(&self, hash: &B256) -> Option<u32> {
        self.by_hash.find(self.hash_bytes(hash.as_slice()), |slot| self.submission(slot).hash == *hash)
    }

    pub fn find_sender(&self, address: &Address) -> Option<u32> {
        self.by_sender
            .find(self.hash_bytes(address.as_slice()), |sender| self.senders[sender as usize].address == *address)
    }

    pub fn find_nonce(&self, sender: u32, nonce: u64) -> Option<u32> {
        self.by_nonce.find(self.hash_nonce(sender, nonce), |slot| {
            let entry = &self.entries[slot as usize];
            entry.nonce == nonce && entry.sender == sender
        })
    }

    /// How many pooled authorizations name `address`.
    pub fn reserved_count(&self, address: &Address) -> u32 {
        if self.authority_count == 0 {
            return 0;
        }
        self.find_authority(address).map_or(0, |index| self.authorities[index as usize].reserved_count)
    }

    /// Adds a transaction, and its sender where that is new. Its place is `Free` until the caller sets it.
    ///
    /// `previous` is the sender's transaction before it (`NONE` for none) where the caller knows.
    pub fn insert(
        &mut self,
        submission: Submission<P>,
        account: &AccountView,
        arrival: u64,
        cost_wei: U256,
        previous: Option<u32>,
    ) -> u32 {
        let sender =
            self.find_sender(&submission.sender).unwrap_or_else(|| self.add_sender(submission.sender, account));
        let nonce = submission.fields.nonce;
        let previous = previous.unwrap_or_else(|| self.predecessor(sender, nonce));
        let hash = self.hash_bytes(submission.hash.as_slice());
        let charged_bytes = submission.charged_bytes();
        if let Some(authorities) = &submission.authorities {
            authorities.iter().for_each(|authority| self.reserve(*authority));
        }
        self.bytes += u64::from(charged_bytes);
        self.conditional_count += u32::from(submission.conditions.is_some());
        let slot = self.free.pop().unwrap_or_else(|| self.grow());
        let entry = &mut self.entries[slot as usize];
        let generation = entry.generation.wrapping_add(1);
        *entry = Entry { cost_wei, nonce, arrival, sender, charged_bytes, hash, generation, ..Entry::FREE };
        self.submissions[slot as usize] = Some(submission);
        self.by_hash.insert(hash, slot);
        self.by_nonce.insert(self.hash_nonce(sender, nonce), slot);
        let sender = &mut self.senders[sender as usize];
        sender.list.insert_after(&mut self.entries, |entry| &mut entry.sender_link, previous, slot);
        sender.cost_wei += cost_wei;
        slot
    }

    /// Takes a transaction out of everything here. The sender stays until `release_if_empty`.
    pub fn remove(&mut self, slot: u32) -> Submission<P> {
        let submission = self.submissions[slot as usize].take().expect("the callers' slots come from the indexes");
        let entry = &mut self.entries[slot as usize];
        entry.place = Place::Free;
        let (sender, nonce, hash, cost_wei) = (entry.sender, entry.nonce, entry.hash, entry.cost_wei);
        self.bytes -= u64::from(entry.charged_bytes);
        self.conditional_count -= u32::from(submission.conditions.is_some());
        self.by_hash.remove(hash, slot);
        self.by_nonce.remove(self.hash_nonce(sender, nonce), slot);
        let sender = &mut self.senders[sender as usize];
        sender.list.remove(&mut self.entries, |entry| &mut entry.sender_link, slot);
        sender.cost_wei -= cost_wei;
        if let Some(authorities) = &submission.authorities {
            authorities.iter().for_each(|authority| self.release(authority));
        }
        self.free.push(slot);
        submission
    }

    pub fn release_if_empty(&mut self, sender: u32) {
        let entry = &self.senders[sender as usize];
        if entry.list.len == 0 {
            self.by_sender.remove(entry.hash, sender);
            self.free_senders.push(sender);
        }
    }

    /// The sender's transaction that `nonce` comes right after, or `NONE`.
    ///
    /// Cost: one step for the end of the list and inside a contiguous run; else as many as the gap is wide.
    fn predecessor(&self, sender: u32, nonce: u64) -> u32 {
        let entry = &self.senders[sender as usize];
        if entry.list.tail == NONE || self.entries[entry.list.tail as usize].nonce < nonce {
            return entry.list.tail;
        }
        (entry.account.nonce..nonce).rev().find_map(|below| self.find_nonce(sender, below)).unwrap_or(NONE)
    }

    fn grow(&mut self) -> u32 {
        let slot = self.entries.len() as u32; // At most `transactions_max`, which is a u32.
        self.entries.push(Entry::FREE);
        self.submissions.push(None);
        slot
    }

    fn add_sender(&mut self, address: Address, account: &AccountView) -> u32 {
        let hash = self.hash_bytes(address.as_slice());
        let entry = Sender {
            address,
            account: *account,
            cost_wei: U256::ZERO,
            list: List::EMPTY,
            ready_end: account.nonce,
            hash,
        };
        let index = match self.free_senders.pop() {
            Some(index) => {
                self.senders[index as usize] = entry;
                index
            }
            None => {
                self.senders.push(entry);
                self.senders.len() as u32 - 1 // At most one sender per transaction slot.
            }
        };
        self.by_sender.insert(hash, index);
        index
    }

    fn find_authority(&self, address: &Address) -> Option<u32> {
        self.by_authority
            .find(self.hash_bytes(address.as_slice()), |index| self.authorities[index as usize].address == *address)
    }

    fn reserve(&mut self, address: Address) {
        self.authority_count += 1;
        if let Some(index) = self.find_authority(&address) {
            self.authorities[index as usize].reserved_count += 1;
            return;
        }
        let entry = Authority { address, reserved_count: 1 };
        let index = match self.free_authorities.pop() {
            Some(index) => {
                self.authorities[index as usize] = entry;
                index
            }
            None => {
                self.authorities.push(entry);
                self.authorities.len() as u32 - 1 // At most `authorities_max`.
            }
        };
        self.by_authority.insert(self.hash_bytes(address.as_slice()), index);
    }

    fn release(&mut self, address: &Address) {
        let index = self.find_authority(address).expect("reserved when the transaction was added");
        self.authority_count -= 1;
        let entry = &mut self.authorities[index as usize];
        entry.reserved_count -= 1;
        if entry.reserved_count == 0 {
            self.by_authority.remove(self.hash_bytes(address.as_slice()), index);
            self.free_authorities.push(index);
        }
    }

    fn hash_bytes(&self, bytes: &[u8]) -> u32 {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.shared_seed);
        hasher.write(bytes);
        hasher.finish() as u32 // The table takes 32 bits; any of the 64 will do.
    }

    fn hash_nonce(&self, sender: u32, nonce: u64) -> u32 {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.shared_seed);
        hasher.write_u64(nonce);
        hasher.write_u32(sender);
        hasher.finish() as u32
    }
}
