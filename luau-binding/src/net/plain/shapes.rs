//! Tables of header fields whose names came before in the same order: a copy, in which only what
//! differs is set.
//!
//! Sits inside `plain.rs`, behind `templates.rs`: two requests of one client, or of two clients of
//! one kind, differ in a value or two, such as a cookie or an identifier. The names, and with them
//! most values, are in the VM already.
//!
//! Invariants
//! - Names are compared whole and as sent; the hash only says where to look.
//! - At most [`SLOTS`] shapes of [`FIELDS_MAX`] fields are kept, of blocks that `templates.rs` would
//!   keep. A name that repeats is no part of one.
//!
//! Not here: blocks that are the same to the byte (`templates.rs`).

use super::parts::Parts;
use crate::vm::{Pin, Stack};

/// Shapes that are kept, by their hash.
const SLOTS: usize = 16;
/// Fields of a shape.
const FIELDS_MAX: usize = 32;
/// How many other shapes a used one outlives that fall on the same slot.
const CREDIT_MAX: u8 = 8;

/// The shapes of one server.
#[derive(Debug, Default)]
pub(super) struct Shapes(Vec<Slot>);

#[derive(Debug, Default)]
struct Slot {
    hash: u64,
    credit: u8,
    shape: Option<Shape>,
}

/// A field as it was sent.
#[derive(Debug)]
struct Known {
    name: Box<[u8]>,
    value: Box<[u8]>,
}

#[derive(Debug)]
struct Shape {
    /// The fields of the table.
    fields: Box<[Known]>,
    /// The names in lower case, as elements of a table.
    names: Pin,
    table: Pin,
}

impl Shape {
    fn has_names(&self, request: &impl Parts) -> bool {
        request.field_count() == self.fields.len()
            && (self.fields.iter().zip(request.fields()))
                .all(|(known, (name, _))| *known.name == *name)
    }

    /// Pushes the table of `request`, which has the names of this shape.
    fn push(&self, stack: &mut Stack<'_>, request: &impl Parts) {
        let both = (1..).zip(self.fields.iter().zip(request.fields()));
        let changed = both.filter(|(_, (known, (_, value)))| *known.value != **value);
        let changed = changed.map(|(n, (_, (_, value)))| (n, value));
        stack.push_changed(&self.table, &self.names, changed);
    }
}

impl Shapes {
    /// Pushes the table of the fields of `request`, if one of that shape is known; `make` makes it where
    /// one is to be learnt. False, and nothing is pushed, if not.
    pub(super) fn push(
        &mut self,
        stack: &mut Stack<'_>,
        request: &impl Parts,
        make: impl FnOnce(&mut Stack<'_>),
    ) -> bool {
        if self.0.is_empty() {
            self.0.resize_with(SLOTS, Slot::default);
        }
        let hash = hash(request);
        let at = usize::try_from(hash >> 60).unwrap_or(0) % SLOTS;
        let Some(slot) = self.0.get_mut(at) else {
            return false;
        };
        match &slot.shape {
            Some(shape) if slot.hash == hash && shape.has_names(request) => {
                slot.credit = (slot.credit + 1).min(CREDIT_MAX);
                shape.push(stack, request);
                return true;
            }
            Some(_) if slot.credit > 0 => slot.credit -= 1,
            _ if slot.hash == hash => {
                // For the second time.
                if can_be_shape(request) {
                    make(stack);
                    slot.shape = learn(stack, request);
                    return true;
                }
            }
            _ => {
                *slot = Slot {
                    hash,
                    ..Slot::default()
                };
            }
        }
        false
    }
}

fn can_be_shape(request: &impl Parts) -> bool {
    request.field_count() <= FIELDS_MAX
        && request.fields().enumerate().all(|(n, (name, _))| {
            let mut before = request.fields().take(n);
            before.all(|(other, _)| !other.eq_ignore_ascii_case(name))
        })
}

/// Makes a shape of `request`, whose table is on top. Leaves a table there that is not the shape's.
fn learn(stack: &mut Stack<'_>, request: &impl Parts) -> Option<Shape> {
    let released = stack.worker().ok()?.root.released();
    let at = stack.len();
    let table = stack.pin(at, released);
    stack.push_table(request.field_count(), 0);
    for (n, (name, _)) in (1..).zip(request.fields()) {
        stack.push_string(name.to_ascii_lowercase());
        stack.set_element(at + 1, n);
    }
    let names = stack.pin(at + 1, released);
    stack.pop(2);
    stack.push_clone(&table);
    let fields = request.fields().map(|(name, value)| Known {
        name: name.into(),
        value: value.into(),
    });
    Some(Shape {
        fields: fields.collect(),
        names,
        table,
    })
}

/// Of the names' lengths and first bytes.
fn hash(request: &impl Parts) -> u64 {
    request.fields().fold(0, |hash: u64, (name, _)| {
        let word = match name.first_chunk::<4>() {
            Some(first) => u64::from(u32::from_le_bytes(*first)),
            None => 0,
        };
        (hash.rotate_left(5) ^ word ^ (name.len() as u64) << 40).wrapping_mul(super::templates::ODD)
    })
}
