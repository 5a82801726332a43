//! L1's chain, block by block: what is new, what is gone, what is final.

use std::collections::VecDeque;
use std::future::pending;

use futures_lite::future::or;

use crate::l1::block::{BlockId, CheckedBlock};
use crate::l1::client::agreement::Standing;
use crate::l1::client::error::ClientError;
use crate::l1::client::transport::Transport;
use crate::l1::client::wire::HeadWatch;
use crate::l1::client::{L1Client, Successor};

/// News of L1, in the order in which a chain grows and shrinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum L1Event {
    /// It follows the newest block that was told.
    Block(Box<CheckedBlock>),
    /// Blocks above `to` are gone.
    Rewound { to: u64 },
    /// Told, and final from now on.
    Finalized(BlockId),
    /// Everything up to L1's head was told.
    Head(BlockId),
}

/// The chain from the final block on. Futures of [`Follower::next`] may be dropped at any time.
pub struct Follower {
    /// From the newest final block to the newest block that was told; never empty.
    chain: VecDeque<BlockId>,
    /// What L1 said was its head.
    target: Option<BlockId>,
    /// The head that was told.
    told: Option<BlockId>,
    /// Finality is asked for once a head.
    asked_finality: bool,
    /// The last call failed: the next one begins with a pause.
    has_failed: bool,
    /// Nobody has the blocks below the head that one endpoint named, or a second has not: the others are asked what theirs is.
    is_doubted: bool,
    /// Who named such a head for long, told unless so many endpoints say that there is nothing new.
    withheld: Option<(ClientError, usize)>,
    watch: Option<HeadWatch>,
}

impl Follower {
    /// Begins behind a final block: the genesis's `l1Start`, or that of a checkpoint.
    #[must_use]
    pub fn new<T>(start: BlockId, client: &L1Client<T>) -> Self {
        let watch = client.watch.clone().map(|(url, tls)| HeadWatch::new(url, tls));
        let chain = [start].into();
        let (asked_finality, has_failed, is_doubted) = (false, false, false);
        Self { chain, target: None, told: None, asked_finality, has_failed, is_doubted, withheld: None, watch }
    }

    /// The newest block that was told.
    #[must_use]
    pub fn tip(&self) -> BlockId {
        self.chain[self.chain.len() - 1]
    }

    /// The newest final block.
    #[must_use]
    pub fn finalized(&self) -> BlockId {
        self.chain[0]
    }

    /// Waits for the next news. After an error it may be called again at once: it waits by itself.
    ///
    /// # Errors
    /// `Away` and `Refused` pass; `ReorgBelowFinalized` does not.
    pub async fn next<T: Transport>(&mut self, client: &mut L1Client<T>) -> Result<L1Event, ClientError> {
        if self.has_failed {
            client.pause(client.poll_ns.min(super::BACKOFF_NS_MAX)).await;
            self.has_failed = false;
        }
        let event = self.news(client).await;
        self.has_failed = event.is_err();
        event
    }

    async fn news<T: Transport>(&mut self, client: &mut L1Client<T>) -> Result<L1Event, ClientError> {
        loop {
            if self.target.is_none() {
                self.target = self.newest(client).await?;
            }
            let tip = self.tip();
            match self.target {
                Some(target) if target.number > tip.number => match client.successor(tip).await? {
                    Successor::Block(block) => {
                        self.chain.push_back(block.id());
                        return Ok(L1Event::Block(block));
                    }
                    Successor::Fork => {
                        if let Some(event) = self.rewind(client, tip.number).await? {
                            return Ok(event);
                        }
                    }
                    Successor::Alone { is_contested } => {
                        if is_contested {
                            self.contested(client).await?;
                        }
                        self.doubt(client, 2);
                    }
                    // The chain became shorter since its head was asked for, or never was so long.
                    Successor::None => self.doubt(client, 1),
                },
                Some(target) if self.of(target.number).is_some_and(|ours| ours.hash != target.hash) => {
                    if let Some(event) = self.rewind(client, target.number).await? {
                        return Ok(event);
                    }
                }
                Some(target) => {
                    if let Some(event) = self.at_head(client, target == tip).await? {
                        return Ok(event);
                    }
                }
                None => {}
            }
            if self.target.is_none() && !self.is_doubted {
                self.wait(client).await;
            }
        }
    }

    /// L1's head: the highest that an endpoint names, and of two of one height ours.
    async fn newest<T: Transport>(&mut self, client: &mut L1Client<T>) -> Result<Option<BlockId>, ClientError> {
        let tip = self.tip().number;
        let (above, highest) = if std::mem::take(&mut self.is_doubted) { (u64::MAX, tip) } else { (tip, u64::MAX) };
        let mut named = client.heads(above).await?;
        named.retain(|block| block.number <= highest);
        if let Some((error, _)) = self.withheld.take_if(|(_, enough)| named.len() < *enough) {
            return Err(error);
        }
        self.withheld = None;
        Ok(named.into_iter().max_by_key(|block| (block.number, self.of(block.number) == Some(*block))))
    }

    /// Nothing that counts came below the head that was named. With `enough` endpoints that have no higher one, that is all there is.
    fn doubt<T: Transport>(&mut self, client: &mut L1Client<T>, enough: usize) {
        self.target = None;
        self.withheld = client.withheld(self.tip()).map(|error| (error, enough));
        self.is_doubted = client.endpoints.len() > 1 || self.withheld.is_some();
    }

    /// Two endpoints have different blocks behind ours, and no third one decides. Whoever has another final block than ours is disproved by that.
    async fn contested<T: Transport>(&mut self, client: &mut L1Client<T>) -> Result<(), ClientError> {
        self.target = None;
        let BlockId { number: finalized, .. } = self.finalized();
        match client.replaced(self.finalized()).await? {
            Some(now) => Err(ClientError::ReorgBelowFinalized { finalized, now }),
            None => Ok(()),
        }
    }

    /// Everything is told: finality, once a head, then the head.
    async fn at_head<T: Transport>(
        &mut self,
        client: &mut L1Client<T>,
        is_tip: bool,
    ) -> Result<Option<L1Event>, ClientError> {
        let tip = self.tip();
        if is_tip && self.told != Some(tip) {
            if !self.asked_finality {
                match client.finalized().await {
                    Ok(block) => {
                        if let Some(event) = self.finalize(client, block).await? {
                            self.asked_finality = matches!(event, L1Event::Finalized(_));
                            return Ok(Some(event));
                        }
                    }
                    Err(ClientError::NoBlock { .. }) => {}
                    Err(error) => tracing::warn!(%error, "L1's final block is not known"),
                }
                self.asked_finality = true;
            }
            self.told = Some(tip);
            self.asked_finality = false;
            return Ok(Some(L1Event::Head(tip)));
        }
        self.target = None;
        Ok(None)
    }

    async fn finalize<T: Transport>(
        &mut self,
        client: &mut L1Client<T>,
        block: BlockId,
    ) -> Result<Option<L1Event>, ClientError> {
        let final_before = self.finalized();
        if block.number <= final_before.number {
            return Ok(None);
        }
        match self.of(block.number) {
            // Final and not told yet: the head is older than the final block, as one endpoint behind another has it.
            None => Ok(None),
            Some(ours) if ours == block => {
                while self.finalized().number < block.number {
                    self.chain.pop_front();
                }
                Ok(Some(L1Event::Finalized(block)))
            }
            // Two endpoints say so, or there is one alone: from there on, what was told is not L1's, whoever still has what is above.
            Some(ours) => {
                tracing::warn!(%block, %ours, "L1's final block is not on the chain that was read");
                if client.standing(ours).await? != Standing::Gone {
                    return Ok(None);
                }
                // Told blocks are in memory, so their count fits.
                let below = (block.number - final_before.number - 1) as usize;
                self.rewind_from(client, below).await
            }
        }
    }

    /// Goes back to the newest block that L1 still has; `None` when that is the newest, and two endpoints have it. One endpoint alone takes nothing
    /// back where there are several. `named`: where an endpoint has another block, which may be below what one on a chain of its own has led to.
    async fn rewind<T: Transport>(
        &mut self,
        client: &mut L1Client<T>,
        named: u64,
    ) -> Result<Option<L1Event>, ClientError> {
        self.target = None;
        let newest = self.chain.len() - 1;
        let named = usize::try_from(named.saturating_sub(self.chain[0].number)).map_or(newest, |at| at.min(newest));
        let is_there = named < newest && client.standing(self.chain[named]).await? != Standing::Gone;
        self.rewind_from(client, if is_there { newest } else { named }).await
    }

    /// The same for the block at this place and those below; those above are gone.
    async fn rewind_from<T: Transport>(
        &mut self,
        client: &mut L1Client<T>,
        mut index: usize,
    ) -> Result<Option<L1Event>, ClientError> {
        self.target = None;
        let mut standing = client.standing(self.chain[index]).await?;
        while standing == Standing::Gone {
            if index == 0 {
                let ours = self.chain[0];
                let no_block = ClientError::NoBlock { what: format!("{ours}, which was final") };
                let replaced = client.replaced(ours).await?;
                let finalized = ours.number;
                return Err(replaced.map_or(no_block, |now| ClientError::ReorgBelowFinalized { finalized, now }));
            }
            index -= 1;
            standing = client.standing(self.chain[index]).await?;
        }
        let tip = self.tip();
        if index + 1 == self.chain.len() && standing == Standing::Agreed {
            // Whoever has another chain is alone with it.
            self.target = Some(tip);
            return Ok(None);
        }
        self.told = None;
        if index + 1 == self.chain.len() {
            self.is_doubted = client.endpoints.len() > 1;
            // It has our tip after all, and answered otherwise before: one of two endpoints, or a fork that came and went.
            return Err(match client.endpoints.len() {
                1 => ClientError::NoBlock { what: format!("{} behind {tip}", tip.number + 1) },
                _ => ClientError::NotAgreed(format!("one has another chain than that of {tip}, and is not followed")),
            });
        }
        self.chain.truncate(index + 1);
        Ok(Some(L1Event::Rewound { to: self.tip().number }))
    }

    /// The block of this number that was told.
    fn of(&self, number: u64) -> Option<BlockId> {
        let offset = number.checked_sub(self.chain[0].number)?;
        self.chain.get(usize::try_from(offset).ok()?).copied()
    }

    async fn wait<T: Transport>(&mut self, client: &L1Client<T>) {
        let watch = &mut self.watch;
        let head = async {
            match watch {
                Some(watch) => match watch.next().await {
                    Ok(()) => {}
                    Err(error) => {
                        tracing::debug!(%error, "no news of L1's head by WebSocket");
                        pending().await
                    }
                },
                None => pending().await,
            }
        };
        or(head, client.pause(client.poll_ns)).await;
    }
}
