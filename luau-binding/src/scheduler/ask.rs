//! What scripts ask of the scheduler: wait, spawn, cancel.
//!
//! Sits inside `scheduler.rs`, above its table of tasks and below `std/task.rs`, which checks
//! arguments. A coroutine that a script made itself gets a task the first time it waits.
//!
//! Invariants
//! - Where a coroutine cannot be suspended, nothing is changed and an error says why.
//! - What is cancelled or lost still settles its purpose: a request is answered.
//!
//! Not here: when a task is due (`scheduler.rs`).

use super::{Resume, Scheduler, State, WaitKey, Wake, lose, run};
use crate::bridge::Purpose;
use crate::runtime::Worker;
use crate::value::bad_argument;
use crate::vm::coroutine::Coroutine;
use crate::vm::guard::NOT_ENOUGH_MEMORY;
use crate::vm::{Raise, Stack};
use std::rc::Rc;

/// Suspends the coroutine that runs `stack` until a connection wakes it. Return
/// [`Returns::Suspend`](crate::vm::Returns) next.
///
/// # Errors
/// Where a coroutine cannot be suspended.
pub(crate) fn wait_for_wire(worker: &Worker, stack: &mut Stack<'_>) -> Result<WaitKey, Raise> {
    let id = running(worker, stack)?;
    let key = worker.scheduler.borrow_mut().enter(id, State::Wire);
    key.ok_or_else(|| Raise::from("this coroutine cannot wait"))
}

/// Suspends the coroutine that runs `stack` for `seconds`; it is resumed with those that passed.
///
/// # Errors
/// Where a coroutine cannot be suspended.
pub(crate) fn wait_for_time(
    worker: &Worker,
    stack: &mut Stack<'_>,
    now: f64,
    seconds: f64,
) -> Result<(), Raise> {
    let id = running(worker, stack)?;
    let mut scheduler = worker.scheduler.borrow_mut();
    if let Some(key) = scheduler.enter(id, State::Timer) {
        scheduler.at(now + seconds, key, Wake::Elapsed { since: now });
    }
    Ok(())
}

/// The task of the coroutine that runs, made if a script created the coroutine itself.
fn running(worker: &Worker, stack: &mut Stack<'_>) -> Result<u32, Raise> {
    if !stack.may_suspend() {
        return Err(Raise::from(
            "cannot wait here: a metamethod, a sort or another call from native code is below",
        ));
    }
    if let Some(id) = stack.label() {
        return Ok(id);
    }
    stack.push_running();
    let top = stack.len();
    let coroutine = stack.coroutine(top, &worker.root);
    stack.pop(1);
    let coroutine = coroutine.ok_or_else(|| Raise::from("there is no coroutine to suspend"))?;
    worker
        .scheduler
        .borrow_mut()
        .adopt(Rc::new(coroutine), Purpose::Detached, true)
        .ok_or_else(|| Raise::from("too many coroutines"))
}

/// When a task that a script asks for begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    /// Before the call returns.
    Now,
    /// After what runs now, in this turn.
    Soon,
    /// This many seconds later.
    After(f64),
}

/// The face of `task.spawn`, `defer` and `delay`: runs the function or coroutine at the bottom of
/// `stack`, with what is above it as arguments. Leaves the coroutine as the one value.
///
/// # Errors
/// If the bottom is neither a function nor a coroutine that can be resumed.
pub(crate) fn spawn(
    worker: &Worker,
    stack: &mut Stack<'_>,
    when: When,
    now: f64,
) -> Result<(), Raise> {
    let args = stack.len() - 1;
    let (id, coroutine) = match stack.label_at(1) {
        Some(label) => existing(worker, stack, label)?,
        None if worker.guard.is_full() => return Err(Raise::from(NOT_ENOUGH_MEMORY)),
        None => {
            let mut scheduler = worker.scheduler.borrow_mut();
            let (id, coroutine) = scheduler
                .take(&worker.root)
                .ok_or_else(|| Raise::from("too many coroutines"))?;
            if let Some(task) = scheduler.get_mut(id) {
                task.is_exposed = true;
            }
            stack.copy_to(&mut coroutine.stack(worker), 1);
            (id, coroutine)
        }
    };
    let moved = stack.move_to(&mut coroutine.stack(worker), args);
    if let Err(raise) = moved {
        worker.scheduler.borrow_mut().retire(id, false);
        return Err(raise);
    }
    stack.pop(1);
    stack.push_pin(coroutine.pin());
    match when {
        When::Now => {
            run(worker, stack, id, &coroutine, Resume::Values(args));
        }
        When::Soon => {
            let mut scheduler = worker.scheduler.borrow_mut();
            if let Some(key) = scheduler.enter(id, State::Ready) {
                scheduler.ready.push_back((key, args));
            }
        }
        When::After(seconds) => {
            let mut scheduler = worker.scheduler.borrow_mut();
            if let Some(key) = scheduler.enter(id, State::Timer) {
                scheduler.at(now + seconds, key, Wake::Start { args });
            }
        }
    }
    Ok(())
}

/// The task of the coroutine at the bottom of `stack`, which must be suspended.
fn existing(
    worker: &Worker,
    stack: &mut Stack<'_>,
    label: Option<u32>,
) -> Result<(u32, Rc<Coroutine>), Raise> {
    let known = label.and_then(|id| {
        let scheduler = worker.scheduler.borrow();
        let coroutine = scheduler.get(id)?.coroutine.clone()?;
        Some((id, coroutine))
    });
    let (id, coroutine) = match known {
        Some(known) => known,
        None => {
            let coroutine = stack
                .coroutine(1, &worker.root)
                .map(Rc::new)
                .ok_or_else(|| Raise::from("argument #1 is no coroutine"))?;
            let id = worker
                .scheduler
                .borrow_mut()
                .adopt(Rc::clone(&coroutine), Purpose::Detached, true)
                .ok_or_else(|| Raise::from("too many coroutines"))?;
            (id, coroutine)
        }
    };
    if coroutine.is_suspended() {
        return Ok((id, coroutine));
    }
    if known_to_script(worker, id) {
        worker.scheduler.borrow_mut().retire(id, false);
    }
    Err(Raise::from(
        "task.spawn: this coroutine is running or has ended, and cannot be resumed",
    ))
}

/// Whether task `id` is a script's own coroutine and not on the C stack.
fn known_to_script(worker: &Worker, id: u32) -> bool {
    worker.scheduler.borrow().get(id).is_some_and(|task| {
        matches!(task.purpose, Purpose::Detached) && task.state != State::Running
    })
}

impl Scheduler {
    /// Whether a coroutine was cancelled since the last call: keys may have gone stale.
    pub(crate) fn take_cancelled(&mut self) -> bool {
        std::mem::take(&mut self.has_cancelled)
    }

    /// Whether a call of [`take_cancelled`](Self::take_cancelled) would say so.
    pub(crate) fn has_cancelled(&self) -> bool {
        self.has_cancelled
    }
}

/// The face of `task.cancel`: ends the coroutine at the bottom of `stack`, whatever it waits for.
///
/// # Errors
/// If it is no coroutine, or one that is running.
pub(crate) fn cancel(worker: &Worker, stack: &mut Stack<'_>) -> Result<(), Raise> {
    let running = || Raise::from("task.cancel: a coroutine that is running cannot be cancelled");
    match stack.label_at(1) {
        None => Err(bad_argument(
            stack,
            "task.cancel",
            1,
            "a coroutine or a ticker",
        )),
        Some(None) => {
            let is_reset = stack
                .coroutine(1, &worker.root)
                .is_some_and(|coroutine| coroutine.reset());
            is_reset.then_some(()).ok_or_else(running)
        }
        Some(Some(id)) => {
            let coroutine = worker
                .scheduler
                .borrow()
                .get(id)
                .filter(|task| task.state != State::Running)
                .and_then(|task| task.coroutine.clone())
                .ok_or_else(running)?;
            if !coroutine.reset() {
                return Err(running());
            }
            let is_detached = {
                let mut scheduler = worker.scheduler.borrow_mut();
                scheduler.has_cancelled = true;
                scheduler
                    .get(id)
                    .is_some_and(|task| matches!(task.purpose, Purpose::Detached))
            };
            if is_detached {
                worker.scheduler.borrow_mut().retire(id, false);
            } else {
                lose(worker, id, "its coroutine was cancelled");
            }
            Ok(())
        }
    }
}

/// The face of `coroutine.close` for a coroutine with this label that has just been closed: frees what it waited for. One with
/// a purpose is settled with the strays.
pub(crate) fn forget(worker: &Worker, id: u32) {
    let mut scheduler = worker.scheduler.borrow_mut();
    let is_detached = scheduler.get(id).is_some_and(|task| {
        task.state != State::Running && matches!(task.purpose, Purpose::Detached)
    });
    if is_detached {
        scheduler.has_cancelled = true;
        scheduler.retire(id, false);
    }
}
