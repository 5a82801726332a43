//! Contract code by hash: layers of maps that versions share.

use std::collections::HashMap;
use std::sync::Arc;

use alloy_primitives::{B256, Bytes};

/// Code of a version. Sizes of layers at least halve from one to the next, so there are few and adding costs a logarithm.
///
/// Code is never forgotten: it is named by its hash, and creation pays 200 gas a byte for it.
#[derive(Clone, Default)]
pub struct Codes {
    layers: Vec<Arc<HashMap<B256, Bytes>>>,
}

impl Codes {
    pub fn get(&self, code_hash: &B256) -> Option<&Bytes> {
        self.layers.iter().find_map(|layer| layer.get(code_hash))
    }

    pub fn add(&mut self, codes: &[(B256, Bytes)]) {
        let mut newest: HashMap<B256, Bytes> =
            codes.iter().filter(|(hash, _)| self.get(hash).is_none()).cloned().collect();
        if newest.is_empty() {
            return;
        }
        while let Some(layer) = self.layers.last()
            && layer.len() < 2 * newest.len()
        {
            newest.extend(layer.iter().map(|(hash, code)| (*hash, code.clone())));
            self.layers.pop();
        }
        self.layers.push(Arc::new(newest));
    }
}
