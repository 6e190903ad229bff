//! Writes heads and chunks: status line, fields, lengths, chunk headers. RFC 9112 §4, §5, §7.1.
//!
//! Sits in the protocol layer: values in, bytes appended to a [`SendBuffer`]. Everything goes
//! straight to where it waits for the socket; nothing is formatted into a string first.
//!
//! Invariants
//! - No name or value given here can end a line: `field` refuses what would (response splitting).
//! - An empty chunk is never written by [`chunk`], as it would end the body.
//!
//! Not here: which fields a response must have (`conn/server.rs`), the date's text (`date.rs`).

use super::token::{is_field_name, is_field_value};
use crate::buffer::SendBuffer;
use core::fmt;

/// A field name with a byte outside `tchar`, or a value with a control byte. RFC 9110 §5.1, §5.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidField;

impl fmt::Display for InvalidField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a header has an invalid name or value")
    }
}

impl core::error::Error for InvalidField {}

/// Begins a response: `HTTP/1.1 200 OK`. RFC 9112 §4.
///
/// The status is written as three digits; the caller has checked that it has three.
pub fn status_line(tail: &mut Vec<u8>, status: u16) {
    debug_assert!((100..=999).contains(&status), "a status has three digits");
    if status == 200 {
        // Most answers: one copy of known length.
        return tail.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    status_line_saying(tail, status, reason_phrase(status).as_bytes());
}

/// The same with `reason`, which the caller has checked, as the reason phrase.
pub fn status_line_saying(tail: &mut Vec<u8>, status: u16, reason: &[u8]) {
    let digit = |unit: u16| b'0' + (status / unit % 10).to_le_bytes()[0];
    tail.extend_from_slice(b"HTTP/1.1 ");
    tail.extend_from_slice(&[digit(100), digit(10), digit(1), b' ']);
    tail.extend_from_slice(reason);
    tail.extend_from_slice(b"\r\n");
}

/// The registered reason phrase of a status; empty if it has none. RFC 9110 §15.
pub const fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
}

/// Writes one field line, whose name and value [`check_field`] has found valid. RFC 9112 §5.
pub(crate) fn field(tail: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    tail.extend_from_slice(name);
    tail.extend_from_slice(b": ");
    tail.extend_from_slice(value);
    tail.extend_from_slice(b"\r\n");
}

/// Whether a field may be written as it is. RFC 9110 §5.1, §5.5.
///
/// # Errors
/// [`InvalidField`] if the name is no token or the value has a control byte.
pub fn check_field(name: &[u8], value: &[u8]) -> Result<(), InvalidField> {
    if is_field_name(name) && is_field_value(value) {
        Ok(())
    } else {
        Err(InvalidField)
    }
}

/// Writes `Content-Length`. RFC 9110 §8.6.
pub fn content_length(tail: &mut Vec<u8>, len: u64) {
    // Written from the back into one piece, which is copied once.
    let mut line = *b"Content-Length: 00000000000000000000\r\n";
    let (name, rest) = line.split_at_mut(16);
    let mut start = rest.len() - 2;
    let mut left = len;
    loop {
        start -= 1;
        rest[start] = b'0' + (left % 10).to_le_bytes()[0];
        left /= 10;
        if left == 0 {
            break;
        }
    }
    tail.extend_from_slice(name);
    tail.extend_from_slice(&rest[start..]);
}

/// Writes `Date` from its text, which `date.rs` makes. RFC 9110 §6.6.1.
pub fn date(tail: &mut Vec<u8>, text: &[u8; 29]) {
    tail.extend_from_slice(b"Date: ");
    tail.extend_from_slice(text);
    tail.extend_from_slice(b"\r\n");
}

/// Ends the field section with the empty line. RFC 9112 §2.1.
pub fn end_of_head(tail: &mut Vec<u8>) {
    tail.extend_from_slice(b"\r\n");
}

/// Writes `bytes` as one chunk; nothing if there are none. RFC 9112 §7.1.
pub fn chunk(out: &mut SendBuffer, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let (digits, start) = hex_digits(bytes.len() as u64);
    let tail = out.tail(digits.len() + bytes.len() + 4);
    tail.extend_from_slice(&digits[start..]);
    tail.extend_from_slice(b"\r\n");
    tail.extend_from_slice(bytes);
    tail.extend_from_slice(b"\r\n");
}

/// Ends a chunked body, without trailers. RFC 9112 §7.1.
pub fn last_chunk(out: &mut SendBuffer) {
    out.append(b"0\r\n\r\n");
}

/// `value` in hexadecimal: the digits stand at the end of the array, from the offset given.
fn hex_digits(mut value: u64) -> ([u8; 16], usize) {
    let mut digits = [b'0'; 16];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
        if value == 0 {
            return (digits, start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::BufferPool;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut SendBuffer)) -> Vec<u8> {
        let mut out = SendBuffer::new(&BufferPool::default());
        write(&mut out);
        out.chunks().flatten().copied().collect()
    }

    #[test]
    fn rfc9112_4_a_status_line_has_its_space_even_without_a_phrase() {
        let line = |status| written(|out| status_line(out.tail(64), status));
        assert_eq!(line(200), b"HTTP/1.1 200 OK\r\n");
        assert_eq!(
            line(431),
            b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
        );
        assert_eq!(line(299), b"HTTP/1.1 299 \r\n");
        assert_eq!(line(404), b"HTTP/1.1 404 Not Found\r\n");
    }

    #[test]
    fn a_field_that_would_split_the_response_is_refused() {
        let bad: [(&[u8], &[u8]); 7] = [
            (b"", b"x"),
            (b"a b", b"x"),
            (b"a:", b"x"),
            (b"a", b"x\r\nb: y"),
            (b"a", b"x\ny"),
            (b"a", b"x\0"),
            (b"a\r\n", b"x"),
        ];
        for (name, value) in bad {
            assert_eq!(
                check_field(name, value),
                Err(InvalidField),
                "{name:?}: {value:?}"
            );
        }
        let (name, value): (&[u8], &[u8]) = (b"X-A", b"caf\xc3\xa9\t1");
        assert_eq!(check_field(name, value), Ok(()));
        let good = written(|out| field(out.tail(64), name, value));
        assert_eq!(good, b"X-A: caf\xc3\xa9\t1\r\n");
    }

    #[test]
    fn rfc9112_7_1_chunks_carry_their_size_and_an_empty_one_is_not_written() {
        let bytes = written(|out| {
            chunk(out, b"Wikipedia in \r\n");
            chunk(out, b"");
            chunk(out, &[b'x'; 16]);
            last_chunk(out);
        });
        assert_eq!(
            bytes,
            b"f\r\nWikipedia in \r\n\r\n10\r\nxxxxxxxxxxxxxxxx\r\n0\r\n\r\n"
        );
    }

    proptest! {
        #[test]
        fn numbers_are_written_as_the_standard_library_writes_them(value: u64) {
            let (digits, start) = hex_digits(value);
            let text = format!("{value:x}");
            prop_assert_eq!(&digits[start..], text.as_bytes());
            let line = format!("Content-Length: {value}\r\n");
            prop_assert_eq!(written(|out| content_length(out.tail(64), value)), line.as_bytes());
        }
    }
}
