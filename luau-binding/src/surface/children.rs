//! VMs on threads of their own, each with one module of a script's: what `@lute/vm` is made of.
//!
//! Sits below `surface/helpers.rs`, whose `children()` gives the table of these functions. A child is a
//! runtime with a reactor of its own; nothing is shared, and what crosses is copied ([`Parcel`]).
//!
//! | Member | Meaning |
//! | --- | --- |
//! | `create(path, source, line)` | loads the module as if `source` required it at `line`; waits, and returns the child's number and the names of its functions |
//! | `call(child, name, ...)` | calls one of them there; waits for what it returns |
//! | `rest(child)` | waits until nothing is left to do there; an exit status if a script there asked for the end |
//! | `drain(child)` | has it stop listening and end, as by a signal |
//!
//! ```text
//!  parent's loop ── orders ─▶ child's loop ─▶ coroutine ─▶ the function
//!        ▲                                                     │
//!        └───────────── Waiter::resume_with ◀──────────────────┘
//! ```
//!
//! Invariants
//! - Every order is answered once: whoever drops its waiter raises an error where it was given.
//! - A child without work sleeps; it ends with the runtime that made it. There are [`CHILDREN_MAX`] at most.
//! - What cannot be copied raises where it would have been sent from, or where it would arrive. What is copied
//!   is bounded in depth and bytes.
//!
//! Not here: the proxy that scripts have (`surface/lute/vm.luau`), workers of one script (`crew.rs`).

use super::CHUNK;
use crate::crew::Seat;
use crate::embed::{self, Waiter};
use crate::require;
use crate::runtime::{Error, Options, Runtime, Stop, Turn, Worker};
use hukilau_core::reactor::mailbox::Remote;
use mlua::{IntoLua, Lua, MultiValue, Table, Value, Variadic};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::time::Duration;

/// As the main thread's, for scripts that recurse.
const STACK_BYTES: usize = 8 * 1024 * 1024;
/// Tables within tables beyond which a value is taken to contain itself.
const DEPTH_MAX: u32 = 128;
/// Bytes that one call may carry each way, a value counted as [`Parcel`] and what it holds. What stands in many
/// places is copied to each, so a few tables can be more than any memory.
const CARRIED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// VMs of the process that were made by scripts and have not ended. Each has threads and descriptors, and a module
/// that makes a VM of itself would make them without end.
const CHILDREN_MAX: usize = 256;
/// What a drain lets finish, as for a signal.
const GRACE: Duration = Duration::from_secs(10);

/// A value on its way from one VM to another.
#[derive(Debug, PartialEq)]
enum Parcel {
    Nil,
    Boolean(bool),
    Number(f64),
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    Table(Vec<(Self, Self)>),
}

impl Parcel {
    fn pack_all(values: &[Value]) -> mlua::Result<Vec<Self>> {
        let mut left = CARRIED_BYTES_MAX;
        let packed = values.iter().map(|value| Self::pack(value, 0, &mut left));
        packed.collect()
    }

    /// Copies a value that lies in `depth` tables; `left` bytes may still be carried.
    fn pack(value: &Value, depth: u32, left: &mut usize) -> mlua::Result<Self> {
        if depth > DEPTH_MAX {
            return Err(unfit("it is too deep, or contains itself"));
        }
        take(left, size_of::<Self>())?;
        Ok(match value {
            Value::Nil => Self::Nil,
            Value::Boolean(value) => Self::Boolean(*value),
            Value::Integer(value) => Self::Number(*value as f64),
            Value::Number(value) => Self::Number(*value),
            Value::String(text) => {
                take(left, text.as_bytes().len())?;
                Self::Text(text.as_bytes().to_vec())
            }
            Value::Buffer(bytes) => {
                take(left, bytes.len())?;
                Self::Bytes(bytes.to_vec())
            }
            Value::Table(table) => {
                let mut entries = Vec::new();
                table.for_each(|key: Value, value: Value| {
                    let value = Self::pack(&value, depth + 1, left)?;
                    entries.push((Self::pack(&key, depth + 1, left)?, value));
                    Ok(())
                })?;
                Self::Table(entries)
            }
            other => return Err(unfit(&format!("a {} stays where it is", other.type_name()))),
        })
    }

    fn open(self, lua: &Lua) -> mlua::Result<Value> {
        Ok(match self {
            Self::Nil => Value::Nil,
            Self::Boolean(value) => Value::Boolean(value),
            Self::Number(value) => Value::Number(value),
            Self::Text(bytes) => Value::String(lua.create_string(bytes)?),
            Self::Bytes(bytes) => Value::Buffer(lua.create_buffer(bytes)?),
            Self::Table(entries) => {
                let table = lua.create_table_with_capacity(0, entries.len())?;
                for (key, value) in entries {
                    table.raw_set(key.open(lua)?, value.open(lua)?)?;
                }
                Value::Table(table)
            }
        })
    }
}

fn unfit(what: &str) -> mlua::Error {
    let text = format!("failed to copy a value between VMs: {what}");
    mlua::Error::RuntimeError(text)
}

/// Takes `count` of the bytes that are left.
fn take(left: &mut usize, count: usize) -> mlua::Result<()> {
    let rest = left.checked_sub(count);
    *left = rest.ok_or_else(|| unfit("it takes more than 64 MiB"))?;
    Ok(())
}

/// Something that a child is to do.
enum Order {
    Call {
        name: String,
        args: Vec<Parcel>,
        waiter: Waiter,
    },
    /// Tell when nothing is left to do.
    Rest(Waiter),
}

/// A child as its parent knows it.
struct Child {
    orders: Sender<Order>,
    /// Has the child's loop look for orders.
    remote: Remote,
    stop: Stop,
}

impl Child {
    fn give(&self, order: Order) {
        // A child that is gone drops the order, and its waiter says so.
        let _ = self.orders.send(order);
        self.remote.wake();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.stop.drain(Duration::ZERO);
    }
}

/// How many there are in the process.
static ALIVE: AtomicUsize = AtomicUsize::new(0);

/// One of the places that there are for children, while it is held.
struct Place;

impl Place {
    fn take() -> mlua::Result<Self> {
        let order = Ordering::Relaxed;
        let taken = ALIVE.fetch_update(order, order, |alive| {
            (alive < CHILDREN_MAX).then_some(alive + 1)
        });
        taken.map(|_| Self).map_err(|alive| {
            mlua::Error::RuntimeError(format!("there are {alive} VMs, which is the most"))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The children of a runtime, in its VM.
#[derive(Default)]
struct Children(RefCell<Vec<Child>>);

/// Does something with a child of `lua`'s.
fn with_child<R>(lua: &Lua, number: usize, act: impl FnOnce(&Child) -> R) -> mlua::Result<R> {
    let children = lua.app_data_ref::<Children>();
    let found = children.as_ref().and_then(|children| {
        let children = children.0.borrow();
        children.get(number).map(act)
    });
    found.ok_or_else(|| mlua::Error::RuntimeError("there is no such VM".to_owned()))
}

/// The table of functions. Children are started with `options`.
pub(super) fn module(lua: &Lua, worker: &Rc<Worker>, options: &Options) -> mlua::Result<Table> {
    if lua.app_data_ref::<Children>().is_none() {
        lua.set_app_data(Children::default());
    }
    let options = Options {
        seat: Seat::default(),
        metrics: None,
        ..options.clone()
    };
    let module = lua.create_table()?;
    module.raw_set(
        "create",
        embed::waiting(lua, worker, move |_, (path, source, line), ready| {
            let job = Job {
                _place: Place::take()?,
                options: options.clone(),
                path,
                source,
                line,
            };
            let thread = std::thread::Builder::new()
                .name("vm".to_owned())
                .stack_size(STACK_BYTES);
            let started = thread.spawn(move || live(&job, ready));
            started.map(drop).map_err(|error| {
                mlua::Error::RuntimeError(format!("cannot start a thread: {error}"))
            })
        })?,
    )?;
    module.raw_set(
        "call",
        embed::waiting(
            lua,
            worker,
            |lua, (child, name, args): (usize, String, Variadic<Value>), waiter| {
                let args = Parcel::pack_all(&args)?;
                let order = Order::Call { name, args, waiter };
                with_child(lua, child, |child| child.give(order))
            },
        )?,
    )?;
    module.raw_set(
        "rest",
        embed::waiting(lua, worker, |lua, child: usize, waiter| {
            with_child(lua, child, |child| child.give(Order::Rest(waiter)))
        })?,
    )?;
    module.raw_set(
        "drain",
        lua.create_function(|lua, child: usize| {
            with_child(lua, child, |child| child.stop.drain(GRACE))
        })?,
    )?;
    Ok(module)
}

/// What a child's thread is given.
struct Job {
    _place: Place,
    options: Options,
    path: String,
    /// The chunk that asks for the module, as errors show it, and the line where it does.
    source: String,
    line: usize,
}

/// Loads the module and tells of it: its functions by name, or nil and what is wrong.
const LOAD: &str = "local path, tell = ... \
    local ok, module = pcall(function() return require(path) end) \
    if not ok then return tell(nil, `Failed to spawn, target module error: {module}`) end \
    if type(module) ~= 'table' then return tell(nil, `Module {path} did not return a table`) end \
    local functions = {} \
    for name, value in next, module do \
        if type(name) == 'string' and type(value) == 'function' then functions[name] = value end \
    end \
    tell(functions)";

/// Calls a function, and hands over what it returns or raises.
const CALL: &str = "local answer = ... \
    return function(number, call, ...) answer(number, pcall(call, ...)) end";

/// What a child's functions and its loop share.
#[derive(Default)]
struct Inside {
    functions: RefCell<Option<Table>>,
    /// Calls that have not returned, by number.
    calls: RefCell<HashMap<u64, Waiter>>,
    last_call: Cell<u64>,
}

/// The life of a child: until its parent has gone, or its script asks for the end.
fn live(job: &Job, ready: Waiter) {
    let mut runtime = match Runtime::new(&job.options) {
        Ok(runtime) => runtime,
        Err(error) => return ready.fail(error.to_string()),
    };
    let inside = Rc::new(Inside::default());
    let (orders, received) = mpsc::channel();
    let child = Child {
        orders,
        remote: runtime.reactor().remote(),
        stop: runtime.stop(),
    };
    let runner = load(&mut runtime, job, &inside, ready, child)
        .and_then(|()| runner(runtime.lua(), &inside));
    // Without memory for that the waiter has been dropped, which says it.
    let Ok(runner) = runner else { return };
    let mut resting = Vec::new();
    loop {
        let order = match received.try_recv() {
            Ok(order) => Some(order),
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => match turn(&mut runtime, &received, &mut resting) {
                Some(order) => order,
                None => return,
            },
        };
        match order {
            Some(Order::Call { name, args, waiter }) => {
                call(&mut runtime, &inside, &runner, (&name, args), waiter);
            }
            Some(Order::Rest(waiter)) => resting.push(waiter),
            None => {}
        }
    }
}

/// One turn of a child's loop. With nothing left to do it tells those who wait for that, and sleeps until
/// there is an order, which it returns. None if the child is to end.
fn turn(
    runtime: &mut Runtime,
    received: &Receiver<Order>,
    resting: &mut Vec<Waiter>,
) -> Option<Option<Order>> {
    match runtime.turn(None) {
        Ok(Turn::Running) => Some(None),
        Ok(Turn::Ended(status)) if runtime.has_exited() => {
            resting.drain(..).for_each(|waiter| waiter.resume(status));
            None
        }
        Ok(Turn::Ended(_)) => {
            resting.drain(..).for_each(|waiter| waiter.resume(()));
            received.recv().ok().map(Some)
        }
        Err(error) => {
            let text = match error {
                Error::Script { message, .. } => message,
                other => other.to_string(),
            };
            resting
                .drain(..)
                .for_each(|waiter| waiter.fail(text.as_str()));
            None
        }
    }
}

/// Starts loading the module. `ready` hears of it, and `child` becomes its parent's when it is there.
fn load(
    runtime: &mut Runtime,
    job: &Job,
    inside: &Rc<Inside>,
    ready: Waiter,
    child: Child,
) -> mlua::Result<()> {
    let lua = runtime.lua();
    let is_stdin = require::STDIN_CHUNK.strip_prefix('=') == Some(job.source.as_str());
    let name = match is_stdin {
        true => require::STDIN_CHUNK.to_owned(),
        false => require::chunk_name(&job.source),
    };
    // So that errors name the line where the script asked for the module.
    let source = "\n".repeat(job.line.saturating_sub(1)) + LOAD;
    let loader = require::compile(
        lua,
        source.as_bytes(),
        &name,
        Some(runtime.new_environment()?),
    )
    .map_err(mlua::Error::RuntimeError)?;
    let (inside, told) = (Rc::clone(inside), Cell::new(Some((ready, child))));
    let tell = lua.create_function(
        move |_, (functions, problem): (Option<Table>, Option<String>)| {
            let Some((ready, child)) = told.take() else {
                return Ok(());
            };
            let Some(functions) = functions else {
                ready.fail(problem.unwrap_or_default());
                return Ok(());
            };
            let keys = functions.pairs::<String, Value>();
            let names: mlua::Result<Vec<String>> = keys.map(|pair| Ok(pair?.0)).collect();
            let names = names?;
            *inside.functions.borrow_mut() = Some(functions);
            ready.resume_with(move |lua| {
                let children = lua.app_data_ref::<Children>();
                let children = children.as_ref().map(|children| children.0.borrow_mut());
                let number = children.map(|mut children| {
                    children.push(child);
                    children.len() - 1
                });
                Ok((number, names))
            });
            Ok(())
        },
    )?;
    runtime.spawn(&loader, (job.path.as_str(), tell))
}

/// The function that calls others and hands their results over.
fn runner(lua: &Lua, inside: &Rc<Inside>) -> mlua::Result<mlua::Function> {
    let inside = Rc::clone(inside);
    let answer = lua.create_function(
        move |_, (number, is_well, values): (u64, bool, Variadic<Value>)| {
            let Some(waiter) = inside.calls.borrow_mut().remove(&number) else {
                return Ok(());
            };
            if !is_well {
                let raised = values.first().and_then(Value::as_string);
                let raised = raised.map(mlua::LuaString::to_string_lossy);
                waiter.fail(raised.unwrap_or_else(|| "the call in another VM failed".to_owned()));
                return Ok(());
            }
            match Parcel::pack_all(&values) {
                Ok(results) => waiter.resume_with(move |lua| open_all(lua, results)),
                Err(error) => waiter.fail(embed::text(&error)),
            }
            Ok(())
        },
    )?;
    lua.load(CALL)
        .set_name(format!("={CHUNK} vm]"))
        .call(answer)
}

fn open_all(lua: &Lua, parcels: Vec<Parcel>) -> mlua::Result<MultiValue> {
    let opened = parcels.into_iter().map(|parcel| parcel.open(lua));
    opened.collect::<mlua::Result<MultiValue>>()
}

/// Starts a call that was ordered.
fn call(
    runtime: &mut Runtime,
    inside: &Inside,
    runner: &mlua::Function,
    (name, args): (&str, Vec<Parcel>),
    waiter: Waiter,
) {
    let number = inside.last_call.get() + 1;
    inside.last_call.set(number);
    let lua = runtime.lua();
    let given = || {
        let functions = inside.functions.borrow();
        let function: Value = match functions.as_ref() {
            Some(functions) => functions.raw_get(name)?,
            None => Value::Nil,
        };
        let mut given = open_all(lua, args)?;
        given.push_front(function);
        given.push_front(number.into_lua(lua)?);
        Ok(given)
    };
    let given: mlua::Result<MultiValue> = given();
    inside.calls.borrow_mut().insert(number, waiter);
    let started = given.and_then(|given| runtime.spawn(runner, given));
    if let Err(error) = started
        && let Some(waiter) = inside.calls.borrow_mut().remove(&number)
    {
        waiter.fail(embed::text(&error));
    }
}

#[cfg(test)]
mod tests {
    use super::{CHILDREN_MAX, Parcel, Place};
    use mlua::{Lua, Value};

    #[track_caller]
    fn packed(lua: &Lua, expression: &str) -> Result<Parcel, String> {
        let value: Value = lua.load(expression).eval().expect("an expression");
        let packed = Parcel::pack_all(&[value]).map_err(|error| error.to_string())?;
        Ok(packed.into_iter().next().expect("one value"))
    }

    #[test]
    fn data_is_copied_and_code_is_not() {
        let lua = Lua::new();
        for expression in [
            "nil",
            "true",
            "1.5",
            "-7",
            "'a\\0\\xff'",
            "buffer.fromstring('b')",
            "{ 1, 2, { a = 'b' } }",
        ] {
            let parcel = packed(&lua, expression).expect("data");
            let opened = packed(&lua, expression).expect("data").open(&lua);
            let again = Parcel::pack_all(&[opened.expect("memory")]);
            assert_eq!(again.expect("data"), [parcel], "{expression}");
        }
        let itself = "(function() local t = {} t.t = t return t end)()";
        for (expression, why) in [
            ("print", "a function stays where it is"),
            (
                "{ { coroutine.create(print) } }",
                "a thread stays where it is",
            ),
            ("newproxy()", "a userdata stays where it is"),
            (itself, "it is too deep, or contains itself"),
            (
                "(function() local t = {} for _ = 1, 100 do t = { t, t } end return t end)()",
                "it takes more than 64 MiB",
            ),
            (
                "table.create(100, string.rep('x', 1024 * 1024))",
                "it takes more than 64 MiB",
            ),
        ] {
            let refused = packed(&lua, expression).expect_err("no data");
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn there_are_so_many_at_once_and_no_more() {
        let mut places: Vec<Place> = (0..CHILDREN_MAX)
            .map(|_| Place::take().expect("there is one"))
            .collect();
        let refused = Place::take().map(drop).expect_err("all are taken");
        assert!(refused.to_string().contains("there are 256 VMs"));
        places.pop();
        assert!(Place::take().is_ok());
    }
}
