//! Descriptors of a simulation, where its options say that they are scarce.
//!
//! Sits under `sim.rs`, whose accept asks it. One more than the others may have is kept in reserve, and
//! is there for whoever gives that up.
//!
//! Not here: an accept that fails by chance (`options.rs`).

use super::World;
use super::link::{Link, Stage};

impl World {
    /// Whether an accept would need one that is not there.
    pub(super) fn is_out_of_descriptors(&self) -> bool {
        let max = self.options.descriptors_max;
        max.is_some_and(|max| self.open_sockets() >= max + usize::from(self.reserve_spent))
    }

    /// Sockets that the reactor has not closed.
    pub(super) fn open_sockets(&self) -> usize {
        let is_ours = |link: &&Link| !matches!(link.stage, Stage::Waiting | Stage::Closed);
        self.links.iter().filter(is_ours).count()
    }

    /// Gives up the reserve; whether there was one.
    pub(super) fn spend_reserve(&mut self) -> bool {
        let is_there = self.options.descriptors_max.is_some() && !self.reserve_spent;
        self.reserve_spent |= is_there;
        is_there
    }
}
