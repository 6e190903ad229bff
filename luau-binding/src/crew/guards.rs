//! What the workers of a process know together of the addresses that they serve: tables of core's,
//! found by what is listened at and by what is bounded.
//!
//! Sits inside `crew.rs`. A bound per address holds for the process, however many workers there are
//! and whichever of them is asked; the tables are made only where there is such a bound.
//!
//! Invariants
//! - Looking tables up takes a lock, once for each server; using them takes none.
//! - Tables go with the last server that has them.
//!
//! Not here: what they count (`addresses.rs` of core), what is refused (`net/guards.rs`).

use super::lock;
use hukilau_core::addresses::{AddressCounts, AddressRates};
use hukilau_core::transport::Endpoint;
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

/// What an address may do, each second, if that is bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// It may have so many connections at once.
    pub(crate) connections: Option<u32>,
    pub(crate) requests: Option<u32>,
    /// Of WebSockets.
    pub(crate) upgrades: Option<u32>,
    pub(crate) tls_handshakes: Option<u32>,
}

/// What is known of addresses.
#[derive(Debug)]
pub(crate) struct Tables {
    bounds: Bounds,
    pub(crate) connections: Arc<AddressCounts>,
    pub(crate) requests: Option<AddressRates>,
    pub(crate) upgrades: Option<AddressRates>,
    pub(crate) tls_handshakes: Option<Arc<AddressRates>>,
    /// From when their time counts.
    pub(crate) epoch: Instant,
}

impl Bounds {
    /// Whether anything is bounded.
    pub(crate) fn is_any(self) -> bool {
        self != Self::default()
    }
}

impl Tables {
    /// Empty ones.
    pub(super) fn new(bounds: Bounds, epoch: Instant) -> Self {
        Self {
            bounds,
            connections: Arc::default(),
            requests: bounds.requests.map(AddressRates::new),
            upgrades: bounds.upgrades.map(AddressRates::new),
            tls_handshakes: bounds
                .tls_handshakes
                .map(|rate| Arc::new(AddressRates::new(rate))),
            epoch,
        }
    }
}

/// The tables of a crew, and where they count.
#[derive(Debug, Default)]
pub(super) struct Shelf(Mutex<Vec<(Endpoint, Weak<Tables>)>>);

impl Shelf {
    /// Those for `bounds` at `at`; made if there are none.
    pub(super) fn find(&self, at: &Endpoint, bounds: Bounds, now: Instant) -> Arc<Tables> {
        let mut shelf = lock(&self.0);
        shelf.retain(|(_, tables)| tables.strong_count() > 0);
        let mut its = shelf.iter().filter(|(known, _)| known == at);
        let found = its.find_map(|(_, tables)| tables.upgrade().filter(|it| it.bounds == bounds));
        found.unwrap_or_else(|| {
            let tables = Arc::new(Tables::new(bounds, now));
            shelf.push((at.clone(), Arc::downgrade(&tables)));
            tables
        })
    }
}
