//! Ports that workers share by handing connections over: one accepts for all, and whoever serves the
//! fewest gets the next.
//!
//! Sits inside `crew.rs`, which decides which ports are shared in this way. The listening socket is
//! the crew's: when the worker that accepts goes, another takes over, and what waits at the socket
//! waits on.
//!
//! Invariants
//! - A worker that is not there gets nothing: who is to get a connection is chosen, and it is sent,
//!   under one lock, under which workers come and go.
//! - Who leaves first says so and then stops listening, so what was sent before is still accepted.
//! - Connections that nobody has room for stay with the one that accepts, which then accepts no more.
//!
//! Not here: what a connection that was handed over becomes (`reactor/handover.rs` of core).

use hukilau_core::Reactor;
use hukilau_core::reactor::mailbox::{Mail, Remote};
use hukilau_core::reactor::{ListenerKey, ServerConfig};
use hukilau_core::transport::mio::SharedListener;
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How soon to look again for room where there was none, or for a descriptor.
pub(super) const RETRY: Duration = Duration::from_millis(100);

/// What names a port in all workers: the place that was asked for, and for port 0 the how-manieth
/// time it was.
pub(super) type Place = (String, u32);

/// How many connections of a port a worker has.
#[derive(Debug, Default)]
struct Load {
    /// There or waiting to be accepted, after the worker's last turn.
    present: AtomicU64,
    /// How many it had been given until then.
    received: AtomicU64,
    /// How many it was sent.
    sent: AtomicU64,
}

impl Load {
    fn count(&self) -> u64 {
        // In this order: what was received is part of what is present.
        let received = self.received.load(Ordering::Acquire);
        let on_their_way = self.sent.load(Ordering::Relaxed).saturating_sub(received);
        self.present.load(Ordering::Relaxed) + on_their_way
    }
}

/// A worker that serves a port.
#[derive(Debug)]
struct Server {
    listener: ListenerKey,
    remote: Remote,
    load: Arc<Load>,
    /// Connections it may have.
    room: u64,
}

/// A port that workers share.
#[derive(Debug)]
pub(super) struct Port {
    socket: SharedListener,
    /// Who accepts.
    accepts: Option<u32>,
    servers: BTreeMap<u32, Server>,
    /// Who got the last connection.
    last: u32,
}

impl Port {
    pub(super) fn new(socket: SharedListener) -> Self {
        Self {
            socket,
            accepts: None,
            servers: BTreeMap::new(),
            last: u32::MAX,
        }
    }

    /// Who has the fewest connections and room for one more; of equals the next in turn.
    fn choose(&self) -> Option<u32> {
        let behind = self.servers.range((Excluded(self.last), Unbounded));
        let before = self.servers.range(..=self.last);
        let loads = behind.chain(before);
        let loads = loads.map(|(index, server)| (*index, server.load.count(), server.room));
        let free = loads.filter(|(_, count, room)| count < room);
        free.min_by_key(|(_, count, _)| *count)
            .map(|(index, ..)| index)
    }

    /// Whether nobody serves it.
    pub(super) fn is_deserted(&self) -> bool {
        self.servers.is_empty()
    }

    /// Worker `index` serves it no more; whether anybody does.
    pub(super) fn leave(&mut self, index: u32) -> bool {
        self.servers.remove(&index);
        if self.accepts == Some(index) {
            let next = self.servers.first_key_value();
            self.accepts = next.map(|(index, _)| *index);
            if let Some((_, server)) = next {
                server.remote.wake();
            }
        }
        !self.servers.is_empty()
    }
}

/// A worker's part in a port.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) place: Place,
    pub(super) listener: ListenerKey,
    load: Arc<Load>,
    /// It accepts for all.
    accepts: bool,
}

impl Share {
    /// Joins worker `index` to `port`.
    pub(super) fn join(
        reactor: &mut Reactor,
        index: u32,
        (place, port): (Place, &mut Port),
        config: ServerConfig,
    ) -> io::Result<Self> {
        if port.servers.contains_key(&index) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let limits = config.limits.as_ref().unwrap_or(reactor.limits());
        let room = limits.connections_max.min(reactor.limits().connections_max);
        let at = port.socket.endpoint().clone();
        let listener = reactor.listen_shared(at, config)?;
        let mut share = Self {
            place,
            listener,
            load: Arc::default(),
            accepts: false,
        };
        let accepts = *port.accepts.get_or_insert(index);
        if accepts == index
            && let Err(error) = share.accept(reactor, port)
        {
            reactor.close_listener(listener);
            port.accepts = None;
            return Err(error);
        }
        let server = Server {
            listener,
            remote: reactor.remote(),
            load: Arc::clone(&share.load),
            room: u64::from(room),
        };
        port.servers.insert(index, server);
        Ok(share)
    }

    fn accept(&mut self, reactor: &mut Reactor, port: &Port) -> io::Result<()> {
        reactor.accept_from(self.listener, |net, token| net.share(&port.socket, token))?;
        self.accepts = true;
        Ok(())
    }

    /// Begins to accept if that is worker `index`'s part by now; false if the system refuses for now.
    pub(super) fn take_over(&mut self, reactor: &mut Reactor, index: u32, port: &Port) -> bool {
        let is_due = port.accepts == Some(index) && !self.accepts;
        !is_due || self.accept(reactor, port).is_ok()
    }

    /// Says how many connections it has; false once it is closed.
    pub(super) fn tell(&self, reactor: &Reactor) -> bool {
        let Some(share) = reactor.share_of(self.listener) else {
            return false;
        };
        self.load
            .present
            .store(share.present as u64, Ordering::Relaxed);
        self.load.received.store(share.received, Ordering::Release);
        true
    }

    /// Gives the next arrival of `reactor`, which is its own, to somebody who has room. `port` is
    /// `None` once nobody serves it. False if nobody has room.
    pub(super) fn give(&self, reactor: &mut Reactor, index: u32, port: Option<&mut Port>) -> bool {
        let chosen = match port {
            Some(port) if !port.servers.is_empty() => {
                let Some(chosen) = port.choose() else {
                    return false;
                };
                Some((chosen, port))
            }
            // All have said that they leave: those who came before belong to the last.
            _ => None,
        };
        let Some((_, arrival)) = reactor.next_arrival() else {
            return true;
        };
        let Some((chosen, port)) = chosen else {
            reactor.adopt(self.listener, arrival);
            return true;
        };
        port.last = chosen;
        if chosen == index {
            self.load.sent.fetch_add(1, Ordering::Relaxed);
            reactor.adopt(self.listener, arrival);
        } else if let Some(server) = port.servers.get(&chosen) {
            server.load.sent.fetch_add(1, Ordering::Relaxed);
            let mail = Mail::Adopt {
                listener: server.listener,
                arrival,
            };
            if let Err(Mail::Adopt { arrival, .. }) = server.remote.send(mail) {
                // Its reactor has gone a moment before its worker says so.
                port.leave(chosen);
                reactor.adopt(self.listener, arrival);
            }
        }
        true
    }
}
