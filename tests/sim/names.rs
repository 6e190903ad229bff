//! The simulated resolver: what it knows, and how long it takes to say so.
//!
//! Sits under `sim.rs`, which owns the clock. A name that nobody has told it does not exist.
//!
//! Not here: literal addresses, which are never asked for.

use super::{Happening, World};
use hukilau_core::transport::{Resolution, ResolveError, Resolved};
use std::collections::BTreeMap;
use std::time::Duration;

/// The names of one simulation.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// With the time until the answer; `None` never answers.
    known: BTreeMap<String, (Option<Duration>, Resolution)>,
    /// What has been asked and not answered, by request.
    questions: BTreeMap<u64, Resolution>,
    pub(super) answers: Vec<Resolved>,
}

impl Names {
    pub(super) fn learn(&mut self, host: &str, time: Option<Duration>, outcome: Resolution) {
        self.known.insert(host.to_owned(), (time, outcome));
    }

    pub(super) fn questions(&self) -> usize {
        self.questions.len()
    }

    pub(super) fn forget(&mut self, request: u64) {
        self.questions.remove(&request);
    }

    /// The time has come to answer.
    pub(super) fn answer(&mut self, request: u64) {
        let outcome = self.questions.remove(&request);
        let answer = outcome.map(|outcome| Resolved { request, outcome });
        self.answers.extend(answer);
    }
}

impl World {
    pub(super) fn resolve(&mut self, host: &str, request: u64) -> Option<Resolution> {
        self.note(format_args!("{host} is looked up for {request:x}"));
        let unknown = || (Some(Duration::ZERO), Err(ResolveError::new("no such name")));
        let (time, outcome) = self.names.known.get(host).cloned().unwrap_or_else(unknown);
        if time == Some(Duration::ZERO) && self.dice.chance(500) {
            return Some(outcome);
        }
        self.names.questions.insert(request, outcome);
        if let Some(time) = time {
            self.after(time, Happening::Resolved(request));
        }
        None
    }
}
