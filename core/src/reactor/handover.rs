//! Handing over: connections that one reactor accepts, and another serves.
//!
//! Sits in the reactor, beside `accept.rs`. Where the system does not spread connections over
//! listeners of one port, or not by how many each has, the reactors of a process share one: each has a
//! shared listener, one of them accepts, and the application says who gets what.
//!
//! ```text
//!   one that accepts:   socket ─▶ arrivals ─▶ the application chooses ─▶ Mail::Adopt ─┐
//!   the one chosen:     turn ◀─ accept_one ◀─ adopted, as if they waited at a socket ◀─┘
//! ```
//!
//! Invariants
//! - What was adopted is accepted as from a socket: limits, TLS and all else are the adopter's.
//! - Arrivals are bounded: nobody accepts more while those of one turn wait for the application.
//! - A shared listener that closes takes in what was adopted and what waits at its socket.
//!
//! Not here: who gets a connection (the application), sharing a socket (`transport/`).

use super::accept::Listener;
use super::{ListenerKey, Reactor, ServerConfig};
use crate::transport::{Endpoint, Net, Peer};
use core::any::Any;
use core::fmt;
use std::collections::VecDeque;
use std::io;

/// A connection that was accepted and that no reactor has yet. Dropping it closes it.
pub struct Arrival {
    socket: Box<dyn Any + Send>,
    peer: Peer,
}

impl Arrival {
    /// Who has connected.
    pub fn peer(&self) -> Peer {
        self.peer
    }
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrival").field("peer", &self.peer).finish()
    }
}

/// There are no two of one connection.
impl PartialEq for Arrival {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Arrival {}

/// Where the connections of a listener come from.
#[derive(Debug)]
pub(super) enum Source<L> {
    /// A socket that nobody else has.
    Own(L),
    /// One that reactors share: it is with the one that accepts.
    Shared {
        at: Endpoint,
        socket: Option<L>,
        /// Connections may wait at it.
        calls: bool,
    },
}

/// Connections on their way from one reactor to another.
#[derive(Debug)]
pub(super) struct Handover<S> {
    /// Accepted here, and not given to anybody yet.
    arrivals: VecDeque<(ListenerKey, S, Peer)>,
    /// Given to us, and not accepted yet.
    adopted: VecDeque<(ListenerKey, S, Peer)>,
    /// How many each shared listener was ever given.
    received: Vec<(ListenerKey, u64)>,
}

impl<S> Default for Handover<S> {
    fn default() -> Self {
        Self {
            arrivals: VecDeque::new(),
            adopted: VecDeque::new(),
            received: Vec::new(),
        }
    }
}

/// How many connections a shared listener has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Those that are there or wait to be accepted.
    pub present: usize,
    /// How many it was ever given.
    pub received: u64,
}

impl<L> Listener<L> {
    /// The next connection: of the listener's own socket, or one that was adopted.
    pub(super) fn take_next<N: Net<Listener = L>>(
        &mut self,
        net: &mut N,
        handover: &mut Handover<N::Socket>,
    ) -> io::Result<(N::Socket, Peer)> {
        match &mut self.source {
            Source::Own(socket) => net.accept(socket),
            Source::Shared { .. } => {
                let is_its = |(key, ..): &(ListenerKey, N::Socket, Peer)| *key == self.key;
                let at = handover.adopted.iter().position(is_its);
                let next = at.and_then(|at| handover.adopted.remove(at));
                next.map(|(_, socket, peer)| (socket, peer))
                    .ok_or_else(|| io::ErrorKind::WouldBlock.into())
            }
        }
    }

    /// Its socket has connections, as an event says.
    pub(super) fn note_callers(&mut self) {
        match &mut self.source {
            Source::Own(_) => self.waiting = true,
            Source::Shared { calls, .. } => *calls = true,
        }
    }

    /// Whether connections wait at a socket that is shared.
    fn has_callers(&self) -> bool {
        matches!(
            self.source,
            Source::Shared {
                socket: Some(_),
                calls: true,
                ..
            }
        )
    }
}

impl<N: Net> Reactor<N> {
    /// A listener at `at` without a socket: it gets the connections that are [adopted](Self::adopt)
    /// for it, and may be the one that [accepts](Self::accept_from) them for all.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for limits that contradict each other.
    pub fn listen_shared(&mut self, at: Endpoint, config: ServerConfig) -> io::Result<ListenerKey> {
        let source = Source::Shared {
            at,
            socket: None,
            calls: false,
        };
        let key = self.add_listener(config, |_, _| Ok(source))?;
        self.handover.received.push((key, 0));
        Ok(key)
    }

    /// Has a shared listener accept for all: from now on there are [arrivals](Self::next_arrival).
    /// `open` makes the socket, which reports to the token that it is given.
    ///
    /// # Errors
    /// What `open` says. A listener that is closed, or shares nothing, is left as it is.
    pub fn accept_from(
        &mut self,
        listener: ListenerKey,
        open: impl FnOnce(&mut N, u64) -> io::Result<N::Listener>,
    ) -> io::Result<()> {
        let mut listeners = self.listeners.iter_mut();
        if let Some(known) = listeners.find(|known| known.key == listener)
            && let Source::Shared { socket, calls, .. } = &mut known.source
        {
            *socket = Some(open(&mut self.net, u64::from(listener.0))?);
            // Those that wait already may have been announced to somebody else.
            *calls = true;
        }
        Ok(())
    }

    /// A connection that was accepted for all, by the listener that did. Some reactor should
    /// [adopt](Self::adopt) it.
    pub fn next_arrival(&mut self) -> Option<(ListenerKey, Arrival)> {
        let (key, socket, peer) = self.handover.arrivals.pop_front()?;
        let socket = Box::new(socket);
        Some((key, Arrival { socket, peer }))
    }

    /// Whether there are arrivals, and whose is the [next](Self::next_arrival).
    pub fn next_arrival_is_of(&self) -> Option<ListenerKey> {
        self.handover.arrivals.front().map(|(key, ..)| *key)
    }

    /// Takes a connection that another reactor has accepted, as if it had come to `listener`. If that
    /// is closed, so is the connection.
    pub fn adopt(&mut self, listener: ListenerKey, arrival: Arrival) {
        let received = &mut self.handover.received;
        let Some((_, count)) = received.iter_mut().find(|(key, _)| *key == listener) else {
            return;
        };
        *count += 1;
        // What another kind of net has accepted is none of ours; there is one kind in a process.
        let Ok(socket) = arrival.socket.downcast::<N::Socket>() else {
            return;
        };
        let adopted = (listener, *socket, arrival.peer);
        self.handover.adopted.push_back(adopted);
        let mut listeners = self.listeners.iter_mut();
        if let Some(known) = listeners.find(|known| known.key == listener) {
            known.waiting = true;
        }
    }

    /// How many connections a shared listener has; `None` once it is closed.
    pub fn share_of(&self, listener: ListenerKey) -> Option<Share> {
        let mut received = self.handover.received.iter();
        let (_, received) = received.find(|(key, _)| *key == listener)?;
        let waits = |(key, ..): &&(ListenerKey, N::Socket, Peer)| *key == listener;
        let waiting = self.handover.adopted.iter().filter(waits).count();
        Some(Share {
            present: self.connections_of(listener)? + waiting,
            received: *received,
        })
    }

    /// Whether there may be one more arrival at `listener`.
    pub(super) fn can_fetch(&self, listener: &Listener<N::Listener>) -> bool {
        let room = usize::from(self.limits.accepts_per_turn);
        listener.has_callers() && self.handover.arrivals.len() < room
    }

    /// Accepts for all what waits at the socket of listener `index`, as far as arrivals have room.
    pub(super) fn fetch_arrivals(
        &mut self,
        index: usize,
        errors: &mut Vec<(ListenerKey, io::Error)>,
    ) {
        let room = usize::from(self.limits.accepts_per_turn);
        while self.handover.arrivals.len() < room && self.fetch_one(index, errors) {}
    }

    /// Accepts one arrival at listener `index`; whether there may be more.
    fn fetch_one(&mut self, index: usize, errors: &mut Vec<(ListenerKey, io::Error)>) -> bool {
        let Some(listener) = self.listeners.get_mut(index) else {
            return false;
        };
        if listener.rests_until.is_some_and(|until| self.now < until) {
            return false;
        }
        if listener.rests_until.take().is_some() {
            self.net.restore_reserve();
        }
        let key = listener.key;
        let Source::Shared {
            socket: Some(socket),
            calls,
            ..
        } = &mut listener.source
        else {
            return false;
        };
        match self.net.accept(socket) {
            Ok((socket, peer)) => {
                self.handover.arrivals.push_back((key, socket, peer));
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                *calls = false;
                false
            }
            Err(error) => self.accept_failed(index, error, errors),
        }
    }

    /// Has the shared listener `index` keep what has come to it, as it closes.
    pub(super) fn keep_arrivals(
        &mut self,
        index: usize,
        errors: &mut Vec<(ListenerKey, io::Error)>,
    ) {
        // A crowd that keeps coming does not keep it open.
        let room = (self.limits.connections_max as usize).saturating_sub(self.conns.len());
        while self.handover.arrivals.len() < room && self.fetch_one(index, errors) {}
        let key = self.listeners[index].key;
        let handover = &mut self.handover;
        let (its, others) = handover.arrivals.drain(..).partition(|(of, ..)| *of == key);
        handover.arrivals = others;
        handover.adopted.extend::<VecDeque<_>>(its);
    }

    /// The listener `key` is closed: whatever comes for it later is, too.
    pub(super) fn forget_share(&mut self, key: ListenerKey) {
        self.handover.received.retain(|(known, _)| *known != key);
        let adopted = &mut self.handover.adopted;
        while let Some(at) = adopted.iter().position(|(of, ..)| *of == key) {
            if let Some((_, socket, _)) = adopted.remove(at) {
                self.net.close(socket, true);
            }
        }
    }
}
