//! The client side of one HTTP/1.1 connection. RFC 9112.
//!
//! One exchange at a time: a request out, its response in, then the next. Interim responses are
//! skipped, bodies are collected or delivered as they come, and a 101 ends this driver's work.
//!
//! ```text
//!   Idle ── request ──▶ Head ── final head, no body ──▶ Idle, or Done if it was the last
//!     │                  │ ▲└─ 1xx ─┘│
//!     │                  │           └─ final head ──▶ Body ── end ──▶ Idle or Done
//!     │                  ├─ 101 that was asked for ──▶ Switched ── take_opened ──▶ a WebSocket
//!     │                  └─ 2xx to CONNECT ──────────▶ Switched ── begin_tunnel ──▶ Idle
//!     └── unasked bytes, end of input ──▶ Done ◀── violation, deadline ── any
//! ```
//!
//! Invariants
//! - Every request gets one `Response` event, and its `End` if it has a body, or the connection
//!   ends without.
//! - A response that the end of the connection cut short is never taken for whole.
//! - The connection is not reused unless both messages are complete and both ends agree.
//! - A response has its time from the moment when its request has left, which
//!   [`ClientConn::note_sent`] tells; until then the write timeout guards the upload. Interim
//!   responses do not put it off.
//!
//! Not here: connecting, pools, redirects (the client's face); parsing (`http1/`).

mod ask;
mod opening;

pub use ask::{Ask, AskBody};
pub use opening::{OPENING_ENTROPY_BYTES, Opened, WsOpening};

use super::body::{Destination, IncomingBody};
use super::{Appetite, Deadline, Event, EventLog, Exchange, Misuse};
use crate::buffer::SendBuffer;
use crate::http1::parse::{self, HeadProgress};
use crate::http1::{Framing, Method, Response, ResponseHead, write};
use crate::limits::Limits;
use crate::violation::Violation;
use crate::ws::handshake::HandshakeError;
use core::time::Duration;
use opening::Opening;
use std::rc::Rc;
use std::time::Instant;

/// Where the response stands.
#[derive(Debug)]
enum State {
    /// No request is under way.
    Idle,
    /// In the head of the response, or before it.
    Head { progress: HeadProgress },
    /// In its body.
    Body { body: IncomingBody, is_last: bool },
    /// A 101 came, or a 2xx to `CONNECT`: what follows is of another protocol.
    Switched,
    /// No further input means anything.
    Done,
}

/// Where the request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Complete,
    Length { left: u64 },
    Chunked,
}

/// How a connection that broke no rule of the wire came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nothing was owed, or it has not ended.
    Agreed,
    /// The server left instead of responding.
    PeerGone,
    /// A WebSocket was asked for, and the response does not agree to it.
    Refused(HandshakeError),
}

/// A sans-IO HTTP/1.1 client connection. See the module for its diagram.
#[derive(Debug)]
pub struct ClientConn {
    limits: Rc<Limits>,
    state: State,
    sending: Sending,
    /// Of the request under way, which decides how its response is delimited.
    method: Method,
    /// The request said `Connection: close`.
    closes: bool,
    collect_bytes_max: Option<u64>,
    exchange: Exchange,
    deadline: Option<Instant>,
    /// Some byte of the response, or of one before it, has come.
    heard: bool,
    ending: Ending,
    /// A WebSocket that is being opened.
    opening: Option<Box<Opening>>,
    /// One that has been, until it is taken.
    opened: Option<Box<Opened>>,
}

impl ClientConn {
    /// A fresh connection, on which nothing has been asked.
    pub fn new(limits: Rc<Limits>, now: Instant) -> Self {
        Self {
            deadline: now.checked_add(limits.idle_timeout),
            limits,
            state: State::Idle,
            sending: Sending::Complete,
            method: Method::Other,
            closes: false,
            collect_bytes_max: None,
            exchange: Exchange(0),
            heard: false,
            ending: Ending::Agreed,
            opening: None,
            opened: None,
        }
    }

    /// Sends a request, and says under which number its response will come.
    ///
    /// # Errors
    /// [`Misuse::Busy`] while another is under way, [`Misuse::Gone`] if the connection takes no
    /// more, [`Misuse::InvalidField`] for a method, target, host or field that may not be sent;
    /// nothing is written then.
    pub fn ask(&mut self, ask: &Ask<'_>, out: &mut SendBuffer) -> Result<Exchange, Misuse> {
        self.check_idle()?;
        let closes = ask.check()?;
        self.method = Method::of(ask.method);
        self.sending = match ask.body {
            AskBody::None | AskBody::Whole(_) | AskBody::Length(0) => Sending::Complete,
            AskBody::Length(left) => Sending::Length { left },
            AskBody::Chunked => Sending::Chunked,
        };
        self.closes = closes;
        self.collect_bytes_max = ask.collect_bytes_max;
        ask.write_head(self.method, out);
        if let AskBody::Whole(body) = ask.body {
            out.append(body);
        }
        Ok(self.await_response())
    }

    /// Asks for a WebSocket. `entropy` must be unpredictable and used for nothing else: the nonce
    /// and the masking keys are made of it (RFC 6455 §4.1, §10.3).
    ///
    /// The response comes in any case. If it agrees, [`take_opened`](Self::take_opened) has the
    /// WebSocket; if not, the first bytes of its body follow, the connection closes, and
    /// [`ending`](Self::ending) tells why.
    ///
    /// # Errors
    /// As [`ask`](Self::ask); [`Misuse::WrongRole`] for settings of a server.
    pub fn open_websocket(
        &mut self,
        wanted: &WsOpening<'_>,
        entropy: [u8; OPENING_ENTROPY_BYTES],
        out: &mut SendBuffer,
    ) -> Result<Exchange, Misuse> {
        self.check_idle()?;
        let opening = Opening::begin(wanted, entropy, out)?;
        self.opening = Some(Box::new(opening));
        self.method = Method::Get;
        self.sending = Sending::Complete;
        self.closes = true;
        self.collect_bytes_max = None;
        Ok(self.await_response())
    }

    /// What was agreed on, once, if the response accepted a WebSocket: its driver goes on.
    pub fn take_opened(&mut self) -> Option<Opened> {
        self.opened.take().map(|opened| *opened)
    }

    /// Asks through the tunnel that a 2xx to `CONNECT` has opened: what comes from here on is of
    /// the other end. RFC 9110 §9.3.6.
    ///
    /// # Errors
    /// [`Misuse::Busy`] if there is none.
    pub fn begin_tunnel(&mut self, now: Instant) -> Result<(), Misuse> {
        if !self.is_switched() || self.method != Method::Connect {
            return Err(Misuse::Busy);
        }
        self.state = State::Idle;
        self.deadline = now.checked_add(self.limits.idle_timeout);
        Ok(())
    }

    /// Nothing that was written waits any more: from here on, the server's silence counts.
    pub fn note_sent(&mut self, now: Instant) {
        if self.deadline.is_none() {
            self.arm(now);
        }
    }

    /// Counts silence from `now` on, because it was we who did not read.
    pub fn excuse_silence(&mut self, now: Instant) {
        self.arm(now);
    }

    /// No further request: once the one under way is done, the connection closes.
    pub fn begin_drain(&mut self) {
        self.closes = true;
        match &mut self.state {
            State::Idle => self.end(),
            State::Body { is_last, .. } => *is_last = true,
            State::Head { .. } | State::Switched | State::Done => {}
        }
    }

    /// Why it closes, if no violation and no deadline said so.
    pub fn ending(&self) -> Ending {
        self.ending
    }

    /// Sends the next piece of the request's body. An empty piece sends nothing.
    ///
    /// # Errors
    /// [`Misuse::AlreadyAnswered`] if none of `exchange` is awaited, [`Misuse::LengthMismatch`] if
    /// it would exceed the announced length; nothing is written then.
    pub fn write_body(
        &mut self,
        exchange: Exchange,
        piece: &[u8],
        out: &mut SendBuffer,
    ) -> Result<(), Misuse> {
        self.check_current(exchange)?;
        match self.sending {
            Sending::Complete => Err(Misuse::AlreadyAnswered),
            Sending::Chunked => {
                write::chunk(out, piece);
                Ok(())
            }
            Sending::Length { left } => {
                let left = left
                    .checked_sub(piece.len() as u64)
                    .ok_or(Misuse::LengthMismatch)?;
                self.sending = if left == 0 {
                    Sending::Complete
                } else {
                    Sending::Length { left }
                };
                out.append(piece);
                Ok(())
            }
        }
    }

    /// Ends the request's body.
    ///
    /// # Errors
    /// [`Misuse::AlreadyAnswered`] if `exchange` is over; [`Misuse::LengthMismatch`] if less came
    /// than was announced: the connection is of no use then, and closes.
    pub fn finish_body(&mut self, exchange: Exchange, out: &mut SendBuffer) -> Result<(), Misuse> {
        self.check_current(exchange)?;
        match core::mem::replace(&mut self.sending, Sending::Complete) {
            Sending::Complete => Ok(()),
            Sending::Chunked => {
                write::last_chunk(out);
                Ok(())
            }
            Sending::Length { .. } => {
                self.end();
                Err(Misuse::LengthMismatch)
            }
        }
    }

    /// Consumes from the front of `segment`. What is left must be offered again, with more behind
    /// it.
    ///
    /// # Errors
    /// The rule the server broke. No answer is owed to a server: the connection just closes.
    pub fn receive(
        &mut self,
        segment: &mut [u8],
        now: Instant,
        log: &mut EventLog,
        out: &mut SendBuffer,
    ) -> Result<usize, Violation> {
        self.heard |= !segment.is_empty();
        let mut at = 0;
        while at < segment.len() && self.appetite() == Appetite::Read && log.take_step() {
            let step = match self.state {
                State::Head { .. } => self.receive_head(segment, at, log),
                State::Body { .. } => self.receive_body(segment, at, log, out),
                State::Idle => Err(Violation::Unsolicited),
                State::Switched | State::Done => break,
            };
            match step {
                Ok(0) => break,
                Ok(consumed) => at += consumed,
                Err(violation) => {
                    self.end();
                    return Err(violation);
                }
            }
        }
        if at > 0 {
            self.renew_deadline(now);
        }
        Ok(at)
    }

    /// The server will send nothing more. Ends a body that has no other end.
    ///
    /// # Errors
    /// [`Violation::Incomplete`] if a response's head is cut short, [`Violation::BodyIncomplete`]
    /// if its body is. That a server left without a word is no violation but an
    /// [`ending`](Self::ending).
    pub fn receive_eof(&mut self, log: &mut EventLog, out: &SendBuffer) -> Result<(), Violation> {
        let state = core::mem::replace(&mut self.state, State::Done);
        self.deadline = None;
        match state {
            State::Body { mut body, .. }
                if body.ends_with_connection() || self.opening.is_some() =>
            {
                body.finish(self.destination(log, out));
                Ok(())
            }
            State::Head { .. } if !self.heard => {
                self.ending = Ending::PeerGone;
                Ok(())
            }
            State::Head { .. } => Err(Violation::Incomplete),
            State::Body { .. } => Err(Violation::BodyIncomplete),
            State::Idle | State::Switched | State::Done => Ok(()),
        }
    }

    /// The server will send nothing more, or someone kept the rest from us: over TLS, the end came
    /// without a word (RFC 9112 §9.8). So it does not end a body, as
    /// [`receive_eof`](Self::receive_eof) does.
    ///
    /// # Errors
    /// As [`receive_eof`](Self::receive_eof), and [`Violation::BodyIncomplete`] for a body that
    /// does not tell its own end.
    pub fn receive_truncation(
        &mut self,
        log: &mut EventLog,
        out: &SendBuffer,
    ) -> Result<(), Violation> {
        if let State::Body { .. } = self.state {
            self.end();
            return Err(Violation::BodyIncomplete);
        }
        self.receive_eof(log, out)
    }

    /// Acts on a deadline that has passed, after which the connection closes: `None` if none has,
    /// or if its [`ending`](Self::ending) tells more.
    pub fn handle_deadline(&mut self, now: Instant) -> Option<Deadline> {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return None;
        }
        let missed = match self.state {
            State::Head { .. } if self.opening.is_some() => Some(Deadline::Handshake),
            State::Head { .. } if self.heard => Some(Deadline::Head),
            State::Head { .. } => Some(Deadline::FirstByte),
            // The rest of a refusal; why it closes is known.
            State::Body { .. } if self.opening.is_some() => None,
            State::Body { .. } => Some(Deadline::Body),
            State::Idle | State::Switched | State::Done => Some(Deadline::Idle),
        };
        self.end();
        missed
    }

    /// What it wants next.
    pub fn appetite(&self) -> Appetite {
        match self.state {
            State::Idle | State::Head { .. } | State::Body { .. } => Appetite::Read,
            State::Switched => Appetite::Pause,
            State::Done => Appetite::Close,
        }
    }

    /// When [`handle_deadline`](Self::handle_deadline) wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether another request may be sent.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Whether the bytes that follow are of another protocol: a WebSocket that was asked for, or
    /// what a tunnel carries.
    pub fn is_switched(&self) -> bool {
        matches!(self.state, State::Switched)
    }

    fn receive_head(
        &mut self,
        segment: &[u8],
        at: usize,
        log: &mut EventLog,
    ) -> Result<usize, Violation> {
        let State::Head { progress } = &mut self.state else {
            return Ok(0);
        };
        let input = &segment[at..];
        let parsed =
            parse::parse_response(input, progress, self.method, &self.limits, &mut log.fields)?;
        let Some(head) = parsed else {
            return Ok(0);
        };
        let len = head.len as usize;
        match head.status {
            // Nobody asked for another protocol (RFC 9110 §15.2.2).
            101 if self.opening.is_none() => return Err(Violation::Unsolicited),
            101 => self.finish_opening(&log.view_response(&head, input)),
            100..=199 => {
                log.forget_fields(&head.fields);
                self.state = State::Head {
                    progress: HeadProgress::default(),
                };
                return Ok(len);
            }
            200..=299 if self.method == Method::Connect => {
                self.state = State::Switched;
                self.deadline = None;
            }
            _ => self.begin_body(&head)?,
        }
        log.push_response(self.exchange, head, at);
        Ok(len)
    }

    /// Moves on from a 101 that was asked for.
    fn finish_opening(&mut self, response: &Response<'_>) {
        let judged = self
            .opening
            .take()
            .map_or(Err(HandshakeError::Status), |opening| {
                opening.finish(response)
            });
        match judged {
            Ok(opened) => {
                self.opened = Some(Box::new(opened));
                self.state = State::Switched;
                self.deadline = None;
            }
            Err(error) => {
                self.ending = Ending::Refused(error);
                self.end();
            }
        }
    }

    /// Moves on from a final head.
    fn begin_body(&mut self, head: &ResponseHead) -> Result<(), Violation> {
        if let (Framing::Length(length), Some(bytes_max)) = (head.framing, self.collect_bytes_max)
            && length > bytes_max
        {
            return Err(Violation::BodyTooLarge);
        }
        let is_last = !head.keeps_alive || self.closes;
        if self.opening.is_some() {
            self.ending = Ending::Refused(HandshakeError::Status);
        }
        match IncomingBody::new(head.framing, &self.limits) {
            Some(body) => self.state = State::Body { body, is_last },
            None => self.rest(is_last),
        }
        Ok(())
    }

    fn receive_body(
        &mut self,
        segment: &[u8],
        at: usize,
        log: &mut EventLog,
        out: &SendBuffer,
    ) -> Result<usize, Violation> {
        let allowed = match &self.opening {
            Some(opening) => {
                let left = usize::try_from(opening.refusal_bytes_left).unwrap_or(usize::MAX);
                segment.len().min(at.saturating_add(left))
            }
            None => segment.len(),
        };
        let to = Destination {
            exchange: self.exchange,
            collect_bytes_max: self.collect_bytes_max,
            log,
            pool: out.pool(),
        };
        let State::Body { body, is_last } = &mut self.state else {
            return Ok(0);
        };
        let (taken, is_last) = (body.receive(&segment[..allowed], at, to)?, *is_last);
        if taken.ends {
            self.rest(is_last);
        } else if let Some(opening) = &mut self.opening {
            opening.refusal_bytes_left -= taken.consumed as u64;
            if opening.refusal_bytes_left == 0 {
                let exchange = self.exchange;
                log.push(Event::End { exchange });
                self.end();
            }
        }
        Ok(taken.consumed)
    }

    /// The response is complete. A request that is not would leave the server in the middle of it.
    fn rest(&mut self, is_last: bool) {
        let reusable = !is_last && self.sending == Sending::Complete;
        self.state = if reusable { State::Idle } else { State::Done };
        self.deadline = None;
        self.method = Method::Other;
    }

    fn check_idle(&self) -> Result<(), Misuse> {
        match self.state {
            State::Idle => Ok(()),
            State::Head { .. } | State::Body { .. } => Err(Misuse::Busy),
            State::Switched | State::Done => Err(Misuse::Gone),
        }
    }

    fn check_current(&self, exchange: Exchange) -> Result<(), Misuse> {
        if exchange == self.exchange {
            Ok(())
        } else {
            Err(Misuse::AlreadyAnswered)
        }
    }

    /// A request's head has been written.
    fn await_response(&mut self) -> Exchange {
        self.exchange = Exchange(self.exchange.0.wrapping_add(1));
        self.state = State::Head {
            progress: HeadProgress::default(),
        };
        self.heard = false;
        self.deadline = None;
        self.exchange
    }

    fn destination<'a>(&self, log: &'a mut EventLog, out: &'a SendBuffer) -> Destination<'a> {
        Destination {
            exchange: self.exchange,
            collect_bytes_max: self.collect_bytes_max,
            log,
            pool: out.pool(),
        }
    }

    fn end(&mut self) {
        self.state = State::Done;
        self.deadline = None;
    }

    /// What has come may have changed what is awaited. A body that moves has its time anew; a head
    /// keeps its deadline, so that interim responses without end are none.
    fn renew_deadline(&mut self, now: Instant) {
        if !matches!(self.state, State::Head { .. }) {
            self.arm(now);
        }
    }

    /// Awaits the next byte from `now` on.
    fn arm(&mut self, now: Instant) {
        self.deadline = self.timeout().and_then(|timeout| now.checked_add(timeout));
    }

    /// How long the server may be silent; `None` while it may wait for us.
    fn timeout(&self) -> Option<Duration> {
        match self.state {
            State::Done => None,
            State::Idle | State::Switched => Some(self.limits.idle_timeout),
            State::Head { .. } | State::Body { .. } if self.sending != Sending::Complete => None,
            State::Head { .. } if self.opening.is_some() => Some(self.limits.handshake_timeout),
            State::Head { .. } => Some(self.limits.response_timeout),
            State::Body { .. } => Some(self.limits.body_timeout),
        }
    }
}

#[cfg(test)]
mod tests;
