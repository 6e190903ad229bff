//! How many coroutines wait, and for what.
//!
//! Sits inside `scheduler.rs`; a dialect has a function that tells (`surface/helpers.rs`). Counted when
//! it is asked: nobody pays for it otherwise.
//!
//! Invariants
//! - A coroutine is counted once. Those that run, and those that only a script can wake, are not.
//! - Calls at a rate count as what waits for time.
//!
//! Not here: whether the process has something left to do (`runtime/rest.rs`).

use super::{Scheduler, State};

/// Coroutines by what they wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// For a time to come.
    pub(crate) sleeping: u32,
    /// For their turn: they have been deferred.
    pub(crate) deferred: u32,
    /// For a connection, a name, or a line of input.
    pub(crate) waiting: u32,
}

impl Scheduler {
    /// Counts the tasks that wait. Takes as long as there are tasks.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for task in &self.tasks {
            match task.state {
                State::Timer => counts.sleeping += 1,
                State::Ready => counts.deferred += 1,
                State::Wire => counts.waiting += 1,
                State::Pooled | State::Running | State::Parked => {}
            }
        }
        counts
    }
}
