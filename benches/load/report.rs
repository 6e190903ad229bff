//! The table in the terminal: per peer the CPU time of one answer, and its ratios to the floor and
//! to hyper.
//!
//! A ratio is taken within each round and the median over the rounds is shown; `±` is half the
//! distance between its quartiles. User and system time split the median total by the share that
//! the kernel sampled over all rounds. Throughput is shown last and dimmed by its place: on a
//! shared machine it says little.
//!
//! Invariants
//! - A peer without figures still has its line, with the reason.
//!
//! Not here: files (`record.rs`).

use std::fmt::Write as _;

use crate::client::latency::POINTS;
use crate::fresh::Samples;
use crate::rounds::{Round, Series};
use crate::workload::{Measure, Workload};

/// What is shown of one whole series.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Summary {
    pub(crate) cpu_us: f64,
    pub(crate) user_us: f64,
    pub(crate) to_floor: Option<Ratio>,
    pub(crate) to_hyper: Option<Ratio>,
    pub(crate) per_second: f64,
}

/// A median over the rounds, and half the distance between the quartiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) spread: f64,
}

/// Sums up one series beside its yardsticks.
pub(crate) fn summarise(rounds: &[Round], all: &[Series]) -> Summary {
    let cpu_us = median(rounds.iter().map(Round::cpu_us));
    let (user, system) = rounds.iter().fold((0, 0), |(user, system), round| {
        (user + round.cpu.user_ticks, system + round.cpu.system_ticks)
    });
    let user_share = user as f64 / (user + system).max(1) as f64;
    Summary {
        cpu_us,
        user_us: cpu_us * user_share,
        to_floor: ratio_to(rounds, all, "floor"),
        to_hyper: ratio_to(rounds, all, "hyper"),
        per_second: median(
            rounds
                .iter()
                .map(|round| round.answers as f64 / round.wall.as_secs_f64()),
        ),
    }
}

/// The ratio of `rounds` to those of the peer named `yardstick`, if that one has figures.
fn ratio_to(rounds: &[Round], all: &[Series], yardstick: &str) -> Option<Ratio> {
    let yardstick = all.iter().find(|series| series.peer.name == yardstick)?;
    Some(ratio(rounds, yardstick.outcome.as_ref().ok()?))
}

/// The ratio of `rounds` to `theirs`, round by round.
pub(crate) fn ratio(rounds: &[Round], theirs: &[Round]) -> Ratio {
    let mut ratios: Vec<f64> = rounds
        .iter()
        .zip(theirs)
        .map(|(own, their)| own.cpu_us() / their.cpu_us())
        .collect();
    ratios.sort_by(f64::total_cmp);
    Ratio {
        median: median(ratios.iter().copied()),
        spread: (quantile(&ratios, 3) - quantile(&ratios, 1)) / 2.0,
    }
}

/// The median; 0 of nothing.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The lower and the upper quartile.
pub(crate) fn quartiles(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    (quantile(&sorted, 1), quantile(&sorted, 3))
}

/// The n-th quartile of sorted values, nearest rank.
fn quantile(sorted: &[f64], quarter: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last * quarter + 2) / 4).copied().unwrap_or(0.0)
}

/// The table of one workload.
pub(crate) fn table(workload: &Workload, all: &[Series]) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "\n{}  [{}]", workload.title, workload.name);
    let _ = writeln!(
        text,
        "  {:<16} {:>8} {:>7} {:>7}   {:>14}   {:>14}   {:>9} {:>9}",
        "peer", "CPU us", "user", "system", "x floor", "x hyper", "per s", "peak MiB"
    );
    for series in all {
        match &series.outcome {
            Ok(rounds) => {
                let summary = summarise(rounds, all);
                let _ = writeln!(
                    text,
                    "  {:<16} {:>8.3} {:>7.3} {:>7.3}   {:>14}   {:>14}   {:>9.0} {:>9.1}",
                    series.peer.name,
                    summary.cpu_us,
                    summary.user_us,
                    summary.cpu_us - summary.user_us,
                    cell(summary.to_floor),
                    cell(summary.to_hyper),
                    summary.per_second,
                    series.peak_bytes as f64 / f64::from(1 << 20)
                );
            }
            Err(error) => {
                let _ = writeln!(text, "  {:<16} no figures: {error}", series.peer.name);
            }
        }
    }
    text
}

/// Percentiles of one workload's latencies, if they were recorded.
pub(crate) fn latency_table(all: &[Series]) -> String {
    let mut text = String::new();
    for series in all {
        let Some(latencies) = &series.latencies else {
            continue;
        };
        if text.is_empty() {
            let _ = write!(text, "  {:<16}", "latency, us");
            for (point, _) in POINTS {
                let _ = write!(text, " {point:>9}");
            }
            text.push('\n');
        }
        let _ = write!(text, "  {:<16}", series.peer.name);
        for nanoseconds in latencies {
            let _ = write!(text, " {:>9.1}", *nanoseconds as f64 / 1000.0);
        }
        text.push('\n');
    }
    text
}

/// The table of a workload that is sampled once per process.
pub(crate) fn samples_table(workload: &Workload, all: &[Samples]) -> String {
    let unit = if workload.measure == Measure::Start {
        "ms"
    } else {
        "bytes"
    };
    let mut text = format!(
        "\n{}  [{}]\n  {:<16} {unit:>9}\n",
        workload.title, workload.name, "peer"
    );
    for samples in all {
        let _ = match &samples.outcome {
            Ok(values) if workload.measure == Measure::Start => {
                writeln!(
                    text,
                    "  {:<16} {:>9.2}",
                    samples.peer.name,
                    median(values.iter().copied())
                )
            }
            Ok(values) => writeln!(
                text,
                "  {:<16} {:>9.0}",
                samples.peer.name,
                median(values.iter().copied())
            ),
            Err(error) => writeln!(text, "  {:<16} no figures: {error}", samples.peer.name),
        };
    }
    text
}

fn cell(ratio: Option<Ratio>) -> String {
    ratio.map_or_else(
        || "-".to_owned(),
        |ratio| format!("{:.2} ±{:.2}", ratio.median, ratio.spread),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_even_and_nothing() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert_eq!(median(std::iter::empty()), 0.0);
    }

    #[test]
    fn quartiles_of_five_values_are_the_second_and_the_fourth() {
        let sorted = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!((quantile(&sorted, 1), quantile(&sorted, 3)), (2.0, 4.0));
    }
}
