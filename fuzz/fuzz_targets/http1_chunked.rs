//! Chunked bodies: any cut gives the same body or the same violation, the grammar of RFC 9112 §7.1
//! read aloud agrees, and a body written out again decodes to itself.
#![no_main]

use hukilau_core::http1::chunked::{ChunkedDecoder, Step};
use hukilau_core::violation::Violation;
use hukilau_fuzz::{drive, pieces, seeded};
use libfuzzer_sys::fuzz_target;
use std::ops::Range;

/// The body and where it ended, if it did; or what was wrong.
type Decoded = Result<Option<(Vec<u8>, usize)>, Violation>;

const FRAMING_BYTES_MAX: u32 = 256;

fuzz_target!(|data: &[u8]| {
    let Some((mut seed, bytes)) = seeded(data) else {
        return;
    };
    let whole = decode(bytes, &[0..bytes.len()]);
    let cut = decode(bytes, &pieces(bytes.len(), &mut seed));
    assert_eq!(cut, whole, "the cut changed the meaning");

    if whole == Err(Violation::ChunkFraming) {
        // The model has patience without end.
        return;
    }
    let accepted = whole.ok().flatten();
    assert_eq!(accepted, model(bytes), "the decoder and its model disagree");
    if let Some((body, _)) = accepted {
        // Chunks of a single byte cost more framing than they earn, and may be refused for it.
        let encoded = encode(&body, seed.below(40) + 2);
        let again = decode(&encoded, &pieces(encoded.len(), &mut seed));
        assert_eq!(again, Ok(Some((body, encoded.len()))), "round trip");
    }
});

/// Decodes `bytes` cut so.
fn decode(bytes: &[u8], cuts: &[Range<usize>]) -> Decoded {
    let mut decoder = ChunkedDecoder::new(FRAMING_BYTES_MAX);
    let (mut body, mut total, mut done) = (Vec::new(), 0, false);
    drive(bytes, cuts, |segment| {
        let mut at = 0;
        while !done {
            match decoder.decode(&segment[at..])? {
                Step::NeedMore { consumed } => {
                    at += consumed;
                    assert_eq!(at, segment.len(), "it wants more only when all is used");
                    break;
                }
                Step::Data { consumed, data } => {
                    assert!(!data.is_empty() && data.end <= consumed);
                    body.extend_from_slice(&segment[at..][data]);
                    at += consumed;
                }
                Step::End { consumed } => {
                    at += consumed;
                    done = true;
                }
            }
        }
        total += at;
        // What follows the body is not ours; it counts as used, or it would be offered again.
        Ok::<usize, Violation>(if done { segment.len() } else { at })
    })?;
    Ok(done.then_some((body, total)))
}

/// Writes `body` in chunks of at most `longest` bytes.
fn encode(body: &[u8], longest: usize) -> Vec<u8> {
    let mut encoded = Vec::new();
    for chunk in body.chunks(longest) {
        encoded.extend(format!("{:X}\r\n", chunk.len()).bytes());
        encoded.extend(chunk);
        encoded.extend(b"\r\n");
    }
    encoded.extend(b"0\r\n\r\n");
    encoded
}

/// The whole body at once, by the grammar: slow and obvious.
fn model(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let (line, next) = line(input, at)?;
        let digits = line
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        if !(1..=15).contains(&digits) || !extensions(&line[digits..]) {
            return None;
        }
        let text = std::str::from_utf8(&line[..digits]).ok()?;
        let size = usize::from_str_radix(text, 16).ok()?;
        at = next;
        if size == 0 {
            break;
        }
        body.extend_from_slice(input.get(at..at.checked_add(size)?)?);
        at += size;
        if input.get(at..at + 2)? != b"\r\n" {
            return None;
        }
        at += 2;
    }
    loop {
        let (line, next) = line(input, at)?;
        at = next;
        if line.is_empty() {
            return Some((body, at));
        }
        let name = line.iter().position(|byte| *byte == b':')?;
        let text = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        if token(line) != name || name == 0 || !line[name..].iter().all(text) {
            return None;
        }
    }
}

/// The line at `at` without its CRLF, and where the next begins.
fn line(input: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = input.get(at..)?;
    let len = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let line = &rest[..len];
    (!line.contains(&b'\r') && !line.contains(&b'\n')).then_some((line, at + len + 2))
}

/// The length of the token at the front.
fn token(text: &[u8]) -> usize {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    text.iter().take_while(|byte| is_tchar(byte)).count()
}

fn skip_space(text: &[u8]) -> &[u8] {
    let spaces = text
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t'))
        .count();
    &text[spaces..]
}

/// Whether `text` is `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )`.
fn extensions(mut text: &[u8]) -> bool {
    while !text.is_empty() {
        let Some(rest) = skip_space(text).strip_prefix(b";") else {
            return false;
        };
        let rest = skip_space(rest);
        let name = token(rest);
        if name == 0 {
            return false;
        }
        text = &rest[name..];
        if let Some(value) = skip_space(text).strip_prefix(b"=") {
            let value = skip_space(value);
            let len = if value.first() == Some(&b'"') {
                quoted(value)
            } else {
                token(value)
            };
            if len == 0 {
                return false;
            }
            text = &value[len..];
        }
    }
    true
}

/// The length of the quoted-string at the front, 0 if it is none. RFC 9110 §5.6.4.
fn quoted(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        at += match byte {
            b'"' => return at + 1,
            b'\\' => match text.get(at + 1) {
                Some(b'\t' | b' '..=b'~' | 0x80..) => 2,
                _ => return 0,
            },
            b'\t' | b' '..=b'~' | 0x80.. => 1,
            _ => return 0,
        };
    }
    0
}
