//! A report as one HTML page that needs nothing else: no script, no font, no file beside it.

use std::fmt::Write;

use super::summary::{Summary, grouped};
use super::svg::{self, Axis, Line};
use super::table::{self, duration};
use super::{Report, TierReport};
use crate::tiers::Tier;

const STYLE: &str = "\
:root{color-scheme:light dark;--fg:#1c2430;--dim:#5b6676;--bg:#fff;--card:#f4f6f9;--line:#d9dee6;--bad:#b42318;--good:#067647}\
@media(prefers-color-scheme:dark){:root{--fg:#e6e9ee;--dim:#9aa4b2;--bg:#14181f;--card:#1d232c;--line:#323b47;--bad:#f97066;--good:#47cd89}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:920px;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2.2rem 0 .4rem}p.dim,td.dim,.legend,footer{color:var(--dim)}\
dl{background:var(--card);border-radius:8px;padding:.4rem 1.2rem 1rem}dt{font-weight:600;margin-top:.8rem}dd{margin:0}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th,td{text-align:left;padding:.25rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}\
td.n,th.n{text-align:right;white-space:nowrap}.bad{color:var(--bad);font-weight:600}.good{color:var(--good);font-weight:600}\
svg text{font:11px system-ui,sans-serif;fill:var(--dim)}svg .axis{font-size:12px}svg .grid{stroke:var(--line);stroke-width:1;fill:none}\
svg polyline{fill:none;stroke-width:1.8;stroke-linejoin:round}.legend span{margin-right:1.2rem;white-space:nowrap;font-size:.9rem}\
pre{background:var(--card);padding:.8rem;border-radius:8px;overflow-x:auto;white-space:pre-wrap}";

const fn color(tier: Tier) -> &'static str {
    match tier {
        Tier::Accepted => "#2f6fed",
        Tier::Preconfirmed => "#12a150",
        Tier::Sealed => "#e08600",
        Tier::Safe => "#8f4ae0",
    }
}

/// The whole page.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = render_into(&mut out, report);
    out
}

fn render_into(out: &mut String, report: &Report) -> std::fmt::Result {
    let title = format!("{} × {} → {}", grouped(report.load.transactions), report.load.workload, report.node.client);
    writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{0}</title><style>{STYLE}</style></head><body>\n<h1>{0}</h1>",
        escape(&title)
    )?;
    writeln!(
        out,
        "<p class=\"dim\">{} · {} · {}</p>",
        date(report.started_unix_ms),
        escape(&report.machine),
        escape(&table::pace(report))
    )?;
    verdicts(out, report)?;
    writeln!(out, "<dl>")?;
    for (question, answer) in Summary::of(report).answers() {
        writeln!(out, "<dt>{question}</dt><dd>{}</dd>", escape(answer))?;
    }
    writeln!(out, "</dl>")?;
    tiers(out, report)?;
    percentiles(out, report)?;
    over_time(out, report)?;
    ends(out, report)?;
    errors(out, report)?;
    search(out, report)?;
    resources(out, report)?;
    writeln!(out, "<h2>Everything else</h2>\n<pre>{}</pre>", escape(&table::render(report)))?;
    writeln!(out, "<pre>{}</pre>", escape(&report.command.join(" ")))?;
    writeln!(
        out,
        "<footer>loadgen {}. Latency counts from the intended send time; a wait in front of a slow node is in it.</footer>\n</body></html>",
        escape(&report.loadgen_version)
    )
}

fn verdicts(out: &mut String, report: &Report) -> std::fmt::Result {
    if !report.generator.valid {
        writeln!(
            out,
            "<p class=\"bad\">INVALID: the load generator was the bottleneck. Do not quote these figures.</p>"
        )?;
    }
    for verdict in &report.asserts {
        let (class, word) = if verdict.passed { ("good", "met") } else { ("bad", "NOT met") };
        writeln!(
            out,
            "<p><span class=\"{class}\">{word}</span> {} (measured {})</p>",
            escape(&verdict.condition),
            escape(&verdict.measured)
        )?;
    }
    for note in &report.notes {
        writeln!(out, "<p>Note: {}</p>", escape(note))?;
    }
    Ok(())
}

fn tiers(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "<h2>Latency by tier</h2>\n<table><tr><th>tier</th>")?;
    for name in ["count", "p50", "p90", "p99", "p99.9", "max"] {
        writeln!(out, "<th class=\"n\">{name}</th>")?;
    }
    writeln!(out, "</tr>")?;
    for tier in Tier::ALL {
        let name = tier.name();
        match report.tiers.get(&tier) {
            Some(TierReport::Measured { latency, source, missing, .. }) => {
                let from = format!("<br><span class=\"legend\">{}</span>", escape(source));
                write!(out, "<tr><td><b>{name}</b>{from}</td><td class=\"n\">{}", grouped(latency.count))?;
                if *missing > 0 {
                    write!(out, "<br><span class=\"bad\">{} missing</span>", grouped(*missing))?;
                }
                write!(out, "</td>")?;
                for ns in [latency.p50_ns, latency.p90_ns, latency.p99_ns, latency.p999_ns, latency.max_ns] {
                    let text = if latency.count == 0 { "–".to_owned() } else { duration(ns) };
                    write!(out, "<td class=\"n\">{text}</td>")?;
                }
                writeln!(out, "</tr>")?;
            }
            Some(TierReport::NotOffered { reason }) => {
                writeln!(
                    out,
                    "<tr><td><b>{name}</b></td><td colspan=\"6\" class=\"dim\">not offered: {}</td></tr>",
                    escape(reason)
                )?;
            }
            None => writeln!(
                out,
                "<tr><td><b>{name}</b></td><td colspan=\"6\" class=\"dim\">not watched (--tiers all)</td></tr>"
            )?,
        }
    }
    writeln!(out, "</table>")
}

fn measured(report: &Report) -> impl Iterator<Item = (Tier, &super::series::Curve)> {
    report.tiers.iter().filter_map(|(tier, tier_report)| match tier_report {
        TierReport::Measured { curve, .. } if !curve.is_empty() => Some((*tier, curve)),
        _ => None,
    })
}

/// Nines on the horizontal axis: 1 is 90 %, 2 is 99 %.
fn nines(share: f64, max: f64) -> f64 {
    if share >= 1.0 { max } else { -(1.0 - share).log10() }
}

fn percentiles(out: &mut String, report: &Report) -> std::fmt::Result {
    let reach =
        measured(report).filter_map(|(_, curve)| curve.iter().rev().nth(1)).map(|&(share, _)| nines(share, 9.0));
    let max = reach.fold(1.0, f64::max) + 0.125;
    let labels = [
        (0.0, "0 %"),
        (0.301, "50 %"),
        (1.0, "90 %"),
        (2.0, "99 %"),
        (3.0, "99.9 %"),
        (4.0, "99.99 %"),
        (5.0, "99.999 %"),
    ];
    let ticks = labels.into_iter().filter(|&(at, _)| at <= max).map(|(at, text)| (at, text.to_owned())).collect();
    let x = Axis::with_ticks("share of the transactions that were at least as fast", max, ticks);
    let values = measured(report).flat_map(|(_, curve)| curve.iter().map(|&(_, ns)| ns as f64));
    let y = Axis::logarithmic("latency", values, |ns| short(ns as u64));
    let lines: Vec<Line> = measured(report)
        .map(|(tier, curve)| Line {
            name: tier.name().to_owned(),
            color: color(tier),
            dashed: false,
            points: curve.iter().map(|&(share, ns)| (nines(share, max), ns as f64)).collect(),
        })
        .collect();
    writeln!(out, "<h2>Latency by percentile</h2>")?;
    writeln!(
        out,
        "<p class=\"dim\">A point at 99 % and 10 ms says: 99 of 100 transactions took 10 ms or less. A line that turns up at the right is the tail.</p>"
    )?;
    out.push_str(&svg::plot("latency by percentile", &x, &y, &lines));
    Ok(())
}

fn over_time(out: &mut String, report: &Report) -> std::fmt::Result {
    let series = &report.series;
    let interval_s = series.interval_ms as f64 / 1e3;
    let x = || Axis::linear("seconds since the start", series.sent.len() as f64 * interval_s, table::plain);
    let line = |name: String, color, dashed, values: &[u64], factor: f64| {
        let points =
            values.iter().enumerate().map(|(at, &value)| ((at as f64 + 0.5) * interval_s, value as f64 * factor));
        Line { name, color, dashed, points: points.collect() }
    };
    let mut rates = vec![line("sent".into(), "#8a94a3", true, &series.sent, 1.0 / interval_s)];
    rates.extend(
        series
            .tiers
            .iter()
            .map(|(tier, values)| line(tier.name().into(), color(*tier), false, &values.arrived, 1.0 / interval_s)),
    );
    if series.failed.iter().any(|&count| count > 0) {
        rates.push(line("failed".into(), "#d92d20", false, &series.failed, 1.0 / interval_s));
    }
    let highest = rates.iter().flat_map(|line| &line.points).map(|&(_, y)| y).fold(0.0, f64::max);
    writeln!(
        out,
        "<h2>Rate over time</h2>\n<p class=\"dim\">Transactions a second that were sent, and that reached each tier. Sealed comes in steps: a block at a time.</p>"
    )?;
    let y = Axis::linear("transactions / s", highest, |value| grouped(value as u64));
    out.push_str(&svg::plot("rate over time", &x(), &y, &rates));
    let mut late = Vec::new();
    for (tier, values) in &series.tiers {
        // An interval without arrivals has no latency; the line goes on at the next one.
        let shown = |list: &[u64], dashed, name: &str| {
            let mut line = line(format!("{} {name}", tier.name()), color(*tier), dashed, list, 1.0);
            line.points.retain(|&(_, ns)| ns > 0.0);
            line
        };
        late.push(shown(&values.p50_ns, false, "p50"));
        late.push(shown(&values.p99_ns, true, "p99"));
    }
    let y = Axis::logarithmic("latency", late.iter().flat_map(|l| l.points.iter().map(|&(_, ns)| ns)), |ns| {
        short(ns as u64)
    });
    writeln!(
        out,
        "<h2>Latency over time</h2>\n<p class=\"dim\">Of the transactions that arrived in each interval of {} s. A line that climbs says that the node falls behind.</p>",
        table::plain(interval_s)
    )?;
    out.push_str(&svg::plot("latency over time", &x(), &y, &late));
    Ok(())
}

fn ends(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "<h2>What became of each transaction</h2>\n<table><tr><th class=\"n\">count</th><th>end</th></tr>")?;
    let mut ends: Vec<(&String, &u64)> = report.ends.iter().collect();
    ends.sort_by_key(|&(text, count)| (std::cmp::Reverse(*count), text));
    for (text, count) in ends {
        writeln!(out, "<tr><td class=\"n\">{}</td><td>{}</td></tr>", grouped(*count), escape(text))?;
    }
    writeln!(
        out,
        "<tr><td class=\"n\"><b>{}</b></td><td><b>planned</b></td></tr></table>",
        grouped(report.counts.planned)
    )
}

fn errors(out: &mut String, report: &Report) -> std::fmt::Result {
    if report.rejections.is_empty() && report.transport_errors.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "<h2>Errors</h2>\n<table><tr><th class=\"n\">count</th><th>kind</th><th>what the node said (numbers and hashes masked)</th></tr>"
    )?;
    for (category, text, count) in report.errors() {
        let (name, meaning) = category.text();
        writeln!(
            out,
            "<tr><td class=\"n\">{}</td><td title=\"{}\">{name}</td><td>{}</td></tr>",
            grouped(count),
            escape(meaning),
            escape(text)
        )?;
    }
    writeln!(out, "</table>")
}

fn search(out: &mut String, report: &Report) -> std::fmt::Result {
    if report.search.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "<h2>Search for the highest rate</h2>\n<table><tr><th class=\"n\">rate/s</th><th class=\"n\">accepted/s</th><th class=\"n\">p99</th><th>verdict</th></tr>"
    )?;
    for step in &report.search {
        let class = if step.passed { "good" } else { "bad" };
        writeln!(
            out,
            "<tr><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"{class}\">{}</td></tr>",
            grouped(step.rate_per_s as u64),
            grouped(step.accepted_per_s as u64),
            duration(step.p99_ns),
            escape(&step.verdict)
        )?;
    }
    writeln!(out, "</table>")
}

fn resources(out: &mut String, report: &Report) -> std::fmt::Result {
    let cpu = &report.cpu;
    writeln!(
        out,
        "<h2>Processor and memory</h2>\n<table><tr><th>who</th><th class=\"n\">cores used, of {}</th></tr>",
        cpu.cores
    )?;
    let mut row =
        |who: &str, cores: f64| writeln!(out, "<tr><td>{}</td><td class=\"n\">{cores:.2}</td></tr>", escape(who));
    row("the machine, busy", cpu.busy)?;
    row("taken by the hypervisor", cpu.stolen)?;
    row("the load generator", cpu.generator)?;
    if let Some(node) = cpu.node {
        row("the node", node)?;
    }
    for thread in &cpu.node_threads {
        row(&format!("· its thread {}", thread.name), thread.cores)?;
    }
    writeln!(out, "</table>")?;
    let Some(memory) =
        report.server.as_ref().map(|server| &server.memory).filter(|memory| memory.samples_bytes.len() > 1)
    else {
        return Ok(());
    };
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let points: Vec<(f64, f64)> =
        memory.samples_bytes.iter().enumerate().map(|(s, &bytes)| (s as f64, mib(bytes))).collect();
    let highest = points.iter().map(|&(_, y)| y).fold(0.0, f64::max);
    let x = Axis::linear("seconds since the start", (points.len() - 1) as f64, table::plain);
    let y = Axis::linear("MiB", highest, table::plain);
    writeln!(out, "<p class=\"dim\">The node's own memory (RssAnon + RssShmem), once a second.{}</p>", memory.text())?;
    let line = Line { name: "RssAnon + RssShmem".into(), color: "#2f6fed", dashed: false, points };
    out.push_str(&svg::plot("memory over time", &x, &y, &[line]));
    Ok(())
}

/// A time without decimals, for axes.
fn short(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{} µs", ns / 1_000),
        1_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        _ => format!("{} s", ns / 1_000_000_000),
    }
}

/// Text that stands for itself in HTML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// UTC day and time of a Unix time in milliseconds.
fn date(unix_ms: u64) -> String {
    let (days, seconds) = (unix_ms / 86_400_000, unix_ms / 1_000 % 86_400);
    // Days to civil date, by eras of 400 years that start in March (Howard Hinnant, "chrono-compatible low-level date algorithms").
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3_600, seconds / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check_golden, sample};
    use super::*;

    #[test]
    fn the_page_is_the_golden_one() {
        check_golden("report.html", &render(&sample()));
    }

    #[test]
    fn nothing_is_fetched_from_elsewhere() {
        let page = render(&sample());
        let text = page.replace("http://127.0.0.1:6197", "");
        for word in ["http:", "https:", "<script", "<link", "src=", "url(", "@import"] {
            assert!(!text.contains(word), "{word}");
        }
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    }

    #[test]
    fn names_cannot_break_the_page() {
        let mut report = sample();
        report.node.client = "<script>alert(1)</script>".into();
        report.rejections.insert("-32000: <b>".into(), 1);
        let page = render(&report);
        assert!(!page.contains("<script>") && page.contains("&lt;script&gt;") && page.contains("&lt;b&gt;"));
    }

    #[test]
    fn dates() {
        for (ms, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_400_000, "2000-02-29 00:00 UTC"),
            (1_795_749_294_000, "2026-11-27 03:14 UTC"),
        ] {
            assert_eq!(date(ms), text);
        }
    }
}
