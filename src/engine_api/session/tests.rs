//! The session against a client that fails in every way that was seen: rows for each fault, then seeds.

use super::*;
use crate::testing::execution_client::{Damage, FakeClient, Fault, HashChain};
use crate::testing::rng::SimRng;

const MS: u64 = 1_000_000;

fn settings() -> SessionSettings {
    SessionSettings {
        backoff_ns: 100 * MS,
        backoff_ns_max: 5_000 * MS,
        stall_ns: 10_000 * MS,
        new_payload_retries: 3,
        forkchoice_retries: 3,
        read_retries: 3,
    }
}

/// Session and client over simulated time, with the checks that hold at every step.
struct Bench {
    session: Session,
    chain: HashChain,
    client: FakeClient,
    now_ns: u64,
    call: Option<(Call, u64)>,
    checked: u64,
    is_met: bool,
    halted: Option<Halt>,
    stuck_count: u32,
    calls: Vec<Call>,
}

impl Bench {
    fn new(tip: u64) -> Self {
        Self {
            session: Session::new(settings(), 0, 0),
            chain: HashChain { tip, salt: 1, rolled_back_to: None, settled: (0, 0) },
            client: FakeClient::default(),
            now_ns: 0,
            call: None,
            checked: 0,
            is_met: false,
            halted: None,
            stuck_count: 0,
            calls: Vec::new(),
        }
    }

    /// One step of at most `step_ns`; a call in flight takes `latency_ns`.
    fn step(&mut self, step_ns: u64, latency_ns: u64) {
        self.now_ns += step_ns;
        let mut out = Vec::new();
        if let Some((call, due_ns)) = self.call
            && self.now_ns >= due_ns
        {
            self.call = None;
            let answer = self.client.handle(call, &self.chain);
            self.session.answered(answer, self.now_ns, &self.chain, &mut out);
        }
        self.session.tick(self.now_ns, &self.chain, &mut out);
        for action in out {
            match action {
                Action::Call(call) => {
                    assert!(self.call.is_none(), "two calls at once: {:?} and {call:?}", self.call);
                    assert!(self.halted.is_none(), "{call:?} after {:?}", self.halted);
                    self.calls.push(call);
                    self.call = Some((call, self.now_ns + latency_ns));
                }
                Action::Checked { number } => {
                    assert!(self.is_met, "block {number} checked before the client's head was ours");
                    assert!(number > self.checked, "checked went from {} to {number}", self.checked);
                    assert!(
                        number <= self.client.head_max,
                        "block {number} was never head, at most {}",
                        self.client.head_max
                    );
                    assert!(
                        self.client.invalid.is_none_or(|invalid| number < invalid),
                        "INVALID block {number} checked"
                    );
                    self.checked = number;
                }
                Action::Met => assert!(!std::mem::replace(&mut self.is_met, true), "met twice"),
                Action::Halt(halt) => self.halted = Some(halt),
                Action::Stuck { .. } => self.stuck_count += 1,
            }
        }
    }

    /// Steps of 20 ms until `done`, at most `limit_s` of simulated time.
    #[track_caller]
    fn run_until(&mut self, limit_s: u64, done: impl Fn(&Self) -> bool) {
        let end_ns = self.now_ns + limit_s * 1_000 * MS;
        while !done(self) {
            assert!(
                self.now_ns < end_ns,
                "checked {} of {}: {:?}",
                self.checked,
                self.chain.tip,
                self.session.status()
            );
            self.step(20 * MS, 5 * MS);
        }
    }

    #[track_caller]
    fn catches_up(&mut self, limit_s: u64) {
        self.run_until(limit_s, |bench| bench.checked == bench.chain.tip);
        assert_eq!(self.client.head(), self.chain.tip);
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / 20 {
            self.step(20 * MS, 5 * MS);
        }
    }

    fn restart(&mut self) {
        self.session = Session::new(settings(), self.checked, self.now_ns);
        self.call = None;
        self.is_met = false;
    }

    #[track_caller]
    fn check_status(&self, condition: Condition, why: &str) {
        let status = self.session.status();
        assert_eq!((status.condition, status.why.as_str()), (condition, why));
    }
}

#[test]
fn what_l1_has_settled_is_told_without_a_new_block_and_once() {
    let mut bench = Bench::new(5);
    bench.catches_up(30);
    let updates = |bench: &Bench| bench.calls.iter().filter(|call| matches!(call, Call::Forkchoice { .. })).count();
    let before = updates(&bench);
    bench.run(5_000);
    assert_eq!(updates(&bench), before, "nothing is new");
    // More than is sealed never is safe; here L1 speaks of blocks that are being taken back.
    bench.chain.settled = (9, 3);
    bench.run(5_000);
    assert_eq!(updates(&bench), before + 1);
    bench.chain.settled = (5, 5);
    bench.run(5_000);
    assert_eq!(updates(&bench), before + 2);
    bench.chain.tip += 1;
    bench.catches_up(5);
    assert_eq!(updates(&bench), before + 3);
    bench.check_status(Condition::Ready, "");
}

#[test]
fn an_empty_client_is_fed_from_block_one_with_few_forkchoice_updates() {
    let mut bench = Bench::new(60);
    bench.catches_up(30);
    let count = |wanted: fn(&Call) -> bool| bench.calls.iter().filter(|call| wanted(call)).count();
    assert_eq!(count(|call| matches!(call, Call::NewPayload { .. })), 60);
    assert_eq!(count(|call| matches!(call, Call::Forkchoice { .. })), 8);
    bench.check_status(Condition::Ready, "");
    bench.chain.tip += 1;
    bench.catches_up(2);
}

#[test]
fn nothing_is_checked_while_the_client_answers_wrongly_and_everything_afterwards() {
    let faults = [
        (Fault::Down, "fake: connection refused"),
        (Fault::Frozen, "engine_exchangeCapabilities: no answer within 8000 ms"),
        (Fault::Http(401), "HTTP 401: no"),
        (Fault::Http(429), "HTTP 429: no"),
        (Fault::Http(500), "HTTP 500: no"),
        (Fault::NotJson, "engine_exchangeCapabilities: the answer is not JSON: `<html>`"),
    ];
    for (fault, why) in faults {
        let mut bench = Bench::new(5);
        bench.catches_up(10);
        bench.client.fault = fault;
        bench.chain.tip += 20;
        bench.run(60_000);
        assert_eq!(bench.checked, 5, "{fault:?}");
        bench.check_status(Condition::Unreachable, why);
        bench.client.fault = Fault::None;
        bench.catches_up(10);
        bench.check_status(Condition::Ready, "");
    }
}

#[test]
fn a_client_that_syncs_with_others_is_told_of_and_fed_all_the_same() {
    let mut bench = Bench::new(3);
    bench.client.sync = Some(SyncProgress { current: 3, highest: 90 });
    bench.catches_up(10);
    bench.run(6_000);
    assert_eq!(bench.session.status().sync, Some(SyncProgress { current: 3, highest: 90 }));
    bench.chain.tip += 5;
    bench.catches_up(5);
    bench.client.sync = None;
    bench.run(6_000);
    assert_eq!(bench.session.status().sync, None);
    bench.check_status(Condition::Ready, "");
    bench.client.sync_is_nonsense = true;
    bench.chain.tip += 5;
    bench.catches_up(5);
    bench.check_status(Condition::Ready, "");
    let asked = bench.calls.iter().filter(|call| **call == Call::ReadSync).count();
    assert!((2..=5).contains(&asked), "{asked} times in about 13 s");
}

#[test]
fn a_valid_with_another_hash_is_not_believed() {
    let mut bench = Bench::new(3);
    bench.client.fault = Fault::WrongLatestValid;
    bench.run(30_000);
    assert_eq!(bench.checked, 0);
    let expected = format!(
        "VALID to block 1 {} with latestValidHash {}",
        bench.chain.hash(1).unwrap_or_default(),
        B256::repeat_byte(0xee)
    );
    bench.check_status(Condition::Unreachable, &expected);
    bench.client.fault = Fault::None;
    bench.catches_up(10);
}

#[test]
fn a_syncing_client_is_waited_for_then_helped_then_called_stuck() {
    let mut bench = Bench::new(3);
    bench.catches_up(5);
    bench.chain.tip += 5;
    bench.client.fault = Fault::Syncing;
    bench.run(5_000);
    bench.check_status(Condition::Stalled, "SYNCING to block 4, with its head on block 3");
    assert_eq!(bench.session.status().rewind_count, 0);
    bench.run(9_000);
    assert_eq!((bench.session.status().rewind_count, bench.stuck_count), (1, 0));
    bench.run(60_000);
    assert_eq!((bench.session.status().rewind_count, bench.stuck_count), (2, 1));
    bench.client.fault = Fault::None;
    bench.catches_up(20);
    bench.check_status(Condition::Ready, "");
}

#[test]
fn a_client_that_lost_its_state_has_its_head_set_and_is_fed_again() {
    let mut bench = Bench::new(60);
    bench.catches_up(30);
    bench.client.kill(40, Damage::Amnesia);
    bench.chain.tip += 1;
    bench.catches_up(30);
    assert_eq!((bench.session.status().rewind_count, bench.stuck_count), (1, 0));
}

#[test]
fn a_broken_database_is_said_once_and_fed_after_the_wipe() {
    for set_head_offered in [true, false] {
        let mut bench = Bench::new(60);
        bench.client.set_head_offered = set_head_offered;
        bench.catches_up(30);
        bench.client.kill(40, Damage::Broken);
        bench.chain.tip += 1;
        bench.run_until(200, |bench| bench.stuck_count == 1);
        bench.run(60_000);
        assert_eq!(bench.stuck_count, 1);
        assert_eq!(bench.checked, 60);
        bench.client.wipe();
        bench.catches_up(30);
    }
}

#[test]
fn an_invalid_block_halts_and_nothing_above_it_is_asked() {
    let mut bench = Bench::new(10);
    bench.client.invalid = Some(7);
    bench.run(20_000);
    let Some(Halt::Invalid { number, hash, status }) = bench.halted.clone() else { panic!("{:?}", bench.halted) };
    assert_eq!((number, Some(hash)), (7, bench.chain.hash(7)));
    assert_eq!(status.latest_valid_hash, bench.chain.hash(6));
    assert_eq!(bench.checked, 6, "the blocks below it are VALID");
    assert_eq!(bench.session.status().condition, Condition::Halted);
}

#[test]
fn another_chain_is_never_built_beside() {
    let mut bench = Bench::new(30);
    bench.catches_up(30);
    bench.client.diverge(12, 9);
    bench.run_until(10, |bench| bench.halted.is_some());
    assert!(matches!(bench.halted, Some(Halt::Diverged { number: 12, .. })), "{:?}", bench.halted);

    let mut bench = Bench::new(5);
    bench.catches_up(5);
    bench.client.diverge(6, 3);
    bench.run_until(10, |bench| bench.halted.is_some());
    assert!(matches!(bench.halted, Some(Halt::Ahead { ours: 5, .. })), "{:?}", bench.halted);

    let mut bench = Bench::new(5);
    bench.client.diverge(0, 1);
    bench.run(5_000);
    assert_eq!((bench.halted.is_none(), bench.session.status().condition), (true, Condition::Unreachable));
    assert!(bench.session.status().why.starts_with("genesis is 0x"), "{}", bench.session.status().why);
}

#[test]
fn blocks_that_were_rolled_back_are_taken_from_the_client() {
    // Nothing was built since, and something was.
    for tip in [10, 13] {
        let mut bench = Bench::new(30);
        bench.catches_up(30);
        (bench.chain.tip, bench.chain.rolled_back_to, bench.checked) = (tip, Some(10), 10);
        bench.restart();
        bench.run(2_000);
        assert_eq!((bench.halted.clone(), bench.client.head()), (None, tip));
        bench.chain.tip += 5;
        bench.catches_up(5);
        assert_eq!(bench.session.status().rewind_count, 1);
    }
}

#[test]
fn an_idle_clients_restart_is_noticed() {
    let mut bench = Bench::new(20);
    bench.catches_up(10);
    bench.client.kill(10, Damage::None);
    bench.run(3_000);
    assert_eq!(bench.client.head(), 20);
    assert_eq!(bench.session.status().head_number, 20);
}

/// One seed: faults of every kind come and go while blocks are sealed and either side is restarted; then all is well.
fn simulate(seed: u64) {
    let mut rng = SimRng::new(seed);
    let mut bench = Bench::new(rng.below(4));
    for _ in 0..2_000 {
        bench.step((1 + rng.below(80)) * MS, rng.below(400) * MS);
        match rng.below(160) {
            0..20 => bench.chain.tip += 1 + rng.below(3),
            20 => bench.client.fault = Fault::Down,
            21 => bench.client.fault = Fault::Frozen,
            22 => bench.client.fault = Fault::AnswerLost,
            23 => bench.client.fault = Fault::Http([401, 429, 500][rng.below(3) as usize]),
            24 => bench.client.fault = Fault::NotJson,
            25 => bench.client.fault = Fault::Syncing,
            26 => bench.client.fault = Fault::WrongLatestValid,
            27..36 => bench.client.fault = Fault::None,
            36 => bench.client.kill(rng.below(12), Damage::None),
            37 => bench.client.kill(rng.below(12), Damage::Amnesia),
            38 if rng.chance(1, 4) => bench.client.kill(rng.below(12), Damage::Broken),
            39 if rng.chance(1, 4) => bench.client.wipe(),
            40 => bench.restart(),
            _ => {}
        }
        assert_eq!(bench.halted, None, "seed {seed}");
    }
    bench.client.fault = Fault::None;
    // What only the operator can mend.
    if bench.client.damage == Damage::Broken {
        bench.client.wipe();
    }
    let end_ns = bench.now_ns + 120_000 * MS;
    while bench.checked < bench.chain.tip {
        assert!(
            bench.now_ns < end_ns,
            "seed {seed}: checked {} of {}: {:?}",
            bench.checked,
            bench.chain.tip,
            bench.session.status()
        );
        bench.step(20 * MS, 5 * MS);
    }
    assert_eq!(bench.client.head(), bench.chain.tip, "seed {seed}");
}

#[test]
fn no_block_is_checked_before_its_verdict_and_none_is_lost() {
    for seed in 0..300 {
        simulate(seed);
    }
}
