//! A request as an application asks for it, checked and written. RFC 9112 §3, RFC 9110 §8.6.
//!
//! Sits in the client's driver. Nothing of an [`Ask`] is kept: its head is written at once, and the
//! driver remembers what decides how the response is read.
//!
//! Invariants
//! - Nothing is written that could be read as more, or as other, fields than were given.
//! - The fields that delimit the message are the driver's own.
//!
//! Not here: the exchange (`conn/client.rs`), the response's syntax (`http1/`).

use crate::buffer::SendBuffer;
use crate::conn::Misuse;
use crate::http1::{Method, token, write};

/// A request to send, borrowed from the application until the call returns.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Any token, in its case.
    pub method: &'a [u8],
    /// The request-target in the form that the method and the next hop ask for.
    pub target: &'a [u8],
    /// The value of `Host`.
    pub host: &'a [u8],
    /// Further names and values, in order. `Host`, `Content-Length` and `Transfer-Encoding` are
    /// written by the driver and refused here; `Connection` may be `close`, `Expect` is refused.
    pub fields: &'a [(&'a [u8], &'a [u8])],
    /// What follows the head.
    pub body: AskBody<'a>,
    /// The most bytes of the response's body to collect into one `Body` event; `None` delivers
    /// them as they come.
    pub collect_bytes_max: Option<u64>,
}

/// The body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskBody<'a> {
    /// None. Methods that give a body a meaning say so with a length of zero (RFC 9110 §8.6).
    None,
    /// All of it.
    Whole(&'a [u8]),
    /// This many bytes follow by [`write_body`](super::ClientConn::write_body).
    Length(u64),
    /// Chunks follow by [`write_body`](super::ClientConn::write_body).
    Chunked,
}

impl Ask<'_> {
    /// Checks what may be sent; whether the request is the last of its connection.
    pub(super) fn check(&self) -> Result<bool, Misuse> {
        let target_is_good =
            !self.target.is_empty() && self.target.iter().copied().all(token::is_target_byte);
        if !token::is_field_name(self.method)
            || !target_is_good
            || !token::is_field_value(self.host)
        {
            return Err(Misuse::InvalidField);
        }
        let mut closes = false;
        for (name, value) in self.fields {
            write::check_field(name, value).map_err(|_| Misuse::InvalidField)?;
            let is = |managed: &str| name.eq_ignore_ascii_case(managed.as_bytes());
            if ["Host", "Content-Length", "Transfer-Encoding", "Expect"]
                .into_iter()
                .any(is)
            {
                return Err(Misuse::InvalidField);
            }
            if is("Connection") {
                closes |= value.eq_ignore_ascii_case(b"close");
            }
        }
        Ok(closes)
    }

    /// Writes the head; `method` is what its token stands for.
    pub(super) fn write_head(&self, method: Method, out: &mut SendBuffer) {
        let field_bytes: usize = self
            .fields
            .iter()
            .map(|(name, value)| name.len() + value.len() + 4)
            .sum();
        let tail =
            out.tail(self.method.len() + self.target.len() + self.host.len() + field_bytes + 96);
        for part in [self.method, b" ", self.target, b" HTTP/1.1\r\n"] {
            tail.extend_from_slice(part);
        }
        write::field(tail, b"Host", self.host);
        for (name, value) in self.fields {
            write::field(tail, name, value);
        }
        match self.body {
            AskBody::None if matches!(method, Method::Post | Method::Put | Method::Patch) => {
                write::content_length(tail, 0);
            }
            AskBody::None => {}
            AskBody::Whole(body) => write::content_length(tail, body.len() as u64),
            AskBody::Length(length) => write::content_length(tail, length),
            AskBody::Chunked => write::field(tail, b"Transfer-Encoding", b"chunked"),
        }
        write::end_of_head(tail);
    }
}
