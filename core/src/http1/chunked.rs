//! Decodes `Transfer-Encoding: chunked` message bodies. RFC 9112 §7.1.
//!
//! Sits in the protocol layer: bytes in, ranges of bytes out. It performs no I/O, owns no buffer
//! and allocates nothing, so one decoder is 24 bytes inside its connection.
//!
//! ```text
//!        digits      ';' or white space        CR          LF
//! Size ─────────▶ Extension (see `Extension`) ──▶ SizeLf ──┬──▶ Data ─▶ DataCr ─▶ DataLf ─▶ Size
//!   └────────────────── CR ───────────────────────▲        └──▶ TrailerStart ─CR▶ EndLf ─▶ Done
//!                                                     ▲              └▶ TrailerName ─':'▶ TrailerValue
//!                                                     └─────── TrailerLf ◀───────── CR ────┘
//! ```
//!
//! Invariants
//! - `consumed` never exceeds the input; calling again with the rest is always legal.
//! - Neither body nor verdict depends on how the input is cut, and a verdict comes with the first
//!   byte that no rule allows.
//! - Extensions and trailers are checked against their grammar and dropped; a bare LF never ends a
//!   line. Leniency here is request smuggling (RFC 9112 §11.2).
//!
//! Not here: the choice that a body is chunked (`framing.rs`), its size limit (`conn/server.rs`).

use super::token::{hex_digit, is_token_byte, is_value_byte};
use crate::violation::Violation;
use core::ops::Range;

/// Digits of a chunk-size. 15 hold 2^60, beyond any body, and cannot overflow.
const SIZE_DIGITS_MAX: u8 = 15;

/// Framing bytes earned per data byte. Two-byte chunks pay their way; endless extensions do not.
const FRAMING_BYTES_PER_DATA_BYTE: u32 = 4;

/// One step of decoding; `consumed` counts from the start of the input given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// All input is used up; more is needed.
    NeedMore {
        /// The length of the input.
        consumed: usize,
    },
    /// `input[data]` is content of the body, at least one byte.
    Data {
        /// Bytes to drop before the next call.
        consumed: usize,
        /// Where the content stands.
        data: Range<usize>,
    },
    /// The body ended; bytes after `consumed` belong to the next message.
    End {
        /// Bytes to drop before the next message.
        consumed: usize,
    },
}

/// Decodes one chunked body. After the end it stays there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkedDecoder {
    state: State,
    framing_bytes_left: u32,
    framing_bytes_max: u32,
}

const _: () = assert!(size_of::<ChunkedDecoder>() <= 24);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In `chunk-size`. `digits == 0` means the line has not started: at least one is required.
    Size { size: u64, digits: u8 },
    /// In `chunk-ext`.
    Extension { size: u64, part: Extension },
    /// After the CR of a chunk-size line.
    SizeLf { size: u64 },
    /// In `chunk-data`, `left > 0` bytes to go.
    Data { left: u64 },
    /// After the last byte of `chunk-data`.
    DataCr,
    /// After the CR behind `chunk-data`.
    DataLf,
    /// At the first byte of a trailer line.
    TrailerStart,
    /// In the name of a trailer field, behind its first byte.
    TrailerName,
    /// In the value of a trailer field.
    TrailerValue,
    /// After the CR of a trailer line.
    TrailerLf,
    /// After the CR of the empty line that ends the body.
    EndLf,
    /// Behind the body.
    Done,
}

/// The parts of `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )`. RFC 9112 §7.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    /// In white space that only `;` may follow.
    BeforeSemicolon,
    /// After `;`, before the name.
    BeforeName,
    /// In the name.
    Name,
    /// In white space behind the name, that `;` or `=` may follow.
    BehindName,
    /// After `=`, before the value.
    BeforeValue,
    /// In a value that is a token.
    Token,
    /// In a quoted string.
    Quoted,
    /// After a backslash in a quoted string.
    QuotedPair,
    /// Behind the quote that ends a value.
    BehindQuote,
}

impl ChunkedDecoder {
    /// A decoder at the start of a body, which may spend `framing_bytes_max` bytes on framing
    /// before its data earns more, four for each byte.
    pub const fn new(framing_bytes_max: u32) -> Self {
        Self {
            state: State::Size { size: 0, digits: 0 },
            framing_bytes_left: framing_bytes_max,
            framing_bytes_max,
        }
    }

    /// Decodes from the front of `input` up to the next event.
    ///
    /// # Errors
    /// The rule the body breaks; its connection cannot be used any more, as nobody knows where the
    /// next message begins.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, Violation> {
        // Kept out of `self` while bytes are walked, where the compiler keeps them in registers.
        let (mut state, mut framing_left) = (self.state, self.framing_bytes_left);
        let mut at = 0;
        // Framing that is plain and all there is read at once; the table below does the rest.
        if let Some((size, len)) = state.plain_framing(input)
            && let Some(left) = u32::try_from(len)
                .ok()
                .and_then(|len| framing_left.checked_sub(len))
        {
            (state, framing_left, at) = (State::Data { left: size }, left, len);
        }
        while let Some(byte) = input.get(at) {
            match state {
                State::Data { left } => {
                    self.framing_bytes_left = framing_left;
                    return Ok(self.take_data(left, at, input.len()));
                }
                State::Done => break,
                _ => {}
            }
            framing_left = framing_left.checked_sub(1).ok_or(Violation::ChunkFraming)?;
            state = state.after(*byte)?;
            at += 1;
        }
        self.state = state;
        self.framing_bytes_left = framing_left;
        Ok(if state == State::Done {
            Step::End { consumed: at }
        } else {
            Step::NeedMore { consumed: at }
        })
    }

    /// Hands out what is there of `left` bytes of data that begin at `at`.
    fn take_data(&mut self, left: u64, at: usize, input_len: usize) -> Step {
        let available = input_len - at;
        let take = usize::try_from(left).map_or(available, |left| left.min(available));
        let left = left - take as u64;
        self.state = if left == 0 {
            State::DataCr
        } else {
            State::Data { left }
        };
        let earned = u32::try_from(take)
            .unwrap_or(u32::MAX)
            .saturating_mul(FRAMING_BYTES_PER_DATA_BYTE);
        let framing_left = self.framing_bytes_left.saturating_add(earned);
        self.framing_bytes_left = framing_left.min(self.framing_bytes_max);
        let data = at..at + take;
        Step::Data {
            consumed: data.end,
            data,
        }
    }
}

impl State {
    /// The size of the next chunk and the length of the framing before its data, if `input` begins
    /// with nothing but the end of the last chunk, a size of up to eight digits, and its CRLF.
    #[inline]
    fn plain_framing(self, input: &[u8]) -> Option<(u64, usize)> {
        let line = match self {
            Self::DataCr => input.strip_prefix(b"\r\n")?,
            Self::Size { digits: 0, .. } => input,
            _ => return None,
        };
        let mut size = 0;
        for (digits, byte) in line.iter().enumerate().take(9) {
            match hex_digit(*byte) {
                Some(digit) if digits < 8 => size = size << 4 | u64::from(digit),
                _ if size == 0 => return None,
                _ => {
                    let behind = line.get(digits..)?.strip_prefix(b"\r\n")?;
                    return Some((size, input.len() - behind.len()));
                }
            }
        }
        None
    }

    /// The transition table: every legal pair of state and byte, and the rule each other one
    /// breaks. `Data` and `Done` never get here.
    #[inline]
    fn after(self, byte: u8) -> Result<Self, Violation> {
        Ok(match (self, byte) {
            (Self::Size { size, digits: 1.. }, b'\r') => Self::SizeLf { size },
            (Self::Size { size, digits: 1.. }, b';') => Self::Extension {
                size,
                part: Extension::BeforeName,
            },
            (Self::Size { size, digits: 1.. }, b' ' | b'\t') => Self::Extension {
                size,
                part: Extension::BeforeSemicolon,
            },
            (Self::Size { digits: 1.., .. }, b'\n') => return Err(Violation::ChunkLineEnding),
            (Self::Size { size, digits }, _) => Self::after_digit(size, digits, byte)?,
            (Self::Extension { .. }, b'\n') => return Err(Violation::ChunkLineEnding),
            (Self::Extension { size, part }, b'\r') if part.may_end() => Self::SizeLf { size },
            (Self::Extension { size, part }, _) => Self::Extension {
                size,
                part: part.after(byte).ok_or(Violation::ChunkExtension)?,
            },
            (Self::SizeLf { size: 0 }, b'\n') => Self::TrailerStart,
            (Self::SizeLf { size }, b'\n') => Self::Data { left: size },
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::Size { size: 0, digits: 0 },
            (Self::SizeLf { .. } | Self::DataCr | Self::DataLf, _) => {
                return Err(Violation::ChunkLineEnding);
            }
            (Self::TrailerLf, b'\n') => Self::TrailerStart,
            (Self::EndLf, b'\n') => Self::Done,
            (Self::TrailerLf | Self::EndLf, _) => return Err(Violation::LineEnding),
            (Self::TrailerStart | Self::TrailerName | Self::TrailerValue, b'\n') => {
                return Err(Violation::LineEnding);
            }
            (Self::TrailerStart, b'\r') => Self::EndLf,
            (Self::TrailerStart | Self::TrailerName, _) if is_token_byte(byte) => Self::TrailerName,
            (Self::TrailerName, b':') => Self::TrailerValue,
            (Self::TrailerValue, b'\r') => Self::TrailerLf,
            (Self::TrailerValue, _) if is_value_byte(byte) => Self::TrailerValue,
            (Self::TrailerStart | Self::TrailerName | Self::TrailerValue, _) => {
                return Err(Violation::Trailer);
            }
            (Self::Data { .. } | Self::Done, _) => self,
        })
    }

    /// The state behind one more digit of a chunk-size.
    #[inline]
    fn after_digit(size: u64, digits: u8, byte: u8) -> Result<Self, Violation> {
        let digit = hex_digit(byte).ok_or(Violation::ChunkSize)?;
        if digits >= SIZE_DIGITS_MAX {
            return Err(Violation::ChunkSizeTooLong);
        }
        Ok(Self::Size {
            size: size << 4 | u64::from(digit),
            digits: digits + 1,
        })
    }
}

impl Extension {
    /// Whether the line may end here. White space may stand only before `;` and around `=`.
    const fn may_end(self) -> bool {
        matches!(self, Self::Name | Self::Token | Self::BehindQuote)
    }

    /// The part behind `byte`; `None` if the grammar has no such byte here.
    fn after(self, byte: u8) -> Option<Self> {
        let is_space = matches!(byte, b' ' | b'\t');
        Some(match (self, byte) {
            (Self::BeforeSemicolon | Self::BeforeName | Self::BehindName, _) if is_space => self,
            (Self::BeforeValue, _) if is_space => self,
            (Self::BeforeSemicolon | Self::BehindName, b';') => Self::BeforeName,
            (Self::Name | Self::Token | Self::BehindQuote, b';') => Self::BeforeName,
            (Self::Name | Self::BehindName, b'=') => Self::BeforeValue,
            (Self::Name, _) if is_space => Self::BehindName,
            (Self::Token | Self::BehindQuote, _) if is_space => Self::BeforeSemicolon,
            (Self::BeforeName | Self::Name, _) if is_token_byte(byte) => Self::Name,
            (Self::BeforeValue | Self::Token, _) if is_token_byte(byte) => Self::Token,
            (Self::BeforeValue, b'"') => Self::Quoted,
            (Self::Quoted, b'"') => Self::BehindQuote,
            (Self::Quoted, b'\\') => Self::QuotedPair,
            (Self::Quoted | Self::QuotedPair, _) if is_value_byte(byte) => Self::Quoted,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
