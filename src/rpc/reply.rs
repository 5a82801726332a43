//! Results and errors of submitted transactions: the one table from what the builder core says to what the client reads.

use crate::builder::block::OpenBlock;
use crate::engine_api::status::{Condition, ExecutionStatus};
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

/// Result of `eth_sendRawTransactionSync`: the preconfirmed receipt.
///
/// # Errors
/// -32603 when the block has no such entry: the builder core names only published ones.
pub fn render_preconfirmed(block: &OpenBlock, index: u32, out: &mut Vec<u8>) -> Result<(), RpcError> {
    let index = index as usize;
    let Some(tx) = block.transactions.get(index) else {
        return Err(RpcError::internal(format!("block {} has no transaction {index}", block.context.number)));
    };
    let receipt = ReceiptView::placed(block, tx, index);
    encode::receipt(&receipt, &Place::unsealed(&block.context), out);
    Ok(())
}

/// The result of `sequencer_executionStatus`.
pub fn render_execution_status(status: &ExecutionStatus, view: &View<'_>, out: &mut Vec<u8>) {
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
    }
    object.end();
}

/// Why a transaction was not admitted.
#[must_use]
pub fn refusal_error(hash: &B256, refusal: &Refusal, wait: SubmitWait) -> RpcError {
    let node_unready = |text: &str| match wait {
        SubmitWait::Admission => RpcError::limit(text),
        SubmitWait::Preconfirmation => RpcError::sync_refused(hash, text),
    };
    match refusal {
        Refusal::Draining => node_unready("the sequencer is shutting down and admits nothing any more"),
        Refusal::ChainBehind => node_unready("the chain database is behind: try again"),
        Refusal::JournalBehind => node_unready("the journal is behind: its disk is slow, try again"),
        Refusal::JournalFull => node_unready("the journal's disk is full: admission is stopped until there is space"),
        Refusal::Unchecked { blocks, blocks_max } => node_unready(&format!(
            "{blocks} sealed blocks wait for the execution client, limit {blocks_max}: try again (sequencer_executionStatus)"
        )),
        Refusal::Halted => node_unready(
            "halted: the execution client does not agree with this chain, only reads are served (sequencer_executionStatus)",
        ),
        Refusal::Condition(reason) => {
            RpcError::new(code::REJECTED, format!("transaction condition can never be met: {reason}"))
        }
        Refusal::Pool(Reject::NonceTooHigh { tx, next, .. }) if wait == SubmitWait::Preconfirmation => {
            RpcError::sync_nonce_gap(*tx, *next)
        }
        Refusal::Pool(reject) if reject.is_limit() => RpcError::limit(reject.to_string()),
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
        EndState::Placed | EndState::Replaced { .. } | EndState::Expired { .. } => (code::SERVER, end.to_string()),
    };
    RpcError { code, message: text, data: Some(format!("\"{hash}\"")) }
}
