//! What is refused before a script is entered, and whose address a request has.

use crate::support::{Client, Frame, Served};
use std::io::{Read, Write};

/// `GET /` with further `fields`: the body of the answer.
fn get(server: &Served, fields: &str) -> String {
    let answer = server.exchange(&format!(
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n"
    ));
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    body.to_owned()
}

#[test]
fn only_trusted_proxies_are_believed_about_the_client() {
    const TELL: &str = "request = function(r) return r.ip end })";
    let trusting = Served::start(&format!(
        "server = net.serve({{ port = 0, trustProxy = {{ '127.0.0.0/8', '10.0.0.0/8' }}, {TELL}"
    ));
    for (fields, ip) in [
        ("", "127.0.0.1"),
        ("X-Forwarded-For: 1.2.3.4\r\n", "1.2.3.4"),
        // What the client invents stands in front; 10.0.0.9 is a proxy.
        ("X-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.0.0.9\r\n", "1.2.3.4"),
        (
            "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\n",
            "1.2.3.4",
        ),
        ("X-Forwarded-For: 10.0.0.1, 10.0.0.2\r\n", "10.0.0.1"),
        ("X-Forwarded-For: 1.2.3.4, garbage\r\n", "127.0.0.1"),
        (
            "Forwarded: for=6.6.6.6, for=\"[2001:db8::7]:99\";proto=https\r\n",
            "2001:db8::7",
        ),
        ("Forwarded: proto=https\r\n", "127.0.0.1"),
    ] {
        assert_eq!(get(&trusting, fields), ip, "{fields}");
    }
    assert_eq!(trusting.stop(), "");
    let wary = Served::start(&format!("server = net.serve({{ port = 0, {TELL}"));
    assert_eq!(get(&wary, "X-Forwarded-For: 1.2.3.4\r\n"), "127.0.0.1");
    assert_eq!(wary.stop(), "");
}

#[test]
fn a_socket_has_the_address_that_its_upgrade_came_with() {
    let server = Served::start(
        "server = net.serve({ port = 0, trustProxy = { '127.0.0.1' }, websocket = {
            upgrade = function(r) task.wait() return r.path ~= '/no' end,
            open = function(ws) ws:send(ws.ip) end,
        } })",
    );
    let forwarded = "X-Forwarded-For: 1.2.3.4\r\n";
    assert!(
        Client::ask(&server, "/no", forwarded)
            .1
            .starts_with("HTTP/1.1 403 ")
    );
    Client::open(&server, "/", "").expect_text("127.0.0.1");
    Client::open(&server, "/", forwarded).expect_text("1.2.3.4");
    assert_eq!(server.stop(), "");
}

#[test]
fn an_address_that_asks_too_often_gets_429_and_its_neighbour_an_answer() {
    let server = Served::start(
        "local count = 0
        server = net.serve({ port = 0, trustProxy = { '127.0.0.1' },
            limits = { requestsPerSecondPerIp = 1, handshakesPerSecondPerIp = 1 },
            request = function() count += 1 return tostring(count) end,
            websocket = {} })",
    );
    // Requests of one burst take no second, however slow the machine: they are pipelined.
    let ask = |ip: &str| {
        let one = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {ip}\r\n\r\n");
        let answer = server.exchange(&one.repeat(10));
        let count = |status: &str| answer.matches(&format!("HTTP/1.1 {status} ")).count();
        assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
        (count("200"), count("429"))
    };
    for ip in ["1.1.1.1", "2001:db8::1"] {
        let (answered, refused) = ask(ip);
        // Two, and one for each second that a busy machine may have taken.
        assert!(
            (2..6).contains(&answered) && answered + refused == 10,
            "{answered}"
        );
    }
    // The 64 bits of a client are one address.
    assert!(ask("2001:db8::2").0 < 6);
    let field = "X-Forwarded-For: 3.3.3.3\r\n";
    let mut refused = 0;
    for _ in 0..30 {
        let (_, head) = Client::ask(&server, "/", field);
        refused += usize::from(head.starts_with("HTTP/1.1 429 "));
    }
    assert!(refused > 0);
    assert_eq!(server.stop(), "");
}

#[test]
fn connections_of_one_address_are_bounded_and_those_that_leave_make_room() {
    let server = Served::start(
        "server = net.serve({ port = 0, limits = { connectionsPerIp = 3 },
            request = function() return tostring(server:stats().turnedAway) end })",
    );
    let ask = || {
        let mut stream = server.connect();
        let mut answer = [0; 15];
        let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let answered = asked.and_then(|()| stream.read_exact(&mut answer));
        (stream, answered.is_ok())
    };
    let held: Vec<_> = (0..3).map(|_| ask()).collect();
    assert!(held.iter().all(|(_, answered)| *answered));
    assert!(!ask().1, "a fourth is turned away");
    drop(held);
    // They leave when the server has seen it.
    let last = || {
        let (mut stream, mut answer) = (server.connect(), String::new());
        let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        asked
            .and_then(|()| stream.read_to_string(&mut answer))
            .ok()?;
        answer
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned())
    };
    let turned_away: u32 = loop {
        if let Some(body) = last() {
            break body.parse().expect("a number");
        }
    };
    assert!(turned_away >= 1);
    assert_eq!(server.stop(), "");
}

#[test]
fn a_socket_that_sends_too_much_is_warned_then_loses_messages_then_is_closed_with_1008() {
    let mut server = Served::start(
        r#"local count = 0
        server = net.serve({ port = 0,
            error = function(message, context) print("warned:", message, context.kind) end,
            websocket = { messagesPerSecond = 100,
                message = function(ws, message) count += 1 end,
                close = function(ws, code)
                    print(code, count >= 200, count < 2000, server:stats().messagesRefused > 0)
                end } })"#,
    );
    let mut client = Client::open(&server, "/", "");
    let frames: Vec<u8> = [0x81, 0x81, 0, 0, 0, 0, b'x'].repeat(20_000);
    let _cut = client.0.write_all(&frames);
    assert_eq!(client.receive(), Frame::close(1008, "too many messages"));
    client.send(8, &Frame::close(1008, "").payload);
    let warned = "warned:\tthe peer sends more than its rate allows\tmessage";
    assert_eq!(server.line(), warned);
    assert_eq!(server.line(), "1008\ttrue\ttrue\ttrue");
    assert_eq!(server.stop(), "");
}

#[test]
fn bytes_are_counted_apart_from_messages() {
    let mut server = Served::start(
        r#"local count = 0
        server = net.serve({ port = 0, error = function() end,
            websocket = { bytesPerSecond = 1000, messagesPerSecond = 1_000_000,
                message = function(ws, message) count += 1 end,
                close = function(ws, code) print(code, count >= 4, count < 200) end } })"#,
    );
    let mut client = Client::open(&server, "/", "");
    // 500 bytes each: a hundred seconds' worth.
    let frame = [&[0x82, 0xfe, 1, 0xf4, 0, 0, 0, 0][..], &[7; 500]].concat();
    let _cut = client.0.write_all(&frame.repeat(200));
    assert_eq!(client.receive(), Frame::close(1008, "too many messages"));
    client.send(8, &Frame::close(1008, "").payload);
    assert_eq!(server.line(), "1008\ttrue\ttrue");
    assert_eq!(server.stop(), "");
}

#[test]
fn proxies_that_are_no_addresses_are_refused() {
    for wrong in ["{ 'proxy.test' }", "{ '10.0.0.0/40' }", "{ 7 }"] {
        let source = format!(
            "require('@huki/net').serve({{ port = 0, trustProxy = {wrong}, request = print }})"
        );
        let output = crate::support::run(&source, &[]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            stderr.contains("option 'trustProxy' must be a list"),
            "{stderr}"
        );
    }
}
