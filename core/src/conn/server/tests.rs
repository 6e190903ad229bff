//! Rules of one server connection, each told with a whole exchange.

use super::{ServerConn, ServerSettings};
use crate::buffer::{BufferPool, SendBuffer};
use crate::conn::{
    Appetite, Deadline, Driver, Event, EventLog, Exchange, Misuse, RefusalPage, Refusals, Response,
    SharedDate, WsSettings,
};
use crate::limits::Limits;
use crate::violation::Violation;
use crate::ws::Role;
use std::rc::Rc;
use std::time::{Duration, Instant};

const DATE: [u8; 29] = *b"Sun, 06 Nov 1994 08:49:37 GMT";

/// A connection with someone who drives it and a log in words.
struct Harness {
    conn: ServerConn,
    log: EventLog,
    out: SendBuffer,
    now: Instant,
    spill: Vec<u8>,
    story: Vec<String>,
}

impl Harness {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut ServerSettings)) -> Self {
        let mut settings = ServerSettings {
            limits: Rc::new(Limits::default()),
            date: Rc::new(SharedDate::new(DATE)),
            collect_bodies: true,
            websocket: true,
            refusals: Refusals::default(),
        };
        change(&mut settings);
        let now = origin();
        Self {
            conn: ServerConn::new(Rc::new(settings), now),
            log: EventLog::default(),
            out: SendBuffer::new(&BufferPool::default()),
            now,
            spill: Vec::new(),
            story: Vec::new(),
        }
    }

    /// Gives the connection `bytes` behind what it left, and tells what it says of them.
    fn receive(&mut self, bytes: &[u8]) -> &mut Self {
        self.spill.extend_from_slice(bytes);
        let mut segment = core::mem::take(&mut self.spill);
        self.log.clear();
        let received = self
            .conn
            .receive(&mut segment, self.now, &mut self.log, &mut self.out);
        for event in self.log.events() {
            self.story.push(match *event {
                Event::Request { exchange, head, at } => {
                    let request = self
                        .log
                        .request(head, at, &segment)
                        .expect("its head is in the log");
                    let (method, target) = (text(request.method()), text(request.target()));
                    format!("request {} {method} {target}", exchange.0)
                }
                Event::Body { exchange, payload } => {
                    format!(
                        "body {} {}",
                        exchange.0,
                        text(self.log.payload(payload, &segment))
                    )
                }
                Event::End { exchange } => format!("end {}", exchange.0),
                other => format!("{other:?}"),
            });
        }
        match received {
            Ok(consumed) => self.spill = segment.split_off(consumed),
            Err(violation) => self.story.push(format!("violation {}", violation.name())),
        }
        self
    }

    fn respond(&mut self, exchange: u32, body: &str) -> &mut Self {
        let response = Response {
            status: 200,
            fields: &[],
            body: body.as_bytes(),
        };
        let answered = self
            .conn
            .respond(Exchange(exchange), &response, self.now, &mut self.out);
        assert_eq!(answered, Ok(()));
        self
    }

    fn story(&mut self) -> String {
        core::mem::take(&mut self.story).join("; ")
    }

    /// What has been sent since the last call, without the dates.
    fn sent(&mut self) -> String {
        let sent: Vec<u8> = self.out.chunks().flatten().copied().collect();
        self.out.clear();
        text(&sent).replace("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "")
    }

    fn wait(&mut self, time: Duration) -> Option<Deadline> {
        self.now += time;
        self.conn.handle_deadline(self.now, &mut self.out)
    }
}

/// Some time; which does not matter, as only differences do.
fn origin() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "there is no other way to make an Instant"
    )]
    Instant::now()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_get_is_delivered_and_its_answer_is_complete() {
    let mut harness = Harness::new();
    harness
        .receive(b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n")
        .respond(0, "hi");
    assert_eq!(harness.story(), "request 0 GET /a?b");
    let sent: Vec<u8> = harness.out.chunks().flatten().copied().collect();
    let want =
        "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(text(&sent), want);
    assert_eq!(harness.conn.appetite(), Appetite::Read);
}

#[test]
fn rfc9112_9_3_2_pipelined_requests_are_answered_in_their_order() {
    let mut harness = Harness::new();
    harness.receive(
        &b"GET /0 HTTP/1.1\r\nHost: x\r\n\r\nGET /1 HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2),
    );
    assert_eq!(
        harness.story(),
        "request 0 GET /0; request 1 GET /1; request 2 GET /0; request 3 GET /1"
    );
    harness
        .respond(3, "three")
        .respond(1, "one")
        .respond(0, "zero");
    let sent = harness.sent();
    assert!(
        sent.ends_with("zeroHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"),
        "{sent}"
    );
    harness.respond(2, "two");
    assert!(
        harness
            .sent()
            .ends_with("two\u{48}TTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nthree")
    );
}

#[test]
fn more_requests_than_may_be_in_flight_wait_unread() {
    let mut harness = Harness::new();
    harness.receive(&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(17));
    assert_eq!(harness.conn.appetite(), Appetite::Pause);
    assert_eq!(harness.spill.len(), 27);
    harness.respond(0, "").receive(b"");
    assert!(harness.story().ends_with("request 16 GET /"));
}

#[test]
fn every_way_to_cut_the_input_gives_the_same_events() {
    let input: &[u8] = b"\r\nPOST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloPOST /b HTTP/1.1\r\n\
        Host: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n5;x=y\r\npedia\r\n0\r\nT: v\r\n\r\nGET /c HTTP/1.1\r\n\
        Host: x\r\nConnection: close\r\n\r\nignored";
    let want = "request 0 POST /a; body 0 hello; end 0; request 1 POST /b; body 1 Wikipedia; end 1; request 2 GET /c";
    for first in 0..input.len() {
        for second in [first, (first + input.len()) / 2] {
            let mut harness = Harness::new();
            harness
                .receive(&input[..first])
                .receive(&input[first..second])
                .receive(&input[second..]);
            assert_eq!(harness.story(), want, "cut at {first} and {second}");
        }
    }
    let mut harness = Harness::new();
    input.iter().for_each(|byte| {
        harness.receive(&[*byte]);
    });
    assert_eq!(harness.story(), want, "byte by byte");
}

#[test]
fn streamed_bodies_arrive_as_they_come() {
    let mut harness = Harness::with(|settings| settings.collect_bodies = false);
    harness
        .receive(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\nab")
        .receive(b"c");
    assert_eq!(harness.story(), "request 0 POST /; body 0 ab; body 0 c");
}

#[test]
fn rfc9110_9_3_2_head_is_answered_without_a_body() {
    let mut harness = Harness::new();
    harness
        .receive(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        .respond(0, "hello");
    assert_eq!(
        harness.sent(),
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    );
}

#[test]
fn rfc9110_6_4_1_204_and_304_have_no_body() {
    for (status, want) in [
        (204, "HTTP/1.1 204 No Content\r\n\r\n"),
        (304, "HTTP/1.1 304 Not Modified\r\n\r\n"),
    ] {
        let mut harness = Harness::new();
        harness.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let response = Response {
            status,
            fields: &[],
            body: b"dropped",
        };
        assert_eq!(
            harness
                .conn
                .respond(Exchange(0), &response, harness.now, &mut harness.out),
            Ok(())
        );
        assert_eq!(harness.sent(), want);
    }
}

#[test]
fn rfc9112_9_3_http10_closes_unless_it_asked_to_stay() {
    let mut harness = Harness::new();
    harness
        .receive(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        .respond(0, "");
    assert_eq!(
        harness.sent(),
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"
    );
    harness.receive(b"GET / HTTP/1.0\r\n\r\n").respond(1, "");
    assert_eq!(
        harness.sent(),
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(harness.conn.appetite(), Appetite::Close);
}

#[test]
fn rfc9110_10_1_1_expectations_are_met_at_once() {
    let mut harness = Harness::new();
    harness
        .receive(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(harness.sent(), "HTTP/1.1 100 Continue\r\n\r\n");
    harness.receive(b"a");
    assert_eq!(harness.story(), "request 0 PUT /; body 0 a; end 0");
}

#[test]
fn a_body_too_large_is_refused_before_it_is_asked_for() {
    let mut harness = Harness::new();
    harness.receive(
        b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(harness.story(), "violation BodyTooLarge");
    let sent = harness.sent();
    assert!(
        sent.starts_with("HTTP/1.1 413 ") && sent.contains("\r\nConnection: close\r\n"),
        "{sent}"
    );
    assert_eq!(harness.conn.appetite(), Appetite::Close);
}

#[test]
fn a_chunked_body_that_grows_too_large_is_refused_as_the_answer_to_its_request() {
    let mut harness = Harness::new();
    harness.receive(b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..17 {
        harness
            .receive(b"10000\r\n")
            .receive(&[b'x'; 0x10000])
            .receive(b"\r\n");
    }
    assert_eq!(harness.story(), "request 0 PUT /; violation BodyTooLarge");
    assert!(harness.sent().starts_with("HTTP/1.1 413 "));
    let late = Response {
        status: 200,
        fields: &[],
        body: b"",
    };
    let answered = harness
        .conn
        .respond(Exchange(0), &late, harness.now, &mut harness.out);
    assert_eq!(answered, Err(Misuse::AlreadyAnswered));
}

#[test]
fn a_refusal_waits_for_the_answers_that_are_owed() {
    let mut harness = Harness::new();
    harness.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nG\x00T / HTTP/1.1\r\n\r\n");
    assert_eq!(harness.story(), "request 0 GET /; violation Method");
    assert_eq!(
        (harness.sent().as_str(), harness.conn.appetite()),
        ("", Appetite::Pause)
    );
    harness.respond(0, "ok");
    let sent = harness.sent();
    assert!(
        sent.starts_with("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 400 "),
        "{sent}"
    );
    assert!(
        sent.ends_with("malformed method (RFC 9112 §3.1)\n"),
        "{sent}"
    );
    assert_eq!(harness.conn.appetite(), Appetite::Close);
}

#[test]
fn rfc9112_8_an_end_inside_a_message_is_an_error_and_between_messages_is_not() {
    for (input, want) in [
        (&b""[..], Ok(())),
        (b"\r\n", Ok(())),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Ok(())),
        (b"\r", Err(Violation::Incomplete)),
        (b"GET / HT", Err(Violation::Incomplete)),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhell",
            Err(Violation::Incomplete),
        ),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            Err(Violation::Incomplete),
        ),
    ] {
        let mut harness = Harness::new();
        harness.receive(input);
        assert_eq!(
            harness.conn.receive_eof(&mut harness.out),
            want,
            "{}",
            text(input)
        );
        assert_eq!(harness.sent().starts_with("HTTP/1.1 400 "), want.is_err());
    }
}

#[test]
fn what_was_asked_before_a_half_close_is_still_answered() {
    let mut harness = Harness::new();
    harness.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(harness.conn.receive_eof(&mut harness.out), Ok(()));
    assert_eq!(harness.conn.appetite(), Appetite::Pause);
    harness.respond(0, "bye");
    assert_eq!(
        harness.sent(),
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbye"
    );
    assert_eq!(harness.conn.appetite(), Appetite::Close);
}

#[test]
fn each_silence_meets_its_deadline() {
    let body: &[u8] = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhell";
    let upgrade: &[u8] =
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for (input, seconds, missed, status) in [
        (&b""[..], 75, Deadline::Idle, ""),
        (b"GET /", 10, Deadline::Head, "HTTP/1.1 408 "),
        (body, 30, Deadline::Body, "HTTP/1.1 408 "),
        (upgrade, 10, Deadline::Handshake, "HTTP/1.1 503 "),
    ] {
        let mut harness = Harness::new();
        harness.receive(input);
        let timeout = Duration::from_secs(seconds);
        assert_eq!(harness.conn.deadline(), Some(harness.now + timeout));
        assert_eq!(harness.wait(timeout - Duration::from_millis(1)), None);
        assert_eq!(harness.wait(Duration::from_millis(1)), Some(missed));
        assert!(harness.sent().starts_with(status));
        assert_eq!(harness.conn.appetite(), Appetite::Close);
    }
}

#[test]
fn a_head_that_trickles_is_late_however_often_it_moves() {
    let mut harness = Harness::new();
    for byte in b"GET /ten" {
        harness.now += Duration::from_secs(1);
        harness.receive(&[*byte]);
    }
    assert_eq!(harness.wait(Duration::from_secs(3)), Some(Deadline::Head));
}

#[test]
fn an_application_that_thinks_has_no_deadline() {
    let mut harness = Harness::new();
    harness.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(harness.conn.deadline(), None);
    harness.respond(0, "");
    assert_eq!(
        harness.conn.deadline(),
        Some(harness.now + Duration::from_secs(75))
    );
}

#[test]
fn a_streamed_answer_is_chunked_and_ends_with_its_last_chunk() {
    let mut harness = Harness::new();
    harness.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let head = Response {
        status: 200,
        fields: &[(b"X-A", b"1")],
        body: b"",
    };
    let (conn, out) = (&mut harness.conn, &mut harness.out);
    assert_eq!(conn.begin_response(Exchange(0), &head, out), Ok(()));
    for piece in ["hello ", "", "world"] {
        assert_eq!(conn.write_body(Exchange(0), piece.as_bytes(), out), Ok(()));
    }
    assert_eq!(conn.finish_body(Exchange(0), harness.now, out), Ok(()));
    assert_eq!(
        conn.write_body(Exchange(0), b"x", out),
        Err(Misuse::AlreadyAnswered)
    );
    let want = "HTTP/1.1 200 OK\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n";
    assert_eq!(harness.sent(), want);
}

#[test]
fn a_streamed_answer_of_announced_length_may_be_neither_longer_nor_shorter() {
    let mut harness = Harness::new();
    harness.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let head = Response {
        status: 200,
        fields: &[(b"content-length", b"4")],
        body: b"",
    };
    let (conn, out) = (&mut harness.conn, &mut harness.out);
    assert_eq!(conn.begin_response(Exchange(0), &head, out), Ok(()));
    assert_eq!(
        conn.write_body(Exchange(0), b"12345", out),
        Err(Misuse::LengthMismatch)
    );
    assert_eq!(conn.write_body(Exchange(0), b"123", out), Ok(()));
    assert_eq!(
        conn.finish_body(Exchange(0), harness.now, out),
        Err(Misuse::LengthMismatch)
    );
    assert_eq!(conn.appetite(), Appetite::Close);
    assert_eq!(
        harness.sent(),
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n123"
    );
}

#[test]
fn an_answer_that_may_not_be_sent_leaves_nothing_behind() {
    for (status, fields, want) in [
        (101, &[][..], Misuse::InvalidStatus),
        (600, &[], Misuse::InvalidStatus),
        (200, &[(&b"a b"[..], &b"x"[..])], Misuse::InvalidField),
        (200, &[(b"a", b"x\r\nInjected: 1")], Misuse::InvalidField),
        (200, &[(b"", b"x")], Misuse::InvalidField),
        (
            200,
            &[(b"Transfer-Encoding", b"chunked")],
            Misuse::InvalidField,
        ),
        (200, &[(b"Connection", b"upgrade")], Misuse::InvalidField),
        (200, &[(b"Content-Length", b"+4")], Misuse::InvalidField),
        (200, &[(b"Content-Length", b"5")], Misuse::LengthMismatch),
    ] {
        let mut harness = Harness::new();
        harness.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let response = Response {
            status,
            fields,
            body: b"body",
        };
        let answered = harness
            .conn
            .respond(Exchange(0), &response, harness.now, &mut harness.out);
        assert_eq!(answered, Err(want), "{fields:?}");
        assert_eq!(harness.sent(), "");
        harness.respond(0, "instead");
    }
}

#[test]
fn an_accepted_upgrade_follows_the_answers_before_it() {
    let mut harness = Harness::new();
    harness
        .receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .receive(UPGRADE.as_bytes())
        .receive(b"\x81\x80abcd");
    assert_eq!(harness.story(), "request 0 GET /; request 1 GET /chat");
    assert_eq!(
        (harness.conn.appetite(), harness.spill.len()),
        (Appetite::Pause, 6)
    );
    let settings = Rc::new(WsSettings::new(Role::Server, &Limits::default()));
    let (conn, out) = (&mut harness.conn, &mut harness.out);
    assert_eq!(
        conn.accept(Exchange(0), None, &[], &settings, out),
        Err(Misuse::NotAnUpgrade)
    );
    assert_eq!(conn.accept(Exchange(1), None, &[], &settings, out), Ok(()));
    assert!(conn.take_accepted().is_none());
    harness.respond(0, "first");
    assert!(harness.conn.take_accepted().is_some());
    let sent = harness.sent();
    assert!(
        sent.starts_with("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirstHTTP/1.1 101 "),
        "{sent}"
    );
}

#[test]
fn a_refused_upgrade_leaves_an_http_connection() {
    let mut harness = Harness::new();
    harness
        .receive(UPGRADE.as_bytes())
        .respond(0, "no")
        .receive(b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(harness.story(), "request 0 GET /chat; request 1 GET /next");
}

#[test]
fn rfc6455_4_4_another_websocket_version_is_told_ours() {
    let mut harness = Harness::new();
    harness.receive(UPGRADE.replace("Version: 13", "Version: 8").as_bytes());
    assert_eq!(harness.story(), "violation WebSocketVersion");
    let sent = harness.sent();
    for want in [
        "HTTP/1.1 426 ",
        "\r\nSec-WebSocket-Version: 13\r\n",
        "\r\nConnection: close, upgrade\r\n",
    ] {
        assert!(sent.contains(want), "{sent}");
    }
}

#[test]
fn rfc6455_4_2_1_a_malformed_handshake_is_refused_before_the_application_sees_it() {
    for (from, to) in [
        ("dGhlIHNhbXBsZSBub25jZQ==", "short"),
        ("Sec-WebSocket-Key", "X-Key"),
        ("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13"),
    ] {
        let mut harness = Harness::new();
        harness.receive(UPGRADE.replace(from, to).as_bytes());
        assert_eq!(
            harness.story(),
            format!("violation {}", Violation::WebSocketHandshake.name())
        );
        assert!(harness.sent().starts_with("HTTP/1.1 400 "));
    }
}

#[test]
fn a_server_without_websockets_ignores_the_upgrade() {
    let mut harness = Harness::with(|settings| settings.websocket = false);
    harness
        .receive(UPGRADE.as_bytes())
        .receive(UPGRADE.as_bytes());
    assert_eq!(harness.story(), "request 0 GET /chat; request 1 GET /chat");
}

#[test]
fn a_drain_closes_the_idle_at_once_and_the_busy_when_they_are_answered() {
    let mut idle = Harness::new();
    idle.conn.begin_drain();
    assert_eq!(idle.conn.appetite(), Appetite::Close);
    for (before, after) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &b""[..]),
        (b"GET / HTT", b"P/1.1\r\nHost: x\r\n\r\n"),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n1",
            b"2",
        ),
    ] {
        let mut harness = Harness::new();
        harness.receive(before).conn.begin_drain();
        assert_ne!(harness.conn.appetite(), Appetite::Close);
        harness.receive(after).respond(0, "");
        assert!(harness.sent().contains("\r\nConnection: close\r\n"));
        assert_eq!(harness.conn.appetite(), Appetite::Close);
    }
}

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn pages(body: &str, fields: &[(&str, &str)], reason: Option<&str>) -> RefusalPage {
    let boxed = |text: &str| -> Box<[u8]> { text.as_bytes().into() };
    RefusalPage {
        reason: reason.map(boxed),
        fields: fields.iter().map(|(n, v)| (boxed(n), boxed(v))).collect(),
        body: boxed(body),
    }
}

#[test]
fn rfc9110_15_a_refusal_says_what_the_listener_has_for_its_status() {
    let page = pages("too much", &[("X-A", "b")], Some("Payload Too Large"));
    let mut harness = Harness::with(|settings| {
        settings.refusals.set_page(413, page).expect("a page");
    });
    harness.receive(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n");
    assert_eq!(
        harness.sent(),
        "HTTP/1.1 413 Payload Too Large\r\nX-A: b\r\nContent-Length: 8\r\nConnection: close\r\n\r\n\
         too much"
    );
    assert_eq!(harness.conn.appetite(), Appetite::Close);
}

#[test]
fn the_page_of_a_status_stands_in_for_an_answer_that_is_left_to_the_server() {
    let fields = [("Content-Type", "text/html"), ("Connection", "close")];
    let page = pages("<p>sorry", &fields, None);
    let mut harness = Harness::with(|settings| {
        settings.refusals.set_page(500, page).expect("a page");
    });
    harness.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let response = Response {
        status: 500,
        fields: &[(b"Content-Type", b"text/plain"), (b"Allow", b"GET")],
        body: b"plain",
    };
    let now = harness.now;
    let answered = harness
        .conn
        .respond_with_page(Exchange(0), &response, now, &mut harness.out);
    assert_eq!(answered, Ok(()));
    assert_eq!(
        harness.sent(),
        "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/html\r\nAllow: GET\r\n\
         Content-Length: 8\r\nConnection: close\r\n\r\n<p>sorry"
    );
    assert_eq!(harness.conn.appetite(), Appetite::Close);
}

#[test]
fn a_status_may_be_refused_in_silence_but_answers_that_are_owed_are_given() {
    let mut harness = Harness::with(|settings| {
        settings.refusals.set_silent(408).expect("a status");
    });
    harness.receive(b"GET / HT");
    let late = harness.now + Duration::from_secs(10);
    let missed = harness.conn.handle_deadline(late, &mut harness.out);
    assert_eq!(missed, Some(Deadline::Head));
    assert_eq!(harness.sent(), "");
    assert_eq!(harness.conn.appetite(), Appetite::Close);

    let mut harness = Harness::with(|settings| {
        settings.refusals.set_silent(400).expect("a status");
    });
    harness.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT");
    let ended = harness.conn.receive_eof(&mut harness.out);
    assert_eq!(ended, Err(Violation::Incomplete));
    harness.respond(0, "first");
    let sent = harness.sent();
    assert!(sent.starts_with("HTTP/1.1 200 OK\r\n"), "{sent}");
    assert!(sent.contains("HTTP/1.1 400 Bad Request\r\n"), "{sent}");
}

#[test]
fn a_page_that_could_not_be_sent_is_not_taken() {
    let mut refusals = Refusals::default();
    for (status, fields, reason, want) in [
        (497, &[][..], None, Misuse::InvalidStatus),
        (200, &[][..], None, Misuse::InvalidStatus),
        (400, &[("A", "b\r\nc")][..], None, Misuse::InvalidField),
        (
            400,
            &[("Content-Length", "1")][..],
            None,
            Misuse::InvalidField,
        ),
        (400, &[][..], Some("a\nb"), Misuse::InvalidField),
    ] {
        let taken = refusals.set_page(status, pages("x", fields, reason));
        assert_eq!(taken, Err(want), "{status} {fields:?} {reason:?}");
    }
    assert_eq!(refusals, Refusals::default());
}

#[test]
fn a_request_without_tls_is_told_so_unless_497_is_silent() {
    let told = |change: fn(&mut ServerSettings)| {
        Driver::Server(Harness::with(change).conn).plain_http_refusal()
    };
    assert!(told(|_| {}).starts_with(b"HTTP/1.1 400 "));
    let silent = told(|settings| settings.refusals.set_silent(497).expect("a status"));
    assert_eq!(silent, b"");
}
