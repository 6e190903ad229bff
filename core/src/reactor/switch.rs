//! How the driver of a connection changes: HTTP, at either end, becomes a WebSocket. RFC 6455 §4.
//!
//! Sits in the reactor, beside `drive.rs`, which drives whichever driver there is. What has arrived
//! behind the handshake stays where it is and is offered to the next driver.
//!
//! Invariants
//! - A driver is changed between two of its inputs, never within one.
//! - A server's becomes a WebSocket when everything that was asked before is answered.
//!
//! Not here: the handshakes (`conn/`), and TLS, which changes the transport (`outbound.rs`,
//! `stream.rs`).

use super::drive::Connection;
use crate::conn::{Driver, WsConn};
use std::time::Instant;

impl<S> Connection<S> {
    /// If an upgrade was accepted and everything asked before it is answered, the driver becomes a
    /// WebSocket.
    pub(super) fn switch(&mut self, now: Instant) {
        if let Driver::Server(server) = &mut self.driver
            && let Some(accepted) = server.take_accepted()
        {
            // A server masks nothing, so its connections need no seed.
            let websocket = WsConn::new(accepted.settings, now, 0);
            self.driver = Driver::WebSocket(match accepted.deflate {
                Some(params) => websocket.with_deflate(params),
                None => websocket,
            });
            self.opened = true;
            self.stalled = self.spill.is_some();
        }
    }

    /// If the server has agreed to a WebSocket, that takes the driver's place; whether it does.
    pub(super) fn become_websocket(&mut self, now: Instant) -> bool {
        let Driver::Client(client) = &mut self.driver else {
            return false;
        };
        let Some(opened) = client.take_opened() else {
            return false;
        };
        self.driver = Driver::WebSocket(opened.into_websocket(now));
        self.stalled = self.spill.is_some();
        true
    }
}
