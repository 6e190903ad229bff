//! Whether what a server uses has stayed flat.
//!
//! A soak's first quarter is left out: pools, caches and the collector's heap find their size. Of the rest the
//! median of the first third is compared with that of the last: a leak of any pace moves it, a momentary high
//! does not.
//!
//! Not here: taking samples (`mod.rs`).

use crate::report::median;

/// Growth that is no leak: the collector and the allocator breathe.
const SHARE: f64 = 0.03;

/// What was compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Trend {
    pub(super) early: f64,
    pub(super) late: f64,
    /// Growth up to which it counts as flat.
    pub(super) allowed: f64,
}

impl Trend {
    /// Of samples in the order in which they were taken; `slack` is allowed whatever the size.
    pub(super) fn of(samples: &[f64], slack: f64) -> Self {
        let settled = &samples[samples.len() / 4..];
        let third = settled.len().div_ceil(3);
        let early = median(settled[..third].iter().copied());
        let late = median(settled[settled.len() - third..].iter().copied());
        Self {
            early,
            late,
            allowed: early * SHARE + slack,
        }
    }

    pub(super) fn is_flat(self) -> bool {
        self.late - self.early <= self.allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_grows_and_a_peak_are_flat() {
        let mut samples = vec![100.0; 40];
        samples[..8].fill(10.0);
        samples[30] = 900.0;
        assert!(Trend::of(&samples, 0.0).is_flat());
    }

    #[test]
    fn steady_growth_is_not_flat_and_shrinking_is() {
        let growing: Vec<f64> = (0..40).map(|at| 100.0 + f64::from(at)).collect();
        assert!(!Trend::of(&growing, 0.0).is_flat());
        assert!(Trend::of(&growing, 50.0).is_flat());
        let shrinking: Vec<f64> = growing.iter().rev().copied().collect();
        assert!(Trend::of(&shrinking, 0.0).is_flat());
    }

    #[test]
    fn few_samples_have_a_trend_too() {
        for count in 1..6 {
            assert!(Trend::of(&vec![5.0; count], 0.0).is_flat());
        }
        assert_eq!(Trend::of(&[], 1.0).late, 0.0);
    }
}
