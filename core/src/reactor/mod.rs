//! The loop: which connection reads, writes or times out next, generic over `Net`.
//!
//! Sits above transport and drivers and below the application, which it never calls: a turn fills
//! an [`Inbox`] that the caller owns, and the caller answers by the operations of `ops.rs`.
//!
//! - `inbox.rs`    what a turn delivered
//! - `receive.rs`  who is read in a turn
//! - `input.rs`    one connection: reading
//! - `spill.rs`    input that waits
//! - `drive.rs`    one connection: settling, ending
//! - `flush.rs`    what leaves it, and how
//! - `ops.rs`      what the application asks for
//! - `dial.rs`     a connection before it is one: names, addresses, the race
//! - `outbound.rs` connections that we open, and what is asked on them
//! - `accept.rs`   listeners, and how their connections become ours
//! - `crowd.rs`    how many of them come from one address
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
//! - A connection that may make progress is in a queue of those to be read or in the dirty list; the
//!   poll waits only when all are empty.
//! - One turn reads at most the area and `Limits::reads_per_turn` times, accepts at most
//!   `Limits::accepts_per_turn` connections, and advances `Limits::handshakes_per_turn` handshakes.
//! - One connection takes at most `Limits::steps_per_turn` steps of its driver in a turn.
//! - Of connections that we have left, or that are behind with their input, a crowd costs the others no
//!   more than some do.
//!
//! Not here: what bytes mean (`conn/`), how they travel (`transport/`).

mod accept;
pub mod conns;
mod crowd;
mod datagram;
mod dial;
mod drain;
mod drive;
pub mod figures;
mod flush;
mod handover;
pub mod inbox;
mod input;
pub mod mailbox;
mod ops;
mod outbound;
mod pressure;
mod publish;
mod receive;
mod refused;
mod shed;
mod spill;
mod stream;
mod switch;
pub mod timer;

pub use crowd::AddressGuards;
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
use drive::{Connection, Context, Fate, Phase};
use figures::Figures;
use handover::Handover;
use inbox::{Inbox, Refusal};
use mailbox::{Mail, Mailbox, Remote};
use receive::Queues;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use timer::TimerWheel;

/// How much later than the second it tells `Date` may change: reading two clocks a turn costs more than
/// reading one.
const DATE_LAG_MAX: Duration = Duration::from_millis(10);

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
    /// Connections that may be read.
    queues: Queues,
    /// Connections that were accepted since the last poll.
    unregistered: Vec<ConnKey>,
    /// Connections to settle at the start of the next turn.
    dirty: Vec<ConnKey>,
    wheel: TimerWheel,
    mailbox: Mailbox,
    now: Instant,
    date: Rc<SharedDate>,
    date_second: u64,
    /// When the calendar is looked at next.
    date_due: Instant,
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
}

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
            queues: Queues::default(),
            unregistered: Vec::new(),
            dirty: Vec::new(),
            wheel: TimerWheel::new(now),
            mailbox: Mailbox::new(net.waker()),
            now,
            date: Rc::new(SharedDate::new(date::imf_fixdate(second))),
            date_second: second,
            date_due: now,
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
        self.register_accepted(inbox);
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

    /// Puts `key` where its state belongs: a queue of those to be read, and the wheel.
    fn schedule(&mut self, key: ConnKey) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        self.queues.add(key, conn);
        if let Some(deadline) = conn.next_deadline() {
            self.wheel.arm(key, deadline);
        }
    }

    fn wait(&mut self, inbox: &mut Inbox, wake_at: Option<Instant>) -> io::Result<()> {
        // Asked for anew: the application may have used much time since this turn's began.
        let before = self.net.now();
        let is_idle = inbox.is_empty()
            && self.queues.is_empty()
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
            wake.map(|wake| wake.saturating_duration_since(before))
        } else {
            Some(Duration::ZERO)
        };
        let mut events = core::mem::take(&mut self.scratch.events);
        self.figures
            .note_turn(before.saturating_duration_since(self.now));
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
        if self.now < self.date_due {
            return;
        }
        self.date_due = self.now + DATE_LAG_MAX;
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
            // What has become ready changes no deadline.
            self.queues.add(key, conn);
        }
    }

    fn fire_deadlines(&mut self, inbox: &mut Inbox) {
        self.tend_drains();
        self.wheel.fire(self.now, &mut self.scratch.due);
        if self.scratch.due.is_empty() {
            return;
        }
        let mut due = core::mem::take(&mut self.scratch.due);
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
