//! Bounds of the RPC layer.

/// Blocks that one `eth_getLogs` may span (DESIGN 5).
pub const LOGS_BLOCKS_MAX: u64 = 10_000;
/// Logs that one `eth_getLogs` may return (DESIGN 5).
pub const LOGS_MAX: usize = 10_000;
/// Alternatives of one topic position and addresses of one filter: what go-ethereum takes.
pub const FILTER_ALTERNATIVES_MAX: usize = 1_000;
/// Interpreter steps between two looks at the clock: about 50 µs of plain opcodes.
pub const CALL_STEPS_PER_CLOCK_READ: u32 = 4_096;
/// Blocks of one `eth_feeHistory`: what go-ethereum takes.
pub const FEE_HISTORY_BLOCKS_MAX: u64 = 1_024;
/// Percentiles of one `eth_feeHistory`: what go-ethereum takes.
pub const FEE_HISTORY_PERCENTILES_MAX: usize = 100;
/// Placed transactions that a gas price suggestion looks at.
pub const FEE_SAMPLE_TXS: usize = 64;
/// Subscriptions of one connection (DESIGN 5).
pub const SUBSCRIPTIONS_PER_CONNECTION_MAX: usize = 100;
/// Placed transactions that one turn of a shard turns into notifications: a turn stays short, and what it adds to a subscriber's queue
/// (about 110 KiB of transfers) stays far below the 1 MiB at which one that does not read is closed.
pub const EVENT_TXS_PER_TURN_MAX: usize = 256;
/// Sealed blocks that one turn of a shard turns into notifications.
pub const EVENT_BLOCKS_PER_TURN_MAX: usize = 4;
/// Receipts in one `sequencer_preconfirmations` notification.
pub const PRECONFIRMATIONS_PER_NOTIFICATION_MAX: usize = 256;
/// Default and largest wait of `eth_sendRawTransactionSync`.
pub const SYNC_WAIT_MS_DEFAULT: u64 = 2_000;
pub const SYNC_WAIT_MS_MAX: u64 = 30_000;
/// Accounts and slots that the overrides of one call may name.
pub const OVERRIDE_SLOTS_MAX: usize = 65_536;
/// Bytes of the logs that one `eth_getLogs` may return: what a batch reply may have (DESIGN 5).
pub const LOGS_BYTES_MAX: usize = 25_000_000;
/// Bytes of one result: the receipts of the largest block, 8 MiB of transactions of 100 bytes, at 1.5 KB each.
pub const RESULT_BYTES_MAX: usize = 128 * 1_048_576;

const _: () = assert!(LOGS_BYTES_MAX <= RESULT_BYTES_MAX);
const _: () = assert!(SYNC_WAIT_MS_DEFAULT <= SYNC_WAIT_MS_MAX);
const _: () = assert!(PRECONFIRMATIONS_PER_NOTIFICATION_MAX <= EVENT_TXS_PER_TURN_MAX);
