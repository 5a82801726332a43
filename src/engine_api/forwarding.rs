//! What to pull from the execution client's pool: its answers and time in, questions and transactions out.
//!
//! ```text
//!  no filter ─► eth_newPendingTransactionFilter ─► txpool_content, once ─► eth_getFilterChanges, again and again
//!      ▲                                                │ hashes                     │ hashes
//!      └── the filter is forgotten: it was restarted    └────────► eth_getRawTransactionByHash ─► builder core
//!                                                                          ▲                          │ not now
//!                                                                          └────── a pause ◄──────────┘
//! ```
//!
//! What an answer that got lost said is lost with it, for asking empties the filter: after every failed look the whole pool is read, and once a minute in any case.
//!
//! Pure: no socket, no clock. A filter is asked instead of a subscription held, because it works alike over HTTP and over the IPC socket.
//! Whatever is pending at the client is asked for once; what our pool refuses for good stays with the client and is counted. Only
//! transactions that the client could execute are pulled: it announces those behind a nonce gap when the gap is closed. Invariant: every hash that
//! was announced is counted under exactly one of the ends of [`ForwardingCounts`], or is still open.

use std::collections::{HashMap, HashSet, VecDeque};

use foldhash::fast::RandomState;
use serde_json::Value;

use crate::engine_api::types::{CallError, ErrorCode, Method};
use crate::primitives::B256;

/// Hashes that were announced and have not ended. On full: the others are found by reading the whole pool again later.
const OPEN_MAX: usize = 65_536;
/// Ended hashes that are remembered, so that reading the whole pool again does not send them again.
const SEEN_MAX: usize = 131_072;
/// Pause before a transaction that cannot be admitted now is sent again, and before the whole pool is read again.
const AGAIN_NS: u64 = 1_000_000_000;
/// How often the whole pool is read in any case: what no announcement brought is found then, and what our own pool had no room to keep is offered again.
const READ_POOL_NS: u64 = 60_000_000_000;
/// How often a transaction that our pool has no place for is sent: a minute. While the node takes nothing at all, tries do not count.
const TRIES_MAX: u32 = 60;

/// Nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardingSettings {
    /// Between two looks at what was announced.
    pub poll_ns: u64,
    /// First pause after a failed call; doubled with each.
    pub backoff_ns: u64,
    pub backoff_ns_max: u64,
}

/// What to ask the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    OpenFilter,
    ReadPool,
    Changes { filter: String },
    Raw { hash: B256 },
}

impl Question {
    #[must_use]
    pub fn method(&self) -> Method {
        match self {
            Self::OpenFilter => Method::NewPendingFilter,
            Self::ReadPool => Method::PoolContent,
            Self::Changes { .. } => Method::FilterChanges,
            Self::Raw { .. } => Method::RawTransaction,
        }
    }

    /// JSON of the parameters.
    #[must_use]
    pub fn params(&self) -> Vec<u8> {
        match self {
            Self::OpenFilter | Self::ReadPool => b"[]".to_vec(),
            Self::Changes { filter } => Value::from(vec![filter.as_str()]).to_string().into_bytes(),
            Self::Raw { hash } => format!(r#"["{hash}"]"#).into_bytes(),
        }
    }
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Ask(Question),
    /// Nothing before this monotonic time.
    Wait(u64),
}

/// How a transaction fared here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Admitted,
    /// It came by our own port before.
    Known,
    /// The same bytes would be refused again.
    Refused(String),
    /// Our pool has no place for it now.
    NotNow(String),
    /// The node admits nothing now.
    NotReady(String),
}

/// How many transactions ended how, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardingCounts {
    pub admitted: u64,
    pub known: u64,
    pub refused: u64,
    /// They left the client's pool before they were read.
    pub gone: u64,
}

/// What the process shows of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardingStatus {
    pub is_on: bool,
    /// What is wrong; empty when nothing is.
    pub why: String,
    pub counts: ForwardingCounts,
    /// Announced, and not ended.
    pub open: u64,
    /// Why the node takes none of them now; empty when it does.
    pub held: String,
    /// The newest refusal.
    pub last_refusal: Option<(B256, String)>,
}

/// See the module's text.
pub struct Forwarding {
    settings: ForwardingSettings,
    filter: Option<String>,
    must_read_pool: bool,
    /// When the whole pool is read again.
    read_pool_at_ns: u64,
    /// The node admits nothing before this time: one is sent then, to see.
    not_ready_until_ns: u64,
    not_ready_count: u32,
    /// Filters that were lost in a row.
    lost_count: u32,
    /// Tries of what is open: in `wanted`, in `later`, or with the builder core.
    open: HashMap<B256, u32, RandomState>,
    wanted: VecDeque<B256>,
    /// In the order of time, because every pause is the same.
    later: VecDeque<(u64, B256)>,
    seen: HashSet<B256, RandomState>,
    seen_order: VecDeque<B256>,
    poll_at_ns: u64,
    /// After a failed call.
    paused_until_ns: u64,
    failure_count: u32,
    /// The client does not show its whole pool.
    pool_fault: String,
    status: ForwardingStatus,
}

impl Forwarding {
    #[must_use]
    pub fn new(settings: ForwardingSettings) -> Self {
        Self {
            settings,
            filter: None,
            must_read_pool: false,
            read_pool_at_ns: 0,
            not_ready_until_ns: 0,
            not_ready_count: 0,
            lost_count: 0,
            open: HashMap::default(),
            wanted: VecDeque::new(),
            later: VecDeque::new(),
            seen: HashSet::default(),
            seen_order: VecDeque::new(),
            poll_at_ns: 0,
            paused_until_ns: 0,
            failure_count: 0,
            pool_fault: String::new(),
            status: ForwardingStatus { is_on: true, ..ForwardingStatus::default() },
        }
    }

    #[must_use]
    pub fn status(&self) -> ForwardingStatus {
        let mut status = ForwardingStatus { open: self.open.len() as u64, ..self.status.clone() };
        if status.why.is_empty() {
            status.why.clone_from(&self.pool_fault);
        }
        status
    }

    /// What to do now.
    pub fn next(&mut self, now_ns: u64) -> Next {
        while let Some((_, hash)) = self.later.pop_front_if(|(at_ns, _)| *at_ns <= now_ns) {
            self.wanted.push_back(hash);
        }
        if now_ns < self.paused_until_ns {
            return Next::Wait(self.paused_until_ns);
        }
        let Some(filter) = &self.filter else { return Next::Ask(Question::OpenFilter) };
        if self.must_read_pool || self.read_pool_at_ns <= now_ns {
            return Next::Ask(Question::ReadPool);
        }
        let is_ready = self.not_ready_until_ns <= now_ns;
        if is_ready && let Some(hash) = self.wanted.pop_front() {
            if self.not_ready_count > 0 {
                // One to see; the others when it was taken.
                self.not_ready_until_ns = now_ns + self.not_ready_pause_ns();
            }
            return Next::Ask(Question::Raw { hash });
        }
        if now_ns >= self.poll_at_ns {
            return Next::Ask(Question::Changes { filter: filter.clone() });
        }
        let later_ns = self.later.front().map(|(at_ns, _)| *at_ns);
        let ready_ns = (!is_ready && !self.wanted.is_empty()).then_some(self.not_ready_until_ns);
        let times = [Some(self.poll_at_ns), later_ns, Some(self.read_pool_at_ns), ready_ns];
        Next::Wait(times.into_iter().flatten().min().unwrap_or(self.poll_at_ns))
    }

    /// The answer to what [`Forwarding::next`] asked; a transaction that is to be sent to the builder core, as hex.
    pub fn answered(
        &mut self,
        question: &Question,
        answer: Result<Value, CallError>,
        now_ns: u64,
    ) -> Option<(B256, String)> {
        match (question, answer) {
            (Question::OpenFilter, Ok(Value::String(id))) => {
                self.filter = Some(id);
                self.must_read_pool = true;
            }
            (Question::ReadPool, answer) => self.pool_read(answer, now_ns),
            (Question::Changes { .. }, Ok(Value::Array(hashes))) => {
                self.answers();
                self.lost_count = 0;
                self.poll_at_ns = now_ns + self.settings.poll_ns;
                hashes.iter().filter_map(hash_of).for_each(|hash| self.announced(hash, now_ns));
            }
            // It was restarted, or it was not asked for so long that it forgot.
            (Question::Changes { .. }, Err(error)) if error.code().is_some() => {
                self.filter = None;
                self.poll_at_ns = now_ns + self.settings.poll_ns;
                self.lost_count += 1;
                if self.lost_count > 1 {
                    // Opening a new one succeeds every time: the pause grows by what was lost.
                    self.failure_count = self.lost_count;
                    self.pause(error.to_string(), now_ns);
                }
            }
            (Question::Raw { hash }, Ok(Value::String(raw))) => {
                self.answers();
                return Some((*hash, raw));
            }
            (Question::Raw { hash }, Ok(Value::Null)) => {
                self.answers();
                self.status.counts.gone += 1;
                self.ended(*hash);
            }
            (Question::Raw { hash }, Err(error)) if error.code().is_some() => {
                self.settle(*hash, Outcome::NotNow(error.to_string()), now_ns);
            }
            (question, answer) => {
                match question {
                    // Nobody answered: it keeps its place. Otherwise it must not hold up those behind it.
                    Question::Raw { hash } if is_away(&answer) => self.wanted.push_front(*hash),
                    Question::Raw { hash } => {
                        let why = "the execution client gives no bytes of it".to_owned();
                        return self.unread(*hash, why, now_ns);
                    }
                    // What it would have said is gone.
                    _ => self.must_read_pool = true,
                }
                let why = match answer {
                    Err(error) => error.to_string(),
                    Ok(other) => {
                        CallError::malformed(question.method(), "an answer to another question", &other.to_string())
                            .to_string()
                    }
                };
                self.pause(why, now_ns);
            }
        }
        None
    }

    /// The whole pool, or why it cannot be read: announcements go on without it.
    fn pool_read(&mut self, answer: Result<Value, CallError>, now_ns: u64) {
        self.must_read_pool = false;
        self.read_pool_at_ns = now_ns + READ_POOL_NS;
        match answer {
            Ok(content) => {
                self.pool_fault.clear();
                self.answers();
                executable(&content).into_iter().for_each(|hash| self.announced(hash, now_ns));
            }
            Err(error) if error.code() == Some(ErrorCode::MethodNotFound) => {
                self.pool_fault =
                    "the execution client does not offer txpool_content: only what it announces from now on is pulled"
                        .to_owned();
            }
            Err(error) => self.pool_fault = format!("its whole pool cannot be read: {error}"),
        }
    }

    /// A transaction whose bytes did not come.
    fn unread(&mut self, hash: B256, why: String, now_ns: u64) -> Option<(B256, String)> {
        self.settle(hash, Outcome::NotNow(why), now_ns);
        None
    }

    /// What became of a transaction that was sent to the builder core.
    pub fn settle(&mut self, hash: B256, outcome: Outcome, now_ns: u64) {
        if !self.open.contains_key(&hash) {
            return;
        }
        if let Outcome::NotReady(reason) = outcome {
            // It concerns all of them: they wait together, and one is sent to see.
            self.not_ready_count = self.not_ready_count.saturating_add(1);
            self.not_ready_until_ns = now_ns + self.not_ready_pause_ns();
            self.status.held = reason;
            self.wanted.push_front(hash);
            return;
        }
        self.not_ready_count = 0;
        self.not_ready_until_ns = now_ns;
        self.status.held.clear();
        match outcome {
            Outcome::Admitted => {
                self.status.counts.admitted += 1;
                self.ended(hash);
            }
            Outcome::Known => {
                self.status.counts.known += 1;
                self.ended(hash);
            }
            Outcome::Refused(reason) => self.refused(hash, reason),
            Outcome::NotNow(reason) | Outcome::NotReady(reason) => {
                let Some(tries) = self.open.get_mut(&hash) else { return };
                *tries += 1;
                if *tries >= TRIES_MAX {
                    return self.refused(hash, reason);
                }
                self.later.push_back((now_ns + AGAIN_NS, hash));
            }
        }
    }

    fn not_ready_pause_ns(&self) -> u64 {
        let doubled = self.settings.backoff_ns.saturating_mul(1 << self.not_ready_count.min(20));
        doubled.min(self.settings.backoff_ns_max)
    }

    fn announced(&mut self, hash: B256, now_ns: u64) {
        if self.seen.contains(&hash) || self.open.contains_key(&hash) {
            return;
        }
        if self.open.len() >= OPEN_MAX {
            self.read_pool_at_ns = self.read_pool_at_ns.min(now_ns + AGAIN_NS);
            return;
        }
        self.open.insert(hash, 0);
        self.wanted.push_back(hash);
    }

    fn refused(&mut self, hash: B256, reason: String) {
        self.status.counts.refused += 1;
        self.status.last_refusal = Some((hash, reason));
        self.ended(hash);
    }

    fn ended(&mut self, hash: B256) {
        self.open.remove(&hash);
        if !self.seen.insert(hash) {
            return;
        }
        self.seen_order.push_back(hash);
        if self.seen_order.len() > SEEN_MAX
            && let Some(oldest) = self.seen_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
    }

    fn answers(&mut self) {
        self.failure_count = 0;
        self.status.why.clear();
    }

    fn pause(&mut self, why: String, now_ns: u64) {
        let doubled = self.settings.backoff_ns.saturating_mul(1 << self.failure_count.min(20));
        self.failure_count = self.failure_count.saturating_add(1);
        self.paused_until_ns = now_ns + doubled.min(self.settings.backoff_ns_max);
        self.status.why = why;
    }
}

/// Whether nobody answered, so that asking again is all that can be done.
fn is_away(answer: &Result<Value, CallError>) -> bool {
    matches!(answer, Err(CallError::Unreachable { .. } | CallError::TimedOut { .. }))
}

/// Hashes of what a `txpool_content` shows as executable, each sender's by nonce.
fn executable(content: &Value) -> Vec<B256> {
    let senders = content.get("pending").and_then(Value::as_object).into_iter().flat_map(|senders| senders.values());
    let mut hashes = Vec::new();
    for transactions in senders.filter_map(Value::as_object) {
        let numbered =
            transactions.iter().filter_map(|(nonce, tx)| Some((nonce.parse::<u64>().ok()?, hash_of(tx.get("hash")?)?)));
        let mut numbered: Vec<(u64, B256)> = numbered.collect();
        numbered.sort_unstable();
        hashes.extend(numbered.into_iter().map(|(_, hash)| hash));
    }
    hashes
}

fn hash_of(value: &Value) -> Option<B256> {
    value.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MS: u64 = 1_000_000;

    fn forwarding() -> Forwarding {
        Forwarding::new(ForwardingSettings { poll_ns: 100 * MS, backoff_ns: 100 * MS, backoff_ns_max: 1_000 * MS })
    }

    fn hash(byte: u8) -> B256 {
        B256::repeat_byte(byte)
    }

    fn rpc_error(number: i64) -> CallError {
        CallError::Rpc { method: "m", number, code: ErrorCode::from(number), message: "no".to_owned() }
    }

    fn gone() -> CallError {
        CallError::Unreachable { address: "el".to_owned(), what: "connection refused".to_owned() }
    }

    /// Asks and answers until it waits; the questions in order, and what is to be sent.
    fn run(
        forwarding: &mut Forwarding,
        now_ns: u64,
        mut answer: impl FnMut(&Question) -> Result<Value, CallError>,
    ) -> (Vec<&'static str>, Vec<B256>) {
        let (mut asked, mut sent) = (Vec::new(), Vec::new());
        while let Next::Ask(question) = forwarding.next(now_ns) {
            asked.push(question.method().name());
            sent.extend(forwarding.answered(&question, answer(&question), now_ns).map(|(hash, _)| hash));
            assert!(asked.len() < 100, "it never waits: {asked:?}");
        }
        (asked, sent)
    }

    /// A client with this pool and these announcements.
    fn client<'a>(pool: Value, announced: &'a [u8]) -> impl FnMut(&Question) -> Result<Value, CallError> + 'a {
        move |question| {
            Ok(match question {
                Question::OpenFilter => json!("0x7"),
                Question::ReadPool => pool.clone(),
                Question::Changes { filter } => {
                    assert_eq!(filter, "0x7");
                    json!(announced.iter().map(|byte| hash(*byte)).collect::<Vec<_>>())
                }
                Question::Raw { hash } => json!(format!("0x02{}", hash[0])),
            })
        }
    }

    fn pool(entries: &[(&str, &[(u64, u8)])]) -> Value {
        let senders = entries.iter().map(|(sender, list)| {
            let list = list.iter().map(|(nonce, byte)| (nonce.to_string(), json!({"hash": hash(*byte)})));
            ((*sender).to_owned(), Value::Object(list.collect()))
        });
        json!({"pending": Value::Object(senders.collect()), "queued": {"0xcc": {"9": {"hash": hash(0xcc)}}}})
    }

    #[test]
    fn what_is_pending_already_comes_by_nonce_and_then_what_is_announced() {
        let mut forwarding = forwarding();
        let pool = pool(&[("0xaa", &[(10, 3), (9, 2), (2, 1)])]);
        let (asked, sent) = run(&mut forwarding, 0, client(pool, &[2, 4]));
        assert_eq!(asked[..2], ["eth_newPendingTransactionFilter", "txpool_content"]);
        assert_eq!(sent, [1, 2, 3, 4].map(hash), "each once, what waits for a nonce not at all");
        assert_eq!(forwarding.next(0), Next::Wait(100 * MS));
        for byte in [1, 2, 3] {
            forwarding.settle(hash(byte), Outcome::Admitted, 0);
        }
        forwarding.settle(hash(4), Outcome::Known, 0);
        let status = forwarding.status();
        let counts = ForwardingCounts { admitted: 3, known: 1, refused: 0, gone: 0 };
        assert_eq!((status.counts, status.open, status.why.as_str()), (counts, 0, ""));
        // Announced once more: it has ended.
        let (asked, sent) = run(&mut forwarding, 100 * MS, client(json!({}), &[1]));
        assert_eq!((asked, sent), (vec!["eth_getFilterChanges"], Vec::new()));
    }

    #[test]
    fn a_client_that_was_restarted_gets_a_new_filter_and_its_pool_is_read_again() {
        let mut forwarding = forwarding();
        run(&mut forwarding, 0, client(json!({}), &[1]));
        forwarding.settle(hash(1), Outcome::Admitted, 0);
        let question = Question::Changes { filter: "0x7".to_owned() };
        assert_eq!(forwarding.next(100 * MS), Next::Ask(question.clone()));
        assert_eq!(forwarding.answered(&question, Err(gone()), 100 * MS), None);
        assert_eq!(forwarding.next(150 * MS), Next::Wait(200 * MS));
        assert_eq!(forwarding.status().why, "el: connection refused");
        // What the lost answer said is gone from the filter: the pool is read.
        assert_eq!(forwarding.next(200 * MS), Next::Ask(Question::ReadPool));
        assert_eq!(forwarding.answered(&Question::ReadPool, Ok(json!({})), 200 * MS), None);
        assert_eq!(forwarding.next(200 * MS), Next::Ask(question.clone()));
        assert_eq!(forwarding.answered(&question, Err(rpc_error(-32_000)), 200 * MS), None);
        let (asked, sent) = run(&mut forwarding, 200 * MS, client(pool(&[("0xaa", &[(0, 1), (1, 5)])]), &[]));
        assert_eq!(asked[..2], ["eth_newPendingTransactionFilter", "txpool_content"]);
        assert_eq!((sent, forwarding.status().why), (vec![hash(5)], String::new()));
    }

    #[test]
    fn pauses_after_failures_grow_to_their_bound() {
        let mut forwarding = forwarding();
        let mut now_ns = 0;
        for pause_ms in [100, 200, 400, 800, 1_000, 1_000] {
            assert_eq!(forwarding.next(now_ns), Next::Ask(Question::OpenFilter));
            forwarding.answered(&Question::OpenFilter, Err(gone()), now_ns);
            assert_eq!(forwarding.next(now_ns), Next::Wait(now_ns + pause_ms * MS));
            now_ns += pause_ms * MS;
        }
        // An answer of another shape is a failure too.
        forwarding.answered(&Question::OpenFilter, Ok(json!({"a": 1})), now_ns);
        assert!(forwarding.status().why.contains("an answer to another question"), "{}", forwarding.status().why);
    }

    #[test]
    fn a_transaction_that_cannot_be_read_now_keeps_its_place() {
        let mut forwarding = forwarding();
        let (_, sent) = run(&mut forwarding, 0, |question| match question {
            Question::Raw { hash } if hash[0] == 2 => Err(gone()),
            other => client(json!({}), &[1, 2, 3])(other),
        });
        assert_eq!(sent, [hash(1)]);
        let (_, sent) = run(&mut forwarding, 200 * MS, client(json!({}), &[]));
        assert_eq!(sent, [2, 3].map(hash));
        // One that has left the client's pool is nobody's loss.
        let (_, sent) = run(&mut forwarding, 400 * MS, |question| match question {
            Question::Raw { .. } => Ok(Value::Null),
            other => client(json!({}), &[9])(other),
        });
        assert_eq!((sent, forwarding.status().counts.gone), (Vec::new(), 1));
    }

    #[test]
    fn a_refusal_is_told_and_one_of_the_moment_is_tried_again() {
        let mut forwarding = forwarding();
        run(&mut forwarding, 0, client(json!({}), &[1, 2]));
        forwarding.settle(hash(1), Outcome::Refused("blob transactions are not accepted".to_owned()), 0);
        let status = forwarding.status();
        assert_eq!(status.last_refusal, Some((hash(1), "blob transactions are not accepted".to_owned())));
        assert_eq!((status.counts.refused, status.open), (1, 1));
        let mut now_ns = 0;
        // A minute without a place in the pool is enough.
        for _ in 1..TRIES_MAX {
            forwarding.settle(hash(2), Outcome::NotNow("txpool is full".to_owned()), now_ns);
            now_ns += AGAIN_NS;
            assert_eq!(run(&mut forwarding, now_ns, client(json!({}), &[])).1, [hash(2)]);
        }
        forwarding.settle(hash(2), Outcome::NotNow("txpool is full".to_owned()), now_ns);
        let status = forwarding.status();
        assert_eq!((status.counts.refused, status.open), (2, 0));
        assert_eq!(status.last_refusal, Some((hash(2), "txpool is full".to_owned())));
    }

    #[test]
    fn while_the_node_takes_nothing_one_is_sent_to_see() {
        let mut forwarding = forwarding();
        let (_, sent) = run(&mut forwarding, 0, client(json!({}), &[1, 2, 3]));
        assert_eq!(sent.len(), 3);
        for byte in [3, 2, 1] {
            forwarding.settle(hash(byte), Outcome::NotReady("the journal is behind".to_owned()), 0);
        }
        assert_eq!(forwarding.status().held, "the journal is behind");
        // Five minutes of it: one try a second at most, none of them counts.
        let (mut now_ns, mut tries) = (0, 0);
        while now_ns < 300_000 * MS {
            now_ns += 50 * MS;
            let (_, sent) = run(&mut forwarding, now_ns, client(json!({}), &[]));
            assert!(sent.len() <= 1, "{sent:?}");
            tries += sent.len();
            for hash in sent {
                forwarding.settle(hash, Outcome::NotReady("the journal is behind".to_owned()), now_ns);
            }
        }
        assert!((250..=300).contains(&tries), "{tries}");
        // It takes again: all of them go.
        now_ns += 2_000 * MS;
        let (_, sent) = run(&mut forwarding, now_ns, client(json!({}), &[]));
        assert_eq!(sent, [hash(1)]);
        forwarding.settle(hash(1), Outcome::Admitted, now_ns);
        let (_, sent) = run(&mut forwarding, now_ns, client(json!({}), &[]));
        assert_eq!(sent, [2, 3].map(hash));
        assert_eq!(forwarding.status().held, "");
    }

    #[test]
    fn a_pool_that_cannot_be_read_stops_nothing_and_is_read_again() {
        for error in [gone(), rpc_error(-32_000), CallError::Http { status: 413, body: "too large".to_owned() }] {
            let mut forwarding = forwarding();
            let (asked, sent) = run(&mut forwarding, 0, |question| match question {
                Question::ReadPool => Err(error.clone()),
                other => client(json!({}), &[1])(other),
            });
            assert_eq!((sent, asked.iter().filter(|name| **name == "txpool_content").count()), (vec![hash(1)], 1));
            assert!(
                forwarding.status().why.starts_with("its whole pool cannot be read"),
                "{}",
                forwarding.status().why
            );
            // What no announcement brought is found after a minute.
            let (_, sent) = run(&mut forwarding, READ_POOL_NS, client(pool(&[("0xaa", &[(0, 1), (1, 2)])]), &[]));
            assert_eq!(sent, [hash(2)]);
            assert_eq!(forwarding.status().why, "");
        }
    }

    #[test]
    fn a_filter_that_is_lost_again_and_again_is_not_asked_without_a_pause() {
        let mut forwarding = forwarding();
        let (mut asked, mut now_ns) = (0, 0);
        while now_ns < 10_000 * MS {
            let (names, _) = run(&mut forwarding, now_ns, |question| match question {
                Question::Changes { .. } => Err(rpc_error(-32_000)),
                other => client(json!({}), &[])(other),
            });
            asked += names.len();
            now_ns += 10 * MS;
        }
        assert!(asked < 60, "{asked} questions in ten seconds");
    }

    #[test]
    fn one_whose_bytes_cannot_be_read_holds_up_nobody() {
        let mut forwarding = forwarding();
        let (_, sent) = run(&mut forwarding, 0, |question| match question {
            Question::Raw { hash } if hash[0] == 1 => Err(CallError::Http { status: 502, body: String::new() }),
            other => client(json!({}), &[1, 2])(other),
        });
        assert_eq!(sent, [hash(2)]);
        let (_, sent) = run(&mut forwarding, AGAIN_NS, client(json!({}), &[]));
        assert_eq!(sent, [hash(1)]);
    }

    #[test]
    fn a_client_without_its_pool_in_the_open_is_listened_to_all_the_same() {
        let mut forwarding = forwarding();
        let (_, sent) = run(&mut forwarding, 0, |question| match question {
            Question::ReadPool => Err(rpc_error(-32_601)),
            other => client(json!({}), &[1])(other),
        });
        assert_eq!(sent, [hash(1)]);
        assert!(forwarding.status().why.contains("does not offer txpool_content"), "{}", forwarding.status().why);
    }

    #[test]
    fn what_finds_no_room_is_found_in_the_pool_later() {
        let mut forwarding = forwarding();
        run(&mut forwarding, 0, client(json!({}), &[]));
        for number in 0..OPEN_MAX as u64 + 1 {
            forwarding.announced(B256::from(alloy_primitives::U256::from(number)), 0);
        }
        assert_eq!(forwarding.status().open, OPEN_MAX as u64);
        forwarding.wanted.clear();
        assert_eq!(forwarding.next(AGAIN_NS), Next::Ask(Question::ReadPool));
    }
}
