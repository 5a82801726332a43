//! Transactions of one turn: hex in, decoded and hashed at once, recovered together, submissions out.
//!
//! Owner core: ingress shard. Every connection's transactions of a turn gather here, so that recovery sees them as one slice.
//! In the steady state nothing is allocated: bytes lie in the slab, everything else in vectors that keep their capacity.

use crate::codec::hex;
use crate::codec::transaction::{self, TxError};
use crate::crypto::recovery::{RecoverError, RecoverItem, recover_batch};
use crate::limits::TX_BYTES_MAX;
use crate::mempool::{Conditions, Reject};
use crate::messages::{Submit, SubmitExtras, SubmitWait};
use crate::primitives::{Address, B256, ReplyToken, TxFields};
use crate::rpc::RpcError;
use crate::runtime::slab::{Chunk, Slab, TxHandle};

/// Transactions after which a turn takes no further input: about 25 ms of recovery. A batch is taken whole, so a turn may hold twice it.
pub const TURN_TXS_MAX: usize = 1_000;

/// A transaction that decodes, on its way to recovery.
pub struct Prepared {
    pub hash: B256,
    pub fields: TxFields,
    pub handle: TxHandle,
    first_item: usize,
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
    waiting: Vec<Waiting>,
    items: Vec<RecoverItem>,
    senders: Vec<Result<Address, RecoverError>>,
    payload: Vec<u8>,
}

impl Intake {
    #[must_use]
    pub fn new(chain_id: u64) -> Self {
        Self {
            chain_id,
            waiting: Vec::with_capacity(2 * TURN_TXS_MAX),
            items: Vec::with_capacity(2 * TURN_TXS_MAX),
            senders: Vec::with_capacity(2 * TURN_TXS_MAX),
            payload: Vec::with_capacity(TX_BYTES_MAX),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    #[must_use]
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= TURN_TXS_MAX
    }

    /// Decodes a transaction into the slab and queues its signatures for recovery. The caller then calls [`Intake::push`].
    ///
    /// Runs on: ingress shard; never blocks, never allocates in the steady state.
    /// Errors:  -32602 for hex, -32000 for what the decoder or the chain id refuses, -32005 when the slab is at its limit.
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
        let first_item = self.items.len();
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
        Ok(Prepared { hash, fields, handle: chunk.freeze(), first_item })
    }

    /// Queues what [`Intake::prepare`] returned last.
    pub fn push(&mut self, token: ReplyToken, wait: SubmitWait, prepared: Prepared, conditions: Option<Conditions>) {
        self.waiting.push(Waiting { token, wait, prepared, conditions });
    }

    /// Recovers everything queued in one call and hands each transaction, in order, to `each`; a bad signature comes with its chunk.
    pub fn recover(&mut self, mut each: impl FnMut(Result<Submit, (ReplyToken, TxHandle, RpcError)>)) {
        self.senders.clear();
        self.senders.resize(self.items.len(), Err(RecoverError::SZero));
        recover_batch(&self.items, &mut self.senders);
        self.items.clear();
        for Waiting { token, wait, prepared, conditions } in self.waiting.drain(..) {
            let Prepared { hash, fields, handle, first_item } = prepared;
            let sender = match self.senders[first_item] {
                Ok(sender) => sender,
                Err(error) => {
                    each(Err((token, handle, tx_error(TxError::Signature(error)))));
                    continue;
                }
            };
            let authority_items = first_item + 1..first_item + 1 + fields.authorization_count as usize;
            let extras = (fields.authorization_count > 0 || conditions.is_some()).then(|| {
                let authorities = self.senders[authority_items].iter().map(|authority| authority.ok()).collect();
                Box::new(SubmitExtras { authorities, conditions })
            });
            each(Ok(Submit { token, hash, sender, fields, handle, extras, wait }));
        }
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
