//! TLS as scripts see it: the options of `net.serve`, what a request tells, and both reloads.

use super::certs::{Ca, Pair};
use super::{Dialer, Stream, body, der, file, get, leaf};
use crate::harness::{Huki, Wire};
use rustls::{ClientConnection, StreamOwned};
use std::io::Write;
use std::sync::Arc;
use tungstenite::Message;

/// Answers with what it knows of the request; `/reload` reloads.
const SCRIPT: &str = r#"
local server
server = net.serve({
    port = 0,
    request = function(request)
        if request.path == "/reload" then
            local ok, why = pcall(server.reloadTls, server)
            return `{ok} {why}`
        end
        return `{request.scheme} {request.clientSubject}`
    end,
    websocket = { message = function(ws, message) ws:send(message) end },
    tls = TLS,
})
print(`port {server.port}`)
"#;

fn serve(tls: &str) -> Huki {
    Huki::serve(&SCRIPT.replace("TLS", tls))
}

fn dial(dialer: &Dialer, huki: &Huki, name: &str) -> Stream {
    let name = name.to_owned().try_into().expect("a name");
    let session = ClientConnection::new(Arc::new(dialer.config()), name);
    StreamOwned::new(session.expect("the settings agree"), huki.connect().stream)
}

/// A certificate in two files.
struct Files {
    cert: String,
    key: String,
}

impl Files {
    fn of(pair: &Pair) -> Self {
        Self {
            cert: file("cert.pem", &pair.cert),
            key: file("key.pem", &pair.key),
        }
    }

    fn replace(&self, pair: &Pair) {
        std::fs::write(&self.cert, &pair.cert).expect("target is writable");
        std::fs::write(&self.key, &pair.key).expect("target is writable");
    }

    fn as_table(&self) -> String {
        format!("{{ cert = \"{}\", key = \"{}\" }}", self.cert, self.key)
    }
}

#[test]
fn a_script_serves_https_and_wss_by_files_and_by_text() {
    let ca = Ca::new("authority");
    let (one, other) = (ca.issue(&["one.test"]), ca.issue(&["other.test"]));
    let text = format!("{{ cert = [[{}{}]] }}", other.cert, other.key);
    let list = format!("{{ {}, {text} }}", Files::of(&one).as_table());
    let huki = serve(&list);
    let dialer = Dialer::trusting(&ca);
    for (name, pair) in [("one.test", &one), ("other.test", &other)] {
        let mut stream = dial(&dialer, &huki, name);
        assert_eq!(get(&mut stream, "/"), b"https nil");
        assert!(leaf(&stream) == der(pair));
    }
    let stream = dial(&dialer, &huki, "one.test");
    let opened = tungstenite::client("wss://one.test/", stream);
    let (mut client, _) = opened.expect("it upgrades");
    client.send(Message::text("hello")).expect("it is taken");
    assert_eq!(client.read().expect("an echo"), Message::text("hello"));
    let mut plain = Wire::connect(huki.port);
    assert_eq!(plain.get("/").status, 400);
}

/// One worker accepts; the one that serves does the handshake, with certificates of its own.
#[test]
fn workers_that_hand_connections_over_serve_https_and_wss() {
    let ca = Ca::new("authority");
    let files = Files::of(&ca.issue(&["localhost"]));
    let script = SCRIPT
        .replace("TLS", &files.as_table())
        .replace("port = 0,", "port = 0, balance = \"connections\",")
        .replace(
            "{request.clientSubject}",
            "{require(\"@huki/process\").worker.index}",
        );
    let huki = Huki::serve_on("2", &script);
    let dialer = Dialer::trusting(&ca);
    let (mut held, mut seen) = (Vec::new(), std::collections::BTreeSet::new());
    while seen.len() < 2 {
        let mut stream = dial(&dialer, &huki, "localhost");
        let answer = get(&mut stream, "/");
        assert!(answer.starts_with(b"https "), "{answer:?}");
        seen.insert(answer);
        held.push(stream);
    }
    for _ in 0..4 {
        let stream = dial(&dialer, &huki, "localhost");
        let opened = tungstenite::client("wss://localhost/", stream);
        let (mut client, _) = opened.expect("it upgrades");
        client.send(Message::text("hello")).expect("it is taken");
        assert_eq!(client.read().expect("an echo"), Message::text("hello"));
    }
}

#[test]
fn a_script_learns_whose_certificate_a_client_has_shown() {
    let ca = Ca::new("authority");
    let files = Files::of(&ca.issue(&["localhost"]));
    let authority = file("ca.pem", &ca.pem());
    let pair = format!("cert = \"{}\", key = \"{}\"", files.cert, files.key);
    let huki = serve(&format!(
        "{{ {pair}, clientCa = \"{authority}\", requireClientCert = true }}"
    ));
    let known = Dialer::trusting(&ca).being(&ca.issue(&["alice"]));
    assert_eq!(
        get(&mut dial(&known, &huki, "localhost"), "/"),
        b"https CN=alice"
    );
}

#[test]
fn a_script_and_a_hang_up_reload_certificates_under_open_connections() {
    let ca = Ca::new("authority");
    let pairs: Vec<_> = (0..3).map(|_| ca.issue(&["localhost"])).collect();
    let files = Files::of(&pairs[0]);
    let mut huki = serve(&files.as_table());
    let dialer = Dialer::trusting(&ca);
    let mut old = dial(&dialer, &huki, "localhost");
    assert_eq!(get(&mut old, "/"), b"https nil");

    files.replace(&pairs[1]);
    assert_eq!(get(&mut old, "/reload"), b"true nil");
    let mut new = dial(&dialer, &huki, "localhost");
    assert_eq!(get(&mut new, "/"), b"https nil");
    assert!(leaf(&new) == der(&pairs[1]));

    // What cannot be used changes nothing, and says so.
    std::fs::write(&files.key, "nothing").expect("target is writable");
    let why = String::from_utf8(get(&mut old, "/reload")).expect("text");
    assert!(why.starts_with("false "), "{why}");
    assert!(
        why.contains("server:reloadTls: tls.key: holds no private key"),
        "{why}"
    );
    huki.signal(rustix::process::Signal::HUP);
    huki.expect_stderr("TLS was not reloaded: tls.key: holds no private key");

    files.replace(&pairs[2]);
    huki.signal(rustix::process::Signal::HUP);
    // The signal is handled some time; connections that come later see it.
    loop {
        let mut stream = dial(&dialer, &huki, "localhost");
        assert_eq!(get(&mut stream, "/"), b"https nil");
        if leaf(&stream) == der(&pairs[2]) {
            break;
        }
        assert!(leaf(&stream) == der(&pairs[1]));
    }
    assert_eq!(get(&mut old, "/"), b"https nil");
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    old.write_all(request).expect("it is taken");
    assert_eq!(body(&mut old), b"https nil");
}

#[test]
fn options_that_cannot_work_name_the_argument() {
    let ca = Ca::new("authority");
    let files = Files::of(&ca.issue(&["localhost"]));
    let other = file("other.pem", &ca.issue(&["localhost"]).key);
    let (cert, key) = (&files.cert, &files.key);
    let cases = [
        (
            "{}",
            "net.serve: tls: option 'cert', a path or PEM text, is needed",
        ),
        (
            "{ cert = 1 }",
            "net.serve: tls: option 'cert' must be a string, not ",
        ),
        (
            "{ cert = \"gone.pem\" }",
            "net.serve: tls.cert: cannot read gone.pem: ",
        ),
        (
            "{ crt = \"\" }",
            "net.serve: tls: unknown option 'crt' (did you mean 'cert'?)",
        ),
        (
            &format!("{{ cert = \"{key}\" }}"),
            "net.serve: tls.cert: holds no certificate",
        ),
        (
            &format!("{{ cert = \"{cert}\", key = \"{other}\" }}"),
            "net.serve: tls.key: does not belong to the certificate",
        ),
        (
            &format!("{{ {}, {{ cert = \"{cert}\" }} }}", files.as_table()),
            "net.serve: tls[2]: option 'key' is not given, and 'cert' holds no private key",
        ),
        (
            &format!("{{ cert = \"{cert}\", key = \"{key}\", requireClientCert = true }}"),
            "net.serve: tls: option 'requireClientCert' needs 'clientCa'",
        ),
        (
            &format!("{{ cert = \"{cert}\", key = \"{key}\", clientCa = \"{key}\" }}"),
            "net.serve: tls.clientCa: holds no certificate",
        ),
    ];
    let tries: String = cases
        .iter()
        .map(|(tls, _)| {
            format!(
                "print(select(2, pcall(net.serve, {{ request = function() end, tls = {tls} }})))\n"
            )
        })
        .collect();
    let folder = crate::harness::folder("tls");
    let mut huki = Huki::run_in(&folder, &tries);
    for (tls, expected) in cases {
        huki.expect_stdout(expected);
        assert!(!tls.is_empty());
    }
}
