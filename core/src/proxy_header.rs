//! The PROXY protocol's header, versions 1 and 2: who a connection comes from, in the words of a
//! proxy that speaks before its client (HAProxy's `proxy-protocol.txt`).
//!
//! Sits at the bottom, beside the protocols: bytes in, an [`Announcement`] out.
//!
//! ```text
//!   v1   PROXY TCP4 192.0.2.7 198.51.100.1 50123 443\r\n               at most 107 bytes
//!   v2   12 bytes of signature │ version, command │ family │ length │ addresses │ TLVs
//! ```
//!
//! Invariants
//! - [`ProxyHeader::wants`] never asks for a byte behind the header, so what follows, TLS or HTTP,
//!   stays with the socket. A v2 header takes two reads or three, a v1 line several short ones.
//! - What is no header is refused at its first wrong byte: nothing is guessed (§2 and §3).
//! - At most 107 bytes are kept; TLVs are counted and dropped, a checksum among them too, for TCP
//!   has its own (§2.2.3 leaves that to us).
//!
//! Not here: who may send one, how long it may take (`transport/preceded.rs`, `reactor/accept.rs`).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest line of version 1, with its end. §2.1.
const LINE_MAX: usize = 107;
/// The shortest: `PROXY UNKNOWN`, and its end.
const LINE_MIN: usize = 15;
/// How version 2 begins. §2.2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Its fixed part: signature, command, family, length.
const FIXED: usize = 16;
/// Most that its length may say: any addresses and a page of TLVs.
const LENGTH_MAX: usize = 4_096;
/// Addresses and ports of IPv6, the longest that are kept.
const KEPT_MAX: usize = FIXED + 36;

/// What a line of version 1 may begin with.
const BEGINNINGS: [&[u8]; 4] = [
    b"PROXY TCP4 ",
    b"PROXY TCP6 ",
    b"PROXY UNKNOWN\r",
    b"PROXY UNKNOWN ",
];

/// What a header has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// The proxy speaks for itself, to see whether we are well: version 2's `LOCAL`.
    Local,
    /// It speaks for someone whose address it does not know, or has no words for: `UNKNOWN`,
    /// `UNSPEC`, sockets in a file system, datagrams. Its own address counts, its trust does not.
    Unknown,
    /// The address and port of the client.
    Client(SocketAddr),
}

/// What came is no header, or one that this protocol does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A header on its way.
#[derive(Clone, Debug)]
pub struct ProxyHeader {
    kept: [u8; LINE_MAX],
    /// How much of `kept` has come.
    len: usize,
    /// Bytes of version 2 still to come and to be dropped.
    rest: usize,
}

impl Default for ProxyHeader {
    fn default() -> Self {
        Self {
            kept: [0; LINE_MAX],
            len: 0,
            rest: 0,
        }
    }
}

impl ProxyHeader {
    /// Bytes that surely still belong to the header, so that they may be read. Never 0 before it
    /// is complete.
    pub fn wants(&self) -> usize {
        let have = &self.kept[..self.len];
        if self.is_binary() {
            match self.len {
                0..FIXED => FIXED - self.len,
                len => (self.kept_end() - len) + self.rest,
            }
        } else {
            line_wants(have).min(LINE_MAX - self.len)
        }
    }

    /// Takes bytes that have come, at most as many as it [`wants`](Self::wants); what is said once
    /// it is complete.
    ///
    /// # Errors
    /// It is none, or a broken one.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<Announcement>, Malformed> {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let room = self.room();
            if room == 0 {
                self.rest = self.rest.checked_sub(bytes.len()).ok_or(Malformed)?;
                break;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            let end = self.len + now.len();
            self.kept[self.len..end].copy_from_slice(now);
            self.len = end;
            bytes = later;
            self.check()?;
        }
        if self.is_binary() {
            let is_whole = self.len >= FIXED && self.len == self.kept_end() && self.rest == 0;
            return if is_whole {
                self.binary().map(Some)
            } else {
                Ok(None)
            };
        }
        match self.kept[..self.len].strip_suffix(b"\r\n") {
            Some(line) => parse_line(line).ok_or(Malformed).map(Some),
            None if self.len == LINE_MAX => Err(Malformed),
            None => Ok(None),
        }
    }

    fn is_binary(&self) -> bool {
        self.kept[0] == SIGNATURE[0] && self.len > 0
    }

    /// Bytes that may be kept now.
    fn room(&self) -> usize {
        match (self.is_binary(), self.len) {
            (true, 0..FIXED) => FIXED - self.len,
            (true, len) => self.kept_end() - len,
            (false, 0) => 1,
            (false, len) => LINE_MAX - len,
        }
    }

    /// What version 2 says of its length.
    fn length(&self) -> usize {
        usize::from(u16::from_be_bytes([self.kept[14], self.kept[15]]))
    }

    /// Where what is kept of version 2 ends.
    fn kept_end(&self) -> usize {
        (FIXED + self.length()).min(KEPT_MAX)
    }

    /// Whether it can still become a header.
    fn check(&mut self) -> Result<(), Malformed> {
        let have = &self.kept[..self.len];
        let agrees = |with: &[u8]| {
            let len = with.len().min(have.len());
            with[..len] == have[..len]
        };
        if !self.is_binary() {
            let ends = have.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
            let is_open = match ends {
                None => true,
                Some(end) => b"\r\n".starts_with(&have[end..]),
            };
            let begins = BEGINNINGS.into_iter().any(agrees);
            return if begins && is_open {
                Ok(())
            } else {
                Err(Malformed)
            };
        }
        let version_and_command = have.get(12).is_none_or(|byte| matches!(byte, 0x20 | 0x21));
        if !agrees(SIGNATURE) || !version_and_command {
            return Err(Malformed);
        }
        if self.len == FIXED {
            let length = self.length();
            if length > LENGTH_MAX || length < self.addresses_len()? {
                return Err(Malformed);
            }
            self.rest = FIXED + length - self.kept_end();
        }
        Ok(())
    }

    /// Bytes of addresses that the family of version 2 has; none if the proxy speaks for itself.
    fn addresses_len(&self) -> Result<usize, Malformed> {
        let (command, family) = (self.kept[12], self.kept[13]);
        if command == 0x20 {
            return Ok(0);
        }
        match (family >> 4, family & 0x0f) {
            (0, 0..=2) => Ok(0),
            (1, 0..=2) => Ok(12),
            (2, 0..=2) => Ok(36),
            (3, 0..=2) => Ok(216),
            _ => Err(Malformed),
        }
    }

    /// What a whole header of version 2 says. Datagrams, and sockets in a file system, tell no
    /// address that a connection here could have.
    fn binary(&self) -> Result<Announcement, Malformed> {
        if self.kept[12] == 0x20 {
            return Ok(Announcement::Local);
        }
        let port = |at: usize| u16::from_be_bytes([self.kept[at], self.kept[at + 1]]);
        let said = &self.kept[FIXED..];
        let ip = match self.kept[13] {
            0x11 => said.first_chunk::<4>().map(|ip| (IpAddr::from(*ip), 24)),
            0x21 => said.first_chunk::<16>().map(|ip| (IpAddr::from(*ip), 48)),
            _ => return Ok(Announcement::Unknown),
        };
        let (ip, port_at) = ip.ok_or(Malformed)?;
        Ok(Announcement::Client(SocketAddr::new(ip, port(port_at))))
    }
}

/// Bytes that a line of version 1, begun with `have`, still has at least.
fn line_wants(have: &[u8]) -> usize {
    if have.len() < LINE_MIN {
        return if have.ends_with(b"\r") {
            1
        } else {
            LINE_MIN - have.len()
        };
    }
    if have.ends_with(b"\r") {
        return 1;
    }
    let shortest_address = match have[9] {
        b'4' => "0.0.0.0".len(),
        b'6' => "::".len(),
        // UNKNOWN, behind which anything may stand.
        _ => return 2,
    };
    let of_field = usize::from(have.ends_with(b" "));
    // Each further field has a space before it; the source stands behind the second space.
    let of_fields = match have.iter().filter(|byte| **byte == b' ').count() {
        0..=2 => 1 + shortest_address + 4,
        3 => 4,
        4 => 2,
        _ => 0,
    };
    of_field + of_fields + 2
}

/// What a line of version 1 says, without its end. §2.1.
fn parse_line(line: &[u8]) -> Option<Announcement> {
    // Whatever stands behind that word, in whatever encoding.
    if line == b"PROXY UNKNOWN" || line.starts_with(b"PROXY UNKNOWN ") {
        return Some(Announcement::Unknown);
    }
    let line = core::str::from_utf8(line).ok()?;
    let v4 = line.strip_prefix("PROXY TCP4 ").map(|rest| (rest, true));
    let v6 = || line.strip_prefix("PROXY TCP6 ").map(|rest| (rest, false));
    let (rest, is_v4) = v4.or_else(v6)?;
    let mut fields = rest.split(' ');
    let address = |text: &str| match is_v4 {
        true => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        false => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
    };
    let source = address(fields.next()?)?;
    address(fields.next()?)?;
    let source_port = port(fields.next()?)?;
    port(fields.next()?)?;
    let client = SocketAddr::new(source, source_port);
    fields
        .next()
        .is_none()
        .then_some(Announcement::Client(client))
}

/// A port in decimal, without leading zeros.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let has_zeros = text.len() > 1 && text.starts_with('0');
    (is_plain && !has_zeros)
        .then(|| text.parse().ok())
        .flatten()
}

/// A block of addresses, as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressBlock {
    base: u128,
    bits: u32,
    is_v4: bool,
}

impl AddressBlock {
    /// The block that `text` writes: an address, or one with the bits that count behind a slash.
    pub fn parse(text: &str) -> Option<Self> {
        let (ip, bits) = match text.split_once('/') {
            Some((ip, bits)) => (ip, Some(bits)),
            None => (text, None),
        };
        let (base, is_v4) = number(ip.parse().ok()?);
        let width = if is_v4 { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= width)?,
            None => width,
        };
        Some(Self { base, bits, is_v4 })
    }

    /// Whether `ip` lies in it. An IPv4 address may come as IPv6 writes it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let (ip, is_v4) = number(ip.to_canonical());
        let width = if is_v4 { 32 } else { 128 };
        let differs = ip ^ self.base;
        is_v4 == self.is_v4 && (self.bits == 0 || differs >> (width - self.bits) == 0)
    }
}

fn number(ip: IpAddr) -> (u128, bool) {
    match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), true),
        IpAddr::V6(ip) => (u128::from(ip), false),
    }
}

/// Whose connections begin with a header. They must; those of others must not, as anybody could
/// claim to be anybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProxyHeaders {
    /// Nobody's.
    #[default]
    Never,
    /// Those of these addresses, and those over sockets in the file system.
    From(Vec<AddressBlock>),
}

impl ProxyHeaders {
    /// Whether a connection of `ip` begins with one; `None` is a socket in the file system.
    pub fn expects(&self, ip: Option<IpAddr>) -> bool {
        match self {
            Self::Never => false,
            Self::From(blocks) => ip.is_none_or(|ip| blocks.iter().any(|block| block.contains(ip))),
        }
    }
}

#[cfg(test)]
mod tests;
