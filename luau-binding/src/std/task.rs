//! `@huki/task`: the scheduler as scripts see it.
//!
//! Sits above `scheduler.rs`: these functions check their arguments and name what is wrong.
//!
//! Invariants
//! - `task.wait` suspends the coroutine that calls it and nothing else.
//! - A coroutine that was cancelled is never resumed, whatever it waited for.
//!
//! Not here: what is due when (`scheduler.rs`).

use super::every;
use crate::runtime::Worker;
use crate::scheduler::{self, When};
use crate::value::bad_argument;
use crate::vm::{self, Kind, Outcome, Raise, Returns, Stack};
use std::rc::Rc;

/// The longest wait, in seconds: about three thousand years. Longer ones are meant to be for ever
/// and would overflow a deadline.
const SECONDS_MAX: f64 = 1.0e11;

/// Makes the module's table.
pub(crate) fn module(lua: &mlua::Lua, worker: &Rc<Worker>) -> mlua::Result<mlua::Table> {
    every::install(lua, worker)?;
    let module = lua.create_table()?;
    module.raw_set("spawn", vm::function(lua, worker, c"spawn", spawn)?)?;
    module.raw_set("defer", vm::function(lua, worker, c"defer", defer)?)?;
    module.raw_set("delay", vm::function(lua, worker, c"delay", delay)?)?;
    module.raw_set("wait", vm::function(lua, worker, c"wait", wait)?)?;
    module.raw_set("every", vm::function(lua, worker, c"every", every::every)?)?;
    module.raw_set("cancel", vm::function(lua, worker, c"cancel", cancel)?)?;
    module.set_readonly(true);
    Ok(module)
}

/// Replaces `coroutine.running`: whoever has a coroutine as a value may resume or cancel it later,
/// so from then on it is not used for anything else. And `coroutine.close`, of which the scheduler would not hear.
pub(crate) fn watch_running(lua: &mlua::Lua, worker: &Rc<Worker>) -> mlua::Result<()> {
    let library: mlua::Table = lua.globals().get("coroutine")?;
    library.raw_set("running", vm::function(lua, worker, c"running", running)?)?;
    library.raw_set("close", vm::function(lua, worker, c"close", close)?)
}

/// `coroutine.close`, which also frees what the coroutine waited for.
fn close(stack: &mut Stack<'_>) -> Outcome {
    let Some(label) = stack.label_at(1) else {
        return Err(bad_argument(stack, "coroutine.close", 1, "a coroutine"));
    };
    let Some(results) = stack.close_coroutine(1) else {
        return Err(Raise::from(
            "coroutine.close: a coroutine that is running cannot be closed",
        ));
    };
    if let Some(id) = label {
        scheduler::forget(stack.worker()?, id);
    }
    Ok(Returns::Values(results))
}

fn running(stack: &mut Stack<'_>) -> Outcome {
    if let Some(label) = stack.label() {
        stack.worker()?.scheduler.borrow_mut().expose(label);
    }
    stack.push_running();
    Ok(Returns::Values(1))
}

/// The seconds at `index`: a number, or nothing for zero.
fn seconds(stack: &Stack<'_>, index: i32, function: &str) -> Result<f64, Raise> {
    if stack.is_nil(index) {
        return Ok(0.0);
    }
    match stack.number(index) {
        Some(seconds) if !seconds.is_nan() => Ok(seconds.clamp(0.0, SECONDS_MAX)),
        _ => Err(bad_argument(stack, function, index, "a number of seconds")),
    }
}

/// Refuses what cannot be run at `index`.
fn check_runnable(stack: &Stack<'_>, index: i32, function: &str) -> Result<(), Raise> {
    match stack.kind(index) {
        Kind::Function | Kind::Thread => Ok(()),
        _ => Err(bad_argument(
            stack,
            function,
            index,
            "a function or a coroutine",
        )),
    }
}

fn spawn(stack: &mut Stack<'_>) -> Outcome {
    check_runnable(stack, 1, "task.spawn")?;
    begin(stack, When::Now)
}

fn defer(stack: &mut Stack<'_>) -> Outcome {
    check_runnable(stack, 1, "task.defer")?;
    begin(stack, When::Soon)
}

fn delay(stack: &mut Stack<'_>) -> Outcome {
    let after = seconds(stack, 1, "task.delay")?;
    check_runnable(stack, 2, "task.delay")?;
    stack.remove(1);
    begin(stack, When::After(after))
}

fn begin(stack: &mut Stack<'_>, when: When) -> Outcome {
    let worker = stack.worker()?;
    scheduler::spawn(worker, stack, when, vm::clock())?;
    // The new task may have asked the process to end; then nobody goes on.
    match worker.exit_code() {
        Some(_) if stack.may_suspend() => Ok(Returns::Suspend),
        _ => Ok(Returns::Values(1)),
    }
}

fn wait(stack: &mut Stack<'_>) -> Outcome {
    let duration = seconds(stack, 1, "task.wait")?;
    let worker = stack.worker()?;
    scheduler::wait_for_time(worker, stack, vm::clock(), duration)?;
    Ok(Returns::Suspend)
}

fn cancel(stack: &mut Stack<'_>) -> Outcome {
    if every::cancelled(stack)? {
        return Ok(Returns::Values(0));
    }
    let worker = stack.worker()?;
    scheduler::cancel(worker, stack)?;
    Ok(Returns::Values(0))
}
