//! Writes JSON onto a byte vector: no intermediate tree, names and order as the caller gives them.

use crate::codec::hex::{data_into, quantity_into};
use crate::primitives::U256;

/// A number that JSON-RPC writes as a quantity.
pub trait Quantity {
    fn into_u256(self) -> U256;
}

impl Quantity for u64 {
    fn into_u256(self) -> U256 {
        U256::from(self)
    }
}

impl Quantity for u128 {
    fn into_u256(self) -> U256 {
        U256::from(self)
    }
}

impl Quantity for U256 {
    fn into_u256(self) -> U256 {
        self
    }
}

/// An object that is being written. `end` closes it; every other method adds one member.
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    /// Opens an object at the end of `out`.
    pub fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    /// Writes the name of the next member; the caller writes its value onto the returned vector.
    pub fn member(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    pub fn quantity(&mut self, name: &str, value: impl Quantity) {
        quantity(value, self.member(name));
    }

    pub fn data(&mut self, name: &str, bytes: impl AsRef<[u8]>) {
        data(bytes.as_ref(), self.member(name));
    }

    /// Data, or `null`.
    pub fn optional_data(&mut self, name: &str, bytes: Option<impl AsRef<[u8]>>) {
        match bytes {
            Some(bytes) => self.data(name, bytes),
            None => self.null(name),
        }
    }

    pub fn text(&mut self, name: &str, text: &str) {
        string(text, self.member(name));
    }

    pub fn boolean(&mut self, name: &str, value: bool) {
        boolean(value, self.member(name));
    }

    pub fn null(&mut self, name: &str) {
        self.member(name).extend_from_slice(b"null");
    }

    pub fn end(self) {
        self.out.push(b'}');
    }
}

/// Appends `"0x…"` without leading zeros.
pub fn quantity(value: impl Quantity, out: &mut Vec<u8>) {
    out.push(b'"');
    quantity_into(value.into_u256(), out);
    out.push(b'"');
}

/// Appends `"0x…"` with two digits a byte.
pub fn data(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    data_into(bytes, out);
    out.push(b'"');
}

pub fn boolean(value: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// Appends `text` as a JSON string with the escapes it needs.
pub fn string(text: &str, out: &mut Vec<u8>) {
    // A vector takes every byte and a `str` is always representable: there is nothing that could fail.
    let written = serde_json::to_writer(&mut *out, text);
    debug_assert!(written.is_ok());
}

/// Appends an array, one `write` per item.
pub fn array<T>(items: impl IntoIterator<Item = T>, out: &mut Vec<u8>, mut write: impl FnMut(T, &mut Vec<u8>)) {
    out.push(b'[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_separated_and_text_is_escaped() {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        object.quantity("zero", 0_u64);
        object.quantity("max", U256::MAX);
        object.data("data", [0_u8, 255]);
        object.optional_data("none", None::<[u8; 1]>);
        object.text("text", "a\"\n\u{1}é");
        object.boolean("yes", true);
        array([1_u64, 16], object.member("list"), quantity);
        array(std::iter::empty::<u64>(), object.member("empty"), quantity);
        object.end();
        let parsed: serde_json::Value = serde_json::from_slice(&out).expect("what was written is JSON");
        let expected = serde_json::json!({
            "zero": "0x0", "max": format!("0x{}", "f".repeat(64)), "data": "0x00ff", "none": null,
            "text": "a\"\n\u{1}é", "yes": true, "list": ["0x1", "0x10"], "empty": [],
        });
        assert_eq!(parsed, expected);
    }
}
