//! Redirects: whether a response asks for another request, and which. RFC 9110 §15.4.
//!
//! Sits in the client's face; a pure question about one response, asked before its body is read.
//!
//! Invariants
//! - What proves who we are (`Authorization`, `Cookie`, a `Host` of our own) never reaches another
//!   origin, and neither do credentials that stand in a `Location`.
//! - No step leads from TLS to plain text, nor from the network into this machine's file system.
//! - A body is sent again only if it is at hand whole.
//!
//! | Status | Method | Body | RFC |
//! | --- | --- | --- | --- |
//! | 301, 302 | `POST` becomes `GET`, others stay | dropped with `POST`, else sent again | 9110 §15.4.2, §15.4.3 |
//! | 303 | `HEAD` stays, others become `GET` | dropped | 9110 §15.4.4 |
//! | 307, 308 | stays | sent again | 9110 §15.4.8, §15.4.9 |
//! | another 3xx, or no `Location` | – | the response is the answer | 9110 §15.4 |
//!
//! [`RedirectMethod`] has the other readings of the first two rows that are about.
//!
//! Not here: how often (`client.rs`); resolving references (`url/absolute.rs`).

use crate::url::absolute::{Host, Url, UrlError};
use core::fmt;

/// What becomes of the method over a redirect. Over 307 and 308 it stays in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedirectMethod {
    /// `POST` becomes `GET` over 301, 302 and 303, others but `HEAD` over 303. RFC 9110 §15.4.
    #[default]
    Standard,
    /// All but `HEAD` become `GET` over 301, 302 and 303.
    Get,
    /// It stays, and the body is sent again.
    Keep,
}

impl RedirectMethod {
    /// Whether `method` becomes `GET`; `None` if the status is none of a redirect.
    fn becomes_get(self, status: u16, method: &[u8]) -> Option<bool> {
        let has_own_body = method != b"HEAD" && method != b"GET";
        match (status, self) {
            (301 | 302, Self::Standard) => Some(method == b"POST"),
            (303, Self::Standard) | (301..=303, Self::Get) => Some(has_own_body),
            (301..=303, Self::Keep) | (307 | 308, _) => Some(false),
            _ => None,
        }
    }
}

/// The next request that a response asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Of whom.
    pub(super) url: Url,
    /// The method becomes `GET`, without a body and the fields that described it.
    pub(super) becomes_get: bool,
    /// Another origin: fields that prove who we are stay behind.
    pub(super) leaves_origin: bool,
}

/// Why a redirect is not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedirectError {
    /// More steps than were allowed.
    TooMany {
        /// How many were.
        steps_max: u32,
        /// Where the last one leads.
        to: Box<str>,
    },
    /// As [`TooMany`](Self::TooMany), and the last leads where one has been before.
    Loop {
        /// How many were allowed.
        steps_max: u32,
        /// Where it leads back to.
        to: Box<str>,
    },
    /// `Location` is no URL that can be asked.
    Location {
        /// As sent, escaped.
        location: Box<str>,
        /// What is wrong with it.
        error: UrlError,
    },
    /// From TLS to plain text.
    Downgrade {
        /// Where it leads.
        to: Box<str>,
    },
    /// From the network to a socket in the file system, or from HTTP to something else.
    Forbidden {
        /// Where it leads.
        to: Box<str>,
    },
    /// The body would have to be sent again, and was given piece by piece.
    BodyIsGone {
        /// The response's status.
        status: u16,
    },
}

impl fmt::Display for RedirectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { steps_max, to } => {
                write!(f, "more than {steps_max} redirects, the last to {to}")
            }
            Self::Loop { steps_max, to } => {
                write!(
                    f,
                    "a redirect loop: more than {steps_max} redirects, and again to {to}"
                )
            }
            Self::Location { location, error } => {
                write!(
                    f,
                    "a redirect to \"{location}\", which cannot be followed: {error}"
                )
            }
            Self::Downgrade { to } => write!(f, "a redirect from https to {to} is not followed"),
            Self::Forbidden { to } => write!(f, "a redirect to {to} is not followed"),
            Self::BodyIsGone { status } => write!(
                f,
                "a redirect ({status}) asks for the body again, which was given piece by piece"
            ),
        }
    }
}

impl core::error::Error for RedirectError {}

/// What a response with `status` and these values of `Location` asks for, where `method` was asked
/// of `from`, and what becomes of it is told by `rule`; `None` if it is the answer itself.
///
/// # Errors
/// It asks for something that must not be followed.
pub(super) fn step<'a>(
    status: u16,
    (method, rule): (&[u8], RedirectMethod),
    from: &Url,
    mut locations: impl Iterator<Item = &'a [u8]>,
) -> Result<Option<Step>, RedirectError> {
    let Some(becomes_get) = rule.becomes_get(status, method) else {
        return Ok(None);
    };
    // Two of them contradict each other; whoever asked shall see that.
    let (Some(location), None) = (locations.next(), locations.next()) else {
        return Ok(None);
    };
    let url = from
        .resolve(location)
        .map_err(|error| RedirectError::Location {
            location: location.escape_ascii().to_string().into(),
            error,
        })?;
    let to = || url.to_string().into_boxed_str();
    let into_files = |url: &Url| matches!(url.host(), Host::Unix(_));
    if url.scheme().is_websocket() || (into_files(&url) && url.host() != from.host()) {
        return Err(RedirectError::Forbidden { to: to() });
    }
    if from.scheme().is_secure() && !url.scheme().is_secure() {
        return Err(RedirectError::Downgrade { to: to() });
    }
    let leaves_origin = url.origin() != from.origin();
    // Only who wrote the first URL may say who we are.
    let url = if leaves_origin || url.credentials() != from.credentials() {
        url.without_credentials()
    } else {
        url
    };
    Ok(Some(Step {
        url,
        becomes_get,
        leaves_origin,
    }))
}

impl Step {
    /// Whether a field of the request before goes with the next one.
    pub(super) fn keeps(&self, name: &[u8]) -> bool {
        let is = |known: &&str| name.eq_ignore_ascii_case(known.as_bytes());
        let proves = ["authorization", "cookie", "proxy-authorization", "host"];
        let describes = [
            "content-type",
            "content-encoding",
            "content-language",
            "content-location",
            "content-md5",
            "content-digest",
            "digest",
            "last-modified",
        ];
        let stays = self.leaves_origin && proves.iter().any(is);
        let is_moot = self.becomes_get && describes.iter().any(is);
        !stays && !is_moot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(
        status: u16,
        method: &str,
        from: &str,
        to: &str,
    ) -> Result<Option<Step>, RedirectError> {
        let from = Url::parse(from.as_bytes()).expect("a good URL");
        step(
            status,
            (method.as_bytes(), RedirectMethod::Standard),
            &from,
            [to.as_bytes()].into_iter(),
        )
    }

    #[track_caller]
    fn followed(status: u16, method: &str, from: &str, to: &str) -> Step {
        follow(status, method, from, to)
            .expect("to be followed")
            .expect("a redirect")
    }

    #[test]
    fn rfc9110_15_4_each_status_has_its_method() {
        let table = [
            (301, "GET", false),
            (301, "HEAD", false),
            (301, "POST", true),
            (301, "PUT", false),
            (302, "POST", true),
            (302, "DELETE", false),
            (303, "GET", false),
            (303, "HEAD", false),
            (303, "POST", true),
            (303, "PUT", true),
            (307, "POST", false),
            (308, "POST", false),
        ];
        for (status, method, becomes_get) in table {
            let step = followed(status, method, "http://a/b", "c");
            assert_eq!(step.becomes_get, becomes_get, "{status} {method}");
            assert_eq!(step.url.to_string(), "http://a/c");
            assert_eq!(step.keeps(b"Content-Type"), !becomes_get);
        }
        let others = [
            (RedirectMethod::Get, [true, true, true, false, false]),
            (RedirectMethod::Keep, [false; 5]),
        ];
        for (rule, becomes) in others {
            for (status, becomes_get) in [301, 302, 303, 307, 308].into_iter().zip(becomes) {
                assert_eq!(rule.becomes_get(status, b"PUT"), Some(becomes_get));
                assert_eq!(rule.becomes_get(status, b"HEAD"), Some(false));
            }
            assert_eq!(rule.becomes_get(304, b"PUT"), None);
        }
        for status in [200, 300, 304, 305, 306, 399, 404] {
            assert_eq!(
                follow(status, "GET", "http://a/", "/b"),
                Ok(None),
                "{status}"
            );
        }
        let from = Url::parse(b"http://a/").expect("a good URL");
        assert_eq!(
            step(
                302,
                (b"GET", RedirectMethod::Standard),
                &from,
                [].into_iter()
            ),
            Ok(None)
        );
        let two: [&[u8]; 2] = [b"/b", b"/c"];
        assert_eq!(
            step(
                302,
                (b"GET", RedirectMethod::Standard),
                &from,
                two.into_iter()
            ),
            Ok(None)
        );
    }

    #[test]
    fn what_proves_who_we_are_stays_with_its_origin() {
        let same = followed(302, "GET", "http://u:p@a:80/x", "/y");
        assert!(same.keeps(b"Authorization") && same.keeps(b"COOKIE"));
        assert!(same.url.credentials().is_some());
        for to in [
            "http://b/",
            "http://a:81/",
            "https://a/",
            "//A.b/",
            "http://u:p@b/",
        ] {
            let step = followed(302, "GET", "http://u:p@a/x", to);
            assert!(step.leaves_origin, "{to}");
            for name in ["authorization", "Cookie", "Proxy-Authorization", "Host"] {
                assert!(!step.keeps(name.as_bytes()), "{to}: {name}");
            }
            assert!(step.keeps(b"Accept"));
            assert_eq!(step.url.credentials(), None, "{to}");
        }
        let planted = followed(302, "GET", "http://a/x", "http://eve:x@a/y");
        assert_eq!(planted.url.credentials(), None);
    }

    #[test]
    fn some_steps_are_not_taken() {
        let error = |from, to| follow(302, "GET", from, to).expect_err("not to be followed");
        let table = [
            (
                error("https://a/", "http://a/x"),
                "a redirect from https to http://a/x is not followed",
            ),
            (
                error("http://a/", "http+unix://%2Fs/x"),
                "a redirect to http+unix://%2Fs/x is not followed",
            ),
            (
                error("http://a/", "ws://a/x"),
                "a redirect to ws://a/x is not followed",
            ),
            (
                error("http://a/", "ftp://a/x"),
                "a redirect to \"ftp://a/x\", which cannot be followed: \
                 its scheme is none of http, https, ws, wss, http+unix, ws+unix",
            ),
            (
                error("http://a/", "http://\u{fc}/"),
                "a redirect to \"http://\\xc3\\xbc/\", which cannot be followed: \
                 its host is not ASCII: write it in punycode (xn--…)",
            ),
        ];
        for (error, text) in table {
            assert_eq!(error.to_string(), text);
        }
        let inside = followed(302, "GET", "http+unix://%2Fs/a", "/b");
        assert_eq!(inside.url.to_string(), "http+unix://%2Fs/b");
    }
}
