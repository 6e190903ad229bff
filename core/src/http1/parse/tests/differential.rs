//! Against httparse, which the Rust world's servers use: same heads, same answers, but for a list.
//!
//! What may differ, and why; each is asserted to be the reason where it is claimed:
//! - a bare LF ends a line there, and never here: RFC 9112 §2.2 permits both, §11.2 says what
//!   comes of it;
//! - empty lines before the request are skipped there; here by the driver (RFC 9112 §2.2);
//! - `#` and bytes beyond ASCII are taken in targets there; no URI has them (RFC 9112 §3.2);
//! - HTTP/1.2 to 1.9 are refused there; RFC 9110 §2.5 wants them spoken to as 1.1;
//! - another major version is refused there at its first digit; here with its minor digit, when it
//!   is known to be a version and the answer to be 505 (RFC 9110 §15.6.6);
//! - contradictions between fields, wrong `Host`, wrong target forms: nobody looks there
//!   (RFC 9112 §3.2, §6.3);
//! - where httparse still waits for more, we may have found the bad byte already.
//!
//! Not here: our own rules, one by one (`tests.rs`).

use super::*;
use crate::http1::Request;
use ::httparse::{EMPTY_HEADER, Request as Theirs, Status};

/// Whether the rule is one of syntax, which both check.
fn is_syntax(violation: Violation) -> bool {
    use Violation as V;
    matches!(
        violation,
        V::Method
            | V::Target
            | V::TargetTooLong
            | V::Version
            | V::VersionUnsupported
            | V::LineEnding
            | V::FieldName
            | V::SpaceBeforeColon
            | V::LineFolding
            | V::FieldValue
            | V::TooManyFields
            | V::HeadTooLarge
    )
}

/// Whether refusing `head`, which httparse takes, for `violation` is on the list.
fn may_refuse(head: &[u8], target: &[u8], violation: Violation) -> bool {
    let bare_lf = head
        .iter()
        .enumerate()
        .any(|(at, byte)| *byte == b'\n' && (at == 0 || head[at - 1] != b'\r'));
    match violation {
        Violation::LineEnding => bare_lf,
        Violation::Method => matches!(head, [b'\r' | b'\n', ..]),
        // The line of HTTP/0.9 and bare LFs aside, a bad target byte.
        Violation::Target => {
            !target.iter().all(|byte| is_target_byte(*byte)) || target_form(target)
        }
        other => !is_syntax(other),
    }
}

/// Whether the form of `target`, not its bytes, may be what was refused.
fn target_form(target: &[u8]) -> bool {
    !target.starts_with(b"/")
}

#[track_caller]
fn compare(input: &[u8]) {
    let mut fields = Vec::new();
    let limits = Limits::default();
    let ours = parse_request(input, &mut HeadProgress::default(), &limits, &mut fields);
    let mut storage = [EMPTY_HEADER; 100];
    let mut theirs = Theirs::new(&mut storage);
    let answer = theirs.parse(input);
    let shown = input.escape_ascii();
    match (ours, answer) {
        (Ok(Some(head)), Ok(Status::Complete(len))) => {
            assert_eq!(head.len as usize, len, "{shown}");
            let request = Request::new(&head, input, &fields);
            assert_eq!(
                Some(request.method()),
                theirs.method.map(str::as_bytes),
                "{shown}"
            );
            assert_eq!(
                Some(request.target()),
                theirs.path.map(str::as_bytes),
                "{shown}"
            );
            let minor = u8::from(head.version == Version::Http11);
            assert_eq!(Some(minor), theirs.version, "{shown}");
            let names = theirs
                .headers
                .iter()
                .map(|field| (field.name.as_bytes(), field.value));
            assert!(request.fields().eq(names), "{shown}");
        }
        (Ok(_), Err(::httparse::Error::Version)) => {
            let later = |part: &[u8]| part.starts_with(b" HTTP/1.") && part[8] > b'1';
            // `HTTP/2`, or `HTTP/2.`, and then the input ends.
            let major_only = |dots: &[u8]| {
                let digit = input
                    .strip_suffix(dots)
                    .and_then(|input| input.split_last());
                digit.is_some_and(|(digit, before)| {
                    digit.is_ascii_digit() && before.ends_with(b" HTTP/")
                })
            };
            let undecided = major_only(b"") || major_only(b".");
            assert!(input.windows(9).any(later) || undecided, "{shown}");
        }
        (Err(violation), Ok(Status::Complete(len))) => {
            let target = theirs.path.map_or(&b""[..], str::as_bytes);
            let allowed = may_refuse(&input[..len], target, violation);
            assert!(allowed, "{violation:?} for {shown}");
        }
        (Err(_), Err(_) | Ok(Status::Partial)) | (Ok(None), Ok(Status::Partial)) => {}
        (ours, answer) => panic!("{ours:?}, but httparse {answer:?} for {shown}"),
    }
}

#[test]
fn the_allowed_differences_and_no_others() {
    for head in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.4\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nA: \r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nA:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nA:  \t b\t \r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "GET /\r\n\r\n",
    ] {
        for end in 0..=head.len() {
            compare(&head.as_bytes()[..end]);
        }
    }
}

/// A browser's head with some bytes replaced, inserted or removed.
fn damaged_heads() -> impl Strategy<Value = Vec<u8>> {
    let interesting: &[u8] = b"\r\n\t \0\x7f\x80\xff:;,#%?/\"[]@1aZ-";
    let byte = prop_oneof![proptest::sample::select(interesting), any::<u8>()];
    let damage = (any::<proptest::sample::Index>(), 0..3_u8, byte);
    proptest::collection::vec(damage, 0..4).prop_map(|damages| {
        let mut head =
            b"POST /path/to?query=yes&more=no HTTP/1.1\r\nHost: www.example.com:8080\r\n\
            Connection: keep-alive\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0\r\n\
            Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\nContent-Length: 12\r\n\
            Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\nbody"
                .to_vec();
        for (index, kind, byte) in damages {
            let at = index.index(head.len());
            match kind {
                0 => head[at] = byte,
                1 => head.insert(at, byte),
                _ => {
                    head.remove(at);
                }
            }
        }
        head
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn damaged_heads_are_judged_alike(head in damaged_heads(), cut in any::<proptest::sample::Index>()) {
        compare(&head);
        compare(&head[..cut.index(head.len())]);
    }

    #[test]
    fn heads_of_random_pieces_are_judged_alike(head in nearly_heads()) {
        compare(&head);
    }
}
