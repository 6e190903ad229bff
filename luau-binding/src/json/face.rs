//! JSON as scripts see it: `net.json`, `net.jsonEncode`, `net.jsonDecode`, `net.array`, `net.object`.
//!
//! Sits inside `json.rs` and fills a part of the table of `@huki/net`.
//!
//! Invariants
//! - Options are checked before anything is read or written; an unknown one is refused.
//!
//! Not here: what values and texts become (`encode.rs`, `json.rs`).

use super::{BYTES_MAX, DEPTH_MAX, Marks, Reading, Spelling, decode, encode};
use crate::runtime::Worker;
use crate::value::{Options, bad_argument, describe};
use crate::vm::{self, Kind, Outcome, Raise, Returns, Stack};
use std::ffi::CStr;
use std::rc::Rc;

/// Adds the functions to the module's table, and makes the metatables of empty tables.
pub(crate) fn install(
    lua: &mlua::Lua,
    worker: &Rc<Worker>,
    module: &mlua::Table,
) -> mlua::Result<()> {
    let set = |name: &str, function: mlua::Function| module.raw_set(name, function);
    set("json", vm::function(lua, worker, c"json", json)?)?;
    set(
        "jsonEncode",
        vm::function(lua, worker, c"jsonEncode", json_encode)?,
    )?;
    set(
        "jsonDecode",
        vm::function(lua, worker, c"jsonDecode", json_decode)?,
    )?;
    set("array", vm::function(lua, worker, c"array", array)?)?;
    set("object", vm::function(lua, worker, c"object", object)?)?;
    let mark = || {
        let mark = lua.create_table()?;
        mark.set_readonly(true);
        Ok::<_, mlua::Error>(mark)
    };
    let (array, object) = (mark()?, mark()?);
    worker.json.borrow_mut().marks = Some(Marks {
        array_address: array.to_pointer(),
        object_address: object.to_pointer(),
        array: worker.root.pin(lua, array)?,
        object: worker.root.pin(lua, object)?,
    });
    Ok(())
}

/// `net.json(value, status?)`: a response with the value as JSON.
fn json(stack: &mut Stack<'_>) -> Outcome {
    let status = stack.number(2);
    if status.is_none() && !stack.is_nil(2) {
        return Err(bad_argument(stack, "net.json", 2, "a status"));
    }
    stack.resize(1);
    stack.push_table(0, 3);
    encode_to_string(stack, "net.json", Spelling::default())?;
    stack.set_field(2, c"body");
    stack.push_number(status.unwrap_or(200.0));
    stack.set_field(2, c"status");
    stack.push_table(0, 1);
    stack.push_string("application/json");
    stack.set_field(3, c"content-type");
    stack.set_field(2, c"headers");
    Ok(Returns::Values(1))
}

/// Pushes the value at 1 as JSON text.
fn encode_to_string(
    stack: &mut Stack<'_>,
    function: &str,
    spelling: Spelling,
) -> Result<(), Raise> {
    let worker = stack.worker()?;
    let mut scratch = worker.json.borrow_mut();
    let text = encode(&mut scratch, stack, 1, spelling)
        .map_err(|error| Raise::from(format!("{function}: {error}")))?;
    stack.push_string(text);
    Ok(())
}

/// The boolean option `key`.
fn flag(options: &Options<'_>, stack: &mut Stack<'_>, key: &CStr) -> Result<bool, Raise> {
    stack.push_field(options.index, key);
    let at = stack.len();
    let value = match stack.kind(at) {
        Kind::Nil => Some(false),
        _ => stack.boolean(at),
    };
    let value = value.ok_or_else(|| {
        options.error(format!(
            "option '{}' must be a boolean, not {}",
            key.to_string_lossy(),
            describe(stack, at)
        ))
    });
    stack.pop(1);
    value
}

/// Whether the option `key` is the second of `words`; the first is the default.
fn choice(
    options: &Options<'_>,
    stack: &mut Stack<'_>,
    key: &CStr,
    words: [&str; 2],
) -> Result<bool, Raise> {
    match options.text(stack, key)?.as_deref() {
        None => Ok(false),
        Some(word) if word == words[0] => Ok(false),
        Some(word) if word == words[1] => Ok(true),
        Some(word) => Err(options.error(format!(
            "option '{}' must be \"{}\" or \"{}\", not \"{}\"",
            key.to_string_lossy(),
            words[0],
            words[1],
            word.escape_debug()
        ))),
    }
}

/// `net.jsonEncode(value, pretty | options)`.
fn json_encode(stack: &mut Stack<'_>) -> Outcome {
    const FUNCTION: &str = "net.jsonEncode";
    let mut spelling = Spelling::default();
    match stack.kind(2) {
        Kind::None | Kind::Nil => {}
        Kind::Boolean => {
            spelling.is_pretty = stack.boolean(2) == Some(true);
            spelling.is_sorted = spelling.is_pretty;
        }
        Kind::Table => spelling = read_spelling(stack, FUNCTION)?,
        _ => {
            let must = "a boolean (pretty) or a table of options";
            return Err(bad_argument(stack, FUNCTION, 2, must));
        }
    }
    stack.resize(1);
    encode_to_string(stack, FUNCTION, spelling)?;
    Ok(Returns::Values(1))
}

fn read_spelling(stack: &mut Stack<'_>, owner: &str) -> Result<Spelling, Raise> {
    let options = Options { index: 2, owner };
    options.check_keys(
        stack,
        &[
            "pretty",
            "sortKeys",
            "emptyTable",
            "sparse",
            "keys",
            "nonFinite",
            "maxDepth",
            "maxBytes",
        ],
    )?;
    let defaults = Spelling::default();
    let is_pretty = flag(&options, stack, c"pretty")?;
    Ok(Spelling {
        is_pretty,
        is_sorted: flag(&options, stack, c"sortKeys")? || is_pretty,
        empty_is_object: choice(&options, stack, c"emptyTable", ["array", "object"])?,
        fills_holes: choice(&options, stack, c"sparse", ["error", "null"])?,
        keys_as_text: choice(&options, stack, c"keys", ["error", "text"])?,
        odd_is_null: choice(&options, stack, c"nonFinite", ["error", "null"])?,
        depth_max: options
            .whole(stack, c"maxDepth", (1, DEPTH_MAX))?
            .unwrap_or(defaults.depth_max),
        bytes_max: options
            .whole(stack, c"maxBytes", (1, BYTES_MAX))?
            .unwrap_or(defaults.bytes_max),
    })
}

/// `net.jsonDecode(text, options?)`.
fn json_decode(stack: &mut Stack<'_>) -> Outcome {
    const FUNCTION: &str = "net.jsonDecode";
    if stack.bytes(1).is_none() {
        return Err(bad_argument(stack, FUNCTION, 1, "a string or a buffer"));
    }
    let mut reading = Reading::default();
    match stack.kind(2) {
        Kind::None | Kind::Nil => {}
        Kind::Table => {
            let options = Options {
                index: 2,
                owner: FUNCTION,
            };
            options.check_keys(stack, &["null", "maxDepth", "maxBytes"])?;
            reading.null_is_nil = choice(&options, stack, c"null", ["value", "nil"])?;
            if let Some(depth) = options.whole(stack, c"maxDepth", (1, DEPTH_MAX))? {
                reading.depth_max = depth;
            }
            if let Some(bytes) = options.whole(stack, c"maxBytes", (1, BYTES_MAX))? {
                reading.bytes_max = bytes;
            }
        }
        _ => return Err(bad_argument(stack, FUNCTION, 2, "a table of options")),
    }
    decode(stack.worker()?, stack, reading, |stack| stack.bytes(1))
        .map_err(|error| Raise::from(format!("{FUNCTION}: {error}")))?;
    Ok(Returns::Values(1))
}

/// `net.array(table?)`: the table, or a new one, which encodes as `[]` while it is empty.
fn array(stack: &mut Stack<'_>) -> Outcome {
    mark(stack, "net.array", |marks| &marks.array)
}

/// `net.object(table?)`: the table, or a new one, which encodes as `{}` while it is empty.
fn object(stack: &mut Stack<'_>) -> Outcome {
    mark(stack, "net.object", |marks| &marks.object)
}

fn mark(stack: &mut Stack<'_>, function: &str, which: impl Fn(&Marks) -> &vm::Pin) -> Outcome {
    stack.resize(1);
    if stack.is_nil(1) {
        stack.resize(0);
        stack.push_table(0, 0);
    }
    if stack.kind(1) != Kind::Table {
        return Err(bad_argument(stack, function, 1, "a table"));
    }
    let json = stack.worker()?.json.borrow();
    let Some(marks) = &json.marks else {
        return Ok(Returns::Values(1));
    };
    let found = stack.metatable_address(1);
    if !found.is_null() && found != marks.array_address && found != marks.object_address {
        return Err(Raise::from(format!(
            "{function}: the table has a metatable of its own, which would be lost"
        )));
    }
    if stack.is_read_only(1) {
        return Err(Raise::from(format!("{function}: the table is frozen")));
    }
    stack.set_metatable(1, which(marks));
    Ok(Returns::Values(1))
}
