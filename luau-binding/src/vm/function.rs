//! Raw functions: Rust functions that scripts call, and how they return, yield and raise.
//!
//! Sits beside `vm.rs`. A Rust function that captures nothing becomes a C function of its own, by a
//! type parameter; its one upvalue is the worker.
//!
//! Invariants
//! - A raise leaves the Rust function by its `Result`; only the trampoline throws, with nothing left
//!   to drop.
//! - Every error begins with the place of the script line that led to it.
//!
//! Not here: what the functions do (`net/`, `std/`).

use super::coroutine::{NOTE_TRACE, trace};
use super::guard::NOT_ENOUGH_MEMORY;
use super::{Outcome, Raise, Returns, Stack, ffi};
use crate::require;
use crate::runtime::Worker;
use crate::surface::CHUNK;
use crate::value::bad_argument;
use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_int};
use std::ptr::NonNull;
use std::rc::Rc;

/// Makes a Luau function of `function`, which must capture nothing. `name` is what tracebacks say.
pub(crate) fn function<F>(
    lua: &mlua::Lua,
    worker: &Rc<Worker>,
    name: &'static CStr,
    function: F,
) -> mlua::Result<mlua::Function>
where
    F: Fn(&mut Stack<'_>) -> Outcome + Copy + 'static,
{
    let _ = function;
    let worker = Rc::as_ptr(worker);
    // SAFETY: pushes one closure with one upvalue and leaves it as the result. The upvalue is read
    // back as `&Worker` by `trampoline`; the VM owns an `Rc` of it (`Runtime::new`).
    unsafe {
        lua.exec_raw((), move |state| {
            push_function::<F>(state, worker, name);
        })
    }
}

/// Pushes the closure for `F`. Stack: +1, uses 2.
///
/// # Safety
/// `state` is live, and `worker` outlives the VM.
unsafe fn push_function<F>(state: *mut ffi::lua_State, worker: *const Worker, name: &'static CStr)
where
    F: Fn(&mut Stack<'_>) -> Outcome + Copy + 'static,
{
    // SAFETY: by the contract above; pushes grow the stack by themselves.
    unsafe {
        ffi::lua_pushlightuserdata(state, worker.cast_mut().cast());
        ffi::lua_pushcclosured(state, trampoline::<F>, name.as_ptr(), 1);
    }
}

/// The C face of a raw function: calls it, then returns, yields or raises as it says. Stack: 1, for the
/// error; the function's pushes see to their own room.
///
/// # Safety
/// Called by the VM only, as the function of a closure made by [`push_function`].
unsafe extern "C-unwind" fn trampoline<F>(state: *mut ffi::lua_State) -> c_int
where
    F: Fn(&mut Stack<'_>) -> Outcome + Copy + 'static,
{
    const { assert!(size_of::<F>() == 0, "a raw function captures nothing") };
    // SAFETY: `F` has no bytes and is `Copy`, so a read of it touches nothing; a value of it
    // existed when the function was registered.
    let function: F = unsafe { NonNull::<F>::dangling().read() };
    // SAFETY: upvalue 1 is the worker by `push_function`, and the VM keeps it alive.
    let worker = unsafe {
        ffi::lua_tolightuserdata(state, ffi::lua_upvalueindex(1))
            .cast::<Worker>()
            .as_ref()
    };
    let Some(here) = NonNull::new(state) else {
        return 0;
    };
    let mut stack = Stack {
        state: here,
        worker,
    };
    // Memory is refused between Rust functions, never within one: none is left halfway.
    let relaxed = worker.map(|worker| worker.guard.relax());
    let outcome = match worker {
        Some(worker) if worker.guard.is_over() => Err(Raise::from(NOT_ENOUGH_MEMORY)),
        _ => function(&mut stack),
    };
    match outcome {
        Ok(Returns::Values(count)) => count,
        // SAFETY: the function is about to return this to the VM, which is how Luau yields.
        Ok(Returns::Suspend) => unsafe { ffi::lua_yield(state, 0) },
        Err(raise) => {
            stack.push_raise(raise);
            drop(relaxed);
            // SAFETY: the error is on top of the stack, and nothing here has a destructor left.
            unsafe { ffi::lua_error(state) }
        }
    }
}

/// Wraps the function behind `require` so that not finding a module says where it was asked for.
/// Modules may still suspend while they load. What a module raises keeps the calls that led to it:
/// they are noted in the worker before the stack is unwound.
pub(crate) fn placed_require(
    lua: &mlua::Lua,
    worker: &Rc<Worker>,
    require: mlua::Function,
) -> mlua::Result<mlua::Function> {
    let worker = Rc::as_ptr(worker);
    // SAFETY: the function and the closure that notes, whose upvalue is the worker as in
    // `push_function`, become the two upvalues of the closure that takes the function's place.
    unsafe {
        lua.exec_raw(require, move |state| {
            ffi::lua_pushlightuserdata(state, worker.cast_mut().cast());
            ffi::lua_pushcclosured(state, note_trace, NOTE_TRACE.as_ptr(), 1);
            ffi::lua_pushcclosurek(
                state,
                call_require,
                c"require".as_ptr(),
                2,
                Some(after_require),
            );
        })
    }
}

/// A function to handle errors with that notes the calls which led to one, for who catches it only to pass it on.
pub(crate) fn noting(lua: &mlua::Lua, worker: &Rc<Worker>) -> mlua::Result<mlua::Function> {
    let worker = Rc::as_ptr(worker);
    // SAFETY: pushes one closure, whose upvalue is the worker as in `push_function`, and leaves it as the result.
    unsafe {
        lua.exec_raw((), move |state| {
            ffi::lua_pushlightuserdata(state, worker.cast_mut().cast());
            ffi::lua_pushcclosured(state, note_trace, NOTE_TRACE.as_ptr(), 1);
        })
    }
}

/// Notes message and calls of the error at 1, and returns it as it is. Stack: 0.
///
/// # Safety
/// Called by the VM only, as the error handler that [`placed_require`] or [`noting`] has made.
unsafe extern "C-unwind" fn note_trace(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: upvalue 1 is the worker by both, and the VM keeps it alive.
    let worker = unsafe {
        ffi::lua_tolightuserdata(state, ffi::lua_upvalueindex(1))
            .cast::<Worker>()
            .as_ref()
    };
    if let (Some(worker), Some(here)) = (worker, NonNull::new(state)) {
        let stack = Stack {
            state: here,
            worker: None,
        };
        let message = stack.string(1).map(String::from_utf8_lossy);
        // A module that requires another passes its error on: the calls below it say more.
        if let (Some(message), Ok(mut noted)) = (message, worker.noted.try_borrow_mut())
            && noted.as_ref().is_none_or(|(known, _)| **known != message)
        {
            // SAFETY: the state is alive.
            *noted = Some((message.into_owned(), unsafe { trace(state) }));
        }
    }
    1
}

/// Calls upvalue 1 with the first argument, protected by upvalue 2. Stack: 4.
///
/// # Safety
/// Called by the VM only, as the function of a closure made by [`placed_require`].
unsafe extern "C-unwind" fn call_require(state: *mut ffi::lua_State) -> c_int {
    if let Some(here) = NonNull::new(state) {
        let mut stack = Stack {
            state: here,
            worker: None,
        };
        let refused = match stack.string(1) {
            Some(path) => require::unusable(path).map(Raise::from),
            None => Some(bad_argument(
                &stack,
                "require",
                1,
                "the path of a module, a string",
            )),
        };
        if let Some(raise) = refused {
            stack.push_raise(raise);
            // SAFETY: the error is on top of the stack, and nothing here has a destructor left.
            unsafe { ffi::lua_error(state) }
        }
    }
    // SAFETY: both upvalues are functions; the path stays at 1 for what comes after, the one that notes is at 2, below the
    // other and its argument.
    unsafe {
        ffi::lua_settop(state, 1);
        ffi::lua_pushvalue(state, ffi::lua_upvalueindex(2));
        ffi::lua_pushvalue(state, ffi::lua_upvalueindex(1));
        ffi::lua_pushvalue(state, 1);
        ffi::lua_pcallyieldable(state, 1, 1, 2)
    }
}

/// Returns what `require` returned, or raises what it raised, with its place. Stack: 1.
///
/// # Safety
/// Called by the VM only, as the continuation of [`call_require`], with the path at 1 and one value on top.
unsafe extern "C-unwind" fn after_require(state: *mut ffi::lua_State, status: c_int) -> c_int {
    if status == ffi::LUA_OK {
        return 1;
    }
    if let Some(here) = NonNull::new(state) {
        let mut stack = Stack {
            state: here,
            worker: None,
        };
        let path = stack.string(1).map(String::from_utf8_lossy);
        let message = stack.string(stack.len()).map(String::from_utf8_lossy);
        let told = match (path, message) {
            (Some(path), Some(message)) => require::explained(&path, &message),
            _ => None,
        };
        if let Some(told) = told {
            stack.push_raise(Raise::from(told));
        }
    }
    // SAFETY: the error is on top of the stack, and nothing here has a destructor left.
    unsafe { ffi::lua_error(state) }
}

/// How far up a script's line is looked for: functions of ours lie between in small numbers only.
const PLACE_FRAMES_MAX: c_int = 24;

/// Whether a frame with this source belongs to a dialect's surface, which is not the script's place.
/// Stack: none.
///
/// # Safety
/// `source` is a string that ends with NUL.
pub(super) unsafe fn is_surface(source: *const c_char) -> bool {
    // SAFETY: by the contract above.
    let source = unsafe { CStr::from_ptr(source) };
    source.to_bytes().starts_with(CHUNK.as_bytes())
}

/// Bytes of a message from which on its middle is left out: what it quotes may be of any size.
const MESSAGE_BYTES_MAX: usize = 2048;

/// `message`, or its beginning and its end.
fn shortened(message: &str) -> Cow<'_, str> {
    let bytes = message.as_bytes();
    if bytes.len() <= MESSAGE_BYTES_MAX {
        return Cow::Borrowed(message);
    }
    let (head, rest) = bytes.split_at(MESSAGE_BYTES_MAX / 2);
    let (middle, tail) = rest.split_at(rest.len() - MESSAGE_BYTES_MAX / 4);
    Cow::Owned(format!(
        "{} … {} bytes … {}",
        String::from_utf8_lossy(head),
        middle.len(),
        String::from_utf8_lossy(tail)
    ))
}

impl Stack<'_> {
    /// Whether the function that `pin` keeps can see an argument `n`, counted from 1: C functions
    /// and those with `...` see all.
    pub(crate) fn sees_argument(&mut self, pin: &super::Pin, n: u8) -> bool {
        self.push_pin(pin);
        // SAFETY: all-zero is a valid `lua_Debug`: integers and null pointers.
        let mut facts: ffi::lua_Debug = unsafe { std::mem::zeroed() };
        // SAFETY: a negative level names a place on the stack, here the topmost value; for what is
        // no function the answer is 0.
        let is_known = self.kind(self.len()) == super::Kind::Function
            && unsafe { ffi::lua_getinfo(self.raw(), -1, c"a".as_ptr(), &raw mut facts) } != 0;
        self.pop(1);
        !is_known || facts.isvararg != 0 || facts.nparams >= n
    }

    /// `file:line: ` of where the function that `pin` keeps begins; empty if it is none of a script,
    /// or one of a surface.
    pub(crate) fn place_of(&mut self, pin: &super::Pin) -> String {
        self.push_pin(pin);
        let mut place = String::new();
        // SAFETY: all-zero is a valid `lua_Debug`: integers and null pointers.
        let mut facts: ffi::lua_Debug = unsafe { std::mem::zeroed() };
        // SAFETY: as in `sees_argument`; the source is a string with a final NUL that lives as long as the function,
        // which is still on the stack.
        unsafe {
            if self.kind(self.len()) == super::Kind::Function
                && ffi::lua_getinfo(self.raw(), -1, c"s".as_ptr(), &raw mut facts) != 0
                && facts.linedefined > 0
                && !is_surface(facts.short_src)
            {
                let source = CStr::from_ptr(facts.short_src).to_string_lossy();
                place = format!("{source}:{}: ", facts.linedefined);
            }
        }
        self.pop(1);
        place
    }

    /// Pushes the error as the VM reports its own: with the place of the calling line.
    pub(crate) fn push_raise(&mut self, raise: Raise) {
        let mut message = self.place_of_call();
        message.push_str(&shortened(&raise.0));
        self.push_string(&message);
    }

    /// `file:line: ` of the innermost script line that led to the running function, which `pcall`
    /// may stand between; empty if no script did.
    pub(crate) fn place_of_call(&self) -> String {
        self.place_from(1)
    }

    /// The same, from so many calls up: 0 is the running function itself.
    pub(super) fn place_from(&self, first: c_int) -> String {
        for level in first..first + PLACE_FRAMES_MAX {
            // SAFETY: all-zero is a valid `lua_Debug`: integers and null pointers.
            let mut frame: ffi::lua_Debug = unsafe { std::mem::zeroed() };
            // SAFETY: a level that is not there answers 0; otherwise `short_src` is a string with
            // a final NUL that lives as long as `frame`.
            unsafe {
                if ffi::lua_getinfo(self.raw(), level, c"sl".as_ptr(), &raw mut frame) == 0 {
                    break;
                }
                let is_surface = is_surface(frame.short_src);
                if frame.currentline > 0 && !is_surface {
                    let source = CStr::from_ptr(frame.short_src).to_string_lossy();
                    return format!("{source}:{}: ", frame.currentline);
                }
            }
        }
        String::new()
    }
}
