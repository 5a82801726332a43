//! What a workload is made of: kinds of transactions and their shares.

use std::fmt;
use std::str::FromStr;

/// One kind of transaction. Three of them come in groups of one sender, so that something happens between their members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One wei to a random recipient.
    Transfer,
    /// One token to a random recipient.
    Erc20,
    /// Writes one random slot of a mapping.
    Storage,
    /// Writes the same slot as every other one: nothing can run beside it.
    Hot,
    /// Creates a contract.
    Deploy,
    /// A token transfer that its sender cannot pay: included, and reverted.
    Revert,
    /// `eth_sendRawTransactionConditional` with conditions that hold.
    Conditional,
    /// Four transactions of one sender in reverse order of their nonces: none can run before the last has come.
    NonceGap,
    /// A transaction behind a gap, its replacement at a higher fee, and the one that fills the gap.
    Replacement,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Self::Transfer,
        Self::Erc20,
        Self::Storage,
        Self::Hot,
        Self::Deploy,
        Self::Revert,
        Self::Conditional,
        Self::NonceGap,
        Self::Replacement,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Transfer => "transfer",
            Self::Erc20 => "erc20",
            Self::Storage => "storage",
            Self::Hot => "hot",
            Self::Deploy => "deploy",
            Self::Revert => "revert",
            Self::Conditional => "conditional",
            Self::NonceGap => "nonce-gap",
            Self::Replacement => "replacement",
        }
    }

    /// Transactions that belong together.
    pub const fn group_len(self) -> u64 {
        match self {
            Self::NonceGap => 4,
            Self::Replacement => 3,
            _ => 1,
        }
    }

    pub const fn needs_token(self) -> bool {
        matches!(self, Self::Erc20 | Self::Revert)
    }

    pub const fn needs_storage(self) -> bool {
        matches!(self, Self::Storage | Self::Hot | Self::Conditional)
    }
}

/// Gas limits by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GasLimits([u64; Kind::ALL.len()]);

impl GasLimits {
    pub const fn of(&self, kind: Kind) -> u64 {
        self.0[kind as usize]
    }

    /// Raises the limit of a kind; never lowers it.
    pub fn raise(&mut self, kind: Kind, gas: u64) {
        self.0[kind as usize] = self.0[kind as usize].max(gas);
    }
}

impl Default for GasLimits {
    /// On Osaka: the intrinsic gas of a plain transfer, and about a tenth above the cost of a new recipient (52,000), of a new
    /// slot (45,000) and of the small contract (180,000).
    fn default() -> Self {
        Self([21_000, 60_000, 50_000, 50_000, 200_000, 60_000, 21_000, 21_000, 21_000])
    }
}

/// A bit of everything: what a chain with users looks like, and what its edges are.
const MIXED: &str =
    "mix:transfer=50,erc20=20,storage=10,hot=4,deploy=1,revert=3,conditional=4,nonce-gap=4,replacement=4";

/// Twelve can be divided by the length of every group.
const WEIGHT_PER_PERCENT: u64 = 12;

/// Shares of the kinds in percent of the transactions; the sum is 100.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix(Vec<(Kind, u64)>);

impl Mix {
    pub fn contains(&self, kind: Kind) -> bool {
        self.0.iter().any(|&(k, _)| k == kind)
    }

    pub fn kinds(&self) -> impl Iterator<Item = Kind> + '_ {
        self.0.iter().map(|&(kind, _)| kind)
    }

    /// How many draws there are: a group is drawn once for all its members.
    pub fn draw_count(&self) -> u64 {
        self.0.iter().map(|&(kind, percent)| percent * WEIGHT_PER_PERCENT / kind.group_len()).sum()
    }

    /// The kind of a draw below `draw_count`.
    pub fn kind(&self, draw: u64) -> Kind {
        let mut below = 0;
        for &(kind, percent) in &self.0 {
            below += percent * WEIGHT_PER_PERCENT / kind.group_len();
            if draw < below {
                return kind;
            }
        }
        unreachable!("draws are below the sum of the weights")
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = if text == "mixed" { MIXED } else { text };
        let kind = |name: &str| {
            let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
            let names = || Kind::ALL.map(Kind::name).join(", ");
            found.ok_or_else(|| format!("{name:?} is not a workload; there are {}, mixed and mix:…", names()))
        };
        let Some(list) = text.strip_prefix("mix:") else { return Ok(Self(vec![(kind(text)?, 100)])) };
        let mut shares: Vec<(Kind, u64)> = Vec::new();
        for item in list.split(',') {
            let (name, percent) = item.split_once('=').ok_or("a mix looks like mix:transfer=70,erc20=20,storage=10")?;
            let kind = kind(name)?;
            if shares.iter().any(|&(k, _)| k == kind) {
                return Err(format!("{name} is named twice"));
            }
            let percent: u64 = percent.parse().map_err(|_| format!("{percent:?} is not a whole number of percent"))?;
            if percent > 0 {
                shares.push((kind, percent));
            }
        }
        match shares.iter().try_fold(0u64, |sum, &(_, percent)| sum.checked_add(percent)) {
            Some(100) => Ok(Self(shares)),
            sum => Err(format!("the shares of a mix must add up to 100, not {}", sum.unwrap_or(u64::MAX))),
        }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(kind, _)] = self.0.as_slice() {
            return f.write_str(kind.name());
        }
        let shares: Vec<String> = self.0.iter().map(|(kind, percent)| format!("{}={percent}", kind.name())).collect();
        write!(f, "mix:{}", shares.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let mix = text.parse::<Mix>().map(|mix| mix.to_string());
        match (mix, expected) {
            (Ok(mix), Ok(expected)) => assert_eq!(mix, expected),
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
            (mix, expected) => panic!("{text}: {mix:?}, not {expected:?}"),
        }
    }

    #[test]
    fn mixes_are_parsed() {
        for kind in Kind::ALL {
            check(kind.name(), Ok(kind.name()));
        }
        check("mixed", Ok(MIXED));
        check("mix:transfer=70,erc20=20,storage=10", Ok("mix:transfer=70,erc20=20,storage=10"));
        check("mix:erc20=100,transfer=0", Ok("erc20"));
        check("mix:transfer=70,erc20=20", Err("not 90"));
        check("mix:transfer=50,transfer=50", Err("named twice"));
        check("mix:transfer", Err("looks like"));
        check("mix:transfer=x", Err("whole number"));
        check("swap", Err("not a workload"));
    }

    #[test]
    fn a_group_is_drawn_once_for_its_members() {
        let mix: Mix = "mix:transfer=50,replacement=30,nonce-gap=20".parse().unwrap();
        assert_eq!(mix.draw_count(), 600 + 120 + 60);
        let count = |kind| (0..mix.draw_count()).filter(|&draw| mix.kind(draw) == kind).count() as u64;
        assert_eq!(Kind::ALL.map(count), [600, 0, 0, 0, 0, 0, 0, 60, 120]);
    }

    #[test]
    fn gas_limits_have_a_place_for_each_kind() {
        let mut limits = GasLimits::default();
        limits.raise(Kind::Replacement, 1);
        assert_eq!(limits, GasLimits::default());
        limits.raise(Kind::Replacement, 30_000);
        assert_eq!((limits.of(Kind::Replacement), limits.of(Kind::NonceGap)), (30_000, 21_000));
    }
}
