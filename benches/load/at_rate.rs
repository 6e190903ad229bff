//! What a client waits at half and at nine tenths of what a server can do, each server by its own measure.
//!
//! ```text
//! each round, each peer:  closed loop 300 ms ──▶ capacity ──▶ open loop at 50 % ──▶ open loop at 90 %
//! ```
//!
//! Capacity is measured anew in every round, right before: on a shared machine it drifts. Each percentile is the
//! median of those of the rounds, so a moment in which the machine did something else is not the tail of a server.
//!
//! Invariants
//! - Latency runs from when a request was due (`client/open.rs`).
//! - Generator and server have a core each; with a single core there is nothing to measure.
//!
//! Not here: the drawing (`picture.rs`).

use std::time::Duration;

use crate::client::latency::{Histogram, Percentiles};
use crate::client::{Arrivals, Client};
use crate::peers::process::Process;
use crate::peers::{Mode, Peer};
use crate::report::median;
use crate::workload::{Kind, Measure, Workload};

/// The loads, as hundredths of the capacity.
pub(crate) const LOADS: [u32; 2] = [50, 90];

/// What is asked; also its names in the records, where the load follows.
pub(crate) const WORKLOAD: Workload = Workload {
    name: "latency",
    title: "Latency of a GET, two cores, 64 connections",
    measure: Measure::Latency,
    kind: Kind::Get,
    connections: 64,
    in_flight: 1,
    cores: 2,
};

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) capacity: Duration,
    pub(crate) load: Duration,
}

/// One peer at one load.
#[derive(Debug)]
pub(crate) struct AtLoad {
    pub(crate) load: u32,
    /// Requests per second, the median over the rounds.
    pub(crate) rate: f64,
    pub(crate) latencies: Percentiles,
}

/// One peer, or why there are no figures.
#[derive(Debug)]
pub(crate) struct Latencies {
    pub(crate) peer: &'static Peer,
    pub(crate) outcome: Result<Vec<AtLoad>, String>,
}

struct Entrant {
    client: Client,
    /// Ends with the measurement.
    _process: Process,
    rates: [Vec<f64>; LOADS.len()],
    latencies: [Vec<Percentiles>; LOADS.len()],
}

/// Measures `peers` on `core`; `progress` is told what runs now.
pub(crate) fn measure(
    peers: &[&'static Peer],
    plan: Plan,
    core: usize,
    progress: &mut dyn FnMut(&str),
) -> Vec<Latencies> {
    let mut entrants: Vec<Result<Entrant, String>> = peers
        .iter()
        .map(|peer| {
            progress(&format!("latency: warming up {}", peer.name));
            enter(peer, plan, core)
        })
        .collect();
    for round in 0..plan.rounds {
        for place in 0..entrants.len() {
            let turn = (place + round) % entrants.len();
            let Ok(entrant) = &mut entrants[turn] else {
                continue;
            };
            progress(&format!(
                "latency: round {} of {}: {}",
                round + 1,
                plan.rounds,
                peers[turn].name
            ));
            if let Err(error) = entrant.round(plan) {
                entrants[turn] = Err(error);
            }
        }
    }
    peers
        .iter()
        .zip(entrants)
        .map(|(peer, entrant)| Latencies {
            peer,
            outcome: entrant.map(Entrant::finish),
        })
        .collect()
}

fn enter(peer: &'static Peer, plan: Plan, core: usize) -> Result<Entrant, String> {
    let process = Process::start(peer, Mode::Plain, core)?;
    let mut client = Client::connect(process.port, &WORKLOAD)?;
    // As long as a compiler of a script may want.
    client.run(plan.load)?;
    Ok(Entrant {
        client,
        _process: process,
        rates: [const { Vec::new() }; LOADS.len()],
        latencies: [const { Vec::new() }; LOADS.len()],
    })
}

impl Entrant {
    fn round(&mut self, plan: Plan) -> Result<(), String> {
        let tally = self.client.run(plan.capacity)?;
        let capacity = tally.answers as f64 / tally.wall.as_secs_f64();
        for (at, load) in LOADS.into_iter().enumerate() {
            let rate = capacity * f64::from(load) / 100.0;
            let arrivals = Arrivals::new(rate, plan.load);
            let mut latencies = Histogram::new();
            self.client.run_at(arrivals, &mut latencies)?;
            self.latencies[at].push(latencies.percentiles());
            self.rates[at].push(arrivals.count() as f64 / plan.load.as_secs_f64());
        }
        Ok(())
    }

    fn finish(self) -> Vec<AtLoad> {
        let measured = self.rates.into_iter().zip(self.latencies);
        LOADS
            .into_iter()
            .zip(measured)
            .map(|(load, (rates, latencies))| AtLoad {
                load,
                rate: median(rates.into_iter()),
                latencies: middle(&latencies),
            })
            .collect()
    }
}

/// Each percentile's median over the rounds; of two in the middle the lower.
fn middle(rounds: &[Percentiles]) -> Percentiles {
    std::array::from_fn(|point| {
        let mut values: Vec<u64> = rounds.iter().map(|round| round[point]).collect();
        values.sort_unstable();
        let middle = values.len().saturating_sub(1) / 2;
        values.get(middle).copied().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::latency::POINTS;

    #[test]
    fn one_round_that_was_disturbed_is_not_the_tail() {
        let calm = [5; POINTS.len()];
        let disturbed = [90_000; POINTS.len()];
        assert_eq!(middle(&[calm, disturbed, calm]), calm);
        assert_eq!(middle(&[]), [0; POINTS.len()]);
    }
}
