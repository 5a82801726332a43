//! A WebSocket subscription, read by one thread: `eth_subscribe` → notifications.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::Endpoint;
use super::rpc::RpcError;
use crate::error::{Error, Result};

/// How long one read waits, so that the thread sees the end of the run in time.
const READ_WAIT_MS: u64 = 100;

/// How long the node has for the handshake and for the answer to `eth_subscribe`.
const SUBSCRIBE_WAIT_MS: u64 = 5_000;

#[derive(Debug)]
pub struct Subscription {
    socket: WebSocket<TcpStream>,
    url: String,
}

/// What the node answered to `eth_subscribe`.
#[derive(Debug)]
pub enum Subscribed {
    Yes(Box<Subscription>),
    No(RpcError),
}

#[derive(Deserialize)]
struct Notification<'a> {
    #[serde(borrow)]
    params: Option<NotificationParams<'a>>,
}

#[derive(Deserialize)]
struct NotificationParams<'a> {
    #[serde(borrow)]
    result: &'a RawValue,
}

impl Subscription {
    /// Opens a connection and subscribes on it to one topic.
    pub fn open(endpoint: &Endpoint, topic: &str) -> Result<Subscribed> {
        let broke = |reason: String| Error::Transport { url: endpoint.url.clone(), reason };
        let stream = endpoint.connect()?;
        stream.set_read_timeout(Some(Duration::from_millis(SUBSCRIBE_WAIT_MS))).map_err(|e| broke(e.to_string()))?;
        let (mut socket, _) = tungstenite::client(endpoint.url.as_str(), stream)
            .map_err(|error| broke(format!("no WebSocket there ({error}); name its address by --ws-url")))?;
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": [topic]});
        socket.send(Message::text(request.to_string())).map_err(|e| broke(e.to_string()))?;
        let answer = loop {
            match socket.read().map_err(|e| broke(format!("no answer to eth_subscribe: {e}")))? {
                Message::Text(text) => break text,
                _ => continue,
            }
        };
        let answer: Value = serde_json::from_str(&answer).map_err(|e| broke(e.to_string()))?;
        if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
            let error = RpcError::deserialize(error).map_err(|e| broke(e.to_string()))?;
            return Ok(Subscribed::No(error));
        }
        socket
            .get_mut()
            .set_read_timeout(Some(Duration::from_millis(READ_WAIT_MS)))
            .map_err(|e| broke(e.to_string()))?;
        Ok(Subscribed::Yes(Box::new(Self { socket, url: endpoint.url.clone() })))
    }

    /// The next message, or `None` when there was none for a while.
    pub fn next(&mut self) -> Result<Option<String>> {
        match self.socket.read() {
            Ok(Message::Text(text)) => Ok(Some(text.as_str().to_owned())),
            Ok(_) => Ok(None),
            Err(tungstenite::Error::Io(error))
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) =>
            {
                Ok(None)
            }
            Err(error) => Err(Error::Transport { url: self.url.clone(), reason: error.to_string() }),
        }
    }
}

/// The `params.result` of a notification; `None` for any other message.
pub fn notification_result(message: &str) -> Option<&str> {
    let notification: Notification<'_> = serde_json::from_str(message).ok()?;
    notification.params.map(|params| params.result.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications() {
        let text =
            r#"{"jsonrpc":"2.0","method":"eth_subscription","params":{"subscription":"0x1","result":[{"a":1}]}}"#;
        assert_eq!(notification_result(text), Some(r#"[{"a":1}]"#));
        assert_eq!(notification_result(r#"{"jsonrpc":"2.0","id":1,"result":"0x1"}"#), None);
        assert_eq!(notification_result("[]"), None);
    }
}
