//! HTTP/1.1 on the client's side, sans I/O: bytes → replies, and the bytes of a POST request.
//!
//! Deliberately absent: TLS, compression (never offered), redirects, bodies that end with the connection.

use std::borrow::Cow;

use crate::limits::{REPLY_BYTES_MAX, REPLY_HEADERS_MAX};

/// One reply at the front of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    pub status: u16,
    pub body: Cow<'a, [u8]>,
    /// Bytes of the buffer that the reply covers.
    pub consumed_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    #[error("the reply is not HTTP/1.1")]
    Malformed,
    #[error("the reply has neither Content-Length nor chunks")]
    NoLength,
    #[error("the reply is larger than {REPLY_BYTES_MAX} bytes")]
    TooLarge,
}

/// Parses the reply at the front of `buffer`; `None` while it is not complete.
pub fn parse_reply(buffer: &[u8]) -> Result<Option<Reply<'_>>, HttpError> {
    let mut headers = [httparse::EMPTY_HEADER; REPLY_HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let head_bytes = match head.parse(buffer) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) if buffer.len() > REPLY_BYTES_MAX => return Err(HttpError::TooLarge),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(HttpError::Malformed),
    };
    let status = head.code.ok_or(HttpError::Malformed)?;
    let rest = &buffer[head_bytes..];
    let header = |name: &str| head.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value);
    if header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case(b"chunked")) {
        let parsed = parse_chunks(rest)?;
        return Ok(parsed.map(|(body, bytes)| Reply { status, body: body.into(), consumed_bytes: head_bytes + bytes }));
    }
    let length: usize = match header("content-length") {
        Some(value) => std::str::from_utf8(value)
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .ok_or(HttpError::Malformed)?,
        None if status == 204 => 0,
        None => return Err(HttpError::NoLength),
    };
    if length > REPLY_BYTES_MAX {
        return Err(HttpError::TooLarge);
    }
    let body = rest.get(..length);
    Ok(body.map(|body| Reply { status, body: body.into(), consumed_bytes: head_bytes + length }))
}

/// Joins the chunks at the front of `rest`: the body and the bytes that the chunks cover. Trailers are skipped.
fn parse_chunks(rest: &[u8]) -> Result<Option<(Vec<u8>, usize)>, HttpError> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let (line_bytes, chunk_bytes) = match httparse::parse_chunk_size(&rest[at..]) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(HttpError::Malformed),
        };
        at += line_bytes;
        if chunk_bytes == 0 {
            return skip_trailers(&rest[at..]).map(|end| end.map(|bytes| (body, at + bytes)));
        }
        let chunk_bytes = usize::try_from(chunk_bytes).map_err(|_| HttpError::TooLarge)?;
        if chunk_bytes > REPLY_BYTES_MAX - body.len() {
            return Err(HttpError::TooLarge);
        }
        let Some(chunk) = rest.get(at..at + chunk_bytes + 2) else { return Ok(None) };
        let (data, end) = chunk.split_at(chunk_bytes);
        if end != b"\r\n" {
            return Err(HttpError::Malformed);
        }
        body.extend_from_slice(data);
        at += chunk.len();
    }
}

fn skip_trailers(rest: &[u8]) -> Result<Option<usize>, HttpError> {
    let mut headers = [httparse::EMPTY_HEADER; REPLY_HEADERS_MAX];
    match httparse::parse_headers(rest, &mut headers) {
        Ok(httparse::Status::Complete((bytes, _))) => Ok(Some(bytes)),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(HttpError::Malformed),
    }
}

/// Appends a POST request with a JSON body.
pub fn write_post(out: &mut Vec<u8>, authority: &str, path: &str, body: &[u8]) {
    use std::io::Write;
    // Writing into a vector cannot fail.
    let _ = write!(
        out,
        "POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(bytes: &str, expected: Result<Option<(u16, &str, usize)>, HttpError>) {
        let parsed = parse_reply(bytes.as_bytes());
        let parsed = parsed
            .map(|reply| reply.map(|r| (r.status, String::from_utf8_lossy(&r.body).into_owned(), r.consumed_bytes)));
        assert_eq!(parsed, expected.map(|reply| reply.map(|(s, b, n)| (s, b.to_owned(), n))), "{bytes:?}");
    }

    #[test]
    fn replies() {
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP", Ok(Some((200, "{}", 40))));
        check("HTTP/1.1 503 no\r\ncontent-length: 0\r\n\r\n", Ok(Some((503, "", 38))));
        check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", Ok(None));
        check("HTTP/1.1 200 OK\r\nConte", Ok(None));
        check("HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\n{} ", Err(HttpError::Malformed));
        check("HTTP/1.1 200 OK\r\n\r\n{}", Err(HttpError::NoLength));
        check("SSH-2.0-OpenSSH_9.6\r\n", Err(HttpError::Malformed));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(
            &format!("{chunked}3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\nrest"),
            Ok(Some((200, "abc0123456789", 79))),
        );
        check(&format!("{chunked}3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n"), Ok(Some((200, "abc", 72))));
        check(&format!("{chunked}3\r\nabc\r\n0\r\n"), Ok(None));
        check(&format!("{chunked}3\r\nabcd\r\n"), Err(HttpError::Malformed));
        check(&format!("{chunked}FFFFFFFFFFFFFFF\r\n"), Err(HttpError::TooLarge));
    }

    #[test]
    fn post_is_read_back_by_httparse() {
        let mut bytes = Vec::new();
        write_post(&mut bytes, "127.0.0.1:6197", "/x", b"{\"id\":1}");
        let mut headers = [httparse::EMPTY_HEADER; 8];
        let mut request = httparse::Request::new(&mut headers);
        let head_bytes = request.parse(&bytes).unwrap().unwrap();
        assert_eq!((request.method, request.path), (Some("POST"), Some("/x")));
        assert_eq!(&bytes[head_bytes..], b"{\"id\":1}");
        assert_eq!(request.headers[2].value, b"8");
    }

    proptest! {
        /// Cutting a stream anywhere never changes what is read, with either framing.
        #[test]
        fn cut_replies_are_read_alike(bodies in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..200), 0usize..4), 1..5), cut in any::<prop::sample::Index>()) {
            let mut stream = Vec::new();
            for (body, chunks) in &bodies {
                if *chunks == 0 {
                    stream.extend_from_slice(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
                    stream.extend_from_slice(body);
                } else {
                    stream.extend_from_slice(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                    for chunk in body.chunks(body.len() / chunks + 1) {
                        stream.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                        stream.extend_from_slice(chunk);
                        stream.extend_from_slice(b"\r\n");
                    }
                    stream.extend_from_slice(b"0\r\n\r\n");
                }
            }
            let cut = cut.index(stream.len() + 1);
            let mut at = 0;
            let mut seen = Vec::new();
            for end in [cut, stream.len()] {
                while let Some(reply) = parse_reply(&stream[at..end]).unwrap() {
                    seen.push(reply.body.to_vec());
                    at += reply.consumed_bytes;
                }
            }
            prop_assert_eq!(at, stream.len());
            prop_assert_eq!(seen, bodies.into_iter().map(|(body, _)| body).collect::<Vec<_>>());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_reply(&bytes);
        }
    }
}
