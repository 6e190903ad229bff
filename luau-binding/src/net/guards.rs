//! Guards: what is refused before a script is entered, and whose address a request really has.
//!
//! Sits in the native module, in front of `bridge.rs`, which asks it about each request, and of
//! `socket.rs`, which asks it about each message. All rates are token buckets: what is not used is
//! saved up for two seconds.
//!
//! ```text
//!   of a socket, seconds in debt:   0 ─── fine      0 to 1 ─── warned of, once      1 to 4 ─── dropped      above ─── 1008
//! ```
//!
//! Invariants
//! - What is not asked for costs nothing.
//! - Tables are bounded, and those of addresses hold for all workers (`addresses.rs` of core).
//! - A word about the client counts only from a peer that is trusted, and of several the last one
//!   that no trusted peer has added.
//!
//! Not here: bounds on connections, bytes and times (`limits`, in core).

use super::request::Origin;
use super::response;
use super::server::ServerState;
use super::socket::SocketState;
use crate::bridge;
use crate::crew::{Bounds, Tables};
use crate::runtime::Worker;
use crate::value::{Options, describe};
use crate::vm::{self, Kind, Raise, Stack};
use core::net::{IpAddr, SocketAddr};
use hukilau_core::http1::Request;
use hukilau_core::proxy_header::{AddressBlock, ProxyHeaders};
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::reactor::{AddressGuards, ListenerKey};
use hukilau_core::transport::{Endpoint, Peer};
use hukilau_core::ws::close_code;
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

/// Seconds for which unused rate is saved up.
const SAVED_SECONDS: f64 = 2.0;

/// A token bucket; its level may go below zero.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    level: f64,
    at: f64,
}

impl Bucket {
    fn full(rate: f64, now: f64) -> Self {
        Self {
            level: most(rate),
            at: now,
        }
    }

    /// Refills it up to `now`.
    fn refill(&mut self, rate: f64, now: f64) {
        let earned = (now - self.at).max(0.0) * rate;
        self.level = (self.level + earned).min(most(rate));
        self.at = now;
    }
}

/// What a bucket holds.
fn most(rate: f64) -> f64 {
    (rate * SAVED_SECONDS).max(1.0)
}

/// The guards of one server.
#[derive(Debug, Default)]
pub(crate) struct Guards {
    /// What an address may do.
    pub(super) bounds: Bounds,
    /// What addresses have done, once it listens, if that is bounded.
    tables: OnceCell<Arc<Tables>>,
    trusted: Vec<AddressBlock>,
    /// Whose connections begin with a header of the PROXY protocol.
    pub(super) proxy_headers: ProxyHeaders,
    /// Addresses that upgrades have come with, by slot: each at most once for a connection.
    forwarded: RefCell<HashMap<u32, (ConnKey, Peer)>>,
}

impl Guards {
    /// Reads what `options` of `net.serve` at `endpoint` say, which speaks TLS or not.
    pub(super) fn read(
        stack: &mut Stack<'_>,
        options: Options<'_>,
        endpoint: &Endpoint,
        has_tls: bool,
    ) -> Result<Self, Raise> {
        let mut guards = Self::default();
        if let Some(index) = options.table(stack, c"limits")? {
            let given = Options {
                index,
                owner: "net.serve: limits",
            };
            let handshakes = given.whole(stack, c"handshakesPerSecondPerIp", (1, 1 << 30))?;
            guards.bounds = Bounds {
                connections: given.whole(stack, c"connectionsPerIp", (1, 1 << 24))?,
                requests: given.whole(stack, c"requestsPerSecondPerIp", (1, 1 << 30))?,
                upgrades: handshakes,
                tls_handshakes: handshakes.filter(|_| has_tls),
            };
            stack.pop(1);
        }
        (guards.trusted, guards.proxy_headers) = read_proxies(stack, options, endpoint)?;
        Ok(guards)
    }

    /// The server listens by `listener`: from now on it knows what its address does at all workers.
    pub(super) fn begin(&self, worker: &Worker, listener: ListenerKey) {
        if !self.bounds.is_any() {
            return;
        }
        let mut reactor = worker.reactor.borrow_mut();
        let Some(at) = reactor.local_endpoint(listener) else {
            return;
        };
        let tables = worker.peers.tables(&at, self.bounds, reactor.now());
        let guards = AddressGuards {
            connections: Arc::clone(&tables.connections),
            tls_handshakes: tables.tls_handshakes.clone(),
            trusted: self.trusted.clone(),
            epoch: tables.epoch,
        };
        reactor.guard_addresses(listener, guards);
        // It begins once.
        let _ = self.tables.set(tables);
    }

    fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted.iter().any(|block| block.contains(ip))
    }

    /// Whether what the peer says of others counts.
    fn trusts_peer(&self, worker: &Worker, origin: &Origin) -> bool {
        let is_proxy = match origin.peer {
            Some(Peer::Ip(peer)) => self.trusts(peer.ip()),
            // A socket in the file system is as near as a proxy can be.
            _ => true,
        };
        // What it relays for a stranger is the stranger's word.
        is_proxy && !worker.reactor.borrow().is_unnamed(origin.conn)
    }

    /// What trusted proxies say of the client that `request` comes from.
    fn told(&self, request: &Request<'_>) -> Told {
        let (mut addresses, mut schemes) = (Vec::new(), Vec::new());
        for (name, value) in request.fields() {
            let values = || value.split(|byte| *byte == b',');
            if name.eq_ignore_ascii_case(b"x-forwarded-for") {
                addresses.extend(values().map(address));
            } else if name.eq_ignore_ascii_case(b"x-forwarded-proto") {
                schemes.extend(values().map(is_secure));
            }
        }
        let (has_addresses, has_schemes) = (!addresses.is_empty(), !schemes.is_empty());
        for (name, value) in request.fields() {
            if name.eq_ignore_ascii_case(b"forwarded") {
                let elements = || value.split(|byte| *byte == b',');
                if !has_addresses {
                    addresses.extend(elements().map(|it| parameter(it, b"for").and_then(address)));
                }
                if !has_schemes {
                    schemes
                        .extend(elements().map(|it| parameter(it, b"proto").and_then(is_secure)));
                }
            }
        }
        // From the last on: what stands before an address that is not trusted may be invented.
        let (mut client, mut hops) = (None, 0);
        for (passed, ip) in addresses.into_iter().rev().enumerate() {
            (client, hops) = (ip, passed);
            if !ip.is_some_and(|ip| self.trusts(ip)) {
                break;
            }
        }
        // Whoever wrote that address wrote its scheme, too, or else the first proxy wrote the only one.
        let at = schemes.len().saturating_sub(hops + 1);
        let is_secure = schemes.get(at).copied().flatten();
        Told { client, is_secure }
    }

    /// The address that the upgrade of `conn` came with, once.
    pub(super) fn take_forwarded(&self, conn: ConnKey) -> Option<Peer> {
        let mut forwarded = self.forwarded.borrow_mut();
        let (of, peer) = forwarded.remove(&conn.index())?;
        (of == conn).then_some(peer)
    }
}

/// Reads `trustProxy` and `proxyProtocol` of who listens at `endpoint`.
pub(in crate::net) fn read_proxies(
    stack: &mut Stack<'_>,
    options: Options<'_>,
    endpoint: &Endpoint,
) -> Result<(Vec<AddressBlock>, ProxyHeaders), Raise> {
    let mut trusted = Vec::new();
    if let Some(index) = options.table(stack, c"trustProxy")? {
        let must =
            "option 'trustProxy' must be a list of addresses or blocks such as \"10.0.0.0/8\"";
        let mut cursor = 0;
        while let Some(next) = stack.next_entry(index, cursor) {
            cursor = next;
            let (key, value) = (stack.len() - 1, stack.len());
            if stack.kind(key) != Kind::Number {
                let found = describe(stack, key);
                return Err(options.error(format!("{must}; one of its keys is {found}")));
            }
            let text = stack.string(value).map(String::from_utf8_lossy);
            let Some(block) = text.as_deref().and_then(AddressBlock::parse) else {
                let found = describe(stack, value);
                return Err(options.error(format!("{must}, not of {found}")));
            };
            stack.pop(2);
            trusted.push(block);
        }
        stack.pop(1);
    }
    if !options.flag(stack, c"proxyProtocol")?.unwrap_or(false) {
        return Ok((trusted, ProxyHeaders::Never));
    }
    // A socket in the file system is reached by whom its permissions let.
    if trusted.is_empty() && matches!(endpoint, Endpoint::Ip(_)) {
        return Err(
            options.error("option 'proxyProtocol' needs the proxies' addresses in 'trustProxy'")
        );
    }
    let headers = ProxyHeaders::From(trusted.clone());
    Ok((trusted, headers))
}

/// An address as proxies write it: with a port, in brackets, in quotes.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim().trim_matches('"');
    let bare = text.strip_prefix('[').and_then(|text| text.split_once(']'));
    let ip = bare.map_or(text, |(ip, _)| ip).parse::<IpAddr>();
    let ip = ip.or_else(|_| text.parse().map(|address: SocketAddr| address.ip()));
    ip.ok().map(|ip| ip.to_canonical())
}

/// A parameter of one element of `Forwarded`. RFC 7239 §4.
fn parameter<'e>(element: &'e [u8], name: &[u8]) -> Option<&'e [u8]> {
    let mut pairs = element.split(|byte| *byte == b';');
    pairs.find_map(|pair| {
        let (its, value) = pair.split_at(pair.iter().position(|byte| *byte == b'=')?);
        let is_it = its.trim_ascii().eq_ignore_ascii_case(name);
        is_it.then_some(&value[1..])
    })
}

/// Whether a scheme, as proxies write it, is one of TLS; `None` if it is none of HTTP.
fn is_secure(text: &[u8]) -> Option<bool> {
    let bare = text.trim_ascii();
    let bare = bare.strip_prefix(b"\"").unwrap_or(bare);
    let bare = bare.strip_suffix(b"\"").unwrap_or(bare);
    let is = |scheme: &[u8]| bare.eq_ignore_ascii_case(scheme);
    // Some name the scheme of a WebSocket.
    match () {
        () if is(b"https") || is(b"wss") => Some(true),
        () if is(b"http") || is(b"ws") => Some(false),
        () => None,
    }
}

/// What proxies say of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    /// Its address.
    client: Option<IpAddr>,
    /// Whether it speaks TLS.
    is_secure: Option<bool>,
}

/// Whether `request` may go on to the script of `server`; if not, it has been answered. Gives
/// `origin` the client's address and scheme, where trusted proxies tell them.
pub(crate) fn admit(
    worker: &Worker,
    server: &ServerState,
    origin: &mut Origin,
    request: &Request<'_>,
) -> bool {
    let guards = &server.guards;
    let upgrades = request.head().upgrades_to_websocket;
    if !guards.trusted.is_empty() && guards.trusts_peer(worker, origin) {
        let told = guards.told(request);
        origin.is_secure = told.is_secure.unwrap_or(origin.is_secure);
        if let Some(ip) = told.client {
            let peer = Peer::Ip(SocketAddr::new(ip, 0));
            origin.peer = Some(peer);
            if upgrades {
                let mut forwarded = guards.forwarded.borrow_mut();
                forwarded.insert(origin.conn.index(), (origin.conn, peer));
            }
        }
    }
    let Some(Peer::Ip(peer)) = origin.peer else {
        return true;
    };
    let Some(tables) = guards.tables.get() else {
        return true;
    };
    let upgrades = tables.upgrades.as_ref().filter(|_| upgrades);
    let mut rates = tables.requests.iter().chain(upgrades);
    let now = worker.reactor.borrow().now();
    let since = now.saturating_duration_since(tables.epoch);
    let admits = rates.all(|rate| rate.admits(peer.ip(), since));
    if !admits {
        let fields: &[(&[u8], &[u8])] = &[(b"retry-after", b"1")];
        response::respond_plain(worker, origin.conn, origin.exchange, 429, fields);
    }
    admits
}

/// What a socket may send.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    /// Messages a second.
    messages: Option<f64>,
    /// Bytes of messages a second.
    bytes: Option<f64>,
}

impl Rates {
    /// Reads what the option `websocket` says.
    pub(super) fn read(stack: &mut Stack<'_>, given: Options<'_>) -> Result<Self, Raise> {
        let messages = given.whole(stack, c"messagesPerSecond", (1, 1 << 30))?;
        let bytes = given.whole(stack, c"bytesPerSecond", (1, 1 << 30))?;
        Ok(Self {
            messages: messages.map(f64::from),
            bytes: bytes.map(f64::from),
        })
    }
}

/// How far a socket has come with its rates.
#[derive(Debug)]
pub(super) struct Meter {
    messages: Option<(f64, Bucket)>,
    bytes: Option<(f64, Bucket)>,
    is_warned: bool,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Fine,
    Warn,
    Drop,
    Close,
}

impl Meter {
    /// None where nothing is bounded.
    pub(super) fn new(rates: Rates) -> Option<RefCell<Self>> {
        let now = vm::clock();
        let full = |rate: f64| (rate, Bucket::full(rate, now));
        let is_bounded = rates.messages.or(rates.bytes).is_some();
        is_bounded.then(|| {
            RefCell::new(Self {
                messages: rates.messages.map(full),
                bytes: rates.bytes.map(full),
                is_warned: false,
            })
        })
    }

    fn judge(&mut self, len: usize, now: f64) -> Verdict {
        // Messages are below 2^30 bytes.
        let len = f64::from(u32::try_from(len).unwrap_or(u32::MAX));
        let costs = [(&mut self.messages, 1.0), (&mut self.bytes, len)];
        let mut worst = Verdict::Fine;
        let mut is_rested = true;
        for (rate, cost) in costs {
            let Some((rate, bucket)) = rate else { continue };
            bucket.refill(*rate, now);
            is_rested &= bucket.level >= most(*rate) / 2.0;
            bucket.level -= cost;
            let debt = -bucket.level / *rate;
            worst = worst.max(match debt {
                debt if debt <= 0.0 => Verdict::Fine,
                debt if debt <= 1.0 => Verdict::Warn,
                debt if debt <= 4.0 => Verdict::Drop,
                _ => Verdict::Close,
            });
        }
        self.is_warned &= !is_rested;
        worst
    }
}

/// Whether a message of `len` bytes may go on to the script.
pub(super) fn admit_message(worker: &Worker, socket: &SocketState, len: usize) -> bool {
    let Some(meter) = socket.meter() else {
        return true;
    };
    let (verdict, warns) = {
        let mut meter = meter.borrow_mut();
        let verdict = meter.judge(len, vm::clock());
        let warns = verdict != Verdict::Fine && !meter.is_warned;
        meter.is_warned |= warns;
        (verdict, warns)
    };
    if warns {
        bridge::report_socket(worker, socket, "the peer sends more than its rate allows");
    }
    if verdict == Verdict::Close {
        let mut reactor = worker.reactor.borrow_mut();
        // It may be closing already.
        let _ = reactor.close(
            socket.conn,
            close_code::POLICY_VIOLATION,
            b"too many messages",
        );
    }
    if verdict >= Verdict::Drop {
        let refused = &worker.peers.own().messages_refused;
        refused.set(refused.value() + 1);
    }
    verdict < Verdict::Drop
}

#[cfg(test)]
mod tests {
    use super::{Bucket, Meter, Verdict, address, is_secure, parameter};

    #[test]
    fn rfc7239_6_addresses_come_with_ports_brackets_and_quotes() {
        for (text, ip) in [
            ("1.2.3.4", Some("1.2.3.4")),
            (" 1.2.3.4:99 ", Some("1.2.3.4")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("\"[2001:db8::1]:80\"", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("unknown", None),
            ("_hidden", None),
            ("", None),
        ] {
            let ip = ip.map(|ip| ip.parse().unwrap());
            assert_eq!(address(text.as_bytes()), ip, "{text}");
        }
        let element = b"proto=http; For=\"1.2.3.4:7\";by=8.8.8.8";
        let told = parameter(element, b"for").and_then(address);
        assert_eq!(told, "1.2.3.4".parse().ok());
        assert_eq!(parameter(b"by=8.8.8.8;proto=http", b"for"), None);
    }

    #[test]
    fn rfc7239_5_4_a_scheme_is_a_word_or_quoted_in_any_case() {
        for (text, secure) in [
            ("https", Some(true)),
            (" HTTP ", Some(false)),
            ("\"https\"", Some(true)),
            ("wss", Some(true)),
            ("ws", Some(false)),
            ("httpss", None),
            ("", None),
            ("gopher", None),
        ] {
            assert_eq!(is_secure(text.as_bytes()), secure, "{text}");
        }
        let element = b"for=1.2.3.4;Proto=https";
        assert_eq!(parameter(element, b"proto").and_then(is_secure), Some(true));
    }

    #[test]
    fn a_socket_is_warned_then_loses_messages_then_its_connection() {
        let full = |rate: f64| (rate, Bucket::full(rate, 0.0));
        let mut meter = Meter {
            messages: Some(full(10.0)),
            bytes: Some(full(1e9)),
            is_warned: false,
        };
        let mut counts = [0; 4];
        while counts[3] == 0 {
            counts[meter.judge(5, 0.0) as usize] += 1;
        }
        assert_eq!(counts, [20, 10, 30, 1]);
        // Debt is paid off in time.
        assert_eq!(meter.judge(5, 4.0), Verdict::Warn);
        assert_eq!(meter.judge(5, 10.0), Verdict::Fine);
    }
}
