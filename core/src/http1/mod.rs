//! HTTP/1.1 as this crate speaks it: requests, their heads, bodies and answers. RFC 9110, 9112.
//!
//! Sits in the protocol layer: pure functions from bytes to spans and from values to bytes. A head
//! is parsed in place; what the parser found are offsets ([`RequestHead`], [`Field`]), and
//! [`Request`] is the view that turns them into slices.
//!
//! - `token.rs`    byte classes
//! - `scan.rs`     a head byte by byte: its end, and what is wrong with it
//! - `parse.rs`    request line, status line, field lines → spans
//! - `clean.rs`    the same for heads that are whole and clean, fast
//! - `simd.rs`     its questions about bytes, answered in blocks
//! - `framing.rs`  which bytes after a head belong to its message
//! - `chunked.rs`  the chunked transfer coding
//! - `write.rs`    heads and chunks → bytes
//!
//! Strictness is decided once, here, and there are no switches. Of syntax errors the first in the
//! head is reported, as soon as it is there; of contradictions between fields, at the end of the
//! head, the first in the table of [`Violation`](crate::violation::Violation)s.
//!
//! | Input | We | RFC |
//! | --- | --- | --- |
//! | bare LF, bare CR | `LineEnding` | 9112 §2.2 |
//! | NUL or another control byte but HTAB in a value | `FieldValue` | 9110 §5.5 |
//! | obs-text (0x80 to 0xff) | taken in values, refused elsewhere | 9110 §5.5 |
//! | folded line, white space before the first field | `LineFolding` | 9112 §2.2, §5.2 |
//! | white space before the colon | `SpaceBeforeColon` | 9112 §5.1 |
//! | anything but one SP between the parts of a request line | refused | 9112 §3 |
//! | `GET /` alone, as HTTP/0.9 had it | `Version` | 9112 §2.3 |
//! | HTTP/1.2 to 1.9 | spoken to as 1.1 | 9110 §2.5 |
//! | any other version, the preface of HTTP/2 | `VersionUnsupported` | 9110 §15.6.6 |
//! | unknown method, well-formed | delivered | 9110 §9.1 |
//! | `CONNECT` | `Connect`: there are no tunnels, and a 2xx would promise one | 9110 §9.3.6 |
//! | `#` in a target | `Target` | 9112 §3.2 |
//! | visible ASCII that RFC 3986 does not list in a target | delivered: browsers send it | 9112 §3.2 |
//! | absolute-form other than `http`, `https`; with user information | `Target` | 9110 §4.2.4 |
//! | CONNECT without port; `*` with a method other than OPTIONS | `Target` | 9112 §3.2.3, §3.2.4 |
//! | no Host in HTTP/1.1; two in any version | `HostMissing`, `HostRepeated` | 9112 §3.2 |
//! | Host with an empty value | taken | 9112 §3.2 |
//! | Host with an empty name, a port over 65535, IPvFuture, a zone | `HostInvalid` | 9110 §7.2 |
//! | repeated Content-Length, even equal; a list | `ContentLengthRepeated` | 9110 §8.6 |
//! | Content-Length: sign, space inside, empty, 2^63 and over | `ContentLength` | 9110 §8.6 |
//! | both Content-Length and Transfer-Encoding | `FramingConflict` | 9112 §6.1 |
//! | Transfer-Encoding in HTTP/1.0 | `TransferEncodingVersion` | 9112 §6.1 |
//! | another coding before `chunked`, `identity` among them | `TransferCodingUnknown` | 9112 §6.1 |
//! | `chunked` missing, not last, twice, or with parameters | `TransferEncoding` | 9112 §6.3, §7.1 |
//! | empty list element in Transfer-Encoding | `TransferEncoding` | 9112 §11.2 |
//! | empty list element in Connection, Upgrade, Expect | ignored | 9110 §5.6.1.2 |
//! | Expect other than `100-continue` | `Expectation` | 9110 §10.1.1 |
//! | `Expect: 100-continue` in HTTP/1.0, or without a body | ignored | 9110 §10.1.1 |
//! | Upgrade in HTTP/1.0 | ignored | 9110 §7.8 |
//! | chunk-size: sign, space before the digits, empty | `ChunkSize` | 9112 §7.1 |
//! | chunk-size of more than 15 digits | `ChunkSizeTooLong` | 9112 §7.1 |
//! | chunk extension against its grammar, white space before CR among it | `ChunkExtension` | 9112 §7.1.1 |
//! | bare LF or CR after a chunk or its size | `ChunkLineEnding` | 9112 §7.1 |
//! | trailer field against the grammar of fields | `Trailer`, `LineEnding` | 9112 §7.1.2 |
//! | trailer fields, chunk extensions | checked, then dropped | 9112 §7.1.1, §7.1.2 |
//! | status line without the SP behind the code | taken: many servers leave it out | 9112 §4 |
//! | status below 100, or not three digits | `StatusLine` | 9112 §4 |
//! | response with a coding that is not `chunked` | `TransferCodingUnknown` | 9112 §6.3 |
//! | length or coding where a response has no body | ignored | 9112 §6.3 |
//! | one CRLF before a request line | skipped, by the driver | 9112 §2.2 |
//!
//! Not here: connections, order of answers, timeouts (`conn/server.rs`); WebSocket (`ws/`).

pub mod chunked;
mod clean;
mod framing;
pub mod parse;
mod scan;
mod simd;
pub mod token;
pub mod write;

use crate::buffer::Span;
use core::ops::Range;

/// The methods that some rule names; every other well-formed one is [`Method::Other`], and is
/// delivered all the same (RFC 9110 §9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`: answered without a body.
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
    /// `CONNECT`: its target is an authority.
    Connect,
    /// `OPTIONS`: its target may be `*`.
    Options,
    /// `TRACE`
    Trace,
    /// `PATCH`
    Patch,
    /// Any other token; its bytes are in the request.
    Other,
}

impl Method {
    /// The method that `token` names. Case matters (RFC 9110 §9.1): `get` is another method.
    pub fn of(token: &[u8]) -> Self {
        match token {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }
}

/// The minor version. Major versions other than 1 never get this far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1, and any later 1.x, which must be spoken to as 1.1 (RFC 9110 §2.5).
    Http11,
}

/// Which bytes after a head are its body. RFC 9112 §6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// Exactly this many bytes, at least one.
    Length(u64),
    /// The chunked transfer coding.
    Chunked,
    /// All bytes until the peer closes. Responses only.
    UntilClose,
}

/// The field names that rules of this crate look at, recognised while parsing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldName {
    /// `Host`
    Host,
    /// `Content-Length`
    ContentLength,
    /// `Transfer-Encoding`
    TransferEncoding,
    /// `Connection`
    Connection,
    /// `Expect`
    Expect,
    /// `Upgrade`
    Upgrade,
    /// Any other name.
    Other,
}

impl FieldName {
    /// Which name `token` is, whatever its case. For tokens only: other bytes may pass for letters.
    #[inline(always)]
    pub(crate) fn of(token: &[u8]) -> Self {
        // The first letter of each length's name, so that most others fail at one comparison.
        const FIRST: [u8; 18] = *b"\0\0\0\0h\0eu\0\0c\0\0\0c\0\0t";
        let first = token.first().map(|first| first | 0x20);
        if first.as_ref() != FIRST.get(token.len()) {
            return Self::Other;
        }
        Self::of_candidate(token)
    }

    /// Which name `token` is, if only its length and its first letter are known to suit one.
    #[inline(always)]
    fn of_candidate(token: &[u8]) -> Self {
        // The one that is in every request.
        if is_but_for_case(token, b"host") {
            return Self::Host;
        }
        Self::of_rarer_candidate(token)
    }

    #[inline(always)]
    fn of_rarer_candidate(token: &[u8]) -> Self {
        match token.len() {
            6 if is_but_for_case(token, b"expect") => Self::Expect,
            7 if is_but_for_case(token, b"upgrade") => Self::Upgrade,
            10 if is_but_for_case(token, b"connection") => Self::Connection,
            14 if is_but_for_case(token, b"content-length") => Self::ContentLength,
            17 if is_but_for_case(token, b"transfer-encoding") => Self::TransferEncoding,
            _ => Self::Other,
        }
    }
}

/// Whether `bytes`, which hold no control byte, are `lower` but for case: 4 to 24 letters and
/// hyphens.
///
/// Bit 5 tells a letter's case. Of the other bytes none becomes a letter when it is set, and only
/// CR becomes a hyphen.
#[inline(always)]
pub(crate) fn is_but_for_case<const N: usize>(bytes: &[u8], lower: &[u8; N]) -> bool {
    let Ok(bytes) = <&[u8; N]>::try_from(bytes) else {
        return false;
    };
    // Words from both ends, which may overlap.
    match N {
        4..8 => {
            same_letters::<4>(bytes.first_chunk(), lower.first_chunk())
                && same_letters::<4>(bytes.last_chunk(), lower.last_chunk())
        }
        8..=24 => {
            let middle = |bytes: &'_ [u8; N]| bytes.get(8..16)?.first_chunk().copied();
            same_letters::<8>(bytes.first_chunk(), lower.first_chunk())
                && same_letters::<8>(bytes.last_chunk(), lower.last_chunk())
                && (N <= 16 || same_letters::<8>(middle(bytes).as_ref(), middle(lower).as_ref()))
        }
        _ => bytes.eq_ignore_ascii_case(lower),
    }
}

/// Whether both are there, and the same but for bit 5 of each byte.
#[inline(always)]
fn same_letters<const N: usize>(bytes: Option<&[u8; N]>, lower: Option<&[u8; N]>) -> bool {
    let word = |bytes: &[u8; N]| {
        let mut word = [0; 8];
        word[..N].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    let case = u64::from_le_bytes([0x20; 8]);
    match (bytes, lower) {
        (Some(bytes), Some(lower)) => word(bytes) | case == word(lower) | case,
        _ => false,
    }
}

/// One field line: spans within the head that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name as sent; compare without case.
    pub name: Span,
    /// The value without surrounding white space.
    pub value: Span,
    /// Which name it is.
    pub id: FieldName,
}

/// What the head of a request says, as spans relative to its first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The method, if some rule names it.
    pub method: Method,
    /// The minor version.
    pub version: Version,
    /// Which bytes after the head are its body.
    pub framing: Framing,
    /// Whether the connection may carry another request after this one. RFC 9112 §9.3.
    pub keeps_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body. RFC 9110 §10.1.1.
    pub expects_continue: bool,
    /// Whether `Connection: upgrade` and `Upgrade` with `websocket` are both there.
    pub upgrades_to_websocket: bool,
    /// The method's bytes.
    pub method_span: Span,
    /// The request-target's bytes, as sent.
    pub target: Span,
    /// Where its fields stand in the vector the parser filled.
    pub fields: Range<u32>,
    /// Length of the head: request line, field lines and the empty line.
    pub len: u32,
}

/// What the head of a response says, as spans relative to its first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The minor version.
    pub version: Version,
    /// The status code, 100 to 999.
    pub status: u16,
    /// Which bytes after the head are its body, given the request's method.
    pub framing: Framing,
    /// Whether the connection may carry another exchange after this response. RFC 9112 §9.3.
    pub keeps_alive: bool,
    /// Whether this is a 101 whose `Connection` and `Upgrade` say WebSocket.
    pub upgrades_to_websocket: bool,
    /// The reason phrase; may be empty.
    pub reason: Span,
    /// Where its fields stand in the vector the parser filled.
    pub fields: Range<u32>,
    /// Length of the head: status line, field lines and the empty line.
    pub len: u32,
}

/// A parsed request with its bytes, borrowed from whoever holds them.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    head: &'a RequestHead,
    /// The head's own bytes.
    bytes: &'a [u8],
    fields: &'a [Field],
}

impl<'a> Request<'a> {
    /// A view of `head`, whose bytes are `bytes` and whose fields are `fields`.
    pub fn new(head: &'a RequestHead, bytes: &'a [u8], fields: &'a [Field]) -> Self {
        Self {
            head,
            bytes,
            fields,
        }
    }

    /// What the head says.
    pub fn head(&self) -> &'a RequestHead {
        self.head
    }

    /// The head's bytes: request line, field lines, empty line.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The field lines as spans of [`bytes`](Self::bytes).
    pub fn field_spans(&self) -> &'a [Field] {
        self.fields
    }

    /// The method's bytes, case-sensitive (RFC 9110 §9.1).
    pub fn method(&self) -> &'a [u8] {
        self.head.method_span.of(self.bytes)
    }

    /// The request-target as sent: origin-form, absolute-form, authority-form or `*`.
    pub fn target(&self) -> &'a [u8] {
        self.head.target.of(self.bytes)
    }

    /// Names and values in wire order.
    pub fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        lines(self.bytes, self.fields)
    }

    /// The value of the first field with this name, compared without case.
    pub fn field(&self, name: &[u8]) -> Option<&'a [u8]> {
        first(self.fields(), name)
    }

    /// Whether `Body` and `End` completions follow.
    pub fn has_body(&self) -> bool {
        self.head.framing != Framing::None
    }
}

/// A parsed response with its bytes, borrowed from whoever holds them.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    head: &'a ResponseHead,
    /// The head's own bytes.
    bytes: &'a [u8],
    fields: &'a [Field],
}

impl<'a> Response<'a> {
    /// A view of `head`, whose bytes are `bytes` and whose fields are `fields`.
    pub fn new(head: &'a ResponseHead, bytes: &'a [u8], fields: &'a [Field]) -> Self {
        Self {
            head,
            bytes,
            fields,
        }
    }

    /// What the head says.
    pub fn head(&self) -> &'a ResponseHead {
        self.head
    }

    /// The reason phrase as sent; often empty, never to be relied on (RFC 9112 §4).
    pub fn reason(&self) -> &'a [u8] {
        self.head.reason.of(self.bytes)
    }

    /// Names and values in wire order.
    pub fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone + use<'a> {
        lines(self.bytes, self.fields)
    }

    /// The value of the first field with this name, compared without case.
    pub fn field(&self, name: &[u8]) -> Option<&'a [u8]> {
        first(self.fields(), name)
    }

    /// Whether `Body` and `End` completions follow.
    pub fn has_body(&self) -> bool {
        self.head.framing != Framing::None
    }
}

/// A field line as slices: name and value.
type Line<'a> = (&'a [u8], &'a [u8]);

/// `fields` of the head whose bytes are `bytes`.
fn lines<'a>(
    bytes: &'a [u8],
    fields: &'a [Field],
) -> impl Iterator<Item = Line<'a>> + Clone + use<'a> {
    fields
        .iter()
        .map(move |field| (field.name.of(bytes), field.value.of(bytes)))
}

/// The value of the first of `lines` with this name, compared without case.
fn first<'a>(mut lines: impl Iterator<Item = Line<'a>>, name: &[u8]) -> Option<&'a [u8]> {
    lines
        .find(|(have, _)| have.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_compared_but_for_case_and_other_bytes_as_they_are() {
        let names = [
            (FieldName::Host, "host"),
            (FieldName::ContentLength, "content-length"),
            (FieldName::TransferEncoding, "transfer-encoding"),
            (FieldName::Connection, "connection"),
            (FieldName::Expect, "expect"),
            (FieldName::Upgrade, "upgrade"),
        ];
        for (id, name) in names {
            assert_eq!(FieldName::of(name.to_uppercase().as_bytes()), id, "{name}");
            for at in 0..name.len() {
                for byte in (0..=u8::MAX).filter(|byte| !byte.is_ascii_control()) {
                    let mut changed = name.as_bytes().to_vec();
                    changed[at] = byte;
                    let same = changed.eq_ignore_ascii_case(name.as_bytes());
                    let got = FieldName::of(&changed);
                    assert_eq!(got == id, same, "{}", changed.escape_ascii());
                    assert!(same || got == FieldName::Other);
                }
            }
            let longer = format!("{name}{}", "x".repeat(32));
            assert_eq!(FieldName::of(longer.as_bytes()), FieldName::Other);
        }
        for at in 0..10 {
            for byte in (0..=u8::MAX).filter(|byte| !byte.is_ascii_control()) {
                let mut value = *b"Keep-Alive";
                value[at] = byte;
                let same = value.eq_ignore_ascii_case(b"keep-alive");
                assert_eq!(is_but_for_case(&value, b"keep-alive"), same, "{value:?}");
            }
        }
    }
}
