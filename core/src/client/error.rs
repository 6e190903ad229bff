//! [`ClientError`]: why a request came to nothing, in words for whoever reads a log.
//!
//! Sits in the client's face. Each fault has a sentence of its own, with the host, the address or
//! the bound in it, and a short name that does not change, for metrics.
//!
//! Invariants
//! - No two faults read alike.
//! - What a peer chose stands in the text only escaped.
//!
//! Not here: what a peer's rule-breaking is called (`violation.rs`).

use super::decode::DecodeError;
use super::flow::RESERVED;
use super::redirect::RedirectError;
use super::spec::ClientResponse;
use crate::conn::{Deadline, Misuse};
use crate::http1::token;
use crate::reactor::inbox::Cause;
use crate::transport::system_text;
use crate::violation::Violation;
use core::fmt;
use std::io::{self, ErrorKind};
use std::time::Duration;

/// A part of a request that may take too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The name.
    Resolve,
    /// The connection.
    Connect,
    /// A proxy's answer to `CONNECT`.
    Proxy,
    /// The TLS handshake.
    Tls,
    /// The response's head.
    FirstByte,
    /// The next bytes of the response's body.
    Body,
    /// The server does not take the request.
    Write,
    /// All of it.
    Total,
}

/// Why a request came to nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The request may not be sent as it is.
    Invalid(Misuse),
    /// A field that is not the application's to send, or is malformed.
    Field(Box<str>),
    /// The scheme needs what this build or configuration lacks.
    NoTls,
    /// The TLS configuration cannot be used.
    TlsConfig(Box<str>),
    /// The name has no address.
    Resolve {
        /// Which name.
        host: Box<str>,
        /// The resolver's words.
        error: Box<str>,
    },
    /// No address takes the connection.
    Connect {
        /// The last one tried.
        to: Box<str>,
        /// What the system said.
        error: io::Error,
    },
    /// The TLS handshake failed, or TLS did later.
    Tls {
        /// With whom.
        host: Box<str>,
        /// What was wrong.
        error: Box<str>,
    },
    /// Something took too long.
    TimedOut {
        /// What.
        phase: Phase,
        /// With whom.
        host: Box<str>,
        /// How long it was given.
        after: Duration,
    },
    /// The server closed the connection and had not begun a response.
    NoResponse {
        /// Which one.
        host: Box<str>,
        /// The connection had been kept from before; a request that may be repeated would have been.
        reused: bool,
    },
    /// The connection broke.
    Broken {
        /// With whom.
        host: Box<str>,
        /// What the system said.
        error: io::Error,
        /// When: in the TLS handshake, before the head of the response was there, or in its body.
        phase: Phase,
    },
    /// The response was cut short.
    Truncated {
        /// By whom.
        host: Box<str>,
    },
    /// The response breaks a rule of HTTP.
    Violation {
        /// Whose.
        host: Box<str>,
        /// Which rule.
        violation: Violation,
    },
    /// The response's head is longer than allowed.
    HeadTooLarge {
        /// Whose.
        host: Box<str>,
    },
    /// The response's body is longer than allowed.
    TooLarge {
        /// How long it may be.
        bytes_max: u64,
    },
    /// The response's content cannot be decoded.
    Decode(DecodeError),
    /// A redirect is not followed.
    Redirect(RedirectError),
    /// The proxy does not make the connection.
    ProxyRefused {
        /// Its status.
        status: u16,
        /// Its reason phrase, escaped.
        reason: Box<str>,
    },
    /// The server does not agree to a WebSocket.
    WebSocketRefused {
        /// The response's status.
        status: u16,
        /// The response, as far as it was understood.
        response: Option<Box<ClientResponse>>,
        /// What does not agree.
        problem: Box<str>,
        /// The first bytes of the response's body.
        body: Vec<u8>,
    },
    /// Too many requests wait for a connection.
    QueueFull {
        /// How many may.
        waiting_max: u32,
    },
    /// The connection was cut here: the reactor drains, or ran out of connections.
    Cut(Box<str>),
}

/// What is known of a connection that ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndedConn<'a> {
    pub(super) host: &'a str,
    pub(super) resolve: Duration,
    pub(super) connect: Duration,
    pub(super) tls: Duration,
    pub(super) silence: Duration,
    /// It had served a request before.
    pub(super) reused: bool,
    /// How far it had come: [`Phase::Tls`] where it was still being made, [`Phase::FirstByte`], or
    /// [`Phase::Body`] once the head of the response had come.
    pub(super) phase: Phase,
}

impl ClientError {
    /// A short, stable name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::Field(_) => "field",
            Self::NoTls => "no_tls",
            Self::TlsConfig(_) => "tls_config",
            Self::Resolve { .. } => "resolve",
            Self::Connect { .. } => "connect",
            Self::Tls { .. } => "tls",
            Self::TimedOut { phase, .. } => match phase {
                Phase::Resolve => "timeout_resolve",
                Phase::Connect => "timeout_connect",
                Phase::Proxy => "timeout_proxy",
                Phase::Tls => "timeout_tls",
                Phase::FirstByte => "timeout_first_byte",
                Phase::Body => "timeout_body",
                Phase::Write => "timeout_write",
                Phase::Total => "timeout_total",
            },
            Self::NoResponse { .. } => "no_response",
            Self::Broken { .. } => "broken",
            Self::Truncated { .. } => "truncated",
            Self::Violation { .. } => "violation",
            Self::HeadTooLarge { .. } => "head_too_large",
            Self::TooLarge { .. } => "too_large",
            Self::Decode(_) => "decode",
            Self::Redirect(_) => "redirect",
            Self::ProxyRefused { .. } => "proxy_refused",
            Self::WebSocketRefused { .. } => "websocket_refused",
            Self::QueueFull { .. } => "queue_full",
            Self::Cut(_) => "cut",
        }
    }

    /// What the end of a connection means for the request on it.
    pub(super) fn of(cause: &Cause, conn: EndedConn<'_>) -> Self {
        let host = Box::from(conn.host);
        let timed_out = |phase, after| Self::TimedOut {
            phase,
            host: conn.host.into(),
            after,
        };
        match cause {
            Cause::Resolve(error) => Self::Resolve {
                host,
                error: error.to_string().into(),
            },
            Cause::Connect(error) => Self::Connect {
                to: error.to.to_string().into(),
                error: copy(&error.error),
            },
            Cause::TimedOut(Deadline::Resolve) => timed_out(Phase::Resolve, conn.resolve),
            Cause::TimedOut(Deadline::Connect) => timed_out(Phase::Connect, conn.connect),
            Cause::TimedOut(Deadline::TlsHandshake) => timed_out(Phase::Tls, conn.tls),
            Cause::TimedOut(Deadline::Write) => timed_out(Phase::Write, conn.silence),
            Cause::TimedOut(Deadline::Body) => timed_out(Phase::Body, conn.silence),
            Cause::TimedOut(_) => timed_out(Phase::FirstByte, conn.silence),
            Cause::Tls(error) => Self::Tls {
                host,
                error: error.to_string().into(),
            },
            Cause::Agreed | Cause::PeerGone if conn.phase == Phase::Body => {
                Self::Truncated { host }
            }
            Cause::Agreed | Cause::PeerGone => Self::NoResponse {
                host,
                reused: conn.reused,
            },
            Cause::Violation(violation) => match violation {
                Violation::Incomplete | Violation::BodyIncomplete => Self::Truncated { host },
                Violation::HeadTooLarge | Violation::TooManyFields => Self::HeadTooLarge { host },
                violation => Self::Violation {
                    host,
                    violation: *violation,
                },
            },
            Cause::Io(error) => Self::Broken {
                host,
                error: copy(error),
                phase: conn.phase,
            },
            other => Self::Cut(other.to_string().into()),
        }
    }
}

/// An error that says the same. The original belongs to the inbox.
/// Why a field of this name was refused.
fn why_not(name: &str) -> &'static str {
    let is = |known: &&str| name.eq_ignore_ascii_case(known);
    if RESERVED.iter().any(is) {
        "the client writes it itself"
    } else if is(&"connection") {
        "it may only say close"
    } else if token::is_field_name(name.as_bytes()) {
        "its value holds a line end or another control character"
    } else {
        "its name holds what no header's may: letters, digits and -_ are safe"
    }
}

fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(misuse) => write!(f, "the request cannot be sent: {misuse}"),
            Self::Field(name) => {
                write!(f, "the header \"{name}\" cannot be sent: {}", why_not(name))
            }
            Self::NoTls => f.write_str("https and wss need TLS, which this build lacks"),
            Self::TlsConfig(problem) => write!(f, "the TLS settings cannot be used: {problem}"),
            Self::Resolve { host, error } => write!(f, "the name {host} was not resolved: {error}"),
            Self::Connect { to, error } if error.kind() == ErrorKind::ConnectionRefused => {
                write!(f, "{to} refused the connection")
            }
            Self::Connect { to, error } => {
                write!(f, "no connection to {to}: {}", system_text(error))
            }
            Self::Tls { host, error } => write!(f, "TLS with {host} failed: {error}"),
            Self::TimedOut { phase, host, after } => timed_out(f, *phase, host, *after),
            Self::NoResponse { host, reused } => {
                write!(f, "{host} closed the connection without a response")?;
                if *reused {
                    f.write_str("; it had been kept open, and the request may not be repeated")?;
                }
                Ok(())
            }
            Self::Broken { host, error, phase } if error.kind() == ErrorKind::ConnectionReset => {
                let when = match phase {
                    Phase::Tls => "during the TLS handshake",
                    Phase::Body => "in the middle of its response",
                    _ => "without a response",
                };
                write!(f, "{host} reset the connection {when}")
            }
            Self::Broken { host, error, .. } => {
                write!(f, "the connection to {host} broke: {}", system_text(error))
            }
            Self::Truncated { host } => write!(f, "the response of {host} was cut short"),
            Self::Violation { host, violation } => {
                write!(f, "the response of {host} breaks a rule: {violation}")
            }
            Self::HeadTooLarge { host } => {
                write!(f, "the head of the response of {host} is too large")
            }
            Self::TooLarge { bytes_max } => {
                write!(f, "the response is larger than {bytes_max} bytes")
            }
            Self::Decode(error) => error.fmt(f),
            Self::Redirect(error) => error.fmt(f),
            Self::ProxyRefused { status, reason } => {
                write!(
                    f,
                    "the proxy does not make the connection: {status} {reason}"
                )
            }
            Self::WebSocketRefused {
                status, problem, ..
            } => {
                write!(
                    f,
                    "the server does not open a WebSocket ({status}): {problem}"
                )
            }
            Self::QueueFull { waiting_max } => {
                write!(f, "more than {waiting_max} requests wait for a connection")
            }
            Self::Cut(why) => write!(f, "the request was given up here: {why}"),
        }
    }
}

fn timed_out(f: &mut fmt::Formatter<'_>, phase: Phase, host: &str, after: Duration) -> fmt::Result {
    let s = after.as_secs_f64();
    match phase {
        Phase::Resolve => write!(f, "the name {host} was not resolved within {s} s"),
        Phase::Connect => write!(f, "no connection to {host} within {s} s"),
        Phase::Proxy => write!(f, "the proxy made no connection to {host} within {s} s"),
        Phase::Tls => write!(f, "the TLS handshake with {host} was not done within {s} s"),
        Phase::FirstByte => write!(f, "no response from {host} within {s} s"),
        Phase::Body => write!(f, "the response of {host} stalled for {s} s"),
        Phase::Write => write!(f, "{host} did not take the request for {s} s"),
        Phase::Total => write!(f, "the request to {host} was not done within {s} s"),
    }
}

impl core::error::Error for ClientError {}
