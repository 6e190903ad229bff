//! What the reactor tells of the client's connections: made, answered, silent, ended.
//!
//! Sits in the client's face, behind [`Client::offer`]. Each completion moves one request by one
//! step; the way to connections and away from them is `flow.rs`'s.
//!
//! ```text
//!   Opening ── connected, tunnelled ──▶ Asked ── head ──▶ Body ── end ──▶ Draining ── dry ──▶ done
//!      ▲ ▲                               │ │
//!      │ └── a kept connection was stale ┘ └── redirect ──▶ Redirected ── end ─┐
//!      └───────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Invariants
//! - What a stream's consumer has not asked for stays in the kernel, or coded in the decoder: at most
//!   one decoded piece and what one turn reads wait for it.
//! - A body is whole when the wire says so and its codings do.
//!
//! Not here: which bytes are a body (`conn/client.rs`).

use super::decode::{DecodeError, Decoder};
use super::error::{ClientError, EndedConn, Phase};
use super::redirect::{self, RedirectError};
use super::spec::{ClientResponse, RequestBody};
use super::{Client, ClientEvent, Link, LinkStage, Request, RequestKey, Stage};
use crate::http1::{Framing, Method, Response};
use crate::reactor::conns::ConnKey;
use crate::reactor::inbox::{Cause, Completion, What};
use crate::reactor::{Destination, Host as DialHost, Reactor};
use crate::transport::Net;

/// The body of a redirect that is read so that the connection may be used again. A longer one costs
/// more than a connection does.
const REDIRECT_BYTES_MAX: u64 = 64 * 1024;

/// Bytes of decoded content delivered at once.
const PIECE_BYTES: usize = 64 * 1024;

impl Client {
    /// Takes a completion if it is of a connection of this client. Take the
    /// [events](Self::next_event) before the next is offered: after `Opened`, a connection's are
    /// the application's.
    pub fn offer<N: Net>(&mut self, reactor: &mut Reactor<N>, completion: &Completion<'_>) -> bool {
        let conn = completion.conn;
        let Some(link) = self.links.get(&conn) else {
            return false;
        };
        let stage = link.stage;
        match (completion.what, link.request) {
            (What::Closed { cause }, _) => self.closed(reactor, conn, cause),
            (_, None) => {}
            (_, Some(_)) if stage == LinkStage::Leaving => {}
            (What::Connected { .. }, Some(key)) => self.connected(reactor, key, conn),
            (What::Response { response, .. }, Some(key)) if stage == LinkStage::Tunnelling => {
                self.tunnel_answered(reactor, key, conn, &response);
            }
            (What::Response { response, .. }, Some(key)) => {
                self.head(reactor, key, conn, &response);
            }
            (What::Body { bytes, .. }, Some(key)) => self.body(reactor, key, conn, bytes),
            (What::End { .. }, Some(key)) => self.end(reactor, key, conn),
            (What::Open, Some(key)) => self.opened(key, conn),
            (What::Writable, Some(key)) => self.writable(key),
            _ => {}
        }
        self.serve_queue(reactor);
        true
    }

    fn connected<N: Net>(&mut self, reactor: &mut Reactor<N>, key: RequestKey, conn: ConnKey) {
        let has_tunnel = |link: &Link| link.route.tunnel.is_some();
        if self.links.get(&conn).is_some_and(has_tunnel) {
            self.ask_tunnel(reactor, conn);
        } else {
            self.ready(reactor, key, conn);
        }
    }

    fn tunnel_answered<N: Net>(
        &mut self,
        reactor: &mut Reactor<N>,
        key: RequestKey,
        conn: ConnKey,
        response: &Response<'_>,
    ) {
        let status = response.head().status;
        if !(200..300).contains(&status) {
            let reason = response.reason().escape_ascii().to_string().into();
            self.cut(reactor, conn);
            return self.fail(key, ClientError::ProxyRefused { status, reason });
        }
        let outcome = reactor.reset_client(conn);
        #[cfg(feature = "tls")]
        let outcome = match self.links.get(&conn).map(|link| &link.route.tls) {
            // What is asked waits for the handshake.
            Some(Some((host, tls))) => outcome.and_then(|()| reactor.start_tls(conn, &tls.0, host)),
            _ => outcome,
        };
        // One that has ended meanwhile says so by itself.
        if outcome.is_ok() {
            self.ready(reactor, key, conn);
        }
    }

    /// The server is at the other end of `conn`.
    fn ready<N: Net>(&mut self, reactor: &mut Reactor<N>, key: RequestKey, conn: ConnKey) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.stage = LinkStage::Ready;
            self.send(reactor, key, conn);
        }
    }

    fn head<N: Net>(
        &mut self,
        reactor: &mut Reactor<N>,
        key: RequestKey,
        conn: ConnKey,
        response: &Response<'_>,
    ) {
        let (Some(request), Some(link)) = (self.requests.get_mut(&key), self.links.get_mut(&conn))
        else {
            return;
        };
        let head = response.head();
        link.is_last = !head.keeps_alive
            || head.framing == Framing::UntilClose
            || request.uploads
            || !request.spec.keeps_alive
            || request.spec.field("connection").is_some();
        let outcome = request.take_head(response);
        let has_body = response.has_body();
        match outcome {
            Err(error) => {
                self.abandon(reactor, key);
                self.fail(key, error);
            }
            // Why it is none is told by its end.
            Ok(()) if request.spec.websocket.is_some() => self.arm(key, None),
            Ok(()) => {
                if request.spec.streams
                    && let Some(response) = request.response.take()
                {
                    request.total_at = None;
                    self.events.push_back(ClientEvent::Head { key, response });
                }
                if has_body {
                    self.await_body(reactor, key);
                } else {
                    self.end(reactor, key, conn);
                }
            }
        }
    }

    fn body<N: Net>(
        &mut self,
        reactor: &mut Reactor<N>,
        key: RequestKey,
        conn: ConnKey,
        bytes: &[u8],
    ) {
        let Some(request) = self.requests.get_mut(&key) else {
            return;
        };
        if let Stage::Redirected { step, left } = &mut request.stage {
            let Some(rest) = left.checked_sub(bytes.len() as u64) else {
                let step = step.as_ref().clone();
                self.abandon(reactor, key);
                return self.follow_redirect(reactor, key, step);
            };
            *left = rest;
            return;
        }
        request.received += bytes.len() as u64;
        if let Some(bytes_max) = request.spec.body_bytes_max
            && request.received > bytes_max
        {
            self.abandon(reactor, key);
            return self.fail(key, ClientError::TooLarge { bytes_max });
        }
        match &mut request.decoder {
            Some(decoder) => {
                decoder.feed(bytes);
                self.pull(reactor, key);
            }
            None if request.spec.streams => {
                request.paused = true;
                let bytes = bytes.to_vec();
                self.events.push_back(ClientEvent::Piece { key, bytes });
                reactor.hold(conn);
            }
            None => request.body.extend_from_slice(bytes),
        }
        self.await_body(reactor, key);
    }

    /// Decodes what can be: all of it if it is collected, a piece if it is streamed and wanted.
    fn pull<N: Net>(&mut self, reactor: &mut Reactor<N>, key: RequestKey) {
        let Some(request) = self.requests.get_mut(&key) else {
            return;
        };
        let Some(decoder) = &mut request.decoder else {
            return;
        };
        self.scratch.resize(PIECE_BYTES, 0);
        while !request.paused {
            match decoder.pull(&mut self.scratch) {
                Ok(0) => break,
                Ok(count) if request.spec.streams => {
                    request.paused = true;
                    let bytes = self.scratch[..count].to_vec();
                    self.events.push_back(ClientEvent::Piece { key, bytes });
                    if let Some(conn) = request.conn {
                        reactor.hold(conn);
                    }
                }
                Ok(count) => request.body.extend_from_slice(&self.scratch[..count]),
                Err(error) => {
                    self.abandon(reactor, key);
                    return self.fail(key, ClientError::Decode(error));
                }
            }
        }
    }

    /// The body is complete on the wire, or there was none.
    fn end<N: Net>(&mut self, reactor: &mut Reactor<N>, key: RequestKey, conn: ConnKey) {
        let is_websocket = |request: &Request| request.spec.websocket.is_some();
        if self.requests.get(&key).is_some_and(is_websocket) {
            return;
        }
        self.leave(reactor, conn);
        let Some(request) = self.requests.get_mut(&key) else {
            return;
        };
        request.conn = None;
        match core::mem::replace(&mut request.stage, Stage::Draining) {
            Stage::Redirected { step, .. } => self.follow_redirect(reactor, key, *step),
            _ => {
                self.arm(key, None);
                self.drain(reactor, key);
            }
        }
    }

    /// Delivers what a decoder still holds, and the end once it is dry.
    fn drain<N: Net>(&mut self, reactor: &mut Reactor<N>, key: RequestKey) {
        self.pull(reactor, key);
        let Some(request) = self.requests.get(&key) else {
            return;
        };
        if request.paused && request.decoder.is_some() {
            return;
        }
        let whole = request.decoder.as_ref().map_or(Ok(()), Decoder::finish);
        if let Err(error) = whole {
            return self.fail(key, ClientError::Decode(error));
        }
        let Some(request) = self.forget(key) else {
            return;
        };
        self.events.push_back(match request.response {
            Some(response) => ClientEvent::Response {
                key,
                response,
                body: request.body,
            },
            None => ClientEvent::End { key },
        });
    }

    /// The consumer of `key` has taken what it was given.
    pub(super) fn go_on<N: Net>(&mut self, reactor: &mut Reactor<N>, key: RequestKey) {
        let Some(request) = self.requests.get(&key) else {
            return;
        };
        if matches!(request.stage, Stage::Draining) {
            return self.drain(reactor, key);
        }
        self.pull(reactor, key);
        let Some(request) = self.requests.get(&key) else {
            return;
        };
        if let (false, Some(conn)) = (request.paused, request.conn) {
            reactor.release(conn);
            self.await_body(reactor, key);
        }
    }

    /// The server's silence counts, unless it is we who do not listen.
    fn await_body<N: Net>(&mut self, reactor: &mut Reactor<N>, key: RequestKey) {
        let Some(request) = self.requests.get(&key) else {
            return;
        };
        let timeout = request.spec.timeouts.body.filter(|_| !request.paused);
        let now = reactor.net().now();
        let at = timeout.and_then(|timeout| now.checked_add(timeout));
        self.arm(key, at.map(|at| (at, Phase::Body)));
    }

    /// The exchange on `conn` is complete.
    fn leave<N: Net>(&mut self, reactor: &mut Reactor<N>, conn: ConnKey) {
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        if link.is_last {
            // Its end is the server's to make, or the driver's; until then it counts.
            link.request = None;
            link.stage = LinkStage::Leaving;
            reactor.release(conn);
        } else {
            self.retire(reactor, conn, true);
        }
    }

    fn opened(&mut self, key: RequestKey, conn: ConnKey) {
        self.links.remove(&conn);
        let response = self.forget(key).and_then(|request| request.response);
        if let Some(response) = response {
            self.events.push_back(ClientEvent::Opened {
                key,
                conn,
                response,
            });
        }
    }

    fn writable(&mut self, key: RequestKey) {
        if self
            .requests
            .get(&key)
            .is_some_and(|request| request.uploads)
        {
            self.events.push_back(ClientEvent::WantsBody { key });
        }
    }

    fn closed<N: Net>(&mut self, reactor: &mut Reactor<N>, conn: ConnKey, cause: &Cause) {
        let Some(link) = self.links.remove(&conn) else {
            return;
        };
        self.pool.remove(conn);
        let Some(key) = link.request else {
            return;
        };
        let Some(request) = self.requests.get_mut(&key) else {
            return;
        };
        request.conn = None;
        if let Stage::Redirected { step, .. } = &request.stage {
            // The rest of its body is of no interest.
            let step = step.as_ref().clone();
            return self.follow_redirect(reactor, key, step);
        }
        if link.uses > 1 && request.may_repeat(cause) {
            request.repeated = true;
            self.arm(key, None);
            return self.restart(reactor, key);
        }
        let error = request.failure(&link, cause);
        self.fail(key, error);
    }
}

impl Request {
    /// Decides what to do with a response.
    fn take_head(&mut self, response: &Response<'_>) -> Result<(), ClientError> {
        let status = response.head().status;
        let values = |name: &'static [u8]| {
            let fields = response.fields();
            let found = fields.filter(move |(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value)
        };
        let url = self.spec.url.clone().without_credentials();
        if self.spec.websocket.is_some() {
            self.response = Some(Box::new(ClientResponse::new(response, url)));
            return Ok(());
        }
        if self.spec.redirects_max > 0 {
            let (spec, locations) = (&self.spec, values(b"location"));
            let method = (spec.method.as_slice(), spec.redirect_method);
            let step = redirect::step(status, method, &spec.url, locations);
            if let Some(step) = step.map_err(ClientError::Redirect)? {
                let is_gone = matches!(self.spec.body, RequestBody::Pieces(_));
                if is_gone && !step.becomes_get {
                    let error = RedirectError::BodyIsGone { status };
                    return Err(ClientError::Redirect(error));
                }
                self.stage = Stage::Redirected {
                    step: Box::new(step),
                    left: REDIRECT_BYTES_MAX,
                };
                return Ok(());
            }
        }
        let bytes_max = self.spec.body_bytes_max.unwrap_or(u64::MAX);
        if let Framing::Length(length) = response.head().framing {
            if length > bytes_max {
                return Err(ClientError::TooLarge { bytes_max });
            }
            if !self.spec.streams {
                // What is announced is believed up to a point: memory is taken as it comes.
                let expected = usize::try_from(length).unwrap_or(usize::MAX);
                self.body.reserve(expected.min(PIECE_BYTES));
            }
        }
        let mut kept = ClientResponse::new(response, url);
        if self.spec.decompresses && response.has_body() {
            let decoder = Decoder::new(values(b"content-encoding"), bytes_max);
            self.decoder = decoder.map_err(ClientError::Decode)?;
            if self.decoder.is_some() {
                kept.forget_coding();
            }
        }
        self.stage = Stage::Body;
        self.response = Some(Box::new(kept));
        Ok(())
    }

    /// Whether it may be asked again on another connection. RFC 9110 §9.2.2.
    fn may_repeat(&self, cause: &Cause) -> bool {
        let was_silent = matches!(cause, Cause::Agreed | Cause::PeerGone | Cause::Io(_));
        let is_idempotent = matches!(
            Method::of(&self.spec.method),
            Method::Get
                | Method::Head
                | Method::Put
                | Method::Delete
                | Method::Options
                | Method::Trace
        );
        let is_at_hand = !matches!(self.spec.body, RequestBody::Pieces(_));
        matches!(self.stage, Stage::Asked)
            && was_silent
            && is_idempotent
            && is_at_hand
            && !self.repeated
    }

    /// What the end of its connection means.
    fn failure(&mut self, link: &Link, cause: &Cause) -> ClientError {
        if let (Some(_), Cause::Handshake(error)) = (&self.spec.websocket, cause) {
            return ClientError::WebSocketRefused {
                status: self.response.as_ref().map_or(0, |head| head.status),
                response: self.response.take(),
                problem: error.to_string().into(),
                body: core::mem::take(&mut self.body),
            };
        }
        let host = match (link.stage, &link.route.to) {
            (LinkStage::Dialling, Destination::Tcp { host, .. }) => match host {
                DialHost::Name(name) => name.clone(),
                DialHost::Ip(address) => address.to_string(),
            },
            (LinkStage::Tunnelling, _) => "the proxy".to_owned(),
            _ => self.spec.url.host().to_string(),
        };
        let phase = match (&self.stage, link.stage) {
            // What fails before TLS is no end of a connection.
            (Stage::Opening, LinkStage::Dialling) => Phase::Tls,
            (Stage::Opening | Stage::Asked, _) => Phase::FirstByte,
            _ => Phase::Body,
        };
        let timeouts = self.spec.timeouts;
        let silence = match phase {
            Phase::Body => timeouts.body,
            _ => timeouts.first_byte,
        };
        ClientError::of(
            cause,
            EndedConn {
                host: &host,
                resolve: timeouts.resolve,
                connect: timeouts.connect,
                tls: timeouts.tls,
                silence: silence.unwrap_or_default(),
                reused: link.uses > 1,
                phase,
            },
        )
    }
}

/// A decoder's fault is the response's.
impl From<DecodeError> for ClientError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}
