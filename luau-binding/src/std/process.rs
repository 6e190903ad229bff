//! `@huki/process`: what a script may know and do about its process.
//!
//! Sits above `runtime.rs`, which was given arguments and environment by whoever embeds it: the
//! library itself reads neither.
//!
//! Invariants
//! - `exit` does not return to the script: the coroutine is suspended for ever, and the loop ends
//!   before it turns again.
//!
//! Not here: signals (`main.rs`), other processes.

use crate::runtime::{Options, Worker};
use crate::value::bad_argument;
use crate::vm::{self, Outcome, Returns, Stack};
use std::rc::Rc;

/// Makes the module's table.
pub(crate) fn module(
    lua: &mlua::Lua,
    worker: &Rc<Worker>,
    options: &Options,
) -> mlua::Result<mlua::Table> {
    let module = lua.create_table()?;
    let args = lua.create_sequence_from(options.args.iter().map(String::as_str))?;
    let env = lua.create_table()?;
    for (name, value) in &options.env {
        env.raw_set(name.as_str(), value.as_str())?;
    }
    let cwd = std::env::current_dir().unwrap_or_default();
    module.raw_set("args", args)?;
    module.raw_set("env", env)?;
    module.raw_set("cwd", cwd.to_string_lossy().as_ref())?;
    module.raw_set("os", std::env::consts::OS)?;
    let place = lua.create_table()?;
    place.raw_set("index", options.seat.index() + 1)?;
    place.raw_set("count", options.seat.count())?;
    place.set_readonly(true);
    module.raw_set("worker", place)?;
    let on_shutdown = vm::function(lua, worker, c"onShutdown", super::shutdown::on_shutdown)?;
    module.raw_set("onShutdown", on_shutdown)?;
    module.raw_set("exit", vm::function(lua, worker, c"exit", exit)?)?;
    module.set_readonly(true);
    Ok(module)
}

fn exit(stack: &mut Stack<'_>) -> Outcome {
    let code = match stack.number(1) {
        Some(code) if (0.0..=255.0).contains(&code) && code.fract() == 0.0 => code,
        None if stack.is_nil(1) => 0.0,
        _ => {
            let must = "a whole number from 0 to 255";
            return Err(bad_argument(stack, "process.exit", 1, must));
        }
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to be one of 0 to 255"
    )]
    let code = code as u8;
    stack.worker()?.exit(code);
    if stack.may_suspend() {
        return Ok(Returns::Suspend);
    }
    // Below a metamethod nothing can be suspended; the script goes on until it returns to us.
    Ok(Returns::Values(0))
}
