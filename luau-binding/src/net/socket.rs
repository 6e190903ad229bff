//! The WebSocket object: its members, and the order in which a socket's events reach the script.
//!
//! Sits in the native module. Core keeps the connection; this keeps what a script adds to it, and a
//! queue of what could not be delivered yet: because a callback has not returned, or because nobody
//! has asked for messages. While the queue is long, the connection is held (not read), so it is
//! bounded.
//!
//! ```text
//! completion ─▶ deliver ─▶ queue empty and idle? ─ yes ─▶ dispatch ─▶ next() waiter or callback
//!                              no ▼                            ▲
//!                               queue ──── pump (callback returned, bind, next) ───┘
//! ```
//!
//! Invariants
//! - Events of one socket are dispatched in order, and one callback at a time; with `concurrent`
//!   messages do not wait for one another, but for `open`.
//! - The userdata is pinned from the upgrade until its close event was dispatched, or only `next`
//!   could bring it there; afterwards the script alone keeps it. Callbacks and `data` live in slots of the userdata, so no cycle leaks.
//! - A key that has gone stale is a normal answer: sending to a closed socket raises, nothing else.
//!
//! What a script may call is in `socket/members.rs`.
//!
//! Not here: frames, pings, timeouts (core), the upgrade (`bridge.rs`).

mod members;

pub(super) use members::this;
pub(crate) use members::{install, send_by, try_send};

use super::guards::{self, Meter};
use super::server::ServerState;
use crate::bridge::{Callback, Purpose};
use crate::runtime::Worker;
use crate::scheduler::{self, WaitKey};
use crate::vm::object::{Object, Tag};
use crate::vm::{Pin, Raise, Stack};
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::transport::KeptPeer;
use hukilau_core::ws::{MessageKind, close_code};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::ffi::CStr;
use std::fmt;
use std::rc::Rc;

/// Queued messages above which a connection is no longer read.
const QUEUED_MESSAGES_MAX: usize = 64;
/// Queued bytes above which a connection is no longer read.
const QUEUED_BYTES_MAX: usize = 64 * 1024;

/// Callbacks of one connection that may run at once with `concurrent = true`: then, too, a peer
/// that sends faster than the script works is no longer read.
const CONCURRENT_MAX: u16 = 256;

/// Values that live with the userdata, by slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Slot {
    Message = 1,
    Open = 2,
    Close = 3,
    Drain = 4,
    Data = 5,
}

impl Slot {
    fn bit(self) -> u8 {
        1 << (self as u8)
    }

    fn number(self) -> usize {
        usize::from(self as u8)
    }
}

/// Among the slots that have been set: no callback is to hear of messages any more.
const MUTED: u8 = 1 << 7;

/// Something a script is to hear of.
#[derive(Debug)]
pub(crate) enum Event {
    /// The upgrade is done.
    Open,
    /// A message.
    Message(MessageKind, Vec<u8>),
    /// There is room to send again.
    Drain,
    /// The connection has ended.
    Close,
}

/// What the binding knows of one WebSocket.
pub(crate) struct SocketState {
    pub(crate) conn: ConnKey,
    /// Whose callbacks it has beside its own; none if we opened it.
    pub(crate) server: Option<Rc<ServerState>>,
    peer: Option<KeptPeer>,
    is_connected: Cell<bool>,
    /// Nothing more will come from the connection.
    has_ended: Cell<bool>,
    /// A callback has heard of the end.
    is_end_told: Cell<bool>,
    /// How it was closed, once it was.
    end: OnceCell<Box<End>>,
    /// Which slots have been set.
    slots: Cell<u8>,
    /// The userdata, while the connection lives.
    object: Cell<Option<Pin>>,
    /// What the script has not heard of yet; none if it has heard of everything.
    queue: RefCell<Option<Box<Queue>>>,
    is_held: Cell<bool>,
    rare: Option<Box<Rare>>,
    /// Callbacks that have not returned.
    running: Cell<u16>,
    /// The `open` callback has returned, or there is none.
    is_opened: Cell<bool>,
    /// The coroutine that waits in `ws:next()`.
    waiter: Cell<Option<WaitKey>>,
}

/// Beside the reactor's share, this is what an idle WebSocket costs: with what `Rc` and the
/// allocator add, 128 bytes.
const _: () = assert!(size_of::<SocketState>() <= 104);

/// What few sockets have.
#[derive(Debug)]
struct Rare {
    protocol: Option<Box<[u8]>>,
    /// What it may send, if that is bounded.
    meter: Option<RefCell<Meter>>,
}

/// How a socket was closed.
#[derive(Debug)]
struct End {
    code: u16,
    reason: Box<[u8]>,
    /// Code and reason are those of the peer's close frame.
    is_by_peer: bool,
}

/// Events that wait for the script.
#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Event>,
    /// Of the messages among them.
    bytes: usize,
}

impl fmt::Debug for SocketState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SocketState {{ conn: {} }}", self.conn)
    }
}

impl SocketState {
    /// What it may send, if that is bounded.
    pub(super) fn meter(&self) -> Option<&RefCell<Meter>> {
        self.rare.as_ref()?.meter.as_ref()
    }

    /// Whether the next that the script is to hear of is the end.
    fn is_close_next(&self) -> bool {
        let queue = self.queue.borrow();
        let first = queue.as_ref().and_then(|queue| queue.events.front());
        matches!(first, Some(Event::Close))
    }

    /// Whether it has ended, and nobody was there to be told.
    fn is_end_untold(&self) -> bool {
        self.has_ended.get() && self.has_delivered_all() && !self.is_end_told.get()
    }

    /// Whether the script has heard of everything.
    fn has_delivered_all(&self) -> bool {
        self.queue.borrow().is_none()
    }

    /// Whether the next event has to wait for a callback to return.
    fn is_busy(&self) -> bool {
        let server = self.server.as_ref();
        let options = server.and_then(|server| server.websocket.as_ref());
        let is_concurrent = options.is_some_and(|options| options.is_concurrent);
        let most = if is_concurrent && self.is_opened.get() {
            CONCURRENT_MAX
        } else {
            1
        };
        self.running.get() >= most
    }
}

/// The userdata.
pub(crate) struct Socket(Rc<SocketState>);

impl Object for Socket {
    const TAG: Tag = Tag::Socket;
    const NAME: &'static CStr = c"WebSocket";
}

/// The sockets of a worker by the index of their key.
#[derive(Default)]
pub(crate) struct Sockets(Vec<Option<Rc<SocketState>>>);

impl Sockets {
    /// The socket of `conn`, if it is one and still there.
    pub(crate) fn get(&self, conn: ConnKey) -> Option<&Rc<SocketState>> {
        let socket = self.0.get(conn.index() as usize)?.as_ref()?;
        (socket.conn == conn).then_some(socket)
    }

    fn insert(&mut self, socket: Rc<SocketState>) {
        let index = socket.conn.index() as usize;
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        if let Some(place) = self.0.get_mut(index) {
            *place = Some(socket);
        }
    }

    fn remove(&mut self, conn: ConnKey) {
        if self.get(conn).is_some()
            && let Some(place) = self.0.get_mut(conn.index() as usize)
        {
            *place = None;
        }
    }
}

/// Makes the object of a connection whose upgrade was accepted, by `server` or by one that we
/// asked. `data`, an index of `stack`,
/// becomes its `data`.
pub(crate) fn create(
    worker: &Worker,
    stack: &mut Stack<'_>,
    conn: ConnKey,
    server: Option<&Rc<ServerState>>,
    protocol: Option<&[u8]>,
    data: Option<i32>,
) -> Rc<SocketState> {
    let forwarded = server.and_then(|server| server.guards.take_forwarded(conn));
    let peer = forwarded.or_else(|| worker.reactor.borrow().peer(conn));
    let websocket = server.and_then(|server| server.websocket.as_ref());
    let meter = websocket.and_then(|websocket| Meter::new(websocket.rates));
    let protocol = protocol.map(Into::into);
    let is_rare = meter.is_some() || protocol.is_some();
    let state = Rc::new(SocketState {
        conn,
        server: server.map(Rc::clone),
        peer: peer.map(Into::into),
        rare: is_rare.then(|| Box::new(Rare { protocol, meter })),
        is_connected: Cell::new(true),
        has_ended: Cell::new(false),
        is_end_told: Cell::new(false),
        end: OnceCell::new(),
        slots: Cell::new(0),
        object: Cell::new(None),
        queue: RefCell::default(),
        is_held: Cell::new(false),
        running: Cell::new(0),
        is_opened: Cell::new(false),
        waiter: Cell::new(None),
    });
    stack.push_object(Socket(Rc::clone(&state)));
    let top = stack.len();
    if let Some(data) = data {
        stack.push_copy(data);
        stack.set_slot(top, Slot::Data.number());
        state.slots.set(Slot::Data.bit());
    }
    let pin = stack.pin(top, worker.root.released());
    stack.pop(1);
    state.object.set(Some(pin));
    worker.sockets.borrow_mut().insert(Rc::clone(&state));
    state
}

/// The peer's close frame arrived.
pub(crate) fn closing(socket: &SocketState, code: u16, reason: &[u8]) {
    end_with(socket, code, reason, true);
}

/// The first code that there is for the end counts.
fn end_with(socket: &SocketState, code: u16, reason: &[u8], is_by_peer: bool) {
    socket.is_connected.set(false);
    socket.end.get_or_init(|| {
        Box::new(End {
            code,
            reason: reason.into(),
            is_by_peer,
        })
    });
}

/// The connection has ended with `code`, unless the peer gave one.
pub(crate) fn closed(worker: &Worker, socket: &Rc<SocketState>, code: u16, reason: &str) {
    end_with(socket, code, reason.as_bytes(), false);
    socket.has_ended.set(true);
    deliver(worker, socket, Event::Close);
    if !takes_messages(socket) && !has_callback(socket, Slot::Close) {
        // What it has not read is the script's to keep, and to let go of, with the object.
        forget(worker, socket);
    }
}

/// Nothing more happens to the socket by itself.
fn forget(worker: &Worker, socket: &SocketState) {
    worker.sockets.borrow_mut().remove(socket.conn);
    drop(socket.object.take());
}

/// A message arrived. The common case copies its bytes once, into the VM.
pub(crate) fn message(
    worker: &Worker,
    socket: &Rc<SocketState>,
    kind: MessageKind,
    payload: &[u8],
) {
    if !guards::admit_message(worker, socket, payload.len()) {
        return;
    }
    let is_next = !socket.is_busy() && socket.has_delivered_all();
    if let Some(waiter) = socket.waiter.take()
        && resume_waiter(worker, waiter, kind, payload)
    {
        return;
    }
    if is_next && takes_messages(socket) {
        call(worker, socket, Slot::Message, |stack| {
            push_message(stack, kind, payload);
            1
        });
    } else {
        enqueue(worker, socket, Event::Message(kind, payload.to_vec()));
    }
}

/// Anything but a message happened.
///
/// Room to send is no part of what the peer says: it does not wait behind messages that a script
/// pulls, which may be waiting for just that room before it pulls more.
pub(crate) fn deliver(worker: &Worker, socket: &Rc<SocketState>, event: Event) {
    let overtakes = matches!(event, Event::Drain) && !takes_messages(socket);
    if overtakes && socket.is_busy() {
        let mut queue = socket.queue.borrow_mut();
        return queue.get_or_insert_default().events.push_front(event);
    }
    let is_next = !socket.is_busy() && (overtakes || socket.has_delivered_all());
    let is_awaited = matches!(event, Event::Close) && socket.waiter.get().is_some();
    if is_next || is_awaited {
        dispatch(worker, socket, event);
    } else {
        enqueue(worker, socket, event);
    }
}

fn enqueue(worker: &Worker, socket: &SocketState, event: Event) {
    let mut queue = socket.queue.borrow_mut();
    let queue = queue.get_or_insert_default();
    if let Event::Message(_, payload) = &event {
        queue.bytes += payload.len();
    }
    queue.events.push_back(event);
    let is_long = queue.events.len() >= QUEUED_MESSAGES_MAX || queue.bytes >= QUEUED_BYTES_MAX;
    if is_long && !socket.is_held.replace(true) {
        worker.reactor.borrow_mut().hold(socket.conn);
    }
}

/// Takes the first event if it is one that `wanted` accepts.
fn dequeue(
    worker: &Worker,
    socket: &SocketState,
    wanted: impl Fn(&Event) -> bool,
) -> Option<Event> {
    let mut place = socket.queue.borrow_mut();
    let queue = place.as_mut()?;
    if !queue.events.front().is_some_and(wanted) {
        return None;
    }
    let event = queue.events.pop_front()?;
    if let Event::Message(_, payload) = &event {
        queue.bytes -= payload.len();
    }
    let is_short =
        queue.events.len() <= QUEUED_MESSAGES_MAX / 2 && queue.bytes <= QUEUED_BYTES_MAX / 2;
    if queue.events.is_empty() {
        // What is idle owns no memory.
        *place = None;
    }
    if is_short && socket.is_held.replace(false) {
        worker.reactor.borrow_mut().release(socket.conn);
    }
    Some(event)
}

/// Delivers what is queued, as far as the script can take it.
pub(crate) fn pump(worker: &Worker, socket: &Rc<SocketState>) {
    while !socket.is_busy() {
        let takes_messages = takes_messages(socket);
        let event = dequeue(worker, socket, |event| {
            takes_messages || !matches!(event, Event::Message(..))
        });
        match event {
            Some(event) => dispatch(worker, socket, event),
            None => return,
        }
    }
}

/// Whether a callback for messages is there.
fn takes_messages(socket: &SocketState) -> bool {
    has_callback(socket, Slot::Message)
}

fn has_callback(socket: &SocketState, slot: Slot) -> bool {
    socket.slots.get() & slot.bit() != 0 || server_callback(socket, slot).is_some()
}

fn server_callback(socket: &SocketState, slot: Slot) -> Option<&Pin> {
    let callbacks = socket.server.as_ref()?.websocket.as_ref()?;
    match slot {
        Slot::Message => callbacks.message.as_ref(),
        Slot::Open => callbacks.open.as_ref(),
        Slot::Close => callbacks.close.as_ref(),
        Slot::Drain => callbacks.drain.as_ref(),
        Slot::Data => None,
    }
}

/// Hands one event to the script.
fn dispatch(worker: &Worker, socket: &Rc<SocketState>, event: Event) {
    match event {
        Event::Open => call(worker, socket, Slot::Open, |_| 0),
        Event::Drain => call(worker, socket, Slot::Drain, |_| 0),
        Event::Message(kind, payload) => call(worker, socket, Slot::Message, |stack| {
            push_message(stack, kind, &payload);
            1
        }),
        Event::Close => {
            // Who binds a callback because `next` gave nil is called below, and not once more.
            socket.is_end_told.set(true);
            if let Some(waiter) = socket.waiter.take() {
                let from = worker.root.stack(worker);
                scheduler::wake(worker, &from, waiter, |stack| {
                    stack.push_nil();
                    1
                });
            }
            if socket.is_busy() {
                return enqueue(worker, socket, Event::Close);
            }
            socket.is_end_told.set(has_callback(socket, Slot::Close));
            call(worker, socket, Slot::Close, |stack| {
                let end = socket.end.get();
                let code = end.map_or(close_code::ABNORMAL, |end| end.code);
                stack.push_number(f64::from(code));
                stack.push_string(end.map_or(&[][..], |end| &end.reason));
                2
            });
            forget(worker, socket);
        }
    }
}

/// Calls the callback in `slot`, the socket's own before the server's, in a coroutine.
fn call(
    worker: &Worker,
    socket: &Rc<SocketState>,
    slot: Slot,
    push: impl FnOnce(&mut Stack<'_>) -> i32,
) {
    if !has_callback(socket, slot) {
        socket.is_opened.set(true);
        return;
    }
    if slot == Slot::Message && socket.slots.get() & MUTED != 0 {
        return;
    }
    let callback = match slot {
        Slot::Message => Callback::Message,
        Slot::Open => Callback::Open,
        Slot::Close => Callback::Close,
        Slot::Drain | Slot::Data => Callback::Drain,
    };
    let purpose = Purpose::Socket(Rc::clone(socket), callback);
    let from = worker.root.stack(worker);
    socket.running.set(socket.running.get() + 1);
    scheduler::start(worker, &from, purpose, |stack| {
        push_object(socket, stack);
        if socket.slots.get() & slot.bit() != 0 {
            stack.push_slot(1, slot.number());
        } else if let Some(pin) = server_callback(socket, slot) {
            stack.push_pin(pin);
        }
        stack.insert(1);
        1 + push(stack)
    });
}

/// A callback has returned or failed.
pub(crate) fn callback_ended(worker: &Worker, socket: &Rc<SocketState>) {
    socket.is_opened.set(true);
    socket.running.set(socket.running.get().saturating_sub(1));
    if !socket.is_busy() && !socket.has_delivered_all() {
        worker.pump.borrow_mut().push_back(Rc::clone(socket));
    }
}

/// The connection of the socket at `index`, if it is one.
pub(crate) fn conn_at(stack: &Stack<'_>, index: i32) -> Option<ConnKey> {
    stack.object::<Socket>(index).map(|socket| socket.0.conn)
}

/// From here on the callbacks of the socket at `index` get the value at `face` in its place, which has to
/// keep it alive. For sockets of servers that bind no callbacks of their own.
pub(crate) fn stand_in(stack: &mut Stack<'_>, index: i32, face: i32) -> Result<(), Raise> {
    let socket = (stack.object::<Socket>(index)).map(|socket| Rc::clone(&socket.0));
    let released = stack.worker()?.root.released();
    if let Some(socket) = socket
        && socket.object.take().is_some()
    {
        socket.object.set(Some(stack.pin(face, released)));
    }
    Ok(())
}

/// From here on no callback hears of messages of the socket at `index`.
pub(crate) fn mute(stack: &Stack<'_>, index: i32) {
    if let Some(Socket(socket)) = stack.object::<Socket>(index) {
        socket.slots.set(socket.slots.get() | MUTED);
    }
}

/// Pushes the userdata; nil once the close event has been dispatched.
pub(crate) fn push_object(socket: &SocketState, stack: &mut Stack<'_>) {
    let object = socket.object.take();
    match &object {
        Some(pin) => stack.push_pin(pin),
        None => stack.push_nil(),
    }
    socket.object.set(object);
}

fn push_message(stack: &mut Stack<'_>, kind: MessageKind, payload: &[u8]) {
    match kind {
        MessageKind::Text => stack.push_string(payload),
        MessageKind::Binary => stack.push_buffer(payload),
    }
}

/// Gives a message to the coroutine that waits for it; false if that was cancelled meanwhile.
fn resume_waiter(worker: &Worker, waiter: WaitKey, kind: MessageKind, payload: &[u8]) -> bool {
    let from = worker.root.stack(worker);
    scheduler::wake(worker, &from, waiter, |stack| {
        push_message(stack, kind, payload);
        1
    })
}
