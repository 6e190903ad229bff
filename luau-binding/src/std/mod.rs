//! The small support surface beside the network: tasks, the process, its streams, print and warn.
//!
//! Sits above `scheduler` and `vm`. Each file is one module that scripts require, and is typed in
//! `types/huki/`.
//!
//! - `task.rs`     `@huki/task`
//! - `every.rs`    `task.every`, and the object it returns
//! - `process.rs`  `@huki/process`
//! - `shutdown.rs` `process.onShutdown`
//! - `stdio.rs`    `@huki/stdio`, and the globals `print` and `warn`
//! - `lines.rs`    the lines of standard input
//! - `memory.rs`   the global `collectgarbage`
//!
//! Not here: the network (`net/`), how modules are found (`require.rs`).

use crate::net::methods;
use crate::runtime::Worker;
use crate::vm::{self, Outcome, Stack};
use std::rc::Rc;

pub(crate) mod every;
pub(crate) mod lines;
pub(crate) mod memory;
pub(crate) mod process;
pub(crate) mod shutdown;
pub(crate) mod stdio;
pub(crate) mod task;

/// Has a module refuse names that it does not have: a mistyped function is told where it stands, with the nearest
/// there is. `refuse` calls [`no_member`].
pub(crate) fn sealed<F>(
    lua: &mlua::Lua,
    worker: &Rc<Worker>,
    module: mlua::Table,
    refuse: F,
) -> mlua::Result<mlua::Table>
where
    F: Fn(&mut Stack<'_>) -> Outcome + Copy + 'static,
{
    let meta = lua.create_table()?;
    meta.raw_set("__index", vm::function(lua, worker, c"__index", refuse)?)?;
    meta.raw_set("__metatable", "locked")?;
    meta.set_readonly(true);
    module.set_readonly(false);
    module.set_metatable(Some(meta))?;
    module.set_readonly(true);
    Ok(module)
}

/// The error of reading a name that the module at 1 does not have.
pub(crate) fn no_member(stack: &mut Stack<'_>, module: &str) -> Outcome {
    let mut names = Vec::new();
    let mut cursor = 0;
    while let Some(next) = stack.next_entry(1, cursor) {
        let key = stack.string(stack.len() - 1).unwrap_or_default();
        names.push(String::from_utf8_lossy(key).into_owned());
        stack.pop(2);
        cursor = next;
    }
    names.sort_unstable();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Err(methods::unknown(stack, module, &names))
}
