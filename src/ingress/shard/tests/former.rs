//! Transactions of several connections wait for each other where that is worth it, and one alone never does.

use super::*;

const WAIT_NS: u64 = 100_000;
/// Faster than any client that waits for its answer.
const GAP_NS: u64 = 20_000;

fn waiting() -> Fixture {
    fixture_with(|seat| seat.settings.http.batch_wait_ns = WAIT_NS)
}

impl Fixture {
    fn arrive(&mut self, key: ConnectionKey, nonce: u64) {
        self.now_ns += GAP_NS;
        self.core.input(key, &mut http(&send("1", &transfer(nonce))), self.now_ns);
        self.core.form(self.now_ns, || 0);
    }

    fn submitted_count(&mut self) -> usize {
        std::iter::from_fn(|| self.inbox.pop()).count()
    }
}

#[test]
fn a_lone_request_never_waits() {
    let mut shard = waiting();
    // Others are connected and say nothing.
    for _ in 0..5 {
        shard.core.open(0);
    }
    for nonce in 0..50 {
        shard.arrive(shard.key, nonce);
        assert_eq!(shard.submitted_count(), 1, "request {nonce}");
        assert_eq!(shard.core.next_deadline_ns(), u64::MAX);
    }
}

#[test]
fn requests_of_many_connections_are_recovered_together_and_none_waits_for_longer_than_configured() {
    let mut shard = waiting();
    let keys: Vec<ConnectionKey> = (0..8).map(|_| shard.core.open(0)).collect();
    let mut arrived = vec![];
    for nonce in 0..90 {
        shard.arrive(keys[nonce as usize % keys.len()], nonce);
        arrived.push(shard.now_ns);
        let due_ns = shard.core.next_deadline_ns();
        // What waits is neither work nor forgotten: the driver sleeps until it is due.
        if due_ns == u64::MAX {
            let count = shard.submitted_count();
            assert!(count >= 1);
            let oldest_ns = arrived[arrived.len() - count];
            assert!(shard.now_ns - oldest_ns <= WAIT_NS, "request {nonce}");
            arrived.clear();
        } else {
            assert_eq!(due_ns, arrived[0] + WAIT_NS);
            assert!(shard.inbox.is_empty());
        }
    }
    // The load is known by now: six in 100 µs.
    shard.now_ns += WAIT_NS;
    shard.core.form(shard.now_ns, || 0);
    shard.submitted_count();
    for (nonce, key) in (90..96).zip(&keys) {
        assert!(shard.inbox.is_empty(), "before request {nonce}");
        shard.arrive(*key, nonce);
    }
    assert_eq!(shard.submitted_count(), 6);
    assert!(shard.core.next_deadline_ns() == u64::MAX);
}

#[test]
fn a_read_reaches_the_builder_though_transactions_wait() {
    let mut shard = waiting();
    let keys: Vec<ConnectionKey> = (0..8).map(|_| shard.core.open(0)).collect();
    let mut nonce = 0;
    while shard.core.next_deadline_ns() == u64::MAX {
        shard.arrive(keys[nonce as usize % keys.len()], nonce);
        nonce += 1;
        assert!(nonce < 90, "the load is known by now");
    }
    shard.submitted_count();
    let read = r#"{"jsonrpc":"2.0","id":1,"method":"eth_getTransactionCount","params":["0x0707070707070707070707070707070707070707","pending"]}"#;
    shard.core.input(shard.key, &mut http(read), shard.now_ns);
    shard.core.turn(shard.now_ns);
    assert!(matches!(shard.inbox.pop(), Some(IngressMessage::Read { .. })));
    assert!(!shard.core.desk.must_wake_builder, "it was woken");
}
