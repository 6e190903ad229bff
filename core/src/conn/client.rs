//! The client side of one HTTP/1.1 connection. RFC 9112.
//!
//! One exchange at a time: a request out, its response in, then the next. Interim responses are
//! skipped, bodies are collected or delivered as they come, and a 101 ends this driver's work.
//!
//! ```text
//!   Idle ── request ──▶ Head ── final head, no body ──▶ Idle, or Done if it was the last
//!     │                  │ ▲└─ 1xx ─┘│
//!     │                  │           └─ final head ──▶ Body ── end ──▶ Idle or Done
//!     │                  └─ 101 ──▶ Switched
//!     └── unasked bytes, end of input ──▶ Done ◀── violation, deadline ── any
//! ```
//!
//! Invariants
//! - Every request gets one `Response` event, and its `End` if it has a body, or the connection
//!   ends without.
//! - A response that the end of the connection cut short is never taken for whole.
//! - The connection is not reused unless both messages are complete and both ends agree.
//!
//! Not here: connecting, pools, redirects (the client's face); parsing (`http1/`).

use super::body::{Destination, IncomingBody};
use super::{Appetite, Deadline, EventLog, Exchange, Misuse};
use crate::buffer::SendBuffer;
use crate::http1::parse::{self, HeadProgress};
use crate::http1::{Framing, Method, ResponseHead, token, write};
use crate::limits::Limits;
use crate::violation::Violation;
use std::rc::Rc;
use std::time::Instant;

/// A request to send, borrowed from the application until the call returns.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Any token, in its case.
    pub method: &'a [u8],
    /// The request-target in the form that the method and the next hop ask for.
    pub target: &'a [u8],
    /// The value of `Host`.
    pub host: &'a [u8],
    /// Further names and values, in order. `Host`, `Content-Length` and `Transfer-Encoding` are
    /// written by the driver and refused here; `Connection` may be `close`, `Expect` is refused.
    pub fields: &'a [(&'a [u8], &'a [u8])],
    /// What follows the head.
    pub body: AskBody<'a>,
    /// The most bytes of the response's body to collect into one `Body` event; `None` delivers
    /// them as they come.
    pub collect_bytes_max: Option<u64>,
}

/// The body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskBody<'a> {
    /// None. Methods that give a body a meaning say so with a length of zero (RFC 9110 §8.6).
    None,
    /// All of it.
    Whole(&'a [u8]),
    /// This many bytes follow by [`ClientConn::write_body`].
    Length(u64),
    /// Chunks follow by [`ClientConn::write_body`].
    Chunked,
}

/// Where the response stands.
#[derive(Debug)]
enum State {
    /// No request is under way.
    Idle,
    /// In the head of the response, or before it.
    Head { progress: HeadProgress },
    /// In its body.
    Body { body: IncomingBody, is_last: bool },
    /// A 101 came: what follows is of another protocol.
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
}

impl ClientConn {
    /// A fresh connection, on which nothing has been asked.
    pub fn new(limits: Rc<Limits>) -> Self {
        Self {
            limits,
            state: State::Idle,
            sending: Sending::Complete,
            method: Method::Other,
            closes: false,
            collect_bytes_max: None,
            exchange: Exchange(0),
            deadline: None,
        }
    }

    /// Sends a request, and says under which number its response will come.
    ///
    /// # Errors
    /// [`Misuse::Busy`] while another is under way, [`Misuse::Gone`] if the connection takes no
    /// more, [`Misuse::InvalidField`] for a method, target, host or field that may not be sent;
    /// nothing is written then.
    pub fn ask(
        &mut self,
        ask: &Ask<'_>,
        now: Instant,
        out: &mut SendBuffer,
    ) -> Result<Exchange, Misuse> {
        match self.state {
            State::Idle => {}
            State::Head { .. } | State::Body { .. } => return Err(Misuse::Busy),
            State::Switched | State::Done => return Err(Misuse::Gone),
        }
        let closes = check(ask)?;
        self.method = Method::of(ask.method);
        self.sending = match ask.body {
            AskBody::None | AskBody::Whole(_) | AskBody::Length(0) => Sending::Complete,
            AskBody::Length(left) => Sending::Length { left },
            AskBody::Chunked => Sending::Chunked,
        };
        self.closes = closes;
        self.collect_bytes_max = ask.collect_bytes_max;
        self.exchange = Exchange(self.exchange.0.wrapping_add(1));
        self.state = State::Head {
            progress: HeadProgress::default(),
        };
        self.deadline = now.checked_add(self.limits.head_timeout);
        write_head(ask, self.method, out);
        if let AskBody::Whole(body) = ask.body {
            out.append(body);
        }
        Ok(self.exchange)
    }

    /// Sends the next piece of the request's body. An empty piece sends nothing.
    ///
    /// # Errors
    /// [`Misuse::AlreadyAnswered`] if none is awaited, [`Misuse::LengthMismatch`] if it would
    /// exceed the announced length; nothing is written then.
    pub fn write_body(&mut self, piece: &[u8], out: &mut SendBuffer) -> Result<(), Misuse> {
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
    /// [`Misuse::LengthMismatch`] if less came than was announced: the connection is of no use
    /// then, and closes.
    pub fn finish_body(&mut self, out: &mut SendBuffer) -> Result<(), Misuse> {
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
        let mut at = 0;
        while at < segment.len() && self.appetite() == Appetite::Read {
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
    /// [`Violation::Incomplete`] if a response was awaited or is cut short.
    pub fn receive_eof(&mut self, log: &mut EventLog, out: &SendBuffer) -> Result<(), Violation> {
        let state = core::mem::replace(&mut self.state, State::Done);
        self.deadline = None;
        match state {
            State::Body { mut body, .. } if body.ends_with_connection() => {
                body.finish(self.destination(log, out));
                Ok(())
            }
            State::Head { .. } | State::Body { .. } => Err(Violation::Incomplete),
            State::Idle | State::Switched | State::Done => Ok(()),
        }
    }

    /// Acts on a deadline that has passed: `None` if none has. Afterwards the connection closes.
    pub fn handle_deadline(&mut self, now: Instant) -> Option<Deadline> {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return None;
        }
        let missed = match self.state {
            State::Head { .. } => Deadline::Head,
            State::Body { .. } => Deadline::Body,
            State::Idle | State::Switched | State::Done => Deadline::Idle,
        };
        self.end();
        Some(missed)
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

    /// Whether a 101 has come, and the bytes that follow are of another protocol.
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
            101 if head.upgrades_to_websocket => self.state = State::Switched,
            // Nobody asked for another protocol (RFC 9110 §15.2.2).
            101 => return Err(Violation::Unsolicited),
            100..=199 => {
                log.forget_fields(&head.fields);
                self.state = State::Head {
                    progress: HeadProgress::default(),
                };
                return Ok(len);
            }
            _ => self.begin_body(&head)?,
        }
        log.push_response(self.exchange, head, at);
        Ok(len)
    }

    /// Moves on from a final head.
    fn begin_body(&mut self, head: &ResponseHead) -> Result<(), Violation> {
        if let (Framing::Length(length), Some(bytes_max)) = (head.framing, self.collect_bytes_max)
            && length > bytes_max
        {
            return Err(Violation::BodyTooLarge);
        }
        let is_last = !head.keeps_alive || self.closes;
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
        let to = Destination {
            exchange: self.exchange,
            collect_bytes_max: self.collect_bytes_max,
            log,
            pool: out.pool(),
        };
        let State::Body { body, is_last } = &mut self.state else {
            return Ok(0);
        };
        let (taken, is_last) = (body.receive(segment, at, to)?, *is_last);
        if taken.ends {
            self.rest(is_last);
        }
        Ok(taken.consumed)
    }

    /// The response is complete. A request that is not would leave the server in the middle of it.
    fn rest(&mut self, is_last: bool) {
        let reusable = !is_last && self.sending == Sending::Complete;
        self.state = if reusable { State::Idle } else { State::Done };
        self.deadline = None;
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

    /// A body that moves has its time anew; a head has its time from the request on, so that
    /// interim responses without end are none.
    fn renew_deadline(&mut self, now: Instant) {
        if let State::Body { .. } = self.state {
            self.deadline = now.checked_add(self.limits.body_timeout);
        }
    }
}

/// Checks what may be sent; whether the request is the last of its connection.
fn check(ask: &Ask<'_>) -> Result<bool, Misuse> {
    let target_is_good =
        !ask.target.is_empty() && ask.target.iter().copied().all(token::is_target_byte);
    if !token::is_field_name(ask.method) || !target_is_good || !token::is_field_value(ask.host) {
        return Err(Misuse::InvalidField);
    }
    let mut closes = false;
    for (name, value) in ask.fields {
        write::check_field(name, value).map_err(|_| Misuse::InvalidField)?;
        let is = |managed: &str| name.eq_ignore_ascii_case(managed.as_bytes());
        if ["Host", "Content-Length", "Transfer-Encoding", "Expect"]
            .into_iter()
            .any(is)
        {
            return Err(Misuse::InvalidField);
        }
        if is("Connection") {
            closes |= value.eq_ignore_ascii_case(b"close");
        }
    }
    Ok(closes)
}

fn write_head(ask: &Ask<'_>, method: Method, out: &mut SendBuffer) {
    let field_bytes: usize = ask
        .fields
        .iter()
        .map(|(name, value)| name.len() + value.len() + 4)
        .sum();
    let tail = out.tail(ask.method.len() + ask.target.len() + ask.host.len() + field_bytes + 96);
    for part in [ask.method, b" ", ask.target, b" HTTP/1.1\r\n"] {
        tail.extend_from_slice(part);
    }
    write::field(tail, b"Host", ask.host);
    for (name, value) in ask.fields {
        write::field(tail, name, value);
    }
    match ask.body {
        AskBody::None if matches!(method, Method::Post | Method::Put | Method::Patch) => {
            write::content_length(tail, 0);
        }
        AskBody::None => {}
        AskBody::Whole(body) => write::content_length(tail, body.len() as u64),
        AskBody::Length(length) => write::content_length(tail, length),
        AskBody::Chunked => write::field(tail, b"Transfer-Encoding", b"chunked"),
    }
    write::end_of_head(tail);
}

#[cfg(test)]
mod tests;
