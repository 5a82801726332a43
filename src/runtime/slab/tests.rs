//! The slab against a plain `Vec<u8>` per transaction, at its limits, and read from other threads.

#![allow(clippy::unwrap_used, reason = "a failed test is the purpose")]

use proptest::prelude::*;

use super::*;

fn slab(block_count: usize) -> Slab {
    Slab::new(ShardId(3), block_count * BLOCK_BYTES).unwrap()
}

fn put(slab: &mut Slab, bytes: &[u8]) -> Option<TxHandle> {
    let mut chunk = slab.alloc(bytes.len())?;
    chunk.copy_from_slice(bytes);
    Some(chunk.freeze())
}

#[test]
fn size_classes() {
    for (len, chunk_bytes) in [
        (1, Some(256)),
        (256, Some(256)),
        (257, Some(1024)),
        (1024, Some(1024)),
        (1025, Some(4096)),
        (4097, Some(16 << 10)),
        ((16 << 10) + 1, Some(72 << 10)),
        (65_536, Some(72 << 10)),
        (72 << 10, Some(72 << 10)),
        ((72 << 10) + 1, None),
        (0, None),
        (usize::MAX, None),
    ] {
        assert_eq!(class_of(len).map(|class| CHUNK_BYTES[class]), chunk_bytes, "{len}");
    }
}

#[test]
fn full_slab_refuses_and_recovers() {
    let mut slab = slab(2);
    let mut handles: Vec<TxHandle> = (0..8).map(|_| put(&mut slab, &[7; 65_536]).unwrap()).collect();
    assert!(slab.alloc(65_536).is_none());
    assert!(slab.alloc(1).is_none());
    assert_eq!(slab.used_bytes(), slab.capacity_bytes());
    // One freed chunk serves its own class only; a whole freed block serves any.
    slab.free(handles.pop().unwrap());
    assert!(slab.alloc(1).is_none());
    let again = put(&mut slab, &[8; 70_000]).unwrap();
    assert_eq!(slab.bytes(&again), [8; 70_000]);
    slab.free(again);
    handles.drain(4..).for_each(|handle| slab.free(handle));
    let small: Vec<TxHandle> = (0..1_152).map(|index: u32| put(&mut slab, &index.to_be_bytes()).unwrap()).collect();
    assert!(slab.alloc(1).is_none());
    for (index, handle) in small.iter().enumerate() {
        assert_eq!(slab.bytes(handle), (index as u32).to_be_bytes());
    }
    small.into_iter().chain(handles).for_each(|handle| slab.free(handle));
    assert_eq!(slab.used_bytes(), 0);
    assert!(slab.alloc(65_536).is_some());
}

#[test]
fn dropped_chunk_goes_back() {
    let mut slab = slab(1);
    for _ in 0..10 {
        drop(slab.alloc(65_536));
    }
    assert_eq!(slab.used_bytes(), 0);
}

#[test]
fn handle_of_another_slab_is_noticed() {
    let (mut one, two) = (slab(1), slab(1));
    let handle = put(&mut one, b"x").unwrap();
    assert_eq!(handle.shard(), ShardId(3));
    assert!(std::panic::catch_unwind(|| two.bytes(&handle).len()).is_err());
    one.free(handle);
}

#[test]
fn other_threads_read_while_the_owner_writes() {
    let mut slab = slab(4);
    let (to_reader, from_owner) = std::sync::mpsc::sync_channel::<(TxHandle, u8)>(64);
    let (to_owner, from_reader) = std::sync::mpsc::channel::<TxHandle>();
    let reader = slab.reader();
    let rounds = if cfg!(miri) { 200 } else { 20_000_u32 };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for (handle, value) in from_owner {
                assert!(reader.bytes(&handle).iter().all(|&byte| byte == value));
                to_owner.send(handle).unwrap();
            }
        });
        for round in 0..rounds {
            from_reader.try_iter().for_each(|handle| slab.free(handle));
            let bytes = vec![round as u8; 1 + (round as usize * 37) % 600];
            let handle = put(&mut slab, &bytes).expect("at most 66 are out");
            to_reader.send((handle, round as u8)).unwrap();
        }
        drop(to_reader);
        from_reader.iter().for_each(|handle| slab.free(handle));
    });
    assert_eq!(slab.used_bytes(), 0);
}

/// Lengths around every class.
fn len() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 1_usize..300, 2 => 1_usize..5_000, 1 => 1_usize..70_000, 1 => Just(256_usize), 1 => Just(65_536_usize)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 64 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_separate_vectors(steps in prop::collection::vec((any::<bool>(), len(), any::<u8>(), any::<prop::sample::Index>()), 1..400)) {
        let mut slab = slab(3);
        let mut model: Vec<(TxHandle, Vec<u8>)> = Vec::new();
        for (take, len, value, pick) in steps {
            if take {
                let bytes: Vec<u8> = (0..len).map(|index| value.wrapping_add(index as u8)).collect();
                match put(&mut slab, &bytes) {
                    Some(handle) => model.push((handle, bytes)),
                    // Refused only when no block is empty: each of the three holds something.
                    None => prop_assert!(slab.used_bytes() > 0 && model.len() >= 3),
                }
            } else if !model.is_empty() {
                let (handle, bytes) = model.swap_remove(pick.index(model.len()));
                prop_assert_eq!(slab.bytes(&handle), &bytes[..]);
                slab.free(handle);
            }
            let used: usize = model.iter().map(|(_, bytes)| CHUNK_BYTES[class_of(bytes.len()).unwrap()]).sum();
            prop_assert_eq!(slab.used_bytes(), used);
        }
        for (handle, bytes) in model {
            prop_assert_eq!(slab.bytes(&handle), &bytes[..]);
            slab.free(handle);
        }
        prop_assert_eq!(slab.used_bytes(), 0);
        // Everything is one stock again.
        let all: Vec<TxHandle> = (0..12).map(|_| put(&mut slab, &[1; 65_536]).unwrap()).collect();
        all.into_iter().for_each(|handle| slab.free(handle));
    }
}
