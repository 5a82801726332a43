//! Compact receipts: what the chain database keeps of an executed transaction, without the bloom, which follows from the logs.
//!
//! ```text
//! offset  bytes  field
//! 0       1      EIP-2718 type
//! 1       1      bit 0: success; bit 1: a contract address follows the two gas figures
//! 2       1..10  cumulative gas used of the block up to here   (LEB128)
//! ..      1..10  gas used by this transaction                  (LEB128)
//! ..      0/20   address of the created contract
//! ..      1..10  log count                                     (LEB128)
//! then per log:
//! 0       20     address
//! 20      1      topic count, 0..=4
//! 21      32·n   topics
//! ..      1..10  data length                                   (LEB128)
//! ..      ..     data
//! ```
//!
//! Integers are minimal LEB128, so a receipt has one encoding. Decoding borrows; [`ReceiptRef::logs`] walks the logs without allocating.

use thiserror::Error;

use crate::primitives::{Address, B256, Bytes};

const FLAG_SUCCESS: u8 = 1;
const FLAG_CONTRACT: u8 = 2;

/// LOG0 to LOG4: a log has at most four topics.
pub const TOPICS_MAX: usize = 4;

/// What execution of one transaction left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    pub tx_type: u8,
    pub success: bool,
    pub cumulative_gas_used: u64,
    pub gas_used: u64,
    pub contract_address: Option<Address>,
    pub logs: Vec<Log>,
}

/// One log, owned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    pub address: Address,
    pub topics: Vec<B256>,
    pub data: Bytes,
}

/// The bytes of a compact receipt are not one.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ReceiptError {
    #[error("receipt ends early")]
    Short,
    #[error("receipt has bytes after its last log")]
    Trailing,
    #[error("receipt has an integer that is not minimal or not of 64 bits")]
    Integer,
    #[error("receipt has unknown flags {0}")]
    Flags(u8),
    #[error("log has {0} topics")]
    TopicCount(u8),
}

/// A receipt whose logs are still encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiptRef<'a> {
    pub tx_type: u8,
    pub success: bool,
    pub cumulative_gas_used: u64,
    pub gas_used: u64,
    pub contract_address: Option<Address>,
    pub log_count: u64,
    encoded_logs: &'a [u8],
}

/// One log, borrowed from the encoded receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRef<'a> {
    pub address: &'a [u8; 20],
    topics: &'a [u8],
    pub data: &'a [u8],
}

/// Walks the logs of a receipt. Ends after the first error.
#[derive(Clone, Debug)]
pub struct LogIter<'a> {
    rest: &'a [u8],
    remaining: u64,
}

impl Receipt {
    /// Appends the compact encoding to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode_head(
            self.tx_type,
            self.success,
            self.cumulative_gas_used,
            self.gas_used,
            self.contract_address.as_ref(),
            self.logs.len() as u64,
            out,
        );
        for log in &self.logs {
            encode_log(&log.address, log.topics.iter(), &log.data, out);
        }
    }

    /// Decodes exactly one receipt from all of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Receipt, ReceiptError> {
        ReceiptRef::decode(bytes)?.to_owned()
    }
}

/// Appends everything before the logs; then [`encode_log`] must follow `log_count` times.
pub fn encode_head(
    tx_type: u8,
    success: bool,
    cumulative_gas_used: u64,
    gas_used: u64,
    contract_address: Option<&Address>,
    log_count: u64,
    out: &mut Vec<u8>,
) {
    let contract_flag = if contract_address.is_some() { FLAG_CONTRACT } else { 0 };
    out.push(tx_type);
    out.push(u8::from(success) | contract_flag);
    put_integer(cumulative_gas_used, out);
    put_integer(gas_used, out);
    if let Some(address) = contract_address {
        out.extend_from_slice(address.as_slice());
    }
    put_integer(log_count, out);
}

/// Appends one log. `topics` has at most four entries.
pub fn encode_log<'a>(
    address: &Address,
    topics: impl ExactSizeIterator<Item = &'a B256>,
    data: &[u8],
    out: &mut Vec<u8>,
) {
    assert!(topics.len() <= TOPICS_MAX, "LOG4 is the largest log");
    out.extend_from_slice(address.as_slice());
    out.push(topics.len() as u8);
    for topic in topics {
        out.extend_from_slice(topic.as_slice());
    }
    put_integer(data.len() as u64, out);
    out.extend_from_slice(data);
}

impl<'a> ReceiptRef<'a> {
    /// Reads everything before the logs. The logs themselves are checked while they are walked.
    pub fn decode(bytes: &'a [u8]) -> Result<ReceiptRef<'a>, ReceiptError> {
        let mut rest = bytes;
        let [tx_type, flags] = *take_array::<2>(&mut rest)?;
        if flags & !(FLAG_SUCCESS | FLAG_CONTRACT) != 0 {
            return Err(ReceiptError::Flags(flags));
        }
        let cumulative_gas_used = take_integer(&mut rest)?;
        let gas_used = take_integer(&mut rest)?;
        let contract_address = match flags & FLAG_CONTRACT {
            0 => None,
            _ => Some(Address::from(take_array::<20>(&mut rest)?)),
        };
        let log_count = take_integer(&mut rest)?;
        if log_count == 0 && !rest.is_empty() {
            return Err(ReceiptError::Trailing);
        }
        let success = flags & FLAG_SUCCESS != 0;
        Ok(ReceiptRef {
            tx_type,
            success,
            cumulative_gas_used,
            gas_used,
            contract_address,
            log_count,
            encoded_logs: rest,
        })
    }

    #[must_use]
    pub fn logs(&self) -> LogIter<'a> {
        LogIter { rest: self.encoded_logs, remaining: self.log_count }
    }

    /// Copies the receipt and its logs.
    pub fn to_owned(&self) -> Result<Receipt, ReceiptError> {
        let logs = self.logs().map(|log| log.map(|log| log.to_owned())).collect::<Result<Vec<Log>, ReceiptError>>()?;
        Ok(Receipt {
            tx_type: self.tx_type,
            success: self.success,
            cumulative_gas_used: self.cumulative_gas_used,
            gas_used: self.gas_used,
            contract_address: self.contract_address,
            logs,
        })
    }
}

impl<'a> LogRef<'a> {
    #[must_use]
    pub fn address(&self) -> Address {
        Address::from(self.address)
    }

    pub fn topics(&self) -> impl ExactSizeIterator<Item = &'a [u8; 32]> + use<'a> {
        self.topics.as_chunks::<32>().0.iter()
    }

    #[must_use]
    pub fn to_owned(&self) -> Log {
        Log {
            address: self.address(),
            topics: self.topics().map(B256::from).collect(),
            data: Bytes::copy_from_slice(self.data),
        }
    }
}

impl<'a> Iterator for LogIter<'a> {
    type Item = Result<LogRef<'a>, ReceiptError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.remaining == 0 {
            return None;
        }
        self.remaining -= 1;
        let result = take_log(&mut self.rest);
        let result = match result {
            Ok(_) if self.remaining == 0 && !self.rest.is_empty() => Err(ReceiptError::Trailing),
            result => result,
        };
        if result.is_err() {
            self.remaining = 0;
        }
        Some(result)
    }
}

fn take_log<'a>(rest: &mut &'a [u8]) -> Result<LogRef<'a>, ReceiptError> {
    let address = take_array::<20>(rest)?;
    let [topic_count] = *take_array::<1>(rest)?;
    if usize::from(topic_count) > TOPICS_MAX {
        return Err(ReceiptError::TopicCount(topic_count));
    }
    let topics = rest.split_off(..32 * usize::from(topic_count)).ok_or(ReceiptError::Short)?;
    let data_len = usize::try_from(take_integer(rest)?).map_err(|_| ReceiptError::Short)?;
    let data = rest.split_off(..data_len).ok_or(ReceiptError::Short)?;
    Ok(LogRef { address, topics, data })
}

fn take_array<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], ReceiptError> {
    let (array, tail) = rest.split_first_chunk::<N>().ok_or(ReceiptError::Short)?;
    *rest = tail;
    Ok(array)
}

fn put_integer(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80); // the low seven bits and the continuation bit
        value >>= 7;
    }
    out.push(value as u8); // < 0x80
}

fn take_integer(rest: &mut &[u8]) -> Result<u64, ReceiptError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let [byte] = *take_array::<1>(rest)?;
        let bits = u64::from(byte & 0x7f);
        let leading_zero_group = byte == 0 && shift > 0;
        if (bits << shift) >> shift != bits || leading_zero_group {
            return Err(ReceiptError::Integer);
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(ReceiptError::Integer)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn any_log() -> impl Strategy<Value = Log> {
        (any::<[u8; 20]>(), vec(any::<[u8; 32]>(), 0..=4), vec(any::<u8>(), 0..300)).prop_map(
            |(address, topics, data)| Log {
                address: address.into(),
                topics: topics.into_iter().map(B256::from).collect(),
                data: data.into(),
            },
        )
    }

    fn any_receipt() -> impl Strategy<Value = Receipt> {
        (any::<u8>(), any::<bool>(), any::<u64>(), any::<u64>(), any::<Option<[u8; 20]>>(), vec(any_log(), 0..5))
            .prop_map(|(tx_type, success, cumulative_gas_used, gas_used, contract, logs)| Receipt {
                tx_type,
                success,
                cumulative_gas_used,
                gas_used,
                contract_address: contract.map(Address::from),
                logs,
            })
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: Result<u64, ReceiptError>) {
        assert_eq!(Receipt::decode(bytes).map(|receipt| receipt.cumulative_gas_used), expected);
    }

    #[test]
    fn fixed_rows() {
        check(&[2, 1, 0x88, 0xa4, 1, 0x88, 0xa4, 1, 0], Ok(21000));
        check(&[2, 1, 0x7f, 0, 0], Ok(127));
        check(&[2, 1, 0x80, 1, 0, 0], Ok(128));
        check(&[2, 1, 0x80, 0, 0, 0], Err(ReceiptError::Integer));
        check(&[2, 4, 0, 0, 0], Err(ReceiptError::Flags(4)));
        check(&[2, 1, 0, 0, 0, 0], Err(ReceiptError::Trailing));
        check(&[2, 3, 0, 0, 0], Err(ReceiptError::Short));
        check(&[], Err(ReceiptError::Short));
        check(&[0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0], Ok(u64::MAX));
        check(&[0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0], Err(ReceiptError::Integer));
        let mut five_topics = vec![0, 1, 0, 0, 1];
        five_topics.extend_from_slice(&[0; 20]);
        five_topics.push(5);
        check(&five_topics, Err(ReceiptError::TopicCount(5)));
    }

    proptest! {
        #[test]
        fn round_trip(receipt in any_receipt()) {
            let mut bytes = Vec::new();
            receipt.encode(&mut bytes);
            prop_assert_eq!(Receipt::decode(&bytes).unwrap(), receipt.clone());
            for len in 0..bytes.len() {
                prop_assert!(Receipt::decode(&bytes[..len]).is_err());
            }
            bytes.push(0);
            prop_assert!(Receipt::decode(&bytes).is_err());
        }

        #[test]
        fn what_decodes_has_one_encoding(bytes in vec(any::<u8>(), 0..120)) {
            if let Ok(receipt) = Receipt::decode(&bytes) {
                let mut again = Vec::new();
                receipt.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
