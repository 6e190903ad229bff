//! A blocking connection as the visitors of a soak use it: HTTP answers of any framing, and WebSocket
//! frames.
//!
//! Unlike the generator's dialects, which compare fixed bytes, this reads whatever is well-formed and leaves
//! the judgement to the visitor. RFC 9112 §6, RFC 6455 §5.2.
//!
//! Invariants
//! - No call waits longer than [`PATIENCE`] for bytes.
//!
//! Not here: what is asked (`visitors.rs`).

use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use crate::client::stream::{self, Stream};
use crate::client::{Dialect as _, Echo, MASK, push_length};

/// Longest silence of the server: long, for the machine may be busy with other things.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// An HTTP answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// A connection and what has come of it but was not asked for yet.
pub(super) struct Wire {
    stream: Stream,
    input: Vec<u8>,
}

impl Wire {
    /// Connects to `port`, with TLS if there are settings for it.
    pub(super) fn open(port: u16, tls: Option<&Arc<ClientConfig>>) -> Result<Self, String> {
        Ok(Self {
            stream: stream::dial(port, 0, tls, PATIENCE)?,
            input: Vec::new(),
        })
    }

    /// The same, up to the server's agreement to speak WebSocket.
    pub(super) fn upgrade(port: u16) -> Result<Self, String> {
        let mut wire = Self::open(port, None)?;
        let echo = Echo::new(1, false, 1);
        wire.send(echo.greeting())?;
        loop {
            if let Some(len) = echo.check_greeting(&wire.input)? {
                wire.input.drain(..len);
                return Ok(wire);
            }
            wire.more("the handshake's answer")?;
        }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream
            .write_all(bytes)
            .and_then(|()| self.stream.flush())
            .map_err(|error| format!("write: {error}"))
    }

    /// The next answer.
    pub(super) fn answer(&mut self) -> Result<Answer, String> {
        loop {
            if let Some((len, answer)) = parse(&self.input)? {
                self.input.drain(..len);
                return Ok(answer);
            }
            self.more("an answer")?;
        }
    }

    /// Sends a request without body and returns its answer.
    pub(super) fn get(&mut self, target: &str) -> Result<Answer, String> {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
        self.answer()
    }

    /// Sends a request with a body and returns its answer.
    pub(super) fn post(&mut self, target: &str, body: &[u8]) -> Result<Answer, String> {
        let len = body.len();
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n\r\n"
        );
        self.send(&[head.as_bytes(), body].concat())?;
        self.answer()
    }

    /// Sends a masked frame; `first_byte` is FIN and opcode.
    pub(super) fn send_frame(&mut self, first_byte: u8, payload: &[u8]) -> Result<(), String> {
        let mut frame = vec![first_byte];
        push_length(&mut frame, payload.len(), 0x80);
        frame.extend(MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(a, b)| a ^ b));
        self.send(&frame)
    }

    /// The next frame: its first byte and its payload.
    pub(super) fn frame(&mut self) -> Result<(u8, Vec<u8>), String> {
        loop {
            if let Some((start, end)) = frame_bounds(&self.input) {
                let payload = self.input[start..end].to_vec();
                let first_byte = self.input[0];
                self.input.drain(..end);
                return Ok((first_byte, payload));
            }
            self.more("a frame")?;
        }
    }

    /// Whether the connection ends here, without another byte.
    pub(super) fn is_at_end(&mut self) -> Result<bool, String> {
        Ok(self.input.is_empty() && self.fill()? == 0)
    }

    fn more(&mut self, what: &str) -> Result<(), String> {
        match self.fill()? {
            0 => Err(format!(
                "the connection ended before {what} was whole, after {:?}",
                String::from_utf8_lossy(&self.input[..self.input.len().min(100)])
            )),
            _ => Ok(()),
        }
    }

    fn fill(&mut self) -> Result<usize, String> {
        let mut area = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut area) {
                Ok(got) => {
                    self.input.extend_from_slice(&area[..got]);
                    return Ok(got);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("read: {error}")),
            }
        }
    }
}

/// Start and end of the payload of the whole frame at the front, if it is there. Servers do not mask.
fn frame_bounds(input: &[u8]) -> Option<(usize, usize)> {
    let short = *input.get(1)? & 0x7f;
    let start = match short {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let extended = input.get(2..start)?;
    let len = match extended {
        [] => usize::from(short),
        bytes => bytes
            .iter()
            .fold(0, |sum: usize, byte| sum << 8 | usize::from(*byte)),
    };
    let end = start.checked_add(len)?;
    (input.len() >= end).then_some((start, end))
}

/// The whole answer at the front and its length, if it is there.
fn parse(input: &[u8]) -> Result<Option<(usize, Answer)>, String> {
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut fields);
    let head_len = match response.parse(input) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("an answer's head: {error}")),
    };
    let status = response.code.unwrap_or_default();
    let field = |name: &str| {
        let found = response
            .headers
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case(name));
        found.and_then(|field| std::str::from_utf8(field.value).ok())
    };
    let rest = &input[head_len..];
    if field("transfer-encoding") == Some("chunked") {
        let whole = unchunk(rest)?;
        return Ok(whole.map(|(len, body)| (head_len + len, Answer { status, body })));
    }
    let len: usize = field("content-length")
        .and_then(|text| text.parse().ok())
        .ok_or("an answer without length")?;
    Ok(rest.get(..len).map(|body| {
        let body = body.to_vec();
        (head_len + len, Answer { status, body })
    }))
}

/// The chunked body at the front without its framing, and its length with it (RFC 9112 §7.1).
fn unchunk(input: &[u8]) -> Result<Option<(usize, Vec<u8>)>, String> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        match httparse::parse_chunk_size(&input[at..]) {
            Ok(httparse::Status::Complete((line_len, size))) => {
                let start = at + line_len;
                let end = start + usize::try_from(size).map_err(|error| error.to_string())?;
                let (Some(piece), Some(line_end)) =
                    (input.get(start..end), input.get(end..end + 2))
                else {
                    return Ok(None);
                };
                if line_end != b"\r\n" {
                    return Err("a chunk does not end where it says".to_owned());
                }
                body.extend_from_slice(piece);
                at = end + 2;
                if size == 0 {
                    return Ok(Some((at, body)));
                }
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err("a chunk without size".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_whole_by_length_or_by_chunks() {
        for (text, body) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello"),
            (
                "HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
                "hello",
            ),
        ] {
            for cut in 0..text.len() {
                assert!(parse(&text.as_bytes()[..cut]).unwrap().is_none(), "{cut}");
            }
            let (len, answer) = parse(text.as_bytes()).unwrap().unwrap();
            assert_eq!((len, answer.body.as_slice()), (text.len(), body.as_bytes()));
        }
    }

    #[test]
    fn rfc6455_5_2_frames_of_every_length_form_have_bounds() {
        for len in [0_usize, 125, 126, 65_535, 65_536] {
            let mut frame = vec![0x82];
            push_length(&mut frame, len, 0);
            let start = frame.len();
            frame.resize(start + len, b'x');
            assert_eq!(frame_bounds(&frame), Some((start, start + len)));
            assert_eq!(frame_bounds(&frame[..frame.len() - 1]), None, "{len}");
        }
    }
}
