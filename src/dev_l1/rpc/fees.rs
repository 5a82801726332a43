//! What to pay: suggestions from the newest blocks, and their history.

use serde_json::{Value, json};

use super::params::{Params, number_of};
use super::quantity;
use crate::dev_l1::block::{Block, next_base_fee_wei};
use crate::dev_l1::node::Node;
use crate::dev_l1::pool::MINER_TIP_WEI_MIN;
use crate::primitives::U256;
use crate::rpc::error::RpcError;

/// Blocks that a suggestion looks at.
const SAMPLE_BLOCKS: u64 = 20;
/// A suggestion is what six of ten transactions paid at most.
const SAMPLE_PERCENTILE: f64 = 60.0;
const HISTORY_BLOCKS_MAX: u64 = 1_024;
const PERCENTILES_MAX: usize = 100;

/// Tips of a block's transactions with their gas, lowest first.
fn tips(block: &Block) -> Vec<(U256, u64)> {
    let base_fee_wei = block.header.base_fee_per_gas.unwrap_or(0);
    let tip = |tx: &crate::dev_l1::transaction::L1Tx| tx.effective_tip_wei(base_fee_wei).unwrap_or_default();
    let mut tips: Vec<(U256, u64)> =
        block.txs.iter().zip(&block.receipts).map(|(tx, receipt)| (tip(tx), receipt.gas_used)).collect();
    tips.sort_unstable();
    tips
}

/// The tip below which this share of the gas paid.
fn percentile(tips: &[(U256, u64)], percent: f64) -> U256 {
    let total: u64 = tips.iter().map(|(_, gas)| gas).sum();
    // A share of a block's gas is exact enough as a floating-point number.
    let wanted = (total as f64 * percent / 100.0) as u64;
    let mut seen = 0;
    let found = tips.iter().find(|(_, gas)| {
        seen += gas;
        seen >= wanted
    });
    found.or(tips.last()).map_or(U256::ZERO, |(tip, _)| *tip)
}

pub fn suggested_tip_wei(node: &Node) -> Result<U256, RpcError> {
    let head = node.chain.head_number();
    let mut sample = Vec::new();
    for number in head.saturating_sub(SAMPLE_BLOCKS - 1)..=head {
        if let Some(hash) = node.chain.hash_at(number)
            && let Some(block) = node.chain.block(&hash)?
        {
            sample.extend(tips(&block));
        }
    }
    sample.sort_unstable();
    Ok(percentile(&sample, SAMPLE_PERCENTILE).max(U256::from(MINER_TIP_WEI_MIN)))
}

pub fn gas_price_wei(node: &Node) -> Result<U256, RpcError> {
    let base_fee_wei = node.chain.head().base_fee_per_gas.unwrap_or(0);
    Ok(suggested_tip_wei(node)? + U256::from(base_fee_wei))
}

/// `eth_feeHistory(count, newest, percentiles)`.
pub fn history(node: &Node, params: &Params<'_>) -> Result<Value, RpcError> {
    let newest = match params.get(1) {
        Some(value) => number_of(node, value, 1)?,
        None => node.chain.head_number(),
    };
    if newest > node.chain.head_number() {
        let head = node.chain.head_number();
        return Err(RpcError::server(format!("request beyond head block: requested {newest}, head {head}")));
    }
    let percents = percents(params)?;
    let count = params.quantity(0)?.min(HISTORY_BLOCKS_MAX).min(newest + 1);
    let (mut base_fees, mut ratios, mut rewards) = (Vec::new(), Vec::new(), Vec::new());
    for number in newest + 1 - count..=newest {
        let hash = node.chain.hash_at(number).unwrap_or_default();
        let Some(block) = node.chain.block(&hash)? else { continue };
        base_fees.push(quantity(block.header.base_fee_per_gas.unwrap_or(0)));
        ratios.push(json!(block.header.gas_used as f64 / block.header.gas_limit as f64));
        let tips = tips(&block);
        rewards.push(percents.iter().map(|percent| quantity(percentile(&tips, *percent))).collect::<Value>());
        if number == newest {
            base_fees.push(quantity(next_base_fee_wei(&block.header)));
        }
    }
    let mut history = json!({
        "oldestBlock": quantity(newest + 1 - count),
        "baseFeePerGas": base_fees,
        "gasUsedRatio": ratios,
        "baseFeePerBlobGas": vec!["0x1"; ratios.len() + 1],
        "blobGasUsedRatio": vec![0.0; ratios.len()],
    });
    if !percents.is_empty() {
        history["reward"] = Value::Array(rewards);
    }
    Ok(history)
}

fn percents(params: &Params<'_>) -> Result<Vec<f64>, RpcError> {
    let invalid = |what: &str| RpcError::invalid_params(format!("invalid argument 2: {what}"));
    let Some(value) = params.get(2) else { return Ok(Vec::new()) };
    let list = value.as_array().ok_or_else(|| invalid("an array of percentiles is expected"))?;
    let percents: Option<Vec<f64>> = list.iter().map(Value::as_f64).collect();
    let percents = percents.ok_or_else(|| invalid("percentiles are numbers"))?;
    let is_ordered = percents.is_sorted() && percents.iter().all(|percent| (0.0..=100.0).contains(percent));
    if !is_ordered || percents.len() > PERCENTILES_MAX {
        return Err(invalid("at most 100 percentiles from 0 to 100, in order"));
    }
    Ok(percents)
}
