//! Topics as scripts see them: `ws:subscribe` and its neighbours, `server:publish`.
//!
//! Sits in the native module, beside the objects whose methods these are. Core keeps the table of
//! subscriptions and frames a message once for all who hear it (`reactor/publish.rs`).
//!
//! Invariants
//! - Topics belong to the process, not to one server: a name means the same wherever it is used.
//! - Publishing needs no open socket, so that a `close` callback can tell the others.
//! - A socket hears nothing of what it publishes itself.
//! - Subscribers are counted over all workers: this one's exactly, the others' as of their last turns.
//!
//! Not here: what becomes of a message for a peer that is behind (`backpressure`, in core).

use super::methods;
use super::{server, socket};
use crate::runtime::Worker;
use crate::value::bad_argument;
use crate::vm::atom::Atom;
use crate::vm::object::Tag;
use crate::vm::{Kind, Outcome, Raise, Returns, Stack};
use hukilau_core::conn::{Misuse, Pressure, Publication};
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::ws::MessageKind;
use std::rc::Rc;
use std::sync::Arc;

/// Adds the methods of WebSockets, as values.
pub(super) fn install_sockets(lua: &mlua::Lua, worker: &Rc<Worker>) -> mlua::Result<()> {
    let tag = |atom| (Tag::Socket, atom);
    methods::add(lua, worker, tag(Atom::Subscribe), c"subscribe", subscribe)?;
    methods::add(
        lua,
        worker,
        tag(Atom::Unsubscribe),
        c"unsubscribe",
        unsubscribe,
    )?;
    methods::add(
        lua,
        worker,
        tag(Atom::IsSubscribed),
        c"isSubscribed",
        is_subscribed,
    )?;
    methods::add(lua, worker, tag(Atom::Topics), c"topics", topics)?;
    methods::add(
        lua,
        worker,
        tag(Atom::Publish),
        c"publish",
        publish_from_socket,
    )?;
    methods::add(
        lua,
        worker,
        tag(Atom::SendLatest),
        c"sendLatest",
        send_latest,
    )
}

/// Adds those of servers.
pub(super) fn install_servers(lua: &mlua::Lua, worker: &Rc<Worker>) -> mlua::Result<()> {
    let tag = |atom| (Tag::Server, atom);
    methods::add(
        lua,
        worker,
        tag(Atom::Publish),
        c"publish",
        publish_from_server,
    )?;
    methods::add(
        lua,
        worker,
        tag(Atom::Subscribers),
        c"subscribers",
        subscribers,
    )
}

/// Calls the method of a WebSocket that is called `atom`, if it is one of these.
pub(super) fn invoke_socket(stack: &mut Stack<'_>, atom: Option<Atom>) -> Option<Outcome> {
    match atom? {
        Atom::Subscribe => Some(subscribe(stack)),
        Atom::Unsubscribe => Some(unsubscribe(stack)),
        Atom::IsSubscribed => Some(is_subscribed(stack)),
        Atom::Topics => Some(topics(stack)),
        Atom::Publish => Some(publish_from_socket(stack)),
        Atom::SendLatest => Some(send_latest(stack)),
        _ => None,
    }
}

/// Calls that of a server.
pub(super) fn invoke_server(stack: &mut Stack<'_>, atom: Option<Atom>) -> Option<Outcome> {
    match atom? {
        Atom::Publish => Some(publish_from_server(stack)),
        Atom::Subscribers => Some(subscribers(stack)),
        _ => None,
    }
}

/// Text or binary, from the payload at `index` and the flag behind it.
pub(super) fn kind_of(stack: &Stack<'_>, index: i32, method: &str) -> Result<MessageKind, Raise> {
    let is_binary = stack.boolean(index + 1);
    if is_binary.is_none() && !stack.is_nil(index + 1) {
        let must = "a boolean, whether the message is binary";
        return Err(bad_argument(stack, method, index + 1, must));
    }
    match (stack.kind(index), is_binary) {
        (Kind::String, Some(true)) | (Kind::Buffer, None | Some(true)) => Ok(MessageKind::Binary),
        (Kind::String | Kind::Buffer, _) => Ok(MessageKind::Text),
        _ => Err(bad_argument(stack, method, index, "a string or a buffer")),
    }
}

/// The name at 2 of a topic, or of a key.
fn name<'s>(stack: &'s Stack<'_>, method: &str) -> Result<&'s [u8], Raise> {
    match stack.string(2) {
        Some(name) if !name.is_empty() => Ok(name),
        _ => Err(bad_argument(stack, method, 2, "a string that is not empty")),
    }
}

fn refused(method: &str, misuse: Misuse) -> Raise {
    Raise::from(match misuse {
        Misuse::Gone | Misuse::Closing => format!("{method}: the WebSocket is closed"),
        Misuse::InvalidTopic => {
            format!("{method}: the topic's name is longer than limits.topicBytes allows")
        }
        other => format!("{method}: {other}"),
    })
}

/// `ws:subscribe(topic)`: false if it was subscribed already.
fn subscribe(stack: &mut Stack<'_>) -> Outcome {
    let conn = socket::this(stack)?.conn;
    let topic = name(stack, "ws:subscribe")?;
    let subscribed = stack.worker()?.reactor.borrow_mut().subscribe(conn, topic);
    let is_new = subscribed.map_err(|misuse| refused("ws:subscribe", misuse))?;
    stack.push_boolean(is_new);
    Ok(Returns::Values(1))
}

/// `ws:unsubscribe(topic)`: false if it was not subscribed.
fn unsubscribe(stack: &mut Stack<'_>) -> Outcome {
    let conn = socket::this(stack)?.conn;
    let topic = name(stack, "ws:unsubscribe")?;
    let was = stack
        .worker()?
        .reactor
        .borrow_mut()
        .unsubscribe(conn, topic);
    stack.push_boolean(was);
    Ok(Returns::Values(1))
}

/// `ws:isSubscribed(topic)`.
fn is_subscribed(stack: &mut Stack<'_>) -> Outcome {
    let conn = socket::this(stack)?.conn;
    let topic = name(stack, "ws:isSubscribed")?;
    let reactor = stack.worker()?.reactor.borrow();
    let is_subscribed = reactor.topics_of(conn).any(|known| known == topic);
    drop(reactor);
    stack.push_boolean(is_subscribed);
    Ok(Returns::Values(1))
}

/// `ws:topics()`: their names, in no order that means anything.
fn topics(stack: &mut Stack<'_>) -> Outcome {
    let conn = socket::this(stack)?.conn;
    let reactor = stack.worker()?.reactor.borrow();
    let names: Vec<Box<[u8]>> = reactor.topics_of(conn).map(Into::into).collect();
    drop(reactor);
    stack.push_table(names.len(), 0);
    let table = stack.len();
    for (n, name) in (1..).zip(&names) {
        stack.push_string(name);
        stack.set_element(table, n);
    }
    Ok(Returns::Values(1))
}

/// `ws:publish(topic, data, binary?)`: to all subscribers but this socket, which may be closed.
fn publish_from_socket(stack: &mut Stack<'_>) -> Outcome {
    let conn = socket::this(stack)?.conn;
    publish(stack, "ws:publish", Some(conn))
}

/// `server:publish(topic, data, binary?)`: to all subscribers.
fn publish_from_server(stack: &mut Stack<'_>) -> Outcome {
    server::this(stack)?;
    publish(stack, "server:publish", None)
}

fn publish(stack: &mut Stack<'_>, method: &str, except: Option<ConnKey>) -> Outcome {
    let topic = name(stack, method)?;
    let kind = kind_of(stack, 3, method)?;
    let payload = stack.bytes(3).unwrap_or(&[]);
    let framed = Publication::new(kind, payload).map_err(|misuse| refused(method, misuse))?;
    stack.worker()?.publish(topic, &Arc::new(framed), except);
    Ok(Returns::Values(0))
}

/// `ws:sendLatest(key, data, binary?)`: as `ws:send`; with the policy `latest` a peer that is behind
/// gets only the newest message of each key.
fn send_latest(stack: &mut Stack<'_>) -> Outcome {
    const METHOD: &str = "ws:sendLatest";
    let conn = socket::this(stack)?.conn;
    let key = name(stack, METHOD)?;
    let kind = kind_of(stack, 3, METHOD)?;
    let payload = stack.bytes(3).unwrap_or(&[]);
    let framed = Publication::new(kind, payload).map_err(|misuse| refused(METHOD, misuse))?;
    let mut reactor = stack.worker()?.reactor.borrow_mut();
    let sent = reactor.send_latest(conn, key, &Arc::new(framed));
    drop(reactor);
    let pressure = sent.map_err(|misuse| refused(METHOD, misuse))?;
    stack.push_boolean(pressure == Pressure::Low);
    Ok(Returns::Values(1))
}

/// `server:subscribers(topic)`: how many sockets are subscribed, at all workers.
fn subscribers(stack: &mut Stack<'_>) -> Outcome {
    server::this(stack)?;
    let topic = name(stack, "server:subscribers")?;
    let worker = stack.worker()?;
    let own = worker.reactor.borrow().subscribers(topic);
    let count = own + worker.peers.subscribers(topic);
    // At most one for each connection, of which there are fewer than 2^32.
    stack.push_number(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
    Ok(Returns::Values(1))
}
