//! A connection before it is one: the name, its addresses, and the race between them. RFC 8305.
//!
//! Sits in the reactor, under a reserved key. [`Dial::advance`] is called whenever something may
//! have changed (an event, an answer of the resolver, a deadline) and looks at everything anew, so
//! that no order of events matters.
//!
//! ```text
//!   Begun ── literal, localhost, path ────────────────────▶ Racing ── first to connect ──▶ won
//!     └── name ──▶ Resolving ── addresses ─────────────────────┘ │
//!                     └── no addresses, deadline, cut ──▶ failed ◀─ all failed, deadline, cut
//! ```
//!
//! Invariants
//! - Every dial is won or fails, once; no later than its deadlines.
//! - All sockets of a race are registered under the key of the dial. Those that lost are closed when
//!   it is won, so that what the winner hears of them is a spurious readiness at most.
//! - At most [`ATTEMPTS_MAX`] addresses are tried, IPv6 and IPv4 in turn, each
//!   [`ATTEMPT_DELAY`] after the one before, or at once when that has failed.
//! - Pure but for `Net`.
//!
//! Not here: who looks names up (`transport/`), what is said on the connection (`outbound.rs`).

use super::inbox::{Cause, ConnectError};
use super::stream::Protocol;
use crate::conn::Deadline;
use crate::limits::Limits;
#[cfg(feature = "tls")]
use crate::transport::tls::ClientTls;
use crate::transport::{Endpoint, Net, Peer, Resolution};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an attempt is alone before the next one joins it. RFC 8305 §5.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Longer names have no address. RFC 1035 §2.3.4; a dot for the root may follow.
const NAME_BYTES_MAX: usize = 254;

/// Addresses of a name that are tried.
const ATTEMPTS_MAX: usize = 8;

/// Where to connect to, as the application names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// TCP.
    Tcp {
        /// Name or address.
        host: Host,
        /// The port.
        port: u16,
    },
    /// A stream socket in the file system.
    Unix(PathBuf),
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// To be resolved. `localhost` is this machine whatever the resolver thinks (RFC 6761 §6.3).
    Name(String),
    /// As it is.
    Ip(IpAddr),
}

impl Destination {
    /// The host of a URI, a literal address or a name, and a port. IPv6 may stand in brackets.
    pub fn tcp(host: &str, port: u16) -> Self {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = match bare.unwrap_or(host).parse() {
            Ok(address) => Host::Ip(address),
            Err(_) => Host::Name(host.to_owned()),
        };
        Self::Tcp { host, port }
    }

    /// Whether there can be such a place: a resolver is asked for no name that holds a byte which no
    /// name can hold, and the system for no path that it would cut short.
    pub(super) fn is_possible(&self) -> bool {
        match self {
            Self::Tcp {
                host: Host::Name(name),
                ..
            } => is_name(name),
            Self::Tcp { .. } => true,
            Self::Unix(path) => !path.as_os_str().as_encoded_bytes().contains(&0),
        }
    }
}

/// A name of RFC 1123 §2.1, with underscores; or an address with a zone, which the system reads.
/// RFC 4007 §11.
fn is_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:%".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(good)
}

/// TLS on a connection that we open.
#[cfg(feature = "tls")]
#[derive(Clone, Debug)]
pub struct DialTls {
    /// Whom to believe, and who we are.
    pub client: Arc<ClientTls>,
    /// The host of the URI: the name that the server must prove to be its own, unless the client
    /// has another.
    pub host: String,
}

/// How a connection is to be made, and what it is like.
#[derive(Clone, Debug)]
pub struct DialConfig {
    /// The bounds of the connection, where they differ from the reactor's.
    pub limits: Option<Rc<Limits>>,
    /// What is spoken. Default HTTP.
    pub protocol: Protocol,
    /// Time for the name. Default 10 s. Then `Deadline::Resolve`.
    pub resolve_timeout: Duration,
    /// Time for all addresses together, once they are known. Default 10 s. Then
    /// `Deadline::Connect`.
    pub connect_timeout: Duration,
    /// Time for all of it together: name, addresses and TLS. Default `None`, which is the sum of its
    /// parts. Then the deadline of the part that was under way.
    pub total_timeout: Option<Duration>,
    /// Speak TLS. Default `None`. `What::Connected` comes when it is agreed on, which
    /// `Limits::tls_handshake_timeout` bounds.
    #[cfg(feature = "tls")]
    pub tls: Option<DialTls>,
}

impl Default for DialConfig {
    fn default() -> Self {
        Self {
            limits: None,
            protocol: Protocol::Http,
            resolve_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            total_timeout: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

/// A connection that is being made.
#[derive(Debug)]
pub(super) struct Dial<S> {
    pub(super) limits: Rc<Limits>,
    pub(super) protocol: Protocol,
    stage: Stage<S>,
    connect_timeout: Duration,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<DialTls>,
    /// Only the addresses are asked for.
    looks_up: bool,
    /// Those, once they are known.
    addresses: Option<Arc<[SocketAddr]>>,
    deadline: Option<Instant>,
    /// No part of it may last longer.
    pub(super) total_deadline: Option<Instant>,
    /// Why it is to be given up.
    cut: Option<Cause>,
    /// What events have said of some socket of it: true of the winner, perhaps.
    pub(super) readable: bool,
    /// Likewise.
    pub(super) hung_up: bool,
}

#[derive(Debug)]
enum Stage<S> {
    Begun(Destination),
    Resolving { port: u16 },
    Racing(Race<S>),
}

/// Attempts at the addresses of one destination.
#[derive(Debug)]
struct Race<S> {
    /// Not tried yet.
    candidates: VecDeque<Endpoint>,
    attempts: Vec<(Endpoint, S)>,
    /// When the next candidate has its turn.
    next_at: Instant,
    /// How the last one that failed did.
    failure: Option<Cause>,
}

/// What came of looking at a dial.
#[derive(Debug)]
pub(super) enum Progress<S> {
    /// Nothing yet; it is to be looked at again then.
    Waits(Option<Instant>),
    /// It is won.
    Connected { socket: S, peer: Peer },
    /// No more was asked for.
    Resolved(Arc<[SocketAddr]>),
    /// It is over, and nothing of it is left.
    Failed(Cause),
}

impl<S> Dial<S> {
    pub(super) fn new(
        to: &Destination,
        config: &DialConfig,
        limits: Rc<Limits>,
        now: Instant,
    ) -> Self {
        let after = |timeout| now.checked_add(timeout);
        let total_deadline = config.total_timeout.and_then(after);
        Self {
            limits,
            protocol: config.protocol,
            stage: Stage::Begun(to.clone()),
            connect_timeout: config.connect_timeout,
            #[cfg(feature = "tls")]
            tls: config.tls.clone(),
            looks_up: false,
            addresses: None,
            deadline: earlier(after(config.resolve_timeout), total_deadline),
            total_deadline,
            cut: None,
            readable: false,
            hung_up: false,
        }
    }

    /// One that ends when the addresses of `name` are known.
    pub(super) fn lookup(
        name: &str,
        config: &DialConfig,
        limits: Rc<Limits>,
        now: Instant,
    ) -> Self {
        let mut dial = Self::new(&Destination::tcp(name, 0), config, limits, now);
        dial.looks_up = true;
        dial
    }

    /// Gives it up when it is looked at next. The first cause counts.
    pub(super) fn cut(&mut self, cause: Cause) {
        self.cut.get_or_insert(cause);
    }

    /// The resolver has answered.
    pub(super) fn resolved(&mut self, outcome: Resolution, now: Instant) {
        let Stage::Resolving { port } = self.stage else {
            return;
        };
        match outcome {
            Ok(addresses) if self.looks_up => self.addresses = Some(addresses),
            Ok(addresses) => self.race(interleave(&addresses, port), now),
            Err(error) => self.cut(Cause::Resolve(Box::new(error))),
        }
    }

    /// Does what can be done now. `token` is the key's, for sockets and for the resolver.
    pub(super) fn advance<N: Net<Socket = S>>(
        &mut self,
        net: &mut N,
        token: u64,
        now: Instant,
    ) -> Progress<S> {
        if self.cut.is_none()
            && let Stage::Begun(to) = &self.stage
        {
            let to = to.clone();
            self.begin(to, net, token, now);
        }
        if let Some(cause) = self.cut.take() {
            return self.fail(cause, net, token);
        }
        if let Some(addresses) = self.addresses.take() {
            return Progress::Resolved(addresses);
        }
        let is_late = self.deadline.is_some_and(|deadline| deadline <= now);
        match &mut self.stage {
            Stage::Racing(race) => {
                if let Some((endpoint, socket)) = race.winner(net, now) {
                    race.close(net);
                    let peer = match endpoint {
                        Endpoint::Ip(address) => Peer::Ip(address),
                        Endpoint::Unix(_) => Peer::Unix,
                    };
                    return Progress::Connected { socket, peer };
                }
                if is_late {
                    return self.fail(Cause::TimedOut(Deadline::Connect), net, token);
                }
                race.start_due(net, token, now);
                if race.attempts.is_empty() {
                    let failure = race.failure.take();
                    // Without candidates there is no race; then the name had no address.
                    return Progress::Failed(failure.unwrap_or(Cause::PeerGone));
                }
                let next = (!race.candidates.is_empty()).then_some(race.next_at);
                Progress::Waits(next.into_iter().chain(self.deadline).min())
            }
            Stage::Begun(_) | Stage::Resolving { .. } if is_late => {
                self.fail(Cause::TimedOut(Deadline::Resolve), net, token)
            }
            Stage::Begun(_) | Stage::Resolving { .. } => Progress::Waits(self.deadline),
        }
    }

    fn begin<N: Net<Socket = S>>(
        &mut self,
        to: Destination,
        net: &mut N,
        token: u64,
        now: Instant,
    ) {
        let (name, port) = match to {
            Destination::Unix(path) => return self.race(vec![Endpoint::Unix(path)], now),
            Destination::Tcp {
                host: Host::Ip(address),
                port,
            } => {
                return self.race(vec![Endpoint::Ip((address, port).into())], now);
            }
            Destination::Tcp {
                host: Host::Name(name),
                port,
            } => (name, port),
        };
        self.stage = Stage::Resolving { port };
        if is_localhost(&name) {
            let both: [IpAddr; 2] = [Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
            let both = both.map(|address| Endpoint::Ip((address, port).into()));
            self.race(both.to_vec(), now);
        } else if let Some(known) = net.resolve(&name, token) {
            self.resolved(known, now);
        }
    }

    fn race(&mut self, candidates: Vec<Endpoint>, now: Instant) {
        if self.looks_up {
            let address = |at| match at {
                Endpoint::Ip(address) => Some(address),
                Endpoint::Unix(_) => None,
            };
            self.addresses = Some(candidates.into_iter().filter_map(address).collect());
            return;
        }
        let connect_deadline = now.checked_add(self.connect_timeout);
        self.deadline = earlier(connect_deadline, self.total_deadline);
        self.stage = Stage::Racing(Race {
            candidates: candidates.into(),
            attempts: Vec::new(),
            next_at: now,
            failure: None,
        });
    }

    fn fail<N: Net<Socket = S>>(&mut self, cause: Cause, net: &mut N, token: u64) -> Progress<S> {
        match &mut self.stage {
            Stage::Begun(_) => {}
            Stage::Resolving { .. } => net.forget_resolve(token),
            Stage::Racing(race) => race.close(net),
        }
        Progress::Failed(cause)
    }
}

impl<S> Race<S> {
    /// Takes out the first attempt that has connected. Those that have failed are closed, and make
    /// room for the next candidate at once.
    fn winner<N: Net<Socket = S>>(&mut self, net: &mut N, now: Instant) -> Option<(Endpoint, S)> {
        let mut index = 0;
        while let Some((_, socket)) = self.attempts.get(index) {
            match net.connect_outcome(socket) {
                Ok(()) => return Some(self.attempts.remove(index)),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
                {
                    index += 1;
                }
                Err(error) => {
                    let (to, socket) = self.attempts.remove(index);
                    net.close(socket, true);
                    self.failure = Some(Cause::Connect(Box::new(ConnectError { to, error })));
                    self.next_at = self.next_at.min(now);
                }
            }
        }
        None
    }

    /// Begins the attempts whose turn it is.
    fn start_due<N: Net<Socket = S>>(&mut self, net: &mut N, token: u64, now: Instant) {
        while (self.next_at <= now || self.attempts.is_empty())
            && let Some(to) = self.candidates.pop_front()
        {
            match net.connect(&to, token) {
                Ok(socket) => {
                    self.attempts.push((to, socket));
                    self.next_at = now.checked_add(ATTEMPT_DELAY).unwrap_or(now);
                }
                Err(error) => {
                    self.failure = Some(Cause::Connect(Box::new(ConnectError { to, error })))
                }
            }
        }
    }

    fn close<N: Net<Socket = S>>(&mut self, net: &mut N) {
        for (_, socket) in self.attempts.drain(..) {
            net.close(socket, true);
        }
    }
}

/// The one that comes first, where there are any.
pub(super) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

/// RFC 6761 §6.3, as far as names are asked for.
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let suffix = name.len().checked_sub(".localhost".len());
    name.eq_ignore_ascii_case("localhost")
        || suffix
            .and_then(|at| name.get(at..))
            .is_some_and(|end| end.eq_ignore_ascii_case(".localhost"))
}

/// The addresses in the order in which they are tried: families in turn, IPv6 first, each in the
/// resolver's order. RFC 8305 §4.
fn interleave(addresses: &[SocketAddr], port: u16) -> Vec<Endpoint> {
    let of = |wants_v6: bool| addresses.iter().filter(move |it| it.is_ipv6() == wants_v6);
    let (mut six, mut four) = (of(true), of(false));
    let mut order: Vec<Endpoint> = Vec::new();
    let mut turn_is_six = true;
    while order.len() < ATTEMPTS_MAX {
        let next = if turn_is_six {
            six.next().or_else(|| four.next())
        } else {
            four.next().or_else(|| six.next())
        };
        turn_is_six = !turn_is_six;
        let Some(address) = next else {
            break;
        };
        let mut address = *address;
        address.set_port(port);
        let endpoint = Endpoint::Ip(address);
        if !order.contains(&endpoint) {
            order.push(endpoint);
        }
    }
    order
}
