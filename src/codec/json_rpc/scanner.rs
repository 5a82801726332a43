//! A cursor over JSON text that checks the grammar and finds where values end. It builds nothing.
//!
//! Input → output: a byte slice → positions in it. Invariant: `at ≤ bytes.len()`, and every loop moves `at` forward.
//! Deliberately absent: values of numbers, pairing of surrogates in `\u` escapes (RFC 8259 allows lone ones).

use super::plain::plain_end;
use super::{ErrorKind, JSON_DEPTH_MAX};

/// What is wrong and at which byte. Internal: `Error` adds the id.
pub(super) type Fault = (ErrorKind, usize);

/// A position in JSON text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scanner<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

/// Which containers are open: one bit each, innermost lowest; 1 = object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nesting {
    objects: u64,
    depth: u32,
    /// Containers that were open before and that the caller closes itself.
    outer: u32,
}

impl Nesting {
    pub fn inside(outer: u32) -> Self {
        Self { objects: 0, depth: 0, outer }
    }

    pub fn push(&mut self, is_object: bool, offset: usize) -> Result<(), Fault> {
        if self.outer + self.depth >= JSON_DEPTH_MAX {
            return Err((ErrorKind::TooDeep, offset));
        }
        self.objects = self.objects << 1 | u64::from(is_object);
        self.depth += 1;
        Ok(())
    }

    fn pop(&mut self) {
        self.objects >>= 1;
        self.depth -= 1;
    }
}

const _: () = assert!(JSON_DEPTH_MAX <= u64::BITS, "Nesting keeps one bit a level");

impl<'a> Scanner<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    #[inline]
    pub fn skip_whitespace(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    #[inline]
    pub fn peek(&self) -> Result<u8, Fault> {
        self.bytes.get(self.at).copied().ok_or((ErrorKind::UnexpectedEnd, self.at))
    }

    /// Moves over whitespace and then over `expected`.
    #[inline]
    pub fn expect(&mut self, expected: u8) -> Result<(), Fault> {
        self.skip_whitespace();
        if self.peek()? != expected {
            return Err(self.unexpected());
        }
        self.at += 1;
        Ok(())
    }

    /// The fault of a byte that cannot stand here (or of the end of the text).
    #[cold]
    pub fn unexpected(&self) -> Fault {
        match self.bytes.get(self.at) {
            Some(&byte) => (ErrorKind::UnexpectedByte(byte), self.at),
            None => (ErrorKind::UnexpectedEnd, self.at),
        }
    }

    /// Moves over whitespace, which must reach the end.
    pub fn expect_end(&mut self) -> Result<(), Fault> {
        self.skip_whitespace();
        if self.at == self.bytes.len() { Ok(()) } else { Err((ErrorKind::TrailingBytes, self.at)) }
    }

    /// Moves over a value whose first byte is here; `outer` containers are open around it.
    pub fn skip_value(&mut self, outer: u32) -> Result<(), Fault> {
        self.skip_values(Nesting::inside(outer))
    }

    /// Moves over the value here and over all that follows in the open containers, until they are closed.
    pub fn skip_values(&mut self, mut open: Nesting) -> Result<(), Fault> {
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    self.skip_string()?;
                }
                b'-' | b'0'..=b'9' => self.skip_number()?,
                b't' => self.skip_literal(b"true")?,
                b'f' => self.skip_literal(b"false")?,
                b'n' => self.skip_literal(b"null")?,
                opener @ (b'[' | b'{') => {
                    if self.open(opener == b'{', &mut open)? {
                        continue;
                    }
                }
                _ => return Err(self.unexpected()),
            }
            if !self.skip_to_next_value(&mut open)? {
                return Ok(());
            }
        }
    }

    /// Enters a container; answers whether a value follows (otherwise it was empty and is closed again).
    fn open(&mut self, is_object: bool, open: &mut Nesting) -> Result<bool, Fault> {
        open.push(is_object, self.at)?;
        self.at += 1;
        self.skip_whitespace();
        let closer = if is_object { b'}' } else { b']' };
        if self.peek()? == closer {
            self.at += 1;
            open.pop();
            return Ok(false);
        }
        if is_object {
            self.skip_key()?;
        }
        Ok(true)
    }

    /// After a value: moves over closers and one comma to the next value; false when nothing is open any more.
    pub fn skip_to_next_value(&mut self, open: &mut Nesting) -> Result<bool, Fault> {
        while open.depth > 0 {
            self.skip_whitespace();
            let is_object = open.objects & 1 == 1;
            match self.peek()? {
                b',' => {
                    self.at += 1;
                    self.skip_whitespace();
                    if is_object {
                        self.skip_key()?;
                    }
                    return Ok(true);
                }
                b']' if !is_object => self.at += 1,
                b'}' if is_object => self.at += 1,
                _ => return Err(self.unexpected()),
            }
            open.pop();
        }
        Ok(false)
    }

    /// Moves over a member name, its colon and the whitespace before the value.
    fn skip_key(&mut self) -> Result<(), Fault> {
        self.expect(b'"')?;
        self.skip_string()?;
        self.expect(b':')?;
        self.skip_whitespace();
        Ok(())
    }

    /// Moves over the rest of a string, its first quote already passed; answers whether it holds escapes.
    #[inline]
    pub fn skip_string(&mut self) -> Result<bool, Fault> {
        self.at = plain_end(self.bytes, self.at);
        if self.bytes.get(self.at) == Some(&b'"') {
            self.at += 1;
            return Ok(false);
        }
        self.skip_special_string()
    }

    /// The rest of a string from its first byte that is not plain ASCII.
    #[cold]
    fn skip_special_string(&mut self) -> Result<bool, Fault> {
        let mut escaped = false;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Ok(escaped);
                }
                b'\\' => {
                    self.skip_escape()?;
                    escaped = true;
                }
                byte @ 0..0x20 => return Err((ErrorKind::ControlCharacter(byte), self.at)),
                0x80.. => self.skip_non_ascii()?,
                _ => {}
            }
            self.at = plain_end(self.bytes, self.at);
        }
    }

    fn skip_escape(&mut self) -> Result<(), Fault> {
        let start = self.at;
        self.at += 1;
        match self.peek()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
            b'u' => {
                self.at += 1;
                let digits =
                    self.bytes.get(self.at..self.at + 4).ok_or((ErrorKind::UnexpectedEnd, self.bytes.len()))?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err((ErrorKind::BadEscape, start));
                }
                self.at += 4;
            }
            _ => return Err((ErrorKind::BadEscape, start)),
        }
        Ok(())
    }

    /// Moves over a run of bytes above ASCII. Such a run is valid UTF-8 exactly when the text around it can be.
    fn skip_non_ascii(&mut self) -> Result<(), Fault> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(u8::is_ascii).unwrap_or(rest.len());
        if let Err(error) = std::str::from_utf8(&rest[..length]) {
            return Err((ErrorKind::BadUtf8, self.at + error.valid_up_to()));
        }
        self.at += length;
        Ok(())
    }

    pub fn skip_literal(&mut self, literal: &[u8]) -> Result<(), Fault> {
        for &expected in literal {
            if self.peek()? != expected {
                return Err(self.unexpected());
            }
            self.at += 1;
        }
        Ok(())
    }

    /// Moves over a number: `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?`.
    pub fn skip_number(&mut self) -> Result<(), Fault> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        if self.peek()? == b'0' {
            self.at += 1;
        } else {
            self.skip_digits()?;
        }
        if let Some(b'.') = self.bytes.get(self.at) {
            self.at += 1;
            self.skip_digits()?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.skip_digits()?;
        }
        Ok(())
    }

    /// Moves over one digit or more.
    fn skip_digits(&mut self) -> Result<(), Fault> {
        if !self.peek()?.is_ascii_digit() {
            return Err(self.unexpected());
        }
        while let Some(b'0'..=b'9') = self.bytes.get(self.at) {
            self.at += 1;
        }
        Ok(())
    }
}
