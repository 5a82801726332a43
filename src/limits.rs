//! Every capacity and deadline, with its reason. Pools are sums, one line per consumer; relations are asserted at compile time.

/// Accounts that the builder's flat cache starts with room for: a block of 10,000 transfers between strangers.
pub const WORLD_ACCOUNTS_START: usize = 32_768;
/// Above it the cache is emptied between blocks: 1 M accounts of about 120 bytes.
pub const WORLD_ACCOUNTS_MAX: usize = 1_048_576;
/// Above it the slot cache is emptied between blocks: 1 M slots of about 140 bytes.
pub const WORLD_SLOTS_MAX: usize = 1_048_576;
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
/// A block closes before its changes exceed this: 4 M entries of about 110 bytes.
pub const BLOCK_DIFFS_MAX: usize = 4_194_304;
/// A warm SSTORE costs 100 gas, but a slot changes at most once per transaction in the diff; a cold slot costs 2,100.
pub const TX_DIFFS_MAX: usize = (TX_GAS_MAX / 2_100) as usize + 1_024;
const _: () = assert!(TX_LOGS_MAX < BLOCK_LOGS_MAX && TX_DIFFS_MAX < BLOCK_DIFFS_MAX);
const _: () = assert!(TX_BYTES_MAX + TX_ITEM_HEADER_BYTES_MAX < BLOCK_BODY_BYTES_MAX);
