//! [`TlsError`]: why a TLS connection, or the attempt at one, failed, in words for people.
//!
//! Sits in the transport, beside the seam and without rustls, so that causes can carry it in a
//! build without TLS too. `tls.rs` makes these of what the library says.
//!
//! Invariants
//! - Each kind has one stable name and one sentence of its own: nobody has to guess from "handshake
//!   failed" whether it was the name, the date or the issuer.
//! - Nothing the peer chose stands in the text but names of its certificate, escaped.
//!
//! Not here: what was wrong with our own settings (`tls/config.rs`).

use core::fmt;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsErrorKind {
    /// Nobody whom we trust has signed the peer's certificate.
    UnknownIssuer,
    /// The peer's certificate, or one above it, has expired.
    Expired,
    /// The peer's certificate, or one above it, is not valid yet.
    NotYetValid,
    /// The certificate is for other names than the one we asked for.
    WrongName,
    /// The certificate is malformed, badly signed, or not for this purpose.
    BadCertificate,
    /// We require a certificate of the peer and it sent none.
    NoCertificate,
    /// No version of TLS that both ends speak (we: 1.2 and 1.3).
    Version,
    /// Nothing else that both ends speak: cipher suite, key exchange, application protocol.
    NothingInCommon,
    /// The peer gave up and said why.
    Alert,
    /// An HTTP request without TLS.
    PlainHttp,
    /// Not TLS at all.
    NotTls,
    /// The peer closed the connection in the middle of the handshake.
    HandshakeCut,
    /// What was received does not decrypt: it was changed on its way.
    Corrupt,
    /// The peer broke a rule of TLS.
    Misbehaved,
    /// Our own end cannot go on.
    Internal,
}

impl TlsErrorKind {
    /// A short, stable name, for metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownIssuer => "unknown_issuer",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongName => "wrong_name",
            Self::BadCertificate => "bad_certificate",
            Self::NoCertificate => "no_certificate",
            Self::Version => "version",
            Self::NothingInCommon => "nothing_in_common",
            Self::Alert => "alert",
            Self::PlainHttp => "plain_http",
            Self::NotTls => "not_tls",
            Self::HandshakeCut => "handshake_cut",
            Self::Corrupt => "corrupt",
            Self::Misbehaved => "misbehaved",
            Self::Internal => "internal",
        }
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::UnknownIssuer => "the certificate was not issued by anyone trusted here",
            Self::Expired => "the certificate has expired",
            Self::NotYetValid => "the certificate is not valid yet",
            Self::WrongName => "the certificate is for another name",
            Self::BadCertificate => "the certificate is not acceptable",
            Self::NoCertificate => "the peer sent no certificate",
            Self::Version => "no TLS version in common (1.2 and 1.3 are spoken here)",
            Self::NothingInCommon => "nothing in common to agree on",
            Self::Alert => "the peer refused",
            Self::PlainHttp => "the peer sent HTTP without TLS",
            Self::NotTls => "the peer does not speak TLS",
            Self::HandshakeCut => "the peer closed the connection during the TLS handshake",
            Self::Corrupt => "a record does not decrypt",
            Self::Misbehaved => "the peer broke a rule of TLS",
            Self::Internal => "TLS cannot go on",
        }
    }
}

/// Why a TLS connection failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError {
    kind: TlsErrorKind,
    detail: Option<Box<str>>,
}

impl TlsError {
    /// An error whose kind says it all.
    pub const fn new(kind: TlsErrorKind) -> Self {
        Self { kind, detail: None }
    }

    /// An error with a word about this case.
    pub fn with_detail(kind: TlsErrorKind, detail: impl Into<Box<str>>) -> Self {
        Self {
            kind,
            detail: Some(detail.into()),
        }
    }

    /// What went wrong.
    pub const fn kind(&self) -> TlsErrorKind {
        self.kind
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.sentence())?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for TlsError {}
