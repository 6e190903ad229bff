//! A histogram of latencies: 32 steps per power of two, so a percentile is right within 3 %.
//!
//! Recording is an index and an increment. In a closed loop what is recorded is the time from the first
//! byte of a batch to the last of its answers: under full load that is mostly the wait for the other
//! connections, and connections that wait send nothing meanwhile. It compares peers at their own full
//! speed; what a client sees at a given rate is recorded in an open loop (`open.rs`).
//!
//! Not here: reading the clock (`mod.rs`).

use std::time::Duration;

/// Steps per power of two.
const STEPS: usize = 32;

/// The bits of a step.
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// The percentiles that are kept: what they are called, and how many of ten thousand lie below.
pub(crate) const POINTS: [(&str, u64); 9] = [
    ("p50", 5_000),
    ("p75", 7_500),
    ("p90", 9_000),
    ("p95", 9_500),
    ("p99", 9_900),
    ("p99.5", 9_950),
    ("p99.9", 9_990),
    ("p99.99", 9_999),
    ("max", 10_000),
];

/// Nanoseconds at each of [`POINTS`].
pub(crate) type Percentiles = [u64; POINTS.len()];

/// Counts per step, from 1 ns to the longest `u64`.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// With nothing recorded.
    pub(crate) fn new() -> Self {
        Self {
            counts: vec![0; STEPS * 64],
            total: 0,
        }
    }

    /// Counts one latency.
    pub(crate) fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[step(nanoseconds)] += 1;
        self.total += 1;
    }

    /// The latencies at [`POINTS`]; zeros if none was recorded.
    pub(crate) fn percentiles(&self) -> Percentiles {
        POINTS.map(|(_, share)| {
            let latency = self.percentile(share).unwrap_or_default();
            u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX)
        })
    }

    /// The latency that `share` of ten thousand do not exceed; nothing if none was recorded.
    fn percentile(&self, share: u64) -> Option<Duration> {
        let wanted = (self.total * share).div_ceil(10_000).max(1);
        let mut seen = 0;
        let step = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(Duration::from_nanos(upper_end(step)))
    }
}

/// The step that counts `value`: linear below [`STEPS`], then the highest bit and the five after it.
fn step(value: u64) -> usize {
    let highest = u64::BITS - value.leading_zeros();
    let shift = highest.saturating_sub(STEP_BITS + 1);
    let within = usize::try_from(value >> shift).unwrap_or(usize::MAX);
    shift as usize * STEPS + within
}

/// The largest value that [`step`] puts into `step`.
fn upper_end(step: usize) -> u64 {
    let shift = (step / STEPS).saturating_sub(1);
    let within = (step - shift * STEPS) as u64;
    ((within + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_lies_in_its_step_within_a_thirty_second() {
        for bits in 0..62 {
            for value in [
                1_u64 << bits,
                (1 << bits) + 1,
                (1 << bits) | (1 << bits >> 1),
            ] {
                let end = upper_end(step(value));
                assert!(end >= value, "{value}: {end}");
                assert!(end - value <= value / 32, "{value}: {end}");
                assert_eq!(step(end), step(value), "{value}");
                assert_ne!(step(end + 1), step(value), "{value}");
            }
        }
    }

    #[test]
    fn percentiles_count_from_below() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.percentile(5_000), None);
        for value in 1..=10 {
            histogram.record(Duration::from_nanos(value));
        }
        assert_eq!(histogram.percentile(5_000), Some(Duration::from_nanos(5)));
        assert_eq!(histogram.percentile(10_000), Some(Duration::from_nanos(10)));
        let [half, .., longest] = histogram.percentiles();
        assert_eq!((half, longest), (5, 10));
    }
}
