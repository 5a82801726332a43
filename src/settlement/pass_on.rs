//! What users ask of L1 through us: ExecuteTx that they send, and questions about those.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Sender as SyncSender;
use serde_json::value::RawValue;
use tokio::sync::mpsc::{Receiver, Sender};

use crate::l1::client::L1Client;
use crate::l1::client::error::{ClientError, EndpointError};

/// A call for L1 and where its answer goes.
pub struct PassedOn {
    pub method: &'static str,
    pub params: Box<RawValue>,
    pub answer: SyncSender<Result<Box<RawValue>, PassOnError>>,
}

/// Why L1 gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PassOnError {
    /// L1's own error.
    #[error("{message}")]
    Refused { code: i64, message: String },
    #[error("L1 does not answer: {0}")]
    Away(String),
    #[error("there is no L1")]
    Off,
}

/// The query pool's way to L1.
#[derive(Clone, Default)]
pub struct L1Door {
    calls: Option<Arc<Sender<PassedOn>>>,
}

impl L1Door {
    #[must_use]
    pub fn new(calls: Sender<PassedOn>) -> Self {
        Self { calls: Some(Arc::new(calls)) }
    }

    #[must_use]
    pub fn is_open(&self) -> bool {
        self.calls.is_some()
    }

    /// Asks L1 and waits.
    ///
    /// Runs on: query thread; blocks for at most `limit`: what hangs must not take the pool.
    ///
    /// # Errors
    /// L1's own error; that it does not answer; that there is none.
    pub fn ask(
        &self,
        method: &'static str,
        params: Box<RawValue>,
        limit: Duration,
    ) -> Result<Box<RawValue>, PassOnError> {
        let calls = self.calls.as_ref().ok_or(PassOnError::Off)?;
        let (answer, answered) = crossbeam::channel::bounded(1);
        let full = |_| PassOnError::Away("too many calls wait for it".to_owned());
        calls.try_send(PassedOn { method, params, answer }).map_err(full)?;
        let late = |_| Err(PassOnError::Away(format!("no answer within {} ms", limit.as_millis())));
        answered.recv_timeout(limit).unwrap_or_else(late)
    }
}

/// Passes calls on, one after the other, until nobody asks any more.
pub async fn run(mut client: L1Client, mut calls: Receiver<PassedOn>) {
    while let Some(PassedOn { method, params, answer }) = calls.recv().await {
        let outcome = client.request(method, &params).await.map_err(|error| match error {
            ClientError::Refused(refused) => match *refused {
                EndpointError::Rpc { code, message, .. } => PassOnError::Refused { code, message },
                other => PassOnError::Away(other.to_string()),
            },
            other => PassOnError::Away(other.to_string()),
        });
        // Who asked may be gone.
        let _ = answer.try_send(outcome);
    }
}
