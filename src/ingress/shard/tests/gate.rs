//! What a shard holds back until it is durable, and what wakes it then.

use super::*;

#[test]
fn the_gate_holds_replies_back_until_they_are_durable_and_keeps_their_order() {
    let mut shard = fixture();
    shard.post(&send("1", &transfer(0)));
    shard.post(&send("2", &transfer(1)));
    let (first, second) = (shard.submit(), shard.submit());
    shard.admit(&first, 5);
    shard.admit(&second, 6);
    assert_eq!(shard.output(), [""; 0]);
    assert!(!shard.core.has_work() || !shard.core.dirty.is_empty());
    shard.set_durable(5);
    assert!(shard.core.has_work());
    shard.turn();
    assert_eq!(shard.output(), [admitted("1", first.hash)]);
    shard.set_durable(6);
    shard.turn();
    assert_eq!(shard.output(), [admitted("2", second.hash)]);
}

#[test]
fn the_gate_alone_wakes_a_shard_and_only_for_what_it_waits_for() {
    let mut shard = fixture();
    let bell = Arc::clone(&shard.doorbell);
    let sleep = |shard: &mut Fixture| {
        shard.core.take_dirty(&mut shard.dirty);
        shard.core.await_gate();
        assert!(bell.poll(std::task::Waker::noop(), || shard.core.has_work()).is_pending());
        bell.wakeup_count()
    };
    shard.post(r#"{"jsonrpc":"2.0","id":1,"method":"eth_getLogs","params":[{}]}"#);
    let job = shard.jobs.try_recv().expect("sent to the query pool");
    shard.post(&send("2", &transfer(0)));
    let submit = shard.submit();
    shard.admit(&submit, 5);
    let reply = QueryReply { token: job.token, outcome: Ok(b"[]".to_vec()), told: None, gate: Sequence(3) };
    assert!(shard.query_replies.push(reply).is_ok());
    shard.turn();
    assert_eq!(sleep(&mut shard), 0);
    // The query's answer is first, although it came last.
    for (durable, wakeup_count) in [(2, 0), (3, 1), (4, 1), (5, 2)] {
        shard.set_durable(durable);
        assert_eq!(shard.doorbell.wakeup_count(), wakeup_count, "durable {durable}");
        if shard.core.has_work() {
            shard.turn();
            let output = shard.output().concat();
            let expected = if durable == 3 { r#""result":[]"# } else { r#""id":2"# };
            assert!(output.contains(expected), "durable {durable}: {output}");
        }
        sleep(&mut shard);
    }
    // Nothing is held any more.
    shard.set_durable(9);
    assert_eq!(shard.doorbell.wakeup_count(), 2);
}

#[test]
fn a_refusal_waits_for_what_it_compared_with() {
    let mut shard = fixture();
    shard.post(&send("1", &transfer(0)));
    let Submit { token, hash, .. } = shard.submit();
    let refusal = Refusal::Pool(Reject::NonceTooLow { tx: 0, account: 1 });
    assert!(shard.replies.push(BuilderReply::Refused { token, hash, refusal, gate: Sequence(4) }).is_ok());
    shard.turn();
    assert_eq!(shard.output(), [""; 0]);
    shard.set_durable(4);
    shard.turn();
    assert!(shard.output().concat().contains("nonce too low: tx 0, account 1"));
}

#[test]
fn that_the_node_takes_nothing_is_said_while_the_journal_stands_still() {
    let mut shard = fixture();
    shard.post(&send("1", &transfer(0)));
    let held = shard.submit();
    shard.admit(&held, 7);
    let first = std::mem::replace(&mut shard.key, ConnectionKey { connection: 0, generation: 0 });
    shard.key = shard.core.open(0);
    shard.post(&send("2", &transfer(1)));
    let Submit { token, hash, .. } = shard.submit();
    let refusal = Refusal::JournalBehind;
    assert!(shard.replies.push(BuilderReply::Refused { token, hash, refusal, gate: Sequence(0) }).is_ok());
    shard.turn();
    let expected = r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32005,"message":"the journal is behind: its disk is slow, try again","data":{"retryAfter":0.100}}}"#;
    assert_eq!(shard.output(), [expected]);
    shard.key = first;
    assert_eq!(shard.output(), [""; 0]);
    shard.set_durable(7);
    shard.turn();
    assert_eq!(shard.output(), [admitted("1", held.hash)]);
}

#[test]
fn replies_to_calls_that_are_over_do_not_pile_up_while_the_journal_stands_still() {
    let mut shard = fixture();
    shard.post(&call("1", "eth_sendRawTransactionSync", &transfer(0)));
    let live = shard.submit().token;
    let refused = |token: ReplyToken, sequence: u64| {
        let (refusal, gate) = (Refusal::Pool(Reject::AlreadyKnown), Sequence(sequence));
        BuilderReply::Refused { token, hash: B256::ZERO, refusal, gate }
    };
    assert!(shard.replies.push(refused(live, 1)).is_ok());
    let last = 3 * HELD_MAX as u64;
    let mut held_count_max = 0;
    for sequence in 2..=last {
        // Called, answered with what is not durable, over before it is.
        let call = Call {
            connection: shard.key,
            place: Place { request: 9, item: 0 },
            id: CallId::new(crate::codec::json_rpc::Id::Absent),
            kind: CallKind::SubmitSync { hash: B256::ZERO, timeout_ms: 1 },
        };
        let token = shard.core.desk.calls.insert(call);
        shard.core.desk.in_flight_count += 1;
        assert!(shard.replies.push(refused(token, sequence)).is_ok());
        shard.core.drain_builder(0);
        assert!(shard.core.desk.withdraw(token).is_some());
        assert!(shard.inbox.pop().is_some());
        held_count_max = held_count_max.max(shard.core.held.len());
    }
    assert_eq!(held_count_max, HELD_MAX);
    assert_eq!(shard.output(), [""; 0]);
    shard.set_durable(last);
    shard.turn();
    assert!(shard.output().concat().contains("already known"), "who still waited was kept");
    assert_eq!((shard.core.desk.in_flight_count, shard.core.held.len()), (0, 0));
}

#[test]
fn what_is_held_when_the_process_stops_leaves_once_the_journal_is_written() {
    let mut shard = fixture();
    shard.post(&send("1", &transfer(0)));
    let submit = shard.submit();
    shard.admit(&submit, 5);
    assert_eq!((shard.output(), shard.core.held.len()), (Vec::new(), 1));
    shard.set_durable(5);
    shard.core.stop(0);
    assert_eq!(shard.output(), [admitted("1", submit.hash)]);
}

#[test]
fn a_query_answer_waits_at_the_gate_too() {
    let mut shard = fixture();
    shard.post(r#"{"jsonrpc":"2.0","id":1,"method":"eth_getLogs","params":[{}]}"#);
    let job = shard.jobs.try_recv().expect("sent to the query pool");
    assert_eq!((job.params.as_slice(), job.deadline_ns), (&b"[{}]"[..], 2_000 * MS));
    let reply = QueryReply { token: job.token, outcome: Ok(b"[]".to_vec()), told: None, gate: Sequence(3) };
    assert!(shard.query_replies.push(reply).is_ok());
    shard.turn();
    assert_eq!(shard.output(), [""; 0]);
    shard.set_durable(3);
    shard.turn();
    assert_eq!(shard.output(), [r#"{"jsonrpc":"2.0","id":1,"result":[]}"#]);
    assert_eq!(shard.core.desk.query_count, 0);
}
