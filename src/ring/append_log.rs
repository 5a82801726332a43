#![allow(unsafe_code, reason = "slots are written once by the only writer and read below a published length")]
//! An append-only sequence that one thread writes and any thread reads without locks: values never move and never change.
//!
//! Memory is taken in chunks, four of 256 values first, then four of twice as many and so on: a writer takes some a few times per block, not
//! once per value, and a log holds little more than it needs, be it of one value. Each has [`Pages`] of its own: as pieces of the allocator's
//! memory they moved within it from block to block and left it larger for as long as a load lasted. A log made from an [`AppendStock`] gives its chunks back to it, so that its successor writes to pages that the kernel has given already.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::queue::ArrayQueue;

use crate::runtime::pages::Pages;

const FIRST_CHUNK_SLOTS: usize = 256;
/// Chunks of one size.
const CHUNKS_OF_A_SIZE: usize = 4;
/// 4 × 256 × (2^16 − 1) values: far above twice any block's limits, which are checked before a value is made.
const CHUNKS_MAX: usize = 16 * CHUNKS_OF_A_SIZE;
/// Slots that a stock keeps of a log however short the newest is, the first 24 chunks: a burst after an empty block meets no page fault, and what
/// a rare, larger log took goes back to the kernel.
const SLOTS_KEPT: usize = first_slot_of(24);

/// Makes an empty log: the writer's handle and the readers' handle.
#[must_use]
pub fn append_log<T: Send + Sync>() -> (AppendWriter<T>, AppendReader<T>) {
    with_memory(Memory::new(), None)
}

fn with_memory<T>(memory: Memory<T>, home: Option<Arc<AppendStock<T>>>) -> (AppendWriter<T>, AppendReader<T>) {
    let log = Arc::new(Log { len: AtomicUsize::new(0), memory, home });
    (AppendWriter { log: Arc::clone(&log), len: 0 }, AppendReader { log })
}

/// Memory of logs that are gone, for logs to come. Never waits; what it has no place for is freed.
pub struct AppendStock<T>(ArrayQueue<Memory<T>>);

impl<T: Send + Sync> AppendStock<T> {
    /// An empty stock with places for the memory of `logs` logs.
    #[must_use]
    pub fn new(logs: usize) -> Self {
        Self(ArrayQueue::new(logs))
    }

    /// [`append_log`] with memory of the stock, if there is any.
    #[must_use]
    pub fn append_log(self: &Arc<Self>) -> (AppendWriter<T>, AppendReader<T>) {
        with_memory(self.0.pop().unwrap_or_else(Memory::new), Some(Arc::clone(self)))
    }

    /// Sees to it that `logs` logs of `count` values can be written without a page fault, and that each is resident as far as
    /// [`AppendWriter::held_bytes`] says. Takes the time of those faults. What neither a log of twice as many nor
    /// [`SLOTS_KEPT`] need goes back to the kernel.
    pub fn prepare(&self, logs: usize, count: usize) {
        for _ in 0..logs {
            let mut memory = self.0.pop().unwrap_or_else(Memory::new);
            memory.trim(SLOTS_KEPT.max(count * 2));
            memory.touch(count);
            drop(self.0.push(memory));
        }
    }
}

/// Room for as many values as its pages hold.
struct Chunk<T> {
    pages: Pages,
    values: PhantomData<T>,
}

impl<T> Chunk<T> {
    fn new(slots: usize) -> Self {
        const { assert!(align_of::<T>() <= 4_096, "a page's alignment is all that a chunk has") };
        Self { pages: Pages::new(slots * size_of::<T>()), values: PhantomData }
    }

    /// The place of a value, aligned for it: inside the pages, or `Pages::at` panics.
    fn slot(&self, offset: usize) -> *mut T {
        self.pages.at(offset * size_of::<T>()).cast()
    }
}

struct Memory<T> {
    chunks: [OnceLock<Chunk<T>>; CHUNKS_MAX],
    /// Slots, from the first, whose pages have been written.
    touched_count: usize,
}

// SAFETY: chunks outside a log hold no values; inside one `Log`'s own rules count.
unsafe impl<T: Send + Sync> Send for Memory<T> {}

impl<T> Memory<T> {
    fn new() -> Self {
        Self { chunks: [const { OnceLock::new() }; CHUNKS_MAX], touched_count: 0 }
    }

    fn chunk(&self, chunk: usize) -> &Chunk<T> {
        self.chunks[chunk].get_or_init(|| Chunk::new(slots_of(chunk)))
    }

    /// Writes to every page of the chunks that hold the first `count` slots. Whole chunks: were it only what is asked for, memory that has
    /// passed through many logs would grow towards the longest of them, for minutes and beyond what is seen.
    fn touch(&mut self, count: usize) {
        while self.touched_count < count {
            let (chunk, offset) = locate(self.touched_count);
            let (chunk, slots) = (self.chunk(chunk), slots_of(chunk) - offset);
            // SAFETY: `&mut self` and no log around it: nobody reads these slots, which hold no values; they are the chunk's last `slots`.
            unsafe { chunk.slot(offset).write_bytes(0, slots) };
            self.touched_count += slots;
        }
    }

    /// Gives back the chunks that do not hold any of the first `count ≥ 1` slots.
    fn trim(&mut self, count: usize) {
        let kept = locate(count - 1).0 + 1;
        self.chunks[kept..].fill_with(OnceLock::new);
        self.touched_count = self.touched_count.min(first_slot_of(kept));
    }
}

struct Log<T> {
    len: AtomicUsize,
    memory: Memory<T>,
    home: Option<Arc<AppendStock<T>>>,
}

// SAFETY: values go in on the writer's thread and are read by shared reference on others: `T: Send + Sync` is what both need.
unsafe impl<T: Send + Sync> Sync for Log<T> {}
// SAFETY: as above; dropping the log drops its values on whichever thread is last.
unsafe impl<T: Send + Sync> Send for Log<T> {}

/// Chunk and place in it of a slot.
fn locate(index: usize) -> (usize, usize) {
    let size = (index / (CHUNKS_OF_A_SIZE * FIRST_CHUNK_SLOTS) + 1).ilog2() as usize;
    let of_size = index - first_slot_of(size * CHUNKS_OF_A_SIZE);
    let slots = FIRST_CHUNK_SLOTS << size;
    (size * CHUNKS_OF_A_SIZE + of_size / slots, of_size % slots)
}

const fn slots_of(chunk: usize) -> usize {
    FIRST_CHUNK_SLOTS << (chunk / CHUNKS_OF_A_SIZE)
}

const fn first_slot_of(chunk: usize) -> usize {
    let (size, of_size) = (chunk / CHUNKS_OF_A_SIZE, chunk % CHUNKS_OF_A_SIZE);
    FIRST_CHUNK_SLOTS * (CHUNKS_OF_A_SIZE * ((1 << size) - 1) + (of_size << size))
}

impl<T> Log<T> {
    fn slot(&self, index: usize) -> *mut T {
        let (chunk, offset) = locate(index);
        self.memory.chunk(chunk).slot(offset)
    }
}

impl<T> Drop for Log<T> {
    fn drop(&mut self) {
        let len = *self.len.get_mut();
        if std::mem::needs_drop::<T>() {
            for index in 0..len {
                // SAFETY: nobody else holds the log any more (`&mut self`); every slot below `len` was written once by `push` and is dropped here once.
                unsafe { self.slot(index).drop_in_place() };
            }
        }
        if let Some(home) = self.home.take() {
            let mut memory = std::mem::replace(&mut self.memory, Memory::new());
            memory.touched_count = memory.touched_count.max(len);
            drop(home.0.push(memory));
        }
    }
}

/// The only writer of a log. Not `Clone`: uniqueness is the proof that slots at and above `len` are its own.
pub struct AppendWriter<T> {
    log: Arc<Log<T>>,
    len: usize,
}

impl<T> AppendWriter<T> {
    /// Appends and publishes `value`; returns its index.
    pub fn push(&mut self, value: T) -> usize {
        let index = self.len;
        self.put(index, value);
        self.len = index + 1;
        // ORDERING: Release publishes the slot; pairs with the Acquire in `AppendReader::len`.
        self.log.len.store(self.len, Ordering::Release);
        index
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Memory of the chunks that the log has, filled or not, without what values point to: what a stock has prepared is resident as a whole.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let chunks = self.log.memory.chunks.iter().filter_map(OnceLock::get);
        chunks.map(|chunk| chunk.pages.len()).sum()
    }

    fn put(&mut self, index: usize, value: T) {
        let slot = self.log.slot(index);
        // SAFETY: `index ≥` the published length, so no reader touches the slot, and `&mut self` is the only writer.
        unsafe { slot.write(value) };
    }
}

/// A reader's handle.
pub struct AppendReader<T> {
    log: Arc<Log<T>>,
}

impl<T> Clone for AppendReader<T> {
    fn clone(&self) -> Self {
        Self { log: Arc::clone(&self.log) }
    }
}

impl<T> AppendReader<T> {
    /// Values published so far.
    #[must_use]
    pub fn len(&self) -> usize {
        // ORDERING: Acquire pairs with the Release in `AppendWriter::push`.
        self.log.len.load(Ordering::Acquire)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at `index`, or `None` when it is not published yet.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&T> {
        (index < self.len()).then(|| self.published(index))
    }

    /// The published values of `range`, cut at the published length.
    pub fn range(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = &T> + Clone {
        let end = range.end.min(self.len());
        (range.start.min(end)..end).map(|index| self.published(index))
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.range(0..usize::MAX)
    }

    fn published(&self, index: usize) -> &T {
        let slot = self.log.slot(index);
        // SAFETY: callers checked `index < len` after an Acquire load: the slot was written before and is never written again.
        unsafe { &*slot }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_grow_and_cover_every_index_once() {
        let mut start = 0;
        for chunk in 0..CHUNKS_MAX {
            assert_eq!(first_slot_of(chunk), start);
            let slots = slots_of(chunk);
            assert_eq!((locate(start), locate(start + slots - 1)), ((chunk, 0), (chunk, slots - 1)));
            start += slots;
        }
        assert_eq!([0, 3, 4, 7, 8].map(slots_of), [256, 256, 512, 512, 1_024]);
    }

    #[test]
    fn a_stock_gives_the_memory_of_a_log_to_the_next() {
        let stock = Arc::new(AppendStock::<Arc<u8>>::new(1));
        stock.prepare(2, FIRST_CHUNK_SLOTS + 1);
        let value = Arc::new(7);
        let fill = |count: usize| {
            let (mut writer, reader) = stock.append_log();
            for _ in 0..count {
                writer.push(Arc::clone(&value));
            }
            assert_eq!(reader.len(), count);
            let first = std::ptr::from_ref(reader.get(0).expect("published"));
            (first, writer, reader)
        };
        let held = |slots: usize| slots * size_of::<Arc<u8>>();
        let (first, writer, reader) = fill(1);
        assert_eq!(writer.held_bytes(), held(2 * FIRST_CHUNK_SLOTS), "what is prepared is held, written or not");
        drop((writer, reader));
        let (again, writer, reader) = fill(100_000);
        assert_eq!(again, first, "it grows where it is");
        drop((writer, reader));
        assert_eq!(Arc::strong_count(&value), 1, "the values of a log that is gone are dropped");
        let (again, writer, reader) = fill(3);
        assert_eq!(again, first);
        assert_eq!(
            writer.held_bytes(),
            held(first_slot_of(locate(99_999).0 + 1)),
            "the chunks that 100,000 values reach into"
        );
        drop((writer, reader));
        stock.prepare(1, 50_000);
        let (_, writer, reader) = fill(3);
        assert_eq!(
            writer.held_bytes(),
            held(first_slot_of(locate(99_999).0 + 1)),
            "a log of twice as many needs it all"
        );
        drop((writer, reader));
        stock.prepare(1, 0);
        let (again, writer, _reader) = fill(3);
        assert_eq!(again, first);
        assert_eq!(writer.held_bytes(), held(SLOTS_KEPT), "what was taken for a rare, larger one is gone");
        let (other, ..) = fill(1);
        assert_ne!(other, first, "memory serves one log at a time");
    }

    #[test]
    fn a_reader_sees_a_prefix_while_the_writer_appends() {
        let (mut writer, reader) = append_log::<Box<usize>>();
        let watcher = {
            let reader = reader.clone();
            std::thread::spawn(move || {
                while reader.len() < 30_000 {
                    let len = reader.len();
                    assert!(reader.iter().take(len).enumerate().skip(len.saturating_sub(3)).all(|(i, v)| **v == i));
                }
            })
        };
        for value in 0..30_000 {
            assert_eq!(writer.push(Box::new(value)), value);
        }
        watcher.join().expect("the reader saw only published values");
        assert_eq!(reader.get(30_000), None);
        assert_eq!(reader.range(29_999..40_000).count(), 1);
    }
}
