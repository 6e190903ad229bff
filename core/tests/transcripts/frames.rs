//! WebSocket frames as lines of text, written and read by code that shares nothing with the crate.
//!
//! `text more rsv1 mask=01020304 len16 "Hel"`: a kind, modifiers in any order, a payload.

use crate::notation::{Action, Step, duration, quoted, unescape};
use std::fmt::Write as _;

/// The masking key of frames that do not name one: that of RFC 6455 §5.7.
const USUAL_MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The steps of a WebSocket input. `masked`: whether frames are masked unless they say otherwise.
pub(crate) fn steps(text: &str, masked: bool) -> Result<Vec<Step>, String> {
    let lines = text.lines().map(str::trim);
    let mut steps: Vec<Step> = Vec::new();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let step = match line.strip_prefix('!') {
            Some(action) => Step::Act(parse_action(action.trim())?),
            None => Step::Bytes(parse_bytes(line, masked)?),
        };
        steps.push(step);
    }
    Ok(steps)
}

/// A line's words, and its payload if one stands at the end in quotes.
fn split_payload(line: &str) -> Result<(Vec<&str>, Vec<u8>), String> {
    match line.split_once('"') {
        None => Ok((line.split_whitespace().collect(), Vec::new())),
        Some((words, payload)) => {
            let payload = payload
                .strip_suffix('"')
                .ok_or_else(|| format!("no closing quote: {line}"))?;
            Ok((words.split_whitespace().collect(), unescape(payload)?))
        }
    }
}

fn parse_action(line: &str) -> Result<Action, String> {
    let (words, payload) = split_payload(line)?;
    Ok(match words[..] {
        ["eof"] => Action::Eof,
        ["wait", time] => Action::Wait(duration(time)?),
        ["text"] => Action::Send {
            binary: false,
            payload,
        },
        ["binary"] => Action::Send {
            binary: true,
            payload,
        },
        ["ping"] => Action::Ping(payload),
        ["close", code] => Action::Close {
            code: code.parse().map_err(|_| format!("no close code: {line}"))?,
            reason: payload,
        },
        _ => return Err(format!("no such action: {line}")),
    })
}

fn parse_bytes(line: &str, masked: bool) -> Result<Vec<u8>, String> {
    if let Some(hex) = line.strip_prefix("hex ") {
        let bytes = hex.split_whitespace();
        return bytes
            .map(|byte| u8::from_str_radix(byte, 16).map_err(|_| format!("no hex: {line}")))
            .collect();
    }
    let (words, payload) = split_payload(line)?;
    let mut frame = Frame {
        first: 0x80,
        mask: masked.then_some(USUAL_MASK),
        len: payload.len() as u64,
        len_bytes: 0,
        payload,
    };
    frame.len_bytes = shortest(frame.len);
    let (kind, modifiers) = words.split_first().ok_or("a frame without a kind")?;
    frame.first |= match *kind {
        "cont" => 0,
        "text" => 1,
        "binary" => 2,
        "close" => 8,
        "ping" => 9,
        "pong" => 10,
        other => other
            .strip_prefix("opcode=")
            .and_then(|opcode| opcode.parse().ok())
            .filter(|opcode| *opcode < 16)
            .ok_or_else(|| format!("no kind of frame: {line}"))?,
    };
    for modifier in modifiers {
        frame
            .modify(modifier)
            .ok_or_else(|| format!("unknown `{modifier}`: {line}"))?;
    }
    Ok(frame.bytes())
}

/// A frame as its line describes it, lawful or not.
struct Frame {
    first: u8,
    mask: Option<[u8; 4]>,
    /// The length it announces.
    len: u64,
    /// Bytes of extended length: 0, 2 or 8.
    len_bytes: usize,
    payload: Vec<u8>,
}

fn shortest(len: u64) -> usize {
    match len {
        0..126 => 0,
        126..0x1_0000 => 2,
        _ => 8,
    }
}

impl Frame {
    fn modify(&mut self, modifier: &str) -> Option<()> {
        match modifier.split_once('=') {
            Some(("mask", key)) => {
                self.mask = Some(u32::from_str_radix(key, 16).ok()?.to_be_bytes());
            }
            Some(("len", len)) => {
                self.len = len.parse().ok()?;
                self.len_bytes = shortest(self.len);
            }
            Some(_) => return None,
            None => match modifier {
                "more" => self.first &= 0x7f,
                "rsv1" => self.first |= 0x40,
                "rsv2" => self.first |= 0x20,
                "rsv3" => self.first |= 0x10,
                "masked" => self.mask = Some(USUAL_MASK),
                "unmasked" => self.mask = None,
                "len16" => self.len_bytes = 2,
                "len64" => self.len_bytes = 8,
                code => {
                    let code: u16 = code.parse().ok()?;
                    self.payload.splice(..0, code.to_be_bytes());
                    self.len += 2;
                    self.len_bytes = shortest(self.len);
                }
            },
        }
        Some(())
    }

    fn bytes(self) -> Vec<u8> {
        let len = self.len.to_be_bytes();
        let mask_bit = if self.mask.is_some() { 0x80 } else { 0 };
        let second = match self.len_bytes {
            0 => len[7],
            2 => 126,
            _ => 127,
        };
        let mut bytes = vec![self.first, second | mask_bit];
        bytes.extend_from_slice(&len[8 - self.len_bytes..]);
        bytes.extend(self.mask.into_iter().flatten());
        let key = self.mask.unwrap_or_default();
        let masked = self.payload.iter().zip(key.iter().cycle());
        bytes.extend(masked.map(|(byte, key)| byte ^ key));
        bytes
    }
}

/// What the frames in `bytes` say, each a line that begins with `< `. They must be whole, lawful
/// and masked as `masked` says.
pub(crate) fn describe(mut bytes: &[u8], masked: bool) -> String {
    let mut text = String::new();
    while let [first, second, rest @ ..] = bytes {
        assert_eq!(second & 0x80 != 0, masked, "the masking of what we send");
        let (len, rest) = match second & 0x7f {
            126 => (
                usize::from(u16::from_be_bytes([rest[0], rest[1]])),
                &rest[2..],
            ),
            127 => {
                let (len, rest) = rest.split_at(8);
                let len = len
                    .iter()
                    .fold(0, |len, byte| len << 8 | usize::from(*byte));
                (len, rest)
            }
            short => (usize::from(short), rest),
        };
        let (key, rest) = rest.split_at(if masked { 4 } else { 0 });
        let (payload, rest) = rest.split_at(len);
        bytes = rest;
        let keys = key.iter().chain(if masked { &[][..] } else { &[0] });
        let payload: Vec<u8> = payload
            .iter()
            .zip(keys.cycle())
            .map(|(byte, key)| byte ^ key)
            .collect();
        let _ = writeln!(text, "< {}", sentence(*first, &payload));
    }
    assert_eq!(bytes, b"", "we send whole frames");
    text
}

fn sentence(first: u8, payload: &[u8]) -> String {
    let name = match first {
        0x81 => "text",
        0x82 => "binary",
        0x88 => return format!("close{}", code_and_reason(payload)),
        0xc1 | 0xc2 => return "a compressed message".to_owned(),
        0x89 => "ping",
        0x8a => "pong",
        other => panic!("we sent a frame that begins with {other:#04x}"),
    };
    format!("{name}{}", quoted(payload))
}

fn code_and_reason(payload: &[u8]) -> String {
    match payload {
        [] => String::new(),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            format!(" {code}{}", quoted(reason))
        }
        [_] => panic!("we sent a close frame of one byte"),
    }
}

#[test]
fn rfc6455_5_7_examples_are_written_as_printed() {
    for (line, masked, want) in [
        ("text \"Hello\"", false, &b"\x81\x05Hello"[..]),
        (
            "text \"Hello\"",
            true,
            b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
        ),
        ("text more \"Hel\"", false, b"\x01\x03Hel"),
        ("cont \"lo\"", false, b"\x80\x02lo"),
        ("close 1000", false, b"\x88\x02\x03\xe8"),
        ("binary len=256", false, b"\x82\x7e\x01\x00"),
        ("binary len=65536", false, b"\x82\x7f\0\0\0\0\0\x01\0\0"),
        ("hex 81 00", true, b"\x81\x00"),
    ] {
        assert_eq!(parse_bytes(line, masked).as_deref(), Ok(want), "{line}");
    }
    assert_eq!(
        describe(b"\x81\x05Hello\x88\x00", false),
        "< text \"Hello\"\n< close\n"
    );
}
