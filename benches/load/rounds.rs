//! Interleaved rounds: every peer runs in every round, so that what the machine does meanwhile hits
//! all of them.
//!
//! ```text
//! start all peers, connect, warm each up
//! round 1:  floor  hyper  core  huki
//! round 2:  hyper  core  huki  floor        each for a few hundred ms, from idle to idle
//! round 3:  core …
//! ```
//!
//! On a shared machine the speed of everything drifts; a ratio of two figures from the same round
//! drifts far less. So ratios are taken per round and the median over the rounds is reported
//! (`report.rs`).
//!
//! Invariants
//! - A peer that fails leaves its error in its series and takes no further part; the others go on.
//! - Every whole series has the same number of rounds, so the n-th of one belongs beside the n-th
//!   of another.
//!
//! Not here: reading CPU time (`measure/cpu.rs`), the exchange (`client/`).

use std::time::Duration;

use crate::client::Generator;
use crate::client::latency::{Histogram, Percentiles};
use crate::measure::cpu::{CpuTime, cpu_time};
use crate::measure::memory;
use crate::peers::process::Process;
use crate::peers::{Mode, Peer};
use crate::workload::Workload;

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) round: Duration,
    /// Long enough for just-in-time compilers.
    pub(crate) warm_up: Duration,
    /// Fresh processes per peer, for what is sampled once per process (`fresh.rs`).
    pub(crate) samples: usize,
    /// Whether latencies are recorded.
    pub(crate) latencies: bool,
}

/// One peer's part of one round.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round {
    pub(crate) answers: u64,
    pub(crate) wall: Duration,
    pub(crate) cpu: CpuTime,
}

impl Round {
    /// Microseconds of the server's CPU time per answer.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.cpu.total_ns as f64 / 1000.0 / self.answers as f64
    }
}

/// All rounds of one peer, or why there are none.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) peer: &'static Peer,
    pub(crate) outcome: Result<Vec<Round>, String>,
    /// Of all rounds together, if asked for.
    pub(crate) latencies: Option<Percentiles>,
    /// The most memory that the process took, in bytes; 0 without figures.
    pub(crate) peak_bytes: u64,
}

/// A peer that takes part.
struct Entrant {
    client: Generator,
    process: Process,
}

/// Runs `workload` against `peers`, each in a fresh process on `core`; `progress` is told what runs
/// now.
pub(crate) fn measure(
    workload: &Workload,
    peers: &[&'static Peer],
    plan: Plan,
    core: usize,
    progress: &mut dyn FnMut(&str),
) -> Vec<Series> {
    let mut entrants = Vec::new();
    let mut series = Vec::new();
    for peer in peers {
        progress(&format!("{}: warming up {}", workload.name, peer.name));
        let entrant = enter(peer, workload, plan, core);
        series.push(Series {
            peer,
            outcome: entrant.as_ref().map(|_| Vec::new()).map_err(Clone::clone),
            latencies: None,
            peak_bytes: 0,
        });
        entrants.push(entrant.ok());
    }
    for round in 0..plan.rounds {
        for place in 0..entrants.len() {
            let turn = (place + round) % entrants.len();
            let Some(entrant) = &mut entrants[turn] else {
                continue;
            };
            progress(&format!(
                "{}: round {} of {}: {}",
                workload.name,
                round + 1,
                plan.rounds,
                peers[turn].name
            ));
            match (entrant.run(plan.round), &mut series[turn].outcome) {
                (Ok(done), Ok(rounds)) => rounds.push(done),
                (Err(error), outcome) => {
                    *outcome = Err(error);
                    entrants[turn] = None;
                }
                (Ok(_), Err(_)) => {}
            }
        }
    }
    for (series, entrant) in series.iter_mut().zip(&entrants) {
        series.latencies = entrant
            .as_ref()
            .and_then(|entrant| entrant.client.latencies())
            .map(Histogram::percentiles);
        series.peak_bytes = entrant
            .as_ref()
            .and_then(|entrant| memory::peak_bytes(entrant.process.id()).ok())
            .unwrap_or_default();
    }
    series
}

fn enter(
    peer: &'static Peer,
    workload: &Workload,
    plan: Plan,
    core: usize,
) -> Result<Entrant, String> {
    let process = Process::start(peer, Mode::of(workload.kind), core)?;
    let client = Generator::connect(process.port, workload)?;
    let mut entrant = Entrant { client, process };
    entrant.run(plan.warm_up)?;
    if plan.latencies {
        entrant.client.record_latencies();
    }
    Ok(entrant)
}

impl Entrant {
    fn run(&mut self, duration: Duration) -> Result<Round, String> {
        let before = cpu_time(self.process.id())?;
        let tally = self.client.run(duration)?;
        let cpu = cpu_time(self.process.id())?.since(before);
        Ok(Round {
            answers: tally.answers,
            wall: tally.wall,
            cpu,
        })
    }
}
