//! Random programs: init codes that read, write, call and create in every way that leaves a trace in a witness.

use alloy_primitives::{Address, B256, U256};
use native_sequencer::testing::bytecode;
use native_sequencer::testing::rng::SimRng;

/// Slots that programs and calls use, few enough to meet again.
pub const SLOTS: u64 = 48;

/// `blockhash(number - 256)`, dropped.
pub const FURTHEST_HASH: [u8; 8] = [0x61, 0x01, 0x00, 0x43, 0x03, 0x40, 0x50, 0x00];

/// A code in the making.
#[derive(Default)]
pub struct Program(Vec<u8>);

impl Program {
    fn op(&mut self, op: u8) -> &mut Self {
        self.0.push(op);
        self
    }

    fn push(&mut self, value: U256) -> &mut Self {
        let bytes = value.to_be_bytes_trimmed_vec();
        self.0.push(0x5f + bytes.len() as u8);
        self.0.extend(bytes);
        self
    }

    fn number(&mut self, value: u64) -> &mut Self {
        self.push(U256::from(value))
    }

    fn address(&mut self, address: Address) -> &mut Self {
        self.push(U256::from_be_slice(address.as_slice()))
    }

    /// Writes bytes to memory from offset 0 on.
    fn memory(&mut self, bytes: &[u8]) -> &mut Self {
        for (index, chunk) in bytes.chunks(32).enumerate() {
            let mut word = B256::ZERO;
            word[..chunk.len()].copy_from_slice(chunk);
            self.push(word.into()).number(32 * index as u64).op(0x52);
        }
        self
    }
}

/// The init code of a random program; `addresses` are worth looking at.
pub fn random(rng: &mut SimRng, addresses: &[Address]) -> Vec<u8> {
    let mut program = Program::default();
    for _ in 0..1 + rng.below(12) {
        step(&mut program, rng, addresses);
    }
    match rng.below(8) {
        0 => program.number(0).number(0).op(0xfd),
        1 => program.op(0xfe),
        2 => program.address(pick(rng, addresses)).op(0xff),
        3 => {
            let code = bytecode::store(bytecode::Ending::Stop);
            program.memory(&code).number(code.len() as u64).number(0).op(0xf3)
        }
        _ => program.op(0x00),
    };
    program.0
}

fn pick(rng: &mut SimRng, addresses: &[Address]) -> Address {
    match rng.below(12) {
        // An account that nobody has heard of.
        0 => Address::left_padding_from(&rng.word().to_be_bytes()),
        // Precompiles, and what is just behind them.
        1 => Address::with_last_byte(rng.below(0x14) as u8),
        _ => addresses[rng.below(addresses.len() as u64) as usize],
    }
}

fn step(program: &mut Program, rng: &mut SimRng, addresses: &[Address]) {
    let address = pick(rng, addresses);
    match rng.below(14) {
        0 => program.address(address).op(0x31).op(0x50),
        1 => program.address(address).op(0x3b).op(0x50),
        2 => program.address(address).op(0x3f).op(0x50),
        3 => program.number(rng.below(64)).number(0).number(0).address(address).op(0x3c),
        4 => program.number(rng.below(SLOTS)).op(0x54).op(0x50),
        5 => program.number(rng.below(3)).number(rng.below(SLOTS)).op(0x55),
        6 => block_hash(program, rng),
        7 | 8 => create_and_call(program, rng),
        _ => call(program, rng, address),
    };
}

/// `blockhash(number - depth)`, mostly near, at times at the end of what can be asked for and behind it.
fn block_hash<'p>(program: &'p mut Program, rng: &mut SimRng) -> &'p mut Program {
    let depth = match rng.below(12) {
        0 | 1 => 254 + rng.below(4),
        2 => rng.below(300),
        3 => 0,
        _ => 1 + rng.below(5),
    };
    program.number(depth).op(0x43).op(0x03).op(0x40).op(0x50)
}

/// CALL, CALLCODE, DELEGATECALL or STATICCALL, with calldata that the store contract understands.
fn call<'p>(program: &'p mut Program, rng: &mut SimRng, address: Address) -> &'p mut Program {
    let words = [U256::from(rng.below(SLOTS)), U256::from(rng.below(3) * rng.below(2))];
    program.memory(&bytecode::words(&words));
    program.number(0).number(0).number(64).number(0);
    let kind = [0xf1, 0xf1, 0xf2, 0xf4, 0xfa][rng.below(5) as usize];
    if matches!(kind, 0xf1 | 0xf2) {
        program.number(rng.below(8).saturating_sub(5));
    }
    program.address(address);
    match rng.below(6) {
        // Too little for a cold access inside, or for anything.
        0 => program.number(rng.below(6_000)),
        _ => program.op(0x5a),
    };
    program.op(kind).op(0x50)
}

/// CREATE or CREATE2, then a call to what was made, in the same transaction.
fn create_and_call<'p>(program: &'p mut Program, rng: &mut SimRng) -> &'p mut Program {
    let code = match rng.below(3) {
        0 => bytecode::destroy(),
        1 => bytecode::store(bytecode::Ending::Stop),
        _ => bytecode::store(bytecode::Ending::Revert),
    };
    let init = bytecode::init_code(&code);
    program.memory(&init);
    let two = rng.chance(1, 2);
    if two {
        program.number(rng.below(4));
    }
    program.number(init.len() as u64).number(0).number(0).op(if two { 0xf5 } else { 0xf0 });
    if rng.chance(3, 4) {
        // call(gas, child, 0, 0, 64, 0, 0)
        program.number(0).number(0).number(64).number(0).number(0).op(0x85).op(0x5a).op(0xf1).op(0x50);
    }
    if rng.chance(1, 4) {
        program.op(0x80).op(0x3b).op(0x50);
    }
    program.op(0x50)
}
