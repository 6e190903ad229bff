//! UTF-8 checked as it streams. RFC 6455 §8.1, RFC 3629.
//!
//! Sits in the protocol layer. Four bytes of state, nothing allocated: text is checked in place as
//! its pieces arrive, and only a character cut in two is remembered.
//!
//! Invariants
//! - The verdict falls with the first byte that no continuation could repair: `F4 90` is refused
//!   at `90`, whether or not more follows, and however the text is cut.
//! - Between calls `pending` holds a proper prefix of a well-formed character.
//!
//! Not here: which payloads are text (`message.rs`).

use crate::violation::Violation;

/// Below this many bytes looking for a set high bit first costs less than calling the validator.
const SHORT_BYTES_MAX: usize = 256;

/// The state between two pieces of a text: the begun character, if the cut fell inside one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Utf8Stream {
    /// The first bytes of a character whose last are yet to come.
    pending: [u8; 3],
    pending_len: u8,
}

const _: () = assert!(size_of::<Utf8Stream>() == 4);

impl Utf8Stream {
    /// Checks the next piece.
    ///
    /// # Errors
    /// `TextNotUtf8` with the earliest byte that shows it.
    #[inline]
    pub fn receive(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        while self.pending_len > 0 {
            let Some((&next, rest)) = bytes.split_first() else {
                return Ok(());
            };
            self.extend_pending(next)?;
            bytes = rest;
        }
        if is_short_ascii(bytes) {
            return Ok(());
        }
        let (whole, begun) = bytes.split_at(bytes.len() - begun_len(bytes));
        if !is_utf8(whole) {
            return Err(Violation::TextNotUtf8);
        }
        for &byte in begun {
            self.extend_pending(byte)?;
        }
        Ok(())
    }

    /// Ends the text.
    ///
    /// # Errors
    /// `TextNotUtf8` if its last character is not complete.
    #[inline]
    pub fn finish(&mut self) -> Result<(), Violation> {
        if core::mem::take(self).pending_len > 0 {
            return Err(Violation::TextNotUtf8);
        }
        Ok(())
    }

    /// Adds one byte to the begun character, or begins one with it.
    fn extend_pending(&mut self, byte: u8) -> Result<(), Violation> {
        let len = usize::from(self.pending_len);
        let mut character = [0; 4];
        character[..3].copy_from_slice(&self.pending);
        character[len] = byte;
        match core::str::from_utf8(&character[..=len]) {
            Ok(_) => self.pending_len = 0,
            // `error_len` is none only where more bytes could still make a character of it.
            Err(error) if error.error_len().is_none() && len < 3 => {
                self.pending[len] = byte;
                self.pending_len += 1;
            }
            Err(_) => return Err(Violation::TextNotUtf8),
        }
        Ok(())
    }
}

/// Whether `bytes` are UTF-8 from first to last.
#[inline]
pub fn is_utf8(bytes: &[u8]) -> bool {
    is_short_ascii(bytes) || simdutf8::basic::from_utf8(bytes).is_ok()
}

#[inline]
fn is_short_ascii(bytes: &[u8]) -> bool {
    bytes.len() <= SHORT_BYTES_MAX && bytes.is_ascii()
}

/// How many of the last bytes begin a character that is longer than what is there: 0 to 3.
fn begun_len(bytes: &[u8]) -> usize {
    for (back, byte) in (1..=3).zip(bytes.iter().rev()) {
        let character_len = match byte {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        return if character_len > back { back } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::{Utf8Stream, is_utf8};
    use crate::violation::Violation;

    /// Bytes of `text` until it is refused, fed byte by byte; none if all is well.
    fn refused_at(text: &[u8]) -> Option<usize> {
        let mut stream = Utf8Stream::default();
        text.iter()
            .position(|byte| stream.receive(&[*byte]).is_err())
            .or_else(|| stream.finish().is_err().then_some(text.len()))
    }

    /// Feeds `text` in two pieces at every cut, with and without ASCII around it.
    #[track_caller]
    fn check(text: &[u8], want: Option<usize>) {
        assert_eq!(refused_at(text), want, "{text:02x?}");
        assert_eq!(is_utf8(text), want.is_none(), "{text:02x?}");
        for padding in [0, 3, 61, 200] {
            let padded = [&vec![b'.'; padding], text].concat();
            for cut in 0..=padded.len() {
                let mut stream = Utf8Stream::default();
                let verdict = stream
                    .receive(&padded[..cut])
                    .and_then(|()| stream.receive(&padded[cut..]))
                    .and_then(|()| stream.finish());
                let want = want.map_or(Ok(()), |_| Err(Violation::TextNotUtf8));
                assert_eq!(verdict, want, "{text:02x?} behind {padding}, cut at {cut}");
            }
        }
    }

    #[test]
    fn rfc3629_characters_of_every_length_are_accepted_however_cut() {
        for text in [
            "", "a", "\u{7f}", "\u{80}", "\u{7ff}", "\u{800}", "\u{d7ff}",
        ] {
            check(text.as_bytes(), None);
        }
        for text in [
            "\u{e000}",
            "\u{ffff}",
            "\u{10000}",
            "\u{10ffff}",
            "κόσμε 🦀 ok",
        ] {
            check(text.as_bytes(), None);
        }
    }

    #[test]
    fn rfc3629_text_is_refused_at_the_earliest_byte() {
        let table: &[(&[u8], usize)] = &[
            (b"\x80", 0),             // continuation without a start
            (b"\xc0\x80", 0),         // overlong in two bytes
            (b"\xc1", 0),             // never starts anything
            (b"\xe0\x80\x80", 1),     // overlong in three
            (b"\xed\xa0\x80", 1),     // surrogate
            (b"\xf0\x8f\xbf\xbf", 1), // overlong in four
            (b"\xf4\x90\x80\x80", 1), // above U+10FFFF
            (b"\xf5", 0),             // would be above U+10FFFF
            (b"\xff", 0),
            (b"ab\xe2\x82x", 4), // broken off by the next character
            (
                b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80",
                12,
            ),
            (b"\xe2\x82", 2), // the end comes too early
            (b"\xf0\x9f\xa6", 3),
        ];
        for &(text, at) in table {
            check(text, Some(at));
        }
    }

    #[test]
    fn every_sequence_of_up_to_three_bytes_agrees_with_the_standard_library() {
        // Bytes at the borders of every class; all sequences over them.
        let borders = [
            0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1,
            0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff,
        ];
        for a in borders {
            for b in borders {
                for c in borders {
                    for text in [&[a][..], &[a, b], &[a, b, c]] {
                        let want = core::str::from_utf8(text).is_ok();
                        assert_eq!(refused_at(text).is_none(), want, "{text:02x?}");
                        let mut stream = Utf8Stream::default();
                        let whole = stream.receive(text).and_then(|()| stream.finish());
                        assert_eq!(whole.is_ok(), want, "{text:02x?}");
                    }
                }
            }
        }
    }
}
