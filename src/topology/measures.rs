//! Transactions whose witness query threads measure for the builder core, and what they found.

use crossbeam::channel::{Receiver, Sender, bounded};
use crossbeam::queue::ArrayQueue;

use crate::messages::{MeasureJob, MeasuredWitness};

/// Transactions that wait to be measured; each may take as long as its gas takes to execute. The builder core tries others again later.
const MEASURES_MAX: usize = 256;

/// See the module's text.
pub struct Measures {
    to_pool: Sender<MeasureJob>,
    jobs: Receiver<MeasureJob>,
    /// As many as are asked for at a time, so there is always room: those in the channel, and one in the hands of each query thread.
    measured: ArrayQueue<MeasuredWitness>,
}

impl Default for Measures {
    fn default() -> Self {
        let (to_pool, jobs) = bounded(MEASURES_MAX);
        Self { to_pool, jobs, measured: ArrayQueue::new(4 * MEASURES_MAX) }
    }
}

impl Measures {
    /// Asks for a transaction to be measured; false when too many wait. Never waits.
    ///
    /// Runs on: builder core.
    #[must_use]
    pub fn ask(&self, job: MeasureJob) -> bool {
        self.measured.len() < MEASURES_MAX && self.to_pool.try_send(job).is_ok()
    }

    /// Where query threads find what is to be measured.
    #[must_use]
    pub fn jobs(&self) -> &Receiver<MeasureJob> {
        &self.jobs
    }

    /// Takes what a query thread has found. The builder core is to be woken then.
    pub fn answer(&self, measured: MeasuredWitness) {
        let pushed = self.measured.push(measured);
        assert!(pushed.is_ok(), "there is room for everything that was asked for");
    }

    /// What was found and not taken yet.
    #[must_use]
    pub fn take(&self) -> Option<MeasuredWitness> {
        self.measured.pop()
    }

    #[must_use]
    pub fn has_answers(&self) -> bool {
        !self.measured.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::{Address, B256, Bytes};

    #[test]
    fn what_is_asked_for_is_bounded_and_comes_back() {
        let measures = Measures::default();
        let job = |number: usize| MeasureJob {
            hash: B256::with_last_byte(number as u8),
            raw: Bytes::new(),
            sender: Address::ZERO,
            authorities: Vec::new(),
        };
        let asked = (0..2 * MEASURES_MAX).filter(|number| measures.ask(job(*number))).count();
        assert_eq!(asked, MEASURES_MAX);
        assert!(!measures.has_answers());
        for job in measures.jobs().try_iter() {
            measures.answer(MeasuredWitness { hash: job.hash, bytes: Some(1) });
        }
        // The answers must be taken before more is asked for.
        assert!(!measures.ask(job(0)));
        assert!(measures.take().is_some());
        assert!(measures.ask(job(0)));
    }
}
