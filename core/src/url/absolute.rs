//! Absolute URLs, as a client dials them, and references resolved against them. RFC 3986 §3, §5.
//!
//! Sits in the protocol layer: text in, parts out. A [`Url`] has been checked once; what it is made
//! of may be written into a head or handed to a resolver as it stands.
//!
//! Invariants
//! - The host is an address, or a name of ASCII letters, digits, hyphens, dots and underscores in
//!   lower case; nothing that a resolver would read as an address in disguise (`127.1`).
//! - The target begins with `/` and has only bytes that may stand in a request line.
//! - Credentials appear in no `Display` and no `Debug`.
//!
//! | Input | We | RFC |
//! | --- | --- | --- |
//! | another scheme than http, https, ws, wss, http+unix, ws+unix | refused | 9110 §4.2 |
//! | a name that is not ASCII | refused: it has to be given as `xn--…` | 3986 §3.2.2 |
//! | an IPv6 zone, IPvFuture, port 0, a port over 65535 | refused | 3986 §3.2 |
//! | a space or UTF-8 in path and query | escaped | 3986 §2.1 |
//! | control bytes | refused | 3986 §2 |
//! | a fragment | dropped: it never travels | 3986 §3.5 |
//! | `http+unix://%2Frun%2Fapp.sock/path` | a socket in the file system | – |
//! | dot segments of an absolute URL | kept; of a reference: removed | 3986 §5.2.4 |
//!
//! Not here: request-targets that arrive (`url.rs`); names of the WHATWG, IDNA.

use super::percent_decode;
use crate::http1::token::is_target_byte;
use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

/// What is spoken with the host of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http`, and `http+unix` for sockets in the file system.
    Http,
    /// `https`.
    Https,
    /// `ws`, and `ws+unix`. RFC 6455 §3.
    Ws,
    /// `wss`. RFC 6455 §3.
    Wss,
}

impl Scheme {
    /// As it is written before the colon.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// Whether the bytes travel in TLS.
    pub const fn is_secure(self) -> bool {
        matches!(self, Self::Https | Self::Wss)
    }

    /// Whether a WebSocket is asked for.
    pub const fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }

    /// The port of a URL without one.
    pub const fn default_port(self) -> u16 {
        if self.is_secure() { 443 } else { 80 }
    }
}

/// Who is to be spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name to be resolved, in lower case.
    Name(String),
    /// An IPv4 address.
    Ipv4(Ipv4Addr),
    /// An IPv6 address.
    Ipv6(Ipv6Addr),
    /// The path of a stream socket in the file system.
    Unix(String),
}

impl fmt::Display for Host {
    /// As in an authority: IPv6 in brackets, a socket's path escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ipv4(address) => address.fmt(f),
            Self::Ipv6(address) => write!(f, "[{address}]"),
            Self::Unix(path) => f.write_str(&String::from_utf8_lossy(&super::percent_encode(
                path.as_bytes(),
            ))),
        }
    }
}

/// A name and a password, unescaped. They print as nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Before the first colon.
    pub user: Vec<u8>,
    /// Behind it; empty if there was none.
    pub password: Vec<u8>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// Scheme, host and port: what shares connections, credentials and trust. RFC 6454 §4.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Whether TLS is spoken.
    pub is_secure: bool,
    /// Who.
    pub host: Host,
    /// Where; 0 for sockets in the file system.
    pub port: u16,
}

/// An absolute URL, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    scheme: Scheme,
    credentials: Option<Credentials>,
    host: Host,
    port: u16,
    target: String,
}

/// Why a text is no URL that can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlError {
    /// No scheme with `://` behind it.
    NotAbsolute,
    /// A scheme that is not spoken here.
    Scheme,
    /// No host.
    HostMissing,
    /// A host that is no name and no address.
    Host,
    /// A host with letters outside ASCII.
    HostNotAscii,
    /// A port that is no number from 1 to 65535.
    Port,
    /// A control byte.
    ControlByte,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAbsolute => "it is not absolute (as https://host/path is)",
            Self::Scheme => "its scheme is none of http, https, ws, wss, http+unix, ws+unix",
            Self::HostMissing => "it has no host",
            Self::Host => "its host is neither a name nor an address",
            Self::HostNotAscii => "its host is not ASCII: write it in punycode (xn--…)",
            Self::Port => "its port is no number from 1 to 65535",
            Self::ControlByte => "it has a control character",
        })
    }
}

impl core::error::Error for UrlError {}

impl Url {
    /// Reads an absolute URL.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, UrlError> {
        if text.iter().any(u8::is_ascii_control) {
            return Err(UrlError::ControlByte);
        }
        let (name, rest) = split_scheme(text).ok_or(UrlError::NotAbsolute)?;
        let rest = rest.strip_prefix(b"//").ok_or(UrlError::NotAbsolute)?;
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let schemes = [Scheme::Http, Scheme::Https, Scheme::Ws, Scheme::Wss];
        let known = schemes.into_iter().find(|scheme| is(scheme.name()));
        let (scheme, is_unix) = match known {
            Some(scheme) => (scheme, false),
            None if is("http+unix") => (Scheme::Http, true),
            None if is("ws+unix") => (Scheme::Ws, true),
            None => return Err(UrlError::Scheme),
        };
        let end = rest
            .iter()
            .position(|byte| matches!(byte, b'/' | b'?' | b'#'));
        let (authority, rest) = rest.split_at(end.unwrap_or(rest.len()));
        let (userinfo, host) = match authority.iter().rposition(|byte| *byte == b'@') {
            Some(at) => (Some(&authority[..at]), &authority[at + 1..]),
            None => (None, authority),
        };
        let (host, port) = if is_unix {
            (unix_host(host)?, 0)
        } else {
            let (host, port) = split_port(host)?;
            (named_host(host)?, port.unwrap_or(scheme.default_port()))
        };
        Ok(Self {
            scheme,
            credentials: userinfo.map(credentials),
            host,
            port,
            target: target_of(rest),
        })
    }

    /// The URL that `reference`, such as the value of `Location`, means in the context of this one.
    /// RFC 3986 §5.2.
    ///
    /// # Errors
    /// What is wrong with it, if it is absolute; a relative one has only control bytes to fear.
    pub fn resolve(&self, reference: &[u8]) -> Result<Self, UrlError> {
        if reference.iter().any(u8::is_ascii_control) {
            return Err(UrlError::ControlByte);
        }
        if split_scheme(reference).is_some() {
            let mut url = Self::parse(reference)?;
            let (path, query) = split_query(&url.target);
            url.target = without_dots(path) + query;
            return Ok(url);
        }
        if reference.starts_with(b"//") {
            let scheme = self.scheme.name().as_bytes();
            return self.resolve(&[scheme, b":", reference].concat());
        }
        let end = reference.iter().position(|byte| *byte == b'#');
        let reference = escaped(&reference[..end.unwrap_or(reference.len())]);
        let (base_path, base_query) = split_query(&self.target);
        let (path, query) = split_query(&reference);
        let target = match (path, query) {
            ("", "") => base_path.to_owned() + base_query,
            ("", query) => base_path.to_owned() + query,
            (path, query) if path.starts_with('/') => without_dots(path) + query,
            (path, query) => {
                let folder = base_path.rfind('/').map_or(0, |slash| slash + 1);
                without_dots(&(base_path[..folder].to_owned() + path)) + query
            }
        };
        Ok(Self {
            target,
            ..self.clone()
        })
    }

    /// What is spoken.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Who is spoken to.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, given or not; 0 for a socket in the file system.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query, escaped, from the first `/` on: the origin-form. RFC 9112 §3.2.1.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The user information, if there was any.
    pub fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// Forgets the user information.
    pub fn without_credentials(self) -> Self {
        Self {
            credentials: None,
            ..self
        }
    }

    /// What its connections are shared by.
    pub fn origin(&self) -> Origin {
        Origin {
            is_secure: self.scheme.is_secure(),
            host: self.host.clone(),
            port: self.port,
        }
    }

    /// The value of `Host`: the port only where it is not the scheme's own. RFC 9110 §7.2.
    pub fn host_field(&self) -> String {
        match &self.host {
            Host::Unix(_) => "localhost".to_owned(),
            host if self.port == self.scheme.default_port() => host.to_string(),
            host => format!("{host}:{}", self.port),
        }
    }

    /// `host:port`, as CONNECT asks for it. RFC 9110 §9.3.6.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Appends `query`, already escaped, to the query there is.
    pub fn push_query(&mut self, query: &str) {
        if query.is_empty() {
            return;
        }
        let mark = match self.target.find('?') {
            None => "?",
            Some(at) if at + 1 == self.target.len() => "",
            Some(_) if self.target.ends_with('&') => "",
            Some(_) => "&",
        };
        self.target.push_str(mark);
        self.target.push_str(query);
    }
}

/// Without credentials. As an absolute-form, it is what a proxy is asked for (RFC 9112 §3.2.2).
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, target) = (self.scheme.name(), &self.host, &self.target);
        match host {
            Host::Unix(_) => write!(f, "{scheme}+unix://{host}{target}"),
            _ => write!(f, "{scheme}://{}{target}", self.host_field()),
        }
    }
}

/// The scheme of a reference that has one, and what follows its colon. RFC 3986 §3.1.
fn split_scheme(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text
        .iter()
        .position(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')))?;
    let is_scheme = text.first().is_some_and(u8::is_ascii_alphabetic) && text[end] == b':';
    is_scheme.then(|| (&text[..end], &text[end + 1..]))
}

/// Host and port of an authority without user information.
fn split_port(authority: &[u8]) -> Result<(&[u8], Option<u16>), UrlError> {
    let colon = match authority {
        [b'[', ..] => {
            let end = authority.iter().position(|byte| *byte == b']');
            end.ok_or(UrlError::Host)? + 1
        }
        _ => authority
            .iter()
            .position(|byte| *byte == b':')
            .unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(colon);
    let digits = match port {
        [] | [b':'] => return Ok((host, None)),
        [b':', digits @ ..] => digits,
        _ => return Err(UrlError::Host),
    };
    let number = crate::http1::token::decimal(digits).and_then(|port| u16::try_from(port).ok());
    match number {
        Some(port) if port > 0 => Ok((host, Some(port))),
        _ => Err(UrlError::Port),
    }
}

fn unix_host(host: &[u8]) -> Result<Host, UrlError> {
    let path = percent_decode(host).into_owned();
    match String::from_utf8(path) {
        Ok(path) if path.is_empty() => Err(UrlError::HostMissing),
        Ok(path) if !path.contains('\0') => Ok(Host::Unix(path)),
        _ => Err(UrlError::Host),
    }
}

fn named_host(host: &[u8]) -> Result<Host, UrlError> {
    if host.is_empty() {
        return Err(UrlError::HostMissing);
    }
    if !host.is_ascii() {
        return Err(UrlError::HostNotAscii);
    }
    let text = core::str::from_utf8(host).map_err(|_| UrlError::Host)?;
    if let Some(literal) = text.strip_prefix('[') {
        let address = literal.strip_suffix(']').and_then(|text| text.parse().ok());
        return address.map(Host::Ipv6).ok_or(UrlError::Host);
    }
    if let Ok(address) = text.parse() {
        return Ok(Host::Ipv4(address));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(good)
    };
    // What a resolver might take for an address in one of its old spellings: 127.1, 0x7f000001.
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = |label: &str| {
        let hex = label.strip_prefix("0x").or(label.strip_prefix("0X"));
        let is_hex = hex.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        is_hex || label.bytes().all(|byte| byte.is_ascii_digit())
    };
    if name.len() > 253 || !name.split('.').all(is_label) || is_number(last) {
        return Err(UrlError::Host);
    }
    Ok(Host::Name(text.to_ascii_lowercase()))
}

fn credentials(userinfo: &[u8]) -> Credentials {
    let (user, password) = match userinfo.iter().position(|byte| *byte == b':') {
        Some(colon) => (&userinfo[..colon], &userinfo[colon + 1..]),
        None => (userinfo, &userinfo[userinfo.len()..]),
    };
    Credentials {
        user: percent_decode(user).into_owned(),
        password: percent_decode(password).into_owned(),
    }
}

/// Path and query of what follows an authority.
fn target_of(rest: &[u8]) -> String {
    let end = rest.iter().position(|byte| *byte == b'#');
    let rest = escaped(&rest[..end.unwrap_or(rest.len())]);
    if rest.starts_with('/') {
        rest
    } else {
        format!("/{rest}")
    }
}

/// `text` with everything escaped that may not stand in a target.
fn escaped(text: &[u8]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text {
        if is_target_byte(*byte) {
            escaped.push(char::from(*byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// Splits before the question mark, if there is one.
fn split_query(target: &str) -> (&str, &str) {
    target.split_at(target.find('?').unwrap_or(target.len()))
}

/// Removes `.` and `..` segments from a path that begins with a slash. RFC 3986 §5.2.4.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            segment => {
                kept.push(segment);
                continue;
            }
        }
        // What names a folder ends like one.
        if is_last {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests;
