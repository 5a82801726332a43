//! Two reports side by side, with ratios.

use std::fmt::Write;

use crate::report::Report;
use crate::report::table::duration;
use crate::tiers::Tier;

/// One line per figure: name, both values, second over first.
pub fn render(base: &Report, other: &Report) -> String {
    let mut out = String::new();
    let mut row = |name: &str, base: String, other: String, ratio: f64| {
        let ratio = if ratio.is_finite() { format!("x {ratio:.3}") } else { "-".to_owned() };
        // Writing into a string cannot fail.
        let _ = writeln!(out, "{name:<28} {base:>24} {other:>24} {ratio:>10}");
    };
    let text = |report: &Report, limit: usize| report.node.client.chars().take(limit).collect::<String>();
    row("node", text(base, 24), text(other, 24), f64::NAN);
    type Figure = (&'static str, fn(&Report) -> f64);
    let numbers: [Figure; 10] = [
        ("accepted/s", |r| r.rates.accepted_per_s),
        ("sent", |r| r.counts.sent as f64),
        ("accepted", |r| r.counts.accepted as f64),
        ("errors", |r| r.counts.errors() as f64),
        ("dropped", |r| r.counts.dropped as f64),
        ("unexplained", |r| r.unexplained as f64),
        ("late", |r| r.counts.late as f64),
        ("generator us CPU/tx", |r| r.generator.cpu_ns_per_transaction as f64 / 1e3),
        ("server us CPU/tx", |r| {
            r.server.as_ref().map_or(f64::NAN, |s| s.accepting_cpu_ns_per_transaction as f64 / 1e3)
        }),
        ("server us CPU/tx, settled", |r| {
            r.server.as_ref().map_or(f64::NAN, |s| s.settled_cpu_ns_per_transaction as f64 / 1e3)
        }),
    ];
    for (name, value) in numbers {
        let (a, b) = (value(base), value(other));
        let show =
            |value: f64| if value.is_nan() { "-".to_owned() } else { format!("{}", (value * 100.0).round() / 100.0) };
        row(name, show(a), show(b), b / a);
    }
    for tier in Tier::ALL {
        let (Some(a), Some(b)) = (base.latency(tier), other.latency(tier)) else { continue };
        let quantiles = [
            ("p50", a.p50_ns, b.p50_ns),
            ("p90", a.p90_ns, b.p90_ns),
            ("p99", a.p99_ns, b.p99_ns),
            ("p99.9", a.p999_ns, b.p999_ns),
            ("max", a.max_ns, b.max_ns),
        ];
        for (name, a, b) in quantiles {
            row(&format!("{} {name}", tier.name()), duration(a), duration(b), b as f64 / a as f64);
        }
    }
    for warning in warnings(base, other) {
        let _ = writeln!(out, "note: {warning}");
    }
    out
}

/// What makes the comparison less than fair.
fn warnings(base: &Report, other: &Report) -> Vec<String> {
    let mut list = Vec::new();
    for (name, report) in [("first", base), ("second", other)] {
        if !report.generator.valid {
            list.push(format!("the {name} run is invalid: its generator was late"));
        }
    }
    let (a, b) = (&base.load, &other.load);
    if (&a.workload, a.seed, a.transactions, a.accounts) != (&b.workload, b.seed, b.transactions, b.accounts) {
        list.push("the workloads differ".into());
    }
    if (a.pace, a.batch, a.connections, a.outstanding_max) != (b.pace, b.batch, b.connections, b.outstanding_max) {
        list.push("the paces differ (loop, rate, batch, connections or outstanding)".into());
    }
    if base.node.protocol != other.node.protocol {
        list.push("one run used HTTP, the other WebSocket".into());
    }
    if base.machine != other.machine {
        list.push("the machines differ".into());
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn ratios_and_warnings() {
        let (base, mut other) = (sample(), sample());
        assert!(!render(&base, &other).contains("note:"));
        other.rates.accepted_per_s = 2_500.0;
        other.load.batch = 100;
        other.server = None;
        let text = render(&base, &other);
        assert!(text.lines().any(|line| line.starts_with("accepted/s") && line.ends_with("x 2.500")), "{text}");
        assert!(text.lines().any(|line| line.starts_with("server us CPU/tx") && line.ends_with("-")), "{text}");
        assert!(text.lines().any(|line| line.starts_with("sealed p99") && line.ends_with("x 1.000")), "{text}");
        assert!(text.contains("note: the paces differ"), "{text}");
        assert!(!text.contains("preconfirmed"), "{text}");
    }
}
