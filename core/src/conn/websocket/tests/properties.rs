//! Properties of the WebSocket driver: what one end sends the other receives, however it is cut.
//!
//! Sits beside the tables in `conn/websocket/tests.rs` and uses their harness. Two ends face each
//! other over a list of byte vectors; random actions, fragments, cuts and damage come from proptest.
//!
//! Not here: rules of single sections, which are tables (`tests.rs`); compression (`deflate.rs`).

use super::*;
use proptest::prelude::*;

/// What an application does to its end.
#[derive(Clone, Debug)]
enum Action {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let size = prop_oneof![0..10_usize, 100..140_usize, 60_000..70_000_usize];
    let action = prop_oneof![
        ".{0,40}".prop_map(Action::Text),
        ("\\PC{0,3}", 0..3000_usize).prop_map(|(text, times)| Action::Text(text.repeat(times))),
        (size, any::<u8>()).prop_map(|(len, byte)| Action::Binary(vec![byte; len])),
        prop::collection::vec(any::<u8>(), 0..=125).prop_map(Action::Ping),
    ];
    prop::collection::vec(action, 0..12)
}

/// Lengths of pieces, used in turn; small ones among them, so that headers are cut too.
fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(
        prop_oneof![1..8_usize, 1..2000_usize, 1..100_000_usize],
        1..20,
    )
}

/// Does `actions` at `end` and returns what the peer is to see of them, and the pongs to come back.
fn perform(end: &mut End, actions: &[Action]) -> (Vec<Seen>, Vec<Seen>) {
    let (mut seen, mut pongs) = (Vec::new(), Vec::new());
    for action in actions {
        let done = match action {
            Action::Text(text) => {
                seen.push(Seen::Text(text.clone().into_bytes()));
                end.conn
                    .send(MessageKind::Text, text.as_bytes(), &mut end.out)
            }
            Action::Binary(bytes) => {
                seen.push(Seen::Binary(bytes.clone()));
                end.conn.send(MessageKind::Binary, bytes, &mut end.out)
            }
            Action::Ping(bytes) => {
                pongs.push(Seen::Pong(bytes.clone()));
                end.conn.ping(bytes, &mut end.out)
            }
        };
        done.expect("open, and valid");
    }
    (seen, pongs)
}

/// Hands `sent` to `to`, in pieces.
fn carry(sent: Vec<u8>, to: &mut End, cuts: &mut impl Iterator<Item = usize>, now: Instant) {
    let mut rest = &sent[..];
    while !rest.is_empty() {
        let cut = cuts.next().unwrap_or(rest.len()).min(rest.len());
        let (piece, behind) = rest.split_at(cut);
        to.receive(piece, now);
        rest = behind;
    }
}

proptest! {
    #[test]
    fn two_ends_deliver_exactly_what_was_sent(
        of_client in actions(),
        of_server in actions(),
        cuts in cuts(),
    ) {
        let now = start();
        let mut cuts = cuts.into_iter().cycle();
        let mut client = End::new(settings(Role::Client), now);
        let mut server = End::new(settings(Role::Server), now);
        let (at_server, back_to_client) = perform(&mut client, &of_client);
        let (at_client, back_to_server) = perform(&mut server, &of_server);
        // Both flush before either reads, so that pongs meet an empty buffer.
        let (sent, answered) = (client.sent(), server.sent());
        carry(sent, &mut server, &mut cuts, now);
        carry(answered, &mut client, &mut cuts, now);
        let (sent, answered) = (client.sent(), server.sent());
        carry(sent, &mut server, &mut cuts, now);
        carry(answered, &mut client, &mut cuts, now);
        prop_assert_eq!((client.verdict, server.verdict), (Ok(()), Ok(())));
        prop_assert_eq!(&server.seen, &[at_server, back_to_server].concat());
        prop_assert_eq!(&client.seen, &[at_client, back_to_client].concat());
        // And they part in peace, whoever begins.
        client.conn.begin_close(4321, "ciao".as_bytes(), now, &mut client.out).expect("open");
        carry(client.sent(), &mut server, &mut cuts, now);
        carry(server.sent(), &mut client, &mut cuts, now);
        prop_assert_eq!(server.seen.last(), Some(&Seen::Closing(4321, b"ciao".to_vec())));
        prop_assert_eq!(client.seen.last(), Some(&Seen::Closing(4321, vec![])));
        prop_assert_eq!(server.conn.appetite(), Appetite::Close);
        client.conn.receive_eof(now, &mut client.log);
        prop_assert_eq!(client.conn.appetite(), Appetite::Close);
        client.assert_at_rest();
        server.assert_at_rest();
    }

    #[test]
    fn any_way_to_fragment_a_message_delivers_it(
        text in ".{0,200}",
        fragments in prop::collection::vec((0..40_usize, any::<bool>()), 0..12),
        cuts in cuts(),
    ) {
        let mut input = Vec::new();
        let mut opcode = Text;
        let mut rest = text.as_bytes();
        let mut pongs = Vec::new();
        for (len, interleaved) in fragments {
            let (fragment, behind) = rest.split_at(len.min(rest.len()));
            input.extend(frame(Role::Server, false, opcode, fragment));
            if interleaved {
                input.extend(frame(Role::Server, true, Pong, fragment));
                pongs.push(Seen::Pong(fragment.to_vec()));
            }
            (opcode, rest) = (Continuation, behind);
        }
        input.extend(frame(Role::Server, true, opcode, rest));
        let mut cuts = cuts.into_iter().cycle();
        let mut left = &input[..];
        let pieces = core::iter::from_fn(|| {
            let (piece, behind) = left.split_at(cuts.next()?.min(left.len()));
            left = behind;
            (!piece.is_empty()).then_some(piece)
        });
        let (seen, verdict, ..) = feed(&settings(Role::Server), pieces);
        prop_assert_eq!(verdict, Ok(()));
        pongs.push(Seen::Text(text.into_bytes()));
        prop_assert_eq!(seen, pongs);
    }

    #[test]
    fn the_verdict_on_any_bytes_does_not_depend_on_the_cuts(
        mut frames in prop::collection::vec(
            (any::<bool>(), 0..6_usize, prop::collection::vec(any::<u8>(), 0..20)),
            1..6,
        ),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        role in prop_oneof![Just(Role::Server), Just(Role::Client)],
    ) {
        let opcodes = [Continuation, Text, Binary, Close, Ping, Pong];
        let mut input: Vec<u8> = frames
            .drain(..)
            .flat_map(|(fin, opcode, payload)| frame(role, fin, opcodes[opcode], &payload))
            .collect();
        for (index, byte) in flips {
            let at = index.index(input.len());
            input[at] = byte;
        }
        // Small limits, so that they are met too. `outcome` asserts what the name says.
        let settings = WsSettings { message_bytes_max: 30, fragments_max: 2, ..settings(role) };
        let (_, verdict, sent, appetite) = outcome(&settings, &input);
        prop_assert!(verdict.is_ok() || appetite == Appetite::Close);
        prop_assert!(verdict.is_ok() || !sent.is_empty());
    }
}
