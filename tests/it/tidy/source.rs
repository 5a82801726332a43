//! A Rust file as the rules see it: the text, the code without comments and literals, and which lines only tests compile.

use std::path::Path;

/// One file of the repository.
pub struct Source {
    /// Relative to the repository root, with `/`.
    pub path: String,
    pub text: String,
    /// `text` with comments, strings and characters replaced by spaces; same length and lines. Empty unless the file is Rust.
    pub code: String,
    /// Per line: compiled for tests only.
    is_test: Vec<bool>,
}

impl Source {
    /// A file of the repository; `None` when it is not text.
    pub fn read(root: &Path, path: &Path) -> Option<Self> {
        let text = String::from_utf8(std::fs::read(path).expect("a file that was just listed")).ok()?;
        let path = path.strip_prefix(root).expect("listed below the root").to_str()?.replace('\\', "/");
        Some(Self::new(path, text))
    }

    pub fn new(path: String, text: String) -> Self {
        let code = if path.ends_with(".rs") { blank(&text) } else { String::new() };
        let is_test = test_lines(&code);
        Self { path, text, code, is_test }
    }

    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Lines of code that the product compiles, with their numbers from 1.
    pub fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.code.lines().enumerate();
        lines.filter(|(index, _)| !self.is_test[*index]).map(|(index, line)| (index + 1, line))
    }

    /// Names of modules that this file declares for tests only.
    pub fn test_modules(&self) -> impl Iterator<Item = &str> {
        let lines = self.code.lines().enumerate();
        lines.filter(|(index, _)| self.is_test[*index]).filter_map(|(_, line)| {
            let rest = line.trim().strip_suffix(';')?;
            rest.strip_prefix("pub(crate) ").unwrap_or(rest).strip_prefix("mod ")
        })
    }

    /// Every function with a body: first line from 1, name, lines from signature to closing brace.
    pub fn functions(&self) -> Vec<(usize, String, usize)> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("fn ") {
            let is_word = at == 0 || !is_identifier(self.code.as_bytes()[at - 1]);
            let name: String = self.code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if !is_word || name.is_empty() {
                continue;
            }
            if let Some((_, end)) = body(&self.code, at) {
                let start_line = line_of(&self.code, at);
                found.push((start_line, name, line_of(&self.code, end) + 1 - start_line));
            }
        }
        found
    }
}

fn is_identifier(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// Where the body of the item that starts at `at` opens and closes; `None` when a `;` ends the item first.
fn body(code: &str, at: usize) -> Option<(usize, usize)> {
    let bytes = code.as_bytes();
    let (mut depth, mut open) = (0_i32, None);
    for (index, byte) in bytes.iter().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' => {
                if depth == 0 && open.is_none() {
                    open = Some(index);
                }
                depth += 1;
            }
            b'}' => {
                depth -= 1;
                if depth == 0 && open.is_some() {
                    return open.map(|open| (open, index));
                }
            }
            b';' if depth == 0 && open.is_none() => return None,
            _ => {}
        }
    }
    None
}

/// Marks the lines of every item under `#[cfg(test)]`.
fn test_lines(code: &str) -> Vec<bool> {
    let mut marks = vec![false; code.lines().count()];
    for attribute in ["#[cfg(test)]", "#[cfg(all(test"] {
        for (at, _) in code.match_indices(attribute) {
            let item = at + code[at..].find(']').expect("an attribute ends");
            let end = body(code, item + 1).map_or_else(
                || item + code[item..].find(';').expect("an item without a body ends with a semicolon"),
                |(_, end)| end,
            );
            for mark in &mut marks[line_of(code, at) - 1..line_of(code, end)] {
                *mark = true;
            }
        }
    }
    marks
}

/// Replaces comments and the inside of literals by spaces.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = skip(bytes, at);
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(out).expect("whole literals and comments became ASCII")
}

/// The end of the comment or literal that starts at `at`; `at` when none does.
fn skip(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let after_word = at > 0 && is_identifier(bytes[at - 1]);
    match rest {
        [b'/', b'/', ..] => at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => at + find(rest, b"*/").unwrap_or(rest.len()),
        [b'"', ..] => at + string_bytes(rest),
        [b'r', b'"' | b'#', ..] if !after_word => at + raw_string_bytes(&rest[1..]).map_or(0, |bytes| bytes + 1),
        [b'b', b'r', b'"' | b'#', ..] if !after_word => at + raw_string_bytes(&rest[2..]).map_or(0, |bytes| bytes + 2),
        [b'\'', b'\\', ..] => at + 2 + rest[3..].iter().position(|byte| *byte == b'\'').map_or(0, |index| index + 2),
        // A character is one to four bytes between quotes; anything else is a lifetime.
        [b'\'', ..] => at + (2..=5).find(|index| rest.get(*index) == Some(&b'\'')).map_or(0, |index| index + 1),
        _ => at,
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle).map(|index| index + needle.len())
}

fn string_bytes(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += 1 + usize::from(rest[at] == b'\\');
    }
    (at + 1).min(rest.len())
}

/// `rest` starts behind the `r`; `None` when this is a raw identifier.
fn raw_string_bytes(rest: &[u8]) -> Option<usize> {
    let hashes = rest.iter().take_while(|byte| **byte == b'#').count();
    (rest.get(hashes) == Some(&b'"')).then_some(())?;
    let end = [b"\"".as_slice(), &rest[..hashes]].concat();
    find(&rest[hashes + 1..], &end).map(|index| index + hashes + 1)
}

#[test]
fn comments_and_literals_are_not_code() {
    let check = |text: &str, expected: &str| assert_eq!(blank(text).split_whitespace().collect::<String>(), expected);
    check("a // b", "a");
    check("a /* b */ c", "ac");
    check("a(\"b \\\" c\", 'd', '\\'', 'ä')", "a(,,,)");
    check("fn f<'a>(x: &'a str)", "fnf<'a>(x:&'astr)");
    check("r#\"x \" y\"# z br\"q\"", "z");
}

#[test]
fn test_items_and_function_lengths_are_seen() {
    let text = "fn a() {\n}\n#[cfg(test)]\nmod tests {\n    fn b(x: [u8; 2]) {\n        c();\n    }\n}\n#[cfg(test)]\nmod more;\nfn d();\n";
    let source = Source::new("x.rs".to_owned(), text.to_owned());
    let lines: Vec<usize> = source.product_lines().map(|(number, _)| number).collect();
    assert_eq!(lines, [1, 2, 11]);
    assert_eq!(source.test_modules().collect::<Vec<_>>(), ["more"]);
    assert_eq!(source.functions(), [(1, "a".to_owned(), 2), (5, "b".to_owned(), 3)]);
}
