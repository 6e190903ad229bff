//! Drains: how listeners and their connections come to an end that their peers understand.
//!
//! Sits in the reactor, beside the other operations. A drain closes listeners at once, has what was
//! asked answered, and says 1001 to WebSockets a few at a time over the first half of the grace: if
//! all heard it in one moment, all would connect again in one.
//!
//! ```text
//!   drain ──▶ listeners closed, HTTP ends by itself
//!         ──▶ 1001 to 32 ── 1001 to 32 ── … ── all told ─────────────▶ what is left is cut
//!             │◀──────────── half the grace ───────────▶│             │ the grace is over
//! ```
//!
//! Invariants
//! - Connections that were accepted are answered: what waits at a listener is taken in before it
//!   closes.
//! - Up to 32 WebSockets are told at once, and nobody is told later than after half the grace.
//!
//! Not here: how one connection says goodbye (`drive.rs`, `conn/`).

use super::conns::ConnKey;
use super::drive::Connection;
use super::inbox::Cause;
use super::{Listener, ListenerKey, Reactor};
use crate::conn::Driver;
use crate::transport::Net;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// WebSockets that are told at once, at least.
const STEP_MIN: usize = 32;
/// Steps in which all are told, at most.
const STEPS_MAX: usize = 50;

/// A drain under way: what it leaves is cut at its deadline.
#[derive(Debug)]
pub(super) struct Drain {
    /// Whose connections; `None` means all.
    listener: Option<ListenerKey>,
    deadline: Instant,
    /// WebSockets that have not been told yet.
    farewells: VecDeque<ConnKey>,
    /// How many are told at a time, and how long the next ones wait.
    step: usize,
    pause: Duration,
    next: Instant,
}

impl Drain {
    /// When it has something to do.
    pub(super) fn wakes_at(&self) -> Instant {
        match self.farewells.is_empty() {
            true => self.deadline,
            false => self.deadline.min(self.next),
        }
    }
}

impl<N: Net> Reactor<N> {
    /// Stops listening, answers what has been asked with `Connection: close`, closes WebSockets
    /// with 1001, and after `grace` cuts what is left. More than a few WebSockets are told over the
    /// first half of it, so that they do not all come back at once. The shortest grace asked for
    /// counts. Listeners that outlive drains, by their [`ServerConfig`](super::ServerConfig), go on.
    pub fn drain(&mut self, grace: Duration) {
        self.drain_of(None, grace);
    }

    /// As [`drain`](Self::drain), for one listener and the connections it accepted.
    pub fn drain_listener(&mut self, listener: ListenerKey, grace: Duration) {
        self.drain_of(Some(listener), grace);
    }

    /// Stops listening, and lets its connections come to their own ends: what has been asked is
    /// answered with `Connection: close`, however long that takes, those with nothing under way
    /// are closed at once, and WebSockets go on.
    pub fn retire_listener(&mut self, listener: ListenerKey) {
        self.close_listener(listener);
        for key in self.keys_of(Some(listener)) {
            if let Some(connection) = self.conns.get_mut(key)
                && let Driver::Server(server) = &mut connection.driver
            {
                server.begin_drain();
                self.touch(key);
                self.schedule(key);
            }
        }
    }

    fn drain_of(&mut self, listener: Option<ListenerKey>, grace: Duration) {
        match listener {
            Some(listener) => self.close_listener(listener),
            None => {
                let drained = |listener: &&Listener<_>| !listener.outlives_drain;
                while let Some(listener) = self.listeners.iter().rfind(drained) {
                    self.close_listener(listener.key);
                }
                self.drain_datagrams();
            }
        }
        let (sockets, others): (VecDeque<_>, VecDeque<_>) =
            self.keys_of(listener).into_iter().partition(|key| {
                let conn = self.conns.get(*key);
                conn.is_some_and(|conn| matches!(conn.driver, Driver::WebSocket(_)))
            });
        self.take_leave(others);
        // A grace beyond what an instant can name is as good as none.
        let Some(deadline) = self.now.checked_add(grace) else {
            return self.take_leave(sockets);
        };
        let steps = sockets.len().div_ceil(STEP_MIN).clamp(1, STEPS_MAX);
        self.drains.push(Drain {
            listener,
            deadline,
            step: sockets.len().div_ceil(steps),
            pause: grace / 2 / u32::try_from(steps).unwrap_or(u32::MAX),
            next: self.now,
            farewells: sockets,
        });
        self.say_farewells();
    }

    /// Lets `keys` say goodbye.
    fn take_leave(&mut self, keys: impl IntoIterator<Item = ConnKey>) {
        let now = self.now;
        for key in keys {
            if let Some(connection) = self.conns.get_mut(key) {
                connection.begin_drain(now);
                self.touch(key);
                self.schedule(key);
            }
        }
    }

    /// Tells the WebSockets whose turn it is.
    fn say_farewells(&mut self) {
        let now = self.now;
        for index in 0..self.drains.len() {
            let mut due = VecDeque::new();
            let drain = &mut self.drains[index];
            while !drain.farewells.is_empty() && drain.next <= now {
                let rest = drain.farewells.len().min(drain.step);
                due.extend(drain.farewells.drain(..rest));
                drain.next += drain.pause;
            }
            self.take_leave(due);
        }
    }

    /// Goes on with drains, and cuts what they have left at their deadlines.
    pub(super) fn tend_drains(&mut self) {
        self.say_farewells();
        let now = self.now;
        while let Some(index) = self.drains.iter().position(|drain| drain.deadline <= now) {
            let drain = self.drains.swap_remove(index);
            if drain.listener.is_none() {
                self.cut_dials();
            }
            for key in self.keys_of(drain.listener) {
                if let Some(conn) = self.conns.get_mut(key) {
                    conn.cut(Cause::Shutdown);
                    self.touch(key);
                }
            }
        }
    }

    /// The connections of `listener`, or all that a drain concerns.
    fn keys_of(&self, listener: Option<ListenerKey>) -> Vec<ConnKey> {
        let outliving = self.listeners.iter().filter(|known| known.outlives_drain);
        let outliving: Vec<_> = outliving.map(|known| known.key).collect();
        let is_its = |conn: &Connection<_>| match listener {
            Some(listener) => conn.listener == listener,
            None => !outliving.contains(&conn.listener),
        };
        let its = self.conns.iter().filter(|(_, conn)| is_its(conn));
        its.map(|(key, _)| key).collect()
    }
}
