//! What a script gets for a request: a plain table.
//!
//! Sits in the native module's client. `{ ok, status, statusText, headers, body, url, json }`: a
//! table, because scripts print, copy and pass on what they were answered.
//!
//! Invariants
//! - A status is an answer, never an error.
//!
//! Not here: responses that are read piece by piece (`download.rs`).

use crate::json;
use crate::net::{methods, request};
use crate::runtime::Worker;
use crate::value::bad_argument;
use crate::vm::atom::Atom;
use crate::vm::object::Tag;
use crate::vm::{Outcome, Raise, Returns, Stack};
use hukilau_core::client::ClientResponse;
use std::rc::Rc;

/// Adds the method.
pub(super) fn install(lua: &mlua::Lua, worker: &Rc<Worker>) -> mlua::Result<()> {
    methods::add(lua, worker, (Tag::Download, Atom::Json), c"json", json)
}

/// Pushes a response that is here whole.
pub(super) fn push(stack: &mut Stack<'_>, response: &ClientResponse, body: &[u8]) {
    push_head(stack, response);
    let table = stack.len();
    stack.push_string(body);
    stack.set_field(table, c"body");
    // Made by `install`, and there as long as the VM.
    if let Ok(true) = methods::push(stack, Tag::Download, Atom::Json) {
        stack.set_field(table, c"json");
    }
}

/// Pushes a table of what a response's head says.
pub(super) fn push_head(stack: &mut Stack<'_>, response: &ClientResponse) {
    stack.push_table(0, 8);
    let table = stack.len();
    stack.push_boolean(is_ok(response));
    stack.set_field(table, c"ok");
    stack.push_number(f64::from(response.status));
    stack.set_field(table, c"status");
    stack.push_string(response.reason());
    stack.set_field(table, c"statusText");
    request::push_fields(stack, response.fields());
    stack.set_field(table, c"headers");
    stack.push_string(response.url.to_string());
    stack.set_field(table, c"url");
}

/// Whether it is a success.
pub(super) fn is_ok(response: &ClientResponse) -> bool {
    (200..300).contains(&response.status)
}

/// `response:json()`: the body, decoded. Raises if it is no JSON.
fn json(stack: &mut Stack<'_>) -> Outcome {
    stack.resize(1);
    stack.push_field(1, c"body");
    if stack.string(2).is_none() {
        let must = "a response with a body (call methods with a colon)";
        return Err(bad_argument(stack, "response:json", 1, must));
    }
    let worker = stack.worker()?;
    json::decode(worker, stack, json::Reading::default(), |stack| {
        stack.string(2)
    })
    .map_err(|error| Raise::from(format!("response:json: {error}")))?;
    Ok(Returns::Values(1))
}
