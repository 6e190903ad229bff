//! JSON ⇄ Luau values, straight from the parser's tape onto the stack and back. RFC 8259.
//!
//! Sits beside `value.rs`. Decoding copies the text into a buffer that is kept, for the parser
//! unescapes in place, and walks the tape it leaves. Encoding walks the stack into a buffer that is
//! kept. No value stands between.
//!
//! - `json/encode.rs`  Luau values to text, and the rules JSON leaves open there
//! - `json/fault.rs`   what is wrong with a text, and where
//! - `json/face.rs`    `net.json`, `jsonEncode`, `jsonDecode`, `array`, `object`
//!
//! How texts are read
//! - `null` is `net.null`, so that no array has holes and no field goes missing, or nil on request.
//! - Empty arrays and objects carry a metatable that tells them apart, so that they encode as they
//!   came.
//! - Integers that a number cannot hold become the nearest number, as `JSON.parse` has it; `-0`
//!   keeps its sign; a number beyond the greatest is refused.
//! - With repeated keys the last one counts. Bytes that are not UTF-8 are refused, and so are half
//!   surrogate pairs.
//!
//! Invariants
//! - Depth and bytes are bounded in both directions, so neither stack nor memory can be exhausted.
//!
//! Not here: content types and bodies (`net/`).

mod encode;
mod face;
mod fault;
#[cfg(test)]
mod tests;

pub(crate) use encode::{Spelling, encode};
pub(crate) use face::install;

use crate::runtime::Worker;
use crate::vm::output::Output;
use crate::vm::tape::{Manner, Shapes};
use crate::vm::{Pin, Stack};
use simd_json::{Buffers, INPUT_PADDING, Tape};

/// Arrays and objects inside one another, unless the caller says otherwise.
pub(crate) const DEPTH: u32 = 128;
/// The most that a caller may say: our walks are recursive, and a thread's stack is finite.
pub(crate) const DEPTH_MAX: u32 = 1_000;
/// Bytes of a text, in and out, unless the caller says otherwise.
pub(crate) const BYTES: u32 = 256 * 1024 * 1024;
/// The most that a caller may say: no string of the VM is longer.
pub(crate) const BYTES_MAX: u32 = 1024 * 1024 * 1024;
/// A scratch buffer that grew above this is given back after use.
const SCRATCH_BYTES_KEPT: usize = 1024 * 1024;

/// Memory that is kept from one call to the next.
#[derive(Default)]
pub(crate) struct Json {
    input: Vec<u8>,
    buffers: Option<(u32, Buffers)>,
    tape: Option<Tape<'static>>,
    shapes: Shapes,
    output: Output,
    marks: Option<Marks>,
}

/// The metatables that tell an empty array from an empty object.
struct Marks {
    array: Pin,
    object: Pin,
    array_address: *const std::ffi::c_void,
    object_address: *const std::ffi::c_void,
}

/// How a text is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// Arrays and objects inside one another.
    pub(crate) depth_max: u32,
    /// Bytes of the text.
    pub(crate) bytes_max: u32,
    /// `null` is nil.
    pub(crate) null_is_nil: bool,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            depth_max: DEPTH,
            bytes_max: BYTES,
            null_is_nil: false,
        }
    }
}

/// Decodes the text that `find` picks from the stack, and pushes the value.
///
/// # Errors
/// What is wrong with the text and where, as half a sentence; nothing is pushed then.
pub(crate) fn decode(
    worker: &Worker,
    stack: &mut Stack<'_>,
    reading: Reading,
    find: impl for<'s> Fn(&'s Stack<'_>) -> Option<&'s [u8]>,
) -> Result<(), String> {
    let mut scratch = worker.json.borrow_mut();
    let json = &mut *scratch;
    let text = find(stack).unwrap_or_default();
    let len = text.len();
    if len > reading.bytes_max as usize {
        return Err(format!(
            "the text has {len} bytes, more than the {} that are allowed",
            reading.bytes_max
        ));
    }
    json.input.clear();
    json.input.reserve(len + INPUT_PADDING);
    json.input.extend_from_slice(text);
    // The parser reads whole vectors: it may look behind the end.
    json.input.resize(len + INPUT_PADDING, b' ');
    let buffers = match &mut json.buffers {
        Some((depth_max, buffers)) if *depth_max == reading.depth_max => buffers,
        buffers => {
            let made = Buffers::with_max_depth(len, reading.depth_max as usize);
            &mut buffers.insert((reading.depth_max, made)).1
        }
    };
    let mut tape: Tape<'_> = json.tape.take().unwrap_or(Tape(Vec::new())).reset();
    let parsed = simd_json::fill_tape_padded(&mut json.input, len, buffers, &mut tape);
    let manner = Manner {
        null_is_nil: reading.null_is_nil,
        marks: json
            .marks
            .as_ref()
            .map(|marks| (&marks.array, &marks.object)),
    };
    let result = match parsed {
        Err(_) => Err(fault::explain(
            find(stack).unwrap_or_default(),
            reading.depth_max,
        )),
        Ok(()) => stack
            .push_tape(&tape.0, &mut json.shapes, worker.root.released(), manner)
            .map_err(|_| "there is no room left on the stack".to_owned()),
    };
    json.tape = Some(tape.reset());
    if json.input.capacity() > SCRATCH_BYTES_KEPT {
        json.input = Vec::new();
        json.buffers = None;
        json.tape = None;
    }
    result
}
