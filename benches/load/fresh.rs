//! Figures that a process gives once: memory per idle connection, and the time from its start to
//! its first answer.
//!
//! Each sample is a fresh process, so that none inherits what an earlier one left in its allocator.
//! Peers take turns, sample by sample, as in `rounds.rs`; the median over the samples is reported.
//!
//! Invariants
//! - Idle connections are alive: each has had a right answer, and is still open while memory is
//!   read.
//!
//! Not here: CPU time (`rounds.rs`).

use std::time::Duration;

use crate::client::Generator;
use crate::client::apart::Task;
use crate::measure::{clock, machine};
use crate::peers::process::Process;
use crate::peers::{Mode, Peer};
use crate::spread::Spread;
use crate::workload::{Measure, Workload};

/// All samples of one peer, or why there are none.
#[derive(Debug)]
pub(crate) struct Samples {
    pub(crate) peer: &'static Peer,
    pub(crate) outcome: Result<Vec<f64>, String>,
}

/// Takes `count` samples of each peer on `core`; `progress` is told what runs now.
pub(crate) fn measure(
    workload: &Workload,
    peers: &[&'static Peer],
    count: usize,
    core: usize,
    progress: &mut dyn FnMut(&str),
) -> Vec<Samples> {
    let mut all: Vec<Samples> = peers
        .iter()
        .map(|peer| Samples {
            peer,
            outcome: Ok(Vec::new()),
        })
        .collect();
    for sample in 0..count {
        for place in 0..all.len() {
            let turn = (place + sample) % peers.len();
            let Samples { peer, outcome } = &mut all[turn];
            let Ok(values) = outcome else { continue };
            progress(&format!(
                "{}: sample {} of {count}: {}",
                workload.name,
                sample + 1,
                peer.name
            ));
            match take(workload, peer, core) {
                Ok(value) => values.push(value),
                Err(error) => *outcome = Err(error),
            }
        }
    }
    all
}

fn take(workload: &Workload, peer: &Peer, core: usize) -> Result<f64, String> {
    match workload.measure {
        Measure::Start => {
            let process = Process::start(peer, Mode::of(workload.kind), core)?;
            Generator::connect(process.port, workload)?;
            let took = clock::monotonic().saturating_sub(process.launched);
            Ok(took.as_secs_f64() * 1000.0)
        }
        _ => idle_bytes(workload, peer, core),
    }
}

/// Resident bytes that each connection adds, of however many processes hold them.
fn idle_bytes(workload: &Workload, peer: &Peer, core: usize) -> Result<f64, String> {
    let mut spread = Spread::open(peer, workload, machine::file_limit(), core)?;
    spread.run(Task::All(Duration::ZERO))?;
    Ok(spread.added_bytes()? as f64 / workload.connections as f64)
}
