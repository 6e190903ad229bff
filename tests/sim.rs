//! [`SimNet`]: a network made of a seed. Virtual time, scripted peers, and everything that real
//! networks do to a server, each with a named probability in [`SimOptions`].
//!
//! Sits where `MioNet` sits, under the whole reactor. `sim/link.rs` holds what lies between a
//! socket and its peer; here are the clock, the selector and the calls.
//!
//! The contract it tests is that of edge-triggered readiness, at its meanest:
//! - a call may say `WouldBlock` though it could go on; an event then comes later;
//! - `DRAINS` (epoll): a read shorter than asked for may leave bytes; an event then comes later,
//!   and no event comes for what was left by a read that was *not* short;
//! - not `DRAINS` (the `poll(2)` emulation): after an event there is no other in that direction
//!   until some call has said `WouldBlock`;
//! - events may be spurious, late, merged, or for sockets that are closed.
//!
//! Invariants
//! - Time moves only in `poll`, and only to the next thing that happens or to its timeout.
//! - Same seed, same options, same calls: same transcript, byte for byte.
//!
//! Not here: what the bytes mean; what holds of every scene on it (`sim/scene.rs`).

mod controls;
mod cut;
mod datagrams;
mod link;
mod names;
mod options;
mod report;
mod scarce;
pub(crate) mod scene;
mod tests;

pub(crate) use cut::Cut;
use datagrams::{Mail, SimDatagrams};
use hukilau_core::transport::{Endpoint, Net, Peer, Ready, Resolution, Resolved};
use link::{Link, LinkId, Stage};
pub(crate) use link::{Script, Step};
use names::Names;
pub(crate) use options::{Dice, SimOptions};
use std::cell::{Ref, RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

/// The calls that can be made to fail, for fault injection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Read,
    Write,
    Accept,
    Register,
    Shutdown,
    Connect,
    Random,
}

const CALLS: usize = 7;

/// Polls in a row that may neither wait nor lead to a call. More is a loop that burns a core.
const IDLE_POLLS_MAX: u32 = 5;

/// Something that will happen at some time.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// A peer's connection request arrives.
    Arrival(LinkId),
    /// Bytes or an end arrive from the peer.
    Carry(LinkId),
    /// Bytes or an end arrive at the peer.
    Deliver(LinkId),
    /// The peer goes on with its script.
    Script(LinkId),
    /// The peer's reset arrives here.
    ResetFromPeer(LinkId),
    /// Our reset arrives there.
    ResetToPeer(LinkId),
    /// The event that a needless `WouldBlock`, or a short read, has promised.
    Edge { link: LinkId, readable: bool },
    /// The same for a listener.
    ListenerEdge(u64),
    /// A connect ends.
    Connected(LinkId),
    /// The resolver answers.
    Resolved(u64),
    /// A datagram arrives, or does not.
    Datagram(usize),
    /// The event that a needless `WouldBlock` of a mailbox has promised.
    MailEdge { index: usize, readable: bool },
}

#[derive(Debug)]
struct Backlog {
    at: Endpoint,
    waiting: VecDeque<LinkId>,
    /// Whether an event may be reported; only the `poll(2)` emulation ever disarms.
    armed: bool,
    pending: bool,
}

/// Everything but the handle.
#[derive(Debug)]
pub(crate) struct World {
    drains: bool,
    options: SimOptions,
    dice: Dice,
    /// The one instant the simulation takes from outside; all else is relative to it.
    origin: Instant,
    now: Duration,
    happenings: BTreeMap<(Duration, u64), Happening>,
    sequence: u64,
    links: Vec<Link>,
    listeners: BTreeMap<u64, Backlog>,
    /// What peers do that are connected *to*.
    services: Vec<(Endpoint, Script)>,
    /// Where connects take a time of their own, or for ever.
    routes: Vec<(Endpoint, Option<Duration>)>,
    /// Which connects are given up, after how many bytes.
    cuts: Vec<(Endpoint, usize, Cut)>,
    names: Names,
    mail: Mail,
    closed_tokens: Vec<u64>,
    calls: [u64; CALLS],
    /// Calls made before the last poll, and how many polls in a row neither waited nor led to one.
    calls_before: u64,
    idle_polls: u32,
    fault: Option<(Call, u64, ErrorKind)>,
    reserve_spent: bool,
    transcript: String,
    woken: Arc<Woken>,
}

#[derive(Debug, Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A handle to a simulated network; clones are the same network.
#[derive(Clone, Debug)]
pub(crate) struct SimNet<const DRAINS: bool>(Rc<RefCell<World>>);

/// A socket of a [`SimNet`].
#[derive(Debug)]
pub(crate) struct SimSocket(LinkId);

/// A listener of a [`SimNet`].
#[derive(Debug)]
pub(crate) struct SimListener(u64);

/// Names a peer of a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerId(LinkId);

/// How a connection ended, as its peer saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerEnd {
    /// We finished, and everything sent before has arrived.
    Finished,
    /// Reset, or refused.
    Reset,
}

impl<const DRAINS: bool> Net for SimNet<DRAINS> {
    type Socket = SimSocket;
    type Listener = SimListener;
    type Datagrams = SimDatagrams;

    const SHORT_READ_DRAINS: bool = DRAINS;

    fn now(&self) -> Instant {
        let world = self.0.borrow();
        world.origin + world.now
    }

    fn unix_time(&self) -> u64 {
        1_800_000_000 + self.0.borrow().now.as_secs()
    }

    /// # Errors
    /// `Deadlock` if nothing will ever happen: the simulation is over.
    fn poll(&mut self, ready: &mut Vec<Ready>, timeout: Option<Duration>) -> io::Result<()> {
        ready.clear();
        let mut world = self.world();
        world.watch_for_spinning(timeout);
        let until = timeout.map(|timeout| world.now + timeout);
        let (jumps, jump_max) = (world.options.clock_jump, world.options.clock_jump_max);
        if world.dice.chance(jumps) {
            let jump = world.dice.within(jump_max);
            world.now += jump;
            world.note(format_args!("the machine sleeps for {jump:?}"));
        }
        let turn_time_max = world.options.turn_time_max;
        let present = world.now + world.dice.within(turn_time_max);
        world.let_happen(present);
        while !world.has_events() && !world.woken.0.swap(false, Ordering::SeqCst) {
            let next = world.happenings.first_key_value().map(|((at, _), _)| *at);
            match (next, until) {
                (Some(next), until) if until.is_none_or(|until| next <= until) => {
                    world.let_happen(next);
                }
                (_, Some(until)) => {
                    world.now = world.now.max(until);
                    break;
                }
                (_, None) => return Err(ErrorKind::Deadlock.into()),
            }
        }
        world.report(ready);
        Ok(())
    }

    fn listen(&mut self, at: &Endpoint, token: u64) -> io::Result<SimListener> {
        let mut world = self.world();
        if world.listeners.values().any(|backlog| backlog.at == *at) {
            return Err(ErrorKind::AddrInUse.into());
        }
        let backlog = Backlog {
            at: at.clone(),
            waiting: VecDeque::new(),
            armed: true,
            pending: false,
        };
        world.listeners.insert(token, backlog);
        Ok(SimListener(token))
    }

    fn local_endpoint(&self, listener: &SimListener) -> io::Result<Endpoint> {
        let world = self.0.borrow();
        let backlog = world.listeners.get(&listener.0);
        Ok(backlog.ok_or(ErrorKind::NotConnected)?.at.clone())
    }

    fn accept(&mut self, listener: &mut SimListener) -> io::Result<(SimSocket, Peer)> {
        self.world().accept(listener.0)
    }

    fn spend_reserve(&mut self) -> bool {
        self.world().spend_reserve()
    }

    fn restore_reserve(&mut self) {
        self.world().reserve_spent = false;
    }

    fn register(&mut self, socket: &mut SimSocket, token: u64) -> io::Result<()> {
        let mut world = self.world();
        world.count(Call::Register)?;
        let fails = world.options.register_fails;
        if world.dice.chance(fails) {
            return Err(ErrorKind::StorageFull.into());
        }
        world.register(socket.0, token);
        Ok(())
    }

    fn connect(&mut self, to: &Endpoint, token: u64) -> io::Result<SimSocket> {
        let mut world = self.world();
        world.count(Call::Connect)?;
        let mut services = world.services.iter();
        let script = services.find(|(at, _)| at == to);
        let script = script.map(|(_, script)| script.clone());
        let refused = world.options.connect_refused;
        let is_ours = world.listeners.values().any(|backlog| backlog.at == *to);
        let refused = world.dice.chance(refused) || (script.is_none() && !is_ours);
        let link = world.open_link(script.unwrap_or_default(), Stage::Connecting { refused });
        world.links[link.0].token = Some(token);
        world.links[link.0].fate = world.fate(to);
        world.note(format_args!("{link} connects to {to}"));
        if is_ours && !refused {
            world.loop_back(link, to);
        }
        let route = world.routes.iter().find(|(at, _)| at == to);
        match route.map(|(_, time)| *time) {
            None => world.soon(Happening::Connected(link)),
            Some(Some(time)) => world.after(time, Happening::Connected(link)),
            Some(None) => {}
        }
        Ok(SimSocket(link))
    }

    fn connect_outcome(&mut self, socket: &SimSocket) -> io::Result<()> {
        match self.world().links[socket.0.0].stage {
            Stage::Connecting { .. } => Err(ErrorKind::WouldBlock.into()),
            Stage::Refused => Err(ErrorKind::ConnectionRefused.into()),
            Stage::Waiting | Stage::Open | Stage::Closed => Ok(()),
        }
    }

    /// Ports grow with the number of links, so that each has its own.
    fn local_address(&self, socket: &SimSocket) -> io::Result<Peer> {
        let port = 40_000 + u16::try_from(socket.0.0 % 20_000).unwrap_or(0);
        Ok(Peer::Ip(SocketAddr::from(([127, 0, 0, 1], port))))
    }

    fn set_nodelay(&mut self, _: &mut SimSocket, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn set_ttl(&mut self, _: &mut SimSocket, _: u8) -> io::Result<()> {
        Ok(())
    }

    fn read(&mut self, socket: &mut SimSocket, into: &mut [u8]) -> io::Result<usize> {
        let mut world = self.world();
        let outcome = world.read(socket.0, into);
        world.note_call("read", socket.0, &outcome);
        outcome
    }

    fn write(&mut self, socket: &mut SimSocket, from: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut world = self.world();
        let outcome = world.write(socket.0, from);
        world.note_call("write", socket.0, &outcome);
        outcome
    }

    fn shutdown_write(&mut self, socket: &mut SimSocket) -> io::Result<()> {
        let mut world = self.world();
        world.count(Call::Shutdown)?;
        if world.links[socket.0.0].is_reset {
            return Err(ErrorKind::NotConnected.into());
        }
        world.note(format_args!("{} shutdown", socket.0));
        world.finish(socket.0);
        Ok(())
    }

    fn close(&mut self, socket: SimSocket, abort: bool) {
        let mut world = self.world();
        let how = if abort { "abort" } else { "close" };
        world.note(format_args!("{} {how}", socket.0));
        world.close(socket.0, abort);
    }

    fn close_listener(&mut self, listener: SimListener) {
        let mut world = self.world();
        let backlog = world.listeners.remove(&listener.0);
        for link in backlog.into_iter().flat_map(|backlog| backlog.waiting) {
            world.close(link, true);
        }
    }

    fn bind_datagrams(&mut self, at: SocketAddr, token: u64) -> io::Result<SimDatagrams> {
        self.world().bind_datagrams(at, token)
    }

    fn datagrams_address(&self, socket: &SimDatagrams) -> io::Result<SocketAddr> {
        self.0.borrow().datagrams_address(socket)
    }

    fn receive_from(
        &mut self,
        socket: &mut SimDatagrams,
        into: &mut [u8],
    ) -> io::Result<(usize, SocketAddr)> {
        self.world().receive_from(socket, into)
    }

    fn send_to(
        &mut self,
        socket: &mut SimDatagrams,
        bytes: &[u8],
        to: SocketAddr,
    ) -> io::Result<usize> {
        self.world().send_to(socket, bytes, to)
    }

    fn close_datagrams(&mut self, socket: SimDatagrams) {
        self.world().close_datagrams(&socket);
    }

    fn resolve(&mut self, host: &str, request: u64) -> Option<Resolution> {
        self.world().resolve(host, request)
    }

    fn forget_resolve(&mut self, request: u64) {
        self.world().names.forget(request);
    }

    fn take_resolved(&mut self, into: &mut Vec<Resolved>) {
        into.append(&mut self.world().names.answers);
    }

    fn fill_random(&mut self, into: &mut [u8]) -> io::Result<()> {
        let mut world = self.world();
        world.count(Call::Random)?;
        for byte in into {
            [*byte, ..] = world.dice.next().to_le_bytes();
        }
        Ok(())
    }

    fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.0.borrow().woken))
    }
}

impl World {
    fn note(&mut self, line: std::fmt::Arguments<'_>) {
        let micros = self.now.as_micros();
        writeln!(self.transcript, "{micros:>12} {line}").expect("a String takes all");
    }

    fn note_call(&mut self, call: &str, link: LinkId, outcome: &io::Result<usize>) {
        match outcome {
            Ok(count) => self.note(format_args!("{link} {call} {count}")),
            Err(error) => self.note(format_args!("{link} {call} {:?}", error.kind())),
        }
    }

    fn watch_for_spinning(&mut self, timeout: Option<Duration>) {
        let calls = self.calls.iter().sum();
        let is_idle = timeout == Some(Duration::ZERO) && calls == self.calls_before;
        self.idle_polls = if is_idle { self.idle_polls + 1 } else { 0 };
        self.calls_before = calls;
        assert!(self.idle_polls < IDLE_POLLS_MAX, "the loop spins");
    }

    /// Counts a call and lets it fail if it is the one that shall; or be interrupted.
    fn count(&mut self, call: Call) -> io::Result<()> {
        let count = &mut self.calls[call as usize];
        *count += 1;
        if let Some((which, n, with)) = self.fault
            && (which, n) == (call, *count)
        {
            return Err(with.into());
        }
        let interrupted = self.options.interrupted;
        let may_be = matches!(call, Call::Read | Call::Write | Call::Accept);
        if self.dice.chance(interrupted) && may_be {
            return Err(ErrorKind::Interrupted.into());
        }
        Ok(())
    }

    fn after(&mut self, delay: Duration, happening: Happening) {
        self.sequence += 1;
        let at = self.now + delay;
        self.happenings.insert((at, self.sequence), happening);
    }

    /// After the time that things take on the way.
    fn soon(&mut self, happening: Happening) {
        let delay_max = self.options.delay_max;
        let delay = self.dice.within(delay_max);
        self.after(delay, happening);
    }

    /// Lets everything happen that is due by `until`, which becomes the present.
    fn let_happen(&mut self, until: Duration) {
        while let Some(first) = self.happenings.first_entry()
            && first.key().0 <= until
        {
            let ((at, _), happening) = first.remove_entry();
            self.now = self.now.max(at);
            self.happen(happening);
        }
        self.now = self.now.max(until);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrival(link) => self.arrive(link),
            Happening::Carry(link) => self.carry(link),
            Happening::Deliver(link) => self.deliver(link),
            Happening::Script(link) => self.end_pause(link),
            Happening::ResetFromPeer(link) => self.reset_from_peer(link),
            Happening::ResetToPeer(link) => self.reset_to_peer(link),
            Happening::Edge { link, readable } => self.raise(link, readable, !readable),
            Happening::ListenerEdge(listener) => self.raise_listener(listener),
            Happening::Connected(link) => self.connected(link),
            Happening::Resolved(request) => self.names.answer(request),
            Happening::Datagram(index) => self.datagram_arrives(index),
            Happening::MailEdge { index, readable } => self.raise_mailbox(index, readable),
        }
    }

    fn raise_listener(&mut self, listener: u64) {
        if let Some(backlog) = self.listeners.get_mut(&listener) {
            backlog.pending |= backlog.armed;
        }
    }

    fn arrive(&mut self, link: LinkId) {
        let dials = self.links[link.0].dials.take();
        let mut listeners = self.listeners.iter_mut();
        match listeners.find(|(_, backlog)| Some(&backlog.at) == dials.as_ref()) {
            Some((_, backlog)) => {
                backlog.waiting.push_back(link);
                backlog.pending |= backlog.armed;
                self.run_script(link);
            }
            None => {
                // Nobody listens: our end was never a socket.
                self.links[link.0].stage = Stage::Closed;
                self.reset_to_peer(link);
            }
        }
    }

    fn accept(&mut self, listener: u64) -> io::Result<(SimSocket, Peer)> {
        self.count(Call::Accept)?;
        let (options, is_out) = (self.options.clone(), self.is_out_of_descriptors());
        let backlog = self.listeners.get_mut(&listener);
        let backlog = backlog.ok_or(ErrorKind::InvalidInput)?;
        let waits = !backlog.waiting.is_empty();
        if !waits || self.dice.chance(options.accept_blocks) {
            backlog.armed = true;
            if waits {
                self.soon(Happening::ListenerEdge(listener));
            }
            return Err(ErrorKind::WouldBlock.into());
        }
        if self.dice.chance(options.accept_exhausted) || is_out {
            // EMFILE has no kind of its own. Whoever waits goes on waiting, and no event comes.
            return Err(io::Error::from_raw_os_error(24));
        }
        let link = backlog.waiting.pop_front().ok_or(ErrorKind::WouldBlock)?;
        if self.dice.chance(options.accept_aborted) {
            self.close(link, true);
            return Err(ErrorKind::ConnectionAborted.into());
        }
        self.links[link.0].stage = Stage::Open;
        let [_, _, c, d] = u32::try_from(link.0).expect("few links").to_be_bytes();
        let peer = Peer::Ip(SocketAddr::from(([10, 0, c, d], 40_000)));
        self.note(format_args!("{link} accepted"));
        Ok((SimSocket(link), peer))
    }
}
