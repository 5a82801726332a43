//! The one witness of a run of segments, and how long everything becomes.
//!
//! Sizes are exact but for what depends on lengths of lengths, which count as their longest.

use std::collections::{BTreeMap, HashMap, HashSet};

use foldhash::fast::RandomState;

use crate::primitives::{B256, Bytes};
use crate::settlement::batch::{
    BATCH_BYTES_MAX, BLOCK_BYTES_MAX, ENVELOPE_BYTES_MAX, FIELD_BYTES_MAX, SEGMENT_BYTES_MAX,
};
use crate::settlement::execution::string_bytes;
use crate::settlement::segment::Segment;
use crate::witness::validator::trie::Place;
use crate::witness::{Form, Witness};

/// Headers of the lists of a witness in its field.
const LISTS_BYTES: usize = 4 * 4;

/// Sums over the segments of a batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    pub tx_count: usize,
    pub tx_bytes: usize,
    pub access_count: usize,
    pub withdrawal_bytes: usize,
    block_count: usize,
    segment_count: usize,
}

/// See the module's text.
#[derive(Clone, Default)]
pub struct Aggregate {
    facts: Facts,
    first_block: Option<u64>,
    last_block: u64,
    headers: BTreeMap<u64, Bytes>,
    nodes: HashMap<B256, Bytes, RandomState>,
    codes: HashMap<B256, Bytes, RandomState>,
    made_nodes: HashSet<(B256, Place), RandomState>,
    made_codes: HashSet<B256, RandomState>,
    witness_bytes: usize,
}

impl Aggregate {
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    #[must_use]
    pub fn witness_bytes(&self) -> usize {
        self.witness_bytes
    }

    #[must_use]
    pub fn witness_bytes_with(&self, next: &Segment) -> usize {
        self.witness_bytes + self.new_witness_bytes(next)
    }

    /// Raw bytes of an ExecuteTx, stored.
    #[must_use]
    pub fn bytes(&self) -> usize {
        Self::bytes_of(&self.facts, self.witness_bytes)
    }

    #[must_use]
    pub fn bytes_with(&self, next: &Segment) -> usize {
        Self::bytes_of(&self.facts_with(next), self.witness_bytes_with(next))
    }

    fn bytes_of(facts: &Facts, witness_bytes: usize) -> usize {
        ENVELOPE_BYTES_MAX
            + BATCH_BYTES_MAX
            + facts.block_count * BLOCK_BYTES_MAX
            + facts.segment_count * SEGMENT_BYTES_MAX
            + facts.tx_bytes
            + facts.withdrawal_bytes
            + witness_bytes
    }

    fn facts_with(&self, next: &Segment) -> Facts {
        let is_new = self.first_block.is_none() || self.last_block != next.block_number();
        Facts {
            tx_count: self.facts.tx_count + next.transactions.len(),
            tx_bytes: self.facts.tx_bytes + next.tx_bytes(),
            access_count: self.facts.access_count + next.access_count,
            withdrawal_bytes: self.facts.withdrawal_bytes + next.withdrawal_bytes(),
            block_count: self.facts.block_count + usize::from(is_new),
            segment_count: self.facts.segment_count + 1,
        }
    }

    fn new_witness_bytes(&self, next: &Segment) -> usize {
        let headers: usize = self.new_headers(next).map(|(_, header)| header.len()).sum();
        // An entry that stands at two places counts twice here, which happens next to never.
        let nodes: usize = self.new_nodes(next).map(|(_, bytes)| string_bytes(bytes.len())).sum();
        let codes: usize = self.new_codes(next).map(|(_, bytes)| string_bytes(bytes.len())).sum();
        headers + nodes + codes
    }

    /// Headers below the first block of the run: later ones follow from the run itself.
    fn new_headers<'n>(&self, next: &'n Segment) -> impl Iterator<Item = (u64, &'n Bytes)> {
        let end = next.block_number();
        let first_block = self.first_block.unwrap_or(end);
        let numbers = end - next.headers.len() as u64..end;
        numbers
            .zip(&next.headers)
            .filter(move |(number, _)| *number < first_block && !self.headers.contains_key(number))
    }

    fn new_nodes<'n>(&self, next: &'n Segment) -> impl Iterator<Item = (B256, &'n Bytes)> {
        let is_new = |hash: &B256, place| !self.made_nodes.contains(&(*hash, place)) && !self.nodes.contains_key(hash);
        next.nodes.iter().filter(move |node| is_new(&node.hash, node.place)).map(|node| (node.hash, &node.bytes))
    }

    fn new_codes<'n>(&self, next: &'n Segment) -> impl Iterator<Item = (B256, &'n Bytes)> {
        let is_new = |hash: &B256| !self.made_codes.contains(hash) && !self.codes.contains_key(hash);
        next.codes.iter().filter(move |(hash, _)| is_new(hash)).map(|(hash, code)| (*hash, code))
    }

    pub fn add(&mut self, next: &Segment) {
        self.facts = self.facts_with(next);
        let headers: Vec<(u64, Bytes)> =
            self.new_headers(next).map(|(number, header)| (number, header.clone())).collect();
        for (number, header) in headers {
            self.witness_bytes += header.len();
            self.headers.insert(number, header);
        }
        self.first_block.get_or_insert(next.block_number());
        self.last_block = next.block_number();
        for node in &next.nodes {
            if !self.made_nodes.contains(&(node.hash, node.place))
                && self.nodes.insert(node.hash, node.bytes.clone()).is_none()
            {
                self.witness_bytes += string_bytes(node.bytes.len());
            }
        }
        for (hash, code) in &next.codes {
            if !self.made_codes.contains(hash) && self.codes.insert(*hash, code.clone()).is_none() {
                self.witness_bytes += string_bytes(code.len());
            }
        }
        self.made_nodes.extend(next.made_nodes.iter().copied());
        self.made_codes.extend(next.made_codes.iter().copied());
    }

    /// The Witness field, encoded, and what it has no room for. The root's node and the headers come first, codes last: hashes do not
    /// compress, so that what can is left for Data.
    #[must_use]
    pub fn split(&self, root: &B256) -> (Vec<u8>, Witness) {
        let mut room = FIELD_BYTES_MAX - LISTS_BYTES;
        let mut take = |bytes: usize| {
            let fits = bytes <= room;
            room -= if fits { bytes } else { 0 };
            fits
        };
        let (mut field, mut overflow) = (Witness::default(), Witness::default());
        // The parent's first; the encoding turns them round again.
        for header in self.headers.values().rev() {
            let is_room = overflow.headers.is_empty() && take(header.len());
            (if is_room { &mut field } else { &mut overflow }).headers.push(header.clone());
        }
        field.headers.reverse();
        let mut nodes: Vec<(&B256, &Bytes)> = self.nodes.iter().collect();
        nodes.sort_unstable_by_key(|(_, bytes)| *bytes);
        let root_bytes = self.nodes.get(root).map_or(0, |node| string_bytes(node.len()));
        take(root_bytes);
        for (hash, node) in nodes {
            let is_room = hash == root || take(string_bytes(node.len()));
            (if is_room { &mut field } else { &mut overflow }).state.push(node.clone());
        }
        let mut codes: Vec<&Bytes> = self.codes.values().collect();
        codes.sort_unstable();
        for code in codes {
            let is_room = take(string_bytes(code.len()));
            (if is_room { &mut field } else { &mut overflow }).codes.push(code.clone());
        }
        (field.encode_as(Form::EXECUTE_TX_V2), overflow)
    }
}
