//! What the fields of a head decide together: where its body ends, whether the connection lives
//! on, and whether the head contradicts itself. RFC 9112 §3.2, §6, §9.3; RFC 9110 §7.6.1, §10.1.1.
//!
//! Sits beside `parse.rs`, which comes here at the end of a head, unless its fields are those of
//! every other request: one plain `Host`, and none besides that decides anything.
//!
//! Invariants
//! - All fields are heard before any is judged, and of several broken rules the one that stands
//!   first in the table of `violation.rs` is reported: the answer does not depend on field order.
//! - A length is never guessed: where two readers could disagree, the head is refused (§11.2).
//! - Lists: empty elements are ignored (RFC 9110 §5.6.1.2), except in `Transfer-Encoding`, where a
//!   reader that does not ignore them would see another last coding.
//!
//! Not here: line syntax (`scan.rs`), the chunked coding itself (`chunked.rs`).

use super::token::{decimal, hex_digit, is_field_name, is_reg_name_byte, trim_ows};
use super::{Field, FieldName, Framing, Method, Version, is_but_for_case};
use crate::violation::Violation;
use core::net::Ipv6Addr;
use core::str::FromStr;

/// What has been heard so far of the fields that rules know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// One bit for each [`Violation`] met.
    broken: u64,
    /// The length stated; without meaning unless `CONTENT_LENGTH` is heard.
    content_length: u64,
    /// The constants below.
    heard: u16,
}

/// `Host` is there.
const HOST: u16 = 1;
/// `Content-Length` is there.
const CONTENT_LENGTH: u16 = 1 << 1;
/// `Transfer-Encoding` is there.
const TRANSFER_ENCODING: u16 = 1 << 2;
/// Transfer codings other than `chunked` were named.
const UNKNOWN_CODING: u16 = 1 << 3;
/// `chunked` was named, and nothing behind it.
const CHUNKED_LAST: u16 = 1 << 4;
/// `Connection: close`.
const CLOSE: u16 = 1 << 5;
/// `Connection: keep-alive`.
const KEEP_ALIVE: u16 = 1 << 6;
/// `Connection: upgrade`.
const UPGRADE: u16 = 1 << 7;
/// `Upgrade: websocket`.
const WEBSOCKET: u16 = 1 << 8;
/// `Expect: 100-continue`.
const CONTINUE: u16 = 1 << 9;

const _: () = assert!(Violation::ALL.len() <= 64, "`Facts::broken` has 64 bits");

/// The verdict on the head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestVerdict {
    pub(super) framing: Framing,
    pub(super) keeps_alive: bool,
    pub(super) expects_continue: bool,
    pub(super) upgrades_to_websocket: bool,
}

/// The verdict on the head of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ResponseVerdict {
    pub(super) framing: Framing,
    pub(super) keeps_alive: bool,
    pub(super) upgrades_to_websocket: bool,
}

/// The rules about where a body ends.
const BODY_RULES: u64 = 1 << Violation::ContentLength as u8
    | 1 << Violation::ContentLengthRepeated as u8
    | 1 << Violation::FramingConflict as u8
    | 1 << Violation::TransferEncodingVersion as u8
    | 1 << Violation::TransferEncoding as u8
    | 1 << Violation::TransferCodingUnknown as u8;

impl Facts {
    /// Hears one field; `value` has no white space around it.
    pub(super) fn note(&mut self, id: FieldName, value: &[u8]) {
        match id {
            FieldName::Host => self.note_host(value),
            FieldName::ContentLength => self.note_content_length(value),
            FieldName::TransferEncoding => self.note_transfer_encoding(value),
            FieldName::Connection => self.note_connection(value),
            FieldName::Expect => {
                for expectation in elements(value) {
                    if expectation.eq_ignore_ascii_case(b"100-continue") {
                        self.heard |= CONTINUE;
                    } else {
                        self.break_rule(Violation::Expectation);
                    }
                }
            }
            FieldName::Upgrade => {
                for protocol in elements(value) {
                    if !is_protocol(protocol) {
                        self.break_rule(Violation::Connection);
                    }
                    self.hear_if(protocol.eq_ignore_ascii_case(b"websocket"), WEBSOCKET);
                }
            }
            FieldName::Other => {}
        }
    }

    /// What the `fields` of the head whose bytes are `bytes` say.
    pub(super) fn of(fields: &[Field], bytes: &[u8]) -> Self {
        let mut facts = Self::default();
        for field in fields {
            if field.id != FieldName::Other {
                facts.note(field.id, field.value.of(bytes));
            }
        }
        facts
    }

    /// Judges the head of a request. RFC 9112 §6.3, in the case of requests.
    pub(super) fn judge_request(
        mut self,
        method: Method,
        target: &[u8],
        version: Version,
    ) -> Result<RequestVerdict, Violation> {
        let is_http11 = version == Version::Http11;
        if !target_suits(method, target) {
            self.break_rule(Violation::Target);
        }
        if is_http11 && !self.has(HOST) {
            self.break_rule(Violation::HostMissing);
        }
        self.judge_codings(version);
        if self.has(TRANSFER_ENCODING) && !self.has(CHUNKED_LAST) {
            self.break_rule(Violation::TransferEncoding);
        }
        self.first_broken()?;
        let framing = match self.content_length {
            _ if self.has(TRANSFER_ENCODING) => Framing::Chunked,
            // As if none was stated.
            0 => Framing::None,
            length => Framing::Length(length),
        };
        Ok(RequestVerdict {
            framing,
            keeps_alive: self.keeps_alive(version),
            // RFC 9110 §10.1.1: to be ignored in HTTP/1.0; and without a body none waits.
            expects_continue: self.has(CONTINUE) && is_http11 && framing != Framing::None,
            // RFC 9110 §7.8: Upgrade is to be ignored in HTTP/1.0.
            upgrades_to_websocket: self.has(UPGRADE | WEBSOCKET) && is_http11,
        })
    }

    /// Judges the head of a response to a request with `method`. RFC 9112 §6.3.
    pub(super) fn judge_response(
        mut self,
        method: Method,
        status: u16,
        version: Version,
    ) -> Result<ResponseVerdict, Violation> {
        let is_tunnel = method == Method::Connect && matches!(status, 200..=299);
        let is_switch = status == 101;
        let has_body =
            !is_tunnel && method != Method::Head && !matches!(status, 100..=199 | 204 | 304);
        self.judge_codings(version);
        // What only requests have, `Host` and `Expect`, has no meaning here. And where there is no
        // body, there is none regardless of the fields.
        let rules = if has_body { BODY_RULES } else { 0 };
        self.broken &= rules | 1 << Violation::Connection as u8;
        self.first_broken()?;
        let framing = match self.content_length {
            _ if !has_body => Framing::None,
            _ if self.has(TRANSFER_ENCODING) => Framing::Chunked,
            _ if !self.has(CONTENT_LENGTH) => Framing::UntilClose,
            0 => Framing::None,
            length => Framing::Length(length),
        };
        let is_last = is_tunnel || is_switch || framing == Framing::UntilClose;
        let is_http11 = version == Version::Http11;
        Ok(ResponseVerdict {
            framing,
            keeps_alive: self.keeps_alive(version) && !is_last,
            upgrades_to_websocket: is_switch && self.has(UPGRADE | WEBSOCKET) && is_http11,
        })
    }

    /// What `Content-Length` and `Transfer-Encoding` may not be in any message. RFC 9112 §6.1.
    fn judge_codings(&mut self, version: Version) {
        if !self.has(TRANSFER_ENCODING) {
            return;
        }
        if self.has(CONTENT_LENGTH) {
            self.break_rule(Violation::FramingConflict);
        }
        if version == Version::Http10 {
            self.break_rule(Violation::TransferEncodingVersion);
        }
        if self.has(UNKNOWN_CODING) {
            self.break_rule(Violation::TransferCodingUnknown);
        }
    }

    /// Whether the connection outlives the message, as far as the sender is concerned.
    /// RFC 9112 §9.3.
    fn keeps_alive(&self, version: Version) -> bool {
        !self.has(CLOSE) && (version == Version::Http11 || self.has(KEEP_ALIVE))
    }

    /// Whether all of `what` was heard.
    const fn has(&self, what: u16) -> bool {
        self.heard & what == what
    }

    const fn hear_if(&mut self, condition: bool, what: u16) {
        if condition {
            self.heard |= what;
        }
    }

    const fn break_rule(&mut self, violation: Violation) {
        self.broken |= 1 << violation as u8;
    }

    fn first_broken(&self) -> Result<(), Violation> {
        if self.broken == 0 {
            return Ok(());
        }
        let first = self.broken.trailing_zeros() as usize;
        Violation::ALL
            .get(first)
            .map_or(Ok(()), |first| Err(*first))
    }

    fn note_host(&mut self, value: &[u8]) {
        if self.has(HOST) {
            self.break_rule(Violation::HostRepeated);
        }
        self.heard |= HOST;
        // RFC 9112 §3.2: empty where the target has no authority. Which is nobody's mistake.
        if !value.is_empty() && parse_authority(value).is_none() {
            self.break_rule(Violation::HostInvalid);
        }
    }

    fn note_content_length(&mut self, value: &[u8]) {
        if self.has(CONTENT_LENGTH) {
            self.break_rule(Violation::ContentLengthRepeated);
        }
        // A bad one is there all the same: a second is a repetition, a coding a conflict.
        self.heard |= CONTENT_LENGTH;
        match decimal(value) {
            Some(length) => self.content_length = length,
            None if value.contains(&b',') => self.break_rule(Violation::ContentLengthRepeated),
            None => self.break_rule(Violation::ContentLength),
        }
    }

    /// RFC 9112 §6.1. The lists of several lines are one list (RFC 9110 §5.3).
    fn note_transfer_encoding(&mut self, value: &[u8]) {
        self.heard |= TRANSFER_ENCODING;
        for coding in value.split(|byte| *byte == b',').map(trim_ows) {
            if !is_field_name(coding) {
                // Empty, or with parameters, which `chunked` has none of (§7.1).
                self.break_rule(Violation::TransferEncoding);
            } else if !coding.eq_ignore_ascii_case(b"chunked") {
                // `identity` too: RFC 9112 knows no such coding.
                self.heard |= UNKNOWN_CODING;
            }
            if self.has(CHUNKED_LAST) {
                // Applied twice, or not last.
                self.break_rule(Violation::TransferEncoding);
            }
            self.heard &= !CHUNKED_LAST;
            self.hear_if(coding.eq_ignore_ascii_case(b"chunked"), CHUNKED_LAST);
        }
    }

    fn note_connection(&mut self, value: &[u8]) {
        // What most browsers send, alone.
        if is_but_for_case(value, b"keep-alive") {
            self.heard |= KEEP_ALIVE;
            return;
        }
        for option in elements(value) {
            if !is_field_name(option) {
                self.break_rule(Violation::Connection);
            }
            self.hear_if(option.eq_ignore_ascii_case(b"close"), CLOSE);
            self.hear_if(option.eq_ignore_ascii_case(b"upgrade"), UPGRADE);
            self.hear_if(option.eq_ignore_ascii_case(b"keep-alive"), KEEP_ALIVE);
        }
    }
}

/// The members of a comma-separated list, without empty ones. RFC 9110 §5.6.1.2.
///
/// Only for lists whose members hold no quoted string.
pub(crate) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(trim_ows)
        .filter(|element| !element.is_empty())
}

/// Whether `protocol` is `protocol-name ["/" protocol-version]`. RFC 9110 §7.8.
fn is_protocol(protocol: &[u8]) -> bool {
    let mut parts = protocol.splitn(2, |byte| *byte == b'/');
    parts.all(is_field_name)
}

/// Whether `target` has a form that `method` may have. RFC 9112 §3.2.
fn target_suits(method: Method, target: &[u8]) -> bool {
    match (method, target) {
        // RFC 9110 §9.3.6: the port must be there, as CONNECT has no default.
        (Method::Connect, _) => {
            parse_authority(target).is_some_and(|(_, port)| port.is_some_and(|p| !p.is_empty()))
        }
        (_, [b'/', ..]) => true,
        (Method::Options, b"*") => true,
        _ => {
            absolute_authority(target).is_some_and(|authority| parse_authority(authority).is_some())
        }
    }
}

/// The authority of an `http` or `https` URI; user information is refused with the bytes that no
/// host has (RFC 9110 §4.2.4).
fn absolute_authority(target: &[u8]) -> Option<&[u8]> {
    let colon = target.iter().position(|byte| *byte == b':')?;
    let (scheme, rest) = target.split_at(colon);
    let known = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
    let rest = rest.strip_prefix(b"://").filter(|_| known)?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
    rest.get(..end.unwrap_or(rest.len()))
}

/// `uri-host [":" port]` with a host that is not empty, taken apart. RFC 9110 §7.2.
///
/// An IP literal must be IPv6: `IPvFuture` has no meaning yet, and a zone is local to its sender.
/// A port is empty or a TCP port.
pub(crate) fn parse_authority(authority: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let host_len = match authority {
        [b'[', rest @ ..] => {
            let inside = rest.get(..rest.iter().position(|byte| *byte == b']')?)?;
            Ipv6Addr::from_str(core::str::from_utf8(inside).ok()?).ok()?;
            inside.len() + 2
        }
        _ => reg_name_len(authority)?,
    };
    let (host, rest) = authority.split_at_checked(host_len)?;
    if host.is_empty() {
        return None;
    }
    is_port_or_nothing(rest).then_some((host, rest.get(1..)))
}

/// Whether `rest`, which follows a host, is empty, or `:`, or `:` and a TCP port. RFC 3986 §3.2.3.
#[inline]
pub(super) fn is_port_or_nothing(rest: &[u8]) -> bool {
    match rest {
        [] | [b':'] => true,
        [b':', port @ ..] => decimal(port).is_some_and(|port| port <= u64::from(u16::MAX)),
        _ => false,
    }
}

/// Length of the `reg-name` at the front of `bytes`; `None` if an escape in it is malformed.
/// An IPv4 address is a `reg-name` as well. RFC 3986 §3.2.2.
fn reg_name_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        if is_reg_name_byte(*byte) {
            at += 1;
        } else if *byte == b'%' {
            let escape = bytes.get(at + 1..at + 3)?;
            if !escape.iter().all(|digit| hex_digit(*digit).is_some()) {
                return None;
            }
            at += 3;
        } else {
            break;
        }
    }
    Some(at)
}

#[cfg(test)]
mod tests;
