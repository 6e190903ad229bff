//! WebSocket as this crate speaks it. RFC 6455.
//!
//! Sits in the protocol layer: pure functions and small codecs over bytes.
//!
//! - `frame.rs`      §5.2: frame headers, decoded and encoded
//! - `mask.rs`       §5.3: masking
//! - `utf8.rs`       §8.1: UTF-8 checked as it streams
//! - `message.rs`    §5.4: fragments → messages, control frames between them
//! - `handshake.rs`  §4: upgrade request and response, both roles
//! - `extension.rs`  §9.1: the grammar of extension lists
//! - `deflate.rs`    RFC 7692: permessage-deflate
//!
//! Not here: the connection's life (closing handshake, pings, timeouts): `conn/websocket.rs`.

pub mod deflate;
pub mod extension;
pub mod frame;
pub mod handshake;
pub mod mask;
pub mod message;
pub mod utf8;

/// Which end we are. A server requires masked frames and sends none; a client the reverse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We accepted the connection.
    Server,
    /// We opened the connection.
    Client,
}

/// What a message holds. RFC 6455 §5.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// UTF-8, checked before delivery.
    Text,
    /// Any bytes.
    Binary,
}

/// What a frame holds. RFC 6455 §5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// The next fragment of a message.
    Continuation,
    /// The first or only fragment of a text message.
    Text,
    /// The first or only fragment of a binary message.
    Binary,
    /// The closing handshake.
    Close,
    /// Asks for a pong.
    Ping,
    /// Answers a ping, or comes unasked.
    Pong,
}

impl Opcode {
    /// Whether frames of this kind may stand between fragments. RFC 6455 §5.5.
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    /// Its four bits on the wire.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }
}

impl From<MessageKind> for Opcode {
    fn from(kind: MessageKind) -> Self {
        match kind {
            MessageKind::Text => Self::Text,
            MessageKind::Binary => Self::Binary,
        }
    }
}

/// Close codes that a rule of this crate names. RFC 6455 §7.4.1.
pub mod close_code {
    /// The purpose is fulfilled.
    pub const NORMAL: u16 = 1000;
    /// The end is going away: server shutdown, page left.
    pub const GOING_AWAY: u16 = 1001;
    /// Never on the wire: a close frame came without a code.
    pub const NO_STATUS: u16 = 1005;
    /// Never on the wire: the connection ended without a close frame.
    pub const ABNORMAL: u16 = 1006;
    /// A message breaks a rule of the one who receives it.
    pub const POLICY_VIOLATION: u16 = 1008;
    /// The end met a condition it did not expect.
    pub const INTERNAL_ERROR: u16 = 1011;
    /// Try again later: here, a peer too slow to keep up.
    pub const TRY_AGAIN_LATER: u16 = 1013;

    /// Whether a peer may put `code` in a close frame. RFC 6455 §7.4.2, and the IANA registry for
    /// 1012 to 1014.
    pub const fn may_be_sent(code: u16) -> bool {
        matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}
