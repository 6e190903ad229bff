//! `process.onShutdown(fn)`: what a script does when its process is asked to end.
//!
//! Sits beside `process.rs`. When a drain of the whole runtime begins, by a signal or an embedder,
//! each function runs in a coroutine of its own, and the loop goes on until they have ended or the
//! grace is over.
//!
//! Invariants
//! - Each function is called once at most; one that comes when the drain has begun, at once.
//! - A drain ends in time, whatever they do.
//! - `process.exit`, and a script that has nothing left to do, call none of them.
//!
//! Not here: what a drain does to connections (core), signals (the command).

use crate::bridge::Purpose;
use crate::runtime::Worker;
use crate::scheduler;
use crate::value::bad_argument;
use crate::vm::{self, Kind, Outcome, Pin, Returns, Stack};
use std::cell::{Cell, RefCell};
use std::time::Duration;

/// The functions of a worker, and how far they have come.
#[derive(Default)]
pub(crate) struct Shutdown {
    functions: RefCell<Vec<Pin>>,
    /// Those that have not ended.
    running: Cell<usize>,
    /// When the grace is over, by [`vm::clock`]; none before a drain begins.
    until: Cell<Option<f64>>,
}

impl Shutdown {
    /// Seconds that a drain still waits for functions; `None` if it waits for none.
    pub(crate) fn waits(&self) -> Option<f64> {
        let left = self.until.get()? - vm::clock();
        (self.running.get() > 0 && left > 0.0).then_some(left)
    }

    /// A function has ended.
    pub(crate) fn note_end(&self) {
        self.running.set(self.running.get().saturating_sub(1));
    }
}

/// `process.onShutdown(fn)`.
pub(super) fn on_shutdown(stack: &mut Stack<'_>) -> Outcome {
    if stack.kind(1) != Kind::Function {
        return Err(bad_argument(stack, "process.onShutdown", 1, "a function"));
    }
    let worker = stack.worker()?;
    let function = stack.pin(1, worker.root.released());
    let shutdown = &worker.shutdown;
    shutdown.functions.borrow_mut().push(function);
    Ok(Returns::Values(0))
}

/// Runs what has been registered since the last call, once a drain of `grace` has been asked for.
pub(crate) fn run(worker: &Worker, grace: Duration) {
    let shutdown = &worker.shutdown;
    if shutdown.until.get().is_none() {
        let until = vm::clock() + grace.as_secs_f64();
        shutdown.until.set(Some(until));
    }
    let functions = shutdown.functions.take();
    for function in functions {
        shutdown.running.set(shutdown.running.get() + 1);
        let from = worker.root.stack(worker);
        scheduler::start(worker, &from, Purpose::Shutdown, |stack| {
            stack.push_pin(&function);
            0
        });
    }
}
