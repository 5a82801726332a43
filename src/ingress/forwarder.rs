//! The forwarder's thread: what the execution client's pool holds comes to the builder core as if a client of ours had sent it.
//!
//! [`Forwarding`] decides what to ask; here it is asked, one question after the other, and what comes is decoded and recovered like everything
//! that comes in. To the builder core this is one more shard: a slab, a ring there, a ring back. Nobody waits for its replies, so no gate holds
//! them: what a crash takes back is still in the client's pool. Absent on purpose: sockets of clients, subscriptions, conditions.

use std::sync::Arc;
use std::time::Duration;

use crate::chain::ChainReader;
use crate::codec::transaction::tx_hash;
use crate::engine_api::blocking::{BlockingClient, BlockingSettings};
use crate::engine_api::forwarding::{Forwarding, ForwardingSettings, Next, Outcome};
use crate::ingress::intake::{Intake, Refused};
use crate::limits;
use crate::mempool::{Class, Reject};
use crate::messages::{BuilderReply, IngressMessage, Refusal, Submit, SubmitWait};
use crate::metrics::ShardMeter;
use crate::metrics::reasons::IngressReason;
use crate::primitives::{B256, ReplyToken, ShardId};
use crate::ring::{Consumer, Doorbell, Producer};
use crate::rpc::error::code;
use crate::rpc::{RpcError, refusal_error};
use crate::runtime::clock;
use crate::runtime::slab::{Slab, TxHandle};
use crate::topology::Shared;

/// Transactions that the builder core has not answered: a turn or two of its loop.
const IN_FLIGHT_MAX: usize = 1_024;
const _: () = assert!(IN_FLIGHT_MAX <= limits::IN_FLIGHT_PER_SHARD_MAX);

/// Everything that the thread owns.
pub struct ForwarderSeat {
    /// Behind those of the shards.
    pub id: ShardId,
    pub chain_id: u64,
    pub slab: Slab,
    pub to_builder: Producer<IngressMessage>,
    pub from_builder: Consumer<BuilderReply>,
    pub freed: Consumer<TxHandle>,
    /// Chunks of the slab that may be out at once: the slots of `freed`.
    pub chunks_max: usize,
    pub doorbell: Arc<Doorbell>,
    pub shared: Arc<Shared>,
    pub chain: ChainReader,
    pub client: BlockingSettings,
    pub settings: ForwardingSettings,
}

/// Runs until the process closes.
///
/// # Errors
/// The runtime of its connection cannot be started.
pub fn run(seat: ForwarderSeat) -> Result<(), String> {
    let client = BlockingClient::new(seat.client.clone()).map_err(|error| error.to_string())?;
    seat.doorbell.adopt_current_thread();
    let forwarding = Forwarding::new(seat.settings);
    let intake = Intake::new(seat.chain_id);
    let mut forwarder =
        Forwarder { seat, client, forwarding, intake, sent_count: 0, in_flight_count: 0, chunk_count: 0 };
    while !forwarder.seat.shared.is_closed() {
        forwarder.turn();
    }
    Ok(())
}

struct Forwarder {
    seat: ForwarderSeat,
    client: BlockingClient,
    forwarding: Forwarding,
    intake: Intake,
    /// Names replies.
    sent_count: u32,
    /// From the intake until the builder core's reply.
    in_flight_count: usize,
    /// From the slab until the handle is back.
    chunk_count: usize,
}

impl Forwarder {
    /// Takes what came back, then asks one question, or sends what it has, or sleeps.
    fn turn(&mut self) {
        self.take_replies();
        let is_full =
            self.intake.is_full() || self.in_flight_count >= IN_FLIGHT_MAX || self.chunk_count >= self.seat.chunks_max;
        let now_ns = clock::monotonic_ns();
        let next = if is_full { Next::Wait(now_ns + limits::PARK_NS_MAX) } else { self.forwarding.next(now_ns) };
        match next {
            Next::Ask(question) => {
                let answer = self.client.ask(question.method(), question.params());
                let raw = self.forwarding.answered(&question, answer, clock::monotonic_ns());
                if let Some((hash, raw)) = raw {
                    self.take(hash, &raw);
                }
            }
            Next::Wait(_) if !self.intake.is_empty() => self.submit(),
            Next::Wait(until_ns) => {
                self.tell();
                let sleep_ns = until_ns.saturating_sub(now_ns).min(limits::PARK_NS_MAX);
                let Self { seat: ForwarderSeat { doorbell, from_builder, freed, shared, .. }, .. } = self;
                doorbell.park(Some(Duration::from_nanos(sleep_ns)), || {
                    !from_builder.is_empty() || !freed.is_empty() || shared.is_closed()
                });
            }
        }
    }

    fn take_replies(&mut self) {
        while let Some(handle) = self.seat.freed.pop() {
            self.seat.slab.free(handle);
            self.chunk_count -= 1;
        }
        while let Some(reply) = self.seat.from_builder.pop() {
            self.in_flight_count -= 1;
            let (hash, outcome) = match reply {
                BuilderReply::Admitted { hash, .. } => (hash, Outcome::Admitted),
                BuilderReply::Refused { hash, refusal, .. } => (hash, self.outcome_of(&hash, &refusal)),
                // Answers to what is never asked from here.
                _ => continue,
            };
            self.forwarding.settle(hash, outcome, clock::monotonic_ns());
        }
    }

    /// Decodes a transaction and queues its signatures.
    fn take(&mut self, hash: B256, raw: &str) {
        let token = ReplyToken { connection: 0, generation: 0, request: self.sent_count, item: 0 };
        match self.intake.prepare(raw.as_bytes(), &mut self.seat.slab) {
            Ok(prepared) => {
                let other = tx_hash(self.seat.slab.bytes(&prepared.handle));
                self.sent_count = self.sent_count.wrapping_add(1);
                self.chunk_count += 1;
                self.in_flight_count += 1;
                self.intake.push(token, SubmitWait::Admission, prepared, None);
                if other != hash {
                    // Signed by somebody all the same, so it goes its way; what was asked for has ended.
                    let reason = format!("the execution client gave the bytes of {other}");
                    self.forwarding.settle(hash, Outcome::Refused(reason), clock::monotonic_ns());
                }
            }
            Err(Refused { reason, error }) => {
                self.meter().rejected.increment(reason as usize);
                self.forwarding.settle(hash, outcome_of_error(error), clock::monotonic_ns());
            }
        }
    }

    /// Recovers what was taken and sends it to the builder core.
    fn submit(&mut self) {
        let Self { seat, forwarding, intake, in_flight_count, chunk_count, .. } = self;
        let mut lost = Vec::new();
        let meter = &seat.shared.metrics.shards[usize::from(seat.id.0)];
        let count = intake.recover(usize::MAX, &mut seat.slab, |_, outcome| {
            let (hash, handle, outcome, reason) = match outcome {
                Ok(submit) => match seat.to_builder.push(IngressMessage::Submit(submit)) {
                    Err(IngressMessage::Submit(Submit { hash, handle, .. })) => {
                        let outcome = Outcome::NotReady("the builder is busy".to_owned());
                        (Some(hash), handle, outcome, IngressReason::BuilderBusy)
                    }
                    // Only the message that was pushed can come back.
                    Ok(()) | Err(_) => return,
                },
                Err((_, handle, error)) => (None, handle, Outcome::Refused(error.message), IngressReason::Signature),
            };
            meter.rejected.increment(reason as usize);
            lost.push((hash, handle, outcome));
        });
        meter.recovered.add(count);
        seat.to_builder.wake();
        for (hash, handle, outcome) in lost {
            let hash = hash.unwrap_or_else(|| tx_hash(seat.slab.bytes(&handle)));
            seat.slab.free(handle);
            *chunk_count -= 1;
            *in_flight_count -= 1;
            forwarding.settle(hash, outcome, clock::monotonic_ns());
        }
    }

    fn outcome_of(&self, hash: &B256, refusal: &Refusal) -> Outcome {
        let reason = || refusal_error(hash, refusal, SubmitWait::Admission).message;
        match refusal {
            Refusal::Pool(Reject::AlreadyKnown) => Outcome::Known,
            // It may be the very one that used up the nonce.
            Refusal::Pool(Reject::NonceTooLow { .. } | Reject::AlreadyPreconfirmed { .. }) if self.is_ours(hash) => {
                Outcome::Known
            }
            Refusal::Pool(reject) if reject.class() == Class::Retry => Outcome::NotNow(reason()),
            Refusal::Pool(_) | Refusal::Condition(_) => Outcome::Refused(reason()),
            _ => Outcome::NotReady(reason()),
        }
    }

    /// Whether the transaction is in a block of ours.
    fn is_ours(&self, hash: &B256) -> bool {
        let heads = self.seat.shared.heads.load();
        let in_memory = heads.recent.iter().rev().map(|sealed| &sealed.block).chain(&heads.open);
        let is_recent = in_memory.into_iter().any(|block| block.transactions.iter().any(|tx| tx.hash == *hash));
        // A damaged file ends the process where the chain thread meets it.
        is_recent || self.seat.chain.transaction_by_hash(hash).is_ok_and(|found| found.is_some())
    }

    fn meter(&self) -> &ShardMeter {
        &self.seat.shared.metrics.shards[usize::from(self.seat.id.0)]
    }

    fn tell(&self) {
        let status = self.forwarding.status();
        let told = self.seat.shared.execution.forwarding();
        if *told == status {
            return;
        }
        if told.why != status.why {
            match status.why.as_str() {
                "" => tracing::info!("pulling transactions from the execution client's pool"),
                why => tracing::warn!(why, "the execution client's pool"),
            }
        }
        self.seat.shared.execution.set_forwarding(status);
    }
}

/// Of bytes that no submission was made of.
fn outcome_of_error(error: RpcError) -> Outcome {
    match error.code {
        code::LIMIT => Outcome::NotReady(error.message),
        _ => Outcome::Refused(error.message),
    }
}
