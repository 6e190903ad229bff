//! JSON lines under `benches/results/`: every round of every peer, with the machine, the kernel,
//! the commit and the settings.
//!
//! One line per peer and workload. The figures are the raw ones (nanoseconds, ticks, answers), so
//! that any summary can be made again later. The format is flat and written by hand: a writer of
//! strings and numbers needs no dependency.
//!
//! Invariants
//! - A line is whole JSON by itself; a run that breaks off leaves whole lines.
//!
//! Not here: the table (`report.rs`).

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::at_rate::{self, Latencies};
use crate::client::latency::{POINTS, Percentiles};
use crate::extra::{Extra, Table};
use crate::fresh::Samples;
use crate::measure::machine;
use crate::peers::Peer;
use crate::rounds::{Plan, Round, Series};
use crate::scale::{self, Step};
use crate::workload::Workload;

/// The file of one run.
pub(crate) struct Record {
    file: File,
    pub(crate) path: PathBuf,
    /// The members that every line begins with.
    about: String,
}

impl Record {
    /// Creates a file named after what is run and the second of the run.
    pub(crate) fn create(kind: &str, unix_seconds: u64) -> io::Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{kind}-{unix_seconds}.jsonl"));
        let about = format!(
            r#""time":{unix_seconds},"processor":{},"cores":{},"kernel":{},"congestion_control":{},"commit":{}"#,
            quoted(&machine::processor()),
            machine::cores().map_or(0, |cores| cores.len()),
            quoted(&machine::kernel()),
            quoted(&machine::congestion_control()),
            quoted(&machine::commit())
        );
        Ok(Self {
            file: File::create(&path)?,
            path,
            about,
        })
    }

    /// Appends the lines of one workload.
    pub(crate) fn append(
        &mut self,
        workload: &Workload,
        plan: Plan,
        all: &[Series],
    ) -> io::Result<()> {
        for series in all {
            let outcome = match &series.outcome {
                Ok(rounds) => rounds_member(rounds),
                Err(error) => error_member(error),
            };
            let latencies = series
                .latencies
                .as_ref()
                .map_or_else(String::new, |latencies| latency_member(latencies) + ",");
            let round_ms = plan.round.as_millis();
            let peak = series.peak_bytes;
            let outcome =
                format!(r#""round_ms":{round_ms},"peak_bytes":{peak},{latencies}{outcome}"#);
            self.line(workload, series.peer, &outcome)?;
        }
        Ok(())
    }

    /// Appends the lines of one workload that is sampled once per process.
    pub(crate) fn append_samples(
        &mut self,
        workload: &Workload,
        all: &[Samples],
    ) -> io::Result<()> {
        for samples in all {
            let outcome = match &samples.outcome {
                Ok(values) => format!(r#""samples":{values:?}"#),
                Err(error) => error_member(error),
            };
            self.line(workload, samples.peer, &outcome)?;
        }
        Ok(())
    }

    /// Appends a line for each peer and load.
    pub(crate) fn append_latencies(&mut self, all: &[Latencies]) -> io::Result<()> {
        for latencies in all {
            let peer = latencies.peer;
            match &latencies.outcome {
                Ok(loads) => {
                    for at in loads {
                        let percentiles = latency_member(&at.latencies);
                        let outcome =
                            format!(r#""load":{},"rate":{:.0},{percentiles}"#, at.load, at.rate);
                        self.line(&at_rate::WORKLOAD, peer, &outcome)?;
                    }
                }
                Err(error) => self.line(&at_rate::WORKLOAD, peer, &error_member(error))?,
            }
        }
        Ok(())
    }

    /// Appends a line for each peer at one number of connections.
    pub(crate) fn append_steps(&mut self, plan: scale::Plan, all: &[Step]) -> io::Result<()> {
        for step in all {
            let outcome = match &step.outcome {
                Ok(cost) => format!(
                    r#""round_ms":{},"bytes_per_connection":{:.1},{}"#,
                    plan.round.as_millis(),
                    cost.bytes,
                    rounds_member(&cost.rounds)
                ),
                Err(error) => error_member(error),
            };
            self.line(&scale::WORKLOAD.of(step.connections), step.peer, &outcome)?;
        }
        Ok(())
    }

    /// Appends the line of a measurement that has a table of its own.
    pub(crate) fn append_extra(
        &mut self,
        extra: &Extra,
        outcome: &Result<Table, String>,
    ) -> io::Result<()> {
        let outcome = match outcome {
            Ok(table) => format!(r#""table":{}"#, serde_json::to_string(table)?),
            Err(error) => error_member(error),
        };
        self.write(&format!(r#""extra":{},{outcome}"#, quoted(extra.name)))
    }

    fn line(&mut self, workload: &Workload, peer: &Peer, outcome: &str) -> io::Result<()> {
        self.write(&format!(
            r#""workload":{},"connections":{},"in_flight":{},"pinned_cores":{},"peer":{},"settings":{},{outcome}"#,
            quoted(workload.name),
            workload.connections,
            workload.in_flight,
            workload.cores,
            quoted(peer.name),
            quoted(&peer.settings())
        ))
    }

    /// Appends a line of these members, behind those that every line has.
    pub(crate) fn write(&mut self, members: &str) -> io::Result<()> {
        writeln!(self.file, "{{{},{members}}}", self.about)?;
        self.file.flush()
    }
}

/// Percentiles in nanoseconds, as a member.
fn latency_member(latencies: &Percentiles) -> String {
    let members: Vec<String> = POINTS
        .iter()
        .zip(latencies)
        .map(|((point, _), nanoseconds)| format!(r#""{point}":{nanoseconds}"#))
        .collect();
    format!(r#""latency_ns":{{{}}}"#, members.join(","))
}

/// All rounds, as a member.
fn rounds_member(rounds: &[Round]) -> String {
    let rounds: Vec<String> = rounds
        .iter()
        .map(|round| {
            format!(
                r#"{{"answers":{},"wall_ns":{},"cpu_ns":{},"user_ticks":{},"system_ticks":{}}}"#,
                round.answers,
                round.wall.as_nanos(),
                round.cpu.total_ns,
                round.cpu.user_ticks,
                round.cpu.system_ticks
            )
        })
        .collect();
    format!(r#""rounds":[{}]"#, rounds.join(","))
}

fn error_member(error: &str) -> String {
    format!(r#""error":{}"#, quoted(error))
}

/// A JSON string.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if control < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_strings_read_back_as_they_were() {
        let text = "a \"b\" \\ \n \u{1} é";
        assert_eq!(serde_json::from_str::<String>(&quoted(text)).unwrap(), text);
    }
}
