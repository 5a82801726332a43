//! L1 and the way to it: the development L1's pure core, and endpoints that are away, slow, wrong or lying, on a clock of the simulation's own.
//!
//! [`Wire`] is what the real client calls in the place of HTTP. Futures are polled by hand: nothing here sleeps.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::dev_l1::node::Node;
use crate::dev_l1::rpc::{Caller, answer};
use crate::l1::client::error::EndpointError;
use crate::l1::client::transport::Transport;

/// How an endpoint behaves, beside the lies that the node tells for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mood {
    pub is_away: bool,
    /// HTTP status instead of answers.
    pub status: Option<u16>,
    pub latency_ns: u64,
}

/// The L1 and its clock.
pub struct Net {
    pub node: Node,
    pub now_ns: u64,
    pub moods: [Mood; 2],
    pub call_count: u64,
    /// Calls of each endpoint that its mood has changed.
    pub moody_count: [u64; 2],
}

/// A handle.
pub type SharedNet = Rc<RefCell<Net>>;

/// One endpoint as the client calls it.
pub struct Wire {
    pub net: SharedNet,
    pub endpoint: usize,
}

/// Ends when the clock has come so far.
struct Pause {
    net: SharedNet,
    until_ns: u64,
}

impl Future for Pause {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.net.borrow().now_ns >= self.until_ns { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Wire {
    fn pause_until(&self, until_ns: u64) -> Pause {
        Pause { net: Rc::clone(&self.net), until_ns }
    }

    async fn ask(&self, method: &str, params: &str, limit: Duration) -> Result<Box<RawValue>, EndpointError> {
        let (endpoint, method) = (self.name(), method.to_owned());
        let limit_ns = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let (now_ns, mood) = {
            let mut net = self.net.borrow_mut();
            net.call_count += 1;
            (net.now_ns, net.moods[self.endpoint])
        };
        if mood.latency_ns > 0 {
            self.net.borrow_mut().moody_count[self.endpoint] += 1;
            self.pause_until(now_ns + mood.latency_ns.min(limit_ns)).await;
        }
        if mood.latency_ns > limit_ns {
            return Err(EndpointError::TimedOut { endpoint, method, limit_ms: limit_ns / 1_000_000 });
        }
        let mut net = self.net.borrow_mut();
        let mood = net.moods[self.endpoint];
        net.moody_count[self.endpoint] += u64::from(mood.is_away || mood.status.is_some());
        if mood.is_away {
            return Err(EndpointError::Unreachable { endpoint, what: "connection refused".to_owned() });
        }
        if let Some(status) = mood.status {
            return Err(EndpointError::Http { endpoint, status, body: "not now".to_owned() });
        }
        let params: Value = serde_json::from_str(params).expect("the client writes JSON");
        let caller = Caller { endpoint: self.endpoint, is_authorized: false, now_ms: net.now_ns / 1_000_000 };
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let mut answer = answer(&mut net.node, caller, &request).expect("it has an id");
        if let Some(error) = answer.get("error") {
            let code = error["code"].as_i64().unwrap_or_default();
            let message = error["message"].as_str().unwrap_or_default().to_owned();
            return Err(EndpointError::Rpc { endpoint, method, code, message, data: None });
        }
        Ok(to_raw_value(&answer["result"].take()).expect("a value is JSON"))
    }
}

impl Transport for Wire {
    fn name(&self) -> String {
        format!("sim://{}", self.endpoint)
    }

    fn now_ns(&self) -> u64 {
        self.net.borrow().now_ns
    }

    fn pause(&self, ns: u64) -> impl Future<Output = ()> {
        self.pause_until(self.now_ns().saturating_add(ns))
    }

    fn call(
        &mut self,
        method: &str,
        params: &str,
        limit: Duration,
    ) -> impl Future<Output = Result<Box<RawValue>, EndpointError>> {
        self.ask(method, params, limit)
    }
}
