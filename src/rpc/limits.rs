//! Bounds of the RPC layer.

/// Blocks that one `eth_getLogs` may span (DESIGN 5).
pub const LOGS_BLOCKS_MAX: u64 = 10_000;
/// Logs that one `eth_getLogs` may return (DESIGN 5).
pub const LOGS_MAX: usize = 10_000;
/// Alternatives of one topic position and addresses of one filter: what go-ethereum takes.
pub const FILTER_ALTERNATIVES_MAX: usize = 1_000;
/// Gas of one `eth_call` or `eth_estimateGas` execution (DESIGN 5).
pub const CALL_GAS_MAX: u64 = 50_000_000;
/// Time of one `eth_call`, or of all executions of one `eth_estimateGas` (DESIGN 5).
pub const CALL_DURATION_NS_MAX: u64 = 2_000_000_000;
/// Interpreter steps between two looks at the clock: about 50 µs of plain opcodes.
pub const CALL_STEPS_PER_CLOCK_READ: u32 = 4_096;
/// Gas that a transaction may ask for: EIP-7825, on every fork by policy (DESIGN 6).
pub const TX_GAS_MAX: u64 = 16_777_216;
/// Blocks of one `eth_feeHistory`: what go-ethereum takes.
pub const FEE_HISTORY_BLOCKS_MAX: u64 = 1_024;
/// Percentiles of one `eth_feeHistory`: what go-ethereum takes.
pub const FEE_HISTORY_PERCENTILES_MAX: usize = 100;
/// Placed transactions that a gas price suggestion looks at.
pub const FEE_SAMPLE_TXS: usize = 64;
/// Subscriptions of one connection (DESIGN 5).
pub const SUBSCRIPTIONS_PER_CONNECTION_MAX: usize = 100;
/// Placed transactions that one turn of a shard turns into notifications, so that a turn stays short.
pub const EVENT_TXS_PER_TURN_MAX: usize = 2_048;
/// Sealed blocks that one turn of a shard turns into notifications.
pub const EVENT_BLOCKS_PER_TURN_MAX: usize = 4;
/// Receipts in one `sequencer_preconfirmations` notification: about 256 KiB, a quarter of a slow subscriber's queue.
pub const PRECONFIRMATIONS_PER_NOTIFICATION_MAX: usize = 256;
/// Queries in flight per shard; also the slots of each reply ring, so that a worker's push cannot fail.
pub const QUERIES_PER_SHARD_MAX: usize = 256;
/// Jobs that wait for a query worker.
pub const QUERY_JOBS_MAX: usize = 1_024;
/// A query that waits longer than this for a worker is answered with a time-out.
pub const QUERY_WAIT_NS_MAX: u64 = 10_000_000_000;
/// Default and largest wait of `eth_sendRawTransactionSync`.
pub const SYNC_WAIT_MS_DEFAULT: u64 = 2_000;
pub const SYNC_WAIT_MS_MAX: u64 = 30_000;
/// Accounts and slots that the overrides of one call may name.
pub const OVERRIDE_SLOTS_MAX: usize = 65_536;
/// Bytes of one result (DESIGN 5: a batch reply is at most 25 MB).
pub const RESULT_BYTES_MAX: usize = 25_000_000;

const _: () = assert!(CALL_GAS_MAX >= TX_GAS_MAX);
const _: () = assert!(CALL_DURATION_NS_MAX < QUERY_WAIT_NS_MAX);
const _: () = assert!(SYNC_WAIT_MS_DEFAULT <= SYNC_WAIT_MS_MAX);
const _: () = assert!(PRECONFIRMATIONS_PER_NOTIFICATION_MAX <= EVENT_TXS_PER_TURN_MAX);
