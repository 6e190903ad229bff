//! The opening handshake by RFC section, both roles, and each against the other.

use super::*;
use crate::buffer::BufferPool;
use crate::http1::RequestHead;
use crate::http1::parse::{HeadProgress, parse_request};
use crate::limits::Limits;

/// The client's half of the example in RFC 6455 §1.2, as lines.
const EXAMPLE: &[&str] = &[
    "GET /chat HTTP/1.1",
    "Host: server.example.com",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Origin: http://example.com",
    "Sec-WebSocket-Protocol: chat, superchat",
    "Sec-WebSocket-Version: 13",
];

/// A field's name and value.
type Line = (&'static [u8], &'static [u8]);

/// What of an offer outlives its request: key, subprotocols, names of extensions.
type Offered = (Vec<u8>, Vec<Vec<u8>>, Vec<Vec<u8>>);

fn judge(head: &str) -> Result<Offered, HandshakeError> {
    let mut fields = Vec::new();
    let parsed: Option<RequestHead> = parse_request(
        head.as_bytes(),
        &mut HeadProgress::default(),
        &Limits::default(),
        &mut fields,
    )
    .expect("the head is well-formed HTTP");
    let parsed = parsed.expect("the head is whole");
    let request = Request::new(&parsed, head.as_bytes(), &fields);
    let offer = check_upgrade(&request)?;
    assert!(!offer.offers_protocol(b"unheard-of"));
    assert!(offer.protocols().all(|name| offer.offers_protocol(name)));
    Ok((
        offer.key.to_vec(),
        offer.protocols().map(<[u8]>::to_vec).collect(),
        offer
            .extensions()
            .map(|offered| offered.name.to_vec())
            .collect(),
    ))
}

/// The example with the line that begins with `name` replaced by `lines`.
fn changed(name: &str, lines: &[&str]) -> String {
    let mut head = String::new();
    for line in EXAMPLE {
        if line.starts_with(name) {
            lines.iter().for_each(|line| head += &format!("{line}\r\n"));
        } else {
            head += &format!("{line}\r\n");
        }
    }
    head + "\r\n"
}

fn written(write: impl FnOnce(&mut SendBuffer) -> Result<(), InvalidField>) -> Option<String> {
    let mut out = SendBuffer::new(&BufferPool::default());
    let verdict = write(&mut out);
    let bytes: Vec<u8> = out.chunks().flatten().copied().collect();
    assert!(verdict.is_ok() || bytes.is_empty(), "all or nothing");
    verdict.ok()?;
    Some(String::from_utf8(bytes).expect("ASCII"))
}

#[test]
fn rfc6455_1_3_the_example_key_and_its_answer() {
    let nonce = *b"the sample nonce";
    assert_eq!(&new_key(nonce), b"dGhlIHNhbXBsZSBub25jZQ==");
    let accept = accept_key(b"dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(&accept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[test]
fn rfc6455_1_2_the_example_request_is_accepted() {
    let (key, protocols, extensions) = judge(&changed("none", &[])).expect("the RFC's own");
    assert_eq!(key, b"dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(protocols, [&b"chat"[..], b"superchat"]);
    assert_eq!(extensions, [b""; 0]);
}

/// Replaces the line that begins with `name` by `line`, if that is not empty, `count` times.
#[track_caller]
fn refuses(name: &str, line: &str, count: usize, want: HandshakeError, status: u16) {
    let lines = vec![line; if line.is_empty() { 0 } else { count }];
    let head = changed(name, &lines);
    assert_eq!(judge(&head), Err(want), "{head}");
    assert_eq!(want.status(), status, "{want:?}");
}

#[test]
fn rfc6455_4_2_1_an_upgrade_is_a_get_of_http_1_1_without_a_body() {
    use HandshakeError::*;
    refuses("GET", "POST /chat HTTP/1.1", 1, Method, 405);
    refuses("GET", "GET /chat HTTP/1.0", 1, HttpVersion, 400);
    refuses("Upgrade", "", 1, NotAnUpgrade, 426);
    refuses("Upgrade", "Upgrade: h2c", 1, NotAnUpgrade, 426);
    refuses("Connection", "Connection: keep-alive", 1, NotAnUpgrade, 426);
    refuses("Origin", "Content-Length: 3", 1, Body, 400);
}

#[test]
fn rfc6455_4_2_1_the_version_is_13_and_comes_once() {
    use HandshakeError::*;
    let name = "Sec-WebSocket-Version";
    refuses(name, "", 1, VersionMissing, 400);
    refuses(name, "Sec-WebSocket-Version: 13", 2, VersionMissing, 400);
    for version in ["8", "13, 8", "+13", "013", "1"] {
        let line = format!("Sec-WebSocket-Version: {version}");
        refuses(name, &line, 1, VersionUnsupported, 426);
    }
}

#[test]
fn rfc6455_4_2_1_the_key_is_base64_of_16_bytes_and_comes_once() {
    let name = "Sec-WebSocket-Key";
    let line = |key: &str| format!("Sec-WebSocket-Key: {key}");
    refuses(name, "", 1, HandshakeError::Key, 400);
    refuses(
        name,
        &line("dGhlIHNhbXBsZSBub25jZQ=="),
        2,
        HandshakeError::Key,
        400,
    );
    for key in [
        "",
        "dGhlIHNhbXBsZSBub25jZQ",   // no padding
        "dGhlIHNhbXBsZSBub25j",     // 15 bytes
        "dGhlIHNhbXBsZSBub25jZWU=", // 17 bytes
        "dGhlIHNhbXBsZSBub25jZ!==", // not base64
        "dGhlIHNhbXBsZSBub25jZR==", // stray bits behind the last byte
    ] {
        refuses(name, &line(key), 1, HandshakeError::Key, 400);
    }
}

#[test]
fn rfc6455_4_2_1_lists_of_protocols_and_extensions_are_well_formed() {
    let name = "Sec-WebSocket-Protocol";
    for list in ["a b", "", "a;b", "a, b c"] {
        let line = format!("Sec-WebSocket-Protocol: {list}");
        refuses(name, &line, 1, HandshakeError::Protocols, 400);
    }
    for list in ["foo;", "", "a=b", "a, b c"] {
        let line = format!("Sec-WebSocket-Extensions: {list}");
        refuses("Origin", &line, 1, HandshakeError::Extensions, 400);
    }
}

#[test]
fn rfc6455_4_4_an_unsupported_version_is_told_which_one_is_supported() {
    let fields = HandshakeError::VersionUnsupported.fields();
    assert!(fields.contains(&(b"Sec-WebSocket-Version", b"13")));
    assert!(
        HandshakeError::Method
            .fields()
            .contains(&(b"Allow", b"GET"))
    );
    assert!(HandshakeError::Key.fields().is_empty());
}

#[test]
fn rfc6455_11_3_protocols_and_extensions_may_come_in_several_fields() {
    let head = changed(
        "Sec-WebSocket-Protocol",
        &[
            "sec-websocket-protocol: a",
            "SEC-WEBSOCKET-PROTOCOL: b,c",
            "Sec-WebSocket-Extensions: x; p=1",
            "Sec-WebSocket-Extensions: y, z",
        ],
    );
    let (_, protocols, extensions) = judge(&head).expect("lists may be spread");
    assert_eq!(protocols, [b"a", b"b", b"c"]);
    assert_eq!(extensions, [b"x", b"y", b"z"]);
}

#[test]
fn rfc6455_4_2_2_the_answer_has_its_fields_and_no_others_in_their_place() {
    let accept = accept_key(b"dGhlIHNhbXBsZSBub25jZQ==");
    let answer = written(|out| {
        let fields: &[(&[u8], &[u8])] = &[(b"Set-Cookie", b"a=b")];
        write_accept(
            out,
            &accept,
            Some(b"chat"),
            Some(b"permessage-deflate"),
            fields,
        )
    });
    let want = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
                Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
                Set-Cookie: a=b\r\n\r\n";
    assert_eq!(answer.as_deref(), Some(want));
    let with = |protocol: Option<&[u8]>, name: &[u8], value: &[u8]| {
        written(|out| write_accept(out, &accept, protocol, None, &[(name, value)]))
    };
    assert!(with(None, b"X", b"y").is_some());
    assert_eq!(with(Some(b"a b"), b"X", b"y"), None);
    assert_eq!(with(None, b"X", b"y\r\nInjected: z"), None);
    assert_eq!(with(None, b"X y", b""), None);
    for reserved in RESERVED_FIELDS {
        assert_eq!(with(None, &reserved.to_ascii_lowercase(), b"y"), None);
    }
}

fn request<'a>(key: &'a [u8; KEY_BYTES], protocols: &'a [&'a [u8]]) -> UpgradeRequest<'a> {
    UpgradeRequest {
        host: b"server.example.com",
        target: b"/chat?room=1",
        key,
        protocols,
        extensions: Some(b"permessage-deflate; client_max_window_bits"),
        fields: &[(b"Origin", b"http://example.com")],
    }
}

#[test]
fn what_a_client_asks_a_server_accepts() {
    let key = new_key([7; 16]);
    let head = written(|out| write_request(out, &request(&key, &[b"chat", b"superchat"])));
    let (got, protocols, extensions) = judge(&head.expect("valid")).expect("accepted");
    assert_eq!(got, key);
    assert_eq!(protocols, [&b"chat"[..], b"superchat"]);
    assert_eq!(extensions, [b"permessage-deflate"]);
}

#[test]
fn a_request_that_could_not_be_sent_as_meant_is_not_written() {
    let key = new_key([7; 16]);
    let good = request(&key, &[]);
    let bad = [
        UpgradeRequest { host: b"", ..good },
        UpgradeRequest {
            host: b"a\r\nb",
            ..good
        },
        UpgradeRequest {
            target: b"chat",
            ..good
        },
        UpgradeRequest {
            target: b"/a b",
            ..good
        },
        UpgradeRequest {
            protocols: &[b"a", b"b", b"a"],
            ..good
        },
        UpgradeRequest {
            protocols: &[b""],
            ..good
        },
        UpgradeRequest {
            fields: &[(b"Host", b"other")],
            ..good
        },
        UpgradeRequest {
            extensions: Some(b"a\nb"),
            ..good
        },
    ];
    for bad in bad {
        assert_eq!(written(|out| write_request(out, &bad)), None, "{bad:?}");
    }
    assert!(written(|out| write_request(out, &good)).is_some());
}

#[test]
fn rfc6455_4_1_a_client_checks_every_field_of_the_answer() {
    use HandshakeError::*;
    let key = new_key(*b"the sample nonce");
    let request = request(&key, &[b"chat", b"superchat"]);
    let good: &[Line] = &[
        (b"Upgrade", b"WebSocket"),
        (b"Connection", b"keep-alive, upgrade"),
        (b"Sec-WebSocket-Accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ];
    let judge = |changes: &[Line]| {
        // A change with an empty value leaves the field out; others replace it or come behind.
        let kept = good
            .iter()
            .copied()
            .filter(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        let new = changes
            .iter()
            .copied()
            .filter(|(_, value)| !value.is_empty());
        let fields: Vec<(&[u8], &[u8])> = kept.chain(new).collect();
        check_response(&request, 101, fields.iter().copied())
            .map(|protocol| protocol.map(<[u8]>::to_vec))
    };
    const EXTENSIONS: &[u8] = b"Sec-WebSocket-Extensions";
    const PROTOCOL: &[u8] = b"Sec-WebSocket-Protocol";
    assert_eq!(judge(&[]), Ok(None));
    assert_eq!(
        judge(&[(PROTOCOL, b"superchat")]),
        Ok(Some(b"superchat".to_vec()))
    );
    assert_eq!(judge(&[(EXTENSIONS, b"permessage-deflate")]), Ok(None));
    let table: &[(&[Line], HandshakeError)] = &[
        (&[(b"Upgrade", b"")], NotUpgraded),
        (&[(b"Upgrade", b"h2c")], NotUpgraded),
        (&[(b"Connection", b"")], NotUpgraded),
        (&[(b"Connection", b"keep-alive")], NotUpgraded),
        (&[(b"Sec-WebSocket-Accept", b"")], Accept),
        (
            &[(b"Sec-WebSocket-Accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOp=")],
            Accept,
        ),
        (
            &[(b"Sec-WebSocket-Accept", b"S3pPLMBiTxaQ9kYGzzhZRbK+xOo=")],
            Accept,
        ),
        (&[(PROTOCOL, b"other")], ProtocolUnoffered),
        (&[(PROTOCOL, b"chat, superchat")], ProtocolUnoffered),
        (
            &[(PROTOCOL, b"chat"), (PROTOCOL, b"superchat")],
            ProtocolUnoffered,
        ),
        (&[(EXTENSIONS, b"x-other")], ExtensionUnoffered),
        (&[(EXTENSIONS, b"permessage-deflate;")], ExtensionUnoffered),
    ];
    for (changes, want) in table {
        assert_eq!(judge(changes), Err(*want), "{changes:?}");
    }
    let status = check_response(&request, 200, good.iter().copied());
    assert_eq!(status, Err(Status));
}
