//! What one turn delivered: the inbox that the caller owns, and the completions it holds.
//!
//! Sits in the reactor. The reactor reads sockets straight into the inbox's area and drivers log
//! spans of it; a [`Completion`] turns the spans into slices. It borrows the inbox and not the
//! reactor, so the application answers, sends and closes while it iterates.
//!
//! Invariants
//! - Completions of one connection are in wire order; `Closed` is the last of its key.
//! - Bytes of the area are not touched between two turns.
//! - A warm inbox does not allocate.
//!
//! Not here: who fills it (`drive.rs`, `mod.rs`).

use super::ListenerKey;
use super::conns::ConnKey;
use crate::conn::{Deadline, Event, EventLog, Exchange, HandshakeError};
use crate::http1::{self, Request};
use crate::transport::{Endpoint, Peer, ResolveError, TlsError, system_text};
use crate::violation::Violation;
use crate::ws::MessageKind;
use core::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// Bytes of the receive area: what one turn reads at most. Four segments of the default length, so
/// that the fourth message of 64 KiB in a turn comes in one piece, too.
const AREA_BYTES: usize = 4 * (64 * 1024 + 256);

/// What one turn delivered. Owned by the caller, like `mio::Events`; reused turn after turn.
#[derive(Debug)]
pub struct Inbox {
    pub(super) area: Box<[u8]>,
    pub(super) used: usize,
    pub(super) log: EventLog,
    entries: Vec<Entry>,
    causes: Vec<Cause>,
    peers: Vec<Peer>,
    addresses: Vec<Arc<[SocketAddr]>>,
    accept_errors: Vec<(ListenerKey, io::Error)>,
    refusals: Vec<Refusal>,
    turned_away: Vec<Refusal>,
}

/// One completion before its spans became slices.
#[derive(Clone, Copy, Debug)]
struct Entry {
    conn: ConnKey,
    /// Where its segment begins in the area.
    base: u32,
    fact: Fact,
}

/// The driver's word, or the reactor's own.
#[derive(Clone, Copy, Debug)]
enum Fact {
    /// `listener` is whose connection it is.
    Wire {
        event: Event,
        listener: ListenerKey,
    },
    /// Index of the peer.
    Connected(u32),
    /// Likewise, and where it was accepted.
    Accepted(u32, ListenerKey),
    /// Index of the sender, and how long it is.
    Datagram(u32, u32),
    /// Index of the addresses.
    Resolved(u32),
    Open,
    Writable,
    /// Index of the refusal.
    Refused(u32),
    /// Index of the cause.
    Closed(u32),
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Inbox {
    /// An empty inbox with its area of 257 KiB.
    pub fn new() -> Self {
        Self {
            area: vec![0; AREA_BYTES].into_boxed_slice(),
            used: 0,
            log: EventLog::default(),
            entries: Vec::new(),
            causes: Vec::new(),
            peers: Vec::new(),
            addresses: Vec::new(),
            accept_errors: Vec::new(),
            refusals: Vec::new(),
            turned_away: Vec::new(),
        }
    }

    /// What the last turn delivered, in order.
    pub fn completions(&self) -> impl Iterator<Item = Completion<'_>> {
        self.entries.iter().filter_map(|entry| {
            let what = self.resolve(entry)?;
            Some(Completion {
                conn: entry.conn,
                what,
            })
        })
    }

    /// Listeners that could not take a connection in the last turn, and why. The reactor backs off
    /// and tries again by itself.
    pub fn accept_errors(&self) -> &[(ListenerKey, io::Error)] {
        &self.accept_errors
    }

    /// Connections that were turned away in the last turn: their address had as many as it may, or no
    /// descriptor was left. They have no key.
    pub fn turned_away(&self) -> &[Refusal] {
        &self.turned_away
    }

    /// Whether the last turn delivered nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.accept_errors.is_empty() && self.turned_away.is_empty()
    }

    /// How many heads, chunks and frames drivers took in the last turn: the work that it was, whatever
    /// it delivered.
    pub fn steps(&self) -> u64 {
        self.log.steps()
    }

    fn resolve(&self, entry: &Entry) -> Option<What<'_>> {
        let segment = &self.area[entry.base as usize..];
        let (event, listener) = match entry.fact {
            Fact::Wire { event, listener } => (event, listener),
            Fact::Connected(peer) => {
                let peer = *self.peers.get(peer as usize)?;
                return Some(What::Connected { peer });
            }
            Fact::Accepted(peer, listener) => {
                let peer = *self.peers.get(peer as usize)?;
                return Some(What::Accepted { listener, peer });
            }
            Fact::Datagram(from, len) => {
                let Peer::Ip(from) = *self.peers.get(from as usize)? else {
                    return None;
                };
                let bytes = segment.get(..len as usize)?;
                return Some(What::Datagram { from, bytes });
            }
            Fact::Resolved(index) => {
                let addresses = self.addresses.get(index as usize)?;
                return Some(What::Resolved { addresses });
            }
            Fact::Open => return Some(What::Open),
            Fact::Writable => return Some(What::Writable),
            Fact::Refused(index) => {
                let refusal = self.refusals.get(index as usize)?;
                return Some(What::Refused { refusal });
            }
            Fact::Closed(cause) => {
                return self
                    .causes
                    .get(cause as usize)
                    .map(|cause| What::Closed { cause });
            }
        };
        Some(match event {
            Event::Request { exchange, head, at } => {
                let request = self.log.request(head, at, segment)?;
                What::Request {
                    exchange,
                    request,
                    listener,
                }
            }
            Event::Response { exchange, head, at } => {
                let response = self.log.response(head, at, segment)?;
                What::Response { exchange, response }
            }
            Event::Body { exchange, payload } => What::Body {
                exchange,
                bytes: self.log.payload(payload, segment),
            },
            Event::End { exchange } => What::End { exchange },
            Event::Message { kind, payload } => What::Message {
                kind,
                payload: self.log.payload(payload, segment),
            },
            Event::Pong { payload } => What::Pong {
                payload: self.log.payload(payload, segment),
            },
            Event::Closing { code, reason } => What::Closing {
                code,
                reason: self.log.payload(reason, segment),
            },
            Event::Bytes { payload } => What::Bytes {
                bytes: self.log.payload(payload, segment),
            },
            Event::Finished => What::Finished,
        })
    }

    pub(super) fn clear(&mut self) {
        self.used = 0;
        self.log.clear();
        self.entries.clear();
        self.causes.clear();
        self.peers.clear();
        self.addresses.clear();
        self.accept_errors.clear();
        self.refusals.clear();
        self.turned_away.clear();
    }

    /// Turns the events logged since there were `seen` into completions; returns whether there
    /// were any.
    pub(super) fn deliver(
        &mut self,
        conn: ConnKey,
        listener: ListenerKey,
        base: usize,
        seen: usize,
    ) -> bool {
        // The area is far below 4 GiB.
        let base = u32::try_from(base).unwrap_or(u32::MAX);
        let events = &self.log.events()[seen..];
        let entries = events.iter().map(|event| Entry {
            conn,
            base,
            fact: Fact::Wire {
                event: *event,
                listener,
            },
        });
        self.entries.extend(entries);
        !events.is_empty()
    }

    pub(super) fn deliver_connected(&mut self, conn: ConnKey, peer: Peer) {
        // One for each connection at most, and those are fewer than 2^24.
        let index = u32::try_from(self.peers.len()).unwrap_or(u32::MAX);
        self.peers.push(peer);
        self.entries.push(Entry {
            conn,
            base: 0,
            fact: Fact::Connected(index),
        });
    }

    pub(super) fn deliver_accepted(&mut self, conn: ConnKey, listener: ListenerKey, peer: Peer) {
        let index = u32::try_from(self.peers.len()).unwrap_or(u32::MAX);
        self.peers.push(peer);
        self.entries.push(Entry {
            conn,
            base: 0,
            fact: Fact::Accepted(index, listener),
        });
    }

    /// Delivers the datagram of `count` bytes that lies in the area where its used part ends.
    pub(super) fn deliver_datagram(&mut self, conn: ConnKey, from: SocketAddr, count: usize) {
        let index = u32::try_from(self.peers.len()).unwrap_or(u32::MAX);
        self.peers.push(Peer::Ip(from));
        // The area is far below 4 GiB.
        let bounded = |number| u32::try_from(number).unwrap_or(u32::MAX);
        self.entries.push(Entry {
            conn,
            base: bounded(self.used),
            fact: Fact::Datagram(index, bounded(count)),
        });
        self.used += count;
    }

    pub(super) fn deliver_resolved(&mut self, conn: ConnKey, addresses: Arc<[SocketAddr]>) {
        let index = u32::try_from(self.addresses.len()).unwrap_or(u32::MAX);
        self.addresses.push(addresses);
        self.entries.push(Entry {
            conn,
            base: 0,
            fact: Fact::Resolved(index),
        });
    }

    pub(super) fn deliver_open(&mut self, conn: ConnKey) {
        self.entries.push(Entry {
            conn,
            base: 0,
            fact: Fact::Open,
        });
    }

    pub(super) fn deliver_writable(&mut self, conn: ConnKey) {
        self.entries.push(Entry {
            conn,
            base: 0,
            fact: Fact::Writable,
        });
    }

    pub(super) fn deliver_closed(&mut self, conn: ConnKey, cause: Cause) {
        // One for each connection at most, and those are fewer than 2^24.
        let index = u32::try_from(self.causes.len()).unwrap_or(u32::MAX);
        self.causes.push(cause);
        self.entries.push(Entry {
            conn,
            base: 0,
            fact: Fact::Closed(index),
        });
    }

    pub(super) fn deliver_refused(&mut self, conn: ConnKey, refusal: Refusal) {
        // One for each connection at most, and those are fewer than 2^24.
        let index = u32::try_from(self.refusals.len()).unwrap_or(u32::MAX);
        self.refusals.push(refusal);
        self.entries.push(Entry {
            conn,
            base: 0,
            fact: Fact::Refused(index),
        });
    }

    /// Takes who was turned away.
    pub(super) fn deliver_turned_away(&mut self, who: &mut Vec<Refusal>) {
        self.turned_away.append(who);
    }

    pub(super) fn deliver_accept_error(&mut self, listener: ListenerKey, error: io::Error) {
        self.accept_errors.push((listener, error));
    }
}

/// An event with its bytes, borrowed from the inbox, not from the reactor.
#[derive(Clone, Copy, Debug)]
pub struct Completion<'a> {
    /// Whose it is.
    pub conn: ConnKey,
    /// What happened.
    pub what: What<'a>,
}

/// What happened on a connection.
#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    /// A request's head arrived. `Body` and `End` follow if it [has a body](Request::has_body).
    Request {
        /// Answer it by this.
        exchange: Exchange,
        /// The head.
        request: Request<'a>,
        /// Where its connection was accepted.
        listener: ListenerKey,
    },
    /// A connection that was dialled has been made, or the TLS that was begun on a stream is agreed
    /// on: it may be used.
    Connected {
        /// The address that took it.
        peer: Peer,
    },
    /// A stream was accepted, and TLS, if its listener speaks that, is agreed on.
    Accepted {
        /// By whom.
        listener: ListenerKey,
        /// Who connected.
        peer: Peer,
    },
    /// Bytes of a stream arrived.
    Bytes {
        /// At least one.
        bytes: &'a [u8],
    },
    /// The peer of a stream sends nothing more, and may go on receiving. `Closed` follows when our
    /// side has [finished](super::Reactor::finish_stream), too.
    Finished,
    /// The addresses of a name that was asked for, in the resolver's order; the ports mean nothing.
    Resolved {
        /// At least one.
        addresses: &'a [SocketAddr],
    },
    /// A datagram arrived at a socket of ours.
    Datagram {
        /// Who sent it, or says so.
        from: SocketAddr,
        /// The datagram; it may be empty.
        bytes: &'a [u8],
    },
    /// A response's head arrived. `Body` and `End` follow if it [has a
    /// body](http1::Response::has_body).
    Response {
        /// Which request of ours it answers.
        exchange: Exchange,
        /// The head.
        response: http1::Response<'a>,
    },
    /// Part of a body, or all of it where bodies are collected.
    Body {
        /// Whose body.
        exchange: Exchange,
        /// At least one byte.
        bytes: &'a [u8],
    },
    /// A body is complete.
    End {
        /// Whose body.
        exchange: Exchange,
    },
    /// The connection now speaks WebSocket.
    Open,
    /// A WebSocket message, whole.
    Message {
        /// Text is valid UTF-8.
        kind: MessageKind,
        /// The message.
        payload: &'a [u8],
    },
    /// A pong arrived.
    Pong {
        /// At most 125 bytes.
        payload: &'a [u8],
    },
    /// The peer sent its close frame; `Closed` follows when the connection has ended.
    Closing {
        /// `close_code::NO_STATUS` if it gave none.
        code: u16,
        /// UTF-8, at most 123 bytes.
        reason: &'a [u8],
    },
    /// After `Pressure::High`: what waited is sent but for `Limits::out_bytes_low`.
    Writable,
    /// Something was refused without the application, and needs nothing of it. If it has heard of the
    /// connection, `Closed` follows; if not, nothing does.
    Refused {
        /// What, and how.
        refusal: &'a Refusal,
    },
    /// The connection has ended; its key names nothing any more.
    Closed {
        /// Why.
        cause: &'a Cause,
    },
}

/// A request, or a connection before it could send one, that was refused without the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where it was accepted.
    pub listener: ListenerKey,
    /// Whose it was, as far as that is known.
    pub peer: Option<Peer>,
    /// Which request of its connection; the application may have heard of it. `None` for a connection
    /// that was turned away.
    pub exchange: Option<Exchange>,
    /// The status that was said; `None` where the connection closes without a word.
    pub status: Option<u16>,
    /// Why, as half a sentence.
    pub rule: &'static str,
    /// Bytes of the answer's body.
    pub bytes: usize,
    /// The first line of the request, as far as it came, and at most 4 KiB of it. Empty if nothing is
    /// known of it, or the application has heard of it. Whatever bytes the peer has sent.
    pub line: Vec<u8>,
}

/// Why a connection ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Cause {
    /// Both ends were done: an answered last request, an idle client that left, a closing
    /// handshake.
    Agreed,
    /// The peer left while something was owed, or a WebSocket without a close frame.
    PeerGone,
    /// The name that was dialled has no addresses, in the resolver's words.
    Resolve(Box<ResolveError>),
    /// No address of what was dialled took the connection.
    Connect(Box<ConnectError>),
    /// The server does not agree to the WebSocket that was asked for. Its response came before.
    Handshake(HandshakeError),
    /// The peer broke a rule and was told so.
    Violation(Violation),
    /// A deadline passed.
    TimedOut(Deadline),
    /// The system gave the connection up.
    Io(io::Error),
    /// The peer is not who it should be, or does not speak TLS as it should. Boxed: most
    /// connections never have one.
    Tls(Box<TlsError>),
    /// The peer of a stream left without the word that TLS has for it: someone may have cut off the
    /// rest.
    Truncated,
    /// More than `Limits::out_bytes_max` bytes waited for a peer that does not read.
    TooSlow,
    /// The application cut it.
    Terminated,
    /// It outlasted the grace of a drain.
    Shutdown,
}

/// How the last attempt to connect failed.
#[derive(Debug)]
pub struct ConnectError {
    /// What was tried.
    pub to: Endpoint,
    /// What the system said.
    pub error: io::Error,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no connection to {}: {}",
            self.to,
            system_text(&self.error)
        )
    }
}

impl core::error::Error for ConnectError {}

/// A cause is part of every connection.
const _: () = assert!(size_of::<Option<Cause>>() <= 16);

impl Cause {
    /// A short, stable name, for metrics and logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Agreed => "agreed",
            Self::PeerGone => "peer_gone",
            Self::Resolve(_) => "resolve",
            Self::Connect(_) => "connect",
            Self::Handshake(_) => "handshake",
            Self::Violation(_) => "violation",
            Self::TimedOut(_) => "timed_out",
            Self::Io(_) => "io",
            Self::Tls(_) => "tls",
            Self::Truncated => "truncated",
            Self::TooSlow => "too_slow",
            Self::Terminated => "terminated",
            Self::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agreed => f.write_str("closed"),
            Self::PeerGone => f.write_str("the peer left"),
            Self::Resolve(error) => write!(f, "the name was not resolved: {error}"),
            Self::Connect(error) => error.fmt(f),
            Self::Handshake(error) => write!(f, "the WebSocket handshake failed: {error}"),
            Self::Violation(violation) => write!(f, "the peer broke a rule: {violation}"),
            Self::TimedOut(deadline) => write!(f, "the {deadline:?} deadline passed"),
            Self::Io(error) => write!(f, "the connection failed: {}", system_text(error)),
            Self::Tls(error) => write!(f, "TLS failed: {error}"),
            Self::Truncated => f.write_str("cut short: the peer left without a word of TLS"),
            Self::TooSlow => f.write_str("the peer does not read what is sent"),
            Self::Terminated => f.write_str("terminated"),
            Self::Shutdown => f.write_str("cut at the end of a drain"),
        }
    }
}
