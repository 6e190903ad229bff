//! What the two ends of a TLS connection have agreed on: version, protocol, whether by a full
//! handshake. RFC 8446, RFC 5246, RFC 7301.
//!
//! Sits in the transport, under the filter (`tls.rs`), which asks the session and hands this out.
//! It is for logs, and for tests that must know which handshake they have seen.
//!
//! Invariants
//! - There is none before the handshake is done: what is offered is no agreement.
//! - Only versions that are spoken here have a name here.
//!
//! Not here: whom the peer's certificate names (`certificate.rs`).

use core::fmt;
use rustls::{Connection, HandshakeKind, ProtocolVersion, SupportedProtocolVersion};

/// A version of TLS that is spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl TlsVersion {
    /// All that are spoken here.
    pub const ALL: &'static [Self] = &[Self::Tls12, Self::Tls13];

    pub(super) fn supported(self) -> &'static SupportedProtocolVersion {
        match self {
            Self::Tls12 => &rustls::version::TLS12,
            Self::Tls13 => &rustls::version::TLS13,
        }
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "TLS 1.2",
            Self::Tls13 => "TLS 1.3",
        })
    }
}

/// What the two ends have agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsAgreement<'a> {
    /// The version.
    pub version: TlsVersion,
    /// By a ticket of an earlier connection, without certificates.
    pub is_resumed: bool,
    /// The application protocol, if any was agreed on (RFC 7301).
    pub protocol: Option<&'a [u8]>,
    /// At a server: the name that the client has asked for, if it has (RFC 6066 §3).
    pub server_name: Option<&'a str>,
}

impl<'a> TlsAgreement<'a> {
    pub(super) fn of(session: &'a Connection) -> Option<Self> {
        if session.is_handshaking() {
            return None;
        }
        let version = match session.protocol_version()? {
            ProtocolVersion::TLSv1_2 => TlsVersion::Tls12,
            ProtocolVersion::TLSv1_3 => TlsVersion::Tls13,
            _ => return None,
        };
        Some(Self {
            version,
            is_resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
            protocol: session.alpn_protocol(),
            server_name: match session {
                Connection::Server(session) => session.server_name(),
                Connection::Client(_) => None,
            },
        })
    }
}
