//! Outbound backpressure of one connection: when the application is to stop, and when to go on.
//!
//! Sits in the reactor, beside `drive.rs`, which flushes and asks [`Connection::is_relieved`]
//! after it. What counts is bytes that were sent and have not left; answers that wait for the
//! answers before them (RFC 9112 §9.3.2) count for whoever writes them, and for nobody else.
//!
//! Invariants
//! - `Pressure::High` is answered by one `Writable`, when what waited has left but for
//!   `Limits::out_bytes_low`.
//!
//! Not here: WebSocket messages of peers that are too far behind (`publish.rs`); the bound at which
//! a connection is cut (`ops.rs`).

use super::drive::Connection;
use super::figures::Figures;
use crate::conn::{Driver, Exchange, Pressure};

/// Which of the application's sendings was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pressed {
    No,
    /// What goes straight to the wire.
    Front,
    /// An answer held behind that of an exchange whose number ends in this byte: with at most 64
    /// in flight, that tells it from the others.
    Behind(u8),
}

impl<S> Connection<S> {
    /// Whether the application should go on sending, on `exchange` or on the WebSocket; remembers
    /// that it was told to stop.
    ///
    /// An answer whose turn it is must not be stopped for what is held behind it: that cannot
    /// leave before it.
    pub(super) fn pressure(&mut self, exchange: Option<Exchange>, figures: &Figures) -> Pressure {
        let front = self.front();
        let is_held = match (exchange, front) {
            // Numbers wrap; what lies ahead is less than half their range away.
            (Some(exchange), Some(front)) => {
                (1..1 << 31).contains(&exchange.0.wrapping_sub(front.0))
            }
            _ => false,
        };
        let waits = if is_held {
            self.waiting_bytes()
        } else {
            self.out.len()
        };
        if waits <= self.limits.out_bytes_high as usize {
            return Pressure::Low;
        }
        figures
            .pressed
            .add(usize::from(self.pressed == Pressed::No));
        self.pressed = match (self.pressed, front) {
            (Pressed::No, Some(front)) if is_held => Pressed::Behind(low_byte(front)),
            (Pressed::Behind(before), _) if is_held => Pressed::Behind(before),
            _ => Pressed::Front,
        };
        Pressure::High
    }

    /// Whether what was told to stop may go on.
    pub(super) fn is_relieved(&self) -> bool {
        let low = self.limits.out_bytes_low as usize;
        match self.pressed {
            Pressed::No => false,
            Pressed::Front => self.out.len() < low,
            // It may be its turn now.
            Pressed::Behind(front) if self.front().map(low_byte) != Some(front) => {
                self.out.len() < low
            }
            Pressed::Behind(_) => self.waiting_bytes() < low,
        }
    }

    /// The exchange whose answer leaves next.
    pub(super) fn front(&self) -> Option<Exchange> {
        match &self.driver {
            Driver::Server(server) => Some(server.front()),
            Driver::Client(_) | Driver::WebSocket(_) | Driver::Stream(_) => None,
        }
    }

    /// Bytes that the application has sent and the system has not.
    pub(super) fn waiting_bytes(&self) -> usize {
        let held = match &self.driver {
            Driver::Server(server) => server.held_bytes(),
            Driver::Client(_) | Driver::WebSocket(_) | Driver::Stream(_) => 0,
        };
        self.out.len() + held
    }
}

fn low_byte(exchange: Exchange) -> u8 {
    exchange.0.to_le_bytes()[0]
}
