//! The vector questions with NEON, which every 64-bit ARM has. Byte classes of RFC 9110 §5.5,
//! §5.6.2.
//!
//! Sits below `simd.rs`.
//!
//! Invariants
//! - Bit 0 of a bitmap is the first byte, as on the other machines: lanes are weighted and added
//!   in pairs, as NEON has no instruction that gathers sign bits.
//!
//! Not here: what is done with bitmaps (`simd.rs`).

use super::*;
use core::arch::aarch64::*;

/// NEON is part of every 64-bit ARM, so this proves nothing that is not known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neon;

/// [`parse::parse_request`] with NEON.
pub(super) fn parse_request(
    input: &[u8],
    progress: &mut HeadProgress,
    limits: &Limits,
    fields: &mut Vec<Field>,
) -> Parsed {
    parse_request_by_length(Neon, input, progress, limits, fields, parse_any_request)
}

#[inline(never)]
fn parse_any_request(
    input: &[u8],
    progress: &mut HeadProgress,
    limits: &Limits,
    fields: &mut Vec<Field>,
) -> Parsed {
    parse_any_by_length(Neon, input, progress, limits, fields)
}

/// The weight of each lane within the eight that share a byte of the bitmap.
static WEIGHTS: NibbleTable =
    NibbleTable([1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128]);

impl Vector for Neon {
    #[inline(always)]
    fn odd_bytes(self, bytes: &[u8; WIDTH]) -> u32 {
        let (low, high) = halves(bytes);
        // SAFETY: every 64-bit ARM has NEON.
        unsafe { bitmap(odd_bytes_16(low), odd_bytes_16(high)) }
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
fn odd_bytes_16(bytes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: the reference is valid for its 16 bytes, and the load takes any alignment.
    let bytes = unsafe { vld1q_u8(bytes.as_ptr()) };
    // One more than DEL wraps around to the least number there is, so one comparison finds all.
    let next = vreinterpretq_s8_u8(vaddq_u8(bytes, vdupq_n_u8(1)));
    vcltq_s8(next, vdupq_n_s8(0x21))
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
