//! What the operator wants of the pool, on its way from the `admin` thread to the builder core.

use crossbeam::queue::ArrayQueue;

use crate::messages::OperatorJob;

/// Jobs that wait; an operator has one hand.
const OPERATOR_JOBS: usize = 16;

/// See the module's text. Each job carries the place of its own answer.
pub struct OperatorDesk {
    jobs: ArrayQueue<OperatorJob>,
}

impl Default for OperatorDesk {
    fn default() -> Self {
        Self { jobs: ArrayQueue::new(OPERATOR_JOBS) }
    }
}

impl OperatorDesk {
    /// Hands a job over; false when too many wait. The builder core is to be woken then. Runs on: `admin` thread.
    #[must_use]
    pub fn ask(&self, job: OperatorJob) -> bool {
        self.jobs.push(job).is_ok()
    }

    /// The next job. Runs on: builder core.
    #[must_use]
    pub fn take(&self) -> Option<OperatorJob> {
        // Two loads in nearly every turn.
        if self.jobs.is_empty() { None } else { self.jobs.pop() }
    }

    #[must_use]
    pub fn has_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }
}
