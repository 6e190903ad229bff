//! Userdata: Rust values that scripts hold, and plain records of bytes.
//!
//! Sits beside `vm.rs`. Each kind has a tag, which is how a raw function knows what it was given,
//! and one metatable that all its values share.
//!
//! Invariants
//! - A tag belongs to one type for the life of the program ([`Object::TAG`], [`RECORD_TAGS`]).
//! - A destructor runs inside the garbage collector: dropping an object must not call the VM. Pins
//!   only note that they are released.
//!
//! Not here: which members an object has (`net/`).

use super::{Kind, Outcome, Stack, ffi};
use crate::runtime::Worker;
use std::ffi::{CStr, c_int, c_void};
use std::rc::Rc;

/// A Rust value that scripts hold as userdata.
///
/// # Safety-relevant rule
/// No two types share a tag: `Stack::object` trusts it.
pub(crate) trait Object: 'static {
    /// Its tag, from [`Tag`].
    const TAG: Tag;
    /// What `typeof` says.
    const NAME: &'static CStr;
}

/// All tags there are; 0 is left to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tag {
    /// A request: a record.
    Request = 1,
    /// The header fields of a request: a record.
    Headers = 2,
    /// A WebSocket.
    Socket = 3,
    /// A server.
    Server = 4,
    /// What a response is written to piece by piece.
    Stream = 5,
    /// The same, for server-sent events.
    Events = 6,
    /// A value of a dialect's type.
    Wrapped = 7,
    /// A function that is called at a rate.
    Ticker = 8,
    /// What a request of ours is written to piece by piece.
    Upload = 9,
    /// A response to us that is read piece by piece.
    Download = 10,
    /// A stream of bytes without a protocol.
    RawStream = 11,
    /// What accepts such streams.
    Listener = 12,
    /// A socket of datagrams.
    Udp = 13,
    /// What the tests of this folder count.
    #[cfg(test)]
    Counted = 14,
}

impl Tag {
    fn number(self) -> c_int {
        c_int::from(self as u8)
    }
}

/// The metamethods of one kind of userdata, each by name.
pub(crate) struct Metatable<'a> {
    lua: &'a mlua::Lua,
    worker: &'a Rc<Worker>,
    tag: Tag,
    table: mlua::Table,
}

impl<'a> Metatable<'a> {
    /// Begins the metatable of `tag`, whose values call themselves `name`.
    pub(crate) fn new(
        lua: &'a mlua::Lua,
        worker: &'a Rc<Worker>,
        tag: Tag,
        name: &CStr,
    ) -> mlua::Result<Self> {
        let table = lua.create_table()?;
        table.raw_set("__type", name.to_string_lossy().as_ref())?;
        table.raw_set("__metatable", "locked")?;
        Ok(Self {
            lua,
            worker,
            tag,
            table,
        })
    }

    /// Adds a metamethod, which must capture nothing.
    pub(crate) fn with<F>(self, event: &'static CStr, function: F) -> mlua::Result<Self>
    where
        F: Fn(&mut Stack<'_>) -> Outcome + Copy + 'static,
    {
        let function = super::function(self.lua, self.worker, event, function)?;
        self.table
            .raw_set(event.to_string_lossy().as_ref(), function)?;
        Ok(self)
    }

    /// Makes it the metatable of every value with the tag.
    pub(crate) fn install(self) -> mlua::Result<()> {
        let tag = self.tag.number();
        self.table.set_readonly(true);
        // SAFETY: the table is on top and is popped by the call; a tag is installed once per VM,
        // by `net::install`.
        unsafe {
            self.lua.exec_raw::<()>(self.table, move |state| {
                ffi::lua_setuserdatametatable(state, tag);
            })
        }
    }

    /// As [`install`](Self::install), for values that are Rust values of type `T`.
    pub(crate) fn install_object<T: Object>(self) -> mlua::Result<()> {
        // SAFETY: the destructor of `T` is set for the tag of `T`, under which only `push_object`
        // creates values.
        unsafe {
            self.lua.exec_raw::<()>((), |state| {
                ffi::lua_setuserdatadtor(state, T::TAG.number(), Some(destroy::<T>));
            })?;
        }
        self.install()
    }
}

/// Drops the Rust value in a userdata. Uses no stack.
///
/// # Safety
/// Called by the VM only, once, for a userdata made by `push_object::<T>`.
unsafe extern "C" fn destroy<T>(_: *mut ffi::lua_State, value: *mut c_void) {
    // SAFETY: by the contract above.
    unsafe { std::ptr::drop_in_place(value.cast::<T>()) }
}

impl Stack<'_> {
    /// Pushes `value` as userdata. Its metatable must be installed.
    pub(crate) fn push_object<T: Object>(&mut self, value: T) {
        const { assert!(align_of::<T>() <= 8, "userdata is aligned to 8 bytes") };
        // SAFETY: the userdata has the size of `T` and alignment 8; it is written before anyone
        // can see it, and its tag says what it is.
        unsafe {
            let place = ffi::lua_newuserdatataggedwithmetatable(
                self.raw(),
                size_of::<T>(),
                T::TAG.number(),
            );
            std::ptr::write(place.cast::<T>(), value);
        }
    }

    /// The Rust value at `index`, if it is a `T`.
    pub(crate) fn object<T: Object>(&self, index: i32) -> Option<&T> {
        let index = self.present(index)?;
        // SAFETY: the index is present. Only `push_object::<T>` makes userdata with the tag of `T`,
        // and the value lives while it is on the stack, which `self` keeps from changing.
        unsafe {
            ffi::lua_touserdatatagged(self.raw(), index, T::TAG.number())
                .cast::<T>()
                .as_ref()
        }
    }

    /// Pushes a record: userdata that holds `parts`, one after the other.
    pub(crate) fn push_record(&mut self, tag: Tag, parts: [&[u8]; 4]) {
        let len = parts.iter().map(|part| part.len()).sum();
        // SAFETY: the userdata has room for all parts, each of which is copied behind the last.
        // No destructor is set for the tags of records.
        unsafe {
            let mut place =
                ffi::lua_newuserdatataggedwithmetatable(self.raw(), len, tag.number()).cast::<u8>();
            for part in parts {
                std::ptr::copy_nonoverlapping(part.as_ptr(), place, part.len());
                place = place.add(part.len());
            }
        }
    }

    /// The bytes of the record at `index`, if it has `tag`.
    pub(crate) fn record(&self, index: i32, tag: Tag) -> Option<&[u8]> {
        if !(1..=super::INDEX_MAX).contains(&index) {
            return None;
        }
        // SAFETY: what is above the top is no userdata; only `push_record` makes userdata with the tags of
        // records, all bytes of which it has written and nobody changes.
        unsafe {
            let start = ffi::lua_touserdatatagged(self.raw(), index, tag.number());
            (!start.is_null()).then(|| {
                std::slice::from_raw_parts(start.cast::<u8>(), ffi::lua_objlen(self.raw(), index))
            })
        }
    }

    /// Pushes a record of what `find` picks from the values on the stack; nil if it finds nothing.
    pub(crate) fn push_record_of(
        &mut self,
        tag: Tag,
        find: impl for<'s> FnOnce(&'s Stack<'_>) -> Option<&'s [u8]>,
    ) {
        let Some(found) = find(self) else {
            return self.push_nil();
        };
        let (start, len) = (found.as_ptr(), found.len());
        // SAFETY: what was found belongs to a value on the stack, or lives longer; values stay
        // where they are in memory, and pushing takes none off. The new userdata has room for it.
        unsafe {
            let place = ffi::lua_newuserdatataggedwithmetatable(self.raw(), len, tag.number());
            std::ptr::copy_nonoverlapping(start, place.cast::<u8>(), len);
        }
    }

    /// Pushes slot `n`, from 1, of the object at `index`: a value that lives and dies with it. Nil if it
    /// was never set.
    pub(crate) fn push_slot(&mut self, index: i32, n: usize) {
        if self.kind(index) != Kind::Userdata {
            return self.push_nil();
        }
        // SAFETY: the index is userdata. Its metatable, if any, is pushed; its element takes the
        // metatable's place.
        unsafe {
            if ffi::lua_getmetatable(self.raw(), index) == 0 {
                return self.push_nil();
            }
            let table = self.len();
            self.push_element(table, n + 1);
            ffi::lua_remove(self.raw(), table);
        }
    }

    /// Sets slot `n`, from 1, of the object at `index` to the topmost value, and pops it.
    ///
    /// Slots are elements of a metatable of the object's own, cloned from the shared one when the
    /// first is set: so the collector sees them through the object, and cycles are no leak.
    pub(crate) fn set_slot(&mut self, index: i32, n: usize) {
        if self.kind(index) != Kind::Userdata {
            return self.pop(1);
        }
        // SAFETY: the index is userdata with a metatable, by `push_object`. The clone is writable
        // until it becomes the metatable; `set_element` pops the value it stores.
        unsafe {
            if ffi::lua_getmetatable(self.raw(), index) == 0 {
                return self.pop(1);
            }
            let table = self.len();
            ffi::lua_rawgeti_(self.raw(), table, 1);
            let is_own = ffi::lua_type(self.raw(), table + 1) != ffi::LUA_TNIL;
            ffi::lua_pop(self.raw(), 1);
            if !is_own {
                ffi::lua_clonetable(self.raw(), table);
                ffi::lua_setreadonly(self.raw(), table + 1, 0);
                ffi::lua_pushboolean(self.raw(), 1);
                ffi::lua_rawseti_(self.raw(), table + 1, 1);
                ffi::lua_pushvalue(self.raw(), table + 1);
                ffi::lua_setmetatable(self.raw(), index);
                ffi::lua_remove(self.raw(), table);
            }
            self.push_copy(table - 1);
            self.set_element(table, n + 1);
            ffi::lua_settop(self.raw(), table - 2);
        }
    }
}
