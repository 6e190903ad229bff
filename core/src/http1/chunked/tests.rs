//! Rules of the chunked coding, each tried whole, cut at every place, and byte by byte.

use super::*;
use Violation as V;
use proptest::prelude::*;

const FRAMING_BYTES_MAX: u32 = 1024;

/// Decodes pieces that end at `cuts`, then the rest: the body and its length on the wire, `None`
/// if it is not whole.
fn decoded(
    input: &[u8],
    cuts: impl Iterator<Item = usize>,
) -> Result<Option<(Vec<u8>, usize)>, Violation> {
    let mut decoder = ChunkedDecoder::new(FRAMING_BYTES_MAX);
    let (mut body, mut at) = (Vec::new(), 0);
    for cut in cuts.chain([input.len()]) {
        loop {
            let piece = &input[at..cut.max(at)];
            match decoder.decode(piece)? {
                Step::NeedMore { consumed } => {
                    assert_eq!(consumed, piece.len(), "more was asked for with some left");
                    at += consumed;
                    break;
                }
                Step::Data { consumed, data } => {
                    assert!(!data.is_empty() && data.end == consumed);
                    body.extend_from_slice(&piece[data]);
                    at += consumed;
                }
                Step::End { consumed } => {
                    assert_eq!(decoder.decode(b"more"), Ok(Step::End { consumed: 0 }));
                    return Ok(Some((body, at + consumed)));
                }
            }
        }
    }
    Ok(None)
}

/// Asserts that no way to cut `input` changes what it says, and returns that.
#[track_caller]
fn check(input: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Violation> {
    let whole = decoded(input, std::iter::empty());
    let bytewise = decoded(input, 0..input.len());
    assert_eq!(bytewise, whole, "{} byte by byte", input.escape_ascii());
    for cut in 0..input.len() {
        let cut_once = decoded(input, [cut].into_iter());
        assert_eq!(cut_once, whole, "{} cut at {cut}", input.escape_ascii());
    }
    whole
}

#[track_caller]
fn body(input: &[u8], want: &[u8], len: usize) {
    let got = check(input);
    assert_eq!(
        got,
        Ok(Some((want.to_vec(), len))),
        "{}",
        input.escape_ascii()
    );
}

/// Asserts that `input` is refused for `want` with its last byte and not before.
#[track_caller]
fn refused(input: &[u8], want: Violation) {
    assert_eq!(check(input), Err(want), "{}", input.escape_ascii());
    let before = &input[..input.len() - 1];
    assert_eq!(check(before), Ok(None), "{}", before.escape_ascii());
}

#[test]
fn rfc9112_7_1_chunks_join_and_the_next_message_stays() {
    body(
        b"4\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\nGET /",
        b"Wikipedia",
        24,
    );
    body(b"0\r\n\r\n", b"", 5);
    body(b"00000\r\n\r\n", b"", 9);
    body(b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", 20);
    body(
        b"a\r\n\r\n0\r\n\r\n\r\nx\r\n000000000000001\r\ny\r\n0\r\n\r\n",
        b"\r\n0\r\n\r\n\r\nxy",
        40,
    );
    assert_eq!(check(b"4\r\nWiki\r\n0\r\n\r"), Ok(None));
    assert_eq!(check(b""), Ok(None));
}

#[test]
fn rfc9112_7_1_a_size_is_hexadecimal_digits() {
    for bad in [
        "", "+1", "-1", "0x1", " 1", "\t1", "g", "\r", ";a", "\n", "_1", "1_",
    ] {
        let at = bad
            .find(|byte: char| !byte.is_ascii_hexdigit())
            .unwrap_or(0);
        let line = format!("{bad}\r\n");
        refused(&line.as_bytes()[..=at], V::ChunkSize);
    }
    refused(b"1:", V::ChunkSize);
    refused(b"1\n", V::ChunkLineEnding);
    refused(b"1\rx", V::ChunkLineEnding);
    refused(b"1\r\r", V::ChunkLineEnding);
    refused(b"1\r\nxy", V::ChunkLineEnding);
    refused(b"1\r\nx\n", V::ChunkLineEnding);
    refused(b"1\r\nx\rx", V::ChunkLineEnding);
    refused(b"1\r\nx1", V::ChunkLineEnding);
    refused(b"0000000000000001", V::ChunkSizeTooLong);
    assert_eq!(check(b"fffffffffffffff\r\nx"), Ok(None));
}

#[test]
fn rfc9112_7_1_1_extensions_follow_their_grammar_and_are_dropped() {
    for good in [
        ";a",
        ";a=b",
        ";a=\"b\"",
        " ; a",
        "\t ;\ta = b",
        ";a;b;c",
        ";a=b;c=\"d\" ;e",
        ";a=\"\"",
        ";a=\"; \\\" \t\\\\ \u{e9}\"",
        ";!#$=~",
        ";a =b",
        ";a= \"b\"",
    ] {
        let input = format!("1{good}\r\nx\r\n0{good}\r\n\r\n");
        body(input.as_bytes(), b"x", input.len());
    }
    for bad in [
        " \r",
        ";\r",
        "; \r",
        ";a \r",
        ";a=\r",
        ";a= \r",
        ";=",
        ";a==",
        ";a=b=",
        ";a=\"b\r",
        ";a\"",
        ";a=\"b\"c",
        ";a b",
        ";a=b c",
        " 1",
        ";a=\"\0",
        ";a=\"\\\x07",
        ";;",
        ";a;;",
        ";a=b \r",
        ";a=\"b\" \r",
        ";\u{e9}",
    ] {
        let input = format!("1{bad}");
        let bad_byte = if bad.is_ascii() {
            input.len()
        } else {
            input.len() - 1
        };
        refused(&input.as_bytes()[..bad_byte], V::ChunkExtension);
    }
    for at in ["1;", "1 ", "1;a", "1;a=", "1;a=b", "1;a=\"b", "1;a=\"b\""] {
        refused(format!("{at}\n").as_bytes(), V::ChunkLineEnding);
    }
    refused(b"1;a\rx", V::ChunkLineEnding);
}

#[test]
fn rfc9112_7_1_2_trailers_follow_their_grammar_and_are_dropped() {
    body(b"0\r\nA: b\r\nLong-Name:\t\xff\r\nC:\r\n\r\nGET", b"", 29);
    for (bad, rule) in [
        ("A\r", V::Trailer),
        (":", V::Trailer),
        (" ", V::Trailer),
        ("\t", V::Trailer),
        ("A ", V::Trailer),
        ("A(", V::Trailer),
        ("A: \0", V::Trailer),
        ("A: b\r\n ", V::Trailer),
        ("A: b\r\n:", V::Trailer),
        ("\n", V::LineEnding),
        ("A\n", V::LineEnding),
        ("A: b\n", V::LineEnding),
        ("A: b\rc", V::LineEnding),
        ("A: b\r\r", V::LineEnding),
        ("\rA", V::LineEnding),
        ("A: b\r\n\r\r", V::LineEnding),
    ] {
        refused(format!("0\r\n{bad}").as_bytes(), rule);
    }
}

#[test]
fn framing_is_paid_from_a_budget_that_data_earns_back() {
    let extension = |len: usize| format!(";{}", "e".repeat(len - 1));
    let budget = FRAMING_BYTES_MAX as usize;
    // "1" and the extension and CRLF, just within and just over.
    let line = |len: usize| format!("1{}\r\n", extension(len - 3));
    assert_eq!(
        decoded(line(budget).as_bytes(), std::iter::empty()),
        Ok(None)
    );
    let over = decoded(line(budget + 1).as_bytes(), std::iter::empty());
    assert_eq!(over, Err(V::ChunkFraming));
    // Endless trailers, in many lines or one.
    let trailers = format!("0\r\n{}", "A: b\r\n".repeat(budget));
    assert_eq!(
        decoded(trailers.as_bytes(), std::iter::empty()),
        Err(V::ChunkFraming)
    );
    // Two-byte chunks earn 8 and cost 5, for ever.
    let small = ["2\r\nxy\r\n".repeat(100_000), "0\r\n\r\n".to_owned()].concat();
    let got = decoded(small.as_bytes(), std::iter::empty());
    assert!(got.is_ok_and(|end| end.is_some_and(|(body, _)| body.len() == 200_000)));
    // One-byte chunks earn 4 and cost 5: as many as the budget has bytes, not more.
    let tiny = |count: usize| "1\r\nx\r\n".repeat(count);
    assert_eq!(
        decoded(tiny(budget - 10).as_bytes(), std::iter::empty()),
        Ok(None)
    );
    assert_eq!(
        decoded(tiny(budget + 10).as_bytes(), std::iter::empty()),
        Err(V::ChunkFraming)
    );
    // Data never earns more than the budget.
    let rich = format!("1000\r\n{}\r\n{}", "x".repeat(0x1000), line(budget + 1));
    assert_eq!(
        decoded(rich.as_bytes(), std::iter::empty()),
        Err(V::ChunkFraming)
    );
}

/// RFC 9112 §7.1 read aloud over the whole input, line by line: the body and where it ends.
fn model(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    let line = |from: usize| {
        let len = input
            .get(from..)?
            .windows(2)
            .position(|pair| pair == b"\r\n")?;
        Some((&input[from..from + len], from + len + 2))
    };
    loop {
        let (size_line, next) = line(at)?;
        let digits = size_line
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        if !(1..=15).contains(&digits) || !extensions_are_well_formed(&size_line[digits..]) {
            return None;
        }
        let digits = std::str::from_utf8(&size_line[..digits]).ok()?;
        let size = usize::from_str_radix(digits, 16).ok()?;
        at = next;
        if size == 0 {
            break;
        }
        body.extend_from_slice(input.get(next..next.checked_add(size)?)?);
        at += size;
        if input.get(at..at + 2)? != b"\r\n" {
            return None;
        }
        at += 2;
    }
    loop {
        let (trailer, next) = line(at)?;
        at = next;
        if trailer.is_empty() {
            return Some((body, at));
        }
        let colon = trailer.iter().position(|byte| *byte == b':')?;
        let (name, value) = trailer.split_at(colon);
        let name_good = !name.is_empty() && name.iter().all(|byte| is_token_byte(*byte));
        if !name_good || !value.iter().all(|byte| is_value_byte(*byte)) {
            return None;
        }
    }
}

/// `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )`, by recursive descent.
fn extensions_are_well_formed(mut rest: &[u8]) -> bool {
    fn spaces(rest: &[u8]) -> &[u8] {
        rest.trim_ascii_start()
    }
    fn token(rest: &[u8]) -> Option<&[u8]> {
        let len = rest.iter().take_while(|byte| is_token_byte(**byte)).count();
        (len > 0).then(|| &rest[len..])
    }
    fn quoted(rest: &[u8]) -> Option<&[u8]> {
        let mut rest = rest.strip_prefix(b"\"")?;
        loop {
            rest = match rest {
                [b'"', behind @ ..] => return Some(behind),
                [b'\\', byte, behind @ ..] if is_value_byte(*byte) => behind,
                [b'\\', ..] => return None,
                [byte, behind @ ..] if is_value_byte(*byte) => behind,
                _ => return None,
            };
        }
    }
    while !rest.is_empty() {
        let Some(behind) = spaces(rest).strip_prefix(b";") else {
            return false;
        };
        let Some(behind) = token(spaces(behind)) else {
            return false;
        };
        rest = behind;
        if let Some(value) = spaces(behind).strip_prefix(b"=") {
            let value = spaces(value);
            let Some(behind) = token(value).or_else(|| quoted(value)) else {
                return false;
            };
            rest = behind;
        }
    }
    true
}

/// Bodies that are nearly right: pieces of the grammar in any order.
fn nearly_bodies() -> impl Strategy<Value = Vec<u8>> {
    let pieces: &[&[u8]] = &[
        b"0\r\n\r\n",
        b"0\r\n",
        b"1\r\nx\r\n",
        b"4\r\nWiki\r\n",
        b"4",
        b"a",
        b"\r\n",
        b"\r",
        b"\n",
        b";",
        b" ",
        b"a=b",
        b"=",
        b"\"q\"",
        b"\"",
        b"\\",
        b"T: v\r\n",
        b"2;a=\"\\\"\"\r\nxy\r\n",
        b"0;b ; c\r\n",
        b"\0",
        b":",
    ];
    let piece = proptest::sample::select(pieces);
    proptest::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn decoder_and_model_agree_however_the_input_is_cut(input in nearly_bodies()) {
        let accepted = check(&input).ok().flatten();
        prop_assert_eq!(accepted, model(&input));
    }

    #[test]
    fn what_is_written_in_chunks_comes_back(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..8),
    ) {
        let pool = crate::buffer::BufferPool::default();
        let mut out = crate::buffer::SendBuffer::new(&pool);
        for piece in &pieces {
            crate::http1::write::chunk(&mut out, piece);
        }
        crate::http1::write::last_chunk(&mut out);
        let wire: Vec<u8> = out.chunks().flatten().copied().collect();
        prop_assert_eq!(check(&wire), Ok(Some((pieces.concat(), wire.len()))));
    }
}
