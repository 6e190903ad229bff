//! What leaves a connection, and how: all that waits at once, or a long message past the queue.
//!
//! Sits in the reactor, beside `drive.rs`, which calls [`Connection::flush`] whenever something may
//! wait. Operations only append, and each turn begins by flushing, so that what an application sends
//! in a turn leaves in one write. A long message gains nothing by waiting for company, and loses a
//! copy: it is written at once, behind what waits, from where the application has it.
//!
//! Invariants
//! - Bytes leave in the order in which they were sent, whatever the socket takes of them.
//! - `writable` is cleared only where a write said so, in [`Connection::flush_with`].
//! - A message that leaves at once differs in nothing but its way: bounds, pressure and figures
//!   count it alike, and a socket that fails is noticed by the next settling.
//!
//! Not here: gathered writes (`transport/`), when a connection ends (`drive.rs`).

use super::Reactor;
use super::conns::ConnKey;
use super::drive::{Connection, Phase};
use super::figures::Figures;
use super::inbox::Cause;
use super::ops::websocket;
use crate::conn::{Driver, Misuse, Pressure};
use crate::transport::{Net, Transport, WriteOutcome};
use crate::ws::MessageKind;
use std::time::Instant;

/// Bytes of payload from which on a message does not wait for the turn's end. Copying fewer costs less
/// than a write of their own.
pub(super) const LONG_BYTES_MIN: usize = 32 * 1024;

impl<N: Net> Reactor<N> {
    /// Sends a long message to a WebSocket that has room for it: at once, or with the turn if it cannot
    /// go out as it is or the socket is full.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(super) fn send_long(
        &mut self,
        conn: ConnKey,
        kind: MessageKind,
        payload: &[u8],
    ) -> Result<Pressure, Misuse> {
        let connection = self.conns.get_mut(conn).ok_or(Misuse::Gone)?;
        let websocket = websocket(&mut connection.driver)?;
        let is_plain = matches!(connection.transport, Transport::Plain(_));
        let may_write = is_plain && connection.writable;
        if may_write && websocket.send_header(kind, payload, &mut connection.out)? {
            connection.flush_with(&mut self.net, self.now, &self.figures, payload);
        } else {
            websocket.send(kind, payload, &mut connection.out)?;
        }
        Ok(connection.pressure(None, &self.figures))
    }
}

impl<S> Connection<S> {
    /// Sends what waits, as far as the socket takes it.
    pub(super) fn flush<N: Net<Socket = S>>(
        &mut self,
        net: &mut N,
        now: Instant,
        figures: &Figures,
    ) {
        let has_unsent = !self.out.is_empty() || self.transport.has_unsent();
        if has_unsent && self.writable && !self.cut {
            self.flush_with(net, now, figures, &[]);
        }
    }

    /// Sends what waits and `last` behind it. The only place that forgets that it is writable.
    fn flush_with<N: Net<Socket = S>>(
        &mut self,
        net: &mut N,
        now: Instant,
        figures: &Figures,
        last: &[u8],
    ) {
        let is_handshaking = self.transport.is_handshaking();
        let waited = self.out.len() + last.len();
        let outcome = if last.is_empty() {
            self.transport.write(net, &mut self.out)
        } else {
            self.transport.write_through(net, &mut self.out, last)
        };
        figures
            .bytes_sent
            .add(waited.saturating_sub(self.out.len()));
        match outcome {
            // The deadline is the handshake's.
            WriteOutcome::Flushed | WriteOutcome::Handshaking if is_handshaking => {}
            WriteOutcome::Blocked { .. } if is_handshaking => self.writable = false,
            WriteOutcome::Flushed | WriteOutcome::Handshaking => {
                self.own_deadline = None;
                if let Driver::Client(client) = &mut self.driver {
                    client.note_sent(now);
                }
            }
            WriteOutcome::Blocked { progressed } => {
                self.writable = false;
                // How long the peer of a stream may leave us waiting is for the application to say.
                let is_patient = self.phase == Phase::Open && self.is_stream();
                if (progressed || self.own_deadline.is_none()) && !is_patient {
                    self.own_deadline = now.checked_add(self.limits.write_timeout);
                }
            }
            WriteOutcome::Failed(error) if self.is_heard_out() && self.phase == Phase::Open => {
                // A server may respond, with 413 say, and leave: that is here to be read.
                self.cause.get_or_insert(Cause::Io(error));
                self.out.clear();
                self.own_deadline = now.checked_add(self.limits.write_timeout);
                (self.unwritable, self.writable) = (true, false);
                (self.readable, self.hung_up) = (true, true);
            }
            WriteOutcome::Failed(error) => self.fail(error),
        }
    }
}
