//! Errors of requests as scripts read them: `net.request: connection refused: 127.0.0.1:1 refused
//! the connection`.
//!
//! Sits in the native module's client. Core has a sentence for each fault, with the host in it; in
//! front of it stands what kind of fault it is, in words that do not change, so that a script can
//! match them: `string.find(message, "connection refused", 1, true)`.
//!
//! Invariants
//! - What a peer chose stands in a text only escaped, and cut to a bounded length.
//! - The kinds are documented in `types/huki/net.luau`; a test compares.
//!
//! Not here: the sentences (core's `client/error.rs`).

use hukilau_core::client::{ClientError, ClientResponse, Phase, RedirectError};
use std::fmt::Write;
use std::io::ErrorKind;

/// Bytes of a refusing response's body that its error shows.
const BODY_BYTES_SHOWN: usize = 200;
/// Fields of it that its error shows.
const FIELDS_SHOWN: usize = 12;
/// Bytes of each of them.
const FIELD_BYTES_SHOWN: usize = 120;

/// What kind of fault it is, in words that do not change.
fn kind(error: &ClientError) -> &'static str {
    match error {
        ClientError::Invalid(_) | ClientError::Field(_) => "invalid request",
        ClientError::NoTls | ClientError::TlsConfig(_) => "invalid tls settings",
        ClientError::Resolve { .. } => "name not resolved",
        ClientError::Connect { error, .. } => match error.kind() {
            ErrorKind::ConnectionRefused => "connection refused",
            ErrorKind::ConnectionReset => "connection reset",
            _ => "connection failed",
        },
        ClientError::Tls { .. } => "tls failed",
        ClientError::TimedOut { phase, .. } => match phase {
            Phase::Resolve => "timed out (resolve)",
            Phase::Connect => "timed out (connect)",
            Phase::Proxy => "timed out (proxy)",
            Phase::Tls => "timed out (tls)",
            Phase::FirstByte => "timed out (response)",
            Phase::Body => "timed out (body)",
            Phase::Write => "timed out (write)",
            Phase::Total => "timed out (total)",
        },
        ClientError::NoResponse { .. } | ClientError::Truncated { .. } => "connection closed",
        ClientError::Broken { error, .. } => match error.kind() {
            ErrorKind::ConnectionReset => "connection reset",
            _ => "connection broken",
        },
        ClientError::Violation { .. } => "malformed response",
        ClientError::HeadTooLarge { .. } => "head too large",
        ClientError::TooLarge { .. } => "body too large",
        ClientError::Decode(_) => "undecodable body",
        ClientError::Redirect(RedirectError::TooMany { .. } | RedirectError::Loop { .. }) => {
            "too many redirects"
        }
        ClientError::Redirect(_) => "redirect refused",
        ClientError::ProxyRefused { .. } => "proxy refused",
        ClientError::WebSocketRefused { .. } => "upgrade refused",
        ClientError::QueueFull { .. } => "too many requests",
        _ => "given up",
    }
}

/// The whole text, behind the name of the `function`.
pub(super) fn text(function: &str, error: &ClientError) -> String {
    let mut text = format!("{function}: {}: {error}", kind(error));
    if let ClientError::WebSocketRefused { response, body, .. } = error {
        if let Some(response) = response {
            push_head(&mut text, response);
        }
        if !body.is_empty() {
            let shown = body.get(..BODY_BYTES_SHOWN).unwrap_or(body);
            let _ = write!(text, "; body: \"{}\"", shown.escape_ascii());
        }
    }
    text
}

fn push_head(text: &mut String, response: &ClientResponse) {
    let separators = std::iter::once("; headers: ").chain(std::iter::repeat(", "));
    for ((name, value), separator) in response.fields().zip(separators).take(FIELDS_SHOWN) {
        let value = value.get(..FIELD_BYTES_SHOWN).unwrap_or(value);
        let (name, value) = (name.escape_ascii(), value.escape_ascii());
        let _ = write!(text, "{separator}{name}={value}");
    }
}
