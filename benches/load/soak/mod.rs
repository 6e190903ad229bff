//! Half an hour of everything at once against one process of `huki run`, and whether it comes out as it went
//! in: memory flat, descriptors flat, no wrong answer.
//!
//! ```text
//!  visitors (threads) ──▶ huki run benches/luau/soak.luau ◀── samples of /proc, every ten seconds
//! ```
//!
//! Invariants
//! - The exit status is 0 only if the verdict is good in all three.
//! - When all visitors have left, the server holds no more descriptors than before they came.
//!
//! Not here: what is asked (`visitors.rs`), what flat means (`verdict.rs`).

mod verdict;
mod visitors;
mod wire;

use std::fs;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::thread::{NanosleepRelativeResult, nanosleep};

use self::verdict::Trend;
use self::visitors::{Place, VISITORS, Visitor};
use self::wire::Wire;
use crate::client::stream;
use crate::measure::{clock, cpu, machine, memory};
use crate::peers::process::{self, Process};
use crate::peers::{self, Mode};
use crate::record::Record;

/// Between two samples.
const EVERY: Duration = Duration::from_secs(10);

/// Between two visits of one visitor.
const PAUSE: Duration = Duration::from_millis(20);

/// How long the server may take to see that everybody has left.
const LEAVING: Duration = Duration::from_secs(40);

/// Growth that is allowed beyond a share: bytes of memory, descriptors.
const SLACK_BYTES: f64 = 1024.0 * 1024.0;
const SLACK_DESCRIPTORS: f64 = 20.0;

/// Wrong answers that are told one by one.
const TOLD_MAX: u64 = 20;

/// Set when the visitors are to leave.
#[derive(Default)]
struct Halt(AtomicBool);

impl Halt {
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the visitors have found.
#[derive(Default)]
struct Findings {
    answers: [AtomicU64; VISITORS.len()],
    wrong: AtomicU64,
    last: Mutex<String>,
}

/// What the server uses.
struct Sample {
    resident: u64,
    descriptors: usize,
}

fn sample(id: u32) -> Result<Sample, String> {
    let path = format!("/proc/{id}/fd");
    let descriptors = fs::read_dir(&path).map_err(|error| format!("{path}: {error}"))?;
    Ok(Sample {
        resident: memory::resident_bytes(id)?,
        descriptors: descriptors.count(),
    })
}

/// Lets time pass.
fn rest(duration: Duration) {
    let mut left = rustix::event::Timespec::try_from(duration).unwrap_or_default();
    while let NanosleepRelativeResult::Interrupted(more) = nanosleep(&left) {
        left = more;
    }
}

/// `load soak [MINUTES] [--huki PATH]`.
pub(crate) fn main(arguments: &[String]) -> Result<ExitCode, String> {
    let mut minutes = 30.0;
    let mut huki = None;
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--huki" => huki = words.next().map(Into::into),
            number => {
                minutes = number
                    .parse()
                    .ok()
                    .filter(|minutes| (0.1..=10_000.0).contains(minutes))
                    .ok_or_else(|| format!("soak: expected minutes, got {number:?}"))?;
            }
        }
    }
    machine::raise_file_limit()?;
    peers::prepare_huki(huki)?;
    let cores = machine::cores()?;
    let server = Process::start(&peers::SOAKED, Mode::Tls, cores[0])?;
    process::pin(cores[cores.len() - 1])?;
    let mut record = Record::create("soak", clock::unix_seconds())
        .map_err(|error| format!("results: {error}"))?;
    println!(
        "{minutes} minutes, Linux {}, commit {}; samples: {}",
        machine::kernel(),
        machine::commit(),
        record.path.display()
    );
    let port = Wire::open(server.port, None)?.get("/tls-port")?.body;
    let place = Place {
        plain: server.port,
        tls: String::from_utf8_lossy(&port)
            .parse()
            .map_err(|_| "/tls-port told no port")?,
        settings: stream::tls_settings()?,
    };
    soak(
        &server,
        &place,
        Duration::from_secs_f64(minutes * 60.0),
        &mut record,
    )
}

fn soak(
    server: &Process,
    place: &Place,
    duration: Duration,
    record: &mut Record,
) -> Result<ExitCode, String> {
    let (halt, findings) = (&Halt::default(), &Findings::default());
    let before = sample(server.id())?;
    let mut samples = Vec::new();
    let watched = thread::scope(|scope| {
        for (kind, visitor) in VISITORS.iter().enumerate() {
            for _ in 0..visitor.at_once {
                scope.spawn(move || {
                    keep_visiting(visitor, place, halt, &findings.answers[kind], findings)
                });
            }
        }
        let watched = watch(server.id(), duration, record, findings, &mut samples);
        halt.set();
        watched
    });
    watched?;
    let after = settle(server.id(), before.descriptors)?;
    verdict(&before, &samples, &after, findings, record)
}

fn keep_visiting(
    visitor: &Visitor,
    place: &Place,
    halt: &Halt,
    right: &AtomicU64,
    findings: &Findings,
) {
    while !halt.is_set() {
        match (visitor.visit)(place, halt) {
            Ok(answers) => {
                right.fetch_add(answers, Ordering::Relaxed);
            }
            Err(error) => {
                let count = findings.wrong.fetch_add(1, Ordering::Relaxed);
                let told = format!("{}: {error}", visitor.name);
                if count < TOLD_MAX {
                    eprintln!("wrong: {told}");
                }
                *findings.last.lock().unwrap_or_else(PoisonError::into_inner) = told;
            }
        }
        rest(PAUSE);
    }
}

/// Takes a sample every [`EVERY`] and writes it down.
fn watch(
    id: u32,
    duration: Duration,
    record: &mut Record,
    findings: &Findings,
    samples: &mut Vec<Sample>,
) -> Result<(), String> {
    let began = clock::now();
    let cpu_before = cpu::cpu_time(id)?;
    while began.elapsed() < duration {
        rest(EVERY.min(duration.saturating_sub(began.elapsed())));
        let sample = sample(id)?;
        let cpu = cpu::cpu_time(id)?.since(cpu_before);
        let seconds = began.elapsed().as_secs();
        let counts: Vec<String> = VISITORS
            .iter()
            .zip(&findings.answers)
            .map(|(visitor, count)| {
                format!(r#""{}":{}"#, visitor.name, count.load(Ordering::Relaxed))
            })
            .collect();
        let wrong = findings.wrong.load(Ordering::Relaxed);
        record
            .write(&format!(
                r#""soak_s":{seconds},"resident":{},"descriptors":{},"cpu_ms":{},"wrong":{wrong},"answers":{{{}}}"#,
                sample.resident,
                sample.descriptors,
                cpu.total_ns / 1_000_000,
                counts.join(",")
            ))
            .map_err(|error| format!("results: {error}"))?;
        println!(
            "{seconds:>6} s  resident {:>7} KiB  descriptors {:>4}  wrong {wrong}  {}",
            sample.resident / 1024,
            sample.descriptors,
            counts.join(" ").replace('"', "")
        );
        samples.push(sample);
    }
    Ok(())
}

/// Waits until the server has let go of everybody.
fn settle(id: u32, descriptors: usize) -> Result<Sample, String> {
    let began = clock::now();
    loop {
        let now = sample(id)?;
        if now.descriptors <= descriptors || began.elapsed() > LEAVING {
            return Ok(now);
        }
        rest(Duration::from_millis(200));
    }
}

fn verdict(
    before: &Sample,
    samples: &[Sample],
    after: &Sample,
    findings: &Findings,
    record: &mut Record,
) -> Result<ExitCode, String> {
    let resident: Vec<f64> = samples
        .iter()
        .map(|sample| sample.resident as f64)
        .collect();
    let descriptors: Vec<f64> = samples
        .iter()
        .map(|sample| sample.descriptors as f64)
        .collect();
    let memory = Trend::of(&resident, SLACK_BYTES);
    let files = Trend::of(&descriptors, SLACK_DESCRIPTORS);
    let wrong = findings.wrong.load(Ordering::Relaxed);
    let answers: u64 = findings
        .answers
        .iter()
        .map(|count| count.load(Ordering::Relaxed))
        .sum();
    let let_go = after.descriptors <= before.descriptors;
    println!(
        "memory       {:.0} KiB early, {:.0} late: {}",
        memory.early / 1024.0,
        memory.late / 1024.0,
        word(memory.is_flat())
    );
    println!(
        "descriptors  {:.0} early, {:.0} late: {}; {} before anybody came, {} after all had left: {}",
        files.early,
        files.late,
        word(files.is_flat()),
        before.descriptors,
        after.descriptors,
        if let_go { "let go" } else { "KEPT" }
    );
    println!("answers      {answers}, of them wrong: {wrong}");
    if wrong > 0 {
        let last = findings.last.lock().unwrap_or_else(PoisonError::into_inner);
        println!("             the last: {last}");
    }
    let is_good = memory.is_flat() && files.is_flat() && let_go && wrong == 0;
    record
        .write(&format!(
            r#""verdict":{is_good},"memory_early":{},"memory_late":{},"descriptors_early":{},"descriptors_late":{},"descriptors_before":{},"descriptors_after":{},"answers":{answers},"wrong":{wrong}"#,
            memory.early, memory.late, files.early, files.late, before.descriptors, after.descriptors
        ))
        .map_err(|error| format!("results: {error}"))?;
    println!("verdict      {}", if is_good { "good" } else { "BAD" });
    Ok(if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn word(is_flat: bool) -> &'static str {
    if is_flat { "flat" } else { "GROWS" }
}
