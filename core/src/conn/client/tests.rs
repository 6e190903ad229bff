//! Rules of one client connection, and both drivers face to face.

use super::{Ask, AskBody, ClientConn};
use crate::buffer::{BufferPool, SendBuffer};
use crate::conn::{
    Appetite, Deadline, Event, EventLog, Exchange, Misuse, Refusals, Response, ServerConn,
    ServerSettings, SharedDate,
};
use crate::limits::Limits;
use crate::violation::Violation;
use proptest::prelude::*;
use std::rc::Rc;
use std::time::{Duration, Instant};

const GET: Ask<'_> = Ask {
    method: b"GET",
    target: b"/",
    host: b"x",
    fields: &[],
    body: AskBody::None,
    collect_bytes_max: Some(1000),
};

struct Harness {
    conn: ClientConn,
    log: EventLog,
    out: SendBuffer,
    now: Instant,
    spill: Vec<u8>,
    story: Vec<String>,
}

impl Harness {
    fn new() -> Self {
        Self {
            conn: ClientConn::new(Rc::new(Limits::default()), origin()),
            log: EventLog::default(),
            out: SendBuffer::new(&BufferPool::default()),
            now: origin(),
            spill: Vec::new(),
            story: Vec::new(),
        }
    }

    /// One that has asked.
    fn asking(ask: &Ask<'_>) -> Self {
        let mut harness = Self::new();
        let asked = harness.conn.ask(ask, &mut harness.out);
        assert_eq!(asked, Ok(Exchange(1)));
        harness.conn.note_sent(harness.now);
        harness
    }

    fn receive(&mut self, bytes: &[u8]) -> &mut Self {
        self.spill.extend_from_slice(bytes);
        let mut segment = core::mem::take(&mut self.spill);
        self.log.clear();
        let received = self
            .conn
            .receive(&mut segment, self.now, &mut self.log, &mut self.out);
        self.tell(&segment);
        match received {
            Ok(consumed) => self.spill = segment.split_off(consumed),
            Err(violation) => self.story.push(format!("violation {}", violation.name())),
        }
        self
    }

    fn end(&mut self) -> &mut Self {
        self.log.clear();
        let ended = self.conn.receive_eof(&mut self.log, &self.out);
        self.tell(&[]);
        if let Err(violation) = ended {
            self.story.push(format!("violation {}", violation.name()));
        }
        self
    }

    fn tell(&mut self, segment: &[u8]) {
        for event in self.log.events() {
            self.story.push(match *event {
                Event::Response { head, at, .. } => {
                    let response = self
                        .log
                        .response(head, at, segment)
                        .expect("its head is in the log");
                    format!("{} {}", response.head().status, text(response.reason()))
                }
                Event::Body { payload, .. } => {
                    format!("body {}", text(self.log.payload(payload, segment)))
                }
                Event::End { .. } => "end".to_owned(),
                other => format!("{other:?}"),
            });
        }
    }

    fn story(&mut self) -> String {
        core::mem::take(&mut self.story).join("; ")
    }

    fn sent(&mut self) -> String {
        let sent: Vec<u8> = self.out.chunks().flatten().copied().collect();
        self.out.clear();
        text(&sent)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "there is no other way to make an Instant"
)]
fn origin() -> Instant {
    Instant::now()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_request_is_written_as_it_is_asked() {
    let post = Ask {
        method: b"POST",
        target: b"/a?b",
        fields: &[(b"X-A", b"1")],
        ..GET
    };
    for (ask, want) in [
        (GET, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        (
            post,
            "POST /a?b HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            Ask {
                body: AskBody::Whole(b"hi"),
                ..post
            },
            "POST /a?b HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nhi",
        ),
    ] {
        assert_eq!(Harness::asking(&ask).sent(), want);
    }
}

#[test]
fn what_may_not_be_sent_leaves_nothing_behind() {
    for ask in [
        Ask {
            method: b"GE T",
            ..GET
        },
        Ask { method: b"", ..GET },
        Ask {
            target: b"/a b",
            ..GET
        },
        Ask { target: b"", ..GET },
        Ask {
            target: b"/\r\nX: y",
            ..GET
        },
        Ask {
            host: b"x\r\n",
            ..GET
        },
        Ask {
            fields: &[(b"Host", b"y")],
            ..GET
        },
        Ask {
            fields: &[(b"transfer-encoding", b"chunked")],
            ..GET
        },
        Ask {
            fields: &[(b"A", b"1\nB: 2")],
            ..GET
        },
    ] {
        let mut harness = Harness::new();
        let asked = harness.conn.ask(&ask, &mut harness.out);
        assert_eq!(
            (asked, harness.sent().as_str()),
            (Err(Misuse::InvalidField), "")
        );
    }
}

#[test]
fn rfc9112_6_3_each_framing_ends_where_it_should() {
    for (method, input, story, idle) in [
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            "200 OK; body hi; end",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 204 \r\nContent-Length: 2\r\n\r\n",
            "204 ",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 304 \r\nContent-Length: 2\r\n\r\n",
            "304 ",
            true,
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
            "200 OK",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            "200 OK; body hi; end",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "200 OK",
            false,
        ),
        (
            "GET",
            "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            "200 OK; body hi; end",
            false,
        ),
        (
            "GET",
            "HTTP/1.1 100 \r\n\r\nHTTP/1.1 103 \r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "200 OK",
            true,
        ),
    ] {
        let ask = Ask {
            method: method.as_bytes(),
            ..GET
        };
        for cut in 0..=input.len() {
            let mut harness = Harness::asking(&ask);
            let (first, second) = input.as_bytes().split_at(cut);
            harness.receive(first).receive(second);
            assert_eq!(harness.story(), story, "{method} {input:?} cut at {cut}");
            assert_eq!(harness.conn.is_idle(), idle);
            assert_eq!(harness.conn.appetite() == Appetite::Close, !idle);
        }
    }
}

#[test]
fn rfc9112_6_3_a_body_may_end_with_the_connection_only_if_it_has_no_other_end() {
    for (input, story) in [
        ("HTTP/1.1 200 OK\r\n\r\nsome", "200 OK; body some; end"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsome",
            "200 OK; violation BodyIncomplete",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n",
            "200 OK; violation BodyIncomplete",
        ),
        ("HTTP/1.1 200 OK\r\n", "violation Incomplete"),
        ("", ""),
    ] {
        let mut harness = Harness::asking(&GET);
        harness.receive(input.as_bytes()).end();
        assert_eq!(harness.story(), story, "{input:?}");
        assert_eq!(harness.conn.appetite(), Appetite::Close);
    }
}

#[test]
fn rfc9112_9_3_bytes_that_nobody_asked_for_end_the_connection() {
    let mut harness = Harness::new();
    harness.receive(b"HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(harness.story(), "violation Unsolicited");
    let mut harness = Harness::asking(&GET);
    harness.receive(b"HTTP/1.1 204 \r\n\r\nHTTP/1.1 204 \r\n\r\n");
    assert_eq!(harness.story(), "204 ; violation Unsolicited");
    let mut harness = Harness::asking(&GET);
    harness.receive(b"HTTP/1.1 101 \r\n\r\n");
    assert_eq!(
        harness.story(),
        "violation Unsolicited",
        "no upgrade was asked for"
    );
}

#[test]
fn one_exchange_follows_the_other() {
    let mut harness = Harness::asking(&GET);
    assert_eq!(harness.conn.ask(&GET, &mut harness.out), Err(Misuse::Busy));
    harness.receive(b"HTTP/1.1 204 \r\n\r\n");
    assert_eq!(harness.conn.ask(&GET, &mut harness.out), Ok(Exchange(2)));
}

#[test]
fn a_request_that_is_not_complete_makes_its_response_the_last() {
    let ask = Ask {
        method: b"POST",
        body: AskBody::Length(4),
        ..GET
    };
    let mut harness = Harness::asking(&ask);
    let (conn, out) = (&mut harness.conn, &mut harness.out);
    assert_eq!(
        conn.write_body(Exchange(1), b"12345", out),
        Err(Misuse::LengthMismatch)
    );
    assert_eq!(conn.write_body(Exchange(1), b"12", out), Ok(()));
    harness.receive(b"HTTP/1.1 413 \r\nContent-Length: 0\r\n\r\n");
    assert_eq!(
        (harness.story().as_str(), harness.conn.appetite()),
        ("413 ", Appetite::Close)
    );
}

#[test]
fn a_response_larger_than_may_be_collected_is_not_taken() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n";
    let mut harness = Harness::asking(&GET);
    harness.receive(head);
    assert_eq!(harness.story(), "violation BodyTooLarge");
    let mut harness = Harness::asking(&Ask {
        collect_bytes_max: None,
        ..GET
    });
    harness.receive(head).receive(b"ab").receive(b"c");
    assert_eq!(harness.story(), "200 OK; body ab; body c");
}

#[test]
fn each_silence_of_a_server_meets_its_deadline() {
    for (input, seconds, missed) in [
        ("", 60, Deadline::FirstByte),
        ("HTTP/1.1 2", 60, Deadline::Head),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsome",
            30,
            Deadline::Body,
        ),
    ] {
        let mut harness = Harness::asking(&GET);
        harness.receive(input.as_bytes());
        let late = harness.now + Duration::from_secs(seconds);
        assert_eq!(harness.conn.deadline(), Some(late));
        assert_eq!(
            harness.conn.handle_deadline(late - Duration::from_nanos(1)),
            None
        );
        assert_eq!(harness.conn.handle_deadline(late), Some(missed));
        assert_eq!(harness.conn.appetite(), Appetite::Close);
    }
}

#[test]
fn interim_responses_without_end_do_not_put_off_the_deadline() {
    let mut harness = Harness::asking(&GET);
    for _ in 0..59 {
        harness.now += Duration::from_secs(1);
        harness.receive(b"HTTP/1.1 103 \r\n\r\n");
    }
    let late = harness.now + Duration::from_secs(1);
    assert_eq!(harness.conn.handle_deadline(late), Some(Deadline::Head));
}

/// What one exchange carries each way, and in how many pieces.
#[derive(Clone, Debug)]
struct Talk {
    method: &'static str,
    up: Vec<u8>,
    up_chunked: bool,
    down: Vec<u8>,
    down_streamed: bool,
}

fn talk() -> impl Strategy<Value = Talk> {
    let body = || proptest::collection::vec(any::<u8>(), 0..300);
    let method = proptest::sample::select(vec!["GET", "POST", "HEAD", "PUT", "BREW"]);
    (method, body(), any::<bool>(), body(), any::<bool>()).prop_map(
        |(method, up, up_chunked, down, down_streamed)| Talk {
            method,
            up,
            up_chunked,
            down,
            down_streamed,
        },
    )
}

/// Takes at most `most` bytes of what waits in `out`.
fn take(out: &mut SendBuffer, most: usize) -> Vec<u8> {
    let bytes: Vec<u8> = out.chunks().flatten().copied().take(most).collect();
    out.consume(bytes.len());
    bytes
}

proptest! {
    /// Whatever is said, and however the bytes between them are cut, a client and a server of ours
    /// hear exactly what the other said.
    #[test]
    fn two_drivers_face_to_face_hear_what_the_other_said(
        talks in proptest::collection::vec(talk(), 1..5),
        cuts in proptest::collection::vec(1..40_usize, 1..8),
    ) {
        let now = origin();
        let limits = Rc::new(Limits::default());
        let settings = ServerSettings {
            limits: Rc::clone(&limits),
            date: Rc::new(SharedDate::new(*b"Sun, 06 Nov 1994 08:49:37 GMT")),
            collect_bodies: true,
            websocket: false,
            refusals: Refusals::default(),
        };
        let mut server = ServerConn::new(Rc::new(settings), now);
        let pool = BufferPool::default();
        let mut server_out = SendBuffer::new(&pool);
        let mut server_spill = Vec::new();
        let mut client = Harness::new();
        let mut cuts = cuts.into_iter().cycle();
        for (number, talk) in talks.iter().enumerate() {
            let body = if talk.up_chunked { AskBody::Chunked } else { AskBody::Whole(&talk.up) };
            let ask = Ask { method: talk.method.as_bytes(), body, ..GET };
            let asked = client.conn.ask(&ask, &mut client.out);
            prop_assert!(asked.is_ok(), "{:?}", asked);
            let exchange = asked.unwrap();
            if talk.up_chunked {
                for piece in talk.up.chunks(7) {
                    prop_assert_eq!(client.conn.write_body(exchange, piece, &mut client.out), Ok(()));
                }
                prop_assert_eq!(client.conn.finish_body(exchange, &mut client.out), Ok(()));
            }
            let (mut heard, mut ended) = (Vec::new(), false);
            while !ended {
                let bytes = take(&mut client.out, cuts.next().unwrap_or(1));
                server_spill.extend_from_slice(&bytes);
                let mut segment = core::mem::take(&mut server_spill);
                let mut log = EventLog::default();
                let consumed = server.receive(&mut segment, now, &mut log, &mut server_out);
                prop_assert!(consumed.is_ok(), "{:?}", consumed);
                for event in log.events() {
                    match *event {
                        Event::Request { head, at, .. } => {
                            let request = log.request(head, at, &segment).expect("it is there");
                            prop_assert_eq!(request.method(), talk.method.as_bytes());
                            ended = !request.has_body();
                        }
                        Event::Body { payload, .. } => heard.extend_from_slice(log.payload(payload, &segment)),
                        Event::End { .. } => ended = true,
                        _ => prop_assert!(false, "unexpected"),
                    }
                }
                server_spill = segment.split_off(consumed.unwrap_or(0));
            }
            prop_assert_eq!(&heard, &talk.up);
            let exchange = Exchange(u32::try_from(number).unwrap());
            let response = Response { status: 200, fields: &[], body: &talk.down };
            if talk.down_streamed {
                prop_assert_eq!(server.begin_response(exchange, &response, &mut server_out), Ok(()));
                for piece in talk.down.chunks(11) {
                    prop_assert_eq!(server.write_body(exchange, piece, &mut server_out), Ok(()));
                }
                prop_assert_eq!(server.finish_body(exchange, now, &mut server_out), Ok(()));
            } else {
                prop_assert_eq!(server.respond(exchange, &response, now, &mut server_out), Ok(()));
            }
            while !server_out.is_empty() {
                let bytes = take(&mut server_out, cuts.next().unwrap_or(1));
                client.receive(&bytes);
            }
            let has_body = talk.method != "HEAD" && (talk.down_streamed || !talk.down.is_empty());
            let want = match (has_body, talk.down.is_empty()) {
                (false, _) => "200 OK".to_owned(),
                (true, true) => "200 OK; end".to_owned(),
                (true, false) => format!("200 OK; body {}; end", text(&talk.down)),
            };
            prop_assert_eq!(client.story(), want);
            prop_assert!(client.conn.is_idle());
        }
        client.log.clear();
        prop_assert_eq!(pool.taken(), 0);
    }
}

#[test]
fn nothing_is_asked_of_a_connection_that_has_ended() {
    let mut harness = Harness::new();
    harness.end();
    assert_eq!(harness.story(), "");
    assert_eq!(harness.conn.ask(&GET, &mut harness.out), Err(Misuse::Gone));
    assert_eq!(Violation::Unsolicited.status(), 400);
}
