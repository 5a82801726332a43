//! `docs/RPC.md` names every method with the thread that answers it, and no other.

use crate::rpc::Method;

const DOCUMENT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/RPC.md"));

#[test]
fn the_document_equals_the_table() {
    let mut documented: Vec<(&str, &str)> = Vec::new();
    for line in DOCUMENT.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 4, "a row has method, mode, parameters, result: {line}");
        documented.push((cells[0].trim_matches('`'), cells[1]));
    }
    let mut served: Vec<(&str, &str)> =
        Method::ALL.iter().map(|method| (method.name(), method.class().name())).collect();
    documented.sort_unstable();
    served.sort_unstable();
    assert_eq!(documented, served);
}
