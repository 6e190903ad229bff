//! [`MioNet`]: real sockets, over the selector of the `mio` crate.
//!
//! Sits at the very edge: the only file that knows mio, and the only one that reads a clock.
//! Everything above takes time as an argument and sockets as a type parameter.
//!
//! Invariants
//! - A socket is registered for both directions, once, and never changed: pausing costs nothing.
//! - Where the selector is an emulation over `poll(2)`, mio re-arms a direction only when a call
//!   says `WouldBlock`; so no call bypasses mio's own, and `SHORT_READ_DRAINS` is false there.
//! - Dropping a socket deregisters it: the descriptor is ours alone, so closing it ends its
//!   registration in epoll and kqueue, and mio does the rest elsewhere.
//! - A socket file is removed only if it is ours, or if it is a socket and nobody answers on it.
//!
//! Not here: when to read, write or accept (`reactor/`); the threads that look names up
//! (`resolve.rs`).

use super::resolve::Resolver;
use super::{Endpoint, Net, Peer, Ready, Resolution, Resolved, SocketOption};
use mio::net::{TcpListener, TcpStream, UdpSocket};
use mio::{Events, Interest, Poll, Registry, Token, event::Source};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

mod shared;
#[cfg(unix)]
mod unix;

pub use shared::SharedListener;

#[cfg(unix)]
use mio::net::UnixStream;

/// The token of the waker; its events are reported to nobody.
const WAKER_TOKEN: Token = Token(0);

/// Events taken from the system in one poll; more stay there for the next.
const EVENTS_PER_POLL: usize = 1024;

/// Connections that wait to be accepted. Systems clamp it to their own bound (4,096 on Linux).
const BACKLOG: i32 = 1024;

/// Whether accepted sockets inherit `TCP_NODELAY` from the listener, which saves one call each.
const NODELAY_IS_INHERITED: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Real sockets, and the system's clock.
#[derive(Debug)]
pub struct MioNet {
    poll: Poll,
    events: Events,
    waker: Arc<PollWaker>,
    resolver: Resolver,
    reuse_port: bool,
    backlog: i32,
    /// A second descriptor of the selector's, for when none is left.
    reserve: Option<Registry>,
}

/// A connected, or connecting, stream socket of [`MioNet`].
#[derive(Debug)]
pub struct MioSocket(Stream);

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// A socket of datagrams of [`MioNet`].
#[derive(Debug)]
pub struct MioDatagrams(UdpSocket);

/// A listening socket of [`MioNet`].
#[derive(Debug)]
pub struct MioListener(Listener);

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(unix::SocketFile),
    /// A second descriptor of a socket whose file is somebody else's.
    #[cfg(unix)]
    UnixShare(mio::net::UnixListener),
}

impl Listener {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(listener) => listener,
            #[cfg(unix)]
            Self::Unix(file) => file.listener_mut(),
            #[cfg(unix)]
            Self::UnixShare(listener) => listener,
        }
    }
}

#[cfg(unix)]
fn accept_unix(listener: &mut mio::net::UnixListener) -> io::Result<(MioSocket, Peer)> {
    let (stream, _) = listener.accept()?;
    Ok((MioSocket(Stream::Unix(stream)), Peer::Unix))
}

impl MioNet {
    /// Whether the system spreads connections over the listeners of a port that reactors share by
    /// [`set_reuse_port`](Self::set_reuse_port).
    pub const REUSE_PORT_BALANCES: bool = cfg!(any(target_os = "linux", target_os = "android"));

    /// A selector with nothing registered.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), WAKER_TOKEN)?;
        let waker = Arc::new(PollWaker(waker));
        let reserve = poll.registry().try_clone().ok();
        Ok(Self {
            poll,
            reserve,
            events: Events::with_capacity(EVENTS_PER_POLL),
            resolver: Resolver::new(Waker::from(Arc::clone(&waker))),
            waker,
            reuse_port: false,
            backlog: BACKLOG,
        })
    }

    /// The time since 1 January 1970, UTC, by the system's clock, which may be set back.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that all others are handed"
    )]
    pub fn system_time(&self) -> Duration {
        // A clock set before 1970 is wrong in any case; the date is then the first we can write.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        since_epoch.unwrap_or_default()
    }

    /// Whether further listeners share their port with those of other reactors (`SO_REUSEPORT`).
    /// Off by default, so that a port in use is an error. Linux spreads connections over the
    /// listeners of a port; where the option is missing, [`Net::listen`] refuses to share.
    pub fn set_reuse_port(&mut self, reuse_port: bool) {
        self.reuse_port = reuse_port;
    }

    /// Has further listeners keep at most `backlog` connections that wait to be accepted. Default
    /// 1024; systems have a bound of their own.
    pub fn set_backlog(&mut self, backlog: Option<u16>) {
        self.backlog = backlog.map_or(BACKLOG, i32::from);
    }

    fn listen_tcp(&self, at: SocketAddr) -> io::Result<std::net::TcpListener> {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        // A restarted server may bind at once. On Windows the option means something else: that
        // anyone may steal the port.
        #[cfg(not(windows))]
        socket.set_reuse_address(true)?;
        if self.reuse_port {
            reuse_port(&socket)?;
        }
        if at.is_ipv6() && at.ip().is_unspecified() && !cfg!(target_os = "openbsd") {
            // "::" serves IPv4 too, whatever the system's default. OpenBSD never does.
            socket.set_only_v6(false)?;
        }
        if NODELAY_IS_INHERITED {
            socket.set_tcp_nodelay(true)?;
        }
        socket.bind(&at.into())?;
        socket.listen(self.backlog)?;
        Ok(socket.into())
    }
}

impl Net for MioNet {
    type Socket = MioSocket;
    type Listener = MioListener;
    type Datagrams = MioDatagrams;

    const SHORT_READ_DRAINS: bool = cfg!(all(
        not(mio_unsupported_force_poll_poll),
        any(
            // epoll
            target_os = "linux",
            target_os = "android",
            // kqueue
            target_vendor = "apple",
            target_os = "freebsd",
            target_os = "dragonfly",
            target_os = "netbsd",
            target_os = "openbsd",
        )
    ));

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that all others are handed"
    )]
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn unix_time(&self) -> u64 {
        self.system_time().as_secs()
    }

    fn poll(&mut self, ready: &mut Vec<Ready>, timeout: Option<Duration>) -> io::Result<()> {
        ready.clear();
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            outcome => outcome?,
        }
        for event in &self.events {
            if event.token() == WAKER_TOKEN {
                continue;
            }
            let failed = event.is_error();
            ready.push(Ready {
                token: event.token().0 as u64,
                // A broken socket has something to say to whoever calls it, in either direction.
                readable: event.is_readable() || event.is_read_closed() || failed,
                writable: event.is_writable() || event.is_write_closed() || failed,
                hung_up: event.is_read_closed() || event.is_write_closed() || failed,
            });
        }
        Ok(())
    }

    fn listen(&mut self, at: &Endpoint, token: u64) -> io::Result<MioListener> {
        let mut listener = match at {
            Endpoint::Ip(at) => Listener::Tcp(TcpListener::from_std(self.listen_tcp(*at)?)),
            #[cfg(unix)]
            Endpoint::Unix(path) => Listener::Unix(unix::SocketFile::listen(path)?),
            #[cfg(not(unix))]
            Endpoint::Unix(_) => return Err(ErrorKind::Unsupported.into()),
        };
        let registry = self.poll.registry();
        let token = mio_token(token)?;
        registry.register(listener.source(), token, Interest::READABLE)?;
        Ok(MioListener(listener))
    }

    fn local_endpoint(&self, listener: &MioListener) -> io::Result<Endpoint> {
        Ok(match &listener.0 {
            Listener::Tcp(listener) => Endpoint::Ip(listener.local_addr()?),
            #[cfg(unix)]
            Listener::Unix(file) => Endpoint::Unix(file.path().to_owned()),
            #[cfg(unix)]
            Listener::UnixShare(_) => return Err(ErrorKind::Unsupported.into()),
        })
    }

    fn accept(&mut self, listener: &mut MioListener) -> io::Result<(MioSocket, Peer)> {
        match &mut listener.0 {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                if !NODELAY_IS_INHERITED && stream.set_nodelay(true).is_err() {
                    // Some systems refuse options on a connection that its peer has reset already.
                    return Err(ErrorKind::ConnectionAborted.into());
                }
                Ok((MioSocket(Stream::Tcp(stream)), Peer::Ip(peer)))
            }
            #[cfg(unix)]
            Listener::Unix(file) => accept_unix(file.listener_mut()),
            #[cfg(unix)]
            Listener::UnixShare(listener) => accept_unix(listener),
        }
    }

    fn spend_reserve(&mut self) -> bool {
        self.reserve.take().is_some()
    }

    fn restore_reserve(&mut self) {
        if self.reserve.is_none() {
            self.reserve = self.poll.registry().try_clone().ok();
        }
    }

    fn register(&mut self, socket: &mut MioSocket, token: u64) -> io::Result<()> {
        register(self.poll.registry(), &mut socket.0, token)
    }

    fn connect(&mut self, to: &Endpoint, token: u64) -> io::Result<MioSocket> {
        let mut stream = match to {
            Endpoint::Ip(to) => {
                let stream = TcpStream::connect(*to)?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            #[cfg(unix)]
            Endpoint::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
            #[cfg(not(unix))]
            Endpoint::Unix(_) => return Err(ErrorKind::Unsupported.into()),
        };
        register(self.poll.registry(), &mut stream, token)?;
        Ok(MioSocket(stream))
    }

    fn connect_outcome(&mut self, socket: &MioSocket) -> io::Result<()> {
        let (error, peer) = match &socket.0 {
            Stream::Tcp(stream) => (stream.take_error()?, stream.peer_addr().map(drop)),
            #[cfg(unix)]
            Stream::Unix(stream) => (stream.take_error()?, stream.peer_addr().map(drop)),
        };
        match (error, peer) {
            (Some(error), _) => Err(error),
            (None, Err(error)) if error.kind() == ErrorKind::NotConnected => {
                Err(ErrorKind::WouldBlock.into())
            }
            (None, outcome) => outcome,
        }
    }

    fn local_address(&self, socket: &MioSocket) -> io::Result<Peer> {
        match &socket.0 {
            Stream::Tcp(stream) => stream.local_addr().map(Peer::Ip),
            #[cfg(unix)]
            Stream::Unix(_) => Ok(Peer::Unix),
        }
    }

    fn set_nodelay(&mut self, socket: &mut MioSocket, nodelay: bool) -> io::Result<()> {
        match &socket.0 {
            Stream::Tcp(stream) => stream.set_nodelay(nodelay),
            #[cfg(unix)]
            Stream::Unix(_) => Ok(()),
        }
    }

    fn set_ttl(&mut self, socket: &mut MioSocket, ttl: u8) -> io::Result<()> {
        match &socket.0 {
            Stream::Tcp(stream) => stream.set_ttl(u32::from(ttl)),
            #[cfg(unix)]
            Stream::Unix(_) => Ok(()),
        }
    }

    fn set_option(&mut self, socket: &mut MioSocket, option: SocketOption) -> io::Result<()> {
        match &socket.0 {
            Stream::Tcp(stream) => set_option(&SockRef::from(stream), option),
            #[cfg(unix)]
            Stream::Unix(stream) => set_option(&SockRef::from(stream), option),
        }
    }

    fn set_datagrams_option(
        &mut self,
        socket: &mut MioDatagrams,
        option: SocketOption,
    ) -> io::Result<()> {
        set_option(&SockRef::from(&socket.0), option)
    }

    fn read(&mut self, socket: &mut MioSocket, into: &mut [u8]) -> io::Result<usize> {
        match &mut socket.0 {
            Stream::Tcp(stream) => stream.read(into),
            #[cfg(unix)]
            Stream::Unix(stream) => stream.read(into),
        }
    }

    fn write(&mut self, socket: &mut MioSocket, from: &[IoSlice<'_>]) -> io::Result<usize> {
        let stream: &mut dyn Write = match &mut socket.0 {
            Stream::Tcp(stream) => stream,
            #[cfg(unix)]
            Stream::Unix(stream) => stream,
        };
        match from {
            // A plain send has less to look at than a gathered one.
            [only] => stream.write(only),
            many => stream.write_vectored(many),
        }
    }

    fn shutdown_write(&mut self, socket: &mut MioSocket) -> io::Result<()> {
        match &socket.0 {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            #[cfg(unix)]
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    fn close(&mut self, socket: MioSocket, abort: bool) {
        match &socket.0 {
            Stream::Tcp(stream) if abort => {
                // Should the system refuse, the socket is broken, and closing is all there is.
                let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
            Stream::Tcp(_) => {}
            #[cfg(unix)]
            Stream::Unix(_) => {}
        }
        drop(socket);
    }

    fn close_listener(&mut self, mut listener: MioListener) {
        // A socket that others share does not close with ours, and would go on to report here. Should
        // the system refuse, its events find no listener.
        let _ = self.poll.registry().deregister(listener.0.source());
    }

    fn bind_datagrams(&mut self, at: SocketAddr, token: u64) -> io::Result<MioDatagrams> {
        let mut socket = UdpSocket::bind(at)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        socket.register(registry, mio_token(token)?, both)?;
        Ok(MioDatagrams(socket))
    }

    fn datagrams_address(&self, socket: &MioDatagrams) -> io::Result<SocketAddr> {
        socket.0.local_addr()
    }

    fn receive_from(
        &mut self,
        socket: &mut MioDatagrams,
        into: &mut [u8],
    ) -> io::Result<(usize, SocketAddr)> {
        socket.0.recv_from(into)
    }

    fn send_to(
        &mut self,
        socket: &mut MioDatagrams,
        bytes: &[u8],
        to: SocketAddr,
    ) -> io::Result<usize> {
        socket.0.send_to(bytes, to)
    }

    fn close_datagrams(&mut self, socket: MioDatagrams) {
        drop(socket);
    }

    fn resolve(&mut self, host: &str, request: u64) -> Option<Resolution> {
        let now = self.now();
        self.resolver.resolve(host, request, now)
    }

    fn forget_resolve(&mut self, request: u64) {
        self.resolver.forget(request);
    }

    fn take_resolved(&mut self, into: &mut Vec<Resolved>) {
        if self.resolver.is_waiting() {
            let now = self.now();
            self.resolver.take(into, now);
        }
    }

    fn fill_random(&mut self, into: &mut [u8]) -> io::Result<()> {
        getrandom::fill(into).map_err(|error| io::Error::other(error.to_string()))
    }

    fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.waker))
    }
}

/// The selector's waker as the standard library's.
#[derive(Debug)]
struct PollWaker(mio::Waker);

impl Wake for PollWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Fails only once the selector is gone, and then nobody waits. mio itself sees to it that
        // a counter that is full counts as woken.
        let _ = self.0.wake();
    }
}

fn register(registry: &Registry, stream: &mut Stream, token: u64) -> io::Result<()> {
    let source: &mut dyn Source = match stream {
        Stream::Tcp(stream) => stream,
        #[cfg(unix)]
        Stream::Unix(stream) => stream,
    };
    let both = Interest::READABLE | Interest::WRITABLE;
    source.register(registry, mio_token(token)?, both)
}

/// Sets an option of whatever kind of socket.
fn set_option(socket: &SockRef<'_>, option: SocketOption) -> io::Result<()> {
    // Setting its times turns keep-alive on: that is another option.
    let keep = |keepalive: TcpKeepalive| {
        let is_on = socket.keepalive()?;
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_keepalive(is_on)
    };
    match option {
        SocketOption::KeepAlive(on) => socket.set_keepalive(on),
        SocketOption::KeepAliveIdle(time) => keep(TcpKeepalive::new().with_time(time)),
        #[cfg(not(target_os = "openbsd"))]
        SocketOption::KeepAliveInterval(time) => keep(TcpKeepalive::new().with_interval(time)),
        #[cfg(not(target_os = "openbsd"))]
        SocketOption::KeepAliveCount(count) => keep(TcpKeepalive::new().with_retries(count)),
        // There these are settings of the system, for all sockets.
        #[cfg(target_os = "openbsd")]
        SocketOption::KeepAliveInterval(_) | SocketOption::KeepAliveCount(_) => {
            Err(ErrorKind::Unsupported.into())
        }
        SocketOption::SendBuffer(bytes) => socket.set_send_buffer_size(bytes as usize),
        SocketOption::ReceiveBuffer(bytes) => socket.set_recv_buffer_size(bytes as usize),
        SocketOption::Broadcast(on) => socket.set_broadcast(on),
        SocketOption::Ttl(ttl) => socket.set_ttl_v4(u32::from(ttl)),
        SocketOption::TypeOfService(class) => socket.set_tos_v4(u32::from(class)),
    }
}

/// On 32-bit machines a token loses to `usize`; there this backend cannot serve.
fn mio_token(token: u64) -> io::Result<Token> {
    let token = usize::try_from(token).map_err(|_| ErrorKind::Unsupported)?;
    Ok(Token(token))
}

#[cfg(all(
    unix,
    not(any(target_os = "solaris", target_os = "illumos", target_os = "cygwin"))
))]
fn reuse_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

#[cfg(not(all(
    unix,
    not(any(target_os = "solaris", target_os = "illumos", target_os = "cygwin"))
)))]
fn reuse_port(_: &Socket) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests;
