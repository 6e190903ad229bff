//! What a request and a connection cost, from one connection to as many as the system allows.
//!
//! At each step so many connections are open, all of them used: 64 requests are under way at a time and pass
//! through all connections in turn. A server whose cost grows with its connections shows here; the kernel's own
//! share grows too, as its structures leave the caches, which the floor's line tells. Where one process may not hold
//! as many, there are up to three of each server, and 64 requests under way to each (`spread.rs`).
//!
//! As elsewhere the peers take turns, round by round; all of them hold their connections meanwhile.
//!
//! Invariants
//! - Bytes per connection are taken while each has had one answer, before it is used further.
//! - A step that three processes may not hold is cut to what they may.
//!
//! Not here: the drawing (`picture.rs`).

use std::time::Duration;

use crate::client::apart::Task;
use crate::peers::Peer;
use crate::rounds::Round;
use crate::spread::{self, Spread};
use crate::workload::{Kind, Measure, Workload};

/// Connections at each step.
pub(crate) const STEPS: [usize; 6] = [1, 10, 100, 1000, 10_000, 50_000];

/// Requests under way at a time.
const WINDOW: usize = 64;

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) round: Duration,
    /// No step beyond.
    pub(crate) most: usize,
}

/// One peer at one step.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) peer: &'static Peer,
    pub(crate) connections: usize,
    pub(crate) outcome: Result<Cost, String>,
}

#[derive(Debug)]
pub(crate) struct Cost {
    pub(crate) rounds: Vec<Round>,
    /// Resident, for each connection.
    pub(crate) bytes: f64,
}

/// What is asked; the steps give the connections.
pub(crate) const WORKLOAD: Workload = Workload {
    name: "scale",
    title: "GET, one core, 1 to 50,000 connections",
    measure: Measure::Scale,
    kind: Kind::Get,
    connections: STEPS[STEPS.len() - 1],
    in_flight: 1,
    cores: 1,
};

/// The steps, with `descriptors` allowed to a process.
fn steps(plan: Plan, descriptors: u64) -> Vec<usize> {
    let room = spread::room(descriptors).saturating_mul(spread::PARTS_MAX);
    let mut steps: Vec<usize> = STEPS
        .into_iter()
        .filter(|step| *step <= plan.most)
        .map(|step| step.min(room))
        .collect();
    steps.dedup();
    steps
}

struct Entrant {
    spread: Spread,
    cost: Cost,
}

/// Measures `peers` at every step that `descriptors` allow.
pub(crate) fn measure(
    peers: &[&'static Peer],
    plan: Plan,
    descriptors: u64,
    core: usize,
    progress: &mut dyn FnMut(&str),
) -> Vec<Step> {
    let steps = steps(plan, descriptors);
    let steps = steps
        .into_iter()
        .map(|connections| WORKLOAD.of(connections));
    steps
        .flat_map(|step| interleaved(peers, &step, (plan, descriptors, core), progress))
        .collect()
}

fn interleaved(
    peers: &[&'static Peer],
    step: &Workload,
    (plan, descriptors, core): (Plan, u64, usize),
    progress: &mut dyn FnMut(&str),
) -> Vec<Step> {
    let connections = step.connections;
    let mut entrants: Vec<Result<Entrant, String>> = peers
        .iter()
        .map(|peer| {
            progress(&format!(
                "scale: {connections} connections to {}",
                peer.name
            ));
            enter(peer, step, (plan, descriptors, core))
        })
        .collect();
    for round in 0..plan.rounds {
        for place in 0..entrants.len() {
            let turn = (place + round) % entrants.len();
            let Ok(entrant) = &mut entrants[turn] else {
                continue;
            };
            progress(&format!(
                "scale: {connections} connections: round {} of {}: {}",
                round + 1,
                plan.rounds,
                peers[turn].name
            ));
            match entrant.spread.run(Task::Window(WINDOW, plan.round)) {
                Ok(round) => entrant.cost.rounds.push(round),
                Err(error) => entrants[turn] = Err(error),
            }
        }
    }
    peers
        .iter()
        .zip(entrants)
        .map(|(peer, entrant)| Step {
            peer,
            connections,
            outcome: entrant.map(|entrant| entrant.cost),
        })
        .collect()
}

fn enter(
    peer: &'static Peer,
    step: &Workload,
    (plan, descriptors, core): (Plan, u64, usize),
) -> Result<Entrant, String> {
    let mut spread = Spread::open(peer, step, descriptors, core)?;
    let bytes = spread.added_bytes()? as f64 / step.connections as f64;
    spread.run(Task::Window(WINDOW, plan.round / 4))?;
    let rounds = Vec::new();
    Ok(Entrant {
        spread,
        cost: Cost { rounds, bytes },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Plan = Plan {
        rounds: 1,
        round: Duration::from_millis(1),
        most: usize::MAX,
    };

    #[test]
    fn steps_end_where_descriptors_do() {
        assert_eq!(steps(ALL, 1_000_000), STEPS);
        assert_eq!(steps(ALL, 20_000), STEPS);
        assert_eq!(steps(ALL, 10_000), [1, 10, 100, 1000, 10_000, 28_908]);
        assert_eq!(steps(ALL, 1024), [1, 10, 100, 1000, 1980]);
    }

    #[test]
    fn a_glance_leaves_out_the_long_steps() {
        let plan = Plan { most: 1000, ..ALL };
        assert_eq!(steps(plan, 20_000), [1, 10, 100, 1000]);
    }
}
