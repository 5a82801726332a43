//! Reading the chain database from any thread, without locks.
//!
//! [`ChainReader`] answers from the newest state; [`ChainView`] is one state, for reads that must agree with each other. Only a rollback
//! changes what a view shows: its blocks above the rollback answer [`ChainError::Stale`], and `ChainReader` then looks again.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use super::block::{BodyReader, ReceiptsReader, StoredBlock};
use super::checkpoint::{Checkpoint, CheckpointFile};
use super::error::ChainError;
use super::filter::LogQuery;
use super::index::{Index, Location};
use super::map::FileView;
use super::record::{HEAD_BYTES, HEAD_MAGIC, Head};
use super::slot::{BLOOM_SLOT_BYTES, OFFSET_SLOT_BYTES, bloom_from_words, offset_from_words};
use super::status::{StatusRecord, StatusShared};
use crate::primitives::{B256, Bloom};

/// Rollbacks that may overtake one read before it gives up with `Stale`.
const STALE_RETRIES_MAX: usize = 16;

/// What the writer, its worker and all readers share.
pub(super) struct Shared {
    pub dir: PathBuf,
    pub state: ArcSwap<State>,
    /// Rollbacks so far; moves before the first slot is overwritten.
    pub rollback_count: AtomicU64,
    pub index: Index,
    pub status: StatusShared,
    pub checkpoint: Mutex<CheckpointFile>,
}

/// One published state of the files.
pub(super) struct State {
    pub headers: FileView,
    pub bodies: FileView,
    pub receipts: FileView,
    pub offsets: FileView,
    pub blooms: FileView,
    pub block_count: u64,
    pub rollback_count: u64,
}

/// Where a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxLocation {
    pub number: u64,
    pub index: u32,
}

/// Reads the newest state of the chain database. Cheap to clone; any thread.
#[derive(Clone)]
pub struct ChainReader {
    pub(super) shared: Arc<Shared>,
}

/// One state of the chain database: a snapshot that later appends do not change.
#[derive(Clone)]
pub struct ChainView {
    shared: Arc<Shared>,
    state: Arc<State>,
}

impl Shared {
    /// Makes everything published so far durable, blocks and ends, then says so in a checkpoint slot.
    ///
    /// Runs on: a background thread, or the chain thread around a rollback.
    pub(super) fn sync(&self) -> Result<(), ChainError> {
        let mut checkpoint = self.checkpoint.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Loaded under the lock: a checkpoint never goes back behind a rollback that another thread has recorded.
        let state = self.state.load_full();
        self.sync_state(&state, &mut checkpoint)
    }

    /// As [`Shared::sync`], of a state that nobody has seen yet; shows it then.
    ///
    /// Runs on: the chain thread.
    pub(super) fn sync_and_publish(&self, state: State) -> Result<(), ChainError> {
        // Published under the lock: the checkpoint of another thread never goes back behind this one.
        let mut checkpoint = self.checkpoint.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.sync_state(&state, &mut checkpoint)?;
        self.state.store(Arc::new(state));
        Ok(())
    }

    fn sync_state(&self, state: &State, checkpoint: &mut CheckpointFile) -> Result<(), ChainError> {
        for file in [&state.bodies, &state.receipts, &state.offsets, &state.blooms, &state.headers] {
            file.sync()?;
        }
        self.status.sync(&self.dir)?;
        checkpoint.write(Checkpoint {
            generation: 0, // set by `write`
            headers_bytes: state.headers.len(),
            bodies_bytes: state.bodies.len(),
            receipts_bytes: state.receipts.len(),
            block_count: state.block_count,
        })
    }
}

impl ChainReader {
    /// The newest state, to be read several times.
    #[must_use]
    pub fn view(&self) -> ChainView {
        ChainView { shared: self.shared.clone(), state: self.shared.state.load_full() }
    }

    /// Number of the newest block; `None` before the genesis is stored.
    #[must_use]
    pub fn latest_number(&self) -> Option<u64> {
        self.shared.state.load().block_count.checked_sub(1)
    }

    /// The block with a number, or `None` above the newest.
    pub fn block_by_number(&self, number: u64) -> Result<Option<StoredBlock>, ChainError> {
        self.retry(|view| view.block_by_number(number))
    }

    /// The block with a hash, or `None`.
    pub fn block_by_hash(&self, hash: &B256) -> Result<Option<StoredBlock>, ChainError> {
        self.retry(|view| match view.number_by_hash(hash)? {
            Some(number) => view.block_by_number(number),
            None => Ok(None),
        })
    }

    /// The number of the block with a hash, or `None`.
    pub fn number_by_hash(&self, hash: &B256) -> Result<Option<u64>, ChainError> {
        self.retry(|view| view.number_by_hash(hash))
    }

    /// The hash of the block with a number, or `None`.
    pub fn hash_by_number(&self, number: u64) -> Result<Option<B256>, ChainError> {
        self.retry(|view| view.hash_by_number(number))
    }

    /// Where a transaction was included, or `None`.
    pub fn transaction_by_hash(&self, hash: &B256) -> Result<Option<TxLocation>, ChainError> {
        self.retry(|view| view.transaction_by_hash(hash))
    }

    /// A copy of a header's RLP. Without copying: [`StoredBlock::header_rlp`].
    pub fn header_rlp(&self, number: u64) -> Result<Option<Vec<u8>>, ChainError> {
        self.retry(|view| Ok(view.header_rlp(number)?.map(<[u8]>::to_vec)))
    }

    /// The bloom of a block's logs, or `None` above the newest block.
    pub fn bloom(&self, number: u64) -> Result<Option<Bloom>, ChainError> {
        self.retry(|view| view.bloom(number))
    }

    /// Whether a block can have logs that a query asks for; false above the newest block. Wrong only in saying yes.
    pub fn may_have_logs(&self, number: u64, query: &LogQuery) -> Result<bool, ChainError> {
        self.retry(|view| view.may_have_logs(number, query))
    }

    /// The end state of a transaction, while it is retained.
    pub fn status(&self, hash: &B256) -> Result<Option<StatusRecord>, ChainError> {
        self.shared.status.find(hash)
    }

    fn retry<T>(&self, read: impl Fn(&ChainView) -> Result<T, ChainError>) -> Result<T, ChainError> {
        for _ in 0..STALE_RETRIES_MAX {
            match read(&self.view()) {
                Err(ChainError::Stale) => {}
                result => return result,
            }
        }
        Err(ChainError::Stale)
    }
}

impl ChainView {
    #[must_use]
    pub fn latest_number(&self) -> Option<u64> {
        self.state.block_count.checked_sub(1)
    }

    pub fn block_by_number(&self, number: u64) -> Result<Option<StoredBlock>, ChainError> {
        let Some((head, head_at)) = self.head(number)? else { return Ok(None) };
        StoredBlock::open(self.state.clone(), head, head_at).map(Some)
    }

    pub fn number_by_hash(&self, hash: &B256) -> Result<Option<u64>, ChainError> {
        let mut found = None;
        self.shared.index.visit(hash, |location| {
            let Location::Block { number } = location else { return Ok(false) };
            if self.hash_by_number(number)? == Some(*hash) {
                found = Some(number);
            }
            Ok(found.is_some())
        })?;
        Ok(found)
    }

    pub fn hash_by_number(&self, number: u64) -> Result<Option<B256>, ChainError> {
        Ok(self.head(number)?.map(|(head, _)| head.hash))
    }

    pub fn header_rlp(&self, number: u64) -> Result<Option<&[u8]>, ChainError> {
        let Some((head, head_at)) = self.head(number)? else { return Ok(None) };
        self.state.headers.bytes(head_at + HEAD_BYTES, u64::from(head.header_bytes)).map(Some)
    }

    pub fn transaction_by_hash(&self, hash: &B256) -> Result<Option<TxLocation>, ChainError> {
        let mut found = None;
        self.shared.index.visit(hash, |location| {
            let Location::Transaction { number, index } = location else { return Ok(false) };
            // A rollback leaves candidates that name blocks which are gone or different now.
            let Some((head, _)) = self.head(number)? else { return Ok(false) };
            if index < head.tx_count && BodyReader::open(&self.state, &head)?.row(index)?.hash == *hash {
                found = Some(TxLocation { number, index });
            }
            Ok(found.is_some())
        })?;
        Ok(found)
    }

    pub fn bloom(&self, number: u64) -> Result<Option<Bloom>, ChainError> {
        if number >= self.state.block_count {
            return Ok(None);
        }
        let offset = number * BLOOM_SLOT_BYTES;
        let words = std::array::from_fn(|word| self.state.blooms.word(offset + 8 * word as u64));
        match bloom_from_words(number, &words) {
            Some(bloom) => self.unless_stale(number).map(|()| Some(bloom)),
            None => Err(self.stale_or(ChainError::corrupt(self.state.blooms.path(), offset, "checksum of bloom"))),
        }
    }

    /// Whether a block can have logs that a query asks for: the dense bloom first, then the block's own filter.
    pub fn may_have_logs(&self, number: u64, query: &LogQuery) -> Result<bool, ChainError> {
        match self.bloom(number)? {
            Some(bloom) if query.matches_bloom(&bloom) => {}
            _ => return Ok(false),
        }
        let Some((head, _)) = self.head(number)? else { return Ok(false) };
        ReceiptsReader::open(&self.state, &head)?.may_have_logs(query)
    }

    /// The head record of a block and where it is.
    pub(super) fn head(&self, number: u64) -> Result<Option<(Head, u64)>, ChainError> {
        if number >= self.state.block_count {
            return Ok(None);
        }
        let slot_at = number * OFFSET_SLOT_BYTES;
        let words = [self.state.offsets.word(slot_at), self.state.offsets.word(slot_at + 8)];
        let Some(head_at) = offset_from_words(number, words) else {
            let damage = ChainError::corrupt(self.state.offsets.path(), slot_at, "checksum of block offset");
            return Err(self.stale_or(damage));
        };
        if head_at >= self.state.headers.len() {
            // The block was rolled back and stored anew after this view was made.
            let damage = ChainError::corrupt(self.state.offsets.path(), slot_at, "block offset after the headers");
            return Err(self.stale_or(damage));
        }
        let head = read_head(&self.state.headers, head_at)?;
        if head.magic != HEAD_MAGIC || head.number != number {
            return Err(ChainError::corrupt(self.state.offsets.path(), slot_at, "offset of another block"));
        }
        Ok(Some((head, head_at)))
    }

    /// Bytes below a tail never change, slots do: what was read from one counts only if no rollback has begun since.
    fn unless_stale(&self, number: u64) -> Result<(), ChainError> {
        // ORDERING: the fence keeps the slot's loads before this one; pairs with the Release fence in `truncate_to`.
        fence(Ordering::Acquire);
        if self.shared.rollback_count.load(Ordering::Relaxed) == self.state.rollback_count {
            return Ok(());
        }
        // A rollback elsewhere does not matter when the block is still the one of this view.
        self.head(number).map(|_| ())
    }

    fn stale_or(&self, damage: ChainError) -> ChainError {
        fence(Ordering::Acquire);
        let moved = self.shared.rollback_count.load(Ordering::Relaxed) != self.state.rollback_count;
        if moved { ChainError::Stale } else { damage }
    }
}

/// Reads and checks the head record at an offset.
pub(super) fn read_head(headers: &FileView, at: u64) -> Result<Head, ChainError> {
    let damaged = |what| ChainError::corrupt(headers.path(), at, what);
    let head = Head::decode(headers.bytes(at, HEAD_BYTES)?).map_err(damaged)?;
    Head::check(headers.bytes(at, head.record_bytes())?).map_err(damaged)?;
    Ok(head)
}
