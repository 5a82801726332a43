//! Latencies over time as an HDR histogram log (V2 deflate, one interval a second, one tag per tier).
//!
//! Values are nanoseconds. The usual tools read the file: HistogramLogAnalyzer, hdr-plot, HdrHistogram's log reader.

use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::engine::sender::latency_histogram;
use crate::error::{Error, Result};
use crate::tiers::Tier;

const INTERVAL_NS: u64 = 1_000_000_000;

/// Arrival times of one tier by transaction index.
pub struct TierTimes<'a> {
    pub tier: Tier,
    /// (time of arrival, latency) of a transaction.
    pub latencies: super::series::Latencies<'a>,
}

/// Renders the log; an arrival belongs to the second in which it came.
pub fn render(started: SystemTime, transaction_count: usize, tiers: &[TierTimes<'_>]) -> Result<Vec<u8>> {
    let failed = |reason: String| Error::File { path: "the HDR log".into(), reason };
    let mut out = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("loadgen: latency from the intended send time, in ns")
        .with_start_time(started)
        .with_base_time(started)
        .begin_log_with(&mut out, &mut serializer)
        .map_err(|e| failed(e.to_string()))?;
    for times in tiers {
        let tag = Tag::new(times.tier.name()).ok_or_else(|| failed("a tag with a blank".into()))?;
        let mut arrivals: Vec<(u64, u64)> = (0..transaction_count).filter_map(times.latencies).collect();
        arrivals.sort_unstable();
        for interval in arrivals.chunk_by(|a, b| a.0 / INTERVAL_NS == b.0 / INTERVAL_NS) {
            let mut histogram = latency_histogram();
            interval.iter().for_each(|&(_, latency_ns)| histogram.saturating_record(latency_ns));
            let start = Duration::from_secs(interval[0].0 / INTERVAL_NS);
            log.write_histogram(&histogram, start, Duration::from_nanos(INTERVAL_NS), Some(tag))
                .map_err(|e| failed(format!("{e:?}")))?;
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    #[test]
    fn the_log_is_read_back() {
        let arrivals = [Some((1_000, 1_000)), Some((700_002_000, 2_000)), Some((1_400_003_000, 3_000)), None];
        let latencies = |index: usize| arrivals[index];
        let tiers = [TierTimes { tier: Tier::Sealed, latencies: &latencies }];
        let log = render(SystemTime::now(), arrivals.len(), &tiers).unwrap();
        let mut seen = Vec::new();
        for entry in IntervalLogIterator::new(&log) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                let bytes = base64(interval.encoded_histogram());
                let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
                let tag = interval.tag().unwrap().as_str().to_owned();
                seen.push((tag, interval.start_timestamp().as_secs(), histogram.len(), histogram.max()));
            }
        }
        assert_eq!(seen.len(), 2);
        assert_eq!((seen[0].0.as_str(), seen[0].1, seen[0].2), ("sealed", 0, 2));
        assert!((2_000..2_010).contains(&seen[0].3), "{seen:?}");
        assert_eq!((seen[1].1, seen[1].2), (1, 1));
    }

    fn base64(text: &str) -> Vec<u8> {
        let value = |c: u8| match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        let digits: Vec<u8> = text.bytes().filter(|&c| c != b'=').map(value).collect();
        let mut bytes = Vec::new();
        for group in digits.chunks(4) {
            let bits = group.iter().fold(0u32, |bits, &digit| bits << 6 | u32::from(digit)) << (6 * (4 - group.len()));
            bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
        }
        bytes
    }
}
