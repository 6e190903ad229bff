//! `@huki/stdio`, and the globals `print` and `warn`.
//!
//! Sits above `vm`: bytes go out as they are, and a stream that is gone is an error of the call.
//!
//! Invariants
//! - `print` writes one whole line in one go, so that lines of several workers do not mix.
//! - Writing waits for whoever reads: when a pipe is full the whole worker stands still until there is room. Output is
//!   never dropped, never reordered and never held in memory without bound, and what was written before a crash is out.
//!   A queue would trade one of these away; a reader that may stall belongs behind a file or a logger of its own.
//!
//! Not here: standard input (`lines.rs`), what the runtime itself reports (`runtime.rs`).

use super::lines;
use crate::runtime::Worker;
use crate::value::bad_argument;
use crate::vm::{self, Outcome, Raise, Returns, Stack};
use hukilau_core::transport::system_text;
use std::io::Write;
use std::rc::Rc;

/// Makes the module's table.
pub(crate) fn module(lua: &mlua::Lua, worker: &Rc<Worker>) -> mlua::Result<mlua::Table> {
    let module = lua.create_table()?;
    module.raw_set("write", vm::function(lua, worker, c"write", write)?)?;
    module.raw_set("ewrite", vm::function(lua, worker, c"ewrite", ewrite)?)?;
    module.raw_set(
        "readLine",
        vm::function(lua, worker, c"readLine", lines::read_line)?,
    )?;
    module.set_readonly(true);
    Ok(module)
}

/// Sets the globals.
pub(crate) fn install_globals(lua: &mlua::Lua, worker: &Rc<Worker>) -> mlua::Result<()> {
    let globals = lua.globals();
    globals.raw_set("print", vm::function(lua, worker, c"print", print)?)?;
    globals.raw_set("warn", vm::function(lua, worker, c"warn", warn)?)
}

/// All arguments as text with tabs between them, and a line end.
fn line(stack: &mut Stack<'_>, function: &str) -> Result<Vec<u8>, Raise> {
    let worker = stack.worker()?;
    let mut line = Vec::new();
    for index in 1..=stack.len() {
        if index > 1 {
            line.push(b'\t');
        }
        match stack.string(index) {
            Some(bytes) => line.extend_from_slice(bytes),
            None => {
                let text = stack.try_display(index, &worker.root);
                let text = text.map_err(|told| Raise::from(format!("{function}: {told}")))?;
                line.extend_from_slice(text.as_bytes());
            }
        }
    }
    line.push(b'\n');
    Ok(line)
}

fn print(stack: &mut Stack<'_>) -> Outcome {
    let line = line(stack, "print")?;
    written("print", std::io::stdout().lock().write_all(&line))
}

fn warn(stack: &mut Stack<'_>) -> Outcome {
    let line = line(stack, "warn")?;
    written("warn", std::io::stderr().lock().write_all(&line))
}

fn write(stack: &mut Stack<'_>) -> Outcome {
    let bytes = payload(stack, "stdio.write")?;
    let mut out = std::io::stdout().lock();
    written(
        "stdio.write",
        out.write_all(bytes).and_then(|()| out.flush()),
    )
}

fn ewrite(stack: &mut Stack<'_>) -> Outcome {
    let bytes = payload(stack, "stdio.ewrite")?;
    written("stdio.ewrite", std::io::stderr().lock().write_all(bytes))
}

fn payload<'s>(stack: &'s Stack<'_>, function: &str) -> Result<&'s [u8], Raise> {
    stack
        .bytes(1)
        .ok_or_else(|| bad_argument(stack, function, 1, "a string or a buffer"))
}

fn written(function: &str, result: std::io::Result<()>) -> Outcome {
    result
        .map(|()| Returns::Values(0))
        .map_err(|error| Raise::from(format!("{function}: {}", system_text(&error))))
}
