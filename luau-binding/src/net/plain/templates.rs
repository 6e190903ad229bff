//! Tables of header fields that were made before: a client says the same with every request of a
//! connection, and so do all clients of one kind.
//!
//! Sits inside `plain.rs`. A block, the bytes of a request's field lines, that comes for the second
//! time is kept with its table; when it comes again the table is cloned, whose strings the VM
//! already has. A block that is new goes to `shapes.rs`, which knows its names, or is made anew.
//!
//! Invariants
//! - A handler never gets a template itself.
//! - At most [`SLOTS`] blocks of [`BLOCK_BYTES_MAX`] bytes are kept, each as it came: another case
//!   or order is another block.
//!
//! Not here: what else a request is (`plain.rs`).

use super::Repeats;
use super::parts::Parts;
use super::shapes::Shapes;
use crate::vm::{Pin, Stack};

/// Blocks that are kept, by their hash.
const SLOTS: usize = 64;
/// Bytes of a block that is kept.
const BLOCK_BYTES_MAX: usize = 2048;
/// How many other blocks a used one outlives that fall on the same slot.
const CREDIT_MAX: u8 = 8;

/// The templates of one server.
#[derive(Debug)]
pub(super) struct Templates {
    repeats: Repeats,
    slots: Vec<Slot>,
    /// The slot of the block before: requests of one client come together.
    last: usize,
    shapes: Shapes,
}

#[derive(Debug, Default)]
struct Slot {
    hash: u64,
    credit: u8,
    kept: Option<(Box<[u8]>, Pin)>,
}

impl Templates {
    /// None yet.
    pub(super) fn new(repeats: Repeats) -> Self {
        Self {
            repeats,
            slots: Vec::new(),
            last: 0,
            shapes: Shapes::default(),
        }
    }

    /// Pushes the table of the fields of `request`, which belongs to whoever gets it.
    pub(super) fn push(&mut self, stack: &mut Stack<'_>, request: &impl Parts) {
        let block = request.field_lines();
        if block.is_empty() || block.len() > BLOCK_BYTES_MAX {
            return push_table(stack, request, self.repeats);
        }
        if let Some(Slot { kept, credit, .. }) = self.slots.get_mut(self.last) {
            if let Some((kept, pin)) = kept
                && **kept == *block
            {
                *credit = (*credit + 1).min(CREDIT_MAX);
                return stack.push_clone(pin);
            }
        } else {
            self.slots.resize_with(SLOTS, Slot::default);
        }
        let hash = hash(block);
        let at = usize::try_from(hash >> 58).unwrap_or(0) % SLOTS;
        self.last = at;
        let Some(slot) = self.slots.get_mut(at) else {
            return push_table(stack, request, self.repeats);
        };
        match &slot.kept {
            Some((kept, pin)) if slot.hash == hash && **kept == *block => {
                slot.credit = (slot.credit + 1).min(CREDIT_MAX);
                return stack.push_clone(pin);
            }
            Some(_) if slot.credit > 0 => slot.credit -= 1,
            _ if slot.hash == hash => {
                // For the second time.
                push_shaped(stack, request, &mut self.shapes, self.repeats);
                if let Ok(worker) = stack.worker() {
                    let top = stack.len();
                    let pin = stack.pin(top, worker.root.released());
                    stack.pop(1);
                    stack.push_clone(&pin);
                    slot.kept = Some((block.into(), pin));
                }
                return;
            }
            _ => {
                *slot = Slot {
                    hash,
                    ..Slot::default()
                };
            }
        }
        push_shaped(stack, request, &mut self.shapes, self.repeats);
    }
}

fn push_shaped(stack: &mut Stack<'_>, request: &impl Parts, shapes: &mut Shapes, repeats: Repeats) {
    let is_pushed = shapes.push(stack, request, |stack| push_table(stack, request, repeats));
    if !is_pushed {
        push_table(stack, request, repeats);
    }
}

fn push_table(stack: &mut Stack<'_>, request: &impl Parts, repeats: Repeats) {
    stack.push_texts(
        request.field_count(),
        request.fields(),
        |name, before, value| {
            let separator: &[u8] = match repeats {
                Repeats::Last => return None,
                Repeats::Comma => b",",
                Repeats::List if name == b"cookie" => b"; ",
                Repeats::List => b", ",
            };
            Some([before, separator, value].concat())
        },
    );
}

/// An odd number whose bits look random.
pub(super) const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Eight bytes at a time: who makes collisions on purpose gets what everybody got before.
fn hash(block: &[u8]) -> u64 {
    let mix = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(ODD);
    let (words, rest) = block.as_chunks::<8>();
    let whole = words.iter().fold(block.len() as u64, |hash, word| {
        mix(hash, u64::from_le_bytes(*word))
    });
    let tail = rest
        .iter()
        .fold(0, |word, byte| word << 8 | u64::from(*byte));
    let hash = mix(whole, tail);
    hash ^ hash >> 29
}
