//! What pollers are told: from a position on, and how far that went.
//!
//! Nothing newer than the view's durable sequence is told, so only a follower's position can stand behind something that went away. Its poller
//! is told so, and then what came in its place.

use crate::builder::rewinds::{Rewind, Rewinds};
use crate::rpc::encode;
use crate::rpc::error::RpcError;
use crate::rpc::filter::{self, FilterKind, FilterRead, Position};
use crate::rpc::json;
use crate::rpc::limits::{FILTER_BLOCKS_PER_POLL_MAX, FILTER_TXS_PER_POLL_MAX, LOGS_BYTES_MAX};
use crate::rpc::query::QueryContext;
use crate::rpc::query_logs;
use crate::rpc::source::BlockSource;

/// Blocks between two looks at the clock.
pub const BLOCKS_PER_CLOCK_READ: u64 = 64;

/// Writes the result of `eth_getFilterChanges` or `eth_getFilterLogs`; answers where the next poll starts, `None` for the latter.
///
/// # Errors
/// Of `eth_getFilterLogs` those of `eth_getLogs`; -32603 when the chain database cannot be read.
pub fn read(context: &QueryContext<'_>, read: &FilterRead, out: &mut Vec<u8>) -> Result<Option<Position>, RpcError> {
    let Some(from) = read.from else {
        let FilterKind::Logs(criteria) = &*read.kind else {
            return Err(RpcError::internal("only filters of logs have logs"));
        };
        return query_logs::all_of(context, criteria, out).map(|()| None);
    };
    let rewinds = &context.view.heads.rewinds;
    let next = match &*read.kind {
        FilterKind::Logs(criteria) => query_logs::since(context, criteria, from, out)?,
        FilterKind::Blocks => {
            let from = caught_up(rewinds, from, |_, _| Ok(()))?;
            blocks(context, from.not_above(context.view.latest_number() + 1), out)?
        }
        &FilterKind::PendingTransactions { full } => {
            let from = caught_up(rewinds, from, |_, _| Ok(()))?;
            placed(context, full, from.not_above(context.view.tip().header.number + 1), out)?
        }
    };
    Ok(Some(next))
}

/// Where a poller stands who knows of every block that was taken back. `tell` is given what took blocks back that the poller was told, or that
/// were there before the filter was, with how far that went.
///
/// # Errors
/// Those of `tell`; that there is no such filter, when there is no telling what the poller does not know: it makes a new one.
pub fn caught_up(
    rewinds: &Rewinds,
    from: Position,
    mut tell: impl FnMut(&Rewind, Position) -> Result<(), RpcError>,
) -> Result<Position, RpcError> {
    let mut at = from;
    while at.rewinds < rewinds.count() {
        let rewind = rewinds.after(at.rewinds).ok_or_else(filter::not_found)?;
        if (at.number, at.index) > (rewind.to + 1, 0) {
            tell(rewind, at)?;
            at = at.before(rewind.to + 1);
        }
        at.rewinds += 1;
    }
    Ok(at)
}

/// How far one poll goes; what is left is for the next one.
pub struct Reach {
    end: u64,
    deadline_ns: u64,
}

impl Reach {
    #[must_use]
    pub fn new(context: &QueryContext<'_>, first: u64) -> Self {
        Self { end: first.saturating_add(FILTER_BLOCKS_PER_POLL_MAX), deadline_ns: context.deadline_ns() }
    }

    /// Whether this block is read in this poll. Looks at the clock once in a while.
    #[must_use]
    pub fn has(&self, context: &QueryContext<'_>, number: u64) -> bool {
        let is_in_time =
            !number.is_multiple_of(BLOCKS_PER_CLOCK_READ) || context.check_deadline(self.deadline_ns).is_ok();
        number < self.end && is_in_time
    }
}

/// Hashes of blocks that became `latest`.
fn blocks(context: &QueryContext<'_>, from: Position, out: &mut Vec<u8>) -> Result<Position, RpcError> {
    let latest = context.view.latest_number();
    let reach = Reach::new(context, from.number);
    let mut number = from.number;
    out.push(b'[');
    while number <= latest && reach.has(context, number) {
        if let Some(source) = context.block(number)?
            && let Some((_, hash)) = source.header()
        {
            if out.len() > 1 {
                out.push(b',');
            }
            json::data(hash.as_slice(), out);
        }
        number += 1;
    }
    out.push(b']');
    Ok(from.before(number))
}

/// Transactions that have their durable place, in the order of their places.
fn placed(context: &QueryContext<'_>, full: bool, from: Position, out: &mut Vec<u8>) -> Result<Position, RpcError> {
    let tip = context.view.tip().header.number;
    let reach = Reach::new(context, from.number);
    let (mut next, mut count) = (from, 0);
    out.push(b'[');
    while next.number <= tip + 1 && reach.has(context, next.number) {
        if let Some(source) = block_at(context, next.number, tip)? {
            // Bounded by the transactions of a block.
            while let Some(tx) = source.transaction(next.index as usize)? {
                if count >= FILTER_TXS_PER_POLL_MAX || out.len() > LOGS_BYTES_MAX {
                    out.push(b']');
                    return Ok(next);
                }
                if count > 0 {
                    out.push(b',');
                }
                count += 1;
                match full {
                    true => encode::transaction(&tx, None, out)?,
                    false => json::data(tx.hash.as_slice(), out),
                }
                next.index += 1;
            }
        }
        if next.number > tip {
            // More may come behind it.
            break;
        }
        next = next.before(next.number + 1);
    }
    out.push(b']');
    Ok(next)
}

/// A block as far as it may be told of: sealed, whether it is `latest` already or not, or the open one behind the tip.
fn block_at<'a>(context: &QueryContext<'a>, number: u64, tip: u64) -> Result<Option<BlockSource<'a>>, RpcError> {
    if number > tip {
        return Ok(context.view.pending().map(BlockSource::Open));
    }
    if number > context.view.latest_number() {
        let sealed = context.view.heads.recent_by_number(number);
        return Ok(sealed.map(|sealed| BlockSource::Sealed(sealed)));
    }
    context.block(number)
}
