//! Userdata whose type and state a dialect decides at run time, and globals as a script sees them.
//!
//! Sits beside `vm/object.rs`. A type is a table of metamethods. Each value has a clone of it as its
//! metatable, whose element 1 is the value's state and element 2 the type: so the collector sees the
//! state through the value, and a value that refers to itself is no leak.
//!
//! Invariants
//! - A value's metatable is set once, when it is made, and no script can reach it (`__metatable`).
//! - What is asked of a value of another type, or of no userdata, answers nil.
//! - The stack is higher by what a method says, whatever its indexes are.
//!
//! Not here: what the types are (`surface/`).

use super::function::is_surface;
use super::{Kind, Stack, ffi};

impl Stack<'_> {
    /// Gives the userdata at `index` a metatable of its own: a clone of the type at `template`, with
    /// the value at `state`. Does nothing if they are not there.
    pub(crate) fn set_own_metatable(&mut self, index: i32, template: i32, state: i32) {
        if self.kind(index) != Kind::Userdata
            || self.kind(template) != Kind::Table
            || self.kind(state) == Kind::None
        {
            return;
        }
        // SAFETY: the indexes are present and of their kinds. The clone is writable until it becomes
        // the metatable, which pops it.
        unsafe {
            ffi::lua_clonetable(self.raw(), template);
            let table = self.len();
            ffi::lua_setreadonly(self.raw(), table, 0);
            ffi::lua_pushvalue(self.raw(), state);
            ffi::lua_rawseti_(self.raw(), table, 1);
            ffi::lua_pushvalue(self.raw(), template);
            ffi::lua_rawseti_(self.raw(), table, 2);
            ffi::lua_setmetatable(self.raw(), index);
        }
    }

    /// Pushes the state of the value at `index`; nil if its type is not the one at `template`.
    pub(crate) fn push_own_state(&mut self, index: i32, template: i32) {
        if self.kind(index) != Kind::Userdata || self.kind(template) != Kind::Table {
            return self.push_nil();
        }
        // SAFETY: the index is userdata. Its metatable, if it has one, is pushed, and so are the
        // elements read from it; all but the last are taken away again.
        unsafe {
            if ffi::lua_getmetatable(self.raw(), index) == 0 {
                return self.push_nil();
            }
            let table = self.len();
            ffi::lua_rawgeti_(self.raw(), table, 2);
            let is_same = ffi::lua_rawequal(self.raw(), table + 1, template) != 0;
            ffi::lua_settop(self.raw(), table);
            if is_same {
                ffi::lua_rawgeti_(self.raw(), table, 1);
            } else {
                ffi::lua_pushnil(self.raw());
            }
            ffi::lua_remove(self.raw(), table);
        }
    }

    /// Has the table at `index` refuse changes.
    pub(crate) fn freeze(&mut self, index: i32) {
        if self.kind(index) == Kind::Table {
            // SAFETY: the index is a table.
            unsafe { ffi::lua_setreadonly(self.raw(), index, 1) }
        }
    }

    /// Pushes the global whose name is at `index`, as the innermost function of a script sees it; nil
    /// if no script has called.
    pub(crate) fn push_callers_global(&mut self, index: i32) {
        let bottom = self.len();
        for level in 1..24 {
            // SAFETY: all-zero is a valid `lua_Debug`: integers and null pointers.
            let mut frame: ffi::lua_Debug = unsafe { std::mem::zeroed() };
            // SAFETY: a level that is not there answers 0 and pushes nothing; otherwise the function
            // is pushed, whose environment is a table. The name is a string at a present index. An
            // environment reads on in the shared globals by a table, which raises nothing.
            unsafe {
                if ffi::lua_getinfo(self.raw(), level, c"slf".as_ptr(), &raw mut frame) == 0 {
                    break;
                }
                if frame.currentline > 0 && !is_surface(frame.short_src) {
                    ffi::lua_getfenv(self.raw(), bottom + 1);
                    ffi::lua_pushvalue(self.raw(), index);
                    ffi::lua_gettable(self.raw(), bottom + 2);
                    ffi::lua_remove(self.raw(), bottom + 2);
                    ffi::lua_remove(self.raw(), bottom + 1);
                    return;
                }
                ffi::lua_settop(self.raw(), bottom);
            }
        }
        self.push_nil();
    }
}
