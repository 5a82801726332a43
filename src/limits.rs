//! Every capacity and deadline, with its reason. Pools are sums, one line per consumer; relations are asserted at compile time.

/// Accounts that the builder's flat cache has room for from the start, and slots: tables of 131,072 places of 120 and 140 bytes, 32 MiB in all. To
/// grow them later would stop the builder core for milliseconds.
pub const WORLD_ROOM: usize = 114_688;
/// Above it the cache is emptied between blocks, the accounts and the slots each, so that no more than 65 MiB are held for them. What it forgets
/// costs one read of the state, about 1 µs.
pub const WORLD_ENTRIES_MAX: usize = 196_608;
/// Transactions of a block that the builder has room for from the start.
pub const PLACED_ROOM: usize = 32_768;
/// Above it the code cache is emptied between blocks: 4,096 codes of at most 24 KiB.
pub const WORLD_CODES_MAX: usize = 4_096;

/// Bytes of a block's RLP (EIP-7934: 10 MiB less a safety margin of 2 MiB).
pub const BLOCK_RLP_BYTES_MAX: usize = 8 * 1_048_576;
/// Header, list headers and slack inside [`BLOCK_RLP_BYTES_MAX`].
pub const BLOCK_OVERHEAD_BYTES_MAX: usize = 1_024;
/// Encoded bytes of one pooled transaction.
pub const TX_BYTES_MAX: usize = 65_536;
/// RLP string header around a transaction of at most [`TX_BYTES_MAX`] bytes.
pub const TX_ITEM_HEADER_BYTES_MAX: usize = 5;
/// Transactions of the open block's body.
pub const BLOCK_BODY_BYTES_MAX: usize = BLOCK_RLP_BYTES_MAX - BLOCK_OVERHEAD_BYTES_MAX;
/// Gas of one transaction on every fork (EIP-7825's cap, our policy before Osaka).
pub const TX_GAS_MAX: u64 = 16_777_216;
/// A block closes before its logs could exceed what readers index with 32 bits and what memory should hold: 1 M logs.
pub const BLOCK_LOGS_MAX: usize = 1_048_576;
/// LOG0 costs 375 gas.
pub const TX_LOGS_MAX: usize = (TX_GAS_MAX / 375) as usize;
/// Bytes of a block's logs and codes after which it closes: a byte of log data costs 8 gas, so the gas limit alone would allow gigabytes.
pub const BLOCK_PAYLOAD_BYTES_MAX: u64 = 64 * 1_048_576;
/// A block closes before its changes exceed this: 4 M entries of about 110 bytes.
pub const BLOCK_DIFFS_MAX: usize = 4_194_304;
/// A warm SSTORE costs 100 gas, but a slot changes at most once per transaction in the diff; a cold slot costs 2,100.
pub const TX_DIFFS_MAX: usize = (TX_GAS_MAX / 2_100) as usize + 1_024;
const _: () = assert!(TX_LOGS_MAX < BLOCK_LOGS_MAX && TX_DIFFS_MAX < BLOCK_DIFFS_MAX);
const _: () = assert!(TX_BYTES_MAX + TX_ITEM_HEADER_BYTES_MAX < BLOCK_BODY_BYTES_MAX);
/// Cheapest transaction: a block with less gas left is full.
pub const TX_GAS_MIN: u64 = 21_000;
/// Below every signed transaction's size: a body with less room is full.
pub const TX_BYTES_MIN: usize = 100;

/// Transactions that one turn of the builder's loop executes before it looks at its rings again: about 0.3 ms of transfers.
pub const EXECUTIONS_PER_TURN: usize = 256;
/// Gas after which a turn of the builder's loop ends whatever its count: about 3 ms of heavy contract calls.
pub const GAS_PER_TURN: u64 = 10_000_000;
/// How often waiting conditional transactions are offered again while no block is open.
pub const CONDITIONS_RETRY_NS: u64 = 250_000_000;
/// Executions that may pay the coinbase less than declared before a conditional transaction is ended.
pub const UNPAID_EXECUTIONS_MAX: u32 = 3;
/// Gas limits of such executions in one block; nobody pays for them.
pub const UNPAID_GAS_PER_BLOCK: u64 = 30_000_000;
/// Messages taken from one shard in one turn of the builder's loop: about 0.2 ms of admissions.
pub const MESSAGES_PER_TURN_AND_SHARD: usize = 256;
/// Pool entries whose lifetime is checked in one turn.
pub const EXPIRIES_PER_TURN: u32 = 64;
/// Senders whose best transaction did not fit and who are passed over before the block closes as full.
pub const DEFERRALS_PER_BLOCK: u32 = 64;
/// Conditional transactions judged anew when a block is sealed: each reads at most 1,000 values.
pub const CONDITIONAL_RETRIES_PER_BLOCK: u32 = 256;
/// Placed transactions after which the state thread is woken to hash them: eight lanes, many times over.
pub const FOLLOW_WAKE_COUNT: u32 = 512;

/// How long a thread that replies wait for asks to run at a time, the least that Linux takes: on a core that it shares with the threads that close
/// a block, which run for milliseconds, it does not wait for the end of theirs.
pub const PROMPT_SLICE_NS: u64 = 100_000;

/// Blocks that memory is kept for beside those that hold theirs: the one that opens next, and one in case the chain thread is late.
pub const BLOCK_MEMORY_BLOCKS: usize = 2;

/// Sealed blocks kept in memory for reads, as many as the state retains roots.
pub const RECENT_BLOCKS_MAX: usize = 128;
/// Memory of the blocks kept for reads: transactions, logs, changes and codes, with what their pages hold beside it.
pub const RECENT_BLOCKS_BYTES_MAX: u64 = 512 * 1_048_576;
/// Memory of sealed blocks that wait for an execution client's verdict: past it nothing is built. A start keeps those blocks in memory too,
/// and two more may be on their way when it is reached: hence three quarters of what it keeps.
pub const UNCHECKED_BLOCKS_BYTES_MAX: u64 = RECENT_BLOCKS_BYTES_MAX / 4 * 3;

/// Requests of one shard that the builder has not answered: the slots of its reply ring.
pub const IN_FLIGHT_PER_SHARD_MAX: usize = 32_768;
/// Slots of a shard's ring to the builder: everything in flight, and as many withdrawals of waiting callers.
pub const INGRESS_RING_SLOTS: usize = 2 * IN_FLIGHT_PER_SHARD_MAX;
/// Blocks, and slack, in the ring to the chain thread beside the ends of everything pooled.
pub const CHAIN_RING_RESERVE: usize = 1_024;
/// Slots of the ring to the state thread: open, close and stop of one block, twice.
pub const STATE_RING_SLOTS: usize = 8;

/// Longest sleep of a plain thread, so that a lost wake-up costs this much and no more.
pub const PARK_NS_MAX: u64 = 50_000_000;
/// How long an idle pinned thread spins before it parks with `tuning.wait = spin`.
pub const SPIN_NS: u64 = 20_000;
/// How long a stopping process goes on placing what is ready.
pub const DRAIN_NS_MAX: u64 = 5_000_000_000;

/// Transactions of the pool that `txpool_content` and its kin show at most: what the builder core copies in about 2 ms.
pub const POOL_CONTENT_TXS_MAX: usize = 8_192;
/// Their bytes.
pub const POOL_CONTENT_BYTES_MAX: usize = 8 * 1_048_576;
/// Calls about filters of other shards that a shard has under way, until their leases are back. On full: `Reject`.
pub const NEIGHBOUR_CALLS_MAX: usize = 128;
/// Slots of a shard's inbox for each shard: of the calls under way the question or the answer, and the leases of as many before them that
/// are not taken back yet.
pub const NEIGHBOUR_SLOTS_PER_SHARD: usize = 3 * NEIGHBOUR_CALLS_MAX;

/// Heavy reads of one shard that are queued or running: the slots of its reply queue from the query pool.
pub const QUERIES_PER_SHARD_MAX: usize = 1_024;
/// Heavy reads queued in the process. On full: `Reject`.
pub const QUERY_QUEUE_SLOTS: usize = 4_096;
/// Slab bytes reserved for each byte of pooled transactions: a chunk of the largest class may be 4.5 times its content.
pub const SLAB_BYTES_PER_POOL_BYTE: usize = 5;
/// Slab bytes of a shard for transactions between socket and pool. Reserved address space, used only as needed.
pub const SLAB_BYTES_IN_FLIGHT: usize = 64 * 1_048_576;
/// How often appended blocks are synced in the background.
pub const CHAIN_SYNC_NS: u64 = 5_000_000_000;
/// A wall clock that is further behind the newest block than this stops the start.
pub const CLOCK_BEHIND_S_MAX: u64 = 60;

/// How often the builder core looks at its page faults: a system call of a fraction of a microsecond.
pub const FAULT_WATCH_NS: u64 = 10_000_000;

/// How often it is looked whether a segment of the state is ready: a block of 10,000 changes fills a seventh of one.
pub const STATE_CARE_NS: u64 = 250_000_000;
/// Leaves of the state that are looked at each time, about a millisecond: a million accounts take nine minutes.
pub const STATE_SCRUB_LEAVES: usize = 500;

/// Records that are not durable yet, in bytes: above it nothing is placed, so that what is left serves admission. About 25,000 transfers.
pub const JOURNAL_BUSY_BYTES: usize = 4 * 1_048_576;
/// Above it nothing is admitted either: 0.1 s of a disk that writes 80 MiB/s.
pub const JOURNAL_BEHIND_BYTES: usize = 8 * 1_048_576;
/// Payload of one group write. Latency is mostly the flush, so size is nearly free up to here.
pub const JOURNAL_GROUP_BYTES_MAX: usize = 1_048_576;
/// Capacity that the buffer of a turn's records has and keeps.
pub const JOURNAL_BUFFER_BYTES: usize = 256 * 1_024;
/// Buffers on their way to the journal thread. On full the builder core's buffer grows.
pub const JOURNAL_RING_SLOTS: usize = 64;
/// Bytes of one turn beyond the last look at the bounds: the records of one message of each shard, and of what it ends.
pub const JOURNAL_TURN_SLACK_BYTES: usize = 4 * 1_048_576;
/// Space kept for what is under way when no new slot can be made: everything not durable, the end of the open block, padding of groups.
pub const JOURNAL_RESERVE_BYTES: u64 = (JOURNAL_BEHIND_BYTES + JOURNAL_TURN_SLACK_BYTES) as u64;
/// Smallest slot: the reserve, and as much for work.
pub const JOURNAL_SEGMENT_BYTES_MIN: u64 = 2 * JOURNAL_RESERVE_BYTES;
/// Pooled transactions recorded once more in one turn of the builder's loop: about 0.1 ms.
pub const CARRIES_PER_TURN: u32 = 64;
const _: () = assert!(JOURNAL_BUSY_BYTES < JOURNAL_BEHIND_BYTES && JOURNAL_GROUP_BYTES_MAX > 4 * TX_BYTES_MAX);
/// Entries of the journal's io_uring: one write is in flight at a time.
pub const JOURNAL_RING_ENTRIES: u32 = 2;
/// Piece in which a new slot is filled, or an old one read through: large enough that the calls cost nothing beside the disk.
pub const JOURNAL_ZEROS_BYTES: usize = 1_048_576;
/// Longest pause after such a piece, for writes that callers wait for: the 64 pieces of a slot add a third of a second at most to what the disk
/// takes, however slow it is. A full slot and a stop may wait for the next slot.
pub const JOURNAL_ZEROS_PAUSE_NS_MAX: u64 = 5_000_000;
/// Records that the journal thread takes before it writes: the most that a group holds, so that nothing waits behind a group that it would fit in.
pub const JOURNAL_TAKE_BYTES: usize = 1_048_576;
/// A buffer of records that comes back larger is cut to this: one turn's worst case must not be kept for ever.
pub const JOURNAL_BUFFER_BYTES_MAX: usize = 1_048_576;
/// How often a slot that the disk had no room for is tried again.
pub const JOURNAL_FULL_RETRY_NS: u64 = 1_000_000_000;
/// Slots of the ring to the slot maker: one request and the stop.
pub const SLOT_RING_SLOTS: usize = 2;

/// Requests to L1 that wait for the connection, of each kind. Full: `Stall` for our own, `Reject` for what users ask.
pub const L1_REQUESTS: usize = 64;
/// Jobs of the `settle` thread, and their outcomes. Full: `Stall`, they wait with the `l1` thread.
pub const SETTLEMENT_JOBS: usize = 64;
/// Batches of derived blocks, and rewinds, between the `l1` thread and the follower; one that waits holds up derivation.
pub const FOLLOW_MESSAGES: usize = 4;
