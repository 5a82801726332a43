#![allow(unsafe_code, reason = "slots are written once by the only writer and read below a published length")]
//! An append-only sequence that one thread writes and any thread reads without locks: values never move and never change.
//!
//! Memory is taken in chunks that double (8,192 values first), so a writer allocates about once per block, not once per value.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

const FIRST_CHUNK_SLOTS: usize = 8_192;
/// 8,192 × (2^15 − 1) values: far above any block's limits, which are checked before a value is made.
const CHUNKS_MAX: usize = 15;

/// Makes an empty log: the writer's handle and the readers' handle.
#[must_use]
pub fn append_log<T: Send + Sync>() -> (AppendWriter<T>, AppendReader<T>) {
    let log = Arc::new(Log { len: AtomicUsize::new(0), chunks: [const { OnceLock::new() }; CHUNKS_MAX] });
    (AppendWriter { log: Arc::clone(&log), len: 0 }, AppendReader { log })
}

type Chunk<T> = Box<[UnsafeCell<MaybeUninit<T>>]>;

struct Log<T> {
    len: AtomicUsize,
    chunks: [OnceLock<Chunk<T>>; CHUNKS_MAX],
}

// SAFETY: values go in on the writer's thread and are read by shared reference on others: `T: Send + Sync` is what both need.
unsafe impl<T: Send + Sync> Sync for Log<T> {}
// SAFETY: as above; dropping the log drops its values on whichever thread is last.
unsafe impl<T: Send + Sync> Send for Log<T> {}

fn locate(index: usize) -> (usize, usize) {
    let scaled = index / FIRST_CHUNK_SLOTS + 1;
    let chunk = scaled.ilog2() as usize;
    (chunk, index - FIRST_CHUNK_SLOTS * ((1 << chunk) - 1))
}

impl<T> Log<T> {
    fn slot(&self, index: usize) -> &UnsafeCell<MaybeUninit<T>> {
        let (chunk, offset) = locate(index);
        let slots = self.chunks[chunk].get_or_init(|| {
            let count = FIRST_CHUNK_SLOTS << chunk;
            let uninit = Box::<[UnsafeCell<MaybeUninit<T>>]>::new_uninit_slice(count);
            // SAFETY: an `UnsafeCell<MaybeUninit<T>>` needs no initialisation.
            unsafe { uninit.assume_init() }
        });
        &slots[offset]
    }
}

impl<T> Drop for Log<T> {
    fn drop(&mut self) {
        let len = *self.len.get_mut();
        if std::mem::needs_drop::<T>() {
            for index in 0..len {
                let cell = self.slot(index).get();
                // SAFETY: nobody else holds the log any more (`&mut self`), so the cell can be borrowed mutably.
                let slot = unsafe { &mut *cell };
                // SAFETY: every slot below `len` was written once by `push` and is dropped here once.
                unsafe { slot.assume_init_drop() };
            }
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

    fn put(&mut self, index: usize, value: T) {
        let cell = self.log.slot(index).get();
        // SAFETY: `index ≥` the published length, so no reader touches the slot, and `&mut self` is the only writer.
        unsafe { cell.write(MaybeUninit::new(value)) };
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
        let cell = self.log.slot(index).get();
        // SAFETY: callers checked `index < len` after an Acquire load: the slot was written before and is never written again.
        let slot = unsafe { &*cell };
        // SAFETY: as above, the slot is initialised.
        unsafe { slot.assume_init_ref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_double_and_cover_every_index_once() {
        assert_eq!(locate(0), (0, 0));
        assert_eq!(locate(FIRST_CHUNK_SLOTS - 1), (0, FIRST_CHUNK_SLOTS - 1));
        assert_eq!(locate(FIRST_CHUNK_SLOTS), (1, 0));
        assert_eq!(locate(3 * FIRST_CHUNK_SLOTS - 1), (1, 2 * FIRST_CHUNK_SLOTS - 1));
        assert_eq!(locate(3 * FIRST_CHUNK_SLOTS), (2, 0));
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
