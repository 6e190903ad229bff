//! Cookies of a request. RFC 6265 §4.2.1, §5.4.
//!
//! Sits in the native module, under `request.cookies`.
//!
//! Invariants
//! - Of a name that repeats the first counts: clients send the one with the longest path first.
//! - Names and values are bytes as sent; only quotes around a whole value are taken off, as
//!   §4.1.1 lets servers write them.
//!
//! Not here: setting cookies, which is a header of the response like any other.

use super::request::View;
use crate::vm::Stack;

/// Pushes the cookies of the request at 1 as a table by name.
pub(super) fn push(stack: &mut Stack<'_>) {
    let headers: Vec<Vec<u8>> = View::at(stack, 1)
        .map(|view| view.values(b"cookie").map(<[u8]>::to_vec).collect())
        .unwrap_or_default();
    stack.push_table(0, 4);
    let table = stack.len();
    for (name, value) in headers.iter().flat_map(|header| pairs(header)) {
        stack.push_string(name);
        let key = stack.len();
        stack.push_value_of(table, key);
        let is_new = stack.is_nil(key + 1);
        stack.pop(1);
        if is_new {
            stack.push_string(value);
            stack.set_entry(table);
        } else {
            stack.pop(1);
        }
    }
}

/// The pairs of one `Cookie` field. What has no `=` or no name is no cookie.
fn pairs(header: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    header.split(|byte| *byte == b';').filter_map(|pair| {
        let mark = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (pair[..mark].trim_ascii(), pair[mark + 1..].trim_ascii());
        let value = match value {
            [b'"', inside @ .., b'"'] => inside,
            _ => value,
        };
        (!name.is_empty()).then_some((name, value))
    })
}

#[cfg(test)]
mod tests {
    use super::pairs;

    #[test]
    fn rfc6265_4_2_1_pairs_end_at_semicolons_and_names_at_the_first_equals_sign() {
        let table: &[(&str, &[(&str, &str)])] = &[
            ("a=1; b=2", &[("a", "1"), ("b", "2")]),
            ("a=1;b=2;", &[("a", "1"), ("b", "2")]),
            ("a=b=c", &[("a", "b=c")]),
            ("a=; b", &[("a", "")]),
            ("=x; ; a=1", &[("a", "1")]),
            ("a=\"q\"; b=\"", &[("a", "q"), ("b", "\"")]),
            ("A=1; a=2", &[("A", "1"), ("a", "2")]),
            ("", &[]),
        ];
        for (header, want) in table {
            let got: Vec<(&str, &str)> = pairs(header.as_bytes())
                .map(|(name, value)| {
                    let text = |bytes| std::str::from_utf8(bytes).expect("ASCII");
                    (text(name), text(value))
                })
                .collect();
            assert_eq!(&got, want, "{header:?}");
        }
    }
}
