//! What we read of an X.509 certificate ourselves (RFC 5280 §4.1): whose it is, which names it is
//! for, and when it is valid. Trust is decided elsewhere, by webpki.
//!
//! Sits in the transport, under the settings, which choose a certificate by name, and beside
//! [`PeerCertificate`], which applications ask for the subject of a client.
//!
//! Invariants
//! - Malformed bytes give `None`, never a panic: a peer chose them.
//! - A subject is written as RFC 4514 says, so no attribute can be forged by a value with commas.
//!
//! Not here: signatures, chains, purposes (webpki).

use core::fmt::Write as _;

const BOOLEAN: u8 = 0x01;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// The attributes that RFC 4514 §3 gives short names, and the one everybody adds.
const ATTRIBUTES: &[(&[u8], &str)] = &[
    (&[0x55, 0x04, 0x03], "CN"),
    (&[0x55, 0x04, 0x06], "C"),
    (&[0x55, 0x04, 0x07], "L"),
    (&[0x55, 0x04, 0x08], "ST"),
    (&[0x55, 0x04, 0x09], "STREET"),
    (&[0x55, 0x04, 0x0a], "O"),
    (&[0x55, 0x04, 0x0b], "OU"),
    (
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19],
        "DC",
    ),
    (
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01],
        "UID",
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01],
        "emailAddress",
    ),
];

/// The certificate by which a peer has proved who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCertificate<'a> {
    der: &'a [u8],
}

impl<'a> PeerCertificate<'a> {
    /// The certificate whose DER encoding is `der`.
    pub const fn new(der: &'a [u8]) -> Self {
        Self { der }
    }

    /// Its DER encoding.
    pub const fn der(self) -> &'a [u8] {
        self.der
    }

    /// Whose it is, as RFC 4514 writes it: `CN=alice,O=Example`. Empty if it names nobody, or in a
    /// way that cannot be read.
    pub fn subject(self) -> String {
        let subject = Tbs::read(self.der).and_then(|tbs| distinguished_name(tbs.subject));
        subject.unwrap_or_default()
    }
}

/// The parts of a certificate that we look at.
struct Tbs<'a> {
    validity: &'a [u8],
    subject: &'a [u8],
    extensions: Option<&'a [u8]>,
}

impl<'a> Tbs<'a> {
    fn read(certificate: &'a [u8]) -> Option<Self> {
        let mut outer = Der(Der(certificate).expect(SEQUENCE)?);
        let mut tbs = Der(outer.expect(SEQUENCE)?);
        if tbs.peek() == Some(VERSION) {
            tbs.next()?;
        }
        let _serial = tbs.next()?;
        let _algorithm = tbs.expect(SEQUENCE)?;
        let _issuer = tbs.expect(SEQUENCE)?;
        let validity = tbs.expect(SEQUENCE)?;
        let subject = tbs.expect(SEQUENCE)?;
        let _key = tbs.expect(SEQUENCE)?;
        let mut extensions = None;
        for (tag, body) in tbs {
            if tag == EXTENSIONS {
                extensions = Some(Der(body).expect(SEQUENCE)?);
            }
        }
        Some(Self {
            validity,
            subject,
            extensions,
        })
    }
}

/// The DNS names that `certificate` is for, in lower case, wildcards as `*.example.com`.
pub(super) fn dns_names(certificate: &[u8]) -> Vec<String> {
    let extensions = Tbs::read(certificate).and_then(|tbs| tbs.extensions);
    let mut extensions = Der(extensions.unwrap_or_default());
    let mut names = Vec::new();
    while let Some((SEQUENCE, extension)) = extensions.next() {
        let mut extension = Der(extension);
        if extension.expect(OID) != Some(SUBJECT_ALT_NAME) {
            continue;
        }
        if extension.peek() == Some(BOOLEAN) {
            extension.next();
        }
        let listed = extension
            .next()
            .and_then(|(_, body)| Der(body).expect(SEQUENCE));
        for (tag, body) in Der(listed.unwrap_or_default()) {
            if tag == DNS_NAME
                && let Ok(name) = core::str::from_utf8(body)
            {
                names.push(name.to_ascii_lowercase());
            }
        }
    }
    names
}

/// From when until when `certificate` is valid, in seconds since 1970-01-01 00:00 UTC.
pub(super) fn validity(certificate: &[u8]) -> Option<(i64, i64)> {
    let mut times = Der(Tbs::read(certificate)?.validity);
    Some((time(times.next()?)?, time(times.next()?)?))
}

/// RFC 5280 §4.1.2.5: `YYMMDDHHMMSSZ` until 2049, `YYYYMMDDHHMMSSZ` from then on.
fn time((tag, text): (u8, &[u8])) -> Option<i64> {
    let text = core::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = text.split_at_checked(if tag == UTC_TIME { 2 } else { 4 })?;
    let year: i64 = year.parse().ok()?;
    let year = match tag {
        UTC_TIME if year < 50 => 2000 + year,
        UTC_TIME => 1900 + year,
        _ => year,
    };
    if rest.len() != 10 {
        return None;
    }
    let two = |at: usize| rest.get(at..at + 2)?.parse::<i64>().ok();
    let (month, day) = (two(0)?, two(2)?);
    let seconds = two(4)? * 3600 + two(6)? * 60 + two(8)?;
    // Days since 1970 in the Gregorian calendar, counted in years that begin in March, so that the
    // leap day is the last.
    let (years, months) = (year - i64::from(month <= 2), (month + 9) % 12);
    let leap_days = years.div_euclid(4) - years.div_euclid(100) + years.div_euclid(400);
    let days = years * 365 + leap_days + (months * 153 + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400 + seconds)
}

/// RFC 4514 §2: the last relative name first.
fn distinguished_name(name: &[u8]) -> Option<String> {
    let sets: Vec<_> = Der(name).map(|(_, set)| set).collect();
    let mut text = String::new();
    for set in sets.into_iter().rev() {
        let (mut attributes, mut joint) = (Der(set), ",");
        while let Some((SEQUENCE, attribute)) = attributes.next() {
            if !text.is_empty() {
                text.push_str(joint);
            }
            joint = "+";
            let mut attribute = Der(attribute);
            write_type(&mut text, attribute.expect(OID)?);
            text.push('=');
            let (_, value) = attribute.next()?;
            write_value(&mut text, &String::from_utf8_lossy(value));
        }
    }
    Some(text)
}

fn write_type(text: &mut String, oid: &[u8]) {
    if let Some((_, name)) = ATTRIBUTES.iter().find(|(known, _)| *known == oid) {
        return text.push_str(name);
    }
    text.push_str("OID");
    let (mut arc, mut first) = (0_u64, true);
    for byte in oid {
        arc = arc.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        let root = (arc / 40).min(2);
        // Writing to a string cannot fail.
        let _ = match first {
            true => write!(text, ".{root}.{}", arc - root * 40),
            false => write!(text, ".{arc}"),
        };
        (arc, first) = (0, false);
    }
}

fn write_value(text: &mut String, value: &str) {
    let last = value.chars().count().saturating_sub(1);
    for (at, character) in value.chars().enumerate() {
        match character {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=' => {
                text.push('\\');
                text.push(character);
            }
            ' ' if at == 0 || at == last => text.push_str("\\ "),
            '#' if at == 0 => text.push_str("\\#"),
            _ if character.is_control() => {
                let mut bytes = [0; 4];
                for byte in character.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(text, "\\{byte:02X}");
                }
            }
            _ => text.push(character),
        }
    }
}

/// A cursor over values of the distinguished encoding rules (X.690): tag, length, body.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The body of the next value if it has `tag`.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, body) = self.next()?;
        (found == tag).then_some(body)
    }
}

impl<'a> Iterator for Der<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (tag, rest) = self.0.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(*first), rest),
            // Longer lengths than 2^24 are no certificate's.
            0x81..=0x83 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let len = digits
                    .iter()
                    .fold(0, |len, digit| len << 8 | usize::from(*digit));
                (len, rest)
            }
            _ => return None,
        };
        let (body, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((*tag, body))
    }
}

#[cfg(test)]
mod tests {
    use super::{Der, PeerCertificate, UTC_TIME, distinguished_name, dns_names, time, validity};

    #[test]
    fn times_of_either_form_count_from_1970() {
        let utc = |text: &str| time((UTC_TIME, text.as_bytes()));
        assert_eq!(utc("700101000000Z"), Some(0));
        assert_eq!(utc("000229235959Z"), Some(951_868_799));
        assert_eq!(utc("491231235959Z"), Some(2_524_607_999));
        assert_eq!(time((0x18, b"20500101000000Z")), Some(2_524_608_000));
        for bad in ["700101000000", "7001010000Z", "70010100000aZ", "Z", ""] {
            assert_eq!(utc(bad), None, "{bad}");
        }
    }

    #[test]
    fn rfc4514_2_4_a_value_cannot_forge_an_attribute() {
        let name = b"\x31\x0b\x30\x09\x06\x03\x55\x04\x0a\x0c\x02Ex\
            \x31\x10\x30\x0e\x06\x03\x55\x04\x03\x0c\x07a,CN=\x01b";
        assert_eq!(distinguished_name(name).unwrap(), "CN=a\\,CN\\=\\01b,O=Ex");
        let strange = b"\x31\x0a\x30\x08\x06\x03\x2a\x86\x48\x0c\x01x";
        assert_eq!(distinguished_name(strange).unwrap(), "OID.1.2.840=x");
    }

    #[test]
    fn bytes_that_are_no_certificate_are_nobodys() {
        for bytes in [
            &b""[..],
            b"\x30",
            b"\x30\x84\xff\xff\xff\xff",
            b"\x30\x03\x30\x01\x02",
        ] {
            assert_eq!(PeerCertificate::new(bytes).subject(), "");
            assert_eq!((dns_names(bytes), validity(bytes)), (Vec::new(), None));
        }
        assert_eq!(Der(b"\x04\x81\x02ab").next(), Some((4, &b"ab"[..])));
    }
}
