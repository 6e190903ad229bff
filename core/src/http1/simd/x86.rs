//! The vector questions with AVX2 and with SSE4.2, and which of them this CPU has. Byte classes of
//! RFC 9110 §5.5, §5.6.2.
//!
//! Sits below `simd.rs`, which chooses by [`level`] once per head.
//!
//! Invariants
//! - [`Avx2`] and [`Sse42`] are made only where their instructions are known to be there, so the
//!   methods that use them are safe to call.
//!
//! Not here: what is done with bitmaps (`simd.rs`).

use super::*;
use core::arch::x86_64::*;
use core::sync::atomic::{AtomicU8, Ordering};

/// This CPU has not been asked yet.
const UNKNOWN: u8 = 0;
/// Nothing beyond what all have.
pub(super) const BASELINE: u8 = 1;
pub(super) const SSE42: u8 = 2;
pub(super) const AVX2: u8 = 3;

static LEVEL: AtomicU8 = AtomicU8::new(UNKNOWN);

/// The best level of this CPU, if [`ask_once`] has been called.
#[inline]
pub(super) fn level() -> u8 {
    // Relaxed: all threads would store the same.
    LEVEL.load(Ordering::Relaxed)
}

/// Makes [`level`] known.
pub(super) fn ask_once() {
    if level() == UNKNOWN {
        LEVEL.store(ask(), Ordering::Relaxed);
    }
}

/// Uses `level` from now on, if this CPU has it, and says whether.
pub(super) fn use_level(wanted: u8) -> bool {
    let has = wanted <= ask();
    if has {
        LEVEL.store(wanted, Ordering::Relaxed);
    }
    has
}

#[cold]
fn ask() -> u8 {
    let has_avx2 = std::is_x86_feature_detected!("avx2")
        && std::is_x86_feature_detected!("bmi1")
        && std::is_x86_feature_detected!("bmi2");
    if has_avx2 {
        AVX2
    } else if std::is_x86_feature_detected!("sse4.2") && std::is_x86_feature_detected!("popcnt") {
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
        ask_once();
        (level() >= AVX2).then_some(Self(()))
    }
}

#[cfg(test)]
impl Sse42 {
    pub(super) fn ask() -> Option<Self> {
        ask_once();
        (level() >= SSE42).then_some(Self(()))
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2")]
pub(super) fn parse_request_avx2(
    input: &[u8],
    progress: &mut HeadProgress,
    limits: &Limits,
    fields: &mut Vec<Field>,
) -> Parsed {
    let any = |input: &_, progress: &mut _, limits: &_, fields: &mut _| {
        parse_any_request_avx2(input, progress, limits, fields)
    };
    parse_request_by_length(Avx2(()), input, progress, limits, fields, any)
}

#[inline(never)]
#[target_feature(enable = "avx2,bmi1,bmi2")]
fn parse_any_request_avx2(
    input: &[u8],
    progress: &mut HeadProgress,
    limits: &Limits,
    fields: &mut Vec<Field>,
) -> Parsed {
    parse_any_by_length(Avx2(()), input, progress, limits, fields)
}

#[target_feature(enable = "sse4.2,popcnt")]
pub(super) fn parse_request_sse42(
    input: &[u8],
    progress: &mut HeadProgress,
    limits: &Limits,
    fields: &mut Vec<Field>,
) -> Parsed {
    let any = |input: &_, progress: &mut _, limits: &_, fields: &mut _| {
        parse_any_request_sse42(input, progress, limits, fields)
    };
    parse_request_by_length(Sse42(()), input, progress, limits, fields, any)
}

#[inline(never)]
#[target_feature(enable = "sse4.2,popcnt")]
fn parse_any_request_sse42(
    input: &[u8],
    progress: &mut HeadProgress,
    limits: &Limits,
    fields: &mut Vec<Field>,
) -> Parsed {
    parse_any_by_length(Sse42(()), input, progress, limits, fields)
}

#[target_feature(enable = "avx2,bmi1,bmi2")]
pub(super) fn clean_fields_avx2(
    input: &[u8],
    at: u32,
    fields_max: u16,
    fields: &mut Vec<Field>,
) -> Option<u32> {
    clean_fields_with(Avx2(()), input, at, fields_max, fields)
}

#[target_feature(enable = "sse4.2,popcnt")]
pub(super) fn clean_fields_sse42(
    input: &[u8],
    at: u32,
    fields_max: u16,
    fields: &mut Vec<Field>,
) -> Option<u32> {
    clean_fields_with(Sse42(()), input, at, fields_max, fields)
}

impl Vector for Avx2 {
    #[inline(always)]
    fn odd_bytes(self, bytes: &[u8; WIDTH]) -> u32 {
        // SAFETY: `self` proves AVX2.
        unsafe { odd_bytes_avx2(bytes) }
    }

    #[inline(always)]
    fn outside(self, bytes: &[u8; WIDTH], table: &'static NibbleTable) -> u32 {
        // SAFETY: `self` proves AVX2.
        unsafe { outside_avx2(bytes, table) }
    }
}

impl Vector for Sse42 {
    #[inline(always)]
    fn odd_bytes(self, bytes: &[u8; WIDTH]) -> u32 {
        let (low, high) = halves(bytes);
        // SAFETY: `self` proves SSE4.2.
        unsafe { odd_bytes_sse(low) | odd_bytes_sse(high) << 16 }
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
fn odd_bytes_avx2(bytes: &[u8; WIDTH]) -> u32 {
    // SAFETY: the reference is valid for its 32 bytes, and `loadu` takes any alignment.
    let bytes = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
    // One more than DEL wraps around to the least number there is, so one comparison finds all.
    let next = _mm256_sub_epi8(bytes, _mm256_set1_epi8(-1));
    _mm256_movemask_epi8(_mm256_cmpgt_epi8(_mm256_set1_epi8(0x21), next)).cast_unsigned()
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
fn odd_bytes_sse(bytes: &[u8; 16]) -> u32 {
    // SAFETY: the reference is valid for its 16 bytes, and `loadu` takes any alignment.
    let bytes = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
    // One more than DEL wraps around to the least number there is, so one comparison finds all.
    let next = _mm_sub_epi8(bytes, _mm_set1_epi8(-1));
    _mm_movemask_epi8(_mm_cmpgt_epi8(_mm_set1_epi8(0x21), next)).cast_unsigned()
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
