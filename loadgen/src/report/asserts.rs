//! Conditions on a report: text like `sealed.p99<2s` → verdict with the measured and the demanded value.
//!
//! A condition is `[tier.]metric operator value`. Metrics of a tier are `min`, `mean`, `max`, `count`, `missing` and percentiles
//! (`p50`, `p90`, `p99`, `p99.9`); without a tier they are those of *accepted*. Metrics of the run are `errors`,
//! `rejected`, `dropped`, `late`, `rate`, `accepted`, `unexplained`, `cpu`, the server's CPU time per transaction, and `memory-slope`, the
//! growth of its memory per minute (KiB, MiB). Times need a unit (ns, us, ms, s);
//! counts of transactions may be shares of those planned (`errors<0.1%`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Report, TierReport};
use crate::tiers::Tier;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Metric {
    /// A time of a tier.
    Time(Tier, Statistic),
    TierCount(Tier),
    Missing(Tier),
    Errors,
    Rejected,
    Dropped,
    Late,
    Accepted,
    Rate,
    ServerCpu,
    /// Accepted, and lost without a reason.
    Unexplained,
    /// Growth of the node's own memory per minute, after minute two.
    MemorySlope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Statistic {
    Min,
    Mean,
    P50,
    P90,
    P99,
    P999,
    Max,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Nanoseconds,
    Percent,
    Bytes,
    Plain,
}

/// A parsed condition. Its text is kept, to be shown as it was given.
#[derive(Clone, Debug, PartialEq)]
pub struct Assert {
    text: String,
    metric: Metric,
    operator: Operator,
    /// In nanoseconds, percent, or as it is.
    value: f64,
    unit: Unit,
}

/// The outcome of one condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub condition: String,
    pub measured: String,
    pub passed: bool,
}

impl FromStr for Assert {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let start = text.find(['<', '>', '=', '!']).ok_or("a condition needs an operator, as in p99<10ms")?;
        let (name, rest) = text.split_at(start);
        let (operator, value) = parse_operator(rest)?;
        let metric = parse_metric(name.trim())?;
        let (value, unit) = parse_value(value.trim())?;
        let fits = match metric {
            Metric::Time(..) | Metric::ServerCpu => unit == Unit::Nanoseconds,
            Metric::Rate => unit == Unit::Plain,
            Metric::MemorySlope => unit == Unit::Bytes,
            _ => matches!(unit, Unit::Plain | Unit::Percent),
        };
        if !fits {
            return Err(match metric {
                Metric::Time(..) | Metric::ServerCpu => {
                    format!("{name} is a time: give the value a unit (ns, us, ms or s)")
                }
                Metric::MemorySlope => "memory-slope is a number of bytes per minute: KiB or MiB".into(),
                Metric::Rate => "rate is a plain number of transactions per second".into(),
                _ => format!("{name} is a number of transactions: give a plain number or a percentage"),
            });
        }
        Ok(Self { text: text.trim().to_owned(), metric, operator, value, unit })
    }
}

fn parse_operator(rest: &str) -> Result<(Operator, &str), String> {
    let operators = [
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ];
    let found = operators.into_iter().find_map(|(sign, operator)| Some((operator, rest.strip_prefix(sign)?)));
    found.ok_or_else(|| format!("{rest:?} does not start with <, <=, >, >=, == or !="))
}

fn parse_metric(name: &str) -> Result<Metric, String> {
    let known = match name {
        "errors" => Some(Metric::Errors),
        "rejected" => Some(Metric::Rejected),
        "dropped" => Some(Metric::Dropped),
        "late" => Some(Metric::Late),
        "accepted" => Some(Metric::Accepted),
        "rate" => Some(Metric::Rate),
        "cpu" => Some(Metric::ServerCpu),
        "unexplained" => Some(Metric::Unexplained),
        "memory-slope" => Some(Metric::MemorySlope),
        _ => None,
    };
    if let Some(metric) = known {
        return Ok(metric);
    }
    let tier = Tier::ALL.into_iter().find_map(|tier| Some((tier, name.strip_prefix(tier.name())?.strip_prefix('.')?)));
    let (tier, statistic) = tier.unwrap_or((Tier::Accepted, name));
    let statistic = match statistic {
        "count" => return Ok(Metric::TierCount(tier)),
        "missing" => return Ok(Metric::Missing(tier)),
        "min" => Statistic::Min,
        "mean" => Statistic::Mean,
        "p50" => Statistic::P50,
        "p90" => Statistic::P90,
        "p99" => Statistic::P99,
        "p99.9" | "p999" => Statistic::P999,
        "max" => Statistic::Max,
        _ => {
            return Err(format!(
                "{name:?} is not a metric; there are [accepted.|preconfirmed.|sealed.|safe.] with min, mean, p50, p90, \
                 p99, p99.9, max, count, missing; and errors, rejected, dropped, late, accepted, unexplained, rate, cpu, \
                 memory-slope"
            ));
        }
    };
    Ok(Metric::Time(tier, statistic))
}

fn parse_value(text: &str) -> Result<(f64, Unit), String> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.replace('_', "").parse().map_err(|_| format!("{text:?} does not start with a number"))?;
    let (factor, unit) = match unit.trim() {
        "ns" => (1.0, Unit::Nanoseconds),
        "us" | "µs" => (1e3, Unit::Nanoseconds),
        "ms" => (1e6, Unit::Nanoseconds),
        "s" => (1e9, Unit::Nanoseconds),
        "%" => (1.0, Unit::Percent),
        "KiB" => (1_024.0, Unit::Bytes),
        "MiB" => (1_048_576.0, Unit::Bytes),
        "" | "/s" => (1.0, Unit::Plain),
        other => return Err(format!("{other:?} is not a unit; there are ns, us, ms, s, %, KiB and MiB")),
    };
    Ok((number * factor, unit))
}

impl Assert {
    /// Judges a report. What was not measured fails every condition on it.
    pub fn judge(&self, report: &Report) -> Verdict {
        let measured = match self.metric {
            Metric::Time(tier, statistic) => statistic.of(report, tier).ok_or_else(|| not_measured(report, tier)),
            Metric::TierCount(tier) => match report.latency(tier) {
                Some(latency) => Ok(self.share(latency.count, report)),
                None => Err(not_measured(report, tier)),
            },
            Metric::Missing(tier) => match report.tiers.get(&tier) {
                Some(TierReport::Measured { missing, .. }) => Ok(self.share(*missing, report)),
                _ => Err(not_measured(report, tier)),
            },
            Metric::Errors => Ok(self.share(report.counts.errors(), report)),
            Metric::Rejected => Ok(self.share(report.counts.rejected, report)),
            Metric::Dropped => Ok(self.share(report.counts.dropped, report)),
            Metric::Late => Ok(self.share(report.counts.late, report)),
            Metric::Accepted => Ok(self.share(report.counts.accepted, report)),
            Metric::Rate => Ok(report.rates.accepted_per_s),
            Metric::ServerCpu => match &report.server {
                Some(server) => Ok(server.accepting_cpu_ns_per_transaction as f64),
                None => Err("not measured: give --server-pid".to_owned()),
            },
            Metric::Unexplained => Ok(self.share(report.unexplained, report)),
            Metric::MemorySlope => {
                let slope = report.server.as_ref().and_then(|server| server.memory.slope_bytes_per_minute);
                slope.ok_or_else(|| "not measured: give --server-pid, and run for three minutes".to_owned())
            }
        };
        let (measured, passed) = match measured {
            Ok(value) => (self.show(value), self.operator.holds(value, self.value)),
            Err(reason) => (reason, false),
        };
        Verdict { condition: self.text.clone(), measured, passed }
    }

    /// A count as it is, or as a percentage of the transactions planned when the condition names one.
    fn share(&self, count: u64, report: &Report) -> f64 {
        match self.unit {
            Unit::Percent => count as f64 * 100.0 / report.counts.planned.max(1) as f64,
            _ => count as f64,
        }
    }

    fn show(&self, value: f64) -> String {
        match self.unit {
            Unit::Nanoseconds => super::table::duration(value as u64),
            Unit::Percent => format!("{value:.4} %"),
            Unit::Bytes => format!("{:.3} MiB", value / 1_048_576.0),
            Unit::Plain => format!("{}", (value * 10.0).round() / 10.0),
        }
    }
}

impl fmt::Display for Assert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn not_measured(report: &Report, tier: Tier) -> String {
    match report.tiers.get(&tier) {
        Some(TierReport::NotOffered { reason }) => format!("not offered: {reason}"),
        Some(TierReport::Measured { .. }) => "n/a: no transaction got there".into(),
        None => format!("n/a: name it in --tiers {}", tier.name()),
    }
}

impl Statistic {
    fn of(self, report: &Report, tier: Tier) -> Option<f64> {
        let latency = report.latency(tier).filter(|latency| latency.count > 0)?;
        let value_ns = match self {
            Self::Min => latency.min_ns,
            Self::Mean => latency.mean_ns,
            Self::P50 => latency.p50_ns,
            Self::P90 => latency.p90_ns,
            Self::P99 => latency.p99_ns,
            Self::P999 => latency.p999_ns,
            Self::Max => latency.max_ns,
        };
        Some(value_ns as f64)
    }
}

impl Operator {
    fn holds(self, measured: f64, demanded: f64) -> bool {
        match self {
            Self::Less => measured < demanded,
            Self::LessOrEqual => measured <= demanded,
            Self::Greater => measured > demanded,
            Self::GreaterOrEqual => measured >= demanded,
            Self::Equal => measured == demanded,
            Self::NotEqual => measured != demanded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let verdict = match text.parse::<Assert>() {
            Ok(condition) => {
                let verdict = condition.judge(&sample());
                format!("{} {}", if verdict.passed { "pass" } else { "fail" }, verdict.measured)
            }
            Err(error) => format!("error {error}"),
        };
        assert!(verdict.starts_with(expected), "{text}: {verdict}");
    }

    #[test]
    fn conditions() {
        // The sample has accepted p99 = 4 ms, sealed p99 = 2 s, 10 errors of 1,010, 1,000 accepted in 1 s.
        check("p99<10ms", "pass 4.00 ms");
        check("p99<4ms", "fail 4.00 ms");
        check("p99<=4ms", "pass");
        check("p99<4000.001us", "pass");
        check("accepted.p50 < 2_000_001 ns", "pass 2.00 ms");
        check("max>5.9ms", "pass 6.00 ms");
        check("p99.9<5.1ms", "pass 5.00 ms");
        check("sealed.p99<2s", "fail 2.00 s");
        check("sealed.p99<=2s", "pass 2.00 s");
        check("sealed.missing==0", "pass 0");
        check("preconfirmed.p50<5ms", "fail not offered: no such subscription");
        check("errors<1%", "pass 0.9901 %");
        check("errors<0.1%", "fail 0.9901 %");
        check("errors==10", "pass 10");
        check("errors!=10", "fail 10");
        check("dropped==0", "pass 0");
        check("rejected>=10", "pass 10");
        check("rate>999.5", "pass 1000");
        check("rate>1_000/s", "fail 1000");
        check("count==1000", "pass 1000");
        check("accepted==1000", "pass 1000");
        check("cpu<101us", "pass 100.0 µs");
        check("unexplained==0", "pass 0");
        check("memory-slope<=1MiB", "fail not measured");
        check("memory-slope<=1", "error memory-slope is a number of bytes");
        check("errors<1MiB", "error errors is a number");
        check("p99", "error a condition needs an operator");
        check("p98<1ms", "error \"p98\" is not a metric");
        check("p99<10", "error p99 is a time");
        check("p99<10m", "error \"m\" is not a unit");
        check("p99=10ms", "error \"=10ms\" does not start");
        check("errors<1ms", "error errors is a number");
        check("rate>1%", "error rate is a plain number");
        check("p99<ms", "error \"ms\" does not start with a number");
        check("settled.p99<1s", "error \"settled.p99\" is not a metric");
    }
}
