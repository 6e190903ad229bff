//! The opening handshake of a WebSocket, from the client's end: what was asked, and whether the
//! answer agrees to it. RFC 6455 §4.1, RFC 7692 §5.1.
//!
//! Sits in the client's driver, which keeps an [`Opening`] while the answer is awaited. The rules
//! are `ws/handshake.rs`'s and `ws/deflate.rs`'s; here they meet a connection.
//!
//! Invariants
//! - The nonce and the seed of the masking keys come from outside and are used once.
//! - An answer is accepted only if it agrees to what was asked, extension parameters included.
//! - Of a refusal's body, [`REFUSAL_BYTES_MAX`] bytes are delivered at most: it is there to be shown
//!   to somebody, and the connection ends behind it.
//!
//! Not here: where the response is parsed and the driver replaced (`conn/client.rs`, `reactor/`).

use crate::buffer::SendBuffer;
use crate::conn::{Misuse, WsConn, WsSettings};
use crate::http1;
use crate::ws::Role;
use crate::ws::deflate::DeflateParams;
use crate::ws::handshake::{self, HandshakeError, KEY_BYTES, UpgradeRequest};
use std::rc::Rc;
use std::time::Instant;

/// Bytes of a refusal's body that are delivered.
pub(super) const REFUSAL_BYTES_MAX: u64 = 4 * 1024;

/// Unpredictable bytes that one opening takes: its nonce, and the seed of its masking keys.
pub const OPENING_ENTROPY_BYTES: usize = 24;

/// A WebSocket to open, borrowed from the application until the call returns.
#[derive(Clone, Copy, Debug)]
pub struct WsOpening<'a> {
    /// The request-target: path and query, beginning with `/`.
    pub target: &'a [u8],
    /// The value of `Host`.
    pub host: &'a [u8],
    /// Subprotocols offered, the favourite first: distinct tokens.
    pub protocols: &'a [&'a [u8]],
    /// Further names and values, such as `Origin` and `Authorization`. Those that the handshake
    /// writes itself are refused.
    pub fields: &'a [(&'a [u8], &'a [u8])],
    /// How the WebSocket is to behave; its role must be the client's. permessage-deflate is
    /// offered if they have it.
    pub settings: &'a Rc<WsSettings>,
}

/// An opening whose answer is awaited.
#[derive(Debug)]
pub(super) struct Opening {
    key: [u8; KEY_BYTES],
    mask_seed: u64,
    protocols: Vec<Box<[u8]>>,
    settings: Rc<WsSettings>,
    /// Bytes of a refusal's body that may still be delivered.
    pub(super) refusal_bytes_left: u64,
}

/// What an accepted opening has agreed on.
#[derive(Debug)]
pub struct Opened {
    settings: Rc<WsSettings>,
    deflate: Option<DeflateParams>,
    mask_seed: u64,
}

impl Opened {
    /// The driver that goes on with the connection.
    pub fn into_websocket(self, now: Instant) -> WsConn {
        let websocket = WsConn::new(self.settings, now, self.mask_seed);
        match self.deflate {
            Some(params) => websocket.with_deflate(params),
            None => websocket,
        }
    }
}

impl Opening {
    /// Writes the request for `wanted`.
    pub(super) fn begin(
        wanted: &WsOpening<'_>,
        entropy: [u8; OPENING_ENTROPY_BYTES],
        out: &mut SendBuffer,
    ) -> Result<Self, Misuse> {
        if wanted.settings.role != Role::Client {
            return Err(Misuse::WrongRole);
        }
        let (mut nonce, mut seed) = ([0; 16], [0; 8]);
        nonce.copy_from_slice(&entropy[..16]);
        seed.copy_from_slice(&entropy[16..]);
        let opening = Self {
            key: handshake::new_key(nonce),
            mask_seed: u64::from_le_bytes(seed),
            protocols: wanted.protocols.iter().map(|name| (*name).into()).collect(),
            settings: Rc::clone(wanted.settings),
            refusal_bytes_left: REFUSAL_BYTES_MAX,
        };
        let offer = opening.offer();
        let request = UpgradeRequest {
            host: wanted.host,
            target: wanted.target,
            key: &opening.key,
            protocols: wanted.protocols,
            extensions: offer.as_deref().map(str::as_bytes),
            fields: wanted.fields,
        };
        handshake::write_request(out, &request).map_err(|_| Misuse::InvalidField)?;
        Ok(opening)
    }

    /// Judges the answer.
    pub(super) fn finish(&self, response: &http1::Response<'_>) -> Result<Opened, HandshakeError> {
        let protocols: Vec<&[u8]> = self.protocols.iter().map(|name| &name[..]).collect();
        let offer = self.offer();
        let request = UpgradeRequest {
            host: b"",
            target: b"",
            key: &self.key,
            protocols: &protocols,
            extensions: offer.as_deref().map(str::as_bytes),
            fields: &[],
        };
        let status = response.head().status;
        handshake::check_response(&request, status, response.fields())?;
        let deflate = match &self.settings.deflate {
            Some(settings) => {
                settings.check_answer(handshake::accepted_extensions(response.fields()))?
            }
            None => None,
        };
        Ok(Opened {
            settings: Rc::clone(&self.settings),
            deflate,
            mask_seed: self.mask_seed,
        })
    }

    /// The value of `Sec-WebSocket-Extensions`, as offered.
    fn offer(&self) -> Option<String> {
        self.settings
            .deflate
            .as_ref()
            .map(|deflate| deflate.offer())
    }
}
