//! The fast path: heads that are whole and clean, and nothing else. RFC 9112 §2.2, §3, §5.
//!
//! Sits below `parse.rs`. It looks at blocks of 64 bytes. Of each block it takes one bitmap, of the
//! control bytes; its set bits are line ends, rarely HTAB, or the head is not clean, so values are
//! validated by the pass that finds their end. A name is looked up where its line begins: the first
//! byte outside its class must be the colon.
//!
//! Invariants
//! - Nothing is called from the loop over lines, so that all of its state stays in registers. What
//!   takes a call waits until the head is whole, or is left to `parse.rs`.
//! - `None` says nothing about a head: incomplete, broken, or just not usual enough.
//! - No byte is judged here that `scan.rs` would judge otherwise (property-tested).
//!
//! Not here: the vector instructions (`simd.rs`), what fields mean (`framing.rs`).

use super::simd::Room;
use super::token::{is_ows, is_plain_byte, is_target_byte, is_token_byte};
use super::{Field, FieldName, Method, Version, is_but_for_case};
use crate::buffer::Span;
use crate::limits::Limits;

/// Bytes of a block, one per bit of its bitmap.
pub(super) const BLOCK_BYTES: usize = 64;

/// Bits of that bitmap.
const BLOCK_BITS: u32 = u64::BITS;

/// The questions the fast path asks about bytes: answered one by one here, many at a time in
/// `simd.rs`. Answers must not differ, but for that of [`name_len`](Self::name_len).
///
/// Each is about the bytes of `input` from the offset `at` on, which lies within it. Offsets and
/// lengths are 32-bit as in spans, so that none is converted on the way from a bitmap to a span.
pub(super) trait Lanes: Copy {
    /// The odd bytes, which are control bytes and those beyond ASCII, of the block that begins at
    /// `at`, or of what is left; bit 0 is its first.
    fn odd_bytes(self, input: &[u8], at: u32) -> u64;

    /// The number of request-target bytes from `at` on.
    fn target_len(self, input: &[u8], at: u32) -> u32;

    /// The number of plain bytes from `at` on: of those that are `tchar` and `reg-name` at once, as
    /// nearly all bytes of field names and hosts are.
    fn plain_len(self, input: &[u8], at: u32) -> u32;

    /// The number of `tchar`s from `at` on; or of plain bytes, and then heads with odd names are
    /// left to others.
    #[inline(always)]
    fn name_len(self, input: &[u8], at: u32) -> u32 {
        self.plain_len(input, at)
    }
}

/// Whether a value must not hold `byte` unseen: control bytes end it or are wrong in it, but for
/// HTAB; bytes beyond ASCII are right, but so rare that they are counted among these.
#[inline(always)]
pub(super) const fn is_odd(byte: u8) -> bool {
    byte.is_ascii_control() || !byte.is_ascii()
}

/// One byte after the other: the definition that vector code is held against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scalar;

impl Scalar {
    pub(super) fn run_len(mut rest: &[u8], is_member: impl Fn(u8) -> bool) -> u32 {
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
    fn odd_bytes(self, input: &[u8], at: u32) -> u64 {
        let block = from(input, at).iter().take(BLOCK_BYTES).enumerate();
        block.fold(0, |bits, (lane, byte)| {
            bits | u64::from(is_odd(*byte)) << lane
        })
    }

    fn target_len(self, input: &[u8], at: u32) -> u32 {
        Self::run_len(from(input, at), is_target_byte)
    }

    fn plain_len(self, input: &[u8], at: u32) -> u32 {
        Self::run_len(from(input, at), is_plain_byte)
    }

    fn name_len(self, input: &[u8], at: u32) -> u32 {
        Self::run_len(from(input, at), is_token_byte)
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

/// A request line that broke no rule of syntax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestLine {
    pub(super) method: Method,
    pub(super) method_span: Span,
    pub(super) target: Span,
    pub(super) version: Version,
}

impl RequestLine {
    /// That of a GET in HTTP/1.1.
    pub(super) const fn usual(target: Span) -> Self {
        Self {
            method: Method::Get,
            method_span: between(0, 3),
            target,
            version: Version::Http11,
        }
    }
}

/// Parses a head that is whole and clean; `None` for any other. Its fields are in `room`. The
/// request line, and the head's length.
#[inline(always)]
pub(super) fn clean_head<L: Lanes>(
    lanes: L,
    input: &[u8],
    limits: &Limits,
    room: &mut Room<'_>,
) -> Option<(RequestLine, u32)> {
    #[cfg(test)]
    super::parse::looked_at(input.len());
    let (method, method_len) = method_at_front(lanes, input)?;
    let target_at = method_len + 1;
    let target_len = lanes.target_len(input, target_at);
    if target_len == 0 || target_len > limits.target_bytes_max {
        return None;
    }
    let target_end = target_at + target_len;
    let version = version_and_line_end(bytes_at(input, target_end)?)?;
    let (len, _) = clean_fields(lanes, input, target_end + 11, room)?;
    let line = RequestLine {
        method,
        method_span: between(0, method_len),
        target: between(target_at, target_end),
        version,
    };
    Some((line, len))
}

/// Parses the request line `GET /… HTTP/1.1`, which nearly all heads begin with; `None` for any
/// other. The target, and where the next line begins.
#[inline(always)]
pub(super) fn usual_request_line<L: Lanes>(
    lanes: L,
    input: &[u8],
    limits: &Limits,
) -> Option<(Span, u32)> {
    #[cfg(test)]
    super::parse::looked_at(input.len());
    if bytes_at(input, 0) != Some(b"GET /") {
        return None;
    }
    let target_len = lanes.target_len(input, 4);
    let end = 4 + target_len;
    // Two words, which overlap.
    let version: &[u8; 11] = bytes_at(input, end)?;
    let is_usual = target_len <= limits.target_bytes_max
        && version.first_chunk() == Some(b" HTTP/1.")
        && version.last_chunk() == Some(b".1\r\n");
    is_usual.then_some((between(4, end), end + 11))
}

/// The span `start..end`.
pub(super) const fn between(start: u32, end: u32) -> Span {
    Span {
        start,
        len: end - start,
    }
}

/// The method and its length, if a space follows it.
#[inline(always)]
fn method_at_front<L: Lanes>(lanes: L, input: &[u8]) -> Option<(Method, u32)> {
    if bytes_at(input, 0) == Some(b"GET ") {
        return Some((Method::Get, 3));
    }
    let len = lanes.name_len(input, 0);
    if len == 0 || bytes_at(input, len) != Some(b" ") {
        return None;
    }
    Some((Method::of(input.get(..len as usize)?), len))
}

/// The version in what follows a target up to the end of the line.
#[inline(always)]
fn version_and_line_end(text: &[u8; 11]) -> Option<Version> {
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

/// What fields that rules know were met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// The value of the first `Host`.
    pub(super) host: Span,
    /// Whether any other, be it a second `Host`; `Connection: keep-alive`, which decides nothing in
    /// HTTP/1.1, apart.
    others: bool,
}

impl Heard {
    /// Whether there is one `Host` and nothing else that decides anything.
    #[inline(always)]
    pub(super) const fn only_host(&self) -> bool {
        // No value begins where the head does.
        !self.others && self.host.start != 0
    }
}

/// Parses field lines from `at` up to the empty line into `room`. The head's end.
#[inline(always)]
pub(super) fn clean_fields<L: Lanes>(
    lanes: L,
    input: &[u8],
    mut at: u32,
    room: &mut Room<'_>,
) -> Option<(u32, Heard)> {
    let mut line_ends = LineEnds::new(lanes, input, at);
    let mut heard = Heard::default();
    loop {
        let (last, end) = line_ends.next_line_end()?;
        if end == at {
            return Some((at + 2, heard));
        }
        let name_len = lanes.name_len(input, at);
        let colon = at + name_len;
        // Behind the colon are two bytes at least, be it only the end of the line.
        let [behind_name @ .., first] = bytes_at::<3>(input, colon)?;
        if name_len == 0 {
            return None;
        }
        // Nearly always one space before and none behind. Odd bytes apart, what is not above SP is
        // white space or the CR.
        let value = if behind_name == b": " && *first > b' ' && last > b' ' {
            between(colon + 2, end)
        } else if behind_name[0] == b':' {
            trimmed(input, colon + 1, end)
        } else {
            return None;
        };
        let id = FieldName::of(input.get(at as usize..colon as usize)?);
        let name = between(at, colon);
        room.push(Field { name, value, id })?;
        at = end + 2;
        if id == FieldName::Other {
            continue;
        }
        if id == FieldName::Host && heard.host.start == 0 {
            heard.host = value;
        } else {
            let decides_nothing = id == FieldName::Connection && is_keep_alive(input, value);
            heard.others |= !decides_nothing;
        }
    }
}

/// Whether `value` is what most browsers send in `Connection`.
#[inline(always)]
fn is_keep_alive(input: &[u8], value: Span) -> bool {
    value.len == 10
        && bytes_at::<10>(input, value.start)
            .is_some_and(|value| is_but_for_case(value, b"keep-alive"))
}

/// The span `start..end` without the white space at its ends.
#[inline(always)]
fn trimmed(input: &[u8], mut start: u32, mut end: u32) -> Span {
    while start < end && input.get(start as usize).is_some_and(|byte| is_ows(*byte)) {
        start += 1;
    }
    while start < end
        && input
            .get(end as usize - 1)
            .is_some_and(|byte| is_ows(*byte))
    {
        end -= 1;
    }
    between(start, end)
}

/// The odd bytes of the block that begins at `at`, if there is one.
#[inline(always)]
fn odd_bytes_from<L: Lanes>(lanes: L, input: &[u8], at: u32) -> Option<u64> {
    ((at as usize) < input.len()).then(|| lanes.odd_bytes(input, at))
}

/// The ends of the lines behind a start line in order, found block by block.
struct LineEnds<'a, L> {
    lanes: L,
    input: &'a [u8],
    /// Where the current block begins.
    block: u32,
    /// Its odd bytes that have not been taken.
    bits: u64,
}

impl<'a, L: Lanes> LineEnds<'a, L> {
    #[inline(always)]
    fn new(lanes: L, input: &'a [u8], at: u32) -> Self {
        Self {
            lanes,
            input,
            block: at,
            bits: odd_bytes_from(lanes, input, at).unwrap_or(0),
        }
    }

    /// The offset of the next CR, which LF follows, and the byte before it. `None` if there is
    /// none, or a control byte before it that no clean head has.
    #[inline(always)]
    fn next_line_end(&mut self) -> Option<(u8, u32)> {
        loop {
            while self.bits == 0 {
                self.block += BLOCK_BITS;
                self.bits = odd_bytes_from(self.lanes, self.input, self.block)?;
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
            if !matches!([*before, end[0]], [_, b'\t' | 0x80..] | [b'\r', b'\n']) {
                return None;
            }
        }
    }
}
