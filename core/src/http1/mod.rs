//! HTTP/1.1 as this crate speaks it: requests, their heads, bodies and answers. RFC 9110, 9112.
//!
//! Sits in the protocol layer: pure functions from bytes to spans and from values to bytes. A head
//! is parsed in place; what the parser found are offsets ([`RequestHead`], [`Field`]), and
//! [`Request`] is the view that turns them into slices.
//!
//! - `token.rs`    byte classes
//! - `parse.rs`    request line, status line, field lines → spans
//! - `framing.rs`  which bytes after a head belong to its message
//! - `chunked.rs`  the chunked transfer coding
//! - `write.rs`    heads and chunks → bytes
//!
//! Not here: connections, order of answers, timeouts (`conn/server.rs`); WebSocket (`ws/`).

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
        let bytes = self.bytes;
        self.fields
            .iter()
            .map(move |field| (field.name.of(bytes), field.value.of(bytes)))
    }

    /// The value of the first field with this name, compared without case.
    pub fn field(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.fields()
            .find(|(have, _)| have.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Whether `Body` and `End` completions follow.
    pub fn has_body(&self) -> bool {
        self.head.framing != Framing::None
    }
}
