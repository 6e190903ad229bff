//! Headers of the PROXY protocol: any cut gives the same announcement or the same refusal, no byte behind
//! the header is asked for, and a naive reading of the specification over the whole input agrees.
#![no_main]

use hukilau_core::proxy_header::{Announcement, ProxyHeader};
use hukilau_fuzz::{pieces, seeded};
use libfuzzer_sys::fuzz_target;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What came of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Incomplete,
    Refused,
    /// What it says, and the length of the header.
    Said(Announcement, usize),
}

fuzz_target!(|data: &[u8]| {
    let Some((mut seed, bytes)) = seeded(data) else {
        return;
    };
    let whole = feed(bytes, &[0..bytes.len()]);
    let cuts = pieces(bytes.len(), &mut seed);
    assert_eq!(feed(bytes, &cuts), whole, "the cut changed the meaning");
    match (model(bytes), whole) {
        // What can become no header any more is refused before the model has seen its end.
        (Verdict::Incomplete, Verdict::Refused) => {}
        (model, real) => assert_eq!(model, real, "the model reads it otherwise"),
    }
});

/// Feeds it as a transport does: never more than is wanted, nor over the end of a piece.
fn feed(bytes: &[u8], cuts: &[Range<usize>]) -> Verdict {
    let (mut header, mut taken) = (ProxyHeader::default(), 0);
    for cut in cuts {
        let mut piece = &bytes[cut.clone()];
        while !piece.is_empty() {
            let wants = header.wants();
            assert!(wants > 0, "an incomplete header wants more");
            let (now, later) = piece.split_at(wants.min(piece.len()));
            taken += now.len();
            piece = later;
            match header.feed(now) {
                Ok(None) => {}
                Ok(Some(said)) => return Verdict::Said(said, taken),
                Err(_) => return Verdict::Refused,
            }
        }
    }
    Verdict::Incomplete
}

fn model(bytes: &[u8]) -> Verdict {
    if bytes.first() == Some(&b'\r') {
        return binary(bytes).unwrap_or(Verdict::Incomplete);
    }
    let window = &bytes[..bytes.len().min(107)];
    let Some(end) = window.windows(2).position(|two| two == b"\r\n") else {
        return if window.len() == 107 {
            Verdict::Refused
        } else {
            Verdict::Incomplete
        };
    };
    match line(&window[..end]) {
        Some(said) => Verdict::Said(said, end + 2),
        None => Verdict::Refused,
    }
}

/// §2.1.
fn line(line: &[u8]) -> Option<Announcement> {
    if line == b"PROXY UNKNOWN" || line.starts_with(b"PROXY UNKNOWN ") {
        let is_one_line = !line.contains(&b'\r') && !line.contains(&b'\n');
        return is_one_line.then_some(Announcement::Unknown);
    }
    let text = std::str::from_utf8(line).ok()?;
    let parts: Vec<_> = text.split(' ').collect();
    let [word, family, source, target, source_port, target_port] = parts[..] else {
        return None;
    };
    let port = |text: &str| {
        let port: u16 = text.parse().ok()?;
        (port.to_string() == text).then_some(port)
    };
    let (from, _) = (port(source_port)?, port(target_port)?);
    let ip = match (word, family) {
        ("PROXY", "TCP4") => {
            target.parse::<Ipv4Addr>().ok()?;
            source.parse::<Ipv4Addr>().ok()?.into()
        }
        ("PROXY", "TCP6") => {
            target.parse::<Ipv6Addr>().ok()?;
            source.parse::<Ipv6Addr>().ok()?.into()
        }
        _ => return None,
    };
    Some(Announcement::Client(SocketAddr::new(ip, from)))
}

/// §2.2; `None` if there is too little.
fn binary(bytes: &[u8]) -> Option<Verdict> {
    let fixed = bytes.get(..16)?;
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let (command, family, transport) = (fixed[12], fixed[13] >> 4, fixed[13] & 15);
    let needs = match (command, family) {
        (0x20, _) => 0,
        (0x21, 0) => 0,
        (0x21, 1) => 12,
        (0x21, 2) => 36,
        (0x21, 3) => 216,
        _ => return Some(Verdict::Refused),
    };
    let is_known = command == 0x20 || transport <= 2;
    if &fixed[..12] != SIGNATURE || !is_known || length < needs || length > 4_096 {
        return Some(Verdict::Refused);
    }
    let said = bytes.get(16..16 + length)?;
    let port = |at: usize| u16::from_be_bytes([said[at], said[at + 1]]);
    let announcement = match (command, family, transport) {
        (0x20, ..) => Announcement::Local,
        (_, 1, 1) => {
            let ip: [u8; 4] = said[..4].try_into().ok()?;
            Announcement::Client(SocketAddr::new(ip.into(), port(8)))
        }
        (_, 2, 1) => {
            let ip: [u8; 16] = said[..16].try_into().ok()?;
            Announcement::Client(SocketAddr::new(ip.into(), port(32)))
        }
        _ => Announcement::Unknown,
    };
    Some(Verdict::Said(announcement, 16 + length))
}
