//! ERC-7796 conditions in a record.
//!
//! ```text
//! 0   1    which of these follow: bit 0 block number minimum, 1 block number maximum, 2 timestamp minimum, 3 timestamp maximum,
//!          4 payment to the coinbase
//! ..  8    each of the first four that is there
//! ..  32   payment in wei
//! ..  2    known accounts n, then n times:
//!          0   20    address
//!          20  1     flags: bit 0 storage root, not slots; 1 balance; 2 nonce; 3 code hash; 4 no code. Not both 3 and 4.
//!          21  32    storage root                 (bit 0 set)
//!              2+…   slots n, then n × 64: slot, value  (bit 0 clear)
//!          ..  32    balance in wei
//!          ..  8     nonce
//!          ..  32    code hash
//! ```
//!
//! Order of accounts and slots is kept. Absent on purpose: the limits of admission, which may change between two starts.

use super::RecordError;
use super::fields::Fields;
use crate::mempool::{CodeExpectation, Conditions, KnownAccount, StorageExpectation};

const BLOCK_NUMBER_MIN: u8 = 1;
const BLOCK_NUMBER_MAX: u8 = 1 << 1;
const TIMESTAMP_MIN: u8 = 1 << 2;
const TIMESTAMP_MAX: u8 = 1 << 3;
const PAYMENT: u8 = 1 << 4;
const HEAD_FLAGS: u8 = BLOCK_NUMBER_MIN | BLOCK_NUMBER_MAX | TIMESTAMP_MIN | TIMESTAMP_MAX | PAYMENT;

const STORAGE_ROOT: u8 = 1;
const BALANCE: u8 = 1 << 1;
const NONCE: u8 = 1 << 2;
const CODE_HASH: u8 = 1 << 3;
const CODE_EMPTY: u8 = 1 << 4;
const ACCOUNT_FLAGS: u8 = STORAGE_ROOT | BALANCE | NONCE | CODE_HASH | CODE_EMPTY;

/// Smallest account: address, flags, no slots.
const ACCOUNT_BYTES_MIN: usize = 23;
const SLOT_BYTES: usize = 64;

pub(super) fn put(conditions: &Conditions, out: &mut Vec<u8>) {
    let numbers = [
        (BLOCK_NUMBER_MIN, conditions.block_number_min),
        (BLOCK_NUMBER_MAX, conditions.block_number_max),
        (TIMESTAMP_MIN, conditions.timestamp_min),
        (TIMESTAMP_MAX, conditions.timestamp_max),
    ];
    let flags = numbers.iter().filter(|(_, number)| number.is_some()).fold(0, |flags, (bit, _)| flags | bit);
    out.push(flags | if conditions.pays_coinbase_wei.is_some() { PAYMENT } else { 0 });
    for number in numbers.iter().filter_map(|(_, number)| *number) {
        out.extend_from_slice(&number.to_le_bytes());
    }
    if let Some(wei) = conditions.pays_coinbase_wei {
        out.extend_from_slice(&wei.to_le_bytes::<32>());
    }
    put_count(conditions.known_accounts.len(), out);
    for account in &conditions.known_accounts {
        put_account(account, out);
    }
}

fn put_account(account: &KnownAccount, out: &mut Vec<u8>) {
    let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
    let flags = flag(matches!(account.storage, StorageExpectation::Root(_)), STORAGE_ROOT)
        | flag(account.balance_wei.is_some(), BALANCE)
        | flag(account.nonce.is_some(), NONCE)
        | flag(matches!(account.code, Some(CodeExpectation::Hash(_))), CODE_HASH)
        | flag(matches!(account.code, Some(CodeExpectation::Empty)), CODE_EMPTY);
    out.extend_from_slice(account.address.as_slice());
    out.push(flags);
    match &account.storage {
        StorageExpectation::Root(root) => out.extend_from_slice(root.as_slice()),
        StorageExpectation::Slots(slots) => {
            put_count(slots.len(), out);
            for (slot, value) in slots {
                out.extend_from_slice(slot.as_slice());
                out.extend_from_slice(value.as_slice());
            }
        }
    }
    if let Some(wei) = account.balance_wei {
        out.extend_from_slice(&wei.to_le_bytes::<32>());
    }
    if let Some(nonce) = account.nonce {
        out.extend_from_slice(&nonce.to_le_bytes());
    }
    if let Some(CodeExpectation::Hash(hash)) = account.code {
        out.extend_from_slice(hash.as_slice());
    }
}

fn put_count(count: usize, out: &mut Vec<u8>) {
    let count = u16::try_from(count).expect("admission takes at most CONDITION_READS_MAX expectations");
    out.extend_from_slice(&count.to_le_bytes());
}

pub(super) fn take(fields: &mut Fields<'_>) -> Result<Conditions, RecordError> {
    let flags = take_flags(fields, "condition flags", HEAD_FLAGS)?;
    let mut number = |bit: u8| if flags & bit == 0 { Ok(None) } else { fields.u64("condition").map(Some) };
    let block_number_min = number(BLOCK_NUMBER_MIN)?;
    let block_number_max = number(BLOCK_NUMBER_MAX)?;
    let timestamp_min = number(TIMESTAMP_MIN)?;
    let timestamp_max = number(TIMESTAMP_MAX)?;
    let pays_coinbase_wei = if flags & PAYMENT == 0 { None } else { Some(fields.u256("payment")?) };
    let count = fields.count("known account", ACCOUNT_BYTES_MIN)?;
    let known_accounts = (0..count).map(|_| take_account(fields)).collect::<Result<Vec<_>, _>>()?;
    Ok(Conditions {
        known_accounts,
        block_number_min,
        block_number_max,
        timestamp_min,
        timestamp_max,
        pays_coinbase_wei,
    })
}

fn take_account(fields: &mut Fields<'_>) -> Result<KnownAccount, RecordError> {
    let address = fields.address("known account")?;
    let flags = take_flags(fields, "known account flags", ACCOUNT_FLAGS)?;
    if flags & CODE_HASH != 0 && flags & CODE_EMPTY != 0 {
        return Err(RecordError::Code { field: "known account flags", code: flags });
    }
    let storage = if flags & STORAGE_ROOT == 0 {
        let count = fields.count("slot", SLOT_BYTES)?;
        let slots = (0..count).map(|_| Ok((fields.b256("slot")?, fields.b256("slot value")?)));
        StorageExpectation::Slots(slots.collect::<Result<Vec<_>, _>>()?)
    } else {
        StorageExpectation::Root(fields.b256("storage root")?)
    };
    let balance_wei = if flags & BALANCE == 0 { None } else { Some(fields.u256("balance")?) };
    let nonce = if flags & NONCE == 0 { None } else { Some(fields.u64("nonce")?) };
    let code = match flags & (CODE_HASH | CODE_EMPTY) {
        0 => None,
        CODE_EMPTY => Some(CodeExpectation::Empty),
        _ => Some(CodeExpectation::Hash(fields.b256("code hash")?)),
    };
    Ok(KnownAccount { address, storage, balance_wei, code, nonce })
}

fn take_flags(fields: &mut Fields<'_>, field: &'static str, known: u8) -> Result<u8, RecordError> {
    let code = fields.u8(field)?;
    if code & !known == 0 { Ok(code) } else { Err(RecordError::Code { field, code }) }
}
