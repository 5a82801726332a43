//! One connection: accounts that take turns, requests that are outstanding in order, and the bytes on their way.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use super::signer::{FastSigner, Terms};
use crate::client::http::{self, HttpError};
use crate::client::{Endpoint, rpc::RpcError};
use crate::error::{Error, Result};

/// Read at once, and of a connection kept for the next time: replies are small.
const READ_BYTES: usize = 64 << 10;

/// One account: one transaction at a time.
struct Seat {
    signer: FastSigner,
    nonce: u64,
    /// The request of the transaction with this nonce.
    request: Vec<u8>,
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Accepted,
    /// -32005: the node sheds load.
    Refused,
    /// Anything else, in a few words.
    Other(String),
}

/// See the module's text.
pub struct Connection {
    endpoint: Endpoint,
    stream: TcpStream,
    terms: Terms,
    seats: Vec<Seat>,
    /// Those whose transaction may be sent.
    ready: VecDeque<usize>,
    /// Those that wait for an answer, with when they were handed to the kernel; replies come in this order.
    waiting: VecDeque<(usize, u64)>,
    unsent: Vec<u8>,
    unread: Vec<u8>,
    scratch: Vec<u8>,
}

impl Connection {
    pub fn open(endpoint: &Endpoint, terms: Terms, accounts: Vec<(FastSigner, u64)>) -> Result<Self> {
        let seats = accounts.into_iter().map(|(signer, nonce)| {
            let mut seat = Seat { signer, nonce, request: Vec::new() };
            seat.render(endpoint, &terms);
            seat
        });
        let seats: Vec<Seat> = seats.collect();
        Ok(Self {
            stream: connect(endpoint)?,
            endpoint: endpoint.clone(),
            terms,
            ready: (0..seats.len()).collect(),
            seats,
            waiting: VecDeque::new(),
            unsent: Vec::new(),
            unread: Vec::new(),
            scratch: vec![0; READ_BYTES],
        })
    }

    /// Takes up to `count` requests into the bytes to be sent; answers how many there was room for.
    pub fn take(&mut self, count: u64, now_ns: u64) -> u64 {
        // What the kernel does not take is outstanding, too: nothing is put behind it.
        if !self.unsent.is_empty() {
            return 0;
        }
        let mut taken = 0;
        while taken < count {
            let Some(seat) = self.ready.pop_front() else { break };
            self.unsent.extend_from_slice(&self.seats[seat].request);
            self.waiting.push_back((seat, now_ns));
            taken += 1;
        }
        taken
    }

    /// Writes what the kernel takes and reads what is there. `each` is told every answer with the time that it took.
    ///
    /// # Errors
    /// The words of a connection that is gone: to be opened again.
    pub fn turn(
        &mut self,
        now_ns: impl Fn() -> u64,
        mut each: impl FnMut(Outcome, u64),
    ) -> std::result::Result<(), String> {
        self.write()?;
        loop {
            match self.stream.read(&mut self.scratch) {
                Ok(0) => return Err("the node closed the connection".to_owned()),
                Ok(count) => {
                    self.unread.extend_from_slice(&self.scratch[..count]);
                    self.take_replies(now_ns(), &mut each)?;
                    if count < READ_BYTES {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.kind().to_string()),
            }
        }
    }

    fn write(&mut self) -> std::result::Result<(), String> {
        let mut at = 0;
        while at < self.unsent.len() {
            match self.stream.write(&self.unsent[at..]) {
                Ok(count) => at += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.kind().to_string()),
            }
        }
        self.unsent.drain(..at);
        Ok(())
    }

    fn take_replies(&mut self, now_ns: u64, each: &mut impl FnMut(Outcome, u64)) -> std::result::Result<(), String> {
        let mut at = 0;
        loop {
            let reply = match http::parse_reply(&self.unread[at..]) {
                Ok(Some(reply)) => reply,
                Ok(None) => break,
                Err(HttpError::Malformed | HttpError::NoLength | HttpError::TooLarge) => {
                    return Err("a reply is not HTTP".to_owned());
                }
            };
            at += reply.consumed_bytes;
            let outcome = outcome_of(reply.status, &reply.body);
            let Some((seat, sent_ns)) = self.waiting.pop_front() else {
                return Err(format!("an answer that nobody waits for: HTTP status {}", reply.status));
            };
            let is_done = outcome == Outcome::Accepted || is_known(&outcome);
            each(outcome, now_ns.saturating_sub(sent_ns));
            if is_done {
                self.seats[seat].nonce += 1;
                self.seats[seat].render(&self.endpoint, &self.terms);
            }
            self.ready.push_back(seat);
        }
        self.unread.drain(..at);
        Ok(())
    }

    /// Begins anew after the connection is gone; answers how many requests have no answer.
    ///
    /// # Errors
    /// When the node takes no connection.
    pub fn reopen(&mut self) -> Result<u64> {
        let lost = self.waiting.len() as u64;
        self.ready.extend(self.waiting.drain(..).map(|(seat, _)| seat));
        self.unsent.clear();
        self.unread.clear();
        self.stream = connect(&self.endpoint)?;
        Ok(lost)
    }

    pub fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// The nonce behind the accepted ones, of each account.
    pub fn nonces(&self) -> impl Iterator<Item = u64> {
        self.seats.iter().map(|seat| seat.nonce)
    }
}

impl Seat {
    fn render(&mut self, endpoint: &Endpoint, terms: &Terms) {
        let mut raw = Vec::with_capacity(160);
        self.signer.transfer(terms, self.nonce, &mut raw);
        let raw = alloy_primitives::hex::encode(&raw);
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"eth_sendRawTransaction","params":["0x{raw}"]}}"#);
        self.request.clear();
        http::write_post(&mut self.request, &endpoint.authority, &endpoint.path, body.as_bytes());
    }
}

fn connect(endpoint: &Endpoint) -> Result<TcpStream> {
    let stream = endpoint.connect()?;
    stream.set_nonblocking(true).map_err(|cause| Error::Connect { url: endpoint.url.clone(), cause })?;
    Ok(stream)
}

/// An answer was lost with its connection, and the transaction was not.
fn is_known(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Other(text) if text.contains("already known") || text.contains("nonce too low"))
}

/// Looks for what every answer of a node has, so that a refusal costs no more to read than to make.
fn outcome_of(status: u16, body: &[u8]) -> Outcome {
    let has = |word: &[u8]| body.windows(word.len()).any(|window| window == word);
    if status != 200 {
        return Outcome::Other(format!("HTTP status {status}"));
    }
    if has(b"\"result\":\"0x") {
        return Outcome::Accepted;
    }
    if has(b"\"code\":-32005") {
        return Outcome::Refused;
    }
    let error = serde_json::from_slice::<serde_json::Value>(body).ok();
    let error = error.and_then(|reply| serde_json::from_value::<RpcError>(reply.get("error")?.clone()).ok());
    Outcome::Other(match error {
        // Numbers would make a class of every refusal.
        Some(error) => error.to_string().chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).collect(),
        None => "a reply that makes no sense".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes() {
        let of = |body: &str| outcome_of(200, body.as_bytes());
        assert_eq!(of(r#"{"jsonrpc":"2.0","id":1,"result":"0x12"}"#), Outcome::Accepted);
        let busy = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32005,"message":"m","data":{"retryAfter":0.1}}}"#;
        assert_eq!(of(busy), Outcome::Refused);
        let known = of(r#"{"id":1,"error":{"code":-32000,"message":"nonce too low: 1"}}"#);
        assert_eq!(known, Outcome::Other("nonce too low: # (code -#####)".to_owned()));
        assert!(is_known(&known) && !is_known(&Outcome::Other("insufficient funds".to_owned())));
        assert_eq!(outcome_of(503, b""), Outcome::Other("HTTP status 503".to_owned()));
        assert_eq!(of("x"), Outcome::Other("a reply that makes no sense".to_owned()));
    }
}
