//! WebSocket as the generator speaks it: a handshake, then one masked message over and over,
//! echoed. RFC 6455.
//!
//! Sits under `client`: bytes in, a judgement out. The frames of a batch are masked once, when the
//! workload begins: the server has to unmask each anyway, the generator need not mask each. An echo
//! must be one unfragmented, unmasked frame of the same kind and the same payload.
//!
//! Invariants
//! - The length in a frame is the shortest form (§5.2), in both directions.
//! - The accept key is checked (§4.2.2), so a server that does not speak WebSocket is not measured.
//!
//! Not here: sockets (`mod.rs`), servers (`peers/`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha1::{Digest, Sha1};

use super::Dialect;
use super::http::excerpt;

/// The client's nonce (§4.1); fixed, for a measurement is no place for surprise.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Appended to the key before hashing (§1.3).
const ACCEPT_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// An empty ping, by which a server sees whether a socket that only listens is still there (§5.5.2), and the answer.
const PING: &[u8] = b"\x89\0";
const PONG: &[u8] = b"\x8a\x80\0\0\0\0";

/// The masking key of every frame: no byte of it is zero, so that skipping the unmasking shows.
pub(crate) const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The greeting, the batch and the echo expected.
pub(crate) struct Echo {
    greeting: Vec<u8>,
    accept: String,
    batch: Vec<u8>,
    /// The whole frame that answers each message.
    answer: Vec<u8>,
}

impl Echo {
    pub(crate) fn new(bytes: usize, binary: bool, in_flight: u32) -> Self {
        let payload: Vec<u8> = (b'a'..=b'z').cycle().take(bytes).collect();
        let first_byte = if binary { 0x82 } else { 0x81 };
        let mut answer = vec![first_byte];
        push_length(&mut answer, bytes, 0);
        answer.extend_from_slice(&payload);
        let mut frame = vec![first_byte];
        push_length(&mut frame, bytes, 0x80);
        frame.extend_from_slice(&MASK);
        frame.extend(
            payload
                .iter()
                .zip(MASK.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        let greeting = format!(
            "GET /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        Self {
            greeting: greeting.into_bytes(),
            accept: accept_key(KEY),
            batch: (0..in_flight).flat_map(|_| frame.iter().copied()).collect(),
            answer,
        }
    }
}

/// The value of `Sec-WebSocket-Accept` for a client's key (§4.2.2).
pub(crate) fn accept_key(key: &str) -> String {
    BASE64.encode(Sha1::digest(format!("{key}{ACCEPT_SUFFIX}")))
}

/// Appends a payload length in its shortest form, with `mask_bit` (0 or 0x80) in its first byte.
pub(crate) fn push_length(frame: &mut Vec<u8>, len: usize, mask_bit: u8) {
    if let Some(short) = u8::try_from(len).ok().filter(|len| *len < 126) {
        frame.push(mask_bit | short);
    } else if let Ok(medium) = u16::try_from(len) {
        frame.push(mask_bit | 126);
        frame.extend_from_slice(&medium.to_be_bytes());
    } else {
        frame.push(mask_bit | 127);
        frame.extend_from_slice(&(len as u64).to_be_bytes());
    }
}

impl Dialect for Echo {
    fn greeting(&self) -> &[u8] {
        &self.greeting
    }

    fn check_greeting(&self, input: &[u8]) -> Result<Option<usize>, String> {
        let mut fields = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut fields);
        let len = match response.parse(input) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => {
                return Err(format!(
                    "the handshake's answer: {error}: {}",
                    excerpt(input)
                ));
            }
        };
        let is_accepted = response.code == Some(101)
            && response.headers.iter().any(|field| {
                field.name.eq_ignore_ascii_case("sec-websocket-accept")
                    && field.value == self.accept.as_bytes()
            });
        if is_accepted {
            Ok(Some(len))
        } else {
            Err(format!(
                "the handshake was not accepted: {}",
                excerpt(input)
            ))
        }
    }

    fn batch(&self) -> &[u8] {
        &self.batch
    }

    fn check_answer(&self, input: &[u8]) -> Result<Option<usize>, String> {
        let header_len = self.answer.len().min(4);
        if input.len() < self.answer.len()
            && input.len() >= header_len
            && input[..header_len] == self.answer[..header_len]
        {
            return Ok(None);
        }
        let compared = input.len().min(self.answer.len());
        if input[..compared] != self.answer[..compared] {
            return Err(format!("the echo is not what was sent: {}", excerpt(input)));
        }
        Ok((compared == self.answer.len()).then_some(compared))
    }

    fn question(&self, input: &[u8]) -> Option<(usize, &'static [u8])> {
        input.starts_with(PING).then_some((PING.len(), PONG))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc6455_1_3_accept_key_of_the_example() {
        assert_eq!(accept_key(KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn rfc6455_5_2_lengths_take_their_shortest_form() {
        for (len, bytes) in [(125, 1), (126, 3), (65_535, 3), (65_536, 9)] {
            let mut frame = Vec::new();
            push_length(&mut frame, len, 0x80);
            assert_eq!(frame.len(), bytes, "{len}");
            assert_ne!(frame[0] & 0x80, 0, "{len}");
        }
    }

    #[test]
    fn an_echo_is_accepted_whole_and_refused_if_masked_or_changed() {
        let echo = Echo::new(32, false, 1);
        let right = echo.answer.clone();
        for cut in 0..right.len() {
            assert_eq!(echo.check_answer(&right[..cut]), Ok(None), "cut at {cut}");
        }
        assert_eq!(echo.check_answer(&right), Ok(Some(right.len())));
        assert!(echo.check_answer(&echo.batch).is_err());
        assert_eq!(echo.question(&right), None);
        assert_eq!(echo.question(&[PING, &right].concat()), Some((2, PONG)));
        let mut wrong = right;
        wrong[33] ^= 1;
        assert!(echo.check_answer(&wrong).is_err());
    }
}
