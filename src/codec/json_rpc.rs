//! Bytes of a request body in, JSON-RPC 2.0 requests out, as slices of the body.
//!
//! Runs on: ingress shard. One pass over the bytes, no allocation, the body is not changed. The whole grammar of RFC 8259
//! is checked, in skipped values too; what is accepted equals `serde_json` (raw values) except:
//! * at most `JSON_DEPTH_MAX` containers inside one another;
//! * a member named `jsonrpc`, `id`, `method` or `params` may stand only once in a request: two readers of the same
//!   bytes must not see two methods. Other names, and all names inside params, may repeat; unknown members are ignored.
//!
//! Lone surrogates (`"\ud800"`) are grammatical and pass here; `parse_params` refuses them where text is needed.
//! Deliberately absent: values. Params go to simd-json by `parse_params`, the hex of a transaction to `codec::hex`.

mod plain;
mod scanner;

use std::borrow::Cow;

use scanner::{Fault, Nesting, Scanner};

/// Containers inside one another in a body, the batch array and the request object included. The deepest useful request
/// (state overrides in a batch) needs seven.
pub const JSON_DEPTH_MAX: u32 = 64;

const SEND_RAW_TRANSACTION: &[u8] = b"eth_sendRawTransaction";

/// A request body that is well-formed so far: a single request has been checked to its end, a batch is checked while it
/// is iterated.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    Single(Request<'a>),
    Batch(Batch<'a>),
}

/// The id of a request, as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id<'a> {
    /// A notification: it gets no reply.
    Absent,
    /// The bytes of the string (quotes included), number or `null`.
    Sent(&'a [u8]),
}

impl<'a> Id<'a> {
    /// What a reply carries: the bytes as sent, `null` when there are none.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        match self {
            Id::Absent => b"null",
            Id::Sent(bytes) => bytes,
        }
    }
}

/// One request. All slices point into the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    pub id: Id<'a>,
    /// The method's name between its quotes, escapes not resolved (see `method_name`). No method of ours needs escapes.
    pub method: &'a [u8],
    pub method_escaped: bool,
    /// Raw JSON of the array or object; empty when absent or `null`.
    pub params: &'a [u8],
    /// The only element of `params` when that is one string without escapes, between its quotes.
    pub sole_string: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    /// The method's name with its escapes resolved; a lone surrogate becomes U+FFFD. Allocates only if there are escapes.
    #[must_use]
    pub fn method_name(&self) -> Cow<'a, [u8]> {
        if self.method_escaped { Cow::Owned(unescape(self.method)) } else { Cow::Borrowed(self.method) }
    }

    /// The hex string when this is `eth_sendRawTransaction` with exactly one string.
    #[must_use]
    pub fn as_send_raw_transaction(&self) -> Option<FastSend<'a>> {
        let hex = self.sole_string.filter(|_| self.method == SEND_RAW_TRANSACTION)?;
        Some(FastSend { id: self.id, hex })
    }
}

/// What the ingress fast path needs of a request: nothing in it has been decoded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastSend<'a> {
    pub id: Id<'a>,
    pub hex: &'a [u8],
}

/// Why a body or a batch item is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {offset}")]
pub struct Error<'a> {
    pub kind: ErrorKind,
    /// Position in the body.
    pub offset: usize,
    /// Of the refused request, where it could be read.
    pub id: Id<'a>,
}

const _: () = assert!(size_of::<Error<'_>>() <= 48, "returned by value for every refused request");

/// The rule that a body or a batch item breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ErrorKind {
    #[error("unexpected end of JSON")]
    UnexpectedEnd,
    #[error("unexpected byte 0x{0:02x}")]
    UnexpectedByte(u8),
    #[error("control character 0x{0:02x} in a string")]
    ControlCharacter(u8),
    #[error("invalid escape in a string")]
    BadEscape,
    #[error("invalid UTF-8")]
    BadUtf8,
    #[error("JSON nested deeper than {JSON_DEPTH_MAX}")]
    TooDeep,
    #[error("bytes after the end of the JSON value")]
    TrailingBytes,
    #[error("request is not an object")]
    NotAnObject,
    #[error("empty batch")]
    EmptyBatch,
    #[error("batch has more than {items_max} items")]
    TooManyItems { items_max: usize },
    #[error("member \"{0}\" stands twice")]
    DuplicateMember(Member),
    #[error("member \"jsonrpc\" is missing")]
    VersionMissing,
    #[error("member \"jsonrpc\" is not \"2.0\"")]
    VersionWrong,
    #[error("member \"method\" is missing")]
    MethodMissing,
    #[error("member \"method\" is not a string")]
    MethodType,
    #[error("member \"id\" is not a string, a number or null")]
    IdType,
    #[error("member \"params\" is not an array or an object")]
    ParamsType,
}

impl ErrorKind {
    /// The JSON-RPC error code: -32700 parse error, -32600 invalid request, -32602 invalid params.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            ErrorKind::UnexpectedEnd
            | ErrorKind::UnexpectedByte(_)
            | ErrorKind::ControlCharacter(_)
            | ErrorKind::BadEscape
            | ErrorKind::BadUtf8
            | ErrorKind::TooDeep
            | ErrorKind::TrailingBytes => -32700,
            ErrorKind::ParamsType => -32602,
            _ => -32600,
        }
    }

    /// Whether the error condemns the whole body, so that no other item of the batch may be answered.
    #[must_use]
    pub fn is_fatal(self) -> bool {
        self.code() == -32700 || matches!(self, ErrorKind::EmptyBatch | ErrorKind::TooManyItems { .. })
    }
}

/// The members of a request that have a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    Version,
    Id,
    Method,
    Params,
}

impl Member {
    const ALL: [Member; 4] = [Member::Version, Member::Id, Member::Method, Member::Params];

    fn name(self) -> &'static str {
        match self {
            Member::Version => "jsonrpc",
            Member::Id => "id",
            Member::Method => "method",
            Member::Params => "params",
        }
    }
}

impl std::fmt::Display for Member {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Parses a request body: one request, or the opening of a batch of at most `items_max`.
///
/// Runs on: ingress shard; never allocates.
/// Errors:  `-32700` for text that is not JSON, `-32600` and `-32602` for JSON that is not a request.
pub fn parse(body: &[u8], items_max: usize) -> Result<Body<'_>, Error<'_>> {
    let mut scanner = Scanner::new(body);
    scanner.skip_whitespace();
    if scanner.bytes.get(scanner.at) != Some(&b'[') {
        return parse_single(scanner).map(Body::Single);
    }
    let array_offset = scanner.at;
    scanner.at += 1;
    scanner.skip_whitespace();
    if scanner.bytes.get(scanner.at) == Some(&b']') {
        scanner.at += 1;
        scanner.expect_end().map_err(without_id)?;
        return Err(without_id((ErrorKind::EmptyBatch, array_offset)));
    }
    Ok(Body::Batch(Batch { scanner, items_count: 0, items_max, ended: false }))
}

/// The fast path: the hex of a body that is a single `eth_sendRawTransaction` with one string without escapes.
///
/// `None` says only "take the general path", which reads the same body and finds the same request or the error.
#[must_use]
pub fn send_raw_transaction(body: &[u8]) -> Option<FastSend<'_>> {
    let mut scanner = Scanner::new(body);
    scanner.skip_whitespace();
    parse_single(scanner).ok()?.as_send_raw_transaction()
}

fn parse_single(mut scanner: Scanner<'_>) -> Result<Request<'_>, Error<'_>> {
    let item = parse_item(&mut scanner, 0);
    if item.is_ok_or_item_error() {
        // A body that is not JSON is a parse error, whatever request its front holds.
        scanner.expect_end().map_err(without_id)?;
    }
    item
}

/// Requests of a batch, in order, read while iterating.
///
/// A fatal error (`ErrorKind::is_fatal`) ends the iteration and condemns the items before it: act on none of them before
/// the iterator has ended. Other errors concern their item only.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    scanner: Scanner<'a>,
    items_count: usize,
    items_max: usize,
    ended: bool,
}

impl<'a> Iterator for Batch<'a> {
    type Item = Result<Request<'a>, Error<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = match self.skip_to_item() {
            Ok(true) => parse_item(&mut self.scanner, 1),
            Ok(false) => {
                self.ended = true;
                return None;
            }
            Err(fault) => Err(without_id(fault)),
        };
        self.items_count += 1;
        self.ended = !item.is_ok_or_item_error();
        Some(item)
    }
}

impl Batch<'_> {
    /// Moves to the next item; false when the array and the body have ended.
    fn skip_to_item(&mut self) -> Result<bool, Fault> {
        if self.items_count > 0 {
            self.scanner.skip_whitespace();
            match self.scanner.peek()? {
                b',' => self.scanner.at += 1,
                b']' => {
                    self.scanner.at += 1;
                    self.scanner.expect_end()?;
                    return Ok(false);
                }
                _ => return Err(self.scanner.unexpected()),
            }
            self.scanner.skip_whitespace();
        }
        if self.items_count >= self.items_max {
            return Err((ErrorKind::TooManyItems { items_max: self.items_max }, self.scanner.at));
        }
        Ok(true)
    }
}

trait ItemOutcome {
    /// Whether the text after the item can still be read.
    fn is_ok_or_item_error(&self) -> bool;
}

impl ItemOutcome for Result<Request<'_>, Error<'_>> {
    fn is_ok_or_item_error(&self) -> bool {
        self.as_ref().err().is_none_or(|error| !error.kind.is_fatal())
    }
}

fn without_id<'a>((kind, offset): Fault) -> Error<'a> {
    Error { kind, offset, id: Id::Absent }
}

/// What has been seen of a request object.
struct Members<'a> {
    seen: u8,
    request: Request<'a>,
    /// The first broken rule that leaves the text readable. Reported when the object has ended: the id may stand last.
    broken: Option<Fault>,
}

impl Members<'_> {
    fn break_rule(&mut self, kind: ErrorKind, offset: usize) {
        self.broken = self.broken.or(Some((kind, offset)));
    }
}

/// Reads the value here as a request. `outer` containers are open around it.
fn parse_item<'a>(scanner: &mut Scanner<'a>, outer: u32) -> Result<Request<'a>, Error<'a>> {
    let start = scanner.at;
    if scanner.peek().map_err(without_id)? != b'{' {
        scanner.skip_value(outer).map_err(without_id)?;
        return Err(without_id((ErrorKind::NotAnObject, start)));
    }
    let request = Request { id: Id::Absent, method: b"", method_escaped: false, params: b"", sole_string: None };
    let mut members = Members { seen: 0, request, broken: None };
    parse_members(scanner, outer + 1, &mut members).map_err(without_id)?;
    let has = |member: Member| members.seen & (1 << member as u8) != 0;
    if !has(Member::Version) {
        members.broken = members.broken.or(Some((ErrorKind::VersionMissing, start)));
    } else if !has(Member::Method) {
        members.broken = members.broken.or(Some((ErrorKind::MethodMissing, start)));
    }
    match members.broken {
        None => Ok(members.request),
        Some((kind, offset)) => Err(Error { kind, offset, id: members.request.id }),
    }
}

/// Reads an object from its brace to its brace.
fn parse_members<'a>(scanner: &mut Scanner<'a>, outer: u32, members: &mut Members<'a>) -> Result<(), Fault> {
    scanner.at += 1;
    scanner.skip_whitespace();
    if scanner.peek()? == b'}' {
        scanner.at += 1;
        return Ok(());
    }
    loop {
        let name_offset = scanner.at;
        let member = parse_name(scanner)?;
        scanner.expect(b':')?;
        scanner.skip_whitespace();
        match member {
            Some(member) => {
                if members.seen & (1 << member as u8) != 0 {
                    members.break_rule(ErrorKind::DuplicateMember(member), name_offset);
                }
                members.seen |= 1 << member as u8;
                parse_member(scanner, outer, member, members)?;
            }
            None => scanner.skip_value(outer)?,
        }
        scanner.skip_whitespace();
        match scanner.peek()? {
            b',' => scanner.at += 1,
            b'}' => {
                scanner.at += 1;
                return Ok(());
            }
            _ => return Err(scanner.unexpected()),
        }
        scanner.skip_whitespace();
    }
}

/// Reads a member's name; `None` for one without meaning here.
#[inline]
fn parse_name(scanner: &mut Scanner<'_>) -> Result<Option<Member>, Fault> {
    const VERSION: u64 = u64::from_le_bytes(*b"\"jsonrpc");
    const METHOD: u64 = u64::from_le_bytes(*b"\"method\"");
    const PARAMS: u64 = u64::from_le_bytes(*b"\"params\"");
    const ID: u32 = u32::from_le_bytes(*b"\"id\"");
    let rest = &scanner.bytes[scanner.at..];
    // The usual spellings, quotes included, are told apart by one word.
    let Some(&word) = rest.first_chunk::<8>() else {
        return parse_unusual_name(scanner);
    };
    let word = u64::from_le_bytes(word);
    let (member, bytes) = match word {
        METHOD => (Member::Method, 8),
        PARAMS => (Member::Params, 8),
        VERSION if rest.get(8) == Some(&b'"') => (Member::Version, 9),
        _ if word as u32 == ID => (Member::Id, 4),
        _ => return parse_unusual_name(scanner),
    };
    scanner.at += bytes;
    Ok(Some(member))
}

#[cold]
fn parse_unusual_name(scanner: &mut Scanner<'_>) -> Result<Option<Member>, Fault> {
    let (name, escaped) = parse_string(scanner)?;
    let name = if escaped { Cow::Owned(unescape(name)) } else { Cow::Borrowed(name) };
    Ok(Member::ALL.into_iter().find(|member| member.name().as_bytes() == &*name))
}

/// Reads a string; answers what is between its quotes and whether that holds escapes.
#[inline]
fn parse_string<'a>(scanner: &mut Scanner<'a>) -> Result<(&'a [u8], bool), Fault> {
    scanner.expect(b'"')?;
    let start = scanner.at;
    let escaped = scanner.skip_string()?;
    Ok((&scanner.bytes[start..scanner.at - 1], escaped))
}

/// Reads the value of a member into `members.request`. A value of the wrong type is skipped and noted.
#[inline]
fn parse_member<'a>(
    scanner: &mut Scanner<'a>,
    outer: u32,
    member: Member,
    members: &mut Members<'a>,
) -> Result<(), Fault> {
    let start = scanner.at;
    match (member, scanner.peek()?) {
        (Member::Version, b'"') => {
            if scanner.bytes[start..].starts_with(b"\"2.0\"") {
                scanner.at += 5;
                return Ok(());
            }
            let (version, escaped) = parse_string(scanner)?;
            if !escaped || unescape(version) != b"2.0" {
                members.break_rule(ErrorKind::VersionWrong, start);
            }
        }
        (Member::Method, b'"') => {
            let text = &scanner.bytes[start + 1..];
            if text.starts_with(SEND_RAW_TRANSACTION) && text.get(SEND_RAW_TRANSACTION.len()) == Some(&b'"') {
                // Comparing is faster than looking for the end, and this is the method that comes in thousands.
                members.request.method = &text[..SEND_RAW_TRANSACTION.len()];
                members.request.method_escaped = false;
                scanner.at = start + SEND_RAW_TRANSACTION.len() + 2;
                return Ok(());
            }
            let (method, escaped) = parse_string(scanner)?;
            members.request.method = method;
            members.request.method_escaped = escaped;
        }
        (Member::Params, b'[') => {
            members.request.sole_string = parse_array(scanner, outer)?;
            members.request.params = &scanner.bytes[start..scanner.at];
        }
        (Member::Params, b'{') => {
            scanner.skip_value(outer)?;
            members.request.sole_string = None;
            members.request.params = &scanner.bytes[start..scanner.at];
        }
        (Member::Params, b'n') => scanner.skip_literal(b"null")?,
        (Member::Id, b'"' | b'-' | b'0'..=b'9' | b'n') => {
            scanner.skip_value(outer)?;
            members.request.id = Id::Sent(&scanner.bytes[start..scanner.at]);
        }
        _ => {
            scanner.skip_value(outer)?;
            let kind = match member {
                Member::Version => ErrorKind::VersionWrong,
                Member::Id => ErrorKind::IdType,
                Member::Method => ErrorKind::MethodType,
                Member::Params => ErrorKind::ParamsType,
            };
            members.break_rule(kind, start);
        }
    }
    Ok(())
}

/// Moves over an array; answers its only element when that is a string without escapes.
#[inline]
fn parse_array<'a>(scanner: &mut Scanner<'a>, outer: u32) -> Result<Option<&'a [u8]>, Fault> {
    let start = scanner.at;
    let mut open = Nesting::inside(outer);
    open.push(false, start)?;
    scanner.at += 1;
    scanner.skip_whitespace();
    if scanner.peek()? != b'"' {
        scanner.at = start;
        scanner.skip_value(outer)?;
        return Ok(None);
    }
    let (string, escaped) = parse_string(scanner)?;
    if scanner.skip_to_next_value(&mut open)? {
        scanner.skip_values(open)?;
        return Ok(None);
    }
    Ok((!escaped).then_some(string))
}

/// Resolves the escapes of a string that the scanner has accepted; a lone surrogate becomes U+FFFD.
fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(raw.len());
    let mut at = 0;
    while at < raw.len() {
        if raw[at] != b'\\' {
            text.push(raw[at]);
            at += 1;
            continue;
        }
        let letter = raw[at + 1];
        at += 2;
        match letter {
            b'b' => text.push(0x08),
            b'f' => text.push(0x0c),
            b'n' => text.push(b'\n'),
            b'r' => text.push(b'\r'),
            b't' => text.push(b'\t'),
            b'u' => {
                let (character, length) = unescape_unicode(&raw[at..]);
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                at += length;
            }
            itself => text.push(itself),
        }
    }
    text
}

/// The character of `XXXX` or `XXXX\uXXXX` at the front of `raw`, and how many bytes it takes.
fn unescape_unicode(raw: &[u8]) -> (char, usize) {
    let unit = |at: usize| {
        let digits = raw.get(at..at + 4)?;
        digits.iter().try_fold(0, |unit, &digit| Some(unit << 4 | char::from(digit).to_digit(16)?))
    };
    let first = unit(0).unwrap_or(0xfffd);
    if (0xd800..0xdc00).contains(&first)
        && raw.get(4..6) == Some(b"\\u")
        && let Some(second @ 0xdc00..0xe000) = unit(6)
    {
        let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 10);
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 4)
}

/// Parses the params of a request into a value that borrows from `scratch`. Absent params are an empty array.
///
/// The parser works in place, hence the copy. `params` comes from `parse`, so its depth is bounded.
pub fn parse_params<'s>(
    params: &[u8],
    scratch: &'s mut Vec<u8>,
) -> Result<simd_json::BorrowedValue<'s>, simd_json::Error> {
    scratch.clear();
    scratch.extend_from_slice(if params.is_empty() { b"[]" } else { params });
    simd_json::to_borrowed_value(scratch)
}
