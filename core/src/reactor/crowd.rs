//! Which addresses a listener's connections come from, and how many each may have.
//!
//! Sits in the reactor, beside `accept.rs`, which asks before it takes a connection in. Where several
//! reactors serve one port, the tables behind it are those of all of them ([`AddressGuards`]).
//!
//! Invariants
//! - What is not bounded is not counted.
//! - A listener that closes, or goes with its reactor, takes its connections out of the count that it
//!   shares: nobody is refused for the sake of who is not there.
//!
//! Not here: the tables (`addresses.rs`).

use super::accept::Listener;
use super::{ListenerKey, Reactor};
use crate::addresses::{AddressCounts, AddressRates, network};
use crate::proxy_header::AddressBlock;
use crate::transport::{Net, Peer};
use core::net::IpAddr;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Instant;

/// What several listeners, of several reactors, know together of their peers' addresses.
#[derive(Clone, Debug)]
pub struct AddressGuards {
    /// How many connections each has; bounded by each listener's `Limits::connections_per_ip_max`.
    pub connections: Arc<AddressCounts>,
    /// How often each may begin to speak TLS; only listeners with TLS ask.
    pub tls_handshakes: Option<Arc<AddressRates>>,
    /// Who may do so as often as it likes: a proxy, that speaks for many.
    pub trusted: Vec<AddressBlock>,
    /// From when their time counts: the same moment for all.
    pub epoch: Instant,
}

/// The addresses of one listener's connections.
#[derive(Debug)]
pub(super) struct Crowd {
    /// Connections that one may have; `u32::MAX` for any number.
    max: u32,
    guards: Option<AddressGuards>,
    /// How many each has here; kept only where that is bounded.
    own: HashMap<IpAddr, u32>,
}

impl Crowd {
    /// Nobody yet; `max` is what each may have.
    pub(super) fn new(max: u32, epoch: Instant) -> Self {
        let is_bounded = max < u32::MAX;
        let guards = is_bounded.then(|| AddressGuards {
            connections: Arc::default(),
            tls_handshakes: None,
            trusted: Vec::new(),
            epoch,
        });
        Self {
            max,
            guards,
            own: HashMap::new(),
        }
    }

    /// The address to count for `peer`, if any, and the table.
    fn counted(&self, peer: Option<Peer>) -> Option<(IpAddr, &AddressCounts)> {
        match (peer, &self.guards) {
            (Some(Peer::Ip(peer)), Some(guards)) if self.max < u32::MAX => {
                Some((network(peer.ip()), &guards.connections))
            }
            _ => None,
        }
    }

    /// One of `peer` is there, if it may be: not if it has as many as it may.
    pub(super) fn lets_in(&mut self, peer: Option<Peer>) -> bool {
        self.add(peer, self.max)
    }

    /// One of `peer` is there, and is about to go.
    pub(super) fn lets_in_anyway(&mut self, peer: Peer) {
        self.add(Some(peer), u32::MAX);
    }

    fn add(&mut self, peer: Option<Peer>, max: u32) -> bool {
        let Some((ip, counts)) = self.counted(peer) else {
            return true;
        };
        let may = counts.add(ip, max);
        if may {
            *self.own.entry(ip).or_default() += 1;
        }
        may
    }

    /// One of those that were let in has gone.
    pub(super) fn lets_out(&mut self, peer: Option<Peer>) {
        let Some((ip, counts)) = self.counted(peer) else {
            return;
        };
        counts.take(ip, 1);
        if let Entry::Occupied(mut entry) = self.own.entry(ip) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }

    /// Whether `peer` may begin to speak TLS now.
    pub(super) fn may_handshake(&self, peer: Peer, now: Instant) -> bool {
        let (Peer::Ip(peer), Some(guards)) = (peer, &self.guards) else {
            return true;
        };
        let Some(rates) = &guards.tls_handshakes else {
            return true;
        };
        let ip = peer.ip();
        let since = now.saturating_duration_since(guards.epoch);
        guards.trusted.iter().any(|block| block.contains(ip)) || rates.admits(ip, since)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        if let Some(guards) = &self.guards {
            for (ip, count) in &self.own {
                guards.connections.take(*ip, *count);
            }
        }
    }
}

impl<N: Net> Reactor<N> {
    /// Has `listener` count addresses together with all that are given the same `guards`. To be called
    /// before it has accepted anything.
    pub fn guard_addresses(&mut self, listener: ListenerKey, guards: AddressGuards) {
        let mut listeners = self.listeners.iter_mut();
        let is_it = |known: &&mut Listener<_>| known.key == listener;
        if let Some(its) = listeners.find(is_it) {
            its.crowd.guards = Some(guards);
        }
    }
}
