//! Brotli as a stage of [`Decoder`](super::Decoder). RFC 7932.
//!
//! Sits over the crate `brotli-decompressor`, which is safe Rust and keeps its window (at most
//! 16 MiB) itself; the window grows with the content, so a small body costs little.
//!
//! Invariants
//! - Only what RFC 7932 allows: the large windows of later encoders are refused (§9.1).
//!
//! Not here: bounds on the size of the content (`decode.rs`).

use super::{Fault, Step};
use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};

/// The state of one stream.
pub(super) struct Brotli {
    state: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    ended: bool,
}

impl Brotli {
    pub(super) fn new() -> Self {
        let alloc = StandardAlloc::default;
        Self {
            state: BrotliState::new_strict(alloc(), alloc(), alloc()),
            ended: false,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn run(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step, Fault> {
        if self.ended {
            return match input {
                [] => Ok(Step::default()),
                _ => Err(Fault::Trailing),
            };
        }
        let (mut input_left, mut consumed) = (input.len(), 0);
        let (mut room, mut yielded) = (out.len(), 0);
        let mut total = 0;
        let result = BrotliDecompressStream(
            &mut input_left,
            &mut consumed,
            input,
            &mut room,
            &mut yielded,
            out,
            &mut total,
            &mut self.state,
        );
        match result {
            BrotliResult::ResultFailure => return Err(Fault::Corrupt),
            BrotliResult::ResultSuccess => self.ended = true,
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
        }
        Ok(Step { consumed, yielded })
    }
}
