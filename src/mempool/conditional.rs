//! ERC-7796 conditions: what must hold where a transaction is placed.
//!
//! Parsing of the options object, and a pure judgement over a [`ConditionState`]. `Impossible` means that waiting is pointless
//! (nonces, block numbers and time do not go back, code other than a delegation stays); everything else that does not hold is
//! `NotYet`. Where the current text leaves room: `balance` is compared for equality, a slot or value shorter than 32 bytes is
//! extended on the left, unknown members are errors.

use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256, keccak256};
use serde_json::{Map, Value};
use thiserror::Error;

/// Most state reads that one set of conditions may cost: one per expectation.
pub const CONDITION_READS_MAX: usize = 1_000;

/// EIP-170: no account has longer code.
const CODE_BYTES_MAX: usize = 24_576;

/// The conditions of one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    pub known_accounts: Vec<KnownAccount>,
    pub block_number_min: Option<u64>,
    pub block_number_max: Option<u64>,
    /// Seconds.
    pub timestamp_min: Option<u64>,
    /// Seconds.
    pub timestamp_max: Option<u64>,
    /// What the transaction pays to the coinbase at least, fees and direct payments together.
    pub pays_coinbase_wei: Option<U256>,
}

/// What must be known of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownAccount {
    pub address: Address,
    pub storage: StorageExpectation,
    pub balance_wei: Option<U256>,
    pub code: Option<CodeExpectation>,
    pub nonce: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageExpectation {
    Root(B256),
    /// Slot and value pairs; empty expects nothing.
    Slots(Vec<(B256, B256)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeExpectation {
    Empty,
    /// Keccak-256 of the expected code.
    Hash(B256),
}

/// An account's code as conditions see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeView {
    /// Zero or the hash of nothing when there is none.
    pub hash: B256,
    /// EIP-7702: the code can still change.
    pub is_delegation: bool,
}

/// An account's storage root in the last hashed block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootView {
    Hashed(B256),
    /// Storage changed since: nobody knows the root yet.
    Dirty,
}

/// The state that conditions are compared with: the open block's, except for roots.
pub trait ConditionState {
    fn nonce(&mut self, address: &Address) -> u64;
    fn balance_wei(&mut self, address: &Address) -> U256;
    fn code(&mut self, address: &Address) -> CodeView;
    fn storage(&mut self, address: &Address, slot: &B256) -> B256;
    fn storage_root(&mut self, address: &Address) -> RootView;
}

/// Why conditions are not met now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unmet {
    #[error("block number {now} below minimum {minimum}")]
    BlockNumber { now: u64, minimum: u64 },
    #[error("timestamp {now} below minimum {minimum}")]
    Timestamp { now: u64, minimum: u64 },
    #[error("nonce of {address} is {now}, expected {expected}")]
    Nonce { address: Address, now: u64, expected: u64 },
    #[error("balance of {address} is not the expected one")]
    Balance { address: Address },
    #[error("code of {address} is not the expected one")]
    Code { address: Address },
    #[error("storage root of {address} is not the expected one")]
    StorageRoot { address: Address },
    #[error("storage root of {address} is not known yet: it changed in the open block")]
    StorageRootDirty { address: Address },
    #[error("storage slot {slot} of {address} is not the expected one")]
    Slot { address: Address, slot: B256 },
    #[error("pays {paid_wei} to the coinbase, declared {declared_wei}")]
    Payment { paid_wei: U256, declared_wei: U256 },
}

/// Why conditions can never be met again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Impossible {
    #[error("block number {now} above maximum {maximum}")]
    BlockNumber { now: u64, maximum: u64 },
    #[error("timestamp {now} above maximum {maximum}")]
    Timestamp { now: u64, maximum: u64 },
    #[error("nonce of {address} is {now}, expected {expected}")]
    Nonce { address: Address, now: u64, expected: u64 },
    #[error("code of {address} is not the expected one and cannot change")]
    Code { address: Address },
}

/// What `Conditions::evaluate` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Met,
    NotYet(Unmet),
    Impossible(Impossible),
}

/// Why an options object is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConditionError {
    #[error("conditional options: {0} is not an object")]
    NotAnObject(&'static str),
    #[error("conditional options: unknown member {0:?}")]
    UnknownMember(String),
    #[error("conditional options: {member} is not {expected}")]
    Malformed { member: &'static str, expected: &'static str },
    #[error("conditional options: {member} minimum {minimum} above maximum {maximum}")]
    EmptyRange { member: &'static str, minimum: u64, maximum: u64 },
    #[error("conditional options: {count} expectations, limit {limit}")]
    TooLarge { count: usize, limit: usize },
}

impl ConditionError {
    /// Whether it is JSON-RPC −32005 (limit exceeded) rather than −32602 (invalid parameters).
    #[must_use]
    pub fn is_limit(&self) -> bool {
        matches!(self, Self::TooLarge { .. })
    }
}

impl Conditions {
    /// Reads the options object of `eth_sendRawTransactionConditional`.
    ///
    /// Errors: every unknown member, every malformed value, empty ranges, more than `CONDITION_READS_MAX` expectations.
    /// Source: ERC-7796.
    pub fn from_json(options: &Value) -> Result<Self, ConditionError> {
        let mut conditions = Self::default();
        for (name, value) in object(options, "options")? {
            match name.as_str() {
                "knownAccounts" => conditions.known_accounts = known_accounts(value)?,
                "blockNumberMin" => conditions.block_number_min = Some(integer(value, "blockNumberMin")?),
                "blockNumberMax" => conditions.block_number_max = Some(integer(value, "blockNumberMax")?),
                "timestampMin" => conditions.timestamp_min = Some(integer(value, "timestampMin")?),
                "timestampMax" => conditions.timestamp_max = Some(integer(value, "timestampMax")?),
                "paysCoinbase" => conditions.pays_coinbase_wei = Some(amount(value, "paysCoinbase")?),
                _ => return Err(ConditionError::UnknownMember(name.clone())),
            }
        }
        check_range("blockNumber", conditions.block_number_min, conditions.block_number_max)?;
        check_range("timestamp", conditions.timestamp_min, conditions.timestamp_max)?;
        Ok(conditions)
    }

    /// Compares the conditions with the place that a transaction would get.
    ///
    /// What can never hold again wins over what does not hold yet. `pays_coinbase_wei` needs the execution: see `judge_payment`.
    /// Cost: at most `CONDITION_READS_MAX` reads of `state`.
    pub fn evaluate(&self, state: &mut dyn ConditionState, block_number: u64, timestamp: u64) -> Verdict {
        if let Some(maximum) = self.block_number_max.filter(|maximum| block_number > *maximum) {
            return Verdict::Impossible(Impossible::BlockNumber { now: block_number, maximum });
        }
        if let Some(maximum) = self.timestamp_max.filter(|maximum| timestamp > *maximum) {
            return Verdict::Impossible(Impossible::Timestamp { now: timestamp, maximum });
        }
        let mut unmet = None;
        if let Some(minimum) = self.block_number_min.filter(|minimum| block_number < *minimum) {
            unmet = Some(Unmet::BlockNumber { now: block_number, minimum });
        } else if let Some(minimum) = self.timestamp_min.filter(|minimum| timestamp < *minimum) {
            unmet = Some(Unmet::Timestamp { now: timestamp, minimum });
        }
        for account in &self.known_accounts {
            match account.evaluate(state, unmet.is_some()) {
                Verdict::Met => {}
                Verdict::NotYet(reason) => unmet = unmet.or(Some(reason)),
                impossible @ Verdict::Impossible(_) => return impossible,
            }
        }
        unmet.map_or(Verdict::Met, Verdict::NotYet)
    }

    /// Compares `paysCoinbase` with what an execution, not committed yet, paid.
    #[must_use]
    pub fn judge_payment(&self, paid_wei: U256) -> Verdict {
        match self.pays_coinbase_wei {
            Some(declared_wei) if paid_wei < declared_wei => Verdict::NotYet(Unmet::Payment { paid_wei, declared_wei }),
            _ => Verdict::Met,
        }
    }

    /// Heap memory, for the pool's byte limit.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let slot_bytes = |account: &KnownAccount| match &account.storage {
            StorageExpectation::Root(_) => 0,
            StorageExpectation::Slots(slots) => slots.capacity() * size_of::<(B256, B256)>(),
        };
        size_of::<Self>()
            + self.known_accounts.capacity() * size_of::<KnownAccount>()
            + self.known_accounts.iter().map(slot_bytes).sum::<usize>()
    }
}

impl KnownAccount {
    fn expectation_count(&self) -> usize {
        let storage = match &self.storage {
            StorageExpectation::Root(_) => 1,
            StorageExpectation::Slots(slots) => slots.len(),
        };
        storage
            + usize::from(self.balance_wei.is_some())
            + usize::from(self.code.is_some())
            + usize::from(self.nonce.is_some())
    }

    /// First what can be impossible; then, unless something is already known to be unmet, the rest.
    fn evaluate(&self, state: &mut dyn ConditionState, is_unmet: bool) -> Verdict {
        let address = self.address;
        let mut unmet = None;
        if let Some(expected) = self.nonce {
            let now = state.nonce(&address);
            if now > expected {
                return Verdict::Impossible(Impossible::Nonce { address, now, expected });
            }
            unmet = (now < expected).then_some(Unmet::Nonce { address, now, expected });
        }
        if let Some(expected) = self.code {
            let code = state.code(&address);
            let now = match code.hash == B256::ZERO || code.hash == KECCAK256_EMPTY {
                true => CodeExpectation::Empty,
                false => CodeExpectation::Hash(code.hash),
            };
            if now != expected {
                if now != CodeExpectation::Empty && !code.is_delegation {
                    return Verdict::Impossible(Impossible::Code { address });
                }
                unmet = unmet.or(Some(Unmet::Code { address }));
            }
        }
        if unmet.is_none() && !is_unmet {
            unmet = self.unmet_value(state);
        }
        unmet.map_or(Verdict::Met, Verdict::NotYet)
    }

    fn unmet_value(&self, state: &mut dyn ConditionState) -> Option<Unmet> {
        let address = self.address;
        if self.balance_wei.is_some_and(|expected| state.balance_wei(&address) != expected) {
            return Some(Unmet::Balance { address });
        }
        match &self.storage {
            StorageExpectation::Root(expected) => match state.storage_root(&address) {
                RootView::Hashed(root) if root == *expected => None,
                RootView::Hashed(_) => Some(Unmet::StorageRoot { address }),
                RootView::Dirty => Some(Unmet::StorageRootDirty { address }),
            },
            StorageExpectation::Slots(slots) => slots
                .iter()
                .find(|(slot, value)| state.storage(&address, slot) != *value)
                .map(|(slot, _)| Unmet::Slot { address, slot: *slot }),
        }
    }
}

fn check_range(member: &'static str, minimum: Option<u64>, maximum: Option<u64>) -> Result<(), ConditionError> {
    match (minimum, maximum) {
        (Some(minimum), Some(maximum)) if minimum > maximum => {
            Err(ConditionError::EmptyRange { member, minimum, maximum })
        }
        _ => Ok(()),
    }
}

fn known_accounts(value: &Value) -> Result<Vec<KnownAccount>, ConditionError> {
    let members = object(value, "knownAccounts")?;
    check_count(members.len())?;
    let mut accounts = Vec::with_capacity(members.len());
    let mut count = 0;
    for (name, value) in members {
        let account = known_account(name, value)?;
        count += account.expectation_count();
        check_count(count)?;
        accounts.push(account);
    }
    Ok(accounts)
}

fn check_count(count: usize) -> Result<(), ConditionError> {
    match count > CONDITION_READS_MAX {
        true => Err(ConditionError::TooLarge { count, limit: CONDITION_READS_MAX }),
        false => Ok(()),
    }
}

fn known_account(name: &str, value: &Value) -> Result<KnownAccount, ConditionError> {
    let malformed_address =
        ConditionError::Malformed { member: "knownAccounts", expected: "keyed by 20-byte hex addresses" };
    let address = fixed_bytes::<20>(name).map(Address::from).ok_or(malformed_address)?;
    let nothing = StorageExpectation::Slots(vec![]);
    let mut account = KnownAccount { address, storage: nothing, balance_wei: None, code: None, nonce: None };
    if let Value::String(root) = value {
        let malformed =
            ConditionError::Malformed { member: "knownAccounts", expected: "a 32-byte hex storage root or an object" };
        account.storage = StorageExpectation::Root(fixed_bytes::<32>(root).map(B256::from).ok_or(malformed)?);
        return Ok(account);
    }
    let members = object(value, "knownAccounts entry")?;
    check_count(members.len())?;
    let mut slots = Vec::with_capacity(members.len());
    for (name, value) in members {
        match name.as_str() {
            "balance" => account.balance_wei = Some(amount(value, "balance")?),
            "nonce" => account.nonce = Some(integer(value, "nonce")?),
            "code" => account.code = Some(code(value)?),
            _ => slots.push((padded_word(name)?, padded_word(value.as_str().unwrap_or_default())?)),
        }
    }
    account.storage = StorageExpectation::Slots(slots);
    Ok(account)
}

fn object<'a>(value: &'a Value, what: &'static str) -> Result<&'a Map<String, Value>, ConditionError> {
    value.as_object().ok_or(ConditionError::NotAnObject(what))
}

/// A JSON integer or hex digits behind `0x`, as 64 bits.
fn integer(value: &Value, member: &'static str) -> Result<u64, ConditionError> {
    let malformed = ConditionError::Malformed { member, expected: "a 64-bit integer or hex quantity" };
    let amount = amount(value, member).map_err(|_| malformed.clone())?;
    u64::try_from(amount).map_err(|_| malformed)
}

/// A JSON integer or hex digits behind `0x`, as 256 bits.
fn amount(value: &Value, member: &'static str) -> Result<U256, ConditionError> {
    let amount = match value {
        Value::Number(number) => number.as_u64().map(U256::from),
        Value::String(text) => word(text).map(|word| U256::from_be_bytes(word.0)),
        _ => None,
    };
    amount.ok_or(ConditionError::Malformed { member, expected: "an integer or hex quantity" })
}

fn padded_word(text: &str) -> Result<B256, ConditionError> {
    word(text).ok_or(ConditionError::Malformed {
        member: "knownAccounts",
        expected: "slots and values of 1 to 64 hex digits",
    })
}

/// `""` and `0x` mean no code, anything else the exact code.
fn code(value: &Value) -> Result<CodeExpectation, ConditionError> {
    let malformed = ConditionError::Malformed { member: "code", expected: "hex bytes of a possible code" };
    let text = value.as_str().ok_or_else(|| malformed.clone())?;
    if text.is_empty() || text == "0x" {
        return Ok(CodeExpectation::Empty);
    }
    let digits = text.strip_prefix("0x").unwrap_or_default();
    if digits.is_empty() || digits.len() % 2 != 0 || digits.len() / 2 > CODE_BYTES_MAX {
        return Err(malformed);
    }
    let mut bytes = vec![0; digits.len() / 2];
    decode(digits, &mut bytes).ok_or_else(|| malformed.clone())?;
    // EIP-3541: only delegations begin with 0xef, and they are 23 bytes (EIP-7702). Anything else could wait forever.
    let is_delegation = bytes.starts_with(&[0xef, 0x01, 0x00]) && bytes.len() == 23;
    if bytes[0] == 0xef && !is_delegation {
        return Err(malformed);
    }
    Ok(CodeExpectation::Hash(keccak256(&bytes)))
}

/// 1 to 64 hex digits behind `0x`, extended on the left.
fn word(text: &str) -> Option<B256> {
    let digits = text.strip_prefix("0x")?;
    if digits.is_empty() || digits.len() > 64 {
        return None;
    }
    let mut word = B256::ZERO;
    for (index, digit) in digits.bytes().rev().enumerate() {
        word.0[31 - index / 2] |= nibble(digit)? << (4 * (index % 2));
    }
    Some(word)
}

fn fixed_bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.strip_prefix("0x")?;
    let mut bytes = [0; N];
    (digits.len() == 2 * N).then_some(())?;
    decode(digits, &mut bytes)?;
    Some(bytes)
}

/// Twice as many digits as bytes.
fn decode(digits: &str, bytes: &mut [u8]) -> Option<()> {
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(())
}

fn nibble(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    Some(value as u8) // Below 16.
}

#[cfg(test)]
mod tests;
