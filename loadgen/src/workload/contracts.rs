//! The contracts of the `erc20` and `storage` workloads: creation code and calls.
//!
//! Sources, compiler settings and the command that made the `.hex` files are in `loadgen/contracts/`.

use alloy_primitives::{Address, Bytes, U256, hex, keccak256};

const TOKEN_HEX: &str = include_str!("../../contracts/LoadToken.hex");
const STORAGE_HEX: &str = include_str!("../../contracts/LoadStorage.hex");

/// Creation code of the ERC-20 token.
pub fn token_creation_code() -> Bytes {
    decode(TOKEN_HEX)
}

/// Creation code of the contract that writes one slot per call.
pub fn storage_creation_code() -> Bytes {
    decode(STORAGE_HEX)
}

/// `transfer(to, value)` of ERC-20.
pub fn token_transfer(to: Address, value: U256) -> Bytes {
    call("transfer(address,uint256)", &[U256::from_be_slice(to.as_slice()), value])
}

/// `balanceOf(holder)` of ERC-20.
pub fn token_balance_of(holder: Address) -> Bytes {
    call("balanceOf(address)", &[U256::from_be_slice(holder.as_slice())])
}

/// `deal(holders, amount)`: the deployer creates `amount` tokens for each holder.
pub fn token_deal(holders: &[Address], amount: U256) -> Bytes {
    // Head: offset of the array (two words) and the amount; tail: length and elements.
    let mut words = vec![U256::from(64), amount, U256::from(holders.len())];
    words.extend(holders.iter().map(|holder| U256::from_be_slice(holder.as_slice())));
    call("deal(address[],uint256)", &words)
}

/// `set(key, value)` of the storage contract.
pub fn storage_set(key: U256, value: U256) -> Bytes {
    call("set(uint256,uint256)", &[key, value])
}

fn call(signature: &str, words: &[U256]) -> Bytes {
    let mut input = keccak256(signature)[..4].to_vec();
    for word in words {
        input.extend_from_slice(&word.to_be_bytes::<32>());
    }
    input.into()
}

fn decode(text: &str) -> Bytes {
    hex::decode(text.trim()).expect("the committed files hold hexadecimal digits").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_the_standard_form() {
        let to = Address::repeat_byte(0xab);
        let expected = "a9059cbb000000000000000000000000abababababababababababababababababababab\
                        0000000000000000000000000000000000000000000000000000000000000005";
        assert_eq!(hex::encode(token_transfer(to, U256::from(5))), expected);
        let deal = token_deal(&[to, to], U256::from(7));
        assert_eq!(deal.len(), 4 + 5 * 32);
        assert_eq!(U256::from_be_slice(&deal[4..36]), U256::from(64));
        assert_eq!(U256::from_be_slice(&deal[68..100]), U256::from(2));
    }

    #[test]
    fn creation_code_holds_the_selectors_it_is_called_by() {
        let has = |code: &Bytes, input: &Bytes| code.windows(4).any(|window| window == &input[..4]);
        assert!(has(&token_creation_code(), &token_transfer(Address::ZERO, U256::ZERO)));
        assert!(has(&token_creation_code(), &token_deal(&[], U256::ZERO)));
        assert!(has(&storage_creation_code(), &storage_set(U256::ZERO, U256::ZERO)));
    }
}
