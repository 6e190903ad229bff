//! TLS as scripts for Lune, Lute and the WinHTTP-style API use it: certificates in files on one side,
//! the system's trust on the other. The programs are in `luau-binding/tests/luau/<system>/tls`.

use super::certs::{Ca, self_signed};
use super::file;
use crate::harness::{BINARY, Huki, folder, repository};
use std::process::Command;

/// Runs `program` where the system trusts an authority of ours, told by a file and by a folder. Its
/// arguments are a certificate by that authority, its key, and another certificate with its key.
#[track_caller]
fn run(program: &str) {
    let ca = Ca::new("System");
    let (own, other) = (ca.issue(&["localhost"]), self_signed(&["localhost"]));
    // A folder is read by the names that `openssl rehash` gives.
    let trusted = folder("roots");
    std::fs::write(trusted.join("0123abcd.0"), ca.pem()).expect("the folder can be written");
    let ways = [
        ("SSL_CERT_FILE", file("system.pem", &ca.pem())),
        ("SSL_CERT_DIR", trusted.display().to_string()),
    ];
    let program = repository().join("luau-binding/tests/luau").join(program);
    for (variable, value) in ways {
        let output = Command::new(BINARY)
            .arg("run")
            .arg(&program)
            .args([file("cert.pem", &own.cert), file("key.pem", &own.key)])
            .args([
                file("other.pem", &other.cert),
                file("other-key.pem", &other.key),
            ])
            .env_remove("SSL_CERT_FILE")
            .env_remove("SSL_CERT_DIR")
            .env(variable, value)
            .output()
            .expect("the binary under test runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            (output.status.code(), &*stderr),
            (Some(0), ""),
            "{variable}"
        );
        assert!(output.stdout.ends_with(b"ok\n"), "{variable}");
    }
}

#[test]
fn rows_102_103_and_107_https_and_wss_by_the_systems_trust() {
    run("lute/tls/https.luau");
}

#[test]
fn the_rows_about_tls_that_say_yes_for_lune() {
    run("lune/tls/rows.luau");
}

#[test]
fn the_rows_about_tls_that_say_yes_for_the_winhttp_api() {
    run("winhttp/tls/rows.luau");
}

/// A store without a root cannot be used, and says so; so who is refused as a stranger was looked for
/// among others. That those are Mozilla's is tested beside them (core's `tls/verify.rs`).
#[test]
fn a_system_that_trusts_nobody_is_lent_the_bundled_roots() {
    let own = self_signed(&["localhost"]);
    let script = format!(
        "local server = net.serve({{ port = 0, tls = {{ cert = [[{}]], key = [[{}]] }}, request = function() return 'x' end }})
        print(select(2, pcall(net.request, `https://localhost:{{server.port}}/`)))
        server:stop(0)",
        own.cert, own.key
    );
    let place = folder("nobody");
    let nothing = place.join("nothing").display().to_string();
    let (empty, full_of_nothing) = (folder("none"), file("empty.pem", ""));
    let empty = empty.display().to_string();
    for variables in [
        [("SSL_CERT_FILE", &*nothing), ("SSL_CERT_DIR", &*nothing)],
        [
            ("SSL_CERT_FILE", &*full_of_nothing),
            ("SSL_CERT_DIR", &*empty),
        ],
    ] {
        let finished = Huki::run_with(&place, &script, &variables).finish();
        assert_eq!(finished.stderr, "", "{variables:?}");
        let words =
            "TLS with localhost failed: the certificate was not issued by anyone trusted here";
        assert!(finished.stdout.contains(words), "{}", finished.stdout);
    }
}
