//! The text that Prometheus reads (exposition format 0.0.4): samples in, one page out, in the order of the registry.
//!
//! A sample names its row of the registry, so a page cannot hold a metric that is not in the table, nor a label that its row lacks.

use std::fmt::Write as _;

use super::cells::{BOUNDS, Snapshot, bound_ns};
use super::registry::{Id, Kind, REGISTRY};

/// The content type of the page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page that is being written.
#[derive(Debug)]
pub struct Exposition {
    /// Lines of each metric, in the order of the registry.
    families: Vec<String>,
}

impl Default for Exposition {
    fn default() -> Self {
        Self { families: vec![String::new(); REGISTRY.len()] }
    }
}

impl Exposition {
    /// One value of a counter or a gauge, with the values of its labels. Panics where the registry says otherwise.
    pub fn value(&mut self, id: Id, labels: &[&str], value: u64) {
        self.line(id, labels, &value.to_string());
    }

    /// As [`Exposition::value`], of a number that is no 64-bit integer.
    pub fn text(&mut self, id: Id, labels: &[&str], value: &str) {
        self.line(id, labels, value);
    }

    fn line(&mut self, id: Id, labels: &[&str], value: &str) {
        let metric = &REGISTRY[id as usize];
        assert!(metric.kind != Kind::Histogram, "{} is a histogram", metric.name);
        let labels = Labels::new(metric.labels, labels);
        let out = &mut self.families[id as usize];
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}{labels} {value}", metric.name);
    }

    /// 1 at `current` and 0 at every other of `all`.
    pub fn one_of(&mut self, id: Id, all: &[&str], current: &str) {
        for name in all {
            self.value(id, &[name], u64::from(*name == current));
        }
    }

    /// A histogram of durations, in seconds.
    pub fn histogram(&mut self, id: Id, labels: &[&str], snapshot: &Snapshot) {
        let metric = &REGISTRY[id as usize];
        assert!(metric.kind == Kind::Histogram, "{} is no histogram", metric.name);
        let name = metric.name;
        let labels = Labels::new(metric.labels, labels);
        let out = &mut self.families[id as usize];
        let mut count = 0;
        for (bucket, more) in snapshot.counts.iter().enumerate() {
            count += more;
            let bound = if bucket < BOUNDS { seconds(bound_ns(bucket)) } else { "+Inf".to_owned() };
            let labels = labels.with("le", &bound);
            let _ = writeln!(out, "{name}_bucket{labels} {count}");
        }
        let _ = writeln!(out, "{name}_sum{labels} {}", seconds(snapshot.sum_ns));
        // The sum of the buckets, so that both always agree.
        let _ = writeln!(out, "{name}_count{labels} {count}");
    }

    /// The page. A metric without a sample is left out.
    #[must_use]
    pub fn finish(self) -> String {
        let mut page = String::with_capacity(self.families.iter().map(|lines| lines.len() + 160).sum());
        for (metric, lines) in REGISTRY.iter().zip(&self.families).filter(|(_, lines)| !lines.is_empty()) {
            let (name, kind) = (metric.name, metric.kind.name());
            let _ = writeln!(page, "# HELP {name} {}\n# TYPE {name} {kind}", escaped(metric.help, false));
            page.push_str(lines);
        }
        page
    }

    /// Names of the metrics that have a sample.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        let with_lines = REGISTRY.iter().zip(&self.families).filter(|(_, lines)| !lines.is_empty());
        with_lines.map(|(metric, _)| metric.name).collect()
    }
}

/// `{name="value",…}`, or nothing.
struct Labels(String);

impl Labels {
    fn new(names: &[&str], values: &[&str]) -> Self {
        assert_eq!(names.len(), values.len(), "labels {names:?} have values {values:?}");
        names.iter().zip(values).fold(Self(String::new()), |labels, (name, value)| labels.with(name, value))
    }

    fn with(&self, name: &str, value: &str) -> Self {
        let before = self.0.strip_suffix('}').map_or_else(|| "{".to_owned(), |before| format!("{before},"));
        Self(format!("{before}{name}=\"{}\"}}", escaped(value, true)))
    }
}

impl std::fmt::Display for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn escaped(text: &str, is_quoted: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if is_quoted { text.replace('"', "\\\"") } else { text }
}

/// Nanoseconds as seconds, exactly.
#[must_use]
pub fn seconds(ns: u64) -> String {
    let (whole, part) = (ns / 1_000_000_000, ns % 1_000_000_000);
    if part == 0 {
        return whole.to_string();
    }
    format!("{whole}.{part:09}").trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::cells::Histogram;

    #[test]
    fn seconds_are_exact() {
        let shown = [0, 1, 1_024, 1_536_000, 1_000_000_000, 1_500_000_000, u64::MAX].map(seconds);
        let expected = ["0", "0.000000001", "0.000001024", "0.001536", "1", "1.5", "18446744073.709551615"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_page_is_in_the_order_of_the_registry_with_help_and_type_once() {
        let mut page = Exposition::default();
        page.value(Id::PoolPooled, &["ready"], 3);
        page.value(Id::ConnectionOpen, &[], 7);
        page.value(Id::PoolPooled, &["queued"], 4);
        assert_eq!(page.names(), ["seq_ingress_connection_open", "seq_pool_tx_pooled"]);
        let page = page.finish();
        let expected = "# HELP seq_ingress_connection_open Open connections of the JSON-RPC port\n\
            # TYPE seq_ingress_connection_open gauge\n\
            seq_ingress_connection_open 7\n";
        assert!(page.starts_with(expected), "{page}");
        assert!(
            page.ends_with("seq_pool_tx_pooled{state=\"ready\"} 3\nseq_pool_tx_pooled{state=\"queued\"} 4\n"),
            "{page}"
        );
        assert_eq!(page.matches("# TYPE").count(), 2);
    }

    #[test]
    fn a_histogram_is_cumulative_and_ends_at_its_count() {
        let histogram = Histogram::default();
        histogram.record(1_024);
        histogram.record(1_025);
        histogram.record(u64::MAX / 2);
        let mut page = Exposition::default();
        page.histogram(Id::TierReached, &["accepted"], &histogram.snapshot());
        let page = page.finish();
        let lines: Vec<&str> = page.lines().skip(2).collect();
        let name = "seq_tier_tx_reached_duration_seconds";
        assert_eq!(lines[0], format!("{name}_bucket{{tier=\"accepted\",le=\"0.000001024\"}} 1"));
        assert_eq!(lines[1], format!("{name}_bucket{{tier=\"accepted\",le=\"0.000001536\"}} 2"));
        assert_eq!(lines[BOUNDS - 1], format!("{name}_bucket{{tier=\"accepted\",le=\"68.719476736\"}} 2"));
        assert_eq!(lines[BOUNDS], format!("{name}_bucket{{tier=\"accepted\",le=\"+Inf\"}} 3"));
        assert_eq!(lines[BOUNDS + 2], format!("{name}_count{{tier=\"accepted\"}} 3"));
        assert_eq!(lines.len(), BOUNDS + 3);
    }

    #[test]
    fn label_values_are_escaped() {
        let mut page = Exposition::default();
        page.value(Id::HealthReason, &["a\"b\\c\nd"], 1);
        assert!(page.finish().ends_with("seq_health_reason{reason=\"a\\\"b\\\\c\\nd\"} 1\n"));
    }
}
