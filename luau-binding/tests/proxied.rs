//! Servers behind proxies: whose request it is, by the PROXY protocol and by fields of HTTP, and
//! over which scheme it came.

use crate::support::{Client, Served};
use std::io::{Read, Write};

const TELL: &str = "request = function(r) return `{r.ip} {r.port} {r.scheme}` end";

/// A server with `options` that answers with who asks.
fn tells(options: &str) -> Served {
    Served::start(&format!(
        "server = net.serve({{ port = 0, {options}, {TELL} }})"
    ))
}

/// What `header` and a `GET /` with further `fields` behind it are answered with.
fn ask(server: &Served, header: &[u8], fields: &str) -> String {
    let mut stream = server.connect();
    let get = format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n");
    let all = [header, get.as_bytes()].concat();
    let mut answer = String::new();
    // Who is refused may find its connection reset while it speaks or listens.
    let _cut = stream
        .write_all(&all)
        .and_then(|()| stream.read_to_string(&mut answer));
    answer
}

fn body(answer: &str) -> &str {
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

fn v1(ip: &str) -> Vec<u8> {
    format!("PROXY TCP4 {ip} 10.9.9.9 50123 443\r\n").into()
}

fn v2(command: u8, family: u8, said: &[u8]) -> Vec<u8> {
    let length = u16::try_from(said.len()).expect("short").to_be_bytes();
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    [signature, &[command, family][..], &length, said].concat()
}

const SAID: &[u8] = &[192, 0, 2, 8, 198, 51, 100, 1, 0, 80, 1, 187];

#[test]
fn the_header_of_a_trusted_proxy_names_the_client() {
    let server = tells("trustProxy = { '127.0.0.1' }, proxyProtocol = true");
    let own = "127.0.0.1 ";
    for (header, who) in [
        (v1("192.0.2.7"), "192.0.2.7 50123 http"),
        (
            b"PROXY TCP6 fd00::8 ::1 9 443\r\n".to_vec(),
            "fd00::8 9 http",
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), own),
        (v2(0x21, 0x11, SAID), "192.0.2.8 80 http"),
        (
            v2(0x21, 0x11, &[SAID, &[4, 0, 1, 9]].concat()),
            "192.0.2.8 80 http",
        ),
        (v2(0x20, 0, &[]), own),
        (v2(0x21, 0, &[]), own),
    ] {
        let answer = ask(&server, &header, "");
        let said = body(&answer);
        assert!(said.starts_with(who), "{said}, not {who}");
    }
    // Without one, or with one that is broken, there is no word.
    assert_eq!(ask(&server, b"", ""), "");
    assert_eq!(ask(&server, b"PROXY TCP4 1.2.3.4\r\n", ""), "");
    assert_eq!(server.stop(), "");
}

#[test]
fn others_cannot_announce_anybody_and_need_not() {
    let server = tells("trustProxy = { '10.0.0.0/8' }, proxyProtocol = true");
    for header in [v1("192.0.2.7"), v2(0x21, 0x11, SAID), v2(0x20, 0, &[])] {
        let answer = ask(&server, &header, "");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    let answer = ask(&server, b"", "X-Forwarded-For: 9.9.9.9\r\n");
    assert!(body(&answer).starts_with("127.0.0.1 "), "{answer}");
    assert_eq!(server.stop(), "");
}

/// The header says who speaks HTTP, and only if that is a proxy, too, is it believed about others.
#[test]
fn fields_count_if_the_header_names_a_proxy_or_the_proxy_speaks_for_itself() {
    let server = tells("trustProxy = { '127.0.0.1', '10.0.0.0/8' }, proxyProtocol = true");
    let fields = "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\n";
    for (header, who) in [
        (v1("192.0.2.7"), "192.0.2.7 50123 http"),
        (v1("10.1.2.3"), "9.9.9.9 0 https"),
        (v2(0x20, 0, &[]), "9.9.9.9 0 https"),
    ] {
        assert_eq!(body(&ask(&server, &header, fields)), who);
    }
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), v2(0x21, 0, &[])] {
        let answer = ask(&server, &header, fields);
        let said = body(&answer);
        let is_own = said.starts_with("127.0.0.1 ") && said.ends_with(" http");
        assert!(is_own, "a stranger's fields were believed: {said}");
    }
    assert_eq!(server.stop(), "");
}

#[test]
fn guards_count_by_the_address_that_the_header_names() {
    let server = tells(
        "trustProxy = { '127.0.0.1' }, proxyProtocol = true,
        limits = { requestsPerSecondPerIp = 1, connectionsPerIp = 2 }",
    );
    // Requests of one burst take no second, however slow the machine: they are pipelined.
    let burst = |ip: &str| {
        let mut stream = server.connect();
        let one = "GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(9);
        let last = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let all = [&v1(ip)[..], one.as_bytes(), last.as_bytes()].concat();
        stream.write_all(&all).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer.matches("HTTP/1.1 429 ").count()
    };
    assert!(burst("192.0.2.7") > 0);
    assert!(burst("192.0.2.7") > 0);
    // A neighbour behind the same proxy has a rate of its own.
    assert!(ask(&server, &v1("192.0.2.8"), "").starts_with("HTTP/1.1 200 "));

    let hold = |ip: &str| {
        let mut stream = server.connect();
        let get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let all = [&v1(ip)[..], get].concat();
        let asked = stream.write_all(&all);
        let heard = asked.and_then(|()| stream.read_exact(&mut [0; 15]));
        (stream, heard.is_ok())
    };
    let held: Vec<_> = (0..2).map(|_| hold("192.0.2.9")).collect();
    assert!(held.iter().all(|(_, is_answered)| *is_answered));
    assert!(!hold("192.0.2.9").1, "a third is turned away");
    assert!(hold("192.0.2.10").1);
    drop(held);
    assert_eq!(server.stop(), "");
}

#[test]
fn a_socket_has_the_address_of_the_header() {
    let server = Served::start(
        "server = net.serve({ port = 0, trustProxy = { '127.0.0.1' }, proxyProtocol = true,
            websocket = { open = function(ws) ws:send(ws.ip) end } })",
    );
    let mut stream = server.connect();
    stream.write_all(&v1("192.0.2.7")).expect("it reads");
    let (mut client, head) = Client::upgrade(stream, "/", "");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client.expect_text("192.0.2.7");
    assert_eq!(server.stop(), "");
}

#[test]
fn whom_to_trust_must_be_said() {
    let source = "require('@huki/net').serve({ port = 0, proxyProtocol = true, request = print })";
    let output = crate::support::run(source, &[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let why = "option 'proxyProtocol' needs the proxies' addresses in 'trustProxy'";
    assert!(stderr.contains(why), "{stderr}");
}

#[cfg(unix)]
#[test]
fn a_proxy_at_a_socket_in_the_file_system_is_trusted_without_a_list() {
    use std::os::unix::net::UnixStream;
    let folder = std::env::temp_dir().join(format!("huki-proxied-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the socket");
    let path = folder.join("socket");
    let server = Served::start(&format!(
        "server = net.serve({{ address = 'unix:{}', proxyProtocol = true, {TELL} }})",
        path.display()
    ));
    let mut stream = UnixStream::connect(&path).expect("it listens");
    let get = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let all = [&v1("192.0.2.7")[..], get].concat();
    stream.write_all(&all).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert_eq!(body(&answer), "192.0.2.7 50123 http");
    assert_eq!(server.stop(), "");
    std::fs::remove_dir_all(&folder).expect("it is ours");
}

#[test]
fn only_trusted_proxies_are_believed_about_the_scheme() {
    let trusting = tells("trustProxy = { '127.0.0.1', '10.0.0.0/8' }");
    let scheme = |server: &Served, fields: &str| {
        let answer = ask(server, b"", fields);
        body(&answer).rsplit(' ').next().map(str::to_owned)
    };
    for (fields, expected) in [
        ("", "http"),
        ("X-Forwarded-Proto: https\r\n", "https"),
        ("x-forwarded-proto: HTTPS\r\n", "https"),
        ("X-Forwarded-Proto: wss\r\n", "https"),
        ("X-Forwarded-Proto: http\r\n", "http"),
        ("X-Forwarded-Proto: gopher\r\n", "http"),
        // The client invented the first, the proxy wrote the last.
        ("X-Forwarded-Proto: https, http\r\n", "http"),
        (
            "X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n",
            "http",
        ),
        // 10.0.0.9 spoke HTTP to the last proxy, and the client HTTPS to 10.0.0.9.
        (
            "X-Forwarded-For: 1.2.3.4, 10.0.0.9\r\nX-Forwarded-Proto: https, http\r\n",
            "https",
        ),
        (
            "X-Forwarded-For: 1.2.3.4, 10.0.0.9\r\nX-Forwarded-Proto: https\r\n",
            "https",
        ),
        (
            "X-Forwarded-For: 6.6.6.6, 1.2.3.4\r\nX-Forwarded-Proto: https, http\r\n",
            "http",
        ),
        ("Forwarded: for=1.2.3.4;proto=https\r\n", "https"),
        ("Forwarded: proto=\"https\"\r\n", "https"),
        (
            "Forwarded: for=6.6.6.6;proto=https, for=1.2.3.4;proto=http\r\n",
            "http",
        ),
        (
            "Forwarded: for=1.2.3.4;proto=https, for=10.0.0.9;proto=http\r\n",
            "https",
        ),
        ("Forwarded: for=_hidden;proto=https\r\n", "https"),
        (
            "Forwarded: proto=https\r\nX-Forwarded-Proto: http\r\n",
            "http",
        ),
    ] {
        assert_eq!(
            scheme(&trusting, fields).as_deref(),
            Some(expected),
            "{fields}"
        );
    }
    assert_eq!(trusting.stop(), "");
    for options in ["trustProxy = { '10.0.0.0/8' }", "trustProxy = {}"] {
        let wary = tells(options);
        for fields in ["X-Forwarded-Proto: https\r\n", "Forwarded: proto=https\r\n"] {
            assert_eq!(scheme(&wary, fields).as_deref(), Some("http"), "{options}");
        }
        assert_eq!(wary.stop(), "");
    }
}

#[test]
fn a_stream_has_the_address_that_a_proxy_names_and_a_stranger_s_header_is_bytes() {
    const ACCEPT: &str = "accept = function(stream)
        local text = stream:read()
        stream:write(`{stream.remoteIp} {stream.remotePort} {buffer.tostring(text)}`)
        stream:close()
    end";
    let listens = |options: &str| {
        Served::start(&format!(
            "server = net.listen({{ port = 0, {options} {ACCEPT} }})"
        ))
    };
    let say = |server: &Served, words: &[u8]| {
        let mut stream = server.connect();
        let mut answer = String::new();
        let said = stream.write_all(words);
        // Who is refused may find its connection reset.
        let _cut = said.and_then(|()| stream.read_to_string(&mut answer));
        answer
    };
    let server = listens("trustProxy = { '127.0.0.0/8' }, proxyProtocol = true,");
    let hello = |header: Vec<u8>| [&header[..], b"hello"].concat();
    assert_eq!(
        say(&server, &hello(v1("192.0.2.7"))),
        "192.0.2.7 50123 hello"
    );
    assert_eq!(
        say(&server, &hello(v2(0x21, 0x11, SAID))),
        "192.0.2.8 80 hello"
    );
    assert_eq!(say(&server, b"no header at all"), "");
    assert_eq!(server.stop(), "");
    let server = listens("trustProxy = { '10.0.0.1' }, proxyProtocol = true,");
    let answer = say(&server, &hello(v1("192.0.2.7")));
    assert!(answer.starts_with("127.0.0.1 ") && answer.contains("PROXY TCP4"));
    assert_eq!(server.stop(), "");
    let source = "require('@huki/net').listen({ port = 0, proxyProtocol = true, accept = print })";
    let output = crate::support::run(source, &[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let needs = "net.listen: option 'proxyProtocol' needs the proxies' addresses in 'trustProxy'";
    assert!(stderr.contains(needs), "{stderr}");
}
