//! `net.websocket`: opens a WebSocket and hands it to the coroutine that asked.
//!
//! Sits in the native module's client. The object is the one that servers give to their callbacks
//! (`socket.rs`); here it has callbacks of its own only.
//!
//! Invariants
//! - Who asked goes on first. Its callbacks run when it has yielded, `bindOpen`'s before any message.
//! - A socket that nobody gets to know is closed.
//!
//! Not here: the handshake (core), messages (`socket.rs`).

use super::{answer, options};
use crate::net::socket::{self, Event};
use crate::runtime::Worker;
use crate::scheduler::{self, WaitKey};
use crate::vm::{Outcome, Stack};
use hukilau_core::client::ClientResponse;
use hukilau_core::reactor::conns::ConnKey;

/// `net.websocket(url, options?)`: waits until the server has agreed.
pub(crate) fn open(stack: &mut Stack<'_>) -> Outcome {
    let asked = options::read_websocket(stack)?;
    super::ask(stack, "net.websocket", asked)
}

/// The server has agreed: `conn` is a WebSocket.
pub(super) fn opened(
    worker: &Worker,
    asker: Option<WaitKey>,
    conn: ConnKey,
    response: &ClientResponse,
) {
    let from = worker.root.stack(worker);
    let protocol = response.values("sec-websocket-protocol").next();
    let is_taken = asker.is_some_and(|asker| {
        scheduler::wake(worker, &from, asker, |stack| {
            let socket = socket::create(worker, stack, conn, None, protocol, None);
            socket::push_object(&socket, stack);
            answer::push_head(stack, response);
            2
        })
    });
    let socket = worker.sockets.borrow().get(conn).cloned();
    match socket {
        Some(socket) if is_taken => socket::deliver(worker, &socket, Event::Open),
        _ => {
            // It may have ended meanwhile.
            let _gone = worker.reactor.borrow_mut().terminate(conn);
        }
    }
}
