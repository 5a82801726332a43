//! What one thread may show at one moment: the published heads, cut at the durable sequence.

use std::sync::Arc;

use crate::builder::block::{Heads, SealedBlock, next_base_fee_wei};
use crate::primitives::{B256, Sequence};
use crate::rpc::error::RpcError;
use crate::rpc::limits::FEE_SAMPLE_TXS;
use crate::rpc::params::BlockId;
use crate::rpc::source::OpenPrefix;
use crate::state::Snapshot;

/// What does not change while the process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub chain_id: u64,
    /// `native-sequencer/v0.1.0/linux-amd64/rust1.95`, like the names that other clients give themselves.
    pub client_version: String,
    /// Whether `debug_*` is served.
    pub debug_enabled: bool,
    /// Whether `txpool_content` and its kin are served.
    pub pool_content_enabled: bool,
    /// Whether an execution client answers what we do not serve.
    pub proxy_enabled: bool,
    /// Whether the state is the execution client's, so that it answers everything that reads state (`delegated`).
    pub state_is_remote: bool,
    /// What `eth_maxPriorityFeePerGas` says while blocks are not full.
    pub priority_fee_min_wei: u128,
}

/// The heads as they may be shown at `durable`.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub heads: &'a Heads,
    pub durable: Sequence,
    pub settings: &'a Settings,
}

/// The state that a block tag names.
pub enum StateAt<'a> {
    Sealed(&'a SealedBlock),
    Pending,
}

impl<'a> View<'a> {
    /// The newest block of [`View::tip`] and below that everyone concerned has checked: `latest`.
    #[must_use]
    pub fn latest(&self) -> &'a Arc<SealedBlock> {
        let tip = self.tip();
        if self.heads.latest.header.number < tip.header.number { &self.heads.latest } else { tip }
    }

    /// The newest sealed block whose journal record is durable: what comes after it is `pending`.
    #[must_use]
    pub fn tip(&self) -> &'a Arc<SealedBlock> {
        let newest = self.heads.recent.last().unwrap_or(&self.heads.latest);
        if newest.sequence <= self.durable {
            return newest;
        }
        let mut recent = self.heads.recent.iter();
        // The builder core keeps a durable block in memory; without one, the oldest shows least.
        let oldest = recent.clone().next().unwrap_or(newest);
        recent.rfind(|block| block.sequence <= self.durable).unwrap_or(oldest)
    }

    /// Base fee of the block after [`View::tip`], in wei: that of the heads may belong to a block that must not be shown.
    #[must_use]
    pub fn next_base_fee_wei(&self) -> u64 {
        next_base_fee_wei(&self.tip().header)
    }

    #[must_use]
    pub fn latest_number(&self) -> u64 {
        self.latest().header.number
    }

    /// The block behind the tip, as far as it may be shown; `None` when nothing of it may.
    #[must_use]
    pub fn pending(&self) -> Option<OpenPrefix<'a>> {
        let number = self.tip().header.number + 1;
        let block = match self.heads.recent_by_number(number) {
            Some(sealed) => &sealed.block,
            None => self.heads.open.as_ref().filter(|open| open.context.number == number)?,
        };
        Some(OpenPrefix::durable(block, self.durable)).filter(|prefix| prefix.tx_count > 0)
    }

    /// The height that a tag or a number names. `Err` holds a hash, which needs a search.
    pub fn number(&self, id: BlockId) -> Result<u64, B256> {
        match id {
            BlockId::Latest => Ok(self.latest_number()),
            BlockId::Pending => Ok(self.tip().header.number + 1),
            BlockId::Earliest => Ok(0),
            BlockId::Safe => Ok(self.heads.safe_number.min(self.latest_number())),
            BlockId::Finalized => Ok(self.heads.finalized_number.min(self.latest_number())),
            BlockId::Number(number) => Ok(number),
            BlockId::Hash(hash) => Err(hash),
        }
    }

    /// A recent sealed block that may be shown.
    #[must_use]
    pub fn recent(&self, number: u64) -> Option<&'a Arc<SealedBlock>> {
        self.heads.recent_by_number(number).filter(|_| number <= self.latest_number())
    }

    #[must_use]
    pub fn recent_by_hash(&self, hash: &B256) -> Option<&'a Arc<SealedBlock>> {
        let latest = self.latest_number();
        self.heads.recent.iter().rev().find(|block| block.hash == *hash && block.header.number <= latest)
    }

    /// The state after a block, if it is still kept.
    ///
    /// # Errors
    /// -32000 for a block that does not exist, or whose state is not kept any more.
    pub fn state_at(&self, id: BlockId) -> Result<StateAt<'a>, RpcError> {
        if id == BlockId::Pending {
            return Ok(StateAt::Pending);
        }
        let found = match self.number(id) {
            Ok(number) if number > self.latest_number() => return Err(RpcError::server("header not found")),
            Ok(number) => self.recent(number).ok_or(format!("block {number}")),
            Err(hash) => self.recent_by_hash(&hash).ok_or(format!("block {hash}")),
        };
        found.map(|block| StateAt::Sealed(block)).map_err(|block| {
            let (first, last) = (self.oldest_number(), self.latest_number());
            RpcError::server(format!(
                "historical state of {block} is not available: the state of blocks {first} to {last} is"
            ))
        })
    }

    /// Whether a block that is not in memory may be an older one, which only the chain database knows.
    #[must_use]
    pub fn may_be_older(&self, id: BlockId) -> bool {
        self.number(id).map_or(true, |number| number < self.oldest_number())
    }

    fn oldest_number(&self) -> u64 {
        self.heads.recent.first().map_or_else(|| self.latest_number(), |block| block.header.number)
    }

    /// A tip that gets a transaction into the next blocks, in wei: the minimum while they are not full, else the 60th percentile
    /// of a sample of the latest block (go-ethereum's percentile).
    #[must_use]
    pub fn priority_fee_wei(&self) -> u128 {
        let latest = self.latest();
        let minimum = self.settings.priority_fee_min_wei;
        if latest.header.gas_used.saturating_mul(10) < latest.header.gas_limit.saturating_mul(9) {
            return minimum;
        }
        let count = latest.block.transactions.len();
        let base_fee = u128::from(latest.header.base_fee_per_gas.unwrap_or(0));
        let mut tips = [0_u128; FEE_SAMPLE_TXS];
        let sampled = count.min(FEE_SAMPLE_TXS);
        for (slot, tip) in tips[..sampled].iter_mut().enumerate() {
            if let Some(tx) = latest.block.transactions.get(slot * count / sampled) {
                *tip = tx.effective_gas_price_wei.saturating_sub(base_fee);
            }
        }
        tips[..sampled].sort_unstable();
        tips[..sampled].get(sampled * 6 / 10).copied().unwrap_or(0).max(minimum)
    }
}

impl<'a> StateAt<'a> {
    /// The published root below: of a sealed block itself, of `pending` the block before it.
    #[must_use]
    pub fn snapshot(&self, view: &View<'a>) -> &'a Snapshot {
        match self {
            Self::Sealed(block) => &block.state,
            Self::Pending => &view.tip().state,
        }
    }
}
