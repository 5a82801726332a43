//! Taking blocks back: whether that can be, and which preconfirmations are withdrawn by it.
//!
//! History and a block number → [`Plan`]: the blocks that would go, one line for each transaction in them, and the record that takes them
//! back; or the lowest number that can stay. Pure; the command writes. Absent until there are batches on L1: the refusal to take back a
//! settled block.

use std::fmt;

use thiserror::Error;

use super::history::{BlockHistory, History, Position};
use super::record::{Record, RecordError, RollbackCause};
use crate::codec::transaction::tx_hash;
use crate::primitives::{Address, B256, Sequence};

/// What a rollback does. `Display` says it in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan<'h> {
    pub to_block: u64,
    pub cause: RollbackCause,
    /// Of the record.
    pub sequence: Sequence,
    /// Ascending.
    pub blocks: &'h [BlockHistory],
    /// In the order of their blocks and places.
    pub withdrawn: Vec<Withdrawn>,
}

/// Why blocks cannot be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RollbackError {
    #[error("the journal holds no block: nothing can be taken back")]
    NoBlock,
    #[error("block {newest} is the newest one: nothing is above block {to_block}")]
    Nothing { to_block: u64, newest: u64 },
    /// A transaction whose bytes are gone could not be pooled again, and the acknowledgement of it would be broken.
    #[error("block {above} is no longer whole in the journal: the lowest block to roll back to is {earliest}", above = .to_block.saturating_add(1))]
    Gone { to_block: u64, earliest: u64 },
    /// Only the newest block can stay.
    #[error("block {newest} is no longer whole in the journal: nothing can be taken back")]
    NewestGone { newest: u64 },
    #[error("transaction {}: {error}", .tx.0)]
    Record { tx: Sequence, error: RecordError },
    #[error("record {} is no transaction", .tx.0)]
    NoTx { tx: Sequence },
}

/// A place in a block that was shown and is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Withdrawn {
    pub hash: B256,
    pub sender: Address,
    pub block: u64,
    pub index: u32,
}

impl<'h> Plan<'h> {
    /// Looks whether everything above `to_block` can be taken back.
    ///
    /// # Errors
    /// `NoBlock`, `Nothing`, `Gone`, `NewestGone`; `Record` and `NoTx` when `record_at` gives other bytes than the history was read from.
    pub fn new<'a>(
        history: &'h History,
        to_block: u64,
        cause: RollbackCause,
        record_at: impl FnMut(Position) -> &'a [u8],
    ) -> Result<Self, RollbackError> {
        let blocks = blocks_above(history, to_block)?;
        let withdrawn = withdrawn(blocks, record_at)?;
        Ok(Self { to_block, cause, sequence: Sequence(history.last.0 + 1), blocks, withdrawn })
    }

    /// What is appended to the journal. The withdrawn places are on the disk before it.
    #[must_use]
    pub fn record(&self) -> Record<'static> {
        Record::RolledBack { to_block: self.to_block, cause: self.cause }
    }

    /// Where the withdrawn places are written, in the journal's directory.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("rollback-{}.json", self.sequence.0)
    }

    /// One line of JSON for each withdrawn place.
    #[must_use]
    pub fn file_text(&self) -> String {
        self.withdrawn.iter().map(|withdrawn| withdrawn.json() + "\n").collect()
    }
}

impl fmt::Display for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (blocks, places) = (self.blocks.len(), self.withdrawn.len());
        write!(f, "{blocks} blocks above block {} and {places} preconfirmations in them", self.to_block)
    }
}

/// The blocks above `to_block`, ascending.
fn blocks_above(history: &History, to_block: u64) -> Result<&[BlockHistory], RollbackError> {
    let blocks = &history.blocks;
    let (Some(first), Some(newest)) = (blocks.first(), blocks.last()) else {
        return Err(RollbackError::NoBlock);
    };
    let newest = newest.number;
    if to_block >= newest {
        return Err(RollbackError::Nothing { to_block, newest });
    }
    let earliest = match blocks.iter().rfind(|block| !block.is_whole()) {
        Some(block) if block.number == newest => return Err(RollbackError::NewestGone { newest }),
        Some(block) => block.number,
        // Block 0 is never in a journal: it is the genesis.
        None => first.number.saturating_sub(1),
    };
    if to_block < earliest {
        return Err(RollbackError::Gone { to_block, earliest });
    }
    Ok(&blocks[blocks.partition_point(|block| block.number <= to_block)..])
}

/// Every place in `blocks`, which are whole.
fn withdrawn<'a>(
    blocks: &[BlockHistory],
    mut record_at: impl FnMut(Position) -> &'a [u8],
) -> Result<Vec<Withdrawn>, RollbackError> {
    let mut list = Vec::new();
    for block in blocks {
        for placed in &block.placed {
            let tx = placed.tx;
            let at = placed.at.ok_or(RollbackError::NoTx { tx })?;
            let (_, record) = Record::decode(record_at(at)).map_err(|error| RollbackError::Record { tx, error })?;
            let (Record::Admitted(body) | Record::Carried { tx: body, .. }) = record else {
                return Err(RollbackError::NoTx { tx });
            };
            let hash = tx_hash(body.raw);
            list.push(Withdrawn { hash, sender: body.sender, block: block.number, index: placed.index });
        }
    }
    Ok(list)
}

impl Withdrawn {
    /// One line of JSON without its end.
    #[must_use]
    pub fn json(&self) -> String {
        let Self { hash, sender, block, index } = self;
        format!(r#"{{"hash":"{hash}","sender":"{sender:#x}","block":{block},"index":{index}}}"#)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::journal::history::Placed;
    use crate::journal::record::AdmittedTx;

    const AT: Position = Position { segment: 0, offset: 64 };

    fn block(number: u64, has_beginning: bool, has_bytes: bool) -> BlockHistory {
        let at = has_bytes.then_some(AT);
        let placed = Placed { sequence: Sequence(9), tx: Sequence(8), at, index: 0, preconfirmed_unix_ns: 0 };
        let opened = has_beginning.then_some((Sequence(7), AT));
        BlockHistory { number, opened, placed: vec![placed], ..BlockHistory::default() }
    }

    /// `blocks`: `w` whole, `o` without its beginning, `b` without the bytes of its transaction; numbered from 5.
    #[track_caller]
    fn check(blocks: &str, to_block: u64, expected: Result<&[u64], &str>) {
        let blocks = blocks.chars().zip(5..).map(|(kind, number)| block(number, kind != 'o', kind != 'b')).collect();
        let history = History { blocks, ..History::default() };
        let result = blocks_above(&history, to_block);
        let numbers: Result<Vec<u64>, String> =
            result.map(|blocks| blocks.iter().map(|block| block.number).collect()).map_err(|error| error.to_string());
        assert_eq!(numbers, expected.map(<[u64]>::to_vec).map_err(str::to_owned));
    }

    #[test]
    fn what_may_be_taken_back() {
        check("", 0, Err("the journal holds no block: nothing can be taken back"));
        check("www", 8, Err("block 7 is the newest one: nothing is above block 8"));
        check("www", 7, Err("block 7 is the newest one: nothing is above block 7"));
        check("www", 6, Ok(&[7]));
        check("www", 4, Ok(&[5, 6, 7]));
        let gone = "block 4 is no longer whole in the journal: the lowest block to roll back to is 4";
        check("www", 3, Err(gone));
        check("oww", 5, Ok(&[6, 7]));
        let gone = "block 5 is no longer whole in the journal: the lowest block to roll back to is 5";
        check("oww", 4, Err(gone));
        check("bww", 4, Err(gone));
        check("obw", 6, Ok(&[7]));
        let gone = "block 6 is no longer whole in the journal: the lowest block to roll back to is 6";
        check("obw", 5, Err(gone));
        check("owb", 6, Err("block 7 is no longer whole in the journal: nothing can be taken back"));
    }

    #[test]
    fn a_place_is_withdrawn_by_hash_and_sender() {
        let raw = [0xc0];
        let tx = AdmittedTx {
            sender: Address::repeat_byte(0xab),
            accepted_unix_ns: 0,
            authorities: Cow::Borrowed(&[]),
            conditions: None,
            raw: &raw,
        };
        let mut bytes = Vec::new();
        Record::Admitted(tx).encode(Sequence(8), &mut bytes);
        let list = withdrawn(&[block(5, true, true)], |at| {
            assert_eq!(at, AT);
            &bytes
        });
        // Keccak-256 of an empty RLP list, as it stands in every header without uncles.
        let expected = concat!(
            r#"{"hash":"0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347","#,
            r#""sender":"0xabababababababababababababababababababab","block":5,"index":0}"#
        );
        assert_eq!(list.unwrap()[0].json(), expected);
        let history = History {
            last: Sequence(20),
            blocks: vec![block(5, true, true), block(6, true, true)],
            ..History::default()
        };
        let plan = Plan::new(&history, 5, RollbackCause::Operator, |_| &bytes).unwrap();
        assert_eq!(plan.to_string(), "1 blocks above block 5 and 1 preconfirmations in them");
        assert_eq!(plan.file_name(), "rollback-21.json");
        assert_eq!(plan.file_text(), format!("{}\n", expected.replace("\"block\":5", "\"block\":6")));
        assert_eq!(plan.record(), Record::RolledBack { to_block: 5, cause: RollbackCause::Operator });
        let mut other = Vec::new();
        Record::RolledBack { to_block: 1, cause: RollbackCause::Operator }.encode(Sequence(8), &mut other);
        let blocks = [block(5, true, true)];
        assert_eq!(withdrawn(&blocks, |_| &other), Err(RollbackError::NoTx { tx: Sequence(8) }));
        let error = RecordError::Length { said: 26, actual: 25 };
        assert_eq!(withdrawn(&blocks, |_| &other[..25]), Err(RollbackError::Record { tx: Sequence(8), error }));
    }
}
