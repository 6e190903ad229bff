//! The WebSocket driver by RFC section, and two of them face to face.
//!
//! Every wire table is fed whole, byte by byte, and cut in two at every offset: events, answers and
//! verdict must be the same each time.

use super::{WsConn, WsSettings};
use crate::buffer::{BufferPool, SendBuffer};
use crate::conn::{Appetite, Deadline, Event, EventLog, Misuse};
use crate::limits::Limits;
use crate::violation::Violation;
use crate::ws::frame::encode_header;
use crate::ws::mask::apply_mask;
use crate::ws::{MessageKind, Opcode, Role, close_code};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// An event with its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Pong(Vec<u8>),
    Closing(u16, Vec<u8>),
}

/// One end with what surrounds it in a reactor: spill, log, send buffer, pool.
struct End {
    conn: WsConn,
    pool: BufferPool,
    out: SendBuffer,
    log: EventLog,
    spill: Vec<u8>,
    seen: Vec<Seen>,
    verdict: Result<(), Violation>,
}

impl End {
    fn new(settings: WsSettings, now: Instant) -> Self {
        let pool = BufferPool::default();
        let agreed = settings
            .deflate
            .as_ref()
            .map(|deflate| deflate::agreed(settings.role, deflate));
        let mut conn = WsConn::new(Rc::new(settings), now, 0x5eed);
        if let Some(params) = agreed {
            conn = conn.with_deflate(params);
        }
        Self {
            conn,
            out: SendBuffer::new(&pool),
            pool,
            log: EventLog::default(),
            spill: Vec::new(),
            seen: Vec::new(),
            verdict: Ok(()),
        }
    }

    /// Receives one segment as the reactor would: behind the spill, and no more after the end.
    fn receive(&mut self, piece: &[u8], now: Instant) {
        if self.verdict.is_err() || self.conn.appetite() == Appetite::Close {
            return;
        }
        let mut segment = core::mem::take(&mut self.spill);
        segment.extend_from_slice(piece);
        self.log.clear();
        match self
            .conn
            .receive(&mut segment, now, &mut self.log, &mut self.out)
        {
            Ok(consumed) => self.spill = segment[consumed..].to_vec(),
            Err(violation) => {
                assert_ne!(self.conn.appetite(), Appetite::Read);
                self.verdict = Err(violation);
            }
        }
        self.conn.conclude(now, &mut self.out);
        if self.verdict.is_err() {
            assert_eq!(self.conn.appetite(), Appetite::Close);
        }
        assert!(self.spill.len() <= 13, "payload is consumed as it comes");
        let bytes = |payload| self.log.payload(payload, &segment).to_vec();
        let seen = self.log.events().iter().map(|event| match *event {
            Event::Message { kind, payload } => match kind {
                MessageKind::Text => Seen::Text(bytes(payload)),
                MessageKind::Binary => Seen::Binary(bytes(payload)),
            },
            Event::Pong { payload } => Seen::Pong(bytes(payload)),
            Event::Closing { code, reason } => Seen::Closing(code, bytes(reason)),
            other => panic!("no WebSocket logs {other:?}"),
        });
        self.seen.extend(seen);
    }

    fn sent(&mut self) -> Vec<u8> {
        let sent: Vec<u8> = self.out.chunks().flatten().copied().collect();
        self.out.consume(sent.len());
        sent
    }

    /// After the end nothing is on loan.
    #[track_caller]
    fn assert_at_rest(mut self) {
        self.out.clear();
        self.log.clear();
        drop(self.conn);
        assert_eq!(self.pool.taken(), 0, "a buffer was kept");
    }
}

/// Some instant to count from.
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant has no other origin; the tests only add to it"
)]
fn start() -> Instant {
    Instant::now()
}

fn settings(role: Role) -> WsSettings {
    WsSettings::new(role, &Limits::default())
}

/// A frame as the peer of `role` sends it: masked if that is a client.
fn frame(role: Role, fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let key = (role == Role::Server).then_some([0x37, 0xfa, 0x21, 0x3d]);
    let mut header = [0; 14];
    let len = encode_header(&mut header, opcode, fin, false, payload.len() as u64, key);
    let mut bytes = header[..len].to_vec();
    bytes.extend_from_slice(payload);
    apply_mask(&mut bytes[len..], key.unwrap_or_default(), 0);
    bytes
}

/// The close frame a server sends.
fn close(code: u16, reason: &str) -> Vec<u8> {
    let payload = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
    frame(Role::Client, true, Opcode::Close, &payload)
}

/// What came of one input.
type Outcome = (Vec<Seen>, Result<(), Violation>, Vec<u8>, Appetite);

fn feed<'a>(settings: &WsSettings, pieces: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let now = start();
    let mut end = End::new(settings.clone(), now);
    for piece in pieces {
        end.receive(piece, now);
    }
    let outcome = (
        core::mem::take(&mut end.seen),
        end.verdict,
        end.sent(),
        end.conn.appetite(),
    );
    end.assert_at_rest();
    outcome
}

/// Feeds `input` whole, byte by byte and in two pieces; all ways must come to the same.
#[track_caller]
fn outcome(settings: &WsSettings, input: &[u8]) -> Outcome {
    let whole = feed(settings, [input].into_iter());
    assert_eq!(feed(settings, input.chunks(1)), whole, "byte by byte");
    for cut in 0..=input.len() {
        let (first, second) = input.split_at(cut);
        let split = feed(settings, [first, second].into_iter());
        assert_eq!(split, whole, "cut at {cut}");
    }
    whole
}

/// A server receives `frames` and sees `want`, without complaint.
#[track_caller]
fn accepts(frames: &[(bool, Opcode, &[u8])], want: &[Seen]) {
    for role in [Role::Server, Role::Client] {
        let input: Vec<u8> = frames
            .iter()
            .flat_map(|(fin, opcode, payload)| frame(role, *fin, *opcode, payload))
            .collect();
        let (seen, verdict, _, _) = outcome(&settings(role), &input);
        assert_eq!((&seen[..], verdict), (want, Ok(())), "as {role:?}");
    }
}

/// A server refuses `input` with `violation`, having seen `want`, and its last word is the code.
#[track_caller]
fn refuses(settings: &WsSettings, input: &[u8], want: &[Seen], violation: Violation) {
    let (seen, verdict, sent, appetite) = outcome(settings, input);
    assert_eq!((&seen[..], verdict), (want, Err(violation)));
    assert_eq!(appetite, Appetite::Close);
    let last_word = close(violation.close_code(), violation.rule());
    assert!(
        sent.ends_with(&last_word),
        "the close frame says why: {sent:02x?}"
    );
}

mod deflate;
mod differential;
mod properties;

use Opcode::{Binary, Close, Continuation, Ping, Pong, Text};

#[test]
fn rfc6455_5_4_fragments_make_one_message() {
    accepts(
        &[(false, Text, b"Hel"), (true, Continuation, b"lo")],
        &[Seen::Text(b"Hello".to_vec())],
    );
    accepts(
        &[
            (false, Binary, b""),
            (false, Continuation, b""),
            (true, Continuation, b""),
            (true, Text, b""),
            (true, Binary, &[0xff; 300]),
        ],
        &[
            Seen::Binary(vec![]),
            Seen::Text(vec![]),
            Seen::Binary(vec![0xff; 300]),
        ],
    );
}

#[test]
fn rfc6455_5_4_control_frames_may_stand_between_fragments() {
    accepts(
        &[
            (false, Text, "κό".as_bytes()),
            (true, Pong, b"unasked"),
            (false, Continuation, "σ".as_bytes()),
            (true, Pong, b""),
            (true, Continuation, "με".as_bytes()),
        ],
        &[
            Seen::Pong(b"unasked".to_vec()),
            Seen::Pong(vec![]),
            Seen::Text("κόσμε".into()),
        ],
    );
}

#[test]
fn rfc6455_5_5_2_each_ping_is_answered_with_its_own_payload_between_fragments_too() {
    let input = [
        frame(Role::Server, false, Text, b"a"),
        frame(Role::Server, true, Ping, b"one"),
        frame(Role::Server, true, Continuation, b"b"),
        frame(Role::Server, true, Ping, &[0xfe; 125]),
    ]
    .concat();
    let (seen, verdict, sent, appetite) = outcome(&settings(Role::Server), &input);
    let pongs = [
        frame(Role::Client, true, Pong, b"one"),
        frame(Role::Client, true, Pong, &[0xfe; 125]),
    ];
    assert_eq!((seen, verdict), (vec![Seen::Text(b"ab".to_vec())], Ok(())));
    assert_eq!((sent, appetite), (pongs.concat(), Appetite::Read));
}

#[test]
fn rfc6455_5_4_the_order_of_frames_is_kept() {
    let frames = |frames: &[(bool, Opcode)]| -> Vec<u8> {
        let frame = |(fin, opcode): &(bool, Opcode)| frame(Role::Server, *fin, *opcode, b"x");
        frames.iter().flat_map(frame).collect()
    };
    let settings = settings(Role::Server);
    let unexpected = Violation::ContinuationUnexpected;
    let text = Seen::Text(b"x".to_vec());
    refuses(&settings, &frames(&[(true, Continuation)]), &[], unexpected);
    refuses(
        &settings,
        &frames(&[(true, Text), (false, Continuation)]),
        &[text],
        unexpected,
    );
    for second in [Text, Binary] {
        let input = frames(&[(false, Text), (true, second)]);
        refuses(&settings, &input, &[], Violation::ContinuationExpected);
    }
}

#[test]
fn rfc6455_5_2_reserved_bits_fail_the_connection_at_their_byte() {
    for bit in [0x40, 0x20, 0x10] {
        refuses(
            &settings(Role::Server),
            &[0x81 | bit],
            &[],
            Violation::ReservedBit,
        );
    }
    // RSV1 on a frame that also breaks the order: the same verdict for every cut.
    refuses(
        &settings(Role::Server),
        &[0xc0, 0x00],
        &[],
        Violation::ReservedBit,
    );
    refuses(
        &settings(Role::Server),
        &[0x80, 0x00],
        &[],
        Violation::ContinuationUnexpected,
    );
}

#[test]
fn rfc6455_8_1_text_fails_at_the_earliest_byte_even_inside_a_frame() {
    let settings = settings(Role::Server);
    // Autobahn 6.4: the byte that no continuation could repair, with the frame's rest unsent.
    let text = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited";
    let whole = frame(Role::Server, true, Text, text);
    let header_len = whole.len() - text.len();
    refuses(
        &settings,
        &whole[..header_len + 13],
        &[],
        Violation::TextNotUtf8,
    );
    let (seen, verdict, ..) = outcome(&settings, &whole[..header_len + 12]);
    assert_eq!((seen, verdict), (vec![], Ok(())), "F4 could go on");
    refuses(&settings, &whole, &[], Violation::TextNotUtf8);
    // A character cut by the end of the message, not by the end of a fragment.
    let fragments = [
        frame(Role::Server, false, Text, b"\xe2\x82"),
        frame(Role::Server, true, Continuation, b"\xac"),
        frame(Role::Server, true, Text, b"\xe2\x82"),
    ]
    .concat();
    let euro = Seen::Text("€".into());
    refuses(&settings, &fragments, &[euro], Violation::TextNotUtf8);
}

#[test]
fn rfc6455_5_5_1_a_close_frame_is_echoed_and_ends_the_connection() {
    for (payload, code, reason, echo) in [
        (&b""[..], close_code::NO_STATUS, &b""[..], &b""[..]),
        (b"\x03\xe8", 1000, b"", b"\x03\xe8"),
        (b"\x0f\xa0bye", 4000, b"bye", b"\x0f\xa0"),
    ] {
        let mut input = frame(Role::Server, true, Close, payload);
        // Whatever follows means nothing.
        input.extend_from_slice(&[0xff; 20]);
        let (seen, verdict, sent, appetite) = outcome(&settings(Role::Server), &input);
        let closing = Seen::Closing(code, reason.to_vec());
        assert_eq!((seen, verdict), (vec![closing], Ok(())));
        assert_eq!(sent, frame(Role::Client, true, Close, echo));
        assert_eq!(appetite, Appetite::Close);
    }
}

#[test]
fn rfc6455_5_5_1_answers_to_earlier_messages_leave_before_the_close_frame() {
    let now = start();
    let text = frame(Role::Server, true, Opcode::Text, b"hi");
    for farewell in [
        frame(Role::Server, true, Opcode::Close, b"\x03\xe8"),
        vec![0xff],
    ] {
        let pool = BufferPool::default();
        let (mut log, mut out) = (EventLog::default(), SendBuffer::new(&pool));
        let mut conn = WsConn::new(Rc::new(settings(Role::Server)), now, 0);
        let mut segment = [&text[..], &farewell].concat();
        let broken = conn.receive(&mut segment, now, &mut log, &mut out).is_err();
        assert_eq!(conn.appetite(), Appetite::Conclude);
        assert_eq!(conn.send(MessageKind::Text, b"answer", &mut out), Ok(()));
        assert_eq!(
            conn.begin_close(1000, b"", now, &mut out),
            Err(Misuse::Closing)
        );
        conn.conclude(now, &mut out);
        assert_eq!(
            conn.send(MessageKind::Text, b"late", &mut out),
            Err(Misuse::Closing)
        );
        let sent: Vec<u8> = out.chunks().flatten().copied().collect();
        assert!(sent.starts_with(b"\x81\x06answer\x88"), "{sent:02x?}");
        assert_eq!(conn.appetite(), Appetite::Close);
        assert_eq!(broken, farewell.len() == 1);
    }
}

#[test]
fn rfc6455_7_1_1_a_client_waits_for_the_server_to_close_first() {
    let now = start();
    let mut end = End::new(settings(Role::Client), now);
    end.receive(&close(1001, "restart"), now);
    assert_eq!(end.seen, [Seen::Closing(1001, b"restart".to_vec())]);
    assert_eq!(end.conn.peer_close(), Some(1001));
    assert_eq!(end.conn.appetite(), Appetite::Read);
    end.receive(b"\xff\xffignored", now);
    assert_eq!((end.seen.len(), end.verdict), (1, Ok(())));
    let due = end.conn.deadline().expect("it does not wait for ever");
    assert_eq!(due, now + Limits::default().linger_timeout);
    assert_eq!(
        end.conn.handle_deadline(due, &mut end.log, &mut end.out),
        Some(Deadline::Close)
    );
    assert_eq!(end.conn.appetite(), Appetite::Close);
}

#[test]
fn rfc6455_7_4_invalid_close_frames_are_refused() {
    let settings = settings(Role::Server);
    let close = |payload: &[u8]| frame(Role::Server, true, Close, payload);
    refuses(&settings, &close(b"\x03"), &[], Violation::ClosePayload);
    for code in [
        0_u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ] {
        let input = close(&code.to_be_bytes());
        refuses(&settings, &input, &[], Violation::CloseCode);
    }
    let input = close(b"\x03\xe8\xce\xba\xf4\x90");
    refuses(&settings, &input, &[], Violation::CloseReason);
}

#[test]
fn rfc6455_7_1_2_after_our_close_frame_only_the_peers_is_heard() {
    let now = start();
    let mut end = End::new(settings(Role::Server), now);
    let begun = end.conn.begin_close(1000, b"done", now, &mut end.out);
    assert_eq!((begun, end.sent()), (Ok(()), close(1000, "done")));
    assert_eq!(
        end.conn.send(MessageKind::Text, b"late", &mut end.out),
        Err(Misuse::Closing)
    );
    assert_eq!(end.conn.ping(b"", &mut end.out), Err(Misuse::Closing));
    let again = end.conn.begin_close(1000, b"", now, &mut end.out);
    assert_eq!(again, Err(Misuse::Closing));
    for (fin, opcode) in [
        (true, Text),
        (true, Ping),
        (false, Text),
        (true, Continuation),
    ] {
        end.receive(&frame(Role::Server, fin, opcode, b"crossed"), now);
    }
    assert_eq!((end.seen.len(), end.sent()), (0, vec![]));
    end.receive(&frame(Role::Server, true, Close, b"\x03\xe8"), now);
    assert_eq!(end.seen, [Seen::Closing(1000, vec![])]);
    assert_eq!(
        (end.sent(), end.conn.appetite()),
        (vec![], Appetite::Close),
        "one close frame each way"
    );
    end.assert_at_rest();
}

#[test]
fn who_hears_the_peer_out_gets_its_messages_up_to_its_close_frame() {
    let now = start();
    let mut settings = settings(Role::Server);
    settings.hears_out = true;
    let mut end = End::new(settings, now);
    let begun = end.conn.begin_close(1000, b"", now, &mut end.out);
    assert_eq!((begun, end.sent()), (Ok(()), close(1000, "")));
    for (fin, opcode) in [
        (true, Text),
        (true, Ping),
        (false, Text),
        (true, Continuation),
        (true, Close),
        (true, Text),
    ] {
        let payload: &[u8] = if opcode == Close {
            b"\x03\xe8"
        } else {
            b"crossed"
        };
        end.receive(&frame(Role::Server, fin, opcode, payload), now);
    }
    assert_eq!(
        end.seen,
        [
            Seen::Text(b"crossed".to_vec()),
            Seen::Text(b"crossedcrossed".to_vec()),
            Seen::Closing(1000, vec![]),
        ]
    );
    assert_eq!((end.sent(), end.conn.appetite()), (vec![], Appetite::Close));
    end.assert_at_rest();
}

#[test]
fn rfc6455_7_1_2_a_peer_that_never_answers_our_close_frame_meets_the_deadline() {
    let now = start();
    let mut end = End::new(settings(Role::Server), now);
    end.conn
        .begin_close(close_code::NO_STATUS, b"", now, &mut end.out)
        .expect("open");
    assert_eq!(end.sent(), frame(Role::Client, true, Close, b""));
    let due = end.conn.deadline().expect("closing is bounded");
    end.receive(&frame(Role::Server, true, Text, b"more"), now);
    assert_eq!(end.conn.deadline(), Some(due), "data does not postpone it");
    let early = due - Duration::from_millis(1);
    let (log, out) = (&mut end.log, &mut end.out);
    assert_eq!(end.conn.handle_deadline(early, log, out), None);
    assert_eq!(
        end.conn.handle_deadline(due, log, out),
        Some(Deadline::Close)
    );
    assert_eq!(
        (end.sent(), end.conn.deadline(), end.conn.appetite()),
        (vec![], None, Appetite::Close)
    );
}

#[test]
fn rfc6455_7_4_1_a_message_over_its_size_fails_at_the_header_that_announces_it() {
    let settings = WsSettings {
        message_bytes_max: 300,
        ..settings(Role::Server)
    };
    let announced = frame(Role::Server, true, Binary, &[0; 301]);
    refuses(&settings, &announced[..8], &[], Violation::MessageTooLarge);
    let (seen, verdict, ..) = outcome(&settings, &frame(Role::Server, true, Binary, &[1; 300]));
    assert_eq!((seen.len(), verdict), (1, Ok(())));
    let fragments = [
        frame(Role::Server, false, Binary, &[0; 200]),
        frame(Role::Server, true, Ping, &[0; 125]),
        frame(Role::Server, true, Continuation, &[0; 101]),
    ]
    .concat();
    refuses(&settings, &fragments, &[], Violation::MessageTooLarge);
    let huge = [
        0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4,
    ];
    refuses(&settings, &huge, &[], Violation::MessageTooLarge);
}

#[test]
fn rfc6455_10_4_fragments_are_earned_by_bytes() {
    let settings = WsSettings {
        fragments_max: 3,
        ..settings(Role::Server)
    };
    let message = |payloads: &[&[u8]]| -> Vec<u8> {
        let last = payloads.len() - 1;
        let fragment = |(i, payload): (usize, &&[u8])| {
            let opcode = if i == 0 { Binary } else { Continuation };
            frame(Role::Server, i == last, opcode, payload)
        };
        payloads.iter().enumerate().flat_map(fragment).collect()
    };
    let empty: &[&[u8]] = &[b"", b"", b"", b""];
    refuses(&settings, &message(empty), &[], Violation::TooManyFragments);
    // Sixteen bytes earn one more; and each message begins anew.
    let earned: &[&[u8]] = &[&[7; 16], b"", b"", b""];
    let input = [message(earned), message(earned), message(&empty[..3])].concat();
    let (seen, verdict, ..) = outcome(&settings, &input);
    assert_eq!((seen.len(), verdict), (3, Ok(())));
}

#[test]
fn rfc6455_5_5_3_under_a_flood_only_the_last_ping_of_a_segment_is_answered() {
    let now = start();
    let mut end = End::new(settings(Role::Server), now);
    let pings: Vec<u8> = (0..1000_u32)
        .flat_map(|i| frame(Role::Server, true, Ping, &[i.to_le_bytes(); 20].concat()))
        .collect();
    // Nothing is flushed between the segments: the peer does not read.
    for _ in 0..50 {
        end.receive(&pings, now);
    }
    assert_eq!((end.seen.len(), end.verdict), (0, Ok(())));
    assert!(end.out.len() < 32 * 1024, "{} bytes wait", end.out.len());
    let last = frame(
        Role::Client,
        true,
        Pong,
        &[999_u32.to_le_bytes(); 20].concat(),
    );
    assert!(end.sent().ends_with(&last), "the latest is answered");
    end.assert_at_rest();
}

#[test]
fn a_silent_peer_is_pinged_and_then_given_up() {
    let now = start();
    let second = Duration::from_secs(1);
    let mut end = End::new(
        WsSettings {
            ping_interval: Some(10 * second),
            pong_timeout: Some(5 * second),
            ..settings(Role::Server)
        },
        now,
    );
    assert_eq!(end.conn.deadline(), Some(now + 10 * second));
    end.conn
        .send(MessageKind::Text, b"out", &mut end.out)
        .expect("open");
    assert_eq!(
        end.conn.deadline(),
        Some(now + 10 * second),
        "sending is no sign of life"
    );
    end.sent();
    // Part of a header is one.
    end.receive(&[0x81], now + 4 * second);
    assert_eq!(end.conn.deadline(), Some(now + 14 * second));
    let (log, out) = (&mut end.log, &mut end.out);
    assert_eq!(end.conn.handle_deadline(now + 13 * second, log, out), None);
    assert!(out.is_empty());
    assert_eq!(end.conn.handle_deadline(now + 14 * second, log, out), None);
    assert_eq!(end.conn.deadline(), Some(now + 19 * second));
    assert_eq!(end.sent(), frame(Role::Client, true, Ping, b""));
    end.receive(
        &frame(Role::Server, true, Text, b"x")[1..],
        now + 18 * second,
    );
    assert_eq!(end.seen, [Seen::Text(b"x".to_vec())]);
    assert_eq!(end.conn.deadline(), Some(now + 28 * second));
    let (log, out) = (&mut end.log, &mut end.out);
    assert_eq!(end.conn.handle_deadline(now + 28 * second, log, out), None);
    let gone = end.conn.handle_deadline(now + 33 * second, log, out);
    assert_eq!(
        (gone, end.conn.appetite()),
        (Some(Deadline::Ping), Appetite::Close)
    );
    let ping = frame(Role::Client, true, Ping, b"");
    assert_eq!(
        end.sent(),
        [ping, close(1011, "no answer to a ping")].concat()
    );
    assert_eq!(end.conn.deadline(), None);
}

#[test]
fn each_keep_alive_timeout_works_without_the_others() {
    let now = start();
    let second = Duration::from_secs(1);
    let with = |idle: Option<u32>, ping: Option<u32>, pong: Option<u32>| WsSettings {
        idle_timeout: idle.map(|n| n * second),
        ping_interval: ping.map(|n| n * second),
        pong_timeout: pong.map(|n| n * second),
        ..settings(Role::Server)
    };
    // What happens each second of a silence, until it ends the connection.
    let silence = |settings: WsSettings| {
        let mut end = End::new(settings, now);
        let mut told = Vec::new();
        for at in 1..=30 {
            let time = now + at * second;
            let gone = end.conn.handle_deadline(time, &mut end.log, &mut end.out);
            if gone.is_some() || !end.out.is_empty() {
                told.push((at, gone));
                end.sent();
            }
            if gone.is_some() {
                break;
            }
        }
        told
    };
    assert_eq!(silence(with(None, None, None)), []);
    assert_eq!(silence(with(None, None, Some(3))), [], "no ping, no pong");
    assert_eq!(
        silence(with(Some(7), None, None)),
        [(7, Some(Deadline::Idle))]
    );
    let pings = [(12, None), (24, None)];
    assert_eq!(silence(with(None, Some(12), None)), pings);
    let given_up = [(12, None), (15, Some(Deadline::Ping))];
    assert_eq!(silence(with(None, Some(12), Some(3))), given_up);
    let idle = [(12, None), (14, Some(Deadline::Idle))];
    assert_eq!(silence(with(Some(14), Some(12), Some(3))), idle);
}

#[test]
fn silence_while_we_did_not_read_is_excused() {
    let now = start();
    let mut end = End::new(settings(Role::Server), now);
    let first = end.conn.deadline().expect("it pings by default");
    end.conn.handle_deadline(first, &mut end.log, &mut end.out);
    let sent = end.out.len();
    end.conn.excuse_silence(first, &mut end.out);
    let interval = first - now;
    assert_eq!(end.conn.deadline(), Some(first + interval));
    assert_eq!(end.out.len(), sent, "what waits is ping enough");
    end.out.clear();
    end.conn.excuse_silence(first, &mut end.out);
    assert_eq!(end.out.len(), 2, "one that has gone must be found");
}

#[test]
fn what_the_caller_may_not_send_is_refused_and_nothing_is_queued() {
    let now = start();
    let mut end = End::new(settings(Role::Client), now);
    let (conn, out) = (&mut end.conn, &mut end.out);
    assert_eq!(
        conn.send(MessageKind::Text, b"\xff", out),
        Err(Misuse::NotUtf8)
    );
    assert_eq!(conn.ping(&[0; 126], out), Err(Misuse::PingTooLong));
    let long = [b'x'; 124];
    for (code, reason) in [
        (999, &b""[..]),
        (1006, b""),
        (1005, b"why"),
        (1000, &long),
        (1000, b"\xff"),
    ] {
        let refused = conn.begin_close(code, reason, now, out);
        assert_eq!(refused, Err(Misuse::InvalidClose), "{code}");
    }
    assert!(out.is_empty());
    assert_eq!(conn.begin_close(1000, &long[..123], now, out), Ok(()));
}

#[test]
fn after_a_violation_of_a_closing_peer_no_second_close_frame_is_sent() {
    let now = start();
    let mut end = End::new(settings(Role::Server), now);
    end.conn
        .begin_close(1000, b"", now, &mut end.out)
        .expect("open");
    end.sent();
    end.receive(&[0xff], now);
    assert_eq!(end.verdict, Err(Violation::ReservedBit));
    assert_eq!(end.sent(), []);
}

#[test]
fn an_end_of_input_without_a_close_frame_shows() {
    let now = start();
    let mut end = End::new(settings(Role::Server), now);
    end.receive(&frame(Role::Server, false, Text, b"unfinished"), now);
    end.conn.receive_eof(now, &mut end.log);
    assert_eq!(
        (
            end.conn.appetite(),
            end.conn.peer_close(),
            end.conn.deadline()
        ),
        (Appetite::Close, None, None)
    );
    end.assert_at_rest();
}

#[test]
fn memory_grows_with_what_arrived_not_with_what_was_announced() {
    let now = start();
    let mut end = End::new(settings(Role::Server), now);
    let whole = frame(Role::Server, true, Binary, &vec![9; 16 << 20]);
    let mut received = 0;
    for piece in whole.chunks(10_000) {
        end.receive(piece, now);
        received += piece.len();
        let held = end.conn.decoder.assembled_capacity();
        assert!(
            held <= (4 * received).max(16 * 1024),
            "{held} bytes for {received}"
        );
    }
    assert_eq!(end.seen, [Seen::Binary(vec![9; 16 << 20])]);
    end.assert_at_rest();
}
