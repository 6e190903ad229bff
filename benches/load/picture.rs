//! Which pictures a run has, and what stands in them.
//!
//! One with bars for each workload, two with lines for the latencies (at half and at nine tenths of the
//! capacity) and two for the scale (CPU time, bytes).
//!
//! Not here: how they are drawn (`chart/`).

use std::fs;
use std::path::Path;

use crate::at_rate::{LOADS, Latencies};
use crate::chart::{Bar, Bars, Line, Lines, Tone, figure, grouped, microseconds};
use crate::client::latency::POINTS;
use crate::fresh::Samples;
use crate::recorded::{Results, Run};
use crate::report::{median, quartiles, summarise};
use crate::rounds::{Round, Series};
use crate::scale::Step;
use crate::workload::{Measure, Workload};

/// Below so many connections, a page of memory hides what one takes.
const BYTES_FROM: usize = 1000;

/// Writes every picture of `run` into `folder` and returns their names.
pub(crate) fn write(run: &Run, folder: &Path) -> Result<Vec<String>, String> {
    let fail = |error| format!("{}: {error}", folder.display());
    fs::create_dir_all(folder).map_err(fail)?;
    let mut names = Vec::new();
    for (name, svg) in all(run) {
        fs::write(folder.join(format!("{name}.svg")), svg).map_err(fail)?;
        names.push(name);
    }
    Ok(names)
}

fn all(run: &Run) -> Vec<(String, String)> {
    let mut pictures = Vec::new();
    for (workload, results) in &run.results {
        let name = workload.name;
        match results {
            Results::CpuTime(all) => {
                pictures.push((name.to_owned(), cpu_time(workload, all).svg()))
            }
            Results::Samples(all) => pictures.push((name.to_owned(), samples(workload, all).svg())),
            Results::Latency(all) => {
                for load in LOADS {
                    pictures.push((format!("{name}-{load}"), latency(all, load).svg()));
                }
            }
            Results::Scale(all) => {
                pictures.push((format!("{name}-cpu"), scale_cpu(all).svg()));
                pictures.push((format!("{name}-bytes"), scale_bytes(all).svg()));
            }
        }
    }
    pictures
}

fn cpu_time(workload: &Workload, all: &[Series]) -> Bars {
    let bars = all.iter().filter_map(|series| {
        let rounds = series.outcome.as_ref().ok()?;
        let summary = summarise(rounds, all);
        let to_floor = match (summary.to_floor, summary.to_hyper) {
            (Some(ratio), _) => format!(" · {:.2}×", ratio.median),
            (None, Some(ratio)) => format!(" · {:.2}× hyper", ratio.median),
            (None, None) => String::new(),
        };
        Some(Bar {
            name: series.peer.name.to_owned(),
            tone: Tone::of(series.peer.name),
            value: summary.cpu_us,
            dark: summary.user_us,
            quartiles: Some(quartiles(rounds.iter().map(Round::cpu_us))),
            label: format!("{} µs{to_floor}", figure(summary.cpu_us)),
        })
    });
    Bars {
        title: workload.title.to_owned(),
        subtitle: "CPU time of the server per answer, µs, and as a multiple of the floor's. \
                   Full colour: user, pale: kernel. Less is better."
            .to_owned(),
        bars: bars.collect(),
    }
}

fn samples(workload: &Workload, all: &[Samples]) -> Bars {
    let (unit, subtitle) = if workload.measure == Measure::Start {
        (
            "ms",
            "Milliseconds, medians over fresh processes. Less is better.",
        )
    } else {
        (
            "B",
            "Resident bytes that a connection adds, medians over fresh processes. Less is better.",
        )
    };
    let bars = all.iter().filter_map(|samples| {
        let values = samples.outcome.as_ref().ok()?;
        let value = median(values.iter().copied());
        Some(Bar {
            name: samples.peer.name.to_owned(),
            tone: Tone::of(samples.peer.name),
            value,
            dark: value,
            quartiles: Some(quartiles(values.iter().copied())),
            label: format!("{} {unit}", figure(value)),
        })
    });
    Bars {
        title: workload.title.to_owned(),
        subtitle: subtitle.to_owned(),
        bars: bars.collect(),
    }
}

fn latency(all: &[Latencies], load: u32) -> Lines {
    let lines = all.iter().filter_map(|one| {
        let loads = one.outcome.as_ref().ok()?;
        let at = loads.iter().find(|at| at.load == load)?;
        let values = at.latencies.iter().map(|ns| Some(*ns as f64 / 1000.0));
        Some(Line {
            name: one.peer.name.to_owned(),
            tone: Tone::of(one.peer.name),
            values: values.collect(),
        })
    });
    Lines {
        title: format!("Latency of a GET at {load} % of each server's capacity"),
        subtitle:
            "From when the request was due, by percentile; open loop, two cores, 64 connections."
                .to_owned(),
        places: POINTS
            .iter()
            .map(|(point, _)| (*point).to_owned())
            .collect(),
        is_logarithmic: true,
        written: microseconds,
        lines: lines.collect(),
    }
}

fn scale_cpu(all: &[Step]) -> Lines {
    by_connections(
        all,
        "CPU time of a GET, by connections",
        "µs of the server's CPU time; 64 requests under way, which pass through all connections in turn.",
        0,
        |step| {
            let cost = step.outcome.as_ref().ok()?;
            Some(median(cost.rounds.iter().map(Round::cpu_us)))
        },
    )
}

fn scale_bytes(all: &[Step]) -> Lines {
    by_connections(
        all,
        "Memory of a connection, by connections",
        "Resident bytes that each connection adds.",
        BYTES_FROM,
        |step| Some(step.outcome.as_ref().ok()?.bytes),
    )
}

fn by_connections(
    all: &[Step],
    title: &str,
    subtitle: &str,
    from: usize,
    value: impl Fn(&Step) -> Option<f64>,
) -> Lines {
    let mut steps: Vec<usize> = all.iter().map(|step| step.connections).collect();
    steps.retain(|step| *step >= from);
    steps.sort_unstable();
    steps.dedup();
    let mut names: Vec<&str> = Vec::new();
    for step in all {
        if !names.contains(&step.peer.name) {
            names.push(step.peer.name);
        }
    }
    let line = |name: &&str| Line {
        name: (*name).to_owned(),
        tone: Tone::of(name),
        values: steps
            .iter()
            .map(|connections| {
                let step = all
                    .iter()
                    .find(|step| step.connections == *connections && step.peer.name == *name);
                step.and_then(&value)
            })
            .collect(),
    };
    Lines {
        title: title.to_owned(),
        subtitle: subtitle.to_owned(),
        places: steps.iter().map(|step| grouped(*step as f64)).collect(),
        is_logarithmic: false,
        written: figure,
        lines: names.iter().map(line).collect(),
    }
}
