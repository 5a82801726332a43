//! Results and errors of submitted transactions: the one table from what the builder core says to what the client reads.

use crate::builder::block::OpenBlock;
use crate::engine_api::forwarding::ForwardingStatus;
use crate::engine_api::status::{Condition, ExecutionStatus};
use crate::engine_api::types::SyncProgress;
use crate::mempool::{EndState, Invalid, Reject};
use crate::messages::{Refusal, SubmitWait, Unready};
use crate::primitives::B256;
use crate::rpc::encode;
use crate::rpc::error::{RpcError, code};
use crate::rpc::json::{self, Object};
use crate::rpc::source::{Place, ReceiptView};
use crate::rpc::view::View;

/// Result of `eth_sendRawTransaction` and `eth_sendRawTransactionConditional`.
pub fn render_admitted(hash: &B256, out: &mut Vec<u8>) {
    json::data(hash.as_slice(), out);
}

/// Result of `eth_sendRawTransactionSync`: the preconfirmed receipt; `hash`: of a block that has one already (`delegated`).
///
/// # Errors
/// -32603 when the block has no such entry: the builder core names only published ones.
pub fn render_preconfirmed(
    block: &OpenBlock,
    index: u32,
    hash: Option<B256>,
    out: &mut Vec<u8>,
) -> Result<(), RpcError> {
    let index = index as usize;
    let Some(tx) = block.transactions.get(index) else {
        return Err(RpcError::internal(format!("block {} has no transaction {index}", block.context.number)));
    };
    let receipt = ReceiptView::placed(block, tx, index);
    let place = Place::unsealed(&block.context);
    let place = Place { block_hash: hash.unwrap_or(place.block_hash), ..place };
    encode::receipt(&receipt, &place, out);
    Ok(())
}

/// The result of `sequencer_executionStatus`.
pub fn render_execution_status(
    status: &ExecutionStatus,
    forwarding: &ForwardingStatus,
    view: &View<'_>,
    out: &mut Vec<u8>,
) {
    let (tip, latest) = (view.tip().header.number, view.latest_number());
    let mut object = Object::begin(out);
    object.text("state", status.condition.name());
    if !status.why.is_empty() {
        object.text("reason", &status.why);
    }
    object.quantity("latestBlock", latest);
    object.quantity("sealedBlock", tip);
    object.quantity("uncheckedBlocks", tip - latest);
    if status.condition != Condition::Absent {
        object.quantity("clientHead", status.head_number);
        object.quantity("clientValid", status.valid_number);
        object.quantity("connects", status.connect_count);
        object.quantity("headsSet", status.rewind_count);
        object.quantity("resets", status.reset_count);
        match status.sync {
            None => json::boolean(false, object.member("clientSyncing")),
            Some(SyncProgress { current, highest }) => {
                let mut progress = Object::begin(object.member("clientSyncing"));
                progress.quantity("currentBlock", current);
                progress.quantity("highestBlock", highest);
                progress.end();
            }
        }
    }
    if forwarding.is_on {
        render_forwarding(forwarding, object.member("forwarding"));
    }
    object.end();
}

fn render_forwarding(status: &ForwardingStatus, out: &mut Vec<u8>) {
    let ForwardingStatus { why, held, counts, open, last_refusal, .. } = status;
    let mut object = Object::begin(out);
    if !why.is_empty() || !held.is_empty() {
        object.text("reason", if why.is_empty() { held } else { why });
    }
    object.quantity("admitted", counts.admitted);
    object.quantity("known", counts.known);
    object.quantity("refused", counts.refused);
    object.quantity("gone", counts.gone);
    object.quantity("waiting", *open);
    if let Some((hash, reason)) = last_refusal {
        let mut last = Object::begin(object.member("lastRefusal"));
        last.text("hash", &hash.to_string());
        last.text("reason", reason);
        last.end();
    }
    object.end();
}

/// When it is worth to send again what a limit refused: after some turns of the builder core, after a block, or after somebody has done something.
const RETRY_SOON_MS: u64 = 100;
const RETRY_MS: u64 = 1_000;
const RETRY_LATE_MS: u64 = 10_000;

/// Why a transaction was not admitted.
#[must_use]
pub fn refusal_error(hash: &B256, refusal: &Refusal, wait: SubmitWait) -> RpcError {
    let unready = |text: &str, retry_ms: u64| match wait {
        SubmitWait::Admission => RpcError::busy(text, retry_ms),
        SubmitWait::Preconfirmation => RpcError::sync_refused(hash, text),
    };
    match refusal {
        Refusal::Draining => unready("the sequencer is shutting down and admits nothing any more", RETRY_LATE_MS),
        Refusal::ChainBehind => unready("the chain database is behind: try again", RETRY_MS),
        Refusal::JournalBehind => unready("the journal is behind: its disk is slow, try again", RETRY_SOON_MS),
        Refusal::JournalFull => {
            unready("the journal's disk is full: admission is stopped until there is space", RETRY_LATE_MS)
        }
        Refusal::Unchecked { blocks, blocks_max } => {
            let text = format!(
                "{blocks} sealed blocks wait for the execution client, limit {blocks_max}: try again (sequencer_executionStatus)"
            );
            unready(&text, RETRY_MS)
        }
        Refusal::Halted => unready(
            "halted: the execution client does not agree with this chain, only reads are served (sequencer_executionStatus)",
            RETRY_LATE_MS,
        ),
        Refusal::HaltedByOperator => unready(
            "halted by the operator: nothing is admitted or built until it is taken back, reads go on",
            RETRY_LATE_MS,
        ),
        Refusal::Unsettled { what, have, max } => {
            let text =
                format!("{have} {what} wait to be settled on L1, limit {max}: try again (sequencer_settlementStatus)");
            unready(&text, RETRY_LATE_MS)
        }
        Refusal::WitnessUnwritten { block } => {
            let text = format!(
                "the witness of block {block} cannot be written: admission is stopped until there is space (witness.dir)"
            );
            unready(&text, RETRY_LATE_MS)
        }
        Refusal::SettlementHalted => unready(
            "halted: what L1 holds is not this chain, or somebody else posts with its key, only reads are served (sequencer_settlementStatus)",
            RETRY_LATE_MS,
        ),
        Refusal::Follows => RpcError::server(
            "this node follows the chain from L1 and takes no transactions: send them to the sequencer",
        ),
        Refusal::ClientAway => unready(
            "the execution client does not say how the sender's account is, or builds no block: try again (sequencer_executionStatus)",
            RETRY_MS,
        ),
        Refusal::NotDelegated(what) => {
            RpcError::new(code::REJECTED, format!("{what}: unsupported in delegated execution"))
        }
        Refusal::Condition(reason) => {
            RpcError::new(code::REJECTED, format!("transaction condition can never be met: {reason}"))
        }
        Refusal::Pool(Reject::NonceTooHigh { tx, next, .. }) if wait == SubmitWait::Preconfirmation => {
            RpcError::sync_nonce_gap(*tx, *next)
        }
        Refusal::Pool(reject) if reject.is_limit() => RpcError::busy(reject.to_string(), RETRY_MS),
        Refusal::Pool(reject) => RpcError::server(reject.to_string()),
    }
}

/// Why a transaction that was waited for is admitted and not executed next (EIP-7966).
#[must_use]
pub fn unready_error(hash: &B256, reason: &Unready) -> RpcError {
    match *reason {
        Unready::NonceGap { tx, next } => RpcError::sync_nonce_gap(tx, next),
        Unready::FeeCapBelowBaseFee { fee_cap_wei, base_fee_wei } => RpcError::sync_unready(
            hash,
            &format!("max fee per gas less than block base fee: fee cap {fee_cap_wei}, base fee {base_fee_wei}"),
        ),
        Unready::NotExecuting => RpcError::sync_unready(hash, "this node does not execute transactions"),
        Unready::Stopped => RpcError::sync_unready(hash, "the operator has stopped building: it waits in the pool"),
    }
}

/// Why a transaction that was waited for ended without a place.
#[must_use]
pub fn end_error(hash: &B256, end: &EndState) -> RpcError {
    let (code, text) = match end {
        EndState::Rejected(reject) if reject.is_limit() => (code::LIMIT, reject.to_string()),
        EndState::Rejected(reject) => (code::SERVER, reject.to_string()),
        EndState::Invalidated(reason @ Invalid::Condition(_)) => (code::REJECTED, reason.to_string()),
        EndState::Invalidated(reason) => (code::SERVER, reason.to_string()),
        EndState::Evicted { .. } => (code::LIMIT, end.to_string()),
        EndState::Placed | EndState::Replaced { .. } | EndState::Expired { .. } | EndState::DroppedByOperator => {
            (code::SERVER, end.to_string())
        }
    };
    RpcError { code, message: text, data: Some(format!("\"{hash}\"")) }
}
