//! A transaction of the L1: types 0, 1, 2, 4 and 5 under one roof.

use alloy_primitives::TxKind;
use revm::context::TxEnv;
use revm::context_interface::transaction::TransactionType;

use super::config::L1Fork;
use crate::builder::block_execution::{PrepareError, PreparedTx};
use crate::builder::execution::tx_env;
use crate::codec::transaction::intrinsic_gas;
use crate::crypto::keccak::keccak256;
use crate::crypto::recovery::RecoverError;
use crate::l1::execute_tx::{EXECUTE_TX_TYPE, ExecuteTx, ExecuteTxError};
use crate::l1::profile::Profile;
use crate::primitives::{Address, B256, Bytes, Fork, TxType, U256};

/// Gas of a transaction without data.
const TX_GAS: u64 = 21_000;

/// What the sender signed.
#[derive(Clone, Debug)]
pub enum Body {
    Ordinary(Box<PreparedTx>),
    Execute(Box<ExecuteTx>),
}

/// A signed transaction with everything that follows from its bytes.
#[derive(Clone, Debug)]
pub struct L1Tx {
    pub raw: Bytes,
    pub hash: B256,
    pub sender: Address,
    pub body: Body,
}

/// Why bytes are no transaction of this L1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error(transparent)]
    Ordinary(#[from] PrepareError),
    #[error("execute tx: {0}")]
    Execute(#[from] ExecuteTxError),
    #[error("invalid sender: {0}")]
    Sender(#[from] RecoverError),
    #[error("transaction type not supported: type {tx_type} under the rules {fork:?}")]
    Type { tx_type: u8, fork: L1Fork },
}

impl L1Tx {
    /// Decodes a transaction and recovers who signed it. An ExecuteTx is decoded strictly: bytes that the L1 node would take and
    /// encode again as other bytes are refused here.
    ///
    /// # Errors
    /// Bytes that are no transaction of these rules.
    pub fn recover(raw: Bytes, fork: L1Fork) -> Result<Self, DecodeError> {
        let hash = keccak256(&raw);
        if raw.first() == Some(&EXECUTE_TX_TYPE) {
            let tx = ExecuteTx::decode(&raw, Profile::ExecuteTxV2)?;
            let sender = tx.sender()?;
            return Ok(Self { raw, hash, sender, body: Body::Execute(Box::new(tx)) });
        }
        let tx = PreparedTx::recover(raw.clone())?;
        if tx.decoded.fields.tx_type == TxType::SetCode && !fork.is_prague() {
            return Err(DecodeError::Type { tx_type: TxType::SetCode as u8, fork });
        }
        Ok(Self { raw, hash, sender: tx.sender, body: Body::Ordinary(Box::new(tx)) })
    }

    #[must_use]
    pub fn tx_type(&self) -> u8 {
        match &self.body {
            Body::Ordinary(tx) => tx.decoded.fields.tx_type as u8,
            Body::Execute(_) => EXECUTE_TX_TYPE,
        }
    }

    /// The ExecuteTx, if it is one.
    #[must_use]
    pub fn execute(&self) -> Option<&ExecuteTx> {
        match &self.body {
            Body::Ordinary(_) => None,
            Body::Execute(tx) => Some(tx),
        }
    }

    /// `None`: a legacy transaction without replay protection.
    #[must_use]
    pub fn chain_id(&self) -> Option<U256> {
        match &self.body {
            Body::Ordinary(tx) => tx.decoded.fields.chain_id.map(U256::from),
            Body::Execute(tx) => Some(tx.terms.chain_id),
        }
    }

    #[must_use]
    pub fn nonce(&self) -> u64 {
        match &self.body {
            Body::Ordinary(tx) => tx.decoded.fields.nonce,
            Body::Execute(tx) => tx.terms.nonce,
        }
    }

    #[must_use]
    pub fn gas(&self) -> u64 {
        match &self.body {
            Body::Ordinary(tx) => tx.decoded.fields.gas_limit,
            Body::Execute(tx) => tx.terms.gas,
        }
    }

    #[must_use]
    pub fn fee_cap_wei(&self) -> U256 {
        match &self.body {
            Body::Ordinary(tx) => U256::from(tx.decoded.fields.max_fee_per_gas_wei),
            Body::Execute(tx) => tx.terms.fee_cap_wei,
        }
    }

    #[must_use]
    pub fn tip_cap_wei(&self) -> U256 {
        match &self.body {
            Body::Ordinary(tx) => U256::from(tx.decoded.fields.max_priority_fee_per_gas_wei),
            Body::Execute(tx) => tx.terms.tip_cap_wei,
        }
    }

    #[must_use]
    pub fn value_wei(&self) -> U256 {
        match &self.body {
            Body::Ordinary(tx) => tx.decoded.fields.value_wei,
            Body::Execute(tx) => tx.payload.value,
        }
    }

    /// Whom L1 calls; `None` creates a contract.
    #[must_use]
    pub fn callee(&self) -> Option<Address> {
        match &self.body {
            Body::Ordinary(tx) => tx.decoded.fields.to,
            Body::Execute(tx) => Some(tx.callee()),
        }
    }

    /// What `input` is in the RPC: of an ExecuteTx its data only.
    #[must_use]
    pub fn input(&self) -> &[u8] {
        match &self.body {
            Body::Ordinary(tx) => tx.decoded.fields.input.of(&tx.raw),
            Body::Execute(tx) => &tx.payload.data,
        }
    }

    /// The most that the sender can be charged; the maximum when it does not fit.
    #[must_use]
    pub fn cost_max_wei(&self) -> U256 {
        self.fee_cap_wei().saturating_mul(U256::from(self.gas())).saturating_add(self.value_wei())
    }

    /// What a block producer earns for each gas; `None` when the fee cap is below the base fee.
    #[must_use]
    pub fn effective_tip_wei(&self, base_fee_wei: u64) -> Option<U256> {
        Some(self.fee_cap_wei().checked_sub(U256::from(base_fee_wei))?.min(self.tip_cap_wei()))
    }

    /// What each gas costs in a block of this base fee.
    #[must_use]
    pub fn effective_price_wei(&self, base_fee_wei: u64) -> U256 {
        self.tip_cap_wei().saturating_add(U256::from(base_fee_wei)).min(self.fee_cap_wei())
    }

    /// What the pool prices a transaction by, and the floor of EIP-7623: of an ExecuteTx its data only, though a block charges for
    /// the whole calldata. So it is in the L1 node, and so a transaction can wait in the pool for ever.
    #[must_use]
    pub fn pool_gas(&self) -> (u64, u64) {
        match &self.body {
            // The prices of Prague and Osaka are those of Cancun, but for the floor.
            Body::Ordinary(tx) => intrinsic_gas(&tx.decoded.fields, Fork::Prague),
            Body::Execute(tx) => {
                let zero_bytes = tx.payload.data.iter().filter(|&&byte| byte == 0).count() as u64;
                let tokens = zero_bytes + 4 * (tx.payload.data.len() as u64 - zero_bytes);
                (TX_GAS + 4 * tokens, TX_GAS + 10 * tokens)
            }
        }
    }

    /// What revm executes in a block of this base fee: an ExecuteTx is a call with its encoded calldata.
    #[must_use]
    pub fn tx_env(&self, base_fee_wei: u64) -> TxEnv {
        let tx = match &self.body {
            Body::Ordinary(tx) => return tx_env(&tx.executable()),
            Body::Execute(tx) => tx,
        };
        // The pool takes nothing whose price has more than 128 bits: 1 ETH is the most that a transaction may cost.
        let narrow = |wei: U256| u128::try_from(wei).unwrap_or(u128::MAX);
        TxEnv {
            tx_type: TransactionType::Eip1559 as u8,
            caller: self.sender,
            gas_limit: tx.terms.gas,
            gas_price: narrow(tx.terms.fee_cap_wei),
            gas_priority_fee: Some(narrow(tx.terms.tip_cap_wei)),
            kind: TxKind::Call(tx.callee()),
            value: tx.payload.value,
            data: tx.precompile_calldata(Some(base_fee_wei)),
            nonce: tx.terms.nonce,
            chain_id: Some(tx.terms.chain_id.as_limbs()[0]),
            ..TxEnv::default()
        }
    }
}
