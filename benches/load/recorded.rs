//! Reads a run back from its JSON lines, into what it was written from.
//!
//! So tables and pictures can be made again, also when their form has changed since, and one code makes them
//! for a run that has just ended and for an old one.
//!
//! Invariants
//! - Every line is used or is an error; only lines of a workload that is gone are counted and left out.
//!
//! Not here: writing (`record.rs`), showing (`markdown.rs`, `picture.rs`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::at_rate::{AtLoad, Latencies};
use crate::client::latency::{POINTS, Percentiles};
use crate::extra::{EXTRAS, Extra, Table};
use crate::fresh::Samples;
use crate::measure::cpu::CpuTime;
use crate::peers::{PEERS, Peer};
use crate::rounds::{Round, Series};
use crate::scale::{self, Cost, Step};
use crate::workload::{Measure, WORKLOADS, Workload};

/// Where, when and of what a run was.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct About {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) congestion_control: String,
    pub(crate) commit: String,
}

/// A whole run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) about: About,
    /// Rounds of a workload, and milliseconds of each; the most that there were.
    pub(crate) rounds: (usize, u64),
    /// Of each peer, in the order of the table of peers.
    pub(crate) settings: Vec<(&'static str, String)>,
    /// In the order of the table of workloads.
    pub(crate) results: Vec<(&'static Workload, Results)>,
    /// In the order in which they were measured.
    pub(crate) extras: Vec<(&'static Extra, Table)>,
    /// Lines of workloads or peers that are not known any more, or of what has failed as a whole.
    pub(crate) unknown: usize,
}

/// The figures of one workload.
#[derive(Debug)]
pub(crate) enum Results {
    CpuTime(Vec<Series>),
    Samples(Vec<Samples>),
    Latency(Vec<Latencies>),
    Scale(Vec<Step>),
}

#[derive(Deserialize)]
struct Line {
    #[serde(flatten)]
    about: About,
    #[serde(default)]
    workload: String,
    #[serde(default)]
    connections: usize,
    #[serde(default)]
    peer: String,
    #[serde(default)]
    settings: String,
    extra: Option<String>,
    table: Option<Table>,
    round_ms: Option<u64>,
    peak_bytes: Option<u64>,
    rounds: Option<Vec<RoundLine>>,
    samples: Option<Vec<f64>>,
    bytes_per_connection: Option<f64>,
    load: Option<u32>,
    rate: Option<f64>,
    latency_ns: Option<BTreeMap<String, u64>>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct RoundLine {
    answers: u64,
    wall_ns: u64,
    cpu_ns: u64,
    user_ticks: u64,
    system_ticks: u64,
}

impl RoundLine {
    fn round(&self) -> Round {
        Round {
            answers: self.answers,
            wall: Duration::from_nanos(self.wall_ns),
            cpu: CpuTime {
                total_ns: self.cpu_ns,
                user_ticks: self.user_ticks,
                system_ticks: self.system_ticks,
            },
        }
    }
}

/// Reads the file of a run.
pub(crate) fn read(path: &Path) -> Result<Run, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn parse(text: &str) -> Result<Run, String> {
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line: Line =
            serde_json::from_str(line).map_err(|error| format!("line {}: {error}", number + 1))?;
        lines.push(line);
    }
    let about = lines.first().ok_or("holds no line")?.about.clone();
    // Scale has rounds of its own.
    let rounds = lines
        .iter()
        .filter(|line| line.workload != scale::WORKLOAD.name)
        .filter_map(|line| Some((line.rounds.as_ref()?.len(), line.round_ms?)))
        .max()
        .unwrap_or_default();
    let mut results: Vec<(&'static Workload, Results)> = Vec::new();
    let (mut extras, mut unknown) = (Vec::new(), 0);
    for line in &lines {
        let extra = EXTRAS
            .iter()
            .find(|known| line.extra.as_deref() == Some(known.name));
        if let Some((extra, table)) = extra.zip(line.table.clone()) {
            extras.push((extra, table));
            continue;
        }
        let workload = WORKLOADS.iter().find(|known| known.name == line.workload);
        let peer = PEERS.iter().find(|known| known.name == line.peer);
        let (Some(workload), Some(peer)) = (workload, peer) else {
            unknown += 1;
            continue;
        };
        let at = match results
            .iter()
            .position(|(known, _)| known.name == workload.name)
        {
            Some(at) => at,
            None => {
                results.push((workload, empty(workload)));
                results.len() - 1
            }
        };
        add(&mut results[at].1, line, peer);
    }
    let place = |workload: &Workload| WORKLOADS.iter().position(|one| one.name == workload.name);
    results.sort_by_key(|(workload, _)| place(workload));
    let settings = PEERS.iter().filter_map(|peer| {
        let line = lines.iter().find(|line| line.peer == peer.name)?;
        Some((peer.name, line.settings.clone()))
    });
    Ok(Run {
        about,
        rounds,
        settings: settings.collect(),
        results,
        extras,
        unknown,
    })
}

fn empty(workload: &Workload) -> Results {
    match workload.measure {
        Measure::CpuTime => Results::CpuTime(Vec::new()),
        Measure::IdleMemory | Measure::Start => Results::Samples(Vec::new()),
        Measure::Latency => Results::Latency(Vec::new()),
        Measure::Scale => Results::Scale(Vec::new()),
    }
}

fn add(results: &mut Results, line: &Line, peer: &'static Peer) {
    let error = || {
        line.error
            .clone()
            .unwrap_or_else(|| "no figures".to_owned())
    };
    let rounds = line
        .rounds
        .as_ref()
        .map(|rounds| rounds.iter().map(RoundLine::round).collect());
    let percentiles = line.latency_ns.as_ref().map(percentiles);
    match results {
        Results::CpuTime(all) => all.push(Series {
            peer,
            outcome: rounds.ok_or_else(error),
            latencies: percentiles,
            peak_bytes: line.peak_bytes.unwrap_or_default(),
        }),
        Results::Samples(all) => all.push(Samples {
            peer,
            outcome: line.samples.clone().ok_or_else(error),
        }),
        Results::Scale(all) => {
            let cost = rounds.zip(line.bytes_per_connection);
            all.push(Step {
                peer,
                connections: line.connections,
                outcome: cost
                    .map(|(rounds, bytes)| Cost { rounds, bytes })
                    .ok_or_else(error),
            });
        }
        Results::Latency(all) => {
            let at_load = line.load.zip(line.rate).zip(percentiles);
            let Some(((load, rate), latencies)) = at_load else {
                let outcome = Err(error());
                all.push(Latencies { peer, outcome });
                return;
            };
            let at_load = AtLoad {
                load,
                rate,
                latencies,
            };
            match all.last_mut() {
                Some(Latencies {
                    peer: last,
                    outcome: Ok(loads),
                }) if last.name == peer.name => loads.push(at_load),
                _ => all.push(Latencies {
                    peer,
                    outcome: Ok(vec![at_load]),
                }),
            }
        }
    }
}

fn percentiles(by_name: &BTreeMap<String, u64>) -> Percentiles {
    POINTS.map(|(point, _)| by_name.get(point).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: &str = r#""time":1,"processor":"P","cores":2,"kernel":"6","congestion_control":"bbr","commit":"abc""#;

    fn line(members: &str) -> String {
        format!(
            r#"{{{ABOUT},"connections":64,"in_flight":1,"pinned_cores":1,"settings":"s",{members}}}"#
        )
    }

    #[test]
    fn rounds_samples_and_loads_are_read_back() {
        let round = r#"{"answers":10,"wall_ns":5,"cpu_ns":20000,"user_ticks":1,"system_ticks":3}"#;
        let text = [
            line(r#""workload":"start","peer":"huki","samples":[3.0,4.0]"#),
            line(&format!(
                r#""workload":"get","peer":"floor","round_ms":7,"rounds":[{round}]"#
            )),
            line(r#""workload":"get","peer":"huki","error":"gone""#),
            line(r#""workload":"latency","peer":"core","load":50,"rate":9,"latency_ns":{"p50":5}"#),
            line(
                r#""workload":"latency","peer":"core","load":90,"rate":18,"latency_ns":{"p50":6}"#,
            ),
            line(r#""workload":"was-once","peer":"core","rounds":[]"#),
        ]
        .join("\n");
        let run = parse(&text).unwrap();
        assert_eq!((run.rounds, run.unknown), ((1, 7), 1));
        let names: Vec<_> = run
            .results
            .iter()
            .map(|(workload, _)| workload.name)
            .collect();
        assert_eq!(names, ["get", "start", "latency"]);
        let Results::CpuTime(series) = &run.results[0].1 else {
            panic!("get is not of CPU time");
        };
        assert_eq!(series[0].outcome.as_ref().unwrap()[0].cpu_us(), 2.0);
        assert_eq!(series[1].outcome.as_ref().unwrap_err(), "gone");
        let Results::Latency(latencies) = &run.results[2].1 else {
            panic!("latency is not of latencies");
        };
        let loads = latencies[0].outcome.as_ref().unwrap();
        assert_eq!(loads.iter().map(|at| at.load).collect::<Vec<_>>(), [50, 90]);
    }

    #[test]
    fn rounds_of_a_run_are_those_of_its_workloads_however_many_scale_has() {
        let round = r#"{"answers":10,"wall_ns":5,"cpu_ns":20000,"user_ticks":1,"system_ticks":3}"#;
        let with = |workload: &str, round_ms: u32, rounds: &[&str]| {
            let rounds = rounds.join(",");
            line(&format!(
                r#""workload":"{workload}","peer":"huki","round_ms":{round_ms},"rounds":[{rounds}]"#
            ))
        };
        let lines = [
            with("get", 500, &[round]),
            with("scale", 300, &[round, round]),
        ];
        let run = parse(&lines.join("\n")).unwrap();
        assert_eq!(run.rounds, (1, 500));
    }

    #[test]
    fn a_line_that_is_broken_is_told_with_its_number() {
        let error = parse(&format!(
            "{}\n{{",
            line(r#""workload":"get","peer":"huki""#)
        ));
        assert!(error.unwrap_err().starts_with("line 2"));
    }
}
