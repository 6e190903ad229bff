//! Header fields as scripts see them, of requests that arrive and of responses to our own: read
//! without care for case, walked in wire order.
//!
//! Sits in the native module. The fields lie in a record as `request.rs` writes it; nothing but what
//! is asked for becomes a Luau value.
//!
//! Invariants
//! - Names compare without case (RFC 9110 §5.1); values are bytes as sent.
//! - Nothing here can be changed by a script.
//!
//! Not here: fields that are sent (`response.rs`, `client/options.rs`).

use super::methods;
use super::request::View;
use crate::runtime::Worker;
use crate::value::{bad_argument, describe};
use crate::vm::atom::Atom;
use crate::vm::object::{Metatable, Tag};
use crate::vm::{Outcome, Raise, Returns, Stack};
use std::rc::Rc;

/// Installs the metatable and the methods.
pub(crate) fn install(lua: &mlua::Lua, worker: &Rc<Worker>) -> mlua::Result<()> {
    Metatable::new(lua, worker, Tag::Headers, c"Headers")?
        .with(c"__index", header)?
        .with(c"__newindex", |_| {
            Err(Raise::from("headers that have arrived cannot be changed"))
        })?
        .with(c"__namecall", call_headers)?
        .with(c"__iter", iterate)?
        .install()?;
    let tag = Tag::Headers;
    methods::add(lua, worker, (tag, Atom::All), c"all", all_values)?;
    methods::add(lua, worker, (tag, Atom::Pairs), c"pairs", pairs)?;
    methods::add(lua, worker, (tag, Atom::Next), c"next", next_header)
}

fn headers<'s>(stack: &'s Stack<'_>) -> Result<View<'s>, Raise> {
    stack
        .record(1, Tag::Headers)
        .and_then(View::of)
        .ok_or_else(|| bad_argument(stack, "headers", 1, "headers (call methods with a colon)"))
}

/// `headers[name]`: the first value, or nil. A field called as a
/// method is found before it.
fn header(stack: &mut Stack<'_>) -> Outcome {
    headers(stack)?;
    if stack.string(2).is_none() {
        return Err(Raise::from(format!(
            "headers are read by name, not by {}",
            describe(stack, 2)
        )));
    }
    let is_found = stack.push_borrowed(|stack| {
        let name = stack.string(2)?;
        View::of(stack.record(1, Tag::Headers)?)?
            .values(name)
            .next()
    });
    if is_found {
        return Ok(Returns::Values(1));
    }
    match stack.atom(2) {
        Some(atom @ (Atom::All | Atom::Pairs)) => {
            methods::push(stack, Tag::Headers, atom)?;
        }
        _ => stack.push_nil(),
    }
    Ok(Returns::Values(1))
}

fn call_headers(stack: &mut Stack<'_>) -> Outcome {
    match stack.called_member() {
        Some(Atom::All) => all_values(stack),
        Some(Atom::Pairs) => pairs(stack),
        _ => Err(methods::unknown_call(stack, "headers", &["all", "pairs"])),
    }
}

/// `headers:all(name)`: every value of a field, in wire order.
fn all_values(stack: &mut Stack<'_>) -> Outcome {
    let view = headers(stack)?;
    let Some(name) = stack.string(2) else {
        return Err(bad_argument(
            stack,
            "headers:all",
            2,
            "the name of a header",
        ));
    };
    let values: Vec<Vec<u8>> = view.values(name).map(<[u8]>::to_vec).collect();
    stack.push_table(values.len(), 0);
    let table = stack.len();
    for (n, value) in values.iter().enumerate() {
        stack.push_string(value);
        stack.set_element(table, n + 1);
    }
    Ok(Returns::Values(1))
}

/// `for name, value in headers`: in wire order, names in lower case.
fn iterate(stack: &mut Stack<'_>) -> Outcome {
    walk(stack, <[u8]>::to_ascii_lowercase)
}

/// `for name, value in headers:pairs()`: in wire order, names as they were sent.
fn pairs(stack: &mut Stack<'_>) -> Outcome {
    walk(stack, <[u8]>::to_vec)
}

fn walk(stack: &mut Stack<'_>, spell: impl Fn(&[u8]) -> Vec<u8>) -> Outcome {
    let fields: Vec<(Vec<u8>, Vec<u8>)> = headers(stack)?
        .fields()
        .map(|(name, value)| (spell(name), value.to_vec()))
        .collect();
    methods::push(stack, Tag::Headers, Atom::Next)?;
    // The state of the walk: a list of names and values, and how far it has come.
    stack.push_table(2 * fields.len() + 1, 0);
    let list = stack.len();
    for (n, (name, value)) in fields.iter().enumerate() {
        stack.push_string(name);
        stack.set_element(list, 2 * n + 2);
        stack.push_string(value);
        stack.set_element(list, 2 * n + 3);
    }
    stack.push_number(0.0);
    stack.set_element(list, 1);
    stack.push_nil();
    Ok(Returns::Values(3))
}

/// One step of what [`walk`] began: the next name and value.
fn next_header(stack: &mut Stack<'_>) -> Outcome {
    stack.push_element(1, 1);
    let top = stack.len();
    let Some(walked) = stack.number(top) else {
        return Err(Raise::from(
            "headers are walked with `for name, value in headers`",
        ));
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a small count of our own; a script's nonsense saturates and finds nothing"
    )]
    let n = walked as usize;
    stack.push_number(walked + 1.0);
    stack.set_element(1, 1);
    stack.push_element(1, n.saturating_mul(2).saturating_add(2));
    stack.push_element(1, n.saturating_mul(2).saturating_add(3));
    Ok(Returns::Values(2))
}
