//! What the loop does when a turn is over: go on at once, wait, or end.
//!
//! Sits inside `runtime.rs`. Whoever may still have something to do is asked here: the reactor, the
//! client, raw streams, the scheduler, the host, and standard input.
//!
//! Invariants
//! - The loop ends when nobody waits for anything: connections that are kept for requests to come, and
//!   streams that are merely open, keep nothing alive. The latter are closed first.
//! - After a drain, timers and coroutines are no reason to go on, but those of `process.onShutdown`.
//!
//! Not here: what a turn does (`runtime.rs`).

use super::Runtime;
use crate::net::raw;
use std::time::Duration;

/// What the loop does next.
pub(super) enum Delay {
    /// Nothing is left.
    Done,
    /// A turn that waits this long at most, or for ever.
    Until(Option<Duration>),
}

impl Runtime {
    /// Whether it goes on though a drain has left it nothing to do: while other workers have something,
    /// who asks how the process is may be answered by this one.
    pub(super) fn stays_for_probes(&self) -> bool {
        let is_asked = self.stop.asked().is_some();
        is_asked && self.metrics.is_some() && self.worker.peers.note_drained()
    }

    /// How long the next turn may wait, counted from the last one.
    pub(super) fn delay(&self, turned_at: f64) -> Delay {
        let worker = &self.worker;
        // What the script does for its end is waited for.
        let last_words = worker.shutdown.waits();
        let is_asked = self.stop.asked().is_some() && last_words.is_none();
        let (listens, connects) = match &self.metrics {
            Some(metrics) => metrics.share(worker),
            None => (0, 0),
        };
        let (connections, listeners) = {
            let (reactor, outbound) = (worker.reactor.borrow(), worker.outbound.borrow());
            // Connections that are kept for requests to come wait for nothing.
            let others = outbound.connections() + connects;
            let connections = reactor.connections().saturating_sub(others);
            (connections, reactor.listeners().saturating_sub(listens))
        };
        let is_quiet = raw::is_quiet(worker, connections, listeners);
        let mut scheduler = worker.scheduler.borrow_mut();
        let (is_quiet, has_events) = {
            let outbound = worker.outbound.borrow();
            let is_quiet = is_quiet && !outbound.is_awaited(|key| scheduler.is_current(key));
            let has_stale = scheduler.has_cancelled() && outbound.is_waiting();
            (is_quiet, outbound.has_events() || has_stale)
        };
        let is_pending = || {
            let (host, lines) = (&worker.host, worker.lines.borrow());
            scheduler.is_pending()
                || host.is_pending(|key| scheduler.is_current(key))
                || lines.is_pending(|key| scheduler.is_current(key))
        };
        if is_quiet && (is_asked || !is_pending()) && worker.pump.borrow().is_empty() {
            drop(scheduler);
            // Streams that were left open go first, behind what was written to them.
            return match raw::close_all(worker) {
                true => Delay::Until(Some(Duration::ZERO)),
                false => Delay::Done,
            };
        }
        if has_events || !worker.pump.borrow().is_empty() {
            return Delay::Until(Some(Duration::ZERO));
        }
        // A wait of ages is as good as none, and would overflow a deadline.
        const AGES: f64 = 1.0e8;
        let delays = [scheduler.delay(turned_at), last_words];
        let delay = delays.into_iter().flatten().min_by(f64::total_cmp);
        let delay = delay.map(|seconds| Duration::from_secs_f64(seconds.clamp(0.0, AGES)));
        Delay::Until(delay.into_iter().chain(worker.peers.delay()).min())
    }
}
