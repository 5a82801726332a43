//! `kill -9` at any moment, again and again, under load.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use alloy_primitives::{Address, Bytes};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::super::process::{TempFolder, poll_until};
use super::super::rpc::{Rpc, RpcError, quantity};
use super::super::sequencer::{Sequencer, data_of};
use super::super::workload::{Account, Workload};
use super::ledger::{Kind, Ledger, Notes, Sender};
use super::observer::{Observer, Seen, hash};
use super::{DRAIN_LIMIT, Draft, SEGMENT_BYTES, fund, hash_of, journal_command, send, verify};

const ROUNDS: usize = 6;
const ROUNDS_LONG: usize = 500;
const CLIENTS: usize = 3;
const PLAIN_PER_CLIENT: usize = 5;
/// Accounts with one transaction each that waits for [`NEVER`].
const PARKED: usize = 3;
/// Calldata of a tenth of the transactions: about 1 MB a round, so that a long run fills its segments and uses them again.
const LARGE_BYTES: usize = 12_000;
/// The kill comes at most this long after the load begins. `JOURNAL_ROUND_MS`: another time; above 5,000 a life is long enough for the chain
/// files to be synced in it, so that slots are used again while the load goes on.
const LOAD_MS_MAX: u64 = 1_500;
/// A block number that the chain does not reach: conditions that wait for it are carried from segment to segment.
const NEVER: u64 = 1_000_000_000;
/// JSON-RPC: a limit of the node is reached.
const LIMIT_CODE: i64 = -32_005;

fn rounds() -> usize {
    let count = std::env::var("JOURNAL_KILLS").ok().map(|text| text.parse().expect("JOURNAL_KILLS is a number"));
    count.unwrap_or(if super::super::is_long() { ROUNDS_LONG } else { ROUNDS })
}

fn load_ms_max() -> u64 {
    let given = std::env::var("JOURNAL_ROUND_MS").ok();
    given.map_or(LOAD_MS_MAX, |text| text.parse().expect("JOURNAL_ROUND_MS is a number"))
}

fn seed() -> u64 {
    let given = std::env::var("JOURNAL_SEED").ok().map(|text| text.parse().expect("JOURNAL_SEED is a number"));
    given.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
        now.as_nanos() as u64 % 1_000_000_000
    })
}

/// What a start of the node is told, drawn anew for each.
struct Choices {
    interval_ms: String,
    order: &'static str,
    shards: &'static str,
    has_segment_bytes: bool,
}

impl Choices {
    fn draw(rng: &mut StdRng, is_first: bool) -> Self {
        Self {
            interval_ms: rng.random_range(30..400).to_string(),
            order: if rng.random() { "priority-fee" } else { "arrival" },
            shards: if rng.random() { "1" } else { "2" },
            // Slots of two sizes in one journal, now and then.
            has_segment_bytes: is_first || rng.random_bool(0.9),
        }
    }

    fn settings(&self) -> Vec<&str> {
        let mut settings = vec!["--block.interval-ms", &self.interval_ms, "--builder.order", self.order];
        settings.extend(["--http.shards", self.shards, "--block.timestamp-lead-s", "1000000"]);
        // What only waits in the pool holds no more than this.
        settings.extend(["--journal.segments-kept", "3"]);
        if self.has_segment_bytes {
            settings.extend(["--journal.segment-bytes", SEGMENT_BYTES]);
        }
        settings
    }
}

#[test]
fn kill_9_loses_nothing_acknowledged() {
    let _turn = super::super::turn();
    let (rounds, seed) = (rounds(), seed());
    println!("JOURNAL_SEED={seed} JOURNAL_KILLS={rounds}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut ledger = Ledger::default();
    let choices = Choices::draw(&mut rng, true);
    let mut sequencer = Sequencer::start_in(TempFolder::new("crash"), "osaka", &choices.settings());
    let (contract, mut senders) = prepare(&sequencer.rpc, &mut ledger, &mut rng);
    let mut cut_starts = 0;
    for round in 0..rounds {
        let folder = load_and_kill(sequencer, &mut ledger, &mut senders, contract, &mut rng);
        verify(&data_of(&folder), &[]);
        let choices = Choices::draw(&mut rng, false);
        while rng.random_bool(0.2) {
            // A crash while the node starts is a crash like any other.
            let delay = Duration::from_millis(rng.random_range(0..400));
            Sequencer::start_and_kill(&folder, "osaka", &choices.settings(), delay);
            verify(&data_of(&folder), &[]);
            cut_starts += 1;
        }
        sequencer = Sequencer::start_in(folder, "osaka", &choices.settings());
        ledger.check(&sequencer.rpc, &mut senders);
        if round % 50 == 49 {
            println!("round {}: {} acknowledged", round + 1, ledger.acknowledged_count);
        }
    }
    drain(&sequencer, &mut ledger, &mut senders);
    let blocks = ledger.check_whole_chain(&sequencer.rpc);
    let folder = sequencer.stop();
    verify(&data_of(&folder), &[]);
    let inspected = journal_command("inspect", &data_of(&folder), &[]);
    print!("{}", String::from_utf8_lossy(&inspected.stdout));
    println!(
        "{rounds} kills, {cut_starts} more during a start, {} acknowledged, {} preconfirmed receipts checked, {blocks} blocks, seed {seed}",
        ledger.acknowledged_count, ledger.compared_count
    );
}

/// Deploys the contract, and makes the accounts that send: per client some plain ones and one with conditions; the last three wait for ever.
fn prepare(rpc: &Rpc, ledger: &mut Ledger, rng: &mut StdRng) -> (Address, Vec<Sender>) {
    let mut workload = Workload::new(0);
    let accounts: Vec<Account> =
        (0..CLIENTS * (PLAIN_PER_CLIENT + 1) + PARKED).map(|_| Account::new(rng.random())).collect();
    send(rpc, &workload.deploy());
    fund(rpc, &accounts);
    let count = accounts.len();
    let mut senders: Vec<Sender> = accounts
        .into_iter()
        .enumerate()
        .map(|(index, account)| {
            let is_plain = index < count - PARKED && index % (PLAIN_PER_CLIENT + 1) < PLAIN_PER_CLIENT;
            Sender::new(account, if is_plain { Kind::Plain } else { Kind::Conditional })
        })
        .collect();
    for sender in &mut senders[count - PARKED..] {
        let raw = Draft::transfer(0).sign(&mut sender.account);
        let params = json!([raw, {"blockNumberMin": NEVER}]);
        assert_eq!(rpc.call("eth_sendRawTransactionConditional", params), json!(hash_of(&raw)));
        ledger.acknowledge(hash_of(&raw));
    }
    (workload.contract_address, senders)
}

/// One life of the node: load from several clients, two who watch, and the kill.
fn load_and_kill(
    sequencer: Sequencer,
    ledger: &mut Ledger,
    senders: &mut [Sender],
    contract: Address,
    rng: &mut StdRng,
) -> TempFolder {
    let port = sequencer.port;
    let delay = Duration::from_millis(rng.random_range(0..load_ms_max()));
    thread::scope(|scope| {
        let lanes = senders.chunks_mut(PLAIN_PER_CLIENT + 1).take(CLIENTS);
        let clients: Vec<_> = lanes
            .map(|lane| {
                let rng = StdRng::seed_from_u64(rng.random());
                scope.spawn(move || Client::new(port, lane, contract, rng).run())
            })
            .collect();
        let listener = scope.spawn(move || listen(port));
        let poller = scope.spawn(move || poll(port));
        thread::sleep(delay);
        let folder = sequencer.kill();
        for client in clients {
            ledger.add(client.join().expect("a client's own message says why"));
        }
        ledger.add_seen(listener.join().expect("the listener's own message says why"));
        ledger.add_seen(poller.join().expect("the poller's own message says why"));
        folder
    })
}

fn listen(port: u16) -> Seen {
    let Some(mut observer) = Observer::connect(port) else { return Seen::default() };
    while observer.listen(Duration::from_secs(10)) {}
    observer.seen
}

/// Reads the newest block and the places of the open one, until the node is gone.
fn poll(port: u16) -> Seen {
    let rpc = Rpc::new(format!("http://127.0.0.1:{port}"));
    let mut seen = Seen::default();
    loop {
        let Some(block) = rpc.ask("eth_getBlockByNumber", json!(["latest", false])) else { return seen };
        let block = block.expect("there is a newest block");
        seen.blocks.insert(quantity(&block["number"]), hash(&block["hash"]));
        let Some(receipts) = rpc.ask("eth_getBlockReceipts", json!(["pending"])) else { return seen };
        // It is refused when too many queries wait.
        if let Ok(Value::Array(receipts)) = receipts {
            seen.receipts.extend(receipts);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// One client with its own accounts and connection.
struct Client<'a> {
    rpc: Rpc,
    /// The last one is the one with conditions.
    senders: &'a mut [Sender],
    contract: Address,
    rng: StdRng,
    notes: Notes,
}

/// The node is gone.
struct Gone;

impl<'a> Client<'a> {
    fn new(port: u16, senders: &'a mut [Sender], contract: Address, rng: StdRng) -> Self {
        let rpc = Rpc::new(format!("http://127.0.0.1:{port}"));
        Self { rpc, senders, contract, rng, notes: Notes::default() }
    }

    fn run(mut self) -> Notes {
        while self.step().is_ok() {
            // Small groups of records and large ones.
            thread::sleep(Duration::from_millis(self.rng.random_range(0..12)));
        }
        self.notes
    }

    fn step(&mut self) -> Result<(), Gone> {
        let plain = self.rng.random_range(0..self.senders.len() - 1);
        if !self.senders[plain].unsure.is_empty() {
            // What was sent with that nonce may be there: the next check tells.
            return Ok(());
        }
        match self.rng.random_range(0..20) {
            0..10 => self.send_some(plain),
            10..14 => self.send_sync(plain),
            14..16 => self.send_behind_gap(plain),
            16 => self.replace_behind_gap(plain),
            17 => self.fill_gaps(plain),
            _ => self.send_conditional(),
        }
    }

    fn draft(&mut self, nonce: u64) -> Draft {
        let draft = match self.rng.random_range(0..10) {
            0 => Draft::large(nonce, LARGE_BYTES),
            1..5 => Draft::transfer(nonce),
            _ => Draft::increment(nonce, self.contract),
        };
        // Distinct tips make the order of a block differ from the order of arrival.
        Draft { tip_wei: self.rng.random_range(1..1_000_000_000), ..draft }
    }

    /// Sends the next transactions of one account, as one batch.
    fn send_some(&mut self, sender: usize) -> Result<(), Gone> {
        let count = self.rng.random_range(1..=12);
        let first = self.senders[sender].next;
        let nonces: Vec<u64> = (first..first + count).filter(|nonce| !self.senders[sender].has(*nonce)).collect();
        self.send_nonces(sender, &nonces)
    }

    fn fill_gaps(&mut self, sender: usize) -> Result<(), Gone> {
        let gaps = self.senders[sender].gaps();
        self.send_nonces(sender, &gaps)
    }

    fn send_nonces(&mut self, sender: usize, nonces: &[u64]) -> Result<(), Gone> {
        if nonces.is_empty() {
            return Ok(());
        }
        let raws: Vec<Bytes> = nonces
            .iter()
            .map(|nonce| {
                let draft = self.draft(*nonce);
                draft.sign(&mut self.senders[sender].account)
            })
            .collect();
        let params: Vec<Value> = raws.iter().map(|raw| json!([raw])).collect();
        let Some(answers) = self.rpc.ask_batch("eth_sendRawTransaction", &params) else {
            let unsure = nonces.iter().copied().zip(raws.iter().map(hash_of));
            self.senders[sender].unsure.extend(unsure);
            return Err(Gone);
        };
        for ((nonce, raw), answer) in nonces.iter().zip(&raws).zip(answers) {
            match answer {
                Ok(answer) => {
                    assert_eq!(answer, json!(hash_of(raw)), "hash of an acknowledged transaction");
                    self.acknowledged(sender, *nonce, raw);
                }
                Err(error) => check_refusal(&error),
            }
        }
        Ok(())
    }

    fn acknowledged(&mut self, sender: usize, nonce: u64, raw: &Bytes) {
        self.senders[sender].acknowledge(nonce);
        self.notes.acknowledged.push(hash_of(raw));
    }

    fn send_sync(&mut self, sender: usize) -> Result<(), Gone> {
        let nonce = self.senders[sender].next;
        let draft = self.draft(nonce);
        let raw = draft.sign(&mut self.senders[sender].account);
        match self.rpc.ask("eth_sendRawTransactionSync", json!([raw])) {
            None => {
                self.senders[sender].unsure.push((nonce, hash_of(&raw)));
                Err(Gone)
            }
            Some(Ok(receipt)) => {
                assert_eq!(receipt["transactionHash"], json!(hash_of(&raw)), "{receipt}");
                self.acknowledged(sender, nonce, &raw);
                self.notes.receipts.push(receipt);
                Ok(())
            }
            // Code 4: it is in the pool, and the open block closed, or sealing took its time.
            Some(Err(error)) if error.code == 4 => {
                self.acknowledged(sender, nonce, &raw);
                Ok(())
            }
            // Code 5: admitted and not executable yet, or not admitted because the node is not ready.
            Some(Err(error)) if error.code == 5 => {
                self.senders[sender].unsure.push((nonce, hash_of(&raw)));
                Ok(())
            }
            Some(Err(error)) => {
                check_refusal(&error);
                Ok(())
            }
        }
    }

    /// Leaves one or two nonces out.
    fn send_behind_gap(&mut self, sender: usize) -> Result<(), Gone> {
        let nonce = self.senders[sender].next + self.rng.random_range(1..3);
        if self.senders[sender].has(nonce) {
            return Ok(());
        }
        self.send_nonces(sender, &[nonce])
    }

    /// Sends a dearer transaction in the place of one that waits behind a gap.
    fn replace_behind_gap(&mut self, sender: usize) -> Result<(), Gone> {
        let nonce = self.senders[sender].next + 1;
        if self.senders[sender].has(nonce) {
            return Ok(());
        }
        let draft = self.draft(nonce);
        let (first, second) = (draft.clone(), draft.replacing());
        let account = &mut self.senders[sender].account;
        let raws = [first.sign(account), second.sign(account)];
        self.notes.rivals.extend(raws.iter().map(hash_of));
        for raw in raws {
            match self.rpc.ask("eth_sendRawTransaction", json!([raw])) {
                None => {
                    self.senders[sender].unsure.push((nonce, hash_of(&raw)));
                    return Err(Gone);
                }
                Some(Ok(_)) => self.acknowledged(sender, nonce, &raw),
                Some(Err(error)) => check_refusal(&error),
            }
        }
        Ok(())
    }

    /// Sends a transaction with conditions once the one before has ended or has its place.
    fn send_conditional(&mut self) -> Result<(), Gone> {
        let index = self.senders.len() - 1;
        if let Some(newest) = self.senders[index].newest {
            let status = self.rpc.ask("sequencer_getTransactionStatus", json!([newest])).ok_or(Gone)?;
            let state = status.expect("a hash is valid")["state"].clone();
            if state == "conditional" || state == "ready" || state == "queued" {
                return Ok(());
            }
        }
        let address = self.senders[index].account.address;
        let nonce = self.rpc.ask("eth_getTransactionCount", json!([address, "pending"])).ok_or(Gone)?;
        let latest = self.rpc.ask("eth_blockNumber", json!([])).ok_or(Gone)?;
        let (nonce, latest) = (quantity(&nonce.expect("valid")), quantity(&latest.expect("valid")));
        let conditions = match self.rng.random_range(0..3) {
            0 => json!({"blockNumberMin": latest + self.rng.random_range(0..4)}),
            1 => json!({"blockNumberMin": latest + 2, "blockNumberMax": latest + 2 + self.rng.random_range(0..2)}),
            _ => json!({"knownAccounts": {address.to_string(): {"nonce": format!("{nonce:#x}")}}}),
        };
        let raw = Draft::transfer(nonce).sign(&mut self.senders[index].account);
        self.notes.conditional.push(hash_of(&raw));
        match self.rpc.ask("eth_sendRawTransactionConditional", json!([raw, conditions])) {
            None => {
                self.senders[index].unsure.push((nonce, hash_of(&raw)));
                Err(Gone)
            }
            Some(Ok(_)) => {
                self.senders[index].newest = Some(hash_of(&raw));
                self.notes.acknowledged.push(hash_of(&raw));
                Ok(())
            }
            // Too late for the conditions.
            Some(Err(error)) if error.code == -32_003 => Ok(()),
            Some(Err(error)) => {
                check_refusal(&error);
                Ok(())
            }
        }
    }
}

/// Overload is refused with a reason; nothing else in this load gives cause for a refusal.
#[track_caller]
fn check_refusal(error: &RpcError) {
    assert!(error.code == LIMIT_CODE && !error.message.is_empty(), "refused: {error:?}");
}

/// Fills every gap and makes blocks until everything but what waits for ever has ended.
fn drain(sequencer: &Sequencer, ledger: &mut Ledger, senders: &mut [Sender]) {
    let rpc = &sequencer.rpc;
    for sender in senders.iter_mut().filter(|sender| sender.kind == Kind::Plain) {
        for nonce in sender.gaps() {
            let raw = Draft::transfer(nonce).sign(&mut sender.account);
            ledger.acknowledge(send(rpc, &raw));
            sender.acknowledge(nonce);
        }
    }
    let start = Instant::now();
    while ledger.waiting_count() > PARKED {
        let count = ledger.waiting_count();
        assert!(start.elapsed() < DRAIN_LIMIT, "{count} have not ended:\n{}", sequencer.log_tail());
        if ledger.is_conditional_waiting() {
            // Conditions wait for blocks, which are made only when there is something to place.
            let sender = senders.iter_mut().find(|sender| sender.kind == Kind::Plain).expect("there are plain senders");
            let raw = Draft::transfer(sender.next).sign(&mut sender.account);
            ledger.acknowledge(send(rpc, &raw));
            sender.acknowledge(sender.next);
        }
        thread::sleep(Duration::from_millis(100));
        ledger.check(rpc, senders);
    }
    poll_until("all blocks sealed", DRAIN_LIMIT, || {
        ledger.check(rpc, senders);
        ledger.has_compared_all().then_some(())
    });
}
