//! Turning away who waits when no descriptor is left: one is kept in reserve for that.
//!
//! Sits in the reactor, behind `accept.rs`, which found that the system refuses an accept for want
//! of descriptors (`EMFILE`, `ENFILE`). Who waits then would wait until somebody leaves, and not
//! know why; and the listener would be reported ready for ever.
//!
//! ```text
//!   accept fails ─▶ reserve given up ─▶ accept, 503, close; accept, 503, close … ─▶ reserve kept again
//!                                                                      the listener rests
//! ```
//!
//! Invariants
//! - At most [`SHED_MAX`] connections are turned away before the listener rests: a flood costs us
//!   that, and no spin.
//! - Who speaks HTTP without TLS is told; nobody else could understand it.
//!
//! Not here: how long it rests (`accept.rs`); what 503 says (`conn/`).

use super::Reactor;
use super::accept::Listener;
use super::handover::Source;
use crate::buffer::SendBuffer;
use crate::conn::Driver;
use crate::transport::{Net, Transport};
use std::io::ErrorKind;

/// Connections that are turned away at once.
const SHED_MAX: usize = 64;

/// Bytes read from each of them: what it has asked, usually. Closing over bytes that were not read
/// resets the connection, and then our answer may be lost on its way.
const READ_MAX: usize = 4 * 1024;

impl<L> Listener<L> {
    /// The socket at which connections wait, if it has one, and whether they do.
    fn callers(&mut self) -> Option<(&mut L, &mut bool)> {
        match &mut self.source {
            Source::Own(socket) => Some((socket, &mut self.waiting)),
            Source::Shared { socket, calls, .. } => socket.as_mut().map(|socket| (socket, calls)),
        }
    }
}

impl<N: Net> Reactor<N> {
    /// Turns away those who wait at listener `index`, by the descriptor in reserve.
    pub(super) fn shed_waiting(&mut self, index: usize) {
        if !self.net.spend_reserve() {
            return;
        }
        for _ in 0..SHED_MAX {
            let Some(listener) = self.listeners.get_mut(index) else {
                break;
            };
            let Some((socket, waits)) = listener.callers() else {
                break;
            };
            match self.net.accept(socket) {
                Ok((socket, peer)) => {
                    let key = listener.key;
                    let (status, bytes) = self.turn_away(index, socket);
                    let why = (status, "no descriptor left", bytes);
                    self.note_turned_away(key, peer, why);
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    ErrorKind::WouldBlock => {
                        *waits = false;
                        break;
                    }
                    // Somebody else was faster.
                    _ => break,
                },
            }
        }
        self.net.restore_reserve();
    }

    /// Says why, as far as that is possible without waiting, and closes. What was said, by its status
    /// and the length of its body.
    fn turn_away(&mut self, index: usize, socket: N::Socket) -> (Option<u16>, usize) {
        let mut transport = Transport::Plain(socket);
        let mut out = SendBuffer::new(&self.pool);
        let mut said = (None, 0);
        if let Some(listener) = self.listeners.get(index)
            && !listener.speaks_tls()
        {
            let mut driver = listener.driver(self.now);
            driver.turn_away(&mut out);
            if let Driver::Server(server) = &mut driver
                && let Some(refused) = server.take_refused()
            {
                said = (refused.status, refused.bytes);
            }
        }
        if !out.is_empty() {
            // How either goes changes nothing: the connection is closed.
            let _asked = transport.read(&mut self.net, &mut [0; READ_MAX]);
            let _told = transport.write(&mut self.net, &mut out);
            let _ended = transport.shutdown_write(&mut self.net);
        }
        transport.close(&mut self.net, false);
        said
    }
}
