//! One measured connection: ready bytes → non-blocking socket → replies.
//!
//! Several outstanding requests are pipelined on the one socket (HTTP/1.1), not spread over sockets: that keeps the
//! nonces of a sender in order, and the requests that are due together leave with one system call.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::queue::RequestQueue;
use crate::client::frames::{self, FrameError};
use crate::client::http::{self, HttpError};
use crate::client::{Endpoint, Protocol};
use crate::limits::RECONNECTS_MAX;
use crate::workload::ConnectionLoad;

/// How long opening a connection may take.
const CONNECT_WAIT_S: u64 = 5;

/// First size of the receive buffer; it grows with the replies.
const RECEIVE_BYTES: usize = 16 << 10;

/// Where a connection leads.
#[derive(Clone, Debug)]
pub struct Target {
    pub endpoint: Endpoint,
    pub address: SocketAddr,
}

#[derive(Debug)]
pub struct Connection {
    pub load: Arc<ConnectionLoad>,
    pub queue: RequestQueue,
    /// `None` when the node has closed it too often.
    stream: Option<TcpStream>,
    target: Arc<Target>,
    written_bytes: usize,
    received: Vec<u8>,
    filled_bytes: usize,
    /// WebSocket: what must be said between two requests (pongs).
    control: Vec<u8>,
    /// WebSocket: the parts of a message that has not ended.
    message: Vec<u8>,
    reconnects: u32,
}

/// Why a connection stopped working.
#[derive(Debug)]
pub enum Broken {
    Closed,
    Io(ErrorKind),
    Http(HttpError),
    Frame(FrameError),
    /// A reply without a request.
    Unasked,
}

impl Broken {
    pub fn class(&self) -> String {
        match self {
            Self::Closed => "the node closed the connection".into(),
            Self::Io(kind) => format!("connection: {kind}"),
            Self::Http(error) => error.to_string(),
            Self::Frame(error) => error.to_string(),
            Self::Unasked => "a reply that nothing asked for".into(),
        }
    }
}

impl Connection {
    pub fn open(load: Arc<ConnectionLoad>, queue: RequestQueue, target: Arc<Target>) -> io::Result<Self> {
        Ok(Self {
            load,
            queue,
            stream: Some(connect(&target)?),
            target,
            written_bytes: 0,
            received: vec![0; RECEIVE_BYTES],
            filled_bytes: 0,
            control: Vec::new(),
            message: Vec::new(),
            reconnects: 0,
        })
    }

    pub const fn stream(&self) -> Option<&TcpStream> {
        self.stream.as_ref()
    }

    /// Hands everything sendable to the socket; true when the socket took it all.
    pub fn flush(&mut self, now_ns: u64) -> Result<bool, Broken> {
        let Some(stream) = &mut self.stream else { return Ok(true) };
        // Only between two requests: a frame may not be cut by another.
        if !self.control.is_empty() && self.written_bytes == end_of(&self.load, self.queue.sent()) {
            match stream.write(&self.control) {
                Ok(count) => drop(self.control.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(Broken::Io(error.kind())),
            }
        }
        let sendable = if self.control.is_empty() { self.queue.sendable() } else { 0..0 };
        if !sendable.is_empty() {
            self.queue.mark_sent(sendable.end, now_ns);
        }
        let end = end_of(&self.load, self.queue.sent());
        while self.written_bytes < end {
            match stream.write(&self.load.bytes[self.written_bytes..end]) {
                Ok(0) => return Err(Broken::Closed),
                Ok(count) => self.written_bytes += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Broken::Io(error.kind())),
            }
        }
        Ok(self.control.is_empty())
    }

    /// Reads once; true when bytes came.
    pub fn receive(&mut self) -> Result<bool, Broken> {
        let Some(stream) = &mut self.stream else { return Ok(false) };
        if self.filled_bytes == self.received.len() {
            self.received.resize(self.received.len() * 2, 0);
        }
        match stream.read(&mut self.received[self.filled_bytes..]) {
            Ok(0) => Err(Broken::Closed),
            Ok(count) => {
                self.filled_bytes += count;
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(false),
            Err(error) => Err(Broken::Io(error.kind())),
        }
    }

    /// Calls `answer` with the index, history, status and body of each request that has its reply in the buffer.
    pub fn take_replies(
        &mut self,
        now_ns: u64,
        answer: impl FnMut(&ConnectionLoad, usize, super::queue::Record, u16, &[u8]),
    ) -> Result<(), Broken> {
        match self.target.endpoint.protocol {
            Protocol::Http => self.take_http(now_ns, answer),
            Protocol::WebSocket => self.take_frames(now_ns, answer),
        }
    }

    fn take_http(
        &mut self,
        now_ns: u64,
        mut answer: impl FnMut(&ConnectionLoad, usize, super::queue::Record, u16, &[u8]),
    ) -> Result<(), Broken> {
        let mut at = 0;
        let result = loop {
            match http::parse_reply(&self.received[at..self.filled_bytes]) {
                Ok(Some(reply)) => {
                    let oldest = self.queue.oldest();
                    let answered = oldest.and_then(|index| Some((index, self.queue.mark_answered(index, now_ns)?)));
                    let Some((index, record)) = answered else { break Err(Broken::Unasked) };
                    answer(&self.load, index, record, reply.status, &reply.body);
                    at += reply.consumed_bytes;
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(Broken::Http(error)),
            }
        };
        self.consume(at);
        result
    }

    fn take_frames(
        &mut self,
        now_ns: u64,
        mut answer: impl FnMut(&ConnectionLoad, usize, super::queue::Record, u16, &[u8]),
    ) -> Result<(), Broken> {
        let mut at = 0;
        let result = loop {
            match frames::parse(&self.received[at..self.filled_bytes]) {
                Ok(Some(frame)) => {
                    at += frame.consumed_bytes;
                    match frame.opcode {
                        frames::PING => frames::write(&mut self.control, frames::PONG, [0; 4], frame.payload),
                        frames::PONG => {}
                        frames::CLOSE => break Err(Broken::Closed),
                        _ => {
                            self.message.extend_from_slice(frame.payload);
                            if !frame.last {
                                continue;
                            }
                            let index = request_of(&self.load, &self.message).or_else(|| self.queue.oldest());
                            let answered = index.and_then(|at| Some((at, self.queue.mark_answered(at, now_ns)?)));
                            let Some((index, record)) = answered else { break Err(Broken::Unasked) };
                            answer(&self.load, index, record, 200, &self.message);
                            self.message.clear();
                        }
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(Broken::Frame(error)),
            }
        };
        self.consume(at);
        result
    }

    /// Takes `bytes` off the front of the receive buffer.
    fn consume(&mut self, bytes: usize) {
        self.received.copy_within(bytes..self.filled_bytes, 0);
        self.filled_bytes -= bytes;
    }

    /// Opens the connection again. What was outstanding stays unanswered; the caller has taken it off the queue.
    pub fn reopen(&mut self) {
        debug_assert_eq!(self.queue.outstanding(), 0, "the caller fails what was outstanding first");
        self.filled_bytes = 0;
        self.control.clear();
        self.message.clear();
        // A request that was cut in the middle is not continued on the new connection.
        self.written_bytes = end_of(&self.load, self.queue.sent());
        self.reconnects += 1;
        self.stream = if self.reconnects <= RECONNECTS_MAX { connect(&self.target).ok() } else { None };
    }
}

fn end_of(load: &ConnectionLoad, request_count: usize) -> usize {
    request_count.checked_sub(1).map_or(0, |last| load.requests[last].end)
}

/// The request that a WebSocket reply answers, by the id in it; `None` for an error without an id.
fn request_of(load: &ConnectionLoad, message: &[u8]) -> Option<usize> {
    #[derive(Deserialize)]
    struct Id {
        id: Option<u32>,
    }
    let id = match message.first()? {
        b'[' => serde_json::from_slice::<Vec<Id>>(message).ok()?.iter().find_map(|reply| reply.id)?,
        _ => serde_json::from_slice::<Id>(message).ok()?.id?,
    };
    let after = load.requests.partition_point(|request| request.first <= id);
    let index = after.checked_sub(1)?;
    let request = load.requests[index];
    (id < request.first + request.count).then_some(index)
}

fn connect(target: &Target) -> io::Result<TcpStream> {
    let wait = Duration::from_secs(CONNECT_WAIT_S);
    let mut stream = TcpStream::connect_timeout(&target.address, wait)?;
    stream.set_nodelay(true)?;
    if target.endpoint.protocol == Protocol::WebSocket {
        stream.set_read_timeout(Some(wait))?;
        stream.write_all(frames::handshake(&target.endpoint.authority, &target.endpoint.path).as_bytes())?;
        let mut head = Vec::new();
        let mut byte = [0];
        // One byte at a time: nothing behind the head may be lost. It has about 130.
        while frames::parse_handshake(&head).map_err(io::Error::other)?.is_none() {
            if stream.read(&mut byte)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            head.push(byte[0]);
        }
    }
    stream.set_nonblocking(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Request;

    #[test]
    fn websocket_replies_name_their_request() {
        let request = |first, count| Request { end: 0, first, count };
        let load = ConnectionLoad { bytes: vec![], requests: vec![request(0, 2), request(4, 2), request(8, 1)] };
        let check = |text: &str, expected| assert_eq!(request_of(&load, text.as_bytes()), expected, "{text}");
        check(r#"{"jsonrpc":"2.0","id":8,"result":"0x"}"#, Some(2));
        check(r#"[{"id":5,"result":"0x"},{"id":4}]"#, Some(1));
        check(r#"[{"id":null,"error":{}},{"id":1}]"#, Some(0));
        check(r#"{"id":3}"#, None);
        check(r#"{"id":null,"error":{"code":-32600}}"#, None);
        check("[]", None);
        check("", None);
    }
}
