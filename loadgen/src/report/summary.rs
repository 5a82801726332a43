//! A report in plain words: how fast, how late, what failed, and what was the bottleneck.

use super::table::duration;
use super::{Pace, Report, TierReport};
use crate::taxonomy::Category;
use crate::tiers::Tier;

/// Shares of a core, or of all cores, from which on something counts as full.
const FULL: f64 = 0.92;

/// The four answers, each as whole sentences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub fast: String,
    pub late: String,
    pub failed: String,
    pub bottleneck: String,
}

impl Summary {
    pub fn of(report: &Report) -> Self {
        Self { fast: fast(report), late: late(report), failed: failed(report), bottleneck: bottleneck(report) }
    }

    /// Question and answer.
    pub fn answers(&self) -> [(&'static str, &str); 4] {
        [
            ("How fast?", &self.fast),
            ("How late?", &self.late),
            ("What failed?", &self.failed),
            ("What was the bottleneck?", &self.bottleneck),
        ]
    }
}

/// A whole number with thin groups of three.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn rate(per_s: f64) -> String {
    if per_s < 100.0 { format!("{per_s:.1}") } else { grouped(per_s.round() as u64) }
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.2} %", part as f64 * 100.0 / whole.max(1) as f64)
}

fn fast(report: &Report) -> String {
    let asked = match report.load.pace {
        Pace::Open { tempo } if tempo.arrival.grows() => {
            format!("asked for {} rising to {} a second", rate(tempo.from_per_s), rate(tempo.rate_per_s))
        }
        Pace::Open { tempo } => format!("asked for {} a second", rate(tempo.rate_per_s)),
        Pace::Closed => format!(
            "as fast as {} connections with {} outstanding request{} each can ask",
            report.load.connections,
            report.load.outstanding_max,
            if report.load.outstanding_max == 1 { "" } else { "s" }
        ),
    };
    let mut text = format!(
        "The node accepted {} transactions a second over {:.1} s ({asked}).",
        rate(report.rates.accepted_per_s),
        report.rates.wall_s
    );
    if let Some(server) = &report.server {
        text += &format!(
            " Each cost the node {:.1} µs of processor time.",
            server.settled_cpu_ns_per_transaction as f64 / 1e3
        );
    }
    let failed = report.search.iter().filter(|step| !step.passed).min_by(|a, b| a.rate_per_s.total_cmp(&b.rate_per_s));
    if let Some(failed) = failed {
        text += &format!(
            " This was the highest rate that met the conditions; {} a second {}.",
            rate(failed.rate_per_s),
            failed.verdict
        );
    }
    text
}

fn late(report: &Report) -> String {
    let mut sentences = Vec::new();
    for (tier, tier_report) in &report.tiers {
        sentences.push(match tier_report {
            TierReport::Measured { latency, .. } if latency.count > 0 => format!(
                "{}: half within {}, 99 of 100 within {}, the slowest after {}.",
                title(*tier),
                duration(latency.p50_ns),
                duration(latency.p99_ns),
                duration(latency.max_ns)
            ),
            TierReport::Measured { .. } => format!("{}: no transaction got there.", title(*tier)),
            TierReport::NotOffered { .. } => format!("{}: the node does not offer this.", title(*tier)),
        });
    }
    let counts = &report.counts;
    if counts.late > 0 {
        sentences.push(format!(
            "{} ({}) left more than 1 ms after their time, mostly because the replies before them were awaited; that wait is in the figures.",
            grouped(counts.late),
            percent(counts.late, counts.planned)
        ));
    }
    sentences.join(" ")
}

fn title(tier: Tier) -> &'static str {
    match tier {
        Tier::Accepted => "Accepted",
        Tier::Preconfirmed => "Preconfirmed",
        Tier::Sealed => "Sealed in a block",
        Tier::Safe => "Under the safe tag",
    }
}

fn failed(report: &Report) -> String {
    let (counts, mut sentences) = (&report.counts, Vec::new());
    let failed = counts.errors() + counts.dropped;
    if failed == 0 {
        sentences.push(format!("Nothing: all {} transactions were sent and accepted.", grouped(counts.planned)));
    } else {
        sentences.push(format!(
            "{} of {} ({}): {} refused, {} without a usable reply, {} without a reply in time, {} never sent.",
            grouped(failed),
            grouped(counts.planned),
            percent(failed, counts.planned),
            grouped(counts.rejected),
            grouped(counts.transport_errors),
            grouped(counts.unanswered),
            grouped(counts.dropped)
        ));
    }
    let mut categories: Vec<(Category, u64)> = report.categories.iter().map(|(&c, &count)| (c, count)).collect();
    categories.sort_unstable_by_key(|&(_, count)| std::cmp::Reverse(count));
    for (category, count) in categories.into_iter().take(3) {
        let (name, meaning) = category.text();
        sentences.push(format!("{} × {name}: {meaning}.", grouped(count)));
    }
    let missing = report.tiers.get(&Tier::Sealed).map_or(0, TierReport::missing);
    if missing > 0 {
        sentences.push(format!("{} accepted transactions were seen in no block in time.", grouped(missing)));
    }
    if report.unexplained > 0 {
        sentences.push(format!("{} were accepted and then lost WITHOUT A REASON.", grouped(report.unexplained)));
    }
    if let Some(reverted) = report.tiers.values().find_map(TierReport::reverted).filter(|&reverted| reverted > 0) {
        sentences.push(format!("{} were executed and reverted; they are in blocks.", grouped(reverted)));
    }
    if let Some(lost) = report.verification.as_ref().map(|verification| verification.lost).filter(|&lost| lost > 0) {
        sentences.push(format!("--verify found no end for {} of them.", grouped(lost)));
    }
    sentences.join(" ")
}

fn bottleneck(report: &Report) -> String {
    let (cpu, counts) = (&report.cpu, &report.counts);
    if !report.generator.valid {
        return format!(
            "The load generator itself: it noticed that requests were due with a p99 of {} (at most {} is good). These figures say little about the node.",
            duration(report.generator.lag.p99_ns),
            duration(report.generator.lag_limit_ns)
        );
    }
    if report.fees.cap_exceeded {
        return "The fees: the base fee grew past what the transactions offer, so that later ones could not be placed."
            .into();
    }
    let limits = report.categories.get(&Category::Limit).copied().unwrap_or(0);
    if limits * 1_000 > counts.planned {
        return format!(
            "The node's own limits: it refused {} transactions to keep its pool, or a queue, within bounds.",
            grouped(limits)
        );
    }
    let used = cpu.busy + cpu.stolen;
    if cpu.cores > 0.0 && used >= FULL * cpu.cores {
        return format!("The processor: {:.2} of {} cores were in use. {}", used, cpu.cores, who(report));
    }
    if let Some(thread) = cpu.node_threads.first().filter(|thread| thread.cores >= FULL) {
        return format!(
            "One thread of the node: {} used {:.2} of the one core that it can use. {}",
            thread.name,
            thread.cores,
            who(report)
        );
    }
    if counts.late * 100 > counts.planned && report.load.pace != Pace::Closed {
        return format!(
            "The node's replies: {} of the transactions had to wait, since all {} outstanding requests of their connection were unanswered. \
             No processor was full ({}), so the node waited for something else: its disk, its peers or its block time.",
            percent(counts.late, counts.planned),
            report.load.outstanding_max,
            who(report)
        );
    }
    match (report.load.pace, report.latency(Tier::Accepted)) {
        (Pace::Closed, Some(latency)) => format!(
            "The closed loop: {} requests can be outstanding, and a reply takes {} at the median. No processor was full. {} More --connections or --outstanding ask for more.",
            report.load.connections * report.load.outstanding_max,
            duration(latency.p50_ns),
            who(report)
        ),
        _ => format!(
            "None was reached: the node kept up with what was asked. {} `loadgen find-max` looks for the limit.",
            who(report)
        ),
    }
}

/// Who used the processors.
fn who(report: &Report) -> String {
    let cpu = &report.cpu;
    let node = cpu.node.unwrap_or(0.0);
    let others = (cpu.busy - cpu.generator - node).max(0.0);
    let stolen = if cpu.stolen > 0.02 { format!(", {:.2} taken by the hypervisor", cpu.stolen) } else { String::new() };
    match cpu.node {
        Some(node) => format!(
            "The node used {node:.2} cores, the generator {:.2}, everything else {others:.2}{stolen}, of {}.",
            cpu.generator, cpu.cores
        ),
        None => format!(
            "The generator used {:.2} cores, everything else (the node, if it is on this machine: --server-pid tells) {others:.2}{stolen}, of {}.",
            cpu.generator, cpu.cores
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;
    use crate::report::ThreadUse;

    #[track_caller]
    fn check(change: impl FnOnce(&mut Report), expected: &str) {
        let mut report = sample();
        change(&mut report);
        let text = Summary::of(&report).answers().map(|(_, answer)| answer.to_owned()).join("\n");
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }

    #[test]
    fn answers() {
        check(|_| {}, "The node accepted 1,000 transactions a second over 1.0 s (asked for 1,000 a second).");
        check(|r| r.load.pace = Pace::Closed, "as fast as 4 connections with 1 outstanding request each can ask");
        check(|_| {}, "Accepted: half within 2.00 ms, 99 of 100 within 4.00 ms, the slowest after 6.00 ms.");
        check(|_| {}, "Preconfirmed: the node does not offer this.");
        check(|_| {}, "10 of 1,010 (0.99 %): 10 refused, 0 without a usable reply");
        check(|_| {}, "10 × nonce: the sender's nonce was used");
        check(|r| r.unexplained = 2, "2 were accepted and then lost WITHOUT A REASON.");
        check(
            |r| {
                r.counts = super::super::Counts { planned: 5, sent: 5, accepted: 5, ..Default::default() };
                r.categories.clear();
            },
            "Nothing: all 5 transactions were sent and accepted.",
        );
    }

    #[test]
    fn bottlenecks() {
        check(|_| {}, "None was reached: the node kept up");
        check(|r| r.generator.valid = false, "The load generator itself");
        check(|r| r.fees.cap_exceeded = true, "The fees:");
        check(|r| r.cpu.busy = 1.95, "The processor: 1.96 of 2 cores were in use. The node used 0.50 cores");
        check(
            |r| r.cpu.node_threads = vec![ThreadUse { name: "builder".into(), cores: 0.97 }],
            "One thread of the node: builder",
        );
        check(|r| r.counts.late = 500, "The node's replies: 49.50 % of the transactions had to wait");
        check(|r| r.load.pace = Pace::Closed, "The closed loop: 4 requests can be outstanding");
        check(|r| r.categories = [(Category::Limit, 100)].into(), "The node's own limits: it refused 100");
    }

    #[test]
    fn numbers_are_grouped() {
        for (value, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(value), text);
        }
    }
}
