//! TLS behind a header of the PROXY protocol, which comes in the clear; and curl as a client that
//! sends such headers, with and without TLS.

use super::certs::Ca;
use super::{Dialer, Stream, body, file, get};
use crate::harness::{Huki, has_client};
use rustls::{ClientConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;

/// Answers with who asks, and how.
const SCRIPT: &str = r#"
local server = net.serve({
    trustProxy = { "127.0.0.1" },
    proxyProtocol = true,
    request = function(request) return `{request.ip} {request.port} {request.scheme}` end,
    websocket = { message = function(ws, message) ws:send(`{ws.ip} {message}`) end },
    tls = TLS,
})
print(`port {server.port}`)
"#;

const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 50123 443\r\n";

/// Version 2, with a TLV of 3,000 bytes.
fn binary() -> Vec<u8> {
    let said = [192, 0, 2, 8, 198, 51, 100, 1, 0, 80, 1, 187, 4, 0x0b, 0xb8];
    let length = u16::try_from(said.len() + 3_000).expect("short");
    let fixed = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &length.to_be_bytes()[..]].concat();
    [&fixed[..], &said, &[7; 3_000]].concat()
}

fn serve(ca: &Ca) -> Huki {
    let pair = ca.issue(&["one.test", "localhost"]);
    let tls = format!("{{ cert = [[{}{}]] }}", pair.cert, pair.key);
    Huki::serve(&SCRIPT.replace("TLS", &tls))
}

/// TLS on `socket`, on which a proxy has spoken or is about to.
fn secure(ca: &Ca, socket: TcpStream) -> Stream {
    let name = "one.test".try_into().expect("a name");
    let session = ClientConnection::new(Arc::new(Dialer::trusting(ca).config()), name);
    StreamOwned::new(session.expect("the settings agree"), socket)
}

#[test]
fn a_header_comes_before_the_handshake_whole_or_byte_by_byte() {
    let ca = Ca::new("authority");
    let huki = serve(&ca);
    for (header, who) in [
        (LINE.to_vec(), "192.0.2.7 50123 https"),
        (binary(), "192.0.2.8 80 https"),
    ] {
        for size in [header.len(), 1, 7] {
            let mut socket = huki.connect().stream;
            socket.set_nodelay(true).expect("TCP has it");
            for piece in header.chunks(size) {
                socket.write_all(piece).expect("it reads");
            }
            let mut stream = secure(&ca, socket);
            assert_eq!(get(&mut stream, "/"), who.as_bytes());
            // The second request finds the connection as the first has left it.
            assert_eq!(get(&mut stream, "/"), who.as_bytes());
        }
    }
}

#[test]
fn the_hello_may_come_in_one_piece_with_the_header() {
    let ca = Ca::new("authority");
    let huki = serve(&ca);
    let mut socket = huki.connect().stream;
    let mut stream = secure(&ca, socket.try_clone().expect("a descriptor"));
    let mut both = LINE.to_vec();
    stream.conn.write_tls(&mut both).expect("memory takes all");
    assert!(both.len() > LINE.len() + 100, "there is a hello");
    socket.write_all(&both).expect("it reads");
    assert_eq!(get(&mut stream, "/"), b"192.0.2.7 50123 https");
}

#[test]
fn tls_without_a_header_and_http_behind_one_get_nowhere() {
    let ca = Ca::new("authority");
    let huki = serve(&ca);
    let mut bare = secure(&ca, huki.connect().stream);
    assert!(bare.write_all(b"GET / HTTP/1.1\r\n\r\n").is_err() || bare.read(&mut [0]).is_err());
    // Behind the header it is told as ever.
    let mut wire = huki.connect();
    wire.send([LINE, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"].concat());
    let reply = wire.reply();
    assert_eq!(reply.status, 400);
    // A header inside TLS is no HTTP.
    let mut socket = huki.connect().stream;
    socket.write_all(LINE).expect("it reads");
    let mut stream = secure(&ca, socket);
    stream.write_all(LINE).expect("it reads");
    stream.write_all(b"\r\n").expect("it reads");
    let heard = body(&mut stream);
    assert!(!heard.is_empty(), "why");
}

/// Runs curl with `arguments`: what it printed, if it succeeded.
fn curl(arguments: &[&str]) -> Option<String> {
    let common = ["--silent", "--max-time", "20", "--noproxy", "*"];
    let run = Command::new("curl").args(common).args(arguments).output();
    let output = run.expect("curl runs");
    let text = String::from_utf8(output.stdout).expect("answers are text");
    output.status.success().then_some(text)
}

/// It announces itself by version 1.
#[test]
fn curl_announces_itself_with_and_without_tls() {
    if !has_client("curl") {
        return;
    }
    let ca = Ca::new("authority");
    let authority = file("proxied.pem", &ca.pem());
    let plain = Huki::serve(&SCRIPT.replace("tls = TLS,", ""));
    let secure = serve(&ca);
    for (url, more, scheme) in [
        (format!("http://127.0.0.1:{}/", plain.port), &[][..], "http"),
        (
            format!("https://localhost:{}/", secure.port),
            &["--cacert", &authority, "--ipv4"],
            "https",
        ),
    ] {
        let told = ["--write-out", " %{local_ip} %{local_port}", &url];
        let says = ["--haproxy-protocol"];
        let answer = curl(&[&told[..], more, &says].concat()).expect("it is served");
        let words: Vec<_> = answer.split(' ').collect();
        assert_eq!(words[..3], [words[3], words[4], scheme], "{answer}");
        assert_eq!(
            curl(&[&told[..], more].concat()),
            None,
            "it has not said who it is"
        );
    }
}
