//! Bytes to and from the world: the seam [`Net`], and the [`Transport`] of one connection.
//!
//! Sits below the reactor and above nothing but buffers: it sees bytes and never what they mean.
//! Everything that touches a socket or a clock is a method of [`Net`]. `mio.rs` implements it over
//! real sockets; the simulation of the test suite implements it over a seed and virtual time.
//!
//! Invariants
//! - Sockets never block. Readiness is edge-triggered: who stops before `WouldBlock` must remember
//!   that there may be more, because no event will say so again.
//! - A [`Transport`] makes one `read` per call, but for a proxy's header, and never reads behind an
//!   end of file; it writes until nothing waits or the socket is full.
//! - An interrupted call (`EINTR`) is repeated here and seen by nobody above.
//!
//! Not here: which connection reads next, and when (`reactor/`); protocol rules (`conn/`).

#[cfg(feature = "mio")]
pub mod mio;
mod option;
pub mod preceded;
#[cfg(feature = "mio")]
mod resolve;
mod system;
#[cfg(feature = "tls")]
pub mod tls;
mod tls_error;
mod write;

pub use option::SocketOption;
pub use system::system_text;
pub use tls_error::{TlsError, TlsErrorKind};

use crate::buffer::SendBuffer;
use core::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};
use write::write_socket;

/// Where to listen, or what to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// TCP. Port 0 lets the system choose one; [`Net::local_endpoint`] tells which.
    Ip(SocketAddr),
    /// A stream socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Who connected, or was connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// The address and port at the other end.
    Ip(SocketAddr),
    /// Someone on this machine; such sockets have no address worth telling.
    Unix,
}

/// A [`Peer`] in two words instead of four, for whoever keeps many of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPeer(Kept);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kept {
    V4(SocketAddrV4),
    V6(Box<SocketAddrV6>),
    Unix,
}

const _: () = assert!(size_of::<Option<KeptPeer>>() <= 16);

impl From<Peer> for KeptPeer {
    fn from(peer: Peer) -> Self {
        Self(match peer {
            Peer::Ip(SocketAddr::V4(address)) => Kept::V4(address),
            Peer::Ip(SocketAddr::V6(address)) => Kept::V6(Box::new(address)),
            Peer::Unix => Kept::Unix,
        })
    }
}

impl KeptPeer {
    /// What it was made of.
    pub fn get(&self) -> Peer {
        match &self.0 {
            Kept::V4(address) => Peer::Ip(SocketAddr::V4(*address)),
            Kept::V6(address) => Peer::Ip(SocketAddr::V6(**address)),
            Kept::Unix => Peer::Unix,
        }
    }
}

/// What a name stands for, in the resolver's order of preference. Ports are 0: a name has none.
pub type Resolution = Result<Arc<[SocketAddr]>, ResolveError>;

/// Why a name has no addresses, in the resolver's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolveError(Arc<str>);

impl ResolveError {
    /// An error that says `text`.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for ResolveError {}

/// The answer to a [`Net::resolve`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// As given with the question.
    pub request: u64,
    /// The answer.
    pub outcome: Resolution,
}

/// One report of [`Net::poll`]: something changed for the socket registered under `token`.
///
/// A hint, not a promise: a report may be spurious, and the call it invites may still say
/// `WouldBlock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// As given when the socket was registered.
    pub token: u64,
    /// A read (or an accept) may succeed now.
    pub readable: bool,
    /// A write may succeed now, or a connect has come to its end.
    pub writable: bool,
    /// The peer closed its side, or the socket failed. No further event may come for it, so from
    /// here on a read is worth trying until it says [`ReadOutcome::Eof`] or
    /// [`ReadOutcome::Failed`], however short the reads before were.
    pub hung_up: bool,
}

/// The one seam between the house and the world: everything that touches a socket, a clock, a
/// resolver or chance.
///
/// Tokens are the caller's names for sockets, reported back by [`poll`](Self::poll). A token with
/// a zero upper half names the waker (0) or a listener (1 and up).
pub trait Net {
    /// A connected, or connecting, stream socket. One that was accepted and not registered may go to
    /// another thread.
    type Socket: Send + 'static;
    /// A listening socket.
    type Listener;
    /// A socket of datagrams (UDP).
    type Datagrams;

    /// Whether a read that returns less than it was asked for has emptied the socket, so that new
    /// bytes will be announced by a new event. True of epoll and kqueue; false of emulations over
    /// `poll(2)` and of IOCP, where only `WouldBlock` re-arms the socket.
    const SHORT_READ_DRAINS: bool;

    /// The time; never goes back.
    fn now(&self) -> Instant;

    /// Seconds since 1970-01-01 00:00 UTC, for the `Date` field.
    fn unix_time(&self) -> u64;

    /// Waits until some socket is ready, the waker is used, or `timeout` has passed; `None` waits
    /// for ever and zero does not wait. Clears `ready`, then reports into it. It may return early
    /// with nothing: an interruption by a signal is no error.
    ///
    /// # Errors
    /// What the system's poll refuses; the reactor cannot go on after that.
    fn poll(&mut self, ready: &mut Vec<Ready>, timeout: Option<Duration>) -> io::Result<()>;

    /// Listens at `at` and reports connections to [`accept`](Self::accept) as readable `token`.
    ///
    /// # Errors
    /// Address in use, not ours, or not permitted; [`ErrorKind::Unsupported`] for a kind of
    /// endpoint that the platform lacks.
    fn listen(&mut self, at: &Endpoint, token: u64) -> io::Result<Self::Listener>;

    /// Where `listener` really listens, with the port that the system chose.
    ///
    /// # Errors
    /// What the system refuses.
    fn local_endpoint(&self, listener: &Self::Listener) -> io::Result<Endpoint>;

    /// Takes one waiting connection. Its socket does not block, sends without delay
    /// (`TCP_NODELAY`), and reports nothing until [`register`](Self::register) is called; it may be read
    /// and written before.
    ///
    /// # Errors
    /// `WouldBlock` when none waits: the next one will be announced. `ConnectionAborted` if it
    /// left while it waited: try again at once. Others, such as too many open files, mean that
    /// connections may still wait and that *no event will say so*: try again later.
    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<(Self::Socket, Peer)>;

    /// Gives up the descriptor that is kept for when none is left ([`is_exhausted`]), so that who
    /// waits can be accepted, one at a time, and turned away. Returns whether there was one.
    fn spend_reserve(&mut self) -> bool;

    /// Keeps such a descriptor again, if the system has one.
    fn restore_reserve(&mut self);

    /// Reports readiness of `socket` as `token` from now on, in both directions, edge-triggered.
    /// What is ready already is reported by the next poll.
    ///
    /// # Errors
    /// What the system refuses; the socket is then of no use and should be closed.
    fn register(&mut self, socket: &mut Self::Socket, token: u64) -> io::Result<()>;

    /// Begins to connect to `to`. The socket is registered as `token`; when that is reported
    /// writable or hung up, [`connect_outcome`](Self::connect_outcome) tells how it went.
    ///
    /// # Errors
    /// What can be refused at once.
    fn connect(&mut self, to: &Endpoint, token: u64) -> io::Result<Self::Socket>;

    /// How a [`connect`](Self::connect) ended.
    ///
    /// # Errors
    /// Why it failed; `WouldBlock` if it has not ended yet.
    fn connect_outcome(&mut self, socket: &Self::Socket) -> io::Result<()>;

    /// The address of our own end.
    ///
    /// # Errors
    /// What the system refuses.
    fn local_address(&self, socket: &Self::Socket) -> io::Result<Peer>;

    /// Whether small writes leave at once (`TCP_NODELAY`). Says nothing to a socket in the file
    /// system, where they always do.
    ///
    /// # Errors
    /// What the system refuses.
    fn set_nodelay(&mut self, socket: &mut Self::Socket, nodelay: bool) -> io::Result<()>;

    /// How many routers the socket's packets may pass (`IP_TTL`). Says nothing to a socket in the
    /// file system, which passes none.
    ///
    /// # Errors
    /// What the system refuses.
    fn set_ttl(&mut self, socket: &mut Self::Socket, ttl: u8) -> io::Result<()>;

    /// Sets an option of a socket. What is not the system's has none.
    ///
    /// # Errors
    /// `Unsupported`, or what the system refuses.
    fn set_option(&mut self, socket: &mut Self::Socket, option: SocketOption) -> io::Result<()> {
        let _ = (socket, option);
        Err(ErrorKind::Unsupported.into())
    }

    /// As [`set_option`](Self::set_option), for a socket of datagrams.
    ///
    /// # Errors
    /// As there.
    fn set_datagrams_option(
        &mut self,
        socket: &mut Self::Datagrams,
        option: SocketOption,
    ) -> io::Result<()> {
        let _ = (socket, option);
        Err(ErrorKind::Unsupported.into())
    }

    /// Reads what has arrived, at most `into.len()` bytes; 0 means that the peer has finished.
    ///
    /// # Errors
    /// `WouldBlock` if nothing has arrived: an event will tell. Any other ends the connection.
    fn read(&mut self, socket: &mut Self::Socket, into: &mut [u8]) -> io::Result<usize>;

    /// Writes from the front of `from`, as much as the socket takes, and returns how much.
    ///
    /// # Errors
    /// `WouldBlock` if the socket is full: an event will tell. Any other ends the connection.
    fn write(&mut self, socket: &mut Self::Socket, from: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Tells the peer that we have finished; we may go on reading.
    ///
    /// # Errors
    /// What the system refuses; usually the peer has left already.
    fn shutdown_write(&mut self, socket: &mut Self::Socket) -> io::Result<()>;

    /// Closes `socket` for good; no event follows. `abort` throws away what has not been sent and
    /// resets the connection, so that nothing of it lingers in the system.
    fn close(&mut self, socket: Self::Socket, abort: bool);

    /// Stops listening; connections that wait are refused.
    fn close_listener(&mut self, listener: Self::Listener);

    /// Receives datagrams at `at`, and sends them from there. Readiness is reported as `token`, in both
    /// directions, edge-triggered.
    ///
    /// # Errors
    /// As [`listen`](Self::listen).
    fn bind_datagrams(&mut self, at: SocketAddr, token: u64) -> io::Result<Self::Datagrams>;

    /// Where `socket` really is, with the port that the system chose.
    ///
    /// # Errors
    /// What the system refuses.
    fn datagrams_address(&self, socket: &Self::Datagrams) -> io::Result<SocketAddr>;

    /// Takes one datagram that has arrived, and says from where. What does not fit in `into` is lost.
    ///
    /// # Errors
    /// `WouldBlock` if none has: an event will tell. What the network says of a datagram that was sent
    /// may come here, too (ICMP).
    fn receive_from(
        &mut self,
        socket: &mut Self::Datagrams,
        into: &mut [u8],
    ) -> io::Result<(usize, SocketAddr)>;

    /// Sends one datagram whole.
    ///
    /// # Errors
    /// `WouldBlock` if there is no room for it: an event will tell. Others concern this datagram.
    fn send_to(
        &mut self,
        socket: &mut Self::Datagrams,
        bytes: &[u8],
        to: SocketAddr,
    ) -> io::Result<usize>;

    /// Closes `socket` for good; no event follows.
    fn close_datagrams(&mut self, socket: Self::Datagrams);

    /// Asks what `host` stands for: at once if that is known, else by
    /// [`take_resolved`](Self::take_resolved) after some poll. Never waits.
    fn resolve(&mut self, host: &str, request: u64) -> Option<Resolution>;

    /// Nobody waits for the answer to `request` any more.
    fn forget_resolve(&mut self, request: u64);

    /// Appends the answers that have come since the last call.
    fn take_resolved(&mut self, into: &mut Vec<Resolved>);

    /// Fills `into` with bytes that nobody can foresee: masking keys and nonces are made of them.
    ///
    /// # Errors
    /// What the system refuses.
    fn fill_random(&mut self, into: &mut [u8]) -> io::Result<()>;

    /// Makes [`poll`](Self::poll) return, from any thread, as often as one likes; wakes between
    /// two polls count as one, and none is lost.
    fn waker(&self) -> Waker;
}

/// Whether a call failed because this process, or the system, has no descriptor left: `EMFILE` and
/// `ENFILE`, which have no [`ErrorKind`]; their numbers are the same on all systems with such names.
pub fn is_exhausted(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const WSAEMFILE: i32 = 10_024;
    let ours: &[i32] = if cfg!(windows) {
        &[WSAEMFILE]
    } else {
        &[ENFILE, EMFILE]
    };
    error
        .raw_os_error()
        .is_some_and(|code| ours.contains(&code))
}

/// How a [`Transport::read`] went.
#[derive(Debug)]
pub enum ReadOutcome {
    /// Bytes arrived.
    Bytes {
        /// How many. None if what arrived carries no data yet: part of a TLS record, a handshake.
        count: usize,
        /// Whether that was all for now and an event will announce more. The caller may then
        /// forget that the socket was readable, unless it was reported [`Ready::hung_up`].
        drained: bool,
    },
    /// Nothing has arrived; an event will tell.
    Blocked,
    /// The peer has finished; nothing will come any more.
    Eof,
    /// As `Eof`, but over TLS and without `close_notify`: an attacker may have cut it short, so
    /// only what is complete by itself may be believed (RFC 9112 §9.8).
    Truncated,
    /// The connection is broken.
    Failed(io::Error),
    /// TLS has failed. What it wants to tell the peer waits to be written; what still comes is
    /// read and dropped. To a peer that spoke HTTP without TLS, an answer may be written so.
    TlsFailed(TlsError),
}

/// How a [`Transport::write`] went.
#[derive(Debug)]
pub enum WriteOutcome {
    /// Nothing waits any more.
    Flushed,
    /// The socket is full and something still waits; an event will tell.
    Blocked {
        /// Whether it took something first.
        progressed: bool,
    },
    /// What waits must wait for the peer's part of the handshake: a read will tell.
    Handshaking,
    /// The connection is broken.
    Failed(io::Error),
}

/// Chunks handed to the system in one gathered write. A turn's output is rarely more than a few.
const CHUNKS_PER_WRITE: usize = 16;

/// What carries one connection's bytes. Who drives a connection cannot tell which it has.
#[derive(Debug)]
pub enum Transport<S> {
    /// Bytes as they are.
    Plain(S),
    /// Bytes in records of TLS.
    #[cfg(feature = "tls")]
    Tls(Box<tls::TlsStream<S>>),
    /// Whichever it is, a proxy's word comes first.
    Preceded(Box<preceded::Preceded<S>>),
}

impl<S> Transport<S> {
    /// Reads once into `into`, which must not be empty. Over TLS the rest of `into` is used too,
    /// whatever count is returned.
    pub fn read<N: Net<Socket = S>>(&mut self, net: &mut N, into: &mut [u8]) -> ReadOutcome {
        debug_assert!(!into.is_empty(), "a read into nothing looks like an end");
        match self {
            Self::Plain(socket) => read_socket(net, socket, into),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.read(net, into),
            Self::Preceded(preceded) => preceded.read(net, into),
        }
    }

    /// Writes what waits in `out` and drops it from there, until nothing waits or the socket is
    /// full.
    pub fn write<N: Net<Socket = S>>(&mut self, net: &mut N, out: &mut SendBuffer) -> WriteOutcome {
        match self {
            Self::Plain(socket) => write_socket(net, socket, out, &[]),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.write(net, out),
            Self::Preceded(_) if out.is_empty() => WriteOutcome::Flushed,
            Self::Preceded(_) => WriteOutcome::Handshaking,
        }
    }

    /// Writes what waits in `out`, then `last` from where it lies: only what the socket does not take
    /// of that is copied into `out`. Where bytes do not go out as they are, all of it is, and waits.
    pub fn write_through<N: Net<Socket = S>>(
        &mut self,
        net: &mut N,
        out: &mut SendBuffer,
        last: &[u8],
    ) -> WriteOutcome {
        if let Self::Plain(socket) = self {
            return write_socket(net, socket, out, last);
        }
        out.append(last);
        self.write(net, out)
    }

    /// Whether something waits to be written besides what the caller holds.
    pub fn has_unsent(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.has_unsent(),
            Self::Preceded(_) => false,
        }
    }

    /// Whether the two ends are still agreeing on how to speak, or a proxy on whose behalf.
    pub fn is_handshaking(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.is_handshaking(),
            Self::Preceded(_) => true,
        }
    }

    /// Has the end of what we send said within TLS, behind all that was written: a `close_notify`.
    /// Returns whether there is now something to write.
    pub fn begin_close(&mut self) -> bool {
        match self {
            Self::Plain(_) => false,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.begin_close(),
            Self::Preceded(_) => false,
        }
    }

    /// Tells the peer that we have finished, behind all that was written.
    ///
    /// # Errors
    /// As [`Net::shutdown_write`].
    pub fn shutdown_write<N: Net<Socket = S>>(&mut self, net: &mut N) -> io::Result<()> {
        net.shutdown_write(self.socket_mut())
    }

    /// Closes the socket; `abort` as in [`Net::close`].
    pub fn close<N: Net<Socket = S>>(self, net: &mut N, abort: bool) {
        match self {
            Self::Plain(socket) => net.close(socket, abort),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => net.close(stream.into_socket(), abort),
            Self::Preceded(preceded) => preceded.into_inside().close(net, abort),
        }
    }

    /// The socket that carries the bytes.
    pub fn socket(&self) -> &S {
        match self {
            Self::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.socket(),
            Self::Preceded(preceded) => preceded.socket(),
        }
    }

    /// The socket, to register it.
    pub fn socket_mut(&mut self) -> &mut S {
        match self {
            Self::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.socket_mut(),
            Self::Preceded(preceded) => preceded.socket_mut(),
        }
    }
}

fn read_socket<N: Net>(net: &mut N, socket: &mut N::Socket, into: &mut [u8]) -> ReadOutcome {
    loop {
        return match net.read(socket, into) {
            Ok(0) => ReadOutcome::Eof,
            Ok(count) => ReadOutcome::Bytes {
                count,
                drained: N::SHORT_READ_DRAINS && count < into.len(),
            },
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => continue,
                ErrorKind::WouldBlock => ReadOutcome::Blocked,
                _ => ReadOutcome::Failed(error),
            },
        };
    }
}

#[cfg(test)]
mod tests;
