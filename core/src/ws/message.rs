//! Frames to messages: fragments joined, control frames between them, text checked. RFC 6455 §5.4.
//!
//! Sits in the protocol layer above `frame.rs`, `mask.rs` and `utf8.rs`. The caller owns the
//! segment; payload is unmasked in it. A message or control frame that lies in one piece inside
//! the segment is a range of it; any other is put together in one pooled buffer, which is given
//! away whole.
//!
//! Invariants
//! - Payload is consumed as it arrives; at most part of a header, 13 bytes, is left.
//! - What comes out does not depend on how the input is cut, except for where its bytes are.
//! - Memory grows with what has arrived, never with what a header merely announces.
//! - A control frame in pieces stands behind the message's bytes in the same buffer, and is taken
//!   off when it is whole: data cannot arrive meanwhile.
//! - After an `Err` the decoder is of no more use; `reset` gives its buffer back.
//!
//! Not here: answers to control frames, timeouts, the closing handshake (`conn/websocket.rs`).

use super::deflate::Deflate;
use super::frame::{FrameHeader, decode_first_byte, decode_header};
use super::mask::{apply_mask, rotate_key};
use super::utf8::{Utf8Stream, is_utf8};
use super::{MessageKind, Opcode, Role};
use crate::buffer::{BufferPool, PooledBuf};
use crate::violation::Violation;
use core::ops::Range;

/// The most that is set aside for a message before its bytes are there.
const FIRST_BYTES_MAX: usize = 16 * 1024;

/// Payload bytes that allow a message one more fragment than `fragments_max`.
const BYTES_PER_FRAGMENT: u64 = 16;

/// What a peer must keep to, beside the syntax.
#[derive(Clone, Copy, Debug)]
pub struct MessageRules {
    /// Which end we are.
    pub role: Role,
    /// Bytes of one message. Over it: `MessageTooLarge`, as soon as a header announces it.
    pub message_bytes_max: u32,
    /// Fragments of one message before its bytes must have earned more, one for each 16 bytes.
    /// Over it: `TooManyFragments`.
    pub fragments_max: u32,
}

/// Something whole that came out of the frames.
#[derive(Debug)]
pub enum Received {
    /// A fragment, kept until those behind it have come.
    Fragment,
    /// A message, unmasked in place.
    Message {
        /// Text is known to be UTF-8.
        kind: MessageKind,
        /// Where in the segment.
        range: Range<usize>,
    },
    /// A message put together from pieces.
    Assembled {
        /// Text is known to be UTF-8.
        kind: MessageKind,
        /// All of it.
        bytes: PooledBuf,
    },
    /// A control frame, unmasked in place.
    Control {
        /// `Close`, `Ping` or `Pong`.
        opcode: Opcode,
        /// Where in the segment; at most 125 bytes.
        range: Range<usize>,
    },
    /// A control frame put together from pieces.
    AssembledControl {
        /// `Close`, `Ping` or `Pong`.
        opcode: Opcode,
        /// All of it, at most 125 bytes.
        bytes: PooledBuf,
    },
}

/// The frame whose payload is arriving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    /// The next byte begins a header.
    None,
    Data {
        fin: bool,
    },
    /// A control frame, with the bytes of it that stand at the end of the assembly.
    Control {
        opcode: Opcode,
        assembled: u8,
    },
}

/// Turns the bytes of one direction into messages and control frames.
#[derive(Debug)]
pub struct MessageDecoder {
    /// The message so far, then the control frame so far.
    assembly: Option<PooledBuf>,
    /// Payload bytes of `frame` still to come.
    left: u32,
    /// Its masking key as it applies to the next of them. Zeros where nothing is masked.
    key: [u8; 4],
    /// Fragments of the message so far.
    fragments: u32,
    utf8: Utf8Stream,
    /// What the message under way holds; none between messages.
    kind: Option<MessageKind>,
    /// Whether it is compressed: RSV1 of its first frame.
    compressed: bool,
    frame: Frame,
}

impl Default for MessageDecoder {
    fn default() -> Self {
        Self {
            assembly: None,
            left: 0,
            key: [0; 4],
            fragments: 0,
            utf8: Utf8Stream::default(),
            kind: None,
            compressed: false,
            frame: Frame::None,
        }
    }
}

impl MessageDecoder {
    /// Decodes from `segment[*at..]` up to the end of the next frame, and moves `at` behind what it
    /// used. `Ok(None)`: nothing whole is left, and what stands behind `at` is part
    /// of a header, to be offered again with more behind it. `deflate` is there if
    /// permessage-deflate was agreed.
    ///
    /// # Errors
    /// Any violation fails the connection with its close code.
    #[inline]
    pub fn next(
        &mut self,
        segment: &mut [u8],
        at: &mut usize,
        rules: MessageRules,
        pool: &BufferPool,
        mut deflate: Option<&mut Deflate>,
    ) -> Result<Option<Received>, Violation> {
        if self.frame == Frame::None {
            let rest = segment.get(*at..).unwrap_or_default();
            let Some(&first) = rest.first() else {
                return Ok(None);
            };
            self.check_sequence(first, deflate.is_some())?;
            let Some(header) = decode_header(rest, rules.role)? else {
                return Ok(None);
            };
            self.check_budget(&header, rules)?;
            *at += usize::from(header.header_len);
            if let Some(received) = self.receive_in_place(&header, segment, at)? {
                return Ok(Some(received));
            }
            self.begin_frame(&header);
        }
        let available = segment.len() - *at;
        let take = usize::try_from(self.left).map_or(available, |left| left.min(available));
        let range = *at..*at + take;
        *at = range.end;
        self.receive_piece(&mut segment[range], rules, pool, deflate.as_deref_mut())?;
        if self.left > 0 {
            return Ok(None);
        }
        self.finish_frame(pool, deflate).map(Some)
    }

    /// Bytes of memory held for what is unfinished.
    pub fn assembled_capacity(&self) -> usize {
        self.assembly.as_ref().map_or(0, |bytes| bytes.capacity())
    }

    /// Drops what is unfinished; its buffer goes back to the pool.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// What the first byte of a frame breaks, so that no later byte is awaited.
    #[inline]
    fn check_sequence(&self, first: u8, may_compress: bool) -> Result<(), Violation> {
        let first = decode_first_byte(first)?;
        let begins_message = matches!(first.opcode, Opcode::Text | Opcode::Binary);
        if first.compressed && !(may_compress && begins_message) {
            return Err(Violation::ReservedBit);
        }
        match (first.opcode, self.kind) {
            (Opcode::Continuation, None) => Err(Violation::ContinuationUnexpected),
            (Opcode::Text | Opcode::Binary, Some(_)) => Err(Violation::ContinuationExpected),
            _ => Ok(()),
        }
    }

    /// What the announced length breaks: checked before any of the payload is stored.
    #[inline]
    fn check_budget(&self, header: &FrameHeader, rules: MessageRules) -> Result<(), Violation> {
        if header.opcode.is_control() {
            return Ok(());
        }
        let assembled = self.assembly.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let budget = if header.compressed || self.compressed {
            // What it inflates to is counted as it comes; this only keeps `left` in its type.
            u64::from(u32::MAX)
        } else {
            u64::from(rules.message_bytes_max).saturating_sub(assembled)
        };
        if header.payload_len > budget {
            return Err(Violation::MessageTooLarge);
        }
        let earned = u64::from(rules.fragments_max).saturating_add(assembled / BYTES_PER_FRAGMENT);
        if u64::from(self.fragments) >= earned {
            return Err(Violation::TooManyFragments);
        }
        Ok(())
    }

    /// The usual case: the frame is whole in the segment and needs no other. `at` is behind its
    /// header, and is moved behind its payload if there was something to receive.
    #[inline]
    fn receive_in_place(
        &mut self,
        header: &FrameHeader,
        segment: &mut [u8],
        at: &mut usize,
    ) -> Result<Option<Received>, Violation> {
        if header.compressed {
            return Ok(None);
        }
        let start = *at;
        let payload = usize::try_from(header.payload_len)
            .ok()
            .and_then(|len| segment.get_mut(start..)?.get_mut(..len));
        let Some(payload) = payload else {
            return Ok(None);
        };
        let range = start..start + payload.len();
        let kind = match header.opcode {
            Opcode::Text if header.fin => MessageKind::Text,
            Opcode::Binary if header.fin => MessageKind::Binary,
            opcode if opcode.is_control() => {
                unmask(payload, header.mask);
                *at = range.end;
                return Ok(Some(Received::Control { opcode, range }));
            }
            _ => return Ok(None),
        };
        unmask(payload, header.mask);
        if kind == MessageKind::Text && !is_utf8(payload) {
            return Err(Violation::TextNotUtf8);
        }
        *at = range.end;
        Ok(Some(Received::Message { kind, range }))
    }

    fn begin_frame(&mut self, header: &FrameHeader) {
        // `check_budget` bounded data by a `u32`, `decode_header` control frames by 125.
        self.left = u32::try_from(header.payload_len).unwrap_or(u32::MAX);
        self.key = header.mask.unwrap_or_default();
        let fin = header.fin;
        self.frame = match header.opcode {
            opcode @ (Opcode::Close | Opcode::Ping | Opcode::Pong) => Frame::Control {
                opcode,
                assembled: 0,
            },
            Opcode::Text => {
                self.kind = Some(MessageKind::Text);
                Frame::Data { fin }
            }
            Opcode::Binary => {
                self.kind = Some(MessageKind::Binary);
                Frame::Data { fin }
            }
            Opcode::Continuation => Frame::Data { fin },
        };
        if let Frame::Data { .. } = self.frame {
            self.fragments += 1;
            self.compressed |= header.compressed;
        }
    }

    /// Stores the next piece of the frame's payload; of text, only after checking it.
    fn receive_piece(
        &mut self,
        piece: &mut [u8],
        rules: MessageRules,
        pool: &BufferPool,
        deflate: Option<&mut Deflate>,
    ) -> Result<(), Violation> {
        if piece.is_empty() {
            return Ok(());
        }
        apply_mask(piece, self.key, 0);
        self.key = rotate_key(self.key, piece.len() as u64);
        let left = self.left;
        // No piece is longer than what is left.
        self.left -= u32::try_from(piece.len()).unwrap_or(left);
        let is_text = self.kind == Some(MessageKind::Text);
        match &mut self.frame {
            Frame::Control { assembled, .. } => {
                // At most 125 in all.
                *assembled += u8::try_from(piece.len()).unwrap_or(u8::MAX);
            }
            _ if self.compressed => {
                let utf8 = is_text.then_some(&mut self.utf8);
                let message = self.assembly.get_or_insert_with(|| pool.take(0));
                let bytes_max = usize::try_from(rules.message_bytes_max).unwrap_or(usize::MAX);
                // RSV1 was refused where nothing was agreed, so there is a codec.
                return deflate
                    .ok_or(Violation::ReservedBit)?
                    .inflate(piece, message, bytes_max, utf8);
            }
            _ if is_text => self.utf8.receive(piece)?,
            _ => {}
        }
        self.assemble(piece, left, pool);
        Ok(())
    }

    /// Appends `piece` to the assembly, where `left` bytes were announced, these included.
    fn assemble(&mut self, piece: &[u8], left: u32, pool: &BufferPool) {
        let announced = usize::try_from(left).unwrap_or(usize::MAX);
        let assembly = self
            .assembly
            .get_or_insert_with(|| pool.take(announced.min(piece.len().max(FIRST_BYTES_MAX))));
        if assembly.spare() < piece.len() {
            // Room for what is announced, if three times as much is there: each byte is moved once
            // or twice, and a peer that announces much and sends little ties up little.
            let assembled = assembly.len() + piece.len();
            assembly.make_room(announced.min(assembled.saturating_mul(3)).max(piece.len()));
        }
        assembly.append(piece);
    }

    /// Ends a frame whose payload is all there.
    fn finish_frame(
        &mut self,
        pool: &BufferPool,
        deflate: Option<&mut Deflate>,
    ) -> Result<Received, Violation> {
        match core::mem::replace(&mut self.frame, Frame::None) {
            Frame::None | Frame::Data { fin: false } => Ok(Received::Fragment),
            Frame::Data { fin: true } => {
                let mut bytes = self.assembly.take().unwrap_or_else(|| pool.take(0));
                if core::mem::take(&mut self.compressed)
                    && let Some(deflate) = deflate
                {
                    deflate.finish(&mut bytes)?;
                }
                self.utf8.finish()?;
                self.fragments = 0;
                let kind = self.kind.take().unwrap_or(MessageKind::Binary);
                Ok(Received::Assembled { kind, bytes })
            }
            Frame::Control { opcode, assembled } => {
                let bytes = self.take_control(usize::from(assembled), pool);
                Ok(Received::AssembledControl { opcode, bytes })
            }
        }
    }

    /// Takes the control frame's bytes off the end of the assembly.
    fn take_control(&mut self, len: usize, pool: &BufferPool) -> PooledBuf {
        if self.kind.is_none() {
            // No message is under way: the assembly holds nothing else.
            return self.assembly.take().unwrap_or_else(|| pool.take(0));
        }
        let mut control = pool.take(len);
        if let Some(assembly) = &mut self.assembly {
            let start = assembly.len().saturating_sub(len);
            control.extend_from_slice(&assembly[start..]);
            assembly.truncate(start);
        }
        control
    }
}

#[inline]
fn unmask(payload: &mut [u8], mask: Option<[u8; 4]>) {
    if let Some(key) = mask {
        apply_mask(payload, key, 0);
    }
}
