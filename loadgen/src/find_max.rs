//! The highest rate that a node sustains within given bounds: doubling, then bisection.

use crate::cli::FindMaxArgs;
use crate::error::{Error, Result};
use crate::report::table::duration;
use crate::report::{Pace, Report, SearchStep};
use crate::run::{self, Finished, Job};
use crate::schedule::Tempo;

/// Steps of one search: 2^20 times the first rate is beyond any node, and bisection adds a few.
const STEPS_MAX: u32 = 32;

/// Runs of one step. One whose generator was late says nothing about the node, and on a shared machine it may be a neighbour's doing.
const TRIES_MAX: u32 = 3;

/// The search itself, without I/O: rates out, verdicts in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search {
    /// Highest rate that passed.
    pub passed: Option<f64>,
    /// Lowest rate that failed.
    pub failed: Option<f64>,
    next: f64,
    precision: f64,
}

impl Search {
    pub const fn new(first_rate: f64, precision_percent: u64) -> Self {
        Self { passed: None, failed: None, next: first_rate, precision: precision_percent as f64 / 100.0 }
    }

    /// The next rate to try; `None` when the bounds are close enough.
    pub fn next_rate(&self) -> Option<f64> {
        match (self.passed, self.failed) {
            (Some(passed), Some(failed)) if failed <= passed * (1.0 + self.precision) => None,
            (None, Some(failed)) if failed < 2.0 => None,
            _ => Some(self.next),
        }
    }

    pub fn judge(&mut self, rate: f64, passed: bool) {
        if passed {
            self.passed = Some(self.passed.map_or(rate, |best| best.max(rate)));
        } else {
            self.failed = Some(self.failed.map_or(rate, |worst| worst.min(rate)));
        }
        self.next = match (self.passed, self.failed) {
            (Some(passed), Some(failed)) => (passed + failed) / 2.0,
            (Some(passed), None) => passed * 2.0,
            (None, Some(failed)) => failed / 2.0,
            (None, None) => rate,
        };
    }
}

/// Runs the search; prints a line per step and returns the report of the best one, with all steps in it.
pub fn find_max(args: &FindMaxArgs) -> Result<Report> {
    let mut search = Search::new(args.rate, args.precision);
    let (mut best, mut steps): (Option<Report>, Vec<SearchStep>) = (None, Vec::new());
    let mut seed = args.common.seed;
    println!("{:>12} {:>12} {:>10}  {:>8}  verdict", "rate/s", "accepted/s", "p99", "errors");
    for _ in 0..STEPS_MAX {
        let Some(rate) = search.next_rate() else { break };
        let mut tries = 0;
        let (report, passed) = loop {
            let mut report = step(args, rate, seed)?.report;
            report.asserts = args.asserts.iter().map(|condition| condition.judge(&report)).collect();
            let step = judge(rate, &report);
            println!(
                "{rate:>12.0} {:>12.0} {:>10}  {:>8}  {}",
                step.accepted_per_s,
                duration(step.p99_ns),
                report.counts.errors(),
                step.verdict
            );
            // Transactions that were refused, or wait behind a gap, leave the accounts in disorder; other accounts start without that.
            let sealed = report.tiers.get(&crate::tiers::Tier::Sealed);
            if report.counts.accepted < report.counts.planned || sealed.is_some_and(|tier| tier.missing() > 0) {
                seed = seed.wrapping_add(1);
            }
            let passed = step.passed;
            steps.push(step);
            tries += 1;
            if report.generator.valid || tries == TRIES_MAX {
                break (report, passed);
            }
        };
        search.judge(rate, passed);
        if passed && search.passed == Some(rate) {
            best = Some(report);
        }
    }
    let report = best.ok_or_else(|| Error::Setup("no rate passed, not even the lowest".into()))?;
    Ok(Report { search: steps, ..report })
}

fn judge(rate_per_s: f64, report: &Report) -> SearchStep {
    let failure = report.asserts.iter().find(|verdict| !verdict.passed);
    let verdict = match failure {
        // The generator comes first: figures of an invalid run are no reason.
        _ if !report.generator.valid => "fails: the generator was late".to_owned(),
        Some(verdict) => format!("fails {} ({})", verdict.condition, verdict.measured),
        None => "passes".to_owned(),
    };
    SearchStep {
        rate_per_s,
        accepted_per_s: report.rates.accepted_per_s,
        p99_ns: report.latency(crate::tiers::Tier::Accepted).map_or(0, |latency| latency.p99_ns),
        passed: failure.is_none() && report.generator.valid,
        verdict,
    }
}

fn step(args: &FindMaxArgs, rate_per_s: f64, seed: u64) -> Result<Finished> {
    let transaction_count = run::check_count((rate_per_s * args.step.as_secs_f64()).ceil() as u64)?;
    run::execute(&Job {
        common: &args.common,
        seed,
        pace: Pace::Open { tempo: Tempo::steady(args.arrival, rate_per_s) },
        transaction_count,
        stop_after: None,
        verify_wait: None,
        with_hdr_log: false,
        command: std::env::args().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(first: f64, limit: f64) {
        let mut search = Search::new(first, 5);
        let mut steps = 0;
        while let Some(rate) = search.next_rate() {
            search.judge(rate, rate <= limit);
            steps += 1;
            assert!(steps <= STEPS_MAX, "the search from {first} for {limit} does not end");
        }
        let found = search.passed.unwrap_or(0.0);
        assert!(found <= limit && found * 1.05 >= limit.min(search.failed.unwrap_or(limit)), "{found} for {limit}");
    }

    #[test]
    fn the_search_ends_close_to_the_limit() {
        for limit in [3.0, 900.0, 1_000.0, 1_001.0, 12_345.0, 1_000_000.0] {
            check(1_000.0, limit);
        }
        let mut search = Search::new(4.0, 5);
        while let Some(rate) = search.next_rate() {
            search.judge(rate, false);
        }
        assert_eq!(search.passed, None);
    }

    #[test]
    fn a_late_generator_is_named_before_all_else() {
        let mut report = crate::report::tests::sample();
        assert_eq!(judge(5.0, &report).verdict, "passes");
        report.asserts = vec!["errors==0".parse::<crate::report::asserts::Assert>().unwrap().judge(&report)];
        assert_eq!(judge(5.0, &report).verdict, "fails errors==0 (10)");
        report.generator.valid = false;
        let step = judge(5.0, &report);
        assert_eq!(
            (step.passed, step.verdict.as_str(), step.p99_ns),
            (false, "fails: the generator was late", 4_000_000)
        );
    }
}
