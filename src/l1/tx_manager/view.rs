//! A checked block as the manager sees it.

use crate::l1::block::CheckedBlock;
use crate::l1::execute_tx::ExecuteTx;
use crate::l1::profile::Profile;
use crate::primitives::{Address, U256};

use super::types::{BlockView, MinedTx};

/// Finds what `address` has sent in this format. A transaction of another type shows by the account's nonce alone.
#[must_use]
pub fn block_view(block: &CheckedBlock, address: Address, profile: Profile) -> BlockView {
    let header = &block.header;
    let base_fee_wei = U256::from(header.base_fee_wei);
    let ours = block.execute_txs().filter_map(|(_, raw, receipt)| {
        let tx = ExecuteTx::decode(raw, profile).ok()?;
        let is_ours = tx.sender().is_ok_and(|sender| sender == address);
        let price_wei = base_fee_wei.saturating_add(tx.terms.tip_cap_wei).min(tx.terms.fee_cap_wei);
        is_ours.then(|| MinedTx {
            hash: tx.hash(),
            nonce: tx.terms.nonce,
            success: receipt.success,
            cost_wei: U256::from(receipt.gas_used).saturating_mul(price_wei).saturating_add(tx.payload.value),
        })
    });
    BlockView { id: block.id(), timestamp: header.timestamp, base_fee_wei: header.base_fee_wei, ours: ours.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l1::block::{L1Header, L1Receipt};
    use crate::l1::execute_tx::{Payload, Terms};
    use crate::l1::signer::{LocalKey, Signer};

    #[test]
    fn only_what_we_sent_is_seen() {
        let profile = Profile::default();
        let [ours, other] = ["01", "02"].map(|byte| LocalKey::from_hex(&byte.repeat(32), "", 7).expect("a key"));
        let raw = |key: &LocalKey, nonce| {
            let payload = Payload { data: vec![9; 10].into(), ..Payload::default() }.encoded(profile);
            let (tip_cap_wei, fee_cap_wei) = (U256::from(3), U256::from(100));
            let terms = Terms { chain_id: U256::from(7), nonce, tip_cap_wei, fee_cap_wei, gas: 90_000 };
            payload.encode(&terms, &key.sign(&payload, &terms).expect("its own chain"))
        };
        let transactions = vec![raw(&other, 4), vec![5, 0xc0].into(), raw(&ours, 4), vec![2].into(), raw(&ours, 5)];
        let receipt = |index: usize| L1Receipt { tx_type: 5, success: index != 4, gas_used: 50_000 };
        let block = CheckedBlock {
            header: L1Header { number: 9, timestamp: 8, base_fee_wei: 98, ..L1Header::default() },
            receipts: (0..transactions.len()).map(receipt).collect(),
            transactions,
        };
        let view = block_view(&block, ours.address(), profile);
        let seen: Vec<_> = view.ours.iter().map(|tx| (tx.nonce, tx.success, tx.cost_wei.to::<u64>())).collect();
        // 98 and 3 are above the cap of 100.
        assert_eq!(seen, [(4, true, 5_000_000), (5, false, 5_000_000)]);
    }
}
