//! Whether two workers of one process serve with the CPU time per answer of one.
//!
//! Three servers take turns, round by round: one worker; two processes of one worker each; one process of two
//! workers. The second has what any two threads cost on this machine (caches, wake-ups, the scheduler), so the third
//! beside it shows what is ours: mailboxes, and what threads of a process share in the kernel.
//!
//! Each worker has the same number of connections, so that its turns are as full as another's: connections are handed
//! to the worker with the fewest (`balance = "connections"`). A publication reaches all sockets of both workers, so
//! the number of sockets is what stays, and two processes would be two rooms: they are left out.
//!
//! Invariants
//! - The cores are the same for all: either one, which generators and servers share, or two, where the system places
//!   threads as it likes.
//! - If one of two workers uses more than [`BUSIER_MAX`] of the CPU time, it is an error: connections were not shared.
//!
//! Not here: the generators (`client/apart.rs`).

use std::time::Duration;

use crate::client::apart::Task;
use crate::client::{Client, page};
use crate::extra::{Extra, Stage, Table};
use crate::measure::cpu;
use crate::peers::process::Process;
use crate::peers::{Mode, Peer, WORKERS, script};
use crate::report::{Ratio, median, ratio};
use crate::rounds::Round;
use crate::spread::{Spread, WARM_CONNECTIONS};
use crate::workload::{Kind, WORKLOADS, Workload};

/// `load workers`: requests.
pub(crate) const REQUESTS: Extra = Extra {
    name: "workers",
    title: "CPU time of a request, by workers",
    measure: requests,
};

/// `load workers-publish`: publications.
pub(crate) const PUBLICATIONS: Extra = Extra {
    name: "workers-publish",
    title: "CPU time of a delivery to 10,000 sockets, by workers",
    measure: publications,
};

/// Sockets that hear each publication.
const SOCKETS: usize = 10_000;

/// The share of the CPU time that the busier of two workers may have.
const BUSIER_MAX: f64 = 0.6;

/// How often it is looked whether the second worker has come up, a few milliseconds each.
const TRIES: u32 = 1000;

/// One of those that take turns.
#[derive(Clone, Copy)]
struct Shape {
    processes: usize,
    peer: &'static Peer,
    /// Each with as many connections as the workload says.
    generators: usize,
}

const ONE: Shape = Shape {
    processes: 1,
    peer: &WORKERS[0],
    generators: 1,
};

const TWO_PROCESSES: Shape = Shape {
    processes: 2,
    peer: &WORKERS[0],
    generators: 2,
};

const TWO: Shape = Shape {
    processes: 1,
    peer: &WORKERS[1],
    generators: 2,
};

/// What the rounds of one workload on some cores have given.
struct Outcome {
    /// In the order of the shapes.
    rounds: Vec<Vec<Round>>,
    /// The busier worker's share, where there are two.
    busier: f64,
}

fn requests(stage: &mut Stage<'_>) -> Result<Table, String> {
    let mut table = Table::new(&[
        "CPU us per answer",
        "1 worker",
        "2 processes",
        "2 workers",
        "2 workers / 1",
        "2 workers / 2 processes",
        "busier worker",
    ]);
    let shapes = [ONE, TWO_PROCESSES, TWO];
    for name in ["get", "echo-32"] {
        let workload = by_name(name)?;
        for cores in placements(stage) {
            let what = format!("{}, {}", words(workload), said(&cores));
            let outcome = measure(stage, &what, workload, &shapes, &cores)?;
            let [one, processes, two] = outcome.rounds.as_slice() else {
                return Err("a shape is missing".to_owned());
            };
            table.row([
                what,
                micros(one),
                micros(processes),
                micros(two),
                shown(ratio(two, one)),
                shown(ratio(two, processes)),
                format!("{:.0} %", outcome.busier * 100.0),
            ]);
        }
    }
    Ok(table)
}

fn publications(stage: &mut Stage<'_>) -> Result<Table, String> {
    let mut table = Table::new(&[
        "CPU us per delivery",
        "1 worker",
        "2 workers",
        "2 workers / 1",
        "busier worker",
    ]);
    let shapes = [
        ONE,
        Shape {
            generators: 1,
            ..TWO
        },
    ];
    let workload = by_name("room-1000")?.of(SOCKETS);
    for cores in placements(stage) {
        let what = format!("32 B to 10,000 sockets, {}", said(&cores));
        let outcome = measure(stage, &what, &workload, &shapes, &cores)?;
        let [one, two] = outcome.rounds.as_slice() else {
            return Err("a shape is missing".to_owned());
        };
        table.row([
            what,
            micros(one),
            micros(two),
            shown(ratio(two, one)),
            format!("{:.0} %", outcome.busier * 100.0),
        ]);
    }
    Ok(table)
}

/// One core, and two if there are.
fn placements(stage: &Stage<'_>) -> Vec<Vec<usize>> {
    let mut placements = vec![vec![stage.cores[0]]];
    if let Some(two) = stage.cores.get(..2) {
        placements.push(two.to_vec());
    }
    placements
}

fn measure(
    stage: &mut Stage<'_>,
    what: &str,
    workload: &Workload,
    shapes: &[Shape],
    cores: &[usize],
) -> Result<Outcome, String> {
    script::ready()?;
    let (rounds, long) = match stage.is_quick {
        true => (3, Duration::from_millis(100)),
        false => (21, Duration::from_millis(300)),
    };
    let mut entrants = Vec::new();
    for shape in shapes {
        (stage.progress)(&format!("{what}: {} connect", shape.peer.name));
        let mut spread = enter(*shape, workload, cores)?;
        spread.run(Task::All(long))?;
        entrants.push(spread);
    }
    let before = threads(&entrants)?;
    let mut all = vec![Vec::new(); entrants.len()];
    for round in 0..rounds {
        (stage.progress)(&format!("{what}: round {} of {rounds}", round + 1));
        for place in 0..entrants.len() {
            let turn = (place + round) % entrants.len();
            all[turn].push(entrants[turn].run(Task::All(long))?);
        }
    }
    let after = threads(&entrants)?;
    let busier = busier(&before, &after);
    if busier > BUSIER_MAX {
        return Err(format!(
            "{what}: one of two workers did {:.0} % of the work",
            busier * 100.0
        ));
    }
    Ok(Outcome {
        rounds: all,
        busier,
    })
}

fn enter(shape: Shape, workload: &Workload, cores: &[usize]) -> Result<Spread, String> {
    let mode = match workload.kind {
        Kind::Room { .. } => Mode::Room,
        _ => Mode::Plain,
    };
    let servers: Result<Vec<Process>, String> = (0..shape.processes)
        .map(|_| Process::start_on(shape.peer, mode, cores))
        .collect();
    let servers = servers?;
    for server in &servers {
        warm_up(server, workload, shape)?;
    }
    let ports = servers.iter().map(|server| server.port).cycle();
    let sizes: Vec<(u16, usize)> = ports
        .take(shape.generators)
        .map(|port| (port, workload.connections))
        .collect();
    let spread = Spread::connect(servers, workload, &sizes, cores)?;
    for (port, connections) in sizes {
        await_listeners(port, workload.kind, connections)?;
    }
    Ok(spread)
}

/// Has every worker serve. They start side by side, and the one that tells the port may come up before the other: it is
/// asked until both have answered.
fn warm_up(server: &Process, workload: &Workload, shape: Shape) -> Result<(), String> {
    for _ in 0..TRIES {
        let before = cpu::thread_ns(server.id())?;
        let mut client = Client::connect(server.port, &workload.of(WARM_CONNECTIONS))?;
        await_listeners(server.port, workload.kind, WARM_CONNECTIONS)?;
        client.run(Duration::ZERO)?;
        drop(client);
        await_listeners(server.port, workload.kind, 0)?;
        let after = cpu::thread_ns(server.id())?;
        let are_all_up = before.len() == after.len() && busier(&before, &after) <= BUSIER_MAX;
        if shape.peer.name == ONE.peer.name || are_all_up {
            return Ok(());
        }
    }
    Err("the second worker does not serve".to_owned())
}

/// Waits until so many sockets of a room hear: one that is open may have to wait for its worker's turn to be told of
/// what others say.
fn await_listeners(port: u16, kind: Kind, count: usize) -> Result<(), String> {
    if !matches!(kind, Kind::Room { .. }) {
        return Ok(());
    }
    let mut heard = String::new();
    for _ in 0..TRIES {
        heard = page::get(port, "/listeners")?;
        if heard == count.to_string() {
            return Ok(());
        }
    }
    Err(format!("{heard} sockets hear, not {count}"))
}

/// CPU time of the threads of the last one, which has two workers.
fn threads(entrants: &[Spread]) -> Result<Vec<u64>, String> {
    entrants.last().map_or(Ok(Vec::new()), Spread::threads)
}

/// The share of the busier of two threads.
fn busier(before: &[u64], after: &[u64]) -> f64 {
    let used = before.iter().zip(after);
    let used: Vec<u64> = used.map(|(before, after)| after - before).collect();
    let most = used.iter().max().copied().unwrap_or_default();
    most as f64 / used.iter().sum::<u64>().max(1) as f64
}

fn by_name(name: &str) -> Result<&'static Workload, String> {
    let found = WORKLOADS.iter().find(|workload| workload.name == name);
    found.ok_or_else(|| format!("no workload {name}"))
}

fn words(workload: &Workload) -> &'static str {
    match workload.kind {
        Kind::Echo { .. } => "echo of 32 B, 64 sockets to a worker",
        _ => "GET, 64 connections to a worker",
    }
}

fn said(cores: &[usize]) -> &'static str {
    match cores.len() {
        1 => "one core",
        _ => "two cores",
    }
}

fn micros(rounds: &[Round]) -> String {
    format!("{:.2}", median(rounds.iter().map(Round::cpu_us)))
}

fn shown(ratio: Ratio) -> String {
    format!("{:.2} ±{:.2}", ratio.median, ratio.spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busier_of_two_threads_is_found_among_idle_ones() {
        assert_eq!(busier(&[0, 10, 10], &[0, 40, 80]), 0.7);
        assert_eq!(busier(&[], &[]), 0.0);
    }
}
