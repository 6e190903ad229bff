//! HTTP as the generator speaks it: one fixed request, and answers that must be 200 with the
//! expected body. RFC 9112.
//!
//! Sits under `client`: bytes in, a judgement out. The head is parsed by httparse in full each
//! time, so a peer cannot win by answering less; only framing by Content-Length is accepted, which
//! every peer can give for a fixed body.
//!
//! Invariants
//! - A judgement depends only on the bytes at the front of the input: cutting the stream elsewhere
//!   changes nothing.
//!
//! Not here: sockets (`mod.rs`), the bodies (`workload.rs`).

use super::Dialect;
use crate::workload::{HELLO, field_value, json_body};

/// Most fields a peer may send; the ones compiled in send three.
const FIELDS_MAX: usize = 16;

/// The fixed requests of a workload and the body that answers each.
pub(super) struct Http {
    request: Vec<u8>,
    batch: Vec<u8>,
    body: Vec<u8>,
}

impl Http {
    /// `GET /` as the usual load generators send it: a Host and nothing else.
    pub(super) fn get(in_flight: u32) -> Self {
        Self::repeated(
            "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            in_flight,
            HELLO,
        )
    }

    /// The same, with the wish that the connection end behind the answer.
    pub(super) fn get_once() -> Self {
        Self::repeated(
            "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
            1,
            HELLO,
        )
    }

    /// `POST /field` with the 1 KiB document.
    pub(super) fn post_json(in_flight: u32) -> Self {
        let document = json_body();
        let request = format!(
            "POST /field HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{document}",
            document.len()
        );
        Self::repeated(&request, in_flight, &field_value())
    }

    fn repeated(request: &str, in_flight: u32, body: &str) -> Self {
        let batch = (0..in_flight).flat_map(|_| request.bytes()).collect();
        Self {
            request: request.as_bytes().to_vec(),
            batch,
            body: body.as_bytes().to_vec(),
        }
    }
}

impl Dialect for Http {
    fn greeting(&self) -> &[u8] {
        &self.request
    }

    fn check_greeting(&self, input: &[u8]) -> Result<Option<usize>, String> {
        self.check_answer(input)
    }

    fn batch(&self) -> &[u8] {
        &self.batch
    }

    fn check_answer(&self, input: &[u8]) -> Result<Option<usize>, String> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        let head_len = match response.parse(input) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(format!("the answer's head: {error}: {}", excerpt(input))),
        };
        if response.code != Some(200) {
            return Err(format!("the answer is not 200: {}", excerpt(input)));
        }
        let content_length = response
            .headers
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case("content-length"))
            .and_then(|field| std::str::from_utf8(field.value).ok()?.parse::<usize>().ok())
            .ok_or_else(|| format!("the answer has no Content-Length: {}", excerpt(input)))?;
        if content_length != self.body.len() {
            return Err(format!(
                "the answer's body has the wrong length: {}",
                excerpt(input)
            ));
        }
        let Some(body) = input.get(head_len..head_len + content_length) else {
            return Ok(None);
        };
        if body != self.body {
            return Err(format!("the answer's body is wrong: {}", excerpt(body)));
        }
        Ok(Some(head_len + content_length))
    }
}

/// The front of a message, printable.
pub(super) fn excerpt(input: &[u8]) -> String {
    input[..input.len().min(160)].escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: &[u8] =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\ncontent-length: 13\r\n\r\nHello, World!";

    #[test]
    fn a_right_answer_is_accepted_whole_and_incomplete_before() {
        let http = Http::get(1);
        for cut in 0..RIGHT.len() {
            assert_eq!(http.check_answer(&RIGHT[..cut]), Ok(None), "cut at {cut}");
        }
        assert_eq!(http.check_answer(RIGHT), Ok(Some(RIGHT.len())));
        assert_eq!(
            http.check_answer(&[RIGHT, RIGHT].concat()),
            Ok(Some(RIGHT.len()))
        );
    }

    #[test]
    fn a_wrong_status_length_or_body_is_refused() {
        let right = String::from_utf8_lossy(RIGHT).into_owned();
        for (from, to) in [
            ("200", "404"),
            ("13", "12"),
            ("World", "Earth"),
            ("content-length", "x-length"),
        ] {
            let wrong = right.replace(from, to);
            assert!(
                Http::get(1).check_answer(wrong.as_bytes()).is_err(),
                "{from} → {to}"
            );
        }
    }
}
