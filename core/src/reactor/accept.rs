//! Accepting: which listeners have connections waiting, and how one becomes ours.
//!
//! Sits in the reactor, beside the loop (`mod.rs`), which says when. A listener that speaks TLS
//! gives each of its connections a session of it; nobody above can tell. Where a proxy speaks first,
//! the address that it announces takes the place of its own.
//!
//! Invariants
//! - One turn accepts at most `Limits::accepts_per_turn` connections, and none into a full table.
//! - A connection counts for an address from when its client's is known.
//! - An accepted connection is read before it is registered: its request may be here, and it over, by
//!   the next poll.
//! - A listener that the system refused an accept rests, so that scarce descriptors cost no spin; who
//!   waits at it is told (`shed.rs`).
//!
//! Not here: listening and its end (`ops.rs`); how the handshake goes on (`drive.rs`).

use super::conns::ConnKey;
use super::crowd::Crowd;
use super::drive::{Connection, Phase};
use super::handover::Source;
use super::inbox::{Cause, Inbox};
use super::{ListenerKey, Protocol, Reactor};
use crate::buffer::SendBuffer;
use crate::conn::{Driver, ServerConn, ServerSettings, StreamConn};
use crate::proxy_header::{Announcement, ProxyHeaders};
use crate::transport::preceded::Preceded;
#[cfg(feature = "tls")]
use crate::transport::tls::{ServerTls, TlsStream};
use crate::transport::{Net, Peer, Transport, is_exhausted};
use std::io;
use std::rc::Rc;
#[cfg(feature = "tls")]
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a listener rests after the system refused an accept: long enough not to spin while
/// descriptors are scarce, short enough not to be noticed when they are not.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// A status, a reason, and bytes that were said.
type Refused = (Option<u16>, &'static str, usize);

/// Whose address has as many connections as it may is not told why: that would cost more than it does.
const TOO_MANY: Refused = (None, "too many connections of one address", 0);

/// Nor is who begins too often to agree on TLS, which costs us far more than it does the peer.
const TOO_OFTEN: Refused = (None, "too many TLS handshakes of one address", 0);

#[derive(Debug)]
pub(super) struct Listener<L> {
    pub(super) key: ListenerKey,
    pub(super) source: Source<L>,
    pub(super) settings: Rc<ServerSettings>,
    pub(super) protocol: Protocol,
    /// Whose connections begin with a proxy's header.
    pub(super) proxy_headers: ProxyHeaders,
    /// A drain of all leaves it alone.
    pub(super) outlives_drain: bool,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<Arc<ServerTls>>,
    /// Connections may wait: said by an event, unsaid by `WouldBlock`.
    pub(super) waiting: bool,
    /// The application wants none for now.
    pub(super) held: bool,
    /// Connections that it accepted and that are still there.
    pub(super) open: u32,
    /// Whose they are.
    pub(super) crowd: Crowd,
    /// No accept before this time.
    pub(super) rests_until: Option<Instant>,
}

impl<L> Listener<L> {
    /// Whether connections wait, and it may have one more.
    fn may_accept(&self) -> bool {
        self.waiting && !self.held && self.open < self.settings.limits.connections_max
    }

    /// Whether a header comes first on a connection of `peer`.
    fn awaits_header(&self, peer: Peer) -> bool {
        let ip = match peer {
            Peer::Ip(peer) => Some(peer.ip()),
            Peer::Unix => None,
        };
        self.proxy_headers.expects(ip)
    }

    /// Whether `peer` may begin what it comes for, `now`; if so, it is there, unless nobody knows yet
    /// who it is. Otherwise why not.
    fn lets_in(&mut self, peer: Option<Peer>, now: Instant) -> Result<(), Refused> {
        if !self.crowd.lets_in(peer) {
            return Err(TOO_MANY);
        }
        if let Some(peer) = peer
            && self.speaks_tls()
            && !self.crowd.may_handshake(peer, now)
        {
            self.crowd.lets_out(Some(peer));
            return Err(TOO_OFTEN);
        }
        Ok(())
    }

    /// One that was let in has gone; `peer`, if it was known whose.
    pub(super) fn note_gone(&mut self, peer: Option<Peer>) {
        self.open = self.open.saturating_sub(1);
        self.crowd.lets_out(peer);
    }

    /// What drives a connection that it has accepted at `now`.
    pub(super) fn driver(&self, now: Instant) -> Driver {
        match self.protocol {
            Protocol::Http => Driver::Server(ServerConn::new(Rc::clone(&self.settings), now)),
            Protocol::Stream => Driver::Stream(StreamConn::new()),
        }
    }

    /// Whether nothing else is spoken.
    #[cfg(feature = "tls")]
    pub(super) fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }

    #[cfg(not(feature = "tls"))]
    pub(super) fn speaks_tls(&self) -> bool {
        false
    }

    /// A connection that it has accepted, with TLS if it speaks that.
    #[cfg(feature = "tls")]
    fn wrap<S>(&self, socket: S) -> Result<Transport<S>, (S, io::Error)> {
        let Some(tls) = &self.tls else {
            return Ok(Transport::Plain(socket));
        };
        match TlsStream::server(socket, tls) {
            Ok(stream) => Ok(Transport::Tls(Box::new(stream))),
            Err((socket, error)) => Err((socket, io::Error::other(error))),
        }
    }

    #[cfg(not(feature = "tls"))]
    fn wrap<S>(&self, socket: S) -> Result<Transport<S>, (S, io::Error)> {
        Ok(Transport::Plain(socket))
    }
}

impl<S> Connection<S> {
    /// Whose it is, if that is known yet.
    pub(super) fn known_peer(&self) -> Option<Peer> {
        let is_known = !matches!(self.transport, Transport::Preceded(_));
        is_known.then(|| self.peer.get())
    }

    /// What a proxy has just said of it.
    pub(super) fn announcement(&self) -> Option<Announcement> {
        match &self.transport {
            Transport::Preceded(preceded) => preceded.said(),
            _ => None,
        }
    }
}

impl<N: Net> Reactor<N> {
    /// Goes on with `key` behind a proxy's header, as a connection of whom it has `said`.
    pub(super) fn go_on_behind(&mut self, key: ConnKey, said: Announcement, inbox: &mut Inbox) {
        let Some(mut conn) = self.conns.take(key) else {
            return;
        };
        if let Transport::Preceded(preceded) = conn.transport {
            conn.transport = preceded.into_inside();
        }
        // TLS has the rest of the time.
        if !conn.transport.is_handshaking() && conn.phase == Phase::Open {
            conn.own_deadline = None;
        }
        match said {
            Announcement::Client(address) => conn.peer = Peer::Ip(address).into(),
            Announcement::Unknown => conn.is_unnamed = true,
            Announcement::Local => {}
        }
        let mut listeners = self.listeners.iter_mut();
        if let Some(its) = listeners.find(|listener| listener.key == conn.listener) {
            let peer = conn.peer.get();
            // It was there already, as nobody's.
            if let Err(why) = its.lets_in(Some(peer), self.now) {
                conn.cut(Cause::Terminated);
                its.crowd.lets_in_anyway(peer);
                self.note_turned_away(conn.listener, peer, why);
            }
        }
        self.conns.fill(key, conn);
        // A stream is told of at once, whoever speaks first.
        self.settle(key, inbox);
    }

    /// Whether `conn` was relayed by a proxy that has not said for whom. Its [`peer`](Self::peer) is
    /// the proxy, whose word on who asks, in a field of HTTP say, this connection does not carry.
    pub fn is_unnamed(&self, conn: ConnKey) -> bool {
        self.conns.get(conn).is_some_and(|conn| conn.is_unnamed)
    }

    /// Whether some listener could take a connection now.
    pub(super) fn can_accept(&self) -> bool {
        let now = self.now;
        let has_room = !self.conns.is_full();
        let may = |listener: &Listener<_>| {
            (has_room && listener.may_accept() || self.can_fetch(listener))
                && listener.rests_until.is_none_or(|until| until <= now)
        };
        self.listeners.iter().any(may)
    }

    /// Connections of `listener` that are still there; `None` once it is closed.
    pub fn connections_of(&self, listener: ListenerKey) -> Option<usize> {
        let its = self.listeners.iter().find(|known| known.key == listener);
        its.map(|listener| listener.open as usize)
    }

    pub(super) fn accept_waiting(&mut self, inbox: &mut Inbox) {
        if !self.can_accept() {
            return;
        }
        let mut budget = self.limits.accepts_per_turn;
        let mut errors = core::mem::take(&mut self.scratch.accept_errors);
        for index in 0..self.listeners.len() {
            self.fetch_arrivals(index, &mut errors);
            while budget > 0 && !self.conns.is_full() && self.accept_one(index, &mut errors) {
                budget -= 1;
            }
        }
        for (listener, error) in errors.drain(..) {
            inbox.deliver_accept_error(listener, error);
        }
        self.scratch.accept_errors = errors;
    }

    /// Takes one connection from listener `index`; whether there may be more.
    pub(super) fn accept_one(
        &mut self,
        index: usize,
        errors: &mut Vec<(ListenerKey, io::Error)>,
    ) -> bool {
        let Some(listener) = self.listeners.get_mut(index) else {
            return false;
        };
        if !listener.may_accept() || listener.rests_until.is_some_and(|until| self.now < until) {
            return false;
        }
        if listener.rests_until.take().is_some() {
            self.net.restore_reserve();
        }
        match listener.take_next(&mut self.net, &mut self.handover) {
            Ok((socket, peer)) => {
                let awaits = listener.awaits_header(peer);
                let known = (!awaits).then_some(peer);
                if let Err(why) = listener.lets_in(known, self.now) {
                    let key = listener.key;
                    self.net.close(socket, true);
                    self.note_turned_away(key, peer, why);
                    return true;
                }
                listener.open += 1;
                let limits = Rc::clone(&listener.settings.limits);
                let (key, driver) = (listener.key, listener.driver(self.now));
                let admitted = match listener.wrap(socket) {
                    Ok(inside) => {
                        let transport = match awaits {
                            true => Transport::Preceded(Box::new(Preceded::new(inside))),
                            false => inside,
                        };
                        let out = SendBuffer::new(&self.pool);
                        let conn = Connection::new(transport, driver, out, limits, key, peer);
                        self.admit(conn);
                        Ok(())
                    }
                    Err((socket, error)) => {
                        self.net.close(socket, true);
                        Err(error)
                    }
                };
                match admitted {
                    Ok(()) => self.figures.accepted.add(1),
                    Err(error) => {
                        self.listeners[index].note_gone(known);
                        self.figures.accept_errors.add(1);
                        errors.push((key, error));
                    }
                }
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                listener.waiting = false;
                false
            }
            Err(error) => self.accept_failed(index, error, errors),
        }
    }

    /// The system has refused an accept at listener `index`; whether to try again at once.
    pub(super) fn accept_failed(
        &mut self,
        index: usize,
        error: io::Error,
        errors: &mut Vec<(ListenerKey, io::Error)>,
    ) -> bool {
        match error.kind() {
            io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => true,
            _ => {
                let listener = &mut self.listeners[index];
                listener.rests_until = self.now.checked_add(ACCEPT_BACKOFF);
                let key = listener.key;
                self.figures.accept_errors.add(1);
                if is_exhausted(&error) {
                    self.shed_waiting(index);
                }
                errors.push((key, error));
                false
            }
        }
    }

    fn admit(&mut self, mut conn: Connection<N::Socket>) {
        conn.begin_handshake(self.now);
        // A server's connection is told by its first request.
        conn.connecting = conn.is_stream();
        let key = match self.conns.insert(conn) {
            Ok(key) => key,
            // The caller has asked; a full table takes nothing.
            Err(conn) => {
                return conn.transport.close(&mut self.net, true);
            }
        };
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        // A request follows the handshake of TCP at once: it may be here, and the connection over,
        // before the next poll. TLS takes its share of handshakes when there is something to read.
        conn.readable = !conn.transport.is_handshaking();
        self.unregistered.push(key);
        if conn.connecting {
            self.touch(key);
        }
        self.schedule(key);
    }

    /// Has the next poll report on connections that were accepted since the last one and are still
    /// there; what has come meanwhile, it reports, too.
    pub(super) fn register_accepted(&mut self, inbox: &mut Inbox) {
        if self.unregistered.is_empty() {
            return;
        }
        let mut accepted = core::mem::take(&mut self.unregistered);
        for key in accepted.drain(..) {
            let Some(conn) = self.conns.get_mut(key) else {
                continue;
            };
            let socket = conn.transport.socket_mut();
            if let Err(error) = self.net.register(socket, key.to_token()) {
                self.figures.accept_errors.add(1);
                inbox.deliver_accept_error(conn.listener, again(&error));
                conn.cut(Cause::Io(error));
                self.settle(key, inbox);
            }
        }
        self.unregistered = accepted;
    }
}

/// The same error, to be told twice.
fn again(error: &io::Error) -> io::Error {
    error
        .raw_os_error()
        .map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}
