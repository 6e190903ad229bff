//! What a line of an access log does to the texts of a peer, and how it writes a time.
//!
//! Not here: which requests have a line (`tests/access.rs`), where lines go (`access/sink.rs`).

use super::{TEXT_BYTES_MAX, Time, clip, quote};
use std::time::Duration;

#[track_caller]
fn check(text: &[u8], quoted: &str) {
    let mut line = Vec::new();
    quote(&mut line, &clip(text));
    assert_eq!(String::from_utf8(line).unwrap(), quoted);
}

#[test]
fn rfc8259_7_controls_quotes_and_what_turns_text_around_are_escaped() {
    check(b"/plain?x=1", r#""/plain?x=1""#);
    check(
        b"a\"b\\c\nd\re\tf\0g\x1b[31m\x7f",
        r#""a\"b\\c\u000ad\u000de\u0009f\u0000g\u001b[31m\u007f""#,
    );
    check(
        "é漢\u{85}\u{2028}\u{202e}\u{feff}".as_bytes(),
        "\"é漢\\u0085\\u2028\\u202e\\ufeff\"",
    );
}

#[test]
fn bytes_that_are_no_utf8_stand_as_latin_1() {
    check(b"\xe9x\xff\xc3", r#""\u00e9x\u00ff\u00c3""#);
}

#[test]
fn a_text_that_is_long_is_cut_between_characters() {
    let exact = "x".repeat(TEXT_BYTES_MAX);
    check(exact.as_bytes(), &format!("\"{exact}\""));
    let long = "x".repeat(TEXT_BYTES_MAX - 2) + "漢漢";
    let kept = "x".repeat(TEXT_BYTES_MAX - 2);
    check(long.as_bytes(), &format!("\"{kept}…\""));
    check(
        &[0xff; 3_000],
        &format!("\"{}…\"", "\\u00ff".repeat(TEXT_BYTES_MAX - 1)),
    );
    check(&[0x80; 3_000], "\"…\"");
}

#[test]
fn rfc3339_5_6_times_have_milliseconds_and_are_in_utc() {
    for (millis, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_399_999, "2000-02-28T23:59:59.999Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (1_795_284_950_123, "2026-11-21T18:15:50.123Z"),
    ] {
        assert_eq!(Time(Duration::from_millis(millis)).to_string(), text);
    }
}
