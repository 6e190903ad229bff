//! WebSocket frames and messages: any cut gives the same messages and the same violation, a naive
//! reading of RFC 6455 over the whole input agrees, headers survive a round trip.
#![no_main]

use hukilau_core::ws::Role;
use hukilau_core::ws::frame::{decode_header, encode_header};
use hukilau_core::ws::message::MessageRules;
use hukilau_fuzz::frames::{decode, model};
use hukilau_fuzz::{pieces, seeded};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((mut seed, bytes)) = seeded(data) else {
        return;
    };
    for role in [Role::Server, Role::Client] {
        let rules = MessageRules {
            role,
            message_bytes_max: 300,
            fragments_max: 6,
        };
        let whole = decode(bytes, &[0..bytes.len()], rules, None);
        let cuts = pieces(bytes.len(), &mut seed);
        assert_eq!(
            decode(bytes, &cuts, rules, None),
            whole,
            "{role:?}: the cut changed the meaning"
        );
        let (said, violation) = whole;
        let (model_said, model_refuses) = model(bytes, rules, None);
        assert_eq!(said, model_said, "{role:?}: the model heard something else");
        // The decoder may refuse earlier than the model, which looks at whole frames only.
        assert!(
            violation.is_some() || !model_refuses,
            "{role:?}: only the model refuses"
        );
        header_round_trip(role, bytes);
    }
});

/// A header that decodes encodes to the bytes it came from.
fn header_round_trip(role: Role, bytes: &[u8]) {
    let Ok(Some(header)) = decode_header(bytes, role) else {
        return;
    };
    let mut out = [0; 14];
    let len = encode_header(
        &mut out,
        header.opcode,
        header.fin,
        header.compressed,
        header.payload_len,
        header.mask,
    );
    assert_eq!(out[..len], bytes[..usize::from(header.header_len)]);
}
