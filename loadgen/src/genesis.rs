//! Accounts that need no funding: seed → entries of a genesis file.
//!
//! For nodes that make no blocks while they are measured (admission only): their accounts must have money from the start.

use alloy_primitives::U256;
use serde_json::{Map, Value, json};

use crate::cli::AccountsArgs;
use crate::error::{Error, Result};
use crate::workload::accounts::Account;

/// The genesis file with the accounts of the seed in its `alloc`; without a file, the entries alone.
pub fn render(args: &AccountsArgs) -> Result<String> {
    let balance = format!("{:#x}", U256::from(args.balance) * U256::from(10).pow(U256::from(18)));
    let entries = (0..args.accounts).map(|index| Account::derive(args.seed, index).address);
    let entries = entries.map(|address| (address.to_string(), json!({ "balance": balance })));
    let value = match &args.genesis {
        None => Value::Object(entries.collect()),
        Some(path) => {
            let failed = |reason: String| Error::File { path: path.clone(), reason };
            let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
            let genesis = serde_json::from_str(&text).map_err(|e| failed(e.to_string()))?;
            merge(genesis, entries).ok_or_else(|| failed("not a genesis file: it has no \"alloc\"".into()))?
        }
    };
    Ok(serde_json::to_string_pretty(&value).expect("JSON values have string keys"))
}

/// `None` when there is no `alloc` to add to.
fn merge(mut genesis: Value, entries: impl Iterator<Item = (String, Value)>) -> Option<Value> {
    let alloc: &mut Map<String, Value> = genesis.get_mut("alloc")?.as_object_mut()?;
    alloc.extend(entries);
    Some(genesis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_join_those_that_are_there() {
        let genesis = json!({"gasLimit": "0x1", "alloc": {"a": {"balance": "0x1"}}});
        let merged = merge(genesis, [("b".to_owned(), json!({"balance": "0x2"}))].into_iter());
        let expected = json!({"gasLimit": "0x1", "alloc": {"a": {"balance": "0x1"}, "b": {"balance": "0x2"}}});
        assert_eq!(merged, Some(expected));
        assert_eq!(merge(json!({}), [].into_iter()), None);
    }

    #[test]
    fn accounts_are_those_of_the_workload() {
        let text = render(&AccountsArgs { accounts: 2, seed: 7, balance: 3, genesis: None }).unwrap();
        let entries: Map<String, Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(entries.len(), 2);
        let address = Account::derive(7, 1).address.to_string();
        assert_eq!(entries[&address]["balance"], "0x29a2241af62c0000");
    }
}
