//! A block that the client built and our validator executed becomes our newest: records, pool, memory.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::{DelegatedCore, Waiter, any_account, append};
use crate::builder::assembly::{BlockParts, ExecutedTx, assemble};
use crate::builder::block::{BlockContext, next_base_fee_wei};
use crate::builder::core::{Effects, Now};
use crate::journal::record::{AdmittedTx, CloseReason, Record};
use crate::mempool::{AccountView, Deferral};
use crate::messages::{BuiltBlock, ChainMessage};
use crate::primitives::{Address, B256, Bytes, ReplyToken, Sequence, ShardId, U256};
use crate::state::{AccountInfo, CODE_HASH_EMPTY, StateChanges};

/// How the code of a delegated account begins (EIP-7702).
const DELEGATION_PREFIX: [u8; 3] = [0xef, 0x01, 0x00];

/// What is remembered of a transaction when it has its place.
struct Placed {
    sequence: Sequence,
    accepted_unix_ns: u64,
    waiter: Option<(ShardId, ReplyToken)>,
}

impl DelegatedCore {
    /// Writes the block's records, takes its transactions out of the pool and makes it the newest.
    pub(super) fn take_block(&mut self, built: BuiltBlock, now: Now, effects: &mut impl Effects) {
        assert_eq!(built.header.parent_hash, self.parent.hash, "one block is asked for at a time");
        let number = built.header.number;
        let names = self.name_transactions(&built, now, effects);
        let fork = (self.fork_at)(built.header.timestamp);
        let context = BlockContext::of_header(&built.header, fork);
        append(
            &mut self.sequence,
            &Record::Opened { context: Cow::Owned(context), opened_unix_ns: now.unix_ns },
            effects,
        );
        let mut places = Vec::with_capacity(names.len());
        // A body of 8 MiB holds far fewer than 2^32 transactions.
        for ((tx, name), index) in built.transactions.iter().zip(names).zip(0_u32..) {
            let record = Record::Placed { tx: name.name, index, preconfirmed_unix_ns: now.unix_ns };
            let sequence = append(&mut self.sequence, &record, effects);
            if name.is_pooled {
                self.place(&tx.hash, tx.tx.sender, tx.tx.decoded.fields.nonce, built.has_foreign, now);
            }
            places.push(Placed { sequence, accepted_unix_ns: name.accepted_unix_ns, waiter: name.waiter });
        }
        let tx_count = places.len() as u32;
        append(&mut self.sequence, &Record::Closed { number, tx_count, reason: CloseReason::Deadline }, effects);
        let record = Record::Sealed {
            number,
            hash: built.hash,
            state_root: built.header.state_root,
            receipts_root: built.header.receipts_root,
            sealed_unix_ns: now.unix_ns,
        };
        let sequence = append(&mut self.sequence, &record, effects);
        let views = changed_views(&built.changes, &built.codes);
        self.seal(built, places, sequence, now, effects);
        for (address, view) in &views {
            if let Some(view) = view {
                self.pool.account_changed(address, view, now.monotonic_ns, &mut self.removed);
            }
        }
        self.views.block_changed(views.into_iter());
        self.settle_removed(now, effects);
        self.pool.retry_deferred(Deferral::NextBlock, u32::MAX);
        effects.publish(self.heads());
    }

    /// The journal's names of the block's transactions; those that came to the client by its own ways get one.
    fn name_transactions(&mut self, built: &BuiltBlock, now: Now, effects: &mut impl Effects) -> Vec<Name> {
        let mut names = Vec::with_capacity(built.transactions.len());
        for tx in &built.transactions {
            names.push(match self.pool.get(&tx.hash) {
                Some(pooled) => {
                    let payload = &pooled.submission.payload;
                    Name {
                        name: payload.name,
                        accepted_unix_ns: payload.accepted_unix_ns,
                        waiter: payload.waiter.map(|token| (payload.shard, token)),
                        is_pooled: true,
                    }
                }
                None => {
                    let record = Record::Admitted(AdmittedTx {
                        sender: tx.tx.sender,
                        accepted_unix_ns: now.unix_ns,
                        authorities: Cow::Borrowed(&tx.tx.authorities),
                        conditions: None,
                        raw: &tx.tx.raw,
                    });
                    let name = append(&mut self.sequence, &record, effects);
                    Name { name, accepted_unix_ns: now.unix_ns, waiter: None, is_pooled: false }
                }
            });
        }
        names
    }

    /// Takes a pooled transaction out as placed. Where the block has others of its sender, the pool hears of the nonce first.
    fn place(&mut self, hash: &B256, sender: Address, nonce: u64, has_foreign: bool, now: Now) {
        if has_foreign {
            self.pool.account_changed(&sender, &any_account(nonce), now.monotonic_ns, &mut self.removed);
        }
        if let Some(pooled) = self.pool.get(hash) {
            let id = pooled.id;
            self.pool.placed(id, &mut self.removed);
        }
    }

    fn seal(
        &mut self,
        built: BuiltBlock,
        places: Vec<Placed>,
        sequence: Sequence,
        now: Now,
        effects: &mut impl Effects,
    ) {
        let BuiltBlock { header, hash, transactions, receipts, requests, .. } = built;
        let parts = BlockParts {
            fork: (self.fork_at)(header.timestamp),
            header,
            hash,
            requests,
            state: self.parent.state.clone(),
            sequence,
            sealed_unix_ns: now.unix_ns,
        };
        let executed = transactions.iter().zip(receipts).zip(&places).map(|((tx, receipt), placed)| ExecutedTx {
            raw: &tx.tx.raw,
            hash: tx.hash,
            sender: tx.tx.sender,
            success: receipt.success,
            gas_used: receipt.gas_used,
            cumulative_gas_used: receipt.cumulative_gas_used,
            logs: receipt.logs,
            sequence: placed.sequence,
            accepted_unix_ns: placed.accepted_unix_ns,
            preconfirmed_unix_ns: now.unix_ns,
        });
        let sealed = assemble(parts, executed, &self.memory).expect("every transaction was decoded to be executed");
        let sealed = Arc::new(sealed);
        for (placed, index) in places.iter().zip(0_u32..) {
            if let Some((shard, token)) = placed.waiter {
                self.waiters.push(Waiter { block: Arc::clone(&sealed), shard, token, index });
            }
        }
        self.settlement.sealed(sealed.header.number, sealed.sequence);
        self.parent = Arc::clone(&sealed);
        self.pool.set_base_fee(u128::from(next_base_fee_wei(&sealed.header)));
        // What the client's next block may have at least.
        self.pool.set_block_gas_limit(sealed.header.gas_limit - sealed.header.gas_limit / 1_024);
        effects.chain(ChainMessage::Sealed(Arc::clone(&sealed)));
        self.remember(sealed, effects);
    }
}

struct Name {
    name: Sequence,
    accepted_unix_ns: u64,
    waiter: Option<(ShardId, ReplyToken)>,
    is_pooled: bool,
}

/// Accounts that a block changed, as the pool sees them; `None` where only the client knows what code an account has.
fn changed_views(
    changes: &StateChanges,
    fetched: &[(B256, Bytes)],
) -> HashMap<Address, Option<AccountView>, RandomState> {
    let codes: HashMap<&B256, &Bytes, RandomState> =
        fetched.iter().chain(&changes.codes).map(|(hash, code)| (hash, code)).collect();
    let view = |account: Option<AccountInfo>| {
        let Some(account) = account else { return Some(AccountView { balance_wei: U256::ZERO, ..any_account(0) }) };
        let is_delegated = match account.code_hash == CODE_HASH_EMPTY {
            true => None,
            false => Some(codes.get(&account.code_hash)?.starts_with(&DELEGATION_PREFIX)),
        };
        Some(AccountView {
            balance_wei: account.balance_wei,
            nonce: account.nonce,
            has_code_not_delegation: is_delegated == Some(false),
            is_delegated: is_delegated == Some(true),
        })
    };
    changes.accounts.iter().map(|change| (change.address, view(change.account))).collect()
}
