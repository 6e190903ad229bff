//! A request as a plain table, for dialects whose handlers may keep, clone and change it.
//!
//! Sits below `surface/helpers.rs`, whose member `requestTable` this is. The native request is lazy
//! userdata; a table is made whole at once, in one call and not in one for each member.
//!
//! | Field | Value |
//! | --- | --- |
//! | `method`, `path`, `body` | as the native request has them |
//! | `query` | decoded; the values of a name that repeats are an array |
//! | `headers` | by name in lower case; values of a name that repeats are joined by `, `, cookies by `; ` |
//! | `ip`, `port` | the peer's |
//!
//! Not here: what a dialect makes of it (`surface/*/`).

use crate::net::request::{View, push_pairs};
use crate::value::bad_argument;
use crate::vm::object::Tag;
use crate::vm::{Kind, Outcome, Returns, Stack};
use hukilau_core::url;

/// Names of fields up to this many bytes are put in lower case without an allocation.
const NAME_BYTES: usize = 64;

/// `requestTable(request)`.
pub(super) fn table(stack: &mut Stack<'_>) -> Outcome {
    let worker = stack.worker()?;
    let mut copy = worker.scratch.take();
    copy.clear();
    // All but the body, which may be large, and goes from the record into the VM.
    let record = stack.record(1, Tag::Request).unwrap_or_default();
    let body_len = View::of(record).map_or(0, |view| view.body().len());
    copy.extend_from_slice(record.get(..record.len() - body_len).unwrap_or_default());
    let Some(view) = View::of(&copy) else {
        return Err(bad_argument(stack, "surface.requestTable", 1, "a request"));
    };
    stack.resize(1);
    stack.push_table(0, 8);
    let target = url::split_target(view.target());
    stack.push_string(view.method());
    stack.set_field(2, c"method");
    stack.push_string(target.path);
    stack.set_field(2, c"path");
    match target.query {
        Some(query) => push_pairs(stack, url::query_pairs(query)),
        None => stack.push_table(0, 0),
    }
    stack.set_field(2, c"query");
    push_headers(stack, &view);
    stack.set_field(2, c"headers");
    if !stack.push_borrowed(|stack| Some(View::at(stack, 1)?.body())) {
        stack.push_string(b"");
    }
    stack.set_field(2, c"body");
    stack.push_string(view.ip());
    stack.set_field(2, c"ip");
    stack.push_number(f64::from(view.port()));
    stack.set_field(2, c"port");
    *worker.scratch.borrow_mut() = copy;
    Ok(Returns::Values(1))
}

fn push_headers(stack: &mut Stack<'_>, view: &View<'_>) {
    stack.push_table(0, view.fields().count());
    let table = stack.len();
    for (name, value) in view.fields() {
        let mut short = [0; NAME_BYTES];
        let long;
        let name = match short.get_mut(..name.len()) {
            Some(lower) => {
                lower.copy_from_slice(name);
                lower.make_ascii_lowercase();
                &*lower
            }
            None => {
                long = name.to_ascii_lowercase();
                &long
            }
        };
        stack.push_string(name);
        let key = stack.len();
        stack.push_value_of(table, key);
        if stack.kind(key + 1) == Kind::Nil {
            stack.pop(1);
            stack.push_string(value);
        } else {
            let separator: &[u8] = match name {
                b"cookie" => b"; ",
                _ => b", ",
            };
            let before = stack.string(key + 1).unwrap_or_default();
            let joined = [before, separator, value].concat();
            stack.pop(1);
            stack.push_string(joined);
        }
        stack.set_entry(table);
    }
}
