//! The file of a development L1: blocks in the order in which they came, appended, with checksums.
//!
//! ```text
//! file    = record*                       the first is `genesis`
//! record  = length (4, little-endian, of the payload) ‖ crc32c of the payload (4, little-endian) ‖ payload
//! payload = kind (1) ‖ rlp
//!   0 genesis   hash of block 0: whose file this is
//!   1 block     [header, [transaction], [receipt], [account change], [code]]: it follows the newest block and is the newest now
//!   2 rewind    hash of the block that is the newest now: a reorganisation begins
//!   receipt        = [success, gas used, cumulative gas used, [log], contract address or empty, JSON of what EXECUTE said]
//!   account change = [address, [] or [nonce, balance, code hash], storage cleared, [[slot, value]]]
//! ```
//!
//! A last record that is not whole is cut off at the start: the process ended while it was written. Anything else that does not
//! fit is an error that names the offset. With a data directory each record is synced before its block is shown.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use alloy_consensus::Header;
use alloy_primitives::Log;
use alloy_rlp::{Decodable, Encodable, RlpDecodable, RlpEncodable};

use super::block::{Block, Receipt};
use super::config::L1Fork;
use super::transaction::L1Tx;
use crate::crypto::keccak::keccak256;
use crate::primitives::{Address, B256, Bytes, U256};
use crate::state::{AccountChange, AccountInfo, StateChanges};

const FRAME_BYTES: u64 = 8;
/// A record that claims more is none: the largest block has 600 Mgas of calldata, about 60 MB of it.
const RECORD_BYTES_MAX: u32 = 1 << 30;
const KIND_GENESIS: u8 = 0;
const KIND_BLOCK: u8 = 1;
const KIND_REWIND: u8 = 2;
/// Name of the file in a data directory.
const FILE_NAME: &str = "dev-l1.log";

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: another process uses it", path.display())]
    Locked { path: PathBuf },
    #[error("{}: the record at byte {offset} is damaged: {what}", path.display())]
    Damaged { path: PathBuf, offset: u64, what: String },
    #[error("{}: it holds the chain of block 0 {found}, and this configuration's is {expected}: other rules, gas limit or chain id", path.display())]
    OtherChain { path: PathBuf, found: B256, expected: B256 },
}

/// Where a record's payload lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    offset: u64,
    bytes: u32,
}

/// What a start finds.
pub enum Record {
    Block { place: Place, block: Box<Block>, changes: StateChanges },
    Rewind(B256),
}

/// See the module's text.
#[derive(Debug)]
pub struct BlockLog {
    path: PathBuf,
    file: File,
    end: u64,
    is_durable: bool,
}

impl BlockLog {
    /// Opens or makes the file of a directory, which this process alone uses from now on. What is in it comes by [`Self::replay`].
    ///
    /// # Errors
    /// When the directory cannot be written, or another process has it.
    pub fn open(dir: &Path) -> Result<Self, LogError> {
        let path = dir.join(FILE_NAME);
        let fault = |source| LogError::Io { path: path.clone(), source };
        std::fs::create_dir_all(dir).map_err(fault)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(fault)?;
        if file.try_lock().is_err() {
            return Err(LogError::Locked { path });
        }
        // The name is durable before anything that it leads to.
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(fault)?;
        Ok(Self { path, file, end: 0, is_durable: true })
    }

    /// A file without a name, gone with the process.
    ///
    /// # Errors
    /// When there is no room for temporary files.
    pub fn temporary() -> Result<Self, LogError> {
        let path = std::env::temp_dir().join(format!("dev-l1-{}-{:x}", std::process::id(), entropy()?));
        let fault = |source| LogError::Io { path: path.clone(), source };
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).map_err(fault)?;
        std::fs::remove_file(&path).map_err(fault)?;
        Ok(Self { path, file, end: 0, is_durable: false })
    }

    /// Reads the file from its start and hands each record over; a new file gets its first one.
    ///
    /// # Errors
    /// A record that is damaged, or another chain's file; or what `each` says of a record.
    pub fn replay(
        &mut self,
        genesis_hash: B256,
        fork: L1Fork,
        mut each: impl FnMut(Record) -> Result<(), String>,
    ) -> Result<(), LogError> {
        let length = self.file.metadata().map_err(|source| self.io(source))?.len();
        while let Some(place) = self.next_record(length)? {
            let payload = self.read(place)?;
            let offset = self.end;
            let damaged = |what: String| LogError::Damaged { path: self.path.clone(), offset, what };
            let (kind, mut rest) = payload.split_first().ok_or_else(|| damaged("it is empty".to_owned()))?;
            let rlp = |error: alloy_rlp::Error| damaged(error.to_string());
            match (*kind, offset) {
                (KIND_GENESIS, 0) => {
                    let found = B256::decode(&mut rest).map_err(rlp)?;
                    if found != genesis_hash {
                        return Err(LogError::OtherChain { path: self.path.clone(), found, expected: genesis_hash });
                    }
                }
                (KIND_BLOCK, 1..) => {
                    let (block, changes) = decode_block(rest, fork).map_err(damaged)?;
                    each(Record::Block { place, block: Box::new(block), changes }).map_err(damaged)?;
                }
                (KIND_REWIND, 1..) => {
                    let hash = B256::decode(&mut rest).map_err(rlp)?;
                    each(Record::Rewind(hash)).map_err(damaged)?;
                }
                _ => return Err(damaged(format!("kind {kind} is unknown here"))),
            }
            self.end = place.offset + u64::from(place.bytes);
        }
        self.file.set_len(self.end).map_err(|source| self.io(source))?;
        if self.end == 0 {
            let mut payload = vec![KIND_GENESIS];
            genesis_hash.encode(&mut payload);
            self.append(&payload)?;
        }
        Ok(())
    }

    /// The record at the end of what was read; `None` at the end of the file, or where the last record is not whole.
    fn next_record(&self, length: u64) -> Result<Option<Place>, LogError> {
        if self.end + FRAME_BYTES > length {
            return Ok(None);
        }
        let mut frame = [0; FRAME_BYTES as usize];
        self.file.read_exact_at(&mut frame, self.end).map_err(|source| self.io(source))?;
        let [a, b, c, d, check @ ..] = frame;
        let bytes = u32::from_le_bytes([a, b, c, d]);
        let place = Place { offset: self.end + FRAME_BYTES, bytes };
        if place.offset + u64::from(bytes) > length {
            return Ok(None);
        }
        let is_last = place.offset + u64::from(bytes) == length;
        let what = if bytes == 0 || bytes > RECORD_BYTES_MAX {
            format!("it claims {bytes} bytes")
        } else if crc32c::crc32c(&self.read(place)?) == u32::from_le_bytes(check) {
            return Ok(Some(place));
        } else if is_last {
            return Ok(None);
        } else {
            "its checksum is wrong".to_owned()
        };
        Err(LogError::Damaged { path: self.path.clone(), offset: self.end, what })
    }

    /// Appends a block, durable afterwards if the file is.
    ///
    /// # Errors
    /// When it cannot be written: the file is of no more use.
    pub fn append_block(&mut self, block: &Block, changes: &StateChanges) -> Result<Place, LogError> {
        let mut payload = vec![KIND_BLOCK];
        stored(block, changes).encode(&mut payload);
        self.append(&payload)
    }

    /// Appends that a block before is the newest again.
    ///
    /// # Errors
    /// When it cannot be written: the file is of no more use.
    pub fn append_rewind(&mut self, hash: B256) -> Result<(), LogError> {
        let mut payload = vec![KIND_REWIND];
        hash.encode(&mut payload);
        self.append(&payload).map(|_| ())
    }

    fn append(&mut self, payload: &[u8]) -> Result<Place, LogError> {
        let bytes = u32::try_from(payload.len()).ok().filter(|bytes| *bytes <= RECORD_BYTES_MAX);
        let too_long = || self.io(io::Error::other(format!("a record of {} bytes is too long", payload.len())));
        let bytes = bytes.ok_or_else(too_long)?;
        let mut record = Vec::with_capacity(payload.len() + FRAME_BYTES as usize);
        record.extend_from_slice(&bytes.to_le_bytes());
        record.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
        record.extend_from_slice(payload);
        self.file.write_all_at(&record, self.end).map_err(|source| self.io(source))?;
        if self.is_durable {
            self.file.sync_data().map_err(|source| self.io(source))?;
        }
        let place = Place { offset: self.end + FRAME_BYTES, bytes };
        self.end = place.offset + u64::from(bytes);
        Ok(place)
    }

    fn read(&self, place: Place) -> Result<Vec<u8>, LogError> {
        let mut payload = vec![0; place.bytes as usize];
        self.file.read_exact_at(&mut payload, place.offset).map_err(|source| self.io(source))?;
        Ok(payload)
    }

    /// A block that was appended.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn block(&self, place: Place, fork: L1Fork) -> Result<Block, LogError> {
        let payload = self.read(place)?;
        let decoded = decode_block(&payload[1..], fork);
        decoded.map(|(block, _)| block).map_err(|what| LogError::Damaged {
            path: self.path.clone(),
            offset: place.offset,
            what,
        })
    }

    fn io(&self, source: io::Error) -> LogError {
        LogError::Io { path: self.path.clone(), source }
    }
}

/// Eight random bytes of the operating system.
fn entropy() -> Result<u64, LogError> {
    let path = PathBuf::from("/dev/urandom");
    let mut bytes = [0; 8];
    let read = File::open(&path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|source| LogError::Io { path, source })?;
    Ok(u64::from_ne_bytes(bytes))
}

#[derive(RlpEncodable, RlpDecodable)]
struct StoredBlock {
    header: Header,
    txs: Vec<Bytes>,
    receipts: Vec<StoredReceipt>,
    accounts: Vec<StoredChange>,
    codes: Vec<Bytes>,
}

#[derive(RlpEncodable, RlpDecodable)]
struct StoredReceipt {
    success: bool,
    gas_used: u64,
    cumulative_gas_used: u64,
    logs: Vec<Log>,
    contract_address: Bytes,
    execute: Bytes,
}

#[derive(RlpEncodable, RlpDecodable)]
struct StoredChange {
    address: Address,
    /// None or one.
    account: Vec<StoredInfo>,
    storage_cleared: bool,
    storage: Vec<StoredSlot>,
}

#[derive(RlpEncodable, RlpDecodable)]
struct StoredInfo {
    nonce: u64,
    balance_wei: U256,
    code_hash: B256,
}

#[derive(RlpEncodable, RlpDecodable)]
struct StoredSlot {
    slot: U256,
    value: U256,
}

fn stored(block: &Block, changes: &StateChanges) -> StoredBlock {
    let receipts = block.receipts.iter().map(|receipt| StoredReceipt {
        success: receipt.success,
        gas_used: receipt.gas_used,
        cumulative_gas_used: receipt.cumulative_gas_used,
        logs: receipt.logs.clone(),
        contract_address: receipt
            .contract_address
            .map_or_else(Bytes::new, |address| Bytes::copy_from_slice(address.as_slice())),
        execute: Bytes::from(receipt.execute.to_string().into_bytes()),
    });
    let accounts = changes.accounts.iter().map(|change| StoredChange {
        address: change.address,
        account: change.account.iter().map(stored_info).collect(),
        storage_cleared: change.storage_cleared,
        storage: change.storage.iter().map(|&(slot, value)| StoredSlot { slot, value }).collect(),
    });
    StoredBlock {
        header: block.header.clone(),
        txs: block.txs.iter().map(|tx| tx.raw.clone()).collect(),
        receipts: receipts.collect(),
        accounts: accounts.collect(),
        codes: changes.codes.iter().map(|(_, code)| code.clone()).collect(),
    }
}

fn stored_info(info: &AccountInfo) -> StoredInfo {
    StoredInfo { nonce: info.nonce, balance_wei: info.balance_wei, code_hash: info.code_hash }
}

fn decode_block(mut rlp: &[u8], fork: L1Fork) -> Result<(Block, StateChanges), String> {
    let stored = StoredBlock::decode(&mut rlp).map_err(|error| error.to_string())?;
    let recover = |raw| L1Tx::recover(raw, fork).map_err(|error| error.to_string());
    let txs: Vec<L1Tx> = stored.txs.into_iter().map(recover).collect::<Result<_, _>>()?;
    if txs.len() != stored.receipts.len() {
        return Err(format!("{} transactions have {} receipts", txs.len(), stored.receipts.len()));
    }
    let receipts = stored.receipts.into_iter().zip(&txs).map(|(stored, tx)| {
        Ok(Receipt {
            tx_type: tx.tx_type(),
            success: stored.success,
            gas_used: stored.gas_used,
            cumulative_gas_used: stored.cumulative_gas_used,
            logs: stored.logs,
            contract_address: (stored.contract_address.len() == 20)
                .then(|| Address::from_slice(&stored.contract_address)),
            execute: serde_json::from_slice(&stored.execute).map_err(|error| error.to_string())?,
        })
    });
    let receipts = receipts.collect::<Result<_, String>>()?;
    let accounts = stored.accounts.into_iter().map(|change| AccountChange {
        address: change.address,
        account: change.account.first().map(|info| AccountInfo {
            nonce: info.nonce,
            balance_wei: info.balance_wei,
            code_hash: info.code_hash,
        }),
        storage_cleared: change.storage_cleared,
        storage: change.storage.into_iter().map(|stored| (stored.slot, stored.value)).collect(),
    });
    let codes = stored.codes.into_iter().map(|code| (keccak256(&code), code)).collect();
    let changes = StateChanges { accounts: accounts.collect(), codes };
    let hash = stored.header.hash_slow();
    Ok((Block { header: stored.header, hash, txs, receipts }, changes))
}
