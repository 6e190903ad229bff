//! Responses that are read piece by piece: `net.request { …, stream = true }`.
//!
//! Sits in the native module's client. The object has the head; `read` waits for the next piece of
//! the body. One piece at most is read ahead of the script, so a body of any size passes through in
//! bounded memory, and the server is held back meanwhile.
//!
//! Invariants
//! - A body that did not come to its end never looks as if it had: reading raises.
//! - An object that the collector frees, or that is closed, gives its connection up.
//!
//! Not here: responses that are collected (`answer.rs`), codings (core).

use super::{Dropped, answer};
use crate::net::{methods, request};
use crate::runtime::Worker;
use crate::scheduler::{self, WaitKey};
use crate::value::bad_argument;
use crate::vm::atom::Atom;
use crate::vm::object::{Metatable, Object, Tag};
use crate::vm::{Outcome, Pin, Raise, Returns, Stack};
use hukilau_core::client::{ClientResponse, RequestKey};
use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::rc::Rc;

/// A body on its way.
#[derive(Debug)]
pub(super) struct Download {
    key: RequestKey,
    /// What has arrived and was not read.
    kept: RefCell<Vec<u8>>,
    /// How it came to its end, once it did.
    end: RefCell<Option<Result<(), String>>>,
    reader: Cell<Option<WaitKey>>,
}

/// The userdata.
struct Face {
    body: Rc<Download>,
    head: Box<ClientResponse>,
    headers: Rc<Pin>,
    dropped: Dropped,
}

impl Object for Face {
    const TAG: Tag = Tag::Download;
    const NAME: &'static CStr = c"Response";
}

impl Drop for Face {
    fn drop(&mut self) {
        // Within the collector nothing else may be touched; the loop does the rest.
        if self.body.end.borrow().is_none()
            && let Ok(mut dropped) = self.dropped.try_borrow_mut()
        {
            dropped.push(self.body.key);
        }
    }
}

impl Download {
    /// The body of request `key`.
    pub(super) fn new(key: RequestKey) -> Rc<Self> {
        Rc::new(Self {
            key,
            kept: RefCell::default(),
            end: RefCell::new(None),
            reader: Cell::new(None),
        })
    }

    /// The coroutine that waits for the next piece.
    pub(super) fn reader(&self) -> Option<WaitKey> {
        self.reader.get()
    }

    /// A piece has arrived.
    pub(super) fn piece(&self, worker: &Worker, bytes: Vec<u8>) {
        if let Some(reader) = self.reader.take() {
            let from = worker.root.stack(worker);
            let is_read = scheduler::wake(worker, &from, reader, |stack| {
                stack.push_string(&bytes);
                1
            });
            if is_read {
                return;
            }
            // It was cancelled; the key is what tells so.
            self.reader.set(Some(reader));
        }
        let mut kept = self.kept.borrow_mut();
        if kept.is_empty() {
            *kept = bytes;
        } else {
            kept.extend_from_slice(&bytes);
        }
    }

    /// The body is complete, or will never be.
    pub(super) fn ended(&self, worker: &Worker, how: Result<(), String>) {
        *self.end.borrow_mut() = Some(how.clone());
        let Some(reader) = self.reader.take() else {
            return;
        };
        let from = worker.root.stack(worker);
        match how {
            Ok(()) => scheduler::wake(worker, &from, reader, |stack| {
                stack.push_nil();
                1
            }),
            Err(why) => scheduler::wake_raising(worker, &from, reader, why),
        };
    }
}

/// Pushes the object of a response whose head is here.
pub(super) fn push(
    worker: &Worker,
    stack: &mut Stack<'_>,
    body: Rc<Download>,
    head: Box<ClientResponse>,
    dropped: Dropped,
) {
    request::push_fields(stack, head.fields());
    let top = stack.len();
    let headers = Rc::new(stack.pin(top, worker.root.released()));
    stack.pop(1);
    stack.push_object(Face {
        body,
        head,
        headers,
        dropped,
    });
}

/// Installs the metatable and the methods.
pub(super) fn install(lua: &mlua::Lua, worker: &Rc<Worker>) -> mlua::Result<()> {
    Metatable::new(lua, worker, Tag::Download, Face::NAME)?
        .with(c"__index", index)?
        .with(c"__newindex", |_| {
            Err(Raise::from("a streamed response cannot be changed"))
        })?
        .with(c"__namecall", invoke)?
        .with(c"__iter", iterate)?
        .install_object::<Face>()?;
    methods::add(lua, worker, (Tag::Download, Atom::Read), c"read", read)?;
    methods::add(lua, worker, (Tag::Download, Atom::Close), c"close", close)
}

const MEMBERS: &[&str] = &[
    "ok",
    "status",
    "statusText",
    "headers",
    "url",
    "read",
    "close",
];

fn this<'s>(stack: &'s Stack<'_>) -> Result<&'s Face, Raise> {
    stack.object::<Face>(1).ok_or_else(|| {
        let must = "a streamed response (call methods with a colon)";
        bad_argument(stack, "response", 1, must)
    })
}

/// `response.name`.
fn index(stack: &mut Stack<'_>) -> Outcome {
    let face = this(stack)?;
    match stack.atom(2) {
        Some(Atom::Ok) => {
            let is_ok = answer::is_ok(&face.head);
            stack.push_boolean(is_ok);
        }
        Some(Atom::Status) => {
            let status = face.head.status;
            stack.push_number(f64::from(status));
        }
        Some(Atom::StatusText) => {
            let reason = face.head.reason().to_vec();
            stack.push_string(reason);
        }
        Some(Atom::Url) => {
            let url = face.head.url.to_string();
            stack.push_string(url);
        }
        Some(Atom::Headers) => {
            let headers = Rc::clone(&face.headers);
            stack.push_pin(&headers);
        }
        Some(Atom::Body | Atom::Json) => {
            return Err(Raise::from(
                "response: its body comes in pieces (stream = true): read it with response:read()",
            ));
        }
        Some(atom) if methods::push(stack, Tag::Download, atom)? => {}
        _ => return Err(methods::unknown(stack, "response", MEMBERS)),
    }
    Ok(Returns::Values(1))
}

fn invoke(stack: &mut Stack<'_>) -> Outcome {
    match stack.called_member() {
        Some(Atom::Read) => read(stack),
        Some(Atom::Close) => close(stack),
        _ => Err(methods::unknown_call(stack, "response", MEMBERS)),
    }
}

/// `for piece in response do`: `read` until it gives nil.
fn iterate(stack: &mut Stack<'_>) -> Outcome {
    this(stack)?;
    methods::push(stack, Tag::Download, Atom::Read)?;
    stack.push_copy(1);
    stack.push_nil();
    Ok(Returns::Values(3))
}

/// `response:read()`: the next piece of the body as a string, nil behind the last one.
fn read(stack: &mut Stack<'_>) -> Outcome {
    let body = Rc::clone(&this(stack)?.body);
    let worker = stack.worker()?;
    let kept = body.kept.take();
    if !kept.is_empty() {
        stack.push_string(&kept);
        // The next one may come while the script works on this.
        super::resume(worker, body.key);
        return Ok(Returns::Values(1));
    }
    match &*body.end.borrow() {
        Some(Ok(())) => {
            stack.push_nil();
            return Ok(Returns::Values(1));
        }
        Some(Err(why)) => return Err(Raise::from(why.clone())),
        None => {}
    }
    let is_awaited = |reader| worker.scheduler.borrow().is_current(reader);
    if body.reader.get().is_some_and(is_awaited) {
        return Err(Raise::from(
            "response:read: another coroutine waits for the next piece of this body",
        ));
    }
    let reader = scheduler::wait_for_wire(worker, stack)?;
    body.reader.set(Some(reader));
    super::resume(worker, body.key);
    Ok(Returns::Suspend)
}

/// `response:close()`: reads no more. The connection is given up unless the body has come whole.
fn close(stack: &mut Stack<'_>) -> Outcome {
    let body = Rc::clone(&this(stack)?.body);
    let worker = stack.worker()?;
    if body.end.borrow().is_none() {
        super::cancel(worker, body.key, "the response was closed");
    }
    Ok(Returns::Values(0))
}
