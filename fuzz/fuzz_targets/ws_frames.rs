//! WebSocket frames and messages: any cut gives the same messages and the same violation, a naive
//! reading of RFC 6455 over the whole input agrees, headers survive a round trip.
#![no_main]

use hukilau_core::buffer::BufferPool;
use hukilau_core::violation::Violation;
use hukilau_core::ws::frame::{decode_header, encode_header};
use hukilau_core::ws::message::{MessageDecoder, MessageRules, Received};
use hukilau_core::ws::{MessageKind, Opcode, Role};
use hukilau_fuzz::{drive, pieces, seeded};
use libfuzzer_sys::fuzz_target;

/// A message or a control frame, with its bytes.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Message(MessageKind, Vec<u8>),
    Control(Opcode, Vec<u8>),
}

const MESSAGE_BYTES_MAX: u32 = 300;
const FRAGMENTS_MAX: u32 = 6;

fuzz_target!(|data: &[u8]| {
    let Some((mut seed, bytes)) = seeded(data) else {
        return;
    };
    for role in [Role::Server, Role::Client] {
        let whole = decode(role, bytes, &[0..bytes.len()]);
        let cuts = pieces(bytes.len(), &mut seed);
        assert_eq!(
            decode(role, bytes, &cuts),
            whole,
            "{role:?}: the cut changed the meaning"
        );
        let (said, violation) = whole;
        let (model_said, model_refuses) = model(role, bytes);
        assert_eq!(said, model_said, "{role:?}: the model heard something else");
        // The decoder may refuse earlier than the model, which looks at whole frames only.
        assert!(
            violation.is_some() || !model_refuses,
            "{role:?}: only the model refuses"
        );
        header_round_trip(role, bytes);
    }
});

/// What the decoder says for `bytes` cut so, up to the first violation.
fn decode(
    role: Role,
    bytes: &[u8],
    cuts: &[std::ops::Range<usize>],
) -> (Vec<Said>, Option<Violation>) {
    let pool = BufferPool::default();
    let rules = MessageRules {
        role,
        message_bytes_max: MESSAGE_BYTES_MAX,
        fragments_max: FRAGMENTS_MAX,
    };
    let (mut decoder, mut said) = (MessageDecoder::default(), Vec::new());
    let result = drive(bytes, cuts, |segment| {
        let mut at = 0;
        while let Some(received) = decoder.next(segment, &mut at, rules, &pool, None)? {
            said.push(match received {
                Received::Message { kind, range } => Said::Message(kind, segment[range].to_vec()),
                Received::Assembled { kind, bytes } => Said::Message(kind, bytes.to_vec()),
                Received::Control { opcode, range } => {
                    Said::Control(opcode, segment[range].to_vec())
                }
                Received::AssembledControl { opcode, bytes } => {
                    Said::Control(opcode, bytes.to_vec())
                }
            });
        }
        assert!(segment.len() - at <= 13, "payload is consumed as it comes");
        Ok::<usize, Violation>(at)
    });
    decoder.reset();
    assert_eq!(pool.taken(), 0, "no buffer stays behind");
    (said, result.err())
}

/// RFC 6455 §5 read aloud over the whole input: the messages, and whether a whole frame broke a
/// rule. Slow, obvious, and not written by the decoder's author.
fn model(role: Role, input: &[u8]) -> (Vec<Said>, bool) {
    let (mut said, mut rest) = (Vec::new(), input);
    // The unfinished message: kind, bytes, fragments.
    let mut open: Option<(MessageKind, Vec<u8>, u64)> = None;
    loop {
        let [first, second, after @ ..] = rest else {
            return (said, false);
        };
        let (fin, opcode, masked) = (first >> 7 == 1, first & 0xf, second >> 7 == 1);
        let length_bytes = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask_bytes = if masked { 4 } else { 0 };
        if after.len() < length_bytes + mask_bytes {
            return (said, false);
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
        let control = opcode >= 8;
        if first & 0x70 != 0
            || matches!(opcode, 3..=7 | 11..)
            || masked != (role == Role::Server)
            || !minimal
            || length >> 63 == 1
            || control && (!fin || length > 125)
        {
            return (said, true);
        }
        let data = match (opcode, &open) {
            (0, None) | (1 | 2, Some(_)) => return (said, true),
            (0, Some((_, bytes, fragments))) => Some((bytes.len() as u64, *fragments)),
            (1 | 2, None) => Some((0, 0)),
            _ => None,
        };
        if let Some((assembled, fragments)) = data {
            let too_large = length > u64::from(MESSAGE_BYTES_MAX) - assembled;
            if too_large || fragments >= u64::from(FRAGMENTS_MAX) + assembled / 16 {
                return (said, true);
            }
        }
        let Some(payload) = after[length_bytes + mask_bytes..].get(..length as usize) else {
            return (said, false);
        };
        let key = &after[length_bytes..length_bytes + mask_bytes];
        let mut payload = payload.to_vec();
        for (at, byte) in payload.iter_mut().enumerate() {
            *byte ^= key.get(at % 4).copied().unwrap_or_default();
        }
        rest = &after[length_bytes + mask_bytes + payload.len()..];
        match opcode {
            8 => said.push(Said::Control(Opcode::Close, payload)),
            9 => said.push(Said::Control(Opcode::Ping, payload)),
            10 => said.push(Said::Control(Opcode::Pong, payload)),
            _ => {
                let kind = if opcode == 1 {
                    MessageKind::Text
                } else {
                    MessageKind::Binary
                };
                let (kind, mut bytes, fragments) = open.take().unwrap_or((kind, Vec::new(), 0));
                bytes.extend(payload);
                let text = std::str::from_utf8(&bytes);
                let bad = match text {
                    Ok(_) => false,
                    // A character cut by the end of a fragment may yet be completed.
                    Err(error) => fin || error.error_len().is_some(),
                };
                if kind == MessageKind::Text && bad {
                    return (said, true);
                }
                if fin {
                    said.push(Said::Message(kind, bytes));
                } else {
                    open = Some((kind, bytes, fragments + 1));
                }
            }
        }
    }
}

/// A header that decodes encodes to the bytes it came from.
fn header_round_trip(role: Role, bytes: &[u8]) {
    let Ok(Some(header)) = decode_header(bytes, role) else {
        return;
    };
    let mut out = [0; 14];
    let len = encode_header(
        &mut out,
        header.opcode,
        header.fin,
        header.compressed,
        header.payload_len,
        header.mask,
    );
    assert_eq!(out[..len], bytes[..usize::from(header.header_len)]);
}
