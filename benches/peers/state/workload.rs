//! What every store of the comparison is given: the same accounts, slots and blocks, computed from their numbers.
//!
//! `mix(n)` is the `n`-th output of splitmix64 with seed 0; `draw(seed, a, b) = mix(mix(mix(seed) ^ a) ^ b)`.
//! * Account `i` has an address of 20 bytes: `draw(1, i, 0)`, `draw(1, i, 1)` and the upper half of `draw(1, i, 2)`, big endian; the nonce `i % 100`;
//!   and a balance of 9 bytes that block `b` sets: the highest `1 + draw(2, i, b) % 255`, the rest `draw(2, i, !b)`. Block 0 is the first state.
//! * The contract is account 2^40 with nonce 1, balance 0 and no code; its slot `i` has the value `draw(3, i, b) | 2^63`.
//! * Block `b` changes `count` distinct old accounts (or slots), `draw(4, 2b, turn) % existing` (slots: `2b + 1`) for turn 0, 1, 2, …, those
//!   already drawn left out; and makes `count / 10` new ones, numbered from `existing` on. The loading of the first state may take any number of
//!   commits; go-ethereum counts them, so blocks are numbered from [`FIRST_BLOCK`] on, whatever the loader did.
//! * Read `turn` asks for account `draw(5, turn, 0) % existing`.
//!
//! `geth/workload.go` says the same in Go. That both say the same is checked by the state roots, which must be equal.

/// Number of the first block behind the loaded state.
pub const FIRST_BLOCK: u64 = 1_000;
/// Number of the account that has the slots.
pub const CONTRACT: u64 = 1 << 40;

/// Whose numbers a block draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Accounts,
    Slots,
}

fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn draw(seed: u64, a: u64, b: u64) -> u64 {
    mix(mix(mix(seed) ^ a) ^ b)
}

/// Address of an account.
pub fn address(number: u64) -> [u8; 20] {
    let mut address = [0; 20];
    address[..8].copy_from_slice(&draw(1, number, 0).to_be_bytes());
    address[8..16].copy_from_slice(&draw(1, number, 1).to_be_bytes());
    address[16..].copy_from_slice(&draw(1, number, 2).to_be_bytes()[..4]);
    address
}

/// Nonce of an account.
pub fn nonce(number: u64) -> u64 {
    number % 100
}

/// Balance of an account that a block sets.
pub fn balance(number: u64, block: u64) -> u128 {
    let high = 1 + draw(2, number, block) % 255;
    u128::from(high) << 64 | u128::from(draw(2, number, !block))
}

/// Value of a slot that a block sets.
pub fn slot_value(number: u64, block: u64) -> u64 {
    draw(3, number, block) | 1 << 63
}

/// Numbers that a block changes.
pub fn picks(kind: Kind, block: u64, existing: u64, count: u64) -> Vec<u64> {
    let tag = block << 1 | u64::from(kind == Kind::Slots);
    let mut seen = std::collections::HashSet::new();
    let drawn = (0..).map(|turn| draw(4, tag, turn) % existing).filter(|number| seen.insert(*number));
    drawn.take(count as usize).chain(existing..existing + count / 10).collect()
}

/// Account that a read asks for.
pub fn read_pick(turn: u64, existing: u64) -> u64 {
    draw(5, turn, 0) % existing
}

/// A row of blocks of one size: `1000x40` are 40 blocks of 1,000 accounts, `slots-10000x12` 12 blocks of 10,000 slots, and `warm-10000x5` 5 blocks
/// of 10,000 accounts that fill caches and do not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    pub is_warm_up: bool,
    pub kind: Kind,
    pub count: u64,
    pub blocks: u64,
}

impl Series {
    /// Reads a list of series with commas between them.
    pub fn parse_list(text: &str) -> Option<Vec<Self>> {
        text.split(',').map(Self::parse).collect()
    }

    fn parse(text: &str) -> Option<Self> {
        let (is_warm_up, text) = text.strip_prefix("warm-").map_or((false, text), |rest| (true, rest));
        let (kind, text) = text.strip_prefix("slots-").map_or((Kind::Accounts, text), |rest| (Kind::Slots, rest));
        let (count, blocks) = text.split_once('x')?;
        Some(Self { is_warm_up, kind, count: count.parse().ok()?, blocks: blocks.parse().ok()? })
    }

    /// The row's name in the output.
    pub fn name(&self) -> String {
        let warm_up = if self.is_warm_up { "warm-" } else { "" };
        let kind = if self.kind == Kind::Slots { "slots" } else { "accounts" };
        format!("{warm_up}{kind}-{}", self.count)
    }
}
