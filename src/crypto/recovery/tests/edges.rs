//! Signatures at the edges of what the formulas can do, always among good ones: neighbours must not be touched.

use rand::seq::SliceRandom;
use secp256k1::PublicKey;

use super::*;

fn word(value: U256) -> [u8; 32] {
    value.to_be_bytes()
}

fn modulo(value: i64) -> U256 {
    let magnitude = U256::from(value.unsigned_abs());
    if value < 0 { GROUP_ORDER - magnitude } else { magnitude }
}

fn multiple_of_g(scalar: U256) -> PublicKey {
    SecretKey::from_byte_array(word(scalar)).expect("a scalar in range").public_key(SECP256K1)
}

/// The signature whose key is u1·G + u2·R with R = k·G.
fn item_of(k: U256, u1: U256, u2: U256) -> RecoverItem {
    let point = multiple_of_g(k).serialize_uncompressed();
    let r = U256::from_be_slice(&point[1..33]);
    let mut y_parity = point[64] & 1;
    let mut s = u2.mul_mod(r, GROUP_ORDER);
    if s > S_MAX {
        // −s with −R is the same key.
        (s, y_parity) = (GROUP_ORDER - s, y_parity ^ 1);
    }
    let digest = (GROUP_ORDER - u1).mul_mod(r, GROUP_ORDER);
    RecoverItem { digest: B256::from(word(digest)), r: word(r), s: word(s), y_parity }
}

/// Shuffles good signatures among them, in several orders, and compares on the vectors and in part on the model.
#[track_caller]
fn check(name: &str, edges: Vec<RecoverItem>) {
    let mut random = StdRng::seed_from_u64(5);
    let edge_count = edges.len();
    let mut items = edges;
    // As many lanes of good signatures as of edges, so that most vectors have both.
    items.extend((0..edge_count.min(300)).map(|_| random_item(&mut random)));
    let Some(engine) = detected(name) else {
        items.shuffle(&mut random);
        items.truncate(64);
        compare(Words, &items, &expected(&items));
        return;
    };
    let rounds = if is_long() { 20 } else { 2 };
    let mut flagged = 0;
    for _ in 0..rounds {
        items.shuffle(&mut random);
        flagged = compare(engine, &items, &expected(&items));
    }
    items.truncate(24);
    compare(Words, &items, &expected(&items));
    let valid = expected(&items).iter().filter(|sender| sender.is_ok()).count();
    println!(
        "{name}: {edge_count} edges, {flagged} lanes flagged in the last order; {valid} of the model's 24 are valid"
    );
}

#[test]
fn numbers_at_the_ends_of_their_ranges() {
    let p: U256 = U256::from_limbs([0xffff_fffe_ffff_fc2f, u64::MAX, u64::MAX, u64::MAX]);
    let n = GROUP_ORDER;
    let one = U256::from(1);
    let near =
        [U256::ZERO, one, U256::from(2), n - one, n, n + one, U256::MAX, p - one, p, p - n - one, p - n, p - n + one];
    let mut edges = Vec::new();
    for r in near {
        for s in near.into_iter().chain([S_MAX, S_MAX + one]) {
            for digest in [U256::ZERO, one, n - one, n, n + one, U256::MAX] {
                for y_parity in 0..=4 {
                    edges.push(RecoverItem { digest: B256::from(word(digest)), r: word(r), s: word(s), y_parity });
                }
            }
        }
    }
    check("ends of ranges", edges);
}

/// Small r, half of which are no x of the curve, and x whose point on the twist has a small order: were they not replaced, a
/// denominator among their first 16 multiples would be zero, and with it a whole lane of the batch.
#[test]
fn an_r_that_is_not_on_the_curve() {
    let small_order = [
        "0x7cf24bd3b5eb4f5a53f61dce2f38b063567891e6053a6049f631b90fdc6cbb93", // 3
        "0x1beaf40619582b4946cc1a7e359b658c3fa6f7103be60de464e7845807f29344", // 13
        "0xeb1f7200aecaa86682376fb1c13cd12b732221e774f553b0a0857f88fa20f86d", // 13
        "0x4b11c45cc1bb2c2f82db5d12c7814abd58c342fcbda0040e9303a3a65b6dba66", // 13
        "0x5d7603647df45dab5907aeea8ee83430f23a537aa58bfed6e28d5de5437c1c2e", // 13
    ];
    let small_order = small_order.iter().map(|text| text.parse::<U256>().expect("a number"));
    let mut random = StdRng::seed_from_u64(6);
    let mut edges = Vec::new();
    for r in (1..60_u64).map(U256::from).chain(small_order) {
        for y_parity in 0..2 {
            edges.push(RecoverItem { r: word(r), y_parity, ..random_item(&mut random) });
        }
    }
    check("r not on the curve", edges);
}

/// Keys that are infinity, ±G, or small multiples; u1·G = ±u2·R; u1 = 0.
#[test]
fn sums_that_meet_an_exception() {
    let mut random = StdRng::seed_from_u64(7);
    let mut edges = Vec::new();
    for _ in 0..12 {
        let k = U256::from_be_bytes(random.random::<[u8; 32]>()).reduce_mod(GROUP_ORDER);
        let u2 = U256::from_be_bytes(random.random::<[u8; 32]>()).reduce_mod(GROUP_ORDER);
        let product = k.mul_mod(u2, GROUP_ORDER);
        for key in [-2, -1, 0, 1, 2, 16, 512] {
            edges.push(item_of(k, modulo(key).add_mod(GROUP_ORDER - product, GROUP_ORDER), u2));
        }
        edges.push(item_of(k, product, u2));
        edges.push(item_of(k, U256::ZERO, u2));
        edges.push(item_of(k, GROUP_ORDER - U256::from(1), u2));
    }
    check("exceptions of the sum", edges);
}

/// R that the tables of G hold as well, with multipliers of one or two digits: points that are merged, or added to the sum, are equal or
/// opposite.
#[test]
fn an_r_that_is_a_known_multiple_of_g() {
    let lambda: U256 = "0x5363ad4cc05c30e0a5261c028812645a122e22ea20816678df02967c1b23bd72".parse().expect("a number");
    let shift = U256::from(1) << 128;
    let mut edges = Vec::new();
    let known =
        (1..=20).map(modulo).chain([lambda, lambda.mul_mod(lambda, GROUP_ORDER), shift, modulo(-1), modulo(-3)]);
    for k in known {
        let factors = [-17, -16, -15, -2, -1, 1, 2, 3, 15, 16, 17, 32, 33, 512, 1 << 40].map(modulo);
        for u2 in factors.into_iter().chain([lambda, shift]) {
            let product = k.mul_mod(u2, GROUP_ORDER);
            for u1 in [product, GROUP_ORDER - product, modulo(1), modulo(-1), product.mul_mod(shift, GROUP_ORDER)] {
                edges.push(item_of(k, u1, u2));
            }
        }
    }
    check("R known", edges);
}

/// One bad signature in each position of a vector, in each vector of a pair.
#[test]
fn a_bad_lane_leaves_its_neighbours_alone() {
    let mut random = StdRng::seed_from_u64(8);
    let good: Vec<_> = (0..32).map(|_| random_item(&mut random)).collect();
    let bad = [
        RecoverItem { r: word(U256::from(5)), ..good[0] }, // 5³ + 7 is no square.
        RecoverItem { r: [0; 32], ..good[0] },
        RecoverItem { s: [0; 32], ..good[0] },
        RecoverItem { y_parity: 2, ..good[0] },
        item_of(U256::from(3), GROUP_ORDER - U256::from(21), U256::from(7)),
    ];
    let all = expected(&good);
    for item in bad {
        let refused = expected(&[item])[0];
        assert!(refused.is_err(), "{item:?}");
        for position in 0..32 {
            let (mut items, mut senders) = (good.clone(), all.clone());
            (items[position], senders[position]) = (item, refused);
            match detect() {
                Some(engine) => assert_eq!(compare(engine, &items, &senders), 1),
                None if position % 8 == 3 => assert_eq!(compare(Words, &items, &senders), 1),
                None => {}
            }
        }
    }
}
