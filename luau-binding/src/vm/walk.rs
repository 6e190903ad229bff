//! Walks through a table by the shortest way: each key and value is looked at where it lies.
//!
//! Sits beside `vm.rs`. What is met borrows the stack, so nothing can change the table or free its
//! strings until the caller has done with them: bytes go from the script's string to the send
//! buffer without a copy between.
//!
//! Invariants
//! - A walk leaves the stack as it found it, however it ends.
//! - No script code runs during one.
//!
//! Not here: what keys mean (`net/`).

use super::atom::Atom;
use super::tape::Peek;
use super::{Kind, Stack, ffi};
use std::ffi::c_int;
use std::marker::PhantomData;

/// A value met on a walk.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Met<'s> {
    /// A string.
    Text(&'s [u8]),
    /// The contents of a buffer.
    Buffer(&'s [u8]),
    /// A number.
    Number(f64),
    /// A table, by its index; good until the walk goes on.
    Table(i32),
    /// Anything else.
    Other,
}

/// A key met on a walk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key<'s> {
    /// The bytes of a string; `None` for a key of another type.
    pub(crate) name: Option<&'s [u8]>,
    /// Which member it names.
    pub(crate) atom: Option<Atom>,
}

/// Values of one walk that may lie on the stack.
const HEAP_MAX: i32 = 16;

impl Stack<'_> {
    /// Calls `each` with every key and value of the table at `index` until it says false. True if
    /// it never did. Uses [`HEAP_MAX`] slots.
    #[inline]
    pub(crate) fn walk<'s>(
        &'s self,
        index: i32,
        mut each: impl FnMut(Key<'s>, Met<'s>) -> bool,
    ) -> bool {
        if self.kind(index) != Kind::Table {
            return false;
        }
        let (state, base) = (self.raw(), self.len());
        let (mut top, mut cursor) = (base, 0);
        let ended = loop {
            // SAFETY: the index is a table, and the cursor is 0 or what the last step returned.
            // A step grows the stack by itself and pushes a key and a value, or nothing.
            cursor = unsafe { ffi::lua_rawiter(state, index, cursor) };
            if cursor < 0 {
                break true;
            }
            // SAFETY: both were pushed just now. Their strings and buffers stay where they are
            // as long as the table holds them, which nothing can change while `self` is borrowed.
            let goes_on = unsafe { each(key(state, top + 1), met(state, top + 2)) };
            if !goes_on {
                break false;
            }
            // Small tables are walked without popping in between.
            top += 2;
            if top - base >= HEAP_MAX {
                // SAFETY: this is the height that the walk began with.
                unsafe { ffi::lua_settop(state, base) };
                top = base;
            }
        };
        // SAFETY: as above.
        unsafe { ffi::lua_settop(state, base) };
        ended
    }
}

/// An entry met on a walk from one entry to the next, read where it lies when it is asked for. Good
/// until the walk goes on; then it reads what lies there instead, or nil.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'s> {
    state: *mut ffi::lua_State,
    /// Where the key lies; the value is above it.
    at: i32,
    /// No script runs meanwhile.
    _stack: PhantomData<&'s Stack<'s>>,
}

impl<'s> Entry<'s> {
    /// Where the key lies.
    #[inline(always)]
    pub(crate) fn key_at(self) -> i32 {
        self.at
    }

    /// Where the value lies.
    #[inline(always)]
    pub(crate) fn value_at(self) -> i32 {
        self.at + 1
    }

    /// The key, if it is a string.
    #[inline(always)]
    pub(crate) fn name(self) -> Option<&'s [u8]> {
        let mut len = 0;
        // SAFETY: the index is positive, and what is no string gives null. The bytes stay where they
        // are as long as the table holds them, which nothing can change while the stack is borrowed.
        unsafe {
            let start =
                ffi::lua_tolstringatom(self.state, self.at, &raw mut len, std::ptr::null_mut());
            (!start.is_null()).then(|| std::slice::from_raw_parts(start.cast(), len))
        }
    }

    /// What tells the key from every other, as long as nothing is freed; null for one that is no object.
    #[inline(always)]
    pub(crate) fn key_address(self) -> *const std::ffi::c_void {
        // SAFETY: the index is positive; the pointer is compared and never followed.
        unsafe { ffi::lua_topointer(self.state, self.at) }
    }

    /// The key, if it is a number.
    #[inline(always)]
    pub(crate) fn number(self) -> Option<f64> {
        // SAFETY: the index is positive, and it is asked for a number if it is one.
        unsafe {
            (ffi::lua_type(self.state, self.at) == ffi::LUA_TNUMBER)
                .then(|| ffi::lua_tonumber(self.state, self.at))
        }
    }

    /// The value.
    #[inline(always)]
    pub(crate) fn value(self) -> Peek<'s> {
        // SAFETY: the index is positive; for strings as in `name`.
        unsafe { Peek::at(self.state, self.at + 1) }
    }
}

/// Keys and values that are met at once, if there are so many, before the first is looked at.
const BATCH: i32 = 32;
/// Walks within walks that may each leave a batch on the stack: it holds some thousands.
const DEEP: u32 = 64;
/// A table that a walk has come so far in is too large for the processor to have it at hand.
const AT_HAND: i32 = 64;

impl Stack<'_> {
    /// Calls `each` with every entry of the table at `index`, which is the `depth`-th walk within walks, until it
    /// fails. Nothing happens if it is no table. Uses a [`BATCH`] of slots, and 2 when deep. If the caller knows that what it walks through `is_large`, values are fetched ahead.
    ///
    /// # Errors
    /// What `each` fails with.
    #[inline(always)]
    pub(crate) fn each_entry<'s, E>(
        &'s self,
        index: i32,
        (depth, is_large): (u32, bool),
        mut each: impl FnMut(Entry<'s>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.kind(index) != Kind::Table {
            return Ok(());
        }
        let (state, base) = (self.raw(), self.len());
        let end = base + if depth < DEEP { BATCH } else { 2 };
        let mut cursor = 0;
        loop {
            let mut top = base;
            while top < end {
                // SAFETY: as in `walk`.
                cursor = unsafe { ffi::lua_rawiter(state, index, cursor) };
                if cursor < 0 {
                    break;
                }
                top += 2;
            }
            if is_large || cursor >= AT_HAND {
                // SAFETY: these were pushed just now.
                unsafe { fetch(state, base, top) };
            }
            let mut at = base + 1;
            while at < top {
                let entry = Entry {
                    state,
                    at,
                    _stack: PhantomData,
                };
                at += 2;
                if let Err(error) = each(entry) {
                    // SAFETY: this is the height that the walk began with.
                    unsafe { ffi::lua_settop(state, base) };
                    return Err(error);
                }
            }
            // SAFETY: as above.
            unsafe { ffi::lua_settop(state, base) };
            if cursor < 0 {
                return Ok(());
            }
        }
    }

    /// Calls `with` with the entry of the table at `index` that comes behind `cursor`, which is 0 for the first; then
    /// the second result is the cursor of the next. `None` if there is none.
    pub(crate) fn with_entry<'s, R>(
        &'s self,
        index: i32,
        cursor: i32,
        with: impl FnOnce(Entry<'s>) -> R,
    ) -> Option<(R, i32)> {
        if self.kind(index) != Kind::Table || cursor < 0 {
            return None;
        }
        let (state, base) = (self.raw(), self.len());
        // SAFETY: as in `walk`.
        let next = unsafe { ffi::lua_rawiter(state, index, cursor) };
        if next < 0 {
            return None;
        }
        let result = with(Entry {
            state,
            at: base + 1,
            _stack: PhantomData,
        });
        // SAFETY: this is the height from before.
        unsafe { ffi::lua_settop(state, base) };
        Some((result, next))
    }

    /// Calls `with` with where `table[n]`, raw, lies meanwhile; nil if the value at `table` is no table.
    pub(crate) fn with_element<R>(&self, table: i32, n: i32, with: impl FnOnce(i32) -> R) -> R {
        let (state, base) = (self.raw(), self.len());
        // SAFETY: the index is a table; a push grows the stack by itself.
        unsafe {
            if self.kind(table) == Kind::Table {
                ffi::lua_rawgeti_(state, table, n);
            } else {
                ffi::lua_pushnil(state);
            }
        }
        let result = with(base + 1);
        // SAFETY: this is the height from before.
        unsafe { ffi::lua_settop(state, base) };
        result
    }
}

/// Has the processor fetch the values of the entries above `base` up to `top`, all at once: a walk through much memory
/// waits for them, one after the other, more than for anything else. Stack: 0.
///
/// # Safety
/// Keys and values lie there in turn.
#[cold]
#[inline(never)]
unsafe fn fetch(state: *mut ffi::lua_State, base: c_int, top: c_int) {
    /// What is as long as most strings, and as the part of a table that leads to its entries.
    const BYTES: usize = 48;
    for value in (base + 2..=top).step_by(2) {
        // SAFETY: the index is present; the pointer is not followed.
        let address: *const u8 = unsafe { ffi::lua_topointer(state, value) }.cast();
        prefetch(address);
        prefetch(address.wrapping_add(BYTES));
    }
}

/// Has the processor fetch what is at `address`, which may be any. Stack: none.
#[inline(always)]
fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: it is a hint, which neither faults nor changes anything.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// The key at `index`. Stack: 0.
///
/// # Safety
/// The index is present, and the value outlives `'s` where it is.
#[inline]
unsafe fn key<'s>(state: *mut ffi::lua_State, index: c_int) -> Key<'s> {
    let (mut len, mut atom) = (0, -1);
    // SAFETY: by the contract; what is no string gives null, and nothing is converted.
    unsafe {
        let start = ffi::lua_tolstringatom(state, index, &raw mut len, &raw mut atom);
        if start.is_null() {
            return Key {
                name: None,
                atom: None,
            };
        }
        Key {
            name: Some(std::slice::from_raw_parts(start.cast(), len)),
            atom: Atom::from_number(atom),
        }
    }
}

/// The value at `index`. Stack: 0.
///
/// # Safety
/// As of [`key`].
#[inline]
unsafe fn met<'s>(state: *mut ffi::lua_State, index: c_int) -> Met<'s> {
    let mut len = 0;
    // SAFETY: by the contract, and each call is for the type it is made for. Bytes are as many as
    // the VM says; an empty buffer may have none.
    unsafe {
        match ffi::lua_type(state, index) {
            ffi::LUA_TSTRING => {
                let start =
                    ffi::lua_tolstringatom(state, index, &raw mut len, std::ptr::null_mut());
                Met::Text(bytes(start.cast(), len))
            }
            ffi::LUA_TNUMBER => Met::Number(ffi::lua_tonumber(state, index)),
            ffi::LUA_TTABLE => Met::Table(index),
            ffi::LUA_TBUFFER => {
                let start = ffi::lua_tobuffer(state, index, &raw mut len);
                Met::Buffer(bytes(start.cast_const().cast(), len))
            }
            _ => Met::Other,
        }
    }
}

/// `len` bytes from `start`. Stack: none.
///
/// # Safety
/// They are there and outlive `'s`, or `len` is 0 or `start` null.
unsafe fn bytes<'s>(start: *const u8, len: usize) -> &'s [u8] {
    if start.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: by the contract.
    unsafe { std::slice::from_raw_parts(start, len) }
}
