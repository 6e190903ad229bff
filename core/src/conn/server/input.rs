//! The input half of a server connection: heads, bodies, and refusals of both. RFC 9112 §3 to §7.
//!
//! The other half of `conn/server.rs`, whose state it moves. Parsing itself is `http1/`'s.
//!
//! Invariants
//! - A step consumes something or asks for more; it never consumes what it has not understood.
//! - What is refused is refused before anything of it was delivered, where that can be known.
//!
//! Not here: answers of the application (`conn/server.rs`), what a refusal says (`server/refuse.rs`).

use super::{ServerConn, State, UpgradeAsked};
use crate::buffer::SendBuffer;
use crate::conn::body::{Destination, IncomingBody};
use crate::conn::pipeline::Asked;
use crate::conn::{EventLog, Exchange};
use crate::http1::{Framing, Method, RequestHead, Version, parse};
use crate::violation::Violation;
use crate::ws::deflate::DeflateOffer;
use crate::ws::handshake::{self, HandshakeError};
use std::rc::Rc;
use std::time::Instant;

/// What is refused, and so how.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    Violation(Violation),
    Handshake(HandshakeError),
}

impl Refusal {
    pub(super) fn violation(self) -> Violation {
        match self {
            Self::Violation(violation) => violation,
            Self::Handshake(HandshakeError::Method) => Violation::WebSocketMethod,
            Self::Handshake(HandshakeError::VersionUnsupported) => Violation::WebSocketVersion,
            Self::Handshake(_) => Violation::WebSocketHandshake,
        }
    }

    /// What the answer must say beside its status.
    pub(super) fn fields(self) -> &'static [(&'static [u8], &'static [u8])] {
        match self {
            Self::Violation(_) => &[],
            Self::Handshake(error) => error.fields(),
        }
    }
}

impl From<Violation> for Refusal {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl From<HandshakeError> for Refusal {
    fn from(error: HandshakeError) -> Self {
        Self::Handshake(error)
    }
}

impl ServerConn {
    pub(super) fn receive_head(
        &mut self,
        segment: &[u8],
        at: usize,
        now: Instant,
        log: &mut EventLog,
        out: &mut SendBuffer,
    ) -> Result<usize, Refusal> {
        let State::Head {
            progress,
            begun,
            skipped_line,
        } = &mut self.state
        else {
            return Ok(0);
        };
        let input = &segment[at..];
        let settings = Rc::clone(&self.settings);
        let limits = &settings.limits;
        // RFC 9112 §2.2: one empty line before a request line is skipped.
        if !*skipped_line && input.starts_with(b"\r\n") {
            (*skipped_line, *begun) = (true, false);
            return Ok(2);
        }
        let parsed = match input {
            b"\r" if !*skipped_line => None,
            _ => parse::parse_request(input, progress, limits, &mut log.fields)?,
        };
        let Some(mut head) = parsed else {
            if !core::mem::replace(begun, true) {
                self.deadline = now.checked_add(limits.head_timeout);
            }
            return Ok(0);
        };
        let len = head.len as usize;
        if head.method == Method::Connect {
            return Err(Violation::Connect.into());
        }
        if let Framing::Length(length) = head.framing
            && self.settings.collect_bodies
            && length > limits.body_bytes_max
        {
            self.open_refused(&head);
            return Err(Violation::BodyTooLarge.into());
        }
        head.upgrades_to_websocket &= self.settings.websocket && head.framing == Framing::None;
        let upgrade = if head.upgrades_to_websocket {
            let offer = handshake::check_upgrade(&log.view(&head, input))
                .inspect_err(|_| self.open_refused(&head))?;
            let deflate = DeflateOffer::first(offer.extensions());
            Some(Box::new(UpgradeAsked {
                accept_key: handshake::accept_key(offer.key),
                deflate,
            }))
        } else {
            None
        };
        let exchange = self.open(&head, out);
        self.state = match (upgrade, IncomingBody::new(head.framing, limits)) {
            (Some(asked), _) => State::Upgrade { exchange, asked },
            (None, Some(body)) => State::Body { exchange, body },
            (None, None) if self.pipeline.closes() => State::Done(None),
            (None, None) => State::resting(),
        };
        log.push_request(exchange, head, at);
        Ok(len)
    }

    /// Opens the exchange of a request that is refused although its head is whole, so that the
    /// refusal of a HEAD has no body (RFC 9110 §9.3.2).
    fn open_refused(&mut self, head: &RequestHead) {
        let exchange = self.pipeline.open(asked(head));
        self.state = State::Refused { exchange };
    }

    /// Opens an exchange for a request just parsed.
    fn open(&mut self, head: &RequestHead, out: &mut SendBuffer) -> Exchange {
        let exchange = self.pipeline.open(asked(head));
        self.peer_leaves = !head.keeps_alive;
        if !head.keeps_alive || self.is_draining {
            self.pipeline.close_after(exchange);
        }
        if head.expects_continue && head.framing != Framing::None {
            // RFC 9110 §10.1.1: also where the client has sent some of the body already, so that
            // what we send does not depend on how its bytes were cut.
            self.pipeline
                .slot(exchange, out)
                .out
                .append(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        exchange
    }

    pub(super) fn receive_body(
        &mut self,
        segment: &[u8],
        at: usize,
        log: &mut EventLog,
        out: &SendBuffer,
    ) -> Result<usize, Refusal> {
        let State::Body { exchange, body } = &mut self.state else {
            return Ok(0);
        };
        let settings = &self.settings;
        let to = Destination {
            exchange: *exchange,
            collect_bytes_max: settings
                .collect_bodies
                .then_some(settings.limits.body_bytes_max),
            log,
            pool: out.pool(),
        };
        let taken = body.receive(segment, at, to)?;
        if taken.ends {
            self.state = if self.pipeline.closes() {
                State::Done(None)
            } else {
                State::resting()
            };
        }
        Ok(taken.consumed)
    }
}

/// What the answer to the request with this head needs to know of it.
fn asked(head: &RequestHead) -> Asked {
    Asked {
        head: head.method == Method::Head,
        http10: head.version == Version::Http10,
    }
}
