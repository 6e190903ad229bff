//! What a request and a connection cost, from one connection to as many as the system allows.
//!
//! At each step so many connections are open, all of them used: 64 requests are under way at a time and pass
//! through all connections in turn. A server whose cost grows with its connections shows here; the kernel's own
//! share grows too, as its structures leave the caches, which the floor's line tells.
//!
//! As elsewhere the peers take turns, round by round, if the generator may hold the connections to all of them at
//! once; else as many as it may, and the next of them afterwards.
//!
//! Invariants
//! - Bytes per connection are taken while each has had one answer, before it is used further.
//! - A step that the descriptor limit does not allow is cut to what it allows, and said.
//!
//! Not here: the drawing (`picture.rs`).

use std::time::Duration;

use crate::client::Client;
use crate::measure::cpu::cpu_time;
use crate::measure::memory;
use crate::peers::process::Process;
use crate::peers::{Mode, Peer};
use crate::rounds::Round;
use crate::workload::{Kind, Measure, Workload};

/// Connections at each step.
pub(crate) const STEPS: [usize; 6] = [1, 10, 100, 1000, 10_000, 50_000];

/// Requests under way at a time.
const WINDOW: usize = 64;

/// Descriptors that are needed for other things than connections.
const SPARE_DESCRIPTORS: u64 = 300;

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

/// What is asked at a step.
pub(crate) fn workload(connections: usize) -> Workload {
    Workload {
        connections,
        ..WORKLOAD
    }
}

/// The steps, with `descriptors` allowed to a process.
fn steps(plan: Plan, descriptors: u64) -> Vec<usize> {
    let room = descriptors.saturating_sub(SPARE_DESCRIPTORS + WINDOW as u64);
    let room = usize::try_from(room).unwrap_or(usize::MAX).max(1);
    let mut steps: Vec<usize> = STEPS
        .into_iter()
        .filter(|step| *step <= plan.most)
        .map(|step| step.min(room))
        .collect();
    steps.dedup();
    steps
}

/// How many peers may be measured at once.
fn at_once(connections: usize, descriptors: u64) -> usize {
    let room = usize::try_from(descriptors.saturating_sub(SPARE_DESCRIPTORS)).unwrap_or(usize::MAX);
    (room / (connections + WINDOW)).max(1)
}

struct Entrant {
    client: Client,
    process: Process,
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
    let mut all = Vec::new();
    for connections in steps(plan, descriptors) {
        for peers in peers.chunks(at_once(connections, descriptors)) {
            all.extend(interleaved(peers, connections, plan, core, progress));
        }
    }
    all
}

fn interleaved(
    peers: &[&'static Peer],
    connections: usize,
    plan: Plan,
    core: usize,
    progress: &mut dyn FnMut(&str),
) -> Vec<Step> {
    let mut entrants: Vec<Result<Entrant, String>> = peers
        .iter()
        .map(|peer| {
            progress(&format!(
                "scale: {connections} connections to {}",
                peer.name
            ));
            enter(peer, connections, plan, core)
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
            match entrant.run(plan.round) {
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
    connections: usize,
    plan: Plan,
    core: usize,
) -> Result<Entrant, String> {
    let process = Process::start(peer, Mode::Plain, core)?;
    // Pools and areas exist by the time that memory is read first.
    let mut warm = Client::connect(process.port, &workload(WINDOW))?;
    warm.run(plan.round / 4)?;
    let before = memory::resident_bytes(process.id())?;
    let client = Client::connect(process.port, &workload(connections))?;
    let after = memory::resident_bytes(process.id())?;
    drop(warm);
    let mut entrant = Entrant {
        client,
        process,
        cost: Cost {
            rounds: Vec::new(),
            bytes: after.saturating_sub(before) as f64 / connections as f64,
        },
    };
    entrant.run(plan.round / 4)?;
    Ok(entrant)
}

impl Entrant {
    fn run(&mut self, duration: Duration) -> Result<Round, String> {
        let before = cpu_time(self.process.id())?;
        let tally = self.client.run_window(WINDOW, duration)?;
        let cpu = cpu_time(self.process.id())?.since(before);
        Ok(Round {
            answers: tally.answers,
            wall: tally.wall,
            cpu,
        })
    }
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
        assert_eq!(steps(ALL, 20_000), [1, 10, 100, 1000, 10_000, 19_636]);
        assert_eq!(steps(ALL, 1024), [1, 10, 100, 660]);
    }

    #[test]
    fn no_more_peers_at_once_than_the_generator_may_hold_connections_to() {
        for (connections, descriptors, peers) in [
            (1000, 20_000, 18),
            (10_000, 20_000, 1),
            (19_636, 20_000, 1),
            (50_000, 1_000_000, 19),
        ] {
            assert_eq!(at_once(connections, descriptors), peers, "{connections}");
        }
    }

    #[test]
    fn a_glance_leaves_out_the_long_steps() {
        let plan = Plan { most: 1000, ..ALL };
        assert_eq!(steps(plan, 20_000), [1, 10, 100, 1000]);
    }
}
