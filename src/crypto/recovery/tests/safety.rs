//! What happens when the vectors are wrong.

use super::*;

/// Tables in which every multiple of G is another one: sums come out on the curve, and wrong.
fn wrong_tables() -> Tables {
    let mut tables = Tables::with_offset(SecretKey::from_byte_array([7; 32]).expect("a key"));
    tables.base[0][1..].reverse();
    tables
}

fn batch(length: usize) -> Vec<RecoverItem> {
    let mut random = StdRng::seed_from_u64(4);
    (0..length).map(|_| random_item(&mut random)).collect()
}

#[track_caller]
fn check(engine: impl Engine) {
    let items = batch(40);
    let all = expected(&items);
    let wrong = wrong_tables();
    let mut worker = Worker::new();
    let mut senders = vec![Err(RecoverError::YParity(99)); items.len()];

    // Nothing is compared: the wrong senders show, so the tables are as wrong as this test needs.
    let careless = Net::with_interval(0);
    recover(engine, &wrong, &careless, &mut worker, &items, &mut senders);
    assert!(senders.iter().zip(&all).all(|(sender, expected)| sender != expected));
    assert!(!careless.is_stopped());
    assert_eq!(careless.counts(), [40, 0, 0, 0]);

    // Everything is compared: the first one stops the vectors, and the whole batch comes from libsecp256k1.
    let net = Net::with_interval(1);
    recover(engine, &wrong, &net, &mut worker, &items, &mut senders);
    assert_eq!(senders, all);
    assert!(net.is_stopped());
    assert_eq!(net.counts(), [40, 0, 1, 1]);
    let first = net.first().expect("a disagreement");
    assert_eq!((first.item, first.libsecp256k1), (items[0], all[0]));
    assert_ne!(Ok(first.vectors), all[0]);

    // It stays so, even with tables that are right.
    recover(engine, tables(), &net, &mut worker, &items, &mut senders);
    assert_eq!(senders, all);
    assert_eq!(net.counts(), [40, 0, 1, 1]);
}

#[test]
fn a_disagreement_stops_the_vectors_for_good() {
    check(Words);
    if let Some(engine) = detected("a disagreement") {
        check(engine);
    }
}

/// With one in 20 compared, wrong answers last at most a few batches.
#[test]
fn a_sample_finds_what_is_wrong() {
    let Some(engine) = detected("sampling") else { return };
    let items = batch(40);
    let (wrong, net, mut worker) = (wrong_tables(), Net::with_interval(20), Worker::new());
    let mut senders = vec![Err(RecoverError::YParity(99)); items.len()];
    let mut batches = 0;
    while !net.is_stopped() {
        batches += 1;
        assert!(batches < 3, "the longest distance between samples is 39");
        recover(engine, &wrong, &net, &mut worker, &items, &mut senders);
    }
    assert_eq!(senders, expected(&items), "the batch of the disagreement");
}

#[test]
fn right_answers_pass_the_comparison() {
    let Some(engine) = detected("comparison") else { return };
    let items = batch(200);
    let (net, mut worker) = (Net::with_interval(1), Worker::new());
    let mut senders = vec![Err(RecoverError::YParity(99)); items.len()];
    recover(engine, tables(), &net, &mut worker, &items, &mut senders);
    assert_eq!(senders, expected(&items));
    assert_eq!(net.counts(), [200, 0, 200, 0]);
}

/// An offset point that a batch happens to meet: its lanes are flagged, their neighbours are not.
#[test]
fn a_sum_that_meets_the_offset_is_flagged() {
    let Some(engine) = detected("offset") else { return };
    // T = R: the first digit that is added at the top makes the sum meet a multiple of T for some scalars; R = ±T is refused by no
    // range check, so every such signature has to come out right, by whichever way.
    let mut items = batch(64);
    let secret = SecretKey::from_byte_array([9; 32]).expect("a key");
    let point = secret.public_key(SECP256K1).serialize_uncompressed();
    let (own, net, mut worker) = (Tables::with_offset(secret), Net::with_interval(0), Worker::new());
    for (index, item) in items.iter_mut().enumerate().filter(|(index, _)| index % 3 == 0) {
        item.r = point[1..33].try_into().expect("32 bytes");
        item.y_parity = (index % 2) as u8;
        if index % 4 == 0 {
            // u1 = 0, and u2 = a small multiple.
            item.digest = B256::ZERO;
            item.s = (U256::from_be_bytes(item.r).mul_mod(U256::from(1 + index), GROUP_ORDER)).to_be_bytes();
        }
    }
    let mut senders = vec![Err(RecoverError::YParity(99)); items.len()];
    recover(engine, &own, &net, &mut worker, &items, &mut senders);
    assert_eq!(senders, expected(&items));
    println!("{} of 64 flagged", net.counts()[1]);
}
