//! The order of one sender's transactions: draws → kind, nonce and part of a group for each of its turns.

use super::mix::Kind;

/// What a transaction is within its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// No group.
    Single,
    /// Behind a nonce that has not come yet.
    Gapped,
    /// Behind a gap, and about to be replaced.
    Original,
    /// Takes the place of the original, at higher fees.
    Replacement,
    /// The nonce that the others wait for; the last of its group.
    Filler,
}

/// One turn of a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    pub kind: Kind,
    pub part: Part,
    /// Distance from the sender's first nonce.
    pub nonce_offset: u64,
}

/// Where one sender stands.
#[derive(Clone, Debug)]
pub struct Turns {
    left: u64,
    next_nonce: u64,
    /// Kind and next member of the group that has begun.
    group: Option<(Kind, u64)>,
}

impl Turns {
    pub const fn new(count: u64) -> Self {
        Self { left: count, next_nonce: 0, group: None }
    }

    /// The next turn; `draw` is asked for a kind when a group is over. A group that does not fit any more becomes transfers.
    pub fn next(&mut self, draw: impl FnOnce() -> Kind) -> Turn {
        let (kind, at) = self.group.take().unwrap_or_else(|| (draw(), 0));
        let group_len = kind.group_len();
        let fits = at > 0 || group_len <= self.left;
        self.left = self.left.saturating_sub(1);
        if group_len == 1 || !fits {
            let nonce_offset = self.next_nonce;
            self.next_nonce += 1;
            let kind = if fits { kind } else { Kind::Transfer };
            return Turn { kind, part: Part::Single, nonce_offset };
        }
        let (ahead, part) = match (kind, at) {
            (Kind::Replacement, 0) => (1, Part::Original),
            (Kind::Replacement, 1) => (1, Part::Replacement),
            _ if at + 1 == group_len => (0, Part::Filler),
            _ => (group_len - 1 - at, Part::Gapped),
        };
        let nonce_offset = self.next_nonce + ahead;
        if part == Part::Filler {
            // The original and its replacement share a nonce.
            self.next_nonce += if kind == Kind::Replacement { 2 } else { group_len };
        } else {
            self.group = Some((kind, at + 1));
        }
        Turn { kind, part, nonce_offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(count: u64, kinds: &[Kind]) -> Vec<(Part, u64)> {
        let mut turns = Turns::new(count);
        let mut kinds = kinds.iter().copied();
        (0..count).map(|_| turns.next(|| kinds.next().unwrap())).map(|turn| (turn.part, turn.nonce_offset)).collect()
    }

    #[test]
    fn groups_use_every_nonce_once_or_replace_it() {
        use Part::{Filler, Gapped, Original, Replacement, Single};
        let seen = turns(9, &[Kind::Transfer, Kind::NonceGap, Kind::Replacement, Kind::Hot]);
        let expected = [
            (Single, 0),
            (Gapped, 4),
            (Gapped, 3),
            (Gapped, 2),
            (Filler, 1),
            (Original, 6),
            (Replacement, 6),
            (Filler, 5),
            (Single, 7),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_group_that_does_not_fit_becomes_transfers() {
        let seen = turns(5, &[Kind::NonceGap, Kind::Replacement]);
        assert_eq!(seen[3..], [(Part::Filler, 0), (Part::Single, 4)]);
        let seen = turns(2, &[Kind::Replacement, Kind::NonceGap]);
        assert_eq!(seen, [(Part::Single, 0), (Part::Single, 1)]);
    }
}
