//! `sequencer verify` as its user meets it: files, one line of answer, an exit status.

use std::fs;
use std::process::Output;

use alloy_primitives::hex;

use super::process::TempFolder;
use super::sequencer::command;
use crate::stateless::Vectors;

/// Runs `verify` on files with these contents.
fn verify(genesis: &str, block: &[u8], witness: &[u8], flags: &[&str]) -> Output {
    let folder = TempFolder::new("verify");
    let mut command = command();
    command.arg("verify");
    for (name, bytes) in [("genesis", genesis.as_bytes()), ("block", block), ("witness", witness)] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("the folder is writable");
        command.arg(format!("--{name}")).arg(path);
    }
    command.args(flags).output().expect("our binary starts")
}

#[test]
fn verify_prints_the_roots_or_what_is_wrong() {
    let vectors = Vectors::load();
    for (name, block, witness) in &vectors.blocks {
        for flags in [&[][..], &["--canonical"]] {
            let output = verify(&vectors.genesis, block, witness, flags);
            let shown = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            for field in ["block ", "state root 0x", "receipts root 0x", "gas used "] {
                assert!(shown.contains(field), "{name}: {shown}");
            }
        }
    }
    let (_, block, witness) = &vectors.blocks[0];
    let refused = |genesis: &str, block: &[u8], witness: &[u8], flags: &[&str], expected: &str| {
        let output = verify(genesis, block, witness, flags);
        let shown = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{shown}");
        assert!(shown.contains(expected), "{expected} is not in: {shown}");
        assert!(output.stdout.is_empty());
    };
    refused(&vectors.genesis, &block[1..], witness, &[], "block_rlp");
    refused(&vectors.genesis, block, &witness[1..], &[], "witness_rlp");
    refused(&vectors.genesis, block, hex::encode(witness).as_bytes(), &[], "witness_rlp");
    refused(&vectors.genesis, block, &vectors.blocks[1].2, &[], "parent_missing");
    refused("{}", block, witness, &[], "genesis file");
}
