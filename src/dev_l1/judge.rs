//! The judge of mode `strict`: the rules of one L2, and settlement's strict check. It knows no L1, so what a batch says of its origins is taken here;
//! derivation compares them with the chain.

use serde_json::json;

use super::precompile::{JudgeOutput, StrictJudge};
use crate::config::genesis::ChainSpec;
use crate::l1::execute_tx::ExecuteTx;
use crate::settlement::strict::{NoOrigins, check};

/// See the module's text.
#[derive(Clone, Debug)]
pub struct ChainJudge {
    spec: ChainSpec,
}

impl ChainJudge {
    #[must_use]
    pub fn new(spec: ChainSpec) -> Self {
        Self { spec }
    }
}

impl StrictJudge for ChainJudge {
    fn judge(&self, tx: &ExecuteTx) -> Result<JudgeOutput, String> {
        let proof =
            check(&self.spec, &tx.payload, &NoOrigins).map_err(|defect| format!("{}: {defect}", defect.code()))?;
        let blocks = proof.blocks.iter().map(|block| json!({ "number": block.number, "hash": block.hash }));
        let blocks: Vec<_> = blocks.collect();
        Ok(JudgeOutput {
            gas_used: proof.segments.iter().map(|segment| segment.gas_used).sum(),
            post_state_root: proof.post_state_root,
            report: json!({
                "batchIndex": proof.batch_index,
                "digest": proof.digest,
                "previousDigest": proof.previous_digest,
                "transactions": proof.segments.iter().map(|segment| u64::from(segment.tx_count)).sum::<u64>(),
                "blocks": blocks,
            }),
        })
    }
}

#[cfg(test)]
mod tests;
