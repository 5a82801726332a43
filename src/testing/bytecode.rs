//! Small contracts, by hand, for histories that reach the corners of execution.
//!
//! Every one takes 32-byte words as calldata, so that what a call does is chosen by who makes the transaction.

use alloy_primitives::{Address, B256, Bytes, U256, b256};

/// Topic of the deposit contract's event (EIP-6110).
pub const DEPOSIT_EVENT: B256 = b256!("649bbc62d0e31342afea4e5cd82d4049e7e1ee912fc0889aa790803be39038c5");

/// How [`store`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Stop,
    Revert,
    /// All gas is lost.
    Invalid,
}

/// `sstore(slot, value)` for each pair of words.
#[must_use]
pub fn store(ending: Ending) -> Vec<u8> {
    // i = 0; loop@1: unless i < calldatasize goto end
    let mut code = vec![0x5f, 0x5b, 0x36, 0x81, 0x10, 0x15, 0x60, 0, 0x57];
    // sstore(calldataload(i), calldataload(i + 32)); i += 64; goto loop
    code.extend([0x80, 0x60, 0x20, 0x01, 0x35, 0x81, 0x35, 0x55, 0x60, 0x40, 0x01, 0x60, 0x01, 0x56]);
    let end = code.len() as u8;
    code[7] = end;
    code.push(0x5b);
    code.extend(match ending {
        Ending::Stop => &[0x00][..],
        Ending::Revert => &[0x5f, 0x5f, 0xfd],
        Ending::Invalid => &[0xfe],
    });
    code
}

/// `log_n` with the first four words as topics, and all calldata as data.
#[must_use]
pub fn log(topic_count: u8) -> Vec<u8> {
    let mut code = vec![0x36, 0x5f, 0x5f, 0x37];
    for index in (0..topic_count).rev() {
        code.extend([0x60, index * 32, 0x35]);
    }
    code.extend([0x36, 0x5f, 0xa0 + topic_count, 0x00]);
    code
}

/// One log of all calldata under a fixed topic.
#[must_use]
pub fn log_under(topic: B256) -> Vec<u8> {
    let mut code = vec![0x36, 0x5f, 0x5f, 0x37, 0x7f];
    code.extend(topic);
    code.extend([0x36, 0x5f, 0xa1, 0x00]);
    code
}

/// `sstore(depth, blockhash(number - depth))` for each word.
#[must_use]
pub fn block_hashes() -> Vec<u8> {
    let mut code = vec![0x5f, 0x5b, 0x36, 0x81, 0x10, 0x15, 0x60, 0, 0x57];
    // depth = calldataload(i); sstore(depth, blockhash(number - depth)); i += 32
    code.extend([0x80, 0x35, 0x80, 0x43, 0x03, 0x40, 0x90, 0x55, 0x60, 0x20, 0x01, 0x60, 0x01, 0x56]);
    let end = code.len() as u8;
    code[7] = end;
    code.extend([0x5b, 0x00]);
    code
}

/// Stores what the block and the transaction look like from inside, at slots 1 and up.
#[must_use]
pub fn environment() -> Vec<u8> {
    let mut code = Vec::new();
    // origin, caller, callvalue, gasprice, coinbase, timestamp, number, prevrandao, gaslimit, chainid, selfbalance, basefee, blobbasefee
    let opcodes = [0x32, 0x33, 0x34, 0x3a, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x4a];
    for (index, opcode) in opcodes.into_iter().enumerate() {
        code.extend([opcode, 0x60, index as u8 + 1, 0x55]);
    }
    // balance, extcodesize and extcodehash of the first word; balance of the coinbase.
    for (index, opcode) in [0x31, 0x3b, 0x3f].into_iter().enumerate() {
        code.extend([0x5f, 0x35, opcode, 0x60, index as u8 + 32, 0x55]);
    }
    code.extend([0x41, 0x31, 0x60, 40, 0x55, 0x00]);
    code
}

/// How [`forward`] calls on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    Call,
    Delegate,
    /// Calls, then undoes everything.
    CallThenRevert,
}

/// Calls the address in the first word, with the value in the second and what follows as calldata; the outcome is dropped.
#[must_use]
pub fn forward(how: Forward) -> Vec<u8> {
    // calldatacopy(0, 64, calldatasize - 64)
    let copy = [0x60, 0x40, 0x36, 0x03, 0x60, 0x40, 0x5f, 0x37];
    let mut code = copy.to_vec();
    // out size, out offset, in size, in offset
    code.extend([0x5f, 0x5f, 0x60, 0x40, 0x36, 0x03, 0x5f]);
    if how != Forward::Delegate {
        code.extend([0x60, 0x20, 0x35]);
    }
    code.extend([0x5f, 0x35, 0x5a, if how == Forward::Delegate { 0xf4 } else { 0xf1 }]);
    code.extend(if how == Forward::CallThenRevert { &[0x5f, 0x5f, 0xfd][..] } else { &[0x50, 0x00] });
    code
}

/// Gives its balance to the address in the first word and destroys itself, as far as EIP-6780 lets it.
#[must_use]
pub fn destroy() -> Vec<u8> {
    vec![0x5f, 0x35, 0xff]
}

/// Init code that returns `code`, after it has stored `3` at slot `5` of the new account.
#[must_use]
pub fn init_code(code: &[u8]) -> Vec<u8> {
    let len = u8::try_from(code.len()).expect("a short contract");
    let mut init = vec![0x60, 3, 0x60, 5, 0x55, 0x60, len, 0x60, 16, 0x5f, 0x39, 0x60, len, 0x5f, 0xf3, 0x00];
    assert_eq!(init.len(), 16);
    init.extend_from_slice(code);
    init
}

/// Creates a [`destroy`] contract by CREATE2 with the first word as salt and the call's value, and then, unless the second word is
/// zero, calls it with the second word: it is gone when the transaction ends.
#[must_use]
pub fn factory() -> Vec<u8> {
    let init = init_code(&destroy());
    let len = init.len() as u8;
    let mut code = vec![0x60, len, 0x60, 0, 0x5f, 0x39];
    code.extend([0x5f, 0x35, 0x60, len, 0x5f, 0x34, 0xf5]);
    // [child]; mstore(0, word 1); if word 1 == 0 goto end
    code.extend([0x60, 0x20, 0x35, 0x80, 0x5f, 0x52, 0x15, 0x60, 0, 0x57]);
    let skip_at = code.len() - 2;
    // call(gas, child, 0, 0, 32, 0, 0)
    code.extend([0x5f, 0x5f, 0x60, 0x20, 0x5f, 0x5f, 0x85, 0x5a, 0xf1, 0x50]);
    code[skip_at] = code.len() as u8;
    code.extend([0x5b, 0x00]);
    code[3] = code.len() as u8;
    code.extend(init);
    code
}

/// The address of what [`factory`] at `factory_address` creates with `salt`.
#[must_use]
pub fn child_of(factory_address: Address, salt: U256) -> Address {
    factory_address.create2_from_code(B256::from(salt), init_code(&destroy()))
}

/// Calldata of these words.
#[must_use]
pub fn words(words: &[U256]) -> Bytes {
    words.iter().flat_map(|word| word.to_be_bytes::<32>()).collect::<Vec<u8>>().into()
}

/// The data of one well-formed deposit event (EIP-6110): five byte strings of 48, 32, 8, 96 and 8 bytes.
#[must_use]
pub fn deposit_event(fill: u8) -> Bytes {
    let lengths = [48_usize, 32, 8, 96, 8];
    let mut data = Vec::with_capacity(576);
    let mut offset = 32 * lengths.len();
    for length in lengths {
        data.extend(U256::from(offset).to_be_bytes::<32>());
        offset += 32 + length.next_multiple_of(32);
    }
    for length in lengths {
        data.extend(U256::from(length).to_be_bytes::<32>());
        data.extend(std::iter::repeat_n(fill, length));
        data.resize(data.len().next_multiple_of(32), 0);
    }
    data.into()
}
