//! Keccak-256 of one message, and of many messages at once in vector lanes.
//!
//! Input → output: byte slices → digests, in the order of the inputs. Owner core: any; nothing here blocks, allocates or
//! keeps state, except that the processor's features are read once.
//! Lanes refill independently: when one message ends, its lane takes the next one while the others go on, so messages of
//! mixed lengths keep all lanes busy. Deliberately absent: incremental hashing, other output lengths, other paddings.
//!
//! | backend | messages at once | needs |
//! |---|---|---|
//! | `avx512` | 8 | AVX-512F |
//! | `avx2` | 4 | AVX2 |
//! | `scalar` | 1 | nothing |

#[cfg(target_arch = "x86_64")]
#[macro_use]
mod rounds;

#[cfg(target_arch = "x86_64")]
mod lanes;

#[cfg(target_arch = "x86_64")]
mod avx2;

#[cfg(target_arch = "x86_64")]
mod avx512;

#[cfg(target_arch = "x86_64")]
mod scalar;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU8, Ordering};

use alloy_primitives::B256;

/// The fastest backend that may be used, by its place in [`Backend::ALL`].
static LIMIT: AtomicU8 = AtomicU8::new(Backend::Avx512 as u8);

/// Bytes that one permutation absorbs: 1600 bits of state less twice the 256 bits of the digest.
pub const RATE_BYTES: usize = 136;

/// Fewer messages than this are hashed one after the other: with one lane in use the vectors lose to scalar code.
const LANES_USED_MIN: usize = 2;

/// How many messages are hashed at once, and with which instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Avx512,
    Avx2,
    Scalar,
}

impl Backend {
    /// All backends, the fastest first.
    pub const ALL: [Self; 3] = [Self::Avx512, Self::Avx2, Self::Scalar];

    /// The fastest backend of this processor, unless [`Backend::limit`] was called. The standard library keeps the answer of the first call.
    #[must_use]
    pub fn detect() -> Self {
        // ORDERING: Relaxed: a number by itself; every backend gives the same digests.
        match LIMIT.load(Ordering::Relaxed) {
            0 if Self::Avx512.is_available() => Self::Avx512,
            0 | 1 if Self::Avx2.is_available() => Self::Avx2,
            _ => Self::Scalar,
        }
    }

    /// Makes [`Backend::detect`] answer nothing faster than `self` from now on, in the whole process: for benches that compare whole commits.
    pub fn limit(self) {
        LIMIT.store(self as u8, Ordering::Relaxed);
    }

    /// Whether this processor has the instructions.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => std::arch::is_x86_feature_detected!("avx512f"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => std::arch::is_x86_feature_detected!("avx2"),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx2 => false,
            Self::Scalar => true,
        }
    }

    /// The word that logs and benches print.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Scalar => "scalar",
        }
    }
}

/// The name of the backend that [`keccak256_many`] and [`keccak256_each`] use here.
#[must_use]
pub fn backend_name() -> &'static str {
    Backend::detect().name()
}

/// Keccak-256 of one message.
#[must_use]
pub fn keccak256(message: &[u8]) -> B256 {
    #[cfg(target_arch = "x86_64")]
    if scalar::is_available() {
        return scalar::keccak256(message);
    }
    alloy_primitives::keccak256(message)
}

/// Keccak-256 of every message.
///
/// Shapes: `messages` and `digests` are both `[n]`, same order.
pub fn keccak256_many(messages: &[&[u8]], digests: &mut [B256]) {
    assert_eq!(messages.len(), digests.len());
    keccak256_each(messages.len(), |index| messages[index], |index, digest| digests[index] = digest);
}

/// Keccak-256 of `count` messages that a closure names and another takes, so that no list of slices is needed.
///
/// `message` is called once for each index in ascending order. `digest` is called once for each index in any order, and may
/// come before `message` of a later index.
pub fn keccak256_each<'a>(count: usize, message: impl FnMut(usize) -> &'a [u8], digest: impl FnMut(usize, B256)) {
    keccak256_each_with(Backend::detect(), count, message, digest);
}

/// [`keccak256_each`] on a backend that the caller chooses; on the scalar one when the processor lacks it.
pub fn keccak256_each_with<'a>(
    backend: Backend,
    count: usize,
    mut message: impl FnMut(usize) -> &'a [u8],
    mut digest: impl FnMut(usize, B256),
) {
    if count >= LANES_USED_MIN && backend.is_available() {
        match backend {
            #[cfg(target_arch = "x86_64")]
            Backend::Avx512 => return lanes::hash_each::<8>(avx512::absorb, count, message, digest),
            #[cfg(target_arch = "x86_64")]
            Backend::Avx2 => return lanes::hash_each::<4>(avx2::absorb, count, message, digest),
            _ => {}
        }
    }
    for index in 0..count {
        let hash = keccak256(message(index));
        digest(index, hash);
    }
}
