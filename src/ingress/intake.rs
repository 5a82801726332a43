//! Transactions of a shard: hex in, decoded at once, hashed and recovered together turn by turn, submissions out.
//!
//! Owner core: ingress shard. Every connection's transactions of a turn gather here, so that recovery sees them as one slice.
//! In the steady state nothing is allocated: bytes lie in the slab, everything else in vectors that keep their capacity.

use std::collections::VecDeque;

use crate::codec::hex;
use crate::codec::transaction::{self, TxError};
use crate::crypto::keccak;
use crate::crypto::recovery::{self, RecoverError, RecoverItem, recover_batch};
use crate::limits::{TX_BYTES_MAX, TX_GAS_MAX};
use crate::mempool::{Conditions, Reject};
use crate::messages::{Submit, SubmitExtras, SubmitWait};
use crate::metrics::reasons::IngressReason;
use crate::primitives::{Address, B256, ReplyToken, TxFields};
use crate::rpc::RpcError;
use crate::runtime::slab::{Chunk, Slab, TxHandle};

/// Signatures that one turn recovers, authorizations counted: about 10 ms by libsecp256k1 and 1.2 in vectors, so that replies and news wait
/// no longer. Past as many no further input is taken. The batch recovery gains nothing beyond 128.
pub const TURN_ITEMS_MAX: usize = 256;
/// Signatures that may wait for later turns: a batch is decoded whole. On full: `Reject` with -32005. Four turns of transfers, or a
/// batch of authorization lists of half a second.
pub const WAITING_ITEMS_MAX: usize = 4_096;
/// Authorizations that a transaction could pay for: EIP-7702 charges 25,000 gas for each.
pub const AUTHORIZATIONS_MAX: u64 = TX_GAS_MAX / 25_000;

const _: () = assert!(AUTHORIZATIONS_MAX < WAITING_ITEMS_MAX as u64);
/// A longer signing payload is hashed alone: copies of those that wait take 4 MiB at most.
const PAYLOAD_KEPT_BYTES_MAX: usize = 1_024;

/// A transaction that decodes, on its way to recovery.
pub struct Prepared {
    pub fields: TxFields,
    pub handle: TxHandle,
}

struct Waiting {
    token: ReplyToken,
    wait: SubmitWait,
    prepared: Prepared,
    /// Zero until the next recovery.
    hash: B256,
    conditions: Option<Conditions>,
}

/// A signing payload in [`Intake::payloads`] whose hash is to be the digest of an item.
#[derive(Clone, Copy)]
struct Undigested {
    item: usize,
    start: usize,
    end: usize,
}

/// What a turn has gathered.
pub struct Intake {
    chain_id: u64,
    waiting: VecDeque<Waiting>,
    /// Of the newest of `waiting`: those without a hash.
    unhashed_count: usize,
    /// Signatures of `waiting`, in order: of each transaction its own, then those of its authorizations.
    items: Vec<RecoverItem>,
    undigested: Vec<Undigested>,
    payloads: Vec<u8>,
    /// Of the first items: what was recovered in earlier turns.
    senders: Vec<Result<Address, RecoverError>>,
    /// For a while.
    hashes: Vec<B256>,
}

impl Intake {
    #[must_use]
    pub fn new(chain_id: u64) -> Self {
        Self {
            chain_id,
            waiting: VecDeque::with_capacity(2 * TURN_ITEMS_MAX),
            items: Vec::with_capacity(2 * TURN_ITEMS_MAX),
            senders: Vec::with_capacity(2 * TURN_ITEMS_MAX),
            unhashed_count: 0,
            undigested: Vec::with_capacity(2 * TURN_ITEMS_MAX),
            payloads: Vec::with_capacity(TX_BYTES_MAX),
            hashes: Vec::with_capacity(2 * TURN_ITEMS_MAX),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Signatures that wait.
    #[must_use]
    pub fn item_count(&self) -> usize {
        self.items.len()
    }

    /// Signatures that are recovered at the cost of one.
    #[must_use]
    pub fn round_items() -> usize {
        recovery::round_items()
    }

    /// Whether the next turn has enough to recover.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.items.len() >= TURN_ITEMS_MAX
    }

    /// Decodes a transaction into the slab and queues its signatures for recovery. The caller then calls [`Intake::push`].
    ///
    /// Runs on: ingress shard; never blocks, never allocates in the steady state.
    /// Errors:  -32602 for hex, -32000 for what the decoder or the chain id refuses, -32005 when the slab or what waits is at its limit.
    pub fn prepare(&mut self, hex_text: &[u8], slab: &mut Slab) -> Result<Prepared, Refused> {
        let bytes = hex_text.strip_prefix(b"0x").unwrap_or(hex_text).len() / 2;
        if bytes > TX_BYTES_MAX {
            let error = TxError::TooLong { bytes: bytes as u64, bytes_max: TX_BYTES_MAX as u32 };
            return Err(Refused { reason: IngressReason::TooLarge, error: tx_error(error) });
        }
        if bytes == 0 {
            // An odd digit is a mistake in the text, nothing at all one in the transaction.
            return Err(hex::decode_into(hex_text, &mut []).map_or_else(hex_error, |_| undecodable(TxError::Empty)));
        }
        let Some(mut chunk) = slab.alloc(bytes) else {
            return Err(RpcError::busy("memory for transactions is used up: try again", 1_000).into());
        };
        hex::decode_into(hex_text, &mut chunk).map_err(hex_error)?;
        self.decode(chunk)
    }

    fn decode(&mut self, chunk: Chunk<'_>) -> Result<Prepared, Refused> {
        let raw: &[u8] = &chunk;
        let decoded = transaction::decode(raw).map_err(undecodable)?;
        let fields = decoded.fields;
        if let Some(tx) = fields.chain_id
            && tx != self.chain_id
        {
            let error = RpcError::server(Reject::ChainIdWrong { tx, chain: self.chain_id }.to_string());
            return Err(Refused { reason: IngressReason::ChainIdWrong, error });
        }
        let authorizations = u64::from(fields.authorization_count);
        if authorizations > AUTHORIZATIONS_MAX {
            let text = format!("too many authorizations: {authorizations}, limit {AUTHORIZATIONS_MAX}");
            return Err(Refused { reason: IngressReason::TooLarge, error: RpcError::server(text) });
        }
        // Below 2,000.
        let items = self.items.len() + 1 + authorizations as usize;
        if items > WAITING_ITEMS_MAX {
            let text = format!("too many signatures wait for recovery: {items}, limit {WAITING_ITEMS_MAX}");
            return Err(RpcError::busy(text, 100).into());
        }
        let start = self.payloads.len();
        transaction::signing_payload_into(raw, &decoded, &mut self.payloads);
        let end = self.payloads.len();
        if end - start > PAYLOAD_KEPT_BYTES_MAX {
            let digest = keccak::keccak256(&self.payloads[start..]);
            self.payloads.truncate(start);
            self.items.push(decoded.recover_item(digest));
        } else {
            self.undigested.push(Undigested { item: self.items.len(), start, end });
            self.items.push(decoded.recover_item(B256::ZERO));
        }
        if fields.authorization_count > 0 {
            for authorization in transaction::authorizations(raw, &fields) {
                let digest = authorization.signing_hash();
                let transaction::Authorization { r, s, y_parity, .. } = authorization;
                self.items.push(RecoverItem { digest, r, s, y_parity });
            }
        }
        Ok(Prepared { fields, handle: chunk.freeze() })
    }

    /// Queues what [`Intake::prepare`] returned last.
    pub fn push(&mut self, token: ReplyToken, wait: SubmitWait, prepared: Prepared, conditions: Option<Conditions>) {
        self.waiting.push_back(Waiting { token, wait, prepared, hash: B256::ZERO, conditions });
        self.unhashed_count += 1;
    }

    /// Makes the hashes of what came since the last call, several at once.
    fn hash(&mut self, slab: &Slab) {
        let Self { undigested, payloads, items, .. } = self;
        let payload = |index: usize| &payloads[undigested[index].start..undigested[index].end];
        let digest = |index: usize, digest| items[undigested[index].item].digest = digest;
        keccak::keccak256_each(undigested.len(), payload, digest);
        undigested.clear();
        payloads.clear();

        let Self { waiting, unhashed_count, hashes, .. } = self;
        let first = waiting.len() - *unhashed_count;
        hashes.resize(*unhashed_count, B256::ZERO);
        let raw = |index: usize| slab.bytes(&waiting[first + index].prepared.handle);
        keccak::keccak256_each(*unhashed_count, raw, |index, hash| hashes[index] = hash);
        for (waiting, hash) in waiting.range_mut(first..).zip(hashes.drain(..)) {
            waiting.hash = hash;
        }
        *unhashed_count = 0;
    }

    /// Recovers the first `count_max` signatures, at most `TURN_ITEMS_MAX`, in one call and hands each transaction that is complete, in order,
    /// to `each`; a bad signature comes with its chunk. `slab` is the one of [`Intake::prepare`]. Answers how many signatures were recovered.
    pub fn recover(
        &mut self,
        count_max: usize,
        slab: &mut Slab,
        mut each: impl FnMut(&mut Slab, Result<Submit, (ReplyToken, TxHandle, RpcError)>),
    ) -> u64 {
        self.hash(slab);
        let start = self.senders.len();
        let end = self.items.len().min(start + count_max.min(TURN_ITEMS_MAX));
        self.senders.resize(end, Err(RecoverError::SZero));
        recover_batch(&self.items[start..end], &mut self.senders[start..]);
        let mut done = 0;
        while let Some(front) = self.waiting.front() {
            let authorities = done + 1..done + 1 + front.prepared.fields.authorization_count as usize;
            if authorities.end > end {
                break;
            }
            let Some(waiting) = self.waiting.pop_front() else { break };
            let (sender, authorities) = (self.senders[done], &self.senders[authorities]);
            done += 1 + authorities.len();
            each(slab, waiting.into_submit(sender, authorities));
        }
        self.items.drain(..done);
        self.senders.drain(..done);
        (end - start) as u64
    }
}

/// A transaction that goes no further: what is counted, and what is answered.
#[derive(Debug)]
pub struct Refused {
    pub reason: IngressReason,
    pub error: RpcError,
}

/// A limit of the shard: whatever else is refused names its reason.
impl From<RpcError> for Refused {
    fn from(error: RpcError) -> Self {
        Self { reason: IngressReason::Busy, error }
    }
}

impl Waiting {
    fn into_submit(
        self,
        sender: Result<Address, RecoverError>,
        authorities: &[Result<Address, RecoverError>],
    ) -> Result<Submit, (ReplyToken, TxHandle, RpcError)> {
        let Self { token, wait, prepared: Prepared { fields, handle }, hash, conditions } = self;
        let sender = match sender {
            Ok(sender) => sender,
            Err(error) => return Err((token, handle, tx_error(TxError::Signature(error)))),
        };
        let extras = (!authorities.is_empty() || conditions.is_some()).then(|| {
            let authorities = authorities.iter().map(|authority| authority.ok()).collect();
            Box::new(SubmitExtras { authorities, conditions })
        });
        Ok(Submit { token, hash, sender, fields, handle, extras, wait })
    }
}

fn hex_error(error: hex::HexError) -> Refused {
    let error = RpcError::invalid_params(format!("invalid argument 0 (raw transaction): {error}"));
    Refused { reason: IngressReason::Malformed, error }
}

fn undecodable(error: TxError) -> Refused {
    let reason = match error {
        // A signature that no recovery need look at: zero, too large, high s.
        TxError::Signature(_) => IngressReason::Signature,
        _ => IngressReason::Undecodable,
    };
    Refused { reason, error: tx_error(error) }
}

fn tx_error(error: TxError) -> RpcError {
    match error {
        TxError::ExecuteTx => {
            RpcError::server("ExecuteTx belongs to L1: eth_sendRawTransaction hands it over, where there is one")
        }
        error => RpcError::server(error.to_string()),
    }
}
