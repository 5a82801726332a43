//! One page of metrics: what the meters hold, merged, and what stands in cells and published pictures anyway.
//!
//! Runs on: the `ops` thread, when somebody scrapes. It reads and never writes; what it costs the threads that it reads from is a cache line each.

use std::sync::atomic::Ordering;

use super::health::{self, Facts, Probe, Reason};
use crate::crypto::recovery;
use crate::derivation::skip::SkipReason;
use crate::metrics::cells::{Histogram, Snapshot};
use crate::metrics::exposition::{Exposition, seconds};
use crate::metrics::reasons::{CloseLabel, DropReason, IngressReason, RefusalReason};
use crate::metrics::registry::Id;
use crate::metrics::{
    Counters, EXECUTION_METHODS, L1_FAILURES, Metrics, RATE_LIMITS, SEND_OUTCOMES, SETTLE_JOBS, log_lines_dropped,
};
use crate::rpc::view::View;
use crate::rpc::{Method, Settings};
use crate::topology::Shared;

/// What does not change while the process runs.
#[derive(Clone, Debug)]
pub struct Known {
    pub version: &'static str,
    pub started_unix_ns: u64,
    pub rpc: Settings,
}

/// Words of `sequencer_executionStatus`.
const CLIENT_CONDITIONS: &[&str] = &["embedded", "connecting", "ready", "stalled", "unreachable", "stuck", "halted"];
/// Words of `sequencer_settlementStatus`.
const L1_CONDITIONS: &[&str] = &["off", "syncing", "ready", "away", "waiting", "halted"];

/// The page. `shared` is there when the process has its threads.
#[must_use]
pub fn page(known: &Known, shared: Option<&Shared>, now_ns: u64) -> String {
    collect(known, shared, now_ns).finish()
}

fn collect(known: &Known, shared: Option<&Shared>, now_ns: u64) -> Exposition {
    let mut page = Exposition::default();
    page.value(Id::BuildInfo, &[known.version], 1);
    page.text(Id::ProcessStart, &[], &seconds(known.started_unix_ns));
    page.value(Id::LogDropped, &[], log_lines_dropped());
    let facts = shared.map_or_else(Facts::starting, |shared| Facts::of(shared, now_ns));
    health_of(&mut page, &health::judge(&facts));
    if let Some(shared) = shared {
        let metrics = &*shared.metrics;
        tiers(&mut page, metrics);
        ingress(&mut page, shared);
        builder(&mut page, shared);
        journal(&mut page, shared);
        blocks(&mut page, known, shared);
        execution(&mut page, shared);
        settlement(&mut page, shared);
    }
    page
}

fn health_of(page: &mut Exposition, reasons: &[Reason]) {
    for probe in Probe::ALL {
        page.value(Id::HealthLevel, &[probe.name()], health::level(reasons, probe) as u64);
    }
    for reason in Reason::ALL {
        page.value(Id::HealthReason, &[reason.name()], u64::from(reasons.contains(reason)));
    }
}

/// Several threads' histograms of one kind.
fn merged<'a>(histograms: impl IntoIterator<Item = &'a Histogram>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    histograms.into_iter().for_each(|histogram| histogram.add_to(&mut snapshot));
    snapshot
}

/// A counter for each label; `of` sums it over the threads that have one.
fn counters(page: &mut Exposition, id: Id, labels: &[&str], of: impl Fn(usize) -> u64) {
    for (index, label) in labels.iter().enumerate() {
        page.value(id, &[label], of(index));
    }
}

fn counter_set<const N: usize>(page: &mut Exposition, id: Id, labels: &[&str], set: &Counters<N>) {
    counters(page, id, labels, |index| set.get(index));
}

fn tiers(page: &mut Exposition, metrics: &Metrics) {
    let accepted = merged(metrics.shards.iter().map(|shard| &shard.accepted));
    let later = [
        ("preconfirmed", &metrics.chain.preconfirmed),
        ("sealed", &metrics.chain.sealed),
        ("posted", &metrics.l1.posted),
        ("safe", &metrics.l1.safe),
        ("finalized", &metrics.l1.finalized),
    ];
    page.histogram(Id::TierReached, &["accepted"], &accepted);
    for (tier, histogram) in later {
        page.histogram(Id::TierReached, &[tier], &histogram.snapshot());
    }
}

fn ingress(page: &mut Exposition, shared: &Shared) {
    let shards = &shared.metrics.shards;
    page.value(Id::ConnectionOpen, &[], shared.connection_count.load(Ordering::Relaxed));
    let methods: Vec<&str> = Method::ALL.iter().map(|method| method.name()).collect();
    counters(page, Id::RequestReceived, &methods, |index| shards.iter().map(|shard| shard.requests.get(index)).sum());
    let limited = |index| shards.iter().map(|shard| shard.limited.get(index)).sum();
    counters(page, Id::RequestLimited, RATE_LIMITS, limited);
    let rejected = |index| shards.iter().map(|shard| shard.rejected.get(index)).sum();
    counters(page, Id::IngressRejected, IngressReason::NAMES, rejected);
    page.histogram(Id::RecoverDuration, &[], &merged(shards.iter().map(|shard| &shard.recover)));
    page.value(Id::SignatureRecovered, &[], shards.iter().map(|shard| shard.recovered.get()).sum());
    let recovery = recovery::status();
    page.value(Id::RecoveryChecked, &[], recovery.checked_count);
    page.value(Id::RecoveryDisagreed, &[], recovery.disagreement_count);
    page.histogram(Id::QueryDuration, &[], &merged(shared.metrics.queries.iter().map(|query| &query.run)));
}

fn builder(page: &mut Exposition, shared: &Shared) {
    let builder = &shared.metrics.builder;
    page.value(Id::TxAdmitted, &[], builder.admitted.get());
    counter_set(page, Id::TxRejected, RefusalReason::NAMES, &builder.rejected);
    page.value(Id::TxPlaced, &[], builder.placed.get());
    counter_set(page, Id::TxDropped, DropReason::NAMES, &builder.dropped);
    counter_set(page, Id::BlockClosed, CloseLabel::NAMES, &builder.closed);
    page.value(Id::BlockSealed, &[], builder.sealed.get());
    page.histogram(Id::TurnDuration, &[], &builder.turn.snapshot());
    page.value(Id::MajorFault, &[], shared.cold.major_faults());
    page.value(Id::PoolPooled, &["ready"], builder.pool_ready.get());
    page.value(Id::PoolPooled, &["queued"], builder.pool_queued.get());
    page.value(Id::PoolBytes, &[], builder.pool_bytes.get());
}

fn journal(page: &mut Exposition, shared: &Shared) {
    let journal = &shared.metrics.journal;
    let durable = shared.gate.durable().0;
    // A follower has no journal and a start no new record: what is durable was recorded.
    page.value(Id::JournalSequence, &["recorded"], shared.metrics.builder.recorded.get().max(durable));
    page.value(Id::JournalSequence, &["durable"], durable);
    page.histogram(Id::JournalWrite, &[], &journal.write.snapshot());
    page.value(Id::JournalBytes, &[], journal.written_bytes.get());
    page.value(Id::JournalFull, &[], u64::from(shared.journal.is_disk_full.load(Ordering::Relaxed)));
}

fn blocks(page: &mut Exposition, known: &Known, shared: &Shared) {
    page.histogram(Id::SealDuration, &[], &shared.metrics.state.seal.snapshot());
    let chain = &shared.metrics.chain;
    page.histogram(Id::AppendDuration, &[], &chain.append.snapshot());
    page.value(Id::ChainTx, &[], chain.transactions.get());
    page.value(Id::ChainGas, &[], chain.gas.get());
    // Before the heads: what is durable was published before.
    let durable = shared.gate.durable();
    let heads = shared.heads.load();
    let view = View { heads: &heads, durable, settings: &known.rpc };
    let latest = view.latest_number();
    page.value(Id::BlockNumber, &["latest"], latest);
    page.value(Id::BlockNumber, &["safe"], heads.safe_number.min(latest));
    page.value(Id::BlockNumber, &["finalized"], heads.finalized_number.min(latest));
}

fn execution(page: &mut Exposition, shared: &Shared) {
    let status = shared.execution.status();
    let meter = &shared.metrics.execution;
    page.one_of(Id::ExecutionCondition, CLIENT_CONDITIONS, status.condition.name());
    page.value(Id::ExecutionNumber, &["head"], status.head_number);
    page.value(Id::ExecutionNumber, &["valid"], status.valid_number);
    for (method, calls) in EXECUTION_METHODS.iter().zip(&meter.calls) {
        page.histogram(Id::ExecutionCall, &[method], &calls.snapshot());
    }
    counter_set(page, Id::ExecutionFailed, EXECUTION_METHODS, &meter.failed);
    let pulled = shared.execution.forwarding().counts;
    let outcomes =
        [("admitted", pulled.admitted), ("known", pulled.known), ("refused", pulled.refused), ("gone", pulled.gone)];
    for (outcome, count) in outcomes {
        page.value(Id::PoolPulled, &[outcome], count);
    }
    page.value(Id::ExecutionConnected, &[], status.connect_count);
    page.value(Id::ExecutionRewound, &[], status.rewind_count);
    page.value(Id::ExecutionReset, &[], status.reset_count);
}

fn settlement(page: &mut Exposition, shared: &Shared) {
    let status = shared.settlement.status();
    let meter = &shared.metrics.l1;
    page.one_of(Id::L1Condition, L1_CONDITIONS, shared.settlement.condition().name());
    let numbers = [
        ("head", status.l1_head.number),
        ("derived", status.l1_derived.number),
        ("finalized", status.l1_finalized),
        ("origin", status.l1_origin.number),
    ];
    for (kind, number) in numbers {
        page.value(Id::L1Number, &[kind], number);
    }
    let client = &shared.metrics.l1_client;
    page.histogram(Id::L1Call, &[], &client.call.snapshot());
    counter_set(page, Id::L1Failed, L1_FAILURES, &client.failed);
    counter_set(page, Id::BatchSent, SEND_OUTCOMES, &meter.sent);
    page.value(Id::BatchNext, &[], status.batch_next);
    for reason in SkipReason::NAMES {
        let counted = status.skip_counts.iter().find(|(name, _)| *name == reason);
        page.value(Id::BatchSkipped, &[reason], counted.map_or(0, |(_, count)| *count));
    }
    page.value(Id::TxOutstanding, &["in_flight"], status.in_flight);
    page.value(Id::TxOutstanding, &["unfinalized"], status.unfinalized);
    page.value(Id::BlockPosted, &[], status.posted_block);
    page.value(Id::BacklogBlocks, &[], status.backlog_blocks);
    page.value(Id::BacklogBytes, &[], status.backlog_bytes);
    page.value(Id::KeptBytes, &[], shared.settlement.kept_bytes());
    page.text(Id::HourCost, &[], &status.hour_cost_wei.to_string());
    for (job, runs) in SETTLE_JOBS.iter().zip(&shared.metrics.settle.jobs) {
        page.histogram(Id::SettleJob, &[job], &runs.snapshot());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::builder::block::Heads;
    use crate::builder::replay::genesis_block;
    use crate::config::genesis::dev_genesis;
    use crate::l1::block::BlockId;
    use crate::metrics::registry::REGISTRY;
    use crate::primitives::{B256, Fork, Sequence};
    use crate::ring::Doorbell;
    use crate::settlement::status::{SettlementStatus, Skip};

    fn shared() -> Shared {
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread"));
        let mut store = crate::testing::state_disk::store(pool);
        let genesis = genesis_block(&dev_genesis(Fork::Osaka, 1).expect("a genesis"), &mut store).expect("block 0");
        let heads = Arc::new(Heads::new([Arc::new(genesis)].into(), None));
        let bell = || Arc::new(Doorbell::for_thread());
        Shared::new(heads, vec![bell(), bell()], bell(), bell(), Sequence(7))
    }

    fn known() -> Known {
        let rpc = Settings {
            chain_id: 1,
            client_version: String::new(),
            debug_enabled: false,
            pool_content_enabled: false,
            proxy_enabled: false,
            state_is_remote: false,
            priority_fee_min_wei: 0,
        };
        Known { version: "1.2.3", started_unix_ns: 1_500_000_000, rpc }
    }

    /// What is in the table and never written would be a promise without a value.
    #[test]
    fn a_page_holds_every_metric_of_the_registry() {
        let shared = shared();
        let names: Vec<&str> = REGISTRY.iter().map(|metric| metric.name).collect();
        assert_eq!(collect(&known(), Some(&shared), 1).names(), names);
    }

    #[test]
    fn skipped_batches_are_counted_by_reason_and_from_zero() {
        let shared = shared();
        let mut status = SettlementStatus::default();
        for _ in 0..2 {
            let reason = SkipReason::HasValue.name();
            status.skipped(Skip { tx_hash: B256::ZERO, l1: BlockId::default(), reason, what: String::new() });
        }
        shared.settlement.show(status);
        let page = page(&known(), Some(&shared), 1);
        for line in [
            "seq_settlement_batch_skipped_total{reason=\"has_value\"} 2",
            "seq_settlement_batch_skipped_total{reason=\"invalid\"} 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
    }

    #[test]
    fn shards_are_summed_and_a_conditions_word_is_one() {
        let shared = shared();
        shared.metrics.shards[0].accepted.record(5_000);
        shared.metrics.shards[1].accepted.record(7_000);
        shared.metrics.shards[0].requests.increment(Method::ChainId as usize);
        shared.metrics.shards[1].requests.increment(Method::ChainId as usize);
        shared.metrics.shards[1].rejected.increment(IngressReason::Signature as usize);
        let page = page(&known(), Some(&shared), 1);
        for line in [
            "seq_tier_tx_reached_duration_seconds_count{tier=\"accepted\"} 2",
            "seq_tier_tx_reached_duration_seconds_sum{tier=\"accepted\"} 0.000012",
            "seq_ingress_request_received_total{method=\"eth_chainId\"} 2",
            "seq_ingress_tx_rejected_total{reason=\"signature\"} 1",
            "seq_execution_client_condition{condition=\"embedded\"} 1",
            "seq_execution_client_condition{condition=\"halted\"} 0",
            "seq_l1_settlement_condition{condition=\"off\"} 1",
            "seq_journal_sequence_reached{stage=\"recorded\"} 7",
            "seq_health_level{probe=\"health\"} 0",
            "seq_health_reason{reason=\"starting\"} 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
    }

    #[test]
    fn a_process_without_threads_has_a_page() {
        let page = page(&known(), None, 0);
        for line in [
            "seq_process_build_info{version=\"1.2.3\"} 1",
            "seq_process_start_time_seconds 1.5",
            "seq_health_level{probe=\"ready\"} 2",
            "seq_health_reason{reason=\"starting\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
        assert!(!page.contains("seq_chain_block_number"), "{page}");
    }
}
