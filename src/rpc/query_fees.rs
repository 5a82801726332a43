//! `eth_feeHistory`.

use crate::rpc::error::RpcError;
use crate::rpc::json::{self, Object};
use crate::rpc::limits::{FEE_HISTORY_BLOCKS_MAX, FEE_HISTORY_PERCENTILES_MAX};
use crate::rpc::params::{Argument, BlockId, Params};
use crate::rpc::query::QueryContext;
use crate::rpc::source::BlockSource;

/// Blob base fee at no excess (EIP-4844's minimum): this chain has no blobs.
const BLOB_BASE_FEE_WEI: u64 = 1;

/// What is reported of one block.
struct BlockFees {
    base_fee_wei: u64,
    gas_used_ratio: f64,
    rewards_wei: Vec<u128>,
}

/// Base fees, fullness and rewards of a run of blocks, and the base fee of the block behind it.
pub fn fee_history(context: &QueryContext<'_>, params: &[u8], out: &mut Vec<u8>) -> Result<(), RpcError> {
    let arguments = Params::parse(params, 3)?;
    let count = arguments.required(0, "block count")?.quantity_u64()?.min(FEE_HISTORY_BLOCKS_MAX);
    let newest = match arguments.required(1, "newest block")?.block()? {
        BlockId::Pending => BlockId::Latest,
        other => other,
    };
    let percentiles = match arguments.optional(2, "reward percentiles") {
        Some(argument) => parse_percentiles(&argument)?,
        None => Vec::new(),
    };
    let head = context.view.latest_number();
    let newest = context
        .view
        .number(newest)
        .map_err(|_| RpcError::invalid_params("invalid argument 1 (newest block): a hash"))?;
    if newest > head {
        return Err(RpcError::server(format!("request beyond head block: requested {newest}, head {head}")));
    }
    let count = count.min(newest + 1);
    let oldest = newest + 1 - count;
    let deadline_ns = context.deadline_ns();
    let mut blocks = Vec::with_capacity(count as usize);
    for number in oldest..oldest + count {
        context.check_deadline(deadline_ns)?;
        let source = context.block(number)?.ok_or_else(|| RpcError::internal(format!("block {number} is missing")))?;
        blocks.push(block_fees(&source, &percentiles)?);
    }
    let next_base_fee_wei = match context.block(newest + 1)? {
        Some(next) => next.place().base_fee_wei,
        None => context.view.next_base_fee_wei(),
    };
    write(oldest, &blocks, next_base_fee_wei, !percentiles.is_empty(), out);
    Ok(())
}

fn parse_percentiles(argument: &Argument<'_>) -> Result<Vec<f64>, RpcError> {
    let percentiles: Vec<f64> = serde_json::from_str(argument.raw.get()).map_err(|error| argument.invalid(error))?;
    if percentiles.len() > FEE_HISTORY_PERCENTILES_MAX {
        return Err(argument.invalid(format!("over the query limit {FEE_HISTORY_PERCENTILES_MAX}")));
    }
    let in_range = percentiles.iter().all(|percentile| (0.0..=100.0).contains(percentile));
    if !in_range || !percentiles.is_sorted() {
        return Err(argument.invalid("percentiles are not increasing numbers from 0 to 100"));
    }
    Ok(percentiles)
}

fn block_fees(source: &BlockSource<'_>, percentiles: &[f64]) -> Result<BlockFees, RpcError> {
    let place = source.place();
    let (gas_used, gas_limit) = source.header().map_or((0, 1), |(header, _)| (header.gas_used, header.gas_limit));
    let rewards_wei = if percentiles.is_empty() {
        Vec::new()
    } else {
        let mut tips = Vec::with_capacity(source.tx_count());
        source.for_each_receipt(|receipt| {
            let tip_wei = receipt.effective_gas_price_wei.saturating_sub(u128::from(place.base_fee_wei));
            tips.push((tip_wei, receipt.gas_used));
            Ok(())
        })?;
        rewards(tips, gas_used, percentiles)
    };
    Ok(BlockFees {
        base_fee_wei: place.base_fee_wei,
        gas_used_ratio: gas_used as f64 / gas_limit.max(1) as f64,
        rewards_wei,
    })
}

/// The tip at each percentile of the gas used, counted from the cheapest transaction.
fn rewards(mut tips: Vec<(u128, u64)>, gas_used: u64, percentiles: &[f64]) -> Vec<u128> {
    if tips.is_empty() {
        return vec![0; percentiles.len()];
    }
    tips.sort_unstable_by_key(|&(tip_wei, _)| tip_wei);
    let mut index = 0;
    let mut gas_up_to = tips[0].1;
    let mut rewards_wei = Vec::with_capacity(percentiles.len());
    for percentile in percentiles {
        // Rounds down, like go-ethereum.
        let threshold = (gas_used as f64 * percentile / 100.0) as u64;
        while gas_up_to < threshold && index + 1 < tips.len() {
            index += 1;
            gas_up_to += tips[index].1;
        }
        rewards_wei.push(tips[index].0);
    }
    rewards_wei
}

fn write(oldest: u64, blocks: &[BlockFees], next_base_fee_wei: u64, with_rewards: bool, out: &mut Vec<u8>) {
    let mut object = Object::begin(out);
    object.quantity("oldestBlock", oldest);
    if with_rewards {
        json::array(blocks, object.member("reward"), |block, out| {
            json::array(block.rewards_wei.iter().copied(), out, json::quantity);
        });
    }
    let base_fees = blocks.iter().map(|block| block.base_fee_wei).chain([next_base_fee_wei]);
    json::array(base_fees, object.member("baseFeePerGas"), json::quantity);
    json::array(blocks, object.member("gasUsedRatio"), |block, out| number(block.gas_used_ratio, out));
    let blob_base_fees = std::iter::repeat_n(BLOB_BASE_FEE_WEI, blocks.len() + 1);
    json::array(blob_base_fees, object.member("baseFeePerBlobGas"), json::quantity);
    json::array(blocks, object.member("blobGasUsedRatio"), |_, out| out.push(b'0'));
    object.end();
}

/// A finite ratio as JSON.
fn number(ratio: f64, out: &mut Vec<u8>) {
    let written = serde_json::to_writer(&mut *out, &ratio);
    debug_assert!(written.is_ok());
}
