//! Takes request-targets apart and decodes their escapes. RFC 3986 §2.1, §3; RFC 9112 §3.2.
//!
//! Sits in the protocol layer: slices in, slices out; memory is allocated only to decode, and only
//! where something is escaped. Targets come from the parser, which has checked their bytes.
//!
//! Invariants
//! - Splitting comes before decoding, so an escaped `/`, `&` or `=` never separates anything.
//! - Nothing is normalised: no dot segments, no case, no doubled slashes. Who routes decides, and
//!   what was decided on is what the application sees.
//!
//! Not here: which target a method may have (`http1/framing.rs`); absolute URLs, as a client takes
//! them (`url/absolute.rs`).

pub mod absolute;

use crate::http1::token::{hex_digit, is_unreserved};
use std::borrow::Cow;

/// The parts of a request-target, still escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// `host[:port]` of an absolute-form or authority-form target; it takes precedence over the
    /// `Host` field (RFC 9112 §3.2.2).
    pub authority: Option<&'a [u8]>,
    /// From the first `/` on; `*` for the asterisk-form; may be empty behind an authority.
    pub path: &'a [u8],
    /// Behind the first `?`, if there is one.
    pub query: Option<&'a [u8]>,
}

/// Splits a request-target of any of the four forms. RFC 9112 §3.2.
pub fn split_target(target: &[u8]) -> Target<'_> {
    let (authority, rest) = split_authority(target);
    let (path, query) = match rest.iter().position(|byte| *byte == b'?') {
        Some(mark) => (&rest[..mark], Some(&rest[mark + 1..])),
        None => (rest, None),
    };
    Target {
        authority,
        path,
        query,
    }
}

/// The authority of a target that has one, and what follows it.
fn split_authority(target: &[u8]) -> (Option<&[u8]>, &[u8]) {
    if matches!(target, [b'/', ..] | b"*" | []) {
        return (None, target);
    }
    let scheme_end = target.windows(3).position(|three| three == b"://");
    // Behind a query's mark it is no scheme's end: `example.com:80` has none either.
    let start = match scheme_end {
        Some(colon) if !target[..colon].contains(&b'?') => colon + 3,
        _ => 0,
    };
    let rest = &target[start..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
    let (authority, path) = rest.split_at(end.unwrap_or(rest.len()));
    (Some(authority), path)
}

/// Decodes percent-escapes. RFC 3986 §2.1.
///
/// A `%` without two hexadecimal digits behind it stays as it is. The result is bytes: whether
/// they are UTF-8 is another question.
pub fn percent_decode(text: &[u8]) -> Cow<'_, [u8]> {
    decode(text, false)
}

/// Decodes percent-escapes, and `+` to a space, as HTML forms write their fields.
pub fn form_decode(text: &[u8]) -> Cow<'_, [u8]> {
    decode(text, true)
}

fn decode(text: &[u8], plus_is_space: bool) -> Cow<'_, [u8]> {
    let special = |byte: &u8| *byte == b'%' || (plus_is_space && *byte == b'+');
    let Some(first) = text.iter().position(special) else {
        return Cow::Borrowed(text);
    };
    let mut decoded = Vec::with_capacity(text.len());
    let (plain, mut rest) = text.split_at(first);
    decoded.extend_from_slice(plain);
    while let [byte, behind @ ..] = rest {
        let (value, behind) = match (byte, behind) {
            (b'+', _) if plus_is_space => (b' ', behind),
            (b'%', [high, low, after @ ..]) => match (hex_digit(*high), hex_digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (b'%', behind),
            },
            _ => (*byte, behind),
        };
        decoded.push(value);
        rest = behind;
    }
    Cow::Owned(decoded)
}

/// The pairs of a query, decoded, in order: `a=1&b` gives `(a, 1)` and `(b, "")`.
///
/// Pairs are separated by `&`; empty ones are skipped; a name ends at its first `=`.
pub fn query_pairs(query: &[u8]) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    let pairs = query.split(|byte| *byte == b'&');
    pairs.filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(mark) => (&pair[..mark], &pair[mark + 1..]),
            None => (pair, &pair[pair.len()..]),
        };
        (form_decode(name), form_decode(value))
    })
}

/// Escapes every byte that is not `unreserved`, so that the result can stand in any part of a
/// URI. RFC 3986 §2.1, §2.3.
pub fn percent_encode(bytes: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = bytes.iter().position(|byte| !is_unreserved(*byte)) else {
        return Cow::Borrowed(bytes);
    };
    let (plain, rest) = bytes.split_at(first);
    let mut encoded = Vec::with_capacity(plain.len() + 3 * rest.len());
    encoded.extend_from_slice(plain);
    let hex = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble)];
    for byte in rest {
        if is_unreserved(*byte) {
            encoded.push(*byte);
        } else {
            encoded.extend_from_slice(&[b'%', hex(byte >> 4), hex(byte & 15)]);
        }
    }
    Cow::Owned(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc9112_3_2_the_four_forms_split() {
        type Row<'a> = (&'a [u8], Option<&'a [u8]>, &'a [u8], Option<&'a [u8]>);
        let table: &[Row<'_>] = &[
            (b"/where?q=now", None, b"/where", Some(b"q=now")),
            (b"/", None, b"/", None),
            (b"/a?b?c=d", None, b"/a", Some(b"b?c=d")),
            (b"/a?", None, b"/a", Some(b"")),
            (b"//double//", None, b"//double//", None),
            (
                b"/proxy/http://x/?u=1",
                None,
                b"/proxy/http://x/",
                Some(b"u=1"),
            ),
            (
                b"http://www.example.org/pub/WWW/TheProject.html",
                Some(b"www.example.org"),
                b"/pub/WWW/TheProject.html",
                None,
            ),
            (b"HTTPS://a:1?q", Some(b"a:1"), b"", Some(b"q")),
            (b"http://a", Some(b"a"), b"", None),
            (
                b"www.example.com:80",
                Some(b"www.example.com:80"),
                b"",
                None,
            ),
            (b"[::1]:443", Some(b"[::1]:443"), b"", None),
            (b"*", None, b"*", None),
        ];
        for (target, authority, path, query) in table {
            let want = Target {
                authority: *authority,
                path,
                query: *query,
            };
            assert_eq!(split_target(target), want, "{target:?}");
        }
    }

    #[test]
    fn escapes_decode_once_and_broken_ones_stay() {
        let table: &[(&[u8], &[u8], &[u8])] = &[
            (b"plain", b"plain", b"plain"),
            (b"a%20b+c", b"a b+c", b"a b c"),
            (b"%2541", b"%41", b"%41"),
            (b"%00%ff%Ff", b"\0\xff\xff", b"\0\xff\xff"),
            (b"100%", b"100%", b"100%"),
            (b"%4", b"%4", b"%4"),
            (b"%zz%4g%%41", b"%zz%4g%A", b"%zz%4g%A"),
            (b"%+1", b"%+1", b"% 1"),
        ];
        for (text, percent, form) in table {
            assert_eq!(percent_decode(text), Cow::Borrowed(*percent), "{text:?}");
            assert_eq!(form_decode(text), Cow::Borrowed(*form), "{text:?}");
        }
        assert!(matches!(percent_decode(b"a+b"), Cow::Borrowed(_)));
    }

    #[test]
    fn an_escaped_separator_does_not_separate() {
        let pairs: Vec<_> = query_pairs(b"a=1%262&&b&=x&c=d=e&k%3D=v+w").collect();
        let want: [(&[u8], &[u8]); 5] = [
            (b"a", b"1&2"),
            (b"b", b""),
            (b"", b"x"),
            (b"c", b"d=e"),
            (b"k=", b"v w"),
        ];
        let want = want.map(|(name, value)| (Cow::Borrowed(name), Cow::Borrowed(value)));
        assert_eq!(pairs, want);
        assert_eq!(query_pairs(b"").count(), 0);
    }

    proptest! {
        #[test]
        fn encoding_is_undone_by_decoding(bytes: Vec<u8>) {
            let encoded = percent_encode(&bytes).into_owned();
            prop_assert!(encoded.iter().all(|b| is_unreserved(*b) || *b == b'%'));
            prop_assert_eq!(&*percent_decode(&encoded), &bytes[..]);
            prop_assert_eq!(&*form_decode(&encoded), &bytes[..]);
        }

        #[test]
        fn splitting_loses_no_byte(target in "[ -~]{0,40}") {
            let target = target.as_bytes();
            let split = split_target(target);
            let len = split.authority.map_or(0, <[u8]>::len) + split.path.len();
            let query = split.query.map_or(0, |query| query.len() + 1);
            prop_assert!(target.len() >= len + query);
            prop_assert!(target.ends_with(split.query.unwrap_or(split.path)));
        }
    }
}
