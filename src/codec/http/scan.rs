//! Byte-level leaves of the HTTP parser: straight loops over slices, no state.

use super::Refusal;

/// Which bytes may stand in a token (RFC 9110 section 5.6.2).
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric()
            || matches!(
                byte as u8,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        byte += 1;
    }
    table
};

/// Whether `bytes` is a non-empty token.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| TOKEN[usize::from(byte)])
}

/// Position of the first LF at or after `from`. Eight bytes per step: a header line is some tens of bytes long.
pub fn find_lf(bytes: &[u8], from: usize) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const LF: u64 = u64::from_ne_bytes([b'\n'; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    let tail = bytes.get(from..)?;
    let (words, rest) = tail.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let difference = u64::from_le_bytes(*word) ^ LF;
        // The lowest marked byte is exact: borrows only travel upwards from a byte that is zero.
        let zero_bytes = difference.wrapping_sub(ONES) & !difference & HIGH;
        if zero_bytes != 0 {
            return Some(from + index * 8 + (zero_bytes.trailing_zeros() / 8) as usize);
        }
    }
    rest.iter().position(|&byte| byte == b'\n').map(|at| from + words.len() * 8 + at)
}

/// Whether a header value holds only visible bytes, spaces, tabs and bytes above ASCII. No early exit, so that it vectorises.
pub fn value_is_clean(value: &[u8]) -> bool {
    !value.iter().fold(false, |bad, &byte| bad | ((byte < 0x20) & (byte != b'\t')) | (byte == 0x7f))
}

/// Optional white space around a value: how many bytes are skipped in front, and how many remain.
pub fn trim_ows(value: &[u8]) -> (usize, usize) {
    let is_ows = |byte: &u8| matches!(byte, b' ' | b'\t');
    let skipped = value.iter().take_while(|byte| is_ows(byte)).count();
    let trailing = value[skipped..].iter().rev().take_while(|byte| is_ows(byte)).count();
    (skipped, value.len() - skipped - trailing)
}

/// Whether the comma-separated list holds `token` (lower case), in any case.
pub fn list_contains(list: &[u8], token: &[u8]) -> bool {
    list.split(|&byte| byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

/// A decimal number of 1 to 19 digits: no sign, no space, no list. 19 digits always fit 64 bits.
pub fn parse_decimal(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::LengthMalformed);
    }
    Ok(value.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// A chunk line without its CRLF: the chunk's size and how many bytes its extensions take.
///
/// At most 8 hex digits: more is larger than any body we take, and a parser that wraps around is how chunk sizes are smuggled.
pub fn parse_chunk_line(line: &[u8]) -> Result<(usize, usize), Refusal> {
    let digit_count = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digit_count == 0 || digit_count > 8 {
        return Err(Refusal::ChunkSizeMalformed);
    }
    let extensions = &line[digit_count..];
    // White space before `;` (RFC 9112 "bad" white space) is refused too: servers disagree about it.
    if !(extensions.is_empty() || extensions[0] == b';') || !value_is_clean(extensions) {
        return Err(Refusal::ChunkSizeMalformed);
    }
    let size = line[..digit_count].iter().fold(0_usize, |size, &digit| {
        size << 4
            | usize::from(match digit {
                b'0'..=b'9' => digit - b'0',
                _ => (digit | 0x20) - b'a' + 10,
            })
    });
    Ok((size, extensions.len()))
}
