//! The server side of one HTTP/1.1 connection. RFC 9112.
//!
//! Requests in, events out; answers in, bytes out, in the order of the requests. Bodies are
//! collected or delivered as they come, refusals are written here, and an accepted upgrade ends
//! this driver: the reactor puts a `WsConn` in its place.
//!
//! ```text
//!            whole head, no body                    answered
//!   Head ◀──────────────────────┐      Upgrade ───────────────▶ Head, or taken by a WsConn
//!    │ ├────────────────────────┴─────────▲ whole head that asks for a WebSocket
//!    │ └── whole head ──▶ Body ── end ──▶ Head
//!    └── violation, deadline, end of input, last request ──▶ Done
//! ```
//!
//! Invariants
//! - Every `Request` event is answered at most once, and nothing is written out of turn.
//! - A violation is answered behind the answers still owed, then the connection closes.
//! - Events and output do not depend on how the input is cut.
//!
//! Not here: what input does to it (`server/input.rs`), what a refusal says (`server/refuse.rs`), the order of answers (`pipeline.rs`), what
//! they look like (`response.rs`).

mod input;
mod refuse;

use super::body::IncomingBody;
use super::pipeline::{Answer, Asked, Pipeline};
use super::refusals::{Refusals, Refused};
use super::response::{self, BodyPlan, FieldPlan, Persistence, Response, SharedDate};
use super::{Appetite, Deadline, EventLog, Exchange, Misuse, WsSettings};
use crate::buffer::SendBuffer;
use crate::http1::parse::HeadProgress;
use crate::http1::write;
use crate::limits::Limits;
use crate::violation::Violation;
use crate::ws::deflate::{DeflateOffer, DeflateParams};
use crate::ws::handshake;
use refuse::Reason;
use std::rc::Rc;
use std::time::Instant;

/// What all connections of a listener share.
#[derive(Debug)]
pub struct ServerSettings {
    /// The bounds.
    pub limits: Rc<Limits>,
    /// The current `Date`.
    pub date: Rc<SharedDate>,
    /// Whether a body is delivered whole, as one `Body` event, or piece by piece as it comes.
    pub collect_bodies: bool,
    /// Whether upgrades to WebSocket may be accepted. If not, `Upgrade` is ignored, as RFC 9110
    /// §7.8 allows.
    pub websocket: bool,
    /// What it says where it refuses by itself.
    pub refusals: Refusals,
}

/// Where the input stands.
#[derive(Debug)]
enum State {
    /// Between requests (`begun` is false), or inside a head or the empty line before it.
    Head {
        progress: HeadProgress,
        begun: bool,
        skipped_line: bool,
    },
    /// Inside the body of the newest exchange.
    Body {
        exchange: Exchange,
        body: IncomingBody,
    },
    /// The newest exchange asks for a WebSocket; nothing is read until it is answered. Boxed: it
    /// would be the largest of all states, and comes once in a connection.
    Upgrade {
        exchange: Exchange,
        asked: Box<UpgradeAsked>,
    },
    /// The newest exchange is about to be refused; never between two calls.
    Refused { exchange: Exchange },
    /// A WebSocket was accepted; it is taken once the 101 has had its turn.
    Accepted(Box<Accepted>),
    /// No further input means anything. What was refused stays here until somebody asks; boxed, as
    /// it comes once in a connection, if ever.
    Done(Option<Box<Refused>>),
}

/// What a WebSocket's client has sent and its answer needs.
#[derive(Debug)]
struct UpgradeAsked {
    accept_key: [u8; 28],
    deflate: Option<DeflateOffer>,
}

impl State {
    /// At rest before a request.
    fn resting() -> Self {
        Self::Head {
            progress: HeadProgress::default(),
            begun: false,
            skipped_line: false,
        }
    }
}

/// What an accepted handshake has agreed on.
#[derive(Debug)]
pub struct Accepted {
    /// How the WebSocket is to behave.
    pub settings: Rc<WsSettings>,
    /// permessage-deflate, where both ends want it.
    pub deflate: Option<DeflateParams>,
}

/// A sans-IO HTTP/1.1 server connection. See the module for its diagram.
#[derive(Debug)]
pub struct ServerConn {
    settings: Rc<ServerSettings>,
    state: State,
    pipeline: Pipeline,
    deadline: Option<Instant>,
    /// No last words are owed, or none can be said any more.
    is_over: bool,
    /// The request that is arriving will be the last.
    is_draining: bool,
    /// The client has said that the newest request is its last.
    peer_leaves: bool,
}

/// The largest of the drivers, whose room every connection has.
const _: () = assert!(size_of::<ServerConn>() <= 128);

impl ServerConn {
    /// A fresh connection.
    pub fn new(settings: Rc<ServerSettings>, now: Instant) -> Self {
        let deadline = now.checked_add(settings.limits.idle_timeout);
        Self {
            settings,
            state: State::resting(),
            pipeline: Pipeline::new(),
            deadline,
            is_over: false,
            is_draining: false,
            peer_leaves: false,
        }
    }

    /// Consumes from the front of `segment`. What is left must be offered again, with more behind
    /// it, once [`appetite`](Self::appetite) is `Read`.
    ///
    /// # Errors
    /// The rule the peer broke. Its answer is queued behind those still owed, and no further
    /// input is wanted.
    pub fn receive(
        &mut self,
        segment: &mut [u8],
        now: Instant,
        log: &mut EventLog,
        out: &mut SendBuffer,
    ) -> Result<usize, Violation> {
        let mut at = 0;
        while at < segment.len() && self.appetite() == Appetite::Read && log.take_step() {
            let step = match self.state {
                State::Head { .. } => self.receive_head(segment, at, now, log, out),
                State::Body { .. } => self.receive_body(segment, at, log, out),
                State::Upgrade { .. }
                | State::Refused { .. }
                | State::Accepted(_)
                | State::Done(_) => break,
            };
            match step {
                Ok(0) => break,
                Ok(consumed) => at += consumed,
                Err(refusal) => {
                    self.refuse(refusal, at, out);
                    return Err(refusal.violation());
                }
            }
        }
        if at > 0 {
            self.renew_deadline(now);
        }
        Ok(at)
    }

    /// The peer will send nothing more. What it has asked for is still answered.
    ///
    /// # Errors
    /// [`Violation::Incomplete`] if it stopped inside a message.
    pub fn receive_eof(&mut self, out: &mut SendBuffer) -> Result<(), Violation> {
        let incomplete = match self.state {
            State::Head { begun, .. } => begun,
            State::Body { .. } => true,
            State::Upgrade { .. } | State::Refused { .. } | State::Accepted(_) | State::Done(_) => {
                false
            }
        };
        self.deadline = None;
        if incomplete {
            self.refuse(Violation::Incomplete.into(), 0, out);
            return Err(Violation::Incomplete);
        }
        if let State::Head { .. } = self.state {
            self.state = State::Done(None);
        }
        self.pipeline.close_after_all();
        Ok(())
    }

    /// Acts on a deadline that has passed: `None` if none has. Afterwards the connection closes.
    pub fn handle_deadline(&mut self, now: Instant, out: &mut SendBuffer) -> Option<Deadline> {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return None;
        }
        self.deadline = None;
        let (missed, status, rule) = match self.state {
            State::Head { begun: false, .. } => {
                // RFC 9112 §9.5: an idle connection may be closed without a word.
                self.is_over = true;
                return Some(Deadline::Idle);
            }
            State::Head { .. } => (Deadline::Head, 408, "head not whole in time"),
            State::Body { .. } => (Deadline::Body, 408, "body not whole in time"),
            State::Upgrade { .. } => (Deadline::Handshake, 503, "upgrade not decided in time"),
            State::Refused { .. } | State::Accepted(_) | State::Done(_) => return None,
        };
        self.refuse_with(Reason::of(rule), status, (b"", &[]), out);
        Some(missed)
    }

    /// What it wants next.
    pub fn appetite(&self) -> Appetite {
        if self.is_over || self.pipeline.is_over() {
            return Appetite::Close;
        }
        let full =
            self.pipeline.in_flight() >= u32::from(self.settings.limits.exchanges_in_flight_max);
        match self.state {
            State::Body { .. } => Appetite::Read,
            State::Head { .. } if !full => Appetite::Read,
            State::Head { .. }
            | State::Upgrade { .. }
            | State::Refused { .. }
            | State::Accepted(_)
            | State::Done(_) => Appetite::Pause,
        }
    }

    /// When [`handle_deadline`](Self::handle_deadline) wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The exchange whose answer leaves next; answers to later ones are held.
    pub fn front(&self) -> Exchange {
        self.pipeline.front()
    }

    /// Bytes of answers that wait for the answers before them.
    pub fn held_bytes(&self) -> usize {
        self.pipeline.held_bytes()
    }

    /// Whether the client has said that it asks no more, and all that it had to say has come: who keeps to
    /// that (RFC 9112 §9.6) sends nothing that a close could destroy our answer by.
    pub fn has_heard_all(&self) -> bool {
        self.peer_leaves && matches!(self.state, State::Done(None))
    }

    /// Whether nothing has been received of a next request and nothing is owed.
    pub fn is_resting(&self) -> bool {
        matches!(self.state, State::Head { begun: false, .. }) && self.pipeline.in_flight() == 0
    }

    /// Answers `exchange` whole.
    ///
    /// # Errors
    /// [`Misuse::AlreadyAnswered`], [`Misuse::InvalidStatus`], [`Misuse::InvalidField`] or
    /// [`Misuse::LengthMismatch`]; nothing is written then.
    pub fn respond(
        &mut self,
        exchange: Exchange,
        response: &Response<'_>,
        now: Instant,
        out: &mut SendBuffer,
    ) -> Result<(), Misuse> {
        self.respond_saying(exchange, response, None, now, out)
    }

    /// The same with `reason` as the reason phrase, in place of the registered one.
    fn respond_saying(
        &mut self,
        exchange: Exchange,
        response: &Response<'_>,
        reason: Option<&[u8]>,
        now: Instant,
        out: &mut SendBuffer,
    ) -> Result<(), Misuse> {
        let (fields, asked) = self.check(exchange, response)?;
        let plan = response::plan_whole(response, fields, asked)?;
        let head = response::Head {
            reason,
            fields,
            plan,
            persistence: self.decide_persistence(exchange, fields, plan, asked),
        };
        let slot = self.pipeline.slot(exchange, out);
        response::write_head(slot.out, response, head, &self.settings.date);
        if !response::is_bodiless(response.status, asked) {
            slot.out.append(response.body);
        }
        self.finish(exchange, now, out);
        Ok(())
    }

    /// Begins an answer whose body comes by [`write_body`](Self::write_body) and ends with
    /// [`finish_body`](Self::finish_body); `response.body` is not looked at. Chunked, unless a
    /// `Content-Length` is given or the client speaks HTTP/1.0.
    ///
    /// # Errors
    /// As [`respond`](Self::respond).
    pub fn begin_response(
        &mut self,
        exchange: Exchange,
        response: &Response<'_>,
        out: &mut SendBuffer,
    ) -> Result<(), Misuse> {
        let (fields, asked) = self.check(exchange, response)?;
        let (plan, answer) = response::plan_streamed(response.status, fields, asked);
        let head = response::Head {
            reason: None,
            fields,
            plan,
            persistence: self.decide_persistence(exchange, fields, plan, asked),
        };
        let slot = self.pipeline.slot(exchange, out);
        response::write_head(slot.out, response, head, &self.settings.date);
        *slot.answer = answer;
        Ok(())
    }

    /// Sends the next piece of a body. An empty piece sends nothing.
    ///
    /// # Errors
    /// [`Misuse::AlreadyAnswered`] if no body is awaited, [`Misuse::LengthMismatch`] if it would
    /// exceed the announced length; nothing is written then.
    pub fn write_body(
        &mut self,
        exchange: Exchange,
        piece: &[u8],
        out: &mut SendBuffer,
    ) -> Result<(), Misuse> {
        let answer = self.pipeline.answer(exchange)?;
        let slot = self.pipeline.slot(exchange, out);
        match answer {
            Answer::Waiting => return Err(Misuse::AlreadyAnswered),
            Answer::Bodiless => {}
            Answer::UntilClose => slot.out.append(piece),
            Answer::Chunked => write::chunk(slot.out, piece),
            Answer::Length { left } => {
                let left = left
                    .checked_sub(piece.len() as u64)
                    .ok_or(Misuse::LengthMismatch)?;
                *slot.answer = Answer::Length { left };
                slot.out.append(piece);
            }
        }
        Ok(())
    }

    /// Ends a body.
    ///
    /// # Errors
    /// [`Misuse::AlreadyAnswered`] if no body is awaited. [`Misuse::LengthMismatch`] if less came
    /// than was announced: the connection closes, so that the peer cannot take it for whole.
    pub fn finish_body(
        &mut self,
        exchange: Exchange,
        now: Instant,
        out: &mut SendBuffer,
    ) -> Result<(), Misuse> {
        match self.pipeline.answer(exchange)? {
            Answer::Waiting => return Err(Misuse::AlreadyAnswered),
            Answer::Length { left: 1.. } => {
                self.is_over = true;
                return Err(Misuse::LengthMismatch);
            }
            Answer::Chunked => write::last_chunk(self.pipeline.slot(exchange, out).out),
            Answer::Length { left: 0 } | Answer::UntilClose | Answer::Bodiless => {}
        }
        self.finish(exchange, now, out);
        Ok(())
    }

    /// Gives up a body that was begun: the connection closes behind what was sent of it, so that
    /// the peer can see that it is not whole. False if only a reset could tell the peer that, as
    /// its protocol (HTTP/1.0) knows no other end of a body than that of the connection.
    ///
    /// # Errors
    /// [`Misuse::AlreadyAnswered`] if no body is awaited.
    pub fn abandon_body(
        &mut self,
        exchange: Exchange,
        now: Instant,
        out: &mut SendBuffer,
    ) -> Result<bool, Misuse> {
        match self.pipeline.answer(exchange)? {
            Answer::Waiting => return Err(Misuse::AlreadyAnswered),
            Answer::UntilClose => return Ok(false),
            Answer::Chunked | Answer::Length { .. } | Answer::Bodiless => {}
        }
        self.pipeline.close_after(exchange);
        self.finish(exchange, now, out);
        Ok(true)
    }

    /// Whether pieces of a body are sent for `exchange`: its answer has begun, and is neither one
    /// without a body (HEAD, 204, 304) nor complete.
    pub fn sends_body(&self, exchange: Exchange) -> bool {
        !matches!(
            self.pipeline.answer(exchange),
            Ok(Answer::Waiting | Answer::Bodiless) | Err(_)
        )
    }

    /// The application would not listen: a body that did not come meanwhile is not late.
    pub fn excuse_silence(&mut self, now: Instant) {
        if let State::Body { .. } = self.state {
            self.renew_deadline(now);
        }
    }

    /// Accepts the upgrade of `exchange` with a 101 that names `protocol` and has `fields`. Once it
    /// is its turn, the reactor puts a `WsConn` in its place and this driver
    /// has done its work.
    ///
    /// # Errors
    /// [`Misuse::NotAnUpgrade`] if `exchange` did not ask for a WebSocket or is answered,
    /// [`Misuse::InvalidField`] for a field or protocol that may not be sent; nothing is written
    /// then.
    pub fn accept(
        &mut self,
        exchange: Exchange,
        protocol: Option<&[u8]>,
        fields: &[(&[u8], &[u8])],
        settings: &Rc<WsSettings>,
        out: &mut SendBuffer,
    ) -> Result<(), Misuse> {
        let (accept_key, offer) = match &self.state {
            State::Upgrade {
                exchange: by,
                asked,
            } if *by == exchange => (asked.accept_key, asked.deflate),
            _ => return Err(Misuse::NotAnUpgrade),
        };
        let deflate = match (offer, &settings.deflate) {
            (Some(offer), Some(settings)) => Some(offer.answer(settings)),
            _ => None,
        };
        let extensions = deflate.as_ref().map(DeflateParams::answer_value);
        let extensions = extensions.as_ref().map(String::as_bytes);
        let slot = self.pipeline.slot(exchange, out);
        handshake::write_accept(slot.out, &accept_key, protocol, extensions, fields)
            .map_err(|_| Misuse::InvalidField)?;
        self.state = State::Accepted(Box::new(Accepted {
            settings: Rc::clone(settings),
            deflate,
        }));
        self.deadline = None;
        self.pipeline.finish(exchange, out);
        Ok(())
    }

    /// The accepted WebSocket, once, when everything asked before is answered.
    pub fn take_accepted(&mut self) -> Option<Box<Accepted>> {
        if self.pipeline.in_flight() > 0 || !matches!(self.state, State::Accepted(_)) {
            return None;
        }
        match core::mem::replace(&mut self.state, State::Done(None)) {
            State::Accepted(accepted) => Some(accepted),
            _ => None,
        }
    }

    /// Closes when what has been received is answered; at once if nothing is owed. For shutdown.
    pub fn begin_drain(&mut self) {
        self.is_draining = true;
        match self.state {
            State::Head { begun: false, .. } if self.pipeline.in_flight() == 0 => {
                self.is_over = true
            }
            State::Head { begun: false, .. } => {
                self.state = State::Done(None);
                self.pipeline.close_after_all();
            }
            // Its request is arriving, and is the last.
            State::Head { .. } | State::Refused { .. } | State::Accepted(_) | State::Done(_) => {}
            State::Body { .. } | State::Upgrade { .. } => self.pipeline.close_after_all(),
        }
    }

    fn check(
        &self,
        exchange: Exchange,
        response: &Response<'_>,
    ) -> Result<(FieldPlan, Asked), Misuse> {
        if self.pipeline.answer(exchange)? != Answer::Waiting {
            return Err(Misuse::AlreadyAnswered);
        }
        if !(200..=599).contains(&response.status) {
            return Err(Misuse::InvalidStatus);
        }
        Ok((
            FieldPlan::of_response(response, &self.settings.date)?,
            self.pipeline.asked(exchange),
        ))
    }

    /// Whether the connection outlives the answer to `exchange`, and what to tell the client.
    fn decide_persistence(
        &mut self,
        exchange: Exchange,
        fields: FieldPlan,
        plan: BodyPlan,
        asked: Asked,
    ) -> Persistence {
        let unread = matches!(self.state, State::Body { exchange: open, .. } if open == exchange);
        if fields.closes || unread || plan == BodyPlan::UntilClose {
            self.pipeline.close_after(exchange);
        }
        match (self.pipeline.is_last(exchange), asked.http10) {
            (true, _) => Persistence::Close,
            (false, true) => Persistence::KeepAlive,
            (false, false) => Persistence::Implied,
        }
    }

    fn finish(&mut self, exchange: Exchange, now: Instant, out: &mut SendBuffer) {
        if matches!(self.state, State::Upgrade { exchange: asked, .. } if asked == exchange) {
            self.state = if self.pipeline.closes() {
                State::Done(None)
            } else {
                State::resting()
            };
        }
        self.pipeline.finish(exchange, out);
        self.renew_deadline(now);
    }

    /// Sets the deadline that the present state calls for, now that something has happened. That
    /// of a head runs from its first byte and is set there.
    fn renew_deadline(&mut self, now: Instant) {
        let limits = &self.settings.limits;
        let timeout = match self.state {
            State::Head { begun: true, .. } => return,
            State::Head { .. } if self.pipeline.in_flight() == 0 => limits.idle_timeout,
            State::Body { .. } => limits.body_timeout,
            State::Upgrade { .. } => limits.handshake_timeout,
            State::Head { .. } | State::Refused { .. } | State::Accepted(_) | State::Done(_) => {
                self.deadline = None;
                return;
            }
        };
        self.deadline = now.checked_add(timeout);
    }
}

#[cfg(test)]
mod tests;
