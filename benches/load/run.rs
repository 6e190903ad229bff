//! The order of things: read the arguments, pin the generator, measure each workload, print and
//! record it.
//!
//! Invariants
//! - Exit status 0 only if every peer answered every workload right.
//!
//! Not here: how any of it is done.

use std::ffi::OsString;
use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use crate::args::{self, Args};
use crate::client::apart;
use crate::extra::{EXTRAS, Extra, Stage};
use crate::measure::{clock, machine};
use crate::peers::{self, PEERS, Peer, process};
use crate::record::Record;
use crate::workload::{Measure, WORKLOADS, Workload};
use crate::{
    at_rate, extra, fresh, markdown, neighbour, picture, recorded, report, rooms, rounds, scale,
    soak,
};

/// Peers that are drawn as lines: more would hide each other. Crowds are also theirs alone.
const LINES: [&str; 5] = ["floor", "core", "huki", "hyper", "bun"];

/// Fresh processes per peer that a crowd is sampled of: it takes seconds to come.
const CROWDED_SAMPLES: usize = 2;

/// Picks the role of this process.
pub(crate) fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let outcome = match arguments.first().and_then(|role| role.to_str()) {
        Some("serve") => peers::serve(&words(&arguments[1..])).map(|()| ExitCode::SUCCESS),
        Some("report") => write_report(&words(&arguments[1..])),
        Some("soak") => soak::main(&words(&arguments[1..])),
        Some("rooms") => rooms::main(words(&arguments[1..]).into_iter()),
        Some("neighbour") if arguments.len() > 1 => flooded(&words(&arguments[1..])),
        Some("generate") => apart::main(&words(&arguments[1..])).map(|()| ExitCode::SUCCESS),
        Some("launch") => process::launch(&arguments[1..]).map(|()| ExitCode::SUCCESS),
        _ => harness(arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("load: {error}");
        ExitCode::FAILURE
    })
}

/// `load neighbour PEER…`.
fn flooded(names: &[String]) -> Result<ExitCode, String> {
    let mut stage = Stage {
        cores: &machine::cores()?,
        is_quick: false,
        progress: &mut progress,
    };
    neighbour::main(names, &mut stage)
}

fn words(arguments: &[OsString]) -> Vec<String> {
    let words = arguments.iter();
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect()
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
    let mut record = Record::create("load", clock::unix_seconds())
        .map_err(|error| format!("results: {error}"))?;
    println!(
        "{}, {} cores, Linux {}, TCP {}, commit {}; {} rounds of {} ms",
        machine::processor(),
        cores.len(),
        machine::kernel(),
        machine::congestion_control(),
        machine::commit(),
        args.plans.rounds.rounds,
        args.plans.rounds.round.as_millis()
    );
    let mut all_whole = true;
    let absent = peers::prepare(&mut args.peers, args.huki.take());
    for peer in &args.peers {
        println!("  {:<16} {}", peer.name, peer.settings());
    }
    for absent in absent {
        println!("  {:<16} left out: {}", absent.peer.name, absent.why);
        all_whole &= absent.optional;
    }
    let began = clock::now();
    for (nth, workload) in args.workloads.iter().enumerate() {
        let place = format!(
            "[{} of {}, {} s]",
            nth + 1,
            args.workloads.len(),
            began.elapsed().as_secs()
        );
        all_whole &= measure(workload, &place, &args, &cores, &mut record)?;
    }
    for (nth, extra) in args.extras.iter().enumerate() {
        let place = format!(
            "[{} of {}, {} s]",
            nth + 1,
            args.extras.len(),
            began.elapsed().as_secs()
        );
        all_whole &= measure_extra(extra, &place, &args, &cores, &mut record)?;
    }
    let folder = record.path.with_extension("");
    let pictures = picture::write(&recorded::read(&record.path)?, &folder)?;
    println!(
        "\n{} s, every round: {}",
        began.elapsed().as_secs(),
        record.path.display()
    );
    println!("{} pictures: {}", pictures.len(), folder.display());
    Ok(if all_whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Measures, prints and records one workload; false if a peer failed.
fn measure(
    workload: &Workload,
    place: &str,
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
    let is_of_few =
        matches!(workload.measure, Measure::Latency | Measure::Scale) || workload.is_crowded();
    let peers: Vec<&'static Peer> = args
        .peers
        .iter()
        .copied()
        .filter(|peer| peer.answers(workload.kind))
        .filter(|peer| !is_of_few || LINES.contains(&peer.name))
        .collect();
    let (core, plans) = (cores[0], args.plans);
    let mut progress = |now: &str| progress(&format!("{place} {now}"));
    let (table, recorded, is_whole) = match workload.measure {
        Measure::CpuTime => {
            let series = rounds::measure(workload, &peers, plans.rounds, core, &mut progress);
            (
                report::table(workload, &series) + &report::latency_table(&series),
                record.append(workload, plans.rounds, &series),
                series.iter().all(|series| series.outcome.is_ok()),
            )
        }
        Measure::IdleMemory | Measure::Start => {
            let count = match workload.is_crowded() {
                true => plans.rounds.samples.min(CROWDED_SAMPLES),
                false => plans.rounds.samples,
            };
            let samples = fresh::measure(workload, &peers, count, core, &mut progress);
            (
                report::samples_table(workload, &samples),
                record.append_samples(workload, &samples),
                samples.iter().all(|samples| samples.outcome.is_ok()),
            )
        }
        Measure::Latency => {
            let all = at_rate::measure(&peers, plans.latency, core, &mut progress);
            for one in &all {
                why(one.peer, &one.outcome);
            }
            (
                markdown::latencies(&all),
                record.append_latencies(&all),
                all.iter().all(|one| one.outcome.is_ok()),
            )
        }
        Measure::Scale => {
            let descriptors = machine::file_limit();
            let all = scale::measure(&peers, plans.scale, descriptors, core, &mut progress);
            for step in &all {
                why(step.peer, &step.outcome);
            }
            (
                markdown::scale(&all),
                record.append_steps(plans.scale, &all),
                all.iter().all(|step| step.outcome.is_ok()),
            )
        }
    };
    progress("");
    print!("{table}");
    recorded.map_err(|error| format!("results: {error}"))?;
    Ok(is_whole)
}

/// Measures, prints and records what has a table of its own; false if it failed.
fn measure_extra(
    extra: &Extra,
    place: &str,
    args: &Args,
    cores: &[usize],
    record: &mut Record,
) -> Result<bool, String> {
    process::pin_to(cores)?;
    let mut stage = Stage {
        cores,
        is_quick: args.is_quick,
        progress: &mut |now: &str| progress(&format!("{place} {now}")),
    };
    let outcome = (extra.measure)(&mut stage);
    progress("");
    match &outcome {
        Ok(table) => println!(
            "\n{}  [{}]\n\n{}",
            extra.title,
            extra.name,
            table.markdown()
        ),
        Err(error) => println!("\n{}: no figures: {error}", extra.title),
    }
    let recorded = record.append_extra(extra, &outcome);
    recorded.map_err(|error| format!("results: {error}"))?;
    Ok(outcome.is_ok())
}

/// Says why a table has no figures of `peer`.
fn why<T>(peer: &Peer, outcome: &Result<T, String>) {
    if let Err(error) = outcome {
        println!("\n{}: no figures: {error}", peer.name);
    }
}

/// `load report FILE`: tables into the README, pictures beside it.
fn write_report(arguments: &[String]) -> Result<ExitCode, String> {
    let [file] = arguments else {
        return Err("report: expected the file of a run, benches/results/load-….jsonl".to_owned());
    };
    let run = recorded::read(Path::new(file))?;
    let benches = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pictures = picture::write(&run, &benches.join("charts"))?;
    let tables = markdown::whole(&run, &pictures);
    let readme = benches.join("README.md");
    let fail = |error| format!("{}: {error}", readme.display());
    let text = fs::read_to_string(&readme).map_err(fail)?;
    let mut text = match run.results.is_empty() {
        true => text,
        false => markdown::replaced(&text, &tables)?,
    };
    for (extra, table) in &run.extras {
        text = extra::replaced(&text, extra.name, table)?;
    }
    fs::write(&readme, text).map_err(fail)?;
    print!("{tables}");
    if run.unknown > 0 {
        println!(
            "left out: {} lines of unknown workloads or peers",
            run.unknown
        );
    }
    println!(
        "\nwritten: {}, {} pictures",
        readme.display(),
        pictures.len()
    );
    Ok(ExitCode::SUCCESS)
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
    for extra in EXTRAS {
        println!("  {:<16} {}", extra.name, extra.title);
    }
    println!("peers");
    for peer in PEERS {
        println!("  {:<16} {}", peer.name, peer.settings());
    }
}
