//! Threads of the VM: made once, resumed often, reset and used again.
//!
//! Sits beside `vm.rs`. A [`Coroutine`] is pinned while its handle lives. Each carries a label, the
//! scheduler's number for it, so that a raw function knows on whose behalf it runs.
//!
//! Invariants
//! - Only a suspended coroutine is resumed, and only one that is not running is reset.
//! - A coroutine in which Rust panicked is never used again.
//!
//! Not here: when a coroutine runs and for whom (`scheduler.rs`).

use super::function::is_surface;
use super::guard::{Guard, NOT_ENOUGH_MEMORY};
use super::{Kind, Pin, Raise, Root, Stack, ffi};
use crate::bridge::Failure;
use crate::runtime::Worker;
use std::ffi::{CStr, c_int};
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};

/// A thread of the VM that stays alive as long as this handle.
#[derive(Debug)]
pub(crate) struct Coroutine {
    state: NonNull<ffi::lua_State>,
    pin: Pin,
}

/// How a resume ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resumed {
    /// The function returned; its results are the whole stack.
    Returned,
    /// It waits to be resumed.
    Suspended,
    /// It raised; the error is on top of its stack, whose frames are still there to be traced.
    Raised,
    /// Rust code that it called panicked. The coroutine must be dropped.
    Panicked(String),
}

/// Frames of a traceback before it is cut.
const TRACE_FRAMES_MAX: c_int = 24;

impl Root {
    /// Makes a coroutine with an empty stack.
    pub(crate) fn new_coroutine(&self) -> Option<Coroutine> {
        let main = self.state.as_ptr();
        // SAFETY: the new thread is pushed on the main thread, pinned, and popped.
        unsafe {
            let state = NonNull::new(ffi::lua_newthread(main))?;
            let id = ffi::lua_ref(main, -1);
            ffi::lua_pop(main, 1);
            let pin = Pin {
                id,
                released: self.released.clone(),
            };
            Some(Coroutine { state, pin })
        }
    }
}

impl Coroutine {
    /// Its stack.
    pub(crate) fn stack<'w>(&self, worker: &'w Worker) -> Stack<'w> {
        Stack {
            state: self.state,
            worker: Some(worker),
        }
    }

    /// What keeps it alive, to hand it to a script.
    pub(crate) fn pin(&self) -> &Pin {
        &self.pin
    }

    /// The scheduler's number for it.
    pub(crate) fn set_label(&self, label: Option<u32>) {
        // The label is kept as a pointer that nobody follows, one higher so that none is null.
        let address = label.map_or(0, |label| label as usize + 1);
        // SAFETY: the state is pinned and so alive.
        unsafe { ffi::lua_setthreaddata(self.state.as_ptr(), ptr::without_provenance_mut(address)) }
    }

    /// Whether it can be resumed: begun or not, it waits.
    pub(crate) fn is_suspended(&self) -> bool {
        let state = self.state.as_ptr();
        // SAFETY: the state is alive; the main thread is only compared with.
        unsafe { ffi::lua_costatus(ffi::lua_mainthread(state), state) == ffi::LUA_COSUS }
    }

    /// Resumes it with the topmost `args` values of its stack. `from` is who resumes: its depth of
    /// nested calls counts on.
    pub(crate) fn resume(&self, from: &Stack<'_>, args: i32) -> Resumed {
        let (state, raw) = (self.state.as_ptr(), from.raw());
        // SAFETY: both states are alive and of one VM, and `args` values were pushed. The VM
        // catches its own exceptions, so only a Rust panic can arrive at `guarded`.
        guarded(from, || unsafe { ffi::lua_resume_(state, raw, args) })
    }

    /// Resumes it with the topmost value of its stack as an error, raised where it waits: there a
    /// `pcall` catches it.
    pub(crate) fn resume_error(&self, from: &Stack<'_>) -> Resumed {
        let (state, raw) = (self.state.as_ptr(), from.raw());
        // SAFETY: as in `resume`, and the error was pushed.
        guarded(from, || unsafe { ffi::lua_resumeerror(state, raw) })
    }

    /// Ends it and empties its stack, whatever it was doing. False, and nothing happens, if it is
    /// running, or has resumed the one that is.
    pub(crate) fn reset(&self) -> bool {
        let state = self.state.as_ptr();
        // SAFETY: the state is alive; only one that is not on the C stack is reset.
        unsafe {
            let status = ffi::lua_costatus(ffi::lua_mainthread(state), state);
            let idle = status != ffi::LUA_CORUN && status != ffi::LUA_CONOR;
            if idle {
                ffi::lua_resetthread(state);
            }
            idle
        }
    }

    /// Empties the stack of one that has returned: cheaper than [`reset`](Self::reset).
    pub(crate) fn clear(&self) {
        // SAFETY: the state is alive, and no stack has fewer than zero values.
        unsafe { ffi::lua_settop(self.state.as_ptr(), 0) }
    }

    /// The error on top of its stack, and where it happened, frame by frame.
    pub(crate) fn failure(&self, worker: &Worker) -> Failure {
        let state = self.state.as_ptr();
        let mut stack = self.stack(worker);
        let top = stack.len();
        let is_text = matches!(stack.kind(top), Kind::String | Kind::Number);
        let mut message = stack.thrown(top, &worker.root);
        let has_place = matches!(
            stack.kind(top),
            Kind::String | Kind::Number | Kind::Userdata
        );
        if message == NOT_ENOUGH_MEMORY || !has_place && !stack.has_text_of_its_own(top) {
            // The VM had no memory to say where, or the script raised what has no room for it.
            message.insert_str(0, &stack.place_from(0));
        }
        // What a module has raised while it loaded was caught on its way, and its calls are gone.
        let trace = match worker.noted.take() {
            Some((noted, calls)) if noted == message => calls,
            // SAFETY: the state is alive.
            _ => unsafe { trace(state) },
        };
        Failure {
            message,
            trace,
            is_text,
        }
    }
}

/// Makes a resume within the bounds of script code.
fn guarded(from: &Stack<'_>, resume: impl FnOnce() -> c_int) -> Resumed {
    let guard = from.worker.map(|worker| &worker.guard);
    let entered = guard.map(Guard::enter);
    let resumed = catch_unwind(AssertUnwindSafe(resume));
    if let (Some(guard), Some(entered)) = (guard, entered) {
        guard.leave(entered);
    }
    match resumed {
        Ok(ffi::LUA_OK) => Resumed::Returned,
        Ok(ffi::LUA_YIELD | ffi::LUA_BREAK) => Resumed::Suspended,
        Ok(_) => Resumed::Raised,
        Err(payload) => Resumed::Panicked(panic_text(payload.as_ref())),
    }
}

/// What a panic said.
fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// What the function is called that looks at an error and its calls.
pub(super) const NOTE_TRACE: &CStr = c"note trace";

/// What functions behind a dot or a colon are called: their errors name the method.
const METHODS: &[&str] = &["__namecall", "__index", "__newindex"];

/// The chunk of the function behind `require`.
const FINDER: &str = "__mlua_require";

/// A line of [`trace`].
const XPCALL: &str = "  [huki] in xpcall\n";

/// The call frames of `state`, innermost first, one line each. Stack: 0.
///
/// # Safety
/// `state` is alive.
pub(super) unsafe fn trace(state: *mut ffi::lua_State) -> String {
    let mut text = String::new();
    for level in 0..TRACE_FRAMES_MAX {
        // SAFETY: all-zero is a valid `lua_Debug`: integers and null pointers.
        let mut frame: ffi::lua_Debug = unsafe { std::mem::zeroed() };
        // SAFETY: the state is alive; a level that is not there answers 0.
        if unsafe { ffi::lua_getinfo(state, level, c"sln".as_ptr(), &raw mut frame) } == 0 {
            break;
        }
        // SAFETY: strings of a frame are null or end with NUL, and live while the frame does.
        let (source, name) = unsafe { (text_of(frame.short_src), text_of(frame.name)) };
        // SAFETY: as above.
        let is_surface = unsafe { is_surface(frame.short_src) };
        if is_surface && text.ends_with(XPCALL) {
            // What a surface catches in order to pass it on is no step of the script's.
            text.truncate(text.len() - XPCALL.len());
        }
        let is_inside = name == NOTE_TRACE.to_string_lossy() || METHODS.contains(&name.as_str());
        if source.starts_with(FINDER) || is_inside && frame.currentline <= 0 {
            continue;
        } else if frame.currentline > 0 && !is_surface {
            let _ = write!(text, "  {source}:{}", frame.currentline);
        } else if !name.is_empty() {
            let _ = write!(text, "  [huki]");
        } else {
            continue;
        }
        if !name.is_empty() {
            let _ = write!(text, " in {name}");
        }
        text.push('\n');
    }
    text
}

/// The C string at `start`, empty if null. Stack: none.
///
/// # Safety
/// `start` is null or a string that ends with NUL.
unsafe fn text_of(start: *const std::ffi::c_char) -> String {
    if start.is_null() {
        return String::new();
    }
    // SAFETY: by the contract above.
    unsafe { CStr::from_ptr(start) }
        .to_string_lossy()
        .into_owned()
}

/// Calls `tostring` as scripts know it, inside a protected call. Stack: +1, and what `__tostring` needs.
///
/// # Safety
/// Called by the VM only, with one argument.
unsafe extern "C-unwind" fn protected_tostring(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: called with one argument; pushes its text.
    unsafe { ffi::luaL_tolstring_(state, 1, ptr::null_mut()) };
    1
}

impl Stack<'_> {
    /// The value at `index` as text, as `tostring` gives it. Never raises.
    pub(crate) fn display(&mut self, index: i32, root: &Root) -> String {
        self.try_display(index, root)
            .unwrap_or_else(|_| format!("an error of type {}", self.type_name(index)))
    }

    /// The same, or what `__tostring` has raised.
    pub(crate) fn try_display(&mut self, index: i32, root: &Root) -> Result<String, String> {
        if let Some(bytes) = self.string(index) {
            return Ok(String::from_utf8_lossy(bytes).into_owned());
        }
        if self.kind(index) == Kind::None {
            return Ok("nil".to_owned());
        }
        let main = root.state.as_ptr();
        // SAFETY: the main thread can always run a protected call; its stack is restored. The
        // index is present, and both threads are of one VM.
        unsafe {
            let top = ffi::lua_gettop(main);
            ffi::lua_pushcfunctiond(main, protected_tostring, c"tostring".as_ptr());
            ffi::lua_xpush(self.raw(), main, index);
            let guard = self.worker.map(|worker| &worker.guard);
            let entered = guard.map(Guard::enter);
            let status = ffi::lua_pcall(main, 1, 1, 0);
            if let (Some(guard), Some(entered)) = (guard, entered) {
                guard.leave(entered);
            }
            let mut len = 0;
            let start = ffi::lua_tolstring(main, -1, &raw mut len);
            let text = if start.is_null() {
                let name = CStr::from_ptr(ffi::lua_typename(main, ffi::lua_type(main, -1)));
                format!("an error of type {}", name.to_string_lossy())
            } else {
                let bytes = std::slice::from_raw_parts(start.cast::<u8>(), len);
                String::from_utf8_lossy(bytes).into_owned()
            };
            ffi::lua_settop(main, top);
            match status {
                ffi::LUA_OK => Ok(text),
                _ => Err(text),
            }
        }
    }

    /// The scheduler's label of the coroutine that runs.
    pub(crate) fn label(&self) -> Option<u32> {
        // SAFETY: the state is alive.
        label_of(unsafe { ffi::lua_getthreaddata(self.raw()) }.addr())
    }

    /// The label of the coroutine at `index`; `None` inside if it has none.
    pub(crate) fn label_at(&self, index: i32) -> Option<Option<u32>> {
        if self.kind(index) != Kind::Thread {
            return None;
        }
        // SAFETY: the index is a thread, which its presence keeps alive.
        let data = unsafe { ffi::lua_getthreaddata(ffi::lua_tothread(self.raw(), index)) };
        Some(label_of(data.addr()))
    }

    /// Ends the coroutine at `index`, and pushes what `coroutine.close` returns: true, or false and the error that had ended it
    /// before. How many values that is; `None`, and nothing is done, for one that is running or waits for one that is.
    pub(crate) fn close_coroutine(&mut self, index: i32) -> Option<i32> {
        if self.kind(index) != Kind::Thread {
            return None;
        }
        let state = self.raw();
        // SAFETY: the index is a thread of this VM, which its presence keeps alive; one that is not on the C stack is reset.
        // Two pushes are within what every function of ours has room for.
        unsafe {
            let thread = ffi::lua_tothread(state, index);
            let status = ffi::lua_costatus(state, thread);
            if status == ffi::LUA_CORUN || status == ffi::LUA_CONOR {
                return None;
            }
            let has_failed = status == ffi::LUA_COERR;
            ffi::lua_pushboolean(state, c_int::from(!has_failed));
            let has_error = has_failed && ffi::lua_gettop(thread) > 0;
            if has_error {
                ffi::lua_xmove(thread, state, 1);
            }
            ffi::lua_resetthread(thread);
            Some(1 + i32::from(has_error))
        }
    }

    /// Whether the running function may suspend its coroutine: not below a metamethod or a sort.
    pub(crate) fn may_suspend(&self) -> bool {
        // SAFETY: the state is alive.
        unsafe { ffi::lua_isyieldable(self.raw()) != 0 }
    }

    /// Pushes the coroutine that runs.
    pub(crate) fn push_running(&mut self) {
        // SAFETY: pushes one value.
        unsafe { ffi::lua_pushthread(self.raw()) };
    }

    /// A handle of the coroutine at `index`.
    pub(crate) fn coroutine(&mut self, index: i32, root: &Root) -> Option<Coroutine> {
        if self.kind(index) != Kind::Thread {
            return None;
        }
        let pin = self.pin(index, root.released());
        // SAFETY: the index is a thread, which the pin keeps alive from here on.
        let state = NonNull::new(unsafe { ffi::lua_tothread(self.raw(), index) })?;
        Some(Coroutine { state, pin })
    }

    /// Moves the topmost `count` values to the top of `other`.
    ///
    /// # Errors
    /// If there are not as many.
    pub(crate) fn move_to(&mut self, other: &mut Stack<'_>, count: i32) -> Result<(), Raise> {
        if count < 0 || count > self.len() || !other.reserve(count) || !self.shares_vm(other) {
            return Err(Raise::from("too many values for one call"));
        }
        if self.state != other.state {
            // SAFETY: the values are there, the other stack has room, and both are of one VM.
            unsafe { ffi::lua_xmove(self.raw(), other.raw(), count) };
        }
        Ok(())
    }

    /// Pushes a copy of the value at `index` on `other`.
    pub(crate) fn copy_to(&self, other: &mut Stack<'_>, index: i32) {
        match self.present(index) {
            // SAFETY: the index is present and both stacks are of one VM.
            Some(index) if self.shares_vm(other) => unsafe {
                ffi::lua_xpush(self.raw(), other.raw(), index);
            },
            _ => other.push_nil(),
        }
    }

    fn shares_vm(&self, other: &Stack<'_>) -> bool {
        if let (Some(here), Some(there)) = (self.worker, other.worker)
            && ptr::eq(here, there)
        {
            return true;
        }
        // SAFETY: both states are alive.
        unsafe { ffi::lua_mainthread(self.raw()) == ffi::lua_mainthread(other.raw()) }
    }
}

/// The inverse of what [`Coroutine::set_label`] stores.
fn label_of(address: usize) -> Option<u32> {
    u32::try_from(address.checked_sub(1)?).ok()
}
