//! The transaction bytes of one ingress shard: written once by the shard, then read by every thread that holds the handle.
//!
//! input: a length → a writable [`Chunk`] → a [`TxHandle`] that travels through rings → bytes for any [`SlabReader`] → back to the shard.
//! Owner core: the ingress shard allocates and frees; others only read.
//!
//! The memory is one reserved mapping that the kernel commits page by page as it is first written. It is cut into blocks; a block serves
//! one size class at a time and goes back to the common stock when its last chunk is freed, so a flood of small transactions cannot
//! starve large ones for good. Free chunks of a block are linked through their own first two bytes.
//!
//! Invariants:
//! - A chunk is free, or written by the one `Chunk` that borrows the slab, or named by exactly one `TxHandle` (neither clones).
//! - While a `TxHandle` exists its bytes never change. Freeing takes the handle by value, so no borrow of its bytes is left.
//!
//! Absent on purpose: locks, atomics on bytes, shrinking of committed pages.

#![allow(unsafe_code, reason = "several threads read disjoint chunks of one mapping while its owner writes others")]

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use memmap2::MmapMut;

use crate::primitives::ShardId;

/// Chunk sizes. A transfer has about 110 bytes, a token call 180, a pooled transaction at most 65,536; 72 KiB is the next divisor of a
/// block above that.
pub const CHUNK_BYTES: [usize; 5] = [256, 1 << 10, 4 << 10, 16 << 10, 72 << 10];

/// Every chunk size divides it: 4 of the largest, 1,152 of the smallest.
pub const BLOCK_BYTES: usize = 288 << 10;

/// Positions are counted in units of the smallest chunk.
const UNIT_BYTES: usize = CHUNK_BYTES[0];

const NO_CHUNK: u16 = u16::MAX;
const NO_BLOCK: u32 = u32::MAX;

const _: () = {
    let mut class = 0;
    while class < CHUNK_BYTES.len() {
        assert!(BLOCK_BYTES.is_multiple_of(CHUNK_BYTES[class]));
        assert!(CHUNK_BYTES[class].is_multiple_of(UNIT_BYTES));
        class += 1;
    }
    assert!(BLOCK_BYTES / UNIT_BYTES < NO_CHUNK as usize);
    assert!(size_of::<TxHandle>() <= 16);
};

/// Names the bytes of one transaction. Not `Clone`: whoever holds it is the only one who can free it, and while it is held the bytes
/// do not change. Dropping it leaks its chunk until the process ends, so it always travels back to its shard.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a dropped handle leaks its chunk; send it back to its shard"]
pub struct TxHandle {
    /// First unit of the chunk.
    unit_index: u32,
    len: u32,
    /// Times the chunk was freed before; compared in debug builds.
    generation: u32,
    slab_id: u16,
    shard: ShardId,
}

impl TxHandle {
    /// The shard that allocated the bytes and frees them.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Number of bytes; at least 1.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a transaction is never empty: `alloc` refuses zero bytes")]
    pub fn len(&self) -> usize {
        self.len as usize
    }
}

/// The mapping. Everyone who reads holds it alive.
struct Region {
    base: NonNull<u8>,
    len: usize,
    slab_id: u16,
    /// Keeps the mapping; all access goes through `base`, which was taken from it once.
    _map: MmapMut,
}

// SAFETY: `base` points into `_map`, which lives as long as the region and never moves. Bytes are written only through `Chunk` (which
// borrows the one `Slab`) and shared only through `TxHandle`, of which there is one per chunk.
unsafe impl Send for Region {}
// SAFETY: as for `Send`: two threads reach the same chunk only through one shared `&TxHandle`, and then both only read.
unsafe impl Sync for Region {}

impl Region {
    fn chunk_ptr(&self, unit_index: u32, len: usize) -> NonNull<u8> {
        let start = unit_index as usize * UNIT_BYTES;
        assert!(start + len <= self.len, "chunk inside the region");
        // SAFETY: `start ≤ self.len`, asserted above, so the result stays inside the mapping that `base` starts.
        unsafe { self.base.add(start) }
    }
}

/// Reads the bytes that handles of one slab name. Cheap to clone; one per reading thread and shard.
#[derive(Clone)]
pub struct SlabReader {
    region: Arc<Region>,
    #[cfg(debug_assertions)]
    generations: Arc<[std::sync::atomic::AtomicU32]>,
}

impl SlabReader {
    /// The bytes of the transaction.
    ///
    /// Runs on: any thread that holds the handle; never blocks, never allocates.
    /// Panics when the handle is another slab's: that is a wiring mistake, and reading on would be another transaction.
    #[must_use]
    pub fn bytes<'a>(&'a self, handle: &'a TxHandle) -> &'a [u8] {
        assert_eq!(handle.slab_id, self.region.slab_id, "handle of this slab");
        #[cfg(debug_assertions)]
        assert_eq!(
            // ORDERING: Relaxed; the ring that carried the handle already ordered the writes before it.
            self.generations[handle.unit_index as usize].load(Ordering::Relaxed),
            handle.generation,
            "handle of a chunk that was freed"
        );
        let start = self.region.chunk_ptr(handle.unit_index, handle.len());
        // SAFETY: the chunk is initialised (the kernel zeroes it, the shard wrote it). No one writes it while `handle` is borrowed: its
        // chunk is free only after `Slab::free` took the handle by value. The shard's writes happened before: `freeze` was called
        // before the handle entered a ring, and the ring's Release store pairs with the Acquire load of the thread that took it out.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), handle.len()) }
    }
}

/// What the owner knows about a block.
#[derive(Clone, Copy)]
struct Block {
    class: u8,
    used_count: u16,
    /// Chunks handed out at least once since the block joined its class; those behind were never touched.
    touched_count: u16,
    /// First freed chunk, or `NO_CHUNK`.
    free_head: u16,
    /// Neighbours in the list of blocks of this class that have a free chunk; `next` also links the stock of empty blocks.
    previous: u32,
    next: u32,
}

/// Allocator of one shard. `Send`, so that it can be made before the shard's thread starts; not shared.
pub struct Slab {
    reader: SlabReader,
    shard: ShardId,
    blocks: Box<[Block]>,
    /// Blocks below were used at least once.
    block_touched_count: u32,
    empty_head: u32,
    /// Per class: first block with a free chunk.
    open_heads: [u32; CHUNK_BYTES.len()],
    used_bytes: usize,
}

impl Slab {
    /// Reserves `bytes_max` (rounded down to whole blocks, at least one) of address space for `shard`.
    ///
    /// Errors: the kernel's, when it refuses the mapping.
    pub fn new(shard: ShardId, bytes_max: usize) -> std::io::Result<Self> {
        let block_count = (bytes_max / BLOCK_BYTES).max(1);
        let len = block_count * BLOCK_BYTES;
        let unit_count = len / UNIT_BYTES;
        assert!(u32::try_from(unit_count).is_ok(), "units are numbered with 32 bits: at most 1 TiB");
        let mut options = memmap2::MmapOptions::new();
        options.len(len);
        if !cfg!(miri) {
            // Pages that are never used need no swap set aside. Miri does not know the flag.
            options.no_reserve_swap();
        }
        let mut map = options.map_anon()?;
        let base = NonNull::new(map.as_mut_ptr()).expect("the kernel never maps at address 0 unasked");
        let region = Region { base, len, slab_id: next_slab_id(), _map: map };
        let block = Block {
            class: 0,
            used_count: 0,
            touched_count: 0,
            free_head: NO_CHUNK,
            previous: NO_BLOCK,
            next: NO_BLOCK,
        };
        Ok(Self {
            reader: SlabReader {
                region: Arc::new(region),
                #[cfg(debug_assertions)]
                generations: (0..unit_count).map(|_| std::sync::atomic::AtomicU32::new(0)).collect(),
            },
            shard,
            blocks: vec![block; block_count].into_boxed_slice(),
            block_touched_count: 0,
            empty_head: NO_BLOCK,
            open_heads: [NO_BLOCK; CHUNK_BYTES.len()],
            used_bytes: 0,
        })
    }

    /// A reader for another thread.
    #[must_use]
    pub fn reader(&self) -> SlabReader {
        self.reader.clone()
    }

    /// As [`SlabReader::bytes`].
    #[must_use]
    pub fn bytes<'a>(&'a self, handle: &'a TxHandle) -> &'a [u8] {
        self.reader.bytes(handle)
    }

    /// Bytes in chunks that are not free.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// Bytes that can be in use at most.
    #[must_use]
    pub fn capacity_bytes(&self) -> usize {
        self.reader.region.len
    }

    /// Takes a chunk for `len` bytes. `None`: the slab is at its limit (the sender gets -32005), or `len` is 0 or too large for any class.
    ///
    /// Runs on: the owning shard; never blocks, never allocates. On full: `Reject`.
    #[must_use]
    pub fn alloc(&mut self, len: usize) -> Option<Chunk<'_>> {
        let class = class_of(len)?;
        if self.open_heads[class] == NO_BLOCK {
            self.open_block(class)?;
        }
        let block_index = self.open_heads[class];
        let block = &mut self.blocks[block_index as usize];
        let chunk_index = if block.free_head == NO_CHUNK {
            block.touched_count += 1;
            block.touched_count - 1
        } else {
            block.free_head
        };
        let unit_index = unit_of(block_index, class, chunk_index);
        if block.free_head != NO_CHUNK {
            let next = self.read_link(unit_index);
            self.blocks[block_index as usize].free_head = next;
        }
        let block = &mut self.blocks[block_index as usize];
        block.used_count += 1;
        if block.used_count == chunk_count(class) {
            self.unlink(block_index);
        }
        self.used_bytes += CHUNK_BYTES[class];
        // `len` is at most the largest chunk.
        Some(Chunk { slab: self, unit_index, len: len as u32 })
    }

    /// Takes a chunk back.
    ///
    /// Runs on: the owning shard; never blocks, never allocates. Panics when the handle is another slab's.
    pub fn free(&mut self, handle: TxHandle) {
        assert_eq!(handle.slab_id, self.reader.region.slab_id, "handle of this slab");
        #[cfg(debug_assertions)]
        {
            let generation = &self.reader.generations[handle.unit_index as usize];
            // ORDERING: Relaxed; only this thread writes, and readers are ordered by the ring that brings them the next handle.
            assert_eq!(generation.load(Ordering::Relaxed), handle.generation, "chunk freed twice");
            generation.store(handle.generation.wrapping_add(1), Ordering::Relaxed);
        }
        self.release(handle.unit_index);
    }

    fn generation(&self, unit_index: u32) -> u32 {
        #[cfg(debug_assertions)]
        // ORDERING: Relaxed; this thread is the only writer.
        return self.reader.generations[unit_index as usize].load(Ordering::Relaxed);
        #[cfg(not(debug_assertions))]
        {
            let _ = unit_index;
            0
        }
    }

    fn release(&mut self, unit_index: u32) {
        let block_index = unit_index / (BLOCK_BYTES / UNIT_BYTES) as u32;
        let block = self.blocks[block_index as usize];
        let class = usize::from(block.class);
        let chunk_index = (unit_index - unit_of(block_index, class, 0)) / (CHUNK_BYTES[class] / UNIT_BYTES) as u32;
        assert!(block.used_count > 0, "a block whose chunk comes back has a used one");
        self.write_link(unit_index, block.free_head);
        let was_full = block.used_count == chunk_count(class);
        let block = &mut self.blocks[block_index as usize];
        // Below `chunk_count`, which fits 16 bits.
        block.free_head = chunk_index as u16;
        block.used_count -= 1;
        self.used_bytes -= CHUNK_BYTES[class];
        if self.blocks[block_index as usize].used_count == 0 {
            if !was_full {
                self.unlink(block_index);
            }
            self.blocks[block_index as usize].next = self.empty_head;
            self.empty_head = block_index;
        } else if was_full {
            self.link(block_index);
        }
    }

    /// Gives an empty block to a class that has no free chunk.
    fn open_block(&mut self, class: usize) -> Option<()> {
        let block_index = if self.empty_head != NO_BLOCK {
            let index = self.empty_head;
            self.empty_head = self.blocks[index as usize].next;
            index
        } else if (self.block_touched_count as usize) < self.blocks.len() {
            self.block_touched_count += 1;
            self.block_touched_count - 1
        } else {
            return None;
        };
        self.blocks[block_index as usize] = Block {
            class: class as u8,
            used_count: 0,
            touched_count: 0,
            free_head: NO_CHUNK,
            previous: NO_BLOCK,
            next: NO_BLOCK,
        };
        self.link(block_index);
        Some(())
    }

    fn link(&mut self, block_index: u32) {
        let class = usize::from(self.blocks[block_index as usize].class);
        let next = self.open_heads[class];
        self.blocks[block_index as usize].next = next;
        self.blocks[block_index as usize].previous = NO_BLOCK;
        if next != NO_BLOCK {
            self.blocks[next as usize].previous = block_index;
        }
        self.open_heads[class] = block_index;
    }

    fn unlink(&mut self, block_index: u32) {
        let Block { class, previous, next, .. } = self.blocks[block_index as usize];
        match previous {
            NO_BLOCK => self.open_heads[usize::from(class)] = next,
            previous => self.blocks[previous as usize].next = next,
        }
        if next != NO_BLOCK {
            self.blocks[next as usize].previous = previous;
        }
    }

    fn read_link(&self, unit_index: u32) -> u16 {
        let start = self.reader.region.chunk_ptr(unit_index, size_of::<u16>()).cast::<u16>();
        // SAFETY: the chunk is free, so only this thread reaches it; chunks start at multiples of 256 bytes of a page-aligned mapping.
        unsafe { start.read() }
    }

    fn write_link(&mut self, unit_index: u32, next: u16) {
        let start = self.reader.region.chunk_ptr(unit_index, size_of::<u16>()).cast::<u16>();
        // SAFETY: the chunk's only handle was taken by value, so only this thread reaches it; aligned as in `read_link`.
        unsafe { start.write(next) }
    }
}

/// A chunk being written. Dropping it instead of freezing it gives it back.
pub struct Chunk<'a> {
    slab: &'a mut Slab,
    unit_index: u32,
    len: u32,
}

impl Chunk<'_> {
    /// Ends writing: from now on the bytes are read only, by whoever holds the handle.
    pub fn freeze(self) -> TxHandle {
        let handle = TxHandle {
            unit_index: self.unit_index,
            len: self.len,
            generation: self.slab.generation(self.unit_index),
            slab_id: self.slab.reader.region.slab_id,
            shard: self.slab.shard,
        };
        std::mem::forget(self);
        handle
    }
}

impl Deref for Chunk<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let start = self.slab.reader.region.chunk_ptr(self.unit_index, self.len as usize);
        // SAFETY: the chunk was taken from the free list for this `Chunk` and has no handle yet; it is initialised memory.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), self.len as usize) }
    }
}

impl DerefMut for Chunk<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        let start = self.slab.reader.region.chunk_ptr(self.unit_index, self.len as usize);
        // SAFETY: as in `deref`; `&mut self` makes this the only borrow of the chunk.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.len as usize) }
    }
}

impl Drop for Chunk<'_> {
    fn drop(&mut self) {
        self.slab.release(self.unit_index);
    }
}

/// The smallest class that holds `len` bytes.
fn class_of(len: usize) -> Option<usize> {
    if len == 0 { None } else { CHUNK_BYTES.iter().position(|&chunk_bytes| len <= chunk_bytes) }
}

const fn chunk_count(class: usize) -> u16 {
    // At most 1,152.
    (BLOCK_BYTES / CHUNK_BYTES[class]) as u16
}

fn unit_of(block_index: u32, class: usize, chunk_index: u16) -> u32 {
    let units_per_block = (BLOCK_BYTES / UNIT_BYTES) as u32;
    block_index * units_per_block + u32::from(chunk_index) * (CHUNK_BYTES[class] / UNIT_BYTES) as u32
}

/// A number that none of the last 65,535 slabs of the process has, so that a handle can be checked against the slab it is used with.
fn next_slab_id() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // ORDERING: Relaxed; only the number matters. It wraps: a process has a slab per shard, a simulation makes millions, few at a time.
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests;
