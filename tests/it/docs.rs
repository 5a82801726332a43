//! Documents against the code: the reference configuration is complete and valid, and links lead somewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use native_sequencer::config::settings::SETTINGS;
use native_sequencer::config::{Config, RawConfig};

const REFERENCE: &str = "docs/sequencer.toml";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn reference() -> String {
    std::fs::read_to_string(root().join(REFERENCE)).expect("the reference configuration")
}

/// Keys of the reference file with line number and value; a commented key counts as one without a value.
fn keys(text: &str) -> BTreeMap<String, (usize, Option<String>)> {
    let mut group = String::new();
    let mut found = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        if let Some(name) = line.strip_prefix('[') {
            group = format!("{}.", name.trim_end_matches(']'));
            continue;
        }
        let (line, is_set) = line.strip_prefix("# ").map_or((line, true), |line| (line, false));
        let Some((key, value)) = line.split_once(" = ") else { continue };
        if key.chars().all(|c| c.is_ascii_lowercase() || c == '-') {
            let value = is_set.then(|| value.trim_matches('"').to_owned());
            let previous = found.insert(format!("{group}{key}"), (index + 1, value));
            assert!(previous.is_none(), "{REFERENCE}:{}: `{group}{key}` stands twice", index + 1);
        }
    }
    found
}

#[test]
fn the_reference_configuration_names_every_setting_with_its_default() {
    let mut keys = keys(&reference());
    let mut faults = Vec::new();
    for setting in SETTINGS {
        let Some((line, value)) = keys.remove(setting.name) else {
            faults.push(format!("{REFERENCE}: `{}` is missing: {}", setting.name, setting.help));
            continue;
        };
        let default = (!setting.default.is_empty()).then(|| setting.default.to_owned());
        if value != default {
            faults.push(format!("{REFERENCE}:{line}: `{}` is {value:?}, the default is {default:?}", setting.name));
        }
        let alias = setting.env_alias.map(|alias| format!("Alias: {alias}."));
        if alias.is_some_and(|alias| !reference().contains(&alias)) {
            faults.push(format!("{REFERENCE}:{line}: say `Alias: {}.`", setting.env_alias.unwrap_or_default()));
        }
    }
    faults
        .extend(keys.iter().map(|(name, (line, _))| format!("{REFERENCE}:{line}: `{name}` is no setting: remove it")));
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn the_reference_configuration_is_valid() {
    let mut raw = RawConfig::layered(&[], &[], Some(&root().join(REFERENCE))).expect("every name is known");
    raw.default_for_command("http.host", "127.0.0.1");
    raw.default_for_command("http.cors", "false");
    Config::from_raw(&raw).expect("every default is valid");
}

fn documents() -> Vec<PathBuf> {
    let docs = std::fs::read_dir(root().join("docs")).expect("docs/");
    let docs = docs.map(|entry| entry.expect("a readable entry").path());
    let mut paths: Vec<PathBuf> = docs.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    paths.push(root().join("README.md"));
    paths
}

/// Targets of `[text](target)` in a document, with line numbers.
fn links(text: &str) -> Vec<(usize, &str)> {
    let lines = text.lines().enumerate();
    lines
        .flat_map(|(index, line)| {
            let targets = line.match_indices("](").map(move |(at, open)| {
                let target = &line[at + open.len()..];
                target.split(')').next().unwrap_or(target)
            });
            targets.map(move |target| (index + 1, target))
        })
        .collect()
}

#[test]
fn links_lead_somewhere() {
    let mut faults = Vec::new();
    for path in documents() {
        let text = std::fs::read_to_string(&path).expect("a readable document");
        let name = path.strip_prefix(root()).expect("below the root").display();
        for (line, target) in links(&text) {
            let file = target.split('#').next().unwrap_or(target);
            let is_local = !file.is_empty() && !file.contains("://") && !file.starts_with("mailto:");
            if is_local && !path.parent().expect("a file has a folder").join(file).exists() {
                faults.push(format!("{name}:{line}: {target} does not exist: correct the link or add the file"));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}
