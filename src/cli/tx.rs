//! `sequencer tx decode`: a signed transaction of any type, in JSON, or what is wrong with it; of an ExecuteTx also what it proves.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use alloy_consensus::transaction::Transaction as _;
use alloy_consensus::{SignableTransaction as _, TxEnvelope};
use alloy_eips::eip2718::{Decodable2718 as _, Encodable2718 as _};
use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::{Value, json};

use crate::codec::hex;
use crate::codec::transaction;
use crate::config::genesis::ChainSpec;
use crate::crypto::keccak::keccak256;
use crate::crypto::recovery::{RecoverItem, check_ranges, recover};
use crate::l1::execute_tx::{EXECUTE_TX_TYPE, ExecuteTx};
use crate::l1::profile::Profile;
use crate::primitives::{Address, B256};
use crate::rpc::encode;
use crate::rpc::source::TxView;
use crate::settlement::strict::{self, NoOrigins, Proof};

/// EIP-4844.
const BLOB_TX_TYPE: u8 = 0x03;
/// Digits that are read from standard input: a transaction of 16 MiB, far above what any pool takes.
const INPUT_BYTES_MAX: u64 = 32 * 1_048_576;
/// Members of the RPC's object that say where a transaction was mined.
const PLACE_MEMBERS: [&str; 4] = ["blockHash", "blockNumber", "blockTimestamp", "transactionIndex"];

pub fn command() -> Command {
    Command::new("tx").about("Looks at one transaction").subcommand_required(true).arg_required_else_help(true).subcommand(
        Command::new("decode")
            .about("Prints a signed transaction of any type, ExecuteTx included, as JSON; exit 1 and what is wrong with it")
            .arg(Arg::new("raw").value_name("HEX|-").required(true).help("0x and its EIP-2718 bytes; - reads them from standard input"))
            .arg(
                Arg::new("format")
                    .long("format")
                    .value_parser(Profile::ALL.map(Profile::name))
                    .default_value(Profile::default().name())
                    .help("Format of an ExecuteTx"),
            )
            .arg(
                Arg::new("check")
                    .long("check")
                    .action(ArgAction::SetTrue)
                    .requires("l2-genesis")
                    .help("Executes the batch of an ExecuteTx, and adds what it proves; exit 1 and the code of its first defect"),
            )
            .arg(
                Arg::new("l2-genesis")
                    .long("l2-genesis")
                    .value_name("FILE")
                    .value_parser(value_parser!(PathBuf))
                    .requires("check")
                    .help("Genesis in go-ethereum's JSON format: the rules that --check knows"),
            ),
    )
}

pub fn run(matches: &ArgMatches) -> Result<()> {
    let (_, matches) = matches.subcommand().context("decode")?;
    let text = match matches.get_one::<String>("raw").context("a transaction, or -")?.as_str() {
        "-" => read_input()?,
        text => text.to_owned(),
    };
    let profile: Profile = matches.get_one::<String>("format").context("--format")?.parse()?;
    let raw = hex::parse_data(text.trim())?;
    let mut object = decode(&raw, profile)?;
    if matches.get_flag("check") {
        let spec = spec(matches.get_one::<PathBuf>("l2-genesis").context("--l2-genesis FILE")?)?;
        object["proof"] = check(&spec, &raw, profile)?;
    }
    println!("{}", serde_json::to_string_pretty(&object)?);
    Ok(())
}

fn spec(path: &Path) -> Result<ChainSpec> {
    let text = std::fs::read_to_string(path).with_context(|| format!("genesis file {}", path.display()))?;
    ChainSpec::from_json(&text).with_context(|| format!("genesis file {}", path.display()))
}

/// What an ExecuteTx proves by itself: no L1 is asked, so what it says of its origins is taken.
fn check(spec: &ChainSpec, raw: &[u8], profile: Profile) -> Result<Value> {
    ensure!(raw.first() == Some(&EXECUTE_TX_TYPE), "--check is for an ExecuteTx: other types prove nothing");
    let tx = ExecuteTx::decode(raw, profile)?;
    let proof = strict::check(spec, &tx.payload, &NoOrigins);
    let proof = proof.map_err(|defect| anyhow!("{code}: {defect}", code = defect.code()))?;
    Ok(proof_object(&proof))
}

fn proof_object(proof: &Proof) -> Value {
    let block = |block: &strict::ProvedBlock| {
        json!({
            "number": block.number,
            "hash": block.hash,
            "originNumber": block.origin.number,
            "originHash": block.origin.hash,
            // Of a block that is not whole in here the hash is what the batch says.
            "whole": block.header.is_some(),
        })
    };
    let segment = |segment: &strict::ProvedSegment| {
        json!({
            "blockNumber": segment.block_number,
            "preStateRoot": segment.pre_state_root,
            "postStateRoot": segment.post_state_root,
            "transactions": segment.tx_count,
            "gasUsed": segment.gas_used,
        })
    };
    json!({
        "batchIndex": proof.batch_index,
        "previousDigest": proof.previous_digest,
        "digest": proof.digest,
        "preStateRoot": proof.pre_state_root,
        "postStateRoot": proof.post_state_root,
        "blocks": proof.blocks.iter().map(block).collect::<Vec<_>>(),
        "segments": proof.segments.iter().map(segment).collect::<Vec<_>>(),
    })
}

fn read_input() -> Result<String> {
    let mut text = String::new();
    let read = std::io::stdin().take(INPUT_BYTES_MAX + 1).read_to_string(&mut text).context("standard input")?;
    ensure!(read as u64 <= INPUT_BYTES_MAX, "standard input has more than {INPUT_BYTES_MAX} bytes");
    Ok(text)
}

/// Every field of a transaction, with its hash, its signing hash and its sender.
fn decode(raw: &[u8], profile: Profile) -> Result<Value> {
    match raw.first() {
        Some(&EXECUTE_TX_TYPE) => {
            let tx = ExecuteTx::decode(raw, profile)?;
            tx.sender().context("the sender cannot be recovered")?;
            Ok(with_signing_hash(tx.to_json(), tx.signing_hash()))
        }
        Some(&BLOB_TX_TYPE) => decode_blob(raw),
        _ => {
            let decoded = transaction::decode(raw)?;
            let signing_hash = transaction::signing_hash(raw, &decoded, &mut Vec::new());
            let sender = recover(&decoded.recover_item(signing_hash)).context("the sender cannot be recovered")?;
            object(raw, signing_hash, sender)
        }
    }
}

/// A blob transaction without its sidecar: never admitted here, and still a transaction that one may want to look at.
fn decode_blob(raw: &[u8]) -> Result<Value> {
    let envelope = TxEnvelope::decode_2718_exact(raw).context("blob transaction")?;
    let TxEnvelope::Eip4844(signed) = &envelope else { bail!("type 3 did not decode as a blob transaction") };
    ensure!(
        envelope.encoded_2718() == raw,
        "blob transaction: another encoding of the same fields is the canonical one"
    );
    ensure!(
        signed.tx().as_with_sidecar().is_none(),
        "blob transaction with its sidecar: only the form inside blocks is read"
    );
    let signature = signed.signature();
    let (r, s) = (signature.r().to_be_bytes(), signature.s().to_be_bytes());
    check_ranges(&r, &s, u8::from(signature.v()))?;
    let digest = signed.tx().signature_hash();
    let sender = recover(&RecoverItem { digest, r, s, y_parity: u8::from(signature.v()) })?;
    let mut object = object(raw, digest, sender)?;
    object["maxFeePerBlobGas"] = json!(envelope.max_fee_per_blob_gas().map(|wei| format!("{wei:#x}")));
    object["blobVersionedHashes"] = json!(envelope.blob_versioned_hashes());
    Ok(object)
}

fn object(raw: &[u8], signing_hash: B256, sender: Address) -> Result<Value> {
    let mut out = Vec::new();
    let view = TxView { raw, hash: keccak256(raw), sender };
    encode::transaction(&view, None, &mut out).map_err(|error| anyhow::anyhow!(error.message))?;
    let mut object: Value = serde_json::from_slice(&out)?;
    if let Some(members) = object.as_object_mut() {
        PLACE_MEMBERS.iter().for_each(|name| drop(members.remove(*name)));
    }
    Ok(with_signing_hash(object, signing_hash))
}

fn with_signing_hash(mut object: Value, signing_hash: B256) -> Value {
    object["signingHash"] = json!(signing_hash);
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::signing::{self, TestKey};

    fn shown(raw: &[u8]) -> String {
        match decode(raw, Profile::ExecuteTxV2) {
            Ok(object) => object["type"].as_str().unwrap_or("no type").to_owned(),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn every_type_has_hash_signing_hash_and_sender() {
        let key = TestKey::nth(3);
        let blob = alloy_consensus::TxEip4844 {
            chain_id: 1,
            gas_limit: 21_000,
            max_fee_per_gas: 7,
            max_fee_per_blob_gas: 5,
            blob_versioned_hashes: vec![B256::repeat_byte(1)],
            ..Default::default()
        };
        let digest = blob.signature_hash();
        let raw_blob = alloy_consensus::TxEip4844::into_signed(blob, key.sign(digest));
        let raws = [
            key.encode(signing::Legacy { chain_id: Some(1), gas_limit: 21_000, ..Default::default() }),
            key.encode(signing::AccessList { chain_id: 1, gas_limit: 21_000, ..Default::default() }),
            key.transfer(1, 9, Address::ZERO, 5),
            TxEnvelope::from(raw_blob).encoded_2718(),
        ];
        for (index, raw) in raws.iter().enumerate() {
            let object = decode(raw, Profile::ExecuteTxV2).expect("a transaction");
            assert_eq!(object["type"], format!("{index:#x}"));
            assert_eq!(object["from"], json!(key.address));
            assert_eq!(object["hash"], json!(keccak256(raw)));
            assert!(object["signingHash"].is_string() && object.get("blockHash").is_none());
        }
        let blob = decode(&raws[3], Profile::ExecuteTxV2).expect("a transaction");
        assert_eq!((&blob["signingHash"], &blob["maxFeePerBlobGas"]), (&json!(digest), &json!("0x5")));
        assert_eq!(blob["blobVersionedHashes"], json!([B256::repeat_byte(1)]));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut raw = TestKey::nth(3).transfer(1, 9, Address::ZERO, 5);
        assert_eq!(shown(&raw), "0x2");
        raw.push(0);
        assert_eq!(shown(&raw), "1 bytes after the end of the transaction");
        assert_eq!(shown(&[]), "transaction is empty");
        assert_eq!(shown(&[5, 0xc0]), "transaction has 0 items, execute-tx-v2 has 22");
        assert_eq!(shown(&[6]), "transaction type 0x06 is not supported");
        assert!(shown(&[3, 0xc0]).starts_with("blob transaction: "));
    }
}
