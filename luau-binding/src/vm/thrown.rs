//! What was raised, in words: errors are strings, and scripts may raise anything.
//!
//! Sits beside `coroutine.rs`, whose failures it describes. An address says nothing about a table; the few fields that it most
//! likely has do.
//!
//! Invariants
//! - Strings are passed on as they are, and so is what `__tostring` makes of others.
//! - What a table holds is shortened: [`FIELDS_MAX`] fields, [`TEXT_BYTES_MAX`] bytes of each.
//! - Nothing here runs script code but `__tostring`.
//!
//! Not here: where it was raised (`coroutine.rs`), who hears of it (`bridge/report.rs`).

use super::{Kind, Root, Stack, ffi};
use std::fmt::Write;

/// Fields of a table that are shown.
const FIELDS_MAX: usize = 6;

/// Bytes of a text in a table that are shown.
const TEXT_BYTES_MAX: usize = 80;

impl Stack<'_> {
    /// The error at `index` as its report shows it.
    pub(super) fn thrown(&mut self, index: i32, root: &Root) -> String {
        match self.kind(index) {
            Kind::Nil => "an error that is nil; error(\"what is wrong\") says more".to_owned(),
            Kind::Table if !self.has_text_of_its_own(index) => {
                format!("an error that is a table: {}", self.fields_of(index))
            }
            _ => self.display(index, root),
        }
    }

    /// Whether the value at `index` has `__tostring`.
    pub(super) fn has_text_of_its_own(&mut self, index: i32) -> bool {
        // SAFETY: the index is present; what is pushed, if anything, is popped.
        unsafe {
            let has = ffi::luaL_getmetafield(self.raw(), index, c"__tostring".as_ptr()) != 0;
            if has {
                ffi::lua_pop(self.raw(), 1);
            }
            has
        }
    }

    /// The table at `index`, as far as it is plain: `{ code = 5, message = "gone" }`.
    fn fields_of(&mut self, index: i32) -> String {
        let (mut fields, mut left_out, mut cursor) = (Vec::new(), false, 0);
        while let Some(next) = self.next_entry(index, cursor) {
            let (key, value) = (self.len() - 1, self.len());
            if fields.len() < FIELDS_MAX {
                let name = match self.string(key) {
                    Some(name) => shown(name),
                    None => format!("[{}]", self.value_at(key)),
                };
                fields.push(format!("{name} = {}", self.value_at(value)));
            } else {
                left_out = true;
            }
            self.pop(2);
            cursor = next;
        }
        // Tables have no order.
        fields.sort_unstable();
        if left_out {
            fields.push("…".to_owned());
        }
        match fields.is_empty() {
            true => "{}".to_owned(),
            false => format!("{{ {} }}", fields.join(", ")),
        }
    }

    fn value_at(&self, index: i32) -> String {
        match (self.string(index), self.number(index), self.boolean(index)) {
            (Some(text), _, _) => format!("\"{}\"", shown(text)),
            (_, Some(number), _) => number.to_string(),
            (_, _, Some(is_true)) => is_true.to_string(),
            _ => self.type_name(index).to_owned(),
        }
    }
}

/// Text without control characters, and not all of it if it is long.
fn shown(text: &[u8]) -> String {
    let head = text.get(..TEXT_BYTES_MAX).unwrap_or(text);
    let mut shown = String::from_utf8_lossy(head).escape_debug().to_string();
    if head.len() < text.len() {
        let _ = write!(shown, "…");
    }
    shown
}
