//! One measured connection: ready bytes → non-blocking socket → replies.
//!
//! Several outstanding requests are pipelined on the one socket (HTTP/1.1), not spread over sockets: that keeps the
//! nonces of a sender in order, and the requests that are due together leave with one system call.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::queue::RequestQueue;
use crate::client::http::{self, HttpError};
use crate::limits::RECONNECTS_MAX;
use crate::workload::ConnectionLoad;

/// How long opening a connection may take.
const CONNECT_WAIT_S: u64 = 5;

/// First size of the receive buffer; it grows with the replies.
const RECEIVE_BYTES: usize = 16 << 10;

#[derive(Debug)]
pub struct Connection {
    pub load: ConnectionLoad,
    pub queue: RequestQueue,
    /// `None` when the node has closed it too often.
    stream: Option<TcpStream>,
    address: SocketAddr,
    written_bytes: usize,
    received: Vec<u8>,
    filled_bytes: usize,
    reconnects: u32,
}

/// Why a connection stopped working.
#[derive(Debug)]
pub enum Broken {
    Closed,
    Io(ErrorKind),
    Http(HttpError),
    /// A reply without a request.
    Unasked,
}

impl Broken {
    pub fn class(&self) -> String {
        match self {
            Self::Closed => "the node closed the connection".into(),
            Self::Io(kind) => format!("connection: {kind}"),
            Self::Http(error) => error.to_string(),
            Self::Unasked => "a reply that nothing asked for".into(),
        }
    }
}

impl Connection {
    pub fn open(load: ConnectionLoad, queue: RequestQueue, address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            load,
            queue,
            stream: Some(connect(address)?),
            address,
            written_bytes: 0,
            received: vec![0; RECEIVE_BYTES],
            filled_bytes: 0,
            reconnects: 0,
        })
    }

    pub const fn stream(&self) -> Option<&TcpStream> {
        self.stream.as_ref()
    }

    /// Hands everything sendable to the socket; true when the socket took it all.
    pub fn flush(&mut self, now_ns: u64) -> Result<bool, Broken> {
        let Some(stream) = &mut self.stream else { return Ok(true) };
        let sendable = self.queue.sendable();
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
        Ok(true)
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
        mut answer: impl FnMut(&ConnectionLoad, usize, super::queue::Record, u16, &[u8]),
    ) -> Result<(), Broken> {
        let mut at = 0;
        let result = loop {
            match http::parse_reply(&self.received[at..self.filled_bytes]) {
                Ok(Some(reply)) => {
                    let Some((index, record)) = self.queue.mark_answered(now_ns) else { break Err(Broken::Unasked) };
                    answer(&self.load, index, record, reply.status, &reply.body);
                    at += reply.consumed_bytes;
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(Broken::Http(error)),
            }
        };
        self.received.copy_within(at..self.filled_bytes, 0);
        self.filled_bytes -= at;
        result
    }

    /// Opens the connection again. What was outstanding stays unanswered; the caller has taken it off the queue.
    pub fn reopen(&mut self) {
        debug_assert_eq!(self.queue.outstanding(), 0, "the caller fails what was outstanding first");
        self.filled_bytes = 0;
        // A request that was cut in the middle is not continued on the new connection.
        self.written_bytes = end_of(&self.load, self.queue.sent());
        self.reconnects += 1;
        self.stream = if self.reconnects <= RECONNECTS_MAX { connect(self.address).ok() } else { None };
    }
}

fn end_of(load: &ConnectionLoad, request_count: usize) -> usize {
    request_count.checked_sub(1).map_or(0, |last| load.requests[last].end)
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(CONNECT_WAIT_S))?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}
