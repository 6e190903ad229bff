//! Connections that we open: dialling, and what is asked on them.
//!
//! Sits in the reactor, beside `ops.rs`, which has what both ends share. A key is reserved for a
//! connection before it exists; the `Dial` behind it (`dial.rs`) becomes a connection when some
//! address has taken it.
//!
//! Invariants
//! - Every dial is answered by `Connected` or by `Closed`, and `Connected` is followed by `Closed`
//!   some time.
//! - A key is good from the call that made it: it can be terminated at once.
//! - Completions come in turns, never in calls.
//!
//! Not here: pools, redirects, origins (the client's face); what a request looks like (`conn/`).

use super::conns::ConnKey;
use super::dial::{Destination, Dial, DialConfig, Progress, earlier};
use super::drive::Connection;
use super::inbox::{Cause, Inbox};
use super::{ListenerKey, Protocol, Reactor};
use crate::buffer::SendBuffer;
use crate::conn::{
    Ask, ClientConn, Driver, Exchange, Misuse, OPENING_ENTROPY_BYTES, Pressure, StreamConn,
    WsOpening,
};
#[cfg(feature = "tls")]
use crate::transport::tls::{ClientTls, TlsStream};
use crate::transport::{Net, Peer, Ready, Transport};
use std::rc::Rc;
use std::time::Duration;

impl<N: Net> Reactor<N> {
    /// Begins to connect to `to`. `What::Connected` follows, or `What::Closed` with a cause that
    /// names what failed: the name, every address, or a deadline.
    ///
    /// The key is good at once, for [`terminate`](Self::terminate).
    ///
    /// # Errors
    /// [`Misuse::TooManyConnections`] at `Limits::connections_max`; [`Misuse::Limits`] for limits
    /// that contradict each other; [`Misuse::InvalidHost`] for what can be no name and no path.
    pub fn dial(&mut self, to: &Destination, config: &DialConfig) -> Result<ConnKey, Misuse> {
        if !to.is_possible() {
            return Err(Misuse::InvalidHost);
        }
        let limits = match &config.limits {
            Some(limits) => {
                limits.check().map_err(|_| Misuse::Limits)?;
                Rc::clone(limits)
            }
            None => Rc::clone(&self.limits),
        };
        let key = self.conns.reserve().ok_or(Misuse::TooManyConnections)?;
        // Not the turn's time: the application may have used much of it since.
        let dial = Dial::new(to, config, limits, self.net.now());
        self.dials.insert(key, dial);
        self.dirty.push(key);
        Ok(key)
    }

    /// Begins to ask what addresses `name` has, and gives up after `timeout`. `What::Resolved` follows, or
    /// `What::Closed` with a cause; the key names nothing after either.
    ///
    /// # Errors
    /// [`Misuse::TooManyConnections`] at `Limits::connections_max`; [`Misuse::InvalidHost`] for what
    /// can be no name.
    pub fn resolve(&mut self, name: &str, timeout: Duration) -> Result<ConnKey, Misuse> {
        if !Destination::tcp(name, 0).is_possible() {
            return Err(Misuse::InvalidHost);
        }
        let key = self.conns.reserve().ok_or(Misuse::TooManyConnections)?;
        let config = DialConfig {
            resolve_timeout: timeout,
            ..DialConfig::default()
        };
        let limits = Rc::clone(&self.limits);
        let lookup = Dial::lookup(name, &config, limits, self.net.now());
        self.dials.insert(key, lookup);
        self.dirty.push(key);
        Ok(key)
    }

    /// Sends a request, and says under which number its response will come. Of one whose body
    /// follows piece by piece, the head leaves at the next turn in any case.
    ///
    /// # Errors
    /// [`Misuse::NotConnected`] before `What::Connected`, [`Misuse::Gone`],
    /// [`Misuse::WrongRole`] on a connection that was accepted, or as [`ClientConn::ask`]; nothing
    /// is sent then.
    pub fn ask(&mut self, conn: ConnKey, ask: &Ask<'_>) -> Result<Exchange, Misuse> {
        let (connection, _) = self.roomy_conn(conn)?;
        let exchange = client(&mut connection.driver)?.ask(ask, &mut connection.out)?;
        self.touch(conn);
        Ok(exchange)
    }

    /// Sends the next piece of a request's body. Returns [`Pressure::High`] when more than
    /// `Limits::out_bytes_high` bytes now wait: stop until `What::Writable`.
    ///
    /// # Errors
    /// [`Misuse::Gone`], or as [`ClientConn::write_body`]: the response may have come already, and
    /// then nobody waits for the rest of the request.
    pub fn write_request(
        &mut self,
        conn: ConnKey,
        exchange: Exchange,
        piece: &[u8],
    ) -> Result<Pressure, Misuse> {
        let (connection, figures) = self.roomy_conn(conn)?;
        let client = client(&mut connection.driver)?;
        client.write_body(exchange, piece, &mut connection.out)?;
        let pressure = connection.pressure(None, figures);
        self.touch(conn);
        Ok(pressure)
    }

    /// Ends a request's body.
    ///
    /// # Errors
    /// [`Misuse::Gone`], or as [`ClientConn::finish_body`].
    pub fn finish_request(&mut self, conn: ConnKey, exchange: Exchange) -> Result<(), Misuse> {
        let (connection, _) = self.roomy_conn(conn)?;
        let outcome = client(&mut connection.driver)?.finish_body(exchange, &mut connection.out);
        self.touch(conn);
        outcome
    }

    /// Asks for a WebSocket on a connection that is idle. RFC 6455 §4.1.
    ///
    /// The response comes as `What::Response`. If it agrees, `What::Open` follows, and the
    /// connection is a WebSocket; if not, the first bytes of its body, and `What::Closed` with
    /// [`Cause::Handshake`].
    ///
    /// # Errors
    /// As [`ask`](Self::ask), or as [`ClientConn::open_websocket`].
    pub fn open_websocket(
        &mut self,
        conn: ConnKey,
        opening: &WsOpening<'_>,
    ) -> Result<Exchange, Misuse> {
        self.open_conn(conn)?;
        let mut entropy = [0; OPENING_ENTROPY_BYTES];
        if let Err(error) = self.net.fill_random(&mut entropy) {
            self.open_conn(conn)?.cut(Cause::Io(error));
            self.touch(conn);
            return Err(Misuse::Gone);
        }
        let (connection, _) = self.roomy_conn(conn)?;
        let client = client(&mut connection.driver)?;
        let exchange = client.open_websocket(opening, entropy, &mut connection.out)?;
        self.touch(conn);
        Ok(exchange)
    }

    /// After a 2xx to `CONNECT`: what is asked from here on goes through the tunnel, to the other
    /// end of it. RFC 9110 §9.3.6.
    ///
    /// # Errors
    /// [`Misuse::Gone`], or [`Misuse::Busy`] if there is no tunnel.
    pub fn reset_client(&mut self, conn: ConnKey) -> Result<(), Misuse> {
        let now = self.now;
        let connection = self.open_conn(conn)?;
        client(&mut connection.driver)?.begin_tunnel(now)?;
        self.touch(conn);
        Ok(())
    }

    /// Goes on with TLS, to `host`: through a tunnel, what it leads to, or after any other word in
    /// plain text. What is asked from here on waits until it is agreed on; if it is not,
    /// `What::Closed` tells.
    ///
    /// # Errors
    /// [`Misuse::Gone`], [`Misuse::WrongRole`] on a connection that was accepted,
    /// [`Misuse::Busy`] while anything is under way on it, or TLS already.
    #[cfg(feature = "tls")]
    pub fn start_tls(&mut self, conn: ConnKey, tls: &ClientTls, host: &str) -> Result<(), Misuse> {
        let now = self.now;
        let connection = self.open_conn(conn)?;
        if !client(&mut connection.driver)?.is_idle() || !connection.may_start_tls() {
            return Err(Misuse::Busy);
        }
        let Some(mut connection) = self.conns.take(conn) else {
            return Err(Misuse::Gone);
        };
        connection.transport = match connection.transport {
            Transport::Plain(socket) => match TlsStream::client(socket, tls, host) {
                Ok(stream) => Transport::Tls(Box::new(stream)),
                Err((socket, error)) => {
                    connection.cut = true;
                    connection.cause = Some(Cause::Tls(Box::new(error)));
                    Transport::Plain(socket)
                }
            },
            already => already,
        };
        connection.begin_handshake(now);
        self.conns.fill(conn, connection);
        self.touch(conn);
        Ok(())
    }

    /// Looks at a dial whose state may have changed. Does nothing if `key` is none's.
    pub(super) fn drive_dial(&mut self, key: ConnKey, inbox: &mut Inbox) {
        let Some(dial) = self.dials.get_mut(&key) else {
            return;
        };
        match dial.advance(&mut self.net, key.to_token(), self.now) {
            Progress::Waits(until) => {
                if let Some(until) = until {
                    self.wheel.arm(key, until);
                }
            }
            Progress::Connected { socket, peer } => self.establish(key, socket, peer, inbox),
            Progress::Resolved(addresses) => {
                self.dials.remove(&key);
                self.conns.release(key);
                inbox.deliver_resolved(key, addresses);
            }
            Progress::Failed(cause) => {
                self.dials.remove(&key);
                self.conns.release(key);
                inbox.deliver_closed(key, cause);
            }
        }
    }

    /// Some socket of a dial, or one of datagrams, has something to say.
    pub(super) fn note_dial(&mut self, key: ConnKey, event: Ready, inbox: &mut Inbox) {
        if self.note_datagrams(key, event, inbox) {
            return;
        }
        if let Some(dial) = self.dials.get_mut(&key) {
            dial.readable |= event.readable;
            dial.hung_up |= event.hung_up;
            self.drive_dial(key, inbox);
        }
    }

    /// Goes on with the dials whose names have been resolved.
    pub(super) fn collect_resolved(&mut self, inbox: &mut Inbox) {
        self.net.take_resolved(&mut self.scratch.resolved);
        if self.scratch.resolved.is_empty() {
            return;
        }
        let mut resolved = core::mem::take(&mut self.scratch.resolved);
        for answer in resolved.drain(..) {
            // A late answer finds nothing, as a late event does.
            let Some(key) = ConnKey::from_token(answer.request) else {
                continue;
            };
            if let Some(dial) = self.dials.get_mut(&key) {
                dial.resolved(answer.outcome, self.now);
                self.drive_dial(key, inbox);
            }
        }
        self.scratch.resolved = resolved;
    }

    /// Gives up making `key`; whether it is being made.
    pub(super) fn cut_dial(&mut self, key: ConnKey, cause: Cause) -> bool {
        let Some(dial) = self.dials.get_mut(&key) else {
            return false;
        };
        dial.cut(cause);
        self.dirty.push(key);
        true
    }

    /// Gives up all that are being made, at the end of a drain.
    pub(super) fn cut_dials(&mut self) {
        for (key, dial) in &mut self.dials {
            dial.cut(Cause::Shutdown);
            self.dirty.push(*key);
        }
    }

    /// A dial is won: the connection begins.
    fn establish(&mut self, key: ConnKey, socket: N::Socket, peer: Peer, inbox: &mut Inbox) {
        let Some(dial) = self.dials.remove(&key) else {
            return self.net.close(socket, true);
        };
        #[cfg(feature = "tls")]
        let transport = match &dial.tls {
            None => Transport::Plain(socket),
            Some(tls) => match TlsStream::client(socket, &tls.client, &tls.host) {
                Ok(stream) => Transport::Tls(Box::new(stream)),
                Err((socket, error)) => {
                    self.net.close(socket, true);
                    self.conns.release(key);
                    return inbox.deliver_closed(key, Cause::Tls(Box::new(error)));
                }
            },
        };
        #[cfg(not(feature = "tls"))]
        let transport = Transport::Plain(socket);
        let driver = match dial.protocol {
            Protocol::Http => {
                let client = ClientConn::new(Rc::clone(&dial.limits), self.now);
                Driver::Client(Box::new(client))
            }
            Protocol::Stream => Driver::Stream(StreamConn::new()),
        };
        let mut conn = Connection::new(
            transport,
            driver,
            SendBuffer::new(&self.pool),
            dial.limits,
            ListenerKey::NONE,
            peer,
        );
        conn.announced = true;
        // Events may have told of bytes already, and will not again.
        conn.note(dial.readable, true, dial.hung_up);
        conn.connecting = conn.begin_handshake(self.now);
        conn.own_deadline = earlier(
            conn.own_deadline,
            dial.total_deadline.filter(|_| conn.connecting),
        );
        if !conn.connecting {
            inbox.deliver_connected(key, peer);
        }
        let has_unsent = conn.wants_settling();
        self.conns.fill(key, conn);
        if has_unsent {
            self.touch(key);
        }
        self.schedule(key);
    }
}

fn client(driver: &mut Driver) -> Result<&mut ClientConn, Misuse> {
    match driver {
        Driver::Client(client) => Ok(client),
        Driver::Server(_) | Driver::WebSocket(_) | Driver::Stream(_) => Err(Misuse::WrongRole),
    }
}
