//! Transactions of a shard: hex in, decoded and hashed at once, recovered together turn by turn, submissions out.
//!
//! Owner core: ingress shard. Every connection's transactions of a turn gather here, so that recovery sees them as one slice.
//! In the steady state nothing is allocated: bytes lie in the slab, everything else in vectors that keep their capacity.

use std::collections::VecDeque;

use crate::codec::hex;
use crate::codec::transaction::{self, TxError};
use crate::crypto::recovery::{RecoverError, RecoverItem, recover_batch};
use crate::limits::{TX_BYTES_MAX, TX_GAS_MAX};
use crate::mempool::{Conditions, Reject};
use crate::messages::{Submit, SubmitExtras, SubmitWait};
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

/// A transaction that decodes, on its way to recovery.
pub struct Prepared {
    pub hash: B256,
    pub fields: TxFields,
    pub handle: TxHandle,
}

struct Waiting {
    token: ReplyToken,
    wait: SubmitWait,
    prepared: Prepared,
    conditions: Option<Conditions>,
}

/// What a turn has gathered.
pub struct Intake {
    chain_id: u64,
    waiting: VecDeque<Waiting>,
    /// Signatures of `waiting`, in order: of each transaction its own, then those of its authorizations.
    items: Vec<RecoverItem>,
    /// Of the first items: what was recovered in earlier turns.
    senders: Vec<Result<Address, RecoverError>>,
    payload: Vec<u8>,
}

impl Intake {
    #[must_use]
    pub fn new(chain_id: u64) -> Self {
        Self {
            chain_id,
            waiting: VecDeque::with_capacity(2 * TURN_ITEMS_MAX),
            items: Vec::with_capacity(2 * TURN_ITEMS_MAX),
            senders: Vec::with_capacity(2 * TURN_ITEMS_MAX),
            payload: Vec::with_capacity(TX_BYTES_MAX),
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

    /// Whether the next turn has enough to recover.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.items.len() >= TURN_ITEMS_MAX
    }

    /// Decodes a transaction into the slab and queues its signatures for recovery. The caller then calls [`Intake::push`].
    ///
    /// Runs on: ingress shard; never blocks, never allocates in the steady state.
    /// Errors:  -32602 for hex, -32000 for what the decoder or the chain id refuses, -32005 when the slab or what waits is at its limit.
    pub fn prepare(&mut self, hex_text: &[u8], slab: &mut Slab) -> Result<Prepared, RpcError> {
        let bytes = hex_text.strip_prefix(b"0x").unwrap_or(hex_text).len() / 2;
        if bytes > TX_BYTES_MAX {
            return Err(tx_error(TxError::TooLong { bytes: bytes as u64, bytes_max: TX_BYTES_MAX as u32 }));
        }
        if bytes == 0 {
            // An odd digit is a mistake in the text, nothing at all one in the transaction.
            return Err(hex::decode_into(hex_text, &mut []).map_or_else(hex_error, |_| tx_error(TxError::Empty)));
        }
        let Some(mut chunk) = slab.alloc(bytes) else {
            return Err(RpcError::limit("memory for transactions is used up: try again"));
        };
        hex::decode_into(hex_text, &mut chunk).map_err(hex_error)?;
        self.decode(chunk)
    }

    fn decode(&mut self, chunk: Chunk<'_>) -> Result<Prepared, RpcError> {
        let raw: &[u8] = &chunk;
        let decoded = transaction::decode(raw).map_err(tx_error)?;
        let fields = decoded.fields;
        if let Some(tx) = fields.chain_id
            && tx != self.chain_id
        {
            return Err(RpcError::server(Reject::ChainIdWrong { tx, chain: self.chain_id }.to_string()));
        }
        let authorizations = u64::from(fields.authorization_count);
        if authorizations > AUTHORIZATIONS_MAX {
            let text = format!("too many authorizations: {authorizations}, limit {AUTHORIZATIONS_MAX}");
            return Err(RpcError::server(text));
        }
        // Below 2,000.
        let items = self.items.len() + 1 + authorizations as usize;
        if items > WAITING_ITEMS_MAX {
            let text = format!("too many signatures wait for recovery: {items}, limit {WAITING_ITEMS_MAX}");
            return Err(RpcError::limit(text));
        }
        let digest = transaction::signing_hash(raw, &decoded, &mut self.payload);
        self.items.push(decoded.recover_item(digest));
        if fields.authorization_count > 0 {
            for authorization in transaction::authorizations(raw, &fields) {
                let digest = authorization.signing_hash();
                let transaction::Authorization { r, s, y_parity, .. } = authorization;
                self.items.push(RecoverItem { digest, r, s, y_parity });
            }
        }
        let hash = transaction::tx_hash(raw);
        Ok(Prepared { hash, fields, handle: chunk.freeze() })
    }

    /// Queues what [`Intake::prepare`] returned last.
    pub fn push(&mut self, token: ReplyToken, wait: SubmitWait, prepared: Prepared, conditions: Option<Conditions>) {
        self.waiting.push_back(Waiting { token, wait, prepared, conditions });
    }

    /// Recovers at most `TURN_ITEMS_MAX` signatures in one call and hands each transaction that is complete, in order, to `each`; a bad
    /// signature comes with its chunk.
    pub fn recover(&mut self, mut each: impl FnMut(Result<Submit, (ReplyToken, TxHandle, RpcError)>)) {
        let start = self.senders.len();
        let end = self.items.len().min(start + TURN_ITEMS_MAX);
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
            each(waiting.into_submit(sender, authorities));
        }
        self.items.drain(..done);
        self.senders.drain(..done);
    }
}

impl Waiting {
    fn into_submit(
        self,
        sender: Result<Address, RecoverError>,
        authorities: &[Result<Address, RecoverError>],
    ) -> Result<Submit, (ReplyToken, TxHandle, RpcError)> {
        let Self { token, wait, prepared: Prepared { hash, fields, handle }, conditions } = self;
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

fn hex_error(error: hex::HexError) -> RpcError {
    RpcError::invalid_params(format!("invalid argument 0 (raw transaction): {error}"))
}

fn tx_error(error: TxError) -> RpcError {
    match error {
        TxError::ExecuteTx => RpcError::server("ExecuteTx needs an L1: this node runs with --l1 off"),
        error => RpcError::server(error.to_string()),
    }
}
