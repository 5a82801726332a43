//! L1's chain, block by block: what is new, what is gone, what is final.

use std::collections::VecDeque;
use std::future::pending;

use futures_lite::future::or;

use crate::l1::block::{BlockId, CheckedBlock};
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
    /// Nobody has the blocks below the head that one endpoint named: the others are asked what theirs is.
    is_doubted: bool,
    watch: Option<HeadWatch>,
}

impl Follower {
    /// Begins behind a final block: the genesis's `l1Start`, or that of a checkpoint.
    #[must_use]
    pub fn new<T>(start: BlockId, client: &L1Client<T>) -> Self {
        let watch = client.watch.clone().map(|(url, tls)| HeadWatch::new(url, tls));
        let chain = [start].into();
        let (asked_finality, has_failed, is_doubted) = (false, false, false);
        Self { chain, target: None, told: None, asked_finality, has_failed, is_doubted, watch }
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
                    Successor::Fork => return self.rewind(client).await,
                    // The chain became shorter since its head was asked for, or never was so long.
                    Successor::None => {
                        self.target = None;
                        self.is_doubted = client.endpoints.len() > 1;
                    }
                },
                Some(target) if self.of(target.number).is_some_and(|ours| ours.hash != target.hash) => {
                    return self.rewind(client).await;
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
        let named = client.heads(above).await?;
        let named = named.into_iter().filter(|block| block.number <= highest);
        Ok(named.max_by_key(|block| (block.number, self.of(block.number) == Some(*block))))
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
                let finalized = client.finalized().await;
                self.asked_finality = true;
                match finalized {
                    Ok(block) => {
                        if let Some(event) = self.finalize(block)? {
                            return Ok(Some(event));
                        }
                    }
                    Err(ClientError::NoBlock { .. }) => {}
                    Err(error) => tracing::warn!(%error, "L1's final block is not known"),
                }
            }
            self.told = Some(tip);
            self.asked_finality = false;
            return Ok(Some(L1Event::Head(tip)));
        }
        self.target = None;
        Ok(None)
    }

    fn finalize(&mut self, block: BlockId) -> Result<Option<L1Event>, ClientError> {
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
            // The chain that was told is not the final one: the next look at the head finds the fork.
            Some(_) => {
                tracing::warn!(%block, "L1's final block is not on the chain that was read");
                Ok(None)
            }
        }
    }

    /// Goes back to the newest block that L1 still has. One endpoint alone takes nothing back where there are several.
    async fn rewind<T: Transport>(&mut self, client: &mut L1Client<T>) -> Result<L1Event, ClientError> {
        self.target = None;
        let mut index = self.chain.len() - 1;
        while !client.stands(self.chain[index]).await? {
            if index == 0 {
                let ours = self.chain[0];
                let no_block = ClientError::NoBlock { what: format!("{ours}, which was final") };
                let replaced = client.replaced(ours).await?;
                let finalized = ours.number;
                return Err(replaced.map_or(no_block, |now| ClientError::ReorgBelowFinalized { finalized, now }));
            }
            index -= 1;
        }
        self.told = None;
        if index + 1 == self.chain.len() {
            self.is_doubted = client.endpoints.len() > 1;
            // It has our tip after all, and answered otherwise before: one of two endpoints, or a fork that came and went.
            let tip = self.tip();
            return Err(match client.endpoints.len() {
                1 => ClientError::NoBlock { what: format!("{} behind {tip}", tip.number + 1) },
                _ => ClientError::NotAgreed(format!("one has another chain than that of {tip}, and is not followed")),
            });
        }
        self.chain.truncate(index + 1);
        Ok(L1Event::Rewound { to: self.tip().number })
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
