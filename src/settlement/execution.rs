//! What cutting a block and checking a batch share: reads over a witness, signatures, digests of receipts.
//!
//! Owner core: any that may compute; nothing here keeps anything between calls.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use alloy_primitives::Log;
use alloy_rlp::{Encodable, Header};
use foldhash::fast::RandomState;

use crate::builder::block_execution::{PrepareError, PreparedTx, Receipt, recover_authorities};
use crate::codec::transaction::{self, Decoded};
use crate::crypto::keccak::keccak256;
use crate::crypto::recovery::{self, RecoverError, RecoverItem};
use crate::primitives::{Address, B256, Bytes, U256};
use crate::state::{Account, AccountProof, StateChanges, StateError, StateReader};
use crate::witness::validator::live_state::{LiveState, hash_all};
use crate::witness::validator::partial_state::PartialReader;

/// Transactions whose senders are recovered at once: what is behind an invalid one costs nothing.
const PREPARE_TXS: usize = 256;

/// Accounts that were looked up together, before anybody asks for them.
pub type Known = HashMap<Address, Option<Account>, RandomState>;

/// The state before a run, for a world that outlives parts of it: what parts have made or emptied is here, too.
#[derive(Clone)]
pub struct RunReader<'s, 'w> {
    partial: PartialReader<'s, 'w>,
    known: Arc<Known>,
    /// Codes made by earlier parts.
    codes: Arc<HashMap<B256, Bytes, RandomState>>,
    /// Accounts whose storage an earlier part has emptied.
    cleared: Arc<HashSet<Address, RandomState>>,
}

impl<'s, 'w> RunReader<'s, 'w> {
    #[must_use]
    pub fn new(partial: PartialReader<'s, 'w>, known: Known) -> Self {
        Self { partial, known: Arc::new(known), codes: Arc::default(), cleared: Arc::default() }
    }

    /// The reader for the next part, after one that made `changes`. `known`: what is known of the next part's accounts.
    #[must_use]
    pub fn after(&self, changes: &StateChanges, known: Known) -> Self {
        let mut next = Self { known: Arc::new(known), ..self.clone() };
        if !changes.codes.is_empty() {
            Arc::make_mut(&mut next.codes).extend(changes.codes.iter().cloned());
        }
        for change in &changes.accounts {
            if change.storage_cleared || change.account.is_none() {
                Arc::make_mut(&mut next.cleared).insert(change.address);
            }
        }
        next
    }
}

impl StateReader for RunReader<'_, '_> {
    fn root(&self) -> B256 {
        self.partial.root()
    }

    fn account(&self, address: &Address) -> Result<Option<Account>, StateError> {
        match self.known.get(address) {
            Some(account) => Ok(*account),
            None => self.partial.account(address),
        }
    }

    fn storage(&self, address: &Address, slot: U256) -> Result<U256, StateError> {
        if self.cleared.contains(address) { Ok(U256::ZERO) } else { self.partial.storage(address, slot) }
    }

    fn code(&self, code_hash: &B256) -> Result<Option<Bytes>, StateError> {
        match self.codes.get(code_hash) {
            Some(code) => Ok(Some(code.clone())),
            None => self.partial.code(code_hash),
        }
    }

    fn proof(&self, address: &Address, slots: &[U256]) -> Result<AccountProof, StateError> {
        self.partial.proof(address, slots)
    }
}

/// Senders, recipients and the coinbase as `live` has them. What it lacks is left to be asked for: whoever asks names it.
#[must_use]
pub fn known_accounts(live: &mut LiveState<'_, '_>, transactions: &[PreparedTx], coinbase: Address) -> Known {
    let recipients = transactions.iter().filter_map(|tx| tx.decoded.fields.to);
    let addresses: Vec<Address> = transactions.iter().map(|tx| tx.sender).chain(recipients).chain([coinbase]).collect();
    let keys = hash_all(addresses.len(), |index| addresses[index].as_slice());
    let mut known = Known::with_capacity_and_hasher(addresses.len(), RandomState::default());
    for (address, key) in addresses.into_iter().zip(&keys) {
        if let Ok(account) = live.account(key) {
            known.insert(address, account);
        }
    }
    known
}

/// Decodes transactions and recovers who signed them.
///
/// # Errors
/// The index of one that cannot be executed, and why.
pub fn prepare(raws: &[Bytes]) -> Result<Vec<PreparedTx>, (usize, PrepareError)> {
    let mut prepared = Vec::with_capacity(raws.len());
    for chunk in raws.chunks(PREPARE_TXS) {
        let first = prepared.len();
        let mut items: Vec<RecoverItem> = Vec::with_capacity(chunk.len());
        let mut decoded: Vec<Decoded> = Vec::with_capacity(chunk.len());
        let mut scratch = Vec::new();
        for (index, raw) in chunk.iter().enumerate() {
            let tx = transaction::decode(raw).map_err(|error| (first + index, error.into()))?;
            items.push(tx.recover_item(transaction::signing_hash(raw, &tx, &mut scratch)));
            decoded.push(tx);
        }
        let mut senders: Vec<Result<Address, RecoverError>> = vec![Ok(Address::ZERO); chunk.len()];
        recovery::recover_batch(&items, &mut senders);
        for (index, ((raw, decoded), sender)) in chunk.iter().zip(decoded).zip(senders).enumerate() {
            let sender = sender.map_err(|error| (first + index, error.into()))?;
            let authorities = recover_authorities(raw, &decoded);
            prepared.push(PreparedTx { raw: raw.clone(), decoded, sender, authorities });
        }
    }
    Ok(prepared)
}

/// Keccak-256 of `rlp([type, status, cumulative gas used, logs])` of each receipt, one behind the other: the bloom follows from the logs.
#[must_use]
pub fn receipts_digest(receipts: &[Receipt]) -> B256 {
    let mut bytes = Vec::with_capacity(16 * receipts.len());
    for receipt in receipts {
        let logs: usize = receipt.logs.iter().map(Log::length).sum();
        let list = |payload_length| Header { list: true, payload_length };
        let payload = receipt.tx_type.length()
            + receipt.success.length()
            + receipt.cumulative_gas_used.length()
            + list(logs).length()
            + logs;
        list(payload).encode(&mut bytes);
        receipt.tx_type.encode(&mut bytes);
        receipt.success.encode(&mut bytes);
        receipt.cumulative_gas_used.encode(&mut bytes);
        list(logs).encode(&mut bytes);
        receipt.logs.iter().for_each(|log| log.encode(&mut bytes));
    }
    keccak256(&bytes)
}

/// Bytes of an RLP string of `len` bytes, more than one.
#[must_use]
pub fn string_bytes(len: usize) -> usize {
    Header { list: false, payload_length: len }.length() + len
}
