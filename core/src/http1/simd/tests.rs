//! Every implementation against `Scalar`: every byte, every lane, every distance to the end.

use super::*;
use crate::buffer::Span;
use crate::http1::FieldName;
use crate::http1::clean::{Heard, RequestLine};
use proptest::prelude::*;

/// Calls `check` with each implementation this machine can run.
macro_rules! with_each {
    ($check:ident($($argument:expr),*)) => {
        $check("words", Words, $($argument),*);
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(sse) = x86::Sse42::ask() {
                $check("sse4.2", sse, $($argument),*);
            }
            if let Some(avx2) = x86::Avx2::ask() {
                $check("avx2", avx2, $($argument),*);
            }
        }
        #[cfg(target_arch = "aarch64")]
        $check("neon", neon::Neon, $($argument),*);
    };
}

/// All answers of `lanes` about `input` from `from` on.
fn answers<L: Lanes>(lanes: L, input: &[u8], from: usize) -> ([u32; 2], Vec<u64>) {
    let at = u32::try_from(from).unwrap();
    let lens = [lanes.target_len(input, at), lanes.plain_len(input, at)];
    let len = u32::try_from(input.len()).unwrap();
    let blocks = (at..len).step_by(BLOCK_BYTES);
    (lens, blocks.map(|at| lanes.odd_bytes(input, at)).collect())
}

/// Asserts that `lanes` answers as `Scalar` does about `input` from `from` on.
#[track_caller]
fn same_answers<L: Lanes>(name: &str, lanes: L, input: &[u8], from: usize) {
    let got = answers(lanes, input, from);
    let want = answers(Scalar, input, from);
    assert_eq!(got, want, "{name} at {from} of {}", input.escape_ascii());
}

#[test]
fn every_byte_in_every_lane_is_what_the_table_says() {
    for byte in 0..=u8::MAX {
        for lane in 0..100 {
            let mut input = [b'a'; 100];
            input[lane] = byte;
            with_each!(same_answers(&input, 0));
            // The same byte in the last block, at every distance from the end.
            with_each!(same_answers(&input, 45));
        }
    }
}

#[test]
fn no_answer_depends_on_the_length_of_the_input() {
    for len in 0..100 {
        for byte in [b'\r', 0x80] {
            for lane in 0..len {
                let mut input = vec![b'a'; len];
                input[lane] = byte;
                for from in [0, lane.saturating_sub(1), lane, len.saturating_sub(1), len] {
                    with_each!(same_answers(&input, from));
                }
            }
        }
        with_each!(same_answers(&vec![b'a'; len], len));
    }
}

#[test]
fn short_inputs_are_answered_for_at_once_and_alike() {
    fn check<V: Vector>(name: &str, vector: V, input: &[u8]) {
        match Short::new(vector, input) {
            Some(short) => {
                for from in 0..=input.len() {
                    same_answers(name, short, input, from);
                }
            }
            None => assert!(!(WIDTH..BLOCK_BYTES).contains(&input.len()), "{name}"),
        }
    }
    for len in 0..=BLOCK_BYTES {
        for byte in [b'a', b'\r', 0x7f, 0x80, b':', b'#'] {
            for lane in 0..len {
                let mut input = vec![b'a'; len];
                input[lane] = byte;
                #[cfg(target_arch = "x86_64")]
                {
                    if let Some(sse) = x86::Sse42::ask() {
                        check("sse4.2", sse, &input);
                    }
                    if let Some(avx2) = x86::Avx2::ask() {
                        check("avx2", avx2, &input);
                    }
                }
                #[cfg(target_arch = "aarch64")]
                check("neon", neon::Neon, &input);
            }
        }
    }
}

#[test]
fn all_bytes_at_once_are_told_apart() {
    let input: Vec<u8> = (0..=u8::MAX).chain((0..=u8::MAX).rev()).collect();
    for from in 0..=input.len() {
        with_each!(same_answers(&input, from));
    }
}

/// A request line and the head's length; a usual line and where the next begins; what the fields
/// behind that are.
type Found = (
    Option<(RequestLine, u32)>,
    Option<(Span, u32)>,
    Option<(u32, Heard)>,
);

/// What of `input` is there to be found with `lanes`: the request line, the usual request line, the
/// length, and the fields.
fn found<L: Lanes>(lanes: L, input: &[u8]) -> (Found, Vec<Field>) {
    let limits = Limits::default();
    let mut fields = Vec::with_capacity(40);
    let mut room = Room::new(&mut fields, 40);
    let head = clean::clean_head(lanes, input, &limits, &mut room);
    if head.is_some() {
        room.commit();
    }
    let line = clean::usual_request_line(lanes, input, &limits);
    let mut heard_fields = Vec::with_capacity(40);
    let mut room = Room::new(&mut heard_fields, 40);
    let heard = line.and_then(|(_, at)| clean::clean_fields(lanes, input, at, &mut room));
    ((head, line, heard), fields)
}

/// Asserts that the head parses with `lanes` as it does byte by byte.
#[track_caller]
fn same_head<L: Lanes>(name: &str, lanes: L, input: &[u8]) {
    assert_eq!(
        found(lanes, input),
        found(Scalar, input),
        "{name}: {}",
        input.escape_ascii()
    );
}

#[test]
fn heads_with_odd_names_or_many_fields_are_parsed_all_the_same() {
    let names = [
        "A#b",
        "%",
        "Ab`c",
        "a^b",
        "|",
        "Long-Name-Of-More-Than-One-Vector-Of-Bytes",
    ];
    for name in names {
        for count in [1, 31, 32, 33, 100] {
            let line = format!("{name}: value\r\n");
            let head = format!(
                "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
                line.repeat(count - 1)
            );
            let mut fields = Vec::new();
            let parsed = parse_request(
                head.as_bytes(),
                &mut HeadProgress::default(),
                &Limits::default(),
                &mut fields,
            );
            let parsed = parsed.expect("valid").expect("whole");
            assert_eq!(parsed.len as usize, head.len());
            assert_eq!(
                (parsed.fields, fields.len()),
                (0..u32::try_from(count).unwrap(), count)
            );
            for field in &fields[1..] {
                assert_eq!(field.name.of(head.as_bytes()), name.as_bytes());
                assert_eq!(field.value.of(head.as_bytes()), b"value");
            }
        }
    }
}

#[test]
fn a_vector_of_fields_grows_by_whole_heads_alone() {
    let field = Field {
        name: Span::default(),
        value: Span::default(),
        id: FieldName::Other,
    };
    let mut fields = Vec::with_capacity(3);
    fields.push(field);
    let mut room = Room::new(&mut fields, 9);
    assert_eq!(
        [(); 3].map(|()| room.push(field)),
        [Some(()), Some(()), None]
    );
    assert_eq!(fields.len(), 1);
    let mut room = Room::new(&mut fields, 1);
    assert_eq!([(); 2].map(|()| room.push(field)), [Some(()), None]);
    room.commit();
    assert_eq!(fields, [field; 2]);
}

#[test]
fn lines_end_alike_wherever_a_block_ends() {
    for len in 0..=2 * BLOCK_BYTES {
        let value = "v".repeat(len);
        for lines in [
            "Host: h\r\n",
            "A:\t\r\n\tfolded\r\n",
            "B: \tb\tb\t \r\nC:\r\n",
        ] {
            let head = format!("GET / HTTP/1.1\r\nA: {value}\r\n{lines}\r\n").into_bytes();
            with_each!(same_head(&head));
            // No line ends with the LF alone, or with the CR alone, be it in another block.
            let cr = head.len() - lines.len() - 4;
            for (at, byte) in [(cr, b'v'), (cr, b'\n'), (cr + 1, b'v'), (cr + 1, b'\r')] {
                let mut unclean = head.clone();
                unclean[at] = byte;
                with_each!(same_head(&unclean));
                let mut fields = Vec::new();
                let refused = parse_request(
                    &unclean,
                    &mut HeadProgress::default(),
                    &Limits::default(),
                    &mut fields,
                );
                assert!(refused.is_err(), "{}", unclean.escape_ascii());
            }
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_get_the_same_answers(input: Vec<u8>, from in 0..100_usize) {
        with_each!(same_answers(&input, from.min(input.len())));
    }

    #[test]
    fn whole_heads_parse_alike(
        target in "/[!-~]{0,80}",
        lines in proptest::collection::vec("[a-zA-Z-]{1,70}:[ \t]{0,2}[ -~\u{e9}]{0,150}\r\n", 0..12),
        behind: Vec<u8>,
    ) {
        let mut head = format!("GET {target} HTTP/1.1\r\n{}\r\n", lines.concat()).into_bytes();
        head.extend_from_slice(&behind);
        with_each!(same_head(&head));
        head.truncate(head.len() - behind.len());
        with_each!(same_head(&head));
        head.pop();
        with_each!(same_head(&head));
    }
}
