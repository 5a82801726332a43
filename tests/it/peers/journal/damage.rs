//! A journal that is not as it was written: the start and the command say where.

use std::fs;
use std::path::Path;

use alloy_primitives::hex;
use serde_json::json;

use super::super::process::TempFolder;
use super::super::sequencer::{Sequencer, data_of};
use super::{Draft, await_receipts, dev_accounts, journal_command, send, verify};

/// Where the first group's records begin: one block of segment header, 128 bytes of group header.
const FIRST_RECORD: usize = 4_096 + 128;
/// The journal's id in a segment header.
const ID: std::ops::Range<usize> = 16..32;

/// A stopped node's folder with a few blocks.
fn stopped() -> TempFolder {
    let sequencer = Sequencer::start_in(TempFolder::new("damage"), "osaka", &["--block.interval-ms", "50"]);
    let mut accounts = dev_accounts();
    for nonce in 0..4 {
        let hash = send(&sequencer.rpc, &Draft::transfer(nonce).sign(&mut accounts[0]));
        await_receipts(&sequencer.rpc, &[hash]);
    }
    sequencer.stop()
}

#[test]
fn a_damaged_journal_refuses_to_start() {
    let _turn = super::super::turn();
    let folder = stopped();
    let data = data_of(&folder);
    let slot = data.join("journal").join("slot-0000");
    let good = fs::read(&slot).expect("the first slot is there");
    check_inspect(&data, &good[ID]);

    let mut damaged = good.clone();
    damaged[FIRST_RECORD + 40] ^= 0x10;
    fs::write(&slot, &damaged).expect("the folder is writable");
    let place = "journal segment 0 (slot 0) is damaged at byte 4096";
    let text = Sequencer::start_refused(&folder, "osaka", &[]);
    assert!(text.contains(place), "{place:?} is not in: {text}");
    for name in ["verify", "inspect"] {
        let output = journal_command(name, &data, &[]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name} of a damaged journal: {text}");
        assert!(text.contains(place), "{name}: {place:?} is not in: {text}");
    }
    assert_eq!(fs::read(&slot).expect("it is there"), damaged, "a refused start changed the journal");

    // The same bytes as before, and everything is as it was.
    fs::write(&slot, &good).expect("the folder is writable");
    verify(&data, &[]);
    let sequencer = Sequencer::start_in(folder, "osaka", &[]);
    assert_eq!(sequencer.rpc.quantity("eth_blockNumber", json!([])), 4);
    let folder = sequencer.stop();

    // A chain without its journal.
    fs::remove_dir_all(data.join("journal")).expect("the folder is writable");
    let text = Sequencer::start_refused(&folder, "osaka", &[]);
    assert!(text.contains("holds no journal, the chain database has 4 blocks"), "{text}");
}

/// `inspect` says what there is, and not the name that tells this journal's groups from forged ones.
fn check_inspect(data: &Path, id: &[u8]) {
    let output = journal_command("inspect", data, &[]);
    let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
    assert!(output.status.success(), "inspect: {}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    for part in ["records:", "4 admitted", "4 sealed", "blocks: 4 (1 to 4)", "segments: 1"] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    assert!(id.iter().any(|byte| *byte != 0), "a journal has an id");
    let verified = journal_command("verify", data, &[]);
    let text = text + &String::from_utf8_lossy(&verified.stdout).to_lowercase();
    // As it lies there, and as a number would be printed.
    let reversed: Vec<u8> = id.iter().rev().copied().collect();
    for bytes in [id, &reversed[..]] {
        assert!(!text.contains(&hex::encode(bytes)), "the journal's id is shown: {text}");
        let number = bytes.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
        assert!(!text.contains(&number.to_string()), "the journal's id is shown: {text}");
    }
}
