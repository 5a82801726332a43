//! What the chain database does not have yet, from the journal: sealed blocks, the open block, the pool.
//!
//! The journal is the truth. The chain database must be a prefix of it, or is cut where the journal says that blocks are void; a block
//! that comes out differently, a record that cannot be carried out and a chain database that is ahead are errors that name the record.

use super::{BlockSource, Replay, ReplayError};
use crate::builder::block::SealedBlock;
use crate::builder::core::{OpenStart, RestoredTx, Start};
use crate::builder::execution::{ExecutableTx, ExecutionError};
use crate::builder::filler::{BlockFiller, Placement};
use crate::chain::{ChainError, StatusRecord, TierTimes};
use crate::codec::transaction;
use crate::journal::history::{BlockHistory, History, Placed, Position};
use crate::journal::record::{AdmittedTx, Record, RecordError};
use crate::primitives::{B256, Sequence};
use crate::state::{Snapshot, StateStore};

const NS_PER_MS: u64 = 1_000_000;

/// Why journal and chain database, or journal and execution, do not agree.
#[derive(Debug, thiserror::Error)]
pub enum Disagreement {
    #[error("journal record {} says that block {number} has hash {recorded}, the chain database holds {stored}", .sequence.0)]
    StoredHash { sequence: Sequence, number: u64, recorded: B256, stored: B256 },
    #[error(
        "the chain database ends with block {stored}, the journal with block {recorded}: the journal was cut, or is another chain's"
    )]
    ChainAhead { stored: u64, recorded: u64 },
    #[error("the journal begins with block {first}, the chain database ends with block {stored}: blocks are missing")]
    BlocksMissing { first: u64, stored: u64 },
    #[error("block {number} is not in the chain database, and the journal does not hold its beginning")]
    BeginningMissing { number: u64 },
    #[error("journal record {}: block {number} has {what} {recorded} there, and comes out with {executed}", .sequence.0)]
    Block { sequence: Sequence, number: u64, what: &'static str, recorded: B256, executed: B256 },
    #[error("journal record {}: transaction {index} of block {number} cannot be placed: {why}", .sequence.0)]
    Place { sequence: Sequence, number: u64, index: u32, why: String },
    #[error("journal record {}: its bytes are in a part of the journal that is gone", .sequence.0)]
    BytesMissing { sequence: Sequence },
    #[error("journal record {} is not {expected}", .sequence.0)]
    Kind { sequence: Sequence, expected: &'static str },
    #[error("journal: {0}")]
    Record(#[from] RecordError),
    #[error("journal record {}: the transaction does not decode: {why}", .sequence.0)]
    Transaction { sequence: Sequence, why: String },
}

/// A journal that was read, and where its records are.
pub struct JournalView<'j> {
    pub history: &'j History,
    /// The bytes of the record at a position.
    pub bytes_at: &'j dyn Fn(Position) -> &'j [u8],
}

/// What the journal adds to the chain database.
#[derive(Default)]
pub struct Resumed {
    pub start: Start,
    pub sequence: Sequence,
}

/// The number above which the chain database must be cut, after its hashes have been compared with the journal's.
///
/// # Errors
/// What does not agree.
pub fn agreed_tip(chain: &impl BlockSource, history: &History) -> Result<u64, ReplayError> {
    let stored = chain.latest_number().unwrap_or(0);
    let mut tip = stored;
    let is_void = |number: u64, hash: B256| {
        history.void.iter().any(|block| block.number() == number && block.hash() == Some(hash))
    };
    for block in &history.blocks {
        let Some(sealed) = &block.sealed else { continue };
        let number = block.number;
        if number > tip {
            break;
        }
        let Some(hash) = chain.hash_by_number(number)? else { break };
        if hash == sealed.hash {
            continue;
        }
        if !is_void(number, hash) {
            let (sequence, recorded) = (sealed.sequence, sealed.hash);
            return Err(Disagreement::StoredHash { sequence, number, recorded, stored: hash }.into());
        }
        tip = number - 1;
    }
    let recorded = history.blocks.iter().rev().find(|block| block.sealed.is_some()).map(|block| block.number);
    let base = history.blocks.first().map(|block| block.number - 1);
    // Without a sealed block the journal says nothing of what lies below its first one.
    let recorded = recorded.or(base).or_else(|| history.void.iter().map(|block| block.number() - 1).min());
    let Some(recorded) = recorded else { return Ok(tip) };
    while tip > recorded {
        let hash = chain.hash_by_number(tip)?.unwrap_or_default();
        if !is_void(tip, hash) {
            return Err(Disagreement::ChainAhead { stored, recorded }.into());
        }
        tip -= 1;
    }
    match history.blocks.first() {
        Some(first) if first.number > tip + 1 => {
            Err(Disagreement::BlocksMissing { first: first.number, stored: tip }.into())
        }
        _ => Ok(tip),
    }
}

/// How the transactions ended that the journal dropped, for those that `is_settled` does not know better.
///
/// # Errors
/// A record that does not decode.
pub fn ends(
    journal: &JournalView<'_>,
    mut is_settled: impl FnMut(&B256, u64) -> Result<bool, ChainError>,
) -> Result<Vec<StatusRecord>, ReplayError> {
    let mut records = Vec::new();
    for (sequence, at) in &journal.history.ends {
        let (_, record) = Record::decode((journal.bytes_at)(*at)).map_err(Disagreement::from)?;
        let Record::Dropped { hash, accepted_unix_ns, ended_unix_ns, end, .. } = record else {
            return Err(Disagreement::Kind { sequence: *sequence, expected: "the end of a transaction" }.into());
        };
        let ended_unix_ms = ended_unix_ns / NS_PER_MS;
        if is_settled(&hash, ended_unix_ms)? {
            continue;
        }
        let times = TierTimes {
            accepted_unix_ms: accepted_unix_ns / NS_PER_MS,
            ended_unix_ms: Some(ended_unix_ms),
            ..TierTimes::default()
        };
        records.push(StatusRecord { hash, end, times });
    }
    Ok(records)
}

/// What is pooled, in the order of arrival.
///
/// # Errors
/// A record that does not decode.
pub fn pooled(journal: &JournalView<'_>) -> Result<Vec<RestoredTx>, ReplayError> {
    let live = journal.history.live.iter();
    Ok(live.map(|live| restored(journal, live.name, live.admitted, live.at)).collect::<Result<_, _>>()?)
}

impl<S: StateStore<Reader = Snapshot>> Replay<'_, S> {
    /// Executes what the journal holds behind the newest block, hands every sealed block to `keep`, and answers what is left under way.
    ///
    /// # Errors
    /// The first record that disagrees.
    pub fn journaled(
        &mut self,
        journal: &JournalView<'_>,
        keep: &mut dyn FnMut(&SealedBlock) -> Result<(), ChainError>,
    ) -> Result<Resumed, ReplayError> {
        let mut start = Start::default();
        for block in &journal.history.blocks {
            if block.number <= self.tip().header.number {
                continue;
            }
            let (filler, opened_unix_ns) = self.fill(journal, block)?;
            let Some(closed) = &block.closed else {
                start.open = Some(OpenStart { filler, opened_unix_ns });
                break;
            };
            let closed = filler.close(&mut self.executor, closed.sequence)?;
            let parent = self.tip().state.clone();
            let sealed = self.sealer.seal(closed, &parent, self.store, opened_unix_ns)?;
            match &block.sealed {
                Some(_) => {
                    let sealed = compare(block, sealed)?;
                    keep(&sealed)?;
                    self.remember(sealed)?;
                }
                None => {
                    start.unrecorded = Some(sealed);
                    break;
                }
            }
        }
        start.pooled = pooled(journal)?;
        Ok(Resumed { start, sequence: journal.history.last })
    }

    /// Executes the places of one block.
    fn fill(&mut self, journal: &JournalView<'_>, block: &BlockHistory) -> Result<(BlockFiller, u64), ReplayError> {
        let number = block.number;
        let Some((sequence, at)) = block.opened else {
            return Err(Disagreement::BeginningMissing { number }.into());
        };
        let (_, record) = Record::decode((journal.bytes_at)(at)).map_err(Disagreement::from)?;
        let Record::Opened { context, opened_unix_ns } = record else {
            return Err(Disagreement::Kind { sequence, expected: "the opening of a block" }.into());
        };
        let parent = self.tip().hash;
        if context.parent_hash != parent {
            let (what, recorded) = ("parent hash", context.parent_hash);
            return Err(Disagreement::Block { sequence, number, what, recorded, executed: parent }.into());
        }
        self.sealer.begin();
        let mut filler = BlockFiller::open(context.into_owned(), &mut self.executor, &self.memory)?;
        for placed in &block.placed {
            self.place(journal, number, placed, &mut filler)?;
        }
        Ok((filler, opened_unix_ns))
    }

    fn place(
        &mut self,
        journal: &JournalView<'_>,
        number: u64,
        placed: &Placed,
        filler: &mut BlockFiller,
    ) -> Result<(), ReplayError> {
        let (sequence, index) = (placed.sequence, placed.index);
        let at = placed.at.ok_or(Disagreement::BytesMissing { sequence })?;
        let tx = admitted_at(journal, placed.tx, at)?;
        let decoded = transaction::decode(tx.raw)
            .map_err(|error| Disagreement::Transaction { sequence: placed.tx, why: error.to_string() })?;
        let executable =
            ExecutableTx { fields: &decoded.fields, sender: tx.sender, raw: tx.raw, authorities: &tx.authorities };
        let placement = Placement {
            hash: transaction::tx_hash(tx.raw),
            sequence,
            accepted_unix_ns: tx.accepted_unix_ns,
            preconfirmed_unix_ns: placed.preconfirmed_unix_ns,
        };
        match filler.place(&mut self.executor, &executable, placement) {
            Ok(at) if at == index => Ok(()),
            Ok(at) => {
                let why = format!("it would be number {at}");
                Err(Disagreement::Place { sequence, number, index, why }.into())
            }
            Err(ExecutionError::Invalid(invalid)) => {
                Err(Disagreement::Place { sequence, number, index, why: invalid.to_string() }.into())
            }
            Err(fatal) => Err(fatal.into()),
        }
    }
}

/// The sealed block with what its record says, if that is how it came out.
fn compare(block: &BlockHistory, mut sealed: SealedBlock) -> Result<SealedBlock, Disagreement> {
    let Some(record) = &block.sealed else { return Ok(sealed) };
    let (sequence, number) = (record.sequence, block.number);
    let pairs = [
        ("state root", record.state_root, sealed.header.state_root),
        ("receipts root", record.receipts_root, sealed.header.receipts_root),
        ("hash", record.hash, sealed.hash),
    ];
    for (what, recorded, executed) in pairs {
        if recorded != executed {
            return Err(Disagreement::Block { sequence, number, what, recorded, executed });
        }
    }
    sealed.sequence = sequence;
    sealed.sealed_unix_ns = record.sealed_unix_ns;
    Ok(sealed)
}

fn admitted_at<'j>(journal: &JournalView<'j>, name: Sequence, at: Position) -> Result<AdmittedTx<'j>, Disagreement> {
    match Record::decode((journal.bytes_at)(at))? {
        (_, Record::Admitted(tx) | Record::Carried { tx, .. }) => Ok(tx),
        _ => Err(Disagreement::Kind { sequence: name, expected: "an admitted transaction" }),
    }
}

fn restored(
    journal: &JournalView<'_>,
    name: Sequence,
    admitted: Sequence,
    at: Position,
) -> Result<RestoredTx, Disagreement> {
    let tx = admitted_at(journal, name, at)?;
    let decoded = transaction::decode(tx.raw)
        .map_err(|error| Disagreement::Transaction { sequence: name, why: error.to_string() })?;
    Ok(RestoredTx {
        hash: transaction::tx_hash(tx.raw),
        sender: tx.sender,
        fields: decoded.fields,
        raw: tx.raw.into(),
        authorities: tx.authorities.into_owned(),
        conditions: tx.conditions.map(std::borrow::Cow::into_owned),
        name,
        admitted,
        accepted_unix_ns: tx.accepted_unix_ns,
    })
}
