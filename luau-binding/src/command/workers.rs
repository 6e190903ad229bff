//! `huki run --workers N`: the script on N threads, each with a VM and a reactor of its own.
//!
//! Sits beside `run.rs`. The first worker starts alone, so that a script that cannot start says so
//! once. Then this thread waits for news of any of them, and starts again what has failed.
//!
//! Invariants
//! - A worker that has failed disturbs no other. It starts again after a pause that doubles with
//!   each failure, up to ten seconds, and is short again once the worker has lasted a minute.
//! - A script that fails before it has waited for anything for the first time ends the command.
//! - `process.exit` ends all workers.
//!
//! Not here: how workers share ports and publish to one another (`crew.rs` of the library).

use super::args::Run;
use super::run::{Stopped, drain_on_signal, read_stdin, tell_metrics, with_environment};
use hukilau::{Crew, Error, Options, Runtime, STDIN_CHUNK, Turn};
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

/// Before the first restart.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A worker that has lasted this long has not failed by starting.
const STEADY: Duration = Duration::from_secs(60);
/// Between two looks at whether a pause is still of use.
const LOOK: Duration = Duration::from_millis(50);
/// As a main thread has it, for scripts that recurse.
const STACK_BYTES: usize = 8 * 1024 * 1024;

/// What a thread tells.
enum News {
    /// The script has come as far as waiting for something.
    Started,
    Ended(u32, Result<u8, Error>, Life),
}

/// What is known of a worker that has come to its end.
#[derive(Default)]
struct Life {
    has_started: bool,
    /// It has ended by `process.exit`.
    is_exit: bool,
    lasted: Duration,
}

/// What every worker is started with.
#[derive(Clone)]
struct Job {
    options: Options,
    crew: Crew,
    file: String,
    /// Of a script from standard input.
    source: Option<Arc<Vec<u8>>>,
    stopped: Stopped,
    tell: Sender<News>,
}

/// Runs a script on `count` workers until none is left.
pub(crate) fn run(run: &Run, count: NonZeroU32) -> Result<u8, Error> {
    let stopped = Stopped::default();
    drain_on_signal(stopped.clone())?;
    let (tell, told) = mpsc::channel();
    let job = Job {
        options: with_environment(&run.options),
        crew: Crew::new(count),
        file: run.file.clone(),
        source: match run.file.as_str() {
            "-" => Some(Arc::new(read_stdin()?)),
            _ => None,
        },
        stopped: stopped.clone(),
        tell,
    };
    let mut pauses = vec![Duration::ZERO; count.get() as usize];
    start(&job, 0, Duration::ZERO)?;
    let (mut running, mut waits_for_first) = (1_u32, true);
    let mut result = Ok(0);
    while running > 0 {
        // This thread holds a sender, so there is always somebody to wait for.
        let Ok(news) = told.recv() else { break };
        let is_well = match &news {
            News::Started => true,
            News::Ended(_, outcome, life) => outcome.is_ok() && !life.is_exit,
        };
        if is_well && core::mem::take(&mut waits_for_first) {
            for index in 1..count.get() {
                start(&job, index, Duration::ZERO)?;
                running += 1;
            }
        }
        let News::Ended(index, outcome, life) = news else {
            continue;
        };
        running -= 1;
        if life.is_exit {
            stopped.stop(Duration::ZERO);
        }
        match outcome {
            Ok(status) => result = result.map(|earlier: u8| earlier.max(status)),
            Err(error) => {
                let pause = &mut pauses[index as usize];
                let is_first_start = pause.is_zero() && !life.has_started;
                if is_first_start || stopped.is_asked() {
                    stopped.stop(Duration::ZERO);
                    result = result.and(Err(error));
                    continue;
                }
                if life.lasted >= STEADY {
                    *pause = Duration::ZERO;
                }
                *pause = (*pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
                let (number, seconds) = (index + 1, pause.as_secs_f64());
                super::tell(format_args!(
                    "huki: worker {number} has failed and starts again in {seconds} s:\n{error}"
                ));
                start(&job, index, *pause)?;
                running += 1;
            }
        }
    }
    result
}

/// Starts worker `index` after `pause`, on a thread of its own.
fn start(job: &Job, index: u32, pause: Duration) -> Result<(), Error> {
    let mut job = job.clone();
    job.options.seat = job.crew.seat(index);
    let body = move || {
        wait(pause, &job.stopped);
        let mut life = Life::default();
        let worked = catch_unwind(AssertUnwindSafe(|| work(&job, index, &mut life)));
        let outcome =
            worked.unwrap_or_else(|_| Err(Error::Vm("the worker has panicked".to_owned())));
        // Whoever waited for news has gone only if the process ends.
        let _ = job.tell.send(News::Ended(index, outcome, life));
    };
    std::thread::Builder::new()
        .name(format!("worker {}", index + 1))
        .stack_size(STACK_BYTES)
        .spawn(body)
        .map(|_| ())
        .map_err(Error::System)
}

/// Waits for a pause to pass, or for the end of all.
fn wait(mut pause: Duration, stopped: &Stopped) {
    while !pause.is_zero() && !stopped.is_asked() {
        std::thread::park_timeout(LOOK.min(pause));
        pause = pause.saturating_sub(LOOK);
    }
}

/// Runs the script once, and tells of its life.
fn work(job: &Job, index: u32, life: &mut Life) -> Result<u8, Error> {
    if job.stopped.is_asked() {
        return Ok(0);
    }
    let mut runtime = Runtime::new(&job.options)?;
    job.stopped.set(index, runtime.stop());
    if index == 0 {
        tell_metrics(&runtime);
    }
    match &job.source {
        Some(source) => runtime.start_source(STDIN_CHUNK, source)?,
        None => runtime.start_file(&job.file)?,
    }
    let outcome = loop {
        // The first turn does not wait: that the script has come so far is news.
        let wait = (!life.has_started).then_some(Duration::ZERO);
        match runtime.turn(wait) {
            Ok(Turn::Running) if !life.has_started => {
                life.has_started = true;
                let _ = job.tell.send(News::Started);
            }
            Ok(Turn::Running) => {}
            Ok(Turn::Ended(status)) => break Ok(status),
            Err(error) => break Err(error),
        }
    };
    life.is_exit = outcome.is_ok() && runtime.has_exited();
    life.lasted = runtime.age();
    outcome
}
