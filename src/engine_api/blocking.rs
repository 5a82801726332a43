//! One question after the other, for threads that may wait: the main thread at a start, and query threads that pass reads on.

use std::time::Duration;

use serde_json::Value;

use crate::config::execution::{Endpoint, ExecutionConfig};
use crate::engine_api::archive::{self, ArchiveFault, Needs};
use crate::engine_api::jwt::Secret;
use crate::engine_api::transport::{JsonTransport, Prepared, Transport};
use crate::engine_api::types::{CallError, Method, Reply};
use crate::runtime::clock;

/// What a client is made of, on whichever thread.
#[derive(Clone, Debug)]
pub struct BlockingSettings {
    endpoint: Endpoint,
    secret: Option<Secret>,
    limit: Duration,
}

impl BlockingSettings {
    /// `secret`: where the port asks for a token; `limit`: the time of each question.
    #[must_use]
    pub fn new(endpoint: Endpoint, secret: Option<Secret>, limit: Duration) -> Self {
        Self { endpoint, secret, limit }
    }

    /// The authenticated port.
    #[must_use]
    pub fn engine(config: &ExecutionConfig, secret: Secret) -> Self {
        Self::new(config.engine.clone(), Some(secret), Duration::from_nanos(config.read.timeout_ns))
    }

    /// The plain JSON-RPC port where there is one, else the authenticated one.
    #[must_use]
    pub fn reads(config: &ExecutionConfig, secret: Secret) -> Self {
        match &config.rpc {
            Some(endpoint) => Self { endpoint: endpoint.clone(), secret: None, ..Self::engine(config, secret) },
            None => Self::engine(config, secret),
        }
    }

    /// The same with another time for each question.
    #[must_use]
    pub fn patient(self, limit_ns: u64) -> Self {
        Self { limit: Duration::from_nanos(limit_ns), ..self }
    }
}

/// A connection with a runtime of its own.
pub struct BlockingClient {
    runtime: tokio::runtime::Runtime,
    transport: JsonTransport,
    limit: Duration,
}

impl BlockingClient {
    /// Connects when it is first asked.
    ///
    /// # Errors
    /// The runtime cannot be started.
    pub fn new(settings: BlockingSettings) -> std::io::Result<Self> {
        Ok(Self {
            runtime: tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?,
            transport: JsonTransport::new(&settings.endpoint, settings.secret),
            limit: settings.limit,
        })
    }

    /// As [`BlockingClient::ask`], many questions in one request; the answers in their order.
    ///
    /// # Errors
    /// As [`CallError`] has them, when there is no answer to all of them.
    pub fn ask_batch(&mut self, calls: &[(Method, Vec<u8>)]) -> Result<Vec<Result<Value, CallError>>, CallError> {
        let Some((method, _)) = calls.first() else { return Ok(Vec::new()) };
        let Self { runtime, transport, limit } = self;
        let request = transport.call_batch(calls, clock::wall_unix_ns() / 1_000_000_000);
        let answer = runtime.block_on(async { tokio::time::timeout(*limit, request).await });
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        answer.unwrap_or(Err(CallError::TimedOut { method: method.name(), limit_ms }))
    }

    /// Whether the client keeps what is needed.
    ///
    /// # Errors
    /// See [`ArchiveFault`].
    pub fn check_archive(&mut self, needs: Needs) -> Result<(), ArchiveFault> {
        archive::check(needs, &mut |method, params| self.ask(method, params))
    }

    /// Asks and waits for the result, at most the settings' time. `params`: a JSON array.
    ///
    /// # Errors
    /// As [`CallError`] has them.
    pub fn ask(&mut self, method: Method, params: Vec<u8>) -> Result<Value, CallError> {
        let Self { runtime, transport, limit } = self;
        let request = transport.call(Prepared { method, params }, clock::wall_unix_ns() / 1_000_000_000);
        let answer = runtime.block_on(async { tokio::time::timeout(*limit, request).await });
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        match answer.unwrap_or(Err(CallError::TimedOut { method: method.name(), limit_ms }))? {
            Reply::Value(value) => Ok(value),
            other => Err(CallError::malformed(method, "an answer to another question", &format!("{other:?}"))),
        }
    }
}
