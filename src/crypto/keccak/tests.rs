use proptest::prelude::*;
use sha3::Digest;

use super::*;

fn oracle(message: &[u8]) -> B256 {
    B256::new(sha3::Keccak256::digest(message).into())
}

/// Hashes on every backend that this processor has and compares with the `sha3` crate.
#[track_caller]
fn check(messages: &[&[u8]]) {
    let expected: Vec<B256> = messages.iter().map(|message| oracle(message)).collect();
    for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available()) {
        let mut digests = vec![B256::ZERO; messages.len()];
        let mut calls = vec![0; messages.len()];
        keccak256_each_with(
            backend,
            messages.len(),
            |index| messages[index],
            |index, digest| {
                digests[index] = digest;
                calls[index] += 1;
            },
        );
        assert_eq!(digests, expected, "{}", backend.name());
        assert!(calls.iter().all(|count| *count == 1), "{}", backend.name());
    }
}

#[test]
fn every_length_around_eight_blocks() {
    let ran: Vec<&str> = Backend::ALL.into_iter().filter(|backend| backend.is_available()).map(Backend::name).collect();
    println!("backends that ran: {ran:?}; used by default: {}", backend_name());
    let bytes: Vec<u8> = (0..1101u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let messages: Vec<&[u8]> = (0..=1100).map(|len| &bytes[..len]).collect();
    check(&messages);
    for message in &messages {
        assert_eq!(keccak256(message), oracle(message));
    }
}

#[test]
fn every_count_of_equal_messages() {
    for count in 0..=20 {
        for len in [0, 1, 135, 136, 137, 272, 532] {
            let message = vec![0xa5; len];
            check(&vec![message.as_slice(); count]);
        }
    }
}

#[test]
fn many_keeps_the_order() {
    let messages: [&[u8]; 3] = [b"a", b"", b"abc"];
    let mut digests = [B256::ZERO; 3];
    keccak256_many(&messages, &mut digests);
    assert_eq!(digests, messages.map(oracle));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn mixed_lengths(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..700), 0..60)) {
        let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        check(&messages);
    }
}
