//! The transaction object and the overrides of `eth_call` and `eth_estimateGas`.

use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_eips::eip7702::{Authorization, SignedAuthorization};
use serde_json::Value;

use crate::codec::hex;
use crate::primitives::{Address, B256, Bytes, U256};
use crate::rpc::error::RpcError;
use crate::rpc::limits::OVERRIDE_SLOTS_MAX;
use crate::rpc::params::{Argument, Fields};

/// What is to be executed. Missing members are `None`; the executor fills them in.
#[derive(Clone, Debug, Default)]
pub struct CallRequest {
    pub from: Address,
    pub to: Option<Address>,
    pub gas: Option<u64>,
    pub gas_price_wei: Option<u128>,
    pub max_fee_per_gas_wei: Option<u128>,
    pub max_priority_fee_per_gas_wei: Option<u128>,
    pub value_wei: U256,
    pub nonce: Option<u64>,
    pub input: Bytes,
    pub access_list: Option<AccessList>,
    pub authorizations: Option<Vec<SignedAuthorization>>,
}

impl CallRequest {
    /// Reads the object and refuses what contradicts itself or this chain.
    pub fn parse(argument: &Argument<'_>, chain_id: u64) -> Result<Self, RpcError> {
        let fields = argument.object()?;
        for member in ["blobVersionedHashes", "blobs", "maxFeePerBlobGas", "commitments", "proofs"] {
            if fields.value(member).is_some() {
                return Err(fields.invalid(member, "blob transactions are not served"));
            }
        }
        let input = match (fields.data("input")?, fields.data("data")?) {
            (Some(input), Some(data)) if input != data => {
                return Err(fields.invalid("input", "both \"data\" and \"input\" are set and not equal"));
            }
            (input, data) => input.or(data).unwrap_or_default(),
        };
        if let Some(tx) = fields.u64("chainId")?
            && tx != chain_id
        {
            return Err(fields.invalid("chainId", format!("tx {tx}, chain {chain_id}")));
        }
        let request = Self {
            from: fields.address("from")?.unwrap_or_default(),
            to: fields.address("to")?,
            gas: fields.u64("gas")?,
            gas_price_wei: fields.u128("gasPrice")?,
            max_fee_per_gas_wei: fields.u128("maxFeePerGas")?,
            max_priority_fee_per_gas_wei: fields.u128("maxPriorityFeePerGas")?,
            value_wei: fields.u256("value")?.unwrap_or_default(),
            nonce: fields.u64("nonce")?,
            input,
            access_list: access_list(&fields)?,
            authorizations: authorizations(&fields)?,
        };
        request.check_fees(&fields)?;
        if request.to.is_none() && request.authorizations.is_some() {
            return Err(fields.invalid("to", "a set code transaction must not be a creation"));
        }
        Ok(request)
    }

    fn check_fees(&self, fields: &Fields) -> Result<(), RpcError> {
        let dynamic = self.max_fee_per_gas_wei.is_some() || self.max_priority_fee_per_gas_wei.is_some();
        if self.gas_price_wei.is_some() && dynamic {
            return Err(
                fields.invalid("gasPrice", "both gasPrice and (maxFeePerGas or maxPriorityFeePerGas) specified")
            );
        }
        if let (Some(cap), Some(tip)) = (self.max_fee_per_gas_wei, self.max_priority_fee_per_gas_wei)
            && tip > cap
        {
            return Err(fields.invalid("maxFeePerGas", format!("maxFeePerGas ({cap}) < maxPriorityFeePerGas ({tip})")));
        }
        Ok(())
    }
}

fn access_list(fields: &Fields) -> Result<Option<AccessList>, RpcError> {
    let Some(items) = fields.array("accessList")? else { return Ok(None) };
    let mut list = Vec::with_capacity(items.len());
    for item in items {
        let item = fields.nested("accessList", item)?;
        let address = item.address("address")?.ok_or_else(|| item.invalid("address", "missing"))?;
        let mut storage_keys = Vec::new();
        for key in item.array("storageKeys")?.unwrap_or_default() {
            storage_keys.push(hash(&item, "storageKeys", key)?);
        }
        list.push(AccessListItem { address, storage_keys });
    }
    Ok(Some(AccessList(list)))
}

fn hash(fields: &Fields, member: &str, value: &Value) -> Result<B256, RpcError> {
    let text = value.as_str().ok_or_else(|| fields.invalid(member, "not a string"))?;
    hex::parse_fixed::<32>(text).map(B256::from).map_err(|error| fields.invalid(member, error))
}

fn authorizations(fields: &Fields) -> Result<Option<Vec<SignedAuthorization>>, RpcError> {
    let Some(items) = fields.array("authorizationList")? else { return Ok(None) };
    let mut list = Vec::with_capacity(items.len());
    for item in items {
        let item = fields.nested("authorizationList", item)?;
        let authorization = Authorization {
            chain_id: item.u256("chainId")?.unwrap_or_default(),
            address: item.address("address")?.ok_or_else(|| item.invalid("address", "missing"))?,
            nonce: item.u64("nonce")?.unwrap_or_default(),
        };
        let y_parity = match item.u64("yParity")? {
            Some(parity) => parity,
            None => item.u64("v")?.unwrap_or_default(),
        };
        let y_parity = u8::try_from(y_parity).map_err(|_| item.invalid("yParity", "more than 255"))?;
        let r = item.u256("r")?.unwrap_or_default();
        let s = item.u256("s")?.unwrap_or_default();
        list.push(SignedAuthorization::new_unchecked(authorization, y_parity, r, s));
    }
    Ok(Some(list))
}

/// What a caller pretends about one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountOverride {
    pub address: Address,
    pub balance_wei: Option<U256>,
    pub nonce: Option<u64>,
    pub code: Option<Bytes>,
    pub storage: StorageOverride,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StorageOverride {
    #[default]
    None,
    /// `state`: these slots, all others zero.
    Full(Vec<(U256, U256)>),
    /// `stateDiff`: these slots, all others as they are.
    Diff(Vec<(U256, U256)>),
}

/// The accounts of a state override set.
pub fn parse_state_overrides(argument: &Argument<'_>) -> Result<Vec<AccountOverride>, RpcError> {
    let accounts = argument.object()?;
    let mut overrides = Vec::with_capacity(accounts.map.len());
    let mut slot_count = accounts.map.len();
    for (key, value) in &accounts.map {
        let address = hex::parse_fixed::<20>(key).map(Address::from).map_err(|error| accounts.invalid(key, error))?;
        let fields = accounts.nested(key, value)?;
        if fields.value("movePrecompileToAddress").is_some() {
            return Err(fields.invalid("movePrecompileToAddress", "not served"));
        }
        let storage = match (fields.slots("state")?, fields.slots("stateDiff")?) {
            (Some(_), Some(_)) => return Err(fields.invalid("state", "both state and stateDiff are set")),
            (Some(slots), None) => StorageOverride::Full(slots),
            (None, Some(slots)) => StorageOverride::Diff(slots),
            (None, None) => StorageOverride::None,
        };
        slot_count += match &storage {
            StorageOverride::None => 0,
            StorageOverride::Full(slots) | StorageOverride::Diff(slots) => slots.len(),
        };
        if slot_count > OVERRIDE_SLOTS_MAX {
            return Err(RpcError::limit(format!(
                "too many overrides: at most {OVERRIDE_SLOTS_MAX} accounts and slots"
            )));
        }
        overrides.push(AccountOverride {
            address,
            balance_wei: fields.u256("balance")?,
            nonce: fields.u64("nonce")?,
            code: fields.data("code")?,
            storage,
        });
    }
    Ok(overrides)
}

/// What a caller pretends about the block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockOverrides {
    pub number: Option<u64>,
    pub timestamp: Option<u64>,
    pub gas_limit: Option<u64>,
    pub coinbase: Option<Address>,
    pub prev_randao: Option<B256>,
    pub base_fee_wei: Option<u64>,
}

/// The members of a block override set.
pub fn parse_block_overrides(argument: &Argument<'_>) -> Result<BlockOverrides, RpcError> {
    let fields = argument.object()?;
    for member in ["beaconRoot", "withdrawals", "blobBaseFee"] {
        if fields.value(member).is_some() {
            return Err(fields.invalid(member, "not served"));
        }
    }
    Ok(BlockOverrides {
        number: fields.u64("number")?,
        timestamp: fields.u64("time")?,
        gas_limit: fields.u64("gasLimit")?,
        coinbase: fields.address("feeRecipient")?,
        prev_randao: fields.hash("prevRandao")?,
        base_fee_wei: fields.u64("baseFeePerGas")?,
    })
}
