//! The tape of a JSON parser onto the stack, raw: the one hot path that is worth its own walk.
//!
//! Sits beside `vm.rs`, below `json.rs`. Every call of the VM is one that cannot be left out:
//! nothing here asks the stack what it holds, as the walk itself has put it there.
//!
//! Objects of one shape, the same keys in the same order, are most of what JSON holds. The second
//! time a shape is met its keys are kept as strings, beside a table that has them all; from then
//! on an object is a clone of that table whose fields are assigned, and no key is hashed again.
//! They lie on the stack of a thread that never runs, which they are pushed from by the shortest
//! way. An object is first compared with the shape that the last one of as many keys had.
//!
//! Invariants
//! - A walk that fails or is thrown out of leaves [`Shapes`] as they were, or with one more.
//! - At most [`SLOTS`] shapes of [`KEYS_MAX`] keys and [`KEY_BYTES_MAX`] bytes each are kept.
//!
//! Not here: parsing, depth and error messages (`json.rs`).

use super::{NULL_TAG, Pin, Released, Stack, ffi};
use simd_json::{Node, StaticNode};
use std::ffi::c_int;
use std::ptr::{self, NonNull};
use std::rc::Rc;

/// Shapes that are remembered, by fingerprint.
const SLOTS: usize = 64;
/// Keys of a shape. Larger objects are dictionaries more often than records.
const KEYS_MAX: usize = 32;
/// Bytes of all keys of a shape.
const KEY_BYTES_MAX: usize = 1024;
/// How many other shapes a used one outlives that fall on the same slot.
const CREDIT_MAX: u8 = 8;

/// The shapes of objects that were met.
#[derive(Default)]
pub(crate) struct Shapes {
    slots: Vec<Slot>,
    /// Which slot the last object of so many keys had.
    last: Vec<usize>,
}

#[derive(Default)]
struct Slot {
    fingerprint: u64,
    credit: u8,
    shape: Option<Shape>,
}

struct Shape {
    /// All keys, one behind the other, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// The thread on whose stack the keys are from 1 on, and above them the table to clone.
    keys: NonNull<ffi::lua_State>,
    /// What keeps the thread.
    _pin: Pin,
}

impl Shape {
    /// Whether `keys` are these, in this order.
    fn has_keys<'k>(&self, mut keys: impl Iterator<Item = &'k [u8]>) -> bool {
        let mut start = 0;
        self.ends.iter().all(|end| {
            let known = self.bytes.get(start..*end);
            start = *end;
            known.zip(keys.next()).is_some_and(|(a, b)| is_same(a, b))
        })
    }
}

/// `a == b`, without a call for as few bytes as most keys have.
#[inline(always)]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    /// The first and the last bytes, which meet or overlap.
    #[inline(always)]
    fn ends<const N: usize>(bytes: &[u8]) -> Option<[[u8; N]; 2]> {
        Some([*bytes.first_chunk()?, *bytes.last_chunk()?])
    }
    if a.len() != b.len() || a.len() > 16 {
        return a == b;
    }
    if let (Some(a), Some(b)) = (ends::<8>(a), ends::<8>(b)) {
        return a == b;
    }
    if let (Some(a), Some(b)) = (ends::<4>(a), ends::<4>(b)) {
        return a == b;
    }
    if let (Some(a), Some(b)) = (ends::<2>(a), ends::<2>(b)) {
        return a == b;
    }
    a.first() == b.first()
}

/// The keys of the object whose first key is at `at`: as many as are asked for, if it has them.
#[inline(always)]
fn keys<'t>(tape: &'t [Node<'t>], mut at: usize) -> impl Iterator<Item = &'t [u8]> {
    std::iter::from_fn(move || {
        let Some(Node::String(key)) = tape.get(at) else {
            return None;
        };
        at += match tape.get(at + 1) {
            Some(Node::Array { count, .. } | Node::Object { count, .. }) => count + 2,
            _ => 2,
        };
        Some(key.as_bytes())
    })
}

/// What a value becomes where JSON and Luau differ.
#[derive(Clone, Copy)]
pub(crate) struct Manner<'p> {
    /// `null` is nil, and not `net.null`.
    pub(crate) null_is_nil: bool,
    /// The metatables of empty arrays and empty objects, which tell them apart.
    pub(crate) marks: Option<(&'p Pin, &'p Pin)>,
}

/// The walk could not go on: the tape is broken, or the stack full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unfinished;

impl Stack<'_> {
    /// Pushes the value that `tape` describes. The caller has bounded its depth.
    ///
    /// # Errors
    /// Without room on the stack; nothing is pushed then.
    pub(crate) fn push_tape(
        &mut self,
        tape: &[Node<'_>],
        shapes: &mut Shapes,
        released: &Rc<Released>,
        manner: Manner<'_>,
    ) -> Result<(), Unfinished> {
        let bottom = self.len();
        if !self.reserve(8) {
            return Err(Unfinished);
        }
        shapes.slots.resize_with(SLOTS, Slot::default);
        shapes.last.resize(KEYS_MAX + 1, 0);
        let mut walk = Walk {
            state: self.raw(),
            tape,
            at: 0,
            shapes,
            released,
            manner,
        };
        // SAFETY: the state is alive and has room for 8 values.
        let walked = unsafe { walk.value() };
        if walked.is_err() {
            self.pop(self.len() - bottom);
        }
        walked
    }

    /// The address of the metatable of the table at `index`, null without one.
    pub(crate) fn metatable_address(&self, index: i32) -> *const std::ffi::c_void {
        match self.present(index) {
            // SAFETY: the index is present; the pointer is compared and never followed.
            Some(index) => unsafe { ffi::lua_getmetatablepointer(self.raw(), index) },
            None => ptr::null(),
        }
    }

    /// Whether the table at `index` is frozen.
    pub(crate) fn is_read_only(&self, index: i32) -> bool {
        // SAFETY: the kind says that the index is a table.
        self.kind(index) == super::Kind::Table
            && unsafe { ffi::lua_getreadonly(self.raw(), index) } != 0
    }

    /// Makes what `pin` keeps, a table, the metatable of the table at `index`.
    pub(crate) fn set_metatable(&mut self, index: i32, pin: &Pin) {
        if self.kind(index) == super::Kind::Table {
            self.push_pin(pin);
            // SAFETY: both are tables, and the metatable is on top; it is popped.
            unsafe { ffi::lua_setmetatable(self.raw(), index) };
        }
    }
}

/// A walk over a tape. Its methods push onto a stack that they know to have room.
struct Walk<'w, 't> {
    state: *mut ffi::lua_State,
    tape: &'t [Node<'t>],
    at: usize,
    shapes: &'w mut Shapes,
    released: &'w Rc<Released>,
    manner: Manner<'w>,
}

impl<'t> Walk<'_, 't> {
    /// Pushes the next value. Stack: +1, uses 8 and makes sure of 8 more before it goes deeper.
    ///
    /// # Safety
    /// The state is alive and has room for 8 values.
    #[inline(always)]
    unsafe fn value(&mut self) -> Result<(), Unfinished> {
        let node = *self.tape.get(self.at).ok_or(Unfinished)?;
        self.at += 1;
        // SAFETY: room by the contract; strings are copied by the VM.
        unsafe {
            match node {
                Node::String(text) => {
                    ffi::lua_pushlstring_(self.state, text.as_ptr().cast(), text.len());
                }
                Node::Static(word) => self.word(word),
                Node::Array { len, .. } => return self.array(len),
                Node::Object { len, .. } => return self.object(len),
            }
        }
        Ok(())
    }

    /// Pushes a number, a boolean or what stands for null. Stack: +1.
    ///
    /// # Safety
    /// As [`value`](Self::value).
    #[inline(always)]
    unsafe fn word(&self, word: StaticNode) {
        let state = self.state;
        // SAFETY: room by the contract.
        unsafe {
            match word {
                StaticNode::Null if self.manner.null_is_nil => ffi::lua_pushnil(state),
                StaticNode::Null => {
                    ffi::lua_pushlightuserdatatagged(state, ptr::null_mut(), NULL_TAG);
                }
                StaticNode::Bool(value) => ffi::lua_pushboolean(state, c_int::from(value)),
                StaticNode::F64(value) => ffi::lua_pushnumber(state, value),
                // The parser has no other way to say `-0`: without the sign it is unsigned.
                StaticNode::I64(0) => ffi::lua_pushnumber(state, -0.0),
                // Numbers of Luau are doubles; the nearest one is what other decoders give too.
                StaticNode::I64(value) => ffi::lua_pushnumber(state, value as f64),
                StaticNode::U64(value) => ffi::lua_pushnumber(state, value as f64),
            }
        }
    }

    /// Pushes an array of `len` elements. Stack: +1, uses 3 and makes sure of 16 first.
    ///
    /// # Safety
    /// As [`value`](Self::value).
    #[inline(never)]
    unsafe fn array(&mut self, len: usize) -> Result<(), Unfinished> {
        let state = self.state;
        let last = c_int::try_from(len).map_err(|_| Unfinished)?;
        // SAFETY: room by the contract, and 8 more for each element, which is popped before the
        // next; the table is below the element.
        unsafe {
            if ffi::lua_checkstack(state, 16) == 0 {
                return Err(Unfinished);
            }
            ffi::lua_createtable(state, hint(len), 0);
            if len == 0 {
                self.mark(|(array, _)| array);
            }
            let mut n = 0;
            while n < last {
                n += 1;
                self.value()?;
                ffi::lua_rawseti_(state, -2, n);
            }
        }
        Ok(())
    }

    /// Pushes an object of `len` fields. Stack: +1, uses 4 and makes sure of 16 first.
    ///
    /// # Safety
    /// As [`value`](Self::value).
    #[inline(never)]
    unsafe fn object(&mut self, len: usize) -> Result<(), Unfinished> {
        let state = self.state;
        // SAFETY: room by the contract, and 16 more for what an object and its fields need: a
        // table, or a shape and its clone, and a key below the field's value.
        unsafe {
            if ffi::lua_checkstack(state, 16) == 0 {
                return Err(Unfinished);
            }
            if (2..=KEYS_MAX).contains(&len)
                && let Some(keys) = self.push_clone(len)
            {
                // Even if a field's value takes its slot from the shape, the thread stays for now: what
                // was pinned is given back by `Root::sweep`, which no walk calls.
                let (mut n, last) = (0, hint(len));
                while n < last {
                    n += 1;
                    // The key is on the tape too, and known to be the same.
                    self.at += 1;
                    ffi::lua_xpush(keys.as_ptr(), state, n);
                    self.value()?;
                    ffi::lua_rawset(state, -3);
                }
                return Ok(());
            }
            self.fields(len)
        }
    }

    /// Pushes an object of `len` fields whose shape is not known. Stack: +1, uses 4.
    ///
    /// # Safety
    /// Room for 16 values.
    #[inline(never)]
    unsafe fn fields(&mut self, len: usize) -> Result<(), Unfinished> {
        let state = self.state;
        // SAFETY: room by the contract; the table is below the key and its value.
        unsafe {
            ffi::lua_createtable(state, 0, hint(len));
            if len == 0 {
                self.mark(|(_, object)| object);
            }
            for _ in 0..len {
                let Some(Node::String(key)) = self.tape.get(self.at) else {
                    return Err(Unfinished);
                };
                self.at += 1;
                ffi::lua_pushlstring_(state, key.as_ptr().cast(), key.len());
                self.value()?;
                ffi::lua_rawset(state, -3);
            }
        }
        Ok(())
    }

    /// Gives the empty table on top its mark. Stack: 0, uses 1.
    ///
    /// # Safety
    /// A table is on top, with room for one more value.
    unsafe fn mark(&self, which: impl for<'p> FnOnce((&'p Pin, &'p Pin)) -> &'p Pin) {
        if let Some(marks) = self.manner.marks {
            // SAFETY: the pin keeps a table, which `lua_setmetatable` takes off.
            unsafe {
                ffi::lua_rawgeti_(self.state, ffi::LUA_REGISTRYINDEX, which(marks).id);
                ffi::lua_setmetatable(self.state, -2);
            }
        }
    }

    /// Pushes a clone of the shape of the object whose first key is next, and says where its keys
    /// are; `None`, and nothing is pushed, if the shape is not known yet. Stack: +1 or 0, uses 4.
    ///
    /// # Safety
    /// Room for 4 values.
    unsafe fn push_clone(&mut self, len: usize) -> Option<NonNull<ffi::lua_State>> {
        let state = self.state;
        let last = *self.shapes.last.get(len)?;
        let slot = self.shapes.slots.get_mut(last)?;
        let shape = match &slot.shape {
            Some(shape) if shape.ends.len() == len && shape.has_keys(keys(self.tape, self.at)) => {
                slot.credit = CREDIT_MAX.min(slot.credit + 1);
                shape
            }
            // SAFETY: room by the contract.
            _ => unsafe { self.find_shape(len)? },
        };
        let thread = shape.keys;
        // SAFETY: room by the contract. The thread is kept by its shape and has what `learn` has
        // put there: above the keys a table.
        unsafe {
            ffi::lua_xpush(thread.as_ptr(), state, hint(len + 1));
            ffi::lua_clonetable(state, -1);
            ffi::lua_replace(state, -2);
        }
        Some(thread)
    }

    /// The shape of the object whose first key is next, learnt if it is met the second time. Stack: 0, uses 4.
    ///
    /// # Safety
    /// Room for 4 values.
    unsafe fn find_shape(&mut self, len: usize) -> Option<&Shape> {
        let keys = || keys(self.tape, self.at).take(len);
        let fingerprint = keys().fold(len as u64, mix);
        let index = usize::try_from(fingerprint >> 58).unwrap_or(0) % SLOTS;
        let slot = self.shapes.slots.get_mut(index)?;
        if slot.fingerprint != fingerprint {
            match slot.credit.checked_sub(1) {
                Some(credit) => slot.credit = credit,
                None => {
                    *slot = Slot {
                        fingerprint,
                        ..Slot::default()
                    };
                }
            }
            return None;
        }
        if slot.shape.is_none() {
            let keys: Vec<&[u8]> = keys().collect();
            // SAFETY: room by the contract.
            slot.shape = unsafe { learn(self.state, &keys, self.released) };
        }
        let shape = slot.shape.as_ref()?;
        if shape.ends.len() != len || !shape.has_keys(keys()) {
            return None;
        }
        slot.credit = CREDIT_MAX.min(slot.credit + 1);
        if let Some(last) = self.shapes.last.get_mut(len) {
            *last = index;
        }
        Some(shape)
    }
}

/// Makes a shape of `keys`; `None` if they are too long. Stack: 0, uses 4.
///
/// # Safety
/// The state is alive and has room for 4 values.
unsafe fn learn(
    state: *mut ffi::lua_State,
    keys: &[&[u8]],
    released: &Rc<Released>,
) -> Option<Shape> {
    let bytes = keys.concat();
    if bytes.len() > KEY_BYTES_MAX {
        return None;
    }
    let mut end = 0;
    let ends = keys
        .iter()
        .map(|key| {
            end += key.len();
            end
        })
        .collect();
    // SAFETY: room by the contract. The thread gets room for what moves over, without raising; all
    // that may raise is done on the state, for nobody waits for an error of the thread's. It stays
    // on the stack until it is kept.
    let (id, thread) = unsafe {
        let thread = ffi::lua_newthread(state);
        if ffi::lua_checkstack(thread, hint(keys.len() + 1)) == 0 {
            ffi::lua_pop(state, 1);
            return None;
        }
        for key in keys {
            ffi::lua_pushlstring_(state, key.as_ptr().cast(), key.len());
            ffi::lua_xmove(state, thread, 1);
        }
        ffi::lua_createtable(state, 0, hint(keys.len()));
        for n in 1..=hint(keys.len()) {
            ffi::lua_xpush(thread, state, n);
            ffi::lua_pushboolean(state, 0);
            ffi::lua_rawset(state, -3);
        }
        ffi::lua_xmove(state, thread, 1);
        let id = ffi::lua_ref(state, -1);
        ffi::lua_pop(state, 1);
        (id, thread)
    };
    let released = Rc::clone(released);
    Some(Shape {
        bytes,
        ends,
        keys: NonNull::new(thread)?,
        _pin: Pin { id, released },
    })
}

/// `hash` with the length and the first and last bytes of `key`.
fn mix(hash: u64, key: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let word = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0_u64, |word, byte| word << 8 | u64::from(*byte))
    };
    let head = match key.first_chunk::<8>() {
        Some(head) => u64::from_le_bytes(*head),
        None => word(key),
    };
    let tail = key
        .last_chunk::<8>()
        .map_or(0, |tail| u64::from_le_bytes(*tail));
    ((hash.rotate_left(5) ^ head ^ tail.rotate_left(32)).wrapping_add(key.len() as u64))
        .wrapping_mul(ODD)
}

/// A size for the VM to expect; more than this grows by itself.
fn hint(len: usize) -> c_int {
    c_int::try_from(len.min(1 << 24)).unwrap_or(0)
}

/// A value of the stack as JSON sees it.
pub(crate) enum Peek<'s> {
    /// Nil, or nothing there.
    Nil,
    /// `net.null`.
    Null,
    Boolean(bool),
    Number(f64),
    Integer(i64),
    String(&'s [u8]),
    Table,
    Other,
}

impl Stack<'_> {
    /// The value at `index`, in as few calls as there can be.
    pub(crate) fn peek(&self, index: i32) -> Peek<'_> {
        if !(1..=super::INDEX_MAX).contains(&index) {
            return Peek::Nil;
        }
        // SAFETY: the index is no wild one, and the stack cannot change while `self` is borrowed.
        unsafe { Peek::at(self.raw(), index) }
    }
}

impl<'s> Peek<'s> {
    /// The value at `index`. Stack: 0.
    ///
    /// # Safety
    /// The index is positive and no wild one; a string there stays where it is as long as `'s`.
    #[inline(always)]
    pub(super) unsafe fn at(state: *mut ffi::lua_State, index: i32) -> Self {
        // SAFETY: a positive index above the top is none; each value is asked for as what it is.
        unsafe {
            match ffi::lua_type(state, index) {
                ffi::LUA_TSTRING => {
                    let mut len = 0;
                    let start = ffi::lua_tolstringatom(state, index, &raw mut len, ptr::null_mut());
                    Self::String(std::slice::from_raw_parts(start.cast(), len))
                }
                ffi::LUA_TNUMBER => Self::Number(ffi::lua_tonumber(state, index)),
                ffi::LUA_TTABLE => Self::Table,
                ffi::LUA_TBOOLEAN => Self::Boolean(ffi::lua_toboolean(state, index) != 0),
                ffi::LUA_TNIL | ffi::LUA_TNONE => Self::Nil,
                ffi::LUA_TLIGHTUSERDATA if ffi::lua_lightuserdatatag(state, index) == NULL_TAG => {
                    Self::Null
                }
                ffi::LUA_TINTEGER => {
                    Self::Integer(ffi::lua_tointeger64(state, index, ptr::null_mut()))
                }
                _ => Self::Other,
            }
        }
    }
}
