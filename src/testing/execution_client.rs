//! An execution client without blocks: hashes, a head, and the faults that a real go-ethereum was seen to have.

use std::collections::BTreeMap;

use alloy_primitives::keccak256;

use crate::engine_api::session::{Call, OurChain};
use crate::engine_api::types::{
    CallError, ErrorCode, Method, PayloadStatus, REQUIRED, RemoteBlock, Reply, SyncProgress, Verdict,
};
use crate::primitives::{B256, Fork};

/// A chain of hashes that only grows.
#[derive(Clone, Debug)]
pub struct HashChain {
    pub tip: u64,
    pub salt: u64,
    /// Blocks above this number were rolled back once; those that are there now are others.
    pub rolled_back_to: Option<u64>,
    /// Numbers of the newest safe and of the newest final block.
    pub settled: (u64, u64),
}

impl OurChain for HashChain {
    fn tip(&self) -> u64 {
        self.tip
    }

    fn hash(&self, number: u64) -> Option<B256> {
        let is_second = self.rolled_back_to.is_some_and(|kept| number > kept);
        (number <= self.tip).then(|| hash_of(number, if is_second { !self.salt } else { self.salt }))
    }

    fn is_void(&self, number: u64, hash: B256) -> bool {
        self.rolled_back_to.is_some_and(|kept| number > kept && hash == hash_of(number, self.salt))
    }

    fn settled(&self) -> (u64, u64) {
        self.settled
    }
}

/// Every chain has the same genesis.
fn hash_of(number: u64, salt: u64) -> B256 {
    let salt = if number == 0 { 0 } else { salt };
    keccak256([number.to_be_bytes(), salt.to_be_bytes()].concat())
}

/// What the client does instead of its work, until it is told otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// The process is gone: connection refused.
    Down,
    /// SIGSTOP: nothing is done, nothing is answered.
    Frozen,
    /// The work is done and the answer lost.
    AnswerLost,
    Http(u16),
    NotJson,
    /// SYNCING to every payload.
    Syncing,
    /// VALID, and the hash of another block.
    WrongLatestValid,
}

/// What a `kill -9` left of its database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Damage {
    #[default]
    None,
    /// Blocks above the head are known without their state: VALID, and the head does not move. `debug_setHead` helps.
    Amnesia,
    /// As before, and `debug_setHead` does not help: one block, then SYNCING.
    Broken,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct FakeClient {
    /// Blocks that it called VALID, and their numbers.
    known: BTreeMap<B256, u64>,
    /// Its canonical chain, genesis first.
    canonical: Vec<B256>,
    pub fault: Fault,
    pub damage: Damage,
    /// The block that it will call INVALID.
    pub invalid: Option<u64>,
    /// Highest head that it ever had on the chain that it is fed.
    pub head_max: u64,
    pub set_head_offered: bool,
    /// What it answers to `eth_syncing`.
    pub sync: Option<SyncProgress>,
    /// It answers that with something else.
    pub sync_is_nonsense: bool,
    /// It was restarted since the last call, which the connection did not survive.
    is_restarted: bool,
}

impl Default for FakeClient {
    fn default() -> Self {
        let mut client = Self {
            known: BTreeMap::new(),
            canonical: Vec::new(),
            fault: Fault::None,
            damage: Damage::None,
            invalid: None,
            head_max: 0,
            set_head_offered: true,
            sync: None,
            sync_is_nonsense: false,
            is_restarted: false,
        };
        client.wipe();
        client
    }
}

impl FakeClient {
    #[must_use]
    pub fn head(&self) -> u64 {
        self.canonical.len() as u64 - 1
    }

    /// A new database with genesis alone.
    pub fn wipe(&mut self) {
        let genesis = hash_of(0, 0);
        self.canonical = vec![genesis];
        self.known = BTreeMap::from([(genesis, 0)]);
        self.damage = Damage::None;
        self.is_restarted = true;
    }

    /// `kill -9`: the head goes back by `lost` blocks.
    pub fn kill(&mut self, lost: u64, damage: Damage) {
        let kept = (self.canonical.len() as u64).saturating_sub(lost).max(1);
        self.canonical.truncate(kept as usize);
        if damage == Damage::None {
            let head = self.head();
            self.known.retain(|_, number| *number <= head);
        }
        self.damage = damage;
        self.is_restarted = true;
    }

    /// Stands on blocks of another chain from `number` on.
    pub fn diverge(&mut self, number: u64, count: u64) {
        self.canonical.truncate(number as usize);
        for number in number..number + count {
            let hash = if number == 0 { B256::repeat_byte(0x77) } else { hash_of(number, u64::MAX) };
            self.canonical.push(hash);
            self.known.insert(hash, number);
        }
    }

    /// Does what the call asks and answers as the fault of the moment has it.
    ///
    /// # Errors
    /// As a transport would report it.
    pub fn handle(&mut self, call: Call, chain: &HashChain) -> Result<Reply, CallError> {
        let method = call.method(Fork::Osaka);
        if std::mem::take(&mut self.is_restarted) && call != Call::ExchangeCapabilities {
            return Err(CallError::Unreachable { address: "fake".to_owned(), what: "connection reset".to_owned() });
        }
        let timed_out = || CallError::TimedOut { method: method.name(), limit_ms: 8_000 };
        match self.fault {
            Fault::Down => {
                Err(CallError::Unreachable { address: "fake".to_owned(), what: "connection refused".to_owned() })
            }
            Fault::Frozen => Err(timed_out()),
            Fault::AnswerLost => {
                let _ = self.work(call, method, chain);
                Err(timed_out())
            }
            Fault::Http(status) => Err(CallError::Http { status, body: "no".to_owned() }),
            Fault::NotJson => Err(CallError::malformed(method, "the answer is not JSON", "<html>")),
            Fault::Syncing if matches!(call, Call::NewPayload { .. }) => status(Verdict::Syncing, None),
            Fault::WrongLatestValid if matches!(call, Call::NewPayload { .. } | Call::Forkchoice { .. }) => {
                status(Verdict::Valid, Some(B256::repeat_byte(0xee)))
            }
            _ => self.work(call, method, chain),
        }
    }

    fn work(&mut self, call: Call, method: Method, chain: &HashChain) -> Result<Reply, CallError> {
        match call {
            Call::ExchangeCapabilities => {
                Ok(Reply::Capabilities(REQUIRED.iter().map(|method| method.name().to_owned()).collect()))
            }
            Call::ReadHead => Ok(Reply::Block(self.block(self.head()))),
            Call::ReadBlock { number } => Ok(Reply::Block(self.block(number))),
            Call::ReadSync if self.sync_is_nonsense => {
                Err(CallError::malformed(method, "neither false nor a progress", "\"maybe\""))
            }
            Call::ReadSync => Ok(Reply::Sync(self.sync)),
            Call::NewPayload { number } => self.new_payload(number, chain),
            Call::Forkchoice { number } => self.forkchoice(number, method, chain),
            Call::SetHead { number } => {
                if !self.set_head_offered {
                    let (number, code) = (-32_601, ErrorCode::MethodNotFound);
                    return Err(CallError::Rpc { method: method.name(), number, code, message: "no".to_owned() });
                }
                self.canonical.truncate(number as usize + 1);
                if self.damage == Damage::Amnesia {
                    self.damage = Damage::None;
                }
                let head = self.head();
                self.known.retain(|_, number| *number <= head);
                Ok(Reply::Done)
            }
        }
    }

    fn block(&self, number: u64) -> Option<RemoteBlock> {
        self.canonical.get(number as usize).map(|hash| RemoteBlock { number, hash: *hash })
    }

    fn new_payload(&mut self, number: u64, chain: &HashChain) -> Result<Reply, CallError> {
        let hash = chain.hash(number).expect("only blocks up to the tip are fed");
        let parent = chain.hash(number - 1).expect("the parent is below the tip");
        if self.invalid == Some(number) {
            return status(Verdict::Invalid, Some(parent));
        }
        let is_behind_a_gap = self.damage == Damage::Broken && number > self.head() + 1;
        if !self.known.contains_key(&hash) && (is_behind_a_gap || !self.known.contains_key(&parent)) {
            return status(Verdict::Syncing, None);
        }
        self.known.insert(hash, number);
        status(Verdict::Valid, Some(hash))
    }

    fn forkchoice(&mut self, number: u64, method: Method, chain: &HashChain) -> Result<Reply, CallError> {
        let hash = chain.hash(number).expect("only blocks up to the tip are chosen");
        if !self.known.contains_key(&hash) {
            return status(Verdict::Syncing, None);
        }
        match self.damage {
            Damage::Amnesia => return status(Verdict::Valid, Some(hash)),
            Damage::Broken if number > self.head() + 1 => {
                let (number, code) = (-38_006, ErrorCode::TooDeepReorg);
                return Err(CallError::Rpc {
                    method: method.name(),
                    number,
                    code,
                    message: "Too deep reorg".to_owned(),
                });
            }
            Damage::Broken => return status(Verdict::Valid, Some(hash)),
            Damage::None => {}
        }
        self.canonical = (0..=number).map(|number| chain.hash(number).expect("below the tip")).collect();
        self.head_max = self.head_max.max(number);
        status(Verdict::Valid, Some(hash))
    }
}

fn status(verdict: Verdict, latest_valid_hash: Option<B256>) -> Result<Reply, CallError> {
    Ok(Reply::Status(PayloadStatus { verdict, latest_valid_hash, validation_error: None }))
}
