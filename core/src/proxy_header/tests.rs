//! Tables of headers, each fed in one piece, byte by byte and at every split.

use super::{
    AddressBlock, Announcement, LENGTH_MAX, Malformed, ProxyHeader, ProxyHeaders, SIGNATURE,
};

/// Feeds `bytes` as a reader would, never more than is wanted nor over the end of a piece: what
/// came of it, and how much was taken.
fn feed(pieces: &[&[u8]]) -> (Result<Option<Announcement>, Malformed>, usize) {
    let (mut header, mut taken) = (ProxyHeader::default(), 0);
    for piece in pieces {
        let mut piece = *piece;
        while !piece.is_empty() {
            let wants = header.wants();
            assert!(wants > 0, "an incomplete header wants more");
            let (now, later) = piece.split_at(wants.min(piece.len()));
            taken += now.len();
            piece = later;
            match header.feed(now) {
                Ok(None) => {}
                outcome => return (outcome, taken),
            }
        }
    }
    (Ok(None), taken)
}

/// The same for every split; `bytes` has something behind the header.
fn at_every_split(bytes: &[u8]) -> (Result<Option<Announcement>, Malformed>, usize) {
    let whole = feed(&[bytes]);
    for at in 1..bytes.len() {
        let (split, taken) = feed(&[&bytes[..at], &bytes[at..]]);
        assert_eq!(split, whole.0, "split at {at}");
        assert!(split.is_err() || taken == whole.1, "split at {at}");
    }
    let bytewise: Vec<_> = bytes.chunks(1).collect();
    assert_eq!(feed(&bytewise).0, whole.0, "byte by byte");
    whole
}

fn client(address: &str) -> Announcement {
    Announcement::Client(address.parse().unwrap())
}

fn binary(command: u8, family: u8, said: &[u8]) -> Vec<u8> {
    let length = u16::try_from(said.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family][..], &length, said].concat()
}

const V4: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 1, 0xc3, 0xcb, 1, 187];

fn v6() -> Vec<u8> {
    let mut said = vec![0x20, 1, 0x0d, 0xb8];
    said.resize(15, 0);
    said.extend([7]);
    said.resize(32, 0);
    said.extend([0xff, 0xff, 0, 80]);
    said
}

#[test]
fn a_line_of_version_1_names_the_client_and_takes_no_byte_behind_it() {
    let longest = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
        ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535";
    let unknown = format!("PROXY UNKNOWN {}", "x".repeat(91));
    assert_eq!(unknown.len(), 105);
    for (line, said) in [
        (
            "PROXY TCP4 192.0.2.7 198.51.100.1 50123 443",
            client("192.0.2.7:50123"),
        ),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 1 1", client("1.1.1.1:1")),
        (
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535",
            client("255.255.255.255:65535"),
        ),
        ("PROXY TCP6 :: :: 0 0", client("[::]:0")),
        (
            "PROXY TCP6 2001:db8::7 ::1 9 443",
            client("[2001:db8::7]:9"),
        ),
        (
            longest,
            client("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
        ),
        ("PROXY UNKNOWN", Announcement::Unknown),
        ("PROXY UNKNOWN ", Announcement::Unknown),
        ("PROXY UNKNOWN f", Announcement::Unknown),
        (&unknown, Announcement::Unknown),
    ] {
        let header = format!("{line}\r\n");
        let followed = format!("{header}\r\nGET / HTTP/1.1\r\n\r\n");
        let (outcome, taken) = at_every_split(followed.as_bytes());
        assert_eq!(outcome, Ok(Some(said)), "{line}");
        assert_eq!(taken, header.len(), "{line}");
    }
    let no_text = b"PROXY UNKNOWN \xff\0\xc3(\r\n";
    let unknown = Ok(Some(Announcement::Unknown));
    assert_eq!(at_every_split(no_text), (unknown, no_text.len()));
}

#[test]
fn a_header_of_version_2_names_the_client_and_its_tlvs_are_passed_over() {
    let with_tlvs = |said: &[u8], len: usize| [said, &vec![4; len]].concat();
    let local = [0xee; 300];
    for (header, said) in [
        (binary(0x21, 0x11, V4), client("192.0.2.7:50123")),
        (
            binary(0x21, 0x11, &with_tlvs(V4, 1)),
            client("192.0.2.7:50123"),
        ),
        (
            binary(0x21, 0x11, &with_tlvs(V4, 24)),
            client("192.0.2.7:50123"),
        ),
        (
            binary(0x21, 0x11, &with_tlvs(V4, LENGTH_MAX - 12)),
            client("192.0.2.7:50123"),
        ),
        (binary(0x21, 0x21, &v6()), client("[2001:db8::7]:65535")),
        (
            binary(0x21, 0x21, &with_tlvs(&v6(), 5)),
            client("[2001:db8::7]:65535"),
        ),
        (binary(0x21, 0x31, &[b'/'; 216]), Announcement::Unknown),
        (binary(0x21, 0x12, V4), Announcement::Unknown),
        (binary(0x21, 0x00, &[]), Announcement::Unknown),
        (binary(0x21, 0x00, b"rest"), Announcement::Unknown),
        (binary(0x20, 0x00, &[]), Announcement::Local),
        (binary(0x20, 0x11, V4), Announcement::Local),
        (binary(0x20, 0xff, &local), Announcement::Local),
    ] {
        let followed = [&header[..], b"\x16\x03\x01 and so on"].concat();
        let (outcome, taken) = at_every_split(&followed);
        assert_eq!(outcome, Ok(Some(said)), "{header:?}");
        assert_eq!(taken, header.len());
    }
}

#[test]
fn what_is_no_header_is_refused_wherever_it_is_cut() {
    let endless = [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat();
    let just_too_long = [b"PROXY UNKNOWN ", &[b'x'; 92][..], b"\r\n"].concat();
    let wrong_signature = [&SIGNATURE[..11], b"\r and more of it"].concat();
    let too_long = [SIGNATURE, &[0x21, 0x11, 0x10, 0x01][..]].concat();
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello",
        b"\r\n\r\nGET / HTTP/1.1\r\n",
        b"proxy TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
        b"PROXY TCP5 1.1.1.1 1.1.1.1 1 1\r\n",
        b"PROXY\tTCP4 1.1.1.1 1.1.1.1 1 1\r\n",
        b"PROXY TCP4  1.1.1.1 1.1.1.1 1 1\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n and more of it",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\rx and more of it",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n",
        b"PROXY TCP4 1.1.1.256 1.1.1.1 1 1\r\n",
        b"PROXY TCP4 01.1.1.1 1.1.1.1 1 1\r\n",
        b"PROXY TCP4 ::1 ::1 1 1\r\n and more of it, for this is short",
        b"PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1\r\n",
        b"PROXY TCP4\r\n and more of it, for this is short",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY UNKNOWN\r\r\n",
        &endless,
        &just_too_long,
        &wrong_signature,
        &too_long,
        &binary(0x11, 0x11, V4),
        &binary(0x22, 0x11, V4),
        &binary(0x21, 0x41, V4),
        &binary(0x21, 0x13, V4),
        &binary(0x21, 0x11, &V4[..11]),
        &binary(0x21, 0x21, V4),
        &binary(0x21, 0x31, &[b'/'; 215]),
    ] {
        let shown = String::from_utf8_lossy(bytes);
        let (outcome, taken) = at_every_split(bytes);
        assert_eq!(outcome, Err(Malformed), "{shown}");
        assert!(taken <= 107, "{shown}");
    }
}

#[test]
fn an_unfinished_header_says_nothing_yet() {
    let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 50123 443\r\n";
    let packed = binary(0x21, 0x11, &[V4, &[0; 100]].concat());
    for whole in [&line[..], &packed] {
        for at in 0..whole.len() {
            assert_eq!(feed(&[&whole[..at]]), (Ok(None), at));
        }
    }
}

#[test]
fn a_block_holds_the_addresses_that_share_its_bits() {
    for (block, inside, outside) in [
        ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
        ("192.168.1.7", "::ffff:192.168.1.7", "192.168.1.6"),
        ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
        ("0.0.0.0/0", "255.1.2.3", "::2"),
        ("::/0", "::2", "1.2.3.4"),
    ] {
        let block = AddressBlock::parse(block).unwrap();
        let holds = |ip: &str| block.contains(ip.parse().unwrap());
        assert!(holds(inside), "{block:?} {inside}");
        assert!(!holds(outside), "{block:?} {outside}");
        let headers = ProxyHeaders::From(vec![block]);
        assert!(headers.expects(inside.parse().ok()) && headers.expects(None));
        assert!(!headers.expects(outside.parse().ok()));
    }
    for wrong in ["", "10.0.0.0/33", "::/129", "10/8", "1.2.3.4/x", "1.2.3.4/"] {
        assert_eq!(AddressBlock::parse(wrong), None, "{wrong}");
    }
}
