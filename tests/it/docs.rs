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

/// Of each key: meaning first, then when to change it and what to expect of that.
#[test]
fn the_reference_configuration_explains_every_setting() {
    let mut faults = Vec::new();
    let mut comment: Vec<String> = Vec::new();
    let text = reference();
    let known = keys(&text);
    for (index, line) in text.lines().enumerate() {
        if known.values().any(|(number, _)| *number == index + 1) {
            let change = comment.iter().position(|line| line.starts_with("Change: "));
            if change.is_none_or(|position| position == 0) {
                let what = "needs its meaning, then a line `# Change: …`: when to change it and what to expect";
                faults.push(format!("{REFERENCE}:{}: `{line}` {what}", index + 1));
            }
            comment.clear();
        } else if let Some(text) = line.strip_prefix("# ") {
            comment.push(text.to_owned());
        } else {
            comment.clear();
        }
    }
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

/// Command lines in the `sh` blocks of a document, with the line number of each; `\` at the end of a line joins it with the next.
fn command_lines(text: &str) -> Vec<(usize, String)> {
    let (mut found, mut is_shell, mut joined) = (Vec::new(), false, String::new());
    for (index, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            is_shell = line == "```sh";
        } else if is_shell {
            joined += line.split(" # ").next().unwrap_or(line).trim_end_matches('\\');
            if !line.ends_with('\\') {
                let parts = joined.split(['|', ';', '>']).flat_map(|part| part.split("&&"));
                found.extend(parts.map(|part| (index + 1, part.trim().to_owned())));
                joined.clear();
            }
        }
    }
    found
}

/// The words after our program's name: subcommands up to the first option, and the names of options.
fn our_command(line: &str) -> Option<(Vec<&str>, Vec<&str>)> {
    let mut words = line.split_whitespace().skip_while(|word| matches!(*word, "sudo" | "-u"));
    let mut program = words.next()?;
    if program == "sequencer" && line.contains("-u sequencer") {
        program = words.next()?;
    }
    if !matches!(program.rsplit('/').next()?, "sequencer" | "sequencer.new") {
        return None;
    }
    let words: Vec<&str> = words.collect();
    let commands = words.iter().take_while(|word| !word.starts_with('-')).copied().collect();
    let options = words.iter().filter(|word| word.starts_with("--")).copied();
    Some((commands, options.map(|word| word.split('=').next().unwrap_or(word)).collect()))
}

#[test]
fn commands_in_documents_exist_with_their_options() {
    let (mut faults, mut count) = (Vec::new(), 0);
    for path in documents() {
        let text = std::fs::read_to_string(&path).expect("a readable document");
        let name = path.strip_prefix(root()).expect("below the root").display();
        for (line, command) in command_lines(&text) {
            let Some((commands, options)) = our_command(&command) else { continue };
            count += 1;
            let output =
                crate::peers::sequencer::command().args(&commands).arg("--help").output().expect("our binary starts");
            let help = String::from_utf8_lossy(&output.stdout);
            if !output.status.success() {
                faults.push(format!("{name}:{line}: `sequencer {}` does not exist", commands.join(" ")));
            }
            let is_known =
                |option: &&str| help.split(|c: char| c.is_whitespace() || c == ',').any(|word| word == *option);
            faults.extend(
                options
                    .iter()
                    .filter(|option| !is_known(option))
                    .map(|option| format!("{name}:{line}: `{command}`: there is no {option}")),
            );
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
    assert!(count > 12, "only {count} commands were found");
}

/// Where the table of METRICS.md begins.
const METRICS_TABLE: &str = "| name | type | unit | labels | meaning |";

#[test]
fn metrics_stand_in_their_document() {
    let path = root().join("docs/METRICS.md");
    let text = std::fs::read_to_string(&path).expect("the document");
    let start = text.find(METRICS_TABLE).expect("the document has the table");
    let end = text[start..].find("\n\n").map_or(text.len(), |at| start + at + 1);
    let expected = native_sequencer::metrics::registry::markdown();
    if std::env::var("METRICS_DOC").is_ok_and(|value| value == "write") {
        let written = [&text[..start], &expected, &text[end..]].concat();
        std::fs::write(&path, written).expect("a writable checkout");
        return;
    }
    let (found, expected): (Vec<&str>, Vec<&str>) = (text[start..end].lines().collect(), expected.lines().collect());
    let missing = expected.iter().filter(|line| !found.contains(line)).map(|line| format!("+ {line}"));
    let stale = found.iter().filter(|line| !expected.contains(line)).map(|line| format!("- {line}"));
    let faults: Vec<String> = missing.chain(stale).collect();
    assert!(faults.is_empty(), "\nMETRICS_DOC=write cargo test --test it docs::metrics\n{}\n", faults.join("\n"));
    assert_eq!(found, expected, "the table's order");
}

/// SECURITY.md names the test that holds each row; a module's name ends in `::` something or is a path.
#[test]
fn tests_that_security_names_exist() {
    let text = std::fs::read_to_string(root().join("docs/SECURITY.md")).expect("the document");
    let mut code = String::new();
    let mut folders = vec![root().join("src"), root().join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                code += &std::fs::read_to_string(path).expect("a source file");
            }
        }
    }
    let mut count = 0;
    for row in text.lines().filter(|line| line.starts_with("| ")) {
        let Some(last) = row.trim_end_matches(" |").rsplit(" | ").next().filter(|_| row.matches(" | ").count() == 2)
        else {
            continue;
        };
        for name in last.split('`').skip(1).step_by(2) {
            count += 1;
            let exists = match name.strip_prefix("peers::") {
                Some(module) => {
                    root().join("tests/it/peers").join(format!("{}.rs", module.replace("::", "/"))).exists()
                }
                None if name.contains('/') => root().join(name).exists() || root().join(format!("{name}.rs")).exists(),
                None => code.contains(&format!("fn {name}()")),
            };
            assert!(exists, "docs/SECURITY.md: `{name}` is no test: {row}");
        }
    }
    assert!(count > 20, "only {count} tests are named");
}
