//! Open loop: requests leave by the clock, whether or not earlier ones are answered.
//!
//! An arrival is due at a fixed time. If every connection waits for an answer then, it waits for the first
//! that is free, and that counts: its latency runs from when it was *due*. A closed loop would wait with the
//! server and not see what it made its clients wait (coordinated omission).
//!
//! Invariants
//! - As many requests are sent as were due, and all of them are answered before `run_at` returns.
//! - Between arrivals that are close together the generator does not sleep: a sleep ends too late.
//!
//! Not here: which rates (`at_rate.rs`).

use std::collections::VecDeque;
use std::time::Duration;

use rustix::event::Timespec;

use super::latency::Histogram;
use super::{Client, STALL};
use crate::measure::clock;

/// What a sleep may end too late by; less than this is waited for awake.
const AWAKE: Duration = Duration::from_micros(80);

const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Requests at equal distances.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrivals {
    per_second: u64,
    count: u64,
}

impl Arrivals {
    /// So many per second, for so long. At least one.
    pub(crate) fn new(per_second: f64, duration: Duration) -> Self {
        // Within a second's millionths of what was asked, and never 0.
        let per_second = Duration::from_secs_f64(per_second.clamp(1.0, 1e9) * 1e-9).as_nanos();
        let per_second = u64::try_from(per_second).unwrap_or(1).max(1);
        let count = u128::from(per_second) * duration.as_nanos() / 1_000_000_000;
        Self {
            per_second,
            count: u64::try_from(count).unwrap_or(u64::MAX).max(1),
        }
    }

    pub(crate) fn count(self) -> u64 {
        self.count
    }

    /// When the `nth`, from 0, is due.
    fn due_at(self, nth: u64) -> Duration {
        let nanoseconds = u128::from(nth) * 1_000_000_000 / u128::from(self.per_second);
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// How many are due once `elapsed` has passed.
    fn due_by(self, elapsed: Duration) -> u64 {
        // One at 0, and one more for each whole interval; an arrival is due at its rounded time.
        let passed = (elapsed.as_nanos() + 1) * u128::from(self.per_second);
        let due = passed.div_ceil(1_000_000_000);
        u64::try_from(due).unwrap_or(u64::MAX).min(self.count)
    }
}

impl Client {
    /// Sends what is due when it is due, and adds every latency to `latencies`.
    pub(crate) fn run_at(
        &mut self,
        arrivals: Arrivals,
        latencies: &mut Histogram,
    ) -> Result<(), String> {
        let began = clock::now();
        let mut idle: VecDeque<usize> = (0..self.connections.len()).collect();
        let (mut sent, mut answered) = (0, 0);
        while answered < arrivals.count {
            let due = arrivals.due_by(began.elapsed());
            while sent < due
                && let Some(index) = idle.pop_front()
            {
                self.start_batch(index)?;
                self.connections[index].began = began + arrivals.due_at(sent);
                sent += 1;
            }
            let waits_for_an_answer = sent < due || sent == arrivals.count;
            let patience = if waits_for_an_answer {
                STALL
            } else {
                let left = arrivals.due_at(sent).saturating_sub(began.elapsed());
                sleep_before(left)
            };
            self.turn_within(&patience)?;
            if waits_for_an_answer && self.events.is_empty() {
                return Err(format!("no answer came for {} s", STALL.tv_sec));
            }
            let now = clock::now();
            for index in &self.finished {
                latencies.record(now.saturating_duration_since(self.connections[*index].began));
                idle.push_back(*index);
                answered += 1;
            }
        }
        Ok(())
    }
}

/// How long to sleep if the next arrival is due in `left`.
fn sleep_before(left: Duration) -> Timespec {
    match left.checked_sub(AWAKE) {
        Some(sleep) => Timespec::try_from(sleep).unwrap_or(AT_ONCE),
        None => AT_ONCE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_lie_at_equal_distances_and_their_number_is_rate_times_time() {
        let arrivals = Arrivals::new(1000.0, Duration::from_secs(3));
        assert_eq!(arrivals.count(), 3000);
        assert_eq!(arrivals.due_at(0), Duration::ZERO);
        assert_eq!(arrivals.due_at(1), Duration::from_millis(1));
        assert_eq!(arrivals.due_at(2999), Duration::from_millis(2999));
    }

    #[test]
    fn an_arrival_is_due_at_its_time_and_not_a_nanosecond_before() {
        for rate in [1.0, 3.0, 7.0, 64_999.0, 333_333.0] {
            let arrivals = Arrivals::new(rate, Duration::from_secs(2));
            for nth in 0..arrivals.count().min(50) {
                let due = arrivals.due_at(nth);
                assert_eq!(arrivals.due_by(due), nth + 1, "{rate}: {nth}");
                if let Some(before) = due.checked_sub(Duration::from_nanos(1)) {
                    assert_eq!(arrivals.due_by(before), nth, "{rate}: {nth}");
                }
            }
        }
    }

    #[test]
    fn no_more_are_due_than_there_are() {
        let arrivals = Arrivals::new(10.0, Duration::from_secs(1));
        assert_eq!(arrivals.due_by(Duration::from_secs(99)), 10);
        assert_eq!(Arrivals::new(0.0, Duration::ZERO).count(), 1);
    }

    #[test]
    fn near_arrivals_are_waited_for_awake() {
        assert_eq!(sleep_before(Duration::from_micros(79)), AT_ONCE);
        assert_eq!(sleep_before(Duration::from_micros(1080)).tv_nsec, 1_000_000);
    }
}
