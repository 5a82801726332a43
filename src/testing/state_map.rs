#![allow(unsafe_code, reason = "plays the kernel's part for simulated files")]
//! Memory in the place of mapped files, which only the simulated disk writes.

use crate::runtime::address_range::AddressRange;

/// Shows the words of a file at `offset` bytes.
pub(super) fn map(range: &AddressRange, offset: usize, words: &[u64]) {
    // SAFETY: a store maps a segment where nothing is mapped, or nothing is read any more (`Disk::map`).
    let mapped = unsafe { range.map_memory(offset, size_of_val(words)) };
    mapped.expect("memory can be mapped in a reserved range");
    // Only what is not zero: the rest costs no memory.
    for (index, part) in words.chunks(512).enumerate().filter(|(_, part)| part.iter().any(|word| *word != 0)) {
        store(range, offset + index * 4_096, part);
    }
}

/// Changes what is shown.
pub(super) fn store(range: &AddressRange, offset: usize, words: &[u64]) {
    // SAFETY: mapped by `map`; the store writes only behind what its readers may look at.
    unsafe { range.store(offset, words) };
}
