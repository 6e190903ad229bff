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
use crate::measure::{clock, memory};
use crate::peers::process::Process;
use crate::peers::{Mode, Peer};
use crate::workload::{Measure, Workload};

/// Connections that are open before memory is read first, so that pools and areas exist by then.
const WARM_CONNECTIONS: usize = 64;

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
    let process = Process::start(peer, Mode::of(workload.kind), core)?;
    match workload.measure {
        Measure::Start => {
            Generator::connect(process.port, workload)?;
            let took = clock::monotonic().saturating_sub(process.launched);
            Ok(took.as_secs_f64() * 1000.0)
        }
        _ => idle_bytes(workload, &process),
    }
}

/// Resident bytes that each connection adds.
fn idle_bytes(workload: &Workload, process: &Process) -> Result<f64, String> {
    let few = Workload {
        connections: WARM_CONNECTIONS,
        ..*workload
    };
    let mut warm = Generator::connect(process.port, &few)?;
    warm.run(Duration::ZERO)?;
    let before = memory::resident_bytes(process.id())?;
    let mut idle = Generator::connect(process.port, workload)?;
    idle.run(Duration::ZERO)?;
    let after = memory::resident_bytes(process.id())?;
    // Both clients keep their connections open up to here.
    drop((warm, idle));
    Ok(after.saturating_sub(before) as f64 / workload.connections as f64)
}
