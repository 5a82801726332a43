//! Why transactions are refused or dropped and blocks closed, as labels: each a closed list, so that no peer can make a new time series.

use crate::chain::EndState;
use crate::chain::sealed_record::EndReason;
use crate::journal::record::CloseReason;
use crate::mempool::Reject;
use crate::messages::Refusal;

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($variant:ident $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum $name {
            $($variant),+
        }

        impl $name {
            /// Every label, in order.
            pub const NAMES: &'static [&'static str] = &[$($text),+];
        }
    };
}

labels! {
    /// Refused by a shard.
    IngressReason {
        // The argument is no hex of a transaction.
        Malformed "malformed",
        // Not an encoding that is taken.
        Undecodable "undecodable",
        // More bytes or authorizations than a transaction may have.
        TooLarge "too_large",
        ChainIdWrong "chain_id_wrong",
        Signature "signature",
        // A limit of the shard: requests in flight, waiting calls, chunks, signatures.
        Busy "shard_busy",
        BuilderBusy "builder_busy",
    }
}

labels! {
    /// Refused by the builder core.
    RefusalReason {
        AlreadyKnown "already_known",
        ChainIdWrong "chain_id_wrong",
        Unprotected "unprotected",
        TipAboveFeeCap "tip_above_fee_cap",
        TipTooLow "tip_too_low",
        FeeCapTooLow "fee_cap_too_low",
        TooLarge "too_large",
        InitCodeTooLarge "init_code_too_large",
        GasAboveCap "gas_above_cap",
        GasAboveBlock "gas_above_block",
        IntrinsicGasTooLow "intrinsic_gas_too_low",
        FloorGasTooLow "floor_gas_too_low",
        AuthorizationListEmpty "authorization_list_empty",
        SetCodeCreation "set_code_creation",
        NonceMax "nonce_max",
        NonceTooLow "nonce_too_low",
        AlreadyPreconfirmed "already_preconfirmed",
        NonceTooHigh "nonce_too_high",
        SenderHasCode "sender_has_code",
        InsufficientFunds "insufficient_funds",
        ReplacementFeeCapTooLow "replacement_fee_cap_too_low",
        ReplacementTipTooLow "replacement_tip_too_low",
        DelegatedInFlight "delegated_in_flight",
        DelegatedGap "delegated_gap",
        AuthorityReserved "authority_reserved",
        SenderFull "sender_full",
        TipBelowEvictable "tip_below_evictable",
        UnpayableWhileCrowded "unpayable_while_crowded",
        PoolFull "pool_full",
        BytesFull "bytes_full",
        AuthoritiesFull "authorities_full",
        ConditionalsFull "conditionals_full",
        Condition "condition_impossible",
        Draining "draining",
        ChainBehind "chain_behind",
        JournalBehind "journal_behind",
        JournalFull "journal_full",
        Unchecked "execution_client_behind",
        Halted "execution_client_halted",
        HaltedByOperator "halted_by_operator",
        ClientAway "execution_client_away",
        NotDelegated "not_delegated",
        Unsettled "settlement_behind",
        SettlementHalted "settlement_halted",
        Follows "follows",
    }
}

impl RefusalReason {
    #[must_use]
    pub fn of(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Pool(reject) => Self::of_pool(reject),
            Refusal::Condition(_) => Self::Condition,
            Refusal::Draining => Self::Draining,
            Refusal::ChainBehind => Self::ChainBehind,
            Refusal::JournalBehind => Self::JournalBehind,
            Refusal::JournalFull => Self::JournalFull,
            Refusal::Unchecked { .. } => Self::Unchecked,
            Refusal::Halted => Self::Halted,
            Refusal::HaltedByOperator => Self::HaltedByOperator,
            Refusal::ClientAway => Self::ClientAway,
            Refusal::NotDelegated(_) => Self::NotDelegated,
            Refusal::Unsettled { .. } | Refusal::WitnessUnwritten { .. } => Self::Unsettled,
            Refusal::SettlementHalted => Self::SettlementHalted,
            Refusal::Follows => Self::Follows,
        }
    }

    fn of_pool(reject: &Reject) -> Self {
        match reject {
            Reject::AlreadyKnown => Self::AlreadyKnown,
            Reject::ChainIdWrong { .. } => Self::ChainIdWrong,
            Reject::Unprotected => Self::Unprotected,
            Reject::TipAboveFeeCap { .. } => Self::TipAboveFeeCap,
            Reject::TipTooLow { .. } => Self::TipTooLow,
            Reject::FeeCapTooLow { .. } => Self::FeeCapTooLow,
            Reject::TooLarge { .. } => Self::TooLarge,
            Reject::InitCodeTooLarge { .. } => Self::InitCodeTooLarge,
            Reject::GasAboveCap { .. } => Self::GasAboveCap,
            Reject::GasAboveBlock { .. } => Self::GasAboveBlock,
            Reject::IntrinsicGasTooLow { .. } => Self::IntrinsicGasTooLow,
            Reject::FloorGasTooLow { .. } => Self::FloorGasTooLow,
            Reject::AuthorizationListEmpty => Self::AuthorizationListEmpty,
            Reject::SetCodeCreation => Self::SetCodeCreation,
            Reject::NonceMax { .. } => Self::NonceMax,
            Reject::NonceTooLow { .. } => Self::NonceTooLow,
            Reject::AlreadyPreconfirmed { .. } => Self::AlreadyPreconfirmed,
            Reject::NonceTooHigh { .. } => Self::NonceTooHigh,
            Reject::SenderHasCode { .. } => Self::SenderHasCode,
            Reject::InsufficientFunds { .. } => Self::InsufficientFunds,
            Reject::ReplacementFeeCapTooLow { .. } => Self::ReplacementFeeCapTooLow,
            Reject::ReplacementTipTooLow { .. } => Self::ReplacementTipTooLow,
            Reject::DelegatedInFlight { .. } => Self::DelegatedInFlight,
            Reject::DelegatedGap { .. } => Self::DelegatedGap,
            Reject::AuthorityReserved { .. } => Self::AuthorityReserved,
            Reject::SenderFull { .. } => Self::SenderFull,
            Reject::TipBelowEvictable { .. } => Self::TipBelowEvictable,
            Reject::UnpayableWhileCrowded { .. } => Self::UnpayableWhileCrowded,
            Reject::PoolFull { .. } => Self::PoolFull,
            Reject::BytesFull { .. } => Self::BytesFull,
            Reject::AuthoritiesFull { .. } => Self::AuthoritiesFull,
            Reject::ConditionalsFull { .. } => Self::ConditionalsFull,
        }
    }
}

labels! {
    /// How an admitted transaction ended without a place.
    DropReason {
        Replaced "replaced",
        Expired "expired",
        Evicted "evicted",
        NonceTooLow "nonce_too_low",
        InsufficientFunds "insufficient_funds",
        SenderHasCode "sender_has_code",
        GasAboveBlock "gas_above_block",
        Condition "condition_impossible",
        Execution "execution",
        Stopped "stopped",
        Witness "witness_too_large",
        Operator "operator",
        Unknown "unknown",
    }
}

impl DropReason {
    /// Of what the journal records.
    #[must_use]
    pub fn of(end: &EndState) -> Self {
        let code = match end {
            EndState::Replaced { .. } => return Self::Replaced,
            EndState::Included => return Self::Unknown,
            EndState::Dropped { reason } | EndState::Invalidated { reason, .. } => *reason,
        };
        match EndReason::from_code(code) {
            Some(EndReason::Expired) => Self::Expired,
            Some(EndReason::Evicted) => Self::Evicted,
            Some(EndReason::NonceTooLow) => Self::NonceTooLow,
            Some(EndReason::InsufficientFunds) => Self::InsufficientFunds,
            Some(EndReason::SenderHasCode) => Self::SenderHasCode,
            Some(EndReason::GasAboveBlock) => Self::GasAboveBlock,
            Some(EndReason::ConditionImpossible) => Self::Condition,
            Some(EndReason::Execution) => Self::Execution,
            Some(EndReason::Stopped) => Self::Stopped,
            Some(EndReason::WitnessTooLarge) => Self::Witness,
            Some(EndReason::Operator) => Self::Operator,
            None => Self::Unknown,
        }
    }
}

labels! {
    /// Why a block was closed.
    CloseLabel {
        Deadline "deadline",
        Full "full",
        Stop "stop",
    }
}

impl CloseLabel {
    #[must_use]
    pub fn of(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Deadline => Self::Deadline,
            CloseReason::Full => Self::Full,
            CloseReason::Stop => Self::Stop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_the_name_at_its_place() {
        let refusal = RefusalReason::of(&Refusal::Pool(Reject::NonceTooLow { tx: 1, account: 2 }));
        assert_eq!(RefusalReason::NAMES[refusal as usize], "nonce_too_low");
        assert_eq!(RefusalReason::NAMES[RefusalReason::of(&Refusal::Follows) as usize], "follows");
        assert_eq!(RefusalReason::Follows as usize + 1, RefusalReason::NAMES.len());
        let end = EndState::Dropped { reason: EndReason::Evicted as u8 };
        assert_eq!(DropReason::NAMES[DropReason::of(&end) as usize], "evicted");
        assert_eq!(DropReason::of(&EndState::Dropped { reason: 250 }), DropReason::Unknown);
        assert_eq!(CloseLabel::NAMES[CloseLabel::of(CloseReason::Full) as usize], "full");
        assert_eq!(IngressReason::NAMES[IngressReason::BuilderBusy as usize], "builder_busy");
    }
}
