//! `net.listen`: accepts streams, by a callback or one at a time.
//!
//! Sits inside `raw.rs`. With a callback each stream is handed to it in a coroutine of its own.
//! Without one, streams are accepted while somebody waits in `listener:accept()`; otherwise who
//! connects waits in the system's queue.
//!
//! Invariants
//! - A stream that was accepted reaches the script, or is closed.
//! - A listener with a callback lives until it is closed; one without, while a script has it.
//!
//! Not here: what a stream can do (`stream.rs`), how connections are accepted (core).

use super::{Dropped, Stream, StreamState, error_words, wake_with_nil};
use crate::bridge::{Failure, Purpose};
use crate::net::{guards, methods, server, tls::Tls};
use crate::runtime::Worker;
use crate::scheduler::{self, WaitKey};
use crate::value::{Options, bad_argument};
use crate::vm::atom::Atom;
use crate::vm::object::{Metatable, Object, Tag};
use crate::vm::{Kind, Outcome, Pin, Raise, Returns, Stack};
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::reactor::{ListenerKey, Protocol, ServerConfig};
use hukilau_core::transport::Peer;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::CStr;
use std::rc::Rc;

const OPTIONS: &[&str] = &[
    "port",
    "address",
    "tls",
    "backlog",
    "reusePort",
    "balance",
    "trustProxy",
    "proxyProtocol",
    "accept",
];

/// What the binding knows of one listener.
#[derive(Debug)]
pub(super) struct ListenerState {
    pub(super) key: ListenerKey,
    port: u16,
    address: String,
    tls: Option<Tls>,
    callback: Option<Pin>,
    /// The userdata, if nobody else need have it.
    object: RefCell<Option<Pin>>,
    is_closed: Cell<bool>,
    /// Accepted, and nobody has taken them yet.
    waiting: RefCell<VecDeque<Rc<StreamState>>>,
    /// Who waits for one.
    takers: RefCell<VecDeque<WaitKey>>,
    dropped: Rc<Dropped>,
}

/// The userdata.
struct Listener(Rc<ListenerState>);

impl Object for Listener {
    const TAG: Tag = Tag::Listener;
    const NAME: &'static CStr = c"Listener";
}

impl Drop for Listener {
    fn drop(&mut self) {
        if !self.0.is_closed.get() {
            self.0.dropped.listeners.borrow_mut().push(self.0.key);
        }
    }
}

impl ListenerState {
    /// Whether something will happen when somebody connects.
    pub(super) fn is_awaited(&self, worker: &Worker) -> bool {
        self.callback.is_some() || self.has_taker(worker)
    }

    fn has_taker(&self, worker: &Worker) -> bool {
        let scheduler = worker.scheduler.borrow();
        let mut takers = self.takers.borrow_mut();
        takers.retain(|taker| scheduler.is_current(*taker));
        !takers.is_empty()
    }

    /// Listens no longer. Who waits for a stream gets nil.
    pub(super) fn close(&self, worker: &Worker, from: &Stack<'_>) {
        if self.is_closed.replace(true) {
            return;
        }
        let mut reactor = worker.reactor.borrow_mut();
        worker.peers.leave(&mut reactor, self.key);
        reactor.close_listener(self.key);
        drop(reactor);
        let mut raw = worker.raw.borrow_mut();
        raw.listeners.retain(|known| known.key != self.key);
        drop(raw);
        for stream in self.waiting.take() {
            stream.close(worker, from);
        }
        for taker in self.takers.take() {
            wake_with_nil(worker, from, taker);
        }
        drop(self.object.take());
    }

    /// Reads its certificates anew, if it has any; what went wrong otherwise.
    pub(super) fn reload_tls(&self) -> Option<Result<(), String>> {
        self.tls.as_ref().map(Tls::reload)
    }
}

/// `net.listen(options)`.
pub(crate) fn listen(stack: &mut Stack<'_>) -> Outcome {
    if stack.kind(1) != Kind::Table {
        let must = "a table of options";
        return Err(bad_argument(stack, "net.listen", 1, must));
    }
    stack.resize(1);
    let worker = stack.worker()?;
    let options = Options {
        index: 1,
        owner: "net.listen",
    };
    options.check_keys(stack, OPTIONS)?;
    let endpoint = server::read_endpoint(stack, options)?;
    let callback = options.function(stack, c"accept")?;
    let how = server::read_listening(stack, options)?;
    let tls = Tls::read_for_streams(stack, options, c"tls")?;
    let (_, proxy_headers) = guards::read_proxies(stack, options, &endpoint)?;
    let config = ServerConfig {
        protocol: Protocol::Stream,
        proxy_headers,
        tls: tls.as_ref().map(Tls::shared),
        ..ServerConfig::default()
    };
    let key = server::listen(worker, &endpoint, config, how).map_err(|error| {
        let (at, problem) = (server::show(&endpoint), error_words(&error));
        options.error(format!("cannot listen on {at}: {problem}"))
    })?;
    let bound = {
        let mut reactor = worker.reactor.borrow_mut();
        if callback.is_none() {
            reactor.hold_listener(key);
        }
        reactor.local_endpoint(key)
    };
    let (address, port) = server::place(&bound.unwrap_or(endpoint));
    let has_callback = callback.is_some();
    let dropped = Rc::clone(&worker.raw.borrow().dropped);
    let state = Rc::new(ListenerState {
        key,
        port,
        address,
        tls,
        callback,
        object: RefCell::new(None),
        is_closed: Cell::new(false),
        waiting: RefCell::default(),
        takers: RefCell::default(),
        dropped,
    });
    stack.push_object(Listener(Rc::clone(&state)));
    if has_callback {
        let top = stack.len();
        let pin = stack.pin(top, worker.root.released());
        *state.object.borrow_mut() = Some(pin);
    }
    worker.raw.borrow_mut().listeners.push(state);
    Ok(Returns::Values(1))
}

/// A listener has accepted a stream.
pub(super) fn accepted(worker: &Worker, key: ListenerKey, conn: ConnKey, peer: Peer) {
    let listener = worker.raw.borrow().find(key);
    let Some(listener) = listener else {
        // It was closed meanwhile: nobody will take the stream.
        let _gone = worker.reactor.borrow_mut().close_stream(conn);
        return;
    };
    let stream = StreamState::begin(worker, conn, String::new());
    stream.connected(worker, peer);
    let from = worker.root.stack(worker);
    if let Some(callback) = &listener.callback {
        let purpose = Purpose::Accepted(Rc::clone(&stream));
        scheduler::start(worker, &from, purpose, |stack| {
            stack.push_pin(callback);
            stack.push_object(Stream(stream));
            1
        });
        return;
    }
    loop {
        let taker = listener.takers.borrow_mut().pop_front();
        let Some(taker) = taker else {
            listener.waiting.borrow_mut().push_back(stream);
            break;
        };
        let is_taken = scheduler::wake(worker, &from, taker, |stack| {
            stack.push_object(Stream(Rc::clone(&stream)));
            1
        });
        if is_taken {
            break;
        }
    }
    if !listener.has_taker(worker) {
        worker.reactor.borrow_mut().hold_listener(key);
    }
}

/// The callback of a listener has failed: nobody else has its stream.
pub(crate) fn callback_failed(worker: &Worker, stream: &StreamState, failure: &Failure) {
    let place = match stream.peer.get() {
        Some(Peer::Ip(at)) => format!("in accept from {} port {}", at.ip(), at.port()),
        _ => "in accept".to_owned(),
    };
    worker.report(&place, failure);
    stream.close(worker, &worker.root.stack(worker));
}

/// Installs the metatable and the methods.
pub(super) fn install(lua: &mlua::Lua, worker: &Rc<Worker>) -> mlua::Result<()> {
    let tag = Tag::Listener;
    Metatable::new(lua, worker, tag, Listener::NAME)?
        .with(c"__index", index)?
        .with(c"__newindex", |_| {
            Err(Raise::from("a listener cannot be changed"))
        })?
        .with(c"__namecall", invoke)?
        .with(c"__iter", iterate)?
        .install_object::<Listener>()?;
    methods::add(lua, worker, (tag, Atom::Accept), c"accept", accept)?;
    methods::add(lua, worker, (tag, Atom::Close), c"close", close)
}

const MEMBERS: &[&str] = &["accept", "close", "port", "address"];

fn this(stack: &Stack<'_>) -> Result<Rc<ListenerState>, Raise> {
    stack
        .object::<Listener>(1)
        .map(|listener| Rc::clone(&listener.0))
        .ok_or_else(|| {
            let must = "a listener (call methods with a colon)";
            bad_argument(stack, "listener", 1, must)
        })
}

fn index(stack: &mut Stack<'_>) -> Outcome {
    let listener = this(stack)?;
    match stack.atom(2) {
        Some(Atom::Port) => stack.push_number(f64::from(listener.port)),
        Some(Atom::Address) => stack.push_string(&listener.address),
        Some(atom) if methods::push(stack, Tag::Listener, atom)? => {}
        _ => return Err(methods::unknown(stack, "listener", MEMBERS)),
    }
    Ok(Returns::Values(1))
}

fn invoke(stack: &mut Stack<'_>) -> Outcome {
    match stack.called_member() {
        Some(Atom::Accept) => accept(stack),
        Some(Atom::Close) => close(stack),
        _ => Err(methods::unknown_call(stack, "listener", MEMBERS)),
    }
}

/// `listener:accept()`: the next stream; nil once the listener is closed.
fn accept(stack: &mut Stack<'_>) -> Outcome {
    let listener = this(stack)?;
    let worker = stack.worker()?;
    if listener.callback.is_some() {
        return Err(Raise::from(
            "listener:accept: streams go to the function `accept` of net.listen",
        ));
    }
    let waiting = listener.waiting.borrow_mut().pop_front();
    if let Some(stream) = waiting {
        stack.push_object(Stream(stream));
        return Ok(Returns::Values(1));
    }
    if listener.is_closed.get() {
        stack.push_nil();
        return Ok(Returns::Values(1));
    }
    let key = scheduler::wait_for_wire(worker, stack)?;
    listener.takers.borrow_mut().push_back(key);
    worker.reactor.borrow_mut().release_listener(listener.key);
    Ok(Returns::Suspend)
}

/// `for stream in listener do`: `accept` until it gives nil.
fn iterate(stack: &mut Stack<'_>) -> Outcome {
    this(stack)?;
    methods::push(stack, Tag::Listener, Atom::Accept)?;
    stack.push_copy(1);
    stack.push_nil();
    Ok(Returns::Values(3))
}

/// `listener:close()`: listens no longer; streams stay. Doing it twice does nothing.
fn close(stack: &mut Stack<'_>) -> Outcome {
    let listener = this(stack)?;
    listener.close(stack.worker()?, stack);
    Ok(Returns::Values(0))
}
