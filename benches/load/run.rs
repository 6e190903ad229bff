//! The order of things: read the arguments, pin the generator, measure each workload, print and
//! record it.
//!
//! Invariants
//! - Exit status 0 only if every peer answered every workload right.
//!
//! Not here: how any of it is done.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use crate::args::{self, Args};
use crate::measure::{clock, machine};
use crate::peers::{self, PEERS, Peer, process};
use crate::record::Record;
use crate::workload::{Measure, WORKLOADS, Workload};
use crate::{fresh, neighbour, report, rounds};

/// Picks the role of this process.
pub(crate) fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let outcome = match arguments.first().and_then(|role| role.to_str()) {
        Some("serve") => {
            let name = arguments
                .get(1)
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            peers::serve(name).map(|()| ExitCode::SUCCESS)
        }
        Some("neighbour") => {
            let names = arguments[1..].iter();
            let names: Vec<String> = names
                .map(|name| name.to_string_lossy().into_owned())
                .collect();
            neighbour::main(&names)
        }
        Some("launch") => process::launch(&arguments[1..]).map(|()| ExitCode::SUCCESS),
        _ => harness(arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("load: {error}");
        ExitCode::FAILURE
    })
}

fn harness(arguments: Vec<OsString>) -> Result<ExitCode, String> {
    let mut args = args::parse(
        arguments
            .into_iter()
            .map(|argument| argument.to_string_lossy().into_owned()),
    )?;
    if args.lists {
        list();
        return Ok(ExitCode::SUCCESS);
    }
    machine::raise_file_limit()?;
    let cores = machine::cores()?;
    let mut record =
        Record::create(clock::unix_seconds()).map_err(|error| format!("results: {error}"))?;
    println!(
        "{}, {} cores, Linux {}, TCP {}, commit {}; {} rounds of {} ms",
        machine::processor(),
        cores.len(),
        machine::kernel(),
        machine::congestion_control(),
        machine::commit(),
        args.plan.rounds,
        args.plan.round.as_millis()
    );
    for peer in &args.peers {
        println!("  {:<16} {}", peer.name, peer.settings);
    }
    let mut all_whole = true;
    for (peer, error) in peers::prepare(&mut args.peers, args.huki.take()) {
        println!("  {}: left out: {error}", peer.name);
        all_whole = false;
    }
    for workload in &args.workloads {
        all_whole &= measure(workload, &args, &cores, &mut record)?;
    }
    println!("\nevery round: {}", record.path.display());
    Ok(if all_whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Measures, prints and records one workload; false if a peer failed.
fn measure(
    workload: &Workload,
    args: &Args,
    cores: &[usize],
    record: &mut Record,
) -> Result<bool, String> {
    let Some(generator_core) = cores.get(usize::from(workload.cores) - 1) else {
        println!(
            "\n{}: left out, for it needs {} cores",
            workload.title, workload.cores
        );
        return Ok(true);
    };
    process::pin(*generator_core)?;
    let peers: Vec<&'static Peer> = args
        .peers
        .iter()
        .copied()
        .filter(|peer| peer.answers(workload.kind))
        .collect();
    let core = cores[0];
    let (table, recorded, is_whole) = if workload.measure == Measure::CpuTime {
        let series = rounds::measure(workload, &peers, args.plan, core, &mut progress);
        (
            report::table(workload, &series) + &report::latency_table(&series),
            record.append(workload, args.plan, &series),
            series.iter().all(|series| series.outcome.is_ok()),
        )
    } else {
        let samples = fresh::measure(workload, &peers, args.plan.samples, core, &mut progress);
        (
            report::samples_table(workload, &samples),
            record.append_samples(workload, &samples),
            samples.iter().all(|samples| samples.outcome.is_ok()),
        )
    };
    progress("");
    print!("{table}");
    recorded.map_err(|error| format!("results: {error}"))?;
    Ok(is_whole)
}

/// One line that overwrites itself, for a person who waits; nothing into a file.
fn progress(now: &str) {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        // A terminal that has gone away is no reason to stop measuring.
        let _ = write!(stderr, "\r\x1b[2K{now}");
        let _ = stderr.flush();
    }
}

fn list() {
    println!("workloads");
    for workload in WORKLOADS {
        println!("  {:<16} {}", workload.name, workload.title);
    }
    println!("peers");
    for peer in PEERS {
        println!("  {:<16} {}", peer.name, peer.settings);
    }
}
