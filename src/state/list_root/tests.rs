use alloy_trie::root::ordered_trie_root_encoded;
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

#[track_caller]
fn check(builder: &mut ListRoot, items: &[Vec<u8>]) {
    builder.reset();
    for item in items {
        builder.push(item);
    }
    assert_eq!(builder.len(), items.len());
    assert_eq!(builder.finish(), ordered_trie_root_encoded(items), "{} items", items.len());
}

fn items(prng: &mut SmallRng, count: usize, bytes: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    (0..count)
        .map(|_| {
            let len = prng.random_range(bytes.clone());
            (0..len).map(|_| prng.random()).collect()
        })
        .collect()
}

#[test]
fn every_count_up_to_300() {
    let mut prng = SmallRng::seed_from_u64(1);
    let mut builder = ListRoot::new();
    for count in 0..=300 {
        for bytes in [1..2, 1..41, 24..34, 100..300] {
            let items = items(&mut prng, count, bytes);
            check(&mut builder, &items);
        }
    }
}

#[test]
fn counts_at_the_edges_of_the_key_lengths() {
    let mut prng = SmallRng::seed_from_u64(2);
    let mut builder = ListRoot::new();
    for count in [4095, 4096, 4097, 4112, 4113, 4114, 9999, 20_000] {
        let items = items(&mut prng, count, 1..300);
        check(&mut builder, &items);
    }
    for count in [65_535, 65_536, 65_537, 65_538, 65_552, 65_553, 65_554, 66_000] {
        let items = items(&mut prng, count, 1..40);
        check(&mut builder, &items);
    }
}

#[test]
fn long_items() {
    let mut prng = SmallRng::seed_from_u64(3);
    let mut builder = ListRoot::new();
    let items = items(&mut prng, 40, 1..200_000);
    check(&mut builder, &items);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_list(items in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..80), 0..600)) {
        check(&mut ListRoot::new(), &items);
    }
}
