//! WebSocket frames on the client's side, sans I/O (RFC 6455): bytes → frames, and the bytes of masked frames.
//!
//! Deliberately absent: extensions. None is offered in the handshake, so a server may use none.

use crate::limits::{REPLY_BYTES_MAX, REPLY_HEADERS_MAX};

pub const TEXT: u8 = 1;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// Largest head that we write: two bytes, eight of length, four of mask.
const HEAD_BYTES_MAX: usize = 14;

/// One frame at the front of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub last: bool,
    /// 0 continues the message before.
    pub opcode: u8,
    pub payload: &'a [u8],
    pub consumed_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("the node's WebSocket frame is masked or has reserved bits")]
    Malformed,
    #[error("the node's WebSocket message is larger than {REPLY_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the node did not agree to a WebSocket")]
    Refused,
}

/// Parses the frame at the front of `buffer`; `None` while it is not complete.
pub fn parse(buffer: &[u8]) -> Result<Option<Frame<'_>>, FrameError> {
    let &[first, second, ref rest @ ..] = buffer else { return Ok(None) };
    if first & 0x70 != 0 || second & 0x80 != 0 {
        return Err(FrameError::Malformed);
    }
    let (length, head_bytes) = match second {
        126 => match rest.first_chunk::<2>() {
            Some(bytes) => (u64::from(u16::from_be_bytes(*bytes)), 4),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(bytes) => (u64::from_be_bytes(*bytes), 10),
            None => return Ok(None),
        },
        short => (u64::from(short), 2),
    };
    let length =
        usize::try_from(length).ok().filter(|&length| length <= REPLY_BYTES_MAX).ok_or(FrameError::TooLarge)?;
    let payload = buffer.get(head_bytes..head_bytes + length);
    let frame =
        |payload| Frame { last: first & 0x80 != 0, opcode: first & 0x0f, payload, consumed_bytes: head_bytes + length };
    Ok(payload.map(frame))
}

/// Appends one whole masked frame.
pub fn write(out: &mut Vec<u8>, opcode: u8, mask: [u8; 4], payload: &[u8]) {
    out.reserve(payload.len() + HEAD_BYTES_MAX);
    out.push(0x80 | opcode);
    match payload.len() {
        length @ 0..126 => out.push(0x80 | length as u8),
        length @ 126..0x1_0000 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// The payload of a frame that `write` made.
pub fn unmask(frame: &[u8]) -> Vec<u8> {
    let length_bytes = match frame[1] & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let (mask, payload) = frame[2 + length_bytes..].split_at(4);
    payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
}

/// The request that opens a WebSocket. The key is a constant: it proves nothing to us that the status 101 does not.
pub fn handshake(authority: &str, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: bG9hZGdlbi1sb2FkZ2VuIQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// Reads the answer to `handshake`: the bytes that it covers, `None` while it is not complete.
pub fn parse_handshake(buffer: &[u8]) -> Result<Option<usize>, FrameError> {
    let mut headers = [httparse::EMPTY_HEADER; REPLY_HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    match head.parse(buffer) {
        Ok(httparse::Status::Complete(bytes)) if head.code == Some(101) => Ok(Some(bytes)),
        Ok(httparse::Status::Partial) if buffer.len() < 65_536 => Ok(None),
        _ => Err(FrameError::Refused),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tungstenite::protocol::{Role, WebSocket};
    use tungstenite::{Bytes, Message};

    use super::*;

    /// A socket that is only a buffer.
    struct Memory(std::io::Cursor<Vec<u8>>, Vec<u8>);

    impl std::io::Read for Memory {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(out)
        }
    }

    impl std::io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn round_trip(payload: &[u8], mask: [u8; 4], cut: usize) {
        let mut written = Vec::new();
        write(&mut written, 2, mask, payload);
        assert_eq!(unmask(&written), payload);
        let mut server =
            WebSocket::from_raw_socket(Memory(std::io::Cursor::new(written), Vec::new()), Role::Server, None);
        assert_eq!(server.read().unwrap(), Message::Binary(Bytes::copy_from_slice(payload)));
        server.send(Message::Binary(Bytes::copy_from_slice(payload))).unwrap();
        let sent = &server.get_ref().1;
        let cut = cut % sent.len();
        assert_eq!(parse(&sent[..cut]), Ok(None));
        let frame = parse(sent).unwrap().unwrap();
        assert_eq!((frame.last, frame.opcode, frame.payload, frame.consumed_bytes), (true, 2, payload, sent.len()));
    }

    proptest! {
        /// What we write is read by tungstenite, and the other way round.
        #[test]
        fn tungstenite_agrees(payload in prop::collection::vec(any::<u8>(), 0..400), mask: [u8; 4], cut: usize) {
            round_trip(&payload, mask, cut);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let _ = parse_handshake(&bytes);
        }
    }

    #[test]
    fn lengths_at_the_borders() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            round_trip(&vec![7; length], [1, 2, 3, 4], length / 2);
        }
    }

    #[test]
    fn wrong_frames() {
        assert_eq!(parse(&[0x81, 0x80, 0, 0, 0, 0]), Err(FrameError::Malformed));
        assert_eq!(parse(&[0xc1, 0x00]), Err(FrameError::Malformed));
        assert_eq!(parse(&[0x81, 127, 0xff, 0, 0, 0, 0, 0, 0, 0]), Err(FrameError::TooLarge));
        assert_eq!(parse_handshake(b"HTTP/1.1 101 x\r\n\r\nrest"), Ok(Some(18)));
        assert_eq!(parse_handshake(b"HTTP/1.1 101 x\r\n"), Ok(None));
        assert_eq!(parse_handshake(b"HTTP/1.1 404 x\r\n\r\n"), Err(FrameError::Refused));
    }
}
