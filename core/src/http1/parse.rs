//! Parses heads in place: start line and field lines become spans. RFC 9112 §3, §4, §5.
//!
//! Sits between the drivers and the files it is made of. `clean.rs` is the fast path: it accepts
//! heads that are whole and clean, and has no opinion on any other. `scan.rs` is the slow path: it
//! names errors, and walks heads that trickle in. `framing.rs` judges the fields.
//!
//! A head that the fast path leaves alone though it is good, for want of room or because its names
//! are odd, is parsed once more in words, after the scanner has found its end.
//!
//! Invariants
//! - What the fast path accepts, the scanner accepts, with the same length (property-tested).
//! - The verdict on a prefix is final: all longer inputs, cut in any way, have the same.
//! - A head that comes byte by byte costs at most three looks at each byte.
//!
//! Not here: bodies (`chunked.rs`), the blank line allowed before a request (`conn/server.rs`).

use super::clean::{
    Lanes, RequestLine, Scalar, between, bytes_at, clean_fields, clean_head, usual_request_line,
};
use super::framing::{Facts, is_port_or_nothing};
pub use super::scan::HeadProgress;
#[doc(hidden)]
pub use super::simd::use_instructions;
use super::simd::{self, Room};
use super::token::is_value_byte;
use super::{Field, Framing, Method, RequestHead, ResponseHead, Version};
use crate::buffer::Span;
use crate::limits::Limits;
use crate::violation::Violation;
use core::ops::Range;

/// Fields to make room for at least, where there was not enough.
const FIELDS_EXPECTED: usize = 32;

/// What parsing the head of a request comes to.
pub(super) type Parsed = Result<Option<RequestHead>, Violation>;

/// Parses the head of a request at the front of `input`; `Ok(None)` until it is whole.
///
/// Once it is, its fields have been appended to `fields`; otherwise `fields` is as it was. Spans
/// count from the start of `input`. While the head is incomplete, call again with the same
/// `progress` and the same bytes followed by more; for the next head take a new progress.
///
/// # Errors
/// The rule the head breaks, as soon as its bytes so far determine which: of syntax errors the
/// first in the head, and else, at its end, the first in the table of [`Violation`]s. The verdict
/// is final: more input, however it is cut, brings the same.
pub fn parse_request(
    input: &[u8],
    progress: &mut HeadProgress,
    limits: &Limits,
    fields: &mut Vec<Field>,
) -> Result<Option<RequestHead>, Violation> {
    if progress.is_fresh() {
        return simd::parse_request(input, progress, limits, fields);
    }
    parse_request_again(input, progress, limits, fields)
}

/// [`parse_request`] of a head begun earlier: not worth a try until the scanner has seen its end.
#[inline(never)]
fn parse_request_again(
    input: &[u8],
    progress: &mut HeadProgress,
    limits: &Limits,
    fields: &mut Vec<Field>,
) -> Parsed {
    if !scan(input, visible(input, limits), progress, limits)? {
        return Ok(None);
    }
    fields.reserve(progress.field_count());
    simd::parse_request(input, progress, limits, fields)
}

/// [`parse_request`] behind its first question, for `GET /… HTTP/1.1`; of any other head `any` is
/// asked. All in one function for each set of instructions, so that the head is put together where
/// the caller wants it; and with less to keep in mind on the way.
#[inline(always)]
pub(super) fn parse_usual_request<L: Lanes>(
    lanes: L,
    input: &[u8],
    progress: &mut HeadProgress,
    limits: &Limits,
    fields: &mut Vec<Field>,
    any: impl FnOnce(&[u8], &mut HeadProgress, &Limits, &mut Vec<Field>) -> Parsed,
) -> Parsed {
    let visible = visible(input, limits);
    let Some((target, fields_at)) = usual_request_line(lanes, visible, limits) else {
        return any(input, progress, limits, fields);
    };
    let first_field = fields.len();
    let mut room = Room::new(fields, limits.fields_max);
    let Some((len, heard)) = clean_fields(lanes, visible, fields_at, &mut room) else {
        return parse_unclean_request(input, progress, limits, fields);
    };
    room.commit();
    if !(heard.only_host() && is_plain_host(lanes, visible, heard.host)) {
        let line = RequestLine::usual(target);
        return judge_in_full(&line, len, visible, first_field, fields);
    }
    // What the whole judgement would come to; most requests need not go there.
    Ok(Some(RequestHead {
        method: Method::Get,
        version: Version::Http11,
        framing: Framing::None,
        keeps_alive: true,
        expects_continue: false,
        upgrades_to_websocket: false,
        method_span: between(0, 3),
        target,
        fields: field_range(first_field, fields),
        len,
    }))
}

/// [`parse_usual_request`] for heads with any request line.
#[inline(always)]
pub(super) fn parse_any_request<L: Lanes>(
    lanes: L,
    input: &[u8],
    progress: &mut HeadProgress,
    limits: &Limits,
    fields: &mut Vec<Field>,
) -> Parsed {
    let visible = visible(input, limits);
    let first_field = fields.len();
    let mut room = Room::new(fields, limits.fields_max);
    match clean_head(lanes, visible, limits, &mut room) {
        Some((line, len)) => {
            room.commit();
            judge_in_full(&line, len, visible, first_field, fields)
        }
        None => parse_unclean_request(input, progress, limits, fields),
    }
}

/// What of `input` may belong to the head.
#[inline(always)]
pub(super) fn visible<'a>(input: &'a [u8], limits: &Limits) -> &'a [u8] {
    input.get(..limits.head_bytes_max as usize).unwrap_or(input)
}

/// Lets the scanner say what the fast path has no opinion on.
#[cold]
#[inline(never)]
fn parse_unclean_request(
    input: &[u8],
    progress: &mut HeadProgress,
    limits: &Limits,
    fields: &mut Vec<Field>,
) -> Parsed {
    let visible = visible(input, limits);
    if !scan(input, visible, progress, limits)? {
        return Ok(None);
    }
    let first_field = fields.len();
    fields.reserve(FIELDS_EXPECTED.max(progress.field_count()));
    let mut room = Room::new(fields, limits.fields_max);
    let clean = clean_head(Scalar, visible, limits, &mut room);
    debug_assert!(
        clean.is_some(),
        "the scanner accepts what the parser refuses"
    );
    let Some((line, len)) = clean else {
        return Ok(None);
    };
    room.commit();
    judge_in_full(&line, len, visible, first_field, fields)
}

/// The verdict on a head of `len` bytes whose fields are those from `first_field` on.
#[inline(never)]
fn judge_in_full(
    line: &RequestLine,
    len: u32,
    input: &[u8],
    first_field: usize,
    fields: &mut Vec<Field>,
) -> Parsed {
    let facts = Facts::of(fields.get(first_field..).unwrap_or_default(), input);
    let verdict = facts
        .judge_request(line.method, line.target.of(input), line.version)
        .inspect_err(|_| fields.truncate(first_field))?;
    Ok(Some(RequestHead {
        method: line.method,
        version: line.version,
        framing: verdict.framing,
        keeps_alive: verdict.keeps_alive,
        expects_continue: verdict.expects_continue,
        upgrades_to_websocket: verdict.upgrades_to_websocket,
        method_span: line.method_span,
        target: line.target,
        fields: field_range(first_field, fields),
        len,
    }))
}

/// Whether `host` is a name without escapes, and a port perhaps. Nearly all are: for those one look
/// at all bytes together is enough.
#[inline(always)]
fn is_plain_host<L: Lanes>(lanes: L, input: &[u8], host: Span) -> bool {
    // What ends a value is no byte of a name, so the name does not reach beyond.
    let name_len = lanes.plain_len(input, host.start);
    name_len > 0 && (name_len == host.len || has_port(host.of(input), name_len))
}

/// Whether a port follows the first `name_len` bytes of `host`.
#[inline(never)]
fn has_port(host: &[u8], name_len: u32) -> bool {
    host.get(name_len as usize..)
        .is_some_and(is_port_or_nothing)
}

/// Parses the head of a response to a request with `request_method`; as [`parse_request`] does
/// that of a request.
///
/// Interim responses (1xx) are heads like others: the caller goes on with the next one.
///
/// # Errors
/// The rule the head breaks, as soon and as finally as [`parse_request`] says it.
pub fn parse_response(
    input: &[u8],
    progress: &mut HeadProgress,
    request_method: Method,
    limits: &Limits,
    fields: &mut Vec<Field>,
) -> Result<Option<ResponseHead>, Violation> {
    let visible = visible(input, limits);
    progress.expect_status_line();
    if !progress.is_fresh() && !scan(input, visible, progress, limits)? {
        return Ok(None);
    }
    let first_field = fields.len();
    fields.reserve(FIELDS_EXPECTED.max(progress.field_count()));
    let clean = match clean_response(simd::clean_fields, visible, limits, fields) {
        Some(clean) => clean,
        None if !scan(input, visible, progress, limits)? => return Ok(None),
        None => {
            fields.reserve(progress.field_count());
            let clean = clean_response(simd::clean_fields_in_full, visible, limits, fields);
            debug_assert!(
                clean.is_some(),
                "the scanner accepts what the parser refuses"
            );
            let Some(clean) = clean else {
                return Ok(None);
            };
            clean
        }
    };
    let (line, len) = clean;
    let verdict = Facts::of(fields.get(first_field..).unwrap_or_default(), visible)
        .judge_response(request_method, line.status, line.version)
        .inspect_err(|_| fields.truncate(first_field))?;
    Ok(Some(ResponseHead {
        version: line.version,
        status: line.status,
        framing: verdict.framing,
        keeps_alive: verdict.keeps_alive,
        upgrades_to_websocket: verdict.upgrades_to_websocket,
        reason: line.reason,
        fields: field_range(first_field, fields),
        len,
    }))
}

/// Lets the scanner see what is new. True if the head is whole.
fn scan(
    input: &[u8],
    visible: &[u8],
    progress: &mut HeadProgress,
    limits: &Limits,
) -> Result<bool, Violation> {
    let whole = progress.advance(visible, limits)?;
    if !whole && input.len() > visible.len() {
        return Err(Violation::HeadTooLarge);
    }
    Ok(whole)
}

/// Where the fields from `first` on stand, in the form heads keep it.
fn field_range(first: usize, fields: &[Field]) -> Range<u32> {
    let saturated = |index| u32::try_from(index).unwrap_or(u32::MAX);
    saturated(first)..saturated(fields.len())
}

/// A status line that broke no rule.
struct StatusLine {
    version: Version,
    status: u16,
    reason: Span,
}

/// Parses field lines as [`simd::clean_fields`] does.
type CleanFields = fn(&[u8], u32, u16, &mut Vec<Field>) -> Option<u32>;

/// Parses a response's head that is whole and clean; `None` for any other. The line, and the
/// head's length.
fn clean_response(
    clean_fields: CleanFields,
    input: &[u8],
    limits: &Limits,
    fields: &mut Vec<Field>,
) -> Option<(StatusLine, u32)> {
    #[cfg(test)]
    looked_at(input.len());
    let (line, fields_at) = clean_status_line(input)?;
    let len = clean_fields(input, fields_at, limits.fields_max, fields)?;
    Some((line, len))
}

/// Parses a status line and says where the next line begins. RFC 9112 §4.
fn clean_status_line(input: &[u8]) -> Option<(StatusLine, u32)> {
    if input.first_chunk() != Some(b"HTTP/1.1") && !is_other_version(input) {
        return None;
    }
    let (version, rest) = match input.get(7..)? {
        [b'0', b' ', rest @ ..] => (Version::Http10, rest),
        [_, b' ', rest @ ..] => (Version::Http11, rest),
        _ => return None,
    };
    let [
        hundreds @ b'1'..=b'9',
        tens @ b'0'..=b'9',
        ones @ b'0'..=b'9',
        behind @ ..,
    ] = rest
    else {
        return None;
    };
    let digit = |byte: &u8| u16::from(byte - b'0');
    let status = digit(hundreds) * 100 + digit(tens) * 10 + digit(ones);
    // Behind `HTTP/1.1 200`, and the space that should be there.
    let (phrase, at) = match behind {
        [b' ', phrase @ ..] => (phrase, 13),
        _ => (behind, 12),
    };
    let len = if at == 13 {
        Scalar::run_len(phrase, is_value_byte)
    } else {
        0
    };
    let end = at + len;
    let reason = between(at, end);
    let line = StatusLine {
        version,
        status,
        reason,
    };
    (bytes_at(input, end) == Some(b"\r\n")).then_some((line, end + 2))
}

/// Whether `input` begins with a version 1.x.
#[cold]
fn is_other_version(input: &[u8]) -> bool {
    matches!(
        input.split_first_chunk(),
        Some((b"HTTP/1.", [b'0'..=b'9', ..]))
    )
}

#[cfg(test)]
std::thread_local! {
    /// Bytes the parser and the scanner have looked at on this thread.
    static LOOKED_AT: core::cell::Cell<usize> = const { core::cell::Cell::new(0) };
}

/// Counts `bytes` for the test that reading a slow head costs linear time.
#[cfg(test)]
pub(super) fn looked_at(bytes: usize) {
    LOOKED_AT.set(LOOKED_AT.get() + bytes);
}

#[cfg(test)]
mod tests;
