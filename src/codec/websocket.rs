//! Server side of RFC 6455: the handshake's accept key, a frame parser that joins fragments in place, and frame heads to write.
//!
//! Runs on: ingress shard; never blocks, never allocates (the caller owns every buffer).
//! Like `codec::http`, the parser works on one window that starts with the first byte not released yet and may be fed in any portions.
//! A binary message is taken as the same JSON (web3.py sends its requests so), UTF-8 like a text message. No extension is negotiated, so
//! reserved bits are errors.
//!
//! ```text
//!  byte 0      FIN(1) RSV(3) opcode(4)
//!  byte 1      MASK(1) length(7): 0..=125, 126 = u16 follows, 127 = u64 follows (big endian, shortest form only)
//!  then        length 0, 2 or 8 bytes; mask 4 bytes (clients always, servers never); payload
//! ```

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// Longest payload of a control frame (RFC 6455 section 5.5).
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;

/// Length of `Sec-WebSocket-Accept`: 20 bytes in base64.
pub const ACCEPT_KEY_BYTES: usize = 28;

/// Appended to the client's key before hashing (RFC 6455 section 1.3).
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Bounds of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WebSocketLimits {
    /// All fragments of a message together; the same bound as an HTTP body.
    pub message_bytes_max: usize,
    /// Fragments of a message: a stream of empty fragments never reaches the byte bound.
    pub fragment_count_max: u32,
}

impl Default for WebSocketLimits {
    fn default() -> Self {
        Self { message_bytes_max: 5 << 20, fragment_count_max: 4_096 }
    }
}

/// Why the connection is closed; the numbers of RFC 6455 section 7.4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum CloseCode {
    Normal = 1000,
    GoingAway = 1001,
    Protocol = 1002,
    InvalidPayload = 1007,
    Policy = 1008,
    MessageTooBig = 1009,
    TryAgainLater = 1013,
}

/// What one call of [`FrameParser::advance`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameEvent {
    /// No whole message or control frame. Only the first `kept` bytes of the window are still needed.
    More {
        kept: usize,
    },
    /// A whole text message, unmasked, valid UTF-8, at [`FrameParser::message`]. It ends all use of the first `consumed` bytes.
    Message {
        consumed: usize,
    },
    /// Answer with a pong of the same payload.
    Ping(ControlPayload),
    Pong,
    /// The peer closes. The code to echo: its own, or `None` when it sent none.
    Close(Option<u16>),
}

/// Payload of a control frame, copied out because control frames may interrupt a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ControlPayload {
    bytes: [u8; CONTROL_PAYLOAD_BYTES_MAX],
    len: u8,
}

impl ControlPayload {
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for ControlPayload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_bytes().fmt(f)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

#[derive(Clone, Copy, Debug)]
struct FrameHead {
    opcode: Opcode,
    fin: bool,
    payload_bytes: u64,
    mask: [u8; 4],
}

/// State of the incoming side of one WebSocket.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameParser {
    /// Next byte to interpret.
    read: usize,
    message_start: usize,
    message_bytes: usize,
    fragment_count: u32,
    in_message: bool,
    /// The last fragment's FIN bit; with no payload left it ends the message.
    fragment_is_last: bool,
    in_fragment: bool,
    payload_left_bytes: usize,
    /// Rotated so that byte 0 masks the next payload byte.
    mask: [u8; 4],
}

impl FrameParser {
    /// The message inside the window, complete with `FrameEvent::Message`.
    #[must_use]
    pub fn message(&self) -> std::ops::Range<usize> {
        self.message_start..self.message_start + self.message_bytes
    }

    /// Whether part of a message or frame is awaited.
    #[must_use]
    pub fn in_message(&self) -> bool {
        self.in_message
    }

    /// Interprets what the window holds beyond the last call.
    ///
    /// Runs on: ingress shard; never blocks, never allocates.
    /// Shapes:  `window` starts with the bytes that the last `More` kept, or right behind the bytes that the last `Message` consumed.
    /// Errors:  the close code to send; the connection then closes.
    pub fn advance(&mut self, window: &mut [u8], limits: &WebSocketLimits) -> Result<FrameEvent, CloseCode> {
        loop {
            if self.in_fragment {
                self.take_payload(window);
                if self.payload_left_bytes > 0 {
                    return Ok(FrameEvent::More { kept: self.release_gap(window) });
                }
                self.in_fragment = false;
                if self.fragment_is_last {
                    return self.finish_message(window);
                }
            }
            let Some((head, head_bytes)) = parse_frame_head(&window[self.read..])? else {
                return Ok(FrameEvent::More { kept: self.release_gap(window) });
            };
            if matches!(head.opcode, Opcode::Close | Opcode::Ping | Opcode::Pong) {
                let start = self.read + head_bytes;
                // At most 125, checked with the head.
                let end = start + head.payload_bytes as usize;
                if window.len() < end {
                    return Ok(FrameEvent::More { kept: self.release_gap(window) });
                }
                self.read = end;
                unmask(&mut window[start..end], head.mask);
                return control_event(head.opcode, &window[start..end]);
            }
            self.start_fragment(&head, head_bytes, limits)?;
        }
    }

    fn start_fragment(
        &mut self,
        head: &FrameHead,
        head_bytes: usize,
        limits: &WebSocketLimits,
    ) -> Result<(), CloseCode> {
        if self.in_message != (head.opcode == Opcode::Continuation) {
            return Err(CloseCode::Protocol);
        }
        let room = (limits.message_bytes_max - self.message_bytes_so_far()) as u64;
        if head.payload_bytes > room {
            return Err(CloseCode::MessageTooBig);
        }
        if !self.in_message {
            self.in_message = true;
            self.message_bytes = 0;
            self.fragment_count = 0;
            self.message_start = self.read + head_bytes;
        }
        self.fragment_count += 1;
        if self.fragment_count > limits.fragment_count_max {
            return Err(CloseCode::Policy);
        }
        self.read += head_bytes;
        self.payload_left_bytes = head.payload_bytes as usize;
        self.mask = head.mask;
        self.fragment_is_last = head.fin;
        self.in_fragment = true;
        Ok(())
    }

    fn message_bytes_so_far(&self) -> usize {
        if self.in_message { self.message_bytes } else { 0 }
    }

    /// Unmasks the payload that is there and joins it to the message.
    fn take_payload(&mut self, window: &mut [u8]) {
        let take = self.payload_left_bytes.min(window.len() - self.read);
        unmask(&mut window[self.read..self.read + take], self.mask);
        let target = self.message_start + self.message_bytes;
        if target != self.read {
            window.copy_within(self.read..self.read + take, target);
        }
        self.mask.rotate_left(take % 4);
        self.read += take;
        self.message_bytes += take;
        self.payload_left_bytes -= take;
    }

    fn finish_message(&mut self, window: &[u8]) -> Result<FrameEvent, CloseCode> {
        if std::str::from_utf8(&window[self.message()]).is_err() {
            return Err(CloseCode::InvalidPayload);
        }
        self.in_message = false;
        let consumed = std::mem::take(&mut self.read);
        Ok(FrameEvent::Message { consumed })
    }

    /// Drops what was interpreted and is not part of the message; says how much of the window is kept.
    fn release_gap(&mut self, window: &mut [u8]) -> usize {
        let target = if self.in_message { self.message_start + self.message_bytes } else { 0 };
        let gap = self.read - target;
        if gap > 0 {
            window.copy_within(self.read.., target);
            self.read = target;
        }
        window.len() - gap
    }
}

/// Reads a frame head and checks all that does not depend on the message so far. `None`: more bytes are needed.
fn parse_frame_head(bytes: &[u8]) -> Result<Option<(FrameHead, usize)>, CloseCode> {
    let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
    let opcode = match first & 0x0f {
        0x0 => Opcode::Continuation,
        0x1 => Opcode::Text,
        0x2 => Opcode::Binary,
        0x8 => Opcode::Close,
        0x9 => Opcode::Ping,
        0xa => Opcode::Pong,
        _ => return Err(CloseCode::Protocol),
    };
    let fin = first & 0x80 != 0;
    let length_code = second & 0x7f;
    let reserved_bits = first & 0x70 != 0;
    let unmasked = second & 0x80 == 0;
    let is_control = matches!(opcode, Opcode::Close | Opcode::Ping | Opcode::Pong);
    if reserved_bits || unmasked || (is_control && (!fin || usize::from(length_code) > CONTROL_PAYLOAD_BYTES_MAX)) {
        return Err(CloseCode::Protocol);
    }
    let (payload_bytes, rest, length_bytes) = match length_code {
        126 => match rest.split_first_chunk::<2>() {
            Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest, 2),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk::<8>() {
            Some((length, rest)) => (u64::from_be_bytes(*length), rest, 8),
            None => return Ok(None),
        },
        short => (u64::from(short), rest, 0),
    };
    let shortest = match length_code {
        126 => payload_bytes > 125,
        127 => payload_bytes > 0xffff && payload_bytes >> 63 == 0,
        _ => true,
    };
    if !shortest {
        return Err(CloseCode::Protocol);
    }
    let Some(mask) = rest.first_chunk::<4>() else { return Ok(None) };
    Ok(Some((FrameHead { opcode, fin, payload_bytes, mask: *mask }, 2 + length_bytes + 4)))
}

fn control_event(opcode: Opcode, payload: &[u8]) -> Result<FrameEvent, CloseCode> {
    match opcode {
        Opcode::Close => parse_close(payload).map(FrameEvent::Close),
        Opcode::Pong => Ok(FrameEvent::Pong),
        _ => {
            let mut bytes = [0; CONTROL_PAYLOAD_BYTES_MAX];
            bytes[..payload.len()].copy_from_slice(payload);
            Ok(FrameEvent::Ping(ControlPayload { bytes, len: payload.len() as u8 }))
        }
    }
}

/// A close payload: nothing, or a code that may be sent (RFC 6455 section 7.4) and a reason in UTF-8.
fn parse_close(payload: &[u8]) -> Result<Option<u16>, CloseCode> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(None) } else { Err(CloseCode::Protocol) };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(CloseCode::Protocol);
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(CloseCode::InvalidPayload);
    }
    Ok(Some(code))
}

/// Applies the mask in place, sixteen bytes per step.
pub fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let word = u128::from_ne_bytes(std::array::from_fn(|index| mask[index % 4]));
    let (blocks, rest) = payload.as_chunks_mut::<16>();
    for block in blocks {
        *block = (u128::from_ne_bytes(*block) ^ word).to_ne_bytes();
    }
    for (index, byte) in rest.iter_mut().enumerate() {
        *byte ^= mask[index % 4];
    }
}

/// Whether a `Sec-WebSocket-Key` is the base64 of 16 bytes, as RFC 6455 section 4.1 demands.
#[must_use]
pub fn key_is_valid(key: &[u8]) -> bool {
    let mut decoded = [0; 24];
    key.len() == 24 && STANDARD.decode_slice(key, &mut decoded) == Ok(16)
}

/// Computes `Sec-WebSocket-Accept` for a client's key.
#[must_use]
pub fn accept_key(key: &[u8]) -> [u8; ACCEPT_KEY_BYTES] {
    let digest = Sha1::new().chain_update(key).chain_update(ACCEPT_GUID).finalize();
    let mut accept = [0; ACCEPT_KEY_BYTES];
    let written = STANDARD.encode_slice(digest.as_slice(), &mut accept);
    assert_eq!(written, Ok(ACCEPT_KEY_BYTES), "20 bytes take 28 characters of base64");
    accept
}

/// Appends one unfragmented text frame whose payload `write` appends. The head is placed in front when its length is known.
pub fn write_text(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    const HEAD_GUESS_BYTES: usize = 4;
    let frame_start = out.len();
    out.extend_from_slice(&[0; HEAD_GUESS_BYTES]);
    write(out);
    let payload_bytes = out.len() - frame_start - HEAD_GUESS_BYTES;
    let (head, head_bytes) = text_head(payload_bytes);
    let payload_start = frame_start + HEAD_GUESS_BYTES;
    if head_bytes > HEAD_GUESS_BYTES {
        out.extend_from_slice(&[0; 6]);
    }
    // Most replies have 126 to 65,535 bytes: then nothing moves.
    if head_bytes != HEAD_GUESS_BYTES {
        out.copy_within(payload_start..payload_start + payload_bytes, frame_start + head_bytes);
        out.truncate(frame_start + head_bytes + payload_bytes);
    }
    out[frame_start..frame_start + head_bytes].copy_from_slice(&head[..head_bytes]);
}

/// Head of an unmasked, unfragmented text frame.
fn text_head(payload_bytes: usize) -> ([u8; 10], usize) {
    let mut head = [0; 10];
    head[0] = 0x81;
    match payload_bytes {
        0..=125 => {
            head[1] = payload_bytes as u8;
            (head, 2)
        }
        126..=0xffff => {
            head[1] = 126;
            head[2..4].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
            (head, 4)
        }
        _ => {
            head[1] = 127;
            head[2..10].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
            (head, 10)
        }
    }
}

/// Appends a ping with an empty payload.
pub fn write_ping(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x89, 0]);
}

/// Appends the pong that answers a ping.
pub fn write_pong(out: &mut Vec<u8>, payload: &ControlPayload) {
    out.extend_from_slice(&[0x8a, payload.len]);
    out.extend_from_slice(payload.as_bytes());
}

/// Appends a close frame, with the code unless the peer's own close had none.
pub fn write_close(out: &mut Vec<u8>, code: Option<u16>) {
    match code {
        Some(code) => {
            out.extend_from_slice(&[0x88, 2]);
            out.extend_from_slice(&code.to_be_bytes());
        }
        None => out.extend_from_slice(&[0x88, 0]),
    }
}

#[cfg(test)]
mod tests;
