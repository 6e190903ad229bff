//! Compressing and inflating messages. RFC 7692 §7.2.
//!
//! Sits beneath `deflate.rs`, over flate2. One [`Deflate`] belongs to one connection. A direction
//! without context takeover borrows its codec for one message at a time from a [`CodecPool`], so a
//! connection at rest owns none; a direction with takeover keeps its own from first use.
//!
//! Invariants
//! - Inflating stores at most a growth step beyond the limit, whatever the ratio.
//! - The verdict on a compressed message does not depend on how it is cut: of several faults, the
//!   one that stands first in the inflated bytes is reported.
//! - A compressed message that would not be shorter is not sent compressed, unless the peer's
//!   window must see it.
//!
//! Not here: the frame that carries a message (`message.rs`, `conn/websocket.rs`).

use super::{DeflateParams, DeflateSettings, WINDOW_BITS_MAX, WINDOW_BITS_MIN};
use crate::buffer::{BufferPool, PooledBuf};
use crate::violation::Violation;
use crate::ws::utf8::Utf8Stream;
use core::cell::RefCell;
use core::fmt;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::rc::Rc;

/// What a sender cuts off the end of a message and a receiver puts back. RFC 7692 §7.2.1.
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// An empty block with BFINAL set: ends a stream that stands between two blocks.
const FINAL_BLOCK: [u8; 5] = [0x01, 0x00, 0x00, 0xff, 0xff];

/// Room for the codec to write into, at least; a flush needs seven bytes to end.
const ROOM_BYTES_MIN: usize = 64;

/// Codecs at rest kept of each kind. One message at a time is compressed per thread; inflaters are
/// out while a compressed message is under way.
const KEPT_MAX: usize = 16;

/// Codecs between two messages, for connections that do not take their context over. A cheap
/// handle; clones share.
#[derive(Clone, Default)]
pub struct CodecPool(Rc<RefCell<AtRest>>);

#[derive(Default)]
struct AtRest {
    compressors: Vec<Compressor>,
    inflaters: Vec<Decompress>,
}

/// A compressor with what it was made for.
struct Compressor {
    level: u8,
    window_bits: u8,
    codec: Compress,
}

impl CodecPool {
    fn take_compressor(&self, level: u8, window_bits: u8) -> Compressor {
        let mut at_rest = self.0.borrow_mut();
        let fits = |kept: &Compressor| kept.level == level && kept.window_bits == window_bits;
        if let Some(index) = at_rest.compressors.iter().position(fits) {
            return at_rest.compressors.swap_remove(index);
        }
        let effort = Compression::new(u32::from(level));
        Compressor {
            level,
            window_bits,
            codec: Compress::new_with_window_bits(effort, false, window_bits),
        }
    }

    fn put_compressor(&self, mut compressor: Compressor) {
        compressor.codec.reset();
        let mut at_rest = self.0.borrow_mut();
        if at_rest.compressors.len() < KEPT_MAX {
            at_rest.compressors.push(compressor);
        }
    }

    /// An inflater with the largest window, which reads what any smaller one wrote.
    fn take_inflater(&self) -> Decompress {
        let kept = self.0.borrow_mut().inflaters.pop();
        kept.unwrap_or_else(|| Decompress::new_with_window_bits(false, WINDOW_BITS_MAX))
    }

    fn put_inflater(&self, mut inflater: Decompress) {
        inflater.reset(false);
        let mut at_rest = self.0.borrow_mut();
        if at_rest.inflaters.len() < KEPT_MAX {
            at_rest.inflaters.push(inflater);
        }
    }
}

impl fmt::Debug for CodecPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_rest = self.0.borrow();
        f.debug_struct("CodecPool")
            .field("compressors", &at_rest.compressors.len())
            .field("inflaters", &at_rest.inflaters.len())
            .finish()
    }
}

/// Both directions of one connection.
pub struct Deflate {
    params: DeflateParams,
    level: u8,
    compress_bytes_min: usize,
    codecs: CodecPool,
    /// Ours, while it is in use, or for good if our context is taken over.
    compressor: Option<Compressor>,
    /// The peer's, likewise.
    inflater: Option<Decompress>,
}

impl Deflate {
    /// The codecs of a connection that has agreed to `params`.
    pub fn new(settings: &DeflateSettings, params: DeflateParams) -> Self {
        Self {
            params,
            level: settings.level.clamp(1, 9),
            compress_bytes_min: settings.compress_bytes_min.max(1),
            codecs: settings.codecs.clone(),
            compressor: None,
            inflater: None,
        }
    }

    /// Whether a message compresses to the same bytes for every connection like this: it refers to
    /// no earlier one, and the window is the largest.
    pub fn is_shareable(&self) -> bool {
        let own = self.params.own;
        !own.context_takeover && own.window_bits == WINDOW_BITS_MAX
    }

    /// Compresses one whole message into a buffer of its own. None if it should be sent as it is:
    /// it is short, or would not get shorter. RFC 7692 §7.2.1.
    pub fn compress(&mut self, message: &[u8], pool: &BufferPool) -> Option<PooledBuf> {
        if message.len() < self.compress_bytes_min {
            return None;
        }
        let own = self.params.own;
        let mut compressor = self
            .compressor
            .take()
            .unwrap_or_else(|| self.codecs.take_compressor(self.level, own.window_bits));
        let mut compressed = pool.take(message.len().min(16 * 1024));
        let done = deflate(&mut compressor.codec, message, &mut compressed);
        if own.context_takeover && done {
            self.compressor = Some(compressor);
            return Some(compressed);
        }
        // A compressor that failed begins anew, and the message goes out as it is.
        self.codecs.put_compressor(compressor);
        (done && compressed.len() < message.len()).then_some(compressed)
    }

    /// Inflates the next piece of a message behind what `message` holds, and checks it if `utf8`
    /// is given. RFC 7692 §7.2.2.
    ///
    /// # Errors
    /// `Inflate` for corrupt data, `MessageTooLarge` beyond `bytes_max`, `TextNotUtf8`.
    pub fn inflate(
        &mut self,
        piece: &[u8],
        message: &mut PooledBuf,
        bytes_max: usize,
        utf8: Option<&mut Utf8Stream>,
    ) -> Result<(), Violation> {
        let mut inflater = self.inflater.take().unwrap_or_else(|| self.new_inflater());
        let start = message.len();
        let verdict = inflate(&mut inflater, piece, message, bytes_max);
        self.inflater = Some(inflater);
        let within = message.len().min(bytes_max);
        if let Some(utf8) = utf8 {
            utf8.receive(&message[start.min(within)..within])?;
        }
        if message.len() > bytes_max {
            return Err(Violation::MessageTooLarge);
        }
        verdict
    }

    /// Ends a message: whatever the peer has left to say of it is out already.
    ///
    /// # Errors
    /// `Inflate` if the data broke off inside a block.
    pub fn finish(&mut self, message: &mut PooledBuf) -> Result<(), Violation> {
        let mut inflater = self.inflater.take().unwrap_or_else(|| self.new_inflater());
        let len = message.len();
        let within = usize::MAX;
        inflate(&mut inflater, &TAIL, message, within)?;
        if !self.params.peer.context_takeover {
            // Only between two blocks does this end the stream. Where the window is kept the
            // stream must not end, and the length below has to do.
            message.make_room(ROOM_BYTES_MIN);
            let ended = inflater.decompress_vec(&FINAL_BLOCK, message, FlushDecompress::Sync);
            if !matches!(ended, Ok(Status::StreamEnd)) {
                return Err(Violation::Inflate);
            }
            self.codecs.put_inflater(inflater);
        } else {
            self.inflater = Some(inflater);
        }
        // The tail is an empty block: bytes that came of it belong to a block that was cut off.
        if message.len() != len {
            return Err(Violation::Inflate);
        }
        Ok(())
    }

    fn new_inflater(&self) -> Decompress {
        let peer = self.params.peer;
        if peer.context_takeover && peer.window_bits < WINDOW_BITS_MAX {
            // Kept for good, so no larger than agreed.
            Decompress::new_with_window_bits(false, peer.window_bits.max(WINDOW_BITS_MIN))
        } else {
            self.codecs.take_inflater()
        }
    }
}

impl fmt::Debug for Deflate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflate")
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}

/// Compresses `message` to the end of a block, without the tail. False if the codec failed.
fn deflate(codec: &mut Compress, message: &[u8], compressed: &mut PooledBuf) -> bool {
    let mut rest = message;
    loop {
        compressed.make_room(ROOM_BYTES_MIN);
        let before = codec.total_in();
        let Ok(status) = codec.compress_vec(rest, compressed, FlushCompress::Sync) else {
            return false;
        };
        let Ok(taken) = usize::try_from(codec.total_in() - before) else {
            return false;
        };
        rest = rest.get(taken..).unwrap_or_default();
        // The flush is complete when all input is taken and room is left.
        if rest.is_empty() && (compressed.spare() > 0 || status == Status::BufError) {
            break;
        }
    }
    let Some(content) = compressed.strip_suffix(&TAIL) else {
        return false;
    };
    let len = content.len();
    compressed.truncate(len);
    true
}

/// Inflates `piece` until it is used up and nothing more comes of it, or `bytes_max` is passed.
fn inflate(
    codec: &mut Decompress,
    piece: &[u8],
    message: &mut PooledBuf,
    bytes_max: usize,
) -> Result<(), Violation> {
    let mut rest = piece;
    loop {
        if message.spare() < ROOM_BYTES_MIN {
            message.make_room(ROOM_BYTES_MIN);
        }
        let before = codec.total_in();
        let status = codec.decompress_vec(rest, message, FlushDecompress::Sync);
        let taken = usize::try_from(codec.total_in() - before).unwrap_or(rest.len());
        rest = rest.get(taken..).unwrap_or_default();
        if message.len() > bytes_max {
            return Err(Violation::MessageTooLarge);
        }
        match status {
            Err(_) => return Err(Violation::Inflate),
            // A block with BFINAL set ends the stream but not the message: §7.2.3.4. What follows
            // begins a new stream, and with it an empty window.
            Ok(Status::StreamEnd) => codec.reset(false),
            Ok(Status::Ok | Status::BufError) if message.spare() == 0 => {}
            Ok(Status::Ok | Status::BufError) if !rest.is_empty() && taken == 0 => {
                return Err(Violation::Inflate);
            }
            Ok(Status::Ok | Status::BufError) => {}
        }
        if rest.is_empty() && message.spare() > 0 {
            return Ok(());
        }
    }
}
