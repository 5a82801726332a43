//! Shares the work of a commit between the thread that makes it and the hash pool.
//!
//! Owner core: whoever commits. That thread works itself from the first moment on; threads of the pool join in when they have woken up (40 to 80 µs), so
//! that little is lost by asking for them. Deliberately absent: where work is cut.

use crossbeam::queue::ArrayQueue;
use rayon::ThreadPool;

/// Who works on a commit: this thread, and threads of the pool beside it.
#[derive(Clone, Copy)]
pub struct Crew<'p> {
    pool: &'p ThreadPool,
    is_spread: bool,
}

impl<'p> Crew<'p> {
    /// `is_spread: false`: this thread alone.
    #[must_use]
    pub fn new(pool: &'p ThreadPool, is_spread: bool) -> Self {
        Self { pool, is_spread }
    }

    /// Whether the work is to be cut into pieces, even where one thread does all of them: a run must fit its segment.
    #[must_use]
    pub fn is_spread(self) -> bool {
        self.is_spread
    }

    /// Wakes a thread of the pool, because there will be work for it soon.
    pub fn rouse(self) {
        if self.is_spread && self.pool.current_num_threads() > 1 {
            self.pool.spawn(|| ());
        }
    }

    /// Works on each item, in any order; the results are in the order of the items.
    pub fn each<I: Send, T: Send>(self, items: impl IntoIterator<Item = I>, work: impl Fn(I) -> T + Sync) -> Vec<T> {
        self.each_with(items, || (), |(), item| work(item))
    }

    /// As [`Crew::each`]; what `tools` makes is made once by each thread that takes part.
    pub fn each_with<I: Send, U, T: Send>(
        self,
        items: impl IntoIterator<Item = I>,
        tools: impl Fn() -> U + Sync,
        work: impl Fn(&mut U, I) -> T + Sync,
    ) -> Vec<T> {
        // This thread stands for one of the pool's.
        if !self.is_spread || self.pool.current_num_threads() == 1 {
            let mut own = tools();
            return items.into_iter().map(|item| work(&mut own, item)).collect();
        }
        let waiting: Vec<(usize, I)> = items.into_iter().enumerate().collect();
        if waiting.is_empty() {
            return Vec::new();
        }
        let helper_count = self.pool.current_num_threads().min(waiting.len()) - 1;
        let (items, done) = (ArrayQueue::new(waiting.len()), ArrayQueue::new(waiting.len()));
        for item in waiting {
            assert!(items.push(item).is_ok(), "there is room for all");
        }
        let take_part = || {
            let mut own = None;
            while let Some((number, item)) = items.pop() {
                let result = work(own.get_or_insert_with(&tools), item);
                assert!(done.push((number, result)).is_ok(), "there is room for all");
            }
        };
        self.pool.in_place_scope(|scope| {
            for _ in 0..helper_count {
                scope.spawn(|_| take_part());
            }
            take_part();
        });
        let mut done: Vec<(usize, T)> = done.into_iter().collect();
        done.sort_unstable_by_key(|(number, _)| *number);
        done.into_iter().map(|(_, result)| result).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items_whoever_worked() {
        for threads in 1..=3 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for is_spread in [false, true] {
                let crew = Crew::new(&pool, is_spread);
                assert_eq!(crew.is_spread(), is_spread);
                for count in [0, 1, 2, 1_000] {
                    assert_eq!(
                        crew.each(0..count, |item| item * 2),
                        (0..count).map(|item| item * 2).collect::<Vec<_>>()
                    );
                }
            }
        }
    }

    #[test]
    fn items_may_be_borrowed_for_writing_and_tools_are_used_again() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let mut words = vec![0_u64; 100];
        let made = AtomicUsize::new(0);
        let tools = || made.fetch_add(1, Ordering::Relaxed);
        Crew::new(&pool, true).each_with(words.iter_mut().enumerate(), tools, |_, (index, word)| *word = index as u64);
        assert_eq!(words, (0..100).collect::<Vec<_>>());
        assert!((1..=2).contains(&made.into_inner()));
    }
}
