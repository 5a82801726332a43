//! Prometheus's own tool over what we give Prometheus: the rules, what they say to made-up series, the dashboard's expressions, a page of a node.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{get, start};
use crate::peers::process::TempFolder;

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning/deploy").join(name)
}

/// The tool, where `SEQUENCER_PROMTOOL` or the path has one. It is built from Go sources in minutes, so that nobody has to have it.
fn promtool(test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("SEQUENCER_PROMTOOL").map_or_else(|| PathBuf::from("promtool"), PathBuf::from);
    let is_there = Command::new(&path).arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_there {
        println!(
            "skipped {test}: no promtool; go install github.com/prometheus/prometheus/cmd/promtool@latest, or SEQUENCER_PROMTOOL"
        );
    }
    is_there.then_some(path)
}

/// Runs it with `input` and checks that it has nothing to say against it.
#[track_caller]
fn check(promtool: &Path, arguments: &[&str], input: &str) {
    let mut child = Command::new(promtool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it answered before");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {}: {}\n{text}", arguments.join(" "), output.status);
    println!("promtool {}: {}", arguments.join(" "), text.trim());
}

#[test]
fn promtool_takes_the_rules_and_they_fire_when_they_should() {
    let Some(promtool) = promtool("promtool_takes_the_rules_and_they_fire_when_they_should") else { return };
    let path = |name: &str| deploy(name).to_str().expect("text").to_owned();
    check(&promtool, &["check", "rules", "--lint-fatal", &path("alerts.yml")], "");
    check(&promtool, &["test", "rules", &path("alerts_test.yml")], "");
    // A rule without a case would be one that nobody has seen firing.
    let (rules, cases) = (fs::read_to_string(path("alerts.yml")), fs::read_to_string(path("alerts_test.yml")));
    let (rules, cases) = (rules.expect("a file"), cases.expect("a file"));
    for name in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(cases.contains(&format!("  - name: {name}\n")), "alerts_test.yml has no case of {name}");
    }
}

/// Each expression as a recording rule, with Grafana's variables filled in as it does.
#[test]
fn promtool_parses_every_expression_of_the_dashboard() {
    let Some(promtool) = promtool("promtool_parses_every_expression_of_the_dashboard") else { return };
    let dashboard: Value = serde_json::from_slice(&fs::read(deploy("grafana.json")).expect("a file")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    let expressions: Vec<String> = targets.filter_map(|target| target["expr"].as_str().map(str::to_owned)).collect();
    assert!(expressions.len() > 50, "{} expressions", expressions.len());
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (index, expression) in expressions.iter().enumerate() {
        let filled = expression.replace("$__rate_interval", "1m").replace("$instance", ".*");
        assert!(!filled.contains('$'), "{expression}");
        rules += &format!("      - record: panel:{index}\n        expr: {}\n", serde_json::json!(filled));
    }
    let folder = TempFolder::new("promtool");
    let file = folder.path().join("dashboard.yml");
    fs::write(&file, rules).expect("a file");
    check(&promtool, &["check", "rules", file.to_str().expect("text")], "");
}

#[test]
fn promtool_takes_a_page_of_a_node() {
    let Some(promtool) = promtool("promtool_takes_a_page_of_a_node") else { return };
    let _turn = crate::peers::turn();
    let (node, port) = start(&[]);
    let (status, page) = get(port, "/metrics");
    assert_eq!(status, 200);
    check(&promtool, &["check", "metrics"], &page);
    node.stop();
}
