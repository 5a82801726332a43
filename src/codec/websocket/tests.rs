//! Frames checked by hand-made bytes, by tungstenite as peer, and under any split.

#![allow(clippy::unwrap_used, reason = "a failed test is the purpose")]

use proptest::prelude::*;

use super::*;

/// A masked client frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        0..=125 => bytes.push(0x80 | payload.len() as u8),
        126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
    bytes
}

/// Feeds `input` in portions and lists what came out; ends at the first error or close.
fn events(input: &[u8], portions: &[usize], limits: &WebSocketLimits) -> Vec<String> {
    let mut parser = FrameParser::default();
    let (mut window, mut rest, mut found) = (Vec::new(), input, Vec::new());
    let mut portion = portions.iter().copied().cycle();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(portion.next().unwrap_or(rest.len()).clamp(1, rest.len()));
        window.extend_from_slice(now);
        rest = later;
        loop {
            match parser.advance(&mut window, limits) {
                Err(code) => {
                    found.push(format!("close {}", code as u16));
                    return found;
                }
                Ok(FrameEvent::More { kept }) => {
                    window.truncate(kept);
                    break;
                }
                Ok(FrameEvent::Message { consumed }) => {
                    found.push(format!("text {}", String::from_utf8(window[parser.message()].to_vec()).unwrap()));
                    window.drain(..consumed);
                }
                Ok(FrameEvent::Ping(payload)) => found.push(format!("ping {}", payload.as_bytes().len())),
                Ok(FrameEvent::Pong) => found.push("pong".into()),
                Ok(FrameEvent::Close(code)) => {
                    found.push(format!("peer closes {code:?}"));
                    return found;
                }
            }
        }
    }
    found
}

const SMALL: WebSocketLimits = WebSocketLimits { message_bytes_max: 300, fragment_count_max: 4 };

#[track_caller]
fn check(frames: &[Vec<u8>], expected: &str) {
    let input = frames.concat();
    for portions in [vec![input.len().max(1)], vec![1], vec![2], vec![7, 3], vec![1, 100]] {
        assert_eq!(events(&input, &portions, &SMALL).join("; "), expected, "portions {portions:?}");
    }
}

#[test]
fn messages_and_fragments() {
    check(&[frame(0x81, b"{}")], "text {}");
    check(&[frame(0x81, b"")], "text ");
    check(&[frame(0x81, b"a"), frame(0x81, b"b")], "text a; text b");
    check(&[frame(0x01, b"ab"), frame(0x00, b"cd"), frame(0x80, b"ef")], "text abcdef");
    check(
        &[frame(0x01, b"ab"), frame(0x89, b"xyz"), frame(0x80, b"ef"), frame(0x81, b"g")],
        "ping 3; text abef; text g",
    );
    check(&[frame(0x01, b""), frame(0x00, b""), frame(0x80, b"z")], "text z");
    check(&[frame(0x01, "é".as_bytes().get(..1).unwrap()), frame(0x80, &"é".as_bytes()[1..])], "text é");
    check(&[frame(0x8a, b"late pong"), frame(0x81, b"q")], "pong; text q");
    check(&[frame(0x89, &[7; 125])], "ping 125");
}

#[test]
fn refusals() {
    // Unmasked.
    check(&[vec![0x81, 0x02, b'{', b'}']], "close 1002");
    // Reserved bits and opcodes.
    check(&[frame(0xc1, b"{}")], "close 1002");
    check(&[frame(0xa1, b"{}")], "close 1002");
    check(&[frame(0x91, b"{}")], "close 1002");
    check(&[frame(0x83, b"{}")], "close 1002");
    check(&[frame(0x8b, b"")], "close 1002");
    // Control frames: too long, or fragmented.
    check(&[frame(0x89, &[0; 126])], "close 1002");
    check(&[frame(0x09, b"")], "close 1002");
    // Fragments out of order.
    check(&[frame(0x80, b"x")], "close 1002");
    check(&[frame(0x01, b"x"), frame(0x81, b"y")], "close 1002");
    // Binary frames carry the same JSON.
    check(&[frame(0x82, b"{}")], "text {}");
    // Lengths that are not the shortest form, or negative.
    check(&[vec![0x81, 0xfe, 0, 125, 0, 0, 0, 0]], "close 1002");
    check(&[vec![0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]], "close 1002");
    check(&[vec![0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]], "close 1002");
    // Size: both sides of the limit, in one frame and in fragments.
    check(&[frame(0x81, &[b'a'; 300])], &format!("text {}", "a".repeat(300)));
    check(&[frame(0x81, &[b'a'; 301])], "close 1009");
    check(&[frame(0x01, &[b'a'; 300]), frame(0x80, b"")], &format!("text {}", "a".repeat(300)));
    check(&[frame(0x01, &[b'a'; 300]), frame(0x80, b"b")], "close 1009");
    check(&[vec![0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]], "close 1009");
    // Endless empty fragments.
    check(&[frame(0x01, b""), frame(0, b""), frame(0, b""), frame(0x80, b"")], "text ");
    check(&[frame(0x01, b""), frame(0, b""), frame(0, b""), frame(0, b""), frame(0x80, b"")], "close 1008");
    // UTF-8.
    check(&[frame(0x81, b"\xff")], "close 1007");
    check(&[frame(0x81, b"\xc3")], "close 1007");
}

#[test]
fn close_payloads() {
    check(&[frame(0x88, b"")], "peer closes None");
    check(&[frame(0x88, &[3])], "close 1002");
    check(&[frame(0x88, &1000_u16.to_be_bytes())], "peer closes Some(1000)");
    for (code, allowed) in [
        (999, false),
        (1003, true),
        (1004, false),
        (1005, false),
        (1006, false),
        (1007, true),
        (1014, true),
        (1015, false),
        (2999, false),
        (3000, true),
        (4999, true),
        (5000, false),
    ] {
        let expected = if allowed { format!("peer closes Some({code})") } else { "close 1002".into() };
        check(&[frame(0x88, &u16::to_be_bytes(code))], &expected);
    }
    check(&[frame(0x88, b"\x03\xe8bye"), frame(0x81, b"ignored")], "peer closes Some(1000)");
    check(&[frame(0x88, b"\x03\xe8\xff")], "close 1007");
}

#[test]
fn accept_key_of_the_rfc() {
    assert_eq!(&accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert!(key_is_valid(b"dGhlIHNhbXBsZSBub25jZQ=="));
    for wrong in [
        &b""[..],
        b"dGhlIHNhbXBsZSBub25jZQ",
        b"dGhlIHNhbXBsZSBub25jZQ=a",
        b"dGhlIHNhbXBsZSBub25jZQaa",
        b"dGhlIHNhbXBsZSBub2 jZQ==",
    ] {
        assert!(!key_is_valid(wrong), "{wrong:?}");
    }
}

/// In-memory stream: what tungstenite reads, and what it wrote.
#[derive(Default)]
struct Pipe {
    to_peer: std::collections::VecDeque<u8>,
    from_peer: Vec<u8>,
}

impl std::io::Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.to_peer.is_empty() {
            return Err(std::io::ErrorKind::WouldBlock.into());
        }
        self.to_peer.read(buffer)
    }
}

impl std::io::Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.from_peer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

use tungstenite::protocol::{Message, Role, WebSocket};

#[test]
fn tungstenite_reads_what_we_write() {
    for payload_bytes in [0, 1, 125, 126, 127, 65_535, 65_536, 200_000] {
        let text = "x".repeat(payload_bytes);
        let mut out = b"before".to_vec();
        write_text(&mut out, |out| out.extend_from_slice(text.as_bytes()));
        write_ping(&mut out);
        write_close(&mut out, Some(CloseCode::GoingAway as u16));
        let mut pipe = Pipe::default();
        pipe.to_peer.extend(&out[6..]);
        let mut peer = WebSocket::from_raw_socket(pipe, Role::Client, None);
        assert_eq!(peer.read().unwrap(), Message::text(text));
        assert!(matches!(peer.read().unwrap(), Message::Ping(payload) if payload.is_empty()));
        assert!(matches!(peer.read().unwrap(), Message::Close(Some(close)) if u16::from(close.code) == 1001));
    }
}

#[test]
fn pong_carries_the_payload_of_the_ping() {
    let mut window = frame(0x89, b"payload");
    let Ok(FrameEvent::Ping(payload)) = FrameParser::default().advance(&mut window, &SMALL) else { panic!("no ping") };
    let mut out = Vec::new();
    write_pong(&mut out, &payload);
    assert_eq!(out, b"\x8a\x07payload");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn we_read_what_tungstenite_writes(
        texts in prop::collection::vec("\\PC{0,300}", 1..6),
        portions in prop::collection::vec(1_usize..400, 1..8),
    ) {
        let mut peer = WebSocket::from_raw_socket(Pipe::default(), Role::Client, None);
        let mut expected = Vec::new();
        for text in &texts {
            peer.send(Message::text(text.as_str())).unwrap();
            peer.send(Message::Ping(vec![1, 2, 3].into())).unwrap();
            expected.extend([format!("text {text}"), "ping 3".to_string()]);
        }
        let input = peer.get_ref().from_peer.clone();
        prop_assert_eq!(events(&input, &portions, &WebSocketLimits::default()), expected);
    }

    #[test]
    fn splits_do_not_matter(
        frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..200)), 1..6),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2),
        portions in prop::collection::vec(1_usize..50, 1..8),
    ) {
        let opcodes = [0x01, 0x81, 0x81, 0x81, 0x00, 0x80, 0x80, 0x89, 0x8a, 0x88];
        let mut input: Vec<u8> =
            frames.iter().flat_map(|(pick, payload)| {
                let text: Vec<u8> = payload.iter().map(|byte| byte & 0x7f).collect();
                frame(opcodes[usize::from(*pick) % opcodes.len()], &text)
            }).collect();
        for (at, value) in flips {
            let at = at.index(input.len());
            input[at] = value;
        }
        let whole = events(&input, &[input.len()], &SMALL);
        prop_assert_eq!(&events(&input, &portions, &SMALL), &whole);
        prop_assert_eq!(&events(&input, &[1], &SMALL), &whole);
    }

    #[test]
    fn unmask_equals_the_definition(payload in prop::collection::vec(any::<u8>(), 0..100), mask: [u8; 4]) {
        let mut fast = payload.clone();
        unmask(&mut fast, mask);
        let slow: Vec<u8> = payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]).collect();
        prop_assert_eq!(fast, slow);
    }
}
