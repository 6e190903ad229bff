//! Rules of heads, each tried whole, cut at every place, and byte by byte.

mod differential;

use super::*;
use crate::http1::token::{is_target_byte, is_token_byte};
use crate::http1::{FieldName, Request};
use proptest::prelude::*;

/// Parses `input` at once.
fn whole(input: &[u8], limits: &Limits) -> Result<Option<RequestHead>, Violation> {
    parse_request(input, &mut HeadProgress::default(), limits, &mut Vec::new())
}

/// Feeds prefixes of `input` that end at `cuts`, then all of it. The first answer that is not
/// "incomplete", and how many bytes it took.
fn in_pieces(
    input: &[u8],
    cuts: impl Iterator<Item = usize>,
    limits: &Limits,
) -> (Result<Option<RequestHead>, Violation>, usize) {
    let mut progress = HeadProgress::default();
    let mut fields = Vec::new();
    for cut in cuts.chain([input.len()]) {
        let answer = parse_request(&input[..cut], &mut progress, limits, &mut fields);
        if answer != Ok(None) {
            let again = parse_request(input, &mut progress, limits, &mut Vec::new());
            assert_eq!(again, answer, "the verdict on {cut} bytes was not final");
            return (answer, cut);
        }
        assert_eq!(fields, [], "an incomplete head leaves no fields");
    }
    (Ok(None), input.len())
}

/// Asserts that no way to cut `input` changes the verdict on it, and returns the verdict with the
/// number of bytes that determine it.
#[track_caller]
fn verdict_within(
    input: &[u8],
    limits: &Limits,
) -> (Result<Option<RequestHead>, Violation>, usize) {
    let at_once = whole(input, limits);
    let (bytewise, needed) = in_pieces(input, 0..input.len(), limits);
    assert_eq!(at_once, bytewise, "{}", input.escape_ascii());
    for cut in 0..input.len() {
        let (cut_once, _) = in_pieces(input, [cut].into_iter(), limits);
        assert_eq!(cut_once, at_once, "{} cut at {cut}", input.escape_ascii());
        let fresh = whole(&input[..cut], limits);
        let want = if cut < needed {
            Ok(None)
        } else {
            at_once.clone()
        };
        assert_eq!(fresh, want, "{} ends at {cut}", input.escape_ascii());
    }
    (at_once, needed)
}

#[track_caller]
fn verdict(input: &[u8]) -> Result<Option<RequestHead>, Violation> {
    verdict_within(input, &Limits::default()).0
}

/// Asserts that `input` is refused for `want` once its first `needed` bytes are there, and not
/// before.
#[track_caller]
fn refused_at(input: &[u8], want: Violation, needed: usize) {
    let got = verdict_within(input, &Limits::default());
    assert_eq!(got, (Err(want), needed), "{}", input.escape_ascii());
}

#[track_caller]
fn accepted(input: &[u8]) -> RequestHead {
    match verdict(input) {
        Ok(Some(head)) => head,
        other => panic!("{} gave {other:?}", input.escape_ascii()),
    }
}

#[test]
fn rfc9112_3_a_request_line_and_its_fields_become_spans() {
    let bytes = b"POST /a/b?c=%20 HTTP/1.1\r\nHost: example.com:8080\r\nX-Empty:\r\n\
        Accept: \t text/html, */* \t\r\nContent-Length:12\r\n\r\nbody that follows";
    let mut fields = vec![Field {
        name: Span::default(),
        value: Span::default(),
        id: FieldName::Other,
    }];
    let mut progress = HeadProgress::default();
    let head = parse_request(bytes, &mut progress, &Limits::default(), &mut fields)
        .expect("valid")
        .expect("whole");
    assert_eq!((head.method, head.version), (Method::Post, Version::Http11));
    assert_eq!(head.framing, Framing::Length(12));
    assert_eq!(&bytes[head.len as usize..], b"body that follows");
    assert_eq!(head.fields, 1..5);
    let request = Request::new(&head, bytes, &fields[1..]);
    assert_eq!(request.method(), b"POST");
    assert_eq!(request.target(), b"/a/b?c=%20");
    let want: [(&[u8], &[u8]); 4] = [
        (b"Host", b"example.com:8080"),
        (b"X-Empty", b""),
        (b"Accept", b"text/html, */*"),
        (b"Content-Length", b"12"),
    ];
    assert!(request.fields().eq(want));
    accepted(bytes);
}

#[test]
fn rfc9110_9_1_methods_are_tokens_and_their_case_matters() {
    for (name, method) in [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("POST", Method::Post),
        ("PUT", Method::Put),
        ("DELETE", Method::Delete),
        ("OPTIONS", Method::Options),
        ("TRACE", Method::Trace),
        ("PATCH", Method::Patch),
        ("get", Method::Other),
        ("GETS", Method::Other),
        ("M-SEARCH", Method::Other),
        ("!#$%&'*+-.^_`|~", Method::Other),
    ] {
        let head = accepted(format!("{name} / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!(head.method, method, "{name}");
    }
    for byte in (0..=u8::MAX).filter(|byte| !is_token_byte(*byte) && *byte != b' ') {
        let want = if byte == b'\n' {
            Violation::LineEnding
        } else {
            Violation::Method
        };
        refused_at(&[b'G', byte, b'T', b' '], want, 2);
        refused_at(&[byte, b'T', b' '], want, 1);
    }
    refused_at(b" GET / HTTP/1.1\r\n", Violation::Method, 1);
    // The first bytes of a TLS ClientHello.
    refused_at(b"\x16\x03\x01\x02\x00\x01", Violation::Method, 1);
}

#[test]
fn rfc9112_3_2_targets_are_visible_ascii_between_single_spaces() {
    for byte in 0..=u8::MAX {
        let line = [b"GET /", &[byte][..], b"x HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        match byte {
            b' ' => refused_at(&line, Violation::Version, 7),
            b'\r' => refused_at(&line, Violation::Version, 6),
            b'\n' => refused_at(&line, Violation::LineEnding, 6),
            _ if is_target_byte(byte) => assert_eq!(accepted(&line).target.len, 3),
            _ => refused_at(&line, Violation::Target, 6),
        }
    }
    refused_at(b"GET  / HTTP/1.1\r\n", Violation::Target, 5);
    refused_at(b"GET\t/ HTTP/1.1\r\n", Violation::Method, 4);
    refused_at(b"GET /a#b HTTP/1.1\r\n", Violation::Target, 7);
    refused_at(b"GET /  HTTP/1.1\r\n", Violation::Version, 7);
}

#[test]
fn rfc9112_2_3_versions() {
    let line = |version: &str| format!("GET / {version}\r\nHost: a\r\n\r\n").into_bytes();
    assert_eq!(accepted(&line("HTTP/1.0")).version, Version::Http10);
    for version in ["HTTP/1.1", "HTTP/1.2", "HTTP/1.9"] {
        assert_eq!(accepted(&line(version)).version, Version::Http11);
    }
    for version in ["HTTP/0.9", "HTTP/2.0", "HTTP/3.1", "HTTP/9.9"] {
        refused_at(&line(version), Violation::VersionUnsupported, 14);
    }
    refused_at(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        Violation::VersionUnsupported,
        14,
    );
    for (version, needed) in [
        ("http/1.1", 7),
        ("HTTP/11", 13),
        ("HTTP/1,1", 13),
        ("HTTP/1.x", 14),
        ("HTTP/1.10", 15),
        ("HTTP/1.1 ", 15),
        ("HTTP/2x0", 13),
        ("HTTP/ 1.1", 12),
        ("HTCPCP/1.0", 9),
        ("", 7),
    ] {
        refused_at(&line(version), Violation::Version, needed);
    }
    // HTTP/0.9
    refused_at(b"GET /\r\n", Violation::Version, 6);
}

#[test]
fn rfc9112_2_2_lines_end_with_crlf_and_nothing_else() {
    use Violation::LineEnding;
    refused_at(b"GET / HTTP/1.1\nHost: a\n\n", LineEnding, 15);
    refused_at(b"GET / HTTP/1.1\rHost: a\r\r", LineEnding, 16);
    refused_at(b"GET / HTTP/1.1\r\nHost: a\n\r\n", LineEnding, 24);
    refused_at(b"GET / HTTP/1.1\r\nHost: a\rb\r\n", LineEnding, 25);
    refused_at(b"GET / HTTP/1.1\r\nHost: a\r\r\n", LineEnding, 25);
    refused_at(b"GET / HTTP/1.1\r\nHost: a\r\n\n", LineEnding, 26);
    refused_at(b"GET / HTTP/1.1\r\nHost: a\r\n\rX", LineEnding, 27);
    refused_at(b"GET / HTTP/1.1\r\nHost\n", LineEnding, 21);
    refused_at(b"\n", LineEnding, 1);
    refused_at(b"GET\n", LineEnding, 4);
}

#[test]
fn rfc9112_5_1_a_name_is_a_token_and_the_colon_follows_at_once() {
    let line = |name: &[u8]| [b"GET / HTTP/1.1\r\n", name, b": v\r\nHost: a\r\n\r\n"].concat();
    for byte in 0..=u8::MAX {
        let named = line(&[b'n', byte]);
        match byte {
            b' ' | b'\t' => refused_at(&named, Violation::SpaceBeforeColon, 18),
            b'\n' => refused_at(&named, Violation::LineEnding, 18),
            // The value is then `: v`.
            b':' => assert_eq!(accepted(&named).fields, 0..2),
            _ if is_token_byte(byte) => assert_eq!(accepted(&named).fields, 0..2),
            _ => refused_at(&named, Violation::FieldName, 18),
        }
    }
    refused_at(&line(b""), Violation::FieldName, 17);
    refused_at(&line(b"Host : a"), Violation::SpaceBeforeColon, 21);
    refused_at(b"GET / HTTP/1.1\r\nHost\r\n", Violation::FieldName, 21);
    // A name longer than any block.
    let long = "N-".repeat(200);
    assert_eq!(accepted(&line(long.as_bytes())).fields, 0..2);
    refused_at(
        &line(format!("{long}(").as_bytes()),
        Violation::FieldName,
        417,
    );
}

#[test]
fn rfc9112_5_2_folded_lines_are_refused() {
    refused_at(
        b"GET / HTTP/1.1\r\nA: b\r\n c\r\n",
        Violation::LineFolding,
        23,
    );
    refused_at(
        b"GET / HTTP/1.1\r\nA: b\r\n\tc\r\n",
        Violation::LineFolding,
        23,
    );
    refused_at(b"GET / HTTP/1.1\r\n A: b\r\n", Violation::LineFolding, 17);
}

#[test]
fn rfc9110_5_5_values_hold_no_control_byte_but_tab() {
    for byte in 0..=u8::MAX {
        for before in [0, 1, 31, 63, 64, 65, 200] {
            let value = [&vec![b'v'; before], &[byte][..], b"v"].concat();
            let head = [b"GET / HTTP/1.1\r\nHost: a\r\nN: ", &value[..], b"\r\n\r\n"].concat();
            let at = 28 + before + 1;
            let want = match byte {
                b'\r' => Err((Violation::LineEnding, at + 1)),
                b'\n' => Err((Violation::LineEnding, at)),
                b'\t' | 0x20..=0x7e | 0x80.. => Ok(()),
                _ => Err((Violation::FieldValue, at)),
            };
            // All cuts are tried for one length; for the others whole heads must do.
            let limits = Limits::default();
            match want {
                Ok(()) => assert!(whole(&head, &limits).is_ok_and(|head| head.is_some())),
                Err((violation, needed)) if before == 65 => refused_at(&head, violation, needed),
                Err((violation, _)) => assert_eq!(whole(&head, &limits), Err(violation)),
            }
        }
    }
}

#[test]
fn a_head_over_its_limit_is_refused_at_the_first_byte_beyond() {
    let limits = Limits {
        head_bytes_max: 128,
        target_bytes_max: 100,
        ..Limits::default()
    };
    let head = |len: usize| {
        let mut head = b"GET / HTTP/1.1\r\nHost: a\r\nP: ".to_vec();
        head.resize(len - 4, b'p');
        head.extend_from_slice(b"\r\n\r\n");
        head
    };
    let (whole, needed) = verdict_within(&head(128), &limits);
    assert!(whole.is_ok_and(|head| head.is_some_and(|head| head.len == 128)));
    assert_eq!(needed, 128);
    let followed = [head(128), vec![b'x'; 1000]].concat();
    assert_eq!(verdict_within(&followed, &limits).1, 128);
    for len in [129, 130, 131, 132, 133, 500] {
        let got = verdict_within(&head(len), &limits);
        assert_eq!(got, (Err(Violation::HeadTooLarge), 129), "{len}");
    }
}

#[test]
fn a_target_over_its_limit_is_refused_at_the_first_byte_beyond() {
    let limits = Limits {
        target_bytes_max: 20,
        ..Limits::default()
    };
    let head = |len: usize| {
        let target = format!("/{}", "t".repeat(len - 1));
        format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
    };
    assert!(matches!(verdict_within(&head(20), &limits).0, Ok(Some(_))));
    for len in [21, 22, 200] {
        let got = verdict_within(&head(len), &limits);
        assert_eq!(got, (Err(Violation::TargetTooLong), 25), "{len}");
    }
    let mut bad = head(22);
    bad[24] = 0xff;
    assert_eq!(verdict_within(&bad, &limits), (Err(Violation::Target), 25));
}

#[test]
fn one_field_too_many_is_refused_where_its_line_begins() {
    let limits = Limits {
        fields_max: 2,
        ..Limits::default()
    };
    let two = b"GET / HTTP/1.1\r\nHost: a\r\nB: b\r\n".to_vec();
    let at_limit = [&two[..], b"\r\n"].concat();
    assert!(matches!(verdict_within(&at_limit, &limits).0, Ok(Some(_))));
    let over = [&two[..], b"C"].concat();
    let got = verdict_within(&over, &limits);
    assert_eq!(got, (Err(Violation::TooManyFields), two.len() + 1));
}

#[test]
fn reading_a_head_byte_by_byte_costs_linear_time() {
    let mut head = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    while head.len() < 16_000 {
        head.extend_from_slice(b"X-Some-Field: with some value of middling length\r\n");
        head.resize(head.len().min(16_000), b' ');
    }
    // One line that fills what is left, then the end.
    let limits = Limits {
        fields_max: 1000,
        ..Limits::default()
    };
    head.truncate(15_990);
    let cut_line = head
        .iter()
        .rposition(|byte| *byte == b'\n')
        .expect("has lines");
    head.truncate(cut_line + 1);
    head.extend_from_slice(b"\r\n");
    for step in [1, 2, 3, 7, 100, 1500] {
        LOOKED_AT.set(0);
        let (verdict, _) = in_pieces(&head, (0..head.len()).step_by(step), &limits);
        assert!(matches!(verdict, Ok(Some(_))));
        // `in_pieces` parses the whole head once more to see that the verdict stays.
        let looks = LOOKED_AT.get() - head.len();
        assert!(looks <= 3 * head.len(), "step {step}: {looks} looks");
    }
}

/// The verdict on the head of a response, the same for whole input and byte by byte, with the
/// number of bytes that determine it.
#[track_caller]
fn response_verdict(input: &[u8]) -> (Result<Option<ResponseHead>, Violation>, usize) {
    let parse = |input: &[u8], progress: &mut HeadProgress| {
        let mut fields = Vec::new();
        let answer = parse_response(
            input,
            progress,
            Method::Get,
            &Limits::default(),
            &mut fields,
        );
        assert!(matches!(answer, Ok(Some(_))) || fields.is_empty());
        answer
    };
    let whole = parse(input, &mut HeadProgress::default());
    let mut progress = HeadProgress::default();
    for cut in 0..=input.len() {
        let answer = parse(&input[..cut], &mut progress);
        let fresh = parse(&input[..cut], &mut HeadProgress::default());
        assert_eq!(fresh, answer, "{} ends at {cut}", input.escape_ascii());
        if answer != Ok(None) {
            assert_eq!(answer, whole, "{}", input.escape_ascii());
            return (whole, cut);
        }
    }
    (whole, input.len())
}

#[test]
fn rfc9112_4_a_status_line_has_a_version_three_digits_and_perhaps_a_phrase() {
    let head = |line: &str| format!("{line}\r\nContent-Length: 5\r\n\r\nhello").into_bytes();
    for (line, version, status, reason) in [
        ("HTTP/1.1 200 OK", Version::Http11, 200, "OK"),
        ("HTTP/1.0 404 Not Found", Version::Http10, 404, "Not Found"),
        ("HTTP/1.7 999 ", Version::Http11, 999, ""),
        ("HTTP/1.1 500", Version::Http11, 500, ""),
        (
            "HTTP/1.1 103 \t caf\u{e9} ",
            Version::Http11,
            103,
            "\t caf\u{e9} ",
        ),
    ] {
        let bytes = head(line);
        let (verdict, needed) = response_verdict(&bytes);
        let got = verdict.expect("valid").expect("whole");
        assert_eq!((got.version, got.status), (version, status), "{line}");
        assert_eq!(got.reason.of(&bytes), reason.as_bytes(), "{line}");
        assert_eq!(
            (needed, got.len as usize),
            (bytes.len() - 5, bytes.len() - 5)
        );
        assert_eq!(got.fields, 0..1);
    }
    for (line, want, needed) in [
        ("HTTP/2.0 200 OK", Violation::VersionUnsupported, 8),
        ("HTTP/0.9 200 OK", Violation::VersionUnsupported, 8),
        ("http/1.1 200 OK", Violation::Version, 1),
        ("ICY 200 OK", Violation::Version, 1),
        ("HTTP/1.1\t200 OK", Violation::Version, 9),
        ("HTTP/1.10 200 OK", Violation::Version, 9),
        ("HTTP/1.1  200 OK", Violation::StatusLine, 10),
        ("HTTP/1.1 099 OK", Violation::StatusLine, 10),
        ("HTTP/1.1 2 OK", Violation::StatusLine, 11),
        ("HTTP/1.1 20 OK", Violation::StatusLine, 12),
        ("HTTP/1.1 2000 OK", Violation::StatusLine, 13),
        ("HTTP/1.1 200\tOK", Violation::StatusLine, 13),
        ("HTTP/1.1 +20 OK", Violation::StatusLine, 10),
        ("HTTP/1.1 200 O\0K", Violation::StatusLine, 15),
        ("HTTP/1.1 200 OK\n", Violation::LineEnding, 16),
        ("HTTP/1.1 200 OK\rx", Violation::LineEnding, 17),
        ("HTTP/1.1 200\n", Violation::LineEnding, 13),
        ("HTTP/1.1 200 OK\r\n folded: x", Violation::LineFolding, 18),
        ("HTTP/1.1 200 OK\r\na b: x", Violation::SpaceBeforeColon, 19),
    ] {
        assert_eq!(
            response_verdict(&head(line)),
            (Err(want), needed),
            "{line:?}"
        );
    }
}

#[test]
fn names_that_rules_know_are_known_in_any_case_and_no_others() {
    let known = [
        ("host", FieldName::Host),
        ("content-length", FieldName::ContentLength),
        ("transfer-encoding", FieldName::TransferEncoding),
        ("connection", FieldName::Connection),
        ("expect", FieldName::Expect),
        ("upgrade", FieldName::Upgrade),
    ];
    for (name, id) in known {
        for at in 0..name.len() {
            for byte in (0..=u8::MAX).filter(|byte| is_token_byte(*byte)) {
                let mut changed = name.as_bytes().to_vec();
                changed[at] = byte;
                let same = changed.eq_ignore_ascii_case(name.as_bytes());
                let want = if same { id } else { FieldName::Other };
                assert_eq!(FieldName::of(&changed), want, "{}", changed.escape_ascii());
            }
        }
        assert_eq!(FieldName::of(name.to_ascii_uppercase().as_bytes()), id);
        assert_eq!(
            FieldName::of(format!("{name}s").as_bytes()),
            FieldName::Other
        );
        assert_eq!(FieldName::of(&name.as_bytes()[1..]), FieldName::Other);
    }
}

/// Heads that are nearly right: pieces of valid ones, and bytes that break rules.
fn nearly_heads() -> impl Strategy<Value = Vec<u8>> {
    let pieces: &[&[u8]] = &[
        b"GET ", b"POST ", b"/", b"/index.html?q=1 ", b"* ", b" ", b"HTTP/1.1\r\n", b"HTTP/1.0\r\n",
        b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n", b"OPTIONS * HTTP/1.1\r\n",
        b"Host: a\r\n", b"Host: a\r\n", b"Host: b:80\r\n", b"Accept: */*\r\n", b"X-Y:z\r\n", b"\r\n",
        b"\r\n", b"\r", b"\n", b"\t", b"\0", b"\x7f", b"\xff", b":", b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n",
        b"A-name-that-is-longer-than-thirty-two-bytes-together: v\r\n",
        b"V: a value that is longer than a block of sixty-four bytes, and that then goes on a bit\r\n",
    ];
    let piece = proptest::sample::select(pieces);
    let starts: [&[u8]; 2] = [b"GET / HTTP/1.1\r\nHost: a\r\n", b""];
    let start = proptest::sample::select(starts.to_vec());
    (start, proptest::collection::vec(piece, 0..12))
        .prop_map(|(start, pieces)| [start, &pieces.concat()].concat())
}

proptest! {
    // Each case tries every cut, so a few cases are many.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_cut_changes_the_verdict(head in nearly_heads()) {
        let (_, needed) = verdict_within(&head, &Limits::default());
        prop_assert!(needed <= head.len());
    }

    #[test]
    fn no_cut_changes_the_verdict_within_small_limits(
        head in nearly_heads(), fields_max in 1..4_u16, target_bytes_max in 1..8_u32,
        head_bytes_max in 128..200_u32,
    ) {
        let limits = Limits { fields_max, target_bytes_max, head_bytes_max, ..Limits::default() };
        let (_, needed) = verdict_within(&head, &limits);
        prop_assert!(needed <= head.len());
    }

    #[test]
    fn no_cut_changes_the_verdict_on_damaged_heads(
        at in 0..130_usize, byte: u8,
    ) {
        let mut head = b"GET /a HTTP/1.1\r\nHost: example.com\r\nAccept: text/html\r\n\
            User-Agent: some agent with a name of its own (and comments)\r\n\r\n".to_vec();
        let at = at % head.len();
        head[at] = byte;
        let (_, needed) = verdict_within(&head, &Limits::default());
        prop_assert!(needed <= head.len());
    }
}
