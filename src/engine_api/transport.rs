//! JSON-RPC to the execution client, over HTTP or its IPC socket. The only file that knows hyper.
//!
//! One connection, one call at a time, on the control thread's runtime. A connection on which a call failed is dropped, so a late answer
//! never meets the next question; one that the peer closed while it was idle is made again without a word. [`Transport`] is the seam for
//! another encoding (REST with SSZ): it takes requests, not JSON. Absent: TLS, redirects, proxies.

use std::path::PathBuf;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes as Body;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};

use crate::config::execution::Endpoint;
use crate::engine_api::jwt::Secret;
use crate::engine_api::types::{CallError, Method, Reply, parse_batch, parse_reply, shortened};

/// Bytes of an answer: the largest we ask for is a list of capabilities or a block without its transactions.
const ANSWER_BYTES_MAX: usize = 16 * 1_048_576;

/// A request in the form in which it goes out.
pub struct Prepared {
    pub method: Method,
    /// JSON of the parameters: `[…]`.
    pub params: Vec<u8>,
}

/// Carries requests to an execution client.
pub trait Transport {
    /// Sends one request and waits for its answer; the caller bounds the time, by dropping the future.
    ///
    /// # Errors
    /// As [`CallError`] has them.
    fn call(&mut self, request: Prepared, unix_s: u64) -> impl Future<Output = Result<Reply, CallError>>;
}

/// JSON-RPC over HTTP or IPC.
pub struct JsonTransport {
    wire: Wire,
    /// HTTP needs it; who may open the IPC socket needs none.
    secret: Option<Secret>,
    next_id: u64,
}

enum Wire {
    Http { host: String, port: u16, path: String, sender: Option<SendRequest<Full<Body>>> },
    Ipc { path: PathBuf, stream: Option<BufReader<UnixStream>> },
}

impl JsonTransport {
    /// Connects when it is first used.
    #[must_use]
    pub fn new(endpoint: &Endpoint, secret: Option<Secret>) -> Self {
        let wire = match endpoint {
            Endpoint::Http { host, port, path } => {
                Wire::Http { host: host.clone(), port: *port, path: path.clone(), sender: None }
            }
            Endpoint::Ipc(path) => Wire::Ipc { path: path.clone(), stream: None },
        };
        Self { wire, secret, next_id: 1 }
    }

    /// Appends one request; answers its id.
    fn envelope(&mut self, method: Method, params: &[u8], body: &mut Vec<u8>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        body.reserve(params.len() + 128);
        let head = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{}","params":"#, method.name());
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(params);
        body.push(b'}');
        id
    }

    async fn carry(&mut self, body: Vec<u8>, is_repeatable: bool, unix_s: u64) -> Result<Vec<u8>, CallError> {
        match &mut self.wire {
            Wire::Http { host, port, path, sender } => {
                let token = self.secret.as_ref().map(|secret| format!("Bearer {}", secret.token(unix_s)));
                let to = HttpTarget { host, port: *port, path, token };
                to.post(sender, Body::from(body), is_repeatable).await
            }
            Wire::Ipc { path, stream } => exchange(path, stream, body).await,
        }
    }

    /// Many requests at once; their results, in order.
    ///
    /// # Errors
    /// As [`CallError`] has them, when there is no answer to all of them.
    pub async fn call_batch(
        &mut self,
        calls: &[(Method, Vec<u8>)],
        unix_s: u64,
    ) -> Result<Vec<Result<Value, CallError>>, CallError> {
        let mut body = vec![b'['];
        let mut ids = Vec::with_capacity(calls.len());
        for (index, (method, params)) in calls.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            ids.push((self.envelope(*method, params, &mut body), *method));
        }
        body.push(b']');
        let answer = self.carry(body, true, unix_s).await?;
        parse_batch(&ids, &answer)
    }
}

impl Transport for JsonTransport {
    async fn call(&mut self, request: Prepared, unix_s: u64) -> Result<Reply, CallError> {
        let Prepared { method, params } = request;
        let mut body = Vec::new();
        self.envelope(method, &params, &mut body);
        drop(params);
        let answer = self.carry(body, method.is_repeatable(), unix_s).await?;
        parse_reply(method, &answer)
    }
}

struct HttpTarget<'a> {
    host: &'a str,
    port: u16,
    path: &'a str,
    token: Option<String>,
}

impl HttpTarget<'_> {
    fn unreachable(&self, what: impl std::fmt::Display) -> CallError {
        CallError::Unreachable { address: format!("http://{}:{}", self.host, self.port), what: what.to_string() }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Body>>, CallError> {
        let stream = TcpStream::connect((self.host, self.port)).await.map_err(|error| self.unreachable(error))?;
        stream.set_nodelay(true).map_err(|error| self.unreachable(error))?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| self.unreachable(error))?;
        // Ends with the sender; what it says about its end, the sender's call says too.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }

    /// The body of a 200; the connection stays in `kept` only after a complete answer.
    async fn post(
        &self,
        kept: &mut Option<SendRequest<Full<Body>>>,
        body: Body,
        is_repeatable: bool,
    ) -> Result<Vec<u8>, CallError> {
        if let Some(mut sender) = kept.take()
            && sender.ready().await.is_ok()
        {
            match self.post_on(&mut sender, body.clone()).await {
                Ok(answer) => return answer.inspect(|_| *kept = Some(sender)),
                Err(what) if !is_repeatable => return Err(self.unreachable(what)),
                // The peer may have closed it in the meantime, and most calls may be made twice.
                Err(_) => {}
            }
        }
        let mut sender = self.connect().await?;
        let answer = self.post_on(&mut sender, body).await.map_err(|error| self.unreachable(error))?;
        answer.inspect(|_| *kept = Some(sender))
    }

    /// The outer error is the connection's.
    async fn post_on(
        &self,
        sender: &mut SendRequest<Full<Body>>,
        body: Body,
    ) -> Result<Result<Vec<u8>, CallError>, String> {
        let mut request = hyper::Request::post(self.path)
            .header(HOST, format!("{}:{}", self.host, self.port))
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let bytes = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        if status != 200 {
            let body = shortened(String::from_utf8_lossy(&bytes).trim());
            return Ok(Err(CallError::Http { status, body }));
        }
        Ok(Ok(bytes.to_vec()))
    }
}

/// One line out, one line in: go-ethereum ends every answer with a line feed and has none inside.
async fn exchange(
    path: &std::path::Path,
    kept: &mut Option<BufReader<UnixStream>>,
    mut body: Vec<u8>,
) -> Result<Vec<u8>, CallError> {
    let fault = |what: String| CallError::Unreachable { address: path.display().to_string(), what };
    body.push(b'\n');
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => BufReader::new(UnixStream::connect(path).await.map_err(|error| fault(error.to_string()))?),
    };
    let mut line = Vec::new();
    stream.get_mut().write_all(&body).await.map_err(|error| fault(error.to_string()))?;
    let mut limited = (&mut stream).take(ANSWER_BYTES_MAX as u64);
    limited.read_until(b'\n', &mut line).await.map_err(|error| fault(error.to_string()))?;
    if line.last() != Some(&b'\n') {
        return Err(fault(format!("closed after {} bytes of an answer", line.len())));
    }
    *kept = Some(stream);
    Ok(line)
}
