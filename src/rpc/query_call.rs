//! `eth_call` and `eth_estimateGas`: parameters in, the environment and state they name, the executor, the result.

use crate::builder::block::BlockContext;
use crate::rpc::call::{self, CallEnvironment};
use crate::rpc::call_request::{
    AccountOverride, BlockOverrides, CallRequest, parse_block_overrides, parse_state_overrides,
};
use crate::rpc::call_state::CallState;
use crate::rpc::error::RpcError;
use crate::rpc::json;
use crate::rpc::params::{BlockId, Params};
use crate::rpc::query::{QueryCache, QueryContext};
use crate::rpc::view::StateAt;

struct Arguments {
    request: CallRequest,
    block: BlockId,
    state_overrides: Vec<AccountOverride>,
    block_overrides: BlockOverrides,
}

impl Arguments {
    fn parse(context: &QueryContext<'_>, params: &[u8], block_default: BlockId) -> Result<Self, RpcError> {
        let arguments = Params::parse(params, 4)?;
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
    let state_at = context.view.state_at(arguments.block)?;
    let snapshot = state_at.snapshot(&context.view);
    let made_up: BlockContext;
    let (block_context, pending) = match &state_at {
        StateAt::Sealed(sealed) => (&sealed.block.context, None),
        StateAt::Pending => match context.view.pending() {
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
    let arguments = Arguments::parse(context, params, BlockId::Latest)?;
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
    let arguments = Arguments::parse(context, params, BlockId::Pending)?;
    let gas = with_state(context, cache, arguments, call::estimate_gas)?;
    json::quantity(gas, out);
    Ok(())
}
