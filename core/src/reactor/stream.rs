//! Raw streams: connections without a protocol of ours, accepted or dialled.
//!
//! Sits in the reactor, beside `ops.rs`, which has what all connections share: `hold` and `release`
//! stop and resume reading, `terminate` cuts. What is peculiar to streams is here: bytes both ways,
//! an end for each direction (RFC 9293 §3.6), and TLS that may begin late.
//!
//! Invariants
//! - Every accepted stream is told by `Accepted` before anything else of it, and has a `Closed`.
//! - Our end is said when all that was written before has left: over TLS by `close_notify`, and in
//!   either case by the end of TCP's stream.
//! - An end over TLS without `close_notify` is no end but `Cause::Truncated`.
//! - No deadline runs while a stream is open: only the application knows what silence means.
//!
//! Not here: the states of a stream (`conn/stream.rs`), when bytes leave (`drive.rs`).

use super::conns::ConnKey;
use super::drive::{Connection, Context, Phase};
use super::inbox::{Cause, Inbox};
use super::{ListenerKey, Reactor};
use crate::conn::{Driver, Misuse, Pressure, StreamConn};
#[cfg(feature = "tls")]
use crate::transport::Transport;
#[cfg(feature = "tls")]
use crate::transport::tls::{ClientTls, ServerTls, TlsStream};
use crate::transport::{Net, Peer, SocketOption};
use std::io;

/// What is spoken on the connections of a listener, or on one that is dialled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1, and WebSocket by its upgrade.
    #[default]
    Http,
    /// Whatever the application likes: `What::Bytes`, [`Reactor::write_stream`].
    Stream,
}

/// Which end of TLS we are, where it begins on a stream.
#[cfg(feature = "tls")]
#[derive(Clone, Copy, Debug)]
pub enum StreamTls<'a> {
    /// The end that asks, and the name that the other must prove to be its own.
    Client(&'a ClientTls, &'a str),
    /// The end that answers.
    Server(&'a ServerTls),
}

impl<N: Net> Reactor<N> {
    /// Queues bytes; they leave at the next turn. Returns [`Pressure::High`] when more than
    /// `Limits::out_bytes_high` bytes now wait: stop until `What::Writable`.
    ///
    /// # Errors
    /// [`Misuse::Gone`] if the stream has ended, or ends now because the peer does not read what
    /// waits already, or has been found to take nothing more; [`Misuse::Closing`] after
    /// [`finish_stream`](Self::finish_stream); [`Misuse::NotAStream`].
    pub fn write_stream(&mut self, conn: ConnKey, bytes: &[u8]) -> Result<Pressure, Misuse> {
        let (connection, figures) = self.roomy_conn(conn)?;
        let is_deaf = connection.unwritable;
        let stream = stream(&mut connection.driver)?;
        if is_deaf {
            return Err(Misuse::Gone);
        }
        stream.write(bytes, &mut connection.out)?;
        let pressure = connection.pressure(None, figures);
        self.touch(conn);
        Ok(pressure)
    }

    /// Says, behind all that was written, that nothing more will be; the peer may go on sending.
    ///
    /// # Errors
    /// [`Misuse::Gone`]; [`Misuse::Closing`] if it was said before; [`Misuse::NotAStream`].
    pub fn finish_stream(&mut self, conn: ConnKey) -> Result<(), Misuse> {
        let connection = self.open_conn(conn)?;
        stream(&mut connection.driver)?.finish()?;
        self.touch(conn);
        Ok(())
    }

    /// Ends a stream behind all that was written, within `Limits::write_timeout` of silence; what
    /// the peer still sends is dropped. One that is still being made is given up.
    ///
    /// # Errors
    /// [`Misuse::Gone`]; [`Misuse::NotAStream`].
    pub fn close_stream(&mut self, conn: ConnKey) -> Result<(), Misuse> {
        if self.cut_dial(conn, Cause::Terminated) {
            return Ok(());
        }
        let connection = self.open_conn(conn)?;
        let is_handshaking = connection.transport.is_handshaking();
        stream(&mut connection.driver)?.close();
        if is_handshaking {
            // What waits for a handshake cannot leave without it.
            connection.cut(Cause::Terminated);
        }
        self.touch(conn);
        Ok(())
    }

    /// Goes on with TLS on a stream that has none. What is written from here on waits until it is
    /// agreed on, which `What::Connected` tells; if it is not, `What::Closed` does. Bytes that were
    /// read before belong to the text before it: an application that has unread ones should not
    /// trust them, nor begin.
    ///
    /// # Errors
    /// [`Misuse::Gone`], [`Misuse::NotAStream`]; [`Misuse::Busy`] if what was written before has
    /// not left, or there is TLS already; [`Misuse::Closing`] after the end of our side.
    #[cfg(feature = "tls")]
    pub fn start_stream_tls(&mut self, conn: ConnKey, tls: StreamTls<'_>) -> Result<(), Misuse> {
        let now = self.now;
        let connection = self.open_conn(conn)?;
        if stream(&mut connection.driver)?.has_finished() {
            return Err(Misuse::Closing);
        }
        // It would leave at the next turn only, and in the wrong form.
        self.flush_plain(conn);
        if !self.open_conn(conn)?.may_start_tls() {
            return Err(Misuse::Busy);
        }
        let Some(mut connection) = self.conns.take(conn) else {
            return Err(Misuse::Gone);
        };
        connection.transport = match connection.transport {
            Transport::Plain(socket) => {
                let begun = match tls {
                    StreamTls::Client(client, host) => TlsStream::client(socket, client, host),
                    StreamTls::Server(server) => TlsStream::server(socket, server),
                };
                match begun {
                    Ok(stream) => Transport::Tls(Box::new(stream)),
                    Err((socket, error)) => {
                        connection.cut = true;
                        connection.cause = Some(Cause::Tls(Box::new(error)));
                        Transport::Plain(socket)
                    }
                }
            }
            already => already,
        };
        connection.connecting = connection.begin_handshake(now);
        self.conns.fill(conn, connection);
        self.touch(conn);
        Ok(())
    }

    #[cfg(feature = "tls")]
    fn flush_plain(&mut self, conn: ConnKey) {
        let now = self.now;
        if let Some(connection) = self.conns.get_mut(conn) {
            connection.flush(&mut self.net, now, &self.figures);
        }
    }

    /// Accepts nothing more at `listener` until [`release_listener`](Self::release_listener): who
    /// connects waits in the system's queue. Does nothing to one that has been closed.
    pub fn hold_listener(&mut self, listener: ListenerKey) {
        self.set_listener_held(listener, true);
    }

    /// Ends a [`hold_listener`](Self::hold_listener).
    pub fn release_listener(&mut self, listener: ListenerKey) {
        self.set_listener_held(listener, false);
    }

    fn set_listener_held(&mut self, listener: ListenerKey, held: bool) {
        let mut known = self.listeners.iter_mut();
        if let Some(listener) = known.find(|known| known.key == listener) {
            listener.held = held;
        }
    }

    /// Our own end's address; `None` once the connection has ended or before it is made.
    pub fn local_address(&self, conn: ConnKey) -> Option<Peer> {
        let socket = self.conns.get(conn)?.transport.socket();
        self.net.local_address(socket).ok()
    }

    /// Whether small writes leave at once (`TCP_NODELAY`), as they do by default.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotConnected`], or what the system refuses.
    pub fn set_nodelay(&mut self, conn: ConnKey, nodelay: bool) -> io::Result<()> {
        let connection = self.conns.get_mut(conn);
        let connection = connection.ok_or(io::ErrorKind::NotConnected)?;
        let socket = connection.transport.socket_mut();
        self.net.set_nodelay(socket, nodelay)
    }

    /// How many routers packets may pass (`IP_TTL`).
    ///
    /// # Errors
    /// As [`set_nodelay`](Self::set_nodelay).
    pub fn set_ttl(&mut self, conn: ConnKey, ttl: u8) -> io::Result<()> {
        let connection = self.conns.get_mut(conn);
        let connection = connection.ok_or(io::ErrorKind::NotConnected)?;
        let socket = connection.transport.socket_mut();
        self.net.set_ttl(socket, ttl)
    }

    /// Sets an option of the socket of a connection, or of a socket of datagrams.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotConnected`], [`io::ErrorKind::Unsupported`], or what the system refuses.
    pub fn set_option(&mut self, conn: ConnKey, option: SocketOption) -> io::Result<()> {
        if let Some(socket) = self.datagrams.get_mut(&conn) {
            return self.net.set_datagrams_option(socket.inner(), option);
        }
        let connection = self.conns.get_mut(conn);
        let connection = connection.ok_or(io::ErrorKind::NotConnected)?;
        let socket = connection.transport.socket_mut();
        self.net.set_option(socket, option)
    }
}

impl<S> Connection<S> {
    pub(super) fn is_stream(&self) -> bool {
        matches!(self.driver, Driver::Stream(_))
    }

    /// Whether our end is to be said, once all that was written has left.
    pub(super) fn owes_word(&self) -> bool {
        matches!(&self.driver, Driver::Stream(stream) if stream.owes_shutdown())
    }

    /// Tells the application that the connection may be used, once, as soon as it may.
    pub(super) fn arrive(&mut self, key: ConnKey, inbox: &mut Inbox) {
        if !self.connecting || self.transport.is_handshaking() || self.phase != Phase::Open {
            return;
        }
        self.connecting = false;
        // Who was announced before has but gone on with TLS.
        if self.announced {
            inbox.deliver_connected(key, self.peer.get());
        } else {
            self.announced = true;
            inbox.deliver_accepted(key, self.listener, self.peer.get());
        }
    }

    /// Says the end of our side, if that is owed and all before it has left.
    pub(super) fn shut<N: Net<Socket = S>>(&mut self, cx: &mut Context<'_, N>) {
        let is_ready = self.owes_word()
            && self.phase == Phase::Open
            && !self.cut
            && self.out.is_empty()
            && !self.transport.is_handshaking();
        if !is_ready {
            return;
        }
        if self.transport.begin_close() {
            self.flush(cx.net, cx.now, cx.figures);
        }
        if self.transport.has_unsent() || self.unwritable {
            return;
        }
        if let Driver::Stream(stream) = &mut self.driver {
            stream.note_shutdown();
        }
        // A peer that cannot be told has left, which the next read will say.
        let _gone = self.transport.shutdown_write(cx.net);
    }

    /// An end that may be someone else's doing ends the stream, and not as if all had come.
    pub(super) fn doubt_end(&mut self) {
        if self.truncated && self.is_stream() {
            self.cut(Cause::Truncated);
        }
    }
}

fn stream(driver: &mut Driver) -> Result<&mut StreamConn, Misuse> {
    match driver {
        Driver::Stream(stream) => Ok(stream),
        Driver::Server(_) | Driver::Client(_) | Driver::WebSocket(_) => Err(Misuse::NotAStream),
    }
}
