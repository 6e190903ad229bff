//! TLS with real peers at the other end: curl, OpenSSL, tungstenite, and rustls as a client that
//! can misbehave on command. The certificates are made by each test.
//!
//! - `tls/certs.rs`   authorities and what they sign
//! - `tls/server.rs`  a server by core alone, on a thread
//! - `tls/openssl.rs` OpenSSL's `s_server` as the other end of `net.request`
//! - `tls/raw.rs`     raw streams by script
//! - `tls/script.rs`  servers by script, their options and reloads
//! - `tls/system.rs`  scripts for Lune, Lute and the WinHTTP-style API, by the system's trust
//! - `tls/zune.rs`    scripts for Zune
//!
//! Where curl or openssl is missing the test says so.

pub(crate) mod certs;
mod openssl;
mod proxied;
mod raw;
mod script;
pub(crate) mod server;
mod system;
mod zune;

use crate::harness::{Wire, folder, has_client};
use certs::{Ca, Pair, params, self_signed};
use hukilau_core::limits::Limits;
use hukilau_core::transport::tls::{ClientCertificates, Identity};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use server::{Server, bytes};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tungstenite::Message;

const NOBODY_ASKED: ClientCertificates = ClientCertificates::Ignored;

const ONLY_TLS12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
const ONLY_TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A client of rustls.
struct Dialer {
    roots: RootCertStore,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    versions: &'static [&'static rustls::SupportedProtocolVersion],
}

impl Dialer {
    fn trusting(ca: &Ca) -> Self {
        let der = CertificateDer::from_pem_slice(ca.pem().as_bytes()).expect("PEM");
        let mut roots = RootCertStore::empty();
        roots.add(der).expect("an authority");
        Self {
            roots,
            identity: None,
            versions: rustls::ALL_VERSIONS,
        }
    }

    fn being(mut self, pair: &Pair) -> Self {
        let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM");
        self.identity = Some((vec![cert], key));
        self
    }

    fn config(&self) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .expect("ring knows both versions")
            .with_root_certificates(self.roots.clone());
        let mut config = match &self.identity {
            Some((chain, key)) => builder
                .with_client_auth_cert(chain.clone(), key.clone_key())
                .expect("the two belong together"),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }

    fn dial(&self, server: &Server, name: &str) -> Stream {
        dial(&Arc::new(self.config()), server, name)
    }
}

fn dial(config: &Arc<ClientConfig>, server: &Server, name: &str) -> Stream {
    let name = name.to_owned().try_into().expect("a name");
    let session = ClientConnection::new(Arc::clone(config), name).expect("the settings agree");
    StreamOwned::new(session, Wire::connect(server.port).stream)
}

/// Asks, and reads what the length announced; the body.
#[track_caller]
fn get(stream: &mut Stream, target: &str) -> Vec<u8> {
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it is taken");
    body(stream)
}

#[track_caller]
fn body(stream: &mut Stream) -> Vec<u8> {
    let mut got = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        if let Some((head, body)) = split_head(&got) {
            let length = head.to_ascii_lowercase();
            let length = length.split("content-length: ").nth(1).expect("a length");
            let length: usize = length.lines().next().unwrap().parse().expect("a number");
            if body.len() >= length {
                return body.to_vec();
            }
        }
        let count = stream.read(&mut piece).expect("an answer comes");
        assert!(count > 0, "the end came in the middle");
        got.extend_from_slice(&piece[..count]);
    }
}

fn split_head(bytes: &[u8]) -> Option<(String, &[u8])> {
    let end = crate::harness::find(bytes, b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..end].to_vec()).expect("heads are ASCII");
    Some((head, &bytes[end + 4..]))
}

fn leaf(stream: &Stream) -> CertificateDer<'static> {
    let chain = stream.conn.peer_certificates().expect("a server shows one");
    chain[0].clone().into_owned()
}

fn der(pair: &Pair) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("PEM")
}

/// Writes `text` to a file whose path is returned.
fn file(name: &str, text: &str) -> String {
    let path = folder("tls").join(name);
    std::fs::write(&path, text).expect("target is writable");
    path.into_os_string()
        .into_string()
        .expect("paths are UTF-8")
}

#[test]
fn rfc8446_and_rfc5246_bodies_of_all_sizes_pass_either_way() {
    let ca = Ca::new("authority");
    let server = Server::new(&[&ca.issue(&["localhost"])], &NOBODY_ASKED);
    for versions in [ONLY_TLS12, ONLY_TLS13] {
        let mut dialer = Dialer::trusting(&ca);
        dialer.versions = versions;
        let mut stream = dialer.dial(&server, "localhost");
        for count in [0, 1, 16_383, 16_384, 16_385, 100_000, 1_000_000] {
            assert!(get(&mut stream, &format!("/bytes/{count}")) == bytes(count));
            if count > 0 {
                let sent = bytes(count);
                let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {count}\r\n\r\n");
                stream.write_all(head.as_bytes()).expect("it is taken");
                stream.write_all(&sent).expect("it is taken");
                assert!(body(&mut stream) == sent, "{count} bytes");
            }
        }
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        // Pipelined requests in one record, answers in order.
        let twice = "GET /bytes/3 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2);
        stream.write_all(twice.as_bytes()).expect("it is taken");
        stream.conn.send_close_notify();
        stream.flush().expect("it is taken");
        let mut rest = String::new();
        let end = stream.read_to_string(&mut rest);
        end.expect("the server says close_notify too");
        assert_eq!(rest.matches("abc").count(), 2, "{rest}");
        assert_eq!(server.next_end(), "closed");
    }
}

#[test]
fn rfc6455_websocket_messages_pass_over_tls() {
    let ca = Ca::new("authority");
    let server = Server::new(&[&ca.issue(&["localhost"])], &NOBODY_ASKED);
    let stream = Dialer::trusting(&ca).dial(&server, "localhost");
    let (mut client, _) = tungstenite::client("wss://localhost/ws", stream).expect("it upgrades");
    for count in [0, 1, 125, 65_536, 300_000] {
        let message = Message::binary(bytes(count));
        client.send(message.clone()).expect("it is taken");
        assert!(client.read().expect("an echo") == message);
    }
    client.close(None).expect("it is taken");
    while client.read().is_ok() {}
    assert_eq!(server.next_end(), "closed");
}

#[test]
fn rfc6066_3_the_name_asked_for_chooses_the_certificate() {
    let ca = Ca::new("authority");
    let pairs = [
        ca.issue(&["first.test"]),
        ca.issue(&["*.wild.test", "wild.test"]),
        ca.issue(&["Second.test", "deep.wild.test"]),
    ];
    let server = Server::new(&pairs.each_ref(), &NOBODY_ASKED);
    let cases = [
        ("first.test", 0),
        ("second.test", 2),
        ("SECOND.test", 2),
        ("wild.test", 1),
        ("a.wild.test", 1),
        ("deep.wild.test", 2),
    ];
    for (name, index) in cases {
        let mut stream = Dialer::trusting(&ca).dial(&server, name);
        assert_eq!(get(&mut stream, "/bytes/1"), b"a", "{name}");
        assert!(leaf(&stream) == der(&pairs[index]), "{name}");
    }
    // Who asks for an unknown name is shown the first, and may decide.
    for unknown in ["b.a.wild.test", "other.test", "127.0.0.1"] {
        let mut stream = Dialer::trusting(&ca).dial(&server, unknown);
        let refused = stream.write(b"x").expect_err("no certificate is for it");
        assert!(refused.to_string().contains("first.test"), "{refused}");
    }
}

#[test]
fn a_client_certificate_may_be_asked_for_or_required() {
    let (ca, others) = (Ca::new("authority"), Ca::new("others"));
    let own = ca.issue(&["localhost"]);
    let mut alice = params(&["alice"]);
    let name = &mut alice.distinguished_name;
    name.push(rcgen::DnType::OrganizationName, "Example, Inc.");
    let alice = ca.sign(&alice);
    let anonymous = Dialer::trusting(&ca);
    let known = Dialer::trusting(&ca).being(&alice);
    let stranger = Dialer::trusting(&ca).being(&others.issue(&["mallory"]));

    let roots = ca.pem().into_bytes();
    let optional = Server::new(&[&own], &ClientCertificates::Optional(roots.clone()));
    assert_eq!(
        get(&mut anonymous.dial(&optional, "localhost"), "/whoami"),
        b"nobody"
    );
    let subject = get(&mut known.dial(&optional, "localhost"), "/whoami");
    assert_eq!(subject, b"O=Example\\, Inc.,CN=alice");

    let required = Server::new(&[&own], &ClientCertificates::Required(roots));
    let subject = get(&mut known.dial(&required, "localhost"), "/whoami");
    assert_eq!(subject, b"O=Example\\, Inc.,CN=alice");
    // One that is resumed is still the one it was.
    let config = Arc::new(known.config());
    for _ in 0..2 {
        let subject = get(&mut dial(&config, &required, "localhost"), "/whoami");
        assert_eq!(subject, b"O=Example\\, Inc.,CN=alice");
    }
    for (server, dialer, alert) in [
        (&required, &anonymous, "CertificateRequired"),
        (&required, &stranger, "UnknownCA"),
        (&optional, &stranger, "UnknownCA"),
    ] {
        let mut stream = dialer.dial(server, "localhost");
        // In TLS 1.3 the client has finished before it is refused.
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let refused = stream.read(&mut [0; 100]).expect_err("it is refused");
        assert!(refused.to_string().contains(alert), "{refused}");
    }
}

#[test]
fn a_reload_is_seen_by_new_connections_and_not_by_old_ones() {
    let ca = Ca::new("authority");
    let (before, after) = (ca.issue(&["localhost"]), ca.issue(&["localhost"]));
    let server = Server::new(&[&before], &NOBODY_ASKED);
    let config = Arc::new(Dialer::trusting(&ca).config());
    let mut old = dial(&config, &server, "localhost");
    assert_eq!(get(&mut old, "/bytes/1"), b"a");
    let reloaded = server.tls.reload(&[after.identity()], &NOBODY_ASKED);
    reloaded.expect("the settings agree");
    // It has a ticket of the old settings, and must not resume by it.
    let mut new = dial(&config, &server, "localhost");
    assert_eq!(get(&mut new, "/bytes/2"), b"ab");
    assert!(leaf(&new) == der(&after));
    assert_eq!(new.conn.handshake_kind(), Some(rustls::HandshakeKind::Full));
    assert_eq!(get(&mut old, "/bytes/3"), b"abc");
    assert!(leaf(&old) == der(&before));
    // What cannot be used changes nothing.
    assert!(server.tls.reload(&[], &NOBODY_ASKED).is_err());
    let mut again = dial(&config, &server, "localhost");
    assert_eq!(get(&mut again, "/bytes/2"), b"ab");
    assert_eq!(
        again.conn.handshake_kind(),
        Some(rustls::HandshakeKind::Resumed)
    );
}

#[test]
fn http_without_tls_is_told_so_and_garbage_gets_an_alert() {
    let ca = Ca::new("authority");
    let server = Server::new(&[&ca.issue(&["localhost"])], &NOBODY_ASKED);
    let mut bystander = Dialer::trusting(&ca).dial(&server, "localhost");
    assert_eq!(get(&mut bystander, "/bytes/1"), b"a");

    for pieces in [
        &["GET / HTTP/1.1\r\nHost: a\r\n\r\n"][..],
        &["P", "OST / HTTP/1.1\r\n"],
    ] {
        let mut wire = Wire::connect(server.port);
        for piece in pieces {
            // The answer may come before the rest is asked for.
            let _ = wire.try_send(piece);
        }
        let answer = String::from_utf8(wire.ends()).expect("text");
        assert!(
            answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
            "{answer}"
        );
        let (_, body) = split_head(answer.as_bytes()).expect("a head");
        assert_eq!(body, b"This port speaks HTTPS; the request did not.");
        assert!(answer.contains(&format!("Content-Length: {}\r\n", body.len())));
    }
    for garbage in [
        &b"\x00\x00\x00\x00\x00\x00"[..],
        b"\x16\x03\x01\xff\xff\x01",
        b"\x80\x2e\x01\x00\x02\x00\x15",
    ] {
        let mut wire = Wire::connect(server.port);
        wire.send(garbage);
        let answer = wire.ends();
        // An alert record (21) of TLS 1.2 (3, 3): fatal (2).
        assert!(answer.starts_with(&[21, 3, 3, 0, 2, 2]), "{answer:?}");
    }
    assert_eq!(get(&mut bystander, "/bytes/2"), b"ab");
}

#[test]
fn rfc9112_9_8_a_request_cut_short_is_not_taken_for_whole() {
    let ca = Ca::new("authority");
    let server = Server::new(&[&ca.issue(&["localhost"])], &NOBODY_ASKED);
    let mut stream = Dialer::trusting(&ca).dial(&server, "localhost");
    assert_eq!(get(&mut stream, "/bytes/1"), b"a");
    let half = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf";
    stream.write_all(half).expect("it is taken");
    let end = stream.sock.shutdown(std::net::Shutdown::Write);
    end.expect("it is connected");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("close_notify comes");
    assert!(answer.starts_with(b"HTTP/1.1 400 "));
    let cause = server.next_end();
    assert!(cause.starts_with("the peer broke a rule"), "{cause}");

    // Between requests it hides nothing.
    let mut stream = Dialer::trusting(&ca).dial(&server, "localhost");
    assert_eq!(get(&mut stream, "/bytes/1"), b"a");
    drop(stream.sock);
    assert_eq!(server.next_end(), "closed");
}

#[test]
fn who_is_silent_in_the_handshake_is_got_rid_of() {
    let ca = Ca::new("authority");
    let limits = Limits {
        tls_handshake_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = Server::with_limits(&[&ca.issue(&["localhost"])], &NOBODY_ASKED, limits);
    let mut silent = Wire::connect(server.port);
    let mut halfway = Wire::connect(server.port);
    halfway.send(b"\x16\x03\x01");
    for wire in [&mut silent, &mut halfway] {
        let end = wire.stream.read(&mut [0]);
        let ended = end.map_or_else(
            |error| error.kind() == ErrorKind::ConnectionReset,
            |count| count == 0,
        );
        assert!(ended);
    }
    let mut stream = Dialer::trusting(&ca).dial(&server, "localhost");
    assert_eq!(get(&mut stream, "/bytes/1"), b"a");
}

#[test]
fn more_handshakes_than_a_turn_may_advance_all_succeed() {
    let ca = Ca::new("authority");
    let limits = Limits {
        handshakes_per_turn: 1,
        ..Limits::default()
    };
    let server = Server::with_limits(&[&ca.issue(&["localhost"])], &NOBODY_ASKED, limits);
    let dialer = Dialer::trusting(&ca);
    let mut streams: Vec<_> = (0..20).map(|_| dialer.dial(&server, "localhost")).collect();
    for stream in &mut streams {
        let request = b"GET /bytes/5 HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut hello = Vec::new();
        stream.conn.write_tls(&mut hello).expect("a hello");
        stream.sock.write_all(&hello).expect("it is taken");
        stream.conn.writer().write_all(request).expect("it waits");
    }
    for stream in &mut streams {
        assert_eq!(body(stream), b"abcde");
    }
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    let (one, other) = (self_signed(&["a.test"]), self_signed(&["b.test"]));
    let refused = |cert: &str, key: &str| {
        let refused = Identity::from_pem(cert.as_bytes(), key.as_bytes());
        refused.expect_err("it cannot work").to_string()
    };
    assert_eq!(refused("", &one.key), "cert: holds no certificate");
    assert_eq!(refused(&one.cert, &one.cert), "key: holds no private key");
    let boxed = |head: &str| format!("-----BEGIN {head}-----\nMIIBAA==\n-----END {head}-----\n");
    let modern = boxed("ENCRYPTED PRIVATE KEY");
    let older = boxed("RSA PRIVATE KEY").replacen(
        "KEY-----\n",
        "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,3E56\n\n",
        1,
    );
    for key in [modern, older] {
        assert_eq!(
            refused(&one.cert, &key),
            "key: has a passphrase, and only keys without one can be used: \
             write one by `openssl pkey -in key.pem -out plain.pem`"
        );
    }
    assert_eq!(
        refused(&one.cert, &other.key),
        "key: does not belong to the certificate"
    );
    let broken = one.cert.replace("-----END", "----END");
    assert!(refused(&broken, &one.key).starts_with("cert: is malformed PEM"));
    let clients = ClientCertificates::Required(b"nothing".to_vec());
    let tls = hukilau_core::transport::tls::ServerTls::new(&[one.identity()], &clients);
    assert_eq!(
        tls.expect_err("no authority").to_string(),
        "ca: holds no certificate"
    );
}

#[test]
fn curl_over_tls_gets_posts_and_keeps_its_connection() {
    if !has_client("curl") {
        return;
    }
    let ca = Ca::new("authority");
    let alice = ca.issue(&["alice"]);
    let clients = ClientCertificates::Optional(ca.pem().into_bytes());
    let server = Server::new(&[&ca.issue(&["localhost"])], &clients);
    let (authority, cert) = (file("ca.pem", &ca.pem()), file("alice.pem", &alice.cert));
    let key = file("alice.key", &alice.key);
    let url = |path: &str| format!("https://localhost:{}{path}", server.port);
    let curl = |arguments: &[&str]| {
        let output = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "20",
                "--noproxy",
                "*",
                "--ipv4",
            ])
            .args(arguments)
            .output()
            .expect("curl runs");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (String::from_utf8(output.stdout).expect("text"), errors)
    };
    let with_ca = |arguments: &[&str]| {
        let (answer, errors) = curl(&[&["--cacert", &authority], arguments].concat());
        assert_eq!(errors, "", "{arguments:?}");
        answer
    };
    let both = with_ca(&[
        "--write-out",
        " %{num_connects} %{http_version};",
        &url("/bytes/3"),
        &url("/bytes/2"),
    ]);
    assert_eq!(both, "abc 1 1.1;ab 0 1.1;");
    let upload = file("upload", &String::from_utf8(bytes(200_000)).expect("ASCII"));
    let posted = with_ca(&["--data-binary", &format!("@{upload}"), &url("/")]);
    assert!(posted.as_bytes() == bytes(200_000));
    let subject = with_ca(&["--cert", &cert, "--key", &key, &url("/whoami")]);
    assert_eq!(subject, "CN=alice");
    for version in ["1.2", "1.3"] {
        assert_eq!(with_ca(&["--tls-max", version, &url("/bytes/1")]), "a");
    }
    let (_, errors) = curl(&[&url("/")]);
    assert!(errors.contains("curl: (60)"), "{errors}");
}

#[test]
fn openssl_s_client_gets_verifies_and_resumes() {
    if !has_openssl() {
        return;
    }
    let ca = Ca::new("authority");
    let server = Server::new(&[&ca.issue(&["localhost"])], &NOBODY_ASKED);
    let authority = file("ca.pem", &ca.pem());
    let session = folder("tls").join("session");
    let session = session.to_str().expect("paths are UTF-8");
    let connect = |more: &[&str], expected: &str| {
        let mut child = Command::new("openssl")
            .args([
                "s_client",
                "-connect",
                &format!("127.0.0.1:{}", server.port),
            ])
            .args(["-servername", "localhost", "-verify_hostname", "localhost"])
            .args(["-CAfile", &authority, "-verify_return_error", "-ign_eof"])
            .args(["-alpn", "http/1.1"])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl runs");
        let mut stdin = child.stdin.take().expect("it is piped");
        let request = b"GET /bytes/5 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        stdin.write_all(request).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        drop(stdin);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for words in [
            "Verify return code: 0 (ok)",
            "ALPN protocol: http/1.1",
            "\r\n\r\nabcde",
            expected,
        ] {
            assert!(text.contains(words), "{more:?} lacks {words:?}: {text}");
        }
    };
    connect(&["-tls1_2", "-sess_out", session], "New, TLSv1.2");
    connect(&["-tls1_2", "-sess_in", session], "Reused, TLSv1.2");
    connect(&["-tls1_3", "-sess_out", session], "New, TLSv1.3");
    connect(&["-tls1_3", "-sess_in", session], "Reused, TLSv1.3");
}

fn has_openssl() -> bool {
    let found = Command::new("openssl")
        .arg("version")
        .stdout(Stdio::null())
        .status();
    let found = found.is_ok_and(|status| status.success());
    assert!(
        found || !crate::harness::clients_required(),
        "openssl is required here"
    );
    if !found {
        eprintln!("skipped: openssl is not installed");
    }
    found
}
