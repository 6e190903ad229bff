//! For Rust programs that have Luau scripts inside: own functions that wait, own loops.
//!
//! Sits above `runtime.rs`. A program makes a [`Runtime`] on a thread of its choice, hands modules to
//! scripts, starts some, and either gives the thread away ([`Runtime::run_file`]) or calls
//! [`Runtime::turn`] from a loop of its own. `examples/embed.rs` is a game loop that does.
//!
//! A function made by [`Runtime::waiting_function`] suspends the coroutine that calls it. Its
//! [`Waiter`] goes wherever the answer comes from, another thread too; what it is resumed with is
//! converted to Luau values on the runtime's thread, in its next turn.
//!
//! Invariants
//! - A call ends exactly once: by its waiter, or by an error when the waiter is dropped.
//! - A coroutine that was cancelled meanwhile is not resumed.
//!
//! Not here: what is built in (`net/`, `std/`), the loop itself (`runtime.rs`).

use crate::bridge::Purpose;
use crate::require;
use crate::runtime::{Error, Runtime, Worker};
use crate::scheduler::{self, WaitKey};
use crate::vm::{self, Outcome, Pin, Raise, Returns, Stack};
use hukilau_core::Reactor;
use hukilau_core::reactor::mailbox::Remote;
use mlua::{FromLuaMulti, IntoLua, IntoLuaMulti, Lua, MultiValue};
use std::cell::{Cell, RefCell, RefMut};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What a call is resumed with, made on the runtime's thread.
type Values = Box<dyn FnOnce(&Lua) -> mlua::Result<MultiValue> + Send>;

/// Answers of waiters, on their way to the loop.
#[derive(Default)]
struct Answers {
    queue: Mutex<Vec<(u64, Result<Values, String>)>>,
    /// Whether there is one. The loop, which is woken after it has been set, asks each turn.
    has_some: AtomicBool,
}

/// The calls of a host's functions that wait.
#[derive(Default)]
pub(crate) struct Host {
    /// By ticket; nothing while the call has not been suspended yet.
    waiting: RefCell<HashMap<u64, Option<WaitKey>>>,
    last_ticket: Cell<u64>,
    answers: Arc<Answers>,
}

impl Host {
    /// Whether a call will be answered that somebody still waits for.
    pub(crate) fn is_pending(&self, is_current: impl Fn(WaitKey) -> bool) -> bool {
        let waiting = self.waiting.borrow();
        waiting.values().flatten().any(|key| is_current(*key))
    }

    fn open(&self, remote: Remote) -> (u64, Waiter) {
        let ticket = self.last_ticket.get() + 1;
        self.last_ticket.set(ticket);
        self.waiting.borrow_mut().insert(ticket, None);
        let waiter = Waiter {
            ticket,
            answers: Some(Arc::clone(&self.answers)),
            remote,
        };
        (ticket, waiter)
    }

    fn forget(&self, ticket: u64) {
        self.waiting.borrow_mut().remove(&ticket);
    }
}

/// Ends one call of a [waiting function](Runtime::waiting_function), from any thread.
///
/// Dropped without a word, it raises an error in the script: no coroutine waits for ever.
#[must_use = "a waiter that is dropped raises an error in the script"]
pub struct Waiter {
    ticket: u64,
    /// Taken when it has answered.
    answers: Option<Arc<Answers>>,
    remote: Remote,
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waiter").field(&self.ticket).finish()
    }
}

impl Waiter {
    /// Lets the call return `values`. A coroutine that has been cancelled stays so.
    pub fn resume(mut self, values: impl IntoLuaMulti + Send + 'static) {
        self.answer(Ok(Box::new(move |lua| values.into_lua_multi(lua))));
    }

    /// Lets the call return what `make` makes, on the runtime's thread: for values that need the
    /// VM, such as tables. An error of `make` is raised by the call.
    pub fn resume_with<R: IntoLuaMulti>(
        mut self,
        make: impl FnOnce(&Lua) -> mlua::Result<R> + Send + 'static,
    ) {
        self.answer(Ok(Box::new(move |lua| make(lua)?.into_lua_multi(lua))));
    }

    /// Lets the call raise `message`, with the place of the call before it.
    pub fn fail(mut self, message: impl Into<String>) {
        self.answer(Err(message.into()));
    }

    fn answer(&mut self, answer: Result<Values, String>) {
        if let Some(answers) = self.answers.take() {
            let mut queue = answers.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.push((self.ticket, answer));
            drop(queue);
            answers.has_some.store(true, Ordering::Release);
            self.remote.wake();
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.answer(Err("the host gave up on this call".to_owned()));
    }
}

/// Suspends the caller until the ticket at 1 is answered; returns whether it went well, and what
/// the answer is.
fn park(stack: &mut Stack<'_>) -> Outcome {
    let worker = stack.worker()?;
    // Tickets count calls: a number holds more of them than there will ever be.
    #[expect(clippy::cast_possible_truncation, reason = "made from one by `begin`")]
    let ticket = stack.number(1).unwrap_or(0.0) as u64;
    let mut waiting = worker.host.waiting.borrow_mut();
    if !waiting.contains_key(&ticket) {
        return Err(Raise::from("this call has ended"));
    }
    match scheduler::wait_for_wire(worker, stack) {
        Ok(key) => {
            waiting.insert(ticket, Some(key));
            Ok(Returns::Suspend)
        }
        Err(raise) => {
            waiting.remove(&ticket);
            Err(raise)
        }
    }
}

/// The script's side of a waiting function. Errors are raised at the line that called it.
const WAITING_FUNCTION: &str = "
local begin, park = ...
local function finish(isWell, ...)
    if isWell then
        return ...
    end
    error((...), 3)
end
return function(...)
    local ticket, refusal = begin(...)
    if not ticket then
        error(refusal, 2)
    end
    return finish(park(ticket))
end";

/// As [`Runtime::waiting_function`], for what is built in.
pub(crate) fn waiting<A: FromLuaMulti>(
    lua: &Lua,
    worker: &Rc<Worker>,
    begin: impl Fn(&Lua, A, Waiter) -> mlua::Result<()> + 'static,
) -> mlua::Result<mlua::Function> {
    let park = vm::function(lua, worker, c"wait", park)?;
    let worker = Rc::downgrade(worker);
    let begin = lua.create_function(move |lua, args: MultiValue| {
        let Some(worker) = worker.upgrade() else {
            return Ok((None, Some("the runtime has ended".to_owned())));
        };
        let remote = worker.reactor.borrow().remote();
        let (ticket, waiter) = worker.host.open(remote);
        let begun = A::from_lua_multi(args, lua).and_then(|args| begin(lua, args, waiter));
        // Scripts are given errors as plain strings.
        Ok(match begun {
            Ok(()) => (Some(ticket as f64), None),
            Err(error) => {
                worker.host.forget(ticket);
                (None, Some(text(&error)))
            }
        })
    })?;
    lua.load(WAITING_FUNCTION)
        .set_name("=host")
        .call((begin, park))
}

/// An error as a script is to read it.
pub(crate) fn text(error: &mlua::Error) -> String {
    match error {
        mlua::Error::RuntimeError(message) => message.clone(),
        other => other.to_string(),
    }
}

/// Resumes the coroutines whose calls have been answered.
pub(crate) fn deliver(worker: &Worker, lua: &Lua) {
    let answers = &worker.host.answers;
    if !answers.has_some.load(Ordering::Acquire) {
        return;
    }
    // Before the queue is taken: what comes later raises it again.
    answers.has_some.store(false, Ordering::Release);
    let answered = {
        let mut queue = answers.queue.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *queue)
    };
    for (ticket, answer) in answered {
        let key = worker.host.waiting.borrow_mut().remove(&ticket);
        let Some(Some(key)) = key else { continue };
        let answer = answer
            .and_then(|make| make(lua).map_err(|error| text(&error)))
            .and_then(|values| pinned(worker, lua, values).map_err(|error| text(&error)));
        let from = worker.root.stack(worker);
        scheduler::wake(worker, &from, key, |stack| {
            stack.push_boolean(answer.is_ok());
            match &answer {
                Ok(pins) => push_pins(stack, pins) + 1,
                Err(message) => {
                    stack.push_string(message);
                    2
                }
            }
        });
    }
}

/// Keeps values until they are on a coroutine's stack.
fn pinned(worker: &Worker, lua: &Lua, values: MultiValue) -> mlua::Result<Vec<Pin>> {
    values
        .into_iter()
        .map(|value| worker.root.pin(lua, value))
        .collect()
}

fn push_pins(stack: &mut Stack<'_>, pins: &[Pin]) -> i32 {
    let count = i32::try_from(pins.len()).unwrap_or(i32::MAX);
    if !stack.reserve(count) {
        return 0;
    }
    for pin in pins {
        stack.push_pin(pin);
    }
    count
}

impl Runtime {
    /// Makes `value`, usually a table of functions, what `require(name)` gives. `name` begins with
    /// `@`, as in `@game/world`. The table is frozen: scripts share it.
    ///
    /// # Errors
    /// If the name does not begin with `@`, or is one of `@huki/…`.
    pub fn add_module(&self, name: &str, value: impl IntoLua) -> Result<(), Error> {
        if name.starts_with("@huki/") {
            return Err(Error::Vm(format!("'{name}' is a module of huki itself")));
        }
        let value = value.into_lua(self.lua())?;
        if let mlua::Value::Table(table) = &value {
            table.set_readonly(true);
        }
        Ok(self.lua().register_module(name, value)?)
    }

    /// Makes a function that suspends the coroutine which calls it until its [`Waiter`] answers.
    /// `begin` gets the arguments; an error that it returns is raised at once.
    ///
    /// ```
    /// # use hukilau::{Options, Runtime};
    /// let mut runtime = Runtime::new(&Options::default())?;
    /// let slow = runtime.waiting_function(|_, seconds: f64, waiter| {
    ///     std::thread::spawn(move || waiter.resume(seconds * 2.0));
    ///     Ok(())
    /// })?;
    /// let module = runtime.lua().create_table()?;
    /// module.raw_set("slow", slow)?;
    /// runtime.add_module("@app/slow", module)?;
    /// runtime.run_source("=doc", b"assert(require('@app/slow').slow(2) == 4)")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Without memory.
    pub fn waiting_function<A: FromLuaMulti>(
        &self,
        begin: impl Fn(&Lua, A, Waiter) -> mlua::Result<()> + 'static,
    ) -> mlua::Result<mlua::Function> {
        waiting(self.lua(), self.shared(), begin)
    }

    /// Globals for code that the host compiles itself, like those of a script: what is set there
    /// stays there.
    ///
    /// # Errors
    /// Without memory.
    pub fn new_environment(&self) -> mlua::Result<mlua::Table> {
        require::environment(self.lua())
    }

    /// Starts the script at `path`: runs it until it ends or waits for the first time. It goes on
    /// in [`turn`](Self::turn). Several may be started; they share modules and nothing else.
    ///
    /// # Errors
    /// If the file cannot be read or does not compile. What it raises, the next turn tells.
    pub fn start_file(&mut self, path: &str) -> Result<(), Error> {
        let source = require::read_source(path).map_err(Error::Unreadable)?;
        self.start_source(&require::chunk_name(path), &source)
    }

    /// Runs `function` with `args` in a coroutine of its own, until it ends or waits for the first
    /// time: how a host tells a script that something has happened. What it raises is reported on
    /// standard error.
    ///
    /// # Errors
    /// If the arguments cannot be converted.
    pub fn spawn(
        &mut self,
        function: &mlua::Function,
        args: impl IntoLuaMulti,
    ) -> mlua::Result<()> {
        let worker = Rc::clone(self.shared());
        let lua = self.lua();
        let function = worker.root.pin(lua, function)?;
        let args = pinned(&worker, lua, args.into_lua_multi(lua)?)?;
        let from = worker.root.stack(&worker);
        scheduler::start(&worker, &from, Purpose::Detached, |stack| {
            stack.push_pin(&function);
            push_pins(stack, &args)
        });
        Ok(())
    }

    /// The reactor that scripts use, for listeners and connections of the host's own. Their
    /// completions come to [`turn_sharing`](Self::turn_sharing).
    pub fn reactor(&self) -> RefMut<'_, Reactor> {
        self.shared().reactor.borrow_mut()
    }
}
