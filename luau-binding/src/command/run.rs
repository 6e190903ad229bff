//! `huki run`: a script, its environment, and the signals that end it.
//!
//! Sits beside the other commands; `workers.rs`, `watch.rs` and `repl.rs` use its parts.
//!
//! Invariants
//! - The first SIGINT or SIGTERM drains; the second ends the process at once.
//!
//! Not here: the command line (`args.rs`), the loop (`runtime.rs` of the library).

use super::args::Run;
use hukilau::core::transport::system_text;
use hukilau::{Error, Options, Runtime, Stop};
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a drain waits for what is under way.
const GRACE: Duration = Duration::from_secs(10);

/// Runs a script until it has nothing left to do.
pub(crate) fn run(run: &Run) -> Result<u8, Error> {
    let mut runtime = Runtime::new(&with_environment(&run.options))?;
    let stopped = Stopped::default();
    stopped.set(0, runtime.stop());
    tell_metrics(&runtime);
    drain_on_signal(stopped)?;
    if run.file != "-" {
        return runtime.run_file(&run.file);
    }
    runtime.run_source(hukilau::STDIN_CHUNK, &read_stdin()?)
}

/// Says where figures are served: with port 0 nobody could know.
pub(crate) fn tell_metrics(runtime: &Runtime) {
    if let Some(at) = runtime.metrics_endpoint() {
        super::tell(format_args!("huki: figures at http://{at}/metrics"));
    }
}

/// A script from standard input.
pub(crate) fn read_stdin() -> Result<Vec<u8>, Error> {
    let mut source = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut source)
        .map_err(|error| {
            Error::Unreadable(format!(
                "cannot read standard input: {}",
                system_text(&error)
            ))
        })?;
    Ok(source)
}

/// `options` with the environment of this process.
pub(crate) fn with_environment(options: &Options) -> Options {
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    Options {
        env,
        ..options.clone()
    }
}

/// What a signal is to stop, and whether one has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stopped(Arc<Mutex<Slots>>);

#[derive(Debug, Default)]
struct Slots {
    /// The runtimes, by number of their worker.
    stops: BTreeMap<u32, Stop>,
    /// The grace with which all were stopped.
    asked: Option<Duration>,
}

impl Stopped {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on signals stop this runtime of `worker`; at once if one has come before.
    pub(crate) fn set(&self, worker: u32, stop: Stop) {
        let mut slots = self.slots();
        if let Some(grace) = slots.asked {
            stop.drain(grace);
        }
        slots.stops.insert(worker, stop);
    }

    /// Whether a signal has come.
    pub(crate) fn is_asked(&self) -> bool {
        self.slots().asked.is_some()
    }

    /// Drains all runtimes.
    pub(crate) fn stop(&self, grace: Duration) {
        let mut slots = self.slots();
        slots.asked = Some(grace);
        for stop in slots.stops.values() {
            stop.drain(grace);
        }
    }

    /// SIGHUP: certificates are read anew; a script without any drains, as the system's default ends it.
    #[cfg(unix)]
    fn reload(&self) {
        for stop in self.slots().stops.values() {
            stop.reload_tls_or_drain(GRACE);
        }
    }
}

/// Watches for signals on a thread of its own.
#[cfg(unix)]
pub(crate) fn drain_on_signal(stopped: Stopped) -> Result<(), Error> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals =
        signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(Error::System)?;
    let watch = move || {
        for signal in &mut signals {
            if signal == SIGHUP {
                stopped.reload();
                continue;
            }
            if stopped.is_asked() {
                // As a shell reports a process that a signal has ended.
                std::process::exit(128 + signal);
            }
            stopped.stop(GRACE);
        }
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(watch)
        .map(|_| ())
        .map_err(Error::System)
}

/// Other systems end the process by themselves.
#[cfg(not(unix))]
pub(crate) fn drain_on_signal(_: Stopped) -> Result<(), Error> {
    Ok(())
}
