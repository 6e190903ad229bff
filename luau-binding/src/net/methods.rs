//! Methods as values: `pcall(request.json, request)` needs the function that `request:json()` does
//! not.
//!
//! Sits in the native module. Functions are made once for each kind of userdata and pinned.
//!
//! Invariants
//! - Reading a member that does not exist raises and suggests the nearest one that does.
//!
//! Not here: what the methods do (`request.rs`, `socket.rs`, `server.rs`).

use crate::runtime::Worker;
use crate::value::{advice, describe};
use crate::vm::atom::Atom;
use crate::vm::object::Tag;
use crate::vm::{self, Outcome, Pin, Raise, Stack};
use std::ffi::CStr;
use std::rc::Rc;

/// The functions behind the methods of all kinds of userdata.
pub(crate) type Methods = Vec<(Tag, Atom, Pin)>;

/// Adds a method, which must capture nothing.
pub(crate) fn add<F>(
    lua: &mlua::Lua,
    worker: &Rc<Worker>,
    (tag, atom): (Tag, Atom),
    name: &'static CStr,
    function: F,
) -> mlua::Result<()>
where
    F: Fn(&mut Stack<'_>) -> Outcome + Copy + 'static,
{
    let function = vm::function(lua, worker, name, function)?;
    let pin = worker.root.pin(lua, function)?;
    worker.methods.borrow_mut().push((tag, atom, pin));
    Ok(())
}

/// Pushes the function of a method. False, and nothing is pushed, if there is none.
///
/// # Errors
/// Outside of a running runtime.
pub(crate) fn push(stack: &mut Stack<'_>, tag: Tag, atom: Atom) -> Result<bool, Raise> {
    let methods = stack.worker()?.methods.borrow();
    let found = methods
        .iter()
        .find(|(of, name, _)| *of == tag && *name == atom);
    if let Some((_, _, pin)) = found {
        stack.push_pin(pin);
    }
    Ok(found.is_some())
}

/// The error of reading a member that is not there, whose name is at 2.
pub(crate) fn unknown(stack: &Stack<'_>, owner: &str, members: &[&str]) -> Raise {
    match stack.string(2) {
        Some(name) => no_member(owner, &name.escape_ascii().to_string(), members),
        None => Raise::from(format!(
            "{owner}: members have names, not {}",
            describe(stack, 2)
        )),
    }
}

/// The error of calling a method that is not there.
pub(crate) fn unknown_call(stack: &Stack<'_>, owner: &str, members: &[&str]) -> Raise {
    let name = stack.called_name();
    if members.contains(&name.as_str()) {
        return Raise::from(format!(
            "{owner} has no method '{name}': it is a field, read without colon and parentheses"
        ));
    }
    no_member(owner, &name, members)
}

fn no_member(owner: &str, name: &str, members: &[&str]) -> Raise {
    let hint = advice(name, members);
    Raise::from(format!("{owner} has no member '{name}'{hint}"))
}
