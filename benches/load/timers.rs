//! How late `task.wait` comes back in a server that is asked meanwhile.
//!
//! One `huki run benches/luau/timers.luau`: sixteen coroutines wait 10 ms over and over and note by how much they come
//! back too late. Requests come in an open loop (`client/open.rs`) at shares of what the server can do, which is found
//! first; the rounds of all shares take turns, and the median over the rounds is shown.
//!
//! Invariants
//! - A share is of the capacity of a moment ago, so a machine that others use is asked no more than it can do.
//! - Server and generator have a core each, if there are two.
//!
//! Not here: that a timer fires in the turn in which it is due (`luau-binding/tests/embed.rs`).

use std::time::Duration;

use crate::client::latency::Histogram;
use crate::client::{Arrivals, Client, page};
use crate::extra::{Extra, Stage, Table};
use crate::measure::{clock, cpu};
use crate::peers::process::{self, Process};
use crate::peers::{Mode, TIMED, script};
use crate::report::median;
use crate::workload::{Kind, Measure, Workload};

/// `load timers`.
pub(crate) const TIMERS: Extra = Extra {
    name: "timers",
    title: "How late task.wait(0.01) comes back, by load",
    measure,
};

/// Hundredths of the capacity that are asked.
const LOADS: [u32; 4] = [0, 30, 60, 90];

/// What is asked.
const WORKLOAD: Workload = Workload {
    name: "timers",
    title: TIMERS.title,
    measure: Measure::Latency,
    kind: Kind::Get,
    connections: 64,
    in_flight: 1,
    cores: 2,
};

/// Figures that the server tells of a round: p50, p99, p99.9, most.
const FIGURES: usize = 4;

/// The rounds of one load.
#[derive(Default)]
struct AtLoad {
    rates: Vec<f64>,
    /// Cores that the server kept busy.
    busy: Vec<f64>,
    waits: u64,
    /// Microseconds.
    lateness: [Vec<f64>; FIGURES],
}

fn measure(stage: &mut Stage<'_>) -> Result<Table, String> {
    script::ready()?;
    let (rounds, long) = match stage.is_quick {
        true => (3, Duration::from_millis(300)),
        false => (9, Duration::from_millis(1000)),
    };
    process::pin(*stage.cores.last().ok_or("no core")?)?;
    let server = Process::start(&TIMED, Mode::Plain, stage.cores[0])?;
    let mut client = Client::connect(server.port, &WORKLOAD)?;
    client.run(long)?;
    let mut loads = LOADS.map(|_| AtLoad::default());
    for round in 0..rounds {
        (stage.progress)(&format!("timers: round {} of {rounds}", round + 1));
        for place in 0..LOADS.len() {
            let turn = (place + round) % LOADS.len();
            let tally = client.run(long / 5)?;
            let capacity = tally.answers as f64 / tally.wall.as_secs_f64();
            let rate = capacity * f64::from(LOADS[turn]) / 100.0;
            loads[turn].round(&server, &mut client, (rate, long))?;
        }
    }
    Ok(table(&loads))
}

impl AtLoad {
    fn round(
        &mut self,
        server: &Process,
        client: &mut Client,
        (rate, long): (f64, Duration),
    ) -> Result<(), String> {
        page::get(server.port, "/lateness")?; // forgets what was before
        let (before, began) = (cpu::cpu_time(server.id())?, clock::monotonic());
        // A few requests, the last of whose answers ends the round: nothing else would.
        let arrivals = Arrivals::new(rate.max(10.0 / long.as_secs_f64()), long);
        client.run_at(arrivals, &mut Histogram::new())?;
        let took = (clock::monotonic() - began).as_secs_f64();
        let used = cpu::cpu_time(server.id())?.since(before);
        let told = page::get(server.port, "/lateness")?;
        let numbers: Vec<f64> = told
            .split(' ')
            .filter_map(|word| word.parse().ok())
            .collect();
        let Some((waits, figures)) = numbers.split_first() else {
            return Err(format!("/lateness: {told:?}"));
        };
        if figures.len() != FIGURES || *waits < 1.0 {
            return Err(format!("/lateness: {told:?}"));
        }
        self.rates.push(arrivals.count() as f64 / took);
        self.busy.push(used.total_ns as f64 / 1e9 / took);
        // A count of whole waits.
        self.waits += Duration::from_secs_f64(*waits).as_secs();
        for (all, figure) in self.lateness.iter_mut().zip(figures) {
            all.push(*figure);
        }
        Ok(())
    }
}

fn table(loads: &[AtLoad]) -> Table {
    let mut table = Table::new(&[
        "load",
        "requests per s",
        "CPU of the server, cores",
        "waits",
        "late by, p50, us",
        "p99, us",
        "p99.9, us",
        "most, us",
    ]);
    for (at, load) in loads.iter().zip(LOADS) {
        let mid = |values: &[f64]| median(values.iter().copied());
        let [p50, p99, p999, most] = &at.lateness;
        table.row([
            match load {
                0 => "nothing".to_owned(),
                load => format!("{load} %"),
            },
            format!("{:.0}", mid(&at.rates)),
            format!("{:.2}", mid(&at.busy)),
            at.waits.to_string(),
            format!("{:.0}", mid(p50)),
            format!("{:.0}", mid(p99)),
            format!("{:.0}", mid(p999)),
            format!("{:.0}", most.iter().copied().fold(0.0, f64::max)),
        ]);
    }
    table
}
