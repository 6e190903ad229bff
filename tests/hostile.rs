//! Garbage, truncation, oversize, slow bytes, half-close and reset, over real sockets.
//!
//! Every refusal must be *readable*: the status arrives and then the end, not a reset that throws
//! the answer away. After each abuse the same server answers the next client.

use crate::harness::{Huki, Wire, show};
use crate::http::ECHO;
use std::thread;

/// What a client may send and the status that refuses it.
fn refusals() -> Vec<(&'static str, Vec<u8>, u16)> {
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9000));
    let long_head = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(20_000)
    );
    let many_fields = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "X: y\r\n".repeat(150)
    );
    let long_chunk = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n11170\r\n{}",
        "x".repeat(0x11170)
    );
    let rows: [(&str, &[u8], u16); 21] = [
        ("garbage", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        ("no target", b"GET HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("bare LF", b"GET / HTTP/1.1\nHost: a\n\n", 400),
        ("NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
        ("folded line", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
        ("space before colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("no Host", b"GET / HTTP/1.1\r\n\r\n", 400),
        ("two Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("length and chunked", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("two lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
        ("signed length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400),
        ("chunked in 1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("chunked not last", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400),
        ("signed chunk", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+4\r\nWiki\r\n0\r\n\r\n", 400),
        ("huge chunk", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", 400),
        ("length past the limit", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\nabc", 413),
        ("long target", long_target.as_bytes(), 414),
        ("unknown expectation", b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: a-miracle\r\n\r\n", 417),
        ("long head", long_head.as_bytes(), 431),
        ("unknown coding", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ];
    let mut all: Vec<_> = rows
        .map(|(name, bytes, status)| (name, bytes.to_vec(), status))
        .into();
    all.push(("many fields", many_fields.into_bytes(), 431));
    all.push(("chunks past the limit", long_chunk.into_bytes(), 413));
    all
}

#[test]
fn every_refusal_is_readable_and_closes() {
    let huki = Huki::serve(ECHO);
    for (name, bytes, status) in refusals() {
        eprintln!("{name}");
        let mut wire = huki.connect();
        wire.send(&bytes);
        let reply = wire.reply();
        assert_eq!(reply.status, status, "{name}");
        assert_eq!(reply.field("connection"), Some("close"), "{name}");
        wire.expect_end();
    }
    assert_eq!(huki.connect().get("/after").status, 200);
}

#[test]
fn every_refusal_is_the_same_byte_by_byte() {
    let huki = Huki::serve(ECHO);
    for (name, bytes, status) in refusals()
        .into_iter()
        .filter(|(_, bytes, _)| bytes.len() < 200)
    {
        eprintln!("{name}");
        let mut wire = huki.connect();
        // The verdict may come before the last byte.
        for byte in bytes {
            if !wire.try_send([byte]) {
                break;
            }
        }
        assert_eq!(wire.reply().status, status, "{name}");
        wire.expect_end();
    }
}

#[test]
fn answers_owed_come_before_the_refusal() {
    let huki = Huki::serve(ECHO);
    let mut wire = huki.connect();
    wire.send("GET /slow?ms=50 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nNo Host\r\n\r\n");
    assert_eq!(wire.reply().text(), "GET /slow?ms=50 0 ");
    assert_eq!(wire.reply().status, 400);
    wire.expect_end();
}

#[test]
fn a_refused_upload_can_read_why() {
    let huki = Huki::serve(ECHO);
    let mut wire = huki.connect();
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n");
    // The client goes on writing as if nothing had happened; closing on it at once would reset the
    // connection and destroy the answer.
    for _ in 0..64 {
        if !wire.try_send([b'x'; 16 * 1024]) {
            break;
        }
    }
    assert_eq!(wire.reply().status, 413);
}

#[test]
fn a_head_that_stops_coming_is_408_and_an_idle_connection_just_closes() {
    let huki = Huki::serve(
        r#"
        local server = net.serve({
            port = 0,
            limits = { headTimeout = 0.3, idleTimeout = 0.3, bodyTimeout = 0.3 },
            request = function() return "ok" end,
        })
        print(`port {server.port}`)
        "#,
    );
    let mut idle = huki.connect();
    assert_eq!(idle.get("/").status, 200);
    idle.expect_end();

    let mut head = huki.connect();
    head.send("GET / HTTP/1.1\r\nHo");
    assert_eq!(head.reply().status, 408);
    head.expect_end();

    let mut body = huki.connect();
    body.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    assert_eq!(body.reply().status, 408);
    body.expect_end();
}

/// A request with everything in it.
const WHOLE: &str =
    "POST /cut HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";

#[test]
fn a_request_cut_by_a_half_close_at_any_point_ends_that_connection_only() {
    let huki = Huki::serve(ECHO);
    for cut in 0..WHOLE.len() {
        let mut wire = huki.connect();
        wire.send(&WHOLE[..cut]);
        wire.half_close();
        let answer = wire.ends();
        let refused = answer.is_empty() || answer.starts_with(b"HTTP/1.1 400 ");
        assert!(refused, "cut at {cut}: {}", show(&answer));
    }
    let mut wire = huki.connect();
    wire.send(WHOLE);
    assert_eq!(wire.reply().text(), "POST /cut 3 abc");
}

#[test]
fn a_request_cut_by_a_reset_at_any_point_ends_that_connection_only() {
    let huki = Huki::serve(ECHO);
    let mut steady = huki.connect();
    for cut in 0..=WHOLE.len() {
        let mut wire = huki.connect();
        wire.send(&WHOLE[..cut]);
        wire.reset();
        assert_eq!(steady.get("/steady").status, 200, "cut at {cut}");
    }
}

#[test]
fn peers_that_vanish_while_a_handler_yields_disturb_nobody() {
    let mut huki = Huki::serve(
        r#"
        local finished = 0
        local server = net.serve({
            port = 0,
            request = function(request)
                if request.path == "/slow" then
                    task.wait(0.05)
                    finished += 1
                    if finished == 50 then print("all finished") end
                end
                return "ok"
            end,
        })
        print(`port {server.port}`)
        "#,
    );
    for number in 0..50 {
        let mut wire = huki.connect();
        wire.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        if number % 2 == 0 {
            wire.reset();
        }
    }
    huki.expect_stdout("all finished");
    assert_eq!(huki.connect().get("/").text(), "ok");
}

/// A small generator (SplitMix64), so that garbage is the same in every run.
struct Seed(u64);

impl Seed {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// One bad client; which kind, the number says. It ends with its connection.
fn misbehave(port: u16, number: u64) {
    let mut seed = Seed(number);
    let mut wire = Wire::connect(port);
    match number % 5 {
        0 => {
            let _ = wire.try_send(seed.bytes(2000));
            wire.half_close();
            wire.ends();
        }
        1 => {
            for byte in WHOLE.bytes().take(30) {
                let _ = wire.try_send([byte]);
            }
            wire.reset();
        }
        2 => {
            let _ = wire.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(200));
            wire.reset();
        }
        3 => {
            wire.half_close();
            wire.ends();
        }
        _ => {
            let _ =
                wire.try_send("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
            let _ = wire.try_send(seed.bytes(500));
            wire.half_close();
            wire.ends();
        }
    }
}

#[test]
fn a_crowd_of_bad_clients_does_not_touch_a_good_one() {
    let huki = Huki::serve(ECHO);
    let port = huki.port;
    let crowd: Vec<_> = (0..8)
        .map(|lane| thread::spawn(move || (0..25).for_each(|n| misbehave(port, lane * 25 + n))))
        .collect();
    let mut good = huki.connect();
    for number in 0..300 {
        assert_eq!(
            good.get(&format!("/{number}")).text(),
            format!("GET /{number} 0 ")
        );
    }
    for lane in crowd {
        lane.join().expect("every bad connection ended");
    }
    assert_eq!(huki.connect().get("/after").status, 200);
}

#[test]
fn refused_connections_leave_no_memory_behind() {
    let huki = Huki::serve(ECHO);
    let abuse = |count: usize| {
        for number in 0..count {
            let mut wire = huki.connect();
            let filler = "x".repeat(15_000);
            wire.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {filler}"));
            if number % 2 == 0 {
                wire.reset();
            } else {
                wire.half_close();
                wire.ends();
            }
        }
    };
    abuse(200);
    let Some(before) = huki.resident_kib() else {
        eprintln!("skipped: this system does not tell resident memory");
        return;
    };
    abuse(2000);
    let after = huki.resident_kib().expect("told a moment ago");
    assert!(
        after < before + 4096,
        "resident {before} KiB, then {after} KiB"
    );
}
