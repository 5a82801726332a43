//! The state of accounts, storage and code: published versions that any thread reads, and commits that make the next one.
//!
//! Input → output: a block's net changes ([`StateChanges`]) on a parent version → a new version with its state root.
//! Owner core: one thread commits (with a pool of hash threads); any thread reads.
//! Invariants: a published version never changes and takes no lock to read; the last `STATE_ROOTS_RETAINED` roots can be
//! asked for again, so a reorganisation is choosing an older version as parent.
//! Deliberately absent: execution, the rule which accounts are empty (EIP-161: who makes the changes says `None`), disk.

pub mod bloom;
pub mod driver;
pub mod files;
pub mod genesis;
pub mod list_root;
pub mod memory;
pub mod trie;

pub use list_root::ListRoot;

use files::disk::FileName;

use alloy_primitives::{Address, B256, Bytes, U256, b256};

/// Keccak-256 of no bytes: the code hash of an account without code.
pub const CODE_HASH_EMPTY: B256 = b256!("c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470");

/// Root of a trie without entries: Keccak-256 of the RLP empty string.
pub const ROOT_EMPTY: B256 = b256!("56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421");

/// Versions that can be asked for by root: what a reorganisation of two epochs (64 blocks) needs, twice.
pub const STATE_ROOTS_RETAINED: usize = 128;

/// The state version that the rest of the crate reads.
pub type Snapshot = files::Reader;

/// The store that makes versions.
pub type Store = files::FileStore;

/// An account as the trie holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    pub nonce: u64,
    pub balance_wei: U256,
    pub code_hash: B256,
    pub storage_root: B256,
}

/// What execution writes of an account; the storage root follows from the slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountInfo {
    pub nonce: u64,
    pub balance_wei: U256,
    pub code_hash: B256,
}

/// Net change of one account in one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountChange {
    pub address: Address,
    /// The account afterwards; `None` = deleted, with its storage.
    pub account: Option<AccountInfo>,
    /// The storage is emptied before `storage` is written: the account was deleted and created again.
    pub storage_cleared: bool,
    /// Slot and value afterwards, each slot once, any order; the value 0 deletes.
    pub storage: Vec<(U256, U256)>,
}

/// Net changes of one block: any order, each address once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateChanges {
    pub accounts: Vec<AccountChange>,
    /// New code by its hash.
    pub codes: Vec<(B256, Bytes)>,
}

/// Why the state cannot answer or commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The changes name an account twice.
    #[error("account {address} is changed twice in one block")]
    AccountRepeated { address: Address },
    /// The changes name a slot twice.
    #[error("slot {slot} of account {address} is changed twice in one block")]
    SlotRepeated { address: Address, slot: U256 },
    /// A node that a reachable node names is not there.
    #[error("state node {node:#x} is missing or malformed")]
    NodeBroken { node: u64 },
    /// The positions of new nodes do not fit their field.
    #[error("a commit writes more than {words_max} words of nodes at once")]
    CommitTooLarge { words_max: u64 },
    /// The version is a part of a state, and this is not in it. Who made the reader knows what is missing.
    #[error("the partial state lacks what was asked for")]
    Partial,
    /// What is in a file is not what was written there.
    #[error("state file {file}, offset {offset}: {what}")]
    Damaged { file: FileName, offset: u64, what: &'static str },
    #[error("state: {op} {file} at {offset}: {}", std::io::Error::from_raw_os_error(*code))]
    Io { op: &'static str, file: FileName, offset: u64, code: i32 },
    #[error("state: write {file} at {offset}: {written} of {wanted} bytes were written")]
    Short { file: FileName, offset: u64, wanted: u64, written: u64 },
    #[error("state: no space on the disk for {bytes} bytes of {file}")]
    Full { file: FileName, bytes: u64 },
    /// Live segments fill the addresses that were reserved for them.
    #[error("state: {segments} segments are in use, and no more can be mapped")]
    RangeFull { segments: u32 },
    /// An earlier write or sync failed: nobody knows what is on the disk, so nothing more is written.
    #[error("state: a write or sync failed before: nothing more is written")]
    Poisoned,
    /// The simulated machine stopped here.
    #[error("the simulated machine stopped")]
    Crashed,
}

/// What a commit stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Number of the block.
    pub number: u64,
    /// Journal record that must be durable before the version counts after a restart.
    pub sequence: u64,
}

/// One published version of the state. Reading takes no lock; a handle keeps its version alive.
pub trait StateReader: Send + Sync {
    /// The state root.
    fn root(&self) -> B256;

    fn account(&self, address: &Address) -> Result<Option<Account>, StateError>;

    /// The value of a slot; 0 when the account or the slot does not exist.
    fn storage(&self, address: &Address, slot: U256) -> Result<U256, StateError>;

    fn code(&self, code_hash: &B256) -> Result<Option<Bytes>, StateError>;

    /// What `eth_getProof` (EIP-1186) answers.
    fn proof(&self, address: &Address, slots: &[U256]) -> Result<AccountProof, StateError>;
}

/// Makes versions out of versions. One thread owns it.
pub trait StateStore {
    type Reader: StateReader + Clone + Send + Sync + 'static;

    /// The version after `changes`. `parent` may be any version of this store, however old.
    fn commit(&mut self, parent: &Self::Reader, changes: &StateChanges) -> Result<Self::Reader, StateError>;

    /// As [`StateStore::commit`], for a block: what a start finds of it on the disk is found by its number.
    ///
    /// # Errors
    /// As [`StateStore::commit`].
    fn commit_block(
        &mut self,
        _stamp: Stamp,
        parent: &Self::Reader,
        changes: &StateChanges,
    ) -> Result<Self::Reader, StateError> {
        self.commit(parent, changes)
    }

    /// The version without accounts.
    fn empty(&self) -> Self::Reader;

    /// The version with this root, if it is among the last `STATE_ROOTS_RETAINED`.
    fn retained(&self, root: &B256) -> Option<Self::Reader>;

    /// Takes back space of versions that nobody can ask for any more, a bounded piece of work at a time. To be called when
    /// the block is out; a commit does it itself when it was left undone for long.
    fn reclaim(&mut self) -> Result<(), StateError>;
}

/// Merkle proof of an account and of some of its slots (EIP-1186).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountProof {
    pub address: Address,
    /// `None`: the proof shows that the account does not exist.
    pub account: Option<Account>,
    /// RLP of the nodes from the root towards the account.
    pub account_proof: Vec<Bytes>,
    pub storage: Vec<SlotProof>,
}

/// Merkle proof of one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotProof {
    pub slot: U256,
    pub value: U256,
    /// RLP of the nodes from the storage root towards the slot; empty when the account has no storage.
    pub proof: Vec<Bytes>,
}
