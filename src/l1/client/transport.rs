//! What carries the client's calls: answers of one endpoint, and the clock that paces them.

use std::future::Future;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::l1::client::error::EndpointError;

/// One endpoint: [`super::wire::Wire`], or a simulated one.
pub trait Transport {
    /// Where it asks, as errors and logs show it.
    fn name(&self) -> String;

    /// A clock that goes on.
    fn now_ns(&self) -> u64;

    /// Ends when the clock has gone on by so much.
    fn pause(&self, ns: u64) -> impl Future<Output = ()>;

    /// Calls a method with parameters in JSON (`[…]`). May be dropped at any time.
    ///
    /// # Errors
    /// All of [`EndpointError`] but `Lied`.
    fn call(
        &mut self,
        method: &str,
        params: &str,
        limit: Duration,
    ) -> impl Future<Output = Result<Box<RawValue>, EndpointError>>;
}
