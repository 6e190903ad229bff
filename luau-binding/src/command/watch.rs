//! `huki run --watch`: starts again when the script or a module it has required changes.
//!
//! Sits beside `run.rs`. Each run is a runtime on a thread of its own, which this thread drains when
//! a file changes; so a listener is closed before the next run opens it again.
//!
//! Invariants
//! - Two runs never overlap.
//! - A run that has failed or ended is started again by the next change, and only by it.
//! - A signal drains the run and ends the command with its status.
//!
//! Not here: which files a script has loaded (`require.rs` of the library).

use super::args::Run;
use super::run::{Stopped, drain_on_signal, with_environment};
use hukilau::{Error, Loaded, Options, Runtime};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// Between two looks at the files.
const LOOK: Duration = Duration::from_millis(200);
/// From the first sign of a change to the next start: editors write in several steps.
const SETTLE: Duration = Duration::from_millis(60);
/// What a run that is replaced has to finish.
const GRACE: Duration = Duration::from_secs(2);

/// Runs a script again and again.
pub(crate) fn watch(run: &Run) -> Result<u8, Error> {
    let stopped = Stopped::default();
    drain_on_signal(stopped.clone())?;
    loop {
        let loaded = Loaded::default();
        loaded.add(Path::new(&run.file));
        let options = Options {
            loaded: loaded.clone(),
            ..with_environment(&run.options)
        };
        let (tell, told) = mpsc::channel();
        let (file, inner) = (run.file.clone(), stopped.clone());
        let thread = std::thread::Builder::new()
            .name("script".to_owned())
            .spawn(move || {
                let mut runtime = Runtime::new(&options)?;
                inner.set(0, runtime.stop());
                // Whoever listens may be gone already, and then nobody needs it.
                let _ = tell.send(runtime.stop());
                runtime.run_file(&file)
            })
            .map_err(Error::System)?;
        let stop = told.recv().ok();
        let changed = wait(&loaded, || thread.is_finished() || stopped.is_asked());
        if let (Some(stop), Some(_)) = (&stop, &changed) {
            stop.drain(GRACE);
        }
        let status = thread
            .join()
            .unwrap_or_else(|_| Err(Error::Vm("the run has panicked".to_owned())));
        if stopped.is_asked() {
            return status;
        }
        match (&status, &changed) {
            (Err(error), _) => super::tell(format_args!("{error}")),
            (Ok(_), Some(_)) => {}
            (Ok(status), None) => super::tell(format_args!(
                "huki: the script has ended with status {status}"
            )),
        }
        let Some(changed) = changed.or_else(|| wait(&loaded, || stopped.is_asked())) else {
            return status;
        };
        super::tell(format_args!(
            "huki: {} has changed, starting again",
            changed.display()
        ));
    }
}

/// Waits for a file to change; nothing if `is_over` says so before.
fn wait(loaded: &Loaded, is_over: impl Fn() -> bool) -> Option<PathBuf> {
    while !is_over() {
        if let Some(changed) = loaded.changed() {
            std::thread::park_timeout(SETTLE);
            return Some(changed);
        }
        std::thread::park_timeout(LOOK);
    }
    None
}
