//! Every metric that is shown, in one table; `docs/METRICS.md` holds the same (tested), and nothing else can be written into a scrape.
//!
//! Names: `seq_<stage>_<subject>_<action>[_<unit>]`, subject singular, `_total` on counters, base units (`docs/STYLE.md`).

/// What a metric's value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Grows while the process lives; a restart begins at zero.
    Counter,
    Gauge,
    /// Counters of durations up to each bound, with their sum.
    Histogram,
}

impl Kind {
    /// The word of the text format.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    /// Names of its labels, in order.
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

impl Metric {
    /// The unit, which the name ends with.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        ["seconds", "bytes", "gas", "wei"].into_iter().find(|unit| name.ends_with(unit)).unwrap_or("")
    }
}

macro_rules! registry {
    ($($id:ident $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        /// A metric's place in [`REGISTRY`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Id {
            $($id),+
        }

        /// See the module's text.
        pub const REGISTRY: &[Metric] = &[
            $(Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help }),+
        ];
    };
}

registry! {
    BuildInfo Gauge "seq_process_build_info" ["version"] "Always 1; the version is in the label";
    ProcessStart Gauge "seq_process_start_time_seconds" [] "Unix time at which the process began to open its files";
    LogDropped Counter "seq_log_line_dropped_total" [] "Lines that the log's writer had no room for: whoever reads standard error is too slow";
    HealthLevel Gauge "seq_health_level" ["probe"] "What a probe answers: 0 full (200), 1 degraded (206), 2 down (503)";
    HealthReason Gauge "seq_health_reason" ["reason"] "1 while this is why a probe does not answer 200";

    TierReached Histogram "seq_tier_tx_reached_duration_seconds" ["tier"]
        "Time of a transaction until it is accepted (its last byte is read → its durable answer is written), and from then until it is preconfirmed, sealed (and durable), posted, safe, finalized";

    ConnectionOpen Gauge "seq_ingress_connection_open" [] "Open connections of the JSON-RPC port";
    RequestReceived Counter "seq_ingress_request_received_total" ["method"] "Requests by method, batch items counted";
    RequestLimited Counter "seq_ingress_request_limited_total" ["limit"] "Requests that a rate limit refused: of one address, or of all together";
    IngressRejected Counter "seq_ingress_tx_rejected_total" ["reason"] "Transactions refused before the pool saw them";
    RecoverDuration Histogram "seq_ingress_recover_duration_seconds" [] "Time of one recovery of the senders of a turn, their hand-over to the builder core included";
    SignatureRecovered Counter "seq_ingress_signature_recovered_total" [] "Signatures in those recoveries";
    RecoveryChecked Counter "seq_recovery_signature_checked_total" [] "Recoveries in vectors that libsecp256k1 repeated";
    RecoveryDisagreed Counter "seq_recovery_signature_disagreed_total" [] "Of those, how many differed: one ends the use of vectors";

    TxAdmitted Counter "seq_builder_tx_admitted_total" [] "Transactions that entered the pool";
    TxRejected Counter "seq_builder_tx_rejected_total" ["reason"] "Transactions that the pool, or the node's state, refused";
    TxPlaced Counter "seq_builder_tx_placed_total" [] "Transactions that got their place in a block";
    TxDropped Counter "seq_builder_tx_dropped_total" ["reason"] "Admitted transactions that ended without a place";
    BlockClosed Counter "seq_builder_block_closed_total" ["reason"] "Blocks that were closed, by why";
    BlockSealed Counter "seq_builder_block_sealed_total" [] "Blocks that have their hash";
    TurnDuration Histogram "seq_builder_turn_duration_seconds" [] "Time of a turn of the builder core in which something happened";
    MajorFault Counter "seq_builder_page_fault_major_total" [] "Major page faults of the builder core: each waited for the disk";
    PoolPooled Gauge "seq_pool_tx_pooled" ["state"] "Transactions in the pool: ready (to be placed) and queued (behind a nonce that is missing)";
    PoolBytes Gauge "seq_pool_tx_pooled_bytes" [] "Encoded bytes of the pool's transactions";

    JournalSequence Gauge "seq_journal_sequence_reached" ["stage"] "Newest record that was made (recorded), and that is on the disk (durable)";
    JournalWrite Histogram "seq_journal_group_write_duration_seconds" [] "Time of one durable group write";
    JournalBytes Counter "seq_journal_group_written_bytes_total" [] "Bytes of those groups";
    JournalFull Gauge "seq_journal_disk_full" [] "1 while the journal's disk has no room for its next slot";

    SealDuration Histogram "seq_state_block_seal_duration_seconds" [] "Time from a block's close to its hash, on the state thread";
    AppendDuration Histogram "seq_chain_block_append_duration_seconds" [] "Time to append a sealed block to the chain database";
    ChainTx Counter "seq_chain_tx_appended_total" [] "Transactions of those blocks";
    ChainGas Counter "seq_chain_block_used_gas_total" [] "Gas used by those blocks";
    BlockNumber Gauge "seq_chain_block_number" ["tag"] "Number of the latest, safe and finalized block, as JSON-RPC says";

    QueryDuration Histogram "seq_query_job_run_duration_seconds" [] "Time of one heavy read on a query thread, its wait not counted";

    ExecutionCondition Gauge "seq_execution_client_condition" ["condition"] "1 at what sequencer_executionStatus says";
    ExecutionNumber Gauge "seq_execution_block_number" ["kind"] "The execution client's head, and the newest block that it called VALID";
    ExecutionCall Histogram "seq_execution_call_duration_seconds" ["method"] "Time of one call to the execution client that was answered";
    ExecutionFailed Counter "seq_execution_call_failed_total" ["method"] "Calls to the execution client without an answer, or with an error";
    ExecutionConnected Counter "seq_execution_connection_made_total" [] "How often the connection to the execution client was made";
    ExecutionRewound Counter "seq_execution_head_rewound_total" [] "How often its head had to be set by debug_setHead";
    ExecutionReset Counter "seq_execution_database_reset_total" [] "How often execution.reset-command was run to give it a new database";
    PoolPulled Counter "seq_execution_pool_tx_pulled_total" ["outcome"] "Transactions of the execution client's own pool, by what became of them here";

    L1Condition Gauge "seq_l1_settlement_condition" ["condition"] "1 at what sequencer_settlementStatus says";
    L1Number Gauge "seq_l1_block_number" ["kind"] "L1 blocks: head, derived (all its batches are decided), finalized, origin (new blocks stand on it)";
    L1Call Histogram "seq_l1_call_duration_seconds" [] "Time of one question to an endpoint of L1 that was answered; some need several requests";
    L1Failed Counter "seq_l1_call_failed_total" ["reason"] "Questions that an endpoint of L1 did not answer, or not with what is true; withheld: heads that it named for long, and no block that counts came";
    BatchSent Counter "seq_settlement_batch_sent_total" ["outcome"] "ExecuteTx handed to L1, resends counted, by what L1 said";
    BatchNext Gauge "seq_settlement_batch_next" [] "Index of the next batch that L1 is to have: it grows by one for each that counts";
    BatchSkipped Counter "seq_settlement_batch_skipped_total" ["reason"] "ExecuteTx on L1 that do not count";
    TxOutstanding Gauge "seq_settlement_tx_outstanding" ["state"] "ExecuteTx in flight (no block has them) and unfinalized (their block is not final)";
    BlockPosted Gauge "seq_settlement_block_posted" [] "Newest block of which all was sent to L1";
    BacklogBlocks Gauge "seq_settlement_block_waiting" [] "Blocks that wait to be posted";
    BacklogBytes Gauge "seq_settlement_block_waiting_bytes" [] "Bytes of those blocks";
    KeptBytes Gauge "seq_settlement_witness_kept_bytes" [] "Bytes of the files of witnesses of blocks that wait (witness.kept-bytes-max)";
    HourCost Gauge "seq_settlement_hour_cost_wei" [] "What posting has cost in the last hour of L1, unfinalized at its cap";
    SettleJob Histogram "seq_settlement_job_run_duration_seconds" ["job"] "Time of one job of the settle thread: cut (a block's segments), check (strict re-execution of a batch), keep (a witness to its file)";
}

const _: () = assert!(REGISTRY.len() < 256);

/// The table of `docs/METRICS.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = "| name | type | unit | labels | meaning |\n|---|---|---|---|---|\n".to_owned();
    for metric in REGISTRY {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (kind, unit) = (metric.kind.name(), metric.unit());
        text += &format!("| `{}` | {kind} | {unit} | {} | {} |\n", metric.name, labels.join(", "), metric.help);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        let mut names: Vec<&str> = REGISTRY.iter().map(|metric| metric.name).collect();
        for metric in REGISTRY {
            let name = metric.name;
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
                "{name}"
            );
            assert!(name.starts_with("seq_") && name.split('_').count() >= 3, "{name}: seq_<stage>_<subject>…");
            assert_eq!(metric.kind == Kind::Counter, name.ends_with("_total"), "{name}: `_total` is for counters");
            assert_eq!(
                metric.kind == Kind::Histogram,
                name.ends_with("_duration_seconds"),
                "{name}: durations are histograms"
            );
            assert!(!metric.help.ends_with('.') && !metric.help.contains('|'), "{name}: {}", metric.help);
            // Reserved by the text format.
            assert!(metric.labels.iter().all(|label| *label != "le" && *label != "quantile"), "{name}");
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "a name stands twice");
    }
}
