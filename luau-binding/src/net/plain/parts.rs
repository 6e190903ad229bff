//! What a dialect's table of a request is made of, read where the request lies: in the connection's
//! buffer, or among those that have waited for their body.
//!
//! Sits inside `plain.rs`. Most requests have no body, and no copy of their head is made: names and
//! values go from the buffer to the VM.
//!
//! Invariants
//! - Both implementations say the same of the same request.
//!
//! Not here: which tables are made of it (`plain.rs`, `templates.rs`), requests as userdata
//! (`request.rs`).

use crate::net::request::{Origin, View};
use core::net::IpAddr;
use hukilau_core::http1::Request;
use hukilau_core::transport::Peer;

/// A request, part by part.
pub(crate) trait Parts {
    /// The method as sent.
    fn method(&self) -> &[u8];
    /// The request-target as sent.
    fn target(&self) -> &[u8];
    /// How many [`fields`](Self::fields) there are.
    fn field_count(&self) -> usize;
    /// Names and values in wire order.
    fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])>;
    /// The bytes of the head from the first field's name on; empty without fields.
    fn field_lines(&self) -> &[u8];
    /// The body, as far as it is at hand.
    fn body(&self) -> &[u8];
    /// The peer's address; `None` for a socket file.
    fn address(&self) -> Option<IpAddr>;
    /// The peer's port; 0 for a socket file.
    fn port(&self) -> u16;
}

/// A request without a body, in the connection's buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arriving<'a> {
    pub(crate) request: &'a Request<'a>,
    pub(crate) origin: &'a Origin,
}

impl Parts for Arriving<'_> {
    fn method(&self) -> &[u8] {
        self.request.method()
    }

    fn target(&self) -> &[u8] {
        self.request.target()
    }

    fn field_count(&self) -> usize {
        self.request.field_spans().len()
    }

    fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.request.fields()
    }

    fn field_lines(&self) -> &[u8] {
        let first = self.request.field_spans().first();
        first
            .and_then(|field| {
                let start = usize::try_from(field.name.start).ok()?;
                self.request.bytes().get(start..)
            })
            .unwrap_or_default()
    }

    fn body(&self) -> &[u8] {
        &[]
    }

    fn address(&self) -> Option<IpAddr> {
        match self.origin.peer {
            Some(Peer::Ip(peer)) => Some(peer.ip()),
            _ => None,
        }
    }

    fn port(&self) -> u16 {
        match self.origin.peer {
            Some(Peer::Ip(peer)) => peer.port(),
            _ => 0,
        }
    }
}

impl Parts for View<'_> {
    fn method(&self) -> &[u8] {
        self.method()
    }

    fn target(&self) -> &[u8] {
        self.target()
    }

    fn field_count(&self) -> usize {
        self.field_count()
    }

    fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields()
    }

    fn field_lines(&self) -> &[u8] {
        self.field_lines()
    }

    fn body(&self) -> &[u8] {
        self.body()
    }

    fn address(&self) -> Option<IpAddr> {
        self.address()
    }

    fn port(&self) -> u16 {
        self.port()
    }
}
