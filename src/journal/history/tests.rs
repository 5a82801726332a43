//! Scripts, one line each, and random journals against a model that asks every question of the whole list of records.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::builder::block::BlockContext;
use crate::chain::EndState;
use crate::journal::record::{AdmittedTx, Record, RollbackCause};
use crate::primitives::{Address, Bytes, Fork};

fn tx() -> AdmittedTx<'static> {
    AdmittedTx {
        sender: Address::ZERO,
        accepted_unix_ns: 0,
        authorities: Cow::Borrowed(&[]),
        conditions: None,
        raw: &[0xc0],
    }
}

fn opened(number: u64) -> Record<'static> {
    let context = BlockContext {
        number,
        parent_hash: B256::ZERO,
        timestamp: 0,
        base_fee_per_gas_wei: 0,
        prev_randao: B256::ZERO,
        coinbase: Address::ZERO,
        gas_limit: 0,
        extra_data: Bytes::new(),
        parent_beacon_block_root: B256::ZERO,
        fork: Fork::Osaka,
    };
    Record::Opened { context: Cow::Owned(context), opened_unix_ns: 0 }
}

fn dropped(tx: u64) -> Record<'static> {
    let end = EndState::Dropped { reason: 1 };
    Record::Dropped { tx: Sequence(tx), hash: B256::ZERO, accepted_unix_ns: 0, ended_unix_ns: 0, end }
}

fn placed(tx: u64, index: u32) -> Record<'static> {
    Record::Placed { tx: Sequence(tx), index, preconfirmed_unix_ns: tx }
}

fn closed(number: u64, tx_count: u32) -> Record<'static> {
    Record::Closed { number, tx_count, reason: CloseReason::Full }
}

fn sealed(number: u64) -> Record<'static> {
    let hash = B256::with_last_byte(number as u8);
    Record::Sealed { number, hash, state_root: hash, receipts_root: hash, sealed_unix_ns: number }
}

fn rolled_back(to_block: u64) -> Record<'static> {
    Record::RolledBack { to_block, cause: RollbackCause::Operator }
}

fn carried(previous: u64, admitted: u64) -> Record<'static> {
    Record::Carried { admitted: Sequence(admitted), previous: Sequence(previous), tx: tx() }
}

/// Where a record is, its sequence, and itself.
type Line = (Position, Sequence, Record<'static>);

fn read(lines: &[Line]) -> Result<History, HistoryError> {
    let encoded: Vec<(Position, Vec<u8>)> = lines
        .iter()
        .map(|(at, sequence, record)| {
            let mut bytes = Vec::new();
            record.encode(*sequence, &mut bytes);
            (*at, bytes)
        })
        .collect();
    History::read(encoded.iter().map(|(at, bytes)| (*at, bytes.as_slice())))
}

/// `A` admitted, `C2` or `C5<2` carried (previous, and admitted where it differs), `D2` dropped, `O7` opened, `P2@0` placed, `X7/1` closed
/// with a count, `S7` sealed, `R6` rolled back, `|` next segment. `=9` is the sequence of the next record.
fn script(text: &str) -> Vec<Line> {
    let mut at = Position::default();
    let mut next = 1;
    let mut lines = Vec::new();
    for word in text.split_whitespace() {
        let (kind, rest) = word.split_at(1);
        let mut numbers = rest.split(['<', '@', '/']).filter(|part| !part.is_empty()).map(|part| part.parse().unwrap());
        let (first, second) = (numbers.next().unwrap_or(0), numbers.next());
        let record = match kind {
            "|" => {
                at = Position { segment: at.segment + 1, offset: 0 };
                continue;
            }
            "=" => {
                next = first;
                continue;
            }
            "A" => Record::Admitted(tx()),
            "C" => carried(first, second.unwrap_or(first)),
            "D" => dropped(first),
            "O" => opened(first),
            "P" => placed(first, second.unwrap() as u32),
            "X" => closed(first, second.unwrap() as u32),
            "S" => sealed(first),
            "R" => rolled_back(first),
            _ => panic!("{word}"),
        };
        lines.push((at, Sequence(next), record));
        at.offset += 1;
        next += 1;
    }
    lines
}

/// `live 2 3; 5[1 4]s; void 6[2]`: names in order of arrival, blocks with their transactions, `-` without beginning, `o` open, `c` closed, `s` sealed.
fn told(history: &History) -> String {
    let block = |block: &BlockHistory| {
        let names: Vec<String> = block.placed.iter().map(|placed| placed.tx.0.to_string()).collect();
        let start = if block.opened.is_some() { "" } else { "-" };
        let end = if block.sealed.is_some() { "s" } else { block.closed.map_or("o", |_| "c") };
        format!("{}{start}[{}]{end}", block.number, names.join(" "))
    };
    let mut parts = Vec::new();
    if !history.live.is_empty() {
        let live: Vec<String> = history.live.iter().map(|tx| tx.name.0.to_string()).collect();
        parts.push(format!("live {}", live.join(" ")));
    }
    parts.extend(history.blocks.iter().map(block));
    parts.extend(history.void.iter().map(|void| format!("void {}", block(&void.block))));
    parts.join("; ")
}

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(read(&script(text)).map(|history| told(&history)), Ok(expected.to_owned()), "{text}");
}

/// As [`check`], for a record that does not fit: its sequence and why.
#[track_caller]
fn check_fault(text: &str, sequence: u64, fault: &str) {
    let error = read(&script(text)).expect_err(text);
    assert_eq!((error.sequence, error.fault.to_string().as_str()), (Sequence(sequence), fault), "{text}");
}

#[test]
fn what_records_mean() {
    check("", "");
    check("A A A D2", "live 1 3");
    check("A O1 P1@0 A", "live 4; 1[1]o");
    check("A O1 P1@0 X1/1", "1[1]c");
    check("A A O7 P2@0 P1@1 X7/2 S7 O8 X8/0 S8", "7[2 1]s; 8[]s");
    check("A A C1 A", "live 3 2 4");
    check("A A C1 C3<1 O1 P4@0", "live 2; 1[4]o");
    check("A O1 P1@0 R0", "live 1; void 1[1]o");
    check("A O1 P1@0 X1/1 S1 A O2 P6@0 X2/1 S2 R0 O1 P6@0", "live 1; 1[6]o; void 1[1]s; void 2[6]s");
    check("A O1 P1@0 X1/1 S1 R0 C1 D7 O1", "1[]o; void 1[1]s");
    check("O1 X1/0 S1 O2 R1 R0", "void 2[]o; void 1[]s");
}

#[test]
fn a_beginning_may_be_gone() {
    check("=9 A", "live 9");
    check("=9 A O5", "live 9; 5[]o");
    check_fault("=9 P3@4 P9@5", 10, "names transaction 9, which is no transaction");
    check("=9 A P3@4 P9@5 X5/6 S5 O6", "5-[3 9]s; 6[]o");
    check("=9 X5/6 S5", "5-[]s");
    check("=9 S5 O6 X6/0", "5-[]s; 6[]c");
    check("=9 D4 C5<2", "live 10");
    check("=9 R4 O5", "5[]o");
    check("=9 A P9@2 R4 O5", "live 9; 5[]o");
    check("=9 A P9@2 X7/3 R4 O5", "live 9; 5[]o; void 7-[9]c");
    check("=9 A O7 P9@0 R4 O5", "live 9; 5[]o; void 7[9]o");
    let gone = "the block that was open where the journal begins is not sealed up to here";
    check_fault("=9 P3@4 A", 10, gone);
    check_fault("=9 P3@4 O6", 10, gone);
    check_fault("=9 X5/6 A", 10, gone);
    check_fault("=9 X5/6 O6", 10, "opens block 6 before block 5 is sealed");
    check_fault("=9 P3@4 P4@6", 10, "places transaction 4 at index 6, the next is 5");
    check_fault("=9 P3@4 X5/4", 10, "closes block 5 with 4 transactions, 5 were placed");
    check_fault("=9 C5<6", 9, "carries transaction 5 as admitted with 6, it was with 5");
    check_fault("=9 C5<2 C5<2", 10, "is a second copy of what was admitted with 2");
}

#[test]
fn what_cannot_be() {
    check_fault("A =3 A", 3, "its sequence follows 1");
    check_fault("A =1 A", 1, "its sequence follows 1");
    check_fault("=0 A", 0, "its sequence follows 0");
    check_fault("O1 O2", 2, "opens block 2 while block 1 is open");
    check_fault("O1 X1/0 O2", 3, "opens block 2 before block 1 is sealed");
    check_fault("O1 X1/0 S1 O3", 4, "opens block 3 behind block 1");
    check_fault("O1 X1/0 S1 O1", 4, "opens block 1 behind block 1");
    check_fault(
        "O18446744073709551615 X18446744073709551615/0 S18446744073709551615 O0",
        4,
        "opens block 0 behind block 18446744073709551615",
    );
    check_fault("A P1@0", 2, "places transaction 1 while no block is open");
    check_fault("A O1 X1/0 P1@0", 4, "places transaction 1 while no block is open");
    check_fault("A O1 P1@1", 3, "places transaction 1 at index 1, the next is 0");
    check_fault("A A O1 P1@0 P2@0", 5, "places transaction 2 at index 0, the next is 1");
    check_fault("A O1 P3@0", 3, "names transaction 3, which is not written yet");
    check_fault("A O1 P4@0", 3, "names transaction 4, which is not written yet");
    check_fault("A O1 P2@0", 3, "names transaction 2, which is no transaction");
    check_fault("A O1 P0@0", 3, "names transaction 0, which is no transaction");
    check_fault("A O1 P1@0 P1@1", 4, "names transaction 1, which is in a block");
    check_fault("A D1 O1 P1@0", 4, "names transaction 1, which was dropped");
    check_fault("A C1 O1 P1@0", 4, "names transaction 1, which was carried forward");
    check_fault("A D1 D1", 3, "names transaction 1, which was dropped");
    check_fault("A O1 P1@0 D1", 4, "names transaction 1, which is in a block");
    check_fault("A O1 P1@0 C1", 4, "names transaction 1, which is in a block");
    check_fault("A C1 C1", 3, "names transaction 1, which was carried forward");
    check_fault("A A C2<1", 3, "carries transaction 2 as admitted with 1, it was with 2");
    check_fault("X1/0", 1, "closes block 1 while no block is open");
    check_fault("O1 X1/0 X1/0", 3, "closes block 1 while no block is open");
    check_fault("O1 X2/0", 2, "closes block 2 while block 1 is open");
    check_fault("A O1 P1@0 X1/0", 4, "closes block 1 with 0 transactions, 1 were placed");
    check_fault("O1 X1/1", 2, "closes block 1 with 1 transactions, 0 were placed");
    check_fault("S1", 1, "seals block 1 while no block is closed");
    check_fault("O1 S1", 2, "seals block 1 while no block is closed");
    check_fault("O1 X1/0 S2", 3, "seals block 2 while block 1 is closed");
    check_fault("O1 X1/0 S1 S1", 4, "seals block 1 while no block is closed");
    check_fault("R1", 1, "rolls back to block 1 before there is any");
    check_fault("O1 R1", 2, "rolls back to block 1, the newest is 1");
    check_fault("O1 R2", 2, "rolls back to block 2, the newest is 1");
    check_fault("O5 R3", 2, "rolls back to block 3, the first is 5");
    check_fault("O5 R4 O6", 3, "opens block 6 behind block 4");
    check_fault("O5 R4 R4", 3, "rolls back to block 4, the newest is 4");
}

#[test]
fn a_record_that_does_not_decode_is_named() {
    let mut bytes = Vec::new();
    Record::Admitted(tx()).encode(Sequence(1), &mut bytes);
    let at = Position { segment: 2, offset: 64 };
    let error = History::read([(Position::default(), bytes.as_slice()), (at, &bytes[..30])]).unwrap_err();
    assert_eq!(error.to_string(), "record 2, segment 2 offset 64: record says it has 49 bytes, there are 30");
}

/// What a list of records means, asked question by question.
struct Model<'a> {
    lines: &'a [Line],
    /// First sequence that is not gone.
    first: Sequence,
    by_sequence: HashMap<Sequence, (Position, &'a Record<'static>)>,
    instances: Vec<Instance>,
    moved_or_dropped: HashSet<Sequence>,
}

struct Instance {
    number: u64,
    void_by: Option<Sequence>,
    /// Indexes of its lines.
    records: Vec<usize>,
}

impl<'a> Model<'a> {
    fn new(lines: &'a [Line], first: Sequence) -> Self {
        let mut instances: Vec<Instance> = Vec::new();
        let mut moved_or_dropped = HashSet::new();
        for (index, (_, sequence, record)) in lines.iter().enumerate() {
            match record {
                Record::Opened { context, .. } => {
                    instances.push(Instance { number: context.number, void_by: None, records: vec![index] });
                }
                Record::Placed { .. } | Record::Closed { .. } | Record::Sealed { .. } => {
                    instances.last_mut().unwrap().records.push(index);
                }
                Record::RolledBack { to_block, .. } => {
                    let above = instances.iter_mut().filter(|instance| instance.number > *to_block);
                    above.for_each(|instance| instance.void_by = instance.void_by.or(Some(*sequence)));
                }
                Record::Dropped { tx, .. } => drop(moved_or_dropped.insert(*tx)),
                Record::Carried { previous, .. } => drop(moved_or_dropped.insert(*previous)),
                Record::Admitted(_) => {}
            }
        }
        let by_sequence = lines.iter().map(|(at, sequence, record)| (*sequence, (*at, record))).collect();
        Self { lines, first, by_sequence, instances, moved_or_dropped }
    }

    fn placed_txs<'b>(&'b self, instance: &'b Instance) -> impl Iterator<Item = Sequence> + 'b {
        instance.records.iter().filter_map(|index| match self.lines[*index].2 {
            Record::Placed { tx, .. } => Some(tx),
            _ => None,
        })
    }

    fn live(&self) -> Vec<LiveTx> {
        let in_blocks: HashSet<Sequence> = self
            .instances
            .iter()
            .filter(|instance| instance.void_by.is_none())
            .flat_map(|instance| self.placed_txs(instance))
            .collect();
        let mut live: Vec<LiveTx> = self
            .lines
            .iter()
            .filter(|(_, name, _)| !in_blocks.contains(name) && !self.moved_or_dropped.contains(name))
            .filter_map(|(at, name, record)| match record {
                Record::Admitted(_) => Some(LiveTx { name: *name, admitted: *name, at: *at }),
                Record::Carried { admitted, .. } => Some(LiveTx { name: *name, admitted: *admitted, at: *at }),
                _ => None,
            })
            .collect();
        live.sort_by_key(|tx| tx.admitted);
        live
    }

    /// What is left of an instance; `None` when nothing is, or not its number.
    fn block(&self, instance: &Instance) -> Option<BlockHistory> {
        let mut block = BlockHistory { number: instance.number, ..BlockHistory::default() };
        let mut is_numbered = false;
        for (at, sequence, record) in instance.records.iter().map(|index| &self.lines[*index]) {
            if *sequence < self.first {
                continue;
            }
            is_numbered |= !matches!(record, Record::Placed { .. });
            match record {
                Record::Opened { .. } => block.opened = Some((*sequence, *at)),
                Record::Placed { tx, index, preconfirmed_unix_ns } => block.placed.push(Placed {
                    sequence: *sequence,
                    tx: *tx,
                    at: Some(self.by_sequence[tx].0).filter(|_| *tx >= self.first),
                    index: *index,
                    preconfirmed_unix_ns: *preconfirmed_unix_ns,
                }),
                Record::Closed { tx_count, reason, .. } => {
                    block.closed = Some(ClosedBlock { sequence: *sequence, tx_count: *tx_count, reason: *reason });
                }
                Record::Sealed { hash, sealed_unix_ns, .. } => {
                    block.sealed = Some(SealedHash {
                        sequence: *sequence,
                        hash: *hash,
                        state_root: *hash,
                        receipts_root: *hash,
                        sealed_unix_ns: *sealed_unix_ns,
                    });
                }
                _ => unreachable!(),
            }
        }
        is_numbered.then_some(block)
    }

    fn history(&self) -> History {
        let kept = || self.lines.iter().filter(|(_, sequence, _)| *sequence >= self.first);
        let blocks = |is_void: bool| {
            self.instances
                .iter()
                .filter(move |instance| instance.void_by.is_some() == is_void)
                .filter_map(|instance| Some((instance.void_by, self.block(instance)?)))
        };
        let mut void: Vec<VoidBlock> = blocks(true).map(|(by, block)| VoidBlock { by: by.unwrap(), block }).collect();
        void.sort_by_key(|void| (void.by, void.block.number));
        let live = self.live();
        let segment_count = kept().last().map_or(0, |(at, _, _)| at.segment + 1);
        History {
            first: kept().next().map_or(Sequence(0), |line| line.1),
            last: kept().last().map_or(Sequence(0), |line| line.1),
            blocks: blocks(false).map(|(_, block)| block).collect(),
            void,
            ends: kept().filter(|line| matches!(line.2, Record::Dropped { .. })).map(|line| (line.1, line.0)).collect(),
            segments: (0..segment_count).map(|segment| self.account(segment, &live)).collect(),
            live,
        }
    }

    fn account(&self, segment: u32, live: &[LiveTx]) -> SegmentAccount {
        let is_here = |sequence: Sequence| sequence >= self.first && self.by_sequence[&sequence].0.segment == segment;
        let here = || self.lines.iter().filter(|line| is_here(line.1));
        let has_block = |instance: &&Instance| {
            instance
                .records
                .iter()
                .map(|index| &self.lines[*index])
                .filter(|line| line.1 >= self.first)
                .any(|line| is_here(line.1) || matches!(line.2, Record::Placed { tx, .. } if is_here(tx)))
        };
        let numbered = self.instances.iter().filter(|instance| self.block(instance).is_some());
        let ends = here().filter(|line| matches!(line.2, Record::Dropped { .. }));
        SegmentAccount {
            first: here().next().map_or(Sequence(0), |line| line.1),
            last: here().last().map_or(Sequence(0), |line| line.1),
            live_count: live.iter().filter(|tx| tx.at.segment == segment).count() as u64,
            block_max: numbered.filter(has_block).map(|instance| instance.number).max(),
            end_max: ends.last().map_or(Sequence(0), |line| line.1),
        }
    }

    /// Whether everything before `first` could have been used again.
    fn may_begin_at(&self, first: Sequence) -> bool {
        let kept = self.instances.iter().filter(|instance| instance.void_by.is_none());
        let is_sealed = |instance: &&Instance| {
            instance.records.iter().any(|index| matches!(self.lines[*index].2, Record::Sealed { .. }))
        };
        let newest_sealed = kept.filter(is_sealed).map(|instance| instance.number).max();
        let is_behind = |instance: &Instance| {
            let records = instance.records.iter().map(|index| self.lines[*index].1);
            let is_needed = records.chain(self.placed_txs(instance)).any(|sequence| sequence < first);
            !is_needed || newest_sealed >= Some(instance.number)
        };
        self.live().iter().all(|tx| tx.name >= first) && self.instances.iter().all(is_behind)
    }
}

/// A valid journal out of random numbers: what to do, and with what.
fn journal(steps: &[(u8, u16)], base: u64) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut at = Position::default();
    let mut live: Vec<(u64, u64)> = Vec::new(); // name, admitted
    let mut blocks: Vec<Vec<(u64, u64)>> = Vec::new();
    let mut stage = 0; // 0 between, 1 open, 2 closed
    for (step, pick) in steps {
        let sequence = lines.len() as u64 + 1;
        let picked = (!live.is_empty()).then(|| usize::from(*pick) % live.len().max(1));
        let newest = base + blocks.len() as u64 - 1;
        let record = match (step % 32, picked) {
            (0..10, _) => {
                live.push((sequence, sequence));
                Record::Admitted(tx())
            }
            (10..12, Some(picked)) => {
                let (previous, admitted) = live[picked];
                live[picked].0 = sequence;
                carried(previous, admitted)
            }
            (12..14, Some(picked)) => dropped(live.swap_remove(picked).0),
            (14..24, Some(picked)) if stage == 1 => {
                let tx = live.swap_remove(picked);
                let block = blocks.last_mut().unwrap();
                block.push(tx);
                placed(tx.0, block.len() as u32 - 1)
            }
            (14..29, _) if stage == 0 => {
                stage = 1;
                blocks.push(Vec::new());
                opened(newest + 1)
            }
            (24..27, _) if stage == 1 => {
                stage = 2;
                closed(newest, blocks.last().unwrap().len() as u32)
            }
            (14..29, _) if stage == 2 => {
                stage = 0;
                sealed(newest)
            }
            (29, _) if !blocks.is_empty() && pick % 2 == 0 => {
                stage = 0;
                let kept = usize::from(pick / 2) % blocks.len();
                live.extend(blocks.drain(kept..).flatten());
                rolled_back(base + kept as u64 - 1)
            }
            (30, _) => {
                at = Position { segment: at.segment + 1, offset: 0 };
                continue;
            }
            _ => continue,
        };
        lines.push((at, Sequence(sequence), record));
        at.offset += 1;
    }
    lines
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn as_the_model_says(steps in vec(any::<(u8, u16)>(), 0..250), base in 1_u64..4) {
        let lines = journal(&steps, base);
        prop_assert_eq!(read(&lines).unwrap(), Model::new(&lines, Sequence(1)).history());
        // Every beginning that retention allows, its segments counted from 0.
        for at in 1..lines.len() {
            let (begin, first, _) = lines[at];
            if lines[at - 1].0.segment == begin.segment || !Model::new(&lines, first).may_begin_at(first) {
                continue;
            }
            let shifted: Vec<Line> = lines
                .iter()
                .map(|(at, sequence, record)| {
                    let segment = at.segment.wrapping_sub(begin.segment);
                    (Position { segment, ..*at }, *sequence, record.clone())
                })
                .collect();
            prop_assert_eq!(read(&shifted[at..]).unwrap(), Model::new(&shifted, first).history());
        }
    }

    /// Any order of records is read or refused.
    #[test]
    fn disorder_is_an_error(steps in vec(any::<(u8, u16)>(), 0..80), swaps in vec(any::<(u16, u16)>(), 1..8)) {
        let mut lines = journal(&steps, 1);
        if !lines.is_empty() {
            for (a, b) in swaps {
                let len = lines.len();
                let (a, b) = (usize::from(a) % len, usize::from(b) % len);
                let record = lines[a].2.clone();
                lines[a].2 = std::mem::replace(&mut lines[b].2, record);
            }
        }
        let _ = read(&lines);
        let _ = read(&lines[lines.len() / 2..]);
    }
}
