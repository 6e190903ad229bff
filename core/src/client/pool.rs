//! Who gets which connection: kept ones first, then new ones, then a place in the queue.
//!
//! Sits in the client's face and knows neither sockets nor HTTP: routes, connections and askers are
//! names. A pure table, so that it can be held against a naive model.
//!
//! Invariants
//! - Never more connections than `per_route_max` to one route, nor `total_max` altogether.
//! - Whoever waits could not be served: each change that may serve somebody is followed by
//!   [`Pool::next`] until it has nobody.
//! - First come, first served, among those who could be served. The connection that rested last is
//!   used first, so that what is not needed grows old; under need of room the oldest makes it.
//!
//! Not here: when a connection is too old (its idle deadline), what is said on it (`client.rs`).

use core::hash::Hash;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// The bounds of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Connections to one route. Default 64; browsers have 6, but they are not backends.
    pub per_route_max: u32,
    /// Connections altogether. Default 512.
    pub total_max: u32,
    /// Requests that wait for one. Default 4,096.
    pub waiting_max: u32,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            per_route_max: 64,
            total_max: 512,
            waiting_max: 4_096,
        }
    }
}

/// What an asker gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Grant<C> {
    /// A connection that has rested.
    Reuse(C),
    /// Room for a new one; `evicts` is to be closed for it, and is not in the pool any more.
    Open { evicts: Option<C> },
}

/// An asker that waited, its route, and what it gets.
pub(super) type Served<R, C, Q> = (Q, R, Grant<C>);

/// The queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

#[derive(Debug)]
struct Place<R, C> {
    route: R,
    /// Connections to it, and grants to open one.
    count: u32,
    waiting: u32,
    /// With the time at which each began to rest; the last is the youngest.
    resting: Vec<(u64, C)>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pool<R, C, Q> {
    limits: PoolLimits,
    by_route: HashMap<R, usize>,
    /// Slots that nobody needs are `None`, and stand in `vacant`.
    places: Vec<Option<Place<R, C>>>,
    vacant: Vec<usize>,
    of_conn: HashMap<C, usize>,
    queue: VecDeque<(Q, usize)>,
    /// All that rest, by age.
    ages: BTreeMap<u64, usize>,
    clock: u64,
    total: u32,
}

impl<R: Hash + Eq + Clone, C: Hash + Eq + Copy, Q: PartialEq> Pool<R, C, Q> {
    pub(super) fn new(limits: PoolLimits) -> Self {
        Self {
            limits,
            by_route: HashMap::new(),
            places: Vec::new(),
            vacant: Vec::new(),
            of_conn: HashMap::new(),
            queue: VecDeque::new(),
            ages: BTreeMap::new(),
            clock: 0,
            total: 0,
        }
    }

    /// Connections, and grants to open one.
    #[cfg(test)]
    pub(super) fn total(&self) -> u32 {
        self.total
    }

    /// Askers that wait.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Connections that rest.
    pub(super) fn resting(&self) -> usize {
        self.ages.len()
    }

    /// Asks for a connection to `route`. `None`: `who` waits, and [`next`](Self::next) will have it.
    pub(super) fn ask(&mut self, route: &R, who: Q) -> Result<Option<Grant<C>>, Full> {
        let at = self.place(route);
        if let Some(grant) = self.grant(at) {
            return Ok(Some(grant));
        }
        if self.queue.len() >= self.limits.waiting_max as usize {
            self.tidy(at);
            return Err(Full);
        }
        self.queue.push_back((who, at));
        self.with(at, |place| place.waiting += 1);
        Ok(None)
    }

    /// A grant to open has led to `conn`, which is in use.
    pub(super) fn opened(&mut self, route: &R, conn: C) {
        let at = self.place(route);
        self.of_conn.insert(conn, at);
    }

    /// A grant to open has led to nothing.
    pub(super) fn not_opened(&mut self, route: &R) {
        let at = self.place(route);
        self.leave(at);
    }

    /// `conn` is not in use any more, and may be again.
    pub(super) fn rest(&mut self, conn: C) {
        let Some(at) = self.of_conn.get(&conn).copied() else {
            return;
        };
        let age = self.clock;
        self.clock += 1;
        self.ages.insert(age, at);
        self.with(at, |place| place.resting.push((age, conn)));
    }

    /// `conn` has ended, whether it rested or not.
    pub(super) fn remove(&mut self, conn: C) {
        let Some(at) = self.of_conn.remove(&conn) else {
            return;
        };
        let mut age = None;
        self.with(at, |place| {
            let index = place.resting.iter().position(|(_, other)| *other == conn);
            age = index.map(|index| place.resting.remove(index).0);
        });
        if let Some(age) = age {
            self.ages.remove(&age);
        }
        self.leave(at);
    }

    /// `who` waits no more.
    pub(super) fn withdraw(&mut self, who: &Q) {
        let index = self.queue.iter().position(|(waiting, _)| waiting == who);
        if let Some((_, at)) = index.and_then(|index| self.queue.remove(index)) {
            self.with(at, |place| place.waiting -= 1);
            self.tidy(at);
        }
    }

    /// The first of those who wait that can be served now.
    pub(super) fn next(&mut self) -> Option<Served<R, C, Q>> {
        for index in 0..self.queue.len() {
            let at = self.queue[index].1;
            let Some(grant) = self.grant(at) else {
                continue;
            };
            let (who, at) = self.queue.remove(index)?;
            self.with(at, |place| place.waiting -= 1);
            let route = self.places[at].as_ref()?.route.clone();
            return Some((who, route, grant));
        }
        None
    }

    /// The connection that has rested longest, out of the pool.
    pub(super) fn take_oldest(&mut self) -> Option<C> {
        let at = *self.ages.first_key_value()?.1;
        let oldest = self.places[at].as_ref()?.resting.first()?.1;
        self.remove(oldest);
        Some(oldest)
    }

    fn grant(&mut self, at: usize) -> Option<Grant<C>> {
        let place = self.places[at].as_mut()?;
        if let Some((age, conn)) = place.resting.pop() {
            self.ages.remove(&age);
            return Some(Grant::Reuse(conn));
        }
        if place.count >= self.limits.per_route_max {
            return None;
        }
        // Counted before room is made, so that the place does not vanish meanwhile.
        place.count += 1;
        let evicts = if self.total < self.limits.total_max {
            None
        } else {
            match self.take_oldest() {
                Some(oldest) => Some(oldest),
                None => {
                    self.with(at, |place| place.count -= 1);
                    return None;
                }
            }
        };
        self.total += 1;
        Some(Grant::Open { evicts })
    }

    /// The place of `route`, made if there is none.
    fn place(&mut self, route: &R) -> usize {
        if let Some(at) = self.by_route.get(route) {
            return *at;
        }
        let place = Some(Place {
            route: route.clone(),
            count: 0,
            waiting: 0,
            resting: Vec::new(),
        });
        let at = match self.vacant.pop() {
            Some(at) => {
                self.places[at] = place;
                at
            }
            None => {
                self.places.push(place);
                self.places.len() - 1
            }
        };
        self.by_route.insert(route.clone(), at);
        at
    }

    /// One connection less.
    fn leave(&mut self, at: usize) {
        self.total -= 1;
        self.with(at, |place| place.count -= 1);
        self.tidy(at);
    }

    /// Forgets a place that nobody is at.
    fn tidy(&mut self, at: usize) {
        let slot = &mut self.places[at];
        let is_empty = |place: &&mut Place<R, C>| place.count == 0 && place.waiting == 0;
        if let Some(place) = slot.as_mut().filter(is_empty) {
            self.by_route.remove(&place.route);
            *slot = None;
            self.vacant.push(at);
        }
    }

    fn with(&mut self, at: usize, change: impl FnOnce(&mut Place<R, C>)) {
        if let Some(place) = self.places[at].as_mut() {
            change(place);
        }
    }
}

#[cfg(test)]
mod tests;
