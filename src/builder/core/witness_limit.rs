//! What is settled must fit an ExecuteTx: a transaction with its witness has a limit of its own.
//!
//! Each execution gives an upper bound, at the cost of looking at what it touched. Where the bound is above the limit nothing is committed, the
//! transaction is set aside and a query thread measures: its witness on the newest root, were it alone. Only a measured excess ends it. The
//! opening and closing calls of a block do not count: they can be settled without a transaction beside them.

use super::{Core, CoreSettings, Deferral, Effects, Invalid, Now, TxId};
use crate::builder::execution::{ExecutableTx, ExecutionError, Executor, Trial};
use crate::builder::filler::{BlockFiller, Placement};
use crate::limits;
use crate::mempool::{Conditions, Verdict};
use crate::messages::{MeasureJob, MeasuredWitness};
use crate::primitives::{B256, Bytes};
use crate::witness::bound::Depth;

/// What is known of a pooled transaction's witness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum WitnessKnown {
    #[default]
    Nothing,
    /// A query thread measures.
    Asked,
    /// It was measured and is within the limit.
    Fits,
}

/// What became of a transaction at its place.
pub(super) enum Tried {
    /// With its index.
    Placed(u32),
    /// It paid the coinbase less than it declares (ERC-7796). Nothing changed.
    Unpaid,
    /// The bound of its witness is above what it may have. Nothing changed.
    Over,
}

/// Executes a transaction at its place, and appends it unless its conditions or the bound of its witness speak against it.
pub(super) fn try_place(
    filler: &mut BlockFiller,
    executor: &mut Executor,
    tx: &ExecutableTx<'_>,
    placement: Placement,
    conditions: Option<&Conditions>,
    witness_bytes_max: Option<u64>,
) -> Result<Tried, ExecutionError> {
    let conditions = conditions.filter(|conditions| conditions.pays_coinbase_wei.is_some());
    if conditions.is_none() && witness_bytes_max.is_none() {
        return filler.place(executor, tx, placement).map(Tried::Placed);
    }
    let mut is_over = false;
    let placed = filler.place_if(executor, tx, placement, |trial| {
        is_over = witness_bytes_max.is_some_and(|bytes_max| witness_bound(trial) > bytes_max);
        !is_over && conditions.is_none_or(|conditions| conditions.judge_payment(trial.paid_wei) == Verdict::Met)
    })?;
    Ok(match placed {
        Some(index) => Tried::Placed(index),
        None if is_over => Tried::Over,
        None => Tried::Unpaid,
    })
}

fn witness_bound(trial: &Trial<'_>) -> u64 {
    trial.touched().witness_bytes_max(Depth::UNKNOWN) as u64
}

/// Bytes that the witness of a transaction of `encoded_bytes` may have; `None`: nothing is settled.
pub(super) fn witness_bytes_max(settings: &CoreSettings, encoded_bytes: u32) -> Option<u64> {
    settings.settlement_bytes_max.map(|bytes_max| bytes_max.saturating_sub(u64::from(encoded_bytes)))
}

impl Core {
    /// Sets a transaction aside and asks for its witness to be measured. Where nobody can be asked, it is tried again like a condition.
    pub(super) fn measure_witness(&mut self, id: TxId, hash: B256, effects: &mut impl Effects) {
        let Some(pooled) = self.pool.get_by_id(id) else { return };
        let payload = &pooled.submission.payload;
        let job = MeasureJob {
            hash,
            raw: Bytes::copy_from_slice(payload.bytes.of(&self.slabs)),
            sender: pooled.submission.sender,
            authorities: payload.authorities.clone(),
        };
        let asked = effects.measure(job);
        self.pool.defer(id, Deferral::Condition);
        if let Some(payload) = self.pool.payload_mut(&hash) {
            payload.witness = if asked { WitnessKnown::Asked } else { WitnessKnown::Nothing };
        }
    }

    /// Takes what a query thread has measured.
    pub fn on_witness(&mut self, measured: MeasuredWitness, now: Now, effects: &mut impl Effects) {
        let MeasuredWitness { hash, bytes } = measured;
        let Some(pooled) = self.pool.get(&hash) else { return };
        if pooled.submission.payload.witness != WitnessKnown::Asked {
            return;
        }
        let id = pooled.id;
        let bytes_max = witness_bytes_max(&self.settings, pooled.submission.encoded_bytes).unwrap_or(u64::MAX);
        match bytes {
            Some(bytes) if bytes > bytes_max => {
                self.pool.invalid(id, Invalid::Witness { bytes, bytes_max }, now.monotonic_ns, &mut self.removed);
                self.settle_removed(now, effects);
            }
            // Not executable on the newest root, behind others of its sender for example: asked again when it was tried again.
            None => self.set_witness(&hash, WitnessKnown::Nothing),
            Some(_) => {
                self.set_witness(&hash, WitnessKnown::Fits);
                self.pool.retry_deferred(Deferral::Condition, limits::CONDITIONAL_RETRIES_PER_BLOCK);
            }
        }
    }

    fn set_witness(&mut self, hash: &B256, witness: WitnessKnown) {
        if let Some(payload) = self.pool.payload_mut(hash) {
            payload.witness = witness;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::genesis::{DEV_ACCOUNTS, dev_genesis};
    use crate::mempool::{EndState, Invalid};
    use crate::messages::{ChainMessage, MeasuredWitness, SubmitWait};
    use crate::primitives::Fork;
    use crate::testing::bench_chain::BenchChain;
    use crate::testing::signing::TestKey;

    /// A chain whose transactions may have so many bytes with their witness, and one transfer of `encoded_bytes` offered to it.
    fn offered(settlement_bytes_max: Option<u64>) -> (BenchChain, u64) {
        let spec = dev_genesis(Fork::Osaka, 2).expect("built in");
        let mut chain = BenchChain::with(spec, |settings, _| settings.settlement_bytes_max = settlement_bytes_max);
        let raw = TestKey::from_hex(DEV_ACCOUNTS[0].1).transfer(chain.spec.chain_id, 0, TestKey::nth(1).address, 5);
        chain.submit_with(&raw, SubmitWait::Admission, None);
        chain.settle();
        (chain, raw.len() as u64)
    }

    fn measured(chain: &mut BenchChain, bytes: Option<u64>) {
        let job = chain.effects.measured.pop().expect("it was asked for");
        let now = chain.now;
        chain.core.on_witness(MeasuredWitness { hash: job.hash, bytes }, now, &mut chain.effects);
        chain.settle();
    }

    #[track_caller]
    fn check(chain: &BenchChain, placed: u64, asked: usize) {
        assert_eq!((chain.effects.placed_count, chain.effects.measured.len()), (placed, asked));
    }

    #[test]
    fn without_settlement_or_below_the_limit_nothing_is_measured() {
        for bytes_max in [None, Some(131_072)] {
            check(&offered(bytes_max).0, 1, 0);
        }
    }

    #[test]
    fn above_the_limit_the_measure_decides() {
        for (excess, placed) in [(0, 1), (1, 0)] {
            // The bound of a transfer is about 30 KB.
            let (mut chain, encoded_bytes) = offered(Some(5_000));
            check(&chain, 0, 1);
            // It waits for the measure, however often it is offered.
            chain.advance(2_000_000_000);
            chain.settle();
            check(&chain, 0, 1);
            let bytes_max = 5_000 - encoded_bytes;
            measured(&mut chain, Some(bytes_max + excess));
            check(&chain, placed, 0);
            let ends: Vec<EndState> = chain.effects.chain.iter().filter_map(end).collect();
            let reason = Invalid::Witness { bytes: bytes_max + excess, bytes_max };
            assert_eq!(ends.contains(&EndState::Invalidated(reason)), placed == 0, "{ends:?}");
        }
    }

    fn end(message: &ChainMessage) -> Option<EndState> {
        if let ChainMessage::Ended { end, .. } = message { Some(*end) } else { None }
    }

    #[test]
    fn what_cannot_be_measured_yet_is_asked_for_again() {
        let (mut chain, _) = offered(Some(5_000));
        measured(&mut chain, None);
        check(&chain, 0, 0);
        chain.advance(2_000_000_000);
        chain.settle();
        check(&chain, 0, 1);
        measured(&mut chain, Some(100));
        check(&chain, 1, 0);
    }

    #[test]
    fn a_measure_that_comes_too_late_changes_nothing() {
        let (mut chain, _) = offered(None);
        let hash = chain.core.heads().open.as_ref().expect("it is open").transactions.get(0).expect("it is there").hash;
        let now = chain.now;
        chain.core.on_witness(MeasuredWitness { hash, bytes: Some(u64::MAX) }, now, &mut chain.effects);
        check(&chain, 1, 0);
    }
}
