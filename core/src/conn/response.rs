//! Writes the answer of one exchange: head, framing and body. RFC 9112 §4, §6.3.
//!
//! Sits inside `conn/server.rs`, which decides when an answer may be written and where to; this
//! file decides what it looks like. Fields are checked before the first byte is written, so an
//! invalid one leaves nothing behind.
//!
//! Invariants
//! - No field reaches the wire with a byte that its grammar forbids: a script cannot inject CRLF.
//! - `Content-Length`, `Transfer-Encoding` and `Connection` are written here and nowhere else.
//!
//! Not here: the order of answers (`pipeline.rs`).

use super::Misuse;
use super::last_head::LastHead;
use super::pipeline::{Answer, Asked};
use crate::buffer::{SendBuffer, TAIL_BYTES_MAX};
use crate::http1::{token, write};
use core::cell::{Cell, RefCell};

/// An answer, borrowed from the application until the call returns.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// 200 to 599.
    pub status: u16,
    /// Names and values, in order. `Date` is added unless given. `Content-Length` must agree with
    /// the body if given (for HEAD and 304 it is taken as it is); `Connection` may be `close`,
    /// which closes after this answer, or `keep-alive`, which says nothing new;
    /// `Transfer-Encoding` is refused.
    pub fields: &'a [(&'a [u8], &'a [u8])],
    /// The body. Not sent where there must be none: HEAD, 204, 304.
    pub body: &'a [u8],
}

/// The current `Date` value, shared by all connections of a reactor and set once a second, and how the
/// last answer with it began.
#[derive(Debug)]
pub struct SharedDate {
    date: Cell<[u8; 29]>,
    last_head: RefCell<LastHead>,
}

impl SharedDate {
    /// Starts with `date`, an IMF-fixdate.
    pub fn new(date: [u8; 29]) -> Self {
        Self {
            date: Cell::new(date),
            last_head: RefCell::default(),
        }
    }

    /// Replaces it.
    pub fn set(&self, date: [u8; 29]) {
        self.date.set(date);
        self.last_head.borrow_mut().forget();
    }

    /// The value.
    pub fn get(&self) -> [u8; 29] {
        self.date.get()
    }
}

/// What the given fields decide, found before anything is written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FieldPlan {
    /// The application gave a `Date` of its own.
    dated: bool,
    /// It names a protocol to upgrade to, so `Connection` has to say so (RFC 9110 §7.8).
    upgrade: bool,
    /// It asked to close with `Connection: close`.
    pub(super) closes: bool,
    /// It gave a `Content-Length`.
    pub(super) length: Option<u64>,
    /// None of them is one that the driver has a say in.
    is_plain: bool,
    /// The answer begins as the last one did, of which nothing was to decide.
    is_known: bool,
}

impl FieldPlan {
    /// Checks every field of `response`, unless the last answer had the same.
    pub(super) fn of_response(response: &Response<'_>, date: &SharedDate) -> Result<Self, Misuse> {
        if date.last_head.borrow().of(response).is_some() {
            return Ok(Self {
                is_known: true,
                ..Self::default()
            });
        }
        Self::of(response.fields)
    }

    /// Checks every field.
    pub(super) fn of(fields: &[(&[u8], &[u8])]) -> Result<Self, Misuse> {
        let mut plan = Self {
            is_plain: true,
            ..Self::default()
        };
        for (name, value) in fields {
            write::check_field(name, value).map_err(|_| Misuse::InvalidField)?;
            let managed = managed(name);
            plan.is_plain &= managed == Managed::No;
            match managed {
                Managed::No => {}
                Managed::Date => plan.dated = true,
                Managed::Upgrade => plan.upgrade = true,
                Managed::Connection if value.eq_ignore_ascii_case(b"close") => plan.closes = true,
                Managed::Connection if value.eq_ignore_ascii_case(b"keep-alive") => {}
                Managed::ContentLength if plan.length.is_none() => {
                    plan.length = Some(token::decimal(value).ok_or(Misuse::InvalidField)?);
                }
                Managed::Connection | Managed::ContentLength | Managed::TransferEncoding => {
                    return Err(Misuse::InvalidField);
                }
            }
        }
        Ok(plan)
    }
}

/// Fields that the driver has a say in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Managed {
    No,
    Date,
    Upgrade,
    Connection,
    ContentLength,
    TransferEncoding,
}

fn managed(name: &[u8]) -> Managed {
    let (want, managed): (&[u8], _) = match name.len() {
        4 => (b"date", Managed::Date),
        7 => (b"upgrade", Managed::Upgrade),
        10 => (b"connection", Managed::Connection),
        14 => (b"content-length", Managed::ContentLength),
        17 => (b"transfer-encoding", Managed::TransferEncoding),
        _ => return Managed::No,
    };
    if name.eq_ignore_ascii_case(want) {
        managed
    } else {
        Managed::No
    }
}

/// How the body of an answer is delimited on the wire. RFC 9112 §6.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyPlan {
    /// No body and no length: 204, or 304 without one.
    Nothing,
    /// `Content-Length`, whether or not the body follows.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The end of the connection.
    UntilClose,
}

/// Whether an answer has no body whatever its fields say. RFC 9110 §6.4.1.
pub(super) fn is_bodiless(status: u16, asked: Asked) -> bool {
    asked.head || status == 204 || status == 304
}

/// The plan of an answer whose body is at hand.
pub(super) fn plan_whole(
    response: &Response<'_>,
    fields: FieldPlan,
    asked: Asked,
) -> Result<BodyPlan, Misuse> {
    let len = response.body.len() as u64;
    match (response.status, fields.length) {
        (204, _) | (304, None) => Ok(BodyPlan::Nothing),
        (304, Some(given)) => Ok(BodyPlan::Length(given)),
        (_, Some(given)) if given != len && !(asked.head && len == 0) => {
            Err(Misuse::LengthMismatch)
        }
        (_, given) => Ok(BodyPlan::Length(given.unwrap_or(len))),
    }
}

/// The plan of an answer whose body follows in pieces, and how far the answer is then.
pub(super) fn plan_streamed(status: u16, fields: FieldPlan, asked: Asked) -> (BodyPlan, Answer) {
    let plan = match (status, fields.length, asked.http10) {
        (204, ..) | (304, None, _) => BodyPlan::Nothing,
        (_, Some(length), _) => BodyPlan::Length(length),
        (_, None, true) => BodyPlan::UntilClose,
        (_, None, false) => BodyPlan::Chunked,
    };
    let answer = match plan {
        _ if is_bodiless(status, asked) => Answer::Bodiless,
        BodyPlan::Nothing => Answer::Bodiless,
        BodyPlan::Length(left) => Answer::Length { left },
        BodyPlan::Chunked => Answer::Chunked,
        BodyPlan::UntilClose => Answer::UntilClose,
    };
    (plan, answer)
}

/// What a head says of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Persistence {
    /// Nothing to say: HTTP/1.1 persists.
    Implied,
    /// `Connection: keep-alive`, which an HTTP/1.0 client has to be told.
    KeepAlive,
    /// `Connection: close`.
    Close,
}

/// Bytes of a head beside its fields.
const HEAD_BYTES: usize = 176;

/// What was decided about a head beside what the response says itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    /// The reason phrase; `None` for the registered one.
    pub(super) reason: Option<&'a [u8]>,
    pub(super) fields: FieldPlan,
    pub(super) plan: BodyPlan,
    pub(super) persistence: Persistence,
}

/// Writes status line, `Date` and fields.
fn write_beginning(
    tail: &mut Vec<u8>,
    response: &Response<'_>,
    reason: Option<&[u8]>,
    fields: FieldPlan,
    date: &SharedDate,
) {
    let begin = tail.len();
    match reason {
        None => write::status_line(tail, response.status),
        Some(reason) => write::status_line_saying(tail, response.status, reason),
    }
    if !fields.dated {
        write::date(tail, &date.get());
    }
    let fields_begin = tail.len();
    for (name, value) in response.fields {
        if matches!(
            managed(name),
            Managed::No | Managed::Date | Managed::Upgrade
        ) {
            write::field(tail, name, value);
        }
    }
    if fields.is_plain && reason.is_none() {
        let mut last = date.last_head.borrow_mut();
        last.keep(response, &tail[begin..], fields_begin - begin);
    }
}

/// Writes the head.
pub(super) fn write_head(
    out: &mut SendBuffer,
    response: &Response<'_>,
    head: Head<'_>,
    date: &SharedDate,
) {
    let fields = head.fields;
    // One reservation for all of it, body and all: an answer that is not long is one piece of memory.
    let field_bytes: usize = response
        .fields
        .iter()
        .map(|(name, value)| name.len() + value.len() + 4)
        .sum();
    let head_bytes = HEAD_BYTES + field_bytes;
    let all_bytes = head_bytes + response.body.len();
    let tail = out.tail(if all_bytes <= TAIL_BYTES_MAX {
        all_bytes
    } else {
        head_bytes
    });
    match head.reason {
        None if fields.is_known => {
            let last = date.last_head.borrow();
            debug_assert_eq!(last.of(response), Some(last.bytes()), "as it was checked");
            tail.extend_from_slice(last.bytes());
        }
        reason => write_beginning(tail, response, reason, fields, date),
    }
    match head.plan {
        BodyPlan::Nothing | BodyPlan::UntilClose => {}
        BodyPlan::Length(length) => write::content_length(tail, length),
        BodyPlan::Chunked => write::field(tail, b"Transfer-Encoding", b"chunked"),
    }
    let connection: &[u8] = match (head.persistence, fields.upgrade) {
        (Persistence::Implied, false) => b"",
        (Persistence::Implied, true) => b"upgrade",
        (Persistence::KeepAlive, false) => b"keep-alive",
        (Persistence::KeepAlive, true) => b"keep-alive, upgrade",
        (Persistence::Close, false) => b"close",
        (Persistence::Close, true) => b"close, upgrade",
    };
    if !connection.is_empty() {
        write::field(tail, b"Connection", connection);
    }
    write::end_of_head(tail);
}
