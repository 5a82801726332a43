//! `eth_getLogs`.

use crate::chain::LogQuery;
use crate::primitives::B256;
use crate::rpc::encode;
use crate::rpc::error::RpcError;
use crate::rpc::limits::{LOGS_BLOCKS_MAX, LOGS_BYTES_MAX, LOGS_MAX};
use crate::rpc::log_filter::{LogFilter, LogRange};
use crate::rpc::params::{BlockId, Params};
use crate::rpc::query::QueryContext;
use crate::rpc::source::BlockSource;

/// Blocks between two looks at the clock.
const BLOCKS_PER_CLOCK_READ: u64 = 64;

/// Logs that match, in order.
pub fn logs(context: &QueryContext<'_>, params: &[u8], out: &mut Vec<u8>) -> Result<(), RpcError> {
    let (filter, range) = LogFilter::parse_ranged(&Params::parse(params, 1)?.required(0, "filter")?)?;
    let query = filter.query();
    let mut found = Collector { filter, query, count: 0, out };
    found.out.push(b'[');
    match range {
        LogRange::Block(hash) => one_block(context, hash, &mut found)?,
        LogRange::Span { from, to } => span(context, from, to, &mut found)?,
    }
    found.out.push(b']');
    Ok(())
}

struct Collector<'a> {
    filter: LogFilter,
    query: LogQuery,
    count: usize,
    out: &'a mut Vec<u8>,
}

impl Collector<'_> {
    fn take(&mut self, source: &BlockSource<'_>) -> Result<(), RpcError> {
        let place = source.place();
        source.for_each_receipt(|receipt| {
            for (offset, entry) in receipt.logs().enumerate().filter(|(_, entry)| self.filter.matches(entry)) {
                if self.count == LOGS_MAX {
                    return Err(RpcError::limit(format!("query returned more than {LOGS_MAX} results")));
                }
                if self.out.len() > LOGS_BYTES_MAX {
                    return Err(RpcError::limit(format!("query returned more than {LOGS_BYTES_MAX} bytes")));
                }
                if self.count > 0 {
                    self.out.push(b',');
                }
                self.count += 1;
                encode::log(entry, &place, receipt, offset, self.out);
            }
            Ok(())
        })
    }
}

fn one_block(context: &QueryContext<'_>, hash: B256, found: &mut Collector<'_>) -> Result<(), RpcError> {
    match context.resolve(BlockId::Hash(hash))? {
        Some(source) => found.take(&source),
        None => Err(RpcError::server(format!("unknown block {hash}"))),
    }
}

fn span(context: &QueryContext<'_>, from: BlockId, to: BlockId, found: &mut Collector<'_>) -> Result<(), RpcError> {
    if from == BlockId::Pending || to == BlockId::Pending {
        return Err(RpcError::invalid_params(
            "invalid argument 0 (filter): pending logs are not served, use eth_getBlockReceipts or sequencer_preconfirmations",
        ));
    }
    let bound =
        |id| context.view.number(id).map_err(|hash| RpcError::invalid_params(format!("{hash} is not a number")));
    let (first, last) = (bound(from)?, bound(to)?);
    if first > last {
        return Err(RpcError::invalid_params(format!("invalid block range: fromBlock {first}, toBlock {last}")));
    }
    let last = last.min(context.view.latest_number());
    if last.saturating_sub(first) >= LOGS_BLOCKS_MAX {
        let count = last - first + 1;
        return Err(RpcError::limit(format!("block range too large: {count} blocks, limit {LOGS_BLOCKS_MAX}")));
    }
    let deadline_ns = context.deadline_ns();
    for number in first..=last {
        if number % BLOCKS_PER_CLOCK_READ == 0 {
            context.check_deadline(deadline_ns)?;
        }
        let worth_reading = match context.view.recent(number) {
            Some(sealed) => found.query.matches_bloom(&sealed.header.logs_bloom),
            None => context.history.may_have_logs(number, &found.query)?,
        };
        if worth_reading && let Some(source) = context.block(number)? {
            found.take(&source)?;
        }
    }
    Ok(())
}
