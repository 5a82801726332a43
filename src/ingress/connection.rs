//! One client connection without its socket: bytes and time in, requests and bytes out.
//!
//! Owner core: ingress shard. A driver (the shard's io_uring, a test) does per readiness of the socket:
//!
//! ```text
//!  read into the shard's own buffer ─► Input ─► next_request() until None, each answered at once or later through Replies
//!  output() ─► one write ─► output_written();   deadline_ns() ─► timer ─► on_time();   phase() says when to stop
//! ```
//!
//! Requests are parsed where the driver read them; only a request that is not complete moves into a buffer of the connection, so an
//! idle connection holds no buffer at all. Invariants: nothing is parsed beyond the bounds of [`Limits`] (back-pressure: the driver
//! stops reading while [`Connection::wants_read`] is false), and HTTP replies leave in request order.
//! Absent on purpose: sockets, clocks, JSON.

mod limits;
mod replies;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

pub use limits::{Limits, Policy};
pub use replies::{Completion, Replies};

use crate::codec::http::{self, ContentType, Head, Method, Progress, Refusal, RequestParser};
use crate::codec::websocket::{self, CloseCode, FrameEvent, FrameParser};
use replies::Framing;

/// Bytes just read from the socket, in a buffer that the driver lends. [`Connection::next_request`] takes them all before it returns `None`.
#[derive(Debug)]
pub struct Input<'a> {
    bytes: &'a mut [u8],
    taken: usize,
}

impl<'a> Input<'a> {
    #[must_use]
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, taken: 0 }
    }

    /// Nothing was read: used to go on with bytes that waited for replies to finish.
    #[must_use]
    pub fn empty() -> Self {
        Self { bytes: &mut [], taken: 0 }
    }

    fn rest(&mut self) -> &mut [u8] {
        &mut self.bytes[self.taken..]
    }
}

/// One request. `number` names it to [`Replies`].
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    pub number: u32,
    pub content: Content<'a>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// A JSON-RPC body. May be changed in place; valid UTF-8 only when it came by WebSocket.
    Body(&'a mut [u8]),
    /// `/livez`, `/readyz` or `/healthz`: answer with [`Replies::complete_probe`].
    Probe(Probe),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    Live,
    Ready,
    Healthy,
}

/// What the driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Open,
    /// No further request is taken; outstanding ones are answered and the output is written.
    Finishing,
    /// All is written: shut the sending side down, then read and drop until the peer closes or the deadline passes.
    Lingering,
    /// Close the socket.
    Closed,
}

/// Where a request whose head is complete goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Call,
    Probe(Probe),
    Preflight,
    Upgrade,
    /// Refused already; it has no body, so the next request follows.
    Refused,
}

#[derive(Debug)]
enum Mode {
    Http(RequestParser),
    WebSocket(FrameParser),
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    replies: Replies,
    mode: Mode,
    route: Option<Route>,
    framing: Framing,
    /// Bytes of a request that is not complete, and whatever waits behind it, from `start` on.
    buffer: Vec<u8>,
    start: usize,
    /// No further request is taken.
    stopped: bool,
    closed: bool,
    /// Parsing waits for replies: the time-outs of receiving stand still.
    is_blocked: bool,
    /// The rest of the input waits for a later turn: see [`Connection::park`].
    is_parked: bool,
    had_request: bool,
    ping_sent: bool,
    /// When the first byte of the request being received came; `None` between requests.
    request_start_ns: Option<u64>,
    /// When bytes last came, or an HTTP reply went out.
    received_ns: u64,
    /// When the output last moved while there was some; `None` when there is none.
    write_progress_ns: Option<u64>,
    linger_until_ns: Option<u64>,
    /// Dropped since nothing more is taken.
    lingered_bytes: u64,
}

/// A request found by the parser: where its bytes are.
struct Found {
    number: u32,
    probe: Option<Probe>,
    body: Range<usize>,
    is_in_buffer: bool,
}

impl Connection {
    #[must_use]
    pub fn new(policy: Arc<Policy>, now_ns: u64) -> Self {
        Self {
            replies: Replies::new(policy),
            mode: Mode::Http(RequestParser::default()),
            route: None,
            framing: Framing::default(),
            buffer: Vec::new(),
            start: 0,
            stopped: false,
            closed: false,
            is_blocked: false,
            is_parked: false,
            had_request: false,
            ping_sent: false,
            request_start_ns: None,
            received_ns: now_ns,
            write_progress_ns: None,
            linger_until_ns: None,
            lingered_bytes: 0,
        }
    }

    /// Takes the next request out of `input` and what waited before it. `None`: all of `input` is taken and no further request is complete
    /// or allowed yet.
    ///
    /// Runs on: ingress shard; never blocks; allocates only for requests that are split over several reads.
    /// Call it until `None` after each read, and with [`Input::empty`] after replies while [`Connection::wants_resume`].
    pub fn next_request<'b>(
        &'b mut self,
        input: &'b mut Input<'_>,
        now_ns: u64,
    ) -> Option<(Request<'b>, &'b mut Replies)> {
        if !input.rest().is_empty() {
            self.received_ns = now_ns;
            self.ping_sent = false;
        }
        let Found { number, probe, body, is_in_buffer } = self.find_request(input, now_ns)?;
        let content = match probe {
            Some(probe) => Content::Probe(probe),
            None if is_in_buffer => Content::Body(&mut self.buffer[body]),
            None => Content::Body(&mut input.bytes[body]),
        };
        Some((Request { number, content }, &mut self.replies))
    }

    /// Where replies go that are not given while the request is at hand.
    pub fn replies(&mut self) -> &mut Replies {
        &mut self.replies
    }

    /// Whether the connection was switched to WebSocket.
    #[must_use]
    pub fn is_websocket(&self) -> bool {
        self.replies.websocket
    }

    /// Whether the driver should read from the socket. While it is false the peer's bytes wait in the kernel.
    #[must_use]
    pub fn wants_read(&self) -> bool {
        match self.phase() {
            Phase::Open => !self.is_parked && !self.must_wait(),
            Phase::Lingering => true,
            Phase::Finishing | Phase::Closed => false,
        }
    }

    /// Whether bytes wait that [`Connection::next_request`] with empty input can go on with now.
    #[must_use]
    pub fn wants_resume(&self) -> bool {
        self.is_blocked && !self.is_parked && !self.must_wait()
    }

    /// Keeps what is left of the input for a later turn, because this one has enough to do. Answers whether something is left; then
    /// nothing is read until [`Connection::unpark`], and the time-outs of receiving stand still.
    pub fn park(&mut self, input: &mut Input<'_>) -> bool {
        if self.stopped || self.closed {
            input.taken = input.bytes.len();
            return false;
        }
        self.keep(input);
        self.is_parked = self.start < self.buffer.len();
        self.is_blocked |= self.is_parked;
        self.is_parked
    }

    /// Lets [`Connection::next_request`] go on, with empty input.
    pub fn unpark(&mut self) {
        self.is_parked = false;
    }

    /// Whether the request that is being received shall be given up, because all connections together hold too much.
    #[must_use]
    pub fn is_receiving(&self) -> bool {
        !self.is_blocked && self.request_start_ns.is_some() && !self.buffer.is_empty()
    }

    /// Gives up the request that is being received: 503, or 1013 on a WebSocket. Earlier ones are still answered.
    pub fn refuse_for_memory(&mut self) {
        match self.mode {
            Mode::Http(_) => self.refuse(Refusal::MemoryUsedUp),
            Mode::WebSocket(_) => self.on_control(Err(CloseCode::TryAgainLater)),
        }
    }

    /// Bytes of requests that are not complete or not taken yet.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// What is to be written, in one write.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.replies.unsent()
    }

    /// The socket took the first `bytes` of the output; 0 tells that a write was tried and took nothing.
    pub fn output_written(&mut self, bytes: usize, now_ns: u64) {
        self.replies.mark_sent(bytes);
        if bytes == 0 {
            self.replies.judge_events();
        }
        let is_left = self.replies.unsent_bytes() > 0;
        if bytes > 0 && !self.is_websocket() {
            // The pause until the next request starts when the reply is out.
            self.received_ns = self.received_ns.max(now_ns);
        }
        if bytes > 0 || self.write_progress_ns.is_none() {
            self.write_progress_ns = is_left.then_some(now_ns);
        }
        if self.phase() == Phase::Lingering && self.linger_until_ns.is_none() {
            self.linger_until_ns = Some(now_ns + self.limits().linger_ns);
        }
    }

    /// The peer sent its last byte. Whole requests before it are still answered.
    pub fn on_end_of_input(&mut self) {
        if self.phase() == Phase::Lingering || (self.replies.outstanding_count() == 0 && self.output().is_empty()) {
            self.closed = true;
        }
        self.stop();
        // Nobody is left to wait for: the last write is followed by closing.
        self.linger_until_ns = Some(0);
    }

    #[must_use]
    pub fn phase(&self) -> Phase {
        if self.closed || self.replies.overflowed {
            Phase::Closed
        } else if !self.stopped {
            Phase::Open
        } else if self.replies.outstanding_count() > 0 || !self.output().is_empty() {
            Phase::Finishing
        } else if self.linger_until_ns == Some(0) {
            Phase::Closed
        } else {
            Phase::Lingering
        }
    }

    /// When [`Connection::on_time`] is due, at the latest; `u64::MAX` = nothing is awaited. It changes with every call.
    #[must_use]
    pub fn deadline_ns(&self) -> u64 {
        let limits = self.limits();
        let write = self.write_progress_ns.map_or(u64::MAX, |at| at + limits.write_ns);
        let other = match self.phase() {
            Phase::Open if self.is_blocked => u64::MAX,
            Phase::Open => self.receive_deadline_ns().min(self.release_due_ns()),
            Phase::Lingering => self.linger_until_ns.unwrap_or(0),
            Phase::Finishing => u64::MAX,
            Phase::Closed => 0,
        };
        write.min(other)
    }

    /// Acts on deadlines that passed: 408, a ping, closing, or giving back buffers.
    pub fn on_time(&mut self, now_ns: u64) {
        if self.write_progress_ns.is_some_and(|at| now_ns >= at + self.limits().write_ns) {
            self.closed = true;
            return;
        }
        match self.phase() {
            Phase::Open if !self.is_blocked => {
                if now_ns >= self.release_due_ns() {
                    self.release_memory();
                }
                if now_ns >= self.receive_deadline_ns() {
                    self.on_receive_deadline(now_ns);
                }
            }
            Phase::Lingering => self.closed |= now_ns >= self.linger_until_ns.unwrap_or(0),
            Phase::Open | Phase::Finishing | Phase::Closed => {}
        }
    }

    /// Ends the connection in order because the process stops: outstanding requests are answered, then it closes.
    pub fn drain(&mut self) {
        if !self.stopped && self.is_websocket() {
            websocket::write_close(self.replies.output_mut(), Some(CloseCode::GoingAway as u16));
            self.replies.abandon();
        }
        self.stop();
    }

    /// Heap bytes that the connection holds.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.buffer.capacity() + self.replies.held_bytes()
    }

    fn limits(&self) -> &Limits {
        &self.replies.policy.limits
    }

    fn stop(&mut self) {
        self.stopped = true;
        self.is_blocked = false;
        self.is_parked = false;
        self.request_start_ns = None;
        self.buffer = Vec::new();
        self.start = 0;
    }

    /// Whether replies must leave before more is parsed.
    fn must_wait(&self) -> bool {
        // The switch to WebSocket ends ordered replies, so every earlier one must be out.
        self.replies.is_full() || (self.route == Some(Route::Upgrade) && self.replies.outstanding_count() > 0)
    }

    fn find_request(&mut self, input: &mut Input<'_>, now_ns: u64) -> Option<Found> {
        loop {
            if self.stopped || self.closed {
                self.lingered_bytes += (input.bytes.len() - input.taken) as u64;
                self.closed |= self.lingered_bytes > self.limits().linger_bytes_max;
                input.taken = input.bytes.len();
                // The body of the last request lay in it.
                self.buffer = Vec::new();
                self.start = 0;
                return None;
            }
            if self.must_wait() {
                self.is_blocked = true;
                self.keep(input);
                return None;
            }
            if std::mem::take(&mut self.is_blocked) {
                // The peer was not read from meanwhile, so its time-outs start again.
                self.received_ns = now_ns;
                self.request_start_ns = self.request_start_ns.map(|_| now_ns);
            }
            if self.start < self.buffer.len() {
                self.keep(input);
            } else {
                self.clear_buffer();
            }
            let is_in_buffer = !self.buffer.is_empty();
            let base = if is_in_buffer { self.start } else { input.taken };
            match self.step(input, is_in_buffer) {
                Step::Nothing => return None,
                Step::More { kept } => {
                    // Nothing is kept after a control frame between messages: no request has begun.
                    self.request_start_ns = (kept > 0).then(|| self.request_start_ns.unwrap_or(now_ns));
                    self.keep_partial(input, is_in_buffer, kept);
                    return None;
                }
                Step::Head => self.on_head(if is_in_buffer { None } else { Some(input) }),
                Step::Refused(refusal) => self.refuse(refusal),
                Step::Control(event) => self.on_control(event),
                Step::Request { body, consumed } => {
                    let body = base + body.start..base + body.end;
                    let head = base..base + consumed;
                    if is_in_buffer {
                        self.start += consumed;
                    } else {
                        input.taken += consumed;
                    }
                    self.request_start_ns = None;
                    self.had_request = true;
                    let bytes = if is_in_buffer { &self.buffer[head] } else { &input.bytes[head] };
                    if let Some((number, probe)) =
                        on_complete(&mut self.mode, &mut self.replies, self.route.take(), self.framing, bytes)
                    {
                        self.stopped |= !self.framing.keep_alive;
                        return Some(Found { number, probe, body, is_in_buffer });
                    }
                    if !self.framing.keep_alive {
                        self.stop();
                    }
                }
            }
        }
    }

    /// One step of the parser over the bytes that are there.
    fn step(&mut self, input: &mut Input<'_>, is_in_buffer: bool) -> Step {
        let limits = &self.replies.policy.limits;
        let window = if is_in_buffer { &mut self.buffer[self.start..] } else { &mut input.bytes[input.taken..] };
        if window.is_empty() {
            return Step::Nothing;
        }
        match &mut self.mode {
            Mode::Http(parser) => match parser.advance(window, &limits.http) {
                Ok(Progress::More { kept }) => Step::More { kept },
                Ok(Progress::Head) => Step::Head,
                Ok(Progress::Complete { consumed }) => Step::Request { body: parser.body(), consumed },
                Err(refusal) => Step::Refused(refusal),
            },
            Mode::WebSocket(parser) => match parser.advance(window, &limits.websocket) {
                Ok(FrameEvent::More { kept }) => Step::More { kept },
                Ok(FrameEvent::Message { consumed }) => Step::Request { body: parser.message(), consumed },
                event => Step::Control(event),
            },
        }
    }

    /// Decides by the head alone, before the body is received. `input`: where the head lies, unless in the buffer.
    fn on_head(&mut self, input: Option<&Input<'_>>) {
        let Mode::Http(parser) = &self.mode else { return };
        let head = parser.head();
        let window = input.map_or(&self.buffer[self.start..], |input| &input.bytes[input.taken..]);
        let policy = &self.replies.policy;
        self.framing = Framing {
            keep_alive: head.keep_alive,
            http10: head.version_minor == 0,
            head_only: head.method == Method::Head,
            // A list of origins in a configuration stays far below 65,536.
            cors_index: policy.cors_index(head.origin.of(window)).map(|index| index as u16),
        };
        match route(policy, head, window) {
            Ok(route) => {
                self.route = Some(route);
                if head.expect_continue && head.has_body() {
                    self.replies.push_raw(|out| out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n"));
                }
            }
            // A body that nobody wants is not waited for.
            Err(refusal) if head.has_body() => self.refuse(refusal),
            Err(refusal) => {
                self.route = Some(Route::Refused);
                self.replies.push_refusal(refusal, self.framing);
            }
        }
    }

    /// Answers with a refusal and stops, because where the next request starts is not known.
    fn refuse(&mut self, refusal: Refusal) {
        let head_only = self.framing.head_only && self.route.is_some();
        self.replies.push_refusal(refusal, Framing { keep_alive: false, head_only, ..Framing::default() });
        self.stop();
    }

    fn on_control(&mut self, event: Result<FrameEvent, CloseCode>) {
        let close_code = match event {
            Ok(FrameEvent::Ping(payload)) => return websocket::write_pong(self.replies.output_mut(), &payload),
            Ok(FrameEvent::Close(code)) => code,
            Ok(FrameEvent::Pong | FrameEvent::More { .. } | FrameEvent::Message { .. }) => return,
            Err(code) => Some(code as u16),
        };
        websocket::write_close(self.replies.output_mut(), close_code);
        self.replies.abandon();
        self.stop();
    }

    /// Appends what is left of the input to the buffer.
    fn keep(&mut self, input: &mut Input<'_>) {
        if input.taken == input.bytes.len() {
            return;
        }
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(&input.bytes[input.taken..]);
        input.taken = input.bytes.len();
    }

    /// Keeps the first `kept` bytes of an incomplete request.
    fn keep_partial(&mut self, input: &mut Input<'_>, is_in_buffer: bool, kept: usize) {
        if is_in_buffer {
            self.buffer.truncate(self.start + kept);
            return;
        }
        self.buffer.extend_from_slice(&input.bytes[input.taken..input.taken + kept]);
        input.taken = input.bytes.len();
    }

    fn clear_buffer(&mut self) {
        self.start = 0;
        if self.buffer.capacity() > self.limits().buffer_keep_bytes {
            self.buffer = Vec::new();
        } else {
            self.buffer.clear();
        }
    }

    fn release_memory(&mut self) {
        if self.start == self.buffer.len() {
            self.buffer = Vec::new();
            self.start = 0;
        }
        self.replies.release_memory();
    }

    /// When idle buffers are to be given back.
    fn release_due_ns(&self) -> u64 {
        let is_idle =
            self.request_start_ns.is_none() && self.replies.outstanding_count() == 0 && self.output().is_empty();
        if is_idle && self.held_bytes() > 0 { self.received_ns + self.limits().buffer_release_ns } else { u64::MAX }
    }

    /// When the peer must have sent something.
    fn receive_deadline_ns(&self) -> u64 {
        let limits = self.limits();
        match (self.request_start_ns, &self.mode) {
            (Some(start_ns), mode) => {
                let in_head = matches!(mode, Mode::Http(parser) if !parser.in_body());
                let whole_ns = if in_head { limits.head_ns } else { limits.request_ns };
                (start_ns + whole_ns).min(self.received_ns + limits.between_bytes_ns)
            }
            (None, Mode::WebSocket(_)) => self.received_ns + limits.ping_ns * if self.ping_sent { 2 } else { 1 },
            (None, Mode::Http(_)) if self.replies.outstanding_count() > 0 || !self.output().is_empty() => u64::MAX,
            (None, Mode::Http(_)) => {
                self.received_ns + if self.had_request { limits.idle_ns } else { limits.first_byte_ns }
            }
        }
    }

    fn on_receive_deadline(&mut self, now_ns: u64) {
        match (self.request_start_ns, &self.mode) {
            (Some(_), Mode::Http(_)) => self.refuse(Refusal::RequestTimeout),
            (Some(_), Mode::WebSocket(_)) => self.on_control(Err(CloseCode::Policy)),
            (None, Mode::WebSocket(_)) if !self.ping_sent => {
                websocket::write_ping(self.replies.output_mut());
                self.ping_sent = true;
            }
            (None, Mode::WebSocket(_) | Mode::Http(_)) => self.closed = true,
        }
        self.write_progress_ns.get_or_insert(now_ns);
    }
}

enum Step {
    Nothing,
    More { kept: usize },
    Head,
    Request { body: Range<usize>, consumed: usize },
    Refused(Refusal),
    Control(Result<FrameEvent, CloseCode>),
}

/// Opens the reply to a complete request. `None`: it needs no one else's answer, and has it.
fn on_complete(
    mode: &mut Mode,
    replies: &mut Replies,
    route: Option<Route>,
    framing: Framing,
    bytes: &[u8],
) -> Option<(u32, Option<Probe>)> {
    let Mode::Http(parser) = mode else { return Some((replies.open(framing), None)) };
    let head = *parser.head();
    parser.reset();
    match route.unwrap_or(Route::Refused) {
        Route::Call => Some((replies.open(framing), None)),
        Route::Probe(probe) => Some((replies.open(framing), Some(probe))),
        Route::Preflight => {
            let policy = Arc::clone(&replies.policy);
            replies.push_raw(|out| replies::write_preflight(out, &policy, framing));
            None
        }
        Route::Upgrade => {
            replies.push_raw(|out| replies::write_upgrade(out, &websocket::accept_key(head.websocket_key.of(bytes))));
            replies.websocket = true;
            *mode = Mode::WebSocket(FrameParser::default());
            None
        }
        Route::Refused => None,
    }
}

/// Where a request goes, or why it goes nowhere.
fn route(policy: &Policy, head: &Head, window: &[u8]) -> Result<Route, Refusal> {
    let host = head.host.of(window);
    // HTTP/1.0 may leave Host out; browsers, the reason for this check, never do.
    let may_be_missing = head.version_minor == 0;
    if !(host.is_empty() && may_be_missing || http::host_is_allowed(host, &policy.vhosts)) {
        return Err(Refusal::HostNotAllowed);
    }
    let probe = match head.path.of(window) {
        b"/" | b"" => return route_root(policy, head, window),
        b"/livez" => Probe::Live,
        b"/readyz" => Probe::Ready,
        b"/healthz" => Probe::Healthy,
        _ => return Err(Refusal::PathUnknown),
    };
    match head.method {
        Method::Get | Method::Head => Ok(Route::Probe(probe)),
        Method::Post | Method::Options | Method::Other => Err(Refusal::MethodNotAllowed),
    }
}

fn route_root(policy: &Policy, head: &Head, window: &[u8]) -> Result<Route, Refusal> {
    let origin = head.origin.of(window);
    match head.method {
        Method::Post if head.content_type != ContentType::Json => Err(Refusal::ContentTypeNotJson),
        Method::Post => Ok(Route::Call),
        Method::Options if head.preflight && policy.cors_index(origin).is_some() => Ok(Route::Preflight),
        Method::Get if head.websocket => {
            // Browsers do not apply CORS to WebSockets, so a foreign page is stopped here.
            if !origin.is_empty() && policy.cors_index(origin).is_none() {
                return Err(Refusal::OriginNotAllowed);
            }
            if !head.websocket_version_13 {
                return Err(Refusal::WebSocketVersionUnknown);
            }
            if !websocket::key_is_valid(head.websocket_key.of(window)) {
                return Err(Refusal::WebSocketKeyMalformed);
            }
            Ok(Route::Upgrade)
        }
        Method::Get | Method::Head | Method::Options | Method::Other => Err(Refusal::MethodNotAllowed),
    }
}
