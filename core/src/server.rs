//! The face for Rust embedders who prefer methods to a match: a [`Handler`], and the one function
//! that calls it.
//!
//! A leaf: nothing in this crate uses it. It adds no state and no re-entrancy; [`dispatch`] walks
//! an inbox that the turn has filled, so the handler has the whole reactor to itself meanwhile.
//!
//! Invariants
//! - Every completion reaches exactly one method, in the inbox's order.
//!
//! Not here: listening and limits (`reactor/`); the loop, which is the embedder's four lines.

use crate::conn::Exchange;
use crate::http1::{Request, Response};
use crate::reactor::conns::ConnKey;
use crate::reactor::inbox::{Cause, Inbox, Refusal, What};
use crate::reactor::{ListenerKey, Reactor};
use crate::transport::{Net, Peer};
use crate::ws::MessageKind;
use std::net::SocketAddr;

/// What a server does about completions. Only requests must be dealt with: one that is never
/// answered holds its connection.
pub trait Handler<N: Net> {
    /// A request's head arrived at `listener`. If it has a body, that follows by
    /// [`on_body`](Self::on_body) and [`on_end`](Self::on_end).
    fn on_request(
        &mut self,
        reactor: &mut Reactor<N>,
        conn: ConnKey,
        exchange: Exchange,
        request: Request<'_>,
        listener: ListenerKey,
    );

    /// A connection that we dialled has been made.
    fn on_connected(&mut self, _: &mut Reactor<N>, _: ConnKey, _: Peer) {}

    /// A response's head arrived, on a connection that we opened. If it has a body, that follows
    /// as a request's does.
    fn on_response(&mut self, _: &mut Reactor<N>, _: ConnKey, _: Exchange, _: Response<'_>) {}

    /// Bytes of a body.
    fn on_body(&mut self, _: &mut Reactor<N>, _: ConnKey, _: Exchange, _: &[u8]) {}

    /// A body is complete.
    fn on_end(&mut self, _: &mut Reactor<N>, _: ConnKey, _: Exchange) {}

    /// An accepted upgrade is done: messages may flow.
    fn on_open(&mut self, _: &mut Reactor<N>, _: ConnKey) {}

    /// A WebSocket message.
    fn on_message(&mut self, _: &mut Reactor<N>, _: ConnKey, _: MessageKind, _: &[u8]) {}

    /// A pong.
    fn on_pong(&mut self, _: &mut Reactor<N>, _: ConnKey, _: &[u8]) {}

    /// The peer's close frame, with its code and reason.
    fn on_closing(&mut self, _: &mut Reactor<N>, _: ConnKey, _: u16, _: &[u8]) {}

    /// A listener of streams has taken one.
    fn on_accepted(&mut self, _: &mut Reactor<N>, _: ConnKey, _: ListenerKey, _: Peer) {}

    /// Bytes of a stream, as they came.
    fn on_bytes(&mut self, _: &mut Reactor<N>, _: ConnKey, _: &[u8]) {}

    /// The peer of a stream sends nothing more.
    fn on_finished(&mut self, _: &mut Reactor<N>, _: ConnKey) {}

    /// A name that was asked for has these addresses.
    fn on_resolved(&mut self, _: &mut Reactor<N>, _: ConnKey, _: &[SocketAddr]) {}

    /// A datagram came from an address.
    fn on_datagram(&mut self, _: &mut Reactor<N>, _: ConnKey, _: SocketAddr, _: &[u8]) {}

    /// There is room again after `Pressure::High`.
    fn on_writable(&mut self, _: &mut Reactor<N>, _: ConnKey) {}

    /// Something was refused without the application.
    fn on_refused(&mut self, _: &mut Reactor<N>, _: ConnKey, _: &Refusal) {}

    /// The connection has ended; its key is stale.
    fn on_closed(&mut self, _: &mut Reactor<N>, _: ConnKey, _: &Cause) {}
}

/// Calls `handler` for each completion of `inbox`.
pub fn dispatch<N: Net>(inbox: &Inbox, reactor: &mut Reactor<N>, handler: &mut impl Handler<N>) {
    for completion in inbox.completions() {
        let conn = completion.conn;
        match completion.what {
            What::Request {
                exchange,
                request,
                listener,
            } => {
                handler.on_request(reactor, conn, exchange, request, listener);
            }
            What::Connected { peer } => handler.on_connected(reactor, conn, peer),
            What::Response { exchange, response } => {
                handler.on_response(reactor, conn, exchange, response)
            }
            What::Body { exchange, bytes } => handler.on_body(reactor, conn, exchange, bytes),
            What::End { exchange } => handler.on_end(reactor, conn, exchange),
            What::Open => handler.on_open(reactor, conn),
            What::Message { kind, payload } => handler.on_message(reactor, conn, kind, payload),
            What::Pong { payload } => handler.on_pong(reactor, conn, payload),
            What::Closing { code, reason } => handler.on_closing(reactor, conn, code, reason),
            What::Accepted { listener, peer } => handler.on_accepted(reactor, conn, listener, peer),
            What::Bytes { bytes } => handler.on_bytes(reactor, conn, bytes),
            What::Finished => handler.on_finished(reactor, conn),
            What::Resolved { addresses } => handler.on_resolved(reactor, conn, addresses),
            What::Datagram { from, bytes } => handler.on_datagram(reactor, conn, from, bytes),
            What::Writable => handler.on_writable(reactor, conn),
            What::Refused { refusal } => handler.on_refused(reactor, conn, refusal),
            What::Closed { cause } => handler.on_closed(reactor, conn, cause),
        }
    }
}
