//! One connection to one L1 endpoint: JSON-RPC over HTTP or HTTPS, and `newHeads` over WebSocket.
//!
//! No decisions: the client above says whom to ask. A connection on which a call failed is dropped, so that a late answer never meets the
//! next question. Certificates are checked against Mozilla's roots. Nothing prints the path of a URL: providers put keys there.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes as Body;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::l1::client::error::{EndpointError, UrlError};
use crate::l1::client::transport::Transport;
use crate::runtime::clock;

/// Bytes of an answer: the receipts of a block of 600 Mgas in JSON.
const ANSWER_BYTES_MAX: usize = 256 * 1_048_576;
/// Bytes of a peer's text that are kept.
const SHOWN_BYTES_MAX: usize = 300;

/// Where an endpoint listens. Shown without its path.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    is_secure: bool,
    is_websocket: bool,
    host: String,
    port: u16,
    path: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (http, ws) = if self.is_secure { ("https", "wss") } else { ("http", "ws") };
        write!(f, "{}://{}:{}", if self.is_websocket { ws } else { http }, self.host, self.port)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Url {
    /// `http`, `https`, `ws` or `wss`; the port may be left out.
    ///
    /// # Errors
    /// Says what is wrong, without the path.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.trim().split_once("://").unwrap_or(("", text));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let fault = |what: &str| {
            let shown = authority.rsplit('@').next().unwrap_or_default();
            UrlError::Bad { url: format!("{scheme}://{shown}"), what: what.to_owned() }
        };
        let (is_secure, is_websocket) = match scheme {
            "http" => (false, false),
            "https" => (true, false),
            "ws" => (false, true),
            "wss" => (true, true),
            _ => return Err(fault("not http, https, ws or wss")),
        };
        if authority.contains('@') {
            return Err(fault("a user name in a URL is not supported: put a proxy before it"));
        }
        let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
            Some((host, port)) => (host, port.parse().map_err(|_| fault("its port is not a number below 65,536"))?),
            None => (authority, if is_secure { 443 } else { 80 }),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if bare.is_empty() || bare.contains(['[', ']', '?', '#']) {
            return Err(fault("no host"));
        }
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(fault("its path has characters that must be escaped"));
        }
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { is_secure, is_websocket, host: host.to_owned(), port, path: path.to_owned() })
    }

    #[must_use]
    pub fn is_websocket(&self) -> bool {
        self.is_websocket
    }

    fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    fn fault(&self, what: impl fmt::Display) -> EndpointError {
        EndpointError::Unreachable { endpoint: self.to_string(), what: what.to_string() }
    }

    async fn connect(&self, tls: &TlsConnector) -> Result<Box<dyn Stream>, EndpointError> {
        let host = self.bare_host();
        let stream = TcpStream::connect((host, self.port)).await.map_err(|error| self.fault(error))?;
        stream.set_nodelay(true).map_err(|error| self.fault(error))?;
        if !self.is_secure {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|error| self.fault(error))?;
        let stream = tls.connect(name, stream).await.map_err(|error| self.fault(format!("TLS: {error}")))?;
        Ok(Box::new(stream))
    }
}

/// A byte stream, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// TLS with Mozilla's roots and the ring provider.
///
/// # Panics
/// Never: ring has all that TLS 1.2 and 1.3 need.
#[must_use]
pub fn tls() -> TlsConnector {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("ring has the default versions").with_root_certificates(roots).with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// JSON-RPC calls to one endpoint, one at a time. A call that is dropped costs its connection, nothing else.
pub struct Wire {
    url: Url,
    tls: TlsConnector,
    sender: Option<SendRequest<Full<Body>>>,
    next_id: u64,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<RpcFault>,
}

#[derive(Deserialize)]
struct RpcFault {
    code: i64,
    message: String,
    data: Option<serde_json::Value>,
}

impl Wire {
    #[must_use]
    pub fn new(url: Url, tls: TlsConnector) -> Self {
        Self { url, tls, sender: None, next_id: 1 }
    }

    async fn ask(&mut self, method: &str, params: &str, limit: Duration) -> Result<Box<RawValue>, EndpointError> {
        let (endpoint, method) = (self.url.to_string(), method.to_owned());
        let name = serde_json::Value::from(method.as_str());
        let body = format!(r#"{{"jsonrpc":"2.0","id":{},"method":{name},"params":{params}}}"#, self.next_id);
        self.next_id += 1;
        let Ok(answer) = tokio::time::timeout(limit, self.post(Body::from(body))).await else {
            return Err(EndpointError::TimedOut { endpoint, method, limit_ms: limit.as_millis() as u64 });
        };
        let (status, bytes) = answer?;
        match serde_json::from_slice::<Envelope<'_>>(&bytes) {
            Ok(Envelope { error: Some(fault), .. }) => Err(EndpointError::Rpc {
                endpoint,
                method,
                code: fault.code,
                message: shortened(&fault.message),
                data: fault.data.map(|data| shortened(data.as_str().unwrap_or(&data.to_string()))),
            }),
            Ok(Envelope { result: Some(result), .. }) if status == 200 => Ok(result.to_owned()),
            // serde reads a null result as none.
            Ok(_) if status == 200 => Ok(RawValue::NULL.to_owned()),
            Ok(_) | Err(_) if status != 200 => {
                let body = shortened(String::from_utf8_lossy(&bytes).trim());
                Err(EndpointError::Http { endpoint, status, body })
            }
            Ok(_) => Err(EndpointError::Malformed { endpoint, method, what: "neither result nor error".to_owned() }),
            Err(error) => {
                let what = format!("{error}: {}", shortened(String::from_utf8_lossy(&bytes).trim()));
                Err(EndpointError::Malformed { endpoint, method, what })
            }
        }
    }

    /// The connection stays only after a complete answer.
    async fn post(&mut self, body: Body) -> Result<(u16, Vec<u8>), EndpointError> {
        if let Some(mut sender) = self.sender.take()
            && sender.ready().await.is_ok()
            && let Ok(answer) = self.post_on(&mut sender, body.clone()).await
        {
            self.sender = Some(sender);
            return Ok(answer);
        }
        // A kept connection may have been closed by the peer in the meantime, and every call may be made twice.
        let stream = self.url.connect(&self.tls).await?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| self.url.fault(error))?;
        // Ends with the sender; what it says about its end, the sender's call says too.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let answer = self.post_on(&mut sender, body).await.map_err(|error| self.url.fault(error))?;
        self.sender = Some(sender);
        Ok(answer)
    }

    async fn post_on(&self, sender: &mut SendRequest<Full<Body>>, body: Body) -> Result<(u16, Vec<u8>), String> {
        let request = hyper::Request::post(&self.url.path)
            .header(HOST, format!("{}:{}", self.url.host, self.url.port))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let bytes = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok((status, bytes.to_vec()))
    }
}

impl Transport for Wire {
    fn name(&self) -> String {
        self.url.to_string()
    }

    fn now_ns(&self) -> u64 {
        clock::monotonic_ns()
    }

    fn pause(&self, ns: u64) -> impl Future<Output = ()> {
        tokio::time::sleep(Duration::from_nanos(ns))
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

/// A peer's text, cut.
#[must_use]
pub fn shortened(text: &str) -> String {
    match text.char_indices().find(|(index, _)| *index >= SHOWN_BYTES_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A subscription to `newHeads`: says that there is something to ask for, and is not believed about what.
pub struct HeadWatch {
    url: Url,
    tls: TlsConnector,
    socket: Option<WebSocketStream<Pin<Box<dyn Stream>>>>,
}

impl HeadWatch {
    #[must_use]
    pub fn new(url: Url, tls: TlsConnector) -> Self {
        Self { url, tls, socket: None }
    }

    /// Waits for the next message, connecting first when needed.
    ///
    /// # Errors
    /// When the connection cannot be made or is lost; the next call makes another.
    pub async fn next(&mut self) -> Result<(), EndpointError> {
        // Where it may be dropped, the socket stays in its place.
        let Some(socket) = &mut self.socket else {
            self.socket = Some(self.subscribe().await?);
            return Ok(());
        };
        let what = match socket.next().await {
            Some(Ok(message)) if !message.is_close() => return Ok(()),
            Some(Err(error)) => error.to_string(),
            Some(Ok(_)) | None => "closed".to_owned(),
        };
        self.socket = None;
        Err(self.url.fault(what))
    }

    async fn subscribe(&self) -> Result<WebSocketStream<Pin<Box<dyn Stream>>>, EndpointError> {
        let stream = Box::into_pin(self.url.connect(&self.tls).await?);
        let scheme = if self.url.is_secure { "wss" } else { "ws" };
        let Url { host, port, path, .. } = &self.url;
        let request = format!("{scheme}://{host}:{port}{path}");
        let handshake = tokio_tungstenite::client_async(request, stream).await;
        let (mut socket, _) = handshake.map_err(|error| self.url.fault(error))?;
        let subscribe = r#"{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}"#;
        socket.send(Message::text(subscribe)).await.map_err(|error| self.url.fault(error))?;
        Ok(socket)
    }
}
