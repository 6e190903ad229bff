//! Tables of a run as Markdown, for `benches/README.md`.
//!
//! Beside each workload stands our own goal for huki. A cell is the CPU time per answer as a multiple of the floor's, the median of the rounds with half the
//! distance between the quartiles, and in brackets microseconds, all and user.
//!
//! Invariants
//! - A peer that failed stands in its table as "failed"; one that was not asked has an empty cell.
//!
//! Not here: the text around the tables, which is written by hand.

use std::fmt::Write as _;

use crate::at_rate::{LOADS, Latencies};
use crate::chart::{figure, grouped};
use crate::client::latency::POINTS;
use crate::fresh::Samples;
use crate::peers::PEERS;
use crate::recorded::{Results, Run};
use crate::report::{median, ratio, summarise};
use crate::rounds::{Round, Series};
use crate::scale::Step;
use crate::workload::{Kind, Measure, Workload};

/// What encloses the tables in the README.
const BEGIN: &str = "<!-- load: begin; written by `-- report FILE` -->";
const END: &str = "<!-- load: end -->";

/// Percentiles that the table of latencies shows.
const SHOWN: [&str; 5] = ["p50", "p90", "p99", "p99.9", "max"];

/// Everything, with the pictures' paths relative to `benches/`.
pub(crate) fn whole(run: &Run, pictures: &[String]) -> String {
    let about = &run.about;
    let (rounds, round_ms) = run.rounds;
    let mut text = format!(
        "{}, {} cores, Linux {}, TCP {}, commit `{}`; {rounds} rounds of {round_ms} ms.\n",
        about.processor, about.cores, about.kernel, about.congestion_control, about.commit
    );
    let is_websocket = |kind: Kind| matches!(kind, Kind::Echo { .. } | Kind::Room { .. });
    for wanted in [false, true] {
        let of_kind: Vec<_> = run
            .results
            .iter()
            .filter_map(|(workload, results)| match results {
                Results::CpuTime(all) if is_websocket(workload.kind) == wanted => {
                    Some((*workload, all.as_slice()))
                }
                _ => None,
            })
            .collect();
        text += &ratios(&of_kind);
    }
    text += &dearer(run);
    text += &samples(run);
    for (_, results) in &run.results {
        match results {
            Results::Latency(all) => text += &latencies(all),
            Results::Scale(all) => text += &scale(all),
            Results::CpuTime(_) | Results::Samples(_) => {}
        }
    }
    text += "\nSettings:\n\n";
    for (name, settings) in &run.settings {
        let _ = writeln!(text, "- `{name}`: {settings}");
    }
    text.push('\n');
    for picture in pictures {
        let _ = writeln!(text, "![{picture}](charts/{picture}.svg)");
    }
    text
}

/// The README with what stands between its marks replaced.
pub(crate) fn replaced(readme: &str, tables: &str) -> Result<String, String> {
    between(readme, (BEGIN, END), tables)
}

/// `text` with what stands between the two `marks` replaced.
pub(crate) fn between(
    text: &str,
    (begin, end): (&str, &str),
    tables: &str,
) -> Result<String, String> {
    let (before, rest) = text
        .split_once(begin)
        .ok_or_else(|| format!("there is no line {begin:?}"))?;
    let (_, after) = rest
        .split_once(end)
        .ok_or_else(|| format!("there is no line {end:?}"))?;
    Ok(format!(
        "{before}{begin}\n\n{}\n\n{end}{after}",
        tables.trim()
    ))
}

/// Names of the peers that `stands` says something about, in the order of the table of peers.
fn columns(stands: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let names = PEERS.iter().map(|peer| peer.name);
    names.filter(|name| stands(name)).collect()
}

fn head(text: &mut String, first: &str, columns: &[&str]) {
    let _ = writeln!(text, "\n| {first} | {} |", columns.join(" | "));
    let _ = writeln!(text, "| --- |{}", " --- |".repeat(columns.len()));
}

/// One row for each workload, one column for each peer.
fn ratios(all: &[(&Workload, &[Series])]) -> String {
    let stands = |name: &str| {
        all.iter()
            .any(|(_, series)| series.iter().any(|one| one.peer.name == name))
    };
    let columns = columns(stands);
    let mut text = String::new();
    if columns.is_empty() {
        return text;
    }
    let mut heads = vec!["goal"];
    heads.extend(&columns);
    head(&mut text, "CPU per answer, x floor", &heads);
    for (workload, series) in all {
        let cells: Vec<String> = columns.iter().map(|name| cell(name, series)).collect();
        let (title, goal) = (workload.title, goal(workload));
        let _ = writeln!(text, "| {title} | {goal} | {} |", cells.join(" | "));
    }
    text
}

/// What we want huki to take at most, as a multiple of the floor; of memory and start, in their unit.
fn goal(workload: &Workload) -> &'static str {
    match workload.name {
        "get" => "1.15",
        "get-2c-512" => "1.10",
        "get-x16" => "2.2",
        "post-json" => "3.0",
        "echo-32" => "1.12",
        "echo-32-x16" => "2.0",
        "echo-64k" => "1.35",
        "room-1000" | "room-100-x16" => "1.05",
        "idle-http" => "400",
        "idle-ws" | "idle-ws-50k" => "640",
        "start" => "4",
        _ => "",
    }
}

fn cell(name: &str, all: &[Series]) -> String {
    let Some(series) = all.iter().find(|one| one.peer.name == name) else {
        return String::new();
    };
    let Ok(rounds) = &series.outcome else {
        return "failed".to_owned();
    };
    let summary = summarise(rounds, all);
    let microseconds = format!("({:.2}; {:.2})", summary.cpu_us, summary.user_us);
    match summary.to_floor {
        Some(_) if name == "floor" => format!("1 {microseconds}"),
        Some(ratio) => format!("{:.2} ±{:.2} {microseconds}", ratio.median, ratio.spread),
        // The floor has no TLS.
        None => match summary.to_hyper {
            Some(ratio) if name != "hyper" => {
                format!(
                    "{:.2} ±{:.2} of hyper {microseconds}",
                    ratio.median, ratio.spread
                )
            }
            _ => microseconds,
        },
    }
}

/// Where a peer does the same with less than hukilau with a script.
fn dearer(run: &Run) -> String {
    let mut text = String::new();
    for (workload, results) in &run.results {
        let Results::CpuTime(all) = results else {
            continue;
        };
        let own = all.iter().find(|one| one.peer.name == "huki");
        let Some(Ok(own)) = own.map(|series| &series.outcome) else {
            continue;
        };
        let cheaper: Vec<String> = all
            .iter()
            .filter(|one| !["huki", "core", "floor"].contains(&one.peer.name))
            .filter_map(|one| {
                let theirs = ratio(one.outcome.as_ref().ok()?, own).median;
                (theirs < 0.995).then(|| format!("{} {theirs:.2}", one.peer.name))
            })
            .collect();
        if !cheaper.is_empty() {
            let _ = writeln!(text, "- {}: {}", workload.title, cheaper.join(", "));
        }
    }
    if text.is_empty() {
        return "\nNo peer does any of it with less CPU time than huki.\n".to_owned();
    }
    format!("\nCheaper than huki, as a multiple of what huki takes:\n\n{text}")
}

/// Memory and start.
fn samples(run: &Run) -> String {
    let rows: Vec<(&Workload, &[Samples])> = run
        .results
        .iter()
        .filter_map(|(workload, results)| match results {
            Results::Samples(all) => Some((*workload, all.as_slice())),
            _ => None,
        })
        .collect();
    let stands = |name: &str| {
        rows.iter()
            .any(|(_, all)| all.iter().any(|one| one.peer.name == name))
    };
    let columns = columns(stands);
    let mut text = String::new();
    if columns.is_empty() {
        return text;
    }
    let mut heads = vec!["goal"];
    heads.extend(&columns);
    head(&mut text, "", &heads);
    for (workload, all) in rows {
        let unit = if workload.measure == Measure::Start {
            "ms"
        } else {
            "bytes"
        };
        let cells: Vec<String> = columns
            .iter()
            .map(|name| {
                let samples = all.iter().find(|one| one.peer.name == *name);
                match samples.map(|samples| &samples.outcome) {
                    None => String::new(),
                    Some(Err(_)) => "failed".to_owned(),
                    Some(Ok(values)) => figure(median(values.iter().copied())),
                }
            })
            .collect();
        let (title, goal) = (workload.title, goal(workload));
        let _ = writeln!(text, "| {title}, {unit} | {goal} | {} |", cells.join(" | "));
    }
    text
}

/// What clients wait, by load and peer.
pub(crate) fn latencies(all: &[Latencies]) -> String {
    let mut text = String::new();
    head(
        &mut text,
        "latency of a GET, us",
        &[
            "load", "per s", SHOWN[0], SHOWN[1], SHOWN[2], SHOWN[3], SHOWN[4],
        ],
    );
    for load in LOADS {
        for one in all {
            let name = one.peer.name;
            let Ok(loads) = &one.outcome else {
                let _ = writeln!(text, "| {name} | {load} % | failed | | | | | |");
                continue;
            };
            for at in loads.iter().filter(|at| at.load == load) {
                let shown: Vec<String> = POINTS
                    .iter()
                    .zip(at.latencies)
                    .filter(|((point, _), _)| SHOWN.contains(point))
                    .map(|(_, nanoseconds)| figure(nanoseconds as f64 / 1000.0))
                    .collect();
                let (rate, shown) = (grouped(at.rate), shown.join(" | "));
                let _ = writeln!(text, "| {name} | {load} % | {rate} | {shown} |");
            }
        }
    }
    text
}

/// Cost by connections.
pub(crate) fn scale(all: &[Step]) -> String {
    let columns = columns(|name| all.iter().any(|step| step.peer.name == name));
    let mut steps: Vec<usize> = all.iter().map(|step| step.connections).collect();
    steps.sort_unstable();
    steps.dedup();
    let mut text = String::new();
    head(
        &mut text,
        "CPU us per GET (bytes per connection), by connections",
        &columns,
    );
    for connections in steps {
        let cells: Vec<String> = columns
            .iter()
            .map(|name| {
                let step = all
                    .iter()
                    .find(|step| step.connections == connections && step.peer.name == *name);
                match step.map(|step| &step.outcome) {
                    None => String::new(),
                    Some(Err(_)) => "failed".to_owned(),
                    Some(Ok(cost)) => {
                        let cpu = median(cost.rounds.iter().map(Round::cpu_us));
                        format!("{} ({})", figure(cpu), grouped(cost.bytes))
                    }
                }
            })
            .collect();
        let connections = grouped(connections as f64);
        let _ = writeln!(text, "| {connections} | {} |", cells.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let readme = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let once = replaced(&readme, "new").unwrap();
        assert_eq!(once, format!("before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"));
        assert_eq!(replaced(&once, "new").unwrap(), once);
        assert!(replaced("without marks", "new").is_err());
    }

    #[test]
    fn the_readme_has_its_marks() {
        assert!(replaced(include_str!("../README.md"), "x").is_ok());
    }
}
