//! Filters on a shard, and asked for through its neighbour.

use super::*;
use crate::limits::NEIGHBOUR_CALLS_MAX;
use crate::messages::{PoolContent, QueryInput};
use crate::ring::Mailbox;
use crate::rpc::{FilterRead, Position};

const NEW: &str = r#"{"jsonrpc":"2.0","id":1,"method":"eth_newBlockFilter"}"#;

fn ask(method: &str, id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":2,"method":"{method}","params":["{id}"]}}"#)
}

/// Two shards with the wires between them.
fn neighbours() -> [Fixture; 2] {
    let bells = [Arc::new(Doorbell::for_task()), Arc::new(Doorbell::for_task())];
    let mailboxes: Arc<[_]> = bells.iter().map(|bell| Mailbox::new(2 * NEIGHBOUR_SLOTS_PER_SHARD, bell)).collect();
    [0, 1].map(|index: u16| {
        fixture_with(|seat| {
            seat.id = ShardId(index);
            seat.mailboxes = Arc::clone(&mailboxes);
            let thread = || Arc::new(Doorbell::for_thread());
            let heads = seat.shared.heads.load_full();
            seat.shared = Arc::new(Shared::new(heads, bells.to_vec(), thread(), thread(), Sequence(0)));
        })
    })
}

impl Fixture {
    /// The result or error of the one reply that was written.
    #[track_caller]
    fn answer(&mut self) -> serde_json::Value {
        let output = self.output();
        assert_eq!(output.len(), 1, "{output:?}");
        let reply: serde_json::Value = serde_json::from_str(&output[0]).expect("JSON");
        reply.get("result").or(reply.get("error")).expect("an answer").clone()
    }

    fn new_filter(&mut self) -> String {
        self.post(NEW);
        self.answer().as_str().expect("an id").to_owned()
    }

    /// What the query pool was asked to read, and the token to answer it.
    #[track_caller]
    fn filter_job(&mut self) -> (ReplyToken, FilterRead) {
        let job = self.jobs.try_recv().expect("the query pool is asked");
        let QueryInput::Filter(read) = job.input else { panic!("{:?}", job.input) };
        (job.token, *read)
    }

    fn tell(&mut self, token: ReplyToken, told: u64) {
        let told = Some(Position { number: told, index: 0, rewinds: 0 });
        let reply = QueryReply { token, outcome: Ok(b"[7]".to_vec()), told, gate: Sequence(0) };
        assert!(self.query_replies.push(reply).is_ok());
        self.turn();
    }
}

#[test]
fn a_poll_goes_on_where_the_last_one_ended() {
    let mut shard = fixture();
    let id = shard.new_filter();
    for (start, end) in [(1, 4), (4, 9)] {
        shard.post(&ask("eth_getFilterChanges", &id));
        let (token, read) = shard.filter_job();
        assert_eq!(read.from, Some(Position { number: start, index: 0, rewinds: 0 }));
        shard.tell(token, end);
        assert_eq!(shard.answer(), serde_json::json!([7]));
    }
    shard.post(&ask("eth_uninstallFilter", &id));
    assert_eq!(shard.answer(), true);
    shard.post(&ask("eth_uninstallFilter", &id));
    assert_eq!(shard.answer(), false);
    shard.post(&ask("eth_getFilterChanges", &id));
    assert_eq!(shard.answer(), serde_json::json!({"code": -32000, "message": "filter not found"}));
    shard.post(&ask("eth_getFilterLogs", "0x1"));
    assert_eq!(shard.answer()["message"], "filter not found");
}

#[test]
fn polls_at_once_are_not_told_the_same() {
    let mut shard = fixture();
    let id = shard.new_filter();
    let poll = ask("eth_getFilterChanges", &id);
    shard.post(&format!("[{poll},{poll}]"));
    let (token, _) = shard.filter_job();
    assert!(shard.jobs.is_empty());
    shard.tell(token, 3);
    let both = shard.output().concat();
    assert!(both.contains(r#""result":[7]"#) && both.contains(r#""result":[]"#), "{both}");
}

#[test]
fn what_nobody_heard_or_what_failed_is_told_again() {
    let mut shard = fixture();
    let id = shard.new_filter();
    let poll = ask("eth_getFilterChanges", &id);
    let from = |shard: &mut Fixture| {
        shard.post(&poll);
        let (token, read) = shard.filter_job();
        (token, read.from.expect("a poll").number)
    };
    let (token, _) = from(&mut shard);
    let failed = RpcError::limit("too long");
    let reply = QueryReply { token, outcome: Err(failed), told: None, gate: Sequence(0) };
    assert!(shard.query_replies.push(reply).is_ok());
    shard.turn();
    assert_eq!(shard.answer()["code"], -32005);
    // The connection goes while the answer is made: the filter is not its.
    let (token, number) = from(&mut shard);
    assert_eq!(number, 1);
    shard.core.close(shard.key);
    shard.key = shard.core.open(0);
    shard.tell(token, 5);
    assert_eq!(from(&mut shard).1, 1);
}

#[test]
fn a_connection_that_goes_gives_back_what_waits() {
    let mut shard = fixture();
    let id = shard.new_filter();
    let logs = r#"{"jsonrpc":"2.0","id":1,"method":"eth_getLogs","params":[{}]}"#;
    let poll = ask("eth_getFilterChanges", &id);
    shard.post(&format!("[{},{poll}]", [logs; RUNNING_PER_CONNECTION_MAX].join(",")));
    assert_eq!(shard.jobs.try_iter().count(), RUNNING_PER_CONNECTION_MAX, "the poll waits behind them");
    shard.core.close(shard.key);
    shard.key = shard.core.open(0);
    shard.post(&poll);
    assert_eq!(shard.filter_job().1.from.map(|from| from.number), Some(1));
}

#[test]
fn a_neighbours_filter_is_asked_for_by_ring() {
    let [mut owner, mut other] = neighbours();
    let id = owner.new_filter();
    assert_eq!(id[4..8], *"0000");
    for (start, end) in [(1, 4), (4, 6)] {
        other.post(&ask("eth_getFilterChanges", &id));
        assert!(other.jobs.is_empty() && owner.core.has_work());
        owner.turn();
        assert!(other.core.has_work());
        other.turn();
        let (token, read) = other.filter_job();
        assert_eq!(read.from, Some(Position { number: start, index: 0, rewinds: 0 }));
        // Whoever asks meanwhile is told nothing.
        owner.post(&ask("eth_getFilterChanges", &id));
        assert_eq!(owner.answer(), serde_json::json!([]));
        other.tell(token, end);
        assert_eq!(other.answer(), serde_json::json!([7]));
        owner.turn();
    }
    other.post(&ask("eth_uninstallFilter", &id));
    owner.turn();
    other.turn();
    assert_eq!(other.answer(), true);
    owner.post(&ask("eth_getFilterChanges", &id));
    assert_eq!(owner.answer()["message"], "filter not found");
    other.post(&ask("eth_getFilterChanges", &format!("{}0009{}", &id[..4], &id[8..])));
    assert_eq!(other.answer()["message"], "filter not found");
}

#[test]
fn a_lease_of_a_neighbour_comes_back_from_a_connection_that_is_gone() {
    let [mut owner, mut other] = neighbours();
    let id = owner.new_filter();
    other.post(&ask("eth_getFilterChanges", &id));
    other.core.close(other.key);
    other.key = other.core.open(0);
    for _ in 0..2 {
        owner.turn();
        other.turn();
    }
    assert!(other.jobs.is_empty());
    other.post(&ask("eth_getFilterChanges", &id));
    owner.turn();
    other.turn();
    assert_eq!(other.filter_job().1.from.map(|from| from.number), Some(1));
}

/// The credit holds: as many calls as may be are under way, all their leases come back at once, and no mailbox overflows.
#[test]
fn calls_to_neighbours_are_bounded_until_their_leases_are_back() {
    let [mut owner, mut other] = neighbours();
    let ids: Vec<String> = (0..=NEIGHBOUR_CALLS_MAX)
        .map(|index| {
            if index % 50 == 0 {
                owner.key = owner.core.open(0);
            }
            owner.new_filter()
        })
        .collect();
    let ask_all = |other: &mut Fixture, owner: &mut Fixture| -> usize {
        let mut refused = 0;
        for id in &ids {
            other.key = other.core.open(0);
            other.post(&ask("eth_getFilterChanges", id));
            let output = other.output().concat();
            refused += usize::from(output.contains("-32005") && output.contains("polls of filters"));
        }
        owner.turn();
        other.turn();
        refused
    };
    assert_eq!(ask_all(&mut other, &mut owner), 1);
    // The queue of the pool in this test has eight slots: the other polls were refused there, and their leases are back.
    assert_eq!(other.jobs.len(), 8);
    owner.turn();
    assert_eq!(ask_all(&mut other, &mut owner), 1 + 8);
}

#[test]
fn the_content_of_the_pool_is_rendered_by_the_query_pool() {
    let mut shard = fixture();
    shard.post(r#"{"jsonrpc":"2.0","id":1,"method":"txpool_content"}"#);
    let Some(IngressMessage::Read { token, read }) = shard.inbox.pop() else { panic!("the builder core is asked") };
    assert_eq!(read, BuilderRead::PoolContent { sender: None });
    let mut content = PoolContent::default();
    content.push(Address::repeat_byte(1), 3, true, &[1, 2, 3]);
    let content = Box::new(content);
    let answer = BuilderAnswer::PoolContent(content.clone());
    assert!(shard.replies.push(BuilderReply::Answer { token, answer, gate: Sequence(0) }).is_ok());
    shard.turn();
    let job = shard.jobs.try_recv().expect("the query pool renders it");
    assert_eq!(job.input, QueryInput::Pool(content));
    shard.post(r#"{"jsonrpc":"2.0","id":2,"method":"txpool_inspect"}"#);
    let Some(IngressMessage::Read { token, .. }) = shard.inbox.pop() else { panic!("the builder core is asked") };
    let answer = BuilderAnswer::PoolTooLarge { transactions: 90_000, bytes: 5 };
    assert!(shard.replies.push(BuilderReply::Answer { token, answer, gate: Sequence(0) }).is_ok());
    shard.turn();
    // The first call of the connection is not answered yet, so that nothing leaves before it.
    let reply = QueryReply { token: job.token, outcome: Ok(b"{}".to_vec()), told: None, gate: Sequence(0) };
    assert!(shard.query_replies.push(reply).is_ok());
    shard.turn();
    let output = shard.output().concat();
    assert!(output.contains("-32005") && output.contains("90000 transactions, limit 8192"), "{output}");
}
