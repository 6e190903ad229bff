//! Figures: what a reactor has done and seen, in counters that any thread may read.
//!
//! Sits in the reactor, which alone writes them. A counter is an atomic with one writer: adding is
//! a load and a store without order, as cheap as a plain integer, and who reads on another thread
//! waits for nobody and makes nobody wait.
//!
//! Invariants
//! - Counters only grow; a reader may see one ahead of another, never one that goes back.
//! - Nothing here changes what the reactor does.
//!
//! Not here: names for the outside and text formats (who serves them), the figures of scripts.

use super::Reactor;
use super::inbox::Cause;
use crate::conn::{Deadline, Event};
use crate::transport::Net;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number with one writer, that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// What it has come to.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// For the one thread that writes it.
    pub(super) fn add(&self, count: usize) {
        self.grow(count as u64);
    }

    fn grow(&self, by: u64) {
        let sum = self.value().wrapping_add(by);
        self.0.store(sum, Ordering::Relaxed);
    }
}

/// A number with one writer that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Its present value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// For the one thread that writes it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Upper bounds of the histogram of turns, in microseconds; a last bucket has none.
pub const TURN_BOUNDS_MICROS: [u32; 12] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000,
];

/// How long turns took, from the return of the poll to the next: reading, the application's work
/// and writing. An event waits this long at most beyond its own turn, so it is the loop's lag, too.
#[derive(Debug, Default)]
pub struct TurnTimes {
    buckets: [Counter; TURN_BOUNDS_MICROS.len() + 1],
    micros: Counter,
}

impl TurnTimes {
    /// For each bucket how many turns fell in it, by [`TURN_BOUNDS_MICROS`] and one above.
    pub fn buckets(&self) -> impl Iterator<Item = u64> {
        self.buckets.iter().map(Counter::value)
    }

    /// All turns together.
    pub fn total(&self) -> Duration {
        Duration::from_micros(self.micros.value())
    }

    fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bound = TURN_BOUNDS_MICROS.partition_point(|bound| u64::from(*bound) < micros);
        if let Some(bucket) = self.buckets.get(bound) {
            bucket.add(1);
        }
        self.micros.grow(micros);
    }
}

/// Why connections end, by [`Cause::name`].
pub const CAUSES: [&str; 13] = [
    "agreed",
    "peer_gone",
    "resolve",
    "connect",
    "handshake",
    "violation",
    "timed_out",
    "io",
    "tls",
    "truncated",
    "too_slow",
    "terminated",
    "shutdown",
];

/// What the deadlines are called.
pub const DEADLINES: [&str; 11] = [
    "resolve",
    "connect",
    "first_byte",
    "head",
    "body",
    "idle",
    "write",
    "close",
    "handshake",
    "ping",
    "tls_handshake",
];

/// Where a deadline stands in [`DEADLINES`].
const fn place(deadline: Deadline) -> usize {
    match deadline {
        Deadline::Resolve => 0,
        Deadline::Connect => 1,
        Deadline::FirstByte => 2,
        Deadline::Head => 3,
        Deadline::Body => 4,
        Deadline::Idle => 5,
        Deadline::Write => 6,
        Deadline::Close => 7,
        Deadline::Handshake => 8,
        Deadline::Ping => 9,
        Deadline::TlsHandshake => 10,
    }
}

/// The figures of one reactor, since it was made.
#[derive(Debug, Default)]
pub struct Figures {
    /// Connections that are there or are being made, after the last turn.
    pub connections: Gauge,
    /// Listeners that have not been closed, after the last turn.
    pub listeners: Gauge,
    /// Connections that were accepted.
    pub accepted: Counter,
    /// Connections closed at once, for `Limits::connections_per_ip_max` or for want of descriptors.
    pub turned_away: Counter,
    /// Accepts that the system refused, such as for want of descriptors.
    pub accept_errors: Counter,
    /// Connections that have ended, by [`CAUSES`].
    pub ended: [Counter; CAUSES.len()],
    /// Deadlines that were missed, by [`DEADLINES`].
    pub timed_out: [Counter; DEADLINES.len()],
    /// Requests that were handed to the application.
    pub requests: Counter,
    /// Requests that were refused without the application, or whose answer it left to us too long.
    pub refused: Counter,
    /// Responses by the first digit of their status, from 1 to 5, refusals among them; a 101 when the
    /// application accepts a WebSocket.
    pub responses: [Counter; 5],
    /// WebSocket messages that were received whole.
    pub messages_received: Counter,
    /// WebSocket messages that were queued or held, each recipient of a publication counted.
    pub messages_sent: Counter,
    /// Those of them that a newer one of their topic or key has replaced (`Overflow::Latest`).
    pub messages_replaced: Counter,
    /// Those that were not, as their peer was too far behind.
    pub messages_dropped: Counter,
    /// Connections that were closed for being too far behind.
    pub closed_behind: Counter,
    /// Publications of other threads that found no room in the mailbox.
    pub publications_lost: Gauge,
    /// How often a sender that was not waiting was told to wait.
    pub pressed: Counter,
    /// How often a sender that was to wait could go on.
    pub relieved: Counter,
    /// Bytes that were read; inside TLS, what it carries.
    pub bytes_received: Counter,
    /// Bytes that were written, likewise.
    pub bytes_sent: Counter,
    /// How long turns took.
    pub turns: TurnTimes,
}

impl Figures {
    /// A connection has ended.
    pub(super) fn note_end(&self, cause: &Cause) {
        let name = cause.name();
        if let Some(at) = CAUSES.iter().position(|known| *known == name) {
            self.ended[at].add(1);
        }
        if let Cause::TimedOut(deadline) = cause {
            self.timed_out[place(*deadline)].add(1);
        }
    }

    /// It was answered with `status`.
    pub(super) fn note_response(&self, status: u16) {
        let class = usize::from(status / 100).wrapping_sub(1);
        if let Some(counter) = self.responses.get(class) {
            counter.add(1);
        }
    }

    /// Something was refused with `status`, or without a word.
    pub(super) fn note_refusal(&self, status: Option<u16>) {
        self.refused.add(1);
        if let Some(status) = status {
            self.note_response(status);
        }
    }

    /// `events` were delivered.
    pub(super) fn note_events(&self, events: &[Event]) {
        for event in events {
            match event {
                Event::Request { .. } => self.requests.add(1),
                Event::Message { .. } => self.messages_received.add(1),
                _ => {}
            }
        }
    }

    /// A turn has taken this long.
    pub(super) fn note_turn(&self, took: Duration) {
        self.turns.add(took);
    }
}

impl<N: Net> Reactor<N> {
    /// What it has done so far, for any thread to read.
    pub fn figures(&self) -> &Arc<Figures> {
        &self.figures
    }

    /// Notes what there is, at the end of a turn.
    pub(super) fn note_gauges(&self) {
        self.figures.connections.set(self.conns.len() as u64);
        self.figures.listeners.set(self.listeners.len() as u64);
        self.figures.publications_lost.set(self.mailbox.lost());
    }
}

#[cfg(test)]
mod tests {
    use super::{CAUSES, Counter, DEADLINES, Figures, TURN_BOUNDS_MICROS};
    use crate::conn::Deadline;
    use crate::reactor::inbox::Cause;
    use std::time::Duration;

    #[test]
    fn every_end_is_counted_by_its_cause_and_every_timeout_by_its_deadline() {
        let figures = Figures::default();
        figures.note_end(&Cause::Shutdown);
        figures.note_end(&Cause::Truncated);
        figures.note_end(&Cause::TimedOut(Deadline::TlsHandshake));
        figures.note_end(&Cause::TimedOut(Deadline::Head));
        let count = |names: &[&str], counters: &[Counter], name| {
            let at = names.iter().position(|known| *known == name).unwrap();
            counters[at].value()
        };
        assert_eq!(count(&CAUSES, &figures.ended, "shutdown"), 1);
        assert_eq!(count(&CAUSES, &figures.ended, "truncated"), 1);
        assert_eq!(count(&CAUSES, &figures.ended, "timed_out"), 2);
        assert_eq!(count(&DEADLINES, &figures.timed_out, "tls_handshake"), 1);
        assert_eq!(count(&DEADLINES, &figures.timed_out, "head"), 1);
    }

    #[test]
    fn a_response_counts_in_its_class() {
        let figures = Figures::default();
        for status in [101, 200, 204, 404, 503, 599, 99, 700] {
            figures.note_response(status);
        }
        assert_eq!(
            figures.responses.each_ref().map(Counter::value),
            [1, 2, 0, 1, 2]
        );
    }

    #[test]
    fn a_turn_falls_in_the_first_bucket_that_is_not_below_it() {
        let figures = Figures::default();
        for micros in [0, 100, 101, 1_000_000, 1_000_001] {
            figures.note_turn(Duration::from_micros(micros));
        }
        let buckets: Vec<_> = figures.turns.buckets().collect();
        assert_eq!(buckets.len(), TURN_BOUNDS_MICROS.len() + 1);
        assert_eq!(
            (buckets[0], buckets[1], buckets[11], buckets[12]),
            (2, 1, 1, 1)
        );
        assert_eq!(figures.turns.total(), Duration::from_micros(2_000_202));
    }
}
