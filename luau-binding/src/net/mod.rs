//! The native module `@huki/net`.
//!
//! Sits above `vm` and beside `bridge.rs`: these files are what a script calls, the bridge is what
//! calls a script.
//!
//! - `server.rs`    `net.serve`, options, the server object
//! - `request.rs`   requests
//! - `guards.rs`    rates, and proxies that are trusted
//! - `headers.rs`   header fields of requests and responses
//! - `body.rs`      bodies that are read piece by piece
//! - `form.rs`      forms, urlencoded and multipart
//! - `cookies.rs`   cookies
//! - `response.rs`  what a handler may return
//! - `plain.rs`     requests and answers for handlers of dialects
//! - `client.rs`    `net.request` and `net.websocket`
//! - `stream.rs`    responses that leave piece by piece
//! - `events.rs`    server-sent events
//! - `socket.rs`    the WebSocket object
//! - `raw.rs`       streams of bytes without a protocol, and their listeners
//! - `tls.rs`       certificates of servers, and their reload
//! - `topics.rs`    topics: subscribing and publishing
//! - `methods.rs`   methods as values
//! - this file      the module's table and URL helpers; `../json/face.rs` adds those of JSON
//!
//! Not here: protocol rules, buffers, timeouts (core).

pub(crate) mod body;
pub(crate) mod client;
mod cookies;
mod events;
mod form;
pub(crate) mod guards;
mod headers;
pub(crate) mod methods;
pub(crate) mod plain;
pub(crate) mod raw;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod server;
pub(crate) mod socket;
pub(crate) mod stream;
pub(crate) mod tls;
mod topics;

use crate::json;
use crate::runtime::Worker;
use crate::value::bad_argument;
use crate::vm::{self, Outcome, Raise, Returns, Stack};
use hukilau_core::url;
use std::rc::Rc;

/// Makes the module's table, and installs the metatables behind it.
pub(crate) fn module(lua: &mlua::Lua, worker: &Rc<Worker>) -> mlua::Result<mlua::Table> {
    request::install(lua, worker)?;
    headers::install(lua, worker)?;
    stream::install(lua, worker)?;
    events::install(lua, worker)?;
    socket::install(lua, worker)?;
    server::install(lua, worker)?;
    client::install(lua, worker)?;
    raw::install(lua, worker)?;
    let module = lua.create_table()?;
    let set = |name: &str, function: mlua::Function| module.raw_set(name, function);
    set("serve", vm::function(lua, worker, c"serve", server::serve)?)?;
    set(
        "request",
        vm::function(lua, worker, c"request", client::request)?,
    )?;
    set(
        "websocket",
        vm::function(lua, worker, c"websocket", client::websocket)?,
    )?;
    set(
        "connect",
        vm::function(lua, worker, c"connect", raw::connect)?,
    )?;
    set("listen", vm::function(lua, worker, c"listen", raw::listen)?)?;
    set(
        "resolve",
        vm::function(lua, worker, c"resolve", raw::resolve)?,
    )?;
    set("udp", vm::function(lua, worker, c"udp", raw::udp)?)?;
    set(
        "eventStream",
        vm::function(lua, worker, c"eventStream", events::event_stream)?,
    )?;
    set(
        "urlEncode",
        vm::function(lua, worker, c"urlEncode", url_encode)?,
    )?;
    set(
        "urlDecode",
        vm::function(lua, worker, c"urlDecode", url_decode)?,
    )?;
    set(
        "parseQuery",
        vm::function(lua, worker, c"parseQuery", parse_query)?,
    )?;
    set(
        "statusText",
        vm::function(lua, worker, c"statusText", status_text)?,
    )?;
    json::install(lua, worker, &module)?;
    // Safe mlua has no tags on light userdata, so the raw function sets the field itself.
    let set_null = vm::function(lua, worker, c"null", |stack| {
        stack.push_null();
        stack.set_field(1, c"null");
        Ok(Returns::Values(0))
    })?;
    set_null.call::<()>(&module)?;
    module.set_readonly(true);
    Ok(module)
}

/// The string argument of a helper, copied.
fn text(stack: &Stack<'_>, function: &str) -> Result<Vec<u8>, Raise> {
    stack
        .string(1)
        .map(<[u8]>::to_vec)
        .ok_or_else(|| bad_argument(stack, function, 1, "a string"))
}

fn url_encode(stack: &mut Stack<'_>) -> Outcome {
    let text = text(stack, "net.urlEncode")?;
    stack.push_string(url::percent_encode(&text));
    Ok(Returns::Values(1))
}

fn url_decode(stack: &mut Stack<'_>) -> Outcome {
    let text = text(stack, "net.urlDecode")?;
    stack.push_string(url::percent_decode(&text));
    Ok(Returns::Values(1))
}

/// `net.parseQuery(text)`: as `request.query`, of any text; a `?` in front is skipped.
fn parse_query(stack: &mut Stack<'_>) -> Outcome {
    let text = text(stack, "net.parseQuery")?;
    let query = text.strip_prefix(b"?").unwrap_or(&text);
    request::push_pairs(stack, url::query_pairs(query));
    Ok(Returns::Values(1))
}

/// `net.statusText(code)`: the reason phrase, empty for a code without one.
fn status_text(stack: &mut Stack<'_>) -> Outcome {
    let code = stack
        .number(1)
        .filter(|code| code.fract() == 0.0 && (100.0..=999.0).contains(code))
        .ok_or_else(|| bad_argument(stack, "net.statusText", 1, "a status code"))?;
    #[expect(clippy::cast_possible_truncation, reason = "checked to be below 1000")]
    let code = code as u16;
    stack.push_string(hukilau_core::http1::write::reason_phrase(code));
    Ok(Returns::Values(1))
}
