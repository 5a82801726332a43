//! `eth_getLogs`, and what filters of logs are told.

use crate::builder::rewinds::Rewind;
use crate::chain::LogQuery;
use crate::primitives::B256;
use crate::rpc::encode;
use crate::rpc::error::RpcError;
use crate::rpc::filter::{self, LogCriteria, Position};
use crate::rpc::limits::{LOGS_BLOCKS_MAX, LOGS_BYTES_MAX, LOGS_MAX};
use crate::rpc::log_filter::{LogFilter, LogRange, PENDING_LOGS};
use crate::rpc::params::{BlockId, Params};
use crate::rpc::query::QueryContext;
use crate::rpc::query_filters::{BLOCKS_PER_CLOCK_READ, Reach, caught_up};
use crate::rpc::source::BlockSource;

/// Logs that match, in order.
pub fn logs(context: &QueryContext<'_>, params: &[u8], out: &mut Vec<u8>) -> Result<(), RpcError> {
    let (filter, range) = LogFilter::parse_ranged(&Params::parse(params, 1)?.required(0, "filter")?)?;
    let mut found = Collector::new(&filter, out);
    found.out.push(b'[');
    match range {
        LogRange::Block(hash) => one_block(context, hash, &mut found)?,
        LogRange::Span { from, to } => span(context, from, to, &mut found)?,
    }
    found.out.push(b']');
    Ok(())
}

/// `eth_getFilterLogs`: everything in the filter's range.
pub fn all_of(context: &QueryContext<'_>, criteria: &LogCriteria, out: &mut Vec<u8>) -> Result<(), RpcError> {
    let mut found = Collector::new(&criteria.filter, out);
    found.out.push(b'[');
    span(context, criteria.from, criteria.to, &mut found)?;
    found.out.push(b']');
    Ok(())
}

/// `eth_getFilterChanges`: logs of the filter's range from a position on, as many as one answer may have, and where the next one starts.
pub fn since(
    context: &QueryContext<'_>,
    criteria: &LogCriteria,
    from: Position,
    out: &mut Vec<u8>,
) -> Result<Position, RpcError> {
    let latest = context.view.latest_number();
    let bound = |id, open| match id {
        BlockId::Latest => open,
        id => context.view.number(id).unwrap_or(open),
    };
    let (first, last) = (bound(criteria.from, 0), bound(criteria.to, latest).min(latest));
    let mut found = Collector::new(&criteria.filter, out);
    found.out.push(b'[');
    let range = (first, bound(criteria.to, u64::MAX));
    let from = caught_up(&context.view.heads.rewinds, from, |rewind, told| found.take_removed(rewind, told, range))?;
    let from = from.not_above(latest + 1);
    let mut next = if from.number < first { from.before(first) } else { from };
    let reach = Reach::new(context, next.number);
    while next.number <= last && !found.is_full() && reach.has(context, next.number) {
        let told = match found.is_worth_reading(context, next.number)? {
            true => found.take_from(context.block(next.number)?.as_ref(), next.index)?,
            false => None,
        };
        next = match told {
            Some(index) => next.at(index),
            None => next.before(next.number + 1),
        };
    }
    found.out.push(b']');
    // Behind the range nothing is read again.
    let is_at_end = next.number > last && last < latest;
    Ok(if is_at_end { next.before(latest + 1) } else { next })
}

struct Collector<'a> {
    filter: &'a LogFilter,
    query: LogQuery,
    count: usize,
    out: &'a mut Vec<u8>,
}

impl<'a> Collector<'a> {
    fn new(filter: &'a LogFilter, out: &'a mut Vec<u8>) -> Self {
        Self { filter, query: filter.query(), count: 0, out }
    }

    fn is_full(&self) -> bool {
        self.count >= LOGS_MAX || self.out.len() > LOGS_BYTES_MAX
    }

    fn is_worth_reading(&self, context: &QueryContext<'_>, number: u64) -> Result<bool, RpcError> {
        Ok(match context.view.recent(number) {
            Some(sealed) => self.query.matches_bloom(&sealed.header.logs_bloom),
            None => context.history.may_have_logs(number, &self.query)?,
        })
    }

    /// Takes the logs of blocks that are gone, of those in the range that the poller was told: oldest block first, as go-ethereum does.
    /// They are few enough for one answer.
    ///
    /// # Errors
    /// That there is no such filter, when they were too many to keep.
    fn take_removed(&mut self, rewind: &Rewind, told: Position, range: (u64, u64)) -> Result<(), RpcError> {
        let logs = rewind.logs.as_ref().ok_or_else(filter::not_found)?;
        let mut at = Position::default();
        for removed in logs.iter().filter(|removed| self.filter.matches(&removed.log)) {
            if removed.block_number != at.number {
                at = at.before(removed.block_number);
            }
            let is_told = (at.number, at.index) < (told.number, told.index);
            at.index += 1;
            if !is_told || !(range.0..=range.1).contains(&at.number) {
                continue;
            }
            if self.count > 0 {
                self.out.push(b',');
            }
            self.count += 1;
            encode::removed_log(removed, self.out);
        }
        Ok(())
    }

    /// Takes the logs of a block that match, without the first `skipped` of them. Answers how many of them were taken or skipped when there
    /// are more and no more may be taken.
    fn take_from(&mut self, source: Option<&BlockSource<'_>>, skipped: u64) -> Result<Option<u64>, RpcError> {
        let Some(source) = source else { return Ok(None) };
        let place = source.place();
        let (mut index, mut cut) = (0, None);
        source.for_each_receipt(|receipt| {
            for (offset, entry) in receipt.logs().enumerate().filter(|(_, entry)| self.filter.matches(entry)) {
                if cut.is_some() {
                    break;
                }
                if index >= skipped {
                    if self.is_full() {
                        cut = Some(index);
                        break;
                    }
                    if self.count > 0 {
                        self.out.push(b',');
                    }
                    self.count += 1;
                    encode::log(entry, &place, receipt, offset, self.out);
                }
                index += 1;
            }
            Ok(())
        })?;
        Ok(cut)
    }
}

impl Collector<'_> {
    /// All logs of a block that match; more than an answer may have are an error.
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
        return Err(RpcError::invalid_params(format!("invalid argument 0 (filter): {PENDING_LOGS}")));
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
        if number.is_multiple_of(BLOCKS_PER_CLOCK_READ) {
            context.check_deadline(deadline_ns)?;
        }
        if found.is_worth_reading(context, number)?
            && let Some(source) = context.block(number)?
        {
            found.take(&source)?;
        }
    }
    Ok(())
}
