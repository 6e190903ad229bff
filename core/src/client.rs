//! The client's face: requests to anywhere, over connections that are kept and used again.
//! RFC 9110, RFC 9112 §9.
//!
//! A leaf over the reactor, which it does not own and never drives: whoever runs the loop lends it
//! the reactor, hands it each completion, and takes its events.
//!
//! ```text
//!   reactor.turn(&mut inbox, client.wake_at())?;
//!   for completion in inbox.completions() {
//!       if !client.offer(&mut reactor, &completion) { /* somebody else's */ }
//!       while let Some(event) = client.next_event() { /* whose key is event.key() */ }
//!   }
//!   client.handle_time(&mut reactor);
//!   while let Some(event) = client.next_event() { … }
//! ```
//!
//! - `client/spec.rs`      requests, responses, events
//! - `client/error.rs`     what can go wrong, in words
//! - `client/pool.rs`      who gets which connection
//! - `client/flow.rs`      a request on its way to a connection, and away from it
//! - `client/receive.rs`   completions: connections that are made, responses that come
//! - `client/redirect.rs`  where a response sends us
//! - `client/proxy.rs`     who stands in between
//! - `client/decode.rs`    content codings
//!
//! Invariants
//! - No callback, no thread, no clock: time is the reactor's.
//! - A connection is used again only if both messages were complete and both ends agreed.
//! - A request is repeated once at most, and only if it is idempotent, its body is at hand, and a
//!   connection that had been kept was closed before a byte of the response (RFC 9110 §9.2.2).
//! - A cancelled or failed request leaves no connection behind that is in the middle of it.
//!
//! Not here: one connection's exchanges (`conn/client.rs`); dialling and names (`reactor/`).

pub mod decode;
mod error;
mod flow;
mod pool;
mod proxy;
mod receive;
mod redirect;
mod spec;

pub use error::{ClientError, Phase};
pub use pool::PoolLimits;
pub use proxy::{Proxies, Proxy, ProxyError, basic};
pub use redirect::{RedirectError, RedirectMethod};
pub use spec::{
    ClientEvent, ClientResponse, ProxyChoice, RequestBody, RequestKey, RequestSpec, Timeouts,
    WebSocketSpec,
};

use crate::conn::{Exchange, Misuse, Pressure};
use crate::limits::Limits;
use crate::reactor::conns::ConnKey;
use crate::reactor::{Destination, Reactor};
use crate::transport::Net;
#[cfg(feature = "tls")]
use crate::transport::tls::ClientTls;
use decode::Decoder;
use pool::Pool;
use redirect::Step;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
#[cfg(feature = "tls")]
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The client times responses itself, request by request; a connection's own bounds stand behind.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// How a client is to behave.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// How many connections.
    pub pool: PoolLimits,
    /// How long one may rest before it is closed. Default 30 s: less than most servers give.
    pub idle_timeout: Duration,
    /// The bounds of its connections but for time.
    pub limits: Limits,
    /// Through whom. Default: nobody.
    pub proxies: Proxies,
    /// The value of `User-Agent` where a request has none; empty for none at all.
    pub user_agent: Vec<u8>,
    /// Whom to trust, and who we are. Default: as `ClientTls` is by default, made when it is needed
    /// first, as that reads the system's roots.
    #[cfg(feature = "tls")]
    pub tls: Option<Arc<ClientTls>>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            pool: PoolLimits::default(),
            idle_timeout: Duration::from_secs(30),
            limits: Limits::default(),
            proxies: Proxies::none(),
            user_agent: concat!("hukilau/", env!("CARGO_PKG_VERSION")).into(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

/// What connections are shared by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Route {
    /// Whom to dial.
    to: Destination,
    tunnel: Option<Tunnel>,
    /// TLS with the server, whose host is named here.
    #[cfg(feature = "tls")]
    tls: Option<(Box<str>, SharedTls)>,
}

/// A TLS configuration as part of a route: the same one, not one that says the same.
#[cfg(feature = "tls")]
#[derive(Clone, Debug)]
struct SharedTls(Arc<ClientTls>);

#[cfg(feature = "tls")]
impl PartialEq for SharedTls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[cfg(feature = "tls")]
impl Eq for SharedTls {}

#[cfg(feature = "tls")]
impl core::hash::Hash for SharedTls {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// What a proxy is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Tunnel {
    /// Host and port.
    authority: Box<str>,
    /// The proof of who asks.
    authorization: Option<Box<[u8]>>,
}

/// A connection of ours.
#[derive(Debug)]
struct Link {
    route: Rc<Route>,
    stage: LinkStage,
    /// Whose it is at present.
    request: Option<RequestKey>,
    /// Requests asked on it.
    uses: u32,
    /// It ends behind the present exchange.
    is_last: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkStage {
    Dialling,
    Tunnelling,
    Ready,
    /// Its end is awaited; nobody wants it.
    Leaving,
}

/// A request that is not done.
#[derive(Debug)]
struct Request {
    spec: RequestSpec,
    stage: Stage,
    conn: Option<ConnKey>,
    exchange: Option<Exchange>,
    /// It has been repeated.
    repeated: bool,
    /// Where redirects have led from.
    visited: Vec<Box<str>>,
    total_at: Option<Instant>,
    /// The one in [`Client::deadlines`].
    armed: Option<(Instant, Phase)>,
    response: Option<Box<ClientResponse>>,
    decoder: Option<Decoder>,
    /// What was collected.
    body: Vec<u8>,
    /// Bytes of the body before decoding.
    received: u64,
    /// The consumer has not asked for more.
    paused: bool,
    /// Pieces of the request's body are still to come.
    uploads: bool,
}

#[derive(Debug)]
enum Stage {
    /// In the pool's queue, or on its way to a connection.
    Opening,
    /// The response's head is awaited.
    Asked,
    /// Its body is.
    Body,
    /// The body of a redirect is let by.
    Redirected { step: Box<Step>, left: u64 },
    /// All has come, and some of it waits in the decoder for the consumer.
    Draining,
}

/// See the module.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    limits: Rc<Limits>,
    requests: HashMap<RequestKey, Request>,
    links: HashMap<ConnKey, Link>,
    pool: Pool<Rc<Route>, ConnKey, RequestKey>,
    deadlines: BTreeSet<(Instant, RequestKey)>,
    events: VecDeque<ClientEvent>,
    next_key: u64,
    /// Where content is decoded into.
    scratch: Vec<u8>,
}

impl Client {
    /// A client without connections.
    pub fn new(config: ClientConfig) -> Self {
        let limits = Limits {
            idle_timeout: config.idle_timeout,
            response_timeout: NEVER,
            body_timeout: NEVER,
            ..config.limits.clone()
        };
        Self {
            pool: Pool::new(config.pool),
            limits: Rc::new(limits),
            config,
            requests: HashMap::new(),
            links: HashMap::new(),
            deadlines: BTreeSet::new(),
            events: VecDeque::new(),
            next_key: 1,
            scratch: Vec::new(),
        }
    }

    /// Takes a request. Whatever comes of it comes as events; nothing waits here.
    ///
    /// # Errors
    /// It cannot be sent, whatever the network is like: [`ClientError::Field`],
    /// [`ClientError::Invalid`], [`ClientError::NoTls`], [`ClientError::TlsConfig`]; or
    /// [`ClientError::QueueFull`].
    pub fn request<N: Net>(
        &mut self,
        reactor: &mut Reactor<N>,
        spec: RequestSpec,
    ) -> Result<RequestKey, ClientError> {
        flow::check(&spec)?;
        let key = RequestKey(self.next_key);
        self.next_key += 1;
        let total_at = spec
            .timeouts
            .total
            .and_then(|total| reactor.net().now().checked_add(total));
        let request = Request {
            spec,
            stage: Stage::Opening,
            conn: None,
            exchange: None,
            repeated: false,
            visited: Vec::new(),
            total_at,
            armed: None,
            response: None,
            decoder: None,
            body: Vec::new(),
            received: 0,
            paused: false,
            uploads: false,
        };
        self.requests.insert(key, request);
        self.arm(key, None);
        if let Err(error) = self.start(reactor, key) {
            self.forget(key);
            return Err(error);
        }
        self.serve_queue(reactor);
        Ok(key)
    }

    /// The next thing that came of some request.
    pub fn next_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// Whether [`next_event`](Self::next_event) has one: a request that is given to a connection at
    /// once may cause some.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// When [`handle_time`](Self::handle_time) wants to be called.
    pub fn wake_at(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Fails the requests whose time is up, by the reactor's clock.
    pub fn handle_time<N: Net>(&mut self, reactor: &mut Reactor<N>) {
        let now = reactor.now();
        while let Some((at, key)) = self.deadlines.first().copied()
            && at <= now
        {
            self.deadlines.pop_first();
            self.time_out(reactor, key);
        }
        self.serve_queue(reactor);
    }

    /// Gives a request up: its connection is cut unless it is done with it, and no event comes of
    /// it any more.
    pub fn cancel<N: Net>(&mut self, reactor: &mut Reactor<N>, key: RequestKey) {
        if self.requests.contains_key(&key) {
            self.abandon(reactor, key);
            self.forget(key);
            self.serve_queue(reactor);
        }
        self.events.retain(|event| event.key() != key);
    }

    /// Asks for more of a streamed body.
    pub fn resume<N: Net>(&mut self, reactor: &mut Reactor<N>, key: RequestKey) {
        if let Some(request) = self.requests.get_mut(&key)
            && core::mem::take(&mut request.paused)
        {
            self.go_on(reactor, key);
            self.serve_queue(reactor);
        }
    }

    /// Sends a piece of a request's body, after [`ClientEvent::WantsBody`]. With
    /// [`Pressure::High`], the next should wait for another.
    ///
    /// A response may come before the body is complete; what is written then goes nowhere, and the
    /// pressure stays high.
    ///
    /// # Errors
    /// [`Misuse::LengthMismatch`] for more than was announced; [`Misuse::Gone`] for a request that
    /// is done.
    pub fn write_body<N: Net>(
        &mut self,
        reactor: &mut Reactor<N>,
        key: RequestKey,
        piece: &[u8],
    ) -> Result<Pressure, Misuse> {
        let request = self.requests.get(&key).ok_or(Misuse::Gone)?;
        let (Some(conn), Some(exchange), true) = (request.conn, request.exchange, request.uploads)
        else {
            return Ok(Pressure::High);
        };
        match reactor.write_request(conn, exchange, piece) {
            Ok(pressure) => Ok(pressure),
            Err(Misuse::LengthMismatch) => Err(Misuse::LengthMismatch),
            // The completion that tells why is on its way.
            Err(_) => Ok(Pressure::High),
        }
    }

    /// Ends a request's body.
    ///
    /// # Errors
    /// [`Misuse::LengthMismatch`] for less than was announced; [`Misuse::Gone`] for a request that
    /// is done.
    pub fn finish_body<N: Net>(
        &mut self,
        reactor: &mut Reactor<N>,
        key: RequestKey,
    ) -> Result<(), Misuse> {
        let request = self.requests.get_mut(&key).ok_or(Misuse::Gone)?;
        let (Some(conn), Some(exchange), true) = (request.conn, request.exchange, request.uploads)
        else {
            return Ok(());
        };
        request.uploads = false;
        let outcome = reactor.finish_request(conn, exchange);
        if matches!(request.stage, Stage::Asked) {
            self.await_head(reactor.net().now(), key);
        }
        match outcome {
            Err(Misuse::LengthMismatch) => Err(Misuse::LengthMismatch),
            _ => Ok(()),
        }
    }

    /// Requests that are not done.
    pub fn requests(&self) -> usize {
        self.requests.len()
    }

    /// Connections of ours: being made, in use, resting, ending.
    pub fn connections(&self) -> usize {
        self.links.len()
    }

    /// Requests that wait for a connection.
    pub fn waiting(&self) -> usize {
        self.pool.waiting()
    }

    /// Connections that rest.
    pub fn resting(&self) -> usize {
        self.pool.resting()
    }

    /// Closes the connections that rest, so that a loop may come to its end.
    pub fn close_resting<N: Net>(&mut self, reactor: &mut Reactor<N>) {
        while let Some(conn) = self.pool.take_oldest() {
            self.cut(reactor, conn);
        }
    }

    /// Has `key` timed: by `phase` for so long, or by its total alone.
    fn arm(&mut self, key: RequestKey, phase: Option<(Instant, Phase)>) {
        let Some(request) = self.requests.get_mut(&key) else {
            return;
        };
        let total = request.total_at.map(|at| (at, Phase::Total));
        let next = match (phase, total) {
            (Some(phase), Some(total)) if phase.0 <= total.0 => Some(phase),
            (phase, total) => total.or(phase),
        };
        if next == request.armed {
            return;
        }
        if let Some((at, _)) = request.armed {
            self.deadlines.remove(&(at, key));
        }
        request.armed = next;
        self.deadlines.extend(next.map(|(at, _)| (at, key)));
    }

    /// From `now` on, the server's silence before its response counts.
    fn await_head(&mut self, now: Instant, key: RequestKey) {
        let timeout = self
            .requests
            .get(&key)
            .and_then(|request| request.spec.timeouts.first_byte);
        let at = timeout.and_then(|timeout| now.checked_add(timeout));
        self.arm(key, at.map(|at| (at, Phase::FirstByte)));
    }

    /// Nothing of `key` is left.
    fn forget(&mut self, key: RequestKey) -> Option<Request> {
        let request = self.requests.remove(&key)?;
        if let Some((at, _)) = request.armed {
            self.deadlines.remove(&(at, key));
        }
        Some(request)
    }

    fn fail(&mut self, key: RequestKey, error: ClientError) {
        if self.forget(key).is_some() {
            self.events.push_back(ClientEvent::Failed { key, error });
        }
    }
}
