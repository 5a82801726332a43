//! What differs between L1s that take batches: number of items, header of the calldata, order of headers in the witness, limits.
//!
//! Everything else of the format is one code path. Source: EXECUTE_TX in `docs/SPECS.md`.

use std::fmt;
use std::str::FromStr;

/// A format of L1, by the name that `l1.format` and the genesis file have for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    /// 20 items: no anchor. Nodes before February 2026.
    ExecuteTxV1,
    /// 22 items: with an anchor.
    #[default]
    ExecuteTxV2,
}

/// A name that is no profile's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("L1 format \"{0}\" is not known: execute-tx-v2 and execute-tx-v1 are")]
pub struct UnknownProfile(pub String);

impl Profile {
    pub const ALL: [Self; 2] = [Self::ExecuteTxV1, Self::ExecuteTxV2];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ExecuteTxV1 => "execute-tx-v1",
            Self::ExecuteTxV2 => "execute-tx-v2",
        }
    }

    /// Whether AnchorSize and Anchor are items of the transaction and fields of the calldata.
    #[must_use]
    pub const fn has_anchor(self) -> bool {
        matches!(self, Self::ExecuteTxV2)
    }

    /// Items of a signed transaction.
    #[must_use]
    pub const fn item_count(self) -> usize {
        if self.has_anchor() { 22 } else { 20 }
    }

    /// Bytes of the calldata before the witness.
    #[must_use]
    pub const fn calldata_header_bytes(self) -> usize {
        if self.has_anchor() { 124 } else { 120 }
    }

    /// Whether the parent's header is the first of a witness's headers. Both profiles take the first for the parent's.
    #[must_use]
    pub const fn parent_header_first(self) -> bool {
        match self {
            Self::ExecuteTxV1 | Self::ExecuteTxV2 => true,
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        Self::ALL.into_iter().find(|profile| profile.name() == name).ok_or_else(|| UnknownProfile(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for profile in Profile::ALL {
            assert_eq!(profile.to_string().parse(), Ok(profile));
        }
        assert_eq!("execute-tx".parse::<Profile>(), Err(UnknownProfile("execute-tx".to_owned())));
        assert_eq!(Profile::default(), Profile::ExecuteTxV2);
    }
}
