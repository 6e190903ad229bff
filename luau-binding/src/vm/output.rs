//! A text that is written piece by piece, with room made once for each: the output of JSON. RFC 8259 §7.
//!
//! Sits beside `vm.rs`, below `json/encode.rs`; it needs no VM, only the raw writes that are allowed
//! here. A string is looked at while it is copied, eight or sixteen bytes at a time; the few that need
//! escapes are written again.
//!
//! Invariants
//! - Nothing is written that room was not made for just before, in the same function.
//! - What is not counted yet is no part of the text, whatever lies there.
//!
//! Not here: which values become what (`json/encode.rs`).

use std::mem::MaybeUninit;

/// The memory is given back if it grew above this. It grows by doubling, so that of a text of half
/// the size is always kept.
const BYTES_KEPT: usize = 2 * 1024 * 1024;

/// The most bytes that are written again.
pub(crate) const AGAIN_MAX: usize = 32;

/// A text that grows.
#[derive(Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
}

/// A string is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotUtf8;

impl Output {
    /// Begins a new text.
    pub(crate) fn clear(&mut self) {
        if self.bytes.capacity() > BYTES_KEPT {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
    }

    /// How many bytes there are.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes back what is behind the first `len` bytes.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    /// What is written so far.
    pub(crate) fn written(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes one byte.
    #[inline(always)]
    pub(crate) fn push(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// Writes `bytes`.
    #[inline(always)]
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes a line break and `count` blanks.
    pub(crate) fn put_line(&mut self, count: usize) {
        self.bytes.push(b'\n');
        self.bytes.resize(self.bytes.len() + count, b' ');
    }

    /// Writes `before`, `name` in quotes, and a colon.
    ///
    /// # Errors
    /// If it is not UTF-8; `before` is written then.
    pub(crate) fn put_name(&mut self, before: u8, name: &[u8]) -> Result<(), NotUtf8> {
        if self.quote_plain([before, b'"'], name, [b'"', b':']) {
            return Ok(());
        }
        self.push(before);
        self.put_escaped(name)?;
        self.push(b':');
        Ok(())
    }

    /// Writes `string` in quotes, with escapes where there must be some.
    ///
    /// # Errors
    /// If it is not UTF-8; nothing is written then.
    pub(crate) fn put_string(&mut self, string: &[u8]) -> Result<(), NotUtf8> {
        if self.quote_plain([b'"'], string, [b'"']) {
            return Ok(());
        }
        self.put_escaped(string)
    }

    /// Writes `before`, and again the `count` bytes that stand at `at`, if there are some and no more than
    /// [`AGAIN_MAX`].
    #[inline(always)]
    pub(crate) fn put_again(&mut self, before: u8, (at, count): (usize, usize)) -> bool {
        let len = self.bytes.len();
        if !(1..=AGAIN_MAX).contains(&count) || at + count > len {
            return false;
        }
        self.bytes.reserve(1 + AGAIN_MAX);
        // SAFETY: there is room for one byte and `AGAIN_MAX` more behind the text, and so behind what is
        // inside the text, too. Of those that are moved the first `count` are of the text, and only they
        // are counted; what lies behind is not looked at.
        unsafe {
            type Half = MaybeUninit<[u8; AGAIN_MAX / 2]>;
            let start = self.bytes.as_mut_ptr();
            let (from, to) = (start.add(at).cast::<Half>(), start.add(len));
            to.write(before);
            let to = to.add(1).cast::<Half>();
            to.write_unaligned(from.read_unaligned());
            if count > AGAIN_MAX / 2 {
                to.add(1).write_unaligned(from.add(1).read_unaligned());
            }
            self.bytes.set_len(len + 1 + count);
        }
        true
    }

    /// Writes `before`, `string` and `behind` if every byte is ASCII that stands for itself.
    #[inline(always)]
    fn quote_plain<const B: usize, const A: usize>(
        &mut self,
        before: [u8; B],
        string: &[u8],
        behind: [u8; A],
    ) -> bool {
        let (len, count) = (self.bytes.len(), B + string.len() + A);
        self.bytes.reserve(count);
        // SAFETY: there is room for `count` more bytes: those before, the string and those behind.
        // All are written when they are counted.
        unsafe {
            let start = self.bytes.as_mut_ptr().add(len);
            start.cast::<[u8; B]>().write_unaligned(before);
            if !copy_plain(start.add(B), string) {
                return false;
            }
            let end = start.add(B + string.len());
            end.cast::<[u8; A]>().write_unaligned(behind);
            self.bytes.set_len(len + count);
        }
        true
    }

    /// Writes a string that is not plain.
    #[inline(never)]
    fn put_escaped(&mut self, string: &[u8]) -> Result<(), NotUtf8> {
        if simdutf8::basic::from_utf8(string).is_err() {
            return Err(NotUtf8);
        }
        self.push(b'"');
        for part in string.chunks(PART_BYTES) {
            let len = self.bytes.len();
            self.bytes.reserve(ESCAPE_BYTES * part.len() + 8);
            // SAFETY: there is room for an escape for each byte, and for a word more. All up to where
            // `escape` stops is written when it is counted.
            unsafe {
                let start = self.bytes.as_mut_ptr().add(len);
                let end = escape(start, part);
                self.bytes.set_len(len + end.offset_from_unsigned(start));
            }
        }
        self.push(b'"');
        Ok(())
    }
}

/// A string that is not plain is written in parts of so many bytes, with room for the worst.
const PART_BYTES: usize = 1024;

/// Writes `from` to `to`, with escapes, and says where that ends.
///
/// # Safety
/// At `to` there is room for [`ESCAPE_BYTES`] for each byte, and for 8 more; they are none of `from`.
#[inline(always)]
unsafe fn escape(mut to: *mut u8, from: &[u8]) -> *mut u8 {
    let mut rest = from;
    loop {
        let (mut word, count) = match rest.first_chunk() {
            Some(word) => (u64::from_le_bytes(*word), 8),
            None => (short_word(rest), rest.len()),
        };
        let plain = first_escaped(word).min(count);
        // SAFETY: room by the contract: for each byte read, an escape or itself has been written, and a word
        // or an escape that is filled up to 8 bytes fits behind them.
        unsafe {
            to.cast::<[u8; 8]>().write_unaligned(word.to_le_bytes());
            to = to.add(plain);
            if plain == count {
                rest = match rest.get(count..) {
                    Some(rest) if !rest.is_empty() => rest,
                    _ => return to,
                };
                continue;
            }
            word >>= 8 * plain;
            let (escape, len) = escape_of(word.to_le_bytes()[0]);
            to.cast::<[u8; 8]>().write_unaligned(escape);
            to = to.add(len);
        }
        rest = rest.get(plain + 1..).unwrap_or_default();
    }
}

/// What stands for a byte that cannot stand for itself, and how long that is.
#[inline(always)]
fn escape_of(byte: u8) -> ([u8; 8], usize) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            return ([b'\\', b'u', b'0', b'0', high, low, 0, 0], ESCAPE_BYTES);
        }
    };
    ([b'\\', short, 0, 0, 0, 0, 0, 0], 2)
}

/// The most that stands for one byte.
const ESCAPE_BYTES: usize = 6;

/// Copies `from` to `to` and says whether every byte is ASCII that stands for itself. If not,
/// anything may have been copied.
///
/// # Safety
/// As many bytes as `from` has can be written at `to`, and they are none of `from`.
#[inline(always)]
unsafe fn copy_plain(to: *mut u8, from: &[u8]) -> bool {
    // SAFETY: by the contract.
    unsafe {
        if from.len() > 16 {
            return copy_chunks(to, from);
        }
        let odd = if let Some((first, last)) = copy_ends::<8>(to, from) {
            odd_bytes(u64::from_le_bytes(first)) | odd_bytes(u64::from_le_bytes(last))
        } else if let Some((first, last)) = copy_ends::<4>(to, from) {
            let last = u64::from(u32::from_le_bytes(last));
            odd_bytes(last << 32 | u64::from(u32::from_le_bytes(first)))
        } else if let Some((first, last)) = copy_ends::<2>(to, from) {
            let last = u32::from(u16::from_le_bytes(last));
            let both = last << 16 | u32::from(u16::from_le_bytes(first));
            odd_bytes((ONES * 0x20) << 32 | u64::from(both))
        } else if let Some((first, _)) = copy_ends::<1>(to, from) {
            odd_bytes((ONES * 0x20) << 8 | u64::from(first[0]))
        } else {
            0
        };
        odd & HIGHS == 0
    }
}

/// Copies `from`, if it has `N` bytes up to twice as many: the first and the last, which meet or overlap.
///
/// # Safety
/// As of [`copy_plain`].
#[inline(always)]
unsafe fn copy_ends<const N: usize>(to: *mut u8, from: &[u8]) -> Option<([u8; N], [u8; N])> {
    let (first, last) = (*from.first_chunk()?, *from.last_chunk()?);
    // SAFETY: each write is of bytes that `from` was found to have, to the same place behind `to`.
    unsafe {
        to.cast::<[u8; N]>().write_unaligned(first);
        let to = to.add(from.len() - N);
        to.cast::<[u8; N]>().write_unaligned(last);
    }
    Some((first, last))
}

/// [`copy_plain`] for 16 bytes or more.
///
/// # Safety
/// As of [`copy_plain`].
#[inline(always)]
unsafe fn copy_chunks(to: *mut u8, from: &[u8]) -> bool {
    let Some(last) = from.last_chunk::<16>() else {
        return from.is_empty();
    };
    // SAFETY: each write is of bytes that `from` was found to have, to the same place behind `to`.
    unsafe {
        // The last bytes overlap what has been seen, which is faster than byte by byte.
        let end = from.len() - 16;
        let mut at = 0;
        while at < end {
            let chunk = &*from.as_ptr().add(at).cast::<[u8; 16]>();
            to.add(at).cast::<[u8; 16]>().write_unaligned(*chunk);
            if is_odd(chunk) {
                return false;
            }
            at += 16;
        }
        to.add(end).cast::<[u8; 16]>().write_unaligned(*last);
    }
    !is_odd(last)
}

/// Whether any byte is not ASCII or needs an escape.
#[inline(always)]
fn is_odd(bytes: &[u8; 16]) -> bool {
    let both = u128::from_le_bytes(*bytes);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the lower half, and then the upper one"
    )]
    let (low, high) = (both as u64, (both >> 64) as u64);
    (odd_bytes(low) | odd_bytes(high)) & HIGHS != 0
}

/// The bytes of a string of less than eight, filled up with blanks.
#[inline(always)]
fn short_word(bytes: &[u8]) -> u64 {
    // Its first and last bytes meet or overlap; where they overlap, they are the same.
    let shift = |bytes: &[u8], len: usize| 8 * (bytes.len() - len);
    let (word, count) = match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        (Some(first), Some(last)) => {
            let last = u64::from(u32::from_le_bytes(*last)) << shift(bytes, 4);
            (u64::from(u32::from_le_bytes(*first)) | last, bytes.len())
        }
        _ => match *bytes {
            [a, b, c] => (u64::from_le_bytes([a, b, c, 0, 0, 0, 0, 0]), 3),
            [a, b] => (u64::from_le_bytes([a, b, 0, 0, 0, 0, 0, 0]), 2),
            [a] => (u64::from(a), 1),
            _ => (0, 0),
        },
    };
    word | (ONES * 0x20) << (8 * count)
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Has a bit of [`HIGHS`] if a byte is not ASCII or needs an escape: one below 0x20, or one that a
/// xor has made zero, borrows into its highest bit when subtracted from.
#[inline(always)]
fn odd_bytes(word: u64) -> u64 {
    let quote = word ^ (ONES * 0x22);
    let slash = word ^ (ONES * 0x5c);
    // A high bit makes a byte odd by itself, so borrows out of one do not matter.
    word | word.wrapping_sub(ONES * 0x20) | quote.wrapping_sub(ONES) | slash.wrapping_sub(ONES)
}

/// How many bytes of `word` come before the first that needs an escape; 8 if none does.
#[inline(always)]
fn first_escaped(word: u64) -> usize {
    let quote = word ^ (ONES * 0x22);
    let slash = word ^ (ONES * 0x5c);
    // As above, and only where the highest bit was not set before. Borrows go upwards, so the first
    // mark is always right.
    let marks = ((word.wrapping_sub(ONES * 0x20) & !word)
        | (quote.wrapping_sub(ONES) & !quote)
        | (slash.wrapping_sub(ONES) & !slash))
        & HIGHS;
    (marks.trailing_zeros() / 8) as usize
}

#[cfg(test)]
mod tests {
    use super::{NotUtf8, Output};

    fn quoted(bytes: &[u8]) -> Result<Vec<u8>, NotUtf8> {
        let mut text = Output::default();
        text.put_string(bytes)?;
        Ok(text.written().to_vec())
    }

    /// RFC 8259 §7, byte by byte.
    fn model(bytes: &[u8]) -> Result<Vec<u8>, NotUtf8> {
        let string = std::str::from_utf8(bytes).map_err(|_| NotUtf8)?;
        Ok(serde_json::to_vec(string).unwrap())
    }

    #[test]
    fn rfc8259_7_every_byte_is_written_as_it_must_wherever_it_stands() {
        for byte in 0..=255_u8 {
            for len in 0..36 {
                for at in 0..len {
                    let mut bytes = vec![b'a'; len];
                    bytes[at] = byte;
                    assert_eq!(quoted(&bytes), model(&bytes), "{byte} at {at} of {len}");
                    // Neighbours that need an escape, or look like it to a borrow.
                    for other in [b'"', 0x1f, b'#'] {
                        bytes[len / 2] = other;
                        assert_eq!(quoted(&bytes), model(&bytes), "{byte} at {at} of {len}");
                    }
                }
            }
        }
    }

    #[test]
    fn characters_of_several_bytes_stand_for_themselves() {
        for string in [
            "naïve",
            "\u{7ff}\u{800}",
            "日本語 \"語\"",
            "\u{10ffff}\n",
            "",
        ] {
            for before in 0..20 {
                let string = format!("{}{string}", "a".repeat(before));
                assert_eq!(quoted(string.as_bytes()), model(string.as_bytes()));
            }
        }
    }

    #[test]
    fn what_is_taken_back_or_fails_leaves_nothing_behind() {
        let mut text = Output::default();
        text.push(b'[');
        assert_eq!(text.put_string(b"\xff"), Err(NotUtf8));
        assert_eq!(text.written(), b"[");
        text.put_name(b'{', b"a\"b").unwrap();
        assert_eq!(text.written(), br#"[{"a\"b":"#);
        text.truncate(1);
        text.put_line(2);
        text.put(b"null");
        assert_eq!(text.written(), b"[\n  null");
        text.clear();
        assert_eq!((text.len(), text.written()), (0, &b""[..]));
    }

    #[test]
    fn what_stands_is_written_again_and_only_that() {
        let mut text = Output::default();
        for len in 0..=super::AGAIN_MAX + 1 {
            text.clear();
            text.put(&vec![b'a'; len]);
            let again = text.put_again(b',', (0, len));
            assert_eq!(again, (1..=super::AGAIN_MAX).contains(&len), "{len}");
            let count = if again { 2 * len + 1 } else { len };
            assert_eq!(text.len(), count);
            assert_eq!(text.written().get(len).copied(), again.then_some(b','));
            assert!(!text.put_again(b',', (count, 1)));
            assert_eq!(
                text.written().iter().filter(|b| **b == b',').count(),
                usize::from(again)
            );
        }
    }

    #[test]
    fn memory_of_a_long_text_is_given_back_and_that_of_a_short_one_kept() {
        let mut text = Output::default();
        text.put(&vec![b' '; super::BYTES_KEPT / 2]);
        let kept = text.bytes.capacity();
        text.clear();
        assert_eq!(text.bytes.capacity(), kept);
        text.put(&vec![b' '; super::BYTES_KEPT + 1]);
        text.clear();
        assert_eq!(text.bytes.capacity(), 0);
    }
}
