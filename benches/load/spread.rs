//! One peer and the connections to it, spread over as many processes as the descriptor limit asks for.
//!
//! ```text
//!  50,000 connections, 20,000 descriptors to a process
//!
//!  generator ──16,667──▶ server        three of each, all on the same core,
//!  generator ──16,667──▶ server        each server on a port of its own
//!  generator ──16,666──▶ server
//! ```
//!
//! What a limit allows to one process is one pair, as everywhere else. Every peer is spread alike. The kernel holds
//! all connections at once, and the caches are shared by all; each server holds its part.
//!
//! Invariants
//! - Connections, memory and CPU time are those of all parts together.
//! - Every part has the same number of connections, but for one.
//!
//! Not here: when they run (`scale.rs`, `fresh.rs`).

use std::time::Duration;

use crate::client::Client;
use crate::client::apart::{Apart, Task};
use crate::measure::cpu::{self, CpuTime, cpu_time};
use crate::measure::memory;
use crate::peers::process::Process;
use crate::peers::{Mode, Peer};
use crate::rounds::Round;
use crate::workload::Workload;

/// The most processes that a server or the generator is spread over.
pub(crate) const PARTS_MAX: usize = 3;

/// Descriptors that are needed for other things than connections.
const SPARE_DESCRIPTORS: u64 = 300;

/// Connections that are open before memory is read first, so that pools and areas exist by then.
pub(crate) const WARM_CONNECTIONS: usize = 64;

/// How many connections one process may hold of the `descriptors` allowed to it.
pub(crate) fn room(descriptors: u64) -> usize {
    let room = descriptors.saturating_sub(SPARE_DESCRIPTORS + WARM_CONNECTIONS as u64);
    usize::try_from(room).unwrap_or(usize::MAX).max(1)
}

/// How `connections` are divided.
fn divided(connections: usize, descriptors: u64) -> Vec<usize> {
    let parts = connections.div_ceil(room(descriptors)).clamp(1, PARTS_MAX);
    let (each, more) = (connections / parts, connections % parts);
    (0..parts)
        .map(|part| each + usize::from(part < more))
        .collect()
}

/// Servers that run, and their connections.
pub(crate) struct Spread {
    servers: Vec<Process>,
    generators: Vec<Apart>,
    /// Resident bytes of all servers before the connections came.
    before: u64,
}

impl Spread {
    /// Starts `peer` on `core`, warms it up and opens the workload's connections, each of which has had the answer
    /// to its greeting then.
    pub(crate) fn open(
        peer: &Peer,
        workload: &Workload,
        descriptors: u64,
        core: usize,
    ) -> Result<Self, String> {
        let sizes = divided(workload.connections, descriptors);
        let servers: Result<Vec<Process>, String> = sizes
            .iter()
            .map(|_| Process::start(peer, Mode::of(workload.kind), core))
            .collect();
        let servers = servers?;
        let mut warm = Vec::new();
        for server in &servers {
            let mut client = Client::connect(server.port, &workload.of(WARM_CONNECTIONS))?;
            client.run(Duration::ZERO)?;
            warm.push(client);
        }
        let ports: Vec<u16> = servers.iter().map(|server| server.port).collect();
        let sizes: Vec<(u16, usize)> = ports.into_iter().zip(sizes).collect();
        Self::connect(servers, workload, &sizes, &[core])
    }

    /// Opens, by one generator each, so many of the workload's connections to these ports of `servers`.
    pub(crate) fn connect(
        servers: Vec<Process>,
        workload: &Workload,
        sizes: &[(u16, usize)],
        cores: &[usize],
    ) -> Result<Self, String> {
        let before = resident_bytes(&servers)?;
        let generators: Result<Vec<Apart>, String> = sizes
            .iter()
            .map(|(port, connections)| Apart::start(*port, &workload.of(*connections), cores))
            .collect();
        let mut generators = generators?;
        for generator in &mut generators {
            generator.connected()?;
        }
        Ok(Self {
            servers,
            generators,
            before,
        })
    }

    /// Resident bytes that all connections together have added.
    pub(crate) fn added_bytes(&self) -> Result<u64, String> {
        Ok(resident_bytes(&self.servers)?.saturating_sub(self.before))
    }

    /// Has every generator do `task`, at the same time.
    pub(crate) fn run(&mut self, task: Task) -> Result<Round, String> {
        let before = self.cpu_time()?;
        for generator in &mut self.generators {
            generator.begin(task)?;
        }
        let mut round = Round::default();
        for generator in &mut self.generators {
            let tally = generator.end()?;
            round.answers += tally.answers;
            round.wall = round.wall.max(tally.wall);
        }
        round.cpu = self.cpu_time()?.since(before);
        Ok(round)
    }

    fn cpu_time(&self) -> Result<CpuTime, String> {
        let times = self.servers.iter().map(|server| cpu_time(server.id()));
        times.sum()
    }

    /// CPU time of each thread of the first server, in nanoseconds.
    pub(crate) fn threads(&self) -> Result<Vec<u64>, String> {
        let server = self.servers.first().ok_or("no server")?;
        cpu::thread_ns(server.id())
    }
}

fn resident_bytes(servers: &[Process]) -> Result<u64, String> {
    let servers = servers.iter();
    servers
        .map(|server| memory::resident_bytes(server.id()))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_process_may_hold_is_not_spread() {
        assert_eq!(divided(19_636, 20_000), [19_636]);
        assert_eq!(divided(50_000, 1_000_000), [50_000]);
    }

    #[test]
    fn parts_are_equal_and_no_more_than_there_may_be() {
        assert_eq!(divided(50_000, 20_000), [16_667, 16_667, 16_666]);
        assert_eq!(divided(50_000, 1024).len(), PARTS_MAX);
    }
}
