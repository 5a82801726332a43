//! A plain HTTP connection on which a reply may come late, or not at all: the request stays open, and can be looked at again.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// One connection with at most one request under way.
pub struct Line {
    connection: TcpStream,
    received: Vec<u8>,
}

impl Line {
    pub fn connect(port: u16) -> Self {
        let connection = TcpStream::connect(("127.0.0.1", port)).expect("the node listens");
        connection.set_nodelay(true).expect("a TCP socket has the option");
        Self { connection, received: Vec::new() }
    }

    /// Sends a call and does not wait.
    pub fn send(&mut self, method: &str, params: Value) {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let head = format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.connection.write_all(&[head.as_bytes(), body.as_bytes()].concat()).expect("loopback takes a request");
    }

    /// Sends a GET and does not wait.
    pub fn get(&mut self, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.connection.write_all(request.as_bytes()).expect("loopback takes a request");
    }

    /// The whole JSON-RPC reply, if it comes within `limit`; it can be asked for again.
    pub fn reply(&mut self, limit: Duration) -> Option<Value> {
        let (_, body) = self.message(limit)?;
        Some(serde_json::from_slice(&body).expect("a reply is JSON"))
    }

    /// Status line and body of the next reply, if it comes within `limit`. An end of the connection is no reply.
    pub fn message(&mut self, limit: Duration) -> Option<(String, Vec<u8>)> {
        let start = Instant::now();
        loop {
            if let Some((status, length)) = complete(&self.received) {
                let rest = self.received.split_off(length.end);
                let message = std::mem::replace(&mut self.received, rest);
                return Some((status, message[length].to_vec()));
            }
            let left = limit.checked_sub(start.elapsed()).filter(|left| !left.is_zero())?;
            self.connection.set_read_timeout(Some(left)).expect("a positive timeout is valid");
            let mut buffer = [0; 65_536];
            match self.connection.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }
}

/// Status line, and where the body lies, when all of it is there.
fn complete(bytes: &[u8]) -> Option<(String, std::ops::Range<usize>)> {
    let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..head_end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.map_or(0, |text| text.trim().parse().expect("a length is a number"));
    let body = head_end..head_end + length;
    (bytes.len() >= body.end).then(|| (head.lines().next().unwrap_or_default().to_owned(), body))
}
