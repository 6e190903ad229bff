//! The opening handshake: an HTTP upgrade, asked for and answered, both roles. RFC 6455 §4.
//!
//! Sits in the protocol layer. The handshake *is* HTTP, so this is the one file of `ws` that knows
//! requests; it is a judge and a writer and keeps no state.
//!
//! ```text
//! client: new_key, write_request ──▶ check_upgrade :server
//! client: check_response ◀── write_accept(accept_key) :server
//! ```
//!
//! Invariants
//! - A request that is accepted here keeps every MUST of §4.1 that a server can see; one that does
//!   not is answered with the status that [`HandshakeError::status`] says.
//! - Nothing here allocates, and nothing is written unless all of it is valid.
//!
//! Not here: heads and their syntax (`http1/`), what extensions mean (`deflate.rs`), `Host` and
//! `Connection` of a request, which `http1/framing.rs` has judged.

use super::extension::{self, Extension};
use crate::buffer::SendBuffer;
use crate::http1::token::{is_field_name, is_field_value, is_target_byte};
use crate::http1::write::InvalidField;
use crate::http1::{Method, Request, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use core::fmt;
use sha1::{Digest, Sha1};

/// The one version there is. RFC 6455 §4.1.
const WEBSOCKET_VERSION: &[u8] = b"13";

/// What both sides append to the key before hashing. RFC 6455 §1.3.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Bytes of a key: base64 of 16 bytes.
pub const KEY_BYTES: usize = 24;

/// Bytes of an accept key: base64 of a SHA-1.
pub const ACCEPT_KEY_BYTES: usize = 28;

/// Fields that the handshake writes itself, or that no upgrade may carry.
const RESERVED_FIELDS: &[&[u8]] = &[
    b"Host",
    b"Connection",
    b"Upgrade",
    b"Content-Length",
    b"Transfer-Encoding",
    b"Sec-WebSocket-Key",
    b"Sec-WebSocket-Version",
    b"Sec-WebSocket-Accept",
    b"Sec-WebSocket-Protocol",
    b"Sec-WebSocket-Extensions",
];

/// Why a handshake fails. The first rows are a server's answers, the others a client's reasons to
/// give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The request does not ask for a WebSocket: no `Upgrade: websocket`, no `Connection: upgrade`.
    NotAnUpgrade,
    /// The method is not GET.
    Method,
    /// The request is not HTTP/1.1.
    HttpVersion,
    /// The request has a body.
    Body,
    /// `Sec-WebSocket-Version` is not there exactly once.
    VersionMissing,
    /// `Sec-WebSocket-Version` is not 13.
    VersionUnsupported,
    /// `Sec-WebSocket-Key` is not there exactly once, or is not base64 of 16 bytes.
    Key,
    /// `Sec-WebSocket-Protocol` is no list of tokens.
    Protocols,
    /// `Sec-WebSocket-Extensions` breaks its grammar.
    Extensions,
    /// The response is not 101.
    Status,
    /// The response lacks `Upgrade: websocket` or `Connection: upgrade`.
    NotUpgraded,
    /// `Sec-WebSocket-Accept` is not there exactly once, or is not the key's.
    Accept,
    /// A subprotocol that was not offered, or more than one.
    ProtocolUnoffered,
    /// An extension that was not offered, or with parameters that do not fit the offer.
    ExtensionUnoffered,
}

impl HandshakeError {
    /// The status to answer a request with; 0 for what is wrong with a response.
    pub const fn status(self) -> u16 {
        match self {
            Self::Method => 405,
            Self::NotAnUpgrade | Self::VersionUnsupported => 426,
            Self::HttpVersion
            | Self::Body
            | Self::VersionMissing
            | Self::Key
            | Self::Protocols
            | Self::Extensions => 400,
            Self::Status
            | Self::NotUpgraded
            | Self::Accept
            | Self::ProtocolUnoffered
            | Self::ExtensionUnoffered => 0,
        }
    }

    /// The fields that an answer with this status must carry beside the usual ones.
    pub const fn fields(self) -> &'static [(&'static [u8], &'static [u8])] {
        match self {
            Self::Method => &[(b"Allow", b"GET")],
            Self::NotAnUpgrade | Self::VersionUnsupported => &[
                (b"Upgrade", b"websocket"),
                (b"Sec-WebSocket-Version", WEBSOCKET_VERSION),
            ],
            _ => &[],
        }
    }

    /// Where the rule is written down.
    pub const fn section(self) -> &'static str {
        match self {
            Self::NotAnUpgrade => "RFC 9110 §15.5.22",
            Self::Method | Self::HttpVersion | Self::Body => "RFC 6455 §4.1",
            Self::VersionMissing | Self::Key => "RFC 6455 §4.2.1",
            Self::VersionUnsupported => "RFC 6455 §4.4",
            Self::Protocols => "RFC 6455 §11.3.4",
            Self::Extensions => "RFC 6455 §9.1",
            Self::Status
            | Self::NotUpgraded
            | Self::Accept
            | Self::ProtocolUnoffered
            | Self::ExtensionUnoffered => "RFC 6455 §4.1",
        }
    }

    /// The broken rule as half a sentence.
    pub const fn rule(self) -> &'static str {
        match self {
            Self::NotAnUpgrade => "not a WebSocket upgrade",
            Self::Method => "method is not GET",
            Self::HttpVersion => "HTTP version is below 1.1",
            Self::Body => "upgrade request with a body",
            Self::VersionMissing => "Sec-WebSocket-Version missing or repeated",
            Self::VersionUnsupported => "Sec-WebSocket-Version is not 13",
            Self::Key => "Sec-WebSocket-Key missing, repeated or malformed",
            Self::Protocols => "malformed Sec-WebSocket-Protocol",
            Self::Extensions => "malformed Sec-WebSocket-Extensions",
            Self::Status => "status is not 101",
            Self::NotUpgraded => "response does not upgrade to websocket",
            Self::Accept => "wrong Sec-WebSocket-Accept",
            Self::ProtocolUnoffered => "subprotocol was not offered",
            Self::ExtensionUnoffered => "extension was not offered",
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.rule(), self.section())
    }
}

impl core::error::Error for HandshakeError {}

/// An upgrade request that keeps the rules.
#[derive(Clone, Copy, Debug)]
pub struct ClientOffer<'a> {
    request: Request<'a>,
    /// The client's key: 24 bytes of base64, for [`accept_key`].
    pub key: &'a [u8],
}

impl<'a> ClientOffer<'a> {
    /// The subprotocols offered, the client's favourite first. RFC 6455 §4.1.
    pub fn protocols(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        values(self.request.fields(), b"Sec-WebSocket-Protocol")
            .flat_map(|value| extension::tokens(value).flatten())
    }

    /// Whether `protocol` is among them; a server may accept no other. RFC 6455 §4.2.2.
    pub fn offers_protocol(&self, protocol: &[u8]) -> bool {
        self.protocols().any(|offered| offered == protocol)
    }

    /// The extensions offered, the client's favourite first. RFC 6455 §9.1.
    pub fn extensions(&self) -> impl Iterator<Item = Extension<'a>> + use<'a> {
        values(self.request.fields(), b"Sec-WebSocket-Extensions")
            .flat_map(|value| extension::extensions(value).flatten())
    }
}

/// Judges an upgrade request. `Host` and the syntax of the head have been judged before.
///
/// # Errors
/// The first rule it breaks, with the status to answer. RFC 6455 §4.2.1.
pub fn check_upgrade<'a>(request: &Request<'a>) -> Result<ClientOffer<'a>, HandshakeError> {
    let head = request.head();
    if head.method != Method::Get {
        return Err(HandshakeError::Method);
    }
    if head.version != Version::Http11 {
        return Err(HandshakeError::HttpVersion);
    }
    if !head.upgrades_to_websocket {
        return Err(HandshakeError::NotAnUpgrade);
    }
    if request.has_body() {
        return Err(HandshakeError::Body);
    }
    let version =
        single(request.fields(), b"Sec-WebSocket-Version").ok_or(HandshakeError::VersionMissing)?;
    if version != WEBSOCKET_VERSION {
        return Err(HandshakeError::VersionUnsupported);
    }
    let key = single(request.fields(), b"Sec-WebSocket-Key")
        .filter(|key| is_key(key))
        .ok_or(HandshakeError::Key)?;
    // That no name comes twice is the client's duty alone: it would cost quadratic time to check.
    let malformed = values(request.fields(), b"Sec-WebSocket-Protocol")
        .flat_map(extension::tokens)
        .any(|protocol| protocol.is_err());
    if malformed {
        return Err(HandshakeError::Protocols);
    }
    if values(request.fields(), b"Sec-WebSocket-Extensions")
        .flat_map(extension::extensions)
        .any(|extension| extension.is_err())
    {
        return Err(HandshakeError::Extensions);
    }
    Ok(ClientOffer {
        request: *request,
        key,
    })
}

/// What a server answers to `client_key`: base64 of the SHA-1 of it and a fixed text.
/// RFC 6455 §4.2.2.
pub fn accept_key(client_key: &[u8]) -> [u8; ACCEPT_KEY_BYTES] {
    let hash = Sha1::new()
        .chain_update(client_key)
        .chain_update(KEY_SUFFIX)
        .finalize();
    base64(hash.as_slice())
}

/// The key a client sends: base64 of 16 random bytes, new for each connection. RFC 6455 §4.1.
pub fn new_key(nonce: [u8; 16]) -> [u8; KEY_BYTES] {
    base64(&nonce)
}

/// Writes the response that accepts an upgrade, empty line included. RFC 6455 §4.2.2.
///
/// `accept` is [`accept_key`] of the offer's key. `protocol` must be among those offered, which
/// [`ClientOffer::offers_protocol`] tells. `extensions` is the value of
/// `Sec-WebSocket-Extensions`, if any was agreed. `fields` are further ones, such as `Set-Cookie`.
///
/// # Errors
/// [`InvalidField`] for a subprotocol that is no token, and for a field that is malformed or that
/// the handshake itself writes; then nothing is written.
pub fn write_accept(
    out: &mut SendBuffer,
    accept: &[u8; ACCEPT_KEY_BYTES],
    protocol: Option<&[u8]>,
    extensions: Option<&[u8]>,
    fields: &[(&[u8], &[u8])],
) -> Result<(), InvalidField> {
    let protocols = protocol.as_slice();
    check_fields(protocols, extensions, fields)?;
    out.append(
        b"HTTP/1.1 101 Switching Protocols\r\n\
          Upgrade: websocket\r\n\
          Connection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.append(accept);
    out.append(b"\r\n");
    write_fields(out, protocols, extensions, fields);
    Ok(())
}

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub struct UpgradeRequest<'a> {
    /// The value of `Host`: host, and port if not the scheme's own.
    pub host: &'a [u8],
    /// The request-target: path and query, beginning with `/`.
    pub target: &'a [u8],
    /// [`new_key`] of this connection.
    pub key: &'a [u8; KEY_BYTES],
    /// Subprotocols, the favourite first. Distinct tokens.
    pub protocols: &'a [&'a [u8]],
    /// The value of `Sec-WebSocket-Extensions`, if any is offered.
    pub extensions: Option<&'a [u8]>,
    /// Further fields, such as `Origin` and `Authorization`.
    pub fields: &'a [(&'a [u8], &'a [u8])],
}

/// Writes an upgrade request, empty line included. RFC 6455 §4.1.
///
/// # Errors
/// [`InvalidField`] for a host, target, subprotocol or field that is malformed or that the
/// handshake itself writes; then nothing is written.
pub fn write_request(
    out: &mut SendBuffer,
    request: &UpgradeRequest<'_>,
) -> Result<(), InvalidField> {
    let host_is_valid = !request.host.is_empty() && is_field_value(request.host);
    let target_is_valid =
        request.target.starts_with(b"/") && request.target.iter().copied().all(is_target_byte);
    if !host_is_valid || !target_is_valid {
        return Err(InvalidField);
    }
    check_fields(request.protocols, request.extensions, request.fields)?;
    for part in [
        b"GET ",
        request.target,
        b" HTTP/1.1\r\nHost: ",
        request.host,
        b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: ",
        request.key,
        b"\r\nSec-WebSocket-Version: ",
        WEBSOCKET_VERSION,
        b"\r\n",
    ] {
        out.append(part);
    }
    write_fields(out, request.protocols, request.extensions, request.fields);
    Ok(())
}

/// Judges the response to `request`, given its status and its fields in order, and returns the
/// subprotocol the server chose, if any. RFC 6455 §4.1.
///
/// Whether the *parameters* of an accepted extension fit is for that extension to say, given
/// [`accepted_extensions`]; here its name must be among those offered.
///
/// # Errors
/// The first rule the response breaks. The connection must then be closed.
pub fn check_response<'a>(
    request: &UpgradeRequest<'_>,
    status: u16,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
) -> Result<Option<&'a [u8]>, HandshakeError> {
    if status != 101 {
        return Err(HandshakeError::Status);
    }
    let upgrades = single(fields.clone(), b"Upgrade")
        .is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"));
    let connects = values(fields.clone(), b"Connection")
        .flat_map(|value| extension::tokens(value).flatten())
        .any(|option| option.eq_ignore_ascii_case(b"upgrade"));
    if !upgrades || !connects {
        return Err(HandshakeError::NotUpgraded);
    }
    if single(fields.clone(), b"Sec-WebSocket-Accept") != Some(&accept_key(request.key)[..]) {
        return Err(HandshakeError::Accept);
    }
    let mut accepted =
        values(fields.clone(), b"Sec-WebSocket-Extensions").flat_map(extension::extensions);
    let offered = |name: &[u8]| {
        let mut offered = request
            .extensions
            .into_iter()
            .flat_map(extension::extensions);
        offered.any(|offered| offered.is_ok_and(|offered| offered.name == name))
    };
    if !accepted.all(|extension| extension.is_ok_and(|extension| offered(extension.name))) {
        return Err(HandshakeError::ExtensionUnoffered);
    }
    let mut protocols = values(fields, b"Sec-WebSocket-Protocol");
    match (protocols.next(), protocols.next()) {
        (None, _) => Ok(None),
        (Some(protocol), None) if request.protocols.contains(&protocol) => Ok(Some(protocol)),
        _ => Err(HandshakeError::ProtocolUnoffered),
    }
}

/// The extensions that a response accepts, as far as they are well-formed; of a response that
/// [`check_response`] accepted, all of them.
pub fn accepted_extensions<'a>(
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> impl Iterator<Item = Extension<'a>> {
    values(fields, b"Sec-WebSocket-Extensions")
        .flat_map(|value| extension::extensions(value).flatten())
}

/// The values of the fields with this name, in order.
pub(crate) fn values<'a>(
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    name: &'static [u8],
) -> impl Iterator<Item = &'a [u8]> {
    fields
        .filter(|(have, _)| have.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// The value of the one field with this name; none if there are several.
fn single<'a>(
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    name: &'static [u8],
) -> Option<&'a [u8]> {
    let mut values = values(fields, name);
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// Whether `key` is base64 of 16 bytes, with its padding and no stray bits.
fn is_key(key: &[u8]) -> bool {
    // The decoder asks for room for 18 bytes, as 24 characters could hold them.
    let mut nonce = [0; 18];
    key.len() == KEY_BYTES && STANDARD.decode_slice(key, &mut nonce) == Ok(16)
}

/// `bytes` in base64, which must fill `N` characters.
fn base64<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut text = [0; N];
    let written = STANDARD.encode_slice(bytes, &mut text);
    debug_assert_eq!(written, Ok(N), "the length follows from the input's");
    text
}

fn check_fields(
    protocols: &[&[u8]],
    extensions: Option<&[u8]>,
    fields: &[(&[u8], &[u8])],
) -> Result<(), InvalidField> {
    let repeated = (1..protocols.len()).any(|i| protocols[..i].contains(&protocols[i]));
    let reserved = |name: &[u8]| {
        let mut reserved = RESERVED_FIELDS.iter();
        reserved.any(|reserved| name.eq_ignore_ascii_case(reserved))
    };
    let valid = protocols.iter().all(|protocol| is_field_name(protocol))
        && !repeated
        && extensions.is_none_or(is_field_value)
        && fields
            .iter()
            .all(|(name, value)| is_field_name(name) && is_field_value(value) && !reserved(name));
    if valid { Ok(()) } else { Err(InvalidField) }
}

/// Writes the fields that `check_fields` has accepted, and the empty line.
fn write_fields(
    out: &mut SendBuffer,
    protocols: &[&[u8]],
    extensions: Option<&[u8]>,
    fields: &[(&[u8], &[u8])],
) {
    let mut line = |parts: &[&[u8]]| parts.iter().for_each(|part| out.append(part));
    for (i, protocol) in protocols.iter().enumerate() {
        line(&[
            if i == 0 {
                b"Sec-WebSocket-Protocol: "
            } else {
                b", "
            },
            protocol,
        ]);
    }
    if !protocols.is_empty() {
        line(&[b"\r\n"]);
    }
    if let Some(extensions) = extensions {
        line(&[b"Sec-WebSocket-Extensions: ", extensions, b"\r\n"]);
    }
    for (name, value) in fields {
        line(&[name, b": ", value, b"\r\n"]);
    }
    line(&[b"\r\n"]);
}

#[cfg(test)]
mod tests;
