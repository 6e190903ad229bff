//! The harness's one clock. In the library time is an argument; a measurement has to read it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Now, on the monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place where the harness reads the time"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
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
