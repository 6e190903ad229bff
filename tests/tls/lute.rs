//! TLS as scripts for Lute and for the WinHTTP-style API use it: certificates in files on one side,
//! the system's trust on the other. The program is in `luau-binding/tests/luau/lute/tls`.

use super::certs::{Ca, self_signed};
use super::file;
use crate::harness::{BINARY, folder, repository};
use std::process::Command;

#[test]
fn rows_102_103_and_107_https_and_wss_by_the_systems_trust() {
    let ca = Ca::new("System");
    let (own, other) = (ca.issue(&["localhost"]), self_signed(&["localhost"]));
    // A folder is read by the names that `openssl rehash` gives.
    let trusted = folder("roots");
    std::fs::write(trusted.join("0123abcd.0"), ca.pem()).expect("the folder can be written");
    let ways = [
        ("SSL_CERT_FILE", file("system.pem", &ca.pem())),
        ("SSL_CERT_DIR", trusted.display().to_string()),
    ];
    let program = repository().join("luau-binding/tests/luau/lute/tls/https.luau");
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
