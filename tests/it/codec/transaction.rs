//! `codec::transaction` against alloy (decoding, hashes) and revm (intrinsic gas).

use alloy_consensus::transaction::SignerRecoverable;
use alloy_consensus::{
    SignableTransaction, Transaction, TxEip1559, TxEip2930, TxEip4844, TxEip7702, TxEnvelope, TxLegacy,
};
use alloy_eips::eip2718::{Decodable2718, Encodable2718};
use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_eips::eip7702;
use alloy_primitives::{Bytes, Signature, TxKind};
use native_sequencer::codec::transaction::{
    Decoded, Field, RlpFault, TxError, access_list, authorizations, decode, intrinsic_gas, signing_hash, tx_hash,
};
use native_sequencer::crypto::recovery::{GROUP_ORDER, RecoverError, S_MAX, recover_batch};
use native_sequencer::primitives::{Address, B256, Fork, TxType, U256};
use rand::Rng;
use rand::rngs::StdRng;
use revm::primitives::hardfork::SpecId;

use super::{fuzz, mutate};

fn sign(digest: B256, random: &mut StdRng) -> Signature {
    let key = secp256k1::SecretKey::from_byte_array(random.random()).expect("almost every number is a key");
    let signed = secp256k1::SECP256K1.sign_ecdsa_recoverable(secp256k1::Message::from_digest(digest.0), &key);
    let (recovery_id, compact) = signed.serialize_compact();
    Signature::from_bytes_and_parity(&compact, i32::from(recovery_id) & 1 == 1)
}

/// A number of any bit length up to `bits_max`, each length as likely.
fn number(random: &mut StdRng, bits_max: u32) -> U256 {
    let bits = random.random_range(0..=bits_max);
    let number = U256::from_limbs(random.random());
    number.checked_shr(256 - bits as usize).unwrap_or_default()
}

fn number64(random: &mut StdRng) -> u64 {
    number(random, 64).to()
}

fn input(random: &mut StdRng) -> Bytes {
    let length = [0, 1, 2, 31, 32, 33, 55, 56, 57, 200, 300, 5000][random.random_range(0..12)];
    let zeros = random.random_bool(0.5);
    (0..length).map(|_| if zeros && random.random() { 0 } else { random.random() }).collect::<Vec<u8>>().into()
}

fn any_access_list(random: &mut StdRng) -> AccessList {
    let entry = |random: &mut StdRng| AccessListItem {
        address: random.random::<[u8; 20]>().into(),
        storage_keys: (0..random.random_range(0..4)).map(|_| random.random::<[u8; 32]>().into()).collect(),
    };
    AccessList((0..random.random_range(0..4)).map(|_| entry(random)).collect())
}

fn authorization(random: &mut StdRng) -> eip7702::SignedAuthorization {
    let inner = eip7702::Authorization {
        chain_id: number(random, 256),
        address: random.random::<[u8; 20]>().into(),
        nonce: number64(random),
    };
    let y_parity = number(random, 8).to();
    eip7702::SignedAuthorization::new_unchecked(inner, y_parity, number(random, 256), number(random, 256))
}

fn to(random: &mut StdRng) -> TxKind {
    if random.random_bool(0.3) { TxKind::Create } else { TxKind::Call(random.random::<[u8; 20]>().into()) }
}

fn any_transaction(random: &mut StdRng) -> TxEnvelope {
    let chain_id = number64(random);
    let nonce = number64(random).min(u64::MAX - 1);
    let gas_limit = number64(random);
    let value = number(random, 256);
    let input = input(random);
    let max_fee_per_gas: u128 = number(random, 128).to();
    let max_priority_fee_per_gas = number(random, 128).to::<u128>().min(max_fee_per_gas);
    let gas_price = max_fee_per_gas;
    match random.random_range(0..5) {
        0 => finish(TxLegacy { chain_id: None, nonce, gas_price, gas_limit, to: to(random), value, input }, random),
        1 => {
            let chain_id = Some(chain_id);
            finish(TxLegacy { chain_id, nonce, gas_price, gas_limit, to: to(random), value, input }, random)
        }
        2 => {
            let (to, access_list) = (to(random), any_access_list(random));
            finish(TxEip2930 { chain_id, nonce, gas_price, gas_limit, to, value, access_list, input }, random)
        }
        3 => {
            let (to, access_list) = (to(random), any_access_list(random));
            let tx = TxEip1559 {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas,
                max_priority_fee_per_gas,
                to,
                value,
                access_list,
                input,
            };
            finish(tx, random)
        }
        _ => {
            let authorization_list = (0..random.random_range(1..4)).map(|_| authorization(random)).collect();
            let tx = TxEip7702 {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas,
                max_priority_fee_per_gas,
                to: random.random::<[u8; 20]>().into(),
                value,
                access_list: any_access_list(random),
                authorization_list,
                input,
            };
            finish(tx, random)
        }
    }
}

fn finish<T: SignableTransaction<Signature>>(tx: T, random: &mut StdRng) -> TxEnvelope
where
    TxEnvelope: From<alloy_consensus::Signed<T>>,
{
    let signature = sign(tx.signature_hash(), random);
    tx.into_signed(signature).into()
}

/// Every value of an accepted transaction against alloy's.
#[track_caller]
fn check_equal(raw: &[u8], decoded: &Decoded, theirs: &TxEnvelope) {
    let fields = &decoded.fields;
    assert_eq!(fields.tx_type as u8, theirs.tx_type() as u8);
    assert_eq!(fields.chain_id, theirs.chain_id());
    assert_eq!(fields.nonce, theirs.nonce());
    assert_eq!(fields.gas_limit, theirs.gas_limit());
    assert_eq!(fields.max_fee_per_gas_wei, theirs.max_fee_per_gas());
    assert_eq!(
        fields.max_priority_fee_per_gas_wei,
        theirs.max_priority_fee_per_gas().unwrap_or(theirs.max_fee_per_gas())
    );
    assert_eq!(fields.to, theirs.to());
    assert_eq!(fields.value_wei, theirs.value());
    assert_eq!(fields.input.of(raw), &theirs.input()[..]);
    assert_eq!(fields.input_zero_bytes as usize, theirs.input().iter().filter(|byte| **byte == 0).count());
    let ours: Vec<_> = access_list(raw, fields)
        .map(|(address, keys)| AccessListItem { address, storage_keys: keys.collect() })
        .collect();
    assert_eq!(Some(&ours), theirs.access_list().map(|list| &list.0).or(Some(&vec![])));
    assert_eq!(fields.access_list_address_count as usize, ours.len());
    assert_eq!(fields.access_list_slot_count as usize, ours.iter().map(|item| item.storage_keys.len()).sum::<usize>());
    let ours: Vec<_> = authorizations(raw, fields).collect();
    let list = theirs.authorization_list().unwrap_or_default();
    assert_eq!((fields.authorization_count as usize, ours.len()), (list.len(), list.len()));
    for (ours, theirs) in ours.iter().zip(list) {
        assert_eq!((ours.chain_id, ours.address, ours.nonce), (theirs.chain_id, theirs.address, theirs.nonce));
        assert_eq!(ours.y_parity, theirs.y_parity());
        assert_eq!((U256::from_be_bytes(ours.r), U256::from_be_bytes(ours.s)), (theirs.r(), theirs.s()));
        assert_eq!(ours.signing_hash(), theirs.signature_hash());
    }
    let signature = theirs.signature();
    assert_eq!(decoded.signature.r, signature.r().to_be_bytes());
    assert_eq!(decoded.signature.s, signature.s().to_be_bytes());
    assert_eq!(decoded.signature.y_parity, u8::from(signature.v()));
    assert_eq!(tx_hash(raw), *theirs.tx_hash());
    assert_eq!(signing_hash(raw, decoded, &mut b"left over".to_vec()), theirs.signature_hash());
    check_gas(decoded, theirs);
}

#[track_caller]
fn check_gas(decoded: &Decoded, theirs: &TxEnvelope) {
    for (fork, spec) in [(Fork::Prague, SpecId::PRAGUE), (Fork::Osaka, SpecId::OSAKA)] {
        let expected = revm::context_interface::cfg::gas::calculate_initial_tx_gas(
            spec,
            theirs.input(),
            theirs.is_create(),
            u64::from(decoded.fields.access_list_address_count),
            u64::from(decoded.fields.access_list_slot_count),
            u64::from(decoded.fields.authorization_count),
            None,
        );
        let (initial, floor) = intrinsic_gas(&decoded.fields, fork);
        assert_eq!((initial, floor), (expected.initial_total_gas(), expected.floor_gas));
    }
}

/// The sender against k256, and against alloy's own recovery.
#[track_caller]
fn check_sender(raw: &[u8], decoded: &Decoded, theirs: &TxEnvelope) {
    let digest = signing_hash(raw, decoded, &mut Vec::new());
    let mut senders = [Err(RecoverError::NoPublicKey)];
    recover_batch(&[decoded.recover_item(digest)], &mut senders);
    assert_eq!(senders[0].ok(), theirs.recover_signer().ok());
    assert_eq!(senders[0].ok(), theirs.signature().recover_address_from_prehash(&digest).ok());
}

/// What alloy reads from exactly these bytes, if they are the only encoding of it.
fn canonical(raw: &[u8]) -> Option<TxEnvelope> {
    let envelope = TxEnvelope::decode_2718_exact(raw).ok()?;
    (envelope.encoded_2718() == raw).then_some(envelope)
}

/// Rules that alloy leaves to its callers, and their errors.
fn refused_by_policy(theirs: &TxEnvelope) -> bool {
    let signature = theirs.signature();
    let in_range = |number: U256, last: U256| number != U256::ZERO && number <= last;
    theirs.is_eip4844()
        || theirs.nonce() == u64::MAX
        || !in_range(signature.r(), GROUP_ORDER - U256::from(1))
        || !in_range(signature.s(), S_MAX)
        || theirs.max_priority_fee_per_gas().is_some_and(|tip| tip > theirs.max_fee_per_gas())
        || theirs.authorization_list().is_some_and(<[_]>::is_empty)
}

/// Compares one reading; answers whether it was accepted.
#[track_caller]
fn check(raw: &[u8]) -> bool {
    let theirs = canonical(raw);
    match (decode(raw), &theirs) {
        (Ok(decoded), Some(theirs)) => {
            assert!(!refused_by_policy(theirs), "accepted {theirs:?}");
            check_equal(raw, &decoded, theirs);
            true
        }
        (Ok(decoded), None) => panic!("only we accept {decoded:?}: {}", alloy_primitives::hex::encode(raw)),
        (Err(error), Some(theirs)) => {
            assert!(refused_by_policy(theirs), "{error}, but alloy accepts {}", alloy_primitives::hex::encode(raw));
            false
        }
        (Err(_), None) => false,
    }
}

#[test]
fn valid_transactions_equal_alloy() {
    fuzz(1_000, |random| {
        let theirs = any_transaction(random);
        let raw = theirs.encoded_2718();
        let decoded = decode(&raw).unwrap_or_else(|error| panic!("{error}: {theirs:?}"));
        check_equal(&raw, &decoded, &theirs);
        check_sender(&raw, &decoded, &theirs);
    });
}

/// The example of EIP-155.
#[test]
fn the_example_of_eip155() {
    let raw = alloy_primitives::hex!(
        "f86c098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a76400008025a028ef61340bd939bc219\
         5fe537567866003e1a15d3c71ff63e1590620aa636276a067cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83"
    );
    let decoded = decode(&raw).unwrap();
    let fields = decoded.fields;
    assert_eq!((fields.chain_id, fields.nonce, fields.gas_limit), (Some(1), 9, 21_000));
    assert_eq!(fields.to, Some(Address::repeat_byte(0x35)));
    assert_eq!(fields.value_wei, U256::from(10).pow(U256::from(18)));
    let digest = signing_hash(&raw, &decoded, &mut Vec::new());
    let expected = alloy_primitives::b256!("daf5a779ae972f972197303d7b574746c7ef83eadac0f2791ad23db92e4c8e53");
    assert_eq!(digest, expected);
    let mut senders = [Err(RecoverError::NoPublicKey)];
    recover_batch(&[decoded.recover_item(digest)], &mut senders);
    assert_eq!(senders, [Ok(alloy_primitives::address!("9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F"))]);
}

#[test]
fn mutated_transactions_equal_alloy() {
    // Headers, length prefixes and small integers are where the rules are.
    let alphabet = [0, 1, 2, 4, 0x7f, 0x80, 0x81, 0x94, 0xa0, 0xa1, 0xb7, 0xb8, 0xc0, 0xc1, 0xf7, 0xf8, 0xf9, 0xff];
    fuzz(4_000, |random| {
        let valid = any_transaction(random).encoded_2718();
        for _ in 0..8 {
            let mut raw = valid.clone();
            mutate(&mut raw, random, &alphabet);
            check(&raw);
        }
    });
}

/// Mutations that keep the outer list's length right, so that the inner rules are reached.
#[test]
fn mutated_items_equal_alloy() {
    let mut accepted_count = 0;
    fuzz(2_000, |random| {
        let valid = any_transaction(random).encoded_2718();
        let type_bytes = usize::from(valid[0] < 0x80);
        let mut rest = &valid[type_bytes..];
        let header = alloy_rlp::Header::decode(&mut rest).unwrap();
        assert!(header.list);
        for _ in 0..8 {
            let mut items = rest.to_vec();
            let head = items.len().min(60);
            let mut front: Vec<u8> = items.drain(..head).collect();
            mutate(&mut front, random, &[0, 1, 0x7f, 0x80, 0x81, 0x88, 0x89, 0x94, 0x95, 0xa0, 0xa1, 0xb8, 0xc0, 0xc1]);
            let mut raw = valid[..type_bytes].to_vec();
            alloy_rlp::Header { list: true, payload_length: front.len() + items.len() }.encode(&mut raw);
            raw.extend(front);
            raw.extend(items);
            accepted_count += u64::from(check(&raw));
        }
    });
    assert!(accepted_count > 0, "no mutation is accepted: only refusals were compared");
}

#[test]
fn random_bytes_equal_alloy() {
    fuzz(5_000, |random| {
        let length = random.random_range(0..64);
        let mut raw: Vec<u8> = (0..length).map(|_| random.random()).collect();
        check(&raw);
        raw.insert(0, [1, 2, 4, 0xc0 + random.random_range(0..64_u8)][random.random_range(0..4)]);
        check(&raw);
    });
}

#[test]
fn truncated_transactions_are_refused() {
    fuzz(50, |random| {
        let raw = any_transaction(random).encoded_2718();
        for length in 0..raw.len() {
            assert!(decode(&raw[..length]).is_err());
        }
        let longer = [&raw[..], &[0]].concat();
        assert_eq!(decode(&longer), Err(TxError::TrailingBytes { bytes: 1 }));
    });
}

#[test]
fn blobs_and_unknown_types_are_refused() {
    fuzz(1, |random| {
        let blob = TxEip4844 { chain_id: 1, blob_versioned_hashes: vec![B256::ZERO], ..Default::default() };
        let signature = sign(blob.signature_hash(), random);
        let raw = TxEnvelope::from(blob.into_signed(signature)).encoded_2718();
        assert_eq!(decode(&raw), Err(TxError::BlobForbidden));
    });
    assert_eq!(decode(&[]), Err(TxError::Empty));
    for first in 0..=0xbf_u8 {
        let expected = match first {
            1 | 2 | 4 => TxError::Missing { field: Field::Transaction },
            3 => TxError::BlobForbidden,
            5 => TxError::ExecuteTx,
            0..0x80 => TxError::UnsupportedType(first),
            _ => TxError::NotATransaction(first),
        };
        assert_eq!(decode(&[first]), Err(expected));
    }
    assert_eq!(
        TxError::BlobForbidden.to_string(),
        "blob transactions (type 3) are not allowed on a native rollup (EIP-8079)"
    );
}

/// Items of a valid type 2 transfer as raw RLP, for rows that replace one of them.
fn transfer_items() -> Vec<Vec<u8>> {
    let string = |bytes: &[u8]| alloy_rlp::encode(bytes);
    let mut items = vec![
        alloy_rlp::encode(61972_u64),
        alloy_rlp::encode(7_u64),
        alloy_rlp::encode(2_u64),
        alloy_rlp::encode(9_u64),
        alloy_rlp::encode(21000_u64),
        string(&[0x11; 20]),
        alloy_rlp::encode(1000_u64),
        string(&[]),
        vec![0xc0],
    ];
    items.extend([vec![1], string(&[0x22; 32]), string(&[0x33; 32])]);
    items
}

fn assemble(type_byte: Option<u8>, items: &[Vec<u8>]) -> Vec<u8> {
    let mut raw = Vec::from_iter(type_byte);
    alloy_rlp::Header { list: true, payload_length: items.iter().map(Vec::len).sum() }.encode(&mut raw);
    raw.extend(items.concat());
    raw
}

/// Replaces item `index` of a type 2 transfer by raw RLP.
#[track_caller]
fn check_item(index: usize, rlp: &[u8], expected: &str) {
    let mut items = transfer_items();
    items[index] = rlp.to_vec();
    let raw = assemble(Some(2), &items);
    let outcome = decode(&raw).map_or_else(|error| error.to_string(), |_| "ok".to_owned());
    assert_eq!(outcome, expected);
    check(&raw);
}

#[test]
fn item_rules() {
    check_item(0, &[0x00], "chain id has a leading zero byte");
    check_item(0, &[0x81, 0x05], "chain id: a single byte below 0x80 has a length prefix at byte 3");
    check_item(0, &[0x82, 0x00, 0x05], "chain id has a leading zero byte");
    check_item(0, &[0xb8, 0x01, 0xff], "chain id: the length is not in its shortest form at byte 3");
    check_item(0, &[0xb9, 0x00, 0x40], "chain id: the length is not in its shortest form at byte 3");
    check_item(0, &[0x89, 1, 0, 0, 0, 0, 0, 0, 0, 0], "chain id has 9 bytes, at most 8 are allowed");
    check_item(0, &[0xc1, 0x05], "chain id: a list stands where a string is expected at byte 3");
    check_item(1, &alloy_rlp::encode(u64::MAX - 1), "ok");
    check_item(1, &alloy_rlp::encode(u64::MAX), "nonce is 2^64-1, the largest is 2^64-2 (EIP-2681)");
    check_item(2, &alloy_rlp::encode(9_u64), "ok");
    check_item(2, &alloy_rlp::encode(10_u64), "max priority fee per gas 10 is higher than max fee per gas 9");
    check_item(3, &alloy_rlp::encode(u128::MAX), "ok");
    check_item(3, &alloy_rlp::encode(U256::from(1) << 128), "max fee per gas has 17 bytes, at most 16 are allowed");
    check_item(5, &alloy_rlp::encode([0x11_u8; 19].as_slice()), "to has 19 bytes, expected 20");
    check_item(5, &alloy_rlp::encode([0x11_u8; 21].as_slice()), "to has 21 bytes, expected 20");
    check_item(5, &[0x80], "ok");
    check_item(6, &alloy_rlp::encode(U256::MAX), "ok");
    check_item(6, &alloy_rlp::encode([0x11_u8; 33].as_slice()), "value has 33 bytes, at most 32 are allowed");
    check_item(7, &[0xbb, 0xff, 0xff, 0xff, 0xff], "input: the length reaches past the end (68 bytes left) at byte 36");
    check_item(7, &[0xbf; 9], "input: the length reaches past the end (68 bytes left) at byte 36");
    check_item(7, &[0xff; 9], "input: the length reaches past the end (68 bytes left) at byte 36");
    check_item(8, &[0x80], "access list: a string stands where a list is expected at byte 37");
    check_item(8, &[0xc1, 0x80], "access list entry: a string stands where a list is expected at byte 38");
    check_item(8, &[0xc1, 0xc0], "access list address is missing: the list has too few items");
    check_item(9, &[0x80], "ok");
    check_item(9, &[0x02], "signature y parity is 2, expected 0 or 1");
    check_item(9, &[0x82, 1, 1], "y parity has 2 bytes, at most 1 are allowed");
    check_item(10, &[0x80], "signature r is zero or not below the group order");
    check_item(10, &alloy_rlp::encode(GROUP_ORDER), "signature r is zero or not below the group order");
    check_item(10, &alloy_rlp::encode(GROUP_ORDER - U256::from(1)), "ok");
    check_item(11, &[0x80], "signature s is zero");
    check_item(11, &alloy_rlp::encode(S_MAX), "ok");
    check_item(11, &alloy_rlp::encode(S_MAX + U256::from(1)), "signature s is above half the group order (EIP-2)");
    check_item(11, &[1, 1], "transaction has 1 bytes after its last item");
    check_item(11, &[], "s is missing: the list has too few items");
}

#[test]
fn entry_rules() {
    #[track_caller]
    fn check(entry: &[Vec<u8>], expected: TxError) {
        let mut items = transfer_items();
        items[8] = assemble(None, &[assemble(None, entry)]);
        assert_eq!(decode(&assemble(Some(2), &items)), Err(expected));
    }
    let (address, key) = (alloy_rlp::encode(Address::ZERO), alloy_rlp::encode(B256::ZERO));
    let keys = assemble(None, std::slice::from_ref(&key));
    check(std::slice::from_ref(&address), TxError::Missing { field: Field::StorageKeys });
    check(&[address.clone(), keys.clone(), vec![1]], TxError::ExtraItems { field: Field::AccessListEntry, bytes: 1 });
    check(&[key, keys], TxError::Length { field: Field::AccessListAddress, bytes: 32, expected: 20 });
    let short = assemble(None, &[alloy_rlp::encode([1_u8; 31].as_slice())]);
    check(&[address.clone(), short], TxError::Length { field: Field::StorageKey, bytes: 31, expected: 32 });
    let fault = RlpFault::UnexpectedString;
    check(&[address.clone(), address], TxError::Rlp { field: Field::StorageKeys, fault, offset: 60 });
}

#[test]
fn set_code_rules() {
    #[track_caller]
    fn check_list(to: &[u8], list: &[Vec<u8>], expected: Result<u32, TxError>) {
        let mut items = transfer_items();
        items[5] = to.to_vec();
        items.insert(9, assemble(None, list));
        let raw = assemble(Some(4), &items);
        assert_eq!(decode(&raw).map(|decoded| decoded.fields.authorization_count), expected);
        if !to.is_empty() {
            check(&raw);
        }
    }
    let to = alloy_rlp::encode([0x11_u8; 20].as_slice());
    let items = |y_parity: &[u8], s: &[u8]| {
        let string = alloy_rlp::encode::<&[u8]>;
        let parts = [vec![5], string(&[7; 20]), vec![1], string(y_parity), string(&[9; 32]), string(s)];
        assemble(None, &parts)
    };
    check_list(&to, &[items(&[1], &[1])], Ok(1));
    // Nothing about a signature inside the list makes the transaction invalid.
    check_list(&to, &[items(&[0xff], &[0xff; 32]), items(&[], &[])], Ok(2));
    check_list(&to, &[], Err(TxError::AuthorizationListEmpty));
    check_list(&[0x80], &[items(&[1], &[1])], Err(TxError::SetCodeCreation));
    let field = Field::AuthorizationYParity;
    check_list(&to, &[items(&[1, 0], &[1])], Err(TxError::TooLarge { field, bytes: 2, bytes_max: 1 }));
    let field = Field::AuthorizationS;
    check_list(&to, &[items(&[1], &[1; 33])], Err(TxError::TooLarge { field, bytes: 33, bytes_max: 32 }));
    check_list(&to, &[items(&[1], &[0, 1])], Err(TxError::LeadingZero { field }));
    let field = Field::Authorization;
    check_list(&to, &[vec![0x80]], Err(TxError::Rlp { field, fault: RlpFault::UnexpectedString, offset: 39 }));
}

#[test]
fn legacy_v_rules() {
    let check_v = |v: u128, expected: Result<(u8, Option<u64>), TxError>| {
        let mut items = transfer_items();
        items.splice(9..10, [alloy_rlp::encode(v)]);
        items.remove(8);
        items.remove(2);
        items.remove(0);
        let raw = assemble(None, &items);
        let decoded = decode(&raw).map(|decoded| (decoded.signature.y_parity, decoded.fields.chain_id));
        assert_eq!(decoded, expected);
        check(&raw);
    };
    for v in [0, 1, 2, 26, 29, 34] {
        check_v(v, Err(TxError::LegacyV(v)));
    }
    check_v(27, Ok((0, None)));
    check_v(28, Ok((1, None)));
    check_v(35, Ok((0, Some(0))));
    check_v(36, Ok((1, Some(0))));
    check_v(37, Ok((0, Some(1))));
    check_v(35 + 2 * 61972 + 1, Ok((1, Some(61972))));
    let last = 35 + 2 * u128::from(u64::MAX) + 1;
    check_v(last, Ok((1, Some(u64::MAX))));
    check_v(last + 1, Err(TxError::LegacyV(last + 1)));
    check_v(u128::MAX, Err(TxError::LegacyV(u128::MAX)));
}

#[test]
fn item_counts_are_exact() {
    fuzz(20, |random| {
        let raw = any_transaction(random).encoded_2718();
        let type_bytes = usize::from(raw[0] < 0x80);
        let mut rest = &raw[type_bytes..];
        alloy_rlp::Header::decode(&mut rest).unwrap();
        for extra in [vec![0x80], vec![0xc0], vec![0x01]] {
            let longer = assemble((type_bytes == 1).then(|| raw[0]), &[rest.to_vec(), extra]);
            assert_eq!(decode(&longer), Err(TxError::ExtraItems { field: Field::Transaction, bytes: 1 }));
        }
        let shorter = assemble((type_bytes == 1).then(|| raw[0]), &[rest[..rest.len() - 33].to_vec()]);
        assert!(decode(&shorter).is_err());
    });
}

#[test]
fn decoded_is_small() {
    assert_eq!(decode(&assemble(Some(2), &transfer_items())).unwrap().fields.tx_type, TxType::DynamicFee);
    assert!(size_of::<Decoded>() <= 288, "it is passed by value on the hot path");
}
