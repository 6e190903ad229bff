//! Parses heads in place: start line and field lines become spans. RFC 9112 §3, §4, §5.
//!
//! Sits between the drivers and three files it is made of. `clean_head` below is the fast path:
//! it accepts heads that are whole and clean, and has no opinion on any other. `scan.rs` is the
//! slow path: it names errors, and walks heads that trickle in. `framing.rs` judges the fields.
//!
//! The fast path looks at blocks of 64 bytes. Of each block it takes one bitmap, of the control
//! bytes; its set bits are line ends, rarely HTAB, or the head is not clean, so values are
//! validated by the pass that finds their end. A name is looked up where its line begins: the
//! first byte that is no `tchar` must be the colon.
//!
//! Invariants
//! - What `clean_head` accepts, the scanner accepts, with the same length (property-tested).
//! - The verdict on a prefix is final: all longer inputs, cut in any way, have the same.
//! - A head that comes byte by byte costs at most three looks at each byte.
//!
//! Not here: bodies (`chunked.rs`), the blank line allowed before a request (`conn/server.rs`).

use super::framing::{Facts, is_port_or_nothing};
pub use super::scan::HeadProgress;
use super::simd;
use super::token::{is_reg_name_byte, is_target_byte, is_token_byte, is_value_byte};
use super::{Field, FieldName, Method, RequestHead, ResponseHead, Version};
use crate::buffer::Span;
use crate::limits::Limits;
use crate::violation::Violation;
use core::ops::Range;

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
) -> Result<Option<RequestHead>, Violation> {
    if !scan(input, visible(input, limits), progress, limits)? {
        return Ok(None);
    }
    simd::parse_request(input, progress, limits, fields)
}

/// [`parse_request`] behind its first question. All in one function for each set of instructions,
/// so that the head is put together where the caller wants it.
#[inline(always)]
pub(super) fn parse_request_with<L: Lanes>(
    lanes: L,
    input: &[u8],
    progress: &mut HeadProgress,
    limits: &Limits,
    fields: &mut Vec<Field>,
) -> Result<Option<RequestHead>, Violation> {
    let visible = visible(input, limits);
    let first_field = fields.len();
    let mut facts = Facts::default();
    match clean_head(lanes, visible, limits, fields, &mut facts) {
        Some(clean) => clean.judge(&facts, visible, first_field, fields).map(Some),
        None => {
            fields.truncate(first_field);
            scan_unclean(input, visible, progress, limits).map(|()| None)
        }
    }
}

/// What of `input` may belong to the head.
#[inline(always)]
pub(super) fn visible<'a>(input: &'a [u8], limits: &Limits) -> &'a [u8] {
    input.get(..limits.head_bytes_max as usize).unwrap_or(input)
}

/// Lets the scanner say what the fast path has no opinion on: `Ok` if the head is incomplete.
#[cold]
#[inline(never)]
fn scan_unclean(
    input: &[u8],
    visible: &[u8],
    progress: &mut HeadProgress,
    limits: &Limits,
) -> Result<(), Violation> {
    let whole = scan(input, visible, progress, limits)?;
    debug_assert!(!whole, "the scanner accepts a head that the parser refuses");
    Ok(())
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
    if let Some((line, facts, len)) = clean_response(visible, limits, fields) {
        let verdict = facts
            .judge_response(request_method, line.status, line.version)
            .inspect_err(|_| fields.truncate(first_field))?;
        return Ok(Some(ResponseHead {
            version: line.version,
            status: line.status,
            framing: verdict.framing,
            keeps_alive: verdict.keeps_alive,
            upgrades_to_websocket: verdict.upgrades_to_websocket,
            reason: line.reason,
            fields: field_range(first_field, fields),
            len,
        }));
    }
    fields.truncate(first_field);
    scan_unclean(input, visible, progress, limits).map(|()| None)
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

/// A head that broke no rule of syntax.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CleanHead {
    method: Method,
    method_span: Span,
    target: Span,
    version: Version,
    len: u32,
}

impl CleanHead {
    #[inline(always)]
    fn judge(
        self,
        facts: &Facts,
        input: &[u8],
        first_field: usize,
        fields: &mut Vec<Field>,
    ) -> Result<RequestHead, Violation> {
        let verdict = facts
            .judge_request(self.method, self.target.of(input), self.version)
            .inspect_err(|_| fields.truncate(first_field))?;
        Ok(RequestHead {
            method: self.method,
            version: self.version,
            framing: verdict.framing,
            keeps_alive: verdict.keeps_alive,
            expects_continue: verdict.expects_continue,
            upgrades_to_websocket: verdict.upgrades_to_websocket,
            method_span: self.method_span,
            target: self.target,
            fields: field_range(first_field, fields),
            len: self.len,
        })
    }
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

/// Parses a response's head that is whole and clean; `None` for any other. The line, what the
/// fields state, and the head's length.
fn clean_response(
    input: &[u8],
    limits: &Limits,
    fields: &mut Vec<Field>,
) -> Option<(StatusLine, Facts, u32)> {
    #[cfg(test)]
    looked_at(input.len());
    let (line, fields_at) = clean_status_line(input)?;
    let mut facts = Facts::default();
    let len = simd::clean_fields(input, fields_at, limits.fields_max, fields, &mut facts)?;
    Some((line, facts, len))
}

/// Parses a status line and says where the next line begins. RFC 9112 §4.
fn clean_status_line(input: &[u8]) -> Option<(StatusLine, u32)> {
    let (version, rest) = match input {
        [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            minor @ b'0'..=b'9',
            b' ',
            rest @ ..,
        ] => {
            let version = if *minor == b'0' {
                Version::Http10
            } else {
                Version::Http11
            };
            (version, rest)
        }
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
    has(input, end, b"\r\n").then_some((line, end + 2))
}

/// Bytes of a block, one per bit of its bitmap.
pub(super) const BLOCK_BYTES: usize = 64;

/// Bits of that bitmap.
const BLOCK_BITS: u32 = u64::BITS;

/// The questions the parser asks about bytes: answered one by one here, many at a time in
/// `simd.rs`. Answers must not differ.
///
/// Each is about the bytes of `input` from the offset `at` on, which lies within it. Offsets and
/// lengths are 32-bit as in spans, so that none is converted on the way from a bitmap to a span.
pub(super) trait Lanes: Copy {
    /// The control bytes of the block that begins at `at`, or of what is left; bit 0 is its first.
    fn controls(self, input: &[u8], at: u32) -> u64;

    /// The number of `tchar`s from `at` on.
    fn token_len(self, input: &[u8], at: u32) -> u32;

    /// The number of request-target bytes from `at` on.
    fn target_len(self, input: &[u8], at: u32) -> u32;

    /// The number of `reg-name` bytes from `at` on, escapes not among them.
    fn reg_name_len(self, input: &[u8], at: u32) -> u32;
}

/// One byte after the other: the definition that vector code is held against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scalar;

impl Scalar {
    fn run_len(mut rest: &[u8], is_member: impl Fn(u8) -> bool) -> u32 {
        let mut len = 0;
        while let [byte, behind @ ..] = rest
            && is_member(*byte)
        {
            len += 1;
            rest = behind;
        }
        len
    }
}

impl Lanes for Scalar {
    fn controls(self, input: &[u8], at: u32) -> u64 {
        let block = from(input, at).iter().take(BLOCK_BYTES).enumerate();
        block.fold(0, |bits, (lane, byte)| {
            bits | u64::from(byte.is_ascii_control()) << lane
        })
    }

    fn token_len(self, input: &[u8], at: u32) -> u32 {
        Self::run_len(from(input, at), is_token_byte)
    }

    fn target_len(self, input: &[u8], at: u32) -> u32 {
        Self::run_len(from(input, at), is_target_byte)
    }

    fn reg_name_len(self, input: &[u8], at: u32) -> u32 {
        Self::run_len(from(input, at), is_reg_name_byte)
    }
}

/// The bytes of `input` from the offset `at` on.
#[inline(always)]
pub(super) fn from(input: &[u8], at: u32) -> &[u8] {
    input.get(at as usize..).unwrap_or_default()
}

/// The `N` bytes of `input` from the offset `at` on, if they are there.
#[inline(always)]
pub(super) fn bytes_at<const N: usize>(input: &[u8], at: u32) -> Option<&[u8; N]> {
    // A range with both ends takes one comparison: with 64-bit addresses the sum cannot overflow.
    let at = at as usize;
    input.get(at..at.checked_add(N)?)?.first_chunk()
}

/// Parses a head that is whole and clean; `None` for any other.
#[inline(always)]
pub(super) fn clean_head<L: Lanes>(
    lanes: L,
    input: &[u8],
    limits: &Limits,
    fields: &mut Vec<Field>,
    facts: &mut Facts,
) -> Option<CleanHead> {
    #[cfg(test)]
    looked_at(input.len());
    let (method, method_len) = method_at_front(lanes, input)?;
    let target_at = method_len + 1;
    let target_len = lanes.target_len(input, target_at);
    if target_len == 0 || target_len > limits.target_bytes_max {
        return None;
    }
    let target_end = target_at + target_len;
    let version = version_and_line_end(bytes_at(input, target_end)?)?;
    let fields_at = target_end + 11;
    let len = clean_fields(lanes, input, fields_at, limits.fields_max, fields, facts)?;
    Some(CleanHead {
        method,
        method_span: between(0, method_len),
        target: between(target_at, target_end),
        version,
        len,
    })
}

/// The span `start..end`.
const fn between(start: u32, end: u32) -> Span {
    Span {
        start,
        len: end - start,
    }
}

/// Whether `expected` stands at `at`.
#[inline(always)]
fn has<const N: usize>(input: &[u8], at: u32, expected: &[u8; N]) -> bool {
    bytes_at(input, at) == Some(expected)
}

/// The method and its length, if a space follows it.
#[inline(always)]
fn method_at_front<L: Lanes>(lanes: L, input: &[u8]) -> Option<(Method, u32)> {
    if has(input, 0, b"GET ") {
        return Some((Method::Get, 3));
    }
    let len = lanes.token_len(input, 0);
    if len == 0 || !has(input, len, b" ") {
        return None;
    }
    Some((Method::of(input.get(..len as usize)?), len))
}

/// The version in what follows a target up to the end of the line.
#[inline(always)]
fn version_and_line_end(text: &[u8; 11]) -> Option<Version> {
    if text == b" HTTP/1.1\r\n" {
        return Some(Version::Http11);
    }
    match text {
        [
            b' ',
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            minor @ b'0'..=b'9',
            b'\r',
            b'\n',
        ] => Some(match minor {
            b'0' => Version::Http10,
            _ => Version::Http11,
        }),
        _ => None,
    }
}

/// Parses field lines from `at` up to the empty line, and tells `facts` of them. The head's end.
#[inline(always)]
pub(super) fn clean_fields<L: Lanes>(
    lanes: L,
    input: &[u8],
    mut at: u32,
    fields_max: u16,
    fields: &mut Vec<Field>,
    facts: &mut Facts,
) -> Option<u32> {
    let mut line_ends = LineEnds::new(lanes, input, at);
    let count_max = fields.len() + usize::from(fields_max);
    loop {
        let (last, end) = line_ends.next_line_end()?;
        if end == at {
            return Some(at + 2);
        }
        let name_len = lanes.token_len(input, at);
        let colon = at + name_len;
        // Behind the colon are two bytes at least, be it only the end of the line.
        let [b':', space, first] = bytes_at(input, colon)? else {
            return None;
        };
        if name_len == 0 || fields.len() >= count_max {
            return None;
        }
        // Nearly always one space before and none behind. As control bytes are excluded, what is
        // not above SP is white space or the CR.
        let value = if *space == b' ' && *first > b' ' && last > b' ' {
            between(colon + 2, end)
        } else {
            trimmed(input, colon + 1, end)
        };
        let id = FieldName::of(input.get(at as usize..colon as usize)?);
        fields.push(Field {
            name: between(at, colon),
            value,
            id,
        });
        if id != FieldName::Other {
            if id == FieldName::Host && is_plain_host(lanes, input, value) {
                facts.note_plain_host();
            } else {
                facts.note(id, value.of(input));
            }
        }
        at = end + 2;
    }
}

/// The span `start..end` without the white space at its ends.
#[cold]
#[inline(never)]
fn trimmed(input: &[u8], mut start: u32, mut end: u32) -> Span {
    let mut value = between(start, end).of(input);
    while let [b' ' | b'\t', behind @ ..] = value {
        value = behind;
        start += 1;
    }
    while let [before @ .., b' ' | b'\t'] = value {
        value = before;
        end -= 1;
    }
    between(start, end)
}

/// Whether `host` is a name without escapes, and a port perhaps. Nearly all are: for those one look
/// at all bytes together is enough.
#[inline(always)]
fn is_plain_host<L: Lanes>(lanes: L, input: &[u8], host: Span) -> bool {
    // What ends a value is no byte of a name, so the name does not reach beyond.
    let name_len = lanes.reg_name_len(input, host.start);
    name_len > 0 && (name_len == host.len || has_port(host.of(input), name_len))
}

/// Whether a port follows the first `name_len` bytes of `host`.
#[inline(never)]
fn has_port(host: &[u8], name_len: u32) -> bool {
    is_port_or_nothing(from(host, name_len))
}

/// The control bytes of the block that begins at `at`, if there is one.
#[inline(always)]
fn controls_from<L: Lanes>(lanes: L, input: &[u8], at: u32) -> Option<u64> {
    ((at as usize) < input.len()).then(|| lanes.controls(input, at))
}

/// The ends of the lines behind a start line in order, found block by block.
struct LineEnds<'a, L> {
    lanes: L,
    input: &'a [u8],
    /// Where the current block begins.
    block: u32,
    /// Its control bytes that have not been taken.
    bits: u64,
}

impl<'a, L: Lanes> LineEnds<'a, L> {
    #[inline(always)]
    fn new(lanes: L, input: &'a [u8], at: u32) -> Self {
        Self {
            lanes,
            input,
            block: at,
            bits: controls_from(lanes, input, at).unwrap_or(0),
        }
    }

    /// The offset of the next CR, which LF follows, and the byte before it. `None` if there is
    /// none, or a control byte before it that no clean head has.
    #[inline(always)]
    fn next_line_end(&mut self) -> Option<(u8, u32)> {
        loop {
            while self.bits == 0 {
                self.block += BLOCK_BITS;
                self.bits = controls_from(self.lanes, self.input, self.block)?;
            }
            let at = self.block + self.bits.trailing_zeros();
            self.bits &= self.bits - 1;
            let [before, end @ ..] = bytes_at::<3>(self.input, at - 1)?;
            if end == b"\r\n" {
                // The LF, unless it is the first byte of the next block.
                self.bits &= self.bits.wrapping_sub(1);
                return Some((*before, at));
            }
            // An LF behind CR is that of the line end before: CRs are never passed over.
            if !matches!([*before, end[0]], [_, b'\t'] | [b'\r', b'\n']) {
                return None;
            }
        }
    }
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
