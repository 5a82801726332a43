//! Execution witnesses: everything that a verifier without state needs to execute a block.
//!
//! Input → output: what execution touched and the state before it → a [`Witness`], and back: block and witness → roots.
//! The reference is go-ethereum v1.17.5, byte for byte. Owner core: any; nothing here reads a file or keeps a clock.

pub mod decode;

mod rlp;

pub mod validator;

use alloy_primitives::Bytes;
use alloy_rlp::{Encodable, Header};

/// The witness of a block, or of a run of blocks, in go-ethereum's `stateless.Witness` form (`ExtWitness`).
///
/// Canonical order (go-ethereum from v1.17.4 on): headers ascending by number and ending with the parent, codes and state
/// nodes sorted by their bytes, nothing twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    /// RLP of the parent header, and of as many before it as `BLOCKHASH` needs.
    pub headers: Vec<Bytes>,
    /// Contract codes.
    pub codes: Vec<Bytes>,
    /// RLP of trie nodes of the state before, accounts and storage together.
    pub state: Vec<Bytes>,
}

impl Witness {
    /// RLP: `[headers: [header], codes: [string], state: [string], keys: []]`; headers are lists already.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let headers_payload: usize = self.headers.iter().map(|header| header.len()).sum();
        let strings_payload = |list: &[Bytes]| list.iter().map(Encodable::length).sum::<usize>();
        let list = |payload_length| Header { list: true, payload_length };
        let lists = [headers_payload, strings_payload(&self.codes), strings_payload(&self.state), 0].map(list);
        let payload_length = lists.iter().map(|header| header.length() + header.payload_length).sum();
        let mut out = Vec::with_capacity(payload_length + 9);
        list(payload_length).encode(&mut out);
        lists[0].encode(&mut out);
        for header in &self.headers {
            out.extend_from_slice(header);
        }
        for (header, strings) in lists[1..].iter().zip([&self.codes[..], &self.state, &[]]) {
            header.encode(&mut out);
            for string in strings {
                string.encode(&mut out);
            }
        }
        out
    }
}
