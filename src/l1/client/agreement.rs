//! What no bytes prove, and two endpoints have to agree on where there are several: what is final, what is gone, what an account has.

use std::time::Duration;

use crate::l1::block::{Account, BlockId};
use crate::l1::client::error::{ClientError, EndpointError, Lie};
use crate::l1::client::transport::Transport;
use crate::l1::client::{Endpoint, L1Client, QUARANTINE_NS, no_block};
use crate::primitives::{Address, B256, U256};

/// How a block that was told stands with L1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Gone,
    /// One endpoint has it, and too few have another.
    Stands,
    /// Two endpoints have it.
    Agreed,
}

impl<T: Transport> Endpoint<T> {
    /// Whether bytes have not disproved it lately.
    pub(super) fn is_trusted(&self, now_ns: u64) -> bool {
        self.lied_at_ns.is_none_or(|at_ns| at_ns.saturating_add(QUARANTINE_NS) <= now_ns)
    }

    async fn account(&mut self, address: Address, at: BlockId, limit: Duration) -> Result<Account, EndpointError> {
        // By hash (EIP-1898): of two that are on different chains for a moment, both would be right about a number.
        let params = format!(r#"["{address:#x}",{{"blockHash":"{}"}}]"#, at.hash);
        let nonce = self.quantity("eth_getTransactionCount", &params, limit).await?;
        let balance_wei = self.quantity("eth_getBalance", &params, limit).await?;
        let params = format!(r#"["{address:#x}","pending"]"#);
        let nonce_pending = self.quantity("eth_getTransactionCount", &params, limit).await?;
        let params = format!(r#"["{address:#x}","finalized"]"#);
        let nonce_final = match self.quantity("eth_getTransactionCount", &params, limit).await {
            // go-ethereum answers with an error until there is a final block.
            Err(EndpointError::Rpc { .. }) => U256::ZERO,
            answer => answer?,
        };
        let [nonce, nonce_pending, nonce_final] =
            [nonce, nonce_pending, nonce_final].map(|value| u64::try_from(value).unwrap_or(u64::MAX));
        Ok(Account { address, at, nonce, nonce_pending, nonce_final, balance_wei, is_confirmed: false })
    }
}

impl<T: Transport> L1Client<T> {
    /// How many have to say so, of those whom bytes have not disproved.
    fn quorum(&self) -> usize {
        let now_ns = self.now_ns();
        self.endpoints.iter().filter(|endpoint| endpoint.is_trusted(now_ns)).count().clamp(1, 2)
    }

    fn disprove(&mut self, index: usize, lie: Lie) {
        let endpoint = &mut self.endpoints[index];
        let error = endpoint.lied(lie);
        endpoint.ended::<()>(&Err(error));
    }

    /// How a block that was told stands with L1. It is gone when two endpoints have another in its place, and more than say that it is there; one
    /// that has none there may be late, and counts when nobody has ours.
    ///
    /// # Errors
    /// `Away`, `Refused`; `NotAgreed` while too few of several answer.
    pub(super) async fn standing(&mut self, ours: BlockId) -> Result<Standing, ClientError> {
        let (mut has, mut others, mut none, mut last) = (0, 0, 0, None);
        let tag = format!("{:#x}", ours.number);
        for index in self.usable(self.now_ns()) {
            match self.ask_one(index, &mut async |endpoint, limit| endpoint.id(&tag, limit).await).await {
                Ok(Some(block)) if block == ours => has += 1,
                Ok(Some(_)) => others += 1,
                Ok(None) => none += 1,
                Err(error) => last = Some(error),
            }
        }
        let quorum = self.quorum();
        match (has, others + none) {
            (0, 0) => Err(self.nobody(last)),
            (0, lack) if lack >= quorum => Ok(Standing::Gone),
            (0, lack) => Err(ClientError::NotAgreed(format!(
                "block {ours} is gone to {lack} of {} endpoints, and a second has to say so",
                self.endpoints.len()
            ))),
            _ if others >= quorum && others > has => Ok(Standing::Gone),
            (1, _) => Ok(Standing::Stands),
            _ => Ok(Standing::Agreed),
        }
    }

    /// The newest final block. With several endpoints, the newest that two of them agree on; who contradicts two others lied.
    ///
    /// # Errors
    /// `Away`, `NotAgreed`; `NoBlock` when nothing is final yet.
    pub async fn finalized(&mut self) -> Result<BlockId, ClientError> {
        let none = || no_block("finalized");
        if self.endpoints.len() == 1 {
            let answer = self.ask(async |endpoint, limit| endpoint.id("finalized", limit).await).await;
            return match answer {
                // go-ethereum answers with an error until there is one.
                Err(ClientError::Refused(_)) => Err(none()),
                answer => answer?.ok_or_else(none),
            };
        }
        let mut named = Vec::new();
        for index in self.usable(self.now_ns()) {
            let answer = self.ask_one(index, &mut async |endpoint, limit| endpoint.id("finalized", limit).await).await;
            if let Ok(Some(block)) = answer {
                named.push((index, block));
            }
        }
        self.agreed(named).await
    }

    /// The newest number of these at which two endpoints have the same final block.
    async fn agreed(&mut self, mut named: Vec<(usize, BlockId)>) -> Result<BlockId, ClientError> {
        named.sort_by_key(|(_, block)| std::cmp::Reverse(block.number));
        let mut contradiction = format!("{} of {} endpoints have named one", named.len(), self.endpoints.len());
        // The second newest is the newest that two can have as final.
        for (_, BlockId { number, .. }) in named.iter().skip(1) {
            let votes = self.votes(&named, *number).await;
            let count = |hash: B256| votes.iter().filter(|(_, voted)| *voted == hash).count();
            let Some((_, ours)) = votes.iter().copied().find(|(_, hash)| count(*hash) > 1) else {
                let what =
                    votes.iter().map(|(index, hash)| format!("{} has {hash}", self.endpoints[*index].wire.name()));
                contradiction = format!("block {number}: {}", what.collect::<Vec<_>>().join(", "));
                continue;
            };
            for (index, theirs) in votes.into_iter().filter(|(_, hash)| *hash != ours) {
                self.disprove(index, Lie::Finalized { number: *number, ours, theirs });
            }
            return Ok(BlockId { number: *number, hash: ours });
        }
        Err(ClientError::NotAgreed(contradiction))
    }

    /// The block that L1 has now in the place of one that was final. One endpoint among several is not believed about that: `None` when another one still
    /// has it, and then those that do not have lied.
    ///
    /// # Errors
    /// `NotAgreed` while fewer than two of several endpoints answer.
    pub async fn replaced(&mut self, finalized: BlockId) -> Result<Option<BlockId>, ClientError> {
        let BlockId { number, hash: ours } = finalized;
        let (mut named, tag) = (Vec::new(), format!("{number:#x}"));
        for index in self.usable(self.now_ns()) {
            let answer = self.ask_one(index, &mut async |endpoint, limit| endpoint.id(&tag, limit).await).await;
            if let Ok(Some(block)) = answer {
                named.push((index, block.hash));
            }
        }
        if named.iter().any(|(_, hash)| *hash == ours) {
            for (index, theirs) in named.into_iter().filter(|(_, hash)| *hash != ours) {
                self.disprove(index, Lie::Finalized { number, ours, theirs });
            }
            return Ok(None);
        }
        if named.len() < self.endpoints.len().min(2) {
            let contradiction =
                format!("block {number} was final, {} of {} say that it is another", named.len(), self.endpoints.len());
            return Err(ClientError::NotAgreed(contradiction));
        }
        Ok(named.first().map(|(_, hash)| BlockId { number, hash: *hash }))
    }

    /// What those who have it as final say that block `number` is.
    async fn votes(&mut self, named: &[(usize, BlockId)], number: u64) -> Vec<(usize, B256)> {
        let (mut votes, tag) = (Vec::new(), format!("{number:#x}"));
        for (index, block) in named.iter().filter(|(_, block)| block.number >= number) {
            if block.number == number {
                votes.push((*index, block.hash));
            } else if let Ok(Some(block)) =
                self.ask_one(*index, &mut async |endpoint, limit| endpoint.id(&tag, limit).await).await
            {
                votes.push((*index, block.hash));
            }
        }
        votes
    }

    /// Nonce and balance of an account at a block. Nothing proves them: with several endpoints two that have the same are looked for; of what their
    /// pools and their final blocks say the more careful counts. One whose word nobody else gives is not confirmed. Who does not know the block
    /// says nothing about it.
    ///
    /// # Errors
    /// `Away`, `Refused`; `NotAgreed` when those that answer contradict each other.
    pub async fn account(&mut self, address: Address, at: BlockId) -> Result<Account, ClientError> {
        let (mut named, mut last): (Vec<(usize, Account)>, _) = (Vec::new(), None);
        for index in self.usable(self.now_ns()) {
            let account = &mut async |endpoint: &mut Endpoint<T>, limit| endpoint.account(address, at, limit).await;
            let told = match self.ask_one(index, account).await {
                Ok(told) => told,
                Err(error) => {
                    last = Some(error);
                    continue;
                }
            };
            let same = |other: &Account| (other.nonce, other.balance_wei) == (told.nonce, told.balance_wei);
            let Some((_, other)) = named.iter().copied().find(|(_, other)| same(other)) else {
                named.push((index, told));
                continue;
            };
            for (index, theirs) in named.iter().filter(|(_, theirs)| !same(theirs)) {
                self.disprove(*index, Lie::Account { at, ours: told.nonce, theirs: theirs.nonce });
            }
            let nonce_pending = told.nonce_pending.max(other.nonce_pending);
            let nonce_final = told.nonce_final.min(other.nonce_final);
            return Ok(Account { nonce_pending, nonce_final, is_confirmed: true, ..told });
        }
        match named[..] {
            [] => Err(self.nobody(last)),
            [(_, told)] => Ok(Account { is_confirmed: self.quorum() == 1, ..told }),
            _ => {
                let say = |(index, account): &(usize, Account)| {
                    let Account { nonce, balance_wei, .. } = account;
                    format!("{} has nonce {nonce} and {balance_wei} wei", self.endpoints[*index].wire.name())
                };
                let what = named.iter().map(say).collect::<Vec<_>>().join(", ");
                Err(ClientError::NotAgreed(format!("account {address} at block {at}: {what}")))
            }
        }
    }
}
