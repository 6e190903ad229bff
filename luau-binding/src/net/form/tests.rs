//! What the multipart parser takes, and what it refuses by which rule.

use super::{Part, parse, split_params};
use std::borrow::Cow;

fn part<'a>(name: &'a str, filename: Option<&'a str>, kind: &'a str, body: &'a str) -> Part<'a> {
    Part {
        name: Cow::Borrowed(name.as_bytes()),
        filename: filename.map(|filename| Cow::Borrowed(filename.as_bytes())),
        content_type: kind.as_bytes(),
        body: body.as_bytes(),
    }
}

#[test]
fn rfc7578_4_parts_are_fields_and_files() {
    let body = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\none\r\n\
        --b\r\ncontent-disposition: form-data; name=f; filename=\"x.txt\"\r\n\
        Content-Type: text/html; charset=utf-8\r\n\r\n<p>\r\n--bb\r\n--\r\n\r\n\
        --b \t\r\nContent-Disposition: form-data; filename=\"\"; name=\"e\"\r\n\r\n\r\n--b--\r\n";
    // The boundary `b` is a prefix of `--bb`: what follows is no line's end, so it is refused.
    assert_eq!(
        parse(body.as_bytes(), b"b"),
        Err("a boundary is not followed by a line's end")
    );
    let body = body.replace("--bb", "- -b");
    let mut parsed = parse(body.as_bytes(), b"b").expect("well-formed");
    assert_eq!(parsed.pop(), Some(part("e", Some(""), "text/plain", "")));
    let kind = "text/html; charset=utf-8";
    let file = part("f", Some("x.txt"), kind, "<p>\r\n- -b\r\n--\r\n");
    assert_eq!(parsed, [part("a", None, "text/plain", "one"), file]);
}

#[test]
fn rfc9110_5_6_4_a_backslash_in_a_quoted_name_escapes_the_next_byte() {
    let body = b"--b\r\nContent-Disposition: form-data; name=\"a\\\"b\\\\c;d=e\"\r\n\r\n\r\n--b--";
    let parsed = parse(body, b"b").expect("well-formed");
    assert_eq!(parsed[0].name.as_ref(), b"a\"b\\c;d=e");
}

#[test]
fn a_body_without_parts_is_an_empty_form() {
    assert_eq!(parse(b"--b--", b"b"), Ok(Vec::new()));
    assert_eq!(parse(b"\r\n--b--\r\n", b"b"), Ok(Vec::new()));
}

#[test]
fn rfc2046_5_1_what_is_not_whole_or_not_well_formed_is_refused() {
    let field = "Content-Disposition: form-data; name=\"a\"";
    let table = [
        ("".to_owned(), "the body does not begin with its boundary"),
        (
            format!("preamble\r\n--b\r\n{field}\r\n\r\nx\r\n--b--"),
            "the body does not begin with its boundary",
        ),
        (
            format!("--b\r\n{field}\r\n\r\nx\r\n--b--\r\nepilogue"),
            "bytes follow the last boundary",
        ),
        (
            format!("--b\r\n{field}\r\n\r\nx\r\n--b\r\n"),
            "the header fields of a part do not end",
        ),
        (
            format!("--b\r\n{field}\r\n\r\nx"),
            "the last boundary is missing",
        ),
        (
            format!("--b\n{field}\n\nx\n--b--"),
            "a boundary is not followed by a line's end",
        ),
    ];
    for (body, rule) in table {
        assert_eq!(parse(body.as_bytes(), b"b"), Err(rule), "{body:?}");
    }
}

#[test]
fn rfc7578_4_fields_of_a_part_that_are_malformed_or_forbidden_are_refused() {
    let field = "Content-Disposition: form-data; name=\"a\"";
    let table = [
        (
            format!("--b\r\n{field}\r\nx\r\n\r\n\r\n--b--"),
            "a header field of a part has no colon",
        ),
        (
            format!("--b\r\n{field}\r\n folded: x\r\n\r\n\r\n--b--"),
            "a header field of a part is malformed",
        ),
        (
            format!("--b\r\n{field}\r\n{field}\r\n\r\n\r\n--b--"),
            "a header field of a part repeats",
        ),
        (
            "--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--".to_owned(),
            "a part has no Content-Disposition",
        ),
        (
            "--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--".to_owned(),
            "a part has no name",
        ),
        (
            "--b\r\nContent-Disposition: attachment; name=a\r\n\r\nx\r\n--b--".to_owned(),
            "a part's Content-Disposition is not form-data",
        ),
        (
            format!("--b\r\n{field}; name=b\r\n\r\nx\r\n--b--"),
            "a part's Content-Disposition is malformed",
        ),
        (
            "--b\r\nContent-Disposition: form-data; name=\"a\r\n\r\nx\r\n--b--".to_owned(),
            "a part's Content-Disposition is malformed",
        ),
        (
            format!("--b\r\n{field}\r\nContent-Transfer-Encoding: base64\r\n\r\nx\r\n--b--"),
            "a part is encoded, which RFC 7578 section 4.7 does not allow",
        ),
        (
            format!(
                "--b\r\n{field}\r\nX: {}\r\n\r\nx\r\n--b--",
                "y".repeat(9_000)
            ),
            "the header fields of a part exceed 8 KiB",
        ),
        (
            format!("--b\r\n{field}\r\n\r\nx\r\n").repeat(1_001) + "--b--",
            "it has more than 1000 parts",
        ),
    ];
    for (body, rule) in table {
        let shown = &body[..body.len().min(100)];
        assert_eq!(parse(body.as_bytes(), b"b"), Err(rule), "{shown:?}");
    }
    for boundary in [&b""[..], b"a ", b"a\r\n", &[b'x'; 71], b"\xff"] {
        let rule = "the boundary is not one to seventy of the bytes it may have";
        assert_eq!(parse(b"", boundary), Err(rule), "{boundary:?}");
    }
}

#[test]
fn every_cut_of_a_form_is_refused() {
    let body = b"--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\none\r\n--b--";
    assert!(parse(body, b"b").is_ok());
    for end in 0..body.len() {
        assert!(parse(&body[..end], b"b").is_err(), "cut at {end}");
    }
}

#[test]
fn rfc9110_5_6_6_parameters_are_tokens_or_quoted() {
    let read = |field: &'static str| {
        let (value, params) = split_params(field.as_bytes());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("ASCII");
        let params = params.map(|params| {
            let pairs = params.iter();
            pairs
                .map(|(name, value)| format!("{}={}", text(name), text(value)))
                .collect::<Vec<_>>()
                .join(",")
        });
        (text(value), params)
    };
    for (field, value, params) in [
        ("a/b", "a/b", Some("")),
        (" a/b ; X=1;y=\"2; 3\" ", "a/b", Some("x=1,y=2; 3")),
        ("a; ;", "a", Some("")),
        ("a; x", "a", None),
        ("a; x=", "a", None),
        ("a; x=1 2", "a", None),
        ("a; x=\"1\"2", "a", None),
        ("a; x=1; X=2", "a", None),
        ("a; x y=1", "a", None),
    ] {
        let want = (value.to_owned(), params.map(str::to_owned));
        assert_eq!(read(field), want, "{field:?}");
    }
}
