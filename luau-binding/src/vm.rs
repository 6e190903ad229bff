//! The one fenced file on the raw interface of the VM, and with its folder the one place in the
//! binding that is `unsafe`.
//!
//! Everything else sees [`Stack`], whose methods are safe: indexes are positive and checked, pushes
//! grow the stack, borrowed bytes keep the stack from changing while they live. A method that says it
//! pushes leaves so many values more, one that says it pops or takes away so many less, any other the
//! same. Unsafe functions state their use of the stack as `Stack: +1, uses 3`: what is left, and the
//! most that lies there meanwhile.
//!
//! - `vm.rs`, `vm/function.rs`  stack and pinned values; Rust functions that scripts call
//! - `vm/object.rs`     tagged userdata: Rust values and plain records
//! - `vm/typed.rs`      userdata of types that dialects make
//! - `vm/coroutine.rs`  threads: create, resume, reset, trace
//! - `vm/guard.rs`      the bounds of script code: time and memory
//! - `vm/collector.rs` how long the collector works
//! - `vm/tape.rs`, `vm/output.rs`  parsed JSON onto the stack; the text that JSON is written to
//! - `vm/texts.rs`, `vm/walk.rs`   tables of texts, and clones of them; tables read where they lie
//! - `vm/atom.rs`       the member names that raw functions compare by number
//!
//! Invariants
//! - Luau raises by throwing a C++ exception. Frames it crosses are ordinary Rust frames (their
//!   destructors run) and it is never caught by `catch_unwind`: a raise is caught by the resume or
//!   the protected call below it. A Rust panic crosses the VM and is caught at the resume.
//! - [`Worker`] outlives every function registered here: the VM itself owns it.
//! - No reactor method is on the stack while Luau runs (design of the inbox), so a raw function
//!   may borrow the reactor for one call.
//!
//! Not here: what the values mean (`value.rs`, `net/`), who runs when (`scheduler.rs`).
#![expect(
    unsafe_code,
    reason = "the VM's C interface; each block says what makes it sound"
)]

pub(crate) mod atom;
mod collector;
pub(crate) mod coroutine;
mod function;
pub(crate) mod guard;
pub(crate) mod heap;
pub(crate) mod object;
pub(crate) mod output;
pub(crate) mod tape;
#[cfg(test)]
mod tests;
mod texts;
mod thrown;
mod typed;
pub(crate) mod walk;

pub(crate) use function::{function, noting, placed_require};

use crate::runtime::Worker;
use mlua::ffi;
use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::{CStr, c_int};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::rc::Rc;

/// What a slot of the stack holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Above the top.
    None,
    Nil,
    Boolean,
    /// Any light userdata; `net.null` is one.
    LightUserdata,
    Number,
    /// A 64-bit integer, which Luau keeps apart from numbers.
    Integer,
    Vector,
    String,
    Table,
    Function,
    Userdata,
    Thread,
    Buffer,
}

impl Kind {
    /// The name scripts know it by.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None | Self::Nil => "nil",
            Self::Boolean => "boolean",
            Self::LightUserdata | Self::Userdata => "userdata",
            Self::Number => "number",
            Self::Integer => "integer",
            Self::Vector => "vector",
            Self::String => "string",
            Self::Table => "table",
            Self::Function => "function",
            Self::Thread => "thread",
            Self::Buffer => "buffer",
        }
    }
}

/// An error to raise in the script that called us, as a plain string. The place of the call is put
/// before it.
#[derive(Debug)]
pub(crate) struct Raise(pub(crate) Cow<'static, str>);

impl From<&'static str> for Raise {
    fn from(message: &'static str) -> Self {
        Self(Cow::Borrowed(message))
    }
}

impl From<String> for Raise {
    fn from(message: String) -> Self {
        Self(Cow::Owned(message))
    }
}

/// How a raw function ends when it does not raise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Returns {
    /// The topmost so many values are the results.
    Values(i32),
    /// The coroutine is suspended; what it is resumed with are the results.
    Suspend,
}

/// What a raw function answers.
pub(crate) type Outcome = Result<Returns, Raise>;

/// No index of ours is greater: the greatest number of values a stack can hold.
const INDEX_MAX: i32 = 1_000_000;

/// Light userdata of this tag is `net.null`.
const NULL_TAG: c_int = 1;

/// The stack of one coroutine, or of the raw function that runs on it.
pub(crate) struct Stack<'w> {
    state: NonNull<ffi::lua_State>,
    worker: Option<&'w Worker>,
}

/// A value that the VM keeps until this handle is dropped.
#[derive(Debug)]
pub(crate) struct Pin {
    id: c_int,
    released: Rc<Released>,
}

/// Pins that were dropped and wait for their slots to be given back. Dropping a handle may happen
/// inside the garbage collector, where the VM must not be called.
#[derive(Debug, Default)]
pub(crate) struct Released(RefCell<Vec<c_int>>);

impl Drop for Pin {
    fn drop(&mut self) {
        if let Ok(mut released) = self.released.0.try_borrow_mut() {
            released.push(self.id);
        }
    }
}

/// The main thread of a VM: where values are pinned from and coroutines are made.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    state: NonNull<ffi::lua_State>,
    released: Rc<Released>,
    /// The VM may not leave its thread.
    _here: PhantomData<*const ()>,
}

impl Root {
    /// The root of `lua`, which must outlive it: both live in one [`crate::Runtime`].
    pub(crate) fn of(lua: &mlua::Lua) -> mlua::Result<Self> {
        let mut main = None;
        // SAFETY: the closure only asks for the main thread; it leaves the stack as it was.
        unsafe {
            lua.exec_raw::<()>((), |state| main = NonNull::new(ffi::lua_mainthread(state)))?;
        }
        let state = main.ok_or_else(|| mlua::Error::runtime("the VM has no main thread"))?;
        // SAFETY: `state` is the main thread of a live VM, and the callbacks struct is its own.
        unsafe {
            (*ffi::lua_callbacks(state.as_ptr())).useratom = Some(atom::assign);
            ffi::lua_setlightuserdataname(state.as_ptr(), NULL_TAG, c"null".as_ptr());
        }
        Ok(Self {
            state,
            released: Rc::default(),
            _here: PhantomData,
        })
    }

    /// The main thread's stack. Leave it as you found it.
    pub(crate) fn stack<'w>(&self, worker: &'w Worker) -> Stack<'w> {
        Stack {
            state: self.state,
            worker: Some(worker),
        }
    }

    /// Gives back the slots of pins dropped since the last call.
    pub(crate) fn sweep(&self) {
        for id in self.released.0.take() {
            // SAFETY: the id came from `lua_ref` on this VM and its only handle is gone.
            unsafe { ffi::lua_unref(self.state.as_ptr(), id) };
        }
    }

    /// Where pins of this VM report their end.
    pub(crate) fn released(&self) -> &Rc<Released> {
        &self.released
    }

    /// Pins a value that safe mlua made.
    pub(crate) fn pin(&self, lua: &mlua::Lua, value: impl mlua::IntoLua) -> mlua::Result<Pin> {
        let mut id = ffi::LUA_REFNIL;
        // SAFETY: the value is on top of the stack; `lua_ref` copies it, and it is popped again.
        unsafe {
            lua.exec_raw::<()>(value, |state| {
                id = ffi::lua_ref(state, -1);
                ffi::lua_pop(state, 1);
            })?;
        }
        Ok(Pin {
            id,
            released: Rc::clone(&self.released),
        })
    }
}

/// Seconds on a steady clock whose zero is arbitrary: the one behind `os.clock`.
pub(crate) fn clock() -> f64 {
    // SAFETY: reads a clock; no state is involved.
    unsafe { ffi::lua_clock() }
}

/// The version of Luau that is linked in, such as `0.740`.
pub(crate) fn luau_version() -> &'static str {
    ffi::luau_version().unwrap_or("unknown")
}

impl<'w> Stack<'w> {
    /// The worker whose VM this is.
    ///
    /// # Errors
    /// Never while a runtime runs; a function called without one says so.
    pub(crate) fn worker(&self) -> Result<&'w Worker, Raise> {
        self.worker
            .ok_or_else(|| Raise::from("this function needs a running huki"))
    }

    fn raw(&self) -> *mut ffi::lua_State {
        self.state.as_ptr()
    }

    /// How many values are on the stack.
    pub(crate) fn len(&self) -> i32 {
        // SAFETY: `state` is live; reads two pointers.
        unsafe { ffi::lua_gettop(self.raw()) }
    }

    /// `index` if it names a value that is there.
    fn present(&self, index: i32) -> Option<i32> {
        (index >= 1 && index <= self.len()).then_some(index)
    }

    /// What slot `index` holds, counted from 1; [`Kind::None`] above the top.
    pub(crate) fn kind(&self, index: i32) -> Kind {
        if !(1..=INDEX_MAX).contains(&index) {
            return Kind::None;
        }
        // SAFETY: a positive index above the top is none, as long as it is no wild one.
        match unsafe { ffi::lua_type(self.raw(), index) } {
            ffi::LUA_TNIL => Kind::Nil,
            ffi::LUA_TBOOLEAN => Kind::Boolean,
            ffi::LUA_TLIGHTUSERDATA => Kind::LightUserdata,
            ffi::LUA_TNUMBER => Kind::Number,
            ffi::LUA_TINTEGER => Kind::Integer,
            ffi::LUA_TVECTOR => Kind::Vector,
            ffi::LUA_TSTRING => Kind::String,
            ffi::LUA_TTABLE => Kind::Table,
            ffi::LUA_TFUNCTION => Kind::Function,
            ffi::LUA_TUSERDATA => Kind::Userdata,
            ffi::LUA_TTHREAD => Kind::Thread,
            ffi::LUA_TBUFFER => Kind::Buffer,
            _ => Kind::None,
        }
    }

    /// Whether `index` is nil or above the top.
    pub(crate) fn is_nil(&self, index: i32) -> bool {
        matches!(self.kind(index), Kind::None | Kind::Nil)
    }

    /// The boolean at `index`, without coercion.
    pub(crate) fn boolean(&self, index: i32) -> Option<bool> {
        // SAFETY: the kind says that the index is present.
        (self.kind(index) == Kind::Boolean)
            .then(|| unsafe { ffi::lua_toboolean(self.raw(), index) } != 0)
    }

    /// The number at `index`, without coercion of strings.
    pub(crate) fn number(&self, index: i32) -> Option<f64> {
        // SAFETY: the kind says that the index is present and a number.
        (self.kind(index) == Kind::Number).then(|| unsafe { ffi::lua_tonumber(self.raw(), index) })
    }

    /// The bytes of the string at `index`.
    pub(crate) fn string(&self, index: i32) -> Option<&[u8]> {
        if !(1..=INDEX_MAX).contains(&index) {
            return None;
        }
        let mut len = 0;
        // SAFETY: for what is no string, or above the top, this answers null and converts nothing.
        // The bytes of a string stay where they are while it is on the stack, and the stack cannot
        // change while `self` is borrowed.
        unsafe {
            let start =
                ffi::lua_tolstringatom(self.raw(), index, &raw mut len, std::ptr::null_mut());
            (!start.is_null()).then(|| std::slice::from_raw_parts(start.cast(), len))
        }
    }

    /// The bytes of the buffer at `index`.
    pub(crate) fn buffer(&self, index: i32) -> Option<&[u8]> {
        if self.kind(index) != Kind::Buffer {
            return None;
        }
        let mut len = 0;
        // SAFETY: the index is a buffer, whose memory neither moves nor shrinks; only a script can
        // write to it, and none runs while `self` is borrowed. An empty buffer may have no memory.
        unsafe {
            let start = ffi::lua_tobuffer(self.raw(), index, &raw mut len);
            Some(if start.is_null() || len == 0 {
                &[]
            } else {
                std::slice::from_raw_parts(start.cast::<u8>(), len)
            })
        }
    }

    /// The bytes at `index`, be it a string or a buffer.
    pub(crate) fn bytes(&self, index: i32) -> Option<&[u8]> {
        self.string(index).or_else(|| self.buffer(index))
    }

    /// The string at `index` with its atom, 0 or less for none.
    pub(crate) fn atom(&self, index: i32) -> Option<atom::Atom> {
        if !(1..=INDEX_MAX).contains(&index) {
            return None;
        }
        let mut atom = -1;
        // SAFETY: a value that is no string, or is above the top, gives a null pointer.
        let start = unsafe {
            ffi::lua_tolstringatom(self.raw(), index, std::ptr::null_mut(), &raw mut atom)
        };
        (!start.is_null()).then_some(())?;
        atom::Atom::from_number(atom)
    }

    /// The member that a method call `value:name()` names, inside its `__namecall`.
    pub(crate) fn called_member(&self) -> Option<atom::Atom> {
        let mut atom = -1;
        // SAFETY: reads the name the VM keeps of the call; null outside of one.
        let name = unsafe { ffi::lua_namecallatom(self.raw(), &raw mut atom) };
        (!name.is_null()).then_some(())?;
        atom::Atom::from_number(atom)
    }

    /// The name behind [`called_member`](Self::called_member), for messages.
    pub(crate) fn called_name(&self) -> String {
        // SAFETY: a name, if there is one, is a string with a final NUL that the VM keeps.
        unsafe {
            let name = ffi::lua_namecallatom(self.raw(), std::ptr::null_mut());
            if name.is_null() {
                return "?".to_owned();
            }
            CStr::from_ptr(name).to_string_lossy().into_owned()
        }
    }

    /// Pushes nil.
    pub(crate) fn push_nil(&mut self) {
        // SAFETY: pushes grow the stack by themselves.
        unsafe { ffi::lua_pushnil(self.raw()) }
    }

    /// Pushes `net.null`.
    pub(crate) fn push_null(&mut self) {
        // SAFETY: as above; the pointer is never followed.
        unsafe { ffi::lua_pushlightuserdatatagged(self.raw(), std::ptr::null_mut(), NULL_TAG) }
    }

    /// Pushes a boolean.
    pub(crate) fn push_boolean(&mut self, value: bool) {
        // SAFETY: as above.
        unsafe { ffi::lua_pushboolean(self.raw(), c_int::from(value)) }
    }

    /// Pushes a number.
    pub(crate) fn push_number(&mut self, value: f64) {
        // SAFETY: as above.
        unsafe { ffi::lua_pushnumber(self.raw(), value) }
    }

    /// Pushes a string of any bytes.
    pub(crate) fn push_string(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        // SAFETY: the VM copies `len` bytes from the slice.
        unsafe { ffi::lua_pushlstring_(self.raw(), bytes.as_ptr().cast(), bytes.len()) }
    }

    /// Pushes as a string what `find` picks from the values on the stack. False, and nothing is
    /// pushed, if it finds nothing.
    pub(crate) fn push_borrowed(
        &mut self,
        find: impl for<'s> FnOnce(&'s Stack<'w>) -> Option<&'s [u8]>,
    ) -> bool {
        let Some(found) = find(self) else {
            return false;
        };
        let (start, len) = (found.as_ptr(), found.len());
        // SAFETY: what was found belongs to a value on the stack, or lives longer; values stay
        // where they are in memory, and pushing takes none off.
        unsafe { ffi::lua_pushlstring_(self.raw(), start.cast(), len) };
        true
    }

    /// Pushes a buffer with a copy of `bytes`.
    pub(crate) fn push_buffer(&mut self, bytes: &[u8]) {
        // SAFETY: the new buffer has `len` bytes, all of which are written here.
        unsafe {
            let start = ffi::lua_newbuffer(self.raw(), bytes.len());
            if !bytes.is_empty() {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), start.cast(), bytes.len());
            }
        }
    }

    /// Pushes a copy of the value at `index`; nil if there is none.
    pub(crate) fn push_copy(&mut self, index: i32) {
        match self.present(index) {
            // SAFETY: the index is present.
            Some(index) => unsafe { ffi::lua_pushvalue(self.raw(), index) },
            None => self.push_nil(),
        }
    }

    /// Pushes an empty table with room for so many elements and fields.
    pub(crate) fn push_table(&mut self, elements: usize, fields: usize) {
        let cap = |n: usize| c_int::try_from(n.min(1 << 24)).unwrap_or(0);
        // SAFETY: the hints are small and not negative.
        unsafe { ffi::lua_createtable(self.raw(), cap(elements), cap(fields)) }
    }

    /// Pushes what `pin` keeps.
    pub(crate) fn push_pin(&mut self, pin: &Pin) {
        // SAFETY: the registry is always there, and a missing slot gives nil.
        unsafe { ffi::lua_rawgeti_(self.raw(), ffi::LUA_REGISTRYINDEX, pin.id) };
    }

    /// Keeps the value at `index` until the pin is dropped.
    pub(crate) fn pin(&mut self, index: i32, released: &Rc<Released>) -> Pin {
        let id = self.present(index).map_or(ffi::LUA_REFNIL, |index| {
            // SAFETY: the index is present; `lua_ref` copies its value.
            unsafe { ffi::lua_ref(self.raw(), index) }
        });
        Pin {
            id,
            released: Rc::clone(released),
        }
    }

    /// `table[key] = top`, raw; pops the value. Does nothing but pop if `table` is none.
    pub(crate) fn set_field(&mut self, table: i32, key: &CStr) {
        if self.kind(table) == Kind::Table {
            // SAFETY: the index is a table of ours, not read-only, and the value is on top.
            unsafe { ffi::lua_rawsetfield(self.raw(), table, key.as_ptr()) }
        } else {
            self.pop(1);
        }
    }

    /// `table[key] = value` of the two topmost values, raw; pops both.
    pub(crate) fn set_entry(&mut self, table: i32) {
        if self.kind(table) == Kind::Table && self.len() >= table + 2 {
            // SAFETY: the index is a table, and key and value are above it.
            unsafe { ffi::lua_rawset(self.raw(), table) }
        } else {
            self.pop(2);
        }
    }

    /// `table[n] = top`, raw; pops the value.
    pub(crate) fn set_element(&mut self, table: i32, n: usize) {
        match c_int::try_from(n) {
            // SAFETY: the index is a table and the value is on top.
            Ok(n) if self.kind(table) == Kind::Table => unsafe {
                ffi::lua_rawseti_(self.raw(), table, n);
            },
            _ => self.pop(1),
        }
    }

    /// Pushes `table[key]`, raw; nil if `table` is no table.
    pub(crate) fn push_field(&mut self, table: i32, key: &CStr) {
        if self.kind(table) == Kind::Table {
            // SAFETY: the index is a table.
            unsafe { ffi::lua_rawgetfield(self.raw(), table, key.as_ptr()) };
        } else {
            self.push_nil();
        }
    }

    /// Pushes `table[n]`, raw; nil if `table` is no table.
    pub(crate) fn push_element(&mut self, table: i32, n: usize) {
        match c_int::try_from(n) {
            // SAFETY: the index is a table.
            Ok(n) if self.kind(table) == Kind::Table => unsafe {
                ffi::lua_rawgeti_(self.raw(), table, n);
            },
            _ => self.push_nil(),
        }
    }

    /// Pushes `table[key]` for the key at `key`, raw; nil if `table` is no table.
    pub(crate) fn push_value_of(&mut self, table: i32, key: i32) {
        self.push_copy(key);
        if self.kind(table) == Kind::Table {
            // SAFETY: the index is a table and the key is on top; the value takes its place.
            unsafe { ffi::lua_rawget(self.raw(), table) };
        }
    }

    /// The length of the table at `index` as `#` gives it, without metamethods.
    pub(crate) fn table_len(&self, index: i32) -> usize {
        if self.kind(index) != Kind::Table {
            return 0;
        }
        // SAFETY: the index is a table.
        unsafe { ffi::lua_objlen(self.raw(), index) }
    }

    /// One step through the table at `index`: pushes key and value and returns the cursor to go
    /// on with; pushes nothing and returns `None` at the end. Begin with 0.
    pub(crate) fn next_entry(&mut self, index: i32, cursor: i32) -> Option<i32> {
        if self.kind(index) != Kind::Table || cursor < 0 {
            return None;
        }
        // SAFETY: the index is a table, and any cursor that is not negative is legal.
        let next = unsafe { ffi::lua_rawiter(self.raw(), index, cursor) };
        (next >= 0).then_some(next)
    }

    /// Takes the topmost `count` values away, or all there are.
    pub(crate) fn pop(&mut self, count: i32) {
        let left = (self.len() - count.max(0)).max(0);
        // SAFETY: the new height is between zero and the old one.
        unsafe { ffi::lua_settop(self.raw(), left) }
    }

    /// Cuts or fills the stack with nils to exactly `len` values, at most 200.
    pub(crate) fn resize(&mut self, len: i32) {
        let len = len.clamp(0, 200);
        while self.len() < len {
            self.push_nil();
        }
        // SAFETY: the new height is between zero and the old one.
        unsafe { ffi::lua_settop(self.raw(), len) }
    }

    /// Takes the value at `index` out; those above move down.
    pub(crate) fn remove(&mut self, index: i32) {
        if let Some(index) = self.present(index) {
            // SAFETY: the index is present.
            unsafe { ffi::lua_remove(self.raw(), index) }
        }
    }

    /// Moves the topmost value below those from `index` on.
    pub(crate) fn insert(&mut self, index: i32) {
        if let Some(index) = self.present(index) {
            // SAFETY: the index is present, so the stack is not empty.
            unsafe { ffi::lua_insert(self.raw(), index) }
        }
    }

    /// Whether room for `count` more values can be had.
    pub(crate) fn reserve(&self, count: i32) -> bool {
        // SAFETY: only grows the stack, and what is borrowed from it are no slots.
        unsafe { ffi::lua_checkstack(self.raw(), count.clamp(0, 1 << 16)) != 0 }
    }

    /// The name of the type of `index` as `typeof` gives it, for messages.
    pub(crate) fn type_name(&self, index: i32) -> String {
        if self.kind(index) != Kind::Userdata {
            return self.kind(index).name().to_owned();
        }
        // SAFETY: the index is present; the name is a string with a final NUL.
        unsafe {
            CStr::from_ptr(ffi::luaL_typename(self.raw(), index))
                .to_string_lossy()
                .into_owned()
        }
    }
}
