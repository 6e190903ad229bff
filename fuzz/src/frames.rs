//! WebSocket frames for several targets: what our decoder makes of them, and a naive reading of
//! RFC 6455 §5 and RFC 7692 §7.2.2 to hold it against.
//!
//! The model looks at whole frames over the whole input and inflates with miniz_oxide, where the
//! crate uses zlib-rs. It was not written by the decoder's author, and shares nothing with it.

use hukilau_core::buffer::BufferPool;
use hukilau_core::violation::Violation;
use hukilau_core::ws::deflate::Deflate;
use hukilau_core::ws::message::{MessageDecoder, MessageRules, Received};
use hukilau_core::ws::{MessageKind, Opcode, Role};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use std::ops::Range;

/// A message or a control frame, with its bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// A whole message.
    Message(MessageKind, Vec<u8>),
    /// A control frame.
    Control(Opcode, Vec<u8>),
}

/// What a decoder holds at most for an unfinished message: a growth step beyond the bound, and
/// the largest class of the pool in any case.
pub fn capacity_max(rules: MessageRules) -> usize {
    let bytes_max = rules.message_bytes_max as usize;
    (2 * (bytes_max + 64)).max(64 * 1024 + 256)
}

/// What the decoder says for `bytes` cut so, up to the first violation.
pub fn decode(
    bytes: &[u8],
    cuts: &[Range<usize>],
    rules: MessageRules,
    mut deflate: Option<Deflate>,
) -> (Vec<Said>, Option<Violation>) {
    let pool = BufferPool::default();
    let (mut decoder, mut said) = (MessageDecoder::default(), Vec::new());
    let result = crate::drive(bytes, cuts, |segment| {
        let mut at = 0;
        while let Some(received) = decoder.next(segment, &mut at, rules, &pool, deflate.as_mut())? {
            said.push(match received {
                Received::Fragment => continue,
                Received::Message { kind, range } => Said::Message(kind, segment[range].to_vec()),
                Received::Assembled { kind, bytes } => Said::Message(kind, bytes.to_vec()),
                Received::Control { opcode, range } => {
                    Said::Control(opcode, segment[range].to_vec())
                }
                Received::AssembledControl { opcode, bytes } => {
                    Said::Control(opcode, bytes.to_vec())
                }
            });
            if let Some(Said::Message(_, message)) = said.last() {
                assert!(message.len() <= rules.message_bytes_max as usize);
            }
        }
        assert!(segment.len() - at <= 13, "payload is consumed as it comes");
        assert!(decoder.assembled_capacity() <= capacity_max(rules));
        Ok::<usize, Violation>(at)
    });
    decoder.reset();
    drop(deflate);
    assert_eq!(pool.taken(), 0, "no buffer stays behind");
    (said, result.err())
}

/// The peer broke a rule; which one, the model does not say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refused;

/// A frame as it stands on the wire, unmasked.
struct Frame {
    fin: bool,
    compressed: bool,
    opcode: u8,
    payload: Vec<u8>,
}

/// An unfinished message.
struct Open {
    kind: MessageKind,
    /// As received.
    bytes: Vec<u8>,
    fragments: u64,
    compressed: bool,
}

/// RFC 6455 §5 read aloud over the whole input: the messages, and whether a whole frame broke a
/// rule. With an `inflater`, permessage-deflate was agreed.
///
/// How many bytes an inflater has put out in the middle of a message, and how early it finds a
/// fault, is its own affair: a compressed message is inflated when it is whole, and the budget of
/// fragments is not applied to it.
pub fn model(
    input: &[u8],
    rules: MessageRules,
    mut inflater: Option<Inflater>,
) -> (Vec<Said>, bool) {
    let (mut said, mut open, mut rest) = (Vec::new(), None, input);
    loop {
        let frame = match next_frame(&mut rest, rules, open.as_ref(), inflater.is_some()) {
            Ok(Some(frame)) => frame,
            Ok(None) => return (said, false),
            Err(Refused) => return (said, true),
        };
        let heard = match frame.opcode {
            8 => Ok(Some(Said::Control(Opcode::Close, frame.payload))),
            9 => Ok(Some(Said::Control(Opcode::Ping, frame.payload))),
            10 => Ok(Some(Said::Control(Opcode::Pong, frame.payload))),
            _ => join(frame, &mut open, rules, inflater.as_mut()),
        };
        match heard {
            Ok(heard) => said.extend(heard),
            Err(Refused) => return (said, true),
        }
    }
}

/// Takes the next whole frame off `rest`; none if there is no whole one left.
fn next_frame(
    rest: &mut &[u8],
    rules: MessageRules,
    open: Option<&Open>,
    may_compress: bool,
) -> Result<Option<Frame>, Refused> {
    let [first, second, after @ ..] = *rest else {
        return Ok(None);
    };
    let (fin, opcode, masked) = (first >> 7 == 1, first & 0xf, second >> 7 == 1);
    let compressed = first & 0x40 != 0;
    let length_bytes = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask_bytes = if masked { 4 } else { 0 };
    if after.len() < length_bytes + mask_bytes {
        return Ok(None);
    }
    let long = after[..length_bytes]
        .iter()
        .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let length = if length_bytes == 0 {
        u64::from(second & 0x7f)
    } else {
        long
    };
    let minimal = match length_bytes {
        0 => true,
        2 => length >= 126,
        _ => length >= 65_536,
    };
    let is_control = opcode >= 8;
    let sequence_is_wrong = match (opcode, open) {
        (0, None) | (1 | 2, Some(_)) => true,
        _ => matches!(opcode, 3..=7 | 11..),
    };
    if first & 0x30 != 0
        || compressed && !(may_compress && matches!(opcode, 1 | 2))
        || masked != (rules.role == Role::Server)
        || !minimal
        || length >> 63 == 1
        || is_control && (!fin || length > 125)
        || sequence_is_wrong
    {
        return Err(Refused);
    }
    let is_plain = !compressed && !open.is_some_and(|open| open.compressed);
    if !is_control && is_plain {
        let assembled = open.map_or(0, |open| open.bytes.len() as u64);
        let fragments = open.map_or(0, |open| open.fragments);
        if length > u64::from(rules.message_bytes_max) - assembled
            || fragments >= u64::from(rules.fragments_max) + assembled / 16
        {
            return Err(Refused);
        }
    }
    let (key, behind) = after[length_bytes..].split_at(mask_bytes);
    let Some(payload) = usize::try_from(length)
        .ok()
        .and_then(|len| behind.get(..len))
    else {
        return Ok(None);
    };
    *rest = &behind[payload.len()..];
    let masked = payload.iter().enumerate();
    let payload = masked
        .map(|(at, byte)| byte ^ key.get(at % 4).copied().unwrap_or_default())
        .collect();
    Ok(Some(Frame {
        fin,
        compressed,
        opcode,
        payload,
    }))
}

/// Adds a data frame to its message; the message if it is the last.
fn join(
    frame: Frame,
    open: &mut Option<Open>,
    rules: MessageRules,
    inflater: Option<&mut Inflater>,
) -> Result<Option<Said>, Refused> {
    let mut message = open.take().unwrap_or(Open {
        kind: if frame.opcode == 1 {
            MessageKind::Text
        } else {
            MessageKind::Binary
        },
        bytes: Vec::new(),
        fragments: 0,
        compressed: frame.compressed,
    });
    message.bytes.extend(frame.payload);
    if message.compressed && !frame.fin {
        message.fragments += 1;
        *open = Some(message);
        return Ok(None);
    }
    if let (Some(inflater), true) = (inflater, message.compressed) {
        let compressed = std::mem::take(&mut message.bytes);
        let bytes_max = rules.message_bytes_max as usize;
        inflater.inflate(&compressed, &mut message.bytes, bytes_max)?;
        inflater.end_message(&mut message.bytes)?;
    }
    let is_bad_text = match std::str::from_utf8(&message.bytes) {
        Ok(_) => false,
        // A character cut by the end of a fragment may yet be completed.
        Err(error) => frame.fin || error.error_len().is_some(),
    };
    if message.kind == MessageKind::Text && is_bad_text {
        return Err(Refused);
    }
    if frame.fin {
        return Ok(Some(Said::Message(message.kind, message.bytes)));
    }
    message.fragments += 1;
    *open = Some(message);
    Ok(None)
}

/// Another inflater than the crate's, over everything that came before.
pub struct Inflater {
    codec: Box<DecompressorOxide>,
    context_takeover: bool,
    /// All that the present stream has put out, and room behind it.
    out: Vec<u8>,
    len: usize,
}

impl Inflater {
    /// For a direction of which this was agreed.
    pub fn new(context_takeover: bool) -> Self {
        Self {
            codec: Box::default(),
            context_takeover,
            out: vec![0; 1024],
            len: 0,
        }
    }

    fn restart(&mut self) {
        *self = Self::new(self.context_takeover);
    }

    /// Inflates `piece` behind `message`.
    fn inflate(
        &mut self,
        piece: &[u8],
        message: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<(), Refused> {
        let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF
            | inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
        let mut rest = piece;
        loop {
            let start = self.len;
            let (status, taken, put) =
                decompress(&mut self.codec, rest, &mut self.out, self.len, flags);
            rest = &rest[taken..];
            self.len += put;
            message.extend(&self.out[start..self.len]);
            if message.len() > bytes_max {
                return Err(Refused);
            }
            match status {
                // What follows a final block is a stream of its own (RFC 7692 §7.2.3.4).
                TINFLStatus::Done => self.restart(),
                TINFLStatus::HasMoreOutput => {
                    let len = self.out.len() * 2;
                    self.out.resize(len, 0);
                    continue;
                }
                TINFLStatus::NeedsMoreInput => {}
                _ => return Err(Refused),
            }
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Puts back what the sender cut off, of which nothing may come.
    fn end_message(&mut self, message: &mut Vec<u8>) -> Result<(), Refused> {
        let bytes_max = message.len();
        self.inflate(&[0, 0, 0xff, 0xff], message, bytes_max)?;
        if !self.context_takeover {
            // Only between two blocks does an empty final one end the stream.
            let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
            let last = [0x01, 0, 0, 0xff, 0xff];
            self.out.resize(self.len + 8, 0);
            let (status, _, put) =
                decompress(&mut self.codec, &last, &mut self.out, self.len, flags);
            self.restart();
            if status != TINFLStatus::Done || put > 0 {
                return Err(Refused);
            }
        }
        Ok(())
    }
}
