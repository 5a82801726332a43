//! The core against a client that the test plays: what it asks, what it admits, what a block does to the pool and to those who wait.

use super::*;
use crate::builder::block_execution::{PreparedTx, Receipt};
use crate::builder::replay::genesis_block;
use crate::config::genesis::{DEV_ACCOUNTS, dev_genesis};
use crate::journal::record::Record;
use crate::mempool::{Limits, PriorityFee};
use crate::messages::{BuiltBlock, BuiltTx, SubmitWait};
use crate::primitives::B256;
use crate::state::{AccountChange, AccountInfo, CODE_HASH_EMPTY, StateChanges};
use crate::testing::bench_chain::{BenchChain, Collected};
use crate::testing::signing::TestKey;

const TO: Address = Address::repeat_byte(0x77);
const S: u64 = 1_000_000_000;

/// A core, and what it said. The bench's own core only makes messages, and its slab holds their bytes.
struct Bench {
    maker: BenchChain,
    core: DelegatedCore,
    effects: Collected,
    asks: Vec<Ask>,
    keys: Vec<TestKey>,
    now: Now,
    checked: u64,
}

fn bench() -> Bench {
    let maker = BenchChain::new(dev_genesis(Fork::Osaka, 10).expect("built in"));
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread"));
    let genesis = genesis_block(&maker.spec, &mut crate::testing::state_disk::store(pool)).expect("it commits");
    let settings = CoreSettings {
        interval_ns: S,
        empty_interval_ns: 0,
        timestamp_lead_s: 1,
        gas_limit_target: genesis.header.gas_limit,
        coinbase: Address::ZERO,
        extra_data: Bytes::new(),
        execute: true,
        settlement_bytes_max: None,
    };
    let limits = Limits::new(maker.spec.chain_id, genesis.header.gas_limit);
    let now = maker.now;
    let core = DelegatedCore::new(
        settings,
        Mempool::new(limits, Box::new(PriorityFee), 0, 1),
        vec![maker.slab.reader()],
        Arc::new(BlockMemory::new(1, limits::BLOCK_BODY_BYTES_MAX)),
        vec![Arc::new(genesis)],
        Sequence(0),
        0,
        Box::new(|_| Fork::Osaka),
        now,
    );
    let effects = Collected { chain_room: usize::MAX, keeps_records: true, ..Collected::default() };
    let keys = DEV_ACCOUNTS.iter().map(|(_, secret)| TestKey::from_hex(secret)).collect();
    let mut bench = Bench { maker, core, effects, asks: Vec::new(), keys, now, checked: 0 };
    bench.verdict(0);
    bench
}

impl Bench {
    fn verdict(&mut self, checked: u64) {
        self.checked = checked;
        self.core.on_verdict(checked, true, false, self.now, &mut self.effects, &mut self.asks);
    }

    fn submit(&mut self, key: usize, nonce: u64, wait: SubmitWait) -> B256 {
        let raw = self.keys[key].transfer(self.maker.spec.chain_id, nonce, TO, 1);
        let message = self.maker.message(&raw, wait, None);
        self.core.on_message(ShardId(0), message, self.now, &mut self.effects, &mut self.asks);
        crate::codec::transaction::tx_hash(&raw)
    }

    /// Answers every account that is asked for.
    fn answer_accounts(&mut self, nonce: u64) -> usize {
        let asked: Vec<_> = self.asks.drain(..).collect();
        let count = asked.len();
        for ask in asked {
            let Ask::Account { address, head } = ask else { panic!("{ask:?} is no account") };
            let answer = AccountAnswer { address, head, view: Ok(any_account(nonce)) };
            self.core.on_account(answer, self.now, &mut self.effects, &mut self.asks);
        }
        count
    }

    fn turn(&mut self) -> NextTurn {
        self.core.turn(self.now, &mut self.effects, &mut self.asks)
    }

    /// Lets the gathering's time pass; the block that is asked for.
    fn request(&mut self) -> BuildRequest {
        assert!(matches!(self.turn(), NextTurn::At(_)), "it gathers first");
        self.now.monotonic_ns += 2 * S;
        self.now.unix_ns += 2 * S;
        assert_eq!(self.turn(), NextTurn::OnMessage);
        match self.asks.pop() {
            Some(Ask::Build(request)) => *request,
            other => panic!("a block was expected: {other:?}"),
        }
    }

    /// The client's block of a request: every transfer used all its gas, the senders' accounts are as they would be.
    fn built(&self, request: &BuildRequest) -> BuiltBlock {
        let context = &request.context;
        let prepared = |tx: &BuildTx| PreparedTx::recover(tx.raw.clone()).expect("it is signed");
        let transactions: Vec<BuiltTx> =
            request.transactions.iter().map(|tx| BuiltTx { hash: tx.hash, tx: prepared(tx) }).collect();
        let receipt = |index: usize| Receipt {
            tx_type: 2,
            success: true,
            gas_used: 21_000,
            cumulative_gas_used: 21_000 * (index as u64 + 1),
            logs: Vec::new(),
        };
        let header = alloy_consensus::Header {
            number: context.number,
            parent_hash: context.parent_hash,
            timestamp: context.timestamp,
            gas_limit: context.gas_limit,
            gas_used: 21_000 * transactions.len() as u64,
            base_fee_per_gas: Some(context.base_fee_per_gas_wei),
            ..alloy_consensus::Header::default()
        };
        let mut changes = StateChanges::default();
        for tx in &transactions {
            changes.accounts.retain(|change| change.address != tx.tx.sender);
            changes.accounts.push(AccountChange {
                address: tx.tx.sender,
                account: Some(AccountInfo {
                    nonce: tx.tx.decoded.fields.nonce + 1,
                    balance_wei: U256::MAX,
                    code_hash: CODE_HASH_EMPTY,
                }),
                storage_cleared: false,
                storage: Vec::new(),
            });
        }
        BuiltBlock {
            hash: header.hash_slow(),
            header,
            receipts: (0..transactions.len()).map(receipt).collect(),
            transactions,
            requests: Vec::new(),
            changes,
            codes: Vec::new(),
            has_foreign: false,
        }
    }

    fn take(&mut self, built: BuiltBlock) {
        self.core.on_build(BuildAnswer::Built(Box::new(built)), self.now, &mut self.effects);
    }

    /// What was said since the last look, in words.
    fn said(&mut self) -> Vec<String> {
        let shown = |reply: &BuilderReply| match reply {
            BuilderReply::Admitted { .. } => "admitted".to_owned(),
            BuilderReply::Refused { refusal: Refusal::Pool(reject), .. } => format!("refused: {reject}"),
            BuilderReply::Refused { refusal, .. } => format!("refused: {refusal:?}"),
            BuilderReply::Preconfirmed { index, .. } => format!("placed at {index}"),
            BuilderReply::Ended { end, .. } => format!("ended: {end}"),
            BuilderReply::Unready { reason, .. } => format!("unready: {reason:?}"),
            BuilderReply::Answer { answer, .. } => format!("{answer:?}"),
        };
        self.effects.replies.drain(..).map(|(_, reply)| shown(&reply)).collect()
    }

    /// The kinds of the records, in order.
    fn records(&mut self) -> String {
        let bytes = std::mem::take(&mut self.effects.records);
        let mut rest = bytes.as_slice();
        let mut kinds = String::new();
        while !rest.is_empty() {
            let length = u32::from_le_bytes(rest[..4].try_into().expect("four bytes")) as usize;
            let (record, after) = rest.split_at(length);
            rest = after;
            kinds.push(match Record::decode(record).expect("it was encoded here").1 {
                Record::Admitted(_) => 'a',
                Record::Carried { .. } => 'c',
                Record::Dropped { .. } => 'd',
                Record::Opened { .. } => 'o',
                Record::Placed { .. } => 'p',
                Record::Closed { .. } => 'x',
                Record::Sealed { .. } => 's',
                Record::RolledBack { .. } => 'r',
            });
        }
        kinds
    }
}

#[test]
fn an_account_is_asked_for_once_and_what_waits_for_it_keeps_its_order() {
    let mut bench = bench();
    for nonce in 0..3 {
        bench.submit(0, nonce, SubmitWait::Admission);
    }
    bench.submit(1, 0, SubmitWait::Admission);
    assert_eq!(bench.said(), [""; 0]);
    assert_eq!(bench.answer_accounts(0), 2);
    assert_eq!(bench.said(), ["admitted"; 4]);
    // Known now: admitted at once.
    bench.submit(0, 3, SubmitWait::Admission);
    bench.submit(0, 3, SubmitWait::Admission);
    assert_eq!(bench.said(), ["admitted", "refused: already known"]);
    assert!(bench.asks.is_empty());
    assert_eq!(bench.records(), "aaaaa");
}

#[test]
fn a_block_comes_whole_and_is_latest_when_the_client_stands_on_it() {
    let mut bench = bench();
    let first = bench.submit(0, 0, SubmitWait::Admission);
    bench.submit(0, 1, SubmitWait::Admission);
    bench.submit(1, 0, SubmitWait::Preconfirmation);
    bench.answer_accounts(0);
    let request = bench.request();
    assert_eq!((request.context.number, request.transactions.len()), (1, 3));
    let nonces_of_first: Vec<B256> = {
        let sender = request.transactions.iter().find(|tx| tx.hash == first).expect("it is there").sender;
        request.transactions.iter().filter(|tx| tx.sender == sender).map(|tx| tx.hash).collect()
    };
    assert_eq!((nonces_of_first[0], nonces_of_first.len()), (first, 2));
    // While the client builds, nothing of it is replaced, and nothing else is asked for.
    bench.said();
    bench.submit(0, 1, SubmitWait::Admission);
    bench.submit(0, 2, SubmitWait::Admission);
    assert_eq!(bench.said(), ["refused: already known", "admitted"]);
    assert_eq!(bench.turn(), NextTurn::OnMessage);
    bench.records();
    let built = bench.built(&request);
    let hash = built.hash;
    bench.take(built);
    assert_eq!(bench.records(), "opppxs");
    assert_eq!(bench.said(), [""; 0], "nobody is told before it is latest");
    let heads = bench.core.heads();
    assert_eq!((heads.latest.header.number, heads.recent.last().expect("there").hash), (0, hash));
    // Not before the client's head is there.
    assert!(matches!(bench.turn(), NextTurn::Held(_)));
    bench.verdict(1);
    assert_eq!(bench.said().len(), 1);
    assert_eq!(bench.core.heads().latest.hash, hash);
    let sealed = Arc::clone(&bench.core.heads().latest);
    assert_eq!((sealed.block.transactions.len(), sealed.header.gas_used), (3, 63_000));
    // The senders are known from the block itself: nothing is asked.
    bench.submit(1, 1, SubmitWait::Admission);
    assert_eq!((bench.said(), bench.asks.len()), (vec!["admitted".to_owned()], 0));
    let request = bench.request();
    assert_eq!((request.context.number, request.context.parent_hash, request.transactions.len()), (2, hash, 2));
}

#[test]
fn one_that_the_client_cannot_place_ends_with_the_reason_and_the_rest_is_asked_for_again() {
    let mut bench = bench();
    let bad = bench.submit(0, 0, SubmitWait::Preconfirmation);
    bench.submit(0, 1, SubmitWait::Admission);
    bench.submit(1, 0, SubmitWait::Admission);
    bench.answer_accounts(0);
    bench.request();
    bench.said();
    let reason = "insufficient funds for gas * price + value: address 0x12 have 5 want 21000".to_owned();
    bench.core.on_build(BuildAnswer::Refused { hash: bad, reason }, bench.now, &mut bench.effects);
    let said = bench.said();
    assert!(said[0].contains("insufficient funds") && said[0].contains("21000, balance 5"), "{said:?}");
    assert_eq!(bench.turn(), NextTurn::OnMessage);
    let Some(Ask::Build(request)) = bench.asks.pop() else { panic!("the rest") };
    assert_eq!(request.transactions.len(), 1, "what follows it waits for its nonce");
    assert!(bench.records().ends_with('d'));
}

#[test]
fn without_an_answer_it_is_refused_and_a_failed_block_is_asked_for_again() {
    let mut bench = bench();
    bench.submit(0, 0, SubmitWait::Admission);
    let Some(Ask::Account { address, head }) = bench.asks.pop() else { panic!("an account") };
    let answer = AccountAnswer { address, head, view: Err("connection refused".to_owned()) };
    bench.core.on_account(answer, bench.now, &mut bench.effects, &mut bench.asks);
    assert_eq!(bench.said(), ["refused: ClientAway"]);
    // A question that is never answered ends too.
    bench.submit(0, 0, SubmitWait::Admission);
    bench.now.monotonic_ns += LOOK_UP_NS_MAX + 1;
    bench.turn();
    assert_eq!(bench.said(), ["refused: ClientAway"]);
    bench.submit(1, 0, SubmitWait::Admission);
    bench.answer_accounts(0);
    assert_eq!(bench.said(), ["admitted"]);
    bench.request();
    bench.core.on_build(BuildAnswer::Failed { why: "away".to_owned() }, bench.now, &mut bench.effects);
    assert!(matches!(bench.turn(), NextTurn::At(_)));
    bench.now.monotonic_ns += 2 * S;
    bench.turn();
    assert!(matches!(bench.asks.pop(), Some(Ask::Build(_))));
    // What cannot be is not tried for ever.
    bench.core.on_build(BuildAnswer::Contradicted { why: "roots".to_owned() }, bench.now, &mut bench.effects);
    bench.submit(1, 1, SubmitWait::Admission);
    assert_eq!(bench.said(), ["refused: Halted"]);
    assert!(matches!(bench.turn(), NextTurn::Held(_)));
}

#[test]
fn admission_is_held_while_what_is_ready_waits_for_the_client() {
    let mut bench = bench();
    bench.submit(0, 0, SubmitWait::Admission);
    bench.answer_accounts(0);
    let request = bench.request();
    bench.core.on_build(BuildAnswer::Failed { why: "SYNCING".to_owned() }, bench.now, &mut bench.effects);
    assert_eq!(bench.core.trouble(), Some("SYNCING"));
    bench.submit(0, 1, SubmitWait::Admission);
    bench.now.monotonic_ns += HOLD_NS;
    bench.submit(0, 2, SubmitWait::Admission);
    assert_eq!(bench.said(), ["admitted", "admitted", "refused: ClientAway"]);
    // It builds again.
    bench.turn();
    bench.asks.clear();
    let built = bench.built(&request);
    bench.take(built);
    assert_eq!(bench.core.trouble(), None);
    bench.said();
    bench.submit(0, 2, SubmitWait::Admission);
    assert_eq!(bench.said(), ["admitted"]);
    // Built and sealed, but the client does not follow.
    bench.turn();
    bench.now.monotonic_ns += HOLD_NS + 2 * S;
    bench.submit(0, 3, SubmitWait::Admission);
    assert_eq!(bench.said(), ["refused: ClientAway"]);
    bench.verdict(1);
    bench.submit(0, 3, SubmitWait::Admission);
    assert_eq!(bench.said(), ["admitted"]);
}

#[test]
fn transactions_of_others_in_a_block_are_recorded_and_make_ours_stale() {
    let mut bench = bench();
    bench.submit(0, 0, SubmitWait::Admission);
    bench.answer_accounts(0);
    let request = bench.request();
    // The client put another transaction of the same sender and nonce into its block.
    let raw: Bytes = bench.keys[0].transfer(bench.maker.spec.chain_id, 0, Address::repeat_byte(0x55), 9).into();
    let tx = PreparedTx::recover(raw.clone()).expect("it is signed");
    let foreign =
        BuildTx { hash: crate::codec::transaction::tx_hash(&raw), raw, sender: tx.sender, authorities: Vec::new() };
    let replaced = BuildRequest { context: request.context, transactions: vec![foreign], is_given: false };
    let built = BuiltBlock { has_foreign: true, ..bench.built(&replaced) };
    bench.records();
    bench.said();
    bench.take(built);
    assert_eq!(bench.records(), "aopxsd");
    assert_eq!(bench.core.pooled_count(), 0);
}

#[test]
fn what_was_pooled_waits_until_the_client_has_said_how_its_senders_are() {
    let mut bench = bench();
    let raw = bench.keys[0].transfer(bench.maker.spec.chain_id, 4, TO, 1);
    let tx = PreparedTx::recover(raw.clone().into()).expect("it is signed");
    let restored = super::super::RestoredTx {
        hash: crate::codec::transaction::tx_hash(&raw),
        sender: tx.sender,
        fields: tx.decoded.fields,
        raw: raw.into(),
        authorities: Vec::new(),
        conditions: None,
        name: Sequence(1),
        admitted: Sequence(1),
        accepted_unix_ns: bench.now.unix_ns,
    };
    let start = Start { pooled: vec![restored], ..Start::default() };
    bench.core.start(start, bench.now, &mut bench.asks).expect("there is room");
    assert!(matches!(bench.turn(), NextTurn::Held(_)), "nothing is built before");
    let Some(Ask::Account { address, head }) = bench.asks.pop() else { panic!("its account") };
    // No answer yet: asked again a little later.
    let away = AccountAnswer { address, head, view: Err("away".to_owned()) };
    bench.core.on_account(away, bench.now, &mut bench.effects, &mut bench.asks);
    bench.now.monotonic_ns += S;
    bench.turn();
    assert_eq!(bench.answer_accounts(4), 1);
    assert_eq!(bench.request().transactions.len(), 1);
}

/// L1 has the beginning of block 1: a transaction that nobody here has seen, and one that is pooled.
#[test]
fn a_block_that_l1_has_begun_is_asked_for_before_anything_else() {
    let mut bench = bench();
    let stranger = bench.keys[2].transfer(bench.maker.spec.chain_id, 0, TO, 1);
    let known = bench.keys[0].transfer(bench.maker.spec.chain_id, 0, TO, 1);
    let prepared = [stranger, known].map(|raw| PreparedTx::recover(raw.into()).expect("it is signed"));
    let context = BlockContext {
        number: 1,
        parent_hash: bench.core.parent.hash,
        timestamp: bench.core.parent.header.timestamp + 3,
        base_fee_per_gas_wei: next_base_fee_wei(&bench.core.parent.header),
        prev_randao: B256::ZERO,
        coinbase: TO,
        gas_limit: bench.core.parent.header.gas_limit - 1,
        extra_data: Bytes::from_static(b"theirs"),
        parent_beacon_block_root: B256::ZERO,
        fork: Fork::Osaka,
    };
    let transactions = prepared.each_ref().map(|tx| BuildTx {
        hash: crate::codec::transaction::tx_hash(&tx.raw),
        raw: tx.raw.clone(),
        sender: tx.sender,
        authorities: Vec::new(),
    });
    let next_nonces = prepared.iter().map(|tx| (tx.sender, tx.decoded.fields.nonce + 1)).collect();
    let request = BuildRequest { context: context.clone(), transactions: transactions.to_vec(), is_given: true };
    let given = Some(GivenBlock { request, next_nonces });
    bench.core.start(Start { given, ..Start::default() }, bench.now, &mut bench.asks).expect("there is room");
    let pooled = [bench.submit(0, 0, SubmitWait::Admission), bench.submit(1, 0, SubmitWait::Admission)];
    bench.answer_accounts(0);
    let asked = bench.request();
    let hashes = |request: &BuildRequest| request.transactions.iter().map(|tx| tx.hash).collect::<Vec<_>>();
    assert!(asked.is_given && asked.context == context);
    assert_eq!(hashes(&asked), [transactions[0].hash, pooled[0]]);
    // Whatever the client says of it, it stays what is wanted.
    let refused = BuildAnswer::Refused { hash: pooled[0], reason: "nonce too low".to_owned() };
    bench.core.on_build(refused, bench.now, &mut bench.effects);
    assert!(bench.core.trouble().is_some_and(|why| why.contains("that L1 has begun: nonce too low")));
    bench.now.monotonic_ns += S;
    bench.turn();
    bench.now.monotonic_ns += 2 * S;
    bench.turn();
    let Some(Ask::Build(again)) = bench.asks.pop() else { panic!("it is asked for again") };
    assert_eq!(hashes(&again), hashes(&asked));
    bench.said();
    bench.records();
    let built = BuiltBlock { has_foreign: true, ..bench.built(&again) };
    bench.take(built);
    assert_eq!(bench.records(), "aoppxs");
    bench.verdict(1);
    bench.answer_accounts(0);
    let next = bench.request();
    assert_eq!((hashes(&next), next.is_given), (vec![pooled[1]], false));
}

#[test]
fn one_that_is_larger_than_any_block_of_the_client_ends() {
    let mut bench = bench();
    bench.submit(0, 0, SubmitWait::Preconfirmation);
    bench.answer_accounts(0);
    // The client's blocks have become small.
    let mut parent = SealedBlock {
        header: bench.core.parent.header.clone(),
        hash: bench.core.parent.hash,
        block: Arc::clone(&bench.core.parent.block),
        requests: Vec::new(),
        size_bytes: 0,
        held_bytes: 0,
        state: bench.core.parent.state.clone(),
        sequence: Sequence(0),
        sealed_unix_ns: 0,
    };
    parent.header.gas_limit = 20_000;
    bench.core.parent = Arc::new(parent);
    bench.said();
    assert!(matches!(bench.turn(), NextTurn::At(_)));
    bench.now.monotonic_ns += 2 * S;
    bench.now.unix_ns += 2 * S;
    assert_eq!(bench.turn(), NextTurn::Now);
    let said = bench.said();
    assert!(said[0].contains("exceeds block gas limit") && said[0].contains("block 19981"), "{said:?}");
    assert_eq!((bench.turn(), bench.asks.len()), (NextTurn::OnMessage, 0));
}

#[test]
fn the_operator_stops_building_and_drops_what_is_not_being_built() {
    let mut bench = bench();
    let first = bench.submit(0, 0, SubmitWait::Admission);
    let second = bench.submit(1, 0, SubmitWait::Admission);
    bench.answer_accounts(0);
    bench.core.on_controls(crate::admin::cells::Wanted::default().stopped(true));
    assert!(matches!(bench.turn(), NextTurn::Held(_)));
    let drop = |bench: &mut Bench, hash| {
        bench.core.on_operator(crate::messages::OperatorWish::DropTransaction { hash }, bench.now, &mut bench.effects)
    };
    assert!(matches!(drop(&mut bench, second), crate::messages::OperatorAnswer::Dropped { count: 1, .. }));
    bench.core.on_controls(crate::admin::cells::Wanted::default());
    assert_eq!(bench.request().transactions.len(), 1);
    assert!(!bench.core.is_at_rest());
    assert!(matches!(drop(&mut bench, first), crate::messages::OperatorAnswer::Placed { block_number: 1 }));
    assert_eq!(drop(&mut bench, second), crate::messages::OperatorAnswer::Unknown);
}

#[test]
fn conditions_are_not_for_the_client() {
    let mut bench = bench();
    let raw = bench.keys[0].transfer(bench.maker.spec.chain_id, 0, TO, 1);
    let conditions = crate::mempool::Conditions::default();
    let message = bench.maker.message(&raw, SubmitWait::Admission, Some(conditions));
    bench.core.on_message(ShardId(0), message, bench.now, &mut bench.effects, &mut bench.asks);
    assert_eq!(bench.said(), [r#"refused: NotDelegated("conditions of ERC-7796")"#]);
}
