//! The dashboard and the alert rules against the registry: every metric and label that they name exists, expressions are whole, run-books are there.

use std::fs;
use std::path::Path;

use native_sequencer::metrics::registry::{Kind, Metric, REGISTRY};
use serde_json::Value;

/// What PromQL calls with brackets, of what is used here.
const FUNCTIONS: &[&str] = &[
    "rate",
    "increase",
    "changes",
    "histogram_quantile",
    "time",
    "sum",
    "max",
    "min",
    "topk",
    "by",
    "on",
    "label_values",
];
/// Words between expressions.
const OPERATORS: &[&str] = &["and", "or", "unless"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Mark(char),
}

/// Words, strings and everything else one by one; `$name` is a word of Grafana's.
fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '.');
        let length = match first {
            '"' => rest[1..].find('"').unwrap_or_else(|| panic!("`{text}`: a string is not closed")) + 2,
            _ if is_part(first) => rest.find(|c| !is_part(c)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let piece = &rest[..length];
        match first {
            '"' => found.push(Token::Text(piece.trim_matches('"').to_owned())),
            _ if first.is_whitespace() => {}
            _ if is_part(first) => found.push(Token::Word(piece.to_owned())),
            _ => found.push(Token::Mark(first)),
        }
        rest = &rest[length..];
    }
    found
}

/// The registry's row of a series name.
fn metric(name: &str) -> Option<&'static Metric> {
    let find = |name: &str| REGISTRY.iter().find(|metric| metric.name == name);
    let histogram = || {
        let ends = ["_bucket", "_sum", "_count"].iter().filter_map(|end| name.strip_suffix(end));
        ends.filter_map(find).find(|metric| metric.kind == Kind::Histogram)
    };
    find(name).filter(|metric| metric.kind != Kind::Histogram).or_else(histogram)
}

/// Whether what follows a metric's name makes it a range: `[…]`, labels before it or not.
fn is_range(after: &[Token]) -> bool {
    let end = match after.first() {
        Some(Token::Mark('{')) => {
            after.iter().position(|token| *token == Token::Mark('}')).map_or(after.len(), |at| at + 1)
        }
        _ => 0,
    };
    after.get(end) == Some(&Token::Mark('['))
}

/// What is wrong with an expression; the metrics that it names go to `named`.
fn faults(expression: &str, named: &mut Vec<&'static str>) -> Vec<String> {
    let tokens = tokens(expression);
    let mut faults = Vec::new();
    let mut open = Vec::new();
    let (mut in_labels, mut in_grouping, mut current): (bool, bool, Option<&Metric>) = (false, false, None);
    let mut grouped = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|index| tokens.get(index));
        let after = tokens.get(index + 1);
        match token {
            Token::Mark(mark @ ('(' | '[' | '{')) => {
                open.push(*mark);
                in_labels |= *mark == '{';
                in_grouping |=
                    *mark == '(' && matches!(before, Some(Token::Word(word)) if word == "by" || word == "on");
            }
            Token::Mark(mark @ (')' | ']' | '}')) => {
                let pair = match mark {
                    ')' => '(',
                    ']' => '[',
                    _ => '{',
                };
                if open.pop() != Some(pair) {
                    faults.push(format!("`{mark}` closes nothing"));
                }
                in_labels &= *mark != '}';
                in_grouping &= *mark != ')';
            }
            Token::Word(word) if in_labels => {
                let known = |metric: &Metric| metric.labels.contains(&word.as_str()) || word == "le";
                if word != "instance" && word != "job" && !current.is_some_and(known) {
                    faults.push(format!("label `{word}` is none of {:?}", current.map(|metric| metric.name)));
                }
            }
            Token::Word(word) if in_grouping => grouped.push(word.clone()),
            Token::Word(word) if open.last() == Some(&'[') || word.starts_with(|c: char| c.is_ascii_digit()) => {}
            Token::Word(word) if word.starts_with('$') || OPERATORS.contains(&word.as_str()) || word == "instance" => {}
            Token::Word(word) if after == Some(&Token::Mark('(')) || FUNCTIONS.contains(&word.as_str()) => {
                if !FUNCTIONS.contains(&word.as_str()) {
                    faults.push(format!("function `{word}`"));
                }
            }
            Token::Word(word) if word == "up" => current = None,
            Token::Word(word) => match metric(word) {
                Some(metric) => {
                    current = Some(metric);
                    named.push(metric.name);
                    if metric.kind == Kind::Counter && !is_range(&tokens[index + 1..]) {
                        faults.push(format!("counter `{word}` without a rate"));
                    }
                }
                None => faults.push(format!("metric `{word}` is not in the registry")),
            },
            Token::Text(_) | Token::Mark(_) => {}
        }
    }
    if !open.is_empty() {
        faults.push(format!("not closed: {open:?}"));
    }
    let known = |label: &String| {
        let is_of = |metric: &Metric| metric.labels.contains(&label.as_str());
        matches!(label.as_str(), "instance" | "le" | "job")
            || REGISTRY.iter().filter(|metric| named.contains(&metric.name)).any(is_of)
    };
    faults.extend(grouped.iter().filter(|label| !known(label)).map(|label| format!("grouped by `{label}`")));
    if named.is_empty() && !expression.starts_with("up") {
        faults.push("no metric".to_owned());
    }
    faults.iter().map(|fault| format!("{fault} in `{expression}`")).collect()
}

#[track_caller]
fn check(expression: &str, expected: &str) {
    let found = faults(expression, &mut Vec::new());
    let found: Vec<&str> = found.iter().map(|fault| fault.rsplit_once(" in `").expect("the expression").0).collect();
    assert_eq!(found.join("; "), expected, "{expression}");
}

/// The checker itself finds what is wrong.
#[test]
fn wrong_expressions_are_found() {
    check("rate(seq_builder_tx_placed_total[5m])", "");
    check("max by (instance) (seq_health_level{probe=\"ready\"}) == 2", "");
    check("rate(seq_builder_tx_placed_total[5m]", "not closed: ['(']");
    check("sum(seq_health_level)) > 1", "`)` closes nothing");
    check("seq_health_leve", "metric `seq_health_leve` is not in the registry; no metric");
    check("seq_health_level{prob=\"ready\"}", "label `prob` is none of Some(\"seq_health_level\")");
    check("max by (reason) (seq_health_level)", "grouped by `reason`");
    check(
        "seq_tier_tx_reached_duration_seconds",
        "metric `seq_tier_tx_reached_duration_seconds` is not in the registry; no metric",
    );
    check("rat(seq_builder_tx_placed_total[5m])", "function `rat`");
    check(
        "sum(seq_builder_tx_dropped_total{reason=\"expired\"})",
        "counter `seq_builder_tx_dropped_total` without a rate",
    );
    check("seq_builder_tx_placed_total", "counter `seq_builder_tx_placed_total` without a rate");
}

/// Every panel asks for what exists, and every metric is in some panel.
#[test]
fn the_dashboard_shows_every_metric() {
    let dashboard: Value = serde_json::from_str(&read("tuning/deploy/grafana.json")).expect("JSON");
    let (mut named, mut wrong, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut taken = Vec::new();
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        ids.push(panel["id"].as_u64().expect("an id"));
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|name| panel["gridPos"][name].as_u64().expect("a place"));
        assert!(x + w <= 24, "{title}: outside of the grid");
        let overlaps = |other: &[u64; 4]| {
            x < other[0] + other[2] && other[0] < x + w && y < other[1] + other[3] && other[1] < y + h
        };
        assert!(!taken.iter().any(overlaps), "{title}: on top of another");
        taken.push([x, y, w, h]);
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().expect("an expression");
            let mut of_this = Vec::new();
            wrong.extend(faults(expression, &mut of_this).into_iter().map(|fault| format!("{title}: {fault}")));
            named.extend(of_this);
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "an id stands twice");
    let missing: Vec<&str> = REGISTRY.iter().map(|metric| metric.name).filter(|name| !named.contains(name)).collect();
    assert!(missing.is_empty(), "in no panel of tuning/deploy/grafana.json: {missing:?}");
}

/// GitHub's name of a heading.
fn anchors(document: &str) -> Vec<String> {
    let headings =
        document.lines().filter_map(|line| line.strip_prefix('#').map(|line| line.trim_start_matches('#').trim()));
    let kept = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    headings
        .map(|text| text.to_lowercase().chars().filter(|c| kept(*c)).collect::<String>().replace(' ', "-"))
        .collect()
}

/// One rule of the file, whose lines have a fixed form.
#[derive(Debug, Default)]
struct Rule {
    name: String,
    expr: String,
    duration: String,
    severity: String,
    summary: String,
    runbook: String,
}

fn rules(text: &str) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let (key, value) = content.split_once(':').unwrap_or_else(|| panic!("alerts.yml:{}: no key", number + 1));
        let value = value.trim().to_owned();
        let is_quoted = value.starts_with('"') && value.ends_with('"') && value.len() > 1;
        // A plain scalar with these would mean something else to a YAML reader.
        assert!(is_quoted || !value.contains(": ") && !value.contains(" #"), "alerts.yml:{}: quote it", number + 1);
        let text = value.trim_matches('"').to_owned();
        match (indent, key) {
            (6, "- alert") => rules.push(Rule { name: text, ..Rule::default() }),
            (0, "groups") | (2, "- name") | (4, "rules") | (8, "labels" | "annotations") => {}
            (8 | 10, key) => {
                let rule = rules.last_mut().expect("a rule begins with its name");
                let field = match (indent, key) {
                    (8, "expr") => &mut rule.expr,
                    (8, "for") => &mut rule.duration,
                    (10, "severity") => &mut rule.severity,
                    (10, "summary") => &mut rule.summary,
                    (10, "runbook") => &mut rule.runbook,
                    _ => panic!("alerts.yml:{}: `{key}`", number + 1),
                };
                assert!(std::mem::replace(field, text).is_empty(), "alerts.yml:{}: twice", number + 1);
            }
            _ => panic!("alerts.yml:{}: indentation {indent}", number + 1),
        }
    }
    rules
}

#[test]
fn every_alert_asks_for_what_exists_and_names_a_run_book() {
    let anchors = anchors(&read("docs/OPERATIONS.md"));
    let mut wrong = Vec::new();
    let rules = rules(&read("tuning/deploy/alerts.yml"));
    assert!(rules.len() > 10, "{} rules", rules.len());
    for rule in &rules {
        let name = &rule.name;
        wrong.extend(faults(&rule.expr, &mut Vec::new()).into_iter().map(|fault| format!("{name}: {fault}")));
        let digits = rule.duration.trim_end_matches(['s', 'm']);
        assert!(
            digits.parse::<u32>().is_ok() && digits.len() + 1 == rule.duration.len(),
            "{name}: for {}",
            rule.duration
        );
        assert!(matches!(rule.severity.as_str(), "page" | "ticket"), "{name}: severity {}", rule.severity);
        assert!(rule.summary.contains("{{ $labels.instance }}"), "{name}: which one?");
        let anchor = rule.runbook.strip_prefix("docs/OPERATIONS.md#").unwrap_or_default();
        if !anchors.iter().any(|known| known == anchor) {
            wrong.push(format!("{name}: docs/OPERATIONS.md has no heading `{anchor}`"));
        }
    }
    let mut names: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), rules.len(), "an alert stands twice");
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
