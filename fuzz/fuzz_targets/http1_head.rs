//! Request heads: any cut brings the same verdict; what we accept another parser reads alike; what
//! we read, written out again, reads the same; limits hold.
#![no_main]

use hukilau_core::http1::parse::{HeadProgress, parse_request};
use hukilau_core::http1::{Field, Framing, RequestHead};
use hukilau_core::limits::Limits;
use hukilau_core::violation::Violation;
use hukilau_fuzz::{pieces, seeded};
use libfuzzer_sys::fuzz_target;

type Verdict = Result<Option<(RequestHead, Vec<Field>)>, Violation>;

fuzz_target!(|data: &[u8]| {
    let Some((mut seed, bytes)) = seeded(data) else {
        return;
    };
    let limits = Limits {
        head_bytes_max: 512,
        target_bytes_max: 64,
        fields_max: 8,
        ..Limits::default()
    };
    let whole = parse(&[bytes.len()], bytes, &limits);
    let ends: Vec<usize> = pieces(bytes.len(), &mut seed)
        .iter()
        .map(|cut| cut.end)
        .collect();
    assert_eq!(
        parse(&ends, bytes, &limits),
        whole,
        "the cut changed the verdict"
    );

    let Ok(Some((head, fields))) = whole else {
        return;
    };
    assert!(head.len <= limits.head_bytes_max && head.target.len <= limits.target_bytes_max);
    assert!(fields.len() <= usize::from(limits.fields_max));
    if let Framing::Length(length) = head.framing {
        assert!(length > 0, "no body has framing of its own");
    }
    agrees_with_httparse(bytes, &head, &fields);
    round_trip(bytes, &head, &fields, &limits);
});

/// Parses ever longer prefixes with one progress; the first verdict that is not "incomplete". A
/// verdict must not change when more comes.
fn parse(ends: &[usize], bytes: &[u8], limits: &Limits) -> Verdict {
    let (mut progress, mut fields) = (HeadProgress::default(), Vec::new());
    for end in ends {
        if let Some(head) = parse_request(&bytes[..*end], &mut progress, limits, &mut fields)? {
            return Ok(Some((head, fields)));
        }
        assert!(fields.is_empty(), "an unfinished head leaves no fields");
    }
    Ok(None)
}

/// What we accept must be accepted elsewhere, with the same parts: leniency of ours would be a way
/// to smuggle a request past someone.
fn agrees_with_httparse(bytes: &[u8], head: &RequestHead, fields: &[Field]) {
    let mut theirs = [httparse::EMPTY_HEADER; 16];
    let mut request = httparse::Request::new(&mut theirs);
    let parsed = request.parse(bytes);
    // Allowed difference: httparse knows 1.0 and 1.1; we take any 1.x for 1.1 (RFC 9110 §2.5).
    if parsed == Err(httparse::Error::Version) {
        return;
    }
    // Allowed difference: httparse wants UTF-8 in a target; RFC 9112 §3.2 has bytes, and so have we.
    if parsed == Err(httparse::Error::Token) && !head.target.of(bytes).is_ascii() {
        return;
    }
    assert_eq!(parsed, Ok(httparse::Status::Complete(head.len as usize)));
    assert_eq!(
        request.method.map(str::as_bytes),
        Some(head.method_span.of(bytes))
    );
    assert_eq!(request.path.map(str::as_bytes), Some(head.target.of(bytes)));
    assert_eq!(request.headers.len(), fields.len());
    for (theirs, ours) in request.headers.iter().zip(fields) {
        assert_eq!(theirs.name.as_bytes(), ours.name.of(bytes));
        let theirs = theirs.value.trim_ascii();
        assert_eq!(theirs, ours.value.of(bytes).trim_ascii());
    }
}

/// Written out plainly, the head must read the same.
fn round_trip(bytes: &[u8], head: &RequestHead, fields: &[Field], limits: &Limits) {
    let line_end = bytes
        .windows(2)
        .position(|pair| pair == b"\r\n")
        .expect("a head has lines");
    let mut plain = bytes[..line_end].to_vec();
    for field in fields {
        plain.extend([b"\r\n", field.name.of(bytes), b": ", field.value.of(bytes)].concat());
    }
    plain.extend(b"\r\n\r\n");
    let limits = Limits {
        head_bytes_max: 65_535,
        ..limits.clone()
    };
    let (again, fields_again) = parse(&[plain.len()], &plain, &limits)
        .expect("what was accepted is accepted again")
        .expect("it is whole");
    assert_eq!(again.len as usize, plain.len());
    assert_eq!(
        (
            again.framing,
            again.keeps_alive,
            again.expects_continue,
            again.upgrades_to_websocket
        ),
        (
            head.framing,
            head.keeps_alive,
            head.expects_continue,
            head.upgrades_to_websocket
        ),
    );
    for (before, after) in fields.iter().zip(&fields_again) {
        assert_eq!(before.id, after.id);
        assert_eq!(before.value.of(bytes), after.value.of(&plain));
    }
}
