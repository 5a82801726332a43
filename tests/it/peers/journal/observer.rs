//! Somebody who watches over a WebSocket, and keeps what was announced.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use alloy_primitives::B256;
use serde_json::{Value, json};
use tungstenite::{Error, WebSocket};

use super::super::rpc::quantity;

/// What was announced, in no particular order.
#[derive(Default)]
pub struct Seen {
    /// Hash of each announced block.
    pub blocks: BTreeMap<u64, B256>,
    /// Announced as placed, in order.
    pub placed: Vec<B256>,
    /// Preconfirmed receipts, in order.
    pub receipts: Vec<Value>,
}

/// A connection with subscriptions.
pub struct Observer {
    socket: WebSocket<TcpStream>,
    /// Subscription id → kind.
    kinds: BTreeMap<String, &'static str>,
    pub seen: Seen,
}

const KINDS: [&str; 3] = ["newHeads", "newPendingTransactions", "sequencer_preconfirmations"];

impl Observer {
    /// Subscribes to everything that announces blocks and places; `None` when the node goes away meanwhile.
    pub fn connect(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a positive timeout is valid");
        let (socket, _) = tungstenite::client(format!("ws://127.0.0.1:{port}/"), stream).ok()?;
        let mut observer = Self { socket, kinds: BTreeMap::new(), seen: Seen::default() };
        for kind in KINDS {
            let call = json!({"jsonrpc": "2.0", "id": kind, "method": "eth_subscribe", "params": [kind]});
            observer.socket.send(call.to_string().into()).ok()?;
            while !observer.kinds.values().any(|known| *known == kind) {
                if !observer.read() {
                    return None;
                }
            }
        }
        Some(observer)
    }

    /// Whether anything was announced so far.
    pub fn heard(&self) -> bool {
        let Seen { blocks, placed, receipts } = &self.seen;
        !(blocks.is_empty() && placed.is_empty() && receipts.is_empty())
    }

    /// Takes what arrives within `limit` after the message before it; false when the connection has ended.
    pub fn listen(&mut self, limit: Duration) -> bool {
        self.socket.get_ref().set_read_timeout(Some(limit)).expect("a positive timeout is valid");
        self.read()
    }

    /// Takes one message, if one comes in time.
    fn read(&mut self) -> bool {
        match self.socket.read() {
            Ok(message) => {
                if let Ok(text) = message.into_text() {
                    self.take(&text);
                }
                true
            }
            Err(Error::Io(error)) => {
                matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
            }
            Err(_) => false,
        }
    }

    fn take(&mut self, text: &str) {
        let Ok(message) = serde_json::from_str::<Value>(text) else { return };
        if let Some(kind) = KINDS.into_iter().find(|kind| message["id"] == *kind) {
            let id = message["result"].as_str().unwrap_or_else(|| panic!("{kind}: {message}"));
            self.kinds.insert(id.to_owned(), kind);
            return;
        }
        let result = &message["params"]["result"];
        let id = message["params"]["subscription"].as_str().unwrap_or_default();
        match self.kinds.get(id) {
            Some(&"newHeads") => {
                self.seen.blocks.insert(quantity(&result["number"]), hash(&result["hash"]));
            }
            Some(&"newPendingTransactions") => self.seen.placed.push(hash(result)),
            Some(_) => self.seen.receipts.extend(result.as_array().expect("a list of receipts").iter().cloned()),
            // A notification may come before the reply that names its subscription is read.
            None => {}
        }
    }
}

/// Reads a hash.
#[track_caller]
pub fn hash(value: &Value) -> B256 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("not a hash: {value}"))
}
