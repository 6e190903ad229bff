//! Messages with permessage-deflate (RFC 7692). Of the two bytes in front, the first chooses the
//! cuts and the second what was agreed, and whether
//! - the rest are messages, which one end compresses, masks and sends in fragments, and the other
//!   must get back as they were, whatever the fragments and cuts; or one byte below their length
//!   allowed, must refuse having stored no more than its bound; or
//! - the rest are frames of a peer that may do anything: any cut gives the same messages and the
//!   same violation, and another inflater agrees.
#![no_main]

use hukilau_core::buffer::BufferPool;
use hukilau_core::violation::Violation;
use hukilau_core::ws::deflate::{Deflate, DeflateOffer, DeflateParams, DeflateSettings};
use hukilau_core::ws::extension::extensions;
use hukilau_core::ws::frame::encode_header;
use hukilau_core::ws::mask::apply_mask;
use hukilau_core::ws::message::MessageRules;
use hukilau_core::ws::{MessageKind, Opcode, Role};
use hukilau_fuzz::frames::{Inflater, Said, decode, model};
use hukilau_fuzz::{Seed, pieces, seeded};
use libfuzzer_sys::fuzz_target;
use std::ops::Range;

const MESSAGE_BYTES_MAX: u32 = 20_000;

/// Up to this much input is cut in two at every offset.
const EVERY_CUT_BYTES_MAX: usize = 48;

fuzz_target!(|data: &[u8]| {
    let Some((mut seed, [agreed, bytes @ ..])) = seeded(data) else {
        return;
    };
    let ends = Ends::new(*agreed, &mut seed);
    if agreed & 1 == 0 {
        round_trip(&ends, bytes, &mut seed);
    } else {
        any_peer(&ends, bytes, &mut seed);
    }
});

/// What two ends have agreed on, each from its side.
struct Ends {
    sender: Role,
    client: (DeflateSettings, DeflateParams),
    server: (DeflateSettings, DeflateParams),
}

impl Ends {
    fn new(agreed: u8, seed: &mut Seed) -> Self {
        let bit = |number: u32| agreed >> number & 1 == 1;
        let mut settings = |own, peer| DeflateSettings {
            compress_bytes_min: 1,
            level: 1 + (seed.below(9) as u8),
            own_context_takeover: own,
            peer_context_takeover: peer,
            own_window_bits: if bit(5) { 9 + seed.below(7) as u8 } else { 15 },
            peer_window_bits: if bit(6) { 9 + seed.below(7) as u8 } else { 15 },
            ..DeflateSettings::default()
        };
        let (client, server) = (settings(bit(1), bit(2)), settings(bit(3), bit(4)));
        let offered = client.offer();
        let offer = DeflateOffer::first(extensions(offered.as_bytes()).flatten());
        let at_server = offer.expect("our own offer").answer(&server);
        let answered = at_server.answer_value();
        let at_client = client
            .check_answer(extensions(answered.as_bytes()).flatten())
            .expect("our own answer")
            .expect("an answer");
        assert_eq!(at_client.own, at_server.peer, "{offered} / {answered}");
        assert_eq!(at_client.peer, at_server.own, "{offered} / {answered}");
        Self {
            sender: if bit(7) { Role::Server } else { Role::Client },
            client: (client, at_client),
            server: (server, at_server),
        }
    }

    fn of(&self, role: Role) -> &(DeflateSettings, DeflateParams) {
        match role {
            Role::Client => &self.client,
            Role::Server => &self.server,
        }
    }

    fn receiver(&self) -> Role {
        match self.sender {
            Role::Client => Role::Server,
            Role::Server => Role::Client,
        }
    }

    fn codec(&self, role: Role) -> Deflate {
        let (settings, params) = self.of(role);
        Deflate::new(settings, *params)
    }

    fn rules(&self, message_bytes_max: u32) -> MessageRules {
        MessageRules {
            role: self.receiver(),
            message_bytes_max,
            fragments_max: 64,
        }
    }
}

/// Each message is a byte that says what it is, then its bytes, repeated or not.
fn messages(mut bytes: &[u8]) -> Vec<(MessageKind, Vec<u8>)> {
    let mut messages = Vec::new();
    while let [what, rest @ ..] = bytes {
        let len = rest.len().min(usize::from(what & 0x3f));
        let (content, behind) = rest.split_at(len);
        bytes = behind;
        let content = content.repeat(if what & 0x40 == 0 { 1 } else { 137 });
        messages.push(match what >> 7 {
            0 => (MessageKind::Binary, content),
            _ => {
                let text = String::from_utf8_lossy(&content).into_owned();
                (MessageKind::Text, text.into_bytes())
            }
        });
    }
    messages
}

/// One end sends, the other must hear the same.
fn round_trip(ends: &Ends, bytes: &[u8], seed: &mut Seed) {
    let messages: Vec<_> = messages(bytes)
        .into_iter()
        .filter(|(_, message)| message.len() <= MESSAGE_BYTES_MAX as usize)
        .collect();
    let (pool, mut codec) = (BufferPool::default(), ends.codec(ends.sender));
    let own = ends.of(ends.sender).1.own;
    let (mut wire, mut sent) = (Vec::new(), Vec::new());
    for (kind, message) in &messages {
        let compressed = codec.compress(message, &pool);
        if let Some(compressed) = &compressed {
            assert!(own.context_takeover || compressed.len() < message.len());
        }
        let payload = compressed.as_deref().unwrap_or(message);
        let is_compressed = compressed.is_some();
        write_fragments(
            ends.sender,
            *kind,
            is_compressed,
            payload,
            seed,
            &mut wire,
            &mut sent,
        );
        sent.push(Said::Message(*kind, message.clone()));
    }
    drop(codec);
    assert_eq!(pool.taken(), 0, "no buffer stays behind");

    let rules = ends.rules(MESSAGE_BYTES_MAX);
    let hear = |cuts: &[Range<usize>]| decode(&wire, cuts, rules, Some(ends.codec(rules.role)));
    assert_eq!(hear(&[0..wire.len()]), (sent.clone(), None));
    assert_eq!(hear(&pieces(wire.len(), seed)), (sent.clone(), None));
    if wire.len() <= EVERY_CUT_BYTES_MAX {
        for cut in 1..wire.len() {
            assert_eq!(
                hear(&[0..cut, cut..wire.len()]),
                (sent.clone(), None),
                "cut at {cut}"
            );
        }
    }
    let longest = messages.iter().map(|(_, message)| message.len()).max();
    let Some(longest) = longest.filter(|len| *len > 0) else {
        return;
    };
    let tight = ends.rules(longest as u32 - 1);
    let cuts = pieces(wire.len(), seed);
    let (heard, verdict) = decode(&wire, &cuts, tight, Some(ends.codec(tight.role)));
    assert_eq!(verdict, Some(Violation::MessageTooLarge), "the cap holds");
    assert!(sent.starts_with(&heard));
}

/// Sends one message in fragments, with control frames between them.
fn write_fragments(
    sender: Role,
    kind: MessageKind,
    compressed: bool,
    payload: &[u8],
    seed: &mut Seed,
    wire: &mut Vec<u8>,
    sent: &mut Vec<Said>,
) {
    let mut frame = |opcode, fin, rsv1, payload: &[u8], key: [u8; 4]| {
        let mask = (sender == Role::Client).then_some(key);
        let mut header = [0; 14];
        let len = encode_header(&mut header, opcode, fin, rsv1, payload.len() as u64, mask);
        wire.extend_from_slice(&header[..len]);
        let start = wire.len();
        wire.extend_from_slice(payload);
        if let Some(key) = mask {
            apply_mask(&mut wire[start..], key, 0);
        }
    };
    let fragments = 1 + seed.below(4);
    let mut rest = payload;
    for number in 0..fragments {
        let is_last = number + 1 == fragments;
        let len = if is_last {
            rest.len()
        } else {
            seed.below(rest.len() + 1)
        };
        let (piece, behind) = rest.split_at(len);
        rest = behind;
        let opcode = if number == 0 {
            kind.into()
        } else {
            Opcode::Continuation
        };
        let key = (seed.next() as u32).to_be_bytes();
        frame(opcode, is_last, compressed && number == 0, piece, key);
        if !is_last && seed.below(3) == 0 {
            let ping = vec![b'p'; seed.below(126)];
            frame(Opcode::Ping, true, false, &ping, key);
            sent.push(Said::Control(Opcode::Ping, ping));
        }
    }
}

/// The peer sends what it likes.
fn any_peer(ends: &Ends, bytes: &[u8], seed: &mut Seed) {
    let rules = ends.rules(MESSAGE_BYTES_MAX);
    let hear = |cuts: &[Range<usize>]| decode(bytes, cuts, rules, Some(ends.codec(rules.role)));
    let whole = hear(&[0..bytes.len()]);
    let cut = hear(&pieces(bytes.len(), seed));
    assert_eq!(cut, whole, "the cut changed the meaning");
    if bytes.len() <= EVERY_CUT_BYTES_MAX {
        for cut in 1..bytes.len() {
            assert_eq!(hear(&[0..cut, cut..bytes.len()]), whole, "cut at {cut}");
        }
    }

    let peer = ends.of(rules.role).1.peer;
    let (said, violation) = whole;
    let (model_said, model_refuses) =
        model(bytes, rules, Some(Inflater::new(peer.context_takeover)));
    let common = said.len().min(model_said.len());
    assert_eq!(
        said[..common],
        model_said[..common],
        "another inflater disagrees"
    );
    // Where a context is taken over, a block that breaks off with its message is found by one
    // inflater in this message and by another in the next; and a window smaller than the largest
    // refuses what reaches back further. The budget of fragments is ours alone. And the other
    // inflater waits for the end of a message, which may never come, so it may hear control frames,
    // but no message, behind the beginning of one that is corrupt.
    let hears_control_only = model_said[common..]
        .iter()
        .all(|said| matches!(said, Said::Control(..)));
    let is_earlier = violation == Some(Violation::Inflate) && hears_control_only;
    let may_differ =
        peer.context_takeover || is_earlier || violation == Some(Violation::TooManyFragments);
    if !may_differ {
        assert_eq!(
            said.len(),
            model_said.len(),
            "{violation:?}, {model_refuses}"
        );
        assert!(
            violation.is_some() || !model_refuses,
            "only the model refuses"
        );
    } else if violation.is_none() && !model_refuses {
        assert_eq!(said.len(), model_said.len());
    }
}
