//! When a shard recovers the signatures that it has, and how many: at once, or a little later together with those that are about to come.
//!
//! Owner core: ingress shard. A round of the vectors costs the same for one signature as for eight, so waiting saves work where many
//! connections send at their own pace: for a first round, and for what a turn has left beyond whole rounds. It is worth it only when somebody
//! else is about to send: who sends alone never waits.

use std::collections::VecDeque;

use crate::rpc::ConnectionKey;

/// Signatures with which nothing more is waited for: past four rounds of the vectors there is little to gain.
const ENOUGH_ITEMS: usize = 32;
/// Pauses count as no longer than this, so that a load is known after some thirty requests.
const GAP_NS_MAX: u64 = 10_000_000;
/// Requests in a row of one connection after which it counts as alone.
const ALONE_COUNT: u32 = 4;

/// What to do with the signatures that a shard has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The first so many are recovered now.
    Recover { count: usize },
    /// None is before this time.
    Wait { until_ns: u64 },
}

/// See the module's text.
#[derive(Debug)]
pub struct Former {
    wait_ns_max: u64,
    /// Moving average of the time between two reads with transactions, of different connections.
    gap_ns: u64,
    last_ns: u64,
    last_key: Option<ConnectionKey>,
    /// Reads in a row of `last_key`, the first not counted.
    repeat_count: u32,
    /// Of the signatures that wait: when they came, and how many then.
    arrivals: VecDeque<(u64, usize)>,
    item_count: usize,
}

impl Former {
    /// `wait_ns_max`: the longest that a signature waits for company; 0: none does.
    #[must_use]
    pub fn new(wait_ns_max: u64) -> Self {
        Self {
            wait_ns_max,
            gap_ns: GAP_NS_MAX,
            last_ns: 0,
            last_key: None,
            repeat_count: 0,
            arrivals: VecDeque::new(),
            item_count: 0,
        }
    }

    /// A connection brought transactions with so many signatures.
    pub fn on_input(&mut self, key: ConnectionKey, item_count: usize, now_ns: u64) {
        self.arrivals.push_back((now_ns, item_count));
        self.item_count += item_count;
        if self.last_key == Some(key) {
            self.repeat_count += 1;
            if self.repeat_count >= ALONE_COUNT {
                self.gap_ns = GAP_NS_MAX;
            }
            return;
        }
        let gap_ns = now_ns.saturating_sub(self.last_ns).min(GAP_NS_MAX);
        self.gap_ns = (7 * self.gap_ns + gap_ns) / 8;
        (self.last_ns, self.last_key, self.repeat_count) = (now_ns, Some(key), 0);
    }

    /// What to do at the end of a turn; afterwards [`Former::on_recovered`]. `round_items`: signatures that are recovered at the cost of one.
    #[must_use]
    pub fn judge(&self, round_items: usize, now_ns: u64) -> Verdict {
        let count = self.item_count;
        let Some(until_ns) = self.until_ns(0).filter(|_| self.expects_company()) else {
            return Verdict::Recover { count };
        };
        if count < ENOUGH_ITEMS && now_ns < until_ns {
            return Verdict::Wait { until_ns };
        }
        let left_count = count % round_items;
        // More than half a round is hardly worth keeping.
        let can_wait =
            left_count <= round_items / 2 && self.until_ns(count - left_count).is_some_and(|until| now_ns < until);
        Verdict::Recover { count: if can_wait { count - left_count } else { count } }
    }

    /// Only so many signatures are left, the newest. Answers until when they wait for more; `None`: they do not.
    pub fn on_recovered(&mut self, left_count: usize, now_ns: u64) -> Option<u64> {
        while self.item_count > left_count
            && let Some((_, count)) = self.arrivals.front_mut()
        {
            let taken = (*count).min(self.item_count - left_count);
            *count -= taken;
            self.item_count -= taken;
            if *count == 0 {
                self.arrivals.pop_front();
            }
        }
        let is_short = left_count < ENOUGH_ITEMS && self.expects_company();
        self.until_ns(0).filter(|until_ns| is_short && now_ns < *until_ns)
    }

    /// Whether somebody else is about to send.
    fn expects_company(&self) -> bool {
        self.gap_ns < self.wait_ns_max
    }

    /// Until when the signature with this index may wait; `None`: there is none.
    fn until_ns(&self, mut index: usize) -> Option<u64> {
        for (since_ns, count) in &self.arrivals {
            if index < *count {
                return Some(since_ns + self.wait_ns_max);
            }
            index -= count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: u64 = 1_000;

    fn key(connection: u32) -> ConnectionKey {
        ConnectionKey { connection, generation: 0 }
    }

    /// A former that has seen `count` reads, `gap_ns` apart, of `connections` in turn, all of them recovered, and the time of the last.
    fn after(wait_ns_max: u64, connections: u32, gap_ns: u64, count: u32) -> (Former, u64) {
        let mut former = Former::new(wait_ns_max);
        for index in 0..count {
            former.on_input(key(index % connections), 1, u64::from(index) * gap_ns);
            former.on_recovered(0, u64::from(index) * gap_ns);
        }
        (former, u64::from(count - 1) * gap_ns)
    }

    #[track_caller]
    fn check(wait_us: u64, connections: u32, gap_us: u64, count: u32, waits: bool) {
        let (mut former, last_ns) = after(wait_us * US, connections, gap_us * US, count);
        let now_ns = last_ns + gap_us * US;
        former.on_input(key(count % connections), 1, now_ns);
        let (wait, recover) = (Verdict::Wait { until_ns: now_ns + wait_us * US }, Verdict::Recover { count: 1 });
        assert_eq!(former.judge(8, now_ns), if waits { wait } else { recover });
    }

    #[test]
    fn company_is_waited_for_only_where_it_is_likely() {
        check(100, 8, 20, 200, true);
        check(100, 8, 99, 200, true);
        check(100, 8, 100, 200, false);
        check(0, 8, 0, 200, false);
        // The first requests after a pause.
        check(100, 8, 20, 1, false);
        check(100, 8, 20, 8, false);
        // However fast it is, who sends alone does not wait, nor do two that answer each other slowly.
        check(100, 1, 1, 200, false);
        check(100, 2, 150, 200, false);
    }

    #[test]
    fn a_wait_ends_at_its_time_or_with_enough() {
        let (mut former, now_ns) = after(100 * US, 8, 10 * US, 200);
        former.on_input(key(1), 1, now_ns);
        let until_ns = now_ns + 100 * US;
        let wait = Verdict::Wait { until_ns };
        assert_eq!(former.judge(8, now_ns), wait);
        former.on_input(key(2), 2, now_ns + 50 * US);
        assert_eq!(former.judge(8, until_ns - 1), wait, "counted from the first");
        assert_eq!(former.judge(8, until_ns), Verdict::Recover { count: 3 }, "less than a round");
        assert_eq!(former.on_recovered(0, until_ns), None);
        former.on_input(key(3), 31, until_ns);
        assert_eq!(
            former.judge(8, until_ns),
            Verdict::Wait { until_ns: until_ns + 100 * US },
            "the next ones count anew"
        );
        former.on_input(key(4), 1, until_ns);
        assert_eq!(former.judge(8, until_ns), Verdict::Recover { count: 32 });
        assert_eq!(former.on_recovered(0, until_ns), None);
        assert_eq!(former.judge(8, until_ns), Verdict::Recover { count: 0 });
    }

    #[test]
    fn what_is_left_of_whole_rounds_waits_from_its_arrival() {
        let (mut former, now_ns) = after(100 * US, 8, 10 * US, 200);
        former.on_input(key(1), 7, now_ns);
        former.on_input(key(2), 3, now_ns + 60 * US);
        let due_ns = now_ns + 100 * US;
        assert_eq!(former.judge(8, due_ns), Verdict::Recover { count: 8 });
        assert_eq!(former.judge(1, due_ns), Verdict::Recover { count: 10 }, "no rounds, nothing to save");
        let until_ns = now_ns + 160 * US;
        assert_eq!(former.on_recovered(2, due_ns), Some(until_ns));
        assert_eq!(former.judge(8, until_ns - 1), Verdict::Wait { until_ns });
        assert_eq!(former.judge(8, until_ns), Verdict::Recover { count: 2 });
        assert_eq!(former.on_recovered(2, until_ns), None, "late already: more may have come, and then all go");
        // Most of a round does not wait.
        former.on_input(key(3), 3, until_ns);
        assert_eq!(former.judge(8, until_ns), Verdict::Recover { count: 5 });
        former.on_recovered(0, until_ns);
        former.on_input(key(4), 37, until_ns);
        assert_eq!(former.judge(8, until_ns), Verdict::Recover { count: 37 });
        former.on_input(key(5), 1 + 2, until_ns);
        assert_eq!(former.judge(8, until_ns), Verdict::Recover { count: 40 });
        former.on_input(key(6), 4, until_ns);
        assert_eq!(former.judge(8, until_ns), Verdict::Recover { count: 40 });
    }

    #[test]
    fn one_that_goes_on_alone_is_noticed() {
        let (mut former, mut now_ns) = after(100 * US, 8, 10 * US, 200);
        for count in 1..=ALONE_COUNT as usize + 1 {
            now_ns += 10 * US;
            former.on_input(key(3), 1, now_ns);
            let verdict = former.judge(8, now_ns);
            assert_eq!(verdict == Verdict::Recover { count }, count > ALONE_COUNT as usize, "{verdict:?} at {count}");
        }
    }
}
