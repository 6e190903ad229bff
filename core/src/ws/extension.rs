//! The grammar of `Sec-WebSocket-Extensions`: names with parameters, in lists. RFC 6455 §9.1.
//!
//! Sits in the protocol layer, over the byte classes of `http1/token.rs`. Yields views of the field
//! values; nothing is copied, but for values that hold a backslash.
//!
//! Invariants
//! - A list that breaks the grammar anywhere yields an `Err` before it ends; callers that have
//!   walked it once to the end may rely on it.
//! - Empty list members are skipped, as the `#rule` allows; a list of nothing else is malformed.
//!
//! Not here: what an extension means (`deflate.rs`), which ones are offered (`handshake.rs`).

use crate::http1::token::{is_ows, is_token_byte};
use std::borrow::Cow;

/// The field value does not follow the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A parameter's name, and its value if it has one, without the quotes it may have had.
pub type Param<'a> = (&'a [u8], Option<Cow<'a, [u8]>>);

/// One extension of a list, as offered or as accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    /// Its registered name, a token; compare exactly.
    pub name: &'a [u8],
    /// What stands behind the name, known to follow the grammar.
    params: &'a [u8],
}

impl<'a> Extension<'a> {
    /// Its parameters in order.
    pub fn params(&self) -> impl Iterator<Item = Param<'a>> + use<'a> {
        let mut rest = Cursor(self.params);
        core::iter::from_fn(move || rest.param().ok().flatten())
    }
}

/// The extensions of one field value, first to last; ends after the first `Err`.
pub fn extensions(
    value: &[u8],
) -> impl Iterator<Item = Result<Extension<'_>, Malformed>> + Clone + use<'_> {
    let mut rest = Cursor(value);
    let mut any = false;
    core::iter::from_fn(move || {
        let extension = match rest.extension().transpose() {
            None if !any => Err(Malformed),
            other => other?,
        };
        any = true;
        if extension.is_err() {
            rest = Cursor(b"");
        }
        Some(extension)
    })
}

/// The members of a list of tokens, such as `Sec-WebSocket-Protocol`; ends after the first `Err`.
/// RFC 6455 §11.3.4.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = Result<&[u8], Malformed>> + Clone + use<'_> {
    extensions(value).map(|member| match member {
        Ok(member) if member.params.is_empty() => Ok(member.name),
        _ => Err(Malformed),
    })
}

/// What is left to read of a value.
#[derive(Clone, Copy)]
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// The next member with all its parameters; `None` at the end.
    fn extension(&mut self) -> Result<Option<Extension<'a>>, Malformed> {
        loop {
            self.skip_ows();
            if !self.take(b',') {
                break;
            }
        }
        if self.0.is_empty() {
            return Ok(None);
        }
        let name = self.token().ok_or(Malformed)?;
        let behind_name = self.0;
        while self.param()?.is_some() {}
        let params = &behind_name[..behind_name.len() - self.0.len()];
        if self.0.is_empty() || self.0.starts_with(b",") {
            Ok(Some(Extension {
                name,
                params: params.trim_ascii_end(),
            }))
        } else {
            Err(Malformed)
        }
    }

    /// `";" token [ "=" ( token | quoted-string ) ]`; `None` if there is no semicolon.
    fn param(&mut self) -> Result<Option<Param<'a>>, Malformed> {
        self.skip_ows();
        if !self.take(b';') {
            return Ok(None);
        }
        self.skip_ows();
        let name = self.token().ok_or(Malformed)?;
        self.skip_ows();
        if !self.take(b'=') {
            return Ok(Some((name, None)));
        }
        self.skip_ows();
        let value = if self.take(b'"') {
            self.quoted()?
        } else {
            Cow::Borrowed(self.token().ok_or(Malformed)?)
        };
        self.skip_ows();
        Ok(Some((name, Some(value))))
    }

    /// The rest of a quoted string, which must spell a token once unquoted.
    fn quoted(&mut self) -> Result<Cow<'a, [u8]>, Malformed> {
        let text = self.0;
        let mut unquoted: Option<Vec<u8>> = None;
        let mut at = 0;
        loop {
            let byte = match text.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    unquoted.get_or_insert_with(|| text[..at].to_vec());
                    at += 1;
                    text.get(at).ok_or(Malformed)?
                }
                Some(byte) => byte,
                None => return Err(Malformed),
            };
            if !is_token_byte(*byte) {
                return Err(Malformed);
            }
            if let Some(unquoted) = &mut unquoted {
                unquoted.push(*byte);
            }
            at += 1;
        }
        self.0 = &text[at + 1..];
        let value = unquoted.map_or(Cow::Borrowed(&text[..at]), Cow::Owned);
        if value.is_empty() {
            return Err(Malformed);
        }
        Ok(value)
    }

    fn token(&mut self) -> Option<&'a [u8]> {
        let len = self
            .0
            .iter()
            .take_while(|byte| is_token_byte(**byte))
            .count();
        let (token, rest) = self.0.split_at(len);
        self.0 = rest;
        (len > 0).then_some(token)
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.0.first() == Some(&byte);
        if there {
            self.0 = &self.0[1..];
        }
        there
    }

    fn skip_ows(&mut self) {
        while let [byte, rest @ ..] = self.0
            && is_ows(*byte)
        {
            self.0 = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Malformed, extensions, tokens};

    /// Extensions with their parameters, as text.
    fn parsed(value: &str) -> Result<Vec<String>, Malformed> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        extensions(value.as_bytes())
            .map(|extension| {
                let extension = extension?;
                let mut line = text(extension.name);
                for (name, value) in extension.params() {
                    line += &format!(";{}", text(name));
                    if let Some(value) = value {
                        line += &format!("={}", text(&value));
                    }
                }
                Ok(line)
            })
            .collect()
    }

    #[test]
    fn rfc6455_9_1_lists_of_extensions_with_parameters() {
        let table: &[(&str, &[&str])] = &[
            ("foo", &["foo"]),
            ("foo, bar; baz=2", &["foo", "bar;baz=2"]),
            ("foo;bar ; baz = \"2\" ,,\tqux", &["foo;bar;baz=2", "qux"]),
            ("deflate-stream", &["deflate-stream"]),
            (
                "mux; max-channels=4; flow-control",
                &["mux;max-channels=4;flow-control"],
            ),
            (
                r#"private-extension; a="x\y", b"#,
                &["private-extension;a=xy", "b"],
            ),
            (",foo,", &["foo"]),
        ];
        for (value, want) in table {
            let want = want.iter().map(|line| (*line).to_owned()).collect();
            assert_eq!(parsed(value), Ok(want), "{value:?}");
        }
    }

    #[test]
    fn rfc6455_9_1_what_breaks_the_grammar_is_malformed() {
        for value in [
            "",
            " ",
            ",",
            "foo bar",
            "foo;",
            "foo;=1",
            "foo;a=",
            "foo;a=\"\"",
            "foo;a=\"b c\"",
            "foo;a=\"b",
            "foo;a=\"b\\",
            "foo;a=b c",
            "foo/bar",
            "foo, b@r",
            ";a",
            "foo;a=\"b\"c",
            "foo;;a",
            "f\u{e9}",
        ] {
            assert_eq!(parsed(value), Err(Malformed), "{value:?}");
        }
    }

    #[test]
    fn rfc6455_11_3_4_a_list_of_tokens_has_no_parameters() {
        let parsed = |value: &'static str| -> Result<Vec<&[u8]>, Malformed> {
            tokens(value.as_bytes()).collect()
        };
        assert_eq!(
            parsed("chat, superchat"),
            Ok(vec![&b"chat"[..], b"superchat"])
        );
        assert_eq!(parsed("chat; v=1"), Err(Malformed));
        assert_eq!(parsed(""), Err(Malformed));
    }
}
