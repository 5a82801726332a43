//! How the process is: facts at one moment → what each probe answers, and why. Pure; JSON-RPC's port and the one of metrics ask the same function.
//!
//! | probe | 200 | 206 | 503 |
//! |---|---|---|---|
//! | `/livez` | it turns | | only a restart may help |
//! | `/readyz` | send it transactions | it takes them, and something behind it is not as it should be | it takes none, or will soon take none |
//! | `/healthz` | nothing is wrong | something is, and ends by itself when its cause does | a person has to act, or it is going away |
//!
//! Reasons are fixed words: the probes are open to whoever reaches the port, and the words of peers may hold what is not theirs to see.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use crate::engine_api::status::Condition as ClientCondition;
use crate::settlement::status::Condition as L1Condition;
use crate::topology::Shared;

/// A builder core that has not begun a turn for this long does not turn any more: it sleeps 50 ms at most, and the longest turn takes milliseconds.
pub const BUILDER_STUCK_NS: u64 = 10_000_000_000;
/// A record that the journal was given this long ago waits for a disk that does not answer: a group takes milliseconds.
pub const JOURNAL_STUCK_NS: u64 = 3_000_000_000;

/// What a probe answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Full,
    Degraded,
    Down,
}

impl Level {
    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Full => 200,
            Self::Degraded => 206,
            Self::Down => 503,
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    Live,
    Ready,
    Health,
}

impl Probe {
    pub const ALL: [Self; 3] = [Self::Live, Self::Ready, Self::Health];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Ready => "ready",
            Self::Health => "health",
        }
    }

    /// Of a request's path.
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        match path {
            "/livez" => Some(Self::Live),
            "/readyz" => Some(Self::Ready),
            "/healthz" => Some(Self::Health),
            _ => None,
        }
    }
}

macro_rules! reasons {
    ($($variant:ident $name:literal $live:ident $ready:ident $health:ident $text:literal),+ $(,)?) => {
        /// Why a probe does not answer 200.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason {
            $($variant),+
        }

        impl Reason {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in answers and metrics.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }

            /// What is wrong, for a person.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),+
                }
            }

            /// What it means for a probe.
            #[must_use]
            pub fn level(self, probe: Probe) -> Level {
                let (live, ready, health) = match self {
                    $(Self::$variant => (Level::$live, Level::$ready, Level::$health)),+
                };
                match probe {
                    Probe::Live => live,
                    Probe::Ready => ready,
                    Probe::Health => health,
                }
            }
        }
    };
}

// Word, then what it means for /livez, /readyz and /healthz.
reasons! {
    Starting "starting" Full Down Degraded "files are read and blocks executed again",
    Leaving "leaving" Full Down Degraded "told to stop: everything is served until stop.delay-ms is over",
    Stopping "stopping" Full Down Down "told to stop: no transaction is taken any more",
    Halted "halted_by_operator" Full Down Down "halted by an operator: reads only",
    Stopped "stopped_by_operator" Full Degraded Degraded "an operator has stopped building: what is sent waits in the pool",
    BuilderStuck "builder_stuck" Down Down Down "the builder core does not turn",
    JournalStuck "journal_stuck" Full Down Down "the journal's disk does not answer: nothing new is shown or acknowledged",
    JournalFull "journal_full" Full Down Down "the journal's disk is full: no transaction is taken",
    ExecutionConnecting "execution_client_connecting" Full Down Degraded "the execution client was not spoken to yet",
    ExecutionUnreachable "execution_client_unreachable" Full Down Degraded "the execution client does not answer",
    ExecutionStalled "execution_client_stalled" Full Down Degraded "the execution client does not get on",
    ExecutionSyncing "execution_client_syncing" Full Down Degraded "the execution client fetches blocks from peers of its own",
    ExecutionStuck "execution_client_stuck" Full Down Down "the execution client needs a new database",
    ExecutionHalted "execution_client_halted" Full Down Down "the execution client called a block INVALID, or has a chain of its own: reads only",
    L1Syncing "l1_syncing" Full Down Degraded "L1 was not read to its head yet: no block is built",
    L1Away "l1_away" Full Degraded Degraded "L1 does not answer: blocks wait to be posted",
    L1Waiting "l1_waiting" Full Degraded Degraded "nothing is posted for now: funds, limits, fees, or what only the execution client has of the state",
    SettlementBehind "settlement_behind" Full Down Degraded "more is not settled on L1 than may be: no transaction is taken",
    SettlementHalted "settlement_halted" Full Down Down "L1 contradicts us, or somebody else posts with this key: reads only",
}

/// Everything that is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The files are not read yet: nothing else is known.
    pub is_starting: bool,
    pub is_leaving: bool,
    pub is_stopping: bool,
    pub is_halted_by_operator: bool,
    pub is_stopped_by_operator: bool,
    /// Since the builder core's newest turn began; 0 where there is none.
    pub builder_idle_ns: u64,
    /// How long the journal's oldest record waits.
    pub journal_wait_ns: u64,
    pub is_journal_full: bool,
    pub client: ClientCondition,
    pub is_client_halted: bool,
    pub is_client_syncing: bool,
    pub l1: L1Condition,
    /// L1 was derived to its head since the start; true without one.
    pub is_l1_met: bool,
    pub is_settlement_behind: bool,
    pub is_settlement_halted: bool,
}

impl Default for Facts {
    /// Of a process without peers that runs.
    fn default() -> Self {
        Self {
            is_starting: false,
            is_leaving: false,
            is_stopping: false,
            is_halted_by_operator: false,
            is_stopped_by_operator: false,
            builder_idle_ns: 0,
            journal_wait_ns: 0,
            is_journal_full: false,
            client: ClientCondition::Absent,
            is_client_halted: false,
            is_client_syncing: false,
            l1: L1Condition::Off,
            is_l1_met: true,
            is_settlement_behind: false,
            is_settlement_halted: false,
        }
    }
}

impl Facts {
    /// Before anything is known.
    #[must_use]
    pub fn starting() -> Self {
        Self { is_starting: true, ..Self::default() }
    }

    /// Of a running process. A few loads; runs on: any thread.
    #[must_use]
    pub fn of(shared: &Shared, now_ns: u64) -> Self {
        let builder = &shared.metrics.builder;
        let since = |at_ns: u64| if at_ns == 0 { 0 } else { now_ns.saturating_sub(at_ns) };
        let (view, wanted) = (shared.settlement.view(), shared.controls.wanted());
        Self {
            is_starting: false,
            is_leaving: shared.is_leaving(),
            is_stopping: shared.is_stopping(),
            is_halted_by_operator: wanted.is_halted(),
            is_stopped_by_operator: wanted.is_stopped(),
            builder_idle_ns: if shared.is_stopping() { 0 } else { since(builder.turned_ns.get()) },
            journal_wait_ns: since(builder.journal_since_ns.get()),
            is_journal_full: shared.journal.is_space_full.load(Ordering::Relaxed),
            client: shared.execution.condition(),
            is_client_halted: shared.execution.is_halted(),
            is_client_syncing: shared.execution.is_syncing(),
            l1: if shared.settlement.is_on() { shared.settlement.condition() } else { L1Condition::Off },
            is_l1_met: view.is_met,
            is_settlement_behind: view.hold.is_some(),
            is_settlement_halted: view.is_halted,
        }
    }
}

/// Everything that is wrong, the worst for `/readyz` not first: in the order of the table.
#[must_use]
pub fn judge(facts: &Facts) -> Vec<Reason> {
    if facts.is_starting {
        return vec![Reason::Starting];
    }
    let is_client = |condition| facts.client == condition && !facts.is_client_halted;
    let is_l1 = |condition| facts.l1 == condition && !facts.is_settlement_halted && facts.is_l1_met;
    let found = [
        (Reason::Leaving, facts.is_leaving && !facts.is_stopping),
        (Reason::Stopping, facts.is_stopping),
        (Reason::Halted, facts.is_halted_by_operator),
        (Reason::Stopped, facts.is_stopped_by_operator),
        (Reason::BuilderStuck, facts.builder_idle_ns >= BUILDER_STUCK_NS),
        (Reason::JournalStuck, facts.journal_wait_ns >= JOURNAL_STUCK_NS),
        (Reason::JournalFull, facts.is_journal_full),
        (Reason::ExecutionConnecting, is_client(ClientCondition::Connecting)),
        (Reason::ExecutionUnreachable, is_client(ClientCondition::Unreachable)),
        (Reason::ExecutionStalled, is_client(ClientCondition::Stalled)),
        (Reason::ExecutionSyncing, is_client(ClientCondition::Ready) && facts.is_client_syncing),
        (Reason::ExecutionStuck, is_client(ClientCondition::Stuck)),
        (Reason::ExecutionHalted, facts.is_client_halted || facts.client == ClientCondition::Halted),
        (Reason::L1Syncing, !facts.is_l1_met && !facts.is_settlement_halted),
        (Reason::L1Away, facts.l1 == L1Condition::Away && !facts.is_settlement_halted),
        (Reason::L1Waiting, is_l1(L1Condition::Waiting)),
        (Reason::SettlementBehind, facts.is_settlement_behind),
        (Reason::SettlementHalted, facts.is_settlement_halted || facts.l1 == L1Condition::Halted),
    ];
    found.into_iter().filter_map(|(reason, is_so)| is_so.then_some(reason)).collect()
}

/// What a probe answers to these reasons.
#[must_use]
pub fn level(reasons: &[Reason], probe: Probe) -> Level {
    reasons.iter().map(|reason| reason.level(probe)).max().unwrap_or(Level::Full)
}

/// The body of the answer: `{"status":"degraded","reasons":[{"reason":…,"status":…,"text":…}]}`. What a probe does not mind is left out.
#[must_use]
pub fn body(reasons: &[Reason], probe: Probe) -> String {
    let mut text = format!("{{\"status\":\"{}\",\"reasons\":[", level(reasons, probe).name());
    let told = reasons.iter().filter(|reason| reason.level(probe) > Level::Full);
    for (index, reason) in told.enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let (name, status, what) = (reason.name(), reason.level(probe).name(), reason.text());
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}{{\"reason\":\"{name}\",\"status\":\"{status}\",\"text\":\"{what}\"}}");
    }
    text + "]}\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The statuses of /livez, /readyz and /healthz, and the reasons.
    #[track_caller]
    fn check(facts: Facts, expected: &str) {
        let reasons = judge(&facts);
        let statuses = Probe::ALL.map(|probe| level(&reasons, probe).status().to_string()).join(" ");
        let names: Vec<&str> = reasons.iter().map(|reason| reason.name()).collect();
        assert_eq!(format!("{statuses} {}", names.join(",")).trim_end(), expected, "{facts:?}");
    }

    fn facts() -> Facts {
        Facts::default()
    }

    #[test]
    fn life_of_a_process() {
        check(Facts::starting(), "200 503 206 starting");
        check(facts(), "200 200 200");
        check(Facts { is_leaving: true, ..facts() }, "200 503 206 leaving");
        check(Facts { is_leaving: true, is_stopping: true, ..facts() }, "200 503 503 stopping");
        check(Facts { is_halted_by_operator: true, ..facts() }, "200 503 503 halted_by_operator");
        check(Facts { is_stopped_by_operator: true, ..facts() }, "200 206 206 stopped_by_operator");
        check(Facts { builder_idle_ns: BUILDER_STUCK_NS - 1, ..facts() }, "200 200 200");
        check(Facts { builder_idle_ns: BUILDER_STUCK_NS, ..facts() }, "503 503 503 builder_stuck");
    }

    #[test]
    fn disks() {
        check(Facts { journal_wait_ns: JOURNAL_STUCK_NS - 1, ..facts() }, "200 200 200");
        check(Facts { journal_wait_ns: JOURNAL_STUCK_NS, ..facts() }, "200 503 503 journal_stuck");
        check(Facts { is_journal_full: true, ..facts() }, "200 503 503 journal_full");
    }

    #[test]
    fn the_execution_client() {
        let client = |client| Facts { client, ..facts() };
        check(client(ClientCondition::Ready), "200 200 200");
        let syncing = Facts { is_client_syncing: true, ..client(ClientCondition::Ready) };
        check(syncing, "200 503 206 execution_client_syncing");
        check(client(ClientCondition::Connecting), "200 503 206 execution_client_connecting");
        check(client(ClientCondition::Unreachable), "200 503 206 execution_client_unreachable");
        check(client(ClientCondition::Stalled), "200 503 206 execution_client_stalled");
        check(client(ClientCondition::Stuck), "200 503 503 execution_client_stuck");
        check(client(ClientCondition::Halted), "200 503 503 execution_client_halted");
        // An INVALID of an earlier life, before the client is spoken to again.
        let halted = Facts { is_client_halted: true, ..client(ClientCondition::Connecting) };
        check(halted, "200 503 503 execution_client_halted");
    }

    #[test]
    fn l1() {
        let l1 = |l1| Facts { l1, ..facts() };
        check(l1(L1Condition::Ready), "200 200 200");
        check(Facts { is_l1_met: false, ..l1(L1Condition::Syncing) }, "200 503 206 l1_syncing");
        check(Facts { is_l1_met: false, ..l1(L1Condition::Away) }, "200 503 206 l1_syncing,l1_away");
        check(l1(L1Condition::Away), "200 206 206 l1_away");
        check(l1(L1Condition::Waiting), "200 206 206 l1_waiting");
        let behind = Facts { is_settlement_behind: true, ..l1(L1Condition::Away) };
        check(behind, "200 503 206 l1_away,settlement_behind");
        check(Facts { is_settlement_halted: true, ..l1(L1Condition::Halted) }, "200 503 503 settlement_halted");
        // Derived again after a pause: blocks were built on it before.
        check(l1(L1Condition::Syncing), "200 200 200");
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        let facts = Facts { is_leaving: true, is_journal_full: true, l1: L1Condition::Away, ..facts() };
        check(facts.clone(), "200 503 503 leaving,journal_full,l1_away");
        let body = body(&judge(&facts), Probe::Ready);
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["status"], "down");
        assert_eq!(body["reasons"][1]["reason"], "journal_full");
        assert_eq!(body["reasons"][2]["status"], "degraded");
        // What a probe does not mind it does not name.
        assert_eq!(super::body(&judge(&facts), Probe::Live), "{\"status\":\"full\",\"reasons\":[]}\n");
    }

    #[test]
    fn each_reason_is_wrong_for_some_probe_and_worst_for_readiness_or_health() {
        for reason in Reason::ALL {
            let levels = Probe::ALL.map(|probe| reason.level(probe));
            assert!(levels[1] > Level::Full, "{}: readiness does not mind it", reason.name());
            assert!(levels[0] <= levels[1] && levels[0] <= levels[2], "{}: alive less than ready", reason.name());
            assert!(
                !reason.text().contains('"') && !reason.text().contains('\\'),
                "{}: in JSON as it is",
                reason.name()
            );
        }
    }
}
