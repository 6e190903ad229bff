//! The harness's one clock. In the library time is an argument; a measurement has to read it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now, on the monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place where the harness reads the time"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Time since the machine started: comparable between processes, as [`Instant`] is not.
pub(crate) fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::try_from(now).unwrap_or_default()
}

/// Seconds since 1970, to name the files of a run.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place where the harness reads the time"
)]
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
