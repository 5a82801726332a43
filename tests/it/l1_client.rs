//! The L1 client against endpoints on loopback that are away, slow of mind, or lie.

mod server;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use alloy_primitives::{Address, B256};
use native_sequencer::l1::block::{Account, BlockId};
use native_sequencer::l1::client::error::{ClientError, EndpointError};
use native_sequencer::l1::client::follow::{Follower, L1Event};
use native_sequencer::l1::client::transport::Transport;
use native_sequencer::l1::client::wire::Url;
use native_sequencer::l1::client::{ClientSettings, L1Client, Successor};
use native_sequencer::l1::tx_manager::types::SendOutcome;
use native_sequencer::metrics::L1_WITHHELD;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use self::server::{Fault, Server};

const CHAIN_ID: u64 = 61_971;

fn client(servers: &[&Server]) -> L1Client {
    let urls = servers.iter().map(|server| Url::parse(&server.url()).expect("a URL")).collect();
    client_of(urls, 20)
}

fn client_of(urls: Vec<Url>, poll_ms: u64) -> L1Client {
    let settings = ClientSettings {
        urls,
        chain_id: CHAIN_ID,
        call_ns_max: 2_000_000_000,
        poll_ns: poll_ms * 1_000_000,
        meter: std::sync::Arc::default(),
    };
    L1Client::new(settings).expect("at least one endpoint")
}

/// Runs on a runtime of its own, and gives up after ten seconds.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(10), work).await.expect("an end within ten seconds")
    })
}

fn genesis(server: &Server) -> BlockId {
    BlockId { number: 0, hash: server.served().blocks[0].hash }
}

/// The block of this number as two or more endpoints have it, asked for behind its parent.
async fn block(client: &mut L1Client, chain: &Server, number: u64) -> Result<Successor, ClientError> {
    let hash = chain.served().blocks[number as usize - 1].hash;
    client.successor(BlockId { number: number - 1, hash }).await
}

#[track_caller]
fn hash_of(found: Result<Successor, ClientError>) -> B256 {
    match found {
        Ok(Successor::Block(block)) => block.header.hash,
        other => panic!("no block: {other:?}"),
    }
}

/// Everything up to the next head.
async fn until_head<T: Transport>(follower: &mut Follower, client: &mut L1Client<T>) -> Vec<L1Event> {
    let mut events = Vec::new();
    loop {
        match follower.next(client).await {
            Ok(event) => {
                let is_head = matches!(event, L1Event::Head(_));
                events.push(event);
                if is_head {
                    return events;
                }
            }
            Err(ClientError::ReorgBelowFinalized { .. }) => panic!("not below the final block"),
            Err(_) => {}
        }
    }
}

fn check_follows(no_debug: bool) {
    let server = Server::start();
    server.served().no_debug = no_debug;
    server.mine(6, 100);
    server.served().finalized = 2;
    let mut client = client(&[&server]);
    let mut follower = Follower::new(genesis(&server), &client);
    block_on(async {
        let events = until_head(&mut follower, &mut client).await;
        assert_eq!(events.len(), 6 + 2);
        for (event, number) in events.iter().zip(1_usize..=6) {
            let L1Event::Block(block) = event else { panic!("{event:?}") };
            let built = server.served().blocks[number].clone();
            assert_eq!((block.header.hash, block.header.mix_hash), (built.hash, built.header.mix_hash));
            assert_eq!(block.transactions, built.txs);
            let found: Vec<_> =
                block.execute_txs().map(|(at, _, receipt)| (at, receipt.success, receipt.gas_used)).collect();
            let expected = if built.txs.is_empty() { vec![] } else { vec![(0, true, 50_000), (2, false, 50_000)] };
            assert_eq!(found, expected);
        }
        assert!(matches!(events[6], L1Event::Finalized(BlockId { number: 2, .. })));
        // Four blocks are gone, three others came.
        server.served().blocks.truncate(3);
        server.mine(3, 200);
        let events = until_head(&mut follower, &mut client).await;
        assert_eq!(events[0], L1Event::Rewound { to: 2 });
        assert_eq!(events.len(), 1 + 3 + 1);
        // A longer one.
        server.served().blocks.truncate(4);
        server.mine(5, 300);
        let events = until_head(&mut follower, &mut client).await;
        assert_eq!((&events[0], events.len()), (&L1Event::Rewound { to: 3 }, 1 + 5 + 1));
        // And one below the final block.
        server.served().blocks.truncate(2);
        server.mine(9, 400);
        let error = loop {
            if let Err(error) = follower.next(&mut client).await {
                break error;
            }
        };
        assert!(matches!(error, ClientError::ReorgBelowFinalized { finalized: 2, .. }), "{error}");
    });
}

#[test]
fn it_follows_blocks_and_reorganisations() {
    check_follows(false);
}

#[test]
fn it_follows_without_debug_methods() {
    check_follows(true);
}

/// One of two endpoints has another chain below what is final: it is wrong, until both say so.
#[test]
fn one_endpoint_alone_does_not_replace_what_is_final() {
    let servers = [Server::start(), Server::start()];
    for server in &servers {
        server.mine(6, 100);
        server.served().finalized = 2;
    }
    let mut client = client(&[&servers[0], &servers[1]]);
    let mut follower = Follower::new(genesis(&servers[0]), &client);
    block_on(async {
        let events = until_head(&mut follower, &mut client).await;
        assert!(matches!(events[6], L1Event::Finalized(BlockId { number: 2, .. })), "{events:?}");
        servers[0].served().blocks.truncate(2);
        servers[0].mine(9, 400);
        servers[1].mine(1, 500);
        let events = until_head(&mut follower, &mut client).await;
        let honest = servers[1].served().blocks[7].hash;
        assert!(matches!(&events[..], [L1Event::Block(block), L1Event::Head(_)] if block.header.hash == honest));
    });
    let mut client = self::client(&[&servers[0], &servers[1]]);
    let mut follower = Follower::new(follower.finalized(), &client);
    block_on(async {
        servers[1].served().blocks.truncate(2);
        servers[1].mine(9, 400);
        let error = follower.next(&mut client).await.expect_err("both have another block 2");
        assert!(matches!(error, ClientError::ReorgBelowFinalized { finalized: 2, .. }), "{error}");
    });
}

#[track_caller]
fn check_lie(fault: Fault, no_debug: bool, words: &str) {
    let (liar, honest) = (Server::start(), Server::start());
    for server in [&liar, &honest] {
        server.mine(3, 100);
        server.served().no_debug = no_debug;
    }
    liar.served().fault = fault;
    block_on(async {
        let error = block(&mut client(&[&liar]), &liar, 1).await.expect_err("it lies").to_string();
        assert!(error.contains(words), "{error}");
        assert!(!error.contains("key-that-is-not-printed"), "{error}");
        let mut client = client(&[&liar, &honest]);
        let found = hash_of(block(&mut client, &honest, 1).await);
        assert_eq!(found, honest.served().blocks[1].hash);
        // It is not asked again.
        let calls = liar.served().calls.len();
        for number in 2..=3 {
            hash_of(block(&mut client, &honest, number).await);
        }
        assert_eq!(liar.served().calls.len(), calls);
    });
}

#[test]
fn a_liar_is_found_by_its_bytes_and_not_asked_again() {
    check_lie(Fault::Receipts, false, "receipts of block 1");
    check_lie(Fault::Transactions, false, "transactions of block 1");
    check_lie(Fault::Hash, true, "header of block 1 hashes to");
    check_lie(Fault::ChainId, false, "chain id 1, configured is 61971");
    check_lie(Fault::OtherTransaction, true, "transaction 0x");
    check_lie(Fault::ManyHashes, true, "with 70000 transactions");
}

/// A block that is read piece by piece has one time for all pieces; what was read of it is kept for the next try.
#[test]
fn a_block_in_pieces_has_one_deadline_and_goes_on_where_it_was() {
    let server = Server::start();
    let txs = (0..100_u8).map(|n| vec![2, n].into()).collect();
    let next = server::block_of(server.served().blocks.last(), 1, txs);
    server.served().blocks.push(next);
    server.served().no_debug = true;
    // A hundred pieces of half a second, and twelve times two seconds for one go.
    let wire = Direct { server: server.clone(), now_ns: Rc::default() };
    let mut client = L1Client::over([wire], CHAIN_ID, 2_000_000_000, 20_000_000);
    let mut refusals = 0;
    block_on(async {
        let hash = server.served().blocks[0].hash;
        let found = loop {
            match client.successor(BlockId { number: 0, hash }).await {
                Err(ClientError::Away(error)) if matches!(*error, EndpointError::TimedOut { limit_ms: 24_000, .. }) => {
                    refusals += 1;
                }
                // It rests until its clock has gone on.
                Err(ClientError::Away(_)) => {}
                found => break hash_of(found),
            }
        };
        assert_eq!(found, server.served().blocks[1].hash);
    });
    assert_eq!(refusals, 2, "fifty seconds of pieces");
    let served = server.served();
    let asked = served.calls.iter().filter(|method| *method == "eth_getRawTransactionByHash").count();
    assert_eq!(asked, 100, "none is asked for twice");
}

/// An endpoint without a socket, whose every answer takes half a second of a clock of its own.
struct Direct {
    server: Server,
    now_ns: Rc<Cell<u64>>,
}

impl Transport for Direct {
    fn name(&self) -> String {
        format!("direct:{}", self.server.address.port())
    }

    fn now_ns(&self) -> u64 {
        // Whoever looks at the clock waits a little.
        self.now_ns.set(self.now_ns.get() + 1_000_000);
        self.now_ns.get()
    }

    async fn pause(&self, ns: u64) {
        self.now_ns.set(self.now_ns.get() + ns);
    }

    async fn call(&mut self, method: &str, params: &str, _: Duration) -> Result<Box<RawValue>, EndpointError> {
        self.now_ns.set(self.now_ns.get() + 500_000_000);
        let params: serde_json::Value = serde_json::from_str(params).expect("the client writes JSON");
        let mut answer = server::answer(&mut self.server.served(), &json!({ "method": method, "params": params }));
        if let Some(code) = answer["error"]["code"].as_i64() {
            let message = answer["error"]["message"].as_str().unwrap_or_default().to_owned();
            let (endpoint, method) = (self.name(), method.to_owned());
            return Err(EndpointError::Rpc { endpoint, method, code, message, data: None });
        }
        Ok(to_raw_value(&answer["result"].take()).expect("a value is JSON"))
    }
}

/// One endpoint stands still: the blocks that two others have are told all the same.
#[test]
fn an_endpoint_that_stands_still_is_not_the_head() {
    let servers = [Server::start(), Server::start(), Server::start()];
    servers.iter().zip([2, 6, 6]).for_each(|(server, count)| server.mine(count, 100));
    let mut client = client(&[&servers[0], &servers[1], &servers[2]]);
    let mut follower = Follower::new(genesis(&servers[0]), &client);
    block_on(async {
        let mut told = 0;
        while told < 6 {
            for event in until_head(&mut follower, &mut client).await {
                assert!(!matches!(event, L1Event::Rewound { .. }), "{event:?}");
                told += usize::from(matches!(event, L1Event::Block(_)));
            }
        }
    });
}

/// Hashes of the blocks among these events; nothing was taken back.
#[track_caller]
fn hashes(events: &[L1Event]) -> Vec<B256> {
    assert!(!events.iter().any(|event| matches!(event, L1Event::Rewound { .. })), "{events:?}");
    let hash = |event: &L1Event| match event {
        L1Event::Block(block) => Some(block.header.hash),
        _ => None,
    };
    events.iter().filter_map(hash).collect()
}

/// One endpoint leads with blocks of its own making, each of which follows the one before: none is told, and those that two others have are.
#[test]
fn one_that_leads_with_a_chain_of_its_own_is_not_followed() {
    let [liar, first, second] = [Server::start(), Server::start(), Server::start()];
    [&liar, &first, &second].iter().for_each(|server| server.mine(3, 100));
    liar.mine(5, 900);
    let honest = |range: std::ops::RangeInclusive<usize>| -> Vec<B256> {
        first.served().blocks[range].iter().map(|block| block.hash).collect()
    };
    let mut three = client(&[&liar, &first, &second]);
    let mut follower = Follower::new(genesis(&liar), &three);
    block_on(async {
        assert_eq!(hashes(&until_head(&mut follower, &mut three).await), honest(1..=3));
        [&first, &second].iter().for_each(|server| server.mine(2, 200));
        assert_eq!(hashes(&until_head(&mut follower, &mut three).await), honest(4..=5));
        // It goes on leading, on a chain that is not ours any more.
        liar.mine(5, 950);
        [&first, &second].iter().for_each(|server| server.mine(2, 300));
        assert_eq!(hashes(&until_head(&mut follower, &mut three).await), honest(6..=7));
    });
    let now_ns = Rc::new(Cell::new(0));
    let direct = |server: &Server| Direct { server: server.clone(), now_ns: Rc::clone(&now_ns) };
    let mut two = L1Client::over([direct(&liar), direct(&first)], CHAIN_ID, 2_000_000_000, 20_000_000);
    let mut follower = Follower::new(genesis(&liar), &two);
    block_on(async {
        for hash in honest(1..=3) {
            let event = follower.next(&mut two).await;
            assert!(matches!(&event, Ok(L1Event::Block(block)) if block.header.hash == hash), "{event:?}");
        }
        // Behind it the two contradict each other, and after a while that is said.
        let error = follower.next(&mut two).await.expect_err("neither is believed");
        assert!(matches!(error, ClientError::Withheld { next: 4, .. }), "{error}");
        let chain = first.served().blocks.clone();
        liar.served().blocks = chain;
        assert_eq!(hashes(&until_head(&mut follower, &mut two).await), honest(4..=7));
    });
}

/// One endpoint alone was there, with a chain of its own, and its blocks were told: what two others call final takes them back.
#[test]
fn what_two_call_final_takes_back_what_one_alone_had_told() {
    let [liar, first, second] = [Server::start(), Server::start(), Server::start()];
    liar.mine(6, 900);
    [&first, &second].iter().for_each(|server| {
        server.mine(5, 100);
        server.served().finalized = 3;
        server.served().fault = Fault::Http500;
    });
    let mut client = client(&[&liar, &first, &second]);
    let mut follower = Follower::new(genesis(&liar), &client);
    block_on(async {
        while follower.tip().number < 6 {
            // At first the others are waited for.
            let event = follower.next(&mut client).await;
            assert!(matches!(event, Ok(L1Event::Block(_)) | Err(_)), "{event:?}");
        }
        [&first, &second].iter().for_each(|server| server.served().fault = Fault::None);
        // Until they are asked again.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let events = until_head(&mut follower, &mut client).await;
        assert_eq!(events[0], L1Event::Rewound { to: 0 }, "{events:?}");
        let honest: Vec<B256> = first.served().blocks[1..].iter().map(|block| block.hash).collect();
        assert_eq!(hashes(&events[1..]), honest);
        assert_eq!(follower.finalized(), BlockId { number: 3, hash: honest[2] });
    });
}

/// A head whose block never comes is told with its endpoint and its number, once in the counter; beside another endpoint it is counted and no error.
#[test]
fn a_head_without_its_block_is_told_with_its_endpoint() {
    let now_ns = Rc::new(Cell::new(0));
    let direct = |server: &Server| Direct { server: server.clone(), now_ns: Rc::clone(&now_ns) };
    let (far, honest) = (Server::start(), Server::start());
    [&far, &honest].iter().for_each(|server| server.mine(2, 100));
    far.served().fault = Fault::FarHead;
    let withheld = |client: &L1Client<Direct>| client.meter().failed.get(L1_WITHHELD);
    let mut one = L1Client::over([direct(&far)], CHAIN_ID, 2_000_000_000, 20_000_000);
    let mut follower = Follower::new(genesis(&far), &one);
    block_on(async {
        for _ in 0..2 {
            assert!(matches!(follower.next(&mut one).await, Ok(L1Event::Block(_))));
        }
        for _ in 0..3 {
            let error = follower.next(&mut one).await.expect_err("there is no block 3");
            let ClientError::Withheld { endpoint, head: 1_000_000, next: 3 } = &error else { panic!("{error}") };
            assert!(endpoint.contains(&far.address.port().to_string()), "{error}");
        }
        assert_eq!(withheld(&one), 1);
        far.served().fault = Fault::None;
        assert_eq!(until_head(&mut follower, &mut one).await.len(), 1);
    });
    far.served().fault = Fault::FarHead;
    let mut two = L1Client::over([direct(&far), direct(&honest)], CHAIN_ID, 2_000_000_000, 20_000_000);
    let mut follower = Follower::new(genesis(&far), &two);
    block_on(async {
        let start_ns = now_ns.get();
        for salt in 0..20 {
            [&far, &honest].iter().for_each(|server| server.mine(1, 200 + salt));
            loop {
                let event = follower.next(&mut two).await.expect("the other one has everything");
                if matches!(event, L1Event::Head(_)) {
                    break;
                }
            }
        }
        assert!(now_ns.get() > start_ns + 30_000_000_000);
        assert_eq!(withheld(&two), 1);
    });
}

/// One endpoint names a head that is not there: everything that is there is told, and is the head.
#[test]
fn a_head_that_nobody_has_hides_none() {
    let servers = [Server::start(), Server::start()];
    servers.iter().for_each(|server| server.mine(4, 100));
    servers[0].served().fault = Fault::FarHead;
    let mut client = client(&[&servers[0], &servers[1]]);
    let mut follower = Follower::new(genesis(&servers[0]), &client);
    block_on(async {
        let events = until_head(&mut follower, &mut client).await;
        assert_eq!(events.len(), 4 + 1, "{events:?}");
    });
}

/// One of two has another chain above what is final: nothing is taken back for it, until the other has it as well.
#[test]
fn one_endpoint_alone_takes_nothing_back() {
    let servers = [Server::start(), Server::start()];
    servers.iter().for_each(|server| server.mine(5, 100));
    let mut client = client(&[&servers[0], &servers[1]]);
    let mut follower = Follower::new(genesis(&servers[0]), &client);
    block_on(async {
        assert_eq!(until_head(&mut follower, &mut client).await.len(), 5 + 1);
        let fork = |server: &Server| {
            server.served().blocks.truncate(3);
            server.mine(6, 400);
        };
        fork(&servers[0]);
        let mut contradictions = 0;
        while contradictions < 4 {
            match follower.next(&mut client).await {
                Err(ClientError::NotAgreed(_)) => contradictions += 1,
                Ok(L1Event::Head(head)) => assert_eq!(head.number, 5),
                other => panic!("{other:?}"),
            }
        }
        // The one that has it does not answer: the other's word is what there was.
        servers[0].served().fault = Fault::Http500;
        servers[1].mine(1, 900);
        let events = until_head(&mut follower, &mut client).await;
        assert!(matches!(&events[..], [L1Event::Block(block), L1Event::Head(_)] if block.header.number == 6));
        // And one that forks while the other is away has to wait for it.
        fork(&servers[1]);
        for _ in 0..4 {
            let error = follower.next(&mut client).await.expect_err("one alone");
            assert!(matches!(error, ClientError::NotAgreed(_) | ClientError::Away(_)), "{error}");
        }
        servers[0].served().fault = Fault::None;
        let events = until_head(&mut follower, &mut client).await;
        assert_eq!(events[0], L1Event::Rewound { to: 2 }, "{events:?}");
        assert_eq!(follower.tip().hash, servers[0].served().blocks[8].hash);
    });
}

/// Two of three have an account's nonce: the third lied. Of two that contradict each other neither is believed.
#[test]
fn two_must_agree_on_an_account() {
    let [liar, first, second] = [Server::start(), Server::start(), Server::start()];
    liar.served().nonce_more = 1_000;
    let at = genesis(&liar);
    block_on(async {
        let error = client(&[&liar, &first]).account(Address::ZERO, at).await.expect_err("they disagree");
        assert!(matches!(&error, ClientError::NotAgreed(what) if what.contains("nonce 1007")), "{error}");
        let mut three = client(&[&liar, &first, &second]);
        let account = three.account(Address::ZERO, at).await.expect("two agree");
        assert_eq!((account.nonce, account.is_confirmed), (7, true));
        let calls = liar.served().calls.len();
        three.account(Address::ZERO, at).await.expect("two agree");
        assert_eq!(liar.served().calls.len(), calls, "it is not asked again");
        first.served().fault = Fault::Http500;
        let account = client(&[&liar, &first]).account(Address::ZERO, at).await.expect("one answers");
        assert_eq!((account.nonce, account.is_confirmed), (1_007, false));
        assert!(
            client(&[&second]).account(Address::ZERO, at).await.expect("it answers").is_confirmed,
            "there is none else"
        );
    });
}

/// In a short fork two endpoints have other accounts at one number: who does not know the block has not lied about it.
#[test]
fn an_account_is_asked_for_at_a_block_and_not_at_a_number() {
    let [first, forked, third] = [Server::start(), Server::start(), Server::start()];
    [&first, &forked, &third].iter().for_each(|server| server.mine(3, 100));
    forked.served().blocks.pop();
    forked.mine(1, 500);
    forked.served().nonce_more = 1;
    let at = BlockId { number: 3, hash: first.served().blocks[3].hash };
    block_on(async {
        let account = client(&[&first, &forked]).account(Address::ZERO, at).await.expect("one knows the block");
        assert_eq!((account.nonce, account.is_confirmed), (7, false));
        let mut three = client(&[&forked, &first, &third]);
        for _ in 0..2 {
            let calls = forked.served().calls.len();
            let account = three.account(Address::ZERO, at).await.expect("two know the block");
            assert_eq!((account.nonce, account.is_confirmed), (7, true));
            assert!(forked.served().calls.len() > calls, "it is asked again: nothing was disproved");
        }
    });
}

#[test]
fn one_that_is_out_of_order_is_passed_over() {
    for fault in [Fault::Http500, Fault::NotJson] {
        let (broken, honest) = (Server::start(), Server::start());
        honest.mine(1, 1);
        broken.served().fault = fault;
        block_on(async {
            let error = client(&[&broken]).heads(0).await.expect_err("it is broken");
            assert!(matches!(error, ClientError::Away(_)), "{error}");
            let heads = client(&[&broken, &honest]).heads(0).await.expect("one works");
            assert_eq!((heads.len(), heads[0].number), (1, 1));
        });
    }
    let gone = Url::parse("http://127.0.0.1:1").expect("a URL");
    let error = block_on(async { client_of(vec![gone], 20).heads(0).await.expect_err("nobody is there") });
    assert!(matches!(error, ClientError::Away(error) if matches!(*error, EndpointError::Unreachable { .. })));
}

#[test]
fn a_liar_alone_is_asked_again_after_seconds() {
    let server = Server::start();
    server.mine(1, 1);
    server.served().fault = Fault::Receipts;
    block_on(async {
        let mut client = client(&[&server]);
        block(&mut client, &server, 1).await.expect_err("it lies");
        server.served().fault = Fault::None;
        block(&mut client, &server, 1).await.expect_err("not asked yet");
        while block(&mut client, &server, 1).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

#[test]
fn two_must_agree_on_what_is_final() {
    let servers = [Server::start(), Server::start(), Server::start()];
    for (server, finalized) in servers.iter().zip([3, 2, 4]) {
        server.mine(5, 100);
        server.served().finalized = finalized;
    }
    let [first, second, third] = &servers;
    block_on(async {
        // Two have 3 or more as final.
        assert_eq!(client(&[first, second, third]).finalized().await.map(|block| block.number), Ok(3));
        assert_eq!(client(&[first, second]).finalized().await.map(|block| block.number), Ok(2));
        second.served().fault = Fault::Finalized;
        let error = client(&[first, second]).finalized().await.expect_err("they disagree");
        assert!(matches!(error, ClientError::NotAgreed(_)), "{error}");
        let mut three = client(&[first, second, third]);
        second.served().finalized = 4;
        // Whom two contradict lied, and is not asked again.
        assert_eq!(three.finalized().await.map(|block| block.number), Ok(3));
        let calls = second.served().calls.len();
        assert_eq!(three.finalized().await.map(|block| block.number), Ok(3));
        assert_eq!(second.served().calls.len(), calls);
        // With one of three away, two are enough; with two away, nothing is.
        second.served().fault = Fault::Http500;
        assert_eq!(client(&[first, second, third]).finalized().await.map(|block| block.number), Ok(3));
        third.served().fault = Fault::Http500;
        assert!(matches!(client(&[first, second, third]).finalized().await, Err(ClientError::NotAgreed(_))));
    });
}

#[test]
fn what_is_sent_goes_to_all_and_errors_have_a_meaning() {
    let (first, second) = (Server::start(), Server::start());
    block_on(async {
        let mut client = client(&[&first, &second]);
        assert_eq!(client.send_raw(&[5, 6]).await, SendOutcome::Accepted);
        assert_eq!((first.served().sent.len(), second.served().sent.len()), (1, 1));
        first.served().send_error = Some("replacement transaction underpriced");
        assert_eq!(client.send_raw(&[5, 6]).await, SendOutcome::Accepted);
        for (message, outcome) in [
            ("already known", SendOutcome::Accepted),
            ("nonce too low: next nonce 5, tx nonce 4", SendOutcome::NonceTooLow),
            ("transaction underpriced: gas tip cap 1, minimum needed 1000000", SendOutcome::Underpriced),
            ("transaction gas price below minimum: gas tip cap 0, minimum needed 1", SendOutcome::Underpriced),
            ("insufficient funds for gas * price + value", SendOutcome::InsufficientFunds),
            (
                "transaction size 200000, limit 131072",
                SendOutcome::Refused { message: "transaction size 200000, limit 131072".to_owned() },
            ),
        ] {
            first.served().send_error = Some(message);
            second.served().send_error = Some(message);
            assert_eq!(client.send_raw(&[5, 6]).await, outcome);
        }
    });
}

#[test]
fn accounts_fees_and_foreign_calls() {
    let server = Server::start();
    block_on(async {
        let mut client = client(&[&server]);
        let account = client.account(Address::ZERO, genesis(&server)).await.expect("it answers");
        let Account { nonce, nonce_pending, nonce_final, balance_wei, .. } = account;
        assert_eq!((nonce, nonce_pending, nonce_final, balance_wei.to::<u64>()), (7, 9, 0, 5));
        assert_eq!(client.tip_wei().await, Ok(1_000_000_000));
        let params = RawValue::from_string("[]".to_owned()).expect("JSON");
        assert_eq!(client.request("eth_chainId", &params).await.expect("it answers").get(), "\"0xf213\"");
        let error = client.request("eth_nothing", &params).await.expect_err("no such method");
        let ClientError::Refused(error) = error else { panic!("{error}") };
        assert!(matches!(*error, EndpointError::Rpc { code: -32601, .. }));
        assert!(error.is_method_missing());
        let params = RawValue::from_string(format!("[\"{}\"]", B256::ZERO)).expect("JSON");
        assert_eq!(client.request("eth_getBlockReceipts", &params).await.expect("null").get(), "null");
    });
}

#[test]
fn a_websocket_tells_of_a_head_before_the_poll() {
    let server = Server::start();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (tell, told) = std::sync::mpsc::sync_channel::<()>(1);
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a caller");
        let mut socket = tungstenite::accept(stream).expect("a handshake");
        let subscription = socket.read().expect("a subscription").into_text().expect("text");
        assert!(subscription.contains("newHeads"));
        while told.recv().is_ok() {
            socket.send(tungstenite::Message::text(r#"{"method":"eth_subscription"}"#)).expect("open");
        }
    });
    let urls = vec![Url::parse(&server.url()).expect("a URL"), Url::parse(&format!("ws://{address}")).expect("a URL")];
    // Polled every hour: within the ten seconds of a test, only the WebSocket can tell.
    let mut client = client_of(urls, 3_600_000);
    let mut follower = Follower::new(genesis(&server), &client);
    block_on(async {
        assert_eq!(until_head(&mut follower, &mut client).await.len(), 1);
        server.mine(1, 5);
        tell.send(()).expect("its thread runs");
        assert_eq!(until_head(&mut follower, &mut client).await.len(), 2);
    });
}

#[test]
fn urls_are_read_and_never_shown_with_their_keys() {
    let shown = |text: &str| Url::parse(text).map(|url| url.to_string()).map_err(|error| error.to_string());
    assert_eq!(shown("http://localhost:8545"), Ok("http://localhost:8545".to_owned()));
    assert_eq!(shown("https://l1.example/v3/secret"), Ok("https://l1.example:443".to_owned()));
    assert_eq!(shown("wss://[::1]:9/secret"), Ok("wss://[::1]:9".to_owned()));
    assert_eq!(shown("ws://[::1]"), Ok("ws://[::1]:80".to_owned()));
    for text in ["localhost:8545", "ftp://a", "http://", "http://a:99999", "http://user:secret@a", "http://a/\u{e4}"] {
        let error = shown(text).expect_err(text);
        assert!(!error.contains("secret"), "{error}");
    }
}
