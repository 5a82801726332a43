//! Incremental HTTP/1.1 request parser: bytes in, one request head and its body out.
//!
//! Runs on: ingress shard; never blocks, never allocates.
//! The caller keeps the bytes of the request that is not complete yet in one window that starts where the request starts, and calls
//! [`RequestParser::advance`] whenever the window grew. Feeding the same bytes in other portions gives the same result (property test).
//! A chunked body is decoded in place: chunk headers and data already taken leave the window.
//!
//! Every deviation that other servers read differently is refused instead of repaired, because a proxy in front of us that repairs it
//! differently is how requests are smuggled. Absent on purpose: HTTP/2, compression, multipart, header values nobody here needs.
//!
//! Source: RFC 9110, RFC 9112.

mod refusal;
mod scan;

#[cfg(test)]
mod tests;

pub use refusal::{Refusal, reason_phrase};

use crate::primitives::Span;
use scan::{find_lf, is_token, list_contains, parse_chunk_line, parse_decimal, trim_ows, value_is_clean};

/// Bounds of one request. All in bytes unless the name says count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Request line including its CRLF. The only useful target is `/`; 8,000 is what RFC 9112 section 3 asks servers to take.
    pub request_line_bytes_max: usize,
    /// Request line and all headers. 16 KiB is what Node and nginx take; browsers with cookies stay below 8 KiB.
    pub head_bytes_max: usize,
    /// Number of header lines: bounds the work that many tiny headers cost.
    pub header_count_max: usize,
    /// Decoded body: 5 MiB, as go-ethereum.
    pub body_bytes_max: usize,
    /// One chunk-size line including extension and CRLF.
    pub chunk_line_bytes_max: usize,
    /// All chunk extensions of a request together: nobody needs them, and they cost bandwidth only.
    pub chunk_extension_bytes_max: usize,
    /// All trailer lines of a request together.
    pub trailer_bytes_max: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            request_line_bytes_max: 8_192,
            head_bytes_max: 16_384,
            header_count_max: 100,
            body_bytes_max: 5 << 20,
            chunk_line_bytes_max: 256,
            chunk_extension_bytes_max: 4_096,
            trailer_bytes_max: 4_096,
        }
    }
}

/// Method of a request. Every other token is `Other` and ends in 405.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Options,
    #[default]
    Other,
}

/// What the media type of `Content-Type` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContentType {
    #[default]
    Missing,
    Json,
    Other,
}

/// The parts of a request head that this server acts on. Spans point into the request's window and hold while the window is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub method: Method,
    pub content_type: ContentType,
    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub version_minor: u8,
    /// Whether the connection stays open after the response, by version and `Connection`.
    pub keep_alive: bool,
    pub chunked: bool,
    pub expect_continue: bool,
    /// `Connection: upgrade` and `Upgrade: websocket` are both there.
    pub websocket: bool,
    /// `Sec-WebSocket-Version: 13`.
    pub websocket_version_13: bool,
    /// `Access-Control-Request-Method` is there: an OPTIONS request is a CORS preflight.
    pub preflight: bool,
    pub content_length: Option<u64>,
    /// Path of the target without query.
    pub path: Span,
    /// `Host`, or the authority of an absolute target. Empty when HTTP/1.0 sent none.
    pub host: Span,
    pub origin: Span,
    pub websocket_key: Span,
    connection_keep_alive: bool,
    connection_close: bool,
    connection_upgrade: bool,
    upgrade_websocket: bool,
    host_seen: bool,
    origin_seen: bool,
    key_seen: bool,
    authority_from_target: bool,
}

impl Head {
    /// Whether a body follows the head (it may still be empty when chunked).
    #[must_use]
    pub fn has_body(&self) -> bool {
        self.chunked || self.content_length.is_some_and(|length| length > 0)
    }
}

/// What one call of [`RequestParser::advance`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The request is not complete. Only the first `kept` bytes of the window are still needed; new bytes go right after them.
    More { kept: usize },
    /// The head is complete; [`RequestParser::head`] is valid. Reported once, before any of the body is looked at. Call again.
    Head,
    /// The request is complete; it took `consumed` bytes of the window. [`RequestParser::body`] names its body.
    Complete { consumed: usize },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    RequestLine,
    Headers,
    FixedBody,
    ChunkLine,
    ChunkData,
    ChunkEnd,
    Trailers,
    Complete,
}

/// State of one request being received. `Default` or [`RequestParser::reset`] starts the next request.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestParser {
    head: Head,
    stage: Stage,
    skipped_empty_line: bool,
    header_count: u16,
    /// Next byte to interpret.
    read: usize,
    /// `window[read..scanned]` is known to hold no LF.
    scanned: usize,
    body_start: usize,
    body_bytes: usize,
    chunk_left_bytes: usize,
    extension_bytes: usize,
    trailer_bytes: usize,
}

impl RequestParser {
    /// Forgets the request; the next window starts at the next one.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// The head; complete once `Progress::Head` was reported.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The decoded body inside the window, complete with `Progress::Complete`.
    #[must_use]
    pub fn body(&self) -> std::ops::Range<usize> {
        self.body_start..self.body_start + self.body_bytes
    }

    /// Whether the head is complete and body bytes are awaited.
    #[must_use]
    pub fn in_body(&self) -> bool {
        !matches!(self.stage, Stage::RequestLine | Stage::Headers)
    }

    /// Interprets what the window holds beyond the last call.
    ///
    /// Runs on: ingress shard; never blocks, never allocates.
    /// Shapes:  `window` starts with the bytes that the last `More` kept; they are unchanged.
    /// Errors:  the refusal to answer with; the connection then closes, because where the next request starts is not known.
    pub fn advance(&mut self, window: &mut [u8], limits: &HttpLimits) -> Result<Progress, Refusal> {
        loop {
            let step = match self.stage {
                Stage::RequestLine => self.step_request_line(window, limits)?,
                Stage::Headers => self.step_header(window, limits)?,
                Stage::FixedBody => return Ok(self.step_fixed_body(window.len())),
                Stage::ChunkLine => self.step_chunk_line(window, limits)?,
                Stage::ChunkData => self.step_chunk_data(window),
                Stage::ChunkEnd => self.step_chunk_end(window)?,
                Stage::Trailers => self.step_trailer(window, limits)?,
                Stage::Complete => return Ok(Progress::Complete { consumed: self.read }),
            };
            match step {
                Step::Again => {}
                Step::HeadDone => return Ok(Progress::Head),
                Step::NeedBytes => return Ok(Progress::More { kept: self.release_gap(window) }),
            }
        }
    }

    /// Takes the next line up to `line_bytes_max` (CRLF included). `None`: it is not complete yet.
    fn next_line(
        &mut self,
        window: &[u8],
        line_bytes_max: usize,
        too_long: Refusal,
    ) -> Result<Option<(usize, usize)>, Refusal> {
        let start = self.read;
        let Some(lf) = find_lf(window, self.scanned.max(start)) else {
            self.scanned = window.len();
            return if window.len() - start > line_bytes_max { Err(too_long) } else { Ok(None) };
        };
        if lf + 1 - start > line_bytes_max {
            return Err(too_long);
        }
        if lf == start || window[lf - 1] != b'\r' {
            return Err(Refusal::BareLf);
        }
        self.read = lf + 1;
        self.scanned = lf + 1;
        Ok(Some((start, lf - 1)))
    }

    fn step_request_line(&mut self, window: &[u8], limits: &HttpLimits) -> Result<Step, Refusal> {
        let Some((start, end)) = self.next_line(window, limits.request_line_bytes_max, Refusal::RequestLineTooLong)?
        else {
            return Ok(Step::NeedBytes);
        };
        if start == end && !self.skipped_empty_line {
            // RFC 9112 section 2.2: one empty line before the request line is ignored (old clients send it after a POST body).
            self.skipped_empty_line = true;
            return Ok(Step::Again);
        }
        parse_request_line(&mut self.head, window, start, end)?;
        self.stage = Stage::Headers;
        Ok(Step::Again)
    }

    fn step_header(&mut self, window: &[u8], limits: &HttpLimits) -> Result<Step, Refusal> {
        let room = limits.head_bytes_max.saturating_sub(self.read);
        let Some((start, end)) = self.next_line(window, room, Refusal::HeadTooLarge)? else {
            return Ok(Step::NeedBytes);
        };
        if start == end {
            self.finish_head(limits)?;
            return Ok(Step::HeadDone);
        }
        self.header_count += 1;
        if usize::from(self.header_count) > limits.header_count_max {
            return Err(Refusal::HeadTooLarge);
        }
        let (name_end, value) = split_header(window, start, end)?;
        take_header(&mut self.head, &window[start..name_end], value, window)?;
        Ok(Step::Again)
    }

    fn finish_head(&mut self, limits: &HttpLimits) -> Result<(), Refusal> {
        let head = &mut self.head;
        if head.version_minor == 1 && !head.host_seen {
            return Err(Refusal::HostMissing);
        }
        if head.chunked && head.content_length.is_some() {
            return Err(Refusal::LengthAndChunked);
        }
        if head.chunked && head.version_minor == 0 {
            return Err(Refusal::ChunkedInHttp10);
        }
        if head.content_length.is_some_and(|length| length > limits.body_bytes_max as u64) {
            return Err(Refusal::BodyTooLarge);
        }
        head.keep_alive = !head.connection_close && (head.version_minor == 1 || head.connection_keep_alive);
        head.websocket = head.connection_upgrade && head.upgrade_websocket && head.version_minor == 1;
        self.body_start = self.read;
        self.stage = if head.chunked { Stage::ChunkLine } else { Stage::FixedBody };
        Ok(())
    }

    fn step_fixed_body(&mut self, window_bytes: usize) -> Progress {
        // At most `body_bytes_max`, checked in `finish_head`.
        let body_bytes = self.head.content_length.unwrap_or(0) as usize;
        let end = self.body_start + body_bytes;
        if window_bytes < end {
            return Progress::More { kept: window_bytes };
        }
        self.body_bytes = body_bytes;
        self.read = end;
        self.stage = Stage::Complete;
        Progress::Complete { consumed: end }
    }

    fn step_chunk_line(&mut self, window: &[u8], limits: &HttpLimits) -> Result<Step, Refusal> {
        let Some((start, end)) = self.next_line(window, limits.chunk_line_bytes_max, Refusal::ChunkLineTooLong)? else {
            return Ok(Step::NeedBytes);
        };
        let (size, extension_bytes) = parse_chunk_line(&window[start..end])?;
        self.extension_bytes += extension_bytes;
        if self.extension_bytes > limits.chunk_extension_bytes_max {
            return Err(Refusal::ChunkExtensionsTooLong);
        }
        if size > limits.body_bytes_max.saturating_sub(self.body_bytes) {
            return Err(Refusal::BodyTooLarge);
        }
        self.chunk_left_bytes = size;
        self.stage = if size == 0 { Stage::Trailers } else { Stage::ChunkData };
        Ok(Step::Again)
    }

    /// Moves the chunk's data that is there behind the body decoded so far.
    fn step_chunk_data(&mut self, window: &mut [u8]) -> Step {
        let take = self.chunk_left_bytes.min(window.len() - self.read);
        let target = self.body_start + self.body_bytes;
        if self.body_bytes == 0 {
            // The first data of a body is not moved: the body starts where it lies.
            self.body_start = self.read;
        } else {
            window.copy_within(self.read..self.read + take, target);
        }
        self.read += take;
        self.scanned = self.read;
        self.body_bytes += take;
        self.chunk_left_bytes -= take;
        if self.chunk_left_bytes > 0 {
            return Step::NeedBytes;
        }
        self.stage = Stage::ChunkEnd;
        Step::Again
    }

    fn step_chunk_end(&mut self, window: &[u8]) -> Result<Step, Refusal> {
        match &window[self.read..] {
            [b'\r', b'\n', ..] => {
                self.read += 2;
                self.scanned = self.read;
                self.stage = Stage::ChunkLine;
                Ok(Step::Again)
            }
            [] | [b'\r'] => Ok(Step::NeedBytes),
            _ => Err(Refusal::ChunkDataUnterminated),
        }
    }

    fn step_trailer(&mut self, window: &[u8], limits: &HttpLimits) -> Result<Step, Refusal> {
        let room = limits.trailer_bytes_max - self.trailer_bytes;
        let Some((start, end)) = self.next_line(window, room, Refusal::HeadTooLarge)? else {
            return Ok(Step::NeedBytes);
        };
        self.trailer_bytes += end + 2 - start;
        if start == end {
            self.stage = Stage::Complete;
            return Ok(Step::Again);
        }
        // Trailers are checked like headers and then dropped: nothing here uses one.
        split_header(window, start, end)?;
        Ok(Step::Again)
    }

    /// Moves bytes not interpreted yet down to the end of the decoded body, and says how much of the window is kept.
    fn release_gap(&mut self, window: &mut [u8]) -> usize {
        if !matches!(self.stage, Stage::ChunkLine | Stage::ChunkData | Stage::ChunkEnd | Stage::Trailers) {
            return window.len();
        }
        let target = self.body_start + self.body_bytes;
        let gap = self.read - target;
        window.copy_within(self.read.., target);
        self.read -= gap;
        self.scanned -= gap.min(self.scanned);
        window.len() - gap
    }
}

enum Step {
    Again,
    HeadDone,
    NeedBytes,
}

/// Reads `METHOD SP target SP HTTP/1.x` with exactly one space each.
fn parse_request_line(head: &mut Head, window: &[u8], start: usize, end: usize) -> Result<(), Refusal> {
    let line = &window[start..end];
    if line.contains(&b'\r') {
        return Err(Refusal::BareCr);
    }
    if line.contains(&0) {
        return Err(Refusal::NulByte);
    }
    let method_end = line.iter().position(|&byte| byte == b' ').ok_or(Refusal::RequestLineMalformed)?;
    let version_start = line.iter().rposition(|&byte| byte == b' ').ok_or(Refusal::RequestLineMalformed)? + 1;
    if version_start <= method_end + 1 {
        return Err(Refusal::RequestLineMalformed);
    }
    let method = &line[..method_end];
    if !is_token(method) {
        return Err(Refusal::MethodNotToken);
    }
    let target = &line[method_end + 1..version_start - 1];
    if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err(Refusal::TargetMalformed);
    }
    head.version_minor = match &line[version_start..] {
        b"HTTP/1.1" => 1,
        b"HTTP/1.0" => 0,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            return Err(Refusal::VersionNotSupported);
        }
        _ => return Err(Refusal::RequestLineMalformed),
    };
    head.method = match method {
        b"POST" => Method::Post,
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"OPTIONS" => Method::Options,
        _ => Method::Other,
    };
    take_target(head, target, start + method_end + 1)
}

/// Splits the target (origin-form, absolute-form or `*`) into authority and path; the query is dropped.
fn take_target(head: &mut Head, target: &[u8], offset: usize) -> Result<(), Refusal> {
    let mut path_start = 0;
    if target[0] != b'/' && target != b"*" {
        // RFC 9112 section 3.2.2: absolute-form must be accepted, and its authority replaces Host.
        let authority_start = 7;
        if !target.get(..authority_start).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"http://")) {
            return Err(Refusal::TargetMalformed);
        }
        let rest = &target[authority_start..];
        let authority_bytes = rest.iter().position(|&byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        head.host = span(offset + authority_start, authority_bytes);
        head.authority_from_target = true;
        path_start = authority_start + authority_bytes;
    }
    let path = &target[path_start..];
    let path_bytes = path.iter().position(|&byte| byte == b'?').unwrap_or(path.len());
    head.path = span(offset + path_start, path_bytes);
    Ok(())
}

/// Checks one header line and splits it: the end of its name and its trimmed value.
fn split_header(window: &[u8], start: usize, end: usize) -> Result<(usize, Span), Refusal> {
    let line = &window[start..end];
    if matches!(line[0], b' ' | b'\t') {
        return Err(Refusal::ObsFold);
    }
    let Some(colon) = line.iter().position(|&byte| byte == b':') else {
        return Err(if line.contains(&b'\r') { Refusal::BareCr } else { Refusal::HeaderMalformed });
    };
    let name = &line[..colon];
    if !is_token(name) {
        return Err(match name {
            [] => Refusal::HeaderMalformed,
            _ if name.contains(&0) => Refusal::NulByte,
            _ if name.contains(&b'\r') => Refusal::BareCr,
            [token @ .., b' ' | b'\t'] if is_token(token) => Refusal::SpaceBeforeColon,
            _ => Refusal::HeaderNameNotToken,
        });
    }
    let value = &line[colon + 1..];
    if !value_is_clean(value) {
        return Err(if value.contains(&0) {
            Refusal::NulByte
        } else if value.contains(&b'\r') {
            Refusal::BareCr
        } else {
            Refusal::HeaderValueControl
        });
    }
    let (skipped, value_bytes) = trim_ows(value);
    Ok((start + colon, span(start + colon + 1 + skipped, value_bytes)))
}

/// Keeps what this server acts on. Names are told apart by length first, because most headers are none of these.
fn take_header(head: &mut Head, name: &[u8], value_span: Span, window: &[u8]) -> Result<(), Refusal> {
    let value = value_span.of(window);
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    match name.len() {
        4 if is("host") => {
            if std::mem::replace(&mut head.host_seen, true) {
                return Err(Refusal::HostRepeated);
            }
            if !head.authority_from_target {
                head.host = value_span;
            }
        }
        6 if is("origin") => {
            if std::mem::replace(&mut head.origin_seen, true) {
                return Err(Refusal::HeaderRepeated);
            }
            head.origin = value_span;
        }
        6 if is("expect") => {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(Refusal::ExpectationUnknown);
            }
            // RFC 9110 section 10.1.1: an HTTP/1.0 request's expectation is ignored.
            head.expect_continue = head.version_minor == 1;
        }
        7 if is("upgrade") => head.upgrade_websocket |= list_contains(value, b"websocket"),
        10 if is("connection") => {
            head.connection_close |= list_contains(value, b"close");
            head.connection_keep_alive |= list_contains(value, b"keep-alive");
            head.connection_upgrade |= list_contains(value, b"upgrade");
        }
        12 if is("content-type") => {
            if head.content_type != ContentType::Missing {
                return Err(Refusal::HeaderRepeated);
            }
            head.content_type = parse_content_type(value);
        }
        14 if is("content-length") => {
            let length = parse_decimal(value)?;
            if head.content_length.is_some_and(|earlier| earlier != length) {
                return Err(Refusal::LengthsDiffer);
            }
            head.content_length = Some(length);
        }
        17 if is("transfer-encoding") => {
            if head.chunked {
                return Err(Refusal::HeaderRepeated);
            }
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::TransferEncodingUnknown);
            }
            head.chunked = true;
        }
        17 if is("sec-websocket-key") => {
            if std::mem::replace(&mut head.key_seen, true) {
                return Err(Refusal::HeaderRepeated);
            }
            head.websocket_key = value_span;
        }
        21 if is("sec-websocket-version") => head.websocket_version_13 = value == b"13",
        29 if is("access-control-request-method") => head.preflight = true,
        _ => {}
    }
    Ok(())
}

/// `application/json`, or one of the two names that JSON-RPC over HTTP drafts used and go-ethereum takes; parameters are ignored.
fn parse_content_type(value: &[u8]) -> ContentType {
    let media_type = value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    let known: [&[u8]; 3] = [b"application/json", b"application/json-rpc", b"application/jsonrequest"];
    if known.iter().any(|name| media_type.eq_ignore_ascii_case(name)) { ContentType::Json } else { ContentType::Other }
}

/// Whether a `Host` value is one this server answers to: `localhost`, an IP literal, or one of `vhosts` (`*` = any), with any port.
///
/// A browser page of another site reaches a local port by DNS rebinding under its own host name; this check is what stops it.
#[must_use]
pub fn host_is_allowed(host: &[u8], vhosts: &[String]) -> bool {
    if vhosts.iter().any(|vhost| vhost == "*") {
        return true;
    }
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let port_is_decimal = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, after)) = rest.split_once(']') else { return false };
        let port_is_right = after.is_empty() || after.strip_prefix(':').is_some_and(port_is_decimal);
        return port_is_right && address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let name = match host.split_once(':') {
        Some((name, port)) if port_is_decimal(port) => name,
        Some(_) => return false,
        None => host,
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::Ipv4Addr>().is_ok()
        || (!name.is_empty() && vhosts.iter().any(|vhost| vhost.eq_ignore_ascii_case(name)))
}

/// A span inside a head: offsets are below `head_bytes_max` and the request line bound, so they fit 32 bits.
fn span(start: usize, len: usize) -> Span {
    Span { start: start as u32, len: len as u32 }
}
