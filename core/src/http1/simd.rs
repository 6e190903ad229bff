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
    let lanes = neon::Neon;
    #[cfg(not(target_arch = "aarch64"))]
    let lanes = Words;
    parse::parse_request_with(lanes, input, progress, limits, fields)
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
mod x86 {
    use super::*;
    use core::arch::x86_64::*;
    use core::sync::atomic::{AtomicU8, Ordering};

    /// This CPU has not been asked yet.
    const UNKNOWN: u8 = 0;
    /// Nothing beyond what all have.
    const BASELINE: u8 = 1;
    pub(super) const SSE42: u8 = 2;
    pub(super) const AVX2: u8 = 3;

    /// The best level of this CPU.
    #[inline]
    pub(super) fn level() -> u8 {
        static LEVEL: AtomicU8 = AtomicU8::new(UNKNOWN);
        // Relaxed: all threads would store the same.
        match LEVEL.load(Ordering::Relaxed) {
            UNKNOWN => {
                let level = ask();
                LEVEL.store(level, Ordering::Relaxed);
                level
            }
            level => level,
        }
    }

    #[cold]
    fn ask() -> u8 {
        let has_avx2 = std::is_x86_feature_detected!("avx2")
            && std::is_x86_feature_detected!("bmi1")
            && std::is_x86_feature_detected!("bmi2");
        if has_avx2 {
            AVX2
        } else if std::is_x86_feature_detected!("sse4.2") && std::is_x86_feature_detected!("popcnt")
        {
            SSE42
        } else {
            BASELINE
        }
    }

    /// Proof of AVX2, BMI1 and BMI2.
    #[derive(Clone, Copy, Debug)]
    pub(super) struct Avx2(());

    /// Proof of SSE4.2 and POPCNT.
    #[derive(Clone, Copy, Debug)]
    pub(super) struct Sse42(());

    #[cfg(test)]
    impl Avx2 {
        pub(super) fn ask() -> Option<Self> {
            (level() >= AVX2).then_some(Self(()))
        }
    }

    #[cfg(test)]
    impl Sse42 {
        pub(super) fn ask() -> Option<Self> {
            (level() >= SSE42).then_some(Self(()))
        }
    }

    #[target_feature(enable = "avx2,bmi1,bmi2")]
    pub(super) fn parse_request_avx2(
        input: &[u8],
        progress: &mut HeadProgress,
        limits: &Limits,
        fields: &mut Vec<Field>,
    ) -> Result<Option<RequestHead>, Violation> {
        parse::parse_request_with(Avx2(()), input, progress, limits, fields)
    }

    #[target_feature(enable = "sse4.2,popcnt")]
    pub(super) fn parse_request_sse42(
        input: &[u8],
        progress: &mut HeadProgress,
        limits: &Limits,
        fields: &mut Vec<Field>,
    ) -> Result<Option<RequestHead>, Violation> {
        parse::parse_request_with(Sse42(()), input, progress, limits, fields)
    }

    #[target_feature(enable = "avx2,bmi1,bmi2")]
    pub(super) fn clean_fields_avx2(
        input: &[u8],
        at: u32,
        fields_max: u16,
        fields: &mut Vec<Field>,
    ) -> Option<(Facts, u32)> {
        parse::clean_fields_from(Avx2(()), input, at, fields_max, fields)
    }

    #[target_feature(enable = "sse4.2,popcnt")]
    pub(super) fn clean_fields_sse42(
        input: &[u8],
        at: u32,
        fields_max: u16,
        fields: &mut Vec<Field>,
    ) -> Option<(Facts, u32)> {
        parse::clean_fields_from(Sse42(()), input, at, fields_max, fields)
    }

    impl Vector for Avx2 {
        #[inline(always)]
        fn controls(self, bytes: &[u8; WIDTH]) -> u32 {
            // SAFETY: `self` proves AVX2.
            unsafe { controls_avx2(bytes) }
        }

        #[inline(always)]
        fn outside(self, bytes: &[u8; WIDTH], table: &'static NibbleTable) -> u32 {
            // SAFETY: `self` proves AVX2.
            unsafe { outside_avx2(bytes, table) }
        }
    }

    impl Vector for Sse42 {
        #[inline(always)]
        fn controls(self, bytes: &[u8; WIDTH]) -> u32 {
            let (low, high) = halves(bytes);
            // SAFETY: `self` proves SSE4.2.
            unsafe { controls_sse(low) | controls_sse(high) << 16 }
        }

        #[inline(always)]
        fn outside(self, bytes: &[u8; WIDTH], table: &'static NibbleTable) -> u32 {
            let (low, high) = halves(bytes);
            // SAFETY: `self` proves SSE4.2.
            unsafe { outside_sse(low, table) | outside_sse(high, table) << 16 }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn controls_avx2(bytes: &[u8; WIDTH]) -> u32 {
        // SAFETY: the reference is valid for its 32 bytes, and `loadu` takes any alignment.
        let bytes = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
        let control = _mm256_cmpeq_epi8(_mm256_min_epu8(bytes, _mm256_set1_epi8(0x1f)), bytes);
        let tab = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(0x09));
        let delete = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(0x7f));
        let found = _mm256_or_si256(_mm256_andnot_si256(tab, control), delete);
        _mm256_movemask_epi8(found).cast_unsigned()
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn outside_avx2(bytes: &[u8; WIDTH], table: &'static NibbleTable) -> u32 {
        // SAFETY: the reference is valid for its 32 bytes, and `loadu` takes any alignment.
        let bytes = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
        // SAFETY: the table is 16 bytes, aligned to 16.
        let table = unsafe { _mm_load_si128(table.0.as_ptr().cast()) };
        // SAFETY: the table is 16 bytes, aligned to 16.
        let bits = unsafe { _mm_load_si128(HIGH_NIBBLES.0.as_ptr().cast()) };
        // A byte with its top bit set selects zero, so bytes beyond ASCII are outside.
        let row = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), bytes);
        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), _mm256_set1_epi8(0x0f));
        let bit = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(bits), high);
        let outside = _mm256_cmpeq_epi8(_mm256_and_si256(row, bit), _mm256_setzero_si256());
        _mm256_movemask_epi8(outside).cast_unsigned()
    }

    #[inline]
    #[target_feature(enable = "sse4.2")]
    fn controls_sse(bytes: &[u8; 16]) -> u32 {
        // SAFETY: the reference is valid for its 16 bytes, and `loadu` takes any alignment.
        let bytes = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
        let control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
        let tab = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x09));
        let delete = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7f));
        let found = _mm_or_si128(_mm_andnot_si128(tab, control), delete);
        _mm_movemask_epi8(found).cast_unsigned()
    }

    #[inline]
    #[target_feature(enable = "sse4.2")]
    fn outside_sse(bytes: &[u8; 16], table: &'static NibbleTable) -> u32 {
        // SAFETY: the reference is valid for its 16 bytes, and `loadu` takes any alignment.
        let bytes = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
        // SAFETY: the table is 16 bytes, aligned to 16.
        let table = unsafe { _mm_load_si128(table.0.as_ptr().cast()) };
        // SAFETY: the table is 16 bytes, aligned to 16.
        let bits = unsafe { _mm_load_si128(HIGH_NIBBLES.0.as_ptr().cast()) };
        // A byte with its top bit set selects zero, so bytes beyond ASCII are outside.
        let row = _mm_shuffle_epi8(table, bytes);
        let high = _mm_and_si128(_mm_srli_epi16::<4>(bytes), _mm_set1_epi8(0x0f));
        let bit = _mm_shuffle_epi8(bits, high);
        let outside = _mm_cmpeq_epi8(_mm_and_si128(row, bit), _mm_setzero_si128());
        _mm_movemask_epi8(outside).cast_unsigned()
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::*;
    use core::arch::aarch64::*;

    /// NEON is part of every 64-bit ARM, so this proves nothing that is not known.
    #[derive(Clone, Copy, Debug)]
    pub(super) struct Neon;

    /// The weight of each lane within the eight that share a byte of the bitmap.
    static WEIGHTS: NibbleTable =
        NibbleTable([1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128]);

    impl Vector for Neon {
        #[inline(always)]
        fn controls(self, bytes: &[u8; WIDTH]) -> u32 {
            let (low, high) = halves(bytes);
            // SAFETY: every 64-bit ARM has NEON.
            unsafe { bitmap(controls_16(low), controls_16(high)) }
        }

        #[inline(always)]
        fn outside(self, bytes: &[u8; WIDTH], table: &'static NibbleTable) -> u32 {
            let (low, high) = halves(bytes);
            // SAFETY: every 64-bit ARM has NEON.
            unsafe { bitmap(outside_16(low, table), outside_16(high, table)) }
        }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn controls_16(bytes: &[u8; 16]) -> uint8x16_t {
        // SAFETY: the reference is valid for its 16 bytes, and the load takes any alignment.
        let bytes = unsafe { vld1q_u8(bytes.as_ptr()) };
        let control = vcltq_u8(bytes, vdupq_n_u8(0x20));
        let tab = vceqq_u8(bytes, vdupq_n_u8(b'\t'));
        let delete = vceqq_u8(bytes, vdupq_n_u8(0x7f));
        vorrq_u8(vbicq_u8(control, tab), delete)
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn outside_16(bytes: &[u8; 16], table: &'static NibbleTable) -> uint8x16_t {
        // SAFETY: the reference is valid for its 16 bytes, and the load takes any alignment.
        let bytes = unsafe { vld1q_u8(bytes.as_ptr()) };
        // SAFETY: the table is 16 bytes.
        let table = unsafe { vld1q_u8(table.0.as_ptr()) };
        // SAFETY: the table is 16 bytes.
        let bits = unsafe { vld1q_u8(HIGH_NIBBLES.0.as_ptr()) };
        let row = vqtbl1q_u8(table, vandq_u8(bytes, vdupq_n_u8(0x0f)));
        let bit = vqtbl1q_u8(bits, vshrq_n_u8::<4>(bytes));
        vceqzq_u8(vandq_u8(row, bit))
    }

    /// One bit for each lane that is set: three pairwise sums gather eight weights in a byte.
    #[inline]
    #[target_feature(enable = "neon")]
    fn bitmap(low: uint8x16_t, high: uint8x16_t) -> u32 {
        // SAFETY: the table is 16 bytes.
        let weights = unsafe { vld1q_u8(WEIGHTS.0.as_ptr()) };
        let pairs = vpaddq_u8(vandq_u8(low, weights), vandq_u8(high, weights));
        let fours = vpaddq_u8(pairs, pairs);
        let eights = vpaddq_u8(fours, fours);
        vgetq_lane_u32::<0>(vreinterpretq_u32_u8(eights))
    }
}

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
