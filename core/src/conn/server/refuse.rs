//! The last words of a server connection: to a broken rule, a missed deadline, and where the
//! application leaves an answer to the server. RFC 9112 §9.6, RFC 9110 §15.
//!
//! The other half of `conn/server.rs`, whose exchanges it answers. What is said may be the
//! listener's own page (`conn/refusals.rs`).
//!
//! Invariants
//! - A refusal leaves in its turn, behind the answers still owed, and closes the connection.
//! - An answer that has begun is never followed by a refusal.
//!
//! Not here: which rule was broken (`server/input.rs`).

use super::input::Refusal;
use super::{ServerConn, State};
use crate::buffer::SendBuffer;
use crate::conn::pipeline::{Answer, Asked};
use crate::conn::refusals::Refused;
use crate::conn::refusals::{Manner, PLAIN_HTTP};
use crate::conn::response::{self, BodyPlan, FieldPlan, Persistence, Response};
use crate::conn::{Exchange, Misuse};
use std::rc::Rc;
use std::time::Instant;

/// The body of a refusal, and fields that it has whatever the body is.
type Words<'a> = (&'a [u8], &'a [(&'a [u8], &'a [u8])]);

/// Why something is refused, and where in the segment its message begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reason {
    rule: &'static str,
    at: usize,
}

impl Reason {
    /// Of what begins where the segment does, or what is left of it.
    pub(super) const fn of(rule: &'static str) -> Self {
        Self { rule, at: 0 }
    }
}

impl ServerConn {
    /// Answers a broken rule, in its turn, and takes nothing more. The message that broke it begins
    /// at offset `at` of the segment.
    pub(super) fn refuse(&mut self, refusal: Refusal, at: usize, out: &mut SendBuffer) {
        let (status, rule, section) = match refusal {
            Refusal::Violation(violation) => {
                (violation.status(), violation.rule(), violation.section())
            }
            Refusal::Handshake(error) => (error.status(), error.rule(), error.section()),
        };
        let mut body = String::with_capacity(96);
        for part in [rule, " (", section, ")\n"] {
            body.push_str(part);
        }
        self.deadline = None;
        let reason = Reason { rule, at };
        self.refuse_with(reason, status, (body.as_bytes(), refusal.fields()), out);
    }

    /// Answers whatever is asked with 503. RFC 9110 §15.6.4.
    pub(crate) fn turn_away(&mut self, out: &mut SendBuffer) {
        let soon: &[(&[u8], &[u8])] = &[(b"Retry-After", b"1")];
        let reason = Reason::of("too many connections");
        self.refuse_with(reason, 503, (b"too many connections\n", soon), out);
    }

    /// What was refused since this was asked last.
    pub fn take_refused(&mut self) -> Option<Box<Refused>> {
        match &mut self.state {
            State::Done(refused) => refused.take(),
            _ => None,
        }
    }

    /// A request came without TLS where there should be some, and what is said to it is said.
    pub(crate) fn note_plain_http(&mut self, bytes: usize) {
        self.state = State::Done(Some(Box::new(Refused {
            exchange: self.pipeline.front(),
            status: (bytes > 0).then_some(400),
            rule: "HTTP where TLS is spoken",
            bytes,
            head_at: None,
        })));
    }

    /// Says `body`, or the listener's page for `status`, with `more` fields in both cases.
    pub(super) fn refuse_with(
        &mut self,
        reason: Reason,
        status: u16,
        (body, more): Words<'_>,
        out: &mut SendBuffer,
    ) {
        // What it goes on sending is not what it said that it would.
        self.peer_leaves = false;
        let settings = Rc::clone(&self.settings);
        let manner = settings.refusals.of(status);
        let is_known = matches!(self.state, State::Body { .. } | State::Upgrade { .. });
        let (exchange, owed) = match core::mem::replace(&mut self.state, State::Done(None)) {
            State::Body { exchange, .. }
            | State::Upgrade { exchange, .. }
            | State::Refused { exchange } => (exchange, self.pipeline.in_flight() - 1),
            State::Head { .. } | State::Accepted(_) | State::Done(_) => {
                let owed = self.pipeline.in_flight();
                (self.pipeline.open(Asked::default()), owed)
            }
        };
        let mut refused = Box::new(Refused {
            exchange,
            status: None,
            rule: reason.rule,
            bytes: 0,
            head_at: (!is_known).then_some(reason.at),
        });
        if manner == Some(&Manner::Silence) && owed == 0 {
            self.is_over = true;
            self.state = State::Done(Some(refused));
            return;
        }
        self.pipeline.close_after(exchange);
        match self.pipeline.answer(exchange) {
            Ok(Answer::Waiting) => {}
            // The application has begun to answer, and what it may be waiting for will not come. That
            // the answer is cut short tells the client.
            Ok(_) => return self.is_over = true,
            // It has answered before it heard all; the connection ends behind that.
            Err(_) => return,
        }
        let mut fields: Vec<(&[u8], &[u8])> = Vec::with_capacity(4);
        let (reason, body) = match manner {
            Some(Manner::Page(page)) => {
                fields.extend(page.fields());
                (page.reason.as_deref(), &*page.body)
            }
            Some(Manner::Silence) | None => {
                fields.push((b"Content-Type", b"text/plain; charset=utf-8"));
                (None, body)
            }
        };
        fields.extend_from_slice(more);
        let response = Response {
            status,
            fields: &fields,
            body,
        };
        let plan = BodyPlan::Length(body.len() as u64);
        let bodiless = response::is_bodiless(status, self.pipeline.asked(exchange));
        let slot = self.pipeline.slot(exchange, out);
        let head = response::Head {
            reason,
            fields: FieldPlan::of(&fields).unwrap_or_default(),
            plan,
            persistence: Persistence::Close,
        };
        response::write_head(slot.out, &response, head, &self.settings.date);
        refused.status = Some(status);
        if !bodiless {
            slot.out.append(body);
            refused.bytes = body.len();
        }
        self.state = State::Done(Some(refused));
        self.pipeline.finish(exchange, out);
    }

    /// Whether a request without TLS, where there should be some, is told so.
    pub(crate) fn answers_plain_http(&self) -> bool {
        self.settings.refusals.of(PLAIN_HTTP) != Some(&Manner::Silence)
    }

    /// Answers `exchange` with the listener's page for the status of `response`, or as `response`
    /// says if there is none. Fields of both are sent, but for a `Content-Type` of `response` where
    /// a page has its own content.
    ///
    /// # Errors
    /// As [`respond`](Self::respond).
    pub fn respond_with_page(
        &mut self,
        exchange: Exchange,
        response: &Response<'_>,
        now: Instant,
        out: &mut SendBuffer,
    ) -> Result<(), Misuse> {
        let settings = Rc::clone(&self.settings);
        let page = match settings.refusals.of(response.status) {
            Some(Manner::Page(page)) => page,
            Some(Manner::Silence) if self.pipeline.in_flight() <= 1 => {
                self.pipeline.answer(exchange)?;
                self.is_over = true;
                return Ok(());
            }
            Some(Manner::Silence) | None => return self.respond(exchange, response, now, out),
        };
        let is_type = |name: &[u8]| name.eq_ignore_ascii_case(b"content-type");
        let own = response.fields.iter().copied();
        let fields: Vec<_> = page
            .fields()
            .chain(own.filter(|(name, _)| !is_type(name)))
            .collect();
        let response = Response {
            status: response.status,
            fields: &fields,
            body: &page.body,
        };
        self.respond_saying(exchange, &response, page.reason.as_deref(), now, out)
    }
}
