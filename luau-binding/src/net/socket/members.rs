//! The members of the WebSocket object, and their arguments.
//!
//! Sits inside `socket.rs`, which knows in what order a socket's events reach the script.
//!
//! Invariants
//! - An argument that is wrong raises and changes nothing.
//! - Sending to a socket that has closed raises; closing one again does nothing.
//!
//! Not here: the queue and the callbacks (`socket.rs`).

use super::{Event, Slot, Socket, SocketState, dequeue, enqueue, push_message};
use crate::net::{methods, topics};
use crate::runtime::Worker;
use crate::scheduler;
use crate::value::bad_argument;
use crate::vm::atom::Atom;
use crate::vm::object::{Metatable, Object, Tag};
use crate::vm::{Kind, Outcome, Raise, Returns, Stack};
use hukilau_core::conn::{Misuse, Pressure};
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::transport::{KeptPeer, Peer};
use hukilau_core::ws::{MessageKind, close_code};
use std::rc::Rc;

/// Installs the metatable and the methods.
pub(crate) fn install(lua: &mlua::Lua, worker: &Rc<Worker>) -> mlua::Result<()> {
    Metatable::new(lua, worker, Tag::Socket, Socket::NAME)?
        .with(c"__index", index)?
        .with(c"__newindex", assign)?
        .with(c"__namecall", invoke)?
        .with(c"__iter", iterate)?
        .install_object::<Socket>()?;
    let tag = Tag::Socket;
    methods::add(lua, worker, (tag, Atom::Send), c"send", send)?;
    methods::add(lua, worker, (tag, Atom::Next), c"next", next)?;
    methods::add(lua, worker, (tag, Atom::Close), c"close", close)?;
    methods::add(lua, worker, (tag, Atom::Terminate), c"terminate", terminate)?;
    methods::add(lua, worker, (tag, Atom::Ping), c"ping", ping)?;
    methods::add(lua, worker, (tag, Atom::BindOpen), c"bindOpen", bind_open)?;
    methods::add(
        lua,
        worker,
        (tag, Atom::BindMessage),
        c"bindMessage",
        bind_message,
    )?;
    methods::add(
        lua,
        worker,
        (tag, Atom::BindClose),
        c"bindClose",
        bind_close,
    )?;
    methods::add(
        lua,
        worker,
        (tag, Atom::BindDrain),
        c"bindDrain",
        bind_drain,
    )?;
    topics::install_sockets(lua, worker)
}

/// What a close frame has room for. RFC 6455 §5.5.
const CLOSE_REASON_BYTES_MAX: usize = 123;

const MEMBERS: &[&str] = &[
    "send",
    "next",
    "close",
    "terminate",
    "ping",
    "bindOpen",
    "bindMessage",
    "bindClose",
    "bindDrain",
    "subscribe",
    "unsubscribe",
    "isSubscribed",
    "topics",
    "publish",
    "sendLatest",
    "connected",
    "closeCode",
    "closeReason",
    "closedByPeer",
    "bufferedBytes",
    "protocol",
    "ip",
    "data",
];

pub(in crate::net) fn this(stack: &Stack<'_>) -> Result<Rc<SocketState>, Raise> {
    stack
        .object::<Socket>(1)
        .map(|socket| Rc::clone(&socket.0))
        .ok_or_else(|| {
            bad_argument(
                stack,
                "WebSocket",
                1,
                "a WebSocket (call methods with a colon)",
            )
        })
}

/// `ws.name`.
fn index(stack: &mut Stack<'_>) -> Outcome {
    let socket = this(stack)?;
    match stack.atom(2) {
        Some(Atom::Data) => stack.push_slot(1, Slot::Data.number()),
        Some(Atom::Connected) => {
            // The reactor knows of an end before its completion has been delivered.
            let reactor = stack.worker()?.reactor.borrow();
            let is_connected = socket.is_connected.get() && reactor.accepts_messages(socket.conn);
            drop(reactor);
            stack.push_boolean(is_connected);
        }
        Some(Atom::CloseCode) => match socket.end.get() {
            Some(end) => stack.push_number(f64::from(end.code)),
            None => stack.push_nil(),
        },
        Some(Atom::CloseReason) => match socket.end.get() {
            Some(end) => stack.push_string(&end.reason),
            None => stack.push_nil(),
        },
        Some(Atom::ClosedByPeer) => {
            stack.push_boolean(socket.end.get().is_some_and(|end| end.is_by_peer));
        }
        Some(Atom::BufferedBytes) => {
            let waiting = stack.worker()?.reactor.borrow().waiting_bytes(socket.conn);
            // Below 2^32, by `Limits::out_bytes_max`.
            let waiting = u32::try_from(waiting.unwrap_or(0)).unwrap_or(u32::MAX);
            stack.push_number(f64::from(waiting));
        }
        Some(Atom::Protocol) => {
            let rare = socket.rare.as_ref();
            match rare.and_then(|rare| rare.protocol.as_ref()) {
                Some(protocol) => stack.push_string(protocol),
                None => stack.push_nil(),
            }
        }
        Some(Atom::Ip) => match socket.peer.as_ref().map(KeptPeer::get) {
            Some(Peer::Ip(peer)) => stack.push_string(peer.ip().to_string()),
            _ => stack.push_string(""),
        },
        Some(atom) if methods::push(stack, Tag::Socket, atom)? => {}
        _ => return Err(methods::unknown(stack, "WebSocket", MEMBERS)),
    }
    Ok(Returns::Values(1))
}

/// `ws.data = value`; nothing else can be assigned.
fn assign(stack: &mut Stack<'_>) -> Outcome {
    this(stack)?;
    if stack.atom(2) != Some(Atom::Data) {
        return Err(Raise::from(
            "WebSocket: only `data` can be assigned; put what belongs to the script there",
        ));
    }
    stack.push_copy(3);
    stack.set_slot(1, Slot::Data.number());
    Ok(Returns::Values(0))
}

/// `ws:name(...)`.
fn invoke(stack: &mut Stack<'_>) -> Outcome {
    let called = stack.called_member();
    match called {
        Some(Atom::Send) => send(stack),
        Some(Atom::Next) => next(stack),
        Some(Atom::Close) => close(stack),
        Some(Atom::Terminate) => terminate(stack),
        Some(Atom::Ping) => ping(stack),
        Some(Atom::BindOpen) => bind_open(stack),
        Some(Atom::BindMessage) => bind_message(stack),
        Some(Atom::BindClose) => bind_close(stack),
        Some(Atom::BindDrain) => bind_drain(stack),
        _ => topics::invoke_socket(stack, called)
            .unwrap_or_else(|| Err(methods::unknown_call(stack, "WebSocket", MEMBERS))),
    }
}

fn refused(method: &str, misuse: Misuse) -> Raise {
    Raise::from(match misuse {
        Misuse::Gone | Misuse::Closing => format!("ws:{method}: the WebSocket is closed"),
        other => format!("ws:{method}: {other}"),
    })
}

/// `ws:send(data, binary?)`: false while the peer reads slowly. Above the limit of `backpressure` its
/// policy decides what becomes of the message: one that is not sent comes with the word `dropped`.
fn send(stack: &mut Stack<'_>) -> Outcome {
    let pressure = attempt(stack)?.map_err(|misuse| refused("send", misuse))?;
    Ok(push_pressure(stack, pressure))
}

/// What `ws:send` does, for surfaces: nil and why where that raises because of the socket or the text. A
/// socket that has closed is `closed`.
pub(crate) fn try_send(stack: &mut Stack<'_>) -> Outcome {
    match attempt(stack)? {
        Ok(pressure) => Ok(push_pressure(stack, pressure)),
        Err(misuse) => Ok(push_refused(stack, misuse)),
    }
}

/// The same of the connection `conn`, for a surface whose own value is at 1: the bytes of a message that
/// there was room for; nil and `type` if the argument is neither a string nor a buffer.
pub(crate) fn send_by(stack: &mut Stack<'_>, conn: ConnKey) -> Outcome {
    let is_text = stack.kind(2) == Kind::String;
    let Some(payload) = stack.bytes(2) else {
        stack.push_nil();
        stack.push_string("type");
        return Ok(Returns::Values(2));
    };
    let kind = match stack.boolean(3).unwrap_or(!is_text) {
        true => MessageKind::Binary,
        false => MessageKind::Text,
    };
    let len = payload.len();
    let sent = stack
        .worker()?
        .reactor
        .borrow_mut()
        .send(conn, kind, payload);
    match sent {
        Ok(Pressure::Low) => {
            stack.push_number(len as f64);
            Ok(Returns::Values(1))
        }
        Ok(pressure) => Ok(push_pressure(stack, pressure)),
        Err(misuse) => Ok(push_refused(stack, misuse)),
    }
}

fn push_refused(stack: &mut Stack<'_>, misuse: Misuse) -> Returns {
    stack.push_nil();
    match misuse {
        Misuse::Gone | Misuse::Closing => stack.push_string("closed"),
        other => stack.push_string(refused("send", other).0.as_ref()),
    }
    Returns::Values(2)
}

fn attempt(stack: &Stack<'_>) -> Result<Result<Pressure, Misuse>, Raise> {
    let socket = this(stack)?;
    let kind = topics::kind_of(stack, 2, "ws:send")?;
    let payload = stack.bytes(2).unwrap_or(&[]);
    let mut reactor = stack.worker()?.reactor.borrow_mut();
    Ok(reactor.send(socket.conn, kind, payload))
}

fn push_pressure(stack: &mut Stack<'_>, pressure: Pressure) -> Returns {
    stack.push_boolean(pressure == Pressure::Low);
    if pressure != Pressure::Dropped {
        return Returns::Values(1);
    }
    stack.push_string("dropped");
    Returns::Values(2)
}

/// `ws:next()`: the next message, or nil once the socket is closed.
fn next(stack: &mut Stack<'_>) -> Outcome {
    let socket = this(stack)?;
    let worker = stack.worker()?;
    let is_message = |event: &Event| matches!(event, Event::Message(..));
    if let Some(Event::Message(kind, payload)) = dequeue(worker, &socket, is_message) {
        push_message(stack, kind, &payload);
        let is_close_next = socket.is_close_next();
        if is_close_next {
            worker.pump.borrow_mut().push_back(Rc::clone(&socket));
        }
        return Ok(Returns::Values(1));
    }
    if socket.has_ended.get() {
        stack.push_nil();
        return Ok(Returns::Values(1));
    }
    let is_awaited = |waiter| worker.scheduler.borrow().is_current(waiter);
    if socket.waiter.get().is_some_and(is_awaited) {
        return Err(Raise::from(
            "ws:next: another coroutine waits for the next message of this WebSocket",
        ));
    }
    socket
        .waiter
        .set(Some(scheduler::wait_for_wire(worker, stack)?));
    Ok(Returns::Suspend)
}

/// `for message in ws do`: `next` until it gives nil.
fn iterate(stack: &mut Stack<'_>) -> Outcome {
    this(stack)?;
    methods::push(stack, Tag::Socket, Atom::Next)?;
    stack.push_copy(1);
    stack.push_nil();
    Ok(Returns::Values(3))
}

/// `ws:close(code?, reason?)`: begins the closing handshake. Closing twice does nothing.
fn close(stack: &mut Stack<'_>) -> Outcome {
    let socket = this(stack)?;
    let code = match stack.number(2) {
        Some(code) if (1000.0..=4999.0).contains(&code) && code.fract() == 0.0 => {
            #[expect(clippy::cast_possible_truncation, reason = "checked to be below 5000")]
            let code = code as u16;
            code
        }
        None if stack.is_nil(2) => close_code::NORMAL,
        _ => {
            return Err(bad_argument(
                stack,
                "ws:close",
                2,
                "a close code from 1000 to 4999",
            ));
        }
    };
    if !stack.is_nil(3) && stack.string(3).is_none() {
        return Err(bad_argument(stack, "ws:close", 3, "a string"));
    }
    let reason = stack.string(3).unwrap_or(&[]);
    let closed = stack
        .worker()?
        .reactor
        .borrow_mut()
        .close(socket.conn, code, reason);
    match closed {
        Ok(()) | Err(Misuse::Gone | Misuse::Closing) => {
            socket.is_connected.set(false);
            Ok(Returns::Values(0))
        }
        Err(Misuse::InvalidClose) if reason.len() > CLOSE_REASON_BYTES_MAX => {
            let len = reason.len();
            Err(Raise::from(format!(
                "ws:close: argument #2 must be a reason of at most {CLOSE_REASON_BYTES_MAX} bytes, not {len}"
            )))
        }
        Err(Misuse::InvalidClose) if std::str::from_utf8(reason).is_err() => Err(Raise::from(
            "ws:close: argument #2 must be a reason that is valid UTF-8",
        )),
        Err(Misuse::InvalidClose) => {
            let must = "a close code that may be sent: 1000 to 1003, 1007 to 1014 or 3000 to 4999";
            Err(bad_argument(stack, "ws:close", 2, must))
        }
        Err(misuse) => Err(refused("close", misuse)),
    }
}

/// `ws:terminate()`: cuts the connection without a word.
fn terminate(stack: &mut Stack<'_>) -> Outcome {
    let socket = this(stack)?;
    socket.is_connected.set(false);
    match stack.worker()?.reactor.borrow_mut().terminate(socket.conn) {
        Ok(()) | Err(Misuse::Gone) => Ok(Returns::Values(0)),
        Err(misuse) => Err(refused("terminate", misuse)),
    }
}

/// `ws:ping(data?)`.
fn ping(stack: &mut Stack<'_>) -> Outcome {
    let socket = this(stack)?;
    if !stack.is_nil(2) && stack.bytes(2).is_none() {
        return Err(bad_argument(stack, "ws:ping", 2, "a string or a buffer"));
    }
    let payload = stack.bytes(2).unwrap_or(&[]);
    let sent = stack
        .worker()?
        .reactor
        .borrow_mut()
        .ping(socket.conn, payload);
    sent.map_err(|misuse| refused("ping", misuse))?;
    Ok(Returns::Values(0))
}

/// Sets the callback in `slot` to the function at 2.
fn bind(stack: &mut Stack<'_>, slot: Slot, method: &str) -> Result<Rc<SocketState>, Raise> {
    let socket = this(stack)?;
    if stack.kind(2) != Kind::Function {
        return Err(bad_argument(stack, method, 2, "a function"));
    }
    stack.push_copy(2);
    stack.set_slot(1, slot.number());
    socket.slots.set(socket.slots.get() | slot.bit());
    let worker = stack.worker()?;
    if slot == Slot::Close && socket.is_end_untold() {
        enqueue(worker, &socket, Event::Close);
    }
    if !socket.has_delivered_all() {
        let pin = socket.object.take();
        let pin = pin.unwrap_or_else(|| stack.pin(1, worker.root.released()));
        socket.object.set(Some(pin));
        worker.pump.borrow_mut().push_back(Rc::clone(&socket));
    }
    Ok(socket)
}

fn bind_open(stack: &mut Stack<'_>) -> Outcome {
    bind(stack, Slot::Open, "ws:bindOpen")?;
    Ok(Returns::Values(0))
}

fn bind_message(stack: &mut Stack<'_>) -> Outcome {
    bind(stack, Slot::Message, "ws:bindMessage")?;
    Ok(Returns::Values(0))
}

fn bind_close(stack: &mut Stack<'_>) -> Outcome {
    bind(stack, Slot::Close, "ws:bindClose")?;
    Ok(Returns::Values(0))
}

fn bind_drain(stack: &mut Stack<'_>) -> Outcome {
    bind(stack, Slot::Drain, "ws:bindDrain")?;
    Ok(Returns::Values(0))
}
