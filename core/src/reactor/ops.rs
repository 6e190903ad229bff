//! What the application asks of the reactor: listen, answer, send, close.
//!
//! Sits in the reactor. Each operation looks up a key, calls the driver, and leaves the connection
//! in the dirty list; bytes leave at the start of the next turn, one gathered write for all that
//! was asked meanwhile.
//!
//! Invariants
//! - A stale key is answered with [`Misuse::Gone`]: scripts race with peers by nature.
//! - What waits for one peer is bounded: above `Limits::out_bytes_max` the connection is cut.
//!
//! Not here: when bytes leave (`drive.rs`), what they are (`conn/`), drains (`drain.rs`).

use super::conns::ConnKey;
use super::crowd::Crowd;
use super::drive::{Connection, Phase};
use super::figures::Figures;
use super::flush::LONG_BYTES_MIN;
use super::handover::Source;
use super::inbox::Cause;
use super::publish::Room;
use super::{Listener, ListenerKey, Reactor, ServerConfig};
use crate::buffer::SendBuffer;
use crate::conn::{
    Driver, Exchange, Misuse, Overflow, Pressure, Response, ServerConn, ServerSettings, WsConn,
    WsSettings,
};
use crate::limits::Limits;
use crate::transport::{Endpoint, Net, Peer};
#[cfg(feature = "tls")]
use crate::transport::{
    Transport,
    tls::{PeerCertificate, TlsAgreement},
};
use crate::ws::MessageKind;
use std::io;
use std::rc::Rc;
use std::time::Instant;

/// How an upgrade is accepted.
#[derive(Clone, Debug)]
pub struct Accept<'a> {
    /// The subprotocol chosen, one of those offered.
    pub protocol: Option<&'a [u8]>,
    /// Further fields of the 101.
    pub fields: &'a [(&'a [u8], &'a [u8])],
    /// How the WebSocket is to behave.
    pub settings: Rc<WsSettings>,
}

impl<N: Net> Reactor<N> {
    /// Accepts connections at `at`. Port 0 chooses one; [`local_endpoint`](Self::local_endpoint)
    /// tells which.
    ///
    /// # Errors
    /// What the system refuses, such as an address in use; [`io::ErrorKind::InvalidInput`] for
    /// limits that contradict each other.
    pub fn listen(&mut self, at: &Endpoint, config: ServerConfig) -> io::Result<ListenerKey> {
        self.add_listener(config, |net, token| net.listen(at, token).map(Source::Own))
    }

    /// Adds a listener whose connections come from what `open` makes.
    pub(super) fn add_listener(
        &mut self,
        config: ServerConfig,
        open: impl FnOnce(&mut N, u64) -> io::Result<Source<N::Listener>>,
    ) -> io::Result<ListenerKey> {
        let limits = match config.limits {
            Some(limits) => Rc::new(checked(limits)?),
            None => Rc::clone(&self.limits),
        };
        let settings = Rc::new(ServerSettings {
            limits,
            date: Rc::clone(&self.date),
            collect_bodies: config.collect_bodies,
            websocket: config.websocket,
            refusals: config.refusals,
        });
        let key = ListenerKey(self.next_listener);
        let source = open(&mut self.net, u64::from(key.0))?;
        self.next_listener += 1;
        let crowd = Crowd::new(settings.limits.connections_per_ip_max, self.now);
        self.listeners.push(Listener {
            key,
            source,
            settings,
            protocol: config.protocol,
            proxy_headers: config.proxy_headers,
            outlives_drain: config.outlives_drain,
            #[cfg(feature = "tls")]
            tls: config.tls,
            waiting: false,
            held: false,
            open: 0,
            crowd,
            rests_until: None,
        });
        Ok(key)
    }

    /// Where `listener` listens; `None` once it is closed.
    pub fn local_endpoint(&self, listener: ListenerKey) -> Option<Endpoint> {
        let listener = self.listeners.iter().find(|known| known.key == listener)?;
        match &listener.source {
            Source::Own(socket) => self.net.local_endpoint(socket).ok(),
            Source::Shared { at, .. } => Some(at.clone()),
        }
    }

    /// Accepts no more connections at `listener`; those that are here stay.
    ///
    /// Those that wait in the system's queue are here, too: their peers believe themselves
    /// connected, and closing the listener over them would reset them.
    pub fn close_listener(&mut self, listener: ListenerKey) {
        let is_it = |known: &Listener<_>| known.key == listener;
        if let Some(index) = self.listeners.iter().position(is_it) {
            self.accept_all(index);
            match self.listeners.swap_remove(index).source {
                Source::Own(socket) => self.net.close_listener(socket),
                Source::Shared { socket, .. } => {
                    if let Some(socket) = socket {
                        self.net.close_listener(socket);
                    }
                    self.forget_share(listener);
                }
            }
        }
    }

    /// Takes every connection that waits at listener `index`, as far as the table has room.
    fn accept_all(&mut self, index: usize) {
        let mut errors = core::mem::take(&mut self.scratch.accept_errors);
        self.listeners[index].waiting = true;
        self.listeners[index].rests_until = None;
        self.keep_arrivals(index, &mut errors);
        while !self.conns.is_full() && self.accept_one(index, &mut errors) {}
        self.scratch.accept_errors = errors;
    }

    /// Answers a request whole.
    ///
    /// # Errors
    /// [`Misuse::Gone`], or as [`ServerConn::respond`]; nothing is sent then.
    pub fn respond(
        &mut self,
        conn: ConnKey,
        exchange: Exchange,
        response: &Response<'_>,
    ) -> Result<Pressure, Misuse> {
        let pressure = self.answer(conn, exchange, |server, out, now| {
            server.respond(exchange, response, now, out)
        })?;
        self.figures.note_response(response.status);
        Ok(pressure)
    }

    /// Answers a request as `response` says, or with the page that the listener has for its status.
    ///
    /// # Errors
    /// As [`respond`](Self::respond).
    pub fn respond_with_page(
        &mut self,
        conn: ConnKey,
        exchange: Exchange,
        response: &Response<'_>,
    ) -> Result<Pressure, Misuse> {
        let pressure = self.answer(conn, exchange, |server, out, now| {
            server.respond_with_page(exchange, response, now, out)
        })?;
        self.figures.note_response(response.status);
        Ok(pressure)
    }

    /// Begins an answer whose body follows piece by piece.
    ///
    /// # Errors
    /// [`Misuse::Gone`], or as [`ServerConn::begin_response`]; nothing is sent then.
    pub fn begin_response(
        &mut self,
        conn: ConnKey,
        exchange: Exchange,
        response: &Response<'_>,
    ) -> Result<Pressure, Misuse> {
        let pressure = self.answer(conn, exchange, |server, out, _| {
            server.begin_response(exchange, response, out)
        })?;
        self.figures.note_response(response.status);
        Ok(pressure)
    }

    /// Sends the next piece of a body. Returns [`Pressure::High`] when more than
    /// `Limits::out_bytes_high` bytes now wait: stop until `What::Writable`.
    ///
    /// # Errors
    /// [`Misuse::Gone`], or as [`ServerConn::write_body`].
    pub fn write_body(
        &mut self,
        conn: ConnKey,
        exchange: Exchange,
        piece: &[u8],
    ) -> Result<Pressure, Misuse> {
        self.answer(conn, exchange, |server, out, _| {
            server.write_body(exchange, piece, out)
        })
    }

    /// Ends a body.
    ///
    /// # Errors
    /// [`Misuse::Gone`], or as [`ServerConn::finish_body`].
    pub fn finish_body(&mut self, conn: ConnKey, exchange: Exchange) -> Result<Pressure, Misuse> {
        self.answer(conn, exchange, |server, out, now| {
            server.finish_body(exchange, now, out)
        })
    }

    /// Gives up a body that was begun, so that the peer can see that it is not whole: the
    /// connection closes behind what was sent, or is cut if the peer speaks HTTP/1.0.
    ///
    /// # Errors
    /// [`Misuse::Gone`], or as [`ServerConn::abandon_body`].
    pub fn abandon_body(&mut self, conn: ConnKey, exchange: Exchange) -> Result<(), Misuse> {
        let mut is_plain = false;
        self.answer(conn, exchange, |server, out, now| {
            is_plain = server.abandon_body(exchange, now, out)?;
            Ok(())
        })?;
        if is_plain {
            Ok(())
        } else {
            self.terminate(conn)
        }
    }

    /// Whether [`write_body`](Self::write_body) would send anything for `exchange`: not where
    /// there must be no body, as in the answer to a HEAD.
    pub fn sends_body(&self, conn: ConnKey, exchange: Exchange) -> bool {
        let connection = self.conns.get(conn);
        connection.is_some_and(|connection| match &connection.driver {
            Driver::Server(server) => server.sends_body(exchange),
            Driver::Client(_) | Driver::WebSocket(_) | Driver::Stream(_) => false,
        })
    }

    /// Whether `conn` has ended, or its peer has said that it will send nothing more. Few peers
    /// that have said so still listen; those that do are still answered.
    pub fn has_left(&self, conn: ConnKey) -> bool {
        let connection = self.conns.get(conn);
        connection.is_none_or(|connection| {
            connection.phase != Phase::Open || connection.is_cut() || connection.eof
        })
    }

    /// Accepts an upgrade to WebSocket. `What::Open` follows; messages may be sent at once unless
    /// earlier requests of the connection are still unanswered.
    ///
    /// # Errors
    /// [`Misuse::Gone`], or as [`ServerConn::accept`]; nothing is sent then.
    pub fn accept_websocket(
        &mut self,
        conn: ConnKey,
        exchange: Exchange,
        accept: &Accept<'_>,
    ) -> Result<(), Misuse> {
        let now = self.now;
        let connection = self.open_conn(conn)?;
        let Driver::Server(server) = &mut connection.driver else {
            return Err(Misuse::NotAnUpgrade);
        };
        server.accept(
            exchange,
            accept.protocol,
            accept.fields,
            &accept.settings,
            &mut connection.out,
        )?;
        connection.switch(now);
        self.figures.note_response(101);
        self.touch(conn);
        Ok(())
    }

    /// Sends one whole WebSocket message to `conn`. It leaves at the next turn with what else is sent
    /// in this one, or at once, behind that, if it is so long that a copy of it costs more than a
    /// write. RFC 6455 §5.6.
    ///
    /// Returns [`Pressure::High`] when more than `Limits::out_bytes_high` bytes now wait: stop
    /// until `What::Writable`.
    ///
    /// # Errors
    /// - [`Misuse::Gone`] if the connection has ended, or ends now because the peer does not
    ///   read what waits already (see [`Overflow`]).
    /// - [`Misuse::NotAWebSocket`] if it still speaks HTTP.
    /// - [`Misuse::Closing`] behind a close frame; [`Misuse::NotUtf8`] for bad text.
    pub fn send(
        &mut self,
        conn: ConnKey,
        kind: MessageKind,
        payload: &[u8],
    ) -> Result<Pressure, Misuse> {
        let now = self.now;
        let (connection, figures) = self.roomy_conn(conn)?;
        let room = connection.room_for_message(now)?;
        let pressure = match room {
            Room::None(Overflow::Drop) => {
                self.figures.messages_dropped.add(1);
                Pressure::Dropped
            }
            Room::None(Overflow::Close) => {
                self.figures.closed_behind.add(1);
                self.touch(conn);
                return Err(Misuse::Gone);
            }
            // What has no key has nothing to be replaced by.
            Room::Enough | Room::None(Overflow::Latest) if payload.len() >= LONG_BYTES_MIN => {
                self.send_long(conn, kind, payload)?
            }
            Room::Enough | Room::None(Overflow::Latest) => {
                websocket(&mut connection.driver)?.send(kind, payload, &mut connection.out)?;
                connection.pressure(None, figures)
            }
        };
        let is_sent = pressure != Pressure::Dropped;
        self.figures.messages_sent.add(usize::from(is_sent));
        self.touch(conn);
        Ok(pressure)
    }

    /// Whether [`send`](Self::send) would take a message for `conn` now: it is a WebSocket, neither
    /// end has closed it, and its peer has not fallen too far behind.
    pub fn accepts_messages(&self, conn: ConnKey) -> bool {
        let Some(connection) = self.conns.get(conn) else {
            return false;
        };
        let is_open = connection.phase == Phase::Open && !connection.is_cut();
        let is_roomy = connection.waiting_bytes() <= connection.limits.out_bytes_max as usize;
        match &connection.driver {
            Driver::WebSocket(websocket) => is_open && is_roomy && websocket.accepts_messages(),
            Driver::Server(_) | Driver::Client(_) | Driver::Stream(_) => false,
        }
    }

    /// Sends a ping; its pong comes as `What::Pong`.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`Misuse::PingTooLong`] above 125 bytes.
    pub fn ping(&mut self, conn: ConnKey, payload: &[u8]) -> Result<(), Misuse> {
        let (connection, _) = self.roomy_conn(conn)?;
        websocket(&mut connection.driver)?.ping(payload, &mut connection.out)?;
        self.touch(conn);
        Ok(())
    }

    /// Begins the closing handshake. RFC 6455 §7.1.2.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`Misuse::InvalidClose`] for a code or reason that may not be
    /// sent.
    pub fn close(&mut self, conn: ConnKey, code: u16, reason: &[u8]) -> Result<(), Misuse> {
        let now = self.now;
        let connection = self.open_conn(conn)?;
        websocket(&mut connection.driver)?.begin_close(code, reason, now, &mut connection.out)?;
        self.touch(conn);
        Ok(())
    }

    /// Cuts the connection at the next turn, or gives up making it: what waits is dropped, the peer
    /// sees a reset.
    ///
    /// # Errors
    /// [`Misuse::Gone`].
    pub fn terminate(&mut self, conn: ConnKey) -> Result<(), Misuse> {
        if self.cut_dial(conn, Cause::Terminated) {
            return Ok(());
        }
        self.open_conn(conn)?.cut(Cause::Terminated);
        self.touch(conn);
        Ok(())
    }

    /// Stops reading from `conn` until [`release`](Self::release): the peer's sending backs up in
    /// the network. Does nothing to a connection that has ended.
    pub fn hold(&mut self, conn: ConnKey) {
        if let Some(connection) = self.conns.get_mut(conn) {
            connection.held = true;
        } else {
            self.hold_datagrams(conn, true);
        }
    }

    /// Ends a [`hold`](Self::hold).
    pub fn release(&mut self, conn: ConnKey) {
        let Some(connection) = self.conns.get_mut(conn) else {
            return self.hold_datagrams(conn, false);
        };
        if core::mem::take(&mut connection.held) {
            self.touch(conn);
        }
    }

    /// Who is at the other end.
    pub fn peer(&self, conn: ConnKey) -> Option<Peer> {
        self.conns.get(conn).map(|connection| connection.peer.get())
    }

    /// The certificate by which the other end has proved who it is, if it has: over TLS, a client
    /// that was asked for one, or any server.
    #[cfg(feature = "tls")]
    pub fn peer_certificate(&self, conn: ConnKey) -> Option<PeerCertificate<'_>> {
        match &self.conns.get(conn)?.transport {
            Transport::Plain(_) | Transport::Preceded(_) => None,
            Transport::Tls(stream) => stream.peer_certificate(),
        }
    }

    /// What the two ends of a TLS connection have agreed on, once the handshake is done.
    #[cfg(feature = "tls")]
    pub fn tls_agreement(&self, conn: ConnKey) -> Option<TlsAgreement<'_>> {
        match &self.conns.get(conn)?.transport {
            Transport::Plain(_) | Transport::Preceded(_) => None,
            Transport::Tls(stream) => stream.agreement(),
        }
    }

    /// Bytes that wait to be sent to `conn`.
    pub fn waiting_bytes(&self, conn: ConnKey) -> Option<usize> {
        self.conns.get(conn).map(Connection::waiting_bytes)
    }

    fn answer(
        &mut self,
        conn: ConnKey,
        exchange: Exchange,
        write: impl FnOnce(&mut ServerConn, &mut SendBuffer, Instant) -> Result<(), Misuse>,
    ) -> Result<Pressure, Misuse> {
        let now = self.now;
        let (connection, figures) = self.roomy_conn(conn)?;
        let server = match &mut connection.driver {
            Driver::Server(server) => server,
            Driver::Client(_) | Driver::Stream(_) => return Err(Misuse::WrongRole),
            Driver::WebSocket(_) => return Err(Misuse::AlreadyAnswered),
        };
        write(server, &mut connection.out, now)?;
        connection.switch(now);
        let pressure = connection.pressure(Some(exchange), figures);
        if !core::mem::replace(&mut connection.dirty, true) {
            self.dirty.push(conn);
        }
        Ok(pressure)
    }

    /// A connection that has not begun to end.
    pub(super) fn open_conn(
        &mut self,
        conn: ConnKey,
    ) -> Result<&mut Connection<N::Socket>, Misuse> {
        self.open_and_figures(conn)
            .map(|(connection, _)| connection)
    }

    #[inline]
    fn open_and_figures(&mut self, conn: ConnKey) -> Result<Counted<'_, N::Socket>, Misuse> {
        let Some(connection) = self.conns.get_mut(conn) else {
            return Err(if self.dials.contains_key(&conn) {
                Misuse::NotConnected
            } else {
                Misuse::Gone
            });
        };
        if connection.phase == Phase::Open && !connection.is_cut() {
            Ok((connection, &self.figures))
        } else {
            Err(Misuse::Gone)
        }
    }

    /// An open connection that may queue more; one that may not is cut.
    pub(super) fn roomy_conn(&mut self, conn: ConnKey) -> Result<Counted<'_, N::Socket>, Misuse> {
        let is_full = self.conns.get(conn).is_some_and(|connection| {
            connection.waiting_bytes() > connection.limits.out_bytes_max as usize
        });
        if is_full {
            self.open_conn(conn)?.cut(Cause::TooSlow);
            self.touch(conn);
            return Err(Misuse::Gone);
        }
        self.open_and_figures(conn)
    }
}

/// A connection, and where it is counted.
type Counted<'r, S> = (&'r mut Connection<S>, &'r Figures);

pub(super) fn websocket(driver: &mut Driver) -> Result<&mut WsConn, Misuse> {
    match driver {
        Driver::WebSocket(websocket) => Ok(websocket),
        Driver::Server(_) | Driver::Client(_) | Driver::Stream(_) => Err(Misuse::NotAWebSocket),
    }
}

fn checked(limits: Limits) -> io::Result<Limits> {
    match limits.check() {
        Ok(()) => Ok(limits),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidInput, error)),
    }
}
