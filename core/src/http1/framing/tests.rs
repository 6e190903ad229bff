//! Rules between the fields of a head, read from RFC 9112 §3.2, §6.3 and §9.3.

use super::*;
use crate::http1::parse::{HeadProgress, parse_request, parse_response};
use crate::http1::{RequestHead, ResponseHead};
use crate::limits::Limits;
use Violation as V;

/// The verdict on `line`, with `fields` under it.
fn judged(line: &str, fields: &[&str]) -> Result<RequestHead, Violation> {
    let mut head = format!("{line}\r\n");
    for field in fields {
        head.push_str(field);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    let (mut progress, mut out) = (HeadProgress::default(), Vec::new());
    let verdict = parse_request(head.as_bytes(), &mut progress, &Limits::default(), &mut out);
    assert_eq!(out.is_empty(), verdict.is_err() || fields.is_empty());
    verdict.map(|head| head.expect("test heads are whole"))
}

/// The verdict on a POST with a Host and these fields.
fn post(fields: &[&str]) -> Result<RequestHead, Violation> {
    judged("POST / HTTP/1.1", &[&["Host: a"], fields].concat())
}

#[track_caller]
fn framed(fields: &[&str], want: Result<Framing, Violation>) {
    assert_eq!(post(fields).map(|head| head.framing), want, "{fields:?}");
    // The order of fields is no part of the verdict.
    let reversed: Vec<_> = fields.iter().rev().copied().collect();
    let chunked = fields
        .iter()
        .filter(|field| field.starts_with("Transfer-Encoding"));
    if chunked.count() < 2 {
        assert_eq!(
            post(&reversed).map(|head| head.framing),
            want,
            "{reversed:?}"
        );
    }
}

#[test]
fn rfc9112_6_3_a_request_without_length_has_no_body() {
    framed(&[], Ok(Framing::None));
    framed(&["Content-Length: 0"], Ok(Framing::None));
}

#[test]
fn rfc9110_8_6_content_length_is_digits_once() {
    framed(&["Content-Length: 5"], Ok(Framing::Length(5)));
    framed(&["content-length:\t0005 "], Ok(Framing::Length(5)));
    let top = format!("Content-Length: {}", i64::MAX);
    framed(&[&top], Ok(Framing::Length(i64::MAX.unsigned_abs())));
    for value in [
        "",
        "+5",
        "-5",
        "5 5",
        "0x5",
        "5.0",
        "five",
        "9223372036854775808",
        "99999999999999999999999999999999999999",
        "\u{665}",
    ] {
        framed(
            &[&format!("Content-Length: {value}")],
            Err(V::ContentLength),
        );
    }
    for value in ["5, 5", "5,6", ",5", "5,", ","] {
        framed(
            &[&format!("Content-Length: {value}")],
            Err(V::ContentLengthRepeated),
        );
    }
    framed(
        &["Content-Length: 5", "Content-Length: 5"],
        Err(V::ContentLengthRepeated),
    );
    framed(
        &["Content-Length: 0", "Content-Length: 5"],
        Err(V::ContentLengthRepeated),
    );
    framed(
        &["Content-Length: x", "Content-Length: 5"],
        Err(V::ContentLength),
    );
}

#[test]
fn rfc9112_6_1_only_a_single_chunked_is_understood() {
    for value in ["chunked", "Chunked", "CHUNKED", "\tchunked "] {
        framed(
            &[&format!("Transfer-Encoding: {value}")],
            Ok(Framing::Chunked),
        );
    }
    for value in [
        "gzip, chunked",
        "identity, chunked",
        "gzip,deflate,chunked",
        "x-chunked, chunked",
    ] {
        framed(
            &[&format!("Transfer-Encoding: {value}")],
            Err(V::TransferCodingUnknown),
        );
    }
    for value in [
        "",
        ",",
        "gzip",
        "identity",
        "chunked, gzip",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "chunked;q=1",
        "chunked ; a",
        "\"chunked\"",
        "chunked chunked",
        "\x0bchunked",
        "chunkedd",
        "gzip, chunked, identity",
        "gzip, chunked, chunked",
        "gzip;q=1, chunked",
    ] {
        let want = if value.starts_with('\x0b') {
            V::FieldValue
        } else {
            V::TransferEncoding
        };
        framed(&[&format!("Transfer-Encoding: {value}")], Err(want));
    }
    framed(
        &["Transfer-Encoding: gzip", "Transfer-Encoding: chunked"],
        Err(V::TransferCodingUnknown),
    );
    framed(
        &["Transfer-Encoding: chunked", "Transfer-Encoding: gzip"],
        Err(V::TransferEncoding),
    );
    framed(
        &["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        Err(V::TransferEncoding),
    );
    framed(
        &["Transfer-Encoding: chunked", "Transfer-Encoding:"],
        Err(V::TransferEncoding),
    );
}

#[test]
fn rfc9112_6_1_length_and_coding_together_are_a_conflict() {
    framed(
        &["Content-Length: 5", "Transfer-Encoding: chunked"],
        Err(V::FramingConflict),
    );
    framed(
        &["Content-Length: 0", "Transfer-Encoding: chunked"],
        Err(V::FramingConflict),
    );
    framed(
        &["Content-Length: 5", "Transfer-Encoding: gzip"],
        Err(V::FramingConflict),
    );
    framed(
        &["Content-Length: x", "Transfer-Encoding: chunked"],
        Err(V::ContentLength),
    );
}

#[test]
fn rfc9112_6_1_http10_has_no_transfer_codings() {
    let old = judged("POST / HTTP/1.0", &["Transfer-Encoding: chunked"]);
    assert_eq!(old, Err(V::TransferEncodingVersion));
    let old = judged("POST / HTTP/1.0", &["Content-Length: 3"]);
    assert_eq!(old.map(|head| head.framing), Ok(Framing::Length(3)));
}

#[test]
fn rfc9112_3_2_http11_has_one_valid_host() {
    assert_eq!(judged("GET / HTTP/1.1", &[]), Err(V::HostMissing));
    assert_eq!(judged("GET http://a/ HTTP/1.1", &[]), Err(V::HostMissing));
    assert!(judged("GET / HTTP/1.0", &[]).is_ok());
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let line = format!("GET / {version}");
        assert_eq!(judged(&line, &["Host: a", "host: a"]), Err(V::HostRepeated));
        assert_eq!(judged(&line, &["Host: a b"]), Err(V::HostInvalid));
    }
    for good in [
        "",
        "a",
        "EXAMPLE.com",
        "a:80",
        "a:",
        "127.0.0.1:8080",
        "[::1]",
        "[::1]:443",
        "[2001:db8::7]:",
        "[::ffff:192.0.2.1]",
        "a_b",
        "xn--nxasmq6b",
        "a%20b",
        "a,b",
        "a:65535",
        "*.a",
    ] {
        assert!(
            judged("GET / HTTP/1.1", &[&format!("Host: {good}")]).is_ok(),
            "{good}"
        );
    }
    for bad in [
        ":80",
        "a:b",
        "a:80:80",
        "a:-1",
        "a:65536",
        "a:99999999999999999999",
        "a/b",
        "a?b",
        "a@b",
        "user@a",
        "a%2",
        "a%zz",
        "[::1",
        "[]",
        "[:::1]",
        "[::1]80",
        "[fe80::1%eth0]",
        "[v1.a]",
        "a[b]",
        "a\"b",
        "caf\u{e9}",
        "a\tb",
        "http://a",
        "a\\b",
        "a#",
        "%",
    ] {
        let got = judged("GET / HTTP/1.1", &[&format!("Host: {bad}")]);
        assert_eq!(got, Err(V::HostInvalid), "{bad}");
    }
}

#[test]
fn rfc9112_3_2_each_method_has_its_target_forms() {
    for line in [
        "GET /",
        "CONNECT a:443",
        "CONNECT [::1]:443",
        "OPTIONS *",
        "OPTIONS /",
        "GET http://a",
        "GET HTTP://a:80/x?y",
        "GET https://a?y",
        "OPTIONS http://a",
        "GET //a",
        "GET /a://b",
    ] {
        assert!(
            judged(&format!("{line} HTTP/1.1"), &["Host: a"]).is_ok(),
            "{line}"
        );
    }
    for line in [
        "GET *",
        "GET a",
        "GET a:80",
        "CONNECT a",
        "CONNECT a:",
        "CONNECT /",
        "CONNECT :80",
        "CONNECT a:b",
        "CONNECT http://a:80",
        "CONNECT a:80/",
        "CONNECT u@a:80",
        "OPTIONS **",
        "GET ftp://a/",
        "GET http:/a",
        "GET http://",
        "GET http:///x",
        "GET http://u@a/",
        "GET http://a:x/",
        "GET http://a\\b/",
        "GET ?q",
        "GET ://a",
        "GET http//a",
    ] {
        let got = judged(&format!("{line} HTTP/1.1"), &["Host: a"]);
        assert_eq!(got, Err(V::Target), "{line}");
    }
}

#[test]
fn rfc9112_9_3_persistence() {
    let kept = |version: &str, fields: &[&str]| {
        judged(
            &format!("GET / {version}"),
            &[&["Host: a"], fields].concat(),
        )
        .map(|head| head.keeps_alive)
    };
    assert_eq!(kept("HTTP/1.1", &[]), Ok(true));
    assert_eq!(kept("HTTP/1.7", &[]), Ok(true));
    assert_eq!(kept("HTTP/1.1", &["Connection: close"]), Ok(false));
    assert_eq!(
        kept("HTTP/1.1", &["Connection: keep-alive, CLOSE"]),
        Ok(false)
    );
    assert_eq!(
        kept("HTTP/1.1", &["Connection: a", "connection: close"]),
        Ok(false)
    );
    assert_eq!(kept("HTTP/1.1", &["Connection: closed"]), Ok(true));
    assert_eq!(kept("HTTP/1.0", &[]), Ok(false));
    assert_eq!(kept("HTTP/1.0", &["Connection: Keep-Alive"]), Ok(true));
    assert_eq!(
        kept("HTTP/1.0", &["Connection: keep-alive, close"]),
        Ok(false)
    );
    assert_eq!(kept("HTTP/1.1", &["Connection: , close ,,"]), Ok(false));
    assert_eq!(kept("HTTP/1.1", &["Connection:"]), Ok(true));
    assert_eq!(
        kept("HTTP/1.1", &["Connection: close now"]),
        Err(V::Connection)
    );
    assert_eq!(
        kept("HTTP/1.1", &["Connection: \"close\""]),
        Err(V::Connection)
    );
}

#[test]
fn rfc9110_10_1_1_expectations() {
    let waits = |line: &str, fields: &[&str]| {
        judged(line, &[&["Host: a"], fields].concat()).map(|head| head.expects_continue)
    };
    let expect = "Expect: 100-Continue";
    assert_eq!(
        waits("POST / HTTP/1.1", &[expect, "Content-Length: 1"]),
        Ok(true)
    );
    assert_eq!(
        waits("POST / HTTP/1.1", &[expect, "Transfer-Encoding: chunked"]),
        Ok(true)
    );
    assert_eq!(
        waits("POST / HTTP/1.0", &[expect, "Content-Length: 1"]),
        Ok(false)
    );
    assert_eq!(waits("POST / HTTP/1.1", &[expect]), Ok(false));
    assert_eq!(
        waits("POST / HTTP/1.1", &["Expect:", "Content-Length: 1"]),
        Ok(false)
    );
    for other in [
        "Expect: 200-ok",
        "Expect: 100-continue, b",
        "Expect: 100-continue;a=b",
    ] {
        assert_eq!(waits("POST / HTTP/1.1", &[other]), Err(V::Expectation));
    }
}

#[test]
fn rfc9110_7_8_an_upgrade_needs_its_connection_option() {
    let upgrades = |version: &str, fields: &[&str]| {
        judged(
            &format!("GET / {version}"),
            &[&["Host: a"], fields].concat(),
        )
        .map(|head| head.upgrades_to_websocket)
    };
    let both = ["Connection: keep-alive, Upgrade", "Upgrade: WebSocket"];
    assert_eq!(upgrades("HTTP/1.1", &both), Ok(true));
    assert_eq!(upgrades("HTTP/1.0", &both), Ok(false));
    assert_eq!(upgrades("HTTP/1.1", &both[..1]), Ok(false));
    assert_eq!(upgrades("HTTP/1.1", &both[1..]), Ok(false));
    let listed = ["Upgrade: h2c, websocket", "Connection: upgrade"];
    assert_eq!(upgrades("HTTP/1.1", &listed), Ok(true));
    let other = ["Upgrade: TLS/1.0, websocket/13", "Connection: upgrade"];
    assert_eq!(upgrades("HTTP/1.1", &other), Ok(false));
    assert_eq!(
        upgrades("HTTP/1.1", &["Upgrade: web socket"]),
        Err(V::Connection)
    );
}

/// The verdict on a response to `method`.
fn answered(method: Method, line: &str, fields: &[&str]) -> Result<ResponseHead, Violation> {
    let head = format!(
        "{line}\r\n{}\r\n",
        fields
            .iter()
            .map(|f| format!("{f}\r\n"))
            .collect::<String>()
    );
    let (mut progress, mut out) = (HeadProgress::default(), Vec::new());
    let limits = Limits::default();
    parse_response(head.as_bytes(), &mut progress, method, &limits, &mut out)
        .map(|head| head.expect("test heads are whole"))
}

#[test]
fn rfc9112_6_3_a_response_ends_where_its_status_or_its_fields_say() {
    let framed = |method, line: &str, fields: &[&str]| {
        answered(method, line, fields).map(|head| (head.framing, head.keeps_alive))
    };
    let (length, chunked) = ("Content-Length: 5", "Transfer-Encoding: chunked");
    let ok = "HTTP/1.1 200 OK";
    assert_eq!(
        framed(Method::Get, ok, &[length]),
        Ok((Framing::Length(5), true))
    );
    assert_eq!(
        framed(Method::Get, ok, &["Content-Length: 0"]),
        Ok((Framing::None, true))
    );
    assert_eq!(
        framed(Method::Get, ok, &[chunked]),
        Ok((Framing::Chunked, true))
    );
    assert_eq!(
        framed(Method::Get, ok, &[]),
        Ok((Framing::UntilClose, false))
    );
    assert_eq!(
        framed(Method::Get, ok, &[length, "Connection: close"]),
        Ok((Framing::Length(5), false))
    );
    assert_eq!(
        framed(Method::Get, "HTTP/1.0 200 OK", &[length]),
        Ok((Framing::Length(5), false))
    );
    for fields in [
        &[length][..],
        &[chunked],
        &[length, chunked],
        &[],
        &["Content-Length: x"],
    ] {
        for status in [100, 102, 103, 204, 304] {
            let line = format!("HTTP/1.1 {status} x");
            assert_eq!(
                framed(Method::Get, &line, fields),
                Ok((Framing::None, true)),
                "{line}"
            );
        }
        assert_eq!(framed(Method::Head, ok, fields), Ok((Framing::None, true)));
        assert_eq!(
            framed(Method::Connect, ok, fields),
            Ok((Framing::None, false))
        );
    }
    let refused = framed(Method::Connect, "HTTP/1.1 403 No", &[length]);
    assert_eq!(refused, Ok((Framing::Length(5), true)));
}

#[test]
fn rfc9112_6_1_a_response_that_contradicts_itself_is_refused() {
    let refused = |version: &str, fields: &[&str]| {
        answered(Method::Get, &format!("{version} 200 OK"), fields).expect_err("must be refused")
    };
    let (length, chunked) = ("Content-Length: 5", "Transfer-Encoding: chunked");
    assert_eq!(refused("HTTP/1.1", &[length, chunked]), V::FramingConflict);
    assert_eq!(
        refused("HTTP/1.1", &[length, length]),
        V::ContentLengthRepeated
    );
    assert_eq!(
        refused("HTTP/1.1", &["Content-Length: 5x"]),
        V::ContentLength
    );
    assert_eq!(refused("HTTP/1.0", &[chunked]), V::TransferEncodingVersion);
    assert_eq!(
        refused("HTTP/1.1", &["Transfer-Encoding: gzip, chunked"]),
        V::TransferCodingUnknown
    );
    assert_eq!(
        refused("HTTP/1.1", &["Transfer-Encoding: gzip"]),
        V::TransferCodingUnknown
    );
    assert_eq!(
        refused("HTTP/1.1", &["Transfer-Encoding: chunked, chunked"]),
        V::TransferEncoding
    );
    assert_eq!(
        refused("HTTP/1.1", &["Transfer-Encoding:"]),
        V::TransferEncoding
    );
    assert_eq!(refused("HTTP/1.1", &["Connection: a b"]), V::Connection);
    let host = answered(
        Method::Get,
        "HTTP/1.1 200 OK",
        &["Host: a b", "Host:", "Expect: x"],
    );
    assert!(host.is_ok(), "requests' fields mean nothing in a response");
}

#[test]
fn rfc6455_4_1_a_101_switches_to_websocket_if_both_fields_say_so() {
    let both = ["Upgrade: websocket", "Connection: Upgrade"];
    let switches = |line: &str, fields: &[&str]| {
        answered(Method::Get, line, fields)
            .map(|head| (head.upgrades_to_websocket, head.keeps_alive))
    };
    assert_eq!(
        switches("HTTP/1.1 101 Switching Protocols", &both),
        Ok((true, false))
    );
    assert_eq!(switches("HTTP/1.1 101 ", &both[1..]), Ok((false, false)));
    assert_eq!(switches("HTTP/1.0 101 ", &both), Ok((false, false)));
    assert_eq!(switches("HTTP/1.1 426 ", &both), Ok((false, false)));
}
