//! `codec::json_rpc` against serde_json: what is accepted, and what the members are.

use std::fmt::Write as _;

use native_sequencer::codec::json_rpc::{
    Body, Error, ErrorKind, Id, JSON_DEPTH_MAX, Member, Request, parse, parse_params, send_raw_transaction,
};
use rand::Rng;
use rand::rngs::StdRng;
use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use simd_json::prelude::*;

use super::{fuzz, mutate};

/// A body as either reader sees it: the requests in order, or one error for all of it.
type Seen<'a> = Result<Vec<Result<Request<'a>, (ErrorKind, Id<'a>)>>, i32>;

fn kind_and_id(error: Error<'_>) -> (ErrorKind, Id<'_>) {
    (error.kind, error.id)
}

fn ours(body: &[u8], items_max: usize) -> Seen<'_> {
    match parse(body, items_max) {
        Ok(Body::Single(request)) => Ok(vec![Ok(request)]),
        Ok(Body::Batch(batch)) => {
            let items: Vec<_> = batch.collect();
            let fatal = items.iter().filter_map(|item| item.as_ref().err()).find(|error| error.kind.is_fatal());
            match fatal {
                Some(error) => {
                    assert_eq!(items.last(), Some(&Err(*error)), "a fatal error ends the batch");
                    Err(error.kind.code())
                }
                None => Ok(items.into_iter().map(|item| item.map_err(kind_and_id)).collect()),
            }
        }
        Err(error) if error.kind.is_fatal() => Err(error.kind.code()),
        Err(error) => Ok(vec![Err(kind_and_id(error))]),
    }
}

/// The members of an object in order, names and values raw.
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Visitor<'de> for Members<'de> {
    type Value = Self;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some(entry) = map.next_entry()? {
            self.0.push(entry);
        }
        Ok(self)
    }
}

/// Deepest nesting of well-formed JSON.
fn depth(json: &str) -> u32 {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth -= 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn theirs(body: &[u8], items_max: usize) -> Seen<'_> {
    let Ok(raw) = serde_json::from_slice::<&RawValue>(body) else {
        return Err(-32700);
    };
    if depth(raw.get()) > JSON_DEPTH_MAX {
        return Err(-32700);
    }
    if !raw.get().starts_with('[') {
        return Ok(vec![their_item(raw)]);
    }
    let items: Vec<&RawValue> = serde_json::from_str(raw.get()).unwrap();
    if items.is_empty() || items.len() > items_max {
        return Err(-32600);
    }
    Ok(items.into_iter().map(their_item).collect())
}

fn text(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

fn their_item(raw: &RawValue) -> Result<Request<'_>, (ErrorKind, Id<'_>)> {
    if !raw.get().starts_with('{') {
        return Err((ErrorKind::NotAnObject, Id::Absent));
    }
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    let members = deserializer.deserialize_map(Members(Vec::new())).unwrap();
    let mut request = Request { id: Id::Absent, method: b"", method_escaped: false, params: b"", sole_string: None };
    let mut broken = Vec::new();
    let mut seen = Vec::new();
    for (name, value) in members.0 {
        let json = value.get();
        let member = match text(name).as_deref() {
            Some("jsonrpc") => Member::Version,
            Some("id") => Member::Id,
            Some("method") => Member::Method,
            Some("params") => Member::Params,
            _ => continue,
        };
        if seen.contains(&member) {
            broken.push(ErrorKind::DuplicateMember(member));
        }
        seen.push(member);
        match (member, json.as_bytes()[0]) {
            (Member::Version, _) if text(value).as_deref() == Some("2.0") => {}
            (Member::Version, _) => broken.push(ErrorKind::VersionWrong),
            (Member::Id, b'{' | b'[' | b't' | b'f') => broken.push(ErrorKind::IdType),
            (Member::Id, _) => request.id = Id::Sent(json.as_bytes()),
            (Member::Method, b'"') => {
                request.method = &json.as_bytes()[1..json.len() - 1];
                request.method_escaped = json.contains('\\');
            }
            (Member::Method, _) => broken.push(ErrorKind::MethodType),
            (Member::Params, b'n') => {}
            (Member::Params, b'[' | b'{') => {
                request.params = json.as_bytes();
                let elements = serde_json::from_str::<Vec<&RawValue>>(json).unwrap_or_default();
                request.sole_string = match elements.as_slice() {
                    [sole] if sole.get().starts_with('"') && !sole.get().contains('\\') => {
                        Some(&sole.get().as_bytes()[1..sole.get().len() - 1])
                    }
                    _ => None,
                };
            }
            (Member::Params, _) => broken.push(ErrorKind::ParamsType),
        }
    }
    if !seen.contains(&Member::Version) {
        broken.push(ErrorKind::VersionMissing);
    } else if !seen.contains(&Member::Method) {
        broken.push(ErrorKind::MethodMissing);
    }
    match broken.first() {
        Some(&kind) => Err((kind, request.id)),
        None => Ok(request),
    }
}

/// Compares one reading; answers whether every request in it was accepted.
#[track_caller]
fn check(body: &[u8]) -> bool {
    let items_max = 5;
    let seen = ours(body, items_max);
    let expected = theirs(body, items_max);
    if expected == Err(-32700) && seen == Err(-32600) {
        // A batch may be refused for its length before the broken text behind its last allowed item is reached.
        assert!(!matches!(ours(body, usize::MAX), Err(-32600)), "{:?}", String::from_utf8_lossy(body));
        return false;
    }
    assert_eq!(seen, expected, "{:?}", String::from_utf8_lossy(body));
    check_views(body, &seen);
    seen.is_ok_and(|items| items.iter().all(Result::is_ok))
}

/// The fast path and the method's name agree with the request.
#[track_caller]
fn check_views(body: &[u8], seen: &Seen<'_>) {
    let fast = send_raw_transaction(body);
    if body.trim_ascii_start().first() == Some(&b'[') {
        assert_eq!(fast, None);
        return;
    }
    let request = seen.as_ref().ok().and_then(|items| items[0].ok());
    let expected = request.filter(|request| request.method == b"eth_sendRawTransaction");
    let expected = expected.and_then(|request| Some((request.id, request.sole_string?)));
    assert_eq!(fast.map(|fast| (fast.id, fast.hex)), expected);
    let Some(request) = request else { return };
    let quoted = format!("\"{}\"", std::str::from_utf8(request.method).expect("the scanner checks UTF-8"));
    if let Ok(name) = serde_json::from_str::<String>(&quoted) {
        assert_eq!(*request.method_name(), *name.as_bytes());
    }
    // serde_json has the wider range of numbers; what both read must be equal.
    let mut scratch = Vec::new();
    let params = if request.params.is_empty() { b"[]" } else { request.params };
    let expected = serde_json::from_slice::<serde_json::Value>(params);
    if let (Ok(value), Ok(expected)) = (parse_params(request.params, &mut scratch), expected) {
        let text = value.encode();
        let again: serde_json::Value = serde_json::from_str(&text).expect("simd-json writes JSON");
        assert!(again == expected || expected.to_string().contains(['.', 'e', 'E']), "{text} {expected}");
    }
}

fn space(random: &mut StdRng, out: &mut String) {
    if random.random_bool(0.2) {
        let spaces = [" ", "\n", "\t", "\r", "  \r\n", "\u{a0}"];
        // The last one is not whitespace in JSON; rare, so that most documents stay valid.
        let index = if random.random_bool(0.01) { 5 } else { random.random_range(0..5) };
        out.push_str(spaces[index]);
    }
}

fn string(random: &mut StdRng, out: &mut String) {
    out.push('"');
    for _ in 0..random.random_range(0..4) {
        match random.random_range(0..12) {
            0 => out.push_str("é漢😀"),
            1 => out.push_str(["\\n", "\\\"", "\\\\", "\\/", "\\u0041", "\\uD83D\\uDE00"][random.random_range(0..6)]),
            2 => {
                out.push_str(["\\ud800", "\\udc00\\ud800", "\\x", "\\u12g4", "\n", "\u{7f}"][random.random_range(0..6)])
            }
            3..6 => write!(out, "0x{}", "a0".repeat(random.random_range(0..60))).unwrap(),
            _ => write!(out, "{}", random.random::<u32>()).unwrap(),
        }
    }
    out.push('"');
}

fn number(random: &mut StdRng, out: &mut String) {
    let numbers =
        ["0", "-0", "1", "12", "-7", "1.5", "0.0e+1", "1E9", "2e-3", "01", "-", "1.", ".5", "1e", "+1", "1e999"];
    let count = if random.random_bool(0.02) { numbers.len() } else { 9 };
    out.push_str(numbers[random.random_range(0..count)]);
}

fn value(random: &mut StdRng, levels: u32, out: &mut String) {
    let kinds = if levels == 0 { 5 } else { 8 };
    match random.random_range(0..kinds) {
        0 => out.push_str("null"),
        1 => out.push_str(["true", "false"][random.random_range(0..2)]),
        2 => number(random, out),
        3 | 4 => string(random, out),
        5 | 6 => list(random, "[", "]", out, |random, out| value(random, levels - 1, out)),
        _ => list(random, "{", "}", out, |random, out| {
            string(random, out);
            space(random, out);
            out.push(':');
            space(random, out);
            value(random, levels - 1, out);
        }),
    }
}

fn list(
    random: &mut StdRng,
    open: &str,
    close: &str,
    out: &mut String,
    mut item: impl FnMut(&mut StdRng, &mut String),
) {
    out.push_str(open);
    space(random, out);
    for index in 0..random.random_range(0..4) {
        if index > 0 {
            out.push(',');
            space(random, out);
        }
        item(random, out);
        space(random, out);
    }
    out.push_str(close);
}

fn send_params(random: &mut StdRng, out: &mut String) {
    out.push('[');
    space(random, out);
    write!(out, "\"0x{}\"", "02f8".repeat(random.random_range(0..70))).unwrap();
    space(random, out);
    out.push(']');
}

fn member(random: &mut StdRng, kind: usize, out: &mut String) {
    let plain = ["jsonrpc", "method", "params", "id", "networkId"];
    let escaped = ["json\\u0072pc", "\\u006dethod", "para\\u006ds", "i\\u0064", "\\/"];
    let names = if random.random_bool(0.03) { escaped } else { plain };
    write!(out, "\"{}\"", names[kind]).unwrap();
    space(random, out);
    out.push(':');
    space(random, out);
    let usual = random.random_bool(0.9);
    match kind {
        0 if usual => out.push_str(["\"2.0\"", "\"2.0\"", "\"\\u0032.0\"", "\"2.\\u0030\""][random.random_range(0..4)]),
        1 if usual => {
            let names = ["eth_sendRawTransaction", "eth_call", "", "eth_\\u0063all", "eth_sendRawTransactionSync"];
            write!(out, "\"{}\"", names[random.random_range(0..5_usize).saturating_sub(2)]).unwrap();
        }
        2 if usual => send_params(random, out),
        3 if usual && random.random() => write!(out, "{}", random.random::<u32>()).unwrap(),
        3 if usual => string(random, out),
        _ => value(random, 3, out),
    }
}

fn request(random: &mut StdRng, out: &mut String) {
    let mut kinds = vec![0, 1, 2, 3];
    if random.random_bool(0.1) {
        kinds.remove(random.random_range(0..4));
    }
    if random.random_bool(0.1) {
        kinds.push(random.random_range(0..4));
    }
    if random.random_bool(0.2) {
        kinds.push(4);
    }
    for index in (1..kinds.len()).rev() {
        kinds.swap(index, random.random_range(0..=index));
    }
    out.push('{');
    for (index, kind) in kinds.into_iter().enumerate() {
        out.push_str(if index > 0 { "," } else { "" });
        space(random, out);
        member(random, kind, out);
        space(random, out);
    }
    out.push('}');
}

fn document(random: &mut StdRng) -> Vec<u8> {
    let mut out = String::new();
    space(random, &mut out);
    match random.random_range(0..10) {
        0 => value(random, 4, &mut out),
        1..4 => list(random, "[", "]", &mut out, |random, out| {
            if random.random_bool(0.9) { request(random, out) } else { value(random, 2, out) }
        }),
        _ => request(random, &mut out),
    }
    space(random, &mut out);
    out.into_bytes()
}

#[test]
fn json_documents_equal_serde_json() {
    let (mut case_count, mut accepted_count) = (0_u64, 0);
    fuzz(20_000, |random| {
        case_count += 1;
        accepted_count += u64::from(check(&document(random)));
    });
    assert!(case_count < 100 || accepted_count * 10 > case_count, "{accepted_count} accepted: too few to mean much");
    println!("{accepted_count} of {case_count} documents accepted");
}

#[test]
fn json_mutations_equal_serde_json() {
    fuzz(40_000, |random| {
        let mut body = document(random);
        mutate(&mut body, random, b"{}[]\",:\\ 0x-eE.tfnu\n\x80\xc3\xff");
        let _ = check(&body);
    });
}

#[test]
fn json_truncations_equal_serde_json() {
    fuzz(200, |random| {
        let body = document(random);
        for length in 0..body.len() {
            let _ = check(&body[..length]);
        }
    });
}

#[test]
fn json_depth_has_a_limit() {
    let limit = JSON_DEPTH_MAX as usize;
    for levels in limit - 3..limit + 3 {
        check(format!("{}{}", "[".repeat(levels), "]".repeat(levels)).as_bytes());
        let params = format!("{}{}", "[{\"a\":".repeat(levels / 2), "1".to_owned() + &"}]".repeat(levels / 2));
        let request = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"m\",\"params\":{params}}}");
        check(request.as_bytes());
        check(format!("[{request}]").as_bytes());
        check(format!("{{\"x\":{}", "[".repeat(levels)).as_bytes());
    }
    check("[".repeat(1 << 20).as_bytes());
}

#[track_caller]
fn check_error(body: &str, expected: &str) {
    let error = match parse(body.as_bytes(), 2) {
        Err(error) => error,
        Ok(Body::Batch(batch)) => batch.filter_map(Result::err).last().expect("an error in the batch"),
        Ok(Body::Single(request)) => panic!("accepted {request:?}"),
    };
    let id = String::from_utf8_lossy(error.id.as_bytes());
    assert_eq!(format!("{} {error}, id {id}", error.kind.code()), expected);
}

#[test]
fn json_errors() {
    check_error("", "-32700 unexpected end of JSON at byte 0, id null");
    check_error("{", "-32700 unexpected end of JSON at byte 1, id null");
    check_error("{\"id\":1}x", "-32700 bytes after the end of the JSON value at byte 8, id null");
    check_error("{\"id\":01}", "-32700 unexpected byte 0x31 at byte 7, id null");
    check_error("{\"a\nb\":1}", "-32700 control character 0x0a in a string at byte 3, id null");
    check_error("{\"\\x\":1}", "-32700 invalid escape in a string at byte 2, id null");
    check_error("1", "-32600 request is not an object at byte 0, id null");
    check_error(" []", "-32600 empty batch at byte 1, id null");
    check_error("[] x", "-32700 bytes after the end of the JSON value at byte 3, id null");
    check_error("[1,2,3]", "-32600 batch has more than 2 items at byte 5, id null");
    check_error("[{},", "-32700 unexpected end of JSON at byte 4, id null");
    check_error("[{} {}]", "-32700 unexpected byte 0x7b at byte 4, id null");
    check_error("{\"method\":\"m\",\"id\":7}", "-32600 member \"jsonrpc\" is missing at byte 0, id 7");
    check_error("{\"jsonrpc\":\"2.0\",\"id\":\"é\"}", "-32600 member \"method\" is missing at byte 0, id \"é\"");
    check_error(
        "{\"jsonrpc\":\"1.0\",\"id\":-1.5e3}",
        "-32600 member \"jsonrpc\" is not \"2.0\" at byte 11, id -1.5e3",
    );
    check_error("{\"jsonrpc\":2.0,\"id\":7}", "-32600 member \"jsonrpc\" is not \"2.0\" at byte 11, id 7");
    let head = "{\"jsonrpc\":\"2.0\",\"method\":\"m\",";
    check_error(
        &format!("{head}\"id\":{{}}}}"),
        "-32600 member \"id\" is not a string, a number or null at byte 35, id null",
    );
    check_error(
        &format!("{head}\"params\":1,\"id\":7}}"),
        "-32602 member \"params\" is not an array or an object at byte 39, id 7",
    );
    check_error(
        &format!("{head}\"method\":\"n\",\"id\":7}}"),
        "-32600 member \"method\" stands twice at byte 30, id 7",
    );
    let mut invalid = b"{\"a\":\"bc".to_vec();
    invalid.extend([0xc3, 0x28, b'"', b'}']);
    assert_eq!(parse(&invalid, 2).unwrap_err().to_string(), "invalid UTF-8 at byte 8");
}

#[test]
fn params_are_parsed_by_simd_json() {
    let (mut scratch, mut other) = (Vec::new(), b"left over".to_vec());
    let value = parse_params(b"[\"0x1\", {\"a\": [1, null]}]", &mut scratch).unwrap();
    assert_eq!(value[0].as_str(), Some("0x1"));
    assert_eq!(value[1]["a"][0].as_u64(), Some(1));
    assert_eq!(parse_params(b"", &mut other).unwrap().as_array().map(Vec::len), Some(0));
    assert!(parse_params(b"[\"\\ud800\"]", &mut other).is_err());
}
