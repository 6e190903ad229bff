//! The second half of a conversation: two WebSockets where a client and a server were.
//!
//! Sits beside `conn_pair.rs`, which did the handshake.

use crate::plan::Message;
use crate::{End, STEPS_MAX};
use hukilau_core::conn::{Appetite, Event, WsConn};
use hukilau_fuzz::Seed;
use std::time::Instant;

/// Two WebSockets face to face, client first: each says its messages, one closes, both end.
pub(crate) fn play_websocket(
    mut ends: [(WsConn, End); 2],
    messages: &[Vec<Message>; 2],
    server_closes: bool,
    mut seed: Option<&mut Seed>,
    now: Instant,
) {
    let (mut said, mut heard) = ([0, 0], [Vec::new(), Vec::new()]);
    let mut closings = [None, None];
    let closer = usize::from(server_closes);
    let mut steps = 0;
    loop {
        let (at, most) = match &mut seed {
            Some(seed) => (seed.below(2), seed.most()),
            None => (steps % 2, usize::MAX),
        };
        steps += 1;
        assert!(steps < STEPS_MAX, "endless");
        let [client, server] = &mut ends;
        let (this, other) = if at == 0 {
            (client, server)
        } else {
            (server, client)
        };
        let (conn, end) = this;
        // Speak.
        if let Some((kind, content)) = messages[at].get(said[at]) {
            conn.send(*kind, content, &mut end.out)
                .expect("nobody closes yet");
            said[at] += 1;
        } else if at == closer
            && said == [messages[0].len(), messages[1].len()]
            && heard[at].len() == messages[1 - at].len()
            && conn.accepts_messages()
        {
            conn.begin_close(1000, b"all said", now, &mut end.out)
                .expect("open");
        }
        // Listen.
        end.incoming.take(&mut other.1.out, most);
        end.incoming.arrive(most);
        if conn.appetite() == Appetite::Read && !end.incoming.segment.is_empty() {
            let segment = &mut end.incoming.segment;
            let used = conn
                .receive(segment, now, &mut end.log, &mut end.out)
                .expect("our other end keeps the rules");
            for event in end.log.events() {
                match *event {
                    Event::Message { kind, payload } => {
                        heard[at].push((kind, end.payload(payload).to_vec()));
                    }
                    Event::Closing { code, reason } => {
                        closings[at] = Some((code, end.payload(reason).to_vec()));
                    }
                    other => panic!("nobody pings: {other:?}"),
                }
            }
            end.log.clear();
            end.incoming.segment.drain(..used);
            conn.conclude(now, &mut end.out);
        }
        if ends[1].0.appetite() == Appetite::Close && ends[1].1.out.is_empty() {
            let (client, end) = &mut ends[0];
            if end.incoming.on_the_way.is_empty() && client.peer_close().is_some() {
                client.receive_eof(now, &mut end.log);
                assert_eq!(client.appetite(), Appetite::Close);
                break;
            }
        }
    }
    assert_eq!(heard[0], messages[1], "what the server said");
    assert_eq!(heard[1], messages[0], "what the client said");
    let reason = |at: usize| if at == closer { &b""[..] } else { b"all said" };
    for (at, closing) in closings.into_iter().enumerate() {
        assert_eq!(closing, Some((1000, reason(at).to_vec())), "of end {at}");
    }
}
