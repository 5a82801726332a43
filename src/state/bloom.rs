//! Blooms of logs, with the bits of frequent addresses and topics remembered.
//!
//! Input → output: a log's address and topics → its bits in a block's or receipt's bloom. Owner core: whoever executes.
//! A token's address and the topic of `Transfer` come with each of its logs, so half of the hashes repeat.

use alloy_primitives::{Address, B256, Bloom};

use crate::crypto::keccak::keccak256_each;

/// Places of the cache. Direct-mapped: 1,024 places of 48 bytes are as large as a level 1 cache, and few tokens are busy at a time.
const CACHE_PLACES: usize = 1024;

/// An address and four topics (LOG4).
const ITEMS_MAX: usize = 5;

/// Positions of the three bits of the addresses and topics seen last.
pub struct BloomCache {
    places: Box<[Place; CACHE_PLACES]>,
}

/// An item of 20 or 32 bytes and its bits. `len` 0 = free.
#[derive(Clone, Copy)]
struct Place {
    item: [u8; 32],
    bits: [u16; 3],
    len: u8,
}

impl Default for BloomCache {
    fn default() -> Self {
        Self { places: Box::new([Place { item: [0; 32], bits: [0; 3], len: 0 }; CACHE_PLACES]) }
    }
}

impl BloomCache {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The bits of a few items. What is not known is hashed together.
    fn bits(&mut self, items: &[&[u8]], bloom: &mut Bloom) {
        let mut missing = [[].as_slice(); ITEMS_MAX];
        let mut count = 0;
        for item in items {
            match self.places[place_index(&padded(item))] {
                Place { item: known, bits, len } if usize::from(len) == item.len() && known == padded(item) => {
                    set(bloom, bits);
                }
                _ => {
                    missing[count] = item;
                    count += 1;
                }
            }
        }
        keccak256_each(
            count,
            |index| missing[index],
            |index, hash| {
                let item = padded(missing[index]);
                let bits = bits_of(&hash);
                set(bloom, bits);
                self.places[place_index(&item)] = Place { item, bits, len: missing[index].len() as u8 };
            },
        );
    }
}

/// Sets the bits of a log.
///
/// Source: yellow paper, section 4.3.1: each item sets three bits, from the first three pairs of bytes of its hash.
pub fn accrue(cache: &mut BloomCache, bloom: &mut Bloom, address: &Address, topics: &[B256]) {
    let (first, rest) = topics.split_at(topics.len().min(ITEMS_MAX - 1));
    let mut items = [address.as_slice(); ITEMS_MAX];
    for (item, topic) in items[1..].iter_mut().zip(first) {
        *item = topic.as_slice();
    }
    cache.bits(&items[..=first.len()], bloom);
    // The virtual machine makes no such log; a caller may.
    for topic in rest {
        cache.bits(&[topic.as_slice()], bloom);
    }
}

fn set(bloom: &mut Bloom, bits: [u16; 3]) {
    for bit in bits {
        bloom.0[255 - usize::from(bit / 8)] |= 1 << (bit % 8);
    }
}

fn bits_of(hash: &B256) -> [u16; 3] {
    [0, 2, 4].map(|byte| u16::from_be_bytes([hash[byte], hash[byte + 1]]) & 0x7ff)
}

fn padded(item: &[u8]) -> [u8; 32] {
    let mut padded = [0; 32];
    padded[..item.len()].copy_from_slice(item);
    padded
}

/// Mixes bytes from both ends: addresses in topics are padded on the left, numbers too.
fn place_index(key: &[u8; 32]) -> usize {
    let words = key.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    let mixed = words.fold(0u64, |mixed, word| (mixed.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (mixed >> 32) as usize % CACHE_PLACES
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{BloomInput, U256};
    use proptest::prelude::*;

    use super::*;

    fn oracle(logs: &[(Address, Vec<B256>)]) -> Bloom {
        let mut bloom = Bloom::ZERO;
        for (address, topics) in logs {
            bloom.accrue(BloomInput::Raw(address.as_slice()));
            for topic in topics {
                bloom.accrue(BloomInput::Raw(topic.as_slice()));
            }
        }
        bloom
    }

    proptest! {
        #[test]
        fn equals_the_uncached_bloom(logs in prop::collection::vec((0u64..40, prop::collection::vec(0u64..2_000, 0..7)), 0..40)) {
            let logs: Vec<(Address, Vec<B256>)> = logs
                .into_iter()
                .map(|(address, topics)| {
                    let address = Address::left_padding_from(&address.to_be_bytes());
                    (address, topics.into_iter().map(|topic| B256::from(U256::from(topic))).collect())
                })
                .collect();
            let mut cache = BloomCache::new();
            let mut bloom = Bloom::ZERO;
            for (address, topics) in &logs {
                accrue(&mut cache, &mut bloom, address, topics);
            }
            prop_assert_eq!(bloom, oracle(&logs));
        }
    }

    #[test]
    fn an_address_and_its_bytes_with_zeros_behind_differ() {
        let address = Address::repeat_byte(7);
        let mut padded = B256::ZERO;
        padded[..20].copy_from_slice(address.as_slice());
        let logs = [(address, vec![padded]), (address, vec![])];
        let mut cache = BloomCache::new();
        let mut bloom = Bloom::ZERO;
        for (address, topics) in &logs {
            accrue(&mut cache, &mut bloom, address, topics);
        }
        assert_eq!(bloom, oracle(&logs));
    }
}
