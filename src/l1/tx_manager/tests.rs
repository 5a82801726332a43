//! What each situation leads to, step by step.

use super::types::*;
use super::*;

const GWEI: u128 = 1_000_000_000;

struct Rig {
    manager: TxManager,
    actions: Vec<Action>,
    number: u64,
    base_fee_wei: u64,
    balance_wei: U256,
}

fn hash(number: u64) -> B256 {
    B256::from(U256::from(number + 1))
}

fn payload(id: u64) -> PayloadFacts {
    PayloadFacts { id: PayloadId(id), gas: 1_000_000, bytes: 100_000 }
}

impl Rig {
    fn new(settings: Settings, records: &[Record]) -> Self {
        Self {
            manager: TxManager::restore(settings, records.iter().copied()),
            actions: Vec::new(),
            number: 100,
            base_fee_wei: GWEI as u64,
            balance_wei: U256::MAX,
        }
    }

    /// An account that has used nonces below 5, at its first head, with its first payload in a block.
    fn proven() -> Self {
        let mut rig = Self::new(Settings::default(), &[]);
        rig.head(5, 5);
        rig.step(Event::Payload(payload(0)));
        let attempt = rig.journal_all()[0];
        rig.block(vec![mined(&attempt, true)]);
        rig.head(6, 6);
        rig.actions.clear();
        rig
    }

    fn step(&mut self, event: Event) {
        self.manager.step(event, self.number, &mut self.actions);
    }

    fn id(&self) -> BlockId {
        BlockId { number: self.number, hash: hash(self.number) }
    }

    fn block(&mut self, ours: Vec<MinedTx>) {
        self.number += 1;
        let view = BlockView { id: self.id(), timestamp: self.number * 12, base_fee_wei: self.base_fee_wei, ours };
        self.step(Event::Block(view));
    }

    fn at_head(&mut self, nonce: u64, nonce_pending: u64) {
        let (block, balance_wei) = (self.id(), self.balance_wei);
        let nonce_final = nonce;
        self.step(Event::Head(HeadView {
            block,
            nonce,
            nonce_pending,
            nonce_final,
            balance_wei,
            is_confirmed: true,
            tip_wei: GWEI,
        }));
    }

    /// A block without transactions of ours, and the head on it.
    fn head(&mut self, nonce: u64, nonce_pending: u64) {
        self.block(Vec::new());
        self.at_head(nonce, nonce_pending);
    }

    /// Signs and journals what is asked for; sends what may be sent. The attempts, in order.
    fn journal_all(&mut self) -> Vec<Attempt> {
        let mut signed = Vec::new();
        while let Some(index) = self
            .actions
            .iter()
            .position(|action| matches!(action, Action::Sign(_) | Action::JournalSigned(_) | Action::Send { .. }))
        {
            match self.actions.remove(index) {
                Action::Sign(attempt) => {
                    signed.push(attempt);
                    self.step(Event::Signed { attempt: attempt.id, hash: hash(1_000 + attempt.id) });
                }
                Action::JournalSigned(record) => self.step(Event::Journaled { attempt: record.attempt.id }),
                Action::Send { attempt, .. } => self.step(Event::Sent { attempt, outcome: SendOutcome::Accepted }),
                _ => {}
            }
        }
        signed
    }

    fn condition(&self) -> Condition {
        self.manager.status().condition
    }

    fn has(&mut self, what: impl Fn(&Action) -> bool) -> bool {
        let found = self.actions.iter().any(what);
        self.actions.clear();
        found
    }
}

fn mined(attempt: &Attempt, success: bool) -> MinedTx {
    MinedTx { hash: hash(1_000 + attempt.id), nonce: attempt.nonce, success, cost_wei: U256::from(7) }
}

#[test]
fn nothing_is_sent_before_it_is_durable() {
    let mut rig = Rig::proven();
    rig.step(Event::Payload(payload(1)));
    let [Action::Sign(attempt)] = rig.actions[..] else { panic!("{:?}", rig.actions) };
    assert_eq!((attempt.nonce, attempt.fee_cap_wei, attempt.tip_cap_wei), (6, 3 * GWEI, GWEI));
    rig.actions.clear();
    rig.step(Event::Signed { attempt: attempt.id, hash: hash(9) });
    assert!(matches!(rig.actions[..], [Action::JournalSigned(SignedRecord { above: 0, .. })]));
    rig.head(6, 6);
    assert!(!rig.has(|action| matches!(action, Action::Send { .. })));
    rig.step(Event::Journaled { attempt: attempt.id });
    assert_eq!(rig.actions, [Action::Send { attempt: attempt.id, hash: hash(9) }]);
}

#[test]
fn one_alone_after_a_start_then_several() {
    let mut rig = Rig::new(Settings::default(), &[]);
    (0..9).for_each(|id| rig.step(Event::Payload(payload(id))));
    rig.head(5, 5);
    let signed = rig.journal_all();
    assert_eq!(signed.iter().map(|attempt| attempt.nonce).collect::<Vec<_>>(), [5]);
    rig.block(vec![mined(&signed[0], true)]);
    rig.at_head(6, 6);
    assert_eq!(rig.journal_all().iter().map(|attempt| attempt.nonce).collect::<Vec<_>>(), [6, 7, 8, 9]);
    assert_eq!(rig.manager.status().waiting, 4);
}

#[test]
fn a_stuck_transaction_is_signed_again_with_a_tenth_more() {
    let mut rig = Rig::proven();
    rig.step(Event::Payload(payload(1)));
    let first = rig.journal_all()[0];
    rig.head(6, 7);
    rig.head(6, 7);
    assert_eq!(rig.journal_all(), []);
    rig.head(6, 7);
    let second = rig.journal_all()[0];
    assert_eq!((second.nonce, second.payload), (first.nonce, first.payload));
    assert!(second.fee_cap_wei * 10 > first.fee_cap_wei * 11 && second.tip_cap_wei * 10 > first.tip_cap_wei * 11);
    // Either may get the block.
    rig.block(vec![mined(&first, true)]);
    assert!(rig.has(|action| matches!(action, Action::Report(Report::Included { nonce: 6, .. }))));
}

#[test]
fn a_fee_spike_is_followed_up_to_the_limit_of_one_transaction() {
    let mut rig = Rig::proven();
    rig.step(Event::Payload(payload(1)));
    rig.journal_all();
    rig.base_fee_wei = 10 * GWEI as u64;
    rig.head(6, 7);
    assert_eq!(rig.journal_all()[0].fee_cap_wei, 21 * GWEI);
    // One ether over a million gas are a thousand gwei.
    rig.base_fee_wei = 2_000 * GWEI as u64;
    rig.head(6, 7);
    rig.step(Event::Payload(payload(2)));
    rig.head(6, 7);
    assert_eq!(rig.journal_all(), []);
    assert!(matches!(rig.condition(), Condition::FeeLimit { fee_cap_wei_max, .. } if fee_cap_wei_max == 1_000 * GWEI));
    rig.base_fee_wei = GWEI as u64;
    rig.head(6, 7);
    assert_eq!(rig.condition(), Condition::Ready);
}

#[test]
fn what_falls_out_is_sent_again_as_it_is() {
    let mut rig = Rig::proven();
    rig.step(Event::Payload(payload(1)));
    let attempt = rig.journal_all()[0];
    rig.block(vec![mined(&attempt, true)]);
    let to = rig.number - 1;
    rig.step(Event::Rewind { to });
    assert!(rig.has(|action| matches!(action, Action::Report(Report::FellOut { nonce: 6, .. }))));
    rig.number = to;
    rig.head(6, 6);
    assert!(rig.has(|action| *action == Action::Send { attempt: attempt.id, hash: hash(1_000 + attempt.id) }));
}

#[test]
fn the_second_of_two_processes_stops() {
    let mut rig = Rig::proven();
    rig.step(Event::Payload(payload(1)));
    rig.journal_all();
    let stranger = MinedTx { hash: hash(7), nonce: 6, success: true, cost_wei: U256::ZERO };
    rig.block(vec![stranger]);
    assert_eq!(rig.condition(), Condition::Halted(HaltReason::NonceTaken { nonce: 6, by: Some(hash(7)) }));
    rig.actions.clear();
    (2..5).for_each(|id| rig.step(Event::Payload(payload(id))));
    rig.head(7, 7);
    assert_eq!(rig.journal_all(), []);
    // Its end is recorded all the same: the next start goes on behind it.
    let number = rig.number;
    rig.step(Event::Finalized { number });
    let records = rig.actions.iter().filter_map(|action| match action {
        Action::JournalDone(record) => Some(Record::Done(*record)),
        _ => None,
    });
    let records = records.collect::<Vec<_>>();
    assert!(matches!(records[1], Record::Done(DoneRecord { fate: Fate::Taken, nonce: 6, .. })));
    let mut next = Rig::new(Settings::default(), &records);
    next.step(Event::Payload(payload(9)));
    next.head(7, 7);
    assert_eq!(next.journal_all()[0].nonce, 7);
}

#[test]
fn a_nonce_that_no_block_explains_stops_it_at_the_second_head() {
    let mut rig = Rig::proven();
    rig.step(Event::Payload(payload(1)));
    rig.journal_all();
    rig.head(7, 7);
    assert_eq!(rig.condition(), Condition::Ready);
    rig.at_head(7, 7);
    assert_eq!(rig.condition(), Condition::Ready);
    rig.head(7, 7);
    assert_eq!(rig.condition(), Condition::Halted(HaltReason::NonceTaken { nonce: 6, by: None }));
}

/// One endpoint of several names a nonce that nobody else knows: nothing is signed under it, and nothing stops for it.
#[test]
fn the_word_of_one_endpoint_fixes_no_nonce() {
    let mut rig = Rig::new(Settings::default(), &[]);
    rig.step(Event::Payload(payload(0)));
    let head = |nonce, is_confirmed, rig: &mut Rig| {
        rig.block(Vec::new());
        let (block, balance_wei, nonce_pending, nonce_final) = (rig.id(), rig.balance_wei, nonce, nonce);
        rig.step(Event::Head(HeadView {
            block,
            nonce,
            nonce_pending,
            nonce_final,
            balance_wei,
            is_confirmed,
            tip_wei: GWEI,
        }));
    };
    for _ in 0..4 {
        head(1_000, false, &mut rig);
        assert_eq!(rig.condition(), Condition::Unconfirmed { nonce: 1_000 });
    }
    assert_eq!(rig.journal_all(), []);
    head(5, true, &mut rig);
    let attempt = rig.journal_all()[0];
    assert_eq!(attempt.nonce, 5);
    // One alone goes on with what is known, and a false alarm of one halts nothing.
    rig.block(vec![mined(&attempt, true)]);
    rig.step(Event::Payload(payload(1)));
    for _ in 0..4 {
        head(1_000, false, &mut rig);
    }
    assert_eq!(rig.journal_all()[0].nonce, 6);
    head(1_000, true, &mut rig);
    head(1_000, true, &mut rig);
    assert_eq!(rig.condition(), Condition::Halted(HaltReason::NonceTaken { nonce: 6, by: None }));
}

/// Endpoints need longer for the account than L1 for a block: every answer is of an older block, and is used.
#[test]
fn an_answer_that_comes_blocks_later_counts() {
    let mut rig = Rig::new(Settings::default(), &[]);
    rig.step(Event::Payload(payload(0)));
    let late = |block, nonce, balance_wei| {
        let (nonce_pending, nonce_final, is_confirmed, tip_wei) = (nonce, nonce, true, GWEI);
        Event::Head(HeadView { block, nonce, nonce_pending, nonce_final, balance_wei, is_confirmed, tip_wei })
    };
    rig.block(Vec::new());
    let asked = rig.id();
    (0..3).for_each(|_| rig.block(Vec::new()));
    rig.step(late(asked, 5, U256::MAX));
    let attempt = rig.journal_all()[0];
    assert_eq!(attempt.nonce, 5);
    // Before the block with our first: its cost is not taken from the balance yet.
    let asked = rig.id();
    rig.block(vec![mined(&attempt, true)]);
    rig.step(Event::Payload(payload(1)));
    let cost_wei = U256::from(3 * GWEI * 1_000_000);
    rig.step(late(asked, 5, cost_wei + cost_wei - U256::from(1)));
    assert!(matches!(rig.condition(), Condition::OutOfFunds { .. }), "{:?}", rig.condition());
    rig.step(late(asked, 5, cost_wei + cost_wei));
    assert_eq!(rig.journal_all()[0].nonce, 6);
    // Of a block that is gone nothing counts, nor at a start what is older than a transaction of the key.
    let gone = rig.id();
    rig.step(Event::Rewind { to: rig.number - 1 });
    rig.number += 10;
    rig.step(Event::Block(BlockView { id: rig.id(), timestamp: 1, base_fee_wei: GWEI as u64, ours: Vec::new() }));
    rig.step(late(gone, 1_000, U256::MAX));
    assert_eq!(rig.manager.head, None);
    let mut rig = Rig::new(Settings::default(), &[]);
    rig.step(Event::Payload(payload(0)));
    rig.block(Vec::new());
    let asked = rig.id();
    rig.block(vec![mined(&attempt, true)]);
    rig.step(late(asked, 5, U256::MAX));
    assert_eq!(rig.journal_all(), []);
    rig.at_head(6, 6);
    assert_eq!(rig.journal_all()[0].nonce, 6);
}

#[test]
fn a_key_in_use_is_waited_for_at_the_start() {
    let mut rig = Rig::new(Settings::default(), &[]);
    rig.step(Event::Payload(payload(0)));
    rig.head(5, 7);
    assert_eq!(rig.condition(), Condition::KeyInUse { nonce: 5, nonce_pending: 7 });
    assert_eq!(rig.journal_all(), []);
    // It has its block, which may go again.
    rig.block(Vec::new());
    let head = |nonce_final, rig: &Rig| {
        let (block, balance_wei) = (rig.id(), rig.balance_wei);
        Event::Head(HeadView {
            block,
            nonce: 7,
            nonce_pending: 7,
            nonce_final,
            balance_wei,
            is_confirmed: true,
            tip_wei: GWEI,
        })
    };
    let event = head(5, &rig);
    rig.step(event);
    assert_eq!(rig.condition(), Condition::KeyInUse { nonce: 7, nonce_pending: 7 });
    let event = head(7, &rig);
    rig.step(event);
    assert_eq!(rig.journal_all()[0].nonce, 7);
}

#[test]
fn out_of_funds_is_told_and_ends_by_itself() {
    let mut rig = Rig::proven();
    rig.balance_wei = U256::from(3 * GWEI * 1_000_000 - 1);
    rig.head(6, 6);
    rig.step(Event::Payload(payload(1)));
    let needed_wei = U256::from(3 * GWEI * 1_000_000);
    assert_eq!(rig.condition(), Condition::OutOfFunds { needed_wei, balance_wei: rig.balance_wei });
    assert_eq!(rig.journal_all(), []);
    rig.balance_wei = needed_wei;
    rig.head(6, 6);
    assert_eq!((rig.journal_all().len(), rig.condition()), (1, Condition::Ready));
}

#[test]
fn the_limit_of_an_hour_survives_a_restart() {
    let settings = Settings { hour_cost_wei_max: U256::from(4 * GWEI * 1_000_000), ..Settings::default() };
    let done = DoneRecord {
        nonce: 5,
        payload: Some(PayloadId(0)),
        fate: Fate::Succeeded,
        hash: hash(0),
        cost_wei: U256::from(2 * GWEI * 1_000_000),
        block: BlockId::default(),
        timestamp: 100 * 12,
    };
    let mut rig = Rig::new(settings, &[Record::Done(done)]);
    rig.step(Event::Payload(payload(0)));
    assert_eq!(rig.manager.status().waiting, 0, "its end is recorded");
    rig.step(Event::Payload(payload(1)));
    rig.head(6, 6);
    assert!(matches!(rig.condition(), Condition::SpendLimit { .. }));
    assert_eq!(rig.journal_all(), []);
    rig.number += 300;
    rig.head(6, 6);
    assert_eq!((rig.journal_all().len(), rig.condition()), (1, Condition::Ready));
}

#[test]
fn a_failed_payload_holds_everything_until_it_is_withdrawn() {
    let mut rig = Rig::proven();
    rig.step(Event::Payload(payload(1)));
    let attempt = rig.journal_all()[0];
    rig.step(Event::Payload(payload(2)));
    rig.journal_all();
    rig.block(vec![mined(&attempt, false)]);
    assert!(rig.has(|action| matches!(action, Action::Report(Report::Failed { payload: PayloadId(1), .. }))));
    rig.step(Event::Payload(payload(3)));
    rig.at_head(7, 8);
    assert_eq!(rig.condition(), Condition::PayloadFailed { payload: PayloadId(1) });
    assert_eq!(rig.journal_all(), []);
    rig.step(Event::Withdraw { from: PayloadId(1), to: PayloadId(3) });
    rig.step(Event::Payload(payload(4)));
    assert_eq!(rig.journal_all()[0].payload.id, PayloadId(4));
    // The one that was sent holds a nonce, and its bytes are needed.
    assert!(rig.manager.held_payloads().any(|id| id == PayloadId(2)));
}

#[test]
fn a_withdrawn_payload_that_was_never_journaled_gives_its_nonce_back() {
    let mut rig = Rig::proven();
    rig.step(Event::Payload(payload(1)));
    let [Action::Sign(attempt)] = rig.actions[..] else { panic!("{:?}", rig.actions) };
    rig.actions.clear();
    rig.step(Event::Withdraw { from: PayloadId(1), to: PayloadId(1) });
    rig.step(Event::Signed { attempt: attempt.id, hash: hash(0) });
    assert_eq!(rig.actions, []);
    rig.step(Event::Payload(payload(2)));
    assert_eq!(rig.journal_all()[0].nonce, attempt.nonce);
}

#[test]
fn l1_away_is_retried_by_time() {
    let mut rig = Rig::proven();
    rig.step(Event::Payload(payload(1)));
    let attempt = {
        let [Action::Sign(attempt)] = rig.actions[..] else { panic!("{:?}", rig.actions) };
        rig.step(Event::Signed { attempt: attempt.id, hash: hash(0) });
        rig.step(Event::Journaled { attempt: attempt.id });
        attempt
    };
    rig.step(Event::Sent { attempt: attempt.id, outcome: SendOutcome::Away });
    rig.actions.clear();
    let at_ns = rig.manager.wake_at_ns().expect("it wants to try again");
    rig.manager.step(Event::Tick, at_ns - 1, &mut rig.actions);
    assert_eq!(rig.actions, []);
    rig.manager.step(Event::Tick, at_ns, &mut rig.actions);
    assert_eq!(rig.actions, [Action::Send { attempt: attempt.id, hash: hash(0) }]);
}

#[test]
fn a_restart_sends_what_has_no_block_and_knows_where_to_look() {
    let attempt = Attempt { id: 8, payload: payload(3), nonce: 6, tip_cap_wei: GWEI, fee_cap_wei: 3 * GWEI };
    let record = SignedRecord { attempt, hash: hash(77), above: 90 };
    let mut rig = Rig::new(Settings::default(), &[Record::Signed(record)]);
    assert_eq!(rig.manager.resume_from(), Some(91));
    assert_eq!(rig.manager.held_payloads().collect::<Vec<_>>(), [PayloadId(3)]);
    rig.head(6, 7);
    assert!(rig.has(|action| *action == Action::Send { attempt: 8, hash: hash(77) }));
    rig.step(Event::Payload(payload(3)));
    assert_eq!(rig.manager.status().waiting, 0);
}

#[test]
fn nonces_used_while_it_was_away_are_adopted() {
    let mut rig = Rig::proven();
    let number = rig.number;
    rig.step(Event::Finalized { number });
    let [Action::JournalDone(done)] = rig.actions[..] else { panic!("{:?}", rig.actions) };
    let mut rig = Rig::new(Settings::default(), &[Record::Done(done)]);
    rig.head(9, 9);
    assert!(rig.has(|action| *action == Action::Report(Report::Adopted { known: 6, next: 9 })));
    assert_eq!(rig.manager.status().nonce_next, Some(9));
}

#[test]
fn what_is_withdrawn_before_its_signature_comes_gives_its_nonce_back() {
    let mut rig = Rig::proven();
    for id in 1..4 {
        rig.step(Event::Payload(payload(id)));
    }
    let asked: Vec<Attempt> = rig.actions.drain(..).filter_map(sign).collect();
    assert_eq!(asked.iter().map(|attempt| attempt.nonce).collect::<Vec<_>>(), [6, 7, 8]);
    // The first is in the journal, the others are not: their payloads may be forgotten at once.
    let hash = hash(900);
    rig.step(Event::Signed { attempt: asked[0].id, hash });
    rig.step(Event::Journaled { attempt: asked[0].id });
    rig.actions.clear();
    rig.step(Event::Withdraw { from: PayloadId(1), to: PayloadId(3) });
    for late in &asked[1..] {
        rig.step(Event::Signed { attempt: late.id, hash });
    }
    assert!(!rig.actions.iter().any(|action| matches!(action, Action::JournalSigned(_))), "{:?}", rig.actions);
    rig.step(Event::Payload(payload(4)));
    assert_eq!(rig.actions.drain(..).filter_map(sign).map(|attempt| attempt.nonce).collect::<Vec<_>>(), [7]);
}

fn sign(action: Action) -> Option<Attempt> {
    match action {
        Action::Sign(attempt) => Some(attempt),
        _ => None,
    }
}
