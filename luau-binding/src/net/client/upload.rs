//! Bodies of requests that are written piece by piece, as those of responses are: `body =
//! function(stream) stream:write(piece) end`.
//!
//! Sits in the native module's client. The function starts in a coroutine of its own when there is a
//! connection, so a request that waits for one holds nothing. A writer whose server reads slowly is
//! suspended until what waits has gone.
//!
//! Invariants
//! - A body whose function failed never looks whole to the server: its connection is cut.
//! - Every parked writer is woken: when there is room, or with `false` when the request is done.
//!
//! Not here: chunks and lengths (core), who asked (`client.rs`).

use crate::bridge::{Failure, Purpose};
use crate::net::methods;
use crate::runtime::Worker;
use crate::scheduler::{self, WaitKey};
use crate::value::bad_argument;
use crate::vm::atom::Atom;
use crate::vm::object::{Metatable, Object, Tag};
use crate::vm::{Outcome, Pin, Raise, Returns, Stack};
use hukilau_core::client::RequestKey;
use hukilau_core::conn::{Misuse, Pressure};
use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::rc::Rc;

/// A body that is being written.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) key: RequestKey,
    /// The function, until it has been started.
    function: RefCell<Option<Pin>>,
    /// The request is done: nothing can be written any more.
    is_lost: Cell<bool>,
    /// The function has returned, or failed.
    is_over: Cell<bool>,
    writers: RefCell<Vec<WaitKey>>,
}

/// The userdata that the function gets.
struct Face(Rc<Upload>);

impl Object for Face {
    const TAG: Tag = Tag::Upload;
    const NAME: &'static CStr = c"Stream";
}

impl Upload {
    /// The body of request `key`, which `function` writes.
    pub(super) fn new(key: RequestKey, function: Pin) -> Rc<Self> {
        Rc::new(Self {
            key,
            function: RefCell::new(Some(function)),
            is_lost: Cell::new(false),
            is_over: Cell::new(false),
            writers: RefCell::default(),
        })
    }

    /// Whether its function runs, or waits.
    pub(super) fn is_running(&self) -> bool {
        self.function.borrow().is_none() && !self.is_over.get()
    }
}

/// There is room: starts the function, or wakes those that wait in it.
pub(super) fn wanted(worker: &Worker, upload: &Rc<Upload>) {
    let function = upload.function.borrow_mut().take();
    let Some(function) = function else {
        return wake_writers(worker, upload, true);
    };
    let from = worker.root.stack(worker);
    let purpose = Purpose::Upload(Rc::clone(upload));
    scheduler::start(worker, &from, purpose, |stack| {
        stack.push_pin(&function);
        stack.push_object(Face(Rc::clone(upload)));
        1
    });
}

/// The request is done, one way or the other.
pub(super) fn lost(worker: &Worker, upload: &Upload) {
    upload.is_lost.set(true);
    drop(upload.function.borrow_mut().take());
    wake_writers(worker, upload, false);
}

fn wake_writers(worker: &Worker, upload: &Upload, may_go_on: bool) {
    let from = worker.root.stack(worker);
    for writer in upload.writers.take() {
        scheduler::wake(worker, &from, writer, |stack| {
            stack.push_boolean(may_go_on);
            1
        });
    }
}

/// The function has returned: the body is complete.
pub(crate) fn returned(worker: &Worker, upload: &Rc<Upload>) {
    upload.is_over.set(true);
    let finished = super::finish_body(worker, upload.key);
    if finished == Err(Misuse::LengthMismatch) {
        let why = "the body function wrote less than the content-length announced";
        super::fail(worker, upload.key, why);
    }
}

/// The function has raised: the request fails with its error.
pub(crate) fn raised(worker: &Worker, upload: &Rc<Upload>, failure: &Failure) {
    upload.is_over.set(true);
    if upload.is_lost.get() {
        // Nobody waits for the request any more who could be told.
        worker.report("in the body function of a request", failure);
        return;
    }
    let why = format!("the body function failed: {}", failure.message);
    super::fail(worker, upload.key, &why);
}

/// Installs the metatable and the methods.
pub(super) fn install(lua: &mlua::Lua, worker: &Rc<Worker>) -> mlua::Result<()> {
    Metatable::new(lua, worker, Tag::Upload, Face::NAME)?
        .with(c"__index", index)?
        .with(c"__newindex", |_| {
            Err(Raise::from("a stream cannot be changed"))
        })?
        .with(c"__namecall", invoke)?
        .install_object::<Face>()?;
    methods::add(lua, worker, (Tag::Upload, Atom::Write), c"write", write)?;
    methods::add(lua, worker, (Tag::Upload, Atom::Closed), c"closed", closed)
}

const MEMBERS: &[&str] = &["write", "closed"];

fn this(stack: &Stack<'_>) -> Result<Rc<Upload>, Raise> {
    stack
        .object::<Face>(1)
        .map(|face| Rc::clone(&face.0))
        .ok_or_else(|| bad_argument(stack, "stream", 1, "a stream (call methods with a colon)"))
}

fn index(stack: &mut Stack<'_>) -> Outcome {
    this(stack)?;
    match stack.atom(2) {
        Some(atom) if methods::push(stack, Tag::Upload, atom)? => Ok(Returns::Values(1)),
        _ => Err(methods::unknown(stack, "stream", MEMBERS)),
    }
}

fn invoke(stack: &mut Stack<'_>) -> Outcome {
    match stack.called_member() {
        Some(Atom::Write) => write(stack),
        Some(Atom::Closed) => closed(stack),
        _ => Err(methods::unknown_call(stack, "stream", MEMBERS)),
    }
}

/// `stream:write(piece)`: true once there is room for more, false if the request is done.
fn write(stack: &mut Stack<'_>) -> Outcome {
    let upload = this(stack)?;
    let Some(piece) = stack.bytes(2) else {
        let must = "a string or a buffer";
        return Err(bad_argument(stack, "stream:write", 2, must));
    };
    if upload.is_over.get() {
        return Err(Raise::from(
            "stream:write: the body has ended, as its function has returned",
        ));
    }
    let worker = stack.worker()?;
    if upload.is_lost.get() {
        stack.push_boolean(false);
        return Ok(Returns::Values(1));
    }
    match super::write_body(worker, upload.key, piece) {
        Ok(Pressure::High) if stack.may_suspend() => {
            let key = scheduler::wait_for_wire(worker, stack)?;
            upload.writers.borrow_mut().push(key);
            Ok(Returns::Suspend)
        }
        Err(Misuse::LengthMismatch) => Err(Raise::from(
            "stream:write: more bytes than the request's content-length announced",
        )),
        written => {
            stack.push_boolean(written.is_ok());
            Ok(Returns::Values(1))
        }
    }
}

/// `stream:closed()`: whether the request is done, so that nobody reads what is written.
fn closed(stack: &mut Stack<'_>) -> Outcome {
    let upload = this(stack)?;
    stack.push_boolean(upload.is_lost.get());
    Ok(Returns::Values(1))
}
