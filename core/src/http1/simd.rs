//! The fast path's questions about bytes, answered for many at a time. RFC 9110 §5.5, §5.6.2.
//!
//! Sits beside `clean.rs` and implements its [`Lanes`]: with AVX2, with SSE4.2, with NEON, and with
//! plain 64-bit words for all other machines. [`parse_request`] chooses once per head; the choice is
//! a load from memory, and known after the first head.
//!
//! A byte class is looked up by nibbles: the low one selects a byte of a table, the high one a bit
//! of that byte. It is exact for any class of ASCII bytes and takes two shuffles for a block.
//!
//! Invariants
//! - Nothing outside the input is read: the last block is read so that it ends where the input
//!   ends, and inputs shorter than any vector are read in words.
//! - Every implementation gives the answers of `Scalar`, for every byte in every lane (`tests`).
//! - A value of a vector type is proof that this CPU has the instructions: only [`parse_request`] and
//!   tests make one, after asking.
//!
//! Not here: what is done with the answers (`clean.rs`), the classes themselves (`token.rs`).
#![expect(
    unsafe_code,
    reason = "vector instructions pay: heads parse two to four times faster than byte by byte"
)]

use super::Field;
use super::clean::{self, BLOCK_BYTES, Lanes, Scalar, bytes_at, from};
use super::parse::{self, HeadProgress, Parsed};
use super::token::{is_plain_byte, is_target_byte};
use crate::limits::Limits;

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
) -> Parsed {
    match x86::level() {
        // SAFETY: `level` says that this CPU was asked for AVX2, BMI1 and BMI2.
        x86::AVX2 => unsafe { x86::parse_request_avx2(input, progress, limits, fields) },
        // SAFETY: `level` says that this CPU was asked for SSE4.2 and POPCNT.
        x86::SSE42 => unsafe { x86::parse_request_sse42(input, progress, limits, fields) },
        _ => parse_request_in_words(input, progress, limits, fields),
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
) -> Parsed {
    #[cfg(target_arch = "aarch64")]
    return neon::parse_request(input, progress, limits, fields);
    #[cfg(not(target_arch = "aarch64"))]
    parse_request_in_words(input, progress, limits, fields)
}

/// Parses with the set of instructions called `name` from now on, in all threads, if this CPU has
/// it, and says whether. For measurements; answers are the same with all.
pub fn use_instructions(name: &str) -> bool {
    #[cfg(target_arch = "x86_64")]
    return match name {
        "words" => x86::use_level(x86::BASELINE),
        "sse4.2" => x86::use_level(x86::SSE42),
        "avx2" => x86::use_level(x86::AVX2),
        _ => false,
    };
    #[cfg(not(target_arch = "x86_64"))]
    return name
        == if cfg!(target_arch = "aarch64") {
            "neon"
        } else {
            "words"
        };
}

/// [`clean::clean_fields`] with the best instructions this CPU has. The head's end.
#[cfg(target_arch = "x86_64")]
pub(super) fn clean_fields(
    input: &[u8],
    at: u32,
    fields_max: u16,
    fields: &mut Vec<Field>,
) -> Option<u32> {
    match x86::level() {
        // SAFETY: `level` says that this CPU was asked for AVX2, BMI1 and BMI2.
        x86::AVX2 => unsafe { x86::clean_fields_avx2(input, at, fields_max, fields) },
        // SAFETY: `level` says that this CPU was asked for SSE4.2 and POPCNT.
        x86::SSE42 => unsafe { x86::clean_fields_sse42(input, at, fields_max, fields) },
        _ => {
            x86::ask_once();
            clean_fields_with(Words, input, at, fields_max, fields)
        }
    }
}

/// [`clean::clean_fields`] with NEON, or with plain words. The head's end.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn clean_fields(
    input: &[u8],
    at: u32,
    fields_max: u16,
    fields: &mut Vec<Field>,
) -> Option<u32> {
    #[cfg(target_arch = "aarch64")]
    let lanes = neon::Neon;
    #[cfg(not(target_arch = "aarch64"))]
    let lanes = Words;
    clean_fields_with(lanes, input, at, fields_max, fields)
}

/// [`clean_fields`] of heads with any names.
#[cold]
pub(super) fn clean_fields_in_full(
    input: &[u8],
    at: u32,
    fields_max: u16,
    fields: &mut Vec<Field>,
) -> Option<u32> {
    clean_fields_with(Words, input, at, fields_max, fields)
}

/// [`clean_fields`] with `lanes`, as far as there is room in `fields`.
#[inline(always)]
fn clean_fields_with<L: Lanes>(
    lanes: L,
    input: &[u8],
    at: u32,
    fields_max: u16,
    fields: &mut Vec<Field>,
) -> Option<u32> {
    let mut room = Room::new(fields, fields_max);
    let (len, _) = clean::clean_fields(lanes, input, at, &mut room)?;
    room.commit();
    Some(len)
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

static TARGETS: NibbleTable = nibble_table!(is_target_byte);
static PLAIN: NibbleTable = nibble_table!(is_plain_byte);

impl NibbleTable {
    /// The number of members at the front of `bytes`. For inputs shorter than any vector.
    #[cold]
    fn len_byte_by_byte(&self, bytes: &[u8]) -> u32 {
        let is_member =
            |byte: u8| byte.is_ascii() && self.0[usize::from(byte & 15)] >> (byte >> 4) & 1 != 0;
        Scalar::run_len(bytes, is_member)
    }
}

/// What a set of vector instructions can do with 32 bytes. Bit 0 is the first byte.
trait Vector: Copy {
    /// The odd bytes.
    fn odd_bytes(self, bytes: &[u8; WIDTH]) -> u32;

    /// The bytes outside the class of `table`.
    fn outside(self, bytes: &[u8; WIDTH], table: &'static NibbleTable) -> u32;

    /// The odd bytes of a block.
    #[inline(always)]
    fn odd_bytes_of_block(self, block: &[u8; BLOCK_BYTES]) -> u64 {
        let (low, high) = halves(block);
        u64::from(Vector::odd_bytes(self, low)) | u64::from(Vector::odd_bytes(self, high)) << WIDTH
    }
}

/// The odd bytes of an input shorter than a block.
#[cold]
#[inline(never)]
fn odd_bytes_of_few(input: &[u8], at: u32) -> u64 {
    Scalar.odd_bytes(input, at)
}

impl<V: Vector> Lanes for V {
    #[inline(always)]
    fn odd_bytes(self, input: &[u8], at: u32) -> u64 {
        // The last block is read so that it ends where the input ends.
        let start = (at as usize).min(input.len().wrapping_sub(BLOCK_BYTES));
        match input.get(start..).and_then(|rest| rest.first_chunk()) {
            Some(block) => self.odd_bytes_of_block(block) >> (at as usize - start),
            None => odd_bytes_of_few(input, at),
        }
    }

    #[inline(always)]
    fn target_len(self, input: &[u8], at: u32) -> u32 {
        class_len(self, input, at, &TARGETS)
    }

    #[inline(always)]
    fn plain_len(self, input: &[u8], at: u32) -> u32 {
        class_len(self, input, at, &PLAIN)
    }
}

/// The number of bytes of the class of `table` from `at` on.
#[inline(always)]
fn class_len<V: Vector>(vector: V, input: &[u8], at: u32, table: &'static NibbleTable) -> u32 {
    if let Some(window) = bytes_at(input, at) {
        let outside = vector.outside(window, table);
        if outside != 0 {
            return outside.trailing_zeros();
        }
    }
    class_len_beyond(vector, input, at, table)
}

/// [`class_len`] of long runs, and near the end of the input.
#[inline(always)]
fn class_len_beyond<V: Vector>(
    vector: V,
    input: &[u8],
    at: u32,
    table: &'static NibbleTable,
) -> u32 {
    let mut end = at;
    while let Some(window) = bytes_at(input, end) {
        let outside = vector.outside(window, table);
        if outside != 0 {
            return end + outside.trailing_zeros() - at;
        }
        end += u32::BITS;
    }
    let rest = from(input, end);
    let Some(last) = input.last_chunk::<WIDTH>() else {
        return end - at + table.len_byte_by_byte(rest);
    };
    let outside = u64::from(vector.outside(last, table)) >> (WIDTH - rest.len());
    // One bit beyond the input, so that what has no other end ends there.
    end - at + (outside | 1 << rest.len()).trailing_zeros()
}

/// All answers about an input of 32 to 63 bytes, worked out at once and without a branch: most
/// requests of machines are that short.
#[derive(Clone, Copy, Debug)]
struct Short {
    odd_bytes: u64,
    /// Bytes outside the class, and the first bit beyond the input, where every run ends.
    no_plain: u64,
    /// Bytes among the first 32 that no target has.
    no_target: u32,
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
        let no_plain = join(vector.outside(low, &PLAIN), vector.outside(high, &PLAIN));
        Some(Self {
            odd_bytes: join(
                Vector::odd_bytes(vector, low),
                Vector::odd_bytes(vector, high),
            ),
            no_plain: no_plain | 1 << input.len(),
            no_target: vector.outside(low, &TARGETS),
        })
    }
}

impl Lanes for Short {
    #[inline(always)]
    fn odd_bytes(self, _: &[u8], at: u32) -> u64 {
        self.odd_bytes >> at
    }

    #[inline(always)]
    fn target_len(self, input: &[u8], at: u32) -> u32 {
        match self.no_target.unbounded_shr(at) {
            0 => Scalar::run_len(from(input, at), is_target_byte),
            outside => outside.trailing_zeros(),
        }
    }

    #[inline(always)]
    fn plain_len(self, _: &[u8], at: u32) -> u32 {
        (self.no_plain >> at).trailing_zeros()
    }
}

/// Parses with what suits the length of `input`; `any` is [`parse_any_by_length`] with the same
/// instructions.
#[inline(always)]
fn parse_request_by_length<V: Vector>(
    vector: V,
    input: &[u8],
    progress: &mut HeadProgress,
    limits: &Limits,
    fields: &mut Vec<Field>,
    any: impl FnOnce(&[u8], &mut HeadProgress, &Limits, &mut Vec<Field>) -> Parsed,
) -> Parsed {
    let visible = parse::visible(input, limits);
    if visible.len() >= BLOCK_BYTES {
        return parse::parse_usual_request(vector, input, progress, limits, fields, any);
    }
    match Short::new(vector, visible) {
        Some(short) => parse::parse_usual_request(short, input, progress, limits, fields, any),
        None => parse_request_in_words(input, progress, limits, fields),
    }
}

/// [`parse_request_by_length`] for heads with any request line.
#[inline(always)]
fn parse_any_by_length<V: Vector>(
    vector: V,
    input: &[u8],
    progress: &mut HeadProgress,
    limits: &Limits,
    fields: &mut Vec<Field>,
) -> Parsed {
    let visible = parse::visible(input, limits);
    if visible.len() >= BLOCK_BYTES {
        return parse::parse_any_request(vector, input, progress, limits, fields);
    }
    match Short::new(vector, visible) {
        Some(short) => parse::parse_any_request(short, input, progress, limits, fields),
        None => parse_request_in_words(input, progress, limits, fields),
    }
}

/// Parses with plain words: what is shorter than any vector, or where there are none. So is the
/// first head, which asks for the others.
#[inline(never)]
fn parse_request_in_words(
    input: &[u8],
    progress: &mut HeadProgress,
    limits: &Limits,
    fields: &mut Vec<Field>,
) -> Parsed {
    #[cfg(target_arch = "x86_64")]
    x86::ask_once();
    parse::parse_any_request(Words, input, progress, limits, fields)
}

/// Eight bytes at a time with the arithmetic that every machine has.
#[derive(Clone, Copy, Debug)]
struct Words;

/// A word whose eight bytes are all `byte`.
const fn eight(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

impl Words {
    /// The odd bytes in `word`, as bits 7, 15, … 63.
    ///
    /// Without their top bits, bytes cannot carry into each other.
    #[inline(always)]
    const fn odd_bits(word: u64) -> u64 {
        let low = word & eight(0x7f);
        // Bit 7 of each byte: whether it reaches 0x20, or 0x7f.
        let reaches_space = low + eight(0x80 - 0x20);
        let is_delete = low + eight(1);
        (!reaches_space | is_delete | word) & eight(0x80)
    }

    /// Gathers bits 7, 15, … 63 into eight bits.
    #[inline(always)]
    const fn gather(bits: u64) -> u64 {
        (bits >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
    }
}

impl Lanes for Words {
    #[inline(always)]
    fn odd_bytes(self, input: &[u8], at: u32) -> u64 {
        let rest = from(input, at);
        let (words, tail) = rest.get(..BLOCK_BYTES).unwrap_or(rest).as_chunks::<8>();
        let mut bits = 0;
        for (number, word) in words.iter().enumerate() {
            let found = Self::odd_bits(u64::from_le_bytes(*word));
            bits |= Self::gather(found) << (8 * number);
        }
        if tail.is_empty() {
            return bits;
        }
        bits | Scalar.odd_bytes(tail, 0) << (8 * words.len())
    }

    #[inline(always)]
    fn target_len(self, input: &[u8], at: u32) -> u32 {
        Scalar.target_len(input, at)
    }

    #[inline(always)]
    fn plain_len(self, input: &[u8], at: u32) -> u32 {
        Scalar.plain_len(input, at)
    }

    #[inline(always)]
    fn name_len(self, input: &[u8], at: u32) -> u32 {
        Scalar.name_len(input, at)
    }
}

mod room;
pub(super) use room::Room;

#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
mod neon;

/// The two halves of `bytes`.
#[inline(always)]
fn halves<const N: usize, const HALF: usize>(bytes: &[u8; N]) -> (&[u8; HALF], &[u8; HALF]) {
    const { assert!(HALF + HALF == N) };
    match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(low), Some(high)) => (low, high),
        _ => unreachable!("a half is not longer than the whole"),
    }
}

#[cfg(test)]
mod tests;
