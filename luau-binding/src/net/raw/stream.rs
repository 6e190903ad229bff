//! The members of a stream.
//!
//! Sits inside `raw.rs`, which knows what has arrived and who waits.
//!
//! Invariants
//! - An argument that is wrong raises and changes nothing.
//! - Reading gives all that came before the end, however it ended; only then nil, or the fault.
//! - A stream that a script has closed raises for everything but `close` and its fields.
//!
//! Not here: what wakes whoever waits (`raw.rs`).

use super::{KEPT_BYTES_MAX, Stream, StreamState, option, tls};
use crate::net::methods;
use crate::runtime::Worker;
use crate::scheduler;
use crate::value::bad_argument;
use crate::vm::atom::Atom;
use crate::vm::object::{Metatable, Object, Tag};
use crate::vm::{Outcome, Raise, Returns, Stack};
use hukilau_core::conn::{Misuse, Pressure};
use hukilau_core::transport::Peer;
use std::rc::Rc;

/// Bytes that one `send` accepts at most.
const SEND_BYTES_MAX: usize = 64 * 1024;

/// Installs the metatable and the methods.
pub(super) fn install(lua: &mlua::Lua, worker: &Rc<Worker>) -> mlua::Result<()> {
    let tag = Tag::RawStream;
    Metatable::new(lua, worker, tag, Stream::NAME)?
        .with(c"__index", index)?
        .with(c"__newindex", |_| {
            Err(Raise::from("a stream cannot be changed"))
        })?
        .with(c"__namecall", invoke)?
        .install_object::<Stream>()?;
    methods::add(lua, worker, (tag, Atom::Read), c"read", read)?;
    methods::add(lua, worker, (tag, Atom::Write), c"write", write)?;
    methods::add(lua, worker, (tag, Atom::Send), c"send", send)?;
    methods::add(lua, worker, (tag, Atom::Finish), c"finish", finish)?;
    methods::add(lua, worker, (tag, Atom::Close), c"close", close)?;
    methods::add(lua, worker, (tag, Atom::StartTls), c"startTls", start_tls)?;
    let nodelay = (tag, Atom::SetNoDelay);
    methods::add(lua, worker, nodelay, c"setNoDelay", set_no_delay)?;
    let option = (tag, Atom::SetOption);
    methods::add(lua, worker, option, c"setOption", set_option)?;
    methods::add(lua, worker, (tag, Atom::SetTtl), c"setTtl", set_ttl)
}

const MEMBERS: &[&str] = &[
    "read",
    "write",
    "send",
    "finish",
    "close",
    "startTls",
    "setNoDelay",
    "setOption",
    "setTtl",
    "connected",
    "bufferedBytes",
    "localIp",
    "localPort",
    "remoteIp",
    "remotePort",
];

fn this(stack: &Stack<'_>) -> Result<Rc<StreamState>, Raise> {
    stack
        .object::<Stream>(1)
        .map(|stream| Rc::clone(&stream.0))
        .ok_or_else(|| bad_argument(stack, "stream", 1, "a stream (call methods with a colon)"))
}

fn index(stack: &mut Stack<'_>) -> Outcome {
    let stream = this(stack)?;
    match stack.atom(2) {
        Some(Atom::Connected) => {
            stack.push_boolean(!stream.is_closed.get() && !stream.is_gone.get());
        }
        Some(Atom::BufferedBytes) => {
            let waiting = stack.worker()?.reactor.borrow().waiting_bytes(stream.conn);
            // Below 2^32, by `Limits::out_bytes_max`.
            let waiting = u32::try_from(waiting.unwrap_or(0)).unwrap_or(u32::MAX);
            stack.push_number(f64::from(waiting));
        }
        Some(Atom::LocalIp) => push_ip(stack, stream.local.get()),
        Some(Atom::LocalPort) => push_port(stack, stream.local.get()),
        Some(Atom::RemoteIp) => push_ip(stack, stream.peer.get()),
        Some(Atom::RemotePort) => push_port(stack, stream.peer.get()),
        Some(atom) if methods::push(stack, Tag::RawStream, atom)? => {}
        _ => return Err(methods::unknown(stack, "stream", MEMBERS)),
    }
    Ok(Returns::Values(1))
}

fn push_ip(stack: &mut Stack<'_>, end: Option<Peer>) {
    match end {
        Some(Peer::Ip(at)) => stack.push_string(at.ip().to_string()),
        Some(Peer::Unix) | None => stack.push_nil(),
    }
}

fn push_port(stack: &mut Stack<'_>, end: Option<Peer>) {
    match end {
        Some(Peer::Ip(at)) => stack.push_number(f64::from(at.port())),
        Some(Peer::Unix) | None => stack.push_nil(),
    }
}

fn invoke(stack: &mut Stack<'_>) -> Outcome {
    match stack.called_member() {
        Some(Atom::Read) => read(stack),
        Some(Atom::Write) => write(stack),
        Some(Atom::Send) => send(stack),
        Some(Atom::Finish) => finish(stack),
        Some(Atom::Close) => close(stack),
        Some(Atom::StartTls) => start_tls(stack),
        Some(Atom::SetNoDelay) => set_no_delay(stack),
        Some(Atom::SetOption) => set_option(stack),
        Some(Atom::SetTtl) => set_ttl(stack),
        _ => Err(methods::unknown_call(stack, "stream", MEMBERS)),
    }
}

/// `stream:read(max?)`: what has arrived, as a buffer, once something has; nil at the end.
fn read(stack: &mut Stack<'_>) -> Outcome {
    let stream = this(stack)?;
    let max = match stack.number(2) {
        // The largest count that a buffer can have; more is as good.
        Some(max) if max >= 1.0 && max.fract() == 0.0 => {
            #[expect(clippy::cast_possible_truncation, reason = "clamped to lie within u32")]
            let max = max.min(1_073_741_824.0) as u32;
            max as usize
        }
        None if stack.is_nil(2) => KEPT_BYTES_MAX,
        _ => {
            let must = "a whole number of bytes, at least 1";
            return Err(bad_argument(stack, "stream:read", 2, must));
        }
    };
    let worker = stack.worker()?;
    if stream.is_closed.get() {
        return Err(trouble("read", &stream));
    }
    if stream.kept.borrow().len() > 0 {
        stream.push_kept(worker, stack, max);
        return Ok(Returns::Values(1));
    }
    if stream.fault.borrow().is_some() {
        return Err(trouble("read", &stream));
    }
    if stream.has_ended.get() || stream.is_gone.get() {
        stack.push_nil();
        return Ok(Returns::Values(1));
    }
    let is_awaited = |(key, _)| worker.scheduler.borrow().is_current(key);
    if stream.reader.get().is_some_and(is_awaited) {
        return Err(Raise::from(
            "stream:read: another coroutine waits for the next bytes of this stream",
        ));
    }
    let key = scheduler::wait_for_wire(worker, stack)?;
    stream.reader.set(Some((key, max)));
    Ok(Returns::Suspend)
}

/// `stream:write(data)`: returns once there is room for more.
fn write(stack: &mut Stack<'_>) -> Outcome {
    let stream = this(stack)?;
    if stack.bytes(2).is_none() {
        let must = "a string or a buffer";
        return Err(bad_argument(stack, "stream:write", 2, must));
    }
    let worker = stack.worker()?;
    let pressure = queue(worker, &stream, "write", stack.bytes(2).unwrap_or_default())?;
    // Where nothing can wait, the bytes are queued all the same; core cuts a peer that takes too
    // little of it.
    if pressure == Pressure::High && stack.may_suspend() {
        let key = scheduler::wait_for_wire(worker, stack)?;
        stream.writers.borrow_mut().push((key, None));
        return Ok(Returns::Suspend);
    }
    Ok(Returns::Values(0))
}

/// `stream:send(data, offset?)`: accepts some of what lies behind `offset`, and returns how much.
fn send(stack: &mut Stack<'_>) -> Outcome {
    let stream = this(stack)?;
    let Some(length) = stack.bytes(2).map(<[u8]>::len) else {
        let must = "a string or a buffer";
        return Err(bad_argument(stack, "stream:send", 2, must));
    };
    let offset = match stack.number(3) {
        // No string or buffer reaches 2^32.
        Some(offset) if offset >= 0.0 && offset.fract() == 0.0 && offset <= 4_294_967_295.0 => {
            #[expect(clippy::cast_possible_truncation, reason = "checked to lie within u32")]
            let offset = offset as u32;
            offset as usize
        }
        None if stack.is_nil(3) => 0,
        _ => return Err(bad_argument(stack, "stream:send", 3, "a whole number")),
    };
    if offset > length {
        return Err(Raise::from(format!(
            "stream:send: the offset {offset} lies behind the {length} bytes of the data"
        )));
    }
    let worker = stack.worker()?;
    let count = SEND_BYTES_MAX.min(length - offset);
    let bytes = stack.bytes(2).unwrap_or_default();
    let pressure = queue(worker, &stream, "send", &bytes[offset..offset + count])?;
    // At most 64 KiB.
    let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    if pressure == Pressure::High && stack.may_suspend() {
        let key = scheduler::wait_for_wire(worker, stack)?;
        stream.writers.borrow_mut().push((key, Some(count)));
        return Ok(Returns::Suspend);
    }
    stack.push_number(count);
    Ok(Returns::Values(1))
}

fn queue(
    worker: &Worker,
    stream: &StreamState,
    method: &str,
    bytes: &[u8],
) -> Result<Pressure, Raise> {
    if stream.is_closed.get() {
        return Err(trouble(method, stream));
    }
    let written = worker.reactor.borrow_mut().write_stream(stream.conn, bytes);
    written.map_err(|misuse| match misuse {
        Misuse::Gone => trouble(method, stream),
        Misuse::Closing => Raise::from(format!("stream:{method}: our side has finished")),
        other => Raise::from(format!("stream:{method}: {other}")),
    })
}

fn trouble(method: &str, stream: &StreamState) -> Raise {
    Raise::from(format!("stream:{method}: {}", stream.trouble()))
}

/// `stream:finish()`: our side sends nothing more. Doing it twice does nothing.
fn finish(stack: &mut Stack<'_>) -> Outcome {
    let stream = this(stack)?;
    let worker = stack.worker()?;
    if stream.is_closed.get() {
        return Err(trouble("finish", &stream));
    }
    match worker.reactor.borrow_mut().finish_stream(stream.conn) {
        Ok(()) | Err(Misuse::Closing) => Ok(Returns::Values(0)),
        // It has ended well, with both sides finished.
        Err(Misuse::Gone) if stream.is_gone.get() && stream.fault.borrow().is_none() => {
            Ok(Returns::Values(0))
        }
        Err(Misuse::Gone) => Err(trouble("finish", &stream)),
        Err(misuse) => Err(Raise::from(format!("stream:finish: {misuse}"))),
    }
}

/// `stream:close()`: ends it behind what was written. Doing it twice does nothing.
fn close(stack: &mut Stack<'_>) -> Outcome {
    let stream = this(stack)?;
    stream.close(stack.worker()?, stack);
    Ok(Returns::Values(0))
}

/// `stream:startTls(options?)`: goes on with TLS; returns once it is agreed on.
fn start_tls(stack: &mut Stack<'_>) -> Outcome {
    let stream = this(stack)?;
    let worker = stack.worker()?;
    if stream.is_closed.get() || stream.is_gone.get() {
        return Err(trouble("startTls", &stream));
    }
    if stream.kept.borrow().len() > 0 {
        return Err(Raise::from(
            "stream:startTls: bytes came before TLS that were not read: they may be anybody's",
        ));
    }
    if !stack.may_suspend() {
        return Err(Raise::from("stream:startTls: this coroutine cannot wait"));
    }
    tls::start(worker, stack, &stream)?;
    let key = scheduler::wait_for_wire(worker, stack)?;
    stream.opener.set(Some(key));
    Ok(Returns::Suspend)
}

/// `stream:setNoDelay(noDelay)`.
fn set_no_delay(stack: &mut Stack<'_>) -> Outcome {
    let stream = this(stack)?;
    let Some(nodelay) = stack.boolean(2) else {
        return Err(bad_argument(stack, "stream:setNoDelay", 2, "true or false"));
    };
    let worker = stack.worker()?;
    let set = worker
        .reactor
        .borrow_mut()
        .set_nodelay(stream.conn, nodelay);
    set.map_err(|_| trouble("setNoDelay", &stream))?;
    Ok(Returns::Values(0))
}

/// `stream:setOption(name, value)`.
fn set_option(stack: &mut Stack<'_>) -> Outcome {
    let stream = this(stack)?;
    if stream.is_closed.get() || stream.is_gone.get() {
        return Err(trouble("setOption", &stream));
    }
    option::set(stack, stream.conn, "stream:setOption")
}

/// `stream:setTtl(ttl)`.
fn set_ttl(stack: &mut Stack<'_>) -> Outcome {
    let stream = this(stack)?;
    let ttl = stack
        .number(2)
        .filter(|ttl| ttl.fract() == 0.0 && (1.0..=255.0).contains(ttl))
        .ok_or_else(|| bad_argument(stack, "stream:setTtl", 2, "a whole number from 1 to 255"))?;
    #[expect(clippy::cast_possible_truncation, reason = "checked to be below 256")]
    let ttl = ttl as u8;
    let worker = stack.worker()?;
    let set = worker.reactor.borrow_mut().set_ttl(stream.conn, ttl);
    set.map_err(|_| trouble("setTtl", &stream))?;
    Ok(Returns::Values(0))
}
