//! The parser's questions about bytes, answered for many bytes at a time. RFC 9110 §5.5, §5.6.2.
//!
//! Sits beside `parse.rs` and implements its [`Lanes`]: with AVX2, with SSE4.2, with NEON, and with
//! plain 64-bit words for all other machines. [`parse_request`] chooses once per head; the choice is
//! a load from memory that is known after the first.
//!
//! A byte class is looked up by nibbles: the low one selects a byte of a table, the high one a bit
//! of that byte. It is exact for any class of ASCII bytes and takes two shuffles for a block.
//!
//! Invariants
//! - Nothing outside the input is read: the last block is read so that it ends where the input
//!   ends, and inputs shorter than a block are copied.
//! - Every implementation gives the answers of `Scalar`, for every byte in every lane (`tests`).
//! - A value of a vector type is proof that this CPU has the instructions: only [`parse_request`] and
//!   tests make one, after asking.
//!
//! Not here: what is done with the answers (`parse.rs`), the classes themselves (`token.rs`).
#![expect(
    unsafe_code,
    reason = "vector instructions pay: heads parse two to four times faster than byte by byte"
)]

use super::framing::Facts;
use super::parse::{self, BLOCK_BYTES, HeadProgress, Lanes, Scalar};
use super::token::{is_reg_name_byte, is_target_byte, is_token_byte};
use super::{Field, RequestHead};
use crate::limits::Limits;
use crate::violation::Violation;

/// Bytes that the vector types look at together.
const WIDTH: usize = 32;

/// [`parse::parse_request`] with the best instructions this CPU has.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn parse_request(
    input: &[u8],
    progress: &mut HeadProgress,
    limits: &Limits,
    fields: &mut Vec<Field>,
) -> Result<Option<RequestHead>, Violation> {
    match x86::level() {
        // SAFETY: `level` has asked this CPU for AVX2, BMI1 and BMI2.
        x86::AVX2 => unsafe { x86::parse_request_avx2(input, progress, limits, fields) },
        // SAFETY: `level` has asked this CPU for SSE4.2 and POPCNT.
        x86::SSE42 => unsafe { x86::parse_request_sse42(input, progress, limits, fields) },
        _ => parse::parse_request_with(Words, input, progress, limits, fields),
    }
}

/// [`parse::parse_request`] with NEON, which every 64-bit ARM has, or with plain words.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(super) fn parse_request(
    input: &[u8],
    progress: &mut HeadProgress,
    limits: &Limits,
    fields: &mut Vec<Field>,
) -> Result<Option<RequestHead>, Violation> {
    #[cfg(target_arch = "aarch64")]
    return parse_request_by_length(neon::Neon, input, progress, limits, fields);
    #[cfg(not(target_arch = "aarch64"))]
    parse::parse_request_with(Words, input, progress, limits, fields)
}

/// [`parse::clean_fields_from`] with the best instructions this CPU has.
#[cfg(target_arch = "x86_64")]
pub(super) fn clean_fields_from(
    input: &[u8],
    at: u32,
    fields_max: u16,
    fields: &mut Vec<Field>,
) -> Option<(Facts, u32)> {
    match x86::level() {
        // SAFETY: `level` has asked this CPU for AVX2, BMI1 and BMI2.
        x86::AVX2 => unsafe { x86::clean_fields_avx2(input, at, fields_max, fields) },
        // SAFETY: `level` has asked this CPU for SSE4.2 and POPCNT.
        x86::SSE42 => unsafe { x86::clean_fields_sse42(input, at, fields_max, fields) },
        _ => parse::clean_fields_from(Words, input, at, fields_max, fields),
    }
}

/// [`parse::clean_fields_from`] with NEON, or with plain words.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn clean_fields_from(
    input: &[u8],
    at: u32,
    fields_max: u16,
    fields: &mut Vec<Field>,
) -> Option<(Facts, u32)> {
    #[cfg(target_arch = "aarch64")]
    let lanes = neon::Neon;
    #[cfg(not(target_arch = "aarch64"))]
    let lanes = Words;
    parse::clean_fields_from(lanes, input, at, fields_max, fields)
}

/// A class of ASCII bytes as the nibble look-up wants it: bit `h` of byte `l` says whether the
/// byte `h << 4 | l` belongs to it.
#[derive(Clone, Copy)]
#[repr(align(16))]
struct NibbleTable([u8; 16]);

/// The bit that each high nibble selects; none for bytes beyond ASCII.
static HIGH_NIBBLES: NibbleTable =
    NibbleTable([1, 2, 4, 8, 16, 32, 64, 128, 0, 0, 0, 0, 0, 0, 0, 0]);

/// The table of a class, from the function that defines it.
macro_rules! nibble_table {
    ($is_member:ident) => {{
        let mut table = [0; 16];
        let mut byte = 0;
        while byte < 128 {
            if $is_member(byte) {
                table[(byte & 15) as usize] |= 1 << (byte >> 4);
            }
            byte += 1;
        }
        NibbleTable(table)
    }};
}

static TOKENS: NibbleTable = nibble_table!(is_token_byte);
static TARGETS: NibbleTable = nibble_table!(is_target_byte);
static REG_NAMES: NibbleTable = nibble_table!(is_reg_name_byte);

impl NibbleTable {
    /// The number of members at the front of `bytes`. For inputs shorter than any vector.
    #[cold]
    fn len_byte_by_byte(&self, mut bytes: &[u8]) -> u32 {
        let mut len = 0;
        while let [byte, behind @ ..] = bytes
            && byte.is_ascii()
            && self.0[usize::from(byte & 15)] >> (byte >> 4) & 1 != 0
        {
            len += 1;
            bytes = behind;
        }
        len
    }
}

/// What a set of vector instructions can do with 32 bytes. Bit 0 is the first byte.
trait Vector: Copy {
    /// The control bytes other than HTAB.
    fn controls(self, bytes: &[u8; WIDTH]) -> u32;

    /// The bytes outside the class of `table`.
    fn outside(self, bytes: &[u8; WIDTH], table: &'static NibbleTable) -> u32;
}

impl<V: Vector> Lanes for V {
    #[inline(always)]
    fn controls(self, block: &[u8; BLOCK_BYTES]) -> u64 {
        let ([low, high], _) = block.as_chunks::<WIDTH>() else {
            return Scalar.controls(block);
        };
        u64::from(Vector::controls(self, low)) | u64::from(Vector::controls(self, high)) << WIDTH
    }

    #[inline(always)]
    fn controls_at_end(self, input: &[u8], rest: &[u8]) -> u64 {
        let Some(last) = input.last_chunk::<WIDTH>() else {
            return Scalar.controls_at_end(input, rest);
        };
        // The last bytes of the input, moved to where their bits belong.
        let last = u64::from(Vector::controls(self, last));
        match rest.first_chunk::<WIDTH>() {
            Some(low) => u64::from(Vector::controls(self, low)) | last << (rest.len() - WIDTH),
            None => last >> (WIDTH - rest.len()),
        }
    }

    #[inline(always)]
    fn token_len(self, input: &[u8], rest: &[u8]) -> u32 {
        class_len(self, input, rest, &TOKENS)
    }

    #[inline(always)]
    fn target_len(self, input: &[u8], rest: &[u8]) -> u32 {
        class_len(self, input, rest, &TARGETS)
    }

    #[inline(always)]
    fn reg_name_len(self, input: &[u8], rest: &[u8]) -> u32 {
        class_len(self, input, rest, &REG_NAMES)
    }
}

/// The number of bytes of the class of `table` that `rest`, the end of `input`, begins with.
#[inline(always)]
fn class_len<V: Vector>(
    vector: V,
    input: &[u8],
    mut rest: &[u8],
    table: &'static NibbleTable,
) -> u32 {
    let mut len = 0;
    while let Some((block, behind)) = rest.split_first_chunk::<WIDTH>() {
        let outside = vector.outside(block, table);
        if outside != 0 {
            return len + outside.trailing_zeros();
        }
        len += u32::BITS;
        rest = behind;
    }
    let Some(last) = input.last_chunk::<WIDTH>() else {
        return len + table.len_byte_by_byte(rest);
    };
    let outside = u64::from(vector.outside(last, table)) >> (WIDTH - rest.len());
    // One bit beyond the input, so that what has no other end ends there.
    len + (outside | 1 << rest.len()).trailing_zeros()
}

/// All answers about an input of 32 to 63 bytes, worked out at once and without a branch: most
/// requests of machines are that short.
#[derive(Clone, Copy, Debug)]
struct Short {
    controls: u64,
    /// Bytes outside each class, and the first bit beyond the input, where every run ends.
    no_token: u64,
    no_target: u64,
    no_reg_name: u64,
}

impl Short {
    #[inline(always)]
    fn new<V: Vector>(vector: V, input: &[u8]) -> Option<Self> {
        if input.len() >= BLOCK_BYTES {
            return None;
        }
        let low = input.first_chunk::<WIDTH>()?;
        let high = input.last_chunk::<WIDTH>()?;
        let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << (input.len() - WIDTH);
        let end = 1 << input.len();
        let outside = |table| end | join(vector.outside(low, table), vector.outside(high, table));
        Some(Self {
            controls: join(
                Vector::controls(vector, low),
                Vector::controls(vector, high),
            ),
            no_token: outside(&TOKENS),
            no_target: outside(&TARGETS),
            no_reg_name: outside(&REG_NAMES),
        })
    }

    /// The distance from the beginning of `rest` to the next set bit.
    #[inline(always)]
    fn run_len(bits: u64, input: &[u8], rest: &[u8]) -> u32 {
        (bits >> (input.len() - rest.len())).trailing_zeros()
    }
}

impl Lanes for Short {
    #[inline(always)]
    fn controls(self, block: &[u8; BLOCK_BYTES]) -> u64 {
        Scalar.controls(block)
    }

    #[inline(always)]
    fn controls_at_end(self, input: &[u8], rest: &[u8]) -> u64 {
        self.controls >> (input.len() - rest.len())
    }

    #[inline(always)]
    fn token_len(self, input: &[u8], rest: &[u8]) -> u32 {
        Self::run_len(self.no_token, input, rest)
    }

    #[inline(always)]
    fn target_len(self, input: &[u8], rest: &[u8]) -> u32 {
        Self::run_len(self.no_target, input, rest)
    }

    #[inline(always)]
    fn reg_name_len(self, input: &[u8], rest: &[u8]) -> u32 {
        Self::run_len(self.no_reg_name, input, rest)
    }
}

/// Parses with what suits the length of `input`.
#[inline(always)]
fn parse_request_by_length<V: Vector>(
    vector: V,
    input: &[u8],
    progress: &mut HeadProgress,
    limits: &Limits,
    fields: &mut Vec<Field>,
) -> Result<Option<RequestHead>, Violation> {
    match Short::new(vector, parse::visible(input, limits)) {
        Some(short) => parse::parse_request_with(short, input, progress, limits, fields),
        None => parse::parse_request_with(vector, input, progress, limits, fields),
    }
}

/// Eight bytes at a time with the arithmetic that every machine has.
#[cfg(any(test, not(target_arch = "aarch64")))]
#[derive(Clone, Copy, Debug)]
struct Words;

/// A word whose eight bytes are all `byte`.
#[cfg(any(test, not(target_arch = "aarch64")))]
const fn eight(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

#[cfg(any(test, not(target_arch = "aarch64")))]
impl Words {
    /// The control bytes other than HTAB in `word`, as bits 7, 15, … 63.
    ///
    /// Without their top bits, bytes cannot carry into each other.
    #[inline(always)]
    const fn control_bits(word: u64) -> u64 {
        let low = word & eight(0x7f);
        // Bit 7 of each byte: whether it reaches 0x20; 0x7f; or differs from HTAB.
        let reaches_space = low + eight(0x80 - 0x20);
        let is_delete = low + eight(1);
        let differs_from_tab = (low ^ eight(b'\t')) + eight(0x7f);
        (!reaches_space & differs_from_tab | is_delete) & !word & eight(0x80)
    }

    /// Gathers bits 7, 15, … 63 into eight bits.
    #[inline(always)]
    const fn gather(bits: u64) -> u64 {
        (bits >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
    }
}

#[cfg(any(test, not(target_arch = "aarch64")))]
impl Lanes for Words {
    #[inline(always)]
    fn controls(self, block: &[u8; BLOCK_BYTES]) -> u64 {
        self.controls_at_end(block, block)
    }

    #[inline(always)]
    fn controls_at_end(self, input: &[u8], rest: &[u8]) -> u64 {
        let (words, tail) = rest.as_chunks::<8>();
        let mut bits = 0;
        for (number, word) in words.iter().enumerate() {
            let found = Self::control_bits(u64::from_le_bytes(*word));
            bits |= Self::gather(found) << (8 * number);
        }
        if tail.is_empty() {
            return bits;
        }
        bits | Scalar.controls_at_end(input, tail) << (8 * words.len())
    }

    #[inline(always)]
    fn token_len(self, input: &[u8], rest: &[u8]) -> u32 {
        Scalar.token_len(input, rest)
    }

    #[inline(always)]
    fn target_len(self, input: &[u8], rest: &[u8]) -> u32 {
        Scalar.target_len(input, rest)
    }

    #[inline(always)]
    fn reg_name_len(self, input: &[u8], rest: &[u8]) -> u32 {
        Scalar.reg_name_len(input, rest)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
mod neon;

/// The two halves of 32 bytes.
#[inline(always)]
fn halves(bytes: &[u8; WIDTH]) -> (&[u8; 16], &[u8; 16]) {
    let (low, high) = bytes.split_at(16);
    match (low.first_chunk(), high.first_chunk()) {
        (Some(low), Some(high)) => (low, high),
        _ => unreachable!("32 bytes have two halves of 16"),
    }
}

#[cfg(test)]
mod tests;
