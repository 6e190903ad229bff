//! Server-sent events: the object that `net.eventStream` gives its function, and how an event is
//! written. HTML, section 9.2.6 ("Interpreting an event stream").
//!
//! Sits in the native module, over `stream.rs`: an event is one piece of a streamed response.
//!
//! Invariants
//! - What a script sends cannot become a field or an event of its own: every line of `data` and of
//!   `comment` has its prefix, and the other fields may hold no line end.
//! - An event that is refused writes nothing.
//!
//! Not here: when pieces leave, and who waits (`stream.rs`).

use super::methods;
use super::stream::{self, StreamState};
use crate::runtime::Worker;
use crate::value::{Options, bad_argument};
use crate::vm::atom::Atom;
use crate::vm::object::{Metatable, Object, Tag};
use crate::vm::{Kind, Outcome, Raise, Returns, Stack};
use std::ffi::CStr;
use std::rc::Rc;

/// The userdata.
pub(crate) struct Events(pub(super) Rc<StreamState>);

impl Object for Events {
    const TAG: Tag = Tag::Events;
    const NAME: &'static CStr = c"EventStream";
}

/// `net.eventStream(function)`: a response of events.
pub(super) fn event_stream(stack: &mut Stack<'_>) -> Outcome {
    if stack.kind(1) != Kind::Function {
        return Err(bad_argument(stack, "net.eventStream", 1, "a function"));
    }
    stack.resize(1);
    stack.push_table(0, 2);
    stack.push_copy(1);
    stack.set_field(2, c"events");
    stack.push_table(0, 2);
    stack.push_string("text/event-stream");
    stack.set_field(3, c"content-type");
    stack.push_string("no-cache");
    stack.set_field(3, c"cache-control");
    stack.set_field(2, c"headers");
    Ok(Returns::Values(1))
}

/// Installs the metatable and the methods.
pub(crate) fn install(lua: &mlua::Lua, worker: &Rc<Worker>) -> mlua::Result<()> {
    Metatable::new(lua, worker, Tag::Events, Events::NAME)?
        .with(c"__index", index)?
        .with(c"__newindex", |_| {
            Err(Raise::from("an event stream cannot be changed"))
        })?
        .with(c"__namecall", invoke)?
        .install_object::<Events>()?;
    methods::add(lua, worker, (Tag::Events, Atom::Send), c"send", send)?;
    methods::add(lua, worker, (Tag::Events, Atom::Closed), c"closed", closed)
}

const MEMBERS: &[&str] = &["send", "closed"];

fn this(stack: &Stack<'_>) -> Result<Rc<StreamState>, Raise> {
    stack
        .object::<Events>(1)
        .map(|events| Rc::clone(&events.0))
        .ok_or_else(|| {
            bad_argument(
                stack,
                "events",
                1,
                "an event stream (call methods with a colon)",
            )
        })
}

fn index(stack: &mut Stack<'_>) -> Outcome {
    this(stack)?;
    match stack.atom(2) {
        Some(atom) if methods::push(stack, Tag::Events, atom)? => Ok(Returns::Values(1)),
        _ => Err(methods::unknown(stack, "event stream", MEMBERS)),
    }
}

fn invoke(stack: &mut Stack<'_>) -> Outcome {
    match stack.called_member() {
        Some(Atom::Send) => send(stack),
        Some(Atom::Closed) => closed(stack),
        _ => Err(methods::unknown_call(stack, "event stream", MEMBERS)),
    }
}

/// `events:closed()`: whether the peer has gone.
fn closed(stack: &mut Stack<'_>) -> Outcome {
    let stream = this(stack)?;
    stream::push_closed(stack, &stream)
}

/// `events:send(event)`: true once there is room for more, false if the peer has gone.
fn send(stack: &mut Stack<'_>) -> Outcome {
    let stream = this(stack)?;
    let mut text = Vec::new();
    if let Some(data) = stack.string(2) {
        let event = Event {
            data: Some(data),
            ..Event::default()
        };
        event.write(&mut text);
    } else if stack.kind(2) == Kind::Table {
        read(stack)?.write(&mut text);
    } else {
        return Err(bad_argument(
            stack,
            "events:send",
            2,
            "a string or a table { event, data, id, retry, comment }",
        ));
    }
    let written = stream::push_piece(stack.worker()?, &stream, &text, "events:send")?;
    stream::answer(stack, &stream, written)
}

/// Reads the event at 2; its strings stay on the stack.
fn read<'s>(stack: &'s mut Stack<'_>) -> Result<Event<'s>, Raise> {
    let options = Options {
        index: 2,
        owner: "events:send",
    };
    options.check_keys(stack, &["event", "data", "id", "retry", "comment"])?;
    stack.resize(2);
    for key in [c"event", c"data", c"id", c"comment"] {
        stack.push_field(2, key);
        let at = stack.len();
        if !stack.is_nil(at) && stack.string(at).is_none() {
            let hint = if stack.kind(at) == Kind::Table {
                "; net.jsonEncode makes one of a table"
            } else {
                ""
            };
            return Err(options.error(format!(
                "'{}' must be a string, not {}{hint}",
                key.to_string_lossy(),
                crate::value::describe(stack, at)
            )));
        }
    }
    let retry = options.seconds(stack, c"retry")?;
    let event = Event {
        event: stack.string(3),
        data: stack.string(4),
        id: stack.string(5),
        comment: stack.string(6),
        retry_ms: retry.map(|retry| retry.as_millis()),
    };
    let breaks = |text: &[u8]| text.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
    for (name, value) in [("event", event.event), ("id", event.id)] {
        if value.is_some_and(breaks) {
            return Err(options.error(format!("'{name}' may hold no line end and no NUL")));
        }
    }
    if event == Event::default() {
        return Err(options.error("the event is empty; it has 'data', or at least a 'comment'"));
    }
    Ok(event)
}

/// One event, or a comment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Event<'a> {
    event: Option<&'a [u8]>,
    data: Option<&'a [u8]>,
    id: Option<&'a [u8]>,
    comment: Option<&'a [u8]>,
    retry_ms: Option<u128>,
}

impl Event<'_> {
    /// Writes the fields that are there, and the empty line that ends an event.
    fn write(&self, out: &mut Vec<u8>) {
        if let Some(comment) = self.comment {
            write_lines(out, b":", comment);
        }
        if let Some(event) = self.event {
            write_lines(out, b"event:", event);
        }
        if let Some(id) = self.id {
            write_lines(out, b"id:", id);
        }
        if let Some(retry) = self.retry_ms {
            write_lines(out, b"retry:", retry.to_string().as_bytes());
        }
        if let Some(data) = self.data {
            write_lines(out, b"data:", data);
        }
        out.push(b'\n');
    }
}

/// Writes each line of `text` behind `prefix`. A line ends with CRLF, CR or LF, as for whoever
/// reads the stream. The space keeps one that the line begins with: the reader takes one off.
fn write_lines(out: &mut Vec<u8>, prefix: &[u8], text: &[u8]) {
    let mut rest = text;
    loop {
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        let (line, behind) = rest.split_at(end.unwrap_or(rest.len()));
        out.extend_from_slice(prefix);
        out.push(b' ');
        out.extend_from_slice(line);
        out.push(b'\n');
        rest = match behind {
            [b'\r', b'\n', behind @ ..] | [b'\r' | b'\n', behind @ ..] => behind,
            _ => return,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::Event;

    fn written(event: Event<'_>) -> String {
        let mut out = Vec::new();
        event.write(&mut out);
        String::from_utf8(out).expect("tests are ASCII")
    }

    #[test]
    fn html_9_2_6_every_line_of_data_has_its_prefix() {
        let data = |data: &'static str| Event {
            data: Some(data.as_bytes()),
            ..Event::default()
        };
        for (text, want) in [
            ("one", "data: one\n\n"),
            ("", "data: \n\n"),
            (" space", "data:  space\n\n"),
            ("a\nb\r\nc\rd", "data: a\ndata: b\ndata: c\ndata: d\n\n"),
            ("end\n", "data: end\ndata: \n\n"),
            ("\r\n\r\n", "data: \ndata: \ndata: \n\n"),
            ("x\n\nevent: evil", "data: x\ndata: \ndata: event: evil\n\n"),
        ] {
            assert_eq!(written(data(text)), want, "{text:?}");
        }
    }

    #[test]
    fn html_9_2_6_fields_stand_each_on_a_line() {
        let event = Event {
            event: Some(b"move"),
            data: Some(b"1,2"),
            id: Some(b"7"),
            comment: Some(b"hi\nthere"),
            retry_ms: Some(1_500),
        };
        let want = ": hi\n: there\nevent: move\nid: 7\nretry: 1500\ndata: 1,2\n\n";
        assert_eq!(written(event), want);
    }
}
