//! WebSocket frame headers: decoded and encoded. RFC 6455 §5.2.
//!
//! Sits in the protocol layer: a pure function of the first bytes of a frame. Nothing is consumed
//! here; the caller advances by [`FrameHeader::header_len`] once the header is whole.
//!
//! Invariants
//! - Incomplete is not an error: [`decode_header`] answers `Ok(None)` until all bytes are there.
//! - A refusal comes with the byte that causes it, and every longer input meets the same one:
//!   what the first byte breaks is reported before what the second breaks, and so on.
//! - What [`encode_header`] writes, [`decode_header`] reads back.
//!
//! Not here: the order of frames (`message.rs`), masking (`mask.rs`), the meaning of RSV1, which
//! belongs to an extension (`deflate.rs`).

use super::{Opcode, Role};
use crate::violation::Violation;

/// The longest header: two bytes, eight of length, four of mask.
pub const HEADER_BYTES_MAX: usize = 14;

/// The most a control frame may carry. RFC 6455 §5.5.
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;

/// What stands before the payload of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Whether this frame ends its message.
    pub fin: bool,
    /// RSV1: under permessage-deflate, the first frame of a compressed message. RFC 7692 §6.
    pub compressed: bool,
    /// What the frame holds.
    pub opcode: Opcode,
    /// The masking key, always there in frames from a client and never in those from a server.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload, below 2^63; at most 125 in a control frame.
    pub payload_len: u64,
    /// Bytes of this header, 2 to 14.
    pub header_len: u8,
}

/// What the first byte of a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstByte {
    /// Whether this frame ends its message.
    pub fin: bool,
    /// RSV1.
    pub compressed: bool,
    /// What the frame holds.
    pub opcode: Opcode,
}

/// Reads the first byte of a frame, so that a caller can refuse it before the second arrives.
///
/// # Errors
/// `ReservedBit` for RSV2 and RSV3, `Opcode`, `ControlFragmented`. RSV1 is the caller's to judge:
/// an extension may give it a meaning.
#[inline]
pub fn decode_first_byte(byte: u8) -> Result<FirstByte, Violation> {
    if byte & 0x30 != 0 {
        return Err(Violation::ReservedBit);
    }
    let opcode = match byte & 0x0f {
        0x0 => Opcode::Continuation,
        0x1 => Opcode::Text,
        0x2 => Opcode::Binary,
        0x8 => Opcode::Close,
        0x9 => Opcode::Ping,
        0xa => Opcode::Pong,
        _ => return Err(Violation::Opcode),
    };
    let fin = byte & 0x80 != 0;
    if opcode.is_control() && !fin {
        return Err(Violation::ControlFragmented);
    }
    Ok(FirstByte {
        fin,
        compressed: byte & 0x40 != 0,
        opcode,
    })
}

/// Reads one frame header from the front of `input`; `Ok(None)` until it is all there.
///
/// `role` is ours: a server requires masked frames and a client refuses them.
///
/// # Errors
/// Any violation fails the connection with its close code, 1002. RFC 6455 §7.1.7.
#[inline]
pub fn decode_header(input: &[u8], role: Role) -> Result<Option<FrameHeader>, Violation> {
    let Some((&first, rest)) = input.split_first() else {
        return Ok(None);
    };
    let FirstByte {
        fin,
        compressed,
        opcode,
    } = decode_first_byte(first)?;
    let Some((&second, rest)) = rest.split_first() else {
        return Ok(None);
    };
    let masked = second & 0x80 != 0;
    if masked != (role == Role::Server) {
        return Err(Violation::Masking);
    }
    let short_len = second & 0x7f;
    if opcode.is_control() && usize::from(short_len) > CONTROL_PAYLOAD_BYTES_MAX {
        return Err(Violation::ControlTooLong);
    }
    let Some((payload_len, length_bytes)) = decode_length(short_len, rest)? else {
        return Ok(None);
    };
    let mask = if masked {
        let Some(mask) = rest
            .get(usize::from(length_bytes)..)
            .and_then(|rest| rest.first_chunk())
        else {
            return Ok(None);
        };
        Some(*mask)
    } else {
        None
    };
    Ok(Some(FrameHeader {
        fin,
        compressed,
        opcode,
        mask,
        payload_len,
        header_len: 2 + length_bytes + if masked { 4 } else { 0 },
    }))
}

/// The payload length and the number of bytes in `rest` that it took; `Ok(None)` if some of them
/// are yet to come. RFC 6455 §5.2 demands the shortest form.
#[inline]
fn decode_length(short_len: u8, rest: &[u8]) -> Result<Option<(u64, u8)>, Violation> {
    match short_len {
        126 => {
            let Some(bytes) = rest.first_chunk() else {
                return Ok(None);
            };
            let len = u16::from_be_bytes(*bytes);
            if len < 126 {
                return Err(Violation::FrameLengthNotMinimal);
            }
            Ok(Some((u64::from(len), 2)))
        }
        127 => {
            // The first byte alone may have the forbidden bit.
            if rest.first().is_some_and(|byte| byte & 0x80 != 0) {
                return Err(Violation::FrameLength);
            }
            let Some(bytes) = rest.first_chunk() else {
                return Ok(None);
            };
            let len = u64::from_be_bytes(*bytes);
            if len <= 0xffff {
                return Err(Violation::FrameLengthNotMinimal);
            }
            Ok(Some((len, 8)))
        }
        short => Ok(Some((u64::from(short), 0))),
    }
}

/// Writes a frame header to the front of `out` and returns its length, 2 to 14 bytes.
///
/// The length takes the shortest form. `payload_len` must be below 2^63.
#[inline]
pub fn encode_header(
    out: &mut [u8; HEADER_BYTES_MAX],
    opcode: Opcode,
    fin: bool,
    rsv1: bool,
    payload_len: u64,
    mask: Option<[u8; 4]>,
) -> usize {
    debug_assert!(payload_len >> 63 == 0, "no frame is that long");
    out[0] = opcode.bits() | u8::from(fin) << 7 | u8::from(rsv1) << 6;
    let mask_bit = u8::from(mask.is_some()) << 7;
    let mut len = 2;
    match (u8::try_from(payload_len), u16::try_from(payload_len)) {
        (Ok(short @ ..=125), _) => out[1] = mask_bit | short,
        (_, Ok(medium)) => {
            out[1] = mask_bit | 126;
            out[2..4].copy_from_slice(&medium.to_be_bytes());
            len = 4;
        }
        _ => {
            out[1] = mask_bit | 127;
            out[2..10].copy_from_slice(&payload_len.to_be_bytes());
            len = 10;
        }
    }
    if let Some(mask) = mask {
        out[len..len + 4].copy_from_slice(&mask);
        len += 4;
    }
    len
}

#[cfg(test)]
mod tests {
    use super::{HEADER_BYTES_MAX, decode_header, encode_header};
    use crate::violation::Violation;
    use crate::ws::{Opcode, Role};

    /// Decodes every prefix of `bytes`: incomplete until the header is whole, then `want`; and once
    /// refused, refused in the same way however much follows.
    #[track_caller]
    fn check(role: Role, bytes: &[u8], want: Result<(Opcode, bool, u64), Violation>) {
        let whole = decode_header(bytes, role).map(|header| header.expect("incomplete header"));
        assert_eq!(
            whole.map(|h| (h.opcode, h.fin, h.payload_len)),
            want,
            "{bytes:02x?}"
        );
        let needed = whole.map_or(bytes.len(), |h| usize::from(h.header_len));
        for cut in 0..needed {
            match decode_header(&bytes[..cut], role) {
                Ok(None) => {}
                early => assert_eq!(early, whole.map(Some), "prefix of {cut} bytes"),
            }
        }
    }

    #[test]
    fn rfc6455_5_7_examples() {
        use {Opcode::*, Role::*};
        let table: &[(Role, &[u8], Opcode, bool, u64)] = &[
            // A single-frame unmasked text message
            (Client, b"\x81\x05\x48\x65\x6c\x6c\x6f", Text, true, 5),
            // A single-frame masked text message
            (
                Server,
                b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
                Text,
                true,
                5,
            ),
            // A fragmented unmasked text message
            (Client, b"\x01\x03\x48\x65\x6c", Text, false, 3),
            (Client, b"\x80\x02\x6c\x6f", Continuation, true, 2),
            // Unmasked Ping request and masked Pong response
            (Client, b"\x89\x05\x48\x65\x6c\x6c\x6f", Ping, true, 5),
            (
                Server,
                b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
                Pong,
                true,
                5,
            ),
            // 256 bytes binary message in a single unmasked frame
            (Client, b"\x82\x7e\x01\x00", Binary, true, 256),
            // 64 KiB binary message in a single unmasked frame
            (
                Client,
                b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00",
                Binary,
                true,
                65_536,
            ),
        ];
        for &(role, bytes, opcode, fin, payload_len) in table {
            check(role, bytes, Ok((opcode, fin, payload_len)));
        }
    }

    #[test]
    fn rfc6455_5_2_reserved_bits_and_opcodes_fail_at_the_first_byte() {
        for first in 0..=u8::MAX {
            let opcode = first & 0x0f;
            let want = if first & 0x30 != 0 {
                Err(Violation::ReservedBit)
            } else if !matches!(opcode, 0..=2 | 8..=10) {
                Err(Violation::Opcode)
            } else if opcode >= 8 && first & 0x80 == 0 {
                Err(Violation::ControlFragmented)
            } else {
                Ok(None)
            };
            assert_eq!(decode_header(&[first], Role::Client), want, "{first:#04x}");
        }
    }

    #[test]
    fn rfc6455_5_1_a_server_requires_masks_and_a_client_refuses_them() {
        check(Role::Server, &[0x81, 0x05], Err(Violation::Masking));
        check(Role::Client, &[0x81, 0x85], Err(Violation::Masking));
        check(
            Role::Server,
            &[0x81, 0x80, 1, 2, 3, 4],
            Ok((Opcode::Text, true, 0)),
        );
        check(Role::Client, &[0x81, 0x00], Ok((Opcode::Text, true, 0)));
    }

    #[test]
    fn rfc6455_5_2_lengths_take_the_shortest_form() {
        use Violation::{FrameLength, FrameLengthNotMinimal};
        let long = |len: u64| [&[0x82, 127][..], &len.to_be_bytes()].concat();
        check(
            Role::Client,
            &[0x82, 126, 0, 125],
            Err(FrameLengthNotMinimal),
        );
        check(
            Role::Client,
            &[0x82, 126, 0, 126],
            Ok((Opcode::Binary, true, 126)),
        );
        check(Role::Client, &long(0xffff), Err(FrameLengthNotMinimal));
        check(
            Role::Client,
            &long(0x1_0000),
            Ok((Opcode::Binary, true, 0x1_0000)),
        );
        check(
            Role::Client,
            &long(u64::MAX >> 1),
            Ok((Opcode::Binary, true, u64::MAX >> 1)),
        );
        check(Role::Client, &long(1 << 63), Err(FrameLength));
    }

    #[test]
    fn rfc6455_5_5_control_frames_are_short_and_whole() {
        for opcode in [0x8, 0x9, 0xa] {
            check(
                Role::Client,
                &[0x80 | opcode, 126, 0, 126],
                Err(Violation::ControlTooLong),
            );
            check(
                Role::Client,
                &[0x80 | opcode, 127],
                Err(Violation::ControlTooLong),
            );
            check(
                Role::Client,
                &[opcode, 0],
                Err(Violation::ControlFragmented),
            );
        }
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same_header() {
        let opcodes = [
            Opcode::Continuation,
            Opcode::Text,
            Opcode::Binary,
            Opcode::Close,
            Opcode::Ping,
            Opcode::Pong,
        ];
        for opcode in opcodes {
            for payload_len in [0, 1, 125, 126, 127, 0xffff, 0x1_0000, u64::MAX >> 1] {
                for (fin, rsv1, masked) in (0..8).map(|i| (i & 1 != 0, i & 2 != 0, i & 4 != 0)) {
                    if opcode.is_control() && (payload_len > 125 || !fin) {
                        continue;
                    }
                    let (mask, role) = if masked {
                        (Some([1, 2, 3, 4]), Role::Server)
                    } else {
                        (None, Role::Client)
                    };
                    let mut bytes = [0xee; HEADER_BYTES_MAX];
                    let len = encode_header(&mut bytes, opcode, fin, rsv1, payload_len, mask);
                    let header = decode_header(&bytes[..len], role)
                        .expect("valid")
                        .expect("whole");
                    assert_eq!(usize::from(header.header_len), len);
                    assert_eq!(
                        (
                            header.opcode,
                            header.fin,
                            header.compressed,
                            header.payload_len,
                            header.mask
                        ),
                        (opcode, fin, rsv1, payload_len, mask)
                    );
                }
            }
        }
    }
}
