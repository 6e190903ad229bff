//! The workers of one process: who they are, how what one publishes reaches the others, and how
//! they share a port.
//!
//! Sits beside `runtime.rs`. A worker is a runtime on a thread of its own, made there, so nothing of
//! a VM or a reactor is ever shared; what crosses threads is bytes, through the mailboxes of core.
//!
//! ```text
//!   worker 1: publish ─▶ own reactor
//!                     └▶ outgoing ─ once a turn ─▶ mailbox of worker 2, 3, …   (bytes are shared)
//!   worker 1: subscribe ─▶ own reactor ─ once a turn ─▶ own tally ◀─ asked by worker 2, 3, …
//! ```
//!
//! How many subscribers the topics of a worker have, the others read in its tally (`crew/tally.rs`).
//! A port is shared in one of two ways ([`Balance`]): the system spreads connections over listeners
//! of all workers, or one worker accepts and hands over (`crew/share.rs`).
//!
//! Invariants
//! - Publications of one worker reach another in the order in which they were published.
//! - No lock is taken for a publication: one a turn and worker, for all of them. Likewise for
//!   subscriptions: one a turn, for all that have changed.
//! - A worker's tally is written before what it has published is sent: who has heard of a change asks
//!   for no count from before it.
//! - A port that another process has is in use, though workers share theirs.
//!
//! Not here: starting threads, and starting a worker again (the command does that).

mod guards;
mod share;
mod tally;

pub(crate) use guards::{Bounds, Tables};

use crate::runtime::Options;
use core::net::{IpAddr, SocketAddr};
use hukilau_core::Reactor;
use hukilau_core::conn::Publication;
use hukilau_core::reactor::figures::{Figures, Gauge};
use hukilau_core::reactor::mailbox::Remote;
use hukilau_core::reactor::{ListenerKey, ServerConfig};
use hukilau_core::transport::Endpoint;
use hukilau_core::transport::mio::MioNet;
use share::{Place, Port, Share};
use std::cell::{Cell, Ref, RefCell};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tally::Tally;

/// Workers that run the same script, share its ports, and hear what any of them publishes.
#[derive(Clone, Debug)]
pub struct Crew(Arc<Shared>);

/// The place of one worker in its crew; by [`Default`] it works alone.
#[derive(Clone, Debug, Default)]
pub struct Seat {
    crew: Option<Arc<Shared>>,
    index: u32,
}

#[derive(Debug)]
struct Shared {
    count: u32,
    /// Each worker that runs, by index.
    members: Mutex<BTreeMap<u32, Member>>,
    /// Grows with each change of `members`, so that workers look only then.
    version: AtomicU64,
    ports: Mutex<Ports>,
    /// What the workers know together of the addresses that they serve.
    tables: guards::Shelf,
    /// Grows when another worker is to accept for a port, likewise.
    ports_version: AtomicU64,
}

impl Shared {
    /// Worker `index` gets no more connections of the ports for which `goes` is true.
    fn leave(&self, index: u32, goes: impl Fn(&Place) -> bool) {
        let mut ports = lock(&self.ports);
        // Before anybody is woken: who sees the new version waits here for what it means.
        self.ports_version.fetch_add(1, Ordering::Release);
        ports
            .shared
            .retain(|place, port| !goes(place) || port.leave(index));
    }
}

/// How the connections of a port are spread over workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Balance {
    /// By the system, which knows nothing of how many each has.
    System,
    /// To whoever has the fewest.
    Connections,
}

/// A worker as the others know it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) index: u32,
    remote: Remote,
    pub(crate) figures: Arc<Figures>,
    /// Bytes in use by the VM, after the last turn.
    pub(crate) heap: Arc<Gauge>,
    /// Messages that were dropped as their peers sent too many.
    pub(crate) messages_refused: Arc<Gauge>,
    /// Nanoseconds that scripts and what serves them have run, the collector's work in it.
    pub(crate) script_nanos: Arc<Gauge>,
    /// Nanoseconds of them in the collector, estimated.
    pub(crate) collector_nanos: Arc<Gauge>,
    /// Lines of access logs that found no room.
    pub(crate) log_lines_dropped: Arc<Gauge>,
    /// A drain has left it nothing to do.
    is_drained: Arc<AtomicBool>,
    /// Subscribers of its topics, after the last turn.
    tally: Arc<Tally>,
}

/// What the workers listen on.
#[derive(Debug, Default)]
struct Ports {
    /// Endpoints that are this process's.
    held: BTreeSet<SocketAddr>,
    /// What the system chose for the n-th port 0 of an address.
    chosen: BTreeMap<(IpAddr, u32), u16>,
    /// Those for which one worker accepts.
    shared: BTreeMap<Place, Port>,
}

/// A lock of plain data, which no thread can leave half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Crew {
    /// A crew of `count` workers, none of which runs yet.
    pub fn new(count: NonZeroU32) -> Self {
        Self(Arc::new(Shared {
            count: count.get(),
            members: Mutex::default(),
            version: AtomicU64::new(0),
            ports: Mutex::default(),
            tables: guards::Shelf::default(),
            ports_version: AtomicU64::new(0),
        }))
    }

    /// The place of worker `index`, counted from 0: for the [`Options`] of its runtime. A worker that
    /// takes the place of one that has failed has the same.
    pub fn seat(&self, index: u32) -> Seat {
        Seat {
            crew: Some(Arc::clone(&self.0)),
            index,
        }
    }
}

impl Seat {
    /// Which worker it is, counted from 0.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// How many workers there are.
    pub fn count(&self) -> u32 {
        self.crew.as_ref().map_or(1, |crew| crew.count)
    }

    /// The worker is about to stop listening: no other hands a connection over to it from now on.
    pub(crate) fn leave_ports(&self) {
        if let Some(crew) = &self.crew {
            crew.leave(self.index, |_| true);
        }
    }
}

/// A publication and its topic.
type Addressed = (Arc<[u8]>, Arc<Publication>);

/// What a runtime knows of its crew.
pub(crate) struct Peers {
    seat: Seat,
    own: Member,
    /// The other workers, and the version at which they were looked up.
    known: RefCell<(u64, Vec<Member>)>,
    outgoing: RefCell<Vec<Addressed>>,
    /// How often the script has listened on port 0.
    unnamed: Cell<u32>,
    /// Ports that are shared by handing over.
    shares: RefCell<Vec<Share>>,
    /// The version of the ports at which they were looked at.
    ports_seen: Cell<u64>,
    /// Something is to be tried again soon.
    is_stuck: Cell<bool>,
}

impl Peers {
    /// Takes the seat of `options` for `reactor`.
    pub(crate) fn join(options: &Options, reactor: &mut Reactor) -> Self {
        let seat = options.seat.clone();
        let own = Member {
            index: seat.index,
            remote: reactor.remote(),
            figures: Arc::clone(reactor.figures()),
            heap: Arc::default(),
            messages_refused: Arc::default(),
            script_nanos: Arc::default(),
            collector_nanos: Arc::default(),
            log_lines_dropped: Arc::default(),
            is_drained: Arc::default(),
            tally: Arc::default(),
        };
        if let Some(crew) = &seat.crew {
            if crew.count > 1 {
                reactor.track_topic_changes();
            }
            lock(&crew.members).insert(seat.index, own.clone());
            crew.version.fetch_add(1, Ordering::Release);
        }
        Self {
            seat,
            own,
            known: RefCell::default(),
            outgoing: RefCell::default(),
            unnamed: Cell::new(0),
            shares: RefCell::default(),
            ports_seen: Cell::new(0),
            is_stuck: Cell::new(false),
        }
    }

    /// This worker.
    pub(crate) fn own(&self) -> &Member {
        &self.own
    }

    /// All workers that run now, by index.
    pub(crate) fn members(&self) -> Vec<Member> {
        match &self.seat.crew {
            Some(crew) => lock(&crew.members).values().cloned().collect(),
            None => vec![self.own.clone()],
        }
    }

    /// A drain has left this worker nothing to do; whether others have.
    pub(crate) fn note_drained(&self) -> bool {
        let Some(crew) = &self.seat.crew else {
            return false;
        };
        let is_news = !self.own.is_drained.swap(true, Ordering::SeqCst);
        let others = self.others(crew);
        let is_busy = |other: &Member| !other.is_drained.load(Ordering::SeqCst);
        let waits = others.iter().any(is_busy);
        if is_news && !waits {
            // They wait for this.
            for other in &*others {
                other.remote.wake();
            }
        }
        waits
    }

    /// How many workers there shall be.
    pub(crate) fn count(&self) -> u32 {
        self.seat.count()
    }

    /// Keeps a publication for the other workers, if there are any.
    pub(crate) fn publish(&self, topic: &[u8], publication: &Arc<Publication>) {
        if self.seat.crew.is_some() {
            let publication = Arc::clone(publication);
            self.outgoing.borrow_mut().push((topic.into(), publication));
        }
    }

    /// How many subscribers `topic` has at the other workers, as of their last turns.
    pub(crate) fn subscribers(&self, topic: &[u8]) -> usize {
        let Some(crew) = &self.seat.crew else {
            return 0;
        };
        let others = self.others(crew);
        others.iter().map(|other| other.tally.count(topic)).sum()
    }

    /// Tells the others what has changed since the last turn, and then sends what was kept. Called
    /// once a turn.
    pub(crate) fn flush(&self, reactor: &mut Reactor) {
        if let Some(changes) = reactor.take_topic_changes() {
            self.own.tally.apply(changes);
        }
        self.send();
    }

    /// Sends what was kept.
    fn send(&self) {
        let mut outgoing = self.outgoing.borrow_mut();
        let Some(crew) = self.seat.crew.as_ref().filter(|_| !outgoing.is_empty()) else {
            return;
        };
        for other in &*self.others(crew) {
            // A worker that is gone has no subscribers.
            let _ = other.remote.publish(&outgoing);
        }
        outgoing.clear();
    }

    /// The other workers, looked up anew if any has come or gone.
    fn others(&self, crew: &Shared) -> Ref<'_, [Member]> {
        let version = crew.version.load(Ordering::Acquire);
        if self.known.borrow().0 != version {
            let members = lock(&crew.members);
            let others = members.values();
            let others = others.filter(|member| member.index != self.seat.index);
            *self.known.borrow_mut() = (version, others.cloned().collect());
        }
        Ref::map(self.known.borrow(), |(_, others)| &others[..])
    }

    /// Listens at `at`, sharing the port with the other workers. By itself, connections are spread by
    /// the system where it does that.
    pub(crate) fn listen(
        &self,
        reactor: &mut Reactor,
        at: &Endpoint,
        config: ServerConfig,
        balance: Option<Balance>,
    ) -> io::Result<ListenerKey> {
        let Some(crew) = &self.seat.crew else {
            return reactor.listen(at, config);
        };
        let by_itself = match MioNet::REUSE_PORT_BALANCES {
            true => Balance::System,
            false => Balance::Connections,
        };
        match (at, balance.unwrap_or(by_itself)) {
            (Endpoint::Ip(at), Balance::System) => self.listen_each(crew, reactor, *at, config),
            _ => self.listen_together(crew, reactor, at, config),
        }
    }

    /// The tables of addresses for `bounds`, which all workers share that listen at `at` with the same.
    pub(crate) fn tables(&self, at: &Endpoint, bounds: Bounds, now: Instant) -> Arc<Tables> {
        match &self.seat.crew {
            Some(crew) => crew.tables.find(at, bounds, now),
            None => Arc::new(Tables::new(bounds, now)),
        }
    }

    /// How often port 0 was asked for before.
    fn count_unnamed(&self) -> u32 {
        self.unnamed.replace(self.unnamed.get() + 1)
    }

    /// Each worker has a listener.
    fn listen_each(
        &self,
        crew: &Shared,
        reactor: &mut Reactor,
        mut at: SocketAddr,
        config: ServerConfig,
    ) -> io::Result<ListenerKey> {
        // The others wait: the first one decides on the port.
        let mut ports = lock(&crew.ports);
        let mut unnamed = None;
        if at.port() == 0 {
            let key = (at.ip(), self.count_unnamed());
            at.set_port(ports.chosen.get(&key).copied().unwrap_or(0));
            unnamed = Some(key);
        } else if !ports.held.contains(&at) {
            // Sharing would not notice that another process has it.
            let alone = reactor.listen(&Endpoint::Ip(at), config.clone())?;
            reactor.close_listener(alone);
        }
        reactor.net_mut().set_reuse_port(true);
        let listening = reactor.listen(&Endpoint::Ip(at), config);
        reactor.net_mut().set_reuse_port(false);
        let listener = listening?;
        if let Some(Endpoint::Ip(bound)) = reactor.local_endpoint(listener) {
            if let Some(key) = unnamed {
                ports.chosen.insert(key, bound.port());
            }
            ports.held.insert(bound);
        }
        Ok(listener)
    }

    /// One worker accepts for all.
    fn listen_together(
        &self,
        crew: &Shared,
        reactor: &mut Reactor,
        at: &Endpoint,
        config: ServerConfig,
    ) -> io::Result<ListenerKey> {
        let nth = match at {
            Endpoint::Ip(at) if at.port() == 0 => self.count_unnamed(),
            _ => 0,
        };
        let place = (at.to_string(), nth);
        let mut ports = lock(&crew.ports);
        let port = match ports.shared.entry(place.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Port::new(reactor.net().listen_shared(at)?)),
        };
        let joined = Share::join(reactor, self.seat.index, (place.clone(), port), config);
        match joined {
            Ok(share) => {
                let listener = share.listener;
                self.shares.borrow_mut().push(share);
                Ok(listener)
            }
            Err(error) => {
                if port.is_deserted() {
                    ports.shared.remove(&place);
                }
                Err(error)
            }
        }
    }

    /// `listener` is about to close: what others have handed to it is taken in, and no more comes.
    pub(crate) fn leave(&self, reactor: &mut Reactor, listener: ListenerKey) {
        let shares = self.shares.borrow();
        let its = shares.iter().find(|share| share.listener == listener);
        if let (Some(crew), Some(share)) = (&self.seat.crew, its) {
            crew.leave(self.seat.index, |place| *place == share.place);
            drop(shares);
            reactor.collect_mail();
        }
    }

    /// Goes on with ports that are shared by handing over. Called once a turn.
    pub(crate) fn tend(&self, reactor: &mut Reactor) {
        let mut shares = self.shares.borrow_mut();
        let Some(crew) = self.seat.crew.as_ref().filter(|_| !shares.is_empty()) else {
            return;
        };
        shares.retain(|share| share.tell(reactor));
        let (index, mut is_stuck) = (self.seat.index, false);
        let version = crew.ports_version.load(Ordering::Acquire);
        if version != self.ports_seen.get() {
            self.ports_seen.set(version);
            let ports = lock(&crew.ports);
            for share in &mut *shares {
                if let Some(port) = ports.shared.get(&share.place)
                    && !share.take_over(reactor, index, port)
                {
                    self.ports_seen.set(version.wrapping_sub(1));
                    is_stuck = true;
                }
            }
        }
        while let Some(listener) = reactor.next_arrival_is_of() {
            let Some(share) = shares.iter().find(|share| share.listener == listener) else {
                drop(reactor.next_arrival());
                continue;
            };
            let mut ports = lock(&crew.ports);
            let port = ports.shared.get_mut(&share.place);
            if !share.give(reactor, index, port) {
                is_stuck = true;
                break;
            }
        }
        self.is_stuck.set(is_stuck);
    }

    /// How long the next turn may wait for the sake of ports.
    pub(crate) fn delay(&self) -> Option<Duration> {
        self.is_stuck.get().then_some(share::RETRY)
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.send();
        self.seat.leave_ports();
        if let Some(crew) = &self.seat.crew {
            let mut members = lock(&crew.members);
            members.remove(&self.seat.index);
            crew.version.fetch_add(1, Ordering::Release);
            // One of them may have waited for the end of this one.
            for other in members.values() {
                if other.is_drained.load(Ordering::SeqCst) {
                    other.remote.wake();
                }
            }
        }
        // The others hold it until they look who is there.
        self.own.tally.clear();
    }
}
