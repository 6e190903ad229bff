//! Tables of texts by name, and copies of them: what a request's header fields are where a dialect
//! promises a plain table.
//!
//! Sits beside `vm.rs`. A table is made with its final size, and each name and value goes into it
//! without a look at what the stack holds between them. A table that was made before is cloned,
//! which costs neither the hash of a string nor a place to look for.
//!
//! Invariants
//! - The stack is higher by one value, whatever comes in.
//! - A clone shares strings with its template and nothing else.
//!
//! Not here: which names repeat how, and what is worth a template (`net/plain/`).

use super::{Kind, Pin, Stack, ffi};
use std::ffi::c_int;

/// Names up to this many bytes are put in lower case without an allocation.
const NAME_BYTES: usize = 64;

impl Stack<'_> {
    /// Pushes a clone of the table that `pin` keeps; nil if it is none.
    pub(crate) fn push_clone(&mut self, pin: &Pin) {
        let state = self.raw();
        // SAFETY: the registry is always there. The pinned value is pushed; if it is a table its
        // clone is pushed and takes its place. Pushes grow the stack by themselves.
        unsafe {
            if ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, pin.id) == ffi::LUA_TTABLE {
                ffi::lua_clonetable(state, -1);
                ffi::lua_replace(state, -2);
            } else {
                ffi::lua_pop(state, 1);
                ffi::lua_pushnil(state);
            }
        }
    }

    /// Pushes a clone of the table that `table` keeps, in which each `n` of `changed` has set the field
    /// whose name is element `n` of what `names` keeps.
    pub(crate) fn push_changed<'p>(
        &mut self,
        table: &Pin,
        names: &Pin,
        changed: impl Iterator<Item = (c_int, &'p [u8])>,
    ) {
        self.push_clone(table);
        let at = self.len();
        self.push_pin(names);
        let is_sound = self.kind(at) == Kind::Table && self.kind(at + 1) == Kind::Table;
        for (n, value) in changed.filter(|_| is_sound) {
            let state = self.raw();
            // SAFETY: the clone is at `at`, the table of names above it; a name that is not there
            // would be nil, which is no key, so nothing is set then. Pushes grow the stack.
            unsafe {
                if ffi::lua_rawgeti_(state, at + 1, n) == ffi::LUA_TSTRING {
                    ffi::lua_pushlstring_(state, value.as_ptr().cast(), value.len());
                    ffi::lua_rawset(state, at);
                } else {
                    ffi::lua_pop(state, 1);
                }
            }
        }
        self.pop(1);
    }

    /// Pushes a table of `pairs`, about `count` of them, with names in lower case. Of a name that
    /// comes again the value is what `again` makes of the name, the value before and this one;
    /// `None` is this one.
    pub(crate) fn push_texts<'p>(
        &mut self,
        count: usize,
        pairs: impl Iterator<Item = (&'p [u8], &'p [u8])>,
        again: impl Fn(&[u8], &[u8], &[u8]) -> Option<Vec<u8>>,
    ) {
        self.push_table(0, count);
        for (name, value) in pairs {
            let mut short = [0; NAME_BYTES];
            let long;
            let name = match short.get_mut(..name.len()) {
                Some(lower) => {
                    lower.copy_from_slice(name);
                    lower.make_ascii_lowercase();
                    &*lower
                }
                None => {
                    long = name.to_ascii_lowercase();
                    &long
                }
            };
            let before = self.push_name(name);
            let joined = match before {
                true => {
                    let at = self.len();
                    let before = self.string(at).unwrap_or_default();
                    let joined = again(name, before, value);
                    self.pop(1);
                    joined
                }
                false => None,
            };
            self.set_text(joined.as_deref().unwrap_or(value));
        }
    }

    /// Pushes `name`, and the value that the table below has under it. False if it has none; then
    /// only the name is pushed.
    fn push_name(&mut self, name: &[u8]) -> bool {
        let state = self.raw();
        // SAFETY: pushes grow the stack. The only caller has pushed a table just before, which lies
        // below the name and its copy; the copy becomes the value.
        unsafe {
            ffi::lua_pushlstring_(state, name.as_ptr().cast(), name.len());
            ffi::lua_pushvalue(state, -1);
            ffi::lua_rawget(state, -3);
            let is_there = ffi::lua_type(state, -1) == ffi::LUA_TSTRING;
            if !is_there {
                ffi::lua_settop(state, -2);
            }
            is_there
        }
    }

    /// Sets the field whose name is on top, of the table below it, to `value`; pops the name.
    fn set_text(&mut self, value: &[u8]) {
        let state = self.raw();
        // SAFETY: the only caller has pushed a table of its own and a name above it.
        unsafe {
            ffi::lua_pushlstring_(state, value.as_ptr().cast(), value.len());
            ffi::lua_rawset(state, -3);
        }
    }

    /// Whether the value at `index` is a table without a metatable.
    pub(crate) fn is_plain_table(&self, index: i32) -> bool {
        self.kind(index) == Kind::Table && self.metatable_address(index).is_null()
    }
}
