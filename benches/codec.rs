//! Cost of each step from the bytes of a request to a sender, and R: one bare libsecp256k1 recovery.
//!
//! One transfer (type 2, about 117 bytes) sent as wallets send it. `cargo bench --bench codec`; `cargo test --benches` runs
//! each step once. Batch figures are per item (criterion: divide by the element count it prints the throughput for).

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::hint::black_box;
use std::time::Duration;

use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Signature, TxKind};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use native_sequencer::codec::{hex, json_rpc, transaction};
use native_sequencer::crypto::recovery::{self, RecoverError, RecoverItem, recover_batch, recover_one_by_one};
use native_sequencer::primitives::{Address, U256};
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{Message, SECP256K1, SecretKey};

const BATCH_ITEMS: usize = 100;
/// Signatures of a batch: what a shard brings in a turn, from a lone batch to a full turn.
const RECOVER_ITEMS: [usize; 7] = [3, 8, 16, 32, 64, 128, 256];

/// A signed transfer with this nonce.
fn transfer(nonce: u64) -> Vec<u8> {
    let tx = TxEip1559 {
        chain_id: 61972,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 2_000_000_000,
        max_priority_fee_per_gas: 1_000_000_000,
        to: TxKind::Call(Address::repeat_byte(0x42)),
        value: U256::from(1_000_000_000_000_000_000_u64),
        ..Default::default()
    };
    let key = SecretKey::from_byte_array([0x11; 32]).unwrap();
    let signed = SECP256K1.sign_ecdsa_recoverable(Message::from_digest(tx.signature_hash().0), &key);
    let (recovery_id, compact) = signed.serialize_compact();
    let signature = Signature::from_bytes_and_parity(&compact, recovery_id == RecoveryId::One);
    TxEnvelope::from(tx.into_signed(signature)).encoded_2718()
}

fn request(nonce: u64) -> String {
    let raw = alloy_primitives::hex::encode_prefixed(transfer(nonce));
    format!(r#"{{"jsonrpc":"2.0","method":"eth_sendRawTransaction","params":["{raw}"],"id":{nonce}}}"#)
}

fn json(criterion: &mut Criterion) {
    let single = request(1000);
    let requests: Vec<_> = (1000..1000 + BATCH_ITEMS as u64).map(request).collect();
    let batch = format!("[{}]", requests.join(","));
    let mut group = criterion.benchmark_group("json");
    group.throughput(Throughput::Elements(1));
    group.bench_function("scan_single", |bencher| {
        bencher.iter(|| json_rpc::send_raw_transaction(black_box(single.as_bytes())).unwrap().hex.len());
    });
    group.bench_function("simd_json_single", |bencher| {
        let mut scratch = Vec::new();
        bencher.iter(|| {
            scratch.clear();
            scratch.extend_from_slice(black_box(single.as_bytes()));
            simd_json::to_tape(&mut scratch).unwrap().0.len()
        });
    });
    group.throughput(Throughput::Elements(BATCH_ITEMS as u64));
    group.bench_function("scan_batch_100", |bencher| {
        bencher.iter(|| {
            let Ok(json_rpc::Body::Batch(items)) = json_rpc::parse(black_box(batch.as_bytes()), BATCH_ITEMS) else {
                unreachable!("a batch");
            };
            let sends = items.map(|item| item.unwrap().as_send_raw_transaction().unwrap());
            sends.map(|send| send.hex.len() + send.id.as_bytes().len()).sum::<usize>()
        });
    });
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let raw = transfer(1000);
    let text = alloy_primitives::hex::encode_prefixed(&raw);
    let decoded = transaction::decode(&raw).unwrap();
    let mut group = criterion.benchmark_group("transaction");
    group.bench_function("hex_decode", |bencher| {
        let mut out = [0; 256];
        bencher.iter(|| hex::decode_into(black_box(text.as_bytes()), black_box(&mut out)).unwrap());
    });
    group.bench_function("rlp_decode", |bencher| {
        bencher.iter(|| transaction::decode(black_box(&raw)).unwrap());
    });
    group.bench_function("signing_payload", |bencher| {
        let mut scratch = Vec::new();
        bencher.iter(|| {
            scratch.clear();
            transaction::signing_payload_into(black_box(&raw), &decoded, &mut scratch);
            scratch.len()
        });
    });
    group.bench_function("signing_hash", |bencher| {
        let mut scratch = Vec::new();
        bencher.iter(|| transaction::signing_hash(black_box(&raw), &decoded, &mut scratch));
    });
    group.bench_function("tx_hash", |bencher| bencher.iter(|| transaction::tx_hash(black_box(&raw))));
    group.finish();
}

fn recovery(criterion: &mut Criterion) {
    let items: Vec<RecoverItem> = (0..RECOVER_ITEMS.into_iter().max().unwrap() as u64)
        .map(|nonce| {
            let raw = transfer(nonce);
            let decoded = transaction::decode(&raw).unwrap();
            decoded.recover_item(transaction::signing_hash(&raw, &decoded, &mut Vec::new()))
        })
        .collect();
    let mut group = criterion.benchmark_group("recovery");
    group.throughput(Throughput::Elements(1));
    group.bench_function("R_bare_libsecp256k1", |bencher| {
        let compact: [u8; 64] = [items[0].r, items[0].s].concat().try_into().unwrap();
        let recovery_id = if items[0].y_parity == 0 { RecoveryId::Zero } else { RecoveryId::One };
        bencher.iter(|| {
            let signature = RecoverableSignature::from_compact(black_box(&compact), recovery_id).unwrap();
            SECP256K1.recover_ecdsa(Message::from_digest(items[0].digest.0), &signature).unwrap()
        });
    });
    println!("recover_batch goes by {}", recovery::status().way);
    for count in RECOVER_ITEMS {
        let items = &items[..count];
        let mut senders = vec![Err(RecoverError::NoPublicKey); count];
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("recover_batch_{count}"), |bencher| {
            bencher.iter(|| recover_batch(black_box(items), black_box(&mut senders)));
        });
        group.bench_function(format!("libsecp256k1_batch_{count}"), |bencher| {
            bencher.iter(|| recover_one_by_one(black_box(items), black_box(&mut senders)));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = json, decode, recovery
}
criterion_main!(benches);
