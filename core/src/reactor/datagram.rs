//! Datagrams: sockets of UDP under keys of the connection table. RFC 768.
//!
//! Sits in the reactor, beside the streams. A socket has a reserved key and no connection behind it:
//! a datagram is received whole into the inbox's area, and sent at once, or waits for room.
//!
//! Invariants
//! - A turn receives at most [`RECEIVED_PER_TURN`] datagrams and fills at most half of the area with
//!   them, so that neither they nor streams starve the other.
//! - What waits to be sent from one socket stays near `Limits::out_bytes_high`; more is dropped, and
//!   whoever sends is told.
//! - A socket that was not closed by the application has its `Closed`.
//!
//! Not here: what datagrams mean; whether they arrive.

use super::Reactor;
use super::conns::ConnKey;
use super::inbox::{Cause, Inbox};
use crate::conn::Pressure;
use crate::transport::{Net, Ready};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

/// Bytes of the longest datagram over IPv4: 65,535 without the headers of IP and UDP.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Datagrams received in one turn, of all sockets together.
const RECEIVED_PER_TURN: usize = 256;

/// The sockets of a reactor, by their keys.
pub(super) type Datagrams<S> = BTreeMap<ConnKey, Socket<S>>;

/// A socket of datagrams.
#[derive(Debug)]
pub(super) struct Socket<S> {
    socket: S,
    /// A receive may succeed: said by an event, unsaid by `WouldBlock`.
    readable: bool,
    /// The application does not want any.
    held: bool,
    waiting: VecDeque<(SocketAddr, Box<[u8]>)>,
    waiting_bytes: usize,
    /// Why it is to end.
    cause: Option<Cause>,
}

impl<S> Socket<S> {
    pub(super) fn inner(&mut self) -> &mut S {
        &mut self.socket
    }

    fn wants_turn(&self) -> bool {
        self.cause.is_some() || self.readable && !self.held
    }
}

impl<N: Net> Reactor<N> {
    /// Receives datagrams at `at`, as `What::Datagram`, and sends them from there. Port 0 chooses one;
    /// [`datagrams_address`](Self::datagrams_address) tells which. Counts as a connection.
    ///
    /// # Errors
    /// What the system refuses, such as an address in use; [`ErrorKind::QuotaExceeded`] at
    /// `Limits::connections_max`.
    pub fn bind_datagrams(&mut self, at: SocketAddr) -> io::Result<ConnKey> {
        let key = self.conns.reserve().ok_or(ErrorKind::QuotaExceeded)?;
        let bound = self.net.bind_datagrams(at, key.to_token());
        let socket = bound.inspect_err(|_| self.conns.release(key))?;
        let socket = Socket {
            socket,
            readable: false,
            held: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            cause: None,
        };
        self.datagrams.insert(key, socket);
        Ok(key)
    }

    /// Where a socket of datagrams really is; `None` once it is closed.
    pub fn datagrams_address(&self, conn: ConnKey) -> Option<SocketAddr> {
        let socket = self.datagrams.get(&conn)?;
        self.net.datagrams_address(&socket.socket).ok()
    }

    /// Sends `bytes` to `to`, at once if the system takes them. Returns [`Pressure::High`] if they wait
    /// for room: stop until `What::Writable`; or [`Pressure::Dropped`] if too many did already.
    ///
    /// # Errors
    /// [`ErrorKind::NotConnected`] once the socket is closed; [`ErrorKind::InvalidInput`] for more than
    /// [`DATAGRAM_BYTES_MAX`] bytes; what the system refuses. The socket stays.
    pub fn send_datagram(
        &mut self,
        conn: ConnKey,
        to: SocketAddr,
        bytes: &[u8],
    ) -> io::Result<Pressure> {
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return Err(ErrorKind::InvalidInput.into());
        }
        let socket = self.datagrams.get_mut(&conn);
        let socket = socket.ok_or(ErrorKind::NotConnected)?;
        if socket.waiting.is_empty() {
            match send(&mut self.net, &mut socket.socket, bytes, to) {
                Ok(_) => return Ok(Pressure::Low),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if socket.waiting_bytes > self.limits.out_bytes_high as usize {
            return Ok(Pressure::Dropped);
        }
        socket.waiting_bytes += bytes.len();
        socket.waiting.push_back((to, bytes.into()));
        Ok(Pressure::High)
    }

    /// Closes a socket of datagrams at once; what waits is dropped, and nothing more is heard of it.
    /// Does nothing if it is none.
    pub fn close_datagrams(&mut self, conn: ConnKey) {
        if let Some(socket) = self.datagrams.remove(&conn) {
            self.net.close_datagrams(socket.socket);
            self.conns.release(conn);
        }
    }

    /// As `hold` and `release`, for a socket of datagrams: those that come meanwhile wait in the system,
    /// which drops what it has no room for.
    pub(super) fn hold_datagrams(&mut self, conn: ConnKey, held: bool) {
        if let Some(socket) = self.datagrams.get_mut(&conn) {
            socket.held = held;
        }
    }

    /// Ends all sockets of datagrams at the next turn, for a drain: nothing is under way there.
    pub(super) fn drain_datagrams(&mut self) {
        for socket in self.datagrams.values_mut() {
            socket.cause.get_or_insert(Cause::Shutdown);
        }
    }

    /// Whether some socket has something to do without another event.
    pub(super) fn has_datagrams(&self) -> bool {
        self.datagrams.values().any(Socket::wants_turn)
    }

    /// Some socket of datagrams is ready. False if `key` is none's.
    pub(super) fn note_datagrams(&mut self, key: ConnKey, event: Ready, inbox: &mut Inbox) -> bool {
        let Some(socket) = self.datagrams.get_mut(&key) else {
            return false;
        };
        socket.readable |= event.readable || event.hung_up;
        if !event.writable || socket.waiting.is_empty() {
            return true;
        }
        while let Some((to, bytes)) = socket.waiting.front() {
            match send(&mut self.net, &mut socket.socket, bytes, *to) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                // One that cannot be sent is lost, as datagrams may be.
                Ok(_) | Err(_) => {
                    socket.waiting_bytes -= bytes.len();
                    socket.waiting.pop_front();
                }
            }
        }
        inbox.deliver_writable(key);
        true
    }

    /// Receives what has arrived, before streams take the rest of the area.
    pub(super) fn receive_datagrams(&mut self, inbox: &mut Inbox) {
        if !self.has_datagrams() {
            return;
        }
        let mut left = RECEIVED_PER_TURN;
        let mut ended = Vec::new();
        let wanting = self.datagrams.iter_mut();
        for (key, socket) in wanting.filter(|(_, socket)| socket.wants_turn()) {
            while socket.cause.is_none() && socket.readable && !socket.held {
                // Half of the area, and room for the longest there may be.
                if left == 0 || inbox.used > inbox.area.len() / 2 {
                    break;
                }
                let into = &mut inbox.area[inbox.used..inbox.used + DATAGRAM_BYTES_MAX];
                match self.net.receive_from(&mut socket.socket, into) {
                    Ok((count, from)) => {
                        left -= 1;
                        inbox.deliver_datagram(*key, from, count);
                    }
                    Err(error) => match error.kind() {
                        ErrorKind::WouldBlock => socket.readable = false,
                        // Somebody whom we sent something refuses it: a word about another datagram.
                        ErrorKind::ConnectionRefused
                        | ErrorKind::ConnectionReset
                        | ErrorKind::HostUnreachable
                        | ErrorKind::NetworkUnreachable
                        | ErrorKind::Interrupted => left = left.saturating_sub(1),
                        _ => socket.cause = Some(Cause::Io(error)),
                    },
                }
            }
            if let Some(cause) = socket.cause.take() {
                ended.push((*key, cause));
            }
        }
        for (key, cause) in ended {
            self.close_datagrams(key);
            inbox.deliver_closed(key, cause);
        }
    }
}

fn send<N: Net>(
    net: &mut N,
    socket: &mut N::Datagrams,
    bytes: &[u8],
    to: SocketAddr,
) -> io::Result<usize> {
    loop {
        match net.send_to(socket, bytes, to) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}
