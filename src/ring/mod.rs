//! Hand-off between threads: bounded rings with a wake-up, and append-only logs that one thread writes and many read.
//!
//! A ring is a crossbeam `ArrayQueue` used by one producer and one consumer, each holding a handle that cannot be cloned, plus the
//! doorbell of the consumer; a [`Mailbox`] has several producers. A full ring returns the value to the producer, who names what happens then (`topology.rs`).

pub mod append_log;
pub mod byte_log;
pub mod doorbell;
pub mod gate;

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

pub use doorbell::Doorbell;
pub use gate::Gate;

/// Makes a ring of `slots` messages whose consumer sleeps behind `doorbell`.
#[must_use]
pub fn ring<T: Send>(slots: usize, doorbell: &Arc<Doorbell>) -> (Producer<T>, Consumer<T>) {
    let queue = Arc::new(ArrayQueue::new(slots));
    (Producer { queue: Arc::clone(&queue), doorbell: Arc::clone(doorbell) }, Consumer { queue })
}

/// The writing end. Not `Clone`: one producer is what the on-full policies and the credits count on.
pub struct Producer<T> {
    queue: Arc<ArrayQueue<T>>,
    doorbell: Arc<Doorbell>,
}

impl<T> Producer<T> {
    /// Appends without waking the consumer; a full ring returns the value. Call [`Producer::wake`] once after the turn's last push.
    ///
    /// # Errors
    /// The value itself when every slot is taken.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), T> {
        self.queue.push(value)
    }

    /// Wakes the consumer if it sleeps; no system call otherwise.
    #[inline]
    pub fn wake(&self) {
        self.doorbell.ring();
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    #[must_use]
    pub fn slots(&self) -> usize {
        self.queue.capacity()
    }
}

/// The reading end. Not `Clone`.
pub struct Consumer<T> {
    queue: Arc<ArrayQueue<T>>,
}

impl<T> Consumer<T> {
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        self.queue.pop()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }
}

/// A queue that many threads write and one reads, for messages too seldom to have a ring for each pair of threads. Who writes counts what it
/// has under way, as with rings.
pub struct Mailbox<T> {
    queue: ArrayQueue<T>,
    doorbell: Arc<Doorbell>,
}

impl<T> Mailbox<T> {
    /// A mailbox of `slots` messages whose reader sleeps behind `doorbell`.
    #[must_use]
    pub fn new(slots: usize, doorbell: &Arc<Doorbell>) -> Self {
        Self { queue: ArrayQueue::new(slots), doorbell: Arc::clone(doorbell) }
    }

    /// Appends and wakes the reader.
    ///
    /// # Errors
    /// The value itself when every slot is taken.
    pub fn push(&self, value: T) -> Result<(), T> {
        self.queue.push(value)?;
        self.doorbell.ring();
        Ok(())
    }

    /// The reader's alone.
    pub fn pop(&self) -> Option<T> {
        self.queue.pop()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_full_ring_returns_the_value_and_order_is_kept() {
        let doorbell = Arc::new(Doorbell::for_thread());
        let (mut tx, mut rx) = ring(2, &doorbell);
        assert_eq!((tx.push(1), tx.push(2), tx.push(3)), (Ok(()), Ok(()), Err(3)));
        assert_eq!((rx.pop(), rx.pop(), rx.pop()), (Some(1), Some(2), None));
    }

    #[test]
    fn nothing_pushed_before_a_park_is_missed() {
        let doorbell = Arc::new(Doorbell::for_thread());
        let (mut tx, mut rx) = ring::<u64>(64, &doorbell);
        let count = 20_000_u64;
        let consumer = std::thread::spawn(move || {
            doorbell.adopt_current_thread();
            let mut expected = 0;
            while expected < count {
                match rx.pop() {
                    Some(value) => {
                        assert_eq!(value, expected);
                        expected += 1;
                    }
                    None => doorbell.park(Some(Duration::from_secs(20)), || !rx.is_empty()),
                }
            }
        });
        for value in 0..count {
            let mut item = value;
            while let Err(back) = tx.push(item) {
                item = back;
                std::thread::yield_now();
            }
            tx.wake();
        }
        consumer.join().expect("the consumer saw every value in order");
    }
}
