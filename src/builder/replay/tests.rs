use std::path::PathBuf;

use super::*;
use crate::chain::sealed_record::Recorder;
use crate::chain::{ChainLimits, ChainWriter};
use crate::config::genesis::{DEV_ACCOUNTS, dev_genesis};
use crate::primitives::Fork;
use crate::state::Store;
use crate::testing::bench_chain::BenchChain;
use crate::testing::signing::TestKey;

struct TestDir(PathBuf);

impl TestDir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("sequencer-replay-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a temporary directory");
        Self(dir)
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn store() -> Store {
    crate::testing::state_disk::store(Arc::new(
        rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread"),
    ))
}

/// Three blocks of transfers on disk, and the hash of the last.
fn write_chain(dir: &TestDir, spec: &ChainSpec) -> B256 {
    let (mut writer, _) = ChainWriter::open(&dir.0, ChainLimits::default()).expect("an empty directory");
    let mut recorder = Recorder::default();
    let mut chain = BenchChain::new(spec.clone());
    writer.append(&recorder.record(&chain.core.heads().latest).0).expect("block 0");
    let keys: Vec<TestKey> = DEV_ACCOUNTS.iter().map(|(_, secret)| TestKey::from_hex(secret)).collect();
    let mut last = B256::ZERO;
    for nonce in 0..3 {
        chain.advance(1_000_000_000);
        for key in &keys {
            chain.submit(&key.transfer(spec.chain_id, nonce, Address::repeat_byte(nonce as u8 + 1), 5));
        }
        let sealed = chain.finish_block();
        last = sealed.hash;
        writer.append(&recorder.record(&sealed).0).expect("the next block");
    }
    last
}

fn replay(
    spec: &ChainSpec,
    reader: &ChainReader,
    store: &mut Store,
    genesis: SealedBlock,
) -> Result<(Vec<Arc<SealedBlock>>, World), ReplayError> {
    let mut replay = Replay::new(spec, store, genesis);
    replay.stored(reader)?;
    Ok(replay.into_parts())
}

#[test]
fn a_stored_chain_is_executed_again_to_the_same_hashes() {
    let dir = TestDir::new("same");
    let spec = dev_genesis(Fork::Osaka, 10).expect("built in");
    let last = write_chain(&dir, &spec);
    let (_writer, reader) = ChainWriter::open(&dir.0, ChainLimits::default()).expect("what was written opens");
    let mut store = store();
    let genesis = genesis_block(&spec, &mut store).expect("commits");
    let (recent, mut world) = replay(&spec, &reader, &mut store, genesis).expect("the same chain");
    assert_eq!(recent.len(), 4);
    assert_eq!(recent[3].hash, last);
    assert_eq!(world.account(Address::repeat_byte(3)).expect("readable").balance_wei, 50);
}

#[test]
fn other_rules_are_found_out_at_the_first_block_that_differs() {
    let dir = TestDir::new("differs");
    let spec = dev_genesis(Fork::Osaka, 10).expect("built in");
    write_chain(&dir, &spec);
    let (_writer, reader) = ChainWriter::open(&dir.0, ChainLimits::default()).expect("what was written opens");
    let other = dev_genesis(Fork::Osaka, 11).expect("built in");
    let mut store = store();
    let genesis = genesis_block(&other, &mut store).expect("commits");
    let error = replay(&other, &reader, &mut store, genesis).err().expect("another state");
    assert!(matches!(error, ReplayError::HashDiffers { number: 1, .. }), "{error}");
}

/// A start goes on from the newest version below the newest block, and executes that one block only.
#[test]
fn a_start_goes_on_from_the_state_files() {
    use crate::state::files::FileStore;
    use crate::state::files::recovery::StateSettings;
    use crate::testing::state_disk::StateDisk;

    let dir = TestDir::new("resume");
    let spec = dev_genesis(Fork::Osaka, 10).expect("built in");
    let last = write_chain(&dir, &spec);
    let (_writer, reader) = ChainWriter::open(&dir.0, ChainLimits::default()).expect("what was written opens");
    let disk = StateDisk::new(1);
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread"));
    let settings = StateSettings { segment_bytes: 1 << 20, range_bytes: 1 << 30 };
    let open = || FileStore::open(Arc::clone(&pool), Box::new(disk.clone()), settings).expect("what was written opens");
    let mut store = open();
    assert!(newest_base(store.retained_versions().rev(), &reader, 3).expect("readable").is_none());
    let genesis = genesis_block(&spec, &mut store).expect("commits");
    replay(&spec, &reader, &mut store, genesis).expect("the same chain");
    assert!(store.take_syncer().expect("it is there").sync(u64::MAX).expect("the disk works"));
    drop(store);

    let mut store = open();
    let base = |tip| newest_base(store.retained_versions().rev(), &reader, tip).expect("readable");
    assert_eq!(base(2).map(|base| base.header.number), Some(1), "blocks above 2 were rolled back");
    assert!(base(0).is_none());
    let base = base(3).expect("the version after block 2");
    assert_eq!(base.header.number, 2);
    let mut resumed = Replay::resume(&spec, &mut store, base, &reader).expect("its hashes are stored");
    resumed.stored(&reader).expect("the same chain");
    let (recent, mut world) = resumed.into_parts();
    assert_eq!(recent.len(), 1);
    assert_eq!((recent[0].header.number, recent[0].hash), (3, last));
    assert_eq!(recent[0].block.transactions.len(), 10);
    assert_eq!(world.account(Address::repeat_byte(3)).expect("readable").balance_wei, 50);
    assert_eq!(genesis_root(&spec, pool).expect("commits"), spec_root(&spec));
}

/// Blocks are taken back: from a version of the state that is still there, and from block 0 where none is.
#[test]
fn a_replay_goes_back_and_forward_again() {
    let dir = TestDir::new("back");
    let spec = dev_genesis(Fork::Osaka, 10).expect("built in");
    let last = write_chain(&dir, &spec);
    let (mut writer, reader) = ChainWriter::open(&dir.0, ChainLimits::default()).expect("what was written opens");
    let mut blocks = Vec::new();
    for number in 0..=3 {
        reader
            .visit(number, &mut |header, hash, txs| {
                let txs = txs.map(|tx| tx.map(|tx| (tx.raw.to_vec(), tx.hash, tx.sender)));
                blocks.push((header.clone(), *hash, txs.collect::<Result<Vec<_>, _>>()?));
                Ok(())
            })
            .expect("stored");
    }
    let mut store = store();
    let genesis = genesis_block(&spec, &mut store).expect("commits");
    let (recent, world) = replay(&spec, &reader, &mut store, genesis).expect("the same chain");
    let cells = store.cells();
    let mut replay = Replay::over(&spec, &mut store, world, recent);
    for (to, has_base) in [(2, true), (2, false), (1, true), (0, false)] {
        writer.truncate_to(to).expect("written");
        let versions = cells.retained_versions();
        let base = newest_base(versions.iter().rev(), &reader, to).expect("readable").filter(|_| has_base);
        assert_eq!(base.is_some(), has_base);
        replay.restart(base, &reader).expect("the same chain");
        let tip = replay.tip();
        assert_eq!((tip.header.number, tip.hash), (to, blocks[to as usize].1));
        assert_eq!(tip.block.transactions.len(), if to == 0 { 0 } else { 10 }, "a whole block");
        for (header, hash, txs) in &blocks[to as usize + 1..] {
            let mut views =
                txs.iter().map(|(raw, hash, sender)| Ok(StoredTxView { raw, hash: *hash, sender: *sender }));
            let sealed = replay.execute(header, &mut views).expect("the same block");
            assert_eq!(sealed.hash, *hash);
            writer.append(&Recorder::default().record(&sealed).0).expect("the next block");
            replay.remember(sealed).expect("kept");
        }
        assert_eq!((replay.tip().hash, reader.latest_number()), (last, Some(3)));
    }
}

/// The state root that the stored block 0 has.
fn spec_root(spec: &ChainSpec) -> B256 {
    genesis_block(spec, &mut store()).expect("commits").header.state_root
}
