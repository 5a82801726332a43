//! What is known of accounts whose state is the execution client's, and the submissions that wait for it.
//!
//! Pure. Answers are asked at the number of our newest block that is the client's head; between a block and the client's following it, the
//! accounts that it changed are known from our own execution. Bounded: [`VIEWS_MAX`] accounts, and what waits by the shards' credits.

use std::collections::{HashMap, HashSet, VecDeque};

use foldhash::fast::RandomState;

use crate::mempool::AccountView;
use crate::messages::Submit;
use crate::primitives::{Address, ShardId};

/// Accounts that are remembered: about 100 bytes each. Full: everything is forgotten, and asked again as it is needed.
pub(super) const VIEWS_MAX: usize = 65_536;

/// A submission whose sender is not known yet.
pub(super) struct Waiting {
    pub shard: ShardId,
    pub submit: Submit,
    /// Monotonic.
    pub since_ns: u64,
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Views {
    /// Number of the block that the views are of.
    head: u64,
    known: HashMap<Address, AccountView, RandomState>,
    /// Changed by the block behind `head`; `None`: changed, and not known how.
    ahead: HashMap<Address, Option<AccountView>, RandomState>,
    asked: HashSet<Address, RandomState>,
    waiting: HashMap<Address, VecDeque<Waiting>, RandomState>,
}

impl Views {
    pub(super) fn new(head: u64) -> Self {
        Self { head, ..Self::default() }
    }

    /// Number of the block at which accounts are to be asked for.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// What is known of an account after our newest block.
    pub(super) fn get(&self, address: &Address) -> Option<AccountView> {
        match self.ahead.get(address) {
            Some(changed) => *changed,
            None => self.known.get(address).copied(),
        }
    }

    /// Whether somebody waits for the account: what comes after must wait too, or the order would change.
    pub(super) fn has_waiting(&self, address: &Address) -> bool {
        self.waiting.contains_key(address)
    }

    /// Keeps a submission until its sender is known.
    pub(super) fn wait(&mut self, waiting: Waiting) {
        self.waiting.entry(waiting.submit.sender).or_default().push_back(waiting);
    }

    /// Whether the account has to be asked for now: it was not asked for yet.
    pub(super) fn ask(&mut self, address: Address) -> bool {
        self.asked.insert(address)
    }

    /// An answer that was asked for at block `head`; true: it counts. Otherwise it has to be asked for again, if anybody wants it.
    pub(super) fn answered(&mut self, address: Address, head: u64, view: AccountView) -> bool {
        self.asked.remove(&address);
        if head != self.head || self.ahead.contains_key(&address) {
            return self.get(&address).is_some();
        }
        if self.known.len() >= VIEWS_MAX {
            self.known.clear();
        }
        self.known.insert(address, view);
        true
    }

    /// There was no answer.
    pub(super) fn failed(&mut self, address: &Address) {
        self.asked.remove(address);
    }

    /// Takes what waits for an account.
    pub(super) fn take_waiting(&mut self, address: &Address) -> VecDeque<Waiting> {
        self.waiting.remove(address).unwrap_or_default()
    }

    /// Takes what has waited since before `since_ns`.
    pub(super) fn take_overdue(&mut self, since_ns: u64) -> Vec<Waiting> {
        let mut overdue = Vec::new();
        self.waiting.retain(|_, queue| {
            while let Some(waiting) = queue.pop_front_if(|waiting| waiting.since_ns < since_ns) {
                overdue.push(waiting);
            }
            !queue.is_empty()
        });
        overdue
    }

    /// Takes everything that waits.
    pub(super) fn take_all(&mut self) -> Vec<Waiting> {
        std::mem::take(&mut self.waiting).into_values().flatten().collect()
    }

    /// Accounts for which something waits.
    pub(super) fn wanted(&self) -> Vec<Address> {
        self.waiting.keys().copied().collect()
    }

    /// The next block changed these accounts.
    pub(super) fn block_changed(&mut self, changes: impl Iterator<Item = (Address, Option<AccountView>)>) {
        self.ahead.extend(changes);
    }

    /// The client's head is block `head`, our newest. What it changed is known; everything else is forgotten.
    pub(super) fn head_moved(&mut self, head: u64) {
        self.head = head;
        let changed = self.ahead.drain().filter_map(|(address, view)| Some((address, view?)));
        self.known.clear();
        self.known.extend(changed.take(VIEWS_MAX));
        // What is on its way is of the block before.
        self.asked.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::U256;

    fn view(nonce: u64) -> AccountView {
        AccountView { balance_wei: U256::from(1_u64), nonce, has_code_not_delegation: false, is_delegated: false }
    }

    const A: Address = Address::repeat_byte(1);
    const B: Address = Address::repeat_byte(2);

    #[test]
    fn an_account_is_asked_for_once_and_known_until_the_head_moves() {
        let mut views = Views::new(7);
        assert!(views.ask(A) && !views.ask(A));
        assert!(views.answered(A, 7, view(3)));
        assert_eq!(views.get(&A), Some(view(3)));
        views.head_moved(8);
        assert_eq!((views.get(&A), views.head()), (None, 8));
        assert!(views.ask(A));
    }

    #[test]
    fn what_a_block_changed_counts_before_the_client_follows_and_after() {
        let mut views = Views::new(7);
        assert!(views.answered(A, 7, view(3)) && views.answered(B, 7, view(9)));
        views.block_changed([(A, Some(view(4))), (Address::repeat_byte(3), None)].into_iter());
        assert_eq!(views.get(&A), Some(view(4)));
        assert_eq!(views.get(&B), Some(view(9)), "unchanged, so what the client said holds");
        // Changed in a way that only the client can tell: not before its head is there.
        assert!(!views.answered(Address::repeat_byte(3), 7, view(1)));
        views.head_moved(8);
        assert_eq!(views.get(&A), Some(view(4)));
        assert_eq!(views.get(&B), None);
        assert!(views.answered(Address::repeat_byte(3), 8, view(2)));
    }

    #[test]
    fn an_answer_of_an_older_block_is_not_believed() {
        let mut views = Views::new(7);
        assert!(views.ask(A));
        views.head_moved(8);
        assert!(!views.answered(A, 7, view(3)));
        assert_eq!(views.get(&A), None);
        assert!(views.ask(A));
    }

    #[test]
    fn memory_is_bounded() {
        let mut views = Views::new(1);
        for number in 0..VIEWS_MAX as u64 {
            views.answered(Address::from_word(U256::from(number + 1).into()), 1, view(0));
        }
        assert!(views.get(&Address::from_word(U256::from(1_u64).into())).is_some());
        assert!(views.answered(A, 1, view(0)));
        assert_eq!(views.known.len(), 1);
    }
}
