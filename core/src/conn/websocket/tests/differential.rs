//! Our framer beside tungstenite's: the same bytes, the same messages, the same refusals.
//!
//! Sits beside the other tests of `conn/websocket.rs` and uses their harness. Which rule is named in
//! a refusal is not compared, as a frame may break several; what was delivered before it is.
//!
//! Allowed differences from tungstenite 0.30, all but the last stricter:
//! - a length that is not minimal (RFC 6455 §5.2): refused, tungstenite reads on;
//! - a close code that may not be sent (§7.4): refused, tungstenite reports it as 1002;
//! - input that breaks off: we refuse at the first byte that is wrong (§8.1), tungstenite waits for
//!   the end of the frame;
//! - close code 1014, which IANA has registered since: accepted, tungstenite reports it as 1002.
//!
//! Not here: limits, where both sides choose freely; timeouts, of which tungstenite has none.

use super::*;
use proptest::prelude::*;
use std::io::{self, Read, Write};
use tungstenite::protocol::{Message, Role as TheirRole, WebSocket};
use tungstenite::{Error, error::ProtocolError};

/// A peer that has sent all it will, and takes whatever it is sent.
struct Sent<'a>(&'a [u8]);

impl Read for Sent<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Sent<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How an input ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With a close frame.
    Whole,
    /// Without one: inside a frame or between two, tungstenite does not tell.
    BrokenOff,
    Refused,
}

/// What tungstenite makes of `input`.
fn theirs(role: Role, input: &[u8]) -> (Vec<Seen>, End) {
    let role = match role {
        Role::Server => TheirRole::Server,
        Role::Client => TheirRole::Client,
    };
    let mut socket = WebSocket::from_raw_socket(Sent(input), role, None);
    let mut seen = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => seen.push(Seen::Text(text.as_bytes().to_vec())),
            Ok(Message::Binary(bytes)) => seen.push(Seen::Binary(bytes.to_vec())),
            Ok(Message::Pong(bytes)) => seen.push(Seen::Pong(bytes.to_vec())),
            Ok(Message::Ping(_) | Message::Frame(_)) => {}
            // What follows a close frame means nothing to us.
            Ok(Message::Close(close)) => {
                seen.push(match close {
                    None => Seen::Closing(close_code::NO_STATUS, vec![]),
                    Some(close) => {
                        Seen::Closing(close.code.into(), close.reason.as_bytes().to_vec())
                    }
                });
                return (seen, End::Whole);
            }
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                return (seen, End::BrokenOff);
            }
            Err(_) => return (seen, End::Refused),
        }
    }
}

/// Our verdict beside theirs, with the differences of the module's header.
#[track_caller]
fn compare(role: Role, input: &[u8]) {
    let (mut ours, verdict, ..) = feed(&settings(role), [input].into_iter());
    let (mut theirs, their_end) = theirs(role, input);
    let context = format!("{role:?} {input:02x?}: {verdict:?}, {their_end:?}");
    match verdict {
        Ok(()) => {
            assert_ne!(their_end, End::Refused, "{context}");
            if let Some(Seen::Closing(1014, _)) = ours.last() {
                ours.pop();
                theirs.pop();
            }
        }
        Err(Violation::FrameLengthNotMinimal) => theirs.truncate(ours.len()),
        Err(Violation::CloseCode) => {
            // They refuse too if the reason is not UTF-8.
            if theirs.len() > ours.len()
                && let Some(reported) = theirs.pop()
            {
                assert!(matches!(reported, Seen::Closing(1002, _)), "{context}");
            }
        }
        Err(_) => assert_ne!(their_end, End::Whole, "{context}"),
    }
    assert_eq!(ours, theirs, "{context}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn our_framer_and_tungstenites_agree(
        frames in prop::collection::vec(
            (
                any::<bool>(),
                0..12_usize,
                prop_oneof![
                    "[a-zé€🦀]{0,12}".prop_map(String::into_bytes),
                    prop::collection::vec(any::<u8>(), 0..12),
                    (1000..1020_u16).prop_map(|code| code.to_be_bytes().to_vec()),
                    (120..130_usize).prop_map(|len| vec![b'x'; len]),
                ],
            ),
            1..8,
        ),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2),
        role in prop_oneof![Just(Role::Server), Just(Role::Client)],
    ) {
        // Whole texts and binaries most of all, so that some inputs get far.
        let opcodes = [
            Text, Text, Text, Text, Binary, Binary, Continuation, Continuation, Ping, Pong, Pong, Close,
        ];
        let mut input: Vec<u8> = frames
            .iter()
            .flat_map(|(fin, opcode, payload)| {
                let opcode = opcodes[*opcode];
                let len = if opcode.is_control() { payload.len().min(125) } else { payload.len() };
                frame(role, *fin || opcode.is_control(), opcode, &payload[..len])
            })
            .collect();
        for (index, byte) in flips {
            let at = index.index(input.len());
            input[at] = byte;
        }
        compare(role, &input);
    }
}

#[test]
fn the_allowed_differences_are_real() {
    let long = [0x82, 126, 0, 1, b'x'];
    compare(Role::Client, &long);
    assert_eq!(theirs(Role::Client, &long).0, [Seen::Binary(b"x".to_vec())]);
    let close = frame(Role::Client, true, Close, &1005_u16.to_be_bytes());
    compare(Role::Client, &close);
    assert_eq!(theirs(Role::Client, &close).0.len(), 1);
    let text = frame(Role::Client, true, Text, b"\xffrest");
    compare(Role::Client, &text[..4]);
    assert_eq!(theirs(Role::Client, &text[..4]).1, End::BrokenOff);
}
