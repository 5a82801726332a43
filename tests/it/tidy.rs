//! Rules that the repository keeps about itself: who may use what, how long a function is, what may not be committed.
//!
//! Every rule prints `file:line` and what to do. A ratchet list holds what was already too long when the rule came: an entry may only
//! shrink, and must be lowered when it can be.

mod source;
mod tables;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use source::Source;
use tables::{FORBIDDEN, GROWING, IMPORTS, LONG_FUNCTIONS, ONLY_IN, UNSAFE_FILES};

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 900;
/// Larger files are raw data of measurements.
const TEXT_BYTES_MAX: u64 = 4 << 20;

/// Every text file that is, or could be, committed.
fn repository() -> &'static [Source] {
    static FILES: OnceLock<Vec<Source>> = OnceLock::new();
    FILES.get_or_init(|| {
        let root = root();
        let mut paths = Vec::new();
        list(root, &mut paths);
        paths.sort();
        paths.iter().filter_map(|path| Source::read(root, path)).collect()
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Skips what `.gitignore` names, links, and hidden folders other than `.ci` and `.github`.
fn list(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a readable checkout") {
        let entry = entry.expect("a readable entry");
        let (name, kind) = (entry.file_name(), entry.file_type().expect("a kind"));
        let name = name.to_string_lossy();
        let is_kept = !name.starts_with('.') || matches!(name.as_ref(), ".ci" | ".github" | ".gitignore");
        let is_built = matches!(name.as_ref(), "target" | "node_modules" | "__pycache__");
        if kind.is_dir() && is_kept && !is_built {
            list(&entry.path(), out);
        } else if kind.is_file() && is_kept && entry.metadata().expect("a size").len() <= TEXT_BYTES_MAX {
            out.push(entry.path());
        }
    }
}

fn rust_files() -> impl Iterator<Item = &'static Source> {
    repository().iter().filter(|file| file.is_rust())
}

/// Files of `src/` that the product compiles.
fn product_files() -> impl Iterator<Item = &'static Source> {
    let test_only: BTreeSet<String> = rust_files()
        .flat_map(|file| {
            let dir = module_dir(&file.path);
            file.test_modules().map(move |name| format!("{dir}/{name}")).collect::<Vec<_>>()
        })
        .collect();
    rust_files().filter(move |file| {
        let module = file.path.trim_end_matches(".rs");
        let is_test = test_only.iter().any(|test| module == test || module.starts_with(&format!("{test}/")));
        file.path.starts_with("src/") && !is_test
    })
}

/// Where the modules that a file declares lie.
fn module_dir(path: &str) -> String {
    let stem = path.trim_end_matches(".rs");
    let is_root = ["/mod", "/lib", "/main"].iter().any(|end| stem.ends_with(end));
    if is_root { stem.rsplit_once('/').map_or("", |(dir, _)| dir).to_owned() } else { stem.to_owned() }
}

/// `src/builder/core.rs` → `builder::core`.
fn module_name(path: &str) -> String {
    let module = module_dir(path).replace('/', "::");
    module.strip_prefix("src::").map_or_else(|| "lib".to_owned(), str::to_owned)
}

fn is_within(module: &str, prefix: &str) -> bool {
    module.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[track_caller]
fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// Where `word` stands in `line` as a whole word.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(is_part);
        let after = line[at + word.len()..].chars().next().is_some_and(is_part);
        !(before && word.starts_with(is_part) || after && word.ends_with(is_part))
    })
}

/// Top-level modules of the crate that a line names.
fn crate_modules(line: &str) -> Vec<&str> {
    line.match_indices("crate::")
        .flat_map(|(at, found)| {
            let rest = &line[at + found.len()..];
            let names = rest.strip_prefix('{').map_or(rest, |list| list.split('}').next().unwrap_or(list));
            let is_list = rest.starts_with('{');
            names.split(", ").take(if is_list { usize::MAX } else { 1 })
        })
        .map(|name| name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(name))
        .collect()
}

#[test]
fn modules_import_what_the_table_says() {
    let mut faults = Vec::new();
    let mut used = BTreeSet::new();
    for file in product_files() {
        let module = module_name(&file.path);
        let own = module.split("::").next().unwrap_or(&module);
        let rows = IMPORTS.iter().filter(|(row, _)| is_within(&module, row));
        let Some((row, allowed)) = rows.max_by_key(|(row, _)| row.len()) else {
            faults.push(format!("{}:1: module `{module}` has no row in IMPORTS (tests/it/tidy/tables.rs)", file.path));
            continue;
        };
        for (number, line) in file.product_lines() {
            for name in crate_modules(line).into_iter().filter(|name| *name != own) {
                used.insert((*row, name));
                if !allowed.contains(&name) {
                    faults.push(format!(
                        "{}:{number}: `{row}` may not use `crate::{name}`; ask a module it may use, or argue for a new edge in IMPORTS",
                        file.path
                    ));
                }
            }
        }
    }
    for (row, allowed) in IMPORTS.iter().filter(|(row, _)| !GROWING.iter().any(|module| is_within(row, module))) {
        let stale = allowed.iter().filter(|name| !used.contains(&(*row, **name)));
        faults.extend(stale.map(|name| format!("tests/it/tidy/tables.rs: `{row}` no longer uses `{name}`: remove it")));
    }
    none(&faults);
}

#[test]
fn threads_files_sockets_and_clocks_stay_where_they_belong() {
    let mut faults = Vec::new();
    for file in product_files() {
        let module = module_name(&file.path);
        for (word, places, why) in ONLY_IN {
            if places.iter().any(|place| is_within(&module, place)) {
                continue;
            }
            let hits = file.product_lines().filter(|(_, line)| has_word(line, word));
            faults.extend(hits.map(|(number, _)| {
                let places = places.join(", ");
                format!("{}:{number}: `{word}` belongs in [{places}] only: {why}", file.path)
            }));
        }
    }
    none(&faults);
}

#[test]
fn unsafe_code_is_where_the_list_says() {
    let mut faults = Vec::new();
    let listed: BTreeSet<&str> = UNSAFE_FILES.iter().map(|(path, _)| *path).collect();
    for file in rust_files() {
        // The linter sees to the rest: without the right name in it the file does not compile.
        let allows = file.code.lines().any(|line| line.starts_with("#![allow("));
        let uses = file.code.lines().position(|line| has_word(line, "unsafe"));
        let is_listed = listed.contains(file.path.as_str());
        let line = uses.map_or(1, |index| index + 1);
        if uses.is_some() && !is_listed {
            faults.push(format!(
                "{}:{line}: unsafe outside UNSAFE_FILES: use safe code, or argue for an entry",
                file.path
            ));
        } else if is_listed && uses.is_none() {
            faults.push(format!("{}:1: has no unsafe code any more: remove it from UNSAFE_FILES", file.path));
        } else if is_listed && !allows {
            let what = "open the file with `#![allow(unsafe_code, reason = \"…\")]`";
            faults.push(format!("{}:{line}: {what}", file.path));
        }
    }
    let exists = |path: &&str| rust_files().any(|file| file.path == *path);
    faults.extend(
        listed.iter().filter(|path| !exists(path)).map(|path| format!("UNSAFE_FILES names {path}, which is gone")),
    );
    none(&faults);
}

#[test]
fn functions_fit_a_screen() {
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for file in rust_files() {
        for (line, name, lines) in file.functions() {
            let entry = LONG_FUNCTIONS.iter().find(|(path, function, _)| *path == file.path && *function == name);
            let line_max = entry.map_or(FUNCTION_LINES_MAX, |(_, _, lines)| *lines);
            if entry.is_some() && lines > FUNCTION_LINES_MAX {
                seen.insert((file.path.as_str(), name.clone()));
            }
            if lines > line_max {
                faults.push(format!("{}:{line}: `{name}` has {lines} lines, at most {line_max}: split it", file.path));
            } else if entry.is_some() && lines > FUNCTION_LINES_MAX && lines < line_max {
                faults.push(format!("{}:{line}: `{name}` has shrunk: set LONG_FUNCTIONS to {lines}", file.path));
            }
        }
    }
    for (path, name, _) in LONG_FUNCTIONS {
        if !seen.contains(&(*path, (*name).to_owned())) {
            faults.push(format!("{path}: `{name}` is short enough or gone: remove it from LONG_FUNCTIONS"));
        }
    }
    none(&faults);
}

#[test]
fn files_stay_readable() {
    let mut faults = Vec::new();
    for file in rust_files() {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            let what = "look for a narrower interface, then cut";
            faults.push(format!("{}:{FILE_LINES_MAX}: {lines} lines, at most {FILE_LINES_MAX}: {what}", file.path));
        }
    }
    for file in product_files() {
        let first = file.text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
        if !first.is_some_and(|line| line.starts_with("//!")) {
            faults
                .push(format!("{}:1: open with `//!`: input and output, owner, invariants, what is absent", file.path));
        }
    }
    none(&faults);
}

#[test]
fn nothing_is_left_for_later() {
    let mut faults = Vec::new();
    for file in rust_files() {
        for (number, line) in file.text.lines().enumerate() {
            let hits = FORBIDDEN.iter().filter(|(word, _)| has_word(line, &word.concat()));
            faults
                .extend(hits.map(|(word, what)| format!("{}:{}: `{}`: {what}", file.path, number + 1, word.concat())));
        }
    }
    none(&faults);
}

#[test]
fn lib_lists_every_module() {
    let lib = repository().iter().find(|file| file.path == "src/lib.rs").expect("src/lib.rs");
    let modules: BTreeSet<String> = product_files()
        .map(|file| module_name(&file.path).split("::").next().unwrap_or_default().to_owned())
        .filter(|module| module != "lib")
        .collect();
    let listed = |module: &&String| lib.code.lines().any(|line| line == format!("pub mod {module};"));
    let faults: Vec<String> = modules
        .iter()
        .filter(|module| !listed(module))
        .map(|module| format!("src/lib.rs:1: `pub mod {module};` is missing: it is the map that readers start from"))
        .collect();
    none(&faults);
}

#[test]
fn no_machine_is_named() {
    let mut faults = Vec::new();
    let homes = ["/home", "/root", "/Users"].map(|home| format!("{home}/"));
    let checkout = root().display().to_string();
    for file in repository() {
        for (number, line) in file.text.lines().enumerate() {
            let found = homes.iter().chain([&checkout]).find(|path| names_path(line, path));
            if let Some(path) = found {
                let what = "a path of one machine: make it relative, or read it from the environment";
                faults.push(format!("{}:{}: `{path}` is {what}", file.path, number + 1));
            }
        }
    }
    none(&faults);
}

/// Whether a line holds an absolute path: `/srv/x`, but not `https://example.org/srv/x`.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '}'))
    })
}

#[test]
fn lock_files_name_public_registries_only() {
    let faults: Vec<String> = repository().iter().flat_map(lock_faults).collect();
    none(&faults);
}

fn lock_faults(file: &Source) -> Vec<String> {
    let (key, host) = match file.path.rsplit('/').next() {
        Some("Cargo.lock") => ("source = \"", "registry+https://github.com/rust-lang/crates.io-index\""),
        Some("package-lock.json") => ("\"resolved\": \"", "https://registry.npmjs.org/"),
        _ => return Vec::new(),
    };
    let lines = file.text.lines().enumerate();
    let foreign = lines.filter(|(_, line)| line.split_once(key).is_some_and(|(_, value)| !value.starts_with(host)));
    let what = "may be named here: lock again without mirrors";
    foreign.map(|(index, _)| format!("{}:{}: only {host} {what}", file.path, index + 1)).collect()
}

#[test]
fn the_rules_themselves_see_what_they_should() {
    assert!(has_word("use rayon::prelude", "rayon") && !has_word("crayon", "rayon"));
    assert!(has_word("std::thread::spawn(", "thread::spawn") && !has_word("thread::spawned", "thread::spawn"));
    assert_eq!(crate_modules("use crate::ring::{Consumer, Doorbell};"), ["ring"]);
    assert_eq!(crate_modules("use crate::{limits, ring::Ring}; crate::rpc::run()"), ["limits", "ring", "rpc"]);
    assert!(names_path("cd /srv/x", "/srv/") && !names_path("https://example.org/srv/x", "/srv/"));
    let lock = |path: &str, text: &str| lock_faults(&Source::new(path.to_owned(), text.to_owned())).len();
    assert_eq!(lock("Cargo.lock", "source = \"registry+https://github.com/rust-lang/crates.io-index\"\n"), 0);
    assert_eq!(lock("Cargo.lock", "source = \"registry+https://mirror.example.net/index\"\n"), 1);
    assert_eq!(lock("a/package-lock.json", "\"resolved\": \"https://registry.npmjs.org/x.tgz\"\n"), 0);
    assert_eq!(lock("a/package-lock.json", "\"resolved\": \"https://npm.example.net/x.tgz\"\n"), 1);
    assert_eq!(module_name("src/builder/core.rs"), "builder::core");
    assert_eq!(module_name("src/chain/mod.rs"), "chain");
    assert_eq!(module_name("src/lib.rs"), "lib");
}
