//! No files at all: the state of a process whose execution client has it.
//!
//! A store on it is empty and stays so: it has a root file in memory, and refuses the first segment. What reads of it is answered with an error or
//! with nothing; whoever serves state in that mode asks the client before.

use std::sync::Arc;

use super::disk::{Disk, ROOTS, SyncPoint};
use crate::runtime::address_range::AddressRange;
use crate::state::StateError;

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct AbsentDisk {
    roots: Option<Vec<u64>>,
}

impl Disk for AbsentDisk {
    fn list(&mut self) -> Result<Vec<u32>, StateError> {
        Ok(self.roots.iter().map(|_| ROOTS).collect())
    }

    fn create(&mut self, file: u32, bytes: u64) -> Result<(), StateError> {
        if file != ROOTS {
            return Err(StateError::Partial);
        }
        // A few pages.
        self.roots = Some(vec![0; bytes.div_ceil(8) as usize]);
        Ok(())
    }

    fn write(&mut self, file: u32, offset: u64, parts: &[&[u64]]) -> Result<(), StateError> {
        let words = self.roots.as_mut().filter(|_| file == ROOTS).ok_or(StateError::Partial)?;
        let mut at = (offset / 8) as usize;
        for part in parts {
            words.get_mut(at..at + part.len()).ok_or(StateError::Partial)?.copy_from_slice(part);
            at += part.len();
        }
        Ok(())
    }

    fn read(&mut self, file: u32, offset: u64, words: &mut [u64]) -> Result<(), StateError> {
        let stored = self.roots.as_ref().filter(|_| file == ROOTS).ok_or(StateError::Partial)?;
        for (word, at) in words.iter_mut().zip((offset / 8) as usize..) {
            *word = stored.get(at).copied().unwrap_or(0);
        }
        Ok(())
    }

    fn sync(&mut self, _file: u32, _point: SyncPoint) -> Result<(), StateError> {
        Ok(())
    }

    fn sync_directory(&mut self, _point: SyncPoint) -> Result<(), StateError> {
        Ok(())
    }

    fn remove(&mut self, _file: u32) -> Result<(), StateError> {
        Ok(())
    }

    fn map(&mut self, _file: u32, _range: &Arc<AddressRange>, _at: usize, _bytes: u64) -> Result<(), StateError> {
        Err(StateError::Partial)
    }

    fn handle(&self) -> Box<dyn Disk> {
        Box::new(self.clone())
    }

    fn prepare(&mut self, _bytes: u64) -> Result<bool, StateError> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::Address;
    use crate::state::files::FileStore;
    use crate::state::files::recovery::StateSettings;
    use crate::state::{ROOT_EMPTY, StateChanges, StateReader, StateStore};

    #[test]
    fn a_store_on_it_is_empty_and_takes_nothing() {
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread"));
        let mut store =
            FileStore::open(pool, Box::new(AbsentDisk::default()), StateSettings::default()).expect("it opens");
        let empty = store.empty();
        assert_eq!(empty.root(), ROOT_EMPTY);
        assert_eq!(empty.account(&Address::ZERO), Ok(None));
        assert!(store.newest().is_none());
        let change = crate::state::AccountChange {
            address: Address::ZERO,
            account: Some(crate::state::AccountInfo {
                nonce: 1,
                balance_wei: alloy_primitives::U256::from(1_u64),
                code_hash: crate::state::CODE_HASH_EMPTY,
            }),
            storage_cleared: false,
            storage: Vec::new(),
        };
        let changes = StateChanges { accounts: vec![change], codes: Vec::new() };
        assert!(store.commit(&empty, &changes).is_err());
    }
}
