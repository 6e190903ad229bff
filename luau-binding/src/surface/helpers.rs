//! `@huki/surface`: what surfaces need and pure Luau cannot do. Scripts cannot require it.
//!
//! Sits in `surface.rs`'s folder, above `vm`. Kept small: what scripts could use as well belongs to
//! `@huki/net`.
//!
//! | Member | Meaning |
//! | --- | --- |
//! | `raise(message)` | raises a string with the place of the script's line in front |
//! | `where()` | that place, `file:line: `, or an empty string |
//! | `reason(error)` | an error as text, without that place |
//! | `global(name)` | a global as the calling script sees it |
//! | `turn()` | the number of the loop's turn: another one means that all sockets have been looked at |
//! | `pass(seconds?)` | lets the loop turn where no coroutine can wait, at most so long (`runtime/nested.rs`) |
//! | `counts()` | how many coroutines sleep, are deferred, and wait for the network; how many listeners there are |
//! | `newtype(name, metamethods)` | a type of userdata: `typeof` is `name` |
//! | `wrap(type, state, socket?)` | a value of it; when it is collected, the native socket closes |
//! | `unwrap(type, value)` | the state of a value; nil if it is none of that type |
//! | `stand(value, socket)` | the socket's callbacks get the value in its place, and `sendBy` knows it |
//! | `sendBy(value, data, binary?)` | sends by a value that stands for a socket: the bytes if there is room for more; false, and `dropped`; nil and why |
//! | `mute(socket)` | its `message` callback hears of no more messages |
//! | `send(socket, data, binary?)` | what `socket:send` does; nil and why where that raises, `closed` if it has closed |
//! | `failed()` | a test has failed: the process ends with status 1 |
//! | `plain(server, rules)` | its `request` gets and gives plain values, see `net/plain.rs` |
//! | `closer(socket)` | a value that closes the native socket when it is collected; `sendBy` knows it |
//! | `decompress(bytes, coding)` | decoded bytes; nil for an unknown coding; nil and a text if corrupt |
//! | `readFile` and the like | see `files.rs` |
//! | `children()` | functions for VMs on threads of their own, see `children.rs` |
//!
//! Not here: anything a dialect decides (`surface/*/`).

use super::lost::Closes;
use super::{children, files};
use crate::net::{plain, socket};
use crate::runtime::{Options, Worker, nested};
use crate::value::bad_argument;
use crate::vm::object::{Metatable, Object, Tag};
use crate::vm::{self, Kind, Outcome, Raise, Returns, Stack};
use hukilau_core::client::decode::{DecodeError, Decoder};
use hukilau_core::reactor::conns::ConnKey;
use std::cell::Cell;
use std::ffi::CStr;
use std::rc::Rc;

/// Bytes that a body may be decoded to.
const DECODED_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Userdata of a dialect's type. Its state lies in a metatable of its own, so cycles are no leak.
struct Wrapped {
    /// Kept to be dropped with the userdata.
    #[expect(dead_code, reason = "its drop is what it is for")]
    closes: Option<Closes>,
    /// The socket that it stands for.
    conn: Cell<Option<ConnKey>>,
}

impl Wrapped {
    fn new(closes: Option<Closes>) -> Self {
        Self {
            closes,
            conn: Cell::new(None),
        }
    }
}

impl Object for Wrapped {
    const TAG: Tag = Tag::Wrapped;
    const NAME: &'static CStr = c"userdata";
}

/// Makes the module's table.
pub(super) fn module(
    lua: &mlua::Lua,
    worker: &Rc<Worker>,
    options: &Options,
) -> mlua::Result<mlua::Table> {
    Metatable::new(lua, worker, Tag::Wrapped, Wrapped::NAME)?.install_object::<Wrapped>()?;
    let module = lua.create_table()?;
    let set = |name: &str, function: mlua::Function| module.raw_set(name, function);
    set("raise", vm::function(lua, worker, c"raise", raise)?)?;
    set("where", vm::function(lua, worker, c"where", place)?)?;
    set("reason", vm::function(lua, worker, c"reason", reason)?)?;
    set("global", vm::function(lua, worker, c"global", global)?)?;
    set("turn", vm::function(lua, worker, c"turn", turn)?)?;
    set("pass", vm::function(lua, worker, c"pass", pass)?)?;
    set("counts", vm::function(lua, worker, c"counts", counts)?)?;
    set("newtype", vm::function(lua, worker, c"newtype", newtype)?)?;
    set("wrap", vm::function(lua, worker, c"wrap", wrap)?)?;
    set(
        "plain",
        vm::function(lua, worker, c"plain", plain::install)?,
    )?;
    set("closer", vm::function(lua, worker, c"closer", closer)?)?;
    set(
        "decompress",
        vm::function(lua, worker, c"decompress", decompress)?,
    )?;
    set("unwrap", vm::function(lua, worker, c"unwrap", unwrap)?)?;
    set(
        "send",
        vm::function(lua, worker, c"send", socket::try_send)?,
    )?;
    set("stand", vm::function(lua, worker, c"stand", stand)?)?;
    set("sendBy", vm::function(lua, worker, c"sendBy", send_by)?)?;
    set("mute", vm::function(lua, worker, c"mute", mute)?)?;
    set("failed", vm::function(lua, worker, c"failed", failed)?)?;
    set(
        "readFile",
        vm::function(lua, worker, c"readFile", files::read)?,
    )?;
    set(
        "writeFile",
        vm::function(lua, worker, c"writeFile", files::write)?,
    )?;
    set(
        "moveFile",
        vm::function(lua, worker, c"moveFile", files::rename)?,
    )?;
    set(
        "removeFile",
        vm::function(lua, worker, c"removeFile", files::remove)?,
    )?;
    set(
        "kindOf",
        vm::function(lua, worker, c"kindOf", files::kind_of)?,
    )?;
    // Made when they are asked for: few scripts do.
    let options = options.clone();
    let children = lua.create_function(move |lua, ()| {
        let worker = super::worker(lua)?;
        children::module(lua, &worker, &options)
    })?;
    set("children", children)?;
    module.set_readonly(true);
    Ok(module)
}

fn raise(stack: &mut Stack<'_>) -> Outcome {
    let text = stack.string(1).map(String::from_utf8_lossy);
    let text = text.ok_or_else(|| bad_argument(stack, "surface.raise", 1, "a string"))?;
    Err(Raise::from(text.into_owned()))
}

fn failed(stack: &mut Stack<'_>) -> Outcome {
    stack.worker()?.surface.note_failed_test();
    Ok(Returns::Values(0))
}

fn place(stack: &mut Stack<'_>) -> Outcome {
    let place = stack.place_of_call();
    stack.push_string(&place);
    Ok(Returns::Values(1))
}

fn reason(stack: &mut Stack<'_>) -> Outcome {
    let place = stack.place_of_call();
    let worker = stack.worker()?;
    let text = stack.display(1, &worker.root);
    stack.push_string(text.strip_prefix(place.as_str()).unwrap_or(&text));
    Ok(Returns::Values(1))
}

fn turn(stack: &mut Stack<'_>) -> Outcome {
    let turns = stack.worker()?.surface.turns.get();
    stack.push_number(f64::from(turns));
    Ok(Returns::Values(1))
}

fn pass(stack: &mut Stack<'_>) -> Outcome {
    let seconds = stack.number(1).filter(|seconds| *seconds >= 0.0);
    nested::turn(stack.worker()?, seconds.unwrap_or(f64::INFINITY))?;
    Ok(Returns::Values(0))
}

fn counts(stack: &mut Stack<'_>) -> Outcome {
    let worker = stack.worker()?;
    let counts = worker.scheduler.borrow().counts();
    let listeners = worker.reactor.borrow().listeners();
    let listeners = u32::try_from(listeners).unwrap_or(u32::MAX);
    for count in [counts.sleeping, counts.deferred, counts.waiting, listeners] {
        stack.push_number(f64::from(count));
    }
    Ok(Returns::Values(4))
}

fn global(stack: &mut Stack<'_>) -> Outcome {
    if stack.kind(1) != Kind::String {
        return Err(bad_argument(stack, "surface.global", 1, "a string"));
    }
    stack.push_callers_global(1);
    Ok(Returns::Values(1))
}

/// `newtype(name, metamethods)`: the table of metamethods, completed and closed.
fn newtype(stack: &mut Stack<'_>) -> Outcome {
    if stack.kind(1) != Kind::String {
        return Err(bad_argument(stack, "surface.newtype", 1, "a string"));
    }
    if stack.kind(2) != Kind::Table {
        return Err(bad_argument(stack, "surface.newtype", 2, "a table"));
    }
    stack.resize(2);
    stack.push_copy(1);
    stack.set_field(2, c"__type");
    stack.push_string("locked");
    stack.set_field(2, c"__metatable");
    stack.freeze(2);
    Ok(Returns::Values(1))
}

fn wrap(stack: &mut Stack<'_>) -> Outcome {
    if stack.kind(1) != Kind::Table {
        return Err(bad_argument(stack, "surface.wrap", 1, "a type"));
    }
    stack.resize(3);
    let closes = match stack.is_nil(3) {
        true => None,
        false => {
            let conn = socket::conn_at(stack, 3)
                .ok_or_else(|| bad_argument(stack, "surface.wrap", 3, "a socket"))?;
            Some(stack.worker()?.surface.lost.closes(conn))
        }
    };
    stack.push_object(Wrapped::new(closes));
    stack.set_own_metatable(4, 1, 2);
    Ok(Returns::Values(1))
}

fn closer(stack: &mut Stack<'_>) -> Outcome {
    let conn = socket::conn_at(stack, 1)
        .ok_or_else(|| bad_argument(stack, "surface.closer", 1, "a socket"))?;
    let closes = stack.worker()?.surface.lost.closes(conn);
    let closer = Wrapped::new(Some(closes));
    closer.conn.set(Some(conn));
    stack.push_object(closer);
    Ok(Returns::Values(1))
}

fn stand(stack: &mut Stack<'_>) -> Outcome {
    let conn = socket::conn_at(stack, 2)
        .ok_or_else(|| bad_argument(stack, "surface.stand", 2, "a socket"))?;
    let value = stack.object::<Wrapped>(1);
    let value = value.ok_or_else(|| bad_argument(stack, "surface.stand", 1, "a value of ours"))?;
    value.conn.set(Some(conn));
    socket::stand_in(stack, 2, 1)?;
    Ok(Returns::Values(0))
}

fn send_by(stack: &mut Stack<'_>) -> Outcome {
    match stack
        .object::<Wrapped>(1)
        .and_then(|value| value.conn.get())
    {
        Some(conn) => socket::send_by(stack, conn),
        None => {
            stack.push_nil();
            stack.push_string("no socket");
            Ok(Returns::Values(2))
        }
    }
}

fn mute(stack: &mut Stack<'_>) -> Outcome {
    socket::mute(stack, 1);
    Ok(Returns::Values(0))
}

/// `decompress(bytes, coding)`, with the codings that `net.request` undoes.
fn decompress(stack: &mut Stack<'_>) -> Outcome {
    let (bytes, coding) = match (stack.bytes(1), stack.string(2)) {
        (Some(bytes), Some(coding)) => (bytes.to_vec(), coding.to_ascii_lowercase()),
        _ => return Err(bad_argument(stack, "surface.decompress", 1, "a string")),
    };
    match decoded(&bytes, &coding) {
        Ok(Some(decoded)) => stack.push_string(decoded),
        Ok(None) => stack.push_nil(),
        Err(error) => {
            stack.push_nil();
            stack.push_string(error.to_string());
            return Ok(Returns::Values(2));
        }
    }
    Ok(Returns::Values(1))
}

fn decoded(bytes: &[u8], coding: &[u8]) -> Result<Option<Vec<u8>>, DecodeError> {
    let Some(mut decoder) = Decoder::new(std::iter::once(coding), DECODED_BYTES_MAX)? else {
        return Ok(None);
    };
    decoder.feed(bytes);
    let (mut decoded, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        let len = decoder.pull(&mut piece)?;
        if len == 0 {
            break;
        }
        decoded.extend_from_slice(piece.get(..len).unwrap_or_default());
    }
    decoder.finish()?;
    Ok(Some(decoded))
}

fn unwrap(stack: &mut Stack<'_>) -> Outcome {
    stack.resize(2);
    stack.push_own_state(2, 1);
    Ok(Returns::Values(1))
}
