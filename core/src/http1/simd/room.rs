//! Room for the fields of one head behind those of others, written without asking a vector for more
//! on the way. RFC 9112 §5.
//!
//! Sits below `clean.rs`, whose loop keeps three numbers of it in registers.
//!
//! Invariants
//! - The first `len` fields of the vector's memory are initialised, and `len` is at most `end`, which
//!   is at most the capacity.
//! - The vector is as it was until [`Room::commit`].
//!
//! Not here: making room (`parse.rs`).

use super::Field;

/// The spare capacity of a vector of fields.
pub(in crate::http1) struct Room<'a> {
    fields: &'a mut Vec<Field>,
    base: *mut Field,
    /// Fields there are, those of other heads included.
    len: usize,
    /// Fields there may be.
    end: usize,
}

impl<'a> Room<'a> {
    /// Room for `fields_max` fields behind `fields`, or for as many as there is capacity for.
    #[inline(always)]
    pub(in crate::http1) fn new(fields: &'a mut Vec<Field>, fields_max: u16) -> Self {
        let len = fields.len();
        Self {
            base: fields.as_mut_ptr(),
            len,
            end: fields.capacity().min(len + usize::from(fields_max)),
            fields,
        }
    }

    /// Appends `field`; `None` if there is no room.
    #[inline(always)]
    pub(in crate::http1) fn push(&mut self, field: Field) -> Option<()> {
        if self.len >= self.end {
            return None;
        }
        // SAFETY: `len` is below `end`, so below the capacity of the vector that `base` belongs to,
        // which is borrowed for as long as this lives and has not been used since.
        unsafe { self.base.add(self.len).write(field) };
        self.len += 1;
        Some(())
    }

    /// Makes the fields that were pushed part of the vector.
    #[inline(always)]
    pub(in crate::http1) fn commit(self) {
        // SAFETY: `len` is at most the capacity, and all fields up to it have been written: by the
        // vector's owner, or by `push`, which counts one by one.
        unsafe { self.fields.set_len(self.len) };
    }
}
