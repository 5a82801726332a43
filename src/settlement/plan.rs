//! What the conductor is made of, before L1 has answered; and the formats that derivation reads with.

use std::sync::Arc;

use alloy_consensus::Header;
use alloy_rlp::Decodable;

use crate::config::native_rollup::NativeRollup;
use crate::derivation::Checkpoint;
use crate::derivation::Derivation;
use crate::derivation::origins::OriginBlock;
use crate::derivation::skip::SkipReason;
use crate::derivation::types::{BatchHeader, Formats, Rules, Tip, TxFacts};
use crate::heads::Heads;
use crate::l1::block::BlockId;
use crate::l1::execute_tx::ExecuteTx;
use crate::l1::profile::Profile;
use crate::l1::tx_manager::TxManager;
use crate::l1::tx_manager::types::Settings as TxSettings;
use crate::primitives::U256;
use crate::settlement::Origin;
use crate::settlement::batch::Batch;
use crate::settlement::conductor::{Conductor, ConductorSettings, Posting, PostingSettings};
use crate::settlement::ledger::{Ledger, StoredCheckpoint};
use crate::settlement::strict;

/// Reads ExecuteTx of a profile, and batches.
pub struct ProfileFormats {
    pub profile: Profile,
}

impl Formats for ProfileFormats {
    fn transaction(&self, raw: &[u8]) -> Result<TxFacts, SkipReason> {
        let tx = ExecuteTx::decode(raw, self.profile)
            .map_err(|error| SkipReason::Undecodable { what: error.to_string() })?;
        let sender = tx.sender().map_err(|error| SkipReason::BadSignature { what: error.to_string() })?;
        Ok(TxFacts {
            chain_id: u64::try_from(tx.terms.chain_id).ok(),
            sender,
            to: tx.payload.to,
            has_value: tx.payload.value != U256::ZERO,
            pre_state: tx.payload.pre_state_root,
        })
    }

    fn batch_header(&self, raw: &[u8]) -> Result<BatchHeader, String> {
        let tx = ExecuteTx::decode(raw, self.profile).map_err(|error| error.to_string())?;
        let batch = Batch::decode(&tx.payload.data).map_err(|error| error.to_string())?;
        Ok(BatchHeader {
            index: batch.index,
            previous_digest: batch.previous_digest,
            first_block: tx.payload.block_number,
        })
    }
}

/// See the module's text.
pub struct Plan {
    pub settings: ConductorSettings,
    pub rollup: NativeRollup,
    pub genesis: Header,
    /// `None`: nothing is posted.
    pub posting: Option<(PostingSettings, TxSettings)>,
}

/// Why a stored checkpoint is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("the settlement ledger's checkpoint: its header does not decode: {0}")]
    Header(alloy_rlp::Error),
    #[error("the settlement ledger's checkpoint has no L1 block")]
    NoL1Block,
}

impl Plan {
    /// The final L1 block where derivation begins, when the ledger knows it; else the genesis's `l1Start` has to be asked for.
    #[must_use]
    pub fn known_start(&self, ledger: &Ledger) -> Option<OriginBlock> {
        let checkpoint = ledger.checkpoint().and_then(|checkpoint| checkpoint.l1.last().copied());
        checkpoint.or_else(|| ledger.origin(&self.rollup.l1_start.hash).copied())
    }

    /// The machine, as it stands at the ledger's checkpoint or behind `start`.
    ///
    /// # Errors
    /// A checkpoint that cannot be read.
    pub fn conductor(self, start: OriginBlock, ledger: &Ledger) -> Result<Conductor<ProfileFormats>, PlanError> {
        let Plan { settings, rollup, genesis, posting } = self;
        let rules = Rules::of(&rollup);
        let l1_start = rules.l1_start;
        let formats = ProfileFormats { profile: rollup.profile };
        let origin = Origin { number: l1_start.number, hash: l1_start.hash };
        let (derivation, heads) = match ledger.checkpoint() {
            None => {
                let tip = tip_of(strict::Tip::genesis(genesis, origin));
                let heads = Heads::new(tip.block, l1_start, start.number);
                (Derivation::new(rules, formats, start, tip), heads)
            }
            Some(stored) => {
                let tip = tip_of(stored_tip(stored)?);
                let newest = stored.l1.last().ok_or(PlanError::NoL1Block)?;
                let heads = Heads::new(tip.block, stored.origin, newest.number);
                (Derivation::resume(rules, formats, Checkpoint { l1: stored.l1.clone(), tip }), heads)
            }
        };
        let posting = posting.map(|(settings, manager)| {
            Posting::new(settings, TxManager::restore(manager, ledger.tx_records()), ledger)
        });
        Ok(Conductor::new(settings, derivation, heads, posting))
    }
}

fn stored_tip(stored: &StoredCheckpoint) -> Result<strict::Tip, PlanError> {
    let header = Header::decode(&mut &stored.header_rlp[..]).map_err(PlanError::Header)?;
    Ok(strict::Tip {
        hash: header.hash_slow(),
        header,
        origin: Origin { number: stored.origin.number, hash: stored.origin.hash },
        next_index: stored.next_index,
        previous_digest: stored.digest,
        open: None,
    })
}

/// A tip behind a whole block, as derivation has it.
fn tip_of(tip: strict::Tip) -> Tip<strict::Tip> {
    Tip {
        next_index: tip.next_index,
        digest: tip.previous_digest,
        state_root: tip.state_root(),
        block: BlockId { number: tip.header.number, hash: tip.hash },
        is_open: tip.open.is_some(),
        origin: tip.origin.number,
        carry: Arc::new(tip),
    }
}
