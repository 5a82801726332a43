//! Feeds messages of any length to the lanes of a vector permutation.

use alloy_primitives::B256;

use super::RATE_BYTES;

/// One block of a message, padded when it is the last.
pub type Block = [u8; RATE_BYTES];

/// Sponge states side by side: word `w` of lane `l` is `words[w][l]`.
#[repr(C, align(64))]
pub struct States<const LANES: usize> {
    pub words: [[u64; LANES]; 25],
}

/// Starts the lanes of which the bit in `keep` is zero afresh, absorbs one block into each lane and permutes.
pub type Absorb<const LANES: usize> = fn(states: &mut States<LANES>, blocks: &[&Block; LANES], keep: u8);

#[derive(Clone, Copy)]
struct Lane<'a> {
    /// What is left of the message after the blocks absorbed so far.
    rest: &'a [u8],
    index: usize,
    state: LaneState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LaneState {
    /// More blocks follow.
    Open,
    /// The block in flight is the message's last.
    Last,
    /// No message is left for this lane.
    Idle,
}

static IDLE_BLOCK: Block = [0; RATE_BYTES];

/// Hashes `count` messages, `LANES` at a time.
pub fn hash_each<'a, const LANES: usize>(
    absorb: Absorb<LANES>,
    count: usize,
    mut message: impl FnMut(usize) -> &'a [u8],
    mut digest: impl FnMut(usize, B256),
) {
    let mut states = States { words: [[0; LANES]; 25] };
    let mut tails = [IDLE_BLOCK; LANES];
    let mut lanes = [Lane { rest: &[], index: 0, state: LaneState::Last }; LANES];
    let mut taken = 0;
    let mut done = 0;
    while done < count {
        let mut keep = 0u8;
        let mut whole: [Option<&Block>; LANES] = [None; LANES];
        for (position, lane) in lanes.iter_mut().enumerate() {
            match lane.state {
                LaneState::Open => keep |= 1 << position,
                LaneState::Last if taken < count => {
                    *lane = Lane { rest: message(taken), index: taken, state: LaneState::Open };
                    taken += 1;
                }
                LaneState::Last | LaneState::Idle => {
                    lane.state = LaneState::Idle;
                    whole[position] = Some(&IDLE_BLOCK);
                    continue;
                }
            }
            if let Some((block, rest)) = lane.rest.split_first_chunk::<RATE_BYTES>() {
                whole[position] = Some(block);
                lane.rest = rest;
            } else {
                pad(lane.rest, &mut tails[position]);
                lane.state = LaneState::Last;
            }
        }
        let blocks: [&Block; LANES] = std::array::from_fn(|position| whole[position].unwrap_or(&tails[position]));
        absorb(&mut states, &blocks, keep);
        for (position, lane) in lanes.iter().enumerate() {
            if lane.state == LaneState::Last {
                digest(lane.index, squeeze(&states, position));
                done += 1;
            }
        }
    }
}

/// Keccak's original padding (0x01 … 0x80), not that of SHA-3.
fn pad(rest: &[u8], block: &mut Block) {
    block[..rest.len()].copy_from_slice(rest);
    block[rest.len()..].fill(0);
    block[rest.len()] = 0x01;
    block[RATE_BYTES - 1] |= 0x80;
}

fn squeeze<const LANES: usize>(states: &States<LANES>, position: usize) -> B256 {
    let mut digest = B256::ZERO;
    for (word, bytes) in digest.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *bytes = states.words[word][position].to_le_bytes();
    }
    digest
}
