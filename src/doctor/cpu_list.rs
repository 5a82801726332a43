//! The kernel's lists of cores: `0-3,8` in, numbers out.

/// Cores above this are not believed.
const CORES_MAX: usize = 8_192;

/// The cores of a list, ascending as they stand. `None`: no list.
#[must_use]
pub fn parse(text: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= CORES_MAX {
            return None;
        }
        cores.extend(first..=last);
    }
    Some(cores)
}

/// As the kernel writes it: ascending numbers with runs joined.
#[must_use]
pub fn show(cores: &[usize]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut index = 0;
    while index < cores.len() {
        let first = index;
        while index + 1 < cores.len() && cores[index + 1] == cores[index] + 1 {
            index += 1;
        }
        let (from, to) = (cores[first], cores[index]);
        parts.push(if from == to { from.to_string() } else { format!("{from}-{to}") });
        index += 1;
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&[usize]>) {
        assert_eq!(parse(text).as_deref(), expected, "{text}");
        if let Some(cores) = expected {
            assert_eq!(show(cores), text.trim(), "{text}");
        }
    }

    #[test]
    fn lists_of_cores() {
        check("0\n", Some(&[0]));
        check("0-3,8", Some(&[0, 1, 2, 3, 8]));
        check("", Some(&[]));
        check("1,3,5-6", Some(&[1, 3, 5, 6]));
        for text in ["3-1", "x", "1-", "-1", "0-9000", "1;2"] {
            check(text, None);
        }
    }
}
