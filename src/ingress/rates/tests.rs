//! A bucket against a count of everything that it let through; many shards and threads on the same buckets.

use proptest::prelude::*;

use super::*;
use crate::config::REQUESTS_PER_SECOND_MAX;

const MS: u64 = 1_000_000;

fn address(text: &str) -> Option<IpAddr> {
    Some(text.parse().expect("an address"))
}

fn copy(bucket: &Bucket) -> Bucket {
    Bucket(AtomicU64::new(bucket.0.load(Ordering::Relaxed)))
}

#[test]
fn a_bucket_holds_a_second_and_fills_evenly() {
    let bucket = Bucket::default();
    let start = 5 * SECOND_NS;
    let taken = (0..20).filter(|_| bucket.take(10, start).is_ok()).count();
    assert_eq!(taken, 10, "one second's worth at once");
    assert_eq!(bucket.take(10, start), Err(100 * MS));
    assert_eq!(bucket.take(10, start + 99 * MS), Err(MS));
    assert_eq!(bucket.take(10, start + 100 * MS), Ok(()));
    assert_eq!(bucket.take(10, start + 100 * MS), Err(100 * MS));
    // After a long pause it is full, and no fuller.
    let later = start + 3_600 * SECOND_NS;
    assert_eq!((0..20).filter(|_| bucket.take(10, later).is_ok()).count(), 10);
}

#[test]
fn the_smallest_and_the_largest_limit_let_something_through() {
    let slow = Bucket::default();
    assert_eq!(slow.take(1, SECOND_NS), Ok(()));
    assert_eq!(slow.take(1, SECOND_NS), Err(SECOND_NS));
    assert_eq!(slow.take(1, 2 * SECOND_NS - 1), Err(1));
    assert_eq!(slow.take(1, 2 * SECOND_NS), Ok(()));
    let fast = Bucket::default();
    let at_once =
        (0..2 * REQUESTS_PER_SECOND_MAX).take_while(|_| fast.take(REQUESTS_PER_SECOND_MAX, SECOND_NS).is_ok());
    assert_eq!(at_once.count() as u64, REQUESTS_PER_SECOND_MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Never more than the limit and one bucket in any stretch of time; whoever waits as long as was said is let through; and nobody who asks
    /// all the time gets less than the limit.
    #[test]
    fn a_bucket_keeps_its_promise(
        limit in 1_u64..5_000,
        pauses in prop::collection::vec(prop_oneof![Just(0), 0_u64..3 * MS, 0_u64..900 * MS], 1..200),
        obeys in any::<bool>(),
    ) {
        let (bucket, mut now_ns) = (Bucket::default(), 7 * SECOND_NS);
        let mut taken: Vec<u64> = Vec::new();
        let mut refused = 0;
        for pause_ns in pauses {
            now_ns += pause_ns;
            let before = bucket.0.load(Ordering::Relaxed);
            match bucket.take(limit, now_ns) {
                Ok(()) => taken.push(now_ns),
                Err(retry_ns) => {
                    refused += 1;
                    prop_assert_eq!(bucket.0.load(Ordering::Relaxed), before, "a refusal changes nothing");
                    prop_assert!(retry_ns > 0);
                    prop_assert!(copy(&bucket).take(limit, now_ns + retry_ns - 1).is_err(), "it said later than needed");
                    if obeys {
                        now_ns += retry_ns;
                        prop_assert!(bucket.take(limit, now_ns).is_ok(), "it said too early");
                        taken.push(now_ns);
                    }
                }
            }
        }
        // In any window: the depth of the bucket and what time has brought.
        let rate = limit as f64;
        for (index, from) in taken.iter().enumerate() {
            for (count, to) in taken[index..].iter().enumerate() {
                let allowed = rate + rate * (to - from) as f64 / SECOND_NS as f64;
                prop_assert!((count + 1) as f64 <= allowed + 1e-6, "{} in {} ns", count + 1, to - from);
            }
        }
        // Who was refused had got a bucket at least, up to the rounding of an interval.
        if refused > 0 {
            prop_assert!(taken.len() as u64 >= SECOND_NS / SECOND_NS.div_ceil(limit), "{} taken", taken.len());
        }
    }
}

/// Requests that pass of `asked` at one moment.
fn passed(limiter: &mut RateLimiter, table: &RateTable, network: &str, asked: usize, now_ns: u64) -> usize {
    limiter.attend(address(network));
    (0..asked).filter(|_| limiter.take(table, now_ns).is_ok()).count()
}

fn limiter(per_second: u64, per_second_and_address: u64) -> RateLimiter {
    let mut limiter = RateLimiter::default();
    limiter.set_rates(Rates { per_second, per_second_and_address });
    limiter
}

#[test]
fn one_address_does_not_use_up_what_others_have() {
    let table = RateTable::new(1);
    let mut shard = limiter(50, 20);
    assert_eq!(passed(&mut shard, &table, "192.0.2.1", 1_000, SECOND_NS), 20);
    assert_eq!(passed(&mut shard, &table, "192.0.2.2", 1_000, SECOND_NS), 20);
    // What is left of all, and told as such.
    assert_eq!(passed(&mut shard, &table, "192.0.2.3", 1_000, SECOND_NS), 10);
    let refusal = shard.take(&table, SECOND_NS).expect_err("used up");
    assert_eq!(refusal, TooMany { limit: 50, is_of_address: false, retry_ns: 20 * MS });
    let later = SECOND_NS + 100 * MS;
    assert_eq!(passed(&mut shard, &table, "192.0.2.1", 1_000, later), 2);
}

/// One request on each of sixteen shards after the other is no more than sixteen on one, however often.
#[test]
fn it_does_not_matter_which_shards_a_peer_comes_to() {
    let table = RateTable::new(2);
    let mut shards: Vec<RateLimiter> = (0..16).map(|_| limiter(0, 40)).collect();
    let mut answered = 0;
    for step in 0..10_000_u64 {
        let shard = &mut shards[(step % 16) as usize];
        answered += passed(shard, &table, "2001:db8::", 1, SECOND_NS + step * MS);
    }
    assert!((438..=441).contains(&answered), "{answered} in ten seconds, 40 a second and one bucket are allowed");
}

/// The same on threads of their own: no request is counted twice or not at all.
#[test]
fn shards_that_ask_at_the_same_time_take_exactly_what_there_is() {
    let table = RateTable::new(3);
    let answered: usize = std::thread::scope(|scope| {
        let shards: Vec<_> = (0..4)
            .map(|index| {
                let table = &table;
                scope.spawn(move || {
                    passed(&mut limiter(3_000, 1_000), table, &format!("192.0.2.{}", index % 2), 5_000, SECOND_NS)
                })
            })
            .collect();
        shards.into_iter().map(|shard| shard.join().expect("it ends in order")).sum()
    });
    assert_eq!(answered, 2_000, "two addresses, a thousand each");
}

#[test]
fn limits_come_and_go_and_no_debt_outlives_a_change() {
    let table = RateTable::new(4);
    let mut shard = limiter(0, 0);
    assert!(!shard.is_on());
    assert_eq!(passed(&mut shard, &table, "192.0.2.1", 100, SECOND_NS), 100);
    assert!(table.networks.get().is_none(), "without a limit it costs no memory");
    shard.set_rates(Rates { per_second: 0, per_second_and_address: 5 });
    assert!(shard.is_on());
    assert_eq!(passed(&mut shard, &table, "192.0.2.1", 100, SECOND_NS), 5);
    // A bucket is at most a second from being full, under whatever limit.
    shard.set_rates(Rates { per_second: 0, per_second_and_address: 1_000 });
    assert_eq!(passed(&mut shard, &table, "192.0.2.1", 5_000, 2 * SECOND_NS), 1_000);
    table.bucket(address("192.0.2.1")).0.store(u64::MAX / 2, Ordering::Relaxed);
    assert_eq!(passed(&mut shard, &table, "192.0.2.1", 100, 2 * SECOND_NS), 0);
    assert_eq!(shard.take(&table, 2 * SECOND_NS).map_err(|refused| refused.retry_ns), Err(MS));
}

#[test]
fn networks_are_spread_and_seeds_differ() {
    let (one, other) = (RateTable::new(5), RateTable::new(6));
    let place =
        |table: &RateTable, index: u32| std::ptr::from_ref(table.bucket(Some(IpAddr::from(index.to_be_bytes()))));
    let mut places: Vec<_> = (0..1_000).map(|index| place(&one, index)).collect();
    places.sort_unstable();
    places.dedup();
    assert!(places.len() > 980, "{} places for a thousand networks", places.len());
    let first = |table: &RateTable| table.networks.get().map_or(0, |list| list.as_ptr().addr());
    let index_of = |table: &RateTable, index| place(table, index).addr() - first(table);
    assert!((0..10).any(|index| index_of(&one, index) != index_of(&other, index)));
}
