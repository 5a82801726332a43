//! `sequencer import`: executes a file of blocks, checks every field of every header, and writes their witnesses.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgMatches, Command, value_parser};

use crate::builder::replay::genesis_block;
use crate::chain::executed_record::{ExecutedRecord, append_executed};
use crate::chain::sealed_record::Recorder;
use crate::chain::{ChainLimits, ChainWriter};
use crate::config::genesis::ChainSpec;
use crate::primitives::Bytes;
use crate::state::Store;
use crate::state::files::file_disk::FileDisk;
use crate::state::files::recovery::StateSettings;
use crate::topology::imported;
use crate::topology::startup::hash_pool;
use crate::witness::import::{Importer, next_block};

pub fn command() -> Command {
    let path = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).value_parser(value_parser!(PathBuf)).help(help)
    };
    Command::new("import")
        .about("Executes a file of blocks over a genesis, checks every header field, and writes witnesses")
        .arg(path("genesis", "FILE", "Genesis in go-ethereum's JSON format").required(true))
        .arg(path("blocks", "FILE.rlp", "RLP of the blocks from block 1 on, one behind the other").required(true))
        .arg(
            path(
                "data-dir",
                "DIR",
                "Where chain database and state are written, in DIR/chain and DIR/state; it must not hold a chain",
            )
            .required(true),
        )
        .arg(path("witness-dir", "OUT", "Where OUT/<number>.rlp is written, the witness of each block"))
}

pub fn run(matches: &ArgMatches) -> Result<()> {
    let path = |name: &str| matches.get_one::<PathBuf>(name);
    let (genesis, blocks) = (path("genesis").context("--genesis FILE")?, path("blocks").context("--blocks FILE.rlp")?);
    let text = std::fs::read_to_string(genesis).with_context(|| format!("genesis file {}", genesis.display()))?;
    let spec = ChainSpec::from_json(&text).with_context(|| format!("genesis file {}", genesis.display()))?;
    let file = Bytes::from(std::fs::read(blocks).with_context(|| blocks.display().to_string())?);
    let witness_dir = path("witness-dir");
    if let Some(dir) = witness_dir {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    let data_dir = path("data-dir").context("--data-dir DIR")?;
    import(&spec, &file, data_dir, witness_dir.map(PathBuf::as_path))
}

fn import(spec: &ChainSpec, file: &Bytes, data_dir: &Path, witness_dir: Option<&Path>) -> Result<()> {
    let (mut writer, reader) = ChainWriter::open(&data_dir.join("chain"), ChainLimits::default())?;
    if let Some(newest) = reader.latest_number() {
        bail!("{} holds a chain up to block {newest}", data_dir.display());
    }
    let disk = FileDisk::open(&data_dir.join("state"), true)?;
    let mut store = Store::open(Arc::new(hash_pool(0)?), Box::new(disk), StateSettings::default())?;
    if let Some(newest) = store.newest() {
        bail!("{} holds a state of block {}", data_dir.display(), newest.stamp().number);
    }
    let mut syncer = store.take_syncer().context("a new store has its syncer")?;
    let genesis = genesis_block(spec, &mut store)?;
    writer.append(&Recorder::default().record(&genesis).0)?;
    let mut importer = Importer::new(spec, &mut store, &genesis);
    let (mut offset, mut count) = (0, 0_u64);
    let mut newest = None;
    let mut has_withdrawals = false;
    while let Some(bytes) = next_block(file, offset)? {
        let imported = importer.block(&bytes).with_context(|| format!("block {} of the file", count + 1))?;
        let header = &imported.block.header;
        let witness = imported.witness.encode();
        let (nodes, codes, bytes_out) = (imported.witness.state.len(), imported.witness.codes.len(), witness.len());
        if let Some(dir) = witness_dir {
            let path = dir.join(format!("{}.rlp", header.number));
            std::fs::write(&path, &witness).with_context(|| path.display().to_string())?;
        }
        let block = &imported.block;
        let record = ExecutedRecord {
            header,
            hash: block.hash,
            txs: &block.transactions,
            withdrawals: &block.withdrawals,
            receipts: &imported.executed.receipts,
            requests: &imported.executed.requests,
        };
        append_executed(&mut writer, &record)?;
        let (number, hash, root) = (header.number, imported.block.hash, header.state_root);
        println!("block {number} {hash} root {root} witness {bytes_out} bytes, {nodes} nodes, {codes} codes");
        has_withdrawals |= !block.withdrawals.is_empty();
        newest = Some((number, hash));
        offset += bytes.len();
        count += 1;
    }
    // The state may lag the chain database, never lead it.
    writer.sync()?;
    syncer.sync(u64::MAX)?;
    if let Some((number, hash)) = newest.filter(|_| !has_withdrawals) {
        imported::write(data_dir, number, hash).with_context(|| data_dir.display().to_string())?;
    }
    println!("imported {count} blocks");
    Ok(())
}
