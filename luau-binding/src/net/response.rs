//! What a handler may return, turned into one answer of the reactor.
//!
//! Sits in the native module. `string | buffer` is a 200; a table is `{ status, headers, body }`;
//! nothing is a 204. Where `body` is a function, only the head is sent here.
//!
//! Invariants
//! - Names and values of fields are checked by core before a byte leaves: a script cannot inject a
//!   line.
//! - A table with another key is refused: `{ statusCode = 404 }` must not become a 200.
//!
//! Not here: who was asked (`bridge.rs`), Date, Content-Length and Connection (core).

mod quick;

use super::stream::{Begun, Face};
use crate::runtime::Worker;
use crate::value::{advice, describe};
use crate::vm::{Kind, Stack};
use hukilau_core::conn::{Exchange, Misuse, Response};
use hukilau_core::reactor::conns::ConnKey;
use std::ops::Range;

/// Fields whose slices are kept on the stack; more cost an allocation.
const FIELDS_INLINE: usize = 16;

/// Header fields copied off the Luau stack.
#[derive(Default)]
pub(crate) struct Fields {
    text: Vec<u8>,
    spans: Vec<(Range<usize>, Range<usize>)>,
}

impl Fields {
    fn clear(&mut self) {
        self.text.clear();
        self.spans.clear();
    }

    /// Adds a field; names go out as the script wrote them.
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) {
        let start = self.text.len();
        self.text.extend_from_slice(name);
        let middle = self.text.len();
        self.text.extend_from_slice(value);
        self.spans.push((start..middle, middle..self.text.len()));
    }

    /// Calls `with` with the fields as slices.
    pub(crate) fn with<R>(&self, with: impl FnOnce(&[(&[u8], &[u8])]) -> R) -> R {
        let slice = |(name, value): &(Range<usize>, Range<usize>)| {
            (&self.text[name.clone()], &self.text[value.clone()])
        };
        if self.spans.len() <= FIELDS_INLINE {
            let mut inline: [(&[u8], &[u8]); FIELDS_INLINE] = [(&[], &[]); FIELDS_INLINE];
            for (place, span) in inline.iter_mut().zip(&self.spans) {
                *place = slice(span);
            }
            return with(&inline[..self.spans.len()]);
        }
        let all: Vec<_> = self.spans.iter().map(slice).collect();
        with(&all)
    }
}

/// Answers with the value at the bottom of `stack`. A response whose body is a function has only
/// begun: the function is still to be run.
///
/// # Errors
/// What is wrong with the value, as a message for its author; nothing was sent then.
pub(crate) fn respond(
    worker: &Worker,
    stack: &mut Stack<'_>,
    conn: ConnKey,
    exchange: Exchange,
) -> Result<Option<Begun>, String> {
    match stack.kind(1) {
        Kind::Table => match quick::respond(worker, stack, conn, exchange) {
            Some(answered) => answered.map(|()| None),
            None => respond_table(worker, stack, conn, exchange),
        },
        Kind::String | Kind::Buffer => {
            let response = Response {
                status: 200,
                fields: &[],
                body: stack.bytes(1).unwrap_or(&[]),
            };
            send(worker, conn, exchange, &response).map(|()| None)
        }
        Kind::Nil | Kind::None => {
            let response = Response {
                status: 204,
                fields: &[],
                body: &[],
            };
            send(worker, conn, exchange, &response).map(|()| None)
        }
        _ => Err(format!(
            "response: a handler returns a string, a buffer, a table {{ status, headers, body }} or nothing, not {}",
            describe(stack, 1)
        )),
    }
}

fn respond_table(
    worker: &Worker,
    stack: &mut Stack<'_>,
    conn: ConnKey,
    exchange: Exchange,
) -> Result<Option<Begun>, String> {
    let mut fields = worker.fields.borrow_mut();
    fields.clear();
    let parts = read_table(stack, 1, &mut fields)?;
    let body = match parts.body {
        Some(at) => stack.bytes(at).unwrap_or(&[]),
        None => &[],
    };
    fields.with(|fields| {
        let response = Response {
            status: parts.status,
            fields,
            body,
        };
        match parts.begun {
            Some(_) => begin(worker, conn, exchange, &response)?,
            None => send(worker, conn, exchange, &response)?,
        }
        Ok(parts.begun)
    })
}

/// Has the head of a streamed answer sent. A peer that has gone needs none.
fn begin(
    worker: &Worker,
    conn: ConnKey,
    exchange: Exchange,
    response: &Response<'_>,
) -> Result<(), String> {
    let mut reactor = worker.reactor.borrow_mut();
    match reactor.begin_response(conn, exchange, response) {
        Ok(_) => {
            worker.access.answered((conn, exchange), response, false);
            Ok(())
        }
        Err(Misuse::Gone | Misuse::AlreadyAnswered) => Ok(()),
        Err(misuse) => Err(explain(misuse, response)),
    }
}

/// Hands an answer to the reactor. A peer that has gone needs none, and one that broke a rule in
/// the body of its request has been answered by core.
pub(super) fn send(
    worker: &Worker,
    conn: ConnKey,
    exchange: Exchange,
    response: &Response<'_>,
) -> Result<(), String> {
    match worker
        .reactor
        .borrow_mut()
        .respond(conn, exchange, response)
    {
        Ok(_) => {
            worker.access.answered((conn, exchange), response, true);
            Ok(())
        }
        Err(Misuse::Gone | Misuse::AlreadyAnswered) => Ok(()),
        Err(misuse) => Err(explain(misuse, response)),
    }
}

/// Names the field or the status that core refused.
fn explain(misuse: Misuse, response: &Response<'_>) -> String {
    match misuse {
        Misuse::InvalidField => match explain_field(response.fields) {
            Some(why) => format!("response: {why}"),
            None => "response: Content-Length, Transfer-Encoding, Connection and the like are \
                     written by the server itself"
                .to_owned(),
        },
        Misuse::InvalidStatus => format!(
            "response: status must lie between 200 and 599, not {}",
            response.status
        ),
        other => format!("response: {other}"),
    }
}

/// The first of `fields` that cannot be sent, and why; `None` if all can, as far as it is up to them.
pub(crate) fn explain_field(fields: &[(&[u8], &[u8])]) -> Option<String> {
    use hukilau_core::http1::token::{is_field_name, is_field_value};
    let (name, _) = fields
        .iter()
        .find(|(name, value)| !is_field_name(name) || !is_field_value(value))?;
    let shown = name.escape_ascii();
    Some(if is_field_name(name) {
        format!("the value of header '{shown}' holds a line end or another control character")
    } else {
        format!("'{shown}' cannot be the name of a header: letters, digits and -_ are safe")
    })
}

/// What a response table said beside its headers.
pub(crate) struct Parts {
    status: u16,
    /// Where the body stands on the stack.
    body: Option<i32>,
    /// What writes the body, if that is a function.
    begun: Option<Begun>,
}

const KEYS: &[&str] = &["status", "headers", "body", "events"];

/// Reads the response table at `index`. The body, if any, is left on top of the stack.
fn read_table(stack: &mut Stack<'_>, index: i32, fields: &mut Fields) -> Result<Parts, String> {
    let mut parts = Parts {
        status: 200,
        body: None,
        begun: None,
    };
    let mut cursor = 0;
    while let Some(next) = stack.next_entry(index, cursor) {
        cursor = next;
        let (key, value) = (stack.len() - 1, stack.len());
        match stack.string(key) {
            Some(b"status") => {
                let status = stack
                    .number(value)
                    .filter(|status| status.fract() == 0.0 && (200.0..=599.0).contains(status));
                let Some(status) = status else {
                    return Err(format!(
                        "response: status must be a whole number from 200 to 599, not {}",
                        describe(stack, value)
                    ));
                };
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "checked to lie between 200 and 599"
                )]
                let status = status as u16;
                parts.status = status;
            }
            Some(b"headers") => read_headers(stack, value, fields)?,
            Some(name @ (b"body" | b"events")) => {
                let face = if name == b"body" {
                    Face::Pieces
                } else {
                    Face::Events
                };
                read_body(stack, value, face, &mut parts)?;
                // The key goes, the body stays, below whatever comes.
                stack.remove(key);
                continue;
            }
            _ => return Err(unknown_key(stack, key)),
        }
        stack.pop(2);
    }
    Ok(parts)
}

/// Reads `body` or `events` at `value`, which will move down by one.
fn read_body(stack: &Stack<'_>, value: i32, face: Face, parts: &mut Parts) -> Result<(), String> {
    if parts.body.is_some() || parts.begun.is_some() {
        return Err("response: it has a body and events; it can have one of them".to_owned());
    }
    match (face, stack.kind(value)) {
        (_, Kind::Function) => {
            parts.begun = Some(Begun {
                function: value - 1,
                face,
            });
            Ok(())
        }
        (Face::Pieces, Kind::String | Kind::Buffer) => {
            parts.body = Some(value - 1);
            Ok(())
        }
        (Face::Pieces, _) => Err(format!(
            "response: body must be a string, a buffer or a function, not {}",
            describe(stack, value)
        )),
        (Face::Events, _) => Err(format!(
            "response: events must be a function, not {}",
            describe(stack, value)
        )),
    }
}

fn unknown_key(stack: &Stack<'_>, key: i32) -> String {
    let Some(name) = stack.string(key).map(String::from_utf8_lossy) else {
        return format!(
            "response: a table has status, headers and body, not a key of type {}",
            stack.type_name(key)
        );
    };
    let hint = advice(&name, KEYS);
    format!("response: unknown key '{name}'{hint}")
}

/// Reads a table of headers: names to strings, numbers, or lists of them.
pub(crate) fn read_headers(
    stack: &mut Stack<'_>,
    index: i32,
    fields: &mut Fields,
) -> Result<(), String> {
    if stack.kind(index) != Kind::Table {
        return Err(format!(
            "response: headers must be a table of names and values, not {}",
            describe(stack, index)
        ));
    }
    let mut cursor = 0;
    while let Some(next) = stack.next_entry(index, cursor) {
        cursor = next;
        let (key, value) = (stack.len() - 1, stack.len());
        let Some(name) = stack.string(key).map(<[u8]>::to_vec) else {
            return Err(format!(
                "response: the name of a header must be a string, not {}",
                describe(stack, key)
            ));
        };
        if stack.kind(value) == Kind::Table {
            for n in 1..=stack.table_len(value) {
                stack.push_element(value, n);
                read_value(stack, &name, value + 1, fields)?;
                stack.pop(1);
            }
        } else {
            read_value(stack, &name, value, fields)?;
        }
        stack.pop(2);
    }
    Ok(())
}

fn read_value(
    stack: &Stack<'_>,
    name: &[u8],
    index: i32,
    fields: &mut Fields,
) -> Result<(), String> {
    if let Some(value) = stack.string(index) {
        fields.push(name, value);
    } else if let Some(number) = stack.number(index) {
        fields.push(name, number.to_string().as_bytes());
    } else {
        return Err(format!(
            "response: header '{}' must be a string, a number or a list of them, not {}",
            name.escape_ascii(),
            describe(stack, index)
        ));
    }
    Ok(())
}

/// Answers with the server's page for a status, or with a line of text: for what the script did not
/// decide.
pub(crate) fn respond_plain(
    worker: &Worker,
    conn: ConnKey,
    exchange: Exchange,
    status: u16,
    fields: &[(&[u8], &[u8])],
) {
    let phrase = hukilau_core::http1::write::reason_phrase(status);
    let mut all: Vec<(&[u8], &[u8])> = vec![(b"content-type", b"text/plain; charset=utf-8")];
    all.extend_from_slice(fields);
    let body = format!("{phrase}\n");
    let response = Response {
        status,
        fields: &all,
        body: body.as_bytes(),
    };
    let sent = worker
        .reactor
        .borrow_mut()
        .respond_with_page(conn, exchange, &response);
    match sent {
        Ok(_) => {
            let key = (conn, exchange);
            worker.access.answered_with_page(key, &response);
        }
        Err(Misuse::Gone | Misuse::AlreadyAnswered) => {}
        Err(misuse) => worker.report_text(&format!("a request could not be answered: {misuse}")),
    }
}
