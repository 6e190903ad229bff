//! What is refused before a script is entered, and whose address a request has.

use crate::support::{Client, Frame, PATIENCE, Served};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

/// When it is, for rates that go on while a test runs: what they admit is bounded by how long it took.
#[expect(
    clippy::disallowed_methods,
    reason = "a rate is what is tested, and a slow machine admits more"
)]
fn now() -> Instant {
    Instant::now()
}

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

/// Each of two workers alone would let twice as many through.
#[test]
fn what_one_address_may_do_it_may_do_at_all_workers_together() {
    for balance in ["system", "connections"] {
        let mut server = Served::in_workers(
            "2",
            &format!(
                r#"local net, process, task = require("@huki/net"), require("@huki/process"), require("@huki/task")
                local index = tostring(process.worker.index)
                local function serve(limits, websocket)
                    return net.serve({{ port = 0, balance = "{balance}", limits = limits, websocket = websocket,
                        request = function() return index end }})
                end
                local rates = serve({{ requestsPerSecondPerIp = 5, handshakesPerSecondPerIp = 1 }}, {{}})
                local connections = serve({{ connectionsPerIp = 10 }})
                if index == "2" then
                    print(rates.port)
                    print(connections.port)
                end"#
            ),
        );
        let rates = server.port;
        let connections = server.line().parse().expect("a port");
        let ask = |port: u16, more: &str| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
            stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
            let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{more}\r\n");
            let mut answer = [0; 1_024];
            let asked = stream.write_all(request.as_bytes());
            let count = asked.and_then(|()| stream.read(&mut answer)).unwrap_or(0);
            (
                stream,
                String::from_utf8_lossy(&answer[..count]).into_owned(),
            )
        };
        // Ten connections stay, and no eleventh, whoever would have served it.
        let mut held = Vec::new();
        let refused = loop {
            let (stream, answer) = ask(connections, "");
            match answer.is_empty() {
                true => break held.len(),
                false => held.push((stream, answer)),
            }
        };
        assert_eq!(refused, 10, "{balance}");
        let workers: BTreeSet<_> = held
            .iter()
            .map(|(_, answer)| answer.as_bytes().last().copied())
            .collect();
        if balance == "connections" {
            assert_eq!(workers.len(), 2);
        }
        assert!(
            (0..20).all(|_| ask(connections, "").1.is_empty()),
            "{balance}"
        );
        let begun = now();
        let answers: Vec<_> = (0..60).map(|_| ask(rates, "").1).collect();
        let most = 10 + 5 * (begun.elapsed().as_secs() + 1);
        let count = answers
            .iter()
            .filter(|it| it.starts_with("HTTP/1.1 200"))
            .count();
        // Ten were saved up, and five come each second that a busy machine may have taken.
        assert!(
            (10..=usize::try_from(most).expect("few")).contains(&count),
            "{balance}: {count}"
        );
        assert!(answers.iter().any(|it| it.starts_with("HTTP/1.1 429")) || most > 60);
        server.stop();
    }
}

#[test]
fn a_worker_that_fails_takes_its_connections_out_of_the_count() {
    let server = Served::in_workers(
        "2",
        r#"local net, process, task = require("@huki/net"), require("@huki/process"), require("@huki/task")
        local fails = false
        local server = net.serve({ port = 0, balance = "connections", limits = { connectionsPerIp = 4 },
            request = function(request)
                fails = request.path == "/fail"
                return tostring(process.worker.index)
            end })
        if process.worker.index == 2 then print(server.port) end
        while not fails do task.wait(0.01) end
        error("as told")"#,
    );
    let ask = |path: &str| {
        let mut stream = server.connect();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut answer = [0; 1_024];
        let asked = stream.write_all(request.as_bytes());
        let count = asked.and_then(|()| stream.read(&mut answer)).unwrap_or(0);
        (count > 0).then_some(stream)
    };
    let mut held: Vec<_> = (0..4).map_while(|_| ask("/")).collect();
    assert!(held.len() == 4 && ask("/").is_none());
    // Whoever fails has this connection and one more.
    let request = b"GET /fail HTTP/1.1\r\nHost: x\r\n\r\n";
    held[0].write_all(request).expect("it is open");
    let mut end = Vec::new();
    let _reset = held[0].read_to_end(&mut end);
    held.clear();
    // Four can be had again, or else somebody who has gone is still counted.
    let begun = now();
    while held.len() < 4 {
        held.extend(ask("/"));
        assert!(begun.elapsed() < PATIENCE, "only {} can be had", held.len());
    }
    assert!(server.stop().contains("as told"));
}

/// They cost a server far more than the peer.
#[test]
fn handshakes_of_tls_count_by_address_and_trusted_proxies_may_have_many() {
    for (trusted, is_bounded) in [("{}", true), ("{ '127.0.0.1' }", false)] {
        let certificate =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("names");
        let (cert, key) = (
            certificate.cert.pem(),
            certificate.signing_key.serialize_pem(),
        );
        let mut server = Served::start(&format!(
            "local tls = net.serve({{ port = 0, trustProxy = {trusted},
                tls = {{ cert = [[{cert}]], key = [[{key}]] }},
                limits = {{ handshakesPerSecondPerIp = 1 }},
                request = function() return 'x' end }})
            print(tls.port)
            local asked = 0
            server = net.serve(0, function()
                asked += 1
                local stats = server:stats()
                return `{{stats.turnedAway}} {{stats.accepted - asked}}`
            end)"
        ));
        let (tls, port) = (server.port, server.line().parse().expect("a port"));
        server.port = port;
        let begun = now();
        let held: Vec<_> = (0..30)
            .map(|_| TcpStream::connect(("127.0.0.1", tls)))
            .collect();
        let count = loop {
            let told = get(&server, "");
            let (away, accepted) = told.split_once(' ').expect("two numbers");
            let (away, accepted): (usize, usize) = (
                away.parse().expect("a number"),
                accepted.parse().expect("a number"),
            );
            if away + accepted == held.len() {
                break accepted;
            }
        };
        let most = 3 + usize::try_from(begun.elapsed().as_secs()).expect("few");
        match is_bounded {
            true => assert!((2..=most).contains(&count), "{count}"),
            false => assert_eq!(count, 30),
        }
        assert_eq!(server.stop(), "");
    }
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
