//! How many instructions the twelve most important operations take, counted by callgrind:
//! `cargo bench -p hukilau-benches --bench instructions`.
//!
//! Compares with the counts in `recorded.txt` and fails if one has drifted by more than
//! [`DRIFT_MAX`], up or down: slower is a fault, and faster wants to be written down. With
//! `-- record` the counts are written down instead, with the compiler that made them. Another
//! compiler, or a processor without AVX2, counts otherwise.
//!
//! Each operation runs in a process of its own under valgrind, so many times and then twice as many.
//! What the second run takes more is the operation's, to the instruction: start-up, warm-up and
//! set-up cancel out. Work in the kernel is not counted.
//!
//! Not here: time (`micro`, `load`).

#[path = "../micro/inputs.rs"]
mod inputs;
mod operations;

use std::fmt::Write as _;
use std::process::{Command, ExitCode};
use std::{fs, io};

use operations::OPERATIONS;

/// What a count may differ from the recorded one, as a share of it.
const DRIFT_MAX: f64 = 0.02;

/// Where the counts are kept.
const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions/recorded.txt");

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["run", name, times] => run(name, times).map(|()| ExitCode::SUCCESS),
        // Cargo adds `--bench`.
        _ => count_all(words.contains(&"record")),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("instructions: {error}");
        ExitCode::FAILURE
    })
}

/// In the process that is measured.
fn run(name: &str, times: &str) -> Result<(), String> {
    let times: u32 = times.parse().map_err(|_| format!("{times}: no number"))?;
    let found = OPERATIONS.iter().find(|operation| operation.name == name);
    let mut work = (found
        .ok_or_else(|| format!("{name}: no operation"))?
        .prepare)();
    for _ in 0..times {
        work();
    }
    Ok(())
}

fn count_all(records: bool) -> Result<ExitCode, String> {
    let recorded = fs::read_to_string(RECORDED).unwrap_or_default();
    let compiler = compiler()?;
    let mut written = format!("{compiler}\n");
    if !records && !recorded.starts_with(&written) {
        println!("counted by another compiler than the recorded ones: {compiler}");
    }
    println!("\n| operation | instructions | recorded | drift |");
    println!("| --- | --- | --- | --- |");
    let mut has_drifted = false;
    for operation in OPERATIONS {
        let count = count(operation.name, operation.times)?;
        let _ = writeln!(written, "{}: {count:.0}", operation.name);
        let before = find(&recorded, operation.name);
        let drift = before.map(|before| count / before - 1.0);
        println!(
            "| {} | {count:.0} | {} | {} |",
            operation.name,
            before.map_or_else(|| "-".to_owned(), |before| format!("{before:.0}")),
            drift.map_or_else(
                || "-".to_owned(),
                |drift| format!("{:+.1} %", drift * 100.0)
            ),
        );
        has_drifted |= drift.is_none_or(|drift| drift.abs() > DRIFT_MAX);
    }
    if records {
        fs::write(RECORDED, written).map_err(|error| format!("{RECORDED}: {error}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    if has_drifted {
        println!(
            "\nmore than {:.0} % from what is recorded, or not recorded; `-- record` writes it down",
            DRIFT_MAX * 100.0
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// The recorded count of `name`.
fn find(recorded: &str, name: &str) -> Option<f64> {
    let mut lines = recorded.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok())
}

/// Instructions of `name`, once.
fn count(name: &str, times: u32) -> Result<f64, String> {
    let [few, many] = [times, 2 * times].map(|times| collected(name, times));
    Ok((many? - few?) / f64::from(times))
}

/// Instructions of a process that does the work of `name` so many times.
fn collected(name: &str, times: u32) -> Result<f64, String> {
    let own_path = std::env::current_exe().map_err(|error| format!("own path: {error}"))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(own_path)
        .args(["run", name, &times.to_string()])
        .output()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "valgrind is missing: install it first".to_owned(),
            _ => format!("valgrind: {error}"),
        })?;
    let report = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{name} failed under valgrind:\n{report}"));
    }
    let counted = report.lines().find_map(|line| {
        let (_, count) = line.split_once("Collected : ")?;
        count.trim().parse().ok()
    });
    counted.ok_or_else(|| format!("no count in:\n{report}"))
}

/// The compiler, as it names itself.
fn compiler() -> Result<String, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output();
    let output = output.map_err(|error| format!("rustc: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
