//! The loop: which connection reads, writes or times out next, generic over `Net`.
//!
//! Sits above transport and drivers and below the application, which it never calls: a turn fills
//! an [`Inbox`] that the caller owns, and the caller answers by the operations of `ops.rs`.
//!
//! - `inbox.rs`    what a turn delivered
//! - `drive.rs`    one connection: reading, flushing, ending
//! - `ops.rs`      what the application asks for
//! - `dial.rs`     a connection before it is one: names, addresses, the race
//! - `outbound.rs` connections that we open, and what is asked on them
//! - `accept.rs`   listeners, and how their connections become ours
//! - `handover.rs` connections that one reactor accepts and another serves
//! - `refused.rs`  what was refused without the application, told
//! - `shed.rs`     who waits when no descriptor is left
//! - `stream.rs`   connections without a protocol of ours
//! - `datagram.rs` sockets of UDP
//! - `conns.rs`    keys and the connection table
//! - `switch.rs`   HTTP that becomes a WebSocket
//! - `pressure.rs` when to stop sending, and when to go on
//! - `timer.rs`    deadlines
//! - `mailbox.rs`  mail from other threads
//! - `drain.rs`    the end of listeners and of their connections
//! - `figures.rs`  what it has done, counted
//!
//! Invariants
//! - No call of the application happens inside a method of the reactor.
//! - A connection that may make progress is in the ready queue or the dirty list; the poll waits
//!   only when both are empty.
//! - One turn reads at most the area and `Limits::reads_per_turn` times, accepts at most
//!   `Limits::accepts_per_turn` connections, and advances `Limits::handshakes_per_turn` handshakes.
//! - Of connections that we have left, a crowd costs the others no more than one does.
//!
//! Not here: what bytes mean (`conn/`), how they travel (`transport/`).

mod accept;
pub mod conns;
mod datagram;
mod dial;
mod drain;
mod drive;
pub mod figures;
mod handover;
pub mod inbox;
pub mod mailbox;
mod ops;
mod outbound;
mod pressure;
mod publish;
mod refused;
mod shed;
mod stream;
mod switch;
pub mod timer;

pub use datagram::DATAGRAM_BYTES_MAX;
#[cfg(feature = "tls")]
pub use dial::DialTls;
pub use dial::{Destination, DialConfig, Host};
pub use handover::{Arrival, Share};
pub use ops::Accept;
pub use stream::Protocol;
#[cfg(feature = "tls")]
pub use stream::StreamTls;

use crate::buffer::BufferPool;
use crate::conn::{Refusals, SharedDate};
use crate::date;
use crate::limits::{Limits, LimitsError};
use crate::proxy_header::ProxyHeaders;
use crate::topics::Topics;
#[cfg(feature = "tls")]
use crate::transport::tls::ServerTls;
use crate::transport::{Net, Ready, Resolved};
use accept::Listener;
use conns::{ConnKey, Conns};
use dial::Dial;
use drain::Drain;
use drive::{Connection, Context, Fate, Phase, SEGMENT_BYTES_MIN};
use figures::Figures;
use handover::Handover;
use inbox::{Inbox, Refusal};
use mailbox::{Mail, Mailbox, Remote};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use timer::TimerWheel;

/// Names a listener of one reactor, and after it is closed nothing. Its token; 0 is the waker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerKey(u32);

impl ListenerKey {
    /// Whose the connections are that we open: nobody's, as 0 is the waker's token.
    const NONE: Self = Self(0);
}

/// What connections of a listener are like.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The bounds of its connections, where they differ from the reactor's.
    pub limits: Option<Limits>,
    /// What is spoken. Default HTTP, to which alone the next two apply.
    pub protocol: Protocol,
    /// Deliver a body whole, as one `Body` completion of at most `Limits::body_bytes_max`, rather
    /// than piece by piece. Default true.
    pub collect_bodies: bool,
    /// Allow upgrades to WebSocket. Default false: `Upgrade` is then ignored.
    pub websocket: bool,
    /// What is said where a request is refused without the application. Default: the broken rule.
    pub refusals: Refusals,
    /// Whose connections begin with a header of the PROXY protocol, which tells the client's address.
    /// Together with the handshake of TLS it may take `Limits::tls_handshake_timeout`; a connection
    /// without one is closed without a word. Default nobody's.
    pub proxy_headers: ProxyHeaders,
    /// A drain of the whole reactor leaves it and its connections alone: for probes, which ask how it
    /// goes until the process ends. Default false.
    pub outlives_drain: bool,
    /// Speak TLS, and nothing without. Default `None`.
    #[cfg(feature = "tls")]
    pub tls: Option<Arc<ServerTls>>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            limits: None,
            protocol: Protocol::Http,
            collect_bodies: true,
            websocket: false,
            refusals: Refusals::default(),
            proxy_headers: ProxyHeaders::Never,
            outlives_drain: false,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

/// An event loop: sockets in, completions out.
///
/// One per thread; nothing of it crosses threads but its [`Remote`].
#[derive(Debug)]
pub struct Reactor<N: Net> {
    net: N,
    limits: Rc<Limits>,
    pool: BufferPool,
    conns: Conns<Connection<N::Socket>>,
    /// Connections that are being made, by their reserved keys.
    dials: BTreeMap<ConnKey, Dial<N::Socket>>,
    datagrams: datagram::Datagrams<N::Datagrams>,
    /// Few, so a list.
    listeners: Vec<Listener<N::Listener>>,
    handover: Handover<N::Socket>,
    /// The key of the next one. Keys are never used again, as connections outlive their listeners.
    next_listener: u32,
    /// Connections that may read, in the order in which they became able to.
    ready: VecDeque<ConnKey>,
    /// The same of those that we have left: what they send is dropped, after all others are read.
    lingering: VecDeque<ConnKey>,
    /// Connections to settle at the start of the next turn.
    dirty: Vec<ConnKey>,
    wheel: TimerWheel,
    mailbox: Mailbox,
    now: Instant,
    date: Rc<SharedDate>,
    date_second: u64,
    drains: Vec<Drain>,
    /// Which connections hear what is published.
    topics: Topics<ConnKey>,
    figures: Arc<Figures>,
    scratch: Scratch,
}

/// Vectors reused turn after turn.
#[derive(Debug, Default)]
struct Scratch {
    events: Vec<Ready>,
    due: Vec<ConnKey>,
    dirty: Vec<ConnKey>,
    mail: Vec<Mail>,
    /// Of accepts between two turns, for the next inbox.
    accept_errors: Vec<(ListenerKey, io::Error)>,
    /// Who was turned away since the last turn, for the next inbox.
    turned_away: Vec<Refusal>,
    resolved: Vec<Resolved>,
    /// Who must wait for the next turn with its TLS handshake.
    handshakes: Vec<ConnKey>,
}

/// Reads of connections that we have left, in a turn: enough for a peer to get through what it was
/// sending and to our last words, too few for a crowd that was refused to slow down who was not.
const LINGERING_READS_MAX: usize = 2;

impl<N: Net> Reactor<N> {
    /// A reactor over `net` with nothing to do.
    ///
    /// # Errors
    /// If `limits` contradict each other.
    pub fn new(net: N, limits: Limits) -> Result<Self, LimitsError> {
        limits.check()?;
        let (now, second) = (net.now(), net.unix_time());
        Ok(Self {
            pool: BufferPool::default(),
            conns: Conns::new(limits.connections_max),
            limits: Rc::new(limits),
            dials: BTreeMap::new(),
            datagrams: BTreeMap::new(),
            listeners: Vec::new(),
            handover: Handover::default(),
            next_listener: 1,
            ready: VecDeque::new(),
            lingering: VecDeque::new(),
            dirty: Vec::new(),
            wheel: TimerWheel::new(now),
            mailbox: Mailbox::new(net.waker()),
            now,
            date: Rc::new(SharedDate::new(date::imf_fixdate(second))),
            date_second: second,
            drains: Vec::new(),
            topics: Topics::default(),
            figures: Arc::default(),
            scratch: Scratch::default(),
            net,
        })
    }

    /// Fills `inbox` with what happened, waiting for it until `wake_at` (`None`: for ever) if
    /// there is nothing to do.
    ///
    /// 1. settle what the application touched since the last turn: one gathered write each;
    /// 2. poll, without waiting if something is ready already;
    /// 3. mail from other threads, and names that have been resolved;
    /// 4. accept and read, until the inbox is full or nothing is ready;
    /// 5. deadlines, after reading, so that a peer is not blamed for our own delay.
    ///
    /// # Errors
    /// What the system's poll refuses; the reactor cannot go on after that.
    pub fn turn(&mut self, inbox: &mut Inbox, wake_at: Option<Instant>) -> io::Result<()> {
        inbox.clear();
        for (listener, error) in self.scratch.accept_errors.drain(..) {
            inbox.deliver_accept_error(listener, error);
        }
        inbox.deliver_turned_away(&mut self.scratch.turned_away);
        self.settle_dirty(inbox);
        self.wait(inbox, wake_at)?;
        self.collect_mail();
        self.collect_resolved(inbox);
        self.accept_waiting(inbox);
        self.receive_datagrams(inbox);
        self.receive_ready(inbox);
        self.fire_deadlines(inbox);
        inbox.deliver_turned_away(&mut self.scratch.turned_away);
        self.note_gauges();
        Ok(())
    }

    /// The time of the present turn.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The bounds of whatever has none of its own.
    pub fn limits(&self) -> &Rc<Limits> {
        &self.limits
    }

    /// The world it works on.
    pub fn net(&self) -> &N {
        &self.net
    }

    /// As [`net`](Self::net), for a simulation to change the world.
    pub fn net_mut(&mut self) -> &mut N {
        &mut self.net
    }

    /// Connections that are open, are being made, or have not been left by their peer yet.
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// Those of them that have ended, and have not been left by their peer yet. Counts anew.
    pub fn lingering(&self) -> usize {
        let lingers = |conn: &Connection<_>| conn.phase == Phase::Lingering;
        self.conns.iter().filter(|(_, conn)| lingers(conn)).count()
    }

    /// Listeners that have not been closed.
    pub fn listeners(&self) -> usize {
        self.listeners.len()
    }

    /// Pooled buffers in use. Zero at rest.
    pub fn buffers_taken(&self) -> usize {
        self.pool.taken()
    }

    /// Deadlines in the wheel; those of connections that have gone stay until they pass.
    pub fn deadlines(&self) -> usize {
        self.wheel.len()
    }

    /// For other threads: wakes this reactor or drains it.
    pub fn remote(&self) -> Remote {
        self.mailbox.remote()
    }

    fn settle_dirty(&mut self, inbox: &mut Inbox) {
        let mut dirty =
            core::mem::replace(&mut self.dirty, core::mem::take(&mut self.scratch.dirty));
        for key in dirty.drain(..) {
            if let Some(conn) = self.conns.get_mut(key) {
                conn.dirty = false;
                self.settle(key, inbox);
            } else {
                self.drive_dial(key, inbox);
            }
        }
        self.scratch.dirty = dirty;
    }

    /// Flushes `key`, then ends it, or sees to its deadline and its place in the ready queue.
    fn settle(&mut self, key: ConnKey, inbox: &mut Inbox) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let mut cx = Context {
            net: &mut self.net,
            inbox,
            now: self.now,
            figures: &self.figures,
        };
        if let Fate::Ends { abort } = conn.settle(key, &mut cx) {
            self.topics.leave_all(key);
            if let Some(conn) = self.conns.remove(key) {
                let mut listeners = self.listeners.iter_mut();
                if let Some(its) = listeners.find(|listener| listener.key == conn.listener) {
                    its.note_gone(conn.known_peer());
                }
                conn.transport.close(&mut self.net, abort);
            }
            return;
        }
        if !conn.may_hear() {
            self.topics.leave_all(key);
        }
        self.schedule(key);
    }

    /// Puts `key` where its state belongs: ready queue, dirty list, wheel.
    fn schedule(&mut self, key: ConnKey) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if !conn.queued && conn.wants_input() {
            conn.queued = true;
            let queue = if conn.phase == Phase::Lingering {
                &mut self.lingering
            } else {
                &mut self.ready
            };
            queue.push_back(key);
        }
        if let Some(deadline) = conn.next_deadline() {
            self.wheel.arm(key, deadline);
        }
    }

    fn wait(&mut self, inbox: &mut Inbox, wake_at: Option<Instant>) -> io::Result<()> {
        let is_idle = inbox.is_empty()
            && self.ready.is_empty()
            && self.lingering.is_empty()
            && self.dirty.is_empty()
            && !self.can_accept()
            && !self.has_datagrams();
        let timeout = if is_idle {
            // A full table makes room by itself, and a rest that is over is no reason to wake.
            let rests = self
                .listeners
                .iter()
                .filter_map(|listener| listener.rests_until)
                .filter(|until| !self.conns.is_full() && *until > self.now)
                .min();
            let drained = self.drains.iter().map(Drain::wakes_at).min();
            let wakes = [wake_at, self.wheel.next_wake(), rests, drained];
            let wake = wakes.into_iter().flatten().min();
            // Asked for anew: the application may have used much time since this turn's began.
            wake.map(|wake| wake.saturating_duration_since(self.net.now()))
        } else {
            Some(Duration::ZERO)
        };
        let mut events = core::mem::take(&mut self.scratch.events);
        let took = self.net.now().saturating_duration_since(self.now);
        self.figures.note_turn(took);
        let polled = self.net.poll(&mut events, timeout);
        self.now = self.net.now();
        self.renew_date();
        for event in events.drain(..) {
            self.note(event, inbox);
        }
        self.scratch.events = events;
        polled
    }

    fn renew_date(&mut self) {
        let second = self.net.unix_time();
        if second != self.date_second {
            self.date_second = second;
            self.date.set(date::imf_fixdate(second));
        }
    }

    fn note(&mut self, event: Ready, inbox: &mut Inbox) {
        let Some(key) = ConnKey::from_token(event.token) else {
            let is_it = |listener: &&mut Listener<_>| u64::from(listener.key.0) == event.token;
            if let Some(listener) = self.listeners.iter_mut().find(is_it) {
                listener.note_callers();
            }
            return;
        };
        // A late event of a connection that has ended finds nothing.
        let Some(conn) = self.conns.get_mut(key) else {
            return self.note_dial(key, event, inbox);
        };
        conn.note(event.readable, event.writable, event.hung_up);
        if event.writable && conn.wants_settling() {
            self.settle(key, inbox);
        } else {
            self.schedule(key);
        }
    }

    fn receive_ready(&mut self, inbox: &mut Inbox) {
        let reserve = if self.lingering.is_empty() {
            0
        } else {
            self.limits.segment_bytes_max as usize
        };
        let mut budget = reserve + self.read_ready(inbox, inbox.area.len() - reserve);
        self.ready.extend(self.scratch.handshakes.drain(..));
        for _ in 0..LINGERING_READS_MAX.min(self.lingering.len()) {
            if budget >= SEGMENT_BYTES_MIN {
                budget = budget.saturating_sub(self.read_lingering(inbox));
            }
        }
    }

    /// Reads the next connection that lingers, if there is room. Returns the bytes read.
    fn read_lingering(&mut self, inbox: &mut Inbox) -> usize {
        let Some(key) = self.lingering.front().copied() else {
            return 0;
        };
        let mut count = 0;
        if let Some(conn) = self.conns.get_mut(key) {
            if inbox.area.len() - inbox.used < conn.room_wanted() {
                return 0;
            }
            conn.queued = false;
            let mut cx = Context {
                net: &mut self.net,
                inbox,
                now: self.now,
                figures: &self.figures,
            };
            count = conn.receive(key, &mut cx);
            self.figures.bytes_received.add(count);
        }
        self.lingering.pop_front();
        self.settle(key, inbox);
        count
    }

    /// Reads who may be read, `budget` bytes together. Returns what is left of it.
    fn read_ready(&mut self, inbox: &mut Inbox, mut budget: usize) -> usize {
        // Bytes that leave no trace in the area (part of a long message) count too.
        let mut reads_left = self.limits.reads_per_turn;
        let mut handshakes_left = self.limits.handshakes_per_turn;
        while let Some(key) = self.ready.front().copied() {
            let Some(conn) = self.conns.get_mut(key) else {
                self.ready.pop_front();
                continue;
            };
            if reads_left == 0
                || budget < SEGMENT_BYTES_MIN
                || inbox.area.len() - inbox.used < conn.room_wanted()
            {
                return budget;
            }
            self.ready.pop_front();
            conn.queued = false;
            if !conn.wants_input() {
                continue;
            }
            if conn.transport.is_handshaking() {
                if handshakes_left == 0 {
                    conn.queued = true;
                    self.scratch.handshakes.push(key);
                    continue;
                }
                handshakes_left -= 1;
            }
            reads_left -= 1;
            let parts = conn.is_parting();
            let mut cx = Context {
                net: &mut self.net,
                inbox,
                now: self.now,
                figures: &self.figures,
            };
            let count = conn.receive(key, &mut cx);
            self.figures.bytes_received.add(count);
            budget = budget.saturating_sub(count);
            if let Some(said) = conn.announcement() {
                self.go_on_behind(key, said, inbox);
            } else if conn.phase != Phase::Open || conn.is_cut() || parts {
                self.settle(key, inbox);
            } else {
                if conn.wants_settling() && !conn.dirty {
                    conn.dirty = true;
                    self.dirty.push(key);
                }
                self.schedule(key);
            }
        }
        budget
    }

    fn fire_deadlines(&mut self, inbox: &mut Inbox) {
        self.tend_drains();
        let mut due = core::mem::take(&mut self.scratch.due);
        self.wheel.fire(self.now, &mut due);
        for fired in due.drain(..) {
            // The entry may be of one who lived in the slot before.
            let Some(key) = self.conns.key_at(fired.index()) else {
                continue;
            };
            let Some(conn) = self.conns.get_mut(key) else {
                self.drive_dial(key, inbox);
                continue;
            };
            // What it sent in time may still wait to be read.
            let is_due = conn
                .next_deadline()
                .is_some_and(|deadline| deadline <= self.now);
            if is_due && !conn.queued {
                conn.handle_deadline(key, self.now, inbox);
                conn.tell_refusal(key, inbox, &self.figures, 0..0);
                self.settle(key, inbox);
            } else {
                self.schedule(key);
            }
        }
        self.scratch.due = due;
    }

    /// Has `key` settled at the start of the next turn.
    fn touch(&mut self, key: ConnKey) {
        if let Some(conn) = self.conns.get_mut(key)
            && !conn.dirty
        {
            conn.dirty = true;
            self.dirty.push(key);
        }
    }
}
