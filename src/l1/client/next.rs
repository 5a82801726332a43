//! The next block: which heads endpoints name, and which block behind ours two of them have.
//!
//! A chain of blocks that follow each other proves nothing: whoever likes can make one, and lead with it. So where there are several endpoints a
//! block counts when a second one has the same. One that does not answer is not waited for once it has missed [`MISSED_MAX`] calls in a row
//! while another one answered, nor is one that bytes have disproved; while one alone is left, its word counts.

use std::time::Duration;

use crate::l1::block::{BlockId, CheckedBlock};
use crate::l1::client::error::{ClientError, EndpointError};
use crate::l1::client::transport::Transport;
use crate::l1::client::{BACKOFF_NS_MAX, Endpoint, L1Client, NS_PER_S, no_block};
use crate::metrics::L1_WITHHELD;

/// Longest wait for the head of a second endpoint, when the first has said that there is nothing new, and for one that is away.
const SECOND_NS_MAX: u64 = NS_PER_S;
/// Calls in a row after which an endpoint is away: with the pauses between them about two seconds, or four times the longest wait for an answer.
const MISSED_MAX: u32 = 4;
/// How long, and how often it was asked, until a head whose block does not come is told: on Ethereum two blocks, so that one that is only
/// late, or a fork that ends, is not told.
const WITHHELD_NS: u64 = 30 * NS_PER_S;
const WITHHELD_ROUNDS: u32 = 8;

/// What stands behind a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Successor {
    /// Two endpoints have it, or there is one alone that answers.
    Block(Box<CheckedBlock>),
    /// Whoever has a block of the next number has one that follows another.
    Fork,
    /// One endpoint has one that nobody else has. `is_contested`: another has another block in its place.
    Alone {
        is_contested: bool,
    },
    None,
}

/// A block that follows ours, and how many have it.
pub(super) struct Found {
    block: Box<CheckedBlock>,
    votes: u32,
}

/// What one endpoint has behind ours.
enum Next {
    /// By its place among what was found.
    Found(usize),
    Fork,
    None,
}

/// A head that an endpoint has named, and whose block did not come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Withheld {
    head: u64,
    since_ns: u64,
    rounds: u32,
    is_told: bool,
}

impl<T: Transport> L1Client<T> {
    /// What endpoints name as their newest blocks, until one of them has one above `above`: the first may be stuck.
    ///
    /// # Errors
    /// `Away`, `Refused`, `NoBlock`.
    pub async fn heads(&mut self, above: u64) -> Result<Vec<BlockId>, ClientError> {
        let (mut named, mut last): (Vec<BlockId>, _) = (Vec::new(), None);
        for index in self.usable(self.now_ns()) {
            let answer = if named.is_empty() {
                self.ask_one(index, &mut async |endpoint, limit| endpoint.id("latest", limit).await).await
            } else {
                self.second_head(index).await
            };
            self.endpoints[index].announced = answer.as_ref().ok().copied().flatten();
            match answer {
                Ok(Some(block)) => {
                    named.push(block);
                    if block.number > above {
                        break;
                    }
                }
                Ok(None) => {}
                Err(error) => last = Some(error),
            }
        }
        match (named.is_empty(), last) {
            (false, _) => Ok(named),
            (true, None) => Err(no_block("latest")),
            (true, last) => Err(self.nobody(last)),
        }
    }

    /// The head of an endpoint that nobody waits for.
    async fn second_head(&mut self, index: usize) -> Result<Option<BlockId>, EndpointError> {
        let endpoint = &self.endpoints[index];
        let (failures, missed, retry_at_ns) = (endpoint.failures, endpoint.missed, endpoint.retry_at_ns);
        if endpoint.slow_until_ns > endpoint.wire.now_ns() {
            return Ok(None);
        }
        let mut latest = async |endpoint: &mut Endpoint<T>, limit: Duration| {
            endpoint.id("latest", limit.min(Duration::from_nanos(SECOND_NS_MAX))).await
        };
        let answer = self.ask_one(index, &mut latest).await;
        if matches!(answer, Err(EndpointError::TimedOut { .. })) {
            let endpoint = &mut self.endpoints[index];
            (endpoint.failures, endpoint.missed, endpoint.retry_at_ns) = (failures, missed, retry_at_ns);
            endpoint.slow_until_ns = endpoint.wire.now_ns().saturating_add(BACKOFF_NS_MAX);
        }
        answer
    }

    /// How many must have a block before it counts: two, of those who are not away and whom bytes have not disproved.
    fn votes_needed(&self) -> u32 {
        let now_ns = self.now_ns();
        let is_there = |endpoint: &&Endpoint<T>| endpoint.is_trusted(now_ns) && endpoint.missed < MISSED_MAX;
        if self.endpoints.iter().filter(is_there).count() > 1 { 2 } else { 1 }
    }

    /// The block behind `tip`, checked, that two endpoints have.
    ///
    /// # Errors
    /// `Away`, `Refused`.
    pub async fn successor(&mut self, tip: BlockId) -> Result<Successor, ClientError> {
        // What one endpoint alone had is not read again while the others are waited for.
        let mut found = std::mem::take(&mut self.unseconded);
        found.retain(|found| found.block.header.parent_hash == tip.hash);
        found.iter_mut().for_each(|found| found.votes = 0);
        let (mut forks, mut has_none, mut last) = (0, false, None);
        for index in self.usable(self.now_ns()) {
            match self.next_of(index, tip, &mut found).await {
                Ok(Next::Found(at)) => {
                    found[at].votes += 1;
                    if found[at].votes == 2 {
                        return Ok(Successor::Block(found.swap_remove(at).block));
                    }
                }
                Ok(Next::Fork) => forks += 1,
                Ok(Next::None) => has_none = true,
                Err(error) => last = Some(error),
            }
        }
        found.retain(|found| found.votes > 0);
        match (found.len(), forks) {
            (0, 0) if !has_none => Err(self.nobody(last)),
            (0, 0) => Ok(Successor::None),
            (0, _) => Ok(Successor::Fork),
            _ if self.votes_needed() == 1 => Ok(Successor::Block(found.swap_remove(0).block)),
            (_, 2..) => Ok(Successor::Fork),
            (count, _) => {
                self.unseconded = found;
                Ok(Successor::Alone { is_contested: count + forks > 1 })
            }
        }
    }

    /// A block that was read already is known by its hash, another is read.
    async fn next_of(&mut self, index: usize, tip: BlockId, found: &mut Vec<Found>) -> Result<Next, EndpointError> {
        let number = tip.number + 1;
        let place = |found: &[Found], id: BlockId| found.iter().position(|found| found.block.id() == id);
        if !found.is_empty() {
            let tag = format!("{number:#x}");
            // For one that is away nobody waits long.
            let limit_ns = if self.endpoints[index].missed < MISSED_MAX { u64::MAX } else { SECOND_NS_MAX };
            let limit_max = Duration::from_nanos(limit_ns);
            let named =
                &mut async |endpoint: &mut Endpoint<T>, limit: Duration| endpoint.id(&tag, limit.min(limit_max)).await;
            match self.ask_one(index, named).await? {
                None => return Ok(Next::None),
                Some(id) => {
                    if let Some(at) = place(found, id) {
                        return Ok(Next::Found(at));
                    }
                }
            }
        }
        let block = self.ask_one(index, &mut async |endpoint, limit| endpoint.block(number, limit).await).await?;
        Ok(match block {
            None => Next::None,
            Some(block) if block.header.parent_hash != tip.hash => Next::Fork,
            Some(block) => {
                let at = place(found, block.id()).unwrap_or_else(|| {
                    found.push(Found { block: Box::new(block), votes: 0 });
                    found.len() - 1
                });
                Next::Found(at)
            }
        })
    }

    /// Nothing that counts came behind `tip`: who has named a higher head owes it. Each one that does so for long is logged and counted once; the
    /// last of them is answered for as long as it lasts.
    pub(super) fn withheld(&mut self, tip: BlockId) -> Option<ClientError> {
        let (now_ns, next) = (self.now_ns(), tip.number + 1);
        let mut last = None;
        for endpoint in &mut self.endpoints {
            let Some(announced) = endpoint.announced.filter(|announced| announced.number >= next) else {
                endpoint.withheld = None;
                continue;
            };
            let begun = Withheld { head: announced.number, since_ns: now_ns, rounds: 0, is_told: false };
            // What was owed first: a head that grows by itself is none the better.
            let owed = endpoint.withheld.get_or_insert(begun);
            if owed.head < next {
                *owed = begun;
            }
            owed.rounds = owed.rounds.saturating_add(1);
            if owed.rounds < WITHHELD_ROUNDS || now_ns < owed.since_ns.saturating_add(WITHHELD_NS) {
                continue;
            }
            let head = owed.head;
            if !std::mem::replace(&mut owed.is_told, true) {
                self.meter.failed.increment(L1_WITHHELD);
                let endpoint = endpoint.wire.name();
                tracing::warn!(
                    endpoint,
                    head,
                    next,
                    "an L1 endpoint names a head, and no block that counts comes of it"
                );
            }
            last = Some(ClientError::Withheld { endpoint: endpoint.wire.name(), head, next });
        }
        last
    }
}
