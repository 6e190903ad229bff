//! `net.udp`: sockets of datagrams.
//!
//! Sits inside `raw.rs`. What has arrived and was not received is kept, within a bound; beyond it the
//! socket is held, and the system drops what it has no room for, as UDP may.
//!
//! Invariants
//! - At most [`KEPT_BYTES_MAX`] bytes or [`KEPT_MAX`] datagrams, and what one turn brings, are kept of
//!   one socket.
//! - Whoever waits is woken: by a datagram, by room, or by the end of the socket.
//!
//! Not here: how long a datagram may be, whether it arrives (core, and the network).

use super::{Dropped, KEPT_BYTES_MAX, error_words, option, words};
use crate::net::{methods, server};
use crate::runtime::Worker;
use crate::scheduler::{self, WaitKey};
use crate::value::{Options, bad_argument};
use crate::vm::atom::Atom;
use crate::vm::object::{Metatable, Object, Tag};
use crate::vm::{Kind, Outcome, Raise, Returns, Stack};
use core::net::{IpAddr, SocketAddr};
use hukilau_core::conn::Pressure;
use hukilau_core::reactor::DATAGRAM_BYTES_MAX;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::reactor::inbox::{Cause, What};
use hukilau_core::transport::Endpoint;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::CStr;
use std::io::ErrorKind;
use std::rc::Rc;

/// Kept datagrams from which on a socket is no longer read.
const KEPT_MAX: usize = 1_024;

/// What the binding knows of one socket.
#[derive(Debug)]
pub(super) struct UdpState {
    pub(super) conn: ConnKey,
    address: SocketAddr,
    kept: RefCell<VecDeque<(SocketAddr, Vec<u8>)>>,
    kept_bytes: Cell<usize>,
    is_held: Cell<bool>,
    is_closed: Cell<bool>,
    /// Why it has ended by itself.
    fault: RefCell<Option<String>>,
    reader: Cell<Option<WaitKey>>,
    writers: RefCell<Vec<WaitKey>>,
    dropped: Rc<Dropped>,
}

/// The userdata.
struct Udp(Rc<UdpState>);

impl Object for Udp {
    const TAG: Tag = Tag::Udp;
    const NAME: &'static CStr = c"UdpSocket";
}

impl Drop for Udp {
    fn drop(&mut self) {
        if !self.0.is_closed.get() {
            self.0.dropped.streams.borrow_mut().push(self.0.conn);
        }
    }
}

impl UdpState {
    /// Whether some coroutine waits for something of it.
    pub(super) fn is_awaited(&self, worker: &Worker) -> bool {
        let scheduler = worker.scheduler.borrow();
        let waits = |key: WaitKey| scheduler.is_current(key);
        self.reader.get().is_some_and(waits) || self.writers.borrow().iter().any(|key| waits(*key))
    }

    /// Closes it. Whoever waits for something of it is told.
    pub(super) fn close(&self, worker: &Worker, from: &Stack<'_>) {
        if self.is_closed.replace(true) {
            return;
        }
        self.kept.take();
        worker.reactor.borrow_mut().close_datagrams(self.conn);
        worker.raw.borrow_mut().sockets.remove(&self.conn);
        for waiter in self.reader.take().into_iter().chain(self.writers.take()) {
            scheduler::wake_raising(worker, from, waiter, self.trouble());
        }
    }

    fn trouble(&self) -> String {
        let fault = self.fault.borrow();
        let why = fault.as_deref().unwrap_or("the socket is closed");
        format!("UdpSocket: {why}")
    }

    fn keep(&self, worker: &Worker, from: SocketAddr, bytes: &[u8]) {
        let mut kept = self.kept.borrow_mut();
        kept.push_back((from, bytes.to_vec()));
        self.kept_bytes.set(self.kept_bytes.get() + bytes.len());
        let is_much = kept.len() >= KEPT_MAX || self.kept_bytes.get() >= KEPT_BYTES_MAX;
        if is_much && !self.is_held.replace(true) {
            worker.reactor.borrow_mut().hold(self.conn);
        }
    }

    fn take(&self, worker: &Worker) -> Option<(SocketAddr, Vec<u8>)> {
        let mut kept = self.kept.borrow_mut();
        let (from, bytes) = kept.pop_front()?;
        self.kept_bytes.set(self.kept_bytes.get() - bytes.len());
        let is_little = kept.len() <= KEPT_MAX / 2 && self.kept_bytes.get() <= KEPT_BYTES_MAX / 2;
        if is_little && self.is_held.replace(false) {
            worker.reactor.borrow_mut().release(self.conn);
        }
        Some((from, bytes))
    }
}

/// `net.udp(options?)`.
pub(crate) fn udp(stack: &mut Stack<'_>) -> Outcome {
    let worker = stack.worker()?;
    if matches!(stack.kind(1), Kind::None | Kind::Nil) {
        stack.resize(0);
        stack.push_table(0, 0);
    }
    if stack.kind(1) != Kind::Table {
        return Err(bad_argument(stack, "net.udp", 1, "a table of options"));
    }
    let options = Options {
        index: 1,
        owner: "net.udp",
    };
    options.check_keys(stack, &["port", "address"])?;
    let Endpoint::Ip(at) = server::read_endpoint(stack, options)? else {
        return Err(options.error("option 'address' must be an IP address or \"localhost\""));
    };
    let mut reactor = worker.reactor.borrow_mut();
    let bound = reactor.bind_datagrams(at);
    let conn = bound
        .map_err(|error| options.error(format!("cannot bind {at}: {}", error_words(&error))))?;
    let address = reactor.datagrams_address(conn).unwrap_or(at);
    drop(reactor);
    let dropped = Rc::clone(&worker.raw.borrow().dropped);
    let state = Rc::new(UdpState {
        conn,
        address,
        kept: RefCell::default(),
        kept_bytes: Cell::new(0),
        is_held: Cell::new(false),
        is_closed: Cell::new(false),
        fault: RefCell::default(),
        reader: Cell::new(None),
        writers: RefCell::default(),
        dropped,
    });
    let mut raw = worker.raw.borrow_mut();
    raw.sockets.insert(conn, Rc::clone(&state));
    drop(raw);
    stack.push_object(Udp(state));
    Ok(Returns::Values(1))
}

/// Hands one completion to its socket.
pub(super) fn deliver(worker: &Worker, state: &UdpState, what: &What<'_>) {
    let stack = worker.root.stack(worker);
    match *what {
        What::Datagram { from, bytes } => {
            let is_received = state.reader.take().is_some_and(|reader| {
                scheduler::wake(worker, &stack, reader, |stack| push(stack, from, bytes))
            });
            if !is_received && !state.is_closed.get() {
                state.keep(worker, from, bytes);
            }
        }
        What::Writable => {
            for writer in state.writers.take() {
                scheduler::wake(worker, &stack, writer, |stack| {
                    stack.push_boolean(true);
                    1
                });
            }
        }
        What::Closed { cause } => ended(worker, state, cause),
        _ => {}
    }
}

fn ended(worker: &Worker, state: &UdpState, cause: &Cause) {
    *state.fault.borrow_mut() = words(cause);
    state.close(worker, &worker.root.stack(worker));
}

fn push(stack: &mut Stack<'_>, from: SocketAddr, bytes: &[u8]) -> i32 {
    stack.push_buffer(bytes);
    stack.push_string(from.ip().to_string());
    stack.push_number(f64::from(from.port()));
    3
}

/// Installs the metatable and the methods.
pub(super) fn install(lua: &mlua::Lua, worker: &Rc<Worker>) -> mlua::Result<()> {
    let tag = Tag::Udp;
    Metatable::new(lua, worker, tag, Udp::NAME)?
        .with(c"__index", index)?
        .with(c"__newindex", |_| {
            Err(Raise::from("a UdpSocket cannot be changed"))
        })?
        .with(c"__namecall", invoke)?
        .install_object::<Udp>()?;
    methods::add(lua, worker, (tag, Atom::SendTo), c"sendTo", send_to)?;
    methods::add(lua, worker, (tag, Atom::Receive), c"receive", receive)?;
    let option = (tag, Atom::SetOption);
    methods::add(lua, worker, option, c"setOption", set_option)?;
    methods::add(lua, worker, (tag, Atom::Close), c"close", close)
}

const MEMBERS: &[&str] = &["sendTo", "receive", "setOption", "close", "port", "address"];

fn this(stack: &Stack<'_>) -> Result<Rc<UdpState>, Raise> {
    let must = "a UdpSocket (call methods with a colon)";
    stack
        .object::<Udp>(1)
        .map(|socket| Rc::clone(&socket.0))
        .ok_or_else(|| bad_argument(stack, "UdpSocket", 1, must))
}

fn index(stack: &mut Stack<'_>) -> Outcome {
    let socket = this(stack)?;
    match stack.atom(2) {
        Some(Atom::Port) => stack.push_number(f64::from(socket.address.port())),
        Some(Atom::Address) => stack.push_string(socket.address.ip().to_string()),
        Some(atom) if methods::push(stack, Tag::Udp, atom)? => {}
        _ => return Err(methods::unknown(stack, "UdpSocket", MEMBERS)),
    }
    Ok(Returns::Values(1))
}

fn invoke(stack: &mut Stack<'_>) -> Outcome {
    match stack.called_member() {
        Some(Atom::SendTo) => send_to(stack),
        Some(Atom::Receive) => receive(stack),
        Some(Atom::SetOption) => set_option(stack),
        Some(Atom::Close) => close(stack),
        _ => Err(methods::unknown_call(stack, "UdpSocket", MEMBERS)),
    }
}

/// `socket:sendTo(data, ip, port)`: whether the datagram has left, which says nothing of its arrival.
fn send_to(stack: &mut Stack<'_>) -> Outcome {
    let socket = this(stack)?;
    let length = match stack.bytes(2).map(<[u8]>::len) {
        Some(length) => length,
        None => {
            let must = "a string or a buffer";
            return Err(bad_argument(stack, "socket:sendTo", 2, must));
        }
    };
    let text = stack.string(3).and_then(|ip| std::str::from_utf8(ip).ok());
    let Some(ip) = text.and_then(|ip| ip.parse::<IpAddr>().ok()) else {
        let must = "an IP address";
        return Err(bad_argument(stack, "socket:sendTo", 3, must));
    };
    let port = stack.number(4).filter(|port| port.fract() == 0.0);
    let Some(port) = port.filter(|port| (1.0..=65_535.0).contains(port)) else {
        return Err(bad_argument(stack, "socket:sendTo", 4, "a port"));
    };
    #[expect(clippy::cast_possible_truncation, reason = "checked to lie within u16")]
    let to = SocketAddr::new(ip, port as u16);
    if socket.is_closed.get() {
        return Err(Raise::from(socket.trouble()));
    }
    if length > DATAGRAM_BYTES_MAX {
        return Err(Raise::from(format!(
            "socket:sendTo: {length} bytes are more than the {DATAGRAM_BYTES_MAX} of the longest datagram"
        )));
    }
    let worker = stack.worker()?;
    let bytes = stack.bytes(2).unwrap_or_default();
    let sent = worker
        .reactor
        .borrow_mut()
        .send_datagram(socket.conn, to, bytes);
    match sent {
        Ok(Pressure::High) if stack.may_suspend() => {
            let key = scheduler::wait_for_wire(worker, stack)?;
            socket.writers.borrow_mut().push(key);
            Ok(Returns::Suspend)
        }
        Ok(pressure) => {
            stack.push_boolean(pressure != Pressure::Dropped);
            Ok(Returns::Values(1))
        }
        Err(error) if error.kind() == ErrorKind::NotConnected => Err(Raise::from(socket.trouble())),
        Err(error) => Err(Raise::from(format!(
            "socket:sendTo: {to}: {}",
            error_words(&error)
        ))),
    }
}

/// `socket:receive()`: the next datagram, with the address and the port that it came from.
fn receive(stack: &mut Stack<'_>) -> Outcome {
    let socket = this(stack)?;
    let worker = stack.worker()?;
    if socket.is_closed.get() {
        return Err(Raise::from(socket.trouble()));
    }
    if let Some((from, bytes)) = socket.take(worker) {
        return Ok(Returns::Values(push(stack, from, &bytes)));
    }
    let is_awaited = |key| worker.scheduler.borrow().is_current(key);
    if socket.reader.get().is_some_and(is_awaited) {
        return Err(Raise::from(
            "socket:receive: another coroutine waits for the next datagram",
        ));
    }
    let key = scheduler::wait_for_wire(worker, stack)?;
    socket.reader.set(Some(key));
    Ok(Returns::Suspend)
}

/// `socket:setOption(name, value)`.
fn set_option(stack: &mut Stack<'_>) -> Outcome {
    let socket = this(stack)?;
    if socket.is_closed.get() {
        return Err(Raise::from(socket.trouble()));
    }
    option::set(stack, socket.conn, "socket:setOption")
}

/// `socket:close()`. Doing it twice does nothing.
fn close(stack: &mut Stack<'_>) -> Outcome {
    let socket = this(stack)?;
    socket.close(stack.worker()?, stack);
    Ok(Returns::Values(0))
}
