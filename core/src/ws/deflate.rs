//! permessage-deflate: what is offered and agreed. RFC 7692 §5, §7.1.
//!
//! Sits in the protocol layer beside `handshake.rs`, which carries the field values. Off unless an
//! application asks for it: a window each way is more memory than all the rest of a connection.
//!
//! ```text
//! client: DeflateSettings::offer ──▶ DeflateOffer::first :server
//! client: DeflateSettings::check_answer ◀── DeflateOffer::answer, DeflateParams::answer_value :server
//! ```
//!
//! Invariants
//! - Both ends come to the same [`DeflateParams`], each from its side (tested face to face).
//! - An offer with an unknown, repeated or malformed parameter is declined, not refused; an answer
//!   with one fails the handshake (§5.1).
//! - Window sizes are 9 to 15 bits. An 8-bit window of ours cannot be served by any zlib: such an
//!   offer is declined. One of the peer's can, as 9 bits hold what 8 do.
//!
//! Not here: bytes (`deflate/codec.rs`), which frames are compressed (`message.rs`).

mod codec;

pub use codec::{CodecPool, Deflate};

use super::extension::Extension;
use super::handshake::HandshakeError;

/// The extension's name.
pub const NAME: &[u8] = b"permessage-deflate";

/// The largest window: 2^15 bytes, as deflate has it.
const WINDOW_BITS_MAX: u8 = 15;

/// The smallest window that a compressor of ours can keep to.
const WINDOW_BITS_MIN: u8 = 9;

/// How to compress, and how much memory to spend. Given to all connections of a listener.
#[derive(Clone, Debug)]
pub struct DeflateSettings {
    /// Bytes below which a message is sent as it is: it would hardly shrink. Default 256.
    pub compress_bytes_min: usize,
    /// Effort, 1 (fast) to 9 (small). Default 3. Zero and more than nine are brought into range.
    pub level: u8,
    /// Whether what we send may refer to earlier messages of ours. Better compression for about
    /// 256 KiB per connection; without it, connections share one compressor. Default false.
    pub own_context_takeover: bool,
    /// Whether what the peer sends may refer to its earlier messages. About 48 KiB per connection.
    /// Default false.
    pub peer_context_takeover: bool,
    /// Our window as a power of two, 9 to 15; brought into range. Default 15.
    pub own_window_bits: u8,
    /// The largest window of the peer's, likewise. A server can ask for less than 15 only of
    /// clients that offer to be asked. Default 15.
    pub peer_window_bits: u8,
    /// Codecs at rest, shared by all connections with these settings.
    pub codecs: CodecPool,
}

impl Default for DeflateSettings {
    fn default() -> Self {
        Self {
            compress_bytes_min: 256,
            level: 3,
            own_context_takeover: false,
            peer_context_takeover: false,
            own_window_bits: WINDOW_BITS_MAX,
            peer_window_bits: WINDOW_BITS_MAX,
            codecs: CodecPool::default(),
        }
    }
}

/// What was agreed for one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direction {
    /// Whether a message may refer to earlier ones.
    pub context_takeover: bool,
    /// The window as a power of two, 8 to 15.
    pub window_bits: u8,
}

/// What was agreed for a connection, from our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeflateParams {
    /// What we send.
    pub own: Direction,
    /// What the peer sends.
    pub peer: Direction,
    /// Whether an answer may bound the peer's window: only if the offer invited it.
    answers_peer_window: bool,
}

/// One offer of a client that a server can accept. Small and `Copy`: it outlives its request until
/// the application has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeflateOffer(Params);

/// The four parameters as they stand in an offer or an answer. RFC 7692 §7.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Params {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    client_max_window_bits: Option<ClientBits>,
}

/// `client_max_window_bits`, which an offer may have without a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientBits {
    Any,
    AtMost(u8),
}

impl Params {
    /// Reads the parameters of `extension`; none if one is unknown, repeated or malformed.
    fn parse(extension: &Extension<'_>) -> Option<Self> {
        if extension.name != NAME {
            return None;
        }
        let mut params = Self::default();
        for (name, value) in extension.params() {
            let repeated = match (name, value.as_deref()) {
                (b"server_no_context_takeover", None) => {
                    core::mem::replace(&mut params.server_no_context_takeover, true)
                }
                (b"client_no_context_takeover", None) => {
                    core::mem::replace(&mut params.client_no_context_takeover, true)
                }
                (b"server_max_window_bits", Some(value)) => {
                    let bits = window_bits(value)?;
                    params.server_max_window_bits.replace(bits).is_some()
                }
                (b"client_max_window_bits", value) => {
                    let bits = match value {
                        Some(value) => ClientBits::AtMost(window_bits(value)?),
                        None => ClientBits::Any,
                    };
                    params.client_max_window_bits.replace(bits).is_some()
                }
                _ => return None,
            };
            if repeated {
                return None;
            }
        }
        Some(params)
    }

    /// As the value of `Sec-WebSocket-Extensions`.
    fn value(&self) -> String {
        let mut value = String::from("permessage-deflate");
        if self.server_no_context_takeover {
            value.push_str("; server_no_context_takeover");
        }
        if self.client_no_context_takeover {
            value.push_str("; client_no_context_takeover");
        }
        if let Some(bits) = self.server_max_window_bits {
            value.push_str("; server_max_window_bits=");
            value.push_str(&bits.to_string());
        }
        match self.client_max_window_bits {
            Some(ClientBits::Any) => value.push_str("; client_max_window_bits"),
            Some(ClientBits::AtMost(bits)) => {
                value.push_str("; client_max_window_bits=");
                value.push_str(&bits.to_string());
            }
            None => {}
        }
        value
    }
}

/// A window size: 8 to 15 in decimal, without leading zeros. RFC 7692 §7.1.2.
fn window_bits(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ (b'8' | b'9')] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

impl DeflateOffer {
    /// The first of a request's extensions that is an offer we can accept: the client lists its
    /// favourite first. RFC 7692 §5.
    pub fn first<'a>(extensions: impl Iterator<Item = Extension<'a>>) -> Option<Self> {
        extensions
            .filter_map(|extension| Params::parse(&extension))
            .find(|params| {
                params
                    .server_max_window_bits
                    .is_none_or(|bits| bits >= WINDOW_BITS_MIN)
            })
            .map(Self)
    }

    /// What a server with these settings agrees to.
    pub fn answer(self, settings: &DeflateSettings) -> DeflateParams {
        let offer = self.0;
        let wished = settings.peer_window_bits();
        let (peer_bits, answers_peer_window) = match offer.client_max_window_bits {
            None => (WINDOW_BITS_MAX, false),
            Some(ClientBits::Any) => (wished, true),
            Some(ClientBits::AtMost(bits)) => (wished.min(bits), true),
        };
        let own_bits = offer.server_max_window_bits.unwrap_or(WINDOW_BITS_MAX);
        DeflateParams {
            own: Direction {
                context_takeover: settings.own_context_takeover
                    && !offer.server_no_context_takeover,
                window_bits: settings.own_window_bits().min(own_bits),
            },
            peer: Direction {
                context_takeover: settings.peer_context_takeover
                    && !offer.client_no_context_takeover,
                window_bits: peer_bits,
            },
            answers_peer_window,
        }
    }
}

impl DeflateParams {
    /// The value of `Sec-WebSocket-Extensions` with which a server agrees to this.
    ///
    /// A bound on the server's window is always told: the client can then save memory, and it must
    /// be if the offer asked for one.
    pub fn answer_value(&self) -> String {
        let told = self.answers_peer_window && self.peer.window_bits < WINDOW_BITS_MAX;
        Params {
            server_no_context_takeover: !self.own.context_takeover,
            client_no_context_takeover: !self.peer.context_takeover,
            server_max_window_bits: Some(self.own.window_bits)
                .filter(|bits| *bits < WINDOW_BITS_MAX),
            client_max_window_bits: told.then_some(ClientBits::AtMost(self.peer.window_bits)),
        }
        .value()
    }
}

impl DeflateSettings {
    /// The value of `Sec-WebSocket-Extensions` with which a client offers this.
    pub fn offer(&self) -> String {
        self.offered().value()
    }

    fn offered(&self) -> Params {
        let own_bits = self.own_window_bits();
        Params {
            server_no_context_takeover: !self.peer_context_takeover,
            client_no_context_takeover: !self.own_context_takeover,
            server_max_window_bits: Some(self.peer_window_bits())
                .filter(|bits| *bits < WINDOW_BITS_MAX),
            client_max_window_bits: Some(match own_bits {
                WINDOW_BITS_MAX => ClientBits::Any,
                bits => ClientBits::AtMost(bits),
            }),
        }
    }

    /// What a server's answer to [`offer`](Self::offer) comes to; `Ok(None)` if it declined.
    ///
    /// # Errors
    /// `ExtensionUnoffered` if the answer is malformed, names anything else, promises less than was
    /// asked for, or asks for an 8-bit window of ours. RFC 7692 §5.1, §7.1.
    pub fn check_answer<'a>(
        &self,
        mut extensions: impl Iterator<Item = Extension<'a>>,
    ) -> Result<Option<DeflateParams>, HandshakeError> {
        let Some(extension) = extensions.next() else {
            return Ok(None);
        };
        let refused = HandshakeError::ExtensionUnoffered;
        let answer = Params::parse(&extension).ok_or(refused)?;
        let offered = self.offered();
        let peer_bits = match (
            offered.server_max_window_bits,
            answer.server_max_window_bits,
        ) {
            (Some(asked), Some(bits)) if bits <= asked => bits,
            (None, bits) => bits.unwrap_or(WINDOW_BITS_MAX),
            _ => return Err(refused),
        };
        let own_bits = match answer.client_max_window_bits {
            None => self.own_window_bits(),
            Some(ClientBits::AtMost(bits)) if bits >= WINDOW_BITS_MIN => {
                self.own_window_bits().min(bits)
            }
            Some(_) => return Err(refused),
        };
        let takeover_kept =
            offered.server_no_context_takeover && !answer.server_no_context_takeover;
        if takeover_kept || extensions.next().is_some() {
            return Err(refused);
        }
        Ok(Some(DeflateParams {
            own: Direction {
                context_takeover: self.own_context_takeover && !answer.client_no_context_takeover,
                window_bits: own_bits,
            },
            peer: Direction {
                context_takeover: !answer.server_no_context_takeover,
                window_bits: peer_bits,
            },
            answers_peer_window: answer.client_max_window_bits.is_some(),
        }))
    }

    fn own_window_bits(&self) -> u8 {
        self.own_window_bits.clamp(WINDOW_BITS_MIN, WINDOW_BITS_MAX)
    }

    fn peer_window_bits(&self) -> u8 {
        self.peer_window_bits
            .clamp(WINDOW_BITS_MIN, WINDOW_BITS_MAX)
    }
}

#[cfg(test)]
mod tests;
