//! A report as text for people.

use std::fmt::Write;

use super::summary::Summary;
use super::{Latency, Pace, Report, TierReport};

/// The whole report as lines.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = render_into(&mut out, report);
    out
}

fn render_into(out: &mut String, report: &Report) -> std::fmt::Result {
    let (load, node) = (&report.load, &report.node);
    writeln!(out, "{} at {} (chain {})", node.client, node.targets.join(", "), node.chain_id)?;
    writeln!(
        out,
        "{} x {}, {} accounts, seed {}; {}\n",
        load.transactions,
        load.workload,
        load.accounts,
        load.seed,
        pace(report)
    )?;
    render_tiers(out, report)?;
    render_counts(out, report)?;
    render_costs(out, report)?;
    render_fees(out, report)?;
    if let Some(verification) = &report.verification {
        writeln!(out, "{verification}")?;
    }
    for note in &report.notes {
        writeln!(out, "note: {note}")?;
    }
    writeln!(out)?;
    for (question, answer) in Summary::of(report).answers() {
        writeln!(out, "{question} {answer}")?;
    }
    render_verdicts(out, report)
}

fn render_counts(out: &mut String, report: &Report) -> std::fmt::Result {
    let counts = &report.counts;
    writeln!(
        out,
        "\nsent {}, accepted {}, rejected {}, transport errors {}, unanswered {}, dropped {}, late {}",
        counts.sent,
        counts.accepted,
        counts.rejected,
        counts.transport_errors,
        counts.unanswered,
        counts.dropped,
        counts.late
    )?;
    for (category, text, count) in report.errors() {
        writeln!(out, "  {count:>10}  {text}  [{}]", category.text().0)?;
    }
    render_ends(out, report)?;
    let rates = &report.rates;
    writeln!(
        out,
        "rate {:.0} accepted/s, {:.0} sent/s over {:.3} s",
        rates.accepted_per_s, rates.sent_per_s, rates.wall_s
    )
}

fn render_costs(out: &mut String, report: &Report) -> std::fmt::Result {
    let generator = &report.generator;
    write!(
        out,
        "generator {:.2} us CPU/tx (sending threads {:.2}), {:.2} turns/tx",
        us(generator.cpu_ns_per_transaction),
        us(generator.sender_cpu_ns_per_transaction),
        generator.sender_turns_per_transaction
    )?;
    let lag = &generator.lag;
    match lag.count {
        0 => writeln!(out)?,
        _ => writeln!(
            out,
            ", lag p50 {} p99 {} max {}",
            duration(lag.p50_ns),
            duration(lag.p99_ns),
            duration(lag.max_ns)
        )?,
    }
    if let Some(server) = &report.server {
        writeln!(
            out,
            "server {:.2} us CPU/tx to the last reply, {:.2} until settled; {:.3} wake-ups/tx, {} involuntary switches",
            us(server.accepting_cpu_ns_per_transaction),
            us(server.settled_cpu_ns_per_transaction),
            server.wakeups_per_transaction,
            server.accepting.involuntary_switches
        )?;
        if !server.memory.samples_bytes.is_empty() {
            writeln!(out, "server memory (RssAnon + RssShmem):{}", server.memory.text())?;
        }
    }
    Ok(())
}

/// How the load was paced, in one line.
pub fn pace(report: &Report) -> String {
    let load = &report.load;
    let loop_text = match load.pace {
        Pace::Open { tempo } => {
            let arrival = format!("{:?}", tempo.arrival).to_lowercase();
            let from = if tempo.arrival.grows() { format!("{} to ", plain(tempo.from_per_s)) } else { String::new() };
            format!("open loop, {from}{}/s {arrival}", plain(tempo.rate_per_s))
        }
        Pace::Closed => "closed loop".into(),
    };
    let protocol = format!("{:?}", report.node.protocol);
    format!(
        "{loop_text}, {} {protocol} connections, {} outstanding each, batch {}",
        load.connections, load.outstanding_max, load.batch
    )
}

/// A number without needless decimals.
pub fn plain(value: f64) -> String {
    format!("{}", (value * 1_000.0).round() / 1_000.0)
}

/// What became of the transactions, where it is not all the same; and what was sent again.
fn render_ends(out: &mut String, report: &Report) -> std::fmt::Result {
    if report.ends.len() > 1 {
        let ends: Vec<String> = report.ends.iter().map(|(text, count)| format!("{count} {text}")).collect();
        writeln!(out, "ends: {}", ends.join("; "))?;
    }
    if let Some(resent) = report.resent.as_ref().filter(|resent| resent.sent > 0 || resent.problem.is_some()) {
        let list = |map: &std::collections::BTreeMap<String, u64>| {
            map.iter().map(|(text, count)| format!("{count} {text}")).collect::<Vec<_>>().join("; ")
        };
        writeln!(out, "sent again {}, accepted then {} ({})", resent.sent, resent.accepted, list(&resent.reasons))?;
        if !resent.refusals.is_empty() {
            writeln!(out, "refused again: {}", list(&resent.refusals))?;
        }
        if let Some(problem) = &resent.problem {
            writeln!(out, "sending again ended early: {problem}")?;
        }
    }
    if report.unexplained > 0 {
        writeln!(out, "WITHOUT A REASON: {} accepted transactions are unknown to the node", report.unexplained)?;
    }
    Ok(())
}

fn render_verdicts(out: &mut String, report: &Report) -> std::fmt::Result {
    let generator = &report.generator;
    if !generator.valid {
        writeln!(
            out,
            "INVALID: the generator itself was late: p99 of its lag is {}, the limit {}; its numbers say little about the node. \
             Give it a core (--pin, taskset for the node), or run it as: chrt -f 50 loadgen ...",
            duration(generator.lag.p99_ns),
            duration(generator.lag_limit_ns)
        )?;
    }
    for verdict in &report.asserts {
        let word = if verdict.passed { "pass" } else { "FAIL" };
        writeln!(out, "{word}  {}  (measured {})", verdict.condition, verdict.measured)?;
    }
    Ok(())
}

fn render_tiers(out: &mut String, report: &Report) -> std::fmt::Result {
    let header = ["tier", "count", "min", "p50", "p90", "p99", "p99.9", "max"];
    write_row(out, &header.map(str::to_owned))?;
    for (tier, tier_report) in &report.tiers {
        match tier_report {
            TierReport::Measured { latency, missing, problem, .. } => {
                write_row(out, &latency_row(tier.name(), latency))?;
                if *missing > 0 {
                    writeln!(out, "              {missing} accepted transactions did not get there in time")?;
                }
                if let Some(problem) = problem {
                    writeln!(out, "              watching ended early: {problem}")?;
                }
            }
            TierReport::NotOffered { reason } => writeln!(out, "{:<13} not offered: {reason}", tier.name())?,
        }
    }
    Ok(())
}

fn render_fees(out: &mut String, report: &Report) -> std::fmt::Result {
    let fees = &report.fees;
    let after = fees.base_fee_after_wei.map_or_else(
        || "unknown: the node does not answer any more".to_owned(),
        |after| format!("{after} wei (x {:.3})", after as f64 / fees.base_fee_before_wei.max(1) as f64),
    );
    let (before, cap, tip) = (fees.base_fee_before_wei, fees.fee_cap_wei, fees.tip_wei);
    writeln!(out, "base fee {before} -> {after}, fee cap {cap} wei, tip {tip} wei")?;
    if fees.cap_exceeded {
        writeln!(
            out,
            "WARNING: the base fee has outgrown the fee cap: raise --fee-cap-multiple or send less per block"
        )?;
    }
    Ok(())
}

fn latency_row(name: &str, latency: &Latency) -> [String; 8] {
    let times = [latency.min_ns, latency.p50_ns, latency.p90_ns, latency.p99_ns, latency.p999_ns, latency.max_ns];
    let [min, p50, p90, p99, p999, max] = times.map(|ns| if latency.count == 0 { "-".into() } else { duration(ns) });
    [name.into(), latency.count.to_string(), min, p50, p90, p99, p999, max]
}

fn write_row(out: &mut String, cells: &[String; 8]) -> std::fmt::Result {
    write!(out, "{:<13}", cells[0])?;
    for cell in &cells[1..] {
        write!(out, " {cell:>10}")?;
    }
    writeln!(out)
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

/// A time with the unit that suits it.
pub fn duration(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check_golden, sample};
    use super::*;

    #[test]
    fn the_table_is_the_golden_one() {
        check_golden("table.txt", &render(&sample()));
    }

    #[test]
    fn times_have_suitable_units() {
        for (ns, text) in
            [(0, "0 ns"), (999, "999 ns"), (1_000, "1.0 µs"), (1_500_000, "1.50 ms"), (2_000_000_000, "2.00 s")]
        {
            assert_eq!(duration(ns), text);
        }
    }

    #[test]
    fn the_table_shows_tiers_errors_and_warnings() {
        let mut report = sample();
        let text = render(&report);
        assert!(
            text.contains("accepted            1000    1.00 ms    2.00 ms    3.00 ms    4.00 ms    5.00 ms    6.00 ms"),
            "{text}"
        );
        assert!(text.contains("preconfirmed  not offered: no such subscription"), "{text}");
        assert!(text.contains("        10  -32000: nonce too low  [nonce]"), "{text}");
        assert!(text.contains("2.000 wake-ups/tx"), "{text}");
        assert!(!text.contains("INVALID") && !text.contains("WARNING"), "{text}");
        report.generator.valid = false;
        report.fees.cap_exceeded = true;
        let text = render(&report);
        assert!(text.contains("INVALID") && text.contains("WARNING"), "{text}");
    }
}
