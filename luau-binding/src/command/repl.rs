//! `huki repl`: lines from standard input, run one after the other in one runtime.
//!
//! Sits beside the other commands; `repl.luau` is the loop itself, which waits for lines as any script
//! does (`@huki/stdio`), so that servers and tasks go on meanwhile.
//!
//! Invariants
//! - Globals stay from line to line; locals end with theirs.
//! - What is not complete is continued on the next line.
//!
//! Not here: how a script runs (the library).

use super::run::{Stopped, drain_on_signal, with_environment};
use hukilau::mlua::{self, Lua, Table};
use hukilau::{Error, Options, Runtime};
use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::rc::Rc;

/// The name of the loop's own chunk: one whose lines no error names.
const LOOP_CHUNK: &str = "=[huki surface repl]";

/// Reads, runs and prints until standard input ends.
pub(crate) fn repl(options: &Options) -> Result<u8, Error> {
    let mut runtime = Runtime::new(&with_environment(options))?;
    let stopped = Stopped::default();
    stopped.set(0, runtime.stop());
    drain_on_signal(stopped)?;
    let is_terminal = std::io::stdin().is_terminal();
    if is_terminal {
        println!(
            "huki {} (Luau {}); the end of input ends it",
            env!("CARGO_PKG_VERSION"),
            hukilau::luau_version()
        );
    }
    let is_done = Rc::new(Cell::new(false));
    let module = module(&runtime, is_terminal, Rc::clone(&is_done))?;
    runtime.add_module("@repl/host", module)?;
    runtime.start_source(LOOP_CHUNK, include_bytes!("repl.luau"))?;
    loop {
        match runtime.turn(None)? {
            hukilau::Turn::Ended(status) => return Ok(status),
            // Servers and timers that the lines have started end with it.
            hukilau::Turn::Running if is_done.get() => return Ok(0),
            hukilau::Turn::Running => {}
        }
    }
}

/// What the loop needs of the terminal.
fn module(runtime: &Runtime, is_terminal: bool, is_done: Rc<Cell<bool>>) -> mlua::Result<Table> {
    let lua = runtime.lua();
    let module = lua.create_table()?;
    let prompt = lua.create_function(move |_, is_more: bool| {
        if is_terminal {
            print!("{}", if is_more { ">> " } else { "> " });
            std::io::stdout().flush().map_err(mlua::Error::external)?;
        }
        Ok(())
    })?;
    module.raw_set("prompt", prompt)?;
    let complain = lua.create_function(|_, message: mlua::LuaString| {
        let mut line = message.as_bytes().to_vec();
        line.push(b'\n');
        std::io::stderr()
            .write_all(&line)
            .map_err(mlua::Error::external)
    })?;
    module.raw_set("complain", complain)?;
    let environment = runtime.new_environment()?;
    module.raw_set(
        "compile",
        lua.create_function(move |lua, source: mlua::LuaString| {
            Ok(compile(lua, &source.as_bytes(), &environment))
        })?,
    )?;
    let done = lua.create_function(move |_, ()| {
        is_done.set(true);
        Ok(())
    })?;
    module.raw_set("done", done)?;
    Ok(module)
}

/// A function for what was typed, as an expression if it is one; or the message, and whether more
/// lines may complete it.
fn compile(
    lua: &Lua,
    source: &[u8],
    environment: &Table,
) -> (Option<mlua::Function>, Option<String>, Option<bool>) {
    let load = |source: &[u8]| {
        lua.load(source)
            .set_name(hukilau::REPL_CHUNK)
            .set_mode(mlua::chunk::ChunkMode::Text)
            .set_environment(environment.clone())
            .into_function()
    };
    let message = |error: mlua::Error| match error {
        mlua::Error::SyntaxError { message, .. } => message.trim_end().to_owned(),
        other => other.to_string(),
    };
    if source.contains(&0) {
        let what = "a NUL byte, which no script has; write \\0 inside a string";
        return (None, Some(format!("repl:1: {what}")), None);
    }
    let expression = match load(&[b"return ", source].concat()) {
        Ok(function) => return (Some(function), None, None),
        Err(error) => message(error),
    };
    match load(source).map_err(message) {
        Ok(function) => (Some(function), None, None),
        Err(statement) => {
            let is_open = |message: &str| message.contains("got <eof>");
            let is_more = is_open(&statement) || is_open(&expression);
            (None, Some(statement), is_more.then_some(true))
        }
    }
}
