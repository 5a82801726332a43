//! What a signature offers: a function of the market, the limits and the signature before it.

use crate::primitives::U256;

use super::types::{PayloadFacts, Settings};

/// Both caps of one signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fees {
    pub tip_cap_wei: u128,
    pub fee_cap_wei: u128,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // go-ethereum's pool gives an account 16 slots of 32 KiB for certain, and a full ExecuteTx takes four.
            in_flight_max: 4,
            tx_cost_wei_max: U256::from(1_000_000_000_000_000_000_u64),
            hour_cost_wei_max: U256::from(10_000_000_000_000_000_000_u64),
            // Below 0.001 gwei go-ethereum's miner leaves a transaction in the pool.
            tip_wei_min: 1_000_000,
            tip_wei_max: 100_000_000_000,
            bump_after_blocks: 3,
            resend_after_blocks: 2,
            retry_ns: 1_000_000_000,
        }
    }
}

impl PayloadFacts {
    /// The most that it costs with this cap.
    #[must_use]
    pub fn cost_at(&self, fee_cap_wei: u128) -> U256 {
        U256::from(self.gas).saturating_mul(U256::from(fee_cap_wei))
    }
}

impl Settings {
    /// The highest cap with which a transaction of so much gas costs no more than one may.
    #[must_use]
    pub fn fee_cap_wei_max(&self, gas: u64) -> u128 {
        let cap = self.tx_cost_wei_max / U256::from(gas.max(1));
        u128::try_from(cap).unwrap_or(u128::MAX)
    }

    /// Fees that the market takes now, with room for the base fee to double; over `old` at least a tenth more of both, which is what a pool
    /// asks of a replacement. `None` when the limit of one transaction does not allow it, or not even the base fee.
    #[must_use]
    pub fn fees(&self, tip_wei: u128, base_fee_wei: u64, gas: u64, old: Option<Fees>) -> Option<Fees> {
        let cap_max = self.fee_cap_wei_max(gas);
        let base_fee_wei = u128::from(base_fee_wei);
        let mut tip = tip_wei.min(self.tip_wei_max).max(self.tip_wei_min);
        let mut cap = base_fee_wei.saturating_mul(2).saturating_add(tip).min(cap_max);
        match old {
            None => tip = tip.min(cap),
            Some(old) => {
                tip = tip.max(tenth_more(old.tip_cap_wei));
                cap = cap.max(tenth_more(old.fee_cap_wei)).max(tip);
            }
        }
        (cap <= cap_max && cap >= base_fee_wei.saturating_add(self.tip_wei_min).max(tip))
            .then_some(Fees { tip_cap_wei: tip, fee_cap_wei: cap })
    }
}

/// At least 110 %, rounded up, and always more.
fn tenth_more(wei: u128) -> u128 {
    wei.saturating_add((wei / 10).saturating_add(1))
}
