//! `eth_call`, `eth_estimateGas` and `eth_createAccessList`: parameters in, the environment and state they name, the executor, the result.

use crate::builder::block::BlockContext;
use crate::rpc::access_list;
use crate::rpc::call::{self, CallEnvironment};
use crate::rpc::call_request::{
    AccountOverride, BlockOverrides, CallRequest, parse_block_overrides, parse_state_overrides,
};
use crate::rpc::call_state::CallState;
use crate::rpc::encode;
use crate::rpc::error::RpcError;
use crate::rpc::json::{self, Object};
use crate::rpc::params::{BlockId, Params};
use crate::rpc::query::{KeptState, QueryCache, QueryContext};
use crate::rpc::view::StateAt;

struct Arguments {
    request: CallRequest,
    block: BlockId,
    state_overrides: Vec<AccountOverride>,
    block_overrides: BlockOverrides,
}

impl Arguments {
    fn parse(
        context: &QueryContext<'_>,
        params: &[u8],
        arguments_max: usize,
        block_default: BlockId,
    ) -> Result<Self, RpcError> {
        let arguments = Params::parse(params, arguments_max)?;
        let state_overrides = arguments.optional(2, "state overrides").map(|argument| parse_state_overrides(&argument));
        let block_overrides = arguments.optional(3, "block overrides").map(|argument| parse_block_overrides(&argument));
        Ok(Self {
            request: CallRequest::parse(&arguments.required(0, "transaction")?, context.view.settings.chain_id)?,
            block: arguments.optional(1, "block").map_or(Ok(block_default), |argument| argument.block())?,
            state_overrides: state_overrides.transpose()?.unwrap_or_default(),
            block_overrides: block_overrides.transpose()?.unwrap_or_default(),
        })
    }
}

/// Runs `execute` on the state and in the block that the arguments name.
fn with_state<T>(
    context: &QueryContext<'_>,
    cache: &mut QueryCache,
    arguments: Arguments,
    execute: impl FnOnce(&CallRequest, &mut CallState<'_>, &CallEnvironment<'_>) -> Result<T, RpcError>,
) -> Result<T, RpcError> {
    let kept = context.state_at(arguments.block)?;
    let snapshot = kept.snapshot(&context.view);
    let made_up: BlockContext;
    let (block_context, pending) = match &kept {
        KeptState::Older(header, _) => {
            made_up = BlockContext::of_header(header, (context.fork_at)(header.timestamp));
            (&made_up, None)
        }
        KeptState::Recent(StateAt::Sealed(sealed)) => (&sealed.block.context, None),
        KeptState::Recent(StateAt::Pending) => match context.view.pending() {
            Some(prefix) => {
                cache.pending.advance(prefix);
                (&prefix.block.context, Some(&cache.pending))
            }
            None => {
                made_up = context.next_context();
                (&made_up, None)
            }
        },
    };
    let mut state = CallState::new(snapshot, pending, arguments.state_overrides, context);
    let environment = CallEnvironment::new(
        block_context,
        arguments.block_overrides,
        context.view.settings.chain_id,
        context.bounds,
        context.now_ns,
    );
    execute(&arguments.request, &mut state, &environment)
}

/// `eth_call`: the return data.
pub fn call(
    context: &QueryContext<'_>,
    cache: &mut QueryCache,
    params: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), RpcError> {
    let arguments = Arguments::parse(context, params, 4, BlockId::Latest)?;
    let output = with_state(context, cache, arguments, call::call)?;
    json::data(&output, out);
    Ok(())
}

/// `eth_estimateGas`: on `pending` unless a block is given, so that it counts what the sender has in flight.
pub fn estimate_gas(
    context: &QueryContext<'_>,
    cache: &mut QueryCache,
    params: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), RpcError> {
    let arguments = Arguments::parse(context, params, 4, BlockId::Pending)?;
    let gas = with_state(context, cache, arguments, call::estimate_gas)?;
    json::quantity(gas, out);
    Ok(())
}

/// `eth_createAccessList`: the list, the gas with it, and why the execution failed where it did.
pub fn create_access_list(
    context: &QueryContext<'_>,
    cache: &mut QueryCache,
    params: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), RpcError> {
    let arguments = Arguments::parse(context, params, 3, BlockId::Latest)?;
    let tip_wei = context.view.priority_fee_wei();
    let found = with_state(context, cache, arguments, |request, state, environment| {
        access_list::create(request, tip_wei, state, environment)
    })?;
    let mut object = Object::begin(out);
    encode::access_list(&found.access_list, object.member("accessList"));
    if let Some(why) = &found.failure {
        object.text("error", why);
    }
    object.quantity("gasUsed", found.gas_used);
    object.end();
    Ok(())
}
