//! Parses heads in place: request line and field lines become spans. RFC 9112 §3, §5.
//!
//! Sits between the drivers and three files it is made of. `clean_head` below is the fast path:
//! it accepts heads that are whole and clean, and has no opinion on any other. `scan.rs` is the
//! slow path: it names errors, and walks heads that trickle in. `framing.rs` judges the fields.
//!
//! The fast path looks at blocks of 64 bytes. Of each block it takes one bitmap, of the control
//! bytes other than HTAB; its set bits are line ends, or the head is not clean, so values are
//! validated by the pass that finds their end. A name is looked up where its line begins: the
//! first byte that is no `tchar` must be the colon.
//!
//! Invariants
//! - What `clean_head` accepts, the scanner accepts, with the same length (property-tested).
//! - The verdict on a prefix is final: all longer inputs, cut in any way, have the same.
//! - A head that comes byte by byte costs at most three looks at each byte.
//!
//! Not here: bodies (`chunked.rs`), the blank line allowed before a request (`conn/server.rs`).

use super::framing::Facts;
pub use super::scan::HeadProgress;
use super::token::{is_ows, is_target_byte, is_token_byte};
use super::{Field, FieldName, Method, RequestHead, Version};
use crate::buffer::Span;
use crate::limits::Limits;
use crate::violation::Violation;

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
    let head_bytes_max = limits.head_bytes_max as usize;
    let visible = input.get(..head_bytes_max).unwrap_or(input);
    // A head begun earlier: not worth a try until the scanner has seen its end.
    if !progress.is_fresh() && !scan(input, visible, progress, limits)? {
        return Ok(None);
    }
    let first_field = fields.len();
    if let Some(clean) = clean_head(Scalar, visible, limits, fields) {
        return clean.judge(visible, first_field, fields).map(Some);
    }
    fields.truncate(first_field);
    let whole = scan(input, visible, progress, limits)?;
    debug_assert!(!whole, "the scanner accepts a head that the parser refuses");
    Ok(None)
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
struct CleanHead {
    method: Method,
    method_span: Span,
    target: Span,
    version: Version,
    facts: Facts,
    len: usize,
}

impl CleanHead {
    fn judge(
        self,
        input: &[u8],
        first_field: usize,
        fields: &mut Vec<Field>,
    ) -> Result<RequestHead, Violation> {
        let verdict = self
            .facts
            .judge_request(self.method, self.target.of(input), self.version)
            .inspect_err(|_| fields.truncate(first_field))?;
        let Span { start, len } = Span::new(first_field..fields.len());
        Ok(RequestHead {
            method: self.method,
            version: self.version,
            framing: verdict.framing,
            keeps_alive: verdict.keeps_alive,
            expects_continue: verdict.expects_continue,
            upgrades_to_websocket: verdict.upgrades_to_websocket,
            method_span: self.method_span,
            target: self.target,
            fields: start..start + len,
            len: Span::new(0..self.len).len,
        })
    }
}

/// Bytes of a block, one per bit of its bitmap.
pub(super) const BLOCK_BYTES: usize = 64;

/// The questions the parser asks about bytes: answered one by one here, many at a time in
/// `simd.rs`. Answers must not differ.
pub(super) trait Lanes: Copy {
    /// The control bytes other than HTAB among the up to 64 bytes at `from`; bit 0 is the byte at
    /// `from`, and bits beyond the end of `input` are clear.
    fn controls(self, input: &[u8], from: usize) -> u64;

    /// The number of `tchar`s at `from`.
    fn token_len(self, input: &[u8], from: usize) -> usize;

    /// The number of request-target bytes at `from`.
    fn target_len(self, input: &[u8], from: usize) -> usize;
}

/// One byte after the other: the definition that vector code is held against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scalar;

impl Lanes for Scalar {
    fn controls(self, input: &[u8], from: usize) -> u64 {
        let block = input.iter().skip(from).take(BLOCK_BYTES);
        block.enumerate().fold(0, |bits, (lane, byte)| {
            let control = byte.is_ascii_control() && *byte != b'\t';
            bits | u64::from(control) << lane
        })
    }

    fn token_len(self, input: &[u8], from: usize) -> usize {
        let rest = input.get(from..).unwrap_or_default();
        rest.iter().take_while(|byte| is_token_byte(**byte)).count()
    }

    fn target_len(self, input: &[u8], from: usize) -> usize {
        let rest = input.get(from..).unwrap_or_default();
        let good = rest.iter().take_while(|byte| is_target_byte(**byte));
        good.count()
    }
}

/// Parses a head that is whole and clean; `None` for any other.
#[inline(always)]
fn clean_head<L: Lanes>(
    lanes: L,
    input: &[u8],
    limits: &Limits,
    fields: &mut Vec<Field>,
) -> Option<CleanHead> {
    #[cfg(test)]
    looked_at(input.len());
    let (method, method_len) = method_at_front(lanes, input)?;
    let target_at = method_len + 1;
    let target_len = lanes.target_len(input, target_at);
    if target_len == 0 || target_len > limits.target_bytes_max as usize {
        return None;
    }
    let (version, fields_at) = version_and_line_end(input, target_at + target_len)?;
    let (facts, len) = clean_fields(lanes, input, fields_at, limits.fields_max, fields)?;
    Some(CleanHead {
        method,
        method_span: Span::new(0..method_len),
        target: Span::new(target_at..target_at + target_len),
        version,
        facts,
        len,
    })
}

/// The method and its length, if a space follows it.
#[inline(always)]
fn method_at_front<L: Lanes>(lanes: L, input: &[u8]) -> Option<(Method, usize)> {
    if input.starts_with(b"GET ") {
        return Some((Method::Get, 3));
    }
    let len = lanes.token_len(input, 0);
    if len == 0 || input.get(len) != Some(&b' ') {
        return None;
    }
    Some((Method::of(input.get(..len)?), len))
}

/// The version behind a target that ends at `at`, and where the next line begins.
#[inline(always)]
fn version_and_line_end(input: &[u8], at: usize) -> Option<(Version, usize)> {
    let end = input.get(at..)?.first_chunk::<11>()?;
    let version = match end {
        b" HTTP/1.1\r\n" => Version::Http11,
        b" HTTP/1.0\r\n" => Version::Http10,
        [
            b' ',
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            b'2'..=b'9',
            b'\r',
            b'\n',
        ] => Version::Http11,
        _ => return None,
    };
    Some((version, at + end.len()))
}

/// Parses field lines from `at` up to the empty line. The facts they state, and the head's end.
#[inline(always)]
fn clean_fields<L: Lanes>(
    lanes: L,
    input: &[u8],
    mut at: usize,
    fields_max: u16,
    fields: &mut Vec<Field>,
) -> Option<(Facts, usize)> {
    let mut facts = Facts::default();
    let mut line_ends = Controls::new(lanes, input, at);
    let mut left = fields_max;
    loop {
        let name_len = lanes.token_len(input, at);
        let colon = at + name_len;
        if name_len == 0 {
            let whole = input.get(at..)?.starts_with(b"\r\n");
            return whole.then_some((facts, at + 2));
        }
        if input.get(colon) != Some(&b':') {
            return None;
        }
        left = left.checked_sub(1)?;
        let end = line_ends.next()?;
        if !input.get(end..)?.starts_with(b"\r\n") {
            return None;
        }
        line_ends.skip_lf();
        let name = input.get(at..colon)?;
        let value = trimmed(input, colon + 1, end);
        let id = FieldName::of(name);
        let value_span = Span::new(value.clone());
        fields.push(Field {
            name: Span::new(at..colon),
            value: value_span,
            id,
        });
        if id != FieldName::Other {
            facts.note(id, input.get(value)?);
        }
        at = end + 2;
    }
}

/// `start..end` without the white space at its ends.
#[inline(always)]
fn trimmed(input: &[u8], mut start: usize, mut end: usize) -> core::ops::Range<usize> {
    while start < end && is_ows(input[start]) {
        start += 1;
    }
    while start < end && is_ows(input[end - 1]) {
        end -= 1;
    }
    start..end
}

/// The control bytes of the input in order, block by block.
struct Controls<'a, L> {
    lanes: L,
    input: &'a [u8],
    /// Where the current block begins.
    block: usize,
    /// Its control bytes that have not been taken.
    bits: u64,
}

impl<'a, L: Lanes> Controls<'a, L> {
    #[inline(always)]
    fn new(lanes: L, input: &'a [u8], from: usize) -> Self {
        let bits = lanes.controls(input, from);
        Self {
            lanes,
            input,
            block: from,
            bits,
        }
    }

    /// Takes the next one: its offset, or `None` if there is none.
    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        while self.bits == 0 {
            self.block += BLOCK_BYTES;
            if self.block >= self.input.len() {
                return None;
            }
            self.bits = self.lanes.controls(self.input, self.block);
        }
        let at = self.block + self.bits.trailing_zeros() as usize;
        self.bits &= self.bits - 1;
        Some(at)
    }

    /// Takes the LF that is known to follow the CR just taken.
    #[inline(always)]
    fn skip_lf(&mut self) {
        if self.bits == 0 {
            self.block += BLOCK_BYTES;
            self.bits = self.lanes.controls(self.input, self.block);
        }
        self.bits &= self.bits.wrapping_sub(1);
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
