//! What the decoder says of whole, cut, spoilt and swollen content, against encoders of others.

use super::*;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use proptest::prelude::*;
use std::io::Write;

/// The text of `testdata/codings/lines.*`, which zstd 1.5 and brotli 1.2 compressed.
fn lines() -> Vec<u8> {
    let line = |i: u32| format!("line {i}: {}\n", i * i % 9973);
    (0..3000).map(line).collect::<String>().into_bytes()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory")
}

fn zlib(content: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory")
}

fn raw_deflate(content: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory")
}

/// The lines in every coding: its token and the bytes.
fn coded() -> Vec<(&'static str, Vec<u8>)> {
    let lines = lines();
    vec![
        ("gzip", gzip(&lines)),
        ("deflate", zlib(&lines)),
        ("deflate", raw_deflate(&lines)),
        #[cfg(feature = "brotli")]
        (
            "br",
            include_bytes!("../../../testdata/codings/lines.br").to_vec(),
        ),
        #[cfg(feature = "zstd")]
        (
            "zstd",
            include_bytes!("../../../testdata/codings/lines.zst").to_vec(),
        ),
        ("deflate, gzip", gzip(&zlib(&lines))),
    ]
}

fn decoder(codings: &str, bytes_max: u64) -> Decoder {
    Decoder::new([codings.as_bytes()].into_iter(), bytes_max)
        .expect("few codings")
        .expect("known codings")
}

/// Feeds `pieces` and pulls all that comes, in portions of `room` bytes.
fn decode<'a>(
    mut decoder: Decoder,
    pieces: impl Iterator<Item = &'a [u8]>,
    room: usize,
) -> Result<Vec<u8>, DecodeError> {
    let mut out = vec![0; room];
    let mut content = Vec::new();
    for piece in pieces {
        decoder.feed(piece);
        loop {
            match decoder.pull(&mut out)? {
                0 => break,
                count => content.extend_from_slice(&out[..count]),
            }
        }
    }
    decoder.finish().map(|()| content)
}

fn decode_whole(codings: &str, bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    decode(decoder(codings, u64::MAX), [bytes].into_iter(), 16 * 1024)
}

#[test]
fn each_coding_is_undone_however_it_is_cut() {
    for (codings, bytes) in coded() {
        assert!(decode_whole(codings, &bytes) == Ok(lines()), "{codings}");
        for cut in [1, 7, 1000] {
            let content = decode(decoder(codings, u64::MAX), bytes.chunks(cut), 333);
            assert!(content == Ok(lines()), "{codings} by {cut}");
        }
    }
}

#[test]
fn content_that_lacks_its_end_is_not_whole() {
    for (codings, bytes) in coded() {
        let every = bytes.len() / 97 + 1;
        let ends = (1..bytes.len())
            .step_by(every)
            .chain(bytes.len() - 9..bytes.len());
        for end in ends {
            let content = decode_whole(codings, &bytes[..end]);
            assert!(
                matches!(content, Err(DecodeError::Truncated(_))),
                "{codings} up to {end}: {:?}",
                content.map(|content| content.len())
            );
        }
    }
}

#[test]
fn what_follows_the_end_is_not_dropped() {
    for (codings, mut bytes) in coded() {
        bytes.extend_from_slice(b"more");
        let content = decode_whole(codings, &bytes);
        assert!(
            matches!(content, Err(DecodeError::TrailingBytes(_))),
            "{codings}: {:?}",
            content.map(|content| content.len())
        );
    }
}

#[test]
fn a_bomb_costs_what_was_allowed() {
    const ALLOWED: u64 = 512 * 1024;
    let zeros = vec![0; 4 * 1024 * 1024];
    let bombs = [
        ("gzip", gzip(&zeros)),
        ("gzip, gzip", gzip(&gzip(&zeros))),
        #[cfg(feature = "brotli")]
        (
            "br",
            include_bytes!("../../../testdata/codings/zeros.br").to_vec(),
        ),
        #[cfg(feature = "zstd")]
        (
            "zstd",
            include_bytes!("../../../testdata/codings/zeros.zst").to_vec(),
        ),
    ];
    for (codings, bomb) in bombs {
        let mut decoder = decoder(codings, ALLOWED);
        decoder.feed(&bomb);
        let (mut out, mut seen) = (vec![0; 64 * 1024], 0);
        let error = loop {
            match decoder.pull(&mut out) {
                Ok(0) => panic!("{codings}: the bomb ended after {seen} bytes"),
                Ok(count) => seen += count as u64,
                Err(error) => break error,
            }
        };
        assert!(seen <= ALLOWED, "{codings}: {seen} bytes");
        let want = DecodeError::TooLarge { bytes_max: ALLOWED };
        assert_eq!(error, want, "{codings}");
        assert!(
            decode_whole(codings, &bomb) == Ok(zeros.clone()),
            "{codings}"
        );
    }
}

#[test]
fn a_spoilt_byte_is_noticed() {
    // Each of these ends with a checksum; raw deflate and brotli have none.
    for (codings, bytes) in coded() {
        let checked = matches!(codings, "gzip" | "zstd") || bytes.first() == Some(&0x78);
        for at in [bytes.len() / 2, bytes.len() - 2] {
            let mut spoilt = bytes.clone();
            spoilt[at] ^= 0x10;
            let content = decode_whole(codings, &spoilt);
            assert!(
                !checked || content.is_err(),
                "{codings}: byte {at} went unnoticed"
            );
        }
    }
    assert_eq!(
        decode_whole("gzip", b"<html>not gzip</html>"),
        Err(DecodeError::Corrupt(Coding::Gzip))
    );
}

#[test]
fn rfc1952_2_2_members_are_one_content() {
    let twice = [gzip(b"one, "), gzip(b"two")].concat();
    assert_eq!(decode_whole("x-gzip", &twice), Ok(b"one, two".to_vec()));
}

#[cfg(feature = "zstd")]
#[test]
fn rfc8878_3_1_frames_are_one_content_and_some_are_skipped() {
    let lines_zst = include_bytes!("../../../testdata/codings/lines.zst");
    let skipped = b"\x5a\x2a\x4d\x18\x05\0\0\0hello";
    let bytes = [&skipped[..], lines_zst, skipped, lines_zst].concat();
    let want = [lines(), lines()].concat();
    for cut in [1, 3, 50_000] {
        let content = decode(decoder("zstd", u64::MAX), bytes.chunks(cut), 4096);
        assert!(content == Ok(want.clone()), "by {cut}");
    }
    let cut_short = &bytes[..bytes.len() - lines_zst.len() - 2];
    let error = DecodeError::Truncated(Coding::Zstd);
    assert!(decode_whole("zstd", cut_short) == Err(error));
}

#[cfg(feature = "zstd")]
#[test]
fn rfc9659_3_a_window_over_8_mib_is_refused() {
    let wide = include_bytes!("../../../testdata/codings/wide.zst");
    let error = DecodeError::WindowTooLarge(Coding::Zstd);
    assert_eq!(decode_whole("zstd", wide), Err(error));
}

#[test]
fn codings_are_undone_in_reverse_or_not_at_all() {
    let of = |values: &[&str]| {
        let values = values.iter().map(|value| value.as_bytes());
        Decoder::new(values, 10).map(|decoder| {
            decoder.map(|decoder| {
                let names = decoder.links.iter().map(|link| link.coding.name());
                names.collect::<Vec<_>>()
            })
        })
    };
    assert_eq!(of(&[]), Ok(None));
    assert_eq!(of(&["identity"]), Ok(None));
    assert_eq!(of(&["GZIP"]), Ok(Some(vec!["gzip"])));
    assert_eq!(
        of(&["deflate , identity,, gzip"]),
        Ok(Some(vec!["gzip", "deflate"]))
    );
    assert_eq!(
        of(&["gzip", "deflate"]),
        Ok(Some(vec!["deflate", "gzip"])),
        "field lines are one list"
    );
    assert_eq!(of(&["gzip, aws-chunked"]), Ok(None));
    let five = "gzip,gzip,gzip,gzip,gzip";
    assert_eq!(of(&[five]), Err(DecodeError::TooManyCodings));
}

#[test]
fn a_coding_of_nothing_is_nothing() {
    for (codings, _) in coded() {
        assert_eq!(decode_whole(codings, b""), Ok(Vec::new()), "{codings}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered_and_what_was_coded_comes_back(
        content in proptest::collection::vec(any::<u8>(), 0..500),
        cut in 1_usize..50,
        room in 1_usize..100,
    ) {
        for token in ["gzip", "deflate", "br", "zstd"] {
            let known = Decoder::new([token.as_bytes()].into_iter(), 1 << 20).expect("one coding");
            if let Some(decoder) = known {
                // Garbage may decode by chance; that it neither hangs nor panics is the point.
                drop(decode(decoder, content.chunks(cut), room));
            }
        }
        let both = decode(decoder("deflate", 1 << 20), zlib(&content).chunks(cut), room);
        prop_assert_eq!(both, Ok(content.clone()));
        let raw = decode(decoder("deflate", 1 << 20), raw_deflate(&content).chunks(cut), room);
        prop_assert_eq!(raw, Ok(content));
    }
}
