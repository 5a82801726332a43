//! A journal in words, for the operator: `sequencer journal inspect`. The journal's id is in none of them: it is what tells its groups from others.

use std::fmt;

use super::history::{BlockHistory, History, Position};
use super::record::{Outline, RecordType};

const TYPES: [(RecordType, &str); 8] = [
    (RecordType::Admitted, "admitted"),
    (RecordType::Carried, "carried"),
    (RecordType::Dropped, "dropped"),
    (RecordType::Opened, "opened"),
    (RecordType::Placed, "placed"),
    (RecordType::Closed, "closed"),
    (RecordType::Sealed, "sealed"),
    (RecordType::RolledBack, "rolled back"),
];

/// How many records there are of each type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordCounts([u64; TYPES.len()]);

/// A segment as it lies on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentPlace {
    pub slot: u32,
    pub epoch: u64,
    /// From the start of the slot to the end of the last group.
    pub used_bytes: u64,
}

/// Everything that is shown. `Display` is the text.
pub struct Report<'a> {
    pub history: &'a History,
    pub counts: RecordCounts,
    /// By [`Position::segment`].
    pub segments: &'a [SegmentPlace],
    /// Where a last group begins that was not written whole.
    pub torn_tail: Option<Position>,
}

impl RecordCounts {
    #[must_use]
    pub fn of<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut counts = Self::default();
        records.into_iter().for_each(|record| counts.add(record));
        counts
    }

    fn add(&mut self, record: &[u8]) {
        let kind = Outline::of(record).map(|outline| outline.kind);
        if let Some(index) = TYPES.iter().position(|(known, _)| Some(*known) == kind) {
            self.0[index] += 1;
        }
    }

    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl fmt::Display for RecordCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", self.total())?;
        for (index, (count, (_, name))) in self.0.iter().zip(TYPES).enumerate() {
            write!(f, "{}{count} {name}", if index == 0 { "" } else { ", " })?;
        }
        write!(f, ")")
    }
}

/// The line of a journal in which everything fits: `sequencer journal verify`.
#[must_use]
pub fn ok_line(history: &History) -> String {
    let History { first, last, live, blocks, void, segments, .. } = history;
    let record_count = if first.0 == 0 { 0 } else { last.0 - first.0 + 1 };
    format!(
        "ok: {record_count} records in {} segments, {} live transactions, {} blocks, {} void",
        segments.len(),
        live.len(),
        blocks.len(),
        void.len()
    )
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let history = self.history;
        writeln!(f, "sequences: {} to {}", history.first.0, history.last.0)?;
        writeln!(f, "records: {}", self.counts)?;
        writeln!(f, "live transactions: {}", history.live.len())?;
        match (history.blocks.first(), history.blocks.last()) {
            (Some(first), Some(newest)) => {
                let count = history.blocks.len();
                writeln!(f, "blocks: {count} ({} to {})", first.number, newest.number)?;
                writeln!(f, "newest block: {}", in_words(newest))?;
            }
            _ => writeln!(f, "blocks: none")?,
        }
        writeln!(f, "void blocks: {}", history.void.len())?;
        match self.torn_tail {
            Some(at) => writeln!(f, "torn tail: from segment {} offset {}", at.segment, at.offset)?,
            None => writeln!(f, "torn tail: none")?,
        }
        writeln!(f, "segments: {}", self.segments.len())?;
        for (index, place) in self.segments.iter().enumerate() {
            let SegmentPlace { slot, epoch, used_bytes } = place;
            write!(f, "  {index}: slot {slot}, epoch {epoch}, {used_bytes} bytes")?;
            match history.segments.get(index).filter(|account| account.first.0 != 0) {
                Some(account) => {
                    write!(f, ", sequences {} to {}", account.first.0, account.last.0)?;
                    write!(f, ", {} live", account.live_count)?;
                    account.block_max.map_or(Ok(()), |number| write!(f, ", blocks up to {number}"))?;
                }
                None => write!(f, ", empty")?,
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

fn in_words(block: &BlockHistory) -> String {
    let tx_count = block.closed.map_or(block.placed.len(), |closed| closed.tx_count as usize);
    let state = match (&block.sealed, &block.closed) {
        (Some(sealed), _) => format!("sealed, hash {}", sealed.hash),
        (None, Some(_)) => "closed, no hash yet".to_owned(),
        (None, None) => "open".to_owned(),
    };
    format!("{}, {tx_count} transactions, {state}", block.number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::history::{LiveTx, SegmentAccount};
    use crate::journal::record::{Record, RollbackCause};
    use crate::primitives::Sequence;

    #[track_caller]
    fn check(report: &Report<'_>, expected: &str) {
        assert_eq!(report.to_string(), expected);
    }

    #[test]
    fn an_empty_journal_and_a_full_one() {
        let mut history = History::default();
        assert_eq!(ok_line(&history), "ok: 0 records in 0 segments, 0 live transactions, 0 blocks, 0 void");
        let counts = RecordCounts::default();
        let place = SegmentPlace { slot: 3, epoch: 1, used_bytes: 4_096 };
        let none =
            "records: 0 (0 admitted, 0 carried, 0 dropped, 0 opened, 0 placed, 0 closed, 0 sealed, 0 rolled back)";
        check(
            &Report { history: &history, counts, segments: &[place], torn_tail: None },
            &format!(
                "sequences: 0 to 0\n{none}\nlive transactions: 0\nblocks: none\nvoid blocks: 0\ntorn tail: none\nsegments: 1\n  \
                 0: slot 3, epoch 1, 4096 bytes, empty\n"
            ),
        );
        let mut counts = counts;
        let mut record = Vec::new();
        Record::RolledBack { to_block: 1, cause: RollbackCause::Operator }.encode(Sequence(2), &mut record);
        assert_eq!(RecordCounts::of([record.as_slice(), &record]).total(), 2);
        counts.add(&record);
        counts.add(&record[..9]);
        history.first = Sequence(2);
        history.last = Sequence(2);
        history.live.push(LiveTx { name: Sequence(2), admitted: Sequence(2), at: Position::default() });
        history.blocks.push(BlockHistory { number: 7, ..BlockHistory::default() });
        history.segments = vec![SegmentAccount {
            first: Sequence(2),
            last: Sequence(2),
            live_count: 1,
            block_max: Some(7),
            end_max: Sequence(0),
        }];
        assert_eq!(ok_line(&history), "ok: 1 records in 1 segments, 1 live transactions, 1 blocks, 0 void");
        let torn_tail = Some(Position { segment: 0, offset: 8_192 });
        let one = none.replace("records: 0", "records: 1").replace("0 rolled", "1 rolled");
        check(
            &Report { history: &history, counts, segments: &[place], torn_tail },
            &format!(
                "sequences: 2 to 2\n{one}\nlive transactions: 1\nblocks: 1 (7 to 7)\nnewest block: 7, 0 transactions, open\nvoid blocks: 0\n\
                 torn tail: from segment 0 offset 8192\nsegments: 1\n  \
                 0: slot 3, epoch 1, 4096 bytes, sequences 2 to 2, 1 live, blocks up to 7\n"
            ),
        );
    }
}
