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
/// Filters that one connection may have made and not removed (DESIGN 5). On full: `Reject`.
pub const FILTERS_PER_CONNECTION_MAX: usize = 100;
/// Filters of one shard, those of connections that are gone included. On full: `Reject`. 150 bytes each without their criteria.
pub const FILTERS_PER_SHARD_MAX: usize = 8_192;
/// Bytes of the criteria of a shard's filters: a hundred of the largest. On full: `Reject`.
pub const FILTERS_BYTES_MAX: usize = 16 << 20;
/// A filter that was not polled for this long is gone (DESIGN 5; go-ethereum's default).
pub const FILTER_LIFE_NS: u64 = 300_000_000_000;
/// After this a poll that nobody gave back counts as given up: far beyond the time of a heavy read and its wait.
pub const FILTER_LEASE_NS: u64 = 60_000_000_000;
/// Blocks that one poll is told at most; the next poll is told the following ones.
pub const FILTER_BLOCKS_PER_POLL_MAX: u64 = 10_000;
/// Transactions that one poll is told at most: 3.5 MB of hashes. The next poll is told the following ones.
pub const FILTER_TXS_PER_POLL_MAX: usize = 50_000;
/// Executions of one `eth_createAccessList`, each with the list that the one before found; lists are stable after two or three.
pub const ACCESS_LIST_ROUNDS_MAX: u32 = 32;
/// Bytes of notifications, of all subscribers, between two writes to their sockets: far below the 1 MiB at which one that does not read
/// is closed, so that one that reads never comes near.
pub const EVENT_PORTION_BYTES: usize = 128 << 10;
/// Portions of one turn of a shard, 4 MiB: a turn stays short, and what a long turn left behind is made up for at once.
pub const EVENT_PORTIONS_PER_TURN_MAX: usize = 32;
/// What looking at one log for one filter counts as, in bytes of notifications, because nothing need match: 20 ns.
pub const EVENT_FILTER_BYTES: usize = 16;
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
const _: () = assert!(FILTER_LEASE_NS < FILTER_LIFE_NS && FILTERS_PER_CONNECTION_MAX < FILTERS_PER_SHARD_MAX);
const _: () = assert!(SYNC_WAIT_MS_DEFAULT <= SYNC_WAIT_MS_MAX);
