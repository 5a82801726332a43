//! The admin port: HTTP/1.1 on loopback, one JSON-RPC call a request, a bearer token on each. The only file of the port that knows tokio and hyper.
//!
//! ```text
//!  Host is localhost or an address ─► no Origin ─► POST / ─► token ─► application/json ─► body ─► call ─► answer, connection closed
//! ```
//!
//! Owner: the `admin` thread, one current-thread runtime. Bounds: [`CONNECTIONS_MAX`], [`BODY_BYTES_MAX`], [`READ_LIMIT`], [`ANSWER_NS_MAX`].
//! Deliberately absent: CORS, WebSockets, batches, TLS, compression.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::or;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes as Body, Incoming};
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use super::rpc::{Admin, Answer, Waiting, is_change};
use super::token::Token;
use crate::codec::http::host_is_allowed;
use crate::rpc::RpcError;
use crate::runtime::clock;

/// Open connections. On full: the oldest that has shown no token is closed for the newcomer; while all have shown it, the newcomer is.
const CONNECTIONS_MAX: usize = 64;
/// Of a request: far more than the longest call.
const BODY_BYTES_MAX: usize = 64 * 1_024;
/// From the start of a connection to the end of its head, and from there to the end of its body.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// How long a call waits for the builder core: longer than a block of the largest size takes to be sealed.
const ANSWER_NS_MAX: u64 = 30_000_000_000;
/// How often what is waited for is looked at.
const LOOK: Duration = Duration::from_millis(2);
/// How often it is looked whether the process closes.
const TICK: Duration = Duration::from_millis(50);
/// Pause after an accept that failed: the process has no descriptors left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Pause between two lines about wrong tokens, so that who tries many does not fill the log.
const WARN_NS: u64 = 10_000_000_000;

/// Everything that the thread owns.
pub struct AdminSeat {
    /// Bound to loopback; one that does not block.
    pub listener: StdListener,
    pub token: Token,
    pub admin: Admin,
}

struct Desk {
    token: Token,
    admin: Admin,
    connection_count: Cell<usize>,
    /// Connections that have shown no token, oldest first.
    strangers: RefCell<VecDeque<Rc<Notify>>>,
    warned_ns: Cell<Option<u64>>,
}

/// Serves until the process closes.
///
/// # Errors
/// What the thread could not be given: the process must stop.
pub fn run(seat: AdminSeat) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("the runtime could not be started: {error}"))?;
    LocalSet::new().block_on(&runtime, serve(seat))
}

async fn serve(seat: AdminSeat) -> Result<(), String> {
    let AdminSeat { listener, token, admin } = seat;
    let listener = TcpListener::from_std(listener).map_err(|error| error.to_string())?;
    let (strangers, warned_ns) = (RefCell::default(), Cell::new(None));
    let desk = Rc::new(Desk { token, admin, connection_count: Cell::new(0), strangers, warned_ns });
    spawn_local(accept(Rc::clone(&desk), listener));
    while !desk.admin.shared.is_closed() {
        sleep(TICK).await;
    }
    Ok(())
}

async fn accept(desk: Rc<Desk>, listener: TcpListener) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the admin port could not be accepted");
                sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        if desk.connection_count.get() >= CONNECTIONS_MAX {
            let Some(stranger) = desk.strangers.borrow_mut().pop_front() else { continue };
            stranger.notify_one();
            desk.leave();
        }
        desk.connection_count.set(desk.connection_count.get() + 1);
        let end = Rc::new(Notify::new());
        desk.strangers.borrow_mut().push_back(Rc::clone(&end));
        let desk = Rc::clone(&desk);
        spawn_local(async move {
            let is_sent_away = async {
                end.notified().await;
                true
            };
            let is_over = async {
                connection(&desk, stream, &end).await;
                false
            };
            // Who was sent away is not counted any more.
            if !or(is_sent_away, is_over).await {
                desk.know(&end);
                desk.leave();
            }
        });
        // Who came is read from before the next one may take its place.
        tokio::task::yield_now().await;
    }
}

async fn connection(desk: &Rc<Desk>, stream: TcpStream, end: &Rc<Notify>) {
    let service = service_fn(|request| {
        let (desk, end) = (Rc::clone(desk), Rc::clone(end));
        async move { Ok::<_, std::convert::Infallible>(respond(&desk, request, &end).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_LIMIT)
        // Who holds a place without asking anything loses it.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Also who never reads the answer.
    let limit = 3 * READ_LIMIT + Duration::from_nanos(ANSWER_NS_MAX);
    if let Ok(Err(error)) = timeout(limit, served).await {
        tracing::debug!(%error, "a connection to the admin port ended");
    }
}

fn plain(status: StatusCode, text: impl Into<Body>) -> Response<Full<Body>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}

fn plain_with(status: StatusCode, text: &'static str, name: HeaderName, value: &'static str) -> Response<Full<Body>> {
    let mut response = plain(status, text);
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

async fn respond(desk: &Desk, request: Request<Incoming>, end: &Rc<Notify>) -> Response<Full<Body>> {
    if let Some(refusal) = refusal(desk, &request) {
        return refusal;
    }
    // It has shown the token: nobody takes its place.
    desk.know(end);
    let body = match timeout(READ_LIMIT, Limited::new(request.into_body(), BODY_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => return plain(StatusCode::PAYLOAD_TOO_LARGE, format!("{error}\n")),
        Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n"),
    };
    let mut response = plain(StatusCode::OK, desk.answer(&body).await);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Why a request is not looked at, by its head alone.
fn refusal(desk: &Desk, request: &Request<Incoming>) -> Option<Response<Full<Body>>> {
    let is_single = |name: HeaderName| request.headers().get_all(name).iter().count() == 1;
    let header = |name: HeaderName| request.headers().get(name).map_or(&b""[..], HeaderValue::as_bytes);
    // A page of another site that resolves its own name to this machine sends that name.
    let of_target = request.uri().authority().map(|name| host_is_allowed(name.as_str().as_bytes(), &[]));
    if !is_single(HOST) || !host_is_allowed(header(HOST), &[]) || of_target == Some(false) {
        return Some(plain(StatusCode::FORBIDDEN, "the Host header is neither localhost nor an address\n"));
    }
    if request.headers().contains_key(ORIGIN) {
        return Some(plain(StatusCode::FORBIDDEN, "pages in a browser are not served\n"));
    }
    if request.uri().path() != "/" {
        return Some(plain(StatusCode::NOT_FOUND, "JSON-RPC is at /\n"));
    }
    if request.method() != Method::POST {
        return Some(plain_with(StatusCode::METHOD_NOT_ALLOWED, "JSON-RPC comes by POST\n", ALLOW, "POST"));
    }
    if !is_single(AUTHORIZATION) || !desk.token.is_in(header(AUTHORIZATION)) {
        desk.warn_of_token();
        let text = "Authorization: Bearer TOKEN is missing or wrong; the token is in admin.token-file\n";
        return Some(plain_with(StatusCode::UNAUTHORIZED, text, WWW_AUTHENTICATE, "Bearer"));
    }
    let content_type = header(CONTENT_TYPE).split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if !content_type.eq_ignore_ascii_case(b"application/json") {
        return Some(plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json\n"));
    }
    None
}

/// A request of JSON-RPC 2.0.
#[derive(Deserialize)]
struct Call {
    jsonrpc: String,
    #[serde(default)]
    id: Value,
    method: String,
    #[serde(default)]
    params: Vec<Value>,
}

impl Desk {
    fn leave(&self) {
        self.connection_count.set(self.connection_count.get() - 1);
    }

    /// Takes a connection off the list of those that may be closed for others.
    fn know(&self, end: &Rc<Notify>) {
        self.strangers.borrow_mut().retain(|stranger| !Rc::ptr_eq(stranger, end));
    }

    fn warn_of_token(&self) {
        let now_ns = clock::monotonic_ns();
        if self.warned_ns.get().is_none_or(|warned_ns| now_ns >= warned_ns + WARN_NS) {
            self.warned_ns.set(Some(now_ns));
            tracing::warn!("a call to the admin port without the right token was refused");
        }
    }

    async fn answer(&self, body: &[u8]) -> Vec<u8> {
        let call = match serde_json::from_slice::<Value>(body) {
            Err(error) => return render(&Value::Null, Err(RpcError::new(-32_700, format!("parse error: {error}")))),
            Ok(text) => serde_json::from_value::<Call>(text),
        };
        let invalid =
            |why: String| render(&Value::Null, Err(RpcError::new(-32_600, format!("invalid request: {why}"))));
        let Call { jsonrpc, id, method, params } = match call {
            Ok(call) => call,
            Err(error) => return invalid(error.to_string()),
        };
        if jsonrpc != "2.0" || !(id.is_null() || id.is_string() || id.is_number()) {
            return invalid("jsonrpc must be \"2.0\", and id a string or a number".to_owned());
        }
        if is_change(&method) {
            tracing::info!(method, "admin call");
        }
        let outcome = match self.admin.call(&method, &params, clock::wall_unix_ns() / 1_000_000) {
            Answer::Now(outcome) => outcome,
            Answer::When(waiting) => self.wait(waiting).await,
        };
        render(&id, outcome)
    }

    async fn wait(&self, waiting: Waiting) -> Result<Value, RpcError> {
        let until_ns = clock::monotonic_ns() + ANSWER_NS_MAX;
        loop {
            if let Some(outcome) = self.admin.look(&waiting) {
                return outcome;
            }
            if clock::monotonic_ns() >= until_ns {
                return Err(self.admin.too_late(&waiting));
            }
            sleep(LOOK).await;
        }
    }
}

fn render(id: &Value, outcome: Result<Value, RpcError>) -> Vec<u8> {
    let mut out = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},").into_bytes();
    match outcome {
        Ok(result) => out.extend_from_slice(format!("\"result\":{result}").as_bytes()),
        Err(error) => {
            out.extend_from_slice(b"\"error\":");
            error.write(&mut out);
        }
    }
    out.push(b'}');
    out
}
