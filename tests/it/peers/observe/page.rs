//! A page of metrics as Prometheus reads it: every rule of the text format that `promtool check metrics` looks at, and the registry's own.

use std::collections::{BTreeMap, BTreeSet};

use native_sequencer::metrics::registry::{Kind, Metric, REGISTRY};

/// One line with a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

/// A page whose syntax is right.
#[derive(Debug, Default)]
pub struct Page {
    samples: Vec<Sample>,
    text: String,
}

/// The metric that a sample belongs to.
fn family<'a>(name: &'a str, kinds: &BTreeMap<String, String>) -> &'a str {
    let ends = ["_bucket", "_sum", "_count"].iter().filter_map(|end| name.strip_suffix(end));
    ends.into_iter().find(|base| kinds.get(*base).is_some_and(|kind| kind == "histogram")).unwrap_or(name)
}

impl Page {
    /// Panics at what Prometheus, or the registry, would not take.
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n') && !text.contains('\r'), "the last line is not ended");
        let mut page = Self { samples: Vec::new(), text: text.to_owned() };
        let (mut kinds, mut helps) = (BTreeMap::new(), BTreeSet::new());
        let (mut ended, mut current) = (BTreeSet::new(), String::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help");
                assert!(helps.insert(name.to_owned()) && !help.is_empty(), "{line}");
                continue;
            }
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(helps.contains(name), "{name}: no help before its type");
                assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}: twice");
                continue;
            }
            let sample = sample(line);
            let name = family(&sample.name, &kinds).to_owned();
            assert!(kinds.contains_key(&name), "{line}: no type before it");
            if name != current {
                assert!(ended.insert(name.clone()), "{name}: its lines do not stand together");
                current = name;
            }
            page.samples.push(sample);
        }
        page.check_series();
        page.check_registry(&kinds);
        page.check_histograms(&kinds);
        page
    }

    fn check_series(&self) {
        let mut seen = BTreeSet::new();
        for Sample { name, labels, .. } in &self.samples {
            let mut names: Vec<&str> = labels.iter().map(|(name, _)| name.as_str()).collect();
            assert!(seen.insert((name, labels)), "{name} {labels:?} stands twice");
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), labels.len(), "{name}: a label stands twice");
        }
    }

    fn check_registry(&self, kinds: &BTreeMap<String, String>) {
        for (name, kind) in kinds {
            let metric = find(name).unwrap_or_else(|| panic!("{name} is not in the registry"));
            assert_eq!(kind, metric.kind.name(), "{name}");
            for sample in self.samples.iter().filter(|sample| family(&sample.name, kinds) == name) {
                let names = sample.labels.iter().map(|(name, _)| name.as_str()).filter(|name| *name != "le");
                assert_eq!(names.collect::<Vec<_>>(), metric.labels, "labels of {name}");
                assert!(metric.kind != Kind::Counter || sample.value >= 0.0, "{name} is negative");
            }
        }
    }

    /// Buckets grow, end at +Inf, and that one is the count.
    fn check_histograms(&self, kinds: &BTreeMap<String, String>) {
        let mut series: BTreeMap<(String, String), Vec<(f64, f64)>> = BTreeMap::new();
        for sample in &self.samples {
            let Some(base) = sample.name.strip_suffix("_bucket").filter(|base| kinds.contains_key(*base)) else {
                continue;
            };
            let (bounds, others): (Vec<_>, Vec<_>) = sample.labels.iter().partition(|(name, _)| name == "le");
            let [(_, bound)] = bounds[..] else { panic!("{base}: a bucket without its bound") };
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().expect("a number") };
            series.entry((base.to_owned(), format!("{others:?}"))).or_default().push((bound, sample.value));
        }
        for ((name, labels), buckets) in &series {
            let grows = |pair: &[(f64, f64)]| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1;
            assert!(buckets.windows(2).all(grows), "{name} {labels}: {buckets:?}");
            let last = buckets[buckets.len() - 1];
            assert!(last.0.is_infinite(), "{name} {labels}: no bucket +Inf");
            let counts = self.samples.iter().filter(|sample| sample.name == format!("{name}_count"));
            assert!(counts.clone().any(|sample| sample.value == last.1), "{name} {labels}: count");
            assert!(self.samples.iter().any(|sample| sample.name == format!("{name}_sum")), "{name}: no sum");
        }
    }

    /// The value of one series; `labels` in the order of the registry.
    #[track_caller]
    pub fn value(&self, name: &str, labels: &[&str]) -> f64 {
        let is_it = |sample: &&Sample| sample.name == name && sample.labels.iter().map(|(_, value)| value).eq(labels);
        let found: Vec<&Sample> = self.samples.iter().filter(is_it).collect();
        let [sample] = found[..] else { panic!("{name} {labels:?} is there {} times:\n{}", found.len(), self.text) };
        sample.value
    }

    /// Over all values of its labels.
    pub fn sum(&self, name: &str) -> f64 {
        self.samples.iter().filter(|sample| sample.name == name).map(|sample| sample.value).sum()
    }
}

/// The row of a metric's name.
pub fn find(name: &str) -> Option<&'static Metric> {
    REGISTRY.iter().find(|metric| metric.name == name)
}

fn sample(line: &str) -> Sample {
    let (head, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("`{line}` has no value"));
    let value = value.parse().unwrap_or_else(|_| panic!("`{line}`: its value is no number"));
    let (name, labels) = head.split_once('{').map_or((head, ""), |(name, rest)| {
        (name, rest.strip_suffix('}').unwrap_or_else(|| panic!("`{line}`: labels are not closed")))
    });
    let is_name =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    assert!(is_name(name), "`{line}`: its name");
    // No value holds a comma, a quote or a backslash: labels are fixed words and a version.
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or_else(|| panic!("`{line}`: a label without a value"));
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        let value = value.unwrap_or_else(|| panic!("`{line}`: a value without quotes"));
        assert!(is_name(name) && !value.contains(['"', '\\']), "`{line}`");
        (name.to_owned(), value.to_owned())
    };
    let labels = labels.split(',').filter(|text| !text.is_empty()).map(pair).collect();
    Sample { name: name.to_owned(), labels, value }
}
