//! What a script finds when it starts: globals, the modules that are built in, and the sandbox around them.
//!
//! Sits inside `runtime.rs`, which calls it once for each VM.
//!
//! Invariants
//! - Nothing that scripts share can be changed by one of them: globals and modules are frozen.
//! - A name that a built-in module does not have is refused where it is read, with the nearest there is.
//!
//! Not here: what the modules do (`net/`, `std/`), those of dialects (`surface.rs`).

use super::{Error, Options, Worker};
use crate::require::{self, Requirer};
use crate::std::{self as support, no_member, sealed};
use crate::vm;
use crate::{net, surface};
use std::rc::Rc;

/// Runs `load`, which loads Luau of our own: that is bytecode, as it is mostly calls, and translating it
/// would take longer than a start may. What scripts bring is translated if `codegen` says so.
pub(crate) fn untranslated<R>(lua: &mlua::Lua, codegen: bool, load: impl FnOnce() -> R) -> R {
    lua.enable_jit(false);
    let loaded = load();
    lua.enable_jit(codegen);
    loaded
}

/// Registers modules and globals, and closes the sandbox.
pub(super) fn install(
    lua: &mlua::Lua,
    worker: &Rc<Worker>,
    options: &Options,
) -> Result<(), Error> {
    untranslated(lua, options.codegen, || register(lua, worker, options))
}

fn register(lua: &mlua::Lua, worker: &Rc<Worker>, options: &Options) -> Result<(), Error> {
    // Level 2 would inline functions, and tracebacks would not show them.
    let compiler = mlua::chunk::Compiler::new()
        .set_optimization_level(1)
        .set_debug_level(1);
    lua.set_compiler(compiler);
    // Hardly anything that is made here becomes garbage: to look for some would be in vain.
    lua.gc_stop();
    let globals = lua.globals();
    globals.raw_set("loadstring", mlua::Nil)?;
    let requirer = Requirer::running(options.loaded.clone());
    let require = lua.create_require_function(requirer)?;
    globals.raw_set("require", vm::placed_require(lua, worker, require)?)?;
    globals.raw_set("_RUNTIME", concat!("huki ", env!("CARGO_PKG_VERSION")))?;
    support::stdio::install_globals(lua, worker)?;
    support::memory::install_global(lua)?;
    support::task::watch_running(lua, worker)?;
    let net = net::module(lua, worker)?;
    let net = sealed(lua, worker, net, |stack| no_member(stack, "@huki/net"))?;
    lua.register_module("@huki/net", net)?;
    let task = support::task::module(lua, worker)?;
    let task = sealed(lua, worker, task, |stack| no_member(stack, "@huki/task"))?;
    lua.register_module("@huki/task", task)?;
    let process = support::process::module(lua, worker, options)?;
    let process = sealed(lua, worker, process, |stack| {
        no_member(stack, "@huki/process")
    })?;
    lua.register_module("@huki/process", process)?;
    let stdio = support::stdio::module(lua, worker)?;
    let stdio = sealed(lua, worker, stdio, |stack| no_member(stack, "@huki/stdio"))?;
    lua.register_module("@huki/stdio", stdio)?;
    surface::install(lua, options)?;
    require::keep_globals(lua)?;
    lua.sandbox(true)?;
    surface::decide(lua, worker, options)?;
    lua.gc_restart();
    Ok(())
}
