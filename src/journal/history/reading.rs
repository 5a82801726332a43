//! The pass over the records.

use super::fault::{Fault, HistoryError, NameState};
use super::{BlockHistory, ClosedBlock, History, LiveTx, Placed, Position, SealedHash, SegmentAccount, VoidBlock};
use crate::journal::record::Record;
use crate::primitives::Sequence;

/// What a sequence names.
#[derive(Clone, Copy)]
struct Name {
    admitted: Sequence,
    at: Position,
    state: NameState,
}

/// What a block record may be now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The journal's beginning is gone and no block record was seen yet: anything.
    Unknown,
    /// `Opened` of the next number.
    Between,
    /// `Placed` or `Closed` of the newest block.
    Open,
    /// `Sealed` of the newest block.
    Closed,
}

/// What is known up to a record.
struct Reading {
    history: History,
    /// By sequence, from `history.first`.
    names: Vec<Name>,
    stage: Stage,
    /// Newest block that is not void, or what was rolled back to.
    newest: Option<u64>,
    /// First block of a journal that has its beginning.
    base: Option<u64>,
    /// The newest block is the one that the journal's beginning cuts, and its number is not known yet: segments that will want to know it.
    unnumbered: Option<Vec<u32>>,
}

pub(super) fn read<'a>(records: impl IntoIterator<Item = (Position, &'a [u8])>) -> Result<History, HistoryError> {
    let mut reading = Reading {
        history: History::default(),
        names: Vec::new(),
        stage: Stage::Unknown,
        newest: None,
        base: None,
        unnumbered: None,
    };
    let mut last_at = Position::default();
    for (at, bytes) in records {
        reading.take(at, bytes)?;
        last_at = at;
    }
    let last = reading.history.last;
    reading.finish().map_err(|fault| HistoryError { sequence: last, at: last_at, fault })
}

impl Reading {
    fn take(&mut self, at: Position, bytes: &[u8]) -> Result<(), HistoryError> {
        let previous = self.history.last;
        let next = Sequence(previous.0.saturating_add(1));
        let at_fault = |sequence: Sequence, fault: Fault| HistoryError { sequence, at, fault };
        let (sequence, record) = Record::decode(bytes).map_err(|error| at_fault(next, error.into()))?;
        if self.history.first == Sequence(0) && sequence != Sequence(0) {
            self.history.first = sequence;
            if sequence == Sequence(1) {
                self.stage = Stage::Between;
            }
        } else if sequence != next {
            return Err(at_fault(sequence, Fault::Sequence { previous }));
        }
        self.history.last = sequence;
        let account = self.account(at);
        if account.first == Sequence(0) {
            account.first = sequence;
        }
        account.last = sequence;
        let name = self.apply(sequence, at, &record).map_err(|fault| at_fault(sequence, fault))?;
        self.names.push(name.unwrap_or(Name { admitted: sequence, at, state: NameState::NoTx }));
        Ok(())
    }

    /// Returns what the record is the name of.
    fn apply(&mut self, sequence: Sequence, at: Position, record: &Record<'_>) -> Result<Option<Name>, Fault> {
        match *record {
            Record::Admitted(_) => {
                self.account(at).live_count += 1;
                return Ok(Some(Name { admitted: sequence, at, state: NameState::Live }));
            }
            Record::Carried { admitted, previous, .. } => {
                self.carry(admitted, previous)?;
                self.account(at).live_count += 1;
                return Ok(Some(Name { admitted, at, state: NameState::Live }));
            }
            Record::Dropped { tx, .. } => {
                self.end_live(tx, NameState::Dropped)?;
                self.account(at).end_max = sequence;
                self.history.ends.push((sequence, at));
            }
            Record::Opened { ref context, .. } => self.open(context.number, sequence, at)?,
            Record::Placed { tx, index, preconfirmed_unix_ns } => {
                let placed = Placed { sequence, tx, at: None, index, preconfirmed_unix_ns };
                self.place(placed, at)?;
            }
            Record::Closed { number, tx_count, reason } => {
                self.close(number, ClosedBlock { sequence, tx_count, reason }, at)?;
            }
            Record::Sealed { number, hash, state_root, receipts_root, sealed_unix_ns } => {
                let sealed = SealedHash { sequence, hash, state_root, receipts_root, sealed_unix_ns };
                self.seal(number, sealed, at)?;
            }
            Record::RolledBack { to_block, .. } => self.roll_back(to_block, sequence)?,
        }
        Ok(None)
    }

    fn carry(&mut self, admitted: Sequence, previous: Sequence) -> Result<(), Fault> {
        let carried = self.end_live(previous, NameState::Carried)?;
        let expected = carried.map_or(admitted.min(previous), |name| name.admitted);
        if admitted != expected || admitted == Sequence(0) {
            return Err(Fault::CarriedOrder { previous, admitted, expected });
        }
        Ok(())
    }

    fn open(&mut self, number: u64, sequence: Sequence, at: Position) -> Result<(), Fault> {
        let current = self.newest.unwrap_or_default();
        match self.stage {
            _ if self.unnumbered.is_some() => return Err(Fault::Unsealed),
            Stage::Open => return Err(Fault::OpenedOverOpen { number, open: current }),
            Stage::Closed => return Err(Fault::OpenedUnsealed { number, closed: current }),
            Stage::Unknown | Stage::Between => {}
        }
        if let Some(previous) = self.newest.filter(|previous| previous.checked_add(1) != Some(number)) {
            return Err(Fault::OpenedNumber { number, previous });
        }
        self.history.blocks.push(BlockHistory { number, opened: Some((sequence, at)), ..BlockHistory::default() });
        self.newest = Some(number);
        if self.history.first == Sequence(1) {
            self.base.get_or_insert(number);
        }
        self.stage = Stage::Open;
        self.account(at).raise_block(number);
        Ok(())
    }

    fn place(&mut self, mut placed: Placed, at: Position) -> Result<(), Fault> {
        let tx = placed.tx;
        match self.stage {
            Stage::Open => {
                let expected = self.placed_count();
                if u64::from(placed.index) != expected {
                    return Err(Fault::PlacedIndex { tx, index: placed.index, expected });
                }
            }
            Stage::Unknown => {
                self.history.blocks.push(BlockHistory::default());
                self.unnumbered = Some(Vec::new());
                self.stage = Stage::Open;
            }
            Stage::Between | Stage::Closed => return Err(Fault::PlacedUnopened { tx }),
        }
        placed.at = self.end_live(tx, NameState::Placed)?.map(|name| name.at);
        self.touch(at);
        if let Some(at) = placed.at {
            self.touch(at);
        }
        self.current().placed.push(placed);
        Ok(())
    }

    fn close(&mut self, number: u64, closed: ClosedBlock, at: Position) -> Result<(), Fault> {
        let placed = self.placed_count();
        match (self.stage, self.newest) {
            (Stage::Unknown, _) => self.history.blocks.push(BlockHistory { number, ..BlockHistory::default() }),
            (Stage::Open, Some(open)) if open != number => return Err(Fault::ClosedNumber { number, open }),
            (Stage::Open, _) if u64::from(closed.tx_count) != placed => {
                return Err(Fault::ClosedCount { number, tx_count: closed.tx_count, placed });
            }
            (Stage::Open, _) => {}
            (Stage::Between | Stage::Closed, _) => return Err(Fault::ClosedUnopened { number }),
        }
        self.newest = Some(number);
        self.stage = Stage::Closed;
        self.current().number = number;
        self.current().closed = Some(closed);
        for segment in self.unnumbered.take().unwrap_or_default() {
            self.account(Position { segment, offset: 0 }).raise_block(number);
        }
        self.touch(at);
        Ok(())
    }

    fn seal(&mut self, number: u64, sealed: SealedHash, at: Position) -> Result<(), Fault> {
        match (self.stage, self.newest) {
            (Stage::Unknown, _) => self.history.blocks.push(BlockHistory { number, ..BlockHistory::default() }),
            (Stage::Closed, Some(closed)) if closed != number => return Err(Fault::SealedNumber { number, closed }),
            (Stage::Closed, _) => {}
            (Stage::Between | Stage::Open, _) => return Err(Fault::SealedUnclosed { number }),
        }
        self.newest = Some(number);
        self.stage = Stage::Between;
        self.current().sealed = Some(sealed);
        self.touch(at);
        Ok(())
    }

    fn roll_back(&mut self, to_block: u64, by: Sequence) -> Result<(), Fault> {
        if let Some(newest) = self.newest.filter(|newest| to_block >= *newest) {
            return Err(Fault::RolledBackAbove { to_block, newest });
        }
        if self.stage == Stage::Between && self.newest.is_none() {
            return Err(Fault::RolledBackNothing { to_block });
        }
        if let Some(first) = self.base.filter(|first| to_block.saturating_add(1) < *first) {
            return Err(Fault::RolledBackBelow { to_block, first });
        }
        // The unnumbered block is the first one: when it is there, nothing else is.
        let is_unnumbered = self.unnumbered.take().is_some();
        let blocks = &mut self.history.blocks;
        let kept = if is_unnumbered { 0 } else { blocks.partition_point(|block| block.number <= to_block) };
        let void = blocks.split_off(kept);
        for placed in void.iter().flat_map(|block| &block.placed) {
            if let Some(at) = placed.at {
                self.name(placed.tx).expect("what has a position is in the table").state = NameState::Live;
                self.account(at).live_count += 1;
            }
        }
        if !is_unnumbered {
            self.history.void.extend(void.into_iter().map(|block| VoidBlock { by, block }));
        }
        self.newest = Some(to_block);
        self.stage = Stage::Between;
        Ok(())
    }

    fn finish(mut self) -> Result<History, Fault> {
        // A block that is cut by the journal's beginning was sealed before its segment was used again.
        let is_cut = |block: &BlockHistory| block.opened.is_none() && block.sealed.is_none();
        if self.history.blocks.first().is_some_and(is_cut) {
            return Err(Fault::Unsealed);
        }
        let first = self.history.first.0;
        let live = self.names.iter().zip(first..).filter(|(name, _)| name.state == NameState::Live);
        self.history.live.extend(live.map(|(name, sequence)| LiveTx {
            name: Sequence(sequence),
            admitted: name.admitted,
            at: name.at,
        }));
        self.history.live.sort_unstable_by_key(|tx| tx.admitted);
        let twice = self.history.live.windows(2).find(|pair| pair[0].admitted == pair[1].admitted);
        if let Some([tx, _]) = twice {
            return Err(Fault::LiveTwice { admitted: tx.admitted });
        }
        Ok(self.history)
    }

    /// What `tx` names, now in another state; `None` when its segment is gone.
    fn end_live(&mut self, tx: Sequence, state: NameState) -> Result<Option<Name>, Fault> {
        if tx >= self.history.last {
            return Err(Fault::NotLive { tx, state: NameState::Later });
        }
        if tx == Sequence(0) {
            return Err(Fault::NotLive { tx, state: NameState::NoTx });
        }
        let Some(name) = self.name(tx) else { return Ok(None) };
        if name.state != NameState::Live {
            return Err(Fault::NotLive { tx, state: name.state });
        }
        name.state = state;
        let name = *name;
        let account = self.account(name.at);
        assert!(account.live_count > 0, "a live transaction is counted where its bytes are");
        account.live_count -= 1;
        Ok(Some(name))
    }

    fn name(&mut self, tx: Sequence) -> Option<&mut Name> {
        let index = tx.0.checked_sub(self.history.first.0)?;
        self.names.get_mut(usize::try_from(index).ok()?)
    }

    fn account(&mut self, at: Position) -> &mut SegmentAccount {
        let index = at.segment as usize;
        if index >= self.history.segments.len() {
            self.history.segments.resize(index + 1, SegmentAccount::default());
        }
        &mut self.history.segments[index]
    }

    /// The segment of `at` holds something of the newest block.
    fn touch(&mut self, at: Position) {
        match &mut self.unnumbered {
            Some(segments) if segments.last() == Some(&at.segment) => {}
            Some(segments) => segments.push(at.segment),
            None => {
                let number = self.current().number;
                self.account(at).raise_block(number);
            }
        }
    }

    fn current(&mut self) -> &mut BlockHistory {
        self.history.blocks.last_mut().expect("a stage with a block has pushed one")
    }

    /// How many transactions the newest block has up to here.
    fn placed_count(&self) -> u64 {
        let last = self.history.blocks.last().and_then(|block| block.placed.last());
        last.map_or(0, |placed| u64::from(placed.index) + 1)
    }
}

impl SegmentAccount {
    fn raise_block(&mut self, number: u64) {
        self.block_max = self.block_max.max(Some(number));
    }
}
