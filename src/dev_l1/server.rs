//! The development L1's one thread: HTTP and WebSocket on each endpoint, and the clock that makes blocks. The only file of it that knows tokio and hyper.
//!
//! A request is answered where it is read: the thread owns the node, so nothing is locked, and a long answer holds up the next one.
//! Bounds: [`CONNECTIONS_MAX`], [`BODY_BYTES_MAX`], [`HEADS_QUEUED_MAX`] heads behind a slow subscriber, which is then closed.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::or;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes as Body, Incoming};
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderMap, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, broadcast};
use tokio::task::{LocalSet, spawn_local};

use super::node::Node;
use super::rpc::{BATCH_ITEMS_MAX, Caller, answer};
use crate::admin::token::Token;
use crate::codec::websocket::{
    CloseCode, FrameEvent, FrameParser, WebSocketLimits, accept_key, key_is_valid, write_close, write_pong, write_text,
};
use crate::rpc::encode;
use crate::runtime::clock;

/// Connections of all endpoints together; more are closed at once.
const CONNECTIONS_MAX: usize = 256;
/// Of a request: a batch of 64 full transactions in hex.
const BODY_BYTES_MAX: usize = 32 * 1_048_576;
/// Heads that wait for a subscriber.
const HEADS_QUEUED_MAX: usize = 4_096;
/// Subscriptions of one connection.
const SUBSCRIPTIONS_MAX: usize = 100;
/// How often it is looked whether a block is due: what a test resumes begins at most this late.
const TICK: Duration = Duration::from_millis(20);
/// Pause after an accept that failed: the process has no descriptors left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Ends the thread.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<Notify>);

impl Stop {
    pub fn signal(&self) {
        self.0.notify_one();
    }
}

/// Everything that the thread owns.
pub struct ServerSeat {
    pub node: Node,
    /// One for each endpoint, bound.
    pub listeners: Vec<StdListener>,
    /// Of `dev_*`.
    pub token: Token,
    pub stop: Stop,
}

struct Shared {
    node: RefCell<Node>,
    token: Token,
    /// Text of the head's object.
    heads: broadcast::Sender<Arc<str>>,
    connection_count: Cell<usize>,
}

/// Runs the node until it is stopped.
///
/// # Errors
/// What ended it before: its state or its file failed.
pub fn run(seat: ServerSeat) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("the runtime could not be started: {error}"))?;
    LocalSet::new().block_on(&runtime, serve(seat))
}

async fn serve(seat: ServerSeat) -> Result<(), String> {
    let (heads, _) = broadcast::channel(HEADS_QUEUED_MAX);
    let shared =
        Rc::new(Shared { node: RefCell::new(seat.node), token: seat.token, heads, connection_count: Cell::new(0) });
    for (endpoint, listener) in seat.listeners.into_iter().enumerate() {
        let listener = TcpListener::from_std(listener).map_err(|error| error.to_string())?;
        spawn_local(accept(Rc::clone(&shared), listener, endpoint));
    }
    let stopped = async {
        seat.stop.0.notified().await;
        Ok(())
    };
    or(stopped, make_blocks(&shared)).await
}

async fn make_blocks(shared: &Shared) -> Result<(), String> {
    loop {
        let now_ms = now_ms();
        let due_ms = {
            let mut node = shared.node.borrow_mut();
            node.tick(now_ms).map_err(|error| error.to_string())?;
            node.due_ms()
        };
        shared.publish();
        let wait = due_ms.map_or(TICK, |due_ms| Duration::from_millis(due_ms.saturating_sub(now_ms)).min(TICK));
        tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
    }
}

fn now_ms() -> u64 {
    clock::wall_unix_ns() / 1_000_000
}

impl Shared {
    /// Tells subscribers of the blocks that became the newest.
    fn publish(&self) {
        for block in self.node.borrow_mut().take_heads() {
            let mut text = Vec::new();
            encode::header(&block.header, block.hash, &mut text);
            // Nobody listens: that is no error.
            let _ = self.heads.send(String::from_utf8_lossy(&text).into());
        }
    }

    /// Waits as long as the endpoint's latency says.
    async fn delay(&self, endpoint: usize) {
        let latency_ms = self.node.borrow().faults.get(endpoint).map_or(0, |faults| faults.latency_ms);
        if latency_ms > 0 {
            tokio::time::sleep(Duration::from_millis(latency_ms)).await;
        }
    }

    /// The answer to the text of a request or a batch; empty when nothing is to be answered.
    fn answer(&self, caller: Caller, text: &[u8]) -> String {
        let answered = match serde_json::from_slice(text) {
            Err(error) => Some(refusal(-32_700, format!("parse error: {error}"))),
            Ok(Value::Array(items)) if items.is_empty() => Some(refusal(-32_600, "empty batch".to_owned())),
            Ok(Value::Array(items)) if items.len() > BATCH_ITEMS_MAX => {
                Some(refusal(-32_600, format!("batch has {} requests, at most {BATCH_ITEMS_MAX}", items.len())))
            }
            Ok(Value::Array(items)) => {
                let mut node = self.node.borrow_mut();
                let answers: Vec<Value> = items.iter().filter_map(|item| answer(&mut node, caller, item)).collect();
                (!answers.is_empty()).then_some(Value::Array(answers))
            }
            Ok(request) => answer(&mut self.node.borrow_mut(), caller, &request),
        };
        self.publish();
        answered.map_or_else(String::new, |answered| answered.to_string())
    }
}

fn refusal(code: i32, message: String) -> Value {
    json!({ "jsonrpc": "2.0", "id": null, "error": { "code": code, "message": message } })
}

async fn accept(shared: Rc<Shared>, listener: TcpListener, endpoint: usize) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let count = shared.connection_count.get();
        if count >= CONNECTIONS_MAX {
            tracing::warn!(count, "a connection was closed: there are too many");
            continue;
        }
        shared.connection_count.set(count + 1);
        let shared = Rc::clone(&shared);
        spawn_local(async move {
            let entrance = Entrance { endpoint, is_local: peer.ip().to_canonical().is_loopback() };
            connection(&shared, stream, entrance).await;
            shared.connection_count.set(shared.connection_count.get() - 1);
        });
    }
}

/// How a connection came in.
#[derive(Clone, Copy)]
struct Entrance {
    endpoint: usize,
    /// From this machine: others never reach `dev_*`, whatever they know.
    is_local: bool,
}

async fn connection(shared: &Rc<Shared>, stream: TcpStream, entrance: Entrance) {
    // Without it answers wait for acknowledgements; a socket that refuses it still works.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let shared = Rc::clone(shared);
        async move { Ok::<_, std::convert::Infallible>(respond(&shared, request, entrance).await) }
    });
    let served = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.with_upgrades().await {
        tracing::debug!(%error, "a connection ended");
    }
}

fn plain(status: StatusCode, text: impl Into<Body>) -> Response<Full<Body>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}

async fn respond(shared: &Rc<Shared>, request: Request<Incoming>, entrance: Entrance) -> Response<Full<Body>> {
    let endpoint = entrance.endpoint;
    if !is_local(request.headers()) {
        return plain(StatusCode::FORBIDDEN, "the Host header is neither localhost nor an address\n");
    }
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let is_authorized = entrance.is_local && shared.token.is_in(header(AUTHORIZATION).as_bytes());
    if request.method() == Method::GET && header(UPGRADE).eq_ignore_ascii_case("websocket") {
        return upgrade(shared, request, endpoint, is_authorized);
    }
    if request.method() != Method::POST {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "JSON-RPC comes by POST, or over a WebSocket\n");
    }
    if !header(CONTENT_TYPE).starts_with("application/json") {
        return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json\n");
    }
    let body = match Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return plain(StatusCode::PAYLOAD_TOO_LARGE, format!("{error}\n")),
    };
    // Whoever may set faults can also take them away again.
    if !is_authorized {
        shared.delay(endpoint).await;
        let error = shared.node.borrow_mut().faults.get_mut(endpoint).and_then(|faults| faults.take_http_error());
        if let Some(status) = error.and_then(|status| StatusCode::from_u16(status).ok()) {
            return plain(status, "a test asked for this error\n");
        }
    }
    let caller = Caller { endpoint, is_authorized, now_ms: now_ms() };
    let mut response = plain(StatusCode::OK, shared.answer(caller, &body));
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}

/// A page of another site that resolves its own name to this machine sends that name.
fn is_local(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else { return true };
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, _)) => name,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn upgrade(
    shared: &Rc<Shared>,
    request: Request<Incoming>,
    endpoint: usize,
    is_authorized: bool,
) -> Response<Full<Body>> {
    let key = request.headers().get(SEC_WEBSOCKET_KEY).map(|key| key.as_bytes().to_vec()).unwrap_or_default();
    if !key_is_valid(&key) {
        return plain(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is no base64 of 16 bytes\n");
    }
    let accept = hyper::header::HeaderValue::from_bytes(&accept_key(&key));
    let Ok(accept) = accept else { return plain(StatusCode::INTERNAL_SERVER_ERROR, "") };
    let shared = Rc::clone(shared);
    spawn_local(async move {
        match hyper::upgrade::on(request).await {
            Ok(upgraded) => web_socket(&shared, TokioIo::new(upgraded), endpoint, is_authorized).await,
            Err(error) => tracing::debug!(%error, "a WebSocket did not come about"),
        }
    });
    let mut response = plain(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = response.headers_mut();
    headers.insert(CONNECTION, hyper::header::HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, hyper::header::HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

/// What a WebSocket waits for.
enum Event {
    Read(std::io::Result<usize>),
    Head(Result<Arc<str>, broadcast::error::RecvError>),
}

/// One WebSocket's own state.
struct Session {
    endpoint: usize,
    is_authorized: bool,
    subscriptions: Vec<u64>,
    next_subscription: u64,
}

async fn web_socket(shared: &Shared, stream: TokioIo<hyper::upgrade::Upgraded>, endpoint: usize, is_authorized: bool) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut heads = shared.heads.subscribe();
    let mut session = Session { endpoint, is_authorized, subscriptions: Vec::new(), next_subscription: 1 };
    let (mut parser, mut window, mut piece) = (FrameParser::default(), Vec::new(), vec![0; 64 * 1_024]);
    loop {
        let event = {
            let read = async { Event::Read(reader.read(&mut piece).await) };
            let head = async { Event::Head(heads.recv().await) };
            or(read, head).await
        };
        let mut out = Vec::new();
        let is_over = match event {
            Event::Read(Ok(0) | Err(_)) => return,
            Event::Read(Ok(bytes)) => {
                window.extend_from_slice(&piece[..bytes]);
                session.read(shared, &mut parser, &mut window, &mut out).await
            }
            Event::Head(Ok(head)) => {
                session.tell(&head, &mut out);
                false
            }
            // The subscriber is too slow, or the node ends.
            Event::Head(Err(_)) => {
                write_close(&mut out, Some(CloseCode::TryAgainLater as u16));
                true
            }
        };
        if writer.write_all(&out).await.is_err() || is_over {
            return;
        }
    }
}

impl Session {
    /// Takes what came in; `true` when the connection is over.
    async fn read(
        &mut self,
        shared: &Shared,
        parser: &mut FrameParser,
        window: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> bool {
        let limits = WebSocketLimits { message_bytes_max: BODY_BYTES_MAX, ..WebSocketLimits::default() };
        loop {
            match parser.advance(window, &limits) {
                Ok(FrameEvent::More { kept }) => {
                    window.truncate(kept);
                    return false;
                }
                Ok(FrameEvent::Message { consumed }) => {
                    let message = window[parser.message()].to_vec();
                    window.drain(..consumed);
                    shared.delay(self.endpoint).await;
                    let text = self.answer(shared, &message);
                    if !text.is_empty() {
                        write_text(out, |out| out.extend_from_slice(text.as_bytes()));
                    }
                }
                Ok(FrameEvent::Ping(payload)) => write_pong(out, &payload),
                Ok(FrameEvent::Pong) => {}
                Ok(FrameEvent::Close(code)) => {
                    write_close(out, code);
                    return true;
                }
                Err(code) => {
                    write_close(out, Some(code as u16));
                    return true;
                }
            }
        }
    }

    fn answer(&mut self, shared: &Shared, message: &[u8]) -> String {
        let request: Value = serde_json::from_slice(message).unwrap_or(Value::Null);
        let id = request.get("id").cloned().unwrap_or(Value::Null);
        let first = request.get("params").and_then(|params| params.get(0)).and_then(Value::as_str).unwrap_or("");
        let result = match request.get("method").and_then(Value::as_str) {
            Some("eth_subscribe") => self.subscribe(first),
            Some("eth_unsubscribe") => Ok(json!(self.unsubscribe(first))),
            _ => {
                let (endpoint, is_authorized) = (self.endpoint, self.is_authorized);
                return shared.answer(Caller { endpoint, is_authorized, now_ms: now_ms() }, message);
            }
        };
        match result {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string(),
            Err(message) => {
                json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -32_602, "message": message } }).to_string()
            }
        }
    }

    fn subscribe(&mut self, kind: &str) -> Result<Value, String> {
        if kind != "newHeads" {
            return Err(format!("no \"{kind}\" subscription in eth namespace: newHeads is the one"));
        }
        if self.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            return Err(format!("a connection has at most {SUBSCRIPTIONS_MAX} subscriptions"));
        }
        let id = self.next_subscription;
        self.next_subscription += 1;
        self.subscriptions.push(id);
        Ok(json!(format!("{id:#x}")))
    }

    fn unsubscribe(&mut self, id: &str) -> bool {
        let before = self.subscriptions.len();
        self.subscriptions.retain(|own| format!("{own:#x}") != id);
        self.subscriptions.len() < before
    }

    fn tell(&self, head: &str, out: &mut Vec<u8>) {
        for id in &self.subscriptions {
            write_text(out, |out| {
                let start = r#"{"jsonrpc":"2.0","method":"eth_subscription","params":{"subscription":""#;
                out.extend_from_slice(format!("{start}{id:#x}\",\"result\":{head}}}}}").as_bytes());
            });
        }
    }
}
