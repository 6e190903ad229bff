//! OpenSSL's `s_server` as the other end of `net.request`: versions, resumption, bodies, and each
//! kind of certificate on either side.
//!
//! Not here: `s_client` as the other end of our server (`tls.rs`).

use super::certs::{Ca, Pair, params, self_signed};
use super::server::bytes;
use super::{file, has_openssl};
use crate::harness::{Huki, PATIENCE, folder};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;

/// A running `openssl s_server`.
struct Peer {
    child: Child,
    port: u16,
    /// What `-WWW` serves.
    files: PathBuf,
}

impl Peer {
    /// Shows what it knows of each connection (`-www`), or serves files (`-WWW`).
    #[track_caller]
    fn new(pair: &Pair, more: &[&str]) -> Self {
        let (cert, key) = (file("cert.pem", &pair.cert), file("key.pem", &pair.key));
        let files = folder("openssl-files");
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0"])
            .args(["-cert", &cert, "-key", &key])
            .args(more)
            .current_dir(&files)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl runs");
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, address) = channel();
        // Reads on to the end, or it would meet a full pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(port) = line.strip_prefix("ACCEPT 127.0.0.1:") {
                    // A receiver that is gone has failed already.
                    let _ = sender.send(port.trim().parse());
                }
            }
        });
        let port = address.recv_timeout(PATIENCE).expect("it names its port");
        Self {
            child,
            port: port.expect("a number"),
            files,
        }
    }

    /// What a script prints that may call `shown(path, tls)`: the body, or what went wrong.
    #[track_caller]
    fn asked(&self, script: &str) -> String {
        let script = format!(
            "local function shown(path, tls)
                local url = 'https://localhost:{}' .. path
                local isWell, result = pcall(net.request, {{ url = url, tls = tls }})
                return if isWell then result.body else tostring(result)
            end
            {script}",
            self.port
        );
        let finished = Huki::run_in(&folder("openssl"), &script).finish();
        assert!(finished.status.success(), "{}", finished.stderr);
        assert_eq!(finished.stderr, "");
        finished.stdout
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether `openssl` is OpenSSL: `s_server` of others does not choose its port.
fn has_s_server() -> bool {
    if !has_openssl() {
        return false;
    }
    let output = Command::new("openssl").arg("version").output();
    let version = output.expect("openssl runs").stdout;
    let is_openssl = version.starts_with(b"OpenSSL ");
    if !is_openssl {
        let version = String::from_utf8_lossy(&version);
        eprintln!("skipped: {} is not OpenSSL", version.trim_end());
    }
    is_openssl
}

#[test]
fn openssl_s_server_agrees_on_each_version_and_resumes() {
    if !has_s_server() {
        return;
    }
    let ca = Ca::new("authority");
    for (option, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let peer = Peer::new(
            &ca.issue(&["localhost"]),
            &["-www", "-alpn", "http/1.1", option],
        );
        let told = peer.asked(&format!(
            "local tls = {{ ca = [[{}]] }}
            for _ = 1, 2 do
                print(string.match(shown('/', tls), '\\n%a+, TLS[^,]+,'))
            end",
            ca.pem()
        ));
        let expected = format!("\nNew, {version},\n\nReused, {version},\n");
        assert_eq!(told, expected);
    }
}

#[test]
fn openssl_s_server_sends_bodies_of_all_sizes() {
    if !has_s_server() {
        return;
    }
    let ca = Ca::new("authority");
    let peer = Peer::new(&ca.issue(&["localhost"]), &["-WWW"]);
    let sizes = [0, 1, 5_000, 300_000];
    for size in sizes {
        let path = peer.files.join(format!("{size}.txt"));
        std::fs::write(path, bytes(size)).expect("target is writable");
    }
    let told = peer.asked(&format!(
        "for _, size in {{ 0, 1, 5000, 300000 }} do
            local body = shown(`/{{size}}.txt`, {{ ca = [[{}]] }})
            print(#body, string.sub(body, -1))
        end",
        ca.pem()
    ));
    let expected = sizes.map(|size| {
        let last = String::from_utf8(bytes(size)).expect("ASCII").pop();
        format!("{size}\t{}\n", last.map(String::from).unwrap_or_default())
    });
    assert_eq!(told, expected.concat());
}

#[test]
fn openssl_s_server_sees_our_certificate_and_we_see_through_its_own() {
    if !has_s_server() {
        return;
    }
    let (ca, stranger) = (Ca::new("authority"), Ca::new("stranger"));
    let alice = ca.issue(&["alice"]);
    let authority = file("ca.pem", &ca.pem());
    let strict = ["-www", "-Verify", "1", "-verify_return_error", "-CAfile"];
    let strict = [&strict[..], &[&authority]].concat();
    let peer = Peer::new(&ca.issue(&["localhost"]), &strict);
    let told = peer.asked(&format!(
        "print(string.match(shown('/', {{ ca = [[{}]], cert = [[{}]], key = [[{}]] }}), 'Subject: CN ?= ?(%a+)'))
        print(shown('/', {{ ca = [[{}]] }}))",
        ca.pem(), alice.cert, alice.key, ca.pem()
    ));
    let (first, second) = told.split_once('\n').expect("two lines");
    assert_eq!(first, "alice");
    assert!(second.contains("TLS with localhost failed: "), "{second}");

    let mut stale = params(&["localhost"]);
    stale.not_before = rcgen::date_time_ymd(2001, 1, 1);
    stale.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let itself = self_signed(&["localhost"]);
    let table = [
        (ca.sign(&stale), ca.pem(), "the certificate has expired"),
        (
            ca.issue(&["other.test"]),
            ca.pem(),
            "the certificate is for another name",
        ),
        (
            stranger.issue(&["localhost"]),
            ca.pem(),
            "the certificate was not issued by anyone trusted here",
        ),
        (
            Pair {
                cert: itself.cert.clone(),
                key: itself.key,
            },
            itself.cert,
            "New, TLSv1.3,",
        ),
    ];
    for (pair, trusted, words) in table {
        let peer = Peer::new(&pair, &["-www"]);
        let told = peer.asked(&format!("print(shown('/', {{ ca = [[{trusted}]] }}))"));
        assert!(told.contains(words), "{told}");
    }
}
