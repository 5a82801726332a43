//! The shard against hand-driven rings: the tests play the builder core, the query pool and the clock.

mod filters;
mod former;
mod gate;

use std::sync::mpsc::sync_channel;

use crossbeam::channel::{Receiver, bounded};

use super::desk::{WAITING_PER_CONNECTION_MAX, WAITING_PER_SHARD_MAX};
use super::*;
use crate::builder::block::Heads;
use crate::builder::replay::genesis_block;
use crate::config::Wait;
use crate::config::genesis::dev_genesis;
use crate::ingress::calls::CallId;
use crate::ingress::intake::{AUTHORIZATIONS_MAX, WAITING_ITEMS_MAX};
use crate::ingress::queries::RUNNING_PER_CONNECTION_MAX;
use crate::limits::{
    IN_FLIGHT_PER_SHARD_MAX, INGRESS_RING_SLOTS, NEIGHBOUR_SLOTS_PER_SHARD, QUERIES_PER_SHARD_MAX, TX_BYTES_MAX,
};
use crate::mempool::{EndState, Reject};
use crate::messages::{BuilderAnswer, BuilderRead, Refusal};
use crate::primitives::{Address, B256, Fork, Sequence, U256};
use crate::ring::{Doorbell, ring};
use crate::testing::signing::{SetCode, TestKey};

const CHAIN_ID: u64 = 61_972;
const MS: u64 = 1_000_000;

struct Fixture {
    core: ShardCore,
    inbox: Consumer<IngressMessage>,
    replies: Producer<BuilderReply>,
    freed: Producer<TxHandle>,
    jobs: Receiver<QueryJob>,
    doorbell: Arc<Doorbell>,
    dirty: Vec<ConnectionKey>,
    query_replies: Arc<ArrayQueue<QueryReply>>,
    key: ConnectionKey,
    now_ns: u64,
}

fn fixture() -> Fixture {
    fixture_with(|_| ())
}

fn fixture_with(change: impl FnOnce(&mut ShardSeat)) -> Fixture {
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread"));
    let spec = dev_genesis(Fork::Osaka, 1).expect("the development genesis is whole");
    let genesis = genesis_block(&spec, &mut crate::testing::state_disk::store(pool)).expect("an empty store takes it");
    let (doorbell, builder_bell) = (Arc::new(Doorbell::for_task()), Arc::new(Doorbell::for_thread()));
    let heads = Arc::new(Heads::new([Arc::new(genesis)].into(), None));
    let (bells, chain_bell) = (vec![Arc::clone(&doorbell)], Arc::new(Doorbell::for_thread()));
    let shared = Arc::new(Shared::new(heads, bells, chain_bell, Arc::clone(&builder_bell), Sequence(0)));
    let (to_builder, inbox) = ring(INGRESS_RING_SLOTS, &builder_bell);
    let (replies, from_builder) = ring(IN_FLIGHT_PER_SHARD_MAX, &doorbell);
    let (freed, freed_rx) = ring(IN_FLIGHT_PER_SHARD_MAX, &doorbell);
    let (to_query, jobs) = bounded(8);
    let query_replies = Arc::new(ArrayQueue::new(QUERIES_PER_SHARD_MAX));
    let rpc = rpc::Settings {
        chain_id: CHAIN_ID,
        client_version: "test".to_owned(),
        debug_enabled: false,
        pool_content_enabled: true,
        proxy_enabled: false,
        state_is_remote: false,
        priority_fee_min_wei: 1,
    };
    let http = HttpConfig {
        address: ([127, 0, 0, 1], 0).into(),
        shards: 1,
        vhosts: Vec::new(),
        cors: false,
        connections_max: 10,
        body_bytes_max: 5 << 20,
        batch_items_max: 1_000,
        batch_wait_ns: 0,
        idle_timeout_ns: 1_000 * MS,
    };
    let settings = ShardSettings {
        http,
        chain_id: CHAIN_ID,
        wait: Wait::Park,
        query_timeout_ns: 2_000 * MS,
        chunks_max: 100,
        rpc,
    };
    let bell = Arc::clone(&doorbell);
    let mut seat = ShardSeat {
        id: ShardId(0),
        settings,
        slab: Slab::new(ShardId(0), 1 << 20).expect("a megabyte"),
        to_builder,
        from_builder,
        freed: freed_rx,
        to_query,
        from_query: Arc::clone(&query_replies),
        mailboxes: Arc::new([crate::ring::Mailbox::new(NEIGHBOUR_SLOTS_PER_SHARD, &doorbell)]),
        doorbell,
        shared,
        bound: sync_channel(1).0,
    };
    change(&mut seat);
    let (mut core, ..) = ShardCore::new(seat);
    let key = core.open(0);
    Fixture { core, inbox, replies, freed, jobs, doorbell: bell, dirty: Vec::new(), query_replies, key, now_ns: 0 }
}

impl Fixture {
    /// Sends one HTTP request and ends the turn.
    fn post(&mut self, body: &str) {
        self.core.input(self.key, &mut http(body), self.now_ns);
        self.turn();
    }

    fn turn(&mut self) {
        self.core.submit(usize::MAX);
        self.core.turn(self.now_ns);
    }

    /// Everything written so far, bodies only.
    fn output(&mut self) -> Vec<String> {
        let now_ns = self.now_ns;
        let Some(connection) = self.core.connection(self.key) else { return Vec::new() };
        let text = String::from_utf8(connection.output().to_vec()).expect("replies are text");
        connection.output_written(text.len(), now_ns);
        let bodies = text.split("HTTP/1.1 ").filter(|part| !part.is_empty());
        bodies.map(|part| part.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned()).collect()
    }

    fn submit(&mut self) -> Submit {
        match self.inbox.pop() {
            Some(IngressMessage::Submit(submit)) => submit,
            _ => panic!("a submission was expected"),
        }
    }

    fn admit(&mut self, submit: &Submit, gate: u64) {
        let Submit { token, hash, .. } = *submit;
        let reply = BuilderReply::Admitted { token, hash, gate: Sequence(gate) };
        assert!(self.replies.push(reply).is_ok());
        self.turn();
    }

    fn set_durable(&mut self, sequence: u64) {
        self.core.shared().gate.advance(Sequence(sequence));
    }
}

fn http(body: &str) -> Vec<u8> {
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ";
    format!("{head}{}\r\n\r\n{body}", body.len()).into_bytes()
}

fn transfer(nonce: u64) -> Vec<u8> {
    TestKey::nth(1).transfer(CHAIN_ID, nonce, Address::repeat_byte(9), 5)
}

fn call(id: &str, method: &str, raw: &[u8]) -> String {
    let hex = alloy_primitives::hex::encode(raw);
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":["0x{hex}"]}}"#)
}

fn send(id: &str, raw: &[u8]) -> String {
    call(id, "eth_sendRawTransaction", raw)
}

fn admitted(id: &str, hash: B256) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"{hash}"}}"#)
}

#[track_caller]
fn check_refusal(raw_hex: &str, expected: &str) {
    let mut shard = fixture();
    let params = format!(r#"["{raw_hex}"]"#);
    shard.post(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"eth_sendRawTransaction","params":{params}}}"#));
    assert_eq!(shard.output(), [format!(r#"{{"jsonrpc":"2.0","id":1,"error":{expected}}}"#)]);
    assert!(shard.inbox.is_empty());
    assert_eq!(shard.core.desk.slab.used_bytes(), 0, "a refused transaction leaves no chunk behind");
}

#[test]
fn a_transaction_goes_to_the_builder_with_its_sender_and_its_admission_comes_back() {
    let mut shard = fixture();
    let raw = transfer(0);
    shard.post(&send("\"a-1\"", &raw));
    assert_eq!(shard.output(), [""; 0]);
    let submit = shard.submit();
    assert_eq!(submit.sender, TestKey::nth(1).address);
    assert_eq!(submit.hash, crate::crypto::keccak::keccak256(&raw));
    assert_eq!(shard.core.desk.slab.bytes(&submit.handle), &raw[..]);
    assert!(submit.extras.is_none());
    shard.admit(&submit, 0);
    assert_eq!(shard.output(), [admitted("\"a-1\"", submit.hash)]);
    assert_eq!(shard.core.desk.in_flight_count, 0);
    assert!(shard.freed.push(submit.handle).is_ok());
    shard.turn();
    assert_eq!((shard.core.desk.slab.used_bytes(), shard.core.desk.chunk_count), (0, 0));
}

#[test]
fn a_batch_is_answered_in_its_own_order_whatever_order_the_answers_have() {
    let mut shard = fixture();
    let items: Vec<String> = (0..3).map(|nonce| send(&nonce.to_string(), &transfer(nonce))).collect();
    let chain_id = r#"{"jsonrpc":"2.0","id":7,"method":"eth_chainId"}"#;
    let notification = r#"{"jsonrpc":"2.0","method":"eth_chainId"}"#;
    shard.post(&format!("[{},{chain_id},7,{notification},{},{}]", items[0], items[1], items[2]));
    let submits = [shard.submit(), shard.submit(), shard.submit()];
    for index in [2, 0] {
        shard.admit(&submits[index], 0);
        assert_eq!(shard.output(), [""; 0]);
    }
    shard.admit(&submits[1], 0);
    let hash = |index: usize| admitted(&index.to_string(), submits[index].hash);
    let not_a_request =
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"request is not an object at byte"#;
    let output = shard.output().concat();
    let (front, back) = output.split_once(not_a_request).expect("the error of the third item");
    assert_eq!(front, format!(r#"[{},{{"jsonrpc":"2.0","id":7,"result":"0xf214"}},"#, hash(0)));
    assert!(back.ends_with(&format!(",{},{}]", hash(1), hash(2))), "{back}");
}

#[test]
fn all_transactions_of_a_turn_are_recovered_together_and_keep_their_order() {
    let mut shard = fixture();
    let other = shard.core.open(0);
    for (key, nonce) in [(shard.key, 0), (other, 1), (shard.key, 2)] {
        let body = send("1", &transfer(nonce));
        shard.core.input(key, &mut http(&body), 0);
    }
    assert!(shard.inbox.is_empty(), "nothing leaves before the turn's recovery");
    shard.core.submit(usize::MAX);
    let nonces = [shard.submit(), shard.submit(), shard.submit()].map(|submit| {
        assert_eq!(submit.sender, TestKey::nth(1).address);
        submit.fields.nonce
    });
    assert_eq!(nonces, [0, 1, 2]);
}

#[test]
fn what_the_builder_does_not_know_is_asked_of_the_query_pool() {
    let mut shard = fixture();
    let hash = B256::repeat_byte(1);
    shard.post(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"eth_getTransactionByHash","params":["{hash}"]}}"#));
    let Some(IngressMessage::Read { token, read: BuilderRead::Transaction { hash: asked } }) = shard.inbox.pop() else {
        panic!("the builder core is asked first");
    };
    assert_eq!(asked, hash);
    let reply = BuilderReply::Answer { token, answer: BuilderAnswer::Transaction(None), gate: Sequence(0) };
    assert!(shard.replies.push(reply).is_ok());
    shard.turn();
    let job = shard.jobs.try_recv().expect("then the query pool");
    assert_eq!(job.params, format!(r#"["{hash}"]"#).into_bytes());
    assert_eq!((shard.core.desk.in_flight_count, shard.core.desk.query_count), (0, 1));
}

#[test]
fn heavy_reads_of_a_connection_run_few_at_a_time_and_the_others_wait() {
    let mut shard = fixture();
    let call = |id: usize| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"eth_getLogs","params":[{{}}]}}"#);
    let calls: Vec<String> = (0..20).map(call).collect();
    shard.post(&format!("[{}]", calls.join(",")));
    let mut running = Vec::new();
    for answered in 0..20 {
        running.extend(shard.jobs.try_iter());
        assert_eq!(running.len(), RUNNING_PER_CONNECTION_MAX.min(20 - answered));
        let token = running.remove(0).token;
        let reply = QueryReply { token, outcome: Ok(b"1".to_vec()), told: None, gate: Sequence(0) };
        assert!(shard.query_replies.push(reply).is_ok());
        shard.turn();
    }
    let answers: Vec<String> = (0..20).map(|id| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":1}}"#)).collect();
    assert_eq!(shard.output(), [format!("[{}]", answers.join(","))]);
    assert_eq!(shard.core.desk.query_count, 0);
}

#[test]
fn heavy_reads_beyond_the_queue_of_the_pool_are_refused() {
    let mut shard = fixture();
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"eth_getLogs","params":[{}]}"#;
    shard.post(&format!("[{}]", [call; 8].join(",")));
    assert_eq!((shard.jobs.len(), shard.core.desk.query_count), (8, 8));
    let first = std::mem::replace(&mut shard.key, ConnectionKey { connection: 0, generation: 0 });
    shard.key = shard.core.open(0);
    assert_ne!(shard.key, first);
    shard.post(call);
    let refusal = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32005,"message":"too many heavy reads wait: try again","data":{"retryAfter":1.000}}}"#;
    assert_eq!(shard.output(), [refusal]);
}

#[test]
fn no_heavy_read_starts_while_its_connection_holds_large_replies() {
    let mut shard = fixture();
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"eth_getLogs","params":[{}]}"#;
    for _ in 0..2 * RUNNING_PER_CONNECTION_MAX {
        shard.core.input(shard.key, &mut http(call), 0);
    }
    let jobs: Vec<QueryJob> = shard.jobs.try_iter().collect();
    assert_eq!(jobs.len(), RUNNING_PER_CONNECTION_MAX);
    for job in jobs {
        let reply = QueryReply { token: job.token, outcome: Ok(vec![b'1'; 10 << 20]), told: None, gate: Sequence(0) };
        assert!(shard.query_replies.push(reply).is_ok());
    }
    shard.turn();
    // Room for those that started until 32 MiB were held.
    assert_eq!(shard.jobs.try_iter().count(), 3);
    shard.output();
    shard.core.start_queries(shard.key, 0);
    assert_eq!(shard.jobs.try_iter().count(), RUNNING_PER_CONNECTION_MAX - 3);
}

#[test]
fn reverts_of_megabytes_do_not_exceed_the_bound_of_a_batch() {
    let mut shard = fixture();
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"eth_getLogs","params":[{}]}"#;
    shard.post(&format!("[{}]", [call; 4].join(",")));
    while let Ok(job) = shard.jobs.try_recv() {
        let outcome = Err(RpcError::reverted(&vec![7; 5 << 20]));
        let reply = QueryReply { token: job.token, outcome, told: None, gate: Sequence(0) };
        assert!(shard.query_replies.push(reply).is_ok());
    }
    shard.turn();
    let output = shard.output().concat();
    // Two of 10 MiB fit 25 MB.
    assert_eq!(output.matches("execution reverted").count(), 2);
    let short = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32005,"message":"batch response too large"}}"#;
    assert!(output.ends_with(&format!(",{short},{short}]")) && output.len() < 25_000_000);
}

#[test]
fn refused_transactions_have_their_reasons() {
    let raw = |hex: &[u8]| format!("0x{}", alloy_primitives::hex::encode(hex));
    let error = |code: i32, text: &str| format!(r#"{{"code":{code},"message":"{text}"}}"#);
    check_refusal("0x", &error(-32_000, "transaction is empty"));
    check_refusal(
        "0x1",
        &error(-32_602, "invalid argument 0 (raw transaction): hex string has an odd number of digits (1)"),
    );
    check_refusal(
        "0xzz",
        &error(
            -32_602,
            "invalid argument 0 (raw transaction): hex string has byte 0x7a at position 2, which is not a digit",
        ),
    );
    check_refusal(
        "0x03c0",
        &error(-32_000, "blob transactions (type 3) are not allowed on a native rollup (EIP-8079)"),
    );
    check_refusal(
        "0x05c0",
        &error(-32_000, "ExecuteTx belongs to L1: eth_sendRawTransaction hands it over, where there is one"),
    );
    let foreign = TestKey::nth(1).transfer(1, 0, Address::ZERO, 0);
    check_refusal(&raw(&foreign), &error(-32_000, "wrong chain id: tx 1, chain 61972"));
    let text = format!("transaction has {} bytes, at most {TX_BYTES_MAX} are possible", TX_BYTES_MAX + 1);
    check_refusal(&raw(&vec![1; TX_BYTES_MAX + 1]), &error(-32_000, &text));
}

#[test]
fn a_signature_without_a_key_is_refused_after_recovery() {
    let mut raw = transfer(0);
    let r_end = raw.len() - 33;
    let mut shard = fixture();
    // Half of all numbers are no x coordinate of a point on the curve.
    let mut tried = 0;
    loop {
        raw[r_end - 1] = tried;
        shard.post(&send("1", &raw));
        let Some(IngressMessage::Submit(submit)) = shard.inbox.pop() else { break };
        shard.admit(&submit, 0);
        shard.output();
        tried += 1;
    }
    let expected = "signature has no public key: r is not on the curve, or the key is the point at infinity";
    assert!(shard.output().concat().contains(expected));
    assert_eq!(shard.core.desk.in_flight_count, 0);
}

#[test]
fn authorities_are_recovered_with_their_transaction_and_bad_ones_are_none() {
    let (sender, authority) = (TestKey::nth(1), TestKey::nth(2));
    let authorization = alloy_eips::eip7702::Authorization {
        chain_id: U256::from(CHAIN_ID),
        address: Address::repeat_byte(3),
        nonce: 4,
    };
    let good = authority.authorize(authorization.clone());
    let bad = alloy_eips::eip7702::SignedAuthorization::new_unchecked(authorization, 9, U256::from(1), U256::from(1));
    let raw = sender.encode(SetCode {
        chain_id: CHAIN_ID,
        gas_limit: 100_000,
        max_fee_per_gas: 1_000_000_000,
        authorization_list: vec![bad, good],
        ..SetCode::default()
    });
    let mut shard = fixture();
    shard.post(&format!("[{},{}]", send("1", &raw), send("2", &transfer(3))));
    let submit = shard.submit();
    assert_eq!(submit.sender, sender.address);
    assert_eq!(submit.extras.expect("type 4 has them").authorities, [None, Some(authority.address)]);
    assert_eq!(shard.submit().sender, sender.address);
}

#[test]
fn a_builder_refusal_is_an_error_with_its_reason() {
    let mut shard = fixture();
    shard.post(&send("1", &transfer(4)));
    let Submit { token, .. } = shard.submit();
    let refusal = Refusal::Pool(Reject::NonceTooLow { tx: 4, account: 5 });
    assert!(shard.replies.push(BuilderReply::Refused { token, hash: B256::ZERO, refusal, gate: Sequence(0) }).is_ok());
    shard.turn();
    let expected = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"nonce too low: tx 4, account 5"}}"#;
    assert_eq!(shard.output(), [expected]);
}

#[test]
fn the_limit_of_requests_in_flight_is_kept_on_both_sides() {
    let mut shard = fixture();
    shard.core.desk.in_flight_count = IN_FLIGHT_PER_SHARD_MAX - 1;
    shard.post(&send("1", &transfer(0)));
    let submit = shard.submit();
    shard.post(&send("2", &transfer(1)));
    assert!(shard.inbox.is_empty());
    shard.admit(&submit, 0);
    let output = shard.output().concat();
    assert!(
        output.contains(r#""id":2,"error":{"code":-32005,"message":"too many requests are being answered"#),
        "{output}"
    );
}

#[test]
fn a_full_slab_refuses_until_a_chunk_comes_back() {
    // One block of the slab holds four of the largest chunks.
    let mut shard = fixture_with(|seat| seat.slab = Slab::new(ShardId(0), 1).expect("one block"));
    let large = |nonce: u64| {
        TestKey::nth(1).encode(crate::testing::signing::DynamicFee {
            chain_id: CHAIN_ID,
            nonce,
            max_fee_per_gas: 1,
            to: Address::ZERO.into(),
            input: vec![1; 60_000].into(),
            ..Default::default()
        })
    };
    for nonce in 0..4 {
        shard.post(&send("1", &large(nonce)));
    }
    let first = shard.submit();
    shard.post(&send("2", &large(4)));
    assert_eq!(shard.core.desk.in_flight_count, 4);
    assert!(shard.freed.push(first.handle).is_ok());
    shard.turn();
    shard.post(&send("3", &large(4)));
    assert_eq!((shard.core.desk.in_flight_count, shard.core.desk.chunk_count), (5, 4));
}

#[test]
fn chunks_out_are_bounded_by_the_slots_of_the_ring_they_come_back_by() {
    let mut shard = fixture_with(|seat| seat.settings.chunks_max = 2);
    shard.post(&format!("[{},{},{}]", send("1", &transfer(0)), send("2", &transfer(1)), send("3", &transfer(2))));
    let (first, second) = (shard.submit(), shard.submit());
    assert!(shard.inbox.is_empty());
    shard.admit(&first, 0);
    shard.admit(&second, 0);
    assert!(shard.output().concat().contains("-32005"));
    assert!(shard.freed.push(first.handle).is_ok());
    shard.post(&send("4", &transfer(2)));
    assert_eq!(shard.submit().fields.nonce, 2);
}

#[test]
fn an_answer_never_reaches_the_next_connection_of_the_slot() {
    let mut shard = fixture();
    shard.post(&send("1", &transfer(0)));
    let submit = shard.submit();
    let old = shard.key;
    shard.core.close(old);
    shard.key = shard.core.open(0);
    assert_eq!(shard.key.connection, old.connection);
    shard.admit(&submit, 0);
    assert_eq!(shard.output(), [""; 0]);
    assert_eq!(shard.core.desk.in_flight_count, 0);
}

#[test]
fn a_waiting_call_is_over_in_time_and_withdrawn_from_the_builder() {
    let mut shard = fixture();
    let mut body = call("1", "eth_sendRawTransactionSync", &transfer(0));
    body.insert_str(body.len() - 2, r#", "0x64""#);
    shard.post(&body);
    let submit = shard.submit();
    assert_eq!(submit.wait, SubmitWait::Preconfirmation);
    assert_eq!(shard.core.next_deadline_ns(), 100 * MS);
    shard.now_ns = 100 * MS - 1;
    shard.turn();
    assert_eq!(shard.output(), [""; 0]);
    shard.now_ns = 100 * MS;
    shard.turn();
    let hash = submit.hash;
    let expected = format!(
        r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":4,"message":"The transaction was sent to the transaction pool but wasn't processed in 100ms","data":"{hash}"}}}}"#
    );
    assert_eq!(shard.output(), [expected]);
    // An answer under way keeps its slot of the reply ring until the withdrawal is handled.
    assert_eq!(shard.core.desk.in_flight_count, 1);
    let Some(IngressMessage::ForgetSync { token, hash }) = shard.inbox.pop() else { panic!("withdrawn") };
    assert_eq!((token, hash), (submit.token, submit.hash));
    let end = EndState::Rejected(Reject::AlreadyKnown);
    assert!(shard.replies.push(BuilderReply::Ended { token, hash, end, gate: Sequence(0) }).is_ok());
    shard.turn();
    assert_eq!((shard.output(), shard.core.desk.in_flight_count), (Vec::new(), 0));
}

#[test]
fn a_connection_that_goes_withdraws_its_waiting_calls() {
    let mut shard = fixture();
    shard.post(&call("1", "eth_sendRawTransactionSync", &transfer(0)));
    let submit = shard.submit();
    shard.core.close(shard.key);
    assert!(matches!(shard.inbox.pop(), Some(IngressMessage::ForgetSync { token, .. }) if token == submit.token));
    shard.turn();
    assert_eq!((shard.core.desk.in_flight_count, shard.core.desk.calls.waiting_count()), (0, 0));
}

#[test]
fn a_call_withdrawn_before_its_recovery_does_not_wait_at_the_builder() {
    let mut shard = fixture();
    let body = call("1", "eth_sendRawTransactionSync", &transfer(0));
    shard.core.input(shard.key, &mut http(&body), 0);
    shard.core.close(shard.key);
    shard.turn();
    assert!(matches!(shard.inbox.pop(), Some(IngressMessage::ForgetSync { .. })));
    let submit = shard.submit();
    assert_eq!((submit.wait, shard.core.desk.in_flight_count), (SubmitWait::Admission, 1));
    shard.admit(&submit, 0);
    shard.turn();
    assert_eq!(shard.core.desk.in_flight_count, 0);
}

#[test]
fn subscriptions_need_a_websocket() {
    let mut shard = fixture();
    shard.post(r#"{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}"#);
    assert!(shard.output().concat().contains("-32601"));
    assert!(!shard.core.shared().wants_events[0].load(Ordering::Relaxed));
}

#[test]
fn bodies_that_are_no_requests_are_answered_as_json_rpc_says() {
    let rows = [
        ("{", "-32700"),
        ("[]", "-32600"),
        ("[{}", "-32700"),
        (r#"{"jsonrpc":"2.0","id":5,"method":"eth_chainId","params":3}"#, r#""id":5,"error":{"code":-32602"#),
        (r#"{"jsonrpc":"2.0","id":5,"method":"eth_nothing"}"#, r#""id":5,"error":{"code":-32601"#),
        ("\"\u{1}\"", "-32700"),
    ];
    for (body, expected) in rows {
        let mut shard = fixture();
        shard.post(body);
        let output = shard.output().concat();
        assert!(output.contains(expected), "{body}: {output}");
    }
    let mut shard = fixture();
    shard.post(r#"{"jsonrpc":"2.0","method":"eth_chainId"}"#);
    assert_eq!(shard.output(), [""], "a notification gets an empty body");
}

#[test]
fn probes_follow_the_state_of_the_process() {
    let mut shard = fixture();
    let mut request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    shard.core.input(shard.key, &mut request, 0);
    assert_eq!(shard.output(), ["{\"status\":\"full\",\"reasons\":[]}\n"]);
    let mut request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    shard.core.desk.shared.execution.halt();
    shard.core.input(shard.key, &mut request, 0);
    let output = shard.output().concat();
    assert!(output.contains("\"status\":\"down\"") && output.contains("execution_client_halted"), "{output}");
}

#[test]
fn a_turn_recovers_a_bounded_number_of_signatures_and_the_rest_follows_in_order() {
    let mut shard = fixture_with(|seat| seat.settings.chunks_max = 2_000);
    let raw = transfer(0);
    let batch = format!("[{}]", vec![send("1", &raw); 300].join(","));
    shard.core.input(shard.key, &mut http(&batch), 0);
    assert!(shard.core.is_turn_full());
    shard.core.submit(usize::MAX);
    let count = |shard: &mut Fixture| std::iter::from_fn(|| shard.inbox.pop()).count();
    assert_eq!(count(&mut shard), TURN_ITEMS_MAX);
    assert!(shard.core.has_work() && !shard.core.is_turn_full());
    shard.core.submit(usize::MAX);
    assert_eq!(count(&mut shard), 300 - TURN_ITEMS_MAX);
    assert!(shard.core.desk.intake.is_empty());
}

#[test]
fn a_transaction_with_many_authorizations_is_recovered_over_several_turns() {
    let mut shard = fixture();
    let key = TestKey::nth(1);
    let authorization =
        alloy_eips::eip7702::Authorization { chain_id: U256::ZERO, address: Address::repeat_byte(3), nonce: 4 };
    let encode = |count: usize| {
        key.encode(SetCode {
            chain_id: CHAIN_ID,
            gas_limit: 16_000_000,
            max_fee_per_gas: 1_000_000_000,
            authorization_list: vec![key.authorize(authorization.clone()); count],
            ..SetCode::default()
        })
    };
    let many = usize::try_from(AUTHORIZATIONS_MAX).expect("small");
    shard.post(&send("1", &encode(many + 1)));
    let text = format!("too many authorizations: {}, limit {AUTHORIZATIONS_MAX}", many + 1);
    assert!(shard.output().concat().contains(&text));
    // 600 and 2 signatures: three turns.
    let batch = format!("[{},{}]", send("1", &encode(599)), send("2", &encode(1)));
    shard.core.input(shard.key, &mut http(&batch), 0);
    for _ in 0..2 {
        shard.core.submit(usize::MAX);
        assert!(shard.inbox.is_empty());
    }
    shard.core.submit(usize::MAX);
    for count in [599, 1] {
        let submit = shard.submit();
        assert_eq!(submit.sender, key.address);
        assert_eq!(submit.extras.expect("type 4 has them").authorities, vec![Some(key.address); count]);
    }
}

#[test]
fn signatures_that_wait_are_bounded() {
    let mut shard = fixture();
    let key = TestKey::nth(1);
    let authorization =
        alloy_eips::eip7702::Authorization { chain_id: U256::ZERO, address: Address::repeat_byte(3), nonce: 4 };
    let raw = key.encode(SetCode {
        chain_id: CHAIN_ID,
        gas_limit: 16_000_000,
        max_fee_per_gas: 1_000_000_000,
        authorization_list: vec![key.authorize(authorization); 511],
        ..SetCode::default()
    });
    let batch = format!("[{}]", vec![send("1", &raw); 9].join(","));
    shard.core.input(shard.key, &mut http(&batch), 0);
    assert_eq!(shard.core.desk.intake.item_count(), WAITING_ITEMS_MAX);
    assert_eq!((shard.core.desk.in_flight_count, shard.core.desk.chunk_count), (8, 8));
}

#[test]
fn a_connection_with_much_input_does_not_keep_the_others_waiting() {
    let mut shard = fixture_with(|seat| seat.settings.chunks_max = 2_000);
    let (greedy, modest) = (shard.key, shard.core.open(0));
    let batch = format!("[{}]", vec![send("1", &transfer(7)); 40].join(","));
    let mut pipelined = http(&batch).repeat(12);
    shard.core.input(greedy, &mut pipelined, 0);
    assert_eq!(shard.core.desk.intake.item_count(), 80, "two batches reach the share");
    let connection = shard.core.connection(greedy).expect("open");
    assert!(!connection.wants_read() && !connection.wants_resume());
    shard.core.input(modest, &mut http(&send("1", &transfer(3))), 0);
    shard.core.submit(usize::MAX);
    let nonces: Vec<u64> = (0..81).map(|_| shard.submit().fields.nonce).collect();
    assert_eq!((nonces[80], shard.inbox.is_empty()), (3, true));
    // The parked rest comes without being asked for, and none of it is lost.
    let mut turns = 0;
    let mut count = 0;
    while shard.core.has_work() && turns < 20 {
        shard.core.turn(0);
        assert!(shard.core.desk.intake.item_count() <= TURN_ITEMS_MAX);
        shard.core.submit(usize::MAX);
        count += std::iter::from_fn(|| shard.inbox.pop()).count();
        shard.core.take_dirty(&mut Vec::new());
        turns += 1;
    }
    assert_eq!(count, 400);
    assert!(shard.core.connection(greedy).is_some_and(|connection| connection.wants_read()));
}

#[test]
fn waiting_calls_are_bounded_per_connection_and_per_shard() {
    let mut shard = fixture_with(|seat| seat.settings.chunks_max = 20_000);
    let body = call("1", "eth_sendRawTransactionSync", &transfer(0));
    shard.post(&format!("[{}]", vec![body.clone(); WAITING_PER_CONNECTION_MAX + 1].join(",")));
    assert_eq!(std::iter::from_fn(|| shard.inbox.pop()).count(), WAITING_PER_CONNECTION_MAX);
    assert_eq!(shard.core.desk.calls.waiting_of(shard.key).len(), WAITING_PER_CONNECTION_MAX);
    shard.core.close(shard.key);
    assert_eq!(std::iter::from_fn(|| shard.inbox.pop()).count(), WAITING_PER_CONNECTION_MAX);
    assert_eq!(shard.core.desk.calls.waiting_count(), 0);

    for _ in 0..WAITING_PER_SHARD_MAX / WAITING_PER_CONNECTION_MAX {
        shard.key = shard.core.open(0);
        for item in 0..WAITING_PER_CONNECTION_MAX as u32 {
            let kind = CallKind::SubmitSync { hash: B256::ZERO, timeout_ms: 1 };
            let place = Place { request: 0, item };
            shard.core.desk.calls.insert(Call { connection: shard.key, place, id: CallId::Absent, kind });
        }
    }
    shard.key = shard.core.open(0);
    shard.post(&body);
    let text = format!("too many calls of all connections wait for a receipt: {WAITING_PER_SHARD_MAX}, limit");
    assert!(shard.output().concat().contains(&text));
}

#[test]
fn requests_received_in_part_are_bounded_over_all_connections() {
    let mut shard = fixture();
    shard.core.buffered_bytes_max = 2_000;
    let partial = |bytes: usize| {
        let head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100000";
        format!("{head}\r\n\r\n{}", "x".repeat(bytes)).into_bytes()
    };
    let other = shard.core.open(0);
    shard.core.input(other, &mut partial(1_000), 0);
    shard.core.input(shard.key, &mut partial(500), 0);
    assert_eq!(shard.core.connection(shard.key).map(|connection| connection.output().len()), Some(0));
    let before = shard.core.buffered_bytes;
    assert!(before > 1_500);
    shard.core.input(shard.key, &mut [b'x'; 1_000], 0);
    let connection = shard.core.connection(shard.key).expect("not closed yet");
    assert!(connection.output().starts_with(b"HTTP/1.1 503 Service Unavailable\r\nConnection: close"));
    assert!(shard.core.buffered_bytes < 1_500, "given back at once");
    shard.core.close(other);
    shard.core.close(shard.key);
    assert_eq!(shard.core.buffered_bytes, 0);
    // Whole requests are not concerned.
    shard.core.buffered_bytes_max = 0;
    shard.key = shard.core.open(0);
    shard.post(r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}"#);
    assert_eq!(shard.output(), [r#"{"jsonrpc":"2.0","id":1,"result":"0xf214"}"#]);
}

#[test]
fn a_stop_takes_the_last_answers_and_tells_everyone_else() {
    let mut shard = fixture();
    shard.post(&send("1", &transfer(0)));
    shard.post(&call("2", "eth_sendRawTransactionSync", &transfer(1)));
    let query = r#"{"jsonrpc":"2.0","id":3,"method":"eth_getLogs","params":[{}]}"#;
    shard.post(&format!("[{}]", [query; RUNNING_PER_CONNECTION_MAX + 1].join(",")));
    let Submit { token, hash, .. } = shard.submit();
    assert!(shard.replies.push(BuilderReply::Admitted { token, hash, gate: Sequence(0) }).is_ok());
    shard.core.stop(0);
    let stopping = |id: u32| {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32000,"message":"the node is stopping"}}}}"#)
    };
    let batch = format!("[{}]", vec![stopping(3); RUNNING_PER_CONNECTION_MAX + 1].join(","));
    assert_eq!(shard.output(), [admitted("1", hash), stopping(2), batch]);
    let phase = shard.core.connection(shard.key).map(|connection| connection.phase());
    assert_eq!(phase, Some(crate::ingress::connection::Phase::Lingering));
}

#[test]
fn a_read_of_a_connection_that_is_gone_does_not_go_on_to_the_query_pool() {
    let mut shard = fixture();
    let hash = B256::repeat_byte(1);
    shard.post(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"eth_getTransactionByHash","params":["{hash}"]}}"#));
    let Some(IngressMessage::Read { token, .. }) = shard.inbox.pop() else { panic!("the builder core is asked") };
    shard.core.close(shard.key);
    shard.key = shard.core.open(0);
    let query = r#"{"jsonrpc":"2.0","id":2,"method":"eth_getLogs","params":[{}]}"#;
    shard.post(&format!("[{}]", [query; RUNNING_PER_CONNECTION_MAX + 1].join(",")));
    let reply = BuilderReply::Answer { token, answer: BuilderAnswer::Transaction(None), gate: Sequence(0) };
    assert!(shard.replies.push(reply).is_ok());
    shard.turn();
    let jobs: Vec<QueryJob> = shard.jobs.try_iter().collect();
    assert_eq!(jobs.len(), RUNNING_PER_CONNECTION_MAX, "the next connection's reads alone, and no more of them");
    assert!(jobs.iter().all(|job| job.params == b"[{}]"));
    for job in jobs {
        let reply = QueryReply { token: job.token, outcome: Ok(b"1".to_vec()), told: None, gate: Sequence(0) };
        assert!(shard.query_replies.push(reply).is_ok());
    }
    shard.turn();
    assert_eq!(shard.jobs.try_iter().count(), 1);
}

#[test]
fn accounts_are_asked_for_only_while_the_builder_core_waits_for_the_disk() {
    let mut shard = fixture();
    let shared = Arc::clone(shard.core.shared());
    shard.post(&call("1", "eth_sendRawTransaction", &transfer(0)));
    assert!(shared.cold.batches().is_empty());
    let mut watch = crate::topology::cold::FaultWatch::default();
    shared.cold.note(&mut watch, 1, 0);
    shard.post(&format!(
        "[{},{}]",
        call("2", "eth_sendRawTransaction", &transfer(1)),
        call("3", "eth_sendRawTransaction", &transfer(2))
    ));
    let mut expected = Vec::new();
    while let Some(message) = shard.inbox.pop() {
        let IngressMessage::Submit(submit) = message else { continue };
        expected.extend([Some(submit.sender), submit.fields.to].into_iter().flatten());
    }
    let asked: Vec<_> = shared.cold.batches().try_iter().collect();
    // One batch a turn, and nothing of the first transaction.
    assert_eq!(asked, [expected[2..].to_vec()]);
    assert_eq!(expected.len(), 6);
}
