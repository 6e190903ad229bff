//! `task.every(hz, fn)`, and the ticker that it returns: the object by which a script stops the calls and sees how
//! many were not made.
//!
//! Sits above `scheduler/every.rs`, which makes the calls.
//!
//! Invariants
//! - A ticker that nobody holds goes on, and keeps the process: only cancelling ends it.
//!
//! Not here: when a call is due, and what is an overrun (`scheduler/every.rs`).

use crate::net::methods;
use crate::runtime::Worker;
use crate::scheduler::every::{self, Ticker};
use crate::value::bad_argument;
use crate::vm::atom::Atom;
use crate::vm::object::{Metatable, Object, Tag};
use crate::vm::{self, Kind, Outcome, Raise, Returns, Stack};
use std::ffi::CStr;
use std::rc::Rc;

/// The userdata.
struct Handle(Rc<Ticker>);

impl Object for Handle {
    const TAG: Tag = Tag::Ticker;
    const NAME: &'static CStr = c"Ticker";
}

/// Calls a second: less than one in a day is a mistake, and so is more than the loop's clock can tell apart.
const HZ_MIN: f64 = 1.0 / 86_400.0;
const HZ_MAX: f64 = 1_000.0;

const MEMBERS: &[&str] = &["cancel", "cancelled", "hz", "overruns", "ticks"];

/// Installs the metatable and the method.
pub(super) fn install(lua: &mlua::Lua, worker: &Rc<Worker>) -> mlua::Result<()> {
    Metatable::new(lua, worker, Tag::Ticker, Handle::NAME)?
        .with(c"__index", index)?
        .with(c"__newindex", |_| {
            Err(Raise::from("a ticker cannot be changed"))
        })?
        .with(c"__namecall", invoke)?
        .install_object::<Handle>()?;
    methods::add(
        lua,
        worker,
        (Tag::Ticker, Atom::Cancel),
        c"cancel",
        cancel_method,
    )
}

/// `task.every(hz, fn)`: calls `fn(elapsed, ticker)` so many times a second.
pub(super) fn every(stack: &mut Stack<'_>) -> Outcome {
    let hz = stack
        .number(1)
        .filter(|hz| (HZ_MIN..=HZ_MAX).contains(hz))
        .ok_or_else(|| {
            let must = "a number of calls a second, above 0 and at most 1000";
            bad_argument(stack, "task.every", 1, must)
        })?;
    if stack.kind(2) != Kind::Function {
        return Err(bad_argument(stack, "task.every", 2, "a function"));
    }
    let worker = stack.worker()?;
    let ticker = Ticker::new(hz, vm::clock());
    let function = stack.pin(2, worker.root.released());
    stack.push_object(Handle(Rc::clone(&ticker)));
    let object = stack.pin(stack.len(), worker.root.released());
    every::begin(worker, &ticker, (function, object))?;
    Ok(Returns::Values(1))
}

/// The part of `task.cancel` that ends tickers: whether the value at 1 is one.
pub(super) fn cancelled(stack: &Stack<'_>) -> Result<bool, Raise> {
    let Some(Handle(ticker)) = stack.object::<Handle>(1) else {
        return Ok(false);
    };
    every::cancel(stack.worker()?, ticker);
    Ok(true)
}

fn cancel_method(stack: &mut Stack<'_>) -> Outcome {
    match cancelled(stack)? {
        true => Ok(Returns::Values(0)),
        false => Err(not_a_ticker()),
    }
}

fn not_a_ticker() -> Raise {
    Raise::from("ticker: argument #1 must be a ticker (call methods with a colon)")
}

fn index(stack: &mut Stack<'_>) -> Outcome {
    let Some(Handle(ticker)) = stack.object::<Handle>(1) else {
        return Err(not_a_ticker());
    };
    let ticker = Rc::clone(ticker);
    match stack.atom(2) {
        Some(Atom::Cancelled) => stack.push_boolean(ticker.is_cancelled()),
        Some(Atom::Hz) => stack.push_number(ticker.hz),
        Some(Atom::Overruns) => stack.push_number(ticker.overruns.get()),
        Some(Atom::Ticks) => stack.push_number(ticker.ticks.get()),
        Some(atom) if methods::push(stack, Tag::Ticker, atom)? => {}
        _ => return Err(methods::unknown(stack, "ticker", MEMBERS)),
    }
    Ok(Returns::Values(1))
}

fn invoke(stack: &mut Stack<'_>) -> Outcome {
    match stack.called_member() {
        Some(Atom::Cancel) => cancel_method(stack),
        _ => Err(methods::unknown_call(stack, "ticker", MEMBERS)),
    }
}
