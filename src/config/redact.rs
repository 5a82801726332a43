//! What may be shown of a setting's value: secrets never are, whoever puts one where it does not belong.
//!
//! No setting holds a secret, only the file that holds one. What is cut all the same: keys that were put there instead of a file, and the parts of
//! a URL where providers put theirs.

use std::borrow::Cow;

/// Stands in the place of what is not shown.
pub const HIDDEN: &str = "<redacted>";
/// Digits of a private key and of the secret shared with an execution client.
const KEY_DIGITS: usize = 64;
/// Settings whose value may look like a key and is public.
const PUBLIC: &[&str] = &["block.extra-data"];

/// The value of the setting `name` as it may be shown.
#[must_use]
pub fn value<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    let digits = value.trim().strip_prefix("0x").unwrap_or_else(|| value.trim());
    let is_key = digits.len() == KEY_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_key && !PUBLIC.contains(&name) { Cow::Borrowed(HIDDEN) } else { urls(value) }
}

/// A list of URLs, or anything else, without what providers put their keys into: user and password, path, query.
#[must_use]
pub fn urls(value: &str) -> Cow<'_, str> {
    if !value.contains("://") {
        return Cow::Borrowed(value);
    }
    let shown: Vec<Cow<'_, str>> = value.split(',').map(url).collect();
    Cow::Owned(shown.join(","))
}

fn url(value: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = value.split_once("://") else { return Cow::Borrowed(value) };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (user, host) = authority.rsplit_once('@').map_or((false, authority), |(_, host)| (true, host));
    if !user && path.len() <= 1 {
        return Cow::Borrowed(value);
    }
    let user = if user { format!("{HIDDEN}@") } else { String::new() };
    let path = if path.len() > 1 { format!("/{HIDDEN}") } else { path.to_owned() };
    Cow::Owned(format!("{scheme}://{user}{host}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, input: &str, expected: &str) {
        assert_eq!(value(name, input), expected, "{name} = {input}");
    }

    #[test]
    fn keys_and_the_secret_parts_of_urls_are_hidden() {
        let key = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
        check("execution.jwt-secret", key, HIDDEN);
        check("execution.jwt-secret", &format!(" 0x{key}\n"), HIDDEN);
        check("execution.jwt-secret", "/etc/sequencer/jwt.hex", "/etc/sequencer/jwt.hex");
        check("block.extra-data", &format!("0x{key}"), &format!("0x{key}"));
        check(
            "block.coinbase",
            "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
            "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
        );
        check("execution.rpc-url", "http://127.0.0.1:8545", "http://127.0.0.1:8545");
        check("execution.rpc-url", "http://127.0.0.1:8545/", "http://127.0.0.1:8545/");
        check("l1.rpc-url", "https://l1.example/v3/0123abcd", "https://l1.example/<redacted>");
        check("l1.rpc-url", "wss://l1.example?key=1", "wss://l1.example/<redacted>");
        check("l1.rpc-url", "https://user:pass@l1.example:8545", "https://<redacted>@l1.example:8545");
        check("l1.rpc-url", "https://a@b@l1.example/x#y", "https://<redacted>@l1.example/<redacted>");
        check("l1.rpc-url", "http://a/k1,http://b", "http://a/<redacted>,http://b");
        check("log.level", "info,native_sequencer::builder=debug", "info,native_sequencer::builder=debug");
    }
}
