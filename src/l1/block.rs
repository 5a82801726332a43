//! An L1 block whose parts were compared with its hash.

use crate::primitives::{Address, B256, Bytes, U256};

/// Number and hash of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BlockId {
    pub number: u64,
    pub hash: B256,
}

impl std::fmt::Display for BlockId {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} ({})", self.number, self.hash)
    }
}

/// The fields of an L1 header that anybody here needs; `hash` is the hash of the header's own bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct L1Header {
    pub number: u64,
    pub hash: B256,
    pub parent_hash: B256,
    pub timestamp: u64,
    pub gas_limit: u64,
    /// 0 before EIP-1559.
    pub base_fee_wei: u64,
    /// Becomes `prev_randao` of L2 blocks that stand on this block.
    pub mix_hash: B256,
    pub transactions_root: B256,
    pub receipts_root: B256,
}

impl L1Header {
    #[must_use]
    pub fn id(&self) -> BlockId {
        BlockId { number: self.number, hash: self.hash }
    }
}

/// What the receipts root commits to, of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L1Receipt {
    pub tx_type: u8,
    pub success: bool,
    /// Of this transaction alone.
    pub gas_used: u64,
}

/// A block: its header hashes to its hash, its transactions and receipts to the header's roots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedBlock {
    pub header: L1Header,
    /// EIP-2718 encodings, in order.
    pub transactions: Vec<Bytes>,
    /// As many as transactions.
    pub receipts: Vec<L1Receipt>,
}

impl CheckedBlock {
    #[must_use]
    pub fn id(&self) -> BlockId {
        self.header.id()
    }

    /// Position, bytes and receipt of each ExecuteTx.
    pub fn execute_txs(&self) -> impl Iterator<Item = (u32, &Bytes, L1Receipt)> {
        (0_u32..)
            .zip(&self.transactions)
            .zip(&self.receipts)
            .filter(|((_, raw), _)| raw.first() == Some(&EXECUTE_TX_TYPE))
            .map(|((position, raw), receipt)| (position, raw, *receipt))
    }
}

/// EIP-2718 type of an ExecuteTx.
pub const EXECUTE_TX_TYPE: u8 = 0x05;

/// What an endpoint says about an account; nothing in a block proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    pub address: Address,
    /// The block that `nonce` and `balance_wei` belong to.
    pub at: BlockId,
    pub nonce: u64,
    /// With what waits in the endpoint's pool.
    pub nonce_pending: u64,
    /// At the final block; 0 before there is one.
    pub nonce_final: u64,
    pub balance_wei: U256,
    /// A second endpoint has the same nonce and balance, or there is none.
    pub is_confirmed: bool,
}
