//! What the fuzz targets share: ways to cut an input, and the oracles that hold for every driver.
//!
//! Each target takes plain bytes, of which the first only chooses the cuts, so that a corpus file
//! is a seed byte and then what a peer would send. A target without an assertion is a smoke test;
//! ours assert at least that the way an input is cut does not change what it means.

pub mod frames;

use std::ops::Range;

/// A small generator (SplitMix64): cheap, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Seed(pub u64);

impl Seed {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Up to how many bytes move at once, 1 to 1,024: few as often as many.
    pub fn most(&mut self) -> usize {
        let bound = 1 << (2 * self.below(6));
        1 + self.below(bound)
    }
}

/// The seed byte of an input and the rest of it; none for the empty input.
pub fn seeded(data: &[u8]) -> Option<(Seed, &[u8])> {
    let (first, rest) = data.split_first()?;
    Some((Seed(u64::from(*first)), rest))
}

/// Cuts `len` bytes into pieces, mostly short: byte by byte for seeds that say so, and up to
/// 1, 4, 16, … bytes otherwise.
pub fn pieces(len: usize, seed: &mut Seed) -> Vec<Range<usize>> {
    let longest = 1 << (2 * seed.below(5));
    let (mut cuts, mut at) = (Vec::new(), 0);
    while at < len {
        let end = len.min(at + 1 + seed.below(longest));
        cuts.push(at..end);
        at = end;
    }
    cuts
}

/// Drives something that consumes from the front of what it is given, as a reactor does: what it
/// leaves is offered again with the next piece behind it. Stops at the first error, which is the
/// result. `feed` gets the bytes and says how many it used.
///
/// # Errors
/// The first that `feed` returns.
pub fn drive<E>(
    input: &[u8],
    cuts: &[Range<usize>],
    mut feed: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<usize, E> {
    let mut spill: Vec<u8> = Vec::new();
    for cut in cuts {
        spill.extend_from_slice(&input[cut.clone()]);
        let used = feed(&mut spill)?;
        assert!(used <= spill.len(), "consumed more than there was");
        spill.drain(..used);
    }
    Ok(spill.len())
}
