//! Raw streams: `net.connect` and `net.listen`, bytes without a protocol of ours.
//!
//! Sits in the native module. Core moves the bytes; this keeps what has arrived and was not read,
//! and who waits for what. While much is kept the connection is held (not read), so a peer cannot
//! fill the memory; a writer whose peer reads slowly is suspended, so a script cannot either.
//!
//! ```text
//! Bytes ─▶ kept ─▶ stream:read()        stream:write() ─▶ reactor ─▶ High: suspended ─▶ Writable
//! ```
//!
//! - `raw/stream.rs`    the members of a stream
//! - `raw/connect.rs`   `net.connect`
//! - `raw/listener.rs`  `net.listen` and the listener
//! - `raw/resolve.rs`   `net.resolve`
//! - `raw/tls.rs`       the options of TLS
//! - `raw/udp.rs`       `net.udp` and its socket
//!
//! Invariants
//! - At most [`KEPT_BYTES_MAX`] and one read of the reactor are kept of one stream.
//! - Whoever waits is woken: by what was waited for, by the end, or by `close`.
//! - A stream or listener that no script can reach any more is closed; a destructor only notes that,
//!   as it runs inside the collector.
//! - A process whose scripts wait for nothing does not live on for streams that are merely open.
//!
//! Not here: when bytes leave, TLS, addresses (core).

mod connect;
mod listener;
mod option;
mod resolve;
mod stream;
mod tls;
mod udp;

use crate::runtime::Worker;
use crate::scheduler::{self, WaitKey};
use crate::vm::Stack;
use crate::vm::object::{Object, Tag};
use hukilau_core::conn::Deadline;
use hukilau_core::reactor::ListenerKey;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::reactor::inbox::{Cause, Completion, What};
use hukilau_core::transport::Peer;
use hukilau_core::transport::tls::ClientTls;
use listener::ListenerState;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use udp::UdpState;

pub(super) use connect::connect;
pub(crate) use listener::callback_failed;
pub(super) use listener::listen;
pub(super) use resolve::resolve;
pub(super) use udp::udp;

/// Kept bytes from which on a connection is no longer read.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// The streams, listeners and sockets of datagrams of a worker.
#[derive(Default)]
pub(crate) struct Raw {
    streams: HashMap<ConnKey, Rc<StreamState>>,
    sockets: HashMap<ConnKey, Rc<UdpState>>,
    lookups: resolve::Lookups,
    listeners: Vec<Rc<ListenerState>>,
    dropped: Rc<Dropped>,
    /// The settings of `tls = true`.
    plain_tls: Option<Arc<ClientTls>>,
}

/// What the collector has freed since the last turn.
#[derive(Debug, Default)]
struct Dropped {
    streams: RefCell<Vec<ConnKey>>,
    listeners: RefCell<Vec<ListenerKey>>,
}

impl Dropped {
    fn is_empty(&self) -> bool {
        self.streams.borrow().is_empty() && self.listeners.borrow().is_empty()
    }
}

/// What the binding knows of one stream.
#[derive(Debug)]
pub(crate) struct StreamState {
    conn: ConnKey,
    /// Who is at the other end, once it is connected.
    peer: Cell<Option<Peer>>,
    local: Cell<Option<Peer>>,
    /// What was asked for, for errors: `example.org:25`.
    place: String,
    kept: RefCell<Kept>,
    is_held: Cell<bool>,
    /// The peer sends nothing more.
    has_ended: Cell<bool>,
    /// The script has closed it.
    is_closed: Cell<bool>,
    /// The connection has ended.
    is_gone: Cell<bool>,
    /// Why, if it did not end well.
    fault: RefCell<Option<String>>,
    /// Who waits for it to be connected, or secured.
    opener: Cell<Option<WaitKey>>,
    /// Who waits for bytes, and how many at most.
    reader: Cell<Option<(WaitKey, usize)>>,
    /// Who waits for room, and what they are told then.
    writers: RefCell<Vec<(WaitKey, Option<f64>)>>,
    dropped: Rc<Dropped>,
}

/// Bytes that wait to be read.
#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    /// How many of them have been read.
    read: usize,
}

impl Kept {
    fn len(&self) -> usize {
        self.bytes.len() - self.read
    }

    fn add(&mut self, bytes: &[u8]) {
        if self.read > 0 && self.read >= self.bytes.len() / 2 {
            self.bytes.drain(..self.read);
            self.read = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Lets `take` see the first `max` bytes, which are read then.
    fn take(&mut self, max: usize, take: impl FnOnce(&[u8])) {
        let end = self.bytes.len().min(self.read.saturating_add(max));
        take(&self.bytes[self.read..end]);
        self.read = end;
        if self.len() == 0 {
            // What is idle owns no memory.
            *self = Self::default();
        }
    }
}

/// The userdata of a stream.
struct Stream(Rc<StreamState>);

impl Object for Stream {
    const TAG: Tag = Tag::RawStream;
    const NAME: &'static CStr = c"RawStream";
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.0.is_gone.get() {
            self.0.dropped.streams.borrow_mut().push(self.0.conn);
        }
    }
}

impl StreamState {
    fn begin(worker: &Worker, conn: ConnKey, place: String) -> Rc<Self> {
        let mut raw = worker.raw.borrow_mut();
        let state = Rc::new(Self {
            conn,
            peer: Cell::new(None),
            local: Cell::new(None),
            place,
            kept: RefCell::default(),
            is_held: Cell::new(false),
            has_ended: Cell::new(false),
            is_closed: Cell::new(false),
            is_gone: Cell::new(false),
            fault: RefCell::default(),
            opener: Cell::new(None),
            reader: Cell::new(None),
            writers: RefCell::default(),
            dropped: Rc::clone(&raw.dropped),
        });
        raw.streams.insert(conn, Rc::clone(&state));
        state
    }

    /// Notes both addresses.
    fn connected(&self, worker: &Worker, peer: Peer) {
        self.peer.set(Some(peer));
        let local = worker.reactor.borrow().local_address(self.conn);
        self.local.set(local);
    }

    /// Keeps bytes until they are read.
    fn keep(&self, worker: &Worker, bytes: &[u8]) {
        let mut kept = self.kept.borrow_mut();
        kept.add(bytes);
        if kept.len() >= KEPT_BYTES_MAX && !self.is_held.replace(true) {
            worker.reactor.borrow_mut().hold(self.conn);
        }
    }

    /// Pushes at most `max` of the bytes that are kept, as a buffer.
    fn push_kept(&self, worker: &Worker, stack: &mut Stack<'_>, max: usize) {
        let mut kept = self.kept.borrow_mut();
        kept.take(max, |bytes| stack.push_buffer(bytes));
        if kept.len() <= KEPT_BYTES_MAX / 2 && self.is_held.replace(false) {
            worker.reactor.borrow_mut().release(self.conn);
        }
    }

    /// Whether some coroutine waits for something of it.
    fn is_awaited(&self, worker: &Worker) -> bool {
        let scheduler = worker.scheduler.borrow();
        let waits = |key: WaitKey| scheduler.is_current(key);
        self.opener.get().is_some_and(waits)
            || self.reader.get().is_some_and(|(key, _)| waits(key))
            || self.writers.borrow().iter().any(|(key, _)| waits(*key))
    }

    /// The name that was connected to, without its port; empty if it was accepted.
    fn host(&self) -> String {
        let host = self.place.rsplit_once(':').map(|(host, _)| host);
        host.unwrap_or_default().to_owned()
    }

    /// What is wrong with it, for whoever uses it now.
    fn trouble(&self) -> String {
        if self.is_closed.get() {
            return "the stream is closed".to_owned();
        }
        match self.fault.borrow().as_ref() {
            Some(fault) => fault.clone(),
            None => "the connection has ended".to_owned(),
        }
    }

    /// Ends it behind what was written. Whoever waits for something of it is told.
    fn close(&self, worker: &Worker, from: &Stack<'_>) {
        if self.is_closed.replace(true) {
            return;
        }
        self.kept.take();
        // One that has ended by itself needs no closing.
        let _gone = worker.reactor.borrow_mut().close_stream(self.conn);
        self.wake_all(worker, from);
    }

    /// Wakes whoever waits, now that nothing will come any more.
    fn wake_all(&self, worker: &Worker, from: &Stack<'_>) {
        let is_good = self.has_ended.get() && !self.is_closed.get();
        if let Some((reader, _)) = self.reader.take() {
            if is_good {
                wake_with_nil(worker, from, reader);
            } else {
                let why = format!("stream:read: {}", self.trouble());
                scheduler::wake_raising(worker, from, reader, why);
            }
        }
        for (writer, _) in self.writers.take() {
            let why = format!("stream:write: {}", self.trouble());
            scheduler::wake_raising(worker, from, writer, why);
        }
        if let Some(opener) = self.opener.take() {
            let why = format!("stream:startTls: {}", self.trouble());
            scheduler::wake_raising(worker, from, opener, why);
        }
    }
}

fn wake_with_nil(worker: &Worker, from: &Stack<'_>, key: WaitKey) {
    scheduler::wake(worker, from, key, |stack| {
        stack.push_nil();
        1
    });
}

/// Hands one completion to the stream whose it is. False if it is none's.
pub(crate) fn deliver(worker: &Worker, completion: &Completion<'_>) -> bool {
    if let What::Accepted { listener, peer } = completion.what {
        listener::accepted(worker, listener, completion.conn, peer);
        return true;
    }
    if resolve::deliver(worker, completion) {
        return true;
    }
    let state = {
        let raw = worker.raw.borrow();
        match raw.streams.get(&completion.conn) {
            Some(state) => Rc::clone(state),
            None => {
                let Some(socket) = raw.sockets.get(&completion.conn).cloned() else {
                    return false;
                };
                drop(raw);
                udp::deliver(worker, &socket, &completion.what);
                return true;
            }
        }
    };
    match completion.what {
        What::Connected { peer } => connected(worker, &state, peer),
        What::Bytes { bytes } => receive(worker, &state, bytes),
        What::Finished => {
            state.has_ended.set(true);
            if let Some((reader, _)) = state.reader.take() {
                wake_with_nil(worker, &worker.root.stack(worker), reader);
            }
        }
        What::Writable => {
            let from = worker.root.stack(worker);
            for (writer, result) in state.writers.take() {
                scheduler::wake(worker, &from, writer, |stack| {
                    let Some(result) = result else { return 0 };
                    stack.push_number(result);
                    1
                });
            }
        }
        What::Closed { cause } => ended(worker, &state, cause),
        _ => {}
    }
    true
}

/// It is connected, or secured.
fn connected(worker: &Worker, state: &Rc<StreamState>, peer: Peer) {
    let is_new = state.peer.get().is_none();
    state.connected(worker, peer);
    let from = worker.root.stack(worker);
    let is_wanted = state.opener.take().is_some_and(|opener| {
        scheduler::wake(worker, &from, opener, |stack| {
            if !is_new {
                return 0;
            }
            stack.push_object(Stream(Rc::clone(state)));
            1
        })
    });
    if is_new && !is_wanted {
        // Who asked for it was cancelled, so nobody will ever have it.
        state.close(worker, &from);
    }
}

fn receive(worker: &Worker, state: &StreamState, bytes: &[u8]) {
    if state.is_closed.get() {
        return;
    }
    let Some((reader, max)) = state.reader.take() else {
        return state.keep(worker, bytes);
    };
    let from = worker.root.stack(worker);
    if bytes.len() <= max {
        // The common case copies bytes once, into the VM.
        let is_read = scheduler::wake(worker, &from, reader, |stack| {
            stack.push_buffer(bytes);
            1
        });
        if !is_read {
            state.keep(worker, bytes);
        }
        return;
    }
    // Kept first, as who is woken may well go on reading.
    state.keep(worker, bytes);
    scheduler::wake(worker, &from, reader, |stack| {
        state.push_kept(worker, stack, max);
        1
    });
}

/// The connection has ended.
fn ended(worker: &Worker, state: &Rc<StreamState>, cause: &Cause) {
    worker.raw.borrow_mut().streams.remove(&state.conn);
    state.is_gone.set(true);
    let from = worker.root.stack(worker);
    let is_new = state.peer.get().is_none();
    *state.fault.borrow_mut() = words(cause);
    if let Some(opener) = is_new.then(|| state.opener.take()).flatten() {
        let (place, why) = (&state.place, state.trouble());
        let why = format!("net.connect: {place}: {why}");
        scheduler::wake_raising(worker, &from, opener, why);
    }
    state.wake_all(worker, &from);
}

/// Why a stream has ended, if it did not end well.
fn words(cause: &Cause) -> Option<String> {
    Some(match cause {
        Cause::Agreed => return None,
        Cause::Io(error) => error_words(error),
        Cause::Connect(failed) => error_words(&failed.error),
        Cause::PeerGone => "connection reset".to_owned(),
        Cause::Resolve(error) => format!("the name cannot be resolved: {error}"),
        Cause::TimedOut(Deadline::Resolve) => "timed out while the name was resolved".to_owned(),
        Cause::TimedOut(Deadline::Connect) => "timed out".to_owned(),
        Cause::TimedOut(Deadline::TlsHandshake) => "timed out in the TLS handshake".to_owned(),
        Cause::TimedOut(_) => "timed out: the peer takes nothing".to_owned(),
        Cause::Tls(error) => format!("TLS: {error}"),
        Cause::Truncated => "truncated: the peer left without TLS's close_notify".to_owned(),
        Cause::TooSlow => "the peer does not read what is sent".to_owned(),
        Cause::Terminated => "the stream is closed".to_owned(),
        other => other.to_string(),
    })
}

/// What the system said, in the words that scripts can rely on.
fn error_words(error: &io::Error) -> String {
    use io::ErrorKind as Kind;
    let words = match error.kind() {
        Kind::ConnectionRefused => "connection refused",
        Kind::ConnectionReset | Kind::BrokenPipe => "connection reset",
        Kind::ConnectionAborted => "connection aborted",
        Kind::TimedOut => "timed out",
        Kind::HostUnreachable => "host unreachable",
        Kind::NetworkUnreachable => "network unreachable",
        Kind::AddrInUse => "address in use",
        Kind::AddrNotAvailable => "this machine has no such address",
        Kind::PermissionDenied => "permission denied",
        Kind::NotFound => "no such socket file",
        _ => return error.to_string(),
    };
    words.to_owned()
}

/// Closes what the collector has freed since the last turn, and tells of listeners that a drain has
/// closed.
pub(crate) fn sweep(worker: &Worker) {
    let (drained, dropped) = {
        let raw = worker.raw.borrow();
        let has_drained = !raw.listeners.is_empty() && worker.reactor.borrow().listeners() == 0;
        if !has_drained && raw.dropped.is_empty() {
            return;
        }
        let drained = has_drained.then(|| raw.listeners.clone());
        (drained, Rc::clone(&raw.dropped))
    };
    for listener in drained.into_iter().flatten() {
        listener.close(worker, &worker.root.stack(worker));
    }
    for conn in dropped.streams.take() {
        let state = worker.raw.borrow().streams.get(&conn).cloned();
        let socket = worker.raw.borrow().sockets.get(&conn).cloned();
        if let Some(state) = state {
            state.close(worker, &worker.root.stack(worker));
        } else if let Some(socket) = socket {
            socket.close(worker, &worker.root.stack(worker));
        }
    }
    for key in dropped.listeners.take() {
        let state = worker.raw.borrow().find(key);
        if let Some(state) = state {
            state.close(worker, &worker.root.stack(worker));
        }
    }
}

impl Raw {
    fn find(&self, key: ListenerKey) -> Option<Rc<ListenerState>> {
        let mut listeners = self.listeners.iter();
        listeners.find(|listener| listener.key == key).cloned()
    }

    /// Reads the certificates of all listeners anew; whether one has any.
    pub(super) fn reload_tls(&self, failures: &mut Vec<String>) -> bool {
        let mut has_tls = false;
        for reloaded in self.listeners.iter().filter_map(|known| known.reload_tls()) {
            has_tls = true;
            failures.extend(reloaded.err());
        }
        has_tls
    }
}

/// Whether of so many connections and listeners there is none but streams and listeners that no
/// coroutine waits for, and connections that have only to be left by their peer.
pub(crate) fn is_quiet(worker: &Worker, connections: usize, listeners: usize) -> bool {
    let raw = worker.raw.borrow();
    let ours = raw.streams.len() + raw.sockets.len() + raw.lookups.len();
    if ours == 0 && connections > 0 || listeners > raw.listeners.len() {
        return false;
    }
    if resolve::is_awaited(worker, &raw.lookups) {
        return false;
    }
    if raw.sockets.values().any(|socket| socket.is_awaited(worker)) {
        return false;
    }
    let mut known = raw.listeners.iter();
    // A drain may have closed them.
    if listeners > 0 && known.any(|listener| listener.is_awaited(worker)) {
        return false;
    }
    // One that is closing will be gone soon.
    let is_idle = |stream: &Rc<StreamState>| !stream.is_closed.get() && !stream.is_awaited(worker);
    raw.streams.values().all(is_idle) && {
        // At the other end of one may be one of ours.
        let others = connections.saturating_sub(ours);
        others == 0 || others <= worker.reactor.borrow().lingering()
    }
}

/// Closes every stream, socket and listener, at the end of all scripts; whether there was one.
pub(crate) fn close_all(worker: &Worker) -> bool {
    let (streams, sockets, listeners) = {
        let raw = worker.raw.borrow();
        let streams: Vec<_> = raw.streams.values().cloned().collect();
        let sockets: Vec<_> = raw.sockets.values().cloned().collect();
        (streams, sockets, raw.listeners.clone())
    };
    let from = worker.root.stack(worker);
    for listener in &listeners {
        listener.close(worker, &from);
    }
    let lookups = std::mem::take(&mut worker.raw.borrow_mut().lookups);
    for conn in lookups.keys() {
        // One that has been answered by now needs no end.
        let _gone = worker.reactor.borrow_mut().terminate(*conn);
    }
    for socket in &sockets {
        socket.close(worker, &from);
    }
    for stream in &streams {
        stream.close(worker, &from);
    }
    !streams.is_empty() || !lookups.is_empty() || !sockets.is_empty() || !listeners.is_empty()
}

/// Installs the metatables and the methods.
pub(super) fn install(lua: &mlua::Lua, worker: &Rc<Worker>) -> mlua::Result<()> {
    stream::install(lua, worker)?;
    udp::install(lua, worker)?;
    listener::install(lua, worker)
}
