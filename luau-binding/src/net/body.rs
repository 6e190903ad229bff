//! Bodies of requests that a handler reads piece by piece: `streamBody = true`.
//!
//! Sits in the native module. The handler starts with the head; what arrives of the body is handed
//! to the coroutine that waits in `request:read()`, or kept until one does. While much is kept, the
//! connection is held (not read), so the peer's sending backs up in the network.
//!
//! Invariants
//! - At most [`KEPT_BYTES_MAX`] and one read of the reactor are kept of one body.
//! - A body that did not come to its end never looks as if it had: reading raises.
//! - Nothing is kept of a request that was answered, or whose connection has ended.
//!
//! Not here: bodies that are collected (`request.rs`), how bodies are delimited (core).

use super::request::{self, View};
use crate::runtime::Worker;
use crate::scheduler::{self, WaitKey};
use crate::vm::{Outcome, Raise, Returns, Stack};
use hukilau_core::conn::Exchange;
use hukilau_core::reactor::conns::ConnKey;
use std::collections::HashMap;

/// Kept bytes from which on a connection is no longer read.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// Why there is nothing to read.
const ANSWERED: &str =
    "request:read: the request has been answered, and its body given up with that";

/// The bodies that are arriving, or were not read to their end, by their request.
pub(crate) type Bodies = HashMap<(ConnKey, Exchange), Incoming>;

/// A body on its way.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    /// What has arrived and was not read.
    kept: Vec<u8>,
    has_ended: bool,
    /// The connection is not read because of it.
    is_held: bool,
    /// The coroutine that waits for the next piece.
    reader: Option<WaitKey>,
}

/// A request arrived whose body is going to be read piece by piece.
pub(crate) fn begin(worker: &Worker, conn: ConnKey, exchange: Exchange) {
    let mut bodies = worker.bodies.borrow_mut();
    bodies.insert((conn, exchange), Incoming::default());
}

/// A piece arrived. False if nobody reads this body piece by piece.
pub(crate) fn piece(worker: &Worker, conn: ConnKey, exchange: Exchange, bytes: &[u8]) -> bool {
    let key = (conn, exchange);
    let reader = match worker.bodies.borrow_mut().get_mut(&key) {
        Some(body) => body.reader.take(),
        None => return false,
    };
    if let Some(reader) = reader {
        let from = worker.root.stack(worker);
        let is_read = scheduler::wake(worker, &from, reader, |stack| {
            stack.push_string(bytes);
            1
        });
        if is_read {
            return true;
        }
    }
    if let Some(body) = worker.bodies.borrow_mut().get_mut(&key) {
        body.kept.extend_from_slice(bytes);
        if body.kept.len() >= KEPT_BYTES_MAX && !body.is_held {
            body.is_held = true;
            worker.reactor.borrow_mut().hold(conn);
        }
    }
    true
}

/// A body is complete. False if nobody reads it piece by piece.
pub(crate) fn end(worker: &Worker, conn: ConnKey, exchange: Exchange) -> bool {
    let reader = match worker.bodies.borrow_mut().get_mut(&(conn, exchange)) {
        Some(body) => {
            body.has_ended = true;
            body.reader.take()
        }
        None => return false,
    };
    if let Some(reader) = reader {
        let from = worker.root.stack(worker);
        scheduler::wake(worker, &from, reader, |stack| {
            stack.push_nil();
            1
        });
    }
    true
}

/// A request has been answered: what is left of its body concerns nobody.
pub(crate) fn forget(worker: &Worker, conn: ConnKey, exchange: Exchange) {
    let body = {
        let mut bodies = worker.bodies.borrow_mut();
        // The common case, on the way of every answer.
        if bodies.is_empty() {
            return;
        }
        bodies.remove(&(conn, exchange))
    };
    let Some(body) = body else { return };
    if body.is_held {
        worker.reactor.borrow_mut().release(conn);
    }
    if let Some(reader) = body.reader {
        let from = worker.root.stack(worker);
        scheduler::wake_raising(worker, &from, reader, ANSWERED.to_owned());
    }
}

/// A connection has ended, and `why`.
pub(crate) fn closed(worker: &Worker, conn: ConnKey, why: &dyn std::fmt::Display) {
    let mut readers = Vec::new();
    worker.bodies.borrow_mut().retain(|key, body| {
        if key.0 == conn {
            readers.extend(body.reader.take());
        }
        key.0 != conn
    });
    let from = worker.root.stack(worker);
    for reader in readers {
        let message = format!("request:read: the body did not come to its end: {why}");
        scheduler::wake_raising(worker, &from, reader, message);
    }
}

/// `request:read()`: the next piece of the body as a string, nil behind the last one.
pub(super) fn read(stack: &mut Stack<'_>) -> Outcome {
    let view = View::at(stack, 1).ok_or_else(|| request::not_a_request(stack))?;
    if !view.is_streamed() {
        return Err(Raise::from(
            "request:read: the body is whole already, in request.body; the option \
             `streamBody = true` of net.serve has it come in pieces",
        ));
    }
    let (conn, exchange) = view
        .origin()
        .ok_or_else(|| Raise::from("request:read: this request has no connection"))?;
    let worker = stack.worker()?;
    let mut bodies = worker.bodies.borrow_mut();
    let Some(body) = bodies.get_mut(&(conn, exchange)) else {
        if view.has_body() {
            return Err(Raise::from(
                match worker.reactor.borrow().peer(conn).is_none() {
                    true => "request:read: the peer has gone",
                    false => ANSWERED,
                },
            ));
        }
        stack.push_nil();
        return Ok(Returns::Values(1));
    };
    if !body.kept.is_empty() {
        let kept = std::mem::take(&mut body.kept);
        if std::mem::take(&mut body.is_held) {
            worker.reactor.borrow_mut().release(conn);
        }
        drop(bodies);
        stack.push_string(&kept);
        return Ok(Returns::Values(1));
    }
    if body.has_ended {
        stack.push_nil();
        return Ok(Returns::Values(1));
    }
    let is_awaited = |reader| worker.scheduler.borrow().is_current(reader);
    if body.reader.is_some_and(is_awaited) {
        return Err(Raise::from(
            "request:read: another coroutine waits for the next piece of this body",
        ));
    }
    body.reader = Some(scheduler::wait_for_wire(worker, stack)?);
    Ok(Returns::Suspend)
}
