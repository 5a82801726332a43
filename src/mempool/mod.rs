//! The pool: admitted transactions in, the next one to execute out.
//!
//! Owner: builder core. Everything here is a pure, single-owner data structure: no thread, clock or socket, `now_ns` comes as an
//! argument, and nothing looks at a transaction's bytes. A transaction is a [`Submission`] with the caller's payload (a slab
//! handle, a reply token); the payload of every transaction that ends comes back through a caller-provided sink with its
//! [`EndState`].
//!
//! Invariants, which `pool/model_tests.rs` checks against a naive list after every step:
//! * One transaction per sender and nonce; a sender's *ready* transactions are the contiguous run from the account's nonce.
//! * Only a sender's first ready transaction is in the priority structure, so a sender's nonces are always placed in order.
//! * For every sender the summed maximum cost of all its transactions is at most its balance.
//! * Order depends on the order of calls and their arguments alone, never on the hash seed.
//! * After construction nothing allocates per transaction: slab, tables, heaps and lists have the size of the limits.
//!
//! Deliberately absent: signatures, state access (the caller brings an [`AccountView`]), a journal, and any global price heap
//! over transactions that cannot be placed next.

mod admission;
mod conditional;
mod ending;
mod heap;
mod list;
mod ordering;
mod pool;
mod store;
mod table;

pub use admission::{Bounds, GasNeeds, Limits};
pub use conditional::{
    CONDITION_READS_MAX, CodeExpectation, CodeView, ConditionError, ConditionState, Conditions, Impossible,
    KnownAccount, RootView, StorageExpectation, Unmet, Verdict,
};
pub use ending::{Class, EndState, Invalid, Reject, Removed};
pub use ordering::{Arrival, Fees, OrderingPolicy, PriorityFee};
pub use pool::{
    AccountView, Admission, Best, Counts, Deferral, Mempool, Pooled, Readiness, RestoreError, Submission, TxId,
};
