//! Bounds of everything that could grow or wait without end, each with its reason.

/// Calls per JSON-RPC batch during set-up and verification: go-ethereum and our node take 1,000; 100 keeps each reply small.
pub const SETUP_BATCH_CALLS_MAX: usize = 100;
/// Pause before calls of the set-up that the node was too busy for are made again.
pub const SETUP_BUSY_PAUSE_MS: u64 = 100;
/// Rounds of them of which the node takes none: after three seconds it is not busy but closed.
pub const SETUP_BUSY_ROUNDS_MAX: u32 = 30;

/// Calls per measured batch: the batch limit of go-ethereum and of our node.
pub const BATCH_CALLS_MAX: usize = 1_000;

/// Transactions of one run: bounds the memory for signed bytes (about 450 bytes each).
pub const TRANSACTIONS_MAX: usize = 20_000_000;

/// Bytes of one HTTP reply: our node and go-ethereum cut batch replies at 25 MB.
pub const REPLY_BYTES_MAX: usize = 64 << 20;

/// Headers of one HTTP reply: nodes send five to ten.
pub const REPLY_HEADERS_MAX: usize = 64;

/// Times one connection is opened again within a run; a node that closes more often is not under test any more.
pub const RECONNECTS_MAX: u32 = 100;

/// Different error texts kept apart in the report; the rest is counted as "other".
pub const ERROR_CLASSES_MAX: usize = 32;

/// Token holders per `deal` call: 200 new balances cost about 5 M gas, below the cap of 2^24 (EIP-7825).
pub const DEAL_HOLDERS_MAX: usize = 200;

/// Notifications between the socket reader and the reader of blocks. On full: Stall (the reader waits, and time stamps
/// of later notifications are then late; 4,096 blocks behind is an hour).
pub const NOTIFICATIONS_MAX: usize = 4_096;

/// How long set-up waits without any progress before it gives up.
pub const SETUP_STALL_S_MAX: u64 = 60;

/// Socket deadline of set-up calls: a node that is silent for this long is stuck.
pub const CALL_DEADLINE_S: u64 = 60;

/// A request that leaves later than this after its intended time is counted as late.
pub const LATE_NS: u64 = 1_000_000;

/// Distance between polls of `eth_blockNumber` where there is no WebSocket: the resolution of the sealed tier there.
pub const HEAD_POLL_MS: u64 = 50;

/// Distance between polls of the `safe` tag: the resolution of the safe tier.
pub const SAFE_POLL_MS: u64 = 100;

/// How long a transaction may block its sender before it is looked for in the pool: several blocks of a second.
pub const STUCK_MS: u64 = 4_000;

/// Pause between two looks for senders that are stuck.
pub const MEND_PAUSE_MS: u64 = 500;

/// Senders looked after at once: bounds what mending asks of the node.
pub const MEND_SENDERS_MAX: usize = 100;

/// Times that one transaction is sent again before it is left alone.
pub const RESENDS_MAX: u32 = 3;

/// Accepted transactions without a block that are asked for by name at the end; above this the rest counts as not asked.
pub const FATES_ASKED_MAX: usize = 100_000;

/// Points of a curve over time: as many as a plot can show.
pub const SERIES_POINTS_MAX: u64 = 240;

/// Samples of the node's memory kept, one a second: a day.
pub const MEMORY_SAMPLES_MAX: usize = 86_400;

/// Largest latency that the histograms hold: one hour. Longer ones are recorded as this.
pub const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
