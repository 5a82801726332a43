//! The `el-build` thread: carries the questions of [`Build`], and runs the validator over what comes back.
//!
//! One block at a time; it may wait and compute. Rings: a request from the builder core, an answer back. A block on which client and validator do not
//! agree is kept as evidence and halts the process.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::builder::block_execution::{PrepareError, PreparedTx};
use crate::chain::ChainReader;
use crate::codec::transaction;
use crate::config::genesis::ChainSpec;
use crate::crypto::keccak::keccak256;
use crate::engine_api::archive::Needs;
use crate::engine_api::blocking::{BlockingClient, BlockingSettings};
use crate::engine_api::build::{Build, Checked, Offers, Step, WitnessSource};
use crate::engine_api::envelope::Envelope;
use crate::engine_api::files::Evidence;
use crate::engine_api::payload::{PayloadParts, new_payload_params};
use crate::engine_api::types::{CallError, Method};
use crate::limits;
use crate::messages::{BuildAnswer, BuildRequest, BuildTx, BuiltBlock, BuiltTx};
use crate::primitives::{B256, Bytes};
use crate::ring::{Consumer, Doorbell, Producer};
use crate::settlement::Origin;
use crate::settlement::segment::{CutLimits, OVERHEAD_BYTES_MAX, Step as CutStep, first_too_large};
use crate::topology::Shared;
use crate::witness::Witness;
use crate::witness::validator::{StatelessBlock, Strictness, Validated, validate};

/// Everything that the thread owns.
pub struct BuildSeat {
    pub inbox: Consumer<BuildRequest>,
    pub answers: Producer<BuildAnswer>,
    pub doorbell: Arc<Doorbell>,
    /// The authenticated port.
    pub engine: BlockingSettings,
    /// The plain port, where `testing` and `debug` are.
    pub plain: BlockingSettings,
    pub spec: ChainSpec,
    pub chain: ChainReader,
    pub evidence: Evidence,
    /// What L1 takes of a transaction and its witness; `None`: nothing is settled.
    pub cut_limits: Option<CutLimits>,
    /// What the client has to keep; `None`: it was asked.
    pub needs: Option<Needs>,
    /// How long the client's pool is put into a block where it does not take a list.
    pub wait: Duration,
    pub shared: Arc<Shared>,
}

/// Runs until the process closes.
///
/// # Errors
/// The runtime cannot be started; evidence that cannot be written.
pub fn run(seat: BuildSeat) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let client = Client {
        engine: BlockingClient::new(seat.engine.clone()).map_err(text)?,
        plain: BlockingClient::new(seat.plain.clone()).map_err(text)?,
        is_silent: false,
    };
    seat.doorbell.adopt_current_thread();
    let mut thread = BuildThread { seat, client, offers: Offers::default() };
    while !thread.seat.shared.is_closed() {
        let Some(request) = thread.seat.inbox.pop() else {
            let BuildSeat { doorbell, inbox, shared, .. } = &thread.seat;
            doorbell.park(Some(Duration::from_nanos(limits::PARK_NS_MAX)), || !inbox.is_empty() || shared.is_closed());
            continue;
        };
        let answer = thread.build(request)?;
        // One is asked for at a time.
        assert!(thread.seat.answers.push(answer).is_ok());
        thread.seat.answers.wake();
    }
    Ok(())
}

/// Both ports.
struct Client {
    engine: BlockingClient,
    plain: BlockingClient,
    /// A question had no answer in time, and none was answered since.
    is_silent: bool,
}

impl Client {
    fn ask(&mut self, method: Method, params: Vec<u8>) -> Result<Value, CallError> {
        let port = if method.is_engine() { &mut self.engine } else { &mut self.plain };
        let answer = port.ask(method, params);
        self.is_silent |= matches!(answer, Err(CallError::TimedOut { .. }));
        answer
    }

    /// Where a question had no answer, a cheap one comes first: a client that stands still keeps in its sockets whatever it is asked, and a
    /// block of each of these lists would be built before the one that is waited for.
    ///
    /// # Errors
    /// That of the port which is still silent.
    fn check_awake(&mut self) -> Result<(), CallError> {
        if self.is_silent {
            self.plain.ask(Method::Proxied("eth_chainId"), b"[]".to_vec())?;
            self.engine.ask(Method::Proxied("eth_chainId"), b"[]".to_vec())?;
            self.is_silent = false;
        }
        Ok(())
    }
}

struct BuildThread {
    seat: BuildSeat,
    client: Client,
    offers: Offers,
}

impl BuildThread {
    fn build(&mut self, request: BuildRequest) -> Result<BuildAnswer, String> {
        // At the start it did not answer: nothing is built on a state that could not be settled.
        if let Some(needs) = self.seat.needs {
            if let Err(fault) = self.client.plain.check_archive(needs) {
                return Ok(BuildAnswer::Failed { why: fault.to_string() });
            }
            self.seat.needs = None;
        }
        if let Err(error) = self.client.check_awake() {
            return Ok(BuildAnswer::Failed { why: error.to_string() });
        }
        let mut build = Build::new(request, self.offers);
        let mut step = build.step();
        let answer = loop {
            step = match step {
                Step::Ask { method, params } => {
                    let answer = self.client.ask(method, params);
                    build.answered(answer)
                }
                Step::Wait => {
                    self.seat.doorbell.park(Some(self.seat.wait), || false);
                    build.waited()
                }
                Step::Validate(checked) => break self.validated(*checked, &build)?,
                Step::Accuse { block, why } => {
                    break self.accuse(block.header.number, block.hash, &payload_of(&block), why)?;
                }
                Step::Finish(answer) => break answer,
            };
        };
        if build.offers() != self.offers {
            let Offers { by_list, with_witness } = build.offers();
            tracing::warn!(
                by_list,
                with_witness,
                "the execution client lacks testing_buildBlockV1 (by_list) or engine_newPayloadWithWitness: it is asked in another way"
            );
            self.offers = build.offers();
        }
        if let BuildAnswer::Contradicted { why } = &answer {
            tracing::error!(why, "halted: nothing is built or admitted, reads go on");
            self.seat.shared.execution.halt_for(why.clone());
        }
        Ok(answer)
    }

    /// The validator's word; its doubt is kept as evidence.
    fn validated(&self, checked: Checked, build: &Build) -> Result<BuildAnswer, String> {
        let payload = payload_of(&checked.block);
        let (number, hash) = (checked.block.header.number, checked.block.hash);
        match execute(&self.seat.spec, &self.seat.chain, checked, build) {
            Ok(executed) => Ok(self.settled(executed)),
            Err(what) => {
                let why =
                    format!("our validator refuses block {number} {hash}, which the execution client built: {what}");
                self.accuse(number, hash, &payload, why)
            }
        }
    }

    /// A block with a transaction that could never be settled is not taken: the transaction ends, as one that cannot be placed.
    fn settled(&self, executed: Executed) -> BuildAnswer {
        let Executed { built, block, witness } = executed;
        let limits = self.seat.cut_limits.as_ref().filter(|_| !built.has_foreign);
        match limits.and_then(|limits| too_large(&self.seat.spec, &block, &witness, limits)) {
            Some((index, reason)) => BuildAnswer::Refused { hash: built.transactions[index].hash, reason },
            None => BuildAnswer::Built(Box::new(built)),
        }
    }

    /// Client and chain rules do not agree: the next start is halted too.
    fn accuse(&self, number: u64, hash: B256, payload: &[u8], why: String) -> Result<BuildAnswer, String> {
        let dir = self.seat.evidence.write_built(number, hash, payload, &why).map_err(|error| error.to_string())?;
        let to_block = number.saturating_sub(1);
        tracing::error!(evidence = %dir.display(), "the way out: stop, `sequencer journal rollback --to-block {to_block}`");
        Ok(BuildAnswer::Contradicted { why })
    }
}

fn payload_of(block: &Envelope) -> Vec<u8> {
    let mut params = Vec::new();
    let parts = PayloadParts {
        header: &block.header,
        hash: block.hash,
        transactions: block.transactions.iter().map(AsRef::as_ref),
        requests: block.requests.iter().map(AsRef::as_ref),
    };
    new_payload_params(parts, &mut params);
    params
}

/// Executes a block over the client's witness.
///
/// # Errors
/// In words.
fn execute(spec: &ChainSpec, chain: &ChainReader, checked: Checked, build: &Build) -> Result<Executed, String> {
    let Checked { block: Envelope { header, hash, transactions, .. }, witness, has_foreign } = checked;
    let known = build.known();
    let prepared = transactions.into_iter().enumerate().map(|(index, raw)| {
        let hash = keccak256(&raw);
        let tx = prepare(raw, known.get(&hash).copied());
        tx.map(|tx| BuiltTx { hash, tx }).map_err(|error| format!("transaction {index}: {error}"))
    });
    let transactions: Vec<BuiltTx> = prepared.collect::<Result<_, _>>()?;
    let prepared = transactions.iter().map(|tx| tx.tx.clone()).collect();
    let (block, witness, Validated { executed, .. }) = validate_over(spec, chain, header, prepared, &witness)?;
    let built = BuiltBlock {
        header: block.header.clone(),
        hash,
        transactions,
        receipts: executed.receipts,
        requests: executed.requests,
        changes: executed.changes,
        codes: executed.accesses.codes,
        has_foreign,
    };
    Ok(Executed { built, block, witness })
}

/// A block that our validator has executed, and over what.
struct Executed {
    built: BuiltBlock,
    block: StatelessBlock,
    witness: Witness,
}

/// A transaction that does not fit an ExecuteTx with its witness, and the words for it.
fn too_large(
    spec: &ChainSpec,
    block: &StatelessBlock,
    witness: &Witness,
    limits: &CutLimits,
) -> Option<(usize, String)> {
    let parts = [&witness.headers, &witness.codes, &witness.state];
    let witness_bytes: usize = parts.into_iter().flatten().map(|entry| entry.len() + 4).sum();
    // What a part of the block makes for the parts behind it is no larger than what was there, about.
    if OVERHEAD_BYTES_MAX + 2 * (witness_bytes + block.rlp_bytes as usize) <= limits.tx_bytes_max {
        return None;
    }
    let origin = Origin { number: 0, hash: block.header.parent_beacon_block_root.unwrap_or_default() };
    match first_too_large(spec, block, witness, origin, limits) {
        Some((CutStep::Transaction(index), error)) => Some((index, error.to_string())),
        // Whatever else there is to say, the cut for L1 says it.
        _ => None,
    }
}

/// Runs the validator over a block and the witness that the client gave for it.
///
/// # Errors
/// In words: the first defect.
pub fn validate_over(
    spec: &ChainSpec,
    chain: &ChainReader,
    header: alloy_consensus::Header,
    transactions: Vec<PreparedTx>,
    witness: &WitnessSource,
) -> Result<(StatelessBlock, Witness, Validated), String> {
    let stored = |number| chain.header_rlp(number).ok().flatten().map(Bytes::from);
    let witness = witness.witness(header.number, &stored)?;
    let block = StatelessBlock::new(header, transactions, Vec::new());
    let validated = validate(spec, &block, &witness, Strictness::NORMAL).map_err(|error| error.to_string())?;
    Ok((block, witness, validated))
}

/// A transaction of the block: those that we asked for were recovered when they came in.
fn prepare(raw: Bytes, known: Option<&BuildTx>) -> Result<PreparedTx, PrepareError> {
    match known {
        None => PreparedTx::recover(raw),
        Some(tx) => {
            let decoded = transaction::decode(&raw)?;
            Ok(PreparedTx { raw, decoded, sender: tx.sender, authorities: tx.authorities.clone() })
        }
    }
}

/// What the client is asked of a block that we do not have any more: its witness, for the validator.
///
/// # Errors
/// In words.
pub fn witness_of(client: &mut BlockingClient, hash: &B256) -> Result<WitnessSource, String> {
    let params = format!(r#"["{hash}"]"#).into_bytes();
    let answer = client.ask(Method::ExecutionWitness, params);
    let answer = answer.map_err(|error| error.to_string())?;
    crate::engine_api::build::read_witness(&answer).ok_or_else(|| "not the shape of a witness".to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;

    use super::*;
    use crate::config::execution::Endpoint;

    /// Listens on one port; tells the name of each method that it is asked, and answers `false` while `speaks`.
    fn client(speaks: &'static std::sync::atomic::AtomicBool) -> (Client, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let (asked, names) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, asked) = (stream.expect("accepted"), asked.clone());
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
                    let mut length = 0;
                    let mut line = String::new();
                    while reader.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                        let text = line.trim().to_ascii_lowercase();
                        line.clear();
                        if let Some(bytes) = text.strip_prefix("content-length: ") {
                            length = bytes.parse().expect("a length");
                        }
                        if !text.is_empty() {
                            continue;
                        }
                        let mut body = vec![0; length];
                        reader.read_exact(&mut body).expect("the body");
                        let request: Value = serde_json::from_slice(&body).expect("JSON");
                        let _ = asked.send(request["method"].as_str().expect("a name").to_owned());
                        if speaks.load(std::sync::atomic::Ordering::SeqCst) {
                            let reply = format!(r#"{{"jsonrpc":"2.0","id":{},"result":false}}"#, request["id"]);
                            let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{reply}", reply.len());
                        }
                    }
                });
            }
        });
        let endpoint = Endpoint::Http { host: "127.0.0.1".to_owned(), port, path: "/".to_owned() };
        let settings = BlockingSettings::new(endpoint, None, Duration::from_millis(300));
        let port = || BlockingClient::new(settings.clone()).expect("a runtime");
        (Client { engine: port(), plain: port(), is_silent: false }, names)
    }

    #[test]
    fn a_silent_client_is_asked_a_cheap_question_first() {
        use std::sync::atomic::{AtomicBool, Ordering};
        static SPEAKS: AtomicBool = AtomicBool::new(false);
        let (mut client, names) = client(&SPEAKS);
        let names = || names.try_iter().collect::<Vec<String>>();
        client.check_awake().expect("nothing was asked, so nobody is silent");
        assert_eq!(names(), [""; 0]);

        let error = client.ask(Method::BuildBlock, b"[]".to_vec()).expect_err("no answer");
        assert_eq!(error.to_string(), "testing_buildBlockV1: no answer within 300 ms");
        for _ in 0..2 {
            let error = client.check_awake().expect_err("no answer");
            assert_eq!(error.to_string(), "eth_chainId: no answer within 300 ms");
        }
        assert_eq!(names(), ["testing_buildBlockV1", "eth_chainId", "eth_chainId"]);

        SPEAKS.store(true, Ordering::SeqCst);
        client.check_awake().expect("both ports answer");
        client.check_awake().expect("and are believed");
        client.ask(Method::BuildBlock, b"[]".to_vec()).expect("an answer");
        assert_eq!(names(), ["eth_chainId", "eth_chainId", "testing_buildBlockV1"]);
    }
}
