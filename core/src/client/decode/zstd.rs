//! Zstandard as a stage of [`Decoder`](super::Decoder). RFC 8878, RFC 9659.
//!
//! Sits over the crate `ruzstd`, which decodes whole blocks: what is fed is gathered here until a
//! header or a block is complete, at most 128 KiB. Content comes out as it leaves the window, so a
//! streamed body may lag behind by as much as its window.
//!
//! ```text
//!   Header ── skippable frame ──▶ Skip ── its end ──▶ Header
//!     └── frame ──▶ Block ── decoded ──▶ Drain ── dry ──▶ Block, or Header after the last
//! ```
//!
//! Invariants
//! - No window over 8 MiB, as RFC 9659 §3 bounds it for content codings.
//! - A frame with a checksum is whole only if it fits.
//!
//! Not here: bounds on the size of the content (`decode.rs`).

use super::{Fault, Step};
use ruzstd::decoding::errors::FrameDecoderError;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::io::Read;

/// RFC 9659 §3.
const WINDOW_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// RFC 8878 §3.1.1.2.4.
const BLOCK_BYTES_MAX: usize = 128 * 1024;
/// RFC 8878 §3.1.1.
const MAGIC: u32 = 0xfd2f_b528;
/// RFC 8878 §3.1.2: sixteen of them.
const SKIPPABLE_MAGIC: u32 = 0x184d_2a50;

/// The state of one stream.
pub(super) struct Zstd {
    frame: FrameDecoder,
    /// The part of a header or block that has come.
    gathered: Vec<u8>,
    state: State,
    has_checksum: bool,
    /// At least one frame is whole.
    any: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    Skip { left: u32 },
    Block,
    Drain { is_last: bool },
}

impl Zstd {
    pub(super) fn new() -> Self {
        let mut frame = FrameDecoder::new();
        frame.set_max_window_size(WINDOW_BYTES_MAX);
        Self {
            frame,
            gathered: Vec::new(),
            state: State::Header,
            has_checksum: false,
            any: false,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.any && self.state == State::Header && self.gathered.is_empty()
    }

    pub(super) fn run(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step, Fault> {
        let mut consumed = 0;
        loop {
            let rest = &input[consumed..];
            match self.state {
                State::Drain { is_last } => {
                    let yielded = self.frame.read(out).map_err(|_| Fault::Corrupt)?;
                    if yielded > 0 {
                        return Ok(Step { consumed, yielded });
                    }
                    self.state = if is_last {
                        self.end_frame()?
                    } else {
                        State::Block
                    };
                }
                State::Skip { left } => {
                    let left = left as usize;
                    let skipped = left.min(rest.len());
                    consumed += skipped;
                    let left = u32::try_from(left - skipped).unwrap_or(u32::MAX);
                    if left > 0 {
                        self.state = State::Skip { left };
                        return Ok(Step {
                            consumed,
                            yielded: 0,
                        });
                    }
                    self.any = true;
                    self.state = State::Header;
                }
                State::Header | State::Block => match self.gather(rest)? {
                    (taken, true) => consumed += taken,
                    (taken, false) => {
                        return Ok(Step {
                            consumed: consumed + taken,
                            yielded: 0,
                        });
                    }
                },
            }
        }
    }

    /// Gathers the header or block that is due, and acts on it once it is whole. Returns how much
    /// of `input` it took, and whether there was enough.
    fn gather(&mut self, input: &[u8]) -> Result<(usize, bool), Fault> {
        let mut taken = 0;
        loop {
            let wanted = match self.state {
                State::Header => self.header_len()?,
                _ => self.block_len()?,
            };
            let missing = wanted.saturating_sub(self.gathered.len());
            if missing == 0 {
                self.act()?;
                self.gathered.clear();
                return Ok((taken, true));
            }
            let rest = &input[taken..];
            if rest.is_empty() {
                return Ok((taken, false));
            }
            let part = missing.min(rest.len());
            self.gathered.extend_from_slice(&rest[..part]);
            taken += part;
        }
    }

    /// Bytes that the header takes, as far as what is here can tell.
    fn header_len(&self) -> Result<usize, Fault> {
        let Some(magic) = self.gathered.first_chunk() else {
            return Ok(4);
        };
        let magic = u32::from_le_bytes(*magic);
        if magic & !15 == SKIPPABLE_MAGIC {
            return Ok(8);
        }
        if magic != MAGIC {
            let is_first = !self.any;
            return Err(if is_first {
                Fault::Corrupt
            } else {
                Fault::Trailing
            });
        }
        let Some(descriptor) = self.gathered.get(4) else {
            return Ok(5);
        };
        // RFC 8878 §3.1.1.1.1.4: a reserved bit.
        if descriptor & 8 != 0 {
            return Err(Fault::Corrupt);
        }
        let single_segment = descriptor & 32 != 0;
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let content_size = match descriptor >> 6 {
            0 => usize::from(single_segment),
            log => 1 << log,
        };
        Ok(5 + usize::from(!single_segment) + dictionary + content_size)
    }

    /// Bytes that the block takes with its header, and with the checksum behind the last.
    fn block_len(&self) -> Result<usize, Fault> {
        let Some([first, second, third]) = self.gathered.first_chunk() else {
            return Ok(3);
        };
        let header = u32::from_le_bytes([*first, *second, *third, 0]);
        let size = (header >> 3) as usize;
        if size > BLOCK_BYTES_MAX {
            return Err(Fault::Corrupt);
        }
        let content = match (header >> 1) & 3 {
            // A byte to be repeated.
            1 => 1,
            _ => size,
        };
        let checksum = if header & 1 == 1 && self.has_checksum {
            4
        } else {
            0
        };
        Ok(3 + content + checksum)
    }

    /// Does what the header or block that has been gathered says.
    fn act(&mut self) -> Result<(), Fault> {
        if self.state == State::Block {
            let strategy = BlockDecodingStrategy::UptoBlocks(1);
            let is_last = self.frame.decode_blocks(&self.gathered[..], strategy);
            let is_last = is_last.map_err(|_| Fault::Corrupt)?;
            self.state = State::Drain { is_last };
            return Ok(());
        }
        if let [_, _, _, _, length @ ..] = &self.gathered[..]
            && let [a, b, c, d] = length
            && self.gathered[0] & !15 == 0x50
        {
            let left = u32::from_le_bytes([*a, *b, *c, *d]);
            self.state = State::Skip { left };
            return Ok(());
        }
        self.has_checksum = self
            .gathered
            .get(4)
            .is_some_and(|descriptor| descriptor & 4 != 0);
        match self.frame.reset(&self.gathered[..]) {
            Ok(()) => self.state = State::Block,
            Err(FrameDecoderError::WindowSizeTooBig { .. }) => return Err(Fault::Window),
            Err(_) => return Err(Fault::Corrupt),
        }
        Ok(())
    }

    fn end_frame(&mut self) -> Result<State, Fault> {
        let said = self.frame.get_checksum_from_data();
        if said.is_some() && said != self.frame.get_calculated_checksum() {
            return Err(Fault::Corrupt);
        }
        self.any = true;
        Ok(State::Header)
    }
}
