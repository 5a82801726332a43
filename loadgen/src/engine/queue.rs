//! The accounting of one connection: intended times in, send times and latencies out. Pure; the caller brings the clock.
//!
//! Latency counts from the intended time. A request that had to wait (for the bound on outstanding requests, or for a
//! generator that was late) carries that wait in its latency; otherwise a stalled node would look fast, because nothing
//! is sent to it while it stalls ("coordinated omission").

use std::ops::Range;

/// The history of one request. `NEVER` stands for what did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub intended_ns: u64,
    pub sent_ns: u64,
    pub answered_ns: u64,
}

pub const NEVER: u64 = u64::MAX;

impl Record {
    pub const fn latency_ns(&self) -> Option<u64> {
        if self.answered_ns == NEVER { None } else { Some(self.answered_ns.saturating_sub(self.intended_ns)) }
    }
}

/// Requests of one connection: sent in order, answered in order (HTTP/1.1) or in any (WebSocket).
#[derive(Debug)]
pub struct RequestQueue {
    records: Vec<Record>,
    /// Requests before this index may be sent.
    due: usize,
    sent: usize,
    /// Requests before this index have an answer, or never get one.
    settled: usize,
    /// Requests sent that wait for an answer.
    outstanding: usize,
    outstanding_max: usize,
    intended_is_sent: bool,
}

impl RequestQueue {
    /// Open loop: each request has its intended time, and `make_due` releases them one by one.
    pub fn open(intended_ns: impl Iterator<Item = u64>, outstanding_max: usize) -> Self {
        let records =
            intended_ns.map(|intended_ns| Record { intended_ns, sent_ns: NEVER, answered_ns: NEVER }).collect();
        Self { records, due: 0, sent: 0, settled: 0, outstanding: 0, outstanding_max, intended_is_sent: false }
    }

    /// Closed loop: a request is intended when the bound on outstanding requests lets it go.
    pub fn closed(count: usize, outstanding_max: usize) -> Self {
        let record = Record { intended_ns: NEVER, sent_ns: NEVER, answered_ns: NEVER };
        let records = vec![record; count];
        Self { records, due: count, sent: 0, settled: 0, outstanding: 0, outstanding_max, intended_is_sent: true }
    }

    /// Releases the next request; returns its intended time.
    pub fn make_due(&mut self) -> u64 {
        let intended_ns = self.records[self.due].intended_ns;
        self.due += 1;
        intended_ns
    }

    /// The requests that may be sent now.
    pub fn sendable(&self) -> Range<usize> {
        self.sent..self.due.min(self.sent + self.outstanding_max.saturating_sub(self.outstanding)).max(self.sent)
    }

    /// Notes that everything before `end` has been handed to the socket.
    pub fn mark_sent(&mut self, end: usize, now_ns: u64) {
        for record in &mut self.records[self.sent..end] {
            record.sent_ns = now_ns;
            if self.intended_is_sent {
                record.intended_ns = now_ns;
            }
        }
        self.outstanding += end - self.sent;
        self.sent = end;
    }

    /// The oldest request without an answer; `None` when nothing is outstanding.
    pub const fn oldest(&self) -> Option<usize> {
        if self.settled == self.sent { None } else { Some(self.settled) }
    }

    /// Notes the answer to a request; `None` when it has one, or was given up, or was never sent.
    pub fn mark_answered(&mut self, index: usize, now_ns: u64) -> Option<Record> {
        if !(self.settled..self.sent).contains(&index) || self.records[index].answered_ns != NEVER {
            return None;
        }
        self.outstanding -= 1;
        self.records[index].answered_ns = now_ns;
        while self.settled < self.sent && self.records[self.settled].answered_ns != NEVER {
            self.settled += 1;
        }
        Some(self.records[index])
    }

    /// Gives up on everything outstanding: the connection is gone.
    pub fn fail_outstanding(&mut self) -> Vec<usize> {
        let failed = (self.settled..self.sent).filter(|&index| self.records[index].answered_ns == NEVER).collect();
        (self.settled, self.outstanding) = (self.sent, 0);
        failed
    }

    /// Sends nothing more.
    pub fn stop(&mut self) {
        self.due = self.sent;
    }

    pub const fn sent(&self) -> usize {
        self.sent
    }

    pub const fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Nothing is due or outstanding. In an open loop more may become due.
    pub const fn is_idle(&self) -> bool {
        self.sent == self.due && self.outstanding == 0
    }

    pub fn into_records(self) -> Vec<Record> {
        self.records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_counts_from_the_intended_time() {
        // Three requests at 0, 10 and 20; one may be outstanding; the node stalls until 100 on the first.
        let mut queue = RequestQueue::open([0, 10, 20].into_iter(), 1);
        assert_eq!(queue.make_due(), 0);
        assert_eq!(queue.sendable(), 0..1);
        queue.mark_sent(1, 1);
        assert_eq!((queue.make_due(), queue.make_due()), (10, 20));
        assert_eq!(queue.sendable(), 1..1);
        assert_eq!(queue.mark_answered(0, 100).unwrap().latency_ns(), Some(100));
        assert_eq!(queue.sendable(), 1..2);
        queue.mark_sent(2, 101);
        // Served within 4, but 95 late: both are in the latency.
        assert_eq!(queue.mark_answered(1, 105).unwrap().latency_ns(), Some(95));
        queue.mark_sent(3, 106);
        assert!(!queue.is_idle());
        assert_eq!(queue.oldest(), Some(2));
        let record = Record { intended_ns: 20, sent_ns: 106, answered_ns: 110 };
        assert_eq!(queue.mark_answered(2, 110), Some(record));
        assert!(queue.is_idle());
        assert_eq!((queue.oldest(), queue.mark_answered(2, 111)), (None, None));
    }

    #[test]
    fn closed_loop_intends_when_it_sends() {
        let mut queue = RequestQueue::closed(5, 2);
        assert_eq!(queue.sendable(), 0..2);
        queue.mark_sent(2, 7);
        assert_eq!(queue.sendable(), 2..2);
        assert_eq!(queue.mark_answered(0, 19).unwrap().latency_ns(), Some(12));
        assert_eq!(queue.sendable(), 2..3);
        queue.mark_sent(3, 19);
        assert_eq!(queue.outstanding(), 2);
        queue.stop();
        assert_eq!(queue.sendable(), 3..3);
        assert_eq!(queue.fail_outstanding(), [1, 2]);
        assert!(queue.is_idle());
        let records = queue.into_records();
        assert_eq!(records[1].latency_ns(), None);
        assert_eq!(records[4].sent_ns, NEVER);
    }

    #[test]
    fn a_stop_between_due_and_sent_drops_what_was_not_sent() {
        let mut queue = RequestQueue::open([0, 0, 0].into_iter(), 1);
        for _ in 0..3 {
            queue.make_due();
        }
        queue.mark_sent(1, 0);
        queue.stop();
        assert!(queue.mark_answered(0, 5).is_some());
        assert!(queue.is_idle());
        assert_eq!(queue.into_records().iter().filter(|r| r.sent_ns == NEVER).count(), 2);
    }

    #[test]
    fn answers_may_come_in_any_order() {
        let mut queue = RequestQueue::closed(6, 3);
        queue.mark_sent(3, 1);
        assert_eq!(queue.mark_answered(2, 5).unwrap().latency_ns(), Some(4));
        assert_eq!((queue.oldest(), queue.outstanding(), queue.sendable()), (Some(0), 2, 3..4));
        assert_eq!(queue.mark_answered(2, 6), None);
        assert_eq!(queue.mark_answered(3, 6), None);
        queue.mark_sent(4, 7);
        assert!(queue.mark_answered(0, 8).is_some());
        assert_eq!((queue.oldest(), queue.outstanding()), (Some(1), 2));
        assert_eq!(queue.fail_outstanding(), [1, 3]);
        assert_eq!((queue.oldest(), queue.outstanding()), (None, 0));
    }
}
