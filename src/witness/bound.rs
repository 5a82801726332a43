//! How large the witness of a transaction can become at most, from what its execution touched and nothing else.
//!
//! What the builder compares with a limit before it places a transaction; when the bound is above, the exact witness is made
//! ([`super::run`]). Owner core: any. Pure, in the time that it takes to look at the lists once.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::builder::world::access::Accesses;
use crate::primitives::Address;

/// A branch with 16 hashes, and the header of the string that it is in a list.
const BRANCH_BYTES: usize = 532 + 3;
/// The longest leaf: a whole key of 33 bytes and an account of 112, with headers.
const LEAF_BYTES: usize = 33 + 112 + 8;
/// Headers of the outer list, of its four lists, and of a code.
const LIST_BYTES: usize = 9;
/// RLP of a header with 32 bytes of extra data, at most: 14 fields of 32 bytes and less, the bloom, and what integers take.
pub const HEADER_BYTES_MAX: usize = 704;

/// Nodes above the leaf on the longest path, as far as anyone can bring it about: each level below those that fill by themselves takes
/// sixteen times the hashing of the one above, and 2^80 hashes make twenty.
pub const PATH_BRANCHES_MAX: usize = 20;

/// Branches above a leaf in the tries that a transaction reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    pub accounts: usize,
    pub storage: usize,
}

impl Depth {
    /// When nothing is known of the tries.
    pub const UNKNOWN: Self = Self { accounts: PATH_BRANCHES_MAX, storage: PATH_BRANCHES_MAX };
}

/// What of an execution decides how large its witness can become.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    pub accounts: usize,
    /// Slots of each account of which any were touched.
    pub slots: Vec<usize>,
    /// Accounts and slots that were left deleted.
    pub deletions: usize,
    pub codes: usize,
    pub code_bytes: usize,
    /// Headers that the witness begins with.
    pub headers: usize,
}

impl Touched {
    #[must_use]
    pub fn of(accesses: &Accesses, headers: usize) -> Self {
        let mut slots: HashMap<Address, usize, RandomState> = HashMap::default();
        for (address, _) in &accesses.slots {
            *slots.entry(*address).or_default() += 1;
        }
        Self {
            accounts: accesses.accounts.len(),
            slots: slots.into_values().collect(),
            deletions: accesses.deleted_accounts.len() + accesses.deleted_slots.len(),
            codes: accesses.codes.len(),
            code_bytes: accesses.codes.iter().map(|(_, code)| code.len()).sum(),
            headers,
        }
    }

    /// An upper bound of the encoded witness, in bytes: never less than what [`super::Witness::encode`] gives.
    #[must_use]
    pub fn witness_bytes_max(&self, depth: Depth) -> usize {
        let storage: usize = self.slots.iter().map(|count| trie_bytes(*count, depth.storage)).sum();
        // Each deletion may leave one branch with one child; the child may be a branch.
        5 * LIST_BYTES
            + self.headers * HEADER_BYTES_MAX
            + self.code_bytes
            + self.codes * LIST_BYTES
            + trie_bytes(self.accounts, depth.accounts)
            + storage
            + self.deletions * BRANCH_BYTES
    }
}

/// The nodes on the paths of `count` keys: a level has no more nodes than paths, and no more than places. An extension takes the place of
/// a branch and is shorter; the root is there even when nothing was touched.
fn trie_bytes(count: usize, depth: usize) -> usize {
    let level = |level: usize| count.max(1).min(1_usize.checked_shl(4 * level as u32).unwrap_or(usize::MAX));
    (0..depth.max(1)).map(level).sum::<usize>() * BRANCH_BYTES + count * LEAF_BYTES
}
