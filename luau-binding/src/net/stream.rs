//! Responses that leave piece by piece: the object a `body` function writes to, and its end.
//!
//! Sits in the native module. The head has left when the function starts; each piece is one chunk
//! (RFC 9112 §7.1), or as much of the announced length. A writer whose peer reads slowly is
//! suspended until what waits has gone, so a script cannot fill the memory by writing.
//!
//! ```text
//! handler returns { body = function } ─▶ begin ─▶ coroutine of the function ─▶ finish_body
//!                                                  │ write: High ─▶ parked ─▶ Writable ─▶ true
//!                                                  └ raises ─▶ abandon_body: seen to be not whole
//! ```
//!
//! Invariants
//! - A response whose function failed never looks complete to its peer.
//! - Every parked writer is woken: by `Writable`, or by the end of the connection with `false`.
//!
//! Not here: what an event looks like (`events.rs`), chunks (core).

use super::events;
use super::methods;
use super::server::ServerState;
use crate::bridge::Purpose;
use crate::runtime::Worker;
use crate::scheduler::{self, WaitKey};
use crate::value::bad_argument;
use crate::vm::atom::Atom;
use crate::vm::object::{Metatable, Object, Tag};
use crate::vm::{Outcome, Pin, Raise, Returns, Stack};
use hukilau_core::conn::{Exchange, Misuse, Pressure};
use hukilau_core::reactor::conns::ConnKey;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CStr;
use std::rc::Rc;

/// A response that is being written.
#[derive(Debug)]
pub(crate) struct StreamState {
    pub(crate) conn: ConnKey,
    pub(crate) exchange: Exchange,
    pub(crate) server: Rc<ServerState>,
    /// The request, for reports.
    pub(crate) request: Option<Pin>,
    /// The peer has gone: nothing can be written any more.
    is_lost: Cell<bool>,
    /// The function has returned, or failed.
    is_over: Cell<bool>,
    /// Coroutines that wait for room.
    writers: RefCell<Vec<WaitKey>>,
}

/// The streams of a worker by their connection; of one with pipelining there may be several.
pub(crate) type Streams = HashMap<ConnKey, Vec<Rc<StreamState>>>;

/// The userdata that a `body` function gets.
pub(crate) struct Stream(pub(super) Rc<StreamState>);

impl Object for Stream {
    const TAG: Tag = Tag::Stream;
    const NAME: &'static CStr = c"Stream";
}

/// What a function that writes a body is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Face {
    /// `stream:write(piece)`.
    Pieces,
    /// `events:send(event)`.
    Events,
}

/// A response whose head has been sent, and whose function has not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    /// Where the function stands on the stack.
    pub(crate) function: i32,
    pub(crate) face: Face,
}

/// Runs the function of a response that has [`Begun`], which is on `stack`. For a HEAD there is
/// nothing to write, so it is not called.
pub(crate) fn start(
    worker: &Worker,
    stack: &Stack<'_>,
    begun: Begun,
    (conn, exchange): (ConnKey, Exchange),
    (server, request): (Rc<ServerState>, Option<Pin>),
) {
    if !worker.reactor.borrow().sends_body(conn, exchange) {
        // Gone, or nothing but the head was asked for.
        let _ended = worker.reactor.borrow_mut().finish_body(conn, exchange);
        return worker.access.end(conn, exchange, false);
    }
    let state = Rc::new(StreamState {
        conn,
        exchange,
        server,
        request,
        is_lost: Cell::new(false),
        is_over: Cell::new(false),
        writers: RefCell::default(),
    });
    let mut streams = worker.streams.borrow_mut();
    streams.entry(conn).or_default().push(Rc::clone(&state));
    drop(streams);
    let purpose = Purpose::Stream(Rc::clone(&state));
    scheduler::start(worker, stack, purpose, |to| {
        stack.copy_to(to, begun.function);
        match begun.face {
            Face::Pieces => to.push_object(Stream(state)),
            Face::Events => to.push_object(events::Events(state)),
        }
        1
    });
}

/// The function has returned.
///
/// # Errors
/// If it wrote less than the response had announced; the connection closes.
pub(crate) fn finish(worker: &Worker, stream: &StreamState) -> Result<(), Misuse> {
    end(worker, stream);
    let ended = worker
        .reactor
        .borrow_mut()
        .finish_body(stream.conn, stream.exchange);
    match ended {
        Ok(_) => {
            worker.access.end(stream.conn, stream.exchange, false);
            Ok(())
        }
        Err(Misuse::Gone | Misuse::AlreadyAnswered) => Ok(()),
        Err(misuse) => Err(misuse),
    }
}

/// The function has failed: its peer must see that the body is not whole.
pub(crate) fn abandon(worker: &Worker, stream: &StreamState) {
    end(worker, stream);
    let mut reactor = worker.reactor.borrow_mut();
    // A peer that has gone needs to be told nothing.
    let _gone = reactor.abandon_body(stream.conn, stream.exchange);
    worker.access.end(stream.conn, stream.exchange, true);
}

fn end(worker: &Worker, stream: &StreamState) {
    stream.is_over.set(true);
    let mut streams = worker.streams.borrow_mut();
    if let Some(of_conn) = streams.get_mut(&stream.conn) {
        of_conn.retain(|other| other.exchange != stream.exchange);
        if of_conn.is_empty() {
            streams.remove(&stream.conn);
        }
    }
}

/// There is room on a connection again.
pub(crate) fn writable(worker: &Worker, conn: ConnKey) {
    let streams = worker.streams.borrow().get(&conn).cloned();
    for stream in streams.into_iter().flatten() {
        wake_writers(worker, &stream, true);
    }
}

/// A connection has ended.
pub(crate) fn closed(worker: &Worker, conn: ConnKey) {
    let streams = worker.streams.borrow_mut().remove(&conn);
    for stream in streams.into_iter().flatten() {
        stream.is_lost.set(true);
        wake_writers(worker, &stream, false);
    }
}

fn wake_writers(worker: &Worker, stream: &StreamState, may_go_on: bool) {
    let from = worker.root.stack(worker);
    for writer in stream.writers.take() {
        scheduler::wake(worker, &from, writer, |stack| {
            stack.push_boolean(may_go_on);
            1
        });
    }
}

/// Installs the metatable and the methods.
pub(crate) fn install(lua: &mlua::Lua, worker: &Rc<Worker>) -> mlua::Result<()> {
    Metatable::new(lua, worker, Tag::Stream, Stream::NAME)?
        .with(c"__index", index)?
        .with(c"__newindex", |_| {
            Err(Raise::from("a stream cannot be changed"))
        })?
        .with(c"__namecall", invoke)?
        .install_object::<Stream>()?;
    methods::add(lua, worker, (Tag::Stream, Atom::Write), c"write", write)?;
    methods::add(lua, worker, (Tag::Stream, Atom::Closed), c"closed", closed_)
}

const MEMBERS: &[&str] = &["write", "closed"];

fn this(stack: &Stack<'_>) -> Result<Rc<StreamState>, Raise> {
    stack
        .object::<Stream>(1)
        .map(|stream| Rc::clone(&stream.0))
        .ok_or_else(|| bad_argument(stack, "stream", 1, "a stream (call methods with a colon)"))
}

fn index(stack: &mut Stack<'_>) -> Outcome {
    this(stack)?;
    match stack.atom(2) {
        Some(atom) if methods::push(stack, Tag::Stream, atom)? => Ok(Returns::Values(1)),
        _ => Err(methods::unknown(stack, "stream", MEMBERS)),
    }
}

fn invoke(stack: &mut Stack<'_>) -> Outcome {
    match stack.called_member() {
        Some(Atom::Write) => write(stack),
        Some(Atom::Closed) => closed_(stack),
        _ => Err(methods::unknown_call(stack, "stream", MEMBERS)),
    }
}

/// `stream:write(piece)`: true once there is room for more, false if the peer has gone.
fn write(stack: &mut Stack<'_>) -> Outcome {
    let stream = this(stack)?;
    if stack.bytes(2).is_none() {
        return Err(bad_argument(
            stack,
            "stream:write",
            2,
            "a string or a buffer",
        ));
    }
    let worker = stack.worker()?;
    let piece = stack.bytes(2).unwrap_or_default();
    let written = push_piece(worker, &stream, piece, "stream:write")?;
    answer(stack, &stream, written)
}

/// `stream:closed()`: whether the peer has gone.
fn closed_(stack: &mut Stack<'_>) -> Outcome {
    let stream = this(stack)?;
    push_closed(stack, &stream)
}

/// Pushes whether the peer of `stream` has gone.
pub(super) fn push_closed(stack: &mut Stack<'_>, stream: &StreamState) -> Outcome {
    let has_left = stack.worker()?.reactor.borrow().has_left(stream.conn);
    stack.push_boolean(stream.is_lost.get() || has_left);
    Ok(Returns::Values(1))
}

/// Queues a piece; `None` if the peer has gone.
///
/// # Errors
/// If `function` was called too late, or the piece exceeds the length that was announced.
pub(super) fn push_piece(
    worker: &Worker,
    stream: &StreamState,
    piece: &[u8],
    function: &str,
) -> Result<Option<Pressure>, Raise> {
    if stream.is_over.get() {
        return Err(Raise::from(format!(
            "{function}: the response has ended, as its function has returned"
        )));
    }
    if stream.is_lost.get() {
        return Ok(None);
    }
    let written = worker
        .reactor
        .borrow_mut()
        .write_body(stream.conn, stream.exchange, piece);
    match written {
        Ok(pressure) => {
            let access = &worker.access;
            access.piece(stream.conn, stream.exchange, piece.len());
            Ok(Some(pressure))
        }
        Err(Misuse::Gone | Misuse::AlreadyAnswered) => {
            stream.is_lost.set(true);
            Ok(None)
        }
        Err(Misuse::LengthMismatch) => Err(Raise::from(format!(
            "{function}: more bytes than the response's content-length announced"
        ))),
        Err(misuse) => Err(Raise::from(format!("{function}: {misuse}"))),
    }
}

/// Answers a call that has written: at once, or when there is room again.
pub(super) fn answer(
    stack: &mut Stack<'_>,
    stream: &StreamState,
    written: Option<Pressure>,
) -> Outcome {
    // Where nothing can wait, the piece is queued all the same; core cuts a peer that takes too
    // little of it.
    if written == Some(Pressure::High) && stack.may_suspend() {
        let worker = stack.worker()?;
        let key = scheduler::wait_for_wire(worker, stack)?;
        stream.writers.borrow_mut().push(key);
        return Ok(Returns::Suspend);
    }
    stack.push_boolean(written.is_some());
    Ok(Returns::Values(1))
}
