//! Compressed messages through the driver. RFC 7692.
//!
//! Sits beside the other tests of `conn/websocket.rs` and uses their harness. The two ends agree on
//! parameters as real ones would, by offer and answer. Inputs are fed whole and at every cut, as the
//! verdict on damaged data must not depend on how much of it the codec saw at once.
//!
//! Not here: which parameters are agreed (`ws/deflate/tests.rs`).

use super::*;
use crate::ws::deflate::{DeflateOffer, DeflateParams, DeflateSettings};
use crate::ws::extension::extensions;
use crate::ws::mask::MaskKeys;
use proptest::prelude::*;

/// What two ends with these settings agree on, as `role` sees it.
pub(super) fn agreed(role: Role, deflate: &DeflateSettings) -> DeflateParams {
    let offer = deflate.offer();
    let offered = DeflateOffer::first(extensions(offer.as_bytes()).flatten());
    let at_server = offered.expect("ours can be served").answer(deflate);
    let answer = at_server.answer_value();
    match role {
        Role::Server => at_server,
        Role::Client => deflate
            .check_answer(extensions(answer.as_bytes()).flatten())
            .expect("it fits")
            .expect("accepted"),
    }
}

fn with(role: Role, takeover: bool, window_bits: u8) -> WsSettings {
    WsSettings {
        deflate: Some(DeflateSettings {
            compress_bytes_min: 1,
            own_context_takeover: takeover,
            peer_context_takeover: takeover,
            own_window_bits: window_bits,
            peer_window_bits: window_bits,
            ..DeflateSettings::default()
        }),
        ..settings(role)
    }
}

/// A frame from a client with RSV1.
fn compressed(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(Role::Server, fin, opcode, payload);
    bytes[0] |= 0x40;
    bytes
}

/// What deflate makes of `message` on its own, tail cut off.
fn deflated(message: &[u8]) -> Vec<u8> {
    let now = start();
    let mut end = End::new(with(Role::Server, true, 15), now);
    end.conn
        .send(MessageKind::Binary, message, &mut end.out)
        .expect("open");
    let sent = end.sent();
    assert_eq!(sent[0], 0xc2, "compressed");
    let header_len = match sent[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    sent[header_len..].to_vec()
}

#[test]
fn rfc7692_7_2_3_examples() {
    let hello = Seen::Text(b"Hello".to_vec());
    let table: &[&[u8]] = &[
        // One block; a stored block; BFINAL set; two blocks.
        b"\xf2\x48\xcd\xc9\xc9\x07\x00",
        b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",
        b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
        b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
    ];
    for takeover in [false, true] {
        let settings = with(Role::Server, takeover, 15);
        for payload in table {
            let (seen, verdict, ..) = outcome(&settings, &compressed(true, Text, payload));
            assert_eq!((&seen[..], verdict), (&[hello.clone()][..], Ok(())));
        }
        let fragments = [
            compressed(false, Text, b"\xf2\x48\xcd"),
            frame(Role::Server, true, Ping, b"between"),
            frame(Role::Server, true, Continuation, b"\xc9\xc9\x07\x00"),
            compressed(true, Text, b"\x00"),
            frame(Role::Server, true, Text, b"plain"),
        ]
        .concat();
        let (seen, verdict, sent, _) = outcome(&settings, &fragments);
        let want = [
            hello.clone(),
            Seen::Text(vec![]),
            Seen::Text(b"plain".to_vec()),
        ];
        assert_eq!((&seen[..], verdict), (&want[..], Ok(())));
        assert_eq!(sent, frame(Role::Client, true, Pong, b"between"));
    }
}

#[test]
fn rfc7692_7_2_3_2_the_window_is_shared_only_where_that_was_agreed() {
    let input = [
        compressed(true, Text, b"\xf2\x48\xcd\xc9\xc9\x07\x00"),
        compressed(true, Text, b"\xf2\x00\x11\x00\x00"),
    ]
    .concat();
    let hello = Seen::Text(b"Hello".to_vec());
    let (seen, verdict, ..) = outcome(&with(Role::Server, true, 15), &input);
    assert_eq!(
        (seen, verdict),
        (vec![hello.clone(), hello.clone()], Ok(()))
    );
    let refused = Violation::Inflate;
    refuses(&with(Role::Server, false, 15), &input, &[hello], refused);
}

#[test]
fn rfc7692_6_rsv1_belongs_to_the_first_frame_of_a_data_message() {
    let settings = with(Role::Server, false, 15);
    for opcode in [Ping, Pong, Close] {
        let input = compressed(true, opcode, b"");
        refuses(&settings, &input, &[], Violation::ReservedBit);
    }
    let input = [
        compressed(false, Text, b"\xf2\x48\xcd"),
        compressed(true, Continuation, b"\xc9\xc9\x07\x00"),
    ]
    .concat();
    refuses(&settings, &input, &[], Violation::ReservedBit);
}

#[test]
fn rfc7692_7_2_2_corrupt_and_broken_off_data_is_refused() {
    for takeover in [false, true] {
        let settings = with(Role::Server, takeover, 15);
        let refuses_payload = |payload: &[u8]| {
            let input = compressed(true, Binary, payload);
            refuses(&settings, &input, &[], Violation::Inflate);
        };
        // A reserved block type; a distance beyond the window; a stored length that is not its
        // complement; a stored block and a compressed one that break off.
        refuses_payload(b"\x07\x00");
        refuses_payload(b"\xf2\x00\x11\x00\x00");
        refuses_payload(b"\x00\x05\x00\xfa\xfe\x48\x65\x6c\x6c\x6f\x00");
        refuses_payload(b"\x00\x05\x00\xfa\xff\x48");
        refuses_payload(b"\xf2\x48\xcd\xc9");
    }
}

#[test]
fn rfc7692_8_a_small_message_that_inflates_without_end_is_refused_within_bounds() {
    for takeover in [false, true] {
        let bomb = deflated(&vec![0; 4 << 20]);
        assert!(bomb.len() < 8192);
        let settings = WsSettings {
            message_bytes_max: 100_000,
            ..with(Role::Server, takeover, 15)
        };
        let now = start();
        let mut end = End::new(settings.clone(), now);
        for piece in compressed(true, Binary, &bomb).chunks(64) {
            end.receive(piece, now);
            assert!(end.conn.decoder.assembled_capacity() <= 400_000);
        }
        assert_eq!(end.verdict, Err(Violation::MessageTooLarge));
        // Just within, and one byte over.
        let input = compressed(true, Binary, &deflated(&[7; 100_000]));
        let (seen, verdict, ..) = outcome(&settings, &input);
        assert_eq!(
            (seen, verdict),
            (vec![Seen::Binary(vec![7; 100_000])], Ok(()))
        );
        let input = compressed(true, Binary, &deflated(&[7; 100_001]));
        refuses(&settings, &input, &[], Violation::MessageTooLarge);
    }
}

#[test]
fn rfc6455_8_1_compressed_text_is_checked_as_it_inflates() {
    let settings = with(Role::Server, false, 15);
    let bad = deflated(b"\xce\xba\xf4\x90 and much more that never needs to arrive");
    let whole = compressed(true, Text, &bad);
    refuses(&settings, &whole, &[], Violation::TextNotUtf8);
    refuses(
        &settings,
        &whole[..whole.len() - 20],
        &[],
        Violation::TextNotUtf8,
    );
    let cut = compressed(
        true,
        Text,
        &deflated(
            "broken off \u{20ac}"
                .as_bytes()
                .split_last()
                .expect("some")
                .1,
        ),
    );
    refuses(&settings, &cut, &[], Violation::TextNotUtf8);
}

#[test]
fn short_messages_and_those_that_do_not_shrink_are_sent_as_they_are() {
    let now = start();
    let mut settings = with(Role::Server, false, 15);
    if let Some(deflate) = &mut settings.deflate {
        deflate.compress_bytes_min = 100;
    }
    let mut end = End::new(settings, now);
    let mut first_byte = |payload: &[u8]| {
        end.conn
            .send(MessageKind::Binary, payload, &mut end.out)
            .expect("open");
        end.sent()[0]
    };
    assert_eq!(first_byte(&[b'a'; 99]), 0x82);
    assert_eq!(first_byte(&[b'a'; 100]), 0xc2);
    let mut keys = MaskKeys::new(1);
    let noise: Vec<u8> = (0..500).flat_map(|_| keys.next_key()).collect();
    assert_eq!(first_byte(&noise), 0x82);
}

#[test]
fn a_connection_at_rest_holds_no_codec_unless_its_context_is_taken_over() {
    let now = start();
    let settings = with(Role::Server, false, 15);
    let codecs = settings
        .deflate
        .as_ref()
        .map(|deflate| deflate.codecs.clone());
    let codecs = codecs.expect("set above");
    let input = compressed(true, Text, b"\xf2\x48\xcd\xc9\xc9\x07\x00");
    let mut ends: Vec<End> = (0..50).map(|_| End::new(settings.clone(), now)).collect();
    for end in &mut ends {
        end.receive(&input, now);
        end.conn
            .send(
                MessageKind::Text,
                b"compressed in turn, in turn, in turn",
                &mut end.out,
            )
            .expect("open");
    }
    assert_eq!(
        format!("{codecs:?}"),
        "CodecPool { compressors: 1, inflaters: 1 }",
        "fifty connections share one of each"
    );
}

proptest! {
    #[test]
    fn compressed_messages_arrive_as_they_were_sent(
        messages in prop::collection::vec(
            prop_oneof![
                ("[a-c ]{0,20}", 0..3000_usize).prop_map(|(text, times)| text.repeat(times).into_bytes()),
                prop::collection::vec(any::<u8>(), 0..3000),
            ],
            1..8,
        ),
        takeover in any::<bool>(),
        window_bits in 9..=15_u8,
        level in 1..=9_u8,
        cuts in prop::collection::vec(1..5000_usize, 1..20),
    ) {
        let now = start();
        let settings = |role| {
            let mut settings = with(role, takeover, window_bits);
            if let Some(deflate) = &mut settings.deflate {
                deflate.level = level;
            }
            settings
        };
        let mut client = End::new(settings(Role::Client), now);
        let mut server = End::new(settings(Role::Server), now);
        for (from, to) in [(0, 1), (1, 0)] {
            let mut ends = [&mut client, &mut server];
            for message in &messages {
                let end = &mut ends[from];
                end.conn.send(MessageKind::Binary, message, &mut end.out).expect("open");
            }
            let sent = ends[from].sent();
            let mut rest = &sent[..];
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let cut = cuts.next().map_or(rest.len(), |cut| rest.len().min(*cut));
                ends[to].receive(&rest[..cut], now);
                rest = &rest[cut..];
            }
            prop_assert_eq!(ends[to].verdict, Ok(()));
            let want: Vec<Seen> = messages.iter().cloned().map(Seen::Binary).collect();
            prop_assert!(ends[to].seen == want);
        }
        client.assert_at_rest();
        server.assert_at_rest();
    }

    #[test]
    fn the_verdict_on_damaged_data_does_not_depend_on_the_cuts(
        text in "[ab€]{0,60}",
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..3),
        takeover in any::<bool>(),
    ) {
        let mut payload = deflated(format!("x{text}").as_bytes());
        for (index, byte) in flips {
            let at = index.index(payload.len());
            payload[at] = byte;
        }
        let settings = WsSettings { message_bytes_max: 100, ..with(Role::Server, takeover, 15) };
        let (seen, verdict, ..) = outcome(&settings, &compressed(true, Text, &payload));
        prop_assert_eq!(seen.len(), usize::from(verdict.is_ok()));
    }
}
